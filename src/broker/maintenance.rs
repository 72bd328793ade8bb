//! What happens to data in object storage: merging into segments, the sweep of dead objects, and the snapshots of the
//! metadata beside them; retention has a module of its own.
//!
//! Index entries go first, by a committed command; bytes go after a grace, and never while the newest snapshot in
//! the bucket still names them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{ObjectId, Offset, PartitionId};
use crate::metadata::{Command, Image, MergeInput, MergeOutput, ObjectState, RangeEntry};
use crate::object::{ObjectBuilder, ReadError};
use crate::partition::Partition;
use crate::quorum::Unsettled;

use super::upload::{Part, UploadError, blocking, build};
use super::{Broker, FetchError};

/// Objects handled in one step of a sweep.
const SWEEP_STEP: usize = 500;
/// Ranges of one partition looked at in one step.
const RANGES_STEP: usize = 1_000;
/// A range of this size reads well as it is: rewriting it would cost more than it saves.
const LARGE_RANGE: u64 = 16 << 20;
/// Rest after a merge, in times its duration: while clients are at work, when merging falls behind them, otherwise.
const REST_BUSY: u32 = 9;
const REST_BEHIND: u32 = 2;
const REST: u32 = 1;

impl Broker {
    /// Runs until the process ends.
    pub async fn run_maintenance(self: Arc<Self>) {
        let mut stored = None;
        loop {
            tokio::time::sleep(self.jittered(self.options.maintenance_interval)).await;
            self.maintain(&mut stored).await;
        }
    }

    /// One round of everything that is this broker's to do: for the partitions that it leads and, beside the quorum's leader,
    /// for the cluster. `stored` is how many commands the last snapshot of this process has applied. What
    /// fails is said and tried again in the next round; it does not keep the rest from its turn.
    pub(super) async fn maintain(&self, stored: &mut Option<u64>) {
        self.expire_producers();
        self.said("retention", self.apply_retention().await);
        self.merge_small_ranges().await;
        // For the whole cluster: by one broker, the one beside the quorum's leader.
        if !self.quorum.leads() {
            return;
        }
        self.said("the purge of the index", self.purge().await);
        self.said("giving up prepared objects", self.abandon_prepared().await);
        self.said("the snapshot and the sweep", self.snapshot_and_sweep(stored).await);
    }

    fn said(&self, what: &'static str, result: Result<(), UploadError>) {
        let Err(error) = result else { return };
        match self.troubles.failed(what, self.clock.boottime()) {
            None => {}
            Some(0) => tracing::warn!(%error, "{what} failed and will be tried again"),
            Some(before) => tracing::warn!(%error, before, "{what} keeps failing and will be tried again"),
        }
    }

    async fn purge(&self) -> Result<(), UploadError> {
        while !self.image().purge.is_empty() {
            self.propose(Command::PurgeRanges { now_ms: self.clock.wall_ms() }).await?;
        }
        Ok(())
    }

    /// Deletes only objects that were dead before the snapshot was taken: the newest one in the bucket must not
    /// name what is gone.
    async fn snapshot_and_sweep(&self, stored: &mut Option<u64>) -> Result<(), UploadError> {
        let dead = self.dead_objects().await?;
        let image = self.image();
        if *stored != Some(image.applied) {
            let bytes = self.quorum.snapshot_bytes().await?;
            self.objects.put_snapshot(image.generation, image.applied, bytes).await?;
            *stored = Some(image.applied);
        }
        self.sweep(dead).await
    }

    fn expire_producers(&self) {
        let before = self.clock.wall_ms().saturating_sub(self.broker_settings().producer_expiration_ms);
        for partition in self.registry.all() {
            partition.expire_producers(before);
        }
    }

    /// Ranges of a partition from the one that holds or follows `from` on; at most `RANGES_STEP`.
    pub(super) async fn ranges_of(
        &self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<(Offset, RangeEntry)>, UploadError> {
        let quorum = self.quorum.clone();
        blocking(move || Ok(quorum.index().ranges(partition, from, to, RANGES_STEP)?)).await
    }

    /// Turns runs of small ranges into segments, partition by partition.
    async fn merge_small_ranges(&self) {
        for partition in self.registry.all() {
            let at = partition.positions();
            if at.uploaded_end > at.log_start {
                self.said("merging", self.merge_partition(&partition).await);
            }
        }
    }

    async fn merge_partition(&self, partition: &Partition) -> Result<(), UploadError> {
        // Compaction merges what it reads.
        let Some(_claim) = self.compaction.claim(partition.id) else { return Ok(()) };
        let Some(topic) = self.image().topics.get(&partition.id.topic).cloned() else { return Ok(()) };
        let settings = self.topic_settings(&topic);
        let limit = settings.segment_bytes.min(self.options.object_bytes_max);
        let end = partition.positions().uploaded_end;
        let mut from = Offset::ZERO;
        loop {
            let ranges = self.ranges_of(partition.id, from, end).await?;
            for group in groups(&ranges, limit, settings.segment_ms, self.options.merge_ranges) {
                let at_work = || (self.ledger.appended(), self.reads.load(Ordering::Relaxed));
                let (begun, before) = (self.clock.boottime(), at_work());
                self.merge(partition, group).await?;
                // Clients come first: beside them merging takes a tenth of the time, or a third when a partition has
                // more small ranges than one step looks at.
                let rest = match at_work() != before {
                    true if ranges.len() < RANGES_STEP => REST_BUSY,
                    true => REST_BEHIND,
                    false => REST,
                };
                tokio::time::sleep(self.clock.boottime().saturating_sub(begun) * rest).await;
            }
            match ranges.last() {
                Some((_, last)) if ranges.len() == RANGES_STEP => from = last.end,
                _ => return Ok(()),
            }
        }
    }

    /// Replaces neighbouring ranges by one segment that covers the same offsets.
    async fn merge(&self, partition: &Partition, group: &[(Offset, RangeEntry)]) -> Result<(), UploadError> {
        let (Some((base, _)), Some((_, last))) = (group.first(), group.last()) else { return Ok(()) };
        let mut batches = Vec::new();
        for (start, range) in group {
            let mut from = *start;
            while from < range.end {
                let read = self.objects.read_to_merge(partition.id, range, from, usize::MAX).await;
                if let Err(ReadError::NotFound(object)) = &read {
                    self.note_missing(partition, from, *object).await;
                }
                let read = read?;
                if read.batches.is_empty() {
                    return Err(FetchError::Missing(from).into());
                }
                from = read.next;
                batches.extend(read.batches);
            }
        }
        let mut state = self.objects.state(partition.id, last).await?;
        state.log_start = partition.positions().log_start;
        // The footer of each run has the aborts that end in it: the segment has those of all.
        let mut earlier = Vec::new();
        for (_, range) in &group[..group.len() - 1] {
            earlier.extend_from_slice(&self.objects.transactions(partition.id, range).await?.aborted);
        }
        let state = state.with_earlier_aborts(earlier);
        let part = Part { partition: partition.id, base: *base, end: last.end, state, batches };
        let object = self.prepare_objects(1).await?;
        let cluster = self.image().cluster;
        let built = blocking(move || Ok(build(ObjectBuilder::new(cluster, object), vec![part])?)).await;
        let result = match built {
            Ok(built) => self.commit_merge(partition.id, group, object, built).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.abort(object).await;
        }
        result
    }

    async fn commit_merge(
        &self,
        partition: PartitionId,
        group: &[(Offset, RangeEntry)],
        object: ObjectId,
        built: crate::object::Built,
    ) -> Result<(), UploadError> {
        let bytes = built.bytes;
        self.objects.put(object, &built.pieces).await?;
        let inputs = group.iter().map(|(base, r)| MergeInput { partition, base: *base, object: r.object }).collect();
        self.propose(Command::CommitMerge {
            node: self.node,
            epoch: self.epoch,
            inputs,
            outputs: vec![MergeOutput { object, bytes, ranges: built.ranges }],
            cleaned: Vec::new(),
            now_ms: self.clock.wall_ms(),
        })
        .await?;
        self.upload_metrics.merged_objects.fetch_add(1, Ordering::Relaxed);
        self.upload_metrics.merged_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Objects that a process prepared which is fenced or was replaced: it will never commit them.
    async fn abandon_prepared(&self) -> Result<(), UploadError> {
        let prepared = self.unsettled(Unsettled::Prepared).await?;
        // The image may be older than what the index says: an epoch that it does not know yet is no old one.
        let image = self.image();
        let abandoned: Vec<_> =
            prepared.into_iter().filter(|(_, state, _)| is_abandoned(&image, state)).map(|(id, _, _)| id).collect();
        if !abandoned.is_empty() {
            self.propose(Command::AbortObjects { objects: abandoned, now_ms: self.clock.wall_ms() }).await?;
        }
        Ok(())
    }

    async fn unsettled(&self, state: Unsettled) -> Result<Vec<(ObjectId, ObjectState, i64)>, UploadError> {
        let quorum = self.quorum.clone();
        let found = blocking(move || Ok(quorum.index().objects_in_state(state, ObjectId(0), SWEEP_STEP)?)).await?;
        Ok(found.into_iter().map(|(id, entry)| (id, entry.state, entry.created_ms)).collect())
    }

    /// Objects that nothing has pointed to for the grace.
    async fn dead_objects(&self) -> Result<Vec<ObjectId>, UploadError> {
        let grace = i64::try_from(self.options.object_grace.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.wall_ms().saturating_sub(grace);
        let mut dead = Vec::new();
        for state in [Unsettled::Dropped, Unsettled::Aborted] {
            dead.extend(self.unsettled(state).await?.into_iter().filter_map(|(id, state, _)| match state {
                ObjectState::Dropped { at_ms } | ObjectState::Aborted { at_ms } if at_ms < before => Some(id),
                _ => None,
            }));
        }
        Ok(dead)
    }

    async fn sweep(&self, dead: Vec<ObjectId>) -> Result<(), UploadError> {
        if dead.is_empty() {
            return Ok(());
        }
        let deleted = self.objects.delete(&dead).await;
        let count = deleted.done.len() as u64;
        if count > 0 {
            self.propose(Command::SweepObjects { objects: deleted.done }).await?;
            self.upload_metrics.swept_objects.fetch_add(count, Ordering::Relaxed);
        }
        deleted.failed.map_or(Ok(()), |(_, error)| Err(error.into()))
    }
}

/// Whether nobody can commit a prepared object any more.
fn is_abandoned(image: &Image, state: &ObjectState) -> bool {
    let ObjectState::Prepared { node, epoch } = state else { return false };
    match image.brokers.get(node) {
        Some(broker) => broker.epoch > *epoch || (broker.epoch == *epoch && broker.fenced),
        None => epoch.0 < image.next_broker_epoch,
    }
}

/// Neighbouring ranges that together make a segment of at most `limit` bytes and `segment_ms`: at least `least` of
/// them, so that data is not rewritten again and again.
fn groups(ranges: &[(Offset, RangeEntry)], limit: u64, segment_ms: i64, least: usize) -> Vec<&[(Offset, RangeEntry)]> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < ranges.len() {
        let mut end = start;
        let mut bytes = 0u64;
        while let Some((base, range)) = ranges.get(end) {
            let follows = end == start || ranges[end - 1].1.end == *base;
            let spans = range.max_timestamp.saturating_sub(ranges[start].1.first_timestamp);
            // What is large already is not rewritten for the sake of its small neighbours.
            let large = range.bytes > LARGE_RANGE.min(limit / 4);
            if !follows || large || bytes.saturating_add(range.bytes) > limit || spans > segment_ms {
                break;
            }
            bytes += range.bytes;
            end += 1;
        }
        if end - start >= least.max(2) {
            found.push(&ranges[start..end]);
        }
        start = end.max(start + 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerEpoch, NodeId};
    use crate::metadata;

    fn range(base: i64, end: i64, bytes: u64, time: i64) -> (Offset, RangeEntry) {
        let entry = RangeEntry {
            object: ObjectId(base as u64),
            end: Offset(end),
            bytes,
            records: 1,
            max_timestamp: time,
            first_timestamp: time,
            position: 0,
            length: 0,
        };
        (Offset(base), entry)
    }

    #[test]
    fn only_what_a_former_process_prepared_is_given_up() {
        let prepared = |node, epoch| ObjectState::Prepared { node: NodeId(node), epoch: BrokerEpoch(epoch) };
        let broker = |epoch, fenced| metadata::Broker {
            epoch: BrokerEpoch(epoch),
            incarnation: Default::default(),
            boot: 1,
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            fenced,
        };
        let mut image = Image { next_broker_epoch: 9, ..Image::default() };
        image.brokers.insert(NodeId(1), broker(5, false));
        image.brokers.insert(NodeId(2), broker(6, true));
        let table =
            [(1, 5, false), (1, 4, true), (1, 9, false), (2, 6, true), (2, 9, false), (3, 8, true), (3, 9, false)];
        for (node, epoch, expected) in table {
            assert_eq!(is_abandoned(&image, &prepared(node, epoch)), expected, "epoch {epoch} of node {node}");
        }
        assert!(!is_abandoned(&image, &ObjectState::Live));
    }

    #[test]
    fn groups_are_whole_and_bounded() {
        let ranges: Vec<_> = (0..10).map(|i| range(i * 10, i * 10 + 10, 30, i)).collect();
        let sizes = |limit, ms, least| groups(&ranges, limit, ms, least).iter().map(|g| g.len()).collect::<Vec<_>>();
        assert_eq!(sizes(130, 1_000, 3), [4, 4], "four fit in 130 bytes; the last two are too few");
        assert_eq!(sizes(1_000, 4, 2), [5, 5], "a segment spans at most segment.ms");
        assert_eq!(sizes(1_000, 1_000, 11), [] as [usize; 0]);
        assert_eq!(sizes(10, 1_000, 2), [] as [usize; 0], "large ranges stay as they are");
    }

    #[test]
    fn a_hole_ends_a_group() {
        let ranges = [range(0, 10, 1, 0), range(10, 20, 1, 0), range(25, 30, 1, 0), range(30, 40, 1, 0)];
        assert_eq!(groups(&ranges, 100, 100, 2).len(), 2);
    }
}
