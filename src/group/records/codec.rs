//! Kafka's serialisation of records: fixed-width integers, strings and arrays in the classic and the compact form,
//! tagged fields (KIP-482).
//!
//! A claimed length is checked against the bytes that are left before anything is allocated.

use bytes::Bytes;

use crate::base::TopicId;
use crate::base::codec::{DecodeError, Reader};

/// Longest string that the classic form can carry, in bytes.
pub(super) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Writes the fields of a key or value. A string too long for its form, which no request can bring here, marks the
/// whole as unusable.
#[derive(Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Out {
    pub fn new(version: i16) -> Self {
        let mut out = Out::default();
        out.i16(version);
        out
    }

    pub fn finish(self) -> Option<Bytes> {
        (!self.overflow).then(|| Bytes::from(self.bytes))
    }

    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn uuid(&mut self, id: TopicId) -> &mut Self {
        self.bytes.extend_from_slice(&id.0);
        self
    }

    fn length(&mut self, length: usize) -> &mut Self {
        let length = i32::try_from(length).unwrap_or_else(|_| {
            self.overflow = true;
            0
        });
        self.i32(length)
    }

    pub fn string(&mut self, text: &str) -> &mut Self {
        match i16::try_from(text.len()) {
            Ok(length) => {
                self.i16(length);
                self.bytes.extend_from_slice(text.as_bytes());
            }
            Err(_) => self.overflow = true,
        }
        self
    }

    pub fn nullable_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.i16(-1),
        }
    }

    pub fn byte_array(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn array<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.length(items.len());
        items.iter().for_each(|item| each(self, item));
        self
    }

    pub fn varint(&mut self, mut value: u32) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// Lengths of the compact form are one higher; 0 is null.
    fn compact_length(&mut self, length: usize) -> &mut Self {
        let plus_one = u32::try_from(length).ok().filter(|n| *n < i32::MAX as u32).map(|n| n + 1);
        let plus_one = plus_one.unwrap_or_else(|| {
            self.overflow = true;
            1
        });
        self.varint(plus_one)
    }

    pub fn compact_string(&mut self, text: &str) -> &mut Self {
        self.compact_bytes(text.as_bytes())
    }

    pub fn compact_nullable_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.compact_string(text),
            None => self.varint(0),
        }
    }

    pub fn compact_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.compact_length(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn compact_array<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.compact_length(items.len());
        items.iter().for_each(|item| each(self, item));
        self
    }

    /// The tagged fields of a structure: at most tag 0, which is all that these schemas have.
    pub fn tags(&mut self, tag_0: Option<impl FnOnce(&mut Out)>) -> &mut Self {
        let Some(write) = tag_0 else { return self.varint(0) };
        let mut field = Out::default();
        write(&mut field);
        self.overflow |= field.overflow;
        let length = u32::try_from(field.bytes.len());
        self.overflow |= length.is_err();
        self.varint(1).varint(0).varint(length.unwrap_or(0));
        self.bytes.extend_from_slice(&field.bytes);
        self
    }

    pub fn no_tags(&mut self) -> &mut Self {
        self.varint(0)
    }
}

/// Reads the fields of a key or value. What follows the fields that are known is left unread, as Kafka does.
pub(super) struct In<'a>(Reader<'a>);

impl<'a> In<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        In(Reader::new(bytes))
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(self.0.u8()? as i8)
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.0.i16()
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.0.i32()
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.0.i64()
    }

    pub fn uuid(&mut self) -> Result<TopicId, DecodeError> {
        Ok(TopicId(self.0.array()?))
    }

    fn text(&mut self, length: usize, field: &'static str) -> Result<String, DecodeError> {
        std::str::from_utf8(self.0.raw(length)?).map(str::to_owned).map_err(|_| DecodeError::Utf8(field))
    }

    pub fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>, DecodeError> {
        let length = self.i16()?;
        if length < 0 {
            return Ok(None);
        }
        self.text(length as usize, field).map(Some)
    }

    pub fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.nullable_string(field)?.ok_or(DecodeError::Invalid { field, value: 0 })
    }

    pub fn byte_array(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Invalid { field, value: 0 })?;
        Ok(Bytes::copy_from_slice(self.0.raw(length)?))
    }

    /// Reads elements that take at least a byte each, so that a claimed number cannot allocate beyond the bytes left.
    fn elements<T>(
        &mut self,
        count: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count > self.0.left() {
            return Err(DecodeError::Truncated { needed: count, left: self.0.left() });
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(each(self)?);
        }
        Ok(items)
    }

    pub fn array<T>(
        &mut self,
        field: &'static str,
        each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.i32()?).map_err(|_| DecodeError::Invalid { field, value: 0 })?;
        self.elements(count, each)
    }

    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.0.u8()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { field: "a variable-length integer", value: u64::from(value) })
    }

    /// None is null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    pub fn compact_nullable_string(&mut self, field: &'static str) -> Result<Option<String>, DecodeError> {
        match self.compact_length()? {
            None => Ok(None),
            Some(length) => self.text(length, field).map(Some),
        }
    }

    pub fn compact_string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.compact_nullable_string(field)?.ok_or(DecodeError::Invalid { field, value: 0 })
    }

    pub fn compact_bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.compact_length()?.ok_or(DecodeError::Invalid { field, value: 0 })?;
        Ok(Bytes::copy_from_slice(self.0.raw(length)?))
    }

    pub fn compact_nullable_array<T>(
        &mut self,
        each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        match self.compact_length()? {
            None => Ok(None),
            Some(count) => self.elements(count, each).map(Some),
        }
    }

    pub fn compact_array<T>(
        &mut self,
        field: &'static str,
        each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.compact_nullable_array(each)?.ok_or(DecodeError::Invalid { field, value: 0 })
    }

    /// Hands the bytes of each tagged field to `known`; a tag that it does not know is passed over (KIP-482).
    pub fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut In<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.varint()?;
        for _ in 0..count {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            known(tag, &mut In::new(self.0.raw(length)?))?;
        }
        Ok(())
    }

    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(()))
    }
}
