//! OffsetFetch, of some topics or of all.

use crate::base::TopicId;
use crate::group::coordinator::{Coordinator, Group};
use crate::group::offsets::{Committed, GroupOffsets};
use crate::group::request::OffsetFetch;
use crate::group::{FetchTopic, FetchedOffset, FetchedTopic, GroupError, OffsetFetchReply};

impl Coordinator {
    /// A group that does not exist has no offsets, which is no error.
    pub(in crate::group) fn fetch_offsets(&self, request: OffsetFetch) -> OffsetFetchReply {
        let refused = match self.groups.get(request.group.as_str()) {
            Some(Group::Consumer(group)) => group.validate_fetch(request.member.as_deref(), request.member_epoch).err(),
            Some(Group::Classic(_)) | None => None,
        };
        if let Some(error) = refused {
            return OffsetFetchReply { group: request.group, error: Some(error), topics: vec![] };
        }
        let known = self.groups.contains_key(request.group.as_str());
        let offsets = self.offsets.groups.get(request.group.as_str()).filter(|_| known);
        let topics = match request.topics {
            Some(topics) => topics.into_iter().map(|topic| some(offsets, topic, request.require_stable)).collect(),
            None => offsets.map(|offsets| all(offsets, request.require_stable)).unwrap_or_default(),
        };
        OffsetFetchReply { group: request.group, error: None, topics }
    }
}

fn some(offsets: Option<&GroupOffsets>, topic: FetchTopic, require_stable: bool) -> FetchedTopic {
    let committed = offsets.and_then(|offsets| offsets.topics.get(topic.name.as_str()));
    let open = offsets.and_then(|offsets| offsets.open.get(topic.name.as_str())).filter(|_| require_stable);
    let partitions = topic.partitions.iter().map(|partition| {
        if open.is_some_and(|open| open.contains_key(partition)) {
            return none(*partition, Some(GroupError::UnstableOffsetCommit));
        }
        match committed.and_then(|committed| committed.get(partition)) {
            Some(committed) if same_topic(committed.topic_id, topic.id) => found(*partition, committed),
            _ => none(*partition, None),
        }
    });
    let partitions = partitions.collect();
    FetchedTopic { name: topic.name, id: topic.id, partitions }
}

/// Partitions of which only pending offsets are known are left out.
fn all(offsets: &GroupOffsets, require_stable: bool) -> Vec<FetchedTopic> {
    let topics = offsets.topics.iter().map(|(name, partitions)| {
        let open = offsets.open.get(name).filter(|_| require_stable);
        let partitions = partitions.iter().map(|(partition, committed)| {
            if open.is_some_and(|open| open.contains_key(partition)) {
                none(*partition, Some(GroupError::UnstableOffsetCommit))
            } else {
                found(*partition, committed)
            }
        });
        FetchedTopic { name: name.to_string(), id: TopicId::default(), partitions: partitions.collect() }
    });
    topics.collect()
}

/// An offset of a topic that was deleted and made again does not count; either id may be unknown.
fn same_topic(committed: TopicId, asked: TopicId) -> bool {
    committed.is_zero() || asked.is_zero() || committed == asked
}

fn none(partition: i32, error: Option<GroupError>) -> FetchedOffset {
    FetchedOffset { partition, error, offset: -1, leader_epoch: -1, metadata: String::new() }
}

fn found(partition: i32, committed: &Committed) -> FetchedOffset {
    FetchedOffset {
        partition,
        error: None,
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata().to_owned(),
    }
}
