//! Requests of every API and version, as clients write them: empty, and with every field filled.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::versions::Api;

/// A frame without its length prefix.
pub fn frame(api: &Api, version: i16, body: &impl Encodable) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(text("sample")))
        .with_unknown_tagged_fields(tags(api.flexible(version)));
    let mut out = BytesMut::new();
    header.encode(&mut out, api.key.request_header_version(version)).unwrap();
    body.encode(&mut out, version).unwrap();
    out.freeze()
}

/// With the length prefix.
pub fn with_length(frame: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(frame.len() as i32);
    out.put_slice(frame);
    out.freeze()
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

/// Unknown tagged fields, where the version can carry them.
fn tags(flexible: bool) -> BTreeMap<i32, Bytes> {
    let fields = [(100, Bytes::from_static(b"unknown")), (300, Bytes::new())];
    if flexible { fields.into() } else { BTreeMap::new() }
}

/// Frames of one API and version: the default body, and populated ones.
pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::Produce => {
            vec![frame(api, version, &ProduceRequest::default()), frame(api, version, &produce(version, f))]
        }
        ApiKey::Fetch => vec![frame(api, version, &FetchRequest::default()), frame(api, version, &fetch(version, f))],
        ApiKey::ListOffsets => {
            vec![frame(api, version, &ListOffsetsRequest::default()), frame(api, version, &list_offsets(version, f))]
        }
        ApiKey::Metadata => metadata(version, f).iter().map(|body| frame(api, version, body)).collect(),
        ApiKey::ApiVersions => vec![frame(api, version, &api_versions(version, f))],
        ApiKey::CreateTopics => {
            vec![frame(api, version, &CreateTopicsRequest::default()), frame(api, version, &create_topics(f))]
        }
        ApiKey::DeleteTopics => vec![frame(api, version, &delete_topics(version, f))],
        ApiKey::DeleteRecords => vec![frame(api, version, &delete_records(f))],
        ApiKey::InitProducerId => vec![
            frame(api, version, &InitProducerIdRequest::default()),
            frame(api, version, &init_producer_id(version, f)),
        ],
        ApiKey::OffsetForLeaderEpoch => vec![frame(api, version, &offset_for_leader_epoch(version, f))],
        ApiKey::DescribeConfigs => vec![frame(api, version, &describe_configs(version, f))],
        ApiKey::DescribeLogDirs => {
            let all = DescribeLogDirsRequest::default().with_topics(None);
            vec![frame(api, version, &all), frame(api, version, &describe_log_dirs(f))]
        }
        ApiKey::CreatePartitions => vec![frame(api, version, &create_partitions(f))],
        ApiKey::IncrementalAlterConfigs => vec![frame(api, version, &incremental_alter_configs(f))],
        ApiKey::DescribeQuorum => vec![frame(api, version, &describe_quorum())],
        ApiKey::DescribeCluster => vec![frame(api, version, &describe_cluster(version))],
        ApiKey::DescribeProducers => vec![frame(api, version, &describe_producers())],
        ApiKey::DescribeTopicPartitions => {
            let bodies = describe_topic_partitions();
            bodies.iter().map(|body| frame(api, version, body)).collect()
        }
        other => panic!("no sample of {other:?}"),
    }
}

fn produce(version: i16, f: bool) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = |records| {
        PartitionProduceData::default().with_index(3).with_records(records).with_unknown_tagged_fields(tags(f))
    };
    let records = Bytes::from_static(&[0xff; 200]);
    let mut data = TopicProduceData::default()
        .with_partition_data(vec![partition(Some(records)), partition(None)])
        .with_unknown_tagged_fields(tags(f));
    data = if version >= 13 { data.with_topic_id(Uuid::from_u128(7)) } else { data.with_name(topic("orders")) };
    ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![data.clone(), data])
        .with_unknown_tagged_fields(tags(f))
}

fn fetch(version: i16, f: bool) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let mut partition = FetchPartition::default().with_partition(1).with_fetch_offset(9).with_partition_max_bytes(1000);
    partition = partition.with_unknown_tagged_fields(tags(f));
    if version >= 5 {
        partition = partition.with_log_start_offset(2);
    }
    if version >= 9 {
        partition = partition.with_current_leader_epoch(4);
    }
    if version >= 12 {
        partition = partition.with_last_fetched_epoch(4);
    }
    if version >= 17 {
        partition = partition.with_replica_directory_id(Uuid::from_u128(1));
    }
    if version >= 18 {
        partition = partition.with_high_watermark(55);
    }
    let mut wanted =
        FetchTopic::default().with_partitions(vec![partition.clone(), partition]).with_unknown_tagged_fields(tags(f));
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]).with_unknown_tagged_fields(tags(f));
    if version >= 13 {
        wanted = wanted.with_topic_id(Uuid::from_u128(3));
        forgotten = forgotten.with_topic_id(Uuid::from_u128(3));
    } else {
        wanted = wanted.with_topic(topic("orders"));
        forgotten = forgotten.with_topic(topic("orders"));
    }
    let mut body = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_topics(vec![wanted.clone(), wanted])
        .with_unknown_tagged_fields(tags(f));
    if version >= 7 {
        body = body.with_session_id(5).with_session_epoch(6).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        body = body.with_rack_id(text("rack"));
    }
    if version >= 12 {
        body = body.with_cluster_id(Some(text("cluster")));
    }
    if version >= 15 {
        let state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(5);
        body = body.with_replica_state(state.with_unknown_tagged_fields(tags(f)));
    } else {
        body = body.with_replica_id(BrokerId(2));
    }
    body
}

fn list_offsets(version: i16, f: bool) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let mut partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-1);
    partition = partition.with_unknown_tagged_fields(tags(f));
    if version >= 4 {
        partition = partition.with_current_leader_epoch(8);
    }
    let wanted = ListOffsetsTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition.clone(), partition])
        .with_unknown_tagged_fields(tags(f));
    let mut body = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
    if version >= 2 {
        body = body.with_isolation_level(1);
    }
    if version >= 10 {
        body = body.with_timeout_ms(100);
    }
    body.with_unknown_tagged_fields(tags(f))
}

fn metadata(version: i16, f: bool) -> Vec<MetadataRequest> {
    use metadata_request::MetadataRequestTopic;
    let mut wanted = vec![MetadataRequestTopic::default().with_name(Some(topic("orders")))];
    if version >= 10 {
        wanted.push(MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(9)));
    }
    let wanted = wanted.into_iter().map(|topic| topic.with_unknown_tagged_fields(tags(f))).collect();
    let mut named = MetadataRequest::default().with_topics(Some(wanted)).with_unknown_tagged_fields(tags(f));
    if version >= 8 {
        named = named.with_include_topic_authorized_operations(true);
    }
    let all = MetadataRequest::default().with_topics(if version >= 1 { None } else { Some(Vec::new()) });
    vec![named, all]
}

fn api_versions(version: i16, f: bool) -> ApiVersionsRequest {
    let mut body = ApiVersionsRequest::default().with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_client_software_name(text("sample")).with_client_software_version(text("1.0"));
    }
    body
}

fn create_topics(f: bool) -> CreateTopicsRequest {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
    let assignment = CreatableReplicaAssignment::default()
        .with_partition_index(0)
        .with_broker_ids(vec![BrokerId(1), BrokerId(2)])
        .with_unknown_tagged_fields(tags(f));
    let config = |value| {
        CreatableTopicConfig::default()
            .with_name(text("retention.ms"))
            .with_value(value)
            .with_unknown_tagged_fields(tags(f))
    };
    let wanted = CreatableTopic::default()
        .with_name(topic("orders"))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment])
        .with_configs(vec![config(None), config(Some(text("1")))])
        .with_unknown_tagged_fields(tags(f));
    CreateTopicsRequest::default()
        .with_topics(vec![wanted.clone(), wanted])
        .with_timeout_ms(1000)
        .with_validate_only(true)
        .with_unknown_tagged_fields(tags(f))
}

fn delete_topics(version: i16, f: bool) -> DeleteTopicsRequest {
    use delete_topics_request::DeleteTopicState;
    let mut body = DeleteTopicsRequest::default().with_timeout_ms(5).with_unknown_tagged_fields(tags(f));
    if version >= 6 {
        let named = DeleteTopicState::default().with_name(Some(topic("orders"))).with_unknown_tagged_fields(tags(f));
        let by_id = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(1));
        body = body.with_topics(vec![named, by_id]);
    } else {
        body = body.with_topic_names(vec![topic("orders"), topic("payments")]);
    }
    body
}

fn delete_records(f: bool) -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_offset(-1).with_unknown_tagged_fields(tags(f));
    let wanted = DeleteRecordsTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition.clone(), partition])
        .with_unknown_tagged_fields(tags(f));
    DeleteRecordsRequest::default().with_topics(vec![wanted]).with_unknown_tagged_fields(tags(f))
}

fn init_producer_id(version: i16, f: bool) -> InitProducerIdRequest {
    let mut body = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(1000)
        .with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_producer_id(ProducerId(4)).with_producer_epoch(2);
    }
    body
}

fn offset_for_leader_epoch(version: i16, f: bool) -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(3).with_unknown_tagged_fields(tags(f));
    let wanted = OffsetForLeaderTopic::default()
        .with_topic(topic("orders"))
        .with_partitions(vec![partition.clone(), partition])
        .with_unknown_tagged_fields(tags(f));
    let mut body = OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]);
    if version >= 3 {
        body = body.with_replica_id(BrokerId(-1));
    }
    body.with_unknown_tagged_fields(tags(f))
}

fn describe_configs(version: i16, f: bool) -> DescribeConfigsRequest {
    use describe_configs_request::DescribeConfigsResource;
    let resource = |keys| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("orders"))
            .with_configuration_keys(keys)
            .with_unknown_tagged_fields(tags(f))
    };
    let resources = vec![resource(None), resource(Some(vec![text("retention.ms"), text("segment.ms")]))];
    let mut body = DescribeConfigsRequest::default().with_resources(resources).with_include_synonyms(true);
    if version >= 3 {
        body = body.with_include_documentation(true);
    }
    body.with_unknown_tagged_fields(tags(f))
}

fn describe_log_dirs(f: bool) -> DescribeLogDirsRequest {
    use describe_log_dirs_request::DescribableLogDirTopic;
    let wanted = DescribableLogDirTopic::default()
        .with_topic(topic("orders"))
        .with_partitions(vec![0, 1])
        .with_unknown_tagged_fields(tags(f));
    DescribeLogDirsRequest::default().with_topics(Some(vec![wanted])).with_unknown_tagged_fields(tags(f))
}

fn create_partitions(f: bool) -> CreatePartitionsRequest {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    let assignment =
        CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]).with_unknown_tagged_fields(tags(f));
    let wanted = |assignments| {
        CreatePartitionsTopic::default()
            .with_name(topic("orders"))
            .with_count(4)
            .with_assignments(assignments)
            .with_unknown_tagged_fields(tags(f))
    };
    CreatePartitionsRequest::default()
        .with_topics(vec![wanted(None), wanted(Some(vec![assignment.clone(), assignment]))])
        .with_unknown_tagged_fields(tags(f))
}

fn incremental_alter_configs(f: bool) -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let change = |value| {
        AlterableConfig::default().with_name(text("retention.ms")).with_value(value).with_unknown_tagged_fields(tags(f))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![change(None), change(Some(text("5")))])
        .with_unknown_tagged_fields(tags(f));
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_unknown_tagged_fields(tags(f))
}

fn describe_quorum() -> DescribeQuorumRequest {
    use describe_quorum_request::{PartitionData, TopicData};
    let partition = PartitionData::default().with_partition_index(0).with_unknown_tagged_fields(tags(true));
    let wanted = TopicData::default()
        .with_topic_name(topic("__cluster_metadata"))
        .with_partitions(vec![partition])
        .with_unknown_tagged_fields(tags(true));
    DescribeQuorumRequest::default().with_topics(vec![wanted]).with_unknown_tagged_fields(tags(true))
}

fn describe_cluster(version: i16) -> DescribeClusterRequest {
    let mut body = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    if version >= 2 {
        body = body.with_include_fenced_brokers(true);
    }
    body.with_unknown_tagged_fields(tags(true))
}

fn describe_producers() -> DescribeProducersRequest {
    use describe_producers_request::TopicRequest;
    let wanted = TopicRequest::default()
        .with_name(topic("orders"))
        .with_partition_indexes(vec![0, 1, 2])
        .with_unknown_tagged_fields(tags(true));
    DescribeProducersRequest::default().with_topics(vec![wanted]).with_unknown_tagged_fields(tags(true))
}

fn describe_topic_partitions() -> Vec<DescribeTopicPartitionsRequest> {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let wanted = TopicRequest::default().with_name(topic("orders")).with_unknown_tagged_fields(tags(true));
    let cursor = Cursor::default().with_topic_name(topic("orders")).with_unknown_tagged_fields(tags(true));
    let first = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![wanted.clone(), wanted])
        .with_unknown_tagged_fields(tags(true));
    vec![first.clone(), first.with_cursor(Some(cursor))]
}
