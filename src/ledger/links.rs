//! The ways to other nodes over the peer plane, for writers and for recoveries.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::base::NodeId;
use crate::peer::{self, Channel, Class, PeerError, Peers};

use super::Host;
use super::drive::{Answering, Link, Links, NotSent};
use super::recover::Replicas;
use super::wire;

/// How long an attempt to connect to a replica may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a node may take to answer a recoverer: a seal and copies wait for its disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to send what a recoverer reads.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Channels over the peer plane.
pub struct PeerLinks(pub Arc<Peers>);

impl Links for PeerLinks {
    fn link(&self, node: NodeId) -> Option<Arc<dyn Link>> {
        let channel = self.0.channel(node, Class::Ledger).ok()?;
        Some(Arc::new(PeerLink(channel)))
    }
}

struct PeerLink(Channel);

impl Link for PeerLink {
    fn connected(&self) -> BoxFuture<'_, Result<u64, String>> {
        let connected = self.0.connected(CONNECT_WITHIN);
        connected.map(|result| result.map(|connection| connection.number).map_err(|error| error.to_string())).boxed()
    }

    fn ended(&self, connection: u64) -> BoxFuture<'_, ()> {
        self.0.ended(connection).boxed()
    }

    fn send(&self, connection: u64, request: &wire::Request) -> Result<Answering, NotSent> {
        match self.0.send(connection, request.encode()) {
            Ok(reply) => Ok(async move { decoded(reply.await) }.boxed()),
            Err(PeerError::NotSent { reason: peer::NotSent::Full, .. }) => Err(NotSent::Full),
            Err(_) => Err(NotSent::Ended),
        }
    }
}

fn decoded(answer: Result<bytes::Bytes, PeerError>) -> Result<wire::Answer, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    wire::Answer::decode(&answer).map_err(|error| error.to_string())
}

/// The replicas of other nodes, over the peer plane.
pub struct PeerReplicas(pub Arc<Peers>);

impl Replicas for PeerReplicas {
    fn ask(&self, node: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>> {
        let peers = self.0.clone();
        async move { decoded(peers.call(node, Class::Ledger, request.encode(), ANSWER_WITHIN).await) }.boxed()
    }

    fn read(&self, node: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>> {
        let peers = self.0.clone();
        async move {
            let answer = peers.call(node, Class::Bulk, read.encode(), READ_WITHIN).await;
            let answer = answer.map_err(|error| error.to_string())?;
            wire::ReadAnswer::decode(&answer).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// The replicas of all nodes: this one's directly.
pub struct NodeReplicas {
    pub own: NodeId,
    pub local: HostReplicas,
    /// `None` for a node that has no others.
    pub others: Option<Arc<dyn Replicas>>,
}

impl NodeReplicas {
    fn of(&self, node: NodeId) -> Result<&dyn Replicas, String> {
        if node == self.own {
            return Ok(&self.local);
        }
        let alone = || format!("node {node} is out of reach: this node has no place among others");
        self.others.as_deref().ok_or_else(alone)
    }
}

impl Replicas for NodeReplicas {
    fn ask(&self, node: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>> {
        match self.of(node) {
            Ok(replicas) => replicas.ask(node, request),
            Err(alone) => std::future::ready(Err(alone)).boxed(),
        }
    }

    fn read(&self, node: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>> {
        match self.of(node) {
            Ok(replicas) => replicas.read(node, read),
            Err(alone) => std::future::ready(Err(alone)).boxed(),
        }
    }
}

/// The replicas of this node's own host.
pub struct HostReplicas(pub Arc<Host>);

impl Replicas for HostReplicas {
    fn ask(&self, _: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>> {
        let host = self.0.clone();
        async move { host.ask_local(request).await.map_err(|refused| refused.to_string()) }.boxed()
    }

    fn read(&self, _: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>> {
        let host = self.0.clone();
        async move {
            let wire::Read { ledger, from, below, max_bytes, .. } = read;
            if read.to != host.identity().incarnation {
                return Ok(wire::ReadAnswer::Unknown);
            }
            let answer = host.read_local(ledger, from, below, max_bytes as usize).await;
            answer.map_err(|error| error.to_string())
        }
        .boxed()
    }
}
