//! What goes wrong, and when it is mended.

use std::collections::BTreeMap;

use crate::base::{NodeId, Offset};
use crate::metadata::{Command, TargetChange};

use super::disk::Tail;
use super::node::{Ask, partition_id};
use super::world::{Event, World, node_id};
use super::{MS, NODES, PARTITIONS};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Away(usize),
    Stopped(usize),
    Cut(usize, usize),
    SlowDisk(usize),
    StoreAway,
}

#[derive(Default)]
pub struct Faults {
    /// By sender and receiver.
    pub cut: [[bool; NODES]; NODES],
    active: BTreeMap<u64, Vec<Fault>>,
    /// By name, how many were injected.
    pub counts: BTreeMap<&'static str, u64>,
    /// No more of them.
    pub over: bool,
}

impl World {
    pub fn fault(&mut self) {
        if self.faults.over {
            return;
        }
        let next = self.now + self.rng.range(200, 2_500) * MS;
        self.at(next, Event::Fault);
        let (node, other) = (self.rng.range(0, 2) as usize, self.rng.range(1, 2) as usize);
        let other = (node + other) % NODES;
        let lasts = self.rng.range(50, 4_000) * MS;
        let kind = self.rng.range(0, 11);
        let (name, faults) = match kind {
            0 | 1 => ("kill", vec![Fault::Away(node)]),
            2 => ("power", vec![Fault::Away(node)]),
            3 | 4 => ("stop", vec![Fault::Stopped(node)]),
            5 => ("isolated", self.links_of(node)),
            6 => ("one way", vec![Fault::Cut(node, other)]),
            7 => ("bridge", vec![Fault::Cut(node, other), Fault::Cut(other, node)]),
            8 => ("slow disk", vec![Fault::SlowDisk(node)]),
            9 => ("store away", vec![Fault::StoreAway]),
            10 => return self.move_one(node),
            _ => ("all down", (0..NODES).map(Fault::Away).collect()),
        };
        if matches!(faults[0], Fault::Away(n) | Fault::Stopped(n) if self.nodes[n].process.is_none()) {
            return;
        }
        *self.faults.counts.entry(name).or_default() += 1;
        self.note(name, node as u64);
        let power = matches!(name, "power" | "all down");
        for fault in &faults {
            self.begin(*fault, power);
        }
        let id = self.new_generation();
        self.faults.active.insert(id, faults);
        self.at(self.now + lasts, Event::Mend { fault: id });
    }

    fn links_of(&self, node: usize) -> Vec<Fault> {
        let others = (0..NODES).filter(|other| *other != node);
        others.flat_map(|other| [Fault::Cut(node, other), Fault::Cut(other, node)]).collect()
    }

    fn begin(&mut self, fault: Fault, power: bool) {
        match fault {
            Fault::Away(node) => {
                // A torn tail on one node at most is told from others; on all it is what a power cut leaves.
                let tail = if self.rng.range(0, 1) == 0 { Tail::Torn } else { Tail::Clean };
                self.nodes[node].away = true;
                self.nodes[node].stopped_until = None;
                self.wake(node);
                if self.nodes[node].process.take().is_some() {
                    self.nodes[node].disk.crash(power, tail);
                    if self.bugs.ledger.has(crate::ledger::core::Bug::CutBelowWatermark) {
                        self.nodes[node].disk.cut_silently();
                    }
                }
            }
            Fault::Stopped(node) => self.nodes[node].stopped_until = Some(u64::MAX),
            Fault::Cut(from, to) => self.faults.cut[from][to] = true,
            Fault::SlowDisk(node) => self.nodes[node].sync = 120 * MS,
            Fault::StoreAway => self.store.away = true,
        }
    }

    pub fn mend(&mut self, fault: u64) {
        for fault in self.faults.active.remove(&fault).unwrap_or_default() {
            match fault {
                Fault::Away(node) => {
                    self.nodes[node].away = false;
                    self.at(self.now, Event::Start { node });
                }
                Fault::Stopped(node) => {
                    if self.nodes[node].stopped_until.take().is_some() {
                        self.wake(node);
                    }
                }
                Fault::Cut(from, to) => self.faults.cut[from][to] = false,
                Fault::SlowDisk(node) => self.nodes[node].sync = 2 * MS,
                Fault::StoreAway => self.store.away = false,
            }
        }
    }

    pub fn mend_all(&mut self) {
        self.faults.over = true;
        let all: Vec<u64> = self.faults.active.keys().copied().collect();
        for fault in all {
            self.mend(fault);
        }
        self.faults.cut = Default::default();
        self.note("mended", 0);
    }

    /// A partition is to be led by another node.
    fn move_one(&mut self, target: usize) {
        let partition = self.rng.range(0, PARTITIONS as u64 - 1) as usize;
        let newest = self.quorum.newest().clone();
        let Some(recorded) = newest.partition(partition_id(partition)) else { return };
        let fit = |node: NodeId| newest.brokers.get(&node).is_some_and(|broker| !broker.fenced);
        if recorded.leader == node_id(target) || !fit(node_id(target)) || recorded.handed_over < Offset::ZERO {
            return;
        }
        *self.faults.counts.entry("move").or_default() += 1;
        let (partition, target) = (partition_id(partition), Some(node_id(target)));
        let change = TargetChange { partition, target, preferred: None };
        let asker = self.quorum.leader.unwrap_or(0);
        self.propose(asker, Command::SetTargets { changes: vec![change] }, Ask::Control);
        if self.rng.range(0, 1) == 0 {
            self.reconsider(asker, change);
        }
    }

    /// For a while `to` hears nothing of `from`.
    pub fn cut_off(&mut self, from: usize, to: usize) {
        if from == to || self.faults.over {
            return;
        }
        *self.faults.counts.entry("one way").or_default() += 1;
        let fault = Fault::Cut(from, to);
        self.begin(fault, false);
        let id = self.new_generation();
        self.faults.active.insert(id, vec![fault]);
        let lasts = self.rng.range(50, 2_000) * MS;
        self.at(self.now + lasts, Event::Mend { fault: id });
    }

    /// The wish is taken back, and soon made again.
    fn reconsider(&mut self, node: usize, change: TargetChange) {
        *self.faults.counts.entry("taken back").or_default() += 1;
        let generation = self.nodes[node].generation;
        let back = self.now + self.rng.range(20, 400) * MS;
        let again = back + self.rng.range(50, 1_500) * MS;
        for (at, target) in [(back, None), (again, change.target)] {
            let command = Command::SetTargets { changes: vec![TargetChange { target, ..change }] };
            self.at(at, Event::Proposal { node, generation, command, ask: None });
        }
    }
}
