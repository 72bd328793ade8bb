//! Several ledgers, and what recoverers copy into sealed ones: places, gaps, starts, and a kill at every step.

use std::collections::BTreeMap;

use super::*;

fn copy(opened: &Opened, e: Entry) -> Result<(), AppendError> {
    let crc = payload_crc(&e.head, &e.body);
    opened.wal.append_at(e, crc, Place::Copied)
}

impl Opened {
    /// As `write`, for a recoverer's copy.
    fn copied(&self, e: Entry) -> Synced {
        let count = lock(&self.recorder.synced).len() + 1;
        copy(self, e).unwrap();
        assert!(self.recorder.wait(count), "the WAL failed");
        lock(&self.recorder.synced)[count - 1]
    }
}

#[test]
fn copies_are_taken_by_a_sealed_ledger_only_and_leave_out_what_they_may() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    opened.write(entry(1, 0, 100, 0));
    opened.write(entry(1, 1, 100, 0));
    assert_eq!(copy(&opened, entry(1, 2, 100, 0)), Err(AppendError::NotSealed));
    assert_eq!(copy(&opened, entry(2, 0, 100, 0)), Err(AppendError::NotSealed), "never seen");
    opened.wal.seal(LedgerId(1)).unwrap();
    opened.wal.seal(LedgerId(2)).unwrap();
    assert_eq!(opened.wal.append(entry(1, 2, 100, 0)), Err(AppendError::Sealed));
    opened.copied(entry(1, 2, 100, 0));
    let again = copy(&opened, entry(1, 2, 100, 0));
    assert_eq!(again, Err(AppendError::OutOfSequence { expected: EntryId(3) }), "never back");
    opened.copied(entry(1, 9, 100, 0));
    opened.copied(entry(2, 40, 100, 0));
    let writers = opened.wal.append(entry(3, 5, 100, 0));
    assert_eq!(writers, Err(AppendError::OutOfSequence { expected: EntryId(0) }), "a writer leaves nothing out");
    let answer = opened.wal.seal(LedgerId(1)).unwrap();
    assert_eq!(answer.through, Some(EntryId(1)), "copies do not change the answer");
    drop(opened);

    let again = open(&disk);
    assert_eq!(again.ids(), [(1, 0), (1, 1), (1, 2), (1, 9), (2, 40)]);
    assert_eq!(again.wal.seals().len(), 2);
    again.copied(entry(1, 10, 100, 0));
    again.copied(entry(2, 41, 100, 0));
    assert_eq!(again.wal.append(entry(2, 42, 100, 0)), Err(AppendError::Sealed));
}

#[test]
fn a_gap_in_a_ledger_that_is_not_sealed_is_damage() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    opened.write(entry(1, 0, 100, 0));
    opened.wal.seal(LedgerId(1)).unwrap();
    opened.copied(entry(1, 7, 100, 0));
    opened.wal.close();
    drop(opened);
    let mut manifest = manifest::Manifest::load(&disk).unwrap().unwrap();
    manifest.sealed.clear();
    manifest.store(&disk).unwrap();
    let error = refused(&disk);
    assert!(matches!(&error, OpenError::Corrupt { detail, .. } if detail.contains("entry 7 after entry 0")), "{error}");
}

#[test]
fn a_seal_is_forgotten_when_its_ledger_is_gone_and_no_start_reads_of_it() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    opened.write(entry(1, 0, 100, 0));
    for ledger in [1, 2, 3] {
        opened.wal.seal(LedgerId(ledger)).unwrap();
    }
    let sealed = |opened: &Opened| opened.wal.seals().iter().map(|(ledger, _)| ledger.0).collect::<Vec<_>>();
    opened.wal.forget(&|ledger| ledger.0 <= 2).unwrap();
    assert_eq!(sealed(&opened), [1, 3], "entries of the first are in a segment that a start reads");
    let mut id = 0;
    while opened.wal.metrics().rolls < 2 {
        opened.write(entry(4, id, 3000, 0));
        id += 1;
    }
    opened.wal.trim(&|ledger, e| ledger.0 == 4 && e.0 + 1 >= id);
    opened.wal.forget(&|ledger| ledger.0 <= 2).unwrap();
    assert_eq!(sealed(&opened), [3]);
    drop(opened);
    let again = open(&disk);
    assert_eq!(sealed(&again), [3]);
    assert!(again.ids().iter().all(|(ledger, _)| *ledger == 4));
}

#[test]
fn an_older_copy_of_the_folder_is_told_from_the_newest() {
    use crate::base::BrokerEpoch;
    let disk = SimDisk::new();
    let start = |disk: &SimDisk, recorded: Option<u64>| {
        let opened = open(disk);
        let boot = opened.wal.next_boot(recorded);
        if let Ok(boot) = boot {
            opened.wal.registered(BrokerEpoch(10 * boot as i64), boot).unwrap();
        }
        boot
    };
    assert_eq!(start(&disk, None).unwrap(), 1);
    let copy = disk.fork();
    copy.power_on(0);
    assert_eq!(start(&disk, Some(1)).unwrap(), 2);
    let again = open(&disk);
    assert_eq!((again.wal.boot(), again.wal.broker_epoch()), (2, BrokerEpoch(20)));
    let error = start(&copy, Some(2)).unwrap_err();
    assert!(matches!(error, RecordError::OldCopy(OldCopy { stored: 1, recorded: 2 })), "{error}");
    // A start that was accepted and died before it heard of it is no copy.
    assert_eq!(again.wal.next_boot(Some(2)).unwrap(), 3);
    drop(again);
    assert_eq!(start(&disk, Some(3)).unwrap(), 4);
}

/// What the outside knows of one run.
#[derive(Default)]
struct Known {
    published: BTreeMap<(u64, u64), Vec<u8>>,
    appended: BTreeMap<(u64, u64), Vec<u8>>,
    seals: BTreeMap<u64, SealAnswer>,
    forgotten: bool,
    boot: u64,
}

/// A node's life with ledgers of others: appends, a seal, copies that leap, a seal that is forgotten. Stops when the power
/// goes.
fn life(opened: &Opened, known: &mut Known) -> Option<()> {
    let mut sent = 0;
    let mut write = |known: &mut Known, e: Entry, place: Place| {
        known.appended.insert((e.ledger.0, e.entry.0), payload(&e));
        let crc = payload_crc(&e.head, &e.body);
        opened.wal.append_at(e, crc, place).ok()?;
        sent += 1;
        let done = opened.recorder.wait(sent);
        for s in lock(&opened.recorder.synced).iter() {
            let key = (s.ledger.0, s.entry.0);
            known.published.insert(key, known.appended[&key].clone());
        }
        done.then_some(())
    };
    for id in 0..3 {
        write(known, entry(1, id, 700, id), Place::Next)?;
        write(known, entry(2, id, 300, id), Place::Next)?;
    }
    let boot = opened.wal.next_boot(None).ok()?;
    opened.wal.registered(crate::base::BrokerEpoch(5), boot).ok()?;
    known.boot = boot;
    for ledger in [1, 3] {
        known.seals.insert(ledger, opened.wal.seal(LedgerId(ledger)).ok()?);
    }
    for id in [3, 4, 20, 21] {
        write(known, entry(1, id, 500, id), Place::Copied)?;
    }
    write(known, entry(3, 8, 200, 8), Place::Copied)?;
    opened.wal.seal(LedgerId(9)).ok()?;
    opened.wal.forget(&|ledger| ledger == LedgerId(9)).ok()?;
    known.forgotten = true;
    write(known, entry(2, 3, 300, 3), Place::Next)
}

#[test]
fn killed_at_every_step_the_next_start_has_what_was_published_and_sealed() {
    let (mut cut_short, mut whole, mut changes) = (0, 0, 0);
    loop {
        for seed in 0..6 {
            let disk = SimDisk::new();
            let opened = open(&disk);
            opened.settle();
            disk.power_off_after(changes);
            let mut known = Known::default();
            let done = life(&opened, &mut known).is_some();
            *(if done { &mut whole } else { &mut cut_short }) += 1;
            disk.power_off();
            opened.wal.close();
            disk.power_on(seed);
            let again = open(&disk);
            let found: BTreeMap<(u64, u64), &Vec<u8>> =
                again.entries.iter().map(|(ledger, entry, _, bytes)| ((ledger.0, entry.0), bytes)).collect();
            for (key, bytes) in &known.published {
                assert_eq!(found.get(key), Some(&bytes), "published: {key:?}, changes {changes} seed {seed}");
            }
            for (key, bytes) in &found {
                assert_eq!(known.appended.get(key), Some(*bytes), "{key:?}, changes {changes} seed {seed}");
            }
            for (ledger, answer) in &known.seals {
                assert_eq!(again.wal.append(entry(*ledger, 99, 1, 0)), Err(AppendError::Sealed));
                assert_eq!(again.wal.seal(LedgerId(*ledger)).unwrap(), *answer, "changes {changes} seed {seed}");
            }
            assert!(again.wal.boot() >= known.boot, "an accepted start is remembered");
            if known.forgotten {
                assert!(again.wal.seals().iter().all(|(ledger, _)| ledger.0 != 9));
            }
        }
        if whole >= 6 {
            break;
        }
        changes += 1;
        assert!(changes < 500, "no run got to its end");
    }
    assert!(cut_short > 100, "{cut_short} runs were cut short");
}
