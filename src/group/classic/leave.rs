//! LeaveGroup in a classic group: several members at once, static ones by their instance id (KIP-345).

use crate::group::classic::{ClassicGroup, State, Work};
use crate::group::request::LeavingMember;
use crate::group::{GroupError, LeftMember};

impl ClassicGroup {
    /// One answer a member, in their order.
    pub(in crate::group) fn leave(&mut self, members: Vec<LeavingMember>, work: &mut Work<'_, '_>) -> Vec<LeftMember> {
        let left: Vec<LeftMember> = members.into_iter().map(|member| self.leave_one(member, work)).collect();
        if left.iter().any(|member| member.error.is_none()) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.rebalance_or_complete(work),
                State::PreparingRebalance => self.complete_join_phase(work),
                State::Empty => {}
            }
        }
        left
    }

    fn leave_one(&mut self, leaving: LeavingMember, work: &mut Work<'_, '_>) -> LeftMember {
        let LeavingMember { member, instance, .. } = leaving;
        let found = if member.is_empty() {
            let holder = instance.as_deref().and_then(|instance| self.statics.get(instance));
            holder.cloned().ok_or(GroupError::UnknownMemberId)
        } else if self.pending.contains_key(member.as_str()) {
            Ok(member.as_str().into())
        } else {
            self.validate_member(&member, instance.as_deref()).map(|()| member.as_str().into())
        };
        let error = found.map(|id| self.remove(&id, work)).err();
        LeftMember { member, instance, error }
    }
}
