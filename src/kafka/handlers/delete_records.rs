//! DeleteRecords (key 21): moves the log start of partitions forward.

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};

use crate::base::{Offset, TopicId};
use crate::broker::is_internal_topic;
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::security::{Operation, Resource};

use super::{Handlers, errors};

/// Asks for the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark in an answer that has none.
const NO_WATERMARK: i64 = -1;

impl Handlers {
    pub(super) async fn delete_records(&self, request: Request, body: DeleteRecordsRequest) -> Reply {
        let mut response = DeleteRecordsResponse::default();
        // Of a partition that is named more than once the last word counts, and it is answered once.
        let mut topics: IndexMap<TopicName, IndexMap<i32, i64>> = IndexMap::new();
        for topic in body.topics {
            let asked = topics.entry(topic.name).or_default();
            asked.extend(topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset)));
        }
        for (name, asked) in topics {
            let mut partitions = Vec::with_capacity(asked.len());
            for (index, offset) in asked {
                let result = self.delete_in_one(&request.context, &name, index, offset).await;
                let code = result.map_or_else(|error| error.code(), |_| 0);
                self.count(&request, code);
                partitions.push(
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(index)
                        .with_low_watermark(result.map_or(NO_WATERMARK, |offset| offset.0))
                        .with_error_code(code),
                );
            }
            response.topics.push(DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions));
        }
        Reply::encode(request.to, &response)
    }

    /// The low watermark after the records are gone.
    async fn delete_in_one(
        &self,
        context: &ConnectionContext,
        topic: &str,
        index: i32,
        offset: i64,
    ) -> Result<Offset, ResponseError> {
        let permit = self
            .permit(context, Operation::Delete, Resource::topic(topic))
            .map_err(|denied| errors::denied(&denied))?;
        let found = self.find_topic(topic, TopicId::default())?;
        if is_internal_topic(topic) {
            return Err(ResponseError::InvalidTopicException);
        }
        let partition = self.find_partition(&found, index)?;
        let policy = self.broker.topic_settings(&found).cleanup_policy;
        if policy.compact && !policy.delete {
            return Err(ResponseError::PolicyViolation);
        }
        let to = (offset != HIGH_WATERMARK).then_some(Offset(offset));
        self.broker.delete_records(&permit, &partition, to).await.map_err(|error| errors::change(&error))
    }
}
