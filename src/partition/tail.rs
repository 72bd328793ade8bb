//! The part of a partition that this node holds: batches in memory or in its WAL, in offset order without gaps.
//!
//! Pure. Batches below the durable position are visible, those above wait for their sync. A batch that is in object
//! storage stays here as a read cache until its WAL segment is used again.

use std::collections::VecDeque;

use crate::base::{EntryId, LeaderEpoch, LedgerId, Offset};
use crate::batch::{Header, StoredBatch};
use crate::wal::Location;

/// One batch of the tail.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub base: Offset,
    /// Offsets the batch spans.
    pub records: u32,
    /// Bytes of the whole batch.
    pub bytes: u32,
    pub max_timestamp: i64,
    pub epoch: LeaderEpoch,
    /// Of a durable batch; before that another replica set may still give it another place.
    pub ledger: LedgerId,
    pub entry: EntryId,
    /// Where the WAL has it; known once it is durable.
    pub location: Option<Location>,
    /// The batch itself, as long as the memory budget lasts.
    pub memory: Option<StoredBatch>,
}

impl TailBatch {
    /// A batch that has no place in a ledger yet.
    pub fn new(header: &Header, bytes: usize) -> TailBatch {
        TailBatch {
            base: header.base_offset,
            records: (header.last_offset_delta as u32).saturating_add(1),
            bytes: bytes as u32,
            max_timestamp: header.max_timestamp,
            epoch: header.leader_epoch,
            ledger: LedgerId(0),
            entry: EntryId(0),
            location: None,
            memory: None,
        }
    }

    /// The place that the ledger has given to the batch, for good.
    pub fn settle(&mut self, ledger: LedgerId, entry: EntryId, location: Location) {
        (self.ledger, self.entry, self.location) = (ledger, entry, Some(location));
    }

    /// First offset after the batch.
    pub fn end(&self) -> Offset {
        self.base.plus(self.records as i64)
    }

    /// Where to read the batch now.
    pub fn source(&self) -> Option<Source> {
        match (&self.memory, self.location) {
            (Some(batch), _) => Some(Source::Memory(batch.clone())),
            (None, Some(location)) => Some(Source::Wal(location)),
            (None, None) => None,
        }
    }
}

/// Where a batch of the tail is to be read from.
#[derive(Clone, Debug)]
pub enum Source {
    Memory(StoredBatch),
    Wal(Location),
}

/// Batches in offset order.
#[derive(Debug, Default)]
pub struct Tail {
    batches: VecDeque<TailBatch>,
    /// How many of them, from the front, are durable.
    durable: usize,
}

impl Tail {
    /// Offset from which on this node holds everything, or `None` when it holds nothing.
    pub fn start(&self) -> Option<Offset> {
        self.batches.front().map(|b| b.base)
    }

    pub fn push(&mut self, batch: TailBatch) {
        debug_assert!(self.batches.back().is_none_or(|last| last.end() == batch.base));
        self.batches.push_back(batch);
    }

    /// Adds a batch that recovery found in the WAL: durable already.
    pub fn push_durable(&mut self, batch: TailBatch) {
        debug_assert_eq!(self.durable, self.batches.len());
        self.push(batch);
        self.durable += 1;
    }

    /// The oldest waiting batch is durable, as this entry; answers its end. `None` when nothing waits, which only a broken
    /// ledger could cause.
    pub fn synced(&mut self, ledger: LedgerId, entry: EntryId, location: Location) -> Option<Offset> {
        let batch = self.batches.get_mut(self.durable)?;
        batch.settle(ledger, entry, location);
        self.durable += 1;
        Some(batch.end())
    }

    /// Drops the copy in memory of the batch at `base`, if the WAL has it.
    pub fn forget_memory(&mut self, base: Offset) {
        let at = self.batches.partition_point(|b| b.base < base);
        if let Some(batch) = self.batches.get_mut(at)
            && batch.base == base
            && batch.location.is_some()
        {
            batch.memory = None;
        }
    }

    /// Drops batches below `uploaded_end` that neither memory nor a live WAL segment holds any more.
    pub fn prune(&mut self, uploaded_end: Offset, oldest_segment: u64) {
        while let Some(front) = self.batches.front()
            && self.durable > 0
            && front.end() <= uploaded_end
            && front.memory.is_none()
            && front.location.is_none_or(|l| l.segment < oldest_segment)
        {
            self.batches.pop_front();
            self.durable -= 1;
        }
        if self.batches.len() * 4 < self.batches.capacity() {
            self.batches.shrink_to_fit();
        }
    }

    /// Drops batches below `end` that are not to be read from here: compaction has rewritten them in object storage, or what
    /// belongs to them is known there only.
    pub fn drop_below(&mut self, end: Offset) {
        while self.durable > 0 && self.batches.front().is_some_and(|front| front.end() <= end) {
            self.batches.pop_front();
            self.durable -= 1;
        }
    }

    /// Durable batches from the one that holds `from` on.
    pub fn durable_from(&self, from: Offset) -> impl Iterator<Item = &TailBatch> {
        let first = self.batches.partition_point(|b| b.end() <= from);
        self.batches.range(first.min(self.durable)..self.durable)
    }

    /// A copy of what is durable.
    pub fn durable_only(&self) -> Tail {
        Tail { batches: self.batches.range(..self.durable).cloned().collect(), durable: self.durable }
    }

    /// Drops the copies in memory of everything that the WAL has.
    pub fn forget_all_memory(&mut self) {
        for batch in self.batches.iter_mut().filter(|b| b.location.is_some()) {
            batch.memory = None;
        }
    }

    /// Every batch, durable or not.
    #[cfg(test)]
    pub fn all(&self) -> impl Iterator<Item = &TailBatch> {
        self.batches.iter()
    }

    /// Bytes of durable batches from `from` on.
    pub fn bytes_from(&self, from: Offset) -> u64 {
        self.durable_from(from).map(|b| b.bytes as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::sample;

    fn batch(base: i64) -> TailBatch {
        let mut stored = sample::batch(10, 0);
        stored.place(Offset(base), LeaderEpoch(1));
        let mut tail = TailBatch::new(&stored.header(), stored.len());
        tail.memory = Some(stored);
        tail
    }

    fn location(segment: u64) -> Location {
        Location { segment, offset: 0, len: 0 }
    }

    #[test]
    fn only_durable_batches_are_visible_and_in_order() {
        let mut tail = Tail::default();
        tail.push(batch(0));
        tail.push(batch(10));
        assert_eq!(tail.durable_from(Offset(0)).count(), 0);
        assert_eq!(tail.synced(LedgerId(1), EntryId(0), location(1)), Some(Offset(10)));
        assert_eq!(tail.durable_from(Offset(5)).count(), 1);
        assert_eq!(tail.durable_from(Offset(10)).count(), 0);
        assert_eq!(tail.synced(LedgerId(1), EntryId(4), location(1)), Some(Offset(20)));
        let places = |b: &TailBatch| (b.base.0, b.entry.0, b.location.is_some());
        assert_eq!(tail.durable_from(Offset(5)).map(places).collect::<Vec<_>>(), [(0, 0, true), (10, 4, true)]);
        assert_eq!(tail.synced(LedgerId(1), EntryId(5), location(1)), None, "nothing waits");
    }

    #[test]
    fn memory_goes_only_when_the_wal_has_the_batch() {
        let mut tail = Tail::default();
        tail.push(batch(0));
        tail.forget_memory(Offset(0));
        assert!(matches!(tail.all().next().and_then(TailBatch::source), Some(Source::Memory(_))));
        tail.synced(LedgerId(1), EntryId(0), location(1));
        tail.forget_memory(Offset(0));
        assert!(matches!(tail.all().next().and_then(TailBatch::source), Some(Source::Wal(_))));
    }

    #[test]
    fn uploaded_batches_stay_until_their_segment_is_used_again() {
        let mut tail = Tail::default();
        for i in 0..3 {
            tail.push(batch(i * 10));
            tail.synced(LedgerId(1), EntryId(i as u64), location(1 + i as u64));
            tail.forget_memory(Offset(i * 10));
        }
        tail.prune(Offset(20), 1);
        assert_eq!(tail.start(), Some(Offset(0)));
        tail.prune(Offset(20), 9);
        assert_eq!(tail.start(), Some(Offset(20)), "what is not uploaded stays");
    }
}
