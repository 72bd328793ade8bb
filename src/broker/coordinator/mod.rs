//! Hosts the coordinators of groups and transactions on the partitions of their internal topics.
//!
//! A shard is one partition together with one pure machine. For every event the machine decides under the shard's
//! lock; its records are appended at once, in that order, and replies leave when everything that the shard has
//! appended is durable. A machine whose records cannot be appended is thrown away and loaded again from the log, so
//! that what is answered always rests on what is stored.

mod admission;
mod groups;
mod load;
mod markers;
mod options;
mod remote;
mod settled;
mod shard;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::{NodeId, PartitionId};
use crate::metadata::{Command, Image, Reject};
use crate::security::{Operation, Permit, Resource};
use crate::{group, transaction};

use super::{Broker, ChangeError, spread_leaders};

use shard::Shard;

use options::CoordinatorOptions;

pub use admission::{AdmissionService, AdmittedOffsets};
pub use markers::MarkerService;
pub use remote::{NoAnswer, Remote};

/// Topic of committed offsets and groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Topic of transactional ids.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
/// Share of the WAL's budget, in percent, that coordinators leave alone: their appends may not fail half-way.
const RESERVED_PERCENT: u64 = 1;
/// How long the first request may wait for the shards of a topic that was just made.
const NEW_TOPIC_WAIT: Duration = Duration::from_secs(2);

/// Which coordinator is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorKind {
    Group,
    Transaction,
}

impl CoordinatorKind {
    pub fn topic(self) -> &'static str {
        match self {
            CoordinatorKind::Group => OFFSETS_TOPIC,
            CoordinatorKind::Transaction => TRANSACTIONS_TOPIC,
        }
    }

    /// The coordinator whose topic has this name.
    pub fn of_topic(name: &str) -> Option<CoordinatorKind> {
        [CoordinatorKind::Group, CoordinatorKind::Transaction].into_iter().find(|kind| kind.topic() == name)
    }
}

/// Why a coordinator gives no answer of its own. Clients try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    #[error("the coordinator is being loaded")]
    Loading,
    #[error("the coordinator is not available")]
    NotAvailable,
    #[error("this node is not the coordinator")]
    NotCoordinator,
}

impl CoordinatorError {
    /// Kafka's number for it.
    pub fn code(self) -> i16 {
        match self {
            CoordinatorError::Loading => 14,
            CoordinatorError::NotAvailable => 15,
            CoordinatorError::NotCoordinator => 16,
        }
    }
}

type Shards<M> = HashMap<i32, Arc<Shard<M>>>;

/// The shards of this node.
pub(super) struct Coordinators {
    groups: Mutex<Shards<groups::GroupMachine>>,
    transactions: Mutex<Shards<transactions::TransactionMachine>>,
    options: Mutex<Arc<CoordinatorOptions>>,
    /// Woken when shards may have to be opened or loaded, or a deadline has come nearer.
    wake: Notify,
    /// CLOCK_BOOTTIME in nanoseconds until which the timer sleeps.
    sleeping_until: AtomicU64,
    /// Producer ids that were allocated beforehand for transactional producers.
    producer_ids: Mutex<Vec<i64>>,
    /// Held while an internal topic is made.
    creating: tokio::sync::Mutex<()>,
    /// Woken when a shard becomes active.
    activated: Notify,
    topics: topics::Versions,
    /// The way to coordinators and partitions on other nodes, once there are any.
    remote: OnceLock<Arc<dyn Remote>>,
    lanes: markers::Lanes,
}

impl Coordinators {
    pub fn new() -> Coordinators {
        Coordinators {
            groups: Mutex::default(),
            transactions: Mutex::default(),
            options: Mutex::default(),
            wake: Notify::new(),
            sleeping_until: AtomicU64::new(0),
            producer_ids: Mutex::default(),
            creating: tokio::sync::Mutex::new(()),
            activated: Notify::new(),
            topics: topics::Versions::default(),
            remote: OnceLock::new(),
            lanes: markers::Lanes::default(),
        }
    }

    /// The metadata were reconciled: partitions may have opened or closed.
    pub fn reconciled(&self) {
        self.wake.notify_one();
    }

    fn groups(&self) -> MutexGuard<'_, Shards<groups::GroupMachine>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transactions(&self) -> MutexGuard<'_, Shards<transactions::TransactionMachine>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> Arc<CoordinatorOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A machine's next deadline is `at` now.
    fn deadline(&self, at: Option<Duration>) {
        if at.is_some_and(|at| nanos(at) < self.sleeping_until.load(Ordering::Relaxed)) {
            self.wake.notify_one();
        }
    }
}

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

impl Broker {
    /// Opens and closes shards as the metadata say and lets time pass for them, until the process ends.
    pub async fn run_coordinators(self: Arc<Self>) {
        self.set_transaction_gate(Arc::new(admission::Gate::new(&self)));
        let mut image = self.image.clone();
        loop {
            self.follow_options();
            self.sync_shards();
            let next = self.fire_timers();
            self.coordinators.sleeping_until.store(next.map_or(u64::MAX, nanos), Ordering::Relaxed);
            let pause = next.map_or(Duration::from_secs(3600), |at| at.saturating_sub(self.clock.boottime()));
            tokio::select! {
                changed = image.changed() => if changed.is_err() { return },
                () = self.coordinators.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The node whose coordinator has `key`. Makes the internal topic if there is none yet.
    /// `permit` is for the group or the transactional id.
    pub async fn find_coordinator(
        &self,
        permit: &Permit,
        kind: CoordinatorKind,
        key: &str,
    ) -> Result<NodeId, CoordinatorError> {
        debug_assert!(match kind {
            CoordinatorKind::Group => permit.covers(permit.operation(), Resource::group(key)),
            CoordinatorKind::Transaction => permit.covers(permit.operation(), Resource::transactional_id(key)),
        });
        self.ensure_internal_topic(kind).await?;
        let image = self.image();
        let topic = image.topic(kind.topic()).ok_or(CoordinatorError::NotAvailable)?;
        let partition = topic.partitions.get(partition_of(key, topic.partitions.len()));
        partition.map(|p| p.leader).ok_or(CoordinatorError::NotAvailable)
    }

    /// Makes the topic of a coordinator, with its own settings, where it is not there yet. `permit` is for creating.
    pub async fn create_internal_topic(&self, permit: &Permit, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
        assert!(permit.operation() == Operation::Create);
        self.ensure_internal_topic(kind).await
    }

    async fn ensure_internal_topic(&self, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
        if self.topic(kind.topic()).is_some() {
            return Ok(());
        }
        let _only_one = self.coordinators.creating.lock().await;
        if self.topic(kind.topic()).is_some() {
            return Ok(());
        }
        let options = self.coordinators.options();
        let (partitions, replication_factor, configs) = options.internal_topic(kind);
        let mut id = crate::base::TopicId::default();
        while id.is_zero() {
            self.entropy.fill(&mut id.0);
        }
        let image = self.image();
        let brokers = i16::try_from(image.brokers.len()).unwrap_or(i16::MAX);
        let command = Command::CreateTopic {
            id,
            name: kind.topic().to_owned(),
            partitions: spread_leaders(&image, None, partitions),
            replication_factor: replication_factor.clamp(1, brokers.max(1)),
            configs,
            now_ms: self.clock.wall_ms(),
        };
        match self.propose(command).await {
            Ok(_) | Err(ChangeError::Rejected(Reject::TopicExists { .. })) => {
                self.coordinators.reconciled();
                self.wait_for_shards(kind).await;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, topic = kind.topic(), "the internal topic cannot be made");
                Err(CoordinatorError::NotAvailable)
            }
        }
    }

    /// A new topic's shards have nothing to load: worth a moment, so that the first request finds them.
    async fn wait_for_shards(&self, kind: CoordinatorKind) {
        let until = tokio::time::Instant::now() + NEW_TOPIC_WAIT;
        loop {
            let activated = self.coordinators.activated.notified();
            let topic = self.topic(kind.topic());
            let expected = topic.map_or(0, |t| t.partitions.iter().filter(|p| p.leader == self.node).count());
            let active = match kind {
                CoordinatorKind::Group => self.coordinators.groups().values().filter(|s| s.is_active()).count(),
                CoordinatorKind::Transaction => {
                    self.coordinators.transactions().values().filter(|s| s.is_active()).count()
                }
            };
            if active >= expected || self.is_stopping() || tokio::time::timeout_at(until, activated).await.is_err() {
                return;
            }
        }
    }

    /// Opens shards for partitions that have opened here, closes those whose partition is gone, loads what is new.
    fn sync_shards(self: &Arc<Self>) {
        let image = self.image();
        let deleted = self.coordinators.topics.follow(&image);
        for shard in self.sync_kind(&image, CoordinatorKind::Group, &mut self.coordinators.groups()) {
            tokio::spawn(load::load(self.clone(), shard));
        }
        for shard in self.sync_kind(&image, CoordinatorKind::Transaction, &mut self.coordinators.transactions()) {
            tokio::spawn(load::load(self.clone(), shard));
        }
        if !deleted.is_empty() {
            self.forget_topics(&deleted);
        }
    }

    /// Closes all shards for good: the node stops. Whoever waits for a reply is told to look for another coordinator.
    pub(super) fn close_coordinators(&self) {
        self.coordinators.groups().values().for_each(|shard| shard.close());
        self.coordinators.transactions().values().for_each(|shard| shard.close());
        self.coordinators.activated.notify_waiters();
    }

    /// Answers the shards that have to be loaded.
    fn sync_kind<M: shard::Machine>(
        &self,
        image: &Image,
        kind: CoordinatorKind,
        shards: &mut Shards<M>,
    ) -> Vec<Arc<Shard<M>>> {
        let topic = image.topic(kind.topic());
        let open = |index: i32| {
            let id = PartitionId { topic: topic?.id, index };
            // By the newest metadata: where another leads, waiting for the partition to close would be too long.
            image.partition(id).filter(|p| p.leader == self.node)?;
            self.registry.get(id)
        };
        shards.retain(|index, shard| {
            let stays = open(*index).is_some_and(|partition| Arc::ptr_eq(&partition, &shard.partition));
            if !stays {
                shard.close();
            }
            stays
        });
        // Asked under the lock of the shards: one that is closed by the stop stays closed, and none comes after.
        let wanted = if self.is_stopping() { 0 } else { topic.map_or(0, |t| t.partitions.len() as i32) };
        for index in 0..wanted {
            if let Some(partition) = open(index) {
                shards.entry(index).or_insert_with(|| Arc::new(Shard::new(partition, self.lease.clone())));
            }
        }
        shards.values().filter(|shard| shard.begin_loading()).cloned().collect()
    }

    /// Does what is due; answers when the next thing is.
    fn fire_timers(self: &Arc<Self>) -> Option<Duration> {
        let now = self.clock.boottime();
        let mut next: Option<Duration> = None;
        let groups: Vec<_> = self.coordinators.groups().values().cloned().collect();
        for shard in groups {
            if shard.next_deadline().is_some_and(|at| at <= now) {
                self.group_timer(&shard);
            }
            next = next.into_iter().chain(shard.next_deadline()).min();
        }
        let transactions: Vec<_> = self.coordinators.transactions().values().cloned().collect();
        for shard in transactions {
            if shard.next_deadline().is_some_and(|at| at <= now) {
                self.transaction_timer(&shard);
            }
            next = next.into_iter().chain(shard.next_deadline()).min();
        }
        next
    }

    /// Whether the WAL has room for what a coordinator may append at once; waits a little for it.
    async fn coordinator_room(&self) -> Result<(), CoordinatorError> {
        let has_room = || {
            let usage = self.wal.usage();
            let reserved = usage.budget_bytes.saturating_mul(RESERVED_PERCENT) / 100;
            usage.needed_bytes.saturating_add(reserved) < usage.budget_bytes
        };
        if has_room() {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + self.options.room_wait;
        loop {
            let room = self.room.notified();
            if has_room() {
                return Ok(());
            }
            self.registry.upload_due.notify_one();
            if tokio::time::timeout_at(until, room).await.is_err() {
                return Err(CoordinatorError::NotAvailable);
            }
        }
    }
}

/// The partition of an internal topic that a group or a transactional id belongs to.
fn partition_of(key: &str, partitions: usize) -> usize {
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    usize::try_from(transaction::partition_for(key, count)).unwrap_or(0)
}

/// The moment of a call, for either machine.
fn moment(broker: &Broker) -> (i64, Duration) {
    (broker.clock.wall_ms(), broker.clock.boottime())
}

impl From<(i64, Duration)> for group::Now {
    fn from((wall_ms, monotonic): (i64, Duration)) -> Self {
        group::Now { wall_ms, monotonic }
    }
}

impl From<(i64, Duration)> for transaction::Now {
    fn from((wall_ms, monotonic): (i64, Duration)) -> Self {
        transaction::Now { wall_ms, monotonic }
    }
}
