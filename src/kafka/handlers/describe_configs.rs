//! DescribeConfigs (key 32): the settings of topics, brokers, groups and subscriptions to clients' metrics, with where
//! each value comes from.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::base::NodeId;
use crate::broker::settings::{self, ConfigRow, SynonymRow};
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::ConfigResource;
use crate::security::{Operation, Resource};

use super::administer::{Refusal, check_topic_name};
use super::{Handlers, text};

/// Kafka's numbers of the kinds of resources that have settings.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Memory that one answer may take. A request of a few bytes can ask for the same long list over and over; the
/// settings of 20,000 topics fit.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What a setting takes beside its texts, and what a synonym does.
const ROW_BYTES: usize = 256;

/// What of each setting is wanted.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

impl Handlers {
    pub(super) fn describe_configs(&self, request: Request, body: DescribeConfigsRequest) -> Reply {
        let mut response = DescribeConfigsResponse::default();
        let wanted = Wanted { synonyms: body.include_synonyms, documentation: body.include_documentation };
        let mut left = ANSWER_BYTES_MAX;
        for asked in body.resources {
            let mut answer = DescribeConfigsResult::default();
            let described = self.describe_resource(&request.context, &asked);
            match described.and_then(|rows| charged(rows, wanted, &mut left)) {
                Ok(rows) => answer.configs = rows.into_iter().map(|row| shown(row, wanted)).collect(),
                Err(refusal) => (answer.error_code, answer.error_message) = (refusal.code(), refusal.text()),
            }
            self.count(&request, answer.error_code);
            answer.resource_type = asked.resource_type;
            answer.resource_name = asked.resource_name;
            response.results.push(answer);
        }
        Reply::encode(request.to, &response)
    }

    fn describe_resource(
        &self,
        context: &ConnectionContext,
        asked: &DescribeConfigsResource,
    ) -> Result<Vec<ConfigRow>, Refusal> {
        let name = &asked.resource_name;
        // An empty list means all, as null does.
        let keys = asked.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
        let keys: Option<HashSet<&str>> = keys.map(|keys| keys.iter().map(|key| &**key).collect());
        let wanted = |key: &str| keys.as_ref().is_none_or(|keys| keys.contains(key));
        match asked.resource_type {
            TOPIC => {
                let _permit = self.permit(context, Operation::DescribeConfigs, Resource::topic(name))?;
                check_topic_name(name)?;
                let topic = self.broker.topic(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
                Ok(self.broker.with_layers(|layers| settings::describe_topic(&topic.configs, layers, wanted)))
            }
            BROKER => {
                let _permit = self.permit(context, Operation::DescribeConfigs, Resource::CLUSTER)?;
                match broker_resource(name, self.broker.node)? {
                    ConfigResource::Broker(_) => {
                        Ok(self.broker.with_layers(|layers| settings::describe_broker(layers, wanted)))
                    }
                    other => Ok(settings::describe_cluster(&self.broker.overrides(&other), wanted)),
                }
            }
            GROUP => {
                let _permit = self.permit(context, Operation::DescribeConfigs, Resource::group(name))?;
                if name.is_empty() {
                    return Err(Refusal::invalid("Group name must not be empty"));
                }
                let own = self.broker.overrides(&ConfigResource::Group(name.to_string()));
                Ok(self.broker.with_layers(|layers| settings::describe_group(&own, layers, wanted)))
            }
            CLIENT_METRICS => {
                let _permit = self.permit(context, Operation::DescribeConfigs, Resource::CLUSTER)?;
                if name.is_empty() {
                    return Err(Refusal::invalid("Client metrics subscription name must not be empty"));
                }
                let own = self.broker.overrides(&ConfigResource::ClientMetrics(name.to_string()));
                Ok(settings::describe_client_metrics(&own, wanted))
            }
            other => Err(no_such_kind(other)),
        }
    }
}

/// The resource that a broker's name means: the number of this one, or nothing for the defaults of all.
pub(super) fn broker_resource(name: &str, node: NodeId) -> Result<ConfigResource, Refusal> {
    if name.is_empty() {
        return Ok(ConfigResource::Cluster);
    }
    match name.parse::<i32>() {
        Ok(id) if id == node.0 => Ok(ConfigResource::Broker(node)),
        Ok(_) => {
            Err(Refusal::invalid(format!("Unexpected broker id, expected {node} or empty string, but received {name}")))
        }
        Err(_) => Err(Refusal::invalid(format!("Broker id must be an integer, but it is: {name}"))),
    }
}

/// Refuses a kind of resource that has no settings here.
pub(super) fn no_such_kind(kind: i8) -> Refusal {
    Refusal::invalid(match kind {
        BROKER_LOGGER => "Log levels are set in the configuration file, not for single loggers.".to_owned(),
        other => format!("Unknown resource type {other}"),
    })
}

/// Lets rows into the answer as long as there is room.
fn charged(rows: Vec<ConfigRow>, wanted: Wanted, left: &mut usize) -> Result<Vec<ConfigRow>, Refusal> {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let of_synonym = |row: &SynonymRow| ROW_BYTES + row.name.len() + text(&row.value);
    let of_row = |row: &ConfigRow| {
        let synonyms: usize = if wanted.synonyms { row.synonyms.iter().map(of_synonym).sum() } else { 0 };
        let documentation = if wanted.documentation { text(&row.documentation) } else { 0 };
        ROW_BYTES + row.name.len() + text(&row.value) + documentation + synonyms
    };
    match left.checked_sub(rows.iter().map(of_row).sum()) {
        Some(rest) => {
            *left = rest;
            Ok(rows)
        }
        None => {
            let message = "The answer would be too long: ask for fewer resources at once.";
            Err(Refusal::new(ResponseError::PolicyViolation, message))
        }
    }
}

fn shown(row: ConfigRow, wanted: Wanted) -> DescribeConfigsResourceResult {
    let synonyms = if wanted.synonyms { row.synonyms } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(text(row.name))
        .with_value(row.value.map(text))
        .with_read_only(row.read_only)
        .with_config_source(row.source as i8)
        .with_is_sensitive(row.sensitive)
        .with_synonyms(synonyms.into_iter().map(synonym).collect())
        .with_config_type(row.wire_type)
        .with_documentation(row.documentation.filter(|_| wanted.documentation).map(text))
}

fn synonym(row: SynonymRow) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(text(row.name))
        .with_value(row.value.map(text))
        .with_source(row.source as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_bounded_memory() {
        let none = std::collections::BTreeMap::new();
        let layers = settings::Layers { broker: &none, cluster: &none, fixed: &none };
        let rows = || settings::describe_topic(&none, layers, |_| true);
        for wanted in [true, false].map(|both| Wanted { synonyms: both, documentation: both }) {
            let (mut left, mut let_in) = (1024 * 1024, 0);
            while charged(rows(), wanted, &mut left).is_ok() {
                let_in += 1;
            }
            assert!((10..200).contains(&let_in), "{let_in}");
            assert_eq!(charged(rows(), wanted, &mut left).unwrap_err().code(), 44);
        }
    }

    #[test]
    fn a_broker_is_named_by_its_number_and_all_by_nothing() {
        let node = NodeId(1);
        assert_eq!(broker_resource("1", node), Ok(ConfigResource::Broker(node)));
        assert_eq!(broker_resource("", node), Ok(ConfigResource::Cluster));
        for wrong in ["2", "x", "-1", "1x", "99999999999"] {
            assert_eq!(broker_resource(wrong, node).unwrap_err().code(), 42, "{wrong}");
        }
    }
}
