//! Another set of replicas for what is written from now on.

use crate::base::{EntryId, LedgerId, NodeId};
use crate::metadata;

use super::super::plant::Bug;
use super::member::{Lost, Member};
use super::{Payload, State, Writer, WriterAction, write_quorum};

/// What came of a proposal to close one ledger and open the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The command was carried out, or an earlier one like it: this ledger is open for this process now. A driver that is
    /// told that another ledger has to be sealed first, one of its own epoch, looks its set up and answers this.
    Opened { ledger: LedgerId, replicas: Vec<metadata::Replica> },
    /// The set was refused: a node has another WAL by now, or is unknown. Nothing was changed.
    Declined,
    /// It certainly was not proposed and never will be, for no leader was known.
    NotProposed,
    /// It may have been carried out, and may still be.
    Unknown,
    /// The broker epoch is not the present one, or the ledger was sealed by a recoverer.
    Fenced,
}

/// The ledger is being closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Closing {
    /// Where, in every proposal until one is answered.
    end: EntryId,
    /// A proposal may be on its way though no answer is expected: the ledger may be closed at any time.
    uncertain: bool,
    /// The driver is waiting for an answer.
    asked: bool,
}

impl<P: Payload> Writer<P> {
    /// Proposes another set if a member has to go or may leave, or if there is a spare for a set that is too small.
    pub(super) fn consider(&mut self, actions: &mut Vec<WriterAction<P>>) {
        if self.state != State::Open || self.now_ms < self.retry_at_ms {
            return;
        }
        let mut has_to_go = false;
        for index in 0..self.members.len() {
            if !self.must_go(&self.members[index]) {
                continue;
            }
            has_to_go = true;
            let member = &mut self.members[index];
            let replica = member.replica;
            // It is a spare again when it is said to be up after that.
            if !std::mem::replace(&mut member.passed_over, true)
                && self.up.get(&replica.node) == Some(&replica.incarnation)
            {
                self.up.remove(&replica.node);
            }
        }
        let set = self.wanted();
        // Nobody is left for the sake of others that are out of reach at the moment.
        let (stay, leave): (Vec<&Member>, Vec<_>) = self.members.iter().partition(|m| set.contains(&m.replica));
        let leaves = !leave.is_empty() && stay.iter().all(|member| member.lost.is_none());
        if set.len() >= self.least() && (has_to_go || leaves || set.len() > self.members.len()) {
            self.state = State::Closing(Closing { end: self.durable, uncertain: false, asked: true });
            self.propose(self.durable, set, actions);
        }
    }

    pub(super) fn must_go(&self, member: &Member) -> bool {
        member.replica.node != self.own && member.must_go(self.now_ms, self.options.gone_ms)
    }

    /// The own WAL, the members that may stay, and spares up to the number wished for. Of nodes that are leaving only as many
    /// as it takes for a second copy, members before others.
    fn wanted(&self) -> Vec<metadata::Replica> {
        let able = self.members.iter().filter(|member| !self.must_go(member)).map(|member| member.replica);
        let (leaving, mut set): (Vec<_>, Vec<_>) = able.partition(|replica| self.is_leaving(replica.node));
        self.fill(&mut set, self.options.replicas, false);
        let least: usize = if self.may_be_alone { 1 } else { 2 };
        set.extend(leaving.into_iter().take(least.saturating_sub(set.len())));
        self.fill(&mut set, least, true);
        set
    }

    /// Takes spares, such as are leaving or others, until the set has `size` members.
    fn fill(&self, set: &mut Vec<metadata::Replica>, size: usize, leaving: bool) {
        // The ring from the own node on, so that not every writer chooses the same spare.
        let mut spares: Vec<_> = self.up.iter().map(|(node, wal)| (*node < self.own, *node, *wal)).collect();
        spares.retain(|(_, node, _)| self.is_leaving(*node) == leaving);
        spares.sort_unstable();
        while set.len() < size {
            let free = spares.iter().filter(|(_, node, _)| set.iter().all(|replica| replica.node != *node));
            let Some((_, node, incarnation)) = free.min_by_key(|(_, node, _)| self.shares_rack(*node, set)) else {
                break;
            };
            set.push(metadata::Replica { node: *node, incarnation: *incarnation });
        }
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        node != self.own && self.leaving.contains(&node)
    }

    /// Whether a member of `set` stands in the rack of `node`.
    fn shares_rack(&self, node: NodeId, set: &[metadata::Replica]) -> bool {
        let rack = self.racks.get(&node);
        rack.is_some() && set.iter().any(|replica| self.racks.get(&replica.node) == rack)
    }

    fn propose(&self, end: EntryId, replicas: Vec<metadata::Replica>, actions: &mut Vec<WriterAction<P>>) {
        actions.push(WriterAction::Propose { close: self.ledger, end, replicas });
    }

    pub(super) fn decided(&mut self, close: LedgerId, outcome: Outcome, actions: &mut Vec<WriterAction<P>>) {
        // The answer to an earlier proposal, which was carried out twice or not at all, says nothing about this ledger.
        if close != self.ledger {
            return;
        }
        match outcome {
            Outcome::Opened { ledger, replicas } => return self.opened(ledger, &replicas, actions),
            Outcome::Fenced => return self.fence("the metadata do not know this broker epoch any more", actions),
            Outcome::Declined | Outcome::NotProposed | Outcome::Unknown => {}
        }
        self.retry_at_ms = self.now_ms.saturating_add(self.options.retry_ms);
        let State::Closing(closing) = &mut self.state else { return };
        closing.asked = false;
        closing.uncertain |= outcome == Outcome::Unknown;
        if !closing.uncertain {
            // Nothing can close the ledger: go on in it.
            self.state = State::Open;
        }
    }

    /// Proposes again what may or may not have been carried out: the same end, with the set that is best by now.
    pub(super) fn retry(&mut self, actions: &mut Vec<WriterAction<P>>) {
        let State::Closing(closing) = &self.state else { return };
        if closing.asked || self.now_ms < self.retry_at_ms {
            return;
        }
        let mut set = self.wanted();
        if set.len() < self.least() {
            // It has to be decided all the same, or the ledger would be closed for ever.
            set = self.members.iter().map(|member| member.replica).collect();
        }
        let end = closing.end;
        self.state = State::Closing(Closing { end, uncertain: true, asked: true });
        self.propose(end, set, actions);
    }

    /// Goes over to the next ledger.
    fn opened(&mut self, ledger: LedgerId, replicas: &[metadata::Replica], actions: &mut Vec<WriterAction<P>>) {
        if ledger <= self.ledger {
            return;
        }
        let State::Closing(closing) = &self.state else {
            // Somebody closed it at a position that may be below what was acknowledged since.
            return self.fence("the ledger was closed while it was being written", actions);
        };
        let (closed, end) = (self.ledger, closing.end);
        let mut below = end;
        if self.plant.has(Bug::EntryReused) {
            below = self.next();
        }
        while self.first < below {
            let Some(payload) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(payload.bytes());
            self.first = self.first.next();
        }
        self.ledger = ledger;
        (self.first, self.durable) = (EntryId(0), EntryId(0));
        self.write_quorum = write_quorum(replicas.len());
        let gone: Vec<NodeId> = self.members.iter().filter(|m| self.is_away(m)).map(|m| m.replica.node).collect();
        self.members = replicas.iter().map(|replica| Member::new(*replica, self.now_ms)).collect();
        for node in gone {
            let since_ms = self.now_ms;
            self.with_member(node, |member| member.lose(Lost::Gone { since_ms }));
        }
        self.state = State::Open;
        actions.push(WriterAction::Moved { closed, end, opened: ledger });
    }

    /// No connection to it that the next set would find.
    fn is_away(&self, member: &Member) -> bool {
        member.replica.node != self.own && matches!(member.lost, Some(Lost::Gone { .. }))
    }
}
