//! What can go wrong with each operation of the broker, in its own words.

use crate::base::Offset;
use crate::batch::{BuildError, CheckError, CompressionError, RecordsError};
use crate::kv;
use crate::metadata::Reject;
use crate::object::ReadError as ObjectError;
use crate::partition::{AppendError, ReadError, UnknownOutcome};
use crate::quorum::ProposeError;
use crate::wal;

/// Why records were not appended, or why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("the batch of {bytes} bytes is larger than max.message.bytes={max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("timestamp {timestamp} is out of the allowed range around {now}")]
    Timestamp { timestamp: i64, now: i64 },
    /// Of acks=all; nothing was appended.
    #[error("min.insync.replicas asks for {needed} synced copies, and {in_sync} replicas are in sync")]
    NotEnoughReplicas { in_sync: usize, needed: usize },
    /// Of acks=all: the records are durable, and there will be no further copy of them before they are in object storage.
    #[error(
        "min.insync.replicas asks for {needed} synced copies, and the records have fewer: a replica was lost meanwhile"
    )]
    TooFewCopies { needed: usize },
    /// Of acks=all: the records are durable, and may still get the copies.
    #[error(
        "the records did not get the {needed} synced copies that min.insync.replicas asks for within the request's timeout"
    )]
    CopiesLate { needed: usize },
    #[error("zstd needs Produce version 7 or newer")]
    CompressionVersion,
    /// Places within the batch, the first of them if there are many.
    #[error("a compacted topic takes no records without a key")]
    NoKey(Vec<i32>),
    #[error("the records of the batch cannot be read: {0}")]
    Records(#[from] RecordsError),
    #[error("the batch is transactional, but there is no transaction coordinator")]
    Transactional,
    #[error(transparent)]
    NotAdmitted(#[from] super::NotAdmitted),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Unknown(#[from] UnknownOutcome),
    #[error("the state of producers cannot be read: {0}")]
    State(FetchError),
    /// The records may be durable or not.
    #[error("this node has no lease: it may not answer for the partition")]
    NoLease,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Position(#[from] ReadError),
    #[error("the WAL cannot be read: {0}")]
    Wal(wal::ReadError),
    #[error("object storage cannot be read: {0}")]
    Object(#[from] ObjectError),
    #[error("the index of objects cannot be read: {0}")]
    Index(#[from] kv::ReadError),
    #[error("offset {0} is in no object")]
    Missing(Offset),
    #[error("stored bytes are no record batch")]
    Broken,
    #[error("this node has no lease: it may not answer for the partition")]
    NoLease,
}

/// Why an offset cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Why the metadata do not change.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Rejected(#[from] Reject),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("the offset {asked} is not between the log start {log_start} and the high watermark {high_watermark}")]
    OutOfRange { asked: Offset, log_start: Offset, high_watermark: Offset },
    #[error("the index of objects cannot be read: {0}")]
    Index(#[from] kv::ReadError),
    #[error("the metadata gave an unexpected answer")]
    UnexpectedAnswer,
}
