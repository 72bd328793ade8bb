//! The broker on the quorum's leader: who lives, whose ledgers are recovered, who leads instead.

use std::rc::Rc;

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId};
use crate::ledger::core::{Identity, Recovery, RecoveryAction, RecoveryEvent, Registered, Reply, Request};
use crate::metadata::{Assignment, Command, Holder, Image, Response};

use super::node::{Ask, LEASE, Message, partition_id};
use super::quorum::Told;
use super::world::{World, index_of, node_id};
use super::{Batch, MS, Micros, PARTITIONS};

/// What a new controller waits for, and how long after the last heartbeat a broker is fenced.
const FENCE_AFTER: Micros = LEASE + 100 * MS;

/// The recovery of one ledger.
pub struct Recoverer {
    core: Recovery,
    next_tick: Micros,
}

impl World {
    pub fn heartbeat(&mut self, index: usize, from: usize, epoch: BrokerEpoch, sent: Micros) {
        if !self.leads(index) {
            return;
        }
        let image = self.image_at(index);
        let lease = match image.brokers.get(&node_id(from)) {
            Some(broker) if broker.epoch == epoch => !broker.fenced,
            // Registered, and not applied here yet.
            Some(broker) if broker.epoch < epoch => return,
            Some(_) => false,
            None => return,
        };
        let now = self.now;
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.heard.insert(node_id(from), now);
        }
        self.send(index, from, Message::Granted { sent, lease });
    }

    pub fn controller_tick(&mut self, index: usize) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        if self.quorum.leader != Some(index) {
            process.heard.clear();
            process.recoverers.clear();
            return;
        }
        if !self.leads(index) {
            return;
        }
        let image = self.image_at(index);
        self.fence_the_silent(index, &image);
        self.recover(index, &image);
        self.assign(index, &image);
        self.look_after_uploads(index, &image);
    }

    fn fence_the_silent(&mut self, index: usize, image: &Image) {
        let (now, since) = (self.now, self.quorum.leads_since);
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        let silent = |node: &NodeId| now > process.heard.get(node).copied().unwrap_or(0).max(since) + FENCE_AFTER;
        let fenced = image.brokers.iter().filter(|(node, broker)| !broker.fenced && silent(node));
        let fenced: Vec<_> = fenced.map(|(node, broker)| (*node, broker.epoch)).collect();
        for (node, epoch) in fenced {
            self.note("fences", node.0 as u64);
            self.propose(index, Command::FenceBroker { node, epoch }, Ask::Control);
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

    fn recover(&mut self, index: usize, image: &Rc<Image>) {
        let open = image.ledgers.iter().filter(|(_, l)| l.end.is_none() && image.is_writer_fenced(l));
        let open: Vec<LedgerId> = open.map(|(id, _)| *id).collect();
        let (now, plant) = (self.now, self.bugs.ledger);
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.recoverers.retain(|ledger, _| open.contains(ledger));
        }
        for ledger in open {
            let nodes = self.registered_brokers(index, image);
            let Some(process) = self.nodes[index].process.as_mut() else { return };
            let Some(recoverer) = process.recoverers.get_mut(&ledger) else {
                let (core, actions) = Recovery::new(ledger, &image.ledgers[&ledger], nodes, plant);
                process.recoverers.insert(ledger, Recoverer { core, next_tick: now + 200 * MS });
                self.note("recovers", ledger.0);
                self.recoverer_actions(index, ledger, actions);
                continue;
            };
            if now >= recoverer.next_tick {
                recoverer.next_tick = now + 200 * MS;
                self.recoverer_event(index, ledger, RecoveryEvent::Nodes(nodes));
                self.recoverer_event(index, ledger, RecoveryEvent::Tick);
            }
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
        let event = match told {
            Told::Applied(Response::Ok) => RecoveryEvent::EndSet { end },
            _ => {
                // Another attempt begins anew.
                if let Some(process) = self.nodes[index].process.as_mut() {
                    process.recoverers.remove(&ledger);
                }
                return;
            }
        };
        self.note("end", ledger.0 << 16 | end.0);
        self.recoverer_event(index, ledger, event);
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

    /// Partitions of brokers that are gone go to those that live.
    fn assign(&mut self, index: usize, image: &Image) {
        let live = self.registered_brokers(index, image);
        let live: Vec<NodeId> = live.iter().filter(|b| b.alive).map(|b| b.identity.node).collect();
        let mut changes = Vec::new();
        for partition in 0..PARTITIONS {
            let id = partition_id(partition);
            let Some(recorded) = image.partition(id) else { continue };
            let gone = image.brokers.get(&recorded.leader).is_none_or(|broker| broker.fenced);
            let recovered = !image.ledgers.values().any(|l| l.node == recorded.leader && l.end.is_none());
            if !gone || live.is_empty() || !recovered {
                continue;
            }
            let leader = live[self.rng.range(0, live.len() as u64 - 1) as usize];
            changes.push(Assignment { partition: id, leader_epoch: recorded.leader_epoch, leader });
        }
        if !changes.is_empty() {
            self.propose(index, Command::AssignPartitions { changes }, Ask::Control);
        }
    }

    /// A ledger whose uploader is gone gets another.
    fn look_after_uploads(&mut self, index: usize, image: &Image) {
        let gone = |node: NodeId| image.brokers.get(&node).is_none_or(|broker| broker.fenced);
        let orphans = image.ledgers.iter().filter(|(_, l)| l.end.is_some() && !l.is_finished() && gone(l.uploader()));
        let orphans: Vec<LedgerId> = orphans.map(|(id, _)| *id).collect();
        let live = self.registered_brokers(index, image);
        for ledger in orphans {
            let recorded = &image.ledgers[&ledger];
            let holds = |node: NodeId| {
                recorded.holders.iter().any(|h| h.replica.node == node)
                    || recorded.replicas.iter().any(|r| r.node == node)
            };
            let next = live.iter().find(|b| b.alive && holds(b.identity.node));
            let next = next.or_else(|| live.iter().find(|b| b.alive));
            if let Some(next) = next {
                let node = next.identity.node;
                let epoch = image.brokers[&node].epoch;
                self.propose(index, Command::NameUploader { ledger, node, epoch }, Ask::Control);
            }
        }
    }
}
