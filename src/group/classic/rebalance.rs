//! The two phases of a rebalance: everybody joins, then the next generation begins and everybody synchronises.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::group::classic::{ClassicGroup, JoinTimer, MemberId, State, Work};
use crate::group::{GroupError, JoinGroupReply, Reply, SyncGroupReply};

/// Milliseconds at least after which a join that nobody came to is looked at again.
const JOIN_AGAIN_MS: i64 = 1_000;

impl ClassicGroup {
    /// Something changed: begins a rebalance, or ends the join that is under way if nobody is missing any more.
    pub(super) fn rebalance_or_complete(&mut self, work: &mut Work<'_, '_>) {
        if self.state == State::PreparingRebalance {
            self.complete_join_phase(work);
        } else {
            self.prepare_rebalance(work);
        }
    }

    /// Ends the join if everybody is there. A group that was empty waits for its delay first.
    pub(super) fn complete_join_phase(&mut self, work: &mut Work<'_, '_>) {
        if self.state == State::PreparingRebalance && !self.initial && self.all_joined() {
            self.complete_rebalance(work);
        }
    }

    pub(in crate::group) fn prepare_rebalance(&mut self, work: &mut Work<'_, '_>) {
        if self.state == State::CompletingRebalance {
            self.drop_assignments(GroupError::RebalanceInProgress, work);
        }
        self.clear_pending_sync();
        self.initial = self.state == State::Empty;
        self.set_state(State::PreparingRebalance, work.now());
        if self.initial {
            let delay_ms = i64::from(work.options.initial_rebalance_delay_ms.max(0));
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.join_timer = Some(JoinTimer::Initial { at: work.deadline(delay_ms), delay_ms, remaining_ms });
        } else if self.all_joined() {
            self.complete_rebalance(work);
        } else {
            self.join_timer = Some(JoinTimer::Rebalance { at: work.deadline(self.rebalance_timeout_ms()) });
        }
    }

    fn clear_pending_sync(&mut self) {
        self.members.values_mut().for_each(|member| member.pending_sync = false);
        self.pending_sync = 0;
        self.sync_deadline = None;
    }

    /// The join timer has fired.
    pub(super) fn join_timer_due(&mut self, timer: JoinTimer, work: &mut Work<'_, '_>) {
        self.join_timer = None;
        match timer {
            JoinTimer::Initial { delay_ms, remaining_ms, .. } if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_ms = i64::from(work.options.initial_rebalance_delay_ms.max(0)).min(remaining_ms);
                let remaining_ms = (remaining_ms - delay_ms).max(0);
                let at = work.deadline(next_ms);
                self.join_timer = Some(JoinTimer::Initial { at, delay_ms: next_ms, remaining_ms });
            }
            _ => self.complete_rebalance(work),
        }
    }

    /// Ends the join with those that are there: dynamic members that are not are out, static ones stay.
    pub(super) fn complete_rebalance(&mut self, work: &mut Work<'_, '_>) {
        self.join_timer = None;
        let missing = |member: &&super::Member| member.awaiting_join.is_none() && member.instance.is_none();
        let gone: Vec<MemberId> =
            self.members.iter().filter(|(_, m)| missing(&&***m)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove(id, work));
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members, none of which came: the join goes on.
            let timeout_ms = self.rebalance_timeout_ms().max(JOIN_AGAIN_MS);
            self.join_timer = Some(JoinTimer::Rebalance { at: work.deadline(timeout_ms) });
            return;
        }
        self.next_generation(work);
    }

    /// A leader that did not join gives way to a member that did; false if none did.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &MemberId| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        match self.members.iter().find(|(_, member)| member.awaiting_join.is_some()) {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    fn next_generation(&mut self, work: &mut Work<'_, '_>) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.initial = false;
        self.new_member_added = false;
        self.clear_pending_sync();
        self.protocol = self.select_protocol();
        self.subscribed = self.subscriptions();
        if self.members.is_empty() {
            self.leader = None;
            self.set_state(State::Empty, work.now());
            let record = self.record(&work.id);
            work.call.write(&record);
            return;
        }
        self.set_state(State::CompletingRebalance, work.now());
        let everybody = self.joined_members();
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let members = if self.is_leader(&id) { everybody.clone() } else { Arc::new([]) };
            let reply = self.joined(&id, members, false);
            self.complete_join(&id, reply, work);
            self.touch(&id, work);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
                member.pending_sync = true;
            }
        }
        self.pending_sync = self.members.len();
        self.sync_deadline = Some(work.deadline(self.rebalance_timeout_ms()));
    }

    /// Nobody keeps an assignment; whoever waits for one gets the error.
    pub(super) fn drop_assignments(&mut self, error: GroupError, work: &mut Work<'_, '_>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        self.answer_syncs(Some(error), work);
    }

    pub(super) fn answer_syncs(&mut self, error: Option<GroupError>, work: &mut Work<'_, '_>) {
        let (protocol_type, protocol_name) = match error {
            Some(_) => (None, None),
            None => (self.protocol_type.as_deref(), self.protocol.as_deref()),
        };
        for member in self.members.values_mut() {
            let Some(token) = member.awaiting_sync.take() else { continue };
            member.deadline = Some(work.deadline(i64::from(member.session_timeout_ms)));
            let reply = SyncGroupReply {
                error,
                protocol_type: protocol_type.map(str::to_owned),
                protocol_name: protocol_name.map(str::to_owned),
                assignment: member.assignment.clone(),
            };
            work.reply(token, Reply::SyncGroup(reply));
        }
    }

    /// Everyone that waits, for a join or a sync, gets the error: the group is about to be converted (KIP-848).
    pub(in crate::group) fn answer_all(&mut self, error: GroupError, work: &mut Work<'_, '_>) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            self.complete_join(&id, JoinGroupReply::refused(&*id, error), work);
        }
        for member in self.members.values_mut() {
            if let Some(token) = member.awaiting_sync.take() {
                work.reply(token, Reply::SyncGroup(SyncGroupReply::refused(error)));
            }
        }
    }

    /// The earliest deadline of the group and of its members.
    pub(in crate::group) fn next_deadline(&self) -> Option<Duration> {
        let members = self.members.values().filter_map(|member| member.deadline);
        let pending = self.pending.values().copied();
        let timers = self.join_timer.map(JoinTimer::at).into_iter().chain(self.sync_deadline);
        members.chain(pending).chain(timers).min()
    }
}
