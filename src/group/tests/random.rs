//! Random runs: whatever is asked in whatever order, nothing panics, every request is answered once, no deadline is
//! missed, and a coordinator that is loaded from what was written is in the same state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::TopicId;
use crate::env::SeededEntropy;
use crate::group::classic::{ClassicGroup, State};
use crate::group::coordinator::Group;
use crate::group::tests::script::subscription;
use crate::group::tests::{AnyTopic, topic_id};
use crate::group::{
    Client, CommitPartition, CommitTopic, Coordinator, DeleteGroup, DescribeGroup, Effects, FetchTopic, Heartbeat,
    JoinGroup, LeaveGroup, LeavingMember, ListGroups, Now, OffsetCommit, OffsetDelete, OffsetFetch, Options, Producer,
    Protocol, Reply, Request, SyncGroup, Token, Write,
};

enum Logged {
    Record(Write, Option<Producer>),
    Marker(i64, bool),
}

struct Run {
    dice: SeededEntropy,
    coordinator: Coordinator,
    options: Options,
    log: Vec<Logged>,
    now_ms: u64,
    waiting: BTreeSet<u64>,
    requests: u64,
    /// Member ids that replies have named.
    members: Vec<String>,
    generation: i32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let options = Options {
            max_size: 6,
            initial_rebalance_delay_ms: 500,
            offsets_retention_ms: 60_000,
            offsets_retention_check_interval_ms: 10_000,
            ..Options::default()
        };
        let mut run = Run {
            dice: SeededEntropy::new(seed),
            coordinator: Coordinator::new(options.clone(), Arc::new(SeededEntropy::new(seed))),
            options,
            log: vec![],
            now_ms: 1_000,
            waiting: BTreeSet::new(),
            requests: 0,
            members: vec![String::new()],
            generation: 0,
        };
        run.coordinator.loaded(run.now(), &AnyTopic);
        run
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms as i64, monotonic: Duration::from_millis(self.now_ms) }
    }

    fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.dice.below(of.len() as u64)).expect("small")]
    }

    fn group(&self) -> String {
        (*self.pick(&["g", "g", "g", "h", "", "x"])).to_owned()
    }

    fn member(&self) -> String {
        self.pick(&self.members).clone()
    }

    fn instance(&self) -> Option<String> {
        self.pick(&[None, None, None, Some("i"), Some("j")]).map(str::to_owned)
    }

    fn generation(&self) -> i32 {
        *self.pick(&[self.generation, self.generation, self.generation, -1, 0, self.generation + 1])
    }

    fn topic(&self) -> String {
        (*self.pick(&["t", "u", "v"])).to_owned()
    }

    fn join(&self) -> Request {
        let protocols = self.pick(&["range", "range,sticky", "sticky,range", "odd", ""]).split(',');
        let protocol = |name: &str| Protocol { name: name.to_owned(), metadata: subscription(&self.topic()) };
        Request::JoinGroup(JoinGroup {
            version: *self.pick(&[3, 5, 9]),
            client: Client { id: "c".to_owned(), host: "/127.0.0.1".to_owned() },
            group: self.group(),
            session_timeout_ms: *self.pick(&[6_000, 10_000, 10_000, 5]),
            rebalance_timeout_ms: *self.pick(&[20_000, 3_000, 0, -7]),
            member: self.member(),
            instance: self.instance(),
            protocol_type: (*self.pick(&["consumer", "consumer", "consumer", "connect", ""])).to_owned(),
            protocols: protocols.filter(|name| !name.is_empty()).map(protocol).collect(),
            reason: None,
        })
    }

    fn commit(&self) -> Request {
        let partition = |partition| CommitPartition {
            partition,
            offset: self.dice.below(1_000) as i64,
            leader_epoch: *self.pick(&[-1, 3]),
            metadata: self.pick(&[None, Some("m")]).map(str::to_owned),
        };
        let simple = self.dice.one_in(2);
        Request::OffsetCommit(OffsetCommit {
            version: *self.pick(&[4, 8, 9]),
            group: self.group(),
            generation_or_epoch: if simple { -1 } else { self.generation() },
            member: if simple { String::new() } else { self.member() },
            instance: if simple { None } else { self.instance() },
            retention_ms: *self.pick(&[None, None, Some(20_000)]),
            transactional: self.pick(&[None, Some(7), Some(8)]).map(|id| Producer { id, epoch: 0 }),
            topics: vec![CommitTopic {
                name: self.topic(),
                id: TopicId::default(),
                partitions: vec![partition(0), partition(1)],
            }],
        })
    }

    fn request(&self) -> Request {
        let group = self.group();
        match self.dice.below(14) {
            0..=4 => self.join(),
            5 | 6 => Request::SyncGroup(SyncGroup {
                group,
                generation: self.generation(),
                member: self.member(),
                instance: self.instance(),
                protocol_type: None,
                protocol_name: None,
                assignments: self.members.iter().map(|member| (member.clone(), Bytes::from_static(b"a"))).collect(),
            }),
            7 => Request::Heartbeat(Heartbeat {
                group,
                generation: self.generation(),
                member: self.member(),
                instance: self.instance(),
            }),
            8 => Request::LeaveGroup(LeaveGroup {
                group,
                members: vec![LeavingMember { member: self.member(), instance: self.instance(), reason: None }],
            }),
            9 | 10 => self.commit(),
            11 => Request::OffsetDelete(OffsetDelete { group, topics: vec![(self.topic(), vec![0, 5])] }),
            12 => Request::DeleteGroup(DeleteGroup { group }),
            _ => match self.dice.below(3) {
                0 => Request::DescribeGroup(DescribeGroup { version: 5, group }),
                1 => Request::ListGroups(ListGroups { states: vec!["stable".into()], types: vec!["Classic".into()] }),
                _ => Request::OffsetFetch(OffsetFetch {
                    group,
                    member: None,
                    member_epoch: -1,
                    topics: Some(vec![FetchTopic {
                        name: self.topic(),
                        id: TopicId::default(),
                        partitions: vec![0, 1],
                    }]),
                    require_stable: true,
                }),
            },
        }
    }

    fn take(&mut self, effects: Effects<Reply>) {
        for (token, reply) in effects.replies {
            assert!(self.waiting.remove(&token.0), "{token:?} is answered twice: {reply:?}");
            if let Reply::JoinGroup(reply) = reply {
                if !reply.member.is_empty() && !self.members.contains(&reply.member) {
                    self.members.push(reply.member);
                }
                if reply.error.is_none() {
                    self.generation = reply.generation;
                }
            }
        }
        if self.members.len() > 12 {
            self.members.remove(1);
        }
        let from = effects.transactional;
        self.log.extend(effects.records.into_iter().map(|write| Logged::Record(write, from)));
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0..=2 => {
                self.now_ms += self.dice.below(4_000);
                while self.coordinator.next_deadline().is_some_and(|at| at <= self.now().monotonic) {
                    let effects = self.coordinator.on_timer(self.now(), &AnyTopic);
                    self.take(effects);
                    self.now_ms += 1;
                }
            }
            3 => {
                let (producer, commit) = (*self.pick(&[7, 8]), self.dice.one_in(2));
                self.log.push(Logged::Marker(producer, commit));
                self.coordinator.replay_marker(producer, commit);
            }
            4 if self.dice.one_in(10) => {
                let deleted = [("u".to_owned(), topic_id("u"))];
                let effects = self.coordinator.topics_deleted(&deleted, self.now(), &AnyTopic);
                self.take(effects);
            }
            _ => {
                self.requests += 1;
                self.waiting.insert(self.requests);
                let request = self.request();
                let effects = self.coordinator.on_request(Token(self.requests), request, self.now(), &AnyTopic);
                self.take(effects);
            }
        }
        self.check();
    }

    /// The invariants of every moment.
    fn check(&self) {
        self.coordinator.offsets.check();
        let mut waits = BTreeSet::new();
        for (id, group) in &self.coordinator.groups {
            let armed = self.coordinator.timers.of(id);
            if let Some(at) = group.next_deadline() {
                assert!(armed.is_some_and(|armed| armed <= at), "{id} would miss {at:?}: armed for {armed:?}");
            }
            if let Group::Classic(group) = group {
                group.check();
                for member in group.members.values() {
                    waits.extend(member.awaiting_join.iter().chain(&member.awaiting_sync).map(|token| token.0));
                }
            }
        }
        assert_eq!(waits, self.waiting, "who waits is known to a group, and the other way round");
    }

    fn loaded_again(&self) -> Coordinator {
        let mut again = Coordinator::new(self.options.clone(), Arc::new(SeededEntropy::new(0)));
        for logged in &self.log {
            match logged {
                Logged::Record(write, from) => {
                    again.replay(&write.key, write.value.as_deref(), *from).expect("what was written can be read");
                }
                Logged::Marker(producer, commit) => again.replay_marker(*producer, *commit),
            }
        }
        again
    }

    /// What a group must be after loading: nothing is recorded of a rebalance under way.
    fn recorded(coordinator: &Coordinator, stable: &BTreeSet<String>) -> Vec<String> {
        let mut lines = coordinator.offsets.dump();
        for (id, group) in &coordinator.groups {
            lines.push(format!("group {id}"));
            if stable.contains(&**id)
                && let Group::Classic(group) = group
            {
                lines.push(dump(group));
            }
        }
        lines
    }

    fn check_replay(&self) {
        let settled = |group: &Group| match group {
            Group::Classic(group) => matches!(group.state(), State::Stable | State::Empty),
            Group::Consumer(_) => false,
        };
        let live = &self.coordinator;
        let stable = live.groups.iter().filter(|(_, group)| settled(group)).map(|(id, _)| id.to_string()).collect();
        assert_eq!(Self::recorded(&self.loaded_again(), &stable), Self::recorded(live, &stable));
    }
}

fn dump(group: &ClassicGroup) -> String {
    let mut line = format!(
        "{:?} generation {} {:?} {:?} led by {:?} {:?}",
        group.state(),
        group.generation,
        group.protocol_type,
        group.protocol,
        group.leader,
        group.expiry()
    );
    for (id, member) in &group.members {
        line += &format!(
            " [{id} {:?} {} {} {:?} {:?}]",
            member.instance,
            member.session_timeout_ms,
            member.rebalance_timeout_ms,
            member.metadata(group.protocol.as_deref()),
            member.assignment
        );
    }
    line
}

fn run(seed: u64, steps: u32) {
    let mut run = Run::new(seed);
    for step in 0..steps {
        run.step();
        if step % 16 == 0 {
            run.check_replay();
        }
        if step % 200 == 199 {
            // A crash: nobody waits any more, and the run goes on with what was loaded.
            run.coordinator = run.loaded_again();
            let effects = run.coordinator.loaded(run.now(), &AnyTopic);
            run.waiting.clear();
            run.take(effects);
            run.check();
        }
    }
    run.check_replay();
}

#[test]
fn random_runs_come_back_from_their_records() {
    for seed in 0..150 {
        let outcome = std::panic::catch_unwind(|| run(seed, 600));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
