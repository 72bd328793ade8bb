//! Join bundles: everything that a new node needs to join a cluster, in one file that is sealed with a passphrase.
//!
//! The cluster is told of the node first (`Command::AddNode`, which [`make`] returns beside the bundle); the bundle then
//! travels by whatever the site permits, the passphrase by another way. Its token lets one metadata folder in, once.
//! Invariants: keys and token are nowhere on a disk but sealed, or in files of mode 0600 of the node itself; nothing is
//! believed before the seal was opened; a file can make its reader neither compute nor hold more than stated here.

mod codec;
mod make;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::{self, FileError, PRIVATE, PUBLIC};
use super::tls::{date, hex};
use super::{CreateError, TlsError, TlsFiles, check_node_files};
use crate::base::codec::DecodeError;
use crate::base::limits::JOIN_BUNDLE_BYTES_MAX;
use crate::base::{ClusterId, NodeId};
use crate::env::Clock;
use crate::metadata::{TokenHash, bounds};

pub use make::{HOUR_MS, Invitation, VALID_HOURS_DEFAULT, VALID_HOURS_MAX, make};
pub use seal::Sealed;

/// Nodes of the cluster that a bundle names. A few would do: one that answers knows the others.
pub const KNOWN_NODES_MAX: usize = 64;
/// Options that a bundle carries.
pub const SETTINGS_MAX: usize = 64;
/// Bytes of a certificate chain, of a key, or of the authorities, in PEM form.
const PEM_BYTES_MAX: usize = 32 * 1024;
/// Bytes of an option's value.
const SETTING_BYTES_MAX: usize = 1024;
const _: () = assert!(
    KNOWN_NODES_MAX * (2 * bounds::NAME_BYTES_MAX + bounds::NODE_IDENTITY_BYTES_MAX)
        + SETTINGS_MAX * (bounds::NAME_BYTES_MAX + SETTING_BYTES_MAX)
        + 4 * PEM_BYTES_MAX
        < JOIN_BUNDLE_BYTES_MAX,
    "a bundle that has all it may have can be read back"
);
/// Name of the token's file in the folder of a node that has not joined yet.
pub const TOKEN_FILE: &str = "join.token";
const TOKEN_BYTES: usize = 32;

/// What is sealed.
#[derive(Debug, PartialEq)]
pub struct Bundle {
    pub cluster: ClusterId,
    /// Of the cluster (see `Command::InitCluster`).
    pub generation: u64,
    pub node: NodeId,
    pub name: String,
    /// May be empty.
    pub rack: String,
    /// Where the other nodes will reach it; they were told so.
    pub host: String,
    pub port: u16,
    /// The node's certificate, then those between it and its authority.
    pub certificate_pem: String,
    pub key_pem: Secret,
    /// The authorities of nodes and clients.
    pub ca_pem: String,
    /// `HOST:PORT` of the cluster for clients' `bootstrap.servers`.
    pub bootstrap: String,
    /// Options that all nodes have in common, by the names that `--set` has for them: the super users for one.
    pub settings: Vec<(String, String)>,
    /// Who can be asked to let the node in.
    pub known: Vec<KnownNode>,
    pub token: Token,
    /// Unix ms.
    pub created_ms: i64,
    /// Unix ms; from then on nobody joins with it.
    pub expires_ms: i64,
}

/// A node that serves already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNode {
    pub node: NodeId,
    pub host: String,
    pub port: u16,
    /// The subject of its certificate as RFC 2253 text.
    pub identity: String,
}

/// Text that is overwritten when it is dropped, and in no log.
#[derive(PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What lets a node in, once. Overwritten when it is dropped; the metadata know only its hash.
#[derive(PartialEq)]
pub struct Token(Zeroizing<[u8; TOKEN_BYTES]>);

impl Token {
    pub fn new(bytes: [u8; TOKEN_BYTES]) -> Token {
        Token(Zeroizing::new(bytes))
    }

    pub fn expose(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }

    /// What `Command::AddNode` and `Command::JoinNode` carry.
    pub fn sha256(&self) -> TokenHash {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &*self.0);
        let mut hash = TokenHash::default();
        hash.copy_from_slice(digest.as_ref());
        hash
    }

    /// Reads the token of a folder that [`Bundle::unpack`] filled. Blocks on file I/O.
    pub fn read(path: &Path) -> Result<Token, BundleError> {
        let text = Zeroizing::new(files::read_private(path)?);
        let bad = || BundleError::Token { path: path.to_owned() };
        let digits = text.strip_suffix(b"\n").ok_or_else(bad)?;
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        if digits.len() != 2 * TOKEN_BYTES || !digits.iter().all(|byte| digit(byte).is_some()) {
            return Err(bad());
        }
        let mut token = Token::new([0; TOKEN_BYTES]);
        for (byte, pair) in token.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, one| byte << 4 | digit(one).unwrap_or(0) as u8);
        }
        Ok(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a bundle can be neither made nor used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("this is no join bundle, or only the beginning of one: copy it again from where it was made")]
    NoBundle,
    #[error(
        "the join bundle was sealed in a way (format {0}) that this release does not know: use the release that the \
         cluster runs"
    )]
    Format(String),
    #[error(
        "the join bundle claims {0} rounds of key derivation, which no release writes: copy it again from where it was made"
    )]
    Rounds(u32),
    #[error(
        "the join bundle does not open: the passphrase is another one, or the file was damaged; try again, or copy it \
         again from where it was made"
    )]
    Sealed,
    #[error("the join bundle opens, but what is in it cannot be read ({0}): use the release that the cluster runs")]
    Contents(#[from] DecodeError),
    #[error("the join bundle cannot be made: its {0} cannot stand in it, give another one")]
    Invalid(&'static str),
    #[error("a join bundle cannot hold for {hours} hours: say 1 to {max}", max = VALID_HOURS_MAX)]
    Hours { hours: i64 },
    #[error("the join bundle expired on {on}: remove the node from the cluster and add it again for a new bundle")]
    Expired { on: String },
    #[error("the join bundle begins to be valid on {on} only: correct this machine's clock")]
    Early { on: String },
    #[error("{path} holds no token of a join bundle: make the folder anew from its bundle", path = path.display())]
    Token { path: PathBuf },
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("what is in the join bundle cannot be used: {0}")]
    Tls(#[from] TlsError),
}

impl Bundle {
    /// Writes sealed bytes to a file that must not exist yet, for its owner only. Blocks on file I/O.
    pub fn write(path: &Path, sealed: &[u8]) -> Result<(), BundleError> {
        files::write_new(path, sealed, PRIVATE)?;
        Ok(files::sync_folder(&files::folder_of(path))?)
    }

    /// Reads sealed bytes. Blocks on file I/O.
    pub fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
        let bytes = files::read(path)?;
        if bytes.len() > JOIN_BUNDLE_BYTES_MAX { Err(BundleError::NoBundle) } else { Ok(bytes) }
    }

    /// Refuses a bundle with which nobody would be let in. The cluster asks its own clock: this only says so early.
    pub fn require_valid(&self, now_ms: i64) -> Result<(), BundleError> {
        if now_ms >= self.expires_ms {
            return Err(BundleError::Expired { on: date(self.expires_ms) });
        }
        // Clocks may differ a little; a day is a wrong date, under which certificates would seem to be invalid too.
        if now_ms < self.created_ms.saturating_sub(24 * HOUR_MS) {
            return Err(BundleError::Early { on: date(self.created_ms) });
        }
        Ok(())
    }

    /// Writes certificates and token into `dir`, which holds neither `tls` nor a token yet: `tls` under another name
    /// until it is whole and was found to be usable. Blocks on file I/O.
    pub fn unpack(&self, dir: &Path, clock: &dyn Clock) -> Result<(), BundleError> {
        let (finished, partial) = (dir.join("tls"), dir.join("tls.partial"));
        files::refuse_existing(&finished)?;
        files::remove_leftover(&partial)?;
        files::new_private_folder(&partial)?;
        files::write_new(&partial.join("ca.pem"), self.ca_pem.as_bytes(), PUBLIC)?;
        files::write_new(&partial.join("node.pem"), self.certificate_pem.as_bytes(), PUBLIC)?;
        files::write_new(&partial.join("node.key"), self.key_pem.expose().as_bytes(), PRIVATE)?;
        let of = |name| partial.join(name);
        let made = TlsFiles { cert_chain: of("node.pem"), key: of("node.key"), client_ca: of("ca.pem") };
        check_node_files(&made, clock)?;
        let digits = Zeroizing::new(hex(self.token.expose()));
        let line = Zeroizing::new([digits.as_bytes(), b"\n"].concat());
        files::write_new(&dir.join(TOKEN_FILE), &line, PRIVATE)?;
        files::sync_folder(&partial)?;
        files::rename(&partial, &finished)?;
        Ok(files::sync_folder(dir)?)
    }
}
