//! The partitions that are open on this node, and what the WAL's news means for them.
//!
//! The ledger's writer reports here what is durable: each entry moves its partition's high watermark, joins the queue of
//! what object storage does not have yet, and takes its place in the memory budget. What the WAL has synced is handed on
//! to those who wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::{EntryId, LedgerId, Offset, PartitionId};
use crate::env::Clock;
use crate::ledger::{Durable, LedgerEvents};
use crate::partition::Partition;
use crate::wal::{Synced, WalEvents};

use super::exposure::{Exposed, Exposure, Queues};

/// Why this process may do nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Storage failed, for good.
    Storage(String),
    /// The cluster goes on without this process: its broker epoch counts no more.
    Fenced(String),
}

#[derive(Default)]
struct Partitions {
    by_id: HashMap<PartitionId, Arc<Partition>>,
    /// Led by others, but with records that only this node's own ledgers have: they wait for their upload.
    departed: HashMap<PartitionId, Arc<Partition>>,
    /// By `Partition::slot`; a closed partition's place stays empty.
    slots: Vec<Option<Arc<Partition>>>,
}

impl Partitions {
    fn vacate(&mut self, partition: &Partition) {
        if let Some(slot) = self.slots.get_mut(partition.slot as usize) {
            *slot = None;
        }
    }
}

#[derive(Default)]
struct Queue {
    exposed: Queues,
    /// Batches that have a copy in memory, oldest first: slot, base offset, bytes.
    memory: VecDeque<(u64, Offset, u32)>,
    memory_bytes: u64,
}

impl Queue {
    /// Takes in what has become durable. Answers the batches whose copies in memory have to go, and the bytes exposed now.
    fn take_in(
        &mut self,
        group: &[Durable],
        visible: Vec<(u64, Offset, u32)>,
        at: Duration,
        memory_budget: u64,
    ) -> (Vec<(u64, Offset, u32)>, u64) {
        for entry in group {
            let bytes = entry.location.len;
            self.exposed.push(Exposed { ledger: entry.ledger, entry: entry.entry, bytes, at });
        }
        for batch in visible {
            self.memory_bytes += batch.2 as u64;
            self.memory.push_back(batch);
        }
        let mut evict = Vec::new();
        while self.memory_bytes > memory_budget
            && let Some(oldest) = self.memory.pop_front()
        {
            self.memory_bytes -= oldest.2 as u64;
            evict.push(oldest);
        }
        (evict, self.exposed.bytes())
    }
}

/// See the module's documentation.
pub struct Registry {
    partitions: RwLock<Partitions>,
    queue: Mutex<Queue>,
    memory_budget: u64,
    clock: Arc<dyn Clock>,
    /// Who waits for the WAL's news.
    listeners: RwLock<Vec<Weak<dyn WalEvents>>>,
    failed: watch::Sender<Option<Failure>>,
    /// Woken when the exposure has grown beyond what an upload waits for.
    pub upload_due: Notify,
    upload_bytes: u64,
}

impl Registry {
    /// `memory_budget` bounds the bytes of recent batches kept in memory; `upload_bytes` of exposure make an upload
    /// due at once.
    pub fn new(memory_budget: u64, upload_bytes: u64, clock: Arc<dyn Clock>) -> Registry {
        Registry {
            partitions: RwLock::default(),
            queue: Mutex::default(),
            memory_budget,
            clock,
            listeners: RwLock::default(),
            failed: watch::Sender::new(None),
            upload_due: Notify::new(),
            upload_bytes,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self) -> RwLockReadGuard<'_, Partitions> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions_mut(&self) -> RwLockWriteGuard<'_, Partitions> {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a partition at the next slot, in place of what has departed of it.
    pub fn open<E>(
        &self,
        id: PartitionId,
        open: impl FnOnce(u64) -> Result<Partition, E>,
    ) -> Result<Arc<Partition>, E> {
        let slot = {
            let mut partitions = self.partitions_mut();
            partitions.slots.push(None);
            partitions.slots.len() as u64 - 1
        };
        // Not under the lock, which everybody who serves a request takes: it goes through the whole tail.
        let partition = Arc::new(open(slot)?);
        let mut partitions = self.partitions_mut();
        partitions.slots[slot as usize] = Some(partition.clone());
        partitions.by_id.insert(id, partition.clone());
        if let Some(departed) = partitions.departed.remove(&id) {
            partitions.vacate(&departed);
        }
        Ok(partition)
    }

    /// Closes a partition that is gone.
    pub fn close(&self, id: PartitionId) {
        let removed = {
            let mut partitions = self.partitions_mut();
            let removed = [partitions.by_id.remove(&id), partitions.departed.remove(&id)];
            removed.iter().flatten().for_each(|partition| partitions.vacate(partition));
            removed
        };
        removed.iter().flatten().for_each(|partition| partition.close());
    }

    /// Closes a partition that another node leads now. It stays for the upload of what this node's ledgers have of it.
    pub fn depart(&self, id: PartitionId) {
        let removed = {
            let mut partitions = self.partitions_mut();
            let removed = partitions.by_id.remove(&id);
            if let Some(partition) = &removed {
                // Its slot stays: what is in the ledger and not durable yet is uploaded from here, too.
                partitions.departed.insert(id, partition.clone());
            }
            removed
        };
        if let Some(partition) = removed {
            partition.depart();
            self.forget_departed(id);
        }
    }

    pub fn departed(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.partitions().departed.get(&id).cloned()
    }

    /// Forgets a departed partition of which nothing has to be uploaded from here any more.
    pub fn forget_departed(&self, id: PartitionId) {
        let mut partitions = self.partitions_mut();
        if partitions.departed.get(&id).is_some_and(|partition| partition.is_uploaded())
            && let Some(departed) = partitions.departed.remove(&id)
        {
            partitions.vacate(&departed);
        }
    }

    /// Partitions that have records in the ledgers of this process: those that are open, and those that have departed.
    pub fn with_records(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions();
        partitions.by_id.values().chain(partitions.departed.values()).cloned().collect()
    }

    pub fn get(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.partitions().by_id.get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions().by_id.values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.partitions().by_id.len()
    }

    /// Entries of a ledger that this node is to upload, found in its WAL.
    pub fn expose(&self, entries: impl IntoIterator<Item = Exposed>) {
        let mut queue = self.queue();
        entries.into_iter().for_each(|entry| queue.exposed.push(entry));
    }

    /// Ledgers with something to upload, oldest first.
    pub fn exposed_ledgers(&self) -> Vec<LedgerId> {
        self.queue().exposed.ledgers()
    }

    /// Where the next upload of `ledger` is cut: at most `max_bytes`, but at least one entry. The first entry after it.
    pub fn next_upload(&self, ledger: LedgerId, max_bytes: u64) -> Option<EntryId> {
        self.queue().exposed.cut(ledger, max_bytes)
    }

    /// Entries of `ledger` below `through` are in object storage now, or nobody's here.
    pub fn uploaded(&self, ledger: LedgerId, through: EntryId) {
        self.queue().exposed.uploaded(ledger, through);
    }

    pub fn exposure_of(&self, ledger: LedgerId) -> Exposure {
        let now = self.clock.boottime();
        self.queue().exposed.exposure_of(ledger, now)
    }

    pub fn exposure(&self) -> Exposure {
        let now = self.clock.boottime();
        self.queue().exposed.exposure(now)
    }

    /// Bytes of recent batches in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.queue().memory_bytes
    }

    /// Hands the WAL's news on to `listener`, too, as long as somebody else keeps it.
    pub fn listen(&self, listener: Weak<dyn WalEvents>) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Nothing is taken or answered any more. The first reason stands.
    fn end(&self, failure: Failure) {
        self.failed.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(failure);
            is_first
        });
        for partition in self.all() {
            partition.close();
        }
    }

    /// Storage outside the WAL failed for good: the node fences itself as it does for the WAL.
    pub fn fence(&self, reason: &str) {
        WalEvents::failed(self, reason);
    }

    /// Why this process has to end, once it has to.
    pub fn failure(&self) -> watch::Receiver<Option<Failure>> {
        self.failed.subscribe()
    }
}

impl LedgerEvents for Registry {
    fn durable(&self, group: &[Durable]) {
        let at = self.clock.boottime();
        let partitions = self.partitions();
        let visible: Vec<_> = group
            .iter()
            .filter_map(|entry| {
                let partition = partitions.slots.get(entry.token as usize)?.as_ref()?;
                let base = partition.synced(entry.ledger, entry.entry, entry.location)?;
                Some((entry.token, base, entry.location.len))
            })
            .collect();
        // Only now, when every partition counts them as durable: an upload that saw an entry here first would move
        // the ledger's position past records that its partition does not give it yet.
        let (evict, due) = self.queue().take_in(group, visible, at, self.memory_budget);
        for (slot, base, _) in evict {
            if let Some(Some(partition)) = partitions.slots.get(slot as usize) {
                partition.forget_memory(base);
            }
        }
        if due >= self.upload_bytes {
            self.upload_due.notify_one();
        }
    }

    fn fenced(&self, reason: &str) {
        self.end(Failure::Fenced(reason.to_owned()));
    }
}

impl WalEvents for Registry {
    fn synced(&self, group: &[Synced]) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(listener) = listener.upgrade() {
                listener.synced(group);
            }
        }
    }

    fn failed(&self, reason: &str) {
        self.end(Failure::Storage(reason.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, TopicId};
    use crate::env::SystemClock;
    use crate::metadata;
    use crate::partition::RecoveredGap;
    use crate::wal::Location;

    #[test]
    fn an_entry_is_up_for_upload_only_when_its_partition_counts_it_as_durable() {
        let registry = Registry::new(1 << 20, 1 << 20, Arc::new(SystemClock));
        let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
        let image = metadata::Partition::new(NodeId(1));
        let opened: Result<_, RecoveredGap> =
            registry.open(id, |slot| Partition::open(id, "t".into(), slot, &image, Vec::new(), 0));
        let partition = opened.expect("an empty partition opens");
        let location = Location { segment: 1, offset: 0, len: 100 };
        let group = [Durable { ledger: LedgerId(1), entry: EntryId(0), location, token: partition.slot }];

        // While the partition cannot take the news, an upload must not see the entry: its cut would move the
        // ledger's position past records that the partition does not give it yet.
        let held = partition.hold();
        std::thread::scope(|scope| {
            let news = scope.spawn(|| registry.durable(&group));
            for _ in 0..100 {
                assert_eq!(registry.next_upload(LedgerId(1), u64::MAX), None, "the window is open");
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(!news.is_finished(), "the news wait for the partition");
            drop(held);
        });
        assert_eq!(registry.next_upload(LedgerId(1), u64::MAX), Some(EntryId(1)));
    }
}
