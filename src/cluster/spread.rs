//! Who is to lead a partition: whoever has its tail, and among those whoever has least to do.

use std::collections::BTreeMap;

use crate::base::NodeId;
use crate::broker::Load;
use crate::metadata::{Image, Ledger, Replica};

use super::controller::partitions;

/// What [`missing`] counts for a ledger of which a node has nothing.
pub const NOTHING: usize = 2;

/// How much the registered WAL of `node` may lack of those of `ledgers` that are not uploaded: for each nothing (0) if it has all
/// from what is uploaded on, 1 if it may lack some, [`NOTHING`] if it is none of the holders.
pub fn missing(image: &Image, node: NodeId, ledgers: &[&Ledger]) -> usize {
    let Some(broker) = image.brokers.get(&node) else { return NOTHING * ledgers.len() };
    let own = Replica { node, incarnation: broker.incarnation };
    let of_one = |ledger: &&&Ledger| {
        let held = ledger.holders.iter().find(|holder| holder.replica == own);
        match held {
            Some(holder) => usize::from(holder.from > ledger.uploaded),
            // A replica of a ledger that was recovered, and no holder: it lacks the end.
            None if ledger.replicas.contains(&own) => usize::from(!ledger.holders.is_empty()),
            None => NOTHING,
        }
    };
    ledgers.iter().filter(|ledger| !ledger.is_finished()).map(|ledger| of_one(&ledger)).sum()
}

/// What each node has to do, partitions that are about to be given to it included.
pub struct Spread {
    nodes: BTreeMap<NodeId, Work>,
    total: Work,
}

#[derive(Clone, Copy, Default)]
struct Work {
    partitions: u64,
    /// As `Load::cost`.
    cost: u64,
}

impl Spread {
    pub fn new(image: &Image, loads: &BTreeMap<NodeId, Load>) -> Spread {
        let mut nodes: BTreeMap<NodeId, Work> = image.brokers.keys().map(|node| (*node, Work::default())).collect();
        for (_, partition) in partitions(image) {
            // One that is on the move counts where it goes.
            let node = partition.target.unwrap_or(partition.leader);
            nodes.entry(node).or_default().partitions += 1;
        }
        for (node, work) in &mut nodes {
            work.cost = loads.get(node).map_or(0, Load::cost);
        }
        let sum = |of: fn(&Work) -> u64| nodes.values().map(of).fold(0, u64::saturating_add);
        let total = Work { partitions: sum(|work| work.partitions), cost: sum(|work| work.cost) };
        Spread { nodes, total }
    }

    /// The one of `nodes` with least to do: its share of all partitions plus its share of all load.
    pub fn least(&self, nodes: &[NodeId]) -> Option<NodeId> {
        nodes.iter().copied().min_by_key(|node| (self.work(*node), *node))
    }

    /// The node leads another partition, as busy as partitions are on average.
    pub fn lead(&mut self, node: NodeId) {
        let average = self.total.cost / self.total.partitions.max(1);
        let work = self.nodes.entry(node).or_default();
        work.partitions += 1;
        work.cost = work.cost.saturating_add(average);
    }

    fn work(&self, node: NodeId) -> u128 {
        let work = self.nodes.get(&node).copied().unwrap_or_default();
        let (partitions, cost) = (u128::from(work.partitions), u128::from(work.cost));
        partitions * u128::from(self.total.cost.max(1)) + cost * u128::from(self.total.partitions.max(1))
    }
}
