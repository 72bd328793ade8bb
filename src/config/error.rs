//! Why a configuration cannot be used.

use std::io;
use std::path::PathBuf;

/// One sentence with what is wrong and what to do. The process ends with 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "cannot read the configuration {path} ({source}): name a casemate.toml that this user may read, or make one with `casemate init DIR`",
        path = path.display()
    )]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is no file of at most 1 MiB: name a casemate.toml", path = path.display())]
    Kind { path: PathBuf },
    #[error("{path} is not valid TOML, correct it: {detail}", path = path.display())]
    Syntax { path: PathBuf, detail: String },
    #[error("{key} = {value} ({origin}) cannot be used: {remedy}")]
    Setting { key: String, value: String, origin: String, remedy: String },
    #[error("the configuration cannot be put together ({0}): report this")]
    Merge(String),
    #[error("the configuration cannot be shown ({0}): report this")]
    Show(String),
}

impl ConfigError {
    pub(super) fn setting(key: &str, value: &str, origin: &str, remedy: &str) -> ConfigError {
        ConfigError::Setting {
            key: key.to_owned(),
            value: if value.is_empty() { "\"\"".to_owned() } else { value.to_owned() },
            origin: origin.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}
