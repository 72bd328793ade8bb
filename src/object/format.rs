//! The layout of an object: fixed parts, where they stand, and how each is verified.
//!
//! ```text
//! header | run | run | … | directory | trailer
//! run       = index section | state section | block | block | …      (one per partition, in ascending order)
//! block     = block header | whole record batches of one partition
//! ```
//!
//! A *bundle* holds the runs of many partitions, a *segment* is a bundle of one. Numbers are big-endian. Every byte
//! lies in exactly one part, every part carries its own CRC32C, and each part below the header repeats the object id
//! and its own position, so that bytes of another object or another place are refused as well. The format version,
//! flags and the id of an encryption key (0: not encrypted) stand in every part, because parts are read alone.
//!
//! Nothing here performs I/O. A part is never used before its checksum matched, but for the lengths that say where
//! its checksum stands, and those are compared with the bytes present.

use bytes::Bytes;

use crate::base::checksum::crc32c;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{ClusterId, LeaderEpoch, ObjectId, Offset, PartitionId, TopicId};
use crate::metadata::Range;

pub const FORMAT_VERSION: u16 = 1;
/// Bytes of the header of an object.
pub const HEADER_BYTES: usize = 44;
/// Bytes of the header of a block.
pub const BLOCK_HEADER_BYTES: usize = 88;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 56;
/// Bytes of a directory with no entry.
pub const DIRECTORY_BYTES_MIN: usize = 44;
/// Most runs in one object.
pub const RUNS_MAX: usize = crate::base::limits::COMMAND_PARTITIONS_MAX;

const OBJECT_MAGIC: u32 = u32::from_be_bytes(*b"CMO1");
const BLOCK_MAGIC: u32 = u32::from_be_bytes(*b"CMB1");
const DIRECTORY_MAGIC: u32 = u32::from_be_bytes(*b"CMD1");
const TRAILER_MAGIC: u32 = u32::from_be_bytes(*b"CMT1");
pub(super) const INDEX_MAGIC: u32 = u32::from_be_bytes(*b"CMI1");
pub(super) const STATE_MAGIC: u32 = u32::from_be_bytes(*b"CMS1");
const CRC_BYTES: usize = 4;

/// Why a part of an object is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("checksum {found:08x} does not match the bytes, which give {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("{bytes} bytes where {expected} belong")]
    Length { expected: u64, bytes: u64 },
    #[error("{field} is {found}, not {expected}")]
    Mismatch { field: &'static str, expected: u64, found: u64 },
    #[error("belongs to another cluster, {0}")]
    Cluster(ClusterId),
    #[error("belongs to another partition, {0}")]
    Partition(PartitionId),
    #[error("is encrypted with key {0}, which this release cannot read")]
    Encrypted(u32),
    #[error("does not hold whole record batches: {0}")]
    Batch(#[from] crate::batch::HeaderError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Refuses a field that differs from what it must be.
pub(super) fn expect(field: &'static str, expected: u64, found: u64) -> Result<(), FormatError> {
    if expected == found { Ok(()) } else { Err(FormatError::Mismatch { field, expected, found }) }
}

/// Compares the CRC in the last four bytes with the others; returns those.
pub(super) fn checked(part: &[u8]) -> Result<&[u8], FormatError> {
    let Some((body, crc)) = part.split_last_chunk::<CRC_BYTES>() else {
        return Err(FormatError::Length { expected: CRC_BYTES as u64, bytes: part.len() as u64 });
    };
    let (found, computed) = (u32::from_be_bytes(*crc), crc32c(body));
    if found == computed { Ok(body) } else { Err(FormatError::Checksum { found, computed }) }
}

/// Appends the CRC of what is written so far.
pub(super) fn sealed(mut w: Writer) -> Bytes {
    let crc = crc32c(&w.0);
    w.u32(crc);
    w.finish()
}

/// Magic, version, flags (none yet) and key id, in front of every part.
pub(super) fn write_prefix(w: &mut Writer, magic: u32) {
    write_versioned_prefix(w, magic, FORMAT_VERSION);
}

/// As [`write_prefix`], of a part that has a version of its own.
pub(super) fn write_versioned_prefix(w: &mut Writer, magic: u32, version: u16) {
    w.u32(magic).u16(version).u16(0).u32(0);
}

pub(super) fn read_prefix(r: &mut Reader<'_>, magic: u32) -> Result<(), FormatError> {
    read_versioned_prefix(r, magic, FORMAT_VERSION).map(drop)
}

/// The version of a part, which is at most `newest`.
pub(super) fn read_versioned_prefix(r: &mut Reader<'_>, magic: u32, newest: u16) -> Result<u16, FormatError> {
    expect("magic", magic.into(), r.u32()?.into())?;
    let version = r.u16()?;
    if version == 0 || version > newest {
        return Err(DecodeError::Version { found: version, newest }.into());
    }
    expect("flags", 0, r.u16()?.into())?;
    match r.u32()? {
        0 => Ok(version),
        key => Err(FormatError::Encrypted(key)),
    }
}

pub(super) fn write_partition(w: &mut Writer, partition: PartitionId) {
    w.raw(&partition.topic.0).i32(partition.index);
}

pub(super) fn read_partition(r: &mut Reader<'_>) -> Result<PartitionId, DecodeError> {
    Ok(PartitionId { topic: TopicId(r.array()?), index: r.i32()? })
}

pub(super) fn write_epochs(w: &mut Writer, epochs: &[(LeaderEpoch, Offset)]) {
    w.count(epochs.len());
    for (epoch, start) in epochs {
        w.i32(epoch.0).i64(start.0);
    }
}

pub(super) fn read_epochs(r: &mut Reader<'_>) -> Result<Vec<(LeaderEpoch, Offset)>, DecodeError> {
    let count = r.count(12)?;
    (0..count).map(|_| Ok((LeaderEpoch(r.i32()?), Offset(r.i64()?)))).collect()
}

/// The first bytes of an object.
pub fn encode_header(cluster: ClusterId, object: ObjectId) -> Bytes {
    let mut w = Writer::new();
    write_prefix(&mut w, OBJECT_MAGIC);
    w.raw(&cluster.0).u64(object.0).u32(HEADER_BYTES as u32);
    sealed(w)
}

pub fn check_header(bytes: &[u8], cluster: ClusterId, object: ObjectId) -> Result<(), FormatError> {
    expect("header length", HEADER_BYTES as u64, bytes.len() as u64)?;
    let mut r = Reader::new(checked(bytes)?);
    read_prefix(&mut r, OBJECT_MAGIC)?;
    let found = ClusterId(r.array()?);
    if found != cluster {
        return Err(FormatError::Cluster(found));
    }
    expect("object id", object.0, r.u64()?)?;
    expect("header length", HEADER_BYTES as u64, r.u32()?.into())?;
    Ok(r.finish()?)
}

/// What stands before the batches of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    pub object: ObjectId,
    pub position: u64,
    pub partition: PartitionId,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Bytes of the batches that follow.
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub batches: u32,
}

impl BlockHeader {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        write_prefix(&mut w, BLOCK_MAGIC);
        w.u64(self.object.0).u64(self.position);
        write_partition(&mut w, self.partition);
        w.i64(self.base.0).i64(self.end.0).u32(self.payload_bytes).u32(self.payload_crc).u32(self.batches);
        w.u64(0);
        sealed(w)
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(checked(bytes)?);
        read_prefix(&mut r, BLOCK_MAGIC)?;
        let header = BlockHeader {
            object: ObjectId(r.u64()?),
            position: r.u64()?,
            partition: read_partition(&mut r)?,
            base: Offset(r.i64()?),
            end: Offset(r.i64()?),
            payload_bytes: r.u32()?,
            payload_crc: r.u32()?,
            batches: r.u32()?,
        };
        expect("reserved field", 0, r.u64()?)?;
        r.finish()?;
        Ok(header)
    }
}

/// Verifies a whole block against the place it was fetched for; returns its header and the batches' bytes.
pub fn check_block(
    block: &Bytes,
    object: ObjectId,
    position: u64,
    partition: PartitionId,
) -> Result<(BlockHeader, Bytes), FormatError> {
    if block.len() < BLOCK_HEADER_BYTES {
        return Err(FormatError::Length { expected: BLOCK_HEADER_BYTES as u64, bytes: block.len() as u64 });
    }
    let header = BlockHeader::decode(&block[..BLOCK_HEADER_BYTES])?;
    expect("object id", object.0, header.object.0)?;
    expect("position", position, header.position)?;
    if header.partition != partition {
        return Err(FormatError::Partition(header.partition));
    }
    let payload = block.slice(BLOCK_HEADER_BYTES..);
    expect("payload length", header.payload_bytes.into(), payload.len() as u64)?;
    let computed = crc32c(&payload);
    if computed != header.payload_crc {
        return Err(FormatError::Checksum { found: header.payload_crc, computed });
    }
    Ok((header, payload))
}

/// One run as the directory lists it: enough to rebuild the metadata's index from the object alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    pub range: Range,
    /// First offset that was still readable when the object was written.
    pub log_start: Offset,
}

const DIRECTORY_ENTRY_BYTES_MIN: usize = 20 + 8 * 8 + 4 + 4;

pub fn encode_directory(cluster: ClusterId, object: ObjectId, entries: &[DirectoryEntry]) -> Bytes {
    let mut w = Writer::new();
    write_prefix(&mut w, DIRECTORY_MAGIC);
    w.raw(&cluster.0).u64(object.0).count(entries.len());
    for DirectoryEntry { range, log_start } in entries {
        write_partition(&mut w, range.partition);
        w.i64(range.base.0).i64(range.end.0).u64(range.bytes).u64(range.records);
        w.i64(range.max_timestamp).i64(range.first_timestamp).u64(range.position).u32(range.length);
        w.i64(log_start.0);
        write_epochs(&mut w, &range.epochs);
    }
    sealed(w)
}

pub fn decode_directory(
    bytes: &[u8],
    cluster: ClusterId,
    object: ObjectId,
) -> Result<Vec<DirectoryEntry>, FormatError> {
    let mut r = Reader::new(checked(bytes)?);
    read_prefix(&mut r, DIRECTORY_MAGIC)?;
    let found = ClusterId(r.array()?);
    if found != cluster {
        return Err(FormatError::Cluster(found));
    }
    expect("object id", object.0, r.u64()?)?;
    let count = r.count(DIRECTORY_ENTRY_BYTES_MIN)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let partition = read_partition(&mut r)?;
        let mut range = Range {
            partition,
            base: Offset(r.i64()?),
            end: Offset(r.i64()?),
            bytes: r.u64()?,
            records: r.u64()?,
            max_timestamp: r.i64()?,
            first_timestamp: r.i64()?,
            position: r.u64()?,
            length: r.u32()?,
            epochs: Vec::new(),
        };
        let log_start = Offset(r.i64()?);
        range.epochs = read_epochs(&mut r)?;
        entries.push(DirectoryEntry { range, log_start });
    }
    r.finish()?;
    Ok(entries)
}

/// The last bytes of an object: where the directory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub object: ObjectId,
    /// Bytes of the whole object, trailer included.
    pub object_bytes: u64,
    pub directory_position: u64,
    pub directory_bytes: u32,
    pub directory_crc: u32,
    pub header_crc: u32,
}

impl Trailer {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u64(self.object.0).u64(self.object_bytes).u64(self.directory_position);
        w.u32(self.directory_bytes).u32(self.directory_crc).u32(self.header_crc);
        w.u32(0);
        write_prefix(&mut w, TRAILER_MAGIC);
        let crc = crc32c(&w.0);
        w.u32(crc);
        w.finish()
    }

    /// Reads the trailer of an object of `object_bytes`; the directory lies within it afterwards.
    pub fn decode(bytes: &[u8], object: ObjectId, object_bytes: u64) -> Result<Self, FormatError> {
        expect("trailer length", TRAILER_BYTES as u64, bytes.len() as u64)?;
        let mut r = Reader::new(checked(bytes)?);
        let trailer = Trailer {
            object: ObjectId(r.u64()?),
            object_bytes: r.u64()?,
            directory_position: r.u64()?,
            directory_bytes: r.u32()?,
            directory_crc: r.u32()?,
            header_crc: r.u32()?,
        };
        expect("reserved field", 0, r.u32()?.into())?;
        read_prefix(&mut r, TRAILER_MAGIC)?;
        r.finish()?;
        expect("object id", object.0, trailer.object.0)?;
        expect("object length", object_bytes, trailer.object_bytes)?;
        let end = trailer.directory_position.saturating_add(trailer.directory_bytes.into());
        expect("end of the directory", object_bytes.saturating_sub(TRAILER_BYTES as u64), end)?;
        if (trailer.directory_bytes as usize) < DIRECTORY_BYTES_MIN {
            let expected = DIRECTORY_BYTES_MIN as u64;
            return Err(FormatError::Length { expected, bytes: trailer.directory_bytes.into() });
        }
        Ok(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn fixed_parts_have_their_fixed_lengths() {
        assert_eq!(encode_header(CLUSTER, ObjectId(1)).len(), HEADER_BYTES);
        assert_eq!(encode_directory(CLUSTER, ObjectId(1), &[]).len(), DIRECTORY_BYTES_MIN);
        let trailer = Trailer {
            object: ObjectId(1),
            object_bytes: 2,
            directory_position: 3,
            directory_bytes: 4,
            directory_crc: 5,
            header_crc: 6,
        };
        assert_eq!(trailer.encode().len(), TRAILER_BYTES);
        let block = BlockHeader {
            object: ObjectId(1),
            position: 2,
            partition: PartitionId::default(),
            base: Offset(3),
            end: Offset(4),
            payload_bytes: 5,
            payload_crc: 6,
            batches: 7,
        };
        assert_eq!(block.encode().len(), BLOCK_HEADER_BYTES);
        assert_eq!(BlockHeader::decode(&block.encode()), Ok(block));
    }

    #[test]
    fn a_newer_version_and_an_encrypted_part_are_named() {
        for (at, expected) in
            [(5, FormatError::Decode(DecodeError::Version { found: 2, newest: 1 })), (11, FormatError::Encrypted(2))]
        {
            let mut bytes = encode_header(CLUSTER, ObjectId(1)).to_vec();
            bytes[at] = 2;
            let crc = crc32c(&bytes[..HEADER_BYTES - 4]);
            bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(check_header(&bytes, CLUSTER, ObjectId(1)), Err(expected));
        }
    }

    #[test]
    fn another_clusters_object_is_refused() {
        let bytes = encode_header(CLUSTER, ObjectId(1));
        let other = ClusterId([8; 16]);
        assert_eq!(check_header(&bytes, other, ObjectId(1)), Err(FormatError::Cluster(CLUSTER)));
        assert!(matches!(check_header(&bytes, CLUSTER, ObjectId(2)), Err(FormatError::Mismatch { .. })));
    }
}
