//! What a broker checks of a batch before it appends it. Records that are not compressed are walked, not decoded.

use bytes::Bytes;

use crate::base::Offset;

use super::header::{Header, HeaderError, TRANSACTIONAL_BIT};
use super::records::walk_uncompressed;
use super::stored::StoredBatch;
use super::{Compression, HEADER_BYTES};

/// Where the length, magic and the low byte of the attributes stand in a batch.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 22;

/// Why a produced record set is refused. Which wire error each becomes is the protocol layer's matter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("the record set is empty")]
    Empty,
    #[error("the record set does not begin with a whole batch")]
    Incomplete,
    #[error("a batch cannot have a length of {0}")]
    Length(i32),
    #[error("the record set holds more than one batch")]
    MoreThanOne,
    #[error("magic {0} is an old message format that is no longer supported")]
    OldMagic(i8),
    #[error("magic {0} does not exist")]
    UnknownMagic(i8),
    #[error("the CRC does not match the batch")]
    Crc,
    #[error("a client may not write control batches")]
    Control,
    #[error("the batch counts {count} records but spans {offsets} offsets")]
    Count { count: i32, offsets: i64 },
    #[error("base sequence {0} of an idempotent producer is negative")]
    Sequence(i32),
    #[error("base offset {0} is not 0, from which a producer counts")]
    BaseOffset(i64),
    #[error("producer epoch {0} is negative")]
    ProducerEpoch(i16),
    #[error("compression codec {0} does not exist")]
    Codec(u8),
    #[error("the records are not what the batch says: {0}")]
    Records(&'static str),
}

/// Below this a length is no length of any format: a smaller one is damage, not a part of something.
const LENGTH_MIN: i32 = 14;

/// Checks what a Produce request carries for one partition: exactly one whole batch of magic 2 (the beginning of another
/// one behind it is ignored, as Kafka does; what cannot be a beginning is damage), its CRC and its header. Uncompressed
/// records are walked to their last header;
/// compressed ones are not opened.
pub fn check_produced(records: Bytes) -> Result<(Header, StoredBatch), CheckError> {
    if records.is_empty() {
        return Err(CheckError::Empty);
    }
    let header = Header::parse(&records).map_err(|e| match e {
        HeaderError::Length { claimed, .. } if claimed < LENGTH_MIN => CheckError::Length(claimed),
        HeaderError::TooShort(_) | HeaderError::Length { .. } => CheckError::Incomplete,
        HeaderError::Magic(m @ (0 | 1)) => CheckError::OldMagic(m),
        HeaderError::Magic(m) => CheckError::UnknownMagic(m),
    })?;
    check_tail(&records[header.total_bytes()..])?;
    let batch = StoredBatch::from_contiguous(records).map_err(|_| CheckError::Incomplete)?;
    if !batch.crc_matches() {
        return Err(CheckError::Crc);
    }
    check_fields(&header)?;
    if header.compression() == Some(Compression::None) {
        walk_uncompressed(batch.records(), header.record_count).map_err(CheckError::Records)?;
    }
    Ok((header, batch))
}

/// What stands behind the one batch of a record set.
fn check_tail(tail: &[u8]) -> Result<(), CheckError> {
    let length = tail.get(LENGTH_AT..LENGTH_AT + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    match length {
        Some(length) if length < LENGTH_MIN => return Err(CheckError::Length(length)),
        Some(_) => {}
        None => return Ok(()),
    }
    match tail.get(MAGIC_AT) {
        Some(magic @ 3..) => Err(CheckError::UnknownMagic(*magic as i8)),
        _ if Header::parse(tail).is_ok() => Err(CheckError::MoreThanOne),
        _ => Ok(()),
    }
}

/// Whether a produced record set begins with a batch that says it is transactional: two bytes are looked at, for the
/// requests, nearly all, in which nothing is.
pub fn looks_transactional(records: &[u8]) -> bool {
    records.get(MAGIC_AT) == Some(&2)
        && records.get(ATTRIBUTES_AT).is_some_and(|low| low & TRANSACTIONAL_BIT as u8 != 0)
}

fn check_fields(header: &Header) -> Result<(), CheckError> {
    if header.is_control() {
        return Err(CheckError::Control);
    }
    let offsets = header.last_offset_delta as i64 + 1;
    if header.record_count <= 0 || header.record_count as i64 != offsets {
        return Err(CheckError::Count { count: header.record_count, offsets });
    }
    if header.base_offset != Offset::ZERO {
        return Err(CheckError::BaseOffset(header.base_offset.0));
    }
    if header.has_producer() {
        if header.base_sequence < 0 {
            return Err(CheckError::Sequence(header.base_sequence));
        }
        if header.producer_epoch < 0 {
            return Err(CheckError::ProducerEpoch(header.producer_epoch));
        }
    }
    match header.compression() {
        None => Err(CheckError::Codec((header.attributes & 7) as u8)),
        Some(Compression::None) => Ok(()),
        // A compressed body is never empty: even no records at all have a frame.
        Some(_) if header.total_bytes() == HEADER_BYTES => Err(CheckError::Records("compressed and empty")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::checksum::crc32c;
    use crate::batch::sample;

    fn changed(at: usize, to: &[u8]) -> Bytes {
        let mut bytes = sample::produced(3, 10, 9, 0, 0).to_contiguous().to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        if at > 20 {
            let crc = crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        bytes.into()
    }

    #[test]
    fn a_good_batch_passes_with_or_without_a_torn_tail() {
        let good = sample::batch(3, 10).to_contiguous();
        assert!(check_produced(good.clone()).is_ok());
        let torn = Bytes::from([&good[..], &good[..20]].concat());
        assert_eq!(check_produced(torn).map(|(h, _)| h.record_count), Ok(3));
    }

    #[test]
    fn a_look_tells_transactional_batches() {
        assert!(!looks_transactional(&sample::batch(1, 0).to_contiguous()));
        assert!(looks_transactional(&changed(21, &[0, 0x10])));
        assert!(!looks_transactional(&changed(21, &[0x10, 0x2f])));
        assert!(!looks_transactional(&[2; 17]));
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let good = sample::batch(3, 10).to_contiguous();
        assert_eq!(check_produced(Bytes::new()), Err(CheckError::Empty));
        assert_eq!(check_produced(good.slice(..good.len() - 1)), Err(CheckError::Incomplete));
        assert_eq!(check_produced(Bytes::from([&good[..], &good[..]].concat())), Err(CheckError::MoreThanOne));
        let zeros = Bytes::from([&good[..], &[0; 30]].concat());
        assert_eq!(check_produced(zeros), Err(CheckError::Length(0)));
        let odd = [&good[..16], &[9], &good[17..40]].concat();
        assert_eq!(check_produced(Bytes::from([&good[..], &odd].concat())), Err(CheckError::UnknownMagic(9)));
        assert_eq!(check_produced(changed(0, &7i64.to_be_bytes())), Err(CheckError::BaseOffset(7)));
        assert_eq!(check_produced(changed(16, &[1])), Err(CheckError::OldMagic(1)));
        assert_eq!(check_produced(changed(16, &[3])), Err(CheckError::UnknownMagic(3)));
        assert_eq!(check_produced(changed(17, &[0, 0, 0, 0])), Err(CheckError::Crc));
        assert_eq!(check_produced(changed(21, &[0, 0x20])), Err(CheckError::Control));
        assert_eq!(check_produced(changed(21, &[0, 0x07])), Err(CheckError::Codec(7)));
        assert_eq!(check_produced(changed(53, &(-1i32).to_be_bytes())), Err(CheckError::Sequence(-1)));
        assert_eq!(check_produced(changed(57, &4i32.to_be_bytes())), Err(CheckError::Count { count: 4, offsets: 3 }));
        let lies = changed(23, &[0, 0, 0, 3]);
        let mut lies = lies.to_vec();
        lies[57..61].copy_from_slice(&4i32.to_be_bytes());
        let crc = crc32c(&lies[21..]);
        lies[17..21].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(check_produced(lies.into()), Err(CheckError::Records(_))));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = check_produced(bytes.into());
        }
    }
}
