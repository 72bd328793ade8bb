//! The bytes of an object: built, read back, and damaged.

use proptest::prelude::*;

use super::*;
use crate::object::run::RunIndex;
use crate::object::{BLOCK_BYTES, BuildError, verify_object};

#[test]
fn bodies_are_passed_on_without_a_copy() {
    let runs = [batches(3, 5_000), batches(2, 100)];
    let built = bundle(7, &runs);
    for batch in &runs[0] {
        assert!(built.pieces.iter().any(|piece| piece.as_ptr() == batch.body.as_ptr()), "the body is a piece");
    }
    let total: usize = built.pieces.iter().map(Bytes::len).sum();
    assert_eq!(total as u64, built.bytes);
    let entries = verify_object(&whole(&built), CLUSTER, ObjectId(7)).unwrap();
    assert_eq!(entries.into_iter().map(|e| e.range).collect::<Vec<_>>(), built.ranges);
}

#[test]
fn ranges_say_what_the_metadata_needs() {
    let built = bundle(7, &[batches(4, 100)]);
    let range = &built.ranges[0];
    assert_eq!((range.base, range.end, range.records), (Offset(0), Offset(40), 40));
    assert_eq!((range.first_timestamp, range.max_timestamp), (1_000, 1_309));
    assert_eq!(range.bytes, 4 * (61 + 100));
    assert_eq!(range.epochs, [(LeaderEpoch(1), Offset(0)), (LeaderEpoch(3), Offset(20))]);
    let later = {
        let mut builder = ObjectBuilder::new(CLUSTER, ObjectId(8));
        let batches = vec![batch(40, 10, 50, 9)];
        builder.add_partition(partition(1), Offset(40), Offset(50), &state(50), batches).unwrap();
        builder.finish()
    };
    assert_eq!(later.ranges[0].epochs, [], "both began before this range");
}

#[test]
fn blocks_are_closed_before_they_grow_too_large_and_a_large_batch_is_alone() {
    let small = BLOCK_BYTES / 3 - 200;
    let mut run: Vec<_> = (0..4).map(|i| batch(i, 1, small, 1)).collect();
    run.push(batch(4, 1, 2 * BLOCK_BYTES, 2));
    run.push(batch(5, 1, 10, 3));
    let built = bundle(1, &[run]);
    let bytes = whole(&built);
    verify_object(&bytes, CLUSTER, ObjectId(1)).unwrap();
    let range = &built.ranges[0];
    let at = range.position as usize;
    let index_bytes = RunIndex::claimed_bytes(&bytes[at..], range.length).unwrap();
    let index =
        RunIndex::decode(&bytes[at..at + index_bytes], ObjectId(1), range.partition, range.position, range.length)
            .unwrap();
    let blocks: Vec<_> = index.blocks.iter().map(|b| (b.base.0, b.end.0)).collect();
    assert_eq!(blocks, [(0, 3), (3, 4), (4, 5), (5, 6)]);
}

#[test]
fn disorder_is_refused() {
    let mut builder = ObjectBuilder::new(CLUSTER, ObjectId(1));
    let add = |builder: &mut ObjectBuilder, n: u8, base: i64, end: i64, run: Vec<StoredBatch>| {
        builder.add_partition(partition(n), Offset(base), Offset(end), &state(end), run)
    };
    assert_eq!(add(&mut builder, 2, 0, 10, vec![]), Err(BuildError::Empty(partition(2))));
    assert_eq!(add(&mut builder, 2, 0, 10, batches(1, 10)), Ok(()));
    assert_eq!(add(&mut builder, 2, 0, 10, batches(1, 10)), Err(BuildError::PartitionOrder(partition(2))));
    assert_eq!(add(&mut builder, 1, 0, 10, batches(1, 10)), Err(BuildError::PartitionOrder(partition(1))));
    let outside = |found| Err(BuildError::OffsetOrder { partition: partition(3), found: Offset(found) });
    assert_eq!(add(&mut builder, 3, 0, 9, batches(1, 10)), outside(0));
    assert_eq!(add(&mut builder, 3, 1, 10, batches(1, 10)), outside(0));
    let twice = vec![batch(0, 10, 1, 1), batch(5, 10, 1, 1)];
    assert_eq!(add(&mut builder, 3, 0, 20, twice), outside(5));
}

#[test]
fn an_empty_object_is_one_too() {
    let built = ObjectBuilder::new(CLUSTER, ObjectId(1)).finish();
    assert_eq!(verify_object(&whole(&built), CLUSTER, ObjectId(1)), Ok(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_built_is_read_back(sizes in proptest::collection::vec((1i32..5, 0usize..400_000), 1..12)) {
        let mut base = 0;
        let run: Vec<_> = sizes.iter().map(|(count, bytes)| {
            let batch = batch(base, *count, *bytes, base);
            base += i64::from(*count);
            batch
        }).collect();
        let built = bundle(3, &[run.clone(), batches(1, 20)]);
        prop_assert!(verify_object(&whole(&built), CLUSTER, ObjectId(3)).is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let objects = objects(&FaultyStore::new());
            objects.put(built.object, &built.pieces).await.unwrap();
            for max_bytes in [1, 300_000, usize::MAX] {
                assert_eq!(read_all(&objects, &built, 0, max_bytes).await.unwrap(), run);
            }
        });
    }

    /// With a valid checksum over hostile bytes: an error or a value, never a panic and never a large allocation.
    #[test]
    fn hostile_parts_with_a_valid_checksum_do_no_harm(
        at in 0usize..4000, bytes in proptest::collection::vec(any::<u8>(), 1..12),
    ) {
        let built = bundle(3, &[batches(2, 50), batches(3, 10)]);
        let mut object = whole(&built).to_vec();
        let at = at % object.len();
        for (target, byte) in object[at..].iter_mut().zip(&bytes) {
            *target = *byte;
        }
        let object = super::damage::with_valid_checksums(object, &built);
        let _ = verify_object(&object.into(), CLUSTER, ObjectId(3));
    }
}
