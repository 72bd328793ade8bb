//! Counters of the object store, as plain atomics; exporting them is done elsewhere.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Kind of request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Get,
    Put,
    Head,
    Delete,
    List,
}

/// How one attempt of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    NotFound,
    /// A conditional put met an object of that key.
    Exists,
    Timeout,
    /// Will be retried.
    Transient,
    /// Will not be retried.
    Refused,
}

impl Request {
    pub const ALL: [Request; 5] = [Request::Get, Request::Put, Request::Head, Request::Delete, Request::List];

    pub fn label(self) -> &'static str {
        ["get", "put", "head", "delete", "list"][self as usize]
    }
}

impl Outcome {
    pub const ALL: [Outcome; 6] =
        [Outcome::Ok, Outcome::NotFound, Outcome::Exists, Outcome::Timeout, Outcome::Transient, Outcome::Refused];

    pub fn label(self) -> &'static str {
        ["ok", "not_found", "exists", "timeout", "transient", "refused"][self as usize]
    }
}

/// All counters grow only.
#[derive(Debug, Default)]
pub struct ObjectMetrics {
    requests: [[AtomicU64; Outcome::ALL.len()]; Request::ALL.len()],
    micros: [AtomicU64; Request::ALL.len()],
    /// Payload bytes of successful gets.
    pub bytes_read: AtomicU64,
    /// Payload bytes of successful puts.
    pub bytes_written: AtomicU64,
    pub block_hits: AtomicU64,
    pub block_misses: AtomicU64,
    pub index_hits: AtomicU64,
    pub index_misses: AtomicU64,
    /// Blocks fetched before anybody asked for them.
    pub blocks_ahead: AtomicU64,
    /// Parts whose checksum did not match, before the second look.
    pub mismatches: AtomicU64,
    /// Parts that were damaged at the second look too.
    pub corruptions: AtomicU64,
}

impl ObjectMetrics {
    pub(super) fn record(&self, request: Request, outcome: Outcome, took: Duration) {
        self.requests[request as usize][outcome as usize].fetch_add(1, Relaxed);
        self.micros[request as usize].fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// Attempts of `request` that ended so.
    pub fn requests(&self, request: Request, outcome: Outcome) -> u64 {
        self.requests[request as usize][outcome as usize].load(Relaxed)
    }

    /// Microseconds spent in all attempts of `request` together.
    pub fn micros(&self, request: Request) -> u64 {
        self.micros[request as usize].load(Relaxed)
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
