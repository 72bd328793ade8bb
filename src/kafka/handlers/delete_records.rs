//! DeleteRecords (key 21): moves the log start of partitions forward.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

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
        for topic in body.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let result = self.delete_in_one(&request.context, &topic.name, asked).await;
                let code = result.map_or_else(|error| error.code(), |_| 0);
                self.count(&request, code);
                partitions.push(
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(asked.partition_index)
                        .with_low_watermark(result.map_or(NO_WATERMARK, |offset| offset.0))
                        .with_error_code(code),
                );
            }
            let answered = DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions);
            response.topics.push(answered);
        }
        Reply::encode(request.to, &response)
    }

    /// The low watermark after the records are gone.
    async fn delete_in_one(
        &self,
        context: &ConnectionContext,
        topic: &str,
        asked: &DeleteRecordsPartition,
    ) -> Result<Offset, ResponseError> {
        let permit = self
            .permit(context, Operation::Delete, Resource::topic(topic))
            .map_err(|denied| errors::denied(&denied))?;
        if is_internal_topic(topic) {
            return Err(ResponseError::InvalidTopicException);
        }
        let found = self.find_topic(topic, TopicId::default())?;
        let partition = self.find_partition(&found, asked.partition_index)?;
        if !self.broker.topic_settings(&found).cleanup_policy.delete {
            return Err(ResponseError::PolicyViolation);
        }
        let to = (asked.offset != HIGH_WATERMARK).then_some(Offset(asked.offset));
        self.broker.delete_records(&permit, &partition, to).await.map_err(|error| errors::change(&error))
    }
}
