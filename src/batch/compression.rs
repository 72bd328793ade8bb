//! The codecs of KIP-98 batches (gzip, snappy, lz4, zstd), used where a topic's `compression.type` differs from the
//! producer's and where a time is looked up.
//!
//! A decompressed size is bounded while it is produced, never believed.

use std::borrow::Cow;
use std::io::{Read, Write};

use crate::base::limits;

use super::StoredBatch;

/// A codec by its number in the batch attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    #[error("{codec} data is broken: {detail}")]
    Broken { codec: &'static str, detail: String },
    #[error("the batch unpacks to more than {0} bytes")]
    TooLarge(usize),
}

/// The frame that Java's snappy streams put around raw snappy blocks: magic, then two version numbers.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Compression {
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    pub fn from_id(id: u8) -> Option<Compression> {
        Compression::ALL.get(id as usize).copied()
    }

    pub fn id(self) -> u8 {
        self as u8
    }

    /// The name that `compression.type` uses.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "uncompressed",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    fn broken(self, detail: impl ToString) -> CompressionError {
        CompressionError::Broken { codec: self.name(), detail: detail.to_string() }
    }
}

/// Unpacks `bytes` to at most `max` bytes.
pub fn decompress(codec: Compression, bytes: &[u8], max: usize) -> Result<Cow<'_, [u8]>, CompressionError> {
    match codec {
        Compression::None => Ok(Cow::Borrowed(bytes)),
        Compression::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(bytes), max),
        Compression::Lz4 => read_bounded(codec, lz4_flex::frame::FrameDecoder::new(bytes), max),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|e| codec.broken(e))?;
            read_bounded(codec, decoder, max)
        }
        Compression::Snappy => unpack_snappy(bytes, max).map(Cow::Owned),
    }
}

fn read_bounded<'a>(codec: Compression, reader: impl Read, max: usize) -> Result<Cow<'a, [u8]>, CompressionError> {
    let mut out = Vec::new();
    reader.take(max as u64 + 1).read_to_end(&mut out).map_err(|e| codec.broken(e))?;
    if out.len() > max { Err(CompressionError::TooLarge(max)) } else { Ok(Cow::Owned(out)) }
}

fn unpack_snappy(bytes: &[u8], max: usize) -> Result<Vec<u8>, CompressionError> {
    let codec = Compression::Snappy;
    let mut out = Vec::new();
    let mut block = |raw: &[u8]| {
        let size = snap::raw::decompress_len(raw).map_err(|e| codec.broken(e))?;
        // A snappy block cannot expand its input more than about 64-fold; a larger claim is a lie.
        if size > max.saturating_sub(out.len()) || size > raw.len().saturating_mul(64) {
            return Err(CompressionError::TooLarge(max));
        }
        let start = out.len();
        out.resize(start + size, 0);
        let written = snap::raw::Decoder::new().decompress(raw, &mut out[start..]).map_err(|e| codec.broken(e))?;
        out.truncate(start + written);
        Ok(())
    };
    if !bytes.starts_with(&XERIAL_MAGIC) {
        block(bytes)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(|| codec.broken("header cut off"))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| codec.broken("block length cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let raw = after.get(..length).ok_or_else(|| codec.broken("block cut off"))?;
        block(raw)?;
        rest = &after[length..];
    }
    Ok(out)
}

pub(super) fn compress(codec: Compression, level: Option<i32>, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let fail = |e: std::io::Error| codec.broken(e);
    match codec {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => {
            let level =
                level.and_then(|l| u32::try_from(l).ok()).map_or_else(Default::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).map_err(fail)?;
            encoder.finish().map_err(fail)
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).map_err(fail)?;
            encoder.finish().map_err(|e| codec.broken(e))
        }
        Compression::Zstd => zstd::stream::encode_all(bytes, level.unwrap_or(3)).map_err(fail),
        Compression::Snappy => {
            let mut out = XERIAL_MAGIC.to_vec();
            out.extend_from_slice(&1u32.to_be_bytes());
            out.extend_from_slice(&1u32.to_be_bytes());
            for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
                let packed = snap::raw::Encoder::new().compress_vec(block).map_err(|e| codec.broken(e))?;
                out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                out.extend_from_slice(&packed);
            }
            Ok(out)
        }
    }
}

/// The same records under another codec. Records are moved as bytes, so keys, headers and their order stay as the
/// producer wrote them.
pub fn recompress(
    batch: &StoredBatch,
    codec: Compression,
    level: Option<i32>,
) -> Result<StoredBatch, CompressionError> {
    let header = batch.header();
    let from = header.compression().ok_or_else(|| Compression::None.broken("unknown codec"))?;
    if from == codec {
        return Ok(batch.clone());
    }
    let plain = decompress(from, batch.records(), limits::DECOMPRESSED_BYTES_MAX)?;
    let packed = compress(codec, level, &plain)?;
    Ok(batch.with_records(&packed, header.attributes & !7 | codec.id() as i16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{check_produced, sample};

    #[test]
    fn each_codec_comes_back_and_stays_a_valid_batch() {
        let plain = sample::batch(100, 5);
        for codec in Compression::ALL {
            let packed = recompress(&plain, codec, None).expect("compress");
            assert!(packed.crc_matches());
            assert!(check_produced(packed.to_contiguous()).is_ok(), "{codec:?}");
            assert_eq!(recompress(&packed, Compression::None, None).expect("decompress"), plain);
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_bound() {
        let zeros = vec![0u8; 1 << 20];
        for codec in &Compression::ALL[1..] {
            let packed = compress(*codec, None, &zeros).expect("compress");
            assert_eq!(decompress(*codec, &packed, 1000), Err(CompressionError::TooLarge(1000)), "{codec:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), codec in 0u8..5) {
            let codec = Compression::from_id(codec).expect("known");
            let _ = decompress(codec, &bytes, 1 << 16);
        }
    }
}
