//! Reading: the tail in memory, then the WAL, then object storage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::Offset;
use crate::batch::StoredBatch;
use crate::ledger;
use crate::metadata::RangeEntry;
use crate::object::{AbortedTransaction, ReadError as ObjectError};
use crate::partition::{Isolation, Partition, Positions, ReadError, Source, TailBatch};
use crate::security::Permit;
use crate::wal;

use super::{Broker, FetchError};

/// How often a reader follows an image that changes under it before it gives up.
const ATTEMPTS: usize = 4;

/// KiB that may be read back from the WAL at one time, for all readers.
pub(super) const WAL_READS_KIB: usize = 64 * 1024;

/// What one partition gives to one read.
#[derive(Debug)]
pub struct Fetched {
    pub positions: Positions,
    /// Whole batches; the first holds the offset asked for.
    pub batches: Vec<StoredBatch>,
    /// What a reader of committed records has to skip in them.
    pub aborted: Vec<AbortedTransaction>,
}

impl Fetched {
    fn nothing(positions: Positions) -> Fetched {
        Fetched { positions, batches: Vec::new(), aborted: Vec::new() }
    }
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
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        debug_assert!(
            permit.covers(crate::security::Operation::Read, crate::security::Resource::topic(&partition.topic))
        );
        let fetched = self.read_batches(partition, from, max_bytes, at_least_one, isolation).await?;
        // Asked last: what was read while the lease ran out is not what the partition holds now.
        if self.lease.is_valid() {
            partition.traffic.served(&fetched.batches);
            Ok(fetched)
        } else {
            Err(FetchError::NoLease)
        }
    }

    /// As [`Broker::read`], for this broker's own readers.
    pub(super) async fn read_batches(
        &self,
        partition: &Partition,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let plan = match partition.read(from, max_bytes, at_least_one, isolation) {
                Err(ReadError::StateNotLoaded) => {
                    self.load_producer_state(partition).await?;
                    partition.read(from, max_bytes, at_least_one, isolation)?
                }
                plan => plan?,
            };
            let (positions, limit) = (plan.positions, plan.limit);
            if max_bytes == 0 && !at_least_one {
                return Ok(Fetched::nothing(positions));
            }
            if plan.in_objects {
                let read = self.read_objects(partition, from, max_bytes, at_least_one).await;
                match self.finish(partition, from, positions, limit, isolation, read).await {
                    Ok(fetched) => return Ok(fetched),
                    // The range was merged or dropped under the reader: look again, never skip.
                    Err(error @ (FetchError::Object(ObjectError::NotFound(_)) | FetchError::Missing(_))) => {
                        last = Some(error)
                    }
                    Err(error) => return Err(error),
                }
            } else {
                match self.read_tail(plan.tail).await {
                    Ok(batches) => return Ok(Fetched { positions, batches, aborted: plan.aborted }),
                    Err(FetchError::Wal(wal::ReadError::Recycled)) => {
                        // Its segment was used again, so it is in object storage: the tail must not name it again.
                        partition.prune(self.wal.oldest_segment());
                        last = Some(FetchError::Wal(wal::ReadError::Recycled));
                    }
                    // The bucket has what rotted here.
                    Err(error @ FetchError::Wal(_)) if from < positions.uploaded_end => {
                        tracing::error!(partition = %partition.id, %error, "read from object storage instead");
                        let read = self.read_objects(partition, from, max_bytes, at_least_one).await;
                        return self.finish(partition, from, positions, limit, isolation, read).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(FetchError::Object(ObjectError::NotFound(object))) = &last {
            self.note_missing(partition, from, *object).await;
        }
        Err(last.unwrap_or(FetchError::Missing(from)))
    }

    /// Cuts what was read from object storage at the reader's limit, and adds what it has to skip.
    async fn finish(
        &self,
        partition: &Partition,
        from: Offset,
        positions: Positions,
        limit: Offset,
        isolation: Isolation,
        read: Result<Vec<StoredBatch>, FetchError>,
    ) -> Result<Fetched, FetchError> {
        let mut batches = read?;
        batches.truncate(batches.partition_point(|batch| batch.base_offset() < limit));
        let aborted = match (isolation, batches.last()) {
            (Isolation::ReadCommitted, Some(last)) => {
                self.aborted_between(partition, from, last.header().next_offset()).await?
            }
            _ => Vec::new(),
        };
        Ok(Fetched { positions, batches, aborted })
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

    /// Brings the block that holds `from` into the cache, and with it what is known of transactions, for a reader that
    /// could not wait.
    pub fn fetch_ahead(self: Arc<Self>, partition: Arc<Partition>, from: Offset, isolation: Isolation) {
        tokio::spawn(async move {
            // What goes wrong is told to the reader when it asks again.
            if isolation == Isolation::ReadCommitted {
                let _ = self.load_producer_state(&partition).await;
            }
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
