//! What this node's WAL holds of ledgers that this process does not write: those of its predecessors, and copies of
//! other nodes' ledgers.
//!
//! Leaders open their partitions from it, and whoever is to upload a ledger of somebody else takes its entries from here.
//! What this process itself has appended is in its partitions.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::base::{EntryId, LedgerId, PartitionId};
use crate::ledger::{self, Host, Replicas};
use crate::metadata::Replica;
use crate::partition::Recovered;

/// One entry, without what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldEntry {
    pub entry: EntryId,
    pub partition: PartitionId,
    /// In the WAL.
    pub bytes: u32,
}

/// Why entries were not copied here. Worth another try, or another holder.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullError(pub String);

/// Contract: what is answered is synced here, and its header and CRC were checked. Entries that the metadata need no more may
/// be missing. No call but [`Holdings::pull`] waits for anything or anybody.
pub trait Holdings: Send + Sync {
    /// The batches of a partition, in no order. Void entries may be among them.
    fn held(&self, partition: PartitionId) -> Vec<Recovered>;

    /// Everything from `from` on is held here below the answer, which is `from` when that one is missing.
    fn held_to(&self, ledger: LedgerId, from: EntryId) -> EntryId;

    /// The entries `from..to` of a ledger, in sequence, as far as they are held.
    fn entries(&self, ledger: LedgerId, from: EntryId, to: EntryId) -> Vec<HeldEntry>;

    /// Copies what is missing here of a ledger that has an end from a WAL that holds it.
    fn pull(&self, ledger: LedgerId, from: Replica) -> BoxFuture<'_, Result<(), PullError>>;
}

/// What the node's host of ledgers holds, and other nodes' for what it lacks.
pub struct HostHoldings {
    host: Arc<Host>,
    /// Other nodes, if there are any.
    others: Option<Arc<dyn Replicas>>,
}

impl HostHoldings {
    pub fn new(host: Arc<Host>, others: Option<Arc<dyn Replicas>>) -> HostHoldings {
        HostHoldings { host, others }
    }
}

impl Holdings for HostHoldings {
    fn held(&self, partition: PartitionId) -> Vec<Recovered> {
        let recovered = |held: ledger::HeldEntry| Recovered {
            header: held.header,
            bytes: held.bytes,
            ledger: held.ledger,
            entry: held.entry,
            location: held.location,
            marker: held.marker,
        };
        self.host.held(partition).into_iter().map(recovered).collect()
    }

    fn held_to(&self, ledger: LedgerId, from: EntryId) -> EntryId {
        self.host.held_through(ledger).max(from)
    }

    fn entries(&self, ledger: LedgerId, from: EntryId, to: EntryId) -> Vec<HeldEntry> {
        let entries = self.host.entries(ledger, from..to).into_iter();
        entries.map(|(entry, partition, location)| HeldEntry { entry, partition, bytes: location.len }).collect()
    }

    fn pull(&self, ledger: LedgerId, from: Replica) -> BoxFuture<'_, Result<(), PullError>> {
        Box::pin(async move {
            let Some(others) = &self.others else { return Err(PullError("this node knows no others".to_owned())) };
            let pulled = self.host.pull(ledger, from, &**others, &mut |_| {}).await;
            pulled.map_err(|error| PullError(error.to_string()))
        })
    }
}
