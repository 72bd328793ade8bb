//! The object index: which object holds which offsets, and what is known about each object.
//!
//! It lives in the key-value store. Here are its entries with their stored form, what `apply` may read of it, and
//! the operations that change it. Ranges of one partition never overlap.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{BrokerEpoch, NodeId, ObjectId, Offset, PartitionId};

/// Version of the stored form of both entries.
const VERSION: u16 = 1;

/// Consecutive offsets of one partition in one object; its key is (partition, first offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEntry {
    pub object: ObjectId,
    /// Exclusive.
    pub end: Offset,
    /// Bytes of the batches.
    pub bytes: u64,
    pub records: u64,
    /// Largest record timestamp, Unix ms; −1 if there is none.
    pub max_timestamp: i64,
    /// Timestamp of the first record, Unix ms; −1 if there is none.
    pub first_timestamp: i64,
    /// Where the partition's run begins in the object, and its length in bytes there.
    pub position: u64,
    pub length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Size of the object; 0 until it is committed.
    pub bytes: u64,
    /// Ranges in the index that point to it.
    pub live_ranges: u32,
    pub state: ObjectState,
    /// When it was prepared, Unix ms.
    pub created_ms: i64,
}

/// Life of an object: Prepared → Live → Dropped, or Prepared → Aborted; from there it is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// May be in the store or not; only this broker epoch may commit it.
    Prepared {
        node: NodeId,
        epoch: BrokerEpoch,
    },
    Live,
    /// Nothing points to it since then (Unix ms); readers with an older image may still be in it.
    Dropped {
        at_ms: i64,
    },
    /// It will never be committed (Unix ms).
    Aborted {
        at_ms: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexOp {
    PutRange { partition: PartitionId, base: Offset, entry: RangeEntry },
    DeleteRange { partition: PartitionId, base: Offset },
    PutObject { id: ObjectId, entry: ObjectEntry },
    DeleteObject { id: ObjectId },
}

/// What `apply` may read: the index with the operations of every earlier command carried out.
///
/// An implementation that fails to read must remember the failure, and what `apply` returned must then be thrown
/// away: an entry that merely could not be read is not an entry that does not exist.
pub trait IndexView {
    fn range(&self, partition: PartitionId, base: Offset) -> Option<RangeEntry>;
    /// Ranges with `from <= base < to`, ascending, at most `limit`.
    fn ranges(&self, partition: PartitionId, from: Offset, to: Offset, limit: usize) -> Vec<(Offset, RangeEntry)>;
    fn object(&self, id: ObjectId) -> Option<ObjectEntry>;
}

/// The index in memory, for tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryIndex {
    pub ranges: BTreeMap<(PartitionId, Offset), RangeEntry>,
    pub objects: BTreeMap<ObjectId, ObjectEntry>,
}

impl MemoryIndex {
    /// Carries out what `apply` returned.
    pub fn apply(&mut self, ops: &[IndexOp]) {
        for op in ops {
            match *op {
                IndexOp::PutRange { partition, base, entry } => {
                    self.ranges.insert((partition, base), entry);
                }
                IndexOp::DeleteRange { partition, base } => {
                    self.ranges.remove(&(partition, base));
                }
                IndexOp::PutObject { id, entry } => {
                    self.objects.insert(id, entry);
                }
                IndexOp::DeleteObject { id } => {
                    self.objects.remove(&id);
                }
            }
        }
    }
}

impl IndexView for MemoryIndex {
    fn range(&self, partition: PartitionId, base: Offset) -> Option<RangeEntry> {
        self.ranges.get(&(partition, base)).copied()
    }

    fn ranges(&self, partition: PartitionId, from: Offset, to: Offset, limit: usize) -> Vec<(Offset, RangeEntry)> {
        if from >= to {
            return Vec::new();
        }
        let bounds = (Bound::Included((partition, from)), Bound::Excluded((partition, to)));
        self.ranges.range(bounds).take(limit).map(|((_, base), entry)| (*base, *entry)).collect()
    }

    fn object(&self, id: ObjectId) -> Option<ObjectEntry> {
        self.objects.get(&id).copied()
    }
}

impl RangeEntry {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u16(VERSION).u64(self.object.0).i64(self.end.0).u64(self.bytes).u64(self.records);
        w.i64(self.max_timestamp).i64(self.first_timestamp).u64(self.position).u32(self.length);
        w.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r)?;
        let entry = RangeEntry {
            object: ObjectId(r.u64()?),
            end: Offset(r.i64()?),
            bytes: r.u64()?,
            records: r.u64()?,
            max_timestamp: r.i64()?,
            first_timestamp: r.i64()?,
            position: r.u64()?,
            length: r.u32()?,
        };
        r.finish()?;
        Ok(entry)
    }
}

impl ObjectEntry {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u16(VERSION).u64(self.bytes).u32(self.live_ranges).i64(self.created_ms);
        match self.state {
            ObjectState::Prepared { node, epoch } => w.u8(0).i32(node.0).i64(epoch.0),
            ObjectState::Live => w.u8(1),
            ObjectState::Dropped { at_ms } => w.u8(2).i64(at_ms),
            ObjectState::Aborted { at_ms } => w.u8(3).i64(at_ms),
        };
        w.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r)?;
        let (bytes, live_ranges, created_ms) = (r.u64()?, r.u32()?, r.i64()?);
        let state = match r.u8()? {
            0 => ObjectState::Prepared { node: NodeId(r.i32()?), epoch: BrokerEpoch(r.i64()?) },
            1 => ObjectState::Live,
            2 => ObjectState::Dropped { at_ms: r.i64()? },
            3 => ObjectState::Aborted { at_ms: r.i64()? },
            value => return Err(DecodeError::Invalid { field: "object state", value: value as u64 }),
        };
        r.finish()?;
        Ok(ObjectEntry { bytes, live_ranges, state, created_ms })
    }
}

fn check_version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u16()? {
        VERSION => Ok(()),
        found => Err(DecodeError::Version { found, newest: VERSION }),
    }
}
