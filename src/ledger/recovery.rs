//! Sealing a ledger whose writer is gone, so that its end can be set once and for all.

use std::sync::Arc;

use crate::base::{EntryId, LedgerId};
use crate::metadata::Ledger;
use crate::wal::SealError;

use super::replica::Replica;

/// Why a ledger's end cannot be found now.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("ledger {ledger}: {answers} of {needed} replicas answered")]
    TooFewAnswers { ledger: LedgerId, answers: usize, needed: usize },
    #[error("ledger {ledger}: {source}")]
    Seal { ledger: LedgerId, source: SealError },
}

/// Seals `ledger` on `replicas` and answers its end (exclusive): the furthest position that any of `n − w + 1`
/// replicas holds, so that it covers whatever a write quorum of `w` has synced.
pub fn seal_ledger(
    ledger: LedgerId,
    recorded: &Ledger,
    replicas: &[Arc<dyn Replica>],
) -> Result<EntryId, RecoveryError> {
    let needed = recorded.replicas.len() + 1 - recorded.write_quorum as usize;
    let mut answers = Vec::new();
    for replica in replicas {
        let answer = replica.seal(ledger).map_err(|source| RecoveryError::Seal { ledger, source })?;
        if let Some(uncertain) = answer.uncertain_from {
            tracing::warn!(%ledger, from = %uncertain, "a damaged tail was cut here: entries from there on are uncertain");
        }
        answers.push(answer.through);
    }
    if answers.len() < needed {
        return Err(RecoveryError::TooFewAnswers { ledger, answers: answers.len(), needed });
    }
    let held = answers.into_iter().flatten().max().map_or(EntryId(0), EntryId::next);
    // What is uploaded may have left the WAL: a ledger uploaded to its end has no entries here any more.
    let end = held.max(recorded.uploaded);
    Ok(end)
}
