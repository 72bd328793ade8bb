//! What a ledger asks of each of its replicas, of the host behind its services: entries are taken and synced in sequence,
//! and announced after their sync only; once a seal has answered, no entry of that ledger is taken from its writer any
//! more, also across restarts and also if the replica never saw the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::tests::{Node, WRITER, open_ledgers, partition, payload, reply, runtime};
use super::*;
use crate::env::SimDisk;
use crate::ledger::wire::Ask;

const LEDGER: LedgerId = LedgerId(7);

/// A replica and what it has announced: the entries of each ledger below.
struct Bench {
    node: Node,
    announced: Arc<Mutex<BTreeMap<LedgerId, EntryId>>>,
}

impl Bench {
    fn start(disk: SimDisk, image: Image) -> Bench {
        Bench { node: Node::start(disk, 1, image), announced: Arc::default() }
    }

    /// Ends the node without a word, by what a power failure would leave, and starts it again.
    fn restart(&mut self) {
        let disk = self.node.disk.fork();
        self.node.wal.close();
        disk.power_on(7);
        let image = self.node.image.clone();
        *self = Bench::start(disk, image);
    }

    /// Sends an entry. `None` when it was taken, and is answered when it is synced.
    fn append(&self, ledger: LedgerId, entry: u64) -> Option<Reply> {
        let ask = Ask::Append { durable: EntryId(0), first: EntryId(entry), payloads: vec![payload(entry)] };
        let mut answering = self.node.ask(WRITER, ledger, ask);
        let answer = match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => reply(answer.expect("answered").to_bytes()),
            Poll::Pending => {
                let announced = self.announced.clone();
                runtime().spawn(async move { note(&announced, reply(answering.await.expect("synced").to_bytes())) });
                return None;
            }
        };
        if matches!(answer, Reply::Position { .. }) {
            note(&self.announced, answer);
            return None;
        }
        Some(answer)
    }

    fn seal(&self, ledger: LedgerId) -> Option<EntryId> {
        match self.node.asked(WRITER, ledger, Ask::Seal) {
            Reply::SealAnswer { through, uncertain_from: None, .. } => through,
            other => panic!("{other:?}"),
        }
    }

    fn await_announced(&self, ledger: LedgerId, below: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner).get(&ledger).copied();
            if announced == Some(EntryId(below)) {
                return;
            }
            assert!(Instant::now() < deadline, "{announced:?} instead of {below}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn note(announced: &Mutex<BTreeMap<LedgerId, EntryId>>, reply: Reply) {
    let Reply::Position { ledger, synced, .. } = reply else { panic!("{reply:?}") };
    let mut all = announced.lock().unwrap_or_else(PoisonError::into_inner);
    let below = all.entry(ledger).or_default();
    *below = synced.max(*below);
}

#[test]
fn the_host_keeps_the_contract_of_a_replica() {
    let mut bench = Bench::start(SimDisk::new(), open_ledgers(&[7, 99, 100]));
    entries_are_taken_and_announced_in_sequence(&bench);
    a_sealed_ledger_refuses_its_writer_across_restarts(&mut bench);
    a_ledger_never_seen_can_be_sealed(&mut bench);
    the_end_of_a_sealed_ledger_covers_what_was_announced(&mut bench);
}

fn entries_are_taken_and_announced_in_sequence(bench: &Bench) {
    for entry in 0..20 {
        assert_eq!(bench.append(LEDGER, entry), None, "in sequence");
    }
    let gap = bench.append(LEDGER, 21);
    assert_eq!(gap, Some(Reply::OutOfSequence { ledger: LEDGER, expected: EntryId(20) }));
    bench.await_announced(LEDGER, 20);
    assert_eq!(bench.node.host.held_through(LEDGER), EntryId(20), "and is there");
    assert!(!bench.node.host.held(partition(0)).is_empty());
}

fn a_sealed_ledger_refuses_its_writer_across_restarts(bench: &mut Bench) {
    let (through, refused) = (Some(EntryId(19)), Some(Reply::Sealed { ledger: LEDGER }));
    assert_eq!(bench.seal(LEDGER), through);
    assert_eq!(bench.append(LEDGER, 20), refused);
    bench.restart();
    assert_eq!(bench.append(LEDGER, 20), refused);
    assert_eq!(bench.seal(LEDGER), through, "the answer never changes");
}

fn a_ledger_never_seen_can_be_sealed(bench: &mut Bench) {
    let unseen = LedgerId(99);
    assert_eq!(bench.seal(unseen), None);
    bench.restart();
    assert_eq!(bench.append(unseen, 0), Some(Reply::Sealed { ledger: unseen }));
}

fn the_end_of_a_sealed_ledger_covers_what_was_announced(bench: &mut Bench) {
    let open = LedgerId(100);
    for entry in 0..9 {
        assert_eq!(bench.append(open, entry), None, "room");
    }
    bench.await_announced(open, 9);
    bench.restart();
    assert_eq!(bench.seal(open), Some(EntryId(8)));
    assert_eq!(bench.append(open, 9), Some(Reply::Sealed { ledger: open }));
}
