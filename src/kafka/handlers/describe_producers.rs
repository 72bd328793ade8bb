//! DescribeProducers (key 61, KIP-664): who writes idempotently or in transactions to a partition.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use crate::base::TopicId;
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::Topic;
use crate::partition::ActiveProducer;
use crate::security::{Operation, Permit, Resource};

use super::administer::{Refusal, check_topic_name, outcome};
use super::{Handlers, errors};

/// The start of a transaction that is not open.
const NO_TRANSACTION: i64 = -1;

impl Handlers {
    pub(super) async fn describe_producers(&self, request: Request, body: DescribeProducersRequest) -> Reply {
        let mut response = DescribeProducersResponse::default();
        // Each partition is answered once, so that the answer is bounded by what there is.
        let mut seen = HashSet::new();
        for asked in body.topics {
            let found = self.readable(&request.context, &asked);
            let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
            for index in asked.partition_indexes {
                let result = match &found {
                    Ok((_, topic)) if !seen.insert((topic.id, index)) => {
                        Err(Refusal::invalid("The partition is asked for twice."))
                    }
                    Ok((permit, topic)) => self.producers(permit, topic, index).await,
                    Err(refusal) => Err(refusal.clone()),
                };
                let (code, message) = outcome(&result);
                self.count(&request, code);
                partitions.push(
                    PartitionResponse::default()
                        .with_partition_index(index)
                        .with_error_code(code)
                        .with_error_message(message)
                        .with_active_producers(result.unwrap_or_default().iter().map(shown).collect()),
                );
            }
            response.topics.push(TopicResponse::default().with_name(asked.name).with_partitions(partitions));
        }
        Reply::encode(request.to, &response)
    }

    fn readable(&self, context: &ConnectionContext, asked: &TopicRequest) -> Result<(Permit, Arc<Topic>), Refusal> {
        let permit = self.permit(context, Operation::Read, Resource::topic(&asked.name))?;
        check_topic_name(&asked.name)?;
        Ok((permit, self.find_topic(&asked.name, TopicId::default())?))
    }

    async fn producers(&self, permit: &Permit, topic: &Topic, index: i32) -> Result<Vec<ActiveProducer>, Refusal> {
        let partition = self.find_partition(topic, index)?;
        let producers = self.broker.active_producers(permit, &partition).await;
        producers.map_err(|error| Refusal::new(errors::produce(&error), error.to_string()))
    }
}

fn shown(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.id.0.into())
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.transaction_start.map_or(NO_TRANSACTION, |offset| offset.0))
}
