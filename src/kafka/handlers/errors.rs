//! Kafka's error numbers for the broker's errors. Nowhere else are the two put together.

use kafka_protocol::error::ResponseError;

use crate::batch::{CheckError, RecordsError};
use crate::broker::{ChangeError, FetchError, NotAdmitted, OffsetsError, ProduceError};
use crate::ledger::LedgerError;
use crate::metadata::Reject;
use crate::partition::{AppendError, ProducerError, ReadError};
use crate::quorum::ProposeError;
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

/// Produce version from which clients know that a transaction can be aborted and go on (KIP-890).
const ABORTABLE_SINCE: i16 = 11;
/// Version from which a batch adds its partition, and its client waits for the transaction before (KIP-890).
const ADDS_PARTITION_SINCE: i16 = 12;

/// As [`produce`], in the numbers that a client of this Produce version understands.
pub(super) fn produce_in(error: &ProduceError, version: i16) -> ResponseError {
    match error {
        ProduceError::NotAdmitted(NotAdmitted::NotInTransaction) if version >= ABORTABLE_SINCE => {
            ResponseError::TransactionAbortable
        }
        ProduceError::NotAdmitted(NotAdmitted::Concurrent) if version >= ADDS_PARTITION_SINCE => {
            ResponseError::ConcurrentTransactions
        }
        other => produce(other),
    }
}

pub(super) fn produce(error: &ProduceError) -> ResponseError {
    match error {
        ProduceError::Check(CheckError::Crc | CheckError::UnknownMagic(_) | CheckError::Length(_)) => {
            ResponseError::CorruptMessage
        }
        ProduceError::Check(CheckError::ProducerEpoch(_)) => ResponseError::InvalidProducerEpoch,
        ProduceError::Check(_) => ResponseError::InvalidRecord,
        ProduceError::TooLarge { .. } => ResponseError::MessageTooLarge,
        ProduceError::Timestamp { .. } => ResponseError::InvalidTimestamp,
        ProduceError::Records(RecordsError::Compression(_)) => ResponseError::CorruptMessage,
        ProduceError::NoKey(_) | ProduceError::Records(_) => ResponseError::InvalidRecord,
        ProduceError::NotEnoughReplicas { .. } => ResponseError::NotEnoughReplicas,
        ProduceError::CompressionVersion => ResponseError::UnsupportedCompressionType,
        ProduceError::Transactional => ResponseError::InvalidRequest,
        ProduceError::NotAdmitted(NotAdmitted::NotInTransaction) => ResponseError::InvalidTxnState,
        ProduceError::NotAdmitted(NotAdmitted::Fenced) => ResponseError::InvalidProducerEpoch,
        ProduceError::NotAdmitted(NotAdmitted::OtherProducer) => ResponseError::InvalidProducerIdMapping,
        ProduceError::NotAdmitted(NotAdmitted::Invalid) => ResponseError::InvalidRequest,
        // Old clients give up on the coordinator's own numbers; this one they retry, without asking for metadata.
        ProduceError::NotAdmitted(NotAdmitted::Concurrent | NotAdmitted::Unavailable) => {
            ResponseError::NotEnoughReplicas
        }
        ProduceError::Build(_) => ResponseError::UnknownServerError,
        ProduceError::Compression(_) => ResponseError::CorruptMessage,
        ProduceError::Append(error) => append(error),
        // The batch may be durable or not: the number that clients take for "possibly persisted".
        ProduceError::Unknown(_) | ProduceError::TooFewCopies { .. } => ResponseError::NotEnoughReplicasAfterAppend,
        ProduceError::CopiesLate { .. } => ResponseError::RequestTimedOut,
        // Not appended; object storage is away.
        ProduceError::State(_) => ResponseError::NotEnoughReplicas,
        ProduceError::NoLease => ResponseError::NotLeaderOrFollower,
    }
}

fn append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::Producer(ProducerError::OutOfOrder { .. }) => ResponseError::OutOfOrderSequenceNumber,
        AppendError::Producer(ProducerError::OldEpoch { .. }) => ResponseError::InvalidProducerEpoch,
        AppendError::Producer(ProducerError::OldCoordinator { .. }) => ResponseError::TransactionCoordinatorFenced,
        AppendError::Producer(ProducerError::OutsideTransaction | ProducerError::NotVerified) => {
            ResponseError::InvalidTxnState
        }
        AppendError::StateNotLoaded => ResponseError::NotEnoughReplicas,
        AppendError::Closed | AppendError::Moving => ResponseError::NotLeaderOrFollower,
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
        FetchError::Position(ReadError::Closed) | FetchError::NoLease => ResponseError::NotLeaderOrFollower,
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
        // Nobody leads the quorum, or nobody knows what became of the change: as in Kafka, where a broker forwards it in vain.
        ChangeError::Propose(ProposeError::NotLeader { .. } | ProposeError::Unknown(_)) => {
            ResponseError::RequestTimedOut
        }
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
        // A broker has gone since the request was checked.
        Reject::UnknownBroker(_) | Reject::BrokerFenced(_) | Reject::NodeDraining(_) => {
            ResponseError::InvalidReplicaAssignment
        }
        Reject::ReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        Reject::TooMany { .. } => ResponseError::PolicyViolation,
        Reject::StaleBrokerEpoch { .. } => ResponseError::NotController,
        Reject::Invalid(_) => ResponseError::InvalidRequest,
        // Another change came in between again and again; nothing was changed.
        Reject::ConfigsChanged => ResponseError::RequestTimedOut,
        _ => ResponseError::UnknownServerError,
    }
}
