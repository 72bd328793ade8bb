//! What carries a plan out, and what the passing of time does to a consumer group.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::consumer::heartbeat::removal;
use crate::group::consumer::member::{Member, MemberState};
use crate::group::consumer::plan::{Plan, Scene};
use crate::group::consumer::state::{ConsumerGroup, Deadlines};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::Record;
use crate::group::{GroupError, Refusal};

/// Members that one step fences; the rest follows at once in a further one.
const FENCED_MAX: usize = 1_000;

impl ConsumerGroup {
    /// Writes and applies the records of a plan; refuses a plan whose records no batch can hold.
    pub(super) fn carry_out(&mut self, scene: &Scene<'_>, call: &mut Call<'_>, plan: Plan) -> Result<(), Refusal> {
        let writes: Vec<_> = plan.records.iter().filter_map(Record::encode).collect();
        let bytes = writes.iter().chain(&call.effects.records).map(bounds::batch_bytes_of).sum::<usize>();
        if bounds::BATCH_OVERHEAD_BYTES + bytes > scene.options.batch_bytes_max {
            return Err(Refusal::new(GroupError::UnknownServerError, "The change does not fit in one record batch."));
        }
        call.effects.records.extend(writes);
        for record in plan.records {
            self.apply(record);
        }
        if plan.assigns {
            self.soft.assigned_at = Some(scene.now.monotonic);
        }
        if plan.looks_at_topics {
            self.soft.topics_version = Some(scene.topics.version());
        }
        self.soft.may_resolve = plan.may_resolve;
        Ok(())
    }

    pub(super) fn resolve_if_due(&mut self, scene: &Scene<'_>, call: &mut Call<'_>) {
        if !std::mem::take(&mut self.soft.may_resolve) {
            return;
        }
        // What does not fit is tried again with the next heartbeat.
        if let Some(plan) = self.plan_resolution(scene)
            && self.carry_out(scene, call, plan).is_ok()
        {
            self.soft.resolved_at = Some((scene.now.monotonic, scene.topics.version()));
        }
    }

    pub(super) fn deadlines(&mut self, member: &str) -> &mut Deadlines {
        self.soft.deadlines.entry(member.to_owned()).or_default()
    }

    pub(super) fn set_session(&mut self, scene: &Scene<'_>, member: &str, timeout_ms: i32) {
        self.deadlines(member).session = Some(scene.after(timeout_ms));
    }

    /// A consumer that has partitions to give up has the rebalance timeout for it, anew whenever they change.
    pub(super) fn set_revocation(&mut self, scene: &Scene<'_>, member: &Member, moves: bool) {
        let at = scene.after(member.metadata.rebalance_timeout_ms);
        let deadlines = self.deadlines(&member.id);
        if member.state != MemberState::UnrevokedPartitions || member.is_classic() {
            deadlines.revocation = None;
        } else if moves || deadlines.revocation.is_none() {
            deadlines.revocation = Some((at, member.epoch));
        }
    }

    /// The earliest of all deadlines of the group.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.soft.deadlines.values().filter_map(Deadlines::next).min()
    }

    /// Members whose time is over.
    fn overdue(&self, now: Duration) -> BTreeSet<String> {
        let is_over = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        let overdue = self.soft.deadlines.iter().filter(|(id, deadlines)| {
            let epoch = self.member(id).map(|member| member.epoch);
            let stuck = deadlines.revocation.is_some_and(|(at, since)| at <= now && epoch == Some(since));
            stuck || is_over(deadlines.session) || is_over(deadlines.join) || is_over(deadlines.sync)
        });
        overdue.map(|(id, _)| id.clone()).take(FENCED_MAX).collect()
    }

    /// Records that members are gone, with the expressions that only they were subscribed to.
    fn plan_removal(&self, scene: &Scene<'_>, gone: &BTreeSet<String>) -> Plan {
        let mut plan = Plan::default();
        let members: Vec<&Member> = gone.iter().filter_map(|id| self.member(id)).collect();
        for member in &members {
            plan.records.extend(removal(scene.group, &member.id));
        }
        for (regex, count) in &self.counts.regexes {
            if members.iter().filter(|member| member.regex() == Some(regex)).count() == *count {
                let regex = regex.clone();
                plan.records.push(Record::ConsumerRegex { group: scene.group.into(), regex, value: None });
            }
        }
        let hash = self.hash_with(scene, &members, None);
        self.plan_bump(scene, hash, &mut plan);
        plan
    }
}

impl Scene<'_> {
    /// The moment so many milliseconds from now; at once for none or fewer.
    pub fn after(&self, timeout_ms: i32) -> Duration {
        self.now.monotonic.saturating_add(Duration::from_millis(timeout_ms.max(0).unsigned_abs().into()))
    }
}

impl Coordinator {
    /// Takes members out of a group; one that has only classic members left becomes a classic group.
    pub(super) fn fence(&mut self, call: &mut Call<'_>, id: &GroupId, gone: &BTreeSet<String>) -> Result<(), Refusal> {
        let scene = Scene { group: id, options: &self.options, now: call.now, topics: call.topics };
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return Ok(()) };
        if gone.is_empty() {
            return Ok(());
        }
        if group.may_downgrade_without(&scene, gone) {
            return self.downgrade_without(call, id, gone);
        }
        let plan = group.plan_removal(&scene, gone);
        group.carry_out(&scene, call, plan)
    }

    /// Deadlines of this group are due. The caller asks for `next_deadline` afterwards.
    pub(in crate::group) fn consumer_timer(&mut self, call: &mut Call<'_>, id: &GroupId) {
        let now = call.now.monotonic;
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return };
        let overdue = group.overdue(now);
        for deadlines in group.soft.deadlines.values_mut() {
            // Of an epoch that the member has left by itself.
            deadlines.revocation = deadlines.revocation.filter(|(at, _)| *at > now);
        }
        if self.fence(call, id, &overdue).is_err()
            && let Some(Group::Consumer(group)) = self.groups.get_mut(id)
        {
            // Not to be tried again and again at once.
            let later = now.saturating_add(Duration::from_secs(1));
            for member in overdue {
                group.soft.deadlines.insert(member, Deadlines { session: Some(later), ..Deadlines::default() });
            }
        }
    }

    /// After loading: every member has a whole session before it.
    pub(in crate::group) fn consumer_loaded(&mut self, call: &mut Call<'_>, id: &GroupId) {
        let scene = Scene { group: id, options: &self.options, now: call.now, topics: call.topics };
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return };
        group.start_sessions(&scene);
        let revoking = group.members.values().filter(|member| member.state == MemberState::UnrevokedPartitions);
        for member in revoking.map(|member| (**member).clone()).collect::<Vec<_>>() {
            group.set_revocation(&scene, &member, true);
        }
        self.arm_group(id);
    }

    /// A record with key version 3 to 8 or 16, from the log. Creates the group, replaces a classic one without
    /// members, removes the group at its tombstone.
    pub(in crate::group) fn consumer_replay(&mut self, record: Record) {
        let Some((name, is_tombstone)) = group_of(&record) else { return };
        let removes = matches!(record, Record::ConsumerGroup { value: None, .. });
        match self.groups.get_mut(name) {
            Some(Group::Consumer(_)) if removes => _ = self.groups.remove(name),
            Some(Group::Consumer(group)) => group.apply(record),
            Some(Group::Classic(group)) if is_tombstone || !group.is_empty() => {}
            None if is_tombstone => {}
            Some(Group::Classic(_)) | None => {
                let id = self.shared_id(name).unwrap_or_else(|| name.into());
                let mut group = Box::new(ConsumerGroup::default());
                group.apply(record);
                self.groups.insert(id, Group::Consumer(group));
            }
        }
    }
}

/// The group of a record of a consumer group, and whether the record is a tombstone.
fn group_of(record: &Record) -> Option<(&str, bool)> {
    match record {
        Record::ConsumerGroup { group, value } => Some((group, value.is_none())),
        Record::ConsumerPartitions { group, value } => Some((group, value.is_none())),
        Record::ConsumerMember { group, value, .. } => Some((group, value.is_none())),
        Record::ConsumerTarget { group, value } => Some((group, value.is_none())),
        Record::ConsumerMemberTarget { group, value, .. } => Some((group, value.is_none())),
        Record::ConsumerMemberAssignment { group, value, .. } => Some((group, value.is_none())),
        Record::ConsumerRegex { group, value, .. } => Some((group, value.is_none())),
        Record::Offset { .. } | Record::ClassicGroup { .. } | Record::Foreign { .. } => None,
    }
}
