//! A batch on its way through the broker: 16 bytes of its own, the rest shared.

use bytes::{Bytes, BytesMut};

use crate::base::checksum::crc32c;
use crate::base::{LeaderEpoch, Offset};

use super::header::{HEADER_BYTES, Header, HeaderError, LENGTH_PREFIX_BYTES, TIMESTAMP_TYPE_BIT};

/// Bytes of `head`: base offset (8), length (4) and leader epoch (4), none of them under the batch's CRC.
pub const HEAD_BYTES: usize = 16;

/// A whole batch. The head is owned and patched in place; the body is the bytes that arrived from the socket, the
/// WAL or the bucket, reference-counted and never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub head: [u8; HEAD_BYTES],
    pub body: Bytes,
}

impl StoredBatch {
    /// Takes the batch at the front of `bytes`; what follows it is ignored.
    pub fn from_contiguous(bytes: Bytes) -> Result<StoredBatch, HeaderError> {
        let header = Header::parse(&bytes)?;
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes[..HEAD_BYTES]);
        Ok(StoredBatch { head, body: bytes.slice(HEAD_BYTES..header.total_bytes()) })
    }

    /// The header, offsets and epoch as patched.
    pub fn header(&self) -> Header {
        let mut fixed = [0; HEADER_BYTES];
        fixed[..HEAD_BYTES].copy_from_slice(&self.head);
        let body = &self.body[..(HEADER_BYTES - HEAD_BYTES).min(self.body.len())];
        fixed[HEAD_BYTES..HEAD_BYTES + body.len()].copy_from_slice(body);
        Header::from_fixed(&fixed)
    }

    /// Offset of the first record, as patched.
    pub fn base_offset(&self) -> Offset {
        let mut base = [0; 8];
        base.copy_from_slice(&self.head[..8]);
        Offset(i64::from_be_bytes(base))
    }

    /// Bytes of the whole batch.
    pub fn len(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// Places the batch in its partition.
    pub fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.head[..8].copy_from_slice(&base_offset.0.to_be_bytes());
        self.head[12..].copy_from_slice(&leader_epoch.0.to_be_bytes());
    }

    /// The batch in one piece: a copy, for the places that are not on the way of records.
    pub fn to_contiguous(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    /// Marks every record as appended at `now_ms` (`message.timestamp.type=LogAppendTime`). The body is copied,
    /// because the CRC covers the fields that change.
    pub fn set_log_append_time(&mut self, now_ms: i64) {
        let mut body = BytesMut::from(&self.body[..]);
        let attributes = i16::from_be_bytes([body[5], body[6]]) | TIMESTAMP_TYPE_BIT;
        body[5..7].copy_from_slice(&attributes.to_be_bytes());
        body[19..27].copy_from_slice(&now_ms.to_be_bytes());
        seal_body(&mut body);
        self.body = body.freeze();
    }

    /// Whether the CRC in the batch matches its bytes.
    pub fn crc_matches(&self) -> bool {
        self.body.len() >= HEADER_BYTES - HEAD_BYTES && self.body[1..5] == crc32c(&self.body[5..]).to_be_bytes()
    }

    /// A batch made of the same header with other records, for a change of compression.
    pub(super) fn with_records(&self, records: &[u8], attributes: i16) -> StoredBatch {
        const FIXED: usize = HEADER_BYTES - HEAD_BYTES;
        let mut body = BytesMut::with_capacity(FIXED + records.len());
        body.extend_from_slice(&self.body[..FIXED]);
        body.extend_from_slice(records);
        body[5..7].copy_from_slice(&attributes.to_be_bytes());
        seal_body(&mut body);
        let mut head = self.head;
        let length = (HEAD_BYTES + body.len() - LENGTH_PREFIX_BYTES) as i32;
        head[8..12].copy_from_slice(&length.to_be_bytes());
        StoredBatch { head, body: body.freeze() }
    }

    /// The record bytes, compressed as they are.
    pub fn records(&self) -> &[u8] {
        &self.body[HEADER_BYTES - HEAD_BYTES..]
    }
}

/// Writes the CRC of a changed body.
pub(super) fn seal_body(body: &mut [u8]) {
    let crc = crc32c(&body[5..]);
    body[1..5].copy_from_slice(&crc.to_be_bytes());
}

/// Splits bytes that hold whole batches one after another, as the WAL and objects keep them.
pub fn split_batches(mut bytes: Bytes) -> Result<Vec<StoredBatch>, HeaderError> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let batch = StoredBatch::from_contiguous(bytes.clone())?;
        bytes = bytes.slice(batch.len()..);
        out.push(batch);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{TimestampType, sample};

    #[test]
    fn placing_a_batch_keeps_its_crc() {
        let mut batch = sample::batch(3, 1_000);
        assert!(batch.crc_matches());
        batch.place(Offset(77), LeaderEpoch(4));
        let header = batch.header();
        assert_eq!((header.base_offset, header.last_offset(), header.leader_epoch.0), (Offset(77), Offset(79), 4));
        assert!(batch.crc_matches());
        let again = StoredBatch::from_contiguous(batch.to_contiguous());
        assert_eq!(again, Ok(batch));
    }

    #[test]
    fn log_append_time_is_sealed_by_a_new_crc() {
        let mut batch = sample::batch(2, 1_000);
        batch.set_log_append_time(5_000);
        assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.header().max_timestamp, 5_000);
        assert!(batch.crc_matches());
    }

    #[test]
    fn one_changed_bit_breaks_the_crc() {
        let batch = sample::batch(1, 0);
        for at in 5..batch.body.len() {
            let mut body = batch.body.to_vec();
            body[at] ^= 1;
            assert!(!StoredBatch { head: batch.head, body: body.into() }.crc_matches(), "byte {at}");
        }
    }

    #[test]
    fn neighbours_are_split_and_a_torn_one_is_refused() {
        let (a, b) = (sample::batch(1, 0), sample::batch(2, 0));
        let both = Bytes::from([a.to_contiguous(), b.to_contiguous()].concat());
        assert_eq!(split_batches(both.clone()), Ok(vec![a, b]));
        assert!(split_batches(both.slice(..both.len() - 1)).is_err());
    }
}
