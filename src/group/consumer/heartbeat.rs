//! ConsumerGroupHeartbeat (KIP-848): join, stay, leave.
//!
//! A heartbeat that joins may find a classic group under the name: an empty one gives way, one of consumers is
//! converted and keeps its members. Nothing of this happens if the heartbeat is refused.

use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::classic::random_id;
use crate::group::consumer::assignor::Assignor;
use crate::group::consumer::member::{JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member, to_lists};
use crate::group::consumer::plan::{Plan, RegexChange, Scene, Update};
use crate::group::consumer::state::{ConsumerGroup, Deadlines};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::{ConsumerMemberValue, Record};
use crate::group::request::{ConsumerGroupHeartbeat, TopicPartitions};
use crate::group::{ConsumerGroupHeartbeatReply, GroupError, Options, Refusal};

/// From this version on the client makes the member id (KIP-1082).
const CLIENT_MAKES_MEMBER_ID: i16 = 1;

type Reply = ConsumerGroupHeartbeatReply;

/// Where a member comes from that joins or goes on.
pub struct Found {
    pub before: Member,
    /// The member whose place it takes.
    pub replaced: Option<String>,
}

impl Coordinator {
    /// For every group id, existing or not, of either type: joins, converts a classic group, refuses.
    pub(in crate::group) fn consumer_heartbeat(
        &mut self,
        call: &mut Call<'_>,
        request: ConsumerGroupHeartbeat,
    ) -> Result<Reply, Refusal> {
        validate(&request, &self.options)?;
        if request.member_epoch == LEAVE_EPOCH || request.member_epoch == LEAVE_STATIC_EPOCH {
            return self.consumer_leave(call, request);
        }
        let id = self.shared_id(&request.group).unwrap_or_else(|| request.group.as_str().into());
        let joins = request.member_epoch == JOIN_EPOCH;
        match self.groups.get(&id) {
            Some(Group::Consumer(_)) => {}
            _ if !joins => return Err(not_found(&request.group)),
            Some(Group::Classic(group)) if !group.is_empty() => return self.upgrade(call, id, request),
            None if self.groups.len() >= bounds::GROUPS_MAX => {
                return Err(GroupError::CoordinatorNotAvailable.into());
            }
            Some(Group::Classic(_)) | None => return self.join_new_group(call, id, request),
        }
        let request = self.with_member_id(request);
        let scene = Scene { group: &request.group, options: &self.options, now: call.now, topics: call.topics };
        let Some(Group::Consumer(group)) = self.groups.get_mut(&id) else { return Err(not_found(&request.group)) };
        if let Some(reply) = group.quiet_heartbeat(&scene, &request) {
            self.arm(&id, &request.member);
            return Ok(reply);
        }
        let (plan, after, reply) = group.plan_heartbeat(&scene, &request)?;
        let moves = plan.moves;
        group.carry_out(&scene, call, plan)?;
        group.after_heartbeat(&scene, call, &after, moves);
        self.arm(&id, &after.id);
        Ok(reply)
    }

    /// In version 0 the coordinator makes the id of a member.
    pub(super) fn with_member_id(&self, mut request: ConsumerGroupHeartbeat) -> ConsumerGroupHeartbeat {
        if request.member.is_empty() {
            request.member = random_id(&*self.entropy);
        }
        request
    }

    /// The first member of a group that does not exist yet, or that exists as a classic group without members.
    fn join_new_group(
        &mut self,
        call: &mut Call<'_>,
        id: GroupId,
        request: ConsumerGroupHeartbeat,
    ) -> Result<Reply, Refusal> {
        let request = self.with_member_id(request);
        let scene = Scene { group: &request.group, options: &self.options, now: call.now, topics: call.topics };
        let mut group = Box::new(ConsumerGroup::default());
        let (mut plan, after, reply) = group.plan_heartbeat(&scene, &request)?;
        if self.groups.contains_key(&id) {
            plan.records.insert(0, Record::ClassicGroup { group: id.to_string(), value: None });
        }
        let moves = plan.moves;
        group.carry_out(&scene, call, plan)?;
        group.after_heartbeat(&scene, call, &after, moves);
        self.timers.forget(&id);
        self.groups.insert(id.clone(), Group::Consumer(group));
        self.arm_group(&id);
        Ok(reply)
    }

    /// Has the group looked at when the member's next deadline comes.
    pub(super) fn arm(&mut self, id: &GroupId, member: &str) {
        if let Some(Group::Consumer(group)) = self.groups.get(id)
            && let Some(at) = group.soft.deadlines.get(member).and_then(Deadlines::next)
        {
            self.timers.no_later(id, at);
        }
    }

    /// Has the group looked at when its next deadline comes.
    pub(super) fn arm_group(&mut self, id: &GroupId) {
        if let Some(at) = self.groups.get(id).and_then(Group::next_deadline) {
            self.timers.no_later(id, at);
        }
    }

    fn consumer_leave(&mut self, call: &mut Call<'_>, request: ConsumerGroupHeartbeat) -> Result<Reply, Refusal> {
        let Some((id, Group::Consumer(group))) = self.groups.get_key_value(request.group.as_str()) else {
            return Err(not_found(&request.group));
        };
        let id = id.clone();
        let member = group.find(&request.member, request.instance.as_deref())?;
        let reply = Reply { member: Some(member.id.clone()), member_epoch: request.member_epoch, ..Reply::default() };
        if request.instance.is_some() && request.member_epoch == LEAVE_STATIC_EPOCH {
            let mut away = member.clone();
            away.leave_for_now();
            let plan = Plan { records: vec![away.assignment_record(&request.group)], ..Plan::default() };
            let scene = Scene { group: &request.group, options: &self.options, now: call.now, topics: call.topics };
            if let Some(Group::Consumer(group)) = self.groups.get_mut(&id) {
                group.carry_out(&scene, call, plan)?;
            }
            return Ok(reply);
        }
        let gone = [member.id.clone()].into();
        self.fence(call, &id, &gone)?;
        Ok(reply)
    }
}

impl ConsumerGroup {
    /// The member with this id; with an instance id, the one that has it, which must be this one.
    pub fn find(&self, id: &str, instance: Option<&str>) -> Result<&Member, Refusal> {
        let Some(instance) = instance else {
            return self
                .member(id)
                .ok_or_else(|| Refusal::new(GroupError::UnknownMemberId, format!("The group has no member {id}.")));
        };
        let member = self.static_member(instance).ok_or_else(|| {
            Refusal::new(GroupError::UnknownMemberId, format!("The group has no instance id {instance}."))
        })?;
        if member.id != id {
            return Err(Refusal::new(
                GroupError::FencedInstanceId,
                format!("Instance id {instance} now belongs to member {}, not to {id}.", member.id),
            ));
        }
        Ok(member)
    }

    /// Room for one more member, unless it is one already.
    pub fn check_room(&self, id: &str, options: &Options) -> Result<(), Refusal> {
        let max = usize::try_from(options.consumer_max_size).unwrap_or(0).min(bounds::GROUP_MEMBERS_MAX);
        if self.members.len() >= max && !self.members.contains_key(id) {
            return Err(Refusal::new(
                GroupError::GroupMaxSizeReached,
                format!("The group is full with {max} members."),
            ));
        }
        Ok(())
    }

    /// The member that joins, goes on, or comes back in the place of another with the same instance id.
    pub fn enter(&self, id: &str, instance: Option<&str>, joins: bool, speaks_classic: bool) -> Result<Found, Refusal> {
        if !joins {
            return self.find(id, instance).map(|member| Found { before: member.clone(), replaced: None });
        }
        let found = |before| Found { before, replaced: None };
        let Some(holder) = instance.and_then(|instance| self.static_member(instance)) else {
            return Ok(found(self.member(id).cloned().unwrap_or_else(|| Member::new(id))));
        };
        if !speaks_classic && !holder.is_classic() && holder.epoch != LEAVE_STATIC_EPOCH {
            return Err(Refusal::new(
                GroupError::UnreleasedInstanceId,
                format!("The instance id is still in use by member {}.", holder.id),
            ));
        }
        Ok(Found { before: holder.successor(id), replaced: Some(holder.id.clone()) })
    }

    /// Records that one member takes the place, the partitions and the target of another.
    pub fn plan_replacement(&self, scene: &Scene<'_>, found: &Found, plan: &mut Plan) {
        let Some(replaced) = &found.replaced else { return };
        let group = || scene.group.to_owned();
        plan.records.extend(removal(scene.group, replaced));
        plan.records.push(found.before.metadata_record(scene.group));
        plan.records.push(Record::ConsumerMemberTarget {
            group: group(),
            member: found.before.id.clone(),
            value: Some(self.targets.get(replaced).map(to_lists).unwrap_or_default()),
        });
        plan.records.push(found.before.assignment_record(scene.group));
    }

    /// What a heartbeat that does not leave makes of the group: the plan, the member as it will be, the answer.
    pub fn plan_heartbeat(
        &self,
        scene: &Scene<'_>,
        request: &ConsumerGroupHeartbeat,
    ) -> Result<(Plan, Member, Reply), Refusal> {
        self.check_room(&request.member, scene.options)?;
        let joins = request.member_epoch == JOIN_EPOCH;
        let found = self.enter(&request.member, request.instance.as_deref(), joins, false)?;
        check_epoch(&found.before, request.member_epoch, request.owned.as_deref())?;
        let mut plan = Plan::default();
        self.plan_replacement(scene, &found, &mut plan);
        let mut after = found.before.clone();
        apply_request(&mut after.metadata, request);
        let before = &found.before;
        let update = Update { before, after, replaced: found.replaced.as_deref(), owned: request.owned.as_deref() };

        let names_changed = self.plan_metadata(scene, &update, &mut plan);
        let regex = self.plan_regex(scene, &update, &mut plan)?;
        let bump = names_changed || regex == RegexChange::Resolved;
        let epoch = self.plan_epoch(scene, &update, bump, &mut plan);
        let (epoch, target) = self.plan_target(scene, &update, epoch, &mut plan);
        let changed = names_changed || regex != RegexChange::None;
        let after = self.plan_assignment(scene, &update, (epoch, &target), changed, &mut plan)?;

        let asks_for_all = request.rebalance_timeout_ms != -1
            && (request.subscribed_topics.is_some() || request.subscribed_regex.is_some())
            && request.owned.is_some();
        let tells_all = joins || asks_for_all || after.assigned != before.assigned;
        let reply = Reply {
            error: None,
            error_message: None,
            member: Some(after.id.clone()),
            member_epoch: after.epoch,
            heartbeat_interval_ms: scene.options.consumer_heartbeat_interval_of(scene.group),
            assignment: tells_all.then(|| to_lists(&after.assigned.partitions())),
        };
        Ok((plan, after, reply))
    }

    /// The answer to a heartbeat that says nothing new, of a member that has arrived at its target: nothing is to be
    /// planned, only its session begins anew. Nearly all heartbeats are of this kind; `None` for every other one.
    fn quiet_heartbeat(&mut self, scene: &Scene<'_>, request: &ConsumerGroupHeartbeat) -> Option<Reply> {
        let member = self.member(&request.member)?;
        let says_nothing = request.rebalance_timeout_ms == -1
            && request.subscribed_topics.is_none()
            && request.subscribed_regex.is_none()
            && request.owned.is_none()
            && request.rack.is_none()
            && request.server_assignor.is_none()
            && (request.instance.is_none() || request.instance == member.metadata.instance)
            && request.client.id == member.metadata.client_id
            && request.client.host == member.metadata.client_host
            && !member.is_classic();
        let has_arrived = request.member_epoch > JOIN_EPOCH
            && request.member_epoch == member.epoch
            && member.is_reconciled_to(self.assignment_epoch)
            && self.assignment_epoch >= self.epoch;
        let nothing_changed = !self.has_old_topics(scene) && self.counts.regexes.is_empty() && self.regexes.is_empty();
        if !(says_nothing && has_arrived && nothing_changed) {
            return None;
        }
        let reply = Reply {
            member: Some(member.id.clone()),
            member_epoch: member.epoch,
            heartbeat_interval_ms: scene.options.consumer_heartbeat_interval_of(scene.group),
            ..Reply::default()
        };
        #[cfg(test)]
        self.assert_nothing_to_plan(scene, request, &reply);
        let session = scene.after(scene.options.consumer_session_timeout_of(scene.group));
        let deadlines = self.soft.deadlines.get_mut(&request.member)?;
        (deadlines.session, deadlines.revocation) = (Some(session), None);
        Some(reply)
    }

    /// The long way comes to the same.
    #[cfg(test)]
    fn assert_nothing_to_plan(&self, scene: &Scene<'_>, request: &ConsumerGroupHeartbeat, reply: &Reply) {
        let (plan, after, planned) = self.plan_heartbeat(scene, request).expect("a quiet heartbeat is not refused");
        assert_eq!(planned, *reply);
        assert!(plan.records.is_empty() && !plan.moves && !plan.assigns && !plan.looks_at_topics);
        assert_eq!(Some(&after), self.member(&request.member));
    }

    /// Deadlines begin anew, and expressions are resolved if that is due.
    pub(super) fn after_heartbeat(&mut self, scene: &Scene<'_>, call: &mut Call<'_>, member: &Member, moves: bool) {
        self.set_session(scene, &member.id, scene.options.consumer_session_timeout_of(scene.group));
        self.set_revocation(scene, member, moves);
        self.resolve_if_due(scene, call);
    }
}

/// The tombstones of a member, in the order that Kafka's replay wants.
pub fn removal(group: &str, member: &str) -> [Record; 3] {
    let (group, member) = (|| group.to_owned(), || member.to_owned());
    [
        Record::ConsumerMemberAssignment { group: group(), member: member(), value: None },
        Record::ConsumerMemberTarget { group: group(), member: member(), value: None },
        Record::ConsumerMember { group: group(), member: member(), value: None },
    ]
}

pub fn not_found(group: &str) -> Refusal {
    Refusal::new(GroupError::GroupIdNotFound, format!("Group {group} is not a consumer group."))
}

/// What the request says replaces what was said before; a consumer is no classic member.
fn apply_request(metadata: &mut ConsumerMemberValue, request: &ConsumerGroupHeartbeat) {
    metadata.client_id.clone_from(&request.client.id);
    metadata.client_host.clone_from(&request.client.host);
    metadata.classic = None;
    for (known, said) in [
        (&mut metadata.instance, &request.instance),
        (&mut metadata.rack, &request.rack),
        (&mut metadata.server_assignor, &request.server_assignor),
        (&mut metadata.subscribed_regex, &request.subscribed_regex),
    ] {
        if said.is_some() {
            known.clone_from(said);
        }
    }
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.subscribed_topics {
        metadata.subscribed_topics = sorted(topics);
    }
}

/// Names in ascending order, each once.
pub fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.shrink_to_fit();
    names
}

/// That the member is in this epoch, or in the one before and merely missed the last answer.
fn check_epoch(member: &Member, epoch: i32, owned: Option<&[TopicPartitions]>) -> Result<(), Refusal> {
    let owns_no_other = || {
        let mut lists = owned.into_iter().flatten();
        owned.is_some()
            && lists.all(|list| {
                member.assigned.contains(list.topic)
                    && list.partitions.iter().all(|partition| member.assigned.holds(list.topic, *partition))
            })
    };
    if epoch == JOIN_EPOCH || epoch == member.epoch {
        return Ok(());
    }
    if epoch < member.epoch && epoch == member.previous_epoch && owns_no_other() {
        return Ok(());
    }
    Err(Refusal::new(
        GroupError::FencedMemberEpoch,
        format!("The member is in epoch {}, not {epoch}; it must give up its partitions and join again.", member.epoch),
    ))
}

/// Refuses what no state of any group could make valid.
fn validate(request: &ConsumerGroupHeartbeat, options: &Options) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(GroupError::InvalidRequest, message));
    let is_blank = |text: &str| text.trim().is_empty();
    let epoch = request.member_epoch;
    let needs_id = request.version >= CLIENT_MAKES_MEMBER_ID || epoch > JOIN_EPOCH || epoch == LEAVE_EPOCH;
    if needs_id && is_blank(&request.member) {
        return refuse("MemberId must not be empty.");
    }
    if is_blank(&request.group) {
        return refuse("GroupId must not be empty.");
    }
    if request.instance.as_deref().is_some_and(is_blank) {
        return refuse("InstanceId must not be empty.");
    }
    if request.rack.as_deref().is_some_and(is_blank) {
        return refuse("RackId must not be empty.");
    }
    if epoch == JOIN_EPOCH {
        if request.rebalance_timeout_ms == -1 {
            return refuse("RebalanceTimeoutMs is needed to join.");
        }
        if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return refuse("TopicPartitions must be empty to join.");
        }
        if request.subscribed_topics.is_none() && request.subscribed_regex.is_none() {
            return refuse("SubscribedTopicNames or SubscribedTopicRegex is needed to join.");
        }
    } else if epoch == LEAVE_STATIC_EPOCH && request.instance.is_none() {
        return refuse("InstanceId is needed to leave as a static member.");
    } else if epoch < LEAVE_STATIC_EPOCH {
        return refuse("MemberEpoch is not valid.");
    }
    match &request.server_assignor {
        Some(name) if !(options.consumer_assignors.contains(name) && Assignor::by_name(name).is_some()) => {
            let known = options.consumer_assignors.join(", ");
            Err(Refusal::new(
                GroupError::UnsupportedAssignor,
                format!("ServerAssignor {name} is not supported. Supported assignors: {known}."),
            ))
        }
        _ => Ok(()),
    }
}
