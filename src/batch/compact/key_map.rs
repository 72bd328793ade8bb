//! The newest offset of each key, in memory of a fixed size.
//!
//! As in Kafka an entry is 16 bytes of a key's hash and 8 of an offset, in an open table that is filled up to a load
//! factor. Two keys with the same 128 bits would be taken for one, so the hash is SipHash under a random salt:
//! nobody who chooses keys can make them collide.

use std::hash::{DefaultHasher, Hasher};

use crate::base::Offset;

/// Bytes of one entry.
pub const ENTRY_BYTES: u64 = 24;
/// Kafka's bound of the buffer of one cleaner thread.
const BUFFER_BYTES_MAX: u64 = i32::MAX as u64;
/// Entries of the smallest table: any pass gets on.
const SLOTS_MIN: u64 = 16;

/// Two halves of the hash, then the offset plus one: zero is a free place.
type Slot = [u64; 3];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyMapError {
    #[error("there is no memory for a map of {0} keys; lower log.cleaner.dedupe.buffer.size")]
    NoMemory(u64),
}

/// See the module.
#[derive(Debug)]
pub struct KeyMap {
    slots: Vec<Slot>,
    salt: [u8; 16],
    len: usize,
    len_max: usize,
}

impl KeyMap {
    /// A map in at most `buffer_bytes`, filled up to `load_percent` (1 to 100) of its places. It takes no more memory
    /// than `keys_expected` keys need.
    pub fn new(
        buffer_bytes: u64,
        load_percent: u32,
        keys_expected: u64,
        salt: [u8; 16],
    ) -> Result<KeyMap, KeyMapError> {
        let percent = u64::from(load_percent.clamp(1, 100));
        let affordable = buffer_bytes.min(BUFFER_BYTES_MAX) / ENTRY_BYTES;
        let useful = (keys_expected.saturating_mul(100) / percent).saturating_add(1);
        let wanted = affordable.min(useful).max(SLOTS_MIN);
        // A place always stays free, so that every search ends.
        let len_max = (wanted * percent / 100).clamp(1, wanted - 1);
        let count = usize::try_from(wanted).map_err(|_| KeyMapError::NoMemory(wanted))?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).map_err(|_| KeyMapError::NoMemory(wanted))?;
        slots.resize(count, [0; 3]);
        Ok(KeyMap { slots, salt, len: 0, len_max: len_max as usize })
    }

    /// Records that `key` occurs at `offset`. False when the map is full and the key is not in it.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let stored = offset.0 as u64 + 1;
        let at = self.find(hash);
        let slot = &mut self.slots[at];
        if slot[2] != 0 {
            slot[2] = slot[2].max(stored);
            return true;
        }
        if self.len >= self.len_max {
            return false;
        }
        *slot = [hash[0], hash[1], stored];
        self.len += 1;
        true
    }

    /// The newest offset that was put for `key`.
    pub fn newest(&self, key: &[u8]) -> Option<Offset> {
        if self.len == 0 {
            return None;
        }
        let slot = self.slots[self.find(self.hash(key))];
        slot[2].checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// Keys in the map.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of the hash, or the free one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        // The high bits of the product: an even spread over any number of places, without a division.
        let mut at = ((hash[0] as u128 * count as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || (slot[0] == hash[0] && slot[1] == hash[1]) {
                return at;
            }
            at += 1;
            if at == count {
                at = 0;
            }
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let half = |salt: &[u8]| {
            let mut hasher = DefaultHasher::new();
            hasher.write(salt);
            hasher.write(key);
            hasher.finish()
        };
        [half(&self.salt[..8]), half(&self.salt[8..])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(buffer_bytes: u64, keys_expected: u64) -> KeyMap {
        KeyMap::new(buffer_bytes, 90, keys_expected, *b"0123456789abcdef").expect("small")
    }

    #[test]
    fn the_newest_offset_of_each_key_is_found() {
        let mut map = map(1 << 20, 10_000);
        for i in 0..10_000i64 {
            assert!(map.put(format!("key-{}", i % 1_000).as_bytes(), Offset(i)));
        }
        assert_eq!(map.len(), 1_000);
        for i in 0..1_000i64 {
            assert_eq!(map.newest(format!("key-{i}").as_bytes()), Some(Offset(9_000 + i)));
        }
        assert_eq!(map.newest(b"other"), None);
        assert!(map.put(b"key-1", Offset(3)));
        assert_eq!(map.newest(b"key-1"), Some(Offset(9_001)), "an older offset changes nothing");
    }

    #[test]
    fn a_full_map_takes_known_keys_only() {
        let mut map = map(100 * ENTRY_BYTES, u64::MAX);
        let taken = (0..200i64).take_while(|i| map.put(&i.to_be_bytes(), Offset(*i))).count();
        assert_eq!(taken, 90);
        assert!(map.put(&5i64.to_be_bytes(), Offset(500)));
        assert_eq!(map.newest(&5i64.to_be_bytes()), Some(Offset(500)));
        assert_eq!(map.newest(&90i64.to_be_bytes()), None);
    }

    #[test]
    fn memory_follows_the_need_and_never_the_claim() {
        assert_eq!(map(u64::MAX, 0).slots.len(), SLOTS_MIN as usize);
        assert_eq!(map(u64::MAX, 900).slots.len(), 1_001);
        let full = KeyMap::new(0, 100, 1_000, [0; 16]).expect("small");
        assert_eq!((full.slots.len(), full.len_max), (16, 15));
        assert_eq!(full.newest(b"x"), None);
    }
}
