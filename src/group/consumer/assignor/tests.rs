//! Properties of the assignors over seeded random groups, and the few cases that a person can check by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::*;
use crate::env::SeededEntropy;

fn topic(n: u64) -> TopicId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    TopicId(bytes)
}

/// A group whose targets are fed back into the next assignment.
#[derive(Default)]
struct World {
    members: BTreeMap<String, (Option<String>, BTreeSet<TopicId>)>,
    topics: BTreeMap<TopicId, i32>,
    targets: BTreeMap<String, Partitions>,
}

impl World {
    fn join(&mut self, id: &str, topics: &[u64]) {
        self.members.insert(id.into(), (None, topics.iter().copied().map(topic).collect()));
    }

    fn assign(&mut self, assignor: Assignor) -> usize {
        let subscribed = |set: &BTreeSet<TopicId>| -> Rc<[TopicId]> {
            set.iter().copied().filter(|t| self.topics.contains_key(t)).collect()
        };
        let read: BTreeSet<TopicId> = self.members.values().flat_map(|(_, set)| set.iter().copied()).collect();
        let input = Input {
            members: self
                .members
                .iter()
                .map(|(id, (instance, set))| MemberInput {
                    id,
                    instance: instance.as_deref(),
                    subscribed: subscribed(set),
                    previous: self.targets.get(id),
                })
                .collect(),
            topics: self.topics.iter().filter(|(t, _)| read.contains(t)).map(|(t, n)| (*t, *n)).collect(),
        };
        let out = assignor.assign(&input);
        assert_eq!(out.len(), self.members.len());
        let new: BTreeMap<String, Partitions> = self.members.keys().cloned().zip(out).collect();
        let kept: usize = new
            .iter()
            .filter_map(|(id, target)| Some((target, self.targets.get(id)?)))
            .map(|(new, old)| old.iter().flat_map(|(t, ps)| ps.iter().filter(move |p| new.has(t, **p))).count())
            .sum();
        self.targets = new;
        self.check();
        kept
    }

    /// Every partition that has a subscriber is owned once, by a subscriber.
    fn check(&self) {
        let mut owned = BTreeSet::new();
        for (id, target) in &self.targets {
            for (topic, partitions) in target.iter() {
                assert!(self.members[id].1.contains(&topic), "{id} is not subscribed to {topic}");
                assert!(!partitions.is_empty() && partitions.is_sorted(), "{partitions:?}");
                for partition in partitions {
                    assert!(owned.insert((topic, *partition)), "{topic}-{partition} is assigned twice");
                }
            }
        }
        for (topic, count) in &self.topics {
            if self.members.values().any(|(_, set)| set.contains(topic)) {
                for partition in 0..*count {
                    assert!(owned.remove(&(*topic, partition)), "{topic}-{partition} is assigned to nobody");
                }
            }
        }
        assert!(owned.is_empty(), "partitions that do not exist: {owned:?}");
    }

    fn loads(&self) -> Vec<usize> {
        self.targets.values().map(Partitions::count).collect()
    }

    fn spread(&self) -> usize {
        let loads = self.loads();
        loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0)
    }
}

#[test]
fn range_gives_contiguous_ranges_and_the_first_members_the_extra_partition() {
    let mut world = World { topics: [(topic(1), 7), (topic(2), 3)].into(), ..World::default() };
    for id in ["a", "b", "c"] {
        world.join(id, &[1, 2]);
    }
    world.assign(Assignor::Range);
    assert_eq!(world.targets["a"], Partitions::collect([(topic(1), vec![0, 1, 2]), (topic(2), vec![0])]));
    assert_eq!(world.targets["b"], Partitions::collect([(topic(1), vec![3, 4]), (topic(2), vec![1])]));
    assert_eq!(world.targets["c"], Partitions::collect([(topic(1), vec![5, 6]), (topic(2), vec![2])]));
    // A static member goes before the others, whatever its member id.
    world.members.insert("z".into(), (Some("i".into()), [topic(2)].into()));
    world.assign(Assignor::Range);
    assert_eq!(world.targets["z"], Partitions::collect([(topic(2), vec![0])]));
}

#[test]
fn uniform_moves_only_what_balance_needs() {
    let mut world = World { topics: [(topic(1), 6)].into(), ..World::default() };
    world.join("a", &[1]);
    world.join("b", &[1]);
    world.assign(Assignor::Uniform);
    assert_eq!(world.targets["a"], Partitions::collect([(topic(1), vec![0, 1, 2])]));
    world.join("c", &[1]);
    assert_eq!(world.assign(Assignor::Uniform), 4, "two partitions move to the third member");
    assert_eq!(world.loads(), [2, 2, 2]);
    world.topics.insert(topic(1), 7);
    assert_eq!(world.assign(Assignor::Uniform), 6, "a new partition moves nothing");
    world.members.remove("b");
    assert_eq!(world.assign(Assignor::Uniform), 5);
    assert_eq!(world.spread(), 1);
}

#[test]
fn uniform_balances_over_topics_where_subscriptions_differ() {
    let mut world = World { topics: [(topic(1), 4), (topic(2), 4)].into(), ..World::default() };
    world.join("a", &[1]);
    world.join("b", &[1, 2]);
    world.assign(Assignor::Uniform);
    assert_eq!(world.loads(), [4, 4], "b alone reads topic 2, so a takes topic 1");
    world.join("c", &[2]);
    world.assign(Assignor::Uniform);
    assert!(world.spread() <= 1, "{:?}", world.loads());
}

#[test]
fn an_old_target_that_no_longer_fits_is_ignored() {
    let mut world = World { topics: [(topic(1), 2)].into(), ..World::default() };
    world.join("a", &[1, 9]);
    world.join("b", &[1]);
    for assignor in Assignor::ALL {
        // Both claim partition 0, one a partition that never was, one a topic that is gone.
        world.targets =
            [("a", vec![(topic(1), vec![0, 5, -1]), (topic(9), vec![0])]), ("b", vec![(topic(1), vec![0, i32::MAX])])]
                .map(|(id, lists)| (id.to_string(), Partitions::collect(lists)))
                .into();
        world.assign(assignor);
        assert_eq!(world.loads(), [1, 1]);
    }
}

/// Joins, leaves, new subscriptions, topics that come, grow and go: the properties hold after each step.
#[test]
fn random_groups_stay_whole_balanced_and_sticky() {
    for seed in 0..60 {
        let random = SeededEntropy::new(seed);
        let homogeneous = seed % 2 == 0;
        let assignor = if seed % 3 == 2 { Assignor::Range } else { Assignor::Uniform };
        let mut world = World::default();
        let mut shared: Vec<u64> = vec![];
        for step in 0..40 {
            match random.below(6) {
                0 | 1 => {
                    let own: Vec<u64> = (0..8).filter(|_| random.below(2) == 0).collect();
                    world.join(&format!("m{}", random.below(12)), if homogeneous { &shared } else { &own });
                }
                2 => {
                    let gone = format!("m{}", random.below(12));
                    world.members.remove(&gone);
                    world.targets.remove(&gone);
                }
                3 => {
                    world.topics.remove(&topic(random.below(8)));
                }
                4 => {
                    let count = world.topics.entry(topic(random.below(8))).or_insert(0);
                    *count += random.below(20) as i32;
                }
                _ if homogeneous => {
                    shared = (0..8).filter(|_| random.below(2) == 0).collect();
                    let set: BTreeSet<TopicId> = shared.iter().copied().map(topic).collect();
                    world.members.values_mut().for_each(|(_, subscribed)| subscribed.clone_from(&set));
                }
                _ => {}
            }
            world.assign(assignor);
            if assignor == Assignor::Uniform {
                if homogeneous {
                    assert!(world.spread() <= 1, "seed {seed} step {step}: {:?}", world.loads());
                }
                let all = world.loads().iter().sum::<usize>();
                assert_eq!(world.assign(assignor), all, "seed {seed} step {step}: nothing changed, so nothing moves");
            }
        }
    }
}

/// The fewest possible moves: what is kept is what balance allows each member to keep.
#[test]
fn uniform_keeps_all_that_balance_allows() {
    for seed in 0..100 {
        let random = SeededEntropy::new(seed);
        let mut world = World { topics: [(topic(1), 1 + random.below(60) as i32)].into(), ..World::default() };
        (0..1 + random.below(8)).for_each(|n| world.join(&format!("m{n}"), &[1]));
        world.assign(Assignor::Uniform);
        (0..random.below(4)).for_each(|n| world.join(&format!("n{n}"), &[1]));
        let (total, count) = (world.topics[&topic(1)] as usize, world.members.len());
        let (quota, mut extra) = (total / count, total % count);
        let most: usize = world
            .targets
            .values()
            .map(|target| {
                let spare = usize::from(target.count() > quota && extra > 0);
                extra -= spare;
                target.count().min(quota + spare)
            })
            .sum();
        assert_eq!(world.assign(Assignor::Uniform), most, "seed {seed}");
    }
}
