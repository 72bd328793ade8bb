//! Lines of a transcript as requests.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::TopicId;
use crate::group::consumer::embedded::{write_assignment, write_subscription};
use crate::group::consumer::tests::world::TestTopics;
use crate::group::request::TopicPartitions;
use crate::group::{
    Client, CommitPartition, CommitTopic, ConsumerGroupDescribe, ConsumerGroupHeartbeat, DeleteGroup, DescribeGroup,
    FetchTopic, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, ListGroups, OffsetCommit, OffsetDelete, OffsetFetch,
    Protocol, Request, SyncGroup, Topics,
};

/// A line of words and `key=value`.
pub struct Line<'a> {
    pub words: Vec<&'a str>,
    keys: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    pub fn parse(line: &'a str) -> Self {
        let (mut words, mut keys) = (vec![], BTreeMap::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => _ = keys.insert(key, value),
                None => words.push(word),
            }
        }
        Line { words, keys }
    }

    pub fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or_default()
    }

    /// `-` is the empty text.
    pub fn text(&self, key: &str) -> Option<String> {
        self.keys.get(key).map(|text| if *text == "-" { String::new() } else { (*text).to_owned() })
    }

    pub fn number(&self, key: &str) -> Option<i32> {
        self.keys.get(key).map(|text| text.parse().unwrap_or_else(|_| panic!("{key}={text}")))
    }

    /// `a,b`; `-` is the empty list.
    fn list(&self, key: &str) -> Option<Vec<String>> {
        self.text(key).map(|text| text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect())
    }

    /// `t:0+1,u:2`.
    fn sets(&self, key: &str) -> Option<Vec<(String, Vec<i32>)>> {
        let set = |text: &String| {
            let (name, numbers) = text.split_once(':').expect("topic:partitions");
            (name.to_owned(), numbers.split('+').map(|number| number.parse().expect("a partition")).collect())
        };
        self.list(key).map(|list| list.iter().map(set).collect())
    }

    /// `member/t:0+1,other/t:2`; a `!` at the end adds user data.
    fn assignments(&self) -> Vec<(String, Bytes)> {
        let one = |text: &String| {
            let (text, has_user_data) = (text.trim_end_matches('!'), text.ends_with('!'));
            let (member, set) = text.split_once('/').expect("member/topic:partitions");
            let (topic, numbers) = set.split_once(':').expect("topic:partitions");
            let partitions = numbers.split('+').map(|number| number.parse().expect("a partition")).collect();
            let mut bytes = write_assignment(3, &[(topic, partitions)]).to_vec();
            if has_user_data {
                bytes.truncate(bytes.len() - 4);
                bytes.extend_from_slice(&[0, 0, 0, 1, 9]);
            }
            (member.to_owned(), Bytes::from(bytes))
        };
        self.list("assign").unwrap_or_default().iter().map(one).collect()
    }

    pub fn request(&self, topics: &TestTopics) -> Option<Request> {
        let group = self.word(1).to_owned();
        let member = self.word(2).to_owned();
        let epoch = || self.word(3).parse().unwrap_or_else(|_| panic!("epoch in {:?}", self.words));
        Some(match self.word(0) {
            "beat" => self.beat(topics, epoch()),
            "join" => self.join(),
            "sync" => Request::SyncGroup(SyncGroup {
                group,
                generation: epoch(),
                member,
                instance: self.text("instance"),
                protocol_type: self.text("type"),
                protocol_name: self.text("protocol"),
                assignments: self.assignments(),
            }),
            "heartbeat" => {
                Request::Heartbeat(Heartbeat { group, generation: epoch(), member, instance: self.text("instance") })
            }
            "leave" => Request::LeaveGroup(LeaveGroup {
                group,
                members: self.words[2..]
                    .iter()
                    .map(|word| match word.split_once('/') {
                        Some((member, instance)) => (member.to_owned(), Some(instance.to_owned())),
                        None => ((*word).to_owned(), None),
                    })
                    .map(|(member, instance)| (if member == "-" { String::new() } else { member }, instance))
                    .map(|(member, instance)| LeavingMember { member, instance, reason: None })
                    .collect(),
            }),
            "commit" => self.commit(epoch()),
            "fetch" => Request::OffsetFetch(OffsetFetch {
                group,
                member: (member != "-").then_some(member),
                member_epoch: epoch(),
                topics: Some(vec![FetchTopic { name: "t".into(), id: TopicId::default(), partitions: vec![0] }]),
                require_stable: false,
            }),
            "describe" => Request::ConsumerGroupDescribe(ConsumerGroupDescribe { group }),
            "describe-classic" => Request::DescribeGroup(DescribeGroup { version: 6, group }),
            "delete" => Request::DeleteGroup(DeleteGroup { group }),
            "delete-offsets" => {
                Request::OffsetDelete(OffsetDelete { group, topics: vec![(self.word(2).to_owned(), vec![0])] })
            }
            "list" => Request::ListGroups(ListGroups::default()),
            _ => return None,
        })
    }

    fn client(&self) -> Client {
        Client { id: "c".into(), host: "/127.0.0.1".into() }
    }

    /// A join says everything unless told otherwise; a later heartbeat only what is given.
    fn beat(&self, topics: &TestTopics, epoch: i32) -> Request {
        let says_nothing = self.text("owned").as_deref() == Some("none");
        let owned = if says_nothing { None } else { self.sets("owned").or_else(|| (epoch == 0).then(Vec::new)) };
        let by_id = |sets: Vec<(String, Vec<i32>)>| {
            sets.into_iter()
                .map(|(name, partitions)| TopicPartitions {
                    topic: topics.id(&name).unwrap_or(TopicId([0xff; 16])),
                    partitions,
                })
                .collect()
        };
        Request::ConsumerGroupHeartbeat(ConsumerGroupHeartbeat {
            version: self.number("version").unwrap_or(1) as i16,
            client: self.client(),
            group: self.word(1).to_owned(),
            member: if self.word(2) == "-" { String::new() } else { self.word(2).to_owned() },
            member_epoch: epoch,
            instance: self.text("instance"),
            rack: self.text("rack"),
            rebalance_timeout_ms: self.number("timeout").unwrap_or(if epoch == 0 { 300_000 } else { -1 }),
            subscribed_topics: self.list("topics"),
            subscribed_regex: self.text("regex"),
            server_assignor: self.text("assignor"),
            owned: owned.map(by_id),
        })
    }

    fn join(&self) -> Request {
        let topics = self.list("topics").unwrap_or_default();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let owned = if self.text("owned").as_deref() == Some("none") { None } else { self.sets("owned") };
        let owned = owned.unwrap_or_default();
        let owned: Vec<(&str, &[i32])> = owned.iter().map(|(name, set)| (name.as_str(), &set[..])).collect();
        let metadata = match self.text("metadata") {
            Some(text) => Bytes::from(text),
            None => write_subscription(3, &names, &owned, self.text("rack").as_deref()),
        };
        let protocols = self.list("protocols").unwrap_or_else(|| vec!["range".into()]);
        let protocol = |name: String| Protocol { name, metadata: metadata.clone() };
        let session_timeout_ms = self.number("session").unwrap_or(10_000);
        Request::JoinGroup(JoinGroup {
            version: self.number("version").unwrap_or(9) as i16,
            client: self.client(),
            group: self.word(1).to_owned(),
            session_timeout_ms,
            rebalance_timeout_ms: self.number("timeout").unwrap_or(60_000),
            member: if self.word(2) == "-" { String::new() } else { self.word(2).to_owned() },
            instance: self.text("instance"),
            protocol_type: self.text("type").unwrap_or_else(|| "consumer".into()),
            protocols: protocols.into_iter().map(protocol).collect(),
            reason: None,
        })
    }

    fn commit(&self, epoch: i32) -> Request {
        let (topic, partition) = self.word(4).split_once('-').expect("topic-partition");
        let partition = CommitPartition {
            partition: partition.parse().expect("a partition"),
            offset: 5,
            leader_epoch: -1,
            metadata: None,
        };
        let topics = vec![CommitTopic { name: topic.into(), id: TopicId::default(), partitions: vec![partition] }];
        Request::OffsetCommit(OffsetCommit {
            version: self.number("version").unwrap_or(9) as i16,
            group: self.word(1).to_owned(),
            generation_or_epoch: epoch,
            member: if self.word(2) == "-" { String::new() } else { self.word(2).to_owned() },
            instance: None,
            retention_ms: None,
            transactional: None,
            topics,
        })
    }
}
