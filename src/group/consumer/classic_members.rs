//! Members of a consumer group that still speak the classic protocol (KIP-848's migration): their JoinGroup,
//! SyncGroup, Heartbeat and LeaveGroup are answered out of the consumer group's state.
//!
//! Such a member has no leader and nobody waits for it: a join reconciles it at once, a heartbeat tells it to join
//! again when there is more to do. Its generation is its member epoch.

use bytes::Bytes;

use crate::group::call::{Call, GroupId};
use crate::group::classic::random_id;
use crate::group::consumer::embedded::{self, CONSUMER_PROTOCOL, Subscription};
use crate::group::consumer::heartbeat::sorted;
use crate::group::consumer::member::{Member, MemberState};
use crate::group::consumer::plan::{Plan, RegexChange, Scene, Update};
use crate::group::consumer::state::ConsumerGroup;
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::{ClassicMemberMetadata, ConsumerMemberValue};
use crate::group::request::{Heartbeat, JoinGroup, LeavingMember, Protocol, SyncGroup, TopicPartitions};
use crate::group::{GroupError, JoinGroupReply, LeftMember, MigrationPolicy, Refusal, SyncGroupReply, Topics};

/// From this version on a dynamic member has to come with an id (KIP-394).
const REQUIRES_MEMBER_ID: i16 = 4;

impl Coordinator {
    /// JoinGroup in a consumer group that has members.
    pub(in crate::group) fn consumer_join_classic(
        &mut self,
        call: &mut Call<'_>,
        request: &JoinGroup,
    ) -> JoinGroupReply {
        let id = if request.member.is_empty() { random_id(&*self.entropy) } else { request.member.clone() };
        match self.try_join_classic(call, request, &id) {
            Ok(reply) => reply,
            Err(GroupError::MemberIdRequired) => JoinGroupReply::refused(id, GroupError::MemberIdRequired),
            // As in Kafka without the id that was asked for.
            Err(error) => JoinGroupReply::refused("", error),
        }
    }

    fn try_join_classic(
        &mut self,
        call: &mut Call<'_>,
        request: &JoinGroup,
        member: &str,
    ) -> Result<JoinGroupReply, GroupError> {
        let id = self.shared_id(&request.group).ok_or(GroupError::UnknownMemberId)?;
        let scene = Scene { group: &id, options: &self.options, now: call.now, topics: call.topics };
        let Some(Group::Consumer(group)) = self.groups.get_mut(&id) else { return Err(GroupError::UnknownMemberId) };
        let joining = group.plan_join(&scene, request, member).map_err(|refusal| refusal.error)?;
        let reply = |generation: i32| JoinGroupReply {
            error: None,
            generation,
            protocol_type: Some(CONSUMER_PROTOCOL.into()),
            protocol_name: request.protocols.first().map(|protocol| protocol.name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member: member.into(),
            members: [].into(),
        };
        if joining.downgrades {
            let generation = group.epoch;
            self.downgrade_with(call, &id, joining).map_err(|refusal| refusal.error)?;
            return Ok(reply(generation));
        }
        group.carry_out(&scene, call, joining.plan).map_err(|refusal| refusal.error)?;
        let deadlines = group.deadlines(member);
        deadlines.session = Some(scene.after(request.session_timeout_ms));
        deadlines.sync = Some(scene.after(request.rebalance_timeout_ms));
        (deadlines.join, deadlines.revocation) = (None, None);
        group.resolve_if_due(&scene, call);
        self.arm(&id, member);
        Ok(reply(joining.after.epoch))
    }

    /// SyncGroup of a classic member: its partitions as they are now.
    pub(in crate::group) fn consumer_sync_classic(
        &mut self,
        call: &mut Call<'_>,
        request: &SyncGroup,
    ) -> SyncGroupReply {
        let Some((id, group)) = self.consumer_group(&request.group) else {
            return SyncGroupReply::refused(GroupError::UnknownMemberId);
        };
        let now = call.now.monotonic;
        let result = group.sync_classic(request, now, call.topics);
        self.arm(&id, &request.member);
        match result {
            Ok(assignment) => SyncGroupReply {
                error: None,
                protocol_type: request.protocol_type.clone(),
                protocol_name: request.protocol_name.clone(),
                assignment,
            },
            Err(error) => SyncGroupReply::refused(error),
        }
    }

    /// Heartbeat of a classic member.
    pub(in crate::group) fn consumer_heartbeat_classic(
        &mut self,
        call: &mut Call<'_>,
        request: &Heartbeat,
    ) -> Result<(), GroupError> {
        let (id, group) = self.consumer_group(&request.group).ok_or(GroupError::UnknownMemberId)?;
        let result = group.heartbeat_classic(request, call.now.monotonic);
        self.arm(&id, &request.member);
        result
    }

    /// LeaveGroup, for members of either protocol.
    pub(in crate::group) fn consumer_leave_classic(
        &mut self,
        call: &mut Call<'_>,
        group: &str,
        members: &[LeavingMember],
    ) -> Vec<LeftMember> {
        let mut gone = std::collections::BTreeSet::new();
        let found = self.consumer_group(group);
        let mut left = vec![];
        for leaving in members {
            let member = match &found {
                Some((_, group)) => group.leaving(leaving),
                None => Err(GroupError::UnknownMemberId),
            };
            let error = member.map(|id| gone.insert(id)).err();
            left.push(LeftMember { member: leaving.member.clone(), instance: leaving.instance.clone(), error });
        }
        if let Some(id) = found.map(|(id, _)| id)
            && let Err(refusal) = self.fence(call, &id, &gone)
        {
            left.iter_mut().for_each(|member| member.error = Some(member.error.unwrap_or(refusal.error)));
        }
        left
    }

    fn consumer_group(&mut self, group: &str) -> Option<(GroupId, &mut ConsumerGroup)> {
        let id = self.shared_id(group)?;
        match self.groups.get_mut(&id)? {
            Group::Consumer(group) => Some((id, group)),
            Group::Classic(_) => None,
        }
    }
}

/// A classic member on its way into a consumer group.
pub struct Joining {
    pub plan: Plan,
    pub after: Member,
    /// The member whose place it takes.
    pub replaced: Option<String>,
    /// It takes the place of the last member that speaks the consumer protocol: the group becomes a classic one.
    pub downgrades: bool,
    /// After that the group has to assign anew.
    pub rebalances: bool,
}

impl ConsumerGroup {
    fn plan_join(&self, scene: &Scene<'_>, request: &JoinGroup, id: &str) -> Result<Joining, Refusal> {
        if scene.options.consumer_migration == MigrationPolicy::Disabled {
            return Err(GroupError::InconsistentGroupProtocol.into());
        }
        self.check_room(id, scene.options)?;
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(GroupError::InconsistentGroupProtocol.into());
        }
        let is_unknown = request.member.is_empty();
        if is_unknown && request.instance.is_none() && request.version >= REQUIRES_MEMBER_ID {
            return Err(GroupError::MemberIdRequired.into());
        }
        let joins = is_unknown || request.instance.is_none();
        let found = self.enter(id, request.instance.as_deref(), joins, true)?;
        let metadata = request.protocols.first().map(|protocol| &protocol.metadata[..]).unwrap_or_default();
        let subscription = embedded::read_subscription(metadata).map_err(|_| GroupError::InconsistentGroupProtocol)?;

        let mut plan = Plan::default();
        self.plan_replacement(scene, &found, &mut plan);
        let mut after = found.before.clone();
        apply_join(&mut after.metadata, request, &subscription);
        let owned = owned_by_id(&subscription, scene.topics);
        let holder = request.instance.as_deref().and_then(|instance| self.static_member(instance));
        let downgrades = holder.is_some_and(|holder| self.may_downgrade_replacing(scene, holder));

        let update = Update { before: &found.before, after, replaced: found.replaced.as_deref(), owned: Some(&owned) };
        let names_changed = self.plan_metadata(scene, &update, &mut plan);
        let regex = self.plan_regex(scene, &update, &mut plan)?;
        let bump = names_changed || regex != RegexChange::None;
        let epoch = self.plan_epoch(scene, &update, bump, &mut plan);
        let rebalances = self.assignment_epoch < epoch;
        if downgrades {
            let after = update.after;
            return Ok(Joining {
                plan,
                after,
                replaced: holder.map(|member| member.id.clone()),
                downgrades,
                rebalances,
            });
        }
        let (epoch, target) = self.plan_target(scene, &update, epoch, &mut plan);
        let after = self.plan_assignment(scene, &update, (epoch, &target), bump, &mut plan)?;
        Ok(Joining { plan, after, replaced: found.replaced, downgrades, rebalances })
    }

    /// Whether a member with these protocols fits in: one of them is offered by all classic members.
    fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        let offered = |name: &str| self.counts.protocols.get(name).copied().unwrap_or(0) == self.counts.classic;
        protocol_type == CONSUMER_PROTOCOL && protocols.iter().any(|protocol| offered(&protocol.name))
    }

    fn classic_member(&self, id: &str, instance: Option<&str>, generation: i32) -> Result<&Member, GroupError> {
        let member = self.find(id, instance).map_err(|refusal| refusal.error)?;
        if !member.is_classic() {
            return Err(GroupError::UnknownMemberId);
        }
        if member.epoch != generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(member)
    }

    fn sync_classic(
        &mut self,
        request: &SyncGroup,
        now: std::time::Duration,
        topics: &dyn Topics,
    ) -> Result<Bytes, GroupError> {
        let member = self.classic_member(&request.member, request.instance.as_deref(), request.generation)?;
        let (protocol, version) = member.classic_protocol().unwrap_or_default();
        let differs = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|said| said != is);
        if differs(&request.protocol_type, CONSUMER_PROTOCOL) || differs(&request.protocol_name, protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let timeouts = Timeouts::of(member);
        let assignment = written(&member.assigned.partitions(), version, topics);
        // One that revokes has joined already and goes on as soon as it is done.
        let is_behind = self.assignment_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions;
        let deadlines = self.deadlines(&request.member);
        if is_behind {
            deadlines.join.get_or_insert(now.saturating_add(timeouts.rebalance));
            return Err(GroupError::RebalanceInProgress);
        }
        deadlines.sync = None;
        deadlines.session = Some(now.saturating_add(timeouts.session));
        Ok(assignment)
    }

    fn heartbeat_classic(&mut self, request: &Heartbeat, now: std::time::Duration) -> Result<(), GroupError> {
        let member = self.classic_member(&request.member, request.instance.as_deref(), request.generation)?;
        let timeouts = Timeouts::of(member);
        let may_take = member.state == MemberState::UnreleasedPartitions && !self.waits_for_others(member);
        let rejoins =
            member.epoch < self.assignment_epoch || member.state == MemberState::UnrevokedPartitions || may_take;
        let deadlines = self.deadlines(&request.member);
        deadlines.session = Some(now.saturating_add(timeouts.session));
        if rejoins {
            deadlines.join.get_or_insert(now.saturating_add(timeouts.rebalance));
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether others still hold partitions of the member's target.
    fn waits_for_others(&self, member: &Member) -> bool {
        let Some(target) = self.targets.get(&member.id) else { return false };
        target.iter().any(|(topic, partitions)| {
            partitions
                .iter()
                .any(|partition| !member.assigned.holds(topic, *partition) && self.is_held(topic, *partition))
        })
    }

    /// The member that a LeaveGroup names; with an instance id alone, whoever has it.
    fn leaving(&self, leaving: &LeavingMember) -> Result<String, GroupError> {
        let found = match &leaving.instance {
            Some(instance) if leaving.member.is_empty() => {
                self.static_member(instance).ok_or(GroupError::UnknownMemberId)
            }
            instance => self.find(&leaving.member, instance.as_deref()).map_err(|refusal| refusal.error),
        };
        found.map(|member| member.id.clone())
    }
}

struct Timeouts {
    session: std::time::Duration,
    rebalance: std::time::Duration,
}

impl Timeouts {
    fn of(member: &Member) -> Self {
        let millis = |ms: i32| std::time::Duration::from_millis(ms.max(0).unsigned_abs().into());
        let session_ms = member.classic().map_or(0, |classic| classic.session_timeout_ms);
        Timeouts { session: millis(session_ms), rebalance: millis(member.metadata.rebalance_timeout_ms) }
    }
}

/// Partitions in the bytes of the embedded protocol; topics that are gone are left out.
pub fn written(
    partitions: &crate::group::consumer::partitions::Partitions,
    version: i16,
    topics: &dyn Topics,
) -> Bytes {
    let named: Vec<(&str, Vec<i32>)> =
        partitions.iter().filter_map(|(topic, set)| Some((topics.name(topic)?, set.clone()))).collect();
    embedded::write_assignment(version, &named)
}

/// Copies what a classic member offers out of the request's buffer. Of two protocols with one name the first counts.
pub fn own_protocols<'a>(protocols: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Protocol> {
    let mut owned: Vec<Protocol> = vec![];
    for (name, metadata) in protocols {
        if !owned.iter().any(|known| known.name == name) {
            owned.push(Protocol { name: name.into(), metadata: Bytes::copy_from_slice(metadata) });
        }
    }
    owned
}

fn apply_join(metadata: &mut ConsumerMemberValue, request: &JoinGroup, subscription: &Subscription) {
    metadata.client_id.clone_from(&request.client.id);
    metadata.client_host.clone_from(&request.client.host);
    if request.instance.is_some() {
        metadata.instance.clone_from(&request.instance);
    }
    if subscription.rack.is_some() {
        metadata.rack.clone_from(&subscription.rack);
    }
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    metadata.subscribed_topics = sorted(&subscription.topics);
    // Classic members resolve their expressions themselves.
    metadata.subscribed_regex = Some(String::new());
    metadata.classic = Some(ClassicMemberMetadata {
        session_timeout_ms: request.session_timeout_ms,
        supported_protocols: own_protocols(request.protocols.iter().map(|p| (p.name.as_str(), &p.metadata[..]))),
    });
}

fn owned_by_id(subscription: &Subscription, topics: &dyn Topics) -> Vec<TopicPartitions> {
    let known = subscription.owned.iter().filter_map(|(name, partitions)| Some((topics.id(name)?, partitions)));
    known.map(|(topic, partitions)| TopicPartitions { topic, partitions: partitions.clone() }).collect()
}
