//! A static member that comes back without its member id takes the place of its former self (KIP-345, KIP-814).

use std::sync::Arc;

use crate::group::classic::join::Joining;
use crate::group::classic::member::MemberId;
use crate::group::classic::{ClassicGroup, State, Work};
use crate::group::{GroupError, JoinGroupReply, Reply, SyncGroupReply};

/// The version of JoinGroup from which on a leader can be told to skip the assignment (KIP-814).
const KNOWS_SKIP_ASSIGNMENT: i16 = 9;

impl ClassicGroup {
    /// Without a rebalance where the group is stable and would choose the same protocol.
    pub(super) fn take_over(&mut self, joining: Joining, old: &MemberId, new: MemberId, work: &mut Work<'_, '_>) {
        let old_leader = self.leader.clone();
        self.replace(old, &new, work);
        self.touch(&new, work);
        self.update(&new, joining.protocols.clone(), joining.timeouts(), joining.token, work);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                let record = self.record(&work.id);
                if !work.write_if_it_fits(&record) {
                    // What cannot be written cannot be kept: the members shall agree anew.
                    return self.rebalance_or_complete(work);
                }
                self.subscribed = self.subscriptions();
                let reply = if joining.request.version >= KNOWS_SKIP_ASSIGNMENT {
                    let leader = self.is_leader(&new);
                    let members = if leader { self.joined_members() } else { Arc::new([]) };
                    self.joined(&new, members, leader)
                } else {
                    // An older leader must not believe that it leads, or it would assign.
                    let leader = old_leader.as_deref().unwrap_or_default().to_owned();
                    JoinGroupReply { leader, ..self.joined(&new, Arc::new([]), false) }
                };
                self.complete_join(&new, reply, work);
            }
            State::Stable => self.rebalance_or_complete(work),
            State::CompletingRebalance => self.prepare_rebalance(work),
            State::PreparingRebalance | State::Empty => self.complete_join_phase(work),
        }
    }

    /// The new id gets everything of the old one; whoever waits under the old one is fenced.
    fn replace(&mut self, old: &MemberId, new: &MemberId, work: &mut Work<'_, '_>) {
        let fenced = JoinGroupReply::refused(&**old, GroupError::FencedInstanceId);
        self.complete_join(old, fenced, work);
        let Some(mut member) = self.members.remove(old) else { return };
        if let Some(token) = member.awaiting_sync.take() {
            work.reply(token, Reply::SyncGroup(SyncGroupReply::refused(GroupError::FencedInstanceId)));
        }
        member.is_new = false;
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), new.clone());
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        self.members.insert(new.clone(), member);
    }
}
