//! Opens storage and metadata and puts the broker together.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::base::ClusterId;
use crate::broker::{self, Broker, BrokerParts, HostHoldings, JoinParts, Registry};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::env::{Clock, Disk, Entropy, RealDisk};
use crate::ledger;
use crate::metadata::{Endpoint, Reject};
use crate::object::Objects;
use crate::quorum::{self, Quorum, QuorumOptions};
use crate::security::{self, NodeTls};
use crate::store::Bundled;
use crate::wal::{OpenError, Wal};
use tokio_rustls::TlsConnector;

use super::bundled::{self, Bundle};
use super::control::Control;
use super::forming::{self, Folder};
use super::{Error, services};

/// How long a first start waits for object storage.
const BUCKET_WAIT: Duration = Duration::from_secs(5);

/// The opened parts that outlive the broker's methods.
pub(super) struct Opened {
    pub broker: Arc<Broker>,
    pub quorum: Arc<Quorum>,
    pub wal: Arc<Wal>,
    pub objects: Arc<Objects>,
    /// Where the nodes keep the objects themselves.
    pub bundled: Option<Arc<Bundled>>,
    pub cluster: Arc<Cluster>,
}

/// This node's place on the peer plane.
pub(super) struct Place {
    pub tls: Arc<NodeTls>,
    /// What other nodes are told; none for a node that has no place among others.
    pub told: Option<Endpoint>,
    /// Taken when the listener begins to answer.
    pub socket: Mutex<Option<TcpListener>>,
    /// Turns true when this node has no more to say to others.
    pub stop: watch::Sender<bool>,
}

impl Place {
    /// Others are answered from now on.
    fn listen(&self, cluster: &Cluster) {
        if let Some(socket) = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(cluster.server(socket).run(self.stop.subscribe()));
        }
    }
}

/// Why the broker did not join.
fn join_error(error: broker::StartError) -> Error {
    match error {
        broker::StartError::Rejected(reject @ (Reject::Fenced { .. } | Reject::StaleBrokerEpoch { .. })) => {
            Error::Fenced(reject.to_string())
        }
        error => storage(error),
    }
}

fn storage(error: impl std::fmt::Display) -> Error {
    Error::Storage(error.to_string())
}

/// How the system says that a disk is full; RocksDB passes the words on, and nothing else.
const NO_SPACE: &str = "No space left on device";

/// Why the metadata cannot be opened. Another node's are a mistake in the configuration, as another cluster's are.
fn metadata_error(config: &Config, error: quorum::StartError) -> Error {
    match error {
        quorum::StartError::OtherNode { .. } => Error::Configuration(error.to_string()),
        error if error.to_string().contains(NO_SPACE) => {
            let dir = config.data_dir.display();
            Error::Storage(format!("{error}; the disk of {dir} is full: free space there"))
        }
        error => storage(error),
    }
}

/// Why the WAL cannot be opened, with the folder in which its files are and what helps there.
fn wal_error(dir: &Path, error: broker::StartError) -> Error {
    let broker::StartError::Wal(OpenError::Io { file, source }) = &error else { return storage(error) };
    let remedy = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space there, or set a smaller wal.budget_bytes, and wal.segment_bytes if not even one segment fits"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let this user write there (check mount, owner and mode)"
        }
        _ => return Error::Storage(format!("cannot use {file} in {}: {source}", dir.display())),
    };
    Error::Storage(format!("cannot use {file} in {}: {source}: {remedy}", dir.display()))
}

pub(super) async fn open(
    config: &Config,
    place: &Place,
    endpoints: Vec<Endpoint>,
    static_settings: BTreeMap<String, String>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Opened, Error> {
    let (objects, bundle) = open_objects(config, clock.clone(), entropy.clone()).await?;
    let (cluster, quorum) = open_quorum(config, place, &objects, bundle.as_ref(), &clock, entropy.clone()).await?;
    let bundled = bundle.map(|bundle| bundle.follow(&quorum));
    let memory = config.options.wal.memory_bytes;
    let registry = Arc::new(Registry::new(memory, config.options.objects.upload_bytes, clock.clone()));

    let image = quorum.image().borrow().clone();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.data_dir));
    let (wal_options, node) = (config.wal_options(), config.node);
    let (for_wal, wal_entropy, wal_image) = (registry.clone(), entropy.clone(), image.clone());
    let mut opened =
        tokio::task::spawn_blocking(move || broker::open_wal(disk, &*wal_entropy, wal_options, &wal_image, for_wal))
            .await
            .map_err(storage)?
            .map_err(|error| wal_error(&config.data_dir, error))?;
    let wal = opened.wal.clone();
    services::of_ledgers(&cluster, &opened.hosted);

    let control = Control::new(&cluster, &quorum, &clock);
    control.ask(config, &cluster, &wal, &registry);
    let join = JoinParts {
        quorum: &quorum,
        node,
        opened: &mut opened,
        registry: &registry,
        peers: Some(cluster.peers.clone()),
        endpoints,
        copies: ledger::REPLICAS_WANTED,
        clock: &*clock,
        registered: &|epoch, recovery| control.registered(epoch, recovery),
    };
    let joined = broker::join(join).await.map_err(join_error)?;
    let image = quorum.image().borrow().clone();
    let place = (config.node, joined.epoch);
    let peers = Some(cluster.peers.clone());
    let holdings = Arc::new(HostHoldings::new(joined.host.clone(), peers));
    broker::open_partitions(&registry, place, &image, &*holdings, clock.wall_ms()).map_err(storage)?;
    if let Some(torn) = &opened.report.torn {
        tracing::warn!(?torn, "the WAL ended in a torn tail; what was cut is kept in quarantine");
    }
    let parts = BrokerParts {
        options: config.broker_options(),
        node: config.node,
        static_settings,
        quorum: quorum.clone(),
        objects: objects.clone(),
        wal: wal.clone(),
        registry,
        holdings,
        joined,
        lease: control.lease.clone(),
        clock,
        entropy,
    };
    let broker = Broker::new(parts);
    services::of_broker(&cluster, &broker);
    Ok(Opened { broker, quorum, wal, objects, bundled, cluster })
}

/// Opens the metadata, lets others reach them, and waits until they are up to date.
async fn open_quorum(
    config: &Config,
    place: &Place,
    objects: &Objects,
    bundle: Option<&Bundle>,
    clock: &Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<Cluster>, Arc<Quorum>), Error> {
    let dir = config.data_dir.join("metadata");
    let folder = Folder::read(config)?;
    let cluster = forming::plane(config, &folder, place.tls.clone(), clock.clone(), entropy.clone());
    let options = QuorumOptions { dir, node: config.node, create: folder.create };
    let quorum = Quorum::open(options, cluster.transport(), entropy).await;
    let quorum = quorum.map_err(|error| metadata_error(config, error))?;
    cluster.acquaintances.take(&quorum.image().borrow().nodes);
    tokio::spawn(cluster.acquaintances.clone().follow(quorum.image()));
    services::of_quorum(config, &cluster, &quorum, clock);
    if let Some(bundle) = bundle {
        bundle.connect(&cluster);
    }
    place.listen(&cluster);
    forming::take_part(config, folder, &cluster, &quorum).await?;
    let known = forming::known_cluster(&quorum);
    if known != config.cluster {
        if known == ClusterId::default() {
            refuse_known_bucket(config, objects).await?;
        }
        forming::name_cluster(config, &quorum).await?;
    }
    forming::record_self(config, &quorum, place.told.clone(), place.tls.subject(), clock.wall_ms()).await?;
    Ok((cluster, quorum))
}

/// New metadata beside a bucket that this cluster has written to would give its object ids out again.
async fn refuse_known_bucket(config: &Config, objects: &Objects) -> Result<(), Error> {
    match tokio::time::timeout(BUCKET_WAIT, objects.latest_snapshot()).await {
        Ok(Ok(Some(_))) => Err(Error::Storage(format!(
            "object storage holds data of cluster {} but the folder metadata in {} is empty: put that folder back, or use \
             another place for the objects of a new cluster",
            config.cluster,
            config.data_dir.display()
        ))),
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "object storage could not be asked whether it knows this cluster");
            Ok(())
        }
        Err(_) => {
            tracing::warn!("object storage did not answer whether it knows this cluster");
            Ok(())
        }
    }
}

pub(super) fn is_empty(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

async fn open_objects(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<Objects>, Option<Bundle>), Error> {
    let (folder, folder_clock, folder_entropy) = (config.clone(), clock.clone(), entropy.clone());
    let opened = tokio::task::spawn_blocking(move || bundled::open(&folder, folder_clock, folder_entropy)).await;
    if let Some((objects, bundle)) = opened.map_err(storage)?.map_err(|e| Error::Configuration(e.to_string()))? {
        return Ok((objects, Some(bundle)));
    }
    let objects = &config.options.objects;
    let tls = match config.path(&objects.ca_file) {
        None => None,
        Some(ca) => {
            let identity = config.object_identity();
            let client = security::client_config(&ca, identity.as_ref(), clock.clone())
                .map_err(|e| Error::Configuration(format!("objects.ca_file: {e}")))?;
            Some(TlsConnector::from(client))
        }
    };
    let options = config.object_options();
    let cluster = config.cluster;
    tokio::task::spawn_blocking(move || Objects::open(&options, cluster, tls, clock, entropy))
        .await
        .map_err(storage)?
        .map(|objects| (objects, None))
        .map_err(|e| Error::Configuration(e.to_string()))
}
