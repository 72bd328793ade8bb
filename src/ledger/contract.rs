//! The contract of [`Replica`](super::Replica), as one suite that runs on every implementation.
//!
//! An implementation brings a [`Bench`]: a replica, what it announced, and a restart of its node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::{EntryId, LedgerId, Offset, PartitionId, TopicId};
use crate::batch::sample;
use crate::env::{SeededEntropy, SimDisk};
use crate::wal::{AppendError, Entry, Synced, Wal, WalEvents, WalOptions};

use super::{LocalReplica, Replica, decode_entry};

const LEDGER: LedgerId = LedgerId(7);

/// What a suite needs of an implementation.
pub trait Bench {
    fn replica(&self) -> Arc<dyn Replica>;
    /// Entries announced as synced, in their order.
    fn announced(&self) -> Vec<(LedgerId, EntryId)>;
    /// Ends the node without a word and starts it again.
    fn restart(&mut self);
}

fn entry(ledger: LedgerId, id: u64) -> Entry {
    let batch = sample::batch(1 + id as i32 % 3, id as i64);
    let head = super::writer::encode_head(PartitionId { topic: TopicId([1; 16]), index: 0 }, &batch.head);
    Entry { ledger, entry: EntryId(id), token: id, head, body: batch.body.clone() }
}

fn await_announced(bench: &dyn Bench, count: usize) -> Vec<(LedgerId, EntryId)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let announced = bench.announced();
        if announced.len() >= count {
            return announced;
        }
        assert!(Instant::now() < deadline, "{} of {count} entries were announced", announced.len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Everything that a replica promises.
pub fn suite(bench: &mut dyn Bench) {
    entries_are_taken_and_announced_in_sequence(bench);
    a_sealed_ledger_refuses_its_writer_across_restarts(bench);
    a_ledger_never_seen_can_be_sealed(bench);
    the_end_of_a_sealed_ledger_covers_what_was_announced(bench);
}

fn entries_are_taken_and_announced_in_sequence(bench: &mut dyn Bench) {
    let replica = bench.replica();
    for id in 0..20 {
        replica.append(entry(LEDGER, id)).expect("in sequence");
    }
    let gap = replica.append(entry(LEDGER, 21));
    assert_eq!(gap, Err(AppendError::OutOfSequence { expected: EntryId(20) }));
    let expected: Vec<_> = (0..20).map(|id| (LEDGER, EntryId(id))).collect();
    assert_eq!(await_announced(bench, 20), expected);
}

fn a_sealed_ledger_refuses_its_writer_across_restarts(bench: &mut dyn Bench) {
    let answer = bench.replica().seal(LEDGER).expect("sealed");
    assert_eq!(answer.through, Some(EntryId(19)));
    assert_eq!(bench.replica().append(entry(LEDGER, 20)), Err(AppendError::Sealed));
    bench.restart();
    assert_eq!(bench.replica().append(entry(LEDGER, 20)), Err(AppendError::Sealed));
    let again = bench.replica().seal(LEDGER).expect("sealed");
    assert_eq!(again.through, Some(EntryId(19)), "the answer never changes");
}

fn a_ledger_never_seen_can_be_sealed(bench: &mut dyn Bench) {
    let unseen = LedgerId(99);
    assert_eq!(bench.replica().seal(unseen).expect("sealed").through, None);
    bench.restart();
    assert_eq!(bench.replica().append(entry(unseen, 0)), Err(AppendError::Sealed));
}

fn the_end_of_a_sealed_ledger_covers_what_was_announced(bench: &mut dyn Bench) {
    let open = LedgerId(100);
    for id in 0..9 {
        bench.replica().append(entry(open, id)).expect("room");
    }
    let announced = await_announced(bench, 9);
    assert!(announced.contains(&(open, EntryId(8))));
    bench.restart();
    assert_eq!(bench.replica().seal(open).expect("sealed").through, Some(EntryId(8)));
    assert_eq!(bench.replica().append(entry(open, 9)), Err(AppendError::Sealed));
}

#[derive(Default)]
struct Announced(Mutex<Vec<(LedgerId, EntryId)>>);

impl WalEvents for Announced {
    fn synced(&self, group: &[Synced]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(group.iter().map(|s| (s.ledger, s.entry)));
    }

    fn failed(&self, reason: &str) {
        panic!("the WAL failed: {reason}");
    }
}

/// The replica in this process, on a disk that forgets what was not synced.
struct Local {
    disk: SimDisk,
    wal: Arc<Wal>,
    announced: Arc<Announced>,
}

impl Local {
    fn open(disk: SimDisk) -> Local {
        let announced = Arc::new(Announced::default());
        let options = WalOptions { segment_bytes: 64 << 10, budget_bytes: 512 << 10, queue_bytes: 1 << 20 };
        let entropy = SeededEntropy::new(1);
        let (wal, _) =
            Wal::open(Arc::new(disk.clone()), &entropy, options, &|_, _| true, &mut |_| {}, announced.clone())
                .expect("the WAL opens");
        Local { disk, wal, announced }
    }
}

impl Bench for Local {
    fn replica(&self) -> Arc<dyn Replica> {
        Arc::new(LocalReplica(self.wal.clone()))
    }

    fn announced(&self) -> Vec<(LedgerId, EntryId)> {
        self.announced.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn restart(&mut self) {
        // What a power failure at this moment would leave.
        let disk = self.disk.fork();
        self.wal.close();
        disk.power_on(7);
        *self = Local::open(disk);
    }
}

#[test]
fn the_local_replica_keeps_the_contract() {
    suite(&mut Local::open(SimDisk::new()));
}

#[test]
fn an_entry_names_its_partition() {
    let mut batch = sample::batch(3, 1);
    batch.place(Offset(40), crate::base::LeaderEpoch(2));
    let partition = PartitionId { topic: TopicId([9; 16]), index: 12 };
    let head = super::writer::encode_head(partition, &batch.head);
    let payload = [&head[..], &batch.body[..]].concat();
    let (found, bytes) = decode_entry(&payload).expect("as written");
    assert_eq!((found, bytes), (partition, &batch.to_contiguous()[..]));
    assert!(decode_entry(&payload[..20]).is_err());
}
