//! Giving the leadership of partitions to other nodes, as the metadata wish it (`Partition::target`).
//!
//! The leader stops taking appends, waits until its last one is durable, and proposes the change with the end of its log
//! in it; the new leader serves as soon as it has everything below. Nothing slow lies between: what is to be uploaded or
//! copied first is dealt with while this node still leads.
//!
//! A change of which nobody can say whether it was made holds the partition still until somebody can: to go on appending
//! here would give offsets out that the new leader gives out, too.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::base::{NodeId, PartitionId};
use crate::metadata::{self, Command, Image, Reject};
use crate::partition::Partition;
use crate::quorum::ProposeError;

use super::opening::partitions_of;
use super::{Broker, ChangeError};

/// Moves that are under way at a time.
const MOVES: usize = 32;
/// How long the last append may take to become durable, with producers waiting.
const DURABLE_WAIT: Duration = Duration::from_millis(300);
/// How long what is left may take to be uploaded, with producers waiting, where the next leader has no copy of it.
const FLUSH_WAIT: Duration = Duration::from_secs(2);
const FLUSH_LOOK: Duration = Duration::from_millis(5);
/// Bytes of a partition that are few enough for that, and uploads after which the rest is a matter of their pace.
const FLUSH_BYTES: u64 = 256 << 10;
const FLUSHES: u64 = 2;
/// How long a move waits until the next leader has what it needs, before it is tried again.
const READY_WAIT: Duration = Duration::from_secs(30);
/// Between looks at that.
const READY_LOOK: Duration = Duration::from_millis(100);
/// Pause before a move that came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a partition is still led here.
#[derive(Debug, thiserror::Error)]
enum NotMoved {
    #[error("it is not open here, or is to stay")]
    NotWanted,
    #[error("node {0} has neither a copy of its newest records nor are they in object storage yet")]
    NotReady(NodeId),
    #[error("its last append did not become durable in time")]
    NotDurable,
    #[error("its newest records could not be uploaded in time")]
    NotFlushed,
    #[error(transparent)]
    Refused(#[from] ChangeError),
}

/// Partitions that are to be handed over.
#[derive(Default)]
pub(super) struct Moves {
    wanted: Mutex<BTreeSet<PartitionId>>,
    changed: Notify,
    /// How many moves wait for uploads.
    flushing: AtomicUsize,
}

/// See [`Broker::flush`].
struct Flush<'a>(&'a Moves);

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        self.0.flushing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Moves {
    fn wanted(&self) -> MutexGuard<'_, BTreeSet<PartitionId>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the metadata say of a partition that this node leads.
    pub fn consider(&self, id: PartitionId, partition: &metadata::Partition, node: NodeId) {
        if partition.target.is_none_or(|target| target == node) {
            self.remove(id);
        } else if self.wanted().insert(id) {
            self.look();
        }
    }

    pub fn remove(&self, id: PartitionId) {
        self.wanted().remove(&id);
    }

    /// Whether a move waits for an upload.
    pub fn want_upload(&self) -> bool {
        self.flushing.load(Ordering::Relaxed) > 0
    }

    /// A partition that is to be handed over may have opened.
    pub fn look(&self) {
        self.changed.notify_one();
    }
}

impl Broker {
    /// Takes in what is to be handed over already at the start.
    pub(super) fn find_moves(&self, image: &Image) {
        for (id, partition) in image.topics.values().flat_map(|topic| partitions_of(topic)) {
            if partition.leader == self.node {
                self.moves.consider(id, partition, self.node);
            }
        }
    }

    /// Hands partitions over, until the process ends.
    pub(super) async fn run_moves(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut busy = BTreeSet::new();
        loop {
            let wanted: Vec<_> = self.moves.wanted().iter().filter(|id| !busy.contains(*id)).copied().collect();
            for id in wanted.into_iter().take(MOVES.saturating_sub(busy.len())) {
                busy.insert(id);
                under_way.push(async move {
                    self.move_away(id).await;
                    id
                });
            }
            tokio::select! {
                () = self.moves.changed.notified() => {}
                Some(done) = under_way.next() => drop(busy.remove(&done)),
            }
        }
    }

    /// One attempt; after one that failed it rests before the partition may be tried again.
    async fn move_away(&self, id: PartitionId) {
        match self.hand_over(id).await {
            Ok(()) => self.moves.remove(id),
            // It opens here, or its move was called off: both are heard of.
            Err(NotMoved::NotWanted) => sleep(READY_LOOK).await,
            Err(reason) => {
                tracing::warn!(partition = %id, %reason, "a partition that is to move is still led here");
                sleep(AGAIN).await;
            }
        }
    }

    async fn hand_over(&self, id: PartitionId) -> Result<(), NotMoved> {
        let partition = self.registry.get(id).ok_or(NotMoved::NotWanted)?;
        let (target, target_since) = self.target_of(id).ok_or(NotMoved::NotWanted)?;
        let has_copy = self.prepare_move(&partition, target).await?;
        let (leader_epoch, end) = partition.stop();
        let begun = Instant::now();
        if let Err(reason) = self.settle(&partition, has_copy).await {
            partition.resume();
            return Err(reason);
        }
        let (node, epoch) = (self.node, self.epoch);
        let command = Command::HandOver { node, epoch, partition: id, leader_epoch, end, target_since };
        match self.propose_until_known(command).await {
            Ok(()) => {
                let took_ms = begun.elapsed().as_millis() as u64;
                tracing::info!(partition = %id, to = %target, %end, took_ms, "handed a partition over");
                Ok(())
            }
            Err(error) => {
                partition.resume();
                Err(error.into())
            }
        }
    }

    /// Who is to lead a partition that this node leads, and since when that is wished.
    fn target_of(&self, id: PartitionId) -> Option<(NodeId, u64)> {
        let image = self.image();
        let partition = image.partition(id)?;
        let target = partition.target.filter(|target| partition.leader == self.node && *target != self.node);
        target.map(|target| (target, partition.target_since))
    }

    /// Waits, while this node still leads, until the next leader will find the newest records: in its own WAL, which is
    /// `true`, or in object storage but for a little.
    async fn prepare_move(&self, partition: &Partition, target: NodeId) -> Result<bool, NotMoved> {
        if self.has_copy(partition, target) {
            return Ok(true);
        }
        let (id, bytes) = (partition.id, partition.tail_bytes());
        tracing::info!(partition = %id, to = %target, bytes, "its next leader has no copy of it: uploads it before it moves");
        let _flush = self.flush();
        let until = Instant::now() + READY_WAIT;
        let objects = || self.upload_metrics.objects.load(Ordering::Relaxed);
        let before = objects();
        while partition.tail_bytes() > FLUSH_BYTES || objects() < before + FLUSHES {
            if partition.is_uploaded() {
                break;
            }
            if self.target_of(id).is_none_or(|(now, _)| now != target) {
                return Err(NotMoved::NotWanted);
            }
            if Instant::now() >= until {
                return Err(NotMoved::NotReady(target));
            }
            sleep(READY_LOOK).await;
            if self.has_copy(partition, target) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Uploads whatever there is, one after the other, as long as what it answers lives.
    fn flush(&self) -> Flush<'_> {
        self.moves.flushing.fetch_add(1, Ordering::Relaxed);
        self.registry.upload_due.notify_one();
        Flush(&self.moves)
    }

    /// Whether `target` takes part in every ledger that has records of the partition which object storage lacks, and in the
    /// one that is written now.
    fn has_copy(&self, partition: &Partition, target: NodeId) -> bool {
        let image = self.image();
        let Some(broker) = image.brokers.get(&target).filter(|broker| !broker.fenced) else { return false };
        let replica = metadata::Replica { node: target, incarnation: broker.incarnation };
        let mut ledgers = partition.exposed_ledgers();
        ledgers.insert(self.ledger.id());
        ledgers.iter().all(|ledger| {
            match image.ledgers.get(ledger) {
                Some(known) => {
                    known.replicas.contains(&replica) || known.holders.iter().any(|holder| holder.replica == replica)
                }
                // Finished and forgotten; or this image is older than the ledger.
                None => ledger.0 < image.next_ledger,
            }
        })
    }

    /// Waits until everything that was appended is where the next leader finds it.
    async fn settle(&self, partition: &Partition, has_copy: bool) -> Result<(), NotMoved> {
        if let Some(durable) = partition.all_durable() {
            let durable = timeout(DURABLE_WAIT, durable).await;
            if !matches!(durable, Ok(Ok(()))) {
                return Err(NotMoved::NotDurable);
            }
        }
        if has_copy || partition.is_uploaded() {
            return Ok(());
        }
        let _flush = self.flush();
        let until = Instant::now() + FLUSH_WAIT;
        while !partition.is_uploaded() {
            if Instant::now() >= until {
                return Err(NotMoved::NotFlushed);
            }
            sleep(FLUSH_LOOK).await;
        }
        Ok(())
    }

    /// Proposes until it is certain that the change was made, or that it was not. Once the metadata have refused it because its
    /// wish was taken back, no copy of it that is still on its way is carried out: it names that wish, and none comes again
    /// under that name.
    async fn propose_until_known(&self, command: Command) -> Result<(), ChangeError> {
        let mut doubtful = false;
        loop {
            match self.propose(command.clone()).await {
                Ok(_) => return Ok(()),
                // The one before was carried out: by now this node does not lead.
                Err(ChangeError::Rejected(Reject::NotLeader { .. } | Reject::StaleLeaderEpoch { .. })) if doubtful => {
                    self.reconcile().await;
                    return Ok(());
                }
                Err(error @ ChangeError::Rejected(_)) => return Err(error),
                Err(error @ ChangeError::Propose(ProposeError::NotLeader { .. } | ProposeError::Refused(_)))
                    if !doubtful =>
                {
                    return Err(error);
                }
                Err(error) => {
                    if !doubtful {
                        tracing::warn!(%error, "whether a partition was handed over is not known: it stands still until it is");
                    }
                    doubtful = true;
                    sleep(READY_LOOK).await;
                }
            }
        }
    }
}

/// For whoever shows it: partitions that are to leave this node.
impl Broker {
    pub fn moving_partitions(&self) -> usize {
        self.moves.wanted().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;

    #[test]
    fn only_a_target_elsewhere_is_a_wish() {
        let moves = Moves::default();
        let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
        let mut partition = metadata::Partition::new(NodeId(1));
        for (target, wanted) in [(None, 0), (Some(1), 0), (Some(2), 1), (Some(2), 1), (None, 0)] {
            partition.target = target.map(NodeId);
            moves.consider(id, &partition, NodeId(1));
            assert_eq!(moves.wanted().len(), wanted, "{target:?}");
        }
    }
}
