//! Offsets that go on request: OffsetDelete, DeleteGroups, and those of deleted topics.

use std::sync::Arc;

use crate::base::TopicId;
use crate::group::call::{Call, GroupId};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::Record;
use crate::group::request::OffsetDelete;
use crate::group::{DeletedTopic, GroupError};

impl Coordinator {
    /// Each partition of a topic that the group is subscribed to is refused on its own.
    pub(in crate::group) fn delete_offsets(
        &mut self,
        call: &mut Call<'_>,
        request: OffsetDelete,
    ) -> Result<Vec<DeletedTopic>, GroupError> {
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let group = self.groups.get(request.group.as_str()).ok_or(GroupError::GroupIdNotFound)?;
        if let Group::Classic(group) = group {
            group.validate_offset_delete()?;
        }
        let subscribed: Vec<bool> = request.topics.iter().map(|(topic, _)| group.is_subscribed(topic)).collect();
        let mut reply = Vec::with_capacity(request.topics.len());
        for ((topic, partitions), subscribed) in request.topics.into_iter().zip(subscribed) {
            let error = subscribed.then_some(GroupError::GroupSubscribedToTopic);
            for partition in partitions.iter().filter(|_| !subscribed) {
                let there = self.offsets.get(&request.group, &topic, *partition).is_some()
                    || self.offsets.is_open(&request.group, &topic, *partition);
                if there {
                    self.remove_offset(call, &request.group, &topic, *partition);
                }
            }
            let partitions = partitions.into_iter().map(|partition| (partition, error)).collect();
            reply.push(DeletedTopic { name: topic, partitions });
        }
        call.effects.atomic = false;
        Ok(reply)
    }

    pub(in crate::group) fn delete_group(&mut self, call: &mut Call<'_>, id: &str) -> Result<(), GroupError> {
        match self.groups.get(id).ok_or(GroupError::GroupIdNotFound)? {
            Group::Classic(group) => group.validate_delete()?,
            Group::Consumer(group) => group.validate_delete()?,
        }
        for (topic, partition) in self.offsets.partitions(id) {
            self.remove_offset(call, id, &topic, partition);
        }
        self.remove_group(call, id);
        call.effects.atomic = false;
        Ok(())
    }

    /// Committed and pending offsets of topics that are gone. A topic made again under the name keeps its own.
    pub(in crate::group) fn delete_offsets_of(&mut self, call: &mut Call<'_>, topics: &[(String, TopicId)]) {
        let mut gone: Vec<(GroupId, Arc<str>, i32)> = vec![];
        let groups = &self.offsets.groups;
        for (topic, id) in topics {
            let of = |c: &super::Committed| c.topic_id.is_zero() || c.topic_id == *id;
            for (group, offsets) in groups {
                let Some((name, partitions)) = offsets.topics.get_key_value(topic.as_str()) else { continue };
                let those = partitions.iter().filter(|(_, committed)| of(committed));
                gone.extend(those.map(|(partition, _)| (group.clone(), name.clone(), *partition)));
            }
            for pending in self.offsets.pending.values() {
                let those = pending.iter().filter(|((_, name, _), committed)| &**name == topic && of(committed));
                gone.extend(those.map(|(key, _)| key.clone()));
            }
        }
        gone.sort();
        gone.dedup();
        for (group, topic, partition) in gone {
            self.remove_offset(call, &group, &topic, partition);
        }
        call.effects.atomic = false;
    }

    pub(super) fn remove_offset(&mut self, call: &mut Call<'_>, group: &str, topic: &str, partition: i32) {
        self.offsets.remove(group, topic, partition);
        call.write(&Record::Offset { group: group.to_owned(), topic: topic.to_owned(), partition, value: None });
    }
}
