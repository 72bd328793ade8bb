//! Reads the chain of blocks after a start and decides where it ends, and why.
//!
//! A block that does not fit ends the chain. Is it a *torn tail*, a group that was being written and was never reported as
//! synced, or *rot*? Every later block says what had been synced before it, and so does the manifest. If anything that can be
//! read claims that the missing block was synced, it is rot: refuse, never cut. Otherwise nobody was ever told that it
//! is safe, or it cannot be told from that case: cut. This module only reads; nothing is changed before the whole
//! chain has been judged, so a start that was killed half-way is simply made again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::base::{EntryId, LedgerId};

use super::RecoveredEntry;
use super::error::{OpenError, PUT_BACK};
use super::format::{
    BLOCK_HEADER, BlockHeader, Chain, ENTRY_HEADER, EntryHeader, FLAG_CLOSING, HeaderFault, PAGE, check_block,
};
use super::manifest::Manifest;
use super::segment::{Segment, Spans};
use super::writer::LastBlock;
use super::{Location, plant::Plant};

/// Longest copy of a cut tail whose own length cannot be read.
const CUT_BYTES_MAX: u64 = 8 << 20;
/// The front of a segment that shows whether it was ever written to: room for two of the largest groups.
const FRONT_BYTES: u64 = 17 << 20;

/// What was found.
pub struct Found {
    /// The segment in which the chain ends, by index in the list that was scanned.
    pub last_segment: usize,
    /// Where it ends there.
    pub position: u64,
    pub chain: Chain,
    /// The block at its end; `None` when there is none since the floor.
    pub last: Option<LastBlock>,
    /// For each segment up to the last one, the block before its first one, and its entries.
    pub contents: Vec<(Chain, Spans)>,
    /// Last entry of each ledger.
    pub ledgers: HashMap<LedgerId, EntryId>,
    pub entries: u64,
    pub bytes: u64,
    /// Sequence of the last block with entries.
    pub synced: u64,
    pub tail: Option<Tail>,
    /// The last block says that the WAL was closed, and nothing follows it.
    pub clean: bool,
}

/// Something that was being written where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    pub segment: usize,
    pub offset: u64,
    pub bytes: u64,
}

/// What stands at a place where the next block may be.
enum Candidate {
    Next(BlockHeader, u32),
    /// Nothing, or something that was never meant to follow.
    Nothing,
    /// Something that may have been the next block, and its length.
    Broken(u64),
}

pub struct Scanner<'a> {
    segments: &'a [Arc<Segment>],
    manifest: &'a Manifest,
    plant: Plant,
    block: Vec<u8>,
    entries: Vec<(EntryHeader, usize)>,
    found: Found,
}

impl<'a> Scanner<'a> {
    /// `segments` are the listed ones, all present, by ascending generation; at least one.
    pub fn new(segments: &'a [Arc<Segment>], manifest: &'a Manifest, plant: Plant) -> Self {
        let found = Found {
            last_segment: 0,
            position: PAGE as u64,
            chain: manifest.floor,
            last: None,
            contents: vec![(manifest.floor, Spans::default())],
            ledgers: HashMap::new(),
            entries: 0,
            bytes: 0,
            synced: manifest.floor.sequence,
            tail: None,
            clean: false,
        };
        Scanner { segments, manifest, plant, block: Vec::new(), entries: Vec::new(), found }
    }

    /// Goes through the chain and gives every entry to `on_entry`, in order.
    pub fn run(mut self, on_entry: &mut dyn FnMut(RecoveredEntry<'_>)) -> Result<Found, OpenError> {
        loop {
            let here = self.candidate(self.found.last_segment, self.found.position)?;
            if let Candidate::Next(header, crc) = here {
                self.accept(&header, crc, on_entry)?;
                continue;
            }
            let next = self.found.last_segment + 1;
            let beyond =
                if next < self.segments.len() { self.candidate(next, PAGE as u64)? } else { Candidate::Nothing };
            if let Candidate::Next(header, crc) = beyond {
                self.found.last_segment = next;
                self.found.position = PAGE as u64;
                self.found.contents.push((self.found.chain, Spans::default()));
                self.accept(&header, crc, on_entry)?;
                continue;
            }
            self.judge(here, beyond)?;
            return Ok(self.found);
        }
    }

    /// Looks at one place; on `Next` the whole block is in `self.block` and its entries in `self.entries`.
    fn candidate(&mut self, index: usize, position: u64) -> Result<Candidate, OpenError> {
        let segment = &self.segments[index];
        if position + PAGE as u64 > segment.bytes {
            return Ok(Candidate::Nothing);
        }
        read(segment, position, PAGE, &mut self.block)?;
        let left = segment.bytes - position;
        let (header, crc) = match BlockHeader::decode(&self.block) {
            Ok(decoded) => decoded,
            Err(HeaderFault::Newer(found)) => return Err(OpenError::Version { file: segment.path(), found }),
            Err(_) => {
                let claimed = BlockHeader::salvage(&self.block, self.manifest.salt);
                return Ok(claimed.map_or(Candidate::Nothing, |bytes| Candidate::Broken(plausible(bytes, left))));
            }
        };
        if !header.is_at(self.manifest.salt, segment.generation, position) || !header.follows(&self.found.chain) {
            return Ok(Candidate::Nothing);
        }
        if let Some(feature) = header.unknown() {
            return Err(OpenError::Unsupported { file: segment.path(), feature });
        }
        let bytes = header.block_bytes;
        if plausible(bytes, left) != bytes as u64 {
            return Ok(Candidate::Broken(CUT_BYTES_MAX.min(left)));
        }
        if bytes as usize > PAGE {
            read(segment, position, bytes as usize, &mut self.block)?;
        }
        Ok(match check_block(&self.block, &header, &mut self.entries) {
            Ok(()) => Candidate::Next(header, crc),
            Err(_) => Candidate::Broken(bytes as u64),
        })
    }

    fn accept(
        &mut self,
        header: &BlockHeader,
        crc: u32,
        on_entry: &mut dyn FnMut(RecoveredEntry<'_>),
    ) -> Result<(), OpenError> {
        let segment = &self.segments[self.found.last_segment];
        let position = self.found.position;
        let entries = std::mem::take(&mut self.entries);
        for (entry, at) in &entries {
            self.follow_ledger(segment, position + *at as u64, entry)?;
            let payload = &self.block[*at..*at + entry.len as usize];
            let location = Location { segment: segment.generation, offset: position + *at as u64, len: entry.len };
            on_entry(RecoveredEntry { ledger: entry.ledger, entry: entry.entry, location, payload });
            if let Some((_, spans)) = self.found.contents.last_mut() {
                spans.add(entry.ledger, entry.entry);
            }
            self.found.entries += 1;
            self.found.bytes += entry.len as u64;
        }
        let empty = entries.is_empty();
        self.entries = entries;
        let before = self.found.chain;
        self.found.last = Some(LastBlock { flags: header.flags, empty, position, before });
        self.found.chain = Chain { sequence: header.sequence, crc, run: header.run };
        self.found.position = position + header.block_bytes as u64;
        if !empty {
            self.found.synced = header.sequence;
        }
        Ok(())
    }

    /// The entries of a ledger ascend, and have no gap unless it is sealed: then a recoverer may have left something out.
    /// What is needed and not here is for those to judge who know its other holders.
    fn follow_ledger(&mut self, segment: &Segment, offset: u64, entry: &EntryHeader) -> Result<(), OpenError> {
        let (ledger, id) = (entry.ledger, entry.entry);
        match self.found.ledgers.insert(ledger, id) {
            Some(last) if last.next() != id && !(last < id && self.manifest.sealed.contains_key(&ledger)) => {
                Err(OpenError::Corrupt {
                    file: segment.path(),
                    offset,
                    detail: format!("ledger {ledger} goes on with entry {id} after entry {last}"),
                })
            }
            _ => Ok(()),
        }
    }

    /// The chain ends here: rot or a torn tail?
    fn judge(&mut self, here: Candidate, beyond: Candidate) -> Result<(), OpenError> {
        let (index, position) = (self.found.last_segment, self.found.position);
        let missing = self.found.chain.sequence + 1;
        let tail = match (here, beyond) {
            (Candidate::Broken(bytes), _) => Some(Tail { segment: index, offset: position, bytes }),
            (_, Candidate::Broken(bytes)) => Some(Tail { segment: index + 1, offset: PAGE as u64, bytes }),
            _ => None,
        };
        let claim = self.claim_of(missing)?;
        if let Some(claim) = claim.filter(|_| !self.plant.cuts_anything()) {
            let at = tail.map_or((index, position), |t| (t.segment, t.offset));
            return Err(OpenError::Corrupt {
                file: self.segments[at.0].path(),
                offset: at.1,
                detail: format!("block {missing} cannot be read, and {claim} says that it was synced"),
            });
        }
        self.found.tail = tail;
        self.found.clean = tail.is_none() && self.found.last.is_some_and(|last| last.flags & FLAG_CLOSING != 0);
        Ok(())
    }

    /// Who, if anybody, says that block `sequence` was synced. What an earlier cut left behind claims less than what was
    /// recovered then, so it never convicts wrongly.
    ///
    /// The rest of the last segment is looked at whole. A later segment is filled from its front, so one whose front holds
    /// no header of its present use was never written to, and neither was any behind it.
    fn claim_of(&self, sequence: u64) -> Result<Option<String>, OpenError> {
        if self.manifest.synced >= sequence {
            return Ok(Some("the manifest".into()));
        }
        let last = self.found.last_segment;
        for (i, segment) in self.segments.iter().enumerate().skip(last) {
            let range = if i == last {
                self.found.position..segment.bytes
            } else {
                PAGE as u64..segment.bytes.min(FRONT_BYTES)
            };
            let (written, claim) = self.claim_in(segment, range, sequence)?;
            if claim.is_some() || (i > last && !written) {
                return Ok(claim);
            }
        }
        Ok(None)
    }

    /// Whether a part of a segment holds any block of its present use, and one that says that `sequence` was synced.
    fn claim_in(
        &self,
        segment: &Segment,
        range: Range<u64>,
        sequence: u64,
    ) -> Result<(bool, Option<String>), OpenError> {
        let mut header = Vec::new();
        let mut written = false;
        let mut at = range.start;
        while at + PAGE as u64 <= range.end {
            read(segment, at, BLOCK_HEADER, &mut header)?;
            if let Ok((block, _)) = BlockHeader::decode(&header)
                && block.is_at(self.manifest.salt, segment.generation, at)
            {
                written = true;
                if block.watermark >= sequence {
                    let claim = format!("block {} at byte {at} of {}", block.sequence, segment.path());
                    return Ok((written, Some(claim)));
                }
            }
            at += PAGE as u64;
        }
        Ok((written, None))
    }
}

/// A block's length as its header claims it, if it can be one, else the most that is worth keeping.
fn plausible(claimed: u32, left: u64) -> u64 {
    let fits = claimed as usize >= PAGE && (claimed as usize).is_multiple_of(PAGE) && claimed as u64 <= left;
    if fits { claimed as u64 } else { CUT_BYTES_MAX.min(left) }
}

/// Reads exactly `len` bytes; the caller has checked them against the size of the segment.
fn read(segment: &Segment, position: u64, len: usize, buf: &mut Vec<u8>) -> Result<(), OpenError> {
    buf.resize(len, 0);
    let read = segment.file.read_at(buf, position);
    let read = read.map_err(|source| OpenError::Io { file: segment.path(), source })?;
    if read < len {
        return Err(OpenError::Missing {
            what: format!("the end of {}, which is {} bytes long", segment.path(), position + read as u64),
            remedy: PUT_BACK,
        });
    }
    Ok(())
}

const _: () = assert!(ENTRY_HEADER < BLOCK_HEADER && BLOCK_HEADER <= 512, "a block header is within one sector");
