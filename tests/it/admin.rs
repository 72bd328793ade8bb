//! Topics and their settings over the wire: create, change, describe, delete.
//!
//! These tests also pass on a real Kafka (see `Target`).

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, text, topic};
use super::harness::{Target, eventually, new_producer, now_ms, unique, wait_for_leaders};
use kafka_protocol::messages::*;
use std::time::Duration;

const READY: Duration = Duration::from_secs(10);
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn config(client: &mut Client, kind: i8, resource: &str, name: &str) -> Option<(Option<String>, i8)> {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(4, &request).unwrap();
    assert_eq!(response.results[0].error_code, 0, "{:?}", response.results[0].error_message);
    let found = response.results[0].configs.iter().find(|c| &*c.name == name)?.clone();
    Some((found.value.map(|v| v.to_string()), found.config_source))
}

fn alter(client: &mut Client, name: &str, changes: &[(&str, i8, Option<&str>)]) -> i16 {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| {
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(change).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).unwrap().responses[0].error_code
}

#[test]
fn a_topic_lives_from_create_to_delete() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("admin");
    assert_eq!(client.create_topic(&name, 3, &[("retention.ms", "120000")]).unwrap(), 0);
    assert_eq!(client.create_topic(&name, 3, &[]).unwrap(), 36, "it exists");
    wait_for_leaders(&mut client, &name, 3);
    let id = client.metadata(&[&name]).unwrap().topics[0].topic_id;
    let grow = create_partitions_request::CreatePartitionsTopic::default().with_name(topic(&name)).with_count(5);
    let request =
        CreatePartitionsRequest::default().with_timeout_ms(5000).with_topics(vec![grow.with_assignments(None)]);
    assert_eq!(client.call(3, &request).unwrap().results[0].error_code, 0);
    wait_for_leaders(&mut client, &name, 5);
    assert_eq!(client.call(3, &request).unwrap().results[0].error_code, 37, "not more than before");
    let delete = delete_topics_request::DeleteTopicState::default().with_name(Some(topic(&name)));
    let request = DeleteTopicsRequest::default().with_timeout_ms(5000).with_topics(vec![delete]);
    let deleted = client.call(6, &request).unwrap().responses.remove(0);
    assert_eq!((deleted.error_code, deleted.topic_id), (0, id));
    eventually("the topic is gone", READY, || {
        (client.metadata(&[&name]).ok()?.topics[0].error_code == 3).then_some(())
    });
    assert_eq!(client.call(6, &request).unwrap().responses[0].error_code, 3);
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0, "the name is free again");
    wait_for_leaders(&mut client, &name, 1);
    assert_ne!(client.metadata(&[&name]).unwrap().topics[0].topic_id, id, "a new topic has a new id");
    assert_eq!(client.list_offset(&name, 0, -1).unwrap().2, 0);
}

/// Java's admin client leaves the name empty beside the id.
#[test]
fn one_topic_id_and_names_count_for_nothing() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("by-id");
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, &name, 1);
    let id = client.metadata(&[&name]).unwrap().topics[0].topic_id;
    let asked = |name: &str, id| {
        metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name))).with_topic_id(id)
    };
    let topics = vec![asked("", id), asked("other", id), asked(&name, Default::default())];
    let response = client.call(12, &MetadataRequest::default().with_topics(Some(topics))).unwrap();
    let answers: Vec<_> = response.topics.into_iter().map(|t| (t.error_code, t.topic_id, t.name)).collect();
    assert_eq!(answers, [(0, id, Some(topic(&name)))]);
}

#[test]
fn bad_topics_are_refused() {
    let target = Target::new();
    let mut client = target.client();
    for (name, partitions, configs, expected) in [
        ("bad name", 1, vec![], 17),
        ("..", 1, vec![], 17),
        ("none", 0, vec![], 37),
        ("conf", 1, vec![("no.such.setting", "1")], 40),
        ("conf", 1, vec![("retention.ms", "soon")], 40),
        ("conf", 1, vec![("segment.bytes", "10")], 40),
    ] {
        assert_eq!(client.create_topic(name, partitions, &configs).unwrap(), expected, "{name} {configs:?}");
    }
    assert_eq!(client.create_topic(&"n".repeat(250), 1, &[]).unwrap(), 17);
}

#[test]
fn settings_are_described_changed_and_removed() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("configs");
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, &name, 1);
    let default = config(&mut client, TOPIC, &name, "max.message.bytes").expect("it is described");
    assert_eq!(default, (Some("1048588".into()), 5), "Kafka's default, from the defaults");
    assert_eq!(alter(&mut client, &name, &[("max.message.bytes", 0, Some("2048"))]), 0);
    eventually("the change", READY, || {
        (config(&mut client, TOPIC, &name, "max.message.bytes")? == (Some("2048".into()), 1)).then_some(())
    });
    let large = batch::encode(&[vec![1; 4000]], NO_PRODUCER, -1, now_ms());
    assert_eq!(client.produce(&name, 0, large).unwrap().error, 10, "and it is enforced");
    assert_eq!(alter(&mut client, &name, &[("max.message.bytes", 1, None)]), 0);
    eventually("the default again", READY, || {
        (config(&mut client, TOPIC, &name, "max.message.bytes")? == (Some("1048588".into()), 5)).then_some(())
    });
    assert_eq!(alter(&mut client, &name, &[("no.such.setting", 0, Some("1"))]), 40);
    assert_eq!(alter(&mut client, &name, &[("retention.ms", 0, Some("never"))]), 40);
    let twice = [("retention.ms", 0, Some("1")), ("retention.ms", 0, Some("2"))];
    assert_eq!(alter(&mut client, &name, &twice), 42);
    let node = client.metadata(&[]).unwrap().brokers[0].node_id.0.to_string();
    assert!(config(&mut client, BROKER, &node, "num.partitions").is_some(), "the broker's own settings");
}

#[test]
fn deleted_records_are_gone() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("delete");
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, &name, 1);
    for _ in 0..10 {
        client.produce(&name, 0, batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, now_ms())).unwrap();
    }
    let delete = |client: &mut Client, offset| {
        let partition = delete_records_request::DeleteRecordsPartition::default().with_partition_index(0);
        let topic = delete_records_request::DeleteRecordsTopic::default().with_name(topic(&name));
        let topic = topic.with_partitions(vec![partition.with_offset(offset)]);
        let request = DeleteRecordsRequest::default().with_timeout_ms(5000).with_topics(vec![topic]);
        let result = client.call(2, &request).unwrap().topics[0].partitions[0].clone();
        (result.error_code, result.low_watermark)
    };
    assert_eq!(delete(&mut client, 4), (0, 4));
    assert_eq!(client.list_offset(&name, 0, -2).unwrap().2, 4);
    assert_eq!(client.fetch(&name, 0, 3, 0, 1 << 20).unwrap().error, 1);
    let offsets: Vec<i64> = client.read_all(&name, 0, 4).unwrap().iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [4, 5, 6, 7, 8, 9]);
    assert_eq!(delete(&mut client, 11).0, 1, "beyond the end");
    assert_eq!(delete(&mut client, -1), (0, 10), "-1 is the high watermark");
    assert_eq!(client.list_offset(&name, 0, -1).unwrap().2, 10, "the end stays");
    assert_eq!(alter(&mut client, &name, &[("cleanup.policy", 0, Some("compact"))]), 0);
    eventually("a compacted topic keeps its records", READY, || (delete(&mut client, 10).0 == 44).then_some(()));
}

#[test]
fn a_topic_of_coordinators_is_made_as_they_want_it_whoever_names_it_first() {
    let target = Target::new();
    let mut client = target.client();
    for name in ["__consumer_offsets", "__transaction_state", "__cluster_metadata"] {
        let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
        client.call(12, &request).unwrap();
    }
    for name in ["__consumer_offsets", "__transaction_state"] {
        wait_for_leaders(&mut client, name, 50);
        assert_eq!(config(&mut client, TOPIC, name, "cleanup.policy"), Some((Some("compact".into()), 1)));
    }
    if target.broker.is_some() {
        // A deliberate difference: nobody would find its group or transaction again.
        let grow = create_partitions_request::CreatePartitionsTopic::default().with_name(topic("__consumer_offsets"));
        let grow = grow.with_count(51).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_timeout_ms(5000).with_topics(vec![grow]);
        assert_eq!(client.call(3, &request).unwrap().results[0].error_code, 37);
    }
    let error = client.metadata(&["__cluster_metadata"]).unwrap().topics[0].error_code;
    assert!([3, 17].contains(&error), "there is no such topic: {error}");
}

#[test]
fn the_cluster_describes_itself() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("describe");
    assert_eq!(client.create_topic(&name, 2, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, &name, 2);
    let metadata = client.metadata(&[&name]).unwrap();
    let cluster = client.call(1, &DescribeClusterRequest::default().with_endpoint_type(1)).unwrap();
    assert_eq!(cluster.error_code, 0);
    assert_eq!(Some(cluster.cluster_id), metadata.cluster_id);
    assert_eq!((cluster.brokers.len(), &cluster.brokers[0].host), (1, &metadata.brokers[0].host));
    assert_eq!(metadata.brokers[0].port, i32::from(target.address.port()), "clients come back to the same listener");

    let asked = describe_topic_partitions_request::TopicRequest::default().with_name(topic(&name));
    let request =
        DescribeTopicPartitionsRequest::default().with_topics(vec![asked]).with_response_partition_limit(2000);
    let described = client.call(0, &request.with_cursor(None)).unwrap();
    assert_eq!((described.topics[0].error_code, described.topics[0].partitions.len()), (0, 2));

    client.produce(&name, 1, batch::encode(&[vec![0; 500]], NO_PRODUCER, -1, now_ms())).unwrap();
    let dirs = client.call(4, &DescribeLogDirsRequest::default().with_topics(None)).unwrap();
    let mut sizes =
        dirs.results.iter().flat_map(|d| &d.topics).filter(|t| *t.name == *name).flat_map(|t| &t.partitions);
    assert!(sizes.any(|p| p.partition_index == 1 && p.partition_size > 500), "{dirs:?}");

    let producer = new_producer(&mut client);
    client.produce(&name, 0, batch::encode(&[vec![0; 5], vec![1]], producer, 0, now_ms())).unwrap();
    let asked =
        describe_producers_request::TopicRequest::default().with_name(topic(&name)).with_partition_indexes(vec![0]);
    let producers = client.call(0, &DescribeProducersRequest::default().with_topics(vec![asked])).unwrap();
    let active = &producers.topics[0].partitions[0].active_producers[0];
    assert_eq!((active.producer_id.0, active.last_sequence), (producer.id, 1));

    let asked = describe_quorum_request::TopicData::default().with_topic_name(topic("__cluster_metadata"));
    let asked = asked.with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    let quorum = client.call(2, &DescribeQuorumRequest::default().with_topics(vec![asked])).unwrap();
    assert_eq!((quorum.error_code, quorum.topics[0].partitions[0].current_voters.len()), (0, 1));
}

#[test]
fn metadata_creates_topics_when_asked_to() {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("auto");
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic(&name)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let refused = client.call(12, &request.clone().with_allow_auto_topic_creation(false)).unwrap();
    assert_eq!(refused.topics[0].error_code, 3);
    eventually("the topic is created", READY, || {
        let answer = client.call(12, &request.clone().with_allow_auto_topic_creation(true)).ok()?;
        (answer.topics[0].error_code == 0 && !answer.topics[0].partitions.is_empty()).then_some(())
    });
    let all = client.call(12, &MetadataRequest::default().with_topics(None)).unwrap();
    assert!(all.topics.iter().any(|t| t.name.as_ref().is_some_and(|n| ***n == *name)));
}
