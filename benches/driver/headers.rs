//! The headers of record batches, without their records: what a reader of much data counts by.

/// What of a batch is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub last_offset: i64,
    pub records: i32,
    /// A marker of a transaction.
    pub is_control: bool,
}

/// The whole batches in the bytes of a fetch answer; a partial one at the end is left out.
pub fn each(mut records: &[u8]) -> impl Iterator<Item = Header> + '_ {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(i32::from_be_bytes(records.get(at..at + 4)?.try_into().ok()?));
        let base = i64::from_be_bytes(*records.first_chunk()?);
        let length = 12 + usize::try_from(word(8)?).ok()?;
        if records.len() < length.max(61) {
            return None;
        }
        let attributes = i16::from_be_bytes([records[21], records[22]]);
        let header =
            Header { last_offset: base + i64::from(word(23)?), records: word(57)?, is_control: attributes & 0x20 != 0 };
        records = &records[length..];
        Some(header)
    })
}
