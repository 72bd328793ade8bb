//! Records into bytes, in the versions that Kafka 4.3 writes: offsets in version 4 (1 with an expiry of their own),
//! classic groups in version 3, everything of KIP-848 in version 0.

use crate::group::Write;
use crate::group::records::codec::Out;
use crate::group::records::{
    ClassicGroupValue, ConsumerMemberAssignmentValue, ConsumerMemberValue, ConsumerPartitionsValue, ConsumerRegexValue,
    EpochPartitions, OffsetValue, Record, key_version,
};
use crate::group::request::TopicPartitions;

const NO_TAG: Option<fn(&mut Out)> = None;

impl Record {
    /// None for what is not ours to write, and for a string longer than Kafka's form can carry.
    pub fn encode(&self) -> Option<Write> {
        let (key, value) = match self {
            Record::Offset { group, topic, partition, value } => {
                let mut key = Out::new(key_version::OFFSET);
                key.string(group).string(topic).i32(*partition);
                (key, value.as_ref().map(offset))
            }
            Record::ClassicGroup { group, value } => {
                (group_key(key_version::CLASSIC_GROUP, group), value.as_ref().map(classic_group))
            }
            Record::ConsumerGroup { group, value } => {
                let value = value.as_ref().map(|v| {
                    let hash = (v.metadata_hash != 0).then_some(v.metadata_hash);
                    let mut out = Out::new(0);
                    out.i32(v.epoch).tags(hash.map(|hash| move |tag: &mut Out| _ = tag.i64(hash)));
                    out
                });
                (group_key(key_version::CONSUMER_GROUP, group), value)
            }
            Record::ConsumerPartitions { group, value } => {
                (group_key(key_version::CONSUMER_PARTITIONS, group), value.as_ref().map(partitions))
            }
            Record::ConsumerMember { group, member, value } => {
                (member_key(key_version::CONSUMER_MEMBER, group, member), value.as_ref().map(consumer_member))
            }
            Record::ConsumerTarget { group, value } => {
                let value = value.as_ref().map(|v| {
                    let timestamp = (v.assignment_timestamp != 0).then_some(v.assignment_timestamp);
                    let mut out = Out::new(0);
                    out.i32(v.assignment_epoch).tags(timestamp.map(|at| move |tag: &mut Out| _ = tag.i64(at)));
                    out
                });
                (group_key(key_version::CONSUMER_TARGET, group), value)
            }
            Record::ConsumerMemberTarget { group, member, value } => {
                (member_key(key_version::CONSUMER_MEMBER_TARGET, group, member), value.as_deref().map(target))
            }
            Record::ConsumerMemberAssignment { group, member, value } => {
                let key = member_key(key_version::CONSUMER_MEMBER_ASSIGNMENT, group, member);
                (key, value.as_ref().map(assignment))
            }
            Record::ConsumerRegex { group, regex, value } => {
                (member_key(key_version::CONSUMER_REGEX, group, regex), value.as_ref().map(regular_expression))
            }
            Record::Foreign { .. } => return None,
        };
        let value = match value {
            Some(value) => Some(value.finish()?),
            None => None,
        };
        Some(Write { key: key.finish()?, value })
    }
}

fn group_key(version: i16, group: &str) -> Out {
    let mut key = Out::new(version);
    key.string(group);
    key
}

fn member_key(version: i16, group: &str, member: &str) -> Out {
    let mut key = group_key(version, group);
    key.string(member);
    key
}

fn offset(v: &OffsetValue) -> Out {
    if v.expire_timestamp != -1 {
        let mut out = Out::new(1);
        out.i64(v.offset).string(&v.metadata).i64(v.commit_timestamp).i64(v.expire_timestamp);
        return out;
    }
    let mut out = Out::new(4);
    let id = (!v.topic_id.is_zero()).then_some(v.topic_id);
    out.i64(v.offset).i32(v.leader_epoch).compact_string(&v.metadata).i64(v.commit_timestamp);
    out.tags(id.map(|id| move |tag: &mut Out| _ = tag.uuid(id)));
    out
}

fn classic_group(v: &ClassicGroupValue) -> Out {
    let mut out = Out::new(3);
    out.string(&v.protocol_type).i32(v.generation).nullable_string(v.protocol.as_deref());
    out.nullable_string(v.leader.as_deref()).i64(v.current_state_timestamp);
    out.array(&v.members, |out, m| {
        out.string(&m.member).nullable_string(m.instance.as_deref()).string(&m.client_id).string(&m.client_host);
        out.i32(m.rebalance_timeout_ms).i32(m.session_timeout_ms);
        out.byte_array(&m.subscription).byte_array(&m.assignment);
    });
    out
}

fn partitions(v: &ConsumerPartitionsValue) -> Out {
    let mut out = Out::new(0);
    out.compact_array(&v.topics, |out, (id, name, count)| {
        out.uuid(*id).compact_string(name).i32(*count).compact_array::<()>(&[], |_, _| {}).no_tags();
    });
    out.no_tags();
    out
}

fn consumer_member(v: &ConsumerMemberValue) -> Out {
    let mut out = Out::new(0);
    out.compact_nullable_string(v.instance.as_deref()).compact_nullable_string(v.rack.as_deref());
    out.compact_string(&v.client_id).compact_string(&v.client_host);
    out.compact_array(&v.subscribed_topics, |out, topic| _ = out.compact_string(topic));
    out.compact_nullable_string(v.subscribed_regex.as_deref()).i32(v.rebalance_timeout_ms);
    out.compact_nullable_string(v.server_assignor.as_deref());
    out.tags(v.classic.as_ref().map(|classic| {
        move |tag: &mut Out| {
            // A structure that may be null is preceded by whether it is there.
            tag.varint(1).i32(classic.session_timeout_ms);
            tag.compact_array(&classic.supported_protocols, |tag, protocol| {
                tag.compact_string(&protocol.name).compact_bytes(&protocol.metadata).no_tags();
            });
            tag.no_tags();
        }
    }));
    out
}

fn target(topics: &[TopicPartitions]) -> Out {
    let mut out = Out::new(0);
    out.compact_array(topics, |out, topic| {
        out.uuid(topic.topic).compact_array(&topic.partitions, |out, partition| _ = out.i32(*partition)).no_tags();
    });
    out.no_tags();
    out
}

fn epoch_partitions(out: &mut Out, topic: &EpochPartitions) {
    out.uuid(topic.topic).compact_array(&topic.partitions, |out, partition| _ = out.i32(*partition));
    out.tags(
        topic
            .epochs
            .as_ref()
            .map(|epochs| move |tag: &mut Out| _ = tag.compact_array(epochs, |tag, epoch| _ = tag.i32(*epoch))),
    );
}

fn assignment(v: &ConsumerMemberAssignmentValue) -> Out {
    let mut out = Out::new(0);
    out.i32(v.member_epoch).i32(v.previous_member_epoch).i8(v.state);
    out.compact_array(&v.assigned, epoch_partitions);
    out.compact_array(&v.pending_revocation, epoch_partitions).tags(NO_TAG);
    out
}

fn regular_expression(v: &ConsumerRegexValue) -> Out {
    let mut out = Out::new(0);
    out.compact_array(&v.topics, |out, topic| _ = out.compact_string(topic));
    out.i64(v.version).i64(v.timestamp).no_tags();
    out
}
