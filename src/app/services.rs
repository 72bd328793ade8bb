//! What this node does for others: every service of the peer plane is registered here, as soon as its parts are there.

use std::sync::Arc;

use crate::cluster::{Cluster, JoinService, ManageService, RaftService};
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
