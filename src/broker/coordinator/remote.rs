//! The way to the coordinators and partitions that other nodes lead.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::NodeId;
use crate::broker::Broker;

/// Why a question to another node has no answer. Whether it arrived there is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Requests of class Control to other nodes, each with the byte of its kind first.
///
/// An implementation may lose a request or its answer, but never lets one overtake another: what is sent to a node arrives
/// in the order in which the calls are first polled, or not at all. Old clients' transactions rest on that: a marker
/// that came after its transaction has completed could end the next one, which has the same epoch.
pub trait Remote: Send + Sync {
    fn call(&self, node: NodeId, request: Bytes, within: Duration) -> BoxFuture<'_, Result<Bytes, NoAnswer>>;
}

impl Broker {
    /// Supplies the way to other nodes, once. Without it, transactions reach what this node leads.
    pub fn set_remote(&self, remote: std::sync::Arc<dyn Remote>) {
        if self.coordinators.remote.set(remote).is_err() {
            tracing::error!("the way to other nodes is supplied twice; the first one stays");
        }
    }

    pub(super) async fn call_node(&self, node: NodeId, request: Bytes, within: Duration) -> Result<Bytes, NoAnswer> {
        match self.coordinators.remote.get() {
            Some(remote) => remote.call(node, request, within).await,
            None => Err(NoAnswer("this node has no way to others".to_owned())),
        }
    }
}
