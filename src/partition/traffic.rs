//! What clients write to a partition and read from it, counted from its opening on. For spreading load only.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::StoredBatch;

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Batches written and reads answered.
    pub requests: u64,
}

impl Traffic {
    /// A client's batch of `bytes` was appended.
    pub fn appended(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was given these.
    pub fn served(&self, batches: &[StoredBatch]) {
        let bytes: usize = batches.iter().map(StoredBatch::len).sum();
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn totals(&self) -> TrafficTotals {
        TrafficTotals {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}
