//! What the two APIs that alter settings have in common: which resource a request means, who may alter it, and which
//! settings it can have.

use kafka_protocol::error::ResponseError;

use crate::base::NodeId;
use crate::broker::Settings;
use crate::broker::settings::{self, Layers, MetricsSubscription, ResourceError};
use crate::kafka::ConnectionContext;
use crate::metadata::ConfigResource;
use crate::security::{Operation, Permit, Resource};

use super::Handlers;
use super::administer::{Refusal, check_topic_name};
use super::describe_configs::{BROKER, CLIENT_METRICS, GROUP, TOPIC, no_such_kind};

/// 40.
pub(super) fn invalid_config(message: impl ToString) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, message.to_string())
}

impl Handlers {
    /// The resource, if it is there, and the permit to alter it.
    pub(super) fn alterable(
        &self,
        context: &ConnectionContext,
        kind: i8,
        name: &str,
    ) -> Result<(Permit, ConfigResource), Refusal> {
        match kind {
            TOPIC => {
                let permit = self.permit(context, Operation::AlterConfigs, Resource::topic(name))?;
                if name.is_empty() {
                    return Err(Refusal::invalid("Default topic resources are not allowed."));
                }
                check_topic_name(name)?;
                if self.broker.topic(name).is_none() {
                    let message = format!("The topic '{name}' does not exist.");
                    return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message));
                }
                Ok((permit, ConfigResource::Topic(name.to_owned())))
            }
            BROKER => {
                let permit = self.permit(context, Operation::AlterConfigs, Resource::CLUSTER)?;
                Ok((permit, alterable_broker(name, self.broker.node)?))
            }
            GROUP => {
                let permit = self.permit(context, Operation::AlterConfigs, Resource::group(name))?;
                if name.is_empty() {
                    return Err(Refusal::invalid("Default group resources are not allowed."));
                }
                Ok((permit, ConfigResource::Group(name.to_owned())))
            }
            CLIENT_METRICS => {
                let permit = self.permit(context, Operation::AlterConfigs, Resource::CLUSTER)?;
                if name.is_empty() {
                    return Err(Refusal::invalid("Subscription name can't be empty"));
                }
                Ok((permit, ConfigResource::ClientMetrics(name.to_owned())))
            }
            other => Err(no_such_kind(other)),
        }
    }
}

fn alterable_broker(name: &str, node: NodeId) -> Result<ConfigResource, Refusal> {
    match name.parse::<i32>() {
        _ if name.is_empty() => Ok(ConfigResource::Cluster),
        Ok(id) if id == node.0 => Ok(ConfigResource::Broker(node)),
        Ok(id) => Err(Refusal::invalid(format!("Unexpected broker id, expected {node}, but received {id}"))),
        Err(_) => Err(Refusal::invalid(format!("Node id must be an integer, but it is: {name}"))),
    }
}

/// Whether the resource can have these settings, of which `changed` are new. Of a broker only these are checked: what
/// was set before may be unknown, and stays.
pub(super) fn check_altered<'a>(
    resource: &ConfigResource,
    altered: &Settings,
    changed: impl Iterator<Item = &'a str>,
    layers: Layers<'_>,
) -> Result<(), Refusal> {
    match resource {
        ConfigResource::Topic(_) => settings::validate_topic_set(altered).map_err(invalid_config),
        ConfigResource::Broker(_) | ConfigResource::Cluster => {
            let mut new = changed.filter_map(|name| altered.get_key_value(name));
            new.try_for_each(|(name, value)| {
                settings::validate_broker(name, value).map_err(|error| Refusal::invalid(error.to_string()))?;
                settings::validate_threads(name, value, layers).map_err(|error| Refusal::invalid(error.to_string()))
            })
        }
        ConfigResource::Group(_) => settings::validate_group(altered, layers).map_err(invalid_config),
        ConfigResource::ClientMetrics(_) => match MetricsSubscription::parse(altered) {
            Ok(_) => Ok(()),
            Err(error @ (ResourceError::UnknownOfMetrics(_) | ResourceError::Interval(_))) => {
                Err(Refusal::invalid(error.to_string()))
            }
            Err(error) => Err(invalid_config(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn a_broker_is_named_by_its_number_and_all_by_nothing() {
        let node = NodeId(1);
        assert_eq!(alterable_broker("1", node), Ok(ConfigResource::Broker(node)));
        assert_eq!(alterable_broker("", node), Ok(ConfigResource::Cluster));
        for (name, message) in [
            ("7", "Unexpected broker id, expected 1, but received 7"),
            ("x", "Node id must be an integer, but it is: x"),
        ] {
            assert_eq!(alterable_broker(name, node), Err(Refusal::invalid(message)));
        }
    }
}
