//! A store in memory, for simulations: what RocksDB promises of its write-ahead log, with the moment of each sync, and of each crash,
//! chosen from outside.
//!
//! A batch is journalled when it is written. A synced one is seen by readers, and survives a crash, when its sync is over;
//! until then it may go or stay. An ordered one is seen at once, and becomes safe with the next sync. A crash leaves a prefix of
//! the journal, never less than what was synced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::hard_state::{self, Vote};
use super::machine::{self, MachineState};
use super::raft_log::{self, LogEntry};
use super::{Durability, Family, Kv, Pair};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

struct Written {
    ops: Vec<Op>,
    seen: bool,
}

/// What a store has done, told as it happens.
#[derive(Debug)]
pub enum Happening {
    /// Entries, and votes, are on the disk for good.
    Appended(LogEntry),
    Voted(Vote),
    /// The state machine has come so far. With the entry, if it is in the log.
    Applied(MachineState, Option<LogEntry>),
    /// Bytes were written, with this checksum.
    Wrote(u32),
}

/// How long a sync, and how long other work takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    pub sync: Duration,
    pub other: Duration,
}

pub type Witness = Arc<dyn Fn(Happening) + Send + Sync>;
pub type Speed = Arc<dyn Fn() -> Pace + Send + Sync>;

/// One disk; it outlives the stores that are opened on it. Clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<Disk>>);

struct Disk {
    seen: Map,
    safe: Map,
    journal: Vec<Written>,
    /// Batches in the journal that a sync which has begun covers.
    syncing: Option<usize>,
    /// Batches that have left the journal for `safe`.
    settled: usize,
    speed: Speed,
    witness: Witness,
}

impl Op {
    fn apply(&self, map: &mut Map) {
        match self {
            Op::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(map.remove(key)),
            Op::DeleteRange(from, to) => {
                let gone: Vec<_> = map.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| drop(map.remove(key)));
            }
        }
    }
}

/// A batch as RocksDB writes it: sequence 8 bytes | count `u32` | records of tag, key and value.
fn parse(batch: &[u8]) -> Vec<Op> {
    let (mut at, mut ops) = (12, Vec::new());
    let piece = |at: &mut usize| {
        let (mut len, mut shift) = (0usize, 0);
        loop {
            let byte = batch[*at];
            *at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        *at += len;
        batch[*at - len..*at].to_vec()
    };
    while at < batch.len() {
        let tag = batch[at];
        at += 1;
        ops.push(match tag {
            0 => Op::Delete(piece(&mut at)),
            1 => Op::Put(piece(&mut at), piece(&mut at)),
            0xf => Op::DeleteRange(piece(&mut at), piece(&mut at)),
            tag => panic!("a batch with a record of kind {tag}"),
        });
    }
    ops
}

impl Disk {
    /// The first `count` batches of the journal are on the disk for good.
    fn settle(&mut self, count: usize) {
        for written in self.journal.drain(..count) {
            for op in &written.ops {
                op.apply(&mut self.safe);
                if !written.seen {
                    op.apply(&mut self.seen);
                }
                match op {
                    Op::Put(key, value) if key[0] == Family::RaftLog as u8 => {
                        (self.witness)(Happening::Appended(
                            raft_log::decode(key, value).expect("a store in memory does not fail"),
                        ));
                    }
                    Op::Put(key, value) if key[..] == hard_state::VOTE_KEY => {
                        (self.witness)(Happening::Voted(
                            hard_state::decode_vote(value).expect("a store in memory does not fail"),
                        ));
                    }
                    _ => {}
                }
            }
        }
        self.settled += count;
    }

    fn tell_applied(&self, ops: &[Op]) {
        for op in ops {
            let Op::Put(key, value) = op else { continue };
            if key[..] != machine::STATE_KEY {
                continue;
            }
            let state = MachineState::decode(value).expect("a store in memory does not fail");
            let Some(applied) = state.applied.filter(|_| state.ahead == 0) else { continue };
            let key = raft_log::key(applied.index).to_vec();
            let entry = self
                .seen
                .get(&key)
                .map(|value| raft_log::decode(&key, value).expect("a store in memory does not fail"));
            (self.witness)(Happening::Applied(state, entry.filter(|entry| entry.position == applied)));
        }
    }
}

impl Memory {
    pub fn new(speed: Speed, witness: Witness) -> Memory {
        let (seen, safe, journal, syncing, settled) = (Map::new(), Map::new(), Vec::new(), None, 0);
        Memory(Arc::new(Mutex::new(Disk { seen, safe, journal, syncing, settled, speed, witness })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no holder panics")
    }

    /// A store on this disk; whoever used it before is gone.
    pub fn open(&self) -> Kv {
        Kv { keys: super::Keys::Memory(self.clone()), failure: tokio::sync::watch::Sender::new(None) }
    }

    pub(super) fn write(&self, batch: &[u8], durability: Durability) {
        let ops = parse(batch);
        let mut disk = self.disk();
        (disk.witness)(Happening::Wrote(crate::base::checksum::crc32c(&batch[12..])));
        let seen = durability == Durability::Ordered;
        if seen {
            ops.iter().for_each(|op| op.apply(&mut disk.seen));
        }
        disk.tell_applied(&ops);
        disk.journal.push(Written { ops, seen });
        if durability == Durability::Synced {
            disk.syncing = Some(disk.settled + disk.journal.len());
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.disk().seen.get(key).cloned()
    }

    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Vec<Pair> {
        let disk = self.disk();
        let range = disk.seen.range(from.to_vec()..to.to_vec());
        range.map(|(key, value)| (key.clone().into(), value.clone().into())).collect()
    }

    /// Does work on the store, in the place where the caller stands, and takes the time that it would take.
    pub async fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = work();
        let (syncing, pace) = {
            let mut disk = self.disk();
            (disk.syncing.take(), (disk.speed)())
        };
        let takes = if syncing.is_some() { pace.sync } else { pace.other };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        if let Some(upto) = syncing {
            let mut disk = self.disk();
            let count = upto.saturating_sub(disk.settled);
            disk.settle(count);
        }
        done
    }

    /// All that was written is on the disk.
    pub fn sync(&self) {
        let mut disk = self.disk();
        let count = disk.journal.len();
        disk.syncing = None;
        disk.settle(count);
    }

    /// The process, or the power, is gone: of what was written and not synced `keep` of so many batches stay.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        let mut disk = self.disk();
        let keep = keep(disk.journal.len()).min(disk.journal.len());
        disk.settle(keep);
        disk.settled += disk.journal.len();
        disk.journal.clear();
        disk.syncing = None;
        disk.seen = disk.safe.clone();
    }
}

impl Kv {
    /// The disk, if the store is in memory.
    pub fn memory(&self) -> Option<&Memory> {
        match &self.keys {
            super::Keys::Folder(_) => None,
            super::Keys::Memory(memory) => Some(memory),
        }
    }
}

mod tests {
    use super::super::Batch;
    use super::*;

    fn disk() -> Memory {
        Memory::new(Arc::new(Pace::default), Arc::new(|_| {}))
    }

    fn write(kv: &Kv, key: u8, durability: Durability) {
        let mut batch = Batch::default();
        batch.put([9, key], vec![key; 200]);
        batch.delete([9, 77]);
        kv.write(batch, durability).expect("a store in memory does not fail");
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        for keep in 0..=3 {
            let disk = disk();
            let kv = disk.open();
            write(&kv, 1, Durability::Ordered);
            write(&kv, 5, Durability::Synced);
            assert_eq!(kv.get(&[9, 1]).expect("a store in memory does not fail"), Some(vec![1; 200]));
            assert_eq!(kv.get(&[9, 5]).expect("a store in memory does not fail"), None, "not before it is synced");
            disk.sync();
            assert_eq!(kv.get(&[9, 5]).expect("a store in memory does not fail"), Some(vec![5; 200]));
            write(&kv, 3, Durability::Ordered);
            write(&kv, 4, Durability::Synced);
            let mut batch = Batch::default();
            batch.delete_range(&[9, 2], &[9, 4]);
            kv.write(batch, Durability::Ordered).expect("a store in memory does not fail");
            disk.crash(|_| keep);
            let mut keys = Vec::new();
            kv.scan(&[9], &[10], &mut |key, _| {
                keys.push(key[1]);
                Ok(true)
            })
            .expect("a store in memory does not fail");
            assert_eq!(keys, [&[1, 5][..], &[1, 3, 5], &[1, 3, 4, 5], &[1, 4, 5]][keep]);
            assert_eq!(
                kv.last(&[9], &[10]).expect("a store in memory does not fail").map(|(key, _)| key[1]),
                keys.last().copied()
            );
        }
    }
}
