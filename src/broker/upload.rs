//! Moves what the WAL holds to object storage: cut, prepare, upload, commit, trim.
//!
//! One upload cuts the oldest ledger at one entry for all partitions. Nothing is trimmed before the commit is
//! applied; a crash anywhere leaves either the WAL's copy or both.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::{EntryId, LedgerId, ObjectId, Offset, PartitionId, limits};
use crate::batch::StoredBatch;
use crate::batch::compact::KeyMapError;
use crate::env::failpoint;
use crate::metadata::{Command, Range, Response};
use crate::object::{self, BuildError, Built, ObjectBuilder, PartitionState, StoreError};
use crate::partition::{TailBatch, UploadRun};
use crate::quorum::KeepError;

use super::{Broker, ChangeError, FetchError, fetch};

/// Partitions in one bundle: bounds the commit command and the bundle's directory.
const RUNS_MAX: usize = 8_192;
/// How often the uploader looks whether an upload is due.
const TICK: Duration = Duration::from_millis(200);
/// Pauses after failures: doubled from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

const _: () = assert!(RUNS_MAX <= limits::COMMAND_PARTITIONS_MAX, "one command commits a bundle");

/// Counters of uploads, for the metrics.
#[derive(Debug, Default)]
pub struct UploadMetrics {
    pub objects: AtomicU64,
    pub bytes: AtomicU64,
    pub failures: AtomicU64,
    /// The last attempt failed.
    pub failing: AtomicBool,
    pub merged_objects: AtomicU64,
    pub merged_bytes: AtomicU64,
    pub swept_objects: AtomicU64,
    pub retention_ranges: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the WAL cannot be read back: {0}")]
    Read(#[from] FetchError),
    #[error("object storage: {0}")]
    Object(#[from] object::ReadError),
    #[error("object storage: {0}")]
    Store(#[from] StoreError),
    #[error("the metadata: {0}")]
    Change(#[from] ChangeError),
    #[error("the object cannot be built: {0}")]
    Build(#[from] BuildError),
    #[error("the index cannot be read: {0}")]
    Index(#[from] crate::kv::ReadError),
    #[error("the copies of producer states: {0}")]
    Keep(#[from] KeepError),
    #[error(transparent)]
    KeyMap(#[from] KeyMapError),
    #[error("the work was interrupted")]
    Interrupted,
}

/// A partition's part of an object, before its batches are read.
pub(super) struct Part {
    pub partition: PartitionId,
    pub base: Offset,
    pub end: Offset,
    pub state: PartitionState,
    pub batches: Vec<StoredBatch>,
}

impl Broker {
    /// Uploads as it becomes due, until the process ends.
    pub async fn run_uploader(self: Arc<Self>) {
        let mut pause = BACKOFF_FIRST;
        self.forget_kept_states().await;
        loop {
            let due = self.registry.upload_due.notified();
            let _ = tokio::time::timeout(TICK, due).await;
            while self.upload_is_due() {
                match self.upload_once().await {
                    Ok(_) => {
                        pause = BACKOFF_FIRST;
                        if self.upload_metrics.failing.swap(false, Ordering::Relaxed) {
                            tracing::info!("uploads to object storage work again");
                        }
                    }
                    Err(UploadError::Store(StoreError::Fenced { reason })) => {
                        self.registry.fence(&reason);
                        return;
                    }
                    Err(error) => {
                        self.upload_metrics.failures.fetch_add(1, Ordering::Relaxed);
                        if !self.upload_metrics.failing.swap(true, Ordering::Relaxed) {
                            tracing::warn!(%error, "an upload to object storage failed; records stay in the WAL");
                        }
                        tokio::time::sleep(self.jittered(pause)).await;
                        pause = (pause * 2).min(BACKOFF_LAST);
                    }
                }
            }
        }
    }

    fn upload_is_due(&self) -> bool {
        let exposure = self.registry.exposure();
        exposure.bytes >= self.options.upload_bytes
            || (exposure.entries > 0 && exposure.age >= self.options.upload_interval)
            || (exposure.entries > 0 && self.wal_is_tight())
    }

    /// Less than a quarter of the WAL's budget is left.
    fn wal_is_tight(&self) -> bool {
        let usage = self.wal.usage();
        usage.needed_bytes.saturating_mul(4) > usage.budget_bytes.saturating_mul(3)
    }

    /// Between a half and the whole of `pause`.
    pub(super) fn jittered(&self, pause: Duration) -> Duration {
        let mut random = [0u8; 1];
        self.entropy.fill(&mut random);
        pause / 2 + pause / 2 * random[0] as u32 / 255
    }

    /// Uploads everything that is durable now, for a clean stop; gives up at the first failure.
    pub async fn upload_all(&self) -> bool {
        while self.registry.exposure().entries > 0 {
            if self.upload_once().await.is_err() {
                return false;
            }
        }
        true
    }

    /// One upload. Answers whether there was anything to do.
    pub(super) async fn upload_once(&self) -> Result<bool, UploadError> {
        let Some((ledger, through, _)) = self.registry.next_upload(self.options.object_bytes_max) else {
            return Ok(false);
        };
        let Some(from) = self.image().ledgers.get(&ledger).map(|l| l.uploaded) else {
            // Finished and forgotten: nothing of it is needed any more.
            self.registry.uploaded(ledger, EntryId(u64::MAX));
            return Ok(true);
        };
        let (runs, through) = self.collect(ledger, through).await?;
        let object = self.prepare_objects(1).await?;
        let states = Self::states_to_keep(&runs);
        let mut built = self.build_and_put(object, runs).await;
        if built.is_ok()
            && let Err(error) = self.keep_states(states).await
        {
            built = Err(error.into());
        }
        let built = match built {
            Ok(built) => built,
            Err(error) => {
                self.abort(object).await;
                return Err(error);
            }
        };
        failpoint::hit("upload-before-commit");
        let (object_bytes, ranges) = built;
        let commit = Command::CommitUpload {
            node: self.node,
            epoch: self.epoch,
            object,
            object_bytes,
            ledger,
            from,
            through,
            ranges,
            now_ms: self.clock.wall_ms(),
        };
        if let Err(error) = self.propose(commit).await {
            self.abort(object).await;
            return Err(error.into());
        }
        failpoint::hit("upload-after-commit");
        self.registry.uploaded(ledger, through);
        self.trim().await;
        self.upload_metrics.objects.fetch_add(1, Ordering::Relaxed);
        self.upload_metrics.bytes.fetch_add(object_bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// What every partition gives to an upload of `ledger` below `through`; the cut moves down if that is more
    /// partitions than one object takes.
    async fn collect(&self, ledger: LedgerId, through: EntryId) -> Result<(Vec<UploadRun>, EntryId), UploadError> {
        let partitions = self.registry.all();
        let mut through = through;
        loop {
            let mut runs = Vec::new();
            for partition in &partitions {
                // The state in the footer has to hold producers that have been quiet since the last upload, too.
                let mut run = partition.collect_upload(ledger, through);
                if run.is_some() && partition.needs_producer_state() {
                    self.load_producer_state(partition).await?;
                    run = partition.collect_upload(ledger, through);
                }
                runs.extend(run);
            }
            if runs.len() <= RUNS_MAX {
                runs.sort_by_key(|run| run.partition);
                return Ok((runs, through));
            }
            through = cut_after(&runs, RUNS_MAX);
        }
    }

    pub(super) async fn prepare_objects(&self, count: u32) -> Result<ObjectId, UploadError> {
        let now_ms = self.clock.wall_ms();
        match self.propose(Command::PrepareObjects { node: self.node, epoch: self.epoch, count, now_ms }).await? {
            Response::Objects { first, .. } => Ok(first),
            _ => Err(ChangeError::UnexpectedAnswer.into()),
        }
    }

    async fn build_and_put(&self, object: ObjectId, runs: Vec<UploadRun>) -> Result<(u64, Vec<Range>), UploadError> {
        if runs.is_empty() {
            // Only batches of deleted topics: the ledger's position moves without an object.
            return Ok((0, Vec::new()));
        }
        let epochs: Vec<_> = runs.iter().map(|run| run.epochs.clone()).collect();
        let wal = self.wal.clone();
        let read = move |tail: Vec<TailBatch>| -> Result<Vec<StoredBatch>, FetchError> {
            let sources = tail.into_iter().filter_map(|b| b.source());
            sources.map(|source| fetch::resolve(&wal, source)).collect()
        };
        let parts = move || {
            runs.into_iter()
                .map(|run| {
                    let batches = read(run.batches)?;
                    Ok(Part { partition: run.partition, base: run.base, end: run.end, state: run.state, batches })
                })
                .collect::<Result<Vec<_>, FetchError>>()
        };
        let cluster = self.image().cluster;
        let built = blocking(move || Ok(build(ObjectBuilder::new(cluster, object), parts()?)?)).await?;
        let (bytes, mut ranges) = (built.bytes, built.ranges.clone());
        for (range, epochs) in ranges.iter_mut().zip(epochs) {
            range.epochs = epochs;
        }
        failpoint::hit("upload-before-put");
        self.objects.put(object, &built.pieces).await?;
        failpoint::hit("upload-after-put");
        Ok((bytes, ranges))
    }

    /// Gives up a prepared object. Failing to say so is harmless: the next broker epoch does it.
    pub(super) async fn abort(&self, object: ObjectId) {
        let command = Command::AbortObjects { objects: vec![object], now_ms: self.clock.wall_ms() };
        if let Err(error) = self.propose(command).await {
            tracing::warn!(%object, %error, "a prepared object could not be given up");
        }
    }

    /// Sets the end of this process's ledger, once everything in it is uploaded and nothing more can be appended: a
    /// WAL folder that holds nothing which the bucket lacks may be replaced.
    pub async fn seal_own_ledger(&self) {
        let Some((ledger, end)) = self.ledger.closing_position() else { return };
        if let Err(error) = self.propose(Command::SealLedger { ledger, end, by: Some((self.node, self.epoch)) }).await {
            tracing::warn!(%ledger, %error, "the ledger was not sealed; the next start does it");
        }
    }

    /// Frees the WAL segments that the metadata need no more.
    async fn trim(&self) {
        let (wal, image) = (self.wal.clone(), self.image());
        let freed = tokio::task::spawn_blocking(move || wal.trim(&|ledger, entry| image.needs(ledger, entry))).await;
        if freed.is_ok() {
            self.room.notify_waiters();
        }
        let oldest = self.wal.oldest_segment();
        for partition in self.registry.all() {
            partition.prune(oldest);
        }
    }
}

/// The entry after which the `limit`-th different partition has had its first batch.
fn cut_after(runs: &[UploadRun], limit: usize) -> EntryId {
    let mut entries: Vec<(EntryId, PartitionId)> =
        runs.iter().flat_map(|run| run.batches.iter().map(|b| (b.entry, run.partition))).collect();
    entries.sort_unstable();
    let mut seen = HashSet::new();
    for (entry, partition) in &entries {
        if seen.insert(*partition) && seen.len() > limit {
            return *entry;
        }
    }
    entries.last().map_or(EntryId(0), |(entry, _)| entry.next())
}

pub(super) fn build(mut builder: ObjectBuilder, parts: Vec<Part>) -> Result<Built, BuildError> {
    for part in parts {
        builder.add_partition(part.partition, part.base, part.end, &part.state, part.batches)?;
    }
    Ok(builder.finish())
}

/// Runs `work` off the runtime's workers.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| UploadError::Interrupted)?
}
