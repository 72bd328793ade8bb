//! Configuration as opaque texts: what a key means and which values it takes is checked by the proposer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::metadata::bounds::{
    CLIENT_NAME_BYTES_MAX, CONFIG_RESOURCES_MAX, CONFIG_VALUE_BYTES_MAX, CONFIGS_MAX, NAME_BYTES_MAX,
};
use crate::metadata::command::{ConfigChange, ConfigResource};
use crate::metadata::image::{Image, NamedConfigs};
use crate::metadata::reject::{Reject, Response};

use super::require_at_most;

type Configs = BTreeMap<String, String>;

pub fn alter(image: &mut Image, changes: &[ConfigChange]) -> Result<Response, Reject> {
    require_at_most("the number of configuration changes", changes.len(), COMMAND_PARTITIONS_MAX)?;
    let mut staged: BTreeMap<&ConfigResource, Configs> = BTreeMap::new();
    for change in changes {
        check(&change.name, change.value.as_deref().unwrap_or_default())?;
        if !staged.contains_key(&change.resource) {
            staged.insert(&change.resource, present(image, &change.resource)?);
        }
        let Some(configs) = staged.get_mut(&change.resource) else { continue };
        match &change.value {
            Some(value) => configs.insert(change.name.clone(), value.clone()),
            None => configs.remove(&change.name),
        };
    }
    for configs in staged.values() {
        require_at_most("the number of settings of one resource", configs.len(), CONFIGS_MAX)?;
    }
    require_room(image, &staged)?;
    for (resource, configs) in staged {
        set(image, resource, configs);
    }
    Ok(Response::Ok)
}

/// The settings of these resources are what the proposer saw.
pub fn require(image: &Image, expected: &[(ConfigResource, Vec<(String, String)>)]) -> Result<(), Reject> {
    for (resource, seen) in expected {
        let present = present(image, resource)?;
        let same = present.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        if !same.eq(seen.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            return Err(Reject::ConfigsChanged);
        }
    }
    Ok(())
}

/// Groups and subscriptions need not exist before they have a setting, so their number is bounded here.
fn require_room(image: &Image, staged: &BTreeMap<&ConfigResource, Configs>) -> Result<(), Reject> {
    let (mut groups, mut subscriptions) = (image.group_configs.len(), image.client_metrics.len());
    for (resource, _) in staged.iter().filter(|(_, configs)| !configs.is_empty()) {
        match resource {
            ConfigResource::Group(name) => groups += usize::from(!image.group_configs.contains_key(name)),
            ConfigResource::ClientMetrics(name) => {
                subscriptions += usize::from(!image.client_metrics.contains_key(name));
            }
            _ => {}
        }
    }
    require_at_most("the number of groups with settings", groups, CONFIG_RESOURCES_MAX)?;
    require_at_most("the number of subscriptions to metrics", subscriptions, CONFIG_RESOURCES_MAX)
}

/// The settings that a topic is created with; each key once.
pub fn of_new_topic(pairs: &[(String, String)]) -> Result<Configs, Reject> {
    require_at_most("the number of settings of one resource", pairs.len(), CONFIGS_MAX)?;
    let mut configs = Configs::new();
    for (name, value) in pairs {
        check(name, value)?;
        if configs.insert(name.clone(), value.clone()).is_some() {
            return Err(Reject::Invalid(format!("setting {name} twice")));
        }
    }
    Ok(configs)
}

fn check(name: &str, value: &str) -> Result<(), Reject> {
    if name.is_empty() {
        return Err(Reject::Invalid("a setting without a name".to_owned()));
    }
    require_at_most("the length of a setting's name", name.len(), NAME_BYTES_MAX)?;
    require_at_most("the length of a setting's value", value.len(), CONFIG_VALUE_BYTES_MAX)
}

fn present(image: &Image, resource: &ConfigResource) -> Result<Configs, Reject> {
    match resource {
        ConfigResource::Topic(name) => Ok(image.topic(name).ok_or(Reject::UnknownTopic)?.configs.clone()),
        ConfigResource::Broker(node) if !image.brokers.contains_key(node) => Err(Reject::UnknownBroker(*node)),
        ConfigResource::Broker(node) => Ok(image.broker_configs.get(node).cloned().unwrap_or_default()),
        ConfigResource::Cluster => Ok(image.cluster_configs.clone()),
        ConfigResource::Group(name) => named(&image.group_configs, name),
        ConfigResource::ClientMetrics(name) => named(&image.client_metrics, name),
    }
}

fn named(all: &NamedConfigs, name: &str) -> Result<Configs, Reject> {
    if name.is_empty() {
        return Err(Reject::Invalid("a resource without a name".to_owned()));
    }
    require_at_most("the length of a resource's name", name.len(), CLIENT_NAME_BYTES_MAX)?;
    Ok(all.get(name).cloned().unwrap_or_default())
}

fn set_named(all: &mut NamedConfigs, name: &str, configs: Configs) {
    let all = Arc::make_mut(all);
    match configs.is_empty() {
        true => drop(all.remove(name)),
        false => drop(all.insert(name.to_owned(), configs)),
    }
}

fn set(image: &mut Image, resource: &ConfigResource, configs: Configs) {
    match resource {
        ConfigResource::Topic(name) => {
            let Some(id) = image.names.get(name.as_str()) else { return };
            if let Some(topic) = Arc::make_mut(&mut image.topics).get_mut(id) {
                Arc::make_mut(topic).configs = configs;
            }
        }
        ConfigResource::Broker(node) if configs.is_empty() => {
            image.broker_configs.remove(node);
        }
        ConfigResource::Broker(node) => {
            image.broker_configs.insert(*node, configs);
        }
        ConfigResource::Cluster => image.cluster_configs = configs,
        ConfigResource::Group(name) => set_named(&mut image.group_configs, name, configs),
        ConfigResource::ClientMetrics(name) => set_named(&mut image.client_metrics, name, configs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_long_as_every_protocol_version_can_carry() {
        let longest = "x".repeat(i16::MAX as usize);
        assert_eq!(check("name", &longest), Ok(()));
        let limit = longest.len() as u64;
        let refused = Reject::TooMany { what: "the length of a setting's value".to_owned(), limit };
        assert_eq!(check("name", &(longest + "x")), Err(refused));
    }
}
