//! AlterPartitionReassignments (key 45, KIP-455): with one node a partition can only be where it is, so every
//! reassignment that is possible is done already.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use crate::base::NodeId;
use crate::kafka::{Reply, Request};
use crate::metadata::Image;
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
        if request.to.version >= 1 {
            response.allow_replication_factor_change = body.allow_replication_factor_change;
        }
        if let Err(denied) = self.permit(&request.context, Operation::Alter, Resource::CLUSTER) {
            let refusal = Refusal::from(denied);
            self.count(&request, refusal.code());
            (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            return Reply::encode(request.to, &response);
        }
        let image = self.broker.image();
        for topic in body.topics {
            let mut answered = ReassignableTopicResponse::default();
            for asked in &topic.partitions {
                let (code, message) = outcome(&judge(&image, self.broker.node, &topic.name, asked));
                self.count(&request, code);
                answered.partitions.push(
                    ReassignablePartitionResponse::default()
                        .with_partition_index(asked.partition_index)
                        .with_error_code(code)
                        .with_error_message(message),
                );
            }
            response.responses.push(answered.with_name(topic.name));
        }
        Reply::encode(request.to, &response)
    }
}

fn judge(image: &Image, node: NodeId, topic: &str, asked: &ReassignablePartition) -> Result<(), Refusal> {
    let unknown = |message| Refusal::new(ResponseError::UnknownTopicOrPartition, message);
    let index = asked.partition_index;
    let found = image.topic(topic).ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
    if usize::try_from(index).ok().is_none_or(|index| index >= found.partitions.len()) {
        return Err(unknown(format!("Unable to find partition {topic}:{index}.")));
    }
    match &asked.replicas {
        // Takes a reassignment back; there is none.
        None => Err(ResponseError::NoReassignmentInProgress.into()),
        Some(replicas) => check_replicas(replicas, node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use kafka_protocol::messages::BrokerId;

    /// As a real Kafka 4.3.1 with one broker answered.
    #[test]
    fn a_partition_can_only_be_where_it_is() {
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
            let code = judge(&image, NodeId(1), topic, &asked).map_or_else(|refusal| refusal.code(), |()| 0);
            assert_eq!(code, expected, "{topic} {asked:?}");
        }
    }
}
