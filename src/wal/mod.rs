//! The write-ahead log of a node: the only copy of a record until it is in object storage.
//!
//! One folder, one thread that writes. Entries of all ledgers are interleaved; everything that waits becomes one block, one
//! vectored write and one sync (`writer`). Blocks form a chain through files that are used again and again (`format`,
//! `segment`, `files`); a start reads it from the oldest needed file on (`recovery`, `open`).
//!
//! Invariants:
//! - An entry is published as synced after the sync that covers it, never before, and in the order of the calls.
//! - A failed write or sync is final: the reason is kept and nothing is accepted any more.
//! - What was published is never cut: a damaged block that anything says was synced makes the start fail instead.
//! - What was cut, or written in an earlier use of a file, never comes back.
//! - What was accepted has room. Everything that waits is bounded, by bytes.
//!
//! The WAL knows ledgers as numbers and payloads as bytes. It must never look into a payload, decide what is needed, or
//! read a clock for anything but metrics and the moment of a closing block.

mod boot;
mod error;
mod files;
mod format;
mod manifest;
mod metrics;
mod open;
mod plant;
mod quarantine;
mod recovery;
mod seal;
mod segment;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::base::checksum::crc32c;
use crate::base::{EntryId, LedgerId, WalIncarnation};
use crate::env::{Disk, Entropy};

pub use boot::OldCopy;
pub use error::{AppendError, FullReason, OpenError, PUT_BACK, ReadError, RecordError, SealError};
pub use format::{HEAD, payload_crc};
pub use metrics::{GROUP_ENTRIES_BOUNDS, Metrics, SYNC_MICROS_BOUNDS};
pub use quarantine::Quarantined;
pub use seal::SealAnswer;

use format::{ENTRY_HEADER, EntryHeader, PAGE};
use plant::Plant;
use segment::Segment;
use state::{FreeFile, Pending, Shared, lock};

/// Sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Of one file; a multiple of 4 KiB. The largest entry must fit in one.
    pub segment_bytes: u64,
    /// Of all files together.
    pub budget_bytes: u64,
    /// Of the entries that wait for the disk.
    pub queue_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions { segment_bytes: 64 << 20, budget_bytes: 1 << 30, queue_bytes: 64 << 20 }
    }
}

impl WalOptions {
    /// Files that the budget allows.
    fn segments_max(&self) -> usize {
        usize::try_from(self.budget_bytes / self.segment_bytes).unwrap_or(usize::MAX)
    }

    fn check(&self) -> Result<(), OpenError> {
        let wrong = |option, value, must| Err(OpenError::Options { option, value, must });
        let page = PAGE as u64;
        if !self.segment_bytes.is_multiple_of(page) || !(4 * page..=1 << 31).contains(&self.segment_bytes) {
            return wrong("segment_bytes", self.segment_bytes, "but must be a multiple of 4 KiB from 16 KiB to 2 GiB");
        }
        if self.segments_max() < 2 {
            return wrong("budget_bytes", self.budget_bytes, "but must be at least twice segment_bytes");
        }
        Ok(())
    }
}

/// Where an entry's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Generation of the segment: another use of the same file is another segment.
    pub segment: u64,
    /// Of the payload's first byte in the segment.
    pub offset: u64,
    /// Bytes of the payload.
    pub len: u32,
}

/// One entry to append. Its payload is `head`, then `body`.
#[derive(Debug, Clone)]
pub struct Entry {
    pub ledger: LedgerId,
    pub entry: EntryId,
    /// Given back when the entry is synced; the WAL does not look at it.
    pub token: u64,
    pub head: [u8; HEAD],
    pub body: Bytes,
}

/// By whom an entry is appended, and where. In a ledger that is not sealed entries follow one another from 0 on, so a
/// gap in one is damage; in a sealed one it is what a recoverer left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By the ledger's writer: the next one, 0 where nothing of the ledger is known. Refused once it is sealed.
    Next,
    /// By a recoverer: the next one or above, for the account above the WAL knows that what is left out is in object storage,
    /// or durable elsewhere. Taken only when the seal is safe.
    Copied,
}

/// An entry that is safe on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synced {
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub location: Location,
    pub token: u64,
}

/// An entry found at the start.
#[derive(Debug)]
pub struct RecoveredEntry<'a> {
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub location: Location,
    /// Checked.
    pub payload: &'a [u8],
}

/// Called on the WAL thread between two groups: these must not block, or every producer waits.
pub trait WalEvents: Send + Sync {
    /// The entries of one group, in the order of their appends, are synced.
    fn synced(&self, group: &[Synced]);
    /// The WAL failed, once and for good: what was appended and not published is not acknowledged, ever.
    fn failed(&self, reason: &str);
}

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Entries in the segments from the oldest needed one on.
    pub entries: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// What was cut from the end.
    pub torn: Option<Quarantined>,
    /// The WAL had been closed properly.
    pub clean: bool,
    /// There was no WAL, and a new incarnation was made.
    pub created: bool,
}

/// How full the WAL is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In segments that hold something needed, or stand behind one that does.
    pub needed_bytes: u64,
    pub budget_bytes: u64,
    /// Appended and not yet synced.
    pub waiting_bytes: u64,
    /// In segments that can still be read though nothing in them is needed.
    pub cached_bytes: u64,
    /// The disk had no room for a further segment; the WAL goes on in those that it has.
    pub disk_full: bool,
}

/// The WAL of this node. All calls may come from any thread.
pub struct Wal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the WAL in `wal/` of `disk`, or makes one, and starts its threads.
    ///
    /// `needed` says whether an entry is not yet in object storage. `on_entry` gets every entry from the oldest needed
    /// segment on, in the order in which they were written, among them some that are no longer needed; when an error is
    /// returned, what it got is void. What is cut goes to `quarantine/` of `disk`. Blocks: reads all needed segments.
    pub fn open(
        disk: Arc<dyn Disk>,
        entropy: &dyn Entropy,
        options: WalOptions,
        needed: &dyn Fn(LedgerId, EntryId) -> bool,
        on_entry: &mut dyn FnMut(RecoveredEntry<'_>),
        events: Arc<dyn WalEvents>,
    ) -> Result<(Arc<Wal>, RecoveryReport), OpenError> {
        let plant = Plant::from_environment()?;
        Self::start(open::Request { disk, entropy, options, needed, on_entry, events, plant })
    }

    fn start(request: open::Request<'_>) -> Result<(Arc<Wal>, RecoveryReport), OpenError> {
        let needed = request.needed;
        let (shared, writer, report) = open::open(request)?;
        let wal = Arc::new(Wal { shared: shared.clone(), threads: Mutex::new(Vec::new()) });
        wal.trim(needed);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.into()).spawn(run);
            spawned.map_err(|source| OpenError::Io { file: format!("the thread {name}"), source })
        };
        let files = spawn("wal-files", {
            let shared = shared.clone();
            Box::new(move || files::run(&shared))
        })?;
        lock(&wal.threads).push(files);
        let writer = spawn("wal", Box::new(move || writer.run()));
        if writer.is_err() {
            lock(&shared.state).writer_done = true;
        }
        lock(&wal.threads).push(writer?);
        Ok((wal, report))
    }

    /// The identity of this folder's content, made with it.
    pub fn incarnation(&self) -> WalIncarnation {
        self.shared.identity.incarnation
    }

    /// Bytes of entries that may wait for the disk.
    pub fn queue_bytes(&self) -> usize {
        self.shared.options.queue_bytes
    }

    /// Largest payload that an entry may have, in bytes.
    pub fn payload_bytes_max(&self) -> u64 {
        state::payload_max(self.shared.options.segment_bytes)
    }

    /// Takes an entry to be written behind all those taken before; never blocks. It is safe when it is published by
    /// [`WalEvents::synced`].
    pub fn append(&self, entry: Entry) -> Result<(), AppendError> {
        // Here and not on the WAL thread: callers are many, and the bytes are still in this processor's cache.
        let crc = payload_crc(&entry.head, &entry.body);
        self.append_at(entry, crc, Place::Next)
    }

    /// The same for an entry whose payload has been checked against `crc`, and at another place than the writer's.
    pub fn append_at(&self, entry: Entry, crc: u32, place: Place) -> Result<(), AppendError> {
        let (bytes, max) = ((HEAD + entry.body.len()) as u64, self.payload_bytes_max());
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        let mut state = lock(&self.shared.state);
        state.enqueue(Pending { entry, crc }, place, &self.shared.options)?;
        // A waiting thread is woken once, not by every append that comes before it runs.
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Reads a payload from disk and checks it. Blocks: call it from an I/O thread.
    pub fn read(&self, location: Location) -> Result<Bytes, ReadError> {
        let corrupt = |detail| ReadError::Corrupt { segment: location.segment, offset: location.offset, detail };
        let segment = self.readable(location.segment).ok_or(ReadError::Recycled)?;
        let Some(from) = location.offset.checked_sub(ENTRY_HEADER as u64) else {
            return Err(corrupt("no entry can be there"));
        };
        if location.offset.saturating_add(location.len as u64) > segment.bytes {
            return Err(corrupt("no entry can be there"));
        }
        let mut buf = vec![0; ENTRY_HEADER + location.len as usize];
        let read = segment.file.read_at(&mut buf, from)?;
        // Before it is overwritten a segment stops being readable: if it still is, these are its own bytes.
        if self.readable(location.segment).is_none() {
            return Err(ReadError::Recycled);
        }
        let Some((header, payload)) = buf[..read].split_first_chunk::<ENTRY_HEADER>() else {
            return Err(corrupt("the file is too short"));
        };
        let header = EntryHeader::decode(header);
        if header.len != location.len || !header.is_at(location.segment, location.offset) {
            return Err(corrupt("the entry header does not belong there"));
        }
        if payload.len() != location.len as usize || crc32c(payload) != header.crc {
            return Err(corrupt("wrong checksum"));
        }
        Ok(Bytes::from(buf).slice(ENTRY_HEADER..))
    }

    fn readable(&self, generation: u64) -> Option<Arc<Segment>> {
        self.shared.readers.read().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned()
    }

    /// Generation of the oldest segment that can still be read; what was in older ones is gone from here.
    pub fn oldest_segment(&self) -> u64 {
        let readers = self.shared.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.keys().min().copied().unwrap_or(u64::MAX)
    }

    /// Makes the ledger refuse its writer for good; that is safe on disk before it is answered. The answer never
    /// changes. Blocks: entries taken before are written first.
    pub fn seal(&self, ledger: LedgerId) -> Result<SealAnswer, SealError> {
        self.shared.seal(ledger)
    }

    /// The ledgers that are sealed, with the answers given.
    pub fn seals(&self) -> Vec<(LedgerId, SealAnswer)> {
        lock(&self.shared.manifest).sealed.iter().map(|(ledger, answer)| (*ledger, *answer)).collect()
    }

    /// Forgets the seals of ledgers that are `gone`: finished, as the applied metadata say, so that no writer and no
    /// recoverer is let in by whoever keeps the account. Those of which entries lie in segments that are not trimmed stay.
    /// Blocks.
    pub fn forget(&self, gone: &dyn Fn(LedgerId) -> bool) -> std::io::Result<()> {
        self.shared.forget(gone)
    }

    /// Frees the oldest segments as long as no entry in them is needed. They can be read until they are used again.
    ///
    /// Those needed in one ledger must be one range that only moves up.
    pub fn trim(&self, needed: &dyn Fn(LedgerId, EntryId) -> bool) {
        loop {
            let Some(oldest) = lock(&self.shared.state).closed.front().cloned() else { break };
            // Asked without the lock, for the answer may take a while.
            if oldest.spans.any(needed) {
                break;
            }
            let mut state = lock(&self.shared.state);
            let generation = oldest.segment.generation;
            if state.closed.front().is_some_and(|c| c.segment.generation == generation) {
                state.closed.pop_front();
                let Segment { slot, bytes, ref file, .. } = *oldest.segment;
                state.free.push_back(FreeFile { slot, bytes, file: file.clone(), generation: Some(generation) });
                state.floor_moved = true;
                self.shared.file_work.notify_one();
            }
        }
    }

    pub fn usage(&self) -> Usage {
        lock(&self.shared.state).usage(&self.shared.options)
    }

    /// Bytes that were appended and are not yet synced.
    pub fn waiting_bytes(&self) -> u64 {
        lock(&self.shared.state).waiting_bytes as u64
    }

    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot()
    }

    /// Writes what waits, then the closing block, and ends the threads. Later appends are refused; reads still work.
    pub fn close(&self) {
        lock(&self.shared.state).closing = true;
        self.shared.work.notify_all();
        self.shared.file_work.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread of the WAL had panicked");
            }
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}
