//! The ways of the parts below to other nodes: the quorum's messages in the class that is never behind bulk, and what
//! transactions ask and say in the class Control.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::NodeId;
use crate::broker::{NoAnswer, Remote};
use crate::peer::{Answering, Caller, Class, Peers, Service};
use crate::quorum::{Quorum, Transport, TransportError};

/// The way to the quorums of other nodes.
pub struct PeerTransport(pub Arc<Peers>);

impl Transport for PeerTransport {
    fn call(&self, to: NodeId, ask: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let answer = self.0.call(to, Class::Raft, ask, timeout).await;
            answer.map_err(|error| {
                let reason = error.to_string();
                if error.had_no_effect() {
                    TransportError::Unreachable { to, reason }
                } else {
                    TransportError::NoAnswer { to, reason }
                }
            })
        })
    }
}

/// Hands what arrives to this node's quorum.
pub struct RaftService(pub Arc<Quorum>);

impl Service for RaftService {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        let (quorum, from) = (self.0.clone(), from.node);
        Box::pin(async move { Ok(quorum.serve(from, &request).await.into()) })
    }
}

/// The way of transactions to the coordinators and partitions of other nodes. Calls to a node share its one connection of
/// the class, on which requests arrive in the order in which they are sent.
pub struct PeerRemote(pub Arc<Peers>);

impl Remote for PeerRemote {
    fn call(&self, node: NodeId, request: Bytes, within: Duration) -> BoxFuture<'_, Result<Bytes, NoAnswer>> {
        Box::pin(async move {
            let answer = self.0.call(node, Class::Control, request, within).await;
            answer.map_err(|error| NoAnswer(error.to_string()))
        })
    }
}
