//! Records of `__consumer_offsets`, exactly as Apache Kafka 4.3 writes them.
//!
//! A key begins with a version (`i16`) that says what it is the key of; a value begins with the version of its own
//! form. Key versions: 0 and 1 an offset, 2 a classic group, 3–8 and 16 a consumer group (KIP-848). Those of share
//! groups (9–15) and streams groups (17 and later) are not ours: they are read as [`Record::Foreign`] and left alone.

mod codec;
mod decode;
mod encode;

pub use decode::RecordError;

use bytes::Bytes;

use crate::base::TopicId;
use crate::group::request::{Protocol, TopicPartitions};

/// Longest group id, member id, topic name or other string of a key or of a classic group, in bytes.
pub(in crate::group) const STRING_BYTES_MAX: usize = codec::STRING_BYTES_MAX;

/// The version at the front of a key: Kafka's CoordinatorRecordType.
mod key_version {
    pub const LEGACY_OFFSET: i16 = 0;
    pub const OFFSET: i16 = 1;
    pub const CLASSIC_GROUP: i16 = 2;
    pub const CONSUMER_GROUP: i16 = 3;
    pub const CONSUMER_PARTITIONS: i16 = 4;
    pub const CONSUMER_MEMBER: i16 = 5;
    pub const CONSUMER_TARGET: i16 = 6;
    pub const CONSUMER_MEMBER_TARGET: i16 = 7;
    pub const CONSUMER_MEMBER_ASSIGNMENT: i16 = 8;
    pub const CONSUMER_REGEX: i16 = 16;
    pub const KNOWN: [i16; 10] = [
        LEGACY_OFFSET,
        OFFSET,
        CLASSIC_GROUP,
        CONSUMER_GROUP,
        CONSUMER_PARTITIONS,
        CONSUMER_MEMBER,
        CONSUMER_TARGET,
        CONSUMER_MEMBER_TARGET,
        CONSUMER_MEMBER_ASSIGNMENT,
        CONSUMER_REGEX,
    ];
}

/// A key with its value; no value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Key version 1, or 0 when it was written long ago.
    Offset { group: String, topic: String, partition: i32, value: Option<OffsetValue> },
    /// Key version 2.
    ClassicGroup { group: String, value: Option<ClassicGroupValue> },
    /// Key version 3.
    ConsumerGroup { group: String, value: Option<ConsumerGroupValue> },
    /// Key version 4; since Kafka 4.1 only deleted (KIP-1101).
    ConsumerPartitions { group: String, value: Option<ConsumerPartitionsValue> },
    /// Key version 5.
    ConsumerMember { group: String, member: String, value: Option<ConsumerMemberValue> },
    /// Key version 6.
    ConsumerTarget { group: String, value: Option<ConsumerTargetValue> },
    /// Key version 7.
    ConsumerMemberTarget { group: String, member: String, value: Option<Vec<TopicPartitions>> },
    /// Key version 8.
    ConsumerMemberAssignment { group: String, member: String, value: Option<ConsumerMemberAssignmentValue> },
    /// Key version 16.
    ConsumerRegex { group: String, regex: String, value: Option<ConsumerRegexValue> },
    /// A key version that this release does not know.
    Foreign { key_version: i16 },
}

/// A committed offset (OffsetCommitValue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// −1: unknown.
    pub leader_epoch: i32,
    pub metadata: String,
    /// Wall clock, milliseconds.
    pub commit_timestamp: i64,
    /// Wall clock, milliseconds; −1: as the retention says.
    pub expire_timestamp: i64,
    /// Zero: unknown.
    pub topic_id: TopicId,
}

/// A classic group (GroupMetadataValue).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicGroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// Wall clock, milliseconds; −1: unknown.
    pub current_state_timestamp: i64,
    pub members: Vec<ClassicMemberValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicMemberValue {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// −1 in a value of version 0.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// ConsumerGroupMetadataValue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerGroupValue {
    pub epoch: i32,
    /// Tag 0, left out when 0 (KIP-1101).
    pub metadata_hash: i64,
}

/// ConsumerGroupPartitionMetadataValue: topic id, name, number of partitions; the racks of old values are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerPartitionsValue {
    pub topics: Vec<(TopicId, String, i32)>,
}

/// ConsumerGroupMemberMetadataValue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerMemberValue {
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub subscribed_topics: Vec<String>,
    pub subscribed_regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    pub server_assignor: Option<String>,
    /// Tag 0: set while the member speaks the classic protocol.
    pub classic: Option<ClassicMemberMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicMemberMetadata {
    pub session_timeout_ms: i32,
    pub supported_protocols: Vec<Protocol>,
}

/// ConsumerGroupTargetAssignmentMetadataValue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerTargetValue {
    pub assignment_epoch: i32,
    /// Tag 0, left out when 0 (KIP-1263): wall clock, milliseconds.
    pub assignment_timestamp: i64,
}

/// ConsumerGroupCurrentMemberAssignmentValue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerMemberAssignmentValue {
    pub member_epoch: i32,
    pub previous_member_epoch: i32,
    /// Kafka's MemberState: 0 stable, 1 unrevoked partitions, 2 unreleased partitions, 127 unknown.
    pub state: i8,
    pub assigned: Vec<EpochPartitions>,
    pub pending_revocation: Vec<EpochPartitions>,
}

/// Partitions of a topic with the epochs at which the member got them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochPartitions {
    pub topic: TopicId,
    pub partitions: Vec<i32>,
    /// Tag 0; as many as there are partitions.
    pub epochs: Option<Vec<i32>>,
}

/// ConsumerGroupRegularExpressionValue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerRegexValue {
    pub topics: Vec<String>,
    /// Version of the metadata by which the expression was resolved.
    pub version: i64,
    /// Wall clock, milliseconds.
    pub timestamp: i64,
}
