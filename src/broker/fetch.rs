//! Reading: the tail in memory, then the WAL, then object storage.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::Offset;
use crate::batch::StoredBatch;
use crate::ledger;
use crate::metadata::RangeEntry;
use crate::object::{PartitionState, ReadError as ObjectError};
use crate::partition::{Partition, Positions, Source, TailBatch};
use crate::security::Permit;
use crate::wal;

use super::{Broker, FetchError};

/// How often a reader follows an image that changes under it before it gives up.
const ATTEMPTS: usize = 4;

/// KiB that may be read back from the WAL at one time, for all readers.
pub(super) const WAL_READS_KIB: usize = 64 * 1024;
/// How long following the metadata may take.
const FOLLOW: Duration = Duration::from_millis(25);

/// What one partition gives to one read.
#[derive(Debug)]
pub struct Fetched {
    pub positions: Positions,
    /// Whole batches; the first holds the offset asked for.
    pub batches: Vec<StoredBatch>,
}

impl Broker {
    /// Reads whole batches from the one that holds `from` on. `permit` is for reading the topic.
    pub async fn read(
        &self,
        permit: &Permit,
        partition: &Partition,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Fetched, FetchError> {
        debug_assert!(
            permit.covers(crate::security::Operation::Read, crate::security::Resource::topic(&partition.topic))
        );
        self.read_batches(partition, from, max_bytes, at_least_one).await
    }

    pub(super) async fn read_batches(
        &self,
        partition: &Partition,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Fetched, FetchError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let plan = partition.read(from, max_bytes, at_least_one)?;
            let positions = plan.positions;
            if max_bytes == 0 && !at_least_one {
                return Ok(Fetched { positions, batches: Vec::new() });
            }
            if plan.in_objects {
                match self.read_objects(partition, from, max_bytes, at_least_one).await {
                    Ok(batches) => return Ok(Fetched { positions, batches }),
                    // The range was merged or dropped under the reader: look again, never skip.
                    Err(error @ (FetchError::Object(ObjectError::NotFound(_)) | FetchError::Missing(_))) => {
                        last = Some(error)
                    }
                    Err(error) => return Err(error),
                }
            } else {
                match self.read_tail(plan.tail).await {
                    Ok(batches) => return Ok(Fetched { positions, batches }),
                    Err(FetchError::Wal(wal::ReadError::Recycled)) => {
                        // Its segment was used again, so it is in object storage: the tail must not name it again.
                        partition.prune(self.wal.oldest_segment());
                        last = Some(FetchError::Wal(wal::ReadError::Recycled));
                    }
                    // The bucket has what rotted here.
                    Err(error @ FetchError::Wal(_)) if from < positions.uploaded_end => {
                        tracing::error!(partition = %partition.id, %error, "read from object storage instead");
                        let batches = self.read_objects(partition, from, max_bytes, at_least_one).await?;
                        return Ok(Fetched { positions, batches });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last.unwrap_or(FetchError::Missing(from)))
    }

    /// Batches of the tail; those that only the WAL has are read off the runtime's workers.
    pub(super) async fn read_tail(&self, tail: Vec<TailBatch>) -> Result<Vec<StoredBatch>, FetchError> {
        let sources: Vec<_> = tail.iter().filter_map(TailBatch::source).collect();
        if sources.iter().all(|s| matches!(s, Source::Memory(_))) {
            return Ok(sources.into_iter().filter_map(in_memory).collect());
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes: usize = tail.iter().filter(|b| b.memory.is_none()).map(|b| b.bytes as usize).sum();
        let budget = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(WAL_READS_KIB as u32);
        // The semaphore is never closed.
        let _admitted = self.wal_reads.acquire_many(budget).await.map_err(|_| FetchError::Broken)?;
        let wal = self.wal.clone();
        tokio::task::spawn_blocking(move || sources.into_iter().map(|source| resolve(&wal, source)).collect())
            .await
            .map_err(|_| FetchError::Broken)?
    }

    /// Brings the block that holds `from` into the cache, for a reader that could not wait.
    pub fn fetch_ahead(self: Arc<Self>, partition: Arc<Partition>, from: Offset) {
        tokio::spawn(async move {
            // What goes wrong is told to the reader when it asks again.
            let _ = self.read_objects(&partition, from, 1, true).await;
        });
    }

    /// Goes on through neighbouring ranges until `max_bytes` are there.
    async fn read_objects(
        &self,
        partition: &Partition,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Vec<StoredBatch>, FetchError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let (mut from, mut bytes, mut batches) = (from, 0, Vec::new());
        while let Some((_, entry)) = self.locate(partition, from).await? {
            let read = self.objects.read(partition.id, &entry, from, max_bytes.saturating_sub(bytes)).await?;
            let first = batches.is_empty() && at_least_one;
            if read.batches.is_empty() || (!first && bytes + read.bytes > max_bytes) {
                break;
            }
            bytes += read.bytes;
            batches.extend(read.batches);
            if read.ahead_bytes > 0
                && let Some((_, next)) = self.locate(partition, entry.end).await?
            {
                self.objects.prefetch(partition.id, next, read.ahead_bytes);
            }
            if bytes >= max_bytes || read.next < entry.end {
                break;
            }
            from = read.next;
        }
        match batches.is_empty() && at_least_one {
            true => Err(FetchError::Missing(from)),
            false => Ok(batches),
        }
    }

    /// The range of object storage that holds `offset`.
    pub(super) async fn locate(
        &self,
        partition: &Partition,
        offset: Offset,
    ) -> Result<Option<(Offset, RangeEntry)>, FetchError> {
        let (index, id) = (self.quorum.index(), partition.id);
        // The index may have to read its disk.
        let found = tokio::task::spawn_blocking(move || index.locate(id, offset)).await;
        Ok(found.map_err(|_| FetchError::Broken)??)
    }

    /// What object storage knows about a partition as of its uploaded end.
    pub(super) async fn stored_state(&self, partition: &Partition) -> Result<PartitionState, FetchError> {
        let mut attempt = 0;
        loop {
            let end = partition.positions().uploaded_end;
            let Some((_, entry)) = self.locate(partition, end.plus(-1)).await? else {
                if attempt == ATTEMPTS {
                    tracing::error!(partition = %partition.id, %end, "no object has the state of its producers");
                    return Ok(PartitionState::default());
                }
                // A newer upload has replaced the range; this partition has not followed the metadata yet.
                attempt += 1;
                tokio::time::sleep(FOLLOW).await;
                continue;
            };
            match self.objects.state(partition.id, &entry).await {
                Err(ObjectError::NotFound(_)) if attempt < ATTEMPTS => attempt += 1,
                // Rot in the state of producers must not stop the partition for good: what is lost is the
                // recognition of retries from before, as after an expiry.
                Err(error @ (ObjectError::NotFound(_) | ObjectError::Corrupt { .. })) => {
                    tracing::error!(partition = %partition.id, %error, "the state of its producers is lost");
                    return Ok(PartitionState::default());
                }
                state => return Ok(state?),
            }
        }
    }
}

fn in_memory(source: Source) -> Option<StoredBatch> {
    match source {
        Source::Memory(batch) => Some(batch),
        Source::Wal(_) => None,
    }
}

/// Reads a batch of the tail. Blocks on the disk.
pub(super) fn resolve(wal: &Arc<wal::Wal>, source: Source) -> Result<StoredBatch, FetchError> {
    match source {
        Source::Memory(batch) => Ok(batch),
        Source::Wal(location) => {
            let payload = wal.read(location).map_err(FetchError::Wal)?;
            StoredBatch::from_contiguous(ledger::batch_of(payload)).map_err(|_| FetchError::Broken)
        }
    }
}
