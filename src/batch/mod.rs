//! Kafka record batches (magic 2, KIP-98) as the broker sees them: a 61-byte header that is parsed once, and bytes
//! that are passed on.
//!
//! Offsets and leader epoch stand before the checksummed part, so the broker assigns them without touching the
//! rest. Records are never decoded on the way from a producer to a consumer; only a look-up by time and a change of
//! compression open a batch, and both bound what it may unpack to.

pub mod check;
pub mod compression;
mod header;
mod records;
mod stored;

pub use check::{CheckError, check_produced};
pub use compression::{Compression, CompressionError};
pub use header::{HEADER_BYTES, Header, HeaderError, TimestampType, sequence_plus};
pub use records::{RecordsError, TimestampedOffset, first_at_or_after, with_max_timestamp};
pub use stored::{HEAD_BYTES, StoredBatch, split_batches};

#[cfg(test)]
pub mod sample;
