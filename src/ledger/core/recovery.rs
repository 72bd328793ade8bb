//! Finding the end of a ledger whose writer is fenced, so that it can be set once and for all.
//!
//! The steps: seal the replicas; conclude where the ledger ends; ask the quorum once more who is registered; copy what may
//! be held too seldom; have the metadata set the end. Nothing above what is uploaded may be served before the last step. A recoverer may die after any message and
//! another begin anew, or two may work at once: each concludes an end that covers every durable entry, copies are equal,
//! and the metadata take one end and refuse the other.
//!
//! **The end** is behind the furthest entry that any counted replica holds, and never below what is uploaded. Entries that
//! no write quorum had synced may be within it: they become part of the ledger, which their writer never denied. Counted
//! is an answer of the incarnation that the ledger names, from a process that is not older than the one that registered
//! last. It takes `n − w + 1` of them.
//!
//! **Uncertain beyond N.** Such a replica has cut a damaged tail. What it holds raises the end. It proves that the
//! entry *at* the end was never durable only if that entry is below N, where nothing was cut; durable entries have no
//! gaps, so the one entry is enough. Otherwise it does not count towards `n − w + 1`: it may be the one that had
//! acknowledged that entry. There is one way on when too few others answer: if every replica has answered, none of them
//! unknown. Then an acknowledged entry is lost only if `w` replicas each lost a group that they had synced, in a way that
//! looks like a torn tail; of one replica alone that is what a start concludes today. So a power cut of the
//! whole cluster, where every replica has a torn tail, recovers by itself. Short of that only an operator can say
//! that the rest is to be given up ([`RecoveryEvent::UncertainAccepted`]).
//!
//! **Copies.** Entries below the highest position that anybody has called durable are on `w` replicas. What stands from
//! there up to the end may be on one only. It is copied until `w` nodes that answer hold it, those of the set first, then
//! spares, which are sealed before. The copies are synced before the end is set: whoever reads up to it may lose one node
//! then, too. They count for nobody else: were they announced to a fenced writer that still runs, it would call entries
//! durable which another recoverer, that has heard other replicas, leaves beyond its end.

use std::collections::BTreeMap;

use crate::base::{EntryId, LedgerId, NodeId};
use crate::metadata;
use crate::wal::SealAnswer;

use super::plant::{Bug, Plant};
use super::{Identity, Payload, Reply, Request, seal_quorum};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryEvent<P> {
    /// A node answered, or announced something.
    Answered { from: Identity, reply: Reply },
    /// What was asked for with [`RecoveryAction::Read`]: entries from `from` on, checked, at least one.
    Read { node: NodeId, from: EntryId, payloads: Vec<P> },
    /// The node cannot give what was asked for.
    ReadFailed { node: NodeId },
    /// A node did not answer in time, or its connection is gone. It counts again when it answers again.
    Lost { node: NodeId },
    /// All brokers that are registered, from an image that is newer than the one before.
    Nodes(Vec<Registered>),
    /// The answer to [`RecoveryAction::Confirm`].
    Confirmed(Vec<Registered>),
    /// The metadata have set the end, as proposed or before.
    EndSet { end: EntryId },
    /// An operator gives up what uncertain replicas may have lost.
    UncertainAccepted,
    /// To be given every few seconds: asks again what was not answered, and proposes again what was not decided.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryAction<P> {
    Send {
        to: metadata::Replica,
        request: Request<P>,
    },
    /// Answer with [`RecoveryEvent::Confirmed`], from an image that has everything that the quorum had committed by now (a
    /// linearizable read).
    Confirm,
    /// Read entries from `from` on, below `below`, as many as one message takes.
    Read {
        node: NodeId,
        ledger: LedgerId,
        from: EntryId,
        below: EntryId,
    },
    /// Propose that this is the end. `holders` have every entry from theirs on up to the end.
    Propose {
        ledger: LedgerId,
        end: EntryId,
        holders: Vec<(metadata::Replica, EntryId)>,
    },
    Done {
        ledger: LedgerId,
        end: EntryId,
    },
}

/// A broker as the metadata know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    /// Of the process that registered last.
    pub identity: Identity,
    /// It may be given copies.
    pub alive: bool,
}

/// A sealed node that has answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Heard {
    replica: metadata::Replica,
    /// Of the process that answered the seal.
    boot: u64,
    /// It had answered when the quorum was asked who is registered.
    confirmed: bool,
    answer: SealAnswer,
    /// It holds `first..next`, but for what is uploaded.
    first: EntryId,
    next: EntryId,
    /// Entries below were sent to it.
    sent: EntryId,
    /// What it said that it wants next, when it holds what another attempt has copied.
    expected: Option<EntryId>,
    /// It has not answered for long: no copy goes there, and it is not read.
    lost: bool,
    /// It could not be read.
    unreadable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Sealing {
        /// What was heard is enough, if it still counts.
        confirming: bool,
    },
    /// The end is concluded; spares are sealed, too, where the set does not suffice.
    Copying {
        end: EntryId,
        reading: Option<NodeId>,
    },
    Setting {
        end: EntryId,
        asked: bool,
    },
    Done,
}

/// One attempt to recover one ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    ledger: LedgerId,
    replicas: Vec<metadata::Replica>,
    write_quorum: usize,
    uploaded: EntryId,
    /// Entries below are durable.
    durable: EntryId,
    nodes: BTreeMap<NodeId, Registered>,
    heard: BTreeMap<NodeId, Heard>,
    uncertain_accepted: bool,
    phase: Phase,
    plant: Plant,
}

impl Recovery {
    /// Begins the recovery of `ledger` as an image records it in which its writer is fenced. `nodes` are the brokers that
    /// are registered there.
    pub fn new<P: Payload>(
        ledger: LedgerId,
        recorded: &metadata::Ledger,
        nodes: Vec<Registered>,
        plant: Plant,
    ) -> (Recovery, Vec<RecoveryAction<P>>) {
        let recovery = Recovery {
            ledger,
            replicas: recorded.replicas.clone(),
            write_quorum: usize::from(recorded.write_quorum),
            uploaded: recorded.uploaded,
            durable: recorded.uploaded,
            nodes: by_node(nodes),
            heard: BTreeMap::new(),
            uncertain_accepted: false,
            phase: Phase::Sealing { confirming: false },
            plant,
        };
        let seals = recovery.replicas.iter().map(|replica| recovery.seal(*replica)).collect();
        (recovery, seals)
    }

    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub fn step<P: Payload>(&mut self, event: RecoveryEvent<P>) -> Vec<RecoveryAction<P>> {
        let mut actions = Vec::new();
        if self.phase == Phase::Done {
            return actions;
        }
        match event {
            RecoveryEvent::Answered { from, reply } if reply.ledger() == self.ledger => self.answered(from, reply),
            RecoveryEvent::Answered { .. } => {}
            RecoveryEvent::Read { node, from, payloads } => self.read(node, from, &payloads, &mut actions),
            RecoveryEvent::ReadFailed { node } => {
                self.stop_reading(node);
                self.with(node, |heard| heard.unreadable = true);
            }
            RecoveryEvent::Lost { node } => {
                self.stop_reading(node);
                self.with(node, |heard| heard.lost = true);
            }
            RecoveryEvent::Nodes(nodes) => self.nodes = by_node(nodes),
            RecoveryEvent::Confirmed(nodes) => self.confirmed(nodes, &mut actions),
            RecoveryEvent::EndSet { end } => {
                self.phase = Phase::Done;
                actions.push(RecoveryAction::Done { ledger: self.ledger, end });
                return actions;
            }
            RecoveryEvent::UncertainAccepted => self.uncertain_accepted = true,
            RecoveryEvent::Tick => self.ask_again(&mut actions),
        }
        self.advance(&mut actions);
        actions
    }

    fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Heard)) {
        if let Some(heard) = self.heard.get_mut(&node) {
            change(heard);
        }
    }

    fn stop_reading(&mut self, node: NodeId) {
        if let Phase::Copying { reading, .. } = &mut self.phase
            && *reading == Some(node)
        {
            *reading = None;
        }
    }

    fn seal<P>(&self, to: metadata::Replica) -> RecoveryAction<P> {
        RecoveryAction::Send { to, request: Request::Seal { ledger: self.ledger } }
    }

    /// What is asked of a node now: as the ledger names it, or, of a spare, as it is registered.
    fn named(&self, node: NodeId) -> Option<metadata::Replica> {
        let member = self.replicas.iter().find(|replica| replica.node == node).copied();
        let spare = || self.nodes.get(&node).map(|n| metadata::Replica { node, incarnation: n.identity.incarnation });
        member.or_else(spare)
    }

    /// Whether an answer is one: of this incarnation, and not of an older copy of it.
    fn counts(&self, from: Identity) -> bool {
        let same = self.named(from.node).is_some_and(|replica| replica.incarnation == from.incarnation);
        let registered = self.nodes.get(&from.node).map(|node| node.identity);
        let registered = registered.filter(|node| node.incarnation == from.incarnation);
        let older = registered.is_some_and(|node| from.boot < node.boot) && !self.plant.has(Bug::BootIgnored);
        (same || self.plant.has(Bug::IncarnationIgnored)) && !older
    }

    fn answered(&mut self, from: Identity, reply: Reply) {
        if !self.counts(from) {
            return;
        }
        match reply {
            Reply::SealAnswer { through, uncertain_from, durable, .. } => {
                self.durable = self.durable.max(durable);
                let Some(replica) = self.named(from.node) else { return };
                let next = through.map_or(EntryId(0), EntryId::next);
                let answer = SealAnswer { through, uncertain_from };
                let first = EntryId(0);
                let (sent, expected) = (EntryId(0), None);
                let (boot, confirmed, lost, unreadable) = (from.boot, false, false, false);
                let heard = Heard { replica, boot, confirmed, answer, first, next, sent, expected, lost, unreadable };
                self.heard.entry(from.node).or_insert(heard).lost = false;
            }
            Reply::Copied { first, synced, durable, .. } => {
                self.durable = self.durable.max(durable);
                self.with(from.node, |heard| {
                    heard.lost = false;
                    if synced > heard.next {
                        (heard.first, heard.next) = (first, synced);
                    }
                });
            }
            Reply::OutOfSequence { expected, .. } => self.with(from.node, |heard| {
                (heard.expected, heard.sent) = (Some(expected), EntryId(0));
            }),
            // Whoever has lost what it held cannot take part; the others have to be enough.
            Reply::Unknown { .. } => {
                self.heard.remove(&from.node);
            }
            Reply::NotSealed { .. } | Reply::Busy { .. } => self.with(from.node, |heard| heard.lost = true),
            // Said to the writer.
            Reply::Position { .. } | Reply::Sealed { .. } | Reply::NotOpen { .. } => {}
        }
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.replicas.iter().any(|replica| replica.node == node)
    }

    /// The end, once it can be concluded from these answers.
    fn conclude(&self, counted: impl Fn(&Heard) -> bool) -> Option<EntryId> {
        let members = self.heard.values().filter(|heard| self.is_member(heard.replica.node));
        let answers: Vec<&Heard> = members.filter(|heard| counted(heard)).collect();
        let held = answers.iter().filter_map(|heard| heard.answer.through).max().map_or(EntryId(0), EntryId::next);
        let end = held.max(self.uploaded);
        if self.durable > end {
            // Somebody knows of a durable entry that nobody who has answered holds.
            return None;
        }
        let counts_all = self.uncertain_accepted || self.plant.has(Bug::UncertainCounts);
        let is_certain = |heard: &&&Heard| counts_all || heard.answer.uncertain_from.is_none_or(|from| from > end);
        let certain = answers.iter().filter(is_certain).count();
        let mut needed = seal_quorum(self.replicas.len(), self.write_quorum);
        if self.plant.has(Bug::SealQuorumTooSmall) {
            needed -= 1;
        }
        (certain >= needed || answers.len() == self.replicas.len()).then_some(end)
    }

    /// Goes as far as what was heard allows.
    fn advance<P: Payload>(&mut self, actions: &mut Vec<RecoveryAction<P>>) {
        if self.phase == (Phase::Sealing { confirming: false }) && self.conclude(|_| true).is_some() {
            self.phase = Phase::Sealing { confirming: true };
            for heard in self.heard.values_mut() {
                heard.confirmed = true;
            }
            actions.push(RecoveryAction::Confirm);
        }
        if let Phase::Copying { end, reading } = self.phase {
            if self.is_safe(end) {
                self.phase = Phase::Setting { end, asked: false };
            } else if reading.is_none() {
                self.read_next(end, actions);
            }
        }
        if let Phase::Setting { end, asked: false } = self.phase {
            self.phase = Phase::Setting { end, asked: true };
            let full = self.heard.values().filter(|heard| heard.next >= end);
            let holders = full.map(|heard| (heard.replica, heard.first)).collect();
            actions.push(RecoveryAction::Propose { ledger: self.ledger, end, holders });
        }
    }

    /// What was heard so far counts if its process is not older than the one that is registered now.
    fn confirmed<P>(&mut self, nodes: Vec<Registered>, actions: &mut Vec<RecoveryAction<P>>) {
        self.nodes = by_node(nodes);
        let Phase::Sealing { confirming: true } = self.phase else { return };
        let heard = std::mem::take(&mut self.heard).into_iter();
        let from = |heard: &Heard| {
            let metadata::Replica { node, incarnation } = heard.replica;
            Identity { node, incarnation, boot: heard.boot }
        };
        self.heard = heard.filter(|(_, heard)| self.counts(from(heard))).collect();
        // Who has answered since waits for the next time: there may have been a start in between.
        match self.conclude(|heard| heard.confirmed) {
            Some(end) => {
                self.phase = Phase::Copying { end, reading: None };
                self.seal_spares(actions);
            }
            None => self.phase = Phase::Sealing { confirming: false },
        }
    }

    /// Everything below `end` is on `w` nodes, or known to have been.
    fn is_safe(&self, end: EntryId) -> bool {
        let copies = self.heard.values().filter(|heard| !heard.lost && heard.next >= end).count();
        self.durable >= end || copies >= self.write_quorum || self.plant.has(Bug::RecoveryDoesNotCopy)
    }

    /// The members that answer may be too few to copy to.
    fn seal_spares<P>(&self, actions: &mut Vec<RecoveryAction<P>>) {
        let usable = self.heard.values().filter(|heard| !heard.lost).count();
        if usable >= self.write_quorum {
            return;
        }
        let alive = self.nodes.values().filter(|node| node.alive).map(|node| node.identity);
        let spares = alive.filter(|node| !self.is_member(node.node) && !self.heard.contains_key(&node.node));
        let to = spares.map(|node| metadata::Replica { node: node.node, incarnation: node.incarnation });
        actions.extend(to.map(|replica| self.seal(replica)));
    }

    /// Where the copy to a node goes on. What is uploaded need not be there. A node without anything gets all the rest, not only
    /// what is not known to be durable: who holds the end has to be able to serve and to upload the ledger alone.
    fn position(&self, heard: &Heard) -> EntryId {
        match heard.expected {
            Some(expected) => heard.next.max(expected),
            None => heard.next.max(self.uploaded),
        }
    }

    /// The nodes that get copies: as many as are needed, those first that lack least.
    fn targets(&self, end: EntryId) -> Vec<NodeId> {
        let usable = self.heard.values().filter(|heard| !heard.lost);
        let mut order: Vec<_> = usable.map(|heard| (self.position(heard), heard.replica.node)).collect();
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        order.truncate(self.write_quorum);
        order.into_iter().filter(|(position, _)| *position < end).map(|(_, node)| node).collect()
    }

    fn read_next<P: Payload>(&mut self, end: EntryId, actions: &mut Vec<RecoveryAction<P>>) {
        let targets = self.targets(end);
        let positions = || targets.iter().filter_map(|node| self.heard.get(node)).map(|h| (self.position(h), h.sent));
        if positions().any(|(position, sent)| sent > position) {
            return; // What was sent is not acknowledged yet.
        }
        let Some(from) = positions().map(|(position, _)| position).min() else { return };
        let holds = |heard: &&Heard| heard.first <= from && from < heard.next && !heard.lost && !heard.unreadable;
        let Some(source) = self.heard.values().find(holds).map(|heard| heard.replica.node) else { return };
        self.phase = Phase::Copying { end, reading: Some(source) };
        actions.push(RecoveryAction::Read { node: source, ledger: self.ledger, from, below: end });
    }

    fn read<P: Payload>(&mut self, node: NodeId, from: EntryId, payloads: &[P], actions: &mut Vec<RecoveryAction<P>>) {
        let Phase::Copying { end, reading: Some(source) } = self.phase else { return };
        if node != source {
            return;
        }
        self.phase = Phase::Copying { end, reading: None };
        let (ledger, durable, uploaded) = (self.ledger, self.durable, self.uploaded);
        for target in self.targets(end) {
            let Some(position) = self.heard.get(&target).map(|heard| self.position(heard)) else { continue };
            if position < from {
                continue; // It lacks something before, which is read next.
            }
            for (entry, payload) in (from.0..end.0).zip(payloads).filter(|(entry, _)| *entry >= position.0) {
                let entry = EntryId(entry);
                let request = Request::Recover { ledger, entry, durable, uploaded, payload: payload.clone() };
                self.with(target, |heard| {
                    heard.sent = entry.next();
                    actions.push(RecoveryAction::Send { to: heard.replica, request });
                });
            }
        }
    }

    /// Seals again who has not answered, and forgets what was sent and read and not answered.
    fn ask_again<P: Payload>(&mut self, actions: &mut Vec<RecoveryAction<P>>) {
        let silent = self.replicas.iter().filter(|replica| self.heard.get(&replica.node).is_none_or(|h| h.lost));
        actions.extend(silent.map(|replica| self.seal(*replica)));
        for heard in self.heard.values_mut() {
            (heard.sent, heard.unreadable) = (EntryId(0), false);
        }
        match &mut self.phase {
            Phase::Copying { reading, .. } => {
                *reading = None;
                self.seal_spares(actions);
            }
            Phase::Setting { asked, .. } => *asked = false,
            Phase::Sealing { confirming } => *confirming = false,
            Phase::Done => {}
        }
    }
}

fn by_node(nodes: Vec<Registered>) -> BTreeMap<NodeId, Registered> {
    nodes.into_iter().map(|node| (node.identity.node, node)).collect()
}
