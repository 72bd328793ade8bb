//! What a new leader of a partition must know exactly as of the end of a run, and its stored form.
//!
//! Transactions do not exist yet; their two lists are in the format from the start so that it need not change.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{LeaderEpoch, ObjectId, Offset, ProducerId};

use super::format::{
    FormatError, STATE_MAGIC, checked, expect, read_epochs, read_prefix, sealed, write_epochs, write_prefix,
};

/// State of a partition as of an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Leader epochs with their first offsets, both ascending (KIP-101).
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers, ascending by id (KIP-98).
    pub producers: Vec<ProducerEntry>,
    /// First offset that is still readable; never moves back.
    pub log_start: Offset,
    pub open_transactions: Vec<OpenTransaction>,
    pub aborted_transactions: Vec<AbortedTransaction>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerEntry {
    pub id: ProducerId,
    pub epoch: i16,
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

impl PartitionState {
    /// The state section of the run of `object` at `run_position`.
    pub(super) fn encode(&self, object: ObjectId, run_position: u64) -> Bytes {
        let mut w = Writer::new();
        write_prefix(&mut w, STATE_MAGIC);
        w.u64(object.0).u64(run_position).i64(self.log_start.0);
        write_epochs(&mut w, &self.epochs);
        w.count(self.producers.len());
        for producer in &self.producers {
            w.i64(producer.id.0).i16(producer.epoch).i64(producer.last_timestamp).count(producer.batches.len());
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
        read_prefix(&mut r, STATE_MAGIC)?;
        expect("object id", object.0, r.u64()?)?;
        expect("position", run_position, r.u64()?)?;
        let log_start = Offset(r.i64()?);
        let epochs = read_epochs(&mut r)?;
        let count = r.count(22)?;
        let producers = (0..count).map(|_| read_producer(&mut r)).collect::<Result<_, _>>()?;
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

fn read_producer(r: &mut Reader<'_>) -> Result<ProducerEntry, DecodeError> {
    let (id, epoch, last_timestamp) = (ProducerId(r.i64()?), r.i16()?, r.i64()?);
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
    Ok(ProducerEntry { id, epoch, last_timestamp, batches })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_comes_back_as_written_and_only_at_its_place() {
        let state = PartitionState {
            epochs: vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(90))],
            producers: vec![ProducerEntry {
                id: ProducerId(9),
                epoch: 2,
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
        };
        let bytes = state.encode(ObjectId(1), 44);
        assert_eq!(PartitionState::decode(&bytes, ObjectId(1), 44), Ok(state));
        assert!(PartitionState::decode(&bytes, ObjectId(2), 44).is_err());
        assert!(PartitionState::decode(&bytes, ObjectId(1), 45).is_err());
        assert!(PartitionState::decode(&bytes[..bytes.len() - 1], ObjectId(1), 44).is_err());
    }
}
