//! Whether the topics that a group reads changed: one number over all of them (KIP-1101).
//!
//! The number is compared with itself only, so it need not be the one that Kafka computes. It must be the same after
//! a restart and in every later release, or every group rebalances once.

use crate::group::Topics;

/// A hash of names, ids, partition counts and racks of those topics that exist; names ascend. 0: none does.
pub fn metadata_hash<'a>(names: impl Iterator<Item = &'a String>, topics: &dyn Topics) -> i64 {
    let mut hash = Hash::new();
    let mut any = false;
    for name in names {
        let Some(id) = topics.id(name) else { continue };
        any = true;
        hash.bytes(name.as_bytes());
        hash.bytes(&id.0);
        let partitions = topics.partitions(id).unwrap_or(0).max(0);
        hash.word(partitions.unsigned_abs().into());
        for partition in 0..partitions {
            let mut racks = topics.racks(id, partition);
            racks.sort_unstable();
            for rack in racks {
                hash.word(partition.unsigned_abs().into());
                hash.bytes(rack.as_bytes());
            }
        }
    }
    // An epoch without topics and one with them must differ.
    if any { hash.finish().max(1) } else { 0 }
}

/// A 64-bit hash of a sequence of words: each is stirred in by the finaliser of SplitMix64.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0x6361_7365_6d61_7465)
    }

    fn word(&mut self, word: u64) {
        let mut z = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = (z ^ (z >> 31)).rotate_left(17);
    }

    /// Bytes with their length, so that two sequences never run together.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn finish(self) -> i64 {
        (self.0 >> 1) as i64
    }
}
