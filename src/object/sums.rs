//! Checksums of one stored file, a chunk at a time, so that any range of it can be checked without reading the rest.
//!
//! Pure. Kept beside the file and not in it, so that a folder written by one node alone is the same as one of several.
//!
//! ```text
//! sums = "CMS1" ‖ version (2) ‖ chunk bytes (4) ‖ file bytes (8) ‖ number of chunks (4) ‖ CRC32C of each (4 each) ‖
//!        CRC32C of all before (4)
//! ```

use bytes::Bytes;

use crate::base::checksum::{Crc32c, crc32c};
use crate::base::codec::{DecodeError, Reader, Writer};

/// Bytes under one checksum.
pub const CHUNK_BYTES: usize = 16 * 1024;
const MAGIC: u32 = u32::from_be_bytes(*b"CMS1");
const VERSION: u16 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Of the file.
    pub bytes: u64,
    chunks: Vec<u32>,
}

impl Sums {
    /// Of a file that consists of these pieces.
    pub fn of(pieces: &[Bytes]) -> Sums {
        let mut summing = Summing::default();
        pieces.iter().for_each(|piece| summing.update(piece));
        summing.finish()
    }

    /// One checksum over those of all chunks: equal for equal files.
    pub fn digest(&self) -> u32 {
        let mut crc = Crc32c::new();
        self.chunks.iter().for_each(|chunk| crc.update(&chunk.to_be_bytes()));
        crc.finish()
    }

    /// Whether `data`, which begins with the chunk `first` and ends with a chunk or with the file, is what was stored.
    pub fn hold(&self, first: usize, data: &[u8]) -> bool {
        let mut expected = self.chunks.iter().skip(first);
        data.chunks(CHUNK_BYTES).all(|chunk| expected.next() == Some(&crc32c(chunk)))
    }

    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u32(MAGIC).u16(VERSION).u32(CHUNK_BYTES as u32).u64(self.bytes).count(self.chunks.len());
        self.chunks.iter().for_each(|chunk| {
            w.u32(*chunk);
        });
        let crc = crc32c(&w.0);
        w.u32(crc);
        w.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Sums, DecodeError> {
        let body = bytes.len().checked_sub(4).ok_or(DecodeError::Truncated { needed: 4, left: bytes.len() })?;
        let (body, crc) = bytes.split_at(body);
        if crc != crc32c(body).to_be_bytes() {
            return Err(DecodeError::Invalid { field: "checksum of the sums", value: crc32c(body).into() });
        }
        let mut r = Reader::new(body);
        let invalid = |field, value| Err(DecodeError::Invalid { field, value });
        match r.u32()? {
            MAGIC => {}
            other => return invalid("magic of the sums", other.into()),
        }
        match r.u16()? {
            VERSION => {}
            found => return Err(DecodeError::Version { found, newest: VERSION }),
        }
        match r.u32()? as usize {
            CHUNK_BYTES => {}
            other => return invalid("chunk bytes", other as u64),
        }
        let bytes = r.u64()?;
        let count = r.count(4)?;
        if count as u64 != bytes.div_ceil(CHUNK_BYTES as u64) {
            return invalid("number of chunks", count as u64);
        }
        let chunks = (0..count).map(|_| r.u32()).collect::<Result<Vec<_>, _>>()?;
        r.finish()?;
        Ok(Sums { bytes, chunks })
    }
}

/// Sums of bytes that arrive in pieces.
#[derive(Default)]
pub struct Summing {
    bytes: u64,
    chunks: Vec<u32>,
    current: Option<Crc32c>,
}

impl Summing {
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = CHUNK_BYTES - (self.bytes % CHUNK_BYTES as u64) as usize;
            let (now, later) = piece.split_at(room.min(piece.len()));
            let crc = self.current.get_or_insert_default();
            crc.update(now);
            self.bytes += now.len() as u64;
            if now.len() == room
                && let Some(crc) = self.current.take()
            {
                self.chunks.push(crc.finish());
            }
            piece = later;
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn finish(mut self) -> Sums {
        if let Some(crc) = self.current.take() {
            self.chunks.push(crc.finish());
        }
        Sums { bytes: self.bytes, chunks: self.chunks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i * 31 + i / 977) as u8).collect()
    }

    #[test]
    fn pieces_of_any_size_give_the_same_sums_and_every_chunk_is_checked() {
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 7] {
            let file = file(bytes);
            let whole = Sums::of(&[Bytes::from(file.clone())]);
            let mut summing = Summing::default();
            file.chunks(1000).for_each(|piece| summing.update(piece));
            assert_eq!(summing.bytes(), bytes as u64);
            assert_eq!(summing.finish(), whole);
            assert!(whole.hold(0, &file));
            if bytes > CHUNK_BYTES {
                assert!(whole.hold(1, &file[CHUNK_BYTES..]));
                assert!(!whole.hold(0, &file[CHUNK_BYTES..]));
            }
            let mut bad = file.clone();
            if let Some(last) = bad.last_mut() {
                *last ^= 1;
                assert!(!whole.hold(0, &bad));
                assert_ne!(Sums::of(&[bad.into()]).digest(), whole.digest());
            }
            assert!(!whole.hold(0, &[&file[..], &[0; CHUNK_BYTES]].concat()), "beyond the end");
        }
    }

    #[test]
    fn stored_sums_come_back_and_every_flipped_byte_is_detected() {
        let sums = Sums::of(&[file(3 * CHUNK_BYTES + 5).into()]);
        let stored = sums.encode();
        assert_eq!(Sums::decode(&stored), Ok(sums));
        for at in 0..stored.len() {
            let mut bad = stored.to_vec();
            bad[at] ^= 0x10;
            assert!(Sums::decode(&bad).is_err(), "byte {at}");
            assert!(Sums::decode(&stored[..at]).is_err(), "cut at {at}");
        }
    }
}
