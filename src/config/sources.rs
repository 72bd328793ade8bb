//! The layers of the configuration: flags over environment over file over defaults, put together by figment.
//!
//! Every layer is checked by itself before it is merged: a key that no option has, or a value of another type, is
//! refused with its origin. The environment is passed in, never read here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Num, Value};

use super::suggest::nearest;
use super::{ConfigError, Options};
use crate::broker::settings;

/// Larger than any sensible file.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PREFIX: &str = "CASEMATE_";
/// Variables of that prefix that are no options: they are for tests and for tools beside the binary.
const RESERVED: [&str; 2] = ["CASEMATE_FAILPOINTS", "CASEMATE_TRIED"];
const RESERVED_PREFIXES: [&str; 2] = ["CASEMATE_TEST_", "CASEMATE_PEERS_"];
/// Names a bug for the tests to catch. Where none can be planted it is refused as any other name.
const PLANT: &str = "CASEMATE_PLANT";

/// Everything that configures a process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: PathBuf,
    /// Contents that stand for the file's, for one that is not written yet.
    pub text: Option<String>,
    /// Variables and their values; those without the prefix are ignored.
    pub environment: Vec<(String, String)>,
    /// `KEY=VALUE` of the command line, the later the stronger.
    pub sets: Vec<String>,
}

/// The options in force, and for each key that is set where its value comes from.
#[derive(Debug)]
pub(super) struct Merged {
    pub options: Options,
    pub origins: BTreeMap<String, String>,
}

/// One layer: values by section, and their origins.
struct Layer {
    values: Dict,
    origins: BTreeMap<String, String>,
}

/// Puts the layers together. Blocks on reading the file.
pub(super) fn merge(sources: &Sources) -> Result<Merged, ConfigError> {
    let known = Known::new()?;
    let layers = [
        file_layer(sources, &known)?,
        environment_layer(&sources.environment, &known)?,
        set_layer(&sources.sets, &known)?,
    ];
    let mut figment = Figment::from(Serialized::defaults(Options::default()));
    let mut origins = BTreeMap::new();
    for layer in layers {
        figment = figment.merge(Serialized::defaults(layer.values));
        origins.extend(layer.origins);
    }
    let options = figment.extract().map_err(|error| ConfigError::Merge(error.to_string()))?;
    Ok(Merged { options, origins })
}

/// The options that there are: their defaults, by dotted name. `[kafka]` is not among them.
struct Known(BTreeMap<String, Value>);

impl Known {
    fn new() -> Result<Known, ConfigError> {
        let defaults = Value::serialize(Options::default()).map_err(|error| ConfigError::Merge(error.to_string()))?;
        let mut known = BTreeMap::new();
        for (key, value) in defaults.into_dict().unwrap_or_default() {
            match value {
                Value::Dict(_, section) => {
                    known.extend(section.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
                value => drop(known.insert(key, value)),
            }
        }
        Ok(Known(known))
    }

    fn is_section(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.split_once('.').is_some_and(|(section, _)| section == name))
    }

    /// A value that a text stands for, of the option's type.
    fn read(&self, key: &str, text: &str) -> Result<Value, String> {
        match self.0.get(key) {
            Some(Value::Num(..)) => {
                text.trim().parse::<u64>().map(Value::from).map_err(|_| "a whole number is needed".to_owned())
            }
            _ => Ok(Value::from(text)),
        }
    }

    /// Checks a value of the file against the option's type.
    fn check(&self, key: &str, value: &Value) -> Result<(), String> {
        match (self.0.get(key), value) {
            (None, _) => Err(self.unknown(key)),
            (Some(Value::Num(..)), Value::Num(_, number)) => match whole(number) {
                Some(number) if number >= 0 => Ok(()),
                _ => Err("a whole number that is not negative is needed".to_owned()),
            },
            (Some(Value::Num(..)), _) => Err("a whole number is needed, without quotes".to_owned()),
            (Some(_), Value::String(..)) => Ok(()),
            (Some(_), _) => Err("a text in quotes is needed".to_owned()),
        }
    }

    fn unknown(&self, key: &str) -> String {
        let kafka = settings::brokers().map(|setting| setting.name);
        match nearest(key, self.0.keys().map(String::as_str).chain(kafka)) {
            Some(name) if settings::broker(name).is_some() => {
                format!("no such option: did you mean \"{name}\" in [kafka]?")
            }
            Some(name) => format!("no such option: did you mean {name}?"),
            None => "no such option: config.example.toml lists all, remove it".to_owned(),
        }
    }
}

fn whole(number: &Num) -> Option<i128> {
    number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()))
}

impl Layer {
    fn new() -> Layer {
        Layer { values: Dict::new(), origins: BTreeMap::new() }
    }

    /// `key` is an option's dotted name, or `kafka.` and Kafka's name.
    fn put(&mut self, key: String, value: Value, origin: String) {
        match key.split_once('.') {
            Some((section, name)) => {
                let section = self.values.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                if let Value::Dict(_, section) = section {
                    section.insert(name.to_owned(), value);
                }
            }
            None => drop(self.values.insert(key.clone(), value)),
        }
        self.origins.insert(key, origin);
    }
}

fn file_layer(sources: &Sources, known: &Known) -> Result<Layer, ConfigError> {
    let path = sources.file.as_path();
    let text = sources.text.clone().map_or_else(|| read(path), Ok)?;
    let syntax = |error: String| ConfigError::Syntax { path: path.to_owned(), detail: one_line(&error) };
    let parsed: Dict = Toml::from_str(&text).map_err(|error| syntax(error.to_string()))?;
    let mut layer = Layer::new();
    let origin = origin_of(path);
    for (key, value) in parsed {
        let (section, values) = match value {
            Value::Dict(_, values) if key == "kafka" || known.is_section(&key) => (key, values),
            Value::Dict(..) if known.0.contains_key(&key) => {
                return Err(refuse(&key, "{…}", &origin, "it is one value, not a table"));
            }
            Value::Dict(..) => {
                let sections = ["listeners", "peer", "tls", "wal", "objects", "admin", "log", "limits", "kafka"];
                let remedy = match nearest(&key, sections) {
                    Some(name) => format!("no such section: did you mean [{name}]?"),
                    None => "no such section: config.example.toml lists all, remove it".to_owned(),
                };
                return Err(refuse(&key, "{…}", &origin, &remedy));
            }
            value => {
                known.check(&key, &value).map_err(|why| refuse(&key, &shown(&value), &origin, &why))?;
                layer.put(key, value, origin.clone());
                continue;
            }
        };
        for (name, value) in values {
            let key = format!("{section}.{name}");
            let checked = if section == "kafka" { check_scalar(&value) } else { known.check(&key, &value) };
            checked.map_err(|why| refuse(&key, &shown(&value), &origin, &why))?;
            layer.put(key, value, origin.clone());
        }
    }
    Ok(layer)
}

/// Where a value of the file comes from.
pub(super) fn origin_of(file: &Path) -> String {
    format!("in {}", file.display())
}

fn check_scalar(value: &Value) -> Result<(), String> {
    match value {
        Value::Dict(..) => Err("write the whole name in quotes, such as \"num.partitions\" = 4".to_owned()),
        Value::Array(..) => Err("write one text, with commas between its elements".to_owned()),
        _ => Ok(()),
    }
}

fn environment_layer(environment: &[(String, String)], known: &Known) -> Result<Layer, ConfigError> {
    let own = known.0.keys().cloned();
    let kafka = settings::brokers().map(|setting| format!("kafka.{}", setting.name));
    let variables: BTreeMap<String, String> = own.chain(kafka).map(|key| (variable(&key), key)).collect();
    let mut layer = Layer::new();
    for (name, text) in environment {
        if !name.starts_with(PREFIX) || is_reserved(name) {
            continue;
        }
        let origin = "in the environment".to_owned();
        let Some(key) = variables.get(name) else {
            let remedy = match nearest(name, variables.keys().map(String::as_str)) {
                Some(near) => format!("no such option: did you mean {near}?"),
                None => "no such option: unset it".to_owned(),
            };
            return Err(refuse(name, text, &origin, &remedy));
        };
        let value = known.read(key, text).map_err(|why| refuse(name, text, &origin, &why))?;
        layer.put(key.clone(), value, format!("from {name}"));
    }
    Ok(layer)
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || (cfg!(feature = "failpoints") && name == PLANT)
}

/// The variable that sets an option.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn set_layer(sets: &[String], known: &Known) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for set in sets {
        let origin = "from --set".to_owned();
        let Some((key, text)) = set.split_once('=') else {
            return Err(refuse(set, "", &origin, "write KEY=VALUE, such as num.partitions=4"));
        };
        let key = key.trim();
        let name = key.strip_prefix("kafka.").unwrap_or(key);
        if known.0.contains_key(key) {
            let value = known.read(key, text).map_err(|why| refuse(key, text, &origin, &why))?;
            layer.put(key.to_owned(), value, origin);
        } else if is_kafkas(name) {
            layer.put(format!("kafka.{name}"), Value::from(text), origin);
        } else {
            return Err(refuse(key, text, &origin, &known.unknown(key)));
        }
    }
    Ok(layer)
}

/// Whether Kafka has a setting of that name, here or not; if it is of no use `check` says why.
fn is_kafkas(name: &str) -> bool {
    settings::broker(name).is_some() || settings::topic(name).is_some() || settings::refused_by_family(name).is_some()
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(ConfigError::Kind { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn refuse(key: &str, value: &str, origin: &str, remedy: &str) -> ConfigError {
    ConfigError::setting(key, value, origin, remedy)
}

/// A value as it stands in the file.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => match (whole(number), number.to_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => "a number".to_owned(),
        },
        Value::Dict(..) => "{…}".to_owned(),
        Value::Array(..) => "[…]".to_owned(),
        _ => "…".to_owned(),
    }
}

/// The parser's message without its picture of the line.
fn one_line(message: &str) -> String {
    let said = message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains('|'));
    said.collect::<Vec<_>>().join(": ")
}
