//! IncrementalAlterConfigs (key 44, KIP-339): sets, deletes, extends and shortens single settings.
//!
//! All changes of one resource are made or none; resources do not depend on one another.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::broker::Settings;
use crate::broker::settings::{self, Layers, Setting, elements};
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::ConfigResource;

use super::Handlers;
use super::administer::{Refusal, outcome};
use super::config_resources::{check_altered, invalid_config};

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
    pub(super) async fn incremental_alter_configs(
        &self,
        request: Request,
        body: IncrementalAlterConfigsRequest,
    ) -> Reply {
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
        let (permit, resource) = self.alterable(context, asked.resource_type, &asked.resource_name)?;
        let alter = |own: &Settings, layers: Layers<'_>| altered(&resource, own, &changes, layers);
        self.broker.alter_configs(&permit, &resource, validate_only, alter).await
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

/// The settings of a resource after the changes.
fn altered(
    resource: &ConfigResource,
    own: &Settings,
    changes: &[Change],
    layers: Layers<'_>,
) -> Result<Settings, Refusal> {
    let mut altered = own.clone();
    for change in changes {
        apply(&mut altered, change, resource)?;
    }
    let changed = changes.iter().map(|change| change.name.as_str());
    check_altered(resource, &altered, changed, layers)?;
    Ok(altered)
}

/// Carries out one change.
fn apply(own: &mut Settings, change: &Change, resource: &ConfigResource) -> Result<(), Refusal> {
    let name = &change.name;
    let (given, verb) = match &change.action {
        Action::Set(value) => {
            own.insert(name.clone(), value.clone());
            return Ok(());
        }
        Action::Delete => {
            own.remove(name);
            return Ok(());
        }
        Action::Append(value) => (value, "append"),
        Action::Subtract(value) => (value, "subtract"),
    };
    let setting = listed(resource, name, verb)?;
    let present = own.get(name).map_or(setting.default.unwrap_or_default(), String::as_str);
    let mut list = elements(present);
    // Nothing is an element, too, where one is given.
    let given = if given.trim().is_empty() { vec![""] } else { elements(given) };
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
    own.insert(name.clone(), value);
    Ok(())
}

/// The setting whose elements are to change, or the refusal of one that is no list.
fn listed(resource: &ConfigResource, name: &str, verb: &str) -> Result<&'static Setting, Refusal> {
    let known = match resource {
        ConfigResource::Topic(_) => settings::topic(name),
        ConfigResource::Broker(_) | ConfigResource::Cluster => settings::broker(name),
        // As in Kafka, which does not know the types of these here.
        ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => None,
    };
    if let Some(list) = known.filter(|setting| setting.kind.is_list()) {
        return Ok(list);
    }
    Err(invalid_config(match (resource, known) {
        (ConfigResource::Broker(_) | ConfigResource::Cluster, Some(_)) => {
            format!("Config value {verb} is not allowed for config key: {name}")
        }
        (ConfigResource::Broker(_) | ConfigResource::Cluster, None) => format!("Unknown config name: {name}"),
        _ => format!("Can't {} to key {name} because its type is not LIST.", verb.to_uppercase()),
    }))
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

    fn own(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn result(resource: &ConfigResource, before: &[(&str, &str)], asked: &[AlterableConfig]) -> Result<Settings, i16> {
        let empty = Settings::new();
        let layers = Layers { broker: &empty, cluster: &empty, fixed: &empty };
        let altered = changes(asked).and_then(|changes| altered(resource, &own(before), &changes, layers));
        altered.map_err(|refusal| refusal.code())
    }

    fn topic(before: &[(&str, &str)], asked: &[AlterableConfig]) -> Result<Settings, i16> {
        result(&ConfigResource::Topic("t".to_owned()), before, asked)
    }

    fn broker(before: &[(&str, &str)], asked: &[AlterableConfig]) -> Result<Settings, i16> {
        result(&ConfigResource::Cluster, before, asked)
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
            (vec![], asked(POLICY, APPEND, Some("compact")), Ok(vec![(POLICY, "delete,compact")])),
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

    /// Each as a real Kafka 4.3.1 answered.
    #[test]
    fn settings_of_groups_and_subscriptions_change_as_in_kafka() {
        const SESSION: &str = "consumer.session.timeout.ms";
        let group = ConfigResource::Group("g".to_owned());
        let metrics = ConfigResource::ClientMetrics("m".to_owned());
        for (resource, before, change, expected) in [
            (&group, vec![], asked(SESSION, SET, Some("50000")), Ok(vec![(SESSION, "50000")])),
            (&group, vec![(SESSION, "50000")], asked(SESSION, DELETE, None), Ok(vec![])),
            (&group, vec![], asked("nope", DELETE, None), Ok(vec![])),
            (&group, vec![], asked("nope", SET, Some("1")), Err(40)),
            (&group, vec![], asked(SESSION, SET, Some("x")), Err(40)),
            (&group, vec![], asked(SESSION, SET, Some("1000")), Err(40)),
            (&group, vec![], asked(SESSION, APPEND, Some("1")), Err(40)),
            (&metrics, vec![], asked("interval.ms", SET, Some("1000")), Ok(vec![("interval.ms", "1000")])),
            (&metrics, vec![], asked("nope", DELETE, None), Ok(vec![])),
            (&metrics, vec![], asked("nope", SET, Some("1")), Err(42)),
            (&metrics, vec![], asked("interval.ms", SET, Some("99")), Err(42)),
            (&metrics, vec![], asked("interval.ms", SET, Some("x")), Err(40)),
            (&metrics, vec![], asked("match", SET, Some("nope=x")), Err(40)),
            (&metrics, vec![], asked("metrics", APPEND, Some("more.")), Err(40)),
        ] {
            let result = result(resource, &before, std::slice::from_ref(&change));
            assert_eq!(result, expected.map(|pairs| own(&pairs)), "{resource:?} {change:?}");
        }
    }
}
