//! Sealing: a ledger takes no entry any more, for good.
//!
//! One-way, and safe on disk before it is answered, also for a ledger of which nothing was ever seen: a writer that is
//! thought dead must not find a replica that lets it go on. The answer is kept and given again unchanged.

use crate::base::{EntryId, LedgerId};

use super::error::SealError;
use super::files::is_full;
use super::state::{Shared, lock, wait};

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
            Ok(()) => Ok(given),
            Err(e) => {
                let reason = format!("cannot record the seal: {e}");
                if !is_full(&e) {
                    self.latch(&reason);
                }
                Err(SealError::Failed { ledger, reason: reason.into() })
            }
        }
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
