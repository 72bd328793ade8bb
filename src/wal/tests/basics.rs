//! What holds when nothing goes wrong.

use super::*;
use crate::env::{RealDisk, SystemEntropy};

#[test]
fn entries_come_back_in_order_and_are_read_where_they_were_said_to_be() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    assert!(opened.report.created && opened.entries.is_empty());
    let incarnation = opened.wal.incarnation();
    let sent: Vec<Entry> = (0..20).map(|i| entry(1 + i % 3, i / 3, 10 * i as usize, i)).collect();
    for e in &sent {
        opened.wal.append(e.clone()).unwrap();
    }
    assert!(opened.recorder.wait(sent.len()));
    let synced = lock(&opened.recorder.synced).clone();
    for (e, s) in sent.iter().zip(&synced) {
        assert_eq!((s.ledger, s.entry, s.token), (e.ledger, e.entry, e.token));
        assert_eq!(opened.wal.read(s.location).unwrap(), payload(e));
    }
    opened.wal.close();
    assert_eq!(opened.wal.append(entry(1, 7, 1, 1)), Err(AppendError::Closed));
    assert_eq!(opened.wal.read(synced[3].location).unwrap(), payload(&sent[3]), "reads outlive the close");

    let again = open(&disk);
    assert_eq!(again.wal.incarnation(), incarnation);
    assert!(again.report.clean && !again.report.created && again.report.torn.is_none());
    assert_eq!(again.entries.len(), sent.len());
    for ((e, s), read) in sent.iter().zip(&synced).zip(&again.entries) {
        assert_eq!((read.0, read.1, read.2, &read.3), (e.ledger, e.entry, s.location, &payload(e)));
    }
}

#[test]
fn everything_that_waits_becomes_one_group() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let mut state = lock(&opened.wal.shared.state);
    // The WAL thread cannot run while this lock is held.
    for id in 0..50 {
        let e = entry(1, id, 100, 0);
        let crc = payload_crc(&e.head, &e.body);
        state.enqueue(Pending { entry: e, crc }, Place::Next, &SMALL).unwrap();
    }
    drop(state);
    opened.wal.shared.work.notify_one();
    assert!(opened.recorder.wait(50));
    assert_eq!(*lock(&opened.recorder.groups), [50]);
    let metrics = opened.wal.metrics();
    assert_eq!((metrics.groups, metrics.entries, metrics.payload_bytes), (1, 50, 50 * 140));
    assert_eq!(metrics.written_bytes, format::align(80 + 50 * 172) as u64);
    assert_eq!((metrics.sync_micros.iter().sum::<u64>(), metrics.group_entries[6]), (1, 1));
}

#[test]
fn an_idle_wal_records_its_watermark_once() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let at = opened.write(entry(1, 0, 10, 0)).location;
    while opened.wal.metrics().closing_blocks < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(250));
    let blocks = blocks(&disk, &file_of(&disk, at.segment).unwrap());
    let shape: Vec<_> = blocks.iter().map(|b| (b.sequence, b.watermark, b.entries, b.flags)).collect();
    let (opening, closing) = (format::FLAG_OPENING, format::FLAG_CLOSING);
    assert_eq!(shape, [(1, 0, 0, opening), (2, 1, 1, 0), (3, 2, 0, closing)]);
}

#[test]
fn starts_and_stops_without_entries_use_no_room_in_the_end() {
    let disk = SimDisk::new();
    let first = open(&disk);
    for id in 0..5 {
        first.wal.append(entry(1, id, 2000, 0)).unwrap();
    }
    drop(first);
    for start in 0..40 {
        let opened = open(&disk);
        assert_eq!(opened.entries.len(), 5, "start {start}");
        assert!(opened.report.clean && opened.report.torn.is_none(), "start {start}");
    }
    let opened = open(&disk);
    assert_eq!(opened.wal.metrics().rolls, 0);
    assert!(opened.wal.usage().needed_bytes <= SMALL.segment_bytes);
    opened.write(entry(1, 5, 2000, 0));
}

#[test]
fn a_full_wal_takes_nothing_until_it_is_trimmed_and_loses_nothing() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let mut sent = Vec::new();
    let full = loop {
        let e = entry(1, sent.len() as u64, 3000, 7);
        match opened.wal.append(e.clone()) {
            Ok(()) => sent.push(e),
            Err(full) => break full,
        }
    };
    assert_eq!(full, AppendError::Full { reason: FullReason::Budget });
    assert!(opened.recorder.wait(sent.len()), "what was taken has room");
    let usage = opened.wal.usage();
    assert!(usage.needed_bytes > 4 * SMALL.segment_bytes, "{usage:?}");
    assert!(disk.list("wal").unwrap().len() as u64 <= SMALL.budget_bytes / SMALL.segment_bytes + 2);
    let again = open_on_copy(&disk);
    assert_eq!(again, sent.len());

    opened.wal.trim(&|_, e| e.0 >= 16);
    let id = sent.len() as u64;
    opened.write(entry(1, id, 3000, 7));
    // Closed while full, and opened again: the pages for the empty blocks are there.
    drop(opened);
    let again = open_with(&disk, SMALL, Plant::None, &|_, e| e.0 >= 16).unwrap();
    assert_eq!(again.entries.last().unwrap().1, EntryId(id));
}

/// How many entries a start after a kill would find.
fn open_on_copy(disk: &SimDisk) -> usize {
    open(&disk.fork()).entries.len()
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let disk = SimDisk::new();
    let options = WalOptions { queue_bytes: 10_000, ..SMALL };
    let opened = open_with(&disk, options, Plant::None, &all).unwrap();
    let mut state = lock(&opened.wal.shared.state);
    let mut push = |id, len| {
        let e = entry(1, id, len, 0);
        state.enqueue(Pending { crc: payload_crc(&e.head, &e.body), entry: e }, Place::Next, &options)
    };
    assert_eq!(push(0, 12_000), Ok(()), "an entry alone is taken whatever its size");
    assert_eq!(push(1, 10), Err(AppendError::Full { reason: FullReason::Queue }));
    drop(state);
    opened.wal.shared.work.notify_one();
    assert!(opened.recorder.wait(1));
    while opened.wal.waiting_bytes() > 0 {
        std::thread::yield_now();
    }
    opened.write(entry(1, 1, 10, 0));
}

#[test]
fn entries_that_cannot_be_taken_are_told_apart() {
    let opened = open(&SimDisk::new());
    let max = opened.wal.payload_bytes_max() as usize;
    assert_eq!(max, (40 << 10) - 112);
    let too_large = opened.wal.append(entry(1, 0, max - HEAD + 1, 0));
    assert_eq!(too_large, Err(AppendError::TooLarge { bytes: max as u64 + 1, max: max as u64 }));
    let largest = entry(1, 0, max - HEAD, 0);
    let at = opened.write(largest.clone()).location;
    assert_eq!(opened.wal.read(at).unwrap(), payload(&largest));
    let gap = opened.wal.append(entry(1, 2, 1, 0));
    assert_eq!(gap, Err(AppendError::OutOfSequence { expected: EntryId(1) }));
    let late = opened.wal.append(entry(2, 40, 1, 0));
    assert_eq!(late, Err(AppendError::OutOfSequence { expected: EntryId(0) }), "a ledger begins with entry 0");
}

#[test]
fn freed_segments_are_read_until_they_are_used_again() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let first = opened.write(entry(1, 0, 3000, 0));
    let mut id = 1;
    while opened.wal.metrics().rolls < 2 {
        opened.write(entry(1, id, 3000, 0));
        id += 1;
    }
    opened.wal.trim(&|_, e| e.0 + 1 >= id);
    assert_eq!(opened.wal.read(first.location).unwrap(), payload(&entry(1, 0, 3000, 0)), "still a cache");
    while opened.wal.metrics().rolls < 6 {
        opened.write(entry(1, id, 3000, 0));
        opened.wal.trim(&|_, e| e.0 + 1 >= id);
        id += 1;
    }
    assert!(matches!(opened.wal.read(first.location), Err(ReadError::Recycled)));
    // A start reads from the oldest needed segment on only.
    opened.wal.close();
    let again = open_with(&disk, SMALL, Plant::None, &|_, e| e.0 + 1 >= id).unwrap();
    assert!(!again.entries.is_empty() && again.entries[0].1.0 > 10, "{:?}", again.ids());
    assert_eq!(again.entries.last().unwrap().1.0, id - 1);
}

#[test]
fn a_middle_segment_is_kept_while_an_older_one_is_needed() {
    let opened = open(&SimDisk::new());
    opened.write(entry(9, 0, 10, 0));
    for id in 0..20 {
        opened.write(entry(1, id, 3000, 0));
    }
    let before = opened.wal.usage().needed_bytes;
    opened.wal.trim(&|ledger, _| ledger.0 == 9);
    assert_eq!(opened.wal.usage().needed_bytes, before);
    opened.wal.trim(&|_, _| false);
    assert!(opened.wal.usage().needed_bytes <= SMALL.segment_bytes);
}

#[test]
fn a_sealed_ledger_takes_nothing_ever_again() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    for id in 0..3 {
        opened.wal.append(entry(1, id, 10, 0)).unwrap();
    }
    let answer = SealAnswer { through: Some(EntryId(2)), uncertain_from: None };
    assert_eq!(opened.wal.seal(LedgerId(1)).unwrap(), answer, "what was taken before is written first");
    assert_eq!(opened.wal.append(entry(1, 3, 10, 0)), Err(AppendError::Sealed));
    let unseen = SealAnswer::default();
    assert_eq!(opened.wal.seal(LedgerId(77)).unwrap(), unseen);
    // The power goes at once: an answer was safe before it was given.
    disk.power_off();
    drop(opened);
    disk.power_on(0);
    let again = open(&disk);
    assert_eq!(again.wal.append(entry(1, 3, 10, 0)), Err(AppendError::Sealed));
    assert_eq!(again.wal.append(entry(77, 0, 10, 0)), Err(AppendError::Sealed));
    assert_eq!(again.wal.seal(LedgerId(1)).unwrap(), answer);
    assert_eq!(again.wal.seal(LedgerId(77)).unwrap(), unseen);
    again.write(entry(2, 0, 10, 0));
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refuses = |options| {
        let error = open_with(&SimDisk::new(), options, Plant::None, &all).err().unwrap();
        assert!(matches!(error, OpenError::Options { .. }), "{error}");
    };
    refuses(WalOptions { segment_bytes: 5000, ..SMALL });
    refuses(WalOptions { segment_bytes: 4096, ..SMALL });
    refuses(WalOptions { segment_bytes: 4 << 30, budget_bytes: 1 << 40, ..SMALL });
    refuses(WalOptions { budget_bytes: 40 << 10, ..SMALL });
    refuses(WalOptions { segment_bytes: 0, ..SMALL });
}

#[test]
fn another_segment_size_takes_over_file_by_file() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    for id in 0..12 {
        opened.write(entry(1, id, 3000, 0));
    }
    drop(opened);
    let larger = WalOptions { segment_bytes: 64 << 10, budget_bytes: 192 << 10, ..SMALL };
    let opened = open_with(&disk, larger, Plant::None, &all).unwrap();
    assert_eq!(opened.entries.len(), 12);
    for id in 12..200 {
        opened.wal.trim(&|_, e| e.0 + 3 >= id);
        opened.write(entry(1, id, 3000, 0));
    }
    drop(opened);
    let opened = open_with(&disk, larger, Plant::None, &|_, e| e.0 >= 196).unwrap();
    assert_eq!(opened.entries.last().unwrap().1, EntryId(199));
}

#[test]
fn a_real_folder_works_as_the_simulated_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    let options = WalOptions { segment_bytes: 1 << 20, budget_bytes: 4 << 20, queue_bytes: 1 << 20 };
    let mut sent = 0;
    for round in 0..3 {
        let recorder = Arc::new(Recorder::default());
        let mut found = 0;
        let mut count = |e: RecoveredEntry<'_>| {
            let expected = entry(e.ledger.0, e.entry.0, 5000, 3);
            assert_eq!(e.payload, payload(&expected));
            found += 1;
        };
        let opened = Wal::open(disk.clone(), &SystemEntropy, options, &all, &mut count, recorder.clone());
        let (wal, report) = opened.unwrap();
        assert_eq!((found, report.created, report.torn), (sent, round == 0, None));
        for id in sent..sent + 150 {
            wal.append(entry(1, id, 5000, 3)).unwrap();
        }
        assert!(recorder.wait(150));
        sent += 150;
        let last = *lock(&recorder.synced).last().unwrap();
        assert_eq!(wal.read(last.location).unwrap(), payload(&entry(1, sent - 1, 5000, 3)));
    }
}
