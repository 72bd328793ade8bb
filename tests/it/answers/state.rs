//! What is described before and after every request, by the APIs that are for it.

use super::super::client::text;
use super::render;
use super::world::World;
use kafka_protocol::messages::*;
use std::time::Duration;

/// Something whose state a request might change.
#[derive(Debug, Clone)]
pub enum Watched {
    /// A group of the classic protocol, or of none.
    Group(String),
    ConsumerGroup(String),
    /// All offsets that a group has committed.
    Offsets(String),
    /// A topic's partitions.
    Topic(String),
    /// Start of a partition, and how many records came to it.
    Log(String, i32),
    Transaction(String),
    /// What is set on a resource itself.
    Config(i8, String),
    /// The quotas of exactly one kind of entity.
    Quotas(&'static str, String),
}

impl Watched {
    pub fn describe(&self, world: &mut World) -> Vec<String> {
        match self {
            Watched::Group(name) => {
                let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
                vec![asked(world, 5, &request)]
            }
            Watched::ConsumerGroup(name) => {
                let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(name))]);
                vec![asked(world, 1, &request)]
            }
            Watched::Offsets(name) => {
                let request = OffsetFetchRequest::default().with_group_id(GroupId(text(name))).with_topics(None);
                vec![asked(world, 7, &request)]
            }
            Watched::Topic(name) => {
                let answer = world.client.metadata(&[name]).expect("an answer to Metadata");
                answer.topics.iter().map(render::line).collect()
            }
            Watched::Log(name, partition) => vec![log(world, name, *partition)],
            Watched::Transaction(id) => vec![transaction(world, id)],
            Watched::Config(kind, name) => config(world, *kind, name),
            Watched::Quotas(kind, name) => {
                let component = describe_client_quotas_request::ComponentData::default()
                    .with_entity_type(text(kind))
                    .with_match(Some(text(name)));
                let request = DescribeClientQuotasRequest::default().with_components(vec![component]);
                vec![asked(world, 1, &request)]
            }
        }
    }
}

fn asked<R: kafka_protocol::protocol::Request>(world: &mut World, version: i16, request: &R) -> String
where
    R::Response: std::fmt::Debug,
{
    render::line(&world.client.call(version, request).expect("the state is described"))
}

/// First offset and end; the latter counts from where it was before the request.
fn log(world: &mut World, name: &str, partition: i32) -> String {
    let mut at = |timestamp| world.client.list_offset(name, partition, timestamp).expect("an answer to ListOffsets");
    let ((start_error, _, start), (end_error, _, end)) = (at(-2), at(-1));
    let base = *world.ends.entry((name.to_string(), partition)).or_insert(end);
    let errors = if (start_error, end_error) == (0, 0) { String::new() } else { format!(" {start_error} {end_error}") };
    render::neutral(&format!("{name} {partition}: start {start}, records +{}{errors}", end - base))
}

/// A transaction, once it rests: its end is completed after it is answered.
fn transaction(world: &mut World, id: &str) -> String {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(id))]);
    super::super::harness::eventually("the transaction rests", Duration::from_secs(10), || {
        let shown = asked(world, 0, &request);
        (!shown.contains("Prepare")).then_some(shown)
    })
}

/// Names and values that are set, not what holds by default.
fn config(world: &mut World, kind: i8, name: &str) -> Vec<String> {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = world.client.call(4, &request).expect("an answer to DescribeConfigs");
    // Of a topic, a subscription or a group itself; the others are of the broker.
    let set = answer.results.iter().flat_map(|r| &r.configs).filter(|c| [1, 7, 8].contains(&c.config_source));
    set.map(|c| render::neutral(&format!("{}={:?}", c.name.as_str(), c.value))).collect()
}
