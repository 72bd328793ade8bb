//! What both directions share: this node's identity, its list of nodes, bounds, counters, and the log of refusals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;
use tokio::time::Instant;

use super::complaints::Complaints;
use super::error::{Closed, DialError, GreetError};
use super::metrics::{Counters, Metrics};
use super::{AllowList, Class, Options, Own};
use crate::base::NodeId;
use crate::env::{Clock, Entropy};
use crate::security::{NodeCertificate, NodeTls};

/// This node on the peer plane.
pub struct Plane {
    pub(super) own: Own,
    pub(super) tls: Arc<NodeTls>,
    pub(super) allow: Arc<dyn AllowList>,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) counters: Counters,
    complaints: Complaints,
}

impl Plane {
    pub fn new(
        own: Own,
        tls: Arc<NodeTls>,
        allow: Arc<dyn AllowList>,
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Plane> {
        let (counters, complaints) = (Counters::default(), Complaints::default());
        Arc::new(Plane { own, tls, allow, options, clock, entropy, counters, complaints })
    }

    /// Counts since the start.
    pub fn metrics(&self) -> Metrics {
        self.counters.snapshot()
    }

    /// Whether a certificate may be `node`'s end of a connection of this class at this moment.
    pub(super) fn welcomes(&self, certificate: &NodeCertificate, node: NodeId, class: Class) -> Result<(), Closed> {
        if self.clock.wall_ms() >= certificate.not_after_ms {
            return Err(Closed::Expired);
        }
        if !self.allow.standing(&certificate.subject).permits(node, class) {
            return Err(Closed::Removed);
        }
        Ok(())
    }

    /// Counts a connection that was turned away, and says so in the log. `subject` is there once the peer has shown its
    /// certificate.
    pub(super) fn turned_away(&self, peer: SocketAddr, subject: Option<&str>, error: &GreetError) {
        let reason = match error {
            GreetError::Refused(refusal) => {
                self.counters.refused[refusal.reason as usize].fetch_add(1, Relaxed);
                refusal.reason.name()
            }
            GreetError::Tls(_) => {
                self.counters.handshakes_failed.fetch_add(1, Relaxed);
                "tls"
            }
            GreetError::SlowHello(_) | GreetError::Io(_) | GreetError::Length(_) => {
                self.counters.hellos_failed.fetch_add(1, Relaxed);
                "hello"
            }
        };
        let who = subject.map_or_else(|| peer.ip().to_string(), str::to_owned);
        if self.complaints.admits(format!("from {reason} {who}"), Instant::now()) {
            tracing::warn!(%peer, subject = subject.unwrap_or("-"), reason, "a peer was refused: {error}");
        }
    }

    /// Says in the log that a connection has ended; loudly if the peer broke the protocol.
    pub(super) fn ended(&self, node: NodeId, class: Class, closed: &Closed) {
        let broken = matches!(closed, Closed::Length(_) | Closed::Frame(_) | Closed::Protocol(_));
        if broken && self.complaints.admits(format!("broken {node} {class}"), Instant::now()) {
            tracing::warn!(%node, %class, "a connection was closed: {closed}");
        } else {
            tracing::debug!(%node, %class, reason = %closed, "a connection has ended");
        }
    }

    /// Says in the log that a node cannot be reached.
    pub(super) fn not_reached(&self, node: NodeId, class: Class, error: &DialError) {
        self.counters.class(class).dials_failed.fetch_add(1, Relaxed);
        if self.complaints.admits(format!("to {} {node}", error.kind()), Instant::now()) {
            tracing::warn!(%node, %class, reason = error.kind(), "a node cannot be reached: {error}");
        }
    }
}

/// Waits for the signal to stop, or for the end of whoever could give it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
