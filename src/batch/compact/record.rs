//! Records as compaction sees them: whole bytes, with the few fields that decide about them.

use std::borrow::Cow;

use crate::base::{Offset, limits};
use crate::batch::compression::decompress;
use crate::batch::records::{next_record, varint};
use crate::batch::{RecordsError, StoredBatch};

/// One record. Everything from the offset delta on is moved as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// With its length in front.
    pub whole: &'a [u8],
    pub attributes: u8,
    pub timestamp_delta: i64,
    /// Offset delta, key, value and headers as they stand.
    pub rest: &'a [u8],
    pub offset_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Walks the records of an unpacked batch.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    left: i32,
    last_offset_delta: i64,
    before: i64,
}

impl<'a> Records<'a> {
    pub fn new(batch: &StoredBatch, unpacked: &'a [u8]) -> Records<'a> {
        let header = batch.header();
        let last_offset_delta = header.last_offset_delta.into();
        Records { bytes: unpacked, left: header.record_count, last_offset_delta, before: -1 }
    }

    fn next_one(&mut self) -> Result<Record<'a>, &'static str> {
        let from = self.bytes;
        let mut body = next_record(&mut self.bytes)?;
        let whole = &from[..from.len() - self.bytes.len()];
        let (&attributes, after) = body.split_first().ok_or("a record is empty")?;
        body = after;
        let timestamp_delta = varint(&mut body)?;
        let rest = body;
        let offset_delta = varint(&mut body)?;
        // Compaction trusts nothing that the way in did not check: records out of order are not touched.
        if offset_delta <= self.before || offset_delta > self.last_offset_delta {
            return Err("the offsets of the records do not ascend within the batch");
        }
        self.before = offset_delta;
        let key = field(&mut body)?;
        let value = field(&mut body)?;
        Ok(Record { whole, attributes, timestamp_delta, rest, offset_delta, key, value })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let left_over = !std::mem::take(&mut self.bytes).is_empty();
            return left_over.then_some(Err("bytes are left over after the last record"));
        }
        self.left -= 1;
        let next = self.next_one();
        if next.is_err() {
            (self.left, self.bytes) = (0, &[]);
        }
        Some(next)
    }
}

/// Bytes with their length in front; null where that is negative.
fn field<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length = varint(body)?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (bytes, rest) = body.split_at_checked(length).ok_or("a key or value is longer than its record")?;
    *body = rest;
    Ok(Some(bytes))
}

/// The record bytes without compression. A batch without records has none, whatever its codec.
pub(super) fn unpack(batch: &StoredBatch) -> Result<Cow<'_, [u8]>, RecordsError> {
    let header = batch.header();
    if header.record_count == 0 && batch.records().is_empty() {
        return Ok(Cow::Borrowed(&[]));
    }
    let codec = header.compression().ok_or(RecordsError::Broken("unknown codec"))?;
    Ok(decompress(codec, batch.records(), limits::DECOMPRESSED_BYTES_MAX)?)
}

/// Unpacks a stored batch whose checksum and every record were found whole.
pub fn unpacked_check(batch: &StoredBatch) -> Result<Cow<'_, [u8]>, RecordsError> {
    if !batch.crc_matches() {
        return Err(RecordsError::Broken("the CRC does not match the batch"));
    }
    let unpacked = unpack(batch)?;
    for record in Records::new(batch, &unpacked) {
        record.map_err(RecordsError::Broken)?;
    }
    Ok(unpacked)
}

/// Calls `visit` with the offset, key and value of each record, up to the first that is broken.
pub fn each_key_value(
    batch: &StoredBatch,
    mut visit: impl FnMut(Offset, Option<&[u8]>, Option<&[u8]>),
) -> Result<(), RecordsError> {
    let base = batch.header().base_offset;
    let unpacked = unpack(batch)?;
    for record in Records::new(batch, &unpacked) {
        let record = record.map_err(RecordsError::Broken)?;
        visit(base.plus(record.offset_delta), record.key, record.value);
    }
    Ok(())
}

/// The places within the batch of records without a key, at most `limit` of them. A compacted topic takes none.
pub fn keyless_records(batch: &StoredBatch, limit: usize) -> Result<Vec<i32>, RecordsError> {
    let unpacked = unpack(batch)?;
    let mut found = Vec::new();
    for (place, record) in (0..).zip(Records::new(batch, &unpacked)) {
        if record.map_err(RecordsError::Broken)?.key.is_none() && found.len() < limit {
            found.push(place);
        }
    }
    Ok(found)
}
