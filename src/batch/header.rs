//! The 61 bytes before the records of a batch.

use crate::base::{LeaderEpoch, Offset, ProducerId};

use super::compression::Compression;

/// Bytes of the header of a batch of magic 2.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that `batch_length` counts.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;

const COMPRESSION_MASK: i16 = 0x07;
pub(super) const TIMESTAMP_TYPE_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;
/// The base timestamp is the moment from which on the batch's tombstones may go (KIP-534).
pub(super) const DELETE_HORIZON_BIT: i16 = 0x40;
/// The sequence of a batch that has none: a control batch, or what a coordinator writes for a producer.
pub const NO_SEQUENCE: i32 = -1;

/// Who set the time of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Fields of a batch header, all as the producer sent them except `base_offset` and `leader_epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub base_offset: Offset,
    /// Bytes that follow the length field itself.
    pub batch_length: i32,
    pub leader_epoch: LeaderEpoch,
    pub magic: i8,
    /// CRC32C of everything from `attributes` on.
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    /// Milliseconds since 1970.
    pub base_timestamp: i64,
    /// Milliseconds since 1970.
    pub max_timestamp: i64,
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Why bytes do not begin with a batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("{0} bytes are too few for a batch header")]
    TooShort(usize),
    #[error("magic {0} is not supported, only 2")]
    Magic(i8),
    #[error("the batch claims {claimed} bytes, {present} are present")]
    Length { claimed: i32, present: usize },
}

impl Header {
    /// Reads the header at the front of `bytes`, which must hold the whole batch.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        // Magic stands at the same place in every version, and decides what the other bytes mean.
        let magic = *bytes.get(16).ok_or(HeaderError::TooShort(bytes.len()))? as i8;
        if magic != 2 {
            return Err(HeaderError::Magic(magic));
        }
        let fixed: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(HeaderError::TooShort(bytes.len()))?;
        let header = Header::from_fixed(fixed);
        let whole = header.batch_length as i64 + LENGTH_PREFIX_BYTES as i64;
        if whole < HEADER_BYTES as i64 || whole > bytes.len() as i64 {
            return Err(HeaderError::Length { claimed: header.batch_length, present: bytes.len() });
        }
        Ok(header)
    }

    /// Reads the fields without judging them.
    pub fn from_fixed(b: &[u8; HEADER_BYTES]) -> Header {
        fn at<const N: usize>(b: &[u8; HEADER_BYTES], from: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&b[from..from + N]);
            out
        }
        Header {
            base_offset: Offset(i64::from_be_bytes(at(b, 0))),
            batch_length: i32::from_be_bytes(at(b, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(at(b, 12))),
            magic: b[16] as i8,
            crc: u32::from_be_bytes(at(b, 17)),
            attributes: i16::from_be_bytes(at(b, 21)),
            last_offset_delta: i32::from_be_bytes(at(b, 23)),
            base_timestamp: i64::from_be_bytes(at(b, 27)),
            max_timestamp: i64::from_be_bytes(at(b, 35)),
            producer_id: ProducerId(i64::from_be_bytes(at(b, 43))),
            producer_epoch: i16::from_be_bytes(at(b, 51)),
            base_sequence: i32::from_be_bytes(at(b, 53)),
            record_count: i32::from_be_bytes(at(b, 57)),
        }
    }

    /// Bytes of the whole batch, header included.
    pub fn total_bytes(&self) -> usize {
        (self.batch_length.max(0) as usize) + LENGTH_PREFIX_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// First offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64 + 1)
    }

    pub fn compression(&self) -> Option<Compression> {
        Compression::from_id((self.attributes & COMPRESSION_MASK) as u8)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// When the tombstones or the marker of a compacted batch may go, Unix ms (KIP-534). It takes the place of the base
    /// timestamp, from which the times of the records go on counting.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// The batch came from an idempotent producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id > ProducerId::NONE
    }

    /// Sequence of the last record; sequences wrap from `i32::MAX` to 0. [`NO_SEQUENCE`] when the batch has none.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            first => sequence_plus(first, self.last_offset_delta),
        }
    }
}

/// `sequence` moved on by `by` places, wrapping from `i32::MAX` to 0 as Kafka's producers do.
pub fn sequence_plus(sequence: i32, by: i32) -> i32 {
    ((sequence as i64 + by as i64) & i32::MAX as i64) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_plus(5, 2), 7);
    }
}
