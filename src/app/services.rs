//! What this node does for others: every service of the peer plane is registered here, as soon as its parts are there.

use std::sync::Arc;

use crate::broker::{AdmissionService, Broker, MarkerService};
use crate::cluster::{Cluster, JoinService, ManageService, PeerRemote, RaftService};
use crate::config::Config;
use crate::env::Clock;
use crate::ledger::Hosted;
use crate::peer::kind;
use crate::quorum::Quorum;

/// Copies of other nodes' ledgers. Refused until the broker has joined.
pub(super) fn of_ledgers(cluster: &Cluster, hosted: &Arc<Hosted>) {
    cluster.ledger.set(hosted.ledger_service());
    cluster.bulk.add(kind::READ_ENTRIES, hosted.read_service());
}

/// Before the quorum is ready: what others need so that it can become so.
pub(super) fn of_quorum(config: &Config, cluster: &Cluster, quorum: &Arc<Quorum>, clock: &Arc<dyn Clock>) {
    cluster.raft.set(Arc::new(RaftService(quorum.clone())));
    let join = JoinService { quorum: quorum.clone(), clock: clock.clone() };
    cluster.control.add_joining(kind::JOIN, Arc::new(join));
    let (peers, clock) = (cluster.peers.clone(), clock.clone());
    let manage = ManageService { node: config.node, quorum: quorum.clone(), peers, clock };
    cluster.control.add(kind::MANAGE, Arc::new(manage));
}

/// Once the broker is there: transactions whose coordinator and partitions are led by different nodes.
pub(super) fn of_broker(cluster: &Cluster, broker: &Arc<Broker>) {
    broker.set_remote(Arc::new(PeerRemote(cluster.peers.clone())));
    cluster.control.add(kind::ADMIT, Arc::new(AdmissionService::new(broker.clone())));
    cluster.control.add(kind::MARKERS, Arc::new(MarkerService::new(broker.clone())));
}
