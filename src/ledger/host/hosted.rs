//! Between the WAL, its two users, and the peers: who gets which news, and who is served before there is a host.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;

use crate::peer::{Answering, Caller, Refused, Service};
use crate::wal::{Synced, WalEvents};

use super::Host;

/// The token of entries that the host appends. A writer must not use it.
pub(super) const HOST_TOKEN: u64 = u64::MAX;

/// Listens to the WAL: news of entries that the host has appended go to the host, all others to the writer, after the
/// host knows where they are. It is there before the WAL is opened, and the services before the host is.
pub struct Hosted {
    writer: Arc<dyn WalEvents>,
    // Weak: the host holds the WAL, which holds this.
    host: OnceLock<Weak<Host>>,
}

impl Hosted {
    /// `writer` gets the news of entries that it appends itself, under tokens below `u64::MAX`.
    pub fn new(writer: Arc<dyn WalEvents>) -> Arc<Hosted> {
        Arc::new(Hosted { writer, host: OnceLock::new() })
    }

    pub(super) fn serve(&self, host: &Arc<Host>) {
        // A second one would be a second account of the same WAL: the first stays.
        let _ = self.host.set(Arc::downgrade(host));
    }

    fn host(&self) -> Option<Arc<Host>> {
        self.host.get()?.upgrade()
    }

    /// What serves requests of class Ledger.
    pub fn ledger_service(self: &Arc<Self>) -> Arc<dyn Service> {
        Arc::new(Ledgers(Arc::clone(self)))
    }

    /// What serves requests of class Bulk of the kind [`crate::peer::kind::READ_ENTRIES`].
    pub fn read_service(self: &Arc<Self>) -> Arc<dyn Service> {
        Arc::new(Reads(Arc::clone(self)))
    }
}

impl WalEvents for Hosted {
    fn synced(&self, group: &[Synced]) {
        let is_hosts = |entry: &Synced| entry.token == HOST_TOKEN;
        let host = self.host();
        let tell_own = |own: &[Synced]| {
            if let Some(host) = &host {
                host.synced_own(own);
            }
            self.writer.synced(own);
        };
        // The usual case is told without a copy.
        if !group.iter().any(is_hosts) {
            return tell_own(group);
        }
        let (hosts, own): (Vec<Synced>, Vec<Synced>) = group.iter().copied().partition(is_hosts);
        if let Some(host) = &host {
            host.synced(&hosts);
        }
        if !own.is_empty() {
            tell_own(&own);
        }
    }

    fn failed(&self, reason: &str) {
        if let Some(host) = self.host() {
            host.failed(reason);
        }
        self.writer.failed(reason);
    }
}

struct Ledgers(Arc<Hosted>);

struct Reads(Arc<Hosted>);

fn not_yet() -> Answering {
    Box::pin(std::future::ready(Err(Refused("this node is starting, or stopping: try again".to_owned()))))
}

impl Service for Ledgers {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        match self.0.host() {
            Some(host) => host.serve(from.node, &request),
            None => not_yet(),
        }
    }
}

impl Service for Reads {
    fn call(&self, _from: &Caller, request: Bytes) -> Answering {
        match self.0.host() {
            Some(host) => host.serve_read(&request),
            None => not_yet(),
        }
    }
}
