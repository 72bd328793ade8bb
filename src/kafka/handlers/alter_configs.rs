//! AlterConfigs (key 33): replaces all settings of a resource by those that are given. Clients since Kafka 2.3 use
//! IncrementalAlterConfigs instead.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::broker::Settings;
use crate::broker::settings::Layers;
use crate::kafka::{ConnectionContext, Reply, Request};

use super::Handlers;
use super::administer::{Refusal, outcome};
use super::config_resources::check_altered;
use super::describe_configs::BROKER_LOGGER;

impl Handlers {
    pub(super) async fn alter_configs(&self, request: Request, body: AlterConfigsRequest) -> Reply {
        let mut response = AlterConfigsResponse::default();
        let mut times = HashMap::new();
        for asked in &body.resources {
            *times.entry((asked.resource_type, asked.resource_name.clone())).or_insert(0) += 1;
        }
        for asked in body.resources {
            let named_once = times.get(&(asked.resource_type, asked.resource_name.clone())) == Some(&1);
            let result = if named_once {
                self.replace_configs(&request.context, &asked, body.validate_only).await
            } else {
                // A real Kafka never answers this.
                Err(Refusal::invalid("Each resource must appear at most once."))
            };
            let (code, message) = outcome(&result);
            self.count(&request, code);
            response.responses.push(
                AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(asked.resource_type)
                    .with_resource_name(asked.resource_name),
            );
        }
        Reply::encode(request.to, &response)
    }

    async fn replace_configs(
        &self,
        context: &ConnectionContext,
        asked: &AlterConfigsResource,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let given = given(&asked.configs)?;
        if asked.resource_type == BROKER_LOGGER {
            return Err(Refusal::invalid(format!("Unknown resource type {BROKER_LOGGER}")));
        }
        let (permit, resource) = self.alterable(context, asked.resource_type, &asked.resource_name)?;
        let alter = |_: &Settings, layers: Layers<'_>| {
            check_altered(&resource, &given, given.keys().map(String::as_str), layers).map(|()| given.clone())
        };
        self.broker.alter_configs(&permit, &resource, validate_only, alter).await
    }
}

/// All settings that the resource is to have.
fn given(configs: &[AlterableConfig]) -> Result<Settings, Refusal> {
    let mut names = HashSet::new();
    if !configs.iter().all(|config| names.insert(&*config.name)) {
        return Err(Refusal::invalid("Error due to duplicate config keys"));
    }
    let nulls: Vec<&str> = configs.iter().filter(|c| c.value.is_none()).map(|c| &*c.name).collect();
    if !nulls.is_empty() {
        return Err(Refusal::invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    Ok(configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::text;
    use crate::metadata::ConfigResource;

    fn checked(resource: &ConfigResource, pairs: &[(&str, Option<&str>)]) -> i16 {
        let configs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| AlterableConfig::default().with_name(text(*name)).with_value(value.map(text)))
            .collect();
        let empty = Settings::new();
        let layers = Layers { broker: &empty, cluster: &empty, fixed: &empty };
        let result =
            given(&configs).and_then(|given| check_altered(resource, &given, given.keys().map(String::as_str), layers));
        result.map_or_else(|refusal| refusal.code(), |()| 0)
    }

    /// Each as a real Kafka 4.3.1 answered.
    #[test]
    fn settings_are_checked_as_in_kafka() {
        let (topic, broker) = (ConfigResource::Topic("t".to_owned()), ConfigResource::Cluster);
        let group = ConfigResource::Group("g".to_owned());
        for (resource, pairs, expected) in [
            (&topic, &[("retention.ms", Some("1000")), ("segment.ms", Some("77"))][..], 0),
            (&topic, &[], 0),
            (&topic, &[("retention.ms", None)], 42),
            (&topic, &[("nope", Some("1"))], 40),
            (&topic, &[("retention.ms", Some("zz"))], 40),
            (&topic, &[("retention.ms", Some("1")), ("retention.ms", Some("2"))], 42),
            (&broker, &[("message.max.bytes", Some("2000000"))], 0),
            (&broker, &[("num.partitions", Some("2"))], 42),
            (&broker, &[("un.known", Some("v"))], 0),
            (&group, &[("consumer.session.timeout.ms", Some("50000"))], 0),
        ] {
            assert_eq!(checked(resource, pairs), expected, "{resource:?} {pairs:?}");
        }
    }
}
