//! Log compaction of partitions in object storage: what is due, in which order, at which pace.
//!
//! One partition after the other, dirtiest first. Only objects are read and written, below the uploaded end and below
//! every transaction that is open as of it, so a compaction never meets an append. What it does becomes visible by
//! metadata commands, segment by segment: a crash in between leaves some of them compact and the rest as they were.

mod metrics;
mod pace;
mod pass;
mod plan;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::{Offset, PartitionId};
use crate::metadata::{self, RangeEntry, Topic};
use crate::partition::Partition;

use super::upload::{UploadError, blocking};
use super::{Broker, TopicSettings};

pub use metrics::CompactionMetrics;
use plan::Dirt;

/// Shortest rest between two looks, whatever `log.cleaner.backoff.ms` says.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Ranges read from the index in one step.
const RANGES_STEP: usize = 1_000;

/// What the broker keeps about compaction.
#[derive(Default)]
pub(super) struct Compaction {
    pub metrics: CompactionMetrics,
    /// Partitions whose objects are being replaced now, by merging or by compaction: never by both.
    claimed: Mutex<HashSet<PartitionId>>,
}

/// The right to replace a partition's objects; it ends when this is dropped.
pub(super) struct Claim<'a> {
    claimed: &'a Mutex<HashSet<PartitionId>>,
    id: PartitionId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Compaction {
    /// `None` while somebody else replaces objects of the partition.
    pub fn claim(&self, id: PartitionId) -> Option<Claim<'_>> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only where it is given out: one that is dropped here would wait for the lock and give up another's claim.
        claimed.insert(id).then(|| Claim { claimed: &self.claimed, id })
    }
}

/// A partition that should be compacted.
struct Due {
    partition: Arc<Partition>,
    dirty_ppm: u32,
}

impl Broker {
    pub fn compaction_metrics(&self) -> &CompactionMetrics {
        &self.compaction.metrics
    }

    /// Compacts as it becomes due, until the process ends.
    pub async fn run_compaction(self: Arc<Self>) {
        loop {
            let settings = self.broker_settings().cleaner;
            if settings.enabled {
                self.compact_what_is_due().await;
            }
            let backoff = Duration::from_millis(settings.backoff_ms).max(BACKOFF_MIN);
            tokio::time::sleep(self.jittered(backoff)).await;
        }
    }

    /// Goes on until nothing is due. What fails, or cannot get on now, is left for the next round.
    pub(super) async fn compact_what_is_due(&self) {
        let mut left = HashSet::new();
        loop {
            let mut due = self.due_for_compaction(&left).await;
            due.sort_by_key(|found| std::cmp::Reverse(found.dirty_ppm));
            let dirtiest = due.first().map_or(0, |found| found.dirty_ppm);
            self.compaction.metrics.dirtiest_ppm.store(dirtiest.into(), Ordering::Relaxed);
            if due.is_empty() {
                return;
            }
            for Due { partition, .. } in due {
                let id = partition.id;
                match self.compact(&partition).await {
                    Ok(true) => {}
                    Ok(false) => drop(left.insert(id)),
                    Err(error) => {
                        self.compaction.metrics.failures.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(partition = %id, %error, "compaction failed and will be tried again");
                        left.insert(id);
                    }
                }
            }
        }
    }

    async fn due_for_compaction(&self, except: &HashSet<PartitionId>) -> Vec<Due> {
        let mut due = Vec::new();
        for topic in self.image().topics.values() {
            let settings = self.topic_settings(topic);
            if !settings.cleanup_policy.compact {
                continue;
            }
            for (partition, known) in self.led_partitions(topic) {
                let from = known.cleaned_end.max(known.log_start);
                if except.contains(&partition.id) || from >= known.uploaded_end {
                    continue;
                }
                match self.dirt_of(&partition, &known, &settings).await {
                    Ok(Some(dirt)) => due.push(Due { partition, dirty_ppm: dirt.ppm() }),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(partition = %partition.id, %error, "what is to compact cannot be told");
                    }
                }
            }
        }
        due
    }

    fn led_partitions(&self, topic: &Topic) -> Vec<(Arc<Partition>, Arc<metadata::Partition>)> {
        let led = (0..).zip(&topic.partitions).filter_map(|(index, known)| {
            let partition = self.registry.get(PartitionId { topic: topic.id, index })?;
            Some((partition, known.clone()))
        });
        led.collect()
    }

    /// How dirty a partition is if everything that is uploaded may be compacted; `None` when it is not due.
    async fn dirt_of(
        &self,
        partition: &Partition,
        known: &metadata::Partition,
        settings: &TopicSettings,
    ) -> Result<Option<Dirt>, UploadError> {
        let ranges = self.stored_ranges(partition, known).await?;
        let window = (known.cleaned_end.max(known.log_start), known.uploaded_end);
        let dirt = plan::dirt(&ranges, window, &settings.compaction, self.clock.wall_ms());
        Ok(dirt.filter(|dirt| dirt.is_due(&settings.compaction)))
    }

    /// All ranges of a partition that hold something readable, ascending, without a gap.
    async fn stored_ranges(
        &self,
        partition: &Partition,
        known: &metadata::Partition,
    ) -> Result<Vec<(Offset, RangeEntry)>, UploadError> {
        let located = self.locate(partition, known.log_start).await?;
        let mut from = located.map_or(known.log_start, |(base, _)| base);
        let (mut all, to) = (Vec::new(), known.uploaded_end);
        loop {
            let (index, id) = (self.quorum.index(), partition.id);
            let step = blocking(move || Ok(index.ranges(id, from, to, RANGES_STEP)?)).await?;
            let whole = step.len() < RANGES_STEP;
            all.extend(step);
            match all.last() {
                Some((_, last)) if !whole => from = last.end,
                _ => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_claimed_once_until_the_claim_ends() {
        let compaction = Compaction::default();
        let id = |index| PartitionId { index, ..PartitionId::default() };
        let first = compaction.claim(id(1)).expect("free");
        assert!(compaction.claim(id(1)).is_none() && compaction.claim(id(2)).is_some());
        drop(first);
        assert!(compaction.claim(id(1)).is_some());
    }
}
