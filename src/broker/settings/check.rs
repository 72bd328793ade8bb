//! Decides whether a value may be set.
//!
//! Which error code a refusal becomes is the handler's business; the wording here is Kafka's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::layers::Found;
use super::{Effect, Kind, Setting, Update, broker, elements, topic};
use crate::security::{Principal, PrincipalRules};

/// Why a setting cannot be given a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("Unknown topic config name: {name}")]
    Unknown { name: String },
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    /// Kafka could; Casemate cannot, or not yet.
    #[error("Unsupported value {value} for configuration {name}: {reason}")]
    Unsupported { name: String, value: String, reason: &'static str },
    /// It is changed in the configuration file, and not while the broker runs.
    #[error("Cannot update these configs dynamically: [{name}]")]
    ReadOnly { name: String },
}

impl Setting {
    /// The value in its canonical form, which is what is obeyed and shown.
    pub(super) fn admit(&self, value: &str) -> Result<String, SettingError> {
        let name = || self.name.to_owned();
        let shown = if self.kind.is_secret() { "[hidden]" } else { value };
        let invalid = |value: String, reason| SettingError::Invalid { name: name(), value, reason };
        let canonical = self.kind.canonical(value).map_err(|reason| invalid(shown.to_owned(), reason))?;
        let parts = if self.kind.is_list() { elements(&canonical) } else { vec![canonical.as_str()] };
        self.rule.map_or(Ok(()), |rule| rule(&canonical)).map_err(|reason| match self.kind.is_list() {
            // Kafka's own wording for the lists of replicas.
            true => invalid(format!("[{}]", parts.join(", ")), format!("{} {reason}", self.name)),
            false => invalid(shown.to_owned(), reason),
        })?;
        let refused = self.unsupported.iter().find(|(unsupported, _)| parts.contains(unsupported));
        if let Some((_, reason)) = refused {
            return Err(SettingError::Unsupported { name: name(), value: shown.to_owned(), reason });
        }
        Ok(canonical)
    }

    /// What a stored value is in units of this setting; None where it is no value at all. What is stored was checked
    /// when it was set, but perhaps by a release with other bounds.
    pub(super) fn converted(&self, found: Found) -> Option<String> {
        if found.factor == 1 {
            return self.kind.canonical(found.value).ok();
        }
        let count: i64 = found.value.trim().parse().ok()?;
        // A negative number of hours is "without limit", as a negative number of milliseconds is.
        let units = if count < 0 { -1 } else { count.saturating_mul(found.factor) };
        Some(units.to_string())
    }
}

/// Checks one topic setting.
pub fn validate_topic(name: &str, value: &str) -> Result<(), SettingError> {
    let setting = topic(name).ok_or_else(|| SettingError::Unknown { name: name.to_owned() })?;
    setting.admit(value).map(drop)
}

/// Checks the settings of one topic together: each by itself, and those that bound one another.
pub fn validate_topic_set(own: &BTreeMap<String, String>) -> Result<(), SettingError> {
    own.iter().try_for_each(|(name, value)| validate_topic(name, value))?;
    let number = |name: &str| own.get(name).and_then(|value| value.trim().parse::<i64>().ok());
    let least = number("min.compaction.lag.ms").unwrap_or(0);
    let most = number("max.compaction.lag.ms").unwrap_or(i64::MAX);
    if least > most {
        return Err(SettingError::Invalid {
            name: "min.compaction.lag.ms".to_owned(),
            value: least.to_string(),
            reason: format!(
                "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
            ),
        });
    }
    Ok(())
}

/// `T` (topics) or `B` (brokers), name, type, default: what Apache Kafka 4.3.1 itself defines, one setting a line.
pub(super) const KAFKA: &str = include_str!("kafka-4.3.1.txt");

/// Whether a broker of Kafka has a setting of this name, known here or not.
fn is_of_kafka(name: &str) -> bool {
    KAFKA.lines().any(|line| line.strip_prefix("B|").and_then(|rest| rest.split('|').next()) == Some(name))
}

/// Limits that cannot become zero while the broker runs.
const CONNECTION_LIMITS: [&str; 3] = ["max.connections", "max.connections.per.ip", "max.connection.creation.rate"];

/// Checks a broker setting that is to change while the broker runs. As in Kafka a name that is not known is
/// accepted; it is kept, and shown as a secret.
pub fn validate_broker(name: &str, value: &str) -> Result<(), SettingError> {
    match broker(name) {
        Some(setting) if setting.update == Update::ReadOnly => Err(SettingError::ReadOnly { name: name.to_owned() }),
        // In the file none at all may be allowed; a running broker would shut everybody out.
        Some(setting) if CONNECTION_LIMITS.contains(&name) && setting.admit(value)? == "0" => {
            let (name, value) = (name.to_owned(), value.to_owned());
            Err(SettingError::Invalid { name, value, reason: "Value must be at least 1".to_owned() })
        }
        Some(setting) => setting.admit(value).map(drop),
        None if refused_by_family(name).is_some() || is_of_kafka(name) => {
            Err(SettingError::ReadOnly { name: name.to_owned() })
        }
        None => Ok(()),
    }
}

/// Checks a broker setting of the configuration file, and gives the value in its canonical form. An error is worded
/// for the person who wrote the file: what is wrong, then what to do.
pub fn check_fixed(name: &str, value: &str) -> Result<String, String> {
    let Some(setting) = broker(name) else {
        return Err(match (refused_by_family(name), topic(name).and_then(|topic| topic.synonyms.first())) {
            (Some(reason), _) => format!("this setting of Kafka is not here: {reason}"),
            (None, Some(synonym)) => {
                format!("it is a setting of a topic: its default for all topics is \"{}\"", synonym.name)
            }
            (None, None) => "no such Kafka setting".to_owned(),
        });
    };
    match setting.effect {
        Effect::Derived(from) => return Err(format!("it follows from {from}: change that instead")),
        Effect::Refused(reason) => return Err(format!("this setting of Kafka is not here: {reason}")),
        Effect::Enforced | Effect::WithoutEffect(_) => {}
    }
    setting.admit(value).map_err(|error| match error {
        SettingError::Invalid { reason, .. } => reason,
        SettingError::Unsupported { reason, .. } => reason.to_owned(),
        other => other.to_string(),
    })
}

/// Why a whole family of Kafka's settings is not here; None where the name is of no such family.
pub fn refused_by_family(name: &str) -> Option<&'static str> {
    const FAMILIES: &[(&str, &str)] = &[
        ("zookeeper.", "metadata are kept by Casemate's own quorum, remove it"),
        ("controller.quorum.", "the quorum is made by `casemate init`, remove it"),
        ("ssl.", "TLS is set in [tls] by PEM files and is always mutual TLS 1.3"),
        ("sasl.", "clients are known by their certificates, remove it"),
        ("listener.name.", "listeners are set in [listeners]"),
        ("remote.log.", "all data move to object storage, which is set in [objects]"),
        ("authorizer.", "no classes are loaded; authorization is built in, remove it"),
    ];
    FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// The rule of `compression.gzip.level`: a level, or −1 for the codec's own default.
pub(super) fn gzip_level(value: &str) -> Result<(), String> {
    if value == "0" { Err("Value must be between 1 and 9 or equal to -1".to_owned()) } else { Ok(()) }
}

/// The rule of `log.retention.ms`, though not of a topic's own: records are kept for some time.
pub(super) fn not_zero(value: &str) -> Result<(), String> {
    if value == "0" { Err("must be unlimited (-1) or, equal or greater than 1".to_owned()) } else { Ok(()) }
}

/// The rule of lists whose elements say something.
pub(super) fn no_empty_element(value: &str) -> Result<(), String> {
    if elements(value).contains(&"") { Err("values must not be empty".to_owned()) } else { Ok(()) }
}

/// The rule of the lists of throttled replicas: `*`, or pairs of partition and broker.
pub(super) fn throttled_replicas(value: &str) -> Result<(), String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // As in Kafka an element may be empty.
    let pair = |text: &&str| {
        text.is_empty() || text.split_once(':').is_some_and(|(partition, node)| number(partition) && number(node))
    };
    if value == "*" || elements(value).iter().all(pair) {
        Ok(())
    } else {
        Err("must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            .to_owned())
    }
}

/// The rule of `max.connections.per.ip.overrides`: addresses, each with its number. Names are refused: nothing is
/// looked up.
pub(super) fn per_ip_overrides(value: &str) -> Result<(), String> {
    elements(value).into_iter().filter(|element| !element.is_empty()).try_for_each(|element| {
        match ip_override(element) {
            Some(_) => Ok(()),
            None => Err(format!("{element} is not ADDRESS:NUMBER")),
        }
    })
}

/// The rule of `log.cleaner.dedupe.buffer.size`: Kafka's least size for its one thread.
pub(super) fn dedupe_buffer(value: &str) -> Result<(), String> {
    match value.parse::<i64>() {
        Ok(bytes) if bytes > 1024 * 1024 => Ok(()),
        _ => Err("must be more than 1 MiB".to_owned()),
    }
}

/// The rule of `log.cleaner.io.buffer.load.factor`.
pub(super) fn load_factor(value: &str) -> Result<(), String> {
    match value.trim_end_matches(['f', 'F', 'd', 'D']).parse::<f64>() {
        Ok(share) if (0.01..=0.99).contains(&share) => Ok(()),
        _ => Err("must lie between 0.01 and 0.99".to_owned()),
    }
}

/// The rule of `group.consumer.assignors`: those that come with Kafka; no others can be loaded.
pub(super) fn assignors(value: &str) -> Result<(), String> {
    let named = elements(value);
    match named.iter().find(|name| !["uniform", "range"].contains(name)) {
        None if !named.is_empty() => Ok(()),
        None | Some(&"") => Err("at least one assignor has to be named: uniform, range, or both".to_owned()),
        Some(name) => Err(format!("there is no assignor {name}: name uniform, range, or both")),
    }
}

/// The rule of `group.consumer.migration.policy`, whose names ignore case.
pub(super) fn migration_policy(value: &str) -> Result<(), String> {
    let names = ["bidirectional", "upgrade", "downgrade", "disabled"];
    match names.iter().any(|name| name.eq_ignore_ascii_case(value)) {
        true => Ok(()),
        false => Err(format!("String must be one of (case insensitive): {}", names.join(", ").to_ascii_uppercase())),
    }
}

/// The rule of `group.coordinator.rebalance.protocols`: a value that would switch off what is always on is refused.
pub(super) fn offered_protocols(value: &str) -> Result<(), String> {
    let named = elements(value);
    match ["classic", "consumer"].iter().all(|name| named.contains(name)) {
        true => Ok(()),
        false => Err("classic and consumer groups are always offered: name both".to_owned()),
    }
}

/// One element of `max.connections.per.ip.overrides`.
pub(super) fn ip_override(element: &str) -> Option<(IpAddr, usize)> {
    let count = Kind::Int { min: 0, max: i32::MAX };
    // The last colon: an IPv6 address has its own.
    let (address, number) = element.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some((address, count.canonical(number).ok()?.parse().ok()?))
}

/// The rule of `super.users`: principals separated by semicolons.
pub(super) fn principals(value: &str) -> Result<(), String> {
    Principal::parse_list(value).map(drop).map_err(|error| error.to_string())
}

/// The rule of `ssl.principal.mapping.rules`.
pub(super) fn principal_rules(value: &str) -> Result<(), String> {
    PrincipalRules::parse(value).map(drop).map_err(|error| error.to_string())
}
