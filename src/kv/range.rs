//! Key family `Range`: which object holds which offsets of a partition.
//!
//! Key: family `u8` | topic 16 bytes | partition index `u32` | first offset `u64` with its sign bit flipped, so that
//! keys sort as offsets do. Value: `RangeEntry` in its own versioned form. Ranges of a partition never overlap, so
//! the range that holds an offset is the last one that begins at or below it.

use super::{Family, Kv, ReadError};
use crate::base::codec::{DecodeError, Reader};
use crate::base::{Offset, PartitionId, TopicId};
use crate::metadata::RangeEntry;

const KEY_BYTES: usize = 29;
const SIGN: u64 = 1 << 63;

pub fn key(partition: PartitionId, base: Offset) -> [u8; KEY_BYTES] {
    let mut key = [Family::Range as u8; KEY_BYTES];
    key[1..17].copy_from_slice(&partition.topic.0);
    key[17..21].copy_from_slice(&(partition.index as u32).to_be_bytes());
    key[21..].copy_from_slice(&(base.0 as u64 ^ SIGN).to_be_bytes());
    key
}

pub fn decode(key: &[u8], value: &[u8]) -> Result<(PartitionId, Offset, RangeEntry), DecodeError> {
    let mut r = Reader::new(key);
    r.u8()?;
    let partition = PartitionId { topic: TopicId(r.array()?), index: r.i32()? };
    let base = Offset((r.u64()? ^ SIGN) as i64);
    r.finish()?;
    Ok((partition, base, RangeEntry::decode(value)?))
}

/// First key after all ranges of the partition.
fn end_of(partition: PartitionId) -> Vec<u8> {
    // The largest offset is never the base of a range, which holds at least one record.
    key(partition, Offset(i64::MAX)).to_vec()
}

impl Kv {
    pub fn range(&self, partition: PartitionId, base: Offset) -> Result<Option<RangeEntry>, ReadError> {
        let value = self.get(&key(partition, base))?;
        value.map(|v| RangeEntry::decode(&v)).transpose().map_err(ReadError::decode(Family::Range))
    }

    /// Ranges with `from <= base < to`, ascending, at most `limit`.
    pub fn ranges(
        &self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, RangeEntry)>, ReadError> {
        let mut ranges = Vec::new();
        if from >= to || limit == 0 {
            return Ok(ranges);
        }
        self.scan(&key(partition, from), &key(partition, to), &mut |key, value| {
            let (_, base, entry) = decode(key, value).map_err(ReadError::decode(Family::Range))?;
            ranges.push((base, entry));
            Ok(ranges.len() < limit)
        })?;
        Ok(ranges)
    }

    /// The range that holds `offset`.
    pub fn range_holding(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<(Offset, RangeEntry)>, ReadError> {
        let (from, to) = (key(partition, Offset(i64::MIN)), key(partition, offset.plus(1)));
        let Some((key, value)) = self.last(&from, &to)? else { return Ok(None) };
        let (_, base, entry) = decode(&key, &value).map_err(ReadError::decode(Family::Range))?;
        Ok((offset >= base && offset < entry.end).then_some((base, entry)))
    }

    /// The first range that begins at or above `from`.
    pub fn next_range(&self, partition: PartitionId, from: Offset) -> Result<Option<(Offset, RangeEntry)>, ReadError> {
        let mut found = None;
        self.scan(&key(partition, from), &end_of(partition), &mut |key, value| {
            let (_, base, entry) = decode(key, value).map_err(ReadError::decode(Family::Range))?;
            found = Some((base, entry));
            Ok(false)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectId;
    use crate::kv::{Batch, Durability};

    fn entry(end: i64) -> RangeEntry {
        RangeEntry {
            object: ObjectId(3),
            end: Offset(end),
            bytes: 100,
            records: 10,
            max_timestamp: 5,
            first_timestamp: 4,
            position: 64,
            length: 100,
        }
    }

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: TopicId([7; 16]), index }
    }

    #[test]
    fn keys_sort_as_offsets_do_and_come_back() {
        let value = entry(9).encode();
        let offsets = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX];
        for pair in offsets.windows(2) {
            assert!(key(partition(1), Offset(pair[0])) < key(partition(1), Offset(pair[1])));
        }
        for offset in offsets {
            let key = key(partition(9), Offset(offset));
            assert_eq!(decode(&key, &value), Ok((partition(9), Offset(offset), entry(9))));
        }
        assert!(decode(&key(partition(1), Offset(0))[..28], &value).is_err());
    }

    #[test]
    fn an_offset_is_found_in_the_range_that_holds_it_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let mut batch = Batch::default();
        for (base, end) in [(0, 10), (10, 20), (30, 40)] {
            batch.put(key(partition(1), Offset(base)), entry(end).encode());
        }
        batch.put(key(partition(2), Offset(0)), entry(100).encode());
        kv.write(batch, Durability::Ordered).unwrap();

        let base = |offset| kv.range_holding(partition(1), Offset(offset)).unwrap().map(|(base, _)| base.0);
        assert_eq!([base(0), base(9), base(10), base(19)], [Some(0), Some(0), Some(10), Some(10)]);
        assert_eq!([base(20), base(29), base(40), base(-1), base(i64::MAX)], [None; 5]);
        let next = |from| kv.next_range(partition(1), Offset(from)).unwrap().map(|(base, _)| base.0);
        assert_eq!([next(0), next(1), next(30), next(31)], [Some(0), Some(10), Some(30), None]);
        let ranges = kv.ranges(partition(1), Offset(0), Offset(30), 9).unwrap();
        assert_eq!(ranges.iter().map(|(base, _)| base.0).collect::<Vec<_>>(), [0, 10]);
        assert_eq!(kv.ranges(partition(1), Offset(0), Offset(30), 1).unwrap().len(), 1);
    }
}
