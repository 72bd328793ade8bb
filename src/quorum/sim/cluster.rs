//! The nodes: their disks, their starts and ends, and what all parts of a simulation share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::executor::{self, Process};
use super::net::Port;
use super::oracle::Oracle;
use crate::base::NodeId;
use crate::env::{Entropy, SeededEntropy};
use crate::kv::memory::{Happening, Memory, Pace};
use crate::quorum::member::raft_id;
use crate::quorum::{Create, Quorum, QuorumOptions, Thrift, open};

/// Small, so that logs are purged and snapshots are sent in several pieces.
const THRIFT: Thrift = Thrift { snapshot_entries: 40, kept_entries: 4, piece_bytes: 1_000 };

pub struct Node {
    pub disk: Memory,
    /// Milliseconds that a sync takes at most.
    pub sync_ms: Arc<AtomicU64>,
    /// The name in Raft of the folder on the disk, once there is one.
    pub voter: Option<u64>,
    /// What runs, or begins to.
    pub process: Option<Process>,
    pub quorum: Option<Arc<Quorum>>,
    pub stopped: bool,
    /// Told to end, in order.
    pub ending: bool,
    create: Create,
    /// Taken out for good.
    pub gone: bool,
}

/// What goes wrong with messages now.
#[derive(Default)]
pub struct Links {
    /// From, to: nothing arrives.
    pub cut: BTreeSet<(i32, i32)>,
    /// One message in so many is lost, when this is not 0.
    pub loss: u64,
    /// One message in so many is late, by up to this many milliseconds.
    pub late: u64,
    pub late_ms: u64,
    /// Whoever answers the next message of this kind loses its power right after.
    pub trap: Option<&'static str>,
}

#[derive(Default)]
pub struct Trace {
    hash: u64,
    pub events: u64,
    pub log: Option<Vec<String>>,
}

pub struct World {
    begun: Instant,
    pub rng: SeededEntropy,
    nodes: Mutex<BTreeMap<i32, Node>>,
    links: Mutex<Links>,
    oracle: Arc<Mutex<Oracle>>,
    trace: Arc<Mutex<Trace>>,
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
    /// No more faults.
    pub over: Mutex<bool>,
}

impl World {
    pub fn new(seed: u64, log: bool) -> Arc<World> {
        let trace = Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, log: log.then(Vec::new) };
        Arc::new(World {
            begun: Instant::now(),
            rng: SeededEntropy::new(seed ^ 0x0071_756f_7275_6d00),
            nodes: Mutex::default(),
            links: Mutex::default(),
            oracle: Arc::new(Mutex::new(Oracle::new())),
            trace: Arc::new(Mutex::new(trace)),
            counts: Mutex::default(),
            over: Mutex::default(),
        })
    }

    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn nodes(&self) -> MutexGuard<'_, BTreeMap<i32, Node>> {
        self.nodes.lock().unwrap()
    }

    pub fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap()
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
    }

    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap()
    }

    pub fn is_over(&self) -> bool {
        *self.over.lock().unwrap() || self.is_broken()
    }

    pub fn is_broken(&self) -> bool {
        self.oracle().broken.is_some()
    }

    /// Puts what happens into the trace.
    pub fn note(&self, what: &str, about: i64, more: u64) {
        self.trace().note(self.now(), what, about, more);
    }

    pub fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    /// A number between the two, both included.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.rng.below(to - from + 1)
    }

    pub async fn pause(&self, from_ms: u64, to_ms: u64) {
        let ms = self.between(from_ms, to_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub fn pick<T: Copy>(&self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.rng.below(of.len() as u64) as usize])
    }

    /// A disk, empty.
    fn disk(self: &Arc<World>, node: i32, sync_ms: Arc<AtomicU64>) -> Memory {
        let (oracle, trace, begun) = (self.oracle.clone(), self.trace.clone(), self.begun);
        let last = Mutex::new(None);
        let world = Arc::downgrade(self);
        let witness = move |happening: Happening| {
            let (mut oracle, now) = (oracle.lock().unwrap(), begun.elapsed());
            match happening {
                Happening::Wrote(sum) => trace.lock().unwrap().note(now, "writes", node.into(), sum.into()),
                Happening::Appended(entry) => oracle.stored(node, &entry),
                Happening::Voted(vote) => {
                    trace.lock().unwrap().note(now, "votes", node.into(), vote.term);
                    if node_of(vote.node) == node {
                        oracle.elects(&vote, now);
                    }
                }
                Happening::Applied(state, entry) => {
                    let Some(at) = state.applied else { return };
                    trace.lock().unwrap().note(now, "applies", node.into(), at.index);
                    let before = last.lock().unwrap().replace(at.index).map_or(0, |last| last + 1);
                    oracle.snapshots += u64::from(at.index > before);
                    oracle.applied(node, at.index, entry.as_ref());
                }
            }
        };
        let speed = move || {
            let Some(world) = world.upgrade() else { return Pace::default() };
            let sync = world.between(1, sync_ms.load(Ordering::Relaxed));
            let other = if world.rng.one_in(6) { world.between(1, 4) } else { 0 };
            Pace { sync: Duration::from_millis(sync), other: Duration::from_millis(other) }
        };
        Memory::new(Arc::new(speed), Arc::new(witness))
    }

    pub fn add(self: &Arc<World>, node: i32, create: Create) {
        let sync_ms = Arc::new(AtomicU64::new(6));
        let disk = self.disk(node, sync_ms.clone());
        let (voter, process, quorum, stopped, ending, gone) = (None, None, None, false, false, false);
        self.nodes().insert(node, Node { disk, sync_ms, voter, process, quorum, stopped, ending, create, gone });
    }

    /// The disk is exchanged for an empty one.
    pub fn wipe(self: &Arc<World>, node: i32) {
        self.kill(node, true);
        let mut nodes = self.nodes();
        let Some(known) = nodes.get_mut(&node) else { return };
        known.disk = self.disk(node, known.sync_ms.clone());
        known.create = Create::Member;
        let lost = known.voter.take();
        drop(nodes);
        self.note("wiped", node.into(), 0);
        if let Some(voter) = lost {
            self.oracle().loses(voter);
        }
    }

    /// Starts the node with the disk that it has; a start that a crash ends is none.
    pub async fn boot(self: &Arc<World>, node: i32) {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(self.rng.next()));
        let process = executor::new_process();
        let begin = {
            let mut nodes = self.nodes();
            let Some(known) = nodes.get_mut(&node).filter(|known| known.process.is_none() && !known.gone) else {
                return;
            };
            let options = QuorumOptions { dir: PathBuf::new(), node: NodeId(node), create: known.create };
            let opened = match open(known.disk.open(), &options, &*entropy) {
                Ok(opened) => opened,
                Err(error) => return self.oracle().fail(format!("node {node} does not start: {error}")),
            };
            known.disk.sync();
            let (kv, core, owner, _) = &opened;
            let voter = raft_id(owner.node, owner.directory).unwrap();
            self.oracle().remembers(voter, kv.vote().unwrap());
            self.oracle().shows(node, &core.image());
            known.voter = Some(voter);
            known.process = Some(process);
            let transport = Arc::new(Port { world: self.clone(), from: node });
            Quorum::begin(opened, options, THRIFT, transport, entropy)
        };
        self.note("boots", node.into(), 0);
        let begun = executor::inside(process, begin).await;
        let mut nodes = self.nodes();
        let Some(known) = nodes.get_mut(&node).filter(|known| known.process == Some(process)) else { return };
        match begun {
            Some(Ok(quorum)) => known.quorum = Some(quorum),
            Some(Err(error)) => {
                drop(nodes);
                self.oracle().fail(format!("node {node} does not begin: {error}"));
            }
            None => {}
        }
    }

    /// SIGKILL, or with `power` the end of everything that was not synced, or of a part of it.
    pub fn kill(&self, node: i32, power: bool) {
        let mut nodes = self.nodes();
        let Some(known) = nodes.get_mut(&node) else { return };
        let Some(process) = known.process.take() else { return };
        let quorum = known.quorum.take();
        (known.stopped, known.ending) = (false, false);
        let disk = known.disk.clone();
        drop(nodes);
        executor::kill(process);
        drop(quorum);
        // A write that a killed process had begun may be there or not; what the kernel has stays.
        disk.crash(|unsynced| match power {
            true => self.rng.below(unsynced as u64 + 1) as usize,
            false => unsynced - usize::from(unsynced > 0 && self.rng.one_in(3)),
        });
        self.note("dies", node.into(), power.into());
    }

    pub fn stop(&self, node: i32, stop: bool) {
        let mut nodes = self.nodes();
        let Some(known) = nodes.get_mut(&node) else { return };
        let Some(process) = known.process.filter(|_| known.stopped != stop) else { return };
        known.stopped = stop;
        drop(nodes);
        self.note(if stop { "stops" } else { "goes on" }, node.into(), 0);
        if stop { executor::stop(process) } else { executor::resume(process) }
    }

    pub fn is_ending(&self, node: i32) -> bool {
        self.nodes().get(&node).is_some_and(|node| node.ending)
    }

    /// Every node and what it refers to is gone.
    pub fn end(&self) {
        let all: Vec<i32> = self.nodes().keys().copied().collect();
        all.iter().for_each(|node| self.kill(*node, false));
        self.nodes().clear();
    }

    /// The node's quorum, and the process that it is in, if it runs.
    pub fn running(&self, node: i32) -> Option<(Process, Arc<Quorum>)> {
        let nodes = self.nodes();
        let known = nodes.get(&node)?;
        Some((known.process?, known.quorum.clone()?))
    }

    /// Nodes that run and were not taken out.
    pub fn all_running(&self) -> Vec<i32> {
        let nodes = self.nodes();
        let run = nodes.iter().filter(|(_, known)| known.quorum.is_some() && !known.gone);
        run.map(|(node, _)| *node).collect()
    }

    pub fn members(&self) -> Vec<i32> {
        self.nodes().iter().filter(|(_, known)| !known.gone).map(|(node, _)| *node).collect()
    }

    /// Does something with a node's quorum, in its process; nothing comes of it if the process ends, or after `patience`.
    pub async fn at<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        node: i32,
        patience: Duration,
        work: impl FnOnce(Arc<Quorum>) -> F + Send + 'static,
    ) -> Option<T> {
        let (process, quorum) = self.running(node)?;
        let inside = executor::inside(process, async move { tokio::time::timeout(patience, work(quorum)).await.ok() });
        tokio::time::timeout(patience + Duration::from_millis(1), inside).await.ok()??
    }
}

pub fn node_of(voter: u64) -> i32 {
    crate::quorum::member::node_of(voter).0
}

impl Trace {
    fn note(&mut self, now: Duration, what: &str, about: i64, more: u64) {
        self.events += 1;
        let numbers = about.to_be_bytes().into_iter().chain(more.to_be_bytes()).chain(now.as_nanos().to_be_bytes());
        for byte in what.bytes().chain(numbers) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} {what} {about} {more:x}", now.as_secs_f64()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
