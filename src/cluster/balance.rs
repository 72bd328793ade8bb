//! Spreading load over live brokers by moving leaders. Pure.
//!
//! A move has to be worth it: only a node that is busier than the mean by a fifth gives anything away, and only a partition
//! whose move makes the busier of the two nodes less busy by a tenth of the mean. What is on the move is left alone, and so
//! is everything as long as there is little to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::NodeId;
use crate::broker::{Load, PartitionLoad};
use crate::metadata::{Image, TargetChange};

use super::controller::{MOVES_MAX, partitions, takers};

/// Partitions moved at one time.
pub const MOVES_PER_BATCH: usize = 10;
/// Mean cost of a node, in bytes per second, below which nothing is moved.
pub const COST_MIN: u64 = 256 * 1024;
/// How much busier than the mean a node is that gives something away.
const ABOVE_PERCENT: u64 = 20;
/// By how much of the mean a move has to help.
const HELPS_PERCENT: u64 = 10;

/// The moves that are worth it now.
pub fn plan(image: &Image, live: &BTreeSet<NodeId>, loads: &BTreeMap<NodeId, Load>) -> Vec<TargetChange> {
    let staying: Vec<NodeId> = live.iter().copied().filter(|node| !image.is_draining(*node)).collect();
    // Of a node that has not said how busy it is nothing is known.
    if staying.len() < 2 || staying.iter().any(|node| !loads.contains_key(node)) {
        return Vec::new();
    }
    let under_way = partitions(image).filter(|(_, partition)| partition.target.is_some()).count();
    let mut costs: BTreeMap<NodeId, u64> = staying.iter().map(|node| (*node, loads[node].cost())).collect();
    let mean = costs.values().fold(0u64, |sum, cost| sum.saturating_add(*cost)) / costs.len() as u64;
    if mean < COST_MIN {
        return Vec::new();
    }
    let mut moved = BTreeSet::new();
    let mut changes = Vec::new();
    while changes.len() < MOVES_PER_BATCH.min(MOVES_MAX.saturating_sub(under_way)) {
        let Some((change, from, cost)) = best_move(image, live, loads, &costs, mean, &moved) else { break };
        let Some(to) = change.target else { break };
        *costs.entry(from).or_default() -= cost.min(costs[&from]);
        *costs.entry(to).or_default() += cost;
        moved.insert(change.partition);
        changes.push(change);
    }
    changes
}

/// The move that helps the busiest node that can be helped most.
fn best_move(
    image: &Image,
    live: &BTreeSet<NodeId>,
    loads: &BTreeMap<NodeId, Load>,
    costs: &BTreeMap<NodeId, u64>,
    mean: u64,
    moved: &BTreeSet<crate::base::PartitionId>,
) -> Option<(TargetChange, NodeId, u64)> {
    let percent = |percent: u64| mean.saturating_mul(percent) / 100;
    let mut busy: Vec<_> = costs.iter().filter(|(_, cost)| **cost >= mean + percent(ABOVE_PERCENT)).collect();
    busy.sort_unstable_by_key(|(node, cost)| (std::cmp::Reverse(**cost), **node));
    for (from, busiest) in busy {
        let to = takers(image, live, *from).into_iter().filter_map(|node| Some((*costs.get(&node)?, node))).min();
        let Some((idlest, to)) = to else { continue };
        let helps = |load: &&PartitionLoad| {
            let after = busiest.saturating_sub(load.cost).max(idlest.saturating_add(load.cost));
            busiest.saturating_sub(after)
        };
        let is_there = |load: &&PartitionLoad| {
            let known = image.partition(load.partition);
            known.is_some_and(|p| p.leader == *from && p.target.is_none()) && !moved.contains(&load.partition)
        };
        let best = loads[from].partitions.iter().filter(is_there).max_by_key(|load| (helps(load), load.partition));
        if let Some(load) = best.filter(|load| helps(load) >= percent(HELPS_PERCENT).max(1)) {
            let change = TargetChange { partition: load.partition, target: Some(to), preferred: None };
            return Some((change, *from, load.cost));
        }
    }
    None
}
