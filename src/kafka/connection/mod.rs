//! One connection: one task that reads requests, starts them in order, and writes their responses in order.
//!
//! Invariants: first phases run one at a time in request order; second phases overlap; responses are written strictly
//! in request order; requests read but not yet answered are bounded in number and in bytes, answers included, and so
//! are the bytes of answers that the peer does not read; beyond the bounds nothing more is read. What a peer sends can end its own connection and nothing else.

#[cfg(test)]
mod corpus_tests;
mod task;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::task::Connection;
use super::metrics::WireMetrics;
use super::request::{ParseError, Service};
use crate::base::limits::{
    CONNECTION_ANSWER_BYTES_MAX, CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, REQUEST_BYTES_MAX,
};
use crate::net::FrameError;
use crate::security::Principal;

/// What closing a stream politely may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// Largest frame, in bytes (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Requests read but not answered.
    pub requests_max: usize,
    /// Bytes of requests read but not answered, with their answers; one request is always admitted.
    pub bytes_max: usize,
    /// Bytes of finished answers that are not yet written; while there are more no request is begun.
    pub answer_bytes_max: usize,
    /// From the first byte of a frame to its last.
    pub frame_timeout: Duration,
    /// Without a byte either way and without work under way (`connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// From the signal to stop, or the peer's end of stream, until unfinished work is abandoned.
    pub drain_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            request_bytes_max: REQUEST_BYTES_MAX,
            requests_max: CONNECTION_REQUESTS_MAX,
            bytes_max: CONNECTION_BYTES_MAX,
            answer_bytes_max: CONNECTION_ANSWER_BYTES_MAX,
            frame_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What all connections share.
pub struct Wire {
    pub service: Arc<dyn Service>,
    pub options: ConnectionOptions,
    pub metrics: Arc<WireMetrics>,
    next_connection: AtomicU64,
}

impl Wire {
    pub fn new(service: Arc<dyn Service>, options: ConnectionOptions, metrics: Arc<WireMetrics>) -> Arc<Wire> {
        Arc::new(Wire { service, options, metrics, next_connection: AtomicU64::new(1) })
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    pub listener: Arc<str>,
    pub addr: SocketAddr,
    pub principal: Principal,
    /// When the peer's certificate ends, and with it the connection.
    pub expires: Option<Instant>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed it")]
    ByPeer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Request(#[from] ParseError),
    #[error("{0}")]
    ByService(Cow<'static, str>),
    #[error("nothing happened for {0:?}")]
    Idle(Duration),
    #[error("a request did not arrive within {0:?}")]
    SlowFrame(Duration),
    #[error("the peer's certificate has expired")]
    Expired,
    #[error("this broker stops")]
    Stopping,
}

/// Serves one connection until it ends, and says why. Stops when `stop` turns true or its sender is gone.
pub async fn serve<S>(wire: Arc<Wire>, stream: S, peer: Peer, stop: watch::Receiver<bool>) -> Closed
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _open = OpenGuard::new(&wire.metrics.connections);
    let mut connection = Connection::new(&wire, stream, peer);
    let closed = connection.run(stop).await;
    if matches!(closed, Closed::Frame(_) | Closed::Request(_)) {
        wire.metrics.malformed.fetch_add(1, Relaxed);
    }
    let context = connection.context();
    tracing::debug!(peer = %context.peer_addr, principal = %context.principal, reason = %closed, "connection closed");
    if !matches!(closed, Closed::Io(_)) {
        // The peer may be gone already; there is nobody to tell.
        let _ = timeout(GOODBYE, connection.say_goodbye()).await;
    }
    closed
}

/// Counts a connection for as long as it is open.
struct OpenGuard<'a>(&'a AtomicU64);

impl<'a> OpenGuard<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Relaxed);
        OpenGuard(open)
    }
}

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
