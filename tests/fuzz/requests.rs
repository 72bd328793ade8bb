//! Valid request frames, without their lengths, of every API of this release at every version that the library writes.

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn all_versions<R: Request>(request: R, frames: &mut Vec<Vec<u8>>) {
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_client_id(Some(text("fuzz")));
        let mut bytes = BytesMut::new();
        let whole =
            header.encode(&mut bytes, R::header_version(version)).and_then(|()| request.encode(&mut bytes, version));
        if whole.is_ok() {
            frames.push(bytes.into());
        }
    }
}

/// Several frames for each API, with every kind of list in them filled.
pub fn frames() -> Vec<Vec<u8>> {
    let mut frames = vec![];
    let name = || TopicName(text("topic"));
    let f = &mut frames;
    let data = produce_request::PartitionProduceData::default().with_records(Some(vec![7u8; 80].into()));
    let data = produce_request::TopicProduceData::default().with_name(name()).with_partition_data(vec![data; 2]);
    all_versions(ProduceRequest::default().with_topic_data(vec![data]), f);
    let asked = fetch_request::FetchPartition::default();
    let asked = fetch_request::FetchTopic::default().with_topic(name()).with_partitions(vec![asked; 2]);
    all_versions(FetchRequest::default().with_topics(vec![asked]), f);
    all_versions(FetchRequest::default(), f);
    let asked = list_offsets_request::ListOffsetsPartition::default();
    let asked = list_offsets_request::ListOffsetsTopic::default().with_name(name()).with_partitions(vec![asked; 2]);
    all_versions(ListOffsetsRequest::default().with_topics(vec![asked]), f);
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
    all_versions(MetadataRequest::default().with_topics(Some(vec![asked; 2])), f);
    all_versions(ApiVersionsRequest::default().with_client_software_name(text("a")), f);
    all_versions(ApiVersionsRequest::default(), f);
    let config =
        create_topics_request::CreatableTopicConfig::default().with_name(text("a")).with_value(Some(text("b")));
    let assigned = create_topics_request::CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1); 2]);
    let topic = create_topics_request::CreatableTopic::default().with_name(name()).with_configs(vec![config; 2]);
    all_versions(CreateTopicsRequest::default().with_topics(vec![topic.with_assignments(vec![assigned])]), f);
    all_versions(DeleteTopicsRequest::default().with_topic_names(vec![name(); 2]), f);
    let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name()));
    all_versions(DeleteTopicsRequest::default().with_topics(vec![topic; 2]), f);
    let partition = delete_records_request::DeleteRecordsPartition::default();
    let topic =
        delete_records_request::DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![partition]);
    all_versions(DeleteRecordsRequest::default().with_topics(vec![topic]), f);
    all_versions(InitProducerIdRequest::default().with_transactional_id(None), f);
    let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
    let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(name());
    all_versions(OffsetForLeaderEpochRequest::default().with_topics(vec![topic.with_partitions(vec![partition])]), f);
    let resource = describe_configs_request::DescribeConfigsResource::default().with_resource_name(text("t"));
    let resource = resource.with_configuration_keys(Some(vec![text("retention.ms"); 2]));
    all_versions(DescribeConfigsRequest::default().with_resources(vec![resource]), f);
    let change = incremental_alter_configs_request::AlterableConfig::default().with_name(text("a"));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default().with_configs(vec![change; 2]);
    all_versions(IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), f);
    let topic =
        describe_log_dirs_request::DescribableLogDirTopic::default().with_topic(name()).with_partitions(vec![1, 2]);
    all_versions(DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), f);
    let assigned = create_partitions_request::CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let topic = create_partitions_request::CreatePartitionsTopic::default().with_name(name());
    all_versions(CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(Some(vec![assigned]))]), f);
    all_versions(DescribeClusterRequest::default(), f);
    let topic = describe_quorum_request::TopicData::default().with_topic_name(name());
    let topic = topic.with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    all_versions(DescribeQuorumRequest::default().with_topics(vec![topic]), f);
    let topic =
        describe_producers_request::TopicRequest::default().with_name(name()).with_partition_indexes(vec![0, 1]);
    all_versions(DescribeProducersRequest::default().with_topics(vec![topic]), f);
    let topic = describe_topic_partitions_request::TopicRequest::default().with_name(name());
    all_versions(DescribeTopicPartitionsRequest::default().with_topics(vec![topic; 2]).with_cursor(None), f);
    frames
}
