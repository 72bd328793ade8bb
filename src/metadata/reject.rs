//! What a command answers: a value, or the one rule that it broke.
//!
//! A `Reject` names what the proposer needs in order to act: retry with other values, stop, or tell the client.

use crate::base::{
    BrokerEpoch, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId, ProducerId, TopicId,
};

use super::index::ObjectState;

/// Ledgers named in one rejection.
pub(super) const REJECT_LEDGERS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Ok,
    BrokerEpoch(BrokerEpoch),
    Ledger(LedgerId),
    /// `count` ids from `first` on.
    ProducerIds {
        first: ProducerId,
        count: u32,
    },
    /// `count` ids from `first` on.
    Objects {
        first: ObjectId,
        count: u32,
    },
    Rejected(Reject),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    #[error("the metadata belong to no cluster yet")]
    NotInitialized,
    #[error("the metadata belong to another cluster, or to another generation of this one")]
    ClusterMismatch,
    #[error("{what} is more than the metadata hold ({limit})")]
    TooMany { what: String, limit: u64 },
    #[error("{0} is impossible")]
    Invalid(String),
    #[error("broker epoch {epoch} of node {node} is not the present one")]
    StaleBrokerEpoch { node: NodeId, epoch: BrokerEpoch },
    #[error("broker epoch {epoch} of node {node} is fenced: the process has to register again")]
    Fenced { node: NodeId, epoch: BrokerEpoch },
    #[error("the process that writes ledger {0} is not fenced")]
    WriterNotFenced(LedgerId),
    #[error("node {0} is not registered")]
    UnknownBroker(NodeId),
    /// At most [`REJECT_LEDGERS_MAX`] ledgers are named.
    #[error(
        "the WAL of node {node} is another one than before, and ledgers {} may hold records that only the former has: \
         put the former folder wal back, or its disk: no command of this release gives up what only it has",
        list(ledgers)
    )]
    WalReplaced { node: NodeId, ledgers: Vec<LedgerId> },
    #[error("boot count {boot} is not above {recorded}: an older copy of the node's folder was started")]
    BootCount { boot: u64, recorded: u64 },
    #[error("the broker of node {0} is fenced: wait until it has registered again, or take another node")]
    BrokerFenced(NodeId),
    #[error("the replica set is impossible: {0}")]
    ReplicaSet(String),
    #[error("ledger {0} is unknown")]
    UnknownLedger(LedgerId),
    #[error("ledger {0} has to be sealed first")]
    UnsealedLedger(LedgerId),
    #[error("ledger {ledger} belongs to node {owner}")]
    LedgerOwner { ledger: LedgerId, owner: NodeId },
    #[error("the ledger was sealed at {end}")]
    SealedElsewhere { end: EntryId },
    #[error("the end would be below {uploaded}, which is uploaded already")]
    EndBelowUploaded { uploaded: EntryId },
    #[error("uploads of the ledger go on at {uploaded}{}", end.map_or(String::new(), |end| format!(" and end at {end}")))]
    UploadPosition { uploaded: EntryId, end: Option<EntryId> },
    #[error("topic name {0:?} is not allowed")]
    InvalidTopicName(String),
    #[error("the topic exists already")]
    TopicExists { id: TopicId },
    #[error("the topic id is in use or was")]
    TopicIdInUse,
    #[error("the topic name differs from {existing:?} only in '.' and '_'")]
    TopicNameCollision { existing: String },
    #[error("the topic does not exist")]
    UnknownTopic,
    #[error("partition {0} does not exist")]
    UnknownPartition(PartitionId),
    #[error("the leader epoch of partition {partition} is {epoch} by now")]
    StaleLeaderEpoch { partition: PartitionId, epoch: LeaderEpoch },
    #[error("partition {partition} is led by node {leader}")]
    NotLeader { partition: PartitionId, leader: NodeId },
    #[error("the broker of node {0} leads and is not fenced")]
    LeaderNotFenced(NodeId),
    #[error("partition {0} is to stay where it is")]
    NoTarget(PartitionId),
    #[error("the wish that partition {0} moves was taken back; another one has come since")]
    TargetChanged(PartitionId),
    #[error("partition {partition} has reached offset {reached} already")]
    EndMovedBack { partition: PartitionId, reached: Offset },
    #[error("node {0} is being drained: take another node, or end the drain first")]
    NodeDraining(NodeId),
    #[error("the topic has {count} partitions")]
    PartitionCount { count: i32 },
    #[error("{0} is no valid replication factor")]
    ReplicationFactor(i16),
    #[error("the settings have changed meanwhile")]
    ConfigsChanged,
    #[error("object {0} is unknown")]
    UnknownObject(ObjectId),
    #[error("object {object} is {state:?}")]
    ObjectState { object: ObjectId, state: ObjectState },
    #[error("uploads of partition {partition} go on at {uploaded_end}")]
    NotContiguous { partition: PartitionId, uploaded_end: Offset },
    #[error("the leader epochs of partition {partition} would not ascend")]
    EpochRegression { partition: PartitionId },
    #[error("partition {partition} has no range at {base} in the named object any more")]
    InputGone { partition: PartitionId, base: Offset },
    #[error("the outputs do not cover what the inputs cover of partition {partition}")]
    Coverage { partition: PartitionId },
    #[error("node {0} does not belong to the cluster: add it, and join with the bundle that is made for it")]
    UnknownNode(NodeId),
    #[error("node {0} was invited and has not joined: start it with its join bundle first")]
    NodeNotJoined(NodeId),
    #[error("node id {node} is in use or was: take {next}")]
    NodeIdInUse { node: NodeId, next: NodeId },
    #[error("the {what} is that of node {node}: choose another one, or remove that node first")]
    NodeConflict { what: String, node: NodeId },
    #[error("the first node has no record of its own yet: start it once with a peer address, then add others")]
    NoNodeRecord,
    #[error("node {0} cannot record itself beside others: add it, and join with the bundle that is made for it")]
    NotFirstNode(NodeId),
    #[error("this is not the token that node {0} was invited with: join with the newest bundle made for it")]
    WrongToken(NodeId),
    #[error("the token is that of node {owner}, not of node {node}: use each bundle for its own node")]
    TokenOfOtherNode { node: NodeId, owner: NodeId },
    #[error(
        "the join bundle of node {0} was used already, with another metadata folder: start that one, or remove the \
         node and add it again for a new bundle"
    )]
    TokenUsed(NodeId),
    /// Unix ms.
    #[error(
        "the invitation of node {node} expired (at {expires_ms} ms of Unix time): remove the node and add it again for \
         a new bundle"
    )]
    TokenExpired { node: NodeId, expires_ms: i64 },
    #[error(
        "node {0} has joined with another metadata folder: put that folder back, or remove the node and add it again \
         under a new id"
    )]
    OtherDirectory(NodeId),
    #[error("node {node} leads {partitions} partitions: move them to other nodes first")]
    NodeLeads { node: NodeId, partitions: u64 },
    /// At most [`REJECT_LEDGERS_MAX`] ledgers are named.
    #[error(
        "node {node} has ledgers that are not wholly in object storage ({}): stop its process, and wait until they are",
        list(ledgers)
    )]
    NodeHoldsLedgers { node: NodeId, ledgers: Vec<LedgerId> },
    #[error("no node would be left to take what node {0} has: add another one first, or end another drain")]
    NowhereToDrain(NodeId),
    #[error("node {0} is the only one of the cluster: it cannot be removed")]
    LastNode(NodeId),
}

fn list(ledgers: &[LedgerId]) -> String {
    ledgers.iter().map(|ledger| ledger.to_string()).collect::<Vec<_>>().join(", ")
}
