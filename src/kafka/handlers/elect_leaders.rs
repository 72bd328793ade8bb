//! ElectLeaders (key 43, KIP-460): preferred leaders get their partitions back. A partition moves when its leader has handed it
//! over, and the answer waits for that.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use crate::base::{NodeId, PartitionId};
use crate::broker::takes_partitions;
use crate::kafka::{Outcome, Reply, Request};
use crate::metadata::{Image, Partition, TargetChange};
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

/// Kinds of elections: of the preferred leader, and of one that may miss records.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// The longest that an answer waits for the moves, whatever the request says.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What becomes of a partition that is named.
type Judgement = Result<(PartitionId, NodeId), Refusal>;
/// Topics with those of their partitions that are told about.
type Judged = Vec<(TopicName, Vec<(i32, Judgement)>)>;

impl Handlers {
    pub(super) async fn elect_leaders(&self, request: Request, body: ElectLeadersRequest) -> Reply {
        let version = request.to.version;
        // Version 0 knows preferred leaders only.
        let kind = if version >= 1 { body.election_type } else { PREFERRED };
        let permit = self.permit(&request.context, Operation::Alter, Resource::CLUSTER).map_err(Refusal::from);
        let image = self.broker.image();
        let permit = match permit.and_then(|permit| check_type(kind).map(|()| permit)) {
            Ok(permit) => permit,
            Err(refusal) => {
                let mut response = ElectLeadersResponse::default();
                let refused = judged(&body, &image, |_, _| Err(refusal.clone()));
                response.replica_election_results = results(refused, &image);
                if version >= 1 {
                    response.error_code = refusal.code();
                }
                self.count(&request, refusal.code());
                return Reply::encode(request.to, &response);
            }
        };
        let mut judged = judged(&body, &image, |topic, index| judge(&image, kind, topic, index));
        let elections =
            judged.iter().flat_map(|(_, partitions)| partitions).filter_map(|(_, result)| result.as_ref().ok());
        let moving: Vec<_> = elections.copied().collect();
        let change = |(partition, to): &(PartitionId, NodeId)| TargetChange {
            partition: *partition,
            target: Some(*to),
            preferred: None,
        };
        let changes: Vec<_> = moving.iter().map(change).collect();
        if let Err(error) = self.broker.set_targets(&permit, &changes).await {
            let refusal = Refusal::from(error);
            let elected = judged.iter_mut().flat_map(|(_, partitions)| partitions).filter(|(_, result)| result.is_ok());
            elected.for_each(|(_, result)| *result = Err(refusal.clone()));
        }
        let patience = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0)).min(PATIENCE_MAX);
        let broker = self.broker.clone();
        Reply::later(async move {
            broker.wait_for_leaders(&moving, patience).await;
            let mut response = ElectLeadersResponse::default();
            response.replica_election_results = results(judged, &broker.image());
            Outcome::encode(request.to, &response)
        })
    }
}

fn check_type(kind: i8) -> Result<(), Refusal> {
    match kind {
        PREFERRED | UNCLEAN => Ok(()),
        other => Err(Refusal::invalid(format!("Unknown election type {other}"))),
    }
}

/// Every partition as it is named. Where all are meant only those are told about that have not the leader they should have.
fn judged(body: &ElectLeadersRequest, image: &Image, judge: impl Fn(&str, i32) -> Judgement) -> Judged {
    let Some(named) = &body.topic_partitions else {
        let topics = image.names.iter().filter_map(|(name, id)| Some((name, image.topics.get(id)?)));
        return topics
            .map(|(name, topic)| {
                let each = (0..).take(topic.partitions.len()).map(|index| (index, judge(name, index)));
                let unneeded = |result: &Judgement| {
                    result.as_ref().is_err_and(|refusal| refusal.error == ResponseError::ElectionNotNeeded)
                };
                (TopicName(text(&**name)), each.filter(|(_, result)| !unneeded(result)).collect())
            })
            .collect();
    };
    let each = |asked: &kafka_protocol::messages::elect_leaders_request::TopicPartitions| {
        let partitions = asked.partitions.iter().map(|index| (*index, judge(&asked.topic, *index)));
        (asked.topic.clone(), partitions.collect())
    };
    named.iter().map(each).collect()
}

/// The answer, once those that move have had their time.
fn results(judged: Judged, image: &Image) -> Vec<ReplicaElectionResult> {
    let result = |(index, result): (i32, Judgement)| {
        let refusal = result.and_then(|(id, to)| arrived(image, id, to)).err();
        PartitionResult::default()
            .with_partition_id(index)
            .with_error_code(refusal.as_ref().map_or(0, Refusal::code))
            .with_error_message(refusal.and_then(|refusal| refusal.text()))
    };
    let topic = |(topic, partitions): (TopicName, Vec<_>)| {
        let partitions = partitions.into_iter().map(result).collect();
        ReplicaElectionResult::default().with_topic(topic).with_partition_result(partitions)
    };
    judged.into_iter().map(topic).collect()
}

fn arrived(image: &Image, id: PartitionId, to: NodeId) -> Result<(), Refusal> {
    match image.partition(id) {
        Some(partition) if partition.leader == to => Ok(()),
        Some(_) => Err(Refusal::new(ResponseError::RequestTimedOut, "The partition is still being handed over.")),
        None => Err(ResponseError::UnknownTopicOrPartition.into()),
    }
}

/// Who is to lead the partition.
fn judge(image: &Image, kind: i8, topic: &str, index: i32) -> Judgement {
    let unknown = |message| Refusal::new(ResponseError::UnknownTopicOrPartition, message);
    let found = image.topic(topic).ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
    let id = PartitionId { topic: found.id, index };
    let partition = image.partition(id).ok_or_else(|| unknown(format!("No such partition as {topic}-{index}")))?;
    let led = image.brokers.get(&partition.leader).is_some_and(|broker| !broker.fenced);
    let not_needed =
        || Refusal::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition.");
    match kind {
        UNCLEAN if led => Err(not_needed()),
        // Whoever has the records follows by itself; there is nobody else to be elected.
        UNCLEAN => Err(ResponseError::EligibleLeadersNotAvailable.into()),
        _ => preferred(image, partition, led).ok_or_else(not_needed)?.map(|to| (id, to)),
    }
}

/// The preferred leader of a partition, if another leads it.
fn preferred(image: &Image, partition: &Partition, led: bool) -> Option<Result<NodeId, Refusal>> {
    let to = partition.preferred;
    if led && to == partition.leader {
        return None;
    }
    // A leader that is fenced hands nothing over: its partitions are assigned when its ledgers have an end.
    let available = led && takes_partitions(image, to);
    Some(if available { Ok(to) } else { Err(ResponseError::PreferredLeaderNotAvailable.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
    use std::sync::Arc;

    fn asked(topic: &str, partitions: &[i32]) -> TopicPartitions {
        TopicPartitions::default().with_topic(TopicName(text(topic))).with_partitions(partitions.to_vec())
    }

    fn answers(image: &Image, kind: i8, topics: Option<Vec<TopicPartitions>>) -> Vec<(String, Vec<(i32, i16)>)> {
        let body = ElectLeadersRequest::default().with_topic_partitions(topics);
        let judged = judged(&body, image, |topic, index| judge(image, kind, topic, index));
        let codes = |r: &ReplicaElectionResult| {
            r.partition_result.iter().map(|p| (p.partition_id, p.error_code)).collect::<Vec<_>>()
        };
        results(judged, image).iter().map(|r| (r.topic.to_string(), codes(r))).collect()
    }

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn no_partition_of_one_broker_needs_an_election() {
        let image = one_topic("t", 2);
        for kind in [PREFERRED, UNCLEAN] {
            let named = answers(&image, kind, Some(vec![asked("t", &[0, 1, 9, 0]), asked("missing", &[0])]));
            let expected =
                [("t".to_owned(), vec![(0, 84), (1, 84), (9, 3), (0, 84)]), ("missing".to_owned(), vec![(0, 3)])];
            assert_eq!(named, expected);
            assert_eq!(answers(&image, kind, None), [("t".to_owned(), vec![])]);
            assert!(answers(&image, kind, Some(vec![])).is_empty());
        }
        assert_eq!([0, 1, 2, -1].map(|kind| check_type(kind).is_ok()), [true, true, false, false]);
    }

    #[test]
    fn a_partition_goes_to_its_preferred_leader_if_that_can_take_it() {
        let mut image = three_brokers(&[3]);
        image.nodes.get_mut(&NodeId(1)).unwrap().draining = true;
        let topic = add_topic(&mut image, "t", 3, &[1, 2, 3, 1]);
        let prefers = |leader: i32, preferred: i32| {
            let mut partition = Partition::new(NodeId(leader));
            partition.preferred = NodeId(preferred);
            Arc::new(partition)
        };
        let partitions = [(1, 2), (1, 3), (2, 1), (2, 2), (3, 3), (3, 2)];
        let topics = Arc::make_mut(&mut image.topics);
        Arc::make_mut(topics.get_mut(&topic.id).unwrap()).partitions =
            partitions.map(|(leader, preferred)| prefers(leader, preferred)).to_vec();
        let judged = |kind| {
            (0..6).map(|i| judge(&image, kind, "t", i).map(|(_, to)| to.0).map_err(|r| r.code())).collect::<Vec<_>>()
        };
        assert_eq!(judged(PREFERRED), [Ok(2), Err(80), Err(80), Err(84), Err(80), Err(80)]);
        assert_eq!(judged(UNCLEAN), [Err(84), Err(84), Err(84), Err(84), Err(83), Err(83)]);
        // Nothing has moved yet: the one that is to is said to be late.
        let all = answers(&image, PREFERRED, None);
        assert_eq!(all, [("t".to_owned(), vec![(0, 7), (1, 80), (2, 80), (4, 80), (5, 80)])]);
        let id = PartitionId { topic: topic.id, index: 3 };
        assert_eq!(arrived(&image, id, NodeId(2)), Ok(()));
        assert!(arrived(&image, PartitionId { index: 9, ..id }, NodeId(2)).is_err());
    }
}
