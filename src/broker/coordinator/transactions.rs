//! The transaction coordinator on the partitions of `__transaction_state`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::broker::Broker;
use crate::partition::Partition;
use crate::security::{Permit, Resource};
use crate::transaction::{Coordinator, Effects, Filter, Listing, Markers, Options, Reply, Request, Token};

use super::load::Loadable;
use super::shard::{Answer, Machine, Shard, Work};
use super::{CoordinatorError, CoordinatorKind, moment, partition_of};

/// Producer ids kept at hand; one request takes at most two.
const PRODUCER_IDS_MIN: usize = 8;
const PRODUCER_IDS_TAKEN: usize = 32;

/// One machine, as a shard drives it.
pub(super) struct TransactionMachine(pub Coordinator);

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

pub(super) fn work(effects: Effects) -> Work<TransactionMachine> {
    Work {
        records: effects.records.into_iter().map(|write| (write.key, write.value)).collect(),
        atomic: true,
        transactional: None,
        replies: effects.replies.into_iter().map(|(token, reply)| (token.0, reply)).collect(),
        orders: effects.markers,
    }
}

/// Whether the request may change a transaction.
fn writes(request: &Request) -> bool {
    match request {
        Request::InitProducerId { .. }
        | Request::AddPartitions { .. }
        | Request::AddOffsets { .. }
        | Request::EndTxn { .. } => true,
        Request::VerifyPartitions { .. } | Request::DescribeTransaction { .. } | Request::ListTransactions(_) => false,
    }
}

pub(super) type TransactionShard = Arc<Shard<TransactionMachine>>;

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
        let shard = self.transaction_shard(transactional_id)?;
        let writes = writes(&request);
        let answer = self.ask_transaction_shard(&shard, request).await?;
        let reply = match writes {
            true => self.settled(CoordinatorKind::Transaction, &shard.partition, answer).await?,
            false => answer.durable().await?,
        };
        if self.leads_now(shard.partition.id) { Ok(reply) } else { Err(CoordinatorError::NotCoordinator) }
    }

    pub(super) fn transaction_shard(&self, transactional_id: &str) -> Result<TransactionShard, CoordinatorError> {
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

    pub(super) async fn ask_transaction_shard(
        self: &Arc<Self>,
        shard: &TransactionShard,
        request: Request,
    ) -> Result<Answer<Reply>, CoordinatorError> {
        if writes(&request) {
            self.coordinator_in_sync(CoordinatorKind::Transaction)?;
        }
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

    pub(super) fn step_transaction(
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
}
