//! The thread that has the next segments ready before they are needed, so that changing to one costs the WAL thread
//! nothing, and that writes the manifest.
//!
//! A segment is prepared in this order, each step safe before the next: the manifest no longer lists its last use; it cannot
//! be read any more; its header carries the new generation; the manifest lists it.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::env::{DiskFile, failpoint};

use super::segment::{self, Segment};
use super::state::{FreeFile, Shared, State, lock, wait};

/// Segments kept ready. Two, so that the one being made while another fills is not waited for.
const AHEAD: usize = 2;
/// How long a full disk is left alone.
const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

enum Job {
    SaveFloor,
    Prepare { generation: u64, from: Source },
    Stop,
}

enum Source {
    NewFile(u32),
    Used(FreeFile),
}

/// Latches the WAL off when this thread panics: without segments the WAL thread would wait forever.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.latch("the file thread of the WAL panicked");
        }
    }
}

pub(super) fn run(shared: &Shared) {
    let _guard = PanicGuard(shared);
    loop {
        let done = match next_job(shared) {
            Job::Stop => break,
            Job::SaveFloor => save_floor(shared),
            Job::Prepare { generation, from } => prepare(shared, generation, from),
        };
        if let Err(e) = done {
            shared.latch(&format!("cannot manage the files of the WAL: {e}"));
        }
    }
    let moved = {
        let state = lock(&shared.state);
        state.floor_moved && state.failed.is_none()
    };
    if moved && let Err(e) = shared.save_manifest(None, |_| {}) {
        // The next start reads a little more than it had to.
        tracing::warn!(error = %e, "the WAL's manifest could not be brought up to date at the end");
    }
}

fn next_job(shared: &Shared) -> Job {
    let mut state = lock(&shared.state);
    let mut retry = false;
    loop {
        if state.writer_done || state.failed.is_some() {
            return Job::Stop;
        }
        let may_grow = retry || !state.disk_full;
        // First: what is free may be overwritten only when the manifest no longer counts on it.
        if state.floor_moved && may_grow {
            state.floor_moved = false;
            return Job::SaveFloor;
        }
        if let Some(job) = next_segment(&mut state, shared, may_grow) {
            return job;
        }
        if state.disk_full {
            let waited = shared.file_work.wait_timeout(state, DISK_FULL_RETRY);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            retry = timeout.timed_out();
        } else {
            state = wait(&shared.file_work, state);
        }
    }
}

fn next_segment(state: &mut State, shared: &Shared, may_grow: bool) -> Option<Job> {
    let ahead = AHEAD.min(shared.options.segments_max() - 1);
    if state.prepared.len() >= ahead {
        return None;
    }
    // New files first: what is free serves as a cache as long as the budget allows.
    let from = if may_grow && state.files_left(&shared.options) > 0 {
        state.next_slot += 1;
        Source::NewFile(state.next_slot - 1)
    } else if !state.floor_moved {
        Source::Used(state.free.pop_front()?)
    } else {
        return None;
    };
    state.preparing = true;
    state.next_generation += 1;
    Some(Job::Prepare { generation: state.next_generation - 1, from })
}

fn save_floor(shared: &Shared) -> io::Result<()> {
    let saved = shared.save_manifest(None, |_| {});
    let mut state = lock(&shared.state);
    state.floor_moved |= saved.is_err();
    report_room(&mut state, saved)
}

fn prepare(shared: &Shared, generation: u64, from: Source) -> io::Result<()> {
    let bytes = shared.options.segment_bytes;
    let grows = matches!(from, Source::NewFile(_));
    let (slot, made) = match from {
        Source::NewFile(slot) => (slot, segment::create(&*shared.disk, slot, bytes)),
        Source::Used(free) => {
            if let Some(old) = free.generation {
                shared.readers.write().unwrap_or_else(PoisonError::into_inner).remove(&old);
            }
            // The option may have changed since the file was made.
            let fits = free.bytes == bytes;
            (free.slot, if fits { Ok(free.file) } else { segment::create(&*shared.disk, free.slot, bytes) })
        }
    };
    let listed = made
        .map_err(|e| (e, None))
        .and_then(|file| list(shared, generation, slot, file.clone()).map_err(|e| (e, Some(file))));
    let mut state = lock(&shared.state);
    let listed = listed.map_err(|(e, file)| {
        state.preparing = false;
        state.next_generation = generation;
        // Its space is claimed: it is there for the next attempt.
        if let Some(file) = file {
            state.free.push_front(FreeFile { slot, bytes, file, generation: None });
        }
        e
    });
    let done = if grows || listed.is_err() { report_room(&mut state, listed) } else { listed };
    drop(state);
    shared.work.notify_one();
    done
}

/// Tells a full disk, which passes, from a failure, which is final.
fn report_room(state: &mut State, done: io::Result<()>) -> io::Result<()> {
    let full = done.as_ref().is_err_and(is_full);
    if full && !state.disk_full {
        tracing::warn!("the disk is full: the WAL goes on in the segments that it has");
    }
    state.disk_full = full;
    if full { Ok(()) } else { done }
}

fn list(shared: &Shared, generation: u64, slot: u32, file: Arc<dyn DiskFile>) -> io::Result<()> {
    let bytes = shared.options.segment_bytes;
    segment::write_header(&*file, &shared.identity.header(generation, bytes))?;
    failpoint::hit("wal-recycle");
    let segment = Arc::new(Segment { generation, slot, bytes, file });
    shared.readers.write().unwrap_or_else(PoisonError::into_inner).insert(generation, segment.clone());
    shared.save_manifest(Some(segment), |_| {})
}

/// True for an error that ends by itself when somebody makes room.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
