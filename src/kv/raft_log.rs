//! Key family `RaftLog`: the entries of the Raft log.
//!
//! Key: family `u8` | index `u64`. Value: version `u16` = 1 | term `u64` | node `u64` | kind `u8` | body, where kind
//! is 0 blank (no body), 1 command (body: opaque bytes of the proposer), 2 membership (body: [`Membership`]).
//! An entry is never changed in place; the log is cut only at its ends.

use super::{Batch, Family, Kv, ReadError};
use crate::base::codec::{DecodeError, Reader, Writer};

const VERSION: u16 = 1;

/// Identity of a log entry: who proposed it, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogPosition {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

impl LogPosition {
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.term).u64(self.node).u64(self.index);
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(LogPosition { term: r.u64()?, node: r.u64()?, index: r.u64()? })
    }

    pub fn write_option(position: &Option<LogPosition>, w: &mut Writer) {
        w.bool(position.is_some());
        if let Some(position) = position {
            position.write(w);
        }
    }

    pub fn read_option(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(if r.bool("position present")? { Some(Self::read(r)?) } else { None })
    }
}

/// Voters and learners: one set of voters, or two while a change is under way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    pub configs: Vec<Vec<u64>>,
    pub nodes: Vec<u64>,
}

impl Membership {
    pub fn write(&self, w: &mut Writer) {
        w.count(self.configs.len());
        for voters in self.configs.iter().chain([&self.nodes]) {
            w.count(voters.len());
            for node in voters {
                w.u64(*node);
            }
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut configs = Vec::new();
        for _ in 0..r.count(4)? {
            configs.push(read_nodes(r)?);
        }
        Ok(Membership { configs, nodes: read_nodes(r)? })
    }
}

fn read_nodes(r: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    (0..r.count(8)?).map(|_| r.u64()).collect()
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    Blank,
    Command(Vec<u8>),
    Membership(Membership),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    pub position: LogPosition,
    pub payload: Payload,
}

pub fn key(index: u64) -> [u8; 9] {
    let mut key = [Family::RaftLog as u8; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub fn encode(entry: &LogEntry) -> Vec<u8> {
    let mut w = Writer::new();
    w.u16(VERSION).u64(entry.position.term).u64(entry.position.node);
    match &entry.payload {
        Payload::Blank => w.u8(0),
        Payload::Command(bytes) => w.u8(1).raw(bytes),
        Payload::Membership(membership) => {
            w.u8(2);
            membership.write(&mut w);
            &mut w
        }
    };
    w.0
}

/// About as many bytes as [`encode`] makes of it.
pub fn encoded_bytes(entry: &LogEntry) -> usize {
    let body = match &entry.payload {
        Payload::Blank => 0,
        Payload::Command(bytes) => bytes.len(),
        Payload::Membership(membership) => {
            8 + 8 * (membership.nodes.len() + membership.configs.iter().map(|config| 1 + config.len()).sum::<usize>())
        }
    };
    32 + body
}

pub fn decode(key: &[u8], value: &[u8]) -> Result<LogEntry, DecodeError> {
    let mut k = Reader::new(key);
    k.u8()?;
    let index = k.u64()?;
    k.finish()?;

    let mut r = Reader::new(value);
    match r.u16()? {
        VERSION => {}
        found => return Err(DecodeError::Version { found, newest: VERSION }),
    }
    let (term, node) = (r.u64()?, r.u64()?);
    let payload = match r.u8()? {
        0 => Payload::Blank,
        1 => Payload::Command(r.raw(r.left())?.to_vec()),
        2 => Payload::Membership(Membership::read(&mut r)?),
        kind => return Err(DecodeError::Invalid { field: "log entry kind", value: kind as u64 }),
    };
    r.finish()?;
    Ok(LogEntry { position: LogPosition { term, node, index }, payload })
}

impl Kv {
    /// Entries from index `from` up to, not including, `to`, as far as they exist.
    pub fn log_entries(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, ReadError> {
        let mut entries = Vec::new();
        self.scan(&key(from), &key(to), &mut |key, value| {
            entries.push(decode(key, value).map_err(ReadError::decode(Family::RaftLog))?);
            Ok(true)
        })?;
        Ok(entries)
    }

    /// Position of the last entry, if the log has any.
    pub fn last_log_position(&self) -> Result<Option<LogPosition>, ReadError> {
        let (from, to) = super::bounds(Family::RaftLog);
        let Some((key, value)) = self.last(&from, &to)? else { return Ok(None) };
        Ok(Some(decode(&key, &value).map_err(ReadError::decode(Family::RaftLog))?.position))
    }
}

impl Batch {
    pub fn put_log_entry(&mut self, entry: &LogEntry) {
        self.put(key(entry.position.index), encode(entry));
    }

    /// Deletes the entries from `from` on.
    pub fn truncate_log(&mut self, from: u64) {
        self.delete_range(&key(from), &super::bounds(Family::RaftLog).1);
    }

    /// Deletes the entries up to and including `through`.
    pub fn purge_log(&mut self, through: u64) {
        self.delete_range(&super::bounds(Family::RaftLog).0, &key(through.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, payload: Payload) -> LogEntry {
        LogEntry { position: LogPosition { term: 3, node: 7, index }, payload }
    }

    fn samples() -> Vec<(&'static str, LogEntry)> {
        let membership = Membership { configs: vec![vec![7], vec![7, 8, 9]], nodes: vec![7, 8, 9, 10] };
        vec![
            ("blank", entry(0, Payload::Blank)),
            ("command", entry(1 << 40, Payload::Command(b"opaque".to_vec()))),
            ("membership", entry(2, Payload::Membership(membership))),
        ]
    }

    #[test]
    fn entries_come_back_as_written() {
        for (_, entry) in samples() {
            assert_eq!(decode(&key(entry.position.index), &encode(&entry)), Ok(entry));
        }
    }

    #[test]
    fn entries_of_every_release_are_readable() {
        for (name, entry) in samples() {
            let fixture = crate::kv::fixture(&format!("log_entry_v1_{name}"), &encode(&entry));
            assert_eq!(decode(&key(entry.position.index), &fixture), Ok(entry));
        }
    }

    #[test]
    fn damaged_entries_are_refused() {
        let bytes = encode(&samples()[2].1);
        for len in 0..bytes.len() {
            assert!(decode(&key(2), &bytes[..len]).is_err());
        }
        assert!(matches!(decode(&key(2), &[0, 2]), Err(DecodeError::Version { found: 2, .. })));
    }
}
