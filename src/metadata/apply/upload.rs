//! Life of an object outside of merging: prepared, committed by an upload or aborted, swept.

use std::collections::BTreeMap;

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId, ObjectId, Offset, PartitionId};
use crate::metadata::bounds::COMMAND_OBJECTS_MAX;
use crate::metadata::command::Range;
use crate::metadata::image::{Image, Partition};
use crate::metadata::index::{ObjectEntry, ObjectState};
use crate::metadata::reject::{Reject, Response};

use super::changes::Changes;
use super::cluster::used_up;
use super::{purge, require_at_most};

pub fn prepare(
    image: &mut Image,
    changes: &mut Changes<'_>,
    node: NodeId,
    epoch: BrokerEpoch,
    count: u32,
    now_ms: i64,
) -> Result<Response, Reject> {
    require_at_most("the number of objects in one command", count as usize, COMMAND_OBJECTS_MAX)?;
    if count == 0 {
        return Err(Reject::Invalid("preparing no object".to_owned()));
    }
    let first = image.next_object;
    image.next_object = first.checked_add(u64::from(count)).ok_or_else(|| used_up("object ids"))?;
    let state = ObjectState::Prepared { node, epoch };
    for id in first..image.next_object {
        changes.put_object(ObjectId(id), ObjectEntry { bytes: 0, live_ranges: 0, state, created_ms: now_ms });
    }
    Ok(Response::Objects { first: ObjectId(first), count })
}

/// The owner may upload `from..through` of the ledger now: its own open one, or one with an end that it is to upload.
pub fn check_position(
    image: &Image,
    (node, epoch): (NodeId, BrokerEpoch),
    ledger: LedgerId,
    from: EntryId,
    through: EntryId,
) -> Result<(), Reject> {
    let known = image.ledgers.get(&ledger).ok_or(Reject::UnknownLedger(ledger))?;
    if known.uploader() != node {
        return Err(Reject::LedgerOwner { ledger, owner: known.uploader() });
    }
    if known.epoch != epoch && known.end.is_none() {
        return Err(Reject::UnsealedLedger(ledger));
    }
    if from != known.uploaded || through <= from || known.end.is_some_and(|end| through > end) {
        return Err(Reject::UploadPosition { uploaded: known.uploaded, end: known.end });
    }
    Ok(())
}

/// Enters an uploaded object and its ranges. Every range begins at its partition's uploaded end, also where the log
/// start is beyond it: what is deleted already is skipped here, not by the uploader, whose view may be older. The
/// newest range of each partition is entered in any case; the one that it replaces goes if nobody may read it.
pub fn store(
    image: &mut Image,
    changes: &mut Changes<'_>,
    owner: (NodeId, BrokerEpoch),
    (object, bytes): (ObjectId, u64),
    ranges: &[Range],
    now_ms: i64,
) -> Result<(), Reject> {
    require_at_most("the number of ranges in one command", ranges.len(), COMMAND_PARTITIONS_MAX)?;
    let mut entry = changes.require_prepared(object, owner)?;
    let newest_ends: BTreeMap<PartitionId, Offset> = ranges.iter().map(|range| (range.partition, range.end)).collect();
    let mut superseded = Vec::new();
    for range in ranges {
        check_range(range)?;
        if !image.topics.contains_key(&range.partition.topic) {
            continue;
        }
        let missing = Reject::UnknownPartition(range.partition);
        let partition = changes.partition(image, range.partition).ok_or(missing)?;
        if range.base != partition.uploaded_end {
            let uploaded_end = partition.uploaded_end;
            return Err(Reject::NotContiguous { partition: range.partition, uploaded_end });
        }
        append_epochs(partition, range)?;
        partition.uploaded_end = range.end;
        // Then all that the index had of the partition is below the log start, kept as the newest until now.
        if range.base <= partition.log_start && partition.object_bytes > 0 {
            superseded.push((range.partition, partition.log_start));
        }
        if range.end > partition.log_start || newest_ends.get(&range.partition) == Some(&range.end) {
            add_bytes(partition, range)?;
            changes.put_range(range.partition, range.base, range.entry(object));
            entry.live_ranges = entry.live_ranges.saturating_add(1);
        }
    }
    finish(&mut entry, bytes, now_ms);
    changes.put_object(object, entry);
    // Nothing is refused from here on, so the image may be touched.
    if !superseded.is_empty() {
        image.purge.extend(superseded);
        purge::work_off(image, changes, now_ms);
    }
    Ok(())
}

pub fn advance(image: &mut Image, ledger: LedgerId, through: EntryId) {
    if let Some(ledger) = image.ledgers.get_mut(&ledger) {
        ledger.uploaded = through;
    }
}

pub fn abort(changes: &mut Changes<'_>, objects: &[ObjectId], now_ms: i64) -> Result<Response, Reject> {
    require_at_most("the number of objects in one command", objects.len(), COMMAND_OBJECTS_MAX)?;
    for &object in objects {
        let mut entry = changes.object(object).ok_or(Reject::UnknownObject(object))?;
        match entry.state {
            ObjectState::Prepared { .. } => {
                entry.state = ObjectState::Aborted { at_ms: now_ms };
                changes.put_object(object, entry);
            }
            ObjectState::Aborted { .. } => {}
            state => return Err(Reject::ObjectState { object, state }),
        }
    }
    Ok(Response::Ok)
}

pub fn sweep(changes: &mut Changes<'_>, objects: &[ObjectId]) -> Result<Response, Reject> {
    require_at_most("the number of objects in one command", objects.len(), COMMAND_OBJECTS_MAX)?;
    for &object in objects {
        match changes.object(object).map(|entry| entry.state) {
            None => {}
            Some(ObjectState::Dropped { .. } | ObjectState::Aborted { .. }) => changes.delete_object(object),
            Some(state) => return Err(Reject::ObjectState { object, state }),
        }
    }
    Ok(Response::Ok)
}

/// A committed object is live as long as the index points to it.
pub fn finish(entry: &mut ObjectEntry, bytes: u64, now_ms: i64) {
    entry.bytes = bytes;
    entry.state = match entry.live_ranges {
        0 => ObjectState::Dropped { at_ms: now_ms },
        _ => ObjectState::Live,
    };
}

/// What every range fulfils, whatever partition it belongs to.
pub fn check_range(range: &Range) -> Result<(), Reject> {
    if range.base < Offset::ZERO || range.end <= range.base || range.bytes == 0 {
        let (base, end, bytes) = (range.base, range.end, range.bytes);
        return Err(Reject::Invalid(format!("a range of {bytes} bytes from {base} to {end}")));
    }
    Ok(())
}

pub fn add_bytes(partition: &mut Partition, range: &Range) -> Result<(), Reject> {
    let sum = partition.object_bytes.checked_add(range.bytes);
    partition.object_bytes = sum.ok_or_else(|| Reject::Invalid(format!("a range of {} bytes", range.bytes)))?;
    Ok(())
}

/// Adds the epochs that begin in the range: ascending, each within the range, none that the partition has not had.
fn append_epochs(partition: &mut Partition, range: &Range) -> Result<(), Reject> {
    for &(epoch, start) in &range.epochs {
        let ascends = match partition.epochs.last() {
            Some(&(last_epoch, last_start)) => epoch > last_epoch && start > last_start,
            None => epoch.0 >= 0,
        };
        if !ascends || epoch > partition.leader_epoch || start < range.base || start >= range.end {
            return Err(Reject::EpochRegression { partition: range.partition });
        }
        partition.epochs.push((epoch, start));
    }
    forget_old_epochs(partition);
    Ok(())
}

/// Keeps the epochs that have offsets at or above the log start.
pub fn forget_old_epochs(partition: &mut Partition) {
    let log_start = partition.log_start;
    let ended = partition.epochs.windows(2).take_while(|pair| pair[1].1 <= log_start).count();
    partition.epochs.drain(..ended);
}
