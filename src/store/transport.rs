//! The way to the other nodes' copies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::NodeId;
use crate::peer::{Class, Peers, kind};

/// Carries requests to the stores of other nodes. What arrives is to be handed to [`super::StoreService`] there.
pub trait Transport: Send + Sync + 'static {
    /// Asks and waits for the answer, for at most `within`. An error says why there is none; the request may have been
    /// carried out.
    fn call(&self, to: NodeId, ask: Vec<Bytes>, within: Duration) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Over the plane between nodes, in the class Bulk.
#[derive(Default)]
pub struct PeerTransport(OnceLock<Arc<Peers>>);

impl PeerTransport {
    /// The way to the others; before it is known, none can be reached. Only the first counts.
    pub fn connect(&self, peers: Arc<Peers>) {
        self.0.get_or_init(|| peers);
    }
}

impl Transport for PeerTransport {
    fn call(&self, to: NodeId, ask: Vec<Bytes>, within: Duration) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let body = [vec![Bytes::from_static(&[kind::STORE])], ask].concat();
            let peers = self.0.get().ok_or_else(|| "this node does not speak to others yet".to_owned())?;
            peers.call(to, Class::Bulk, body, within).await.map_err(|error| error.to_string())
        })
    }
}
