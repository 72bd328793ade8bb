//! The names that nodes have in Raft.
//!
//! A voter is a node together with its metadata folder (KIP-853 calls the folder's id a directory id): a node that lost its
//! folder, and with it the memory of its votes, comes back under another name and has to be admitted anew. The name is the
//! directory id in the upper half of 64 bits and the node id in the lower one, so folders that were made before they had
//! ids, which count as directory 0, keep the name that they have in their logs.

use crate::base::{DirectoryId, NodeId};

/// The name of `node` with the folder `directory`; none for a node id that is negative.
pub(super) fn raft_id(node: NodeId, directory: DirectoryId) -> Option<u64> {
    Some(u64::from(directory.0) << 32 | u64::from(u32::try_from(node.0).ok()?))
}

/// The node behind a name.
pub(super) fn node_of(raft_id: u64) -> NodeId {
    NodeId((raft_id & 0x7fff_ffff) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_node_and_folder() {
        assert_eq!(raft_id(NodeId(3), DirectoryId(0)), Some(3));
        let name = raft_id(NodeId(i32::MAX), DirectoryId(u32::MAX)).unwrap();
        assert_eq!(node_of(name), NodeId(i32::MAX));
        assert_ne!(raft_id(NodeId(3), DirectoryId(1)), raft_id(NodeId(3), DirectoryId(2)));
        assert_eq!(raft_id(NodeId(-1), DirectoryId(1)), None);
    }
}
