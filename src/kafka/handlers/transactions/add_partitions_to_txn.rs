//! AddPartitionsToTxn (key 24): of a client one transaction (versions 0–3), of a broker many (KIP-890).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::broker::is_internal_topic;
use crate::kafka::handlers::{Handlers, errors};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};
use crate::transaction::{self, Producer, TopicPartition, TransactionVersion};

use super::{UNEXPECTED, UNKNOWN_TOPIC};

const MANY_SINCE: i16 = 4;

impl Handlers {
    pub(in crate::kafka::handlers) async fn add_partitions_to_txn(
        &self,
        request: Request,
        body: AddPartitionsToTxnRequest,
    ) -> Reply {
        let mut response = AddPartitionsToTxnResponse::default();
        if request.to.version < MANY_SINCE {
            let producer = Producer { id: body.v3_and_below_producer_id.0, epoch: body.v3_and_below_producer_epoch };
            let topics = body.v3_and_below_topics;
            let id = body.v3_and_below_transactional_id.to_string();
            let permit = self.transaction_permit(&request, Operation::Write, &id);
            response.results_by_topic_v3_and_below = match permit {
                Ok(permit) => self.add_partitions(&request, &permit, (&id, producer), &topics, false).await,
                Err(code) => results(&topics, |_, _| code),
            };
        } else if let Err(denied) = self.permit(&request.context, Operation::ClusterAction, Resource::CLUSTER) {
            response.error_code = errors::denied(&denied).code();
        } else {
            for transaction in body.transactions {
                let id = transaction.transactional_id.to_string();
                let producer = Producer { id: transaction.producer_id.0, epoch: transaction.producer_epoch };
                let topics = transaction.topics;
                let mut result = AddPartitionsToTxnResult::default();
                result.topic_results = match self.transaction_permit(&request, Operation::Write, &id) {
                    Ok(permit) => {
                        let verify_only = transaction.verify_only;
                        self.add_partitions(&request, &permit, (&id, producer), &topics, verify_only).await
                    }
                    Err(code) => results(&topics, |_, _| code),
                };
                result.transactional_id = transaction.transactional_id;
                response.results_by_transaction.push(result);
            }
        }
        let many = response.results_by_transaction.iter().flat_map(|r| &r.topic_results);
        for topic in response.results_by_topic_v3_and_below.iter().chain(many) {
            for partition in &topic.results_by_partition {
                self.count_code(&request, partition.partition_error_code);
            }
        }
        Reply::encode(request.to, &response)
    }

    /// All partitions or none: where one may not be written the others are answered as not attempted.
    async fn add_partitions(
        &self,
        request: &Request,
        permit: &crate::security::Permit,
        (id, producer): (&str, Producer),
        topics: &[AddPartitionsToTxnTopic],
        verify_only: bool,
    ) -> Vec<AddPartitionsToTxnTopicResult> {
        let of_client = request.to.version < MANY_SINCE;
        let refusal = |topic: &str, index: i32| match self.topic_refusal(request, Operation::Write, topic) {
            Some(code) => Some(code),
            // A client's transaction reaches internal topics through their coordinators only.
            None if of_client && is_internal_topic(topic) => Some(ResponseError::TopicAuthorizationFailed.code()),
            None => (!self.has_partition(topic, index)).then_some(UNKNOWN_TOPIC),
        };
        let bad = topics.iter().any(|t| t.partitions.iter().any(|index| refusal(&t.name, *index).is_some()));
        if bad {
            let rest = ResponseError::OperationNotAttempted.code();
            return results(topics, |topic, index| refusal(topic, index).unwrap_or(rest));
        }
        let version = request.to.version;
        let partitions: Vec<TopicPartition> = topics
            .iter()
            .flat_map(|t| {
                let name: Arc<str> = t.name.as_str().into();
                t.partitions.iter().map(move |index| (name.clone(), *index))
            })
            .collect();
        let transactional_id = id.to_owned();
        let ask = match verify_only {
            true => transaction::Request::VerifyPartitions { transactional_id, producer, partitions },
            false => {
                let version = TransactionVersion::of_add_partitions_to_txn(version);
                let wait = Duration::ZERO;
                transaction::Request::AddPartitions { transactional_id, producer, partitions, version, wait }
            }
        };
        match self.ask_transaction(permit, id, ask).await {
            Ok(transaction::Reply::AddPartitions(answer)) => {
                let code = answer.err().map_or(0, |error| error.add_partitions_to_txn(version));
                results(topics, |_, _| code)
            }
            Ok(transaction::Reply::VerifyPartitions(Ok(answers))) => results(topics, |topic, index| {
                let found = answers.iter().find(|((name, i), _)| **name == *topic && *i == index);
                found.and_then(|(_, answer)| answer.err()).map_or(0, |error| error.add_partitions_to_txn(version))
            }),
            Ok(transaction::Reply::VerifyPartitions(Err(error))) => {
                results(topics, |_, _| error.add_partitions_to_txn(version))
            }
            Ok(_) => results(topics, |_, _| UNEXPECTED),
            Err(code) => results(topics, |_, _| code),
        }
    }
}

fn results(topics: &[AddPartitionsToTxnTopic], code: impl Fn(&str, i32) -> i16) -> Vec<AddPartitionsToTxnTopicResult> {
    let answered = topics.iter().map(|topic| {
        let mut result = AddPartitionsToTxnTopicResult::default();
        result.name = topic.name.clone();
        let partitions = topic.partitions.iter().map(|index| {
            let mut partition = AddPartitionsToTxnPartitionResult::default();
            partition.partition_index = *index;
            partition.partition_error_code = code(&topic.name, *index);
            partition
        });
        result.results_by_partition = partitions.collect();
        result
    });
    answered.collect()
}
