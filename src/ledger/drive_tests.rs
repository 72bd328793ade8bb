//! The driver with the real core, hosts and WALs on simulated disks; between the nodes links that delay, fail and come
//! back. Whatever happens: news come once each, in the order of the appends, and never of an entry that fewer WALs than
//! the write quorum have synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::base::{BrokerEpoch, ClusterId, DirectoryId, EntryId, LedgerId, NodeId, PartitionId, TopicId};
use crate::batch::sample;
use crate::env::{SeededEntropy, SimDisk, SystemClock};
use crate::metadata::{self, Command, Image, MemoryIndex, Node as Member, NodeState, Response};
use crate::peer::{Caller, Class, Service};
use crate::wal::{Synced, Wal, WalEvents, WalOptions};

use super::core::{Identity, Outcome, WriterOptions, write_quorum};
use super::{
    Answering, Copies, DriveParts, Durable, Found, Host, HostReplicas, Hosted, LedgerError, LedgerEvents, LedgerWriter,
    Link, Links, NotSent, Openings, Proposal, RecoveryParts, Registrations, Replicas, drive, recover_ledger, wire,
};

const WRITER: NodeId = NodeId(1);
const PARTITION: PartitionId = PartitionId { topic: TopicId([5; 16]), index: 0 };
const OPTIONS: WriterOptions =
    WriterOptions { replicas: 3, window_bytes: 4 << 20, lag_bytes: 2 << 20, lag_ms: 5_000, gone_ms: 300, retry_ms: 50 };

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands the WAL's news to the writer, once there is one.
#[derive(Default)]
struct Own(Mutex<Option<std::sync::Weak<LedgerWriter>>>);

impl WalEvents for Own {
    fn synced(&self, group: &[Synced]) {
        let writer = lock(&self.0).as_ref().and_then(std::sync::Weak::upgrade);
        if let Some(writer) = writer {
            writer.synced(group);
        }
    }

    fn failed(&self, reason: &str) {
        panic!("the WAL failed: {reason}");
    }
}

struct Node {
    own: Arc<Own>,
    wal: Arc<Wal>,
    hosted: Arc<Hosted>,
    host: Arc<Host>,
}

/// The nodes, the metadata, and what is wrong with the links between them.
struct World {
    nodes: BTreeMap<NodeId, Node>,
    meta: Mutex<Image>,
    image: watch::Sender<Arc<Image>>,
    epoch: BrokerEpoch,
    cut: watch::Sender<BTreeSet<NodeId>>,
    delay: Duration,
    connections: AtomicU64,
}

impl World {
    fn new(nodes: i32, delay: Duration) -> Arc<World> {
        let mut meta = Image::default();
        run(&mut meta, &Command::InitCluster { cluster: ClusterId([3; 16]), generation: 1 });
        let opened = (1..=nodes).map(|id| open_node(NodeId(id), &mut meta)).collect();
        let epoch = meta.brokers[&WRITER].epoch;
        let image = watch::Sender::new(Arc::new(meta.clone()));
        let (meta, cut, connections) = (Mutex::new(meta), watch::Sender::default(), AtomicU64::new(0));
        let world = World { nodes: opened, meta, image, epoch, cut, delay, connections };
        world.publish();
        Arc::new(world)
    }

    fn propose(&self, command: &Command) -> Response {
        let response = run(&mut lock(&self.meta), command);
        self.publish();
        response
    }

    fn publish(&self) {
        let now = lock(&self.meta).clone();
        self.nodes.values().for_each(|node| node.host.applied(&now));
        self.image.send_replace(Arc::new(now));
    }

    fn replica(&self, node: i32) -> metadata::Replica {
        metadata::Replica { node: NodeId(node), incarnation: self.nodes[&NodeId(node)].wal.incarnation() }
    }

    /// Opens the first ledger and drives its writer.
    fn write(self: &Arc<Self>, set: &[i32]) -> Written {
        let replicas: Vec<_> = set.iter().map(|node| self.replica(*node)).collect();
        let write_quorum = write_quorum(set.len()) as u8;
        let open = Command::OpenLedger {
            node: WRITER,
            epoch: self.epoch,
            replicas: replicas.clone(),
            write_quorum,
            close: None,
        };
        let Response::Ledger(ledger) = self.propose(&open) else { panic!("refused") };
        let node = &self.nodes[&WRITER];
        let own = Identity { node: WRITER, incarnation: node.wal.incarnation(), boot: 1 };
        let news = Arc::new(News { world: self.clone(), said: Mutex::default(), fenced: Mutex::default() });
        let writer = LedgerWriter::new(own, (ledger, &replicas), OPTIONS, node.wal.clone(), news.clone());
        *lock(&node.own.0) = Some(Arc::downgrade(&writer));
        let links = Arc::new(MemoryLinks(self.clone()));
        let openings = Arc::new(MemoryOpenings(self.clone()));
        let parts = DriveParts { links, openings, image: self.image.subscribe(), clock: Arc::new(SystemClock) };
        let driver = tokio::spawn(drive(writer.clone(), parts));
        Written { writer, news, driver, ledger }
    }

    /// Marks a node as one that is to hold nothing, or takes the mark back.
    fn drain(&self, id: i32, draining: bool) {
        let node = |id: NodeId| Member {
            name: format!("n{id}"),
            rack: String::new(),
            host: format!("n{id}.example"),
            port: 9094,
            identity: format!("CN=n{id}"),
            token_sha256: [0; 32],
            state: NodeState::Joined { directory: DirectoryId(id.0 as u32) },
            draining: false,
            added_ms: 0,
        };
        let known = self.nodes.keys().map(|id| (*id, node(*id))).collect();
        lock(&self.meta).nodes = known;
        assert_eq!(self.propose(&Command::DrainNode { node: NodeId(id), draining }), Response::Ok);
    }

    fn cut(&self, node: i32, is_cut: bool) {
        self.cut.send_modify(|cut| {
            if is_cut {
                cut.insert(NodeId(node));
            } else {
                cut.remove(&NodeId(node));
            }
        });
    }
}

fn run(meta: &mut Image, command: &Command) -> Response {
    metadata::apply(meta, command, &MemoryIndex::default()).0
}

fn open_node(id: NodeId, meta: &mut Image) -> (NodeId, Node) {
    let own = Arc::new(Own::default());
    let hosted = Hosted::new(own.clone());
    let mut found = Found::default();
    let options = WalOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, queue_bytes: 1 << 20 };
    let (disk, entropy) = (Arc::new(SimDisk::new()), SeededEntropy::new(id.0 as u64));
    let opened = Wal::open(disk, &entropy, options, &|_, _| true, &mut |entry| found.add(&entry), hosted.clone());
    let (wal, _) = opened.expect("the WAL opens");
    let boot = wal.next_boot(None).expect("recorded");
    let (incarnation, endpoints, version) = (wal.incarnation(), Vec::new(), "0".to_owned());
    let register = Command::RegisterBroker { node: id, incarnation, boot, endpoints, version, now_ms: 0 };
    let Response::BrokerEpoch(epoch) = run(meta, &register) else { panic!("not registered") };
    wal.registered(epoch, boot).expect("recorded");
    let host = Host::start(id, wal.clone(), found, &hosted, meta).expect("every entry is readable");
    (id, Node { own, wal, hosted, host })
}

struct Written {
    writer: Arc<LedgerWriter>,
    news: Arc<News>,
    driver: tokio::task::JoinHandle<()>,
    ledger: LedgerId,
}

impl Written {
    async fn append(&self, tokens: std::ops::Range<u64>) {
        for token in tokens {
            let batch = sample::batch(1, token as i64);
            while let Err(error) = self.writer.append(PARTITION, token, &batch) {
                assert_eq!(error, LedgerError::Full, "the only refusal of a writer that is not fenced");
                sleep(Duration::from_millis(5)).await;
            }
            if token % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until so many entries are durable.
    async fn durable(&self, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while (lock(&self.news.said).len() as u64) < count {
            let said = lock(&self.news.said).len();
            assert!(
                Instant::now() < deadline,
                "{said} of {count} are durable; the set is {:?}",
                self.writer.replicas()
            );
            sleep(Duration::from_millis(5)).await;
        }
        let tokens: Vec<u64> = lock(&self.news.said).iter().map(|entry| entry.token).collect();
        assert!(tokens.iter().copied().eq(0..tokens.len() as u64), "once each, in the order of the appends");
    }

    async fn await_set(&self, set: &[i32]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.set() != set {
            assert!(Instant::now() < deadline, "the set is {:?}, not {set:?}", self.set());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn set(&self) -> Vec<i32> {
        self.writer.replicas().iter().map(|replica| replica.node.0).collect()
    }
}

/// What was said to be durable; each entry is looked for when it is said.
struct News {
    world: Arc<World>,
    said: Mutex<Vec<Durable>>,
    fenced: Mutex<Option<String>>,
}

impl LedgerEvents for News {
    fn durable(&self, entries: &[Durable]) {
        let mut said = lock(&self.said);
        for entry in entries {
            let replicas = self.world.image.borrow().ledgers[&entry.ledger].replicas.clone();
            let has = |replica: &&metadata::Replica| {
                self.world.nodes[&replica.node].host.held_through(entry.ledger) > entry.entry
            };
            let copies = replicas.iter().filter(has).count();
            assert!(copies >= write_quorum(replicas.len()), "{entry:?} is on {copies} WALs of {}", replicas.len());
            let read = self.world.nodes[&WRITER].wal.read(entry.location).expect("the own WAL has it");
            assert_eq!(read.len(), entry.location.len as usize);
        }
        if let (Some(last), Some(first)) = (said.last(), entries.first()) {
            assert!((last.ledger, last.entry) < (first.ledger, first.entry));
        }
        said.extend_from_slice(entries);
    }

    fn fenced(&self, reason: &str) {
        *lock(&self.fenced) = Some(reason.to_owned());
    }
}

struct MemoryLinks(Arc<World>);

impl Links for MemoryLinks {
    fn link(&self, node: NodeId) -> Option<Arc<dyn Link>> {
        Some(Arc::new(MemoryLink { world: self.0.clone(), node }))
    }
}

struct MemoryLink {
    world: Arc<World>,
    node: NodeId,
}

impl Link for MemoryLink {
    fn connected(&self) -> BoxFuture<'_, Result<u64, String>> {
        let is_cut = self.world.cut.borrow().contains(&self.node);
        let connection = self.world.connections.fetch_add(1, SeqCst);
        std::future::ready(if is_cut { Err("cut".to_owned()) } else { Ok(connection) }).boxed()
    }

    fn ended(&self, _: u64) -> BoxFuture<'_, ()> {
        let (mut cut, node) = (self.world.cut.subscribe(), self.node);
        async move { drop(cut.wait_for(|cut| cut.contains(&node)).await) }.boxed()
    }

    fn send(&self, connection: u64, request: &wire::Request) -> Result<Answering, NotSent> {
        if self.world.cut.borrow().contains(&self.node) {
            return Err(NotSent::Ended);
        }
        let service: Arc<dyn Service> = self.world.nodes[&self.node].hosted.ledger_service();
        let (class, process) = (Class::Ledger, connection);
        let from = Caller { node: WRITER, subject: "CN=n1".into(), class, process, joining: false };
        let answering = service.call(&from, request.encode().to_bytes());
        // Nodes answer at different times.
        let delay = self.world.delay * self.node.0 as u32;
        Ok(async move {
            let answer = answering.await.map_err(|refused| refused.to_string())?;
            sleep(delay).await;
            wire::Answer::decode(&answer.to_bytes()).map_err(|error| error.to_string())
        }
        .boxed())
    }
}

struct MemoryOpenings(Arc<World>);

impl Openings for MemoryOpenings {
    fn open(&self, proposal: Proposal) -> BoxFuture<'static, Outcome> {
        let world = self.0.clone();
        async move {
            sleep(world.delay).await;
            let Proposal { close, end, replicas } = proposal;
            let (node, epoch, write_quorum) = (WRITER, world.epoch, write_quorum(replicas.len()) as u8);
            let close = Some((close, end));
            let open = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum, close };
            match world.propose(&open) {
                Response::Ledger(ledger) => Outcome::Opened { ledger, replicas },
                Response::Rejected(metadata::Reject::Fenced { .. }) => Outcome::Fenced,
                _ => Outcome::Declined,
            }
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_durable_on_a_write_quorum_in_the_order_of_their_appends() {
    let world = World::new(3, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..1_500).await;
    written.durable(1_500).await;
    assert_eq!(written.writer.closing_position(), Some((written.ledger, EntryId(1_500))));
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_gone_is_replaced_and_nobody_above_learns_of_it() {
    let world = World::new(4, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..300).await;
    world.cut(3, true);
    written.append(300..600).await;
    written.durable(600).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while written.set() != [1, 2, 4] {
        assert!(Instant::now() < deadline, "the set is {:?}", written.set());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(written.writer.id() > written.ledger);
    written.append(600..900).await;
    written.durable(900).await;
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_given_up_and_can_be_reached_again_takes_the_place_of_the_next_that_goes() {
    let world = World::new(3, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..50).await;
    world.cut(2, true);
    written.await_set(&[1, 3]).await;
    // No image tells of it: the broker was registered all the time.
    world.cut(2, false);
    world.cut(3, true);
    written.await_set(&[1, 2]).await;
    written.append(50..100).await;
    written.durable(100).await;
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_drained_is_left_and_taken_only_where_there_is_no_other_second_copy() {
    let world = World::new(3, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..50).await;
    world.drain(3, true);
    written.await_set(&[1, 2]).await;
    world.cut(2, true);
    written.append(50..100).await;
    written.await_set(&[1, 3]).await;
    written.durable(100).await;
    world.cut(2, false);
    written.await_set(&[1, 2]).await;
    written.append(100..150).await;
    written.durable(150).await;
    world.drain(3, false);
    written.await_set(&[1, 2, 3]).await;
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_copy_is_told_of_when_it_is_synced_and_none_comes_when_its_ledger_was_left() {
    let world = World::new(3, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    // Whether the newest durable entry has three copies, in the end.
    let has_three = async || {
        let newest = *lock(&written.news.said).last().expect("something is durable");
        match written.writer.copies(newest.ledger, newest.entry, 3) {
            Copies::Enough => true,
            Copies::TooFew => false,
            Copies::Awaited(awaited) => timeout(Duration::from_secs(30), awaited).await.expect("in time").is_ok(),
            Copies::Unknown => panic!("{:?} is its own", newest.ledger),
        }
    };
    written.append(0..50).await;
    written.durable(50).await;
    assert!(has_three().await);
    assert!([2, 3].iter().all(|node| world.nodes[&NodeId(*node)].host.held_through(written.ledger).0 >= 50));
    assert_eq!((written.writer.in_sync(), written.writer.fewest_copies()), (3, 2));

    world.cut(3, true);
    written.append(50..60).await;
    written.durable(60).await;
    assert!(!has_three().await, "the third is cut off");
    assert_eq!((written.set(), written.writer.in_sync()), (vec![1, 2], 2));
    assert!(matches!(written.writer.copies(written.ledger, EntryId(49), 3), Copies::Enough));
    assert!(matches!(written.writer.copies(written.ledger, EntryId(50), 3), Copies::TooFew));
    assert!(matches!(written.writer.copies(written.ledger, EntryId(50), 2), Copies::Enough));
    assert!(matches!(written.writer.copies(LedgerId(999), EntryId(0), 2), Copies::Unknown));
    written.append(60..70).await;
    written.durable(70).await;
    assert!(!has_three().await, "of two there are never three");
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_second_copy_nothing_is_durable_and_all_of_it_is_when_the_others_are_back() {
    let world = World::new(3, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..100).await;
    written.durable(100).await;
    world.cut(2, true);
    world.cut(3, true);
    written.append(100..200).await;
    sleep(Duration::from_millis(800)).await;
    let held = |node| world.nodes[&NodeId(node)].host.held_through(written.ledger).0;
    // What was under way when the links were cut may still have been taken.
    assert!((lock(&written.news.said).len() as u64) <= held(2).max(held(3)), "one copy is not enough");
    assert!(written.writer.set_size() >= 2, "a set in a cluster never shrinks below two");
    world.cut(2, false);
    world.cut(3, false);
    written.durable(200).await;
    written.driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_whose_ledger_is_sealed_elsewhere_says_that_it_is_fenced_and_its_ledger_is_recovered() {
    let world = World::new(4, Duration::from_millis(1));
    let written = world.write(&[1, 2, 3]);
    written.append(0..400).await;
    written.durable(200).await;
    world.propose(&Command::FenceBroker { node: WRITER, epoch: world.epoch });
    // The writer's node is out of reach for the recoverer; the writer still reaches the others.
    let replicas = Arc::new(Others { world: world.clone(), away: WRITER });
    let parts = RecoveryParts { replicas, registrations: Arc::new(MemoryRegistrations(world.clone())) };
    let end = recover_ledger(&parts, written.ledger).await.expect("two of three are enough");
    let image = world.image.borrow().clone();
    let recorded = &image.ledgers[&written.ledger];
    assert_eq!(recorded.end, Some(end));
    assert!(recorded.holders.len() >= 2 && recorded.holders.iter().all(|holder| holder.replica.node != WRITER));
    assert!(recorded.uploader().0 > 1, "not the fenced writer");
    // A writer notices as soon as it appends.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut token = 400;
    while lock(&written.news.fenced).is_none() {
        assert!(Instant::now() < deadline);
        if written.writer.append(PARTITION, token, &sample::batch(1, 0)).is_ok() {
            token += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(written.writer.append(PARTITION, token, &sample::batch(1, 0)), Err(LedgerError::Sealed));
    let said = lock(&written.news.said).len() as u64;
    assert!(said <= end.0, "{said} were said to be durable, and the ledger ends at {end}");
    written.driver.abort();
}

/// The hosts of all nodes but one.
struct Others {
    world: Arc<World>,
    away: NodeId,
}

impl Others {
    fn host(&self, node: NodeId) -> Result<HostReplicas, String> {
        if node == self.away {
            return Err("away".to_owned());
        }
        Ok(HostReplicas(self.world.nodes[&node].host.clone()))
    }
}

impl Replicas for Others {
    fn ask(&self, node: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>> {
        let asked = self.host(node).map(|host| host.ask(node, request));
        async move { asked?.await }.boxed()
    }

    fn read(&self, node: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>> {
        let asked = self.host(node).map(|host| host.read(node, read));
        async move { asked?.await }.boxed()
    }
}

struct MemoryRegistrations(Arc<World>);

impl Registrations for MemoryRegistrations {
    fn image(&self) -> Arc<Image> {
        self.0.image.borrow().clone()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<Arc<Image>, String>> {
        std::future::ready(Ok(self.image())).boxed()
    }

    fn propose(&self, command: Command) -> BoxFuture<'static, Result<Response, String>> {
        std::future::ready(Ok(self.0.propose(&command))).boxed()
    }
}
