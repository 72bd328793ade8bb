//! DescribeQuorum (key 55, KIP-595): the metadata quorum, under the name of Kafka's metadata topic.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::base::NodeId;
use crate::kafka::{Reply, Request};
use crate::metadata::Image;
use crate::quorum::{QuorumMember, QuorumView};
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

const TOPIC: &str = "__cluster_metadata";
const PARTITION: i32 = 0;
/// Stands for an offset or a time that is not known.
const NOT_KNOWN: i64 = -1;
/// Version from which the addresses of the voters and the ids of their storage are given (KIP-853).
const NODES_SINCE: i16 = 2;

impl Handlers {
    pub(super) async fn describe_quorum(&self, request: Request, body: DescribeQuorumRequest) -> Reply {
        let mut response = DescribeQuorumResponse::default();
        if let Err(denied) = self.permit(&request.context, Operation::Describe, Resource::CLUSTER) {
            let refusal = Refusal::from(denied);
            self.count(&request, refusal.code());
            (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            return Reply::encode(request.to, &response);
        }
        let view = match is_metadata(&body.topics) {
            // Only the leader knows the others; whoever is asked asks it, as in Kafka.
            true => self.broker.quorum_view().await.ok_or(ResponseError::NotLeaderOrFollower),
            false => Err(ResponseError::UnknownTopicOrPartition),
        };
        response.topics = match view {
            Err(error) => {
                self.count(&request, error.code());
                refused(&body.topics, error)
            }
            Ok(view) => {
                let (image, now_ms) = (self.broker.image(), self.broker.clock().wall_ms());
                let mut partition = described(&view, now_ms);
                if request.to.version >= NODES_SINCE {
                    name_storage(&mut partition, &image);
                    response.nodes = nodes(&view, &image);
                }
                vec![TopicData::default().with_topic_name(metadata()).with_partitions(vec![partition])]
            }
        };
        Reply::encode(request.to, &response)
    }
}

fn metadata() -> kafka_protocol::messages::TopicName {
    kafka_protocol::messages::TopicName(text(TOPIC))
}

/// Whether the request asks for the one partition that there is, and for nothing else.
fn is_metadata(topics: &[AskedTopic]) -> bool {
    match topics {
        [topic] if **topic.topic_name == *TOPIC => {
            matches!(&*topic.partitions, [partition] if partition.partition_index == PARTITION)
        }
        _ => false,
    }
}

fn refused(topics: &[AskedTopic], error: ResponseError) -> Vec<TopicData> {
    let partition = |index| {
        PartitionData::default().with_partition_index(index).with_error_code(error.code()).with_error_message(None)
    };
    topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect();
            TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions)
        })
        .collect()
}

fn described(view: &QuorumView, now_ms: i64) -> PartitionData {
    let date = |ago: Option<Duration>| {
        let ago = ago.map(|ago| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
        ago.map_or(NOT_KNOWN, |ago| now_ms.saturating_sub(ago).max(0))
    };
    let state = |member: &QuorumMember| {
        ReplicaState::default()
            .with_replica_id(member.node.0.into())
            .with_log_end_offset(member.end.map_or(NOT_KNOWN, offset))
            .with_last_fetch_timestamp(date(member.heard_ago))
            .with_last_caught_up_timestamp(date(member.caught_up_ago))
    };
    let (voters, observers): (Vec<_>, Vec<_>) = view.members.iter().partition(|member| member.is_voter);
    PartitionData::default()
        .with_partition_index(PARTITION)
        .with_leader_id(view.leader.0.into())
        .with_leader_epoch(i32::try_from(view.term).unwrap_or(i32::MAX))
        .with_high_watermark(offset(view.committed))
        .with_current_voters(voters.into_iter().map(state).collect())
        .with_observers(observers.into_iter().map(state).collect())
}

/// A node's storage is another one when its WAL is.
fn name_storage(partition: &mut PartitionData, image: &Image) {
    for member in partition.current_voters.iter_mut().chain(&mut partition.observers) {
        if let Some(broker) = image.brokers.get(&NodeId(member.replica_id.0)) {
            member.replica_directory_id = uuid::Uuid::from_bytes(broker.incarnation.0);
        }
    }
}

fn offset(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn nodes(view: &QuorumView, image: &Image) -> Vec<Node> {
    let voters = view.members.iter().filter(|member| member.is_voter).map(|member| &member.node);
    let voters = voters.map(|voter| {
        let endpoints = image.brokers.get(voter).map(|broker| &*broker.endpoints).unwrap_or_default();
        let listeners = endpoints.iter().map(|endpoint| {
            // In capitals, because Kafka's tools take no other name for one.
            Listener::default()
                .with_name(text(endpoint.listener.to_uppercase()))
                .with_host(text(&*endpoint.host))
                .with_port(endpoint.port)
        });
        Node::default().with_node_id(voter.0.into()).with_listeners(listeners.collect())
    });
    voters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerEpoch, WalIncarnation};
    use crate::metadata::{Broker, Endpoint};
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::describe_quorum_request::PartitionData as AskedPartition;

    fn view() -> QuorumView {
        let member = |node, is_voter, end: Option<u64>, ago: Option<u64>| QuorumMember {
            node: NodeId(node),
            is_voter,
            end,
            heard_ago: ago.map(Duration::from_millis),
            caught_up_ago: ago.map(|ago| Duration::from_millis(ago * 2)),
        };
        let members =
            vec![member(1, true, Some(10), Some(0)), member(2, true, None, None), member(3, false, Some(7), Some(20))];
        QuorumView { leader: NodeId(1), term: 3, committed: 10, members }
    }

    fn broker() -> Broker {
        Broker {
            epoch: BrokerEpoch(1),
            incarnation: WalIncarnation([5; 16]),
            boot: 1,
            endpoints: vec![Endpoint { listener: "plaintext".into(), host: "h".into(), port: 9 }],
            version: String::new(),
            registered_ms: 0,
            fenced: false,
        }
    }

    #[test]
    fn only_the_metadata_partition_alone_is_there() {
        let topic = |name: &str, partitions: &[i32]| {
            let partitions = partitions.iter().map(|p| AskedPartition::default().with_partition_index(*p)).collect();
            AskedTopic::default().with_topic_name(TopicName(text(name))).with_partitions(partitions)
        };
        assert!(is_metadata(&[topic(TOPIC, &[0])]));
        for wrong in [
            vec![],
            vec![topic(TOPIC, &[])],
            vec![topic(TOPIC, &[1])],
            vec![topic(TOPIC, &[0, 0])],
            vec![topic("other", &[0])],
            vec![topic(TOPIC, &[0]), topic(TOPIC, &[0])],
        ] {
            assert!(!is_metadata(&wrong), "{wrong:?}");
        }
    }

    /// Kafka's admin client refuses the whole answer otherwise.
    #[test]
    fn listeners_are_named_in_capitals() {
        let image = Image { brokers: [(NodeId(1), broker())].into(), ..Image::default() };
        let named = nodes(&view(), &image);
        assert_eq!(named.iter().map(|node| node.node_id.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(named[0].listeners[0].name.as_str(), "PLAINTEXT");
    }

    #[test]
    fn what_only_version_2_has_is_left_out_before() {
        use kafka_protocol::protocol::Encodable;
        let mut partition = described(&view(), 77);
        let response = |partition: &PartitionData| {
            let topic = TopicData::default().with_partitions(vec![partition.clone()]);
            DescribeQuorumResponse::default().with_topics(vec![topic])
        };
        for version in 0..NODES_SINCE {
            assert!(response(&partition).compute_size(version).is_ok(), "version {version}");
        }
        let image = Image { brokers: [(NodeId(1), broker())].into(), ..Image::default() };
        name_storage(&mut partition, &image);
        assert!(response(&partition).compute_size(NODES_SINCE).is_ok());
    }

    #[test]
    fn offsets_are_those_after_the_last_entry() {
        let partition = described(&view(), 77);
        assert_eq!((partition.leader_epoch, partition.high_watermark), (3, 10));
        let seen = |states: &[ReplicaState]| {
            let each = states.iter();
            each.map(|v| (v.replica_id.0, v.log_end_offset, v.last_fetch_timestamp, v.last_caught_up_timestamp))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(&partition.current_voters), [(1, 10, 77, 77), (2, -1, -1, -1)]);
        assert_eq!(seen(&partition.observers), [(3, 7, 57, 37)]);
    }
}
