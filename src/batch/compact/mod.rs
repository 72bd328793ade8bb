//! Log compaction of record batches: which records of a compacted topic stay, and the batches that hold them then.
//!
//! Pure: batches, a map of keys and a moment in, batches out. The rules are those of Kafka's cleaner (KIP-58 bounds,
//! KIP-98 markers, KIP-534 delete horizons):
//!
//! - Of each key the newest record below the clean end stays; everything at or above the clean end stays untouched.
//! - A record without a value (a tombstone) stays until `delete.retention.ms` after the pass that first kept it. That
//!   moment, the delete horizon, stands in the batch: attribute bit 6 is set and the base timestamp is the horizon.
//! - Records of aborted transactions go. A transaction's marker stays while a batch of the transaction was met in the
//!   pass, and from then on until its delete horizon.
//! - The last batch of an active producer stays, if need be without records: it carries the sequence.
//!
//! Offsets, sequences, producer, epochs, keys, values and headers never change. A batch that cannot be read is left
//! as it is, and behind it nothing goes whose absence could bring an older record back.

mod clean;
mod index;
mod key_map;
mod record;
mod rewrite;
mod transactions;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

pub use clean::{Cleaned, Cleaner, Counts, LastBatch, Policy};
pub use index::{Indexed, index_keys};
pub use key_map::{KeyMap, KeyMapError};
pub use record::{each_key_value, keyless_records, unpacked_check};
pub use transactions::{AbortedSpan, Transactions};
