//! ElectLeaders (key 43, KIP-460): with one node every partition has the leader that it should have.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use crate::kafka::{Reply, Request};
use crate::metadata::Image;
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

/// Kinds of elections: of the preferred leader, and of one that may miss records.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

impl Handlers {
    pub(super) async fn elect_leaders(&self, request: Request, body: ElectLeadersRequest) -> Reply {
        let mut response = ElectLeadersResponse::default();
        let refused = match self.permit(&request.context, Operation::Alter, Resource::CLUSTER) {
            Err(denied) => Some(Refusal::from(denied)),
            // Version 0 knows preferred leaders only.
            Ok(_) if request.to.version >= 1 => check_type(body.election_type).err(),
            Ok(_) => None,
        };
        let image = self.broker.image();
        match refused {
            Some(refusal) => {
                response.replica_election_results = results(&body, &image, |_, _| refusal.clone());
                if request.to.version >= 1 {
                    response.error_code = refusal.code();
                }
                self.count(&request, refusal.code());
            }
            None => {
                response.replica_election_results = results(&body, &image, |topic, index| judge(&image, topic, index))
            }
        }
        Reply::encode(request.to, &response)
    }
}

fn check_type(kind: i8) -> Result<(), Refusal> {
    match kind {
        PREFERRED | UNCLEAN => Ok(()),
        other => Err(Refusal::invalid(format!("Unknown election type {other}"))),
    }
}

/// Every partition as it is named. Where all are meant only elections would be told, and there is none: each topic
/// has an empty list.
fn results(
    body: &ElectLeadersRequest,
    image: &Image,
    judge: impl Fn(&str, i32) -> Refusal,
) -> Vec<ReplicaElectionResult> {
    let Some(named) = &body.topic_partitions else {
        let topics = image.names.keys().map(|name| TopicName(text(&**name)));
        return topics.map(|topic| ReplicaElectionResult::default().with_topic(topic)).collect();
    };
    named
        .iter()
        .map(|asked| {
            let partitions = asked.partitions.iter().map(|index| {
                let refusal = judge(&asked.topic, *index);
                PartitionResult::default()
                    .with_partition_id(*index)
                    .with_error_code(refusal.code())
                    .with_error_message(refusal.text())
            });
            ReplicaElectionResult::default().with_topic(asked.topic.clone()).with_partition_result(partitions.collect())
        })
        .collect()
}

fn judge(image: &Image, topic: &str, index: i32) -> Refusal {
    let unknown = |message| Refusal::new(ResponseError::UnknownTopicOrPartition, message);
    let Some(found) = image.topic(topic) else { return unknown(format!("No such topic as {topic}")) };
    match usize::try_from(index).ok().and_then(|index| found.partitions.get(index)) {
        None => unknown(format!("No such partition as {topic}-{index}")),
        Some(_) => Refusal::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    fn asked(topic: &str, partitions: &[i32]) -> TopicPartitions {
        TopicPartitions::default().with_topic(TopicName(text(topic))).with_partitions(partitions.to_vec())
    }

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn no_partition_needs_an_election() {
        let image = one_topic("t", 2);
        let of = |topics: Option<Vec<TopicPartitions>>| {
            let body = ElectLeadersRequest::default().with_topic_partitions(topics);
            let results = results(&body, &image, |topic, index| judge(&image, topic, index));
            results
                .into_iter()
                .map(|r| (r.topic.to_string(), r.partition_result.iter().map(|p| p.error_code).collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        };
        let named = of(Some(vec![asked("t", &[0, 1, 9, 0]), asked("missing", &[0])]));
        assert_eq!(named, [("t".to_owned(), vec![84, 84, 3, 84]), ("missing".to_owned(), vec![3])]);
        assert_eq!(of(None), [("t".to_owned(), vec![])]);
        assert_eq!(of(Some(vec![])), []);
        assert_eq!([0, 1, 2, -1].map(|kind| check_type(kind).is_ok()), [true, true, false, false]);
    }
}
