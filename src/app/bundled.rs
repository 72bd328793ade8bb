//! The bundled store in this process: opened with the folder, joined to the other nodes once they are known, told by the
//! metadata what lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{Health, MetricsWriter};
use crate::base::{NodeId, ObjectId};
use crate::broker::Broker;
use crate::cluster::{self, Cluster};
use crate::config::Config;
use crate::env::{Clock, Entropy};
use crate::metadata::{Image, ObjectState};
use crate::object::{LocalStore, Objects, OpenError, Place};
use crate::peer::kind;
use crate::quorum::Quorum;
use crate::store::{Bundled, Life, Living, Options, Parts, PeerTransport};

/// How often it is looked whether a write for another node has fenced the folder, and whether copies are owed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The store before its nodes are known.
pub(super) struct Bundle {
    pub store: Arc<Bundled>,
    transport: Arc<PeerTransport>,
    nodes: watch::Sender<Vec<NodeId>>,
}

/// Opens objects in a folder of this node, which others may keep copies of. None where they are elsewhere, or where this
/// node can have no others. Blocks on file I/O.
pub(super) fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Option<(Arc<Objects>, Bundle)>, OpenError> {
    let options = config.object_options();
    let Place::Folder(folder) = &options.place else { return Ok(None) };
    if config.peer.is_none() {
        return Ok(None);
    }
    let local = LocalStore::open(folder, config.cluster)?;
    let (nodes, known) = watch::channel(Vec::new());
    let transport = Arc::new(PeerTransport::default());
    let store = Bundled::new(Parts {
        node: config.node,
        local: local.clone(),
        nodes: known,
        transport: transport.clone(),
        options: Options::default(),
        clock: clock.clone(),
        entropy: entropy.clone(),
    });
    let objects = Objects::open_shared(&options, config.cluster, &local, store.clone(), clock, entropy);
    Ok(Some((objects, Bundle { store, transport, nodes })))
}

impl Bundle {
    /// Others are answered, and can be asked, from now on.
    pub fn connect(&self, cluster: &Cluster) {
        self.transport.connect(cluster.peers.clone());
        cluster.bulk.add(kind::STORE, self.store.service());
    }

    /// Follows the metadata, which are up to date, from now on: before, nothing can be stored.
    pub fn follow(self, quorum: &Quorum) -> Arc<Bundled> {
        let Bundle { store, nodes, .. } = self;
        let (mut image, own) = (quorum.image(), quorum.owner().node);
        nodes.send_replace(members(&image.borrow_and_update(), own));
        tokio::spawn(async move {
            while image.changed().await.is_ok() {
                let now = members(&image.borrow_and_update(), own);
                nodes.send_if_modified(|nodes| std::mem::replace(nodes, now.clone()) != now);
            }
        });
        store
    }
}

/// The nodes that keep copies. A cluster without records is one node that has not recorded itself.
fn members(image: &Image, own: NodeId) -> Vec<NodeId> {
    let joined: Vec<_> = cluster::joined(image).into_iter().map(|known| known.node).collect();
    if joined.is_empty() { vec![own] } else { joined }
}

/// What the metadata say of objects.
struct Metadata(Arc<Quorum>);

impl Living for Metadata {
    fn judge(&self, objects: &[ObjectId]) -> Result<Vec<Life>, String> {
        // Before the index: what is older than this and not in it is gone, as ids are given out once and entered with it.
        let (next, index) = (self.0.image().borrow().next_object, self.0.index());
        let judge = |id: &ObjectId| match index.object(*id) {
            Ok(Some(entry)) => Ok(match entry.state {
                ObjectState::Prepared { .. } | ObjectState::Live => Life::Kept,
                ObjectState::Dropped { .. } | ObjectState::Aborted { .. } => Life::Unsure,
            }),
            Ok(None) if id.0 < next => Ok(Life::Dead),
            Ok(None) => Ok(Life::Unsure),
            Err(error) => Err(error.to_string()),
        };
        objects.iter().map(judge).collect()
    }
}

/// Repairs and checks in the background, and ends the process when the folder is fenced.
pub(super) fn spawn(
    store: &Arc<Bundled>,
    quorum: &Arc<Quorum>,
    broker: &Arc<Broker>,
    health: &Health,
    background: &mut JoinSet<()>,
) {
    background.spawn(store.clone().run(Arc::new(Metadata(quorum.clone()))));
    let (store, broker, health) = (store.clone(), broker.clone(), health.clone());
    background.spawn(async move {
        loop {
            if let Some(reason) = store.fenced() {
                broker.registry().fence(&reason);
                return;
            }
            health.trouble("copies", trouble(&store));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    });
}

fn trouble(store: &Bundled) -> Option<String> {
    let status = store.status();
    if status.suspects > 0 {
        return Some(format!("{} stored objects are damaged on this node's disk: see the log", status.suspects));
    }
    (status.nodes >= 2 && status.debt > 0)
        .then(|| format!("{} stored objects have fewer than {} copies", status.debt, status.copies))
}

pub(super) fn metrics(store: &Bundled, out: &mut MetricsWriter) {
    let (status, counters) = (store.status(), store.counters());
    for (name, help, value) in [
        ("casemate_store_nodes", "Nodes that keep copies of objects together.", status.nodes as u64),
        ("casemate_store_copies_owed", "Objects with fewer copies than they should have.", status.debt),
        ("casemate_store_damaged_copies", "Copies on this node that are damaged now.", status.suspects as u64),
        ("casemate_store_complete", "1 if this node has had every copy that belongs on it.", status.complete as u64),
        (
            "casemate_store_survives_one_loss",
            "1 if every stored object outlives the loss of any node.",
            status.survives_one_loss() as u64,
        ),
    ] {
        out.gauge(name, help, value);
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    for (name, help, value) in [
        ("casemate_store_short_puts_total", "Puts that counted before all copies were made.", &counters.short_puts),
        ("casemate_store_fetched_copies_total", "Copies fetched from other nodes.", &counters.fetched),
        ("casemate_store_fetched_bytes_total", "Bytes of them.", &counters.fetched_bytes),
        ("casemate_store_remote_reads_total", "Reads that another node answered.", &counters.remote_reads),
        ("casemate_store_damaged_total", "Damaged copies found on this node.", &counters.damaged),
        ("casemate_store_restored_total", "Damaged copies put right.", &counters.restored),
        ("casemate_store_scrubbed_bytes_total", "Bytes of copies checked in the background.", &counters.scrubbed_bytes),
        ("casemate_store_removed_total", "Copies removed that the metadata do not know.", &counters.removed),
        ("casemate_store_passes_total", "Comparisons with the other nodes.", &counters.passes),
    ] {
        out.counter(name, help, read(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_records_is_one_node() {
        assert_eq!(members(&Image::default(), NodeId(4)), [NodeId(4)]);
    }
}
