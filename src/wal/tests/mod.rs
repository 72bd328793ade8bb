//! Tests of the WAL as a whole, on the simulated disk; the parts have theirs beside them.

mod basics;
mod copies;
mod damage;
mod faults;
mod power;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::open::Request;
use super::plant::Plant;
use super::segment::slot_of;
use super::state::lock;
use super::*;
use crate::env::{Disk, OpenMode, SeededEntropy, SimDisk};

/// Large enough that what a test writes first is in one segment, also when the machine is so slow that a closing block
/// comes after every entry.
pub const SMALL: WalOptions = WalOptions { segment_bytes: 48 << 10, budget_bytes: 240 << 10, queue_bytes: 1 << 20 };

/// Everything is needed.
pub fn all(_: LedgerId, _: EntryId) -> bool {
    true
}

/// Remembers what was published, and can cut the power at that very moment.
#[derive(Default)]
pub struct Recorder {
    pub synced: Mutex<Vec<Synced>>,
    pub failed: Mutex<Option<String>>,
    pub groups: Mutex<Vec<usize>>,
    changed: Condvar,
    /// The power goes when this many groups more have been published.
    power: Mutex<Option<(SimDisk, u64)>>,
}

impl WalEvents for Recorder {
    fn synced(&self, group: &[Synced]) {
        if let Some((disk, left)) = &mut *lock(&self.power) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                disk.power_off();
            }
        }
        lock(&self.synced).extend_from_slice(group);
        lock(&self.groups).push(group.len());
        self.changed.notify_all();
    }

    fn failed(&self, reason: &str) {
        let before = lock(&self.failed).replace(reason.to_string());
        assert_eq!(before, None, "a failure is reported once");
        self.changed.notify_all();
    }
}

impl Recorder {
    pub fn power_off_at(&self, disk: &SimDisk, groups: u64) {
        *lock(&self.power) = Some((disk.clone(), groups));
    }

    /// Waits until `count` entries are published, or the WAL failed; true in the first case.
    pub fn wait(&self, count: usize) -> bool {
        let mut synced = lock(&self.synced);
        while synced.len() < count {
            if lock(&self.failed).is_some() {
                return false;
            }
            synced = self.changed.wait_timeout(synced, Duration::from_millis(5)).unwrap().0;
        }
        true
    }

    pub fn wait_failed(&self) -> String {
        let mut synced = lock(&self.synced);
        loop {
            if let Some(reason) = lock(&self.failed).clone() {
                return reason;
            }
            synced = self.changed.wait_timeout(synced, Duration::from_millis(5)).unwrap().0;
        }
    }
}

/// A payload as it was read back.
pub type Read = (LedgerId, EntryId, Location, Vec<u8>);

pub struct Opened {
    pub wal: Arc<Wal>,
    pub report: RecoveryReport,
    pub entries: Vec<Read>,
    pub recorder: Arc<Recorder>,
}

pub fn open_with(
    disk: &SimDisk,
    options: WalOptions,
    plant: Plant,
    needed: &dyn Fn(LedgerId, EntryId) -> bool,
) -> Result<Opened, OpenError> {
    let recorder = Arc::new(Recorder::default());
    let mut entries = Vec::new();
    let (wal, report) = Wal::start(Request {
        disk: Arc::new(disk.clone()),
        entropy: &SeededEntropy::new(1),
        options,
        needed,
        on_entry: &mut |e| entries.push((e.ledger, e.entry, e.location, e.payload.to_vec())),
        events: recorder.clone(),
        plant,
    })?;
    Ok(Opened { wal, report, entries, recorder })
}

pub fn open(disk: &SimDisk) -> Opened {
    open_with(disk, SMALL, Plant::None, &all).unwrap()
}

/// The error of an open that must fail.
pub fn refused(disk: &SimDisk) -> OpenError {
    match open_with(disk, SMALL, Plant::None, &all) {
        Ok(opened) => panic!("opened: {:?}", opened.report),
        Err(e) => e,
    }
}

/// An entry whose payload is `HEAD + len` bytes that `seed` determines.
pub fn entry(ledger: u64, id: u64, len: usize, seed: u64) -> Entry {
    let dice = SeededEntropy::new(seed ^ (ledger << 48) ^ (id << 24));
    let mut head = [0; HEAD];
    let mut body = vec![0; len];
    crate::env::Entropy::fill(&dice, &mut head);
    crate::env::Entropy::fill(&dice, &mut body);
    Entry { ledger: LedgerId(ledger), entry: EntryId(id), token: seed, head, body: Bytes::from(body) }
}

pub fn payload(entry: &Entry) -> Vec<u8> {
    [&entry.head[..], &entry.body].concat()
}

impl Opened {
    /// Waits until the next segments are ready: from then on the manifest, which also says what is synced, is not written by
    /// itself.
    pub fn settle(&self) {
        while lock(&self.wal.shared.state).prepared.len() < 2 {
            std::thread::yield_now();
        }
    }

    /// Appends one entry as a group of its own.
    pub fn write(&self, entry: Entry) -> Synced {
        let count = lock(&self.recorder.synced).len() + 1;
        self.wal.append(entry).unwrap();
        assert!(self.recorder.wait(count), "the WAL failed");
        lock(&self.recorder.synced)[count - 1]
    }

    pub fn ids(&self) -> Vec<(u64, u64)> {
        self.entries.iter().map(|(ledger, entry, ..)| (ledger.0, entry.0)).collect()
    }
}

/// The path of the file that holds a generation now: as the manifest says or, when that does not list it any more, as the
/// files do.
pub fn file_of(disk: &SimDisk, generation: u64) -> Option<String> {
    let manifest = manifest::Manifest::load(disk).ok().flatten()?;
    if let Some(listed) = manifest.segments.iter().find(|s| s.generation == generation) {
        return Some(segment::path(listed.slot));
    }
    let names = disk.list("wal").unwrap_or_default();
    names.iter().filter_map(|name| slot_of(name)).map(segment::path).find(|path| {
        let content = disk.content(path).unwrap_or_default();
        format::SegmentHeader::decode(&content).is_ok_and(|header| header.generation == generation)
    })
}

/// The headers of the blocks that stand in a file, with their offsets: whatever decodes.
pub fn blocks(disk: &SimDisk, path: &str) -> Vec<format::BlockHeader> {
    let content = disk.content(path).unwrap();
    content.chunks(PAGE).filter_map(|page| Some(format::BlockHeader::decode(page).ok()?.0)).collect()
}

pub fn read_all(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut out = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut out, 0).unwrap();
    out
}
