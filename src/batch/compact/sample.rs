//! Batches with keys, for tests, built and read without the code under test.

use bytes::Bytes;

use crate::base::checksum::crc32c;
use crate::base::{LeaderEpoch, Offset};
use crate::batch::compression::{Compression, decompress, recompress};
use crate::batch::{StoredBatch, TimestampType, sample::varint};

/// Key and value; a header of three bytes comes with each record.
pub type Pair<'a> = (Option<&'a str>, Option<&'a str>);

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<u8>,
}

#[derive(Clone, Copy)]
pub struct Origin {
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub transactional: bool,
}

pub const NOBODY: Origin = Origin { producer: -1, epoch: -1, sequence: -1, transactional: false };

/// A batch at `base` whose records have the times `1000 + offset`.
pub fn batch(base: i64, pairs: &[Pair<'_>], origin: Origin, codec: Compression) -> StoredBatch {
    let mut records = Vec::new();
    for (delta, (key, value)) in (0i64..).zip(pairs) {
        let mut body = vec![0u8];
        varint(&mut body, delta);
        varint(&mut body, delta);
        for field in [key, value] {
            varint(&mut body, field.map_or(-1, |text| text.len() as i64));
            body.extend_from_slice(field.unwrap_or_default().as_bytes());
        }
        varint(&mut body, 1);
        for text in ["h", "x"] {
            varint(&mut body, text.len() as i64);
            body.extend_from_slice(text.as_bytes());
        }
        varint(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
    }
    let attributes = if origin.transactional { 0x10 } else { 0 };
    let plain = assemble(base, &records, pairs.len() as i32, attributes, 1_000 + base, origin);
    recompress(&plain, codec, None).expect("it can be packed")
}

/// A transaction marker.
pub fn marker(base: i64, producer: i64, epoch: i16, commit: bool) -> StoredBatch {
    let mut body = vec![0u8, 0, 0];
    varint(&mut body, 4);
    body.extend_from_slice(&[0, 0, 0, u8::from(commit)]);
    varint(&mut body, 6);
    body.extend_from_slice(&[0, 0, 0, 0, 0, 7]);
    varint(&mut body, 0);
    let mut records = Vec::new();
    varint(&mut records, body.len() as i64);
    records.extend_from_slice(&body);
    let origin = Origin { producer, epoch, sequence: -1, transactional: true };
    assemble(base, &records, 1, 0x30, 1_000 + base, origin)
}

fn assemble(base: i64, records: &[u8], count: i32, attributes: i16, time: i64, origin: Origin) -> StoredBatch {
    let mut body = vec![2u8, 0, 0, 0, 0];
    body.extend_from_slice(&attributes.to_be_bytes());
    body.extend_from_slice(&(count - 1).to_be_bytes());
    body.extend_from_slice(&time.to_be_bytes());
    body.extend_from_slice(&(time + count as i64 - 1).to_be_bytes());
    body.extend_from_slice(&origin.producer.to_be_bytes());
    body.extend_from_slice(&origin.epoch.to_be_bytes());
    body.extend_from_slice(&origin.sequence.to_be_bytes());
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(records);
    let crc = crc32c(&body[5..]);
    body[1..5].copy_from_slice(&crc.to_be_bytes());
    let mut head = [0; 16];
    head[8..12].copy_from_slice(&((body.len() + 4) as i32).to_be_bytes());
    let mut batch = StoredBatch { head, body: Bytes::from(body) };
    batch.place(Offset(base), LeaderEpoch(3));
    batch
}

/// The records of a batch, as a client decodes them.
pub fn seen(batch: &StoredBatch) -> Vec<Seen> {
    let header = batch.header();
    assert!(batch.crc_matches());
    let unpacked = match header.record_count {
        0 => Default::default(),
        _ => decompress(header.compression().expect("known"), batch.records(), 1 << 20).expect("it unpacks"),
    };
    let mut rest = &unpacked[..];
    let mut out = Vec::new();
    for _ in 0..header.record_count {
        let length = number(&mut rest) as usize;
        let (mut body, after) = rest.split_at(length);
        rest = after;
        body = &body[1..];
        let timestamp = header.base_timestamp + number(&mut body);
        let offset = header.base_offset.0 + number(&mut body);
        let (key, value) = (text(&mut body), text(&mut body));
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => timestamp,
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        out.push(Seen { offset, timestamp, key, value, headers: body.to_vec() });
    }
    assert!(rest.is_empty());
    out
}

fn number(bytes: &mut &[u8]) -> i64 {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(number(bytes)).ok()?;
    let (text, rest) = bytes.split_at(length);
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}
