//! CreateTopics (key 19): topics by number of partitions or by assignment, each for itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse};

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{NodeId, TopicId};
use crate::broker::settings::{self, ConfigRow};
use crate::broker::{BrokerSettings, NewTopic, spread_leaders, takes_partitions};
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::Image;
use crate::security::{Denied, Operation, Permit, Resource};

use super::administer::{Refusal, check_topic_name};
use super::{Handlers, text};

/// Since this version a request over its quota is refused (KIP-599).
const STRICT_QUOTA_SINCE: i16 = 6;

/// The metadata are no topic here, but tools know Kafka's by this name: no topic may have it.
pub(super) const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Tells a name that differs from an existing one only in `.` and `_`. A name of a topic is looked up often, so the
/// existing names are folded once per request.
struct Collisions {
    folded: HashMap<String, Arc<str>>,
}

impl Collisions {
    fn of(image: &Image) -> Collisions {
        let names = image.names.keys().filter(|name| name.contains(['.', '_']));
        Collisions { folded: names.map(|name| (name.replace('.', "_"), name.clone())).collect() }
    }

    fn check(&self, name: &str) -> Result<(), Refusal> {
        match self.folded.get(&name.replace('.', "_")) {
            Some(existing) if **existing != *name && name.contains(['.', '_']) => Err(Refusal::new(
                ResponseError::InvalidTopicException,
                format!("Topic '{name}' collides with existing topic: {existing}"),
            )),
            _ => Ok(()),
        }
    }
}

/// A topic as it has been or would be made.
struct Made {
    id: TopicId,
    topic: NewTopic,
}

impl Handlers {
    pub(super) async fn create_topics(&self, request: Request, body: CreateTopicsRequest) -> Reply {
        let mut response = CreateTopicsResponse::default();
        let duplicates = duplicates(&body.topics);
        let settings = self.broker.broker_settings();
        let excessive = partitions_in_all(&body.topics, &settings) > COMMAND_PARTITIONS_MAX;
        let collisions = Collisions::of(&self.broker.image());
        let mut told = HashSet::new();
        for asked in &body.topics {
            let name: &str = &asked.name;
            let result = if duplicates.contains(name) {
                if !told.insert(name) {
                    continue;
                }
                Err(Refusal::invalid("Duplicate topic name."))
            } else {
                self.create_one(&request, asked, &settings, excessive, &collisions, body.validate_only).await
            };
            let answer = self.created(&request.context, asked, result);
            self.count(&request, answer.error_code);
            response.topics.push(answer);
        }
        Reply::encode(request.to, &response)
    }

    async fn create_one(
        &self,
        request: &Request,
        asked: &CreatableTopic,
        settings: &BrokerSettings,
        excessive: bool,
        collisions: &Collisions,
        validate_only: bool,
    ) -> Result<Made, Refusal> {
        let name: &str = &asked.name;
        if name == CLUSTER_METADATA_TOPIC {
            return Err(Refusal::invalid(format!("Creation of internal topic {name} is prohibited.")));
        }
        let permit = self.may_create(&request.context, name)?;
        if excessive {
            let message = "Excessively large number of partitions per request.";
            return Err(Refusal::new(ResponseError::PolicyViolation, message));
        }
        check_topic_name(name)?;
        collisions.check(name)?;
        if self.broker.topic(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, message));
        }
        let topic = plan(asked, settings, &self.broker.image())?;
        // As in Kafka a trial is charged, too.
        Self::charge(request, topic.leaders.len(), STRICT_QUOTA_SINCE)?;
        let id = if validate_only {
            // Of a topic that is only tried out the id means nothing; a real broker shows a random one, too.
            let mut id = [0; 16];
            self.broker.entropy().fill(&mut id);
            TopicId(id)
        } else {
            self.broker.create_topic(&permit, topic.clone()).await?
        };
        Ok(Made { id, topic })
    }

    fn may_create(&self, context: &ConnectionContext, name: &str) -> Result<Permit, Denied> {
        self.permit(context, Operation::Create, Resource::CLUSTER)
            .or_else(|_| self.permit(context, Operation::Create, Resource::topic(name)))
    }

    fn created(
        &self,
        context: &ConnectionContext,
        asked: &CreatableTopic,
        result: Result<Made, Refusal>,
    ) -> CreatableTopicResult {
        let answer = CreatableTopicResult::default().with_name(asked.name.clone()).with_error_message(None);
        let Made { id, topic } = match result {
            Ok(made) => made,
            Err(refusal) => {
                return answer.with_error_code(refusal.code()).with_error_message(refusal.text());
            }
        };
        let answer = answer.with_topic_id(uuid::Uuid::from_bytes(id.0));
        if self.permit(context, Operation::DescribeConfigs, Resource::topic(&topic.name)).is_err() {
            return answer.with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code());
        }
        let own = topic.configs.into_iter().collect();
        let rows = self.broker.with_layers(|layers| settings::describe_topic(&own, layers, |_| true));
        answer
            .with_num_partitions(i32::try_from(topic.leaders.len()).unwrap_or(i32::MAX))
            .with_replication_factor(topic.replication_factor)
            .with_configs(Some(rows.into_iter().map(config).collect()))
    }
}

fn config(row: ConfigRow) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(text(row.name))
        .with_value(row.value.map(text))
        .with_read_only(row.read_only)
        .with_config_source(row.source as i8)
        .with_is_sensitive(row.sensitive)
}

fn duplicates(topics: &[CreatableTopic]) -> HashSet<&str> {
    let mut seen = HashSet::new();
    topics.iter().map(|topic| &*topic.name.0).filter(|name| !seen.insert(*name)).collect()
}

/// What one request may make is bounded, however it is spread over topics.
fn partitions_in_all(topics: &[CreatableTopic], settings: &BrokerSettings) -> usize {
    let of_one = |topic: &CreatableTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::try_from(settings.num_partitions).unwrap_or(0),
        given => usize::try_from(given).unwrap_or(0),
    };
    topics.iter().map(of_one).fold(0, usize::saturating_add)
}

/// What is to be made; refuses what cannot be.
fn plan(asked: &CreatableTopic, settings: &BrokerSettings, image: &Image) -> Result<NewTopic, Refusal> {
    let configs = configs(asked)?;
    let (leaders, replication_factor) =
        if asked.assignments.is_empty() { counted(asked, settings, image)? } else { assigned(asked, image)? };
    Ok(NewTopic { name: asked.name.to_string(), leaders, replication_factor, configs: configs.into_iter().collect() })
}

fn counted(asked: &CreatableTopic, settings: &BrokerSettings, image: &Image) -> Result<(Vec<NodeId>, i16), Refusal> {
    let replication_factor = match asked.replication_factor {
        -1 => settings.default_replication_factor,
        given if given > 0 => given,
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
        }
    };
    let partitions = match asked.num_partitions {
        -1 => settings.num_partitions,
        given => given,
    };
    let partitions = usize::try_from(partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
        let message = "Number of partitions was set to an invalid non-positive value.";
        Refusal::new(ResponseError::InvalidPartitions, message)
    })?;
    check_replication(replication_factor, image)?;
    Ok((spread_leaders(image, None, partitions), replication_factor))
}

/// Whether there are brokers for so many replicas. Those that are fenced count, as in Kafka: they may come back.
pub(super) fn check_replication(replication_factor: i16, image: &Image) -> Result<(), Refusal> {
    let brokers = image.brokers.len();
    if usize::try_from(replication_factor).unwrap_or(0) <= brokers {
        return Ok(());
    }
    Err(Refusal::new(
        ResponseError::InvalidReplicationFactor,
        format!(
            "Unable to replicate the partition {replication_factor} time(s): The target replication factor of \
             {replication_factor} cannot be reached because only {brokers} broker(s) are registered or some brokers have \
             all their log directories cordoned."
        ),
    ))
}

/// Leaders and replication factor of a topic that is assigned by hand.
fn assigned(asked: &CreatableTopic, image: &Image) -> Result<(Vec<NodeId>, i16), Refusal> {
    let beside =
        |what| Refusal::invalid(format!("A manual partition assignment was specified, but {what} not set to -1."));
    if asked.replication_factor != -1 {
        return Err(beside("replication factor was"));
    }
    if asked.num_partitions != -1 {
        return Err(beside("numPartitions was"));
    }
    check_assignments(&asked.assignments, image)
}

fn check_assignments(assignments: &[CreatableReplicaAssignment], image: &Image) -> Result<(Vec<NodeId>, i16), Refusal> {
    let (mut leaders, mut replicas) = (BTreeMap::new(), None);
    for assignment in assignments {
        let index = assignment.partition_index;
        if leaders.contains_key(&index) {
            let message = format!("Found multiple manual partition assignments for partition {index}");
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
        check_replicas(&assignment.broker_ids, image, replicas)?;
        replicas = Some(assignment.broker_ids.len());
        leaders.insert(index, first_active(&assignment.broker_ids, image, index)?);
    }
    if !leaders.keys().copied().eq((0..).take(leaders.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    // They are different brokers of the cluster, so their number is small.
    let replication_factor = i16::try_from(replicas.unwrap_or(1)).unwrap_or(i16::MAX);
    Ok((leaders.into_values().collect(), replication_factor))
}

/// Whether a partition may be placed on these brokers: registered ones, each once, and as many as others have.
pub(super) fn check_replicas(brokers: &[BrokerId], image: &Image, expected: Option<usize>) -> Result<(), Refusal> {
    let invalid = |fault: String| {
        let message = format!("The manual partition assignment includes{fault}");
        Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message))
    };
    if brokers.is_empty() {
        return invalid(" an empty replica list.".to_owned());
    }
    let mut sorted: Vec<i32> = brokers.iter().map(|broker| broker.0).collect();
    sorted.sort_unstable();
    let mut previous = None;
    for broker in &sorted {
        if !image.brokers.contains_key(&NodeId(*broker)) {
            return invalid(format!(" broker {broker}, but no such broker is registered."));
        }
        if previous.replace(broker) == Some(broker) {
            return invalid(format!(" the broker {broker} more than once."));
        }
    }
    match expected.filter(|expected| *expected != sorted.len()) {
        Some(expected) => invalid(format!(
            " a partition with {} replica(s), but this is not consistent with previous partitions, which have \
             {expected} replica(s).",
            sorted.len()
        )),
        None => Ok(()),
    }
}

/// The broker that leads a partition which is assigned to these: the first that can.
pub(super) fn first_active(brokers: &[BrokerId], image: &Image, index: i32) -> Result<NodeId, Refusal> {
    let active = brokers.iter().map(|broker| NodeId(broker.0)).find(|node| takes_partitions(image, *node));
    active.ok_or_else(|| {
        let message = format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled \
             shutdown."
        );
        Refusal::new(ResponseError::InvalidReplicaAssignment, message)
    })
}

/// The settings of a new topic. One that is given twice counts as it is given last, as in Kafka.
fn configs(asked: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let nulls: Vec<&str> = asked.configs.iter().filter(|c| c.value.is_none()).map(|c| &*c.name).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(Refusal::new(ResponseError::InvalidConfig, message));
    }
    let given = asked.configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    let own = given.collect();
    settings::validate_topic_set(&own).map_err(|e| Refusal::new(ResponseError::InvalidConfig, e.to_string()))?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::settings::Layers;
    use crate::kafka::handlers::administer::one_topic;
    use crate::kafka::handlers::picture_tests::three_brokers;
    use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;

    fn settings() -> BrokerSettings {
        let none = BTreeMap::new();
        BrokerSettings::resolve(Layers { broker: &none, cluster: &none, fixed: &none })
    }

    /// A cluster of one broker.
    fn alone() -> Image {
        one_topic("other", 1)
    }

    fn topic(partitions: i32, replication_factor: i16) -> CreatableTopic {
        let name = kafka_protocol::messages::TopicName(text("t"));
        CreatableTopic::default()
            .with_name(name)
            .with_num_partitions(partitions)
            .with_replication_factor(replication_factor)
    }

    fn assignments(of: &[(i32, &[i32])]) -> Vec<CreatableReplicaAssignment> {
        of.iter()
            .map(|(index, brokers)| {
                CreatableReplicaAssignment::default()
                    .with_partition_index(*index)
                    .with_broker_ids(brokers.iter().map(|b| BrokerId(*b)).collect())
            })
            .collect()
    }

    fn code(result: Result<NewTopic, Refusal>) -> i16 {
        result.map_or_else(|refusal| refusal.code(), |_| 0)
    }

    /// As a real Kafka 4.3.1 with one broker answered.
    #[test]
    fn numbers_are_refused_as_kafka_refuses_them() {
        for (partitions, replication_factor, expected) in [
            (2, 1, 0),
            (-1, -1, 0),
            (0, 1, 37),
            (-2, 1, 37),
            (1, 0, 38),
            (1, -2, 38),
            (1, 3, 38),
            (0, 0, 38),
            (0, 3, 37),
        ] {
            let result = plan(&topic(partitions, replication_factor), &settings(), &alone());
            assert_eq!(code(result), expected, "{partitions} {replication_factor}");
        }
        assert_eq!(plan(&topic(-1, -1), &settings(), &alone()).unwrap().leaders, [NodeId(1)]);
    }

    #[test]
    fn an_assignment_names_this_node_for_every_partition_from_0_on() {
        let one: &[i32] = &[1];
        for (given, expected) in [
            (vec![(0, one), (1, one)], 0),
            (vec![(1, one), (0, one)], 0),
            (vec![(0, one), (0, one)], 39),
            (vec![(1, one)], 39),
            (vec![(-1, one), (0, one)], 39),
            (vec![(i32::MAX, one)], 39),
            (vec![(0, &[99])], 39),
            (vec![(0, &[])], 39),
            (vec![(0, &[1, 1])], 39),
            (vec![(0, &[1, 99])], 39),
        ] {
            let asked = topic(-1, -1).with_assignments(assignments(&given));
            assert_eq!(code(plan(&asked, &settings(), &alone())), expected, "{given:?}");
        }
        for (partitions, replication_factor) in [(1, -1), (-1, 1), (1, 1)] {
            let asked = topic(partitions, replication_factor).with_assignments(assignments(&[(0, one)]));
            assert_eq!(code(plan(&asked, &settings(), &alone())), 42);
        }
    }

    /// The numbers are those of the real Kafka's code.
    #[test]
    fn a_cluster_of_three_takes_three_replicas_and_spreads_the_leaders() {
        let image = three_brokers(&[]);
        let made = plan(&topic(4, 3), &settings(), &image).unwrap();
        assert_eq!((made.leaders.map_ids(), made.replication_factor), (vec![1, 2, 3, 1], 3));
        let refused = plan(&topic(1, 4), &settings(), &image).unwrap_err();
        assert_eq!(refused.code(), 38);
        assert!(refused.message.unwrap().contains("because only 3 broker(s) are registered"));
        // A fenced broker counts, but leads nothing.
        let made = plan(&topic(3, 3), &settings(), &three_brokers(&[2])).unwrap();
        assert_eq!((made.leaders.map_ids(), made.replication_factor), (vec![1, 3, 1], 3));
    }

    #[test]
    fn the_first_broker_of_an_assignment_that_can_leads() {
        let made = |given: &[(i32, &[i32])], fenced: &[i32]| {
            let asked = topic(-1, -1).with_assignments(assignments(given));
            plan(&asked, &settings(), &three_brokers(fenced))
                .map(|made| (made.leaders.map_ids(), made.replication_factor))
        };
        assert_eq!(made(&[(1, &[1, 2]), (0, &[3, 1])], &[]), Ok((vec![3, 1], 2)));
        assert_eq!(made(&[(0, &[3, 1]), (1, &[2, 3])], &[3]), Ok((vec![1, 2], 2)));
        for (given, fenced, message) in [
            (&[(0, &[3][..])][..], 3, "for partition 0 are fenced or in controlled shutdown."),
            (
                &[(0, &[1, 2]), (1, &[2])],
                0,
                "with 1 replica(s), but this is not consistent with previous partitions, which have 2",
            ),
            (&[(0, &[2, 1, 2])], 0, "the broker 2 more than once."),
            (&[(0, &[4, 1])], 0, "broker 4, but no such broker is registered."),
        ] {
            let refused = made(given, &[fenced]).unwrap_err();
            assert_eq!(refused.code(), 39);
            assert!(refused.message.as_ref().unwrap().contains(message), "{refused:?}");
        }
    }

    trait Ids {
        fn map_ids(&self) -> Vec<i32>;
    }

    impl Ids for Vec<NodeId> {
        fn map_ids(&self) -> Vec<i32> {
            self.iter().map(|node| node.0).collect()
        }
    }

    #[test]
    fn settings_of_a_new_topic_are_checked_and_the_last_of_two_counts() {
        let with = |given: &[(&str, Option<&str>)]| {
            let configs = given.iter().map(|(name, value)| {
                CreatableTopicConfig::default().with_name(text(*name)).with_value(value.map(text))
            });
            plan(&topic(1, 1).with_configs(configs.collect()), &settings(), &alone())
        };
        let made = with(&[("retention.ms", Some("1")), ("retention.ms", Some("2"))]).unwrap();
        assert_eq!(made.configs, [("retention.ms".to_owned(), "2".to_owned())]);
        assert_eq!(code(with(&[("cleanup.policy", Some(""))])), 0);
        assert_eq!(code(with(&[("cleanup.policy", Some("compact,delete"))])), 0);
        for (name, value) in [
            ("nope", Some("1")),
            ("retention.ms", Some("x")),
            ("retention.ms", None),
            ("remote.storage.enable", Some("true")),
        ] {
            assert_eq!(code(with(&[(name, value)])), 40, "{name} {value:?}");
        }
    }

    #[test]
    fn the_number_of_partitions_of_a_request_cannot_overflow() {
        let topics = vec![topic(i32::MAX, 1), topic(-1, 1), topic(i32::MIN, 1), topic(5, 1)];
        assert_eq!(partitions_in_all(&topics, &settings()), i32::MAX as usize + 6);
    }

    #[test]
    fn names_collide_only_in_dots_and_underscores() {
        let collisions = Collisions { folded: HashMap::from([("a_b".to_owned(), Arc::from("a.b"))]) };
        assert!(collisions.check("a_b").is_err());
        for name in ["a.b", "a-b", "ab", "a.c"] {
            assert_eq!(collisions.check(name), Ok(()), "{name}");
        }
    }
}
