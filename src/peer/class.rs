//! Classes of traffic, each with a connection and bounds of its own, so that bulk never delays a vote.

use std::fmt;
use std::time::Duration;

use crate::base::limits::{
    PEER_BULK_BODY_BYTES_MAX, PEER_BULK_BYTES_MAX, PEER_CONNECTIONS_MAX, PEER_CONTROL_BODY_BYTES_MAX,
    PEER_CONTROL_BYTES_MAX, PEER_GREETINGS_MAX, PEER_LEDGER_BODY_BYTES_MAX, PEER_LEDGER_BYTES_MAX,
    PEER_RAFT_BODY_BYTES_MAX, PEER_RAFT_BYTES_MAX, PEER_REQUESTS_MAX, PEER_TOOLS_MAX,
};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Consensus: small, and the first to go.
    Raft,
    /// Entries of ledgers on their way to replicas.
    Ledger,
    /// Proposals, leases, and the node's own tools; the only class of a node that is joining.
    Control,
    /// Whatever may take its time: copies of tails, reads, snapshots.
    Bulk,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Raft, Class::Ledger, Class::Control, Class::Bulk];

    /// Its number on the wire, never reused.
    pub fn code(self) -> u8 {
        match self {
            Class::Raft => 1,
            Class::Ledger => 2,
            Class::Control => 3,
            Class::Bulk => 4,
        }
    }

    pub fn from_code(code: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.code() == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::Raft => "raft",
            Class::Ledger => "ledger",
            Class::Control => "control",
            Class::Bulk => "bulk",
        }
    }

    /// Its place in [`Class::ALL`].
    pub(super) fn index(self) -> usize {
        usize::from(self.code() - 1)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bounds of a connection of one class, on either side.
#[derive(Debug, Clone)]
pub struct ClassLimits {
    /// Bytes of one request or answer.
    pub body_bytes_max: usize,
    /// Requests under way.
    pub requests_max: usize,
    /// Bytes under way; one request is always admitted.
    pub bytes_max: usize,
    /// A connection without other traffic says so often that it is alive.
    pub alive_every: Duration,
    /// A connection that has heard nothing for so long is closed.
    pub silence_max: Duration,
    /// From the first byte of a frame to its last.
    pub frame_timeout: Duration,
}

impl ClassLimits {
    fn new(class: Class) -> ClassLimits {
        let (body_bytes_max, bytes_max, silence_secs, frame_secs) = match class {
            Class::Raft => (PEER_RAFT_BODY_BYTES_MAX, PEER_RAFT_BYTES_MAX, 3, 10),
            Class::Ledger => (PEER_LEDGER_BODY_BYTES_MAX, PEER_LEDGER_BYTES_MAX, 5, 30),
            Class::Control => (PEER_CONTROL_BODY_BYTES_MAX, PEER_CONTROL_BYTES_MAX, 5, 10),
            Class::Bulk => (PEER_BULK_BODY_BYTES_MAX, PEER_BULK_BYTES_MAX, 10, 60),
        };
        ClassLimits {
            body_bytes_max,
            requests_max: PEER_REQUESTS_MAX,
            bytes_max,
            alive_every: Duration::from_millis(500),
            silence_max: Duration::from_secs(silence_secs),
            frame_timeout: Duration::from_secs(frame_secs),
        }
    }
}

/// Bounds and times of the plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// In the order of [`Class::ALL`].
    pub classes: [ClassLimits; 4],
    /// Connections of other nodes.
    pub connections_max: usize,
    /// Connections that have not said who they are.
    pub greetings_max: usize,
    /// Connections of the node's own tools.
    pub tools_max: usize,
    /// To connect to one address.
    pub connect_timeout: Duration,
    pub handshake_timeout: Duration,
    /// From the end of the handshake until the hello is answered.
    pub hello_timeout: Duration,
    /// Wait before the second attempt to reach a node; doubled from one to the next, and jittered.
    pub backoff_first: Duration,
    pub backoff_last: Duration,
    /// From the signal to stop until requests that are under way are abandoned.
    pub drain_timeout: Duration,
}

impl Options {
    pub fn class(&self, class: Class) -> &ClassLimits {
        &self.classes[class.index()]
    }

    pub fn class_mut(&mut self, class: Class) -> &mut ClassLimits {
        &mut self.classes[class.index()]
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            classes: Class::ALL.map(ClassLimits::new),
            connections_max: PEER_CONNECTIONS_MAX,
            greetings_max: PEER_GREETINGS_MAX,
            tools_max: PEER_TOOLS_MAX,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(5),
            backoff_first: Duration::from_millis(50),
            backoff_last: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
