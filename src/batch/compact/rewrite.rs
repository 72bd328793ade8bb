//! Batches made of others: with fewer records, with a delete horizon, or with none.
//!
//! The header keeps base offset, last offset, leader epoch, producer, epoch and sequence, so whoever reads the batch
//! sees the same places in the log.

use bytes::BytesMut;

use crate::base::checksum::crc32c;
use crate::batch::compression::compress;
use crate::batch::header::{DELETE_HORIZON_BIT, LENGTH_PREFIX_BYTES};
use crate::batch::{HEAD_BYTES, HEADER_BYTES, RecordsError, StoredBatch, TimestampType};

use super::record::Records;

/// Bits of the attributes that a batch without records keeps: time type, transactional, control.
const EMPTY_ATTRIBUTES: i16 = 0x38;
const NO_TIMESTAMP: i64 = -1;

/// Header fields that change.
struct Changed {
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
}

/// The batch with those records that `keep` has a true for, in their order. `new_horizon` becomes its delete horizon.
pub(super) fn with_kept(
    batch: &StoredBatch,
    unpacked: &[u8],
    keep: &[bool],
    new_horizon: Option<i64>,
) -> Result<StoredBatch, RecordsError> {
    let header = batch.header();
    let by_producer = header.timestamp_type() == TimestampType::CreateTime;
    let mut plain = Vec::with_capacity(unpacked.len());
    let (mut record_count, mut latest) = (0i32, None);
    for (record, _) in Records::new(batch, unpacked).zip(keep).filter(|(_, keep)| **keep) {
        let record = record.map_err(RecordsError::Broken)?;
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        latest = latest.max(Some(timestamp));
        record_count = record_count.saturating_add(1);
        match new_horizon {
            // Times count from the horizon now. Under LogAppendTime nobody reads the deltas.
            Some(horizon) if by_producer => {
                let delta = timestamp.wrapping_sub(horizon);
                let length = 1 + varint_bytes(delta) + record.rest.len();
                put_varint(&mut plain, length as i64);
                plain.push(record.attributes);
                put_varint(&mut plain, delta);
                plain.extend_from_slice(record.rest);
            }
            _ => plain.extend_from_slice(record.whole),
        }
    }
    let codec = header.compression().ok_or(RecordsError::Broken("unknown codec"))?;
    let packed = compress(codec, None, &plain)?;
    let horizon_bit = if new_horizon.is_some() { DELETE_HORIZON_BIT } else { 0 };
    let changed = Changed {
        attributes: header.attributes | horizon_bit,
        base_timestamp: new_horizon.unwrap_or(header.base_timestamp),
        max_timestamp: latest.filter(|_| by_producer).unwrap_or(header.max_timestamp),
        record_count,
    };
    Ok(assemble(batch, &packed, &changed))
}

/// The batch without any record: it keeps its place, its producer and its sequence.
pub(super) fn emptied(batch: &StoredBatch) -> StoredBatch {
    let header = batch.header();
    let changed = Changed {
        attributes: header.attributes & EMPTY_ATTRIBUTES,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: header.max_timestamp,
        record_count: 0,
    };
    assemble(batch, &[], &changed)
}

fn assemble(batch: &StoredBatch, records: &[u8], changed: &Changed) -> StoredBatch {
    const FIXED: usize = HEADER_BYTES - HEAD_BYTES;
    let mut body = BytesMut::with_capacity(FIXED + records.len());
    body.extend_from_slice(&batch.body[..FIXED]);
    body.extend_from_slice(records);
    body[5..7].copy_from_slice(&changed.attributes.to_be_bytes());
    body[11..19].copy_from_slice(&changed.base_timestamp.to_be_bytes());
    body[19..27].copy_from_slice(&changed.max_timestamp.to_be_bytes());
    body[41..45].copy_from_slice(&changed.record_count.to_be_bytes());
    let crc = crc32c(&body[5..]);
    body[1..5].copy_from_slice(&crc.to_be_bytes());
    let mut head = batch.head;
    let length = (HEAD_BYTES + body.len() - LENGTH_PREFIX_BYTES) as i32;
    head[8..12].copy_from_slice(&length.to_be_bytes());
    StoredBatch { head, body: body.freeze() }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    (64 - zigzag(value).leading_zeros() as usize).max(1).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_varint_is_known_before_it_is_written() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), -(1i64.wrapping_shl(shift)).max(i64::MIN + 1)]
            {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_bytes(value), "{value}");
            }
        }
    }
}
