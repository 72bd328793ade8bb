//! Records and replies as lines of text, with topics by name.

use crate::base::TopicId;
use crate::group::consumer::embedded;
use crate::group::consumer::member::MemberState;
use crate::group::consumer::tests::world::TestTopics;
use crate::group::records::{ConsumerMemberAssignmentValue, ConsumerMemberValue, EpochPartitions, Record};
use crate::group::request::TopicPartitions;
use crate::group::{DescribedConsumerGroup, Effects, GroupError, NamedPartitions, Reply, Topics, Write};

pub fn effects(effects: &Effects<Reply>, topics: &TestTopics) -> Vec<String> {
    let mut lines: Vec<String> = effects.records.iter().map(|write| record(write, topics)).collect();
    lines.extend(effects.replies.iter().flat_map(|(_, answer)| reply(answer, topics)));
    lines
}

fn name(topic: TopicId, topics: &TestTopics) -> String {
    topics.name(topic).map_or_else(|| format!("?{}", topic.0[15]), str::to_owned)
}

fn numbers(list: &[i32]) -> String {
    list.iter().map(i32::to_string).collect::<Vec<_>>().join("+")
}

fn sets<T>(sets: &[T], line: impl Fn(&T) -> String) -> String {
    if sets.is_empty() { "-".into() } else { sets.iter().map(line).collect::<Vec<_>>().join(",") }
}

fn lists(of: &[TopicPartitions], topics: &TestTopics) -> String {
    sets(of, |list| format!("{}:{}", name(list.topic, topics), numbers(&list.partitions)))
}

/// Each partition with the epoch at which it was assigned.
fn dated(of: &[EpochPartitions], topics: &TestTopics) -> String {
    sets(of, |list| {
        let epochs = list.epochs.clone().unwrap_or_default();
        let parts = list.partitions.iter().zip(epochs).map(|(partition, epoch)| format!("{partition}@{epoch}"));
        format!("{}:{}", name(list.topic, topics), parts.collect::<Vec<_>>().join("+"))
    })
}

fn member(value: &ConsumerMemberValue) -> String {
    let mut line = format!("reads {}", sets(&value.subscribed_topics, Clone::clone));
    for (label, text) in [
        (" and ", value.subscribed_regex.as_ref().filter(|regex| !regex.is_empty())),
        (" as ", value.instance.as_ref()),
        (" in rack ", value.rack.as_ref()),
        (" wants ", value.server_assignor.as_ref()),
    ] {
        line += &text.map(|text| format!("{label}{text}")).unwrap_or_default();
    }
    if let Some(classic) = &value.classic {
        let protocols: Vec<&str> = classic.supported_protocols.iter().map(|protocol| &*protocol.name).collect();
        line += &format!(" classic {} session {}", protocols.join("+"), classic.session_timeout_ms);
    }
    line
}

fn assignment(value: &ConsumerMemberAssignmentValue, topics: &TestTopics) -> String {
    let state = MemberState::from_code(value.state);
    let mut line = format!(
        "{state:?} epoch {} after {} holds {}",
        value.member_epoch,
        value.previous_member_epoch,
        dated(&value.assigned, topics)
    );
    if !value.pending_revocation.is_empty() {
        line += &format!(" gives up {}", dated(&value.pending_revocation, topics));
    }
    line
}

pub fn record(write: &Write, topics: &TestTopics) -> String {
    let gone = |is_gone: bool| if is_gone { "gone".to_owned() } else { String::new() };
    match Record::decode(&write.key, write.value.as_deref()).expect("what was written can be read") {
        Record::ConsumerGroup { value: None, .. } => "write group: gone".into(),
        Record::ConsumerGroup { value: Some(value), .. } => {
            let hash = if value.metadata_hash == 0 { "no topics" } else { "topics" };
            format!("write group: epoch {} {hash}", value.epoch)
        }
        Record::ConsumerMember { member: id, value, .. } => {
            format!("write member {id}: {}", value.as_ref().map_or_else(|| gone(true), member))
        }
        Record::ConsumerTarget { value, .. } => {
            let text = value.map(|value| format!("epoch {}", value.assignment_epoch));
            format!("write target: {}", text.unwrap_or_else(|| gone(true)))
        }
        Record::ConsumerMemberTarget { member, value, .. } => {
            format!("write target {member}: {}", value.map_or_else(|| gone(true), |value| lists(&value, topics)))
        }
        Record::ConsumerMemberAssignment { member, value, .. } => {
            let text = value.map_or_else(|| gone(true), |value| assignment(&value, topics));
            format!("write assignment {member}: {text}")
        }
        Record::ConsumerRegex { regex, value, .. } => {
            let text = value.map_or_else(|| gone(true), |value| sets(&value.topics, Clone::clone));
            format!("write regex {regex}: {text}")
        }
        Record::ConsumerPartitions { value, .. } => format!("write old metadata: {}", gone(value.is_none())),
        Record::ClassicGroup { value: None, .. } => "write classic group: gone".into(),
        Record::ClassicGroup { value: Some(value), .. } => {
            let members: Vec<String> = value
                .members
                .iter()
                .map(|member| format!(" [{} has {}]", member.member, assigned(&member.assignment)))
                .collect();
            format!("write classic group: generation {}{}", value.generation, members.concat())
        }
        other => format!("write {other:?}"),
    }
}

/// An assignment of the embedded protocol.
fn assigned(bytes: &[u8]) -> String {
    match embedded::read_assignment(bytes) {
        Ok(read) => sets(&read.partitions, |(topic, partitions)| format!("{topic}:{}", numbers(partitions))),
        Err(_) if bytes.is_empty() => "-".into(),
        Err(error) => error.to_string(),
    }
}

fn error(error: GroupError, message: Option<&str>) -> String {
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("error {} {error:?}{message}", error.code())
}

fn result<T>(of: &Result<T, GroupError>) -> String {
    of.as_ref().map_or_else(|refused| error(*refused, None), |_| "ok".into())
}

fn reply(answer: &Reply, topics: &TestTopics) -> Vec<String> {
    let line = match answer {
        Reply::ConsumerGroupHeartbeat(reply) => match reply.error {
            Some(refused) => error(refused, reply.error_message.as_deref()),
            None => format!(
                "{} epoch {} assignment {}",
                reply.member.as_deref().unwrap_or("none"),
                reply.member_epoch,
                reply.assignment.as_ref().map_or_else(|| "unchanged".into(), |list| lists(list, topics))
            ),
        },
        Reply::JoinGroup(reply) => match reply.error {
            Some(refused) => format!("join {}: {}", reply.member, error(refused, None)),
            None => format!(
                "join {} generation {} {}/{} leader {:?} members {}",
                reply.member,
                reply.generation,
                reply.protocol_type.as_deref().unwrap_or("none"),
                reply.protocol_name.as_deref().unwrap_or("none"),
                reply.leader,
                reply.members.len()
            ),
        },
        Reply::SyncGroup(reply) => match reply.error {
            Some(refused) => error(refused, None),
            None => format!("sync assignment {}", assigned(&reply.assignment)),
        },
        Reply::Heartbeat(reply) => result(reply),
        Reply::DeleteGroup(reply) => result(reply),
        Reply::OffsetDelete(reply) => format!("{reply:?}"),
        Reply::LeaveGroup(reply) => {
            let one = |member: &crate::group::LeftMember| {
                let text = member.error.map_or_else(|| "ok".into(), |refused| error(refused, None));
                format!("leave {}{}: {text}", member.member, member.instance.as_deref().unwrap_or_default())
            };
            return reply.members.iter().map(one).collect();
        }
        Reply::OffsetCommit(reply) => {
            let parts = reply.iter().flat_map(|topic| {
                topic.partitions.iter().map(|(partition, refused)| {
                    let text = refused.map_or_else(|| "ok".into(), |refused| error(refused, None));
                    format!("commit {}-{partition} {text}", topic.name)
                })
            });
            return parts.collect();
        }
        Reply::OffsetFetch(reply) => match reply.error {
            Some(refused) => error(refused, None),
            None => "fetch ok".into(),
        },
        Reply::ConsumerGroupDescribe(reply) => return described(reply),
        Reply::DescribeGroup(reply) => match reply.error {
            Some(refused) => error(refused, reply.error_message.as_deref()),
            None => format!("classic {} with {} members", reply.state, reply.members.len()),
        },
        Reply::ListGroups(list) => sets(list, |group| format!("{} {} {}", group.group, group.group_type, group.state)),
    };
    vec![line]
}

fn described(reply: &DescribedConsumerGroup) -> Vec<String> {
    if let Some(refused) = reply.error {
        return vec![error(refused, reply.error_message.as_deref())];
    }
    let named = |of: &[NamedPartitions]| sets(of, |set| format!("{}:{}", set.name, numbers(&set.partitions)));
    let mut lines = vec![format!(
        "{} epoch {} assignment {} by {}",
        reply.state, reply.group_epoch, reply.assignment_epoch, reply.assignor
    )];
    for member in &reply.members {
        lines.push(format!(
            "  {} epoch {} reads {}{} has {} shall have {} {}",
            member.member,
            member.member_epoch,
            sets(&member.subscribed_topics, Clone::clone),
            member
                .subscribed_regex
                .iter()
                .filter(|regex| !regex.is_empty())
                .map(|regex| format!(" and {regex}"))
                .collect::<String>(),
            named(&member.assignment),
            named(&member.target_assignment),
            if member.member_type == 0 { "classic" } else { "consumer" }
        ));
    }
    lines
}
