//! Transactions of one partition (KIP-98): which are open, and which were aborted.
//!
//! Pure. A transaction begins with its producer's first batch and ends with a marker. Ends are kept until they are
//! neither needed for the state as of a later cut nor for a read of what this node holds:
//!
//! - A marker at or above the uploaded end is kept whatever it says: as of a cut below it the transaction is open.
//! - An abort is kept as long as this node holds batches from its marker on.
//!
//! So memory is bounded by open transactions and by the tail. The *aborted list of an object's footer* holds the aborts
//! whose marker lies in that very run, not all since the log start: with it alone a long log would carry an
//! ever-growing list in every footer and in memory, while a reader needs only what overlaps its range. It walks the
//! footers from the run it reads on, and stops where no transaction that began in its range is still open
//! (`broker/transactions.rs`); that is as far as the longest transaction reaches. A merged run has the union of its
//! inputs' lists, so nothing above the log start is ever forgotten.
//!
//! Until the footer of the uploaded end is loaded, what began below that end is unknown: a marker found in the tail
//! may end a transaction without a known beginning, and a batch may go on with one. Both are settled by
//! [`Transactions::load_under`].

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::base::{Offset, ProducerId};
use crate::object::{AbortedTransaction, OpenTransaction};

/// A transaction with its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    producer: ProducerId,
    /// `None` when the tail does not have its beginning and the footer is not loaded yet.
    first_offset: Option<Offset>,
    marker: Offset,
    commit: bool,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// Without a marker, by producer: first offset.
    open: HashMap<ProducerId, Offset>,
    /// The same by first offset, for the last stable offset.
    by_offset: BTreeMap<Offset, ProducerId>,
    /// In the order of their markers.
    ended: VecDeque<Ended>,
}

impl Transactions {
    /// First offset of the producer's open transaction.
    pub fn first_offset(&self, producer: ProducerId) -> Option<Offset> {
        self.open.get(&producer).copied()
    }

    /// A transactional batch was appended at `offset`.
    pub fn record_batch(&mut self, producer: ProducerId, offset: Offset) {
        if !self.open.contains_key(&producer) {
            self.begin(producer, offset);
        }
    }

    fn begin(&mut self, producer: ProducerId, first: Offset) {
        if let Some(before) = self.open.insert(producer, first) {
            self.by_offset.remove(&before);
        }
        self.by_offset.insert(first, producer);
    }

    /// A marker was appended at `marker`. `loaded` says whether everything below is known: a marker without a
    /// transaction then means nothing.
    pub fn record_marker(&mut self, producer: ProducerId, marker: Offset, commit: bool, loaded: bool) {
        let first_offset = self.open.remove(&producer);
        if let Some(first) = first_offset {
            self.by_offset.remove(&first);
        }
        if first_offset.is_some() || !loaded {
            self.ended.push_back(Ended { producer, first_offset, marker, commit });
        }
    }

    /// First offset of the oldest transaction that is open for whoever sees the records below `durable`: a marker
    /// that is not durable has not ended anything yet.
    pub fn first_unstable(&self, durable: Offset) -> Option<Offset> {
        let open = self.by_offset.first_key_value().map(|(first, _)| *first);
        let ending = self.ended.iter().rev().take_while(|e| e.marker >= durable).filter_map(|e| e.first_offset).min();
        // `None` is less than any offset.
        match (open, ending) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Transactions open as of `end`, by first offset.
    pub fn open_as_of(&self, end: Offset) -> Vec<OpenTransaction> {
        let open = self.by_offset.range(..end).map(|(first, producer)| (*producer, *first));
        let ended_later =
            self.ended.iter().filter(|e| e.marker >= end).filter_map(|e| Some((e.producer, e.first_offset?)));
        let mut all: Vec<_> = open
            .chain(ended_later.filter(|(_, first)| *first < end))
            .map(|(producer, first_offset)| OpenTransaction { producer, first_offset })
            .collect();
        all.sort_by_key(|t| t.first_offset);
        all
    }

    /// Aborted transactions with a marker in `from..to`, by marker.
    pub fn aborted_in(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        self.aborted().filter(|t| from <= t.last_offset && t.last_offset < to).collect()
    }

    /// Aborted transactions that may have records in `from..to`, among those whose end is known here, by first offset.
    pub fn aborted_between(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        let mut found: Vec<_> = self.aborted().filter(|t| t.first_offset < to && from <= t.last_offset).collect();
        found.sort_unstable_by_key(|t| t.first_offset);
        found
    }

    fn aborted(&self) -> impl Iterator<Item = AbortedTransaction> {
        self.ended.iter().filter(|e| !e.commit).filter_map(|e| {
            Some(AbortedTransaction { producer: e.producer, first_offset: e.first_offset?, last_offset: e.marker })
        })
    }

    /// Everything below `uploaded` is in object storage, and this node holds no batch below `held`: drops what neither
    /// a footer nor a read needs any more.
    pub fn trim(&mut self, uploaded: Offset, held: Offset) {
        self.ended.retain(|e| e.marker >= uploaded || (!e.commit && e.marker >= held));
        if self.ended.len() * 4 < self.ended.capacity() {
            self.ended.shrink_to_fit();
        }
    }

    /// Puts the transactions that were open at the uploaded end under what the tail had. From now on everything is
    /// known.
    pub fn load_under(&mut self, stored: &[OpenTransaction]) {
        for transaction in stored {
            let OpenTransaction { producer, first_offset } = *transaction;
            // Between its beginning and the uploaded end no marker ended it: the first one of the tail does, and
            // what the tail has of the producer before that belongs to it.
            match self.ended.iter_mut().find(|e| e.producer == producer) {
                Some(ended) => ended.first_offset = Some(first_offset),
                None => self.begin(producer, first_offset),
            }
        }
        self.ended.retain(|e| e.first_offset.is_some());
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProducerId = ProducerId(1);
    const B: ProducerId = ProducerId(2);

    fn open(list: Vec<OpenTransaction>) -> Vec<(i64, i64)> {
        list.into_iter().map(|t| (t.producer.0, t.first_offset.0)).collect()
    }

    fn aborted(list: Vec<AbortedTransaction>) -> Vec<(i64, i64, i64)> {
        list.into_iter().map(|t| (t.producer.0, t.first_offset.0, t.last_offset.0)).collect()
    }

    /// A: 10..=20 aborted, 22.. open. B: 15..=30 committed.
    fn some() -> Transactions {
        let mut t = Transactions::default();
        t.record_batch(A, Offset(10));
        t.record_batch(B, Offset(15));
        t.record_marker(A, Offset(20), false, true);
        t.record_batch(A, Offset(22));
        t.record_batch(A, Offset(25));
        t.record_marker(B, Offset(30), true, true);
        t
    }

    #[test]
    fn a_transaction_is_open_until_its_marker_is_durable() {
        let t = some();
        assert_eq!(t.first_unstable(Offset(31)), Some(Offset(22)));
        assert_eq!(t.first_unstable(Offset(30)), Some(Offset(15)), "B's marker may still be lost");
        assert_eq!(t.first_unstable(Offset(20)), Some(Offset(10)));
        let mut t = t;
        t.record_marker(A, Offset(31), true, true);
        assert_eq!(t.first_unstable(Offset(32)), None);
    }

    #[test]
    fn each_cut_has_its_own_state() {
        let t = some();
        for (end, expected) in [
            (10, vec![]),
            (11, vec![(1, 10)]),
            (16, vec![(1, 10), (2, 15)]),
            (20, vec![(1, 10), (2, 15)]),
            (21, vec![(2, 15)]),
            (23, vec![(2, 15), (1, 22)]),
            (31, vec![(1, 22)]),
        ] {
            assert_eq!(open(t.open_as_of(Offset(end))), expected, "as of {end}");
        }
        assert_eq!(aborted(t.aborted_in(Offset(0), Offset(21))), [(1, 10, 20)]);
        assert_eq!(aborted(t.aborted_in(Offset(0), Offset(20))), []);
        assert_eq!(aborted(t.aborted_in(Offset(21), Offset(99))), []);
    }

    #[test]
    fn a_read_gets_the_aborts_that_overlap_it() {
        let t = some();
        for (from, to, found) in [(0, 10, 0), (0, 11, 1), (20, 21, 1), (21, 99, 0), (12, 13, 1)] {
            assert_eq!(t.aborted_between(Offset(from), Offset(to)).len(), found, "{from}..{to}");
        }
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let mut t = some();
        t.trim(Offset(25), Offset(15));
        assert_eq!(t.ended.len(), 2, "B's marker is not uploaded, A's abort may be read");
        t.trim(Offset(31), Offset(15));
        assert_eq!(aborted(t.aborted_between(Offset(0), Offset(99))), [(1, 10, 20)]);
        t.trim(Offset(31), Offset(21));
        assert!(t.ended.is_empty());
        assert_eq!(t.first_offset(A), Some(Offset(22)), "what is open stays");
    }

    #[test]
    fn a_marker_without_a_transaction_means_nothing_once_all_is_known() {
        let mut t = Transactions::default();
        t.record_marker(A, Offset(5), false, true);
        assert!(t.is_empty());
    }

    #[test]
    fn a_tail_goes_on_with_what_was_open_below_it() {
        // In the footer: A open since 3, B since 4. In the tail: A's batch at 10 and its abort at 11, a further
        // transaction of A from 12 on; B's abort at 14; a marker of a producer that had nothing open.
        let mut t = Transactions::default();
        t.record_batch(A, Offset(10));
        t.record_marker(A, Offset(11), false, false);
        t.record_batch(A, Offset(12));
        t.record_marker(B, Offset(14), false, false);
        t.record_marker(ProducerId(3), Offset(15), false, false);
        let stored = [(A, 3), (B, 4), (ProducerId(4), 5)];
        t.load_under(&stored.map(|(producer, first)| OpenTransaction { producer, first_offset: Offset(first) }));
        assert_eq!(aborted(t.aborted_between(Offset(0), Offset(99))), [(1, 3, 11), (2, 4, 14)]);
        assert_eq!(open(t.open_as_of(Offset(99))), [(4, 5), (1, 12)]);
        assert_eq!(open(t.open_as_of(Offset(10))), [(1, 3), (2, 4), (4, 5)], "as it was loaded");
    }

    #[test]
    fn an_open_transaction_of_the_tail_may_have_begun_below_it() {
        let mut t = Transactions::default();
        t.record_batch(A, Offset(10));
        t.load_under(&[OpenTransaction { producer: A, first_offset: Offset(3) }]);
        assert_eq!((t.first_offset(A), t.first_unstable(Offset(11))), (Some(Offset(3)), Some(Offset(3))));
        assert_eq!(t.by_offset.len(), 1);
    }
}
