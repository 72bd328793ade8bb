//! Walks a request before anything is decoded.
//!
//! kafka-protocol reserves memory by the array lengths that a request claims: four bytes from a peer are enough to
//! abort the process. So every frame is first walked by the shapes of [`shapes`]: each length is checked against the
//! bytes that are left, and the elements of all arrays together are bounded. Only what passes is decoded.
//!
//! The walk allocates nothing, and its depth is that of the shapes, not of the input.

pub mod shapes;
#[cfg(test)]
mod tests;

use self::shapes::{Field, Kind, Struct};
use super::versions::Api;
use crate::base::limits::REQUEST_ELEMENTS_MAX;

/// API key, version and correlation id: the part of a request header that no version changes.
pub const FIXED_HEADER_BYTES: usize = 8;

/// What one tagged field counts for: an unknown one is kept by the decoder in a map of its own.
const TAGGED_FIELD_ELEMENTS: usize = 4;

/// Why a request cannot be what it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{claimed} bytes claimed at byte {at}, {left} left")]
    BeyondEnd { at: usize, claimed: usize, left: usize },
    #[error("negative length {length} at byte {at}")]
    Negative { at: usize, length: i32 },
    #[error("variable-length integer at byte {at} is longer than 32 bits")]
    Varint { at: usize },
    #[error("more than {REQUEST_ELEMENTS_MAX} elements")]
    TooManyElements,
    #[error("tagged field at byte {at} is {claimed} bytes long, not the {found} of its content")]
    TagLength { at: usize, claimed: usize, found: usize },
}

/// A request that can be decoded safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Bytes of the request header, from the start of the frame.
    pub header_bytes: usize,
    /// Bytes of header and body. What follows is ignored, as Kafka does.
    pub total_bytes: usize,
    /// Array elements, tagged fields counted several times: decoding takes memory in proportion.
    pub elements: usize,
}

/// Walks a frame (without its length prefix) of a version that `api` accepts.
pub fn walk(api: &Api, version: i16, frame: &[u8]) -> Result<Walked, Malformed> {
    let flexible = api.flexible(version);
    let mut cursor = Cursor { bytes: frame, at: 0, elements: 0, flexible: false, version };
    cursor.skip(FIXED_HEADER_BYTES)?;
    // The client id keeps its two-byte length even in flexible headers (KIP-482).
    cursor.field(&Kind::String)?;
    cursor.flexible = flexible;
    cursor.tagged_fields(&[])?;
    let header_bytes = cursor.at;
    cursor.structure(api.shape)?;
    Ok(Walked { header_bytes, total_bytes: cursor.at, elements: cursor.elements })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
    flexible: bool,
    version: i16,
}

impl Cursor<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        if count > self.left() {
            return Err(Malformed::BeyondEnd { at: self.at, claimed: count, left: self.left() });
        }
        self.at += count;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let from = self.at;
        self.skip(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[from..self.at]);
        Ok(out)
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let at = self.at;
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map(|v| v as usize).map_err(|_| Malformed::Varint { at });
            }
        }
        Err(Malformed::Varint { at })
    }

    /// A length: `None` is null. In flexible versions a varint one above the length, else `narrow` or four bytes.
    fn length(&mut self, narrow: bool) -> Result<Option<usize>, Malformed> {
        let at = self.at;
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let length = match narrow {
            true => i32::from(i16::from_be_bytes(self.fixed()?)),
            false => i32::from_be_bytes(self.fixed()?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Malformed::Negative { at, length }),
        }
    }

    /// The length of an array. Every element takes at least a byte, so more elements than bytes cannot be there.
    fn count(&mut self) -> Result<usize, Malformed> {
        let at = self.at;
        let count = self.length(false)?.unwrap_or(0);
        if count > self.left() {
            return Err(Malformed::BeyondEnd { at, claimed: count, left: self.left() });
        }
        self.add_elements(count)?;
        Ok(count)
    }

    fn add_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements += count;
        if self.elements > REQUEST_ELEMENTS_MAX { Err(Malformed::TooManyElements) } else { Ok(()) }
    }

    fn structure(&mut self, shape: &Struct) -> Result<(), Malformed> {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.field(&field.kind)?;
        }
        self.tagged_fields(shape.tagged)
    }

    fn field(&mut self, kind: &Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::String => {
                let length = self.length(true)?.unwrap_or(0);
                self.skip(length)
            }
            Kind::Bytes => {
                let length = self.length(false)?.unwrap_or(0);
                self.skip(length)
            }
            Kind::FixedArray(bytes) => {
                let count = self.count()?;
                self.skip(count * bytes)
            }
            Kind::StringArray => (0..self.count()?).try_for_each(|_| self.field(&Kind::String)),
            Kind::Array(of) => (0..self.count()?).try_for_each(|_| self.structure(of)),
            // The decoder takes every other presence byte for "absent".
            Kind::Optional(of) => match self.fixed()? {
                [1] => self.structure(of),
                _ => Ok(()),
            },
            Kind::Struct(of) => self.structure(of),
        }
    }

    /// The tagged fields that end a flexible struct. The decoder believes the content of the fields it knows, not
    /// their length, so both must agree.
    fn tagged_fields(&mut self, known: &[(u32, Field)]) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.add_elements(TAGGED_FIELD_ELEMENTS)?;
            let tag = self.varint()?;
            let claimed = self.varint()?;
            let at = self.at;
            let shape = known.iter().find(|(number, field)| *number as usize == tag && field.exists_in(self.version));
            match shape {
                Some((_, field)) => self.field(&field.kind)?,
                None => self.skip(claimed)?,
            }
            let found = self.at - at;
            if found != claimed {
                return Err(Malformed::TagLength { at, claimed, found });
            }
        }
        Ok(())
    }
}
