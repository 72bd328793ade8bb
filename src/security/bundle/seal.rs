//! The seal of a bundle: a key out of a passphrase (PBKDF2, SP 800-132), and AES-256-GCM (SP 800-38D) under it.
//!
//! ```text
//! file   = header | nonce (12) | contents, encrypted | tag (16)
//! header = magic CMJB | version u16 | "PBKDF2-HMAC-SHA256" | rounds u32 | salt | "AES-256-GCM"
//! ```
//!
//! Texts and salt have a `u32` length before them. The header is authenticated with the contents. Each bundle has a salt, and
//! so a key, of its own. Both algorithms are approved by FIPS 140-3 and those of the one cryptographic module; other
//! ones would be another version.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

use super::{Bundle, BundleError};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::JOIN_BUNDLE_BYTES_MAX;
use crate::env::Entropy;
use crate::security::Passphrase;

const MAGIC: &[u8; 4] = b"CMJB";
const VERSION: u16 = 1;
const DERIVATION: &str = "PBKDF2-HMAC-SHA256";
const CIPHER: &str = "AES-256-GCM";
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Rounds that are written: a guess costs whoever has the file as much as opening it costs us, about a second.
pub(super) const ROUNDS: u32 = 1_000_000;
/// Rounds that are accepted: fewer would be no protection, more would keep the reader busy for minutes.
const ROUNDS_MIN: u32 = 600_000;
const ROUNDS_MAX: u32 = 10_000_000;
const _: () = assert!(ROUNDS_MIN <= ROUNDS && ROUNDS <= ROUNDS_MAX);

/// The two parts of a sealed file. Nothing in it is believed yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    header: &'a [u8],
    rounds: u32,
    pub(super) salt: &'a [u8],
    nonce: [u8; NONCE_LEN],
    /// Contents and tag.
    sealed: &'a [u8],
}

impl Bundle {
    /// Seals the bundle. Takes about a second of one processor.
    pub fn seal(&self, passphrase: &Passphrase, entropy: &dyn Entropy) -> Result<Vec<u8>, BundleError> {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).string(DERIVATION).u32(ROUNDS).bytes(&salt).string(CIPHER);
        let mut file = w.0;
        let mut contents = self.encode()?;
        let key = key_of(passphrase, ROUNDS, &salt)?;
        // Fails for inputs of many gigabytes only.
        let (nonce, tag) = key
            .seal_in_place_separate_tag(Aad::from(&file), &mut contents)
            .map_err(|_| BundleError::Invalid("length"))?;
        let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
        file.extend_from_slice(nonce);
        file.extend_from_slice(&contents);
        file.extend_from_slice(tag.as_ref());
        match file.len() {
            ..=JOIN_BUNDLE_BYTES_MAX => Ok(file),
            _ => Err(BundleError::Invalid("length")),
        }
    }

    /// Opens a sealed file. Takes about a second of one processor, at most ten.
    pub fn open(file: &[u8], passphrase: &Passphrase) -> Result<Bundle, BundleError> {
        let sealed = Sealed::parse(file)?;
        let contents = sealed.open(&key_of(passphrase, sealed.rounds, sealed.salt)?)?;
        Ok(Bundle::decode(&contents)?)
    }
}

impl<'a> Sealed<'a> {
    /// Takes a file apart and refuses what no release has written.
    pub fn parse(file: &'a [u8]) -> Result<Sealed<'a>, BundleError> {
        if file.len() > JOIN_BUNDLE_BYTES_MAX {
            return Err(BundleError::NoBundle);
        }
        let mut r = Reader::new(file);
        if r.raw(MAGIC.len()).ok() != Some(MAGIC) {
            return Err(BundleError::NoBundle);
        }
        let short = |_: DecodeError| BundleError::NoBundle;
        let version = r.u16().map_err(short)?;
        if version != VERSION {
            return Err(BundleError::Format(version.to_string()));
        }
        let expect = |name: &[u8], known: &str| match name == known.as_bytes() {
            true => Ok(()),
            false => Err(BundleError::Format(format!("{version} without {known}"))),
        };
        expect(r.bytes().map_err(short)?, DERIVATION)?;
        let rounds = r.u32().map_err(short)?;
        if !(ROUNDS_MIN..=ROUNDS_MAX).contains(&rounds) {
            return Err(BundleError::Rounds(rounds));
        }
        let salt = r.bytes().map_err(short)?;
        if salt.len() != SALT_BYTES {
            return Err(BundleError::NoBundle);
        }
        expect(r.bytes().map_err(short)?, CIPHER)?;
        let header = &file[..file.len() - r.left()];
        let nonce = r.array().map_err(short)?;
        let left = r.left();
        let sealed = r.raw(left).map_err(short)?;
        if sealed.len() < TAG_BYTES {
            return Err(BundleError::NoBundle);
        }
        Ok(Sealed { header, rounds, salt, nonce, sealed })
    }

    pub(super) fn open(&self, key: &RandomizedNonceKey) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        let mut bytes = Zeroizing::new(self.sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let opened = key.open_in_place(nonce, Aad::from(self.header), &mut bytes).map_err(|_| BundleError::Sealed)?;
        let length = opened.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

pub(super) fn key_of(passphrase: &Passphrase, rounds: u32, salt: &[u8]) -> Result<RandomizedNonceKey, BundleError> {
    let mut key = Zeroizing::new([0; 32]);
    let rounds = NonZeroU32::new(rounds).ok_or(BundleError::Rounds(rounds))?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase.bytes(), &mut *key);
    RandomizedNonceKey::new(&AES_256_GCM, &*key).map_err(|_| BundleError::Sealed)
}
