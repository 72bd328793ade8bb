//! From a folder to a running WAL.
//!
//! Order: judge everything, then change. What is cut is copied to quarantine, the uncertain ledgers are recorded, the last
//! block is written again (a failed sync may have left it in memory only, marked clean) and synced, and the opening block puts all
//! that was recovered under the watermark. Each step may be repeated; killed anywhere, the next start does the same.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use crate::base::WalIncarnation;
use crate::base::{EntryId, LedgerId};
use crate::env::{Disk, DiskFile, Entropy, OpenMode, failpoint};

use super::error::{OpenError, PUT_BACK};
use super::format::{Chain, HeaderFault, PAGE};
use super::manifest::{DIR, Manifest};
use super::metrics::Counters;
use super::plant::Plant;
use super::recovery::{Found, Scanner};
use super::segment::{self, Closed, Identity, Segment};
use super::state::{Active, FreeFile, Ledger, Room, Shared, State, data_end};
use super::writer::{LastBlock, Writer};
use super::{RecoveredEntry, RecoveryReport, WalEvents, WalOptions, quarantine};

/// What the caller of `open` gives.
pub struct Request<'a> {
    pub disk: Arc<dyn Disk>,
    pub entropy: &'a dyn Entropy,
    pub options: WalOptions,
    pub needed: &'a dyn Fn(LedgerId, EntryId) -> bool,
    pub on_entry: &'a mut dyn FnMut(RecoveredEntry<'_>),
    pub events: Arc<dyn WalEvents>,
    pub plant: Plant,
}

/// The files of the folder.
struct Files {
    /// Those that the manifest lists, by ascending generation.
    listed: Vec<Arc<Segment>>,
    free: VecDeque<FreeFile>,
    next_slot: u32,
}

fn failed(file: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.into();
    move |source| OpenError::Io { file, source }
}

pub fn open(request: Request<'_>) -> Result<(Arc<Shared>, Writer, RecoveryReport), OpenError> {
    let Request { disk, entropy, options, needed: _, on_entry, events, plant } = request;
    options.check()?;
    let created = make_folder(&*disk, entropy)?;
    let Some(mut manifest) = Manifest::load(&*disk)? else {
        return Err(OpenError::Missing { what: "wal/manifest".into(), remedy: PUT_BACK });
    };
    let identity = Identity { incarnation: manifest.incarnation, salt: manifest.salt };
    let mut files = open_files(&*disk, &manifest, identity, &options)?;
    if files.listed.is_empty() {
        first_segment(&*disk, &mut manifest, identity, &options, &mut files)?;
    }
    let found = Scanner::new(&files.listed, &manifest, plant).run(on_entry)?;
    failpoint::hit("wal-recovery");
    let torn = cut(&*disk, &mut manifest, &files.listed, &found)?;
    let report = RecoveryReport { entries: found.entries, bytes: found.bytes, torn, clean: found.clean, created };
    rewrite_last_block(&files.listed[found.last_segment], &found)?;
    failpoint::hit("wal-recovery");

    let (chain, last) = (found.chain, found.last);
    let (state, spans, listed) = build_state(&manifest, files, found);
    let readers = listed.into_iter().map(|segment| (segment.generation, segment)).collect();
    let shared = Arc::new(Shared {
        disk,
        options,
        identity,
        plant,
        events,
        counters: Counters::new(),
        state: Mutex::new(state),
        work: Condvar::new(),
        file_work: Condvar::new(),
        progress: Condvar::new(),
        manifest: Mutex::new(manifest),
        readers: RwLock::new(readers),
    });
    // Without a block since the floor there is none to replace: a page is certainly left for an empty one.
    let none = LastBlock { flags: 0, empty: false, position: 0, before: chain };
    let mut writer = Writer::new(shared.clone(), spans, chain, last.unwrap_or(none));
    writer.open_run().map_err(failed("the active segment of the WAL"))?;
    failpoint::hit("wal-recovery");
    Ok((shared, writer, report))
}

/// Makes the folder and its manifest when there is nothing yet; true when it did.
fn make_folder(disk: &dyn Disk, entropy: &dyn Entropy) -> Result<bool, OpenError> {
    // The process before this one may have been killed between a rename and the sync of the folder. What this one
    // sees and builds on must not be undone later.
    disk.create_dir(DIR).and_then(|()| disk.sync_dir("")).and_then(|()| disk.sync_dir(DIR)).map_err(failed(DIR))?;
    if Manifest::load(disk)?.is_some() {
        return Ok(false);
    }
    let names = disk.list(DIR).map_err(failed(DIR))?;
    if names.iter().any(|name| segment::slot_of(name).is_some()) {
        // Segments without a manifest: somebody lost it, and with it the identity under which they were acknowledged.
        return Ok(false);
    }
    let (mut incarnation, mut salt) = ([0; 16], [0; 8]);
    entropy.fill(&mut incarnation);
    entropy.fill(&mut salt);
    let manifest = Manifest::new(WalIncarnation(incarnation), u64::from_be_bytes(salt));
    manifest.store(disk).map_err(failed("wal/manifest"))?;
    Ok(true)
}

fn open_files(
    disk: &dyn Disk,
    manifest: &Manifest,
    identity: Identity,
    options: &WalOptions,
) -> Result<Files, OpenError> {
    let mut listed = Vec::new();
    for (i, entry) in manifest.segments.iter().enumerate() {
        let name = segment::path(entry.slot);
        let corrupt = |detail: &str| OpenError::Corrupt { file: name.clone(), offset: 0, detail: detail.into() };
        if i > 0 && manifest.segments[i - 1].generation + 1 != entry.generation {
            return Err(corrupt("the manifest has a gap before it"));
        }
        let file = match disk.open(&name, OpenMode::ReadWrite) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { what: name, remedy: PUT_BACK });
            }
            other => other.map_err(failed(&name))?,
        };
        if file.len().map_err(failed(&name))? < entry.bytes {
            return Err(OpenError::Missing { what: format!("the end of {name}"), remedy: PUT_BACK });
        }
        match segment::read_header(&*file).map_err(failed(&name))? {
            Ok(header) if header == identity.header(entry.generation, entry.bytes) => {}
            Err(HeaderFault::Newer(found)) => return Err(OpenError::Version { file: name, found }),
            _ => return Err(corrupt("its header is not the one that the manifest says")),
        }
        let (generation, slot, bytes) = (entry.generation, entry.slot, entry.bytes);
        listed.push(Arc::new(Segment { generation, slot, bytes, file }));
    }
    let slots: HashSet<u32> = manifest.segments.iter().map(|s| s.slot).collect();
    let (free, highest) = open_free(disk, &slots, identity, options)?;
    let next_slot = highest.max(slots.iter().max().copied()).map_or(0, |slot| slot.saturating_add(1));
    Ok(Files { listed, free, next_slot })
}

/// The files that no needed segment is in: those that can be used again, the rest removed.
fn open_free(
    disk: &dyn Disk,
    listed: &HashSet<u32>,
    identity: Identity,
    options: &WalOptions,
) -> Result<(VecDeque<FreeFile>, Option<u32>), OpenError> {
    let mut free = VecDeque::new();
    let mut highest = None;
    let names = disk.list(DIR).map_err(failed(DIR))?;
    for slot in names.iter().filter_map(|name| segment::slot_of(name)).filter(|slot| !listed.contains(slot)) {
        let name = segment::path(slot);
        let file = disk.open(&name, OpenMode::ReadWrite).map_err(failed(&name))?;
        // A header means that the file was written whole once, before it got it.
        let whole = file.len().map_err(failed(&name))? == options.segment_bytes
            && segment::read_header(&*file)
                .map_err(failed(&name))?
                .is_ok_and(|h| h.salt == identity.salt && h.bytes == options.segment_bytes);
        if whole && free.len() + listed.len() < options.segments_max() {
            free.push_back(FreeFile { slot, bytes: options.segment_bytes, file, generation: None });
            highest = highest.max(Some(slot));
        } else {
            disk.remove(&name).map_err(failed(&name))?;
        }
    }
    Ok((free, highest))
}

/// The first segment of a new WAL, or of one whose first start was killed.
fn first_segment(
    disk: &dyn Disk,
    manifest: &mut Manifest,
    identity: Identity,
    options: &WalOptions,
    files: &mut Files,
) -> Result<(), OpenError> {
    let (slot, bytes, generation) = (files.next_slot, options.segment_bytes, 1);
    let name = segment::path(slot);
    let file = segment::create(disk, slot, bytes).map_err(failed(&name))?;
    segment::write_header(&*file, &identity.header(generation, bytes)).map_err(failed(&name))?;
    let segment = Segment { generation, slot, bytes, file };
    manifest.segments.push(segment.listed());
    manifest.store(disk).map_err(failed("wal/manifest"))?;
    files.next_slot += 1;
    files.listed.push(Arc::new(segment));
    Ok(())
}

/// Keeps the torn tail and records for whom it makes the end uncertain.
fn cut(
    disk: &dyn Disk,
    manifest: &mut Manifest,
    listed: &[Arc<Segment>],
    found: &Found,
) -> Result<Option<quarantine::Quarantined>, OpenError> {
    let Some(tail) = found.tail else { return Ok(None) };
    let from = &listed[tail.segment];
    let kept = quarantine::keep(disk, from, tail.offset, tail.bytes, found.chain.sequence);
    let kept = kept.map_err(failed("quarantine"))?;
    failpoint::hit("wal-recovery");
    tracing::warn!(
        file = %from.path(), offset = tail.offset, bytes = tail.bytes, kept = %kept.file,
        "cut the end of the WAL: a group that was being written, or damage that cannot be told from that"
    );
    manifest.cut = true;
    for (ledger, last) in &found.ledgers {
        if !manifest.sealed.contains_key(ledger) {
            manifest.uncertain.entry(*ledger).or_insert(last.next());
        }
    }
    manifest.store(disk).map_err(failed("wal/manifest"))?;
    Ok(Some(kept))
}

fn rewrite_last_block(segment: &Segment, found: &Found) -> Result<(), OpenError> {
    let Some(last) = found.last else { return Ok(()) };
    let mut block = vec![0; (found.position - last.position) as usize];
    let file: &dyn DiskFile = &*segment.file;
    let copied = file
        .read_at(&mut block, last.position)
        .and_then(|read| file.write_at(&[IoSlice::new(&block[..read])], last.position))
        .and_then(|()| file.sync_data());
    copied.map_err(failed(segment.path()))
}

type Built = (State, segment::Spans, Vec<Arc<Segment>>);

fn build_state(manifest: &Manifest, files: Files, found: Found) -> Built {
    let mut ledgers: HashMap<LedgerId, Ledger> = HashMap::new();
    for (ledger, last) in &found.ledgers {
        ledgers.insert(*ledger, Ledger { next: Some(last.next()), synced: Some(*last), ..Ledger::default() });
    }
    for (segment, (_, spans)) in files.listed.iter().zip(&found.contents) {
        for ledger in spans.ledgers() {
            ledgers.entry(ledger).or_default().generation = segment.generation;
        }
    }
    for ledger in manifest.sealed.keys() {
        let known = ledgers.entry(*ledger).or_default();
        (known.sealed, known.recorded) = (true, true);
    }
    let next_generation = files.listed.last().map_or(1, |s| s.generation + 1);
    let mut contents = found.contents;
    let (start, spans) = contents.pop().unwrap_or((Chain::default(), segment::Spans::default()));
    let mut segments = files.listed.clone();
    let prepared = segments.split_off(found.last_segment + 1);
    let closed = segments.iter().zip(contents).map(|(segment, (start, spans))| Closed {
        segment: segment.clone(),
        start,
        spans: Arc::new(spans),
    });
    let active = files.listed[found.last_segment].clone();
    let state = State {
        queue: VecDeque::new(),
        waiting_bytes: 0,
        room: Room::new(data_end(active.bytes).saturating_sub(found.position)),
        ledgers,
        closed: closed.collect(),
        active: Active { segment: active, start, position: found.position.max(PAGE as u64) },
        prepared: prepared.into(),
        preparing: false,
        free: files.free,
        next_slot: files.next_slot,
        next_generation,
        disk_full: false,
        floor_moved: false,
        synced: found.synced,
        writer_waits: false,
        seals_wait: 0,
        closing: false,
        writer_done: false,
        failed: None,
    };
    (state, spans, files.listed)
}
