//! What the store does in the background, and the slow round over this node's own copies in which every byte is read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::object::{LocalError, SharedStore, Shelf};

use super::bundled::{Bundled, blocking};
use super::repair::{Living, Pace};

/// Longest time between two comparisons while copies are owed and do not come.
const OWED_MAX: Duration = Duration::from_secs(60);

impl Bundled {
    /// Compares, repairs, checks and removes, until it is dropped.
    pub async fn run(self: Arc<Self>, living: Arc<dyn Living>) {
        tokio::join!(self.compare_always(living), self.scrub_always());
    }

    async fn compare_always(&self, living: Arc<dyn Living>) {
        let mut nodes = self.nodes.clone();
        let mut owed_wait = self.options.compare_soon;
        loop {
            nodes.mark_unchanged();
            let before = self.status();
            self.compare(&living).await;
            self.service.clean();
            let after = self.status();
            let well = after.nodes < 2 || (after.survives_one_loss() && after.complete);
            // The longer nothing gets better, the less often it is tried.
            owed_wait = match well || after.debt < before.debt || after.compared != before.compared {
                true => self.options.compare_soon,
                false => (owed_wait * 2).min(OWED_MAX.max(self.options.compare_soon)),
            };
            let pause = if well { self.options.compare_every } else { owed_wait };
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() {
                    // The list will not change any more.
                    tokio::time::sleep(pause).await;
                },
                () = self.wake.notified(), if well => tokio::time::sleep(self.options.compare_soon).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn scrub_always(&self) {
        loop {
            self.scrub().await;
            tokio::time::sleep(self.options.scrub_every).await;
        }
    }

    /// One round over all own copies.
    pub(super) async fn scrub(&self) {
        let (mut checked, mut bytes, mut damaged) = (0u64, 0u64, 0u64);
        let mut pace = Pace::new(self.options.scrub_bytes_per_second);
        for shelf in Shelf::all() {
            // Alone, nothing could be put right.
            if self.is_alone() {
                break;
            }
            let local = self.local.clone();
            let listed = match blocking(move || local.list(shelf, None, usize::MAX)).await {
                Ok((listed, _)) => listed,
                Err(error) => {
                    tracing::warn!(%error, "stored copies cannot be listed");
                    continue;
                }
            };
            for copy in listed {
                let local = self.local.clone();
                match blocking(move || local.check(copy.key)).await {
                    Ok(read) => (checked, bytes) = (checked + 1, bytes + read),
                    Err(LocalError::Damaged) => {
                        damaged += 1;
                        self.suspect(copy.key);
                    }
                    Err(LocalError::Missing) => {} // deleted meanwhile
                    Err(error) => tracing::warn!(key = %copy.key, %error, "a copy cannot be checked"),
                }
                self.counters.scrubbed_bytes.fetch_add(copy.bytes, Relaxed);
                pace.spent(copy.bytes).await;
            }
        }
        if checked > 0 || damaged > 0 {
            tracing::info!(checked, bytes, damaged, "this node's copies of stored objects were checked");
        }
    }
}
