//! What the threads of the WAL share: the queue, the segments, the ledgers' positions.
//!
//! Locks are taken in the order `manifest`, `state`; `readers` alone. Under `state` nothing blocks and no callback runs.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::base::{EntryId, LedgerId};
use crate::env::{Disk, DiskFile};

use super::error::{AppendError, FullReason};
use super::format::{BLOCK_HEADER, Chain, ENTRY_HEADER, HEAD, PAGE, align};
use super::manifest::Manifest;
use super::metrics::Counters;
use super::plant::Plant;
use super::segment::{Closed, Identity, Segment};
use super::{Entry, Place, Usage, WalEvents, WalOptions};

/// A group is cut here, so that one sync never waits for more than this; a larger entry goes alone.
const GROUP_BYTES_MAX: usize = 8 << 20;

pub struct Shared {
    pub disk: Arc<dyn Disk>,
    pub options: WalOptions,
    pub identity: Identity,
    pub plant: Plant,
    pub events: Arc<dyn WalEvents>,
    pub counters: Counters,
    pub state: Mutex<State>,
    /// The WAL thread waits here.
    pub work: Condvar,
    /// The file thread waits here.
    pub file_work: Condvar,
    /// Whoever waits for the WAL thread to get somewhere waits here.
    pub progress: Condvar,
    pub manifest: Mutex<Manifest>,
    /// Segments that can be read, by generation. One that is to be overwritten is taken out first.
    pub readers: RwLock<HashMap<u64, Arc<Segment>>>,
}

/// An entry that waits, with the checksum of its payload.
pub struct Pending {
    pub entry: Entry,
    pub crc: u32,
}

impl Pending {
    /// Bytes in a block.
    pub fn stored_bytes(&self) -> usize {
        ENTRY_HEADER + HEAD + self.entry.body.len()
    }
}

/// What the WAL knows of a ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ledger {
    /// The entry that is to come; unknown until the first one came.
    pub next: Option<EntryId>,
    pub synced: Option<EntryId>,
    /// Refuses the writer.
    pub sealed: bool,
    /// The seal is safe on disk: recoverers may append.
    pub recorded: bool,
    /// Generation of the segment with its last synced entry; 0 without one.
    pub generation: u64,
}

impl Ledger {
    /// Whether `entry` may come now.
    fn admits(&self, entry: EntryId, place: Place) -> Result<(), AppendError> {
        match place {
            Place::Next if self.sealed => return Err(AppendError::Sealed),
            Place::Copied if !self.recorded => return Err(AppendError::NotSealed),
            Place::Next | Place::Copied => {}
        }
        let expected = self.next.unwrap_or_default();
        let fits = entry == expected || (place == Place::Copied && entry > expected);
        if fits { Ok(()) } else { Err(AppendError::OutOfSequence { expected }) }
    }
}

/// The segment that is written to.
pub struct Active {
    pub segment: Arc<Segment>,
    pub start: Chain,
    /// Bytes used, the group that is being written included.
    pub position: u64,
}

/// A file that may be used again. Until then its last content can be read.
pub struct FreeFile {
    pub slot: u32,
    pub bytes: u64,
    pub file: Arc<dyn DiskFile>,
    /// Of its last use, when it can still be read.
    pub generation: Option<u64>,
}

pub struct State {
    pub queue: VecDeque<Pending>,
    /// Bytes that are in the queue or being written.
    pub waiting_bytes: usize,
    pub room: Room,
    pub ledgers: HashMap<LedgerId, Ledger>,
    /// Segments before the active one that hold needed entries, or stand behind one that does; oldest first.
    pub closed: VecDeque<Closed>,
    pub active: Active,
    /// Segments that can be written to at once, in the order of their generations.
    pub prepared: VecDeque<Arc<Segment>>,
    /// One is on its way to `prepared`.
    pub preparing: bool,
    /// Oldest use first.
    pub free: VecDeque<FreeFile>,
    pub next_slot: u32,
    pub next_generation: u64,
    /// Making a file found the disk full.
    pub disk_full: bool,
    /// The manifest on disk still lists segments that are free.
    pub floor_moved: bool,
    /// Sequence of the last block with entries that is synced.
    pub synced: u64,
    pub writer_waits: bool,
    /// Callers of `seal` that wait for a group.
    pub seals_wait: usize,
    pub closing: bool,
    pub writer_done: bool,
    pub failed: Option<Arc<str>>,
}

/// Room promised to what is in the queue.
///
/// The WAL thread groups greedily, by the same limits, so how it will divide what is in the queue into blocks is known when an
/// entry is taken: this runs ahead of it, and starts again from its true position whenever it has emptied the queue.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes of the segment from the start of the block that the last entry of the queue will be in.
    left: u64,
    /// Bytes of that block; 0 when the next entry begins one.
    block: usize,
    /// Segments that the queue will open.
    pub rolls: usize,
}

impl Room {
    pub fn new(left: u64) -> Self {
        Room { left, block: 0, rolls: 0 }
    }

    /// Promises room to one more entry; false when there is none.
    fn claim(&mut self, stored: usize, segment: u64, segments_left: usize) -> bool {
        let mut next = *self;
        if !joins(next.block, stored, next.left) {
            next.left -= align(next.block) as u64;
            next.block = 0;
        }
        if !joins(next.block, stored, next.left) {
            if next.rolls >= segments_left {
                return false;
            }
            next.rolls += 1;
            next.left = segment;
        }
        next.block = next.block.max(BLOCK_HEADER) + stored;
        *self = next;
        true
    }
}

/// True when an entry joins a block that has `block` bytes, of a segment with `left` bytes from that block's start on.
pub fn joins(block: usize, stored: usize, left: u64) -> bool {
    let with = block.max(BLOCK_HEADER) + stored;
    align(with) as u64 <= left && (block <= BLOCK_HEADER || with <= GROUP_BYTES_MAX)
}

/// Bytes of a segment that blocks with entries may use: its last page is kept for an empty block, so that the
/// closing block and the next start's opening block never lack room.
pub fn data_end(segment_bytes: u64) -> u64 {
    segment_bytes - PAGE as u64
}

/// Largest payload that fits in a segment of this size.
pub fn payload_max(segment_bytes: u64) -> u64 {
    (data_end(segment_bytes) - PAGE as u64).saturating_sub((BLOCK_HEADER + ENTRY_HEADER) as u64)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere has already latched the WAL off; what the mutex holds is whole, for nothing in between panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Segments that the queue may still open.
    pub fn segments_left(&self, options: &WalOptions) -> usize {
        // On a full disk an attempt promises nothing.
        let coming = self.preparing && !self.disk_full;
        let at_hand = self.prepared.len() + coming as usize + self.free.len();
        at_hand + if self.disk_full { 0 } else { self.files_left(options) }
    }

    /// Files that the budget still allows.
    pub fn files_left(&self, options: &WalOptions) -> usize {
        let exist = self.closed.len() + 1 + self.prepared.len() + self.preparing as usize + self.free.len();
        options.segments_max().saturating_sub(exist)
    }

    /// Takes `entry` into the queue, or says why not. Constant time.
    pub fn enqueue(&mut self, pending: Pending, place: Place, options: &WalOptions) -> Result<(), AppendError> {
        if let Some(reason) = &self.failed {
            return Err(AppendError::Failed { reason: reason.clone() });
        }
        if self.closing {
            return Err(AppendError::Closed);
        }
        let ledger = self.ledgers.get(&pending.entry.ledger).copied().unwrap_or_default();
        ledger.admits(pending.entry.entry, place)?;
        let stored = pending.stored_bytes();
        // One entry is taken even when it alone is larger than the queue may be, or it could never be written.
        if self.waiting_bytes > 0 && self.waiting_bytes + stored > options.queue_bytes {
            return Err(AppendError::Full { reason: FullReason::Queue });
        }
        let fresh = data_end(options.segment_bytes) - PAGE as u64;
        let segments_left = self.segments_left(options);
        if !self.room.claim(stored, fresh, segments_left) {
            return Err(AppendError::Full { reason: FullReason::Budget });
        }
        self.ledgers.entry(pending.entry.ledger).or_default().next = Some(pending.entry.entry.next());
        self.waiting_bytes += stored;
        self.queue.push_back(pending);
        Ok(())
    }

    /// The block before the oldest needed segment.
    pub fn floor(&self) -> Chain {
        self.closed.front().map_or(self.active.start, |closed| closed.start)
    }

    pub fn usage(&self, options: &WalOptions) -> Usage {
        let closed: u64 = self.closed.iter().map(|c| c.segment.bytes).sum();
        Usage {
            needed_bytes: closed + self.active.position,
            budget_bytes: options.budget_bytes,
            waiting_bytes: self.waiting_bytes as u64,
            cached_bytes: self.free.iter().filter(|f| f.generation.is_some()).map(|f| f.bytes).sum(),
            disk_full: self.disk_full,
        }
    }
}

impl Shared {
    /// Latches the WAL off for good; the first reason stands.
    pub fn latch(&self, reason: &str) {
        let mut state = lock(&self.state);
        if state.failed.is_none() {
            state.failed = Some(Arc::from(reason));
        }
        drop(state);
        self.work.notify_all();
        self.file_work.notify_all();
        self.progress.notify_all();
    }

    /// Writes the manifest as the state now is, with `change` on top. A segment to be `added` is listed, and only then,
    /// in the same step for every other writer of the manifest, given to the WAL thread.
    pub fn save_manifest(&self, added: Option<Arc<Segment>>, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        let mut manifest = lock(&self.manifest);
        let mut next = manifest.clone();
        {
            let state = lock(&self.state);
            next.floor = state.floor();
            next.synced = state.synced;
            let closed = state.closed.iter().map(|c| &c.segment);
            let segments = closed.chain([&state.active.segment]).chain(&state.prepared).chain(&added);
            next.segments = segments.map(|s| s.listed()).collect();
        }
        change(&mut next);
        next.store(&*self.disk)?;
        *manifest = next;
        if let Some(segment) = added {
            // In one step, for what is promised to the queue counts both.
            let mut state = lock(&self.state);
            state.preparing = false;
            state.prepared.push_back(segment);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_promised_segment_by_segment() {
        let page = |n: usize| n * PAGE - BLOCK_HEADER;
        let mut room = Room::new(2 * PAGE as u64);
        assert!(room.claim(1000, 3 * PAGE as u64, 1));
        assert!(room.claim(3000, 3 * PAGE as u64, 1));
        assert_eq!((room.block, room.rolls), (4080, 0), "they share a block");
        assert!(room.claim(page(2), 3 * PAGE as u64, 1), "opens the segment that is left");
        assert_eq!((room.block, room.rolls), (2 * PAGE, 1));
        let before = room;
        assert!(!room.claim(page(3), 3 * PAGE as u64, 1), "no further segment");
        assert_eq!(room.block, before.block, "a refusal changes nothing");
        assert!(room.claim(1000, 3 * PAGE as u64, 1), "what still fits is taken");
    }

    #[test]
    fn small_entries_are_not_charged_a_block_each() {
        let mut room = Room::new(64 << 20);
        for _ in 0..300_000 {
            assert!(room.claim(172, 64 << 20, 0));
        }
    }
}
