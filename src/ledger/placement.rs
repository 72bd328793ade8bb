//! Where a ledger's replicas should be. Pure functions of the image.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::NodeId;
use crate::metadata::{Image, Replica};

/// Brokers that may hold a replica of what `own` writes: registered, not fenced, and not about to leave.
pub fn candidates(image: &Image, own: NodeId) -> Vec<Replica> {
    let fit =
        image.brokers.iter().filter(|(node, broker)| **node == own || (!broker.fenced && !image.is_draining(**node)));
    fit.map(|(node, broker)| Replica { node: *node, incarnation: broker.incarnation }).collect()
}

/// The number of each node's rack; nodes without one have none.
pub fn racks(image: &Image) -> BTreeMap<NodeId, u32> {
    let names: BTreeSet<&str> = image.nodes.values().map(|node| &*node.rack).filter(|rack| !rack.is_empty()).collect();
    let numbers: BTreeMap<&str, u32> = names.into_iter().zip(0..).collect();
    let number = |rack: &str| numbers.get(rack).copied();
    image.nodes.iter().filter_map(|(id, node)| Some((*id, number(&node.rack)?))).collect()
}

/// The replicas of a ledger that `own` opens, itself first: up to `wanted`, in as many racks as there are. `None` when
/// `own` is not registered.
pub fn choose_replicas(image: &Image, own: NodeId, wanted: usize) -> Option<Vec<Replica>> {
    let incarnation = image.brokers.get(&own)?.incarnation;
    let racks = racks(image);
    let mut set = vec![Replica { node: own, incarnation }];
    // The ring from the own node on, so that not every writer chooses the same others.
    let mut others: Vec<_> = candidates(image, own).into_iter().filter(|replica| replica.node != own).collect();
    others.sort_unstable_by_key(|replica| (replica.node < own, replica.node));
    while set.len() < wanted {
        let free = others.iter().filter(|other| !set.contains(other));
        let shares = |other: &Replica| {
            let rack = racks.get(&other.node);
            rack.is_some() && set.iter().any(|member| racks.get(&member.node) == rack)
        };
        let Some(next) = free.min_by_key(|other| shares(other)).copied() else { break };
        set.push(next);
    }
    Some(set)
}
