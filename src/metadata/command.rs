//! What the cluster can be asked to change: one variant per command, each with everything that its effect depends on.
//!
//! A command that carries `node` and `epoch` is refused unless `epoch` is the one that the quorum gave that node
//! last: a broker that was replaced or fenced changes nothing any more. `now_ms` is the proposer's wall clock (Unix
//! milliseconds); it is recorded for people and for grace periods and decides no question of safety.

use crate::base::{
    BrokerEpoch, ClusterId, DirectoryId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId,
    TopicId, WalIncarnation,
};

use super::index::RangeEntry;
use super::node::TokenHash;

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// First command of a cluster. Again with the same values is success.
    InitCluster {
        cluster: ClusterId,
        generation: u64,
    },
    /// A broker process has started. Answers `BrokerEpoch`; raises the leader epoch of every partition that the
    /// node leads. `boot` counts the starts on this WAL incarnation.
    RegisterBroker {
        node: NodeId,
        incarnation: WalIncarnation,
        boot: u64,
        endpoints: Vec<Endpoint>,
        version: String,
        now_ms: i64,
    },
    /// Opens a ledger for the node and, in the same step, closes the one it wrote until now at an exclusive end.
    /// Answers `Ledger`.
    OpenLedger {
        node: NodeId,
        epoch: BrokerEpoch,
        replicas: Vec<Replica>,
        write_quorum: u8,
        close: Option<(LedgerId, EntryId)>,
    },
    /// Sets the end (exclusive) of a ledger, once. The same value again is success. `by` is the writer, which ends it itself;
    /// without it only a ledger with one replica can be sealed, as releases did that knew no others.
    SealLedger {
        ledger: LedgerId,
        end: EntryId,
        by: Option<(NodeId, BrokerEpoch)>,
    },
    /// The broker is taken for dead, or is to stop: from now on this epoch changes nothing, so its ledgers can be recovered.
    /// The process has to register again. For an epoch that is fenced already it is success.
    FenceBroker {
        node: NodeId,
        epoch: BrokerEpoch,
    },
    /// Sets the end (exclusive) of a ledger whose writer is fenced, once, as a recoverer has found it; the same end again is
    /// success and changes nothing. `uploader` uploads it from now on.
    RecoverLedger {
        ledger: LedgerId,
        end: EntryId,
        holders: Vec<Holder>,
        uploader: NodeId,
    },
    /// This broker uploads the ledger, which has an end, from now on.
    NameUploader {
        ledger: LedgerId,
        node: NodeId,
        epoch: BrokerEpoch,
    },
    /// The partitions of brokers that are gone get other leaders: all of the changes or none. Refused unless each partition
    /// has the leader epoch that the proposer saw, the broker that leads it is fenced or unknown and every ledger that its
    /// node wrote has an end, and the new leader is a broker that is not fenced. Raises the leader epochs. Where the new
    /// leader's log ends follows from the ends of the ledgers; `Partition::handed_over` stays as it is.
    AssignPartitions {
        changes: Vec<Assignment>,
    },
    /// The leader gives the partition to its target, whose broker is not fenced. Proposed when the last record is durable;
    /// `end` is the offset behind it, and never below what was handed over or uploaded before. Raises the leader epoch.
    HandOver {
        node: NodeId,
        epoch: BrokerEpoch,
        partition: PartitionId,
        leader_epoch: LeaderEpoch,
        end: Offset,
        /// `Partition::target_since` as the leader saw it.
        target_since: u64,
    },
    /// Wishes who is to lead partitions, or takes such wishes back: all of the changes or none. A target is a broker that is
    /// neither fenced nor of a node that is being drained; the present leader as a target is no target.
    SetTargets {
        changes: Vec<TargetChange>,
    },
    /// The node is to lead nothing and to hold nothing that is not uploaded, or is to be a node like others again. Refused if no
    /// other node would be left.
    DrainNode {
        node: NodeId,
        draining: bool,
    },
    /// `partitions` names the leader of each partition, who is its preferred one, too; `configs` are stored as given.
    CreateTopic {
        id: TopicId,
        name: String,
        partitions: Vec<NodeId>,
        replication_factor: i16,
        configs: Vec<(String, String)>,
        now_ms: i64,
    },
    DeleteTopic {
        id: TopicId,
        now_ms: i64,
    },
    /// Adds one partition per leader. `first_index` is the number of partitions that the proposer saw: the command
    /// is refused if another one came in between.
    CreatePartitions {
        id: TopicId,
        first_index: i32,
        leaders: Vec<NodeId>,
    },
    /// All of the changes or none.
    AlterConfigs {
        changes: Vec<ConfigChange>,
    },
    /// All of the changes or none, and none if the settings of a resource that `expected` names are not exactly those:
    /// what was read to make the changes may not have changed since.
    AlterExpectedConfigs {
        expected: Vec<(ConfigResource, Vec<(String, String)>)>,
        changes: Vec<ConfigChange>,
    },
    /// All of the changes or none.
    AlterClientQuotas {
        changes: Vec<QuotaChange>,
    },
    /// Answers `ProducerIds`: a contiguous block that is never given out again.
    AllocateProducerIds {
        node: NodeId,
        epoch: BrokerEpoch,
        count: u32,
    },
    /// Answers `Objects`: contiguous ids of objects that this broker epoch may now write.
    PrepareObjects {
        node: NodeId,
        epoch: BrokerEpoch,
        count: u32,
        now_ms: i64,
    },
    /// The entries `from..through` of `ledger` are in `object`. `from` is the ledger's uploaded position. The
    /// ranges of each partition begin at its uploaded end; ranges of topics that were deleted meanwhile are
    /// skipped, those wholly below the log start are dropped at once. Without any range the object counts as
    /// dropped, but the ledger's uploaded position moves.
    /// Given again after it was carried out it is refused with `Reject::UploadPosition`, which shows how far the
    /// ledger is uploaded.
    CommitUpload {
        node: NodeId,
        epoch: BrokerEpoch,
        object: ObjectId,
        object_bytes: u64,
        ledger: LedgerId,
        from: EntryId,
        through: EntryId,
        ranges: Vec<Range>,
        now_ms: i64,
    },
    /// Replaces the inputs' ranges by the outputs', which cover exactly the same offsets of each partition; offsets
    /// below the log start may be left out. Partitions of topics that were deleted meanwhile are skipped; those that another
    /// node leads refuse the whole.
    /// Log compaction is a merge whose outputs have fewer records: `cleaned` then says up to which offset (exclusive)
    /// a partition is compact. It never moves back, and never beyond what is uploaded.
    CommitMerge {
        node: NodeId,
        epoch: BrokerEpoch,
        inputs: Vec<MergeInput>,
        outputs: Vec<MergeOutput>,
        cleaned: Vec<(PartitionId, Offset)>,
        now_ms: i64,
    },
    /// Prepared objects that nobody will commit; committed before a sweep deletes their bytes. Refused as a whole
    /// if one of them is (or was) live; an aborted one again is success.
    AbortObjects {
        objects: Vec<ObjectId>,
        now_ms: i64,
    },
    /// Moves log starts forward and drops the ranges wholly below. An offset at or below the present log start, or a
    /// partition that is gone, is passed over.
    AdvanceLogStart {
        changes: Vec<(PartitionId, Offset)>,
        now_ms: i64,
    },
    /// Takes the next bounded number of ranges that `Image::purge` names out of the index. Proposed until `purge`
    /// is empty.
    PurgeRanges {
        now_ms: i64,
    },
    /// The bytes of these dropped or aborted objects are gone from the store: forget them. Unknown ones are passed
    /// over.
    SweepObjects {
        objects: Vec<ObjectId>,
    },
    /// Invites a node: until `expires_ms` whoever has its certificate and the token may join under this id. `node` was
    /// never a node's id: see `Image::next_free_node`.
    AddNode {
        node: NodeId,
        name: String,
        rack: String,
        host: String,
        port: u16,
        identity: String,
        token_sha256: TokenHash,
        expires_ms: i64,
        now_ms: i64,
    },
    /// The invited node belongs to the cluster from now on, with this metadata folder; its token is used up. Again with
    /// the same folder is success. Whether an invitation has expired is asked of `now_ms`: that decides about
    /// convenience, and the token about safety.
    JoinNode {
        node: NodeId,
        token_sha256: TokenHash,
        directory: DirectoryId,
        now_ms: i64,
    },
    /// Forgets a node and its broker, or an invitation. The id is never given out again. Whoever proposes it has taken
    /// the node out of the quorum.
    RemoveNode {
        node: NodeId,
        now_ms: i64,
    },
    /// The first node of a cluster records itself; later it changes its record by the same command, as any node may that
    /// has joined. Never its folder.
    RegisterSelf {
        node: NodeId,
        name: String,
        rack: String,
        host: String,
        port: u16,
        identity: String,
        directory: DirectoryId,
        now_ms: i64,
    },
}

impl Command {
    /// The node that alone may propose this, where that is so: what it says about itself.
    pub fn only_by(&self) -> Option<NodeId> {
        match self {
            Command::RegisterSelf { node, .. } | Command::JoinNode { node, .. } => Some(*node),
            _ => None,
        }
    }
}

/// A partition whose leader is gone, and who is to lead it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub partition: PartitionId,
    /// The present one.
    pub leader_epoch: LeaderEpoch,
    pub leader: NodeId,
}

/// Who is wished to lead a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetChange {
    pub partition: PartitionId,
    /// `None` calls a move off.
    pub target: Option<NodeId>,
    /// `None` leaves it as it is.
    pub preferred: Option<NodeId>,
}

/// An address under which a broker's listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub listener: String,
    pub host: String,
    pub port: u16,
}

/// A copy of a ledger: a node together with the WAL that it had when the ledger was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    pub node: NodeId,
    pub incarnation: WalIncarnation,
}

/// A WAL that has every entry of a ledger from `from` up to its end, but for what is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    pub replica: Replica,
    pub from: EntryId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub resource: ConfigResource,
    pub name: String,
    /// `None` takes the setting back to its default.
    pub value: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// By name.
    Topic(String),
    Broker(NodeId),
    /// The default of all brokers.
    Cluster,
    /// A consumer group, which need not exist.
    Group(String),
    /// A subscription to clients' metrics (KIP-714). It exists as long as it has a setting.
    ClientMetrics(String),
}

/// Whom a client quota is for (KIP-13, KIP-612): a user, a client id, both, or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct QuotaEntity {
    pub user: Option<QuotaName>,
    pub client_id: Option<QuotaName>,
    pub ip: Option<QuotaName>,
}

/// One part of a quota's entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaName {
    /// Everybody who has no entry of his own.
    Default,
    Named(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct QuotaChange {
    pub entity: QuotaEntity,
    /// Kafka's name of the quota, such as `producer_byte_rate`.
    pub key: String,
    /// A positive, finite number in the quota's own unit; `None` takes the quota away.
    pub value: Option<f64>,
}

/// Consecutive offsets of one partition inside one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub partition: PartitionId,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Bytes of the batches, for retention by size; at least 1.
    pub bytes: u64,
    pub records: u64,
    /// Largest record timestamp, Unix ms; −1 if there is none.
    pub max_timestamp: i64,
    /// Timestamp of the first record, Unix ms; −1 if there is none.
    pub first_timestamp: i64,
    /// Where the partition's run begins in the object, and its length in bytes there.
    pub position: u64,
    pub length: u32,
    /// The leader epochs whose first record lies within the range, with its offset; both ascending. Read when an
    /// upload is committed; a merge leaves a partition's epochs as they are.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Range {
    /// What the index keeps about this range of `object`.
    pub fn entry(&self, object: ObjectId) -> RangeEntry {
        RangeEntry {
            object,
            end: self.end,
            bytes: self.bytes,
            records: self.records,
            max_timestamp: self.max_timestamp,
            first_timestamp: self.first_timestamp,
            position: self.position,
            length: self.length,
        }
    }
}

/// A range that a merge replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergeInput {
    pub partition: PartitionId,
    pub base: Offset,
    pub object: ObjectId,
}

/// An object that a merge has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOutput {
    pub object: ObjectId,
    pub bytes: u64,
    pub ranges: Vec<Range>,
}
