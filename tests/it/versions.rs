//! Every advertised version of every API answers a good request with an answer that can be decoded: a field set in the
//! answer that an old version lacks would otherwise close the connection of every old client.
//!
//! Also passes on a real Kafka (see `Target`).

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, fetch_request, produce_request, text, topic};
use super::harness::{Target, new_producer, now_ms, unique, wait_for_leaders};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Message, Request};
use std::collections::BTreeMap;

/// What the requests speak of, and what went wrong so far.
pub(super) struct Round<'a> {
    pub target: &'a Target,
    pub name: String,
    pub node: BrokerId,
    advertised: BTreeMap<i16, (i16, i16)>,
    asked: Vec<i16>,
    wrong: Vec<String>,
}

impl Round<'_> {
    /// Sends the request that `make` builds at each version; `error` takes the error code out of the answer.
    pub fn ask<R: Request>(&mut self, make: impl Fn(&Self, i16) -> R, error: impl Fn(&R::Response) -> i16) {
        self.asked.push(R::KEY);
        let Some((min, max)) = self.advertised.get(&R::KEY).copied() else { return };
        for version in min.max(R::VERSIONS.min)..=max.min(<R as Message>::VERSIONS.max) {
            let mut client = self.target.client();
            match client.call(version, &make(self, version)) {
                Ok(answer) if error(&answer) == 0 => {}
                Ok(answer) => self.wrong.push(format!("API {} v{version}: error {}", R::KEY, error(&answer))),
                Err(e) => self.wrong.push(format!("API {} v{version}: {e}", R::KEY)),
            }
        }
    }

    fn id(&self) -> Option<metadata_response::MetadataResponseTopic> {
        self.target.client().metadata(&[&self.name]).ok()?.topics.pop()
    }
}

fn data(round: &mut Round<'_>) {
    let id = round.id().map(|t| t.topic_id).unwrap_or_default();
    round.ask(
        |r, version| {
            let batch = batch::encode(&[b"v".to_vec()], NO_PRODUCER, -1, now_ms());
            let mut request = produce_request(&r.name, -1, vec![(0, batch)]);
            if version >= 13 {
                request.topic_data[0].name = topic("");
                request.topic_data[0].topic_id = id;
            }
            request
        },
        |a: &ProduceResponse| a.responses[0].partition_responses[0].error_code,
    );
    round.ask(
        |r, version| {
            let mut request = fetch_request(&r.name, 0, 0, 100, 1 << 20);
            if version >= 13 {
                request.topics[0].topic = topic("");
                request.topics[0].topic_id = id;
            }
            request
        },
        |a: &FetchResponse| a.responses.first().map_or(a.error_code, |t| t.partitions[0].error_code),
    );
    for timestamp in [-1, -2, 0] {
        round.ask(
            |r, _| {
                let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
                let asked = list_offsets_request::ListOffsetsTopic::default().with_name(topic(&r.name));
                let partition = partition.with_current_leader_epoch(-1);
                let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
                request.with_topics(vec![asked.with_partitions(vec![partition])])
            },
            |a: &ListOffsetsResponse| a.topics[0].partitions[0].error_code,
        );
    }
    round.ask(
        |r, _| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let partition = partition.with_current_leader_epoch(-1).with_leader_epoch(0);
            let asked = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic(&r.name));
            let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1));
            request.with_topics(vec![asked.with_partitions(vec![partition])])
        },
        |a: &OffsetForLeaderEpochResponse| a.topics[0].partitions[0].error_code,
    );
    round.ask(
        |_, _| InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1000),
        |a: &InitProducerIdResponse| a.error_code,
    );
}

fn descriptions(round: &mut Round<'_>) {
    round.ask(
        |r, _| {
            let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic(&r.name)));
            MetadataRequest::default().with_topics(Some(vec![asked]))
        },
        |a: &MetadataResponse| a.topics[0].error_code,
    );
    round.ask(
        |_, version| {
            let request = ApiVersionsRequest::default();
            if version < 3 {
                return request;
            }
            request.with_client_software_name(text("it")).with_client_software_version(text("1"))
        },
        |a: &ApiVersionsResponse| a.error_code,
    );
    for (kind, node) in [(2, false), (4, true)] {
        round.ask(
            |r, version| {
                let resource = describe_configs_request::DescribeConfigsResource::default().with_resource_type(kind);
                let name = if node { r.node.0.to_string() } else { r.name.clone() };
                let resource = resource.with_resource_name(text(&name)).with_configuration_keys(None);
                let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
                request.with_include_synonyms(true).with_include_documentation(version >= 3)
            },
            |a: &DescribeConfigsResponse| a.results[0].error_code,
        );
    }
    round.ask(
        |_, _| DescribeLogDirsRequest::default().with_topics(None),
        |a: &DescribeLogDirsResponse| a.results[0].error_code,
    );
    round.ask(|_, _| DescribeClusterRequest::default(), |a: &DescribeClusterResponse| a.error_code);
    round.ask(
        |_, _| {
            let asked = describe_quorum_request::TopicData::default().with_topic_name(topic("__cluster_metadata"));
            let asked = asked.with_partitions(vec![describe_quorum_request::PartitionData::default()]);
            DescribeQuorumRequest::default().with_topics(vec![asked])
        },
        |a: &DescribeQuorumResponse| a.error_code,
    );
    round.ask(
        |r, _| {
            let asked = describe_producers_request::TopicRequest::default().with_name(topic(&r.name));
            DescribeProducersRequest::default().with_topics(vec![asked.with_partition_indexes(vec![0])])
        },
        |a: &DescribeProducersResponse| a.topics[0].partitions[0].error_code,
    );
    round.ask(
        |r, _| {
            let asked = describe_topic_partitions_request::TopicRequest::default().with_name(topic(&r.name));
            DescribeTopicPartitionsRequest::default().with_topics(vec![asked]).with_cursor(None)
        },
        |a: &DescribeTopicPartitionsResponse| a.topics[0].error_code,
    );
}

fn changes(round: &mut Round<'_>) {
    round.ask(
        |_, _| {
            let asked = create_topics_request::CreatableTopic::default().with_name(topic(&unique("made")));
            let asked = asked.with_num_partitions(1).with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![asked]).with_timeout_ms(5000)
        },
        |a: &CreateTopicsResponse| a.topics[0].error_code,
    );
    round.ask(
        |r, version| {
            let name = unique("gone");
            let mut client = r.target.client();
            client.create_topic(&name, 1, &[]).expect("a topic to delete");
            wait_for_leaders(&mut client, &name, 1);
            let request = DeleteTopicsRequest::default().with_timeout_ms(5000);
            if version < 6 {
                return request.with_topic_names(vec![topic(&name)]);
            }
            request.with_topics(vec![delete_topics_request::DeleteTopicState::default().with_name(Some(topic(&name)))])
        },
        |a: &DeleteTopicsResponse| a.responses[0].error_code,
    );
    round.ask(
        |r, _| {
            let have = r.id().map_or(0, |t| t.partitions.len() as i32);
            let asked = create_partitions_request::CreatePartitionsTopic::default().with_name(topic(&r.name));
            let asked = asked.with_count(have + 1).with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(5000)
        },
        |a: &CreatePartitionsResponse| a.results[0].error_code,
    );
    round.ask(
        |r, _| {
            let change = incremental_alter_configs_request::AlterableConfig::default().with_name(text("retention.ms"));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
            let change = change.with_value(Some(text("7200000")));
            let resource = resource.with_resource_name(text(&r.name)).with_configs(vec![change]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
        },
        |a: &IncrementalAlterConfigsResponse| a.responses[0].error_code,
    );
    round.ask(
        |r, _| {
            let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
            let asked = delete_records_request::DeleteRecordsTopic::default().with_name(topic(&r.name));
            let asked = asked.with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(5000)
        },
        |a: &DeleteRecordsResponse| a.topics[0].partitions[0].error_code,
    );
}

#[test]
fn every_version_of_every_api_answers() {
    let target = Target::new();
    let mut client: Client = target.client();
    let name = unique("versions");
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, &name, 1);
    let producer = new_producer(&mut client);
    client.produce(&name, 0, batch::encode(&[b"first".to_vec()], producer, 0, now_ms())).unwrap();
    let keys = client.api_versions().unwrap().api_keys;
    let node = client.metadata(&[]).unwrap().brokers[0].node_id;
    let advertised: BTreeMap<i16, (i16, i16)> =
        keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
    let mut round = Round { target: &target, name, node, advertised, asked: vec![], wrong: vec![] };
    data(&mut round);
    descriptions(&mut round);
    changes(&mut round);
    super::versions_coordinators::offsets(&mut round);
    super::versions_coordinators::groups(&mut round);
    super::versions_coordinators::described_groups(&mut round);
    super::versions_coordinators::transactions(&mut round);
    super::versions_coordinators::administration(&mut round);
    let (asked, mut wrong) = (round.asked, round.wrong);
    if target.broker.is_some() {
        let missing = round.advertised.keys().filter(|key| !asked.contains(key));
        wrong.extend(missing.map(|key| format!("API {key} is advertised and not asked here")));
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n  {}", wrong.len(), wrong.join("\n  "));
}
