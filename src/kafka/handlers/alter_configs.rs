//! IncrementalAlterConfigs (key 44, KIP-339): sets, deletes, extends and shortens single settings.
//!
//! All changes of one resource are made or none; resources do not depend on one another.

use std::collections::{BTreeMap, HashMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::broker::settings::{self, Setting, elements};
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::{ConfigChange, ConfigResource};
use crate::security::{Operation, Permit, Resource};

use super::Handlers;
use super::administer::{Refusal, check_topic_name, outcome};
use super::describe_configs::{BROKER, TOPIC, broker_resource, no_such_kind};

/// The settings of one resource, by name.
type Own = BTreeMap<String, String>;

/// What is to be done to one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    name: String,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

impl Handlers {
    pub(super) async fn alter_configs(&self, request: Request, body: IncrementalAlterConfigsRequest) -> Reply {
        let mut response = IncrementalAlterConfigsResponse::default();
        let mut times = HashMap::new();
        for asked in &body.resources {
            *times.entry((asked.resource_type, asked.resource_name.clone())).or_insert(0) += 1;
        }
        for asked in body.resources {
            let named_once = times.get(&(asked.resource_type, asked.resource_name.clone())) == Some(&1);
            let result = if named_once {
                self.alter_resource(&request.context, &asked, body.validate_only).await
            } else {
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

    async fn alter_resource(
        &self,
        context: &ConnectionContext,
        asked: &AlterConfigsResource,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let changes = changes(&asked.configs)?;
        let (permit, resource) = self.alterable(context, asked)?;
        let own = self.broker.overrides(&resource);
        let altered = match &resource {
            ConfigResource::Topic(_) => altered_topic(&own, changes)?,
            ConfigResource::Broker(_) | ConfigResource::Cluster => altered_broker(&own, changes)?,
        };
        let changes = differences(&resource, &own, &altered);
        if !validate_only && !changes.is_empty() {
            self.broker.alter_configs(&permit, changes).await?;
        }
        Ok(())
    }

    /// The resource, if it is there, and the permit to alter it.
    fn alterable(
        &self,
        context: &ConnectionContext,
        asked: &AlterConfigsResource,
    ) -> Result<(Permit, ConfigResource), Refusal> {
        let name = &asked.resource_name;
        match asked.resource_type {
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
                Ok((permit, ConfigResource::Topic(name.to_string())))
            }
            BROKER => {
                let permit = self.permit(context, Operation::AlterConfigs, Resource::CLUSTER)?;
                Ok((permit, broker_resource(name, self.broker.node)?))
            }
            other => Err(no_such_kind(other)),
        }
    }
}

/// What a resource's part of a request asks for.
fn changes(configs: &[AlterableConfig]) -> Result<Vec<Change>, Refusal> {
    let mut names = HashSet::new();
    if !configs.iter().all(|config| names.insert(&*config.name)) {
        return Err(Refusal::invalid("Error due to duplicate config keys"));
    }
    let needs_value = |config: &&AlterableConfig| config.value.is_none() && config.config_operation != 1;
    let nulls: Vec<&str> = configs.iter().filter(needs_value).map(|config| &*config.name).collect();
    if !nulls.is_empty() {
        return Err(Refusal::invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    configs
        .iter()
        .map(|config| {
            let value = config.value.as_deref().unwrap_or_default().to_owned();
            let action = match config.config_operation {
                0 => Action::Set(value),
                1 => Action::Delete,
                2 => Action::Append(value),
                3 => Action::Subtract(value),
                other => {
                    return Err(Refusal::invalid(format!("Unknown operation {other} for config {}", &*config.name)));
                }
            };
            Ok(Change { name: config.name.to_string(), action })
        })
        .collect()
}

/// The settings of a topic after the changes.
fn altered_topic(own: &Own, changes: Vec<Change>) -> Result<Own, Refusal> {
    let invalid = |message: String| Refusal::new(ResponseError::InvalidConfig, message);
    let mut altered = own.clone();
    for change in changes {
        apply(&mut altered, change, settings::topic, |name, verb, _| {
            invalid(format!("Can't {} to key {name} because its type is not LIST.", verb.to_uppercase()))
        })?;
    }
    settings::validate_topic_set(&altered).map_err(|error| invalid(error.to_string()))?;
    Ok(altered)
}

/// The settings of a broker, or of all, after the changes. Only what is changed is checked: what was set before may
/// be unknown, and stays.
fn altered_broker(own: &Own, changes: Vec<Change>) -> Result<Own, Refusal> {
    let mut altered = own.clone();
    let names: Vec<String> = changes.iter().map(|change| change.name.clone()).collect();
    for change in changes {
        apply(&mut altered, change, settings::broker, |name, verb, known| {
            let message = match known {
                Some(_) => format!("Config value {verb} is not allowed for config key: {name}"),
                None => format!("Unknown config name: {name}"),
            };
            Refusal::new(ResponseError::InvalidConfig, message)
        })?;
    }
    for (name, value) in names.iter().filter_map(|name| altered.get_key_value(name)) {
        settings::validate_broker(name, value).map_err(|error| Refusal::invalid(error.to_string()))?;
    }
    Ok(altered)
}

/// Carries out one change. `no_list` words the refusal to change the elements of a value that is no list.
fn apply(
    own: &mut Own,
    Change { name, action }: Change,
    table: impl Fn(&str) -> Option<&'static Setting>,
    no_list: impl Fn(&str, &str, Option<&'static Setting>) -> Refusal,
) -> Result<(), Refusal> {
    let (given, verb) = match action {
        Action::Set(value) => {
            own.insert(name, value);
            return Ok(());
        }
        Action::Delete => {
            own.remove(&name);
            return Ok(());
        }
        Action::Append(value) => (value, "append"),
        Action::Subtract(value) => (value, "subtract"),
    };
    let Some(setting) = table(&name).filter(|setting| setting.kind.is_list()) else {
        return Err(no_list(&name, verb, table(&name)));
    };
    let present = own.get(&name).map_or(setting.default.unwrap_or_default(), String::as_str);
    let mut list = elements(present);
    let given = elements(&given);
    if verb == "append" {
        for element in given {
            if !list.contains(&element) {
                list.push(element);
            }
        }
    } else {
        list.retain(|element| !given.contains(element));
    }
    let value = list.join(",");
    own.insert(name, value);
    Ok(())
}

fn differences(resource: &ConfigResource, before: &Own, after: &Own) -> Vec<ConfigChange> {
    let change =
        |name: &String, value: Option<String>| ConfigChange { resource: resource.clone(), name: name.clone(), value };
    let removed = before.keys().filter(|name| !after.contains_key(*name)).map(|name| change(name, None));
    let set = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    removed.chain(set.map(|(name, value)| change(name, Some(value.clone())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::text;

    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;

    fn asked(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text))
    }

    fn own(pairs: &[(&str, &str)]) -> Own {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn topic(before: &[(&str, &str)], asked: &[AlterableConfig]) -> Result<Own, i16> {
        changes(asked).and_then(|changes| altered_topic(&own(before), changes)).map_err(|refusal| refusal.code())
    }

    fn broker(before: &[(&str, &str)], asked: &[AlterableConfig]) -> Result<Own, i16> {
        changes(asked).and_then(|changes| altered_broker(&own(before), changes)).map_err(|refusal| refusal.code())
    }

    /// Each as a real Kafka 4.3.1 answered, but for the unknown operation.
    #[test]
    fn settings_of_topics_change_as_in_kafka() {
        const RETENTION: &str = "retention.ms";
        const REPLICAS: &str = "leader.replication.throttled.replicas";
        const POLICY: &str = "cleanup.policy";
        for (before, change, expected) in [
            (vec![], asked(RETENTION, SET, Some("5")), Ok(vec![(RETENTION, "5")])),
            (vec![(RETENTION, "5")], asked(RETENTION, DELETE, None), Ok(vec![])),
            (vec![], asked("nope", DELETE, None), Ok(vec![])),
            (vec![], asked("nope", SET, Some("1")), Err(40)),
            (vec![], asked("nope", APPEND, Some("1")), Err(40)),
            (vec![], asked(RETENTION, SET, Some("zz")), Err(40)),
            (vec![], asked(RETENTION, APPEND, Some("1")), Err(40)),
            (vec![], asked(RETENTION, SUBTRACT, Some("1")), Err(40)),
            (vec![], asked(RETENTION, SET, None), Err(42)),
            (vec![], asked(RETENTION, APPEND, None), Err(42)),
            (vec![], asked(RETENTION, 4, Some("1")), Err(42)),
            (vec![], asked(RETENTION, -1, Some("1")), Err(42)),
            (vec![], asked(POLICY, APPEND, Some("delete")), Ok(vec![(POLICY, "delete")])),
            (vec![], asked(POLICY, APPEND, Some("bogus")), Err(40)),
            (vec![], asked(POLICY, APPEND, Some("compact")), Err(40)),
            (vec![], asked(POLICY, SUBTRACT, Some("delete")), Ok(vec![(POLICY, "")])),
            (vec![], asked(REPLICAS, APPEND, Some("0:1, 1:1,0:1")), Ok(vec![(REPLICAS, "0:1,1:1")])),
            (
                vec![(REPLICAS, "0:1,1:1")],
                asked(REPLICAS, APPEND, Some("2:1,0:1")),
                Ok(vec![(REPLICAS, "0:1,1:1,2:1")]),
            ),
            (vec![(REPLICAS, "0:1,1:1")], asked(REPLICAS, SUBTRACT, Some("0:1,9:9")), Ok(vec![(REPLICAS, "1:1")])),
        ] {
            let result = topic(&before, std::slice::from_ref(&change));
            assert_eq!(result, expected.map(|pairs| own(&pairs)), "{change:?}");
        }
        let twice = [asked(RETENTION, SET, Some("1")), asked(RETENTION, DELETE, None)];
        assert_eq!(topic(&[], &twice), Err(42));
    }

    #[test]
    fn settings_of_brokers_change_as_in_kafka() {
        const BYTES: &str = "message.max.bytes";
        for (before, change, expected) in [
            (vec![], asked(BYTES, SET, Some("1000")), Ok(vec![(BYTES, "1000")])),
            (vec![], asked(BYTES, SET, Some("zz")), Err(42)),
            (vec![], asked("num.partitions", SET, Some("5")), Err(42)),
            (vec![], asked("num.partitions", DELETE, None), Ok(vec![])),
            (vec![], asked("un.known", SET, Some("v")), Ok(vec![("un.known", "v")])),
            (vec![("un.known", "v")], asked(BYTES, SET, Some("1")), Ok(vec![("un.known", "v"), (BYTES, "1")])),
            (vec![("un.known", "v")], asked("un.known", DELETE, None), Ok(vec![])),
            (vec![], asked("un.known", APPEND, Some("v")), Err(40)),
            (vec![], asked(BYTES, APPEND, Some("1")), Err(40)),
            (vec![], asked("log.cleanup.policy", APPEND, Some("delete")), Ok(vec![("log.cleanup.policy", "delete")])),
        ] {
            let result = broker(&before, std::slice::from_ref(&change));
            assert_eq!(result, expected.map(|pairs| own(&pairs)), "{change:?}");
        }
    }

    #[test]
    fn only_what_differs_is_proposed() {
        let (before, after) = (own(&[("a", "1"), ("b", "2"), ("c", "3")]), own(&[("a", "1"), ("b", "4"), ("d", "5")]));
        let changes: Vec<_> = differences(&ConfigResource::Cluster, &before, &after)
            .into_iter()
            .map(|change| (change.name, change.value))
            .collect();
        let expected = [("c", None), ("b", Some("4")), ("d", Some("5"))];
        assert_eq!(changes, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }
}
