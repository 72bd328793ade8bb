//! DescribeQuorum (key 55, KIP-595): the metadata quorum, under the name of Kafka's metadata topic.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::base::NodeId;
use crate::kafka::{Reply, Request};
use crate::metadata::Image;
use crate::quorum::QuorumStatus;
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

const TOPIC: &str = "__cluster_metadata";
const PARTITION: i32 = 0;
/// Version from which the addresses of the voters are given (KIP-853).
const NODES_SINCE: i16 = 2;

impl Handlers {
    pub(super) fn describe_quorum(&self, request: Request, body: DescribeQuorumRequest) -> Reply {
        let mut response = DescribeQuorumResponse::default();
        if let Err(denied) = self.permit(&request.context, Operation::Describe, Resource::CLUSTER) {
            let refusal = Refusal::from(denied);
            self.count(&request, refusal.code());
            (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            return Reply::encode(request.to, &response);
        }
        let status = self.broker.quorum_status();
        let fault = if !is_metadata(&body.topics) {
            Some(ResponseError::UnknownTopicOrPartition)
        } else if status.leader != Some(self.broker.node) {
            Some(ResponseError::NotLeaderOrFollower)
        } else {
            None
        };
        response.topics = match fault {
            Some(error) => {
                self.count(&request, error.code());
                refused(&body.topics, error)
            }
            None => {
                let image = self.broker.image();
                if request.to.version >= NODES_SINCE {
                    response.nodes = nodes(&status, &image);
                }
                let now_ms = self.broker.clock().wall_ms();
                let partition = described(&status, &image, self.broker.node, now_ms);
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

fn described(status: &QuorumStatus, image: &Image, node: NodeId, now_ms: i64) -> PartitionData {
    let voters = status.voters.iter().map(|voter| {
        let storage = image.brokers.get(voter).map(|broker| broker.incarnation.0).unwrap_or_default();
        let replica = ReplicaState::default()
            .with_replica_id(voter.0.into())
            .with_replica_directory_id(uuid::Uuid::from_bytes(storage));
        if *voter != node {
            return replica.with_log_end_offset(-1);
        }
        // The leader has always just heard of itself.
        replica
            .with_log_end_offset(offset(status.last_index.map_or(0, |last| last.saturating_add(1))))
            .with_last_fetch_timestamp(now_ms)
            .with_last_caught_up_timestamp(now_ms)
    });
    PartitionData::default()
        .with_partition_index(PARTITION)
        .with_leader_id(node.0.into())
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(offset(status.committed))
        .with_current_voters(voters.collect())
}

fn offset(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn nodes(status: &QuorumStatus, image: &Image) -> Vec<Node> {
    let voters = status.voters.iter().map(|voter| {
        let endpoints = image.brokers.get(voter).map(|broker| &*broker.endpoints).unwrap_or_default();
        let listeners = endpoints.iter().map(|endpoint| {
            Listener::default()
                .with_name(text(&*endpoint.listener))
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
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::describe_quorum_request::PartitionData as AskedPartition;

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

    #[test]
    fn offsets_are_those_after_the_last_entry() {
        let status = QuorumStatus {
            leader: Some(NodeId(1)),
            term: 3,
            last_index: Some(9),
            committed: 10,
            applied: Some(9),
            voters: vec![NodeId(1), NodeId(2)],
        };
        let partition = described(&status, &Image::default(), NodeId(1), 77);
        assert_eq!((partition.leader_epoch, partition.high_watermark), (3, 10));
        let ends: Vec<_> =
            partition.current_voters.iter().map(|v| (v.replica_id.0, v.log_end_offset, v.last_fetch_timestamp)).collect();
        assert_eq!(ends, [(1, 10, 77), (2, -1, -1)]);
    }
}
