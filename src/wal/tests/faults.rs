//! A disk that reports errors.

use super::*;
use crate::env::sim_disk::Operation;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn a_failed_sync_is_final() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = SimDisk::new();
        let opened = open(&disk);
        opened.write(entry(1, 0, 100, 0));
        let path = file_of(&disk, 1).unwrap();
        disk.fail(operation, &path, 1, EIO);
        opened.wal.append(entry(1, 1, 100, 0)).unwrap();
        let reason = opened.recorder.wait_failed();
        assert!(reason.contains("000000.seg") && reason.contains("os error 5"), "{reason}");
        // The disk works again, the WAL does not, and it still says why.
        let refused = opened.wal.append(entry(1, 1, 100, 0)).unwrap_err();
        assert!(matches!(&refused, AppendError::Failed { reason: why } if **why == *reason), "{refused}");
        assert!(matches!(opened.wal.seal(LedgerId(1)), Err(SealError::Failed { .. })));
        let content = disk.content(&path);
        std::thread::sleep(Duration::from_millis(150));
        opened.wal.close();
        assert_eq!(disk.content(&path), content, "nothing is written again, no closing block either");
        assert_eq!(lock(&opened.recorder.synced).len(), 1);
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_counts() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    opened.write(entry(1, 0, 100, 0));
    disk.fail(Operation::Sync, &file_of(&disk, 1).unwrap(), 1, EIO);
    opened.wal.append(entry(1, 1, 100, 0)).unwrap();
    opened.recorder.wait_failed();
    drop(opened);
    // The process restarts, the page cache still has the block; from then on it must survive a power cut.
    disk.kill();
    let again = open(&disk);
    assert_eq!(again.ids(), [(1, 0), (1, 1)]);
    disk.power_off();
    drop(again);
    disk.power_on(0);
    assert_eq!(open(&disk).ids(), [(1, 0), (1, 1)]);
}

/// The first segment can be made, no other.
fn only_one_file(disk: &SimDisk) {
    for nth in 2..1000 {
        disk.fail(Operation::Allocate, ".seg", nth, ENOSPC);
    }
}

#[test]
fn a_full_disk_is_no_failure() {
    let disk = SimDisk::new();
    only_one_file(&disk);
    let opened = open(&disk);
    let mut sent = 0;
    // Where the file thread is slow, more is taken before the disk is found full: it is written when there is room.
    while opened.wal.append(entry(1, sent, 3000, 0)).is_ok() {
        sent += 1;
    }
    while !opened.wal.usage().disk_full {
        std::thread::yield_now();
    }
    assert_eq!(opened.wal.append(entry(1, sent, 3000, 0)), Err(AppendError::Full { reason: FullReason::Budget }));
    assert_eq!(*lock(&opened.recorder.failed), None);
    // Somebody made room: by itself the WAL goes on, and what it had taken meanwhile is written.
    disk.clear_faults();
    assert!(opened.recorder.wait(sent as usize));
    let needed = |_, e: EntryId| e.0 + 1 >= sent;
    // What had been taken may fill the whole budget.
    opened.wal.trim(&needed);
    while opened.wal.append(entry(1, sent, 3000, 0)).is_err() {
        std::thread::yield_now();
    }
    assert!(opened.recorder.wait(sent as usize + 1));
    drop(opened);
    assert_eq!(open_with(&disk, SMALL, Plant::None, &needed).unwrap().entries.last().unwrap().1, EntryId(sent));
}

#[test]
fn a_full_disk_does_not_hold_up_the_close() {
    let disk = SimDisk::new();
    only_one_file(&disk);
    let opened = open(&disk);
    let mut sent = 0;
    while opened.wal.append(entry(1, sent, 3000, 0)).is_ok() && sent < 100 {
        sent += 1;
    }
    opened.wal.close();
    let published = lock(&opened.recorder.synced).len();
    drop(opened);
    disk.clear_faults();
    let again = open(&disk);
    assert_eq!(again.entries.len(), published);
    assert!(again.report.clean);
}

#[test]
fn an_unreadable_disk_is_never_taken_for_an_end() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    for id in 0..4 {
        opened.write(entry(1, id, 3000, 0));
    }
    drop(opened);
    let before = disk.content("wal/000000.seg");
    for nth in 1..30 {
        disk.fail(Operation::Read, "wal/", nth, EIO);
        let opened = open_with(&disk, SMALL, Plant::None, &all);
        match opened {
            Ok(opened) => assert_eq!(opened.entries.len(), 4),
            Err(OpenError::Io { .. }) => assert_eq!(disk.content("wal/000000.seg"), before),
            Err(other) => panic!("{other}"),
        }
        disk.clear_faults();
        disk.put("wal/000000.seg", before.as_deref().unwrap());
    }
}

#[test]
fn a_failing_manifest_latches_the_wal() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    disk.fail(Operation::Sync, "manifest", 1, EIO);
    let mut id = 0;
    while opened.wal.append(entry(1, id, 3000, 0)).is_ok() {
        id += 1;
        if id == 2 && lock(&opened.recorder.failed).is_none() {
            let _ = opened.wal.seal(LedgerId(5));
        }
        std::thread::yield_now();
    }
    assert!(opened.recorder.wait_failed().contains("os error 5"));
}

/// A group may arrive while the events of the last one are still being handled; nothing is lost when the handler panics
/// either: the WAL stops.
#[test]
fn a_panicking_listener_latches_the_wal() {
    struct Panics;
    impl WalEvents for Panics {
        fn synced(&self, _: &[Synced]) {
            panic!("planted in a test");
        }
        fn failed(&self, _: &str) {}
    }
    let disk = SimDisk::new();
    let (wal, _) = Wal::start(Request {
        disk: Arc::new(disk),
        entropy: &SeededEntropy::new(1),
        options: SMALL,
        needed: &all,
        on_entry: &mut |_| {},
        events: Arc::new(Panics),
        plant: Plant::None,
    })
    .unwrap();
    wal.append(entry(1, 0, 10, 0)).unwrap();
    assert!(matches!(wal.seal(LedgerId(1)), Err(SealError::Failed { .. })));
    assert!(matches!(wal.append(entry(2, 0, 10, 0)), Err(AppendError::Failed { .. })));
}
