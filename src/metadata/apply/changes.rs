//! What one command is about to change in the index and in partitions, seen as if it were done.
//!
//! Nothing reaches the image before `install`; dropping a `Changes` undoes it. The count of live ranges of each
//! object is kept here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{BrokerEpoch, NodeId, ObjectId, Offset, PartitionId};
use crate::metadata::image::{Image, Partition};
use crate::metadata::index::{IndexOp, IndexView, ObjectEntry, ObjectState, RangeEntry};
use crate::metadata::reject::Reject;

pub struct Changes<'a> {
    view: &'a dyn IndexView,
    /// `None` deletes.
    ranges: BTreeMap<(PartitionId, Offset), Option<RangeEntry>>,
    objects: BTreeMap<ObjectId, Option<ObjectEntry>>,
    partitions: BTreeMap<PartitionId, Partition>,
}

impl<'a> Changes<'a> {
    pub fn new(view: &'a dyn IndexView) -> Self {
        Changes { view, ranges: BTreeMap::new(), objects: BTreeMap::new(), partitions: BTreeMap::new() }
    }

    /// The index as it was before the command.
    pub fn before(&self) -> &'a dyn IndexView {
        self.view
    }

    /// A partition as the command leaves it so far, to be changed further.
    pub fn partition(&mut self, image: &Image, id: PartitionId) -> Option<&mut Partition> {
        use std::collections::btree_map::Entry;
        match self.partitions.entry(id) {
            Entry::Occupied(staged) => Some(staged.into_mut()),
            Entry::Vacant(slot) => Some(slot.insert(Partition::clone(image.partition(id)?))),
        }
    }

    pub fn object(&self, id: ObjectId) -> Option<ObjectEntry> {
        match self.objects.get(&id) {
            Some(changed) => *changed,
            None => self.view.object(id),
        }
    }

    pub fn put_object(&mut self, id: ObjectId, entry: ObjectEntry) {
        self.objects.insert(id, Some(entry));
    }

    pub fn delete_object(&mut self, id: ObjectId) {
        self.objects.insert(id, None);
    }

    /// The object, if this broker epoch prepared it and has neither committed nor lost it.
    pub fn require_prepared(&self, id: ObjectId, owner: (NodeId, BrokerEpoch)) -> Result<ObjectEntry, Reject> {
        let entry = self.object(id).ok_or(Reject::UnknownObject(id))?;
        match entry.state {
            ObjectState::Prepared { node, epoch } if (node, epoch) == owner => Ok(entry),
            state => Err(Reject::ObjectState { object: id, state }),
        }
    }

    /// Enters a range; the caller counts it in its object.
    pub fn put_range(&mut self, partition: PartitionId, base: Offset, entry: RangeEntry) {
        self.ranges.insert((partition, base), Some(entry));
    }

    /// Takes a range out, and with the last range of an object marks the object dropped.
    pub fn drop_range(&mut self, partition: PartitionId, base: Offset, entry: RangeEntry, now_ms: i64) {
        self.ranges.insert((partition, base), None);
        let Some(mut object) = self.object(entry.object) else { return };
        object.live_ranges = object.live_ranges.saturating_sub(1);
        if object.live_ranges == 0 && object.state == ObjectState::Live {
            object.state = ObjectState::Dropped { at_ms: now_ms };
        }
        self.put_object(entry.object, object);
    }

    /// Makes the changes to partitions and answers those to the index. Partitions of a topic that the command
    /// deleted are gone.
    pub fn install(self, image: &mut Image) -> Vec<IndexOp> {
        if !self.partitions.is_empty() {
            let topics = Arc::make_mut(&mut image.topics);
            for (id, partition) in self.partitions {
                let Some(topic) = topics.get_mut(&id.topic) else { continue };
                let slot =
                    usize::try_from(id.index).ok().and_then(|index| Arc::make_mut(topic).partitions.get_mut(index));
                if let Some(slot) = slot {
                    *slot = Arc::new(partition);
                }
            }
        }
        let ranges = self.ranges.into_iter().map(|((partition, base), change)| match change {
            Some(entry) => IndexOp::PutRange { partition, base, entry },
            None => IndexOp::DeleteRange { partition, base },
        });
        let objects = self.objects.into_iter().map(|(id, change)| match change {
            Some(entry) => IndexOp::PutObject { id, entry },
            None => IndexOp::DeleteObject { id },
        });
        ranges.chain(objects).collect()
    }
}
