//! The writer of this broker process's ledgers: [`core::Writer`](super::core::Writer) with a WAL under it, the other
//! replicas beside it and the partitions above it.
//!
//! An append gets its place, goes to the own WAL and to whoever carries entries to the other replicas ([`super::drive`]),
//! and returns. A partition learns which ledger and entry its batch became, and where the WAL has it, only when that is
//! durable: until then another replica set may mean another ledger and other numbers. What is said of durable entries
//! keeps the order of the appends.
//!
//! Locks, in their order: the partition, the writer's state; and: the delivery of news, the writer's state. News reach
//! partitions under the delivery's lock alone, so that they keep their order and nobody waits for a partition while he
//! holds the writer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::base::codec::{DecodeError, Reader};
use crate::base::limits::LEDGER_MESSAGE_ENTRIES_MAX;
use crate::base::{EntryId, LedgerId, NodeId, PartitionId, TopicId};
use crate::batch::{HEAD_BYTES, StoredBatch};
use crate::metadata;
use crate::wal::{self, Entry, HEAD, Location, Place, Synced, Wal, WalEvents};

use super::copies::{Copies, CopyCounts};
use super::core::{self, Identity, Plant, Reply, Request, WriterAction, WriterEvent, WriterOptions, write_quorum};
use super::wire::{self, Payload};

/// Bytes of an entry before the batch: topic id (16), partition index (4), flags (4, zero).
pub const ENTRY_HEAD_BYTES: usize = 24;
/// Milliseconds for which a replica may make no headway before it is replaced.
const LAG_MS: u64 = 2_000;
/// Milliseconds for which a replica may be without a connection before it is replaced.
const GONE_MS: u64 = 2_000;
/// Milliseconds between proposals of a replica set that came to nothing.
const RETRY_MS: u64 = 500;
/// Copies that every ledger should have.
pub const REPLICAS_WANTED: usize = 3;

const _: () = assert!(ENTRY_HEAD_BYTES + HEAD_BYTES == HEAD, "the WAL's entry head holds ours and the batch's");

/// Why an entry does not enter the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Back-pressure: room comes back as data moves to object storage, the disk catches up, or replicas do.
    #[error("the write-ahead log has no room now")]
    Full,
    #[error("the write-ahead log failed: {0}")]
    Failed(String),
    #[error("the ledger is sealed")]
    Sealed,
    #[error("the batch is larger than a segment of the write-ahead log takes ({max} bytes)")]
    TooLarge { max: u64 },
}

/// An entry that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub ledger: LedgerId,
    pub entry: EntryId,
    /// In the own WAL.
    pub location: Location,
    /// As given to [`LedgerWriter::append`].
    pub token: u64,
}

/// Who is told what becomes of entries.
pub trait LedgerEvents: Send + Sync {
    /// These entries are durable. Called in the order of their appends, once for each.
    fn durable(&self, entries: &[Durable]);
    /// This process is not the writer any more: what is not durable by now is not acknowledged, ever.
    fn fenced(&self, reason: &str);
}

/// A replica set to be proposed in place of the present one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub close: LedgerId,
    /// Exclusive.
    pub end: EntryId,
    pub replicas: Vec<metadata::Replica>,
}

/// An entry that is not durable yet.
struct Waiting {
    token: u64,
    /// Once the own WAL has it under its present ledger.
    location: Option<Location>,
}

/// What waits to be sent to one replica.
#[derive(Default)]
struct Outbox {
    /// Without a connection nothing is kept: with the next one everything is sent again.
    connected: bool,
    requests: VecDeque<(metadata::Replica, Request<Payload>)>,
    wake: Arc<Notify>,
}

struct State {
    core: core::Writer<Payload>,
    /// Entry of the open ledger that `waiting` begins with.
    front: EntryId,
    waiting: VecDeque<Waiting>,
    /// Taken while the ledger was being closed, or moved to the present one: the own WAL does not have them yet.
    unwritten: VecDeque<(EntryId, Payload)>,
    outboxes: BTreeMap<NodeId, Outbox>,
    copies: CopyCounts,
    proposal: Option<Proposal>,
    /// Entries ever taken.
    appended: u64,
    /// The own WAL refuses the ledger.
    sealed: bool,
    fenced: Option<&'static str>,
}

/// See the module's documentation.
pub struct LedgerWriter {
    own: Identity,
    wal: Arc<Wal>,
    events: Arc<dyn LedgerEvents>,
    state: Mutex<State>,
    /// News on their way to partitions.
    delivery: Mutex<Vec<Durable>>,
    /// There is something for whoever drives the writer.
    work: Notify,
    /// Appends that were refused for want of room may be tried again.
    relieved: Notify,
    /// The smallest write quorum of all ledgers so far: every durable entry of theirs has so many copies.
    fewest_copies: AtomicUsize,
}

/// The bounds of a writer whose WAL lets `queue_bytes` wait for the disk.
pub fn writer_options(queue_bytes: usize) -> WriterOptions {
    let options = WriterOptions {
        replicas: REPLICAS_WANTED,
        // The own disk says first that it is full; the rest is for replicas that are behind it.
        window_bytes: queue_bytes.saturating_mul(2),
        lag_bytes: queue_bytes,
        lag_ms: LAG_MS,
        gone_ms: GONE_MS,
        retry_ms: RETRY_MS,
    };
    debug_assert!(options.lag_bytes < options.window_bytes, "a slow replica is replaced before it stops producers");
    options
}

impl LedgerWriter {
    /// Writes the ledger `id` from entry 0 on, which the metadata have just opened with `replicas` for the process that
    /// `own` names. The caller sees to it that it hears the WAL's news.
    pub fn new(
        own: Identity,
        (id, replicas): (LedgerId, &[metadata::Replica]),
        options: WriterOptions,
        wal: Arc<Wal>,
        events: Arc<dyn LedgerEvents>,
    ) -> Arc<LedgerWriter> {
        let state = State {
            core: core::Writer::new(options, own.node, id, replicas, Plant::default()),
            front: EntryId(0),
            waiting: VecDeque::new(),
            unwritten: VecDeque::new(),
            outboxes: BTreeMap::new(),
            copies: CopyCounts::default(),
            proposal: None,
            appended: 0,
            sealed: false,
            fenced: None,
        };
        let (work, relieved) = (Notify::new(), Notify::new());
        let (state, delivery) = (Mutex::new(state), Mutex::default());
        let fewest_copies = AtomicUsize::new(write_quorum(replicas.len()));
        Arc::new(LedgerWriter { own, wal, events, state, delivery, work, relieved, fewest_copies })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open ledger. It changes with the replica set.
    pub fn id(&self) -> LedgerId {
        self.state().core.ledger()
    }

    pub fn own(&self) -> Identity {
        self.own
    }

    /// Entries taken since the process began.
    pub fn appended(&self) -> u64 {
        self.state().appended
    }

    /// Members of the replica set of the open ledger.
    pub fn replicas(&self) -> Vec<metadata::Replica> {
        self.state().core.replicas().collect()
    }

    /// Their number.
    pub fn set_size(&self) -> usize {
        self.state().core.replicas().count()
    }

    /// Those of them that are not about to be replaced.
    pub fn in_sync(&self) -> usize {
        self.state().core.in_sync()
    }

    /// Synced copies that every durable entry of this process has, whichever ledger it is in.
    pub fn fewest_copies(&self) -> usize {
        self.fewest_copies.load(Ordering::Relaxed)
    }

    /// Whether a durable entry has `copies` synced copies, the own one among them.
    pub fn copies(&self, ledger: LedgerId, entry: EntryId, copies: usize) -> Copies {
        let state = &mut *self.state();
        if ledger != state.core.ledger() {
            return state.copies.of_closed(ledger, entry, copies);
        }
        if entry < state.core.copied(copies) {
            return Copies::Enough;
        }
        if state.core.replicas().count() < copies || state.core.is_fenced() {
            return Copies::TooFew;
        }
        Copies::Awaited(state.copies.wait(entry, copies))
    }

    /// The open ledger and its end, once everything in it is durable and nothing else can become of it.
    pub fn closing_position(&self) -> Option<(LedgerId, EntryId)> {
        let state = self.state();
        let is_settled = state.waiting.is_empty() && !state.core.is_closing() && !state.core.is_fenced();
        is_settled.then(|| (state.core.ledger(), state.core.next()))
    }

    /// Woken when appends may be tried again that were refused with [`LedgerError::Full`].
    pub fn relieved(&self) -> &Notify {
        &self.relieved
    }

    pub(super) fn work(&self) -> &Notify {
        &self.work
    }

    /// Enters a batch; never blocks on anything but other appends. `token` comes back when it is durable. An error
    /// changes nothing.
    pub fn append(&self, partition: PartitionId, token: u64, batch: &StoredBatch) -> Result<(), LedgerError> {
        let payload = Payload::new(encode_head(partition, &batch.head), batch.body.clone());
        let max = self.wal.payload_bytes_max();
        if payload.len() as u64 > max {
            return Err(LedgerError::TooLarge { max });
        }
        // Held across the hand-over, so that entries reach the WAL in sequence.
        let mut state = self.state();
        state.core.admits()?;
        if state.sealed {
            return Err(LedgerError::Sealed);
        }
        // Entries that are before this one have no room in the WAL yet.
        if !state.unwritten.is_empty() {
            return Err(LedgerError::Full);
        }
        // While the ledger is being closed nothing of it is written any more: the entry will be one of the next.
        if !state.core.is_closing() {
            let (ledger, entry) = (state.core.ledger(), state.core.next());
            if let Err(error) = self.hand_over((ledger, entry), token, &payload) {
                state.sealed |= error == wal::AppendError::Sealed;
                drop(state);
                // That the ledger is sealed is said where no partition is held.
                self.work.notify_one();
                return Err(error.into());
            }
        }
        let (_, _, actions) = state.core.append(payload)?;
        state.waiting.push_back(Waiting { token, location: None });
        state.appended += 1;
        for action in actions {
            // The own WAL has it already.
            if !action.is_for(self.own.node) {
                self.carry_out(&mut state, action, &mut Vec::new());
            }
        }
        Ok(())
    }

    /// Hands an entry to the own WAL.
    fn hand_over(&self, at: (LedgerId, EntryId), token: u64, payload: &Payload) -> Result<(), wal::AppendError> {
        let (head, body) = (*payload.head(), payload.body().clone());
        self.wal.append_at(Entry { ledger: at.0, entry: at.1, token, head, body }, payload.crc(), Place::Next)
    }

    /// Gives the core an event and carries out what comes of it.
    pub(super) fn step(&self, event: WriterEvent) {
        let mut news = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        self.step_locked(&mut state, event, &mut news);
        self.finish(state, news);
    }

    /// Does what appends could not do, for a partition was held.
    pub(super) fn settle(&self) {
        let news = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        self.finish(self.state(), news);
    }

    fn step_locked(&self, state: &mut State, event: WriterEvent, news: &mut Vec<Durable>) {
        // Only a decision makes the core leave a ledger, and what it knew of its copies with it.
        let leaving = matches!(event, WriterEvent::Decided { .. }).then(|| {
            let members = state.core.replicas().count();
            (1..=members).map(|copies| state.core.copied(copies)).collect::<Vec<_>>()
        });
        for action in state.core.step(event) {
            if let (WriterAction::Moved { closed, .. }, Some(positions)) = (&action, &leaving) {
                state.copies.leave(*closed, positions.clone());
                self.fewest_copies.fetch_min(write_quorum(state.core.replicas().count()), Ordering::Relaxed);
            }
            self.carry_out(state, action, news);
        }
        let (copies, core) = (&mut state.copies, &state.core);
        copies.release(|wanted| core.copied(wanted));
    }

    /// Writes what the own WAL lacks, then tells what is new.
    fn finish(&self, mut state: MutexGuard<'_, State>, mut news: MutexGuard<'_, Vec<Durable>>) {
        self.write(&mut state);
        if std::mem::take(&mut state.sealed) {
            let reply = Reply::Sealed { ledger: state.core.ledger() };
            self.step_locked(&mut state, WriterEvent::Answered { from: self.own, reply }, &mut news);
        }
        let fenced = state.fenced.take();
        drop(state);
        if !news.is_empty() {
            self.events.durable(&news);
            news.clear();
        }
        drop(news);
        if let Some(reason) = fenced {
            self.events.fenced(reason);
        }
    }

    fn carry_out(&self, state: &mut State, action: WriterAction<Payload>, news: &mut Vec<Durable>) {
        match action {
            WriterAction::Send { to, request } if to.node == self.own.node => {
                if let Request::Append { entry, payload, .. } = request {
                    state.unwritten.push_back((entry, payload));
                }
            }
            WriterAction::Send { to, request } => {
                if let Some(outbox) = state.outboxes.get_mut(&to.node).filter(|outbox| outbox.connected) {
                    outbox.requests.push_back((to, request));
                    outbox.wake.notify_one();
                }
            }
            WriterAction::Durable { ledger, below } => {
                while state.front < below {
                    // The own WAL is among those that make an entry durable, so its place there is known.
                    let Some(Waiting { token, location: Some(location) }) = state.waiting.front() else { break };
                    news.push(Durable { ledger, entry: state.front, location: *location, token: *token });
                    state.waiting.pop_front();
                    state.front = state.front.next();
                }
            }
            WriterAction::Propose { close, end, replicas } => {
                state.proposal = Some(Proposal { close, end, replicas });
                self.work.notify_one();
            }
            WriterAction::Moved { closed, end, opened } => {
                debug_assert_eq!(state.front, end, "nothing becomes durable while a ledger is being closed");
                tracing::info!(%closed, %end, %opened, "the ledger goes on with another set of replicas");
                state.front = EntryId(0);
                // What the WAL has of them is void: it is written again.
                state.waiting.iter_mut().for_each(|waiting| waiting.location = None);
                state.unwritten.clear();
                state.outboxes.values_mut().for_each(|outbox| outbox.requests.clear());
                self.work.notify_one();
            }
            WriterAction::Fenced { reason } => {
                state.copies.give_up();
                state.fenced = Some(reason);
            }
            WriterAction::Backpressure(true) => {}
            WriterAction::Backpressure(false) => self.relieved.notify_waiters(),
        }
    }

    /// Hands to the own WAL what it lacks, as far as it has room.
    fn write(&self, state: &mut State) {
        let had = !state.unwritten.is_empty();
        let ledger = state.core.ledger();
        while let Some((entry, payload)) = state.unwritten.front() {
            let place = entry.0.checked_sub(state.front.0).and_then(|place| usize::try_from(place).ok());
            let token = place.and_then(|place| state.waiting.get(place)).map_or(0, |waiting| waiting.token);
            match self.hand_over((ledger, *entry), token, payload) {
                Ok(()) => drop(state.unwritten.pop_front()),
                Err(error) => {
                    state.sealed |= error == wal::AppendError::Sealed;
                    break;
                }
            }
        }
        if had && state.unwritten.is_empty() {
            self.relieved.notify_waiters();
        }
    }

    /// The proposal that waits to be made.
    pub(super) fn take_proposal(&self) -> Option<Proposal> {
        self.state().proposal.take()
    }

    /// Where nodes stand.
    pub(super) fn set_racks(&self, racks: BTreeMap<NodeId, u32>) {
        self.state().core.set_racks(racks);
    }

    /// Which of them are to hold nothing.
    pub(super) fn set_leaving(&self, nodes: BTreeSet<NodeId>) {
        self.state().core.set_leaving(nodes);
    }

    pub(super) fn set_may_be_alone(&self, may: bool) {
        self.state().core.set_may_be_alone(may);
    }

    /// Keeps outboxes for these nodes and no others; answers the bell of each.
    pub(super) fn set_outboxes(&self, nodes: &[NodeId]) -> BTreeMap<NodeId, Arc<Notify>> {
        let mut state = self.state();
        state.outboxes.retain(|node, _| nodes.contains(node));
        nodes.iter().map(|node| (*node, state.outboxes.entry(*node).or_default().wake.clone())).collect()
    }

    /// There is a connection to a replica: whatever it has not acknowledged waits for it now.
    pub(super) fn connected(&self, node: NodeId) {
        self.set_connected(node, true);
        self.step(WriterEvent::Connected { node });
    }

    pub(super) fn lost(&self, node: NodeId) {
        self.set_connected(node, false);
        self.step(WriterEvent::Lost { node });
    }

    fn set_connected(&self, node: NodeId, connected: bool) {
        if let Some(outbox) = self.state().outboxes.get_mut(&node) {
            outbox.connected = connected;
            outbox.requests.clear();
        }
    }

    /// What is to be sent to `node` next, in one message of about `bytes_max`.
    pub(super) fn take_message(&self, node: NodeId, bytes_max: usize) -> Option<wire::Request> {
        let mut state = self.state();
        let requests = &mut state.outboxes.get_mut(&node)?.requests;
        let ((to, request), mut payloads) = (requests.front()?.clone(), Vec::new());
        let Request::Append { ledger, entry: first, mut durable, .. } = request else {
            requests.pop_front();
            return None;
        };
        let (mut next, mut bytes) = (first, 0);
        while let Some((of, Request::Append { ledger: in_ledger, entry, durable: below, payload })) = requests.front() {
            let fits = payloads.is_empty() || bytes + payload.wire_bytes() <= bytes_max;
            let joins = (*of, *in_ledger, *entry) == (to, ledger, next) && payloads.len() < LEDGER_MESSAGE_ENTRIES_MAX;
            if !fits || !joins {
                break;
            }
            bytes += payload.wire_bytes();
            (next, durable) = (next.next(), durable.max(*below));
            payloads.push(payload.clone());
            requests.pop_front();
        }
        let ask = wire::Ask::Append { durable, first, payloads };
        Some(wire::Request { to: to.incarnation, ledger, ask })
    }
}

impl WalEvents for LedgerWriter {
    /// What the own WAL has synced of the open ledger counts as its answer.
    fn synced(&self, group: &[Synced]) {
        let mut news = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let (ledger, front) = (state.core.ledger(), state.front);
        let mut synced = None;
        for entry in group.iter().filter(|entry| entry.ledger == ledger) {
            let place = entry.entry.0.checked_sub(front.0).and_then(|place| usize::try_from(place).ok());
            if let Some(waiting) = place.and_then(|place| state.waiting.get_mut(place)) {
                waiting.location = Some(entry.location);
                synced = Some(entry.entry.next());
            }
        }
        if let Some(synced) = synced {
            let reply = Reply::Position { ledger, first: EntryId(0), synced, durable: EntryId(0) };
            self.step_locked(&mut state, WriterEvent::Answered { from: self.own, reply }, &mut news);
        }
        self.finish(state, news);
    }

    fn failed(&self, _: &str) {}
}

impl From<wal::AppendError> for LedgerError {
    fn from(error: wal::AppendError) -> LedgerError {
        match error {
            wal::AppendError::Full { .. } => LedgerError::Full,
            wal::AppendError::Sealed => LedgerError::Sealed,
            wal::AppendError::TooLarge { max, .. } => LedgerError::TooLarge { max },
            other => LedgerError::Failed(other.to_string()),
        }
    }
}

impl From<core::AppendError> for LedgerError {
    fn from(error: core::AppendError) -> LedgerError {
        match error {
            core::AppendError::Full { .. } => LedgerError::Full,
            core::AppendError::Fenced => LedgerError::Sealed,
        }
    }
}

pub(super) fn encode_head(partition: PartitionId, batch_head: &[u8; HEAD_BYTES]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..16].copy_from_slice(&partition.topic.0);
    head[16..20].copy_from_slice(&partition.index.to_be_bytes());
    head[ENTRY_HEAD_BYTES..].copy_from_slice(batch_head);
    head
}

/// Splits an entry's payload into its partition and the bytes of its batch.
pub fn decode_entry(payload: &[u8]) -> Result<(PartitionId, &[u8]), DecodeError> {
    let mut reader = Reader::new(payload);
    let partition = PartitionId { topic: TopicId(reader.array()?), index: reader.i32()? };
    match reader.u32()? {
        0 => Ok((partition, &payload[ENTRY_HEAD_BYTES..])),
        flags => Err(DecodeError::Invalid { field: "entry flags", value: flags as u64 }),
    }
}

/// The batch inside an entry's payload, sharing its bytes.
pub fn batch_of(payload: Bytes) -> Bytes {
    payload.slice(ENTRY_HEAD_BYTES.min(payload.len())..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{LeaderEpoch, Offset};
    use crate::batch::sample;

    #[test]
    fn an_entry_names_its_partition() {
        let mut batch = sample::batch(3, 1);
        batch.place(Offset(40), LeaderEpoch(2));
        let partition = PartitionId { topic: TopicId([9; 16]), index: 12 };
        let head = encode_head(partition, &batch.head);
        let payload = [&head[..], &batch.body[..]].concat();
        let (found, bytes) = decode_entry(&payload).expect("as written");
        assert_eq!((found, bytes), (partition, &batch.to_contiguous()[..]));
        assert!(decode_entry(&payload[..20]).is_err());
    }
}
