//! The clients that ask for subscriptions and push metrics, a bounded number of them, each with what it was told and
//! when it came.

use std::collections::{BTreeSet, HashMap};

use super::subscriptions::{Client, Subscribed, Subscriptions};
use super::{ClientInstance, TelemetryError};

/// Clients that are known at a time (Kafka's bound); beyond it the one that would be forgotten first makes room.
const CLIENTS_MAX: usize = 16_384;
/// A client that is silent is known for at least so long.
const EXPIRY_MS_MIN: u64 = 60_000;

/// One client.
#[derive(Debug)]
pub struct Known {
    pub subscribed: Subscribed,
    /// Of the subscriptions that `subscribed` was made of.
    version: u64,
    asked_ms: Option<u64>,
    pushed_ms: Option<u64>,
    /// It said that it ends.
    pub terminating: bool,
    expires_ms: u64,
}

impl Known {
    fn interval_ms(&self) -> u64 {
        u64::try_from(self.subscribed.push_interval_ms).unwrap_or(0)
    }

    /// A client asks once in a push interval.
    pub fn may_ask(&mut self, now_ms: u64) -> Result<(), TelemetryError> {
        let last = self.asked_ms.max(self.pushed_ms);
        if last.is_some_and(|last| now_ms.saturating_sub(last) < self.interval_ms()) {
            return Err(TelemetryError::TooEarly);
        }
        self.asked_ms = Some(now_ms);
        Ok(())
    }

    /// A client pushes once in an interval, but for the first time after it asked, whose time has jitter, and for the
    /// last time of all.
    pub fn may_push(&mut self, subscription: i32, terminating: bool, now_ms: u64) -> Result<(), TelemetryError> {
        if self.terminating {
            return Err(TelemetryError::Terminated);
        }
        let just_asked = self.asked_ms > self.pushed_ms;
        let waited = self.pushed_ms.is_none_or(|last| now_ms.saturating_sub(last) >= self.interval_ms());
        if just_asked || waited {
            self.pushed_ms = Some(now_ms);
        } else if !terminating {
            return Err(TelemetryError::TooEarly);
        }
        if subscription == self.subscribed.subscription { Ok(()) } else { Err(TelemetryError::UnknownSubscription) }
    }
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    by_id: HashMap<ClientInstance, Known>,
    by_expiry: BTreeSet<(u64, ClientInstance)>,
}

impl Clients {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn knows(&self, id: &ClientInstance) -> bool {
        self.by_id.contains_key(id)
    }

    /// The client, known from now on for some time, with the subscription that holds for it now; and who had to make
    /// room for it.
    pub fn touch(
        &mut self,
        id: ClientInstance,
        subscriptions: &Subscriptions,
        client: &Client,
        now_ms: u64,
    ) -> (&mut Known, Option<ClientInstance>) {
        let mut evicted = None;
        if !self.by_id.contains_key(&id)
            && self.by_id.len() >= CLIENTS_MAX
            && let Some((_, first)) = self.by_expiry.pop_first()
        {
            self.by_id.remove(&first);
            evicted = Some(first);
        }
        let fresh = || Known {
            subscribed: subscriptions.of_client(id, client),
            version: subscriptions.version(),
            asked_ms: None,
            pushed_ms: None,
            terminating: false,
            expires_ms: 0,
        };
        let known = self.by_id.entry(id).or_insert_with(fresh);
        if known.version != subscriptions.version() {
            // Whoever is asked for something else may come at once, as in Kafka.
            self.by_expiry.remove(&(known.expires_ms, id));
            *known = fresh();
        }
        self.by_expiry.remove(&(known.expires_ms, id));
        known.expires_ms = now_ms.saturating_add(EXPIRY_MS_MIN.max(known.interval_ms() * 3));
        self.by_expiry.insert((known.expires_ms, id));
        (known, evicted)
    }

    /// Forgets one client whose time is over, if there is one.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<ClientInstance> {
        let (expires_ms, id) = *self.by_expiry.first()?;
        if expires_ms > now_ms {
            return None;
        }
        self.by_expiry.remove(&(expires_ms, id));
        self.by_id.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_clients_is_bounded_and_the_first_to_expire_makes_room() {
        let (mut clients, none, client) = (Clients::default(), Subscriptions::default(), Client::default());
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 0..CLIENTS_MAX {
            assert_eq!(clients.touch(id(n), &none, &client, n as u64).1, None);
        }
        clients.touch(id(0), &none, &client, 20_000);
        assert_eq!(clients.touch(id(CLIENTS_MAX), &none, &client, 20_001).1, Some(id(1)));
        assert_eq!((clients.len(), clients.by_expiry.len()), (CLIENTS_MAX, CLIENTS_MAX));
        let mut gone = 0;
        while clients.pop_expired(u64::MAX).is_some() {
            gone += 1;
        }
        assert_eq!((gone, clients.len()), (CLIENTS_MAX, 0));
    }
}
