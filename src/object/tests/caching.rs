//! Reading through the cache: what is kept, what is fetched once, what is fetched ahead.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// A segment of `blocks` blocks with two batches each.
fn segment(object: u64, blocks: i64) -> (Built, Vec<StoredBatch>) {
    let run = batches(blocks * 2, 400_000);
    (bundle(object, std::slice::from_ref(&run)), run)
}

#[tokio::test]
async fn reads_begin_with_the_batch_that_holds_the_offset() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let run = batches(30, 100);
    let built = bundle(1, std::slice::from_ref(&run));
    objects.put(built.object, &built.pieces).await.unwrap();
    for from in 0..300 {
        for (max_bytes, expected) in [(0, 1), (161, 1), (321, 1), (322, 2), (500, 3)] {
            let read = objects.read(partition(1), &entry(&built, 0), Offset(from), max_bytes).await.unwrap();
            let first = (from / 10) as usize;
            let last = (first + expected).min(run.len());
            assert_eq!(read.batches, run[first..last], "offset {from}, at most {max_bytes} bytes");
            assert_eq!(read.next, run[last - 1].header().next_offset());
            assert_eq!(read.bytes, (last - first) * 161);
        }
    }
    let beyond = objects.read(partition(1), &entry(&built, 0), Offset(300), 1).await.unwrap();
    assert_eq!((beyond.batches.len(), beyond.next), (0, Offset(300)));
    assert_eq!(store.get_requests.load(Relaxed), 1, "a small run is fetched once and whole");
}

#[tokio::test]
async fn offsets_that_were_compacted_away_lead_to_the_next_batch() {
    let objects = objects(&FaultyStore::new());
    let run = vec![batch(5, 2, 10, 1), batch(20, 1, 10, 2)];
    let mut builder = ObjectBuilder::new(CLUSTER, ObjectId(1));
    builder.add_partition(partition(1), Offset(0), Offset(40), &state(40), run.clone()).unwrap();
    let built = builder.finish();
    objects.put(built.object, &built.pieces).await.unwrap();
    for (from, expected) in [(0, 0), (6, 0), (7, 1), (20, 1)] {
        let read = objects.read(partition(1), &entry(&built, 0), Offset(from), 1).await.unwrap();
        assert_eq!(read.batches, run[expected..=expected], "offset {from}");
    }
    let rest = objects.read(partition(1), &entry(&built, 0), Offset(21), 1).await.unwrap();
    assert_eq!((rest.batches.len(), rest.next), (0, Offset(40)));
}

#[tokio::test]
async fn a_time_is_found_in_the_first_batch_that_reaches_it() {
    let objects = objects(&FaultyStore::new());
    let run: Vec<_> = [(0, 500), (1, 100), (2, 900), (3, 700), (4, 900)].map(|(o, t)| batch(o, 1, 400_000, t)).into();
    let built = bundle(1, std::slice::from_ref(&run));
    objects.put(built.object, &built.pieces).await.unwrap();
    for timestamp in [0, 100, 500, 501, 900, 901] {
        for from in 0..5 {
            let found = objects.find_timestamp(partition(1), &entry(&built, 0), timestamp, Offset(from)).await.unwrap();
            let expected = run.iter().skip(from as usize).find(|b| b.header().max_timestamp >= timestamp);
            assert_eq!(found.as_ref(), expected, "time {timestamp} from {from}");
        }
    }
}

#[tokio::test]
async fn concurrent_readers_of_a_block_share_one_fetch() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (built, run) = segment(1, 4);
    objects.put(built.object, &built.pieces).await.unwrap();
    let reads = (0..50).map(|_| {
        let (objects, entry) = (objects.clone(), entry(&built, 0));
        tokio::spawn(async move { objects.read(partition(1), &entry, Offset(0), 1).await.unwrap() })
    });
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.unwrap().batches, run[..1]);
    }
    assert_eq!(store.get_requests.load(Relaxed), 2, "one index, one block");
}

#[tokio::test]
async fn a_sequential_reader_is_fetched_ahead_of_and_no_block_twice() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (built, run) = segment(1, 20);
    objects.put(built.object, &built.pieces).await.unwrap();
    assert_eq!(read_all(&objects, &built, 0, 500_000).await.unwrap(), run);
    let metrics = objects.metrics();
    let ahead = metrics.blocks_ahead.load(Relaxed);
    assert!((10..20).contains(&ahead), "{ahead} blocks of 20 came ahead");
    assert_eq!(store.get_requests.load(Relaxed), 21, "one index, twenty blocks");
}

#[tokio::test]
async fn random_reads_fetch_nothing_ahead() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (built, _) = segment(1, 20);
    objects.put(built.object, &built.pieces).await.unwrap();
    for block in [3, 11, 7, 15] {
        objects.read(partition(1), &entry(&built, 0), Offset(block * 20), 1).await.unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(store.get_requests.load(Relaxed), 5);
    assert_eq!(objects.metrics().blocks_ahead.load(Relaxed), 0);
}

#[tokio::test]
async fn a_large_read_fetches_its_blocks_together_and_a_prefetch_the_next_range() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (built, run) = segment(1, 6);
    let (after, following) = segment(2, 6);
    for built in [&built, &after] {
        objects.put(built.object, &built.pieces).await.unwrap();
    }
    let read = objects.read(partition(1), &entry(&built, 0), Offset(0), usize::MAX).await.unwrap();
    assert_eq!((read.batches, read.next), (run, Offset(120)));
    assert_eq!(objects.metrics().blocks_ahead.load(Relaxed), 5);
    objects.prefetch(partition(1), entry(&after, 0), 2_000_000);
    while store.get_requests.load(Relaxed) < 7 + 4 {
        tokio::task::yield_now().await;
    }
    let misses = objects.metrics().block_misses.load(Relaxed);
    let read = objects.read(partition(1), &entry(&after, 0), Offset(0), 2_000_000).await.unwrap();
    assert_eq!(read.batches, following[..4]);
    assert_eq!(objects.metrics().block_misses.load(Relaxed), misses);
}

#[tokio::test]
async fn the_cache_keeps_what_is_read_often_through_a_scan_and_stays_bounded() {
    let store = FaultyStore::new();
    let small = ObjectOptions { cache_bytes: 16 << 20, read_ahead_bytes: 0, ..options() };
    let objects = objects_with(store.clone(), &small);
    let (hot, _) = segment(1, 2);
    let (scanned, run) = segment(2, 60);
    for built in [&hot, &scanned] {
        objects.put(built.object, &built.pieces).await.unwrap();
    }
    for _ in 0..3 {
        read_all(&objects, &hot, 0, usize::MAX).await.unwrap();
    }
    assert_eq!(read_all(&objects, &scanned, 0, 1).await.unwrap(), run);
    let before = store.get_requests.load(Relaxed);
    read_all(&objects, &hot, 0, usize::MAX).await.unwrap();
    assert_eq!(store.get_requests.load(Relaxed), before, "what was used again survived the scan");
    read_all(&objects, &scanned, 0, 1).await.unwrap();
    assert!(store.get_requests.load(Relaxed) > before + 30, "the scan itself did not stay in memory");
}

#[tokio::test]
async fn a_block_larger_than_the_cache_is_served_and_not_kept() {
    let store = FaultyStore::new();
    let small = ObjectOptions { cache_bytes: 0, ..options() };
    let objects = objects_with(store.clone(), &small);
    let run = vec![batch(0, 1, 9 << 20, 1)];
    let built = bundle(1, std::slice::from_ref(&run));
    objects.put(built.object, &built.pieces).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_all(&objects, &built, 0, 1).await.unwrap(), run);
    }
    assert_eq!(store.get_requests.load(Relaxed), 3);
}

#[tokio::test]
async fn merging_reads_the_same_and_leaves_the_readers_cache_alone() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (built, run) = segment(1, 30);
    objects.put(built.object, &built.pieces).await.unwrap();
    let read = objects.read_to_merge(partition(1), &entry(&built, 0), Offset(0), usize::MAX).await.unwrap();
    assert_eq!((read.batches, read.next), (run, Offset(600)));
    assert_eq!(store.get_requests.load(Relaxed), 31, "no block was fetched twice");
    objects.read(partition(1), &entry(&built, 0), Offset(0), 1).await.unwrap();
    assert_eq!(store.get_requests.load(Relaxed), 33);
}
