//! A node that is about to stop gives away what it leads, so that nobody has to find out that it is gone.

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

/// What became of the partitions that a node led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteppedDown {
    /// Led by others now.
    pub given: usize,
    /// Others take them when this process is fenced.
    pub left: usize,
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
        if changes.is_empty() {
            return;
        }
        tracing::info!(partitions = changes.len(), "partitions are given to other nodes before this one stops");
        for part in changes.chunks(PARTITIONS_PER_COMMAND) {
            // What is refused or lost is taken over later.
            let _ = quorum.propose(&Command::SetTargets { changes: part.to_vec() }).await;
        }
        while leads(&image.borrow_and_update().clone()) > 0 && image.changed().await.is_ok() {}
    };
    let _ = timeout(within, giving).await;
    let left = leads(&quorum.image().borrow().clone());
    SteppedDown { given: before.saturating_sub(left), left }
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
    use crate::base::{ClusterId, PartitionId, TopicId, WalIncarnation};
    use crate::metadata::{MemoryIndex, Response, apply};

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
}
