//! Every option of Casemate with its default, exactly as the configuration file has them.
//!
//! An empty text is "not set". Nothing is checked here but the type: see `check`. Secrets are never options; options
//! name the files that hold them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// The whole file. Kafka's own settings are in `kafka`, under Kafka's names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Identity of the cluster, written by `casemate init`.
    pub cluster_id: String,
    /// Number of this node, written by `casemate init`.
    pub node_id: u32,
    /// Folder of the data; empty for the folder of the configuration file.
    pub data_dir: String,
    pub listeners: Listeners,
    pub peer: Peer,
    pub tls: Tls,
    pub wal: Wal,
    pub objects: Objects,
    pub admin: Admin,
    pub log: Log,
    pub limits: Limits,
    pub kafka: BTreeMap<String, Scalar>,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// `IP:PORT` of the mutual TLS listener; port 0 takes a free one.
    pub tls: String,
    /// `HOST:PORT` that clients are told; port 0 is the port listened on. Empty for the address listened on.
    pub advertise: String,
}

/// Where the other nodes of the cluster connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// `IP:PORT`; port 0 takes a free one.
    pub listen: String,
    /// `HOST:PORT` that the other nodes are told; port 0 is the port listened on. Empty for the address listened on.
    pub advertise: String,
    /// What people call this node; no two nodes have the same name. Empty for `node-ID`.
    pub name: String,
    /// Where it stands: a rack or a zone. May be empty.
    pub rack: String,
}

/// PEM files of the listeners. Relative paths begin at the data folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Authorities whose clients are admitted.
    pub ca_file: String,
    /// The node's certificate, then those between it and the authority.
    pub cert_file: String,
    /// Its private key; only its owner and group may read it.
    pub key_file: String,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wal {
    pub segment_bytes: u64,
    /// Of the whole folder. It bounds what may be acknowledged and not yet uploaded.
    pub budget_bytes: u64,
    /// Entries that wait for the disk.
    pub queue_bytes: u64,
    /// Records of the newest entries that are kept in memory for consumers.
    pub memory_bytes: u64,
    /// How long a produce request waits for room before it gets a retriable error.
    pub room_wait_ms: u64,
}

/// Object storage, and how data move there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// `s3://BUCKET/PREFIX` or `file:///FOLDER`; empty for the folder `objects` beside the other data.
    pub url: String,
    pub region: String,
    /// `https://HOST:PORT` of an S3-compatible service; empty for AWS.
    pub endpoint: String,
    /// Authorities of the service; those of the host are never trusted.
    pub ca_file: String,
    pub client_cert_file: String,
    pub client_key_file: String,
    /// TOML file with `access_key_id` and `secret_access_key`.
    pub credentials_file: String,
    /// Memory for blocks that were read.
    pub cache_bytes: u64,
    /// Acknowledged bytes that start an upload at once.
    pub upload_bytes: u64,
    /// Age of the oldest acknowledged record that starts an upload.
    pub upload_interval_ms: u64,
    /// Largest object.
    pub object_bytes: u64,
    /// Small objects of one partition that are merged into one.
    pub merge_ranges: u64,
    /// How often retention, merging and deleting are looked at.
    pub maintenance_interval_ms: u64,
    /// How long the bytes of an object stay after nothing points to it.
    pub grace_ms: u64,
}

/// Health, metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// `IP:PORT`; port 0 takes a free one.
    pub listen: String,
}

/// What is logged on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: String,
    /// A level, or levels by module: `info,casemate::wal=debug`.
    pub filter: String,
}

/// Threads and times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Threads that serve connections; 0 for one a processor.
    pub worker_threads: u64,
    pub handshake_timeout_ms: u64,
    /// How long the bytes of one request may take from the first to the last.
    pub frame_timeout_ms: u64,
    /// How long a stopping node waits for requests and uploads.
    pub drain_ms: u64,
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners { tls: "127.0.0.1:9093".to_owned(), advertise: String::new() }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Peer { listen: "127.0.0.1:9094".to_owned(), advertise: String::new(), name: String::new(), rack: String::new() }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            ca_file: "tls/ca.pem".to_owned(),
            cert_file: "tls/node.pem".to_owned(),
            key_file: "tls/node.key".to_owned(),
        }
    }
}

impl Default for Wal {
    fn default() -> Self {
        Wal {
            segment_bytes: 64 * MIB,
            budget_bytes: 1024 * MIB,
            queue_bytes: 64 * MIB,
            memory_bytes: 64 * MIB,
            room_wait_ms: 10_000,
        }
    }
}

impl Default for Objects {
    fn default() -> Self {
        Objects {
            url: String::new(),
            region: "us-east-1".to_owned(),
            endpoint: String::new(),
            ca_file: String::new(),
            client_cert_file: String::new(),
            client_key_file: String::new(),
            credentials_file: String::new(),
            cache_bytes: 64 * MIB,
            upload_bytes: 64 * MIB,
            upload_interval_ms: 10_000,
            object_bytes: 64 * MIB,
            merge_ranges: 8,
            maintenance_interval_ms: 30_000,
            grace_ms: 600_000,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: "127.0.0.1:9095".to_owned() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: "text".to_owned(), filter: "info,openraft=off".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { worker_threads: 0, handshake_timeout_ms: 10_000, frame_timeout_ms: 30_000, drain_ms: 30_000 }
    }
}

/// One value of `[kafka]`: a number, a truth value or a text. Kafka itself knows only texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    pub fn text(&self) -> String {
        match self {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
            Scalar::Text(value) => value.clone(),
        }
    }
}
