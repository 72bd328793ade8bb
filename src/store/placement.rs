//! On which nodes a key belongs, and how many copies count.
//!
//! Pure. Rendezvous hashing (Thaler and Ravishankar, 1996): every node has a score for every key and the highest have the
//! copies, so that a node which comes or goes moves only what it gains or loses.

use crate::base::NodeId;
use crate::object::StoredKey;

/// Copies of everything, where there are so many nodes.
pub const COPIES: usize = 3;

/// Copies that are aimed at with so many nodes.
pub fn copies(nodes: usize) -> usize {
    nodes.min(COPIES)
}

/// Copies with which a put counts: a majority of those aimed at, and never one alone where there are several nodes.
pub fn write_quorum(nodes: usize) -> usize {
    let copies = copies(nodes);
    (copies / 2 + 1).max(2).min(copies)
}

/// Nodes that must say "not here" before something is missing: more than could be without a copy of what counts.
pub fn missing_quorum(nodes: usize) -> usize {
    (nodes + 1).saturating_sub(write_quorum(nodes)).max(1)
}

/// All nodes, those first on which the key belongs.
pub fn order(key: StoredKey, nodes: &[NodeId]) -> Vec<NodeId> {
    let mut scored: Vec<_> = nodes.iter().map(|node| (score(key, *node), *node)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, node)| node).collect()
}

fn score(key: StoredKey, node: NodeId) -> u64 {
    let (a, b) = match key {
        StoredKey::Object(object) => (1, object.0),
        StoredKey::Snapshot { generation, applied } => (2 ^ generation.rotate_left(32), applied),
        StoredKey::Probe(nonce) => (3, nonce),
    };
    mixed(mixed(mixed(a) ^ b) ^ u64::from(node.0 as u32))
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the result.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectId;

    #[test]
    fn quorums_meet_and_one_loss_is_survived() {
        assert_eq!((1..=6).map(copies).collect::<Vec<_>>(), [1, 2, 3, 3, 3, 3]);
        assert_eq!((1..=6).map(write_quorum).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 2]);
        assert_eq!((1..=6).map(missing_quorum).collect::<Vec<_>>(), [1, 1, 2, 3, 4, 5]);
        for nodes in 2..9 {
            assert!(write_quorum(nodes) >= 2);
            assert!(write_quorum(nodes) + missing_quorum(nodes) > nodes, "a copy that counts is met");
        }
    }

    #[test]
    fn keys_spread_evenly_and_a_further_node_moves_few() {
        let nodes: Vec<_> = (1..=5).map(NodeId).collect();
        let mut held = [0; 5];
        let mut moved = 0;
        for id in 0..10_000 {
            let key = StoredKey::Object(ObjectId(id));
            let (four, five) = (order(key, &nodes[..4]), order(key, &nodes));
            five[..COPIES].iter().for_each(|node| held[node.0 as usize - 1] += 1);
            moved += five[..COPIES].iter().filter(|node| !four[..COPIES].contains(node)).count();
            let mut same = nodes.clone();
            same.reverse();
            assert_eq!(order(key, &same), five, "the order of the list means nothing");
        }
        assert!(held.iter().all(|count| (5_700..6_300).contains(count)), "{held:?}");
        assert!((5_700..6_300).contains(&moved), "only what the fifth node gets: {moved}");
    }
}
