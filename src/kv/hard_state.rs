//! Key family `HardState`: what a Raft node must remember beside its log.
//!
//! Key: family `u8` | item `u8` (0 the vote, 1 the last purged position, 2 whose folder this is). Value of the vote: version
//! `u16` = 1 | term `u64` | node `u64` | committed `u8`. Value of the purged position: version `u16` = 1 | position. Value of
//! the owner: version `u16` = 1 | node `i32` | directory id `u32`; folders of the first release have none.
//! A vote is synced before it is answered; the purged position moves in the batch that deletes the entries.

use super::raft_log::LogPosition;
use super::{Batch, Family, Kv, ReadError};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{DirectoryId, NodeId};

const VERSION: u16 = 1;
pub(super) const VOTE_KEY: [u8; 2] = [Family::HardState as u8, 0];
const PURGED_KEY: [u8; 2] = [Family::HardState as u8, 1];

const OWNER_KEY: [u8; 2] = [Family::HardState as u8, 2];

/// Whose folder this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    pub node: NodeId,
    /// Drawn at random when the folder was made.
    pub directory: DirectoryId,
}

/// The vote of this node; `committed` once a majority gave the same one, so that `node` leads the term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut w = Writer::new();
    w.u16(VERSION).u64(vote.term).u64(vote.node).bool(vote.committed);
    w.0
}

pub(super) fn decode_vote(value: &[u8]) -> Result<Vote, DecodeError> {
    let mut r = versioned(value)?;
    let vote = Vote { term: r.u64()?, node: r.u64()?, committed: r.bool("vote committed")? };
    r.finish()?;
    Ok(vote)
}

fn encode_purged(position: &LogPosition) -> Vec<u8> {
    let mut w = Writer::new();
    w.u16(VERSION);
    position.write(&mut w);
    w.0
}

fn decode_purged(value: &[u8]) -> Result<LogPosition, DecodeError> {
    let mut r = versioned(value)?;
    let position = LogPosition::read(&mut r)?;
    r.finish()?;
    Ok(position)
}

fn encode_owner(owner: &Owner) -> Vec<u8> {
    let mut w = Writer::new();
    w.u16(VERSION).i32(owner.node.0).u32(owner.directory.0);
    w.0
}

fn decode_owner(value: &[u8]) -> Result<Owner, DecodeError> {
    let mut r = versioned(value)?;
    let owner = Owner { node: NodeId(r.i32()?), directory: DirectoryId(r.u32()?) };
    r.finish()?;
    Ok(owner)
}

fn versioned(value: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut r = Reader::new(value);
    match r.u16()? {
        VERSION => Ok(r),
        found => Err(DecodeError::Version { found, newest: VERSION }),
    }
}

impl Kv {
    pub fn vote(&self) -> Result<Option<Vote>, ReadError> {
        let value = self.get(&VOTE_KEY)?;
        value.map(|v| decode_vote(&v)).transpose().map_err(ReadError::decode(Family::HardState))
    }

    /// Whose folder this is, where it says so.
    pub fn owner(&self) -> Result<Option<Owner>, ReadError> {
        let value = self.get(&OWNER_KEY)?;
        value.map(|v| decode_owner(&v)).transpose().map_err(ReadError::decode(Family::HardState))
    }

    /// Position of the last entry that was deleted from the front of the log.
    pub fn purged(&self) -> Result<Option<LogPosition>, ReadError> {
        let value = self.get(&PURGED_KEY)?;
        value.map(|v| decode_purged(&v)).transpose().map_err(ReadError::decode(Family::HardState))
    }
}

impl Batch {
    pub fn put_vote(&mut self, vote: &Vote) {
        self.put(VOTE_KEY, encode_vote(vote));
    }

    pub fn put_owner(&mut self, owner: &Owner) {
        self.put(OWNER_KEY, encode_owner(owner));
    }

    pub fn put_purged(&mut self, position: &LogPosition) {
        self.put(PURGED_KEY, encode_purged(position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_state_of_every_release_is_readable() {
        let vote = Vote { term: 5, node: 1, committed: true };
        assert_eq!(decode_vote(&crate::kv::fixture("vote_v1", &encode_vote(&vote))), Ok(vote));
        let owner = Owner { node: NodeId(3), directory: DirectoryId(0x0102_0304) };
        assert_eq!(decode_owner(&crate::kv::fixture("owner_v1", &encode_owner(&owner))), Ok(owner));
        let position = LogPosition { term: 5, node: 1, index: 1000 };
        assert_eq!(decode_purged(&crate::kv::fixture("purged_v1", &encode_purged(&position))), Ok(position));
    }

    #[test]
    fn damaged_hard_state_is_refused() {
        let vote = encode_vote(&Vote { term: 5, node: 1, committed: true });
        assert!(decode_vote(&vote[..vote.len() - 1]).is_err());
        assert!(matches!(decode_vote(&[0, 9]), Err(DecodeError::Version { .. })));
    }
}
