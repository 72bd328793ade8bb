//! Offsets by position and by time (ListOffsets), and leader epochs (OffsetForLeaderEpoch).

use crate::base::{LeaderEpoch, Offset};
use crate::batch::{self, StoredBatch, TimestampedOffset};
use crate::metadata::RangeEntry;
use crate::object::ReadError;
use crate::partition::{Isolation, Partition, TailBatch};
use crate::security::Permit;

use super::{Broker, FetchError, OffsetsError};

/// Ranges looked at in one step of a search by time.
const RANGES_PER_STEP: usize = 1_000;

/// What to look for. The numbers are those of ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// −1: the high watermark, or the last stable offset.
    Latest,
    /// −2: the log start.
    Earliest,
    /// −3: the record with the largest time (KIP-734).
    MaxTimestamp,
    /// −4: the first offset that this node itself holds (KIP-405).
    EarliestLocal,
    /// −5: the last offset in object storage (KIP-1005).
    LatestTiered,
    /// −6: the first offset that object storage does not have yet (KIP-1023).
    EarliestPendingUpload,
    /// The first record at this time, Unix ms, or later.
    Time(i64),
}

/// An offset that was found, with the leader epoch of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    pub offset: Offset,
    /// −1 where the query has none.
    pub timestamp: i64,
    pub leader_epoch: LeaderEpoch,
}

impl Broker {
    /// `None` when no record answers the query, or none below what `isolation` lets a reader see. `permit` is for describing the topic.
    pub async fn find_offset(
        &self,
        permit: &Permit,
        partition: &Partition,
        query: OffsetQuery,
        isolation: Isolation,
    ) -> Result<Option<FoundOffset>, OffsetsError> {
        debug_assert!(
            permit.covers(crate::security::Operation::Describe, crate::security::Resource::topic(&partition.topic))
        );
        if isolation == Isolation::ReadCommitted {
            self.load_producer_state(partition).await?;
        }
        let at = partition.positions();
        let limit = match isolation {
            Isolation::ReadUncommitted => at.high_watermark,
            Isolation::ReadCommitted => at.last_stable.unwrap_or(at.log_start),
        };
        let below_limit = |found: &TimestampedOffset| found.offset < limit;
        let plain = |offset: Offset| FoundOffset { offset, timestamp: -1, leader_epoch: partition.epoch_at(offset) };
        if !self.lease.is_valid() {
            return Err(FetchError::NoLease.into());
        }
        Ok(match query {
            OffsetQuery::Latest => Some(FoundOffset { leader_epoch: at.leader_epoch, ..plain(limit) }),
            OffsetQuery::Earliest => Some(plain(at.log_start)),
            OffsetQuery::EarliestLocal | OffsetQuery::EarliestPendingUpload => {
                Some(plain(at.uploaded_end.max(at.log_start)))
            }
            OffsetQuery::LatestTiered if at.uploaded_end > at.log_start => Some(plain(at.uploaded_end.plus(-1))),
            OffsetQuery::LatestTiered => None,
            OffsetQuery::MaxTimestamp => {
                self.newest(partition).await?.filter(below_limit).map(|found| with_epoch(partition, found))
            }
            OffsetQuery::Time(time) => {
                self.by_time(partition, time).await?.filter(below_limit).map(|found| with_epoch(partition, found))
            }
        })
    }

    async fn by_time(&self, partition: &Partition, time: i64) -> Result<Option<TimestampedOffset>, OffsetsError> {
        let at = partition.positions();
        let mut from = at.log_start;
        // Object storage first: the earliest offset wins.
        while from < at.uploaded_end {
            let ranges = self.ranges(partition, from, at.uploaded_end).await?;
            let Some((_, last)) = ranges.last().copied() else { break };
            for (_, range) in ranges.iter().filter(|(_, r)| r.max_timestamp >= time) {
                if let Some(found) = self.search_range(partition, range, from, time).await? {
                    return Ok(Some(found));
                }
            }
            from = last.end;
        }
        let mut from = at.uploaded_end.max(at.log_start);
        while let Some(tail) = partition.tail_by_time(from, time) {
            let batch = self.tail_batch(tail.clone()).await?;
            if let Some(found) = batch::first_at_or_after(&batch, from, time)? {
                return Ok(Some(found));
            }
            // The header's largest time is a producer's claim; the records may not bear it out.
            from = tail.end();
        }
        Ok(None)
    }

    async fn newest(&self, partition: &Partition) -> Result<Option<TimestampedOffset>, OffsetsError> {
        let at = partition.positions();
        let mut best: Option<RangeEntry> = None;
        let mut from = at.log_start;
        while from < at.uploaded_end {
            let ranges = self.ranges(partition, from, at.uploaded_end).await?;
            let Some((_, last)) = ranges.last().copied() else { break };
            for (_, range) in ranges {
                if best.is_none_or(|b| range.max_timestamp > b.max_timestamp) {
                    best = Some(range);
                }
            }
            from = last.end;
        }
        let tail = partition.tail_newest(at.uploaded_end.max(at.log_start));
        match (best, tail) {
            (Some(range), tail) if tail.as_ref().is_none_or(|t| t.max_timestamp <= range.max_timestamp) => {
                self.search_range(partition, &range, at.log_start, range.max_timestamp).await
            }
            (_, Some(tail)) => Ok(batch::with_max_timestamp(&self.tail_batch(tail).await?)?),
            _ => Ok(None),
        }
    }

    async fn ranges(
        &self,
        partition: &Partition,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<(Offset, RangeEntry)>, FetchError> {
        let start = self.locate(partition, from).await?.map_or(from, |(base, _)| base);
        let (index, id) = (self.quorum.index(), partition.id);
        let found = tokio::task::spawn_blocking(move || index.ranges(id, start, to, RANGES_PER_STEP)).await;
        Ok(found.map_err(|_| FetchError::Broken)??)
    }

    async fn search_range(
        &self,
        partition: &Partition,
        range: &RangeEntry,
        from: Offset,
        time: i64,
    ) -> Result<Option<TimestampedOffset>, OffsetsError> {
        let mut from = from;
        loop {
            let found = self.objects.find_timestamp(partition.id, range, time, from).await;
            if let Err(ReadError::NotFound(object)) = &found {
                self.note_missing(partition, range.end.plus(-1), *object).await;
            }
            let Some(batch) = found.map_err(FetchError::from)? else { return Ok(None) };
            if let Some(found) = batch::first_at_or_after(&batch, from, time)? {
                return Ok(Some(found));
            }
            // The header's largest time is a producer's claim; the records may not bear it out.
            from = batch.header().next_offset();
        }
    }

    async fn tail_batch(&self, tail: TailBatch) -> Result<StoredBatch, OffsetsError> {
        let offset = tail.base;
        match self.read_tail(vec![tail]).await {
            Ok(mut batches) if !batches.is_empty() => Ok(batches.swap_remove(0)),
            Ok(_) => Err(FetchError::Missing(offset).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The largest epoch not above `asked` and where it ends. `permit` is for describing the topic.
    pub fn epoch_end(
        &self,
        permit: &Permit,
        partition: &Partition,
        asked: LeaderEpoch,
    ) -> Option<(LeaderEpoch, Offset)> {
        debug_assert!(
            permit.covers(crate::security::Operation::Describe, crate::security::Resource::topic(&partition.topic))
        );
        partition.epoch_end(asked)
    }
}

fn with_epoch(partition: &Partition, found: TimestampedOffset) -> FoundOffset {
    FoundOffset { offset: found.offset, timestamp: found.timestamp, leader_epoch: partition.epoch_at(found.offset) }
}
