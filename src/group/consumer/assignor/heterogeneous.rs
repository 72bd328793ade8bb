//! The uniform assignor where subscriptions differ: as balanced as the subscriptions allow, few moves.
//!
//! Partitions keep their owner where it is still subscribed; free ones go to the least loaded subscriber, topics with
//! the most partitions per subscriber first; then, topic by topic, partitions move from the most to the least loaded
//! subscriber until none differ by more than one. Subscriptions that overlap without being equal may need several
//! rounds and may end slightly unbalanced: the number of rounds is bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::base::TopicId;
use crate::group::consumer::assignor::{Input, Owners};
use crate::group::consumer::partitions::Partitions;

/// Each round about halves what imbalance is left.
const ROUNDS_MAX: usize = 16;

pub fn assign(input: &Input<'_>) -> Vec<Partitions> {
    let (mut owners, mut loads) = Owners::from_previous(input);
    let mut subscribers: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
    for (index, member) in input.members.iter().enumerate() {
        for topic in member.subscribed.iter() {
            subscribers.entry(*topic).or_default().push(index as u32);
        }
    }
    let mut order: Vec<TopicId> = subscribers.keys().copied().collect();
    order.sort_by_key(|topic| {
        let readers = subscribers[topic].len();
        // Partitions per subscriber without fractions: scaled far beyond the number of members.
        (Reverse((input.partition_count(*topic) << 24) / readers), readers, *topic)
    });
    for topic in &order {
        if let Some(partitions) = owners.0.get_mut(topic) {
            place_free(partitions, &subscribers[topic], &mut loads);
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for topic in &order {
            if let Some(partitions) = owners.0.get_mut(topic) {
                moved |= level(partitions, &subscribers[topic], &mut loads);
            }
        }
        if !moved {
            break;
        }
    }
    owners.collect(input.members.len())
}

/// Gives the partitions of a topic that nobody owns to its least loaded subscribers.
fn place_free(partitions: &mut [Option<u32>], subscribers: &[u32], loads: &mut [usize]) {
    let mut queue: BTreeSet<(usize, u32)> = subscribers.iter().map(|index| (loads[*index as usize], *index)).collect();
    for owner in partitions.iter_mut().filter(|owner| owner.is_none()) {
        let Some((load, index)) = queue.pop_first() else { return };
        *owner = Some(index);
        loads[index as usize] = load + 1;
        queue.insert((load + 1, index));
    }
}

/// Moves partitions of one topic from the most to the least loaded subscribers; whether any moved.
fn level(partitions: &mut [Option<u32>], subscribers: &[u32], loads: &mut [usize]) -> bool {
    let load_of = |index: &u32| loads[*index as usize];
    let (Some(least), Some(most)) = (subscribers.iter().map(load_of).min(), subscribers.iter().map(load_of).max())
    else {
        return false;
    };
    if most - least <= 1 {
        return false;
    }
    let mut owned: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (partition, owner) in partitions.iter().enumerate() {
        if let Some(index) = owner {
            owned.entry(*index).or_default().push(partition);
        }
    }
    let mut queue: BTreeSet<(usize, u32)> = subscribers.iter().map(|index| (loads[*index as usize], *index)).collect();
    // Only who owns a partition of this topic can give one.
    let mut givers: BTreeSet<(usize, u32)> = owned.keys().map(|index| (loads[*index as usize], *index)).collect();
    let mut moved = false;
    while let (Some((most, from)), Some((least, to))) = (givers.last().copied(), queue.first().copied()) {
        if most - least.min(most) <= 1 {
            break;
        }
        let taken = owned.get_mut(&from).and_then(Vec::pop);
        givers.remove(&(most, from));
        let Some(partition) = taken else { continue };
        partitions[partition] = Some(to);
        moved = true;
        (loads[from as usize], loads[to as usize]) = (most - 1, least + 1);
        queue.remove(&(most, from));
        queue.remove(&(least, to));
        queue.insert((most - 1, from));
        queue.insert((least + 1, to));
        owned.entry(to).or_default().push(partition);
        givers.remove(&(least, to));
        givers.insert((least + 1, to));
        if owned.get(&from).is_some_and(|left| !left.is_empty()) {
            givers.insert((most - 1, from));
        }
    }
    moved
}
