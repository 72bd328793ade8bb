//! What the store knows about its copies, for operators.

use std::sync::atomic::AtomicU64;

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Puts that counted with fewer copies than they should have.
    pub short_puts: AtomicU64,
    /// Copies fetched because this node lacked them, and their bytes.
    pub fetched: AtomicU64,
    pub fetched_bytes: AtomicU64,
    /// Reads that another node answered.
    pub remote_reads: AtomicU64,
    /// Copies found damaged on this node, and those put right again.
    pub damaged: AtomicU64,
    pub restored: AtomicU64,
    /// Bytes of own copies that were read and checked in the background.
    pub scrubbed_bytes: AtomicU64,
    /// Copies removed because the metadata do not know them.
    pub removed: AtomicU64,
    /// Comparisons of this node's copies with the other nodes'.
    pub passes: AtomicU64,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Nodes that keep copies together; 0 while they are not known yet.
    pub nodes: usize,
    /// Copies that everything should have.
    pub copies: usize,
    /// Objects and snapshots with fewer copies than they should have, as far as is known.
    pub debt: u64,
    /// Whether all nodes have answered the last comparison, with the nodes of now.
    pub compared: bool,
    /// Whether this node has had everything that belongs on it.
    pub complete: bool,
    /// Copies on this node that are damaged and were not put right yet.
    pub suspects: usize,
}

impl Status {
    /// Whether everything stored outlives the loss of any one node. Never true on a guess.
    pub fn survives_one_loss(&self) -> bool {
        self.nodes >= 2 && self.compared && self.debt == 0 && self.suspects == 0
    }
}
