//! What of a partition is dirty, whether that is enough, and which ranges become one segment. Pure.

use crate::base::Offset;
use crate::broker::settings::CompactionSettings;
use crate::metadata::RangeEntry;

/// A range with its first offset.
pub(super) type Stored = (Offset, RangeEntry);

/// Ranges in one segment: bounds the command that commits it.
const GROUP_RANGES_MAX: usize = 1_000;
const MILLION: u128 = 1_000_000;

/// The dirty part of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dirt {
    pub from: Offset,
    /// Exclusive.
    pub to: Offset,
    pub dirty_bytes: u64,
    pub clean_bytes: u64,
    /// A dirty record is older than `max.compaction.lag.ms`.
    pub overdue: bool,
}

impl Dirt {
    /// Share of what is dirty in what would be compact then, in millionths.
    pub fn ppm(&self) -> u32 {
        let total = u128::from(self.dirty_bytes) + u128::from(self.clean_bytes);
        (u128::from(self.dirty_bytes) * MILLION).checked_div(total).unwrap_or(0) as u32
    }

    pub fn is_due(&self, settings: &CompactionSettings) -> bool {
        self.dirty_bytes > 0 && (self.overdue || self.ppm() > settings.min_dirty_ppm)
    }

    /// Compaction does not keep up: what is dirty has grown well beyond what makes it due.
    pub fn is_behind(&self, settings: &CompactionSettings) -> bool {
        self.overdue || u64::from(self.ppm()) * 2 > u64::from(settings.min_dirty_ppm) + MILLION as u64
    }
}

/// What is dirty in `from..to`, less what is younger than `min.compaction.lag.ms`; `None` when that is nothing.
/// `ranges` ascend and begin at or below the log start.
pub(super) fn dirt(
    ranges: &[Stored],
    (from, to): (Offset, Offset),
    settings: &CompactionSettings,
    now_ms: i64,
) -> Option<Dirt> {
    let youngest = now_ms.saturating_sub(settings.min_lag_ms);
    let is_young = |(_, range): &&Stored| settings.min_lag_ms > 0 && range.end > from && range.max_timestamp > youngest;
    let to = ranges.iter().find(is_young).map_or(to, |(base, _)| to.min(*base));
    if to <= from {
        return None;
    }
    let mut dirt = Dirt { from, to, dirty_bytes: 0, clean_bytes: 0, overdue: false };
    let oldest = now_ms.saturating_sub(settings.max_lag_ms);
    for (base, range) in ranges.iter().filter(|(base, _)| *base < to) {
        let within = |low: Offset, high: Offset| {
            let offsets = high.0.min(range.end.0).saturating_sub(low.0.max(base.0)).max(0) as u128;
            let span = range.end.0.saturating_sub(base.0).max(1) as u128;
            (u128::from(range.bytes) * offsets / span) as u64
        };
        dirt.clean_bytes = dirt.clean_bytes.saturating_add(within(*base, from));
        dirt.dirty_bytes = dirt.dirty_bytes.saturating_add(within(from, to));
        dirt.overdue |= range.end > from && range.first_timestamp > 0 && range.first_timestamp < oldest;
    }
    Some(dirt)
}

/// Neighbouring ranges below `to` that together make a segment of at most `limit` bytes; a larger one alone.
pub(super) fn groups(ranges: &[Stored], to: Offset, limit: u64) -> Vec<&[Stored]> {
    let count = ranges.partition_point(|(base, _)| *base < to);
    let ranges = &ranges[..count];
    let mut found = Vec::new();
    let mut start = 0;
    while start < count {
        let mut end = start + 1;
        let mut bytes = ranges[start].1.bytes;
        while let Some((base, range)) = ranges.get(end) {
            let follows = ranges[end - 1].1.end == *base;
            bytes = bytes.saturating_add(range.bytes);
            if !follows || bytes > limit || end - start >= GROUP_RANGES_MAX {
                break;
            }
            end += 1;
        }
        found.push(&ranges[start..end]);
        start = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectId;

    const EAGER: CompactionSettings =
        CompactionSettings { min_dirty_ppm: 500_000, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 0 };

    fn range(base: i64, end: i64, bytes: u64, time: i64) -> Stored {
        let entry = RangeEntry {
            object: ObjectId(base as u64),
            end: Offset(end),
            bytes,
            records: 1,
            max_timestamp: time + 5,
            first_timestamp: time,
            position: 0,
            length: 0,
        };
        (Offset(base), entry)
    }

    fn ranges() -> Vec<Stored> {
        (0..10).map(|i| range(i * 10, i * 10 + 10, 100, 1_000 + i * 10)).collect()
    }

    #[test]
    fn the_share_that_is_dirty_decides() {
        let of = |from, to| dirt(&ranges(), (Offset(from), Offset(to)), &EAGER, 5_000);
        let half = of(50, 100).expect("dirty");
        assert_eq!((half.dirty_bytes, half.clean_bytes, half.ppm()), (500, 500, 500_000));
        assert!(!half.is_due(&EAGER), "more than the ratio is asked for");
        let more = of(45, 100).expect("dirty");
        assert_eq!((more.dirty_bytes, more.clean_bytes), (550, 450), "a range counts by its offsets");
        assert!(more.is_due(&EAGER) && !more.is_behind(&EAGER));
        assert!(of(20, 100).expect("dirty").is_behind(&EAGER));
        // An open transaction holds the end back.
        assert_eq!(of(50, 52).map(|d| (d.dirty_bytes, d.clean_bytes)), Some((20, 500)));
        assert_eq!([of(50, 50), of(50, 40)], [None, None]);
        let all = CompactionSettings { min_dirty_ppm: 0, ..EAGER };
        assert!(of(99, 100).expect("dirty").is_due(&all));
    }

    #[test]
    fn young_records_stay_dirty_and_old_ones_do_not_wait() {
        let lag = CompactionSettings { min_lag_ms: 1_000, ..EAGER };
        let found = dirt(&ranges(), (Offset(0), Offset(100)), &lag, 2_050).expect("dirty");
        assert_eq!((found.to, found.dirty_bytes), (Offset(50), 500));
        assert_eq!(dirt(&ranges(), (Offset(60), Offset(100)), &lag, 2_050), None);
        let hurry = CompactionSettings { max_lag_ms: 1_000, min_dirty_ppm: 1_000_000, ..EAGER };
        let due = |now| dirt(&ranges(), (Offset(90), Offset(100)), &hurry, now).is_some_and(|d| d.is_due(&hurry));
        assert_eq!([2_090, 2_091].map(due), [false, true]);
    }

    #[test]
    fn groups_are_whole_neighbours_within_the_limit() {
        let all = ranges();
        let sizes = |to, limit| groups(&all, Offset(to), limit).iter().map(|g| g.len()).collect::<Vec<_>>();
        assert_eq!(sizes(100, 300), [3, 3, 3, 1]);
        assert_eq!(sizes(41, 1_000), [5]);
        assert_eq!(sizes(100, 50), [1; 10], "a range larger than the limit goes alone");
        assert_eq!(sizes(0, 50), [] as [usize; 0]);
        let gap = [range(0, 10, 1, 0), range(15, 20, 1, 0)];
        assert_eq!(groups(&gap, Offset(100), 100).len(), 2);
    }
}
