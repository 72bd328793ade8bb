//! A cluster of three nodes in one thread under a seeded clock, network, disks and object store.
//!
//! What is decided here is decided by the real cores: the ledger's writer, replica and recovery, the account of leases, the
//! controller, and the metadata's own `apply`. Around them is the least that makes a cluster of them: a log of commands with a leader that
//! comes and goes (Raft's promise, not Raft itself), WALs that sync after a while and lose the rest in a crash, links
//! that are late or cut, processes that are killed, stopped and go on, an object store that is away, producers that send
//! until they are acknowledged, and readers.
//!
//! A run is a function of its seed: events are ordered by time, then by the order in which they were made, and nothing
//! else is random. Its trace is a hash over all events, and the same seed gives the same one.
//!
//! **What must hold** is in `oracle`: an acknowledged batch is at its offset, once, in the order of its producer; what was
//! read at an offset stays; and when everything is mended, all that was sent is acknowledged, uploaded and read
//! back within a bounded time.
//!
//! **Planted bugs**, the ledger's own and those of `Planted`, must be found within a bounded number of seeds.

mod client;
mod controller;
mod disk;
mod faults;
mod node;
mod oracle;
mod partition;
mod quorum;
mod runs;
mod upload;
mod world;

use std::rc::Rc;

use crate::ledger::core::{Payload, Plant};

/// Times are microseconds since the run began.
type Micros = u64;
const MS: Micros = 1_000;

/// Nodes of the cluster; they are numbered from 0 here and from 1 in the metadata.
const NODES: usize = 3;
/// Partitions of the one topic; each has one producer and one reader.
const PARTITIONS: usize = 4;

/// One batch of one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    partition: usize,
    offset: i64,
    leader_epoch: i32,
    /// What its producer sent: 0, 1, 2, … in each partition, which is also the producer's sequence.
    value: u64,
    bytes: usize,
}

impl Payload for Rc<Batch> {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A bug of what is around the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// A new leader does not rebuild what it knows of producers: a batch that is sent again is appended again.
    ProducersForgotten,
    /// A new leader begins with what it holds, whether or not that is all.
    OpensIncomplete,
    /// A broker answers whether or not its lease still runs. By itself harmless: leases decide about availability only.
    LeaseIgnored,
    /// The same, and a writer does not listen when it is told that a replica was sealed.
    FenceIgnored,
}

/// At most one bug.
#[derive(Clone, Copy, Debug, Default)]
struct Bugs {
    ledger: Plant,
    around: Option<Planted>,
}

impl Bugs {
    fn has(&self, planted: Planted) -> bool {
        self.around == Some(planted)
    }

    fn ignores_leases(&self) -> bool {
        matches!(self.around, Some(Planted::LeaseIgnored | Planted::FenceIgnored))
    }
}
