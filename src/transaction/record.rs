//! Records of `__transaction_state`: `TransactionLogKey` version 0, `TransactionLogValue` versions 0 and 1.
//!
//! Version 1 is flexible: compact lengths, and tagged fields for what KIP-890 added. Tags that this release does not
//! know are skipped, as KIP-915 wants. Decoding checks every length against the bytes that are there.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};

use super::state::{State, Transaction, TransactionVersion};
use super::{Partitions, Producer};

const KEY_VERSION: i16 = 0;
const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_VERSION: u32 = 2;

/// Why a record cannot be taken. Kafka logs unknown versions and goes on; the rest is damage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the key has the unknown version {0}")]
    KeyVersion(i16),
    #[error("the value has the unknown version {0}")]
    ValueVersion(i16),
    #[error("no coordinator records the state {0}")]
    State(u8),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

pub(super) fn encode_key(transactional_id: &str) -> Bytes {
    let mut w = Writer::new();
    w.i16(KEY_VERSION);
    string(&mut w, transactional_id);
    w.finish()
}

pub(super) fn decode_key(key: &[u8]) -> Result<String, RecordError> {
    let mut r = Reader::new(key);
    match r.i16()? {
        KEY_VERSION => {}
        other => return Err(RecordError::KeyVersion(other)),
    }
    let length = length(r.i16()?.into(), "transactional id")?;
    let id = text(r.raw(length)?, "transactional id")?.to_owned();
    r.finish()?;
    Ok(id)
}

/// The value in the format of the finalized transaction version.
pub(super) fn encode_value(t: &Transaction, version: TransactionVersion) -> Bytes {
    let flexible = version >= TransactionVersion::V1;
    let mut w = Writer::new();
    w.i16(flexible.into());
    w.i64(t.producer.id).i16(t.producer.epoch).i32(t.timeout_ms).u8(t.state.id());
    if t.state == State::Empty {
        null_array(&mut w, flexible);
    } else {
        array(&mut w, t.partitions.by_topic().len(), flexible);
        for (topic, indexes) in t.partitions.by_topic() {
            match flexible {
                true => compact_string(&mut w, topic),
                false => string(&mut w, topic),
            }
            array(&mut w, indexes.len(), flexible);
            indexes.iter().for_each(|index| {
                w.i32(*index);
            });
            if flexible {
                varint(&mut w, 0);
            }
        }
    }
    w.i64(t.update_ms).i64(t.start_ms);
    if flexible {
        tags(&mut w, t);
    }
    w.finish()
}

fn tags(w: &mut Writer, t: &Transaction) {
    let ids = [(TAG_PREVIOUS_PRODUCER_ID, t.previous_producer_id), (TAG_NEXT_PRODUCER_ID, t.next_producer_id)];
    let ids = ids.into_iter().filter_map(|(tag, id)| id.map(|id| (tag, id)));
    let client = t.client_version.level();
    varint(w, ids.clone().count() as u32 + u32::from(client != 0));
    for (tag, id) in ids {
        varint(w, tag);
        varint(w, 8);
        w.i64(id);
    }
    if client != 0 {
        varint(w, TAG_CLIENT_VERSION);
        varint(w, 2);
        w.i16(client);
    }
}

pub(super) fn decode_value(value: &[u8]) -> Result<Transaction, RecordError> {
    let mut r = Reader::new(value);
    let flexible = match r.i16()? {
        0 => false,
        1 => true,
        other => return Err(RecordError::ValueVersion(other)),
    };
    let producer = Producer { id: r.i64()?, epoch: r.i16()? };
    let timeout_ms = r.i32()?;
    let state = r.u8()?;
    let state = match State::from_id(state) {
        None | Some(State::Dead | State::PrepareEpochFence) => return Err(RecordError::State(state)),
        Some(state) => state,
    };
    let partitions = decode_partitions(&mut r, flexible)?;
    let mut t = Transaction {
        producer,
        previous_producer_id: None,
        next_producer_id: None,
        last_epoch: None,
        timeout_ms,
        partitions: if state == State::Empty { Partitions::default() } else { partitions },
        state,
        update_ms: r.i64()?,
        start_ms: r.i64()?,
        client_version: TransactionVersion::V0,
    };
    if flexible {
        decode_tags(&mut r, |tag, bytes| {
            let mut field = Reader::new(bytes);
            match tag {
                TAG_PREVIOUS_PRODUCER_ID => t.previous_producer_id = producer_id(&mut field)?,
                TAG_NEXT_PRODUCER_ID => t.next_producer_id = producer_id(&mut field)?,
                TAG_CLIENT_VERSION => t.client_version = client_version(&mut field)?,
                _ => return Ok(()),
            }
            field.finish()
        })?;
    }
    r.finish()?;
    Ok(t)
}

fn producer_id(field: &mut Reader<'_>) -> Result<Option<i64>, DecodeError> {
    let id = field.i64()?;
    Ok((id >= 0).then_some(id))
}

fn client_version(field: &mut Reader<'_>) -> Result<TransactionVersion, DecodeError> {
    let level = field.i16()?;
    TransactionVersion::from_level(level)
        .ok_or(DecodeError::Invalid { field: "client transaction version", value: level as u64 })
}

fn decode_partitions(r: &mut Reader<'_>, flexible: bool) -> Result<Partitions, DecodeError> {
    let mut set = Partitions::default();
    for _ in 0..element_count(r, flexible, "topics", 2)? {
        let length = match flexible {
            true => length(i64::from(read_varint(r)?) - 1, "topic")?,
            false => length(r.i16()?.into(), "topic")?,
        };
        let topic = text(r.raw(length)?, "topic")?.into();
        for _ in 0..element_count(r, flexible, "partitions", 4)? {
            set.insert(&(std::sync::Arc::clone(&topic), r.i32()?));
        }
        if flexible {
            decode_tags(r, |_, _| Ok(()))?;
        }
    }
    Ok(set)
}

/// Calls `field` with each tag and its bytes.
fn decode_tags<'a>(
    r: &mut Reader<'a>,
    mut field: impl FnMut(u32, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for _ in 0..read_varint(r)? {
        let tag = read_varint(r)?;
        let size = read_varint(r)? as usize;
        field(tag, r.raw(size)?)?;
    }
    Ok(())
}

/// The number of elements of an array, 0 for a null one; refused when that many cannot be left.
fn element_count(
    r: &mut Reader<'_>,
    flexible: bool,
    field: &'static str,
    element_bytes: usize,
) -> Result<usize, DecodeError> {
    let count = match flexible {
        true => i64::from(read_varint(r)?) - 1,
        false => r.i32()?.into(),
    };
    if count == -1 {
        return Ok(0);
    }
    let count = length(count, field)?;
    let needed = count.saturating_mul(element_bytes);
    if needed > r.left() {
        return Err(DecodeError::Truncated { needed, left: r.left() });
    }
    Ok(count)
}

fn length(length: i64, field: &'static str) -> Result<usize, DecodeError> {
    usize::try_from(length).map_err(|_| DecodeError::Invalid { field, value: length as u64 })
}

fn text<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8(field))
}

/// A string of at most 32,767 bytes: requests with longer ones are refused before they come here.
fn string(w: &mut Writer, text: &str) {
    w.i16(i16::try_from(text.len()).unwrap_or(i16::MAX)).raw(&text.as_bytes()[..text.len().min(i16::MAX as usize)]);
}

fn compact_string(w: &mut Writer, text: &str) {
    varint(w, text.len() as u32 + 1);
    w.raw(text.as_bytes());
}

fn null_array(w: &mut Writer, flexible: bool) {
    match flexible {
        true => varint(w, 0),
        false => {
            w.i32(-1);
        }
    }
}

fn array(w: &mut Writer, elements: usize, flexible: bool) {
    match flexible {
        true => varint(w, elements as u32 + 1),
        false => {
            w.i32(elements as i32);
        }
    }
}

/// Seven bits to a byte, the lowest first; the top bit says that more follow.
fn varint(w: &mut Writer, mut value: u32) {
    while value >= 0x80 {
        w.u8(value as u8 | 0x80);
        value >>= 7;
    }
    w.u8(value as u8);
}

fn read_varint(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = r.u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(value).map_err(|_| DecodeError::Invalid { field: "varint", value });
        }
    }
    Err(DecodeError::Invalid { field: "varint", value })
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
