//! Our Fetch encoder against kafka-protocol's, byte for byte, at every version.

use kafka_protocol::messages::fetch_response as wire;
use kafka_protocol::messages::{BrokerId, FetchResponse as WireResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::fetch::{AbortedTransaction, FetchResponse, FetchedPartition, FetchedTopic, NodeEndpoint, response};
use super::*;
use crate::base::{LeaderEpoch, NodeId, Offset, ProducerId, TopicId};
use crate::batch::StoredBatch;
use crate::kafka::versions::Api;

fn to(version: i16) -> ReplyTo {
    ReplyTo { api: Api::find(ApiKey::Fetch as i16).unwrap(), version, correlation_id: 0x0102_0304 }
}

/// The same response as kafka-protocol has it, without what the version does not have.
fn as_wire(version: i16, ours: &FetchResponse) -> WireResponse {
    let mut out = WireResponse::default().with_throttle_time_ms(ours.throttle_time_ms);
    if version >= 7 {
        out = out.with_error_code(ours.error_code).with_session_id(ours.session_id);
    }
    if version >= 16 {
        let endpoint = |ours: &NodeEndpoint| {
            let endpoint = wire::NodeEndpoint::default().with_node_id(BrokerId(ours.node.0)).with_port(ours.port);
            endpoint.with_host(ours.host.clone()).with_rack(ours.rack.clone())
        };
        out = out.with_node_endpoints(ours.node_endpoints.iter().map(endpoint).collect());
    }
    let topic = |ours: &FetchedTopic| {
        let partitions = ours.partitions.iter().map(|p| partition_as_wire(version, p)).collect();
        wire::FetchableTopicResponse::default()
            .with_topic(TopicName(ours.name.clone()))
            .with_topic_id(Uuid::from_bytes(ours.id.0))
            .with_partitions(partitions)
    };
    out.with_responses(ours.topics.iter().map(topic).collect())
}

fn partition_as_wire(version: i16, ours: &FetchedPartition) -> wire::PartitionData {
    let aborted = |t: &AbortedTransaction| {
        wire::AbortedTransaction::default().with_producer_id(t.producer_id.0.into()).with_first_offset(t.first_offset.0)
    };
    let records: Vec<u8> = ours.batches.iter().flat_map(|b| [&b.head[..], &b.body[..]].concat()).collect();
    let mut out = wire::PartitionData::default()
        .with_partition_index(ours.index)
        .with_error_code(ours.error_code)
        .with_high_watermark(ours.high_watermark.0)
        .with_last_stable_offset(ours.last_stable_offset.0)
        .with_log_start_offset(ours.log_start_offset.0)
        .with_aborted_transactions(ours.aborted_transactions.as_ref().map(|all| all.iter().map(aborted).collect()))
        .with_records(Some(Bytes::from(records)));
    if version >= 11 {
        out = out.with_preferred_read_replica(BrokerId(ours.preferred_read_replica.map_or(-1, |n| n.0)));
    }
    if version < 12 {
        return out;
    }
    if let Some((epoch, end)) = ours.diverging_epoch {
        out = out.with_diverging_epoch(wire::EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0));
    }
    if let Some((node, epoch)) = ours.current_leader {
        let leader = wire::LeaderIdAndEpoch::default().with_leader_id(BrokerId(node.0)).with_leader_epoch(epoch.0);
        out = out.with_current_leader(leader);
    }
    if let Some((end, epoch)) = ours.snapshot_id {
        out = out.with_snapshot_id(wire::SnapshotId::default().with_end_offset(end.0).with_epoch(epoch.0));
    }
    out
}

prop_compose! {
    fn batch()(head in any::<[u8; 16]>(), body in prop::collection::vec(any::<u8>(), 0..300)) -> StoredBatch {
        StoredBatch { head, body: Bytes::from(body) }
    }
}

prop_compose! {
    fn partition()(
        (index, error_code) in any::<(i32, i16)>(),
        (high, stable, start) in any::<(i64, i64, i64)>(),
        aborted in prop::option::of(prop::collection::vec(any::<(i64, i64)>(), 0..3)),
        batches in prop::collection::vec(batch(), 0..4),
        replica in prop::option::of(0..i32::MAX),
        // The crate leaves out a tagged struct that equals its default, so none here does.
        diverging in prop::option::of((0..i32::MAX, 0..i64::MAX)),
        leader in prop::option::of((0..i32::MAX, 0..i32::MAX)),
        snapshot in prop::option::of((0..i64::MAX, 0..i32::MAX)),
    ) -> FetchedPartition {
        let transaction = |(id, first)| AbortedTransaction { producer_id: ProducerId(id), first_offset: Offset(first) };
        FetchedPartition {
            index,
            error_code,
            high_watermark: Offset(high),
            last_stable_offset: Offset(stable),
            log_start_offset: Offset(start),
            aborted_transactions: aborted.map(|all| all.into_iter().map(transaction).collect()),
            preferred_read_replica: replica.map(NodeId),
            batches,
            diverging_epoch: diverging.map(|(epoch, end)| (LeaderEpoch(epoch), Offset(end))),
            current_leader: leader.map(|(node, epoch)| (NodeId(node), LeaderEpoch(epoch))),
            snapshot_id: snapshot.map(|(end, epoch)| (Offset(end), LeaderEpoch(epoch))),
        }
    }
}

prop_compose! {
    fn topic()(
        name in "[a-z]{0,9}",
        id in any::<[u8; 16]>(),
        partitions in prop::collection::vec(partition(), 0..4),
    ) -> FetchedTopic {
        FetchedTopic { name: StrBytes::from_string(name), id: TopicId(id), partitions }
    }
}

prop_compose! {
    fn endpoint()(node in any::<i32>(), host in "[a-z.]{0,200}", port in any::<i32>(), rack in prop::option::of("[a-z]*")) -> NodeEndpoint {
        NodeEndpoint { node: NodeId(node), host: host.into(), port, rack: rack.map(StrBytes::from_string) }
    }
}

prop_compose! {
    fn answer()(
        (throttle_time_ms, error_code, session_id) in any::<(i32, i16, i32)>(),
        topics in prop::collection::vec(topic(), 0..4),
        node_endpoints in prop::collection::vec(endpoint(), 0..3),
    ) -> FetchResponse {
        FetchResponse { throttle_time_ms, error_code, session_id, topics, node_endpoints }
    }
}

proptest! {
    #[test]
    fn every_version_is_what_the_crate_writes(ours in answer()) {
        for version in 4..=18 {
            let theirs = super::response(to(version), &as_wire(version, &ours)).unwrap();
            let rope = response(to(version), &ours).unwrap();
            prop_assert_eq!(rope.len(), rope.pieces().iter().map(Bytes::len).sum::<usize>());
            prop_assert_eq!(rope.to_bytes(), theirs.to_bytes(), "version {}", version);
        }
    }
}

#[test]
fn bodies_are_shared_and_not_copied() {
    let bodies = [Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 7000])];
    let batches = bodies.iter().map(|body| StoredBatch { head: [9; 16], body: body.clone() }).collect();
    let partitions = vec![FetchedPartition { batches, ..Default::default() }];
    let topics = vec![FetchedTopic { partitions, ..Default::default() }];
    let rope = response(to(18), &FetchResponse { topics, ..Default::default() }).unwrap();
    let pieces: Vec<_> = rope.pieces().iter().map(|piece| piece.as_ptr()).collect();
    assert_eq!(pieces.len(), 5);
    assert_eq!((pieces[1], pieces[3]), (bodies[0].as_ptr(), bodies[1].as_ptr()));
    // What stands between the bodies is one buffer.
    assert_eq!(pieces[2], rope.pieces()[0].as_ptr().wrapping_add(rope.pieces()[0].len()));
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for version in [3, 19] {
        assert!(matches!(response(to(version), &FetchResponse::default()), Err(EncodeError::Refused { .. })));
    }
}

#[test]
fn a_field_that_the_version_lacks_is_refused_by_the_crate() {
    let body = WireResponse::default().with_session_id(5);
    assert!(matches!(super::response(to(4), &body), Err(EncodeError::Refused { .. })));
}
