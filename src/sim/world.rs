//! The queue of events, the network, and what happens next.

use std::collections::BTreeMap;

use crate::base::NodeId;

use super::client::{Producer, Reader};
use super::faults::Faults;
use super::node::{Ask, Message, Node};
use super::oracle::Oracle;
use super::quorum::{Quorum, Told};
use super::upload::Store;
use super::{Bugs, MS, Micros, NODES, PARTITIONS};
use crate::metadata::Command;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `from..=to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }
}

pub enum Event {
    QuorumTick,
    Proposal {
        node: usize,
        generation: u64,
        command: Command,
        ask: Option<Ask>,
    },
    Apply {
        node: usize,
        upto: usize,
    },
    Told {
        node: usize,
        generation: u64,
        ask: Ask,
        told: Told,
    },
    /// A message arrives, if the connection that it was sent on still is one.
    Arrives {
        from: usize,
        sender: u64,
        to: usize,
        receiver: u64,
        message: Message,
    },
    /// A process learns that its connection to another is gone.
    ConnectionLost {
        node: usize,
        generation: u64,
        to: usize,
        receiver: u64,
    },
    Synced {
        node: usize,
        generation: u64,
    },
    Tick {
        node: usize,
        generation: u64,
    },
    Start {
        node: usize,
    },
    /// The object store has an object, or has not.
    Stored {
        node: usize,
        generation: u64,
        upload: u64,
        stored: bool,
    },
    Produce {
        partition: usize,
    },
    Read {
        partition: usize,
    },
    /// What a client sent arrives at a node, and what a node says at a client.
    Request {
        node: usize,
        request: super::client::Request,
    },
    Response {
        response: super::client::Response,
    },
    Fault,
    Mend {
        fault: u64,
    },
}

pub struct World {
    pub now: Micros,
    pub rng: Rng,
    queue: BTreeMap<(Micros, u64), Event>,
    order: u64,
    pub quorum: Quorum,
    pub nodes: Vec<Node>,
    /// By sender and receiver: when the last message arrives, so that none overtakes another.
    arrivals: [[Micros; NODES]; NODES],
    pub faults: Faults,
    pub producers: Vec<Producer>,
    pub readers: Vec<Reader>,
    pub store: Store,
    pub oracle: Oracle,
    pub bugs: Bugs,
    /// A hash over all events.
    trace: u64,
    pub events: u64,
    pub log: Option<Vec<String>>,
    next_generation: u64,
}

pub fn node_id(index: usize) -> NodeId {
    NodeId(index as i32 + 1)
}

pub fn index_of(node: NodeId) -> usize {
    (node.0 - 1) as usize
}

impl World {
    pub fn new(seed: u64, bugs: Bugs) -> World {
        let mut world = World {
            now: 0,
            rng: Rng(seed),
            queue: BTreeMap::new(),
            order: 0,
            quorum: Quorum::new(),
            nodes: (0..NODES).map(Node::new).collect(),
            arrivals: Default::default(),
            faults: Faults::default(),
            producers: (0..PARTITIONS).map(Producer::new).collect(),
            readers: (0..PARTITIONS).map(Reader::new).collect(),
            store: Store::default(),
            oracle: Oracle::default(),
            bugs,
            trace: 0xcbf2_9ce4_8422_2325,
            events: 0,
            log: None,
            next_generation: 1,
        };
        world.make_cluster();
        world.at(0, Event::QuorumTick);
        for node in 0..NODES {
            let at = world.rng.range(0, 200) * MS;
            world.at(at, Event::Start { node });
        }
        for partition in 0..PARTITIONS {
            world.at(500 * MS, Event::Produce { partition });
            world.at(500 * MS, Event::Read { partition });
        }
        world.at(1_500 * MS, Event::Fault);
        world
    }

    pub fn at(&mut self, time: Micros, event: Event) {
        self.order += 1;
        self.queue.insert((time.max(self.now), self.order), event);
    }

    /// At a time between the two from now.
    pub fn after(&mut self, (from, to): (Micros, Micros), event: Event) {
        let time = self.now + self.rng.range(from, to);
        self.at(time, event);
    }

    pub fn new_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }

    /// Puts what happens into the trace.
    pub fn note(&mut self, what: &str, about: u64) {
        for byte in what.bytes().chain(about.to_be_bytes()).chain(self.now.to_be_bytes()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9}.{:03} {what} {about}", self.now / MS, self.now % MS));
        }
    }

    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Runs until `end`, or until a promise is broken.
    pub fn run_until(&mut self, end: Micros) {
        while self.oracle.broken.is_none()
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            self.events += 1;
            self.happens(event);
        }
        self.now = self.now.max(end);
    }

    fn happens(&mut self, event: Event) {
        // A stopped process does nothing; what concerns it waits until it goes on.
        if let Some(node) = concerned(&event)
            && self.nodes[node].stopped_until.is_some()
        {
            return self.nodes[node].asleep.push(event);
        }
        match event {
            Event::QuorumTick => self.quorum_tick(),
            Event::Proposal { node, generation, command, ask } => self.proposal(node, generation, command, ask),
            Event::Apply { node, upto } => self.apply(node, upto),
            Event::Told { node, generation, ask, told } if self.runs(node, generation) => self.told(node, ask, told),
            Event::Arrives { from, sender, to, receiver, message } => {
                self.arrives(from, sender, to, receiver, message);
            }
            Event::ConnectionLost { node, generation, to, receiver } if self.runs(node, generation) => {
                self.connection_lost(node, to, receiver);
            }
            Event::Synced { node, generation } if self.runs(node, generation) => self.synced(node),
            Event::Tick { node, generation } if self.runs(node, generation) => self.tick(node),
            Event::Start { node } => self.start(node),
            Event::Stored { node, generation, upload, stored } if self.runs(node, generation) => {
                self.stored(node, upload, stored);
            }
            Event::Produce { partition } => self.produce(partition),
            Event::Read { partition } => self.read(partition),
            Event::Request { node, request } => self.request(node, request),
            Event::Response { response } => self.response(response),
            Event::Fault => self.fault(),
            Event::Mend { fault } => self.mend(fault),
            // Of a process that is gone.
            _ => {}
        }
    }

    /// A stopped process goes on: everything that waited for it happens now, in order.
    pub fn wake(&mut self, node: usize) {
        for event in std::mem::take(&mut self.nodes[node].asleep) {
            self.at(self.now, event);
        }
    }

    pub fn runs(&self, node: usize, generation: u64) -> bool {
        self.nodes[node].process.is_some() && self.nodes[node].generation == generation
    }

    /// Both directions between two nodes.
    pub fn linked(&self, one: usize, other: usize) -> bool {
        one == other || (!self.faults.cut[one][other] && !self.faults.cut[other][one])
    }

    /// Sends on the connection that stands; without one the message is gone.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let sender = self.nodes[from].generation;
        if from == to {
            return self.at(self.now, Event::Arrives { from, sender, to, receiver: sender, message });
        }
        let Some(receiver) = self.nodes[from].process.as_ref().and_then(|p| p.connections[to]) else { return };
        let at = (self.now + self.rng.range(100, 2_000)).max(self.arrivals[from][to]);
        self.arrivals[from][to] = at;
        self.at(at, Event::Arrives { from, sender, to, receiver, message });
    }

    fn arrives(&mut self, from: usize, sender: u64, to: usize, receiver: u64, message: Message) {
        // An answer comes back on the connection of who asked.
        let stands = self.runs(to, receiver) && self.nodes[from].generation == sender;
        if stands && (from == to || !self.faults.cut[from][to]) {
            return self.hears(to, from, message);
        }
        if from != to && self.runs(from, sender) {
            let at = self.now + self.rng.range(1, 400) * MS;
            self.at(at, Event::ConnectionLost { node: from, generation: sender, to, receiver });
        }
    }
}

fn concerned(event: &Event) -> Option<usize> {
    match event {
        Event::Apply { node, .. }
        | Event::Told { node, .. }
        | Event::ConnectionLost { node, .. }
        | Event::Synced { node, .. }
        | Event::Tick { node, .. }
        | Event::Stored { node, .. }
        | Event::Request { node, .. } => Some(*node),
        Event::Arrives { to, .. } => Some(*to),
        _ => None,
    }
}
