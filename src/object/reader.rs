//! Reading the records of one run: by offset, by time, and ahead of a sequential reader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Offset, PartitionId};
use crate::batch::StoredBatch;
use crate::metadata::RangeEntry;

use super::cache::{PartCache, Place};
use super::error::{Part, ReadError, StoreError};
use super::format::BLOCK_HEADER_BYTES;
use super::run::{Batches, BlockEntry, RunIndex};
use super::state::{PartitionState, RunTransactions};
use super::store::transfer_time;

/// Longest time for one part, retries included, besides that for its bytes.
const READ: Duration = Duration::from_secs(30);
/// Read-ahead of a reader that has just turned out to be sequential.
const AHEAD_FIRST: u64 = 1024 * 1024;

/// Whole batches of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectRead {
    /// The first holds the offset that was asked for or, where it was compacted away, the next one.
    pub batches: Vec<StoredBatch>,
    pub bytes: usize,
    /// Where to go on reading: the end of the range when it has nothing more.
    pub next: Offset,
    /// Bytes by which the read-ahead reaches beyond this range: worth a [`prefetch`](super::Objects::prefetch) of the
    /// range that follows.
    pub ahead_bytes: u64,
}

/// One block of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSpan {
    /// Exclusive.
    pub end: Offset,
    /// Bytes of the batches.
    pub bytes: u64,
    /// Unix ms; −1 if there is none.
    pub max_timestamp: i64,
}

/// Reads runs through the cache.
pub(super) struct Reader {
    pub cache: PartCache,
    /// Most that is fetched ahead of a sequential reader.
    pub ahead_max: u64,
    /// Most that is fetched at once, for what a read wants and what lies ahead of it.
    pub under_way_max: u64,
}

impl Reader {
    /// See [`Objects::read`](super::Objects::read).
    pub async fn read(
        self: &Arc<Self>,
        partition: PartitionId,
        run: &RangeEntry,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ObjectRead, ReadError> {
        let index = self.index(partition, run).await?;
        let sequential = self.ahead_of(partition, from);
        let ahead = sequential.unwrap_or(0);
        let mut beyond = 0;
        let mut read = ObjectRead { next: run.end, ..Default::default() };
        for (at, block) in index.blocks.iter().enumerate().skip(index.block_at(from)) {
            let wanted = (max_bytes.saturating_sub(read.bytes) as u64).saturating_add(ahead);
            let after = wanted.saturating_sub(block.length.into());
            beyond = self.fetch_ahead(partition, &index, at + 1, after);
            let added = match self.block(partition, run, block, sequential.is_some()).await {
                Ok(payload) => {
                    take_batches(&payload, from, max_bytes, &mut read).map_err(|source| damaged(run, block, source))
                }
                Err(error) => Err(error),
            };
            match added {
                Ok(false) if at + 1 == index.blocks.len() => read.next = run.end,
                Ok(false) => {}
                Ok(true) => break,
                // What was read before it is served; the next read begins with this block and meets the error.
                Err(_) if !read.batches.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if read.next == run.end {
            read.ahead_bytes = beyond.min(ahead);
        }
        if read.bytes > 0 {
            self.cache.cursors.insert((partition, read.next), ahead);
        }
        Ok(read)
    }

    /// The first batch with a timestamp of at least `timestamp` (Unix ms) that ends at or after `from`.
    pub async fn find_timestamp(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<StoredBatch>, ReadError> {
        let index = self.index(partition, run).await?;
        for block in index.blocks[index.block_at(from)..].iter().filter(|block| block.max_timestamp >= timestamp) {
            let payload = self.block(partition, run, block, false).await?;
            for batch in Batches::new(payload.clone()) {
                let (header, slice) = batch.map_err(|source| damaged(run, block, source))?;
                if header.max_timestamp >= timestamp && header.last_offset() >= from {
                    return slice.cut(&payload).map(Some).map_err(|source| damaged(run, block, source));
                }
            }
        }
        Ok(None)
    }

    /// See [`Objects::blocks`](super::Objects::blocks).
    pub async fn blocks(&self, partition: PartitionId, run: &RangeEntry) -> Result<Vec<BlockSpan>, ReadError> {
        let index = self.index(partition, run).await?;
        let span = |block: &BlockEntry| BlockSpan {
            end: block.end,
            bytes: u64::from(block.length).saturating_sub(BLOCK_HEADER_BYTES as u64),
            max_timestamp: block.max_timestamp,
        };
        Ok(index.blocks.iter().map(span).collect())
    }

    /// State of the partition exactly as of the end of the run.
    pub async fn state(&self, partition: PartitionId, run: &RangeEntry) -> Result<PartitionState, ReadError> {
        let index = self.index(partition, run).await?;
        let position = run.position + u64::from(index.index_bytes);
        let place = Place { object: run.object, part: Part::State, position, length: index.state_bytes };
        let decode = |bytes: Bytes| PartitionState::decode(&bytes, run.object, run.position);
        self.in_time(run, index.state_bytes, self.cache.verified(place, decode)).await
    }

    /// What a reader of committed records needs of that state; cached.
    pub async fn transactions(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
    ) -> Result<Arc<RunTransactions>, ReadError> {
        let index = self.index(partition, run).await?;
        self.in_time(run, index.state_bytes, self.cache.transactions(run, &index)).await
    }

    /// Fetches the index and the first `bytes` of a run in the background.
    pub fn prefetch(self: &Arc<Self>, partition: PartitionId, run: RangeEntry, bytes: u64) {
        if !self.cache.start_ahead(run.object, run.position) {
            return;
        }
        let reader = self.clone();
        tokio::spawn(async move {
            if let Ok(index) = reader.cache.index(partition, &run).await {
                reader.fetch_ahead(partition, &index, 0, bytes);
            }
            reader.cache.end_ahead(run.object, run.position);
        });
    }

    /// How far to fetch ahead of a reader that goes on at `from`, where an earlier read ended: twice as far each time.
    /// `None` when no read ended there.
    fn ahead_of(&self, partition: PartitionId, from: Offset) -> Option<u64> {
        let (_, before) = self.cache.cursors.remove(&(partition, from))?;
        Some((before * 2).max(AHEAD_FIRST).min(self.ahead_max))
    }

    /// Starts fetches of the blocks from `first` on that cover `wanted` bytes, within bounds; returns how many of these
    /// lie beyond the run.
    fn fetch_ahead(self: &Arc<Self>, partition: PartitionId, index: &Arc<RunIndex>, first: usize, wanted: u64) -> u64 {
        // What is fetched further ahead would only push itself out of the cache again.
        let mut left = wanted.min(self.under_way_max);
        for block in index.blocks.iter().skip(first) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(block.length.into());
            if !self.cache.start_ahead(index.object, block.position) {
                continue;
            }
            let (reader, object, block) = (self.clone(), index.object, *block);
            tokio::spawn(async move {
                reader.cache.block_ahead(partition, object, &block).await;
                reader.cache.end_ahead(object, block.position);
            });
        }
        left
    }

    async fn index(&self, partition: PartitionId, run: &RangeEntry) -> Result<Arc<RunIndex>, ReadError> {
        self.in_time(run, 0, self.cache.index(partition, run)).await
    }

    async fn block(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
        block: &BlockEntry,
        sequential: bool,
    ) -> Result<Bytes, ReadError> {
        self.in_time(run, block.length, self.cache.block(partition, run.object, block, sequential)).await
    }

    async fn in_time<T>(
        &self,
        run: &RangeEntry,
        bytes: u32,
        work: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        let limit = READ + transfer_time(bytes.into());
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(ReadError::Store(StoreError::Unavailable {
                key: self.cache.store.keys.object(run.object).to_string(),
                attempts: 1,
                reason: format!("not read within {limit:?}"),
            })),
        }
    }
}

/// Adds the batches of a block that end at or after `from`; true when `max_bytes` are reached. The first batch of a
/// read is taken whatever its size.
fn take_batches(
    payload: &Bytes,
    from: Offset,
    max_bytes: usize,
    read: &mut ObjectRead,
) -> Result<bool, super::format::FormatError> {
    for batch in Batches::new(payload.clone()) {
        let (header, slice) = batch?;
        if header.last_offset() < from {
            continue;
        }
        if !read.batches.is_empty() && read.bytes.saturating_add(slice.bytes) > max_bytes {
            return Ok(true);
        }
        read.batches.push(slice.cut(payload)?);
        read.bytes += slice.bytes;
        read.next = header.next_offset();
    }
    Ok(read.bytes >= max_bytes && !read.batches.is_empty())
}

/// A block whose checksum matched but whose batches do not parse was written wrongly.
fn damaged(run: &RangeEntry, block: &BlockEntry, source: super::format::FormatError) -> ReadError {
    ReadError::Corrupt { object: run.object, part: Part::Block, position: block.position, source }
}
