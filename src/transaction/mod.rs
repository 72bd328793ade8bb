//! The transaction coordinator of one partition of `__transaction_state`, as a pure state machine (KIP-98, KIP-360,
//! KIP-890).
//!
//! Its one job: to decide. A request, the news that markers are written, or the passing of time goes in; records to
//! append, replies and orders for transaction markers come out ([`Effects`]). Records are Apache Kafka's
//! (`TransactionLogKey` 0, `TransactionLogValue` 0 and 1), so that a tool that reads the topic finds what it expects.
//!
//! Invariants: no I/O, no clock and no randomness but what the caller hands in; no panic, whatever a peer sent or a
//! record holds; no change of state on a refusal. A machine that has replayed the records written so far equals the
//! machine that wrote them, but for what Kafka does not record either: the epoch before the last bump, requests that
//! wait, and which markers of a prepared transaction are already written. State changes at once and is never undone:
//! a host that cannot append throws the machine away and loads it again.
//!
//! A prepared transaction is complete only when every one of its partitions has its marker, also after a recovery, when
//! all of them are asked for again. A marker is written when it is durable, or when nothing that comes after it in the
//! host's log can be durable without it. It must never know how records are stored, nor a wire type of
//! Kafka's protocol.

mod add;
mod coordinator;
mod describe;
mod end;
mod error;
mod init;
mod parking;
mod partitions;
mod record;
mod request;
mod state;
mod timers;

#[cfg(test)]
mod error_table_tests;
#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod transcript_tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use coordinator::Coordinator;
pub use error::Error;
pub use partitions::{Partitions, TopicPartition};
pub use record::RecordError;
pub use request::{Description, Filter, Listed, Listing, Pattern, Reply, Request, Verified};
pub use state::{State, TransactionVersion};

/// The moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the Unix epoch: goes into records.
    pub wall_ms: i64,
    /// For timeouts and expiry: never goes back, runs through suspension.
    pub monotonic: Duration,
}

impl Now {
    fn monotonic_ms(self) -> i64 {
        i64::try_from(self.monotonic.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A producer id with its epoch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// The host's name of a request that waits for its reply. Each gets exactly one, unless it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One record of `__transaction_state`; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// An order for the markers of a prepared transaction, one for each of its partitions.
///
/// The host writes them so that none is durable without the records that came with them: behind them in the same ledger,
/// or when they are durable. It tells `markers_written` when nothing that it appends afterwards can be durable without the
/// markers. It counts a
/// partition whose topic has been deleted as written, but never one that is only out of reach for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    pub transactional_id: Arc<str>,
    /// The number to name this order by when its markers are written.
    pub order: u64,
    /// The id and epoch that the control batches carry: with transaction version 2 the epoch is already the next one.
    pub producer: Producer,
    /// Leader epoch of the coordinator's partition: goes into the control record.
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// Version 2 lets a partition demand an epoch above the producer's current one (KIP-890).
    pub version: TransactionVersion,
    pub partitions: Vec<TopicPartition>,
}

/// What a call wants done.
///
/// The host appends the records as one batch, in their order, and then carries out the orders for markers; it sends the
/// replies when everything that the machine has had appended so far is durable. The records of one call stay below
/// [`Options::batch_bytes_max`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    pub records: Vec<Write>,
    pub replies: Vec<(Token, Reply)>,
    pub markers: Vec<Markers>,
}

/// Settings, by Kafka's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `transaction.max.timeout.ms`: a longer timeout is refused.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: an id that was idle for so long is forgotten.
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_check_interval: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiration_check_interval: Duration,
    /// The finalized feature `transaction.version`: decides the format of records and how the coordinator aborts.
    pub version: TransactionVersion,
    /// Bytes that the records of one call may have as a batch: `max.message.bytes` of the topic.
    pub batch_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_timeout_ms: 900_000,
            id_expiration_ms: 7 * 24 * 3_600_000,
            abort_check_interval: Duration::from_secs(10),
            expiration_check_interval: Duration::from_secs(3600),
            version: TransactionVersion::V2,
            batch_bytes_max: crate::base::limits::BATCH_BYTES_DEFAULT,
        }
    }
}

/// The partition of `__transaction_state` that a transactional id belongs to: Java's hash of the string, without its
/// sign (0 for the one hash that has no positive twin), modulo the number of partitions. 0 if the topic has none.
pub fn partition_for(transactional_id: &str, partitions: i32) -> i32 {
    let hash = transactional_id.encode_utf16().fold(0_i32, |h, unit| h.wrapping_mul(31).wrapping_add(unit.into()));
    hash.checked_abs().unwrap_or(0).checked_rem(partitions).unwrap_or(0)
}
