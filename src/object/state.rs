//! What a new leader of a partition must know exactly as of the end of a run, and its stored form.
//!
//! Open transactions are all that are open as of the end. Aborted ones are those whose marker lies in the run: a reader
//! of a range gathers them from the runs that it needs, so that no footer grows with the history of the partition.
//!
//! Version 2 of the section has the coordinator epoch of each producer; version 1 is still read.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{LeaderEpoch, ObjectId, Offset, ProducerId};

use super::format::{
    FormatError, STATE_MAGIC, checked, expect, read_epochs, read_versioned_prefix, sealed, write_epochs,
    write_versioned_prefix,
};

/// Newest version of the section.
const VERSION: u16 = 2;
/// Version from which a producer has a coordinator epoch.
const COORDINATOR_EPOCH_SINCE: u16 = 2;
/// The object id in a state that is kept outside any object.
const NO_OBJECT: ObjectId = ObjectId(0);

/// State of a partition as of an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Leader epochs with their first offsets, both ascending (KIP-101).
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers, ascending by id (KIP-98).
    pub producers: Vec<ProducerEntry>,
    /// First offset that is still readable; never moves back.
    pub log_start: Offset,
    /// Ascending by first offset.
    pub open_transactions: Vec<OpenTransaction>,
    /// Those whose marker lies in the run, ascending by marker.
    pub aborted_transactions: Vec<AbortedTransaction>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub id: ProducerId,
    pub epoch: i16,
    /// Of the coordinator that ended a transaction of the producer last; −1 when none did.
    pub coordinator_epoch: i32,
    /// Unix ms of the latest append.
    pub last_timestamp: i64,
    /// The window of latest batches, oldest first.
    pub batches: Vec<ProducerBatch>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    /// Unix ms.
    pub timestamp: i64,
}

/// A transaction without its end marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    pub producer: ProducerId,
    pub first_offset: Offset,
}

/// A transaction whose records a read_committed consumer must skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer: ProducerId,
    pub first_offset: Offset,
    /// Offset of the abort marker.
    pub last_offset: Offset,
}

/// What a read of committed records needs of a run's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunTransactions {
    /// Open as of the end of the run, ascending by first offset.
    pub open: Box<[OpenTransaction]>,
    /// Those whose marker lies in the run.
    pub aborted: Box<[AbortedTransaction]>,
}

impl From<PartitionState> for RunTransactions {
    fn from(state: PartitionState) -> RunTransactions {
        RunTransactions { open: state.open_transactions.into(), aborted: state.aborted_transactions.into() }
    }
}

impl RunTransactions {
    /// Aborted transactions that may have records in `from..to` and whose marker lies at or above `at`, for a reader that
    /// has come to `at`.
    pub fn aborted_between(&self, at: Offset, from: Offset, to: Offset) -> impl Iterator<Item = AbortedTransaction> {
        let overlaps = move |t: &&AbortedTransaction| t.first_offset < to && from.max(at) <= t.last_offset;
        self.aborted.iter().filter(overlaps).copied()
    }

    /// Whether a transaction that began below `to` is still open at the end of the run: its marker lies beyond it.
    pub fn leaves_open(&self, to: Offset) -> bool {
        self.open.iter().any(|t| t.first_offset < to)
    }

    /// Bytes in memory, for the cache.
    pub(super) fn memory_bytes(&self) -> u64 {
        (size_of_val(&*self.open) + size_of_val(&*self.aborted)) as u64
    }
}

impl PartitionState {
    /// This state with the aborted transactions of the runs before it that are merged into its own: without those that
    /// end below the log start, which nobody may read any more.
    pub fn with_earlier_aborts(mut self, earlier: impl IntoIterator<Item = AbortedTransaction>) -> PartitionState {
        let mut all: Vec<_> = earlier.into_iter().chain(std::mem::take(&mut self.aborted_transactions)).collect();
        all.retain(|t| t.last_offset >= self.log_start);
        all.sort_unstable_by_key(|t| t.last_offset);
        self.aborted_transactions = all;
        self
    }

    /// The state as of `end`, to be kept outside any object.
    pub fn to_bytes(&self, end: Offset) -> Bytes {
        self.encode(NO_OBJECT, end.0 as u64)
    }

    /// What [`PartitionState::to_bytes`] wrote for exactly this `end`.
    pub fn from_bytes(bytes: &[u8], end: Offset) -> Result<PartitionState, FormatError> {
        Self::decode(bytes, NO_OBJECT, end.0 as u64)
    }

    /// The state section of the run of `object` at `run_position`.
    pub(super) fn encode(&self, object: ObjectId, run_position: u64) -> Bytes {
        let mut w = Writer::new();
        write_versioned_prefix(&mut w, STATE_MAGIC, VERSION);
        w.u64(object.0).u64(run_position).i64(self.log_start.0);
        write_epochs(&mut w, &self.epochs);
        w.count(self.producers.len());
        for producer in &self.producers {
            w.i64(producer.id.0).i16(producer.epoch).i32(producer.coordinator_epoch).i64(producer.last_timestamp);
            w.count(producer.batches.len());
            for batch in &producer.batches {
                w.i32(batch.first_sequence).i32(batch.last_sequence).i64(batch.base_offset.0).i64(batch.timestamp);
            }
        }
        w.count(self.open_transactions.len());
        for open in &self.open_transactions {
            w.i64(open.producer.0).i64(open.first_offset.0);
        }
        w.count(self.aborted_transactions.len());
        for aborted in &self.aborted_transactions {
            w.i64(aborted.producer.0).i64(aborted.first_offset.0).i64(aborted.last_offset.0);
        }
        sealed(w)
    }

    pub(super) fn decode(bytes: &[u8], object: ObjectId, run_position: u64) -> Result<Self, FormatError> {
        let mut r = Reader::new(checked(bytes)?);
        let version = read_versioned_prefix(&mut r, STATE_MAGIC, VERSION)?;
        expect("object id", object.0, r.u64()?)?;
        expect("position", run_position, r.u64()?)?;
        let log_start = Offset(r.i64()?);
        let epochs = read_epochs(&mut r)?;
        let count = r.count(if version >= COORDINATOR_EPOCH_SINCE { 26 } else { 22 })?;
        let producers = (0..count).map(|_| read_producer(&mut r, version)).collect::<Result<_, _>>()?;
        let count = r.count(16)?;
        let open_transactions = (0..count)
            .map(|_| Ok(OpenTransaction { producer: ProducerId(r.i64()?), first_offset: Offset(r.i64()?) }))
            .collect::<Result<_, DecodeError>>()?;
        let count = r.count(24)?;
        let aborted_transactions = (0..count)
            .map(|_| {
                Ok(AbortedTransaction {
                    producer: ProducerId(r.i64()?),
                    first_offset: Offset(r.i64()?),
                    last_offset: Offset(r.i64()?),
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        r.finish()?;
        Ok(PartitionState { epochs, producers, log_start, open_transactions, aborted_transactions })
    }
}

fn read_producer(r: &mut Reader<'_>, version: u16) -> Result<ProducerEntry, DecodeError> {
    let (id, epoch) = (ProducerId(r.i64()?), r.i16()?);
    let coordinator_epoch = if version >= COORDINATOR_EPOCH_SINCE { r.i32()? } else { -1 };
    let last_timestamp = r.i64()?;
    let count = r.count(24)?;
    let batches = (0..count)
        .map(|_| {
            Ok(ProducerBatch {
                first_sequence: r.i32()?,
                last_sequence: r.i32()?,
                base_offset: Offset(r.i64()?),
                timestamp: r.i64()?,
            })
        })
        .collect::<Result<_, DecodeError>>()?;
    Ok(ProducerEntry { id, epoch, coordinator_epoch, last_timestamp, batches })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> PartitionState {
        PartitionState {
            epochs: vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(90))],
            producers: vec![ProducerEntry {
                id: ProducerId(9),
                epoch: 2,
                coordinator_epoch: 6,
                last_timestamp: 77,
                batches: vec![ProducerBatch {
                    first_sequence: 3,
                    last_sequence: 5,
                    base_offset: Offset(8),
                    timestamp: 70,
                }],
            }],
            log_start: Offset(5),
            open_transactions: vec![OpenTransaction { producer: ProducerId(3), first_offset: Offset(6) }],
            aborted_transactions: vec![AbortedTransaction {
                producer: ProducerId(4),
                first_offset: Offset(6),
                last_offset: Offset(7),
            }],
        }
    }

    #[test]
    fn state_comes_back_as_written_and_only_at_its_place() {
        let state = state();
        let kept = state.to_bytes(Offset(90));
        assert_eq!(PartitionState::from_bytes(&kept, Offset(90)).as_ref(), Ok(&state));
        assert!(PartitionState::from_bytes(&kept, Offset(91)).is_err());
        let bytes = state.encode(ObjectId(1), 44);
        assert_eq!(PartitionState::decode(&bytes, ObjectId(1), 44), Ok(state));
        assert!(PartitionState::decode(&bytes, ObjectId(2), 44).is_err());
        assert!(PartitionState::decode(&bytes, ObjectId(1), 45).is_err());
        assert!(PartitionState::decode(&bytes[..bytes.len() - 1], ObjectId(1), 44).is_err());
    }
    /// Version 1 as it was written before coordinators had epochs.
    #[test]
    fn a_state_of_version_1_is_read() {
        let mut w = Writer::new();
        write_versioned_prefix(&mut w, STATE_MAGIC, 1);
        w.u64(1).u64(44).i64(5).count(0).count(1);
        w.i64(9).i16(2).i64(77).count(1).i32(3).i32(5).i64(8).i64(70).count(0).count(0);
        let read = PartitionState::decode(&sealed(w), ObjectId(1), 44).expect("known version");
        let mut producers = state().producers;
        producers[0].coordinator_epoch = -1;
        assert_eq!((read.producers, read.log_start), (producers, Offset(5)));
    }

    #[test]
    fn merged_runs_have_the_aborts_of_all_that_can_still_be_read() {
        let aborted =
            |last| AbortedTransaction { producer: ProducerId(1), first_offset: Offset(0), last_offset: Offset(last) };
        let merged = state().with_earlier_aborts([aborted(4), aborted(5), aborted(6)]);
        let last: Vec<_> = merged.aborted_transactions.iter().map(|t| t.last_offset.0).collect();
        assert_eq!(last, [5, 6, 7], "the log starts at 5");
    }
}
