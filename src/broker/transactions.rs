//! Transactions where they meet data: the question to a transaction's coordinator before its first batch, the markers
//! that end it, what coordinators write to their own topics, and the list of aborts that a reader of object storage
//! needs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::{Offset, ProducerId};
use crate::batch::{self, EndMarker, Header, StoredBatch};
use crate::object::AbortedTransaction;
use crate::partition::{AppendError, Appended, Guard, Origin, Partition};
use crate::security::{Operation, Permit, Resource};

use super::{Broker, FetchError, ProduceError};

/// A transaction is often asked to begin while the one before it still completes: how long, and how often, that is
/// waited for instead of sending the batch back (Kafka's `add.partitions.to.txn.retry.backoff.{max.,}ms`).
const CONCURRENT_WAIT: Duration = Duration::from_millis(100);
const CONCURRENT_PAUSE: Duration = Duration::from_millis(20);

/// What the coordinator of a transaction is asked.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    pub transactional_id: &'a str,
    pub producer: ProducerId,
    pub epoch: i16,
    /// Topic and partition; a request may name one twice.
    pub partitions: &'a [(Arc<str>, i32)],
    /// Adds the partitions to the transaction, which it begins if need be (transaction version 2, KIP-890); otherwise
    /// only verifies that they are in it.
    pub add: bool,
}

/// Why a partition may not be written in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("the partition was not added to the transaction")]
    NotInTransaction,
    #[error("the producer was fenced by a newer epoch")]
    Fenced,
    #[error("the producer id does not belong to the transactional id")]
    OtherProducer,
    #[error("the transaction before it is still completing")]
    Concurrent,
    #[error("the transaction coordinator cannot answer now")]
    Unavailable,
    #[error("the transactional id is refused")]
    Invalid,
}

/// The way from a Produce request to the coordinator of its transaction.
pub trait TransactionGate: Send + Sync {
    /// One answer for each partition, in order. What was added is in this node's ledger before it is answered, so that a
    /// batch that is appended afterwards is never durable without it: nobody would end its transaction.
    fn admit<'a>(&'a self, ask: Admission<'a>) -> BoxFuture<'a, Vec<Result<(), NotAdmitted>>>;
}

/// What a transactional batch says about its transaction besides its header.
#[derive(Clone, Copy, Debug)]
pub struct InTransaction<'a> {
    pub transactional_id: &'a str,
    /// For writing in transactions of this id.
    pub permit: &'a Permit,
    /// The batch itself adds its partition (Produce version 12 and newer).
    pub version2: bool,
}

/// The end of a transaction on one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    pub producer: ProducerId,
    /// Of the producer; under transaction version 2 the one that the end brings.
    pub epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
    pub version2: bool,
}

impl Broker {
    /// Supplies the way to the coordinators, once. Without it transactional batches are refused.
    pub fn set_transaction_gate(&self, gate: Arc<dyn TransactionGate>) {
        if self.transaction_gate.set(gate).is_err() {
            tracing::error!("the gate of transactions is supplied twice; the first one stays");
        }
    }

    /// Asks the coordinator about all partitions on which the transaction is not open yet, in one question. The answer to
    /// each batch is the guard that [`Broker::append`] needs, if any. All batches are of one producer and epoch.
    pub async fn admit(
        &self,
        transaction: InTransaction<'_>,
        batches: &[(&Partition, Header)],
    ) -> Vec<Result<Option<Guard>, ProduceError>> {
        let resource = Resource::transactional_id(transaction.transactional_id);
        debug_assert!(transaction.permit.covers(Operation::Write, resource));
        let mut answers = Vec::with_capacity(batches.len());
        for (partition, header) in batches {
            answers.push(self.begin_verification(partition, header, transaction.version2).await);
        }
        let asked: Vec<usize> = (0..batches.len()).filter(|at| matches!(answers[*at], Ok(Some(_)))).collect();
        let Some((_, header)) = asked.first().and_then(|at| batches.get(*at)) else { return answers };
        let partitions: Vec<_> =
            asked.iter().map(|at| (batches[*at].0.topic.clone(), batches[*at].0.id.index)).collect();
        let ask = Admission {
            transactional_id: transaction.transactional_id,
            producer: header.producer_id,
            epoch: header.producer_epoch,
            partitions: &partitions,
            add: transaction.version2,
        };
        let admitted = self.ask_coordinator(ask).await;
        for (turn, at) in asked.into_iter().enumerate() {
            if let Err(refused) = admitted.get(turn).copied().unwrap_or(Err(NotAdmitted::Unavailable)) {
                answers[at] = Err(refused.into());
            }
        }
        answers
    }

    async fn begin_verification(
        &self,
        partition: &Partition,
        header: &Header,
        version2: bool,
    ) -> Result<Option<Guard>, ProduceError> {
        if self.transaction_gate.get().is_none() {
            return Err(ProduceError::Transactional);
        }
        self.load_producer_state(partition).await.map_err(ProduceError::State)?;
        Ok(partition.begin_verification(header, version2, self.clock.wall_ms())?)
    }

    async fn ask_coordinator(&self, ask: Admission<'_>) -> Vec<Result<(), NotAdmitted>> {
        let Some(gate) = self.transaction_gate.get() else {
            return vec![Err(NotAdmitted::Unavailable); ask.partitions.len()];
        };
        let until = self.clock.boottime() + CONCURRENT_WAIT;
        loop {
            let answers = gate.admit(ask).await;
            // A batch of version 2 comes right after the end of the transaction before it: waiting here is cheaper
            // than to have it sent again.
            let wait = ask.add && answers.contains(&Err(NotAdmitted::Concurrent));
            if !wait || self.clock.boottime() >= until {
                return answers;
            }
            tokio::time::sleep(CONCURRENT_PAUSE).await;
        }
    }

    /// Ends a producer's transaction on a partition; what is returned waits for its durability, and only with that is
    /// the transaction over for readers. A repeated end is appended again and harmless.
    ///
    /// For the coordinator of the transaction: who may cause this is decided there, or by the handler of
    /// WriteTxnMarkers. A full WAL is waited for as a producer waits; then it is [`AppendError::Ledger`], worth another try.
    pub async fn append_marker(&self, partition: &Partition, end: TransactionEnd) -> Result<Appended, ProduceError> {
        let marker = EndMarker { commit: end.commit, coordinator_epoch: end.coordinator_epoch };
        let batch = batch::end_marker(end.producer, end.epoch, marker, self.clock.wall_ms())?;
        self.append_own(partition, batch, Origin::Marker { marker, version2: end.version2 }).await
    }

    /// Appends what a coordinator writes to its own topic. A batch in a producer's transaction must have been admitted
    /// by that transaction's coordinator before.
    pub async fn append_coordinator(
        &self,
        partition: &Partition,
        batch: StoredBatch,
    ) -> Result<Appended, ProduceError> {
        self.append_own(partition, batch, Origin::Coordinator).await
    }

    async fn append_own(
        &self,
        partition: &Partition,
        batch: StoredBatch,
        origin: Origin,
    ) -> Result<Appended, ProduceError> {
        let room_deadline = self.room_deadline(self.options.room_wait);
        let (header, now_ms) = (batch.header(), self.clock.wall_ms());
        loop {
            match self.append_with_room(partition, &header, &batch, origin, room_deadline, now_ms).await {
                Err(ProduceError::Append(AppendError::StateNotLoaded)) => {
                    self.load_producer_state(partition).await.map_err(ProduceError::State)?;
                }
                appended => return appended,
            }
        }
    }

    /// Aborted transactions that may have records in `from..to`, all below the last stable offset: from the footers of
    /// the ranges that they lie in and, from where this node holds the batches, from memory.
    ///
    /// An abort is in the footer of the run that has its marker, which may lie beyond `to`. So this goes on as long as
    /// a transaction that began below `to` is open at the end of a run; what is stable ends within the log.
    pub(super) async fn aborted_between(
        &self,
        partition: &Partition,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, FetchError> {
        let mut found = Vec::new();
        let mut at = from;
        loop {
            if let Some(rest) = partition.aborted_between(at, from, to) {
                found.extend(rest);
                break;
            }
            let (_, range) = self.locate(partition, at).await?.ok_or(FetchError::Missing(at))?;
            let run = self.objects.transactions(partition.id, &range).await?;
            found.extend(run.aborted_between(at, from, to));
            if range.end >= to && !run.leaves_open(to) {
                break;
            }
            at = range.end;
        }
        found.sort_unstable_by_key(|t| t.first_offset);
        Ok(found)
    }
}

/// The header of what a Produce request carries for a partition, if that is a batch in a transaction. Only a look:
/// nothing is checked, and what is broken is refused when it is appended.
pub fn transactional_header(records: &Option<Bytes>) -> Option<Header> {
    let header = Header::parse(records.as_deref()?).ok()?;
    (header.is_transactional() && header.has_producer()).then_some(header)
}
