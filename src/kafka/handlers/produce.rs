//! Produce (key 0). Offsets are given out in the first phase, in the order of requests; the answer waits for
//! durability in the second. The partitions of a transaction are admitted by its coordinator before anything of the
//! request is appended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};

use crate::base::TopicId;
use crate::batch::{CheckError, TimestampType, looks_transactional};
use crate::broker::{
    CopiesNeeded, InTransaction, ProduceContext, ProduceError, is_internal_topic, transactional_header,
};
use crate::kafka::{Outcome, Reply, Request};
use crate::partition::{Appended, Guard, Partition};
use crate::security::{Operation, Permit, Resource};

use super::picture::{Leaders, Picture};
use super::{Handlers, errors, text};

/// Produce version from which batches may be packed with zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// Version from which a partition's new leader is named (KIP-951).
const CURRENT_LEADER_SINCE: i16 = 10;
/// Version from which a batch adds its partition to its transaction (KIP-890).
const ADDS_PARTITION_SINCE: i16 = 12;
/// The log start in an answer that is about no log.
const NO_LOG: i64 = -1;
/// The only client that may write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// What the coordinator said to each transactional batch, by the places of topic and partition in the request.
type Admitted = HashMap<(usize, usize), Result<Option<Guard>, ProduceError>>;

/// A partition's part of the answer, as far as the first phase knows it.
enum Part {
    Waiting(Waiting),
    Done(PartitionProduceResponse),
}

/// A batch that was appended.
struct Waiting {
    index: i32,
    partition: Arc<Partition>,
    appended: Appended,
    copies: usize,
    log_append_time: bool,
}

impl Handlers {
    pub(super) async fn produce(&self, request: Request, mut body: ProduceRequest) -> Reply {
        keep_last_of_each(&mut body);
        let mut topics = Vec::with_capacity(body.topic_data.len());
        let transactional_id = body.transactional_id.clone();
        let transactional_id = transactional_id.as_ref().map(|id| id.as_str());
        let permit = match body.acks {
            -1..=1 => self.produce_permit(&request, &body, transactional_id),
            _ => Err(ResponseError::InvalidRequiredAcks),
        };
        let version2 = request.to.version >= ADDS_PARTITION_SINCE;
        let transaction = transactional_id.zip(permit.as_ref().ok().and_then(Option::as_ref));
        let transaction =
            transaction.map(|(transactional_id, permit)| InTransaction { transactional_id, permit, version2 });
        let timeout = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0));
        let (room_deadline, until) = (self.broker.room_deadline(timeout), self.broker.clock().boottime() + timeout);
        self.broker.slow_down().await;
        let admitted = match (&permit, transaction) {
            (Err(error), _) => Err(*error),
            (Ok(_), Some(transaction)) => self.admit(&request, &body, transaction).await,
            (Ok(_), None) => Ok(Admitted::new()),
        };
        let (refused, mut admitted) = match admitted {
            Ok(admitted) => (None, admitted),
            Err(error) => (Some(error), Admitted::new()),
        };
        for (place, topic) in body.topic_data.into_iter().enumerate() {
            let parts = match refused {
                Some(error) => refuse(&topic.partition_data, error),
                None => {
                    let guard = |index| match admitted.is_empty() {
                        true => Ok(None),
                        false => admitted.remove(&(place, index)).unwrap_or(Ok(None)),
                    };
                    self.produce_topic(&request, &topic, (room_deadline, body.acks == -1), transaction, guard).await
                }
            };
            topics.push((topic, parts));
        }
        if body.acks == 0 {
            if let Some(meter) = &request.meter {
                meter.produced(request.bytes, false);
            }
            let failed = topics.iter().flat_map(|(_, parts)| parts).any(|p| matches!(p, Part::Done(_)));
            // Nothing else tells such a producer that its records are lost.
            return if failed { Reply::close("a produce request with acks=0 failed") } else { Reply::silent() };
        }
        self.answer(request, topics, until)
    }

    /// The permit to write in the transaction that a request has batches of; `None` when it has none.
    fn produce_permit(
        &self,
        request: &Request,
        body: &ProduceRequest,
        transactional_id: Option<&str>,
    ) -> Result<Option<Permit>, ResponseError> {
        let mut records = body.topic_data.iter().flat_map(|t| &t.partition_data).filter_map(|p| p.records.as_deref());
        if !records.any(looks_transactional) {
            return Ok(None);
        }
        // Without the permit for its transaction the whole request is refused, as is one that names none.
        let transactional_id = transactional_id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
        let resource = Resource::transactional_id(transactional_id);
        let permit = self.permit(&request.context, Operation::Write, resource);
        let permit = permit.map_err(|denied| errors::denied(&denied))?;
        if body.acks == -1 { Ok(Some(permit)) } else { Err(ResponseError::InvalidRequiredAcks) }
    }

    /// Asks the coordinator about all partitions that the request may write, at once.
    async fn admit(
        &self,
        request: &Request,
        body: &ProduceRequest,
        transaction: InTransaction<'_>,
    ) -> Result<Admitted, ResponseError> {
        let (mut places, mut found) = (Vec::new(), Vec::new());
        for (place, topic) in body.topic_data.iter().enumerate() {
            let id = TopicId(*topic.topic_id.as_bytes());
            // Whatever is wrong with a partition is said when it would be written.
            let Ok((_permit, known)) = self.permitted_topic(&request.context, Operation::Write, &topic.name, id) else {
                continue;
            };
            if !may_write(request, &known.name) {
                continue;
            }
            for (index, data) in topic.partition_data.iter().enumerate() {
                if let Some(header) = transactional_header(&data.records)
                    && let Ok(partition) = self.find_partition(&known, data.index)
                {
                    places.push((place, index));
                    found.push((partition, header));
                }
            }
        }
        let batches: Vec<_> = found.iter().map(|(partition, header)| (&**partition, *header)).collect();
        let producer = |at: usize| batches.get(at).map(|(_, header)| (header.producer_id, header.producer_epoch));
        if (0..batches.len()).any(|at| producer(at) != producer(0)) {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        Ok(places.into_iter().zip(self.broker.admit(transaction, &batches).await).collect())
    }

    async fn produce_topic(
        &self,
        request: &Request,
        topic: &TopicProduceData,
        (room_deadline, acks_all): (Duration, bool),
        transaction: Option<InTransaction<'_>>,
        mut guard: impl FnMut(usize) -> Result<Option<Guard>, ProduceError>,
    ) -> Vec<Part> {
        let id = TopicId(*topic.topic_id.as_bytes());
        let (permit, found) = match self.permitted_topic(&request.context, Operation::Write, &topic.name, id) {
            Ok(found) => found,
            Err(error) => return refuse(&topic.partition_data, error),
        };
        if !may_write(request, &found.name) {
            return refuse(&topic.partition_data, ResponseError::InvalidTopicException);
        }
        let version = request.to.version;
        let settings = self.broker.topic_settings(&found);
        let zstd_allowed = version >= ZSTD_SINCE;
        let replicas_needed = if acks_all { self.broker.replicas_needed(&found, &settings) } else { 0 };
        let context = ProduceContext { settings: &settings, zstd_allowed, replicas_needed, room_deadline, transaction };
        let log_append_time = settings.timestamp_type == TimestampType::LogAppendTime;
        let mut parts = Vec::with_capacity(topic.partition_data.len());
        for (place, data) in topic.partition_data.iter().enumerate() {
            let part = match self.find_partition(&found, data.index) {
                Err(error) => Part::Done(failed(data.index, error, None)),
                Ok(partition) => match guard(place) {
                    // What its coordinator refuses never gets to a log.
                    Err(error) => Part::Done(refused(data.index, version, &error, NO_LOG)),
                    Ok(guard) => match self.append(&permit, &partition, data, &context, guard).await {
                        Ok(appended) => {
                            let (index, copies) = (data.index, replicas_needed);
                            Part::Waiting(Waiting { index, partition, appended, copies, log_append_time })
                        }
                        Err(error) => {
                            Part::Done(refused(data.index, version, &error, partition.positions().log_start.0))
                        }
                    },
                },
            };
            parts.push(part);
        }
        parts
    }

    async fn append(
        &self,
        permit: &Permit,
        partition: &Partition,
        data: &PartitionProduceData,
        context: &ProduceContext<'_>,
        guard: Option<Guard>,
    ) -> Result<Appended, ProduceError> {
        let records = data.records.clone().ok_or(CheckError::Empty)?;
        self.broker.append(permit, partition, records, context, guard).await
    }

    /// The request's timeout is no bound for durability: what was appended becomes durable at the write quorum or its leader
    /// changes, and that is the answer, with acks=all as with acks=1. It bounds the wait for copies beyond that, `until`.
    fn answer(&self, request: Request, topics: Vec<(TopicProduceData, Vec<Part>)>, until: Duration) -> Reply {
        let broker = self.broker.clone();
        let metrics = self.metrics.clone();
        Reply::later(async move {
            let mut response = ProduceResponse::default();
            for (topic, parts) in topics {
                let mut answered = TopicProduceResponse::default();
                answered.name = topic.name;
                answered.topic_id = topic.topic_id;
                for part in parts {
                    let partition = match part {
                        Part::Done(done) => done,
                        Part::Waiting(waiting) => {
                            let Waiting { index, partition, appended, copies, log_append_time } = waiting;
                            let mut done = appended_at(index, &appended, log_append_time);
                            let needed = CopiesNeeded { copies, until };
                            if let Err(error) = broker.durable(&partition, appended, needed).await {
                                done = refused(index, request.to.version, &error, done.log_start_offset);
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
            name_leaders(&mut response, request.to.version, &Picture::new(&broker.image(), &request.context.listener));
            if let Some(meter) = &request.meter {
                response.throttle_time_ms = meter.produced(request.bytes, true);
            }
            Outcome::encode(request.to, &response)
        })
    }
}

/// Internal topics are their coordinators' alone.
fn may_write(request: &Request, topic: &str) -> bool {
    !is_internal_topic(topic) || request.client_id.as_deref() == Some(ADMIN_CLIENT)
}

/// Of a partition that is named more than once only the last is appended, as in Kafka, and it is answered once.
fn keep_last_of_each(body: &mut ProduceRequest) {
    body.topic_data.retain(|topic| !topic.partition_data.is_empty());
    let count: usize = body.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
    if count < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(count);
    for topic in body.topic_data.iter_mut().rev() {
        let (name, id) = (&topic.name, topic.topic_id);
        topic.partition_data.reverse();
        topic.partition_data.retain(|data| seen.insert((name.clone(), id, data.index)));
        topic.partition_data.reverse();
    }
    body.topic_data.retain(|topic| !topic.partition_data.is_empty());
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

fn refused(index: i32, version: i16, error: &ProduceError, log_start: i64) -> PartitionProduceResponse {
    let mut response = failed(index, errors::produce_in(error, version), Some(error.to_string()));
    // What is no batch at all, or not one for this topic, never gets to a log.
    let of_no_log = matches!(
        error,
        ProduceError::TooLarge { .. }
            | ProduceError::CompressionVersion
            | ProduceError::Check(
                CheckError::Empty
                    | CheckError::Incomplete
                    | CheckError::Length(_)
                    | CheckError::MoreThanOne
                    | CheckError::OldMagic(_)
                    | CheckError::UnknownMagic(_)
                    | CheckError::Crc
            )
    );
    response.log_start_offset = if of_no_log { NO_LOG } else { log_start };
    let places: &[i32] = match error {
        ProduceError::Timestamp { .. } => &[0],
        ProduceError::NoKey(places) => places,
        _ => &[],
    };
    for place in places {
        let mut record = BatchIndexAndErrorMessage::default();
        record.batch_index = *place;
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

/// Names the leaders of partitions that are led elsewhere, and where they are (KIP-951).
fn name_leaders(response: &mut ProduceResponse, version: i16, picture: &Picture<'_>) {
    if version < CURRENT_LEADER_SINCE {
        return;
    }
    let mut named = Leaders::default();
    for topic in &mut response.responses {
        let (name, id) = (topic.name.clone(), TopicId(*topic.topic_id.as_bytes()));
        for partition in &mut topic.partition_responses {
            if partition.error_code == ResponseError::NotLeaderOrFollower.code() {
                let (leader, epoch) = named.name(picture, &name, id, partition.index);
                partition.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(leader.into()).with_leader_epoch(epoch);
            }
        }
    }
    let endpoints = named.endpoints(picture).map(|(broker, endpoint)| {
        NodeEndpoint::default()
            .with_node_id(broker.0.into())
            .with_host(text(&*endpoint.host))
            .with_port(i32::from(endpoint.port))
            .with_rack(picture.rack(broker).map(text))
    });
    response.node_endpoints = endpoints.collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};
    use kafka_protocol::messages::TopicName;

    fn response(topic: &str, id: TopicId, codes: &[i16]) -> ProduceResponse {
        let partitions = (0..)
            .zip(codes)
            .map(|(index, code)| PartitionProduceResponse::default().with_index(index).with_error_code(*code));
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(text(topic)))
            .with_topic_id(uuid::Uuid::from_bytes(id.0))
            .with_partition_responses(partitions.collect());
        ProduceResponse::default().with_responses(vec![topic])
    }

    /// By name up to version 12, by id from version 13 on.
    #[test]
    fn the_leader_of_a_partition_that_is_led_elsewhere_is_named_once_with_its_address() {
        let mut image = three_brokers(&[3]);
        let topic = add_topic(&mut image, "t", 3, &[1, 2, 3, 2]);
        let picture = Picture::new(&image, "clients");
        for (name, id, version) in [("t", TopicId::default(), 10), ("", topic.id, 13)] {
            let mut answer = response(name, id, &[0, 6, 6, 6]);
            name_leaders(&mut answer, version, &picture);
            let leaders = answer.responses[0].partition_responses.iter();
            let leaders: Vec<_> =
                leaders.map(|p| (p.current_leader.leader_id.0, p.current_leader.leader_epoch)).collect();
            // Broker 3 is fenced: its partition has an epoch, but nobody leads.
            assert_eq!(leaders, [(-1, -1), (2, 0), (-1, 0), (2, 0)]);
            let ends: Vec<_> = answer.node_endpoints.iter().map(|n| (n.node_id.0, n.port, n.rack.as_deref())).collect();
            assert_eq!(ends, [(2, 9002, Some("r2"))]);
        }
    }

    #[test]
    fn versions_before_10_have_no_place_for_leaders() {
        let mut image = three_brokers(&[]);
        add_topic(&mut image, "t", 3, &[2]);
        let before = response("t", TopicId::default(), &[6]);
        let mut answer = before.clone();
        name_leaders(&mut answer, 9, &Picture::new(&image, "clients"));
        assert_eq!(answer, before);
    }

    #[test]
    fn nothing_is_said_of_a_topic_that_this_node_does_not_know() {
        let image = three_brokers(&[]);
        let mut answer = response("gone", TopicId::default(), &[6, 3]);
        name_leaders(&mut answer, 12, &Picture::new(&image, "clients"));
        let leaders: Vec<_> =
            answer.responses[0].partition_responses.iter().map(|p| p.current_leader.leader_id.0).collect();
        assert_eq!((leaders, answer.node_endpoints.len()), (vec![-1, -1], 0));
    }
}
