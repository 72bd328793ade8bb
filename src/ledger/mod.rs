//! The ledger: the write-ahead log of one broker incarnation in its replicated form (the term is BookKeeper's).
//!
//! Rules (the reasons are in ARCHITECTURE.md): a ledger belongs to one broker epoch and is never opened again; its
//! replicas are named by node and WAL incarnation; entries enter in sequence; an entry is durable once the write
//! quorum has synced it; a sealed replica refuses the writer; the end is set once, in the metadata.
//!
//! With one node the replica set has one member, and everything goes the same way.

pub mod core;
mod host;
mod recovery;
mod replica;
pub mod wire;
mod writer;

pub use host::{Found, HeldEntry, Host, Hosted, PullError, ReadFailed, UnreadableEntry};
pub use recovery::{RecoveryError, seal_ledger};
pub use replica::{LocalReplica, Replica};
pub use writer::{ENTRY_HEAD_BYTES, LedgerError, LedgerWriter, batch_of, decode_entry};

#[cfg(test)]
mod contract;
