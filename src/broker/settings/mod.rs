//! The Kafka settings that Casemate knows, in one table: name, type, default, what it changes here.
//!
//! Whoever shows, checks or obeys a setting reads this table, so the three cannot disagree. Names, types, defaults
//! and bounds are those of Apache Kafka 4.3; where a bound is narrower it is one of `base::limits`. A setting that
//! changes nothing here says so in its documentation, and a value that cannot be honoured is refused, never ignored.

mod broker_table;
mod check;
mod describe;
mod group_table;
mod kind;
mod layers;
mod resolve;
mod resources;
mod topic_table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use check::{SettingError, check_fixed, refused_by_family, validate_broker, validate_topic, validate_topic_set};
pub use describe::{ConfigRow, SynonymRow, describe_broker, describe_cluster, describe_topic};
pub use kind::{Kind, elements};
pub use layers::{Layers, Source};
pub use resolve::{BrokerSettings, CleanerSettings, CleanupPolicy, CompactionSettings, Recompression, TopicSettings};
pub use resources::{
    GroupSettings, MATCH_PROPERTIES, MetricsSubscription, PUSH_INTERVAL_MS, ResourceError, describe_client_metrics,
    describe_group, validate_group, validate_threads,
};

/// One setting of a topic or of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// None is Kafka's null: another setting decides.
    pub default: Option<&'static str>,
    /// One sentence on what it sets.
    pub doc: &'static str,
    pub effect: Effect,
    /// Only for settings of a broker.
    pub update: Update,
    /// Broker settings that give a topic its default, the strongest first. Only for settings of a topic.
    pub synonyms: &'static [Synonym],
    /// Values that Kafka admits and Casemate refuses, each with the reason.
    pub unsupported: &'static [(&'static str, &'static str)],
    /// A rule beyond the bounds of the type.
    pub rule: Option<Rule>,
}

/// A check of a canonical value; the error is the reason.
pub type Rule = fn(&str) -> Result<(), String>;

/// A broker setting that stands behind a topic setting.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    pub name: &'static str,
    /// What one unit of it is in units of the topic setting: `log.retention.hours` counts 3,600,000 ms.
    pub factor: i64,
}

/// What becomes of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is obeyed.
    Enforced,
    /// It is stored and shown and changes nothing, for this reason.
    WithoutEffect(&'static str),
    /// It is shown, and follows from Casemate's own settings, named here; it cannot be set itself.
    Derived(&'static str),
    /// It is a setting of Kafka that is not here, for this reason; it is not shown.
    Refused(&'static str),
}

/// How a broker setting may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// In the configuration file only.
    ReadOnly,
    /// By IncrementalAlterConfigs, for one broker or for all.
    Dynamic,
}

impl Setting {
    const fn new(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> Setting {
        Setting {
            name,
            kind,
            default,
            doc,
            effect: Effect::Enforced,
            update: Update::ReadOnly,
            synonyms: &[],
            unsupported: &[],
            rule: None,
        }
    }

    const fn behind(mut self, synonyms: &'static [Synonym]) -> Setting {
        self.synonyms = synonyms;
        self
    }

    const fn dynamic(mut self) -> Setting {
        self.update = Update::Dynamic;
        self
    }

    const fn without_effect(mut self, reason: &'static str) -> Setting {
        self.effect = Effect::WithoutEffect(reason);
        self
    }

    const fn derived(mut self, from: &'static str) -> Setting {
        self.effect = Effect::Derived(from);
        self
    }

    const fn unsupported(mut self, values: &'static [(&'static str, &'static str)]) -> Setting {
        self.unsupported = values;
        self
    }

    const fn rule(mut self, rule: Rule) -> Setting {
        self.rule = Some(rule);
        self
    }

    /// The documentation as DescribeConfigs gives it: the sentence, and what the setting does not do.
    pub fn documentation(&self) -> String {
        match self.effect {
            Effect::Enforced => self.doc.to_owned(),
            Effect::WithoutEffect(reason) => format!("{} Accepted without effect: {reason}.", self.doc),
            Effect::Derived(from) => format!("{} Follows from {from}.", self.doc),
            Effect::Refused(reason) => format!("{} Not settable: {reason}.", self.doc),
        }
    }
}

/// Settings of a topic, by name.
static TOPIC: LazyLock<BTreeMap<&'static str, &'static Setting>> =
    LazyLock::new(|| topic_table::TOPIC.iter().map(|setting| (setting.name, setting)).collect());

/// Settings of a broker, by name: those of its own, and those that are defaults of its topics.
static BROKER: LazyLock<BTreeMap<&'static str, Setting>> = LazyLock::new(|| {
    let own = broker_table::SERVER.iter().chain(broker_table::COORDINATORS).chain(broker_table::LOG);
    let own = own.chain(group_table::BEHIND);
    let mut table: BTreeMap<_, _> = own.map(|setting| (setting.name, *setting)).collect();
    for topic in topic_table::TOPIC {
        if let [first, rest @ ..] = topic.synonyms {
            // Where several settings stand behind one, the strongest is null unless set.
            let default = if rest.is_empty() { topic.default } else { None };
            table.entry(first.name).or_insert(Setting {
                name: first.name,
                default,
                update: Update::Dynamic,
                synonyms: &[],
                rule: if first.name == "log.retention.ms" { Some(check::not_zero) } else { topic.rule },
                ..*topic
            });
        }
    }
    table
});

/// Settings of a group, by name.
static GROUP: LazyLock<BTreeMap<&'static str, &'static Setting>> =
    LazyLock::new(|| group_table::GROUP.iter().map(|setting| (setting.name, setting)).collect());

/// The setting of that name that a group can have.
pub fn group(name: &str) -> Option<&'static Setting> {
    GROUP.get(name).copied()
}

/// All settings of a group, in the order of their names.
pub fn groups() -> impl Iterator<Item = &'static Setting> {
    GROUP.values().copied()
}

/// The topic setting of that name.
pub fn topic(name: &str) -> Option<&'static Setting> {
    TOPIC.get(name).copied()
}

/// The broker setting of that name.
pub fn broker(name: &str) -> Option<&'static Setting> {
    BROKER.get(name)
}

/// All topic settings, in the order of their names.
pub fn topics() -> impl Iterator<Item = &'static Setting> {
    TOPIC.values().copied()
}

/// All broker settings, in the order of their names.
pub fn brokers() -> impl Iterator<Item = &'static Setting> {
    BROKER.values()
}

#[cfg(test)]
mod tests;
