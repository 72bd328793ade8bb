//! Merging and compaction: ranges of some objects are replaced by ranges of others, over the same offsets.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{BrokerEpoch, NodeId, Offset, PartitionId};
use crate::metadata::bounds::COMMAND_OBJECTS_MAX;
use crate::metadata::command::{MergeInput, MergeOutput};
use crate::metadata::image::Image;
use crate::metadata::index::RangeEntry;
use crate::metadata::reject::{Reject, Response};

use super::changes::Changes;
use super::require_at_most;
use super::upload::{add_bytes, check_range, finish};

/// First offset and exclusive end.
type Span = (Offset, Offset);

pub fn commit(
    image: &Image,
    changes: &mut Changes<'_>,
    owner: (NodeId, BrokerEpoch),
    inputs: &[MergeInput],
    outputs: &[MergeOutput],
    now_ms: i64,
) -> Result<Response, Reject> {
    require_at_most("the number of ranges in one command", inputs.len(), COMMAND_PARTITIONS_MAX)?;
    require_at_most("the number of objects in one command", outputs.len(), COMMAND_OBJECTS_MAX)?;
    let written = outputs.iter().map(|output| output.ranges.len()).sum();
    require_at_most("the number of ranges in one command", written, COMMAND_PARTITIONS_MAX)?;
    let replaced = replaced_ranges(image, changes, inputs)?;
    require_leader(image, owner.0, inputs)?;
    check_coverage(image, &replaced, outputs)?;
    for (&(partition, base), entry) in &replaced {
        changes.drop_range(partition, base, *entry, now_ms);
        if let Some(partition) = changes.partition(image, partition) {
            partition.object_bytes = partition.object_bytes.saturating_sub(entry.bytes);
        }
    }
    for output in outputs {
        let mut entry = changes.require_prepared(output.object, owner)?;
        for range in &output.ranges {
            // Without a partition the topic was deleted: coverage has refused every other reason.
            let Some(partition) = changes.partition(image, range.partition) else { continue };
            if range.end > partition.log_start || range.end == partition.uploaded_end {
                add_bytes(partition, range)?;
                changes.put_range(range.partition, range.base, range.entry(output.object));
                entry.live_ranges = entry.live_ranges.saturating_add(1);
            }
        }
        finish(&mut entry, output.bytes, now_ms);
        changes.put_object(output.object, entry);
    }
    Ok(Response::Ok)
}

/// Moves the ends of what is compact. One that is not ahead of the present one is passed over, as is a partition whose
/// topic was deleted; one beyond what is uploaded is refused.
pub fn clean(image: &Image, changes: &mut Changes<'_>, cleaned: &[(PartitionId, Offset)]) -> Result<(), Reject> {
    require_at_most("the number of partitions in one command", cleaned.len(), COMMAND_PARTITIONS_MAX)?;
    for &(id, end) in cleaned {
        if !is_present(image, id)? {
            continue;
        }
        let Some(partition) = changes.partition(image, id) else { continue };
        if end > partition.uploaded_end {
            return Err(Reject::Invalid(format!("compacting partition {id} up to {end}, which is not uploaded")));
        }
        partition.cleaned_end = partition.cleaned_end.max(end);
    }
    Ok(())
}

/// The inputs as the index has them. One that is not there any more was dropped or merged by someone else: the whole
/// merge is out of date, except where its topic was deleted.
fn replaced_ranges(
    image: &Image,
    changes: &Changes<'_>,
    inputs: &[MergeInput],
) -> Result<BTreeMap<(PartitionId, Offset), RangeEntry>, Reject> {
    let mut replaced = BTreeMap::new();
    for &MergeInput { partition, base, object } in inputs {
        if !is_present(image, partition)? {
            continue;
        }
        let entry = changes.before().range(partition, base).filter(|entry| entry.object == object);
        let entry = entry.ok_or(Reject::InputGone { partition, base })?;
        if replaced.insert((partition, base), entry).is_some() {
            return Err(Reject::Invalid(format!("replacing range {base} of partition {partition} twice")));
        }
    }
    Ok(replaced)
}

/// Whoever leads a partition decides what compaction may drop from it; a former leader knows it as it was. Topics that
/// were deleted are passed over.
fn require_leader(image: &Image, node: NodeId, inputs: &[MergeInput]) -> Result<(), Reject> {
    for input in inputs {
        match image.partition(input.partition) {
            Some(partition) if partition.leader != node => {
                return Err(Reject::NotLeader { partition: input.partition, leader: partition.leader });
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_coverage(
    image: &Image,
    replaced: &BTreeMap<(PartitionId, Offset), RangeEntry>,
    outputs: &[MergeOutput],
) -> Result<(), Reject> {
    let mut before: BTreeMap<PartitionId, Vec<Span>> = BTreeMap::new();
    for (&(partition, base), entry) in replaced {
        before.entry(partition).or_default().push((base, entry.end));
    }
    let mut after: BTreeMap<PartitionId, Vec<Span>> = BTreeMap::new();
    for range in outputs.iter().flat_map(|output| &output.ranges) {
        check_range(range)?;
        if is_present(image, range.partition)? {
            after.entry(range.partition).or_default().push((range.base, range.end));
        }
    }
    let partitions: BTreeSet<PartitionId> = before.keys().chain(after.keys()).copied().collect();
    for id in partitions {
        let Some(partition) = image.partition(id) else { continue };
        let inputs = before.remove(&id).unwrap_or_default();
        let mut outputs = after.remove(&id).unwrap_or_default();
        outputs.sort_unstable();
        if !covers(&inputs, &outputs, partition.log_start, partition.uploaded_end) {
            return Err(Reject::Coverage { partition: id });
        }
    }
    Ok(())
}

/// Whether the topic still exists; a partition that it never had is refused.
fn is_present(image: &Image, partition: PartitionId) -> Result<bool, Reject> {
    if !image.topics.contains_key(&partition.topic) {
        return Ok(false);
    }
    image.partition(partition).map(|_| true).ok_or(Reject::UnknownPartition(partition))
}

/// Whether the outputs hold each offset of the inputs exactly once and no other; offsets below the log start may be
/// missing, but not the end of the newest range, which holds the producer state. Both ascend; the inputs, being in
/// the index, do not overlap.
fn covers(inputs: &[Span], outputs: &[Span], log_start: Offset, uploaded_end: Offset) -> bool {
    let mut runs: Vec<Span> = Vec::new();
    for &(base, end) in inputs {
        match runs.last_mut() {
            Some(run) if run.1 == base => run.1 = end,
            _ => runs.push((base, end)),
        }
    }
    let mut outputs = outputs.iter().copied().peekable();
    for (base, end) in runs {
        let mut at = base;
        while let Some((from, to)) = outputs.next_if(|(from, _)| *from < end) {
            let gap_is_readable = from > at && from > log_start;
            if from < at || to > end || gap_is_readable {
                return false;
            }
            at = to;
        }
        if at < end && (end > log_start || end == uploaded_end) {
            return false;
        }
    }
    outputs.next().is_none()
}

#[cfg(test)]
mod tests {
    use crate::metadata::index::MemoryIndex;
    use crate::metadata::samples;

    use super::*;

    fn spans(pairs: &[(i64, i64)]) -> Vec<Span> {
        pairs.iter().map(|&(base, end)| (Offset(base), Offset(end))).collect()
    }

    #[test]
    fn the_end_of_what_is_compact_only_moves_forward_within_what_is_uploaded() {
        let image = samples::image();
        let index = MemoryIndex::default();
        let id = samples::partition(3, 1);
        let uploaded = image.partition(id).expect("the sample has it").uploaded_end;
        let mut changes = Changes::new(&index);
        let mut end_after = |cleaned: &[(PartitionId, Offset)]| {
            clean(&image, &mut changes, cleaned).map(|()| changes.partition(&image, id).map(|p| p.cleaned_end))
        };
        assert_eq!(end_after(&[(id, Offset(40))]), Ok(Some(Offset(40))));
        assert_eq!(end_after(&[(id, Offset(30))]), Ok(Some(Offset(40))));
        assert_eq!(end_after(&[(id, uploaded)]), Ok(Some(uploaded)));
        assert!(matches!(end_after(&[(id, uploaded.plus(1))]), Err(Reject::Invalid(_))));
        let gone = samples::partition(9, 0);
        assert_eq!(end_after(&[(gone, Offset(1))]), Ok(Some(uploaded)), "its topic was deleted");
        let never = samples::partition(3, 2);
        assert_eq!(end_after(&[(never, Offset(1))]), Err(Reject::UnknownPartition(never)));
    }

    #[test]
    fn only_the_leader_merges() {
        let image = samples::image();
        let (id, gone) = (samples::partition(3, 1), samples::partition(9, 0));
        let leader = image.partition(id).expect("the sample has it").leader;
        let input = |partition| [MergeInput { partition, base: Offset(0), object: crate::base::ObjectId(1) }];
        assert_eq!(require_leader(&image, leader, &input(id)), Ok(()));
        let other = NodeId(leader.0 + 1);
        assert_eq!(require_leader(&image, other, &input(id)), Err(Reject::NotLeader { partition: id, leader }));
        assert_eq!(require_leader(&image, other, &input(gone)), Ok(()), "its topic was deleted");
    }

    #[test]
    fn outputs_cover_what_inputs_cover() {
        type Pairs = &'static [(i64, i64)];
        let table: &[(Pairs, Pairs, i64, bool)] = &[
            (&[], &[], 0, true),
            (&[(0, 5), (5, 9)], &[(0, 9)], 0, true),
            (&[(0, 9)], &[(0, 5), (5, 9)], 0, true),
            (&[(0, 5), (7, 9)], &[(0, 5), (7, 9)], 0, true),
            // A hole between inputs may belong to another object.
            (&[(0, 5), (7, 9)], &[(0, 9)], 0, false),
            (&[(0, 5)], &[], 0, false),
            (&[(0, 5)], &[], 5, true),
            (&[(0, 5)], &[], 4, false),
            (&[(0, 5), (5, 9)], &[(5, 9)], 5, true),
            (&[(0, 5), (5, 9)], &[(6, 9)], 5, false),
            (&[(0, 9)], &[(3, 9)], 4, true),
            (&[(0, 9)], &[(5, 9)], 4, false),
            (&[(0, 9)], &[(0, 8)], 4, false),
            (&[(0, 9)], &[(0, 10)], 0, false),
            (&[(2, 9)], &[(1, 9)], 5, false),
            (&[(0, 9)], &[(0, 5), (4, 9)], 0, false),
            (&[(0, 9)], &[(0, 9), (0, 9)], 0, false),
            (&[], &[(0, 1)], 10, false),
            (&[(0, 5)], &[(0, 5), (7, 8)], 10, false),
        ];
        for (inputs, outputs, log_start, expected) in table {
            let answer = covers(&spans(inputs), &spans(outputs), Offset(*log_start), Offset(1_000));
            assert_eq!(answer, *expected, "{inputs:?} by {outputs:?} from {log_start}");
        }
    }

    #[test]
    fn the_end_of_the_newest_range_is_never_left_out() {
        type Pairs = &'static [(i64, i64)];
        let table: &[(Pairs, Pairs, bool)] = &[
            (&[(0, 9)], &[(0, 9)], true),
            (&[(0, 9)], &[(6, 9)], true),
            (&[(0, 9)], &[], false),
            (&[(0, 9)], &[(0, 8)], false),
            (&[(0, 5), (5, 9)], &[(5, 9)], true),
            (&[(0, 5), (5, 9)], &[(0, 5)], false),
            (&[(0, 5)], &[], true),
        ];
        for (inputs, outputs, expected) in table {
            let answer = covers(&spans(inputs), &spans(outputs), Offset(20), Offset(9));
            assert_eq!(answer, *expected, "{inputs:?} by {outputs:?}");
        }
    }
}
