//! What can become of a request, told apart by whether it may be repeated.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::hello::{BadHello, Refusal};
use super::{Class, frame};
use crate::base::NodeId;
use crate::net::{FrameError, ResolveError};
use crate::security::{NodeAcceptError, NodeConnectError};

/// A request without an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Safe to repeat: no byte of it was handed to a connection.
    #[error("not sent to node {node}: {reason}")]
    NotSent { node: NodeId, reason: NotSent },
    /// The request was handed to a connection and its answer did not come: it may have been carried out.
    #[error("no answer came from node {node} ({reason}): the outcome is unknown")]
    OutcomeUnknown { node: NodeId, reason: Arc<Closed> },
    /// The service did nothing, and says why.
    #[error("node {node} refused: {reason}")]
    Refused { node: NodeId, reason: String },
    /// Sent, and not answered in time: it may have been carried out, and may still be.
    #[error("node {node} did not answer within {after:?}: the outcome is unknown")]
    Timeout { node: NodeId, after: Duration },
}

impl PeerError {
    /// Whether it is certain that the request had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self, PeerError::NotSent { .. } | PeerError::Refused { .. })
    }
}

/// Why a request was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotSent {
    #[error("as much as may be is under way already")]
    Full,
    #[error("it has {bytes} bytes, and the class {class} carries {max} at most")]
    TooLarge { class: Class, bytes: usize, max: usize },
    #[error("its address is not known")]
    NoAddress,
    #[error("{0}")]
    Dial(Arc<DialError>),
    #[error("there was no connection within {0:?}")]
    TimedOut(Duration),
    /// The connection that a [`super::Channel`] meant is not there any more.
    #[error("that connection has ended")]
    Ended,
    #[error("this node stops")]
    Stopping,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("TLS with {address}: {source}")]
    Tls { address: String, source: NodeConnectError },
    /// A client learns of a certificate that the server does not accept only when it reads.
    #[error(
        "{address} closed the connection at its hello ({source}): check that both nodes' certificates are valid and of \
         the same authority"
    )]
    Hello { address: String, source: io::Error },
    #[error("{address} did not answer the hello within {within:?}")]
    HelloTimeout { address: String, within: Duration },
    #[error("{address} answered the hello with something else: {source}")]
    BadAnswer { address: String, source: BadHello },
    /// The certificate or the answer is not that of the node that was meant; or it refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl DialError {
    /// What makes two failures the same for the log.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            DialError::Resolve(_) => "resolve",
            DialError::Connect { .. } => "connect",
            DialError::Tls { .. } => "tls",
            DialError::Hello { .. } => "hello",
            DialError::HelloTimeout { .. } => "hello-timeout",
            DialError::BadAnswer { .. } => "bad-answer",
            DialError::Refused(refusal) => refusal.reason.name(),
        }
    }
}

/// Why a connection ended, or an answer did not come over it.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed it")]
    ByPeer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Length(#[from] FrameError),
    #[error("{0}")]
    Frame(#[from] frame::BadFrame),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// Of one request; the connection goes on.
    #[error("the answer is too large to be sent")]
    Unanswered,
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("a message did not arrive within {0:?}")]
    SlowFrame(Duration),
    #[error("the peer took nothing of what was sent for {0:?}")]
    Unread(Duration),
    #[error("the peer's certificate has expired")]
    Expired,
    #[error("the peer is not on the list of nodes any more")]
    Removed,
    #[error("the peer has connected anew")]
    Replaced,
    #[error("the node's address has changed")]
    Moved,
    #[error("this node stops")]
    Stopping,
}

/// Why a connection did not get as far as its hello, or not beyond it.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    #[error(transparent)]
    Tls(#[from] NodeAcceptError),
    #[error("the hello was not there within {0:?}")]
    SlowHello(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("a hello of {0} bytes")]
    Length(u32),
}
