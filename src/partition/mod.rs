//! One partition: the only place where its offsets are given out and where its records become visible.
//!
//! Invariants, all kept under the one lock of the partition:
//! - `log_start ≤ high watermark ≤ next offset`, and none of them ever moves back.
//! - The high watermark is the end of what the ledger has made durable; nothing above it is ever shown.
//! - Offsets are given out in the order in which entries enter the ledger.
//! - Whoever waits for durability is answered after the watermark has passed, in offset order.
//! - The last stable offset is at most the high watermark and never within an open transaction; a marker ends a
//!   transaction for readers when it is durable.
//!
//! A partition never performs I/O: it says where batches are, and others read them.

mod epochs;
mod producer_state;
mod producers;
mod state;
mod tail;
mod traffic;
mod transactions;

#[cfg(test)]
mod replay_tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::base::{EntryId, LeaderEpoch, LedgerId, Offset, PartitionId, ProducerId};
use crate::batch::{Header, StoredBatch};
use crate::ledger::{LedgerError, LedgerWriter};
use crate::metadata;
use crate::object::{AbortedTransaction, PartitionState};
use crate::wal::Location;

pub use producer_state::{Guard, Origin};
pub use producers::{ActiveProducer, ProducerError};
pub use state::{Collected, Recovered, RecoveredGap, UploadRun};
pub use tail::{Source, TailBatch};
pub use traffic::{Traffic, TrafficTotals};

use producer_state::ProducerState;
use producers::Verdict;
use state::State;

/// Why a batch is not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("producer state is not loaded yet")]
    StateNotLoaded,
    #[error("the partition is closed here")]
    Closed,
    /// Another node is about to lead it, or this one goes on in a moment.
    #[error("the partition is being handed over to another node")]
    Moving,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the partition has no offsets left")]
    OffsetsExhausted,
}

/// Why a position cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the offset is out of range")]
    OutOfRange { log_start: Offset, high_watermark: Offset },
    #[error("the partition is closed here")]
    Closed,
    /// Only to a reader that skips what is not committed.
    #[error("the state of transactions is not loaded yet")]
    StateNotLoaded,
}

/// What a reader may see (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything durable.
    ReadUncommitted,
    /// What is durable below the last stable offset, with the list of what to skip.
    ReadCommitted,
}

/// The partition was closed, or its ledger failed, before the batch became durable: it may or may not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outcome of the append is unknown")]
pub struct UnknownOutcome;

/// A batch that has its offsets and waits for durability.
#[derive(Debug)]
pub struct Appended {
    pub base_offset: Offset,
    pub log_start: Offset,
    /// The batch was there already.
    pub duplicate: bool,
    /// Largest timestamp of the batch as it is stored, Unix ms.
    pub max_timestamp: i64,
    durable: Option<oneshot::Receiver<()>>,
}

impl Appended {
    /// Waits until the batch is durable.
    pub async fn durable(self) -> Result<(), UnknownOutcome> {
        match self.durable {
            None => Ok(()),
            Some(waiting) => waiting.await.map_err(|_| UnknownOutcome),
        }
    }
}

/// Offsets of a partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub uploaded_end: Offset,
    pub high_watermark: Offset,
    /// End of what all transactions have settled; `None` until the state of transactions is loaded.
    pub last_stable: Option<Offset>,
    /// Offset that the next record gets; above the high watermark while appends wait for their sync.
    pub next: Offset,
}

/// Where the batches are that a read asked for.
#[derive(Debug)]
pub struct ReadPlan {
    pub positions: Positions,
    /// Batches that begin at or above it are not for this reader.
    pub limit: Offset,
    /// Batches of the tail, in order; empty when nothing is there yet.
    pub tail: Vec<TailBatch>,
    /// Aborted transactions that may have records in `tail`, for a reader of what is committed.
    pub aborted: Vec<AbortedTransaction>,
    /// The position is below the tail: read object storage.
    pub in_objects: bool,
}

/// See the module's documentation.
pub struct Partition {
    pub id: PartitionId,
    pub topic: Arc<str>,
    /// Number by which the ledger's answers find the partition again.
    pub slot: u64,
    pub traffic: Traffic,
    state: Mutex<State>,
}

impl Partition {
    /// Opens the partition from its metadata and what recovery found in the WAL, in offset order. Producers found
    /// there count as active at `now_ms` (wall clock).
    pub fn open(
        id: PartitionId,
        topic: Arc<str>,
        slot: u64,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<Partition, RecoveredGap> {
        let (traffic, state) = (Traffic::default(), Mutex::new(State::open(id, image, recovered, now_ms)?));
        Ok(Partition { id, topic, slot, traffic, state })
    }

    /// The partition for an upload of what another node led: closed from the start.
    pub fn open_shadow(
        id: PartitionId,
        topic: Arc<str>,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<Partition, RecoveredGap> {
        let state = State::open_shadow(id, image, recovered, now_ms)?;
        // No news of the ledger are for it.
        Ok(Partition { id, topic, slot: u64::MAX, state: Mutex::new(state), traffic: Traffic::default() })
    }

    /// Opens anew what has departed from here and came back: `recovered` is what others have appended since, from this
    /// one's end on. This one stays as it is, for whoever still uploads from it.
    pub fn reopen(
        &self,
        slot: u64,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<Partition, RecoveredGap> {
        let state = self.state().reopen(self.id, image, recovered, now_ms)?;
        let (id, topic, traffic) = (self.id, self.topic.clone(), Traffic::default());
        Ok(Partition { id, topic, slot, state: Mutex::new(state), traffic })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where a panic could unwind through a guard.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody else from the partition for as long as what it answers lives.
    #[cfg(test)]
    pub fn hold(&self) -> impl Drop + '_ {
        struct Held<'a>(#[expect(dead_code, reason = "held, not used")] MutexGuard<'a, State>);
        impl Drop for Held<'_> {
            fn drop(&mut self) {}
        }
        Held(self.state())
    }

    /// Gives the batch its offsets and hands it to the ledger.
    ///
    /// `now_ms` is the broker's wall clock.
    pub fn append(
        &self,
        ledger: &LedgerWriter,
        header: &Header,
        mut batch: StoredBatch,
        origin: Origin,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let mut state = self.state();
        state.takes_appends()?;
        if header.has_producer() {
            if !state.producers_loaded {
                return Err(AppendError::StateNotLoaded);
            }
            let leader_epoch = state.leader_epoch;
            let verdict = state.producers.get_or_insert_default().in_epoch(leader_epoch).check(header, origin)?;
            if let Verdict::Duplicate { base_offset, next_offset, append_time_ms } = verdict {
                let durable = state.wait_for(next_offset);
                let log_start = state.log_start;
                return Ok(Appended {
                    base_offset,
                    log_start,
                    duplicate: true,
                    max_timestamp: append_time_ms,
                    durable,
                });
            }
        }
        let base_offset = state.next;
        let records = header.last_offset_delta as i64 + 1;
        if base_offset.0.checked_add(records).is_none() {
            return Err(AppendError::OffsetsExhausted);
        }
        batch.place(base_offset, state.leader_epoch);
        let placed = Header { base_offset, leader_epoch: state.leader_epoch, ..*header };
        ledger.append(self.id, self.slot, &batch)?;
        let durable = state.appended(&placed, batch, origin.marker(), now_ms);
        let max_timestamp = placed.max_timestamp;
        Ok(Appended { base_offset, log_start: state.log_start, duplicate: false, max_timestamp, durable })
    }

    /// Before the first batch of a transaction asks the transaction's coordinator: the guard that the batch needs
    /// afterwards, or `None` when the transaction is open here already. `version2`: the batch itself adds the
    /// partition (KIP-890).
    pub fn begin_verification(
        &self,
        header: &Header,
        version2: bool,
        now_ms: i64,
    ) -> Result<Option<Guard>, AppendError> {
        self.verifying(|producers| producers.begin_verification(header, version2, now_ms))
    }

    /// The same before a coordinator writes to its own topic in a producer's transaction.
    pub fn begin_own_verification(
        &self,
        producer: ProducerId,
        epoch: i16,
        now_ms: i64,
    ) -> Result<Option<Guard>, AppendError> {
        self.verifying(|producers| producers.begin_own_verification(producer, epoch, now_ms))
    }

    /// Whether a coordinator may write in a producer's transaction with what its verification gave it.
    pub fn is_verified(&self, producer: ProducerId, epoch: i16, guard: Option<Guard>) -> bool {
        self.verifying(|producers| Ok(producers.is_verified(producer, epoch, guard))).unwrap_or(false)
    }

    fn verifying<T>(&self, ask: impl FnOnce(&mut ProducerState) -> Result<T, ProducerError>) -> Result<T, AppendError> {
        let mut state = self.state();
        state.takes_appends()?;
        if !state.producers_loaded {
            return Err(AppendError::StateNotLoaded);
        }
        let leader_epoch = state.leader_epoch;
        Ok(ask(state.producers.get_or_insert_default().in_epoch(leader_epoch))?)
    }

    /// Where the ledger has the durable batch that holds `offset`; `None` when object storage has it.
    pub fn place_of(&self, offset: Offset) -> Option<(LedgerId, EntryId)> {
        let state = self.state();
        let batch = state.tail.durable_from(offset).next().filter(|_| offset >= state.uploaded_end)?;
        Some((batch.ledger, batch.entry))
    }

    /// What to wait on until everything appended so far is durable; `None` when it is. Of a partition that is closed here
    /// nobody learns it any more.
    pub fn all_durable(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if state.closed {
            // Without its sender it fails at once.
            return Some(oneshot::channel().1);
        }
        let next = state.next;
        state.wait_for(next)
    }

    /// The oldest batch that waits is durable, as this entry of the ledger. Answers its base offset.
    pub fn synced(&self, ledger: LedgerId, entry: EntryId, location: Location) -> Option<Offset> {
        let news = self.state().synced(ledger, entry, location)?;
        for answer in news.answers {
            // The waiter may have gone: its connection was closed.
            let _ = answer.send(());
        }
        for waiter in news.wake {
            waiter.notify_one();
        }
        Some(news.base)
    }

    /// Batches from the one that holds `from` on, whole, as long as they fit in `max_bytes`; with `at_least_one`
    /// the first is given whatever its size.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<ReadPlan, ReadError> {
        self.state().read(from, max_bytes, at_least_one, isolation)
    }

    /// Aborted transactions that may have records in `from..to` and whose marker is at or above `markers_from`. `None`
    /// when only the footers of objects know all of them.
    pub fn aborted_between(&self, markers_from: Offset, from: Offset, to: Offset) -> Option<Vec<AbortedTransaction>> {
        let state = self.state();
        let known = state.producers_loaded && markers_from >= state.held_from();
        known.then(|| {
            let mut found = state.aborted_between(from, to);
            found.retain(|t| t.last_offset >= markers_from);
            found
        })
    }

    /// Whether a read from `from` may have to ask object storage: for the batch that holds it or, for a reader of what
    /// is committed, for the state of transactions.
    pub fn is_only_stored(&self, from: Offset, isolation: Isolation) -> bool {
        let state = self.state();
        let unknown = isolation == Isolation::ReadCommitted && !state.producers_loaded;
        unknown
            || (from >= state.log_start && from < state.durable && state.tail.start().is_none_or(|start| from < start))
    }

    /// `waiter` is woken at the next move of the high watermark or when the partition closes.
    pub fn wait(&self, waiter: &Arc<Notify>) {
        let mut state = self.state();
        if !state.fetchers.iter().any(|w| Arc::ptr_eq(w, waiter)) {
            state.fetchers.push(waiter.clone());
        }
    }

    /// Takes back [`Partition::wait`].
    pub fn stop_waiting(&self, waiter: &Arc<Notify>) {
        let mut state = self.state();
        state.fetchers.retain(|w| !Arc::ptr_eq(w, waiter));
        if state.fetchers.is_empty() && state.fetchers.capacity() > 4 {
            state.fetchers.shrink_to_fit();
        }
    }

    pub fn positions(&self) -> Positions {
        self.state().positions()
    }

    /// The largest epoch not above `asked` and its end (KIP-320); `None` when there is none.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.state().epoch_end(asked)
    }

    /// The leader epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let state = self.state();
        state.history.at(offset).unwrap_or(state.leader_epoch)
    }

    /// The first durable batch of the tail at or after `from` that may hold a record of `timestamp` or later.
    pub fn tail_by_time(&self, from: Offset, timestamp: i64) -> Option<TailBatch> {
        self.state().tail.durable_from(from).find(|b| b.max_timestamp >= timestamp).cloned()
    }

    /// The durable batch of the tail with the largest timestamp, the first of equals.
    pub fn tail_newest(&self, from: Offset) -> Option<TailBatch> {
        let state = self.state();
        let newest = state.tail.durable_from(from).map(|b| b.max_timestamp).max()?;
        state.tail.durable_from(from).find(|b| b.max_timestamp == newest).cloned()
    }

    /// Bytes of the partition that are not (or not only) in object storage.
    pub fn tail_bytes(&self) -> u64 {
        let state = self.state();
        state.tail.bytes_from(state.uploaded_end.max(state.log_start))
    }

    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.state().producers.as_ref().map_or_else(Vec::new, |p| p.active())
    }

    /// Whether the state of producers and transactions has to be fetched from where uploads keep it first.
    pub fn needs_producer_state(&self) -> bool {
        !self.state().producers_loaded
    }

    /// Takes the state of producers and transactions that was stored when `as_of` was the uploaded end; false if that is
    /// another one by now, and nothing is loaded yet.
    #[must_use]
    pub fn load_producer_state(&self, stored: &PartitionState, as_of: Offset) -> bool {
        self.state().load(stored, as_of)
    }

    /// Forgets producers without an append since `before_ms`.
    pub fn expire_producers(&self, before_ms: i64) {
        self.state().expire_producers(before_ms);
    }

    /// What an upload of `ledger` below `through` takes from this partition.
    pub fn collect_upload(&self, ledger: LedgerId, through: EntryId) -> Collected {
        self.state().collect_upload(self.id, ledger, through)
    }

    /// Follows the metadata: log start and uploaded end never move back.
    pub fn follow(&self, image: &metadata::Partition) {
        self.state().follow(image);
    }

    /// Drops what only takes memory: batches in object storage whose WAL segment has been used again.
    pub fn prune(&self, oldest_segment: u64) {
        self.state().prune(oldest_segment);
    }

    /// Drops the memory copy of the batch at `base`.
    pub fn forget_memory(&self, base: Offset) {
        self.state().tail.forget_memory(base);
    }

    /// No more appends, until [`Partition::resume`]: another node is about to lead. Reads go on. Answers the epoch in which
    /// this one leads and the end of what was appended, which does not move any more.
    pub fn stop(&self) -> (LeaderEpoch, Offset) {
        let mut state = self.state();
        state.stopped = true;
        (state.leader_epoch, state.next)
    }

    /// Takes back [`Partition::stop`].
    pub fn resume(&self) {
        self.state().stopped = false;
    }

    pub fn is_stopped(&self) -> bool {
        let state = self.state();
        state.stopped || state.closed
    }

    /// Another node leads: closes the partition, which stays for the upload of what only this node's ledgers have of it.
    /// Nobody reads it any more, so it needs no copies in memory.
    pub fn depart(&self) {
        self.close();
        self.state().tail.forget_all_memory();
    }

    /// Ledgers that have durable records of the partition which object storage lacks.
    pub fn exposed_ledgers(&self) -> BTreeSet<LedgerId> {
        let state = self.state();
        state.tail.durable_from(state.uploaded_end).map(|batch| batch.ledger).collect()
    }

    /// Every batch that is durable and held here.
    #[cfg(test)]
    pub fn all_durable_batches(&self) -> Vec<TailBatch> {
        self.state().tail.durable_from(Offset::ZERO).cloned().collect()
    }

    /// Whether everything that was appended here is in object storage.
    pub fn is_uploaded(&self) -> bool {
        let state = self.state();
        state.uploaded_end >= state.next
    }

    /// No more appends or reads; whoever waits learns that the outcome is unknown.
    pub fn close(&self) {
        let (waiters, fetchers) = {
            let mut state = self.state();
            state.closed = true;
            (std::mem::take(&mut state.waiters), std::mem::take(&mut state.fetchers))
        };
        drop(waiters);
        for waiter in fetchers {
            waiter.notify_one();
        }
    }
}
