//! Conversions between classic and consumer groups while they have members (KIP-848,
//! `group.consumer.migration.policy`).
//!
//! A classic group of consumers becomes a consumer group when the first member comes that speaks the consumer
//! protocol; it becomes a classic group again when the last one goes. Its offsets stay where they are, and its members
//! keep their partitions: generation and epoch are one count.

use std::collections::BTreeSet;

use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::classic::{self, ClassicGroup, Converted, MemberId, Work};
use crate::group::consumer::classic_members::{Joining, own_protocols, written};
use crate::group::consumer::embedded;
use crate::group::consumer::heartbeat::{not_found, sorted};
use crate::group::consumer::member::{Member, to_lists};
use crate::group::consumer::partitions::{Assigned, Partitions};
use crate::group::consumer::plan::{Plan, Scene};
use crate::group::consumer::state::ConsumerGroup;
use crate::group::consumer::topics::metadata_hash;
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::{
    ClassicMemberMetadata, ConsumerGroupValue, ConsumerMemberValue, ConsumerTargetValue, Record,
};
use crate::group::request::ConsumerGroupHeartbeat;
use crate::group::{ConsumerGroupHeartbeatReply, GroupError, Options, Refusal, Topics};

impl Coordinator {
    /// The first consumer joins a classic group that has members.
    pub(super) fn upgrade(
        &mut self,
        call: &mut Call<'_>,
        id: GroupId,
        request: ConsumerGroupHeartbeat,
    ) -> Result<ConsumerGroupHeartbeatReply, Refusal> {
        let Some(Group::Classic(classic)) = self.groups.get(&id) else { return Err(not_found(&id)) };
        may_upgrade(classic, &self.options)?;
        let request = self.with_member_id(request);
        let scene = Scene { group: &id, options: &self.options, now: call.now, topics: call.topics };
        let mut group = Box::new(ConsumerGroup::default());
        // What is gathered here counts only if the heartbeat itself is not refused.
        let mut staged = Call::new(call.now, call.topics);
        let mut records = vec![Record::ClassicGroup { group: id.to_string(), value: None }];
        records.extend(converted_records(classic, &scene)?);
        group.carry_out(&scene, &mut staged, Plan { records, ..Plan::default() })?;
        let (plan, after, reply) = group.plan_heartbeat(&scene, &request)?;
        let moves = plan.moves;
        group.carry_out(&scene, &mut staged, plan)?;
        group.start_sessions(&scene);
        group.after_heartbeat(&scene, &mut staged, &after, moves);
        call.effects.records.append(&mut staged.effects.records);
        if let Some(Group::Classic(classic)) = self.groups.get_mut(&id) {
            let mut work = Work { id: id.clone(), call, timers: &mut self.timers, options: &self.options };
            classic.answer_all(GroupError::RebalanceInProgress, &mut work);
        }
        self.timers.forget(&id);
        self.groups.insert(id.clone(), Group::Consumer(group));
        self.arm_group(&id);
        Ok(reply)
    }

    /// The last consumers leave and only classic members stay.
    pub(super) fn downgrade_without(
        &mut self,
        call: &mut Call<'_>,
        id: &GroupId,
        gone: &BTreeSet<String>,
    ) -> Result<(), Refusal> {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return Ok(()) };
        let staying = group.members.values().filter(|member| !gone.contains(&member.id));
        let members = staying.map(|member| classic_member(member, group.targets.get(&member.id), call.topics));
        let converted = Converted { generation: group.epoch, members: members.collect() };
        self.become_classic(call, id, converted, true)
    }

    /// A classic member takes the place of the last consumer, under the same instance id.
    pub(super) fn downgrade_with(
        &mut self,
        call: &mut Call<'_>,
        id: &GroupId,
        joining: Joining,
    ) -> Result<(), Refusal> {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return Ok(()) };
        let replaced = joining.replaced.as_deref().unwrap_or(&joining.after.id);
        let staying = group.members.values().filter(|member| member.id != replaced && member.id != joining.after.id);
        let mut members: Vec<(MemberId, classic::Member)> =
            staying.map(|member| classic_member(member, group.targets.get(&member.id), call.topics)).collect();
        members.push(classic_member(&joining.after, group.targets.get(replaced), call.topics));
        let converted = Converted { generation: group.epoch, members };
        self.become_classic(call, id, converted, joining.rebalances)
    }

    fn become_classic(
        &mut self,
        call: &mut Call<'_>,
        id: &GroupId,
        converted: Converted,
        rebalances: bool,
    ) -> Result<(), Refusal> {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return Ok(()) };
        let mut classic = Box::new(ClassicGroup::converted(converted, call.now));
        let mut records = group.tombstones(id);
        records.push(classic.record(id));
        let writes: Vec<_> = records.iter().filter_map(Record::encode).collect();
        let bytes = writes.iter().chain(&call.effects.records).map(bounds::batch_bytes_of).sum::<usize>();
        if bounds::BATCH_OVERHEAD_BYTES + bytes > self.options.batch_bytes_max {
            return Err(Refusal::new(GroupError::UnknownServerError, "The change does not fit in one record batch."));
        }
        call.effects.records.extend(writes);
        self.timers.forget(id);
        let mut work = Work { id: id.clone(), call, timers: &mut self.timers, options: &self.options };
        classic.loaded(&mut work);
        if rebalances {
            classic.prepare_rebalance(&mut work);
        }
        self.groups.insert(id.clone(), Group::Classic(classic));
        Ok(())
    }
}

impl ConsumerGroup {
    /// Whether the group becomes a classic one when these members go.
    pub(super) fn may_downgrade_without(&self, scene: &Scene<'_>, gone: &BTreeSet<String>) -> bool {
        let staying = || self.members.values().filter(|member| !gone.contains(&member.id));
        staying().all(|member| member.is_classic()) && may_downgrade_to(staying().count(), scene.options)
    }

    /// Whether the group becomes a classic one when a classic member takes the place of `holder`.
    pub(super) fn may_downgrade_replacing(&self, scene: &Scene<'_>, holder: &Member) -> bool {
        !holder.is_classic()
            && self.counts.classic + 1 == self.members.len()
            && may_downgrade_to(self.members.len(), scene.options)
    }

    /// Every session begins, by what its protocol says.
    pub(super) fn start_sessions(&mut self, scene: &Scene<'_>) {
        let session_ms = scene.options.consumer_session_timeout_of(scene.group);
        let timeout = |member: &Member| member.classic().map_or(session_ms, |classic| classic.session_timeout_ms);
        let timeouts: Vec<(String, i32)> =
            self.members.values().map(|member| (member.id.clone(), timeout(member))).collect();
        for (id, timeout_ms) in timeouts {
            self.set_session(scene, &id, timeout_ms);
        }
    }
}

fn may_downgrade_to(members: usize, options: &Options) -> bool {
    let max = usize::try_from(options.max_size).unwrap_or(0);
    members > 0 && members <= max && options.consumer_migration.may_downgrade()
}

fn may_upgrade(classic: &ClassicGroup, options: &Options) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::new(GroupError::GroupIdNotFound, why));
    let max = usize::try_from(options.consumer_max_size).unwrap_or(0).min(bounds::GROUP_MEMBERS_MAX);
    if !options.consumer_migration.may_upgrade() {
        return refuse("The group is a classic one, and its online upgrade is disabled.");
    }
    if !classic.is_consumers() {
        return refuse("The group is a classic one, and not of consumers.");
    }
    if classic.members.len() > max {
        return refuse("The group is a classic one, and too large for a consumer group.");
    }
    Ok(())
}

/// The records that a classic group becomes: its members, its assignment as the target and as what each one holds.
fn converted_records(classic: &ClassicGroup, scene: &Scene<'_>) -> Result<Vec<Record>, Refusal> {
    let members: Vec<(Member, Partitions)> = classic
        .members
        .iter()
        .map(|(id, member)| consumer_member(id, member, classic, scene.topics))
        .collect::<Result<_, _>>()?;
    let names: BTreeSet<&String> = members.iter().flat_map(|(member, _)| &member.metadata.subscribed_topics).collect();
    let epoch =
        ConsumerGroupValue { epoch: classic.generation, metadata_hash: metadata_hash(names.into_iter(), scene.topics) };
    let target = ConsumerTargetValue { assignment_epoch: classic.generation, assignment_timestamp: 0 };
    let group = || scene.group.to_owned();
    let mut records: Vec<Record> = members.iter().map(|(member, _)| member.metadata_record(scene.group)).collect();
    records.push(Record::ConsumerGroup { group: group(), value: Some(epoch) });
    records.extend(members.iter().map(|(member, target)| Record::ConsumerMemberTarget {
        group: group(),
        member: member.id.clone(),
        value: Some(to_lists(target)),
    }));
    records.push(Record::ConsumerTarget { group: group(), value: Some(target) });
    records.extend(members.iter().map(|(member, _)| member.assignment_record(scene.group)));
    Ok(records)
}

/// A classic member as a member of a consumer group, with what it was assigned.
fn consumer_member(
    id: &str,
    member: &classic::Member,
    group: &ClassicGroup,
    topics: &dyn Topics,
) -> Result<(Member, Partitions), Refusal> {
    let unreadable = |_| {
        Refusal::new(GroupError::GroupIdNotFound, "The group is a classic one with subscriptions that are malformed.")
    };
    // Before the first rebalance is over no protocol is chosen; all of a member's say the same.
    let metadata = match &group.protocol {
        Some(protocol) => member.metadata(Some(protocol)),
        None => member.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default(),
    };
    let subscription = embedded::read_subscription(&metadata).map_err(unreadable)?;
    let mut target = Partitions::new();
    if !member.assignment.is_empty() {
        let assignment = embedded::read_assignment(&member.assignment).map_err(unreadable)?;
        if assignment.has_user_data {
            return Err(Refusal::new(
                GroupError::GroupIdNotFound,
                "The group is a classic one with an assignor of its own, whose data an upgrade would lose.",
            ));
        }
        let known = assignment.partitions.into_iter();
        target = Partitions::collect(known.filter_map(|(name, partitions)| Some((topics.id(&name)?, partitions))));
    }
    let protocols = member.protocols.iter().map(|(name, metadata)| (&**name, &metadata[..]));
    let converted = Member {
        metadata: ConsumerMemberValue {
            instance: member.instance.as_deref().map(str::to_owned),
            rack: subscription.rack,
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            subscribed_topics: sorted(&subscription.topics),
            subscribed_regex: Some(String::new()),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            server_assignor: None,
            classic: Some(ClassicMemberMetadata {
                session_timeout_ms: member.session_timeout_ms,
                supported_protocols: own_protocols(protocols),
            }),
        },
        epoch: group.generation,
        previous_epoch: group.generation,
        assigned: Assigned::at_epoch(&target, group.generation),
        ..Member::new(id)
    };
    Ok((converted, target))
}

/// A member that speaks the classic protocol as a member of a classic group, with its target as its assignment.
fn classic_member(member: &Member, target: Option<&Partitions>, topics: &dyn Topics) -> (MemberId, classic::Member) {
    let empty = ClassicMemberMetadata::default();
    let spoken = member.classic().unwrap_or(&empty);
    let (_, version) = member.classic_protocol().unwrap_or_default();
    let protocols = spoken.supported_protocols.iter();
    let converted = classic::Member {
        instance: member.instance().map(Box::from),
        client_id: member.metadata.client_id.as_str().into(),
        client_host: member.metadata.client_host.as_str().into(),
        session_timeout_ms: spoken.session_timeout_ms,
        rebalance_timeout_ms: member.metadata.rebalance_timeout_ms,
        protocols: protocols.map(|protocol| (protocol.name.as_str().into(), protocol.metadata.clone())).collect(),
        assignment: written(target.unwrap_or(&Partitions::new()), version, topics),
        is_new: false,
        pending_sync: false,
        awaiting_join: None,
        awaiting_sync: None,
        deadline: None,
    };
    (member.id.as_str().into(), converted)
}
