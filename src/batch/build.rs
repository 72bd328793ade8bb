//! Builds record batches (magic 2, KIP-98) of the broker's own: what coordinators write to their topics, and the markers
//! that end transactions.
//!
//! A batch comes out uncompressed, at offset 0 and with leader epoch −1; a partition places it. Its size is bounded
//! while it grows, so that what was built can always be stored.

use bytes::Bytes;

use crate::base::{ProducerId, limits};

use super::StoredBatch;
use super::header::{CONTROL_BIT, HEADER_BYTES, LENGTH_PREFIX_BYTES, NO_SEQUENCE, TRANSACTIONAL_BIT};
use super::stored::{HEAD_BYTES, seal_body};

/// Bytes of a body before its records.
const FIXED_BYTES: usize = HEADER_BYTES - HEAD_BYTES;
/// Most bytes that the lengths and deltas of one record take: six variable-length integers and the attributes.
const RECORD_OVERHEAD_MAX: usize = 6 * 10 + 1;

/// Why a batch cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a batch needs at least one record")]
    Empty,
    #[error("the batch would exceed {} bytes", limits::BATCH_BYTES_MAX)]
    TooLarge,
}

/// What a batch's header says of its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    /// −1 without a sequence, as what coordinators write on behalf of a producer.
    pub base_sequence: i32,
    pub transactional: bool,
    pub control: bool,
}

impl Writer {
    /// No producer: not idempotent, in no transaction.
    pub const PLAIN: Writer = Writer {
        producer_id: ProducerId::NONE,
        producer_epoch: -1,
        base_sequence: NO_SEQUENCE,
        transactional: false,
        control: false,
    };

    /// A coordinator that writes in the transaction of a producer (TxnOffsetCommit).
    pub fn in_transaction(producer_id: ProducerId, producer_epoch: i16) -> Writer {
        Writer { producer_id, producer_epoch, transactional: true, ..Writer::PLAIN }
    }
}

/// Collects the records of one batch; see the module.
#[derive(Debug)]
pub struct BatchBuilder {
    writer: Writer,
    /// The body from its first byte on; the fixed fields are filled in at the end.
    body: Vec<u8>,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

impl BatchBuilder {
    pub fn new(writer: Writer) -> BatchBuilder {
        BatchBuilder { writer, body: vec![0; FIXED_BYTES], base_timestamp: -1, max_timestamp: -1, count: 0 }
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the whole batch so far.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    /// Adds a record without headers. `timestamp` is in Unix ms. After an error nothing was added.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Result<(), BuildError> {
        let payload = key.map_or(0, <[u8]>::len).saturating_add(value.map_or(0, <[u8]>::len));
        if self.bytes().saturating_add(payload).saturating_add(RECORD_OVERHEAD_MAX) > limits::BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge);
        }
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (timestamp, timestamp);
        }
        let deltas = (timestamp.wrapping_sub(self.base_timestamp), self.count as i64);
        let length = 1
            + varint_bytes(deltas.0)
            + varint_bytes(deltas.1)
            + field_bytes(key)
            + field_bytes(value)
            + varint_bytes(0);
        put_varint(&mut self.body, length as i64);
        self.body.push(0);
        put_varint(&mut self.body, deltas.0);
        put_varint(&mut self.body, deltas.1);
        put_field(&mut self.body, key);
        put_field(&mut self.body, value);
        put_varint(&mut self.body, 0);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        Ok(())
    }

    pub fn finish(mut self) -> Result<StoredBatch, BuildError> {
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let mut attributes = 0;
        if self.writer.transactional {
            attributes |= TRANSACTIONAL_BIT;
        }
        if self.writer.control {
            attributes |= CONTROL_BIT;
        }
        let mut fixed = Vec::with_capacity(FIXED_BYTES);
        // Magic, then the place of the CRC.
        fixed.extend_from_slice(&[2, 0, 0, 0, 0]);
        fixed.extend_from_slice(&attributes.to_be_bytes());
        fixed.extend_from_slice(&(self.count - 1).to_be_bytes());
        fixed.extend_from_slice(&self.base_timestamp.to_be_bytes());
        fixed.extend_from_slice(&self.max_timestamp.to_be_bytes());
        fixed.extend_from_slice(&self.writer.producer_id.0.to_be_bytes());
        fixed.extend_from_slice(&self.writer.producer_epoch.to_be_bytes());
        fixed.extend_from_slice(&self.writer.base_sequence.to_be_bytes());
        fixed.extend_from_slice(&self.count.to_be_bytes());
        self.body[..FIXED_BYTES].copy_from_slice(&fixed);
        seal_body(&mut self.body);
        let mut head = [0; HEAD_BYTES];
        let length = (HEAD_BYTES + self.body.len() - LENGTH_PREFIX_BYTES) as i32;
        head[8..12].copy_from_slice(&length.to_be_bytes());
        head[12..].copy_from_slice(&(-1i32).to_be_bytes());
        Ok(StoredBatch { head, body: Bytes::from(self.body) })
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    (64 - zigzag(value).leading_zeros() as usize).div_ceil(7).max(1)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of a key or a value with its length.
fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(varint_bytes(-1), |bytes| varint_bytes(bytes.len() as i64) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{check_produced, sample};

    #[test]
    fn a_built_batch_is_what_a_producer_would_have_sent() {
        let mut builder = BatchBuilder::new(Writer::PLAIN);
        for i in 0..5 {
            builder.push(None, Some(format!("v{i}").as_bytes()), 100 + i).expect("small");
        }
        assert_eq!(builder.count(), 5);
        let bytes = builder.bytes();
        let batch = builder.finish().expect("not empty");
        assert_eq!((batch.len(), &batch.body), (bytes, &sample::batch(5, 100).body));
        assert!(check_produced(batch.to_contiguous()).is_ok());
    }

    #[test]
    fn the_header_names_the_writer() {
        let mut builder = BatchBuilder::new(Writer::in_transaction(ProducerId(7), 3));
        builder.push(Some(b"k"), None, 50).expect("small");
        builder.push(Some(b"k"), Some(b""), 40).expect("small");
        let header = builder.finish().expect("not empty").header();
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(7), 3));
        assert_eq!((header.base_sequence, header.last_sequence()), (-1, -1), "no sequence at all");
        assert!(header.is_transactional() && !header.is_control());
        assert_eq!((header.base_timestamp, header.max_timestamp, header.leader_epoch.0), (50, 50, -1));
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(BatchBuilder::new(Writer::PLAIN).finish().err(), Some(BuildError::Empty));
        let mut builder = BatchBuilder::new(Writer::PLAIN);
        let half = vec![0; limits::BATCH_BYTES_MAX / 2];
        builder.push(None, Some(&half), 0).expect("fits");
        assert_eq!(builder.push(None, Some(&half), 0), Err(BuildError::TooLarge));
        assert_eq!(builder.count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_records_make_a_batch_that_passes_every_check(
            records in proptest::collection::vec(
                (proptest::option::of(proptest::collection::vec(0u8..255, 0..200)),
                 proptest::option::of(proptest::collection::vec(0u8..255, 0..200)), 0i64..1 << 45), 1..40),
        ) {
            let mut builder = BatchBuilder::new(Writer::PLAIN);
            for (key, value, timestamp) in &records {
                builder.push(key.as_deref(), value.as_deref(), *timestamp).expect("small");
            }
            let (header, batch) = check_produced(builder.finish().expect("not empty").to_contiguous()).expect("valid");
            assert_eq!(header.record_count as usize, records.len());
            assert_eq!(header.max_timestamp, records.iter().map(|r| r.2).max().expect("some"));
            let found = crate::batch::with_max_timestamp(&batch).expect("readable").expect("some");
            assert_eq!(found.timestamp, header.max_timestamp);
        }
    }
}
