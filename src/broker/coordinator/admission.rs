//! The question whether partitions may be written in a transaction (KIP-890), here or at the coordinator's node.
//!
//! The rule: a batch of a transaction is never durable without the record that puts its partition into the transaction,
//! or nobody would end it there. With the coordinator on this node both go into one ledger, of which only a prefix can
//! be durable, so the record need only be appended first. With the coordinator on another node they are in two ledgers:
//! it answers when its record is durable.
//!
//! A coordinator takes a topic that it does not know for deleted when it sends markers. So it answers for other nodes
//! only as of metadata that are as new as the asker's.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::base::limits::{ADMIT_BYTES_MAX, ADMIT_PARTITIONS_MAX};
use crate::base::{NodeId, ProducerId};
use crate::broker::{Admission, Broker, NotAdmitted, TransactionGate};
use crate::partition::{AppendError, Guard, ProducerError};
use crate::peer::{Answering, Caller, Refused, Service, kind};
use crate::security::{Permit, Resource};
use crate::transaction::{Error, Producer, Reply, Request, TransactionVersion};

use super::transactions::TransactionShard;
use super::wire::{self, Admit, Admitted};
use super::{CoordinatorError, CoordinatorKind, OFFSETS_TOPIC, partition_of};

/// For the answer of a coordinator on another node. A producer's connection waits with it.
const ADMIT_WITHIN: Duration = Duration::from_secs(2);
/// How long a coordinator waits for the metadata that an asker on another node has seen.
const FOLLOW_WITHIN: Duration = Duration::from_secs(1);
/// How long a transaction that begins waits for the one before it to complete (Kafka's
/// `add.partitions.to.txn.retry.backoff.max.ms`).
const CONCURRENT_WAIT: Duration = Duration::from_millis(100);
/// The same, asked by another node: the most that is waited.
const CONCURRENT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Whether what was granted may rest on a record that is only appended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rests {
    /// What comes of it goes into this node's ledger, after the record.
    OnOrder,
    OnDurability,
}

/// The leave to commit a group's offsets in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct AdmittedOffsets {
    pub(super) producer: Producer,
    pub(super) guard: Option<Guard>,
}

/// Where a transaction's coordinator is.
enum Place {
    Here(TransactionShard),
    There(NodeId),
}

impl Broker {
    fn place_of_coordinator(&self, transactional_id: &str) -> Result<Place, CoordinatorError> {
        let topic = self.topic(CoordinatorKind::Transaction.topic()).ok_or(CoordinatorError::NotCoordinator)?;
        let index = partition_of(transactional_id, topic.partitions.len());
        match topic.partitions.get(index).ok_or(CoordinatorError::NotCoordinator)?.leader {
            here if here == self.node => self.transaction_shard(transactional_id).map(Place::Here),
            there => Ok(Place::There(there)),
        }
    }

    async fn ask_admission(self: &Arc<Self>, mut ask: Admit, rests: Rests) -> Result<Admitted, CoordinatorError> {
        match self.place_of_coordinator(&ask.transactional_id)? {
            Place::Here(shard) => self.admit_here(&shard, ask, rests).await,
            Place::There(node) => {
                if ask.add {
                    ask.wait = CONCURRENT_WAIT;
                }
                self.ask_other(node, &ask).await
            }
        }
    }

    async fn admit_here(
        self: &Arc<Self>,
        shard: &TransactionShard,
        ask: Admit,
        rests: Rests,
    ) -> Result<Admitted, CoordinatorError> {
        let count = ask.partitions.len();
        let answer = self.ask_transaction_shard(shard, request(ask)).await?;
        let granted = matches!(answer.reply, Reply::AddPartitions(Ok(())) | Reply::VerifyPartitions(Ok(_)));
        // A refusal is durable in any case, for nothing comes after it.
        let reply = match granted && rests == Rests::OnOrder {
            true => answer.reply,
            false => self.settled(CoordinatorKind::Transaction, &shard.partition, answer).await?,
        };
        admitted(reply, count)
    }

    async fn ask_other(&self, node: NodeId, ask: &Admit) -> Result<Admitted, CoordinatorError> {
        let asked = ask.partitions.len();
        let too_many = || Ok(vec![Err(Error::RecordTooLarge); asked]);
        if asked > ADMIT_PARTITIONS_MAX {
            return too_many();
        }
        let body = wire::encode_admit(kind::ADMIT, ask);
        if body.len() > ADMIT_BYTES_MAX {
            return too_many();
        }
        let answer = self.call_node(node, body, ADMIT_WITHIN).await.map_err(|error| {
            tracing::debug!(%node, %error, "a transaction's coordinator gives no answer");
            CoordinatorError::NotAvailable
        })?;
        wire::decode_admitted(&answer, asked).unwrap_or_else(|error| {
            tracing::warn!(%node, %error, "a transaction's coordinator cannot be understood");
            Err(CoordinatorError::NotAvailable)
        })
    }

    /// Answers another node, when all that the answer rests on is durable.
    async fn admit_for_other(self: &Arc<Self>, mut ask: Admit) -> Result<Admitted, CoordinatorError> {
        let mut image = self.image.clone();
        let applied = ask.applied;
        let followed = async { image.wait_for(|image| image.applied >= applied).await.is_ok() };
        if !tokio::time::timeout(FOLLOW_WITHIN, followed).await.unwrap_or(false) {
            return Err(CoordinatorError::Loading);
        }
        let Place::Here(shard) = self.place_of_coordinator(&ask.transactional_id)? else {
            return Err(CoordinatorError::NotCoordinator);
        };
        ask.wait = ask.wait.min(CONCURRENT_WAIT_MAX);
        let answer = self.admit_here(&shard, ask, Rests::OnDurability).await?;
        // A verification writes nothing, so that its durability proves nothing.
        if self.leads_now(shard.partition.id) { Ok(answer) } else { Err(CoordinatorError::NotCoordinator) }
    }

    /// Asks the coordinator of a transaction, on whatever node, whether the offsets of `group` may be committed in it;
    /// with `add` the group's partition is added. `permit` is for writing in transactions of this id.
    ///
    /// The group's coordinator must be here. What is granted is durable, and holds for [`Broker::commit_in_transaction`]
    /// until the transaction ends.
    pub async fn admit_offsets(
        self: &Arc<Self>,
        permit: &Permit,
        transactional_id: &str,
        producer: Producer,
        group: &str,
        add: bool,
    ) -> Result<Result<AdmittedOffsets, Error>, CoordinatorError> {
        debug_assert!(permit.covers(permit.operation(), Resource::transactional_id(transactional_id)));
        let partition = self.group_shard(group)?.partition.clone();
        self.load_producer_state(&partition).await.map_err(|_| CoordinatorError::Loading)?;
        let begun = partition.begin_own_verification(ProducerId(producer.id), producer.epoch, self.clock.wall_ms());
        let guard = match begun {
            Ok(guard) => guard,
            Err(AppendError::Producer(ProducerError::OldEpoch { .. })) => return Ok(Err(Error::ProducerFenced)),
            Err(_) => return Err(CoordinatorError::NotCoordinator),
        };
        let ask = Admit {
            applied: self.image().applied,
            transactional_id: transactional_id.to_owned(),
            producer,
            add,
            wait: if add { CONCURRENT_WAIT } else { Duration::ZERO },
            partitions: vec![(OFFSETS_TOPIC.into(), partition.id.index)],
        };
        let answers = self.ask_admission(ask, Rests::OnDurability).await?;
        Ok(answers.into_iter().collect::<Result<Vec<()>, _>>().map(|_| AdmittedOffsets { producer, guard }))
    }
}

fn request(ask: Admit) -> Request {
    let Admit { transactional_id, producer, partitions, wait, .. } = ask;
    match ask.add {
        true => {
            let version = TransactionVersion::V2;
            Request::AddPartitions { transactional_id, producer, partitions, version, wait }
        }
        false => Request::VerifyPartitions { transactional_id, producer, partitions },
    }
}

/// The reply to a request about `count` partitions, for each of them.
fn admitted(reply: Reply, count: usize) -> Result<Admitted, CoordinatorError> {
    match reply {
        Reply::AddPartitions(answer) => Ok(vec![answer; count]),
        Reply::VerifyPartitions(Err(error)) => Ok(vec![Err(error); count]),
        // In the order in which they were asked for.
        Reply::VerifyPartitions(Ok(answers)) => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
        _ => Err(CoordinatorError::NotAvailable),
    }
}

/// The way from a Produce request to the coordinator of its transaction.
pub(super) struct Gate {
    broker: Weak<Broker>,
}

impl Gate {
    pub fn new(broker: &Arc<Broker>) -> Gate {
        Gate { broker: Arc::downgrade(broker) }
    }
}

impl TransactionGate for Gate {
    fn admit<'a>(&'a self, ask: Admission<'a>) -> BoxFuture<'a, Vec<Result<(), NotAdmitted>>> {
        async move {
            let all = |answer| vec![answer; ask.partitions.len()];
            let Some(broker) = self.broker.upgrade() else { return all(Err(NotAdmitted::Unavailable)) };
            // The permit was shown to whoever asks this question for a batch.
            let question = Admit {
                applied: broker.image().applied,
                transactional_id: ask.transactional_id.to_owned(),
                producer: Producer { id: ask.producer.0, epoch: ask.epoch },
                add: ask.add,
                wait: Duration::ZERO,
                partitions: ask.partitions.to_vec(),
            };
            match broker.ask_admission(question, Rests::OnOrder).await {
                Ok(answers) => answers.into_iter().map(|answer| answer.map_err(not_admitted)).collect(),
                Err(_) => all(Err(NotAdmitted::Unavailable)),
            }
        }
        .boxed()
    }
}

fn not_admitted(error: Error) -> NotAdmitted {
    match error {
        Error::ProducerFenced => NotAdmitted::Fenced,
        Error::InvalidProducerIdMapping | Error::TransactionalIdNotFound => NotAdmitted::OtherProducer,
        Error::ConcurrentTransactions => NotAdmitted::Concurrent,
        Error::TransactionAbortable | Error::InvalidTxnState => NotAdmitted::NotInTransaction,
        Error::NoProducerId | Error::TooManyIds => NotAdmitted::Unavailable,
        _ => NotAdmitted::Invalid,
    }
}

/// Answers requests of kind [`kind::ADMIT`].
pub struct AdmissionService(Arc<Broker>);

impl AdmissionService {
    pub fn new(broker: Arc<Broker>) -> AdmissionService {
        AdmissionService(broker)
    }
}

impl Service for AdmissionService {
    fn call(&self, _from: &Caller, request: Bytes) -> Answering {
        let broker = self.0.clone();
        let ask = wire::decode_admit(&request);
        Box::pin(async move {
            let ask = ask.map_err(|error| Refused(format!("the question about a transaction is broken: {error}")))?;
            Ok(wire::encode_admitted(&broker.admit_for_other(ask).await).into())
        })
    }
}
