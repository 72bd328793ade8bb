//! Sealing: a ledger takes no entry any more, for good.
//!
//! One-way, and safe on disk before it is answered, also for a ledger of which nothing was ever seen: a writer that is
//! thought dead must not find a replica that lets it go on. The answer is kept and given again unchanged.

use std::io;

use crate::base::{EntryId, LedgerId};

use super::error::SealError;
use super::files::is_full;
use super::state::{Ledger, Shared, lock, wait};

/// Seals that the manifest holds: it is written whole with each. Far more than ledgers that are not uploaded.
const SEALS_MAX: usize = 10_000;

/// What a sealed ledger holds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SealAnswer {
    /// Its last entry, synced; `None` when no entry of it is here (any more: one that is wholly in object storage may
    /// have been trimmed before the process started).
    pub through: Option<EntryId>,
    /// The first entry that may have been here, acknowledged, and been cut with a damaged tail: "uncertain beyond
    /// the one before". `None` when nothing of this ledger can have been cut.
    pub uncertain_from: Option<EntryId>,
}

impl Shared {
    /// Seals `ledger`; blocks until that is safe. Entries taken before are written first, later ones are refused.
    pub fn seal(&self, ledger: LedgerId) -> Result<SealAnswer, SealError> {
        if let Some(answer) = lock(&self.manifest).sealed.get(&ledger) {
            return Ok(*answer);
        }
        let through = self.stop_appends(ledger)?;
        if lock(&self.manifest).sealed.len() >= SEALS_MAX {
            return Err(SealError::TooMany { ledger, max: SEALS_MAX });
        }
        let mut given = SealAnswer::default();
        let saved = self.save_manifest(None, |manifest| {
            // What was never seen may have been in what was cut.
            let unseen = (manifest.cut && through.is_none()).then_some(EntryId(0));
            let uncertain = manifest.uncertain.remove(&ledger).or(unseen);
            let behind = through.map_or(EntryId(0), EntryId::next);
            let answer = SealAnswer { through, uncertain_from: uncertain.map(|from| from.max(behind)) };
            given = *manifest.sealed.entry(ledger).or_insert(answer);
        });
        match saved {
            Ok(()) => {
                lock(&self.state).ledgers.entry(ledger).or_default().recorded = true;
                Ok(given)
            }
            Err(e) => {
                let reason = format!("cannot record the seal: {e}");
                if !is_full(&e) {
                    self.latch(&reason);
                }
                Err(SealError::Failed { ledger, reason: reason.into() })
            }
        }
    }

    /// Lets go of the ledgers that are `gone`: their seals, and what is known of those without one. A ledger of which a
    /// start would still read entries stays. Blocks until that is safe.
    pub fn forget(&self, gone: &dyn Fn(LedgerId) -> bool) -> io::Result<()> {
        let sealed: Vec<LedgerId> = lock(&self.manifest).sealed.keys().copied().collect();
        let known: Vec<LedgerId> = lock(&self.state).ledgers.keys().copied().collect();
        let gone: Vec<LedgerId> = known.into_iter().filter(|ledger| gone(*ledger)).collect();
        let mut forgotten = Vec::new();
        {
            let mut state = lock(&self.state);
            let oldest = state.closed.front().map_or(state.active.segment.generation, |c| c.segment.generation);
            for ledger in gone {
                let is_absent =
                    |known: &Ledger| known.generation < oldest && known.next == known.synced.map(EntryId::next);
                if state.ledgers.get(&ledger).is_some_and(is_absent) {
                    forgotten.extend(state.ledgers.remove(&ledger).map(|known| (ledger, known)));
                }
            }
        }
        if !forgotten.iter().any(|(ledger, _)| sealed.contains(ledger)) {
            return Ok(());
        }
        let saved = self.save_manifest(None, |manifest| {
            for (ledger, _) in &forgotten {
                manifest.sealed.remove(ledger);
                manifest.uncertain.remove(ledger);
            }
        });
        if saved.is_err() {
            lock(&self.state).ledgers.extend(forgotten);
        }
        saved
    }

    /// Refuses further entries of the ledger and waits until those taken are synced; returns the last one.
    fn stop_appends(&self, ledger: LedgerId) -> Result<Option<EntryId>, SealError> {
        let mut state = lock(&self.state);
        state.ledgers.entry(ledger).or_default().sealed = true;
        loop {
            if let Some(reason) = &state.failed {
                return Err(SealError::Failed { ledger, reason: reason.clone() });
            }
            let known = state.ledgers.get(&ledger).copied().unwrap_or_default();
            if known.next == known.synced.map(EntryId::next) {
                return Ok(known.synced);
            }
            if state.writer_done {
                return Err(SealError::Closed(ledger));
            }
            state.seals_wait += 1;
            state = wait(&self.progress, state);
            state.seals_wait -= 1;
        }
    }
}
