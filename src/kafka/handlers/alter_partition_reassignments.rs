//! AlterPartitionReassignments (key 45, KIP-455): the first of the listed brokers is to lead a partition. The others are
//! checked and not kept, since a partition is held by whoever holds the ledger of its leader.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use crate::base::{NodeId, PartitionId};
use crate::broker::takes_partitions;
use crate::kafka::{Reply, Request};
use crate::metadata::{Image, TargetChange};
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::{Refusal, outcome};
use super::create_topics::check_replicas;

impl Handlers {
    pub(super) async fn alter_partition_reassignments(
        &self,
        request: Request,
        body: AlterPartitionReassignmentsRequest,
    ) -> Reply {
        let mut response = AlterPartitionReassignmentsResponse::default().with_error_message(None);
        let other_number = request.to.version < 1 || body.allow_replication_factor_change;
        if request.to.version >= 1 {
            response.allow_replication_factor_change = body.allow_replication_factor_change;
        }
        let permit = match self.permit(&request.context, Operation::Alter, Resource::CLUSTER) {
            Ok(permit) => permit,
            Err(denied) => {
                let refusal = Refusal::from(denied);
                self.count(&request, refusal.code());
                (response.error_code, response.error_message) = (refusal.code(), refusal.text());
                return Reply::encode(request.to, &response);
            }
        };
        let image = self.broker.image();
        let mut changes = Vec::new();
        let judged: Vec<(_, Vec<_>)> = body
            .topics
            .into_iter()
            .map(|topic| {
                let judge = |asked: &ReassignablePartition| {
                    let result = judge(&image, &topic.name, asked, other_number);
                    (asked.partition_index, result.map(|change| changes.push(change)))
                };
                let results = topic.partitions.iter().map(judge).collect();
                (topic.name, results)
            })
            .collect();
        let changed = self.broker.set_targets(&permit, &changes).await.map_err(Refusal::from);
        for (topic, results) in judged {
            let mut answered = ReassignableTopicResponse::default().with_name(topic);
            for (index, result) in results {
                let (code, message) = outcome(&result.and_then(|()| changed.clone()));
                self.count(&request, code);
                answered.partitions.push(
                    ReassignablePartitionResponse::default()
                        .with_partition_index(index)
                        .with_error_code(code)
                        .with_error_message(message),
                );
            }
            response.responses.push(answered);
        }
        Reply::encode(request.to, &response)
    }
}

/// What is to become of one partition.
fn judge(
    image: &Image,
    topic: &str,
    asked: &ReassignablePartition,
    other_number: bool,
) -> Result<TargetChange, Refusal> {
    let unknown = |message| Refusal::new(ResponseError::UnknownTopicOrPartition, message);
    let index = asked.partition_index;
    let found = image.topic(topic).ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
    let id = PartitionId { topic: found.id, index };
    let partition = image.partition(id).ok_or_else(|| unknown(format!("Unable to find partition {topic}:{index}.")))?;
    let Some(replicas) = &asked.replicas else {
        return match partition.target {
            None => Err(ResponseError::NoReassignmentInProgress.into()),
            // It stays where it is, and that is where it belongs again.
            Some(_) => Ok(TargetChange { partition: id, target: None, preferred: Some(partition.leader) }),
        };
    };
    check_replicas(replicas, image, None)?;
    let factor = usize::try_from(found.replication_factor).unwrap_or(0);
    if !other_number && factor != replicas.len() {
        let message = format!("The replication factor is changed from {factor} to {}", replicas.len());
        return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
    }
    let first = replicas.first().map_or(partition.leader, |broker| NodeId(broker.0));
    // Who is away gets the partition when it is back: until then it is preferred, and nothing moves.
    let target = Some(first).filter(|first| takes_partitions(image, *first));
    Ok(TargetChange { partition: id, target, preferred: Some(first) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};
    use crate::metadata::Partition;
    use kafka_protocol::messages::BrokerId;
    use std::sync::Arc;

    /// As a real Kafka 4.3.1 with one broker answered.
    #[test]
    fn with_one_broker_a_partition_can_only_be_where_it_is() {
        let image = one_topic("t", 2);
        for (topic, index, replicas, expected) in [
            ("t", 0, Some(&[1][..]), 0),
            ("t", 1, Some(&[1, 2]), 39),
            ("t", 1, Some(&[2]), 39),
            ("t", 1, Some(&[-1]), 39),
            ("t", 1, Some(&[1, 1]), 39),
            ("t", 1, Some(&[]), 39),
            ("t", 1, None, 85),
            ("t", 2, Some(&[1]), 3),
            ("t", -1, Some(&[1]), 3),
            ("missing", 0, Some(&[1]), 3),
            ("", 0, None, 3),
        ] {
            let replicas = replicas.map(|of: &[i32]| of.iter().map(|id| BrokerId(*id)).collect());
            let asked = ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
            let code = judge(&image, topic, &asked, true).map_or_else(|refusal| refusal.code(), |_| 0);
            assert_eq!(code, expected, "{topic} {asked:?}");
        }
    }
    fn asked(replicas: Option<&[i32]>) -> ReassignablePartition {
        let replicas = replicas.map(|of| of.iter().map(|id| BrokerId(*id)).collect());
        ReassignablePartition::default().with_replicas(replicas)
    }

    #[test]
    fn the_first_listed_broker_is_to_lead_and_who_is_away_is_preferred_only() {
        let mut image = three_brokers(&[3]);
        let topic = add_topic(&mut image, "t", 2, &[1]);
        let judged = |replicas: &[i32], other_number| {
            let change = judge(&image, "t", &asked(Some(replicas)), other_number).map_err(|refusal| refusal.code())?;
            assert_eq!(change.partition, PartitionId { topic: topic.id, index: 0 });
            Ok((change.target.map(|node| node.0), change.preferred.map(|node| node.0)))
        };
        assert_eq!(judged(&[2, 1], false), Ok((Some(2), Some(2))));
        assert_eq!(judged(&[3, 1], false), Ok((None, Some(3))));
        assert_eq!(judged(&[2, 1, 3], true), Ok((Some(2), Some(2))));
        assert_eq!(judged(&[2, 1, 3], false), Err(38));
        assert_eq!(judged(&[2, 4], false), Err(39));
        assert_eq!(judged(&[2, 2], false), Err(39));
    }

    #[test]
    fn a_move_that_is_called_off_leaves_the_partition_to_its_leader() {
        let mut image = three_brokers(&[]);
        let topic = add_topic(&mut image, "t", 3, &[1]);
        assert_eq!(judge(&image, "t", &asked(None), false).unwrap_err().code(), 85);
        let mut moving = Partition::new(NodeId(1));
        (moving.target, moving.preferred) = (Some(NodeId(2)), NodeId(2));
        let topics = Arc::make_mut(&mut image.topics);
        Arc::make_mut(topics.get_mut(&topic.id).unwrap()).partitions = vec![Arc::new(moving)];
        let change = judge(&image, "t", &asked(None), false).unwrap();
        assert_eq!((change.target, change.preferred), (None, Some(NodeId(1))));
    }
}
