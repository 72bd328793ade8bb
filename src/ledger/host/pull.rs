//! Copies to this WAL what it lacks of a ledger that has an end, from another holder.

use std::sync::Arc;

use crate::base::limits::LEDGER_READ_BYTES_MAX;
use crate::base::{EntryId, LedgerId, NodeId};
use crate::metadata;
use crate::peer::Refused;

use super::super::core::Reply;
use super::super::recover::Replicas;
use super::super::wire::{Answer, Read, ReadAnswer};
use super::Host;

/// Why this WAL still lacks entries. What was copied stays copied.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("ledger {0} has no end in the metadata that are applied here")]
    NoEnd(LedgerId),
    #[error(
        "entries {uploaded} to {first} of ledger {ledger} are not here and cannot be added before the later ones that are: \
         they are to be had when they are in object storage"
    )]
    BeginsAbove { ledger: LedgerId, first: EntryId, uploaded: EntryId },
    #[error("node {node} did not answer: {reason}")]
    NoAnswer { node: NodeId, reason: String },
    #[error("the entries that came are not what was asked for: {0}")]
    Answer(String),
    #[error("entry {entry} of ledger {ledger} is not held there; {first} to {next} are")]
    NotHeld { ledger: LedgerId, entry: EntryId, first: EntryId, next: EntryId },
    #[error("another WAL is there than was meant")]
    OtherIncarnation,
    #[error("there is no room in the WAL of this node")]
    Full,
    #[error("ledger {ledger} is not copied: {reason}")]
    Refused { ledger: LedgerId, reason: String },
}

impl Host {
    /// Copies what this WAL lacks of `ledger`, which must have an end, from the WAL `from`; `progress` is told of each
    /// position up to which everything is held. Safe to repeat and to run twice at once.
    pub async fn pull(
        self: &Arc<Self>,
        ledger: LedgerId,
        from: metadata::Replica,
        others: &dyn Replicas,
        progress: &mut (dyn FnMut(EntryId) + Send),
    ) -> Result<(), PullError> {
        let refused = |Refused(reason): Refused| PullError::Refused { ledger, reason };
        // A ledger with an end takes nothing from its writer; a seal says so here, and lets copies in.
        self.lacks(ledger)?;
        self.seal_local(ledger).await.map_err(refused)?;
        loop {
            let Some((next, end, uploaded)) = self.lacks(ledger)? else { return Ok(()) };
            let max_bytes = LEDGER_READ_BYTES_MAX as u32;
            let read = Read { to: from.incarnation, ledger, from: next, below: end, max_bytes };
            let answer = others.read(from.node, read).await;
            let payloads = match answer.map_err(|reason| PullError::NoAnswer { node: from.node, reason })? {
                ReadAnswer::Entries { first, payloads } if first == next && payloads.len() as u64 <= end.0 - next.0 => {
                    payloads
                }
                ReadAnswer::Entries { first, payloads } => {
                    let answer = format!("{} from {first} on instead of {next} to {end}", payloads.len());
                    return Err(PullError::Answer(answer));
                }
                ReadAnswer::NotHeld { first, next: held } => {
                    return Err(PullError::NotHeld { ledger, entry: next, first, next: held });
                }
                ReadAnswer::Unknown => return Err(PullError::OtherIncarnation),
            };
            // All below the end is what the ledger is: durable, as far as copies are concerned.
            let Answer { reply, .. } =
                self.recover_local(ledger, (end, uploaded), next, payloads).await.map_err(refused)?;
            match reply {
                Reply::Copied { .. } => progress(self.held_through(ledger)),
                Reply::Busy { .. } => return Err(PullError::Full),
                other => return Err(PullError::Refused { ledger, reason: format!("{other:?}") }),
            }
        }
    }

    /// The first entry that is not held, the end, and what is uploaded; `None` when nothing is lacking.
    fn lacks(&self, ledger: LedgerId) -> Result<Option<(EntryId, EntryId, EntryId)>, PullError> {
        let state = self.lock();
        let Some(known) = state.known.get(&ledger).copied() else {
            // Finished: all of it is in object storage.
            return if ledger.0 < state.next_ledger { Ok(None) } else { Err(PullError::NoEnd(ledger)) };
        };
        let end = known.end.ok_or(PullError::NoEnd(ledger))?;
        let next = match state.index.span(ledger) {
            Some((first, next)) if first < next => {
                if first > known.uploaded {
                    return Err(PullError::BeginsAbove { ledger, first, uploaded: known.uploaded });
                }
                next.max(known.uploaded)
            }
            _ => known.uploaded,
        };
        Ok((next < end).then_some((next, end, known.uploaded)))
    }
}
