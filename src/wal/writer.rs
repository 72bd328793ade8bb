//! The WAL thread: everything that waits becomes one block, one write and one sync; only then it is published.
//!
//! One block is on its way at a time, so whatever stands before a block was synced before that block was written: its
//! watermark is its predecessor. An error of a write or a sync is final; nothing is tried again.

use std::io::{self, IoSlice};
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::{EntryId, LedgerId};
use crate::env::{Stopwatch, failpoint};

use super::format::{
    BLOCK_HEADER, BlockBuilder, BlockHeader, Chain, EntryHeader, FLAG_CLOSING, FLAG_OPENING, HEAD, PAGE, align,
};
use super::segment::{Closed, Segment, Spans};
use super::state::{Active, Pending, Room, Shared, State, data_end, joins, lock, wait};
use super::{Location, Synced};

/// After this much silence an empty block records that the last group was synced.
const IDLE: Duration = Duration::from_millis(100);

static ZEROS: [u8; PAGE] = [0; PAGE];

/// The block at the end of the chain, for an empty one may be replaced where room is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBlock {
    pub flags: u16,
    pub empty: bool,
    pub position: u64,
    /// The block before it.
    pub before: Chain,
}

pub struct Writer {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    start: Chain,
    spans: Spans,
    /// Where the next block begins.
    position: u64,
    chain: Chain,
    last: LastBlock,
    builder: BlockBuilder,
    group: Vec<Pending>,
    synced: Vec<Synced>,
    /// Last entry of each ledger in the group that was written.
    settled: Vec<(LedgerId, EntryId)>,
}

enum Task {
    Group,
    /// An empty block after a silence.
    Idle,
    /// An empty block, and the end.
    Close,
    Stop,
}

/// Latches the WAL off when its thread panics, so that nobody waits for it forever.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).writer_done = true;
            self.0.latch("the WAL thread panicked");
            self.0.events.failed("the WAL thread panicked");
        }
    }
}

impl Writer {
    pub fn new(shared: Arc<Shared>, spans: Spans, chain: Chain, last: LastBlock) -> Writer {
        let state = lock(&shared.state);
        let (segment, start, position) = (state.active.segment.clone(), state.active.start, state.active.position);
        drop(state);
        let (builder, group, synced, settled) = Default::default();
        Writer { shared, segment, start, spans, position, chain, last, builder, group, synced, settled }
    }

    /// Serves the queue until the WAL is closed or fails.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let _guard = PanicGuard(shared.clone());
        if let Err(e) = self.serve() {
            shared.latch(&format!("{} could not be written: {e}", self.segment.path()));
        }
        let mut state = lock(&shared.state);
        let failed = state.failed.clone();
        // Nobody was told that these are safe, and nobody will be.
        let dropped = mem::take(&mut state.queue);
        state.waiting_bytes = 0;
        drop(state);
        drop(dropped);
        if let Some(reason) = failed {
            tracing::error!(%reason, "the WAL failed and takes no more entries");
            shared.events.failed(&reason);
        }
        lock(&shared.state).writer_done = true;
        shared.progress.notify_all();
        shared.file_work.notify_all();
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.next_task() {
                Task::Group => self.write_group()?,
                Task::Idle => self.write_empty(FLAG_CLOSING)?,
                Task::Close => return self.write_empty(FLAG_CLOSING),
                Task::Stop => return Ok(()),
            }
        }
    }

    /// Settles the group that was written and waits for something to do.
    fn next_task(&mut self) -> Task {
        let bytes = self.release_group();
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        self.settle(&mut state, bytes);
        loop {
            if state.failed.is_some() {
                return Task::Stop;
            }
            if !state.queue.is_empty() {
                if self.take(&mut state) {
                    return Task::Group;
                }
                if let Some(next) = state.prepared.pop_front() {
                    self.roll(&mut state, next);
                    continue;
                }
                if state.closing && state.segments_left(&shared.options) == 0 {
                    // The disk is full, so no segment will come. What waits was never acknowledged.
                    tracing::warn!(entries = state.queue.len(), "closed with entries that found no room");
                    state.queue.clear();
                    continue;
                }
                state = self.wait_for_work(state);
            } else if state.closing {
                return if self.last.flags & FLAG_CLOSING != 0 { Task::Stop } else { Task::Close };
            } else if !self.last.empty {
                state.writer_waits = true;
                let waited = shared.work.wait_timeout(state, IDLE);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                state.writer_waits = false;
                if timeout.timed_out() && state.queue.is_empty() && state.failed.is_none() && !state.closing {
                    self.make_room(&mut state, self.position + PAGE as u64);
                    return Task::Idle;
                }
            } else {
                state = self.wait_for_work(state);
            }
        }
    }

    fn wait_for_work<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.writer_waits = true;
        state = wait(&self.shared.work, state);
        state.writer_waits = false;
        state
    }

    /// Lets go of the group that was written, outside the lock, for that may free its memory; what the shared state is to
    /// learn of it is kept.
    fn release_group(&mut self) -> usize {
        self.settled.clear();
        let mut bytes = 0;
        for pending in self.group.drain(..) {
            bytes += pending.stored_bytes();
            let at = (pending.entry.ledger, pending.entry.entry);
            match self.settled.last_mut() {
                Some(last) if last.0 == at.0 => *last = at,
                _ => self.settled.push(at),
            }
        }
        bytes
    }

    /// Enters what was synced into the shared state.
    fn settle(&mut self, state: &mut State, bytes: usize) {
        if self.settled.is_empty() {
            return;
        }
        for (ledger, entry) in self.settled.drain(..) {
            if let Some(known) = state.ledgers.get_mut(&ledger) {
                known.synced = Some(entry);
                known.generation = self.segment.generation;
            }
        }
        state.waiting_bytes -= bytes;
        state.synced = self.chain.sequence;
        if state.seals_wait > 0 {
            self.shared.progress.notify_all();
        }
    }

    /// Takes from the queue what goes into one block here; false when not even the first entry fits.
    fn take(&mut self, state: &mut State) -> bool {
        let room = data_end(self.segment.bytes).saturating_sub(self.position);
        let mut used = BLOCK_HEADER;
        while let Some(next) = state.queue.front() {
            let stored = next.stored_bytes();
            if !joins(used, stored, room) {
                break;
            }
            used += stored;
            self.group.extend(state.queue.pop_front());
        }
        if self.group.is_empty() {
            return false;
        }
        self.make_room(state, self.position + align(used) as u64);
        true
    }

    /// The active segment is used up to `position`; with an empty queue that is also what is promised.
    fn make_room(&self, state: &mut State, position: u64) {
        state.active.position = position;
        if state.queue.is_empty() {
            state.room = Room::new(data_end(self.segment.bytes).saturating_sub(position));
        }
    }

    fn roll(&mut self, state: &mut State, next: Arc<Segment>) {
        failpoint::hit("wal-roll");
        let segment = mem::replace(&mut self.segment, next);
        let spans = Arc::new(mem::take(&mut self.spans));
        state.closed.push_back(Closed { segment, start: self.start, spans });
        self.start = self.chain;
        self.position = PAGE as u64;
        state.active = Active { segment: self.segment.clone(), start: self.start, position: self.position };
        state.room.rolls = state.room.rolls.saturating_sub(1);
        self.shared.counters.rolls.fetch_add(1, Relaxed);
        self.shared.file_work.notify_one();
    }

    fn write_group(&mut self) -> io::Result<()> {
        self.builder.begin();
        self.synced.clear();
        let generation = self.segment.generation;
        for Pending { entry, crc } in &self.group {
            let len = (HEAD + entry.body.len()) as u32;
            let (ledger, id) = (entry.ledger, entry.entry);
            // `offset` is the builder's to fill in.
            let header = EntryHeader { ledger, entry: id, len, crc: *crc, generation: generation as u32, offset: 0 };
            let offset = self.builder.push(header, self.position, &entry.head);
            self.spans.add(ledger, id);
            let location = Location { segment: generation, offset, len };
            self.synced.push(Synced { ledger, entry: id, location, token: entry.token });
        }
        let header = self.header(0, self.position, &self.chain, self.chain.run);
        let crc = self.builder.finish(header);
        let early = self.shared.plant.replies_early();
        if early {
            self.shared.events.synced(&self.synced);
        }
        failpoint::hit("wal-before-write");
        self.write_block()?;
        self.count();
        self.advance(0, false, self.position, self.chain, crc, self.chain.run);
        failpoint::hit("wal-after-sync");
        if !early {
            self.shared.events.synced(&self.synced);
        }
        Ok(())
    }

    fn write_block(&self) -> io::Result<()> {
        let used = self.builder.used();
        let mut bufs = Vec::with_capacity(2 * self.group.len() + 1);
        for (i, pending) in self.group.iter().enumerate() {
            bufs.push(IoSlice::new(self.builder.before_body(i)));
            if !pending.entry.body.is_empty() {
                bufs.push(IoSlice::new(&pending.entry.body));
            }
        }
        bufs.push(IoSlice::new(&ZEROS[..align(used) - used]));
        #[cfg(feature = "failpoints")]
        if failpoint::due("wal-mid-write") {
            let half = bufs.iter().flat_map(|b| b.iter().copied()).take(align(used) / 2).collect::<Vec<u8>>();
            self.segment.file.write_at(&[IoSlice::new(&half)], self.position)?;
            failpoint::kill();
        }
        self.segment.file.write_at(&bufs, self.position)?;
        failpoint::hit("wal-before-sync");
        let watch = Stopwatch::start();
        if !self.shared.plant.skips_sync() {
            self.segment.file.sync_data()?;
        }
        self.shared.counters.sync_micros.record(watch.micros());
        Ok(())
    }

    fn count(&self) {
        let counters = &self.shared.counters;
        let payload: usize = self.synced.iter().map(|s| s.location.len as usize).sum();
        counters.groups.fetch_add(1, Relaxed);
        counters.entries.fetch_add(self.synced.len() as u64, Relaxed);
        counters.payload_bytes.fetch_add(payload as u64, Relaxed);
        counters.written_bytes.fetch_add(align(self.builder.used()) as u64, Relaxed);
        counters.group_entries.record(self.synced.len() as u64);
    }

    /// Writes and syncs a block without entries. Where the segment has no page left it replaces the last block, which is
    /// then one without entries, too: it is one sector, so a crash leaves the old one or the new one.
    fn write_empty(&mut self, flags: u16) -> io::Result<()> {
        let opens = flags & FLAG_OPENING != 0;
        let (position, before, flags) = if self.position + PAGE as u64 <= self.segment.bytes {
            (self.position, self.chain, flags)
        } else if self.last.empty {
            // A replaced opening block still opens its run.
            (self.last.position, self.last.before, flags | (self.last.flags & FLAG_OPENING))
        } else {
            return Err(io::Error::other("no page is left for an empty block, though one is always kept"));
        };
        let run = self.chain.run + opens as u32;
        self.builder.begin();
        let crc = self.builder.finish(self.header(flags, position, &before, run));
        let block = [IoSlice::new(self.builder.before_body(0)), IoSlice::new(&ZEROS[BLOCK_HEADER..])];
        self.segment.file.write_at(&block, position)?;
        if !self.shared.plant.skips_sync() {
            self.segment.file.sync_data()?;
        }
        self.shared.counters.closing_blocks.fetch_add(1, Relaxed);
        self.advance(flags, true, position, before, crc, run);
        Ok(())
    }

    /// Takes over after recovery: the chain goes on from here in a run of its own, and all before is under the watermark.
    pub fn open_run(&mut self) -> io::Result<()> {
        self.write_empty(FLAG_OPENING)?;
        let shared = self.shared.clone();
        self.make_room(&mut lock(&shared.state), self.position);
        Ok(())
    }

    fn header(&self, flags: u16, position: u64, before: &Chain, run: u32) -> BlockHeader {
        BlockHeader {
            flags,
            key_id: 0,
            run,
            salt: self.shared.identity.salt,
            generation: self.segment.generation,
            sequence: before.sequence + 1,
            watermark: before.sequence,
            offset: position as u32,
            predecessor: before.crc,
            // The rest is the builder's to fill in.
            block_bytes: 0,
            used_bytes: 0,
            entries: 0,
            body_crc: 0,
        }
    }

    fn advance(&mut self, flags: u16, empty: bool, position: u64, before: Chain, crc: u32, run: u32) {
        self.last = LastBlock { flags, empty, position, before };
        self.chain = Chain { sequence: before.sequence + 1, crc, run };
        self.position = position + align(self.builder.used()) as u64;
    }
}
