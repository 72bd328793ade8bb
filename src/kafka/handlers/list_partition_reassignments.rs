//! ListPartitionReassignments (key 46, KIP-455): the partitions that are to get another leader, whoever wishes it.

use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName};

use crate::kafka::{Reply, Request};
use crate::metadata::Topic;
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::picture::{Picture, ids};
use super::{Handlers, text};

impl Handlers {
    pub(super) async fn list_partition_reassignments(
        &self,
        request: Request,
        body: ListPartitionReassignmentsRequest,
    ) -> Reply {
        let mut response = ListPartitionReassignmentsResponse::default().with_error_message(None);
        match self.permit(&request.context, Operation::Describe, Resource::CLUSTER) {
            Err(denied) => {
                let refusal = Refusal::from(denied);
                self.count(&request, refusal.code());
                (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            }
            Ok(_permit) => {
                let image = self.broker.image();
                response.topics = ongoing(&self.picture(&image, &request.context), body.topics.as_deref());
            }
        }
        Reply::encode(request.to, &response)
    }
}

/// The moves under way of the partitions that are asked for; of all, where none are named.
fn ongoing(picture: &Picture<'_>, asked: Option<&[ListPartitionReassignmentsTopics]>) -> Vec<OngoingTopicReassignment> {
    let image = picture.image();
    let of = |topic: &Topic, partitions: Vec<OngoingPartitionReassignment>| {
        let name = TopicName(text(&*topic.name));
        (!partitions.is_empty())
            .then(|| OngoingTopicReassignment::default().with_name(name).with_partitions(partitions))
    };
    match asked {
        None => {
            let topics = image.names.values().filter_map(|id| image.topics.get(id));
            let all =
                |topic: &Topic| (0..).take(topic.partitions.len()).filter_map(|i| moving(picture, topic, i)).collect();
            topics.filter_map(|topic| of(topic, all(topic))).collect()
        }
        Some(asked) => {
            let known = asked.iter().filter_map(|asked| Some((image.topic(&asked.name)?, &asked.partition_indexes)));
            known
                .filter_map(|(topic, indexes)| {
                    of(topic, indexes.iter().filter_map(|index| moving(picture, topic, *index)).collect())
                })
                .collect()
        }
    }
}

fn moving(picture: &Picture<'_>, topic: &Topic, index: i32) -> Option<OngoingPartitionReassignment> {
    let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
    let target = partition.target?;
    let mut replicas = picture.partition(topic, partition).replicas;
    let adding = if replicas.contains(&target) { Vec::new() } else { vec![target] };
    replicas.extend(&adding);
    Some(
        OngoingPartitionReassignment::default()
            .with_partition_index(index)
            .with_replicas(ids(&replicas))
            .with_adding_replicas(ids(&adding)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeId;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};
    use crate::metadata::Partition;
    use std::sync::Arc;

    #[test]
    fn only_partitions_with_a_target_are_listed() {
        let mut image = three_brokers(&[]);
        let topic = add_topic(&mut image, "t", 2, &[1, 1, 1]);
        add_topic(&mut image, "still", 1, &[2]);
        let to = |target: i32| {
            let mut moving = Partition::new(NodeId(1));
            moving.target = Some(NodeId(target));
            Arc::new(moving)
        };
        let topics = Arc::make_mut(&mut image.topics);
        let partitions = vec![to(2), topic.partitions[1].clone(), to(3)];
        Arc::make_mut(topics.get_mut(&topic.id).unwrap()).partitions = partitions;
        let picture = Picture::new(&image, "clients");
        let listed = |asked: Option<&[(&str, &[i32])]>| {
            let asked = asked.map(|of| {
                let named = |(name, indexes): &(&str, &[i32])| {
                    let topic = ListPartitionReassignmentsTopics::default().with_name(TopicName(text(*name)));
                    topic.with_partition_indexes(indexes.to_vec())
                };
                of.iter().map(named).collect::<Vec<_>>()
            });
            let topics = ongoing(&picture, asked.as_deref());
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            let numbers = |of: &[kafka_protocol::messages::BrokerId]| of.iter().map(|id| id.0).collect::<Vec<_>>();
            partitions
                .map(|p| {
                    (p.partition_index, numbers(&p.replicas), numbers(&p.adding_replicas), p.removing_replicas.len())
                })
                .collect::<Vec<_>>()
        };
        let first = (0, vec![1, 2], vec![], 0);
        let third = (2, vec![1, 2, 3], vec![3], 0);
        assert_eq!(listed(None), [first, third.clone()]);
        assert_eq!(listed(Some(&[("t", &[2, 1, 9, -1]), ("missing", &[0])])), [third]);
        assert!(listed(Some(&[("still", &[0])])).is_empty());
    }
}
