//! The writer of the ledgers of one broker epoch: one open ledger at a time, and what is on its way to the replicas.
//!
//! - An entry gets its number when it is appended and goes to every replica, the own WAL among them. It is durable when
//!   the own WAL and `w` replicas in all have synced it. Durable moves up, in order, and is said once.
//! - A replica that fails or is too slow is replaced: one command closes the ledger L1 at `e`, its first entry that is not
//!   durable, and opens L2 with another set. From its proposal on nothing of L1 becomes durable any more, whoever answers:
//!   the command may be carried out at any time. It is given up only when it certainly was not proposed. Nothing of L2 is
//!   sent before the metadata have answered. Then everything from `e` on is sent as L2's entries 0, 1, …: who waited for
//!   (L1, k) waits for (L2, k − e). What replicas of L1 hold from `e` on is void.
//! - With no spare the set shrinks, never below two unless the writer was alone from the start, or one of two nodes is left. With fewer left the writer
//!   stays in its set and goes on trying. A spare that comes later makes the set larger again, in the same way.
//! - A node that is to hold nothing leaves the set in the same way, whether or not another takes its place; but where there
//!   would be no second copy without it, it stays, or is taken, until there is one.
//! - A replica that says *sealed* says that this process is fenced: it acknowledges nothing any more, and the same if the
//!   metadata refuse its epoch.
//! - Who wants more copies than `w` waits for [`Writer::copied`], which follows durable and is never ahead of it.
//! - Entries are kept until they are durable and every replica that can still catch up has synced them, at most
//!   `window_bytes`. A replica that keeps more than `lag_bytes` of durable entries waiting, or makes no headway for
//!   `lag_ms`, is replaced.

mod member;
mod replace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::{EntryId, LedgerId, NodeId, WalIncarnation};
use crate::metadata;

use super::plant::{Bug, Plant};
use super::{Identity, Payload, Reply, Request, write_quorum};
use member::{Lost, Member, Standing};
use replace::Closing;

pub use replace::Outcome;

/// What an operator or a driver decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriterOptions {
    /// Members that a set should have: the own WAL and its copies.
    pub replicas: usize,
    /// Of entries kept to be sent again; above it appends are refused.
    pub window_bytes: usize,
    /// Of durable entries that one replica may keep from being let go. Below `window_bytes`, or a slow replica would
    /// stop the producers before it is replaced.
    pub lag_bytes: usize,
    /// Milliseconds without headway after which a replica is replaced.
    pub lag_ms: u64,
    /// Milliseconds for which a connection may be gone before its replica is replaced.
    pub gone_ms: u64,
    /// Milliseconds between proposals that came to nothing.
    pub retry_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterEvent {
    /// A replica answered, or announced something.
    Answered {
        from: Identity,
        reply: Reply,
    },
    /// The connection to a replica is gone.
    Lost {
        node: NodeId,
    },
    /// There is a connection to a replica (again); what was under way on an earlier one may be lost.
    Connected {
        node: NodeId,
    },
    /// A broker is registered, alive and reachable: it may serve as a replica.
    NodeUp(metadata::Replica),
    NodeDown(NodeId),
    /// What came of a [`WriterAction::Propose`] that closes this ledger.
    Decided {
        close: LedgerId,
        outcome: Outcome,
    },
    /// Milliseconds of a clock that only goes forward.
    Tick {
        now_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterAction<P> {
    /// To the node, and to this incarnation of its WAL only.
    Send { to: metadata::Replica, request: Request<P> },
    /// Every entry of the ledger below `below` is durable. In order, and never for a ledger that a `Moved` has left.
    Durable { ledger: LedgerId, below: EntryId },
    /// Propose `OpenLedger` for these replicas, closing `close` at `end`. One answer is expected.
    Propose { close: LedgerId, end: EntryId, replicas: Vec<metadata::Replica> },
    /// Entry `end + i` of `closed` is now entry `i` of `opened`.
    Moved { closed: LedgerId, end: EntryId, opened: LedgerId },
    /// This process is not the writer any more: what is not durable by now never will be.
    Fenced { reason: &'static str },
    /// Appends are refused, or taken again.
    Backpressure(bool),
}

impl<P> WriterAction<P> {
    /// Whether it is a message to `node`.
    pub fn is_for(&self, node: NodeId) -> bool {
        matches!(self, WriterAction::Send { to, .. } if to.node == node)
    }
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// To be tried again when backpressure ends.
    #[error("{bytes} bytes wait for replicas already")]
    Full { bytes: usize },
    #[error("this process is not the writer any more")]
    Fenced,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Open,
    /// A command that closes the ledger may be on its way.
    Closing(Closing),
    Fenced,
}

/// The writer. Invariants: `first ≤ durable ≤ next`; `entries` are those from `first` on, all up to `next`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer<P> {
    options: WriterOptions,
    own: NodeId,
    ledger: LedgerId,
    write_quorum: usize,
    members: Vec<Member>,
    /// Brokers that may serve, members included.
    up: BTreeMap<NodeId, WalIncarnation>,
    /// Of those, the ones that are to hold nothing: taken only where there would be no second copy without them.
    leaving: BTreeSet<NodeId>,
    /// The number of a node's rack, where it is known.
    racks: BTreeMap<NodeId, u32>,
    /// The metadata would take a set of the own WAL alone.
    may_be_alone: bool,
    entries: VecDeque<P>,
    bytes: usize,
    first: EntryId,
    durable: EntryId,
    state: State,
    pressed: bool,
    now_ms: u64,
    /// No proposal before.
    retry_at_ms: u64,
    plant: Plant,
}

impl<P: Payload> Writer<P> {
    /// Begins `ledger`, which the metadata have just opened for this process with these replicas, `own` among them.
    pub fn new(
        options: WriterOptions,
        own: NodeId,
        ledger: LedgerId,
        replicas: &[metadata::Replica],
        plant: Plant,
    ) -> Writer<P> {
        let zero = EntryId(0);
        Writer {
            options,
            own,
            ledger,
            write_quorum: write_quorum(replicas.len()),
            members: replicas.iter().map(|replica| Member::new(*replica, 0)).collect(),
            up: replicas.iter().map(|replica| (replica.node, replica.incarnation)).collect(),
            leaving: BTreeSet::new(),
            racks: BTreeMap::new(),
            may_be_alone: false,
            entries: VecDeque::new(),
            bytes: 0,
            first: zero,
            durable: zero,
            state: State::Open,
            pressed: false,
            now_ms: 0,
            retry_at_ms: 0,
            plant,
        }
    }

    pub fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// Entries of the open ledger below are durable.
    pub fn durable(&self) -> EntryId {
        self.durable
    }

    pub fn is_fenced(&self) -> bool {
        self.state == State::Fenced
    }

    /// A command that closes the open ledger may be on its way.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    /// The replica set of the open ledger, in the order in which the metadata have it.
    pub fn replicas(&self) -> impl Iterator<Item = metadata::Replica> + '_ {
        self.members.iter().map(|member| member.replica)
    }

    /// Whether the next entry would be taken, for a driver that has to hand it to the own WAL first.
    pub fn admits(&self) -> Result<(), AppendError> {
        if self.state == State::Fenced {
            return Err(AppendError::Fenced);
        }
        if self.bytes >= self.options.window_bytes {
            return Err(AppendError::Full { bytes: self.bytes });
        }
        Ok(())
    }

    /// Where nodes stand: of the spares that could take a place, one in a rack that the set lacks comes first.
    pub fn set_racks(&mut self, racks: BTreeMap<NodeId, u32>) {
        self.racks = racks;
    }

    /// Nodes that are to hold nothing any more. A set gives them up as soon as it can.
    pub fn set_leaving(&mut self, nodes: BTreeSet<NodeId>) {
        self.leaving = nodes;
    }

    /// Whether the metadata would take a set of the own WAL alone: of two nodes one may go on while the other is gone.
    pub fn set_may_be_alone(&mut self, may: bool) {
        self.may_be_alone = may;
    }

    /// Durable entries of the open ledger below have been synced by the own WAL and `copies` members in all. It moves on while
    /// the ledger is being closed, for what stands below the end: a copy there is one whichever ledger comes next.
    pub fn copied(&self, copies: usize) -> EntryId {
        if copies <= self.write_quorum {
            return self.durable;
        }
        self.synced_by(copies).min(self.durable)
    }

    /// Members of the set that are not about to be replaced.
    pub fn in_sync(&self) -> usize {
        self.members.iter().filter(|member| !self.must_go(member)).count()
    }

    /// Members that a set may not be smaller than.
    fn least(&self) -> usize {
        if self.may_be_alone { 1 } else { self.members.len().min(2) }
    }

    /// The entry that comes next.
    pub fn next(&self) -> EntryId {
        EntryId(self.first.0 + self.entries.len() as u64)
    }

    /// Gives an entry its place in the open ledger. Taken also while the ledger is being closed: it moves to the next one.
    pub fn append(&mut self, payload: P) -> Result<(LedgerId, EntryId, Vec<WriterAction<P>>), AppendError> {
        self.admits()?;
        let entry = self.next();
        for member in self.members.iter_mut().filter(|member| member.synced() == entry) {
            member.headway_ms = self.now_ms;
        }
        self.bytes = self.bytes.saturating_add(payload.bytes());
        self.entries.push_back(payload);
        let mut actions = Vec::new();
        self.send_all(&mut actions);
        self.press(&mut actions);
        Ok((self.ledger, entry, actions))
    }

    pub fn step(&mut self, event: WriterEvent) -> Vec<WriterAction<P>> {
        let mut actions = Vec::new();
        if self.state == State::Fenced {
            return actions;
        }
        match event {
            WriterEvent::Answered { from, reply } => self.answered(from, reply, &mut actions),
            WriterEvent::Lost { node } => {
                let now = self.now_ms;
                self.with_member(node, |member| member.lose(Lost::Gone { since_ms: now }));
            }
            WriterEvent::Connected { node } => self.with_member(node, Member::connected),
            WriterEvent::NodeUp(replica) => {
                self.up.insert(replica.node, replica.incarnation);
            }
            WriterEvent::NodeDown(node) => {
                self.up.remove(&node);
            }
            WriterEvent::Decided { close, outcome } => self.decided(close, outcome, &mut actions),
            WriterEvent::Tick { now_ms } => {
                self.now_ms = self.now_ms.max(now_ms);
                self.look_for_laggards();
                self.retry(&mut actions);
            }
        }
        self.settle(&mut actions);
        actions
    }

    fn with_member(&mut self, node: NodeId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.iter_mut().find(|member| member.replica.node == node) {
            change(member);
        }
    }

    fn answered(&mut self, from: Identity, reply: Reply, actions: &mut Vec<WriterAction<P>>) {
        // Answers about a ledger that was left count for nothing.
        if reply.ledger() != self.ledger {
            return;
        }
        let (first, now_ms, plant) = (self.first, self.now_ms, self.plant);
        let Some(member) = self.members.iter_mut().find(|member| member.replica.node == from.node) else { return };
        match member.judge(from, plant) {
            Standing::Counts => {}
            Standing::Stale => return,
            Standing::Replaced => return member.lose(Lost::Replaced),
        }
        match reply {
            Reply::Position { synced, .. } => member.heard_synced(from.boot, synced, now_ms),
            Reply::OutOfSequence { expected, .. } => member.heard_expected(from.boot, expected, first),
            Reply::NotOpen { .. } | Reply::Busy { .. } => member.stalled = true,
            Reply::Unknown { .. } => member.lose(Lost::Replaced),
            Reply::Sealed { .. } | Reply::SealAnswer { .. } => self.fence("a replica was sealed", actions),
            // Said to recoverers only.
            Reply::Copied { .. } | Reply::NotSealed { .. } => {}
        }
    }

    fn fence(&mut self, reason: &'static str, actions: &mut Vec<WriterAction<P>>) {
        self.state = State::Fenced;
        actions.push(WriterAction::Fenced { reason });
    }

    /// Does what has become possible: durable moves, entries go out and are let go, a replacement is proposed.
    fn settle(&mut self, actions: &mut Vec<WriterAction<P>>) {
        let closing = self.is_closing() && !self.plant.has(Bug::AckWhileClosing);
        if self.state == State::Fenced {
            return;
        }
        if !closing {
            let reached = self.reached();
            if reached > self.durable {
                self.durable = reached;
                actions.push(WriterAction::Durable { ledger: self.ledger, below: reached });
            }
        }
        self.let_go();
        self.send_all(actions);
        self.press(actions);
        self.consider(actions);
    }

    /// Up to where the own WAL and `w` members have synced.
    fn reached(&self) -> EntryId {
        self.synced_by(self.write_quorum - usize::from(self.plant.has(Bug::AckBeforeQuorum)))
    }

    /// Up to where the own WAL and `copies` members in all have synced; the beginning where the set has fewer.
    fn synced_by(&self, copies: usize) -> EntryId {
        let mut synced: Vec<EntryId> = self.members.iter().map(Member::counted).collect();
        synced.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = synced.get(copies.saturating_sub(1)).copied().unwrap_or_default();
        let own = self.members.iter().find(|member| member.replica.node == self.own);
        quorum.min(own.map_or(EntryId(0), Member::counted)).min(self.next())
    }

    /// Lets entries go that nobody needs to be sent any more.
    fn let_go(&mut self) {
        let waited_for = self.members.iter().filter(|member| member.can_catch_up()).map(Member::synced).min();
        let below = waited_for.map_or(self.durable, |synced| synced.min(self.durable));
        while self.first < below {
            let Some(payload) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(payload.bytes());
            self.first = self.first.next();
        }
    }

    /// Sends to every member what it has not been sent. Nothing of a ledger that is being closed.
    fn send_all(&mut self, actions: &mut Vec<WriterAction<P>>) {
        if self.state != State::Open && !self.plant.has(Bug::AckWhileClosing) {
            return;
        }
        let (ledger, durable, first, next) = (self.ledger, self.durable, self.first, self.next());
        for member in self.members.iter_mut().filter(|member| member.is_sent_to()) {
            let from = member.sent.max(first);
            for (entry, payload) in (from.0..next.0).zip(self.entries.iter().skip((from.0 - first.0) as usize)) {
                let request = Request::Append { ledger, entry: EntryId(entry), durable, payload: payload.clone() };
                actions.push(WriterAction::Send { to: member.replica, request });
            }
            member.sent = next.max(member.sent);
        }
    }

    fn press(&mut self, actions: &mut Vec<WriterAction<P>>) {
        let limit = self.options.window_bytes;
        let pressed = if self.pressed { self.bytes > limit / 2 } else { self.bytes >= limit };
        if pressed != self.pressed {
            self.pressed = pressed;
            actions.push(WriterAction::Backpressure(pressed));
        }
    }

    /// Replicas that keep too much waiting, or that make no headway.
    fn look_for_laggards(&mut self) {
        let (own, now_ms, next, durable) = (self.own, self.now_ms, self.next(), self.durable);
        let too_much = self.bytes > self.options.lag_bytes;
        for member in self.members.iter_mut().filter(|member| member.replica.node != own) {
            let idle = member.synced() >= next;
            if idle {
                member.headway_ms = now_ms;
            } else if now_ms.saturating_sub(member.headway_ms) >= self.options.lag_ms {
                member.lose(Lost::Slow);
            }
            if too_much && member.synced() < durable {
                // What it lacks is let go, so that the producers need not wait for it.
                member.lose(Lost::Behind);
            }
            if std::mem::take(&mut member.stalled) {
                member.sent = member.synced();
            }
        }
    }
}
