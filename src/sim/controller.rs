//! The broker on the quorum's leader: who lives, whose ledgers are recovered, who leads instead.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId};
use crate::broker::Load;
use crate::cluster::{Action, Controller, Heartbeat, Leases, Predecessor, Verdict, View};
use crate::ledger::core::{Identity, Recovery, RecoveryAction, RecoveryEvent, Registered, Reply, Request};
use crate::metadata::{Command, Holder, Image, Response};

use super::node::{Ask, Message};
use super::quorum::Told;
use super::world::{World, index_of, node_id};
use super::{Batch, MS, Micros};

/// The recovery of one ledger.
pub struct Recoverer {
    core: Recovery,
    next_tick: Micros,
}

/// What a process does as the controller, while it leads.
#[derive(Default)]
pub struct Leading {
    leases: Leases,
    /// Of one time of leading, with the election that began it.
    controller: Option<(u64, Controller)>,
    /// Proposals whose outcome is not known yet; nothing is decided meanwhile.
    pending: usize,
}

impl World {
    pub fn heartbeat(&mut self, index: usize, from: usize, epoch: BrokerEpoch, sent: Micros) {
        // A majority is asked before anything is granted.
        let leads = self.leads(index) && self.leader_works() == Some(index);
        let (image, now) = (self.image_at(index), Duration::from_micros(self.now));
        let confirmed = leads.then(|| Duration::from_micros(self.quorum.contact));
        let beat = Heartbeat { node: node_id(from), epoch, wal_used: 0, wal_budget: 1, load: Load::default() };
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        match process.leading.leases.hear(now, confirmed, &image, beat) {
            Verdict::Granted { age } => {
                // To itself a leader lends nothing.
                let since = if from == index { 0 } else { sent.saturating_sub(age.as_micros() as Micros) };
                self.send(index, from, Message::Granted { since, lease: true });
            }
            Verdict::Fenced => self.send(index, from, Message::Granted { since: sent, lease: false }),
            Verdict::NotNow => {}
        }
    }

    pub fn controller_tick(&mut self, index: usize) {
        let leads = self.leads(index);
        let (election, now) = (self.quorum.elections, Duration::from_micros(self.now));
        let image = self.image_at(index);
        let predecessor = self
            .quorum
            .predecessor
            .map(|(node, since)| Predecessor { node: node_id(node), since: Duration::from_micros(since) });
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        if !leads {
            process.leading.controller = None;
            process.leading.pending = 0;
            process.recoverers.clear();
            return;
        }
        if process.leading.controller.as_ref().is_none_or(|(begun, _)| *begun != election) {
            process.leading.leases.begin(now, &image, predecessor);
            process.leading.controller = Some((election, Controller::new(now)));
            process.leading.pending = 0;
            process.recoverers.clear();
        }
        self.drive_recoverers(index, &image);
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let Leading { leases, controller: Some((_, controller)), pending: 0 } = &mut process.leading else { return };
        let overdue = leases.overdue(now, &image);
        let loads = BTreeMap::new();
        let actions = controller.step(&View { now, image: &image, overdue: &overdue, loads: &loads });
        for (node, _) in overdue {
            self.note("fences", node.0 as u64);
        }
        for action in actions {
            match action {
                Action::Propose(command) => {
                    if let Some(process) = self.nodes[index].process.as_mut() {
                        process.leading.pending += 1;
                    }
                    self.propose(index, command, Ask::Control);
                }
                Action::Recover(ledger) => self.recover(index, ledger, &image),
            }
        }
    }

    /// The outcome of something that the controller proposed is known, or given up.
    pub fn controlled(&mut self, index: usize) {
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.leading.pending = process.leading.pending.saturating_sub(1);
        }
    }

    fn recovered(&mut self, index: usize, ledger: LedgerId, succeeded: bool) {
        let now = Duration::from_micros(self.now);
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        process.recoverers.remove(&ledger);
        if let Some((_, controller)) = &mut process.leading.controller {
            controller.recovered(now, ledger, succeeded);
        }
    }

    fn registered_brokers(&self, index: usize, image: &Image) -> Vec<Registered> {
        let connected = |node: NodeId| {
            let process = self.nodes[index].process.as_ref();
            node == node_id(index) || process.is_some_and(|p| p.connections[index_of(node)].is_some())
        };
        let registered = |(node, broker): (&NodeId, &crate::metadata::Broker)| Registered {
            identity: Identity { node: *node, incarnation: broker.incarnation, boot: broker.boot },
            alive: !broker.fenced && connected(*node),
        };
        image.brokers.iter().map(registered).collect()
    }

    fn recover(&mut self, index: usize, ledger: LedgerId, image: &Image) {
        let nodes = self.registered_brokers(index, image);
        let (now, plant) = (self.now, self.bugs.ledger);
        let Some(recorded) = image.ledgers.get(&ledger) else { return };
        let (core, actions) = Recovery::new(ledger, recorded, nodes, plant);
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.recoverers.insert(ledger, Recoverer { core, next_tick: now + 200 * MS });
        }
        self.note("recovers", ledger.0);
        self.recoverer_actions(index, ledger, actions);
    }

    fn drive_recoverers(&mut self, index: usize, image: &Image) {
        let now = self.now;
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let mut due = Vec::new();
        for (ledger, recoverer) in process.recoverers.iter_mut().filter(|(_, r)| now >= r.next_tick) {
            recoverer.next_tick = now + 200 * MS;
            due.push(*ledger);
        }
        for ledger in due {
            let nodes = self.registered_brokers(index, image);
            self.recoverer_event(index, ledger, RecoveryEvent::Nodes(nodes));
            self.recoverer_event(index, ledger, RecoveryEvent::Tick);
        }
    }

    fn recoverer_event(&mut self, index: usize, ledger: LedgerId, event: RecoveryEvent<Rc<Batch>>) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let Some(recoverer) = process.recoverers.get_mut(&ledger) else { return };
        let actions = recoverer.core.step(event);
        self.recoverer_actions(index, ledger, actions);
    }

    fn recoverer_actions(&mut self, index: usize, ledger: LedgerId, actions: Vec<RecoveryAction<Rc<Batch>>>) {
        for action in actions {
            match action {
                RecoveryAction::Send { to, request } => {
                    self.send(index, index_of(to.node), Message::Ask { to, request });
                }
                RecoveryAction::Confirm => self.barrier(index, Ask::Confirm { ledger }),
                RecoveryAction::Read { node, ledger, from, below } => {
                    self.send(index, index_of(node), Message::Read { ledger, from, below });
                }
                RecoveryAction::Propose { ledger, end, holders } => {
                    let live = self.registered_brokers(index, &self.image_at(index));
                    let alive = |node: NodeId| live.iter().any(|l| l.identity.node == node && l.alive);
                    let uploader = holders.iter().map(|(replica, _)| replica.node).find(|node| alive(*node));
                    let uploader = uploader.unwrap_or(node_id(index));
                    let holders = holders.iter().map(|(replica, from)| Holder { replica: *replica, from: *from });
                    let holders = holders.collect();
                    let command = Command::RecoverLedger { ledger, end, holders, uploader };
                    self.propose(index, command, Ask::SetEnd { ledger, end });
                }
                RecoveryAction::Done { .. } => {}
            }
        }
    }

    pub fn confirmed(&mut self, index: usize, ledger: LedgerId, told: Told) {
        match told {
            Told::Applied(_) => {
                let nodes = self.registered_brokers(index, &self.image_at(index));
                self.recoverer_event(index, ledger, RecoveryEvent::Confirmed(nodes));
            }
            _ => self.barrier(index, Ask::Confirm { ledger }),
        }
    }

    pub fn end_set(&mut self, index: usize, ledger: LedgerId, end: EntryId, told: Told) {
        match told {
            Told::Applied(Response::Ok) => {
                self.note("end", ledger.0 << 16 | end.0);
                self.recoverer_event(index, ledger, RecoveryEvent::EndSet { end });
                self.recovered(index, ledger, true);
            }
            // Another attempt begins anew.
            _ => self.recovered(index, ledger, false),
        }
    }

    pub fn recoverer_hears(&mut self, index: usize, from: Identity, reply: Reply) {
        self.recoverer_event(index, reply.ledger(), RecoveryEvent::Answered { from, reply });
    }

    pub fn recoverers_lose(&mut self, index: usize, node: NodeId) {
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        let ledgers: Vec<LedgerId> = process.recoverers.keys().copied().collect();
        for ledger in ledgers {
            self.recoverer_event(index, ledger, RecoveryEvent::Lost { node });
        }
    }

    /// Entries that this node has asked for: for a recovery, or to hold them itself.
    pub fn entries_read(
        &mut self,
        index: usize,
        node: NodeId,
        ledger: LedgerId,
        from: EntryId,
        batches: Option<Vec<Rc<Batch>>>,
    ) {
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        if process.recoverers.contains_key(&ledger) {
            let event = match batches {
                Some(payloads) => RecoveryEvent::Read { node, from, payloads },
                None => RecoveryEvent::ReadFailed { node },
            };
            return self.recoverer_event(index, ledger, event);
        }
        let image = self.image_at(index);
        let Some(recorded) = image.ledgers.get(&ledger) else { return };
        let (Some(end), Some(batches)) = (recorded.end, batches) else { return };
        let to = self.nodes[index].name();
        self.send(index, index, Message::Ask { to, request: Request::Seal { ledger } });
        for (payload, entry) in batches.into_iter().zip(from.0..end.0) {
            let (entry, uploaded) = (EntryId(entry), recorded.uploaded);
            let request = Request::Recover { ledger, entry, durable: end, uploaded, payload };
            self.send(index, index, Message::Ask { to, request });
        }
    }
}
