//! Producer state of one partition (KIP-98): what tells a retry from a new batch, and one epoch from another.
//!
//! Pure: batches and markers in, verdicts out. The last five batches of each producer count as its window; a new epoch
//! begins a new one, also where only a marker brought it (KIP-890). What is not yet in object storage is kept beyond
//! the five, so that the state exactly as of any cut can be written there.

use std::collections::{HashMap, VecDeque};

use crate::base::{Offset, ProducerId, limits};
use crate::batch::{EndMarker, Header, NO_SEQUENCE, sequence_plus};
use crate::object::{PartitionState, ProducerBatch, ProducerEntry};

/// Coordinator epoch of a producer whose transactions no coordinator has ended here.
pub const NO_COORDINATOR: i32 = -1;

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

/// Why a batch or a marker of a producer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("sequence {found} does not follow {expected}")]
    OutOfOrder { expected: i32, found: i32 },
    #[error("producer epoch {found} is older than {current}")]
    OldEpoch { current: i16, found: i16 },
    #[error("coordinator epoch {found} is older than {current}")]
    OldCoordinator { current: i32, found: i32 },
    #[error("the producer has an open transaction, and the batch is not part of it")]
    OutsideTransaction,
    #[error("the batch belongs to no transaction that its coordinator has confirmed")]
    NotVerified,
}

/// One appended batch or marker of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    epoch: i16,
    marker: bool,
    /// Of a marker; [`NO_COORDINATOR`] otherwise.
    coordinator_epoch: i32,
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    next_offset: Offset,
    timestamp: i64,
}

/// One producer: what was last in object storage, and what came since, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    /// Of the newest event.
    epoch: i16,
    /// Of the newest marker.
    coordinator_epoch: i32,
    /// Epochs of producer and coordinator as of what was trimmed; `None` while nothing was.
    base: Option<(i16, i32)>,
    /// The window of what was trimmed, then everything since.
    events: VecDeque<Event>,
    /// Milliseconds since 1970 of the latest append, for expiry.
    last_append_ms: i64,
}

/// A producer as DescribeProducers (KIP-664) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub id: ProducerId,
    pub epoch: i16,
    /// −1 when the epoch has no batch yet.
    pub last_sequence: i32,
    pub last_timestamp: i64,
    /// −1 when no coordinator has ended a transaction of it here.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction.
    pub transaction_start: Option<Offset>,
}

/// All producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: HashMap<ProducerId, Producer>,
}

impl Producers {
    pub fn epoch(&self, id: ProducerId) -> Option<i16> {
        self.by_id.get(&id).map(|p| p.epoch)
    }

    /// Whether a batch was appended before.
    pub fn duplicate(&self, header: &Header) -> Option<Verdict> {
        let producer = self.by_id.get(&header.producer_id)?;
        if producer.epoch != header.producer_epoch {
            return None;
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let same = |b: &&Event| (b.first_sequence, b.last_sequence) == (first, last);
        let found = producer.window(producer.epoch).take(limits::PRODUCER_WINDOW).find(same)?;
        Some(Verdict::Duplicate {
            base_offset: found.base_offset,
            next_offset: found.next_offset,
            append_time_ms: found.timestamp,
        })
    }

    pub fn check_epoch(&self, id: ProducerId, found: i16) -> Result<(), ProducerError> {
        match self.epoch(id) {
            Some(current) if found < current => Err(ProducerError::OldEpoch { current, found }),
            _ => Ok(()),
        }
    }

    /// Whether a batch that is no duplicate comes next.
    pub fn check_sequence(&self, header: &Header) -> Result<(), ProducerError> {
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            // Nothing known: the state may have expired, so any sequence begins a new window.
            return Ok(());
        };
        let newest = producer.window(header.producer_epoch).next();
        let expected = newest.map_or(0, |b| match b.last_sequence {
            NO_SEQUENCE => 0,
            last => sequence_plus(last, 1),
        });
        match header.base_sequence {
            found if found == expected => Ok(()),
            found => Err(ProducerError::OutOfOrder { expected, found }),
        }
    }

    /// Whether nothing of the producer's epoch is in its window.
    pub fn has_no_batch(&self, id: ProducerId, epoch: i16) -> bool {
        self.by_id.get(&id).is_none_or(|p| p.window(epoch).next().is_none())
    }

    /// Whether a marker may be appended. Under transaction version 2 it brings a new epoch; a repeated one is harmless
    /// when nothing is `open` (KAFKA-19999).
    pub fn check_marker(
        &self,
        id: ProducerId,
        epoch: i16,
        marker: EndMarker,
        version2: bool,
        open: bool,
    ) -> Result<(), ProducerError> {
        let Some(producer) = self.by_id.get(&id) else { return Ok(()) };
        let repeated = epoch == producer.epoch && !open;
        if epoch < producer.epoch || (version2 && epoch == producer.epoch && !repeated) {
            return Err(ProducerError::OldEpoch { current: producer.epoch, found: epoch });
        }
        match (producer.coordinator_epoch, marker.coordinator_epoch) {
            (current, found) if found < current => Err(ProducerError::OldCoordinator { current, found }),
            _ => Ok(()),
        }
    }

    /// Records an appended batch or marker. `append_ms` is when this broker appended it.
    pub fn record(&mut self, header: &Header, marker: Option<EndMarker>, append_ms: i64) {
        let coordinator_epoch = marker.map_or(NO_COORDINATOR, |m| m.coordinator_epoch);
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            coordinator_epoch: NO_COORDINATOR,
            base: None,
            events: VecDeque::new(),
            last_append_ms: append_ms,
        });
        // Batches of the epoch before stay until they are uploaded: a cut below this one needs them.
        producer.epoch = header.producer_epoch;
        producer.last_append_ms = append_ms;
        if marker.is_some() {
            producer.coordinator_epoch = coordinator_epoch;
        }
        producer.events.push_back(Event {
            epoch: header.producer_epoch,
            marker: marker.is_some(),
            coordinator_epoch,
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
        self.by_id.values_mut().for_each(|producer| producer.trim(end));
    }

    /// Forgets producers that appended nothing since `before_ms` (`producer.id.expiration.ms`), but for those that
    /// `is_open` says have an open transaction.
    pub fn expire(&mut self, before_ms: i64, is_open: impl Fn(ProducerId) -> bool) {
        self.by_id.retain(|id, producer| producer.last_append_ms >= before_ms || is_open(*id));
    }

    /// Puts the state that object storage holds as of `as_of` under what has been recorded since.
    pub fn load_under(&mut self, state: &PartitionState, as_of: Offset) {
        for entry in &state.producers {
            let stored = Producer::from_entry(entry);
            match self.by_id.get_mut(&entry.id) {
                Some(newer) => {
                    newer.forget_below(as_of);
                    newer.put_under(stored);
                }
                None => drop(self.by_id.insert(entry.id, stored)),
            }
        }
    }

    /// Active producers, by id; `transaction` says where the open one of a producer began.
    pub fn active(&self, transaction: impl Fn(ProducerId) -> Option<Offset>) -> Vec<ActiveProducer> {
        let shown = |(id, p): (&ProducerId, &Producer)| ActiveProducer {
            id: *id,
            epoch: p.epoch,
            last_sequence: p.window(p.epoch).next().map_or(NO_SEQUENCE, |b| b.last_sequence),
            last_timestamp: p.events.back().map_or(p.last_append_ms, |b| b.timestamp),
            coordinator_epoch: p.coordinator_epoch,
            transaction_start: transaction(*id),
        };
        let mut all: Vec<_> = self.by_id.iter().map(shown).collect();
        all.sort_by_key(|p| p.id);
        all
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Producer {
    /// Batches of `epoch`, newest first. Epochs only rise, so those of the newest are at the back.
    fn window(&self, epoch: i16) -> impl Iterator<Item = &Event> {
        self.events.iter().rev().take_while(move |e| e.epoch == epoch).filter(|e| !e.marker)
    }

    fn as_of(&self, id: ProducerId, end: Offset) -> Option<ProducerEntry> {
        let below = || self.events.iter().take_while(|e| e.next_offset <= end);
        let epoch = match (below().last(), self.base) {
            (Some(newest), Some((base, _))) => newest.epoch.max(base),
            (Some(newest), None) => newest.epoch,
            (None, base) => base?.0,
        };
        let marker = below().filter(|e| e.marker).last().map(|e| e.coordinator_epoch);
        let batches: Vec<_> = below()
            .filter(|e| !e.marker && e.epoch == epoch)
            .map(|b| ProducerBatch {
                first_sequence: b.first_sequence,
                last_sequence: b.last_sequence,
                base_offset: b.base_offset,
                timestamp: b.timestamp,
            })
            .collect();
        Some(ProducerEntry {
            id,
            epoch,
            coordinator_epoch: marker.or(self.base.map(|(_, c)| c)).unwrap_or(NO_COORDINATOR),
            last_timestamp: self.last_append_ms,
            batches: batches[batches.len().saturating_sub(limits::PRODUCER_WINDOW)..].to_vec(),
        })
    }

    fn trim(&mut self, end: Offset) {
        let uploaded = self.events.partition_point(|e| e.next_offset <= end);
        if uploaded == 0 {
            return;
        }
        let newest = self.events[uploaded - 1];
        let marker = self.events.range(..uploaded).rev().find(|e| e.marker).map(|e| e.coordinator_epoch);
        let (epoch, coordinator_epoch) = self.base.unwrap_or((newest.epoch, NO_COORDINATOR));
        let epoch = newest.epoch.max(epoch);
        self.base = Some((epoch, marker.unwrap_or(coordinator_epoch)));
        let in_window = |e: &Event| !e.marker && e.epoch == epoch;
        let mut spare = self.events.range(..uploaded).filter(|e| in_window(e)).count();
        let mut at = 0;
        self.events.retain(|e| {
            at += 1;
            if at > uploaded || !in_window(e) {
                return at > uploaded;
            }
            spare -= 1;
            spare < limits::PRODUCER_WINDOW
        });
        if self.events.len() * 4 < self.events.capacity() {
            self.events.shrink_to_fit();
        }
    }

    /// What is stored as of `end` has all of this.
    fn forget_below(&mut self, end: Offset) {
        self.events.retain(|event| event.next_offset > end);
        self.base = None;
    }

    /// `stored` is what was known before the first event here.
    fn put_under(&mut self, stored: Producer) {
        if self.base.is_some() {
            return;
        }
        self.base = stored.base;
        if !self.events.iter().any(|e| e.marker) {
            self.coordinator_epoch = stored.coordinator_epoch;
        }
        for batch in stored.events.into_iter().rev() {
            self.events.push_front(batch);
        }
    }

    fn from_entry(entry: &ProducerEntry) -> Producer {
        let batches = entry.batches.iter().map(|b| {
            let last_delta = b.last_sequence.wrapping_sub(b.first_sequence) & i32::MAX;
            Event {
                epoch: entry.epoch,
                marker: false,
                coordinator_epoch: NO_COORDINATOR,
                first_sequence: b.first_sequence,
                last_sequence: b.last_sequence,
                base_offset: b.base_offset,
                next_offset: b.base_offset.plus(last_delta as i64 + 1),
                timestamp: b.timestamp,
            }
        });
        Producer {
            epoch: entry.epoch,
            coordinator_epoch: entry.coordinator_epoch,
            base: Some((entry.epoch, entry.coordinator_epoch)),
            events: batches.collect(),
            last_append_ms: entry.last_timestamp,
        }
    }
}

#[cfg(test)]
mod tests;
