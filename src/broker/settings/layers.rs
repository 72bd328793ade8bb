//! Where a value comes from: the layers in which Kafka looks for it, the strongest first.

use std::collections::BTreeMap;

use super::{Setting, Synonym, broker};

/// The layer that a value comes from, by its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    /// Set for one broker by IncrementalAlterConfigs.
    DynamicBroker = 2,
    /// Set for all brokers by IncrementalAlterConfigs.
    DynamicDefaultBroker = 3,
    /// The broker's configuration file, environment and command line.
    StaticBroker = 4,
    Default = 5,
    ClientMetrics = 7,
    Group = 8,
}

/// The values of one broker, layer by layer.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set for this broker in the metadata.
    pub broker: &'a BTreeMap<String, String>,
    /// Set for all brokers in the metadata.
    pub cluster: &'a BTreeMap<String, String>,
    /// Set in this broker's own configuration.
    pub fixed: &'a BTreeMap<String, String>,
}

/// A value as it was set, with its layer and the name that it was set under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub name: &'a str,
    pub value: &'a str,
    pub source: Source,
    /// What one unit is in units of the setting asked for.
    pub factor: i64,
}

impl<'a> Layers<'a> {
    /// Every layer's value of one broker setting, without the default.
    pub(super) fn of(&self, name: &'static str, factor: i64) -> impl Iterator<Item = Found<'a>> + use<'a> {
        [
            (self.broker, Source::DynamicBroker),
            (self.cluster, Source::DynamicDefaultBroker),
            (self.fixed, Source::StaticBroker),
        ]
        .into_iter()
        .filter_map(move |(layer, source)| layer.get(name).map(|value| Found { name, value, source, factor }))
    }

    /// Everything that is set for a broker setting, the strongest first, the default last.
    pub(super) fn broker_values(&self, setting: &'static Setting) -> Vec<Found<'a>> {
        let mut found: Vec<_> = self.of(setting.name, 1).collect();
        found.extend(default_of(setting, 1));
        found
    }

    /// What Kafka shows for a broker setting, the strongest first: everything that is set for it and for those that stand
    /// in for it, layer by layer, from the first that has its own name on.
    pub(super) fn broker_synonyms(&self, setting: &'static Setting) -> Vec<Found<'a>> {
        let family = super::topics()
            .map(|topic| topic.synonyms)
            .find(|synonyms| synonyms.len() > 1 && synonyms.iter().any(|synonym| synonym.name == setting.name));
        match family {
            Some(family) => self.layer_by_layer(family, setting.name),
            None => self.broker_values(setting),
        }
    }

    /// What Kafka shows for a topic setting, the strongest first.
    pub(super) fn topic_synonyms(
        &self,
        setting: &'static Setting,
        own: &'a BTreeMap<String, String>,
    ) -> Vec<Found<'a>> {
        let own =
            own.get(setting.name).map(|value| Found { name: setting.name, value, source: Source::Topic, factor: 1 });
        let mut found: Vec<_> = own.into_iter().collect();
        if let Some(first) = setting.synonyms.first() {
            found.extend(self.layer_by_layer(setting.synonyms, first.name));
        }
        found
    }

    fn layer_by_layer(&self, family: &'static [Synonym], from: &str) -> Vec<Found<'a>> {
        let mut found: Vec<_> = family.iter().flat_map(|synonym| self.of(synonym.name, synonym.factor)).collect();
        found.sort_by_key(|found| found.source);
        let defaults = family.iter().filter_map(|s| broker(s.name).and_then(|behind| default_of(behind, s.factor)));
        found.extend(defaults);
        found.into_iter().skip_while(|found| found.name != from).collect()
    }

    /// Everything that is set for a topic setting: the topic's own, then that of the broker settings behind it.
    pub(super) fn topic_values(&self, setting: &'static Setting, own: &'a BTreeMap<String, String>) -> Vec<Found<'a>> {
        self.values_behind(setting, own, Source::Topic)
    }

    /// Everything that is set for a setting of a group: the group's own, then that of the broker setting behind it.
    /// As in Kafka one without a broker setting behind it names its own default.
    pub(super) fn group_values(&self, setting: &'static Setting, own: &'a BTreeMap<String, String>) -> Vec<Found<'a>> {
        let mut found = self.values_behind(setting, own, Source::Group);
        if setting.synonyms.is_empty() {
            found.extend(default_of(setting, 1));
        }
        found
    }

    fn values_behind(
        &self,
        setting: &'static Setting,
        own: &'a BTreeMap<String, String>,
        source: Source,
    ) -> Vec<Found<'a>> {
        let own = own.get(setting.name).map(|value| Found { name: setting.name, value, source, factor: 1 });
        let mut found: Vec<_> = own.into_iter().collect();
        for synonym in setting.synonyms {
            found.extend(self.of(synonym.name, synonym.factor));
        }
        // Kafka names the default only by the first synonym, which is null where several stand behind the setting.
        if let Some(first) = setting.synonyms.first() {
            found.extend(broker(first.name).and_then(|behind| default_of(behind, first.factor)));
        }
        found
    }
}

fn default_of(setting: &'static Setting, factor: i64) -> Option<Found<'static>> {
    setting.default.map(|value| Found { name: setting.name, value, source: Source::Default, factor })
}
