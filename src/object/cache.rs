//! Verified parts of objects in memory, bounded in bytes, and the fetches that fill it.
//!
//! A part enters only after its checksum matched, so what is found here is served as it is. Whoever asks for a part
//! that is being fetched waits for that fetch. Fetches for readers have a budget of bytes and of requests.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::Semaphore;

use crate::base::{ObjectId, Offset, PartitionId};
use crate::metadata::RangeEntry;

use super::builder::{BLOCK_BYTES, OBJECT_BYTES_MAX};
use super::error::{Part, ReadError, StoreError};
use super::format::{FormatError, check_block, expect};
use super::metrics::{add, count};
use super::options::ObjectOptions;
use super::run::{BlockEntry, RunIndex};
use super::state::{PartitionState, RunTransactions};
use super::store::Store;

/// A run up to this size is fetched whole with its index.
const WHOLE_RUN_BYTES: u32 = BLOCK_BYTES as u32;
/// First bytes of a larger run, which hold its index.
pub(super) const INDEX_FETCH_BYTES: u32 = 64 * 1024;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: u64 = 256;
/// Readers whose place is remembered for read-ahead.
const CURSORS: usize = 4096;
/// Least memory of the cache of blocks: below, not even one block would stay.
const CACHE_BYTES_MIN: u64 = 4 * 1024 * 1024;

// Two neighbouring blocks of a run exceed BLOCK_BYTES together, so no run has more blocks than this.
const BLOCKS_MAX: u64 = 2 * (OBJECT_BYTES_MAX / BLOCK_BYTES as u64) + 1;
const _: () = assert!(BLOCKS_MAX * 36 + 1024 < INDEX_FETCH_BYTES as u64, "an index fits in the first fetch");

/// A part by object and position.
type PartKey = (ObjectId, u64);

#[derive(Clone)]
struct ByBytes;

impl Weighter<PartKey, Bytes> for ByBytes {
    fn weight(&self, _: &PartKey, block: &Bytes) -> u64 {
        block.len() as u64 + ENTRY_BYTES
    }
}

impl Weighter<PartKey, Arc<RunIndex>> for ByBytes {
    fn weight(&self, _: &PartKey, index: &Arc<RunIndex>) -> u64 {
        index.memory_bytes() + ENTRY_BYTES
    }
}

impl Weighter<PartKey, Arc<RunTransactions>> for ByBytes {
    fn weight(&self, _: &PartKey, transactions: &Arc<RunTransactions>) -> u64 {
        transactions.memory_bytes() + ENTRY_BYTES
    }
}

type Parts<V> = Cache<PartKey, V, ByBytes, DefaultHashBuilder, DefaultLifecycle<PartKey, V>>;

/// One shard: an entry may then weigh up to half of the whole. Half is for what was used again, the other half for
/// newcomers, so that a scan does not evict what many readers share and read-ahead lives until it is read.
fn parts<V: Clone>(bytes: u64, typical: u64) -> Parts<V>
where
    ByBytes: Weighter<PartKey, V>,
{
    let options = OptionsBuilder::new()
        .shards(1)
        .hot_allocation(0.5)
        .weight_capacity(bytes)
        .estimated_items_capacity((bytes / typical) as usize + 16)
        .build()
        .expect("both capacities are set");
    Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

/// See the module.
pub(super) struct PartCache {
    pub store: Arc<Store>,
    blocks: Parts<Bytes>,
    indexes: Parts<Arc<RunIndex>>,
    transactions: Parts<Arc<RunTransactions>>,
    /// Where a sequential reader will go on, with the bytes fetched ahead of it.
    pub cursors: Cache<(PartitionId, Offset), u64>,
    budget: Semaphore,
    budget_kib: u32,
    requests: Semaphore,
    /// Parts under way ahead of readers: at most half of the requests, so that others get through.
    ahead: Mutex<HashSet<PartKey>>,
    ahead_max: usize,
}

impl PartCache {
    pub fn new(store: Arc<Store>, options: &ObjectOptions) -> Self {
        let budget_kib = u32::try_from(options.read_bytes / 1024).unwrap_or(u32::MAX).clamp(4096, 1 << 28);
        PartCache {
            store,
            blocks: parts(options.cache_bytes.max(CACHE_BYTES_MIN), BLOCK_BYTES as u64 / 4),
            indexes: parts(options.index_cache_bytes.max(CACHE_BYTES_MIN / 4), 1024),
            transactions: parts(options.index_cache_bytes.max(CACHE_BYTES_MIN / 4) / 4, ENTRY_BYTES),
            cursors: Cache::new(CURSORS),
            budget: Semaphore::new(budget_kib as usize),
            budget_kib,
            requests: Semaphore::new(options.read_requests.max(1)),
            ahead: Mutex::default(),
            ahead_max: (options.read_requests / 2).max(1),
        }
    }

    /// The index of a run.
    pub async fn index(&self, partition: PartitionId, run: &RangeEntry) -> Result<Arc<RunIndex>, ReadError> {
        let key = (run.object, run.position);
        if let Some(index) = self.indexes.get(&key) {
            count(&self.store.metrics.index_hits);
            return Ok(index);
        }
        let fetch = async {
            count(&self.store.metrics.index_misses);
            self.fetch_index(partition, run).await
        };
        self.indexes.get_or_insert_async(&key, fetch).await
    }

    async fn fetch_index(&self, partition: PartitionId, run: &RangeEntry) -> Result<Arc<RunIndex>, ReadError> {
        let length = if run.length <= WHOLE_RUN_BYTES { run.length } else { INDEX_FETCH_BYTES };
        let place = Place { object: run.object, part: Part::Index, position: run.position, length };
        let (head, index) = self
            .verified(place, |head| {
                let index_bytes = RunIndex::claimed_bytes(&head, length)?;
                let index = RunIndex::decode(&head[..index_bytes], run.object, partition, run.position, run.length)?;
                expect("end offset of the run", run.end.0 as u64, index.end.0 as u64)?;
                Ok((head, Arc::new(index)))
            })
            .await?;
        for block in &index.blocks {
            let from = (block.position - run.position) as usize;
            // A damaged block is left out here, so that it is looked at again when it is asked for.
            if let Some(to) = from.checked_add(block.length as usize).filter(|to| *to <= head.len())
                && let Ok(payload) = checked_payload(&head.slice(from..to), run.object, partition, block)
            {
                // A small part of what was fetched would keep all of it, and the cache counts only the part.
                let small = payload.len() < head.len() / 2;
                let payload = if small { Bytes::copy_from_slice(&payload) } else { payload };
                self.blocks.insert((run.object, block.position), payload);
            }
        }
        // The state stands between index and blocks and is nearly always here as well: a reader of what is committed
        // then needs no further fetch.
        let (from, to) = (index.index_bytes as usize, index.index_bytes as usize + index.state_bytes as usize);
        if let Some(section) = head.get(from..to)
            && let Ok(state) = PartitionState::decode(section, run.object, run.position)
        {
            self.transactions.insert((run.object, run.position), Arc::new(state.into()));
        }
        Ok(index)
    }

    /// The transactions in the state of a run, whose index is given.
    pub async fn transactions(&self, run: &RangeEntry, index: &RunIndex) -> Result<Arc<RunTransactions>, ReadError> {
        let fetch = async {
            let position = run.position.saturating_add(index.index_bytes.into());
            let place = Place { object: run.object, part: Part::State, position, length: index.state_bytes };
            let decode = |bytes: Bytes| PartitionState::decode(&bytes, run.object, run.position);
            Ok(Arc::new(RunTransactions::from(self.verified(place, decode).await?)))
        };
        self.transactions.get_or_insert_async(&(run.object, run.position), fetch).await
    }

    /// The batches' bytes of a block. A look-up by a sequential reader does not count as use: it comes back to a
    /// block for every batch of it, and would displace what is shared.
    pub async fn block(
        &self,
        partition: PartitionId,
        object: ObjectId,
        block: &BlockEntry,
        sequential: bool,
    ) -> Result<Bytes, ReadError> {
        let key = (object, block.position);
        let found = if sequential { self.blocks.peek(&key) } else { self.blocks.get(&key) };
        if let Some(payload) = found {
            count(&self.store.metrics.block_hits);
            return Ok(payload);
        }
        let fetch = async {
            count(&self.store.metrics.block_misses);
            let place = Place { object, part: Part::Block, position: block.position, length: block.length };
            self.verified(place, |whole| checked_payload(&whole, object, partition, block)).await
        };
        self.blocks.get_or_insert_async(&key, fetch).await
    }

    /// Fetches a block that a reader will probably want, unless too much is under way already.
    pub async fn block_ahead(&self, partition: PartitionId, object: ObjectId, block: &BlockEntry) {
        let key = (object, block.position);
        if self.blocks.peek(&key).is_some() {
            return;
        }
        count(&self.store.metrics.blocks_ahead);
        // Its failure is found by whoever needs the block.
        let _ = self.block(partition, object, block, true).await;
    }

    /// Takes the place of one fetch ahead; false if the block is here or under way, or there are too many.
    pub fn start_ahead(&self, object: ObjectId, position: u64) -> bool {
        let key = (object, position);
        if self.blocks.peek(&key).is_some() {
            return false;
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.len() < self.ahead_max && ahead.insert(key)
    }

    pub fn end_ahead(&self, object: ObjectId, position: u64) {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).remove(&(object, position));
    }

    /// Fetches a part and parses it. A part that does not verify is fetched once more, past every cache, to tell a
    /// damaged transfer from a damaged object.
    pub async fn verified<T>(
        &self,
        place: Place,
        parse: impl Fn(Bytes) -> Result<T, FormatError>,
    ) -> Result<T, ReadError> {
        let mut source = match self.fetch(place).await?.map(&parse) {
            Ok(Ok(parsed)) => return Ok(parsed),
            Ok(Err(error)) | Err(error) => error,
        };
        count(&self.store.metrics.mismatches);
        if let Ok(refetched) = self.fetch(place).await? {
            match parse(refetched) {
                Ok(parsed) => return Ok(parsed),
                Err(error) => source = error,
            }
        }
        add(&self.store.metrics.corruptions, 1);
        let error = ReadError::Corrupt { object: place.object, part: place.part, position: place.position, source };
        tracing::error!(%error, "damaged object");
        Err(error)
    }

    /// The bytes at a place; the inner error is an object that ends before them.
    async fn fetch(&self, place: Place) -> Result<Result<Bytes, FormatError>, ReadError> {
        let Place { object, position, length, .. } = place;
        let kib = (length / 1024 + 1).min(self.budget_kib);
        // Neither semaphore is ever closed.
        let _request = self.requests.acquire().await;
        let _bytes = self.budget.acquire_many(kib).await;
        let key = self.store.keys.object(object);
        match self.store.get_range(&key, position..position.saturating_add(length.into())).await {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(StoreError::NotFound { .. }) => Err(ReadError::NotFound(object)),
            Err(StoreError::Length { expected, found, .. }) => Ok(Err(FormatError::Length { expected, bytes: found })),
            Err(error) => Err(ReadError::Store(error)),
        }
    }
}

/// Where a part lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub object: ObjectId,
    pub part: Part,
    pub position: u64,
    pub length: u32,
}

fn checked_payload(
    whole: &Bytes,
    object: ObjectId,
    partition: PartitionId,
    block: &BlockEntry,
) -> Result<Bytes, FormatError> {
    let (header, payload) = check_block(whole, object, block.position, partition)?;
    expect("first offset of the block", block.base.0 as u64, header.base.0 as u64)?;
    expect("end offset of the block", block.end.0 as u64, header.end.0 as u64)?;
    Ok(payload)
}
