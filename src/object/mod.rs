//! Objects: their immutable format, the cache and read-ahead through which they are read, and the places where they
//! are kept (a local folder, or a bucket of an S3-compatible service).
//!
//! Invariants: an object is never changed and its key never reused; what is read is served only after its checksum
//! and its address matched; a missing object is an error that says so, never an empty answer; a put that returned is
//! durable. Memory for reading is bounded, and its requests have a budget of their own, so that a reader far behind
//! does not slow producers down.
//!
//! This module is the only one that knows object_store. It must never decide which objects live: that is recorded
//! in the metadata.

mod buffers;
mod builder;
mod cache;
mod credentials;
mod error;
mod failure;
#[cfg(any(test, feature = "failpoints"))]
pub mod faults;
mod folder;
mod format;
mod http;
mod local;
mod metrics;
mod objects;
mod options;
mod probe;
mod reader;
mod run;
mod shared;
mod snapshot;
mod staging;
mod state;
mod store;
mod sums;
#[cfg(test)]
mod tests;
mod verify;

pub use builder::{BLOCK_BYTES, BuildError, Built, OBJECT_BYTES_MAX, OBJECT_BYTES_TARGET, ObjectBuilder};
pub use error::{CredentialsError, OpenError, Part, ProbeError, ReadError, SnapshotError, StoreError};
pub use format::{DirectoryEntry, FORMAT_VERSION, FormatError};
pub use local::{Incoming, Listed, LocalError, LocalStore, Shelf, StoredKey};
pub use metrics::{ObjectMetrics, Outcome, Request};
pub use objects::{Deleted, Objects, SNAPSHOTS_KEPT};
pub use options::{Bucket, ObjectOptions, Place};
pub use probe::Capabilities;
pub use reader::{BlockSpan, ObjectRead};
pub use shared::{SharedError, SharedStore};
pub use snapshot::Snapshot;
pub use state::{AbortedTransaction, OpenTransaction, PartitionState, ProducerBatch, ProducerEntry, RunTransactions};
pub use sums::Sums;
pub use verify::verify_object;

/// What tests of other back ends share with those here.
#[cfg(test)]
pub(crate) mod testing {
    pub use super::tests::service::contract;
    pub use super::tests::{CLUSTER, batches, bundle, key, options, read_all};
}
