//! Produce (key 0). Offsets are given out in the first phase, in the order of requests; the answer waits for
//! durability in the second.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};

use crate::base::TopicId;
use crate::batch::{CheckError, TimestampType};
use crate::broker::{ProduceContext, ProduceError};
use crate::kafka::{Outcome, Reply, Request};
use crate::partition::Appended;
use crate::security::{Operation, Permit};

use super::{Handlers, errors, text};

/// Produce version from which batches may be packed with zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// Version from which a partition's new leader is named (KIP-951).
const CURRENT_LEADER_SINCE: i16 = 10;

/// A partition's part of the answer, as far as the first phase knows it.
enum Part {
    Waiting { index: i32, appended: Appended, log_append_time: bool },
    Done(PartitionProduceResponse),
}

impl Handlers {
    pub(super) async fn produce(&self, request: Request, body: ProduceRequest) -> Reply {
        let mut topics = Vec::with_capacity(body.topic_data.len());
        let refused = match body.acks {
            _ if body.transactional_id.is_some() => Some(ResponseError::InvalidRequest),
            -1..=1 => None,
            _ => Some(ResponseError::InvalidRequiredAcks),
        };
        let timeout = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0));
        let room_deadline = self.broker.room_deadline(timeout);
        self.broker.slow_down().await;
        for topic in body.topic_data {
            let parts = match refused {
                Some(error) => refuse(&topic.partition_data, error),
                None => self.produce_topic(&request, &topic, room_deadline).await,
            };
            topics.push((topic, parts));
        }
        if body.acks == 0 {
            let failed = topics.iter().flat_map(|(_, parts)| parts).any(|p| matches!(p, Part::Done(_)));
            // Nothing else tells such a producer that its records are lost.
            return if failed { Reply::close("a produce request with acks=0 failed") } else { Reply::silent() };
        }
        // With acks=1 Kafka does not time out either: the leader's own log answers.
        let deadline = (body.acks == -1).then(|| tokio::time::Instant::now() + timeout);
        self.answer(request, topics, deadline)
    }

    async fn produce_topic(&self, request: &Request, topic: &TopicProduceData, room_deadline: Duration) -> Vec<Part> {
        let id = TopicId(*topic.topic_id.as_bytes());
        let (permit, found) = match self.permitted_topic(&request.context, Operation::Write, &topic.name, id) {
            Ok(found) => found,
            Err(error) => return refuse(&topic.partition_data, error),
        };
        let settings = self.broker.topic_settings(&found);
        let context =
            ProduceContext { settings: &settings, zstd_allowed: request.to.version >= ZSTD_SINCE, room_deadline };
        let log_append_time = settings.timestamp_type == TimestampType::LogAppendTime;
        let mut parts = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let part = match self.find_partition(&found, data.index) {
                Err(error) => Part::Done(failed(data.index, error, None)),
                Ok(partition) => match self.append(&permit, &partition, data, &context).await {
                    Ok(appended) => Part::Waiting { index: data.index, appended, log_append_time },
                    Err(error) => Part::Done(refused(data.index, &error, partition.positions().log_start.0)),
                },
            };
            parts.push(part);
        }
        parts
    }

    async fn append(
        &self,
        permit: &Permit,
        partition: &crate::partition::Partition,
        data: &PartitionProduceData,
        context: &ProduceContext<'_>,
    ) -> Result<Appended, ProduceError> {
        let records = data.records.clone().ok_or(CheckError::Empty)?;
        self.broker.append(permit, partition, records, context).await
    }

    fn answer(
        &self,
        request: Request,
        topics: Vec<(TopicProduceData, Vec<Part>)>,
        deadline: Option<tokio::time::Instant>,
    ) -> Reply {
        let broker = self.broker.clone();
        let metrics = self.metrics.clone();
        let endpoint = self.endpoint(&request.context);
        Reply::later(async move {
            let mut response = ProduceResponse::default();
            for (topic, parts) in topics {
                let mut answered = TopicProduceResponse::default();
                answered.name = topic.name;
                answered.topic_id = topic.topic_id;
                for part in parts {
                    let partition = match part {
                        Part::Done(done) => done,
                        Part::Waiting { index, appended, log_append_time } => {
                            let mut done = appended_at(index, &appended, log_append_time);
                            let durable = broker.durable(appended);
                            let outcome = match deadline {
                                Some(deadline) => tokio::time::timeout_at(deadline, durable).await,
                                None => Ok(durable.await),
                            };
                            match outcome {
                                Ok(Ok(())) => {}
                                Ok(Err(error)) => done = refused(index, &error, done.log_start_offset),
                                Err(_) => done = failed(index, ResponseError::RequestTimedOut, None),
                            }
                            done
                        }
                    };
                    if partition.error_code != 0 {
                        metrics.count_error(request.to.api, partition.error_code);
                    }
                    answered.partition_responses.push(partition);
                }
                response.responses.push(answered);
            }
            if request.to.version >= CURRENT_LEADER_SINCE {
                name_leaders(&mut response, broker.node.0, endpoint);
            }
            Outcome::encode(request.to, &response)
        })
    }
}

fn refuse(data: &[PartitionProduceData], error: ResponseError) -> Vec<Part> {
    data.iter().map(|d| Part::Done(failed(d.index, error, None))).collect()
}

fn failed(index: i32, error: ResponseError, message: Option<String>) -> PartitionProduceResponse {
    let mut response = PartitionProduceResponse::default();
    response.index = index;
    response.error_code = error.code();
    response.base_offset = -1;
    response.log_append_time_ms = -1;
    response.log_start_offset = -1;
    response.error_message = message.map(text);
    response
}

fn refused(index: i32, error: &ProduceError, log_start: i64) -> PartitionProduceResponse {
    let mut response = failed(index, errors::produce(error), Some(error.to_string()));
    response.log_start_offset = log_start;
    if let ProduceError::Timestamp { .. } = error {
        let mut record = BatchIndexAndErrorMessage::default();
        record.batch_index = 0;
        record.batch_index_error_message = Some(text(error.to_string()));
        response.record_errors.push(record);
    }
    response
}

fn appended_at(index: i32, appended: &Appended, log_append_time: bool) -> PartitionProduceResponse {
    let mut response = PartitionProduceResponse::default();
    response.index = index;
    response.base_offset = appended.base_offset.0;
    response.log_append_time_ms = match appended.duplicate || log_append_time {
        true => appended.max_timestamp,
        false => -1,
    };
    response.log_start_offset = appended.log_start.0;
    response
}

/// With one node the new leader is this one: what matters is that the field is there when a client looks for it.
fn name_leaders(response: &mut ProduceResponse, node: i32, endpoint: Option<crate::metadata::Endpoint>) {
    let moved = ResponseError::NotLeaderOrFollower.code();
    let mut any = false;
    for partition in response.responses.iter_mut().flat_map(|t| &mut t.partition_responses) {
        if partition.error_code == moved {
            let mut leader = LeaderIdAndEpoch::default();
            leader.leader_id = node.into();
            leader.leader_epoch = -1;
            partition.current_leader = leader;
            any = true;
        }
    }
    if let (true, Some(endpoint)) = (any, endpoint) {
        let mut known = NodeEndpoint::default();
        known.node_id = node.into();
        known.host = text(endpoint.host);
        known.port = endpoint.port as i32;
        response.node_endpoints.push(known);
    }
}
