//! The bundled store on several nodes: copies of objects and metadata snapshots on the nodes' own disks.
//!
//! Invariants: a put counts when a write quorum has synced it, and never replaces; a range is served only after the
//! checksums over it matched, from whichever node has it whole; "missing" takes the word of so many nodes that one of them
//! would have a copy, and only the word of nodes that once had everything which belongs on them; nothing comes back that
//! the metadata do not know; the last copy of anything is never removed for being damaged.
//!
//! It must never decide what lives: that is [`Living`]'s, which asks the metadata.

mod bundled;
mod placement;
mod remote;
mod repair;
mod scrub;
mod service;
mod status;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use bundled::{Bundled, Options, Parts};
pub use placement::COPIES;
pub use repair::{Life, Living};
pub use service::StoreService;
pub use status::{Counters, Status};
pub use transport::{PeerTransport, Transport};
pub use wire::{Ask, Tell};
