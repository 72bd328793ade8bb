//! A WAL as the model sees it: values in sequence, what of them is synced, and seals.

use std::collections::BTreeMap;

use crate::base::{EntryId, LedgerId};
use crate::wal::SealAnswer;

use super::Held;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Stored {
    first: u64,
    /// From `first` on.
    values: Vec<u8>,
    /// Of `values`.
    synced: usize,
    sealing: bool,
    sealed: Option<SealAnswer>,
    uncertain_from: Option<EntryId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Disk {
    ledgers: BTreeMap<LedgerId, Stored>,
    /// A tail was cut: a ledger never seen may have been in it.
    cut: bool,
}

/// Up to where a sync brought each ledger, exclusive.
pub type Moved = Vec<(LedgerId, EntryId)>;
/// The seals that it recorded.
pub type Sealed = Vec<(LedgerId, SealAnswer)>;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tail {
    /// What was pending is gone without a trace.
    Clean,
    /// What was pending has left something behind that cannot be read.
    Torn,
    /// The same, and a synced entry of each ledger that is not sealed is in it.
    Rotten,
}

impl Disk {
    pub fn held(&self) -> Vec<Held> {
        let held = |(ledger, stored): (&LedgerId, &Stored)| Held {
            ledger: *ledger,
            first: EntryId(stored.first),
            next: EntryId(stored.first + stored.values.len() as u64),
            sealed: stored.sealed,
        };
        self.ledgers.iter().map(held).collect()
    }

    pub fn write(&mut self, ledger: LedgerId, entry: EntryId, value: u8) {
        let stored = self.ledgers.entry(ledger).or_default();
        if entry.0 != stored.first + stored.values.len() as u64 {
            // A recovery copy that begins above, over what is uploaded.
            *stored = Stored { first: entry.0, values: Vec::new(), synced: 0, ..stored.clone() };
        }
        stored.values.push(value);
    }

    pub fn seal(&mut self, ledger: LedgerId) {
        self.ledgers.entry(ledger).or_default().sealing = true;
    }

    pub fn trim(&mut self, ledger: LedgerId, below: EntryId) {
        let Some(stored) = self.ledgers.get_mut(&ledger) else { return };
        let gone = (below.0.saturating_sub(stored.first) as usize).min(stored.synced);
        stored.values.drain(..gone);
        stored.synced -= gone;
        stored.first += gone as u64;
    }

    pub fn is_pending(&self) -> bool {
        self.ledgers.values().any(|stored| stored.sealing || stored.synced < stored.values.len())
    }

    /// Syncs everything. Answers the positions that moved, and the seals that are recorded now.
    pub fn sync(&mut self) -> (Moved, Sealed) {
        let (mut moved, mut sealed) = (Vec::new(), Vec::new());
        for (ledger, stored) in &mut self.ledgers {
            let next = EntryId(stored.first + stored.values.len() as u64);
            if stored.synced < stored.values.len() {
                stored.synced = stored.values.len();
                moved.push((*ledger, next));
            }
            if std::mem::take(&mut stored.sealing) {
                let unseen = (self.cut && next.0 == 0).then_some(EntryId(0));
                let uncertain_from = stored.uncertain_from.or(unseen).map(|from| from.max(next));
                let answer = SealAnswer { through: next.0.checked_sub(1).map(EntryId), uncertain_from };
                sealed.push((*ledger, *stored.sealed.get_or_insert(answer)));
            }
        }
        (moved, sealed)
    }

    /// What a crash leaves.
    pub fn crash(&mut self, tail: Tail) {
        for stored in self.ledgers.values_mut() {
            stored.values.truncate(stored.synced);
            stored.sealing = false;
            if tail == Tail::Rotten && stored.sealed.is_none() {
                stored.values.pop();
                stored.synced = stored.values.len();
            }
            if tail != Tail::Clean && stored.sealed.is_none() {
                stored.uncertain_from = Some(EntryId(stored.first + stored.synced as u64));
            }
        }
        self.cut |= tail != Tail::Clean;
    }

    /// The planted bug: a start cuts a synced entry, and says nothing.
    pub fn cut_silently(&mut self) {
        for stored in self.ledgers.values_mut().filter(|stored| stored.sealed.is_none()) {
            stored.values.pop();
            stored.synced = stored.values.len();
        }
    }

    pub fn synced_next(&self, ledger: LedgerId) -> EntryId {
        self.ledgers.get(&ledger).map_or(EntryId(0), |stored| EntryId(stored.first + stored.synced as u64))
    }

    /// A synced entry.
    pub fn value(&self, ledger: LedgerId, entry: EntryId) -> Option<u8> {
        let stored = self.ledgers.get(&ledger)?;
        let index = usize::try_from(entry.0.checked_sub(stored.first)?).ok()?;
        stored.values[..stored.synced].get(index).copied()
    }
}
