//! How busy this broker is: what its partitions take in and give out per second, for those who spread partitions.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::PartitionId;
use crate::partition::{Partition, TrafficTotals};

/// Partitions that one measurement names: the busiest.
pub const PARTITION_LOADS_MAX: usize = 128;

/// Work of one request, expressed in bytes moved: what a request costs beside its bytes.
const REQUEST_BYTES: u64 = 4 * 1024;

/// What a broker did per second over the last measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub requests: u64,
    /// The busiest partitions with their cost, highest first.
    pub partitions: Vec<PartitionLoad>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLoad {
    pub partition: PartitionId,
    /// As [`Load::cost`].
    pub cost: u64,
}

impl Load {
    /// One number for bytes and requests, in bytes per second.
    pub fn cost(&self) -> u64 {
        cost(&TrafficTotals { bytes_in: self.bytes_in, bytes_out: self.bytes_out, requests: self.requests })
    }
}

fn cost(traffic: &TrafficTotals) -> u64 {
    let requests = traffic.requests.saturating_mul(REQUEST_BYTES);
    traffic.bytes_in.saturating_add(traffic.bytes_out).saturating_add(requests)
}

/// Compares the counters of partitions with what they were at the measurement before.
pub struct LoadMeter {
    at: Duration,
    seen: HashMap<PartitionId, TrafficTotals>,
}

impl LoadMeter {
    /// The first measurement is of the time since `now` (CLOCK_BOOTTIME).
    pub fn starting(now: Duration) -> LoadMeter {
        LoadMeter { at: now, seen: HashMap::new() }
    }

    /// `now` is by CLOCK_BOOTTIME. A partition that was opened since the last measurement counts from its opening on.
    pub fn measure<'a>(&mut self, now: Duration, partitions: impl Iterator<Item = &'a Partition>) -> Load {
        let totals = partitions.map(|partition| (partition.id, partition.traffic.totals()));
        self.take(now, totals.collect())
    }

    fn take(&mut self, now: Duration, totals: HashMap<PartitionId, TrafficTotals>) -> Load {
        let ms = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = |now: u64, was: u64| {
            // Less than before: it was closed and opened again.
            let since = now.checked_sub(was).unwrap_or(now);
            since.saturating_mul(1_000) / ms
        };
        let mut load = Load::default();
        for (partition, total) in &totals {
            let was = self.seen.get(partition).copied().unwrap_or_default();
            let rate = TrafficTotals {
                bytes_in: per_second(total.bytes_in, was.bytes_in),
                bytes_out: per_second(total.bytes_out, was.bytes_out),
                requests: per_second(total.requests, was.requests),
            };
            load.bytes_in = load.bytes_in.saturating_add(rate.bytes_in);
            load.bytes_out = load.bytes_out.saturating_add(rate.bytes_out);
            load.requests = load.requests.saturating_add(rate.requests);
            let cost = cost(&rate);
            if cost > 0 {
                load.partitions.push(PartitionLoad { partition: *partition, cost });
            }
        }
        load.partitions.sort_unstable_by_key(|load| (std::cmp::Reverse(load.cost), load.partition));
        load.partitions.truncate(PARTITION_LOADS_MAX);
        (self.at, self.seen) = (now, totals);
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;

    #[test]
    fn a_load_is_what_was_added_since_the_last_look() {
        let id = |index| PartitionId { topic: TopicId([1; 16]), index };
        let total = |bytes_in, requests| TrafficTotals { bytes_in, bytes_out: 0, requests };
        let mut meter = LoadMeter::starting(Duration::from_secs(99));
        meter.take(Duration::from_secs(100), HashMap::from([(id(0), total(1_000_000, 10))]));
        let now = HashMap::from([(id(0), total(1_500_000, 20)), (id(1), total(20_000, 5)), (id(2), total(0, 0))]);
        let load = meter.take(Duration::from_secs(105), now);
        assert_eq!((load.bytes_in, load.bytes_out, load.requests), (104_000, 0, 3));
        let cost = |partition, cost| PartitionLoad { partition, cost };
        assert_eq!(load.partitions, [cost(id(0), 100_000 + 2 * 4096), cost(id(1), 4_000 + 4096)]);
        assert_eq!(load.cost(), 104_000 + 3 * 4096);
        // Opened again: its counters began anew.
        let load = meter.take(Duration::from_secs(106), HashMap::from([(id(0), total(500, 1))]));
        assert_eq!((load.bytes_in, load.requests), (500, 1));
    }
}
