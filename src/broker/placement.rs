//! Where partitions are led: new ones by who leads least, others by the wish of an administrator.
//!
//! Only the leader of a partition is chosen here. Its replicas are those of the leader's ledger, which the ledger chooses.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{NodeId, PartitionId};
use crate::metadata::{Command, Image, TargetChange, Topic};
use crate::security::{Operation, Permit, Resource};

use super::{Broker, ChangeError};

/// Whether the broker of a node may be given partitions: it is not fenced, and not to give away what it has.
pub fn takes_partitions(image: &Image, node: NodeId) -> bool {
    image.brokers.get(&node).is_some_and(|broker| !broker.fenced) && !image.is_draining(node)
}

/// Leaders of `count` new partitions, of a topic that may have others: spread evenly over the topic, then over all, and
/// over the racks in turns. Empty only where no broker is live.
pub fn spread_leaders(image: &Image, topic: Option<&Topic>, count: usize) -> Vec<NodeId> {
    let mut brokers: Vec<NodeId> =
        image.brokers.keys().copied().filter(|node| takes_partitions(image, *node)).collect();
    if brokers.is_empty() {
        // A drain of everything there is ends nowhere else.
        brokers = image.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(node, _)| *node).collect();
    }
    let mut load: Vec<Load> = by_racks(image, brokers).into_iter().map(Load::new).collect();
    for partition in image.topics.values().flat_map(|topic| &topic.partitions) {
        count_in(&mut load, partition.leader, |load| load.in_all += 1);
    }
    for partition in topic.into_iter().flat_map(|topic| &topic.partitions) {
        count_in(&mut load, partition.leader, |load| load.in_topic += 1);
    }
    let mut leaders = Vec::with_capacity(count);
    for _ in 0..count {
        // The first of equals.
        let Some(least) = load.iter_mut().min_by_key(|load| (load.in_topic, load.in_all)) else { break };
        least.in_topic += 1;
        least.in_all += 1;
        leaders.push(least.node);
    }
    leaders
}

/// How many partitions a broker leads.
struct Load {
    node: NodeId,
    in_topic: usize,
    in_all: usize,
}

impl Load {
    fn new(node: NodeId) -> Load {
        Load { node, in_topic: 0, in_all: 0 }
    }
}

fn count_in(load: &mut [Load], leader: NodeId, count: impl FnOnce(&mut Load)) {
    if let Some(load) = load.iter_mut().find(|load| load.node == leader) {
        count(load);
    }
}

/// The brokers, one of each rack in turns.
fn by_racks(image: &Image, brokers: Vec<NodeId>) -> Vec<NodeId> {
    let mut racks: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for node in &brokers {
        let rack = image.nodes.get(node).map_or("", |node| node.rack.as_str());
        racks.entry(rack).or_default().push(*node);
    }
    let rounds = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..rounds).flat_map(|round| racks.values().filter_map(move |rack| rack.get(round).copied())).collect()
}

impl Broker {
    /// Wishes who is to lead partitions; the moves follow. Of more changes than one command holds, those before a failure
    /// stand. `permit` is for altering the cluster.
    pub async fn set_targets(&self, permit: &Permit, changes: &[TargetChange]) -> Result<(), ChangeError> {
        assert!(permit.covers(Operation::Alter, Resource::CLUSTER));
        for changes in changes.chunks(COMMAND_PARTITIONS_MAX) {
            self.propose(Command::SetTargets { changes: changes.to_vec() }).await?;
        }
        Ok(())
    }

    /// Waits until each of the partitions is led by the node beside it, or is gone, or `patience` is over.
    pub async fn wait_for_leaders(&self, moving: &[(PartitionId, NodeId)], patience: Duration) {
        let mut image = self.image.clone();
        let there = |image: &Image| {
            moving.iter().all(|(id, leader)| image.partition(*id).is_none_or(|partition| partition.leader == *leader))
        };
        // In the end the image shows who got there; so does one that changes no more.
        let _ = tokio::time::timeout(patience, image.wait_for(|image| there(image))).await;
    }

    /// Forgets a node that is gone. `permit` is for altering the cluster.
    pub async fn remove_node(&self, permit: &Permit, node: NodeId) -> Result<(), ChangeError> {
        assert!(permit.covers(Operation::Alter, Resource::CLUSTER));
        self.propose(Command::RemoveNode { node, now_ms: self.clock.wall_ms() }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerEpoch, DirectoryId, TopicId, WalIncarnation};
    use crate::metadata::{Broker, Node, NodeState, Partition};
    use std::sync::Arc;

    /// Brokers from 1 on, each in the rack given.
    fn image(racks: &[&str]) -> Image {
        let mut image = Image::default();
        for (id, rack) in (1..).zip(racks) {
            let broker = Broker {
                epoch: BrokerEpoch(1),
                incarnation: WalIncarnation([1; 16]),
                boot: 1,
                endpoints: Vec::new(),
                version: String::new(),
                registered_ms: 0,
                fenced: false,
            };
            let node = Node {
                name: format!("n{id}"),
                rack: rack.to_string(),
                host: "h".to_owned(),
                port: 1,
                identity: String::new(),
                token_sha256: [0; 32],
                state: NodeState::Joined { directory: DirectoryId(1) },
                added_ms: 0,
                draining: false,
            };
            image.brokers.insert(NodeId(id), broker);
            image.nodes.insert(NodeId(id), node);
        }
        image
    }

    fn topic(leaders: &[i32]) -> Topic {
        Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            replication_factor: 1,
            configs: BTreeMap::new(),
            partitions: leaders.iter().map(|leader| Arc::new(Partition::new(NodeId(*leader)))).collect(),
            created_ms: 0,
        }
    }

    fn spread(image: &Image, topic: Option<&Topic>, count: usize) -> Vec<i32> {
        spread_leaders(image, topic, count).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn partitions_go_around_the_racks() {
        assert_eq!(spread(&image(&["a", "a", "b", "b"]), None, 6), [1, 3, 2, 4, 1, 3]);
        assert_eq!(spread(&image(&["", "", ""]), None, 4), [1, 2, 3, 1]);
    }

    #[test]
    fn who_leads_least_comes_first_and_no_broker_gets_two_of_a_topic_before_all_have_one() {
        let mut image = image(&["", "", ""]);
        image.topics = Arc::new(BTreeMap::from([(TopicId([9; 16]), Arc::new(topic(&[1, 1, 1, 2, 2])))]));
        assert_eq!(spread(&image, None, 3), [3, 2, 1]);
        // More partitions for a topic: where it has fewest.
        assert_eq!(spread(&image, Some(&topic(&[3, 3, 2])), 3), [1, 2, 1]);
    }

    #[test]
    fn who_is_fenced_or_drained_is_left_out() {
        let mut image = image(&["", "", ""]);
        image.brokers.get_mut(&NodeId(1)).unwrap().fenced = true;
        image.nodes.get_mut(&NodeId(2)).unwrap().draining = true;
        assert_eq!(spread(&image, None, 2), [3, 3]);
        image.brokers.get_mut(&NodeId(3)).unwrap().fenced = true;
        assert_eq!(spread(&image, None, 1), [2]);
        image.brokers.clear();
        assert!(spread(&image, None, 1).is_empty());
    }
}
