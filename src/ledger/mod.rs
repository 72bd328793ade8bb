//! The ledger: the write-ahead log of one broker incarnation in its replicated form (the term is BookKeeper's).
//!
//! Rules (the reasons are in ARCHITECTURE.md): a ledger belongs to one broker epoch and is never opened again; its
//! replicas are named by node and WAL incarnation; entries enter in sequence; an entry is durable once the write
//! quorum has synced it; a sealed replica refuses the writer; the end is set once, in the metadata.
//!
//! With one node the replica set has one member, and everything goes the same way.

mod copies;
pub mod core;
mod drive;
mod host;
mod links;
pub mod placement;
mod recover;
pub mod wire;
mod writer;

pub use copies::Copies;
pub use drive::{Answering, DriveParts, Link, Links, NotSent, Openings, drive};
pub use host::{Found, HeldEntry, Host, Hosted, PullError, ReadFailed, UnreadableEntry};
pub use links::{HostReplicas, NodeReplicas, PeerLinks, PeerReplicas};
pub use recover::{RecoverError, RecoveryParts, Registrations, Replicas, recover_ledger, recover_ledgers};
pub use writer::{
    Durable, ENTRY_HEAD_BYTES, LedgerError, LedgerEvents, LedgerWriter, Proposal, REPLICAS_WANTED, batch_of,
    decode_entry, writer_options,
};

#[cfg(test)]
mod drive_tests;
