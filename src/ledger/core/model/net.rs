//! What is on its way. A packet stays until it can change nothing any more.

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId};
use crate::metadata;

use super::super::writer::Outcome;
use super::{Bug, Identity, Reply, Request, World, WriterEvent, index_of};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packet {
    Ask {
        to: metadata::Replica,
        request: Request<u8>,
    },
    TellWriter {
        from: Identity,
        reply: Reply,
    },
    TellRecoverer {
        from: Identity,
        reply: Reply,
    },
    /// A proposal of a writer: close one ledger, open the next.
    Close {
        epoch: BrokerEpoch,
        close: LedgerId,
        end: EntryId,
        replicas: Vec<metadata::Replica>,
    },
    Decided {
        epoch: BrokerEpoch,
        close: LedgerId,
        outcome: Outcome,
    },
    /// A recoverer reads from a node.
    Read {
        attempt: usize,
        node: NodeId,
        from: EntryId,
        below: EntryId,
    },
    /// A recoverer asks who is registered.
    Confirm {
        attempt: usize,
    },
    /// A recoverer proposes an end.
    SetEnd {
        attempt: usize,
        ledger: LedgerId,
        end: EntryId,
        holders: Vec<(metadata::Replica, EntryId)>,
    },
}

impl World {
    pub fn send(&mut self, packet: Packet) {
        if let Err(place) = self.net.binary_search(&packet) {
            self.net.insert(place, packet);
        }
    }

    pub fn withdraw(&mut self, packet: &Packet) {
        if let Ok(place) = self.net.binary_search(packet) {
            self.net.remove(place);
        }
    }

    /// Takes away what could change nothing any more, whatever happens: entries that are synced where they are sent to,
    /// when nothing can take them away again; what is addressed to a disk that is gone; answers about ledgers that every
    /// writer has left, or that say less than the writer knows.
    pub fn tidy_net(&mut self) {
        let mut net = std::mem::take(&mut self.net);
        net.retain(|packet| self.matters(packet));
        self.net = net;
    }

    fn may_lose_synced(&self) -> bool {
        self.left.rot > 0 || self.plant.has(Bug::CutBelowWatermark)
    }

    fn matters(&self, packet: &Packet) -> bool {
        match packet {
            Packet::Ask { to, request } => {
                let node = &self.nodes[index_of(to.node)];
                let lost = node.identity.incarnation != to.incarnation && !self.plant.has(Bug::IncarnationIgnored);
                let synced = match request {
                    // An older copy of the WAL takes nothing from a writer.
                    Request::Append { ledger, entry, .. } => *entry < node.disk.synced_next(*ledger),
                    Request::Recover { ledger, entry, .. } => {
                        *entry < node.disk.synced_next(*ledger) && self.left.old_copies == 0
                    }
                    Request::Seal { .. } => false,
                };
                !lost && (!synced || self.may_lose_synced())
            }
            Packet::TellWriter { from, reply } => self.processes.iter().any(|process| {
                if !process.alive || process.writer.is_fenced() || process.writer.ledger() > reply.ledger() {
                    return false;
                }
                if process.writer.ledger() < reply.ledger() || !matches!(reply, Reply::Position { .. }) {
                    return true;
                }
                let mut twin = process.writer.clone();
                let event = WriterEvent::Answered { from: *from, reply: *reply };
                !(twin.step(event).is_empty() && twin == process.writer)
            }),
            Packet::Decided { epoch, close, .. } => self.processes.iter().any(|process| {
                let lives = process.alive && !process.writer.is_fenced();
                process.epoch == *epoch && lives && process.writer.ledger() == *close
            }),
            Packet::Read { attempt, .. } | Packet::Confirm { attempt } | Packet::SetEnd { attempt, .. } => {
                !self.attempts[*attempt].core.is_done()
            }
            Packet::TellRecoverer { .. } | Packet::Close { .. } => true,
        }
    }
}
