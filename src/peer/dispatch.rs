//! Requests of one class that mean different things: the first byte says which, and each kind has its service.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

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

/// Hands each request to the service of its kind, without the byte that names it. Services come one by one while the node
/// starts; until then their requests are refused, which changes nothing.
#[derive(Default)]
pub struct Dispatch {
    kinds: RwLock<BTreeMap<u8, Served>>,
}

struct Served {
    service: Arc<dyn Service>,
    /// Whether a node may use it which has not joined.
    joining: bool,
}

impl Dispatch {
    /// Serves a kind from now on, for nodes that have joined.
    pub fn add(&self, kind: u8, service: Arc<dyn Service>) {
        self.insert(kind, Served { service, joining: false });
    }

    /// Serves a kind from now on, for invited nodes, too.
    pub fn add_joining(&self, kind: u8, service: Arc<dyn Service>) {
        self.insert(kind, Served { service, joining: true });
    }

    fn insert(&self, kind: u8, served: Served) {
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).insert(kind, served);
    }
}

/// A class whose one service comes while the node starts; until then requests are refused, which changes nothing.
#[derive(Default)]
pub struct Late(OnceLock<Arc<dyn Service>>);

impl Late {
    /// Serves from now on. The first service stays.
    pub fn set(&self, service: Arc<dyn Service>) {
        let _ = self.0.set(service);
    }
}

impl Service for Late {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        match self.0.get() {
            Some(service) => service.call(from, request),
            None => refuse(format!("this node has not started yet: the class {} comes later", from.class)),
        }
    }
}

fn refuse(why: String) -> Answering {
    Box::pin(std::future::ready(Err(Refused(why))))
}

impl Service for Dispatch {
    fn call(&self, from: &Caller, mut request: Bytes) -> Answering {
        if request.is_empty() {
            return refuse("the request is empty".to_owned());
        }
        let kind = request.get_u8();
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        match kinds.get(&kind) {
            Some(served) if served.joining || !from.joining => served.service.call(from, request),
            _ if from.joining => refuse(format!("node {} has not joined and may only do so", from.node)),
            _ => refuse(format!(
                "requests of kind {kind:#04x} are not served here: this node has not started yet, or runs another release"
            )),
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
        let dispatch = Dispatch::default();
        assert!(asked(&dispatch, false, b"\x10beat").await.unwrap_err().contains("has not started"));
        dispatch.add(kind::HEARTBEAT, Arc::new(Echo));
        dispatch.add_joining(kind::JOIN, Arc::new(Echo));
        assert_eq!(asked(&dispatch, false, b"\x10beat").await, Ok(Bytes::from_static(b"beat")));
        assert!(asked(&dispatch, false, b"\x11beat").await.unwrap_err().contains("0x11"));
        assert!(asked(&dispatch, false, b"").await.is_err());
        assert_eq!(asked(&dispatch, true, b"\x01me").await, Ok(Bytes::from_static(b"me")));
        assert!(asked(&dispatch, true, b"\x10beat").await.unwrap_err().contains("has not joined"));
        assert!(asked(&dispatch, true, b"\x11beat").await.unwrap_err().contains("has not joined"));
    }

    #[tokio::test]
    async fn a_late_service_refuses_until_it_is_there() {
        let (late, node) = (Late::default(), NodeId(2));
        let from = Caller { node, subject: "CN=n2".into(), class: Class::Ledger, process: 1, joining: false };
        let ask = || late.call(&from, Bytes::from_static(b"x"));
        assert!(ask().await.is_err_and(|refused| refused.0.contains("not started")));
        late.set(Arc::new(Echo));
        assert!(ask().await.is_ok());
    }
}
