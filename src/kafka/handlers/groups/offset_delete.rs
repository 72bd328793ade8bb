//! OffsetDelete (key 47, KIP-496).

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::group::{self, OffsetDelete};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, UNKNOWN_TOPIC, code};

impl Handlers {
    pub(in crate::kafka::handlers) async fn offset_delete(&self, request: Request, body: OffsetDeleteRequest) -> Reply {
        let mut response = OffsetDeleteResponse::default();
        let group = body.group_id.to_string();
        let mut topics = Vec::new();
        for topic in body.topics {
            let mut answered = OffsetDeleteResponseTopic::default();
            answered.name = topic.name.clone();
            let refusal = self.topic_refusal(&request, Operation::Read, &topic.name);
            let known = self.broker.topic(&topic.name);
            let mut asked = Vec::new();
            for partition in topic.partitions {
                let exists = known.as_ref().is_some_and(|t| has_partition(t, partition.partition_index));
                let refused = refusal.or((!exists).then_some(UNKNOWN_TOPIC));
                let mut part = OffsetDeleteResponsePartition::default();
                part.partition_index = partition.partition_index;
                part.error_code = refused.unwrap_or(0);
                if refused.is_none() {
                    asked.push(partition.partition_index);
                }
                answered.partitions.push(part);
            }
            topics.push((topic.name.to_string(), asked));
            response.topics.push(answered);
        }
        let asked: Vec<_> = topics.iter().filter(|(_, partitions)| !partitions.is_empty()).cloned().collect();
        let outcome = match self.group_permit(&request, Operation::Delete, &group) {
            Ok(permit) => {
                let ask = group::Request::OffsetDelete(OffsetDelete { group: group.clone(), topics: asked });
                self.ask_group(&permit, &group, ask).await
            }
            Err(code) => Err(code),
        };
        let failed = match outcome {
            Ok(group::Reply::OffsetDelete(Ok(deleted))) => {
                let answers = deleted.into_iter().flat_map(|topic| {
                    let name = topic.name;
                    topic.partitions.into_iter().map(move |(index, error)| ((name.clone(), index), code(error)))
                });
                let answers: std::collections::HashMap<_, _> = answers.collect();
                for topic in &mut response.topics {
                    for part in topic.partitions.iter_mut().filter(|part| part.error_code == 0) {
                        let key = (topic.name.to_string(), part.partition_index);
                        part.error_code = answers.get(&key).copied().unwrap_or(0);
                    }
                }
                0
            }
            Ok(group::Reply::OffsetDelete(Err(error))) => error.code(),
            Ok(_) => UNEXPECTED,
            Err(code) => code,
        };
        response.topics.retain(|topic| !topic.partitions.is_empty());
        if failed != 0 {
            response.error_code = failed;
            response.topics.clear();
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

pub(super) fn has_partition(topic: &crate::metadata::Topic, index: i32) -> bool {
    usize::try_from(index).is_ok_and(|i| i < topic.partitions.len())
}
