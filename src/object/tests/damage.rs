//! Every byte of an object is covered by a checksum that is looked at before anything of it is served.

use super::*;
use crate::base::checksum::crc32c;
use crate::object::format::{HEADER_BYTES, TRAILER_BYTES};
use crate::object::run::RunIndex;
use crate::object::{FormatError, Part, verify_object};

/// The object with the checksums of all its parts made right again, where the parts still stand where they stood.
pub fn with_valid_checksums(mut object: Vec<u8>, built: &Built) -> Vec<u8> {
    let seal = |object: &mut Vec<u8>, from: usize, to: usize| {
        let crc = crc32c(&object[from..to - 4]);
        object[to - 4..to].copy_from_slice(&crc.to_be_bytes());
    };
    seal(&mut object, 0, HEADER_BYTES);
    let original = whole(built);
    for range in &built.ranges {
        let (from, to) = (range.position as usize, range.position as usize + range.length as usize);
        let run = &original[from..to];
        let index_bytes = RunIndex::claimed_bytes(run, range.length).unwrap();
        let index =
            RunIndex::decode(&run[..index_bytes], built.object, range.partition, range.position, range.length).unwrap();
        seal(&mut object, from, from + index_bytes);
        seal(&mut object, from + index_bytes, from + index_bytes + index.state_bytes as usize);
        for block in &index.blocks {
            let at = block.position as usize;
            let crc = crc32c(&object[at + 88..at + block.length as usize]);
            // After the prefix (12), address (16), partition (20), offsets (16) and length (4).
            object[at + 68..at + 72].copy_from_slice(&crc.to_be_bytes());
            seal(&mut object, at, at + 88);
        }
    }
    let trailer = object.len() - TRAILER_BYTES;
    let end = built.ranges.iter().map(|r| r.position as usize + r.length as usize).max().unwrap();
    seal(&mut object, end, trailer);
    let directory_crc: [u8; 4] = object[trailer - 4..trailer].try_into().unwrap();
    let header_crc: [u8; 4] = object[HEADER_BYTES - 4..HEADER_BYTES].try_into().unwrap();
    object[trailer + 28..trailer + 32].copy_from_slice(&directory_crc);
    object[trailer + 32..trailer + 36].copy_from_slice(&header_crc);
    let len = object.len();
    seal(&mut object, trailer, len);
    object
}

#[test]
fn every_flipped_byte_and_every_cut_is_detected() {
    let built = bundle(5, &[batches(3, 40), batches(2, 10), batches(1, 3_000)]);
    let object = whole(&built);
    assert_eq!(with_valid_checksums(object.to_vec(), &built), object, "the helper of the tests knows the layout");
    verify_object(&object, CLUSTER, ObjectId(5)).unwrap();
    for at in 0..object.len() {
        for mask in [1, 0x80, 0xff] {
            let mut bad = object.to_vec();
            bad[at] ^= mask;
            assert!(verify_object(&bad.into(), CLUSTER, ObjectId(5)).is_err(), "byte {at}");
        }
        assert!(verify_object(&object.slice(..at), CLUSTER, ObjectId(5)).is_err(), "cut at {at}");
    }
    let longer = Bytes::from([&object[..], &[0]].concat());
    assert!(verify_object(&longer, CLUSTER, ObjectId(5)).is_err());
}

#[test]
fn flips_in_a_large_object_are_detected() {
    let built = bundle(5, &[batches(60, 40_000), batches(400, 900), batches(2, 700_000)]);
    let object = whole(&built);
    let random = SeededEntropy::new(3);
    let mut positions: Vec<u64> = (0..60).map(|_| random.below(object.len() as u64)).collect();
    for range in &built.ranges {
        positions.extend([range.position - 1, range.position, range.position + range.length as u64 - 1]);
    }
    for at in positions {
        let mut bad = object.to_vec();
        bad[at as usize] ^= 1 << random.below(8);
        assert!(verify_object(&bad.into(), CLUSTER, ObjectId(5)).is_err(), "byte {at}");
    }
}

/// Through the service: what is damaged is either not looked at or an error that names the part; nothing else than
/// what was written is ever returned, and each byte is looked at by one of the ways to read.
#[tokio::test]
async fn a_flipped_byte_in_the_store_is_never_served() {
    let runs = [batches(3, 40), batches(2, 10)];
    let built = bundle(5, &runs);
    for at in 0..whole(&built).len() {
        let store = FaultyStore::new();
        let objects = objects(&store);
        objects.put(built.object, &built.pieces).await.unwrap();
        store.rot(&key(5), at, 0x10).await;
        let mut detected = Vec::new();
        for (n, written) in runs.iter().enumerate() {
            match read_all(&objects, &built, n, usize::MAX).await {
                Ok(read) => assert_eq!(read, *written, "byte {at}"),
                Err(error) => detected.push(error),
            }
            match objects.state(built.ranges[n].partition, &entry(&built, n)).await {
                Ok(read) => assert_eq!(read, state(built.ranges[n].end.0), "byte {at}"),
                Err(error) => detected.push(error),
            }
        }
        match objects.describe(built.object).await {
            Ok(entries) => assert!(entries.iter().map(|e| &e.range).eq(&built.ranges), "byte {at}"),
            Err(error) => detected.push(error),
        }
        assert!(!detected.is_empty(), "byte {at} is not covered");
        assert!(detected.iter().all(|error| matches!(error, ReadError::Corrupt { .. })), "{detected:?}");
    }
}

#[tokio::test]
async fn a_cut_object_is_damaged_and_not_absent() {
    tokio::time::pause();
    let store = FaultyStore::new();
    let objects = objects(&store);
    let built = bundle(5, &[batches(3, 40)]);
    objects.put(built.object, &built.pieces).await.unwrap();
    store.replace(&key(5), whole(&built).slice(..400)).await;
    let error = read_all(&objects, &built, 0, 1).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Corrupt { part: Part::Index, source: FormatError::Length { bytes: 400, .. }, .. }),
        "{error}"
    );
    assert!(matches!(objects.describe(built.object).await, Err(ReadError::Corrupt { part: Part::Trailer, .. })));
}

#[tokio::test]
async fn another_objects_bytes_are_refused() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let (one, two) = (bundle(1, &[batches(3, 40)]), bundle(2, &[batches(3, 40)]));
    store.replace(&key(1), whole(&two)).await;
    let error = read_all(&objects, &one, 0, 1).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Corrupt { source: FormatError::Mismatch { field: "object id", .. }, .. }),
        "{error}"
    );
    store.replace(&key(1), whole(&one)).await;
    let swapped = objects.read(partition(2), &entry(&one, 0), Offset(0), 1).await.unwrap_err();
    assert!(matches!(swapped, ReadError::Corrupt { source: FormatError::Partition(_), .. }), "{swapped}");
}

#[tokio::test]
async fn what_stands_before_a_damaged_block_is_served_and_then_the_error() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    let run = batches(8, 400_000);
    let built = bundle(5, std::slice::from_ref(&run));
    objects.put(built.object, &built.pieces).await.unwrap();
    // In the third block: two batches each.
    store.rot(&key(5), 2 * 800_000 + 500_000, 1).await;
    let before = objects.read(partition(1), &entry(&built, 0), Offset(0), usize::MAX).await.unwrap();
    assert_eq!((before.batches, before.next), (run[..4].to_vec(), Offset(40)));
    let damaged = objects.read(partition(1), &entry(&built, 0), Offset(40), usize::MAX).await;
    assert!(matches!(damaged, Err(ReadError::Corrupt { part: Part::Block, .. })), "{damaged:?}");
    let after = objects.read(partition(1), &entry(&built, 0), Offset(60), usize::MAX).await.unwrap();
    assert_eq!(after.batches, run[6..]);
}
