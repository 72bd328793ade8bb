//! Requests of one class that mean different things: the first byte says which, and each kind has its service.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::serving::{Answering, Caller, Refused, Service};

/// First bytes of requests. A kind keeps its number and its meaning for ever; a changed form is a new version inside it.
pub mod kind {
    /// Control: an invited node joins with its token. The only kind that is open to a node which has not joined.
    pub const JOIN: u8 = 0x01;
    /// Control, from the node's own tools: status and changes of the cluster.
    pub const MANAGE: u8 = 0x02;
    /// Control: a broker asks the quorum's leader for its lease.
    pub const HEARTBEAT: u8 = 0x10;
    /// Control: whether partitions may be written in a transaction, asked of its coordinator.
    pub const ADMIT: u8 = 0x20;
    /// Control: the end of a transaction, from its coordinator to the leaders of its partitions.
    pub const MARKERS: u8 = 0x21;
    /// Bulk: entries of a ledger.
    pub const READ_ENTRIES: u8 = 0x40;
    /// Bulk: the bundled store.
    pub const STORE: u8 = 0x50;
}

/// Hands each request to the service of its kind, without the byte that names it.
#[derive(Default)]
pub struct Dispatch {
    services: BTreeMap<u8, Arc<dyn Service>>,
    /// Kinds that a node may use which has not joined.
    joining: Vec<u8>,
}

impl Dispatch {
    /// For nodes that have joined.
    pub fn with(mut self, kind: u8, service: Arc<dyn Service>) -> Dispatch {
        self.services.insert(kind, service);
        self
    }

    /// For invited nodes, too.
    pub fn with_joining(mut self, kind: u8, service: Arc<dyn Service>) -> Dispatch {
        self.joining.push(kind);
        self.with(kind, service)
    }
}

impl Service for Dispatch {
    fn call(&self, from: &Caller, mut request: Bytes) -> Answering {
        let refuse = |why: String| -> Answering { Box::pin(std::future::ready(Err(Refused(why)))) };
        if request.is_empty() {
            return refuse("the request is empty".to_owned());
        }
        let kind = request.get_u8();
        match self.services.get(&kind) {
            _ if from.joining && !self.joining.contains(&kind) => {
                refuse(format!("node {} has not joined and may only do so", from.node))
            }
            Some(service) => service.call(from, request),
            None => refuse(format!("requests of kind {kind:#04x} are not known here: this node runs another release")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;
    use crate::base::NodeId;

    struct Echo;

    impl Service for Echo {
        fn call(&self, _from: &Caller, request: Bytes) -> Answering {
            Box::pin(std::future::ready(Ok(request.into())))
        }
    }

    async fn asked(dispatch: &Dispatch, joining: bool, request: &'static [u8]) -> Result<Bytes, String> {
        let from = Caller { node: NodeId(2), subject: "CN=n2".into(), class: Class::Control, process: 1, joining };
        let answer = dispatch.call(&from, Bytes::from_static(request)).await;
        answer.map(|body| body.to_bytes()).map_err(|refused| refused.0)
    }

    #[tokio::test]
    async fn a_request_reaches_the_service_of_its_kind_and_no_other() {
        let dispatch =
            Dispatch::default().with(kind::HEARTBEAT, Arc::new(Echo)).with_joining(kind::JOIN, Arc::new(Echo));
        assert_eq!(asked(&dispatch, false, b"\x10beat").await, Ok(Bytes::from_static(b"beat")));
        assert!(asked(&dispatch, false, b"\x11beat").await.unwrap_err().contains("0x11"));
        assert!(asked(&dispatch, false, b"").await.is_err());
        assert_eq!(asked(&dispatch, true, b"\x01me").await, Ok(Bytes::from_static(b"me")));
        assert!(asked(&dispatch, true, b"\x10beat").await.unwrap_err().contains("has not joined"));
    }
}
