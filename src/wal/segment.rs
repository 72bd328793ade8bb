//! One file of the WAL and what is known of its content.
//!
//! A file is written with zeros once, when it is made, so that a later write changes neither its length nor its block map
//! and a sync is one flush of data. After that it is used again and again: a new generation in its header is all that
//! it takes, for no block of an earlier generation is believed.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::base::{EntryId, LedgerId, WalIncarnation};
use crate::env::{Disk, DiskFile, OpenMode};

use super::format::{Chain, HeaderFault, PAGE, SegmentHeader};
use super::manifest::{DIR, Listed};

/// Zeros written between two syncs while a file is made: small enough that the sync of a group behind it hardly waits.
const ZEROS_PER_SYNC: u64 = 8 << 20;
const ZEROS: usize = 1 << 20;

/// One use of one file.
pub struct Segment {
    pub generation: u64,
    pub slot: u32,
    pub bytes: u64,
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    pub fn listed(&self) -> Listed {
        Listed { generation: self.generation, slot: self.slot, bytes: self.bytes }
    }

    pub fn path(&self) -> String {
        path(self.slot)
    }
}

/// The entries of a segment: for each ledger the first and last of every run without a gap.
#[derive(Debug, Clone, Default)]
pub struct Spans(BTreeMap<LedgerId, Vec<(EntryId, EntryId)>>);

impl Spans {
    pub fn add(&mut self, ledger: LedgerId, entry: EntryId) {
        let runs = self.0.entry(ledger).or_default();
        match runs.last_mut() {
            Some((_, last)) if last.next() == entry => *last = entry,
            _ => runs.push((entry, entry)),
        }
    }

    /// True when any entry is needed. Those of one ledger that are needed are one range, but it may begin and end
    /// inside the span: entries behind the ledger's end are void.
    pub fn any(&self, needed: &dyn Fn(LedgerId, EntryId) -> bool) -> bool {
        self.0.iter().flat_map(|(ledger, runs)| runs.iter().map(move |run| (*ledger, *run))).any(
            |(ledger, (first, last))| {
                let needed = |entry| needed(ledger, EntryId(entry));
                needed(last.0) || (first.0..last.0).any(needed)
            },
        )
    }

    pub fn ledgers(&self) -> impl Iterator<Item = LedgerId> {
        self.0.keys().copied()
    }
}

/// A segment that is written to no more.
#[derive(Clone)]
pub struct Closed {
    pub segment: Arc<Segment>,
    /// The block before its first one.
    pub start: Chain,
    pub spans: Arc<Spans>,
}

pub fn path(slot: u32) -> String {
    format!("{DIR}/{slot:06}.seg")
}

/// The number of a segment file's name.
pub fn slot_of(name: &str) -> Option<u32> {
    name.strip_suffix(".seg")?.parse().ok()
}

/// Makes a file of `bytes` zeros, without a segment header yet; safe when it returns.
pub fn create(disk: &dyn Disk, slot: u32, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(&path(slot), OpenMode::Create)?;
    let made = fill(&*file, bytes).and_then(|()| disk.sync_dir(DIR));
    if made.is_err() {
        // Half a file is worth nothing, and on a full disk its space is wanted. If this fails too, the next open does it.
        let _ = disk.remove(&path(slot));
    }
    made.map(|()| file)
}

fn fill(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    file.allocate(bytes)?;
    let zeros = vec![0; ZEROS];
    let mut at = 0;
    while at < bytes {
        let len = (ZEROS as u64).min(bytes - at);
        file.write_at(&[IoSlice::new(&zeros[..len as usize])], at)?;
        at += len;
        if at % ZEROS_PER_SYNC == 0 || at == bytes {
            file.sync_data()?;
        }
    }
    Ok(())
}

/// Begins a new use of a file; safe when it returns.
pub fn write_header(file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<()> {
    file.write_at(&[IoSlice::new(&header.encode())], 0)?;
    file.sync_data()
}

/// The header of a file; `None` when the file is shorter than one.
pub fn read_header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, HeaderFault>> {
    let mut page = vec![0; PAGE];
    let read = file.read_at(&mut page, 0)?;
    Ok(SegmentHeader::decode(&page[..read]))
}

/// What every header of this WAL repeats.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub incarnation: WalIncarnation,
    pub salt: u64,
}

impl Identity {
    pub fn header(&self, generation: u64, bytes: u64) -> SegmentHeader {
        SegmentHeader { salt: self.salt, incarnation: self.incarnation, generation, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needed_range_inside_a_span_is_found() {
        let mut spans = Spans::default();
        for entry in 30..=60 {
            spans.add(LedgerId(1), EntryId(entry));
        }
        let range = |from: u64, to: u64| move |_: LedgerId, e: EntryId| (from..to).contains(&e.0);
        assert!(spans.any(&range(40, 50)));
        assert!(spans.any(&range(0, 31)));
        assert!(spans.any(&range(60, 99)));
        assert!(!spans.any(&range(0, 30)));
        assert!(!spans.any(&range(61, 99)));
        assert!(!Spans::default().any(&|_, _| true));
        spans.add(LedgerId(1), EntryId(1 << 60));
        assert!(!spans.any(&range(61, 1 << 60)), "what a gap left out is not there, and is not gone through");
        assert!(spans.any(&range(1 << 60, u64::MAX)));
    }

    #[test]
    fn names_carry_their_number() {
        assert_eq!(path(7), "wal/000007.seg");
        assert_eq!(slot_of("000007.seg"), Some(7));
        assert_eq!(slot_of("manifest"), None);
    }
}
