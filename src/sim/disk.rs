//! A node's WAL: entries in sequence, what of them is synced, and seals.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::{EntryId, LedgerId};
use crate::ledger::core::Held;
use crate::wal::SealAnswer;

use super::Batch;

#[derive(Clone, Debug, Default)]
struct Stored {
    first: u64,
    /// From `first` on.
    batches: Vec<Rc<Batch>>,
    /// Of `batches`.
    synced: usize,
    sealing: bool,
    sealed: Option<SealAnswer>,
    uncertain_from: Option<EntryId>,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    ledgers: BTreeMap<LedgerId, Stored>,
    /// A torn tail was cut: a ledger never seen may have been in it.
    cut: bool,
    /// Of the last accepted registration.
    pub boot: u64,
}

/// What a sync came to.
#[derive(Debug, Default)]
pub struct Synced {
    /// Positions that moved, exclusive.
    pub moved: Vec<(LedgerId, EntryId)>,
    /// Seals that are recorded now.
    pub sealed: Vec<(LedgerId, SealAnswer)>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// What was pending is gone without a trace.
    Clean,
    /// What was pending has left something behind that cannot be read.
    Torn,
}

impl Disk {
    pub fn held(&self) -> Vec<Held> {
        let held = |(ledger, stored): (&LedgerId, &Stored)| Held {
            ledger: *ledger,
            first: EntryId(stored.first),
            next: EntryId(stored.first + stored.batches.len() as u64),
            sealed: stored.sealed,
        };
        self.ledgers.iter().map(held).collect()
    }

    pub fn write(&mut self, ledger: LedgerId, entry: EntryId, batch: Rc<Batch>) {
        let stored = self.ledgers.entry(ledger).or_default();
        if entry.0 != stored.first + stored.batches.len() as u64 {
            // A recovery copy that begins above, over what is uploaded.
            (stored.first, stored.synced) = (entry.0, 0);
            stored.batches.clear();
        }
        stored.batches.push(batch);
    }

    pub fn seal(&mut self, ledger: LedgerId) {
        self.ledgers.entry(ledger).or_default().sealing = true;
    }

    pub fn trim(&mut self, ledger: LedgerId, below: EntryId) {
        let Some(stored) = self.ledgers.get_mut(&ledger) else { return };
        let gone = (below.0.saturating_sub(stored.first) as usize).min(stored.synced);
        stored.batches.drain(..gone);
        stored.synced -= gone;
        stored.first += gone as u64;
    }

    pub fn is_pending(&self) -> bool {
        self.ledgers.values().any(|stored| stored.sealing || stored.synced < stored.batches.len())
    }

    /// Syncs everything.
    pub fn sync(&mut self) -> Synced {
        let Synced { mut moved, mut sealed } = Synced::default();
        for (ledger, stored) in &mut self.ledgers {
            let next = EntryId(stored.first + stored.batches.len() as u64);
            if stored.synced < stored.batches.len() {
                stored.synced = stored.batches.len();
                moved.push((*ledger, next));
            }
            if std::mem::take(&mut stored.sealing) {
                let unseen = (self.cut && next.0 == 0).then_some(EntryId(0));
                let uncertain_from = stored.uncertain_from.or(unseen).map(|from| from.max(next));
                let answer = SealAnswer { through: next.0.checked_sub(1).map(EntryId), uncertain_from };
                sealed.push((*ledger, *stored.sealed.get_or_insert(answer)));
            }
        }
        Synced { moved, sealed }
    }

    /// What the end of the process leaves; `power` whether what was not synced is lost, too.
    pub fn crash(&mut self, power: bool, tail: Tail) {
        for stored in self.ledgers.values_mut() {
            stored.sealing = false;
            if !power {
                // The kernel writes what it was given, and the next start finds it.
                stored.synced = stored.batches.len();
                continue;
            }
            stored.batches.truncate(stored.synced);
            if tail == Tail::Torn && stored.sealed.is_none() {
                stored.uncertain_from = Some(EntryId(stored.first + stored.synced as u64));
            }
        }
        self.cut |= power && tail == Tail::Torn;
    }

    /// The planted bug: a start cuts a synced entry, and says nothing.
    pub fn cut_silently(&mut self) {
        for stored in self.ledgers.values_mut().filter(|stored| stored.sealed.is_none()) {
            stored.batches.pop();
            stored.synced = stored.batches.len();
        }
    }

    /// Everything below it that is not uploaded is synced here.
    pub fn synced_next(&self, ledger: LedgerId) -> EntryId {
        self.ledgers.get(&ledger).map_or(EntryId(0), |stored| EntryId(stored.first + stored.synced as u64))
    }

    /// Synced entries from `from` on.
    pub fn read(&self, ledger: LedgerId, from: EntryId, below: EntryId) -> Option<Vec<Rc<Batch>>> {
        let stored = self.ledgers.get(&ledger)?;
        let at = usize::try_from(from.0.checked_sub(stored.first)?).ok()?;
        let below = usize::try_from(below.0.saturating_sub(stored.first)).ok()?.min(stored.synced);
        (at < below).then(|| stored.batches[at..below].to_vec())
    }

    /// All synced entries, by ledger and entry.
    pub fn synced(&self) -> impl Iterator<Item = (LedgerId, EntryId, &Rc<Batch>)> {
        self.ledgers.iter().flat_map(|(ledger, stored)| {
            let entries = stored.batches[..stored.synced].iter().zip(stored.first..);
            entries.map(|(batch, entry)| (*ledger, EntryId(entry), batch))
        })
    }
}
