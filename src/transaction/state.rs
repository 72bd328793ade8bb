//! One transactional id: its producer, its state, and the steps from one state to the next.
//!
//! The steps are total: whether one is allowed is decided before (`init`, `add`, `end`). Each leaves behind the
//! producer id that held before it, as Kafka does: it tells a retry after an epoch that ran out.

use super::{Now, Partitions, Producer, TopicPartition};

/// The finalized feature `transaction.version`, or what one client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TransactionVersion {
    #[default]
    V0,
    /// Records with tagged fields.
    V1,
    /// KIP-890: each transaction has its own epoch, and the broker adds partitions by itself.
    V2,
}

impl TransactionVersion {
    pub fn from_level(level: i16) -> Option<Self> {
        [Self::V0, Self::V1, Self::V2].into_iter().find(|v| v.level() == level)
    }

    pub fn level(self) -> i16 {
        self as i16
    }

    /// What a client that sends EndTxn in this version speaks.
    pub fn of_end_txn(api_version: i16) -> Self {
        if api_version >= 5 { Self::V2 } else { Self::V0 }
    }

    /// What AddPartitionsToTxn in this version stands for: from 4 on it comes from brokers.
    pub fn of_add_partitions_to_txn(api_version: i16) -> Self {
        if api_version >= 4 { Self::V2 } else { Self::V0 }
    }
}

/// The states by Kafka's names and numbers. `Dead` (expired: the id is forgotten at once here) and
/// `PrepareEpochFence` (part of an abort here) are never held and never recorded, but known to filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    Dead = 6,
    PrepareEpochFence = 7,
}

impl State {
    const ALL: [State; 8] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
        State::Dead,
        State::PrepareEpochFence,
    ];

    pub fn id(self) -> u8 {
        self as u8
    }

    pub fn from_id(id: u8) -> Option<State> {
        State::ALL.into_iter().find(|s| s.id() == id)
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
            State::Dead => "Dead",
            State::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.name() == name)
    }

    pub(super) fn is_prepared(self) -> bool {
        matches!(self, State::PrepareCommit | State::PrepareAbort)
    }
}

/// Everything recorded of one transactional id, and the epoch before the last bump, which is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub producer: Producer,
    /// The producer id before the last step.
    pub previous_producer_id: Option<i64>,
    /// With the last epoch used up: the producer id that the client has been given for its next transaction.
    pub next_producer_id: Option<i64>,
    /// What the client may still believe after an answer that got lost; nothing once another client has come.
    pub last_epoch: Option<i16>,
    pub timeout_ms: i32,
    pub state: State,
    /// While prepared: those whose markers are not known to be written.
    pub partitions: Partitions,
    /// When the first partition was added, in milliseconds of the Unix epoch; −1 before.
    pub start_ms: i64,
    pub update_ms: i64,
    pub client_version: TransactionVersion,
}

/// An epoch that no client may end a transaction in: the one above it is for fencing.
pub(super) fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Transaction {
    /// A transactional id that was never used, or expired.
    pub fn new(producer_id: i64, timeout_ms: i32, now: Now) -> Self {
        Transaction {
            producer: Producer { id: producer_id, epoch: 0 },
            previous_producer_id: Some(producer_id),
            next_producer_id: None,
            last_epoch: None,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::default(),
            start_ms: -1,
            update_ms: now.wall_ms,
            client_version: TransactionVersion::V0,
        }
    }

    fn step(&mut self, state: State, now: Now) {
        self.previous_producer_id = Some(self.producer.id);
        self.state = state;
        self.update_ms = now.wall_ms;
    }

    /// InitProducerId without a transaction under way: the producer starts as `producer`.
    pub fn init(&mut self, producer: Producer, last_epoch: Option<i16>, timeout_ms: i32, now: Now) {
        self.step(State::Empty, now);
        self.producer = producer;
        self.last_epoch = last_epoch;
        self.timeout_ms = timeout_ms;
        self.partitions.clear();
        self.start_ms = -1;
    }

    /// Adds partitions, and begins the transaction if none is under way.
    pub fn add(&mut self, partitions: &[TopicPartition], version: TransactionVersion, now: Now) {
        if self.state != State::Ongoing {
            self.start_ms = now.wall_ms;
        }
        self.step(State::Ongoing, now);
        self.client_version = version;
        partitions.iter().for_each(|p| self.partitions.insert(p));
    }

    /// Decides the transaction. With version 2 the epoch moves on; when it runs out, `next_producer_id` is needed.
    pub fn prepare(&mut self, commit: bool, version: TransactionVersion, next_producer_id: Option<i64>, now: Now) {
        if self.state != State::Ongoing {
            // An abort of nothing has no start of its own.
            self.start_ms = now.wall_ms;
        }
        self.step(if commit { State::PrepareCommit } else { State::PrepareAbort }, now);
        if version >= TransactionVersion::V2 {
            self.last_epoch = Some(self.producer.epoch);
            self.producer.epoch = self.producer.epoch.saturating_add(1);
        }
        self.next_producer_id = next_producer_id;
        self.client_version = version;
    }

    /// Aborts without the client, which is shut out by an epoch that nobody is given.
    pub fn fence(&mut self, version: TransactionVersion, next_producer_id: Option<i64>, now: Now) {
        if version >= TransactionVersion::V2 {
            self.prepare(false, version, next_producer_id, now);
        } else {
            self.producer.epoch = self.producer.epoch.saturating_add(1);
            self.last_epoch = None;
            self.prepare(false, TransactionVersion::V0, None, now);
        }
    }

    /// All markers are written.
    pub fn complete(&mut self, now: Now) {
        let producer = self.producer_when_complete();
        let state = if self.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort };
        self.step(state, now);
        self.producer = producer;
        self.next_producer_id = None;
        self.partitions.clear();
    }

    /// The producer that a prepared transaction leaves behind: the client goes on as this one.
    pub fn producer_when_complete(&self) -> Producer {
        match self.next_producer_id {
            Some(id) if self.client_version >= TransactionVersion::V2 => Producer { id, epoch: 0 },
            _ => self.producer,
        }
    }
}
