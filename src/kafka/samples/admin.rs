//! Samples of what administrators ask.

use bytes::Bytes;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::{frame, tags, text, topic};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::CreateTopics => {
            vec![frame(api, version, &CreateTopicsRequest::default()), frame(api, version, &create_topics(f))]
        }
        ApiKey::DeleteTopics => vec![frame(api, version, &delete_topics(version, f))],
        ApiKey::DeleteRecords => vec![frame(api, version, &delete_records(f))],
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
        ApiKey::AlterConfigs => vec![frame(api, version, &alter_configs(f))],
        ApiKey::ElectLeaders => {
            let all = ElectLeadersRequest::default().with_topic_partitions(None);
            vec![frame(api, version, &all), frame(api, version, &elect_leaders(version, f))]
        }
        ApiKey::AlterPartitionReassignments => {
            vec![frame(api, version, &alter_partition_reassignments(version))]
        }
        ApiKey::ListPartitionReassignments => {
            let all = ListPartitionReassignmentsRequest::default().with_topics(None);
            vec![frame(api, version, &all), frame(api, version, &list_partition_reassignments())]
        }
        ApiKey::DescribeUserScramCredentials => {
            let all = DescribeUserScramCredentialsRequest::default().with_users(None);
            vec![frame(api, version, &all), frame(api, version, &describe_user_scram_credentials())]
        }
        ApiKey::UpdateFeatures => vec![frame(api, version, &update_features(version))],
        ApiKey::UnregisterBroker => vec![frame(api, version, &unregister_broker())],
        ApiKey::ListConfigResources => vec![frame(api, version, &list_config_resources(version))],
        _ => Vec::new(),
    }
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

fn alter_configs(f: bool) -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |value| {
        AlterableConfig::default().with_name(text("retention.ms")).with_value(value).with_unknown_tagged_fields(tags(f))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![config(None), config(Some(text("5")))])
        .with_unknown_tagged_fields(tags(f));
    AlterConfigsRequest::default()
        .with_resources(vec![resource.clone(), resource])
        .with_validate_only(true)
        .with_unknown_tagged_fields(tags(f))
}

fn elect_leaders(version: i16, f: bool) -> ElectLeadersRequest {
    use elect_leaders_request::TopicPartitions;
    let elected = TopicPartitions::default()
        .with_topic(topic("orders"))
        .with_partitions(vec![0, 1])
        .with_unknown_tagged_fields(tags(f));
    let body = ElectLeadersRequest::default()
        .with_topic_partitions(Some(vec![elected.clone(), elected]))
        .with_timeout_ms(100)
        .with_unknown_tagged_fields(tags(f));
    if version >= 1 { body.with_election_type(1) } else { body }
}

fn alter_partition_reassignments(version: i16) -> AlterPartitionReassignmentsRequest {
    use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
    let partition = |replicas| {
        ReassignablePartition::default()
            .with_partition_index(1)
            .with_replicas(replicas)
            .with_unknown_tagged_fields(tags(true))
    };
    let moved = ReassignableTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition(None), partition(Some(vec![BrokerId(1), BrokerId(2)]))])
        .with_unknown_tagged_fields(tags(true));
    let body = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(100)
        .with_topics(vec![moved.clone(), moved])
        .with_unknown_tagged_fields(tags(true));
    if version >= 1 { body.with_allow_replication_factor_change(false) } else { body }
}

fn list_partition_reassignments() -> ListPartitionReassignmentsRequest {
    use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
    let asked = ListPartitionReassignmentsTopics::default()
        .with_name(topic("orders"))
        .with_partition_indexes(vec![0, 1])
        .with_unknown_tagged_fields(tags(true));
    ListPartitionReassignmentsRequest::default()
        .with_timeout_ms(100)
        .with_topics(Some(vec![asked.clone(), asked]))
        .with_unknown_tagged_fields(tags(true))
}

fn update_features(version: i16) -> UpdateFeaturesRequest {
    use update_features_request::FeatureUpdateKey;
    let mut update = FeatureUpdateKey::default()
        .with_feature(text("group.version"))
        .with_max_version_level(1)
        .with_unknown_tagged_fields(tags(true));
    update = if version >= 1 { update.with_upgrade_type(2) } else { update.with_allow_downgrade(true) };
    let body = UpdateFeaturesRequest::default()
        .with_timeout_ms(100)
        .with_feature_updates(vec![update.clone(), update])
        .with_unknown_tagged_fields(tags(true));
    if version >= 1 { body.with_validate_only(true) } else { body }
}

fn unregister_broker() -> UnregisterBrokerRequest {
    UnregisterBrokerRequest::default().with_broker_id(BrokerId(7)).with_unknown_tagged_fields(tags(true))
}

fn describe_user_scram_credentials() -> DescribeUserScramCredentialsRequest {
    use describe_user_scram_credentials_request::UserName;
    let user = |name| UserName::default().with_name(text(name)).with_unknown_tagged_fields(tags(true));
    DescribeUserScramCredentialsRequest::default()
        .with_users(Some(vec![user("alice"), user("bob")]))
        .with_unknown_tagged_fields(tags(true))
}

fn list_config_resources(version: i16) -> ListConfigResourcesRequest {
    let body = ListConfigResourcesRequest::default().with_unknown_tagged_fields(tags(true));
    if version >= 1 { body.with_resource_types(vec![2, 4, 16, 32]) } else { body }
}
