//! A small blocking Kafka client for the tests: raw frames over TCP or mutual TLS, requests pipelined or one by one.
//!
//! No retries and no caches: a test sees exactly what the broker answers. Every read ends after `TIMEOUT`.

use super::batch::{self, Batch, Producer};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a client calls itself unless it is told otherwise.
const CLIENT_ID: &str = "it";

pub const TIMEOUT: Duration = Duration::from_secs(20);

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    correlation_id: i32,
    client_id: String,
}

/// What a produce request came to for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

/// What a fetch request gave for one partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub error: i16,
    pub high_watermark: i64,
    pub log_start: i64,
    pub batches: Vec<Batch>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let socket = tcp(address)?;
        Ok(Client { stream: Box::new(socket.try_clone()?), socket, correlation_id: 0, client_id: CLIENT_ID.to_owned() })
    }

    /// TLS by a prepared configuration; the handshake ends with the first request's answer.
    pub fn connect_tls(address: SocketAddr, config: rustls::ClientConfig) -> io::Result<Client> {
        let socket = tcp(address)?;
        let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
        let session = rustls::ClientConnection::new(std::sync::Arc::new(config), name)
            .map_err(|e| io::Error::other(e.to_string()))?;
        let stream = Box::new(rustls::StreamOwned::new(session, socket.try_clone()?));
        Ok(Client { stream, socket, correlation_id: 0, client_id: CLIENT_ID.to_owned() })
    }

    /// The same connection under another client id.
    pub fn named(mut self, client_id: &str) -> Client {
        self.client_id = client_id.to_owned();
        self
    }

    pub fn local_port(&self) -> u16 {
        self.socket.local_addr().map(|a| a.port()).unwrap_or(0)
    }

    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one frame without its length.
    pub fn receive_raw(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > 256 << 20 {
            return Err(io::Error::other(format!("the broker announces a frame of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// Sends a request without waiting; the answer is taken by `receive` in the same order.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation_id += 1;
        let frame = try_frame_of(&self.client_id, version, request, self.correlation_id).map_err(io::Error::other)?;
        self.send_raw(&frame)
    }

    /// The next answer, to a request of type `R`.
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut frame = Bytes::from(self.receive_raw()?);
        let bad = |what: &str, e: String| io::Error::other(format!("answer to API {} v{version}: {what}: {e}", R::KEY));
        ResponseHeader::decode(&mut frame, R::Response::header_version(version))
            .map_err(|e| bad("header", e.to_string()))?;
        let response = R::Response::decode(&mut frame, version).map_err(|e| bad("body", e.to_string()))?;
        if !frame.is_empty() {
            return Err(bad("body", format!("{} bytes left over", frame.len())));
        }
        Ok(response)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    pub fn api_versions(&mut self) -> io::Result<ApiVersionsResponse> {
        let request = ApiVersionsRequest::default().with_client_software_name(text("it"));
        self.call(3, &request.with_client_software_version(text("1")))
    }

    /// Creates a topic and returns the error code.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> io::Result<i16> {
        let configs = configs.iter().map(|(name, value)| {
            create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
            .with_configs(configs.collect());
        let response =
            self.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000))?;
        Ok(response.topics[0].error_code)
    }

    pub fn metadata(&mut self, names: &[&str]) -> io::Result<MetadataResponse> {
        let topics = names.iter().map(|n| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(n))));
        self.call(
            12,
            &MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false),
        )
    }

    /// A producer id for an idempotent producer.
    pub fn init_producer(&mut self) -> io::Result<Producer> {
        let request = InitProducerIdRequest::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
        let request = request.with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let response = self.call(4, &request)?;
        match response.error_code {
            0 => Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch }),
            code => Err(io::Error::other(format!("InitProducerId: error {code}"))),
        }
    }

    /// Sends batches with acks=all, one per partition, without waiting.
    pub fn send_produce(&mut self, name: &str, batches: Vec<(i32, Vec<u8>)>) -> io::Result<()> {
        self.send(PRODUCE_VERSION, &produce_request(name, -1, batches))
    }

    /// The answer to the oldest `send_produce` that has none yet.
    pub fn receive_produce(&mut self) -> io::Result<Vec<Produced>> {
        let response = self.receive::<ProduceRequest>(PRODUCE_VERSION)?;
        let partitions = response.responses.into_iter().flat_map(|t| t.partition_responses);
        let outcome = |p: produce_response::PartitionProduceResponse| Produced {
            partition: p.index,
            error: p.error_code,
            base_offset: p.base_offset,
        };
        Ok(partitions.map(outcome).collect())
    }

    /// Produces one batch with acks=all.
    pub fn produce(&mut self, name: &str, partition: i32, batch: Vec<u8>) -> io::Result<Produced> {
        self.send_produce(name, vec![(partition, batch)])?;
        let outcomes = self.receive_produce()?;
        outcomes.into_iter().next().ok_or_else(|| io::Error::other("the produce answer names no partition"))
    }

    /// Fetches from one partition, outside any session, waiting at most `wait_ms` for a byte.
    pub fn fetch(
        &mut self,
        name: &str,
        partition: i32,
        offset: i64,
        wait_ms: i32,
        max_bytes: i32,
    ) -> io::Result<Fetched> {
        let response = self.call(11, &fetch_request(name, partition, offset, wait_ms, max_bytes))?;
        if response.error_code != 0 {
            return Err(io::Error::other(format!("Fetch: error {}", response.error_code)));
        }
        let data = response.responses.into_iter().flat_map(|t| t.partitions).next();
        let data = data.ok_or_else(|| io::Error::other("the fetch answer names no partition"))?;
        let records = data.records.unwrap_or_default();
        Ok(Fetched {
            error: data.error_code,
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
            batches: batch::decode(&records).map_err(io::Error::other)?,
        })
    }

    /// All records from an offset up to the high watermark, each batch checked for following on the one before.
    pub fn read_all(&mut self, name: &str, partition: i32, from: i64) -> io::Result<Vec<batch::Record>> {
        let (mut next, mut records) = (from, vec![]);
        loop {
            let fetched = self.fetch(name, partition, next, 100, 1 << 20)?;
            if fetched.error != 0 {
                return Err(io::Error::other(format!("{name}-{partition} at {next}: error {}", fetched.error)));
            }
            for batch in fetched.batches {
                records.extend(batch.records.into_iter().filter(|r| r.offset >= next));
                next = batch.last_offset + 1;
            }
            if next >= fetched.high_watermark {
                return Ok(records);
            }
        }
    }

    /// ListOffsets for one partition: (error, timestamp, offset).
    pub fn list_offset(&mut self, name: &str, partition: i32, timestamp: i64) -> io::Result<(i16, i64, i64)> {
        let asked = list_offsets_request::ListOffsetsPartition::default().with_partition_index(partition);
        let asked = asked.with_timestamp(timestamp).with_current_leader_epoch(-1);
        let topic =
            list_offsets_request::ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response = self.call(9, &request)?;
        let p = &response.topics[0].partitions[0];
        Ok((p.error_code, p.timestamp, p.offset))
    }
}

const PRODUCE_VERSION: i16 = 9;

pub fn produce_request(name: &str, acks: i16, batches: Vec<(i32, Vec<u8>)>) -> ProduceRequest {
    let partitions = batches.into_iter().map(|(index, records)| {
        produce_request::PartitionProduceData::default().with_index(index).with_records(Some(records.into()))
    });
    let data = produce_request::TopicProduceData::default().with_name(topic(name));
    let data = data.with_partition_data(partitions.collect());
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data])
}

pub fn fetch_request(name: &str, partition: i32, offset: i64, wait_ms: i32, max_bytes: i32) -> FetchRequest {
    let asked = fetch_request::FetchPartition::default().with_partition(partition).with_fetch_offset(offset);
    let asked = asked.with_partition_max_bytes(max_bytes);
    let topic = fetch_request::FetchTopic::default().with_topic(topic(name)).with_partitions(vec![asked]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_topics(vec![topic])
}

/// A whole request frame, its length included.
pub fn frame<R: Request>(version: i16, request: &R, correlation_id: i32) -> Vec<u8> {
    try_frame(version, request, correlation_id).expect("a request is encodable at a version that it has")
}

/// Errs if the request has a field set that the version lacks.
pub fn try_frame<R: Request>(version: i16, request: &R, correlation_id: i32) -> Result<Vec<u8>, String> {
    try_frame_of(CLIENT_ID, version, request, correlation_id)
}

fn try_frame_of<R: Request>(
    client_id: &str,
    version: i16,
    request: &R,
    correlation_id: i32,
) -> Result<Vec<u8>, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text(client_id)));
    let mut bytes = BytesMut::from(&[0u8; 4][..]);
    header.encode(&mut bytes, R::header_version(version)).map_err(|e| e.to_string())?;
    request.encode(&mut bytes, version).map_err(|e| e.to_string())?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes.into())
}

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_string())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}
