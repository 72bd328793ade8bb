//! The other nodes as this one reaches them: addresses, calls, and channels with an order.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Class;
use super::error::{NotSent, PeerError};
use super::frame::Body;
use super::line::{self, Line, Reply};
use super::plane::Plane;
use crate::base::NodeId;
use crate::net::Names;

/// Where a node listens for other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    pub node: NodeId,
    /// A DNS name or an IP address; one of those in the node's certificate.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One connection of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Higher than that of every earlier connection of this process.
    pub number: u64,
    /// The other node's process.
    pub process: u64,
}

/// Dials nodes when there is something to say to them. Dropping it ends its connections.
pub struct Peers {
    plane: Arc<Plane>,
    names: Arc<Names>,
    /// Of connections.
    numbers: Arc<AtomicU64>,
    runtime: Handle,
    nodes: Mutex<HashMap<NodeId, Lines>>,
    stop: watch::Sender<bool>,
}

struct Lines {
    /// None: the node has none any more.
    address: watch::Sender<Option<PeerAddress>>,
    classes: [Option<Arc<Line>>; 4],
}

impl Peers {
    /// Must be called within a tokio runtime, on which the connections live.
    pub fn new(plane: Arc<Plane>) -> Peers {
        Peers {
            plane,
            names: Arc::default(),
            numbers: Arc::default(),
            runtime: Handle::current(),
            nodes: Mutex::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// Puts the addresses of all nodes in force. Connections to a node that is not among them, or is elsewhere now, end.
    pub fn set(&self, addresses: Vec<PeerAddress>) {
        let mut addresses: HashMap<NodeId, PeerAddress> = addresses.into_iter().map(|a| (a.node, a)).collect();
        let mut nodes = self.lock();
        nodes.retain(|node, lines| {
            let address = addresses.remove(node);
            let stays = address.is_some();
            lines.address.send_if_modified(|old| {
                let modified = *old != address;
                *old = address;
                modified
            });
            stays
        });
        for (node, address) in addresses {
            nodes.insert(node, Lines { address: watch::Sender::new(Some(address)), classes: Default::default() });
        }
    }

    /// Sends a request and waits for its answer. Calls are sent in the order in which they are first polled.
    pub async fn call(
        &self,
        node: NodeId,
        class: Class,
        body: impl Into<Body>,
        within: Duration,
    ) -> Result<Bytes, PeerError> {
        self.line(node, class)?.enqueue(None, body.into())?.within(within).await
    }

    /// A channel to a node whose address is known. It outlives the node's connections, but not its address.
    pub fn channel(&self, node: NodeId, class: Class) -> Result<Channel, PeerError> {
        Ok(Channel { line: self.line(node, class)? })
    }

    /// Ends all connections for good.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn line(&self, node: NodeId, class: Class) -> Result<Arc<Line>, PeerError> {
        let mut nodes = self.lock();
        let Some(lines) = nodes.get_mut(&node) else {
            return Err(PeerError::NotSent { node, reason: NotSent::NoAddress });
        };
        let address = &lines.address;
        let line = lines.classes[class.index()].get_or_insert_with(|| {
            let line = Line::new(Arc::clone(&self.plane), node, class);
            let (names, numbers) = (Arc::clone(&self.names), Arc::clone(&self.numbers));
            self.runtime.spawn(line::run(
                Arc::clone(&line),
                names,
                numbers,
                address.subscribe(),
                self.stop.subscribe(),
            ));
            line
        });
        Ok(Arc::clone(line))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Lines>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests to one node that arrive in the order in which they are sent.
///
/// Each is sent on the connection that its sender means, by number, or not at all: when a connection ends, what was
/// under way on it fails, what is sent to it from then on is refused, and so nothing overtakes what has to be repeated.
/// All channels and calls of one class to a node share its connection and its bounds.
#[derive(Clone)]
pub struct Channel {
    line: Arc<Line>,
}

impl Channel {
    /// The connection that stands, or the next one. Dials if need be, and fails with the first attempt that does.
    pub async fn connected(&self, within: Duration) -> Result<Connection, PeerError> {
        let mut status = self.line.status.subscribe();
        let failures = status.borrow_and_update().failures;
        self.line.want();
        let decided = status.wait_for(|s| s.connection.is_some() || s.retired.is_some() || s.failures != failures);
        let Ok(decided) = timeout(within, decided).await else {
            return Err(self.line.not_sent(NotSent::TimedOut(within)));
        };
        // The line is held here, and with it the sender.
        let Ok(decided) = decided else { return Err(self.line.not_sent(NotSent::Stopping)) };
        match (&decided.connection, &decided.retired, &decided.failure) {
            (Some(connection), _, _) => Ok(*connection),
            (None, Some(reason), _) => Err(self.line.not_sent(reason.clone())),
            (None, None, Some(error)) => Err(self.line.not_sent(NotSent::Dial(Arc::clone(error)))),
            (None, None, None) => Err(self.line.not_sent(NotSent::Ended)),
        }
    }

    /// Sends on the connection of this number, behind everything sent on it before. Never waits: where too much is under
    /// way it says [`NotSent::Full`], and where the connection has ended, [`NotSent::Ended`].
    pub fn send(&self, connection: u64, body: impl Into<Body>) -> Result<Reply, PeerError> {
        self.line.enqueue(Some(connection), body.into())
    }

    /// Returns when the connection of this number has ended.
    pub async fn ended(&self, connection: u64) {
        let mut status = self.line.status.subscribe();
        // An error would mean that the line is gone, and the connection with it.
        let _ = status.wait_for(|s| s.connection.is_none_or(|current| current.number != connection)).await;
    }
}
