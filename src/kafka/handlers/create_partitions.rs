//! CreatePartitions (key 37): more partitions for topics that exist.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};

use crate::base::NodeId;
use crate::base::limits::TOPIC_PARTITIONS_MAX;
use crate::broker::{CoordinatorKind, spread_leaders};
use crate::kafka::{Reply, Request};
use crate::metadata::{Image, Topic};
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::{Refusal, outcome};
use super::create_topics::{check_replicas, check_replication, first_active};

/// Since this version a request over its quota is refused (KIP-599).
const STRICT_QUOTA_SINCE: i16 = 3;

impl Handlers {
    pub(super) async fn create_partitions(&self, request: Request, body: CreatePartitionsRequest) -> Reply {
        let mut response = CreatePartitionsResponse::default();
        let mut times: HashMap<TopicName, usize> = HashMap::new();
        for topic in &body.topics {
            *times.entry(topic.name.clone()).or_default() += 1;
        }
        for asked in body.topics {
            let result = match times.remove(&asked.name) {
                // The first of the duplicates was answered for all.
                None => continue,
                Some(1) => self.grow_one(&request, &asked, body.validate_only).await,
                Some(_) => Err(Refusal::invalid("Duplicate topic name.")),
            };
            let (code, message) = outcome(&result);
            self.count(&request, code);
            response.results.push(
                CreatePartitionsTopicResult::default()
                    .with_name(asked.name)
                    .with_error_code(code)
                    .with_error_message(message),
            );
        }
        Reply::encode(request.to, &response)
    }

    async fn grow_one(
        &self,
        request: &Request,
        asked: &CreatePartitionsTopic,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let permit = self.permit(&request.context, Operation::Alter, Resource::topic(&asked.name))?;
        let topic = self.broker.topic(&asked.name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if CoordinatorKind::of_topic(&asked.name).is_some() {
            // A key's partition follows from their number: with another one nobody would find its state again.
            let message =
                format!("The partitions of {} stay as they are: groups and transactions would be lost.", *asked.name);
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        }
        let leaders = check(asked, &topic, &self.broker.image())?;
        Self::charge(request, leaders.len(), STRICT_QUOTA_SINCE)?;
        if !validate_only {
            self.broker.create_partitions(&permit, topic.id, topic.partitions.len(), leaders).await?;
        }
        Ok(())
    }
}

/// The leaders of the partitions that the topic is to have besides its own.
fn check(asked: &CreatePartitionsTopic, topic: &Topic, image: &Image) -> Result<Vec<NodeId>, Refusal> {
    let (name, count, present) = (&asked.name.0, asked.count, topic.partitions.len());
    let invalid = |message: String| Refusal::new(ResponseError::InvalidPartitions, message);
    let total = usize::try_from(count).unwrap_or(0);
    if total == present {
        return Err(invalid(format!("Topic already has {present} partition(s).")));
    }
    if total < present {
        return Err(invalid(format!(
            "The topic {name} currently has {present} partition(s); {count} would not be an increase."
        )));
    }
    if total > TOPIC_PARTITIONS_MAX {
        let message = format!("A topic has at most {TOPIC_PARTITIONS_MAX} partitions.");
        return Err(Refusal::new(ResponseError::PolicyViolation, message));
    }
    let added = total - present;
    let Some(assignments) = &asked.assignments else {
        check_replication(topic.replication_factor, image)?;
        return Ok(spread_leaders(image, Some(topic), added));
    };
    if assignments.len() != added {
        return Err(Refusal::new(
            ResponseError::InvalidReplicaAssignment,
            format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            ),
        ));
    }
    let replicas = usize::try_from(topic.replication_factor).ok();
    let mut leaders = Vec::with_capacity(added);
    for (index, assignment) in (present..).zip(assignments) {
        check_replicas(&assignment.broker_ids, image, replicas)?;
        leaders.push(first_active(&assignment.broker_ids, image, i32::try_from(index).unwrap_or(i32::MAX))?);
    }
    Ok(leaders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

    #[test]
    fn partitions_only_become_more() {
        let one: &[i32] = &[1];
        for (count, assignments, expected) in [
            (3, None, Ok(1)),
            (2, None, Err(37)),
            (1, None, Err(37)),
            (0, None, Err(37)),
            (-1, None, Err(37)),
            (i32::MAX, None, Err(44)),
            (4, Some(vec![one, one]), Ok(2)),
            (4, Some(vec![one]), Err(39)),
            (3, Some(vec![]), Err(39)),
            (3, Some(vec![&[9][..]]), Err(39)),
            (3, Some(vec![&[][..]]), Err(39)),
            (3, Some(vec![&[1, 1][..]]), Err(39)),
        ] {
            let given = assignments.clone().map(|of: Vec<&[i32]>| {
                of.into_iter()
                    .map(|brokers| {
                        let brokers = brokers.iter().map(|b| BrokerId(*b)).collect();
                        CreatePartitionsAssignment::default().with_broker_ids(brokers)
                    })
                    .collect()
            });
            let asked = CreatePartitionsTopic::default().with_count(count).with_assignments(given);
            let image = one_topic("t", 2);
            let result = check(&asked, image.topic("t").unwrap(), &image);
            let result = result.map(|leaders| leaders.len()).map_err(|refusal| refusal.code());
            assert_eq!(result, expected, "{count} {assignments:?}");
        }
    }
    #[test]
    fn new_partitions_are_led_where_the_topic_has_fewest_or_where_they_are_assigned() {
        let mut image = three_brokers(&[]);
        let topic = add_topic(&mut image, "t", 2, &[1, 2]);
        let leaders = |count, assignments: Option<&[&[i32]]>| {
            let given = assignments.map(|of| {
                let brokers = of.iter().map(|brokers| brokers.iter().map(|id| BrokerId(*id)).collect());
                brokers.map(|brokers| CreatePartitionsAssignment::default().with_broker_ids(brokers)).collect()
            });
            let asked = CreatePartitionsTopic::default().with_count(count).with_assignments(given);
            let leaders = check(&asked, &topic, &image).map_err(|refusal| refusal.code());
            leaders.map(|leaders| leaders.iter().map(|node| node.0).collect::<Vec<_>>())
        };
        assert_eq!(leaders(4, None), Ok(vec![3, 1]));
        assert_eq!(leaders(4, Some(&[&[2, 3], &[3, 1]])), Ok(vec![2, 3]));
        assert_eq!(leaders(3, Some(&[&[2]])), Err(39), "as many replicas as the others have");
    }
}
