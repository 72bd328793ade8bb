//! The cluster: how this node comes to be among the others, and what the quorum's leader decides about all of them.
//!
//! - `roster` puts the nodes of the metadata in force on the peer plane; `transport` carries the quorum's messages and those of
//!   transactions.
//! - `join` lets an invited node in, and tells a node that was away who is there.
//! - `heartbeat` asks for and gives leases, of which `lease` keeps account.
//! - `controller` decides what follows when one has run out, with `spread` and `balance`; `controller_run` carries it out.
//! - `step_down` gives away what a node leads that is about to stop.
//! - `manage` answers the node's own tools: status, and changes of the cluster; `status` is what they are shown.
//!
//! Invariants: only the leader of the quorum lets a node in, by a committed command; a node has one metadata folder; who
//! may be asked at all is the peer plane's list. Nothing here is on the way of a record, but for the questions of transactions.

mod balance;
mod controller;
mod controller_run;
mod heartbeat;
mod join;
mod lease;
mod manage;
mod roster;
mod spread;
mod status;
mod step_down;
mod transport;

#[cfg(test)]
mod controller_tests;

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::env::{Clock, Entropy};
use crate::peer::{Class, Dispatch, Late, Options, Own, Peers, Plane, Roster, Router, Server};
use crate::quorum::Transport;
use crate::security::NodeTls;
use crate::security::bundle::KnownNode;

#[cfg(test)]
pub(crate) use controller::{Action, Controller, View};
pub use controller_run::{ControllerParts, Recoverer, run as run_controller};
pub use heartbeat::{Facts, Fenced, Grants, HeartbeatService, Heartbeats};
pub use join::{JoinAnswer, JoinAsk, JoinError, JoinService, catch_up, has_joined, join};
pub use lease::{Heartbeat, Leases, Predecessor, Verdict};
pub use manage::{Ask, ManageService, Managed, Tool, ToolError};
pub use roster::{Acquaintances, joined};
pub use status::{BrokerStatus, LedgerStatus, NodeStatus, Status};
pub use step_down::{leave, step_down};
pub use transport::{PeerRemote, PeerTransport, RaftService};

/// Generation of a cluster that was never rebuilt from its bucket.
pub const FIRST_GENERATION: u64 = 1;

/// This node on the peer plane, with the services that it has for others. They are registered while the node starts: see
/// `app::services`.
pub struct Cluster {
    pub plane: Arc<Plane>,
    /// The way to the other nodes.
    pub peers: Arc<Peers>,
    pub acquaintances: Arc<Acquaintances>,
    pub raft: Arc<Late>,
    pub ledger: Arc<Late>,
    pub control: Arc<Dispatch>,
    pub bulk: Arc<Dispatch>,
}

impl Cluster {
    /// `named` are the nodes of the join bundle, for a node that has not joined. Must be called within a tokio runtime.
    pub fn new(
        own: Own,
        tls: Arc<NodeTls>,
        named: Vec<KnownNode>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Cluster> {
        let (node, subject) = (own.node, tls.subject());
        let roster = Arc::new(Roster::new(Default::default()));
        let plane = Plane::new(own, tls, roster.clone(), Options::default(), clock, entropy);
        let peers = Arc::new(Peers::new(plane.clone()));
        let acquaintances = Arc::new(Acquaintances::new(node, subject, roster, peers.clone()));
        acquaintances.learn(named);
        let (raft, ledger) = (Arc::default(), Arc::default());
        let (control, bulk) = (Arc::default(), Arc::default());
        Arc::new(Cluster { plane, peers, acquaintances, raft, ledger, control, bulk })
    }

    /// The quorum's way to other nodes.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(PeerTransport(self.peers.clone()))
    }

    /// The listening side; services that come later are refused until then.
    pub fn server(&self, socket: TcpListener) -> Server {
        let router = Router::default()
            .with(Class::Raft, self.raft.clone())
            .with(Class::Ledger, self.ledger.clone())
            .with(Class::Control, self.control.clone())
            .with(Class::Bulk, self.bulk.clone());
        Server::new(self.plane.clone(), socket, router)
    }
}
