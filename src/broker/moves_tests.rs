//! Several brokers in one process, each with a simulated disk, on one quorum and one object store: partitions that change
//! their leader before anything is uploaded.
//!
//! What a replica set would do is done by hand: [`Node::copy_from`] brings the entries of one node's ledgers into another's
//! WAL, where its holdings find them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use super::*;
use crate::base::{ClusterId, EntryId, LeaderEpoch, Offset, PartitionId};
use crate::batch::{self, Header, StoredBatch, sample};
use crate::env::{SeededEntropy, SimDisk, SystemClock, SystemEntropy};
use crate::ledger::core::Identity;
use crate::ledger::{self, Host, LedgerWriter};
use crate::metadata::{Assignment, Command, Holder, Replica, Response, TargetChange};
use crate::object::faults::FaultyStore;
use crate::object::{ObjectOptions, PartitionState, Place};
use crate::partition::{Isolation, Origin, Partition, Recovered};
use crate::quorum::{Create, QuorumOptions};
use crate::wal::{Entry, HEAD, Location, Synced, WalEvents, WalOptions};

use super::upload::Step;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const TOPIC: TopicId = TopicId([5; 16]);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
/// Of entries that were copied into a WAL.
const COPIED: u64 = u64::MAX - 1;

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TOPIC, index }
}

/// What all nodes share.
struct World {
    runtime: Runtime,
    quorum: Arc<Quorum>,
    store: Arc<FaultyStore>,
    _metadata: tempfile::TempDir,
}

struct Node {
    broker: Arc<Broker>,
    holdings: Arc<Copies>,
    synced: Arc<Heard>,
    _writer: Arc<dyn WalEvents>,
}

/// Where the WAL has put what was copied into it.
#[derive(Default)]
struct Heard(Mutex<Vec<Synced>>);

impl WalEvents for Heard {
    fn synced(&self, group: &[Synced]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(group.iter().filter(|entry| entry.token == COPIED));
    }

    fn failed(&self, reason: &str) {
        panic!("the WAL failed: {reason}");
    }
}

/// What was copied, and what a pull would copy.
#[derive(Default)]
struct Copies {
    found: FoundEntries,
    elsewhere: Mutex<Vec<(PartitionId, Recovered)>>,
}

impl Holdings for Copies {
    fn held(&self, partition: PartitionId) -> Vec<Recovered> {
        self.found.held(partition)
    }

    fn held_to(&self, ledger: LedgerId, from: EntryId) -> EntryId {
        self.found.held_to(ledger, from)
    }

    fn entries(&self, ledger: LedgerId, from: EntryId, to: EntryId) -> Vec<HeldEntry> {
        self.found.entries(ledger, from, to)
    }

    fn pull(&self, ledger: LedgerId, _: Replica) -> BoxFuture<'_, Result<(), PullError>> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let (there, rest): (Vec<_>, Vec<_>) = elsewhere.drain(..).partition(|(_, batch)| batch.ledger == ledger);
        *elsewhere = rest;
        there.into_iter().for_each(|(partition, batch)| self.found.add(partition, batch));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Entries by partition and by ledger.
#[derive(Debug, Default)]
struct FoundEntries(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    by_partition: HashMap<PartitionId, Vec<Recovered>>,
    by_ledger: BTreeMap<LedgerId, BTreeMap<EntryId, HeldEntry>>,
}

impl FoundEntries {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, partition: PartitionId, recovered: Recovered) {
        let held = HeldEntry { entry: recovered.entry, partition, bytes: recovered.location.len };
        let mut found = self.found();
        found.by_ledger.entry(recovered.ledger).or_default().insert(recovered.entry, held);
        found.by_partition.entry(partition).or_default().push(recovered);
    }
}

impl FoundEntries {
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
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let metadata = tempfile::tempdir().expect("a folder");
        let options = QuorumOptions { dir: metadata.path().join("metadata"), node: A, create: Create::Quorum };
        let quorum = runtime.block_on(Quorum::start(options, Arc::new(SystemEntropy))).expect("a quorum");
        let world = World { runtime, quorum, store: FaultyStore::new(), _metadata: metadata };
        world.propose(Command::InitCluster { cluster: CLUSTER, generation: 1 });
        world
    }

    fn propose(&self, command: Command) -> Response {
        let shown = format!("{command:?}");
        match self.runtime.block_on(self.quorum.propose(&command)).expect("the quorum is there") {
            Response::Rejected(reject) => panic!("{shown}: {reject}"),
            response => response,
        }
    }

    fn image(&self) -> Arc<Image> {
        self.quorum.image().borrow().clone()
    }

    /// A topic whose partitions these nodes lead.
    fn create_topic(&self, leaders: &[NodeId]) {
        self.propose(Command::CreateTopic {
            id: TOPIC,
            name: "orders".to_owned(),
            partitions: leaders.to_vec(),
            replication_factor: 1,
            configs: Vec::new(),
            now_ms: 0,
        });
    }

    fn start(&self, node: NodeId) -> Node {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let registry = Arc::new(Registry::new(1 << 20, 1 << 40, clock.clone()));
        let options = WalOptions { segment_bytes: 1 << 20, budget_bytes: 8 << 20, queue_bytes: 1 << 20 };
        let entropy = SeededEntropy::new(node.0 as u64);
        let opened = open_wal(Arc::new(SimDisk::new()), &entropy, options, &self.image(), registry.clone());
        let OpenedWal { wal, hosted, .. } = opened.expect("a WAL");
        let incarnation = wal.incarnation();
        let version = String::new();
        let register = Command::RegisterBroker { node, incarnation, boot: 1, endpoints: vec![], version, now_ms: 0 };
        let Response::BrokerEpoch(epoch) = self.propose(register) else { panic!("an epoch") };
        wal.registered(epoch, 1).expect("recorded");
        let host =
            Host::start(node, wal.clone(), ledger::Found::default(), &hosted, &self.image()).expect("nothing held");
        let replicas = vec![Replica { node, incarnation }];
        let open = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum: 1, close: None };
        let Response::Ledger(id) = self.propose(open) else { panic!("a ledger") };
        let options = ledger::writer_options(wal.queue_bytes());
        let own = Identity { node, incarnation, boot: 1 };
        let writer = LedgerWriter::new(own, (id, &replicas), options, wal.clone(), registry.clone());
        let listener: Arc<dyn WalEvents> = writer.clone();
        let synced = Arc::new(Heard::default());
        let copies: Arc<dyn WalEvents> = synced.clone();
        registry.listen(Arc::downgrade(&listener));
        registry.listen(Arc::downgrade(&copies));
        let holdings = Arc::new(Copies::default());
        let parts = self.parts(node, (wal, registry, holdings.clone()), Joined { epoch, ledger: writer, host }, clock);
        Node { broker: Broker::new(parts), holdings, synced, _writer: listener }
    }

    fn parts(
        &self,
        node: NodeId,
        (wal, registry, holdings): (Arc<Wal>, Arc<Registry>, Arc<Copies>),
        joined: Joined,
        clock: Arc<dyn Clock>,
    ) -> BrokerParts {
        let options = ObjectOptions::at(Place::Folder("unused".into()));
        let entropy = Arc::new(SeededEntropy::new(2));
        let objects = Objects::in_store(self.store.clone(), &options, CLUSTER, clock.clone(), entropy);
        BrokerParts {
            options: BrokerOptions {
                upload_bytes: 1 << 40,
                upload_interval: Duration::from_secs(3_600),
                object_bytes_max: 64 << 20,
                merge_ranges: 2,
                maintenance_interval: Duration::from_secs(3_600),
                object_grace: Duration::ZERO,
                room_wait: Duration::from_secs(1),
            },
            node,
            static_settings: StaticSettings::new(),
            quorum: self.quorum.clone(),
            objects,
            wal,
            registry,
            holdings,
            joined,
            lease: Lease::new(clock.clone(), Box::new(|| true)),
            clock,
            entropy: Arc::new(SystemEntropy),
        }
    }

    fn reconcile(&self, nodes: &[&Node]) {
        nodes.iter().for_each(|node| self.runtime.block_on(node.broker.reconcile()));
    }

    /// Appends as a handler does, and waits for durability. The base offset.
    fn produce(&self, node: &Node, id: PartitionId, batch: StoredBatch) -> i64 {
        let (broker, partition) = (&node.broker, node.partition(id));
        self.runtime.block_on(async {
            broker.load_producer_state(&partition).await.expect("the state of producers");
            let (header, now_ms) = (batch.header(), broker.clock.wall_ms());
            let guard = header.is_transactional().then(|| partition.begin_verification(&header, true, now_ms));
            let guard = guard.and_then(|guard| guard.expect("open"));
            let appended = partition.append(&broker.ledger, &header, batch, Origin::Client(guard), now_ms);
            let appended = appended.expect("appended");
            let base = appended.base_offset.0;
            appended.durable().await.expect("durable");
            base
        })
    }

    fn abort_transaction(&self, node: &Node, id: PartitionId, producer: i64, epoch: i16) {
        let end = TransactionEnd {
            producer: crate::base::ProducerId(producer),
            epoch,
            coordinator_epoch: 0,
            commit: false,
            version2: true,
        };
        self.runtime.block_on(async {
            let appended = node.broker.append_marker(&node.partition(id), end).await.expect("appended");
            appended.durable().await.expect("durable");
        });
    }

    /// Everything that happens when the process of `dead` is gone: its ledger ends with what `uploader` holds of it.
    fn fail(&self, dead: &Node, holders: &[&Node], uploader: &Node) {
        let (ledger, broker) = (dead.broker.ledger_id(), &dead.broker);
        self.propose(Command::FenceBroker { node: broker.node, epoch: broker.epoch });
        let from = self.image().ledgers[&ledger].uploaded;
        let end = EntryId(broker.ledger.appended());
        let holders = holders.iter().map(|node| Holder { replica: node.replica(), from }).collect();
        self.propose(Command::RecoverLedger { ledger, end, holders, uploader: uploader.broker.node });
    }

    fn assign(&self, id: PartitionId, leader: NodeId) {
        let leader_epoch = self.image().partition(id).expect("there").leader_epoch;
        self.propose(Command::AssignPartitions { changes: vec![Assignment { partition: id, leader_epoch, leader }] });
    }

    fn wish(&self, id: PartitionId, target: NodeId) {
        let change = TargetChange { partition: id, target: Some(target), preferred: None };
        self.propose(Command::SetTargets { changes: vec![change] });
    }

    /// What a leader does when the next one has a copy of everything.
    fn hand_over(&self, from: &Node, to: &Node, id: PartitionId) {
        self.wish(id, to.broker.node);
        let (node, epoch) = (from.broker.node, from.broker.epoch);
        let (leader_epoch, end) = from.partition(id).stop();
        to.copy_from(from);
        let target_since = self.image().partition(id).expect("there").target_since;
        self.propose(Command::HandOver { node, epoch, partition: id, leader_epoch, end, target_since });
        self.reconcile(&[from, to]);
    }

    fn upload(&self, node: &Node) -> Step {
        // Whoever waits for an append hears of it before it is up for upload.
        let (own, end) = (node.broker.ledger_id(), EntryId(node.broker.ledger.appended()));
        while self.image().ledgers[&own].uploaded < end && node.broker.registry.next_upload(own, u64::MAX) != Some(end)
        {
            std::thread::yield_now();
        }
        self.runtime.block_on(async {
            node.broker.adopt_ledgers(&node.broker.image());
            node.broker.upload_once().await.expect("the object store is there")
        })
    }

    /// Base offsets and leader epochs of a partition's batches in object storage, from its beginning on, and the footer
    /// of each range.
    fn stored(&self, node: &Node, id: PartitionId) -> (Vec<(i64, i32)>, Vec<PartitionState>) {
        let ranges = self.quorum.index().ranges(id, Offset::ZERO, Offset(i64::MAX), 100).expect("the index");
        let (mut batches, mut states) = (vec![], vec![]);
        let mut next = Offset::ZERO;
        for (base, range) in ranges {
            assert_eq!(base, next, "ranges follow one another");
            next = range.end;
            self.runtime.block_on(async {
                let objects = &node.broker.objects;
                let read = objects.read_to_merge(id, &range, base, usize::MAX).await.expect("the object");
                batches.extend(read.batches.iter().map(|b| (b.base_offset().0, b.header().leader_epoch.0)));
                states.push(objects.state(id, &range).await.expect("the footer"));
            });
        }
        (batches, states)
    }
}

impl Node {
    fn partition(&self, id: PartitionId) -> Arc<Partition> {
        self.broker.registry.get(id).expect("the partition is open")
    }

    fn replica(&self) -> Replica {
        Replica { node: self.broker.node, incarnation: self.broker.wal.incarnation() }
    }

    /// Brings what `other` has written and this node does not hold into this node's WAL. Answers it.
    fn take(&self, other: &Node) -> Vec<(PartitionId, Recovered)> {
        let ledger = other.broker.ledger_id();
        let mut known = vec![];
        for partition in other.broker.registry.with_records() {
            let run = partition.all_durable_batches().into_iter().filter(|b| b.ledger == ledger);
            known.extend(run.map(|batch| (batch.entry, partition.id, batch.location.expect("durable"))));
        }
        known.sort_by_key(|(entry, ..)| *entry);
        let held = self.broker.holdings.held_to(ledger, EntryId(0));
        known.retain(|(entry, ..)| *entry >= held);
        known.into_iter().map(|(entry, id, location)| (id, self.copy(other, ledger, entry, location))).collect()
    }

    fn copy(&self, other: &Node, ledger: LedgerId, entry: EntryId, location: Location) -> Recovered {
        let payload = other.broker.wal.read(location).expect("it is there");
        let head: [u8; HEAD] = payload[..HEAD].try_into().expect("as long");
        let body = payload.slice(HEAD..);
        self.broker.wal.append(Entry { ledger, entry, token: COPIED, head, body }).expect("room");
        let found = loop {
            let all = self.synced.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = all.iter().find(|s| (s.ledger, s.entry) == (ledger, entry)) {
                break *found;
            }
            drop(all);
            std::thread::yield_now();
        };
        let (_, batch) = ledger::decode_entry(&payload).expect("an entry");
        let header = Header::parse(batch).expect("a batch");
        let marker = batch::parse_end_marker(batch).expect("a batch");
        Recovered { header, bytes: batch.len(), ledger, entry, location: found.location, marker }
    }

    fn copy_from(&self, other: &Node) {
        let taken = self.take(other);
        taken.into_iter().for_each(|(id, batch)| self.holdings.found.add(id, batch));
    }

    /// Base offsets of what a reader gets, to the high watermark.
    fn read(&self, world: &World, id: PartitionId, isolation: Isolation) -> Vec<i64> {
        let partition = self.partition(id);
        let (mut from, mut found) = (Offset::ZERO, vec![]);
        loop {
            let read = self.broker.read_batches(&partition, from, 1 << 20, true, isolation);
            let fetched = world.runtime.block_on(read).expect("read");
            let Some(last) = fetched.batches.last() else { return found };
            from = last.header().next_offset();
            found.extend(fetched.batches.iter().map(|b| b.base_offset().0));
        }
    }
}

fn produced(producer: i64, sequence: i32, transactional: bool) -> StoredBatch {
    let epoch = if producer < 0 { -1 } else { 0 };
    let mut batch = sample::produced(2, SystemClock.wall_ms(), producer, epoch, sequence);
    if transactional {
        let mut body = batch.body.to_vec();
        body[6] |= 0x10;
        let crc = crate::base::checksum::crc32c(&body[5..]);
        body[1..5].copy_from_slice(&crc.to_be_bytes());
        batch.body = body.into();
    }
    batch
}

fn plain() -> StoredBatch {
    produced(-1, -1, false)
}

/// When a producer was last heard of is each node's own business.
fn ageless(mut state: PartitionState) -> PartitionState {
    state.producers.iter_mut().for_each(|producer| producer.last_timestamp = 0);
    state
}

#[test]
fn a_tail_that_only_a_copy_has_is_served_at_once_and_uploaded_by_who_was_named() {
    let world = World::new();
    let (a, b, c) = (world.start(A), world.start(B), world.start(C));
    world.create_topic(&[A, A]);
    world.reconcile(&[&a, &b, &c]);
    let (p0, p1) = (partition(0), partition(1));
    world.produce(&a, p0, plain());
    for (producer, transactional) in [(7, true), (9, false)] {
        world.produce(&a, p1, produced(producer, 0, transactional));
    }
    world.produce(&a, p0, plain());
    b.copy_from(&a);
    c.copy_from(&a);
    world.fail(&a, &[&b, &c], &b);
    world.assign(p0, B);
    world.assign(p1, C);
    world.reconcile(&[&b, &c]);
    assert_eq!(b.read(&world, p0, Isolation::ReadUncommitted), [0, 2]);
    assert_eq!(c.read(&world, p1, Isolation::ReadUncommitted), [0, 2]);
    assert_eq!(c.read(&world, p1, Isolation::ReadCommitted), Vec::<i64>::new(), "the transaction is open");
    assert_eq!(world.produce(&c, p1, produced(9, 0, false)), 2, "a retry of what the dead leader took");
    assert_eq!(world.produce(&c, p1, produced(9, 2, false)), 4);
    world.produce(&b, p0, plain());

    // The new leader has more, and the old ledger's records come first.
    assert_eq!(world.upload(&c), Step::Blocked);
    let dead = a.broker.ledger_id();
    let as_leader = c.partition(p1).collect_upload(dead, EntryId(u64::MAX)).run.expect("the dead leader's records");
    assert_eq!(world.upload(&b), Step::Uploaded);
    world.reconcile(&[&b, &c]);
    assert_eq!(c.partition(p1).positions().uploaded_end, Offset(4));
    assert!(world.image().ledgers.get(&dead).is_none_or(|ledger| ledger.is_finished()));
    let (_, footers) = world.stored(&b, p1);
    assert_eq!(ageless(footers[0].clone()), ageless(as_leader.state), "a shadow writes what the leader would");
    assert_eq!(footers[0].open_transactions.len(), 1);

    world.abort_transaction(&c, p1, 7, 1);
    assert_eq!((world.upload(&b), world.upload(&c)), (Step::Uploaded, Step::Uploaded));
    assert_eq!((world.upload(&b), world.upload(&c)), (Step::Nothing, Step::Nothing));
    assert_eq!(world.stored(&b, p0).0, [(0, 0), (2, 0), (4, 1)]);
    let (batches, footers) = world.stored(&b, p1);
    assert_eq!(batches, [(0, 0), (2, 0), (4, 1), (6, 1)]);
    assert_eq!((footers[1].open_transactions.len(), footers[1].aborted_transactions.len()), (0, 1));
    assert_eq!(
        world.image().partition(p1).expect("there").epochs,
        [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(1), Offset(4))]
    );
}

#[test]
fn a_partition_that_went_away_and_came_back_is_uploaded_from_both_ledgers_in_turn() {
    let world = World::new();
    let (a, b) = (world.start(A), world.start(B));
    world.create_topic(&[A]);
    world.reconcile(&[&a, &b]);
    let id = partition(0);
    world.produce(&a, id, produced(7, 0, true));
    world.produce(&a, id, produced(9, 0, false));
    world.hand_over(&a, &b, id);
    assert!(a.broker.registry.get(id).is_none() && a.broker.registry.departed(id).is_some());
    assert_eq!(world.produce(&b, id, produced(9, 0, false)), 2, "a retry at the new leader");
    assert_eq!(world.produce(&b, id, produced(9, 2, false)), 4);
    world.hand_over(&b, &a, id);
    assert!(b.broker.registry.get(id).is_none());
    assert_eq!(world.produce(&a, id, produced(9, 2, false)), 4, "a retry of what the other one took");
    assert_eq!(world.produce(&a, id, produced(7, 2, true)), 6, "the transaction goes on");
    world.abort_transaction(&a, id, 7, 1);
    assert_eq!(a.read(&world, id, Isolation::ReadCommitted), [0, 2, 4, 6, 8]);

    assert_eq!(world.upload(&b), Step::Blocked, "what came before is not there yet");
    assert_eq!(world.upload(&a), Step::Uploaded);
    assert_eq!(world.image().partition(id).expect("there").uploaded_end, Offset(4));
    assert_eq!(world.upload(&a), Step::Blocked);
    world.reconcile(&[&b]);
    assert_eq!(world.upload(&b), Step::Uploaded);
    assert!(b.broker.registry.departed(id).is_none(), "nothing is left to upload there");
    world.reconcile(&[&a]);
    assert_eq!(world.upload(&a), Step::Uploaded);
    assert_eq!((world.upload(&a), world.upload(&b)), (Step::Nothing, Step::Nothing));
    let (batches, footers) = world.stored(&a, id);
    assert_eq!(batches, [(0, 0), (2, 0), (4, 1), (6, 2), (8, 2)]);
    let sequences: Vec<_> =
        footers.iter().map(|f| f.producers.iter().map(|p| p.batches.len()).collect::<Vec<_>>()).collect();
    assert_eq!(sequences, [[1, 1], [1, 2], [0, 2]], "the marker of 7 began a new window");
    assert_eq!(footers[2].aborted_transactions.len(), 1);
}

#[test]
fn a_former_leaders_records_are_uploaded_from_its_copy_when_it_dies_after_the_move() {
    let world = World::new();
    let (a, b) = (world.start(A), world.start(B));
    world.create_topic(&[A]);
    world.reconcile(&[&a, &b]);
    let id = partition(0);
    world.produce(&a, id, plain());
    world.hand_over(&a, &b, id);
    world.produce(&b, id, plain());
    world.fail(&a, &[&b], &b);
    world.reconcile(&[&b]);
    assert_eq!((world.upload(&b), world.upload(&b)), (Step::Uploaded, Step::Uploaded));
    assert_eq!(world.stored(&b, id).0, [(0, 0), (2, 1)]);
    assert_eq!(world.upload(&b), Step::Nothing);
}

#[test]
fn nothing_is_served_before_everything_is_here() {
    let world = World::new();
    let (a, b) = (world.start(A), world.start(B));
    world.create_topic(&[A]);
    world.reconcile(&[&a, &b]);
    let id = partition(0);
    world.produce(&a, id, plain());
    b.copy_from(&a);
    world.produce(&a, id, plain());
    let missing = b.take(&a);
    world.fail(&a, &[&a, &b], &b);
    world.assign(id, B);
    world.reconcile(&[&b]);
    assert!(b.broker.registry.get(id).is_none(), "the end of the dead leader's ledger is not here");
    assert_eq!((b.broker.opening_partitions(), world.upload(&b)), (1, Step::Nothing));
    *b.holdings.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    let follow = world.runtime.spawn(b.broker.clone().follow_metadata());
    world.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), async {
            while b.broker.registry.get(id).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is pulled and opened");
    });
    assert_eq!(b.read(&world, id, Isolation::ReadUncommitted), [0, 2]);
    assert_eq!(b.broker.opening_partitions(), 0);
    follow.abort();
}

#[test]
fn a_wished_move_happens_and_loses_nothing_while_records_are_produced() {
    let world = World::new();
    let (a, b) = (world.start(A), world.start(B));
    world.create_topic(&[A]);
    world.reconcile(&[&a, &b]);
    let id = partition(0);
    let mut tasks = vec![];
    for node in [&a, &b] {
        tasks.push(world.runtime.spawn(node.broker.clone().follow_metadata()));
        tasks.push(world.runtime.spawn(node.broker.clone().run_uploader()));
    }
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let (mut next, mut after) = (0, 0);
    while after < 100 {
        assert!(std::time::Instant::now() < until, "{next} batches, {after} of them by the new leader");
        if next == 100 && world.image().partition(id).expect("there").target.is_none() {
            world.wish(id, B);
        }
        // As a client does: whoever leads, and again where it is refused.
        let leader = world.image().partition(id).expect("there").leader;
        let node = if leader == A { &a } else { &b };
        let Some(partition) = node.broker.registry.get(id) else { continue };
        let header = produced(9, next * 2, false).header();
        let ledger = &node.broker.ledger;
        let appended = partition.append(ledger, &header, produced(9, next * 2, false), Origin::Client(None), 0);
        let Ok(appended) = appended else {
            if partition.needs_producer_state() {
                let _ = world.runtime.block_on(node.broker.load_producer_state(&partition));
            }
            continue;
        };
        let base = appended.base_offset.0;
        if world.runtime.block_on(appended.durable()).is_ok() {
            assert_eq!(base, next as i64 * 2, "each batch once and in order");
            next += 1;
            after += i32::from(leader == B);
        }
    }
    assert_eq!(world.image().partition(id).expect("there").leader, B);
    tasks.iter().for_each(|task| task.abort());
    let expected: Vec<i64> = (0..next as i64).map(|n| n * 2).collect();
    assert_eq!(b.read(&world, id, Isolation::ReadUncommitted), expected);
    assert!(world.runtime.block_on(b.broker.upload_all()));
    assert_eq!(world.stored(&b, id).0.iter().map(|(base, _)| *base).collect::<Vec<_>>(), expected);
}
