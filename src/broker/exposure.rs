//! What is durable here and not in object storage yet, ledger by ledger, for those ledgers that this node uploads.
//!
//! Pure. A queue holds the entries of one ledger in sequence, from what is uploaded on. Several are in use at a time: the
//! one that this process writes, those that it closed, and those of others that it was named for. They do not wait for
//! each other here: which of them may go on is decided where partitions are looked at (`shadow.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::{EntryId, LedgerId};

/// A durable entry that object storage does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub bytes: u32,
    /// When it became durable, by CLOCK_BOOTTIME.
    pub at: Duration,
}

/// Acknowledged data whose only copy is the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    pub bytes: u64,
    pub entries: u64,
    /// Age of the oldest.
    pub age: Duration,
}

/// See the module's documentation. Invariant: no queue is empty; `bytes` and `entries` are sums over all.
#[derive(Debug, Default)]
pub struct Queues {
    by_ledger: BTreeMap<LedgerId, Queue>,
    bytes: u64,
    entries: u64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Exposed>,
    bytes: u64,
}

impl Queues {
    /// Takes in an entry, the next one of its ledger.
    pub fn push(&mut self, exposed: Exposed) {
        let queue = self.by_ledger.entry(exposed.ledger).or_default();
        debug_assert!(queue.entries.back().is_none_or(|last| last.entry < exposed.entry));
        queue.entries.push_back(exposed);
        queue.bytes += exposed.bytes as u64;
        self.bytes += exposed.bytes as u64;
        self.entries += 1;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn exposure(&self, now: Duration) -> Exposure {
        let oldest = self.by_ledger.values().filter_map(|queue| queue.entries.front()).map(|e| e.at).min();
        let age = oldest.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        Exposure { bytes: self.bytes, entries: self.entries, age }
    }

    pub fn exposure_of(&self, ledger: LedgerId, now: Duration) -> Exposure {
        let Some(queue) = self.by_ledger.get(&ledger) else { return Exposure::default() };
        let age = queue.entries.front().map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest.at));
        Exposure { bytes: queue.bytes, entries: queue.entries.len() as u64, age }
    }

    /// Ledgers with something to upload, oldest first.
    pub fn ledgers(&self) -> Vec<LedgerId> {
        self.by_ledger.keys().copied().collect()
    }

    /// Where the next upload of `ledger` is cut: it takes at most `max_bytes` but at least one entry. The first entry after
    /// the cut.
    pub fn cut(&self, ledger: LedgerId, max_bytes: u64) -> Option<EntryId> {
        let queue = &self.by_ledger.get(&ledger)?.entries;
        let (mut through, mut bytes) = (queue.front()?.entry, 0);
        for entry in queue {
            if bytes > 0 && bytes + entry.bytes as u64 > max_bytes {
                break;
            }
            bytes += entry.bytes as u64;
            through = entry.entry.next();
        }
        Some(through)
    }

    /// Entries of `ledger` below `through` are in object storage, or are nobody's here any more.
    pub fn uploaded(&mut self, ledger: LedgerId, through: EntryId) {
        let Some(queue) = self.by_ledger.get_mut(&ledger) else { return };
        while let Some(front) = queue.entries.front().copied()
            && front.entry < through
        {
            queue.entries.pop_front();
            queue.bytes -= front.bytes as u64;
            self.bytes -= front.bytes as u64;
            self.entries -= 1;
        }
        let entries = &mut queue.entries;
        if entries.is_empty() {
            self.by_ledger.remove(&ledger);
        } else if entries.len() * 4 < entries.capacity() {
            entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ledger: u64, entry: u64, bytes: u32, at: u64) -> Exposed {
        Exposed { ledger: LedgerId(ledger), entry: EntryId(entry), bytes, at: Duration::from_secs(at) }
    }

    #[test]
    fn ledgers_do_not_wait_for_each_other() {
        let mut queues = Queues::default();
        for (ledger, id, at) in [(7, 0, 5), (7, 1, 6), (3, 10, 4), (3, 11, 9)] {
            queues.push(entry(ledger, id, 100, at));
        }
        assert_eq!(queues.ledgers(), [LedgerId(3), LedgerId(7)]);
        let exposure = queues.exposure(Duration::from_secs(10));
        assert_eq!((exposure.bytes, exposure.entries, exposure.age.as_secs()), (400, 4, 6));
        let of_one = queues.exposure_of(LedgerId(7), Duration::from_secs(10));
        assert_eq!((of_one.bytes, of_one.entries, of_one.age.as_secs()), (200, 2, 5));
        assert_eq!(queues.exposure_of(LedgerId(9), Duration::ZERO), Exposure::default());
        assert_eq!(queues.cut(LedgerId(3), 1), Some(EntryId(11)), "at least one");
        assert_eq!(queues.cut(LedgerId(7), 200), Some(EntryId(2)));
        assert_eq!(queues.cut(LedgerId(9), 200), None);
        queues.uploaded(LedgerId(7), EntryId(2));
        assert_eq!((queues.ledgers(), queues.bytes()), (vec![LedgerId(3)], 200));
        queues.uploaded(LedgerId(3), EntryId(u64::MAX));
        assert_eq!(queues.exposure(Duration::from_secs(10)), Exposure::default());
    }
}
