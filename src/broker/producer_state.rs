//! Where the state of producers and transactions comes from when a partition needs it: a copy that this node keeps, or
//! the footer of the newest object.
//!
//! A partition starts with what its tail in the WAL has. What was uploaded before is fetched when it is first needed:
//! by an idempotent or transactional producer, a marker, a reader of committed records, or an upload. Each upload keeps a
//! copy beside the metadata before it commits, so that a start needs object storage only where a copy is too large or
//! was lost, and producers go on after a kill while the bucket is away.

use crate::base::{Offset, PartitionId};
use crate::object::{PartitionState, ReadError as ObjectError};
use crate::partition::{Partition, ReadError, UploadRun};
use crate::quorum::{KeepError, KeptState};

use super::{Broker, FetchError};

/// How often a reader follows an image that changes under it before it gives up.
const ATTEMPTS: usize = 4;
/// How often a state is fetched that turns out to be of another moment.
const LOADS: usize = 80;
/// How long following the metadata may take.
const FOLLOW: std::time::Duration = std::time::Duration::from_millis(25);
/// Largest state that a copy is kept of: of some four hundred producers.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Of all copies that one upload writes.
const KEPT_TOTAL_MAX: usize = 8 * 1024 * 1024;

impl Broker {
    /// Fetches what is known of a partition's producers and transactions below its tail.
    pub(super) async fn load_producer_state(&self, partition: &Partition) -> Result<(), FetchError> {
        for _ in 0..LOADS {
            if !partition.needs_producer_state() {
                return Ok(());
            }
            let (state, as_of) = self.stored_state(partition).await?;
            if partition.load_producer_state(&state, as_of) {
                return Ok(());
            }
            // Others have uploaded from its tail meanwhile, or it has not followed the metadata yet.
            tokio::time::sleep(FOLLOW).await;
        }
        Err(ReadError::StateNotLoaded.into())
    }

    /// What is known about a partition, and as of which uploaded end.
    async fn stored_state(&self, partition: &Partition) -> Result<(PartitionState, Offset), FetchError> {
        let mut attempt = 0;
        loop {
            let end = partition.positions().uploaded_end;
            if let Some(kept) = self.kept_state(partition.id, end).await? {
                return Ok((kept, end));
            }
            let Some((_, entry)) = self.locate(partition, end.plus(-1)).await? else {
                if attempt == ATTEMPTS {
                    tracing::error!(partition = %partition.id, %end, "no object has the state of its producers");
                    return Ok((PartitionState::default(), end));
                }
                // A newer upload has replaced the range; this partition has not followed the metadata yet.
                attempt += 1;
                tokio::time::sleep(FOLLOW).await;
                continue;
            };
            match self.objects.state(partition.id, &entry).await {
                Err(ObjectError::NotFound(_)) if attempt < ATTEMPTS => attempt += 1,
                // Rot in the state of producers must not stop the partition for good: what is lost is the
                // recognition of retries from before, as after an expiry.
                Err(error @ (ObjectError::NotFound(_) | ObjectError::Corrupt { .. })) => {
                    if let ObjectError::NotFound(object) = error {
                        self.note_missing(partition, end.plus(-1), object).await;
                    }
                    tracing::error!(partition = %partition.id, %error, "the state of its producers is lost");
                    return Ok((PartitionState::default(), end));
                }
                state => return Ok((state?, entry.end)),
            }
        }
    }

    async fn kept_state(&self, partition: PartitionId, end: Offset) -> Result<Option<PartitionState>, FetchError> {
        let kept = self.quorum.kept_states();
        let found = tokio::task::spawn_blocking(move || kept.get(partition, end)).await;
        let Some(bytes) = found.map_err(|_| FetchError::Broken)?? else { return Ok(None) };
        match PartitionState::from_bytes(&bytes, end) {
            Ok(state) => Ok(Some(state)),
            Err(error) => {
                tracing::warn!(%partition, %error, "the copy of its producers' state is damaged; an object has it, too");
                Ok(None)
            }
        }
    }

    /// The copies of what an upload is about to make the newest state.
    pub(super) fn states_to_keep(runs: &[UploadRun]) -> Vec<KeptState> {
        let mut total = 0;
        let mut kept = Vec::with_capacity(runs.len());
        for run in runs {
            let state = run.state.to_bytes(run.end);
            if state.len() > KEPT_BYTES_MAX || total + state.len() > KEPT_TOTAL_MAX {
                continue;
            }
            total += state.len();
            kept.push(KeptState { partition: run.partition, present: run.base, end: run.end, state });
        }
        kept
    }

    /// Writes copies. Called before the commit that makes them the newest, so that a crash never leaves none.
    pub(super) async fn keep_states(&self, states: Vec<KeptState>) -> Result<(), KeepError> {
        if states.is_empty() {
            return Ok(());
        }
        let kept = self.quorum.kept_states();
        // Only a shutdown interrupts it, and then nothing is committed either.
        tokio::task::spawn_blocking(move || kept.put(&states)).await.unwrap_or(Ok(()))
    }

    /// Forgets the copies of topics that are gone. Once, at the start.
    pub(super) async fn forget_kept_states(&self) {
        let (kept, image) = (self.quorum.kept_states(), self.image());
        let swept = tokio::task::spawn_blocking(move || kept.retain(&|id| image.partition(id).is_some())).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "copies of producer states of deleted topics stay until the next start");
        }
    }
}
