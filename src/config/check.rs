//! Decides whether options fit together, and turns them into a [`Config`].
//!
//! No I/O but the look at the path of the file. Every refusal names the one key that is to be changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::options::Options;
use super::sources::{Merged, origin_of};
use super::suggest::nearest;
use super::{Config, ConfigError, DevListeners, HostPort, Listener, LogFormat, Mode, Sources};
use super::{PEER, PLAINTEXT, SSL};
use crate::base::{ClusterId, NodeId, limits};
use crate::broker::settings;
use crate::object::{Bucket, OBJECT_BYTES_MAX, Place};
use crate::security::TlsFiles;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// A first batch may be added to an object that is just not full.
const OBJECT_BYTES_MOST: u64 = OBJECT_BYTES_MAX - limits::BATCH_BYTES_MAX as u64;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Refuses one key, with the origin of its value.
struct Refuse<'a>(&'a BTreeMap<String, String>);

impl Refuse<'_> {
    fn key(&self, key: &str, value: impl ToString, remedy: impl AsRef<str>) -> ConfigError {
        let origin = self.0.get(key).map_or("the default", String::as_str);
        ConfigError::setting(key, &value.to_string(), origin, remedy.as_ref())
    }
}

pub(super) fn check(merged: Merged, sources: &Sources, dev: Option<&DevListeners>) -> Result<Config, ConfigError> {
    let Merged { options, origins } = merged;
    let refuse = Refuse(&origins);
    let data_dir = data_dir(&options, &sources.file)?;
    let (cluster, node) = identity(&options, &refuse)?;
    numbers(&options, &refuse)?;
    let (plaintext, tls, admin) = match dev {
        None => serve_listeners(&options, &refuse)?,
        Some(listeners) => {
            no_other_listeners(&options, &sources.file, &refuse)?;
            dev_listeners(listeners)?
        }
    };
    let peer = if dev.is_none() { Some(peer(&options, (tls.bind, admin), &refuse)?) } else { None };
    let log_format = log(&options, &refuse)?;
    let place = place(&options, &data_dir, &refuse)?;
    let kafka = kafka(&options, &refuse)?;
    if dev.is_none() && kafka.get("super.users").is_none_or(|users| users.trim().is_empty()) {
        let remedy =
            "name at least one principal, such as \"User:CN=admin,O=casemate\": without one nobody may do anything";
        return Err(refuse.key("kafka.\"super.users\"", "", remedy));
    }
    let mut options = options;
    if let Some(listeners) = dev {
        options.listeners.tls = listeners.tls().to_owned();
        options.admin.listen = listeners.admin().to_owned();
    }
    let tls_files = TlsFiles {
        cert_chain: data_dir.join(&options.tls.cert_file),
        key: data_dir.join(&options.tls.key_file),
        client_ca: data_dir.join(&options.tls.ca_file),
    };
    let mode = if dev.is_some() { Mode::Dev } else { Mode::Serve };
    let file = sources.file.clone();
    Ok(Config {
        mode,
        file,
        data_dir,
        cluster,
        node,
        plaintext,
        tls,
        peer,
        tls_files,
        admin,
        place,
        log_format,
        kafka,
        options,
    })
}

fn data_dir(options: &Options, file: &Path) -> Result<PathBuf, ConfigError> {
    let file = std::path::absolute(file).map_err(|source| ConfigError::File { path: file.to_owned(), source })?;
    let beside = file.parent().unwrap_or(Path::new("/"));
    Ok(if options.data_dir.is_empty() { beside.to_owned() } else { beside.join(&options.data_dir) })
}

fn identity(options: &Options, refuse: &Refuse) -> Result<(ClusterId, NodeId), ConfigError> {
    let cluster = ClusterId::parse(&options.cluster_id).filter(|id| !id.is_zero()).ok_or_else(|| {
        refuse.key(
            "cluster_id",
            &options.cluster_id,
            "`casemate init DIR` makes one and writes it into DIR/casemate.toml",
        )
    })?;
    let node = i32::try_from(options.node_id).ok().filter(|id| *id > 0).ok_or_else(|| {
        refuse.key("node_id", options.node_id, "a number from 1 on is needed; `casemate init DIR` writes it")
    })?;
    Ok((cluster, NodeId(node)))
}

/// Bounds of the numbers, and those that bound one another.
fn numbers(options: &Options, refuse: &Refuse) -> Result<(), ConfigError> {
    let Options { wal, objects, limits: times, .. } = options;
    for (key, value, least, most) in [
        ("wal.segment_bytes", wal.segment_bytes, MIB, 2 * GIB),
        ("wal.budget_bytes", wal.budget_bytes, 4 * MIB, 1024 * 1024 * GIB),
        ("wal.queue_bytes", wal.queue_bytes, MIB, 16 * GIB),
        ("wal.memory_bytes", wal.memory_bytes, MIB, 1024 * GIB),
        ("wal.room_wait_ms", wal.room_wait_ms, 0, 10 * 60 * 1000),
        ("objects.cache_bytes", objects.cache_bytes, 0, 1024 * GIB),
        ("objects.upload_bytes", objects.upload_bytes, 64 * 1024, 4 * GIB),
        ("objects.upload_interval_ms", objects.upload_interval_ms, 10, DAY_MS),
        ("objects.object_bytes", objects.object_bytes, MIB, OBJECT_BYTES_MOST),
        ("objects.merge_ranges", objects.merge_ranges, 2, 10_000),
        ("objects.maintenance_interval_ms", objects.maintenance_interval_ms, 10, DAY_MS),
        ("objects.grace_ms", objects.grace_ms, 0, 365 * DAY_MS),
        ("limits.worker_threads", times.worker_threads, 0, 1024),
        ("limits.handshake_timeout_ms", times.handshake_timeout_ms, 100, 10 * 60 * 1000),
        ("limits.frame_timeout_ms", times.frame_timeout_ms, 100, 60 * 60 * 1000),
        ("limits.drain_ms", times.drain_ms, 0, 4 * 60 * 1000),
    ] {
        if !(least..=most).contains(&value) {
            return Err(refuse.key(key, value, format!("set a number from {least} to {most}")));
        }
    }
    if !wal.segment_bytes.is_multiple_of(4096) {
        return Err(refuse.key("wal.segment_bytes", wal.segment_bytes, "set a multiple of 4096"));
    }
    if wal.budget_bytes < 4 * wal.segment_bytes {
        let remedy = format!(
            "the WAL needs four segments: set at least {}, or a smaller wal.segment_bytes",
            4 * wal.segment_bytes
        );
        return Err(refuse.key("wal.budget_bytes", wal.budget_bytes, remedy));
    }
    if objects.upload_bytes > wal.budget_bytes / 2 {
        let remedy = format!(
            "uploads would begin only when the WAL is full: set at most half of wal.budget_bytes, {}",
            wal.budget_bytes / 2
        );
        return Err(refuse.key("objects.upload_bytes", objects.upload_bytes, remedy));
    }
    Ok(())
}

type Listening = (Option<Listener>, Listener, SocketAddr);

fn serve_listeners(options: &Options, refuse: &Refuse) -> Result<Listening, ConfigError> {
    let bind = |key: &str, text: &str| HostPort::parse_bind(text).map_err(|remedy| refuse.key(key, text, remedy));
    let tls = bind("listeners.tls", &options.listeners.tls)?;
    let admin = bind("admin.listen", &options.admin.listen)?;
    let advertise = advertised("listeners.advertise", &options.listeners.advertise, tls, "client", refuse)?;
    different(&[("listeners.tls", tls), ("admin.listen", admin)], refuse)?;
    Ok((None, Listener { name: SSL, bind: tls, advertise }, admin))
}

/// What others are told instead of the address listened on, which has to be one that they can connect to.
fn advertised(
    key: &str,
    text: &str,
    bind: SocketAddr,
    who: &str,
    refuse: &Refuse,
) -> Result<Option<HostPort>, ConfigError> {
    let advertise = match text {
        "" => None,
        text => Some(HostPort::parse(text).map_err(|remedy| refuse.key(key, text, remedy))?),
    };
    let address: Option<SocketAddr> = advertise.as_ref().and_then(|host| host.to_string().parse().ok());
    if advertise.is_none() && bind.ip().is_unspecified() {
        let remedy =
            format!("{who}s need one address when all are listened on: set HOST:PORT that they reach this node by");
        return Err(refuse.key(key, "", remedy));
    }
    if address.is_some_and(|address| address.ip().is_unspecified()) {
        let remedy = format!("no {who} can connect to that address: set HOST:PORT that they reach this node by");
        return Err(refuse.key(key, text, remedy));
    }
    Ok(advertise)
}

/// Where the other nodes connect. A file of a former release does not say; then a listener of its own at the default has
/// precedence in what is refused here, and the start says that the port is taken.
fn peer(options: &Options, (tls, admin): (SocketAddr, SocketAddr), refuse: &Refuse) -> Result<Listener, ConfigError> {
    let listen = &options.peer.listen;
    let bind = HostPort::parse_bind(listen).map_err(|remedy| refuse.key("peer.listen", listen, remedy))?;
    let advertise = advertised("peer.advertise", &options.peer.advertise, bind, "node", refuse)?;
    if refuse.0.contains_key("peer.listen") {
        different(&[("listeners.tls", tls), ("admin.listen", admin), ("peer.listen", bind)], refuse)?;
    }
    Ok(Listener { name: PEER, bind, advertise })
}

/// Under `dev` the flags alone say where to listen. The file may say otherwise, as `serve` reads it too; who says it
/// for this one run means something that does not come about.
fn no_other_listeners(options: &Options, file: &Path, refuse: &Refuse) -> Result<(), ConfigError> {
    let in_file = origin_of(file);
    for (key, value, remedy) in [
        ("listeners.tls", &options.listeners.tls, "casemate dev listens where --tls-listen says: give that instead"),
        (
            "listeners.advertise",
            &options.listeners.advertise,
            "casemate dev tells clients where it listens: remove this",
        ),
        ("admin.listen", &options.admin.listen, "casemate dev listens where --admin-listen says: give that instead"),
        ("peer.listen", &options.peer.listen, "casemate dev is a node alone: remove this"),
        ("peer.advertise", &options.peer.advertise, "casemate dev is a node alone: remove this"),
    ] {
        if refuse.0.get(key).is_some_and(|origin| *origin != in_file) {
            return Err(refuse.key(key, value, remedy));
        }
    }
    Ok(())
}

fn dev_listeners(listeners: &DevListeners) -> Result<Listening, ConfigError> {
    let DevListeners { plaintext, tls, admin } = listeners;
    let given = [("--listen", plaintext), ("--tls-listen", tls), ("--admin-listen", admin)];
    let given = given.iter().filter(|(_, address)| address.is_some());
    let origins = given.map(|(key, _)| (key.to_string(), "from the command line".to_owned())).collect();
    let refuse = Refuse(&origins);
    let bind = |key: &str, text: &str| {
        let address = HostPort::parse_bind(text).map_err(|remedy| refuse.key(key, text, remedy))?;
        if address.ip().is_loopback() {
            return Ok(address);
        }
        let remedy =
            "dev asks nobody who they are and so listens on loopback only: set 127.0.0.1, or use `casemate serve`";
        Err(refuse.key(key, text, remedy))
    };
    let plaintext = bind("--listen", listeners.plaintext())?;
    let tls = bind("--tls-listen", listeners.tls())?;
    let admin = bind("--admin-listen", listeners.admin())?;
    different(&[("--listen", plaintext), ("--tls-listen", tls), ("--admin-listen", admin)], &refuse)?;
    let plaintext = Listener { name: PLAINTEXT, bind: plaintext, advertise: None };
    Ok((Some(plaintext), Listener { name: SSL, bind: tls, advertise: None }, admin))
}

/// No two may be the same place, unless the port is any.
fn different(addresses: &[(&str, SocketAddr)], refuse: &Refuse) -> Result<(), ConfigError> {
    for (i, (key, address)) in addresses.iter().enumerate() {
        for (other_key, other) in &addresses[..i] {
            let same_ip = address.ip() == other.ip() || address.ip().is_unspecified() || other.ip().is_unspecified();
            if address.port() != 0 && address.port() == other.port() && same_ip {
                return Err(refuse.key(key, address, format!("{other_key} listens there: choose another port")));
            }
        }
    }
    Ok(())
}

fn log(options: &Options, refuse: &Refuse) -> Result<LogFormat, ConfigError> {
    EnvFilter::builder().parse(&options.log.filter).map_err(|error| {
        let remedy =
            format!("write a level such as info, or levels by module such as info,casemate::wal=debug ({error})");
        refuse.key("log.filter", &options.log.filter, remedy)
    })?;
    match options.log.format.as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(refuse.key("log.format", other, "set text or json")),
    }
}

fn place(options: &Options, data_dir: &Path, refuse: &Refuse) -> Result<Place, ConfigError> {
    let objects = &options.objects;
    let url = objects.url.as_str();
    for (key, set, other, other_set) in [
        ("objects.client_cert_file", &objects.client_cert_file, "objects.client_key_file", &objects.client_key_file),
        ("objects.client_key_file", &objects.client_key_file, "objects.client_cert_file", &objects.client_cert_file),
    ] {
        if !set.is_empty() && other_set.is_empty() {
            return Err(refuse.key(key, set, format!("a certificate and its key belong together: set {other} too")));
        }
    }
    let Some(bucket) = url.strip_prefix("s3://") else {
        let folder = match (url, url.strip_prefix("file://")) {
            ("", _) => data_dir.join("objects"),
            (_, Some(path)) if path.starts_with('/') && !path.contains(['?', '#', '%']) => PathBuf::from(path),
            _ => {
                return Err(refuse.key(
                    "objects.url",
                    url,
                    "set s3://BUCKET/PREFIX, file:///FOLDER, or leave it empty",
                ));
            }
        };
        for (key, value) in [
            ("objects.endpoint", &objects.endpoint),
            ("objects.ca_file", &objects.ca_file),
            ("objects.client_cert_file", &objects.client_cert_file),
            ("objects.credentials_file", &objects.credentials_file),
        ] {
            if !value.is_empty() {
                let remedy = "objects.url is a folder, which needs none: set s3://BUCKET/PREFIX there, or remove this";
                return Err(refuse.key(key, value, remedy));
            }
        }
        return Ok(Place::Folder(folder));
    };
    let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) && !text.contains("..");
    if name.is_empty() || !plain(bucket) {
        let remedy =
            "set s3://BUCKET/PREFIX of letters, digits, - _ . and /; credentials belong in objects.credentials_file";
        return Err(refuse.key("objects.url", url, remedy));
    }
    if objects.region.is_empty() {
        return Err(refuse.key(
            "objects.region",
            "",
            "set the region of the bucket; us-east-1 suits most private services",
        ));
    }
    endpoint(&objects.endpoint, refuse)?;
    if objects.ca_file.is_empty() && !objects.endpoint.starts_with("http://") {
        let remedy = "name the PEM file with the authority of the service: those of this machine are never trusted";
        return Err(refuse.key("objects.ca_file", "", remedy));
    }
    if objects.credentials_file.is_empty() {
        let remedy = "name a TOML file with access_key_id and secret_access_key: a bucket needs credentials";
        return Err(refuse.key("objects.credentials_file", "", remedy));
    }
    Ok(Place::Bucket(Bucket {
        name: name.to_owned(),
        prefix: prefix.trim_end_matches('/').to_owned(),
        region: objects.region.clone(),
        endpoint: objects.endpoint.clone(),
        credentials_file: data_dir.join(&objects.credentials_file),
    }))
}

/// Only TLS, but for a service on this machine.
fn endpoint(text: &str, refuse: &Refuse) -> Result<(), ConfigError> {
    let host = |scheme: &str| text.strip_prefix(scheme).map(|rest| rest.trim_end_matches('/'));
    let known = |host: &str| HostPort::parse(host).is_ok() || HostPort::parse(&format!("{host}:443")).is_ok();
    let loopback = |host: &str| host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    match (text, host("https://"), host("http://")) {
        ("", _, _) => Ok(()),
        (_, Some(host), _) if known(host) => Ok(()),
        (_, _, Some(host)) if loopback(host) => Ok(()),
        (_, _, Some(_)) => Err(refuse.key(
            "objects.endpoint",
            text,
            "records would travel unencrypted: use https, or http to 127.0.0.1:PORT",
        )),
        _ => Err(refuse.key("objects.endpoint", text, "set https://HOST:PORT without a path")),
    }
}

fn kafka(options: &Options, refuse: &Refuse) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut kafka = BTreeMap::new();
    for (name, value) in &options.kafka {
        let (key, text) = (format!("kafka.{name}"), value.text());
        let canonical = settings::check_fixed(name, &text).map_err(|mut remedy| {
            if settings::broker(name).is_none()
                && let Some(near) = nearest(name, settings::brokers().map(|setting| setting.name))
            {
                remedy = format!("{remedy}; did you mean \"{near}\"?");
            }
            let origin = refuse.0.get(&key).map_or("", String::as_str);
            ConfigError::setting(name, &text, origin, &remedy)
        })?;
        kafka.insert(name.clone(), canonical);
    }
    let number = |name: &str| {
        let default = settings::broker(name).and_then(|setting| setting.default);
        kafka.get(name).map(String::as_str).or(default).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let (batch, request) = (number("message.max.bytes"), number("socket.request.max.bytes"));
    if batch >= request {
        let remedy =
            format!("a largest batch must fit in a request: set less than socket.request.max.bytes, {request}");
        return Err(refuse.key("kafka.message.max.bytes", batch, remedy));
    }
    within_bounds(&number, refuse)?;
    if batch > options.wal.queue_bytes {
        let remedy =
            format!("a largest batch must fit in the queue: set at most wal.queue_bytes, {}", options.wal.queue_bytes);
        return Err(refuse.key("kafka.message.max.bytes", batch, remedy));
    }
    Ok(kafka)
}

/// What members of consumer groups are told lies within what they may be told, as Kafka demands at its start.
fn within_bounds(number: &dyn Fn(&str) -> u64, refuse: &Refuse) -> Result<(), ConfigError> {
    for what in ["session.timeout.ms", "heartbeat.interval.ms"] {
        let name = |bound: &str| format!("group.consumer.{bound}{what}");
        let value = number(&name(""));
        for (bound, holds, word) in
            [("min.", value >= number(&name("min.")), "at least"), ("max.", value <= number(&name("max.")), "at most")]
        {
            if !holds {
                let remedy = format!("set {word} {}, {}", name(bound), number(&name(bound)));
                return Err(refuse.key(&format!("kafka.{}", name("")), value, remedy));
            }
        }
    }
    Ok(())
}

const _: () = assert!(limits::BATCH_BYTES_MAX as u64 <= 64 * MIB, "the default of wal.queue_bytes holds any batch");
