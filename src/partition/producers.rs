//! Producer state of one partition (KIP-98): what tells a retry from a new batch.
//!
//! Pure: batches in, verdicts out. The last five batches of each producer count as its window; batches that are not
//! yet in object storage are kept beyond the five, so that the state exactly as of any cut can be written there.

use std::collections::{HashMap, VecDeque};

use crate::base::{Offset, ProducerId, limits};
use crate::batch::{Header, sequence_plus};
use crate::object::{PartitionState, ProducerBatch, ProducerEntry};

/// What a batch of an idempotent producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// Appended before, at `base_offset`; `append_time_ms` is that of the first time.
    Duplicate {
        base_offset: Offset,
        next_offset: Offset,
        append_time_ms: i64,
    },
}

/// Why a batch of an idempotent producer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("sequence {found} does not follow {expected}")]
    OutOfOrder { expected: i32, found: i32 },
    #[error("producer epoch {found} is older than {current}")]
    OldEpoch { current: i16, found: i16 },
}

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    epoch: i16,
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    next_offset: Offset,
    timestamp: i64,
}

/// One producer's epoch and latest batches, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Window>,
    /// Milliseconds since 1970 of the latest append, for expiry.
    last_append_ms: i64,
}

/// A producer as DescribeProducers (KIP-664) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub id: ProducerId,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
}

/// All producers of a partition.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    by_id: HashMap<ProducerId, Producer>,
}

impl Producers {
    /// Judges a batch without recording it.
    pub fn check(&self, header: &Header) -> Result<Verdict, ProducerError> {
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            // Nothing known: the state may have expired, so any sequence begins a new window.
            return Ok(Verdict::Append);
        };
        if header.producer_epoch < producer.epoch {
            return Err(ProducerError::OldEpoch { current: producer.epoch, found: header.producer_epoch });
        }
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 => Ok(Verdict::Append),
                found => Err(ProducerError::OutOfOrder { expected: 0, found }),
            };
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let current = producer.batches.iter().rev().take_while(|b| b.epoch == producer.epoch);
        for batch in current.take(limits::PRODUCER_WINDOW) {
            if (batch.first_sequence, batch.last_sequence) == (first, last) {
                return Ok(Verdict::Duplicate {
                    base_offset: batch.base_offset,
                    next_offset: batch.next_offset,
                    append_time_ms: batch.timestamp,
                });
            }
        }
        match producer.batches.back() {
            Some(newest) if newest.epoch == producer.epoch && sequence_plus(newest.last_sequence, 1) != first => {
                Err(ProducerError::OutOfOrder { expected: sequence_plus(newest.last_sequence, 1), found: first })
            }
            _ => Ok(Verdict::Append),
        }
    }

    /// Records an appended batch. `append_ms` is when this broker appended it.
    pub fn record(&mut self, header: &Header, append_ms: i64) {
        if !header.has_producer() {
            return;
        }
        let producer = self.by_id.entry(header.producer_id).or_default();
        // Batches of the epoch before stay until they are uploaded: a cut below this one needs them.
        producer.epoch = header.producer_epoch;
        producer.last_append_ms = append_ms;
        producer.batches.push_back(Window {
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// The state as it was when `end` was the next offset, for the footer of an object that ends there.
    pub fn as_of(&self, end: Offset) -> Vec<ProducerEntry> {
        let mut entries: Vec<_> = self.by_id.iter().filter_map(|(id, p)| p.as_of(*id, end)).collect();
        entries.sort_by_key(|e| e.id);
        entries
    }

    /// Everything below `end` is in object storage: keep only the window of it.
    pub fn trim(&mut self, end: Offset) {
        for producer in self.by_id.values_mut() {
            let uploaded = producer.batches.iter().take_while(|b| b.next_offset <= end).count();
            let waiting = producer.batches.len() - uploaded;
            let keep = waiting.max(limits::PRODUCER_WINDOW);
            while producer.batches.len() > keep {
                producer.batches.pop_front();
            }
            if producer.batches.len() * 4 < producer.batches.capacity() {
                producer.batches.shrink_to_fit();
            }
        }
    }

    /// Forgets producers that appended nothing since `before_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, before_ms: i64) {
        self.by_id.retain(|_, producer| producer.last_append_ms >= before_ms);
    }

    /// Puts the state that object storage holds under what has been recorded since.
    pub fn load_under(&mut self, state: &PartitionState) {
        for entry in &state.producers {
            let stored = Producer::from_entry(entry);
            match self.by_id.get_mut(&entry.id) {
                Some(newer) if newer.epoch == stored.epoch => {
                    for batch in stored.batches.into_iter().rev() {
                        newer.batches.push_front(batch);
                    }
                }
                Some(_) => {}
                None => drop(self.by_id.insert(entry.id, stored)),
            }
        }
    }

    /// Active producers, by id.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut all: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, p)| ActiveProducer {
                id: *id,
                epoch: p.epoch,
                last_sequence: p.batches.back().map_or(-1, |b| b.last_sequence),
                last_timestamp: p.batches.back().map_or(-1, |b| b.timestamp),
            })
            .collect();
        all.sort_by_key(|p| p.id);
        all
    }
}

impl Producer {
    fn as_of(&self, id: ProducerId, end: Offset) -> Option<ProducerEntry> {
        let epoch = self.batches.iter().rfind(|b| b.next_offset <= end)?.epoch;
        let below: Vec<_> = self.batches.iter().filter(|b| b.next_offset <= end && b.epoch == epoch).collect();
        let window = &below[below.len().saturating_sub(limits::PRODUCER_WINDOW)..];
        Some(ProducerEntry {
            id,
            epoch,
            last_timestamp: self.last_append_ms,
            batches: window
                .iter()
                .map(|b| ProducerBatch {
                    first_sequence: b.first_sequence,
                    last_sequence: b.last_sequence,
                    base_offset: b.base_offset,
                    timestamp: b.timestamp,
                })
                .collect(),
        })
    }

    fn from_entry(entry: &ProducerEntry) -> Producer {
        let batches = entry
            .batches
            .iter()
            .map(|b| {
                let last_delta = b.last_sequence.wrapping_sub(b.first_sequence) & i32::MAX;
                Window {
                    epoch: entry.epoch,
                    first_sequence: b.first_sequence,
                    last_sequence: b.last_sequence,
                    base_offset: b.base_offset,
                    next_offset: b.base_offset.plus(last_delta as i64 + 1),
                    timestamp: b.timestamp,
                }
            })
            .collect();
        Producer { epoch: entry.epoch, batches, last_append_ms: entry.last_timestamp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::LeaderEpoch;
    use crate::batch::sample;

    fn header(epoch: i16, sequence: i32, count: i32, base: i64) -> Header {
        let mut batch = sample::produced(count, 1_000, 7, epoch, sequence);
        batch.place(Offset(base), LeaderEpoch(0));
        batch.header()
    }

    fn filled(batches: i32) -> Producers {
        let mut producers = Producers::default();
        for i in 0..batches {
            producers.record(&header(0, i * 10, 10, i as i64 * 10), 5);
        }
        producers
    }

    #[test]
    fn the_last_five_are_duplicates_and_older_ones_are_out_of_order() {
        let producers = filled(7);
        for i in 2..7 {
            let verdict = producers.check(&header(0, i * 10, 10, 0));
            assert!(
                matches!(verdict, Ok(Verdict::Duplicate { base_offset, .. }) if base_offset.0 == i as i64 * 10),
                "{i}: {verdict:?}"
            );
        }
        let old = producers.check(&header(0, 10, 10, 0));
        assert_eq!(old, Err(ProducerError::OutOfOrder { expected: 70, found: 10 }));
        assert_eq!(producers.check(&header(0, 70, 1, 0)), Ok(Verdict::Append));
        assert!(matches!(producers.check(&header(0, 71, 1, 0)), Err(ProducerError::OutOfOrder { .. })));
        // The same first sequence with another count is no retry of the same batch.
        assert!(matches!(producers.check(&header(0, 60, 9, 0)), Err(ProducerError::OutOfOrder { .. })));
    }

    #[test]
    fn epochs_only_rise_and_begin_at_zero() {
        let mut producers = filled(1);
        producers.record(&header(3, 0, 1, 10), 5);
        assert_eq!(producers.check(&header(2, 0, 1, 0)), Err(ProducerError::OldEpoch { current: 3, found: 2 }));
        assert_eq!(producers.check(&header(4, 5, 1, 0)), Err(ProducerError::OutOfOrder { expected: 0, found: 5 }));
        assert_eq!(producers.check(&header(4, 0, 1, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(Producers::default().check(&header(0, 99, 1, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn a_cut_below_newer_batches_still_has_the_whole_window() {
        let mut producers = filled(20);
        let entry = producers.as_of(Offset(100)).remove(0);
        let bases: Vec<_> = entry.batches.iter().map(|b| b.base_offset.0).collect();
        assert_eq!(bases, [50, 60, 70, 80, 90]);
        producers.trim(Offset(100));
        assert_eq!(producers.as_of(Offset(200)).remove(0).batches.len(), 5);
        assert_eq!(producers.by_id[&ProducerId(7)].batches.len(), 10);
        producers.trim(Offset(200));
        assert_eq!(producers.by_id[&ProducerId(7)].batches.len(), 5);
    }

    #[test]
    fn a_cut_below_a_new_epoch_has_the_old_one() {
        let mut producers = filled(2);
        producers.record(&header(1, 0, 10, 20), 5);
        let entry = producers.as_of(Offset(20)).remove(0);
        assert_eq!((entry.epoch, entry.batches.len()), (0, 2));
        let entry = producers.as_of(Offset(30)).remove(0);
        assert_eq!((entry.epoch, entry.batches.len()), (1, 1));
        assert!(matches!(producers.check(&header(1, 10, 1, 0)), Ok(Verdict::Append)));
    }

    #[test]
    fn state_from_the_bucket_and_the_tail_make_one_window() {
        let all = filled(8);
        let stored = PartitionState { epochs: vec![], producers: all.as_of(Offset(60)), ..Default::default() };
        let mut tail = Producers::default();
        for i in 6..8 {
            tail.record(&header(0, i * 10, 10, i as i64 * 10), 5);
        }
        tail.load_under(&stored);
        for i in 3..8 {
            let verdict = tail.check(&header(0, i * 10, 10, 0));
            assert!(matches!(verdict, Ok(Verdict::Duplicate { .. })), "{i}");
        }
        assert_eq!(tail.check(&header(0, 80, 10, 0)), Ok(Verdict::Append));
    }
}
