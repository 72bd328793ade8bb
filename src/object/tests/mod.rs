//! Tests of the format and of the service over a store that fails on purpose, over a folder, and over real services.

mod caching;
mod damage;
mod faults;
mod layout;
pub mod service;
mod snapshots;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;

use crate::base::{ClusterId, LeaderEpoch, ObjectId, Offset, PartitionId, ProducerId, TopicId};
use crate::batch::StoredBatch;
use crate::env::{SeededEntropy, SystemClock};
use crate::metadata::{Range, RangeEntry};

use super::faults::FaultyStore;
use super::store::Keys;
use super::{
    Built, ObjectBuilder, ObjectOptions, ObjectRead, Objects, PartitionState, Place, ProducerBatch, ProducerEntry,
    ReadError,
};

pub const CLUSTER: ClusterId = ClusterId([9; 16]);

pub fn partition(n: u8) -> PartitionId {
    PartitionId { topic: TopicId([n; 16]), index: n as i32 }
}

/// A batch with a real header and `bytes` of made-up records.
pub fn batch(base: i64, count: i32, bytes: usize, timestamp: i64) -> StoredBatch {
    let mut body = vec![2u8, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&(count - 1).to_be_bytes());
    body.extend_from_slice(&timestamp.to_be_bytes());
    body.extend_from_slice(&(timestamp + count as i64 - 1).to_be_bytes());
    body.extend_from_slice(&(-1i64).to_be_bytes());
    body.extend_from_slice(&(-1i16).to_be_bytes());
    body.extend_from_slice(&(-1i32).to_be_bytes());
    body.extend_from_slice(&count.to_be_bytes());
    let mut x = base as u64 ^ 0x9e37_79b9_7f4a_7c15;
    body.extend((0..bytes).map(|_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 56) as u8
    }));
    let mut head = [0; 16];
    head[8..12].copy_from_slice(&((body.len() + 4) as i32).to_be_bytes());
    let mut batch = StoredBatch { head, body: Bytes::from(body) };
    batch.place(Offset(base), LeaderEpoch(3));
    batch
}

/// `count` batches of ten records each, timestamps a hundred apart.
pub fn batches(count: i64, bytes: usize) -> Vec<StoredBatch> {
    (0..count).map(|i| batch(i * 10, 10, bytes, 1_000 + i * 100)).collect()
}

pub fn state(end: i64) -> PartitionState {
    PartitionState {
        epochs: vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(3), Offset(end / 2))],
        producers: vec![ProducerEntry {
            id: ProducerId(end),
            epoch: 1,
            coordinator_epoch: -1,
            last_timestamp: 5,
            batches: vec![ProducerBatch { first_sequence: 0, last_sequence: 9, base_offset: Offset(0), timestamp: 5 }],
        }],
        ..Default::default()
    }
}

/// A bundle with one run for each list of batches.
pub fn bundle(object: u64, runs: &[Vec<StoredBatch>]) -> Built {
    let mut builder = ObjectBuilder::new(CLUSTER, ObjectId(object));
    for (n, run) in runs.iter().enumerate() {
        let base = run[0].header().base_offset;
        let end = run[run.len() - 1].header().next_offset();
        builder.add_partition(partition(n as u8 + 1), base, end, &state(end.0), run.iter().cloned()).unwrap();
    }
    builder.finish()
}

pub fn whole(built: &Built) -> Bytes {
    built.pieces.concat().into()
}

pub fn options() -> ObjectOptions {
    ObjectOptions::at(Place::Folder("unused".into()))
}

pub fn objects(store: &Arc<FaultyStore>) -> Arc<Objects> {
    objects_with(store.clone(), &options())
}

pub fn objects_with(store: Arc<dyn ObjectStore>, options: &ObjectOptions) -> Arc<Objects> {
    Objects::in_store(store, options, CLUSTER, Arc::new(SystemClock), Arc::new(SeededEntropy::new(1)))
}

pub fn key(object: u64) -> object_store::path::Path {
    Keys::new("", CLUSTER).object(ObjectId(object))
}

pub fn entry(built: &Built, run: usize) -> RangeEntry {
    entry_of(&built.ranges[run], built.object)
}

pub fn entry_of(range: &Range, object: ObjectId) -> RangeEntry {
    range.entry(object)
}

/// All batches of a range, read in steps of `max_bytes`.
pub async fn read_all(
    objects: &Objects,
    built: &Built,
    run: usize,
    max_bytes: usize,
) -> Result<Vec<StoredBatch>, ReadError> {
    let (range, entry) = (&built.ranges[run], entry(built, run));
    let mut from = range.base;
    let mut found = Vec::new();
    while from < range.end {
        let ObjectRead { batches, next, .. } = objects.read(range.partition, &entry, from, max_bytes).await?;
        assert!(next > from, "a read goes on");
        found.extend(batches);
        from = next;
    }
    Ok(found)
}
