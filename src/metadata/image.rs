//! The state of the cluster that every node holds in memory and reconciles towards.
//!
//! Large parts are shared: cloning an image copies pointers, and a command copies only what it changes. Invariants:
//! `names` is exactly the names of `topics`; ids only grow and are never given out twice; a partition's `log_start`,
//! `uploaded_end` and `cleaned_end` never move back; its `object_bytes` is the sum over its ranges in the index.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{
    BrokerEpoch, ClusterId, EntryId, LeaderEpoch, LedgerId, NodeId, Offset, PartitionId, TopicId, WalIncarnation,
};

use super::command::{Endpoint, Holder, QuotaEntity, Replica};
use super::node::Node;

/// Settings of resources that have a name and nothing else, by name; none is empty.
pub type NamedConfigs = Arc<BTreeMap<String, BTreeMap<String, String>>>;

/// Quotas by entity, then by Kafka's name; none is empty.
pub type ClientQuotas = Arc<BTreeMap<QuotaEntity, BTreeMap<String, f64>>>;

#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Zero until the cluster is initialised.
    pub cluster: ClusterId,
    pub generation: u64,
    pub brokers: BTreeMap<NodeId, Broker>,
    /// Empty until the first node has recorded itself; then never again, and every broker has its node here.
    pub nodes: BTreeMap<NodeId, Node>,
    pub topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    pub names: Arc<BTreeMap<Arc<str>, TopicId>>,
    /// Ledgers that may still be written or have entries that are not uploaded. A finished one is forgotten when
    /// its node opens the next: an unknown ledger below `next_ledger` is finished.
    pub ledgers: BTreeMap<LedgerId, Ledger>,
    pub cluster_configs: BTreeMap<String, String>,
    pub broker_configs: BTreeMap<NodeId, BTreeMap<String, String>>,
    pub group_configs: NamedConfigs,
    /// Subscriptions to clients' metrics (KIP-714).
    pub client_metrics: NamedConfigs,
    pub client_quotas: ClientQuotas,
    /// Ranges that are to leave the index: of each partition named here, those that end at or below the offset,
    /// except the newest. Of a deleted topic's partition: all.
    pub purge: BTreeMap<PartitionId, Offset>,
    /// Above every node that has or had a record. See [`Image::next_free_node`].
    pub next_node: i32,
    pub next_broker_epoch: i64,
    pub next_ledger: u64,
    pub next_object: u64,
    pub next_producer: i64,
    /// Commands applied, rejected ones included.
    pub applied: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Of the process that registered last; the only one whose commands count.
    pub epoch: BrokerEpoch,
    pub incarnation: WalIncarnation,
    /// Starts on this incarnation.
    pub boot: u64,
    pub endpoints: Vec<Endpoint>,
    pub version: String,
    /// Unix ms.
    pub registered_ms: i64,
    /// The epoch counts no more; the node has to register again.
    pub fenced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The writer.
    pub node: NodeId,
    pub epoch: BrokerEpoch,
    pub replicas: Vec<Replica>,
    pub write_quorum: u8,
    /// Exclusive; `None` while the ledger is open. Set once.
    pub end: Option<EntryId>,
    /// Entries below are in object storage.
    pub uploaded: EntryId,
    /// Who uploads it, when that is not its writer.
    pub uploader: Option<NodeId>,
    /// Of a ledger that was recovered: who has its end. The replicas have what they had synced.
    pub holders: Vec<Holder>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
    /// By index.
    pub partitions: Vec<Arc<Partition>>,
    /// Unix ms.
    pub created_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: NodeId,
    pub leader_epoch: LeaderEpoch,
    /// First offset of each leader epoch, as far as it is uploaded; both ascending. Epochs that end at or below
    /// the log start are left out.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// First offset that may be read; may be above `uploaded_end` after DeleteRecords.
    pub log_start: Offset,
    /// Offsets below are in object storage or were dropped from it. The range that ends here is always in the index:
    /// its object holds the newest producer state. It may lie wholly below the log start, where nobody may read it.
    pub uploaded_end: Offset,
    /// Bytes of the batches in object storage, those of a kept newest range included.
    pub object_bytes: u64,
    /// Offsets below were compacted; what follows is dirty. Zero where nothing ever was; never above `uploaded_end`, and
    /// possibly below `log_start`.
    pub cleaned_end: Offset,
    /// Who is to lead it: the leader hands it over as soon as it can. A broker that is registered and not fenced, and not
    /// the leader.
    pub target: Option<NodeId>,
    /// `Image::applied` when the target was set, by which the leader names this wish and no other; zero without a target.
    pub target_since: u64,
    /// Who should lead it when everything is well: the first of Kafka's replicas.
    pub preferred: NodeId,
    /// The end of what a live leader last handed over. A leader serves when it has everything below; it never moves back.
    pub handed_over: Offset,
}

impl Default for Image {
    fn default() -> Self {
        Image {
            cluster: ClusterId::default(),
            generation: 0,
            brokers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            topics: Arc::default(),
            names: Arc::default(),
            ledgers: BTreeMap::new(),
            cluster_configs: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            group_configs: Arc::default(),
            client_metrics: Arc::default(),
            client_quotas: Arc::default(),
            purge: BTreeMap::new(),
            next_node: 1,
            next_broker_epoch: 1,
            next_ledger: 1,
            next_object: 1,
            next_producer: 0,
            applied: 0,
        }
    }
}

impl Ledger {
    /// The node that uploads the ledger.
    pub fn uploader(&self) -> NodeId {
        self.uploader.unwrap_or(self.node)
    }

    /// Nothing is missing from object storage and nothing can be added.
    pub fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.uploaded >= end)
    }
}

impl Partition {
    pub fn new(leader: NodeId) -> Self {
        Partition {
            leader,
            leader_epoch: LeaderEpoch(0),
            epochs: Vec::new(),
            log_start: Offset::ZERO,
            uploaded_end: Offset::ZERO,
            object_bytes: 0,
            cleaned_end: Offset::ZERO,
            target: None,
            target_since: 0,
            preferred: leader,
            handed_over: Offset::ZERO,
        }
    }
}

impl Image {
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    pub fn partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.topics.get(&id.topic)?.partitions.get(usize::try_from(id.index).ok()?)
    }

    /// Whether the process that wrote the ledger can change nothing any more: it was fenced, or another has registered.
    pub fn is_writer_fenced(&self, ledger: &Ledger) -> bool {
        self.brokers.get(&ledger.node).is_none_or(|broker| broker.fenced || broker.epoch != ledger.epoch)
    }

    /// Whether the WAL must keep this entry: it may hold records that are nowhere else. Entries at or beyond a
    /// sealed end are void. A ledger that these metadata have never given out is kept: they are older than the WAL.
    pub fn needs(&self, ledger: LedgerId, entry: EntryId) -> bool {
        match self.ledgers.get(&ledger) {
            Some(known) => entry >= known.uploaded && known.end.is_none_or(|end| entry < end),
            None => ledger.0 >= self.next_ledger,
        }
    }
}
