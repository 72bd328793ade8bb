//! Retention: moves log starts by `retention.ms` and `retention.bytes`.
//!
//! Never far from Kafka's promise: what is kept beyond `retention.bytes` is less than one `segment.bytes`. A range of that
//! size or less goes whole, as Kafka's segments do. A larger one, from an upload, is looked at in pieces of its blocks: the
//! log start moves into it, and its bytes go when all of it is below. Records that are not uploaded yet stay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{Offset, PartitionId};
use crate::metadata::RangeEntry;
use crate::object::BlockSpan;
use crate::partition::Partition;

use super::upload::UploadError;
use super::{Broker, TopicSettings};

/// Partitions whose log start one command moves.
const RETENTION_STEP: usize = 1_000;

/// What retention asks for of a partition.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Unix ms; what is older in all its records goes.
    expired_before: Option<i64>,
    /// Bytes that have to stay.
    keep: Option<u64>,
}

impl Rule {
    /// Whether the oldest `bytes` of `kept` may go.
    fn too_large(&self, bytes: u64, kept: u64) -> bool {
        self.keep.is_some_and(|keep| kept.saturating_sub(bytes) >= keep)
    }

    fn expired(&self, timestamp: i64) -> bool {
        self.expired_before.is_some_and(|before| timestamp >= 0 && timestamp < before)
    }

    fn drops(&self, span: &BlockSpan, kept: u64) -> bool {
        self.expired(span.max_timestamp) || self.too_large(span.bytes, kept)
    }

    /// Whether a range that does not go whole may have a part that goes.
    fn may_divide(&self, range: &RangeEntry, kept: u64) -> bool {
        self.expired(range.first_timestamp) || self.keep.is_some_and(|keep| kept > keep)
    }
}

impl Broker {
    pub(super) async fn apply_retention(&self) -> Result<(), UploadError> {
        let image = self.image();
        let mut changes = Vec::new();
        // Until an index cannot be read: with object storage away each partition would wait for it in vain.
        let mut divides = true;
        for topic in image.topics.values() {
            let settings = self.topic_settings(topic);
            if !settings.cleanup_policy.delete
                || (settings.retention_ms.is_none() && settings.retention_bytes.is_none())
            {
                continue;
            }
            for index in 0..topic.partitions.len() {
                let id = PartitionId { topic: topic.id, index: index as i32 };
                let Some(partition) = self.registry.get(id) else { continue };
                let object_bytes = topic.partitions[index].object_bytes;
                if let Some(to) = self.retained_from(&partition, object_bytes, &settings, &mut divides).await? {
                    changes.push((id, to));
                }
            }
            if changes.len() >= RETENTION_STEP {
                self.advance_log_start(std::mem::take(&mut changes)).await?;
            }
        }
        if !changes.is_empty() {
            self.advance_log_start(changes).await?;
        }
        Ok(())
    }

    /// The log start that retention asks for, if it is a new one.
    async fn retained_from(
        &self,
        partition: &Arc<Partition>,
        object_bytes: u64,
        settings: &TopicSettings,
        divides: &mut bool,
    ) -> Result<Option<Offset>, UploadError> {
        let at = partition.positions();
        if at.uploaded_end <= at.log_start {
            return Ok(None);
        }
        let rule = Rule {
            expired_before: settings.retention_ms.map(|ms| self.clock.wall_ms().saturating_sub(ms)),
            keep: settings.retention_bytes,
        };
        let mut kept = object_bytes.saturating_add(partition.tail_bytes());
        let mut to = at.log_start;
        for (_, range) in self.ranges_of(partition.id, Offset::ZERO, at.uploaded_end).await? {
            let whole = BlockSpan { end: range.end, bytes: range.bytes, max_timestamp: range.max_timestamp };
            if range.end <= at.log_start {
                // Gone for readers already; only the producer state in it is needed.
                kept = kept.saturating_sub(range.bytes);
                continue;
            }
            if range.records == 0 && !rule.too_large(range.bytes, kept) {
                // What compaction has emptied ages with what follows it, for there is nothing to drop.
                continue;
            }
            if rule.drops(&whole, kept) {
                kept = kept.saturating_sub(range.bytes);
                to = to.max(range.end);
                self.upload_metrics.retention_ranges.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if *divides && range.bytes > settings.segment_bytes && rule.may_divide(&range, kept) {
                match self.objects.blocks(partition.id, &range).await {
                    Ok(blocks) => {
                        let pieces = joined(&blocks, settings.segment_bytes);
                        to = to.max(drop_pieces(&pieces, &rule, kept, at.log_start));
                    }
                    // It waits for the next round, or until it goes whole.
                    Err(error) => {
                        tracing::debug!(partition = ?partition.id, %error, "retention cannot divide a range");
                        *divides = false;
                    }
                }
            }
            break;
        }
        Ok((to > at.log_start).then_some(to))
    }
}

/// The end of the last piece that goes, or `log_start`.
fn drop_pieces(pieces: &[BlockSpan], rule: &Rule, mut kept: u64, log_start: Offset) -> Offset {
    let mut to = log_start;
    for piece in pieces {
        if piece.end > log_start {
            if !rule.drops(piece, kept) {
                break;
            }
            to = piece.end;
        }
        kept = kept.saturating_sub(piece.bytes);
    }
    to
}

/// Neighbouring blocks joined up to `limit` bytes; a block is never divided.
fn joined(blocks: &[BlockSpan], limit: u64) -> Vec<BlockSpan> {
    let mut pieces: Vec<BlockSpan> = Vec::new();
    for block in blocks {
        match pieces.last_mut() {
            Some(piece) if piece.bytes.saturating_add(block.bytes) <= limit => {
                piece.end = block.end;
                piece.bytes += block.bytes;
                piece.max_timestamp = piece.max_timestamp.max(block.max_timestamp);
            }
            _ => pieces.push(*block),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(bytes: &[u64]) -> Vec<BlockSpan> {
        let span = |(i, bytes): (usize, &u64)| {
            let end = (i as i64 + 1) * 10;
            BlockSpan { end: Offset(end), bytes: *bytes, max_timestamp: end }
        };
        bytes.iter().enumerate().map(span).collect()
    }

    #[test]
    fn blocks_are_joined_up_to_a_segment() {
        let joined = |bytes: &[u64], limit| -> Vec<_> {
            joined(&spans(bytes), limit).iter().map(|p| (p.end.0, p.bytes, p.max_timestamp)).collect()
        };
        assert_eq!(joined(&[4, 4, 4, 4, 4], 9), [(20, 8, 20), (40, 8, 40), (50, 4, 50)]);
        assert_eq!(joined(&[4, 40, 4], 9), [(10, 4, 10), (20, 40, 20), (30, 4, 30)], "a large block stands alone");
        assert_eq!(joined(&[], 9), []);
    }

    /// Whatever was kept before: less than one piece beyond what has to stay, and never less than that.
    #[test]
    fn what_is_kept_is_within_one_piece_of_what_is_asked() {
        let pieces = spans(&[5, 7, 3, 6, 4, 5]);
        for keep in 0..=30 {
            let rule = Rule { expired_before: None, keep: Some(keep) };
            let to = drop_pieces(&pieces, &rule, 30, Offset(0));
            let left: Vec<u64> = pieces.iter().filter(|p| p.end > to).map(|p| p.bytes).collect();
            let kept = left.iter().sum::<u64>();
            assert!(kept >= keep && left.first().is_none_or(|first| kept - first < keep), "{keep}: {left:?}");
            assert_eq!(drop_pieces(&pieces, &rule, 30, to), to, "nothing more the second time");
        }
    }

    #[test]
    fn pieces_expire_in_order() {
        let pieces = spans(&[1, 1, 1]);
        let dropped = |before| drop_pieces(&pieces, &Rule { expired_before: Some(before), keep: None }, 3, Offset(0)).0;
        assert_eq!([0, 10, 11, 21, 31].map(dropped), [0, 0, 10, 20, 30]);
        let ageless = [BlockSpan { end: Offset(10), bytes: 1, max_timestamp: -1 }];
        let rule = Rule { expired_before: Some(5), keep: None };
        assert_eq!(drop_pieces(&ageless, &rule, 1, Offset(0)), Offset(0), "without a time nothing ages");
    }
}
