//! A node that is about to stop gives away what it leads, so that nobody has to find out that it is gone. Where the ledger of
//! another node would be left with too few copies to be written, it waits a while for one to come back that can take its
//! place: nodes that are restarted one after the other do not stop each other's producers.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::base::{BrokerEpoch, NodeId};
use crate::metadata::{Command, Image, TargetChange};
use crate::quorum::Quorum;

use super::controller::{PARTITIONS_PER_COMMAND, partitions, takers};
use super::spread::Spread;

/// Where the partitions that `node` leads could go: empty if there is no other live broker.
fn targets(image: &Image, node: NodeId) -> Vec<TargetChange> {
    let live = image.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(node, _)| *node).collect();
    let (to, mut spread) = (takers(image, &live, node), Spread::new(image, &BTreeMap::new()));
    let led = partitions(image).filter(|(_, partition)| partition.leader == node && partition.target.is_none());
    let change = |partition| {
        let target = spread.least(&to)?;
        spread.lead(target);
        // It is the preferred leader still: it comes back.
        Some(TargetChange { partition, target: Some(target), preferred: None })
    };
    led.map(|(id, _)| id).filter_map(change).collect()
}

/// Whether a live writer could not go on without `node`: too few other members of its ledger's set are live. Not said of two
/// nodes, where nobody else could take its place.
fn is_needed(image: &Image, node: NodeId) -> bool {
    let is_live = |node: NodeId| image.brokers.get(&node).is_some_and(|broker| !broker.fenced);
    let joined = image.nodes.values().filter(|node| node.directory().is_some()).count();
    let mut open = image.ledgers.values().filter(|ledger| ledger.end.is_none() && ledger.node != node);
    joined > 2
        && open.any(|ledger| {
            let others = ledger.replicas.iter().filter(|replica| replica.node != node && is_live(replica.node)).count();
            let is_member = ledger.replicas.iter().any(|replica| replica.node == node);
            is_live(ledger.node) && is_member && others < usize::from(ledger.write_quorum)
        })
}

/// What became of the partitions that a node led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteppedDown {
    /// Led by others now.
    pub given: usize,
    /// Others take them when this process is fenced.
    pub left: usize,
    /// The ledger of another node cannot be written without this one.
    pub needed: bool,
}

/// Gives away what `node` leads, for as long as `within`.
pub async fn step_down(quorum: &Quorum, node: NodeId, within: Duration) -> SteppedDown {
    let leads = |image: &Image| partitions(image).filter(|(_, partition)| partition.leader == node).count();
    let mut image = quorum.image();
    if quorum.leads_alone() {
        return SteppedDown::default();
    }
    let before = leads(&image.borrow().clone());
    let giving = async {
        let changes = targets(&image.borrow().clone(), node);
        if !changes.is_empty() {
            tracing::info!(partitions = changes.len(), "partitions are given to other nodes before this one stops");
        }
        for part in changes.chunks(PARTITIONS_PER_COMMAND) {
            // What is refused or lost is taken over later.
            let _ = quorum.propose(&Command::SetTargets { changes: part.to_vec() }).await;
        }
        let gives = !changes.is_empty();
        let waits = |image: &Image| (gives && leads(image) > 0) || is_needed(image, node);
        while waits(&image.borrow_and_update().clone()) && image.changed().await.is_ok() {}
    };
    let _ = timeout(within, giving).await;
    let image = quorum.image().borrow().clone();
    let left = leads(&image);
    SteppedDown { given: before.saturating_sub(left), left, needed: is_needed(&image, node) }
}

/// The process has stopped its work: others may take over at once what it still leads.
pub async fn leave(quorum: &Quorum, node: NodeId, epoch: BrokerEpoch, within: Duration) {
    if !quorum.leads_alone() {
        let _ = timeout(within, quorum.propose(&Command::FenceBroker { node, epoch })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, DirectoryId, EntryId, LedgerId, PartitionId, TopicId, WalIncarnation};
    use crate::metadata::{Ledger, MemoryIndex, Node, NodeState, Replica, Response, apply};

    fn image(brokers: i32) -> Image {
        let (mut image, index) = (Image::default(), MemoryIndex::default());
        let mut must = |command: &Command| {
            let (response, _) = apply(&mut image, command, &index);
            assert!(!matches!(response, Response::Rejected(_)), "{response:?}");
        };
        must(&Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 });
        for node in (1..=brokers).map(NodeId) {
            let (incarnation, version) = (WalIncarnation([node.0 as u8; 16]), String::new());
            must(&Command::RegisterBroker { node, incarnation, boot: 1, endpoints: vec![], version, now_ms: 0 });
        }
        let (id, name, configs) = (TopicId([3; 16]), "t".to_owned(), vec![]);
        let partitions = vec![NodeId(1); 5];
        must(&Command::CreateTopic { id, name, partitions, replication_factor: 1, configs, now_ms: 0 });
        image
    }

    #[test]
    fn everything_goes_to_live_brokers_in_equal_parts() {
        let mut image = image(3);
        let all = |image: &Image| {
            let mut counts = BTreeMap::<NodeId, usize>::new();
            for change in targets(image, NodeId(1)) {
                assert_eq!(change.preferred, None);
                *counts.entry(change.target.expect("a target")).or_default() += 1;
            }
            counts
        };
        assert_eq!(all(&image), BTreeMap::from([(NodeId(2), 3), (NodeId(3), 2)]));
        image.brokers.get_mut(&NodeId(2)).expect("it is registered").fenced = true;
        assert_eq!(all(&image), BTreeMap::from([(NodeId(3), 5)]));
        image.brokers.remove(&NodeId(3));
        assert_eq!(all(&image), BTreeMap::new());
        assert!(image.partition(PartitionId { topic: TopicId([3; 16]), index: 4 }).is_some());
    }

    #[test]
    fn a_node_is_needed_where_a_ledger_has_no_quorum_without_it() {
        let mut image = image(3);
        let replica = |node: i32| Replica { node: NodeId(node), incarnation: WalIncarnation([node as u8; 16]) };
        let epoch = image.brokers[&NodeId(1)].epoch;
        let ledger = |set: &[i32]| Ledger {
            node: NodeId(1),
            epoch,
            replicas: set.iter().copied().map(replica).collect(),
            write_quorum: 2,
            end: None,
            uploaded: EntryId(0),
            uploader: None,
            holders: Vec::new(),
        };
        let (two, three) = (ledger(&[1, 3]), ledger(&[1, 2, 3]));
        let needed = |image: &Image| [1, 2, 3].map(|node| is_needed(image, NodeId(node)));
        image.ledgers.insert(LedgerId(1), three.clone());
        assert_eq!(needed(&image), [false; 3]);
        image.ledgers.insert(LedgerId(1), two.clone());
        assert_eq!(needed(&image), [false; 3], "of no more than two nodes that have joined");
        for id in 1..=3 {
            let node = Node {
                name: format!("n{id}"),
                rack: String::new(),
                host: format!("n{id}.example"),
                port: 9094,
                identity: format!("CN=n{id}"),
                token_sha256: [0; 32],
                state: NodeState::Joined { directory: DirectoryId(id as u32) },
                draining: false,
                added_ms: 0,
            };
            image.nodes.insert(NodeId(id), node);
        }
        assert_eq!(needed(&image), [false, false, true]);
        image.ledgers.insert(LedgerId(1), Ledger { end: Some(EntryId(4)), ..two });
        assert_eq!(needed(&image), [false; 3]);
        image.ledgers.insert(LedgerId(2), three);
        assert_eq!(needed(&image), [false; 3]);
        image.brokers.get_mut(&NodeId(2)).expect("it is registered").fenced = true;
        assert_eq!(needed(&image), [false, false, true], "one of three is gone already");
        image.brokers.get_mut(&NodeId(1)).expect("it is registered").fenced = true;
        assert_eq!(needed(&image), [false; 3], "its writer writes no more");
    }
}
