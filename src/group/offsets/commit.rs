//! OffsetCommit and TxnOffsetCommit.

use std::sync::Arc;

use crate::base::TopicId;
use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::consumer::{CommitCheck, CommitClaim};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::records::{OffsetValue, Record, STRING_BYTES_MAX};
use crate::group::refuse::refused_topic;
use crate::group::request::{CommitPartition, OffsetCommit};
use crate::group::{CommittedTopic, GroupError};

/// What a request that is not refused as a whole leads to.
struct Commit {
    topics: Vec<CommittedTopic>,
    /// What is taken over into the store once the group is there.
    accepted: Vec<(String, i32, OffsetValue)>,
    records: Vec<crate::group::Write>,
}

impl Coordinator {
    /// An error refuses every partition. A partition may be refused on its own, for its metadata.
    pub(in crate::group) fn commit_offsets(
        &mut self,
        call: &mut Call<'_>,
        request: OffsetCommit,
    ) -> Vec<CommittedTopic> {
        match self.try_commit(call, &request) {
            Ok(topics) => topics,
            Err(error) => request.topics.iter().map(|topic| refused_topic(topic, error)).collect(),
        }
    }

    fn try_commit(&mut self, call: &mut Call<'_>, request: &OffsetCommit) -> Result<Vec<CommittedTopic>, GroupError> {
        if request.transactional.is_some() && request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let check = self.validate_commit(request)?;
        let commit = self.prepare_commit(call, request, check)?;
        let bytes: usize = commit.records.iter().map(bounds::batch_bytes_of).sum();
        if bytes + bounds::BATCH_OVERHEAD_BYTES > self.options.batch_bytes_max
            || self.offsets.count() + commit.accepted.len() > bounds::OFFSETS_MAX
        {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        if commit.accepted.is_empty() {
            return Ok(commit.topics);
        }
        let group = self.committing_group(call, request)?;
        self.satisfy_heartbeat(call, &group, request);
        for (topic, partition, value) in commit.accepted {
            self.offsets.put(&group, &topic, partition, value, request.transactional);
        }
        call.effects.transactional = request.transactional;
        call.effects.records.extend(commit.records);
        Ok(commit.topics)
    }

    /// Who may commit at all. A claim without a generation stands for a simple consumer, or an administrator.
    fn validate_commit(&self, request: &OffsetCommit) -> Result<CommitCheck, GroupError> {
        let claim = claim(request);
        match self.groups.get(request.group.as_str()) {
            None if request.generation_or_epoch < 0 => Ok(CommitCheck::Whole),
            None if request.transactional.is_none() && request.version >= 9 => Err(GroupError::GroupIdNotFound),
            None => Err(GroupError::IllegalGeneration),
            Some(Group::Classic(group)) => group.validate_commit(&claim).map(|()| CommitCheck::Whole),
            Some(Group::Consumer(group)) => {
                group.validate_commit(&claim).map_err(|error| in_transaction(error, request))
            }
        }
    }

    fn prepare_commit(
        &self,
        call: &Call<'_>,
        request: &OffsetCommit,
        check: CommitCheck,
    ) -> Result<Commit, GroupError> {
        let expire_timestamp = match request.retention_ms {
            _ if request.transactional.is_some() => -1,
            None | Some(-1) => -1,
            Some(retention_ms) => call.now.wall_ms.saturating_add(retention_ms),
        };
        let mut commit = Commit { topics: Vec::with_capacity(request.topics.len()), accepted: vec![], records: vec![] };
        for topic in &request.topics {
            let id = if topic.id.is_zero() { call.topics.id(&topic.name).unwrap_or_default() } else { topic.id };
            // Kafka does not record the topic's id with an offset of a transaction, and the form of an offset with an
            // expiry of its own has no place for it, nor for the leader epoch.
            let plain = request.transactional.is_none() && expire_timestamp == -1;
            let recorded_id = if plain { id } else { TopicId::default() };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                if self.metadata_too_long(partition) || topic.name.len() > STRING_BYTES_MAX {
                    partitions.push((partition.partition, Some(GroupError::OffsetMetadataTooLarge)));
                    continue;
                }
                if check == CommitCheck::EachPartition {
                    self.validate_partition(request, id, partition.partition)?;
                }
                partitions.push((partition.partition, None));
                let value = OffsetValue {
                    offset: partition.offset,
                    leader_epoch: if expire_timestamp == -1 { partition.leader_epoch } else { -1 },
                    metadata: partition.metadata.clone().unwrap_or_default(),
                    commit_timestamp: call.now.wall_ms,
                    expire_timestamp,
                    topic_id: recorded_id,
                };
                let record = Record::Offset {
                    group: request.group.clone(),
                    topic: topic.name.clone(),
                    partition: partition.partition,
                    value: Some(value.clone()),
                };
                commit.records.extend(record.encode());
                commit.accepted.push((topic.name.clone(), partition.partition, value));
            }
            commit.topics.push(CommittedTopic { name: topic.name.clone(), id: topic.id, partitions });
        }
        Ok(commit)
    }

    /// Kafka counts the UTF-16 units of a Java string.
    fn metadata_too_long(&self, partition: &CommitPartition) -> bool {
        let Some(metadata) = &partition.metadata else { return false };
        metadata.len() > STRING_BYTES_MAX || metadata.encode_utf16().count() > self.options.offset_metadata_max_bytes
    }

    /// A topic that is unknown by now (zero id) is not assigned to anyone.
    fn validate_partition(&self, request: &OffsetCommit, topic: TopicId, partition: i32) -> Result<(), GroupError> {
        let Some(Group::Consumer(group)) = self.groups.get(request.group.as_str()) else { return Ok(()) };
        let checked = group.validate_commit_partition(&claim(request), topic, partition);
        checked.map_err(|error| in_transaction(error, request))
    }

    /// The group that the offsets are kept for; a simple consumer's comes into being with its first commit.
    fn committing_group(&mut self, call: &Call<'_>, request: &OffsetCommit) -> Result<GroupId, GroupError> {
        match self.groups.get_key_value(request.group.as_str()) {
            Some((id, _)) => Ok(id.clone()),
            None => {
                let id: GroupId = Arc::from(request.group.as_str());
                self.create_classic(&id, call.now)?;
                Ok(id)
            }
        }
    }

    /// A commit of a member counts as its heartbeat while the group is stable or joining (not in a transaction, as in
    /// Kafka it does not matter who sends those).
    fn satisfy_heartbeat(&mut self, call: &mut Call<'_>, id: &GroupId, request: &OffsetCommit) {
        if request.transactional.is_some() {
            return;
        }
        if let Some(Group::Classic(group)) = self.groups.get_mut(id)
            && let Some(at) = group.committed_by(&request.member, call.now.monotonic)
        {
            self.timers.no_later(id, at);
        }
    }
}

fn claim(request: &OffsetCommit) -> CommitClaim<'_> {
    CommitClaim {
        member: &request.member,
        instance: request.instance.as_deref(),
        epoch: request.generation_or_epoch,
        transactional: request.transactional.is_some(),
        version: request.version,
    }
}

/// TxnOffsetCommit has no stale epochs: its clients know generations only.
fn in_transaction(error: GroupError, request: &OffsetCommit) -> GroupError {
    match error {
        GroupError::StaleMemberEpoch if request.transactional.is_some() => GroupError::IllegalGeneration,
        other => other,
    }
}
