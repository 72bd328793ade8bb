//! The server-side assignors of KIP-848: who shall own which partition.
//!
//! An assignor is a function of its input: members in the order of their ids, what each is subscribed to and what the
//! last target assignment gave it. Invariants of every result, whatever the input holds: each partition of a topic
//! with subscribers goes to exactly one of them, and nobody gets a partition of a topic that it is not subscribed to.

mod heterogeneous;
mod homogeneous;
mod range;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::TopicId;
use crate::group::consumer::partitions::Partitions;

/// The assignors that come with Kafka (`group.consumer.assignors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Balanced over all topics, moves as little as possible.
    Uniform,
    /// Topic by topic in contiguous ranges, so that topics with equal partition counts are owned alike; moves freely.
    Range,
}

impl Assignor {
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// The new target of each member, in the order of the members.
    pub fn assign(self, input: &Input<'_>) -> Vec<Partitions> {
        match self {
            Assignor::Range => range::assign(input),
            Assignor::Uniform if input.is_homogeneous() => homogeneous::assign(input),
            Assignor::Uniform => heterogeneous::assign(input),
        }
    }
}

/// What an assignment is computed from.
#[derive(Debug, Default)]
pub struct Input<'a> {
    /// Ascending by member id.
    pub members: Vec<MemberInput<'a>>,
    /// Partition counts of all topics that any member is subscribed to.
    pub topics: BTreeMap<TopicId, i32>,
}

#[derive(Debug)]
pub struct MemberInput<'a> {
    pub id: &'a str,
    pub instance: Option<&'a str>,
    /// Existing topics, ascending; shared by members that subscribe to the same ones.
    pub subscribed: Rc<[TopicId]>,
    /// The member's last target assignment.
    pub previous: Option<&'a Partitions>,
}

impl Input<'_> {
    /// Whether all members are subscribed to the same topics.
    fn is_homogeneous(&self) -> bool {
        self.members.windows(2).all(|pair| {
            Rc::ptr_eq(&pair[0].subscribed, &pair[1].subscribed) || pair[0].subscribed == pair[1].subscribed
        })
    }

    fn partition_count(&self, topic: TopicId) -> usize {
        self.topics.get(&topic).map_or(0, |count| usize::try_from(*count).unwrap_or(0))
    }
}

/// Who owns each partition of each topic while an assignment is made: an index into the members.
struct Owners(BTreeMap<TopicId, Vec<Option<u32>>>);

impl Owners {
    /// Starts from the last target assignment, as far as it still fits: the topic has that partition, the member is
    /// subscribed, and no member before it claims the same. Also gives the number of partitions of each member.
    fn from_previous(input: &Input<'_>) -> (Self, Vec<usize>) {
        let mut owners = Owners(BTreeMap::new());
        for topic in input.topics.keys() {
            owners.0.insert(*topic, vec![None; input.partition_count(*topic)]);
        }
        let mut loads = vec![0; input.members.len()];
        for (index, member) in input.members.iter().enumerate() {
            for (topic, partitions) in member.previous.iter().flat_map(|previous| previous.iter()) {
                if member.subscribed.binary_search(&topic).is_err() {
                    continue;
                }
                for partition in partitions {
                    if let Some(owner @ None) = owners.slot(topic, *partition) {
                        *owner = Some(index as u32);
                        loads[index] += 1;
                    }
                }
            }
        }
        (owners, loads)
    }

    fn slot(&mut self, topic: TopicId, partition: i32) -> Option<&mut Option<u32>> {
        self.0.get_mut(&topic)?.get_mut(usize::try_from(partition).ok()?)
    }

    /// The assignment of each of `members`.
    fn collect(&self, members: usize) -> Vec<Partitions> {
        let mut out = vec![Partitions::new(); members];
        for (topic, owners) in &self.0 {
            for (partition, owner) in owners.iter().enumerate() {
                if let Some(target) = owner.and_then(|owner| out.get_mut(owner as usize)) {
                    // Ascending, so this only appends.
                    target.entry(*topic).push(partition as i32);
                }
            }
        }
        out
    }
}
