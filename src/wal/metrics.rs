//! Counters of the WAL thread: plain numbers, no exposition format.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds, inclusive, of the buckets of sync times in µs; a last bucket takes what is above.
pub const SYNC_MICROS_BOUNDS: [u64; 15] =
    [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400, 6_553_600];
/// Upper bounds, inclusive, of the buckets of entries per group; a last bucket takes what is above.
pub const GROUP_ENTRIES_BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 4_096];

/// A histogram with fixed buckets that one thread fills.
pub(super) struct Histogram<const N: usize> {
    bounds: &'static [u64],
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64]) -> Self {
        Histogram { bounds, counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    pub fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value).min(N - 1);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    fn snapshot(&self) -> (Vec<u64>, u64) {
        (self.counts.iter().map(|c| c.load(Relaxed)).collect(), self.sum.load(Relaxed))
    }
}

pub(super) struct Counters {
    pub groups: AtomicU64,
    pub entries: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub closing_blocks: AtomicU64,
    pub rolls: AtomicU64,
    pub sync_micros: Histogram<{ SYNC_MICROS_BOUNDS.len() + 1 }>,
    pub group_entries: Histogram<{ GROUP_ENTRIES_BOUNDS.len() + 1 }>,
}

impl Counters {
    pub fn new() -> Self {
        Counters {
            groups: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            payload_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            closing_blocks: AtomicU64::new(0),
            rolls: AtomicU64::new(0),
            sync_micros: Histogram::new(&SYNC_MICROS_BOUNDS),
            group_entries: Histogram::new(&GROUP_ENTRIES_BOUNDS),
        }
    }

    pub fn snapshot(&self) -> Metrics {
        let (sync_micros, sync_micros_sum) = self.sync_micros.snapshot();
        let (group_entries, _) = self.group_entries.snapshot();
        Metrics {
            groups: self.groups.load(Relaxed),
            entries: self.entries.load(Relaxed),
            payload_bytes: self.payload_bytes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            closing_blocks: self.closing_blocks.load(Relaxed),
            rolls: self.rolls.load(Relaxed),
            sync_micros,
            sync_micros_sum,
            group_entries,
        }
    }
}

/// Counts since the WAL was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Groups of entries: one write and one sync each.
    pub groups: u64,
    pub entries: u64,
    /// Bytes of payloads.
    pub payload_bytes: u64,
    /// Bytes of blocks: payloads, headers and padding.
    pub written_bytes: u64,
    pub closing_blocks: u64,
    /// Changes to the next segment.
    pub rolls: u64,
    /// Syncs of groups by time, see [`SYNC_MICROS_BOUNDS`]; not cumulative.
    pub sync_micros: Vec<u64>,
    pub sync_micros_sum: u64,
    /// Groups by number of entries, see [`GROUP_ENTRIES_BOUNDS`]; not cumulative.
    pub group_entries: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let counters = Counters::new();
        for value in [1, 2, 3, 4, 4_096, 4_097, u64::MAX / 2] {
            counters.group_entries.record(value);
        }
        let counts = counters.snapshot().group_entries;
        assert_eq!(counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
