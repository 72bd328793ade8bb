//! A decoded request, what may be answered to it, and the [`Service`] that answers.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use kafka_protocol::messages as wire;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::encode::{self, Rope};
use super::versions::{Api, is_software_name, unsupported_api_versions};
use super::walker::{self, FIXED_HEADER_BYTES, Malformed};
use crate::base::limits::FETCH_BYTES_MAX;
use crate::security::Principal;

/// Memory that one element of a request may take once decoded; what a connection's budget is charged for it.
pub const ELEMENT_BYTES: usize = 192;

/// What all requests of one connection share.
#[derive(Debug)]
pub struct ConnectionContext {
    /// Unique within the process.
    pub connection_id: u64,
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    pub peer_addr: SocketAddr,
    pub principal: Principal,
    /// Name and version of the client's library, once an ApiVersions request has told them (KIP-511).
    pub software: OnceLock<(StrBytes, StrBytes)>,
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
}

/// What becomes of a request in the end.
#[derive(Debug)]
pub enum Outcome {
    /// These bytes are the response, length prefix included.
    Send(Rope),
    /// No response belongs to the request (Produce with acks=0).
    Silent,
    /// Close the connection once everything before is answered; the reason is logged.
    Close(Cow<'static, str>),
}

impl Outcome {
    /// Encodes a response. One that cannot be encoded closes the connection.
    pub fn encode(to: ReplyTo, body: &impl Encodable) -> Outcome {
        encode::response(to, body).into()
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
    let header_version = to.api.key.request_header_version(to.version);
    let header: wire::RequestHeader = decode_as(&mut frame, header_version)?;
    let body = RequestBody::decode(to.api.key, to.version, &mut frame)?;
    if let RequestBody::ApiVersions(body) = &body {
        note_software(context, body);
    }
    Ok(Request { to, client_id: header.client_id, body, context: Arc::clone(context) })
}

fn note_software(context: &ConnectionContext, body: &wire::ApiVersionsRequest) {
    let (name, version) = (&body.client_software_name, &body.client_software_version);
    if is_software_name(name) && is_software_name(version) {
        // The first one stands: a client tells it once per connection.
        let _ = context.software.set((name.clone(), version.clone()));
    }
}

/// The body of a request of any API in [`super::versions::APIS`].
#[derive(Debug)]
pub enum RequestBody {
    Produce(wire::ProduceRequest),
    Fetch(wire::FetchRequest),
    ListOffsets(wire::ListOffsetsRequest),
    Metadata(wire::MetadataRequest),
    ApiVersions(wire::ApiVersionsRequest),
    CreateTopics(wire::CreateTopicsRequest),
    DeleteTopics(wire::DeleteTopicsRequest),
    DeleteRecords(wire::DeleteRecordsRequest),
    InitProducerId(wire::InitProducerIdRequest),
    OffsetForLeaderEpoch(wire::OffsetForLeaderEpochRequest),
    DescribeConfigs(wire::DescribeConfigsRequest),
    DescribeLogDirs(wire::DescribeLogDirsRequest),
    CreatePartitions(wire::CreatePartitionsRequest),
    IncrementalAlterConfigs(wire::IncrementalAlterConfigsRequest),
    DescribeQuorum(wire::DescribeQuorumRequest),
    DescribeCluster(wire::DescribeClusterRequest),
    DescribeProducers(wire::DescribeProducersRequest),
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
            ApiKey::ApiVersions => RequestBody::ApiVersions(decode_as(b, version)?),
            ApiKey::CreateTopics => RequestBody::CreateTopics(decode_as(b, version)?),
            ApiKey::DeleteTopics => RequestBody::DeleteTopics(decode_as(b, version)?),
            ApiKey::DeleteRecords => RequestBody::DeleteRecords(decode_as(b, version)?),
            ApiKey::InitProducerId => RequestBody::InitProducerId(decode_as(b, version)?),
            ApiKey::OffsetForLeaderEpoch => RequestBody::OffsetForLeaderEpoch(decode_as(b, version)?),
            ApiKey::DescribeConfigs => RequestBody::DescribeConfigs(decode_as(b, version)?),
            ApiKey::DescribeLogDirs => RequestBody::DescribeLogDirs(decode_as(b, version)?),
            ApiKey::CreatePartitions => RequestBody::CreatePartitions(decode_as(b, version)?),
            ApiKey::IncrementalAlterConfigs => RequestBody::IncrementalAlterConfigs(decode_as(b, version)?),
            ApiKey::DescribeQuorum => RequestBody::DescribeQuorum(decode_as(b, version)?),
            ApiKey::DescribeCluster => RequestBody::DescribeCluster(decode_as(b, version)?),
            ApiKey::DescribeProducers => RequestBody::DescribeProducers(decode_as(b, version)?),
            ApiKey::DescribeTopicPartitions => RequestBody::DescribeTopicPartitions(decode_as(b, version)?),
            other => return Err(DecodeError(format!("{other:?} is not an API of this broker"))),
        })
    }

    /// Bytes that the answer may take, as far as the request says.
    pub fn answer_bytes(&self) -> usize {
        match self {
            RequestBody::Fetch(fetch) => usize::try_from(fetch.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX),
            _ => 0,
        }
    }
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
