//! A node: its disk, and the process that runs on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::base::{BrokerEpoch, ClusterId, DirectoryId, EntryId, LedgerId, PartitionId, TopicId, WalIncarnation};
use crate::ledger::core::{
    Identity, Outcome, Replica, ReplicaAction, ReplicaEvent, Reply, Request, Writer, WriterAction, WriterEvent,
    WriterOptions, write_quorum,
};
use crate::metadata::{self, Command, Image, Reject, Response};

use super::controller::{Leading, Recoverer};
use super::disk::{Disk, Synced};
use super::partition::Part;
use super::quorum::Told;
use super::upload::Upload;
use super::world::{Event, World, index_of, node_id};
use super::{Batch, MS, Micros, NODES, PARTITIONS, Planted};

pub const TOPIC: TopicId = TopicId([7; 16]);

/// How long a broker may go on after its last heartbeat that was answered, by the time at which it was sent.
const LEASE: Micros = crate::broker::LEASE.as_micros() as Micros;
const HEARTBEAT: Micros = 300 * MS;
const TICK: Micros = 50 * MS;
/// From the end of a process to its next start.
pub const RESTART: Micros = 400 * MS;

/// What a proposal was for.
pub enum Ask {
    Register {
        boot: u64,
    },
    Open,
    Close {
        close: LedgerId,
    },
    HandOver {
        partition: usize,
    },
    Prepare {
        upload: u64,
    },
    Commit {
        upload: u64,
    },
    /// Of the controller: the next look at the image tells.
    Control,
    /// A linearizable read for a recovery.
    Confirm {
        ledger: LedgerId,
    },
    SetEnd {
        ledger: LedgerId,
        end: EntryId,
    },
}

pub enum Message {
    Ask {
        to: metadata::Replica,
        request: Request<Rc<Batch>>,
    },
    Tell {
        from: Identity,
        reply: Reply,
    },
    Read {
        ledger: LedgerId,
        from: EntryId,
        below: EntryId,
    },
    Entries {
        ledger: LedgerId,
        from: EntryId,
        batches: Option<Vec<Rc<Batch>>>,
    },
    Heartbeat {
        epoch: BrokerEpoch,
        sent: Micros,
    },
    /// A lease that counts from then; without a lease the epoch is fenced.
    Granted {
        since: Micros,
        lease: bool,
    },
}

pub struct Node {
    pub index: usize,
    pub disk: Disk,
    pub incarnation: WalIncarnation,
    pub process: Option<Process>,
    /// Of the process that runs or ran last; 0 before the first.
    pub generation: u64,
    /// Commands that the node has applied; on disk.
    pub applied: usize,
    pub stopped_until: Option<Micros>,
    /// What waits for it meanwhile.
    pub asleep: Vec<Event>,
    /// A sync takes so long, at least.
    pub sync: Micros,
    /// It is not started again for now.
    pub away: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its registration is on its way, or will be at this time.
    Registering {
        next: Micros,
    },
    /// The ledgers of its predecessors have no end yet, or nobody else can hold copies, or its own is being opened.
    Opening {
        next: Micros,
    },
    Serving,
}

pub struct Process {
    pub phase: Phase,
    pub epoch: BrokerEpoch,
    /// After the registration was accepted.
    pub replica: Option<Replica>,
    /// Ledgers whose state the account was told.
    known: BTreeMap<LedgerId, EntryId>,
    /// Who has asked about a ledger.
    askers: BTreeMap<LedgerId, BTreeSet<usize>>,
    pub writer: Option<Writer<Rc<Batch>>>,
    /// Appended and not durable, in the order of appends.
    pub waiting: VecDeque<Rc<Batch>>,
    pub durable: EntryId,
    pub parts: BTreeMap<usize, Part>,
    pub lease_until: Micros,
    heartbeat_at: Micros,
    syncing: bool,
    /// The process at the other end.
    pub connections: [Option<u64>; NODES],
    /// As the controller.
    pub leading: Leading,
    pub recoverers: BTreeMap<LedgerId, Recoverer>,
    pub uploads: BTreeMap<u64, Upload>,
}

impl Node {
    pub fn new(index: usize) -> Node {
        Node {
            index,
            disk: Disk::default(),
            incarnation: WalIncarnation([index as u8 + 1; 16]),
            process: None,
            generation: 0,
            applied: 0,
            stopped_until: None,
            asleep: Vec::new(),
            sync: 2 * MS,
            away: false,
        }
    }

    pub fn is_awake(&self) -> bool {
        self.process.is_some() && self.stopped_until.is_none()
    }

    pub fn name(&self) -> metadata::Replica {
        metadata::Replica { node: node_id(self.index), incarnation: self.incarnation }
    }
}

pub fn options() -> WriterOptions {
    let (window_bytes, lag_bytes) = (40_000, 20_000);
    WriterOptions { replicas: NODES, window_bytes, lag_bytes, lag_ms: 1_000, gone_ms: 1_000, retry_ms: 300 }
}

impl World {
    /// What is there before the first process: the cluster, its nodes, one topic.
    pub fn make_cluster(&mut self) {
        let now_ms = 0;
        let init = Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 };
        self.commit_ok(&init);
        for index in 0..NODES {
            let node = node_id(index);
            let (name, host, identity) = (format!("n{index}"), format!("h{index}"), format!("CN=n{index}"));
            let (rack, port, directory) = (String::new(), 9094, DirectoryId(index as u32 + 1));
            if index == 0 {
                self.commit_ok(&Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms });
                continue;
            }
            let token_sha256 = [index as u8; 32];
            let expires_ms = 1;
            let add = Command::AddNode { node, name, rack, host, port, identity, token_sha256, expires_ms, now_ms };
            self.commit_ok(&add);
            self.commit_ok(&Command::JoinNode { node, token_sha256, directory, now_ms });
        }
        for index in 0..NODES {
            let metadata::Replica { node, incarnation } = self.nodes[index].name();
            let (boot, endpoints, version) = (1, Vec::new(), String::new());
            self.nodes[index].disk.boot = boot;
            self.commit_ok(&Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms });
        }
        let partitions = (0..PARTITIONS).map(|p| node_id(p % NODES)).collect();
        let (id, name, configs) = (TOPIC, "topic".to_owned(), Vec::new());
        self.commit_ok(&Command::CreateTopic { id, name, partitions, replication_factor: 3, configs, now_ms });
        for node in &mut self.nodes {
            node.applied = self.quorum.committed();
        }
    }

    fn commit_ok(&mut self, command: &Command) {
        let response = self.quorum.commit(command);
        assert!(!matches!(response, Response::Rejected(_)), "{command:?}: {response:?}");
    }

    pub fn image_at(&self, node: usize) -> Rc<Image> {
        self.quorum.images[self.nodes[node].applied].clone()
    }

    pub fn start(&mut self, index: usize) {
        let generation = self.new_generation();
        let now = self.now;
        let node = &mut self.nodes[index];
        if node.process.is_some() || node.away {
            return;
        }
        node.generation = generation;
        node.process = Some(Process {
            phase: Phase::Registering { next: now },
            epoch: BrokerEpoch(0),
            replica: None,
            known: BTreeMap::new(),
            askers: BTreeMap::new(),
            writer: None,
            waiting: VecDeque::new(),
            durable: EntryId(0),
            parts: BTreeMap::new(),
            lease_until: 0,
            heartbeat_at: now,
            syncing: false,
            connections: [None; NODES],
            leading: Leading::default(),
            recoverers: BTreeMap::new(),
            uploads: BTreeMap::new(),
        });
        self.note("starts", index as u64);
        self.at(now, Event::Tick { node: index, generation });
    }

    /// The process ends by itself: it was fenced.
    pub fn ends(&mut self, index: usize) {
        self.note("ends", index as u64);
        self.nodes[index].process = None;
        self.nodes[index].disk.crash(false, super::disk::Tail::Clean);
        self.at(self.now + RESTART, Event::Start { node: index });
    }

    pub fn tick(&mut self, index: usize) {
        let generation = self.nodes[index].generation;
        self.at(self.now + TICK, Event::Tick { node: index, generation });
        self.keep_connections(index);
        if let Some(leader) = self.quorum.leader
            && self.linked(index, leader)
        {
            // What was missed while the link was cut.
            let upto = self.quorum.committed();
            self.after((0, 5 * MS), Event::Apply { node: index, upto });
        }
        self.go_on_starting(index);
        self.beat(index);
        let now_ms = self.now / MS;
        self.writer_event(index, WriterEvent::Tick { now_ms });
        self.partitions_tick(index);
        self.upload_tick(index);
        self.controller_tick(index);
    }

    fn keep_connections(&mut self, index: usize) {
        for other in (0..NODES).filter(|other| *other != index) {
            let there = self.nodes[other].process.as_ref().map(|_| self.nodes[other].generation);
            let up = there.filter(|_| self.linked(index, other) && self.nodes[other].is_awake());
            let Some(process) = self.nodes[index].process.as_mut() else { return };
            match (process.connections[other], up) {
                (None, Some(generation)) => {
                    process.connections[other] = Some(generation);
                    self.writer_event(index, WriterEvent::Connected { node: node_id(other) });
                    self.offer(index, other);
                }
                (Some(known), _) if there != Some(known) => self.connection_lost(index, other, known),
                _ => {}
            }
        }
    }

    /// Tells the writer that a broker may serve as a replica.
    fn offer(&mut self, index: usize, other: usize) {
        let image = self.image_at(index);
        if let Some(broker) = image.brokers.get(&node_id(other)).filter(|broker| !broker.fenced) {
            let replica = metadata::Replica { node: node_id(other), incarnation: broker.incarnation };
            self.writer_event(index, WriterEvent::NodeUp(replica));
        }
    }

    pub fn connection_lost(&mut self, index: usize, to: usize, receiver: u64) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        if process.connections[to] != Some(receiver) {
            return;
        }
        process.connections[to] = None;
        self.writer_event(index, WriterEvent::Lost { node: node_id(to) });
        self.recoverers_lose(index, node_id(to));
    }

    fn go_on_starting(&mut self, index: usize) {
        let (now, boot) = (self.now, self.nodes[index].disk.boot + 1);
        let replica = self.nodes[index].name();
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let retry = now + 500 * MS;
        match process.phase {
            Phase::Registering { next } if now >= next => {
                process.phase = Phase::Registering { next: retry };
                let (node, endpoints, version) = (replica.node, Vec::new(), String::new());
                let incarnation = replica.incarnation;
                let command = Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms: 0 };
                self.propose(index, command, Ask::Register { boot });
            }
            Phase::Opening { next } if now >= next => {
                let epoch = process.epoch;
                let image = self.image_at(index);
                let own = image.ledgers.values().filter(|l| l.node == replica.node && l.end.is_none());
                // Later: they are being recovered, or what was opened before is found by its refusal.
                if own.clone().any(|ledger| ledger.epoch != epoch) {
                    return;
                }
                let set = self.first_set(index, &image);
                let Some(process) = self.nodes[index].process.as_mut() else { return };
                if set.len() < 2 {
                    return;
                }
                process.phase = Phase::Opening { next: retry };
                let write_quorum = write_quorum(set.len()) as u8;
                let (node, close) = (replica.node, None);
                let open = Command::OpenLedger { node, epoch, replicas: set, write_quorum, close };
                self.propose(index, open, Ask::Open);
            }
            _ => {}
        }
    }

    /// The own WAL and those of the brokers that are connected.
    fn first_set(&self, index: usize, image: &Image) -> Vec<metadata::Replica> {
        let Some(process) = self.nodes[index].process.as_ref() else { return Vec::new() };
        let others = image.brokers.iter().filter(|(node, broker)| {
            !broker.fenced && index_of(**node) != index && process.connections[index_of(**node)].is_some()
        });
        let others = others.map(|(node, b)| metadata::Replica { node: *node, incarnation: b.incarnation });
        [self.nodes[index].name()].into_iter().chain(others).collect()
    }

    fn beat(&mut self, index: usize) {
        let now = self.now;
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        if process.replica.is_none() || now < process.heartbeat_at {
            return;
        }
        process.heartbeat_at = now + HEARTBEAT;
        let epoch = process.epoch;
        if let Some(leader) = self.quorum.leader {
            self.send(index, leader, Message::Heartbeat { epoch, sent: now });
        }
    }

    pub fn told(&mut self, index: usize, ask: Ask, told: Told) {
        match ask {
            Ask::Register { boot } => self.registered(index, boot, told),
            Ask::Open => self.opened(index, told),
            Ask::Close { close } => self.closed(index, close, told),
            Ask::HandOver { partition } => self.handed_over(index, partition, told),
            Ask::Prepare { upload } => self.prepared(index, upload, told),
            Ask::Commit { upload } => self.committed_upload(index, upload, told),
            Ask::Control => self.controlled(index),
            Ask::Confirm { ledger } => self.confirmed(index, ledger, told),
            Ask::SetEnd { ledger, end } => self.end_set(index, ledger, end, told),
        }
    }

    fn registered(&mut self, index: usize, boot: u64, told: Told) {
        let plant = self.bugs.ledger;
        let (now, replica) = (self.now, self.nodes[index].name());
        let node = &mut self.nodes[index];
        let Some(process) = node.process.as_mut() else { return };
        match told {
            Told::Applied(Response::BrokerEpoch(epoch)) if process.replica.is_none() => {
                node.disk.boot = boot;
                process.epoch = epoch;
                process.phase = Phase::Opening { next: now };
                let identity = Identity { node: replica.node, incarnation: replica.incarnation, boot };
                process.replica = Some(Replica::new(identity, node.disk.held(), plant));
                process.lease_until = 0;
                self.tell_account(index);
            }
            Told::Applied(Response::Rejected(Reject::BootCount { recorded, .. })) => {
                // An earlier registration of this process was carried out, and its answer lost.
                node.disk.boot = node.disk.boot.max(recorded);
            }
            _ => {}
        }
    }

    fn opened(&mut self, index: usize, told: Told) {
        let image = self.image_at(index);
        let plant = self.bugs.ledger;
        let own = node_id(index);
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let ledger = match told {
            Told::Applied(Response::Ledger(ledger)) => ledger,
            // Opened by a proposal whose answer was lost.
            Told::Applied(Response::Rejected(Reject::UnsealedLedger(ledger))) => ledger,
            Told::Applied(Response::Rejected(Reject::Fenced { .. } | Reject::StaleBrokerEpoch { .. })) => {
                return self.ends(index);
            }
            _ => return,
        };
        let Some(recorded) = image.ledgers.get(&ledger).filter(|l| l.epoch == process.epoch && l.end.is_none()) else {
            return;
        };
        if process.writer.is_some() {
            return;
        }
        process.phase = Phase::Serving;
        process.writer = Some(Writer::new(options(), own, ledger, &recorded.replicas, plant));
        self.note("opens ledger", ledger.0);
        let now_ms = self.now / MS;
        self.writer_event(index, WriterEvent::Tick { now_ms });
        for other in (0..NODES).filter(|other| *other != index) {
            let connected = self.nodes[index].process.as_ref().is_some_and(|p| p.connections[other].is_some());
            let event = match connected {
                true => WriterEvent::Connected { node: node_id(other) },
                false => WriterEvent::Lost { node: node_id(other) },
            };
            self.writer_event(index, event);
        }
    }

    fn closed(&mut self, index: usize, close: LedgerId, told: Told) {
        let image = self.image_at(index);
        let Some(epoch) = self.nodes[index].process.as_ref().map(|p| p.epoch) else { return };
        let opened = |ledger: LedgerId| match image.ledgers.get(&ledger) {
            Some(open) if open.epoch == epoch && open.node == node_id(index) => {
                Outcome::Opened { ledger, replicas: open.replicas.clone() }
            }
            _ => Outcome::Fenced,
        };
        let outcome = match told {
            Told::NotProposed => Outcome::NotProposed,
            Told::Unknown => Outcome::Unknown,
            Told::Applied(Response::Ledger(ledger)) => opened(ledger),
            Told::Applied(Response::Rejected(Reject::UnsealedLedger(ledger))) => opened(ledger),
            Told::Applied(Response::Rejected(Reject::ReplicaSet(_) | Reject::UnknownBroker(_))) => Outcome::Declined,
            Told::Applied(_) => Outcome::Fenced,
        };
        self.writer_event(index, WriterEvent::Decided { close, outcome });
    }

    /// Applies the log up to `upto`.
    pub fn apply(&mut self, index: usize, upto: usize) {
        if upto <= self.nodes[index].applied || self.nodes[index].away {
            return;
        }
        self.nodes[index].applied = upto;
        self.note("applies", (upto as u64) << 8 | index as u64);
        let image = self.image_at(index);
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        if process.replica.is_none() {
            return;
        }
        let epoch = process.epoch;
        if image.brokers.get(&node_id(index)).is_none_or(|known| known.fenced || known.epoch != epoch) {
            return self.ends(index);
        }
        self.tell_account(index);
        for other in (0..NODES).filter(|other| *other != index) {
            match image.brokers.get(&node_id(other)) {
                Some(broker) if !broker.fenced => {
                    if self.nodes[index].process.as_ref().is_some_and(|p| p.connections[other].is_some()) {
                        self.offer(index, other);
                    }
                }
                _ => self.writer_event(index, WriterEvent::NodeDown(node_id(other))),
            }
        }
        self.follow(index, &image);
    }

    /// Tells the account what the applied metadata say of ledgers.
    fn tell_account(&mut self, index: usize) {
        let image = self.image_at(index);
        let own = self.nodes[index].name();
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let mut events = Vec::new();
        for (id, ledger) in &image.ledgers {
            let told = process.known.get(id).copied();
            if told.is_none() && ledger.end.is_none() && ledger.replicas.contains(&own) {
                events.push(ReplicaEvent::Opened { ledger: *id });
            }
            if ledger.uploaded > told.unwrap_or_default() {
                events.push(ReplicaEvent::Uploaded { ledger: *id, uploaded: ledger.uploaded });
            }
            process.known.insert(*id, ledger.uploaded);
        }
        for held in self.nodes[index].disk.held() {
            // Finished and forgotten.
            if !image.ledgers.contains_key(&held.ledger) && held.ledger.0 < image.next_ledger {
                events.push(ReplicaEvent::Uploaded { ledger: held.ledger, uploaded: held.next });
            }
        }
        for event in events {
            self.replica_event(index, index, event);
        }
    }

    pub fn hears(&mut self, index: usize, from: usize, message: Message) {
        match message {
            Message::Ask { to, request } => {
                if to == self.nodes[index].name() {
                    self.replica_event(index, from, ReplicaEvent::Asked(request));
                } else if let Some(identity) = self.identity(index) {
                    let reply = Reply::Unknown { ledger: ledger_of(&request) };
                    self.send(index, from, Message::Tell { from: identity, reply });
                }
            }
            Message::Tell { from, reply } => {
                let of_seal = matches!(reply, Reply::Sealed { .. } | Reply::SealAnswer { .. });
                if !(of_seal && self.bugs.has(Planted::FenceIgnored)) {
                    self.writer_event(index, WriterEvent::Answered { from, reply });
                }
                self.recoverer_hears(index, from, reply);
            }
            Message::Read { ledger, from: first, below } => {
                let batches = self.nodes[index].disk.read(ledger, first, below);
                self.send(index, from, Message::Entries { ledger, from: first, batches });
            }
            Message::Entries { ledger, from: first, batches } => {
                self.entries_read(index, node_id(from), ledger, first, batches);
            }
            Message::Heartbeat { epoch, sent } => self.heartbeat(index, from, epoch, sent),
            Message::Granted { since, lease } => {
                let Some(process) = self.nodes[index].process.as_mut() else { return };
                match lease {
                    true => process.lease_until = process.lease_until.max(since + LEASE),
                    false => self.ends(index),
                }
            }
        }
    }

    fn identity(&self, index: usize) -> Option<Identity> {
        Some(self.nodes[index].process.as_ref()?.replica.as_ref()?.identity())
    }

    pub fn replica_event(&mut self, index: usize, asker: usize, event: ReplicaEvent<Rc<Batch>>) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        // Before it is registered a process says nothing about ledgers.
        let Some(replica) = process.replica.as_mut() else { return };
        if let ReplicaEvent::Asked(request) = &event {
            process.askers.entry(ledger_of(request)).or_default().insert(asker);
        }
        let identity = replica.identity();
        for action in replica.step(event) {
            match action {
                ReplicaAction::Write { ledger, entry, payload } => self.nodes[index].disk.write(ledger, entry, payload),
                ReplicaAction::Seal { ledger } => self.nodes[index].disk.seal(ledger),
                ReplicaAction::Trim { ledger, below } => self.nodes[index].disk.trim(ledger, below),
                ReplicaAction::Reply(reply) => self.send(index, asker, Message::Tell { from: identity, reply }),
                ReplicaAction::Announce(reply) => self.announce(index, identity, reply),
            }
        }
        self.begin_sync(index);
    }

    fn announce(&mut self, index: usize, from: Identity, reply: Reply) {
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        let askers: Vec<usize> = process.askers.get(&reply.ledger()).into_iter().flatten().copied().collect();
        for asker in askers {
            self.send(index, asker, Message::Tell { from, reply });
        }
    }

    fn begin_sync(&mut self, index: usize) {
        let (generation, slowest) = (self.nodes[index].generation, self.nodes[index].sync);
        let pending = self.nodes[index].disk.is_pending();
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        if pending && !process.syncing {
            process.syncing = true;
            let at = self.now + slowest + self.rng.range(0, 3_000);
            self.at(at, Event::Synced { node: index, generation });
        }
    }

    pub fn synced(&mut self, index: usize) {
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.syncing = false;
        }
        let Synced { moved, sealed } = self.nodes[index].disk.sync();
        self.note("synced", index as u64);
        for (ledger, next) in moved {
            self.replica_event(index, index, ReplicaEvent::Synced { ledger, next });
        }
        for (ledger, answer) in sealed {
            self.replica_event(index, index, ReplicaEvent::Sealed { ledger, answer });
        }
        self.begin_sync(index);
    }

    pub fn writer_event(&mut self, index: usize, event: WriterEvent) {
        let Some(writer) = self.nodes[index].process.as_mut().and_then(|p| p.writer.as_mut()) else { return };
        let actions = writer.step(event);
        self.writer_actions(index, actions);
    }

    pub fn writer_actions(&mut self, index: usize, actions: Vec<WriterAction<Rc<Batch>>>) {
        for action in actions {
            match action {
                WriterAction::Send { to, request } if to.node == node_id(index) => {
                    self.replica_event(index, index, ReplicaEvent::Asked(request));
                }
                WriterAction::Send { to, request } => {
                    self.send(index, index_of(to.node), Message::Ask { to, request });
                }
                WriterAction::Durable { ledger, below } => self.durable(index, ledger, below),
                WriterAction::Propose { close, end, replicas } => {
                    let Some(epoch) = self.nodes[index].process.as_ref().map(|p| p.epoch) else { return };
                    let (node, write_quorum) = (node_id(index), write_quorum(replicas.len()) as u8);
                    let close_at = Some((close, end));
                    let command = Command::OpenLedger { node, epoch, replicas, write_quorum, close: close_at };
                    self.note("replaces", close.0);
                    self.propose(index, command, Ask::Close { close });
                }
                WriterAction::Moved { opened, .. } => {
                    self.note("moves to ledger", opened.0);
                    if let Some(process) = self.nodes[index].process.as_mut() {
                        process.durable = EntryId(0);
                    }
                }
                WriterAction::Fenced { .. } => return self.ends(index),
                WriterAction::Backpressure(_) => {}
            }
        }
    }
}

fn ledger_of<P>(request: &Request<P>) -> LedgerId {
    match request {
        Request::Append { ledger, .. } | Request::Seal { ledger } | Request::Recover { ledger, .. } => *ledger,
    }
}

pub fn partition_id(partition: usize) -> PartitionId {
    PartitionId { topic: TOPIC, index: partition as i32 }
}
