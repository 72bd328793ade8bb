//! One member of the set, as its writer sees it.

use crate::base::EntryId;
use crate::metadata;

use super::super::Identity;
use super::super::plant::{Bug, Plant};

/// Why a member is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// No connection, since then; it may come back.
    Gone { since_ms: u64 },
    /// No headway for too long; it may come back.
    Slow,
    /// It lacks entries that were let go.
    Behind,
    /// It has less than it had acknowledged: what it said counts no more.
    Forgot,
    /// Its WAL is another one: what the former said counts no more.
    Replaced,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Counts,
    /// From a process before the one that was heard already.
    Stale,
    /// From another WAL than the set names.
    Replaced,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub replica: metadata::Replica,
    /// The highest heard.
    boot: u64,
    synced: EntryId,
    /// Entries below were sent on the present connection.
    pub sent: EntryId,
    pub lost: Option<Lost>,
    /// When `synced` last moved, or there was nothing to move it.
    pub headway_ms: u64,
    /// It could not take entries yet: they are sent again at the next tick.
    pub stalled: bool,
    /// It was taken off the list of spares when it was found that it has to go.
    pub passed_over: bool,
    /// What it was sent again from, in which boot: once each, or every refusal of a run of entries would send all again.
    sent_again: Option<(u64, EntryId)>,
}

impl Member {
    pub fn new(replica: metadata::Replica, now_ms: u64) -> Member {
        let zero = EntryId(0);
        Member {
            replica,
            boot: 0,
            synced: zero,
            sent: zero,
            lost: None,
            headway_ms: now_ms,
            stalled: false,
            passed_over: false,
            sent_again: None,
        }
    }

    /// Everything below it has acknowledged.
    pub fn synced(&self) -> EntryId {
        self.synced
    }

    /// What counts for durability: an answer given stays true when the connection is gone, but not when the disk is.
    pub fn counted(&self) -> EntryId {
        match self.lost {
            Some(Lost::Forgot | Lost::Replaced) => EntryId(0),
            _ => self.synced,
        }
    }

    /// Entries are kept for it.
    pub fn can_catch_up(&self) -> bool {
        matches!(self.lost, None | Some(Lost::Gone { .. } | Lost::Slow))
    }

    pub fn is_sent_to(&self) -> bool {
        matches!(self.lost, None | Some(Lost::Slow))
    }

    /// Whether it has to be replaced as soon as possible.
    pub fn must_go(&self, now_ms: u64, gone_ms: u64) -> bool {
        match self.lost {
            None => false,
            Some(Lost::Gone { since_ms }) => now_ms.saturating_sub(since_ms) >= gone_ms,
            Some(_) => true,
        }
    }

    /// The worse reason stands.
    pub fn lose(&mut self, why: Lost) {
        let for_good = matches!(self.lost, Some(Lost::Behind | Lost::Forgot | Lost::Replaced));
        let worse = matches!(why, Lost::Forgot | Lost::Replaced);
        if self.lost.is_none() || worse || (!for_good && why == Lost::Behind) {
            self.lost = Some(why);
        }
    }

    pub fn connected(&mut self) {
        if let Some(Lost::Gone { .. }) = self.lost {
            self.lost = None;
            self.passed_over = false;
        }
        self.sent = self.synced;
        self.sent_again = None;
    }

    pub fn judge(&self, from: Identity, plant: Plant) -> Standing {
        if from.incarnation != self.replica.incarnation && !plant.has(Bug::IncarnationIgnored) {
            return Standing::Replaced;
        }
        if from.boot < self.boot && !plant.has(Bug::BootIgnored) { Standing::Stale } else { Standing::Counts }
    }

    pub fn heard_synced(&mut self, boot: u64, synced: EntryId, now_ms: u64) {
        if self.is_less(boot, synced) {
            return;
        }
        if synced > self.synced {
            self.synced = synced;
            self.headway_ms = now_ms;
            if self.lost == Some(Lost::Slow) {
                self.lost = None;
                self.passed_over = false;
            }
        }
    }

    /// It wants the entry `expected`; entries from `first` on are at hand.
    pub fn heard_expected(&mut self, boot: u64, expected: EntryId, first: EntryId) {
        if self.is_less(boot, expected) {
            return;
        }
        if expected < first {
            self.lose(Lost::Behind);
        } else if expected < self.sent && self.sent_again != Some((boot, expected)) {
            self.sent_again = Some((boot, expected));
            self.sent = expected;
        }
    }

    /// Notes the boot, and whether a later process has less than was acknowledged before. In the same process an older
    /// position is only a message that was late.
    fn is_less(&mut self, boot: u64, position: EntryId) -> bool {
        let restarted = boot > self.boot;
        self.boot = self.boot.max(boot);
        if restarted && position < self.synced {
            self.lose(Lost::Forgot);
            return true;
        }
        position < self.synced
    }
}
