//! A decoded request, what may be answered to it, and the [`Service`] that answers.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use kafka_protocol::messages as wire;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::encode::{self, Rope};
use super::versions::{Api, is_software_name, unsupported_api_versions};
use super::walker::{self, FIXED_HEADER_BYTES, Malformed};
use crate::base::limits::{
    CONNECTION_BYTES_MAX, DESCRIPTION_ANSWER_BYTES, FETCH_BYTES_MAX, LISTING_ANSWER_BYTES, REQUEST_ELEMENTS_MAX,
};
use crate::broker::quota::Meter;
use crate::security::Principal;

/// Memory that one element of a request may take once decoded; what a connection's budget is charged for it.
pub const ELEMENT_BYTES: usize = 192;
const _: () = assert!(REQUEST_ELEMENTS_MAX * ELEMENT_BYTES <= CONNECTION_BYTES_MAX);

/// A longer name of a client's library, or of its version, is not noted.
const SOFTWARE_NAME_BYTES_MAX: usize = 255;

/// What all requests of one connection share.
#[derive(Debug)]
pub struct ConnectionContext {
    /// Unique within the process.
    pub connection_id: u64,
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    pub peer_addr: SocketAddr,
    pub principal: Principal,
    /// Name and version of the client's library, once an ApiVersions request has told them (KIP-511). Copies: a slice
    /// would keep the buffer that the request was read into for as long as the connection lasts.
    pub software: OnceLock<(Box<str>, Box<str>)>,
}

/// What a response needs of its request.
#[derive(Debug, Clone, Copy)]
pub struct ReplyTo {
    pub api: &'static Api,
    pub version: i16,
    pub correlation_id: i32,
}

/// One request, decoded.
#[derive(Debug)]
pub struct Request {
    pub to: ReplyTo,
    pub client_id: Option<StrBytes>,
    pub body: RequestBody,
    pub context: Arc<ConnectionContext>,
    /// Length of the frame.
    pub bytes: usize,
    /// What the request uses of its client's quotas; None while nobody has any.
    pub meter: Option<Arc<Meter>>,
}

/// What becomes of a request in the end.
#[derive(Debug)]
pub enum Outcome {
    /// These bytes are the response, length prefix included.
    Send(Rope),
    /// No response belongs to the request (Produce with acks=0).
    Silent,
    /// As the two before, and then no request of the connection is begun for so long (KIP-219).
    Throttled { answer: Option<Rope>, mute: Duration },
    /// Close the connection once everything before is answered; the reason is logged.
    Close(Cow<'static, str>),
}

impl Outcome {
    /// Encodes a response. One that cannot be encoded closes the connection.
    pub fn encode(to: ReplyTo, body: &impl Encodable) -> Outcome {
        encode::response(to, body).into()
    }

    /// Length of the answer.
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Send(rope) | Outcome::Throttled { answer: Some(rope), .. } => rope.len(),
            Outcome::Silent | Outcome::Throttled { answer: None, .. } | Outcome::Close(_) => 0,
        }
    }
}

impl From<Result<Rope, encode::EncodeError>> for Outcome {
    fn from(encoded: Result<Rope, encode::EncodeError>) -> Self {
        match encoded {
            Ok(rope) => Outcome::Send(rope),
            Err(e) => Outcome::Close(e.to_string().into()),
        }
    }
}

/// What the first phase of a request gives.
pub enum Reply {
    /// Finished in the first phase.
    Now(Outcome),
    /// The second phase. It may run beside later requests of its connection; its outcome waits for its turn.
    /// It is dropped unfinished when the connection ends.
    Later(BoxFuture<'static, Outcome>),
}

impl Reply {
    pub fn encode(to: ReplyTo, body: &impl Encodable) -> Reply {
        Reply::Now(Outcome::encode(to, body))
    }

    pub fn silent() -> Reply {
        Reply::Now(Outcome::Silent)
    }

    pub fn close(reason: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Now(Outcome::Close(reason.into()))
    }

    pub fn later(phase_two: impl Future<Output = Outcome> + Send + 'static) -> Reply {
        Reply::Later(Box::pin(phase_two))
    }
}

/// Everything behind the wire.
pub trait Service: Send + Sync + 'static {
    /// The first phase of a request. On one connection first phases run one at a time in request order, so that
    /// what they do (assign offsets, for example) is ordered; while one waits, no later request of that connection
    /// is started. Dropped unfinished when the connection ends.
    fn begin(&self, request: Request) -> BoxFuture<'_, Reply>;
}

/// Why a frame is no request. All but [`ParseError::ApiVersions`] close the connection.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("frame of {0} bytes is shorter than a request header")]
    Short(usize),
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not supported")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    /// To be answered with this rope.
    #[error("this version of ApiVersions is not supported")]
    ApiVersions { answer: Rope },
    #[error("malformed {api:?} version {version} request: {source}")]
    Malformed { api: ApiKey, version: i16, source: Malformed },
    #[error("{api:?} version {version} request cannot be decoded: {reason}")]
    Undecodable { api: ApiKey, version: i16, reason: String },
}

/// A request, and the memory that it and its answer may take.
#[derive(Debug)]
pub struct Parsed {
    pub request: Request,
    pub bytes: usize,
}

/// Identifies the request of a frame, walks it, and only then decodes it.
pub fn parse(frame: Bytes, context: &Arc<ConnectionContext>) -> Result<Parsed, ParseError> {
    let Some(mut header) = frame.get(..FIXED_HEADER_BYTES) else {
        return Err(ParseError::Short(frame.len()));
    };
    let (key, version, correlation_id) = (header.get_i16(), header.get_i16(), header.get_i32());
    let api = Api::find(key).ok_or(ParseError::UnknownApi(key))?;
    let to = ReplyTo { api, version, correlation_id };
    if !api.accepts(version) {
        return Err(unsupported(to));
    }
    let walked =
        walker::walk(api, version, &frame).map_err(|source| ParseError::Malformed { api: api.key, version, source })?;
    let bytes = frame.len() + walked.elements * ELEMENT_BYTES;
    let request = decode(to, frame, context).map_err(|e| ParseError::Undecodable {
        api: api.key,
        version,
        reason: e.to_string(),
    })?;
    let bytes = bytes + request.body.answer_bytes();
    Ok(Parsed { request, bytes })
}

fn unsupported(to: ReplyTo) -> ParseError {
    if to.api.key == ApiKey::ApiVersions
        && let Ok(answer) = encode::response(ReplyTo { version: 0, ..to }, &unsupported_api_versions())
    {
        return ParseError::ApiVersions { answer };
    }
    ParseError::UnsupportedVersion { api: to.api.key, version: to.version }
}

/// Only for a frame that has passed the walker.
fn decode(to: ReplyTo, mut frame: Bytes, context: &Arc<ConnectionContext>) -> Result<Request, DecodeError> {
    let bytes = frame.len();
    let header_version = to.api.key.request_header_version(to.version);
    let header: wire::RequestHeader = decode_as(&mut frame, header_version)?;
    let body = RequestBody::decode(to.api.key, to.version, &mut frame)?;
    if let RequestBody::ApiVersions(body) = &body {
        note_software(context, body);
    }
    Ok(Request { to, client_id: header.client_id, body, context: Arc::clone(context), bytes, meter: None })
}

fn note_software(context: &ConnectionContext, body: &wire::ApiVersionsRequest) {
    let (name, version) = (&body.client_software_name, &body.client_software_version);
    let short = name.len().max(version.len()) <= SOFTWARE_NAME_BYTES_MAX;
    if short && is_software_name(name) && is_software_name(version) {
        // The first one stands: a client tells it once per connection.
        let _ = context.software.set((name.as_str().into(), version.as_str().into()));
    }
}

/// The body of a request of any API in [`super::versions::APIS`].
#[derive(Debug)]
pub enum RequestBody {
    Produce(wire::ProduceRequest),
    Fetch(wire::FetchRequest),
    ListOffsets(wire::ListOffsetsRequest),
    Metadata(wire::MetadataRequest),
    OffsetCommit(wire::OffsetCommitRequest),
    OffsetFetch(wire::OffsetFetchRequest),
    FindCoordinator(wire::FindCoordinatorRequest),
    JoinGroup(wire::JoinGroupRequest),
    Heartbeat(wire::HeartbeatRequest),
    LeaveGroup(wire::LeaveGroupRequest),
    SyncGroup(wire::SyncGroupRequest),
    DescribeGroups(wire::DescribeGroupsRequest),
    ListGroups(wire::ListGroupsRequest),
    ApiVersions(wire::ApiVersionsRequest),
    CreateTopics(wire::CreateTopicsRequest),
    DeleteTopics(wire::DeleteTopicsRequest),
    DeleteRecords(wire::DeleteRecordsRequest),
    InitProducerId(wire::InitProducerIdRequest),
    OffsetForLeaderEpoch(wire::OffsetForLeaderEpochRequest),
    AddPartitionsToTxn(wire::AddPartitionsToTxnRequest),
    AddOffsetsToTxn(wire::AddOffsetsToTxnRequest),
    EndTxn(wire::EndTxnRequest),
    WriteTxnMarkers(wire::WriteTxnMarkersRequest),
    TxnOffsetCommit(wire::TxnOffsetCommitRequest),
    DescribeConfigs(wire::DescribeConfigsRequest),
    AlterConfigs(wire::AlterConfigsRequest),
    DescribeLogDirs(wire::DescribeLogDirsRequest),
    CreatePartitions(wire::CreatePartitionsRequest),
    DeleteGroups(wire::DeleteGroupsRequest),
    ElectLeaders(wire::ElectLeadersRequest),
    IncrementalAlterConfigs(wire::IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(wire::AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(wire::ListPartitionReassignmentsRequest),
    OffsetDelete(wire::OffsetDeleteRequest),
    DescribeClientQuotas(wire::DescribeClientQuotasRequest),
    AlterClientQuotas(wire::AlterClientQuotasRequest),
    DescribeUserScramCredentials(wire::DescribeUserScramCredentialsRequest),
    DescribeQuorum(wire::DescribeQuorumRequest),
    UpdateFeatures(wire::UpdateFeaturesRequest),
    DescribeCluster(wire::DescribeClusterRequest),
    DescribeProducers(wire::DescribeProducersRequest),
    UnregisterBroker(wire::UnregisterBrokerRequest),
    DescribeTransactions(wire::DescribeTransactionsRequest),
    ListTransactions(wire::ListTransactionsRequest),
    ConsumerGroupHeartbeat(wire::ConsumerGroupHeartbeatRequest),
    ConsumerGroupDescribe(wire::ConsumerGroupDescribeRequest),
    GetTelemetrySubscriptions(wire::GetTelemetrySubscriptionsRequest),
    PushTelemetry(wire::PushTelemetryRequest),
    ListConfigResources(wire::ListConfigResourcesRequest),
    DescribeTopicPartitions(wire::DescribeTopicPartitionsRequest),
}

/// Why a body cannot be decoded; the crate has only words for it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

fn decode_as<T: Decodable>(bytes: &mut Bytes, version: i16) -> Result<T, DecodeError> {
    T::decode(bytes, version).map_err(|e| DecodeError(e.to_string()))
}

impl RequestBody {
    /// Only for bytes that have passed the walker.
    fn decode(key: ApiKey, version: i16, b: &mut Bytes) -> Result<RequestBody, DecodeError> {
        Ok(match key {
            ApiKey::Produce => RequestBody::Produce(decode_as(b, version)?),
            ApiKey::Fetch => RequestBody::Fetch(decode_as(b, version)?),
            ApiKey::ListOffsets => RequestBody::ListOffsets(decode_as(b, version)?),
            ApiKey::Metadata => RequestBody::Metadata(decode_as(b, version)?),
            ApiKey::OffsetCommit => RequestBody::OffsetCommit(decode_as(b, version)?),
            ApiKey::OffsetFetch => RequestBody::OffsetFetch(decode_as(b, version)?),
            ApiKey::FindCoordinator => RequestBody::FindCoordinator(decode_as(b, version)?),
            ApiKey::JoinGroup => RequestBody::JoinGroup(decode_as(b, version)?),
            ApiKey::Heartbeat => RequestBody::Heartbeat(decode_as(b, version)?),
            ApiKey::LeaveGroup => RequestBody::LeaveGroup(decode_as(b, version)?),
            ApiKey::SyncGroup => RequestBody::SyncGroup(decode_as(b, version)?),
            ApiKey::DescribeGroups => RequestBody::DescribeGroups(decode_as(b, version)?),
            ApiKey::ListGroups => RequestBody::ListGroups(decode_as(b, version)?),
            ApiKey::ApiVersions => RequestBody::ApiVersions(decode_as(b, version)?),
            ApiKey::CreateTopics => RequestBody::CreateTopics(decode_as(b, version)?),
            ApiKey::DeleteTopics => RequestBody::DeleteTopics(decode_as(b, version)?),
            ApiKey::DeleteRecords => RequestBody::DeleteRecords(decode_as(b, version)?),
            ApiKey::InitProducerId => RequestBody::InitProducerId(decode_as(b, version)?),
            ApiKey::OffsetForLeaderEpoch => RequestBody::OffsetForLeaderEpoch(decode_as(b, version)?),
            ApiKey::AddPartitionsToTxn => RequestBody::AddPartitionsToTxn(decode_as(b, version)?),
            ApiKey::AddOffsetsToTxn => RequestBody::AddOffsetsToTxn(decode_as(b, version)?),
            ApiKey::EndTxn => RequestBody::EndTxn(decode_as(b, version)?),
            ApiKey::WriteTxnMarkers => RequestBody::WriteTxnMarkers(decode_as(b, version)?),
            ApiKey::TxnOffsetCommit => RequestBody::TxnOffsetCommit(decode_as(b, version)?),
            ApiKey::DescribeConfigs => RequestBody::DescribeConfigs(decode_as(b, version)?),
            ApiKey::AlterConfigs => RequestBody::AlterConfigs(decode_as(b, version)?),
            ApiKey::DescribeLogDirs => RequestBody::DescribeLogDirs(decode_as(b, version)?),
            ApiKey::CreatePartitions => RequestBody::CreatePartitions(decode_as(b, version)?),
            ApiKey::DeleteGroups => RequestBody::DeleteGroups(decode_as(b, version)?),
            ApiKey::ElectLeaders => RequestBody::ElectLeaders(decode_as(b, version)?),
            ApiKey::IncrementalAlterConfigs => RequestBody::IncrementalAlterConfigs(decode_as(b, version)?),
            ApiKey::AlterPartitionReassignments => RequestBody::AlterPartitionReassignments(decode_as(b, version)?),
            ApiKey::ListPartitionReassignments => RequestBody::ListPartitionReassignments(decode_as(b, version)?),
            ApiKey::OffsetDelete => RequestBody::OffsetDelete(decode_as(b, version)?),
            ApiKey::DescribeClientQuotas => RequestBody::DescribeClientQuotas(decode_as(b, version)?),
            ApiKey::AlterClientQuotas => RequestBody::AlterClientQuotas(decode_as(b, version)?),
            ApiKey::DescribeUserScramCredentials => RequestBody::DescribeUserScramCredentials(decode_as(b, version)?),
            ApiKey::DescribeQuorum => RequestBody::DescribeQuorum(decode_as(b, version)?),
            ApiKey::UpdateFeatures => RequestBody::UpdateFeatures(decode_as(b, version)?),
            ApiKey::DescribeCluster => RequestBody::DescribeCluster(decode_as(b, version)?),
            ApiKey::DescribeProducers => RequestBody::DescribeProducers(decode_as(b, version)?),
            ApiKey::UnregisterBroker => RequestBody::UnregisterBroker(decode_as(b, version)?),
            ApiKey::DescribeTransactions => RequestBody::DescribeTransactions(decode_as(b, version)?),
            ApiKey::ListTransactions => RequestBody::ListTransactions(decode_as(b, version)?),
            ApiKey::ConsumerGroupHeartbeat => RequestBody::ConsumerGroupHeartbeat(decode_as(b, version)?),
            ApiKey::ConsumerGroupDescribe => RequestBody::ConsumerGroupDescribe(decode_as(b, version)?),
            ApiKey::GetTelemetrySubscriptions => RequestBody::GetTelemetrySubscriptions(decode_as(b, version)?),
            ApiKey::PushTelemetry => RequestBody::PushTelemetry(decode_as(b, version)?),
            ApiKey::ListConfigResources => RequestBody::ListConfigResources(decode_as(b, version)?),
            ApiKey::DescribeTopicPartitions => RequestBody::DescribeTopicPartitions(decode_as(b, version)?),
            other => return Err(DecodeError(format!("{other:?} is not an API of this broker"))),
        })
    }

    /// Bytes that the answer may take beyond what the request itself is charged for: what a Fetch allows, an estimate
    /// where the answer tells of state that the request only names.
    pub fn answer_bytes(&self) -> usize {
        match self {
            RequestBody::Fetch(fetch) => usize::try_from(fetch.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX),
            RequestBody::Metadata(body) if body.topics.is_none() => LISTING_ANSWER_BYTES,
            RequestBody::OffsetFetch(body) => offset_fetch_answer_bytes(body),
            // The leader is told what every member subscribes to.
            RequestBody::JoinGroup(_) => DESCRIPTION_ANSWER_BYTES,
            RequestBody::DescribeGroups(body) => body.groups.len() * DESCRIPTION_ANSWER_BYTES,
            RequestBody::ConsumerGroupDescribe(body) => body.group_ids.len() * DESCRIPTION_ANSWER_BYTES,
            RequestBody::ListGroups(_) => LISTING_ANSWER_BYTES,
            RequestBody::DescribeTransactions(body) => body.transactional_ids.len() * DESCRIPTION_ANSWER_BYTES,
            RequestBody::ListTransactions(_) => LISTING_ANSWER_BYTES,
            RequestBody::ElectLeaders(body) if body.topic_partitions.is_none() => LISTING_ANSWER_BYTES,
            RequestBody::ListConfigResources(_) => LISTING_ANSWER_BYTES,
            RequestBody::DescribeClientQuotas(_) => LISTING_ANSWER_BYTES,
            _ => 0,
        }
    }
}

/// A group without topics asks for all that it has committed.
fn offset_fetch_answer_bytes(body: &wire::OffsetFetchRequest) -> usize {
    let whole = body.groups.iter().filter(|group| group.topics.is_none()).count();
    let single = body.groups.is_empty() && body.topics.is_none();
    (whole + usize::from(single)) * DESCRIPTION_ANSWER_BYTES
}

/// Entry for a fuzz target: whatever the bytes, walking and decoding must neither panic nor take more memory than
/// the bytes justify. Whether it is a request.
pub fn walk_fuzz(frame: &[u8]) -> bool {
    let context = Arc::new(ConnectionContext {
        connection_id: 0,
        listener: "fuzz".into(),
        peer_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        principal: Principal::anonymous(),
        software: OnceLock::new(),
    });
    parse(Bytes::copy_from_slice(frame), &context).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{GroupId, offset_fetch_request::OffsetFetchRequestGroup};

    #[test]
    fn answers_are_counted_where_the_request_does_not_tell_their_size() {
        let group = |topics| OffsetFetchRequestGroup::default().with_topics(topics);
        let fetch = |groups| RequestBody::OffsetFetch(wire::OffsetFetchRequest::default().with_groups(groups));
        let all_offsets = wire::OffsetFetchRequest::default().with_topics(None);
        let described = wire::DescribeGroupsRequest::default().with_groups(vec![GroupId::default(); 3]);
        let bodies = [
            (RequestBody::Metadata(wire::MetadataRequest::default().with_topics(None)), LISTING_ANSWER_BYTES),
            (RequestBody::Metadata(wire::MetadataRequest::default()), 0),
            (fetch(vec![group(None), group(Some(vec![])), group(None)]), 2 * DESCRIPTION_ANSWER_BYTES),
            (fetch(vec![group(Some(vec![]))]), 0),
            (RequestBody::OffsetFetch(all_offsets), DESCRIPTION_ANSWER_BYTES),
            (RequestBody::DescribeGroups(described), 3 * DESCRIPTION_ANSWER_BYTES),
            (RequestBody::Fetch(wire::FetchRequest::default().with_max_bytes(-1)), 0),
            (RequestBody::Fetch(wire::FetchRequest::default().with_max_bytes(i32::MAX)), FETCH_BYTES_MAX),
        ];
        for (body, bytes) in bodies {
            assert_eq!(body.answer_bytes(), bytes, "{body:?}");
        }
    }
}
