//! Words of a transcript's commands, and the requests that they stand for.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::TopicId;
use crate::group::tests::render::Names;
use crate::group::{
    Client, CommitPartition, CommitTopic, DeleteGroup, DescribeGroup, FetchTopic, Heartbeat, JoinGroup, LeaveGroup,
    LeavingMember, ListGroups, OffsetCommit, OffsetDelete, OffsetFetch, Producer, Protocol, Request, SyncGroup,
};

/// The words after a command: by position, or `key=value`.
pub(super) struct Words<'a> {
    positional: std::vec::IntoIter<&'a str>,
    keyed: BTreeMap<&'a str, &'a str>,
}

pub(super) fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is a number"))
}

impl<'a> Words<'a> {
    pub fn new(line: &'a str) -> Self {
        let (keyed, positional): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        let keyed = keyed.into_iter().filter_map(|word| word.split_once('=')).collect();
        Words { positional: positional.into_iter(), keyed }
    }

    pub fn next(&mut self) -> &'a str {
        self.positional.next().expect("a word is missing")
    }

    pub fn rest(&mut self) -> Vec<&'a str> {
        self.positional.by_ref().collect()
    }

    pub fn key(&self, key: &str) -> Option<&'a str> {
        self.keyed.get(key).copied()
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.key(key).map_or(default, number)
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.key(key).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    fn text(&self, key: &str) -> Option<String> {
        self.key(key).map(str::to_owned)
    }
}

/// The subscription of a consumer, version 0: its topics.
pub(super) fn subscription(topics: &str) -> Bytes {
    let mut bytes = vec![0, 0];
    let topics: Vec<&str> = topics.split('+').filter(|topic| !topic.is_empty()).collect();
    bytes.extend_from_slice(&(topics.len() as u32).to_be_bytes());
    for topic in topics {
        bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
    }
    bytes.extend_from_slice(&(-1i32).to_be_bytes());
    bytes.into()
}

fn topic_partition(word: &str) -> (String, i32) {
    let (topic, partition) = word.rsplit_once('-').expect("topic-partition");
    (topic.to_owned(), number(partition))
}

/// Groups `topic-partition` words by topic, in the order of first appearance.
fn by_topic<T>(items: Vec<(String, T)>) -> Vec<(String, Vec<T>)> {
    let mut topics: Vec<(String, Vec<T>)> = vec![];
    for (topic, item) in items {
        match topics.iter_mut().find(|(name, _)| *name == topic) {
            Some((_, items)) => items.push(item),
            None => topics.push((topic, vec![item])),
        }
    }
    topics
}

/// The request of a command; `None` if it is none.
pub(super) fn request(command: &str, words: &mut Words<'_>, names: &Names) -> Option<Request> {
    let member = words.key("member").map(|name| names.long(name)).unwrap_or_default();
    let instance = words.text("instance");
    let generation = words.number("generation", -1);
    Some(match command {
        "join" => Request::JoinGroup(join(words, member, instance)),
        "sync" => {
            let assigned = words.list("assign");
            let assigned = assigned.iter().filter_map(|pair| pair.split_once(':'));
            Request::SyncGroup(SyncGroup {
                group: words.next().to_owned(),
                generation,
                member,
                instance,
                protocol_type: words.text("type"),
                protocol_name: words.text("protocol"),
                assignments: assigned
                    .map(|(who, what)| (names.long(who), Bytes::copy_from_slice(what.as_bytes())))
                    .collect(),
            })
        }
        "heartbeat" => Request::Heartbeat(Heartbeat { group: words.next().to_owned(), generation, member, instance }),
        "leave" => {
            let group = words.next().to_owned();
            let leaving = words.rest().into_iter().map(|word| {
                let (member, instance) = word.split_once('/').unwrap_or((word, ""));
                let member = if member == "-" { String::new() } else { names.long(member) };
                LeavingMember { member, instance: (!instance.is_empty()).then(|| instance.to_owned()), reason: None }
            });
            Request::LeaveGroup(LeaveGroup { group, members: leaving.collect() })
        }
        "commit" => Request::OffsetCommit(commit(words, member, instance, generation)),
        "fetch" => {
            let group = words.next().to_owned();
            let topics = by_topic(words.rest().into_iter().map(topic_partition).collect());
            let topic = |(name, partitions)| FetchTopic { name, id: TopicId::default(), partitions };
            Request::OffsetFetch(OffsetFetch {
                group,
                member: None,
                member_epoch: -1,
                topics: (!topics.is_empty()).then(|| topics.into_iter().map(topic).collect()),
                require_stable: words.key("stable").is_some(),
            })
        }
        "delete-offsets" => {
            let group = words.next().to_owned();
            let topics = by_topic(words.rest().into_iter().map(topic_partition).collect());
            Request::OffsetDelete(OffsetDelete { group, topics })
        }
        "delete-group" => Request::DeleteGroup(DeleteGroup { group: words.next().to_owned() }),
        "describe" => Request::DescribeGroup(DescribeGroup {
            version: words.number("version", 6),
            group: words.next().to_owned(),
        }),
        "list" => Request::ListGroups(ListGroups { states: words.list("states"), types: words.list("types") }),
        _ => return None,
    })
}

fn join(words: &mut Words<'_>, member: String, instance: Option<String>) -> JoinGroup {
    let protocol_type = words.text("type").unwrap_or_else(|| "consumer".to_owned());
    let protocols = words.text("protocols").unwrap_or_else(|| "range:t".to_owned());
    let protocols = protocols.split(',').filter_map(|protocol| protocol.split_once(':')).map(|(name, topics)| {
        let metadata = if protocol_type == "consumer" { subscription(topics) } else { topics.to_owned().into() };
        Protocol { name: name.to_owned(), metadata }
    });
    let protocols = protocols.collect();
    let session_timeout_ms = words.number("session", 10_000);
    JoinGroup {
        version: words.number("version", 9),
        client: Client { id: words.text("client").unwrap_or_else(|| "c".to_owned()), host: "/127.0.0.1".to_owned() },
        session_timeout_ms,
        rebalance_timeout_ms: words.number("rebalance", 60_000),
        group: words.next().trim_matches('-').to_owned(),
        member,
        instance,
        protocol_type,
        protocols,
        reason: None,
    }
}

/// `topic-partition:offset[:epoch[:metadata]]`
fn commit(words: &mut Words<'_>, member: String, instance: Option<String>, generation: i32) -> OffsetCommit {
    let group = words.next().to_owned();
    let partition = |word: &str| {
        let mut parts = word.split(':');
        let (topic, partition) = topic_partition(parts.next().expect("a partition"));
        let offset = number(parts.next().expect("an offset"));
        let leader_epoch = parts.next().filter(|epoch| !epoch.is_empty()).map_or(-1, number);
        (topic, CommitPartition { partition, offset, leader_epoch, metadata: parts.next().map(str::to_owned) })
    };
    let topics = by_topic(words.rest().into_iter().map(partition).collect());
    OffsetCommit {
        version: words.number("version", 9),
        group,
        generation_or_epoch: generation,
        member,
        instance,
        retention_ms: words.key("retention").map(number),
        transactional: words.key("producer").map(|id| Producer { id: number(id), epoch: 0 }),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| CommitTopic { name, id: TopicId::default(), partitions })
            .collect(),
    }
}
