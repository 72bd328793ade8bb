//! This node's part in the control of the cluster: it asks for its lease, and decides for all while it leads the quorum.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::BrokerEpoch;
use crate::broker::{Lease, Load, LoadMeter, Registry};
use crate::cluster::{Cluster, ControllerParts, Facts, Grants, HeartbeatService, Heartbeats, run_controller};
use crate::config::Config;
use crate::env::Clock;
use crate::ledger::{LedgerEvents, RecoveryParts};
use crate::peer::kind;
use crate::quorum::Quorum;
use crate::wal::Wal;

/// How often the broker's load is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// What runs from before the broker's registration until the process ends.
pub(super) struct Control {
    pub lease: Arc<Lease>,
    grants: Arc<Grants>,
    quorum: Arc<Quorum>,
    clock: Arc<dyn Clock>,
}

impl Control {
    /// Answers heartbeats from now on, as far as this node leads.
    pub fn new(cluster: &Cluster, quorum: &Arc<Quorum>, clock: &Arc<dyn Clock>) -> Control {
        let grants = Grants::new(quorum.clone(), clock.clone());
        cluster.control.add(kind::HEARTBEAT, Arc::new(HeartbeatService(grants.clone())));
        tokio::spawn(grants.clone().confirm());
        let (alone, confirmed) = (quorum.clone(), grants.clone());
        let lease = Lease::new(clock.clone(), Box::new(move || alone.leads_alone() || confirmed.leads()));
        Control { lease, grants, quorum: quorum.clone(), clock: clock.clone() }
    }

    /// Asks for leases as soon as the broker is registered, and ends the process's work when it is fenced.
    pub fn ask(&self, config: &Config, cluster: &Cluster, wal: &Arc<Wal>, registry: &Arc<Registry>) {
        let heartbeats = Heartbeats {
            node: config.node,
            quorum: self.quorum.clone(),
            peers: cluster.peers.clone(),
            grants: self.grants.clone(),
            lease: self.lease.clone(),
            clock: self.clock.clone(),
            facts: facts(wal.clone(), registry.clone(), self.clock.clone()),
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let fenced = heartbeats.run().await;
            registry.fenced(&fenced.to_string());
        });
    }

    /// The broker has its epoch: leases are asked for, and whoever leads the quorum can recover ledgers.
    pub fn registered(&self, epoch: BrokerEpoch, recovery: RecoveryParts) {
        self.lease.registered(epoch);
        tokio::spawn(run_controller(ControllerParts {
            quorum: self.quorum.clone(),
            grants: self.grants.clone(),
            recoverer: Arc::new(recovery),
            clock: self.clock.clone(),
        }));
    }
}

/// What heartbeats say; the load is that of the last measurement.
fn facts(wal: Arc<Wal>, registry: Arc<Registry>, clock: Arc<dyn Clock>) -> Facts {
    let last: Mutex<Option<(Duration, LoadMeter, Load)>> = Mutex::default();
    Box::new(move || {
        let (now, usage) = (clock.boottime(), wal.usage());
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let (measured, meter, load) = last.get_or_insert_with(|| (now, LoadMeter::starting(now), Load::default()));
        if now.saturating_sub(*measured) >= MEASURE_EVERY {
            let partitions = registry.all();
            *load = meter.measure(now, partitions.iter().map(|partition| &**partition));
            *measured = now;
        }
        (usage.needed_bytes, usage.budget_bytes, load.clone())
    })
}
