//! Settings as DescribeConfigs shows them: value, where it comes from, and everything it overrides.
//!
//! Never shows a secret, nor the value of a setting that Casemate does not know: it may be one.

use std::collections::BTreeMap;

use super::layers::Found;
use super::{Effect, Layers, Setting, Source, Update, broker, brokers, topics};

/// Settings that a Kafka broker has only while somebody has set them.
const SHOWN_WHERE_SET: [&str; 3] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// One setting with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRow {
    pub name: String,
    /// None where it is null or secret.
    pub value: Option<String>,
    pub read_only: bool,
    pub source: Source,
    pub sensitive: bool,
    /// The strongest first.
    pub synonyms: Vec<SynonymRow>,
    /// Number of the type in DescribeConfigs; 0 for a setting that is not known.
    pub wire_type: i8,
    pub documentation: Option<String>,
}

/// One of the values that stand behind a row, as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynonymRow {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// The settings of one topic that `wanted` names.
pub fn describe_topic(own: &BTreeMap<String, String>, layers: Layers, wanted: impl Fn(&str) -> bool) -> Vec<ConfigRow> {
    let shown = topics().filter(|setting| wanted(setting.name));
    let one = |setting| row(setting, &layers.topic_values(setting, own), &layers.topic_synonyms(setting, own), false);
    shown.map(one).collect()
}

/// The settings of one broker that `wanted` names, with those that were set and are not known.
pub fn describe_broker(layers: Layers, wanted: impl Fn(&str) -> bool) -> Vec<ConfigRow> {
    let mut rows = Vec::new();
    for setting in brokers().filter(|setting| wanted(setting.name)) {
        if !matches!(setting.effect, Effect::Refused(_)) {
            let (values, synonyms) = (layers.broker_values(setting), layers.broker_synonyms(setting));
            if values.is_empty() && SHOWN_WHERE_SET.contains(&setting.name) {
                continue;
            }
            rows.push(row(setting, &values, &synonyms, setting.update == Update::ReadOnly));
        }
    }
    rows.extend(unknown(layers.broker, Source::DynamicBroker, &wanted));
    rows.extend(
        unknown(layers.cluster, Source::DynamicDefaultBroker, &wanted)
            .filter(|row| !layers.broker.contains_key(&row.name)),
    );
    rows
}

/// What is set for all brokers, of the settings that `wanted` names.
pub fn describe_cluster(cluster: &BTreeMap<String, String>, wanted: impl Fn(&str) -> bool) -> Vec<ConfigRow> {
    let source = Source::DynamicDefaultBroker;
    let known = cluster.iter().filter(|(name, _)| wanted(name)).filter_map(|(name, value)| {
        let setting = broker(name)?;
        let found = [Found { name: setting.name, value, source, factor: 1 }];
        Some(row(setting, &found, &found, false))
    });
    known.chain(unknown(cluster, source, &wanted)).collect()
}

/// `values` are what is obeyed, the strongest first; `synonyms` what is shown of where it comes from.
pub(super) fn row(setting: &'static Setting, values: &[Found], synonyms: &[Found], read_only: bool) -> ConfigRow {
    let sensitive = setting.kind.is_secret();
    let effective = values.iter().find_map(|found| setting.converted(*found));
    let value = effective.or_else(|| setting.default.map(str::to_owned));
    ConfigRow {
        name: setting.name.to_owned(),
        value: value.filter(|_| !sensitive),
        read_only,
        source: synonyms.first().map_or(Source::Default, |found| found.source),
        sensitive,
        synonyms: synonyms.iter().map(|found| synonym(found, sensitive)).collect(),
        wire_type: setting.kind.wire_type(),
        documentation: Some(setting.documentation()),
    }
}

fn synonym(found: &Found, sensitive: bool) -> SynonymRow {
    let value = Some(found.value.to_owned()).filter(|_| !sensitive);
    SynonymRow { name: found.name.to_owned(), value, source: found.source }
}

fn unknown(
    layer: &BTreeMap<String, String>,
    source: Source,
    wanted: &impl Fn(&str) -> bool,
) -> impl Iterator<Item = ConfigRow> {
    layer.keys().filter(move |name| wanted(name) && broker(name).is_none()).map(move |name| ConfigRow {
        name: name.clone(),
        value: None,
        read_only: false,
        source,
        sensitive: true,
        synonyms: vec![SynonymRow { name: name.clone(), value: None, source }],
        wire_type: 0,
        documentation: None,
    })
}
