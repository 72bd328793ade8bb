//! Control batches: the markers that end transactions (KIP-98).
//!
//! A marker is a batch of one record. Its key is version and type (0 abort, 1 commit), its value version and the epoch
//! of the coordinator that wrote it, in Kafka's own form, so that every client that reads the log understands it.
//! Parsing allocates nothing: each claimed length is only compared with the bytes that are there.

use crate::base::ProducerId;

use super::build::{BatchBuilder, BuildError, Writer};
use super::compression::Compression;
use super::header::{HEADER_BYTES, Header, HeaderError};
use super::records::{next_record, varint};
use super::{NO_SEQUENCE, StoredBatch};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub commit: bool,
    /// Leader epoch of the coordinator's partition: an older coordinator's marker is refused.
    pub coordinator_epoch: i32,
}

/// Why a control batch cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("a control batch is compressed")]
    Compressed,
    #[error("a control record is broken: {0}")]
    Record(&'static str),
}

/// The batch that ends the open transaction of `producer`. `timestamp` is in Unix ms.
pub fn end_marker(
    producer: ProducerId,
    epoch: i16,
    marker: EndMarker,
    timestamp: i64,
) -> Result<StoredBatch, BuildError> {
    let mut key = [0; 4];
    key[..2].copy_from_slice(&KEY_VERSION.to_be_bytes());
    key[2..].copy_from_slice(&(if marker.commit { COMMIT } else { ABORT }).to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VALUE_VERSION.to_be_bytes());
    value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::new(Writer {
        producer_id: producer,
        producer_epoch: epoch,
        base_sequence: NO_SEQUENCE,
        transactional: true,
        control: true,
    });
    builder.push(Some(&key), Some(&value), timestamp)?;
    builder.finish()
}

/// The marker in a batch, given all its bytes: `None` for a batch of data, for a control batch of another type, and for
/// one whose record was compacted away.
pub fn parse_end_marker(batch: &[u8]) -> Result<Option<EndMarker>, ControlError> {
    let header = Header::parse(batch)?;
    if !header.is_control() || header.record_count == 0 {
        return Ok(None);
    }
    if header.compression() != Some(Compression::None) {
        return Err(ControlError::Compressed);
    }
    marker_of(&batch[HEADER_BYTES..header.total_bytes()]).map_err(ControlError::Record)
}

fn marker_of(mut records: &[u8]) -> Result<Option<EndMarker>, &'static str> {
    let record = next_record(&mut records)?;
    let mut rest = record.get(1..).ok_or("it is empty")?;
    let (_timestamp_delta, _offset_delta) = (varint(&mut rest)?, varint(&mut rest)?);
    let key = field(&mut rest)?;
    let value = field(&mut rest)?;
    let (version, after) = key.split_first_chunk::<2>().ok_or("its key is too short")?;
    let kind = after.first_chunk::<2>().ok_or("its key is too short")?;
    if i16::from_be_bytes(*version) < 0 {
        return Err("its key has a negative version");
    }
    let commit = match i16::from_be_bytes(*kind) {
        ABORT => false,
        COMMIT => true,
        _ => return Ok(None),
    };
    let (version, after) = value.split_first_chunk::<2>().ok_or("its value is too short")?;
    let epoch = after.first_chunk::<4>().ok_or("its value is too short")?;
    if i16::from_be_bytes(*version) < 0 {
        return Err("its value has a negative version");
    }
    // A later version may add fields behind; what is known stays where it is.
    Ok(Some(EndMarker { commit, coordinator_epoch: i32::from_be_bytes(*epoch) }))
}

/// Takes a key or a value off the front; a control record has both.
fn field<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| "it lacks its key or its value")?;
    if length > bytes.len() {
        return Err("a field is longer than the record");
    }
    let (field, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::checksum::crc32c;
    use crate::batch::{compression, sample};

    fn marker(commit: bool) -> StoredBatch {
        end_marker(ProducerId(9), 4, EndMarker { commit, coordinator_epoch: 77 }, 1_000).expect("small")
    }

    #[test]
    fn a_marker_comes_back_as_written() {
        for commit in [false, true] {
            let batch = marker(commit);
            let header = batch.header();
            assert!(batch.crc_matches() && header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (ProducerId(9), 4, -1));
            assert_eq!((header.last_offset_delta, header.record_count, header.max_timestamp), (0, 1, 1_000));
            let parsed = parse_end_marker(&batch.to_contiguous());
            assert_eq!(parsed, Ok(Some(EndMarker { commit, coordinator_epoch: 77 })));
        }
    }

    /// The bytes that Apache Kafka writes for producer 9, epoch 4, commit, coordinator epoch 77.
    #[test]
    fn a_marker_has_kafkas_form() {
        let expected = [
            0x20, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 77, 0, // length, record
        ];
        let batch = marker(true);
        assert_eq!(batch.records(), expected);
        assert_eq!(batch.len(), 78, "the size of every marker in a log of Kafka's");
        assert_eq!(batch.body[5..7], [0, 0x30], "transactional and control");
    }

    #[test]
    fn data_and_other_types_are_no_markers() {
        assert_eq!(parse_end_marker(&sample::batch(2, 0).to_contiguous()), Ok(None));
        let mut builder = BatchBuilder::new(Writer { control: true, ..Writer::PLAIN });
        builder.push(Some(&[0, 0, 0, 2]), Some(&[0; 6]), 0).expect("small");
        let leader_change = builder.finish().expect("not empty");
        assert_eq!(parse_end_marker(&leader_change.to_contiguous()), Ok(None));
    }

    #[test]
    fn broken_markers_are_refused() {
        let packed = compression::recompress(&marker(true), Compression::Gzip, None).expect("packs");
        assert_eq!(parse_end_marker(&packed.to_contiguous()), Err(ControlError::Compressed));
        for (key, value) in [(&[0u8, 0, 0][..], &[0u8; 6][..]), (&[0, 0, 0, 1], &[0; 5]), (&[0xff, 0, 0, 1], &[0; 6])] {
            let mut builder = BatchBuilder::new(Writer { control: true, ..Writer::PLAIN });
            builder.push(Some(key), Some(value), 0).expect("small");
            let batch = builder.finish().expect("not empty").to_contiguous();
            assert!(matches!(parse_end_marker(&batch), Err(ControlError::Record(_))));
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(at in 0usize..78, bytes in proptest::collection::vec(0u8..=255, 1..20)) {
            let mut batch = marker(true).to_contiguous().to_vec();
            for (target, byte) in batch[at..].iter_mut().zip(&bytes) {
                *target = *byte;
            }
            let crc = crc32c(&batch[21..]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
            let _ = parse_end_marker(&batch);
        }
    }
}
