//! Kafka's error numbers for the broker's errors. Nowhere else are the two put together.

use kafka_protocol::error::ResponseError;

use crate::batch::CheckError;
use crate::broker::{ChangeError, FetchError, OffsetsError, ProduceError};
use crate::ledger::LedgerError;
use crate::metadata::Reject;
use crate::partition::{AppendError, ProducerError, ReadError};
use crate::security::{Denied, ResourceKind};

pub(super) fn denied(denied: &Denied) -> ResponseError {
    match denied.kind {
        ResourceKind::Topic => ResponseError::TopicAuthorizationFailed,
        ResourceKind::Group => ResponseError::GroupAuthorizationFailed,
        ResourceKind::Cluster => ResponseError::ClusterAuthorizationFailed,
        ResourceKind::TransactionalId => ResponseError::TransactionalIdAuthorizationFailed,
        ResourceKind::DelegationToken => ResponseError::DelegationTokenAuthorizationFailed,
    }
}

pub(super) fn produce(error: &ProduceError) -> ResponseError {
    match error {
        ProduceError::Check(CheckError::Crc | CheckError::UnknownMagic(_)) => ResponseError::CorruptMessage,
        ProduceError::Check(_) => ResponseError::InvalidRecord,
        ProduceError::TooLarge { .. } => ResponseError::MessageTooLarge,
        ProduceError::Timestamp { .. } => ResponseError::InvalidTimestamp,
        ProduceError::CompressionVersion => ResponseError::UnsupportedCompressionType,
        ProduceError::Transactional => ResponseError::InvalidRequest,
        ProduceError::Compression(_) => ResponseError::CorruptMessage,
        ProduceError::Append(error) => append(error),
        // The batch may be durable or not: the number that clients take for "possibly persisted".
        ProduceError::Unknown(_) => ResponseError::NotEnoughReplicasAfterAppend,
        // Not appended; object storage is away.
        ProduceError::State(_) => ResponseError::NotEnoughReplicas,
    }
}

fn append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::Producer(ProducerError::OutOfOrder { .. }) => ResponseError::OutOfOrderSequenceNumber,
        AppendError::Producer(ProducerError::OldEpoch { .. }) => ResponseError::InvalidProducerEpoch,
        AppendError::StateNotLoaded => ResponseError::NotEnoughReplicas,
        AppendError::Closed => ResponseError::NotLeaderOrFollower,
        // Not appended, and worth another try: what clients understand by this number.
        AppendError::Ledger(LedgerError::Full) => ResponseError::NotEnoughReplicas,
        AppendError::Ledger(LedgerError::Sealed) => ResponseError::NotLeaderOrFollower,
        AppendError::Ledger(LedgerError::TooLarge { .. }) => ResponseError::MessageTooLarge,
        AppendError::Ledger(LedgerError::Failed(_)) => ResponseError::KafkaStorageError,
        AppendError::OffsetsExhausted => ResponseError::InvalidRecord,
    }
}

pub(super) fn fetch(error: &FetchError) -> ResponseError {
    match error {
        FetchError::Position(ReadError::OutOfRange { .. }) => ResponseError::OffsetOutOfRange,
        FetchError::Position(ReadError::Closed) => ResponseError::NotLeaderOrFollower,
        _ => ResponseError::KafkaStorageError,
    }
}

pub(super) fn offsets(error: &OffsetsError) -> ResponseError {
    match error {
        OffsetsError::Fetch(error) => fetch(error),
        OffsetsError::Records(_) => ResponseError::CorruptMessage,
    }
}

pub(super) fn change(error: &ChangeError) -> ResponseError {
    match error {
        ChangeError::Rejected(reject) => rejected(reject),
        ChangeError::Propose(_) => ResponseError::KafkaStorageError,
        ChangeError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ChangeError::Index(_) => ResponseError::KafkaStorageError,
        ChangeError::UnexpectedAnswer => ResponseError::UnknownServerError,
    }
}

fn rejected(reject: &Reject) -> ResponseError {
    match reject {
        Reject::InvalidTopicName(_) | Reject::TopicNameCollision { .. } => ResponseError::InvalidTopicException,
        Reject::TopicExists { .. } => ResponseError::TopicAlreadyExists,
        Reject::UnknownTopic => ResponseError::UnknownTopicOrPartition,
        Reject::PartitionCount { .. } => ResponseError::InvalidPartitions,
        Reject::ReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        Reject::TooMany { .. } => ResponseError::PolicyViolation,
        Reject::StaleBrokerEpoch { .. } => ResponseError::NotController,
        Reject::Invalid(_) => ResponseError::InvalidRequest,
        _ => ResponseError::UnknownServerError,
    }
}
