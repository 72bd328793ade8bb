//! Builds an object from record batches, without copying them.
//!
//! Runs must come in ascending order of partition, batches in ascending order of offset. The result is a list of
//! pieces for a vectored write: bodies of batches are passed on by reference, only what is small (headers, heads,
//! short bodies) is copied into pieces of the builder's own. The checksum of a block grows as batches arrive.

use bytes::{Bytes, BytesMut};

use crate::base::checksum::Crc32c;
use crate::base::{ClusterId, ObjectId, Offset, PartitionId};
use crate::batch::StoredBatch;
use crate::metadata::Range;

use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, DirectoryEntry, RUNS_MAX, TRAILER_BYTES, Trailer, encode_directory, encode_header,
};
use super::run::{BlockEntry, RunIndex};
use super::state::PartitionState;

/// A block is closed before it grows beyond this; a batch that is larger alone makes a block of its own.
pub const BLOCK_BYTES: usize = 1024 * 1024;
/// Largest object. One PUT uploads it whole, because only a PUT can be conditional everywhere.
pub const OBJECT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What an uploader should aim at.
pub const OBJECT_BYTES_TARGET: u64 = 64 * 1024 * 1024;
/// Shorter bodies are copied: a piece of their own would cost more than it saves.
const COPY_BYTES: usize = 2 * 1024;
/// Allocation that heads and short bodies share.
const SCRATCH_BYTES: usize = 64 * 1024;

const _: () = assert!(crate::base::limits::BATCH_BYTES_MAX as u64 * 2 < OBJECT_BYTES_MAX, "a largest batch must fit");
const _: () = assert!(OBJECT_BYTES_MAX < u32::MAX as u64, "lengths within an object are 32 bits wide");

/// Why a run cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("partition {0} is not in ascending order")]
    PartitionOrder(PartitionId),
    #[error("offset {found} of partition {partition} is not in ascending order or outside its range")]
    OffsetOrder { partition: PartitionId, found: Offset },
    #[error("partition {0} has no batch to store")]
    Empty(PartitionId),
    #[error("the object would exceed {OBJECT_BYTES_MAX} bytes or {RUNS_MAX} runs")]
    TooLarge,
}

/// A finished object, not yet stored.
#[derive(Debug, Clone)]
pub struct Built {
    pub object: ObjectId,
    /// Its bytes, in order.
    pub pieces: Vec<Bytes>,
    pub bytes: u64,
    /// For the command that commits it.
    pub ranges: Vec<Range>,
}

/// Collects runs; see the module.
pub struct ObjectBuilder {
    cluster: ClusterId,
    object: ObjectId,
    pieces: Vec<Bytes>,
    bytes: u64,
    header_crc: u32,
    entries: Vec<DirectoryEntry>,
    scratch: BytesMut,
}

impl ObjectBuilder {
    pub fn new(cluster: ClusterId, object: ObjectId) -> Self {
        let header = encode_header(cluster, object);
        ObjectBuilder {
            cluster,
            object,
            bytes: header.len() as u64,
            header_crc: trailing_crc(&header),
            pieces: vec![header],
            entries: Vec::new(),
            scratch: BytesMut::new(),
        }
    }

    /// Bytes so far, without directory and trailer.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the run of `partition` that covers offsets `base..end`; `state` is the partition's exactly as of `end`.
    /// After an error the builder must be dropped.
    pub fn add_partition(
        &mut self,
        partition: PartitionId,
        base: Offset,
        end: Offset,
        state: &PartitionState,
        batches: impl IntoIterator<Item = StoredBatch>,
    ) -> Result<(), BuildError> {
        if self.entries.last().is_some_and(|last| last.range.partition >= partition) {
            return Err(BuildError::PartitionOrder(partition));
        }
        let room = OBJECT_BYTES_MAX.saturating_sub(self.bytes);
        let mut run = PendingRun::new(partition, base, end, room);
        for batch in batches {
            run.add(batch, &mut self.scratch)?;
        }
        run.close_block(&mut self.scratch);
        if run.blocks.is_empty() {
            return Err(BuildError::Empty(partition));
        }
        self.push_run(run, state)
    }

    fn push_run(&mut self, run: PendingRun, state: &PartitionState) -> Result<(), BuildError> {
        let start = self.bytes;
        let index_bytes = RunIndex::encoded_bytes(run.blocks.len());
        let state_section = state.encode(self.object, start);
        let mut position = start + (index_bytes + state_section.len()) as u64;
        let mut blocks = Vec::with_capacity(run.blocks.len());
        for block in &run.blocks {
            let length = (block.bytes + BLOCK_HEADER_BYTES) as u32;
            blocks.push(BlockEntry {
                base: block.base,
                end: block.end,
                position,
                length,
                max_timestamp: block.max_timestamp,
            });
            position += length as u64;
        }
        if position > OBJECT_BYTES_MAX || self.entries.len() >= RUNS_MAX {
            return Err(BuildError::TooLarge);
        }
        let index = RunIndex {
            object: self.object,
            position: start,
            index_bytes: index_bytes as u32,
            state_bytes: state_section.len() as u32,
            partition: run.partition,
            base: run.base,
            end: run.end,
            bytes: run.bytes,
            records: run.records,
            max_timestamp: run.max_timestamp,
            first_timestamp: run.first_timestamp,
            log_start: state.log_start,
            blocks,
        };
        let within = |&&(_, first): &&(_, Offset)| run.base <= first && first < run.end;
        let range = Range {
            partition: run.partition,
            base: run.base,
            end: run.end,
            bytes: run.bytes,
            records: run.records,
            max_timestamp: run.max_timestamp,
            first_timestamp: run.first_timestamp,
            position: start,
            length: (position - start) as u32,
            epochs: state.epochs.iter().filter(within).copied().collect(),
        };
        self.pieces.push(index.encode());
        self.pieces.push(state_section);
        for (block, entry) in run.blocks.into_iter().zip(&index.blocks) {
            let header = block.header(self.object, run.partition, entry.position);
            self.pieces.push(header.encode());
            self.pieces.extend(block.pieces);
        }
        self.entries.push(DirectoryEntry { range, log_start: state.log_start });
        self.bytes = position;
        Ok(())
    }

    /// Closes the object.
    pub fn finish(mut self) -> Built {
        let directory = encode_directory(self.cluster, self.object, &self.entries);
        let object_bytes = self.bytes + (directory.len() + TRAILER_BYTES) as u64;
        let trailer = Trailer {
            object: self.object,
            object_bytes,
            directory_position: self.bytes,
            directory_bytes: directory.len() as u32,
            directory_crc: trailing_crc(&directory),
            header_crc: self.header_crc,
        };
        self.pieces.push(directory);
        self.pieces.push(trailer.encode());
        let ranges = self.entries.into_iter().map(|entry| entry.range).collect();
        Built { object: self.object, pieces: self.pieces, bytes: object_bytes, ranges }
    }
}

/// The CRC that stands at the end of a sealed part.
pub(super) fn trailing_crc(part: &[u8]) -> u32 {
    part.last_chunk().map_or(0, |crc| u32::from_be_bytes(*crc))
}

struct PendingBlock {
    pieces: Vec<Bytes>,
    crc: u32,
    bytes: usize,
    batches: u32,
    base: Offset,
    end: Offset,
    max_timestamp: i64,
}

impl PendingBlock {
    fn header(&self, object: ObjectId, partition: PartitionId, position: u64) -> BlockHeader {
        BlockHeader {
            object,
            position,
            partition,
            base: self.base,
            end: self.end,
            payload_bytes: self.bytes as u32,
            payload_crc: self.crc,
            batches: self.batches,
        }
    }
}

/// A run while its batches arrive; `open` is the block that still grows.
struct PendingRun {
    partition: PartitionId,
    base: Offset,
    end: Offset,
    room: u64,
    blocks: Vec<PendingBlock>,
    open: PendingBlock,
    open_crc: Crc32c,
    next: Offset,
    bytes: u64,
    records: u64,
    max_timestamp: i64,
    first_timestamp: i64,
}

impl PendingRun {
    fn new(partition: PartitionId, base: Offset, end: Offset, room: u64) -> Self {
        PendingRun {
            partition,
            base,
            end,
            room,
            blocks: Vec::new(),
            open: empty_block(),
            open_crc: Crc32c::new(),
            next: base,
            bytes: 0,
            records: 0,
            max_timestamp: -1,
            first_timestamp: -1,
        }
    }

    fn add(&mut self, batch: StoredBatch, scratch: &mut BytesMut) -> Result<(), BuildError> {
        let header = batch.header();
        let (first, end) = (header.base_offset, header.next_offset());
        if first < self.next || end <= first || end > self.end {
            return Err(BuildError::OffsetOrder { partition: self.partition, found: first });
        }
        let bytes = batch.len();
        if self.bytes + bytes as u64 > self.room {
            return Err(BuildError::TooLarge);
        }
        if self.open.bytes > 0 && self.open.bytes + bytes > BLOCK_BYTES {
            self.close_block(scratch);
        }
        // What compaction has emptied has no times that a look-up or retention could use.
        let has_records = header.record_count > 0;
        if has_records && self.records == 0 {
            self.first_timestamp =
                if header.delete_horizon().is_some() { header.max_timestamp } else { header.base_timestamp };
        }
        if self.open.bytes == 0 {
            self.open.base = first;
        }
        self.open_crc.update(&batch.head);
        self.open_crc.update(&batch.body);
        self.push_pieces(batch, scratch);
        self.open.bytes += bytes;
        self.open.batches += 1;
        self.open.end = end;
        self.next = end;
        self.bytes += bytes as u64;
        self.records += header.record_count.max(0) as u64;
        if has_records {
            self.open.max_timestamp = self.open.max_timestamp.max(header.max_timestamp);
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        }
        Ok(())
    }

    fn push_pieces(&mut self, batch: StoredBatch, scratch: &mut BytesMut) {
        let copied = batch.head.len() + if batch.body.len() < COPY_BYTES { batch.body.len() } else { 0 };
        if scratch.capacity() - scratch.len() < copied {
            // What is written so far is handed on first: growing would copy it.
            take_scratch(&mut self.open.pieces, scratch);
            *scratch = BytesMut::with_capacity(SCRATCH_BYTES);
        }
        scratch.extend_from_slice(&batch.head);
        if batch.body.len() < COPY_BYTES {
            scratch.extend_from_slice(&batch.body);
        } else {
            take_scratch(&mut self.open.pieces, scratch);
            self.open.pieces.push(batch.body);
        }
    }

    fn close_block(&mut self, scratch: &mut BytesMut) {
        if self.open.bytes == 0 {
            return;
        }
        take_scratch(&mut self.open.pieces, scratch);
        let mut block = std::mem::replace(&mut self.open, empty_block());
        block.crc = std::mem::take(&mut self.open_crc).finish();
        self.blocks.push(block);
    }
}

fn empty_block() -> PendingBlock {
    PendingBlock {
        pieces: Vec::new(),
        crc: 0,
        bytes: 0,
        batches: 0,
        base: Offset::ZERO,
        end: Offset::ZERO,
        max_timestamp: -1,
    }
}

fn take_scratch(pieces: &mut Vec<Bytes>, scratch: &mut BytesMut) {
    if !scratch.is_empty() {
        pieces.push(scratch.split().freeze());
    }
}
