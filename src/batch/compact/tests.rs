//! Each rule of compaction by itself.

use std::collections::HashMap;

use crate::base::{Offset, ProducerId};
use crate::batch::{Compression, StoredBatch};

use super::sample::{NOBODY, Origin, Pair, batch, marker, seen};
use super::*;

const DAY: i64 = 86_400_000;
const NO_END: Offset = Offset(i64::MAX);

fn keys(log: &[StoredBatch], end: i64, aborted: &[AbortedSpan]) -> KeyMap {
    let mut keys = KeyMap::new(1 << 20, 90, 1_000, [7; 16]).expect("small");
    let mut transactions = Transactions::default();
    transactions.tell_aborted(aborted.iter().copied());
    for batch in log {
        let _ = index_keys(&mut keys, batch, (Offset(0), Offset(end)), &transactions);
    }
    keys
}

fn cleaner(log: &[StoredBatch], end: i64, now_ms: i64, aborted: &[AbortedSpan]) -> Cleaner {
    let mut transactions = Transactions::default();
    transactions.tell_aborted(aborted.iter().copied());
    let policy = Policy { end: Offset(end), now_ms, delete_retention_ms: DAY };
    Cleaner::new(keys(log, end, aborted), policy, transactions, HashMap::new())
}

/// What is left of a log; nothing is a range's end.
fn pass(cleaner: &mut Cleaner, log: &[StoredBatch]) -> Vec<StoredBatch> {
    let left = log.iter().filter_map(|batch| match cleaner.clean(batch, NO_END) {
        Cleaned::Same | Cleaned::Broken(_) => Some(batch.clone()),
        Cleaned::Changed(changed) => Some(changed),
        Cleaned::Filler(_) | Cleaned::Gone => None,
    });
    left.collect()
}

fn plain(base: i64, pairs: &[Pair<'_>]) -> StoredBatch {
    batch(base, pairs, NOBODY, Compression::None)
}

fn offsets(log: &[StoredBatch]) -> Vec<i64> {
    log.iter().flat_map(seen).map(|record| record.offset).collect()
}

#[test]
fn the_newest_of_each_key_stays_as_it_was_in_every_codec() {
    for codec in Compression::ALL {
        let origin = Origin { producer: 5, epoch: 2, sequence: 40, transactional: false };
        let log = [
            batch(10, &[(Some("a"), Some("1")), (Some("b"), Some("2")), (Some("c"), Some("3"))], origin, codec),
            batch(13, &[(Some("a"), Some("4")), (Some("d"), Some("5"))], NOBODY, codec),
            batch(15, &[(Some("d"), Some("6"))], NOBODY, codec),
        ];
        let before: Vec<_> = log.iter().flat_map(seen).collect();
        let left = pass(&mut cleaner(&log, 16, 0, &[]), &log);
        let after: Vec<_> = left.iter().flat_map(seen).collect();
        let expected: Vec<_> = before.into_iter().filter(|r| [11, 12, 13, 15].contains(&r.offset)).collect();
        assert_eq!(after, expected, "{codec:?}");
        let (old, new) = (log[0].header(), left[0].header());
        assert_eq!((new.base_offset, new.last_offset(), new.record_count), (old.base_offset, old.last_offset(), 2));
        assert_eq!((new.producer_id, new.producer_epoch, new.base_sequence), (ProducerId(5), 2, 40));
        assert_eq!((new.last_sequence(), new.leader_epoch), (old.last_sequence(), old.leader_epoch));
        assert_eq!((new.compression(), new.max_timestamp), (Some(codec), 1_012));
        assert_eq!(pass(&mut cleaner(&left, 16, 0, &[]), &left), left, "a second pass changes nothing");
    }
}

#[test]
fn nothing_at_or_above_the_end_is_touched() {
    let log = [plain(0, &[(Some("a"), Some("1")), (Some("a"), Some("2")), (Some("a"), Some("3"))])];
    assert_eq!(offsets(&pass(&mut cleaner(&log, 2, 0, &[]), &log)), [1, 2]);
    assert_eq!(pass(&mut cleaner(&log, 0, 0, &[]), &log), log);
}

#[test]
fn a_tombstone_goes_when_its_horizon_has_passed_and_not_before() {
    let log = [plain(0, &[(Some("a"), Some("1")), (Some("b"), Some("2"))]), plain(2, &[(Some("a"), None)])];
    let first = pass(&mut cleaner(&log, 3, 500, &[]), &log);
    assert_eq!(offsets(&first), [1, 2]);
    let header = first[1].header();
    assert_eq!((header.attributes & 0x40, header.base_timestamp), (0x40, 500 + DAY));
    assert_eq!(seen(&first[1])[0].timestamp, 1_002, "the record keeps its time");
    assert_eq!(pass(&mut cleaner(&first, 3, 499 + DAY, &[]), &first), first, "the horizon is set once");
    let last = pass(&mut cleaner(&first, 3, 500 + DAY, &[]), &first);
    assert_eq!(offsets(&last), [1]);
    let straddling = [plain(0, &[(Some("a"), None), (Some("b"), None)])];
    let left = pass(&mut cleaner(&straddling, 1, 500, &[]), &straddling);
    assert_eq!(left, straddling, "what is not wholly cleanable gets no horizon");
}

#[test]
fn tombstones_under_log_append_time_keep_that_time() {
    let mut stored = plain(0, &[(Some("a"), None)]);
    stored.set_log_append_time(77);
    let left = pass(&mut cleaner(std::slice::from_ref(&stored), 1, 500, &[]), &[stored]);
    assert_eq!((seen(&left[0])[0].timestamp, left[0].header().base_timestamp), (77, 500 + DAY));
}

#[test]
fn aborted_records_go_and_markers_follow_when_nothing_is_left() {
    let by = |producer| Origin { producer, epoch: 0, sequence: 0, transactional: true };
    let none = Compression::None;
    let log = [
        plain(0, &[(Some("a"), Some("old")), (Some("b"), Some("old"))]),
        batch(2, &[(Some("a"), Some("aborted"))], by(1), none),
        batch(3, &[(Some("b"), Some("committed"))], by(2), none),
        marker(4, 1, 0, false),
        marker(5, 2, 0, true),
    ];
    let aborted = [AbortedSpan { producer: ProducerId(1), first_offset: Offset(2), last_offset: Offset(4) }];
    let first = pass(&mut cleaner(&log, 6, 0, &aborted), &log);
    assert_eq!(offsets(&first), [0, 3, 4, 5], "the aborted record has not replaced the old one");
    let second = pass(&mut cleaner(&first, 6, 0, &[]), &first);
    let horizons: Vec<_> = second.iter().map(|b| b.header().attributes & 0x40).collect();
    assert_eq!(horizons, [0, 0, 0x40, 0], "the committed transaction still has a record");
    assert_eq!(pass(&mut cleaner(&second, 6, DAY - 1, &[]), &second), second);
    let third = pass(&mut cleaner(&second, 6, DAY, &[]), &second);
    assert_eq!(offsets(&third), [0, 3, 5]);
}

#[test]
fn the_last_batch_of_an_active_producer_stays_without_records() {
    let origin = Origin { producer: 9, epoch: 1, sequence: 100, transactional: false };
    let log = [
        batch(0, &[(Some("a"), Some("1"))], origin, Compression::Zstd),
        batch(1, &[(Some("a"), Some("2")), (Some("a"), Some("3"))], origin, Compression::Zstd),
        plain(3, &[(Some("a"), Some("4"))]),
    ];
    let mut cleaner = cleaner(&log, 4, 0, &[]);
    cleaner.last_batches.insert(ProducerId(9), LastBatch::At(Offset(1)));
    let left = pass(&mut cleaner, &log);
    let header = left[0].header();
    assert_eq!((left.len(), header.record_count, header.total_bytes()), (2, 0, 61));
    assert_eq!((header.base_offset, header.last_offset(), header.last_sequence()), (Offset(1), Offset(2), 101));
    assert_eq!(
        (header.compression(), header.base_timestamp, header.max_timestamp),
        (Some(Compression::None), -1, 1_002)
    );
    assert_eq!(cleaner.clean(&left[0], NO_END), Cleaned::Same);
    cleaner.last_batches.clear();
    assert_eq!(cleaner.clean(&left[0], NO_END), Cleaned::Gone, "once the producer has expired");

    let marker = marker(4, 9, 1, true);
    cleaner.policy.end = Offset(5);
    cleaner.last_batches.insert(ProducerId(9), LastBatch::Marker { epoch: 1 });
    let Cleaned::Changed(dated) = cleaner.clean(&marker, NO_END) else { panic!("no horizon") };
    cleaner.policy.now_ms = DAY;
    let Cleaned::Changed(empty) = cleaner.clean(&dated, NO_END) else { panic!("not emptied") };
    assert_eq!((empty.header().record_count, empty.header().is_control()), (0, true));
    assert_eq!(cleaner.clean(&empty, NO_END), Cleaned::Same);
}

#[test]
fn the_last_batch_of_a_range_stays_as_a_filler() {
    let log = [plain(0, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]), plain(2, &[(Some("a"), Some("3"))])];
    let mut cleaner = cleaner(&log, 3, 0, &[]);
    let Cleaned::Filler(filler) = cleaner.clean(&log[0], Offset(2)) else { panic!("gone") };
    assert_eq!((filler.header().next_offset(), filler.header().record_count), (Offset(2), 0));
    assert_eq!(cleaner.clean(&filler, Offset(2)), Cleaned::Filler(filler.clone()));
    assert_eq!(cleaner.clean(&filler, NO_END), Cleaned::Gone);
}

#[test]
fn damage_is_left_alone_and_keeps_what_comes_behind_it() {
    let log = [
        plain(0, &[(Some("a"), Some("1"))]),
        plain(1, &[(Some("a"), Some("2")), (Some("b"), Some("2"))]),
        plain(3, &[(Some("a"), None)]),
        plain(4, &[(Some("b"), Some("4"))]),
    ];
    let mut dated = pass(&mut cleaner(&log, 5, 0, &[]), &log);
    assert_eq!(offsets(&dated), [3, 4]);
    let mut broken = log[1].clone();
    let mut body = broken.body.to_vec();
    let at = body.len() - 3;
    body[at] ^= 1;
    broken.body = body.into();
    dated.insert(0, broken.clone());
    let mut late = cleaner(&dated, 5, DAY * 9, &[]);
    let left = pass(&mut late, &dated);
    assert_eq!(left[0], broken);
    assert_eq!(offsets(&left[1..]), [3, 4], "the tombstone stays: what it deletes may be in the broken batch");
    assert_eq!((late.counts.batches_broken, late.has_met_damage()), (1, true));
    // Its keys are not in the map either: an older record of theirs may be all that is left.
    assert_eq!(keys(std::slice::from_ref(&broken), 5, &[]).len(), 0);
}

#[test]
fn lies_in_records_are_damage_and_never_a_panic() {
    let good = plain(0, &[(Some("a"), Some("1")), (Some("b"), None)]);
    for at in 45..good.body.len() {
        for value in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut body = good.body.to_vec();
            body[at] = value;
            let crc = crate::base::checksum::crc32c(&body[5..]);
            body[1..5].copy_from_slice(&crc.to_be_bytes());
            let changed = StoredBatch { head: good.head, body: body.into() };
            let _ = cleaner(std::slice::from_ref(&changed), 2, DAY, &[]).clean(&changed, Offset(2));
            let _ = keyless_records(&changed, 10);
        }
    }
}

#[test]
fn records_without_a_key_go_and_are_named() {
    let log = [plain(0, &[(None, Some("1")), (Some("a"), Some("2")), (None, None)])];
    assert_eq!(keyless_records(&log[0], 10), Ok(vec![0, 2]));
    assert_eq!(keyless_records(&log[0], 1), Ok(vec![0]));
    let mut cleaner = cleaner(&log, 3, 0, &[]);
    assert_eq!(offsets(&pass(&mut cleaner, &log)), [1]);
    assert_eq!(
        (cleaner.counts.records_keyless, cleaner.counts.records_removed, cleaner.counts.records_kept),
        (2, 2, 1)
    );
}
