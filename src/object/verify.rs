//! Checks a whole object, every byte of it: for repair tools and for the test that flips each byte.

use bytes::Bytes;

use crate::base::{ClusterId, ObjectId};

use super::builder::trailing_crc;
use super::format::{
    DirectoryEntry, FormatError, HEADER_BYTES, TRAILER_BYTES, Trailer, check_block, check_header, decode_directory,
    expect,
};
use super::run::{Batches, RunIndex};
use super::state::PartitionState;

/// Verifies header, trailer, directory, and every run with its blocks and batches; that they fill the object without a
/// gap; and that directory and runs agree. Returns the directory.
pub fn verify_object(bytes: &Bytes, cluster: ClusterId, object: ObjectId) -> Result<Vec<DirectoryEntry>, FormatError> {
    let fixed = HEADER_BYTES + TRAILER_BYTES;
    if bytes.len() < fixed {
        return Err(FormatError::Length { expected: fixed as u64, bytes: bytes.len() as u64 });
    }
    check_header(&bytes[..HEADER_BYTES], cluster, object)?;
    let trailer = Trailer::decode(&bytes[bytes.len() - TRAILER_BYTES..], object, bytes.len() as u64)?;
    expect("header checksum", trailer.header_crc.into(), trailing_crc(&bytes[..HEADER_BYTES]).into())?;
    let directory = &bytes[trailer.directory_position as usize..bytes.len() - TRAILER_BYTES];
    let entries = check_directory(directory, &trailer, cluster)?;
    let mut next = HEADER_BYTES as u64;
    for entry in &entries {
        expect("position of the run", next, entry.range.position)?;
        next = next.saturating_add(entry.range.length.into());
        if next > trailer.directory_position {
            return Err(FormatError::Length { expected: trailer.directory_position, bytes: next });
        }
        verify_run(&bytes.slice(entry.range.position as usize..next as usize), object, entry)?;
    }
    expect("position of the directory", next, trailer.directory_position)?;
    Ok(entries)
}

/// Decodes a directory and compares it with its trailer.
pub(super) fn check_directory(
    directory: &[u8],
    trailer: &Trailer,
    cluster: ClusterId,
) -> Result<Vec<DirectoryEntry>, FormatError> {
    expect("directory checksum", trailer.directory_crc.into(), trailing_crc(directory).into())?;
    decode_directory(directory, cluster, trailer.object)
}

fn verify_run(run: &Bytes, object: ObjectId, entry: &DirectoryEntry) -> Result<(), FormatError> {
    let range = &entry.range;
    let index_bytes = RunIndex::claimed_bytes(run, range.length)?;
    let index = RunIndex::decode(&run[..index_bytes], object, range.partition, range.position, range.length)?;
    let agrees = index.base == range.base
        && index.end == range.end
        && index.bytes == range.bytes
        && index.records == range.records
        && index.max_timestamp == range.max_timestamp
        && index.first_timestamp == range.first_timestamp
        && index.log_start == entry.log_start;
    expect("agreement of index and directory", 1, agrees.into())?;
    PartitionState::decode(&run[index_bytes..index_bytes + index.state_bytes as usize], object, range.position)?;
    for block in &index.blocks {
        let from = (block.position - range.position) as usize;
        let whole = run.slice(from..from + block.length as usize);
        let (header, payload) = check_block(&whole, object, block.position, range.partition)?;
        expect("first offset of the block", block.base.0 as u64, header.base.0 as u64)?;
        expect("end offset of the block", block.end.0 as u64, header.end.0 as u64)?;
        let mut batches = 0;
        for batch in Batches::new(payload) {
            batch?;
            batches += 1;
        }
        expect("number of batches", header.batches.into(), batches)?;
    }
    Ok(())
}
