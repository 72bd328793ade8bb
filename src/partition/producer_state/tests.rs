//! The checks of batches and markers, and what verification protects against.

use super::*;
use crate::base::LeaderEpoch;
use crate::batch::{StoredBatch, Writer, sample};

const ID: ProducerId = ProducerId(7);

fn placed(mut batch: StoredBatch, base: i64) -> Header {
    batch.place(Offset(base), LeaderEpoch(0));
    batch.header()
}

fn plain(epoch: i16, sequence: i32, base: i64) -> Header {
    placed(sample::produced(1, 1_000, ID.0, epoch, sequence), base)
}

fn transactional(epoch: i16, sequence: i32, base: i64) -> Header {
    let header = plain(epoch, sequence, base);
    Header { attributes: header.attributes | 0x10, ..header }
}

fn marker(epoch: i16, base: i64) -> (Header, EndMarker) {
    let marker = EndMarker { commit: true, coordinator_epoch: 1 };
    (placed(crate::batch::end_marker(ID, epoch, marker, 0).expect("small"), base), marker)
}

fn end(state: &mut ProducerState, epoch: i16, base: i64) {
    let (header, marker) = marker(epoch, base);
    state.record(&header, Some(marker), true, 0);
}

/// Verifies and appends the first batch of a transaction.
fn begin(state: &mut ProducerState, header: &Header, version2: bool) {
    let guard = state.begin_verification(header, version2, 0).expect("current epoch");
    assert!(guard.is_some());
    assert_eq!(state.check(header, Origin::Client(guard)), Ok(Verdict::Append));
    state.record(header, None, true, 0);
}

#[test]
fn a_transaction_begins_only_with_a_guard_and_goes_on_without() {
    let mut state = ProducerState::default();
    let first = transactional(0, 0, 0);
    assert_eq!(state.check(&first, Origin::Client(None)), Err(ProducerError::NotVerified));
    begin(&mut state, &first, false);
    assert_eq!(state.begin_verification(&transactional(0, 1, 1), false, 0), Ok(None));
    assert_eq!(state.check(&transactional(0, 1, 1), Origin::Client(None)), Ok(Verdict::Append));
    assert!(matches!(state.check(&first, Origin::Client(None)), Ok(Verdict::Duplicate { .. })));
    end(&mut state, 0, 1);
    assert_eq!(state.check(&transactional(0, 1, 2), Origin::Client(None)), Err(ProducerError::NotVerified));
}

#[test]
fn a_marker_takes_the_guard_away() {
    let mut state = ProducerState::default();
    let first = transactional(0, 0, 0);
    let guard = state.begin_verification(&first, false, 0).expect("current epoch");
    assert_eq!(state.begin_verification(&first, false, 0), Ok(guard), "a second question joins the first");
    end(&mut state, 0, 0);
    let late = transactional(0, 0, 1);
    assert_eq!(state.check(&late, Origin::Client(guard)), Err(ProducerError::NotVerified));
    let again = state.begin_verification(&late, false, 0).expect("current epoch");
    assert_ne!(again, guard, "what was asked before the marker stays over");
    assert_eq!(state.check(&late, Origin::Client(guard)), Err(ProducerError::NotVerified));
    assert_eq!(state.check(&late, Origin::Client(again)), Ok(Verdict::Append));
}

#[test]
fn a_stale_epoch_is_told_before_anything_else() {
    let mut state = ProducerState::default();
    begin(&mut state, &transactional(3, 0, 0), true);
    end(&mut state, 4, 1);
    let stale = Err(ProducerError::OldEpoch { current: 4, found: 3 });
    assert_eq!(state.begin_verification(&transactional(3, 1, 2), true, 0).map(drop), stale.map(drop));
    assert_eq!(state.check(&transactional(3, 1, 2), Origin::Client(None)), stale);
    assert_eq!(state.check(&plain(3, 1, 2), Origin::Client(None)), stale);
    begin(&mut state, &transactional(4, 0, 2), true);
}

#[test]
fn under_version_2_a_transaction_begins_at_sequence_0() {
    let begin = |version2| {
        let mut state = ProducerState::default();
        let header = transactional(0, 5, 0);
        let guard = state.begin_verification(&header, version2, 0).expect("nothing known");
        state.check(&header, Origin::Client(guard))
    };
    assert_eq!(begin(true), Err(ProducerError::OutOfOrder { expected: 0, found: 5 }));
    assert_eq!(begin(false), Ok(Verdict::Append), "the state may have expired");
}

#[test]
fn a_batch_does_not_overtake_one_whose_question_failed() {
    let mut state = ProducerState::default();
    let (first, second) = (transactional(0, 0, 0), transactional(0, 1, 0));
    // The answer to the first was to try again later.
    state.begin_verification(&first, false, 0).expect("nothing known");
    let guard = state.begin_verification(&second, false, 0).expect("nothing known");
    let overtaking = state.check(&second, Origin::Client(guard));
    assert_eq!(overtaking, Err(ProducerError::OutOfOrder { expected: 0, found: 1 }));
    assert_eq!(state.check(&first, Origin::Client(guard)), Ok(Verdict::Append));
}

#[test]
fn a_plain_write_within_a_transaction_is_refused() {
    let mut state = ProducerState::default();
    begin(&mut state, &transactional(0, 0, 0), false);
    let refused = state.check(&plain(0, 1, 1), Origin::Client(None));
    assert_eq!(refused, Err(ProducerError::OutsideTransaction));
    end(&mut state, 0, 1);
    assert_eq!(state.check(&plain(0, 1, 2), Origin::Client(None)), Ok(Verdict::Append));
}

#[test]
fn a_coordinator_needs_no_sequence_but_the_epoch() {
    let mut state = ProducerState::default();
    let header = |epoch, base| {
        let mut builder = crate::batch::BatchBuilder::new(Writer::in_transaction(ID, epoch));
        builder.push(Some(b"k"), Some(b"v"), 0).expect("small");
        placed(builder.finish().expect("not empty"), base)
    };
    for base in 0..3 {
        assert_eq!(state.check(&header(2, base), Origin::Coordinator), Ok(Verdict::Append));
        state.record(&header(2, base), None, true, 0);
    }
    assert_eq!(state.first_unstable(Offset(3)), Some(Offset(0)));
    assert!(matches!(state.check(&header(1, 3), Origin::Coordinator), Err(ProducerError::OldEpoch { .. })));
    assert_eq!(state.active()[0].transaction_start, Some(Offset(0)));
}

#[test]
fn a_repeated_marker_is_harmless_and_an_early_one_is_not() {
    let mut state = ProducerState::default();
    begin(&mut state, &transactional(0, 0, 0), true);
    let check = |state: &ProducerState, epoch| {
        let (header, marker) = marker(epoch, 9);
        state.check(&header, Origin::Marker { marker, version2: true }).map(drop)
    };
    assert_eq!(check(&state, 0), Err(ProducerError::OldEpoch { current: 0, found: 0 }));
    assert_eq!(check(&state, 1), Ok(()));
    end(&mut state, 1, 1);
    assert_eq!(check(&state, 1), Ok(()), "again");
    begin(&mut state, &transactional(1, 0, 2), true);
    assert_eq!(check(&state, 1), Err(ProducerError::OldEpoch { current: 1, found: 1 }), "not for the next one");
}

#[test]
fn questions_are_bounded_and_expire() {
    let mut state = ProducerState::default();
    for id in 0..3_000 {
        let header = Header { producer_id: ProducerId(id), ..transactional(0, 0, 0) };
        state.begin_verification(&header, false, id).expect("nothing known");
        assert!(state.verifications.len() <= VERIFICATIONS_MAX);
    }
    state.expire(2_999);
    assert_eq!(state.verifications.len(), 1);
    state.expire(3_000);
    assert!(state.is_empty());
}
