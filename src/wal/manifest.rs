//! `wal/manifest`: which files are the WAL.
//!
//! Replaced as a whole: written under another name, synced, renamed, the folder synced. So after any crash there is the old
//! one or the new one, and it is never changed per append. A segment is listed before its first block is written and
//! no longer listed before it is overwritten: a listed file that is absent is a loss, never an oversight.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use crate::base::checksum::crc32c;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{BrokerEpoch, EntryId, LedgerId, WalIncarnation};
use crate::env::{Disk, OpenMode};

use super::boot::Boots;
use super::error::OpenError;
use super::format::Chain;
use super::seal::SealAnswer;

pub const DIR: &str = "wal";
const PATH: &str = "wal/manifest";
const TEMPORARY: &str = "wal/manifest.new";
const MAGIC: u32 = 0x434d_574d; // "CMWM"
/// Version 1 had no boots.
const VERSION: u16 = 2;
/// Far more than any real one; a longer file is not read.
const BYTES_MAX: u64 = 64 << 20;

/// One file in the chain of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub generation: u64,
    /// Number in the name of the file.
    pub slot: u32,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub incarnation: WalIncarnation,
    /// Known to this file and the headers only, so that no record can contain a block that looks genuine.
    pub salt: u64,
    /// The last block before the oldest needed segment: where recovery begins.
    pub floor: Chain,
    /// The needed segments and those prepared for use, by ascending generation without a gap.
    pub segments: Vec<Listed>,
    /// Sequence of a block with entries that was synced when this was written.
    pub synced: u64,
    /// A tail was cut once, so what was never seen cannot be said never to have been there.
    pub cut: bool,
    /// Ledgers not sealed when a tail was cut, with the first entry that may have been in it.
    pub uncertain: BTreeMap<LedgerId, EntryId>,
    /// Ledgers that take no entry of their writer any more, with the answer given.
    pub sealed: BTreeMap<LedgerId, SealAnswer>,
    pub boots: Boots,
}

impl Manifest {
    pub fn new(incarnation: WalIncarnation, salt: u64) -> Self {
        Manifest {
            incarnation,
            salt,
            floor: Chain::default(),
            segments: Vec::new(),
            synced: 0,
            cut: false,
            uncertain: BTreeMap::new(),
            sealed: BTreeMap::new(),
            boots: Boots::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC).u16(VERSION).u16(0).raw(&self.incarnation.0).u64(self.salt);
        w.u64(self.floor.sequence).u32(self.floor.crc).u32(self.floor.run).u64(self.synced).bool(self.cut);
        w.count(self.segments.len());
        for s in &self.segments {
            w.u64(s.generation).u32(s.slot).u64(s.bytes);
        }
        w.count(self.uncertain.len());
        for (ledger, from) in &self.uncertain {
            w.u64(ledger.0).u64(from.0);
        }
        w.count(self.sealed.len());
        for (ledger, answer) in &self.sealed {
            w.u64(ledger.0);
            for entry in [answer.through, answer.uncertain_from] {
                w.bool(entry.is_some()).u64(entry.map_or(0, |e| e.0));
            }
        }
        w.bool(self.boots.accepted.is_some()).u64(self.boots.accepted.unwrap_or(0));
        w.u64(self.boots.proposed).i64(self.boots.epoch.0);
        let crc = crc32c(&w.0);
        w.u32(crc);
        w.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest, DecodeError> {
        let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(DecodeError::Truncated { needed: 4, left: bytes.len() });
        };
        if u32::from_be_bytes(*crc) != crc32c(content) {
            return Err(DecodeError::Invalid { field: "checksum", value: u32::from_be_bytes(*crc) as u64 });
        }
        let mut r = Reader::new(content);
        let magic = r.u32()?;
        if magic != MAGIC {
            return Err(DecodeError::Invalid { field: "magic", value: magic as u64 });
        }
        let version = r.u16()?;
        if !(1..=VERSION).contains(&version) {
            return Err(DecodeError::Version { found: version, newest: VERSION });
        }
        let flags = r.u16()?;
        if flags != 0 {
            return Err(DecodeError::Invalid { field: "flags", value: flags as u64 });
        }
        let mut manifest = Manifest::new(WalIncarnation(r.array()?), r.u64()?);
        manifest.floor = Chain { sequence: r.u64()?, crc: r.u32()?, run: r.u32()? };
        manifest.synced = r.u64()?;
        manifest.cut = r.bool("cut")?;
        for _ in 0..r.count(20)? {
            manifest.segments.push(Listed { generation: r.u64()?, slot: r.u32()?, bytes: r.u64()? });
        }
        for _ in 0..r.count(16)? {
            manifest.uncertain.insert(LedgerId(r.u64()?), EntryId(r.u64()?));
        }
        for _ in 0..r.count(26)? {
            let ledger = LedgerId(r.u64()?);
            let mut entry = || Ok::<_, DecodeError>((r.bool("entry")?, EntryId(r.u64()?)));
            let (through, uncertain) = (entry()?, entry()?);
            let some = |(is, entry): (bool, EntryId)| is.then_some(entry);
            manifest.sealed.insert(ledger, SealAnswer { through: some(through), uncertain_from: some(uncertain) });
        }
        manifest.boots = match version {
            1 => Boots::unknown(),
            _ => {
                let (is, accepted) = (r.bool("boots")?, r.u64()?);
                Boots { accepted: is.then_some(accepted), proposed: r.u64()?, epoch: BrokerEpoch(r.i64()?) }
            }
        };
        r.finish()?;
        Ok(manifest)
    }

    /// The manifest of the folder, if it has one.
    pub fn load(disk: &dyn Disk) -> Result<Option<Manifest>, OpenError> {
        let io = |source| OpenError::Io { file: PATH.into(), source };
        let file = match disk.open(PATH, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io)?,
        };
        let corrupt = |detail: String| OpenError::Corrupt { file: PATH.into(), offset: 0, detail };
        let len = file.len().map_err(io)?;
        if len > BYTES_MAX {
            return Err(corrupt(format!("it is {len} bytes long")));
        }
        let mut bytes = vec![0; len as usize];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        match Manifest::decode(&bytes[..read]) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(DecodeError::Version { found, .. }) => Err(OpenError::Version { file: PATH.into(), found }),
            Err(e) => Err(corrupt(e.to_string())),
        }
    }

    /// Makes this the manifest of the folder; safe when it returns.
    pub fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        let bytes = self.encode();
        let file = disk.open(TEMPORARY, OpenMode::Create)?;
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        file.sync_data()?;
        disk.rename(TEMPORARY, PATH)?;
        disk.sync_dir(DIR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SimDisk;

    fn sample() -> Manifest {
        let mut manifest = Manifest::new(WalIncarnation([9; 16]), 77);
        manifest.floor = Chain { sequence: 5, crc: 6, run: 7 };
        manifest.segments = (1..4).map(|i| Listed { generation: i, slot: 10 - i as u32, bytes: 65536 }).collect();
        manifest.synced = 12;
        manifest.cut = true;
        manifest.uncertain.insert(LedgerId(3), EntryId(4));
        manifest.sealed.insert(LedgerId(1), SealAnswer { through: Some(EntryId(8)), uncertain_from: None });
        manifest.sealed.insert(LedgerId(2), SealAnswer { through: None, uncertain_from: Some(EntryId(0)) });
        manifest.boots = Boots { accepted: Some(6), proposed: 7, epoch: BrokerEpoch(41) };
        manifest
    }

    #[test]
    fn it_comes_back_and_every_flipped_byte_is_noticed() {
        let bytes = sample().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(Manifest::decode(&bad).is_err(), "byte {at}");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_crash_leaves_the_old_one_or_the_new_one() {
        for changes in 0..8 {
            for seed in 0..20 {
                let disk = SimDisk::new();
                disk.create_dir(DIR).unwrap();
                let old = Manifest::new(WalIncarnation([1; 16]), 1);
                old.store(&disk).unwrap();
                disk.power_off_after(changes);
                let stored = sample().store(&disk).is_ok();
                disk.power_on(seed);
                let found = Manifest::load(&disk).unwrap().unwrap();
                assert!(found == sample() || (!stored && found == old), "changes {changes} seed {seed}");
            }
        }
    }

    /// A file of each format version that was ever written. A fixture never changes: a change of the layout needs a new
    /// version. `CASEMATE_WRITE_FIXTURES=1` writes those that are absent.
    #[test]
    fn manifests_of_all_versions_are_read() {
        let path = |version: u16| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wal");
            folder.join(format!("manifest_v{version}"))
        };
        if !path(VERSION).exists() && std::env::var_os("CASEMATE_WRITE_FIXTURES").is_some() {
            std::fs::write(path(VERSION), sample().encode()).unwrap();
        }
        for version in 1..=VERSION {
            let bytes = std::fs::read(path(version)).unwrap();
            let expected = match version {
                1 => Manifest { boots: Boots::unknown(), ..sample() },
                _ => sample(),
            };
            assert_eq!(Manifest::decode(&bytes), Ok(expected), "version {version}");
        }
        assert_eq!(std::fs::read(path(VERSION)).unwrap(), sample().encode());
    }

    #[test]
    fn a_manifest_of_a_later_release_says_so() {
        let mut bytes = sample().encode();
        bytes.truncate(bytes.len() - 4);
        bytes[4..6].copy_from_slice(&(VERSION + 1).to_be_bytes());
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        let found = VERSION + 1;
        assert_eq!(Manifest::decode(&bytes), Err(DecodeError::Version { found, newest: VERSION }));
    }
}
