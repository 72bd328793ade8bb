//! What a command answers: a value, or the one rule that it broke.
//!
//! A `Reject` names what the proposer needs in order to act: retry with other values, stop, or tell the client.

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId, ObjectId, Offset, PartitionId, ProducerId, TopicId};

use super::index::ObjectState;

/// Ledgers named in one rejection.
pub(super) const WAL_REPLACED_LEDGERS_MAX: usize = 16;

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
    /// At most [`WAL_REPLACED_LEDGERS_MAX`] ledgers are named.
    #[error(
        "the WAL of node {node} is another one than before, and ledgers {} may hold records that only the former has: \
         put the former folder wal back, or its disk: no command of this release gives up what only it has",
        ledgers.iter().map(|ledger| ledger.to_string()).collect::<Vec<_>>().join(", ")
    )]
    WalReplaced { node: NodeId, ledgers: Vec<LedgerId> },
    #[error("boot count {boot} is not above {recorded}: an older copy of the node's folder was started")]
    BootCount { boot: u64, recorded: u64 },
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
}
