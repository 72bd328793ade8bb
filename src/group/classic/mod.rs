//! Classic groups: members join, one of them assigns, all synchronise (KIP-62, 345, 394, 429, 559, 814).
//!
//! Invariants: `awaiting_join` counts the members that wait for the end of a join, `pending_sync` those that are to
//! synchronise; `supported` counts for each
//! protocol the members that offer it; the leader is a member; every static member is in `statics` under its instance
//! id. A group that is empty has no members; one that is preparing has a join timer; nobody waits for a join but then,
//! and nobody for a sync but while the group completes a rebalance.

mod join;
mod leave;
mod member;
mod rebalance;
mod record;
mod subscription;
mod sync;
mod takeover;
mod timer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::consumer::CommitClaim;
use crate::group::offsets::Expiry;
use crate::group::records::Record;
use crate::group::timers::Timers;
use crate::group::{GroupError, Now, Options, Reply, Token};

pub(in crate::group) use member::{Member, MemberId};
pub(in crate::group) use record::Converted;
pub(in crate::group) use subscription::PROTOCOL_TYPE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// What ends a join that not everybody takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinTimer {
    /// The first join of an empty group waits for further members: `delay_ms` have been waited for when it fires, and
    /// `remaining_ms` at most may follow while new members come.
    Initial {
        at: Duration,
        delay_ms: i64,
        remaining_ms: i64,
    },
    Rebalance {
        at: Duration,
    },
}

impl JoinTimer {
    fn at(self) -> Duration {
        match self {
            JoinTimer::Initial { at, .. } | JoinTimer::Rebalance { at } => at,
        }
    }
}

pub(in crate::group) struct ClassicGroup {
    state: State,
    /// The rebalance under way began with an empty group.
    initial: bool,
    /// Wall clock of the last change of state, milliseconds; −1: unknown.
    state_since_ms: i64,
    pub generation: i32,
    /// None: never had members; a group of simple consumers.
    pub protocol_type: Option<Box<str>>,
    pub protocol: Option<Box<str>>,
    pub leader: Option<MemberId>,
    pub members: BTreeMap<MemberId, Box<Member>>,
    statics: BTreeMap<Box<str>, MemberId>,
    /// Members that were told their id and have yet to join with it (KIP-394), each until when.
    pending: BTreeMap<MemberId, Duration>,
    awaiting_join: usize,
    /// Members that have joined the generation and not synchronised yet.
    pending_sync: usize,
    supported: BTreeMap<Box<str>, usize>,
    /// The topics that the members subscribe to, where the protocol is the consumers' and can be read.
    subscribed: Option<BTreeSet<Box<str>>>,
    new_member_added: bool,
    join_timer: Option<JoinTimer>,
    sync_deadline: Option<Duration>,
}

/// What a classic group needs of its coordinator while it works.
pub(in crate::group) struct Work<'a, 'b> {
    pub id: GroupId,
    pub call: &'a mut Call<'b>,
    pub timers: &'a mut Timers,
    pub options: &'a Options,
}

impl Work<'_, '_> {
    fn now(&self) -> Now {
        self.call.now
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.call.reply(token, reply);
    }

    /// Writes the record, unless it is larger than a batch may be.
    fn write_if_it_fits(&mut self, record: &Record) -> bool {
        let max = self.options.batch_bytes_max;
        let fitting = record.encode().filter(|w| bounds::BATCH_OVERHEAD_BYTES + bounds::batch_bytes_of(w) <= max);
        let fits = fitting.is_some();
        self.call.effects.records.extend(fitting);
        fits
    }

    /// The moment `ms` from now, for which the group is to be woken.
    fn deadline(&mut self, ms: i64) -> Duration {
        let at = self.call.now.monotonic.saturating_add(Duration::from_millis(ms.max(0).unsigned_abs()));
        self.timers.no_later(&self.id, at);
        at
    }
}

impl ClassicGroup {
    pub fn new(now: Now) -> Self {
        ClassicGroup {
            state: State::Empty,
            initial: false,
            state_since_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            awaiting_join: 0,
            pending_sync: 0,
            supported: BTreeMap::new(),
            subscribed: None,
            new_member_added: false,
            join_timer: None,
            sync_deadline: None,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Someone was told a member id and has not joined with it yet.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The protocol type is that of consumers.
    pub fn is_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(PROTOCOL_TYPE)
    }

    fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    fn set_state(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    /// The longest rebalance timeout of the members, milliseconds.
    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    fn all_joined(&self) -> bool {
        self.awaiting_join == self.members.len() && self.pending.is_empty()
    }

    /// Members, and those that are expected to become some.
    pub fn size(&self) -> usize {
        self.members.len() + self.pending.len()
    }

    /// That the id is a member's, and the one that has the instance id (KIP-345).
    pub fn validate_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if **holder != *member {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub fn validate_commit(&self, claim: &CommitClaim<'_>) -> Result<(), GroupError> {
        if claim.epoch < 0 && self.is_empty() {
            return Ok(());
        }
        if claim.epoch >= 0 || !claim.member.is_empty() || claim.instance.is_some() {
            self.validate_member(claim.member, claim.instance)?;
            if claim.epoch != self.generation {
                return Err(GroupError::IllegalGeneration);
            }
        } else if !claim.transactional && !self.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        if !claim.transactional && self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Only groups of consumers, whose subscriptions are known, may lose offsets while they have members.
    pub fn validate_offset_delete(&self) -> Result<(), GroupError> {
        if self.is_empty() || self.is_consumers() { Ok(()) } else { Err(GroupError::NonEmptyGroup) }
    }

    pub fn validate_delete(&self) -> Result<(), GroupError> {
        if self.is_empty() { Ok(()) } else { Err(GroupError::NonEmptyGroup) }
    }

    /// While the subscriptions of consumers cannot be read, every topic counts as subscribed to.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumers(),
        }
    }

    pub fn expiry(&self) -> Expiry {
        if self.protocol_type.is_none() {
            return Expiry::SinceCommit;
        }
        match self.state {
            State::Empty if self.state_since_ms == -1 => Expiry::SinceCommit,
            State::Empty => Expiry::Since(self.state_since_ms),
            State::Stable if self.is_consumers() && self.subscribed.is_some() => Expiry::SinceCommit,
            _ => Expiry::Never,
        }
    }

    /// A commit counts as a heartbeat of its member; the moment at which its session then ends.
    pub fn committed_by(&mut self, member: &str, now: Duration) -> Option<Duration> {
        if !matches!(self.state, State::Stable | State::PreparingRebalance) {
            return None;
        }
        let member = self.members.get_mut(member)?;
        let at = now.saturating_add(member.session());
        member.deadline = Some(at);
        Some(at)
    }

    /// Starts the member's session anew.
    fn touch(&mut self, member: &str, work: &mut Work<'_, '_>) {
        if let Some(member) = self.members.get_mut(member) {
            member.deadline = Some(work.deadline(i64::from(member.session_timeout_ms)));
        }
    }

    /// A member id that nobody can guess: the client's or the instance's name and a random UUID.
    pub fn member_id(name: &str, entropy: &dyn crate::env::Entropy) -> MemberId {
        Arc::from(format!("{name}-{}", random_uuid(entropy)))
    }
}

/// A UUID of version 4, as Java prints it.
pub(in crate::group) fn random_uuid(entropy: &dyn crate::env::Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A random id as Kafka prints those that it makes itself: 22 characters, of which the first is no dash.
pub(in crate::group) fn random_id(entropy: &dyn crate::env::Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    let id = crate::base::TopicId(bytes).to_string();
    // Six bits less of chance do no harm.
    match id.strip_prefix('-') {
        Some(rest) => format!("A{rest}"),
        None => id,
    }
}

#[cfg(test)]
impl ClassicGroup {
    /// The invariants at the top of this file.
    pub fn check(&self) {
        let waiting = self.members.values().filter(|member| member.awaiting_join.is_some()).count();
        assert_eq!(self.awaiting_join, waiting);
        assert_eq!(self.pending_sync, self.members.values().filter(|member| member.pending_sync).count());
        assert!(self.leader.as_ref().is_none_or(|leader| self.members.contains_key(leader)));
        assert_eq!(self.leader.is_none(), self.members.is_empty());
        let statics = self.members.iter().filter_map(|(id, member)| Some((member.instance.clone()?, id.clone())));
        assert_eq!(self.statics, statics.collect());
        let mut supported = BTreeMap::new();
        for (name, _) in self.members.values().flat_map(|member| &member.protocols) {
            *supported.entry(name.clone()).or_insert(0) += 1;
        }
        assert_eq!(self.supported, supported);
        assert!(self.state != State::Empty || self.members.is_empty());
        assert_eq!(self.state == State::PreparingRebalance, self.join_timer.is_some());
        assert!(self.state == State::PreparingRebalance || self.awaiting_join == 0);
        let syncing = self.members.values().any(|member| member.awaiting_sync.is_some());
        assert!(self.state == State::CompletingRebalance || !syncing);
        assert!(self.pending.keys().all(|id| !self.members.contains_key(id)));
    }
}
