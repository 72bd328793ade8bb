//! Effects as lines of text, with short names for member ids.

use std::collections::BTreeMap;

use crate::group::records::{ClassicGroupValue, OffsetValue, Record};
use crate::group::{Effects, GroupError, JoinGroupReply, OffsetFetchReply, Reply, SyncGroupReply, Write};

/// Member ids with their short names, in the order of appearance.
#[derive(Default)]
pub(super) struct Names {
    short: BTreeMap<String, String>,
}

impl Names {
    /// `A`, `B`… for a member id that the coordinator made; another id is left as it is.
    pub fn short(&mut self, id: &str) -> String {
        if id.len() < 37 {
            return if id.is_empty() { "-".into() } else { id.into() };
        }
        let next = char::from(b'A' + u8::try_from(self.short.len() % 26).expect("below 26"));
        self.short.entry(id.to_owned()).or_insert(next.to_string()).clone()
    }

    pub fn long(&self, name: &str) -> String {
        let found = self.short.iter().find(|(_, short)| *short == name).map(|(id, _)| id.clone());
        found.unwrap_or_else(|| name.to_owned())
    }
}

pub(super) fn error(error: Option<GroupError>) -> String {
    error.map_or_else(|| "ok".to_owned(), |error| format!("error {} {error:?}", error.code()))
}

fn text(bytes: &[u8]) -> String {
    // The subscription of a consumer, as the scripts make it, shows its topics.
    match bytes {
        [0, 0, 0, 0, 0, _, topics @ .., 0xff, 0xff, 0xff, 0xff] => {
            let names = topics.split(|byte| *byte < b' ').filter(|name| !name.is_empty());
            names.map(String::from_utf8_lossy).collect::<Vec<_>>().join("+")
        }
        [] => "nothing".to_owned(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

pub(super) fn effects(effects: &Effects<Reply>, names: &mut Names) -> Vec<String> {
    let mut lines = vec![];
    let kind = match effects.transactional {
        Some(producer) => format!("in transaction of {}/{} ", producer.id, producer.epoch),
        None => String::new(),
    };
    lines.extend(effects.records.iter().map(|write| format!("{kind}{}", record(write, names))));
    for (token, reply) in &effects.replies {
        lines.extend(self::reply(reply, names).into_iter().map(|line| format!("#{} {line}", token.0)));
    }
    lines
}

fn record(write: &Write, names: &mut Names) -> String {
    match Record::decode(&write.key, write.value.as_deref()).expect("what was written can be read") {
        Record::Offset { group, topic, partition, value } => match value {
            None => format!("write offset {group} {topic}-{partition}: gone"),
            Some(value) => format!("write offset {group} {topic}-{partition}: {}", offset(&value)),
        },
        Record::ClassicGroup { group, value: None } => format!("write group {group}: gone"),
        Record::ClassicGroup { group, value: Some(value) } => {
            format!("write group {group}: {}", self::group(&value, names))
        }
        other => format!("write {other:?}"),
    }
}

fn offset(value: &OffsetValue) -> String {
    let mut line = format!("{} at {}", value.offset, value.commit_timestamp);
    if value.leader_epoch != -1 {
        line += &format!(" epoch {}", value.leader_epoch);
    }
    if value.expire_timestamp != -1 {
        line += &format!(" until {}", value.expire_timestamp);
    }
    if !value.metadata.is_empty() {
        line += &format!(" {:?}", value.metadata);
    }
    line
}

fn group(value: &ClassicGroupValue, names: &mut Names) -> String {
    let mut line = format!("generation {} since {}", value.generation, value.current_state_timestamp);
    if !value.protocol_type.is_empty() {
        line += &format!(" {}/{}", value.protocol_type, value.protocol.as_deref().unwrap_or("none"));
    }
    if let Some(leader) = &value.leader {
        line += &format!(" led by {}", names.short(leader));
    }
    for member in &value.members {
        let instance = member.instance.as_deref().map(|instance| format!("({instance})")).unwrap_or_default();
        let (subscription, assignment) = (text(&member.subscription), text(&member.assignment));
        line += &format!(" [{}{instance} wants {subscription} has {assignment}]", names.short(&member.member));
    }
    line
}

fn join(r: &JoinGroupReply, names: &mut Names) -> String {
    if r.error.is_some() {
        return format!("join {}: {}", names.short(&r.member), error(r.error));
    }
    let mut line = format!("join {}: generation {}", names.short(&r.member), r.generation);
    let none = || "none".to_owned();
    line +=
        &format!(" {}/{}", r.protocol_type.clone().unwrap_or_else(none), r.protocol_name.clone().unwrap_or_else(none));
    line += &format!(" led by {}", names.short(&r.leader));
    for member in r.members.iter() {
        let instance = member.instance.as_deref().map(|instance| format!("({instance})")).unwrap_or_default();
        line += &format!(" [{}{instance} {}]", names.short(&member.member), text(&member.metadata));
    }
    if r.skip_assignment {
        line += " skip assignment";
    }
    line
}

fn sync(r: &SyncGroupReply) -> String {
    match (r.error, &r.protocol_type, &r.protocol_name) {
        (Some(_), _, _) => format!("sync: {}", error(r.error)),
        (None, of, name) => {
            let (of, name) = (of.as_deref().unwrap_or("none"), name.as_deref().unwrap_or("none"));
            format!("sync: {of}/{name} has {}", text(&r.assignment))
        }
    }
}

fn fetch(r: &OffsetFetchReply) -> Vec<String> {
    let mut lines = vec![];
    if r.error.is_some() || r.topics.is_empty() {
        lines.push(format!("fetch {}: {}", r.group, error(r.error)));
    }
    for topic in &r.topics {
        for p in &topic.partitions {
            let mut line = format!("fetch {} {}-{}: {}", r.group, topic.name, p.partition, p.offset);
            if p.leader_epoch != -1 {
                line += &format!(" epoch {}", p.leader_epoch);
            }
            if !p.metadata.is_empty() {
                line += &format!(" {:?}", p.metadata);
            }
            if p.error.is_some() {
                line += &format!(" {}", error(p.error));
            }
            lines.push(line);
        }
    }
    lines
}

fn reply(reply: &Reply, names: &mut Names) -> Vec<String> {
    match reply {
        Reply::JoinGroup(r) => vec![join(r, names)],
        Reply::SyncGroup(r) => vec![sync(r)],
        Reply::Heartbeat(r) => vec![format!("heartbeat: {}", error(r.err()))],
        Reply::LeaveGroup(r) => {
            let mut lines: Vec<String> = r.error.iter().map(|e| format!("leave: {}", error(Some(*e)))).collect();
            for left in &r.members {
                let instance = left.instance.as_deref().map(|i| format!("({i})")).unwrap_or_default();
                lines.push(format!("leave {}{instance}: {}", names.short(&left.member), error(left.error)));
            }
            lines
        }
        Reply::OffsetCommit(topics) => {
            let all = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |(p, e)| (&topic.name, p, e)));
            all.map(|(topic, partition, e)| format!("commit {topic}-{partition}: {}", error(*e))).collect()
        }
        Reply::OffsetFetch(r) => fetch(r),
        Reply::OffsetDelete(Err(e)) => vec![format!("delete offsets: {}", error(Some(*e)))],
        Reply::OffsetDelete(Ok(topics)) => {
            let all = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |(p, e)| (&topic.name, p, e)));
            all.map(|(topic, partition, e)| format!("delete {topic}-{partition}: {}", error(*e))).collect()
        }
        Reply::DescribeGroup(r) => {
            let mut lines = vec![format!(
                "describe {}: {} {} {}/{}{}",
                r.group,
                error(r.error),
                r.state,
                r.protocol_type,
                r.protocol,
                r.error_message.as_deref().map(|message| format!(" {message:?}")).unwrap_or_default()
            )];
            for m in &r.members {
                let instance = m.instance.as_deref().map(|i| format!("({i})")).unwrap_or_default();
                let (who, metadata, assignment) = (names.short(&m.member), text(&m.metadata), text(&m.assignment));
                lines.push(format!(
                    "  {who}{instance} {}@{} wants {metadata} has {assignment}",
                    m.client_id, m.client_host
                ));
            }
            lines
        }
        Reply::ListGroups(groups) => {
            let line = |g: &crate::group::ListedGroup| {
                format!("list {}: {} {} {:?}", g.group, g.state, g.group_type, g.protocol_type)
            };
            groups.iter().map(line).collect()
        }
        Reply::DeleteGroup(r) => vec![format!("delete group: {}", error(r.err()))],
        other => vec![format!("{other:?}")],
    }
}
