//! Why a request is refused, and the number that each API and version knows it by.
//!
//! Clients before KIP-588 do not understand "fenced" and get the older "invalid epoch"; those before KIP-890's first
//! part do not understand "abortable" and get "invalid state".

/// The refusals of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    #[error("the record would be larger than the log takes")]
    RecordTooLarge,
    #[error("the coordinator has no producer id at hand yet")]
    NoProducerId,
    #[error("the coordinator holds as many transactional ids as it may")]
    TooManyIds,
    #[error("the request names no usable transactional id or topic")]
    InvalidRequest,
    #[error("the transaction is in a state that does not allow this")]
    InvalidTxnState,
    #[error("the transactional id has another producer id, or none")]
    InvalidProducerIdMapping,
    #[error("the transaction timeout is not above zero, or above the limit")]
    InvalidTransactionTimeout,
    #[error("the transaction before is still being completed")]
    ConcurrentTransactions,
    #[error("a newer producer has taken the transactional id over")]
    ProducerFenced,
    #[error("the transactional id is not known")]
    TransactionalIdNotFound,
    #[error("the partition is not in the transaction, which has to be aborted")]
    TransactionAbortable,
}

const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const NOT_ENOUGH_REPLICAS: i16 = 19;

impl Error {
    /// Kafka's number, as the newest version of each API has it.
    pub fn code(self) -> i16 {
        match self {
            Error::RecordTooLarge => -1,
            Error::NoProducerId => 14,
            Error::TooManyIds => 15,
            Error::InvalidRequest => 42,
            Error::InvalidTxnState => INVALID_TXN_STATE,
            Error::InvalidProducerIdMapping => 49,
            Error::InvalidTransactionTimeout => 50,
            Error::ConcurrentTransactions => 51,
            Error::ProducerFenced => 90,
            Error::TransactionalIdNotFound => 105,
            Error::TransactionAbortable => 120,
        }
    }

    /// In an answer to InitProducerId (key 22).
    pub fn init_producer_id(self, version: i16) -> i16 {
        self.fenced_from(4, version)
    }

    /// In an answer to AddPartitionsToTxn (key 24), verification included.
    pub fn add_partitions_to_txn(self, version: i16) -> i16 {
        self.fenced_from(2, version)
    }

    /// In an answer to AddOffsetsToTxn (key 25).
    pub fn add_offsets_to_txn(self, version: i16) -> i16 {
        self.fenced_from(2, version)
    }

    /// In an answer to EndTxn (key 26).
    pub fn end_txn(self, version: i16) -> i16 {
        self.fenced_from(2, version)
    }

    /// In an answer to Produce (key 0), where the broker itself added or verified the partition. Producers expect the
    /// old code for a stale epoch there at every version, and before version 12 nothing of a coordinator.
    pub fn produce(self, version: i16) -> i16 {
        match self {
            Error::NoProducerId | Error::TooManyIds => NOT_ENOUGH_REPLICAS,
            Error::ConcurrentTransactions if version < 12 => NOT_ENOUGH_REPLICAS,
            other => other.written_to_partition(version >= 11),
        }
    }

    /// In an answer to TxnOffsetCommit (key 28), where the broker itself added or verified the partition.
    pub fn txn_offset_commit(self, version: i16) -> i16 {
        self.written_to_partition(version >= 4)
    }

    fn fenced_from(self, first: i16, version: i16) -> i16 {
        match self {
            Error::ProducerFenced if version < first => INVALID_PRODUCER_EPOCH,
            other => other.code(),
        }
    }

    fn written_to_partition(self, knows_abortable: bool) -> i16 {
        match self {
            Error::ProducerFenced => INVALID_PRODUCER_EPOCH,
            Error::TransactionAbortable if !knows_abortable => INVALID_TXN_STATE,
            other => other.code(),
        }
    }
}
