//! The host as a whole, on the simulated disk, asked through its services as a peer asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use super::*;
use crate::base::{BrokerEpoch, LeaderEpoch, Offset, TopicId, WalIncarnation};
use crate::batch::sample;
use crate::env::{SeededEntropy, SimDisk};
use crate::ledger::Replicas;
use crate::ledger::core::Reply;
use crate::ledger::wire::{Answer, Ask, Read, ReadAnswer, Request};
use crate::ledger::writer::encode_head;
use crate::peer::{Answering, Caller, Class, Service};
use crate::wal::{Entry, Synced, WalEvents, WalOptions};

pub(super) const WRITER: NodeId = NodeId(1);
const OWN: NodeId = NodeId(2);
const OPTIONS: WalOptions = WalOptions { segment_bytes: 64 << 10, budget_bytes: 512 << 10, queue_bytes: 1 << 20 };

/// News of the node's own writer.
#[derive(Default)]
struct Own(Mutex<Vec<Synced>>);

impl Own {
    fn all(&self) -> Vec<Synced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl WalEvents for Own {
    fn synced(&self, group: &[Synced]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(group);
    }

    fn failed(&self, _reason: &str) {}
}

/// A node with its disk.
pub(super) struct Node {
    pub(super) disk: SimDisk,
    pub(super) wal: Arc<Wal>,
    hosted: Arc<Hosted>,
    pub(super) host: Arc<Host>,
    own: Arc<Own>,
    pub(super) image: Image,
}

impl Node {
    pub(super) fn start(disk: SimDisk, seed: u64, image: Image) -> Node {
        Self::start_with(disk, seed, image, OPTIONS)
    }

    fn start_with(disk: SimDisk, seed: u64, mut image: Image, options: WalOptions) -> Node {
        let own = Arc::new(Own::default());
        let hosted = Hosted::new(own.clone());
        let mut found = Found::default();
        let needed = image.clone();
        let (wal, _) = Wal::open(
            Arc::new(disk.clone()),
            &SeededEntropy::new(seed),
            options,
            &|ledger, entry| needed.needs(ledger, entry),
            &mut |entry| found.add(&entry),
            hosted.clone(),
        )
        .expect("the WAL opens");
        let recorded = (wal.boot() > 0).then(|| wal.boot());
        let boot = wal.next_boot(recorded).expect("the newest folder");
        wal.registered(BrokerEpoch(boot as i64), boot).expect("recorded");
        // Images of these tests say "this WAL" by a placeholder: its incarnation is drawn when it is made.
        for ledger in image.ledgers.values_mut() {
            ledger.replicas.iter_mut().filter(|r| r.node == OWN).for_each(|r| r.incarnation = wal.incarnation());
        }
        let host = Host::start(OWN, wal.clone(), found, &hosted, &image).expect("every entry is readable");
        Node { disk, wal, hosted, host, own, image }
    }

    fn restart(self) -> Node {
        // What a power failure at this moment would leave.
        let disk = self.disk.fork();
        self.wal.close();
        disk.power_on(7);
        Node::start(disk, 1, self.image.clone())
    }

    fn apply(&mut self, change: impl FnOnce(&mut Image)) {
        change(&mut self.image);
        self.host.applied(&self.image);
    }

    fn call(&self, from: NodeId, service: Arc<dyn Service>, class: Class, request: Bytes) -> Answering {
        let caller = Caller { node: from, subject: "CN=n".into(), class, process: 1, joining: false };
        service.call(&caller, request)
    }

    pub(super) fn ask(&self, from: NodeId, ledger: LedgerId, ask: Ask) -> Answering {
        let request = Request { to: self.wal.incarnation(), ledger, ask }.encode().to_bytes();
        self.call(from, self.hosted.ledger_service(), Class::Ledger, request)
    }

    pub(super) fn asked(&self, from: NodeId, ledger: LedgerId, ask: Ask) -> Reply {
        reply(runtime().block_on(self.ask(from, ledger, ask)).expect("answered").to_bytes())
    }

    fn append(&self, ledger: LedgerId, first: u64, count: u64) -> Reply {
        self.asked(WRITER, ledger, append(first, count))
    }

    fn read(&self, read: Read) -> ReadAnswer {
        let request = read.encode().slice(1..);
        let answer = runtime().block_on(self.call(WRITER, self.hosted.read_service(), Class::Bulk, request));
        ReadAnswer::decode(&answer.expect("answered").to_bytes()).expect("decodes")
    }

    fn replica(&self) -> metadata::Replica {
        metadata::Replica { node: OWN, incarnation: self.wal.incarnation() }
    }

    fn entries(&self, partition: PartitionId) -> Vec<(u64, u64)> {
        self.host.held(partition).iter().map(|held| (held.ledger.0, held.entry.0)).collect()
    }
}

/// One runtime for all blocking calls of a test's thread.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

pub(super) fn reply(answer: Bytes) -> Reply {
    Answer::decode(&answer).expect("decodes").reply
}

pub(super) fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([1; 16]), index }
}

/// Entry `id` of any ledger: of partition 0 or 1, by turns.
pub(super) fn payload(id: u64) -> Payload {
    let mut batch = sample::batch(3, id as i64);
    batch.place(Offset(id as i64 * 3), LeaderEpoch(1));
    Payload::new(encode_head(partition(id as i32 % 2), &batch.head), batch.body)
}

fn payloads(first: u64, count: u64) -> Vec<Payload> {
    (first..first + count).map(payload).collect()
}

fn append(first: u64, count: u64) -> Ask {
    Ask::Append { durable: EntryId(0), first: EntryId(first), payloads: payloads(first, count) }
}

fn recorded(end: Option<u64>, uploaded: u64) -> metadata::Ledger {
    let replica = |node| metadata::Replica { node, incarnation: WalIncarnation([node.0 as u8; 16]) };
    metadata::Ledger {
        node: WRITER,
        epoch: BrokerEpoch(1),
        replicas: vec![replica(WRITER), replica(OWN)],
        write_quorum: 2,
        end: end.map(EntryId),
        uploaded: EntryId(uploaded),
        uploader: None,
        holders: Vec::new(),
    }
}

fn image(ledgers: &[(u64, metadata::Ledger)]) -> Image {
    let ledgers: BTreeMap<LedgerId, metadata::Ledger> =
        ledgers.iter().map(|(id, ledger)| (LedgerId(*id), ledger.clone())).collect();
    let next_ledger = ledgers.keys().max().map_or(1, |last| last.0 + 1);
    Image { ledgers, next_ledger, ..Image::default() }
}

pub(super) fn open_ledgers(ids: &[u64]) -> Image {
    image(&ids.iter().map(|id| (*id, recorded(None, 0))).collect::<Vec<_>>())
}

const L: LedgerId = LedgerId(7);

#[test]
fn appends_are_answered_when_they_are_synced_and_indexed_by_partition() {
    let node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    let zero = EntryId(0);
    let position = |synced| Reply::Position { ledger: L, first: zero, synced: EntryId(synced), durable: zero };
    assert_eq!(node.append(L, 0, 5), position(5));
    assert_eq!(node.append(L, 2, 3), position(5), "repeated");
    assert_eq!(node.append(L, 4, 2), position(6), "in part repeated");
    assert_eq!(node.append(L, 8, 1), Reply::OutOfSequence { ledger: L, expected: EntryId(6) });
    assert_eq!(node.append(LedgerId(6), 0, 1), Reply::NotOpen { ledger: LedgerId(6) });
    assert_eq!(node.entries(partition(0)), [(7, 0), (7, 2), (7, 4)]);
    assert_eq!(node.entries(partition(1)), [(7, 1), (7, 3), (7, 5)]);
    assert_eq!(node.host.held_through(L), EntryId(6));
    let held = &node.host.held(partition(1))[1];
    assert_eq!((held.header.base_offset, held.header.last_offset_delta), (Offset(9), 2));
    assert_eq!(node.wal.read(held.location).expect("held"), payload(3).to_contiguous());
    assert!(node.own.all().is_empty(), "no news for the writer of this node");
}

#[test]
fn only_its_writer_appends_and_only_the_incarnation_that_is_meant_answers() {
    let node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    let refused = runtime().block_on(node.ask(NodeId(3), L, append(0, 1))).expect_err("another node");
    assert!(refused.0.contains("written by node 1"), "{refused}");
    let other = WalIncarnation([9; 16]);
    for ask in [append(0, 1), Ask::Seal, recover(0, 1, 1, 0)] {
        let request = Request { to: other, ledger: L, ask }.encode().to_bytes();
        let answer = node.call(WRITER, node.hosted.ledger_service(), Class::Ledger, request);
        let answer = runtime().block_on(answer).expect("answered").to_bytes();
        assert_eq!(reply(answer), Reply::Unknown { ledger: L });
    }
    let read = Read { to: other, ledger: L, from: EntryId(0), below: EntryId(1), max_bytes: 9 };
    assert_eq!(node.read(read), ReadAnswer::Unknown);
    let ask =
        Ask::Append { durable: EntryId(0), first: EntryId(0), payloads: vec![Payload::new([1; 40], Bytes::new())] };
    let refused = runtime().block_on(node.ask(WRITER, L, ask)).expect_err("no batch");
    assert!(refused.0.contains("holds no batch"), "{refused}");
    assert_eq!(
        node.append(L, 0, 1),
        Reply::Position { ledger: L, first: EntryId(0), synced: EntryId(1), durable: EntryId(0) }
    );
}

fn recover(first: u64, count: u64, durable: u64, uploaded: u64) -> Ask {
    let (durable, uploaded) = (EntryId(durable), EntryId(uploaded));
    Ask::Recover { durable, uploaded, first: EntryId(first), payloads: payloads(first, count) }
}

#[test]
fn a_seal_refuses_the_writer_and_lets_copies_in_across_restarts() {
    let node = Node::start(SimDisk::new(), 1, open_ledgers(&[7, 8]));
    node.append(L, 0, 4);
    assert_eq!(node.asked(NodeId(3), L, recover(4, 1, 4, 0)), Reply::NotSealed { ledger: L });
    let sealed = |through: Option<u64>, ledger, durable| Reply::SealAnswer {
        ledger,
        through: through.map(EntryId),
        uncertain_from: None,
        durable: EntryId(durable),
    };
    assert_eq!(node.asked(NodeId(3), L, Ask::Seal), sealed(Some(3), L, 0));
    assert_eq!(node.append(L, 4, 1), Reply::Sealed { ledger: L });
    let copied = |ledger, first, synced, durable| Reply::Copied {
        ledger,
        first: EntryId(first),
        synced: EntryId(synced),
        durable: EntryId(durable),
    };
    assert_eq!(node.asked(NodeId(3), L, recover(4, 2, 3, 0)), copied(L, 0, 6, 3));
    // A ledger that was never seen begins where the rest is durable.
    let other = LedgerId(8);
    assert_eq!(runtime().block_on(node.host.seal_local(other)).expect("sealed").reply, sealed(None, other, 0));
    assert_eq!(
        node.asked(NodeId(3), other, recover(5, 2, 4, 0)),
        Reply::OutOfSequence { ledger: other, expected: EntryId(0) }
    );
    assert_eq!(node.asked(NodeId(3), other, recover(5, 2, 5, 0)), copied(other, 5, 7, 5));

    let node = node.restart();
    assert_eq!(node.asked(NodeId(3), L, Ask::Seal), sealed(Some(3), L, 0), "the answer never changes");
    assert_eq!(node.asked(NodeId(3), other, Ask::Seal), sealed(None, other, 5));
    assert_eq!(node.append(L, 6, 1), Reply::Sealed { ledger: L });
    assert_eq!(node.append(other, 7, 1), Reply::Sealed { ledger: other });
    assert_eq!(node.asked(NodeId(3), L, recover(6, 1, 3, 0)), copied(L, 0, 7, 3));
    assert_eq!(node.entries(partition(1)), [(7, 1), (7, 3), (7, 5), (8, 5)], "the index came back, in order");
    assert_eq!(node.host.identity().boot, 2);
    assert_eq!((node.host.held_through(L), node.host.held_through(other)), (EntryId(7), EntryId(0)));
}

#[test]
fn what_is_uploaded_leaves_the_index_and_what_is_finished_leaves_everything() {
    let mut node = Node::start(SimDisk::new(), 1, open_ledgers(&[7, 8]));
    node.append(L, 0, 6);
    node.asked(NodeId(3), L, Ask::Seal);
    node.apply(|image| {
        image.ledgers.insert(L, metadata::Ledger { replicas: Vec::new(), ..recorded(Some(5), 2) });
    });
    assert_eq!(node.entries(partition(0)), [(7, 2), (7, 4)]);
    assert_eq!(node.entries(partition(1)), [(7, 3)], "entry 5 is beyond the end");
    assert_eq!(node.host.held_through(L), EntryId(5));
    let mut all = node.host.held_partitions();
    all.sort();
    assert_eq!(all, [partition(0), partition(1)]);
    node.apply(|image| {
        image.ledgers.remove(&L);
    });
    assert!(node.host.held_partitions().is_empty());
    assert_eq!(node.append(L, 6, 1), Reply::NotOpen { ledger: L }, "a forgotten ledger does not begin again");
    assert_eq!(node.append(L, 0, 1), Reply::NotOpen { ledger: L });
    assert_eq!(node.wal.seals().len(), 1, "its entries are still in a segment that a start reads");
    // Others' entries fill segments until those of the finished ledger are trimmed.
    let mut id = 0;
    while !node.wal.seals().is_empty() {
        assert!(matches!(node.append(LedgerId(8), id, 50), Reply::Position { .. }), "room comes back");
        id += 50;
        node.apply(|image| {
            image.ledgers.insert(LedgerId(8), recorded(None, id));
        });
        assert!(id < 10_000, "the seal is never forgotten");
    }
    assert!(node.host.held_partitions().is_empty(), "all of it is uploaded");
    let node = node.restart();
    assert_eq!(node.append(L, 0, 1), Reply::NotOpen { ledger: L });
}

#[test]
fn a_full_wal_pushes_back_and_takes_nothing() {
    let mut node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    let mut id = 0;
    let busy = loop {
        match node.append(L, id, 20) {
            Reply::Position { synced, .. } => id = synced.0,
            other => break other,
        }
        assert!(id < 100_000, "the WAL has a bound");
    };
    assert_eq!(busy, Reply::Busy { ledger: L });
    // The account agrees with the WAL: what was refused is what is expected.
    let taken = node.asked(WRITER, L, append(u64::from(u32::MAX), 1));
    let Reply::OutOfSequence { expected, .. } = taken else { panic!("{taken:?}") };
    assert!((id..id + 20).contains(&expected.0));
    node.apply(|image| {
        image.ledgers.insert(L, recorded(None, expected.0));
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(node.append(L, expected.0, 1), Reply::Position { .. }) {
        assert!(Instant::now() < deadline, "room does not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn reads_give_what_is_held_within_their_bytes_and_say_what_is() {
    let mut node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    node.append(L, 0, 10);
    let one = payload(4).len() as u32;
    let read = |from, below, max_bytes| Read {
        to: node.wal.incarnation(),
        ledger: L,
        from: EntryId(from),
        below: EntryId(below),
        max_bytes,
    };
    let ids = |answer: ReadAnswer| match answer {
        ReadAnswer::Entries { first, payloads } => {
            for (id, read) in (first.0..).zip(&payloads) {
                assert_eq!(*read, payload(id));
            }
            first.0..first.0 + payloads.len() as u64
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(node.read(read(4, 9, 1 << 20))), 4..9);
    assert_eq!(ids(node.read(read(4, 9, 2 * one))), 4..6);
    assert_eq!(ids(node.read(read(4, 9, 1))), 4..5, "at least one");
    assert_eq!(ids(node.read(read(8, 99, 1 << 20))), 8..10, "as far as it goes");
    assert_eq!(node.read(read(10, 12, 9)), ReadAnswer::NotHeld { first: EntryId(0), next: EntryId(10) });
    let incarnation = node.wal.incarnation();
    node.apply(|image| {
        image.ledgers.insert(L, recorded(None, 3));
    });
    let gone = Read { to: incarnation, ledger: L, from: EntryId(2), below: EntryId(4), max_bytes: 9 };
    assert_eq!(node.read(gone), ReadAnswer::NotHeld { first: EntryId(3), next: EntryId(10) });
    let unseen = Read { ledger: LedgerId(99), ..gone };
    assert_eq!(node.read(unseen), ReadAnswer::NotHeld { first: EntryId(0), next: EntryId(0) });
}

#[test]
fn news_go_to_whoever_has_appended() {
    let node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    let own = LedgerId(8);
    for id in 0..10 {
        let (theirs, mine) = (payload(id), payload(100 + id));
        let entry = Entry { ledger: own, entry: EntryId(id), token: id, head: *mine.head(), body: mine.body().clone() };
        node.wal.append(entry).expect("room");
        let ask = Ask::Append { durable: EntryId(0), first: EntryId(id), payloads: vec![theirs] };
        assert!(matches!(node.asked(WRITER, L, ask), Reply::Position { .. }));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.own.all().len() < 10 {
        assert!(Instant::now() < deadline, "news of the own writer are missing");
        std::thread::sleep(Duration::from_millis(2));
    }
    let news: Vec<_> = node.own.all().iter().map(|news| (news.ledger, news.entry.0, news.token)).collect();
    assert_eq!(news, (0..10).map(|id| (own, id, id)).collect::<Vec<_>>());
    assert_eq!(node.entries(partition(0)), [(7, 0), (7, 2), (7, 4), (7, 6), (7, 8)], "without the own ledger's");
    let read =
        Read { to: node.wal.incarnation(), ledger: own, from: EntryId(3), below: EntryId(5), max_bytes: 1 << 20 };
    let expected = ReadAnswer::Entries { first: EntryId(3), payloads: vec![payload(103), payload(104)] };
    assert_eq!(node.read(read), expected, "others can read it");
    // A recoverer elsewhere seals it: the answer has what the own writer has written, and copies go on behind it.
    let Reply::SealAnswer { through, .. } = node.asked(NodeId(3), own, Ask::Seal) else { panic!("sealed") };
    assert_eq!(through, Some(EntryId(9)));
    let copied = node.asked(NodeId(3), own, recover(10, 1, 0, 0));
    assert!(matches!(copied, Reply::Copied { synced: EntryId(11), .. }), "{copied:?}");
}

/// A node that is read from over its service, a few bytes at a time.
struct Pulled<'a> {
    node: &'a Node,
    read_bytes: u32,
}

impl Replicas for Pulled<'_> {
    fn ask(&self, _: NodeId, _: Request) -> BoxFuture<'static, Result<Answer, String>> {
        Box::pin(std::future::ready(Err("a pull only reads".to_owned())))
    }

    fn read(&self, _: NodeId, read: Read) -> BoxFuture<'static, Result<ReadAnswer, String>> {
        let request = Read { max_bytes: read.max_bytes.min(self.read_bytes), ..read }.encode().slice(1..);
        // Begun on a runtime, as on a node.
        let (service, node) = (self.node.hosted.read_service(), OWN);
        Box::pin(async move {
            let caller = Caller { node, subject: "CN=n".into(), class: Class::Bulk, process: 1, joining: false };
            let answer = service.call(&caller, request).await.map_err(|refused| refused.0)?.to_bytes();
            Ok(ReadAnswer::decode(&answer).expect("decodes"))
        })
    }
}

#[test]
fn a_ledger_with_an_end_is_pulled_from_a_holder() {
    let source = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    source.append(L, 0, 200);
    let ended = |image: &mut Image, uploaded| {
        image.ledgers.insert(L, recorded(Some(190), uploaded));
    };
    let pull = |node: &Node, read_bytes: u32| {
        let from = Pulled { node: &source, read_bytes };
        let (replica, mut progress) = (source.replica(), Vec::new());
        let pulled = runtime().block_on(node.host.pull(L, replica, &from, &mut |through| progress.push(through.0)));
        (pulled, progress)
    };

    // One that has the front, one that has nothing, and one whose front is uploaded: it leaps.
    for (held, uploaded) in [(60, 0), (0, 0), (0, 40), (30, 40)] {
        let mut node = Node::start(SimDisk::new(), 2, open_ledgers(&[7]));
        assert!(matches!(pull(&node, 2000).0, Err(PullError::NoEnd(L))));
        if held > 0 {
            node.append(L, 0, held);
        }
        node.apply(|image| ended(image, uploaded));
        let (pulled, progress) = pull(&node, 2000);
        pulled.expect("pulled");
        assert!(progress.len() > 2 && progress.is_sorted() && progress.last() == Some(&190), "{progress:?}");
        let check = |node: &Node| {
            assert_eq!(node.host.held_through(L), EntryId(190));
            let expected: Vec<(u64, u64)> = (uploaded..190).filter(|id| id % 2 == 1).map(|id| (7, id)).collect();
            assert_eq!(node.entries(partition(1)), expected, "{held} {uploaded}");
        };
        check(&node);
        assert_eq!(pull(&node, 2000).1, Vec::<u64>::new(), "nothing is lacking any more");
        check(&node.restart());
    }

    let mut node = Node::start(SimDisk::new(), 2, open_ledgers(&[7]));
    node.apply(|image| {
        image.ledgers.insert(L, recorded(Some(300), 0));
    });
    let lacking = pull(&node, 2000).0.expect_err("the source lacks the end");
    assert!(matches!(lacking, PullError::NotHeld { entry: EntryId(200), .. }), "{lacking}");
    assert_eq!(node.host.held_through(L), EntryId(200), "what was copied stays");
}

#[test]
fn a_pull_can_run_as_a_task() {
    fn is_send<T: Send>(_: &T) {}
    let node = Node::start(SimDisk::new(), 1, open_ledgers(&[7]));
    let _context = runtime().enter();
    let check = |others: &dyn Replicas| {
        is_send(&node.host.pull(L, node.replica(), others, &mut |_| {}));
    };
    let _ = check;
}
