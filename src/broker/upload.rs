//! Moves what the WAL holds to object storage: cut, prepare, upload, commit, trim.
//!
//! One upload cuts one ledger at one entry for all partitions: the oldest of which something can be uploaded. Nothing is
//! trimmed before the commit is applied; a crash anywhere leaves either the WAL's copy or both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{EntryId, LedgerId, ObjectId, Offset, PartitionId, limits};
use crate::batch::StoredBatch;
use crate::batch::compact::KeyMapError;
use crate::env::failpoint;
use crate::metadata::{Command, Range, Response};
use crate::object::{self, BuildError, Built, ObjectBuilder, PartitionState, StoreError};
use crate::partition::{RecoveredGap, TailBatch, UploadRun};
use crate::quorum::KeepError;

use super::{Broker, ChangeError, FetchError, fetch};

/// Partitions in one bundle: bounds the commit command and the bundle's directory.
pub(super) const RUNS_MAX: usize = 8_192;
/// How often the uploader looks whether an upload is due.
const TICK: Duration = Duration::from_millis(200);
/// Pauses after failures: doubled from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

/// Pause before a ledger is asked for again that is to be uploaded from here and is not here.
const PULL_AGAIN: Duration = Duration::from_secs(2);
/// How long to wait for the image to change when other nodes have to upload something first, how long to let it change
/// further, and how often a clean stop waits.
const BLOCKED_WAIT: Duration = Duration::from_secs(1);
const BLOCKED_PAUSE: Duration = Duration::from_millis(20);
const BLOCKED_WAITS: u32 = 10;

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
    #[error(transparent)]
    Gap(#[from] RecoveredGap),
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

/// What came of looking for something to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Uploaded,
    Nothing,
    /// There is something, behind what other nodes have to upload first.
    Blocked,
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
        let mut image = self.image.clone();
        image.mark_changed();
        let mut pull_again = None;
        self.forget_kept_states().await;
        loop {
            let due = self.registry.upload_due.notified();
            let _ = tokio::time::timeout(TICK, due).await;
            if image.has_changed().unwrap_or(false) || pull_again.is_some_and(|at| Instant::now() >= at) {
                let newest = image.borrow_and_update().clone();
                let missing = self.adopt_ledgers(&newest);
                pull_again = (!missing.is_empty()).then(|| Instant::now() + PULL_AGAIN);
                self.pull_ledgers(missing);
            }
            loop {
                let due = self.due_ledgers();
                if due.is_empty() {
                    break;
                }
                match self.upload_from(due).await {
                    Ok(Step::Uploaded) => {
                        pause = BACKOFF_FIRST;
                        if self.upload_metrics.failing.swap(false, Ordering::Relaxed) {
                            tracing::info!("uploads to object storage work again");
                        }
                    }
                    Ok(Step::Nothing) => break,
                    Ok(Step::Blocked) => {
                        self.wait_for_others().await;
                        break;
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

    /// Everything that is due waits for what other nodes upload first: the image says when they have.
    async fn wait_for_others(&self) {
        let mut image = self.image.clone();
        image.borrow_and_update();
        let _ = tokio::time::timeout(BLOCKED_WAIT, image.changed()).await;
        tokio::time::sleep(BLOCKED_PAUSE).await;
    }

    /// Ledgers of which an upload is due. Each counts for itself: one that waits for other nodes must not make many small
    /// objects of the next.
    fn due_ledgers(&self) -> Vec<LedgerId> {
        let pressed = self.wal_is_tight() || self.moves.want_upload();
        let is_due = |ledger: &LedgerId| {
            let exposure = self.registry.exposure_of(*ledger);
            pressed || exposure.bytes >= self.options.upload_bytes || exposure.age >= self.options.upload_interval
        };
        self.registry.exposed_ledgers().into_iter().filter(is_due).collect()
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

    /// Uploads everything that is durable now, for a clean stop; gives up at the first failure, and when other nodes do not
    /// upload what has to come first.
    pub async fn upload_all(&self) -> bool {
        let mut waits = 0;
        self.adopt_ledgers(&self.image());
        while self.registry.exposure().entries > 0 {
            match self.upload_once().await {
                Ok(Step::Uploaded) => waits = 0,
                Ok(Step::Blocked) if waits < BLOCKED_WAITS => {
                    waits += 1;
                    self.wait_for_others().await;
                }
                Ok(Step::Nothing) => break,
                Ok(Step::Blocked) | Err(_) => return false,
            }
        }
        true
    }

    /// One upload of whatever there is.
    pub(super) async fn upload_once(&self) -> Result<Step, UploadError> {
        self.upload_from(self.registry.exposed_ledgers()).await
    }

    /// One upload, of the first of these ledgers of which something can be uploaded now.
    async fn upload_from(&self, ledgers: Vec<LedgerId>) -> Result<Step, UploadError> {
        let image = self.image();
        let mut found = Step::Nothing;
        for id in ledgers {
            // A ledger that is not known has ended, or this image is older than it.
            let Some(ledger) = image.ledgers.get(&id) else { continue };
            self.registry.uploaded(id, ledger.uploaded);
            let Some(through) = self.registry.next_upload(id, self.options.object_bytes_max) else { continue };
            if ledger.uploader() != self.node {
                found = Step::Blocked;
                continue;
            }
            let (runs, through) = self.collect(&image, id, ledger, through).await?;
            if through <= ledger.uploaded {
                found = Step::Blocked;
                continue;
            }
            self.upload(id, ledger.uploaded, through, runs).await?;
            return Ok(Step::Uploaded);
        }
        Ok(found)
    }

    async fn upload(
        &self,
        ledger: LedgerId,
        from: EntryId,
        through: EntryId,
        runs: Vec<UploadRun>,
    ) -> Result<(), UploadError> {
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
        Ok(())
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
