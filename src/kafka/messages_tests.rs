//! Requests and responses as Apache Kafka itself writes them: the walker consumes the requests to the byte, and
//! kafka-protocol reads both and writes them again as they were. So neither the shapes nor the crate, which the other
//! tests hold against each other, can share an error.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::versions::Api;
use super::walker::walk;

const MESSAGES: &str = include_str!("../../tests/fixtures/kafka/messages.txt");

/// Decodes a message and encodes it again.
type Again = fn(&Bytes, i16) -> Result<Bytes, String>;

fn again<T: Decodable + Encodable>(bytes: &Bytes, version: i16) -> Result<Bytes, String> {
    let mut rest = bytes.clone();
    let message = T::decode(&mut rest, version).map_err(|e| format!("cannot be decoded: {e}"))?;
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    let size = message.compute_size(version).map_err(|e| format!("has no size: {e}"))?;
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map_err(|e| format!("cannot be encoded: {e}"))?;
    if size == out.len() { Ok(out.freeze()) } else { Err(format!("takes {} bytes, not {size}", out.len())) }
}

/// For requests and for responses.
fn both(key: ApiKey) -> Option<(Again, Again)> {
    Some(match key {
        ApiKey::OffsetCommit => (again::<OffsetCommitRequest>, again::<OffsetCommitResponse>),
        ApiKey::OffsetFetch => (again::<OffsetFetchRequest>, again::<OffsetFetchResponse>),
        ApiKey::FindCoordinator => (again::<FindCoordinatorRequest>, again::<FindCoordinatorResponse>),
        ApiKey::JoinGroup => (again::<JoinGroupRequest>, again::<JoinGroupResponse>),
        ApiKey::Heartbeat => (again::<HeartbeatRequest>, again::<HeartbeatResponse>),
        ApiKey::LeaveGroup => (again::<LeaveGroupRequest>, again::<LeaveGroupResponse>),
        ApiKey::SyncGroup => (again::<SyncGroupRequest>, again::<SyncGroupResponse>),
        ApiKey::DescribeGroups => (again::<DescribeGroupsRequest>, again::<DescribeGroupsResponse>),
        ApiKey::ListGroups => (again::<ListGroupsRequest>, again::<ListGroupsResponse>),
        ApiKey::InitProducerId => (again::<InitProducerIdRequest>, again::<InitProducerIdResponse>),
        ApiKey::AddPartitionsToTxn => (again::<AddPartitionsToTxnRequest>, again::<AddPartitionsToTxnResponse>),
        ApiKey::AddOffsetsToTxn => (again::<AddOffsetsToTxnRequest>, again::<AddOffsetsToTxnResponse>),
        ApiKey::EndTxn => (again::<EndTxnRequest>, again::<EndTxnResponse>),
        ApiKey::WriteTxnMarkers => (again::<WriteTxnMarkersRequest>, again::<WriteTxnMarkersResponse>),
        ApiKey::TxnOffsetCommit => (again::<TxnOffsetCommitRequest>, again::<TxnOffsetCommitResponse>),
        ApiKey::AlterConfigs => (again::<AlterConfigsRequest>, again::<AlterConfigsResponse>),
        ApiKey::DeleteGroups => (again::<DeleteGroupsRequest>, again::<DeleteGroupsResponse>),
        ApiKey::ElectLeaders => (again::<ElectLeadersRequest>, again::<ElectLeadersResponse>),
        ApiKey::OffsetDelete => (again::<OffsetDeleteRequest>, again::<OffsetDeleteResponse>),
        ApiKey::UpdateFeatures => (again::<UpdateFeaturesRequest>, again::<UpdateFeaturesResponse>),
        ApiKey::UnregisterBroker => (again::<UnregisterBrokerRequest>, again::<UnregisterBrokerResponse>),
        ApiKey::DescribeTransactions => (again::<DescribeTransactionsRequest>, again::<DescribeTransactionsResponse>),
        ApiKey::ListTransactions => (again::<ListTransactionsRequest>, again::<ListTransactionsResponse>),
        ApiKey::PushTelemetry => (again::<PushTelemetryRequest>, again::<PushTelemetryResponse>),
        ApiKey::ListConfigResources => (again::<ListConfigResourcesRequest>, again::<ListConfigResourcesResponse>),
        _ => return both_of_long_names(key),
    })
}

fn both_of_long_names(key: ApiKey) -> Option<(Again, Again)> {
    Some(match key {
        ApiKey::AlterPartitionReassignments => {
            (again::<AlterPartitionReassignmentsRequest>, again::<AlterPartitionReassignmentsResponse>)
        }
        ApiKey::ListPartitionReassignments => {
            (again::<ListPartitionReassignmentsRequest>, again::<ListPartitionReassignmentsResponse>)
        }
        ApiKey::DescribeClientQuotas => (again::<DescribeClientQuotasRequest>, again::<DescribeClientQuotasResponse>),
        ApiKey::AlterClientQuotas => (again::<AlterClientQuotasRequest>, again::<AlterClientQuotasResponse>),
        ApiKey::ConsumerGroupHeartbeat => {
            (again::<ConsumerGroupHeartbeatRequest>, again::<ConsumerGroupHeartbeatResponse>)
        }
        ApiKey::ConsumerGroupDescribe => {
            (again::<ConsumerGroupDescribeRequest>, again::<ConsumerGroupDescribeResponse>)
        }
        ApiKey::GetTelemetrySubscriptions => {
            (again::<GetTelemetrySubscriptionsRequest>, again::<GetTelemetrySubscriptionsResponse>)
        }
        _ => return None,
    })
}

struct Line {
    api: &'static Api,
    version: i16,
    is_request: bool,
    bytes: Bytes,
}

fn lines() -> impl Iterator<Item = Line> {
    let unhex = |hex: &str| -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("the fixture is in hexadecimal");
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    MESSAGES.lines().filter(|line| !line.starts_with('#')).map(move |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let api = Api::find(words[0].parse().expect("an API key")).expect("an API of this broker");
        let version = words[1].parse().expect("a version");
        Line { api, version, is_request: words[2] == "request", bytes: unhex(words[3]) }
    })
}

/// With a header, as it would arrive.
fn framed(line: &Line) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_i16(line.api.key as i16);
    frame.put_i16(line.version);
    frame.put_i32(1);
    frame.put_i16(-1);
    if line.api.flexible(line.version) {
        frame.put_u8(0);
    }
    frame.put_slice(&line.bytes);
    frame
}

#[test]
fn what_kafka_writes_is_read_and_written_the_same() {
    let mut problems = Vec::new();
    for line in lines() {
        let (request, response) = both(line.api.key).expect("a codec");
        let codec = if line.is_request { request } else { response };
        let problem = match codec(&line.bytes, line.version) {
            Ok(bytes) if bytes == line.bytes => continue,
            Ok(_) => "is written differently".to_owned(),
            Err(problem) => problem,
        };
        let direction = if line.is_request { "request" } else { "response" };
        problems.push(format!("{:?} {} {direction}: {problem}", line.api.key, line.version));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_walk_consumes_exactly_what_kafka_wrote() {
    for line in lines().filter(|line| line.is_request) {
        let frame = framed(&line);
        let walked = walk(line.api, line.version, &frame).unwrap_or_else(|e| panic!("{:?}: {e}", line.api.key));
        assert_eq!(walked.total_bytes, frame.len(), "{:?} {}", line.api.key, line.version);
    }
}

#[test]
fn every_version_of_these_apis_is_among_the_messages() {
    let mut counts: BTreeMap<(i16, i16), usize> = BTreeMap::new();
    lines().for_each(|line| *counts.entry((line.api.key as i16, line.version)).or_default() += 1);
    for (key, _) in counts.clone().into_keys() {
        let api = Api::find(key).expect("an API of this broker");
        assert!((api.min..=api.max).all(|version| counts.get(&(key, version)) == Some(&4)), "{:?}", api.key);
    }
}
