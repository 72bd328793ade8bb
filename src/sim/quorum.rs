//! The metadata: one log of commands, a leader that comes and goes, and nodes that apply it each at its own pace.
//!
//! This is what Raft promises, not Raft: `quorum/sim` runs that. A command is committed by a leader that reaches a
//! majority; who proposed it may learn of that, or not, or be told that it never was; and one that nobody was told about
//! may still be committed later.

use std::rc::Rc;

use crate::metadata::{self, Command, Image, MemoryIndex, Response};

use super::node::Ask;
use super::world::{Event, World};
use super::{MS, Micros, NODES};

/// A leader that has not reached a majority for so long leads no more.
const LEADER_LEASE: Micros = 700 * MS;
/// For so long after it has reached a majority a leader's own broker answers clients.
const OWN_LEASE: Micros = 600 * MS;

pub struct Quorum {
    image: Image,
    index: MemoryIndex,
    /// After so many commands.
    pub images: Vec<Rc<Image>>,
    pub leader: Option<usize>,
    /// The leader's process.
    generation: u64,
    /// When the leader last reached a majority.
    pub contact: Micros,
    pub leads_since: Micros,
    /// Who led before, and since when.
    pub predecessor: Option<(usize, Micros)>,
    /// When somebody stands, if the leader stays away.
    patience: Micros,
    pub elections: u64,
    /// Proposals on their way, with their proposers.
    held: Vec<(usize, u64, Command)>,
}

/// What a proposer is told.
pub enum Told {
    /// The node has applied so many commands.
    Applied(Response),
    NotProposed,
    Unknown,
}

impl Quorum {
    pub fn new() -> Quorum {
        let image = Image::default();
        let images = vec![Rc::new(image.clone())];
        let index = MemoryIndex::default();
        let (leader, generation, contact, leads_since, patience, elections) = (None, 0, 0, 0, 0, 0);
        let predecessor = None;
        Quorum {
            image,
            index,
            images,
            leader,
            generation,
            contact,
            leads_since,
            predecessor,
            patience,
            elections,
            held: Vec::new(),
        }
    }

    pub fn commit(&mut self, command: &Command) -> Response {
        let (response, ops) = metadata::apply(&mut self.image, command, &self.index);
        self.index.apply(&ops);
        self.images.push(Rc::new(self.image.clone()));
        response
    }

    pub fn newest(&self) -> &Rc<Image> {
        &self.images[self.images.len() - 1]
    }

    /// Commands committed.
    pub fn committed(&self) -> usize {
        self.images.len() - 1
    }
}

impl World {
    /// Whether the node's process runs and hears: it reaches, in both directions, a majority.
    fn reaches_majority(&self, node: usize) -> bool {
        let with = |other: usize| other == node || self.linked(node, other);
        (0..NODES).filter(|other| self.nodes[*other].is_awake() && with(*other)).count() > NODES / 2
    }

    /// Whether the leader can commit now.
    pub fn leader_works(&self) -> Option<usize> {
        let leader = self.quorum.leader?;
        let same = self.nodes[leader].generation == self.quorum.generation;
        (self.nodes[leader].is_awake() && same && self.reaches_majority(leader)).then_some(leader)
    }

    /// What `Quorum::leads` says on a node: nobody else can have been elected.
    pub fn leads(&self, node: usize) -> bool {
        let own = self.quorum.leader == Some(node) && self.nodes[node].generation == self.quorum.generation;
        own && self.now < self.quorum.contact + LEADER_LEASE
    }

    /// Looks whether the leader is there, and has another elected when it has been away for long.
    pub fn quorum_tick(&mut self) {
        if let Some(leader) = self.leader_works() {
            self.quorum.contact = self.now;
            if let Some(process) = self.nodes[leader].process.as_mut() {
                process.lease_until = process.lease_until.max(self.now + OWN_LEASE);
            }
            self.quorum.patience = self.now + LEADER_LEASE + self.rng.range(100, 900) * MS;
        } else if self.now >= self.quorum.patience {
            let able: Vec<usize> =
                (0..NODES).filter(|n| self.nodes[*n].is_awake() && self.reaches_majority(*n)).collect();
            if !able.is_empty() {
                let next = able[self.rng.range(0, able.len() as u64 - 1) as usize];
                self.quorum.predecessor = self.quorum.leader.map(|leader| (leader, self.quorum.leads_since));
                self.quorum.leader = Some(next);
                self.quorum.generation = self.nodes[next].generation;
                (self.quorum.contact, self.quorum.leads_since) = (self.now, self.now);
                self.quorum.elections += 1;
                self.note("leads", next as u64);
            }
        }
        self.at(self.now + 40 * MS, Event::QuorumTick);
    }

    /// Proposes a command for the process of a node, which is told what came of it as the answer to `ask`.
    pub fn propose(&mut self, node: usize, command: Command, ask: Ask) {
        let generation = self.nodes[node].generation;
        let at = self.now + self.rng.range(300, 3_000);
        self.at(at, Event::Proposal { node, generation, command, ask: Some(ask) });
    }

    pub fn proposal(&mut self, node: usize, generation: u64, command: Command, ask: Option<Ask>) {
        if matches!(ask, Some(Ask::HandOver { .. })) && self.rng.range(0, 2) == 0 {
            return self.hold_up(node, generation, command, ask);
        }
        let leader = self.leader_works().filter(|leader| ask.is_none() || self.linked(node, *leader));
        let Some(leader) = leader else {
            // Nobody took it, or somebody did who will carry it out when nobody waits for it any more.
            let (told, at) = match self.rng.range(0, 9) {
                0..=4 => (Told::NotProposed, self.now + 100 * MS),
                _ => (Told::Unknown, self.now + 400 * MS),
            };
            if matches!(told, Told::Unknown) && self.rng.range(0, 2) == 0 {
                let late = self.now + self.rng.range(100, 3_000) * MS;
                self.at(late, Event::Proposal { node, generation, command, ask: None });
            }
            if let Some(ask) = ask {
                self.at(at, Event::Told { node, generation, ask, told });
            }
            return;
        };
        let response = self.quorum.commit(&command);
        if response == Response::Ok {
            self.upload_commits(&command);
            self.let_go(leader, &command);
        }
        let kind = format!("{command:?}");
        let kind = kind.split([' ', '{', '(']).next().unwrap_or_default();
        let fine = if matches!(response, Response::Rejected(_)) { "refused" } else { "commits" };
        self.note(&format!("{fine} {kind}"), self.quorum.committed() as u64);
        for other in 0..NODES {
            if other == leader || self.linked(leader, other) {
                let at = self.now + self.rng.range(200, 8_000);
                self.at(at, Event::Apply { node: other, upto: self.quorum.committed() });
            }
        }
        let Some(ask) = ask else { return };
        let lost = !self.linked(leader, node) || self.rng.range(0, 60) == 0;
        let (told, at) = match lost {
            true => (Told::Unknown, self.now + 400 * MS),
            false => (Told::Applied(response), self.now + self.rng.range(300, 9_000)),
        };
        if let Told::Applied(_) = told {
            self.at(at, Event::Apply { node, upto: self.quorum.committed() });
        }
        self.at(at, Event::Told { node, generation, ask, told });
    }

    /// Somebody passes a hand-over on so slowly that its proposer goes on meanwhile.
    fn hold_up(&mut self, node: usize, generation: u64, command: Command, ask: Option<Ask>) {
        self.note("held up", node as u64);
        self.quorum.held.push((node, generation, command));
        if let Some(ask) = ask {
            self.at(self.now + 400 * MS, Event::Told { node, generation, ask, told: Told::Unknown });
        }
    }

    /// What was held up comes when it may do harm: when the wish was just made again, and its proposer may not hear of either.
    fn let_go(&mut self, leader: usize, committed: &Command) {
        let Command::SetTargets { changes } = committed else { return };
        let wished = |command: &Command| match command {
            Command::HandOver { partition, .. } => {
                changes.iter().any(|change| change.partition == *partition && change.target.is_some())
            }
            _ => false,
        };
        let held = std::mem::take(&mut self.quorum.held);
        let (due, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|(_, _, command)| wished(command));
        self.quorum.held = held;
        for (node, generation, command) in due {
            let at = self.now + self.rng.range(100, 1_000);
            self.at(at, Event::Proposal { node, generation, command, ask: None });
            if self.rng.range(0, 1) == 0 {
                self.cut_off(leader, node);
            }
        }
    }

    /// Asks for everything that is committed by now (a linearizable read).
    pub fn barrier(&mut self, node: usize, ask: Ask) {
        let generation = self.nodes[node].generation;
        let reached = self.leader_works().is_some_and(|leader| self.linked(node, leader));
        if reached {
            let at = self.now + self.rng.range(300, 4_000);
            self.at(at, Event::Apply { node, upto: self.quorum.committed() });
            self.at(at, Event::Told { node, generation, ask, told: Told::Applied(Response::Ok) });
        } else {
            self.at(self.now + 200 * MS, Event::Told { node, generation, ask, told: Told::NotProposed });
        }
    }
}
