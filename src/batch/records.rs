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
pub(super) fn varint(bytes: &mut &[u8]) -> Result<i64, &'static str> {
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
pub(super) fn next_record<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = varint(bytes)?;
    let length = usize::try_from(length).map_err(|_| "a record has a negative length")?;
    if length > bytes.len() {
        return Err("a record is longer than the batch");
    }
    let (record, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(record)
}

/// Whether uncompressed records are exactly `count`, fill their space, and each is whole to its last header: what Kafka
/// refuses as invalid records. On the way of every produced batch, so nothing is allocated or looked at twice.
pub(super) fn walk_uncompressed(mut bytes: &[u8], count: i32) -> Result<(), &'static str> {
    for offset_delta in 0..count {
        let length = usize::try_from(varint32(&mut bytes)?).map_err(|_| "a record has a negative length")?;
        let (record, rest) = bytes.split_at_checked(length).ok_or("a record is longer than the batch")?;
        check_record(record, offset_delta)?;
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { Err("bytes are left over after the last record") }
}

/// Whether a record's fields are in place and fill it: attributes, time, the expected offset, key, value, headers.
fn check_record(mut record: &[u8], offset_delta: i32) -> Result<(), &'static str> {
    skip(&mut record, 1).ok_or("a record is empty")?;
    varint(&mut record)?;
    if varint32(&mut record)? != offset_delta {
        return Err("the offsets of the records do not count up from 0");
    }
    skip_nullable(&mut record).map_err(|e| e.unwrap_or("a key is longer than its record"))?;
    skip_nullable(&mut record).map_err(|e| e.unwrap_or("a value is longer than its record"))?;
    let headers = varint32(&mut record)?;
    if headers < 0 {
        return Err("a record has a negative number of headers");
    }
    // Every header takes bytes or ends the walk, so the claimed number is no work by itself.
    for _ in 0..headers {
        let key = usize::try_from(varint32(&mut record)?).map_err(|_| "a header has no key")?;
        skip(&mut record, key).ok_or("a header's key is longer than its record")?;
        skip_nullable(&mut record).map_err(|e| e.unwrap_or("a header's value is longer than its record"))?;
    }
    if record.is_empty() { Ok(()) } else { Err("a record is longer than its fields") }
}

fn skip(bytes: &mut &[u8], count: usize) -> Option<()> {
    *bytes = bytes.get(count..)?;
    Some(())
}

/// Skips bytes with their length in front; any negative length is null, as in Kafka. `Err(None)`: some are missing.
fn skip_nullable(bytes: &mut &[u8]) -> Result<(), Option<&'static str>> {
    match usize::try_from(varint32(bytes)?) {
        Ok(length) => skip(bytes, length).ok_or(None),
        Err(_) => Ok(()),
    }
}

/// Reads a zigzag variable-length integer of 32 bits, which has at most five bytes.
fn varint32(bytes: &mut &[u8]) -> Result<i32, &'static str> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a varint is cut off")?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err("a varint is too long")
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

    /// A record of these fields, its length in front.
    fn record(fields: &[&[u8]]) -> Vec<u8> {
        let fields = fields.concat();
        let mut bytes = vec![];
        sample::varint(&mut bytes, fields.len() as i64);
        [bytes, fields].concat()
    }

    fn int(value: i64) -> Vec<u8> {
        let mut bytes = vec![];
        sample::varint(&mut bytes, value);
        bytes
    }

    /// A record with offset 0, no key and the value `v`, up to its headers, which the rest of the fields are.
    fn with_headers(fields: &[&[u8]]) -> Vec<u8> {
        record(&[&[0], &int(0), &int(0), &int(-1), &int(1), b"v", &fields.concat()])
    }

    #[test]
    fn whole_records_pass() {
        let minimal = |offset: i64| record(&[&[0], &int(0), &int(offset), &int(-1), &int(-1), &int(0)]);
        for (what, count, records) in [
            ("nothing in it", 1, minimal(0)),
            ("three", 3, [minimal(0), minimal(1), minimal(2)].concat()),
            ("more than a byte of offset", 70, (0..70).flat_map(minimal).collect()),
            ("an old time", 1, record(&[&[0], &int(i64::MIN), &int(0), &int(0), &int(0), &int(0)])),
            ("any negative length is null", 1, record(&[&[0], &int(0), &int(0), &int(-7), &int(-7), &int(0)])),
            ("headers", 1, with_headers(&[&int(2), &int(1), b"k", &int(1), b"v", &int(0), &int(-1)])),
            (
                "a length in more bytes than it needs",
                1,
                record(&[&[0], &[0x80, 0], &int(0), &int(0), &int(0), &int(0)]),
            ),
        ] {
            assert_eq!(walk_uncompressed(&records, count), Ok(()), "{what}");
        }
    }

    #[test]
    fn a_record_that_is_not_whole_is_refused() {
        let keyed = |key: &[u8], value: &[u8]| record(&[&[0], &int(0), &int(0), key, value, &int(0)]);
        let at = |offset: i64| record(&[&[0], &int(0), &int(offset), &int(-1), &int(-1), &int(0)]);
        let long = [0x80; 10];
        for (what, count, records, part) in [
            ("an empty one", 1, vec![0], "empty"),
            ("a negative length", 1, int(-1), "negative length"),
            ("longer than the batch", 1, int(3), "longer than the batch"),
            ("one too few", 2, at(0), "cut off"),
            ("one too many", 1, [at(0), at(1)].concat(), "left over"),
            ("offsets from 1", 1, at(1), "count up"),
            ("an offset twice", 2, [at(0), at(0)].concat(), "count up"),
            ("a gap", 2, [at(0), at(2)].concat(), "count up"),
            ("backwards", 2, [at(0), at(-1)].concat(), "count up"),
            ("the end after the time", 1, record(&[&[0], &int(0)]), "cut off"),
            ("a key beyond it", 1, keyed(&int(5), b""), "a key is longer"),
            ("a key of 2 GiB", 1, keyed(&int(i32::MAX as i64), b""), "a key is longer"),
            ("a value beyond it", 1, keyed(&int(-1), &int(9)), "a value is longer"),
            ("no number of headers", 1, record(&[&[0], &int(0), &int(0), &int(-1), &int(-1)]), "cut off"),
            ("a negative number of headers", 1, with_headers(&[&int(-1)]), "negative number of headers"),
            ("headers that are not there", 1, with_headers(&[&int(i32::MAX as i64)]), "cut off"),
            ("a null header key", 1, with_headers(&[&int(1), &int(-1), &int(-1)]), "no key"),
            ("a header key beyond it", 1, with_headers(&[&int(1), &int(2), b"k"]), "header's key is longer"),
            ("a header without a value", 1, with_headers(&[&int(1), &int(1), b"k"]), "cut off"),
            ("a header value beyond it", 1, with_headers(&[&int(1), &int(1), b"k", &int(2), b"v"]), "value is longer"),
            ("bytes after the headers", 1, with_headers(&[&int(0), b"x"]), "longer than its fields"),
            ("a length without end", 1, with_headers(&[&long]), "too long"),
            ("a time without end", 1, record(&[&[0], &long]), "too long"),
        ] {
            let error = walk_uncompressed(&records, count).expect_err(what);
            assert!(error.contains(part), "{what}: {error}");
        }
    }
}
