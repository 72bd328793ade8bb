//! Random histories against a model that holds them in a map: after any sequence of passes exactly the newest record of
//! each key is left below the clean end, and everything above it.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use crate::base::{Offset, ProducerId};
use crate::batch::{Compression, StoredBatch};

use super::key_map::ENTRY_BYTES;
use super::sample::{NOBODY, Origin, Seen, batch, marker, seen};
use super::*;

const RETENTION_MS: i64 = 100;

#[derive(Clone, Debug)]
struct Step {
    /// 0 to 2 write as nobody, as producers 1 and 2 (in transactions); 3 commits and 4 aborts producer 1, 5 and 6
    /// producer 2.
    kind: u8,
    codec: usize,
    /// Key number, and whether the value is null.
    records: Vec<(u8, bool)>,
}

#[derive(Default)]
struct History {
    log: Vec<StoredBatch>,
    aborted: Vec<AbortedSpan>,
    /// First offset of the open transaction of producers 1 and 2.
    open: [Option<i64>; 2],
    next: i64,
}

impl History {
    fn of(steps: &[Step]) -> History {
        let mut history = History::default();
        for step in steps {
            history.take(step);
        }
        history
    }

    fn take(&mut self, step: &Step) {
        let base = self.next;
        if step.kind >= 3 {
            let (producer, commit) = (usize::from(step.kind - 3) / 2, step.kind % 2 == 1);
            let Some(first) = self.open[producer].take() else { return };
            self.log.push(marker(base, producer as i64 + 1, 0, commit));
            self.next += 1;
            if !commit {
                let producer = ProducerId(producer as i64 + 1);
                self.aborted.push(AbortedSpan { producer, first_offset: Offset(first), last_offset: Offset(base) });
            }
            return;
        }
        let names: Vec<_> = step.records.iter().map(|(key, _)| format!("k{key}")).collect();
        let values: Vec<_> = (base..).take(names.len()).map(|offset| format!("v{offset}")).collect();
        let texts = step.records.iter().zip(names.iter().zip(&values));
        let pairs: Vec<_> =
            texts.map(|((_, null), (k, v))| (Some(k.as_str()), (!null).then_some(v.as_str()))).collect();
        let origin = match step.kind {
            0 => NOBODY,
            producer => Origin { producer: producer.into(), epoch: 0, sequence: base as i32, transactional: true },
        };
        if step.kind > 0 {
            self.open[usize::from(step.kind) - 1].get_or_insert(base);
        }
        self.log.push(batch(base, &pairs, origin, Compression::ALL[step.codec]));
        self.next += pairs.len() as i64;
    }

    /// Offsets below are decided: what a pass may clean.
    fn stable_end(&self) -> i64 {
        self.open.iter().flatten().copied().min().unwrap_or(self.next)
    }

    fn is_aborted(&self, batch: &StoredBatch) -> bool {
        let header = batch.header();
        let mut transactions = Transactions::default();
        transactions.tell_aborted(self.aborted.iter().copied());
        header.is_transactional() && transactions.is_aborted(header.producer_id, header.base_offset)
    }

    /// The newest record of each key below `end`, of committed ones.
    fn newest(&self, end: i64) -> BTreeMap<String, Seen> {
        let data = self.log.iter().filter(|b| !b.header().is_control() && !self.is_aborted(b));
        let below = data.flat_map(seen).filter(|record| record.offset < end);
        below.map(|record| (record.key.clone().unwrap_or_default(), record)).collect()
    }
}

/// One pass over `log` from `from` on with a map of at most `places`; answers what is left and the new clean end.
fn pass(
    log: &[StoredBatch],
    history: &History,
    (from, to): (i64, i64),
    places: u64,
    now_ms: i64,
) -> (Vec<StoredBatch>, i64) {
    let mut keys = KeyMap::new(places * ENTRY_BYTES, 90, u64::MAX, [3; 16]).expect("small");
    let mut transactions = Transactions::default();
    transactions.tell_aborted(history.aborted.iter().copied());
    let mut end = to;
    for batch in log.iter().filter(|b| b.header().next_offset().0 > from) {
        let indexed = index_keys(&mut keys, batch, (Offset(from), Offset(to)), &transactions).expect("whole");
        if let Indexed::Full(at) = indexed {
            end = at.0;
            break;
        }
    }
    let policy = Policy { end: Offset(end), now_ms, delete_retention_ms: RETENTION_MS };
    let mut cleaner = Cleaner::new(keys, policy, transactions, HashMap::new());
    let mut left: Vec<StoredBatch> = Vec::new();
    for batch in log {
        match cleaner.clean(batch, Offset(history.next)) {
            Cleaned::Same => left.push(batch.clone()),
            Cleaned::Changed(changed) | Cleaned::Filler(changed) => left.push(changed),
            Cleaned::Gone => {}
            Cleaned::Broken(error) => panic!("{error}"),
        }
    }
    (left, end)
}

fn records(log: &[StoredBatch]) -> Vec<Seen> {
    log.iter().filter(|b| !b.header().is_control()).flat_map(seen).collect()
}

/// Everything that must be so after a pass up to `end`.
fn check(history: &History, left: &[StoredBatch], end: i64, tombstones_since: Option<i64>) {
    for pair in left.windows(2) {
        assert!(pair[0].header().next_offset() <= pair[1].header().base_offset, "batches stay in order");
    }
    let (below, above): (Vec<_>, Vec<_>) = records(left).into_iter().partition(|record| record.offset < end);
    let untouched: Vec<_> = records(&history.log).into_iter().filter(|record| record.offset >= end).collect();
    assert_eq!(above, untouched, "nothing above the clean end changes");
    let newest = history.newest(end);
    for record in &below {
        assert_eq!(newest.get(record.key.as_deref().unwrap_or_default()), Some(record), "only the newest is left");
    }
    for record in newest.values().filter(|record| record.value.is_some() || tombstones_since.is_some_and(|t| t >= 0)) {
        assert!(below.contains(record), "{record:?} is lost");
    }
    if tombstones_since.is_none() {
        assert!(below.iter().all(|record| record.value.is_some()), "tombstones go in the end");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = proptest::collection::vec((0u8..40, proptest::bool::weighted(0.2)), 1..12);
    let step = (0u8..7, 0usize..5, records).prop_map(|(kind, codec, records)| Step { kind, codec, records });
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passes_leave_the_newest_of_each_key(steps in steps(), places in 16u64..80) {
        let history = History::of(&steps);
        let to = history.stable_end();
        let (mut left, mut end, mut passes) = (history.log.clone(), 0, 0);
        while end < to {
            let (next, reached) = pass(&left, &history, (end, to), places, 0);
            prop_assert!(reached > end, "every pass gets on");
            check(&history, &next, reached, Some(0));
            (left, end, passes) = (next, reached, passes + 1);
            prop_assert!(passes <= 500);
        }
        let (again, _) = pass(&left, &history, (end, to), places, 0);
        prop_assert_eq!(records(&again), records(&left), "a further pass removes nothing");
        // Markers without batches get their horizon one pass later; then everything dated goes at once.
        let (third, _) = pass(&again, &history, (end, to), places, RETENTION_MS - 1);
        check(&history, &third, end, Some(0));
        let (last, _) = pass(&third, &history, (end, to), places, 2 * RETENTION_MS);
        check(&history, &last, end, None);
        // A transaction that lost its last tombstone just now has its marker for one more horizon.
        let (dated, _) = pass(&last, &history, (end, to), places, 2 * RETENTION_MS);
        prop_assert_eq!(records(&dated), records(&last));
        let (done, _) = pass(&dated, &history, (end, to), places, 4 * RETENTION_MS);
        let (same, _) = pass(&done, &history, (end, to), places, 4 * RETENTION_MS);
        prop_assert_eq!(&same, &done, "nothing is left to do");
        let mut with_data = std::collections::BTreeSet::new();
        for header in done.iter().map(|batch| batch.header()).filter(|h| h.is_transactional() && h.base_offset.0 < end) {
            match header.is_control() {
                false => drop(with_data.insert(header.producer_id)),
                true if header.record_count == 0 => {}
                true => prop_assert!(with_data.remove(&header.producer_id), "a marker has outlived its transaction"),
            }
        }
    }

    #[test]
    fn one_pass_and_several_come_to_the_same(steps in steps()) {
        let history = History::of(&steps);
        let to = history.stable_end();
        let (whole, end) = pass(&history.log, &history, (0, to), 10_000, 0);
        prop_assert_eq!(end, to);
        let (mut left, mut end) = (history.log.clone(), 0);
        while end < to {
            (left, end) = pass(&left, &history, (end, to), 16, 0);
        }
        prop_assert_eq!(records(&left), records(&whole));
    }
}
