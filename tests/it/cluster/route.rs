//! The way of a client to whoever leads a partition, or coordinates, in a cluster over mutual TLS.

use super::super::client::{Client, text};
use super::super::load::{self, Way};
use super::super::oracle::Rng;
use super::super::transfers::{self, Bank};
use kafka_protocol::messages::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

/// Asking a node costs no more than this; a node that is cut off says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where clients begin.
pub struct Route {
    seeds: Vec<SocketAddr>,
    tls: rustls::ClientConfig,
    rng: Mutex<Rng>,
    /// The seed that is asked first; none: a random one each time.
    first: Option<usize>,
}

/// Who leads the partitions of a topic, as a node says.
pub struct Leaders {
    pub topic_id: uuid::Uuid,
    pub of: BTreeMap<i32, SocketAddr>,
}

impl Route {
    pub fn new(seeds: Vec<SocketAddr>, tls: rustls::ClientConfig, seed: u64) -> Route {
        Route { seeds, tls, rng: Mutex::new(Rng(seed)), first: None }
    }

    /// The same way for a client that asks the node at this place of the list first, and others where it does not answer.
    pub fn beginning_at(&self, first: usize) -> Route {
        Route { seeds: self.seeds.clone(), tls: self.tls.clone(), rng: Mutex::new(Rng(0)), first: Some(first) }
    }

    pub fn connect(&self, address: SocketAddr) -> Option<Client> {
        let client = Client::connect_tls(address, self.tls.clone()).ok()?;
        client.set_timeout(PATIENCE).ok()?;
        Some(client)
    }

    /// Any node that answers, the first seed or a random one first.
    pub fn any(&self) -> Option<Client> {
        let first = self.first.unwrap_or_else(|| self.rng.lock().expect("no holder panics").next() as usize);
        (0..self.seeds.len()).find_map(|n| {
            let mut client = self.connect(self.seeds[(first + n) % self.seeds.len()])?;
            client.api_versions().ok()?;
            Some(client)
        })
    }

    pub fn leader_of(&self, topic: &str, partition: i32) -> Option<Client> {
        self.connect(*self.leaders(topic)?.of.get(&partition)?)
    }

    pub fn leaders(&self, topic: &str) -> Option<Leaders> {
        let metadata = self.any()?.metadata(&[topic]).ok()?;
        let topic = metadata.topics.first().filter(|topic| topic.error_code == 0)?;
        let of = topic.partitions.iter().filter_map(|p| {
            let broker = metadata.brokers.iter().find(|broker| broker.node_id == p.leader_id)?;
            Some((p.partition_index, format!("{}:{}", &*broker.host, broker.port).parse().ok()?))
        });
        Some(Leaders { topic_id: topic.topic_id, of: of.collect() })
    }

    /// `kind`: 0 of a group, 1 of a transactional id.
    pub fn coordinator_of(&self, kind: i8, key: &str) -> Option<Client> {
        let find = FindCoordinatorRequest::default().with_key_type(kind).with_key(text(key));
        let found = self.any()?.call(3, &find).ok()?;
        if found.error_code != 0 {
            return None;
        }
        self.connect(format!("{}:{}", &*found.host, found.port).parse().ok()?)
    }
}

impl Way for Route {
    fn connect(&self, partition: i32) -> Option<Client> {
        self.leader_of(load::TOPIC, partition)
    }
}

impl Bank for Route {
    fn coordinator(&self, transactional_id: &str) -> Option<Client> {
        self.coordinator_of(1, transactional_id)
    }

    fn leader(&self, partition: i32) -> Option<Client> {
        self.leader_of(transfers::TOPIC, partition)
    }
}
