//! Opens storage and metadata and puts the broker together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::{self, Broker, BrokerOptions, BrokerParts, Registry, StartError};
use crate::config::Config;
use crate::env::{Clock, Disk, Entropy, RealDisk};
use crate::metadata::{Command, Endpoint, Response};
use crate::object::{ObjectOptions, Objects};
use crate::quorum::{Quorum, QuorumOptions};
use crate::security::{self, ClientIdentity};
use crate::wal::{Wal, WalOptions};
use tokio_rustls::TlsConnector;

use super::Error;

/// Generation of a cluster that was never rebuilt.
const FIRST_GENERATION: u64 = 1;

/// The opened parts that outlive the broker's methods.
pub(super) struct Opened {
    pub broker: Arc<Broker>,
    pub quorum: Arc<Quorum>,
    pub wal: Arc<Wal>,
    pub objects: Arc<Objects>,
}

fn storage(error: impl std::fmt::Display) -> Error {
    Error::Storage(error.to_string())
}

pub(super) async fn open(
    config: &Config,
    endpoints: Vec<Endpoint>,
    static_settings: BTreeMap<String, String>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Opened, Error> {
    let quorum = open_quorum(config).await?;
    let objects = open_objects(config, clock.clone(), entropy.clone()).await?;
    let memory = config.options.wal.memory_bytes;
    let registry = Arc::new(Registry::new(memory, config.options.objects.upload_bytes, clock.clone()));

    let image = quorum.image().borrow().clone();
    let (disk, wal_options) = wal_parts(config)?;
    let (for_wal, wal_clock, wal_entropy, wal_image) =
        (registry.clone(), clock.clone(), entropy.clone(), image.clone());
    let opened = tokio::task::spawn_blocking(move || {
        broker::open_wal(disk, &*wal_entropy, &*wal_clock, wal_options, &wal_image, for_wal)
    })
    .await
    .map_err(storage)?
    .map_err(storage)?;
    let wal = opened.wal.clone();

    let joined = broker::join(&quorum, config.node, &wal, endpoints, &*clock).await.map_err(refused)?;
    let image = quorum.image().borrow().clone();
    let report = broker::open_partitions(&registry, config.node, &image, opened).map_err(storage)?;
    if let Some(torn) = &report.torn {
        tracing::warn!(?torn, "the WAL ended in a torn tail; what was cut is kept in quarantine");
    }
    let parts = BrokerParts {
        options: broker_options(config),
        node: config.node,
        static_settings,
        quorum: quorum.clone(),
        objects: objects.clone(),
        wal: wal.clone(),
        registry,
        joined,
        clock,
        entropy,
    };
    probe(objects.clone());
    Ok(Opened { broker: Broker::new(parts), quorum, wal, objects })
}

fn refused(error: StartError) -> Error {
    storage(error)
}

async fn open_quorum(config: &Config) -> Result<Arc<Quorum>, Error> {
    let dir = config.data_dir.join("metadata");
    // Metadata are made only together with the WAL: a folder that has one and not the other has lost something.
    let create = is_empty(&config.data_dir.join("wal"));
    let quorum = Quorum::start(QuorumOptions { dir, node: config.node, create }).await.map_err(storage)?;
    let init = Command::InitCluster { cluster: config.cluster, generation: FIRST_GENERATION };
    let known = quorum.image().borrow().cluster;
    if known != config.cluster {
        match quorum.propose(&init).await.map_err(storage)? {
            Response::Rejected(reject) => return Err(Error::Configuration(format!(
                "cluster_id = {} does not fit the metadata folder ({reject}): put the right casemate.toml and folder together",
                config.cluster
            ))),
            _ => tracing::info!(cluster = %config.cluster, "a new cluster"),
        }
    }
    Ok(quorum)
}

fn is_empty(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn wal_parts(config: &Config) -> Result<(Arc<dyn Disk>, WalOptions), Error> {
    let disk = RealDisk::new(&config.data_dir);
    let wal = &config.options.wal;
    let options = WalOptions {
        segment_bytes: wal.segment_bytes,
        budget_bytes: wal.budget_bytes,
        queue_bytes: usize::try_from(wal.queue_bytes).unwrap_or(usize::MAX),
    };
    Ok((Arc::new(disk), options))
}

async fn open_objects(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<Objects>, Error> {
    let objects = &config.options.objects;
    let tls = match config.path(&objects.ca_file) {
        None => None,
        Some(ca) => {
            let identity = config
                .path(&objects.client_cert_file)
                .zip(config.path(&objects.client_key_file))
                .map(|(cert_chain, key)| ClientIdentity { cert_chain, key });
            let client = security::client_config(&ca, identity.as_ref(), clock.clone())
                .map_err(|e| Error::Configuration(format!("objects.ca_file: {e}")))?;
            Some(TlsConnector::from(client))
        }
    };
    let options = ObjectOptions { cache_bytes: objects.cache_bytes, ..ObjectOptions::at(config.place.clone()) };
    let cluster = config.cluster;
    tokio::task::spawn_blocking(move || Objects::open(&options, cluster, tls, clock, entropy))
        .await
        .map_err(storage)?
        .map_err(|e| Error::Configuration(e.to_string()))
}

/// Says at once what is wrong with object storage; the node serves meanwhile, as it does when it goes away later.
fn probe(objects: Arc<Objects>) {
    tokio::spawn(async move {
        match objects.probe().await {
            Ok(_) => tracing::info!("object storage works"),
            Err(error) => tracing::warn!(%error, "object storage does not work: records stay in the WAL until it does"),
        }
    });
}

fn broker_options(config: &Config) -> BrokerOptions {
    let objects = &config.options.objects;
    BrokerOptions {
        upload_bytes: objects.upload_bytes,
        upload_interval: Duration::from_millis(objects.upload_interval_ms),
        object_bytes_max: objects.object_bytes,
        merge_ranges: usize::try_from(objects.merge_ranges).unwrap_or(usize::MAX),
        maintenance_interval: Duration::from_millis(objects.maintenance_interval_ms),
        object_grace: Duration::from_millis(objects.grace_ms),
        room_wait: Duration::from_millis(config.options.wal.room_wait_ms),
    }
}
