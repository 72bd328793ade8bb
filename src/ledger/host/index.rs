//! What this WAL holds of ledgers, by ledger and by partition: where each entry is, and what stands in its batch's header.
//!
//! Pure. The entries of a ledger here have no gap: where a recoverer left one, what stands before it is in object storage
//! and is let go. Of the ledgers that this process writes only the places are kept, for their partitions know the rest.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::base::{EntryId, LedgerId, PartitionId};
use crate::batch::{self, EndMarker, HEADER_BYTES, Header, HeaderError};
use crate::wal::{HEAD, Location, RecoveredEntry, SealAnswer};

use super::super::core::Held;
use super::super::writer::{ENTRY_HEAD_BYTES, decode_entry};

/// A batch that is in this WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldEntry {
    pub partition: PartitionId,
    pub header: Header,
    /// Of the whole batch.
    pub bytes: usize,
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub location: Location,
    /// Of a control batch: how it ended its transaction.
    pub marker: Option<EndMarker>,
}

/// What the index keeps of a batch beside its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    partition: PartitionId,
    header: Header,
    marker: Option<EndMarker>,
}

impl Parsed {
    /// Reads the payload of an entry, which holds a whole batch; the error is a sentence.
    pub fn of(payload: &[u8]) -> Result<Parsed, String> {
        let (partition, batch) = decode_entry(payload).map_err(|error| error.to_string())?;
        let header = Header::parse(batch).map_err(|error| error.to_string())?;
        let marker = batch::parse_end_marker(batch).map_err(|error| error.to_string())?;
        Ok(Parsed { partition, header, marker })
    }

    /// The same of a payload in two pieces; only what may be a marker is put together.
    pub fn of_pieces(head: &[u8; HEAD], body: &[u8]) -> Result<Parsed, String> {
        let front = head.len() + body.len().min(HEADER_BYTES);
        let mut fixed = [0; HEAD + HEADER_BYTES];
        fixed[..HEAD].copy_from_slice(head);
        fixed[HEAD..front].copy_from_slice(&body[..front - HEAD]);
        let (partition, batch) = decode_entry(&fixed[..front]).map_err(|error| error.to_string())?;
        let bytes = HEAD + body.len() - ENTRY_HEAD_BYTES;
        let Some(header) = batch.first_chunk().map(Header::from_fixed) else {
            return Err(HeaderError::TooShort(bytes).to_string());
        };
        if header.magic != 2 || header.is_control() || header.total_bytes() > bytes {
            // Rare, and the small ones: judged as they stand in the WAL.
            return Parsed::of(&[head, body].concat());
        }
        Ok(Parsed { partition, header, marker: None })
    }
}

#[derive(Debug)]
struct Ledger {
    first: EntryId,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    /// Of a ledger that this process writes.
    Places(VecDeque<Location>),
    Whole(VecDeque<(Parsed, Location)>),
}

impl Ledger {
    fn len(&self) -> usize {
        match &self.entries {
            Entries::Places(places) => places.len(),
            Entries::Whole(whole) => whole.len(),
        }
    }

    fn next(&self) -> EntryId {
        EntryId(self.first.0 + self.len() as u64)
    }

    fn at(&self, entry: EntryId) -> Option<usize> {
        let index = usize::try_from(entry.0.checked_sub(self.first.0)?).ok()?;
        (index < self.len()).then_some(index)
    }

    fn location(&self, entry: EntryId) -> Option<Location> {
        let index = self.at(entry)?;
        match &self.entries {
            Entries::Places(places) => places.get(index).copied(),
            Entries::Whole(whole) => whole.get(index).map(|(_, location)| *location),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    ledgers: BTreeMap<LedgerId, Ledger>,
    /// Entries of each ledger, ascending.
    partitions: HashMap<PartitionId, BTreeMap<LedgerId, VecDeque<EntryId>>>,
}

impl Index {
    /// Takes in a synced entry of a ledger that another process has written.
    pub fn add(&mut self, ledger: LedgerId, entry: EntryId, parsed: Parsed, location: Location) {
        let next = self.ledgers.get(&ledger).map(Ledger::next);
        match next {
            Some(next) if entry < next => return,
            Some(next) if entry > next => self.remove(ledger),
            _ => {}
        }
        let begin = || Ledger { first: entry, entries: Entries::Whole(VecDeque::new()) };
        if let Entries::Whole(whole) = &mut self.ledgers.entry(ledger).or_insert_with(begin).entries {
            let of_ledger = self.partitions.entry(parsed.partition).or_default();
            of_ledger.entry(ledger).or_default().push_back(entry);
            whole.push_back((parsed, location));
        }
    }

    /// Takes in a synced entry of a ledger that this process writes.
    pub fn add_own(&mut self, ledger: LedgerId, entry: EntryId, location: Location) {
        let begin = || Ledger { first: entry, entries: Entries::Places(VecDeque::new()) };
        let known = self.ledgers.entry(ledger).or_insert_with(begin);
        let follows = known.next() == entry;
        if let Entries::Places(places) = &mut known.entries
            && follows
        {
            places.push_back(location);
        }
    }

    /// Entries of the ledger below are in object storage.
    pub fn trim(&mut self, ledger: LedgerId, below: EntryId) {
        let Some(known) = self.ledgers.get_mut(&ledger) else { return };
        while known.first < below && known.len() > 0 {
            match &mut known.entries {
                Entries::Places(places) => drop(places.pop_front()),
                Entries::Whole(whole) => {
                    if let Some((parsed, _)) = whole.pop_front() {
                        forget_first(&mut self.partitions, parsed.partition, ledger);
                    }
                }
            }
            known.first = known.first.next();
        }
        match &mut known.entries {
            Entries::Places(places) if places.len() * 4 < places.capacity() => places.shrink_to_fit(),
            Entries::Whole(whole) if whole.len() * 4 < whole.capacity() => whole.shrink_to_fit(),
            _ => {}
        }
    }

    pub fn remove(&mut self, ledger: LedgerId) {
        let Some(removed) = self.ledgers.remove(&ledger) else { return };
        if let Entries::Whole(whole) = removed.entries {
            for (parsed, _) in whole {
                if let Some(of_partition) = self.partitions.get_mut(&parsed.partition) {
                    of_partition.remove(&ledger);
                    if of_partition.is_empty() {
                        self.partitions.remove(&parsed.partition);
                    }
                }
            }
        }
    }

    /// Of the ledger, what is held: from the first entry up to the one behind the last.
    pub fn span(&self, ledger: LedgerId) -> Option<(EntryId, EntryId)> {
        self.ledgers.get(&ledger).map(|known| (known.first, known.next()))
    }

    pub fn ledgers(&self) -> Vec<LedgerId> {
        self.ledgers.keys().copied().collect()
    }

    pub fn location(&self, ledger: LedgerId, entry: EntryId) -> Option<Location> {
        self.ledgers.get(&ledger)?.location(entry)
    }

    /// The partition's batches, in the order of ledgers and of entries; of each ledger those that `within` says.
    pub fn held(
        &self,
        partition: PartitionId,
        within: impl Fn(LedgerId) -> std::ops::Range<EntryId>,
    ) -> Vec<HeldEntry> {
        let mut out = Vec::new();
        for (ledger, entries) in self.partitions.get(&partition).into_iter().flatten() {
            let Some(known) = self.ledgers.get(ledger) else { continue };
            let Entries::Whole(whole) = &known.entries else { continue };
            let range = within(*ledger);
            for entry in entries.iter().filter(|entry| range.contains(entry)) {
                let Some((parsed, location)) = known.at(*entry).and_then(|index| whole.get(index)) else { continue };
                out.push(HeldEntry {
                    partition,
                    header: parsed.header,
                    bytes: (location.len as usize).saturating_sub(ENTRY_HEAD_BYTES),
                    ledger: *ledger,
                    entry: *entry,
                    location: *location,
                    marker: parsed.marker,
                });
            }
        }
        out
    }

    /// The entries of a ledger within `range`, each with its partition and its place.
    pub fn entries(&self, ledger: LedgerId, range: std::ops::Range<EntryId>) -> Vec<(EntryId, PartitionId, Location)> {
        let Some(known) = self.ledgers.get(&ledger) else { return Vec::new() };
        let Entries::Whole(whole) = &known.entries else { return Vec::new() };
        let skipped = range.start.0.saturating_sub(known.first.0);
        let entries = (known.first.0..).zip(whole).skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        let within = entries.take_while(|(entry, _)| *entry < range.end.0);
        within.map(|(entry, (parsed, location))| (EntryId(entry), parsed.partition, *location)).collect()
    }

    /// The partitions that have batches within those entries of each ledger.
    pub fn partitions(&self, within: impl Fn(LedgerId) -> std::ops::Range<EntryId>) -> Vec<PartitionId> {
        let has_any = |of_partition: &BTreeMap<LedgerId, VecDeque<EntryId>>| {
            let mut ledgers = of_partition.iter();
            ledgers.any(|(ledger, entries)| {
                let range = within(*ledger);
                entries.iter().any(|entry| range.contains(entry))
            })
        };
        self.partitions.iter().filter(|(_, of)| has_any(of)).map(|(partition, _)| *partition).collect()
    }
}

fn forget_first(
    partitions: &mut HashMap<PartitionId, BTreeMap<LedgerId, VecDeque<EntryId>>>,
    partition: PartitionId,
    ledger: LedgerId,
) {
    let Some(of_partition) = partitions.get_mut(&partition) else { return };
    if let Some(entries) = of_partition.get_mut(&ledger) {
        entries.pop_front();
        if entries.is_empty() {
            of_partition.remove(&ledger);
        } else if entries.len() * 4 < entries.capacity() {
            entries.shrink_to_fit();
        }
    }
    if of_partition.is_empty() {
        partitions.remove(&partition);
    }
}

/// What the WAL held when it was opened.
#[derive(Debug, Default)]
pub struct Found {
    pub(super) index: Index,
    error: Option<UnreadableEntry>,
}

/// An entry of the WAL, whose bytes are as written, holds no batch of this release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} of ledger {ledger} cannot be read: {detail}")]
pub struct UnreadableEntry {
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub detail: String,
}

impl Found {
    /// Takes in what [`crate::wal::Wal::open`] finds, in the order in which it does.
    pub fn add(&mut self, entry: &RecoveredEntry<'_>) {
        match Parsed::of(entry.payload) {
            Ok(parsed) => self.index.add(entry.ledger, entry.entry, parsed, entry.location),
            Err(detail) => {
                let (ledger, entry) = (entry.ledger, entry.entry);
                self.error.get_or_insert(UnreadableEntry { ledger, entry, detail });
            }
        }
    }

    /// Ledgers of which the WAL has something.
    pub fn ledgers(&self) -> Vec<LedgerId> {
        self.index.ledgers()
    }

    /// Of the ledger, what is held without a gap to the last entry: the first, and the one behind the last.
    pub fn span(&self, ledger: LedgerId) -> Option<(EntryId, EntryId)> {
        self.index.span(ledger)
    }

    pub(super) fn checked(self) -> Result<Index, UnreadableEntry> {
        match self.error {
            None => Ok(self.index),
            Some(error) => Err(error),
        }
    }
}

/// The account's view of what is held, with the seals of the WAL.
pub(super) fn held(index: &Index, seals: &[(LedgerId, SealAnswer)]) -> Vec<Held> {
    let seals: BTreeMap<LedgerId, SealAnswer> = seals.iter().copied().collect();
    let mut all: Vec<LedgerId> = index.ledgers();
    all.extend(seals.keys());
    all.sort_unstable();
    all.dedup();
    let zero = EntryId(0);
    let of = |ledger: LedgerId| {
        let sealed = seals.get(&ledger).copied();
        // What was uploaded may have been trimmed before the start: then the answer of the seal says how far it went.
        let through = sealed.and_then(|answer| answer.through).map_or(zero, EntryId::next);
        let (first, next) = index.span(ledger).unwrap_or((through, through));
        Held { ledger, first, next, sealed }
    };
    all.into_iter().map(of).collect()
}
