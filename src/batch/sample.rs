//! Batches for tests, built as a producer builds them.

use bytes::Bytes;

use crate::base::checksum::crc32c;

use super::StoredBatch;

/// A batch of `count` records with null keys, values `v0 v1 …` and timestamps from `timestamp` on.
pub fn batch(count: i32, timestamp: i64) -> StoredBatch {
    produced(count, timestamp, -1, -1, -1)
}

/// As [`batch`], from an idempotent producer.
pub fn produced(count: i32, timestamp: i64, producer: i64, epoch: i16, sequence: i32) -> StoredBatch {
    let mut records = Vec::new();
    for i in 0..count {
        let value = format!("v{i}");
        let mut record = vec![0u8];
        varint(&mut record, i as i64);
        varint(&mut record, i as i64);
        varint(&mut record, -1);
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value.as_bytes());
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    let mut body = vec![2u8, 0, 0, 0, 0];
    body.extend_from_slice(&0i16.to_be_bytes());
    body.extend_from_slice(&(count - 1).to_be_bytes());
    body.extend_from_slice(&timestamp.to_be_bytes());
    body.extend_from_slice(&(timestamp + count as i64 - 1).to_be_bytes());
    body.extend_from_slice(&producer.to_be_bytes());
    body.extend_from_slice(&epoch.to_be_bytes());
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(&records);
    let crc = crc32c(&body[5..]);
    body[1..5].copy_from_slice(&crc.to_be_bytes());
    let mut head = [0; 16];
    head[8..12].copy_from_slice(&((body.len() + 4) as i32).to_be_bytes());
    StoredBatch { head, body: Bytes::from(body) }
}

/// Zigzag variable-length encoding, as records use it.
pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut v = ((value << 1) ^ (value >> 63)) as u64;
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}
