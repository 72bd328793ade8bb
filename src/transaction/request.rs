//! What may be asked of the coordinator, and its answers, in domain words.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Error, Partitions, Producer, State, TopicPartition, TransactionVersion};

/// A request about transactional ids of this partition. A batched AddPartitionsToTxn is one request for each id.
#[derive(Debug, Clone)]
pub enum Request {
    /// InitProducerId (key 22) with a transactional id.
    InitProducerId {
        transactional_id: String,
        timeout_ms: i32,
        /// What the client believes to be (KIP-360), if it does not start anew.
        expected: Option<Producer>,
    },
    /// AddPartitionsToTxn (key 24), and what Produce from version 12 and TxnOffsetCommit from version 5 imply.
    AddPartitions {
        transactional_id: String,
        producer: Producer,
        partitions: Vec<TopicPartition>,
        version: TransactionVersion,
        /// How long to wait for the transaction before to complete, instead of refusing at once
        /// (`add.partitions.to.txn.retry.backoff.max.ms` for what the broker adds itself; zero for clients).
        wait: Duration,
    },
    /// The same with `verify_only`: asks whether partitions are in the transaction.
    VerifyPartitions { transactional_id: String, producer: Producer, partitions: Vec<TopicPartition> },
    /// AddOffsetsToTxn (key 25), with the partition of `__consumer_offsets` that the group belongs to.
    AddOffsets { transactional_id: String, producer: Producer, partition: TopicPartition },
    /// EndTxn (key 26).
    EndTxn { transactional_id: String, producer: Producer, commit: bool, version: TransactionVersion },
    /// DescribeTransactions (key 65), one id of it.
    DescribeTransaction { transactional_id: String },
    /// ListTransactions (key 66), the part of this coordinator.
    ListTransactions(Filter),
}

/// The answers, each of the request of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    InitProducerId(Result<Producer, Error>),
    /// All partitions are in the transaction, or none was added.
    AddPartitions(Result<(), Error>),
    VerifyPartitions(Result<Vec<Verified>, Error>),
    AddOffsets(Result<(), Error>),
    /// With version 2 the producer to go on as; nothing before.
    EndTxn(Result<Option<Producer>, Error>),
    DescribeTransaction(Result<Description, Error>),
    ListTransactions(Listing),
}

/// A partition, and whether it is in the transaction.
pub type Verified = (TopicPartition, Result<(), Error>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub producer: Producer,
    pub state: State,
    pub timeout_ms: i32,
    /// Milliseconds of the Unix epoch; −1 if there was no transaction since InitProducerId.
    pub start_ms: i64,
    pub partitions: Partitions,
}

/// Which transactions to list: those that pass every filter that is set.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Empty: any.
    pub producer_ids: BTreeSet<i64>,
    /// Names of states; empty: any.
    pub states: Vec<String>,
    /// Those that have been running for longer than this; negative: any (KIP-994).
    pub duration_ms: i64,
    /// KIP-1152; the caller compiles it, and refuses what it cannot compile.
    pub pattern: Option<Pattern>,
}

/// Says whether a whole transactional id matches.
#[derive(Clone)]
pub struct Pattern(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Filters that name no state.
    pub unknown_states: Vec<String>,
    pub transactions: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub transactional_id: Arc<str>,
    pub producer_id: i64,
    pub state: State,
}
