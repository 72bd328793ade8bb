//! What a group coordinator answers: one type per API, in domain words.
//!
//! The host encodes them, leaving out what the version asked for lacks.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::TopicId;
use crate::group::request::TopicPartitions;
use crate::group::{GroupError, Producer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    JoinGroup(JoinGroupReply),
    SyncGroup(SyncGroupReply),
    /// To Heartbeat.
    Heartbeat(Result<(), GroupError>),
    LeaveGroup(LeaveGroupReply),
    /// To OffsetCommit and TxnOffsetCommit: every topic and partition in the order of the request.
    OffsetCommit(Vec<CommittedTopic>),
    OffsetFetch(OffsetFetchReply),
    OffsetDelete(Result<Vec<DeletedTopic>, GroupError>),
    DescribeGroup(DescribedGroup),
    ListGroups(Vec<ListedGroup>),
    DeleteGroup(Result<(), GroupError>),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatReply),
    ConsumerGroupDescribe(DescribedConsumerGroup),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupReply {
    pub error: Option<GroupError>,
    /// −1 where there is none.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub leader: String,
    /// The leader shall not assign, only synchronise (KIP-814).
    pub skip_assignment: bool,
    pub member: String,
    /// For the leader: everyone with the metadata of the protocol chosen; empty for the others.
    pub members: Arc<[JoinedMember]>,
}

impl JoinGroupReply {
    pub fn refused(member: impl Into<String>, error: GroupError) -> Self {
        JoinGroupReply {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member: member.into(),
            members: Arc::new([]),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncGroupReply {
    pub error: Option<GroupError>,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

impl SyncGroupReply {
    pub fn refused(error: GroupError) -> Self {
        SyncGroupReply { error: Some(error), ..Self::default() }
    }
}

/// The error of one member that is named by a version below 3 becomes the top-level error; the host does that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaveGroupReply {
    pub error: Option<GroupError>,
    pub members: Vec<LeftMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMember {
    pub member: String,
    pub instance: Option<String>,
    pub error: Option<GroupError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedTopic {
    pub name: String,
    pub id: TopicId,
    pub partitions: Vec<(i32, Option<GroupError>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchReply {
    pub group: String,
    /// No topics then.
    pub error: Option<GroupError>,
    pub topics: Vec<FetchedTopic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    pub name: String,
    /// As in the request; zero when all topics were asked for: the host looks the ids up.
    pub id: TopicId,
    pub partitions: Vec<FetchedOffset>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    pub error: Option<GroupError>,
    /// −1: none committed.
    pub offset: i64,
    /// −1: unknown.
    pub leader_epoch: i32,
    pub metadata: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTopic {
    pub name: String,
    pub partitions: Vec<(i32, Option<GroupError>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedGroup {
    pub error: Option<GroupError>,
    pub error_message: Option<String>,
    pub group: String,
    pub state: String,
    pub protocol_type: String,
    /// The protocol chosen, in state Stable only.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedGroup {
    pub group: String,
    pub protocol_type: String,
    pub state: String,
    /// `classic` or `consumer`, as the wire spells it.
    pub group_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerGroupHeartbeatReply {
    pub error: Option<GroupError>,
    pub error_message: Option<String>,
    pub member: Option<String>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// None: unchanged.
    pub assignment: Option<Vec<TopicPartitions>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedConsumerGroup {
    pub error: Option<GroupError>,
    pub error_message: Option<String>,
    pub group: String,
    pub state: String,
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: String,
    pub members: Vec<DescribedConsumer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedConsumer {
    pub member: String,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub member_epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub subscribed_topics: Vec<String>,
    pub subscribed_regex: Option<String>,
    pub assignment: Vec<NamedPartitions>,
    pub target_assignment: Vec<NamedPartitions>,
    /// −1 unknown, 0 classic, 1 consumer (KIP-1099).
    pub member_type: i8,
}

/// Partitions of a topic that still exists, by id and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NamedPartitions {
    pub topic: TopicId,
    pub name: String,
    pub partitions: Vec<i32>,
}

/// Records to append and replies to send when everything appended so far is durable.
///
/// The records are appended in their order, as one batch where `atomic` is set, as a transactional batch of
/// `transactional` where there is one. Those of effects that are not atomic may be divided into several batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects<R> {
    pub records: Vec<Write>,
    pub atomic: bool,
    pub transactional: Option<Producer>,
    pub replies: Vec<(Token, R)>,
}

impl<R> Default for Effects<R> {
    fn default() -> Self {
        Effects { records: vec![], atomic: true, transactional: None, replies: vec![] }
    }
}

/// The host's name of a request that waits for its reply. Each gets exactly one.
///
/// A member whose connection is gone counts as waiting all the same, as in Kafka: its session decides. The host drops
/// a reply that nobody takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One record of `__consumer_offsets`; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Bytes,
    pub value: Option<Bytes>,
}
