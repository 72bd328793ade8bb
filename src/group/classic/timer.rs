//! What the passing of time does to a classic group: sessions end, joins and syncs are not waited for any longer.

use std::time::Duration;

use crate::group::classic::{ClassicGroup, MemberId, State, Work};

impl ClassicGroup {
    /// Does everything that is due. The caller asks for the next deadline afterwards.
    pub(in crate::group) fn on_timer(&mut self, work: &mut Work<'_, '_>) {
        let now = work.now().monotonic;
        self.expire_pending(now, work);
        self.expire_sessions(now, work);
        if let Some(timer) = self.join_timer.filter(|timer| timer.at() <= now) {
            self.join_timer_due(timer, work);
        }
        if self.sync_deadline.is_some_and(|at| at <= now) {
            self.expire_sync(work);
        }
    }

    /// Members that never came with the id that they were given.
    fn expire_pending(&mut self, now: Duration, work: &mut Work<'_, '_>) {
        let before = self.pending.len();
        self.pending.retain(|_, at| *at > now);
        if self.pending.len() < before {
            self.complete_if_all_joined(work);
        }
    }

    /// A member that waits for a rebalance cannot send heartbeats: its session stands still until it is answered, but
    /// for one that is new and may have given up.
    fn expire_sessions(&mut self, now: Duration, work: &mut Work<'_, '_>) {
        let mut over: Vec<MemberId> = vec![];
        for (id, member) in &mut self.members {
            if member.deadline.is_none_or(|at| at > now) {
                continue;
            }
            member.deadline = None;
            let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
            if member.is_new || !waits {
                over.push(id.clone());
            }
        }
        if over.is_empty() {
            return;
        }
        over.iter().for_each(|id| self.remove(id, work));
        match self.state {
            State::Stable | State::CompletingRebalance => self.rebalance_or_complete(work),
            State::PreparingRebalance => self.complete_if_all_joined(work),
            State::Empty => {}
        }
    }

    /// Also in the first rebalance of a group: without those that are gone there is nothing to wait for.
    fn complete_if_all_joined(&mut self, work: &mut Work<'_, '_>) {
        if self.state == State::PreparingRebalance && self.all_joined() {
            self.complete_rebalance(work);
        }
    }

    /// Members that joined and did not synchronise in time are out.
    fn expire_sync(&mut self, work: &mut Work<'_, '_>) {
        self.sync_deadline = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync == 0 {
            return;
        }
        let late: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| member.pending_sync).map(|(id, _)| id.clone()).collect();
        late.iter().for_each(|id| self.remove(id, work));
        self.prepare_rebalance(work);
    }

    /// After loading: every member gets a whole session, and a group that is too large a rebalance.
    pub(in crate::group) fn loaded(&mut self, work: &mut Work<'_, '_>) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        ids.iter().for_each(|id| self.touch(id, work));
        if i64::try_from(self.members.len()).is_ok_and(|members| members > i64::from(work.options.max_size)) {
            self.prepare_rebalance(work);
        }
    }
}
