//! The configuration of a process: read, checked whole, and only then used.
//!
//! Invariants: a [`Config`] exists only if nothing in it is unknown or contradictory; nothing is bound, created or
//! written before that; every refusal names key, value, origin and remedy in one sentence; no secret is an option, so
//! the configuration can be shown. The environment is passed in, never read here.

mod address;
mod check;
mod error;
mod options;
mod parts;
mod peers;
mod show;
mod sources;
mod suggest;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::{ClusterId, NodeId};
use crate::metadata::Endpoint;
use crate::object::Place;
use crate::security::TlsFiles;

pub use address::HostPort;
pub use error::ConfigError;
pub use options::Options;
pub use peers::{PEERS_FILE, peers_text, read_peers};
pub use sources::Sources;

/// Name of the configuration file in a folder made by `casemate init`.
pub const FILE_NAME: &str = "casemate.toml";
/// Name of the plaintext listener, as Kafka would name it.
pub const PLAINTEXT: &str = "PLAINTEXT";
/// Name of the mutual TLS listener, as Kafka would name it.
pub const SSL: &str = "SSL";
/// Name of the listener for the other nodes. Clients are never told of it.
pub const PEER: &str = "PEER";

/// How a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mutual TLS everywhere; nobody may do anything but the super users.
    Serve,
    /// Without authorization, with a plaintext listener besides, and on loopback only.
    Dev,
}

/// Addresses of `casemate dev`, which stand above every other source; None for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevListeners {
    pub plaintext: Option<String>,
    pub tls: Option<String>,
    pub admin: Option<String>,
}

impl DevListeners {
    pub fn plaintext(&self) -> &str {
        self.plaintext.as_deref().unwrap_or("127.0.0.1:9092")
    }

    pub fn tls(&self) -> &str {
        self.tls.as_deref().unwrap_or("127.0.0.1:9093")
    }

    pub fn admin(&self) -> &str {
        self.admin.as_deref().unwrap_or("127.0.0.1:9095")
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `PLAINTEXT`, `SSL` or `PEER`.
    pub name: &'static str,
    pub bind: SocketAddr,
    /// What clients, or the other nodes, are told; port 0 is the port that was bound. None for the address that was bound.
    pub advertise: Option<HostPort>,
}

impl Listener {
    /// What they are told, now that the listener is bound to `bound`.
    pub fn endpoint(&self, bound: SocketAddr) -> Endpoint {
        let (host, port) = match &self.advertise {
            Some(HostPort { host, port: 0 }) => (host.clone(), bound.port()),
            Some(HostPort { host, port }) => (host.clone(), *port),
            None => (bound.ip().to_string(), bound.port()),
        };
        Endpoint { listener: self.name.to_owned(), host, port }
    }
}

/// Format of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    pub file: PathBuf,
    pub data_dir: PathBuf,
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Only in [`Mode::Dev`].
    pub plaintext: Option<Listener>,
    pub tls: Listener,
    /// For the other nodes; only in [`Mode::Serve`].
    pub peer: Option<Listener>,
    pub tls_files: TlsFiles,
    pub admin: SocketAddr,
    pub place: Place,
    pub log_format: LogFormat,
    /// Kafka settings that are set, by name, in canonical form.
    pub kafka: BTreeMap<String, String>,
    /// Everything, as the file has it. Numbers in it are within their bounds.
    pub options: Options,
}

impl Config {
    /// Reads and checks everything for `casemate serve`. Blocks on reading the file.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        check::check(sources::merge(sources)?, sources, None)
    }

    /// Reads and checks everything for `casemate dev`. Blocks on reading the file.
    pub fn load_dev(sources: &Sources, listeners: &DevListeners) -> Result<Config, ConfigError> {
        check::check(sources::merge(sources)?, sources, Some(listeners))
    }

    /// What people call this node.
    pub fn node_name(&self) -> String {
        let name = &self.options.peer.name;
        if name.is_empty() { format!("node-{}", self.node) } else { name.clone() }
    }

    /// A path of the options; None where it is not set. A relative one begins at the data folder.
    pub fn path(&self, option: &str) -> Option<PathBuf> {
        (!option.is_empty()).then(|| self.data_dir.join(option))
    }

    /// What Kafka's tools are shown as this broker's own settings: those that are set, and those that follow from
    /// Casemate's options and from the addresses that were `bound`.
    pub fn static_settings(&self, bound: &[(&Listener, SocketAddr)]) -> BTreeMap<String, String> {
        let list = |entry: &dyn Fn(&Listener, SocketAddr) -> String| {
            bound.iter().map(|(listener, address)| entry(listener, *address)).collect::<Vec<_>>().join(",")
        };
        let mut settings = self.kafka.clone();
        let node = self.node.to_string();
        let advertised = |listener: &Listener, address: SocketAddr| {
            let Endpoint { listener, host, port } = listener.endpoint(address);
            format!("{listener}://{}", HostPort { host, port })
        };
        for (name, value) in [
            ("node.id", node.clone()),
            ("broker.id", node),
            ("process.roles", "broker,controller".to_owned()),
            ("listeners", list(&|listener, address| format!("{}://{address}", listener.name))),
            ("advertised.listeners", list(&advertised)),
            ("log.dirs", self.data_dir.display().to_string()),
        ] {
            settings.insert(name.to_owned(), value);
        }
        settings
    }

    /// Everything that is in force, as a configuration file that gives the same.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        show::toml(&self.shown())
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Result<String, ConfigError> {
        show::json(&self.shown())
    }

    fn shown(&self) -> Options {
        Options { kafka: show::in_force(&self.kafka), ..self.options.clone() }
    }
}

/// Who a new node is and where it listens.
pub struct Identity<'a> {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// See `[listeners]`.
    pub tls: &'a str,
    pub advertise: &'a str,
    /// See `[peer]`.
    pub peer_listen: &'a str,
    pub peer_advertise: &'a str,
    pub name: &'a str,
    pub rack: &'a str,
}

impl Identity<'_> {
    fn options(&self) -> Options {
        let mut options = Options { cluster_id: self.cluster.to_string(), ..Options::default() };
        options.node_id = u32::try_from(self.node.0).unwrap_or(0);
        options.listeners.tls = self.tls.to_owned();
        options.listeners.advertise = self.advertise.to_owned();
        options.peer.listen = self.peer_listen.to_owned();
        options.peer.advertise = self.peer_advertise.to_owned();
        options.peer.name = self.name.to_owned();
        options.peer.rack = self.rack.to_owned();
        options
    }
}

/// Text of the file that `casemate init` writes.
pub fn initial_file(identity: &Identity, super_users: &str) -> Result<String, ConfigError> {
    let mut options = identity.options();
    options.kafka.insert("super.users".to_owned(), options::Scalar::Text(super_users.to_owned()));
    show::initial(&options)
}

/// What a node that joins a cluster serves with.
pub struct Joining<'a> {
    pub identity: Identity<'a>,
    /// What all nodes of the cluster have in common, by the names that `--set` has for them.
    pub settings: &'a [(String, String)],
}

/// Text of the file that a node begins with which joins a cluster.
pub fn joining_file(joining: &Joining) -> Result<String, ConfigError> {
    let text = Some(show::initial(&joining.identity.options())?);
    let sets = joining.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let merged = sources::merge(&Sources { file: FILE_NAME.into(), text, sets, ..Sources::default() })?;
    show::initial(&merged.options)
}

#[cfg(test)]
mod tests;
