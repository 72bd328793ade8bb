//! What this node's WAL holds of ledgers that this process does not write: those of its predecessors, and copies of
//! other nodes' ledgers.
//!
//! Leaders open their partitions from it, and whoever is to upload a ledger of somebody else takes its entries from here.
//! What this process itself has appended is in its partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

use crate::base::{EntryId, LedgerId, NodeId, PartitionId};
use crate::metadata::Image;
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

    /// Nobody will ask for what `image` does not need.
    fn follow(&self, image: &Image);

    /// Copies what is missing here of a ledger that has an end from `node`, which holds it.
    fn pull(&self, ledger: LedgerId, node: NodeId) -> BoxFuture<'_, Result<(), PullError>>;
}

/// A holding of nothing but what a start found in the WAL: that of a node that has no others.
#[derive(Debug, Default)]
pub struct FoundEntries(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    by_partition: HashMap<PartitionId, Vec<Recovered>>,
    by_ledger: BTreeMap<LedgerId, BTreeMap<EntryId, HeldEntry>>,
}

impl FoundEntries {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, partition: PartitionId, recovered: Recovered) {
        let held = HeldEntry { entry: recovered.entry, partition, bytes: recovered.location.len };
        let mut found = self.found();
        found.by_ledger.entry(recovered.ledger).or_default().insert(recovered.entry, held);
        found.by_partition.entry(partition).or_default().push(recovered);
    }
}

impl Holdings for FoundEntries {
    fn held(&self, partition: PartitionId) -> Vec<Recovered> {
        self.found().by_partition.get(&partition).cloned().unwrap_or_default()
    }

    fn held_to(&self, ledger: LedgerId, from: EntryId) -> EntryId {
        let mut next = from;
        for (entry, _) in self.found().by_ledger.get(&ledger).into_iter().flat_map(|entries| entries.range(from..)) {
            if *entry != next {
                break;
            }
            next = next.next();
        }
        next
    }

    fn entries(&self, ledger: LedgerId, from: EntryId, to: EntryId) -> Vec<HeldEntry> {
        let found = self.found();
        let Some(entries) = found.by_ledger.get(&ledger).filter(|_| from < to) else { return Vec::new() };
        entries.range(from..to).map(|(_, entry)| *entry).collect()
    }

    fn follow(&self, image: &Image) {
        let mut found = self.found();
        let gone = |ledger: &LedgerId, entries: &BTreeMap<EntryId, HeldEntry>| {
            entries.first_key_value().is_some_and(|(first, _)| !image.needs(*ledger, *first))
        };
        if !found.by_ledger.iter().any(|(ledger, entries)| gone(ledger, entries)) {
            return;
        }
        for (ledger, entries) in &mut found.by_ledger {
            entries.retain(|entry, _| image.needs(*ledger, *entry));
        }
        found.by_ledger.retain(|_, entries| !entries.is_empty());
        for batches in found.by_partition.values_mut() {
            batches.retain(|batch| image.needs(batch.ledger, batch.entry));
        }
        found.by_partition.retain(|_, batches| !batches.is_empty());
    }

    fn pull(&self, ledger: LedgerId, node: NodeId) -> BoxFuture<'_, Result<(), PullError>> {
        let error = PullError(format!("ledger {ledger} cannot be had from node {node}: this node has no others"));
        Box::pin(std::future::ready(Err(error)))
    }
}
