//! Measures what clients use and says how long they have to be silent for it. Everything is in one process: as in
//! Kafka a quota holds for each broker.
//!
//! Without any quota a caller pays one relaxed load. Memory is bounded: an allowance of which nothing is used is
//! forgotten, and beyond [`TRACKED_MAX`] of one measure further clients share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::metadata::ClientQuotas;

use super::limits::{Client, Limits, Measure, Shared};
use super::rate::{Bucket, Rate, Window};

/// Allowances that are tracked for each measure.
const TRACKED_MAX: usize = 50_000;
/// New ones before it is looked for what can be forgotten.
const SWEEP_AFTER_MIN: usize = 4_096;
/// How often it is looked for a place while there is none.
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// The bit of [`QuotaManager::used`] that stands for addresses; those below are the measures'.
const ADDRESSES: u8 = 1 << 4;

/// Refused until so many milliseconds have passed (KIP-599).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The throttling quota has been exceeded.")]
pub struct Exceeded {
    pub throttle_ms: u64,
}

/// The windows of the settings; they hold for the life of the process, as in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// `quota.window.*`.
    pub client: Window,
    /// `controller.quota.window.*`.
    pub mutation: Window,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct QuotaManager {
    windows: Windows,
    /// Which measures have a limit.
    used: AtomicU8,
    limits: RwLock<Arc<Limits>>,
    /// Of Produce, Fetch and Request.
    rates: [Mutex<Tracked<Client, Rate>>; 3],
    buckets: Mutex<Tracked<Client, Bucket>>,
    addresses: Mutex<Tracked<IpAddr, Rate>>,
    /// Connections to all listeners.
    connections: Mutex<Rate>,
}

impl QuotaManager {
    pub fn new(windows: Windows) -> QuotaManager {
        QuotaManager {
            windows,
            used: AtomicU8::new(0),
            limits: RwLock::default(),
            rates: Default::default(),
            buckets: Mutex::default(),
            addresses: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// Puts the limits of the metadata in force. What was used before stays used.
    pub fn set(&self, quotas: &ClientQuotas) {
        let limits = Limits::of(quotas);
        let measures = Measure::ALL.into_iter().filter(|measure| limits.uses(*measure));
        let mut used = measures.fold(0, |bits, measure| bits | 1 << measure as u8);
        if limits.uses_addresses() {
            used |= ADDRESSES;
        }
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
        self.used.store(used, Relaxed);
    }

    /// Whether any request has to be measured.
    pub fn measures_requests(&self) -> bool {
        self.used.load(Relaxed) & !ADDRESSES != 0
    }

    fn uses(&self, measure: Measure) -> bool {
        self.used.load(Relaxed) & (1 << measure as u8) != 0
    }

    /// Records what a client used, and answers for how many milliseconds it is to be silent. `measure` is any but
    /// mutations. A request's time makes nobody wait for longer than one sample, as in Kafka.
    pub fn record(&self, measure: Measure, client: &Client, value: f64, now_ms: u64) -> u64 {
        let window = self.windows.client;
        let throttle = self.with_rate(measure, client, now_ms, |rate, limit| {
            rate.record(window, value, now_ms);
            rate.throttle_ms(window, limit, now_ms)
        });
        let throttle = throttle.flatten().unwrap_or(0);
        if measure == Measure::Request { throttle.min(window.sample_ms) } else { throttle }
    }

    /// Takes back what was recorded but is not done.
    pub fn take_back(&self, measure: Measure, client: &Client, value: f64, now_ms: u64) {
        self.with_rate(measure, client, now_ms, |rate, _| rate.record(self.windows.client, -value, now_ms));
    }

    fn with_rate<T>(
        &self,
        measure: Measure,
        client: &Client,
        now_ms: u64,
        then: impl FnOnce(&mut Rate, f64) -> T,
    ) -> Option<T> {
        let (limit, shared) = self.limit(measure, client)?;
        let mut tracked = lock(self.rates.get(measure as usize)?);
        let window = self.windows.client;
        let rate = tracked.entry(key(client, shared), now_ms, Rate::default, |rate| rate.is_at_rest(window, now_ms));
        Some(then(rate, limit))
    }

    fn limit(&self, measure: Measure, client: &Client) -> Option<(f64, Shared)> {
        if !self.uses(measure) {
            return None;
        }
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        limits.find(measure, client)
    }

    /// Most bytes that one Fetch may answer: a larger answer would be throttled for certain, whatever was before.
    pub fn fetch_bytes_max(&self, client: &Client) -> Option<usize> {
        let (limit, _) = self.limit(Measure::Fetch, client)?;
        // As a conversion of Rust's saturates, no limit is too large.
        Some((limit * self.windows.client.complete_seconds()) as usize)
    }

    /// Admits `partitions` to be created or deleted unless the client is in debt already; it may go into debt once.
    pub fn mutate_strictly(&self, client: &Client, partitions: usize, now_ms: u64) -> Result<(), Exceeded> {
        let window = self.windows.mutation;
        let outcome = self.with_bucket(client, now_ms, |bucket, limit| {
            if let Some(throttle_ms) = bucket.throttle_ms(window, limit, now_ms) {
                return Err(Exceeded { throttle_ms });
            }
            bucket.take(window, limit, partitions as f64, now_ms);
            Ok(())
        });
        outcome.unwrap_or(Ok(()))
    }

    /// Admits `partitions` in any case, and answers for how many milliseconds the client is to be silent.
    pub fn mutate(&self, client: &Client, partitions: usize, now_ms: u64) -> u64 {
        let window = self.windows.mutation;
        let throttle = self.with_bucket(client, now_ms, |bucket, limit| {
            bucket.take(window, limit, partitions as f64, now_ms);
            bucket.throttle_ms(window, limit, now_ms)
        });
        throttle.flatten().unwrap_or(0)
    }

    fn with_bucket<T>(&self, client: &Client, now_ms: u64, then: impl FnOnce(&mut Bucket, f64) -> T) -> Option<T> {
        let (limit, shared) = self.limit(Measure::Mutation, client)?;
        let window = self.windows.mutation;
        let mut tracked = lock(&self.buckets);
        // A debt is never forgotten; a bucket without one is as good as a new one, or worse.
        let paid = |bucket: &mut Bucket| bucket.throttle_ms(window, limit, now_ms).is_none();
        let bucket = tracked.entry(key(client, shared), now_ms, || Bucket::full(window, limit, now_ms), paid);
        Some(then(bucket, limit))
    }

    /// Counts a connection of an address (KIP-612), and answers for how many milliseconds it is to be held before it
    /// is closed; 0 admits it. A refused one does not count.
    pub fn connection_from(&self, address: IpAddr, now_ms: u64) -> u64 {
        if self.used.load(Relaxed) & ADDRESSES == 0 {
            return 0;
        }
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(limit) = limits.of_address(address) else { return 0 };
        let window = self.windows.client;
        let mut tracked = lock(&self.addresses);
        let rate = tracked.entry(address.to_canonical(), now_ms, Rate::default, |rate| rate.is_at_rest(window, now_ms));
        rate.record(window, 1.0, now_ms);
        match rate.throttle_ms(window, limit, now_ms) {
            None => 0,
            Some(throttle) => {
                rate.record(window, -1.0, now_ms);
                throttle.clamp(1, window.sample_ms)
            }
        }
    }

    /// Counts a connection to this broker, of which `limit` are allowed a second, and answers for how many
    /// milliseconds it has to wait.
    pub fn connection(&self, limit: u64, now_ms: u64) -> u64 {
        let window = self.windows.client;
        let mut rate = lock(&self.connections);
        rate.record(window, 1.0, now_ms);
        // A limit of 0 admits one in a sample.
        rate.throttle_ms(window, (limit as f64).max(f64::MIN_POSITIVE), now_ms).unwrap_or(0).min(window.sample_ms)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who shares an allowance has one key.
fn key(client: &Client, shared: Shared) -> Client {
    match shared {
        Shared::UserAndClient => client.clone(),
        Shared::User => Client { user: client.user.clone(), id: Box::default() },
        Shared::Client => Client { user: Box::default(), id: client.id.clone() },
    }
}

/// Allowances by key, a bounded number of them.
#[derive(Debug)]
struct Tracked<K, S> {
    by_key: HashMap<K, S>,
    /// For all that find no place.
    rest: Option<S>,
    /// New keys since the last look for what can be forgotten, and how many it takes until the next.
    news: usize,
    sweep_after: usize,
    swept_ms: u64,
}

impl<K, S> Default for Tracked<K, S> {
    fn default() -> Self {
        Tracked { by_key: HashMap::new(), rest: None, news: 0, sweep_after: SWEEP_AFTER_MIN, swept_ms: 0 }
    }
}

impl<K: Hash + Eq, S> Tracked<K, S> {
    fn entry(&mut self, key: K, now_ms: u64, new: impl FnOnce() -> S, at_rest: impl Fn(&mut S) -> bool) -> &mut S {
        if !self.by_key.contains_key(&key) {
            let full = self.by_key.len() >= TRACKED_MAX;
            if self.news >= self.sweep_after || (full && now_ms.saturating_sub(self.swept_ms) >= SWEEP_INTERVAL_MS) {
                self.by_key.retain(|_, state| !at_rest(state));
                // Half as many again may come before the next look: it is paid for by those that come.
                self.sweep_after = (self.by_key.len() / 2).max(SWEEP_AFTER_MIN);
                (self.news, self.swept_ms) = (0, now_ms);
            }
            self.news += 1;
            if self.by_key.len() >= TRACKED_MAX {
                return self.rest.get_or_insert_with(new);
            }
        }
        self.by_key.entry(key).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{QuotaEntity, QuotaName};
    use std::collections::BTreeMap;

    const WINDOWS: Windows = Windows { client: Window::KAFKA, mutation: Window::KAFKA };

    fn client(user: &str, id: &str) -> Client {
        Client { user: user.into(), id: id.into() }
    }

    fn manager(quotas: &[(QuotaEntity, &str, f64)]) -> QuotaManager {
        let manager = QuotaManager::new(WINDOWS);
        set(&manager, quotas);
        manager
    }

    fn set(manager: &QuotaManager, quotas: &[(QuotaEntity, &str, f64)]) {
        let mut all: BTreeMap<QuotaEntity, BTreeMap<String, f64>> = BTreeMap::new();
        for (entity, key, limit) in quotas {
            all.entry(entity.clone()).or_default().insert(key.to_string(), *limit);
        }
        manager.set(&Arc::new(all));
    }

    fn of_user(name: &str) -> QuotaEntity {
        QuotaEntity { user: Some(QuotaName::Named(name.to_owned())), ..QuotaEntity::default() }
    }

    fn of_any_client() -> QuotaEntity {
        QuotaEntity { client_id: Some(QuotaName::Default), ..QuotaEntity::default() }
    }

    fn of_any_address() -> QuotaEntity {
        QuotaEntity { ip: Some(QuotaName::Default), ..QuotaEntity::default() }
    }

    #[test]
    fn nobody_is_measured_without_a_quota() {
        let manager = manager(&[]);
        assert!(!manager.measures_requests());
        assert_eq!(manager.record(Measure::Produce, &client("u", "c"), 1e12, 0), 0);
        assert_eq!(manager.mutate_strictly(&client("u", "c"), 1_000_000, 0), Ok(()));
        assert_eq!(manager.connection_from([10, 0, 0, 1].into(), 0), 0);
        assert_eq!(lock(&manager.rates[0]).by_key.len(), 0);
        set(&manager, &[(of_any_address(), "connection_creation_rate", 1.0)]);
        assert!(!manager.measures_requests(), "connections are no requests");
    }

    #[test]
    fn connections_of_one_user_share_its_allowance() {
        let manager = manager(&[(of_user("u"), "producer_byte_rate", 1_000.0)]);
        assert!(manager.measures_requests());
        assert_eq!(manager.record(Measure::Produce, &client("u", "a"), 6_000.0, 0), 0);
        assert_eq!(manager.record(Measure::Produce, &client("u", "b"), 6_000.0, 0), 2_000);
        assert_eq!(manager.record(Measure::Produce, &client("v", "b"), 1e9, 0), 0, "another user has no quota");
        assert_eq!(manager.record(Measure::Fetch, &client("u", "b"), 1e9, 0), 0, "fetching has none");
    }

    #[test]
    fn each_client_id_has_the_default_for_itself() {
        let manager = manager(&[(of_any_client(), "consumer_byte_rate", 1_000.0)]);
        assert_eq!(manager.record(Measure::Fetch, &client("u", "a"), 10_000.0, 0), 0);
        assert_eq!(manager.record(Measure::Fetch, &client("v", "b"), 10_000.0, 0), 0);
        assert_eq!(manager.record(Measure::Fetch, &client("v", "a"), 5_000.0, 0), 5_000);
        manager.take_back(Measure::Fetch, &client("v", "a"), 5_000.0, 0);
        assert_eq!(manager.record(Measure::Fetch, &client("v", "a"), 0.0, 0), 0);
        assert_eq!(manager.fetch_bytes_max(&client("v", "a")), Some(10_000));
        assert_eq!(manager.fetch_bytes_max(&client("v", "")), None);
    }

    #[test]
    fn a_changed_quota_counts_at_once_and_what_was_used_stays_used() {
        let manager = manager(&[(of_user("u"), "producer_byte_rate", 1_000.0)]);
        assert_eq!(manager.record(Measure::Produce, &client("u", ""), 20_000.0, 0), 10_000);
        set(&manager, &[(of_user("u"), "producer_byte_rate", 4_000.0)]);
        assert_eq!(manager.record(Measure::Produce, &client("u", ""), 0.0, 0), 0);
        set(&manager, &[(of_user("u"), "producer_byte_rate", 500.0)]);
        assert_eq!(manager.record(Measure::Produce, &client("u", ""), 0.0, 0), 30_000);
        set(&manager, &[]);
        assert_eq!(manager.record(Measure::Produce, &client("u", ""), 1e9, 0), 0);
    }

    #[test]
    fn time_of_requests_makes_nobody_wait_longer_than_one_sample() {
        let manager = manager(&[(of_user("u"), "request_percentage", 10.0)]);
        assert_eq!(manager.record(Measure::Request, &client("u", ""), 101.0, 0), 100);
        assert_eq!(manager.record(Measure::Request, &client("u", ""), 1e6, 0), 1_000);
    }

    #[test]
    fn mutations_are_refused_while_there_is_a_debt() {
        let manager = manager(&[(of_user("u"), "controller_mutation_rate", 2.0)]);
        let who = client("u", "c");
        assert_eq!(manager.mutate_strictly(&who, 30, 1_000), Ok(()), "one burst may go into debt");
        assert_eq!(manager.mutate_strictly(&who, 1, 1_000), Err(Exceeded { throttle_ms: 4_000 }));
        assert_eq!(manager.mutate_strictly(&who, 1, 5_000), Ok(()));
        assert_eq!(manager.mutate(&who, 3, 5_000), 2_000, "the older versions are admitted, and wait");
        assert_eq!(manager.mutate(&client("v", "c"), 1_000, 5_000), 0);
    }

    #[test]
    fn connections_have_a_rate_for_each_address_and_for_the_broker() {
        let manager = manager(&[(of_any_address(), "connection_creation_rate", 1.0)]);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let throttled: Vec<u64> = (0..12).map(|_| manager.connection_from(one, 0)).collect();
        assert_eq!(throttled, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1_000, 1_000], "what is refused does not count");
        assert_eq!(manager.connection_from(other, 0), 0);
        assert_eq!(manager.connection_from(one, 11_000), 0);
        let throttled: Vec<u64> = (0..22).map(|_| manager.connection(2, 50_000)).collect();
        assert_eq!(throttled[..20], [0; 20]);
        assert_eq!(throttled[20..], [500, 1_000]);
        assert_eq!(manager.connection(0, 100_000), 1_000);
    }

    #[test]
    fn ever_new_names_take_bounded_memory() {
        let manager = manager(&[(of_any_client(), "producer_byte_rate", 1_000.0)]);
        for n in 0..3 * TRACKED_MAX {
            manager.record(Measure::Produce, &client("u", &n.to_string()), 1.0, n as u64 / 10);
        }
        assert!(lock(&manager.rates[0]).by_key.len() <= TRACKED_MAX);
        // Within one window: too many, they share one allowance.
        for n in 0..2 * TRACKED_MAX {
            manager.record(Measure::Produce, &client("v", &n.to_string()), 1.0, 1_000_000);
        }
        assert_eq!(lock(&manager.rates[0]).by_key.len(), TRACKED_MAX);
        assert!(manager.record(Measure::Produce, &client("v", "new"), 1.0, 1_000_000) > 0);
        assert_eq!(manager.record(Measure::Produce, &client("v", "new"), 1.0, 2_000_000), 0);
        assert!(lock(&manager.rates[0]).by_key.len() < 10);
    }
}
