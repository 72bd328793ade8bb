//! Key family `ProducerState`: this node's copy of the newest producer state of partitions, as opaque bytes.
//!
//! Key: family `u8` | topic 16 bytes | partition index `u32` | slot `u8` (0 or 1). Value: end offset `u64` | the state,
//! which carries its own checksum. A copy only: the state lies in an object's footer as well, and counts only for exactly
//! its end offset. A state is written before the upload that makes its end the partition's, into the slot that does not
//! hold the present one; so whichever of the two the metadata then know is here.

use super::{Batch, Durability, Family, Fenced, Kv, ReadError};
use crate::base::codec::{DecodeError, Reader};
use crate::base::{Offset, PartitionId, TopicId};

const KEY_BYTES: usize = 22;
const SLOTS: [u8; 2] = [0, 1];

/// A state to be kept.
#[derive(Debug, Clone)]
pub struct KeptState {
    pub partition: PartitionId,
    /// The end that the partition has now; the state of it stays.
    pub present: Offset,
    /// The end that the state is of.
    pub end: Offset,
    pub state: bytes::Bytes,
}

fn key(partition: PartitionId, slot: u8) -> [u8; KEY_BYTES] {
    let mut key = [Family::ProducerState as u8; KEY_BYTES];
    key[1..17].copy_from_slice(&partition.topic.0);
    key[17..21].copy_from_slice(&(partition.index as u32).to_be_bytes());
    key[21] = slot;
    key
}

fn partition_of(key: &[u8]) -> Result<PartitionId, DecodeError> {
    let mut r = Reader::new(key);
    r.u8()?;
    let partition = PartitionId { topic: TopicId(r.array()?), index: r.i32()? };
    r.u8()?;
    r.finish()?;
    Ok(partition)
}

impl Kv {
    /// The state of `partition` as of exactly `end`.
    pub fn producer_state(&self, partition: PartitionId, end: Offset) -> Result<Option<Vec<u8>>, ReadError> {
        for slot in SLOTS {
            if let Some(mut value) = self.get(&key(partition, slot))?
                && value.first_chunk() == Some(&end.0.to_be_bytes())
            {
                value.drain(..size_of::<i64>());
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Ordered, not synced: a crash may lose the copy, never tear it.
    pub fn keep_producer_states(&self, states: &[KeptState]) -> Result<(), KeepError> {
        let mut batch = Batch::default();
        for kept in states {
            let first = self.get(&key(kept.partition, SLOTS[0]))?;
            let holds_present = first.is_some_and(|v| v.first_chunk() == Some(&kept.present.0.to_be_bytes()));
            let slot = SLOTS[usize::from(holds_present)];
            let value = [&kept.end.0.to_be_bytes()[..], &kept.state].concat();
            batch.put(key(kept.partition, slot), value);
        }
        Ok(self.write(batch, Durability::Ordered)?)
    }

    /// Forgets the states of partitions that are not to be kept.
    pub fn retain_producer_states(&self, keep: &dyn Fn(PartitionId) -> bool) -> Result<(), KeepError> {
        let (from, to) = super::bounds(Family::ProducerState);
        let mut batch = Batch::default();
        self.scan(&from, &to, &mut |key, _| {
            let partition = partition_of(key).map_err(ReadError::decode(Family::ProducerState))?;
            if !keep(partition) {
                batch.delete(key);
            }
            Ok(true)
        })?;
        Ok(self.write(batch, Durability::Ordered)?)
    }
}

/// Why states were not kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(index: i32, present: i64, end: i64, state: &'static str) -> KeptState {
        let partition = PartitionId { topic: TopicId([3; 16]), index };
        KeptState { partition, present: Offset(present), end: Offset(end), state: state.into() }
    }

    #[test]
    fn the_present_state_stays_until_it_is_replaced_twice() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let id = kept(1, 0, 0, "").partition;
        let state = |end| kv.producer_state(id, Offset(end)).unwrap().map(|v| String::from_utf8(v).unwrap());
        assert_eq!(state(0), None);
        kv.keep_producer_states(&[kept(1, 0, 10, "ten"), kept(2, 0, 7, "other")]).unwrap();
        // The upload that was to end at 20 failed; the next one ends at 25.
        kv.keep_producer_states(&[kept(1, 10, 20, "twenty")]).unwrap();
        assert_eq!((state(10).as_deref(), state(20).as_deref()), (Some("ten"), Some("twenty")));
        kv.keep_producer_states(&[kept(1, 10, 25, "more")]).unwrap();
        assert_eq!((state(10).as_deref(), state(20), state(25).as_deref()), (Some("ten"), None, Some("more")));
        kv.keep_producer_states(&[kept(1, 25, 30, "")]).unwrap();
        assert_eq!((state(10), state(25).as_deref(), state(30).as_deref()), (None, Some("more"), Some("")));
    }

    #[test]
    fn states_of_partitions_that_are_gone_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        kv.keep_producer_states(&[kept(1, 0, 10, "a"), kept(2, 0, 10, "b")]).unwrap();
        kv.retain_producer_states(&|partition| partition.index == 2).unwrap();
        let found = |index| kv.producer_state(kept(index, 0, 0, "").partition, Offset(10)).unwrap().is_some();
        assert_eq!((found(1), found(2)), (false, true));
    }
}
