//! A consumer group seen from outside: its state, its description, what may be done to it.

use std::collections::BTreeMap;

use crate::base::TopicId;
use crate::group::call::Call;
use crate::group::consumer::member::Member;
use crate::group::consumer::partitions::Partitions;
use crate::group::consumer::plan::Scene;
use crate::group::consumer::state::ConsumerGroup;
use crate::group::consumer::{CommitCheck, CommitClaim};
use crate::group::records::Record;
use crate::group::{DescribedConsumer, DescribedConsumerGroup, GroupError, NamedPartitions, Topics};

/// From this version of OffsetCommit on members that speak the consumer protocol may commit.
const COMMITS_WITH_EPOCH: i16 = 9;
/// The generation of a commit that names no member.
const NO_GENERATION: i32 = -1;

impl ConsumerGroup {
    /// Kafka's name: Empty, Assigning, Reconciling, Stable.
    pub fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// No members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.counts.topics.contains_key(topic)
    }

    /// Who may commit: anybody while the group is empty; a member in its epoch; one that is behind, as far as it has
    /// held its partitions since (KIP-1251).
    pub fn validate_commit(&self, claim: &CommitClaim<'_>) -> Result<CommitCheck, GroupError> {
        if claim.epoch < 0 && self.members.is_empty() {
            return Ok(CommitCheck::Whole);
        }
        let is_anonymous = claim.epoch == NO_GENERATION && claim.member.is_empty() && claim.instance.is_none();
        if claim.transactional && is_anonymous {
            return Ok(CommitCheck::Whole);
        }
        let member = self.member(claim.member).ok_or(GroupError::UnknownMemberId)?;
        if !claim.transactional && !member.is_classic() && claim.version < COMMITS_WITH_EPOCH {
            return Err(GroupError::UnsupportedVersion);
        }
        match claim.epoch.cmp(&member.epoch) {
            std::cmp::Ordering::Equal => Ok(CommitCheck::Whole),
            std::cmp::Ordering::Greater => Err(stale(member)),
            std::cmp::Ordering::Less => Ok(CommitCheck::EachPartition),
        }
    }

    /// That a member which is behind has held this partition since the epoch that it claims.
    pub fn validate_commit_partition(
        &self,
        claim: &CommitClaim<'_>,
        topic: TopicId,
        partition: i32,
    ) -> Result<(), GroupError> {
        let member = self.member(claim.member).ok_or(GroupError::UnknownMemberId)?;
        let since = member.assigned.epoch(topic, partition).or_else(|| member.revoking.epoch(topic, partition));
        match since {
            Some(since) if claim.epoch >= since => Ok(()),
            _ => Err(stale(member)),
        }
    }

    pub fn validate_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        if member.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member.and_then(|id| self.member(id)).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(stale(member)) }
    }

    pub fn validate_delete(&self) -> Result<(), GroupError> {
        if self.members.is_empty() { Ok(()) } else { Err(GroupError::NonEmptyGroup) }
    }

    /// The tombstones of everything that the group has recorded, in the order that Kafka's replay wants.
    pub fn tombstones(&self, group: &str) -> Vec<Record> {
        let group = || group.to_owned();
        let mut records = vec![];
        for member in self.members.keys() {
            records.push(Record::ConsumerMemberAssignment { group: group(), member: member.clone(), value: None });
        }
        let stray = self.targets.keys().filter(|member| !self.members.contains_key(*member));
        for member in self.members.keys().chain(stray) {
            records.push(Record::ConsumerMemberTarget { group: group(), member: member.clone(), value: None });
        }
        records.push(Record::ConsumerTarget { group: group(), value: None });
        for member in self.members.keys() {
            records.push(Record::ConsumerMember { group: group(), member: member.clone(), value: None });
        }
        for regex in self.regexes.keys() {
            records.push(Record::ConsumerRegex { group: group(), regex: regex.clone(), value: None });
        }
        records.push(Record::ConsumerPartitions { group: group(), value: None });
        records.push(Record::ConsumerGroup { group: group(), value: None });
        records
    }

    /// Writes the tombstones of the group's own records. The group is taken out of the map by the caller, which also
    /// deletes its offsets.
    pub fn write_tombstones(&self, group: &str, call: &mut Call<'_>) {
        self.tombstones(group).iter().for_each(|record| call.write(record));
    }

    pub fn describe(&self, scene: &Scene<'_>) -> DescribedConsumerGroup {
        DescribedConsumerGroup {
            error: None,
            error_message: None,
            group: scene.group.to_owned(),
            state: self.state().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor_name(scene).into(),
            members: self.members.values().map(|member| self.describe_member(member, scene.topics)).collect(),
        }
    }

    fn describe_member(&self, member: &Member, topics: &dyn Topics) -> DescribedConsumer {
        // Until it has given them up, a member answers for the partitions that it is to give up.
        let held = member.assigned.each().chain(member.revoking.each());
        let mut by_topic: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        held.for_each(|(topic, partition)| by_topic.entry(topic).or_default().push(partition));
        let metadata = &member.metadata;
        DescribedConsumer {
            member: member.id.clone(),
            instance: metadata.instance.clone(),
            rack: metadata.rack.clone(),
            member_epoch: member.epoch,
            client_id: metadata.client_id.clone(),
            client_host: metadata.client_host.clone(),
            subscribed_topics: metadata.subscribed_topics.clone(),
            subscribed_regex: metadata.subscribed_regex.clone(),
            assignment: named(&Partitions::collect(by_topic), topics),
            target_assignment: self.targets.get(&member.id).map(|target| named(target, topics)).unwrap_or_default(),
            member_type: if member.is_classic() { 0 } else { 1 },
        }
    }
}

/// A member whose epoch, or generation, is not the right one.
fn stale(member: &Member) -> GroupError {
    if member.is_classic() { GroupError::IllegalGeneration } else { GroupError::StaleMemberEpoch }
}

/// Partitions of the topics that exist.
fn named(partitions: &Partitions, topics: &dyn Topics) -> Vec<NamedPartitions> {
    let known = partitions.iter().filter_map(|(topic, set)| Some((topic, topics.name(topic)?, set)));
    known.map(|(topic, name, set)| NamedPartitions { topic, name: name.into(), partitions: set.clone() }).collect()
}
