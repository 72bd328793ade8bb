//! Puts, reads and deletes over the nodes' copies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::base::NodeId;
use crate::env::{Clock, Entropy};
use crate::object::{LocalError, LocalStore, SharedError, SharedStore, Shelf, StoredKey, Sums};

use super::placement::{copies, missing_quorum, order, write_quorum};
use super::remote::{Remote, RemoteError};
use super::service::StoreService;
use super::status::{Counters, Status};
use super::transport::Transport;

/// Damaged copies that are remembered at a time.
const SUSPECTS_MAX: usize = 10_000;
/// A node that was late is not waited for during this time, where others suffice.
const LATE_FOR: Duration = Duration::from_secs(10);

/// Pace of the work in the background.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a put that counts waits for the copies that are left.
    pub put_grace: Duration,
    /// Bytes per second of copies that are fetched in the background.
    pub repair_bytes_per_second: u64,
    /// Bytes per second that are read and checked in the background.
    pub scrub_bytes_per_second: u64,
    /// From the end of one round over all own copies to the next.
    pub scrub_every: Duration,
    /// Between two comparisons with the other nodes, when copies are owed and when none are.
    pub compare_soon: Duration,
    pub compare_every: Duration,
    /// An unknown copy is not removed before it is so old.
    pub removal_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Options {
            put_grace: Duration::from_millis(500),
            repair_bytes_per_second: 64 * MIB,
            scrub_bytes_per_second: 8 * MIB,
            scrub_every: Duration::from_secs(24 * 3600),
            compare_soon: Duration::from_secs(5),
            compare_every: Duration::from_secs(300),
            removal_grace: Duration::from_secs(3600),
        }
    }
}

/// What the store is made of.
pub struct Parts {
    pub node: NodeId,
    pub local: Arc<LocalStore>,
    /// Joined nodes with this one among them; empty while they are not known.
    pub nodes: watch::Receiver<Vec<NodeId>>,
    pub transport: Arc<dyn Transport>,
    pub options: Options,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// The store; see the module above.
pub struct Bundled {
    pub(super) node: NodeId,
    pub(super) local: Arc<LocalStore>,
    pub(super) nodes: watch::Receiver<Vec<NodeId>>,
    transport: Arc<dyn Transport>,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(super) service: Arc<StoreService>,
    pub(super) counters: Counters,
    /// Puts since the last comparison that counted with fewer copies than they should have.
    pub(super) owed: AtomicU64,
    pub(super) compared: Mutex<Compared>,
    pub(super) suspects: Mutex<BTreeSet<StoredKey>>,
    /// Something is to be compared or put right soon.
    pub(super) wake: Notify,
    late: Mutex<HashMap<NodeId, Instant>>,
    #[cfg(test)]
    pub(super) plant_quorum: std::sync::atomic::AtomicUsize,
}

/// The last comparison.
#[derive(Default)]
pub(super) struct Compared {
    pub nodes: Vec<NodeId>,
    pub all_answered: bool,
    pub debt: u64,
}

/// What became of one copy of a put.
type Copied = (NodeId, Result<(), CopyError>);

enum CopyError {
    Local(LocalError),
    Remote(RemoteError),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    let interrupted = || LocalError::Io { path: "the folder".into(), source: std::io::ErrorKind::Interrupted.into() };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(interrupted()))
}

impl Bundled {
    pub fn new(parts: Parts) -> Arc<Bundled> {
        let Parts { node, local, nodes, transport, options, clock, entropy } = parts;
        let service = Arc::new(StoreService::new(local.clone()));
        Arc::new(Bundled {
            node,
            local,
            nodes,
            transport,
            options,
            clock,
            entropy,
            service,
            counters: Counters::default(),
            owed: AtomicU64::new(0),
            compared: Mutex::default(),
            suspects: Mutex::default(),
            wake: Notify::new(),
            late: Mutex::default(),
            #[cfg(test)]
            plant_quorum: Default::default(),
        })
    }

    /// Answers other nodes, for [`crate::peer::kind::STORE`].
    pub fn service(&self) -> Arc<StoreService> {
        self.service.clone()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn status(&self) -> Status {
        let nodes = self.nodes();
        let compared = locked(&self.compared);
        Status {
            nodes: nodes.len(),
            copies: copies(nodes.len()),
            debt: compared.debt + self.owed.load(Relaxed),
            compared: compared.all_answered && compared.nodes == nodes,
            complete: self.local.is_complete(),
            suspects: locked(&self.suspects).len(),
        }
    }

    /// Why a sync of this node's folder failed, once one has, even one for another node: the process must end.
    pub fn fenced(&self) -> Option<Arc<str>> {
        self.local.fenced()
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.nodes.borrow().clone()
    }

    pub(super) fn remote(&self, node: NodeId) -> Remote {
        Remote { node, transport: self.transport.clone() }
    }

    fn upload_number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn quorum(&self, nodes: usize) -> usize {
        #[cfg(test)]
        if let planted @ 1.. = self.plant_quorum.load(Relaxed) {
            return planted;
        }
        write_quorum(nodes)
    }

    fn is_late(&self, node: NodeId) -> bool {
        locked(&self.late).get(&node).is_some_and(|since| since.elapsed() < LATE_FOR)
    }

    fn was_late(&self, node: NodeId) {
        locked(&self.late).insert(node, Instant::now());
    }

    /// A damaged own copy, to be put right by the work in the background.
    pub(super) fn suspect(&self, key: StoredKey) {
        let mut suspects = locked(&self.suspects);
        if suspects.len() < SUSPECTS_MAX && suspects.insert(key) {
            self.counters.damaged.fetch_add(1, Relaxed);
            tracing::error!(%key, "this node's copy is damaged; it is fetched from another node");
            self.wake.notify_one();
        }
    }

    /// Starts a copy of its own, which goes on whether or not anybody waits for it.
    fn copy(&self, node: NodeId, key: StoredKey, pieces: &Arc<Vec<Bytes>>, sums: &Arc<Sums>) -> JoinHandle<Copied> {
        let (pieces, sums) = (pieces.clone(), sums.clone());
        if node == self.node {
            let local = self.local.clone();
            return tokio::spawn(async move {
                let put = blocking(move || local.put(key, &pieces, &sums)).await;
                (node, put.map_err(CopyError::Local))
            });
        }
        let (remote, upload) = (self.remote(node), self.upload_number());
        tokio::spawn(async move { (node, remote.put(upload, key, &pieces, &sums).await.map_err(CopyError::Remote)) })
    }

    async fn put_all(&self, key: StoredKey, pieces: Vec<Bytes>) -> Result<(), SharedError> {
        let nodes = self.nodes();
        if nodes.is_empty() {
            return Err(SharedError::Away("the nodes of the cluster are not known yet".to_owned()));
        }
        let (aim, quorum) = (copies(nodes.len()), self.quorum(nodes.len()));
        let pieces = Arc::new(pieces);
        let summed = pieces.clone();
        let sums = blocking(move || Ok(Sums::of(&summed))).await.map_err(|e| SharedError::Away(e.to_string()))?;
        let (sums, mut candidates) = (Arc::new(sums), order(key, &nodes).into_iter());
        let mut running: FuturesUnordered<_> =
            candidates.by_ref().take(aim).map(|node| self.copy(node, key, &pieces, &sums)).collect();
        let mut waiting: BTreeSet<NodeId> = order(key, &nodes).into_iter().take(aim).collect();
        let (mut stored, mut full, mut reasons) = (0, None, Vec::new());
        let mut grace = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        let mut graced = false;
        while stored < aim && !(stored >= quorum && waiting.iter().all(|node| self.is_late(*node))) {
            let (node, copied) = tokio::select! {
                done = running.next() => match done {
                    None => break,
                    Some(Ok(copied)) => copied,
                    Some(Err(_)) => continue,
                },
                () = &mut grace, if graced => {
                    waiting.iter().for_each(|node| self.was_late(*node));
                    break;
                }
            };
            waiting.remove(&node);
            match copied {
                Ok(()) => stored += 1,
                Err(CopyError::Local(LocalError::Fenced(reason))) => return Err(SharedError::Fenced(reason)),
                Err(CopyError::Local(LocalError::Exists) | CopyError::Remote(RemoteError::Exists)) => {
                    // The other copies are refused as well; none is left under way to meet a deletion that follows.
                    let rest = async { while running.next().await.is_some() {} };
                    let _ = tokio::time::timeout(self.options.put_grace, rest).await;
                    return Err(SharedError::Exists);
                }
                Err(error) => {
                    let (is_full, reason) = describe(node, error);
                    if is_full {
                        full = Some(reason.clone());
                    }
                    reasons.push(reason);
                    // Another node stands in, where there is one, until the right one is back.
                    if let Some(instead) = candidates.next() {
                        waiting.insert(instead);
                        running.push(self.copy(instead, key, &pieces, &sums));
                    }
                }
            }
            if stored >= quorum && !graced {
                graced = true;
                grace.as_mut().reset(Instant::now() + self.options.put_grace);
            }
        }
        self.count(key, stored, aim, quorum, full, reasons)
    }

    /// Whether a put with so many copies counts.
    fn count(
        &self,
        key: StoredKey,
        stored: usize,
        aim: usize,
        quorum: usize,
        full: Option<String>,
        reasons: Vec<String>,
    ) -> Result<(), SharedError> {
        if stored >= aim && reasons.is_empty() {
            return Ok(());
        }
        if stored >= quorum {
            // A stand-in's copy counts for the put, and not as one where it belongs.
            self.counters.short_puts.fetch_add(1, Relaxed);
            self.owed.fetch_add(1, Relaxed);
            self.wake.notify_one();
            tracing::debug!(%key, stored, aim, ?reasons, "stored with fewer copies than it should have");
            return Ok(());
        }
        match full {
            Some(reason) => Err(SharedError::Full(reason)),
            None => Err(SharedError::Away(format!("{stored} of {quorum} copies were made: {}", reasons.join("; ")))),
        }
    }

    /// Asks this node and then the others, one after the other, until one has what is asked for.
    async fn first<T, L, R>(&self, key: StoredKey, local: L, remote: impl Fn(Remote) -> R) -> Result<T, SharedError>
    where
        T: Send + 'static,
        L: FnOnce(&LocalStore) -> Result<T, LocalError> + Send + 'static,
        R: Future<Output = Result<T, RemoteError>>,
    {
        let own = self.local.clone();
        let (mut missing, mut reasons) = (0, Vec::new());
        let nodes = self.nodes();
        match blocking(move || local(&own)).await {
            Ok(found) => return Ok(found),
            Err(LocalError::Short(bytes)) => return Err(SharedError::Short(bytes)),
            Err(LocalError::Missing) if nodes.contains(&self.node) && self.local.is_complete() => missing += 1,
            Err(LocalError::Missing) => {}
            Err(error) => {
                if matches!(error, LocalError::Damaged) {
                    self.suspect(key);
                }
                reasons.push(format!("this node: {error}"));
            }
        }
        // Late nodes last.
        let mut others = order(key, &nodes);
        others.retain(|node| *node != self.node);
        others.sort_by_key(|node| self.is_late(*node));
        for node in others {
            if missing >= missing_quorum(nodes.len()) {
                break;
            }
            match remote(self.remote(node)).await {
                Ok(found) => {
                    self.counters.remote_reads.fetch_add(1, Relaxed);
                    return Ok(found);
                }
                Err(RemoteError::Short(bytes)) => return Err(SharedError::Short(bytes)),
                Err(RemoteError::Missing { complete: true }) => missing += 1,
                Err(RemoteError::Missing { complete: false }) => {
                    reasons.push(format!("node {node} has not fetched its copies yet"));
                }
                Err(error) => {
                    if matches!(error, RemoteError::Away(_)) {
                        self.was_late(node);
                    }
                    reasons.push(format!("node {node}: {error}"));
                }
            }
        }
        match missing >= missing_quorum(nodes.len()) && !nodes.is_empty() {
            true => Err(SharedError::Missing),
            false => Err(SharedError::Away(format!("no whole copy of {key} can be had: {}", reasons.join("; ")))),
        }
    }

    async fn delete_all(&self, key: StoredKey) -> Result<(), SharedError> {
        locked(&self.suspects).remove(&key);
        let local = self.local.clone();
        let mut others: FuturesUnordered<_> = self
            .nodes()
            .into_iter()
            .filter(|node| *node != self.node)
            .map(|node| {
                let remote = self.remote(node);
                async move { remote.delete(key).await }
            })
            .collect();
        let others = async {
            while let Some(deleted) = others.next().await {
                // What a node keeps that was away, it removes itself: the metadata do not know it.
                if let Err(error) = deleted {
                    tracing::debug!(%key, %error, "a copy could not be deleted now");
                }
            }
        };
        let (own, ()) = tokio::join!(blocking(move || local.delete(key)), others);
        match own {
            Ok(_) | Err(LocalError::Missing) => Ok(()),
            Err(LocalError::Fenced(reason)) => Err(SharedError::Fenced(reason)),
            Err(error) => Err(SharedError::Away(error.to_string())),
        }
    }

    async fn all_snapshots(&self) -> Result<Vec<(StoredKey, u64)>, SharedError> {
        let (local, nodes) = (self.local.clone(), self.nodes());
        let own = blocking(move || local.list(Shelf::Snapshots, None, usize::MAX)).await;
        let (own, _) = own.map_err(|error| SharedError::Away(error.to_string()))?;
        let mut found: BTreeMap<StoredKey, u64> = own.into_iter().map(|copy| (copy.key, copy.bytes)).collect();
        let mut answered = usize::from(nodes.is_empty() || self.local.is_complete());
        let mut reasons = Vec::new();
        for node in nodes.iter().filter(|node| **node != self.node) {
            match self.remote(*node).list(Shelf::Snapshots).await {
                Ok((copies, complete)) => {
                    answered += usize::from(complete);
                    found.extend(copies.into_iter().map(|copy| (copy.key, copy.bytes)));
                }
                Err(error) => reasons.push(format!("node {node}: {error}")),
            }
        }
        match answered >= missing_quorum(nodes.len()) {
            true => Ok(found.into_iter().collect()),
            false => Err(SharedError::Away(format!("too few nodes list their snapshots: {}", reasons.join("; ")))),
        }
    }
}

/// Whether a disk is full, and the reason in words.
fn describe(node: NodeId, error: CopyError) -> (bool, String) {
    match error {
        CopyError::Local(error) => (error.is_full(), format!("this node: {error}")),
        CopyError::Remote(error) => (matches!(error, RemoteError::Full(_)), format!("node {node}: {error}")),
    }
}

impl fmt::Debug for Bundled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundled").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Display for Bundled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local.place())
    }
}

impl SharedStore for Bundled {
    fn is_alone(&self) -> bool {
        *self.nodes.borrow() == [self.node]
    }

    fn put(&self, key: StoredKey, pieces: Vec<Bytes>) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(self.put_all(key, pieces))
    }

    fn read(&self, key: StoredKey, range: Range<u64>) -> BoxFuture<'_, Result<(Bytes, u64), SharedError>> {
        let own = range.clone();
        Box::pin(self.first(
            key,
            move |local| local.read(key, own),
            move |remote| {
                let range = range.clone();
                async move { remote.read(key, range).await }
            },
        ))
    }

    fn bytes(&self, key: StoredKey) -> BoxFuture<'_, Result<u64, SharedError>> {
        Box::pin(self.first(key, move |local| local.bytes(key), move |remote| async move { remote.bytes(key).await }))
    }

    fn delete(&self, key: StoredKey) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(self.delete_all(key))
    }

    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<(StoredKey, u64)>, SharedError>> {
        Box::pin(self.all_snapshots())
    }
}
