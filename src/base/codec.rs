//! The byte codec of everything Casemate stores: fixed-width big-endian integers, length-prefixed bytes.
//!
//! A reader never allocates by a length it has only been told: every length is first checked against the bytes
//! that are left.

use bytes::Bytes;

/// Why stored bytes cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("ended early: {needed} bytes needed, {left} left")]
    Truncated { needed: usize, left: usize },
    #[error("{0} bytes left over after the value")]
    Trailing(usize),
    #[error("{field} has the unknown or impossible value {value}")]
    Invalid { field: &'static str, value: u64 },
    #[error("written in format version {found}; this release reads up to {newest}")]
    Version { found: u16, newest: u16 },
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
}

/// Appends values to a byte vector.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }

    pub fn bool(&mut self, v: bool) -> &mut Self {
        self.u8(v as u8)
    }

    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn i16(&mut self, v: i16) -> &mut Self {
        self.u16(v as u16)
    }

    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn i32(&mut self, v: i32) -> &mut Self {
        self.u32(v as u32)
    }

    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.u64(v as u64)
    }

    /// Bytes of a fixed length that the reader knows.
    pub fn raw(&mut self, v: &[u8]) -> &mut Self {
        self.0.extend_from_slice(v);
        self
    }

    /// Bytes with a `u32` length before them.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.u32(u32::try_from(v.len()).expect("a stored field is under 4 GiB"));
        self.raw(v)
    }

    pub fn string(&mut self, v: &str) -> &mut Self {
        self.bytes(v.as_bytes())
    }

    /// The number of elements that follow.
    pub fn count(&mut self, n: usize) -> &mut Self {
        self.u32(u32::try_from(n).expect("a stored list has under 2^32 elements"))
    }

    pub fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Takes values off the front of a byte slice.
#[derive(Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.0.len() {
            return Err(DecodeError::Truncated { needed: len, left: self.0.len() });
        }
        let (head, tail) = self.0.split_at(len);
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            v => Err(DecodeError::Invalid { field, value: v as u64 }),
        }
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        self.raw(len)
    }

    pub fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| DecodeError::Utf8(field))
    }

    /// A number of elements, each at least `element_bytes` long; refused when that many cannot be left.
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        let needed = count.saturating_mul(element_bytes.max(1));
        if needed > self.left() {
            return Err(DecodeError::Truncated { needed, left: self.left() });
        }
        Ok(count)
    }

    /// The value must have used every byte.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_written() {
        let mut w = Writer::new();
        w.u8(7).bool(true).u16(8).i32(-9).i64(-10).bytes(b"abc").string("grün").count(2).raw(&[1, 2]);
        let bytes = w.finish();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u8(), Ok(7));
        assert_eq!(r.bool("b"), Ok(true));
        assert_eq!(r.u16(), Ok(8));
        assert_eq!(r.i32(), Ok(-9));
        assert_eq!(r.i64(), Ok(-10));
        assert_eq!(r.bytes(), Ok(&b"abc"[..]));
        assert_eq!(r.string("s"), Ok("grün".to_string()));
        assert_eq!(r.count(1), Ok(2));
        assert_eq!(r.raw(2), Ok(&[1u8, 2][..]));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn a_claimed_length_beyond_the_bytes_is_refused() {
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert!(matches!(r.clone().bytes(), Err(DecodeError::Truncated { .. })));
        assert!(matches!(r.count(1), Err(DecodeError::Truncated { .. })));
    }
}
