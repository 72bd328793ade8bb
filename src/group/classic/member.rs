//! One member of a classic group, and the bookkeeping of members in their group.
//!
//! An idle member is to take little memory: bytes of a request are copied out of its buffer, names are exact, and
//! nothing grows by doubling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::group::classic::{ClassicGroup, State, Work};
use crate::group::request::Protocol;
use crate::group::{GroupError, JoinGroupReply, Reply, SyncGroupReply, Token};

pub(in crate::group) type MemberId = Arc<str>;

/// Protocols with their metadata, in the order of preference.
pub(in crate::group) type Protocols = Box<[(Box<str>, Bytes)]>;

pub(in crate::group) struct Member {
    pub instance: Option<Box<str>>,
    pub client_id: Box<str>,
    pub client_host: Box<str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Protocols,
    pub assignment: Bytes,
    /// Joined, and the first join is not over: its session does not stand still while it waits.
    pub is_new: bool,
    /// Has yet to synchronise with the generation that it joined.
    pub pending_sync: bool,
    pub awaiting_join: Option<Token>,
    pub awaiting_sync: Option<Token>,
    /// When its session ends; None while it waits.
    pub deadline: Option<Duration>,
}

impl Member {
    pub fn session(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms.max(0).unsigned_abs().into())
    }

    /// The metadata of a protocol; empty where the member does not offer it.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let offered = protocol.and_then(|protocol| self.protocols.iter().find(|(name, _)| **name == *protocol));
        offered.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// The same protocols in the same order, with the same metadata.
    pub fn offers_exactly(&self, protocols: &Protocols) -> bool {
        self.protocols == *protocols
    }
}

/// Copies protocols out of the request's buffer. Of two with one name the first counts.
pub(in crate::group) fn own(protocols: &[Protocol]) -> Protocols {
    let mut owned: Vec<(Box<str>, Bytes)> = Vec::with_capacity(protocols.len());
    for protocol in protocols {
        if !owned.iter().any(|(name, _)| **name == *protocol.name) {
            owned.push((protocol.name.as_str().into(), Bytes::copy_from_slice(&protocol.metadata)));
        }
    }
    owned.into()
}

impl ClassicGroup {
    fn count_protocols(&mut self, protocols: &Protocols, add: bool) {
        for (name, _) in protocols {
            if add {
                *self.supported.entry(name.clone()).or_default() += 1;
            } else if let Some(count) = self.supported.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }

    /// That a member with these protocols fits in: the group's type, and a protocol that all members offer.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let everyone = self.members.len();
        let offered = |name: &str| self.supported.get(name).copied().unwrap_or(0) == everyone;
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|protocol| offered(&protocol.name))
    }

    /// The protocol of the next generation: each member votes for its first that all offer; most votes win.
    pub(super) fn select_protocol(&self) -> Option<Box<str>> {
        let everyone = self.members.len();
        let candidate = |name: &str| self.supported.get(name).copied().unwrap_or(0) == everyone;
        let mut votes: Vec<(&str, usize)> = vec![];
        for member in self.members.values() {
            let Some((choice, _)) = member.protocols.iter().find(|(name, _)| candidate(name)) else { continue };
            match votes.iter_mut().find(|(name, _)| **name == **choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| Box::from(*name))
    }

    /// Takes a member in. The first one rules the type of the group and leads it.
    pub(in crate::group) fn add(&mut self, id: MemberId, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.into());
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.count_protocols(&member.protocols, true);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.pending.remove(&id);
        self.members.insert(id, Box::new(member));
    }

    /// Takes a member out, also one that is only expected. Whoever waits in its name is told.
    pub(super) fn remove(&mut self, id: &str, work: &mut Work<'_, '_>) {
        self.pending.remove(id);
        let Some(mut member) = self.members.remove(id) else { return };
        self.count_protocols(&member.protocols, false);
        self.pending_sync -= usize::from(member.pending_sync);
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            work.reply(token, Reply::JoinGroup(JoinGroupReply::refused("", GroupError::UnknownMemberId)));
        }
        if let Some(token) = member.awaiting_sync.take() {
            work.reply(token, Reply::SyncGroup(SyncGroupReply::refused(GroupError::UnknownMemberId)));
        }
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// A member joins again, with what it offers now, and waits.
    pub(super) fn update(
        &mut self,
        id: &str,
        protocols: Protocols,
        timeouts: (i32, i32),
        token: Token,
        work: &mut Work<'_, '_>,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        (member.session_timeout_ms, member.rebalance_timeout_ms) = timeouts;
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        match member.awaiting_join.replace(token) {
            // Only the newest request of a member is answered with the result.
            Some(older) => {
                let refused = JoinGroupReply::refused(id, GroupError::RebalanceInProgress);
                work.reply(older, Reply::JoinGroup(refused));
            }
            None => self.awaiting_join += 1,
        }
        self.count_protocols(&before, false);
        self.count_protocols(&protocols, true);
    }

    /// Answers the join that a member waits for.
    pub(super) fn complete_join(&mut self, id: &str, reply: JoinGroupReply, work: &mut Work<'_, '_>) {
        if let Some(token) = self.members.get_mut(id).and_then(|member| member.awaiting_join.take()) {
            self.awaiting_join -= 1;
            work.reply(token, Reply::JoinGroup(reply));
        }
    }
}
