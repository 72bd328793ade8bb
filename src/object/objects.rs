//! The service that the rest of the process uses: put, read, delete objects; put and get metadata snapshots.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::ObjectStore;
use tokio_rustls::TlsConnector;

use crate::base::{ClusterId, ObjectId, Offset, PartitionId};
use crate::batch::StoredBatch;
use crate::env::{Clock, Entropy};
use crate::metadata::RangeEntry;

use super::builder::trailing_crc;
use super::cache::{PartCache, Place};
use super::error::{OpenError, Part, ProbeError, ReadError, SnapshotError, StoreError};
use super::format::{
    DIRECTORY_BYTES_MIN, DirectoryEntry, FormatError, HEADER_BYTES, TRAILER_BYTES, Trailer, check_header, expect,
};
use super::local::LocalStore;
use super::metrics::ObjectMetrics;
use super::options::{Backend, ObjectOptions, backend};
use super::probe::{Capabilities, probe};
use super::reader::{BlockSpan, ObjectRead, Reader};
use super::shared::{SharedBackend, SharedStore};
use super::snapshot::{self, Snapshot};
use super::state::{PartitionState, RunTransactions};
use super::store::{Keys, Store};
use super::verify::check_directory;

/// Deletions that are under way at once.
const DELETES: usize = 16;
/// Memory for blocks that are read to be merged, and bytes of them under way.
const MERGE_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Requests under way to merge.
const MERGE_REQUESTS: usize = 4;
/// Metadata snapshots that are kept.
pub const SNAPSHOTS_KEPT: usize = 3;

/// The objects of one cluster; see the module above.
pub struct Objects {
    cluster: ClusterId,
    place: String,
    reader: Arc<Reader>,
    /// Reads to merge: with a budget and a cache of its own, so that they do not displace what consumers read.
    merging: Arc<Reader>,
}

/// What a deletion achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Gone now, or never there.
    pub done: Vec<ObjectId>,
    /// The first that could not be deleted, with its reason.
    pub failed: Option<(ObjectId, StoreError)>,
}

impl Objects {
    /// Opens the back end. Blocks on file I/O and makes no request to a service: see [`Objects::probe`]. `tls` is the
    /// client's side of TLS, needed for a bucket with an https endpoint.
    pub fn open(
        options: &ObjectOptions,
        cluster: ClusterId,
        tls: Option<TlsConnector>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Objects>, OpenError> {
        let backend = backend(&options.place, tls)?;
        Ok(Self::over(backend, options, cluster, clock, entropy))
    }

    /// Objects that several nodes keep together; `local` is this node's part of them. Makes no request.
    pub fn open_shared(
        options: &ObjectOptions,
        cluster: ClusterId,
        local: &LocalStore,
        shared: Arc<dyn SharedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Objects> {
        let store = Arc::new(SharedBackend::new(local, shared));
        Self::over(Backend { place: local.place(), store, prefix: String::new() }, options, cluster, clock, entropy)
    }

    /// Objects in any store, for tests.
    #[cfg(any(test, feature = "failpoints"))]
    pub fn in_store(
        store: Arc<dyn ObjectStore>,
        options: &ObjectOptions,
        cluster: ClusterId,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Objects> {
        let backend = Backend { place: store.to_string(), store, prefix: String::new() };
        Self::over(backend, options, cluster, clock, entropy)
    }

    fn over(
        backend: Backend,
        options: &ObjectOptions,
        cluster: ClusterId,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Objects> {
        let Backend { store, prefix, place } = backend;
        let inner: Arc<dyn ObjectStore> = store;
        let store = Store { inner, keys: Keys::new(&prefix, cluster), clock, entropy, metrics: Arc::default() };
        let store = Arc::new(store);
        let merge = ObjectOptions {
            place: options.place.clone(),
            cache_bytes: MERGE_CACHE_BYTES,
            index_cache_bytes: MERGE_CACHE_BYTES / 16,
            read_bytes: MERGE_CACHE_BYTES,
            read_requests: MERGE_REQUESTS,
            read_ahead_bytes: 0,
        };
        let reader = |options: &ObjectOptions| {
            Arc::new(Reader {
                cache: PartCache::new(store.clone(), options),
                ahead_max: options.read_ahead_bytes.min(options.cache_bytes / 4),
                under_way_max: options.cache_bytes / 4,
            })
        };
        Arc::new(Objects { cluster, place, reader: reader(options), merging: reader(&merge) })
    }

    fn store(&self) -> &Store {
        &self.reader.cache.store
    }

    pub fn metrics(&self) -> &Arc<ObjectMetrics> {
        &self.store().metrics
    }

    /// Checks that the store can be reached, written, read, and written conditionally. Writes and deletes one object.
    pub async fn probe(&self) -> Result<Capabilities, ProbeError> {
        probe(self.store(), &self.place).await
    }

    /// Stores an object. Repeating it is safe: the same bytes under the same id are success, other bytes are
    /// [`StoreError::Exists`]. After [`StoreError::Unavailable`] it may be stored or not.
    pub async fn put(&self, object: ObjectId, pieces: &[Bytes]) -> Result<(), StoreError> {
        self.store().put_new(&self.store().keys.object(object), pieces).await
    }

    /// Whole batches of `partition` from the range `run`, beginning with the one that holds `from`: at least one, if
    /// there is any at or after `from`, and no more than `max_bytes` if there are several.
    pub async fn read(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ObjectRead, ReadError> {
        self.reader.read(partition, run, from, max_bytes).await
    }

    /// As [`Objects::read`], on the budget of merging.
    pub async fn read_to_merge(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ObjectRead, ReadError> {
        self.merging.read(partition, run, from, max_bytes).await
    }

    /// Ends and sizes of the blocks of a range, from its index: offsets at which it can be cut without reading it.
    pub async fn blocks(&self, partition: PartitionId, run: &RangeEntry) -> Result<Vec<BlockSpan>, ReadError> {
        self.merging.blocks(partition, run).await
    }

    /// Fetches the beginning of a range in the background, for a reader that will come to it.
    pub fn prefetch(&self, partition: PartitionId, run: RangeEntry, bytes: u64) {
        self.reader.prefetch(partition, run, bytes);
    }

    /// The first batch of the range with a timestamp of at least `timestamp` (Unix ms) that ends at or after `from`.
    pub async fn find_timestamp(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<StoredBatch>, ReadError> {
        self.reader.find_timestamp(partition, run, timestamp, from).await
    }

    /// State of the partition exactly as of the end of the range.
    pub async fn state(&self, partition: PartitionId, run: &RangeEntry) -> Result<PartitionState, ReadError> {
        self.reader.state(partition, run).await
    }

    /// Transactions that are open as of the end of the range, and those with an abort marker in it. In memory after the
    /// first time.
    pub async fn transactions(
        &self,
        partition: PartitionId,
        run: &RangeEntry,
    ) -> Result<Arc<RunTransactions>, ReadError> {
        self.reader.transactions(partition, run).await
    }

    /// What an object says about itself: all its ranges. For rebuilding the metadata.
    pub async fn describe(&self, object: ObjectId) -> Result<Vec<DirectoryEntry>, ReadError> {
        let cache = &self.reader.cache;
        let key = cache.store.keys.object(object);
        let object_bytes = match cache.store.head(&key).await {
            Ok(meta) => meta.size,
            Err(StoreError::NotFound { .. }) => return Err(ReadError::NotFound(object)),
            Err(error) => return Err(ReadError::Store(error)),
        };
        let least = (HEADER_BYTES + DIRECTORY_BYTES_MIN + TRAILER_BYTES) as u64;
        let Some(trailer_at) = object_bytes.checked_sub(TRAILER_BYTES as u64).filter(|_| object_bytes >= least) else {
            let source = FormatError::Length { expected: least, bytes: object_bytes };
            return Err(ReadError::Corrupt { object, part: Part::Trailer, position: 0, source });
        };
        let part = |part, position, length| Place { object, part, position, length };
        let place = part(Part::Trailer, trailer_at, TRAILER_BYTES as u32);
        let trailer = cache.verified(place, |bytes| Trailer::decode(&bytes, object, object_bytes)).await?;
        let check = |bytes: Bytes| {
            check_header(&bytes, self.cluster, object)?;
            expect("header checksum", trailer.header_crc.into(), trailing_crc(&bytes).into())
        };
        cache.verified(part(Part::Header, 0, HEADER_BYTES as u32), check).await?;
        let place = part(Part::Directory, trailer.directory_position, trailer.directory_bytes);
        cache.verified(place, |bytes| check_directory(&bytes, &trailer, self.cluster)).await
    }

    /// Whether the store has an object of this id.
    pub async fn exists(&self, object: ObjectId) -> Result<bool, StoreError> {
        match self.store().head(&self.store().keys.object(object)).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes objects; those that do not exist count as deleted.
    pub async fn delete(&self, objects: &[ObjectId]) -> Deleted {
        let store = self.store();
        let results = futures_util::stream::iter(objects.iter().copied())
            .map(|object| async move { (object, store.delete(&store.keys.object(object)).await) })
            .buffer_unordered(DELETES)
            .collect::<Vec<_>>()
            .await;
        let mut deleted = Deleted { done: Vec::with_capacity(objects.len()), failed: None };
        for (object, result) in results {
            match result {
                Ok(()) => deleted.done.push(object),
                Err(error) => deleted.failed = deleted.failed.or(Some((object, error))),
            }
        }
        deleted
    }

    /// Stores a metadata snapshot and deletes all but the newest few. The same snapshot twice is success.
    pub async fn put_snapshot(&self, generation: u64, applied: u64, content: Bytes) -> Result<(), StoreError> {
        let store = self.store();
        let envelope = snapshot::envelope(self.cluster, generation, applied, &content);
        store.put_new(&store.keys.snapshot(generation, applied), &[envelope, content]).await?;
        let mut stored = self.snapshots().await?;
        let superseded = stored.len().saturating_sub(SNAPSHOTS_KEPT);
        for (generation, applied, _) in stored.drain(..superseded) {
            store.delete(&store.keys.snapshot(generation, applied)).await?;
        }
        Ok(())
    }

    /// The newest metadata snapshot; none if there never was one. A damaged one is an error and not passed over:
    /// an older one would resurrect what was deleted since.
    pub async fn latest_snapshot(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let store = self.store();
        let Some((generation, applied, bytes)) = self.snapshots().await?.pop() else { return Ok(None) };
        let key = store.keys.snapshot(generation, applied);
        let open = |bytes| snapshot::open(&bytes, self.cluster, generation, applied);
        let first = store.get_all(&key, bytes).await?;
        match open(first) {
            Ok(snapshot) => Ok(Some(snapshot)),
            // Once more, to tell a damaged transfer from a damaged snapshot.
            Err(_) => open(store.get_all(&key, bytes).await?)
                .map(Some)
                .map_err(|source| SnapshotError::Corrupt { key: key.to_string(), source }),
        }
    }

    /// Generation, applied commands and bytes of all snapshots, oldest first.
    async fn snapshots(&self) -> Result<Vec<(u64, u64, u64)>, StoreError> {
        let listed = self.store().list(&self.store().keys.snapshots()).await?;
        let mut found: Vec<_> = listed
            .iter()
            .filter_map(|meta| {
                let (generation, applied) = snapshot::parse_name(meta.location.filename()?)?;
                Some((generation, applied, meta.size))
            })
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}
