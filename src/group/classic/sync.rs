//! SyncGroup and Heartbeat in a classic group.

use std::collections::HashMap;

use bytes::Bytes;

use crate::group::classic::{ClassicGroup, State, Work};
use crate::group::request::{Heartbeat, SyncGroup};
use crate::group::{GroupError, Reply, SyncGroupReply, Token};

impl ClassicGroup {
    pub(in crate::group) fn sync(&mut self, token: Token, request: SyncGroup, work: &mut Work<'_, '_>) {
        if let Err(error) = self.validate_sync(&request) {
            return work.reply(token, Reply::SyncGroup(SyncGroupReply::refused(error)));
        }
        match self.state {
            State::CompletingRebalance => {
                self.await_sync(token, &request.member, work);
                if self.is_leader(&request.member) {
                    self.assign(&request.assignments, work);
                }
            }
            State::Stable => {
                self.synced(&request.member);
                let assignment = self.members.get(request.member.as_str()).map(|member| member.assignment.clone());
                let reply = SyncGroupReply {
                    error: None,
                    protocol_type: self.protocol_type.as_deref().map(str::to_owned),
                    protocol_name: self.protocol.as_deref().map(str::to_owned),
                    assignment: assignment.unwrap_or_default(),
                };
                work.reply(token, Reply::SyncGroup(reply));
            }
            State::PreparingRebalance | State::Empty => {
                let refused = SyncGroupReply::refused(GroupError::RebalanceInProgress);
                work.reply(token, Reply::SyncGroup(refused));
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroup) -> Result<(), GroupError> {
        if self.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate_member(&request.member, request.instance.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |asked: &Option<String>, own: &Option<Box<str>>| match (asked, own) {
            (Some(asked), Some(own)) => **asked != **own,
            _ => false,
        };
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_sync(&mut self, token: Token, id: &str, work: &mut Work<'_, '_>) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(older) = member.awaiting_sync.replace(token)
        {
            // Only the newest request of a member is answered with the assignment.
            work.reply(older, Reply::SyncGroup(SyncGroupReply::refused(GroupError::RebalanceInProgress)));
        }
        self.synced(id);
    }

    /// The member is in the generation; when all are, nothing is left to wait for.
    fn synced(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            self.pending_sync -= usize::from(std::mem::take(&mut member.pending_sync));
        }
        if self.pending_sync == 0 {
            self.sync_deadline = None;
        }
    }

    /// The leader has assigned. Who is not named gets nothing; who is no member is left out.
    fn assign(&mut self, assignments: &[(String, Bytes)], work: &mut Work<'_, '_>) {
        let by_member: HashMap<&str, &Bytes> = assignments.iter().map(|(id, bytes)| (id.as_str(), bytes)).collect();
        for (id, member) in &mut self.members {
            member.assignment = by_member.get(&**id).map(|bytes| Bytes::copy_from_slice(bytes)).unwrap_or_default();
        }
        let record = self.record(&work.id);
        if !work.write_if_it_fits(&record) {
            self.drop_assignments(GroupError::UnknownServerError, work);
            return self.rebalance_or_complete(work);
        }
        self.set_state(State::Stable, work.now());
        self.answer_syncs(None, work);
    }

    pub(in crate::group) fn heartbeat(
        &mut self,
        request: &Heartbeat,
        work: &mut Work<'_, '_>,
    ) -> Result<(), GroupError> {
        self.validate_member(&request.member, request.instance.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => {
                self.touch(&request.member, work);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.touch(&request.member, work);
                Ok(())
            }
        }
    }
}
