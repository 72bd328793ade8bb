//! Which metrics a client is asked for: all subscriptions that match it, taken together.

use std::collections::BTreeSet;

use crate::base::checksum::crc32c;
use crate::broker::settings::{MetricsSubscription, PUSH_INTERVAL_MS};
use crate::metadata::NamedConfigs;

use super::ClientInstance;

/// A subscription to everything.
const ALL: &str = "*";

/// What is known of a client, for matching and for the labels of its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Kafka's text of the identity.
    pub instance: String,
    pub client_id: String,
    pub software_name: Option<String>,
    pub software_version: Option<String>,
    pub address: String,
    pub port: u16,
}

impl Client {
    fn property(&self, name: &str) -> Option<String> {
        match name {
            "client_instance_id" => Some(self.instance.clone()),
            "client_id" => Some(self.client_id.clone()),
            "client_software_name" => self.software_name.clone(),
            "client_software_version" => self.software_version.clone(),
            "client_source_address" => Some(self.address.clone()),
            "client_source_port" => Some(self.port.to_string()),
            _ => None,
        }
    }
}

/// What one client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    pub id: ClientInstance,
    /// Changes with what is asked for.
    pub subscription: i32,
    /// Beginnings of names; `*` alone is everything, none is nothing.
    pub metrics: Vec<String>,
    pub push_interval_ms: i32,
}

/// All subscriptions of the metadata.
#[derive(Debug, Default)]
pub struct Subscriptions {
    all: Vec<MetricsSubscription>,
    /// Another one after each change.
    version: u64,
}

impl Subscriptions {
    /// Settings that cannot be used (a release with other bounds stored them) subscribe to nothing.
    pub fn of(configs: &NamedConfigs) -> Subscriptions {
        let mut version = 0;
        for (name, own) in configs.iter() {
            for text in own.iter().flat_map(|(key, value)| [name, key, value]) {
                version = (version ^ u64::from(crc32c(text.as_bytes()))).wrapping_mul(0x100_0000_01b3).wrapping_add(1);
            }
        }
        Subscriptions {
            all: configs.values().filter_map(|own| MetricsSubscription::parse(own).ok()).collect(),
            version,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the client is asked for.
    pub fn of_client(&self, id: ClientInstance, client: &Client) -> Subscribed {
        let mut metrics = BTreeSet::new();
        let mut push_interval_ms = PUSH_INTERVAL_MS;
        for subscription in self.all.iter().filter(|subscription| matches(subscription, client)) {
            metrics.extend(subscription.metrics.iter().cloned());
            push_interval_ms = push_interval_ms.min(subscription.push_interval_ms);
        }
        let metrics: Vec<String> =
            if metrics.contains(ALL) { vec![ALL.to_owned()] } else { metrics.into_iter().collect() };
        let text = format!("{metrics:?}{push_interval_ms}");
        let subscription = (crc32c(text.as_bytes()) ^ crc32c(&id)) as i32;
        Subscribed { id, subscription, metrics, push_interval_ms }
    }
}

fn matches(subscription: &MetricsSubscription, client: &Client) -> bool {
    subscription
        .matches
        .iter()
        .all(|(property, pattern)| client.property(property).is_some_and(|value| pattern.matches(&value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn configs(all: &[(&str, &[(&str, &str)])]) -> NamedConfigs {
        let own = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        Arc::new(all.iter().map(|(name, pairs)| (name.to_string(), own(pairs))).collect())
    }

    fn client(id: &str) -> Client {
        Client { client_id: id.to_owned(), software_name: Some("librdkafka".to_owned()), ..Client::default() }
    }

    #[test]
    fn subscriptions_that_match_add_up() {
        let all = Subscriptions::of(&configs(&[
            ("every", &[("metrics", "a.")]),
            ("some", &[("metrics", "b.,a."), ("interval.ms", "1000"), ("match", "client_id=x.*")]),
            ("none", &[("metrics", "c."), ("match", "client_software_version=1")]),
            ("broken", &[("metrics", "d."), ("match", "client_id=(")]),
        ]));
        let of = |id| {
            let subscribed = all.of_client([9; 16], &client(id));
            (subscribed.metrics, subscribed.push_interval_ms)
        };
        assert_eq!(of("x1"), (vec!["a.".to_owned(), "b.".to_owned()], 1000));
        assert_eq!(of("y"), (vec!["a.".to_owned()], PUSH_INTERVAL_MS));
        assert_eq!(Subscriptions::default().of_client([9; 16], &client("x")).metrics, [""; 0]);
    }

    #[test]
    fn everything_is_a_star() {
        let all = Subscriptions::of(&configs(&[("a", &[("metrics", "a.,*")]), ("b", &[("metrics", "b.")])]));
        assert_eq!(all.of_client([9; 16], &client("x")).metrics, ["*"]);
    }

    #[test]
    fn a_change_shows_in_the_version_and_in_the_subscription() {
        let (one, other) = (configs(&[("a", &[("metrics", "a.")])]), configs(&[("a", &[("metrics", "b.")])]));
        let (one, other) = (Subscriptions::of(&one), Subscriptions::of(&other));
        assert_ne!(one.version(), other.version());
        let of = |all: &Subscriptions, id| all.of_client(id, &client("x")).subscription;
        assert_ne!(of(&one, [1; 16]), of(&other, [1; 16]));
        assert_ne!(of(&one, [1; 16]), of(&one, [2; 16]));
    }
}
