//! What a request makes of a consumer group, worked out before anything changes.
//!
//! A request may be refused at any step, and a refused request changes nothing: so the steps only read the group and
//! gather records in a [`Plan`], which is then carried out whole. The steps are those of KIP-848: the member's
//! metadata, the group epoch, the target assignment, the member's own assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::TopicId;
use crate::group::consumer::member::Member;
use crate::group::consumer::partitions::Partitions;
use crate::group::consumer::reconcile::{Goal, reconcile};
use crate::group::consumer::regex;
use crate::group::consumer::state::{ConsumerGroup, decrement, increment};
use crate::group::consumer::topics::metadata_hash;
use crate::group::records::{ConsumerGroupValue, Record};
use crate::group::request::TopicPartitions;
use crate::group::{GroupError, Now, Options, Refusal, Topics};

/// Milliseconds that lie at least between two resolutions of a group's expressions.
const REGEX_REFRESH_MIN_MS: u64 = 10_000;

/// What the steps look at beside the group.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub group: &'a str,
    pub options: &'a Options,
    pub now: Now,
    pub topics: &'a dyn Topics,
}

/// What is to happen.
#[derive(Default)]
pub struct Plan {
    pub records: Vec<Record>,
    /// The member's own assignment changes.
    pub moves: bool,
    /// The target assignment is computed anew.
    pub assigns: bool,
    /// The metadata of the topics were looked at.
    pub looks_at_topics: bool,
    /// Expressions may be resolved once this is carried out.
    pub may_resolve: bool,
}

/// How a member's subscription by expression changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegexChange {
    None,
    /// To one that is yet to be resolved: the group epoch rises when it is.
    Unresolved,
    /// To one whose topics are known, or to none.
    Resolved,
}

/// A member before and after a request, with what the request says it owns.
pub struct Update<'a> {
    pub before: &'a Member,
    pub after: Member,
    /// The member whose place this one takes, under the same instance id.
    pub replaced: Option<&'a str>,
    pub owned: Option<&'a [TopicPartitions]>,
}

impl ConsumerGroup {
    /// Records the member's metadata if they changed; whether the topic names did.
    pub fn plan_metadata(&self, scene: &Scene<'_>, update: &Update<'_>, plan: &mut Plan) -> bool {
        let known = self.members.contains_key(&update.after.id);
        if update.after.metadata != update.before.metadata || (!known && update.replaced.is_none()) {
            plan.records.push(update.after.metadata_record(scene.group));
        }
        update.after.metadata.subscribed_topics != update.before.metadata.subscribed_topics
    }

    /// Records that an expression has lost its last member; refuses one that is new and not valid.
    pub fn plan_regex(&self, scene: &Scene<'_>, update: &Update<'_>, plan: &mut Plan) -> Result<RegexChange, Refusal> {
        let now = scene.now.monotonic;
        let recently = |(at, _): (Duration, u64)| now <= at.saturating_add(Duration::from_millis(REGEX_REFRESH_MIN_MS));
        plan.may_resolve = self.regexes.is_empty() || !self.soft.resolved_at.is_some_and(recently);
        let (old, new) = (update.before.regex(), update.after.regex());
        if old == new {
            return Ok(RegexChange::None);
        }
        if let Some(old) = old.filter(|old| self.counts.regexes.get(*old) == Some(&1)) {
            plan.records.push(Record::ConsumerRegex { group: scene.group.into(), regex: old.into(), value: None });
        }
        match new {
            None => Ok(RegexChange::Resolved),
            Some(new) if !self.counts.regexes.contains_key(new) => match regex::compile(new) {
                Ok(_) => Ok(RegexChange::Unresolved),
                Err(error) => Err(Refusal::new(
                    GroupError::InvalidRegularExpression,
                    format!("SubscribedTopicRegex `{new}` is not valid: {error}."),
                )),
            },
            Some(new) if self.regexes.contains_key(new) => Ok(RegexChange::Resolved),
            Some(_) => Ok(RegexChange::Unresolved),
        }
    }

    /// Whether topics may have changed since the group last looked.
    pub fn has_old_topics(&self, scene: &Scene<'_>) -> bool {
        self.soft.topics_version != Some(scene.topics.version())
    }

    /// The group epoch, raised if `bump` or if the topics subscribed to are no longer what they were.
    pub fn plan_epoch(&self, scene: &Scene<'_>, update: &Update<'_>, bump: bool, plan: &mut Plan) -> i32 {
        if !bump && !self.has_old_topics(scene) {
            return self.epoch;
        }
        plan.looks_at_topics = true;
        let hash = self.hash_with(scene, std::slice::from_ref(&update.before), Some(&update.after));
        if self.has_old_metadata {
            plan.records.push(Record::ConsumerPartitions { group: scene.group.into(), value: None });
        }
        if !bump && hash == self.metadata_hash {
            return self.epoch;
        }
        self.plan_bump(scene, hash, plan)
    }

    pub fn plan_bump(&self, scene: &Scene<'_>, hash: i64, plan: &mut Plan) -> i32 {
        // Two thousand million rebalances: the last epoch then serves for good.
        let epoch = self.epoch.saturating_add(1);
        let value = ConsumerGroupValue { epoch, metadata_hash: hash };
        plan.records.push(Record::ConsumerGroup { group: scene.group.into(), value: Some(value) });
        epoch
    }

    /// The hash of all topics subscribed to, without the subscriptions of `without` and with those of `with`.
    pub fn hash_with(&self, scene: &Scene<'_>, without: &[&Member], with: Option<&Member>) -> i64 {
        let unchanged = matches!((without, with), ([before], Some(after))
            if before.metadata.subscribed_topics == after.metadata.subscribed_topics && before.regex() == after.regex());
        if unchanged {
            return metadata_hash(self.counts.topics.keys(), scene.topics);
        }
        let (mut names, mut regexes) = (self.counts.topics.clone(), self.counts.regexes.clone());
        if let Some(after) = with {
            after.metadata.subscribed_topics.iter().for_each(|topic| increment(&mut names, topic));
            after.regex().iter().for_each(|regex| increment(&mut regexes, regex));
        }
        for before in without.iter().filter(|member| self.counts_in(member)) {
            before.metadata.subscribed_topics.iter().for_each(|topic| decrement(&mut names, topic));
            before.regex().iter().for_each(|regex| decrement(&mut regexes, regex));
        }
        for (_, lost) in self.regexes.iter().filter(|(regex, _)| !regexes.contains_key(*regex)) {
            lost.topics.iter().for_each(|topic| decrement(&mut names, topic));
        }
        metadata_hash(names.keys(), scene.topics)
    }

    /// Whether the subscriptions of this member, or of the one that it is the successor of, are among the counted ones.
    fn counts_in(&self, member: &Member) -> bool {
        self.members.contains_key(&member.id) || member.instance().is_some_and(|id| self.static_member(id).is_some())
    }

    /// The topics that a member is subscribed to and that exist, by name and by resolved expression.
    pub fn subscribed_ids(&self, member: &Member, topics: &dyn Topics) -> BTreeSet<TopicId> {
        let resolved = member.regex().and_then(|regex| self.regexes.get(regex)).map_or(&[][..], |value| &value.topics);
        member.metadata.subscribed_topics.iter().chain(resolved).filter_map(|name| topics.id(name)).collect()
    }

    /// Takes the member a step towards its target, and records it.
    pub fn plan_assignment(
        &self,
        scene: &Scene<'_>,
        update: &Update<'_>,
        (epoch, target): (i32, &Partitions),
        subscription_changed: bool,
        plan: &mut Plan,
    ) -> Result<Member, Refusal> {
        if !subscription_changed && update.after.is_reconciled_to(epoch) {
            return Ok(update.after.clone());
        }
        let goal = Goal {
            epoch,
            target,
            subscribed: &self.subscribed_ids(&update.after, scene.topics),
            is_held: &|topic, partition| self.is_held(topic, partition),
            owned: update.owned,
            subscription_changed,
        };
        let reconciled = reconcile(&update.after, &goal)?;
        if reconciled != update.after {
            plan.moves = true;
            plan.records.push(reconciled.assignment_record(scene.group));
        }
        Ok(reconciled)
    }

    /// Resolves the group's expressions where that is due; the group epoch rises if their topics changed.
    pub fn plan_resolution(&self, scene: &Scene<'_>) -> Option<Plan> {
        let wanted: BTreeSet<String> = self.counts.regexes.keys().cloned().collect();
        if wanted.is_empty() {
            return None;
        }
        let version = scene.topics.version();
        let interval =
            Duration::from_millis(scene.options.consumer_regex_refresh_interval_ms.max(0).unsigned_abs().into());
        let fresh = self
            .soft
            .resolved_at
            .is_some_and(|(at, resolved)| resolved == version && scene.now.monotonic <= at.saturating_add(interval));
        if fresh && wanted.iter().eq(self.regexes.keys()) {
            return None;
        }
        let mut plan = Plan::default();
        let mut names: BTreeMap<String, usize> = self.counts.topics.clone();
        let mut bump = false;
        for (regex, found) in regex::resolve(&wanted, scene.topics) {
            let known = self.regexes.get(&regex);
            let old: BTreeSet<&String> = known.iter().flat_map(|value| &value.topics).collect();
            let changed = !found.iter().eq(old.iter().copied());
            bump |= changed;
            if known.is_some() && !changed {
                continue;
            }
            old.into_iter().for_each(|topic| decrement(&mut names, topic));
            found.iter().for_each(|topic| increment(&mut names, topic));
            plan.records.push(scene.regex_record(regex, found, version));
        }
        let hash = metadata_hash(names.keys(), scene.topics);
        if bump || hash != self.metadata_hash {
            plan.looks_at_topics = true;
            self.plan_bump(scene, hash, &mut plan);
        }
        Some(plan)
    }
}

impl Scene<'_> {
    fn regex_record(&self, regex: String, topics: BTreeSet<String>, version: u64) -> Record {
        let value = crate::group::records::ConsumerRegexValue {
            topics: topics.into_iter().collect(),
            version: i64::try_from(version).unwrap_or(i64::MAX),
            timestamp: self.now.wall_ms,
        };
        Record::ConsumerRegex { group: self.group.into(), regex, value: Some(value) }
    }
}
