//! What runs beside the listeners: following the metadata, uploads, maintenance, compaction, the probe of object storage,
//! health, the watchdog, new certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::admin::Health;
use crate::broker::Broker;
use crate::cli::notify;
use crate::ledger::PeerLinks;
use crate::quorum::Quorum;
use crate::security::{NodeTls, ServerTls};

use super::bundled;
use super::open::Opened;
use super::probe;

/// How often health is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Days before its end at which a certificate is a trouble.
const CERTIFICATE_DAYS: i64 = 7;

/// Starts everything; dropping the set ends it.
pub(super) fn spawn(opened: &Opened, health: &Health, tls: Arc<ServerTls>, peers: Arc<NodeTls>) -> JoinSet<()> {
    let mut background = JoinSet::new();
    let broker = &opened.broker;
    background.spawn(broker.clone().follow_metadata());
    background.spawn(broker.clone().run_ledger(Arc::new(PeerLinks(opened.cluster.peers.clone()))));
    background.spawn(broker.clone().run_uploader());
    background.spawn(broker.clone().run_maintenance());
    background.spawn(broker.clone().run_coordinators());
    background.spawn(broker.clone().run_compaction());
    background.spawn(broker.clone().watch_missing());
    background.spawn(probe::run(broker.clone(), health.clone()));
    background.spawn(watch_health(broker.clone(), tls.clone(), health.clone()));
    background.spawn(reload_certificates(tls, peers));
    if let Some(store) = &opened.bundled {
        bundled::spawn(store, &opened.quorum, broker, health, &mut background);
    }
    let (broker, quorum) = (broker.clone(), opened.quorum.clone());
    background.spawn(async move {
        let groups = AtomicU64::new(0);
        notify::watchdog(|| std::future::ready(makes_progress(&broker, &quorum, &groups))).await;
    });
    background
}

/// The WAL has written a group since the last look if anything waits for it, and a quorum of this node alone leads. Where
/// others are missing for a quorum, starting this process again helps nobody.
fn makes_progress(broker: &Broker, quorum: &Quorum, groups: &AtomicU64) -> bool {
    let now = broker.wal().metrics().groups;
    let moved = groups.swap(now, Ordering::Relaxed) != now;
    let status = quorum.status();
    let leads = status.leader.is_some() || status.voters.len() > 1;
    leads && (moved || broker.wal().waiting_bytes() == 0)
}

async fn watch_health(broker: Arc<Broker>, tls: Arc<ServerTls>, health: Health) {
    loop {
        let failing = broker.upload_metrics().failing.load(Ordering::Relaxed);
        let away = failing.then(|| {
            let exposure = broker.registry().exposure();
            format!(
                "uploads fail; {} bytes are only in the WAL: see the log, and that the service runs",
                exposure.bytes
            )
        });
        health.trouble("object storage", away);
        health.trouble("objects", broker.missing().trouble());
        let full = broker.wal().usage().disk_full;
        health.trouble("wal", full.then(|| "the disk is full: free space on it".to_owned()));
        let days = tls.days_to_expiry();
        let expires = (days <= CERTIFICATE_DAYS)
            .then(|| format!("the node's certificate expires in {days} days: replace it and send SIGHUP"));
        health.trouble("certificate", expires);
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Reads the certificates anew on SIGHUP; those that cannot be used leave the present ones in force.
async fn reload_certificates(tls: Arc<ServerTls>, peers: Arc<NodeTls>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        let (clients, nodes) = (tls.clone(), peers.clone());
        match tokio::task::spawn_blocking(move || clients.reload().and_then(|()| nodes.reload())).await {
            Ok(Ok(())) => tracing::info!("certificates were read anew"),
            Ok(Err(error)) => tracing::error!(%error, "the new certificates cannot be used; the present ones stay"),
            Err(_) => tracing::error!("reading the certificates was interrupted"),
        }
    }
}
