//! Counters of the wire, as plain atomics: written on the path of requests, read by whoever exposes them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::versions::{API_COUNT, Api};

/// Upper bounds of the latency buckets, in microseconds; one more bucket has no bound.
pub const LATENCY_BUCKETS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Kafka's error codes are −1 to 133 today; everything beyond shares the last place.
const ERROR_PLACES: usize = 160;

/// Durations in fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; LATENCY_BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn new() -> Self {
        Histogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }

    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = LATENCY_BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[place].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Observations in each bucket (not cumulated), in the order of [`LATENCY_BUCKETS_US`].
    pub fn buckets(&self) -> [u64; LATENCY_BUCKETS_US.len() + 1] {
        std::array::from_fn(|i| self.buckets[i].load(Relaxed))
    }

    /// Sum of all observations, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }
}

/// Counters of one API.
#[derive(Debug)]
pub struct ApiMetrics {
    /// Requests decoded.
    pub requests: AtomicU64,
    /// From the last byte of a request read to the last byte of its response written.
    pub latency: Histogram,
    errors: [AtomicU64; ERROR_PLACES],
}

impl ApiMetrics {
    fn new() -> Self {
        ApiMetrics {
            requests: AtomicU64::new(0),
            latency: Histogram::new(),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Error codes answered and how often, without those never answered.
    pub fn errors(&self) -> impl Iterator<Item = (i16, u64)> {
        let counts = self.errors.iter().enumerate().map(|(place, n)| (place as i16 - 1, n.load(Relaxed)));
        counts.filter(|(_, n)| *n > 0)
    }
}

/// All counters of the wire layer.
#[derive(Debug)]
pub struct WireMetrics {
    apis: [ApiMetrics; API_COUNT],
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Connections accepted in all.
    pub accepted: AtomicU64,
    /// Connections closed at once, because a limit was reached.
    pub rejected: AtomicU64,
    /// Connections delayed or closed, because too many came in one second.
    pub connections_throttled: AtomicU64,
    /// Requests after which a connection was muted, and for how many milliseconds in all.
    pub throttled: AtomicU64,
    pub throttled_ms: AtomicU64,
    /// Connections that failed or did not finish their handshake in time.
    pub handshakes_failed: AtomicU64,
    /// Connections closed for what the peer sent: bad frames, unknown versions, malformed requests.
    pub malformed: AtomicU64,
}

impl WireMetrics {
    #[expect(clippy::new_without_default, reason = "one is made per process, by name")]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        WireMetrics {
            apis: std::array::from_fn(|_| ApiMetrics::new()),
            bytes_in: zero(),
            bytes_out: zero(),
            connections: zero(),
            accepted: zero(),
            rejected: zero(),
            connections_throttled: zero(),
            throttled: zero(),
            throttled_ms: zero(),
            handshakes_failed: zero(),
            malformed: zero(),
        }
    }

    pub fn api(&self, api: &Api) -> &ApiMetrics {
        &self.apis[api.index()]
    }

    /// Counts an error code of an answer; handlers call it for each code that is not 0.
    pub fn count_error(&self, api: &Api, code: i16) {
        let place = usize::try_from(i32::from(code) + 1).unwrap_or(0).min(ERROR_PLACES - 1);
        self.api(api).errors[place].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::versions::APIS;

    #[test]
    fn observations_fall_into_the_bucket_of_their_bound() {
        let histogram = Histogram::new();
        for us in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let buckets = histogram.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[15], buckets[16]), (2, 1, 1, 1));
        assert_eq!(histogram.sum_us(), 20_000_202);
    }

    #[test]
    fn every_error_code_has_a_place() {
        let metrics = WireMetrics::new();
        for code in [-1, 3, 3, 133, i16::MAX, i16::MIN] {
            metrics.count_error(&APIS[0], code);
        }
        let errors: Vec<_> = metrics.api(&APIS[0]).errors().collect();
        assert_eq!(errors, [(-1, 2), (3, 2), (133, 1), (ERROR_PLACES as i16 - 2, 1)]);
        assert_eq!(metrics.api(&APIS[1]).errors().count(), 0);
    }
}
