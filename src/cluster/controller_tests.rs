//! Golden transcripts of the controller: a cluster of brokers that live and die, with the metadata's own `apply`, and what is
//! decided at which moment. And properties over random lives.
//!
//! A line `> command…` is played; the lines under it are what came of it. Write the commands, run once with
//! `CASEMATE_WRITE_TRANSCRIPTS=1`, and read what was written before committing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use crate::base::{ClusterId, DirectoryId, EntryId, LedgerId, NodeId, Offset, PartitionId, TopicId, WalIncarnation};
use crate::broker::{Load, PartitionLoad};
use crate::metadata::{Command, Holder, Image, MemoryIndex, Replica, Response, apply};

use super::controller::{Action, Controller, View, partitions};
use super::lease::{Heartbeat, Leases, Verdict};

/// How often brokers ask and the controller looks, in ms.
const STEP_MS: u64 = 100;
/// How long a recovery takes.
const RECOVERY_MS: u64 = 300;

struct World {
    now_ms: u64,
    image: Image,
    index: MemoryIndex,
    leases: Leases,
    controller: Controller,
    alive: BTreeSet<NodeId>,
    loads: BTreeMap<NodeId, Load>,
    /// Ledger, and when it is done.
    recoveries: Vec<(LedgerId, u64)>,
    /// Whether live leaders hand over what has a target.
    moving: bool,
    out: String,
}

fn topic(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn name(id: PartitionId) -> String {
    format!("{}-{}", id.topic.0[0], id.index)
}

fn list<T: std::str::FromStr>(word: &str) -> Vec<T> {
    let one = |word: &str| word.parse().unwrap_or_else(|_| panic!("{word} is no number"));
    word.split(',').filter(|word| !word.is_empty()).map(one).collect()
}

impl World {
    fn new() -> World {
        let (now_ms, index, out) = (100_000, MemoryIndex::default(), String::new());
        let controller = Controller::new(Duration::from_millis(now_ms));
        let mut world = World {
            now_ms,
            image: Image::default(),
            index,
            leases: Leases::default(),
            controller,
            alive: BTreeSet::new(),
            loads: BTreeMap::new(),
            recoveries: Vec::new(),
            moving: true,
            out,
        };
        world.leases.begin(world.now(), &world.image, None);
        world.must(&Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 });
        world
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn apply(&mut self, command: &Command) -> Response {
        let (response, ops) = apply(&mut self.image, command, &self.index);
        self.index.apply(&ops);
        response
    }

    fn must(&mut self, command: &Command) -> Response {
        match self.apply(command) {
            Response::Rejected(reject) => panic!("{command:?}: {reject}"),
            response => response,
        }
    }

    fn say(&mut self, text: &str) {
        writeln!(self.out, "{:>7} {text}", self.now_ms - 100_000).expect("a string takes any text");
    }

    /// Nodes 1 to `count`, each with a broker and a ledger on all of them.
    fn nodes(&mut self, count: i32) {
        for id in 1..=count {
            let (node, name, host, identity) = (NodeId(id), format!("n{id}"), format!("h{id}"), format!("CN={id}"));
            let (rack, port, now_ms, directory) = (String::new(), 1, 0, DirectoryId(id as u32));
            if id == 1 {
                self.must(&Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms });
            } else {
                let (token_sha256, expires_ms) = ([id as u8; 32], 10);
                self.must(&Command::AddNode {
                    node,
                    name,
                    rack,
                    host,
                    port,
                    identity,
                    token_sha256,
                    expires_ms,
                    now_ms,
                });
                self.must(&Command::JoinNode { node, token_sha256, directory, now_ms });
            }
            self.register(node);
        }
        (1..=count).for_each(|id| self.open_ledger(NodeId(id)));
    }

    fn register(&mut self, node: NodeId) {
        let (incarnation, version) = (WalIncarnation([node.0 as u8; 16]), String::new());
        let boot = self.image.brokers.get(&node).map_or(1, |broker| broker.boot + 1);
        self.must(&Command::RegisterBroker { node, incarnation, boot, endpoints: vec![], version, now_ms: 0 });
        self.alive.insert(node);
    }

    fn replicas(&self) -> Vec<Replica> {
        let of = |(node, broker): (&NodeId, &crate::metadata::Broker)| Replica {
            node: *node,
            incarnation: broker.incarnation,
        };
        self.image.brokers.iter().map(of).collect()
    }

    /// A ledger of `node` on up to three nodes, as soon as its earlier ones have ends.
    fn open_ledger(&mut self, node: NodeId) {
        let epoch = self.image.brokers[&node].epoch;
        let mut replicas = self.replicas();
        replicas.sort_by_key(|replica| ((replica.node.0 - node.0).rem_euclid(1_000), replica.node));
        replicas.truncate(3);
        let write_quorum = if replicas.len() == 1 { 1 } else { 2 };
        self.apply(&Command::OpenLedger { node, epoch, replicas, write_quorum, close: None });
    }

    /// A time of [`STEP_MS`]: brokers ask, leaders hand over, recoveries end, the controller looks.
    fn pass(&mut self) {
        self.now_ms += STEP_MS;
        for node in self.alive.clone() {
            let epoch = self.image.brokers[&node].epoch;
            let load = self.loads.get(&node).cloned().unwrap_or_default();
            let beat = Heartbeat { node, epoch, wal_used: 0, wal_budget: 0, load };
            if self.leases.hear(self.now(), Some(self.now()), &self.image, beat) == Verdict::Fenced {
                self.say(&format!("node {node} is told that it is fenced, and ends"));
                self.alive.remove(&node);
            }
            let open = self.image.ledgers.values().any(|ledger| ledger.node == node && ledger.epoch == epoch);
            if self.alive.contains(&node) && !open {
                self.open_ledger(node);
            }
        }
        self.hand_over();
        let (done, rest) = std::mem::take(&mut self.recoveries).into_iter().partition(|(_, at)| *at <= self.now_ms);
        self.recoveries = rest;
        let done: Vec<(LedgerId, u64)> = done;
        done.into_iter().for_each(|(ledger, _)| self.finish_recovery(ledger));
        for action in self.look() {
            self.carry_out(action);
        }
    }

    fn hand_over(&mut self) {
        let wished = partitions(&self.image).filter(|(_, p)| self.moving && p.target.is_some());
        let moving: Vec<_> = wished.map(|(id, p)| (id, p.leader, p.leader_epoch, p.target_since)).collect();
        for (partition, node, leader_epoch, target_since) in moving {
            let epoch = self.image.brokers[&node].epoch;
            if self.alive.contains(&node) {
                let end = Offset(5);
                self.apply(&Command::HandOver { node, epoch, partition, leader_epoch, end, target_since });
            }
        }
    }

    /// The end is found if enough replicas live.
    fn finish_recovery(&mut self, ledger: LedgerId) {
        let recorded = self.image.ledgers[&ledger].clone();
        let holders = recorded.replicas.iter().filter(|replica| self.alive.contains(&replica.node));
        let holders: Vec<_> = holders.map(|replica| Holder { replica: *replica, from: EntryId(0) }).collect();
        let needed = recorded.replicas.len() + 1 - usize::from(recorded.write_quorum);
        let found = holders.len() >= needed;
        if found {
            let uploader = holders[0].replica.node;
            self.must(&Command::RecoverLedger { ledger, end: EntryId(10), holders, uploader });
            self.say(&format!("ledger {ledger} ends at 10, node {uploader} uploads it"));
        } else {
            self.say(&format!("ledger {ledger}: too few replicas answer"));
        }
        self.controller.recovered(self.now(), ledger, found);
    }

    fn look(&mut self) -> Vec<Action> {
        let overdue = self.leases.overdue(self.now(), &self.image);
        let loads = self.image.brokers.keys().filter_map(|node| Some((*node, self.leases.load(*node)?.clone())));
        let loads = loads.collect();
        self.controller.step(&View { now: self.now(), image: &self.image, overdue: &overdue, loads: &loads })
    }

    fn carry_out(&mut self, action: Action) {
        let text = match &action {
            Action::Recover(ledger) => {
                self.recoveries.push((*ledger, self.now_ms + RECOVERY_MS));
                format!("recover ledger {ledger}")
            }
            Action::Propose(command) => text_of(command),
        };
        let refused = match &action {
            Action::Propose(command) => match self.apply(command) {
                Response::Rejected(reject) => format!(" REFUSED: {reject}"),
                _ => String::new(),
            },
            Action::Recover(_) => String::new(),
        };
        self.say(&format!("{text}{refused}"));
    }

    fn show(&mut self) {
        let mut lines = Vec::new();
        for (node, broker) in &self.image.brokers {
            let led: Vec<_> =
                partitions(&self.image).filter(|(_, p)| p.leader == *node).map(|(id, _)| name(id)).collect();
            let fenced = if broker.fenced { " fenced" } else { "" };
            let drained = if self.image.is_draining(*node) { " draining" } else { "" };
            lines.push(format!("node {node}@{}{fenced}{drained} leads [{}]", broker.epoch, led.join(" ")));
        }
        for (id, ledger) in &self.image.ledgers {
            let end = ledger.end.map_or("open".to_owned(), |end| format!("ends at {end}"));
            lines.push(format!("ledger {id} of {}@{} {end}, uploaded {}", ledger.node, ledger.epoch, ledger.uploaded));
        }
        lines.into_iter().for_each(|line| writeln!(self.out, "  {line}").expect("a string takes any text"));
    }

    fn play(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["nodes", count] => self.nodes(list(count)[0]),
            ["topic", number, leaders] => {
                let partitions = list(leaders).into_iter().map(NodeId).collect();
                let (id, name) = (topic(list(number)[0]), format!("t{number}"));
                let (configs, replication_factor) = (vec![], 3);
                self.must(&Command::CreateTopic { id, name, partitions, replication_factor, configs, now_ms: 0 });
            }
            ["kill", nodes] => self.alive.retain(|node| !list(nodes).contains(&node.0)),
            ["start", node] => self.register(NodeId(list(node)[0])),
            ["new-leader"] => {
                (self.controller, self.recoveries) = (Controller::new(self.now()), Vec::new());
                self.leases.begin(self.now(), &self.image, None);
            }
            ["pass", ms] => (0..list::<u64>(ms)[0] / STEP_MS).for_each(|_| self.pass()),
            ["drain", node] => drop(self.must(&Command::DrainNode { node: NodeId(list(node)[0]), draining: true })),
            ["stuck"] => self.moving = false,
            ["moving"] => self.moving = true,
            ["target", partition, node] => {
                let parts: Vec<i32> = partition.split('-').map(|word| list(word)[0]).collect();
                let partition = PartitionId { topic: topic(parts[0] as u8), index: parts[1] };
                let target = Some(NodeId(list(node)[0]));
                let change = crate::metadata::TargetChange { partition, target, preferred: None };
                self.must(&Command::SetTargets { changes: vec![change] });
            }
            // Of each partition that the node leads, KiB per second: in the order of the partitions.
            ["load", node, costs] => self.set_load(NodeId(list(node)[0]), &list(costs)),
            ["show"] => self.show(),
            _ => panic!("{line} is no command"),
        }
    }

    fn set_load(&mut self, node: NodeId, costs: &[u64]) {
        let led = partitions(&self.image).filter(|(_, p)| p.leader == node).map(|(id, _)| id);
        let partitions: Vec<_> =
            led.zip(costs).map(|(partition, kib)| PartitionLoad { partition, cost: kib * 1024 }).collect();
        let bytes_in = costs.iter().sum::<u64>() * 1024;
        self.loads.insert(node, Load { bytes_in, bytes_out: 0, requests: 0, partitions });
    }
}

fn text_of(command: &Command) -> String {
    match command {
        Command::FenceBroker { node, epoch } => format!("fence {node}@{epoch}"),
        Command::AssignPartitions { changes } => {
            let each: Vec<_> = changes.iter().map(|c| format!("{}:{}", name(c.partition), c.leader)).collect();
            format!("assign {}", each.join(" "))
        }
        Command::NameUploader { ledger, node, .. } => format!("node {node} is to upload ledger {ledger}"),
        Command::SetTargets { changes } => {
            let to = |target: Option<NodeId>| target.map_or("-".to_owned(), |node| node.to_string());
            let each: Vec<_> = changes.iter().map(|c| format!("{}:{}", name(c.partition), to(c.target))).collect();
            format!("move {}", each.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cluster/transcripts").join(file);
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut world = World::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(world.out, "{line}").expect("a string takes any text");
            world.play(command);
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(world.out, "{line}").expect("a string takes any text");
        }
    }
    if std::env::var_os("CASEMATE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &world.out).expect("the transcript can be written");
        return;
    }
    assert!(!world.out.contains("REFUSED"), "{}", world.out);
    assert_eq!(world.out, script, "{file}");
}

#[test]
fn transcript_of_dead_brokers() {
    check("failover.txt");
}

#[test]
fn transcript_of_quick_restarts_and_new_leaders() {
    check("restarts.txt");
}

#[test]
fn transcript_of_drains() {
    check("drain.txt");
}

#[test]
fn transcript_of_balancing() {
    check("balance.txt");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever dies, comes back, is drained or moved: nothing that the controller decides is refused, and when all is quiet
    /// again every partition is led by a live broker.
    #[test]
    fn what_is_decided_is_never_refused(steps in proptest::collection::vec((0u8..13, 1i32..6, 0u8..40), 10..60)) {
        let mut world = World::new();
        world.nodes(5);
        world.play("topic 3 1,2,3,4,5,1,2,3,4,5,1,1");
        world.play("topic 4 2,2,2,3");
        for (what, node, n) in steps {
            let id = NodeId(node);
            match what {
                // Two at most are away at a time, or nobody could recover anything.
                0 | 1 if world.alive.len() > 3 => drop(world.alive.remove(&id)),
                2 | 3 if !world.alive.contains(&id) => world.register(id),
                4 => drop(world.apply(&Command::DrainNode { node: id, draining: n % 2 == 0 })),
                5 => {
                    let partition = PartitionId { topic: topic(3), index: i32::from(n) % 12 };
                    let change = crate::metadata::TargetChange { partition, target: Some(id), preferred: Some(id) };
                    world.apply(&Command::SetTargets { changes: vec![change] });
                }
                6 => world.set_load(id, &[u64::from(n) * 100; 12]),
                7 => world.moving = n % 2 == 0,
                8 if n % 4 == 0 => world.play("new-leader"),
                9 if n % 8 == 0 => world.play("pass 60000"),
                _ => (0..n).for_each(|_| world.pass()),
            }
        }
        world.moving = true;
        // What is left of the dead may be too little for their ledgers: all come back.
        let dead: Vec<_> = (1..6).map(NodeId).filter(|node| !world.alive.contains(node)).collect();
        world.play("pass 3000");
        dead.into_iter().for_each(|node| world.register(node));
        world.play("pass 12000");
        prop_assert!(!world.out.contains("REFUSED"), "{}", world.out);
        let led = partitions(&world.image).all(|(_, p)| world.alive.contains(&p.leader));
        prop_assert!(led, "{:?}\n{}", world.alive, world.out);
    }
}
