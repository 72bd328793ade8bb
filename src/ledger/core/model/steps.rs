//! What may happen next, and what comes of it.

use std::rc::Rc;

use crate::base::{EntryId, LedgerId, NodeId, ObjectId, WalIncarnation};
use crate::metadata::{self, Command, Holder, Reject, Response};

use super::super::writer::Outcome;
use super::check;
use super::disk::Tail;
use super::net::Packet;
use super::{
    Attempt, Bug, Identity, Node, Recovery, RecoveryAction, RecoveryEvent, Replica, ReplicaAction, ReplicaEvent, Reply,
    WRITER, World, WriterAction, WriterEvent, index_of, node_id, write_quorum,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Append,
    Arrives(Packet),
    /// A recoverer hears what a node said.
    Hears(usize, Packet),
    Sync(usize),
    LosesConnection(NodeId),
    /// The writer is told that a node may serve, and connects to it.
    Up(usize),
    /// The writer gives up waiting for the answer to its proposal, and proposes again.
    Unsure,
    /// The proposal will never be carried out, and the writer is told so.
    NotProposed(Packet),
    Fence,
    Recover,
    Crash(usize, Tail),
    Restart(usize),
    LosesDisk(usize),
    /// A copy of the WAL from before the ledger was opened is started, and asks nobody.
    OldCopy(usize),
    /// The node of the writer opens its next ledger.
    OpenNext,
    Upload,
    Trim(usize),
}

impl World {
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.writer_steps(&mut steps);
        self.net_steps(&mut steps);
        self.node_steps(&mut steps);
        if self.left.fences > 0 && !self.meta.image.brokers[&node_id(WRITER)].fenced {
            steps.push(Step::Fence);
        }
        if self.left.recoverers > 0 && self.to_recover().is_some() {
            steps.push(Step::Recover);
        }
        if self.left.uploads > 0 && self.next_upload().is_some() {
            steps.push(Step::Upload);
        }
        steps
    }

    fn writer_steps(&self, steps: &mut Vec<Step>) {
        let Some(process) = self.processes.last() else { return };
        if !process.alive {
            if self.left.successors > 0 && self.nodes[WRITER].account.is_some() {
                steps.push(Step::OpenNext);
            }
            return;
        }
        if process.writer.is_fenced() {
            return;
        }
        if self.left.appends > 0 {
            steps.push(Step::Append);
        }
        if self.left.lost_connections > 0 {
            steps.push(Step::LosesConnection(node_id(self.left.unreachable)));
        }
        for index in self.left.unreachable..self.nodes.len() {
            if self.left.spares > 0 && self.nodes[index].account.is_some() {
                steps.push(Step::Up(index));
            }
        }
        if self.left.unsure > 0 && process.writer.is_closing() {
            steps.push(Step::Unsure);
            let proposals = self.net.iter().filter(|packet| matches!(packet, Packet::Close { .. }));
            steps.extend(proposals.map(|packet| Step::NotProposed(packet.clone())));
        }
    }

    fn net_steps(&self, steps: &mut Vec<Step>) {
        for packet in &self.net {
            match packet {
                Packet::Ask { to: metadata::Replica { node, .. }, .. } | Packet::Read { node, .. } => {
                    if self.nodes[index_of(*node)].account.is_some() {
                        steps.push(Step::Arrives(packet.clone()));
                    }
                }
                Packet::TellRecoverer { reply, .. } => {
                    let mine = |attempt: &Attempt| attempt.ledger == reply.ledger() && !attempt.core.is_done();
                    let attempts = self.attempts.iter().enumerate().filter(|(_, attempt)| mine(attempt));
                    steps.extend(attempts.map(|(index, _)| Step::Hears(index, packet.clone())));
                }
                _ => steps.push(Step::Arrives(packet.clone())),
            }
        }
    }

    fn node_steps(&self, steps: &mut Vec<Step>) {
        for (index, node) in self.nodes.iter().enumerate() {
            if node.account.is_none() {
                steps.push(Step::Restart(index));
                continue;
            }
            if node.disk.is_pending() {
                steps.push(Step::Sync(index));
            }
            if self.meta.image.ledgers.values().any(|ledger| ledger.uploaded.0 > 0) {
                steps.push(Step::Trim(index));
            }
            if !self.left.faulty[index] {
                continue;
            }
            if self.left.crashes > 0 {
                steps.push(Step::Crash(index, Tail::Clean));
                if self.left.torn && node.disk.is_pending() {
                    steps.push(Step::Crash(index, Tail::Torn));
                }
                if self.left.rot > 0 {
                    steps.push(Step::Crash(index, Tail::Rotten));
                }
            }
            if self.left.disk_losses > 0 {
                steps.push(Step::LosesDisk(index));
            }
            let registered = self.meta.image.brokers[&node_id(index)].boot;
            if self.left.old_copies > 0 && registered > 1 {
                steps.push(Step::OldCopy(index));
            }
        }
    }

    /// The world after a step.
    pub fn take(&self, step: &Step) -> World {
        let mut world = self.clone();
        match step {
            Step::Append => world.append(),
            Step::Arrives(packet) => world.arrives(packet),
            Step::Hears(attempt, Packet::TellRecoverer { from, reply }) => {
                world.recovery_event(*attempt, RecoveryEvent::Answered { from: *from, reply: *reply });
            }
            Step::Hears(..) => {}
            Step::Sync(index) => world.sync(*index),
            Step::LosesConnection(node) => {
                world.left.lost_connections -= 1;
                world.writer_event(WriterEvent::Lost { node: *node });
            }
            Step::Up(index) => world.up(*index),
            Step::Unsure => world.unsure(Outcome::Unknown),
            Step::NotProposed(packet) => {
                world.withdraw(packet);
                world.unsure(Outcome::NotProposed);
            }
            Step::Fence => {
                world.left.fences -= 1;
                let (node, epoch) = (node_id(WRITER), world.epoch(WRITER));
                world.propose(&Command::FenceBroker { node, epoch });
            }
            Step::Recover => world.recover(),
            Step::Crash(index, tail) => world.crash(*index, *tail),
            Step::Restart(index) => world.restart(*index),
            Step::LosesDisk(index) => world.loses_disk(*index),
            Step::OldCopy(index) => world.old_copy(*index),
            Step::OpenNext => {
                if world.open_ledger(3) {
                    world.left.successors -= 1;
                }
            }
            Step::Upload => world.upload(),
            Step::Trim(index) => world.trim(*index),
        }
        world.hurry();
        world.tidy_net();
        world
    }

    /// Does at once what comes to the same whenever it is done: without another crash nobody can tell.
    fn hurry(&mut self) {
        if self.left.crashes > 0 {
            return;
        }
        for index in 1..self.nodes.len() {
            if self.nodes[index].account.is_some() && self.nodes[index].disk.is_pending() {
                self.sync(index);
            }
        }
        if self.left.disk_losses > 0 {
            return;
        }
        let runs = |world: &World, node: NodeId| world.nodes[index_of(node)].account.is_some();
        loop {
            let next = self.net.iter().find(|packet| match packet {
                Packet::Confirm { .. } => self.nodes.iter().all(|node| node.account.is_some()),
                Packet::Read { node, .. } => runs(self, *node),
                _ => false,
            });
            let Some(packet) = next.cloned() else { break };
            self.arrives(&packet);
        }
    }

    fn append(&mut self) {
        self.left.appends -= 1;
        let value = self.next_value;
        self.next_value += 1;
        let Some(process) = self.processes.last_mut().map(Rc::make_mut) else { return };
        let Ok((ledger, entry, actions)) = process.writer.append(value) else { return };
        process.waiting.push((ledger, entry, value));
        self.writer_actions(actions);
    }

    /// An event for the writer that lives.
    fn writer_event(&mut self, event: WriterEvent) {
        let Some(process) = self.processes.last_mut().filter(|process| process.alive).map(Rc::make_mut) else { return };
        let actions = process.writer.step(event);
        self.writer_actions(actions);
    }

    fn writer_actions(&mut self, actions: Vec<WriterAction<u8>>) {
        for action in actions {
            match action {
                // The own WAL is not reached through a network.
                WriterAction::Send { to, request } if to.node == node_id(WRITER) => {
                    self.replica_event(WRITER, ReplicaEvent::Asked(request));
                }
                WriterAction::Send { to, request } => self.send(Packet::Ask { to, request }),
                WriterAction::Durable { ledger, below } => self.durable(ledger, below),
                WriterAction::Propose { close, end, replicas } => {
                    let Some(epoch) = self.processes.last().map(|process| process.epoch) else { continue };
                    self.send(Packet::Close { epoch, close, end, replicas });
                }
                WriterAction::Moved { closed, end, opened } => self.moved(closed, end, opened),
                WriterAction::Fenced { .. } => {
                    if let Some(process) = self.processes.last_mut() {
                        Rc::make_mut(process).waiting.clear();
                    }
                }
                WriterAction::Backpressure(_) => {}
            }
        }
    }

    fn replica_event(&mut self, index: usize, event: ReplicaEvent<u8>) {
        let node = self.node_mut(index);
        let Some(account) = &mut node.account else { return };
        let actions = account.step(event);
        for action in actions {
            let node = self.node_mut(index);
            match action {
                ReplicaAction::Write { ledger, entry, payload } => node.disk.write(ledger, entry, payload),
                ReplicaAction::Seal { ledger } => node.disk.seal(ledger),
                ReplicaAction::Trim { ledger, below } => node.disk.trim(ledger, below),
                ReplicaAction::Reply(reply) | ReplicaAction::Announce(reply) => self.dispatch(index, reply),
            }
        }
    }

    /// Sends an answer to whom it concerns.
    fn dispatch(&mut self, index: usize, reply: Reply) {
        let from = self.nodes[index].identity;
        let for_recoverers = match reply {
            Reply::SealAnswer { .. } | Reply::NotSealed { .. } | Reply::Copied { .. } => true,
            Reply::OutOfSequence { ledger, .. } => self.attempts.iter().any(|attempt| attempt.ledger == ledger),
            _ => false,
        };
        if for_recoverers {
            if let Reply::Copied { ledger, .. } = reply {
                // A later position says all that an earlier one says.
                self.net.retain(|packet| {
                    !matches!(packet, Packet::TellRecoverer { from: f, reply: Reply::Copied { ledger: l, .. } }
                        if *f == from && *l == ledger)
                });
            }
            self.send(Packet::TellRecoverer { from, reply });
        }
        if for_recoverers && !matches!(reply, Reply::OutOfSequence { .. }) {
            return;
        }
        if index == WRITER {
            self.writer_event(WriterEvent::Answered { from, reply });
        } else {
            self.send(Packet::TellWriter { from, reply });
        }
    }

    fn arrives(&mut self, packet: &Packet) {
        match packet {
            Packet::Ask { to, request } => {
                let index = index_of(to.node);
                let same = self.nodes[index].identity.incarnation == to.incarnation;
                if same || self.plant.has(Bug::IncarnationIgnored) {
                    self.replica_event(index, ReplicaEvent::Asked(request.clone()));
                }
            }
            Packet::TellWriter { from, reply } => {
                self.writer_event(WriterEvent::Answered { from: *from, reply: *reply });
            }
            Packet::TellRecoverer { .. } => {}
            Packet::Close { .. } => {
                self.withdraw(packet);
                self.close(packet);
            }
            Packet::Decided { epoch, close, outcome } => {
                if self.processes.last().is_some_and(|process| process.epoch == *epoch) {
                    self.writer_event(WriterEvent::Decided { close: *close, outcome: outcome.clone() });
                }
            }
            Packet::Read { attempt, node, from, below } => {
                self.withdraw(packet);
                self.read(*attempt, *node, *from, *below);
            }
            Packet::Confirm { attempt } => {
                self.withdraw(packet);
                let nodes = self.registered();
                self.recovery_event(*attempt, RecoveryEvent::Confirmed(nodes));
            }
            Packet::SetEnd { attempt, ledger, end, holders } => {
                self.withdraw(packet);
                self.set_end(*attempt, *ledger, *end, holders);
            }
        }
    }

    fn sync(&mut self, index: usize) {
        let (moved, sealed) = self.node_mut(index).disk.sync();
        for (ledger, next) in moved {
            self.replica_event(index, ReplicaEvent::Synced { ledger, next });
        }
        for (ledger, answer) in sealed {
            self.replica_event(index, ReplicaEvent::Sealed { ledger, answer });
        }
    }

    fn up(&mut self, index: usize) {
        self.left.spares -= 1;
        let Identity { node, incarnation, .. } = self.nodes[index].identity;
        self.writer_event(WriterEvent::Connected { node });
        self.writer_event(WriterEvent::NodeUp(metadata::Replica { node, incarnation }));
    }

    fn unsure(&mut self, outcome: Outcome) {
        self.left.unsure -= 1;
        let Some(close) = self.processes.last().map(|process| process.writer.ledger()) else { return };
        self.writer_event(WriterEvent::Decided { close, outcome });
        self.writer_event(WriterEvent::Tick { now_ms: 0 });
    }

    /// Carries out a writer's proposal. What it is told is on its way, and may never arrive.
    fn close(&mut self, packet: &Packet) {
        let Packet::Close { epoch, close, end, replicas } = packet.clone() else { return };
        let (node, write_quorum) = (node_id(WRITER), write_quorum(replicas.len()) as u8);
        let closes = Some((close, end));
        let command = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum, close: closes };
        let outcome = match self.propose(&command) {
            Response::Ledger(ledger) => {
                // A ledger that ends where it is uploaded is forgotten in the same step.
                check::note_end(Rc::make_mut(&mut self.ghost), close, end);
                self.list_ledgers();
                Outcome::Opened { ledger, replicas }
            }
            Response::Rejected(Reject::UnsealedLedger(ledger)) => match self.meta.image.ledgers.get(&ledger) {
                Some(open) if open.epoch == epoch => Outcome::Opened { ledger, replicas: open.replicas.clone() },
                _ => Outcome::Fenced,
            },
            Response::Rejected(Reject::ReplicaSet(_) | Reject::UnknownBroker(_)) => Outcome::Declined,
            _ => Outcome::Fenced,
        };
        self.send(Packet::Decided { epoch, close, outcome });
    }

    /// The first ledger without an end whose writer is fenced.
    fn to_recover(&self) -> Option<LedgerId> {
        let image = &self.meta.image;
        let lost = image.ledgers.iter().find(|(_, ledger)| ledger.end.is_none() && image.is_writer_fenced(ledger));
        lost.map(|(id, _)| *id)
    }

    fn recover(&mut self) {
        self.left.recoverers -= 1;
        let Some(ledger) = self.to_recover() else { return };
        let recorded = &self.meta.image.ledgers[&ledger];
        let (core, actions) = Recovery::new(ledger, recorded, self.registered(), self.plant);
        self.attempts.push(Rc::new(Attempt { ledger, core }));
        self.recovery_actions(self.attempts.len() - 1, actions);
    }

    fn recovery_event(&mut self, attempt: usize, event: RecoveryEvent<u8>) {
        let actions = Rc::make_mut(&mut self.attempts[attempt]).core.step(event);
        self.recovery_actions(attempt, actions);
    }

    fn recovery_actions(&mut self, attempt: usize, actions: Vec<RecoveryAction<u8>>) {
        for action in actions {
            match action {
                RecoveryAction::Send { to, request } => self.send(Packet::Ask { to, request }),
                RecoveryAction::Confirm => self.send(Packet::Confirm { attempt }),
                RecoveryAction::Read { node, from, below, .. } => {
                    self.send(Packet::Read { attempt, node, from, below });
                }
                RecoveryAction::Propose { ledger, end, holders } => {
                    self.send(Packet::SetEnd { attempt, ledger, end, holders });
                }
                RecoveryAction::Done { .. } => {}
            }
        }
    }

    fn read(&mut self, attempt: usize, node: NodeId, from: EntryId, below: EntryId) {
        let (ledger, disk) = (self.attempts[attempt].ledger, &self.nodes[index_of(node)].disk);
        let values = (from.0..below.0).map_while(|entry| disk.value(ledger, EntryId(entry)));
        let payloads: Vec<u8> = values.collect();
        let event = match payloads.is_empty() {
            true => RecoveryEvent::ReadFailed { node },
            false => RecoveryEvent::Read { node, from, payloads },
        };
        self.recovery_event(attempt, event);
    }

    fn set_end(&mut self, attempt: usize, ledger: LedgerId, end: EntryId, holders: &[(metadata::Replica, EntryId)]) {
        if self.plant.has(Bug::EndSetTwice)
            && let Some(recorded) = Rc::make_mut(&mut self.meta).image.ledgers.get_mut(&ledger)
        {
            recorded.end = None;
        }
        let holders = holders.iter().map(|(replica, from)| Holder { replica: *replica, from: *from }).collect();
        let uploader = (1..3).find(|index| self.nodes[*index].account.is_some()).unwrap_or(1);
        let command = Command::RecoverLedger { ledger, end, holders, uploader: node_id(uploader) };
        let end = match self.propose(&command) {
            Response::Ok => end,
            Response::Rejected(Reject::SealedElsewhere { end }) => end,
            _ => return,
        };
        self.recovery_event(attempt, RecoveryEvent::EndSet { end });
    }

    /// Ends the process of a node.
    fn stop(&mut self, index: usize) {
        self.node_mut(index).account = None;
        if index == WRITER {
            for process in &mut self.processes {
                let process = Rc::make_mut(process);
                process.alive = false;
                process.waiting.clear();
            }
        }
    }

    fn crash(&mut self, index: usize, tail: Tail) {
        self.left.crashes -= 1;
        if tail == Tail::Rotten {
            self.left.rot -= 1;
        }
        self.stop(index);
        let cuts = self.plant.has(Bug::CutBelowWatermark);
        let node = self.node_mut(index);
        node.disk.crash(tail);
        if cuts {
            node.disk.cut_silently();
        }
    }

    fn restart(&mut self, index: usize) {
        let Identity { incarnation, boot, .. } = self.nodes[index].identity;
        if self.register(index, incarnation, boot + 1) {
            self.node_mut(index).identity.boot = boot + 1;
            self.start(index);
        }
    }

    fn loses_disk(&mut self, index: usize) {
        self.left.disk_losses -= 1;
        self.stop(index);
        let node = self.node_mut(index);
        let incarnation = WalIncarnation([node.identity.incarnation.0[0] + 10; 16]);
        let identity = Identity { incarnation, boot: 0, ..node.identity };
        *node = Node { identity, disk: Default::default(), account: None };
    }

    fn old_copy(&mut self, index: usize) {
        self.left.old_copies -= 1;
        self.stop(index);
        let plant = self.plant;
        let node = self.node_mut(index);
        (node.identity.boot, node.disk) = (1, Default::default());
        // Its image is as old, so no ledger is open there. It answers recoverers.
        node.account = Some(Replica::new(node.identity, Vec::new(), plant));
    }

    /// What is uploaded next: the node that does it, the ledger, and up to where.
    fn next_upload(&self) -> Option<(usize, LedgerId, EntryId)> {
        let image = &self.meta.image;
        let (id, ledger) = image.ledgers.iter().find(|(_, ledger)| !ledger.is_finished())?;
        let process = self.processes.last().filter(|process| process.alive && process.writer.ledger() == *id);
        let through = ledger.end.or(process.map(|process| process.writer.durable()))?;
        let (uploader, broker) = (index_of(ledger.uploader()), image.brokers.get(&ledger.uploader())?);
        let uploader = if ledger.end.is_some() && broker.fenced { 1 } else { uploader };
        let disks = || self.nodes.iter().filter(|node| node.account.is_some()).map(|node| &node.disk);
        let readable =
            (ledger.uploaded.0..through.0).all(|entry| disks().any(|disk| disk.value(*id, EntryId(entry)).is_some()));
        let runs = self.nodes[uploader].account.is_some();
        (through > ledger.uploaded && runs && readable).then_some((uploader, *id, through))
    }

    fn upload(&mut self) {
        self.left.uploads -= 1;
        let Some((index, ledger, through)) = self.next_upload() else { return };
        let (node, epoch) = (node_id(index), self.epoch(index));
        if self.meta.image.ledgers[&ledger].uploader() != node {
            self.propose(&Command::NameUploader { ledger, node, epoch });
        }
        let from = self.meta.image.ledgers[&ledger].uploaded;
        let object = ObjectId(1);
        let (object_bytes, ranges, now_ms) = (1, Vec::new(), 0);
        let commit = Command::CommitUpload { node, epoch, object, object_bytes, ledger, from, through, ranges, now_ms };
        if !self.commit_upload(&commit) {
            return;
        }
        let ghost = Rc::make_mut(&mut self.ghost);
        for entry in (from.0..through.0).map(EntryId) {
            let value = self.nodes.iter().find_map(|node| node.disk.value(ledger, entry));
            ghost.objects.extend(value.map(|value| ((ledger, entry), value)));
        }
    }

    fn trim(&mut self, index: usize) {
        let uploaded: Vec<_> = self.meta.image.ledgers.iter().map(|(id, ledger)| (*id, ledger.uploaded)).collect();
        for (ledger, uploaded) in uploaded {
            self.replica_event(index, ReplicaEvent::Uploaded { ledger, uploaded });
        }
    }
}
