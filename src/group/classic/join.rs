//! JoinGroup in a classic group: who comes in, who has to wait, who is answered at once.

use std::sync::Arc;

use crate::env::Entropy;
use crate::group::bounds;
use crate::group::classic::member::{Member, MemberId, Protocols, own};
use crate::group::classic::{ClassicGroup, State, Work};
use crate::group::request::JoinGroup;
use crate::group::{GroupError, JoinGroupReply, JoinedMember, Reply, Token};

/// Milliseconds that a member may wait for its first join, whatever its session timeout.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60_000;
/// The version of JoinGroup from which on a dynamic member has to come with an id (KIP-394).
const REQUIRES_MEMBER_ID: i16 = 4;

/// A request on its way through the group, with its protocols copied out of the request's buffer.
pub(super) struct Joining {
    pub request: JoinGroup,
    pub protocols: Protocols,
    pub token: Token,
}

impl Joining {
    pub fn timeouts(&self) -> (i32, i32) {
        (self.request.session_timeout_ms, self.request.rebalance_timeout_ms)
    }
}

fn refuse(work: &mut Work<'_, '_>, token: Token, member: &str, error: GroupError) {
    work.reply(token, Reply::JoinGroup(JoinGroupReply::refused(member, error)));
}

impl ClassicGroup {
    /// The group may be new and empty; a request that is refused leaves it so.
    pub(in crate::group) fn join(
        &mut self,
        token: Token,
        request: JoinGroup,
        entropy: &dyn Entropy,
        work: &mut Work<'_, '_>,
    ) {
        if !self.accepts(&request.member, work) {
            self.remove(&request.member, work);
            refuse(work, token, "", GroupError::GroupMaxSizeReached);
            return self.complete_join_phase(work);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            let member = request.member.clone();
            return refuse(work, token, &member, GroupError::InconsistentGroupProtocol);
        }
        let joining = Joining { protocols: own(&request.protocols), token, request };
        if joining.request.member.is_empty() {
            self.join_without_id(joining, entropy, work);
        } else {
            self.join_with_id(joining, work);
        }
    }

    /// That there is room. A group that is over its size after a restart loses whoever comes back last.
    fn accepts(&self, member: &str, work: &Work<'_, '_>) -> bool {
        let max = usize::try_from(work.options.max_size).unwrap_or(0).min(bounds::GROUP_MEMBERS_MAX);
        let known = self.members.get(member);
        let room = match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_join < max
            }
            State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < max,
        };
        let expected = known.is_some() || self.pending.contains_key(member);
        room && (expected || self.members.len() + self.pending.len() < bounds::GROUP_MEMBERS_MAX)
    }

    fn join_without_id(&mut self, joining: Joining, entropy: &dyn Entropy, work: &mut Work<'_, '_>) {
        let request = &joining.request;
        if let Some(instance) = &request.instance {
            let id = Self::member_id(instance, entropy);
            return match self.statics.get(instance.as_str()).cloned() {
                Some(holder) => self.take_over(joining, &holder, id, work),
                None => self.join_new(joining, id, work),
            };
        }
        let id = Self::member_id(&request.client.id, entropy);
        if request.version < REQUIRES_MEMBER_ID {
            return self.join_new(joining, id, work);
        }
        let at = work.deadline(i64::from(request.session_timeout_ms));
        refuse(work, joining.token, &id, GroupError::MemberIdRequired);
        self.pending.insert(id, at);
    }

    fn join_with_id(&mut self, joining: Joining, work: &mut Work<'_, '_>) {
        let (id, instance) = (joining.request.member.as_str(), joining.request.instance.as_deref());
        if self.pending.contains_key(id) {
            if instance.is_some() {
                // The id was given to a dynamic member.
                return refuse(work, joining.token, id, GroupError::UnknownServerError);
            }
            let id = MemberId::from(id);
            return self.join_new(joining, id, work);
        }
        if let Err(error) = self.validate_member(id, instance) {
            return refuse(work, joining.token, id, error);
        }
        let Some(member) = self.members.get(id) else { return };
        let unchanged = member.offers_exactly(&joining.protocols);
        let leader = self.is_leader(id);
        let answered_at_once = match self.state {
            State::Empty => return refuse(work, joining.token, id, GroupError::UnknownMemberId),
            State::PreparingRebalance => false,
            // The answer to its join was lost: the same one again.
            State::CompletingRebalance => unchanged,
            // A leader that joins again wants a rebalance: it has seen a change of metadata.
            State::Stable => unchanged && !leader,
        };
        if answered_at_once {
            let all = leader && self.state == State::CompletingRebalance;
            let members = if all { self.joined_members() } else { Arc::new([]) };
            let reply = self.joined(id, members, false);
            return work.reply(joining.token, Reply::JoinGroup(reply));
        }
        let id = id.to_owned();
        self.update(&id, joining.protocols.clone(), joining.timeouts(), joining.token, work);
        self.rebalance_or_complete(work);
    }

    fn join_new(&mut self, joining: Joining, id: MemberId, work: &mut Work<'_, '_>) {
        let Joining { request, protocols, token } = joining;
        let member = Member {
            instance: request.instance.map(String::into_boxed_str),
            client_id: request.client.id.into(),
            client_host: request.client.host.into(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols,
            assignment: bytes::Bytes::new(),
            is_new: true,
            pending_sync: false,
            awaiting_join: Some(token),
            awaiting_sync: None,
            deadline: Some(work.deadline(NEW_MEMBER_JOIN_TIMEOUT_MS)),
        };
        if self.state == State::PreparingRebalance && self.initial {
            self.new_member_added = true;
        }
        self.add(id, member, &request.protocol_type);
        self.rebalance_or_complete(work);
    }

    /// The answer to a join of this generation.
    pub(super) fn joined(&self, member: &str, members: Arc<[JoinedMember]>, skip_assignment: bool) -> JoinGroupReply {
        JoinGroupReply {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol_name: self.protocol.as_deref().map(str::to_owned),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment,
            member: member.to_owned(),
            members,
        }
    }

    /// Everybody with the metadata of the protocol chosen: what a leader assigns by.
    pub(super) fn joined_members(&self) -> Arc<[JoinedMember]> {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member: id.to_string(),
            instance: member.instance.as_deref().map(str::to_owned),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }
}
