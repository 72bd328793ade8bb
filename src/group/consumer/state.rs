//! The state of one consumer group, changed by its records and by nothing else.
//!
//! [`ConsumerGroup::apply`] is the only way in, for a record just written and for one from the log, so what a restart
//! finds is what was there. What Kafka does not record either is beside it in [`Soft`]: deadlines, and when things
//! were last looked at. Invariant: the counts agree with the members, in whatever order records come (compaction
//! leaves gaps).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::base::TopicId;
use crate::group::consumer::member::{Member, from_lists};
use crate::group::consumer::partitions::Partitions;
use crate::group::records::{ConsumerMemberValue, ConsumerRegexValue, Record};

pub(in crate::group) struct ConsumerGroup {
    /// Raised whenever the target assignment has to be computed anew.
    pub epoch: i32,
    /// Of the topics subscribed to, as they were at `epoch`.
    pub metadata_hash: i64,
    /// The `epoch` that the target assignment was computed for.
    pub assignment_epoch: i32,
    pub assignment_timestamp: i64,
    pub members: BTreeMap<String, Box<Member>>,
    /// By member id.
    pub targets: BTreeMap<String, Partitions>,
    pub regexes: BTreeMap<String, ConsumerRegexValue>,
    /// The log has a record of key version 4, from before Kafka 4.1: to be deleted.
    pub has_old_metadata: bool,
    pub counts: Counts,
    pub soft: Soft,
}

/// What follows from the members, kept up to date.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::group) struct Counts {
    /// Instance id to member id.
    pub instances: BTreeMap<String, String>,
    /// Subscriptions to a topic, by name or by resolved expression.
    pub topics: BTreeMap<String, usize>,
    /// Members subscribed to an expression.
    pub regexes: BTreeMap<String, usize>,
    /// Members that asked for an assignor.
    pub assignors: BTreeMap<String, usize>,
    /// Members that speak the classic protocol.
    pub classic: usize,
    /// Of these, how many support a protocol.
    pub protocols: BTreeMap<String, usize>,
    /// Members that hold a partition, to be given up or not. Never two at once but for a moment of a replay.
    pub holders: HashMap<(TopicId, i32), u32>,
}

/// What is not recorded.
#[derive(Debug, Default)]
pub(in crate::group) struct Soft {
    pub deadlines: BTreeMap<String, Deadlines>,
    /// When the target assignment was last computed here.
    pub assigned_at: Option<Duration>,
    /// The version of the topics by which `metadata_hash` was last compared.
    pub topics_version: Option<u64>,
    /// When the expressions were last resolved here, and by which version of the topics.
    pub resolved_at: Option<(Duration, u64)>,
    /// The request just carried out came long enough after that.
    pub may_resolve: bool,
}

/// When a member is out unless it does something; monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::group) struct Deadlines {
    /// It has to send a heartbeat.
    pub session: Option<Duration>,
    /// It has to give up partitions, unless it left this epoch otherwise.
    pub revocation: Option<(Duration, i32)>,
    /// A classic member has to join again.
    pub join: Option<Duration>,
    /// A classic member has to fetch its assignment.
    pub sync: Option<Duration>,
}

impl Deadlines {
    pub fn next(&self) -> Option<Duration> {
        let revocation = self.revocation.map(|(at, _)| at);
        [self.session, revocation, self.join, self.sync].into_iter().flatten().min()
    }
}

impl Default for ConsumerGroup {
    fn default() -> Self {
        ConsumerGroup {
            epoch: 1,
            metadata_hash: 0,
            assignment_epoch: 1,
            assignment_timestamp: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            regexes: BTreeMap::new(),
            has_old_metadata: false,
            counts: Counts::default(),
            soft: Soft::default(),
        }
    }
}

impl ConsumerGroup {
    /// The member that has an instance id.
    pub fn static_member(&self, instance: &str) -> Option<&Member> {
        self.members.get(self.counts.instances.get(instance)?).map(|member| &**member)
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id).map(|member| &**member)
    }

    pub fn is_held(&self, topic: TopicId, partition: i32) -> bool {
        self.counts.holders.contains_key(&(topic, partition))
    }

    /// Takes over one record of this group, of key version 3 to 8 or 16. The tombstone of the whole group (key
    /// version 3) is the caller's.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::ConsumerGroup { value: Some(value), .. } => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            Record::ConsumerPartitions { value, .. } => self.has_old_metadata = value.is_some(),
            Record::ConsumerMember { member, value: Some(value), .. } => self.set_metadata(member, value),
            Record::ConsumerMember { member, value: None, .. } => self.remove_member(&member),
            Record::ConsumerTarget { value, .. } => {
                (self.assignment_epoch, self.assignment_timestamp) =
                    value.map_or((-1, 0), |value| (value.assignment_epoch, value.assignment_timestamp));
            }
            Record::ConsumerMemberTarget { member, value: Some(lists), .. } => {
                self.targets.insert(member, from_lists(&lists));
            }
            Record::ConsumerMemberTarget { member, value: None, .. } => {
                self.targets.remove(&member);
            }
            Record::ConsumerMemberAssignment { member, value, .. } => match value {
                Some(value) => self.change_member(member, |member| member.set_assignment(&value)),
                // The member itself goes with its metadata; until then it holds nothing.
                None if self.members.contains_key(&member) => self.change_member(member, |member| {
                    *member = Member { metadata: member.metadata.clone(), epoch: -1, ..Member::new(member.id.clone()) };
                }),
                None => {}
            },
            Record::ConsumerRegex { regex, value, .. } => self.set_regex(regex, value),
            Record::ConsumerGroup { value: None, .. }
            | Record::Offset { .. }
            | Record::ClassicGroup { .. }
            | Record::Foreign { .. } => {}
        }
    }

    fn set_metadata(&mut self, id: String, mut value: ConsumerMemberValue) {
        value.subscribed_topics.sort_unstable();
        value.subscribed_topics.dedup();
        self.change_member(id, |member| member.metadata = value);
    }

    /// Changes a member, which is made if there is none yet: its records come in any order.
    fn change_member(&mut self, id: String, change: impl FnOnce(&mut Member)) {
        let mut member = match self.members.remove(&id) {
            Some(member) => {
                self.counts.remove(&member);
                member
            }
            None => Box::new(Member::new(id.clone())),
        };
        change(&mut member);
        self.counts.add(&member);
        self.members.insert(id, member);
    }

    fn remove_member(&mut self, id: &str) {
        if let Some(member) = self.members.remove(id) {
            self.counts.remove(&member);
        }
        self.soft.deadlines.remove(id);
    }

    fn set_regex(&mut self, regex: String, value: Option<ConsumerRegexValue>) {
        let old = match value {
            Some(value) => {
                value.topics.iter().for_each(|topic| increment(&mut self.counts.topics, topic));
                self.regexes.insert(regex, value)
            }
            None => self.regexes.remove(&regex),
        };
        old.iter().flat_map(|old| &old.topics).for_each(|topic| decrement(&mut self.counts.topics, topic));
    }
}

impl Counts {
    fn add(&mut self, member: &Member) {
        if let Some(instance) = &member.metadata.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        member.metadata.subscribed_topics.iter().for_each(|topic| increment(&mut self.topics, topic));
        if let Some(regex) = member.regex() {
            increment(&mut self.regexes, regex);
        }
        if let Some(assignor) = &member.metadata.server_assignor {
            increment(&mut self.assignors, assignor);
        }
        if let Some(classic) = member.classic() {
            self.classic += 1;
            classic.supported_protocols.iter().for_each(|protocol| increment(&mut self.protocols, &protocol.name));
        }
        for key in member.assigned.each().chain(member.revoking.each()) {
            *self.holders.entry(key).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, member: &Member) {
        if let Some(instance) = &member.metadata.instance
            && self.instances.get(instance) == Some(&member.id)
        {
            self.instances.remove(instance);
        }
        member.metadata.subscribed_topics.iter().for_each(|topic| decrement(&mut self.topics, topic));
        if let Some(regex) = member.regex() {
            decrement(&mut self.regexes, regex);
        }
        if let Some(assignor) = &member.metadata.server_assignor {
            decrement(&mut self.assignors, assignor);
        }
        if let Some(classic) = member.classic() {
            self.classic = self.classic.saturating_sub(1);
            classic.supported_protocols.iter().for_each(|protocol| decrement(&mut self.protocols, &protocol.name));
        }
        for key in member.assigned.each().chain(member.revoking.each()) {
            if let Some(count) = self.holders.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.holders.remove(&key);
                }
            }
        }
    }
}

/// Counts one more.
pub fn increment(counts: &mut BTreeMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

/// Counts one less; a count of none is not kept.
pub fn decrement(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
