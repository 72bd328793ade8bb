//! What clients pushed last, by metric, in the form in which the metrics endpoint shows it. Bounded in bytes.

use std::collections::BTreeMap;

use super::ClientInstance;
use super::otlp::{Kind, Value};
use super::subscriptions::Client;

/// Memory of all values together.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Values of one client.
const CLIENT_VALUES_MAX: usize = 1_024;
/// What a value takes beside its texts.
const VALUE_BYTES: usize = 128;
/// What a label takes beside its texts.
const LABEL_BYTES: usize = 48;

/// Which value of a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    client: ClientInstance,
    pub labels: Vec<(String, String)>,
}

impl Key {
    fn bytes(&self) -> usize {
        VALUE_BYTES + self.labels.iter().map(|(name, value)| LABEL_BYTES + name.len() + value.len()).sum::<usize>()
    }
}

type Families = BTreeMap<(String, Kind), BTreeMap<Key, f64>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Store {
    families: Families,
    /// Values of each client.
    counts: BTreeMap<ClientInstance, usize>,
    bytes: usize,
    values: usize,
    dropped: u64,
}

impl Store {
    pub fn families(&self) -> &Families {
        &self.families
    }

    pub fn len(&self) -> usize {
        self.values
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn put(&mut self, id: ClientInstance, client: &Client, values: Vec<Value>) {
        for value in values {
            let name = (metric_name(&value.name, value.kind), value.kind);
            let key = Key { client: id, labels: labels(client, &value.attributes) };
            if let Some(known) = self.families.get_mut(&name).and_then(|family| family.get_mut(&key)) {
                *known = if value.delta { *known + value.number } else { value.number };
                continue;
            }
            let count = self.counts.entry(id).or_default();
            let bytes = key.bytes();
            if *count >= CLIENT_VALUES_MAX || self.bytes + bytes > BYTES_MAX {
                self.dropped += 1;
                continue;
            }
            *count += 1;
            self.values += 1;
            self.bytes += bytes;
            self.families.entry(name).or_default().insert(key, value.number);
        }
    }

    /// Forgets everything of one client.
    pub fn forget(&mut self, id: &ClientInstance) {
        if self.counts.remove(id).is_none() {
            return;
        }
        let (mut bytes, mut values) = (0, 0);
        self.families.retain(|_, family| {
            // The keys of one client stand together.
            let first = Key { client: *id, labels: Vec::new() };
            let own: Vec<Key> =
                family.range(first..).map(|(key, _)| key).take_while(|k| k.client == *id).cloned().collect();
            for key in own {
                bytes += key.bytes();
                values += 1;
                family.remove(&key);
            }
            !family.is_empty()
        });
        self.bytes = self.bytes.saturating_sub(bytes);
        self.values = self.values.saturating_sub(values);
    }
}

/// Letters, digits and underscores in lower case, as Prometheus wants it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// A counter's name ends in `_total` and a gauge's does not, so that no name is of two kinds.
fn metric_name(name: &str, kind: Kind) -> String {
    let name = format!("casemate_client_{}", plain(name));
    match (kind, name.ends_with("_total")) {
        (Kind::Counter, false) => name + "_total",
        (Kind::Gauge, true) => name + "_now",
        (Kind::Counter, true) | (Kind::Gauge, false) => name,
    }
}

/// What is known of the client, then what it says itself, which cannot replace the former. Sorted, each name once.
fn labels(client: &Client, attributes: &[(String, String)]) -> Vec<(String, String)> {
    let known = [
        ("client_instance_id", Some(&client.instance)),
        ("client_id", Some(&client.client_id)),
        ("client_software_name", client.software_name.as_ref()),
        ("client_software_version", client.software_version.as_ref()),
        ("client_source_address", Some(&client.address)),
    ];
    let mut labels: BTreeMap<String, String> = attributes
        .iter()
        .map(|(name, value)| {
            let name = plain(name);
            let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
            (if starts_well { name } else { format!("x_{name}") }, value.clone())
        })
        .collect();
    for (name, value) in known {
        match value {
            Some(value) => drop(labels.insert(name.to_owned(), value.chars().take(256).collect())),
            None => drop(labels.remove(name)),
        }
    }
    labels.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, number: f64, kind: Kind, delta: bool, attributes: &[(&str, &str)]) -> Value {
        let attributes = attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Value { name: name.to_owned(), kind, delta, attributes, number }
    }

    #[test]
    fn a_name_is_of_one_kind() {
        let names = [("a", Kind::Gauge), ("a", Kind::Counter), ("a.Total", Kind::Gauge), ("a.total", Kind::Counter)];
        let names = names.map(|(name, kind)| metric_name(name, kind).replace("casemate_client_", ""));
        assert_eq!(names, ["a", "a_total", "a_total_now", "a_total"]);
    }

    fn shown(store: &Store) -> Vec<(String, f64)> {
        store.families().iter().flat_map(|((name, _), f)| f.values().map(|v| (name.clone(), *v))).collect()
    }

    #[test]
    fn differences_add_up_and_totals_replace() {
        let (mut store, client) = (Store::default(), Client::default());
        for _ in 0..3 {
            store.put(
                [9; 16],
                &client,
                vec![
                    value("a.total", 2.0, Kind::Counter, true, &[]),
                    value("a.rate", 5.0, Kind::Gauge, false, &[("node.id", "1")]),
                ],
            );
        }
        let expected = [("casemate_client_a_rate".to_owned(), 5.0), ("casemate_client_a_total".to_owned(), 6.0)];
        assert_eq!(shown(&store), expected);
        store.put([8; 16], &client, vec![value("a.total", 1.0, Kind::Counter, true, &[])]);
        assert_eq!(store.len(), 3);
        store.forget(&[9; 16]);
        assert_eq!(shown(&store), [("casemate_client_a_total".to_owned(), 1.0)]);
        store.forget(&[8; 16]);
        assert_eq!((store.len(), store.bytes, store.families.len()), (0, 0, 0));
    }

    #[test]
    fn labels_are_plain_and_a_client_cannot_take_another_ones() {
        let client = Client { client_id: "me".to_owned(), ..Client::default() };
        let attributes = [("client_id", "you"), ("Node.Id", "1"), ("9", "x"), ("client_software_name", "fake")];
        let attributes: Vec<_> = attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let labels = labels(&client, &attributes);
        let names: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("client_id", "me"),
            ("client_instance_id", ""),
            ("client_source_address", ""),
            ("node_id", "1"),
            ("x_9", "x"),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn one_client_and_all_together_take_bounded_memory() {
        let (mut store, client) = (Store::default(), Client::default());
        for n in 0..3 * CLIENT_VALUES_MAX {
            store.put([9; 16], &client, vec![value(&n.to_string(), 1.0, Kind::Gauge, false, &[])]);
        }
        assert_eq!((store.len(), store.dropped()), (CLIENT_VALUES_MAX, 2 * CLIENT_VALUES_MAX as u64));
        let long = "x".repeat(4_000);
        for n in 0..20_000u32 {
            let mut id = [1; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            store.put(id, &client, vec![value("m", 1.0, Kind::Gauge, false, &[("k", &long)])]);
        }
        assert!(store.bytes <= BYTES_MAX);
        assert!(store.dropped() > 10_000);
    }
}
