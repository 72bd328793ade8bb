//! Clients that follow the protocols: whatever joins, leaves and changes, no two ever own a partition at once, and
//! when nothing changes any more everybody has its share.

use std::collections::{BTreeMap, BTreeSet};

use crate::env::SeededEntropy;
use crate::group::consumer::embedded::{read_assignment, write_subscription};
use crate::group::consumer::tests::world::World;
use crate::group::coordinator::Group;
use crate::group::request::TopicPartitions;
use crate::group::{
    Client, ConsumerGroupHeartbeat, GroupError, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, Options, Protocol,
    Reply, Request, SyncGroup, Topics,
};

type Owned = BTreeSet<(String, i32)>;

/// A consumer as librdkafka's or Java's: it owns what it was given, until it was told to give it up and did.
struct Consumer {
    id: String,
    classic: bool,
    instance: Option<String>,
    topics: Vec<String>,
    regex: Option<String>,
    /// Epoch or generation.
    epoch: i32,
    owned: Owned,
    /// What it has yet to give up, and does with its next request.
    target: Owned,
    /// A classic member has to join again.
    rejoins: bool,
}

struct Town {
    world: World,
    dice: SeededEntropy,
    consumers: Vec<Consumer>,
    born: u32,
}

impl Town {
    fn new(seed: u64, options: Options) -> Self {
        let mut world = World::new(options, seed);
        world.topics.set("t", 5);
        world.topics.set("u", 3);
        Town { world, dice: SeededEntropy::new(seed), consumers: vec![], born: 0 }
    }

    fn below(&self, bound: usize) -> usize {
        self.dice.below(bound as u64) as usize
    }

    fn some_topics(&self) -> Vec<String> {
        ["t", "u", "v"].iter().filter(|_| self.dice.one_in(2)).map(|name| (*name).to_owned()).collect()
    }

    fn spawn(&mut self, classic: bool) {
        self.born += 1;
        let topics = self.some_topics();
        let regex = (!classic && self.dice.one_in(5)).then(|| "[tu]".to_owned());
        self.consumers.push(Consumer {
            id: if classic { String::new() } else { format!("m{}", self.born) },
            classic,
            instance: self.dice.one_in(4).then(|| format!("i{}", self.born)),
            topics,
            regex,
            epoch: 0,
            owned: Owned::new(),
            target: Owned::new(),
            rejoins: true,
        });
    }

    /// Nobody else owns what one is given.
    fn take(&mut self, at: usize, target: Owned) {
        for (index, other) in self.consumers.iter().enumerate() {
            let both: Vec<_> = other.owned.intersection(&target).collect();
            assert!(index == at || both.is_empty(), "{} and {} own {both:?}", other.id, self.consumers[at].id);
        }
        let consumer = &mut self.consumers[at];
        let given_up: Vec<_> = consumer.owned.difference(&target).cloned().collect();
        // What it is to give up it owns until its next request.
        consumer.owned = target.iter().cloned().chain(given_up).collect();
        consumer.target = target;
    }

    fn by_id(&self, owned: &Owned) -> Vec<TopicPartitions> {
        let mut sets: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        owned.iter().for_each(|(topic, partition)| sets.entry(topic).or_default().push(*partition));
        let known = sets.into_iter().filter_map(|(name, partitions)| Some((self.world.topics.id(name)?, partitions)));
        known.map(|(topic, partitions)| TopicPartitions { topic, partitions }).collect()
    }

    fn by_name(&self, lists: &[TopicPartitions]) -> Owned {
        let named = |list: &TopicPartitions| self.world.topics.name(list.topic).map(str::to_owned);
        lists
            .iter()
            .filter_map(|list| Some((named(list)?, &list.partitions)))
            .flat_map(|(name, partitions)| partitions.iter().map(move |partition| (name.clone(), *partition)))
            .collect()
    }

    fn step(&mut self, at: usize) {
        let consumer = &mut self.consumers[at];
        consumer.owned = consumer.target.clone();
        if self.consumers[at].classic { self.step_classic(at) } else { self.step_consumer(at) }
    }

    fn step_consumer(&mut self, at: usize) {
        let owned = self.by_id(&self.consumers[at].owned);
        let consumer = &self.consumers[at];
        let joins = consumer.epoch == 0;
        let request = ConsumerGroupHeartbeat {
            version: 1,
            client: Client { id: "c".into(), host: "/127.0.0.1".into() },
            group: "g".into(),
            member: consumer.id.clone(),
            member_epoch: consumer.epoch,
            instance: consumer.instance.clone(),
            rack: None,
            rebalance_timeout_ms: if joins { 30_000 } else { -1 },
            subscribed_topics: Some(consumer.topics.clone()),
            subscribed_regex: Some(consumer.regex.clone().unwrap_or_default()),
            server_assignor: None,
            owned: Some(if joins { vec![] } else { owned }),
        };
        let Reply::ConsumerGroupHeartbeat(reply) = self.world.ask(Request::ConsumerGroupHeartbeat(request)) else {
            panic!("another kind of reply")
        };
        match reply.error {
            None => {
                self.consumers[at].epoch = reply.member_epoch;
                // The answer may be lost on its way.
                if let Some(lists) = &reply.assignment {
                    let target = self.by_name(lists);
                    self.take(at, target);
                }
            }
            Some(GroupError::FencedMemberEpoch | GroupError::UnknownMemberId | GroupError::GroupIdNotFound) => {
                let consumer = &mut self.consumers[at];
                consumer.epoch = 0;
                (consumer.owned, consumer.target) = (Owned::new(), Owned::new());
            }
            Some(GroupError::UnreleasedInstanceId) => {}
            Some(error) => panic!("{error:?} {:?}", reply.error_message),
        }
    }

    fn step_classic(&mut self, at: usize) {
        if self.consumers[at].rejoins {
            return self.join_classic(at);
        }
        let consumer = &self.consumers[at];
        let request = Heartbeat {
            group: "g".into(),
            generation: consumer.epoch,
            member: consumer.id.clone(),
            instance: consumer.instance.clone(),
        };
        let Reply::Heartbeat(reply) = self.world.ask(Request::Heartbeat(request)) else { panic!("another reply") };
        match reply {
            Ok(()) => {}
            Err(GroupError::RebalanceInProgress) => self.consumers[at].rejoins = true,
            Err(_) => self.restart_classic(at),
        }
    }

    fn restart_classic(&mut self, at: usize) {
        let consumer = &mut self.consumers[at];
        consumer.rejoins = true;
        consumer.id = String::new();
        (consumer.owned, consumer.target) = (Owned::new(), Owned::new());
    }

    fn join_classic(&mut self, at: usize) {
        // A classic group is another protocol, tested elsewhere: here only consumer groups are joined.
        if !matches!(self.world.coordinator.groups.get("g"), Some(Group::Consumer(group)) if !group.is_empty()) {
            return;
        }
        let consumer = &self.consumers[at];
        let mut sets: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        consumer.owned.iter().for_each(|(topic, partition)| sets.entry(topic).or_default().push(*partition));
        let owned: Vec<(&str, &[i32])> = sets.iter().map(|(topic, set)| (*topic, &set[..])).collect();
        let topics: Vec<&str> = consumer.topics.iter().map(String::as_str).collect();
        let request = JoinGroup {
            version: 3,
            client: Client { id: "c".into(), host: "/127.0.0.1".into() },
            group: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            member: consumer.id.clone(),
            instance: consumer.instance.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "cooperative-sticky".into(),
                metadata: write_subscription(3, &topics, &owned, None),
            }],
            reason: None,
        };
        let Reply::JoinGroup(reply) = self.world.ask(Request::JoinGroup(request)) else { panic!("another reply") };
        if reply.error.is_some() {
            return self.restart_classic(at);
        }
        let consumer = &mut self.consumers[at];
        (consumer.id, consumer.epoch, consumer.rejoins) = (reply.member, reply.generation, false);
        let request = SyncGroup {
            group: "g".into(),
            generation: consumer.epoch,
            member: consumer.id.clone(),
            instance: consumer.instance.clone(),
            protocol_type: None,
            protocol_name: None,
            assignments: vec![],
        };
        let Some(Group::Consumer(_)) = self.world.coordinator.groups.get("g") else { return self.restart_classic(at) };
        let Reply::SyncGroup(reply) = self.world.ask(Request::SyncGroup(request)) else { panic!("another reply") };
        match reply.error {
            None => {
                let read = read_assignment(&reply.assignment).expect("an assignment");
                let parts = read.partitions.into_iter();
                let target = parts.flat_map(|(topic, set)| set.into_iter().map(move |p| (topic.clone(), p))).collect();
                self.take(at, target);
            }
            Some(GroupError::RebalanceInProgress) => self.consumers[at].rejoins = true,
            Some(_) => self.restart_classic(at),
        }
    }

    fn leave(&mut self, at: usize) {
        let consumer = self.consumers.swap_remove(at);
        if self.dice.one_in(4) {
            return; // It crashes: its session ends.
        }
        if consumer.classic {
            let leaving = LeavingMember { member: consumer.id, instance: consumer.instance, reason: None };
            self.world.ask(Request::LeaveGroup(LeaveGroup { group: "g".into(), members: vec![leaving] }));
            return;
        }
        let is_static = consumer.instance.is_some() && self.dice.one_in(2);
        let request = ConsumerGroupHeartbeat {
            version: 1,
            client: Client::default(),
            group: "g".into(),
            member: consumer.id.clone(),
            member_epoch: if is_static { -2 } else { -1 },
            instance: consumer.instance.clone(),
            rack: None,
            rebalance_timeout_ms: -1,
            subscribed_topics: None,
            subscribed_regex: None,
            server_assignor: None,
            owned: None,
        };
        self.world.ask(Request::ConsumerGroupHeartbeat(request));
        if is_static && self.dice.one_in(2) {
            self.born += 1;
            self.consumers.push(Consumer {
                id: format!("m{}", self.born),
                epoch: 0,
                owned: Owned::new(),
                target: Owned::new(),
                ..consumer
            });
        }
    }

    /// A client that the coordinator has given up on stops reading when it hears of it, at the latest before its
    /// session would end on its own side.
    fn forget_fenced(&mut self) {
        let known: BTreeSet<String> = match self.world.coordinator.groups.get("g") {
            Some(Group::Consumer(group)) => group.members.keys().cloned().collect(),
            Some(Group::Classic(group)) => group.members.keys().map(|id| id.to_string()).collect(),
            None => BTreeSet::new(),
        };
        for consumer in &mut self.consumers {
            if !known.contains(&consumer.id) {
                (consumer.owned, consumer.target) = (Owned::new(), Owned::new());
                (consumer.epoch, consumer.rejoins) = (0, true);
            }
        }
    }

    fn anything(&mut self, mixed: bool) {
        match self.below(20) {
            0 if self.consumers.len() < 8 => {
                let classic = mixed && self.dice.one_in(2);
                self.spawn(classic);
            }
            1 if !self.consumers.is_empty() && self.dice.one_in(2) => {
                let at = self.below(self.consumers.len());
                // One consumer stays, so that the group stays what it is.
                if self.consumers[at].classic || self.consumers.iter().filter(|one| !one.classic).count() > 1 {
                    self.leave(at);
                }
            }
            2 if !self.consumers.is_empty() => {
                let at = self.below(self.consumers.len());
                self.consumers[at].topics = self.some_topics();
                self.consumers[at].rejoins = true;
            }
            3 if self.dice.one_in(3) => {
                let count = 1 + self.below(6) as i32;
                let name = ["t", "u", "v"][self.below(3)];
                let now = self.world.topics.id(name).and_then(|id| self.world.topics.partitions(id)).unwrap_or(0);
                if count > now {
                    self.world.topics.set(name, count);
                }
            }
            4 if self.dice.one_in(6) => {
                self.world.restart();
            }
            5 | 6 => {
                let ms = self.dice.below(3_000);
                self.world.wait(ms);
                self.forget_fenced();
            }
            _ if !self.consumers.is_empty() => {
                let at = self.below(self.consumers.len());
                self.step(at);
            }
            _ => {}
        }
    }

    /// Everybody goes on until nothing changes: then every partition that somebody reads is owned once.
    fn settle(&mut self) {
        for _ in 0..60 {
            for at in 0..self.consumers.len() {
                self.step(at);
            }
            self.world.wait(2_000);
            self.forget_fenced();
        }
        let Some((_, group)) = self.world.consumer_groups().next() else { return };
        assert_eq!(group.state(), "Stable", "{:#?}", group.members);
        let mut wanted = Owned::new();
        for (name, _, count) in self.world.topics.all() {
            let reads = |consumer: &Consumer| {
                let matches = consumer.regex.is_some() && ["t", "u"].contains(&name);
                matches || consumer.topics.iter().any(|topic| topic == name)
            };
            if self.consumers.iter().any(reads) {
                wanted.extend((0..count).map(|partition| (name.to_owned(), partition)));
            }
        }
        let owned: Owned = self.consumers.iter().flat_map(|consumer| consumer.owned.iter().cloned()).collect();
        assert_eq!(owned, wanted);
        let total: usize = self.consumers.iter().map(|consumer| consumer.owned.len()).sum();
        assert_eq!(total, wanted.len(), "each once");
    }
}

fn play(seeds: std::ops::Range<u64>, mixed: bool) {
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut town = Town::new(seed, Options { consumer_session_timeout_ms: 30_000, ..Options::default() });
            town.spawn(false);
            town.step(0);
            for _ in 0..3 {
                for _ in 0..150 {
                    town.anything(mixed);
                }
                town.world.check_replay();
                town.settle();
            }
            town.world.check_replay();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn consumers_never_own_a_partition_together_and_settle() {
    play(0..120, false);
}

#[test]
fn consumers_and_classic_members_never_own_a_partition_together_and_settle() {
    play(1_000..1_120, true);
}
