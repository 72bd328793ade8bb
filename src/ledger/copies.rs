//! Who waits for more synced copies of an entry than make it durable.
//!
//! Pure. An entry of the open ledger may get a further copy at any time. When the ledger is closed its entries keep the
//! copies that were counted by then: replicas that stay get what comes next as entries of the next ledger, and nothing more
//! of the closed one. So whoever still waits is told that no further copy comes.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use crate::base::{EntryId, LedgerId};

/// Closed ledgers whose copies are remembered. What is older is in object storage, or can be asked of the metadata.
const CLOSED_MAX: usize = 64;

/// How many synced copies a durable entry has.
#[derive(Debug)]
pub enum Copies {
    Enough,
    /// Too few, and there will never be more.
    TooFew,
    /// The open ledger may still get them. An error: there will be no more.
    Awaited(oneshot::Receiver<()>),
    /// This process did not write the ledger, or has forgotten it.
    Unknown,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct CopyCounts {
    /// By the copies that are waited for: entries of the open ledger, and who waits for each.
    waiting: BTreeMap<usize, BTreeMap<(EntryId, u64), oneshot::Sender<()>>>,
    /// Tells apart who waits for the same entry.
    next: u64,
    /// Ledgers that were left, oldest first. The entries below position `k` have `k + 1` copies.
    closed: VecDeque<(LedgerId, Vec<EntryId>)>,
}

impl CopyCounts {
    /// A place for whoever waits until `entry` of the open ledger has `copies` copies.
    pub fn wait(&mut self, entry: EntryId, copies: usize) -> oneshot::Receiver<()> {
        let (sender, waiting) = oneshot::channel();
        self.next += 1;
        self.waiting.entry(copies).or_default().insert((entry, self.next), sender);
        waiting
    }

    /// Answers who waited for what is there: entries of the open ledger below `reached(copies)` have so many copies.
    pub fn release(&mut self, reached: impl Fn(usize) -> EntryId) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|copies, waiting| {
            let still = waiting.split_off(&(reached(*copies), 0));
            for (_, sender) in std::mem::replace(waiting, still) {
                // Who waited may have run out of patience.
                let _ = sender.send(());
            }
            !waiting.is_empty()
        });
    }

    /// The open ledger is left: below `positions[k]` its entries have `k + 1` copies. Who waits for more is told that none
    /// will come.
    pub fn leave(&mut self, ledger: LedgerId, positions: Vec<EntryId>) {
        let below = |copies: usize| copies.checked_sub(1).and_then(|at| positions.get(at)).copied().unwrap_or_default();
        self.release(below);
        self.waiting.clear();
        self.closed.push_back((ledger, positions));
        if self.closed.len() > CLOSED_MAX {
            self.closed.pop_front();
        }
    }

    /// Nothing more becomes of any entry.
    pub fn give_up(&mut self) {
        self.waiting.clear();
    }

    /// Of an entry of a ledger that was left.
    pub fn of_closed(&self, ledger: LedgerId, entry: EntryId, copies: usize) -> Copies {
        let Some((_, positions)) = self.closed.iter().find(|(closed, _)| *closed == ledger) else {
            return Copies::Unknown;
        };
        let below = copies.checked_sub(1).map(|at| positions.get(at).copied().unwrap_or_default());
        if below.is_none_or(|below| entry < below) { Copies::Enough } else { Copies::TooFew }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(waiting: &mut oneshot::Receiver<()>) -> Option<bool> {
        match waiting.try_recv() {
            Ok(()) => Some(true),
            Err(oneshot::error::TryRecvError::Closed) => Some(false),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    #[test]
    fn each_is_told_when_its_own_entry_has_its_own_number_of_copies() {
        let mut counts = CopyCounts::default();
        let asked = [(3, 3), (3, 3), (4, 3), (3, 4)];
        let mut waiting = asked.map(|(entry, copies)| counts.wait(EntryId(entry), copies));
        let mut told = |counts: &mut CopyCounts, three: u64, four: u64| {
            counts.release(|copies| EntryId(if copies == 3 { three } else { four }));
            waiting.each_mut().map(outcome)
        };
        assert_eq!(told(&mut counts, 3, 0), [None; 4]);
        assert_eq!(told(&mut counts, 4, 3), [Some(true), Some(true), None, None]);
        assert_eq!(told(&mut counts, 5, 4)[2..], [Some(true), Some(true)]);
        assert!(counts.waiting.is_empty());
    }

    #[test]
    fn a_ledger_that_was_left_keeps_the_copies_that_were_counted() {
        let mut counts = CopyCounts::default();
        let mut waiting = [4, 5].map(|entry| counts.wait(EntryId(entry), 3));
        let ledger = LedgerId(7);
        counts.leave(ledger, [9, 8, 5].map(EntryId).to_vec());
        assert_eq!(waiting.each_mut().map(outcome), [Some(true), Some(false)]);
        for (entry, copies, enough) in [(7, 2, true), (8, 2, false), (4, 3, true), (5, 3, false), (0, 4, false)] {
            let found = counts.of_closed(ledger, EntryId(entry), copies);
            assert_eq!(matches!(found, Copies::Enough), enough, "{entry} {copies}: {found:?}");
        }
        assert!(matches!(counts.of_closed(LedgerId(6), EntryId(0), 1), Copies::Unknown));
        (8..).take(CLOSED_MAX).for_each(|id| counts.leave(LedgerId(id), Vec::new()));
        assert!(matches!(counts.of_closed(ledger, EntryId(0), 1), Copies::Unknown), "forgotten");
    }
}
