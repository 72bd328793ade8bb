//! Settings and quotas: the changes that a client may ask for, as metadata commands.
//!
//! Who appends to a list or replaces all settings reads before he writes. What was read goes into the command, which is
//! refused if it is no longer so: no change is lost, whoever else makes one.

use std::collections::BTreeMap;

use crate::metadata::{Command, ConfigChange, ConfigResource, QuotaChange, Reject};
use crate::security::{Operation, Permit, Resource};

use super::settings::{GroupSettings, Layers};
use super::{Broker, ChangeError};

/// The settings of one resource, by name.
pub type Settings = BTreeMap<String, String>;

/// How often a change is made anew because another one came in between. On one node none ever does.
const ATTEMPTS: usize = 16;

impl Broker {
    /// Makes the settings of `resource` what `alter` makes of the present ones, whole or not at all; nobody else's
    /// change comes in between. With `validate_only` nothing is changed. `permit` is for altering the configuration of
    /// the resource.
    pub async fn alter_configs<E: From<ChangeError>>(
        &self,
        permit: &Permit,
        resource: &ConfigResource,
        validate_only: bool,
        alter: impl Fn(&Settings, Layers<'_>) -> Result<Settings, E> + Send,
    ) -> Result<(), E> {
        assert!(permit.operation() == Operation::AlterConfigs);
        // On this node one after the other, so that nobody has to try again.
        let _alone = self.altering.lock().await;
        for _ in 0..ATTEMPTS {
            let present = self.overrides(resource);
            let altered = self.with_layers(|layers| alter(&present, layers))?;
            let changes = differences(resource, &present, &altered);
            if validate_only || changes.is_empty() {
                return Ok(());
            }
            let expected = vec![(resource.clone(), present.into_iter().collect())];
            match self.propose(Command::AlterExpectedConfigs { expected, changes }).await {
                Ok(_) => return Ok(()),
                Err(ChangeError::Rejected(Reject::ConfigsChanged)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ChangeError::Rejected(Reject::ConfigsChanged).into())
    }

    /// All of the changes or none; checked already. `permit` is for altering the configuration of the cluster.
    pub async fn alter_client_quotas(&self, permit: &Permit, changes: Vec<QuotaChange>) -> Result<(), ChangeError> {
        assert!(permit.covers(Operation::AlterConfigs, Resource::CLUSTER));
        self.propose(Command::AlterClientQuotas { changes }).await.map(drop)
    }

    /// What the settings of a group amount to, whether it exists or not.
    pub fn group_settings(&self, group: &str) -> GroupSettings {
        let own = self.overrides(&ConfigResource::Group(group.to_owned()));
        self.with_layers(|layers| GroupSettings::resolve(&own, layers))
    }
}

fn differences(resource: &ConfigResource, before: &Settings, after: &Settings) -> Vec<ConfigChange> {
    let change =
        |name: &String, value: Option<String>| ConfigChange { resource: resource.clone(), name: name.clone(), value };
    let removed = before.keys().filter(|name| !after.contains_key(*name)).map(|name| change(name, None));
    let set = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    removed.chain(set.map(|(name, value)| change(name, Some(value.clone())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_proposed() {
        let own = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let (before, after) = (own(&[("a", "1"), ("b", "2"), ("c", "3")]), own(&[("a", "1"), ("b", "4"), ("d", "5")]));
        let changes: Vec<_> = differences(&ConfigResource::Cluster, &before, &after)
            .into_iter()
            .map(|change| (change.name, change.value))
            .collect();
        let expected = [("c", None), ("b", Some("4")), ("d", Some("5"))];
        assert_eq!(changes, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }
}
