//! A whole broker in one process, on a simulated disk and an object store that can be away: transactions across starts,
//! uploads and merges.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use super::*;
use crate::base::{ClusterId, Offset, PartitionId, ProducerId};
use crate::batch::{Header, StoredBatch, sample};
use crate::env::{Disk, SeededEntropy, SimDisk, SystemClock, SystemEntropy};
use crate::ledger::{Hosted, Replicas};
use crate::metadata::Command;
use crate::object::faults::FaultyStore;
use crate::object::{ObjectOptions, Place};
use crate::partition::{Appended, Isolation, Partition};
use crate::quorum::{Create, QuorumOptions};
use crate::security::{Authorizer, Operation, Permit, Principal, Resource};
use crate::wal::WalOptions;

const NODE: NodeId = NodeId(1);
pub(super) const CLUSTER: ClusterId = ClusterId([9; 16]);
const TOPIC: &str = "orders";

/// What outlives a process.
struct World {
    metadata: tempfile::TempDir,
    disk: SimDisk,
    store: Arc<FaultyStore>,
}

/// One process. Dropping it is as abrupt as a test can be: nothing is uploaded or said.
struct Process {
    broker: Arc<Broker>,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let metadata = tempfile::tempdir().expect("a folder");
        World { metadata, disk: SimDisk::new(), store: FaultyStore::new() }
    }

    fn start(&self) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let broker = runtime.block_on(self.open());
        Process { broker, runtime }
    }

    async fn open(&self) -> Arc<Broker> {
        let options = QuorumOptions { dir: self.metadata.path().join("metadata"), node: NODE, create: Create::Quorum };
        let quorum = Quorum::start(options, Arc::new(SystemEntropy)).await.expect("a quorum");
        quorum.propose(&Command::InitCluster { cluster: CLUSTER, generation: 1 }).await.expect("proposed");
        open_broker(NODE, quorum, Arc::new(self.disk.clone()), self.store.clone(), None).await
    }
}

/// What there is of other nodes.
pub(super) struct Neighbours {
    pub replicas: Arc<dyn Replicas>,
    /// Lets them use this node's ledgers, before it joins.
    pub serve: Box<dyn FnOnce(Arc<Hosted>) + Send>,
}

/// A process of a node, on its disk.
pub(super) async fn open_broker(
    node: NodeId,
    quorum: Arc<Quorum>,
    disk: Arc<dyn Disk>,
    store: Arc<FaultyStore>,
    neighbours: Option<Neighbours>,
) -> Arc<Broker> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = Arc::new(Registry::new(1 << 20, 1 << 40, clock.clone()));
    let (image, for_wal) = (quorum.image().borrow().clone(), registry.clone());
    let wal = WalOptions { segment_bytes: 1 << 20, budget_bytes: 8 << 20, queue_bytes: 1 << 20 };
    let seed = node.0 as u64;
    let opened = tokio::task::spawn_blocking(move || open_wal(disk, &SeededEntropy::new(seed), wal, &image, for_wal));
    let mut opened = opened.await.expect("no panic").expect("a WAL");
    let wal = opened.wal.clone();
    let others = neighbours.map(|Neighbours { replicas, serve }| {
        serve(opened.hosted.clone());
        replicas
    });
    let joined = join(JoinParts {
        quorum: &quorum,
        node,
        opened: &mut opened,
        registry: &registry,
        others: others.clone(),
        endpoints: Vec::new(),
        clock: &*clock,
        registered: &|_, _| (),
    });
    let joined = joined.await.expect("joined");
    let image = quorum.image().borrow().clone();
    let holdings = Arc::new(HostHoldings::new(joined.host.clone(), others));
    open_partitions(&registry, (node, joined.epoch), &image, &*holdings, clock.wall_ms()).expect("partitions");
    let objects = Objects::in_store(
        store,
        &ObjectOptions::at(Place::Folder("unused".into())),
        CLUSTER,
        clock.clone(),
        Arc::new(SeededEntropy::new(2)),
    );
    let of_quorum = quorum.clone();
    let lease = Lease::new(clock.clone(), Box::new(move || of_quorum.leads()));
    Broker::new(BrokerParts {
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
        quorum,
        objects,
        wal,
        registry,
        holdings,
        joined,
        lease,
        clock,
        entropy: Arc::new(SystemEntropy),
    })
}

pub(super) fn permit(operation: Operation, resource: Resource<'_>) -> Permit {
    Authorizer::Everyone.authorize(&Principal::anonymous(), operation, resource).expect("everyone")
}

/// Answers as it is told, and remembers what it was asked.
#[derive(Default)]
struct Gate {
    answers: Mutex<VecDeque<Result<(), NotAdmitted>>>,
    asked: Mutex<Vec<(String, bool, usize)>>,
}

impl TransactionGate for Gate {
    fn admit<'a>(&'a self, ask: Admission<'a>) -> BoxFuture<'a, Vec<Result<(), NotAdmitted>>> {
        let asked = (ask.transactional_id.to_owned(), ask.add, ask.partitions.len());
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.pop_front().unwrap_or(Ok(()));
        async move { vec![answer; ask.partitions.len()] }.boxed()
    }
}

impl Gate {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn will_answer(&self, answers: impl IntoIterator<Item = NotAdmitted>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers.into_iter().map(Err));
    }
}

pub(super) fn batch(producer: i64, epoch: i16, sequence: i32, transactional: bool) -> StoredBatch {
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

impl Process {
    fn create_topic(&self) {
        self.create_topic_with(&[]);
    }

    fn create_topic_with(&self, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let topic = NewTopic { name: TOPIC.to_owned(), leaders: vec![NODE], replication_factor: 1, configs };
        let permit = permit(Operation::Create, Resource::topic(TOPIC));
        self.runtime.block_on(self.broker.create_topic(&permit, topic)).expect("created");
    }

    fn partition(&self) -> Arc<Partition> {
        let topic = self.broker.topic(TOPIC).expect("there");
        self.broker.registry().get(PartitionId { topic: topic.id, index: 0 }).expect("open")
    }

    fn gate(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.broker.set_transaction_gate(gate.clone());
        gate
    }

    /// Produces as a handler does, and waits for durability. The base offset.
    fn produce(&self, batch: StoredBatch) -> Result<i64, ProduceError> {
        self.produce_as(batch, true)
    }

    fn produce_as(&self, batch: StoredBatch, version2: bool) -> Result<i64, ProduceError> {
        let (broker, partition) = (&self.broker, self.partition());
        let write = permit(Operation::Write, Resource::topic(TOPIC));
        let in_transaction = permit(Operation::Write, Resource::transactional_id("t"));
        let header = batch.header();
        let transaction = header.is_transactional().then_some(InTransaction {
            transactional_id: "t",
            permit: &in_transaction,
            version2,
        });
        let settings = broker.topic_settings(&broker.topic(TOPIC).expect("there"));
        let context = ProduceContext {
            replicas_needed: 0,
            settings: &settings,
            zstd_allowed: true,
            room_deadline: broker.room_deadline(Duration::from_secs(1)),
            transaction,
        };
        self.runtime.block_on(async {
            let guard = match transaction {
                Some(transaction) => {
                    broker.admit(transaction, &[(&*partition, header)]).await.pop().expect("one answer")?
                }
                None => None,
            };
            let appended = broker.append(&write, &partition, batch.to_contiguous(), &context, guard).await?;
            self.durable(appended).await
        })
    }

    async fn durable(&self, appended: Appended) -> Result<i64, ProduceError> {
        let base = appended.base_offset.0;
        self.broker.durable(&self.partition(), appended, CopiesNeeded::DURABLE).await.map(|()| base)
    }

    fn end(&self, producer: i64, epoch: i16, coordinator_epoch: i32, commit: bool) -> Result<i64, ProduceError> {
        let end = TransactionEnd { producer: ProducerId(producer), epoch, coordinator_epoch, commit, version2: true };
        self.runtime.block_on(async {
            let appended = self.broker.append_marker(&self.partition(), end).await?;
            self.durable(appended).await
        })
    }

    /// Base offsets of the batches that a reader of committed records gets from `from` on, and what it has to skip.
    fn read(&self, from: i64) -> (Vec<i64>, Vec<(i64, i64)>) {
        let (read, partition) = (permit(Operation::Read, Resource::topic(TOPIC)), self.partition());
        let mut from = Offset(from);
        let (mut batches, mut aborted) = (vec![], vec![]);
        loop {
            let fetched = self.broker.read(&read, &partition, from, 1 << 20, true, Isolation::ReadCommitted);
            let fetched = self.runtime.block_on(fetched).expect("read");
            let Some(last) = fetched.batches.last() else { return (batches, aborted) };
            from = last.header().next_offset();
            batches.extend(fetched.batches.iter().map(|b| b.base_offset().0));
            for found in fetched.aborted.iter().map(|t| (t.producer.0, t.first_offset.0)) {
                if !aborted.contains(&found) {
                    aborted.push(found);
                }
            }
        }
    }

    fn latest(&self, isolation: Isolation) -> i64 {
        let describe = permit(Operation::Describe, Resource::topic(TOPIC));
        let (broker, partition) = (&self.broker, self.partition());
        let found = broker.find_offset(&describe, &partition, OffsetQuery::Latest, isolation);
        self.runtime.block_on(found).expect("found").expect("always there").offset.0
    }

    fn upload(&self) {
        assert!(self.runtime.block_on(self.broker.upload_all()), "uploaded");
    }
}

#[test]
fn transactional_batches_are_admitted_once_per_transaction() {
    let process = World::new().start();
    process.create_topic();
    assert!(matches!(process.produce(batch(7, 0, 0, true)), Err(ProduceError::Transactional)), "no coordinator");
    let gate = process.gate();
    gate.will_answer([NotAdmitted::NotInTransaction]);
    let refused = process.produce_as(batch(7, 0, 0, true), false);
    assert!(matches!(refused, Err(ProduceError::NotAdmitted(NotAdmitted::NotInTransaction))), "{refused:?}");
    assert_eq!(process.partition().positions().next, Offset(0));
    assert_eq!(process.produce(batch(7, 0, 0, true)).expect("admitted"), 0);
    assert_eq!(process.produce(batch(7, 0, 2, true)).expect("open"), 2);
    assert_eq!(process.produce(batch(7, 0, 2, true)).expect("a retry"), 2);
    assert_eq!(gate.asked(), 2);
    assert!(process.produce(batch(7, 0, 4, false)).is_err(), "a plain batch within it");
    assert_eq!(process.end(7, 1, 0, true).expect("ended"), 4);
    assert_eq!(process.end(7, 1, 0, true).expect("again"), 5);
    // The transaction before it completes while the first batch of the next one waits.
    gate.will_answer([NotAdmitted::Concurrent, NotAdmitted::Concurrent]);
    assert_eq!(process.produce(batch(7, 1, 0, true)).expect("admitted at last"), 6);
    assert_eq!(gate.asked(), 5);
    gate.will_answer([NotAdmitted::Concurrent]);
    assert!(process.produce_as(batch(8, 0, 0, true), false).is_err(), "old clients try again themselves");
    assert!(matches!(process.produce(batch(7, 0, 4, true)), Err(ProduceError::Append(_))), "a stale epoch");
}

#[test]
fn readers_of_committed_records_stop_at_what_is_open() {
    let process = World::new().start();
    process.create_topic();
    process.gate();
    process.produce(batch(-1, -1, -1, false)).expect("plain");
    process.produce(batch(7, 0, 0, true)).expect("admitted");
    process.produce(batch(-1, -1, -1, false)).expect("plain");
    assert_eq!(process.read(0), (vec![0], vec![]));
    let latest = |isolation| process.latest(isolation);
    assert_eq!((latest(Isolation::ReadCommitted), latest(Isolation::ReadUncommitted)), (2, 6));
    let active = process.partition().active_producers();
    assert_eq!((active[0].transaction_start, active[0].coordinator_epoch), (Some(Offset(2)), -1));
    process.end(7, 1, 3, false).expect("aborted");
    assert_eq!(process.read(0), (vec![0, 2, 4, 6], vec![(7, 2)]));
    assert_eq!(latest(Isolation::ReadCommitted), 7);
    let active = process.partition().active_producers();
    assert_eq!((active[0].epoch, active[0].transaction_start, active[0].coordinator_epoch), (1, None, 3));
    assert!(matches!(process.end(7, 2, 2, false), Err(ProduceError::Append(_))), "an older coordinator");
}

#[test]
fn state_survives_uploads_and_kills_also_while_the_bucket_is_away() {
    let world = World::new();
    let process = world.start();
    process.create_topic();
    process.gate();
    process.produce(batch(7, 0, 0, true)).expect("admitted"); // 0
    process.produce(batch(8, 0, 0, true)).expect("admitted"); // 2
    process.produce(batch(9, 0, 0, false)).expect("idempotent"); // 4
    process.upload();
    process.end(8, 1, 5, false).expect("aborted"); // 6
    process.produce(batch(9, 0, 2, false)).expect("idempotent"); // 7
    drop(process);

    world.store.down.store(true, Relaxed);
    let process = world.start();
    let gate = process.gate();
    assert_eq!(process.latest(Isolation::ReadCommitted), 0, "7's transaction is open since 0");
    for (sequence, offset) in [(0, 4), (2, 7)] {
        assert_eq!(process.produce(batch(9, 0, sequence, false)).expect("a retry"), offset);
    }
    assert_eq!(process.produce(batch(9, 0, 4, false)).expect("goes on"), 9);
    assert_eq!(process.produce(batch(7, 0, 2, true)).expect("still open"), 11);
    assert_eq!(gate.asked(), 0);
    assert!(process.produce(batch(8, 0, 2, true)).is_err(), "fenced by the marker's epoch");
    assert!(process.end(8, 2, 4, true).is_err(), "an older coordinator");
    process.end(7, 1, 5, false).expect("aborted"); // 13
    assert_eq!(process.latest(Isolation::ReadCommitted), 14);
    assert_eq!(process.read(6), (vec![6, 7, 9, 11, 13], vec![(7, 0), (8, 2)]), "both began in the bucket");
    assert!(world.store.get_requests.load(Relaxed) == 0);

    world.store.down.store(false, Relaxed);
    assert_eq!(process.read(0), (vec![0, 2, 4, 6, 7, 9, 11, 13], vec![(7, 0), (8, 2)]));
    process.upload();
    drop(process);
    let process = world.start();
    assert_eq!(process.read(0).1, [(7, 0), (8, 2)], "from footers alone");
    assert_eq!(process.read(7).1, [(7, 0)]);
    let mut stored = None;
    process.runtime.block_on(process.broker.maintain(&mut stored));
    assert_eq!(process.broker.upload_metrics().merged_objects.load(Relaxed), 1);
    assert_eq!(process.read(0).1, [(7, 0), (8, 2)], "from the merged footer");
    drop(process);
    let process = world.start();
    assert_eq!(process.read(0), (vec![0, 2, 4, 6, 7, 9, 11, 13], vec![(7, 0), (8, 2)]));
    assert_eq!(process.produce(batch(9, 0, 4, false)).expect("a retry"), 9);
}

#[test]
fn without_its_copy_the_state_comes_from_the_bucket() {
    let world = World::new();
    let process = world.start();
    process.create_topic();
    process.gate();
    process.produce(batch(7, 0, 0, true)).expect("admitted");
    process.produce(batch(9, 0, 0, false)).expect("idempotent");
    process.upload();
    process.broker.quorum.kept_states().retain(&|_| false).expect("forgotten");
    drop(process);
    let process = world.start();
    assert_eq!(process.latest(Isolation::ReadCommitted), 0);
    assert_eq!(process.produce(batch(9, 0, 0, false)).expect("a retry"), 2);
    assert!(world.store.get_requests.load(Relaxed) > 0);
}

#[test]
fn what_a_coordinator_writes_in_a_transaction_is_unstable_until_it_ends() {
    let process = World::new().start();
    process.create_topic();
    let writer = crate::batch::Writer::in_transaction(ProducerId(7), 0);
    for base in [0, 1] {
        let mut builder = crate::batch::BatchBuilder::new(writer);
        builder.push(Some(b"group"), Some(b"offset"), 0).expect("small");
        let batch = builder.finish().expect("not empty");
        let header: Header = batch.header();
        assert!(header.is_transactional());
        let partition = process.partition();
        let offset = process.runtime.block_on(async {
            let appended = process.broker.append_coordinator(&partition, batch).await?;
            process.durable(appended).await
        });
        assert_eq!(offset.expect("appended"), base);
    }
    assert_eq!(process.latest(Isolation::ReadCommitted), 0);
    process.end(7, 1, 0, true).expect("committed");
    assert_eq!(process.read(0), (vec![0, 1, 2], vec![]));
}

#[test]
fn retention_cuts_into_a_range_that_is_larger_than_a_segment() {
    const RECORDS: i64 = 20_000;
    const KEEP: u64 = 3 << 19;
    let process = World::new().start();
    process.create_topic_with(&[("segment.bytes", "1048576"), ("retention.bytes", "1572864"), ("retention.ms", "-1")]);
    let topic = || process.broker.topic(TOPIC).expect("there");
    let maintain = || process.runtime.block_on(process.broker.maintain(&mut None));
    let log_start = || process.partition().positions().log_start;
    let mut bytes = vec![];
    for _ in 0..12 {
        let batch = sample::batch(RECORDS as i32, SystemClock.wall_ms());
        bytes.push((batch.head.len() + batch.body.len()) as u64);
        process.produce(batch).expect("produced");
    }
    process.upload();
    let total: u64 = bytes.iter().sum();
    assert!(total > 2 * KEEP && topic().partitions[0].object_bytes == total, "one range of {total} bytes");
    maintain();
    let from = log_start();
    let kept: u64 = bytes.iter().enumerate().filter(|(i, _)| (*i as i64) * RECORDS >= from.0).map(|(_, b)| b).sum();
    assert_eq!(from.0 % RECORDS, 0, "the log begins with a batch");
    assert!((KEEP..KEEP + (1 << 20)).contains(&kept), "{kept} bytes are kept from {from:?} on");
    assert_eq!(process.read(from.0).0.first(), Some(&from.0));
    maintain();
    assert_eq!(log_start(), from, "what is below the log start does not count as kept");
    assert_eq!(topic().partitions[0].object_bytes, total, "its bytes are there as long as a part is read");

    for _ in 0..6 {
        process.produce(sample::batch(RECORDS as i32, SystemClock.wall_ms())).expect("produced");
    }
    process.upload();
    maintain();
    maintain();
    assert_eq!(log_start(), Offset(12 * RECORDS), "the first range goes whole");
    assert!(topic().partitions[0].object_bytes < total);
    assert_eq!(process.read(12 * RECORDS).0.len(), 6);
}

#[test]
fn missing_entries_end_a_start_only_where_nobody_else_has_them() {
    use crate::base::{BrokerEpoch, EntryId, LedgerId};
    use crate::metadata::{Ledger, Replica};
    let disk = SimDisk::new();
    let open = |image: &Image| {
        let registry = Arc::new(Registry::new(1 << 20, 1 << 40, Arc::new(SystemClock)));
        let wal = WalOptions { segment_bytes: 64 << 10, budget_bytes: 256 << 10, queue_bytes: 1 << 20 };
        open_wal(Arc::new(disk.clone()), &SeededEntropy::new(1), wal, image, registry)
    };
    let incarnation = open(&Image::default()).expect("an empty WAL").wal.incarnation();
    let image = |replicas: &[Replica], uploaded: u64| {
        let ledger = Ledger {
            node: NODE,
            epoch: BrokerEpoch(1),
            replicas: replicas.to_vec(),
            write_quorum: 1,
            end: Some(EntryId(3)),
            uploaded: EntryId(uploaded),
            uploader: None,
            holders: Vec::new(),
        };
        Image { ledgers: [(LedgerId(1), ledger)].into(), next_ledger: 2, ..Image::default() }
    };
    let (own, other) = (Replica { node: NODE, incarnation }, Replica { node: NodeId(2), incarnation });
    let missing = open(&image(&[own], 1)).err().expect("the only copy is gone");
    assert!(matches!(missing, StartError::MissingEntries { from: EntryId(1), to: EntryId(3), .. }), "{missing}");
    assert!(open(&image(&[own, other], 1)).is_ok(), "the other replica has them");
    assert!(open(&image(&[own], 3)).is_ok(), "they are in object storage");
}
