//! Opening the partitions that this node leads: at the start, after a failover, after a move, all in one way.
//!
//! Nothing of a partition is served before all of it is here: from what object storage has, without a gap, to the end of
//! what a live leader handed over and to the ends of the ledgers of leaders that died. What is missing is copied from
//! another holder, beside everything else that goes on; until then nobody finds the partition here, which clients take
//! for a leader that is not known yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::base::{BrokerEpoch, EntryId, LeaderEpoch, LedgerId, NodeId, Offset, PartitionId};
use crate::metadata::{self, Image, Ledger, Replica, Topic};
use crate::partition::{Partition, Recovered, RecoveredGap};

use super::Broker;
use super::holdings::Holdings;
use super::registry::Registry;

/// Pauses before the next look at what is missing: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LAST: Duration = Duration::from_secs(1);
/// Ledgers that are copied here at a time.
const PULLS: usize = 4;

/// What a node knows when it opens partitions.
pub(super) struct Opener<'a> {
    pub registry: &'a Registry,
    pub holdings: &'a dyn Holdings,
    pub node: NodeId,
    /// Of this process: what it has written itself is in its partitions.
    pub epoch: BrokerEpoch,
    pub image: &'a Image,
    pub now_ms: i64,
    /// See [`Opener::incomplete`].
    incomplete: OnceLock<BTreeSet<LedgerId>>,
}

/// Why a partition cannot be opened yet.
#[derive(Debug)]
pub(super) struct NotYet {
    /// First offset that is missing.
    pub gap: RecoveredGap,
    /// Ledgers that have to be copied here.
    pub missing: BTreeSet<LedgerId>,
}

impl<'a> Opener<'a> {
    pub fn new(
        registry: &'a Registry,
        holdings: &'a dyn Holdings,
        (node, epoch): (NodeId, BrokerEpoch),
        image: &'a Image,
        now_ms: i64,
    ) -> Opener<'a> {
        Opener { registry, holdings, node, epoch, image, now_ms, incomplete: OnceLock::new() }
    }

    /// Ledgers with an end of which this node does not have everything that object storage lacks.
    fn incomplete(&self) -> &BTreeSet<LedgerId> {
        self.incomplete.get_or_init(|| {
            let lacks = |(id, ledger): (&LedgerId, &Ledger)| {
                let end = ledger.end.filter(|_| !is_of(ledger, self.node, self.epoch))?;
                (self.holdings.held_to(*id, ledger.uploaded) < end).then_some(*id)
            };
            self.image.ledgers.iter().filter_map(lacks).collect()
        })
    }

    /// Those among them that may have records beyond what was handed over: of processes that are gone. One that lives on
    /// has named the end of each partition that left it.
    fn unread(&self) -> BTreeSet<LedgerId> {
        let is_gone =
            |id: &&LedgerId| self.image.ledgers.get(id).is_some_and(|known| self.image.is_writer_fenced(known));
        self.incomplete().iter().filter(is_gone).copied().collect()
    }

    /// Opens a partition that this node leads, or says what is missing. `handed_over`: the leader before gave it away
    /// itself, so that nothing lies beyond what it named.
    pub fn open(
        &self,
        topic: &Topic,
        id: PartitionId,
        partition: &metadata::Partition,
        handed_over: bool,
    ) -> Result<(), NotYet> {
        let departed = self.registry.departed(id);
        let departed = departed.map(|known| (known.positions().high_watermark, known));
        let departed = departed.filter(|(end, _)| *end > partition.uploaded_end);
        let start = departed.as_ref().map_or(partition.uploaded_end, |(end, _)| *end);
        let held = sorted(self.image, partition, start, self.holdings.held(id));
        let (tail, gap) = contiguous(id, start, held, partition.handed_over);
        if let Some(gap) = gap {
            return Err(NotYet { gap, missing: self.incomplete().clone() });
        }
        // In its first epoch nobody has led it before.
        if !handed_over && partition.leader_epoch != LeaderEpoch(0) {
            let missing = self.unread();
            if !missing.is_empty() {
                let end = tail.last().map_or(start, |batch| batch.header.next_offset());
                return Err(NotYet { gap: RecoveredGap { partition: id, from: end, to: end }, missing });
            }
        }
        let opened = self.registry.open(id, |slot| match &departed {
            Some((_, departed)) => departed.reopen(slot, partition, tail, self.now_ms),
            None => Partition::open(id, topic.name.clone(), slot, partition, tail, self.now_ms),
        });
        opened.map(drop).map_err(|gap| NotYet { gap, missing: BTreeSet::new() })
    }
}

/// Whether a process of a broker wrote the ledger.
pub(super) fn is_of(ledger: &Ledger, node: NodeId, epoch: BrokerEpoch) -> bool {
    (ledger.node, ledger.epoch) == (node, epoch)
}

/// What counts of the batches that are held of a partition, from `start` on and in order.
///
/// Void entries do not count, nor does what lies in a ledger that is still written beyond what its writer handed over. A
/// batch that found its way into a second ledger because its first set of replicas was replaced counts where it is last.
fn sorted(image: &Image, partition: &metadata::Partition, start: Offset, held: Vec<Recovered>) -> Vec<Recovered> {
    let counts = |batch: &Recovered| {
        let ledger = image.ledgers.get(&batch.ledger);
        let settled = |ledger: &Ledger| ledger.end.is_some() || batch.header.next_offset() <= partition.handed_over;
        batch.header.next_offset() > start && image.needs(batch.ledger, batch.entry) && ledger.is_some_and(settled)
    };
    let mut held: Vec<_> = held.into_iter().filter(counts).collect();
    held.sort_by_key(|batch| (batch.header.base_offset, std::cmp::Reverse(batch.ledger)));
    held.dedup_by_key(|batch| batch.header.base_offset);
    held
}

/// The batches that follow one another from `start` on, and what is missing behind them: before the next one that is held,
/// or up to `handed_over`.
fn contiguous(
    partition: PartitionId,
    start: Offset,
    held: Vec<Recovered>,
    handed_over: Offset,
) -> (Vec<Recovered>, Option<RecoveredGap>) {
    let mut end = start;
    let mut tail = Vec::with_capacity(held.len());
    for batch in held {
        if batch.header.base_offset != end {
            let to = batch.header.base_offset;
            return (tail, Some(RecoveredGap { partition, from: end, to }));
        }
        end = batch.header.next_offset();
        tail.push(batch);
    }
    let gap = (end < handed_over).then_some(RecoveredGap { partition, from: end, to: handed_over });
    (tail, gap)
}

/// How a partition comes to be led here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub leader_epoch: LeaderEpoch,
    /// A live leader gave it away itself.
    pub handed_over: bool,
}

impl Arrival {
    /// What happened between two images. In one step of the leader epoch a partition leaves a broker that lived on in the
    /// same process only by that one's own command.
    pub fn between(
        before: &Image,
        known: Option<&metadata::Partition>,
        image: &Image,
        now: &metadata::Partition,
    ) -> Self {
        let lives_on = |known: &metadata::Partition| {
            let (then, today) = (before.brokers.get(&known.leader), image.brokers.get(&known.leader));
            then.zip(today).is_some_and(|(then, today)| then.epoch == today.epoch && !today.fenced)
        };
        let handed_over = known.is_some_and(|known| {
            known.leader != now.leader
                && known.leader_epoch.0.checked_add(1) == Some(now.leader_epoch.0)
                && lives_on(known)
        });
        Arrival { leader_epoch: now.leader_epoch, handed_over }
    }
}

/// Partitions that this node leads and that are not open yet.
#[derive(Default)]
pub(super) struct Openings {
    waiting: Mutex<BTreeMap<PartitionId, Arrival>>,
    /// Ledgers that are being copied here.
    pulling: Mutex<HashSet<LedgerId>>,
    changed: Notify,
}

impl Openings {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Arrival>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulling(&self) -> MutexGuard<'_, HashSet<LedgerId>> {
        self.pulling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, id: PartitionId, arrival: Arrival) {
        let mut waiting = self.waiting();
        // A later change of the same leadership says nothing new about how it began.
        if waiting.get(&id).is_none_or(|known| known.leader_epoch != arrival.leader_epoch) {
            waiting.insert(id, arrival);
            self.changed.notify_one();
        }
    }

    pub fn remove(&self, id: PartitionId) {
        self.waiting().remove(&id);
    }

    pub fn count(&self) -> usize {
        self.waiting().len()
    }
}

impl Broker {
    pub(super) fn opener<'a>(&'a self, image: &'a Image) -> Opener<'a> {
        Opener::new(&self.registry, &*self.holdings, (self.node, self.epoch), image, self.clock.wall_ms())
    }

    /// Partitions that this node leads and does not serve yet: something of them is still missing here.
    pub fn opening_partitions(&self) -> usize {
        self.openings.count()
    }

    /// Remembers the partitions that the start could not open.
    pub(super) fn find_openings(&self, image: &Image) {
        for (id, partition) in image.topics.values().flat_map(|topic| partitions_of(topic)) {
            if partition.leader == self.node && self.registry.get(id).is_none() {
                self.openings.add(id, Arrival { leader_epoch: partition.leader_epoch, handed_over: false });
            }
        }
    }

    /// Opens what could not be opened at once, until the process ends.
    pub(super) async fn run_openings(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let changed = self.openings.changed.notified();
            if self.openings.count() == 0 {
                changed.await;
                pause = PAUSE_FIRST;
                continue;
            }
            let missing = self.open_waiting(pause >= PAUSE_LAST).await;
            if self.openings.count() == 0 {
                continue;
            }
            let pulls = futures_util::stream::iter(missing).map(|ledger| self.pull(ledger)).buffer_unordered(PULLS);
            let pulled = pulls.fold(false, async |any, done| any || done).await;
            if pulled {
                pause = PAUSE_FIRST;
                continue;
            }
            // Entries that are on their way come by themselves, as does a new image.
            let _ = tokio::time::timeout(pause, changed).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// Tries all again. Answers the ledgers that are missing.
    async fn open_waiting(&self, say: bool) -> BTreeSet<LedgerId> {
        // Nothing is reconciled meanwhile: what opens here is what was seen last.
        let reconciled = self.reconciled.lock().await;
        let image = reconciled.clone();
        let opener = self.opener(&image);
        let waiting: Vec<_> = self.openings.waiting().iter().map(|(id, arrival)| (*id, *arrival)).collect();
        let mut missing = BTreeSet::new();
        let mut opened = false;
        for (id, arrival) in waiting {
            let topic = image.topics.get(&id.topic);
            let partition = image.partition(id).filter(|partition| partition.leader == self.node);
            let Some((topic, partition)) = topic.zip(partition) else {
                self.openings.remove(id);
                continue;
            };
            let handed_over = arrival.handed_over && arrival.leader_epoch == partition.leader_epoch;
            match opener.open(topic, id, partition, handed_over) {
                Ok(()) => {
                    self.openings.remove(id);
                    opened = true;
                }
                Err(not_yet) => {
                    if say {
                        let ledgers = format!("{:?}", not_yet.missing);
                        tracing::warn!(gap = %not_yet.gap, ledgers, "a partition waits for records that are not here yet");
                    }
                    missing.extend(not_yet.missing);
                }
            }
            tokio::task::yield_now().await;
        }
        drop(opener);
        drop(reconciled);
        if opened {
            self.coordinators.reconciled();
            self.moves.look();
        }
        missing
    }

    /// Copies a ledger here from whoever holds it. Whether it was copied now.
    pub(super) async fn pull(&self, ledger: LedgerId) -> bool {
        if !self.openings.pulling().insert(ledger) {
            return false;
        }
        let pulled = self.pull_from_any(ledger).await;
        self.openings.pulling().remove(&ledger);
        pulled
    }

    async fn pull_from_any(&self, ledger: LedgerId) -> bool {
        let image = self.image();
        let Some(known) = image.ledgers.get(&ledger) else { return false };
        for replica in holders(&image, known, self.node) {
            let node = replica.node;
            match self.holdings.pull(ledger, replica).await {
                Ok(()) => {
                    let end = known.end.unwrap_or(EntryId(0));
                    tracing::info!(%ledger, from = %node, "copied a ledger that was missing here");
                    return self.holdings.held_to(ledger, known.uploaded) >= end;
                }
                Err(error) => tracing::info!(%ledger, from = %node, %error, "a ledger cannot be copied from there now"),
            }
        }
        false
    }
}

/// Who may have a ledger, those that certainly have all of it first; never `except`.
fn holders(image: &Image, ledger: &Ledger, except: NodeId) -> Vec<Replica> {
    let whole = ledger.holders.iter().filter(|holder| holder.from <= ledger.uploaded).map(|holder| holder.replica);
    let others = ledger.holders.iter().map(|holder| holder.replica).chain(ledger.replicas.iter().copied());
    let mut found = Vec::new();
    for replica in whole.chain(others) {
        let present = image.brokers.get(&replica.node).is_some_and(|broker| broker.incarnation == replica.incarnation);
        if present && replica.node != except && !found.contains(&replica) {
            found.push(replica);
        }
    }
    found
}

/// The partitions of a topic, each with its id.
pub(super) fn partitions_of(topic: &Topic) -> impl Iterator<Item = (PartitionId, &Arc<metadata::Partition>)> {
    (0..).zip(&topic.partitions).map(|(index, partition)| (PartitionId { topic: topic.id, index }, partition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{TopicId, WalIncarnation};
    use crate::batch::sample;
    use crate::wal::Location;

    const ID: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };

    fn batch(ledger: u64, entry: u64, base: i64) -> Recovered {
        let mut batch = sample::batch(2, 0);
        batch.place(Offset(base), LeaderEpoch(0));
        let location = Location { segment: 1, offset: 0, len: 0 };
        let (header, bytes) = (batch.header(), batch.len());
        Recovered { header, bytes, ledger: LedgerId(ledger), entry: EntryId(entry), location, marker: None }
    }

    fn ledger(end: Option<u64>, uploaded: u64) -> Ledger {
        Ledger {
            node: NodeId(1),
            epoch: BrokerEpoch(1),
            replicas: Vec::new(),
            write_quorum: 2,
            end: end.map(EntryId),
            uploaded: EntryId(uploaded),
            uploader: None,
            holders: Vec::new(),
        }
    }

    fn broker(epoch: i64, fenced: bool) -> metadata::Broker {
        metadata::Broker {
            epoch: BrokerEpoch(epoch),
            incarnation: WalIncarnation([1; 16]),
            boot: 1,
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            fenced,
        }
    }

    #[test]
    fn only_what_counts_is_opened() {
        let ledgers = [(1, ledger(Some(4), 1)), (2, ledger(None, 0))].map(|(id, ledger)| (LedgerId(id), ledger));
        let image = Image { ledgers: ledgers.into(), next_ledger: 3, ..Image::default() };
        let mut partition = metadata::Partition::new(NodeId(1));
        (partition.uploaded_end, partition.handed_over) = (Offset(2), Offset(8));
        let held = vec![
            batch(2, 1, 8), // Not handed over, in a ledger that is still written.
            batch(2, 0, 6), // Moved here when the first ledger was closed.
            batch(1, 4, 6), // Void for that reason.
            batch(1, 3, 4),
            batch(1, 1, 2),
            batch(1, 0, 0), // In object storage.
            batch(9, 0, 8), // Of a ledger that these metadata do not know.
        ];
        let counted = sorted(&image, &partition, Offset(2), held);
        let places: Vec<_> = counted.iter().map(|b| (b.ledger.0, b.entry.0)).collect();
        assert_eq!(places, [(1, 1), (1, 3), (2, 0)]);
        let ends = |held: &[Recovered], start: i64, to: i64| {
            let (tail, gap) = contiguous(ID, Offset(start), held.to_vec(), Offset(to));
            (tail.len(), gap.map(|gap| (gap.from.0, gap.to.0)))
        };
        assert_eq!(ends(&counted, 2, 8), (3, None));
        assert_eq!(ends(&counted, 2, 9), (3, Some((8, 9))), "what was handed over is not all here");
        assert_eq!(ends(&counted[1..], 2, 8), (0, Some((2, 4))));
        assert_eq!(ends(&[], 2, 2), (0, None));
    }

    #[test]
    fn a_move_is_known_by_its_leader_that_lives_on() {
        let mut before = Image::default();
        before.brokers.insert(NodeId(1), broker(5, false));
        let known = metadata::Partition::new(NodeId(1));
        let mut now = metadata::Partition { leader: NodeId(2), ..known.clone() };
        let handed_over = |after: metadata::Broker, now: &metadata::Partition, known: Option<&metadata::Partition>| {
            let image = Image { brokers: [(NodeId(1), after)].into(), ..Image::default() };
            Arrival::between(&before, known, &image, now).handed_over
        };
        now.leader_epoch = LeaderEpoch(1);
        assert!(handed_over(broker(5, false), &now, Some(&known)));
        assert!(!handed_over(broker(5, true), &now, Some(&known)), "it was fenced");
        assert!(!handed_over(broker(6, false), &now, Some(&known)), "it is another process");
        assert!(!handed_over(broker(5, false), &now, None));
        now.leader_epoch = LeaderEpoch(2);
        assert!(!handed_over(broker(5, false), &now, Some(&known)), "somebody else led in between");
    }

    #[test]
    fn whole_copies_are_asked_first_and_replaced_wals_never() {
        let mut image = Image::default();
        for node in 1..=4 {
            image.brokers.insert(NodeId(node), broker(node as i64, false));
        }
        let replica = |node, wal| Replica { node: NodeId(node), incarnation: WalIncarnation([wal; 16]) };
        let mut known = ledger(Some(9), 3);
        known.replicas = vec![replica(1, 1), replica(2, 1), replica(3, 2)];
        known.holders = [(replica(2, 1), 5), (replica(4, 1), 3)]
            .map(|(replica, from)| metadata::Holder { replica, from: EntryId(from) })
            .to_vec();
        assert_eq!(holders(&image, &known, NodeId(1)), [replica(4, 1), replica(2, 1)]);
    }
}
