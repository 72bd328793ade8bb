//! Windows, epochs and cuts of the producers of one partition.

use super::*;
use crate::base::LeaderEpoch;
use crate::batch::sample;

const ID: ProducerId = ProducerId(7);

fn header(epoch: i16, sequence: i32, count: i32, base: i64) -> Header {
    let mut batch = sample::produced(count, 1_000, 7, epoch, sequence);
    batch.place(Offset(base), LeaderEpoch(0));
    batch.header()
}

fn check(producers: &Producers, header: &Header) -> Result<Verdict, ProducerError> {
    if let Some(duplicate) = producers.duplicate(header) {
        return Ok(duplicate);
    }
    producers.check_epoch(header.producer_id, header.producer_epoch)?;
    producers.check_sequence(header).map(|()| Verdict::Append)
}

fn filled(batches: i32) -> Producers {
    let mut producers = Producers::default();
    for i in 0..batches {
        producers.record(&header(0, i * 10, 10, i as i64 * 10), None, 5);
    }
    producers
}

fn end(commit: bool, coordinator_epoch: i32) -> EndMarker {
    EndMarker { commit, coordinator_epoch }
}

fn record_marker(producers: &mut Producers, epoch: i16, base: i64, coordinator_epoch: i32) {
    let marker = end(true, coordinator_epoch);
    let mut batch = crate::batch::end_marker(ID, epoch, marker, 1_000).expect("small");
    batch.place(Offset(base), LeaderEpoch(0));
    producers.record(&batch.header(), Some(marker), 5);
}

#[test]
fn the_last_five_are_duplicates_and_older_ones_are_out_of_order() {
    let producers = filled(7);
    for i in 2..7 {
        let verdict = check(&producers, &header(0, i * 10, 10, 0));
        assert!(
            matches!(verdict, Ok(Verdict::Duplicate { base_offset, .. }) if base_offset.0 == i as i64 * 10),
            "{i}: {verdict:?}"
        );
    }
    let old = check(&producers, &header(0, 10, 10, 0));
    assert_eq!(old, Err(ProducerError::OutOfOrder { expected: 70, found: 10 }));
    assert_eq!(check(&producers, &header(0, 70, 1, 0)), Ok(Verdict::Append));
    assert!(matches!(check(&producers, &header(0, 71, 1, 0)), Err(ProducerError::OutOfOrder { .. })));
    // The same first sequence with another count is no retry of the same batch.
    assert!(matches!(check(&producers, &header(0, 60, 9, 0)), Err(ProducerError::OutOfOrder { .. })));
}

#[test]
fn epochs_only_rise_and_begin_at_zero() {
    let mut producers = filled(1);
    producers.record(&header(3, 0, 1, 10), None, 5);
    assert_eq!(check(&producers, &header(2, 0, 1, 0)), Err(ProducerError::OldEpoch { current: 3, found: 2 }));
    assert_eq!(check(&producers, &header(4, 5, 1, 0)), Err(ProducerError::OutOfOrder { expected: 0, found: 5 }));
    assert_eq!(check(&producers, &header(4, 0, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    assert_eq!(check(&Producers::default(), &header(0, 99, 1, 0)), Ok(Verdict::Append));
}

#[test]
fn a_cut_below_newer_batches_still_has_the_whole_window() {
    let mut producers = filled(20);
    for trimmed in [0, 100] {
        producers.trim(Offset(trimmed));
        for cut in [100, 110, 150, 200] {
            let entry = producers.as_of(Offset(cut)).remove(0);
            let bases: Vec<_> = entry.batches.iter().map(|b| b.base_offset.0).collect();
            assert_eq!(bases, [cut - 50, cut - 40, cut - 30, cut - 20, cut - 10], "{cut} after {trimmed}");
        }
    }
    assert_eq!(producers.by_id[&ID].events.len(), 15);
    producers.trim(Offset(200));
    assert_eq!(producers.by_id[&ID].events.len(), 5);
}

#[test]
fn a_cut_below_a_new_epoch_has_the_old_one() {
    let mut producers = filled(2);
    producers.record(&header(1, 0, 10, 20), None, 5);
    let entry = producers.as_of(Offset(20)).remove(0);
    assert_eq!((entry.epoch, entry.batches.len()), (0, 2));
    let entry = producers.as_of(Offset(30)).remove(0);
    assert_eq!((entry.epoch, entry.batches.len()), (1, 1));
    assert!(matches!(check(&producers, &header(1, 10, 1, 0)), Ok(Verdict::Append)));
}

#[test]
fn state_from_the_bucket_and_the_tail_make_one_window() {
    let all = filled(8);
    let stored = PartitionState { epochs: vec![], producers: all.as_of(Offset(60)), ..Default::default() };
    let mut tail = Producers::default();
    for i in 6..8 {
        tail.record(&header(0, i * 10, 10, i as i64 * 10), None, 5);
    }
    tail.load_under(&stored, Offset(60));
    for i in 3..8 {
        let verdict = check(&tail, &header(0, i * 10, 10, 0));
        assert!(matches!(verdict, Ok(Verdict::Duplicate { .. })), "{i}");
    }
    assert_eq!(check(&tail, &header(0, 80, 10, 0)), Ok(Verdict::Append));
}

#[test]
fn a_marker_of_the_same_epoch_lets_the_sequence_go_on() {
    let mut producers = filled(2);
    record_marker(&mut producers, 0, 20, 3);
    assert_eq!(check(&producers, &header(0, 20, 1, 0)), Ok(Verdict::Append));
    assert!(matches!(check(&producers, &header(0, 10, 10, 0)), Ok(Verdict::Duplicate { .. })));
    assert!(check(&producers, &header(0, 0, 1, 0)).is_err());
}

#[test]
fn a_marker_of_a_new_epoch_resets_the_sequence_also_when_only_it_is_known() {
    let mut producers = filled(2);
    record_marker(&mut producers, 1, 20, 3);
    let stored = PartitionState { producers: producers.as_of(Offset(21)), ..Default::default() };
    assert_eq!((stored.producers[0].epoch, stored.producers[0].coordinator_epoch), (1, 3));
    assert!(stored.producers[0].batches.is_empty());
    let mut trimmed = producers.clone();
    trimmed.trim(Offset(21));
    assert!(trimmed.by_id[&ID].events.is_empty());
    let mut loaded = Producers::default();
    loaded.load_under(&stored, Offset(21));
    for producers in [producers, trimmed, loaded] {
        assert!(matches!(check(&producers, &header(0, 20, 1, 0)), Err(ProducerError::OldEpoch { .. })));
        let skipped = check(&producers, &header(1, 20, 1, 0));
        assert_eq!(skipped, Err(ProducerError::OutOfOrder { expected: 0, found: 20 }));
        assert_eq!(check(&producers, &header(1, 0, 1, 0)), Ok(Verdict::Append));
        assert_eq!(producers.as_of(Offset(21)), stored.producers);
    }
}

#[test]
fn markers_are_fenced_by_both_epochs() {
    let mut producers = filled(1);
    let check = |producers: &Producers, epoch, coordinator, version2, open| {
        producers.check_marker(ID, epoch, end(false, coordinator), version2, open)
    };
    assert_eq!(check(&producers, 0, 5, false, true), Ok(()));
    assert!(matches!(check(&producers, 0, 5, true, true), Err(ProducerError::OldEpoch { .. })));
    assert_eq!(check(&producers, 1, 5, true, true), Ok(()));
    record_marker(&mut producers, 1, 10, 5);
    assert_eq!(check(&producers, 1, 5, true, false), Ok(()), "a retry of the same marker");
    assert!(matches!(check(&producers, 0, 5, false, false), Err(ProducerError::OldEpoch { .. })));
    let fenced = check(&producers, 2, 4, true, false);
    assert_eq!(fenced, Err(ProducerError::OldCoordinator { current: 5, found: 4 }));
    assert_eq!(producers.check_marker(ProducerId(99), 0, end(true, 0), true, false), Ok(()));
}

#[test]
fn a_producer_with_an_open_transaction_does_not_expire() {
    let mut producers = filled(1);
    producers.expire(6, |id| id == ID);
    assert_eq!(producers.epoch(ID), Some(0));
    producers.expire(6, |_| false);
    assert!(producers.is_empty());
}

#[test]
fn batches_without_a_sequence_are_no_duplicates_of_each_other() {
    let mut producers = Producers::default();
    for base in [0, 1] {
        producers.record(&header(0, NO_SEQUENCE, 1, base), None, 5);
    }
    assert_eq!(producers.active(|_| None)[0].last_sequence, NO_SEQUENCE);
    assert_eq!(check(&producers, &header(0, 0, 1, 2)), Ok(Verdict::Append));
}
