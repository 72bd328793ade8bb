//! Nodes in one process, each with a folder of its own, over a network that can be cut, slowed and made to lie.

mod faults;
mod growth;
mod requests;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::*;
use crate::base::{NodeId, ObjectId};
use crate::env::{Clock, SeededEntropy};
use crate::object::testing::{CLUSTER, batches, bundle, key, options, read_all};
use crate::object::{Built, LocalStore, Objects, Place, SharedError, SharedStore, StoredKey};

/// Far later than any file of a test is old.
struct LateClock(AtomicI64);

impl Clock for LateClock {
    fn wall_ms(&self) -> i64 {
        crate::env::SystemClock.wall_ms() + self.0.load(Relaxed)
    }

    fn boottime(&self) -> Duration {
        crate::env::SystemClock.boottime()
    }
}

/// What the network does, shared by all nodes.
#[derive(Default)]
struct Net {
    services: Mutex<HashMap<NodeId, Arc<StoreService>>>,
    /// Refuses connections.
    down: Mutex<BTreeSet<NodeId>>,
    /// Takes requests and never answers.
    silent: Mutex<BTreeSet<NodeId>>,
}

struct Wire {
    from: NodeId,
    net: Arc<Net>,
}

impl Transport for Wire {
    fn call(&self, to: NodeId, ask: Vec<Bytes>, within: Duration) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let cut = |node| self.net.down.lock().unwrap().contains(&node);
            if cut(to) || cut(self.from) {
                return Err(format!("node {to} cannot be reached"));
            }
            if self.net.silent.lock().unwrap().contains(&to) {
                tokio::time::sleep(within).await;
                return Err(format!("node {to} did not answer within {within:?}"));
            }
            let service = self.net.services.lock().unwrap().get(&to).cloned();
            let service = service.ok_or_else(|| format!("node {to} has no address"))?;
            let told = service.answer(self.from, ask.concat().into()).await.map_err(|refused| refused.0)?;
            Ok(told.encode().concat().into())
        })
    }
}

/// What the metadata know.
#[derive(Default)]
struct Known(Mutex<BTreeSet<u64>>);

impl Living for Known {
    fn judge(&self, objects: &[ObjectId]) -> Result<Vec<Life>, String> {
        let known = self.0.lock().unwrap();
        Ok(objects.iter().map(|o| if known.contains(&o.0) { Life::Kept } else { Life::Dead }).collect())
    }
}

struct Node {
    store: Arc<Bundled>,
    objects: Arc<Objects>,
    nodes: watch::Sender<Vec<NodeId>>,
}

struct Site {
    folder: tempfile::TempDir,
    net: Arc<Net>,
    known: Arc<Known>,
    clock: Arc<LateClock>,
    nodes: Vec<Node>,
}

fn ids(count: usize) -> Vec<NodeId> {
    (1..=count as i32).map(NodeId).collect()
}

impl Site {
    /// So many nodes that have always been there.
    async fn new(count: usize) -> Site {
        let mut site = Site::empty();
        for node in ids(count) {
            site.add(node, ids(count));
        }
        for n in 0..count {
            site.compare(n).await;
        }
        site
    }

    fn empty() -> Site {
        Site {
            folder: tempfile::tempdir().unwrap(),
            net: Arc::default(),
            known: Arc::default(),
            clock: Arc::new(LateClock(AtomicI64::new(0))),
            nodes: Vec::new(),
        }
    }

    fn root(&self, node: NodeId) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    fn start(&self, node: NodeId, nodes: Vec<NodeId>) -> Node {
        let local = LocalStore::open(&self.root(node), CLUSTER).unwrap();
        let (sender, receiver) = watch::channel(nodes);
        let options = Options {
            put_grace: Duration::from_millis(50),
            repair_bytes_per_second: u64::MAX / 2000,
            scrub_bytes_per_second: u64::MAX / 2000,
            ..Options::default()
        };
        let store = Bundled::new(Parts {
            node,
            local: local.clone(),
            nodes: receiver,
            transport: Arc::new(Wire { from: node, net: self.net.clone() }),
            options,
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(node.0 as u64)),
        });
        self.net.services.lock().unwrap().insert(node, store.service());
        let objects = Objects::open_shared(
            &crate::object::ObjectOptions::at(Place::Folder(self.root(node))),
            CLUSTER,
            &local,
            store.clone(),
            self.clock.clone(),
            Arc::new(SeededEntropy::new(9)),
        );
        Node { store, objects, nodes: sender }
    }

    fn add(&mut self, node: NodeId, nodes: Vec<NodeId>) {
        let node = self.start(node, nodes);
        self.nodes.push(node);
    }

    /// A new process, with the folder as it is or with nothing.
    fn restart(&mut self, n: usize, wiped: bool) {
        let (node, nodes) = (self.nodes[n].store.node, self.nodes[n].nodes.borrow().clone());
        if wiped {
            std::fs::remove_dir_all(self.root(node)).unwrap();
        }
        self.nodes[n] = self.start(node, nodes);
    }

    fn down(&self, n: usize, down: bool) {
        let (node, mut all) = (self.nodes[n].store.node, self.net.down.lock().unwrap());
        if down {
            all.insert(node)
        } else {
            all.remove(&node)
        };
    }

    fn silent(&self, n: usize, silent: bool) {
        let (node, mut all) = (self.nodes[n].store.node, self.net.silent.lock().unwrap());
        if silent {
            all.insert(node)
        } else {
            all.remove(&node)
        };
    }

    fn objects(&self, n: usize) -> &Arc<Objects> {
        &self.nodes[n].objects
    }

    fn status(&self, n: usize) -> Status {
        self.nodes[n].store.status()
    }

    async fn compare(&self, n: usize) {
        let living: Arc<dyn Living> = self.known.clone();
        self.nodes[n].store.compare(&living).await;
    }

    async fn compare_all(&self) {
        for n in 0..self.nodes.len() {
            self.compare(n).await;
        }
    }

    /// Puts an object that the metadata know.
    async fn put(&self, n: usize, id: u64) -> (Built, Result<(), crate::object::StoreError>) {
        let built = bundle(id, &[batches(8, 40_000)]);
        self.known.0.lock().unwrap().insert(id);
        let put = self.objects(n).put(built.object, &built.pieces).await;
        (built, put)
    }

    /// The file of an object on a node.
    fn file(&self, n: usize, id: u64) -> PathBuf {
        self.root(self.nodes[n].store.node).join(key(id).as_ref())
    }

    fn holders(&self, id: u64) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.file(*n, id).exists()).collect()
    }

    fn rot(&self, n: usize, id: u64, at: usize) {
        let path = self.file(n, id);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// Reads an object by a reader that has nothing in memory.
    async fn assert_whole(&self, n: usize, built: &Built) {
        assert_eq!(read_all(&self.fresh(n), built, 0, 200_000).await.unwrap(), batches(8, 40_000));
    }

    /// Objects with empty caches.
    fn fresh(&self, n: usize) -> Arc<Objects> {
        let store = &self.nodes[n].store;
        let entropy = Arc::new(SeededEntropy::new(4));
        Objects::open_shared(&options(), CLUSTER, &store.local, store.clone(), self.clock.clone(), entropy)
    }
}
