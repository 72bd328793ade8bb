//! Ranges that nobody may read any more leave the index, in steps of bounded size.
//!
//! The newest range of a partition never leaves while its topic exists, wherever the log start is: its object holds
//! the producer state as of the uploaded end, and nothing else in object storage does.
//!
//! A deleted topic or a moved log start can concern more ranges than one command may touch. So the command only
//! records in `Image::purge` what has to go and takes the first step; `PurgeRanges` takes the following ones.

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{Offset, PartitionId};
use crate::metadata::bounds::{PURGE_PARTITIONS_MAX, PURGE_RANGES_MAX};
use crate::metadata::image::Image;
use crate::metadata::reject::{Reject, Response};

use super::changes::Changes;
use super::require_at_most;
use super::upload::forget_old_epochs;

pub fn advance(
    image: &mut Image,
    changes: &mut Changes<'_>,
    wanted: &[(PartitionId, Offset)],
    now_ms: i64,
) -> Result<Response, Reject> {
    require_at_most("the number of partitions in one command", wanted.len(), COMMAND_PARTITIONS_MAX)?;
    for &(id, log_start) in wanted {
        let Some(partition) = changes.partition(image, id) else { continue };
        if log_start <= partition.log_start {
            continue;
        }
        partition.log_start = log_start;
        forget_old_epochs(partition);
        if partition.object_bytes > 0 {
            image.purge.insert(id, log_start);
        }
    }
    work_off(image, changes, now_ms);
    Ok(Response::Ok)
}

/// Takes the next ranges out. Each partition is looked at once: the index is read as it was before the command.
pub fn work_off(image: &mut Image, changes: &mut Changes<'_>, now_ms: i64) {
    let mut ranges_left = PURGE_RANGES_MAX;
    for _ in 0..PURGE_PARTITIONS_MAX {
        let Some((&partition, &below)) = image.purge.first_key_value() else { return };
        let found = changes.before().ranges(partition, Offset::ZERO, below, ranges_left + 1);
        let is_last_step = found.len() <= ranges_left;
        // As the command leaves it: an upload may just have made another range the newest.
        let newest_end = changes.partition(image, partition).map(|partition| partition.uploaded_end);
        for (base, entry) in found.into_iter().take(ranges_left) {
            // The last one may reach beyond the log start or be the newest, and stays.
            if entry.end > below || Some(entry.end) == newest_end {
                continue;
            }
            changes.drop_range(partition, base, entry, now_ms);
            if let Some(partition) = changes.partition(image, partition) {
                partition.object_bytes = partition.object_bytes.saturating_sub(entry.bytes);
            }
            ranges_left -= 1;
        }
        if !is_last_step {
            return;
        }
        image.purge.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId, ObjectId, TopicId};
    use crate::metadata::command::{Command, Range};
    use crate::metadata::image::{Image, Topic};
    use crate::metadata::index::{IndexOp, IndexView, MemoryIndex, ObjectEntry, ObjectState};
    use crate::metadata::reject::{Reject, Response};
    use crate::metadata::{apply, samples};

    use super::*;

    const TOPIC: TopicId = TopicId([3; 16]);

    /// A topic whose partitions have the given numbers of ranges, of one record each, all in object 1.
    fn with_ranges(counts: &[usize]) -> (Image, MemoryIndex) {
        let (mut image, mut index) = (samples::image(), MemoryIndex::default());
        let topic = Arc::make_mut(Arc::make_mut(&mut image.topics).get_mut(&TOPIC).expect("the sample has it"));
        let model = topic.partitions[0].clone();
        image.purge.clear();
        *topic = Topic { partitions: vec![model; counts.len()], ..topic.clone() };
        for (number, count) in (0..).zip(counts) {
            let partition = Arc::make_mut(&mut topic.partitions[number as usize]);
            partition.uploaded_end = Offset(*count as i64);
            partition.object_bytes = 100 * *count as u64;
            for base in 0..*count as i64 {
                let range = samples::range(samples::partition(3, number), base, base + 1);
                index.ranges.insert((range.partition, range.base), range.entry(ObjectId(1)));
            }
        }
        let live_ranges = index.ranges.len() as u32;
        let entry = ObjectEntry { bytes: 1, live_ranges, state: ObjectState::Live, created_ms: 0 };
        index.objects.insert(ObjectId(1), entry);
        (image, index)
    }

    fn run(image: &mut Image, index: &mut MemoryIndex, command: &Command) -> usize {
        let (response, ops) = apply(image, command, index);
        assert_eq!(response, Response::Ok);
        index.apply(&ops);
        ops.iter().filter(|op| matches!(op, IndexOp::DeleteRange { .. })).count()
    }

    #[test]
    fn a_deleted_topic_leaves_the_index_in_bounded_steps() {
        let (mut image, mut index) = with_ranges(&[PURGE_RANGES_MAX - 1, 0, 2, PURGE_RANGES_MAX]);
        let removed = run(&mut image, &mut index, &Command::DeleteTopic { id: TOPIC, now_ms: 1 });
        assert_eq!((removed, image.purge.len()), (PURGE_RANGES_MAX, 2));

        let again = Command::CreateTopic {
            id: TOPIC,
            name: "again".into(),
            partitions: vec![NodeId(7)],
            replication_factor: 1,
            configs: vec![],
            now_ms: 2,
        };
        assert_eq!(apply(&mut image, &again, &index).0, Response::Rejected(Reject::TopicIdInUse));
        let object = index.object(ObjectId(1)).expect("it still has ranges");
        assert_eq!((object.state, object.live_ranges), (ObjectState::Live, PURGE_RANGES_MAX as u32 + 1));

        assert_eq!(run(&mut image, &mut index, &Command::PurgeRanges { now_ms: 3 }), PURGE_RANGES_MAX);
        assert_eq!(run(&mut image, &mut index, &Command::PurgeRanges { now_ms: 4 }), 1);
        assert!(image.purge.is_empty() && index.ranges.is_empty());
        let object = index.object(ObjectId(1)).expect("it is not swept yet");
        assert_eq!((object.state, object.live_ranges), (ObjectState::Dropped { at_ms: 4 }, 0));
    }

    #[test]
    fn many_partitions_take_many_steps() {
        let (mut image, mut index) = with_ranges(&vec![1; PURGE_PARTITIONS_MAX + 5]);
        assert_eq!(run(&mut image, &mut index, &Command::DeleteTopic { id: TOPIC, now_ms: 1 }), PURGE_PARTITIONS_MAX);
        assert_eq!(run(&mut image, &mut index, &Command::PurgeRanges { now_ms: 2 }), 5);
        assert!(image.purge.is_empty() && index.ranges.is_empty());
    }

    #[test]
    fn a_log_start_far_ahead_keeps_what_reaches_beyond_it() {
        let (mut image, mut index) = with_ranges(&[PURGE_RANGES_MAX + 10]);
        let id = samples::partition(3, 0);
        let end = Offset(PURGE_RANGES_MAX as i64 + 10);
        let long = samples::range(id, end.0, end.0 + 100);
        index.ranges.insert((id, end), long.entry(ObjectId(1)));
        let topic = Arc::make_mut(Arc::make_mut(&mut image.topics).get_mut(&TOPIC).expect("the sample has it"));
        Arc::make_mut(&mut topic.partitions[0]).uploaded_end = long.end;
        let log_start = end.plus(50);
        let advance = Command::AdvanceLogStart { changes: vec![(id, log_start)], now_ms: 1 };
        assert_eq!(run(&mut image, &mut index, &advance), PURGE_RANGES_MAX);
        assert_eq!(image.partition(id).map(|partition| partition.log_start), Some(log_start));
        assert_eq!(run(&mut image, &mut index, &Command::PurgeRanges { now_ms: 2 }), 10);
        assert_eq!(index.ranges(id, Offset::ZERO, log_start, 9), vec![(end, long.entry(ObjectId(1)))]);
        assert!(image.purge.is_empty());
    }

    fn upload(range: Range) -> Command {
        let (node, epoch, ledger) = (NodeId(7), BrokerEpoch(70), LedgerId(11));
        let (from, through) = (EntryId(5), EntryId(6));
        let (object, object_bytes, ranges) = (ObjectId(2), 5, vec![range]);
        Command::CommitUpload { node, epoch, object, object_bytes, ledger, from, through, ranges, now_ms: 3 }
    }

    #[test]
    fn the_newest_range_stays_until_a_newer_one_comes_even_while_others_wait() {
        let count = PURGE_RANGES_MAX as i64 + 10;
        let (mut image, mut index) = with_ranges(&[PURGE_RANGES_MAX + 10]);
        let id = samples::partition(3, 0);
        let owner = ObjectState::Prepared { node: NodeId(7), epoch: BrokerEpoch(70) };
        let prepared = ObjectEntry { bytes: 0, live_ranges: 0, state: owner, created_ms: 0 };
        index.objects.insert(ObjectId(2), prepared);
        let advance = Command::AdvanceLogStart { changes: vec![(id, Offset(count + 50))], now_ms: 1 };
        assert_eq!(run(&mut image, &mut index, &advance), PURGE_RANGES_MAX);

        let (mut waiting, mut its_index) = (image.clone(), index.clone());
        assert_eq!(run(&mut image, &mut index, &Command::PurgeRanges { now_ms: 2 }), 9);
        let newest = index.ranges(id, Offset::ZERO, Offset(i64::MAX), 9);
        assert_eq!(newest.iter().map(|(base, _)| base.0).collect::<Vec<_>>(), [count - 1]);
        assert_eq!(image.partition(id).map(|partition| partition.object_bytes), Some(100));
        assert!(image.purge.is_empty());

        let newer = samples::range(id, count, count + 3);
        for (image, index, dropped) in [(&mut image, &mut index, 1), (&mut waiting, &mut its_index, 10)] {
            assert_eq!(run(image, index, &upload(newer.clone())), dropped);
            assert_eq!(index.ranges(id, Offset::ZERO, Offset(i64::MAX), 9), [(newer.base, newer.entry(ObjectId(2)))]);
            assert_eq!(image.partition(id).map(|partition| partition.object_bytes), Some(300));
            assert!(image.purge.is_empty());
            let states = [1, 2].map(|id| index.object(ObjectId(id)).map(|entry| entry.state));
            assert_eq!(states, [Some(ObjectState::Dropped { at_ms: 3 }), Some(ObjectState::Live)]);
            assert_eq!(run(image, index, &Command::DeleteTopic { id: TOPIC, now_ms: 4 }), 1);
        }
    }
}
