//! The target assignment of a group: when it is computed, by which assignor, and what of it is recorded.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::base::TopicId;
use crate::group::consumer::assignor::{Assignor, Input, MemberInput};
use crate::group::consumer::member::{Member, to_lists};
use crate::group::consumer::partitions::Partitions;
use crate::group::consumer::plan::{Plan, Scene, Update};
use crate::group::consumer::state::{ConsumerGroup, decrement, increment};
use crate::group::records::{ConsumerTargetValue, Record};

impl ConsumerGroup {
    /// The target of the member and the epoch that it is for: a new one if the group epoch is ahead of the last one
    /// and that is old enough (KIP-1263).
    pub fn plan_target(
        &self,
        scene: &Scene<'_>,
        update: &Update<'_>,
        epoch: i32,
        plan: &mut Plan,
    ) -> (i32, Partitions) {
        if self.assignment_epoch >= epoch || !self.may_assign(scene) {
            return (self.assignment_epoch, self.last_target(&update.after));
        }
        plan.assigns = true;
        let mut targets = self.assign(scene, update);
        for (member, target) in &targets {
            // The successor of a static member has its predecessor's target on record already.
            let recorded = if *member == update.after.id { update.replaced.unwrap_or(member) } else { member };
            if self.targets.get(recorded) != Some(target) {
                plan.records.push(Record::ConsumerMemberTarget {
                    group: scene.group.into(),
                    member: member.clone(),
                    value: Some(to_lists(target)),
                });
            }
        }
        let value = ConsumerTargetValue { assignment_epoch: epoch, assignment_timestamp: scene.now.wall_ms.max(0) };
        plan.records.push(Record::ConsumerTarget { group: scene.group.into(), value: Some(value) });
        (epoch, targets.remove(&update.after.id).unwrap_or_default())
    }

    /// Whether the last assignment is older than the interval, or of an earlier process.
    fn may_assign(&self, scene: &Scene<'_>) -> bool {
        let interval_ms = scene.options.consumer_assignment_interval_of(scene.group).max(0).unsigned_abs();
        let interval = Duration::from_millis(interval_ms.into());
        self.soft.assigned_at.is_none_or(|at| scene.now.monotonic >= at.saturating_add(interval))
    }

    /// What the last assignment gave this member, or the one that has its instance id.
    pub fn last_target(&self, member: &Member) -> Partitions {
        let id = match member.instance() {
            Some(instance) => self.counts.instances.get(instance),
            None => Some(&member.id),
        };
        id.and_then(|id| self.targets.get(id)).cloned().unwrap_or_default()
    }

    /// The assignor that most members want, once `update` is done; the first of the configured ones among equals.
    fn assignor(&self, scene: &Scene<'_>, update: Option<&Update<'_>>) -> Assignor {
        let mut wishes = self.counts.assignors.clone();
        if let Some(update) = update {
            update.after.metadata.server_assignor.iter().for_each(|name| increment(&mut wishes, name));
            if self.members.contains_key(update.replaced.unwrap_or(&update.before.id)) {
                update.before.metadata.server_assignor.iter().for_each(|name| decrement(&mut wishes, name));
            }
        }
        let enabled = || scene.options.consumer_assignors.iter();
        let most = enabled().filter_map(|name| wishes.get(name)).max();
        let wanted = enabled().find(|name| most.is_some() && wishes.get(*name) == most);
        wanted
            .and_then(|name| Assignor::by_name(name))
            .or_else(|| enabled().find_map(|name| Assignor::by_name(name)))
            .unwrap_or(Assignor::Uniform)
    }

    /// The name of the assignor in use, for descriptions.
    pub fn assignor_name(&self, scene: &Scene<'_>) -> &'static str {
        self.assignor(scene, None).name()
    }

    /// The new target of every member, with `update` done.
    fn assign(&self, scene: &Scene<'_>, update: &Update<'_>) -> BTreeMap<String, Partitions> {
        let after = &update.after;
        let mut members: BTreeMap<&str, &Member> =
            self.members.iter().map(|(id, member)| (id.as_str(), &**member)).collect();
        if let Some(replaced) = update.replaced {
            members.remove(replaced);
        }
        members.insert(&after.id, after);

        let mut input = Input::default();
        let mut same: Option<(&Member, Rc<[TopicId]>)> = None;
        for (id, member) in members {
            let subscribed = match &same {
                // Most members of a group say the same: their topics are looked up once.
                Some((other, ids)) if is_alike(other, member) => ids.clone(),
                _ => self.subscribed_ids(member, scene.topics).into_iter().collect(),
            };
            for topic in subscribed.iter() {
                input.topics.entry(*topic).or_insert_with(|| scene.topics.partitions(*topic).unwrap_or(0));
            }
            same = Some((member, subscribed.clone()));
            let previous = if id == after.id { update.replaced.unwrap_or(id) } else { id };
            input.members.push(MemberInput {
                id,
                instance: member.instance(),
                subscribed,
                previous: self.targets.get(previous),
            });
        }
        let targets = self.assignor(scene, Some(update)).assign(&input);
        input.members.iter().map(|member| member.id.to_owned()).zip(targets).collect()
    }
}

fn is_alike(a: &Member, b: &Member) -> bool {
    a.metadata.subscribed_topics == b.metadata.subscribed_topics && a.regex() == b.regex()
}
