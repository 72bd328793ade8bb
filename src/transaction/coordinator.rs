//! The machine itself: what it holds, how it is loaded, how a change is recorded, and how a transaction completes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::parking::Parking;
use super::record::{self, RecordError};
use super::state::{State, Transaction, TransactionVersion, is_exhausted};
use super::{Effects, Error, Markers, Now, Options, Reply, Request, Token, TopicPartition, Write};

/// Bytes that a record has around key and value in a batch, and its share of the batch's header, generously.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// The coordinator of one partition of `__transaction_state`. Load it with `replay` and `loaded` before anything else.
pub struct Coordinator {
    pub(super) options: Options,
    coordinator_epoch: i32,
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
    /// Transactions under way by the monotonic millisecond of their timeout.
    pub(super) open: BTreeSet<(i64, Arc<str>)>,
    pub(super) parking: Parking,
    /// Prepared transactions that need no more markers, but whose completing record found no room in its batch.
    pub(super) unfinished: VecDeque<Arc<str>>,
    pub(super) next_abort_check_ms: i64,
    pub(super) next_expiration_check_ms: i64,
    /// The last id that an expiration check has looked at, while one is under way.
    pub(super) expiration_cursor: Option<Arc<str>>,
    /// Never repeats within a process, so that what an earlier machine ordered is not taken for this one's.
    next_order: u64,
}

pub(super) struct Entry {
    pub transaction: Transaction,
    /// Monotonic milliseconds of the start of a transaction under way, else of the last change.
    pub since_ms: i64,
    /// The number of the order for markers that is being carried out.
    order: u64,
}

impl Entry {
    fn deadline_ms(&self) -> Option<i64> {
        let t = &self.transaction;
        let runs_out = t.state == State::Ongoing && t.timeout_ms != i32::MAX;
        runs_out.then(|| self.since_ms.saturating_add(t.timeout_ms.into()))
    }
}

/// One call: its moment, where producer ids come from, and what it wants done so far.
pub(super) struct Call<'a> {
    pub now: Now,
    pub producer_ids: &'a mut dyn FnMut() -> Option<i64>,
    pub effects: Effects,
    bytes: usize,
}

impl<'a> Call<'a> {
    pub fn new(now: Now, producer_ids: &'a mut dyn FnMut() -> Option<i64>) -> Self {
        Call { now, producer_ids, effects: Effects::default(), bytes: 0 }
    }

    pub fn reply(&mut self, token: Token, reply: Reply) {
        self.effects.replies.push((token, reply));
    }

    pub fn write(&mut self, transactional_id: &str, value: Option<Bytes>) {
        let key = record::encode_key(transactional_id);
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES;
        self.effects.records.push(Write { key, value });
    }

    pub fn producer_id(&mut self) -> Result<i64, Error> {
        (self.producer_ids)().ok_or(Error::NoProducerId)
    }
}

impl Coordinator {
    /// `coordinator_epoch` is the leader epoch of the partition.
    pub fn new(options: Options, coordinator_epoch: i32) -> Self {
        Coordinator {
            options,
            coordinator_epoch,
            entries: BTreeMap::new(),
            open: BTreeSet::new(),
            parking: Parking::default(),
            unfinished: VecDeque::new(),
            next_abort_check_ms: 0,
            next_expiration_check_ms: 0,
            expiration_cursor: None,
            next_order: 0,
        }
    }

    /// Later calls go by these settings. A transaction under way keeps its timeout.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// The number of transactional ids.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a record of the log, in the order of offsets. An error leaves the machine as it was: the caller decides
    /// whether to go on (Kafka skips versions that it does not know).
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let id = record::decode_key(key)?;
        match value {
            None => {
                self.entries.remove(id.as_str());
            }
            Some(value) => {
                let transaction = record::decode_value(value)?;
                self.entries.insert(id.into(), Entry { transaction, since_ms: 0, order: 0 });
            }
        }
        Ok(())
    }

    /// Everything is replayed. Orders the markers of all prepared transactions, whoever had them before.
    ///
    /// How long a transaction has been running, or an id idle, is told by the wall clock here, and only here.
    pub fn loaded(&mut self, now: Now) -> Effects {
        let mut none = || None;
        let mut call = Call::new(now, &mut none);
        self.next_order = u64::try_from(now.monotonic.as_nanos()).unwrap_or(u64::MAX / 2);
        self.next_abort_check_ms = self.ms_after(now, self.options.abort_check_interval);
        self.next_expiration_check_ms = self.ms_after(now, self.options.expiration_check_interval);
        let mut prepared = vec![];
        for (id, entry) in &mut self.entries {
            let t = &entry.transaction;
            let since = if t.state == State::Ongoing { t.start_ms } else { t.update_ms };
            entry.since_ms = now.monotonic_ms().saturating_sub(now.wall_ms.saturating_sub(since).max(0));
            self.open.extend(entry.deadline_ms().map(|at| (at, Arc::clone(id))));
            if t.state.is_prepared() {
                prepared.push(Arc::clone(id));
            }
        }
        prepared.iter().for_each(|id| self.carry_out(&mut call, id));
        call.effects
    }

    /// Decides a request. `producer_ids` hands out producer ids that the host has allocated before, while it has any.
    ///
    /// Each token gets its reply at once, or, if the request may wait, with the effects of a later call.
    pub fn on_request(
        &mut self,
        token: Token,
        request: Request,
        now: Now,
        producer_ids: &mut dyn FnMut() -> Option<i64>,
    ) -> Effects {
        let mut call = Call::new(now, producer_ids);
        match request {
            Request::InitProducerId { transactional_id, timeout_ms, expected } => {
                let outcome = self.init_producer_id(&mut call, &transactional_id, timeout_ms, expected);
                call.reply(token, Reply::InitProducerId(outcome));
            }
            Request::AddPartitions { transactional_id, producer, partitions, version, wait } => {
                let until = self.ms_after(now, wait);
                self.add_or_park(&mut call, token, &transactional_id, (producer, partitions, version), until);
            }
            Request::VerifyPartitions { transactional_id, producer, partitions } => {
                let outcome = self.verify_partitions(&transactional_id, producer, partitions);
                call.reply(token, Reply::VerifyPartitions(outcome));
            }
            Request::AddOffsets { transactional_id, producer, partition } => {
                let version = TransactionVersion::V0;
                let outcome = self.add_partitions(&mut call, &transactional_id, producer, &[partition], version);
                call.reply(token, Reply::AddOffsets(outcome));
            }
            Request::EndTxn { transactional_id, producer, commit, version } => {
                let outcome = self.end_transaction(&mut call, &transactional_id, producer, commit, version);
                call.reply(token, Reply::EndTxn(outcome));
            }
            Request::DescribeTransaction { transactional_id } => {
                call.reply(token, Reply::DescribeTransaction(self.describe(&transactional_id)));
            }
            Request::ListTransactions(filter) => call.reply(token, Reply::ListTransactions(self.list(&filter, now))),
        }
        call.effects
    }

    /// Markers of an order are written, or their topics are deleted. The last of them completes the transaction.
    /// What belongs to no order that is being carried out changes nothing.
    pub fn markers_written(
        &mut self,
        transactional_id: &str,
        order: u64,
        partitions: &[TopicPartition],
        now: Now,
    ) -> Effects {
        let mut none = || None;
        let mut call = Call::new(now, &mut none);
        let Some(id) = self.key(transactional_id) else { return call.effects };
        let Some(entry) = self.entries.get_mut(&id) else { return call.effects };
        if !entry.transaction.state.is_prepared() || entry.order != order {
            return call.effects;
        }
        let set = &mut entry.transaction.partitions;
        let removed = partitions.iter().filter(|p| set.remove(p)).count();
        if removed > 0 && set.is_empty() {
            self.complete(&mut call, &id);
        }
        call.effects
    }

    /// Whether markers of this order are still waited for.
    pub fn is_ordered(&self, transactional_id: &str, order: u64) -> bool {
        let entry = self.entries.get(transactional_id);
        entry.is_some_and(|entry| entry.order == order && entry.transaction.state.is_prepared())
    }

    /// Nobody waits for this reply any more.
    pub fn cancel(&mut self, token: Token) {
        self.parking.cancel(token);
    }

    pub(super) fn key(&self, transactional_id: &str) -> Option<Arc<str>> {
        self.entries.get_key_value(transactional_id).map(|(id, _)| Arc::clone(id))
    }

    pub(super) fn transaction(&self, transactional_id: &str) -> Option<&Transaction> {
        self.entries.get(transactional_id).map(|entry| &entry.transaction)
    }

    pub(super) fn insert(&mut self, call: &mut Call<'_>, id: Arc<str>, transaction: Transaction) {
        call.write(&id, Some(record::encode_value(&transaction, self.options.version)));
        self.entries.insert(id, Entry { transaction, since_ms: call.now.monotonic_ms(), order: 0 });
    }

    /// Applies one step to a transactional id and records it.
    pub(super) fn change(&mut self, call: &mut Call<'_>, id: &Arc<str>, step: impl FnOnce(&mut Transaction)) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let was_open = entry.transaction.state == State::Ongoing;
        if let Some(at) = entry.deadline_ms() {
            self.open.remove(&(at, Arc::clone(id)));
        }
        step(&mut entry.transaction);
        if !was_open || entry.transaction.state != State::Ongoing {
            entry.since_ms = call.now.monotonic_ms();
        }
        self.open.extend(entry.deadline_ms().map(|at| (at, Arc::clone(id))));
        call.write(id, Some(record::encode_value(&entry.transaction, self.options.version)));
    }

    /// Aborts the transaction under way without its client.
    pub(super) fn fence(&mut self, call: &mut Call<'_>, id: &Arc<str>) -> Result<(), Error> {
        let version = self.options.version;
        let epoch = self.transaction(id).map(|t| t.producer.epoch);
        let runs_out = version >= TransactionVersion::V2 && epoch.is_some_and(is_exhausted);
        let next_producer_id = if runs_out { Some(call.producer_id()?) } else { None };
        let now = call.now;
        self.change(call, id, |t| t.fence(version, next_producer_id, now));
        self.carry_out(call, id);
        Ok(())
    }

    /// Orders the markers of a prepared transaction; without any partition it is complete.
    pub(super) fn carry_out(&mut self, call: &mut Call<'_>, id: &Arc<str>) {
        let order = self.next_order;
        self.next_order = self.next_order.wrapping_add(1);
        let Some(entry) = self.entries.get_mut(id) else { return };
        let t = &entry.transaction;
        if t.partitions.is_empty() {
            self.complete(call, id);
            return;
        }
        entry.order = order;
        call.effects.markers.push(Markers {
            transactional_id: Arc::clone(id),
            order,
            producer: t.producer,
            coordinator_epoch: self.coordinator_epoch,
            commit: t.state == State::PrepareCommit,
            version: t.client_version,
            partitions: t.partitions.iter().collect(),
        });
    }

    /// Records that a prepared transaction is complete, and lets in who waited for that.
    pub(super) fn complete(&mut self, call: &mut Call<'_>, id: &Arc<str>) {
        if !self.has_room(call) {
            self.unfinished.push_back(Arc::clone(id));
            return;
        }
        let now = call.now;
        self.change(call, id, |t| t.complete(now));
        for parked in self.parking.take(id) {
            let outcome = match self.has_room(call) {
                true => self.add_partitions(call, id, parked.producer, &parked.partitions, parked.version),
                false => Err(Error::ConcurrentTransactions),
            };
            call.reply(parked.token, Reply::AddPartitions(outcome));
        }
    }

    /// Bytes that one record may have with all that is around it: two of them fit into a batch.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.options.batch_bytes_max / 2
    }

    /// Whether one more record of any size fits into the call's batch.
    pub(super) fn has_room(&self, call: &Call<'_>) -> bool {
        call.bytes <= self.record_bytes_max()
    }

    fn ms_after(&self, now: Now, wait: std::time::Duration) -> i64 {
        now.monotonic_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }

    /// All that is recorded of a transactional id, for tests that compare machines.
    #[cfg(test)]
    pub(super) fn recorded(&self) -> BTreeMap<String, Transaction> {
        let plain = |e: &Entry| Transaction { last_epoch: None, ..e.transaction.clone() };
        self.entries.iter().map(|(id, e)| (id.to_string(), plain(e))).collect()
    }
}

/// The bytes that a record takes beside its partitions: key, fixed and tagged fields, and what is around it.
pub(super) fn fixed_record_bytes(transactional_id: &str) -> usize {
    transactional_id.len() + 96 + RECORD_OVERHEAD_BYTES
}

/// Whether a transactional id can be recorded.
pub(super) fn is_usable(transactional_id: &str) -> bool {
    !transactional_id.is_empty() && transactional_id.len() <= i16::MAX as usize
}
