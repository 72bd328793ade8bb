//! Reading and writing through a store that fails, lies and forgets.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::object::faults::Fault;
use crate::object::{Outcome, Part, ProbeError, Request, StoreError};

fn small() -> (Arc<FaultyStore>, Arc<Objects>, Built, Vec<StoredBatch>) {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let run = batches(3, 3_000);
    let built = bundle(1, std::slice::from_ref(&run));
    (store, objects, built, run)
}

#[tokio::test(start_paused = true)]
async fn bursts_of_server_errors_are_ridden_out_and_counted() {
    let (store, objects, built, run) = small();
    store.fail_puts([Fault::ServerError; 4]);
    objects.put(built.object, &built.pieces).await.unwrap();
    store.fail_gets([Fault::ServerError; 4]);
    assert_eq!(read_all(&objects, &built, 0, usize::MAX).await.unwrap(), run);
    let metrics = objects.metrics();
    assert_eq!(metrics.requests(Request::Put, Outcome::Transient), 4);
    assert_eq!(metrics.requests(Request::Get, Outcome::Transient), 4);
    assert_eq!(metrics.requests(Request::Get, Outcome::Ok), 1);
    assert_eq!(metrics.bytes_written.load(Relaxed), built.bytes);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_an_error_within_a_bound() {
    let (store, objects, built, run) = small();
    objects.put(built.object, &built.pieces).await.unwrap();
    store.down.store(true, Relaxed);
    let begun = tokio::time::Instant::now();
    let read = read_all(&objects, &built, 0, 1).await;
    assert!(matches!(read, Err(ReadError::Store(StoreError::Unavailable { attempts: 5, .. }))), "{read:?}");
    let put = objects.put(ObjectId(2), &built.pieces).await;
    assert!(matches!(put, Err(StoreError::Unavailable { attempts: 5, .. })), "{put:?}");
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    store.down.store(false, Relaxed);
    store.fail_gets([Fault::Silence; 2]);
    let begun = tokio::time::Instant::now();
    let read = read_all(&objects, &built, 0, 1).await;
    assert!(matches!(read, Err(ReadError::Store(StoreError::Unavailable { .. }))), "{read:?}");
    assert!(begun.elapsed().as_secs() <= 30, "{:?}", begun.elapsed());
    assert_eq!(read_all(&objects, &built, 0, usize::MAX).await.unwrap(), run);
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_not_doubled_and_not_refused() {
    let (store, objects, built, run) = small();
    store.fail_puts([Fault::LostAnswer]);
    objects.put(built.object, &built.pieces).await.unwrap();
    assert_eq!(store.put_requests.load(Relaxed), 2);
    assert_eq!(objects.metrics().requests(Request::Put, Outcome::Timeout), 1);
    assert_eq!(objects.metrics().requests(Request::Put, Outcome::Exists), 1);
    assert_eq!(read_all(&objects, &built, 0, usize::MAX).await.unwrap(), run);
    // The same put by a process that forgot having made it.
    objects.put(built.object, &built.pieces).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_content_under_the_same_key_is_refused_whatever_its_length() {
    let (store, objects, built, run) = small();
    objects.put(built.object, &built.pieces).await.unwrap();
    let mut longer = built.pieces.clone();
    longer.push(Bytes::from_static(b"x"));
    let mut other = whole(&built).to_vec();
    other[100] ^= 1;
    for pieces in [longer, vec![other.into()]] {
        let put = objects.put(built.object, &pieces).await;
        assert_eq!(put, Err(StoreError::Exists { key: key(1).to_string() }));
    }
    assert_eq!(read_all(&objects, &built, 0, usize::MAX).await.unwrap(), run);
    assert_eq!(store.put_requests.load(Relaxed), 3, "a refusal is not retried");
}

#[tokio::test(start_paused = true)]
async fn damaged_transfers_are_repeated_and_never_served() {
    for fault in [Fault::Truncated, Fault::OtherRange, Fault::FlippedBit(77), Fault::FlippedBit(12_345)] {
        let (store, objects, built, run) = small();
        objects.put(built.object, &built.pieces).await.unwrap();
        store.fail_gets([fault]);
        assert_eq!(read_all(&objects, &built, 0, usize::MAX).await.unwrap(), run, "{fault:?}");
        assert_eq!(objects.metrics().corruptions.load(Relaxed), 0, "{fault:?}");
    }
    let (store, objects, built, _) = small();
    objects.put(built.object, &built.pieces).await.unwrap();
    store.fail_gets([Fault::FlippedBit(8), Fault::FlippedBit(16)]);
    let read = read_all(&objects, &built, 0, usize::MAX).await;
    assert!(matches!(read, Err(ReadError::Corrupt { part: Part::Index, .. })), "{read:?}");
    assert_eq!(objects.metrics().corruptions.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn any_flip_in_any_answer_of_a_segment_is_survived() {
    let store = FaultyStore::new();
    let run = batches(8, 400_000);
    let built = bundle(1, std::slice::from_ref(&run));
    objects(&store).put(built.object, &built.pieces).await.unwrap();
    let random = SeededEntropy::new(11);
    for _ in 0..10 {
        let objects = objects(&store);
        store.fail_gets([Fault::FlippedBit(random.next()), Fault::OtherRange, Fault::FlippedBit(random.next())]);
        match read_all(&objects, &built, 0, 1).await {
            Ok(read) => assert_eq!(read, run),
            Err(error) => assert!(matches!(error, ReadError::Corrupt { .. }), "{error}"),
        }
        // Faults that nobody met stay armed for the next round; none may be served then either.
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_says_so_and_is_not_remembered_as_missing() {
    let (store, objects, built, run) = small();
    assert_eq!(read_all(&objects, &built, 0, 1).await, Err(ReadError::NotFound(ObjectId(1))));
    assert_eq!(objects.describe(built.object).await, Err(ReadError::NotFound(ObjectId(1))));
    objects.put(built.object, &built.pieces).await.unwrap();
    store.fail_gets([Fault::Missing]);
    assert_eq!(read_all(&objects, &built, 0, 1).await, Err(ReadError::NotFound(ObjectId(1))));
    assert_eq!(read_all(&objects, &built, 0, 1).await.unwrap(), run);
}

#[tokio::test(start_paused = true)]
async fn deleting_twice_is_fine_and_a_failure_is_reported_with_what_was_done() {
    let (store, objects, built, _) = small();
    objects.put(built.object, &built.pieces).await.unwrap();
    let deleted = objects.delete(&[ObjectId(1), ObjectId(2)]).await;
    assert_eq!(deleted.failed, None);
    assert_eq!(deleted.done.len(), 2);
    store.down.store(true, Relaxed);
    let deleted = objects.delete(&[ObjectId(1)]).await;
    assert!(matches!(deleted.failed, Some((ObjectId(1), StoreError::Unavailable { .. }))));
    assert_eq!(deleted.done, []);
}

#[tokio::test(start_paused = true)]
async fn the_probe_names_what_is_wrong() {
    let (store, objects, _, _) = small();
    assert_eq!(objects.probe().await.unwrap().place, "a faulty store");
    store.unconditional.store(true, Relaxed);
    assert!(matches!(objects.probe().await, Err(ProbeError::NoConditionalPut { .. })));
    store.unconditional.store(false, Relaxed);
    store.fail_gets([Fault::FlippedBit(9)]);
    assert!(matches!(objects.probe().await, Err(ProbeError::Unfaithful { .. })));
    store.fail_puts([Fault::Silence]);
    assert!(matches!(objects.probe().await, Err(ProbeError::Unreachable { .. })));
    store.down.store(true, Relaxed);
    let failed = objects.probe().await.unwrap_err();
    assert!(matches!(failed, ProbeError::Failed { .. }), "{failed}");
    let left = object_store::ObjectStore::list_with_delimiter(&*store, None).await.unwrap();
    assert!(left.objects.is_empty(), "the probe leaves nothing behind");
}
