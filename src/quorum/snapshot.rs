//! The whole state in one immutable piece of bytes: for the bucket, and for a voter that is far behind.
//!
//! Layout: magic 4 bytes "CMQS" | version `u16` = 1 | pieces. A piece: kind `u8` | length `u32` | bytes | CRC32C
//! `u32` of kind, length and bytes. Kinds, in this order: 1 the state of the machine, 2 the image, 3 ranges and 4
//! objects of the index (any number of pieces each: count `u32`, then key and value as in `kv`, each with a length
//! `u32`), 5 the end (the number of pieces before it, `u32`). A snapshot without its end is none.

use crate::base::checksum::crc32c;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::kv::machine::{MachineState, Totals};
use crate::kv::{Batch, Family, Fenced, ReadError, Snapshot, object, range};
use crate::metadata::{Image, IndexOp};

const MAGIC: [u8; 4] = *b"CMQS";
const VERSION: u16 = 1;
/// Bytes of index entries after which a piece ends.
const PIECE_BYTES: usize = 256 << 10;

const STATE: u8 = 1;
const IMAGE: u8 = 2;
const RANGES: u8 = 3;
const OBJECTS: u8 = 4;
const END: u8 = 5;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("these bytes are no snapshot of the metadata")]
    NoSnapshot,
    #[error("piece {piece} of the snapshot is damaged")]
    Damaged { piece: u32 },
    #[error("the snapshot ends early: {0}")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// What a snapshot holds.
pub struct Restored {
    pub state: MachineState,
    pub image: Image,
    pub totals: Totals,
    index: Vec<IndexOp>,
}

impl Restored {
    /// Replaces what is stored, of which `before` is the image.
    pub fn write(&self, before: &Image, batch: &mut Batch) {
        for family in [Family::Range, Family::Object, Family::ObjectState, Family::ProducerState] {
            batch.delete_family(family);
        }
        for op in &self.index {
            object::put_entry(op, batch);
        }
        batch.put_image_changes(before, &self.image);
        batch.put_totals(&self.totals);
        batch.put_machine_state(&self.state);
    }
}

struct Pieces {
    out: Writer,
    count: u32,
}

impl Pieces {
    fn push(&mut self, kind: u8, bytes: &[u8]) {
        let start = self.out.0.len();
        self.out.u8(kind).bytes(bytes);
        let sum = crc32c(&self.out.0[start..]);
        self.out.u32(sum);
        self.count += 1;
    }

    /// All keys of a family, in pieces of bounded size.
    fn push_family(&mut self, kind: u8, family: Family, view: &Snapshot<'_>) -> Result<(), ReadError> {
        let (mut entries, mut count) = (Writer::new(), 0);
        view.scan_family(family, &mut |key, value| {
            entries.bytes(key).bytes(value);
            count += 1;
            if entries.0.len() >= PIECE_BYTES {
                self.push_entries(kind, &mut entries, &mut count);
            }
            Ok(true)
        })?;
        if count > 0 {
            self.push_entries(kind, &mut entries, &mut count);
        }
        Ok(())
    }

    fn push_entries(&mut self, kind: u8, entries: &mut Writer, count: &mut usize) {
        let mut piece = Writer(Vec::with_capacity(4 + entries.0.len()));
        piece.count(*count).raw(&entries.0);
        self.push(kind, &piece.0);
        entries.0.clear();
        *count = 0;
    }
}

pub fn encode(state: &MachineState, image: &Image, view: &Snapshot<'_>) -> Result<Vec<u8>, ReadError> {
    let mut out = Writer::new();
    out.raw(&MAGIC).u16(VERSION);
    let mut pieces = Pieces { out, count: 0 };
    pieces.push(STATE, &state.encode());
    pieces.push(IMAGE, &image.encode());
    pieces.push_family(RANGES, Family::Range, view)?;
    pieces.push_family(OBJECTS, Family::Object, view)?;
    let count = pieces.count;
    pieces.push(END, &count.to_be_bytes());
    Ok(pieces.out.0)
}

pub fn decode(bytes: &[u8]) -> Result<Restored, SnapshotError> {
    let mut r = Reader::new(bytes);
    if r.array().ok() != Some(MAGIC) {
        return Err(SnapshotError::NoSnapshot);
    }
    match r.u16()? {
        VERSION => {}
        found => return Err(DecodeError::Version { found, newest: VERSION }.into()),
    }
    let state = MachineState::decode(piece(&mut r, 0, STATE)?.1)?;
    let image = Image::decode(piece(&mut r, 1, IMAGE)?.1)?;
    let mut restored = Restored { state, image, totals: Totals::default(), index: Vec::new() };
    let mut number = 2;
    let mut kind = RANGES;
    loop {
        let (found, body) = piece(&mut r, number, kind)?;
        kind = found;
        match kind {
            RANGES | OBJECTS => entries(kind, body, &mut restored)?,
            END if body == number.to_be_bytes() => break,
            _ => return Err(SnapshotError::Damaged { piece: number }),
        }
        number += 1;
    }
    r.finish()?;
    Ok(restored)
}

/// The next piece, of kind `at_least` or a later one: pieces stand in the order of their kinds.
fn piece<'a>(r: &mut Reader<'a>, number: u32, at_least: u8) -> Result<(u8, &'a [u8]), SnapshotError> {
    let mut whole = r.clone();
    let (kind, body) = (r.u8()?, r.bytes()?);
    let covered = whole.raw(5 + body.len())?;
    if r.u32()? != crc32c(covered) || kind < at_least || (kind > at_least && at_least < RANGES) {
        return Err(SnapshotError::Damaged { piece: number });
    }
    Ok((kind, body))
}

fn entries(kind: u8, body: &[u8], restored: &mut Restored) -> Result<(), SnapshotError> {
    let mut r = Reader::new(body);
    for _ in 0..r.count(8)? {
        let (key, value) = (r.bytes()?, r.bytes()?);
        restored.index.push(if kind == RANGES {
            let (partition, base, entry) = range::decode(key, value)?;
            restored.totals.ranges += 1;
            IndexOp::PutRange { partition, base, entry }
        } else {
            let (id, entry) = object::decode(key, value)?;
            restored.totals.add(&entry);
            IndexOp::PutObject { id, entry }
        });
    }
    r.finish()?;
    Ok(())
}
