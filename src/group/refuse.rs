//! Requests that are refused before anything is looked at.

use crate::group::records::STRING_BYTES_MAX;
use crate::group::request::{CommitTopic, Request};
use crate::group::{
    CommittedTopic, ConsumerGroupHeartbeatReply, DescribedConsumerGroup, DescribedGroup, GroupError, JoinGroupReply,
    LeaveGroupReply, OffsetFetchReply, Reply, SyncGroupReply,
};

/// Bytes that a coordinator adds to a name to make a member id of it: a dash and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;

/// Every partition with the same error.
pub(in crate::group) fn refused_topic(topic: &CommitTopic, error: GroupError) -> CommittedTopic {
    let partitions = topic.partitions.iter().map(|partition| (partition.partition, Some(error))).collect();
    CommittedTopic { name: topic.name.clone(), id: topic.id, partitions }
}

impl Request {
    /// That every string which may go into a record fits there. Longer ones never reach a real Kafka, which refuses
    /// them while it decodes.
    pub(in crate::group) fn strings_fit(&self) -> bool {
        let fits = |text: &str| text.len() <= STRING_BYTES_MAX;
        let names = |text: &str| text.len() <= STRING_BYTES_MAX - MEMBER_ID_SUFFIX_BYTES;
        match self {
            Request::JoinGroup(r) => {
                fits(&r.group)
                    && fits(&r.member)
                    && names(&r.client.id)
                    && fits(&r.client.host)
                    && r.instance.as_deref().is_none_or(names)
                    && fits(&r.protocol_type)
                    && r.protocols.iter().all(|protocol| fits(&protocol.name))
            }
            Request::OffsetCommit(r) => fits(&r.group) && r.topics.iter().all(|topic| fits(&topic.name)),
            Request::ConsumerGroupHeartbeat(r) => {
                let optional = [&r.instance, &r.rack, &r.subscribed_regex, &r.server_assignor];
                fits(&r.group)
                    && fits(&r.member)
                    && fits(&r.client.id)
                    && fits(&r.client.host)
                    && optional.into_iter().flatten().all(|text| fits(text))
                    && r.subscribed_topics.iter().flatten().all(|topic| fits(topic))
            }
            // These only look up what is there.
            Request::SyncGroup(_)
            | Request::Heartbeat(_)
            | Request::LeaveGroup(_)
            | Request::OffsetFetch(_)
            | Request::OffsetDelete(_)
            | Request::DescribeGroup(_)
            | Request::ListGroups(_)
            | Request::DeleteGroup(_)
            | Request::ConsumerGroupDescribe(_) => true,
        }
    }

    /// The reply that refuses the whole request.
    pub fn refused(self, error: GroupError) -> Reply {
        match self {
            Request::JoinGroup(r) => Reply::JoinGroup(JoinGroupReply::refused(r.member, error)),
            Request::SyncGroup(_) => Reply::SyncGroup(SyncGroupReply::refused(error)),
            Request::Heartbeat(_) => Reply::Heartbeat(Err(error)),
            Request::LeaveGroup(_) => Reply::LeaveGroup(LeaveGroupReply { error: Some(error), members: vec![] }),
            Request::OffsetCommit(r) => {
                Reply::OffsetCommit(r.topics.iter().map(|topic| refused_topic(topic, error)).collect())
            }
            Request::OffsetFetch(r) => {
                Reply::OffsetFetch(OffsetFetchReply { group: r.group, error: Some(error), topics: vec![] })
            }
            Request::OffsetDelete(_) => Reply::OffsetDelete(Err(error)),
            Request::DescribeGroup(r) => {
                Reply::DescribeGroup(DescribedGroup { error: Some(error), group: r.group, ..DescribedGroup::default() })
            }
            Request::ListGroups(_) => Reply::ListGroups(vec![]),
            Request::DeleteGroup(_) => Reply::DeleteGroup(Err(error)),
            Request::ConsumerGroupHeartbeat(_) => Reply::ConsumerGroupHeartbeat(ConsumerGroupHeartbeatReply {
                error: Some(error),
                ..ConsumerGroupHeartbeatReply::default()
            }),
            Request::ConsumerGroupDescribe(r) => Reply::ConsumerGroupDescribe(DescribedConsumerGroup {
                error: Some(error),
                group: r.group,
                ..DescribedConsumerGroup::default()
            }),
        }
    }
}
