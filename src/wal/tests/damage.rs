//! Torn tails, rot, stale blocks and lost files: each is told from the others.

use super::format::{BLOCK_HEADER, FLAG_CLOSING};
use super::*;

/// Three groups, closed: every block but the closing one is under the watermark.
fn small_wal() -> (SimDisk, Vec<Synced>) {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let sizes = [10, 5000, 300];
    let synced = sizes.iter().zip(0..).map(|(len, id)| opened.write(entry(1, id, *len, 0))).collect();
    drop(opened);
    (disk, synced)
}

/// A WAL whose last block holds an entry of 1,500 bytes and is not under the watermark.
fn unclosed_wal() -> (SimDisk, format::BlockHeader) {
    let disk = SimDisk::new();
    let opened = open(&disk);
    opened.write(entry(1, 0, 100, 0));
    // Before a closing block can follow.
    opened.recorder.power_off_at(&disk, 1);
    opened.write(entry(1, 1, 1500, 0));
    drop(opened);
    disk.power_on(0);
    let block = *blocks(&disk, FILE).last().unwrap();
    assert_eq!((block.entries, block.block_bytes), (1, 4096));
    (disk, block)
}

const FILE: &str = "wal/000000.seg";

#[test]
fn every_flipped_byte_under_the_watermark_is_refused_and_nothing_is_cut() {
    let (disk, _) = small_wal();
    let covered = blocks(&disk, FILE).last().unwrap().offset as u64;
    assert!(covered > 16 << 10);
    let manifest = disk.content("wal/manifest").unwrap();
    let before = disk.content(FILE).unwrap();
    let mut flipped = 0;
    for at in 0..covered {
        disk.corrupt(FILE, at, 1 << (at % 8));
        let error = refused(&disk);
        assert!(matches!(error, OpenError::Corrupt { .. }), "byte {at}: {error}");
        disk.corrupt(FILE, at, 1 << (at % 8));
        flipped += 1;
    }
    for at in 0..manifest.len() as u64 {
        disk.corrupt("wal/manifest", at, 0x40);
        assert!(matches!(refused(&disk), OpenError::Corrupt { .. }), "byte {at} of the manifest");
        disk.corrupt("wal/manifest", at, 0x40);
        flipped += 1;
    }
    assert_eq!(flipped, covered + manifest.len() as u64);
    assert_eq!((disk.content(FILE).unwrap(), disk.content("wal/manifest").unwrap()), (before, manifest));
    assert!(disk.list("quarantine").is_err(), "nothing was cut");
    assert_eq!(open(&disk).entries.len(), 3);
}

#[test]
fn a_damaged_closing_block_loses_nothing() {
    let (disk, _) = small_wal();
    let last = *blocks(&disk, FILE).last().unwrap();
    assert_eq!(last.flags, FLAG_CLOSING);
    for at in 0..BLOCK_HEADER as u64 {
        let copy = disk.fork();
        copy.corrupt(FILE, last.offset as u64 + at, 0x80);
        let opened = open(&copy);
        assert_eq!(opened.entries.len(), 3);
        assert!(!opened.report.clean && opened.report.torn.is_some(), "byte {at}");
    }
}

#[test]
fn a_flipped_byte_is_never_served() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let sent = entry(1, 0, 700, 0);
    let at = opened.write(sent.clone()).location;
    // The ledger and entry ids, 16 bytes, are checked with their block at a start.
    for byte in at.offset - 16..at.offset + at.len as u64 {
        disk.corrupt(FILE, byte, 0x04);
        assert!(matches!(opened.wal.read(at), Err(ReadError::Corrupt { .. })), "byte {byte}");
        disk.corrupt(FILE, byte, 0x04);
    }
    assert_eq!(opened.wal.read(at).unwrap(), payload(&sent));
    for wrong in
        [Location { offset: at.offset + 1, ..at }, Location { len: 1 << 30, ..at }, Location { offset: 3, ..at }]
    {
        assert!(matches!(opened.wal.read(wrong), Err(ReadError::Corrupt { .. })));
    }
    assert!(matches!(opened.wal.read(Location { segment: 99, ..at }), Err(ReadError::Recycled)));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_kept_and_reported() {
    let (disk, last) = unclosed_wal();
    let (offset, bytes) = (last.offset as u64, last.block_bytes as usize);
    let whole = disk.content(FILE).unwrap();
    let used = last.used_bytes as usize;
    for torn_at in 0..bytes {
        let copy = disk.fork();
        let mut content = whole.clone();
        content[offset as usize + torn_at..offset as usize + bytes].fill(0);
        copy.put(FILE, &content);
        let opened = open(&copy);
        let complete = whole[offset as usize..][..bytes] == content[offset as usize..][..bytes];
        assert_eq!(complete, torn_at >= used);
        assert_eq!(opened.ids().len(), 1 + complete as usize, "torn at {torn_at}");
        match &opened.report.torn {
            None => assert!(complete || torn_at < 4, "torn at {torn_at}"),
            Some(kept) => {
                let copy = read_all(&copy, &kept.file);
                assert_eq!(copy, content[offset as usize..offset as usize + kept.bytes as usize]);
                assert_eq!(kept.after, last.sequence - 1);
            }
        }
        if torn_at % 16 != 0 {
            continue;
        }
        let next = 1 + complete as u64;
        opened.write(entry(1, next, 20, 9));
        drop(opened);
        let again = open(&copy);
        assert_eq!(again.ids().len() as u64, next + 1, "torn at {torn_at}");
        assert_eq!(again.entries[next as usize].3, payload(&entry(1, next, 20, 9)));
    }
}

#[test]
fn what_was_cut_makes_the_end_of_its_ledgers_uncertain_for_good() {
    let (disk, last) = unclosed_wal();
    disk.corrupt(FILE, last.offset as u64 + 200, 1);
    let opened = open(&disk);
    assert!(opened.report.torn.is_some());
    opened.write(entry(2, 0, 10, 0));
    disk.power_off();
    drop(opened);
    disk.power_on(3);
    let again = open(&disk);
    let seal = |ledger| again.wal.seal(LedgerId(ledger)).unwrap();
    assert_eq!(seal(1), SealAnswer { through: Some(EntryId(0)), uncertain_from: Some(EntryId(1)) });
    assert_eq!(seal(2), SealAnswer { through: Some(EntryId(0)), uncertain_from: None }, "it began behind the cut");
    assert_eq!(seal(3), SealAnswer { through: None, uncertain_from: Some(EntryId(0)) }, "it may have been in there");
}

#[test]
fn rot_before_a_torn_tail_is_still_rot() {
    let (disk, last) = unclosed_wal();
    // The last block is torn, but its header still says that the one before it was synced.
    disk.corrupt(FILE, last.offset as u64 + 1000, 1);
    let before = blocks(&disk, FILE).into_iter().find(|b| b.sequence + 1 == last.sequence).unwrap();
    disk.corrupt(FILE, before.offset as u64 + 100, 1);
    let error = refused(&disk);
    assert!(matches!(&error, OpenError::Corrupt { offset, .. } if *offset == before.offset as u64), "{error}");
}

/// Three entries of a page each, one behind the other; where the second one's block begins.
fn three_pages() -> (SimDisk, usize) {
    loop {
        let disk = SimDisk::new();
        let opened = open(&disk);
        opened.settle();
        opened.recorder.power_off_at(&disk, 3);
        let pages: Vec<u64> =
            (0..3).map(|id| opened.write(entry(1, id, 100, 0)).location.offset / PAGE as u64).collect();
        drop(opened);
        disk.power_on(0);
        // On a slow machine there may be closing blocks between them.
        if pages == [2, 3, 4] {
            return (disk, 3 * PAGE);
        }
    }
}

#[test]
fn what_an_earlier_cut_left_behind_never_comes_back() {
    let (disk, page) = three_pages();
    // Entry 1 is torn, and entry 2 had not been written yet; its block comes back at its place only after the cut.
    let mut content = disk.content(FILE).unwrap();
    let later = content[page + PAGE..page + 2 * PAGE].to_vec();
    content[page + PAGE..page + 2 * PAGE].fill(0);
    content[page + 150] ^= 1;
    disk.put(FILE, &content);
    let opened = open(&disk);
    assert!(opened.report.torn.is_some());
    // Killed before a closing block: what recovery wrote is the end.
    disk.power_off();
    drop(opened);
    disk.power_on(0);
    let mut content = disk.content(FILE).unwrap();
    content[page + PAGE..page + 2 * PAGE].copy_from_slice(&later);
    disk.put(FILE, &content);
    let stale = *blocks(&disk, FILE).last().unwrap();
    assert_eq!((stale.sequence, stale.offset as usize), (4, page + PAGE), "of the right sequence at the right place");

    let opened = open(&disk);
    assert_eq!(opened.ids(), [(1, 0)]);
    for id in 1..4 {
        opened.write(entry(1, id, 10, 5));
    }
    drop(opened);
    let again = open(&disk);
    assert_eq!(again.ids(), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(again.entries[2].3, payload(&entry(1, 2, 10, 5)));
}

#[test]
fn blocks_of_an_earlier_use_of_a_file_never_come_back() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    let mut id = 0;
    let mut old = Vec::new();
    while opened.wal.metrics().rolls < 7 {
        opened.write(entry(1, id, 3000, 0));
        if opened.wal.metrics().rolls == 1 && old.is_empty() {
            old = disk.content(&file_of(&disk, 1).unwrap()).unwrap();
        }
        opened.wal.trim(&|_, e| e.0 + 1 >= id);
        id += 1;
    }
    drop(opened);
    let generation = (2..20).rev().find(|g| file_of(&disk, *g).is_some_and(|f| has_entries(&disk, &f, *g))).unwrap();
    let path = file_of(&disk, generation).unwrap();
    let end =
        blocks(&disk, &path).iter().filter(|b| b.generation == generation).map(|b| b.offset + b.block_bytes).max();
    let end = end.unwrap() as usize;
    let mut content = disk.content(&path).unwrap();
    content[end..].copy_from_slice(&old[end..]);
    disk.put(&path, &content);
    let needed = |_, e: EntryId| e.0 + 1 >= id;
    let again = open_with(&disk, SMALL, Plant::None, &needed).unwrap();
    assert_eq!(again.entries.last().unwrap().1.0, id - 1);
    assert!(again.report.clean);
}

fn has_entries(disk: &SimDisk, path: &str, generation: u64) -> bool {
    blocks(disk, path).iter().any(|b| b.generation == generation && b.entries > 0)
}

#[test]
fn a_file_that_is_gone_is_named() {
    let disk = SimDisk::new();
    let opened = open(&disk);
    for id in 0..20 {
        opened.write(entry(1, id, 3000, 0));
    }
    drop(opened);
    let missing = |disk: &SimDisk, path: &str| {
        disk.remove(path).unwrap();
        disk.sync_dir("wal").unwrap();
        let error = refused(disk);
        assert!(matches!(&error, OpenError::Missing { what, .. } if what.contains(path)), "{error}");
    };
    for generation in 1..3 {
        let copy = disk.fork();
        missing(&copy, &file_of(&copy, generation).unwrap());
    }
    let copy = disk.fork();
    missing(&copy, "wal/manifest");
    let copy = disk.fork();
    let content = copy.content(FILE).unwrap();
    copy.put(FILE, &content[..20_000]);
    assert!(matches!(refused(&copy), OpenError::Missing { .. }));
    // A file of another WAL in its place.
    let other = open_with(&SimDisk::new(), SMALL, Plant::None, &all).unwrap();
    drop(other);
    let copy = disk.fork();
    let mut content = copy.content(FILE).unwrap();
    content[10] ^= 1;
    copy.put(FILE, &content);
    assert!(matches!(refused(&copy), OpenError::Corrupt { .. }));
}

/// The start is refused with an empty WAL in the place of this one, and nothing else gives its records up.
#[test]
fn a_refusal_promises_nothing_that_is_not_kept() {
    let disk = SimDisk::new();
    open(&disk).write(entry(1, 0, 3000, 0));
    let damaged = disk.fork();
    damaged.corrupt("wal/manifest", 20, 1);
    disk.remove("wal/manifest").unwrap();
    for error in [refused(&disk), refused(&damaged)].map(|error| error.to_string()) {
        assert!(error.contains("put the former folder wal back") && error.contains("no command"), "{error}");
        assert!(!error.contains("move") && !error.contains("empty one is made"), "{error}");
    }
}

#[test]
fn a_record_that_looks_like_a_block_is_none() {
    let options = WalOptions { segment_bytes: 64 << 10, budget_bytes: 256 << 10, ..SMALL };
    let disk = SimDisk::new();
    let opened = open_with(&disk, options, Plant::None, &all).unwrap();
    opened.settle();
    opened.write(entry(1, 0, 300, 0));
    let last = opened.write(entry(1, 1, 300, 0)).location;
    // A payload that is one of the WAL's own blocks, which says that much was synced. It is copied to another place, so it
    // is not believed there, also when the block that holds it is torn and its bytes are looked through.
    let content = disk.content(FILE).unwrap();
    let mut forged = content[last.offset as usize / PAGE * PAGE..][..PAGE].to_vec();
    let (mut header, _) = format::BlockHeader::decode(&forged).unwrap();
    header.watermark = 1000;
    header.encode(&mut forged);
    let body = Bytes::from([&vec![0; 4096 - 152][..], &forged].concat());
    opened.recorder.power_off_at(&disk, 1);
    let at = opened.write(Entry { body, ..entry(1, 2, 0, 0) }).location;
    drop(opened);
    disk.power_on(0);
    disk.corrupt(FILE, at.offset, 1);
    let again = open_with(&disk, options, Plant::None, &all).unwrap();
    assert!(again.report.torn.is_some());
    assert_eq!(again.ids(), [(1, 0), (1, 1)]);
}
