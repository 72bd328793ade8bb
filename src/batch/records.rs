//! Records inside a batch: walked by their lengths, opened only to look up a time.

use crate::base::{Offset, limits};

use super::compression::{CompressionError, decompress};
use super::{StoredBatch, TimestampType};

/// Why the records of a stored batch cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    #[error("record fields are broken: {0}")]
    Broken(&'static str),
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A record's place and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Reads a zigzag variable-length integer of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Result<i64, &'static str> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a varint is cut off")?;
        *bytes = rest;
        value |= ((byte & 0x7f) as u64).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a varint is too long")
}

/// Takes the next record's bytes off the front.
fn next_record<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = varint(bytes)?;
    let length = usize::try_from(length).map_err(|_| "a record has a negative length")?;
    if length > bytes.len() {
        return Err("a record is longer than the batch");
    }
    let (record, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(record)
}

/// Whether uncompressed records are exactly `count` and fill their space.
pub(super) fn walk_uncompressed(mut bytes: &[u8], count: i32) -> Result<(), &'static str> {
    for _ in 0..count {
        next_record(&mut bytes)?;
    }
    if bytes.is_empty() { Ok(()) } else { Err("bytes are left over after the last record") }
}

/// Calls `visit` with each record's offset and time until it answers `false`.
fn each_record(batch: &StoredBatch, mut visit: impl FnMut(TimestampedOffset) -> bool) -> Result<(), RecordsError> {
    let header = batch.header();
    let codec = header.compression().ok_or(RecordsError::Broken("unknown codec"))?;
    let unpacked = decompress(codec, batch.records(), limits::DECOMPRESSED_BYTES_MAX)?;
    let mut bytes = &unpacked[..];
    for _ in 0..header.record_count {
        let mut record = next_record(&mut bytes).map_err(RecordsError::Broken)?;
        let after_attributes = record.get(1..).ok_or(RecordsError::Broken("a record is empty"))?;
        record = after_attributes;
        let timestamp_delta = varint(&mut record).map_err(RecordsError::Broken)?;
        let offset_delta = varint(&mut record).map_err(RecordsError::Broken)?;
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.saturating_add(timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        if !visit(TimestampedOffset { offset: header.base_offset.plus(offset_delta), timestamp }) {
            break;
        }
    }
    Ok(())
}

/// The first record at or after `offset` whose time is at least `timestamp` (ListOffsets by time).
pub fn first_at_or_after(
    batch: &StoredBatch,
    offset: Offset,
    timestamp: i64,
) -> Result<Option<TimestampedOffset>, RecordsError> {
    let mut found = None;
    each_record(batch, |record| {
        if record.offset >= offset && record.timestamp >= timestamp {
            found = Some(record);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The first record that has the batch's largest time (ListOffsets −3, KIP-734).
pub fn with_max_timestamp(batch: &StoredBatch) -> Result<Option<TimestampedOffset>, RecordsError> {
    let mut best: Option<TimestampedOffset> = None;
    each_record(batch, |record| {
        if best.is_none_or(|b| record.timestamp > b.timestamp) {
            best = Some(record);
        }
        true
    })?;
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::LeaderEpoch;
    use crate::batch::{Compression, compression, sample};

    #[test]
    fn time_finds_the_record_in_every_codec() {
        let mut plain = sample::batch(10, 1_000);
        plain.place(Offset(50), LeaderEpoch(0));
        for codec in Compression::ALL {
            let batch = compression::recompress(&plain, codec, None).expect("recompress");
            let found = first_at_or_after(&batch, Offset(0), 1_004).expect("read");
            assert_eq!(found, Some(TimestampedOffset { offset: Offset(54), timestamp: 1_004 }), "{codec:?}");
            assert_eq!(first_at_or_after(&batch, Offset(0), 1_010), Ok(None));
            let max = with_max_timestamp(&batch).expect("read");
            assert_eq!(max, Some(TimestampedOffset { offset: Offset(59), timestamp: 1_009 }));
        }
    }

    #[test]
    fn log_append_time_holds_for_each_record() {
        let mut batch = sample::batch(3, 1_000);
        batch.set_log_append_time(9_000);
        let found = first_at_or_after(&batch, Offset(0), 5_000).expect("read");
        assert_eq!(found, Some(TimestampedOffset { offset: Offset(0), timestamp: 9_000 }));
    }
}
