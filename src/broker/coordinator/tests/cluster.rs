//! Several brokers in one process: one quorum, a simulated disk for each, one object store, and a network between them
//! that loses, delays and doubles what is said, but never lets one request overtake another. Their ledgers have replicas
//! on one another (`ledgers.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::super::{AdmissionService, MarkerService, NoAnswer, Remote};
use super::ledgers::{LedgerPort, Served};
use crate::base::{LeaderEpoch, NodeId, Offset, PartitionId, TopicId};
use crate::broker::tests::{CLUSTER, Neighbours, batch, open_broker, permit};
use crate::broker::{
    Broker, CopiesNeeded, InTransaction, OFFSETS_TOPIC, OffsetQuery, ProduceContext, ProduceError, TRANSACTIONS_TOPIC,
};
use crate::env::{Disk, DiskFile, OpenMode, SeededEntropy, SimDisk, SystemEntropy};
use crate::metadata::{Command, ConfigChange, ConfigResource, Response, TargetChange};
use crate::object::faults::FaultyStore;
use crate::partition::{Isolation, Partition};
use crate::peer::{Caller, Class, Dispatch, Service, kind};
use crate::quorum::{Create, Quorum, QuorumOptions};
use crate::security::{Operation, Resource};
use crate::transaction::{Producer, Reply, Request, State, TransactionVersion};

pub const ID: &str = "payments";
pub const TOPIC: &str = "orders";
/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn node(number: i32) -> NodeId {
    NodeId(number)
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    Lost,
    AnswerLost,
    Twice,
    Late,
}

type Fates = Box<dyn FnMut(NodeId, NodeId, u8) -> Fate + Send>;

/// The network.
pub struct Net {
    pub(super) services: Mutex<HashMap<NodeId, Served>>,
    /// Nodes whose entries reach no other node.
    pub(super) isolated: Mutex<BTreeSet<NodeId>>,
    /// Told whenever one of the two has changed.
    pub(super) changed: watch::Sender<()>,
    /// Processes ever started.
    processes: AtomicU64,
    fates: Mutex<Fates>,
    /// Requests by kind that have arrived.
    arrived: Mutex<BTreeMap<u8, usize>>,
}

impl Net {
    pub fn decide(&self, fates: impl FnMut(NodeId, NodeId, u8) -> Fate + Send + 'static) {
        *self.fates.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(fates);
    }

    pub fn arrived(&self, kind: u8) -> usize {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).copied().unwrap_or(0)
    }

    /// Hands a request over; its second phase runs on the other node.
    pub fn deliver(&self, from: NodeId, to: NodeId, request: Bytes) -> Option<tokio::task::JoinHandle<Option<Bytes>>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let Served { dispatch, handle, .. } = services.get(&to)?;
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner).entry(request[0]).or_default() += 1;
        let caller = Caller { node: from, subject: "CN=n".into(), class: Class::Control, process: 1, joining: false };
        let _runs_there = handle.enter();
        let answering = dispatch.call(&caller, request);
        Some(handle.spawn(async move { answering.await.ok().map(|body| body.to_bytes()) }))
    }

    fn serve(&self, number: NodeId, served: Served) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).insert(number, served);
        self.changed.send_replace(());
    }

    fn remove(&self, number: NodeId) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.changed.send_replace(());
    }

    /// From now on what a node writes to its ledgers stays on it.
    pub fn isolate(&self, number: NodeId) {
        self.isolated.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        self.changed.send_replace(());
    }

    /// And no longer.
    pub fn reconnect(&self, number: NodeId) {
        self.isolated.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.changed.send_replace(());
    }

    async fn carry(&self, from: NodeId, to: NodeId, request: Bytes) -> Option<Bytes> {
        let fate = (self.fates.lock().unwrap_or_else(PoisonError::into_inner))(from, to, request[0]);
        match fate {
            Fate::Lost => return None,
            Fate::Late => tokio::time::sleep(Duration::from_millis(15)).await,
            Fate::Twice => drop(self.deliver(from, to, request.clone())?),
            Fate::Arrives | Fate::AnswerLost => {}
        }
        let answer = self.deliver(from, to, request)?.await.ok()??;
        (fate != Fate::AnswerLost).then_some(answer)
    }
}

/// One node's way into the network.
struct Port {
    net: Arc<Net>,
    from: NodeId,
}

impl Remote for Port {
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> BoxFuture<'_, Result<Bytes, NoAnswer>> {
        async move {
            let answer = tokio::time::timeout(within, self.net.carry(self.from, to, request)).await;
            answer.ok().flatten().ok_or_else(|| NoAnswer("nothing came back".to_owned()))
        }
        .boxed()
    }
}

/// Holds syncs back while it is closed.
#[derive(Default)]
pub struct Lock(Mutex<bool>, Condvar);

impl Lock {
    pub fn hold(&self, held: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.1.notify_all();
    }

    fn pass(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner));
    }
}

struct HeldDisk(SimDisk, Arc<Lock>);
struct HeldFile(Arc<dyn DiskFile>, Arc<Lock>);

impl Disk for HeldDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HeldFile(self.0.open(path, mode)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

impl DiskFile for HeldFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(bufs, offset)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}

/// One process of a node.
struct Process {
    broker: Arc<Broker>,
    runtime: Runtime,
}

#[derive(Default)]
struct Machine {
    disk: SimDisk,
    lock: Arc<Lock>,
    process: Option<Process>,
}

pub struct Cluster {
    machines: BTreeMap<NodeId, Machine>,
    pub net: Arc<Net>,
    quorum: Arc<Quorum>,
    store: Arc<FaultyStore>,
    /// Of the quorum; the last to go.
    runtime: Runtime,
    _metadata: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in self.machines.keys().copied().collect::<Vec<_>>() {
            self.kill(number);
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

impl Cluster {
    /// Nodes 1 to `nodes`. The transaction coordinator is on node 1; `orders` has a partition on each node, in order; the
    /// group coordinator is on the last node.
    pub fn start(nodes: i32) -> Cluster {
        let (runtime, metadata) = (runtime(), tempfile::tempdir().expect("a folder"));
        let options = QuorumOptions { dir: metadata.path().join("metadata"), node: node(1), create: Create::Quorum };
        let quorum = runtime.block_on(async {
            let quorum = Quorum::start(options, Arc::new(SystemEntropy)).await.expect("a quorum");
            quorum.propose(&Command::InitCluster { cluster: CLUSTER, generation: 1 }).await.expect("proposed");
            quorum
        });
        let net = Net {
            services: Mutex::default(),
            isolated: Mutex::default(),
            changed: watch::Sender::default(),
            processes: AtomicU64::new(0),
            fates: Mutex::new(Box::new(|_, _, _| Fate::Arrives)),
            arrived: Mutex::default(),
        };
        let machines = (1..=nodes).map(|number| (node(number), Machine::default())).collect();
        let store = FaultyStore::new();
        let mut cluster = Cluster { machines, net: Arc::new(net), quorum, store, runtime, _metadata: metadata };
        (1..=nodes).for_each(|number| cluster.boot(node(number)));
        cluster.create(TRANSACTIONS_TOPIC, vec![node(1)]);
        cluster.create(OFFSETS_TOPIC, vec![node(nodes)]);
        cluster.create(TOPIC, (1..=nodes).map(node).collect());
        cluster
    }

    /// With as many replicas as there are nodes, of which one need be in sync.
    fn create(&self, name: &str, leaders: Vec<NodeId>) {
        let replication_factor = self.machines.len() as i16;
        let id = TopicId([name.len() as u8; 16]);
        let command = Command::CreateTopic {
            id,
            name: name.to_owned(),
            partitions: leaders,
            replication_factor,
            configs: Vec::new(),
            now_ms: 0,
        };
        self.propose(&command);
        let topic = self.quorum.image().borrow().topic(name).cloned().expect("made");
        self.until("partitions open", || (0..topic.partitions.len() as i32).all(|index| self.is_open(name, index)));
    }

    /// Sets `min.insync.replicas` of a topic on every node that runs.
    pub fn set_min_insync(&self, topic: &str, replicas: i32) {
        let (resource, name) = (ConfigResource::Topic(topic.to_owned()), "min.insync.replicas".to_owned());
        let change = ConfigChange { resource, name, value: Some(replicas.to_string()) };
        self.propose(&Command::AlterConfigs { changes: vec![change] });
        let settings = |number: &NodeId| {
            let broker = self.broker(*number);
            broker.topic_settings(&broker.topic(topic).expect("there")).min_insync_replicas
        };
        self.until("the setting is known", || self.machines.keys().all(|number| settings(number) == replicas));
    }

    fn propose(&self, command: &Command) -> Response {
        let response = self.runtime.block_on(self.quorum.propose(command)).expect("proposed");
        assert!(!matches!(response, Response::Rejected(_)), "{response:?}");
        response
    }

    /// Starts a process on a node.
    pub fn boot(&mut self, number: NodeId) {
        let machine = self.machines.get_mut(&number).expect("there");
        let runtime = runtime();
        let disk = Arc::new(HeldDisk(machine.disk.clone(), machine.lock.clone()));
        let (dispatch, process) = (Arc::new(Dispatch::default()), self.net.processes.fetch_add(1, Relaxed));
        let ledgers = Arc::new(LedgerPort { net: self.net.clone(), from: number });
        let (net, handle, services) = (self.net.clone(), runtime.handle().clone(), dispatch.clone());
        let serve = move |hosted| net.serve(number, Served { dispatch: services, hosted, handle, process });
        let neighbours = Neighbours { replicas: ledgers.clone(), serve: Box::new(serve) };
        let opening = open_broker(number, self.quorum.clone(), disk, self.store.clone(), Some(neighbours));
        let broker = runtime.block_on(opening);
        broker.set_remote(Arc::new(Port { net: self.net.clone(), from: number }));
        dispatch.add(kind::ADMIT, Arc::new(AdmissionService::new(broker.clone())));
        dispatch.add(kind::MARKERS, Arc::new(MarkerService::new(broker.clone())));
        runtime.spawn(broker.clone().follow_metadata());
        runtime.spawn(broker.clone().run_ledger(ledgers));
        runtime.spawn(broker.clone().run_coordinators());
        // Only what is about to move is uploaded: no interval passes here.
        runtime.spawn(broker.clone().run_uploader());
        machine.process = Some(Process { broker, runtime });
    }

    /// The process ends abruptly, and with it what it had not synced.
    pub fn kill(&mut self, number: NodeId) {
        self.net.remove(number);
        let machine = self.machines.get_mut(&number).expect("there");
        let Some(process) = machine.process.take() else { return };
        machine.disk.power_off();
        machine.lock.hold(false);
        drop(process.broker);
        drop(process.runtime);
        // Of all power cuts the one after which nothing is there that was not synced.
        let seed = (0..).find(|seed| SeededEntropy::new(*seed).below(4) == 0).expect("some seed");
        machine.disk.power_on(seed);
    }

    /// Holds the syncs of a node's disk back, or lets them go.
    pub fn hold(&self, number: NodeId, held: bool) {
        self.machines[&number].lock.hold(held);
    }

    fn process(&self, number: NodeId) -> &Process {
        self.machines[&number].process.as_ref().expect("running")
    }

    pub fn broker(&self, number: NodeId) -> &Arc<Broker> {
        &self.process(number).broker
    }

    pub fn on<T>(&self, number: NodeId, work: impl Future<Output = T>) -> T {
        self.process(number).runtime.block_on(work)
    }

    pub fn spawn<T: Send + 'static>(
        &self,
        number: NodeId,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.process(number).runtime.spawn(work)
    }

    pub fn id(&self, topic: &str, index: i32) -> PartitionId {
        PartitionId { topic: self.quorum.image().borrow().topic(topic).expect("there").id, index }
    }

    pub fn leader(&self, topic: &str, index: i32) -> (NodeId, LeaderEpoch) {
        let image = self.quorum.image().borrow().clone();
        let partition = image.partition(self.id(topic, index)).expect("there").clone();
        (partition.leader, partition.leader_epoch)
    }

    fn is_open(&self, topic: &str, index: i32) -> bool {
        self.broker(self.leader(topic, index).0).registry().get(self.id(topic, index)).is_some()
    }

    pub fn partition(&self, topic: &str, index: i32) -> Arc<Partition> {
        let leader = self.leader(topic, index).0;
        self.broker(leader).registry().get(self.id(topic, index)).expect("open")
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = std::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(std::time::Instant::now() < end, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has a partition moved to another node, which takes what it lacks of the ledgers from others.
    pub fn hand_over(&self, topic: &str, index: i32, target: NodeId) {
        let partition = self.id(topic, index);
        let change = TargetChange { partition, target: Some(target), preferred: None };
        self.propose(&Command::SetTargets { changes: vec![change] });
        self.until("the new leader opens", || self.leader(topic, index).0 == target && self.is_open(topic, index));
    }

    /// Asks the transaction coordinator, wherever it is, until it answers.
    pub fn ask(&self, request: &Request) -> Reply {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let leader = self.leader(TRANSACTIONS_TOPIC, 0).0;
            let allowed = permit(Operation::Write, Resource::transactional_id(ID));
            match self.on(leader, self.broker(leader).transaction_request(&allowed, ID, request.clone())) {
                Ok(reply) => return reply,
                Err(error) => assert!(std::time::Instant::now() < end, "in vain: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn init(&self) -> Producer {
        let transactional_id = ID.to_owned();
        let request = Request::InitProducerId { transactional_id, timeout_ms: 600_000, expected: None };
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            match self.ask(&request) {
                Reply::InitProducerId(Ok(producer)) => return producer,
                other => assert!(std::time::Instant::now() < end, "in vain: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the transaction; answers the producer to go on as.
    pub fn end(&self, producer: Producer, commit: bool) -> Producer {
        match self.ask(&end_txn(producer, commit)) {
            Reply::EndTxn(Ok(Some(next))) => next,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self) -> State {
        match self.ask(&Request::DescribeTransaction { transactional_id: ID.to_owned() }) {
            Reply::DescribeTransaction(Ok(described)) => described.state,
            other => panic!("{other:?}"),
        }
    }

    pub fn until_state(&self, state: State) {
        self.until(&format!("the transaction is {state:?}"), || self.state() == state);
    }

    /// Produces two records in the transaction, once; what is retriable is not retried.
    pub fn try_produce(&self, index: i32, producer: Producer, sequence: i32) -> Result<i64, ProduceError> {
        let leader = self.leader(TOPIC, index).0;
        let (broker, partition) = (self.broker(leader).clone(), self.partition(TOPIC, index));
        self.on(leader, produce(broker, partition, producer, sequence))
    }

    /// The same until it succeeds.
    pub fn produce(&self, index: i32, producer: Producer, sequence: i32) -> i64 {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            match self.try_produce(index, producer, sequence) {
                Ok(offset) => return offset,
                Err(error) => assert!(std::time::Instant::now() < end, "in vain: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The first batch of a transaction on each partition; their offsets.
    pub fn produce_everywhere(&self, producer: Producer) -> Vec<i64> {
        (0..self.machines.len() as i32).map(|index| self.produce(index, producer, 0)).collect()
    }

    /// Base offsets of the data that a reader of committed records sees; `None` while a transaction is open.
    pub fn committed(&self, index: i32) -> Option<Vec<i64>> {
        let leader = self.leader(TOPIC, index).0;
        let (broker, partition) = (self.broker(leader), self.partition(TOPIC, index));
        let describe = permit(Operation::Describe, Resource::topic(TOPIC));
        let stable = broker.find_offset(&describe, &partition, OffsetQuery::Latest, Isolation::ReadCommitted);
        let stable = self.on(leader, stable).expect("found").expect("always there").offset;
        if stable != partition.positions().high_watermark {
            return None;
        }
        let read = permit(Operation::Read, Resource::topic(TOPIC));
        let (mut from, mut seen) = (Offset(0), Vec::new());
        loop {
            let fetched = broker.read(&read, &partition, from, 1 << 20, true, Isolation::ReadCommitted);
            let fetched = self.on(leader, fetched).expect("read");
            let Some(last) = fetched.batches.last() else { return Some(seen) };
            from = last.header().next_offset();
            let aborted = |producer, at: Offset| {
                let covers = |t: &&crate::object::AbortedTransaction| t.first_offset <= at && at < t.last_offset;
                fetched.aborted.iter().filter(|t| t.producer == producer).any(|t| covers(&t))
            };
            let data = fetched.batches.iter().map(|b| b.header()).filter(|h| !h.is_control());
            seen.extend(data.filter(|h| !aborted(h.producer_id, h.base_offset)).map(|h| h.base_offset.0));
        }
    }

    pub fn until_committed(&self, index: i32, bases: &[i64]) {
        let found = || self.committed(index);
        self.until(&format!("{bases:?} are committed, not {:?}", found()), || found().as_deref() == Some(bases));
    }
}

pub fn end_txn(producer: Producer, commit: bool) -> Request {
    Request::EndTxn { transactional_id: ID.to_owned(), producer, commit, version: TransactionVersion::V2 }
}

pub async fn produce(
    broker: Arc<Broker>,
    partition: Arc<Partition>,
    producer: Producer,
    sequence: i32,
) -> Result<i64, ProduceError> {
    let write = permit(Operation::Write, Resource::topic(TOPIC));
    let in_transaction = permit(Operation::Write, Resource::transactional_id(ID));
    let batch = batch(producer.id, producer.epoch, sequence, true);
    let transaction = InTransaction { transactional_id: ID, permit: &in_transaction, version2: true };
    let settings = broker.topic_settings(&broker.topic(TOPIC).expect("there"));
    let context = ProduceContext {
        replicas_needed: 1,
        settings: &settings,
        zstd_allowed: true,
        room_deadline: broker.room_deadline(Duration::from_secs(1)),
        transaction: Some(transaction),
    };
    let guard = broker.admit(transaction, &[(&*partition, batch.header())]).await.pop().expect("one answer")?;
    let appended = broker.append(&write, &partition, batch.to_contiguous(), &context, guard).await?;
    let base = appended.base_offset.0;
    broker.durable(&partition, appended, CopiesNeeded::DURABLE).await.map(|()| base)
}
