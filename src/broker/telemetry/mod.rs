//! Clients' own metrics (KIP-714): which client is to push what, what it pushed last, and for how long that counts.
//!
//! [`subscriptions`] follows the metadata, [`otlp`] reads what is pushed, [`store`] keeps it for the metrics endpoint,
//! [`clients`] knows who is there. Everything is bounded, in number and in bytes, and forgotten when its client has
//! been silent for three push intervals. Pure but for one lock: time and randomness are arguments.

mod clients;
mod otlp;
mod store;
mod subscriptions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Compression;
use crate::batch::compression::decompress;
use crate::metadata::NamedConfigs;

use clients::Clients;
use store::Store;
use subscriptions::Subscriptions;

pub use otlp::Kind;
pub use subscriptions::{Client, Subscribed};

/// Identity of a client, as it or we chose it.
pub type ClientInstance = [u8; 16];

/// Identities that Kafka keeps for itself: zero and one.
fn is_reserved(id: &ClientInstance) -> bool {
    id[..15] == [0; 15] && id[15] <= 1
}

/// How much larger than a request its metrics may be once they are unpacked, and at most.
const UNPACKED_FACTOR: usize = 8;
const UNPACKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a request about metrics is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    #[error("the client instance id is reserved")]
    ReservedId,
    #[error("the client said that it ends")]
    Terminated,
    #[error("the push interval is not over")]
    TooEarly,
    #[error("the subscription has changed")]
    UnknownSubscription,
    #[error("the metrics are packed in an unknown way")]
    UnsupportedCompression,
    #[error("the metrics are too large")]
    TooLarge,
    #[error("the metrics cannot be read")]
    Unreadable,
}

/// One push of a client.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub id: ClientInstance,
    pub subscription: i32,
    /// The last one of this client.
    pub terminating: bool,
    /// Kafka's number of the codec.
    pub compression: i8,
    /// As it was sent.
    pub metrics: &'a [u8],
    /// `telemetry.max.bytes`.
    pub bytes_max: usize,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clients known now.
    pub clients: usize,
    /// Values kept now.
    pub values: usize,
    pub pushes: u64,
    /// Values that found no room.
    pub dropped: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Telemetry(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    subscriptions: Subscriptions,
    clients: Clients,
    store: Store,
    pushes: u64,
}

impl Telemetry {
    /// Puts the subscriptions of the metadata in force.
    pub fn set(&self, configs: &NamedConfigs) {
        self.lock().subscriptions = Subscriptions::of(configs);
    }

    /// What a client is to push. A client without an identity is given one by `new_id`.
    pub fn subscribe(
        &self,
        asked: ClientInstance,
        client: &Client,
        now_ms: u64,
        mut new_id: impl FnMut() -> ClientInstance,
    ) -> Result<Subscribed, TelemetryError> {
        let mut state = self.lock();
        let mut id = asked;
        while id == [0; 16] || (asked == [0; 16] && (is_reserved(&id) || state.clients.knows(&id))) {
            id = new_id();
        }
        let known = state.client(id, client, now_ms);
        known.may_ask(now_ms)?;
        Ok(known.subscribed.clone())
    }

    /// Takes a client's metrics. What it pushed before and does not push again stays until the client is forgotten.
    pub fn push(&self, push: Push<'_>, client: &Client, now_ms: u64) -> Result<(), TelemetryError> {
        if is_reserved(&push.id) {
            return Err(TelemetryError::ReservedId);
        }
        let codec = u8::try_from(push.compression).ok().and_then(Compression::from_id);
        {
            let mut state = self.lock();
            let known = state.client(push.id, client, now_ms);
            let admitted = known.may_push(push.subscription, push.terminating, now_ms);
            known.terminating = push.terminating;
            admitted?;
        }
        let codec = codec.ok_or(TelemetryError::UnsupportedCompression)?;
        if push.metrics.len() > push.bytes_max {
            return Err(TelemetryError::TooLarge);
        }
        // Unpacking and reading take long; nobody waits for the lock meanwhile.
        let unpacked_max = push.bytes_max.saturating_mul(UNPACKED_FACTOR).min(UNPACKED_BYTES_MAX);
        let values = match push.metrics {
            [] => Vec::new(),
            packed => {
                let bytes = decompress(codec, packed, unpacked_max).map_err(|error| match error {
                    crate::batch::CompressionError::TooLarge(_) => TelemetryError::TooLarge,
                    crate::batch::CompressionError::Broken { .. } => TelemetryError::Unreadable,
                })?;
                otlp::read(&bytes).map_err(|_| TelemetryError::Unreadable)?
            }
        };
        let mut state = self.lock();
        state.pushes += 1;
        state.store.put(push.id, client, values);
        Ok(())
    }

    /// Shows every metric: name, kind, and each value with its labels.
    pub fn show(&self, now_ms: u64, mut family: impl FnMut(&str, Kind, &mut dyn Iterator<Item = Shown<'_>>)) {
        let mut state = self.lock();
        state.expire(now_ms);
        for ((name, kind), values) in state.store.families() {
            let mut shown = values.iter().map(|(key, value)| Shown { labels: &key.labels, value: *value });
            family(name, *kind, &mut shown);
        }
    }

    pub fn counts(&self, now_ms: u64) -> Counts {
        let mut state = self.lock();
        state.expire(now_ms);
        Counts {
            clients: state.clients.len(),
            values: state.store.len(),
            pushes: state.pushes,
            dropped: state.store.dropped(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One value as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Name and value of each, in the order of the names.
    pub labels: &'a [(String, String)],
    pub value: f64,
}

impl State {
    /// The client, with the subscription that now holds for it.
    fn client(&mut self, id: ClientInstance, client: &Client, now_ms: u64) -> &mut clients::Known {
        self.expire(now_ms);
        let (known, evicted) = self.clients.touch(id, &self.subscriptions, client, now_ms);
        if let Some(evicted) = evicted {
            self.store.forget(&evicted);
        }
        known
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some(gone) = self.clients.pop_expired(now_ms) {
            self.store.forget(&gone);
        }
    }
}

#[cfg(test)]
mod tests;
