//! OffsetCommit (key 8).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::group::{self, CommitPartition, CommitTopic, OffsetCommit};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::offset_delete::has_partition;
use super::{UNEXPECTED, UNKNOWN_TOPIC, UNKNOWN_TOPIC_ID, code, owned, topic_id};

/// Versions below name topics, later ones give their ids.
const IDS_SINCE: i16 = 10;

impl Handlers {
    pub(in crate::kafka::handlers) async fn offset_commit(&self, request: Request, body: OffsetCommitRequest) -> Reply {
        let group = body.group_id.to_string();
        let permit = self.group_permit(&request, Operation::Read, &group);
        let by_id = request.to.version >= IDS_SINCE;
        let mut response = OffsetCommitResponse::default();
        let mut topics = Vec::new();
        for topic in body.topics {
            let found = match by_id {
                true => self.broker.image().topics.get(&topic_id(topic.topic_id)).cloned(),
                false => self.broker.topic(&topic.name),
            };
            let name = found.as_ref().map_or_else(|| topic.name.to_string(), |t| t.name.to_string());
            let refusal = match &permit {
                Err(code) => Some(*code),
                Ok(_) if by_id && found.is_none() => Some(UNKNOWN_TOPIC_ID),
                Ok(_) => self.topic_refusal(&request, Operation::Read, &name),
            };
            let mut answered = OffsetCommitResponseTopic::default();
            (answered.name, answered.topic_id) = (topic.name, topic.topic_id);
            let id = if by_id { topic_id(topic.topic_id) } else { Default::default() };
            let mut asked = CommitTopic { name, id, partitions: Vec::new() };
            for partition in topic.partitions {
                let exists = found.as_ref().is_some_and(|t| has_partition(t, partition.partition_index));
                let refused = refusal.or((!exists).then_some(UNKNOWN_TOPIC));
                let mut part = OffsetCommitResponsePartition::default();
                part.partition_index = partition.partition_index;
                part.error_code = refused.unwrap_or(0);
                answered.partitions.push(part);
                if refused.is_none() {
                    asked.partitions.push(CommitPartition {
                        partition: partition.partition_index,
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: owned(partition.committed_metadata),
                    });
                }
            }
            response.topics.push(answered);
            if !asked.partitions.is_empty() {
                topics.push(asked);
            }
        }
        let refused_some = response.topics.iter().flat_map(|t| &t.partitions).any(|part| part.error_code != 0);
        if let Ok(permit) = permit
            && (!topics.is_empty() || response.topics.is_empty())
        {
            let commit = OffsetCommit {
                version: request.to.version,
                group: group.clone(),
                generation_or_epoch: body.generation_id_or_member_epoch,
                member: body.member_id.to_string(),
                instance: owned(body.group_instance_id),
                retention_ms: Some(body.retention_time_ms).filter(|ms| *ms >= 0),
                transactional: None,
                topics,
            };
            let outcome = self.ask_group(&permit, &group, group::Request::OffsetCommit(commit)).await;
            fill(&mut response, outcome);
        }
        // Kafka puts a topic's answers together only where it has some of its own to add.
        if refused_some {
            merge(&mut response);
        }
        for part in response.topics.iter().flat_map(|t| &t.partitions) {
            self.count_code(&request, part.error_code);
        }
        Reply::encode(request.to, &response)
    }
}

/// A topic that the request names more than once is answered once.
fn merge(response: &mut OffsetCommitResponse) {
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut merged: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(response.topics.len());
    for topic in std::mem::take(&mut response.topics) {
        match places.entry((topic.name.clone(), topic.topic_id)) {
            Entry::Occupied(place) => merged[*place.get()].partitions.extend(topic.partitions),
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(topic);
            }
        }
    }
    response.topics = merged;
}

/// Puts the coordinator's answers in the places that were not refused before, which are in the same order.
fn fill(response: &mut OffsetCommitResponse, outcome: Result<group::Reply, i16>) {
    let asked = response.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|part| part.error_code == 0);
    match outcome {
        Ok(group::Reply::OffsetCommit(answers)) => {
            let answers = answers.into_iter().flat_map(|topic| topic.partitions).map(|(_, error)| code(error));
            asked.zip(answers).for_each(|(part, answer)| part.error_code = answer);
        }
        Ok(_) => asked.for_each(|part| part.error_code = UNEXPECTED),
        Err(code) => asked.for_each(|part| part.error_code = code),
    }
}
