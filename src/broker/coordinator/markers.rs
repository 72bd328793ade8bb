//! The markers of transactions that ended, from their coordinator to every one of their partitions, wherever it is led.
//!
//! The rules, each against a way to end a transaction wrongly:
//! - A marker on this node is appended behind its coordinator's decision, in the same ledger. One for another node leaves
//!   when the decision is durable: otherwise a coordinator that fails in between comes back without the decision, and
//!   decides anew about what readers have seen committed.
//! - The transaction is complete when every partition has its marker: appended here, before the completion, or durable
//!   on another node, which answers only then. A partition that is out of reach is asked again for as long as it takes,
//!   and wherever it is led by then. Only a deleted topic needs none.
//! - A node takes markers in the order in which they are sent, before anything that came later, so that one that was
//!   sent twice never comes after its transaction has completed.
//! - A coordinator that has a successor is refused: by the metadata of whoever gets its markers, and by the coordinator
//!   epoch that each partition remembers of a producer.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::base::limits::{MARKERS_MESSAGES_MAX, MARKERS_PARTITIONS_MAX};
use crate::base::{NodeId, PartitionId, ProducerId};
use crate::batch::{self, EndMarker};
use crate::broker::{Broker, ProduceError, TransactionEnd};
use crate::ledger::LedgerError;
use crate::partition::{AppendError, Appended, Origin, Partition};
use crate::peer::{Answering, Caller, Refused, Service, kind};
use crate::security::{Operation, Permit, Resource};
use crate::transaction::{Markers, TopicPartition, TransactionVersion};

use super::remote::Remote;
use super::transactions::{TransactionShard, work};
use super::wire::{self, Outcome};
use super::{CoordinatorError, OFFSETS_TOPIC, moment};

/// Markers of a transaction that are written by whoever ends it; those of one with more partitions by a task.
const MARKERS_AT_ONCE: usize = 64;
/// Pause before markers that could not be written are tried again; doubled from one attempt to the next.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_LAST: Duration = Duration::from_millis(500);
/// For the answer of another node to markers.
const MARKERS_WITHIN: Duration = Duration::from_secs(3);
/// Parcels that are taken from a queue at once.
const PARCELS_AT_ONCE: usize = 256;

/// What became of a marker.
enum Marker {
    /// It is appended; not necessarily durable.
    Appended(Appended),
    /// A newer producer or a newer coordinator has ended the transaction, or there is nothing left of it.
    NotNeeded,
    Later,
    /// The producers of the partition are not known yet.
    NeedsState(Arc<Partition>),
}

impl Marker {
    fn is_done(&self) -> bool {
        matches!(self, Marker::Appended(_) | Marker::NotNeeded)
    }
}

/// Where a partition of a transaction is.
enum Target {
    /// Its topic is deleted.
    Gone,
    Here(PartitionId),
    There(NodeId, PartitionId),
}

/// Markers of one transaction for one node.
struct Parcel {
    marker: wire::Marker,
    /// Dropped when nobody knows what became of them.
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// The queues to other nodes: what comes together travels together.
#[derive(Default)]
pub(super) struct Lanes {
    nodes: Mutex<HashMap<NodeId, mpsc::UnboundedSender<Parcel>>>,
    /// Partitions whose producers are being fetched for a marker.
    loading: Mutex<HashSet<PartitionId>>,
    /// A bug planted by a test: markers leave before the decision is durable.
    #[cfg(test)]
    pub undecided: std::sync::atomic::AtomicBool,
}

impl Lanes {
    fn loading(&self) -> MutexGuard<'_, HashSet<PartitionId>> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a parcel. Queues have no bound of their own: a transaction has one parcel for a node at a time.
    fn send(&self, remote: &Arc<dyn Remote>, node: NodeId, parcel: Parcel) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = nodes.entry(node).or_insert_with(|| {
            let (sender, parcels) = mpsc::unbounded_channel();
            tokio::spawn(run_lane(remote.clone(), node, parcels));
            sender
        });
        // A lane ends with the runtime only; then its parcel's sender learns that nothing is known.
        let _ = lane.send(parcel);
    }

    #[cfg(test)]
    fn is_planted(&self) -> bool {
        self.undecided.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[cfg(not(test))]
    fn is_planted(&self) -> bool {
        false
    }
}

/// Sends what is queued for a node until the broker is gone.
async fn run_lane(remote: Arc<dyn Remote>, node: NodeId, mut parcels: mpsc::UnboundedReceiver<Parcel>) {
    let mut waiting = VecDeque::new();
    let mut taken = Vec::with_capacity(PARCELS_AT_ONCE);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < MARKERS_MESSAGES_MAX
            && let Some(message) = next_message(&mut waiting)
        {
            under_way.push(deliver(&*remote, node, message));
        }
        tokio::select! {
            Some(()) = under_way.next() => {}
            count = parcels.recv_many(&mut taken, PARCELS_AT_ONCE), if waiting.is_empty() => match count {
                0 => return,
                _ => waiting.extend(taken.drain(..)),
            },
        }
    }
}

/// As many parcels as one message takes, at least one if there is any.
fn next_message(waiting: &mut VecDeque<Parcel>) -> Option<Vec<Parcel>> {
    let first = waiting.pop_front()?;
    let topic = first.marker.coordinator.topic;
    let mut partitions = first.marker.partitions.len();
    let mut message = vec![first];
    while let Some(next) = waiting.pop_front_if(|next| {
        next.marker.coordinator.topic == topic && partitions + next.marker.partitions.len() <= MARKERS_PARTITIONS_MAX
    }) {
        partitions += next.marker.partitions.len();
        message.push(next);
    }
    Some(message)
}

async fn deliver(remote: &dyn Remote, node: NodeId, message: Vec<Parcel>) {
    let body = wire::encode_markers(kind::MARKERS, message.iter().map(|parcel| &parcel.marker));
    let asked: Vec<usize> = message.iter().map(|parcel| parcel.marker.partitions.len()).collect();
    match remote.call(node, body, MARKERS_WITHIN).await {
        Err(error) => tracing::debug!(%node, %error, "markers of transactions are not answered"),
        Ok(answer) => match wire::decode_outcomes(&answer, &asked) {
            Err(error) => tracing::warn!(%node, %error, "an answer to markers cannot be understood"),
            Ok(outcomes) => {
                for (parcel, outcomes) in message.into_iter().zip(outcomes) {
                    // Whoever waited has gone if there is a newer order.
                    let _ = parcel.answer.send(outcomes);
                }
            }
        },
    }
}

impl Broker {
    /// Writes the markers of a prepared transaction, at once where nothing has to be waited for.
    pub(super) fn carry_out(self: &Arc<Self>, shard: &TransactionShard, order: Markers) {
        // Its records are appended: what is waited for now covers the decision.
        let decision = shard.partition.all_durable();
        let at_once = if order.partitions.len() <= MARKERS_AT_ONCE { order.partitions.as_slice() } else { &[] };
        let is_done = |partition: &&TopicPartition| self.append_marker_of(&order, partition).is_done();
        let done: Vec<_> = at_once.iter().filter(is_done).cloned().collect();
        let open: Vec<_> = order.partitions.iter().filter(|partition| !done.contains(partition)).cloned().collect();
        if self.tell_written(shard, &order, &done).is_ok() && !open.is_empty() {
            tokio::spawn(write_markers(self.clone(), shard.clone(), order, open, decision));
        }
    }

    fn tell_written(
        self: &Arc<Self>,
        shard: &TransactionShard,
        order: &Markers,
        done: &[TopicPartition],
    ) -> Result<(), CoordinatorError> {
        if done.is_empty() {
            return Ok(());
        }
        let now = moment(self).into();
        self.step_transaction(shard, |machine| {
            work(machine.0.markers_written(&order.transactional_id, order.order, done, now))
        })
    }

    fn target(&self, (topic, index): &TopicPartition) -> Target {
        // This node has seen the topic, or metadata that are newer, when the partition joined the transaction.
        let Some(found) = self.topic(topic) else { return Target::Gone };
        let Some(partition) = usize::try_from(*index).ok().and_then(|i| found.partitions.get(i)) else {
            return Target::Gone;
        };
        let id = PartitionId { topic: found.id, index: *index };
        if partition.leader == self.node { Target::Here(id) } else { Target::There(partition.leader, id) }
    }

    fn append_marker_of(&self, order: &Markers, partition: &TopicPartition) -> Marker {
        match self.target(partition) {
            Target::Gone => Marker::NotNeeded,
            Target::Here(id) => self.append_marker_here(id, end_of(order)),
            Target::There(..) => Marker::Later,
        }
    }

    /// Appends a marker to a partition that this node leads, and never waits.
    fn append_marker_here(&self, id: PartitionId, end: TransactionEnd) -> Marker {
        let Some(partition) = self.registry.get(id) else { return Marker::Later };
        if partition.needs_producer_state() {
            return Marker::NeedsState(partition);
        }
        match self.end_on_partition(&partition, end) {
            Ok(Ok(appended)) => Marker::Appended(appended),
            // A newer coordinator or a newer producer has ended it.
            Ok(Err(AppendError::Producer(error))) => {
                tracing::info!(partition = %id, %error, "a transaction marker is not needed any more");
                Marker::NotNeeded
            }
            Ok(Err(AppendError::Ledger(LedgerError::Full))) => {
                self.registry.upload_due.notify_one();
                Marker::Later
            }
            Ok(Err(_)) | Err(_) => Marker::Later,
        }
    }

    /// Writes one marker here, and fetches before what has to be known for it. False: try again later.
    async fn write_marker(&self, order: &Markers, partition: &TopicPartition) -> bool {
        let mut marker = self.append_marker_of(order, partition);
        if let Marker::NeedsState(partition_here) = &marker
            && self.load_producer_state(partition_here).await.is_ok()
        {
            marker = self.append_marker_of(order, partition);
        }
        marker.is_done()
    }

    /// Sends markers to a node; answers which of them need not be sent again.
    async fn send_markers(
        &self,
        node: NodeId,
        coordinator: PartitionId,
        order: &Markers,
        targets: &[(TopicPartition, PartitionId)],
    ) -> Vec<bool> {
        let Some(remote) = self.coordinators.remote.get() else { return vec![false; targets.len()] };
        let parcels = targets.chunks(MARKERS_PARTITIONS_MAX).map(|chunk| {
            let partitions = chunk.iter().map(|(_, id)| *id).collect();
            let (answer, outcomes) = oneshot::channel();
            let marker = wire::Marker { coordinator, end: end_of(order), partitions };
            self.coordinators.lanes.send(remote, node, Parcel { marker, answer });
            async { (chunk.len(), outcomes.await) }
        });
        let mut done = Vec::with_capacity(targets.len());
        for (count, outcomes) in join_all(parcels).await {
            match outcomes {
                Ok(outcomes) => {
                    if outcomes.contains(&Outcome::Superseded) {
                        let id = &*order.transactional_id;
                        tracing::info!(%coordinator, transactional_id = id, %node, "markers of a superseded coordinator");
                    }
                    done.extend(outcomes.iter().map(|o| matches!(o, Outcome::Written | Outcome::NotNeeded)));
                }
                Err(_) => done.extend(std::iter::repeat_n(false, count)),
            }
        }
        done
    }

    /// Ends a producer's transaction on one partition, and, if groups live there, in their offsets.
    fn end_on_partition(
        &self,
        partition: &Partition,
        end: TransactionEnd,
    ) -> Result<Result<Appended, AppendError>, CoordinatorError> {
        let marker = EndMarker { commit: end.commit, coordinator_epoch: end.coordinator_epoch };
        let now_ms = self.clock.wall_ms();
        let append = |partition: &Partition| {
            let batch = batch::end_marker(end.producer, end.epoch, marker, now_ms).map_err(|_| AppendError::Closed)?;
            let origin = Origin::Marker { marker, version2: end.version2 };
            partition.append(&self.ledger, &batch.header(), batch, origin, now_ms)
        };
        if *partition.topic != *OFFSETS_TOPIC {
            return Ok(append(partition));
        }
        let shard = self.coordinators.groups().get(&partition.id.index).cloned();
        let shard = shard.filter(|s| s.partition.id == partition.id).ok_or(CoordinatorError::Loading)?;
        shard.end_transaction(end.producer.0, end.commit, append)
    }

    /// Ends a producer's transaction on a partition by order of somebody else; answers when that is durable. `permit` is
    /// for acting on the cluster.
    pub async fn write_txn_marker(
        &self,
        permit: &Permit,
        partition: &Partition,
        end: TransactionEnd,
    ) -> Result<(), ProduceError> {
        assert!(
            permit.covers(Operation::ClusterAction, Resource::CLUSTER)
                || permit.covers(Operation::Alter, Resource::CLUSTER)
        );
        self.load_producer_state(partition).await.map_err(ProduceError::State)?;
        match self.end_on_partition(partition, end) {
            Ok(appended) => Ok(appended?.durable().await?),
            Err(_) => Err(AppendError::StateNotLoaded.into()),
        }
    }

    /// Appends the marker of a coordinator on another node.
    fn append_marker_for_other(self: &Arc<Self>, id: PartitionId, end: TransactionEnd) -> Marker {
        if self.image.borrow().partition(id).is_none_or(|p| p.leader != self.node) {
            return Marker::Later;
        }
        let marker = self.append_marker_here(id, end);
        if let Marker::NeedsState(partition) = &marker
            && self.coordinators.lanes.loading().insert(id)
        {
            let (broker, partition) = (self.clone(), partition.clone());
            tokio::spawn(async move {
                if let Err(error) = broker.load_producer_state(&partition).await {
                    tracing::warn!(partition = %id, %error, "a marker waits for what is known of producers");
                }
                broker.coordinators.lanes.loading().remove(&id);
            });
        }
        marker
    }

    /// The first phase of markers from another node: all that can be appended is.
    fn take_markers(self: &Arc<Self>, markers: &[wire::Marker]) -> Vec<Vec<Taken>> {
        let image = self.image();
        let take = |marker: &wire::Marker| {
            let epoch = marker.end.coordinator_epoch;
            let is_superseded = image.partition(marker.coordinator).is_some_and(|p| p.leader_epoch.0 > epoch);
            let take_one = |id: &PartitionId| match is_superseded {
                true => Taken::Is(Outcome::Superseded),
                false => match self.append_marker_for_other(*id, marker.end) {
                    Marker::Appended(appended) => Taken::Appended(appended),
                    Marker::NotNeeded => Taken::Is(Outcome::NotNeeded),
                    Marker::Later | Marker::NeedsState(_) => Taken::Is(Outcome::Later),
                },
            };
            marker.partitions.iter().map(take_one).collect()
        };
        markers.iter().map(take).collect()
    }
}

/// What became of another node's marker in the first phase.
enum Taken {
    Appended(Appended),
    Is(Outcome),
}

impl Taken {
    async fn outcome(self) -> Outcome {
        match self {
            Taken::Is(outcome) => outcome,
            Taken::Appended(appended) => match appended.durable().await {
                Ok(()) => Outcome::Written,
                Err(_) => Outcome::Later,
            },
        }
    }
}

fn end_of(order: &Markers) -> TransactionEnd {
    TransactionEnd {
        producer: ProducerId(order.producer.id),
        epoch: order.producer.epoch,
        coordinator_epoch: order.coordinator_epoch,
        commit: order.commit,
        version2: order.version >= TransactionVersion::V2,
    }
}

/// Writes the markers that are left of an order, as long as it takes, and tells the machine. `decision` is what the
/// markers for other nodes wait for.
async fn write_markers(
    broker: Arc<Broker>,
    shard: TransactionShard,
    order: Markers,
    mut left: Vec<TopicPartition>,
    decision: Option<oneshot::Receiver<()>>,
) {
    let mut decision = decision.filter(|_| !broker.coordinators.lanes.is_planted());
    let mut pause = AGAIN_FIRST;
    // A machine that came after this one orders its markers anew.
    while shard.look(|machine| machine.0.is_ordered(&order.transactional_id, order.order)) == Some(true) {
        let (mut here, mut there) = (Vec::new(), BTreeMap::<NodeId, Vec<_>>::new());
        for partition in left {
            match broker.target(&partition) {
                Target::There(node, id) => there.entry(node).or_default().push((partition, id)),
                Target::Here(_) | Target::Gone => here.push(partition),
            }
        }
        let written = join_all(here.iter().map(|partition| broker.write_marker(&order, partition))).await;
        let (done, mut open) = part(here.into_iter().zip(written));
        if broker.tell_written(&shard, &order, &done).is_err() {
            return;
        }
        if !there.is_empty()
            && let Some(decision) = decision.take()
            && decision.await.is_err()
        {
            // The partition was closed here: its next leader knows whether there is a decision.
            return;
        }
        let sent = there.iter().map(|(node, to)| broker.send_markers(*node, shard.partition.id, &order, to));
        for (to, written) in join_all(sent).await.into_iter().zip(there.values()).map(|(written, to)| (to, written)) {
            let (done, failed) = part(to.iter().map(|(partition, _)| partition.clone()).zip(written));
            if broker.tell_written(&shard, &order, &done).is_err() {
                return;
            }
            open.extend(failed);
        }
        left = open;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_LAST);
    }
}

/// Those that are done, and those that are not.
fn part<T>(items: impl Iterator<Item = (T, bool)>) -> (Vec<T>, Vec<T>) {
    let (done, open): (Vec<_>, Vec<_>) = items.partition(|(_, done)| *done);
    let plain = |items: Vec<(T, bool)>| items.into_iter().map(|(item, _)| item).collect();
    (plain(done), plain(open))
}

/// Answers requests of kind [`kind::MARKERS`]: each marker is answered when it is durable.
pub struct MarkerService(Arc<Broker>);

impl MarkerService {
    pub fn new(broker: Arc<Broker>) -> MarkerService {
        MarkerService(broker)
    }
}

impl Service for MarkerService {
    fn call(&self, _from: &Caller, request: Bytes) -> Answering {
        let taken = wire::decode_markers(&request).map(|markers| self.0.take_markers(&markers));
        Box::pin(async move {
            let taken = taken.map_err(|error| Refused(format!("the markers of transactions are broken: {error}")))?;
            let mut outcomes = Vec::with_capacity(taken.len());
            for of_marker in taken {
                let mut found = Vec::with_capacity(of_marker.len());
                for one in of_marker {
                    found.push(one.outcome().await);
                }
                outcomes.push(found);
            }
            Ok(wire::encode_outcomes(&outcomes).into())
        })
    }
}
