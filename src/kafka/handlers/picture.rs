//! What Kafka's clients see of a cluster of several nodes: brokers, and of each partition its leader and replicas.
//!
//! Nobody but the leader of a partition has a log of it: what stands behind it are the replicas of the leader's ledger. So
//! these are what is shown, at most as many as the topic's replication factor: in sync is who is in the set of the newest
//! ledger and not fenced. A broker that is down and has left the set is shown as a replica that is offline, as long as the
//! set is smaller than it should be: tools would not find the partition under-replicated otherwise.
//!
//! Pure: the image goes in. Invariants: a leader is never shown without being in sync, nor a fenced broker as one.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;

use crate::base::{LeaderEpoch, NodeId, PartitionId, TopicId};
use crate::metadata::{Broker, Endpoint, Image, Ledger, Partition, Topic};

/// Brokers that a ledger is kept on, where there are as many.
const LEDGER_REPLICAS: usize = 3;
/// Stands for no broker at all.
pub(super) const NOBODY: i32 = -1;
/// Stands for no leader epoch at all.
const NO_EPOCH: i32 = -1;

/// The cluster as the clients of one listener see it.
pub(super) struct Picture<'a> {
    image: &'a Image,
    listener: &'a str,
    /// The newest ledger of each writer.
    ledgers: BTreeMap<NodeId, &'a Ledger>,
}

/// A broker as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShownBroker<'a> {
    pub node: NodeId,
    pub endpoint: &'a Endpoint,
    pub rack: Option<&'a str>,
    pub fenced: bool,
}

/// A partition as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownPartition {
    /// Why there is no leader.
    pub error: Option<ResponseError>,
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    /// The preferred leader first, where it is one of them; then the leader.
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
    pub offline: Vec<NodeId>,
}

impl<'a> Picture<'a> {
    pub fn new(image: &'a Image, listener: &'a str) -> Self {
        // By id, which grow: the last one stays.
        let ledgers = image.ledgers.values().map(|ledger| (ledger.node, ledger)).collect();
        Picture { image, listener, ledgers }
    }

    pub fn image(&self) -> &'a Image {
        self.image
    }

    fn broker(&self, node: NodeId) -> Option<&'a Broker> {
        self.image.brokers.get(&node)
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.broker(node).is_some_and(|broker| !broker.fenced)
    }

    /// Where clients of the listener reach a broker, fenced or not; `None` if it has no such listener.
    fn endpoint(&self, node: NodeId) -> Option<&'a Endpoint> {
        self.broker(node)?.endpoints.iter().find(|endpoint| *endpoint.listener == *self.listener)
    }

    /// Where a broker that is not fenced is reached.
    pub fn live_endpoint(&self, node: NodeId) -> Option<&'a Endpoint> {
        self.endpoint(node).filter(|_| self.is_live(node))
    }

    /// Where a broker is; `None` if nobody said.
    pub fn rack(&self, node: NodeId) -> Option<&'a str> {
        self.image.nodes.get(&node).map(|node| node.rack.as_str()).filter(|rack| !rack.is_empty())
    }

    /// All registered brokers that have the listener.
    pub fn brokers(&self) -> impl Iterator<Item = ShownBroker<'a>> {
        self.image.brokers.iter().filter_map(|(node, broker)| {
            let endpoint = self.endpoint(*node)?;
            Some(ShownBroker { node: *node, endpoint, rack: self.rack(*node), fenced: broker.fenced })
        })
    }

    /// The broker that administrative requests had best go to. Any takes them; a real broker names any that is alive. The
    /// leader of the metadata quorum needs no other node to carry them out.
    pub fn controller(&self, quorum_leader: Option<NodeId>, this: NodeId) -> NodeId {
        quorum_leader.filter(|leader| self.live_endpoint(*leader).is_some()).unwrap_or(this)
    }

    /// The leader of a partition if it is not fenced, with its epoch (KIP-951).
    pub fn leader(&self, partition: &Partition) -> (Option<NodeId>, LeaderEpoch) {
        (Some(partition.leader).filter(|leader| self.is_live(*leader)), partition.leader_epoch)
    }

    /// Brokers that hold the ledger of a writer, itself first.
    fn ledger_set(&self, writer: NodeId) -> Vec<NodeId> {
        let ledger = self.ledgers.get(&writer);
        let others = ledger.into_iter().flat_map(|ledger| &ledger.replicas).map(|replica| replica.node);
        let mut others: Vec<_> = others.filter(|node| *node != writer).collect();
        // From the writer on around the ring: so the first of many partitions are spread, too.
        others.sort_unstable_by_key(|node| (*node < writer, *node));
        std::iter::once(writer).chain(others).collect()
    }

    pub fn partition(&self, topic: &Topic, partition: &Partition) -> ShownPartition {
        let wanted = usize::try_from(topic.replication_factor).unwrap_or(1).max(1);
        let preferred = partition.preferred;
        let set = self.ledger_set(partition.leader);
        let mut replicas = set.clone();
        // The leader stays first when the others are cut, and the preferred one is the last to go.
        replicas[1..].sort_by_key(|node| *node != preferred);
        replicas.truncate(wanted);
        let missing = wanted.min(LEDGER_REPLICAS).saturating_sub(replicas.len());
        let gone = self.image.brokers.iter().filter(|(node, broker)| broker.fenced && !replicas.contains(node));
        let gone: Vec<_> = gone.map(|(node, _)| *node).take(missing).collect();
        replicas.extend(gone);
        let in_sync = |node: &&NodeId| set.contains(*node) && self.is_live(**node);
        let mut isr: Vec<_> = replicas.iter().filter(in_sync).copied().collect();
        if isr.is_empty() {
            isr.push(partition.leader);
        }
        replicas.sort_by_key(|node| *node != preferred);
        let offline = replicas.iter().filter(|node| self.live_endpoint(**node).is_none()).copied().collect();
        let (leader, leader_epoch) = self.leader(partition);
        let reached = leader.filter(|leader| self.endpoint(*leader).is_some());
        let error = match (leader, reached) {
            (_, Some(_)) => None,
            (Some(_), None) => Some(ResponseError::ListenerNotFound),
            (None, None) => Some(ResponseError::LeaderNotAvailable),
        };
        ShownPartition { error, leader: reached, leader_epoch, replicas, isr, offline }
    }
}

/// Leaders that an answer has named, each of whose addresses it gives once (KIP-951).
#[derive(Default)]
pub(super) struct Leaders(BTreeSet<NodeId>);

impl Leaders {
    /// The leader of a partition and its epoch, −1 each where they are not known. The topic is named, or by its id.
    pub fn name(&mut self, picture: &Picture<'_>, topic: &str, id: TopicId, index: i32) -> (i32, i32) {
        let id = if id.is_zero() { picture.image.names.get(topic).copied() } else { Some(id) };
        let Some(partition) = id.and_then(|topic| picture.image.partition(PartitionId { topic, index })) else {
            return (NOBODY, NO_EPOCH);
        };
        let (leader, epoch) = picture.leader(partition);
        self.0.extend(leader);
        (leader.map_or(NOBODY, |leader| leader.0), epoch.0)
    }

    /// Where the named leaders are, as far as clients of the listener reach them.
    pub fn endpoints<'a>(self, picture: &Picture<'a>) -> impl Iterator<Item = (NodeId, &'a Endpoint)> {
        self.0.into_iter().filter_map(|node| Some((node, picture.live_endpoint(node)?)))
    }
}

/// Nodes as the wire has them.
pub(super) fn ids(nodes: &[NodeId]) -> Vec<BrokerId> {
    nodes.iter().map(|node| BrokerId(node.0)).collect()
}
