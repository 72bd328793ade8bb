//! The Fetch response, versions 4 to 18, written around record batches that are shared, not copied.
//!
//! The result is byte for byte what kafka-protocol would write. All fields go into one buffer of exactly the needed
//! size, batch heads included; the rope is slices of it with the batch bodies between them.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::{EncodeError, LENGTH_PREFIX_BYTES, Rope, frame_length, put_response_header, response_header_bytes};
use crate::base::{LeaderEpoch, NodeId, Offset, ProducerId, TopicId};
use crate::batch::{HEAD_BYTES, StoredBatch};
use crate::kafka::request::ReplyTo;

/// A Fetch response. What a version does not have is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    /// From version 7.
    pub error_code: i16,
    /// From version 7.
    pub session_id: i32,
    pub topics: Vec<FetchedTopic>,
    /// Where the current leaders are that partitions name (KIP-951), from version 16.
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct FetchedTopic {
    /// Up to version 12.
    pub name: StrBytes,
    /// From version 13.
    pub id: TopicId,
    pub partitions: Vec<FetchedPartition>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchedPartition {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    /// From version 5.
    pub log_start_offset: Offset,
    /// Null for read_uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// From version 11.
    pub preferred_read_replica: Option<NodeId>,
    pub batches: Vec<StoredBatch>,
    /// Largest epoch and its end, where the log of the fetcher diverges (KIP-595), from version 12.
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// From version 12.
    pub current_leader: Option<(NodeId, LeaderEpoch)>,
    /// End offset and epoch of a snapshot to fetch instead, from version 12.
    pub snapshot_id: Option<(Offset, LeaderEpoch)>,
}

impl Default for FetchedPartition {
    fn default() -> Self {
        FetchedPartition {
            index: 0,
            error_code: 0,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            aborted_transactions: None,
            preferred_read_replica: None,
            batches: Vec::new(),
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
        }
    }
}

impl FetchedPartition {
    /// Bytes of all batches.
    pub fn records_bytes(&self) -> usize {
        self.batches.iter().map(|batch| HEAD_BYTES + batch.body.len()).sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NodeEndpoint {
    pub node: NodeId,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

/// Encodes a Fetch response with its length and header.
pub fn response(to: ReplyTo, response: &FetchResponse) -> Result<Rope, EncodeError> {
    if !to.api.accepts(to.version) {
        let reason = "no such version".to_owned();
        return Err(EncodeError::Refused { api: to.api.key, version: to.version, reason });
    }
    // Twice over the same code: the first pass only counts, so that the second writes into one exact buffer.
    let count = count(to.version, |writer| writer.response(response));
    let fields = LENGTH_PREFIX_BYTES + response_header_bytes(to) + count.fields;
    let length = frame_length(to, fields + count.bodies)?;

    let mut buffer = BytesMut::with_capacity(fields);
    buffer.put_i32(length);
    put_response_header(&mut buffer, to);
    let pieces = Pieces { fields: buffer, cuts: Vec::with_capacity(count.cuts) };
    let mut writer = Writer { out: pieces, version: to.version };
    writer.response(response);
    Ok(writer.out.splice())
}

/// Where a response goes: into pieces, or only its sizes into a count.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
    fn body(&mut self, body: &Bytes);
}

#[derive(Default)]
struct Count {
    fields: usize,
    bodies: usize,
    cuts: usize,
}

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.fields += bytes.len();
    }

    fn body(&mut self, body: &Bytes) {
        self.bodies += body.len();
        self.cuts += 1;
    }
}

fn count(version: i16, write: impl FnOnce(&mut Writer<Count>)) -> Count {
    let mut writer = Writer { out: Count::default(), version };
    write(&mut writer);
    writer.out
}

struct Pieces {
    fields: BytesMut,
    /// Bodies, each with the number of bytes of fields before it.
    cuts: Vec<(usize, Bytes)>,
}

impl Sink for Pieces {
    fn put(&mut self, bytes: &[u8]) {
        self.fields.put_slice(bytes);
    }

    fn body(&mut self, body: &Bytes) {
        self.cuts.push((self.fields.len(), body.clone()));
    }
}

impl Pieces {
    /// Puts every body where its cut is.
    fn splice(self) -> Rope {
        let fields = self.fields.freeze();
        let mut rope = Rope::with_capacity(2 * self.cuts.len() + 1);
        let mut from = 0;
        for (at, body) in self.cuts {
            rope.push(fields.slice(from..at));
            rope.push(body);
            from = at;
        }
        rope.push(fields.slice(from..));
        rope
    }
}

struct Writer<S> {
    out: S,
    version: i16,
}

impl<S: Sink> Writer<S> {
    fn flexible(&self) -> bool {
        self.version >= 12
    }

    fn i16(&mut self, value: i16) {
        self.out.put(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.out.put(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.out.put(&value.to_be_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.out.put(&[value as u8]);
    }

    /// The length of an array or of bytes; `None` is null.
    fn length(&mut self, length: Option<usize>) {
        match (self.flexible(), length) {
            (true, length) => self.varint(length.map_or(0, |n| n as u64 + 1)),
            (false, Some(length)) => self.i32(length as i32),
            (false, None) => self.i32(-1),
        }
    }

    fn string(&mut self, text: Option<&StrBytes>) {
        match (self.flexible(), text) {
            (true, _) => self.length(text.map(|t| t.len())),
            (false, Some(text)) => self.i16(text.len() as i16),
            (false, None) => self.i16(-1),
        }
        if let Some(text) = text {
            self.out.put(text.as_bytes());
        }
    }

    /// The end of a struct without tagged fields.
    fn no_tags(&mut self) {
        if self.flexible() {
            self.varint(0);
        }
    }

    fn response(&mut self, response: &FetchResponse) {
        self.i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.i16(response.error_code);
            self.i32(response.session_id);
        }
        self.length(Some(response.topics.len()));
        response.topics.iter().for_each(|topic| self.topic(topic));
        if self.version >= 16 && !response.node_endpoints.is_empty() {
            self.varint(1);
            self.node_endpoints(&response.node_endpoints);
        } else {
            self.no_tags();
        }
    }

    fn topic(&mut self, topic: &FetchedTopic) {
        match self.version >= 13 {
            true => self.out.put(&topic.id.0),
            false => self.string(Some(&topic.name)),
        }
        self.length(Some(topic.partitions.len()));
        topic.partitions.iter().for_each(|partition| self.partition(partition));
        self.no_tags();
    }

    fn partition(&mut self, partition: &FetchedPartition) {
        self.i32(partition.index);
        self.i16(partition.error_code);
        self.i64(partition.high_watermark.0);
        self.i64(partition.last_stable_offset.0);
        if self.version >= 5 {
            self.i64(partition.log_start_offset.0);
        }
        let aborted = partition.aborted_transactions.as_deref();
        self.length(aborted.map(<[_]>::len));
        for transaction in aborted.unwrap_or_default() {
            self.i64(transaction.producer_id.0);
            self.i64(transaction.first_offset.0);
            self.no_tags();
        }
        if self.version >= 11 {
            self.i32(partition.preferred_read_replica.map_or(-1, |node| node.0));
        }
        self.records(partition);
        if self.flexible() {
            self.partition_tags(partition);
        }
    }

    fn records(&mut self, partition: &FetchedPartition) {
        self.length(Some(partition.records_bytes()));
        for batch in &partition.batches {
            self.out.put(&batch.head);
            self.out.body(&batch.body);
        }
    }

    fn partition_tags(&mut self, partition: &FetchedPartition) {
        let FetchedPartition { diverging_epoch, current_leader, snapshot_id, .. } = partition;
        let count = [diverging_epoch.is_some(), current_leader.is_some(), snapshot_id.is_some()];
        self.varint(count.iter().filter(|set| **set).count() as u64);
        if let Some((epoch, end)) = diverging_epoch {
            self.tag(0, 4 + 8 + 1);
            self.i32(epoch.0);
            self.i64(end.0);
            self.no_tags();
        }
        if let Some((leader, epoch)) = current_leader {
            self.tag(1, 4 + 4 + 1);
            self.i32(leader.0);
            self.i32(epoch.0);
            self.no_tags();
        }
        if let Some((end, epoch)) = snapshot_id {
            self.tag(2, 8 + 4 + 1);
            self.i64(end.0);
            self.i32(epoch.0);
            self.no_tags();
        }
    }

    fn tag(&mut self, number: u64, bytes: usize) {
        self.varint(number);
        self.varint(bytes as u64);
    }

    fn node_endpoints(&mut self, endpoints: &[NodeEndpoint]) {
        let size = count(self.version, |writer| writer.node_endpoint_array(endpoints));
        self.tag(0, size.fields);
        self.node_endpoint_array(endpoints);
    }

    fn node_endpoint_array(&mut self, endpoints: &[NodeEndpoint]) {
        self.length(Some(endpoints.len()));
        for endpoint in endpoints {
            self.i32(endpoint.node.0);
            self.string(Some(&endpoint.host));
            self.i32(endpoint.port);
            self.string(endpoint.rack.as_ref());
            self.no_tags();
        }
    }
}
