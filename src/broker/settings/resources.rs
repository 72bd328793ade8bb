//! The settings of groups and of subscriptions to clients' metrics: which there are, which values they take, how they
//! are shown.
//!
//! The words and the numbers of errors are Kafka's: what a real one refuses by another number has another variant.

use std::collections::BTreeMap;

use crate::security::WholePattern;

use super::check::{SettingError, no_empty_element};
use super::describe::{ConfigRow, row};
use super::layers::{Found, Source};
use super::{Kind, Layers, Setting, broker, elements, group, group_table, groups};

/// Why a group or a subscription cannot have a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    #[error("Unknown group config name: {0}")]
    UnknownOfGroup(String),
    #[error("Unknown client metrics configuration: {0}")]
    UnknownOfMetrics(String),
    #[error(transparent)]
    Value(#[from] SettingError),
    #[error("{name} must be {than} {other}")]
    Bound { name: &'static str, than: &'static str, other: String },
    #[error(
        "Dynamic thread count update validation failed for {name}={value}: between half and double of {now} are possible"
    )]
    Threads { name: String, value: i64, now: i64 },
    #[error("Invalid value {0} for interval.ms, interval must be between 100 and 3600000 (1 hour)")]
    Interval(i64),
    #[error("Illegal client matching pattern: {0}")]
    Pattern(String),
}

/// What the settings of a consumer group amount to, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    pub consumer_session_timeout_ms: i32,
    pub consumer_heartbeat_interval_ms: i32,
    pub consumer_assignment_interval_ms: i32,
}

impl GroupSettings {
    /// `own` is what is set for the group itself.
    pub fn resolve(own: &BTreeMap<String, String>, layers: Layers) -> GroupSettings {
        let value = |name: &str| {
            let number = group(name).and_then(|setting| number(setting, own, layers)).unwrap_or(0);
            i32::try_from(number).unwrap_or(i32::MAX)
        };
        GroupSettings {
            consumer_session_timeout_ms: value("consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: value("consumer.heartbeat.interval.ms"),
            consumer_assignment_interval_ms: value("consumer.assignment.interval.ms"),
        }
    }
}

fn number(setting: &'static Setting, own: &BTreeMap<String, String>, layers: Layers) -> Option<i64> {
    let found = layers.group_values(setting, own);
    let value = found.into_iter().find_map(|found| setting.converted(found));
    value.as_deref().or(setting.default)?.parse().ok()
}

fn broker_number(name: &str, layers: Layers) -> Option<i64> {
    let setting = broker(name)?;
    let value = layers.broker_values(setting).into_iter().find_map(|found| setting.converted(found));
    value.as_deref().or(setting.default)?.parse().ok()
}

/// Numbers of threads that a running broker changes by degrees.
const THREADS: [&str; 6] = [
    "background.threads",
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
];

/// Checks that a number of threads is at most halved or doubled, as in Kafka; other settings of a broker pass.
pub fn validate_threads(name: &str, value: &str, layers: Layers) -> Result<(), ResourceError> {
    let (Some(now), Ok(new)) = (broker_number(name, layers), value.trim().parse::<i64>()) else { return Ok(()) };
    if !THREADS.contains(&name) || (new >= 1 && (now / 2..=now * 2).contains(&new)) {
        return Ok(());
    }
    Err(ResourceError::Threads { name: name.to_owned(), value: new, now })
}

/// Checks the settings of one group together. Those that are not set are those of the broker.
pub fn validate_group(own: &BTreeMap<String, String>, layers: Layers) -> Result<(), ResourceError> {
    for (name, value) in own {
        let setting = group(name).ok_or_else(|| ResourceError::UnknownOfGroup(name.clone()))?;
        setting.admit(value)?;
    }
    for setting in groups().filter(|setting| matches!(setting.kind, Kind::Int { .. })) {
        // What the broker's own configuration says is not the group's fault.
        let Some(value) = own.get(setting.name).and_then(|_| number(setting, own, layers)) else { continue };
        let (least, greatest) = group_table::bounds_of(setting.name);
        let out_of = |bound: Option<String>, than, wrong: &dyn Fn(i64) -> bool| match bound {
            Some(other) if broker_number(&other, layers).is_some_and(wrong) => {
                Err(ResourceError::Bound { name: setting.name, than, other })
            }
            _ => Ok(()),
        };
        out_of(least, "greater than or equal to", &|least| value < least)?;
        out_of(greatest, "less than or equal to", &|greatest| value > greatest)?;
    }
    for (session, heartbeat) in [
        ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
        ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
        ("streams.session.timeout.ms", "streams.heartbeat.interval.ms"),
    ] {
        let value = |name: &str| group(name).and_then(|setting| number(setting, own, layers));
        if (own.contains_key(session) || own.contains_key(heartbeat)) && value(session) <= value(heartbeat) {
            return Err(ResourceError::Bound { name: session, than: "greater than", other: heartbeat.to_owned() });
        }
    }
    Ok(())
}

/// The settings of one group that `wanted` names.
pub fn describe_group(own: &BTreeMap<String, String>, layers: Layers, wanted: impl Fn(&str) -> bool) -> Vec<ConfigRow> {
    let shown = groups().filter(|setting| wanted(setting.name));
    let one = |setting| {
        let values = layers.group_values(setting, own);
        row(setting, &values, &values, false)
    };
    shown.map(one).collect()
}

/// Milliseconds between two pushes where a subscription says nothing: five minutes.
pub const PUSH_INTERVAL_MS: i32 = 300_000;

/// The settings of a subscription (KIP-714).
static CLIENT_METRICS: [Setting; 3] = [
    Setting::new(
        "interval.ms",
        Kind::Int { min: i32::MIN, max: i32::MAX },
        Some("300000"),
        "Milliseconds between two pushes of a client's metrics.",
    ),
    Setting::new("match", Kind::Distinct, Some(""), "Which clients: names of their properties with patterns.")
        .rule(no_empty_element),
    Setting::new("metrics", Kind::Distinct, Some(""), "Beginnings of the names of metrics; * is all of them.")
        .rule(no_empty_element),
];

/// Properties of a client that a pattern of `match` may be about.
pub const MATCH_PROPERTIES: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// A subscription to clients' metrics, as its settings give it.
#[derive(Clone, Debug)]
pub struct MetricsSubscription {
    pub push_interval_ms: i32,
    /// In the order of the setting.
    pub metrics: Vec<String>,
    /// Property and pattern; a client must match all.
    pub matches: Vec<(&'static str, WholePattern)>,
}

impl MetricsSubscription {
    /// Reads and checks the settings of one subscription.
    pub fn parse(own: &BTreeMap<String, String>) -> Result<MetricsSubscription, ResourceError> {
        let mut subscription =
            MetricsSubscription { push_interval_ms: PUSH_INTERVAL_MS, metrics: Vec::new(), matches: Vec::new() };
        if let Some(unknown) = own.keys().find(|name| !CLIENT_METRICS.iter().any(|setting| setting.name == **name)) {
            return Err(ResourceError::UnknownOfMetrics(unknown.clone()));
        }
        for setting in &CLIENT_METRICS {
            let Some(value) = own.get(setting.name) else { continue };
            let value = setting.admit(value)?;
            match setting.name {
                "interval.ms" => subscription.push_interval_ms = interval(&value)?,
                "match" => subscription.matches = patterns(&value)?,
                _ => subscription.metrics = elements(&value).into_iter().map(str::to_owned).collect(),
            }
        }
        Ok(subscription)
    }
}

fn interval(value: &str) -> Result<i32, ResourceError> {
    match value.parse() {
        Ok(ms @ 100..=3_600_000) => Ok(ms),
        other => Err(ResourceError::Interval(other.map_or(0, i64::from))),
    }
}

fn patterns(value: &str) -> Result<Vec<(&'static str, WholePattern)>, ResourceError> {
    let pattern = |element: &str| {
        let illegal = || ResourceError::Pattern(element.to_owned());
        let (name, pattern) = element.split_once('=').ok_or_else(illegal)?;
        let property = MATCH_PROPERTIES.into_iter().find(|property| *property == name.trim()).ok_or_else(illegal)?;
        // Kafka splits at every sign and wants two parts.
        if pattern.is_empty() || pattern.contains('=') {
            return Err(illegal());
        }
        Ok((property, WholePattern::new(pattern.trim()).map_err(|_| illegal())?))
    };
    elements(value).into_iter().map(pattern).collect()
}

/// The settings of one subscription that `wanted` names.
pub fn describe_client_metrics(own: &BTreeMap<String, String>, wanted: impl Fn(&str) -> bool) -> Vec<ConfigRow> {
    let shown = CLIENT_METRICS.iter().filter(|setting| wanted(setting.name));
    let found = |setting: &Setting| {
        let value = own.get(setting.name)?;
        Some(Found { name: setting.name, value, source: Source::ClientMetrics, factor: 1 })
    };
    shown.map(|setting| row(setting, found(setting).as_slice(), found(setting).as_slice(), false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn group_fault(own: &[(&str, &str)], fixed: &[(&str, &str)]) -> String {
        let (empty, fixed) = (BTreeMap::new(), map(fixed));
        let layers = Layers { broker: &empty, cluster: &empty, fixed: &fixed };
        validate_group(&map(own), layers).map_or_else(|error| error.to_string(), |()| String::new())
    }

    /// Each as a real Kafka 4.3.1 answered.
    #[test]
    fn groups_are_bounded_by_the_broker() {
        const SESSION: &str = "consumer.session.timeout.ms";
        const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
        for (own, expected) in [
            (vec![(SESSION, "50000")], ""),
            (vec![("nope", "1")], "Unknown group config name: nope"),
            (
                vec![(SESSION, "x")],
                "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
            ),
            (
                vec![(SESSION, "0")],
                "Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1",
            ),
            (
                vec![(SESSION, "1000")],
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
            ),
            (
                vec![(SESSION, "61000")],
                "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
            ),
            (
                vec![(HEARTBEAT, "16000")],
                "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
            ),
            (
                vec![(HEARTBEAT, "4000")],
                "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms",
            ),
            (
                vec![
                    ("share.session.timeout.ms", "50000"),
                    ("streams.num.standby.replicas", "1"),
                    ("share.auto.offset.reset", "earliest"),
                ],
                "",
            ),
            (
                vec![("streams.num.standby.replicas", "3")],
                "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
            ),
        ] {
            assert_eq!(group_fault(&own, &[]), expected, "{own:?}");
        }
        let lower =
            [("group.consumer.min.session.timeout.ms", "1000"), ("group.consumer.min.heartbeat.interval.ms", "500")];
        assert_eq!(group_fault(&[(SESSION, "6000")], &lower), "");
        assert_eq!(
            group_fault(&[(SESSION, "5000")], &lower),
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        );
        for (value, good) in
            [("latest", true), ("by_duration:PT1H30M", true), ("by_duration:-PT1H", false), ("soon", false)]
        {
            assert_eq!(group_fault(&[("share.auto.offset.reset", value)], &[]).is_empty(), good, "{value}");
        }
    }

    #[test]
    fn every_bound_of_a_group_is_a_broker_setting() {
        for setting in groups().filter(|setting| matches!(setting.kind, Kind::Int { .. })) {
            let (least, greatest) = group_table::bounds_of(setting.name);
            for bound in [least, greatest].into_iter().flatten() {
                assert!(broker(&bound).is_some(), "{bound}");
            }
        }
    }

    #[test]
    fn a_group_has_its_own_settings_before_those_of_the_broker() {
        let (empty, fixed) = (BTreeMap::new(), map(&[("group.consumer.session.timeout.ms", "46000")]));
        let layers = Layers { broker: &empty, cluster: &empty, fixed: &fixed };
        let own = map(&[("consumer.heartbeat.interval.ms", "6000")]);
        let resolved = GroupSettings::resolve(&own, layers);
        let expected = GroupSettings {
            consumer_session_timeout_ms: 46_000,
            consumer_heartbeat_interval_ms: 6_000,
            consumer_assignment_interval_ms: 1_000,
        };
        assert_eq!(resolved, expected);
        let rows =
            describe_group(&own, layers, |name| name.starts_with("consumer.h") || name == "share.isolation.level");
        let shown: Vec<_> = rows
            .iter()
            .map(|row| {
                let synonyms: Vec<_> = row.synonyms.iter().map(|s| (s.name.as_str(), s.source as i8)).collect();
                (row.name.as_str(), row.value.as_deref().unwrap(), row.source as i8, synonyms)
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "consumer.heartbeat.interval.ms",
                    "6000",
                    8,
                    vec![("consumer.heartbeat.interval.ms", 8), ("group.consumer.heartbeat.interval.ms", 5)]
                ),
                ("share.isolation.level", "read_uncommitted", 5, vec![("share.isolation.level", 5)]),
            ]
        );
    }

    /// Each as a real Kafka 4.3.1 answered.
    #[test]
    fn subscriptions_are_read_as_kafka_reads_them() {
        for (name, value, expected) in [
            ("interval.ms", "100", ""),
            (
                "interval.ms",
                "99",
                "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
            ),
            (
                "interval.ms",
                "3600001",
                "Invalid value 3600001 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
            ),
            ("interval.ms", "x", "Invalid value x for configuration interval.ms: Not a number of type INT"),
            ("nope", "1", "Unknown client metrics configuration: nope"),
            ("match", "client_id=raw.*, client_software_name=.*", ""),
            ("match", "", ""),
            ("match", "nope=x", "Illegal client matching pattern: nope=x"),
            ("match", "client_id", "Illegal client matching pattern: client_id"),
            ("match", "client_id=", "Illegal client matching pattern: client_id="),
            ("match", "client_id=(", "Illegal client matching pattern: client_id=("),
            ("match", "client_id=a=b", "Illegal client matching pattern: client_id=a=b"),
            ("metrics", "a, b", ""),
            ("metrics", "", ""),
        ] {
            let result = MetricsSubscription::parse(&map(&[(name, value)]));
            assert_eq!(result.map_or_else(|error| error.to_string(), |_| String::new()), expected, "{name}={value}");
        }
        let own = map(&[("metrics", "a, b"), ("match", "client_id=x")]);
        let subscription = MetricsSubscription::parse(&own).unwrap();
        assert_eq!(
            (subscription.push_interval_ms, &subscription.metrics[..]),
            (300_000, &["a".to_owned(), "b".to_owned()][..])
        );
        assert!(subscription.matches[0].1.matches("x") && !subscription.matches[0].1.matches("xy"));
        let rows = describe_client_metrics(&own, |_| true);
        let shown: Vec<_> =
            rows.iter().map(|r| (r.name.as_str(), r.value.as_deref().unwrap(), r.source as i8)).collect();
        assert_eq!(shown, [("interval.ms", "300000", 5), ("match", "client_id=x", 7), ("metrics", "a,b", 7)]);
        assert!(rows[0].synonyms.is_empty() && rows[1].synonyms.len() == 1);
    }
}
