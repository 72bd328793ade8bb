//! Record batches of format 2 as bytes, written and read by the tests' own code, so that a mistake of the broker's
//! codec cannot hide itself.
//!
//! Uncompressed only; never used by the product.

use crc_fast::CrcAlgorithm;

/// Producer identity of an idempotent batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

pub const NO_PRODUCER: Producer = Producer { id: -1, epoch: -1 };

/// A record as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// A decoded batch header with its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub base_offset: i64,
    pub last_offset: i64,
    pub leader_epoch: i32,
    pub attributes: i16,
    pub producer: Producer,
    pub base_sequence: i32,
    pub records: Vec<Record>,
}

/// Encodes values (without keys) as one batch; the broker assigns the offsets.
pub fn encode(values: &[Vec<u8>], producer: Producer, base_sequence: i32, timestamp: i64) -> Vec<u8> {
    let mut records = Vec::new();
    for (delta, value) in values.iter().enumerate() {
        let mut body = vec![0]; // attributes
        varint(&mut body, 0); // timestamp delta
        varint(&mut body, delta as i64);
        varint(&mut body, -1); // no key
        varint(&mut body, value.len() as i64);
        body.extend_from_slice(value);
        varint(&mut body, 0); // no headers
        varint(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
    }
    encode_body(&records, values.len() as i32, 0, producer, base_sequence, timestamp)
}

/// As `encode`, in a transaction of the producer.
pub fn transactional(values: &[Vec<u8>], producer: Producer, base_sequence: i32, timestamp: i64) -> Vec<u8> {
    let plain = encode(values, producer, base_sequence, timestamp);
    encode_body(&plain[61..], values.len() as i32, 0x10, producer, base_sequence, timestamp)
}

/// Puts a header before already encoded (perhaps compressed, perhaps wrong) records.
pub fn encode_body(
    records: &[u8],
    count: i32,
    attributes: i16,
    producer: Producer,
    base_sequence: i32,
    timestamp: i64,
) -> Vec<u8> {
    let mut covered = Vec::with_capacity(records.len() + 40); // what the checksum covers
    covered.extend_from_slice(&attributes.to_be_bytes());
    covered.extend_from_slice(&(count - 1).to_be_bytes());
    covered.extend_from_slice(&timestamp.to_be_bytes());
    covered.extend_from_slice(&timestamp.to_be_bytes());
    covered.extend_from_slice(&producer.id.to_be_bytes());
    covered.extend_from_slice(&producer.epoch.to_be_bytes());
    covered.extend_from_slice(&base_sequence.to_be_bytes());
    covered.extend_from_slice(&count.to_be_bytes());
    covered.extend_from_slice(records);
    let mut batch = Vec::with_capacity(covered.len() + 21);
    batch.extend_from_slice(&0i64.to_be_bytes()); // base offset
    batch.extend_from_slice(&(covered.len() as i32 + 9).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes()); // leader epoch
    batch.push(2); // magic
    batch.extend_from_slice(&crc32c(&covered).to_be_bytes());
    batch.extend_from_slice(&covered);
    batch
}

/// Decodes the whole batches of a fetch response; a partial one at its end is left out, as clients do.
/// Errs with what is wrong: a bad checksum, a format other than 2, records that do not add up.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<Batch>, String> {
    let mut batches = vec![];
    while bytes.len() >= 12 {
        let length = 12 + i32::from_be_bytes(take(bytes, 8)) as usize;
        if bytes.len() < length {
            break;
        }
        batches.push(decode_one(&bytes[..length])?);
        bytes = &bytes[length..];
    }
    Ok(batches)
}

fn decode_one(b: &[u8]) -> Result<Batch, String> {
    let base_offset = i64::from_be_bytes(take(b, 0));
    if b.len() < 61 || b[16] != 2 {
        return Err(format!("offset {base_offset}: not a batch of format 2"));
    }
    if crc32c(&b[21..]) != u32::from_be_bytes(take(b, 17)) {
        return Err(format!("offset {base_offset}: checksum does not match"));
    }
    let attributes = i16::from_be_bytes(take(b, 21));
    let first_timestamp = i64::from_be_bytes(take(b, 27));
    let count = i32::from_be_bytes(take(b, 57));
    let mut records = vec![];
    if attributes & 7 == 0 {
        let mut rest = &b[61..];
        for _ in 0..count {
            let record = decode_record(&mut rest, base_offset, first_timestamp);
            records.push(record.ok_or_else(|| format!("offset {base_offset}: a record ends early"))?);
        }
        if !rest.is_empty() {
            return Err(format!("offset {base_offset}: {} bytes after the last record", rest.len()));
        }
    }
    Ok(Batch {
        base_offset,
        last_offset: base_offset + i64::from(i32::from_be_bytes(take(b, 23))),
        leader_epoch: i32::from_be_bytes(take(b, 12)),
        attributes,
        producer: Producer { id: i64::from_be_bytes(take(b, 43)), epoch: i16::from_be_bytes(take(b, 51)) },
        base_sequence: i32::from_be_bytes(take(b, 53)),
        records,
    })
}

fn decode_record(rest: &mut &[u8], base_offset: i64, first_timestamp: i64) -> Option<Record> {
    let length = usize::try_from(read_varint(rest)?).ok()?;
    let mut body = rest.get(..length)?;
    *rest = &rest[length..];
    body = body.get(1..)?; // attributes
    let timestamp = first_timestamp + read_varint(&mut body)?;
    let offset = base_offset + read_varint(&mut body)?;
    let key = read_bytes(&mut body)?;
    let value = read_bytes(&mut body)?;
    Some(Record { offset, timestamp, key, value })
}

/// Bytes with a length before them; an outer `None` if they end early, an inner one for null.
fn read_bytes(bytes: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let length = read_varint(bytes)?;
    if length < 0 {
        return Some(None);
    }
    let (value, rest) = bytes.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(Some(value.to_vec()))
}

pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut v = ((value << 1) ^ (value >> 63)) as u64;
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller checked the length")
}
