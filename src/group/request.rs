//! What is asked of a group coordinator: the requests of Kafka's group APIs as domain types.
//!
//! One request concerns one group, but for `ListGroups`. Fields that a wire version lacks carry the default of the
//! newest schema. The host has checked the syntax, the permissions and that this coordinator owns the group.

use bytes::Bytes;

use crate::base::TopicId;
use crate::group::Producer;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    JoinGroup(JoinGroup),
    SyncGroup(SyncGroup),
    Heartbeat(Heartbeat),
    LeaveGroup(LeaveGroup),
    OffsetCommit(OffsetCommit),
    OffsetFetch(OffsetFetch),
    OffsetDelete(OffsetDelete),
    DescribeGroup(DescribeGroup),
    ListGroups(ListGroups),
    DeleteGroup(DeleteGroup),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeat),
    ConsumerGroupDescribe(ConsumerGroupDescribe),
}

/// Who sends a request, as records and descriptions of groups show it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    pub id: String,
    /// Kafka's form of the address: `/127.0.0.1`.
    pub host: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroup {
    /// The version of the API: it rules the required member id (KIP-394) and `skip_assignment` (KIP-814).
    pub version: i16,
    pub client: Client,
    pub group: String,
    pub session_timeout_ms: i32,
    /// Before version 1 the session timeout; the host fills it in.
    pub rebalance_timeout_ms: i32,
    pub member: String,
    pub instance: Option<String>,
    pub protocol_type: String,
    /// In the order of the member's preference.
    pub protocols: Vec<Protocol>,
    pub reason: Option<String>,
}

/// A protocol that a classic member offers, with its subscription in the protocol's own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    /// Member ids and what the leader assigned to them.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
}

/// A version below 3 names one member; the host makes a list of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroup {
    pub group: String,
    pub members: Vec<LeavingMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// Empty: whoever has the instance id.
    pub member: String,
    pub instance: Option<String>,
    pub reason: Option<String>,
}

/// OffsetCommit, or TxnOffsetCommit where `transactional` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Of OffsetCommit or TxnOffsetCommit. Consumer groups (KIP-848) take OffsetCommit from version 9 on.
    pub version: i16,
    pub group: String,
    pub generation_or_epoch: i32,
    pub member: String,
    pub instance: Option<String>,
    /// Milliseconds for which the offsets live; None: as long as `offsets.retention.minutes` says. Versions 2–4.
    pub retention_ms: Option<i64>,
    pub transactional: Option<Producer>,
    pub topics: Vec<CommitTopic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitTopic {
    pub name: String,
    /// Zero where the request named the topic (before version 10): the coordinator looks it up. The host has answered
    /// for topics and partitions that do not exist.
    pub id: TopicId,
    pub partitions: Vec<CommitPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPartition {
    pub partition: i32,
    pub offset: i64,
    /// −1: unknown.
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// One group of an OffsetFetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetch {
    pub group: String,
    /// Versions 9 and later; checked for consumer groups only.
    pub member: Option<String>,
    pub member_epoch: i32,
    /// None: all topics that have offsets.
    pub topics: Option<Vec<FetchTopic>>,
    pub require_stable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    pub name: String,
    /// Zero where the request named the topic (before version 10).
    pub id: TopicId,
    pub partitions: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetDelete {
    pub group: String,
    pub topics: Vec<(String, Vec<i32>)>,
}

/// One group of a DescribeGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroup {
    /// From version 6 on an unknown group is an error (KIP-1043), before it is a dead group.
    pub version: i16,
    pub group: String,
}

/// Empty filters let everything pass. Both compare without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListGroups {
    pub states: Vec<String>,
    pub types: Vec<String>,
}

/// One group of a DeleteGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteGroup {
    pub group: String,
}

/// A topic by id with partitions of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct TopicPartitions {
    pub topic: TopicId,
    pub partitions: Vec<i32>,
}

/// ConsumerGroupHeartbeat (KIP-848). None means "unchanged since the last heartbeat".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeat {
    pub version: i16,
    pub client: Client,
    pub group: String,
    /// Empty in version 0: the coordinator makes one (before KIP-1082).
    pub member: String,
    /// 0 joins, −1 leaves, −2 leaves as a static member that comes back.
    pub member_epoch: i32,
    pub instance: Option<String>,
    pub rack: Option<String>,
    /// −1: unchanged.
    pub rebalance_timeout_ms: i32,
    pub subscribed_topics: Option<Vec<String>>,
    /// Version 1.
    pub subscribed_regex: Option<String>,
    pub server_assignor: Option<String>,
    /// The partitions that the member owns.
    pub owned: Option<Vec<TopicPartitions>>,
}

/// One group of a ConsumerGroupDescribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupDescribe {
    pub group: String,
}
