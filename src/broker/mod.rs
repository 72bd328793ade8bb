//! The broker of this node: leads partitions, moves their data to object storage, and follows the metadata.
//!
//! Invariants: nothing is answered before it is durable; a method that reads or changes anything demands the permit
//! for exactly that; metadata change only by commands that carry this broker's epoch; local state only follows the
//! published image.
//!
//! Nothing here knows wire formats or error numbers: each operation has an error type that the protocol layer maps.

mod compaction;
mod configs;
mod coordinator;
mod copies;
mod describe;
mod error;
mod exposure;
mod fetch;
mod handover;
mod holdings;
mod leading;
mod lease;
mod ledgers;
mod load;
mod maintenance;
mod missing;
#[cfg(test)]
mod moves_tests;
mod offsets;
mod opening;
mod placement;
mod produce;
mod producer_ids;
mod producer_state;
pub mod quota;
mod reconcile;
mod registering;
mod registry;
mod retention;
pub mod settings;
mod shadow;
mod start;
mod stop;
pub mod telemetry;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;
mod trouble;
mod upload;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore, watch};

use crate::base::{BrokerEpoch, LedgerId, NodeId, TopicId};
use crate::env::{Clock, Entropy};
use crate::ledger::{Host, LedgerWriter};
use crate::metadata::{Image, Topic};
use crate::object::Objects;
use crate::quorum::{Quorum, QuorumStatus, QuorumView};
use crate::wal::Wal;

pub use compaction::CompactionMetrics;
pub use configs::Settings;
pub use coordinator::{
    AdmissionService, AdmittedOffsets, CoordinatorError, CoordinatorKind, MarkerService, NoAnswer, OFFSETS_TOPIC,
    Remote, TRANSACTIONS_TOPIC,
};
pub use copies::CopiesNeeded;
pub use error::{ChangeError, FetchError, OffsetsError, ProduceError};
pub use exposure::Exposure;
pub use fetch::Fetched;
pub use holdings::{HeldEntry, Holdings, HostHoldings, PullError};
pub use lease::{IsLeader, LEASE, Lease};
pub use ledgers::QuorumRegistrations;
pub use load::{Load, LoadMeter, PARTITION_LOADS_MAX, PartitionLoad};
pub use missing::Missing;
pub use offsets::{FoundOffset, OffsetQuery};
pub use placement::{spread_leaders, takes_partitions};
pub use produce::ProduceContext;
pub use registry::{Failure, Registry};
pub use settings::{BrokerSettings, TopicSettings};
pub use start::{JoinParts, Joined, OpenedWal, StartError, join, open_partitions, open_wal};
pub use stop::Stopping;
pub use topics::{NewTopic, is_internal_topic};
pub use transactions::{Admission, InTransaction, NotAdmitted, TransactionEnd, TransactionGate, transactional_header};
pub use upload::UploadMetrics;

/// What tunes the broker; each field is an option of the configuration.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Exposure that starts an upload at once.
    pub upload_bytes: u64,
    /// Age of the oldest exposed entry that starts an upload.
    pub upload_interval: Duration,
    /// Largest object.
    pub object_bytes_max: u64,
    /// Small ranges in a row of one partition that are merged into a segment.
    pub merge_ranges: usize,
    /// How often retention, merging and sweeping are looked at.
    pub maintenance_interval: Duration,
    /// How long the bytes of an object stay after nothing points to it.
    pub object_grace: Duration,
    /// How long a produce request may wait for room in the WAL.
    pub room_wait: Duration,
}

/// The parts that a broker is made of.
pub struct BrokerParts {
    pub options: BrokerOptions,
    pub node: NodeId,
    pub static_settings: StaticSettings,
    pub quorum: Arc<Quorum>,
    pub objects: Arc<Objects>,
    pub wal: Arc<Wal>,
    pub registry: Arc<Registry>,
    pub holdings: Arc<dyn Holdings>,
    pub joined: Joined,
    pub lease: Arc<Lease>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// Kafka settings of the configuration file, by name.
pub type StaticSettings = BTreeMap<String, String>;

/// See the module's documentation.
pub struct Broker {
    pub options: BrokerOptions,
    pub node: NodeId,
    pub epoch: BrokerEpoch,
    static_settings: StaticSettings,
    quorum: Arc<Quorum>,
    objects: Arc<Objects>,
    wal: Arc<Wal>,
    registry: Arc<Registry>,
    lease: Arc<Lease>,
    /// What the WAL has that this process did not write.
    holdings: Arc<dyn Holdings>,
    openings: opening::Openings,
    moves: handover::Moves,
    ledger: Arc<LedgerWriter>,
    host: Arc<Host>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    image: watch::Receiver<Arc<Image>>,
    /// Settings of each topic as they follow from the image that was reconciled last.
    settings: RwLock<HashMap<TopicId, Arc<TopicSettings>>>,
    broker_settings: watch::Sender<Arc<BrokerSettings>>,
    quotas: Arc<quota::QuotaManager>,
    telemetry: telemetry::Telemetry,
    /// Held while settings are read, checked and changed.
    altering: Mutex<()>,
    reconciled: Mutex<Arc<Image>>,
    producer_ids: Mutex<producer_ids::Block>,
    /// Supplied when the coordinators are up.
    transaction_gate: OnceLock<Arc<dyn TransactionGate>>,
    /// Admits reads of the WAL, by KiB: catching up has a budget of its own.
    wal_reads: Semaphore,
    /// Woken when the WAL may have room again.
    room: Notify,
    upload_metrics: UploadMetrics,
    /// Reads of records that were not in memory.
    reads: AtomicU64,
    compaction: compaction::Compaction,
    missing: missing::Missing,
    troubles: trouble::Troubles,
    coordinators: coordinator::Coordinators,
    /// Turns true once, when the node begins to stop.
    stopping: watch::Sender<bool>,
}

impl Broker {
    /// Puts the parts together; partitions are open already.
    pub fn new(parts: BrokerParts) -> Arc<Broker> {
        let image = parts.quorum.image();
        let start = image.borrow().clone();
        let layers =
            settings::Layers { broker: &BTreeMap::new(), cluster: &BTreeMap::new(), fixed: &parts.static_settings };
        let resolved = BrokerSettings::resolve(layers);
        let quotas = Arc::new(quota::QuotaManager::new(resolved.quota_windows));
        let broker_settings = watch::Sender::new(Arc::new(resolved));
        let broker = Arc::new(Broker {
            options: parts.options,
            node: parts.node,
            epoch: parts.joined.epoch,
            static_settings: parts.static_settings,
            quorum: parts.quorum,
            objects: parts.objects,
            wal: parts.wal,
            registry: parts.registry,
            lease: parts.lease,
            holdings: parts.holdings,
            openings: opening::Openings::default(),
            moves: handover::Moves::default(),
            ledger: parts.joined.ledger,
            host: parts.joined.host,
            clock: parts.clock,
            entropy: parts.entropy,
            image,
            settings: RwLock::default(),
            broker_settings,
            quotas,
            telemetry: telemetry::Telemetry::default(),
            altering: Mutex::default(),
            reconciled: Mutex::new(start.clone()),
            producer_ids: Mutex::default(),
            transaction_gate: OnceLock::new(),
            wal_reads: Semaphore::new(fetch::WAL_READS_KIB),
            room: Notify::new(),
            upload_metrics: UploadMetrics::default(),
            reads: AtomicU64::new(0),
            compaction: compaction::Compaction::default(),
            missing: missing::Missing::default(),
            troubles: trouble::Troubles::default(),
            coordinators: coordinator::Coordinators::new(),
            stopping: watch::Sender::new(false),
        });
        broker.resolve_settings(&Image::default(), &start);
        broker.find_openings(&start);
        broker.find_moves(&start);
        broker
    }

    /// The metadata as published last.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.image.borrow().topic(name).cloned()
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    pub fn quotas(&self) -> &Arc<quota::QuotaManager> {
        &self.quotas
    }

    /// What clients push about themselves.
    pub fn telemetry(&self) -> &telemetry::Telemetry {
        &self.telemetry
    }

    /// Whether this process may answer for the partitions that it leads.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// This node as a holder of ledgers.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub fn ledger_id(&self) -> LedgerId {
        self.ledger.id()
    }

    pub fn quorum_status(&self) -> QuorumStatus {
        self.quorum.status()
    }

    /// The metadata quorum as its leader sees it; none if no leader answers.
    pub async fn quorum_view(&self) -> Option<QuorumView> {
        self.quorum.view().await
    }

    pub fn upload_metrics(&self) -> &UploadMetrics {
        &self.upload_metrics
    }

    /// Settings of the configuration file, by Kafka's names.
    pub fn static_settings(&self) -> &StaticSettings {
        &self.static_settings
    }
}
