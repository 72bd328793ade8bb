//! The configuration as text: TOML that can be used as a file again, or JSON.

use std::collections::BTreeMap;

use super::options::Scalar;
use super::{ConfigError, Options};
use crate::broker::settings::{self, Effect, Kind};

pub(super) fn toml(options: &Options) -> Result<String, ConfigError> {
    ::toml::to_string(options).map_err(|error| ConfigError::Show(error.to_string()))
}

pub(super) fn json(options: &Options) -> Result<String, ConfigError> {
    serde_json::to_string_pretty(options).map_err(|error| ConfigError::Show(error.to_string()))
}

/// The file that `casemate init` writes: what differs from the defaults, Kafka's settings last.
pub(super) fn initial(options: &Options) -> Result<String, ConfigError> {
    let failed = |error: ::toml::ser::Error| ConfigError::Show(error.to_string());
    let defaults = ::toml::Table::try_from(Options::default()).map_err(failed)?;
    let mut own = ::toml::Table::new();
    for (key, value) in ::toml::Table::try_from(options).map_err(failed)? {
        match (value, defaults.get(&key)) {
            (value, default) if default == Some(&value) || key == "kafka" => {}
            (::toml::Value::Table(mut section), Some(::toml::Value::Table(default))) => {
                section.retain(|name, value| default.get(name) != Some(value));
                own.insert(key, ::toml::Value::Table(section));
            }
            (value, _) => drop(own.insert(key, value)),
        }
    }
    let own = ::toml::to_string(&own).map_err(failed)?;
    let kafka = ::toml::to_string(&options.kafka).map_err(failed)?;
    Ok(format!(
        "# Made by `casemate init`. Everything that is not here has its default; config.example.toml explains all options,\n\
         # and `casemate config show --config FILE` prints what is in force.\n{own}\n[kafka]\n{kafka}"
    ))
}

/// Kafka's settings that are set or obeyed, with the defaults of the latter.
pub(super) fn in_force(kafka: &BTreeMap<String, String>) -> BTreeMap<String, Scalar> {
    let obeyed = settings::brokers().filter(|setting| setting.effect == Effect::Enforced);
    let defaults = obeyed.filter_map(|setting| Some((setting.name.to_owned(), setting.default?.to_owned())));
    let mut all: BTreeMap<String, String> = defaults.collect();
    all.extend(kafka.clone());
    typed(&all)
}

/// Kafka's settings, numbers as numbers.
pub(super) fn typed(kafka: &BTreeMap<String, String>) -> BTreeMap<String, Scalar> {
    kafka.iter().map(|(name, text)| (name.clone(), scalar(name, text))).collect()
}

fn scalar(name: &str, text: &str) -> Scalar {
    let typed = match settings::broker(name).map(|setting| setting.kind) {
        Some(Kind::Boolean) => text.parse().ok().map(Scalar::Bool),
        Some(Kind::Short { .. } | Kind::Int { .. } | Kind::Long { .. }) => text.parse().ok().map(Scalar::Int),
        _ => None,
    };
    typed.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}
