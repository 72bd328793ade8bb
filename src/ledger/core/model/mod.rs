//! The three roles in a world of three nodes, explored exhaustively within bounds.
//!
//! The model runs the cores themselves and the metadata's own `apply`; what it adds is disks, a network, faults, and a
//! memory of what was promised. A [`World`] is one state; [`World::steps`] are all the events that may come next.
//!
//! **Fewer states.** What commutes is not explored in every order: once no crash is left, a replica syncs what it takes at
//! once (what it says about that may still be late), and what a recoverer reads or asks of the metadata comes at once.
//! The two replicas are alike, so the bounds of a scenario name which one fails.
//!
//! **Network.** A message, once sent, stays: it may arrive at any time, any number of times, in any order, or never. That is
//! loss, repetition and reordering at once. Only what could change nothing any more is taken away (`net`).
//!
//! **Disks.** What is written is synced by a step of its own, all that is pending on a node at once; a crash loses what
//! is pending. A crash may leave a torn tail, so that the node is uncertain about it. A disk may be lost (the node comes back
//! with another incarnation, empty), may rot (a synced entry is cut with a tail that looks torn), and a copy of the WAL from
//! before the ledger was opened may be started without asking anybody.
//!
//! **Processes.** A writer may be fenced while it goes on in its belief; recoverers are processes of their own and may stop
//! anywhere (then no further step of them is taken). Proposals to the metadata may be carried out at any time
//! after they were made, with the answer lost.
//!
//! **What must hold** is in `check`; the bounds of each exploration, and the planted bugs, in `scenarios`.

mod check;
mod disk;
mod explore;
mod net;
mod scenarios;
mod steps;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::base::{BrokerEpoch, ClusterId, EntryId, LedgerId, NodeId, WalIncarnation};
use crate::metadata::{self, Command, Image, IndexOp, MemoryIndex, Response};

use super::plant::{Bug, Plant};
use super::{
    Held, Identity, Recovery, RecoveryAction, RecoveryEvent, Registered, Replica, ReplicaAction, ReplicaEvent, Reply,
    Request, Writer, WriterAction, WriterEvent, WriterOptions, write_quorum,
};
use disk::Disk;
use net::Packet;

/// The writer's node; the others are its replicas and run the recoverers.
const WRITER: usize = 0;

/// How often each event may happen in one history, and what else bounds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Budget {
    appends: u8,
    /// A writer is told that the connection to a replica is gone.
    lost_connections: u8,
    /// A node that is no member is said to be up.
    spares: u8,
    crashes: u8,
    /// Crashes may leave a torn tail.
    torn: bool,
    /// A crash that cuts a synced entry with what looks like a torn tail.
    rot: u8,
    disk_losses: u8,
    old_copies: u8,
    /// The writer is fenced though it lives.
    fences: u8,
    recoverers: u8,
    uploads: u8,
    /// A later process of the writer's node may open its own ledger.
    successors: u8,
    /// Proposals whose outcome the writer is not told, or is told was never proposed.
    unsure: u8,
    /// The nodes that may crash, lose their disk or be copied. The two that do not write are alike, so of one fault only
    /// one of them need suffer.
    faulty: [bool; 3],
    /// The replica whose connection the writer may lose, for the same reason.
    unreachable: usize,
}

/// Metadata: the real image. Its stored form is its identity.
#[derive(Clone)]
struct Meta {
    image: Image,
    digest: u64,
}

impl PartialEq for Meta {
    fn eq(&self, other: &Meta) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Meta {}

impl Hash for Meta {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    identity: Identity,
    disk: Disk,
    /// While it runs.
    account: Option<Replica>,
}

/// A process that writes ledgers.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Process {
    epoch: BrokerEpoch,
    alive: bool,
    writer: Writer<u8>,
    /// Appended and not acknowledged, under the number that it has now.
    waiting: Vec<(LedgerId, EntryId, u8)>,
}

/// A recoverer.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Attempt {
    ledger: LedgerId,
    core: Recovery,
}

/// What was promised, and what nobody in the world can see.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Ghost {
    /// Every entry that was acknowledged, and so became readable.
    acknowledged: BTreeMap<(LedgerId, EntryId), u8>,
    ends: BTreeMap<LedgerId, EntryId>,
    objects: BTreeMap<(LedgerId, EntryId), u8>,
    uploaded: BTreeMap<LedgerId, EntryId>,
    /// The first promise that was broken.
    broken: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    meta: Rc<Meta>,
    nodes: Vec<Rc<Node>>,
    processes: Vec<Rc<Process>>,
    attempts: Vec<Rc<Attempt>>,
    net: Vec<Packet>,
    left: Budget,
    ghost: Rc<Ghost>,
    next_value: u8,
    plant: Plant,
}

fn node_id(index: usize) -> NodeId {
    NodeId(index as i32 + 1)
}

fn index_of(node: NodeId) -> usize {
    (node.0 - 1) as usize
}

fn options() -> WriterOptions {
    // Time plays no part here: whatever a clock would bring about is a step.
    WriterOptions { replicas: 3, window_bytes: 1000, lag_bytes: 1000, lag_ms: 1, gone_ms: 0, retry_ms: 0 }
}

impl World {
    /// Three registered nodes and a writer on the first, whose ledger is open on `members` of them.
    fn new(members: usize, left: Budget, plant: Plant) -> World {
        let meta = Meta { image: Image::default(), digest: 0 };
        let mut world = World {
            meta: Rc::new(meta),
            nodes: Vec::new(),
            processes: Vec::new(),
            attempts: Vec::new(),
            net: Vec::new(),
            left,
            ghost: Rc::default(),
            next_value: 1,
            plant,
        };
        world.propose(&Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 });
        for index in 0..3 {
            let incarnation = WalIncarnation([index as u8 + 1; 16]);
            let identity = Identity { node: node_id(index), incarnation, boot: 1 };
            world.nodes.push(Rc::new(Node { identity, disk: Disk::default(), account: None }));
            world.register(index, incarnation, 1);
            world.start(index);
        }
        world.open_ledger(members);
        world
    }

    /// Carries a command out. What it says about the index of objects is no part of this model.
    fn propose(&mut self, command: &Command) -> Response {
        let meta = Rc::make_mut(&mut self.meta);
        let (response, _) = metadata::apply(&mut meta.image, command, &MemoryIndex::default());
        self.metadata_changed();
        response
    }

    /// Prepares an object and commits it as an upload of these entries.
    fn commit_upload(&mut self, command: &Command) -> bool {
        let Command::CommitUpload { node, epoch, now_ms, .. } = command else { return false };
        let (node, epoch, now_ms) = (*node, *epoch, *now_ms);
        let meta = Rc::make_mut(&mut self.meta);
        let mut index = MemoryIndex::default();
        meta.image.next_object = 1;
        let prepare = Command::PrepareObjects { node, epoch, count: 1, now_ms };
        let (_, ops): (_, Vec<IndexOp>) = metadata::apply(&mut meta.image, &prepare, &index);
        index.apply(&ops);
        let (response, _) = metadata::apply(&mut meta.image, command, &index);
        self.metadata_changed();
        response == Response::Ok
    }

    fn metadata_changed(&mut self) {
        let meta = Rc::make_mut(&mut self.meta);
        (meta.image.applied, meta.image.next_object) = (0, 1);
        let mut hasher = explore::Digest::default();
        hasher.write(&meta.image.encode());
        meta.digest = hasher.finish();
        let ghost = Rc::make_mut(&mut self.ghost);
        for (id, ledger) in &meta.image.ledgers {
            check::note_ledger(ghost, *id, ledger);
        }
    }

    /// Registers a process of the node; false when it is refused.
    fn register(&mut self, index: usize, incarnation: WalIncarnation, boot: u64) -> bool {
        let node = node_id(index);
        let (endpoints, version) = (Vec::new(), String::new());
        let command = Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms: 0 };
        matches!(self.propose(&command), Response::BrokerEpoch(_))
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        Rc::make_mut(&mut self.nodes[index])
    }

    /// Starts the process of a node on what its disk holds.
    fn start(&mut self, index: usize) {
        let plant = self.plant;
        let open = self.open_ledgers(index);
        let node = self.node_mut(index);
        let mut account = Replica::new(node.identity, node.disk.held(), plant);
        for ledger in open {
            account.step::<u8>(ReplicaEvent::Opened { ledger });
        }
        node.account = Some(account);
    }

    /// The open ledgers of which the node's WAL is a replica.
    fn open_ledgers(&self, index: usize) -> Vec<LedgerId> {
        let Identity { node, incarnation, .. } = self.nodes[index].identity;
        let own = metadata::Replica { node, incarnation };
        let open = self.meta.image.ledgers.iter().filter(|(_, l)| l.end.is_none() && l.replicas.contains(&own));
        open.map(|(id, _)| *id).collect()
    }

    /// Tells every running node which ledgers are open there. That they are closed is never told: the most that a node which
    /// lags behind could get wrong.
    fn list_ledgers(&mut self) {
        for index in 0..self.nodes.len() {
            for ledger in self.open_ledgers(index) {
                if let Some(account) = &mut self.node_mut(index).account {
                    account.step::<u8>(ReplicaEvent::Opened { ledger });
                }
            }
        }
    }

    fn epoch(&self, index: usize) -> BrokerEpoch {
        self.meta.image.brokers[&node_id(index)].epoch
    }

    /// Opens a ledger for the present process of the writer's node on the first `members` nodes.
    fn open_ledger(&mut self, members: usize) -> bool {
        let epoch = self.epoch(WRITER);
        let replicas: Vec<metadata::Replica> = (0..members)
            .map(|index| metadata::Replica {
                node: node_id(index),
                incarnation: self.meta.image.brokers[&node_id(index)].incarnation,
            })
            .collect();
        let write_quorum = write_quorum(members) as u8;
        let (node, close) = (node_id(WRITER), None);
        let command = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum, close };
        let Response::Ledger(ledger) = self.propose(&command) else { return false };
        self.list_ledgers();
        let writer = Writer::new(options(), node, ledger, &replicas, self.plant);
        self.processes.push(Rc::new(Process { epoch, alive: true, writer, waiting: Vec::new() }));
        true
    }

    /// The brokers as the metadata have them; those are alive whose process runs.
    fn registered(&self) -> Vec<Registered> {
        let registered = |(node, broker): (&NodeId, &metadata::Broker)| Registered {
            identity: Identity { node: *node, incarnation: broker.incarnation, boot: broker.boot },
            alive: self.nodes[index_of(*node)].account.is_some(),
        };
        self.meta.image.brokers.iter().map(registered).collect()
    }
}
