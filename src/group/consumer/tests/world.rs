//! A coordinator with topics, a clock and a log, that checks itself after every step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::TopicId;
use crate::env::SeededEntropy;
use crate::group::consumer::ConsumerGroup;
use crate::group::consumer::state::Counts;
use crate::group::coordinator::Group;
use crate::group::{Coordinator, Effects, Now, Options, Reply, Request, Token, Topics, Write};

#[derive(Default)]
pub struct TestTopics {
    version: u64,
    by_name: BTreeMap<String, (TopicId, i32)>,
    next_id: u8,
}

impl TestTopics {
    /// Makes a topic, or changes its number of partitions.
    pub fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        if let Some((_, count)) = self.by_name.get_mut(name) {
            *count = partitions;
            return;
        }
        self.next_id += 1;
        let mut id = [0; 16];
        id[15] = self.next_id;
        self.by_name.insert(name.into(), (TopicId(id), partitions));
    }

    pub fn remove(&mut self, name: &str) {
        self.version += 1;
        self.by_name.remove(name);
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, TopicId, i32)> {
        self.by_name.iter().map(|(name, (id, count))| (name.as_str(), *id, *count))
    }
}

impl Topics for TestTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).map(|(id, _)| *id)
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.all().find(|(_, known, _)| *known == id).map(|(name, _, _)| name)
    }

    fn partitions(&self, id: TopicId) -> Option<i32> {
        self.all().find(|(_, known, _)| *known == id).map(|(_, _, count)| count)
    }

    fn racks(&self, _: TopicId, _: i32) -> Vec<String> {
        vec![]
    }

    fn each_name(&self, visit: &mut dyn FnMut(&str)) {
        self.by_name.keys().for_each(|name| visit(name));
    }
}

pub struct World {
    pub topics: TestTopics,
    pub options: Options,
    pub coordinator: Coordinator,
    pub now_ms: u64,
    /// Off where a test has too many members to look at all of them after each step.
    pub checks: bool,
    log: Vec<Write>,
    tokens: u64,
}

impl World {
    pub fn new(options: Options, seed: u64) -> Self {
        World {
            topics: TestTopics::default(),
            coordinator: Coordinator::new(options.clone(), Arc::new(SeededEntropy::new(seed))),
            options,
            now_ms: 1_000_000,
            checks: true,
            log: vec![],
            tokens: 0,
        }
    }

    pub fn set_options(&mut self, options: Options) {
        self.options = options.clone();
        self.coordinator.set_options(options);
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms as i64, monotonic: Duration::from_millis(self.now_ms) }
    }

    pub fn send(&mut self, request: Request) -> Effects<Reply> {
        self.tokens += 1;
        let effects = self.coordinator.on_request(Token(self.tokens), request, self.now(), &self.topics);
        self.log.extend(effects.records.iter().cloned());
        self.check_if_wanted();
        effects
    }

    fn check_if_wanted(&self) {
        if self.checks {
            self.check();
        }
    }

    /// Goes on with a coordinator that was loaded from any records at all, in which not everything need fit.
    pub fn adopt(&mut self, coordinator: Coordinator) {
        self.checks = false;
        self.coordinator = coordinator;
        self.coordinator.loaded(self.now(), &self.topics);
    }

    /// The only reply to a request that is answered at once.
    pub fn ask(&mut self, request: Request) -> Reply {
        let mut effects = self.send(request);
        let token = Token(self.tokens);
        let at = effects.replies.iter().position(|(for_whom, _)| *for_whom == token).expect("answered at once");
        effects.replies.remove(at).1
    }

    /// Lets time pass, with everything that falls due on the way.
    pub fn wait(&mut self, ms: u64) -> Vec<Effects<Reply>> {
        let end = self.now_ms + ms;
        let mut all = vec![];
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= Duration::from_millis(end)) {
            self.now_ms = self.now_ms.max(at.as_millis() as u64);
            let effects = self.coordinator.on_timer(self.now(), &self.topics);
            self.log.extend(effects.records.iter().cloned());
            self.check_if_wanted();
            all.push(effects);
        }
        self.now_ms = end;
        all
    }

    /// A coordinator that knows only what was written.
    pub fn loaded_again(&self) -> Coordinator {
        // No process makes the ids of another one again.
        let seed = 99 + self.log.len() as u64;
        let mut again = Coordinator::new(self.options.clone(), Arc::new(SeededEntropy::new(seed)));
        for write in &self.log {
            again.replay(&write.key, write.value.as_deref(), None).expect("what was written can be read");
        }
        again
    }

    /// The same from a log that was compacted: of each key the last record only.
    pub fn loaded_from_compacted(&self) -> Coordinator {
        let mut last: HashMap<&[u8], usize> = HashMap::new();
        for (at, write) in self.log.iter().enumerate() {
            last.insert(&write.key, at);
        }
        let mut again = Coordinator::new(self.options.clone(), Arc::new(SeededEntropy::new(99)));
        for (at, write) in self.log.iter().enumerate() {
            if last[&*write.key] == at {
                again.replay(&write.key, write.value.as_deref(), None).expect("what was written can be read");
            }
        }
        again
    }

    /// Goes on with what a restart finds.
    pub fn restart(&mut self) {
        self.coordinator = self.loaded_again();
        let effects = self.coordinator.loaded(self.now(), &self.topics);
        self.log.extend(effects.records);
        self.check();
    }

    pub fn consumer_groups(&self) -> impl Iterator<Item = (&str, &ConsumerGroup)> {
        groups_of(&self.coordinator)
    }

    /// The invariants of every moment.
    pub fn check(&self) {
        for (id, group) in self.consumer_groups() {
            assert_eq!(group.counts, recounted(group), "{id}");
            for ((topic, partition), holders) in &group.counts.holders {
                assert_eq!(*holders, 1, "{topic}-{partition} of {id} is held by more than one");
            }
            for member in group.members.values() {
                assert!(member.epoch <= group.assignment_epoch, "{id}: {member:?}");
                assert!(
                    group.soft.deadlines.get(&member.id).is_some_and(|at| at.session.is_some()),
                    "{id}: {member:?}"
                );
            }
            assert_eq!(group.soft.deadlines.len(), group.members.len(), "{id}");
            if let Some(at) = group.next_deadline() {
                let armed = self.coordinator.timers.of(id);
                assert!(armed.is_some_and(|armed| armed <= at), "{id} would miss {at:?}: {armed:?}");
            }
        }
    }

    pub fn check_replay(&self) {
        assert_eq!(dump(&self.loaded_again()), dump(&self.coordinator));
        assert_eq!(dump(&self.loaded_from_compacted()), dump(&self.coordinator), "after compaction");
    }
}

fn groups_of(coordinator: &Coordinator) -> impl Iterator<Item = (&str, &ConsumerGroup)> {
    coordinator.groups.iter().filter_map(|(id, group)| match group {
        Group::Consumer(group) => Some((&**id, &**group)),
        Group::Classic(_) => None,
    })
}

/// Everything that is recorded of the consumer groups.
pub fn dump(coordinator: &Coordinator) -> String {
    let mut out = String::new();
    for (id, group) in groups_of(coordinator) {
        out += &format!(
            "{id} epoch {} hash {} assignment {} at {} old {}\n",
            group.epoch,
            group.metadata_hash,
            group.assignment_epoch,
            group.assignment_timestamp,
            group.has_old_metadata
        );
        group.members.values().for_each(|member| out += &format!("  {member:?}\n"));
        out += &format!("  {:?}\n  {:?}\n", group.targets, group.regexes);
    }
    out
}

fn recounted(group: &ConsumerGroup) -> Counts {
    let mut again = ConsumerGroup::default();
    for member in group.members.values() {
        again.apply(member.metadata_record("g"));
        again.apply(member.assignment_record("g"));
    }
    for (regex, value) in &group.regexes {
        let (regex, value) = (regex.clone(), Some(value.clone()));
        again.apply(crate::group::records::Record::ConsumerRegex { group: "g".into(), regex, value });
    }
    again.counts
}
