//! What one request uses of its client's quotas, from its first byte of work to its answer.
//!
//! Time counts while the request is worked on, not while it waits. A handler that knows more than the time (bytes,
//! partitions) settles it here; of all throttle times the longest holds, as in Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::env::Clock;

use super::limits::{Client, Measure};
use super::manager::{Exceeded, QuotaManager};

/// Percent of one processor for each nanosecond in a second.
const PERCENT_PER_NANOSECOND: f64 = 100.0 / 1e9;

/// See the module's documentation.
pub struct Meter {
    quotas: Arc<QuotaManager>,
    clock: Arc<dyn Clock>,
    client: Client,
    /// Of the phases that are over.
    busy_ns: AtomicU64,
    /// When the phase under way began, in ns of the clock; 0 while nothing is done.
    began_ns: AtomicU64,
    /// The longest so far.
    throttle_ms: AtomicU64,
    settled: AtomicBool,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Meter {
    pub fn new(quotas: Arc<QuotaManager>, clock: Arc<dyn Clock>, client: Client) -> Meter {
        Meter {
            quotas,
            clock,
            client,
            busy_ns: AtomicU64::new(0),
            began_ns: AtomicU64::new(0),
            throttle_ms: AtomicU64::new(0),
            settled: AtomicBool::new(false),
        }
    }

    /// Counts the time of `work`. Phases of one request never overlap.
    pub fn working<T>(&self, work: impl FnOnce() -> T) -> T {
        self.began_ns.store(nanoseconds(self.clock.boottime()).max(1), Relaxed);
        let done = work();
        let busy = self.phase_ns();
        self.began_ns.store(0, Relaxed);
        self.busy_ns.fetch_add(busy, Relaxed);
        done
    }

    fn phase_ns(&self) -> u64 {
        match self.began_ns.load(Relaxed) {
            0 => 0,
            began => nanoseconds(self.clock.boottime()).saturating_sub(began),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX)
    }

    fn throttle(&self, throttle_ms: u64) {
        self.throttle_ms.fetch_max(throttle_ms, Relaxed);
    }

    /// Milliseconds for which the connection is to be muted, as the answer tells them.
    pub fn throttle_ms(&self) -> i32 {
        i32::try_from(self.throttle_ms.load(Relaxed)).unwrap_or(i32::MAX)
    }

    /// Whether the answer has the throttle time already.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    /// Charges the time of the request, once; answers the throttle time of everything.
    pub fn settle(&self) -> i32 {
        if !self.settled.swap(true, Relaxed) {
            let busy = self.busy_ns.load(Relaxed).saturating_add(self.phase_ns());
            let percent = busy as f64 * PERCENT_PER_NANOSECOND;
            self.throttle(self.quotas.record(Measure::Request, &self.client, percent, self.now_ms()));
        }
        self.throttle_ms()
    }

    /// A Produce request of `bytes`. Without an answer (acks=0) its time is free, as in Kafka.
    pub fn produced(&self, bytes: usize, answered: bool) -> i32 {
        self.throttle(self.quotas.record(Measure::Produce, &self.client, bytes as f64, self.now_ms()));
        if answered { self.settle() } else { self.exempt() }
    }

    /// The time of this request is free.
    pub fn exempt(&self) -> i32 {
        self.settled.store(true, Relaxed);
        self.throttle_ms()
    }

    /// Most bytes that a Fetch should answer.
    pub fn fetch_bytes_max(&self) -> Option<usize> {
        self.quotas.fetch_bytes_max(&self.client)
    }

    /// A Fetch answer of `bytes`. If the result is above 0 it must be replaced by an empty one, which is free.
    pub fn fetched(&self, bytes: usize) -> i32 {
        let now_ms = self.now_ms();
        self.throttle(self.quotas.record(Measure::Fetch, &self.client, bytes as f64, now_ms));
        let throttle = self.settle();
        if throttle > 0 {
            self.quotas.take_back(Measure::Fetch, &self.client, bytes as f64, now_ms);
        }
        throttle
    }

    /// Asks for leave to create or delete `partitions`. With `strict` it can be refused (KIP-599); else the client
    /// waits afterwards.
    pub fn mutate(&self, partitions: usize, strict: bool) -> Result<(), Exceeded> {
        if !strict {
            self.throttle(self.quotas.mutate(&self.client, partitions, self.now_ms()));
            return Ok(());
        }
        let outcome = self.quotas.mutate_strictly(&self.client, partitions, self.now_ms());
        if let Err(Exceeded { throttle_ms }) = outcome {
            self.throttle(throttle_ms);
        }
        outcome
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::quota::{Window, Windows};
    use crate::metadata::{QuotaEntity, QuotaName};
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn boottime(&self) -> Duration {
            Duration::from_millis(self.0.load(Relaxed))
        }
    }

    struct Bench {
        quotas: Arc<QuotaManager>,
        clock: Arc<Hand>,
    }

    fn bench(quotas: &[(&str, f64)]) -> Bench {
        let manager = QuotaManager::new(Windows { client: Window::KAFKA, mutation: Window::KAFKA });
        let user = QuotaEntity { user: Some(QuotaName::Default), ..QuotaEntity::default() };
        let values: BTreeMap<_, _> = quotas.iter().map(|(key, limit)| (key.to_string(), *limit)).collect();
        manager.set(&Arc::new(BTreeMap::from([(user, values)])));
        Bench { quotas: Arc::new(manager), clock: Arc::new(Hand(AtomicU64::new(1_000))) }
    }

    impl Bench {
        fn meter(&self) -> Meter {
            Meter::new(self.quotas.clone(), self.clock.clone(), Client { user: "u".into(), id: "c".into() })
        }

        fn pass(&self, ms: u64) {
            self.clock.0.fetch_add(ms, Relaxed);
        }
    }

    #[test]
    fn time_counts_while_a_request_is_worked_on() {
        let bench = bench(&[("request_percentage", 10.0)]);
        let meter = bench.meter();
        meter.working(|| bench.pass(600));
        bench.pass(100_000);
        // 1,100 ms of work are 110 percent in ten seconds: a tenth above the quota.
        let throttle = meter.working(|| {
            bench.pass(500);
            meter.settle()
        });
        assert_eq!(throttle, 1_000);
        assert_eq!(meter.settle(), 1_000, "it is charged once");
        assert_eq!(bench.meter().settle(), 1_000, "whoever comes next is over the quota, too");
    }

    #[test]
    fn a_request_without_an_answer_pays_bytes_but_no_time() {
        let bench = bench(&[("request_percentage", 1.0), ("producer_byte_rate", 1_000.0)]);
        let meter = bench.meter();
        meter.working(|| bench.pass(5_000));
        assert_eq!(meter.produced(5_000, false), 0);
        let meter = bench.meter();
        assert_eq!(meter.produced(10_000, false), 5_000);
        assert!(meter.is_settled());
    }

    #[test]
    fn the_longest_throttle_time_holds() {
        let bench = bench(&[("request_percentage", 10.0), ("producer_byte_rate", 1_000.0)]);
        let meter = bench.meter();
        meter.working(|| bench.pass(1_010));
        assert_eq!(meter.produced(15_000, true), 5_000);
    }

    #[test]
    fn an_answer_that_is_not_sent_is_free() {
        let bench = bench(&[("consumer_byte_rate", 1_000.0)]);
        assert_eq!(bench.meter().fetch_bytes_max(), Some(10_000));
        assert_eq!(bench.meter().fetched(9_000), 0);
        assert_eq!(bench.meter().fetched(3_000), 2_000);
        assert_eq!(bench.meter().fetched(1_000), 0, "the second answer was not sent");
    }

    #[test]
    fn mutations_are_refused_or_waited_for() {
        let bench = bench(&[("controller_mutation_rate", 1.0)]);
        let meter = bench.meter();
        assert_eq!(meter.mutate(13, true), Ok(()));
        assert_eq!(meter.throttle_ms(), 0);
        assert!(meter.mutate(1, true).is_err());
        assert_eq!(meter.throttle_ms(), 2_000);
        let older = bench.meter();
        assert_eq!(older.mutate(1, false), Ok(()));
        assert_eq!(older.throttle_ms(), 3_000);
    }
}
