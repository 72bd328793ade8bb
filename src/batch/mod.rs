//! Kafka record batches (magic 2, KIP-98) as the broker sees them: a 61-byte header that is parsed once, and bytes
//! that are passed on.
//!
//! Offsets and leader epoch stand before the checksummed part, so the broker assigns them without touching the
//! rest. Records are never decoded on the way from a producer to a consumer; only a look-up by time, a change of
//! compression, and log compaction open a batch, and all bound what it may unpack to.

pub mod build;
pub mod check;
pub mod compact;
pub mod compression;
mod control;
mod header;
mod records;
mod stored;

pub use build::{BatchBuilder, BuildError, Writer};
pub use check::{CheckError, check_produced, looks_transactional};
pub use compression::{Compression, CompressionError};
pub use control::{ControlError, EndMarker, end_marker, parse_end_marker};
pub use header::{HEADER_BYTES, Header, HeaderError, NO_SEQUENCE, TimestampType, sequence_plus};
pub use records::{RecordsError, TimestampedOffset, first_at_or_after, with_max_timestamp};
pub use stored::{HEAD_BYTES, StoredBatch, split_batches};

#[cfg(test)]
pub mod sample;
