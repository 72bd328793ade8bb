//! One partition of an internal topic and the machine that decides what is written to it.
//!
//! Lock order: the shard, then its partition. Nothing waits under the shard's lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::base::{Offset, ProducerId};
use crate::batch::{BatchBuilder, BuildError, StoredBatch, Writer};
use crate::ledger::LedgerWriter;
use crate::partition::{AppendError, Origin, Partition};

use super::super::Lease;
use super::CoordinatorError;

/// A pure machine as a shard sees it.
pub(super) trait Machine: Send + Sized + 'static {
    type Reply: Send + 'static;
    /// What the machine wants done once its records are stored.
    type Order: Send + 'static;

    /// A record of the log; `from` is the producer of a transactional batch.
    fn replay(&mut self, key: &[u8], value: Option<&[u8]>, from: Option<(i64, i16)>);
    /// The end of a transaction in the log of the partition.
    fn replay_marker(&mut self, producer: i64, commit: bool);
    fn next_deadline(&self) -> Option<Duration>;
    /// Nobody waits for this reply any more.
    fn cancel(&mut self, token: u64);
}

/// What a machine wants of its host.
pub(super) struct Work<M: Machine> {
    pub records: Vec<(Bytes, Option<Bytes>)>,
    /// Whether the records have to be one batch.
    pub atomic: bool,
    pub transactional: Option<(i64, i16)>,
    pub replies: Vec<(u64, M::Reply)>,
    pub orders: Vec<M::Order>,
}

impl<M: Machine> Default for Work<M> {
    fn default() -> Self {
        let (records, replies, orders) = (Vec::new(), Vec::new(), Vec::new());
        Work { records, atomic: false, transactional: None, replies, orders }
    }
}

/// Waits until everything is durable that a shard had appended at some moment.
type Durable = Option<oneshot::Receiver<()>>;

/// A reply, and what it rests on.
pub(super) struct Answer<R> {
    pub reply: R,
    /// The end of the shard's log when the reply was given.
    pub end: Offset,
    durable: Durable,
    lease: Arc<Lease>,
}

impl<R> Answer<R> {
    /// The reply, once all that it rests on is durable, if this process may give it then.
    pub async fn durable(self) -> Result<R, CoordinatorError> {
        if let Some(durable) = self.durable {
            // The partition was closed here, as its leader is another node now.
            durable.await.map_err(|_| CoordinatorError::NotCoordinator)?;
        }
        if self.lease.is_valid() { Ok(self.reply) } else { Err(CoordinatorError::NotCoordinator) }
    }
}

enum Phase<M> {
    New,
    Loading,
    Active(Box<M>),
    Closed,
}

/// See the module.
pub(super) struct Shard<M: Machine> {
    pub partition: Arc<Partition>,
    lease: Arc<Lease>,
    state: Mutex<Phase<M>>,
    waiting: Mutex<Waiting<M::Reply>>,
}

struct Waiting<R> {
    next: u64,
    replies: HashMap<u64, oneshot::Sender<Answer<R>>>,
}

/// Where a shard's records go.
pub(super) struct Log<'a> {
    pub ledger: &'a LedgerWriter,
    pub wall_ms: i64,
    pub batch_bytes_max: usize,
}

/// A request that waits; dropping it tells the machine.
pub(super) struct Expected<'a, M: Machine> {
    shard: &'a Shard<M>,
    pub token: u64,
    answer: oneshot::Receiver<Answer<M::Reply>>,
}

impl<M: Machine> Expected<'_, M> {
    /// The reply as soon as the machine has given it.
    pub async fn answer(mut self) -> Result<Answer<M::Reply>, CoordinatorError> {
        // The shard was closed, or its machine thrown away.
        (&mut self.answer).await.map_err(|_| CoordinatorError::NotCoordinator)
    }
}

impl<M: Machine> Drop for Expected<'_, M> {
    fn drop(&mut self) {
        if self.shard.waiting().replies.remove(&self.token).is_some()
            && let Phase::Active(machine) = &mut *self.shard.state()
        {
            machine.cancel(self.token);
        }
    }
}

impl<M: Machine> Shard<M> {
    pub fn new(partition: Arc<Partition>, lease: Arc<Lease>) -> Shard<M> {
        let waiting = Waiting { next: 0, replies: HashMap::new() };
        Shard { partition, lease, state: Mutex::new(Phase::New), waiting: Mutex::new(waiting) }
    }

    fn state(&self) -> MutexGuard<'_, Phase<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<M::Reply>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_active(&self) -> bool {
        matches!(&*self.state(), Phase::Active(_))
    }

    /// Whether the caller is to load the shard now.
    pub fn begin_loading(&self) -> bool {
        let mut state = self.state();
        let begins = matches!(&*state, Phase::New);
        if begins {
            *state = Phase::Loading;
        }
        begins
    }

    /// The machine takes over if the log still ends at `end`; otherwise it comes back.
    pub fn activate(&self, machine: M, end: Offset) -> Result<(), Option<M>> {
        let mut state = self.state();
        if !matches!(&*state, Phase::Loading) {
            return Err(None);
        }
        if self.partition.positions().next != end {
            return Err(Some(machine));
        }
        *state = Phase::Active(Box::new(machine));
        Ok(())
    }

    pub fn close(&self) {
        *self.state() = Phase::Closed;
        self.waiting().replies.clear();
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        match &*self.state() {
            Phase::Active(machine) => machine.next_deadline(),
            _ => None,
        }
    }

    /// A place for a reply.
    pub fn expect(&self) -> Expected<'_, M> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        let token = waiting.next;
        waiting.next += 1;
        waiting.replies.insert(token, sender);
        drop(waiting);
        Expected { shard: self, token, answer }
    }

    /// Lets the machine take one step, stores what it writes and sends what it answers. Answers its orders, which rest
    /// on what was stored, and its next deadline.
    pub fn step(
        &self,
        log: &Log<'_>,
        step: impl FnOnce(&mut M) -> Work<M>,
    ) -> Result<(Vec<M::Order>, Option<Duration>), CoordinatorError> {
        let mut state = self.state();
        let machine = match &mut *state {
            Phase::Active(machine) => machine,
            Phase::New | Phase::Loading => return Err(CoordinatorError::Loading),
            Phase::Closed => return Err(CoordinatorError::NotCoordinator),
        };
        // It is about to move: what the machine decided now could not be stored. If it stays, the machine is still there.
        if self.partition.is_stopped() {
            return Err(CoordinatorError::NotCoordinator);
        }
        let work = step(machine);
        let deadline = machine.next_deadline();
        if let Err(error) = self.append(log, &work) {
            self.waiting().replies.clear();
            if matches!(error, StoreError::Append(AppendError::Closed)) {
                tracing::info!(partition = %self.partition.id, "a coordinator ends: its partition is led elsewhere");
                *state = Phase::Closed;
                return Err(CoordinatorError::NotCoordinator);
            }
            if matches!(error, StoreError::Append(AppendError::Moving)) {
                tracing::info!(partition = %self.partition.id, "a coordinator pauses: its partition is about to move");
                *state = Phase::New;
                return Err(CoordinatorError::NotCoordinator);
            }
            tracing::error!(partition = %self.partition.id, %error, "a coordinator's records cannot be stored; it is loaded again");
            *state = Phase::New;
            return Err(CoordinatorError::NotAvailable);
        }
        let mut waiting = self.waiting();
        for (token, reply) in work.replies {
            if let Some(sender) = waiting.replies.remove(&token) {
                // Whoever asked may have gone.
                let (durable, lease) = (self.partition.all_durable(), self.lease.clone());
                // Nothing is appended but under the shard's lock, which is held.
                let end = self.partition.positions().next;
                let _ = sender.send(Answer { reply, end, durable, lease });
            }
        }
        drop(waiting);
        Ok((work.orders, deadline))
    }

    fn append(&self, log: &Log<'_>, work: &Work<M>) -> Result<(), StoreError> {
        let writer = match work.transactional {
            Some((id, epoch)) => Writer::in_transaction(ProducerId(id), epoch),
            None => Writer::PLAIN,
        };
        let mut batch = BatchBuilder::new(writer);
        for (key, value) in &work.records {
            let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
            if !work.atomic && batch.count() > 0 && batch.bytes() + bytes > log.batch_bytes_max {
                let full = std::mem::replace(&mut batch, BatchBuilder::new(writer));
                self.store(log, full.finish()?)?;
            }
            batch.push(Some(key), value.as_deref(), log.wall_ms)?;
        }
        match batch.count() {
            0 => Ok(()),
            _ => self.store(log, batch.finish()?),
        }
    }

    fn store(&self, log: &Log<'_>, batch: StoredBatch) -> Result<(), StoreError> {
        let header = batch.header();
        self.partition.append(log.ledger, &header, batch, Origin::Coordinator, log.wall_ms)?;
        Ok(())
    }

    /// Appends an end marker to the shard's partition and tells the machine. `append` does the first.
    pub fn end_transaction<T>(
        &self,
        producer: i64,
        commit: bool,
        append: impl FnOnce(&Partition) -> Result<T, AppendError>,
    ) -> Result<Result<T, AppendError>, CoordinatorError> {
        let mut state = self.state();
        match &mut *state {
            Phase::Active(machine) => {
                let appended = append(&self.partition);
                if appended.is_ok() {
                    machine.replay_marker(producer, commit);
                }
                Ok(appended)
            }
            Phase::New | Phase::Loading => Err(CoordinatorError::Loading),
            Phase::Closed => Err(CoordinatorError::NotCoordinator),
        }
    }

    /// Asks the machine, if there is one.
    pub fn look<T>(&self, look: impl FnOnce(&M) -> T) -> Option<T> {
        match &*self.state() {
            Phase::Active(machine) => Some(look(machine)),
            _ => None,
        }
    }

    /// Changes the machine, if there is one, where nothing is written.
    pub fn adjust(&self, change: impl FnOnce(&mut M)) {
        if let Phase::Active(machine) = &mut *self.state() {
            change(machine);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Append(#[from] AppendError),
}
