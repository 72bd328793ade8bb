//! The index section of a run: which block holds which offsets and times.
//!
//! It stands first in its run, so that one fetch of the run's first bytes yields the index and, of a small run, all
//! of it. Invariant, checked when it is decoded: index, state and blocks fill the run without gap or overlap, and
//! the blocks' offsets ascend within the run's.

use bytes::Bytes;

use crate::base::codec::{Reader, Writer};
use crate::base::{ObjectId, Offset, PartitionId};
use crate::batch::{Header, StoredBatch};

use super::format::{
    BLOCK_HEADER_BYTES, FormatError, INDEX_MAGIC, checked, expect, read_partition, read_prefix, sealed,
    write_partition, write_prefix,
};

/// Bytes of an index section without blocks.
const INDEX_BYTES_MIN: usize = 12 + 8 + 8 + 4 + 4 + 20 + 7 * 8 + 4 + 4;
/// Where the lengths of the index and state sections stand.
const LENGTHS_AT: usize = 12 + 8 + 8;
const BLOCK_ENTRY_BYTES: usize = 36;

/// One block of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Of the block's header, in the object.
    pub position: u64,
    /// Bytes with the header.
    pub length: u32,
    /// Unix ms.
    pub max_timestamp: i64,
}

/// The decoded index section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIndex {
    pub object: ObjectId,
    pub position: u64,
    pub index_bytes: u32,
    pub state_bytes: u32,
    pub partition: PartitionId,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Bytes of the batches.
    pub bytes: u64,
    pub records: u64,
    /// Unix ms; −1 if there is none.
    pub max_timestamp: i64,
    /// Unix ms; −1 if there is none.
    pub first_timestamp: i64,
    pub log_start: Offset,
    pub blocks: Vec<BlockEntry>,
}

impl RunIndex {
    /// Bytes of the index section of a run of `blocks` blocks.
    pub(super) fn encoded_bytes(blocks: usize) -> usize {
        INDEX_BYTES_MIN + blocks * BLOCK_ENTRY_BYTES
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        write_prefix(&mut w, INDEX_MAGIC);
        w.u64(self.object.0).u64(self.position).u32(self.index_bytes).u32(self.state_bytes);
        write_partition(&mut w, self.partition);
        w.i64(self.base.0).i64(self.end.0).u64(self.bytes).u64(self.records);
        w.i64(self.max_timestamp).i64(self.first_timestamp).i64(self.log_start.0);
        w.count(self.blocks.len());
        for block in &self.blocks {
            w.i64(block.base.0).i64(block.end.0).u64(block.position).u32(block.length).i64(block.max_timestamp);
        }
        sealed(w)
    }

    /// How long the index section claims to be, from the first bytes of a run: unverified, at most `run_bytes`.
    pub(super) fn claimed_bytes(run: &[u8], run_bytes: u32) -> Result<usize, FormatError> {
        let mut r = Reader::new(run.get(LENGTHS_AT..).unwrap_or(&[]));
        let claimed = r.u32()?;
        if claimed > run_bytes || (claimed as usize) < INDEX_BYTES_MIN {
            return Err(FormatError::Length { expected: run_bytes.into(), bytes: claimed.into() });
        }
        Ok(claimed as usize)
    }

    /// Verifies the index section of the run of `partition` at `position` of `object`, `run_bytes` long.
    pub(super) fn decode(
        bytes: &[u8],
        object: ObjectId,
        partition: PartitionId,
        position: u64,
        run_bytes: u32,
    ) -> Result<Self, FormatError> {
        let mut r = Reader::new(checked(bytes)?);
        read_prefix(&mut r, INDEX_MAGIC)?;
        expect("object id", object.0, r.u64()?)?;
        expect("position", position, r.u64()?)?;
        let (index_bytes, state_bytes) = (r.u32()?, r.u32()?);
        expect("index length", bytes.len() as u64, index_bytes.into())?;
        let found = read_partition(&mut r)?;
        if found != partition {
            return Err(FormatError::Partition(found));
        }
        let mut index = RunIndex {
            object,
            position,
            index_bytes,
            state_bytes,
            partition,
            base: Offset(r.i64()?),
            end: Offset(r.i64()?),
            bytes: r.u64()?,
            records: r.u64()?,
            max_timestamp: r.i64()?,
            first_timestamp: r.i64()?,
            log_start: Offset(r.i64()?),
            blocks: Vec::new(),
        };
        let count = r.count(BLOCK_ENTRY_BYTES)?;
        index.blocks.reserve_exact(count);
        for _ in 0..count {
            index.blocks.push(BlockEntry {
                base: Offset(r.i64()?),
                end: Offset(r.i64()?),
                position: r.u64()?,
                length: r.u32()?,
                max_timestamp: r.i64()?,
            });
        }
        r.finish()?;
        index.check_tiling(run_bytes)?;
        Ok(index)
    }

    fn check_tiling(&self, run_bytes: u32) -> Result<(), FormatError> {
        let mut next = self.position.saturating_add(self.index_bytes.into()).saturating_add(self.state_bytes.into());
        let mut from = self.base;
        for block in &self.blocks {
            expect("block position", next, block.position)?;
            let ordered = from <= block.base && block.base < block.end && block.end <= self.end;
            expect("order of the blocks", 1, ordered.into())?;
            if (block.length as usize) <= BLOCK_HEADER_BYTES {
                let expected = BLOCK_HEADER_BYTES as u64 + 1;
                return Err(FormatError::Length { expected, bytes: block.length.into() });
            }
            next = next.saturating_add(block.length.into());
            from = block.end;
        }
        expect("end of the run", self.position.saturating_add(run_bytes.into()), next)
    }

    /// The first block with an offset at or after `from`.
    pub fn block_at(&self, from: Offset) -> usize {
        self.blocks.partition_point(|block| block.end <= from)
    }

    /// Bytes that the decoded index occupies, for the cache.
    pub(super) fn memory_bytes(&self) -> u64 {
        (size_of::<Self>() + self.blocks.capacity() * size_of::<BlockEntry>()) as u64
    }
}

/// The batches of a verified block, as slices of it.
pub struct Batches {
    payload: Bytes,
    at: usize,
}

impl Batches {
    pub fn new(payload: Bytes) -> Self {
        Batches { payload, at: 0 }
    }
}

impl Iterator for Batches {
    /// The header, and the place of the batch in the block.
    type Item = Result<(Header, BatchSlice), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.payload.len() {
            return None;
        }
        let parsed = Header::parse(&self.payload[self.at..]);
        let header = match parsed {
            Ok(header) => header,
            Err(error) => {
                self.at = self.payload.len();
                return Some(Err(error.into()));
            }
        };
        let slice = BatchSlice { from: self.at, bytes: header.total_bytes() };
        self.at += slice.bytes;
        Some(Ok((header, slice)))
    }
}

/// A batch within the payload of a block; cut out only when it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct BatchSlice {
    from: usize,
    pub bytes: usize,
}

impl BatchSlice {
    pub fn cut(self, payload: &Bytes) -> Result<StoredBatch, FormatError> {
        Ok(StoredBatch::from_contiguous(payload.slice(self.from..self.from + self.bytes))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> RunIndex {
        let index_bytes = RunIndex::encoded_bytes(2) as u32;
        let first = 44 + index_bytes as u64 + 10;
        let block = |base: i64, position| BlockEntry {
            base: Offset(base),
            end: Offset(base + 10),
            position,
            length: 100,
            max_timestamp: base,
        };
        RunIndex {
            object: ObjectId(5),
            position: 44,
            index_bytes,
            state_bytes: 10,
            partition: PartitionId::default(),
            base: Offset(0),
            end: Offset(40),
            bytes: 24,
            records: 20,
            max_timestamp: 20,
            first_timestamp: 0,
            log_start: Offset(0),
            blocks: vec![block(0, first), block(20, first + 100)],
        }
    }

    fn decode(index: &RunIndex) -> Result<RunIndex, FormatError> {
        let run_bytes = RunIndex::encoded_bytes(2) as u32 + 210;
        RunIndex::decode(&index.encode(), ObjectId(5), PartitionId::default(), 44, run_bytes)
    }

    #[test]
    fn an_index_comes_back_and_finds_blocks_by_offset() {
        let index = index();
        assert_eq!(index.encode().len(), RunIndex::encoded_bytes(2));
        assert_eq!(decode(&index).as_ref(), Ok(&index));
        // Offsets 10..20 were compacted away: the next block has what comes after them.
        let found: Vec<_> = [0, 9, 10, 19, 20, 29, 30].map(|o| index.block_at(Offset(o))).into();
        assert_eq!(found, [0, 0, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn gaps_and_overlaps_are_refused_even_with_a_valid_checksum() {
        for change in [
            |i: &mut RunIndex| i.blocks[1].position += 1,
            |i: &mut RunIndex| i.blocks[1].length -= 1,
            |i: &mut RunIndex| i.blocks[1].base = Offset(5),
            |i: &mut RunIndex| i.blocks[1].end = Offset(41),
            |i: &mut RunIndex| i.state_bytes += 1,
            |i: &mut RunIndex| i.blocks[0].length = 1,
        ] {
            let mut index = index();
            change(&mut index);
            assert!(decode(&index).is_err());
        }
    }
}
