//! Counters of compaction, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct CompactionMetrics {
    pub passes: AtomicU64,
    pub failures: AtomicU64,
    /// Of batches, once for the map of keys and once more for what is written again.
    pub bytes_read: AtomicU64,
    /// Of the objects that replaced others.
    pub bytes_written: AtomicU64,
    /// Bytes of batches before, less those after.
    pub bytes_reclaimed: AtomicU64,
    pub records_removed: AtomicU64,
    /// Of those removed: they had no key.
    pub records_keyless: AtomicU64,
    /// Batches and ranges that could not be read and stayed as they were.
    pub damaged: AtomicU64,
    /// Passes that ended early because the map of keys was full.
    pub maps_full: AtomicU64,
    /// Of the dirtiest partition at the last look, in millionths.
    pub dirtiest_ppm: AtomicU64,
}

impl CompactionMetrics {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Bytes written for each byte reclaimed, since the process started.
    pub fn written_per_reclaimed(&self) -> f64 {
        let reclaimed = self.bytes_reclaimed.load(Ordering::Relaxed);
        if reclaimed == 0 { 0.0 } else { self.bytes_written.load(Ordering::Relaxed) as f64 / reclaimed as f64 }
    }
}
