//! This node as a holder of ledgers: the account of a replica on top of the WAL, and what the WAL has of each partition.
//!
//! - Entries of other nodes' ledgers come as requests of class Ledger and leave as requests of class Bulk; a recovery or a
//!   new leader that runs here uses the same by calls ([`Host::seal_local`], [`Host::recover_local`],
//!   [`Host::read_local`]).
//! - The own writer hands its entries to the WAL itself. Its news are told from the host's by their token ([`Hosted`]).
//! - [`Host::held`] gives a new leader the batches of a partition's tail, [`Host::pull`] what this WAL lacks of a ledger.
//!
//! Invariants: an answer to an append is sent after the sync of its last entry. The account and the WAL agree: what the WAL
//! refuses is put back in the account, under the same lock. Only a ledger's own writer appends to it. What an image says
//! is uploaded leaves the index; what it says is finished leaves the account and the seals.
//!
//! Locks: `state` here is taken before the WAL's, and never while a callback of the WAL's user runs.

mod asked;
#[cfg(test)]
mod contract_tests;
mod hosted;
mod index;
mod pull;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::base::limits::LEDGER_READS_BYTES_MAX;
use crate::base::{EntryId, LedgerId, NodeId, PartitionId};
use crate::metadata::{self, Image};
use crate::wal::{Location, Wal};

use super::core::{self, Identity, Plant, ReplicaEvent, Reply};
use super::wire::Payload;
use index::{Index, Parsed};

pub use hosted::Hosted;
pub use index::{Found, HeldEntry, UnreadableEntry};
pub use pull::PullError;
pub use read::ReadFailed;

/// Bytes that one permit for reading stands for.
const READ_UNIT_BYTES: usize = 1024;

/// What the applied image says of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    writer: NodeId,
    uploaded: EntryId,
    end: Option<EntryId>,
    /// It is open, and this WAL is one of its replicas.
    open_here: bool,
}

/// Somebody who waits until entries below `needs` are synced.
struct Waiter {
    needs: EntryId,
    answer: oneshot::Sender<Reply>,
}

struct State {
    replica: core::Replica,
    index: Index,
    known: BTreeMap<LedgerId, Known>,
    /// Ledgers from here on were not given out yet, as far as is known here.
    next_ledger: u64,
    /// Entries handed to the WAL and not synced yet, in their order.
    unsynced: HashMap<LedgerId, VecDeque<(EntryId, Parsed)>>,
    waiting: HashMap<LedgerId, Vec<Waiter>>,
    /// Why the WAL takes nothing any more.
    failed: Option<String>,
}

/// See the module's documentation.
pub struct Host {
    identity: Identity,
    wal: Arc<Wal>,
    state: Mutex<State>,
    reads: Arc<Semaphore>,
}

impl Host {
    /// Begins to serve. The registration of this process is recorded in the WAL, and `image` has it applied: so no image from
    /// here on is older than one that let a seal be forgotten. `found` is what the opening of the WAL gave, `hosted` its
    /// listener. Blocks as [`Host::applied`] does.
    pub fn start(
        node: NodeId,
        wal: Arc<Wal>,
        found: Found,
        hosted: &Hosted,
        image: &Image,
    ) -> Result<Arc<Host>, UnreadableEntry> {
        let identity = Identity { node, incarnation: wal.incarnation(), boot: wal.boot() };
        let index = found.checked()?;
        let replica = core::Replica::new(identity, index::held(&index, &wal.seals()), Plant::default());
        let state = State {
            replica,
            index,
            known: BTreeMap::new(),
            next_ledger: image.next_ledger,
            unsynced: HashMap::new(),
            waiting: HashMap::new(),
            failed: None,
        };
        let reads = Arc::new(Semaphore::new(LEDGER_READS_BYTES_MAX / READ_UNIT_BYTES));
        let host = Arc::new(Host { identity, wal, state: Mutex::new(state), reads });
        hosted.serve(&host);
        host.take_in(image, true);
        Ok(host)
    }

    /// Who answers here.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an image, which is newer than every one before. Lets writers in, trims, and forgets what is finished.
    /// Blocks: frees segments of the WAL and may write its manifest.
    pub fn applied(&self, image: &Image) {
        self.take_in(image, false);
    }

    fn take_in(&self, image: &Image, first: bool) {
        let changed = self.lock().applied(image, self.identity);
        if !changed && !first {
            return;
        }
        self.wal.trim(&|ledger, entry| image.needs(ledger, entry));
        if let Err(error) = self.wal.forget(&|ledger| is_finished(image, ledger)) {
            // The seals stay, which refuses only what nobody asks for any more; the next image tries again.
            tracing::warn!(%error, "the seals of finished ledgers are still in the WAL's manifest");
        }
    }

    /// The partition's batches in this WAL that are not in object storage and not void, in the order of their ledgers and
    /// entries. Without those of ledgers that this process writes.
    pub fn held(&self, partition: PartitionId) -> Vec<HeldEntry> {
        let state = self.lock();
        state.index.held(partition, |ledger| state.valid(ledger))
    }

    /// The entries of a ledger that another process wrote within `range`, as far as they are held and count: in sequence,
    /// each with its partition and its place.
    pub fn entries(&self, ledger: LedgerId, range: std::ops::Range<EntryId>) -> Vec<(EntryId, PartitionId, Location)> {
        let state = self.lock();
        let valid = state.valid(ledger);
        state.index.entries(ledger, range.start.max(valid.start)..range.end.min(valid.end))
    }

    /// The partitions that [`Host::held`] has anything of.
    pub fn held_partitions(&self) -> Vec<PartitionId> {
        let state = self.lock();
        state.index.partitions(|ledger| state.valid(ledger))
    }

    /// Every entry of the ledger below is synced here, but for what is in object storage; never above its end.
    pub fn held_through(&self, ledger: LedgerId) -> EntryId {
        let state = self.lock();
        let known = state.known.get(&ledger);
        let uploaded = known.map_or(EntryId(0), |known| known.uploaded);
        let held = match state.index.span(ledger) {
            // What is missing between object storage and the first entry here is not held.
            Some((first, next)) if first <= uploaded => next.max(uploaded),
            _ => uploaded,
        };
        known.and_then(|known| known.end).map_or(held, |end| held.min(end))
    }
}

/// Nobody writes to the ledger any more, and all of it is in object storage.
fn is_finished(image: &Image, ledger: LedgerId) -> bool {
    match image.ledgers.get(&ledger) {
        Some(known) => known.is_finished(),
        None => ledger.0 < image.next_ledger,
    }
}

impl State {
    /// Entries of the ledger that count and are not in object storage.
    fn valid(&self, ledger: LedgerId) -> std::ops::Range<EntryId> {
        match self.known.get(&ledger) {
            Some(known) => known.uploaded..known.end.unwrap_or(EntryId(u64::MAX)),
            None if ledger.0 >= self.next_ledger => EntryId(0)..EntryId(u64::MAX),
            None => EntryId(0)..EntryId(0),
        }
    }

    /// Whether anything about ledgers has changed.
    fn applied(&mut self, image: &Image, identity: Identity) -> bool {
        let own = metadata::Replica { node: identity.node, incarnation: identity.incarnation };
        let known = |ledger: &metadata::Ledger| Known {
            writer: ledger.node,
            uploaded: ledger.uploaded,
            end: ledger.end,
            open_here: ledger.end.is_none() && ledger.replicas.contains(&own),
        };
        let live = image.ledgers.iter().filter(|(_, ledger)| !ledger.is_finished());
        let now: BTreeMap<LedgerId, Known> = live.map(|(id, ledger)| (*id, known(ledger))).collect();
        self.next_ledger = image.next_ledger;
        let changed = now != self.known;
        self.known = now;
        self.let_in_and_trim();
        let in_index = self.index.ledgers().into_iter();
        let all: Vec<LedgerId> = in_index.chain(self.replica.ledgers()).collect();
        for ledger in all.into_iter().filter(|ledger| is_finished(image, *ledger)) {
            self.index.remove(ledger);
            self.replica.forget(ledger);
            self.unsynced.remove(&ledger);
            self.waiting.remove(&ledger);
        }
        changed
    }

    fn let_in_and_trim(&mut self) {
        for (ledger, known) in &self.known {
            let (ledger, uploaded) = (*ledger, known.uploaded);
            if known.open_here {
                self.replica.step(ReplicaEvent::<Payload>::Opened { ledger });
            }
            // The WAL is trimmed by the image itself; here only the account learns of it.
            self.replica.step(ReplicaEvent::<Payload>::Uploaded { ledger, uploaded });
            self.index.trim(ledger, uploaded);
        }
    }
}
