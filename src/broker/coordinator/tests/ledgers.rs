//! The ways of ledgers' entries between the brokers of [`super::cluster`].

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::cluster::Net;
use crate::base::NodeId;
use crate::ledger::{Answering, Hosted, Link, Links, NotSent, Replicas, wire};
use crate::peer::{Caller, Class, Dispatch, Service};

/// What other nodes may ask of one process.
pub struct Served {
    pub dispatch: Arc<Dispatch>,
    pub hosted: Arc<Hosted>,
    pub handle: Handle,
    /// Another for each process.
    pub process: u64,
}

/// One node's way to the ledgers of others.
pub struct LedgerPort {
    pub net: Arc<Net>,
    pub from: NodeId,
}

struct LedgerLink {
    net: Arc<Net>,
    from: NodeId,
    to: NodeId,
}

impl Net {
    /// The process that `from` is connected to for its entries.
    fn connection(&self, from: NodeId, to: NodeId) -> Option<u64> {
        if self.isolated.lock().unwrap_or_else(PoisonError::into_inner).contains(&from) {
            return None;
        }
        self.services.lock().unwrap_or_else(PoisonError::into_inner).get(&to).map(|served| served.process)
    }

    /// Asks a service of a node; the second phase runs there.
    fn ask(
        &self,
        (from, to): (NodeId, NodeId),
        class: Class,
        service: impl FnOnce(&Arc<Hosted>) -> Arc<dyn Service>,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Served { hosted, handle, .. }) = services.get(&to) else {
            return std::future::ready(Err("no process is there".to_owned())).boxed();
        };
        let caller = Caller { node: from, subject: "CN=n".into(), class, process: 1, joining: false };
        let _runs_there = handle.enter();
        let answering = service(hosted).call(&caller, request);
        let answering = handle.spawn(async move { answering.await.map(|body| body.to_bytes()) });
        async move { answering.await.map_err(|_| "the process has ended".to_owned())?.map_err(|refused| refused.0) }
            .boxed()
    }

    fn ask_ledger(&self, ends: (NodeId, NodeId), request: &wire::Request) -> Answering {
        let answer = self.ask(ends, Class::Ledger, Hosted::ledger_service, request.encode().to_bytes());
        async move { wire::Answer::decode(&answer.await?).map_err(|error| error.to_string()) }.boxed()
    }
}

impl Links for LedgerPort {
    fn link(&self, to: NodeId) -> Option<Arc<dyn Link>> {
        Some(Arc::new(LedgerLink { net: self.net.clone(), from: self.from, to }))
    }
}

impl Link for LedgerLink {
    fn connected(&self) -> BoxFuture<'_, Result<u64, String>> {
        let connection = self.net.connection(self.from, self.to).ok_or_else(|| "out of reach".to_owned());
        std::future::ready(connection).boxed()
    }

    fn ended(&self, connection: u64) -> BoxFuture<'_, ()> {
        let mut changed = self.net.changed.subscribe();
        async move {
            while self.net.connection(self.from, self.to) == Some(connection) && changed.changed().await.is_ok() {}
        }
        .boxed()
    }

    fn send(&self, connection: u64, request: &wire::Request) -> Result<Answering, NotSent> {
        if self.net.connection(self.from, self.to) != Some(connection) {
            return Err(NotSent::Ended);
        }
        Ok(self.net.ask_ledger((self.from, self.to), request))
    }
}

impl Replicas for LedgerPort {
    fn ask(&self, to: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>> {
        self.net.ask_ledger((self.from, to), &request)
    }

    fn read(&self, to: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>> {
        // Without the byte by which a node finds the service.
        let request = read.encode().slice(1..);
        let answer = self.net.ask((self.from, to), Class::Bulk, Hosted::read_service, request);
        async move { wire::ReadAnswer::decode(&answer.await?).map_err(|error| error.to_string()) }.boxed()
    }
}
