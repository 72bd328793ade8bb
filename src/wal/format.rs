//! What is written on disk, byte for byte. Pure: no I/O.
//!
//! A segment is a file of fixed size: one page of [`SegmentHeader`], then blocks, each on a 4 KiB boundary:
//!
//! ```text
//! block  = header (80) ‖ entry… ‖ zeros up to the next 4 KiB
//! entry  = entry header (32) ‖ payload (its first 40 bytes are the `head`)
//! ```
//!
//! Every payload is summed once, into its entry header, so that one entry can be read and checked alone. The block's
//! `body_crc` covers the entry headers (with these sums in them) and the heads, and the header's own checksum covers `body_crc`:
//! one short pass over what is contiguous in memory, and still every byte of the block hangs on the header's checksum. The
//! successor repeats that checksum: the chain. The header fits in one disk sector, so it is readable even where the
//! rest of its block is torn, and what it says about its predecessors can be believed.
//!
//! All integers are big-endian. A block names its place (generation and offset) and its WAL (the salt), so that one
//! that was written elsewhere, by an earlier use of the file, or forged inside a record is not taken for it.

use crate::base::checksum::{Crc32c, crc32c};
use crate::base::limits::WAL_BLOCK_ALIGN;
use crate::base::{EntryId, LedgerId, WalIncarnation};

/// Boundary and smallest size of a block; size of the segment header.
pub const PAGE: usize = WAL_BLOCK_ALIGN;
/// Bytes at the start of every payload that the caller owns apart from the shared body.
pub const HEAD: usize = 40;
pub const BLOCK_HEADER: usize = 80;
pub const ENTRY_HEADER: usize = 32;
pub const VERSION: u16 = 1;

const SEGMENT_MAGIC: u32 = 0x434d_5753; // "CMWS"
const BLOCK_MAGIC: u32 = 0x434d_5742; // "CMWB"
const SEGMENT_HEADER: usize = 52;

/// An empty block that records the watermark when nothing follows for a while, or at the end.
pub const FLAG_CLOSING: u16 = 1;
/// An empty block with which recovery takes over; the only one that may begin a new run.
pub const FLAG_OPENING: u16 = 2;
const FLAGS_KNOWN: u16 = FLAG_CLOSING | FLAG_OPENING;

/// `bytes` rounded up to whole pages.
pub fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE)
}

/// The last block of the chain: what its successor must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    /// Sequence of the last block; the first block of a WAL has sequence 1.
    pub sequence: u64,
    /// Checksum of its header.
    pub crc: u32,
    /// Counts the takeovers by recovery, so that what an earlier cut left behind never fits again.
    pub run: u32,
}

/// First page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub salt: u64,
    pub incarnation: WalIncarnation,
    pub generation: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    pub flags: u16,
    /// Key that the payloads are encrypted with; 0 is none, the only one so far.
    pub key_id: u32,
    pub run: u32,
    pub salt: u64,
    pub generation: u64,
    pub sequence: u64,
    /// Sequence of the last block that was synced before this one was written.
    pub watermark: u64,
    /// Header, entries and padding.
    pub block_bytes: u32,
    /// Header and entries.
    pub used_bytes: u32,
    pub entries: u32,
    /// Where the block begins in its segment.
    pub offset: u32,
    /// Checksum of the predecessor's header.
    pub predecessor: u32,
    pub body_crc: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    pub ledger: LedgerId,
    pub entry: EntryId,
    /// Bytes of the payload.
    pub len: u32,
    /// CRC32C of the payload.
    pub crc: u32,
    /// Low half of the segment's generation.
    pub generation: u32,
    /// Where the payload begins in its segment.
    pub offset: u32,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Nothing like one.
    Absent,
    /// One that was damaged or half written.
    Damaged,
    /// One of a later release.
    Newer(u16),
}

/// Writes fixed-width integers one after the other into a slice that is long enough.
struct Put<'a>(&'a mut [u8], usize);

impl Put<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
        self
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    ((u32_at(bytes, at) as u64) << 32) | u32_at(bytes, at + 4) as u64
}

impl SegmentHeader {
    /// The whole first page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        let mut put = Put(&mut page, 0);
        put.put(&SEGMENT_MAGIC.to_be_bytes()).put(&VERSION.to_be_bytes()).put(&0u16.to_be_bytes());
        put.put(&self.salt.to_be_bytes()).put(&self.incarnation.0);
        put.put(&self.generation.to_be_bytes()).put(&self.bytes.to_be_bytes());
        let crc = crc32c(&page[..SEGMENT_HEADER - 4]);
        page[SEGMENT_HEADER - 4..SEGMENT_HEADER].copy_from_slice(&crc.to_be_bytes());
        page
    }

    pub fn decode(page: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        if page.len() < PAGE || u32_at(page, 0) != SEGMENT_MAGIC {
            return Err(HeaderFault::Absent);
        }
        let zeros = page[SEGMENT_HEADER..PAGE].iter().all(|b| *b == 0);
        if u32_at(page, SEGMENT_HEADER - 4) != crc32c(&page[..SEGMENT_HEADER - 4]) || !zeros {
            return Err(HeaderFault::Damaged);
        }
        if u16_at(page, 4) != VERSION {
            return Err(HeaderFault::Newer(u16_at(page, 4)));
        }
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&page[16..32]);
        Ok(SegmentHeader {
            salt: u64_at(page, 8),
            incarnation: WalIncarnation(incarnation),
            generation: u64_at(page, 32),
            bytes: u64_at(page, 40),
        })
    }
}

impl BlockHeader {
    /// Writes the header and returns its checksum, which the successor repeats.
    pub fn encode(&self, out: &mut [u8]) -> u32 {
        let mut put = Put(out, 0);
        put.put(&BLOCK_MAGIC.to_be_bytes()).put(&VERSION.to_be_bytes()).put(&self.flags.to_be_bytes());
        put.put(&self.key_id.to_be_bytes()).put(&self.run.to_be_bytes()).put(&self.salt.to_be_bytes());
        put.put(&self.generation.to_be_bytes()).put(&self.sequence.to_be_bytes()).put(&self.watermark.to_be_bytes());
        put.put(&self.block_bytes.to_be_bytes()).put(&self.used_bytes.to_be_bytes());
        put.put(&self.entries.to_be_bytes()).put(&self.offset.to_be_bytes());
        put.put(&self.predecessor.to_be_bytes()).put(&self.body_crc.to_be_bytes()).put(&[0; 4]);
        let crc = crc32c(&out[..BLOCK_HEADER - 4]);
        out[BLOCK_HEADER - 4..BLOCK_HEADER].copy_from_slice(&crc.to_be_bytes());
        crc
    }

    /// The header at the front of `bytes`, and its checksum.
    pub fn decode(bytes: &[u8]) -> Result<(BlockHeader, u32), HeaderFault> {
        if bytes.len() < BLOCK_HEADER || u32_at(bytes, 0) != BLOCK_MAGIC {
            return Err(HeaderFault::Absent);
        }
        let crc = u32_at(bytes, BLOCK_HEADER - 4);
        if crc != crc32c(&bytes[..BLOCK_HEADER - 4]) {
            return Err(HeaderFault::Damaged);
        }
        if u16_at(bytes, 4) != VERSION {
            return Err(HeaderFault::Newer(u16_at(bytes, 4)));
        }
        let header = BlockHeader {
            flags: u16_at(bytes, 6),
            key_id: u32_at(bytes, 8),
            run: u32_at(bytes, 12),
            salt: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
            watermark: u64_at(bytes, 40),
            block_bytes: u32_at(bytes, 48),
            used_bytes: u32_at(bytes, 52),
            entries: u32_at(bytes, 56),
            offset: u32_at(bytes, 60),
            predecessor: u32_at(bytes, 64),
            body_crc: u32_at(bytes, 68),
        };
        Ok((header, crc))
    }

    /// What a header at the front of `bytes` claims as its block's length, though its checksum does not hold; and
    /// whether the bytes resemble a header of the WAL with this salt at all.
    pub fn salvage(bytes: &[u8], salt: u64) -> Option<u32> {
        let ours = bytes.len() >= BLOCK_HEADER && (u32_at(bytes, 0) == BLOCK_MAGIC || u64_at(bytes, 16) == salt);
        ours.then(|| u32_at(bytes, 48))
    }

    /// True when the block may follow the one that `chain` describes.
    pub fn follows(&self, chain: &Chain) -> bool {
        let run = if self.flags & FLAG_OPENING != 0 { self.run > chain.run } else { self.run == chain.run };
        self.sequence == chain.sequence.wrapping_add(1) && self.predecessor == chain.crc && run
    }

    /// True when the header says that it belongs to this place.
    pub fn is_at(&self, salt: u64, generation: u64, offset: u64) -> bool {
        self.salt == salt && self.generation == generation && self.offset as u64 == offset
    }

    /// What in the header this release does not understand.
    pub fn unknown(&self) -> Option<&'static str> {
        if self.key_id != 0 {
            return Some("an encryption key");
        }
        (self.flags & !FLAGS_KNOWN != 0).then_some("a flag")
    }
}

impl EntryHeader {
    pub fn encode(&self) -> [u8; ENTRY_HEADER] {
        let mut out = [0; ENTRY_HEADER];
        let mut put = Put(&mut out, 0);
        put.put(&self.ledger.0.to_be_bytes()).put(&self.entry.0.to_be_bytes());
        put.put(&self.len.to_be_bytes()).put(&self.crc.to_be_bytes());
        put.put(&self.generation.to_be_bytes()).put(&self.offset.to_be_bytes());
        out
    }

    /// `bytes` must hold a whole entry header.
    pub fn decode(bytes: &[u8; ENTRY_HEADER]) -> EntryHeader {
        EntryHeader {
            ledger: LedgerId(u64_at(bytes, 0)),
            entry: EntryId(u64_at(bytes, 8)),
            len: u32_at(bytes, 16),
            crc: u32_at(bytes, 20),
            generation: u32_at(bytes, 24),
            offset: u32_at(bytes, 28),
        }
    }

    /// True when the header says that it belongs to the payload at `offset` of a segment of this generation.
    pub fn is_at(&self, generation: u64, offset: u64) -> bool {
        self.generation == generation as u32 && self.offset as u64 == offset
    }
}

/// CRC32C of a payload whose first bytes are apart from the rest.
pub fn payload_crc(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(head);
    crc.update(body);
    crc.finish()
}

/// Checks a whole block, byte for byte, and lists its entries with the offset of each payload in the block.
///
/// `header` was decoded from `block` and is where it says; on an error nothing of the block may be believed.
pub fn check_block(
    block: &[u8],
    header: &BlockHeader,
    entries: &mut Vec<(EntryHeader, usize)>,
) -> Result<(), &'static str> {
    entries.clear();
    let used = header.used_bytes as usize;
    if header.block_bytes as usize != block.len() || used < BLOCK_HEADER || used > block.len() {
        return Err("lengths that contradict each other");
    }
    let mut body = Crc32c::new();
    let mut at = BLOCK_HEADER;
    for _ in 0..header.entries {
        let Some(fixed) = block[at..used].first_chunk::<{ ENTRY_HEADER + HEAD }>() else {
            return Err("an entry beyond its end");
        };
        body.update(fixed);
        let entry = EntryHeader::decode(fixed.first_chunk().unwrap_or(&[0; ENTRY_HEADER]));
        let payload = at + ENTRY_HEADER;
        let len = entry.len as usize;
        if len < HEAD || len > used - payload {
            return Err("an entry beyond its end");
        }
        if !entry.is_at(header.generation, header.offset as u64 + payload as u64) {
            return Err("an entry that belongs elsewhere");
        }
        if crc32c(&block[payload..payload + len]) != entry.crc {
            return Err("a wrong checksum of an entry");
        }
        entries.push((entry, payload));
        at = payload + len;
    }
    if at != used {
        return Err("bytes after its last entry");
    }
    if body.finish() != header.body_crc {
        return Err("a wrong checksum of its entry headers");
    }
    if block[BLOCK_HEADER - 8..BLOCK_HEADER - 4] != [0; 4] || block[used..].iter().any(|b| *b != 0) {
        return Err("padding that is not zero");
    }
    Ok(())
}

/// Builds the parts of a block that are not payload bodies, in one contiguous scratch buffer.
#[derive(Default)]
pub struct BlockBuilder {
    scratch: Vec<u8>,
    used: usize,
    entries: u32,
}

impl BlockBuilder {
    pub fn begin(&mut self) {
        self.scratch.clear();
        self.scratch.resize(BLOCK_HEADER, 0);
        self.used = BLOCK_HEADER;
        self.entries = 0;
    }

    /// Adds an entry of a block that begins at `position`; returns where its payload begins in the segment.
    pub fn push(&mut self, mut header: EntryHeader, position: u64, head: &[u8; HEAD]) -> u64 {
        let offset = position + (self.used + ENTRY_HEADER) as u64;
        header.offset = offset as u32;
        self.scratch.extend_from_slice(&header.encode());
        self.scratch.extend_from_slice(head);
        self.used += ENTRY_HEADER + header.len as usize;
        self.entries += 1;
        offset
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// Completes `header` by what the builder knows and puts it in front; returns its checksum.
    pub fn finish(&mut self, mut header: BlockHeader) -> u32 {
        header.used_bytes = self.used as u32;
        header.block_bytes = align(self.used) as u32;
        header.entries = self.entries;
        header.body_crc = crc32c(&self.scratch[BLOCK_HEADER..]);
        header.encode(&mut self.scratch[..BLOCK_HEADER])
    }

    /// What goes before the body of entry `index`: its header and head, for the first also the block header.
    pub fn before_body(&self, index: usize) -> &[u8] {
        let step = ENTRY_HEADER + HEAD;
        let from = if index == 0 { 0 } else { BLOCK_HEADER + index * step };
        &self.scratch[from..(BLOCK_HEADER + (index + 1) * step).min(self.scratch.len())]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn header() -> BlockHeader {
        BlockHeader {
            flags: FLAG_CLOSING,
            key_id: 0,
            run: 3,
            salt: 0x1122_3344_5566_7788,
            generation: 9,
            sequence: 77,
            watermark: 76,
            block_bytes: 0,
            used_bytes: 0,
            entries: 0,
            offset: 2 * PAGE as u32,
            predecessor: 0xdead_beef,
            body_crc: 0,
        }
    }

    fn block(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        builder.begin();
        let head = [7; HEAD];
        for (i, body) in bodies.iter().enumerate() {
            let entry = EntryHeader {
                ledger: LedgerId(5),
                entry: EntryId(i as u64),
                len: (HEAD + body.len()) as u32,
                crc: payload_crc(&head, body),
                generation: 9,
                offset: 0,
            };
            builder.push(entry, 2 * PAGE as u64, &head);
        }
        builder.finish(header());
        let mut out = if bodies.is_empty() { builder.before_body(0).to_vec() } else { Vec::new() };
        for (i, body) in bodies.iter().enumerate() {
            out.extend_from_slice(builder.before_body(i));
            out.extend_from_slice(body);
        }
        assert_eq!(out.len(), builder.used());
        out.resize(align(out.len()), 0);
        out
    }

    #[test]
    fn segment_headers_come_back_and_every_flipped_byte_is_noticed() {
        let header = SegmentHeader { salt: 1, incarnation: WalIncarnation([2; 16]), generation: 3, bytes: 4 };
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
        for at in 0..page.len() {
            let mut bad = page.clone();
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&page[..100]), Err(HeaderFault::Absent));
    }

    #[test]
    fn every_flipped_byte_of_a_block_is_noticed() {
        let good = block(&[vec![1; 100], vec![], vec![2; 3000]]);
        let (head, _) = BlockHeader::decode(&good).unwrap();
        let mut entries = Vec::new();
        check_block(&good, &head, &mut entries).unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(&good[entries[2].1 + HEAD..][..3000], &[2; 3000]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let noticed = match BlockHeader::decode(&bad) {
                Err(_) => true,
                Ok((header, _)) => check_block(&bad, &header, &mut entries).is_err(),
            };
            assert!(noticed, "byte {at}");
        }
    }

    #[test]
    fn a_later_release_is_told_from_damage() {
        let mut page = block(&[]);
        page[4..6].copy_from_slice(&2u16.to_be_bytes());
        assert_eq!(BlockHeader::decode(&page), Err(HeaderFault::Damaged));
        let crc = crc32c(&page[..BLOCK_HEADER - 4]);
        page[BLOCK_HEADER - 4..BLOCK_HEADER].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(BlockHeader::decode(&page), Err(HeaderFault::Newer(2)));
    }

    #[test]
    fn only_the_next_block_of_the_same_run_follows() {
        let chain = Chain { sequence: 76, crc: 0xdead_beef, run: 3 };
        assert!(header().follows(&chain));
        assert!(!header().follows(&Chain { sequence: 75, ..chain }));
        assert!(!header().follows(&Chain { crc: 1, ..chain }));
        assert!(!header().follows(&Chain { run: 2, ..chain }));
        let opening = BlockHeader { flags: FLAG_OPENING, ..header() };
        assert!(opening.follows(&Chain { run: 2, ..chain }));
        assert!(!opening.follows(&chain));
    }

    /// Fixed bytes of format version 1: a change of the layout needs a new version, not a new constant here.
    #[test]
    fn the_layout_of_version_1_stands() {
        let bytes = block(&[vec![9; 5]]);
        assert_eq!(crc32c(&bytes), 597_138_604);
        let page = SegmentHeader { salt: 1, incarnation: WalIncarnation([2; 16]), generation: 3, bytes: 4 }.encode();
        assert_eq!(crc32c(&page), 2_007_889_526);
    }

    proptest! {
        #[test]
        fn blocks_come_back(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let bytes = block(&bodies);
            let (header, _) = BlockHeader::decode(&bytes).unwrap();
            let mut entries = Vec::new();
            check_block(&bytes, &header, &mut entries).unwrap();
            prop_assert_eq!(entries.len(), bodies.len());
            for ((entry, at), body) in entries.iter().zip(&bodies) {
                prop_assert_eq!(&bytes[at + HEAD..at + entry.len as usize], &body[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), PAGE..2 * PAGE), seal in any::<bool>()) {
            if seal {
                bytes[..4].copy_from_slice(&BLOCK_MAGIC.to_be_bytes());
                bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
                let crc = crc32c(&bytes[..BLOCK_HEADER - 4]);
                bytes[BLOCK_HEADER - 4..BLOCK_HEADER].copy_from_slice(&crc.to_be_bytes());
            }
            if let Ok((header, _)) = BlockHeader::decode(&bytes) {
                let _ = check_block(&bytes, &header, &mut Vec::new());
            }
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
