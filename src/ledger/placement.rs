//! Where a ledger's replicas should be. Pure functions of the image.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::NodeId;
use crate::metadata::{Image, Replica};

/// Brokers that may hold a replica of what one of them writes: those that are registered and not fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The writer is always one.
    pub staying: Vec<Replica>,
    /// Of nodes that are being drained: only where there is no second copy without them.
    pub leaving: Vec<Replica>,
}

pub fn candidates(image: &Image, own: NodeId) -> Candidates {
    let fit = image.brokers.iter().filter(|(node, broker)| **node == own || !broker.fenced);
    let fit = fit.map(|(node, broker)| Replica { node: *node, incarnation: broker.incarnation });
    let (staying, leaving) = fit.partition(|replica| replica.node == own || !image.is_draining(replica.node));
    Candidates { staying, leaving }
}

/// The number of each node's rack; nodes without one have none.
pub fn racks(image: &Image) -> BTreeMap<NodeId, u32> {
    let names: BTreeSet<&str> = image.nodes.values().map(|node| &*node.rack).filter(|rack| !rack.is_empty()).collect();
    let numbers: BTreeMap<&str, u32> = names.into_iter().zip(0..).collect();
    let number = |rack: &str| numbers.get(rack).copied();
    image.nodes.iter().filter_map(|(id, node)| Some((*id, number(&node.rack)?))).collect()
}

/// The replicas of a ledger that `own` opens, itself first: up to `wanted`, in as many racks as there are; where that is
/// nobody else, one that is being drained. `None` when `own` is not registered.
pub fn choose_replicas(image: &Image, own: NodeId, wanted: usize) -> Option<Vec<Replica>> {
    let incarnation = image.brokers.get(&own)?.incarnation;
    let Candidates { staying, leaving } = candidates(image, own);
    let mut set = vec![Replica { node: own, incarnation }];
    fill(image, own, &mut set, staying, wanted);
    fill(image, own, &mut set, leaving, wanted.min(2));
    Some(set)
}

/// Takes of `others` until the set of `own` has `wanted` members.
fn fill(image: &Image, own: NodeId, set: &mut Vec<Replica>, mut others: Vec<Replica>, wanted: usize) {
    let racks = racks(image);
    // The ring from the own node on, so that not every writer chooses the same others.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerEpoch, DirectoryId, WalIncarnation};
    use crate::metadata::{Broker, Node, NodeState};

    /// Nodes 1… in these racks, each with a broker.
    fn image(racks: &[&str]) -> Image {
        let mut image = Image::default();
        for (id, rack) in (1..).zip(racks) {
            let node = Node {
                name: format!("n{id}"),
                rack: (*rack).to_owned(),
                host: format!("n{id}.example"),
                port: 9094,
                identity: format!("CN=n{id}"),
                token_sha256: [0; 32],
                state: NodeState::Joined { directory: DirectoryId(id as u32) },
                draining: false,
                added_ms: 0,
            };
            image.nodes.insert(NodeId(id), node);
            let broker = Broker {
                epoch: BrokerEpoch(1),
                incarnation: WalIncarnation([id as u8; 16]),
                boot: 1,
                endpoints: Vec::new(),
                version: String::new(),
                registered_ms: 0,
                fenced: false,
            };
            image.brokers.insert(NodeId(id), broker);
        }
        image
    }

    fn chosen(image: &Image, own: i32) -> Option<Vec<i32>> {
        choose_replicas(image, NodeId(own), 3).map(|set| set.iter().map(|replica| replica.node.0).collect())
    }

    #[test]
    fn a_set_begins_with_its_writer_and_goes_round_the_ring() {
        let image = image(&["", "", "", ""]);
        assert_eq!(chosen(&image, 1), Some(vec![1, 2, 3]));
        assert_eq!(chosen(&image, 3), Some(vec![3, 4, 1]));
        assert_eq!(chosen(&image, 9), None);
    }

    #[test]
    fn a_set_is_in_as_many_racks_as_there_are() {
        assert_eq!(chosen(&image(&["a", "a", "a", "b", "c"]), 1), Some(vec![1, 4, 5]));
        assert_eq!(
            chosen(&image(&["a", "a", "a", "b"]), 1),
            Some(vec![1, 4, 2]),
            "rather two of a rack than two in all"
        );
    }

    #[test]
    fn nodes_that_are_fenced_or_leave_are_not_chosen() {
        let mut image = image(&["", "", "", ""]);
        image.brokers.get_mut(&NodeId(2)).expect("there").fenced = true;
        image.nodes.get_mut(&NodeId(3)).expect("there").draining = true;
        assert_eq!(chosen(&image, 1), Some(vec![1, 4]));
        assert_eq!(chosen(&image, 3), Some(vec![3, 4, 1]), "who writes is in its own set");
        image.brokers.get_mut(&NodeId(4)).expect("there").fenced = true;
        assert_eq!(chosen(&image, 1), Some(vec![1, 3]), "rather one that leaves than no second copy");
        assert_eq!(chosen(&image, 3), Some(vec![3, 1]));
        image.nodes.values_mut().skip(1).for_each(|node| node.draining = true);
        assert_eq!(chosen(&image, 1), Some(vec![1, 3]), "all others leave: one copy is too few");
    }
}
