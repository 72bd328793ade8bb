//! The protocol of a replicated ledger as state machines: an event goes in, actions come out.
//!
//! Three roles. The [`Writer`] gives entries their place, sends them to the replicas and says what is durable. A
//! [`Replica`] takes entries in sequence and can be sealed. A [`Recovery`] finds the end of a ledger whose writer is
//! fenced. Nothing here does I/O, reads a clock or draws a random number, and nothing panics whatever a peer says: drivers
//! carry the actions out and bring back what came of them. So the same code runs in a broker, in transcripts, and under a
//! model that explores every interleaving within its bounds (`model`).
//!
//! What the roles rely on, for a ledger with `n` replicas and write quorum `w`:
//!
//! - An entry's content is fixed by (ledger, entry): one writer, one incarnation, numbers given out once. So copies of an
//!   entry are equal wherever they come from, and it is harmless to copy one twice.
//! - Durable: synced by the writer's own WAL and by `w` replicas in all. The own WAL is asked for so that whatever is
//!   durable can be read back from it; safety needs only the `w`.
//! - Any `w` replicas and any `n − w + 1` have one in common. So whoever has heard that many sealed replicas has heard
//!   of every durable entry, and no further one can become durable.
//! - A replica is a node *and* the incarnation of its WAL. What another incarnation, or an older copy of the same one
//!   (a lower boot count), says is no answer at all.
//! - *Uncertain beyond N*: a damaged tail was cut there at a start. What is held up to N counts as held. That an entry
//!   beyond N was never acknowledged cannot be concluded from it. See [`Recovery`] for what is done about that.
//! - Messages may be lost, repeated and reordered; drivers need not bring them in order, though they will.

mod plant;
mod recovery;
mod replica;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod transcript_tests;

use bytes::Bytes;

use crate::base::{EntryId, LedgerId, NodeId, WalIncarnation};
use crate::wal::SealAnswer;

#[cfg(test)]
pub use plant::Bug;
pub use plant::Plant;
pub use recovery::{Recovery, RecoveryAction, RecoveryEvent, Registered};
pub use replica::{Held, Replica, ReplicaAction, ReplicaEvent, Saved};
pub use writer::{AppendError, Outcome, Writer, WriterAction, WriterEvent, WriterOptions};

/// What a ledger holds. The cores only count its bytes.
pub trait Payload: Clone {
    fn bytes(&self) -> usize;
}

impl Payload for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Who answers: a node, the WAL that it has, and how often it was started on it. The boot count goes up with every start
/// that the metadata have accepted, and is synced in the WAL before that process takes or says anything about a ledger. A
/// start that was not accepted does not count: an older copy of the WAL, which lacks seals as well as entries, must not get
/// past the recorded count by being started often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub node: NodeId,
    pub incarnation: WalIncarnation,
    pub boot: u64,
}

/// What is asked of a replica. A driver addresses it to a node *and* an incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request<P> {
    /// From the writer. Entries below `durable` are durable.
    Append { ledger: LedgerId, entry: EntryId, durable: EntryId, payload: P },
    /// From a recoverer: refuse the writer from now on, and say what is held.
    Seal { ledger: LedgerId },
    /// From a recoverer, to a replica that is sealed. Entries below `uploaded` are in object storage.
    Recover { ledger: LedgerId, entry: EntryId, durable: EntryId, uploaded: EntryId, payload: P },
}

/// What a replica says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// To the writer. Every entry below `synced` that is not in object storage and not below `first` is synced here; those below
    /// `durable` are known to be durable.
    Position { ledger: LedgerId, first: EntryId, synced: EntryId, durable: EntryId },
    /// The same of a sealed ledger, to recoverers. A writer must not count it: copies of a recoverer are among them, and another
    /// recoverer may find an end below them.
    Copied { ledger: LedgerId, first: EntryId, synced: EntryId, durable: EntryId },
    /// The entry is not the one that follows; `expected` is.
    OutOfSequence { ledger: LedgerId, expected: EntryId },
    /// The writer is refused for good.
    Sealed { ledger: LedgerId },
    /// The metadata applied here do not list the ledger as open yet. To be tried again.
    NotOpen { ledger: LedgerId },
    /// A recoverer has to seal first.
    NotSealed { ledger: LedgerId },
    /// The ledger is sealed here, safely on disk. The answer of one incarnation never changes.
    SealAnswer { ledger: LedgerId, through: Option<EntryId>, uncertain_from: Option<EntryId>, durable: EntryId },
    /// Another incarnation was asked for than is here, or what was held is damaged. Never counted.
    Unknown { ledger: LedgerId },
    /// There is no room: for an entry in the WAL, or for a further ledger in the account. Nothing was taken.
    Busy { ledger: LedgerId },
}

impl Reply {
    pub fn ledger(&self) -> LedgerId {
        match *self {
            Reply::Position { ledger, .. }
            | Reply::Copied { ledger, .. }
            | Reply::OutOfSequence { ledger, .. }
            | Reply::Sealed { ledger }
            | Reply::NotOpen { ledger }
            | Reply::NotSealed { ledger }
            | Reply::SealAnswer { ledger, .. }
            | Reply::Unknown { ledger }
            | Reply::Busy { ledger } => ledger,
        }
    }

    fn of_seal(ledger: LedgerId, answer: SealAnswer, durable: EntryId) -> Reply {
        Reply::SealAnswer { ledger, through: answer.through, uncertain_from: answer.uncertain_from, durable }
    }
}

/// Copies that make an entry durable in a set of `replicas`: a majority but at least two, and one for a node alone.
pub fn write_quorum(replicas: usize) -> usize {
    if replicas <= 1 { 1 } else { (replicas / 2 + 1).max(2) }
}

/// Sealed replicas that have to be heard: as many as meet every write quorum.
pub fn seal_quorum(replicas: usize, write_quorum: usize) -> usize {
    (replicas + 1).saturating_sub(write_quorum).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_quorum_meets_every_seal_quorum() {
        for n in 1..=7 {
            let (w, s) = (write_quorum(n), seal_quorum(n, write_quorum(n)));
            assert!(w + s > n && s >= 1 && w <= n.max(1), "n {n}");
            assert!(n == 1 || w >= 2, "one copy is never enough in a cluster");
        }
    }
}
