//! The nodes of the cluster: who was invited, who has joined, and by which certificate each is known.
//!
//! A cluster whose only node was made before there were such records has none; that node then serves without one until it
//! records itself. From the first record on, whoever registers as a broker must have joined.

use crate::base::{DirectoryId, NodeId};

use super::image::Image;

/// The SHA-256 of a one-time token. The token itself is in no command and no image.
pub type TokenHash = [u8; 32];

/// A server that belongs to the cluster, or is invited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What people call it; no two nodes have the same.
    pub name: String,
    /// Where it stands: a rack or a zone. May be empty.
    pub rack: String,
    /// Where the other nodes reach it; no two nodes have the same place.
    pub host: String,
    pub port: u16,
    /// The subject of its certificate as RFC 2253 text; no two nodes have the same.
    pub identity: String,
    /// Of the invitation, kept after it was used: so a used bundle is told from a wrong one. Zeros if there was none.
    pub token_sha256: TokenHash,
    pub state: NodeState,
    /// Unix ms.
    pub added_ms: i64,
    /// Its partitions are moved to other nodes, and no ledger takes it as a replica if there is another one.
    pub draining: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// May join until then, Unix ms.
    Invited { expires_ms: i64 },
    /// Belongs to the cluster, with this metadata folder and no other. Zero only for the first node of a cluster that was
    /// made before folders had an id.
    Joined { directory: DirectoryId },
}

impl Node {
    /// The folder with which it has joined.
    pub fn directory(&self) -> Option<DirectoryId> {
        match self.state {
            NodeState::Joined { directory } => Some(directory),
            NodeState::Invited { .. } => None,
        }
    }
}

impl Image {
    /// Whether partitions and ledgers are to leave the node.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.draining)
    }

    /// Whether the broker of `node` may open a ledger with no replica but its own.
    ///
    /// A node alone may, and so may one beside which every other node is being drained. Of two nodes one may while the other
    /// has no broker, or a fenced one: a cluster that has just grown from one, or shrinks to one, goes on, and it does not
    /// survive a loss anyway. With three or more nodes never: what is acknowledged there is on two nodes.
    pub fn may_write_alone(&self, node: NodeId) -> bool {
        let others = self.nodes.iter().filter(|(other, known)| **other != node && known.directory().is_some());
        let others: Vec<_> = others.collect();
        if others.iter().all(|(_, known)| known.draining) {
            return true;
        }
        match others[..] {
            [(other, _)] => self.brokers.get(other).is_none_or(|broker| broker.fenced),
            _ => false,
        }
    }

    /// The lowest id that no node has or had; what `AddNode` is proposed with. `i32::MAX` is never given out.
    pub fn next_free_node(&self) -> NodeId {
        let after_brokers = self.brokers.last_key_value().map_or(0, |(node, _)| node.0.saturating_add(1));
        NodeId(self.next_node.max(after_brokers))
    }
}
