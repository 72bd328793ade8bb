//! The transaction coordinator on the partitions of `__transaction_state`, and the markers that it orders.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use crate::base::{PartitionId, ProducerId};
use crate::batch::{self, EndMarker};
use crate::broker::{Admission, Broker, NotAdmitted, ProduceError, TransactionEnd, TransactionGate};
use crate::ledger::LedgerError;
use crate::partition::{AppendError, Appended, Origin, Partition};
use crate::security::{Operation, Permit, Resource};
use crate::transaction::{
    Coordinator, Effects, Error, Filter, Listing, Markers, Options, Producer, Reply, Request, Token, TopicPartition,
    TransactionVersion,
};

use super::load::Loadable;
use super::shard::{Answer, Machine, Shard, Work};
use super::{CoordinatorError, CoordinatorKind, OFFSETS_TOPIC, moment, partition_of};

/// Markers of a transaction that are written by whoever ends it; those of one with more partitions by a task.
const MARKERS_AT_ONCE: usize = 64;
/// Pause before a marker that could not be written is tried again.
const MARKER_AGAIN: Duration = Duration::from_millis(100);
/// Producer ids kept at hand; one request takes at most two.
const PRODUCER_IDS_MIN: usize = 8;
const PRODUCER_IDS_TAKEN: usize = 32;

/// One machine, as a shard drives it.
pub(super) struct TransactionMachine(Coordinator);

impl TransactionMachine {
    pub fn set_options(&mut self, options: Options) {
        self.0.set_options(options);
    }
}

impl Machine for TransactionMachine {
    type Reply = Reply;
    type Order = Markers;

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>, _: Option<(i64, i16)>) {
        if let Err(error) = self.0.replay(key, value) {
            tracing::warn!(%error, "a record of the transaction coordinator is passed over");
        }
    }

    /// Nobody writes to this topic in a transaction.
    fn replay_marker(&mut self, _: i64, _: bool) {}

    fn next_deadline(&self) -> Option<Duration> {
        self.0.next_deadline()
    }

    fn cancel(&mut self, token: u64) {
        self.0.cancel(Token(token));
    }
}

impl Loadable for TransactionMachine {
    fn new(broker: &Broker, partition: &Partition) -> Self {
        let options = broker.coordinators.options().transaction.clone();
        TransactionMachine(Coordinator::new(options, partition.positions().leader_epoch.0))
    }

    fn activated(broker: &Arc<Broker>, shard: &Arc<Shard<Self>>) {
        let now = moment(broker).into();
        let _ = broker.step_transaction(shard, |machine| work(machine.0.loaded(now)));
    }
}

fn work(effects: Effects) -> Work<TransactionMachine> {
    Work {
        records: effects.records.into_iter().map(|write| (write.key, write.value)).collect(),
        atomic: true,
        transactional: None,
        replies: effects.replies.into_iter().map(|(token, reply)| (token.0, reply)).collect(),
        orders: effects.markers,
    }
}

type TransactionShard = Arc<Shard<TransactionMachine>>;

impl Broker {
    /// Asks the coordinator of `transactional_id`, and answers when all that the reply rests on is durable. `permit` is
    /// for the id.
    pub async fn transaction_request(
        self: &Arc<Self>,
        permit: &Permit,
        transactional_id: &str,
        request: Request,
    ) -> Result<Reply, CoordinatorError> {
        debug_assert!(permit.covers(permit.operation(), Resource::transactional_id(transactional_id)));
        self.ask_transaction(transactional_id, request).await
    }

    async fn ask_transaction(
        self: &Arc<Self>,
        transactional_id: &str,
        request: Request,
    ) -> Result<Reply, CoordinatorError> {
        self.ask_transaction_shard(&self.transaction_shard(transactional_id)?, request).await?.durable().await
    }

    fn transaction_shard(&self, transactional_id: &str) -> Result<TransactionShard, CoordinatorError> {
        let partitions = self.topic(CoordinatorKind::Transaction.topic()).map_or(0, |topic| topic.partitions.len());
        let index = i32::try_from(partition_of(transactional_id, partitions)).unwrap_or(i32::MAX);
        let shard = self.coordinators.transactions().get(&index).cloned();
        shard.ok_or(CoordinatorError::NotCoordinator)
    }

    /// The transactions of all coordinators on this node.
    pub async fn list_transactions(self: &Arc<Self>, filter: &Filter) -> Result<Listing, CoordinatorError> {
        let mut all = Listing::default();
        let shards: Vec<_> = self.coordinators.transactions().values().cloned().collect();
        for shard in shards {
            let answer = self.ask_transaction_shard(&shard, Request::ListTransactions(filter.clone())).await?;
            match answer.durable().await? {
                Reply::ListTransactions(listing) => {
                    all.unknown_states = listing.unknown_states;
                    all.transactions.extend(listing.transactions);
                }
                _ => return Err(CoordinatorError::NotAvailable),
            }
        }
        all.transactions.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(all)
    }

    async fn ask_transaction_shard(
        self: &Arc<Self>,
        shard: &TransactionShard,
        request: Request,
    ) -> Result<Answer<Reply>, CoordinatorError> {
        self.coordinator_room().await?;
        self.prepare_producer_ids().await?;
        let expected = shard.expect();
        let token = Token(expected.token);
        let now = moment(self).into();
        self.step_transaction(shard, |machine| {
            work(machine.0.on_request(token, request, now, &mut || self.prepared_producer_id()))
        })?;
        expected.answer().await
    }

    /// Asks for a batch that is about to be appended: what is granted need only be appended. The batch comes after it in
    /// the same ledger, and is not durable without it. A refusal is durable, for nothing comes after it.
    async fn ask_for_batch(
        self: &Arc<Self>,
        transactional_id: &str,
        request: Request,
    ) -> Result<Reply, CoordinatorError> {
        let answer = self.ask_transaction_shard(&self.transaction_shard(transactional_id)?, request).await?;
        match &answer.reply {
            Reply::AddPartitions(Ok(())) | Reply::VerifyPartitions(Ok(_)) => Ok(answer.reply),
            _ => answer.durable().await,
        }
    }

    fn step_transaction(
        self: &Arc<Self>,
        shard: &TransactionShard,
        step: impl FnOnce(&mut TransactionMachine) -> Work<TransactionMachine>,
    ) -> Result<(), CoordinatorError> {
        let log = self.coordinator_log(CoordinatorKind::Transaction);
        match shard.step(&log, step) {
            Ok((orders, deadline)) => {
                self.coordinators.deadline(deadline);
                orders.into_iter().for_each(|order| self.carry_out(shard, order));
                Ok(())
            }
            Err(error) => {
                if error == CoordinatorError::NotAvailable {
                    self.coordinators.reconciled();
                }
                Err(error)
            }
        }
    }

    pub(super) fn transaction_timer(self: &Arc<Self>, shard: &TransactionShard) {
        let now = moment(self).into();
        let _ =
            self.step_transaction(shard, |machine| work(machine.0.on_timer(now, &mut || self.prepared_producer_id())));
    }

    fn prepared_producer_id(&self) -> Option<i64> {
        self.coordinators.producer_ids.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Machines cannot wait for the metadata: ids are there before they are asked for.
    async fn prepare_producer_ids(&self) -> Result<(), CoordinatorError> {
        let enough =
            || self.coordinators.producer_ids.lock().unwrap_or_else(PoisonError::into_inner).len() >= PRODUCER_IDS_MIN;
        if enough() {
            return Ok(());
        }
        for _ in 0..PRODUCER_IDS_TAKEN {
            let id = self.next_producer_id().await.map_err(|_| CoordinatorError::NotAvailable)?;
            self.coordinators.producer_ids.lock().unwrap_or_else(PoisonError::into_inner).push(id.0);
        }
        Ok(())
    }

    /// Ends a producer's transaction on one partition, and, if groups live there, in their offsets.
    fn end_on_partition(
        &self,
        partition: &Partition,
        end: TransactionEnd,
    ) -> Result<Result<Appended, AppendError>, CoordinatorError> {
        let marker = EndMarker { commit: end.commit, coordinator_epoch: end.coordinator_epoch };
        let now_ms = self.clock.wall_ms();
        let append = |partition: &Partition| {
            let batch = batch::end_marker(end.producer, end.epoch, marker, now_ms).map_err(|_| AppendError::Closed)?;
            let origin = Origin::Marker { marker, version2: end.version2 };
            partition.append(&self.ledger, &batch.header(), batch, origin, now_ms)
        };
        if *partition.topic != *OFFSETS_TOPIC {
            return Ok(append(partition));
        }
        let shard = self.coordinators.groups().get(&partition.id.index).cloned();
        let shard = shard.filter(|s| s.partition.id == partition.id).ok_or(CoordinatorError::Loading)?;
        shard.end_transaction(end.producer.0, end.commit, append)
    }

    /// Ends a producer's transaction on a partition by order of somebody else; answers when that is durable. `permit` is
    /// for acting on the cluster.
    pub async fn write_txn_marker(
        &self,
        permit: &Permit,
        partition: &Partition,
        end: TransactionEnd,
    ) -> Result<(), ProduceError> {
        assert!(
            permit.covers(Operation::ClusterAction, Resource::CLUSTER)
                || permit.covers(Operation::Alter, Resource::CLUSTER)
        );
        self.load_producer_state(partition).await.map_err(ProduceError::State)?;
        match self.end_on_partition(partition, end) {
            Ok(appended) => Ok(appended?.durable().await?),
            Err(_) => Err(AppendError::StateNotLoaded.into()),
        }
    }

    /// Writes the markers of a prepared transaction, at once where nothing has to be waited for.
    ///
    /// The decision need not be durable before: it lies before its markers in the same ledger, so that none of them can
    /// be durable without it. For the same reason the transaction is complete as soon as all of them are appended.
    fn carry_out(self: &Arc<Self>, shard: &TransactionShard, order: Markers) {
        let here = if order.partitions.len() <= MARKERS_AT_ONCE { order.partitions.as_slice() } else { &[] };
        let is_written = |partition: &&TopicPartition| self.append_marker_of(&order, partition).is_written();
        let done: Vec<_> = here.iter().filter(is_written).cloned().collect();
        let open: Vec<_> = order.partitions.iter().filter(|partition| !done.contains(partition)).cloned().collect();
        if self.tell_written(shard, &order, &done).is_ok() && !open.is_empty() {
            tokio::spawn(write_markers(self.clone(), shard.clone(), order, open));
        }
    }

    fn tell_written(
        self: &Arc<Self>,
        shard: &TransactionShard,
        order: &Markers,
        done: &[TopicPartition],
    ) -> Result<(), CoordinatorError> {
        if done.is_empty() {
            return Ok(());
        }
        let now = moment(self).into();
        self.step_transaction(shard, |machine| {
            work(machine.0.markers_written(&order.transactional_id, order.order, done, now))
        })
    }

    fn append_marker_of(&self, order: &Markers, (topic, index): &TopicPartition) -> Marker {
        let Some(found) = self.topic(topic).filter(|t| usize::try_from(*index).is_ok_and(|i| i < t.partitions.len()))
        else {
            return Marker::Written; // deleted: nothing of the transaction is left there
        };
        let Some(partition) = self.registry.get(PartitionId { topic: found.id, index: *index }) else {
            return Marker::Later;
        };
        if partition.needs_producer_state() {
            return Marker::NeedsState(partition);
        }
        let end = TransactionEnd {
            producer: ProducerId(order.producer.id),
            epoch: order.producer.epoch,
            coordinator_epoch: order.coordinator_epoch,
            commit: order.commit,
            version2: order.version >= TransactionVersion::V2,
        };
        match self.end_on_partition(&partition, end) {
            Ok(Ok(_)) => Marker::Written,
            // A newer coordinator or a newer producer has ended it.
            Ok(Err(AppendError::Producer(error))) => {
                tracing::info!(topic = &**topic, index, %error, "a transaction marker is not needed any more");
                Marker::Written
            }
            Ok(Err(AppendError::Ledger(LedgerError::Full))) => {
                self.registry.upload_due.notify_one();
                Marker::Later
            }
            Ok(Err(_)) | Err(_) => Marker::Later,
        }
    }

    /// Writes one marker, and fetches before what has to be known for it. False: try again later.
    async fn write_marker(&self, order: &Markers, partition: &TopicPartition) -> bool {
        let mut marker = self.append_marker_of(order, partition);
        if let Marker::NeedsState(partition_here) = &marker
            && self.load_producer_state(partition_here).await.is_ok()
        {
            marker = self.append_marker_of(order, partition);
        }
        marker.is_written()
    }
}

/// What became of a marker.
enum Marker {
    /// It is appended, or not needed.
    Written,
    Later,
    /// The producers of the partition are not known yet.
    NeedsState(Arc<Partition>),
}

impl Marker {
    fn is_written(&self) -> bool {
        matches!(self, Marker::Written)
    }
}

/// Writes the markers that are left of an order, as long as it takes, and tells the machine.
async fn write_markers(broker: Arc<Broker>, shard: TransactionShard, order: Markers, mut left: Vec<TopicPartition>) {
    loop {
        let written = join_all(left.iter().map(|partition| broker.write_marker(&order, partition))).await;
        let (mut done, mut open) = (Vec::new(), Vec::new());
        for (partition, written) in left.into_iter().zip(written) {
            if written { done.push(partition) } else { open.push(partition) }
        }
        if broker.tell_written(&shard, &order, &done).is_err() {
            return; // the machine that comes next orders them again
        }
        left = open;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(MARKER_AGAIN).await;
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
            let all = |answer: Result<(), NotAdmitted>| vec![answer; ask.partitions.len()];
            let Some(broker) = self.broker.upgrade() else { return all(Err(NotAdmitted::Unavailable)) };
            let transactional_id = ask.transactional_id.to_owned();
            let producer = Producer { id: ask.producer.0, epoch: ask.epoch };
            let partitions = ask.partitions.to_vec();
            let request = if ask.add {
                let version = TransactionVersion::V2;
                Request::AddPartitions { transactional_id, producer, partitions, version, wait: Duration::ZERO }
            } else {
                Request::VerifyPartitions { transactional_id, producer, partitions }
            };
            // The permit was shown to whoever asks this question for a batch.
            match broker.ask_for_batch(ask.transactional_id, request).await {
                Ok(Reply::AddPartitions(answer)) => all(answer.map_err(not_admitted)),
                Ok(Reply::VerifyPartitions(Ok(answers))) => ask
                    .partitions
                    .iter()
                    .map(|asked| match answers.iter().find(|(answered, _)| answered == asked) {
                        Some((_, answer)) => answer.map_err(not_admitted),
                        None => Err(NotAdmitted::NotInTransaction),
                    })
                    .collect(),
                Ok(Reply::VerifyPartitions(Err(error))) => all(Err(not_admitted(error))),
                Ok(_) | Err(_) => all(Err(NotAdmitted::Unavailable)),
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
