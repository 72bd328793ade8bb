//! The walker against the decoder: it must consume what kafka-protocol writes, to the byte, and refuse whatever
//! would make kafka-protocol reserve memory that the frame does not justify.

use std::mem::size_of;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use proptest::prelude::*;

use super::*;
use crate::kafka::request::{ConnectionContext, ELEMENT_BYTES, ParseError, parse};
use crate::kafka::samples;
use crate::kafka::versions::APIS;
use crate::security::Principal;

fn context() -> Arc<ConnectionContext> {
    Arc::new(ConnectionContext {
        connection_id: 1,
        listener: "test".into(),
        peer_addr: ([127, 0, 0, 1], 1).into(),
        principal: Principal::anonymous(),
        software: OnceLock::new(),
    })
}

fn every_sample() -> impl Iterator<Item = (&'static Api, i16, Bytes)> {
    let versions = APIS.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version)));
    versions.flat_map(|(api, version)| samples::frames(api, version).into_iter().map(move |f| (api, version, f)))
}

fn api(key: ApiKey) -> &'static Api {
    Api::find(key as i16).unwrap()
}

#[test]
fn the_walk_consumes_exactly_what_the_encoder_wrote() {
    for (api, version, frame) in every_sample() {
        let walked = walk(api, version, &frame).unwrap_or_else(|e| panic!("{:?} {version}: {e}", api.key));
        assert_eq!(walked.total_bytes, frame.len(), "{:?} version {version}", api.key);
        let parsed = parse(frame, &context()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parsed.request.to.correlation_id, 77);
        assert_eq!(parsed.request.client_id.as_deref(), Some("sample"));
    }
}

#[test]
fn bytes_after_a_request_are_ignored() {
    for (api, version, frame) in every_sample() {
        let longer = [&frame[..], b"surplus"].concat();
        assert_eq!(walk(api, version, &longer), walk(api, version, &frame));
        assert!(parse(Bytes::from(longer), &context()).is_ok());
    }
}

/// The remote abort: kafka-protocol reserves by these claims and takes the process with it.
#[test]
fn the_claims_that_abort_the_decoder_are_refused() {
    let header = |version: i16, flexible: bool| {
        let mut frame = BytesMut::new();
        frame.put_i16(ApiKey::Metadata as i16);
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_i16(-1);
        if flexible {
            frame.put_u8(0);
        }
        frame
    };
    let mut plain = header(4, false);
    plain.put_i32(i32::MAX);
    let mut compact = header(9, true);
    compact.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    for frame in [plain, compact] {
        let error = parse(frame.freeze(), &context()).unwrap_err();
        assert!(matches!(error, ParseError::Malformed { source: Malformed::BeyondEnd { .. }, .. }), "{error}");
    }
}

#[test]
fn elements_are_bounded_over_the_whole_request() {
    // Each topic takes two bytes here, so this many fit in a small frame.
    let frame = |topics: usize| {
        let mut frame = BytesMut::new();
        frame.put_i16(ApiKey::Metadata as i16);
        frame.put_i16(9);
        frame.put_i32(1);
        frame.put_i16(-1);
        frame.put_u8(0);
        let mut claim = topics + 1;
        while claim >= 0x80 {
            frame.put_u8(claim as u8 | 0x80);
            claim >>= 7;
        }
        frame.put_u8(claim as u8);
        frame.put_bytes(0, 2 * topics + 4);
        frame.freeze()
    };
    let metadata = api(ApiKey::Metadata);
    let most = walk(metadata, 9, &frame(REQUEST_ELEMENTS_MAX)).unwrap();
    assert_eq!(most.elements, REQUEST_ELEMENTS_MAX);
    assert_eq!(walk(metadata, 9, &frame(REQUEST_ELEMENTS_MAX + 1)), Err(Malformed::TooManyElements));
}

#[test]
fn a_known_tagged_field_must_have_its_length() {
    let fetch = api(ApiKey::Fetch);
    let body = FetchRequest::default().with_cluster_id(Some("abc".into()));
    let good = samples::frame(fetch, 12, &body);
    let at = good.windows(5).rposition(|window| window == b"\x00\x04\x04ab").unwrap();
    for (length, expected) in [(3, 3), (5, 5), (0, 0)] {
        let mut bad = good.to_vec();
        bad[at + 1] = length;
        let error = walk(fetch, 12, &bad).unwrap_err();
        assert!(matches!(error, Malformed::TagLength { claimed, found: 4, .. } if claimed == expected), "{error}");
    }
}

/// Whether walking and decoding a frame, whatever it is, ends well; and if it decodes, in bounded memory.
fn survives(frame: Bytes) -> bool {
    let bytes = frame.len();
    match parse(frame, &context()) {
        Ok(parsed) => parsed.bytes - parsed.request.body.answer_bytes() <= bytes * (1 + ELEMENT_BYTES),
        Err(_) => true,
    }
}

#[test]
fn truncation_at_each_byte_is_refused() {
    for (api, version, frame) in every_sample() {
        for end in 0..frame.len() {
            let error = parse(frame.slice(..end), &context()).unwrap_err();
            let expected = matches!(error, ParseError::Short(_) | ParseError::Malformed { .. });
            assert!(expected, "{:?} {version} cut at {end}: {error}", api.key);
        }
    }
}

#[test]
fn lengths_overwritten_anywhere_do_no_harm() {
    let claims: [&[u8]; 8] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0x7f, 0xff],
        &[0x80],
    ];
    for (_, _, frame) in every_sample() {
        for claim in claims {
            for at in FIXED_HEADER_BYTES..frame.len().saturating_sub(claim.len()) {
                let mut bad = frame.to_vec();
                bad[at..at + claim.len()].copy_from_slice(claim);
                assert!(survives(Bytes::from(bad)));
            }
        }
    }
}

#[test]
fn an_element_is_charged_what_its_decoded_form_takes() {
    let sizes = [
        size_of::<produce_request::PartitionProduceData>(),
        size_of::<produce_request::TopicProduceData>(),
        size_of::<fetch_request::FetchPartition>(),
        size_of::<fetch_request::FetchTopic>(),
        size_of::<fetch_request::ForgottenTopic>(),
        size_of::<list_offsets_request::ListOffsetsTopic>(),
        size_of::<metadata_request::MetadataRequestTopic>(),
        size_of::<create_topics_request::CreatableTopic>(),
        size_of::<create_topics_request::CreatableTopicConfig>(),
        size_of::<delete_topics_request::DeleteTopicState>(),
        size_of::<describe_configs_request::DescribeConfigsResource>(),
        size_of::<create_partitions_request::CreatePartitionsTopic>(),
        size_of::<incremental_alter_configs_request::AlterConfigsResource>(),
        size_of::<incremental_alter_configs_request::AlterableConfig>(),
        size_of::<offset_commit_request::OffsetCommitRequestPartition>(),
        size_of::<offset_commit_request::OffsetCommitRequestTopic>(),
        size_of::<offset_fetch_request::OffsetFetchRequestGroup>(),
        size_of::<join_group_request::JoinGroupRequestProtocol>(),
        size_of::<leave_group_request::MemberIdentity>(),
        size_of::<sync_group_request::SyncGroupRequestAssignment>(),
        size_of::<consumer_group_heartbeat_request::TopicPartitions>(),
        size_of::<add_partitions_to_txn_request::AddPartitionsToTxnTransaction>(),
        size_of::<write_txn_markers_request::WritableTxnMarker>(),
        size_of::<txn_offset_commit_request::TxnOffsetCommitRequestPartition>(),
        size_of::<alter_configs_request::AlterConfigsResource>(),
        size_of::<elect_leaders_request::TopicPartitions>(),
        size_of::<alter_partition_reassignments_request::ReassignablePartition>(),
        size_of::<update_features_request::FeatureUpdateKey>(),
        size_of::<describe_client_quotas_request::ComponentData>(),
        size_of::<alter_client_quotas_request::EntityData>(),
        size_of::<alter_client_quotas_request::EntryData>(),
        size_of::<alter_client_quotas_request::OpData>(),
    ];
    assert!(sizes.iter().all(|size| *size <= ELEMENT_BYTES), "{sizes:?}");
    // An unknown tagged field takes a leaf of a B-tree: eleven places for key and value.
    assert!(11 * (size_of::<i32>() + size_of::<Bytes>()) + 32 <= TAGGED_FIELD_ELEMENTS * ELEMENT_BYTES);
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(
        row in 0..APIS.len(),
        spread in 0..20_i16,
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let api = &APIS[row];
        let version = api.min + spread % (api.max - api.min + 1);
        let mut frame = BytesMut::new();
        frame.put_i16(api.key as i16);
        frame.put_i16(version);
        frame.put_slice(&body);
        prop_assert!(survives(frame.freeze()));
    }

    #[test]
    fn damaged_samples_do_no_harm(pick in any::<prop::sample::Index>(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let all: Vec<_> = every_sample().collect();
        let mut frame = pick.get(&all).2.to_vec();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        prop_assert!(survives(Bytes::from(frame)));
    }
}
