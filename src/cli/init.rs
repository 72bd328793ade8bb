//! `casemate init`: the folder of a new node.
//!
//! Invariants: nothing that exists is changed; everything is checked before anything is made; the configuration is
//! put in place last, so that a folder with one is whole. A folder that an interrupted run left behind has a mark and
//! is never served from and never completed: it holds keys of which nobody knows how far they got. It is refused by
//! name; `dev` makes it anew where nothing else is in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::absolute;
use crate::base::{ClusterId, NodeId};
use crate::config::{self, Config, HostPort, Identity, Sources};
use crate::env::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::security::bundle::TOKEN_FILE;
use crate::security::{self, InitOptions};

/// There while a folder is being made.
const MARK: &str = "init.unfinished";
const FOLDERS: [&str; 4] = ["wal", "metadata", "objects", "quarantine"];
/// Folders with certificates and settings, under their names and under those that they have before they are whole.
const MADE_FOLDERS: [&str; 4] = ["tls", "client", "tls.partial", "client.partial"];
/// Files of a node that joins a cluster.
const JOINING_FILES: [&str; 2] = [TOKEN_FILE, config::PEERS_FILE];
/// The configuration before it is whole.
const PARTIAL_FILE: &str = "casemate.toml.partial";
/// What a fresh file system has by itself.
const LOST_AND_FOUND: &str = "lost+found";
/// The only node of a new cluster.
const FIRST_NODE: NodeId = NodeId(1);

/// What to make.
pub(super) struct Request {
    pub dir: PathBuf,
    /// Names and addresses for the node's certificate.
    pub hosts: Vec<String>,
    pub listen: String,
    /// None tells clients the address that is listened on.
    pub advertise: Option<HostPort>,
    /// `IP:PORT` for other nodes.
    pub peer_listen: String,
}

/// Where other nodes connect, unless somebody says otherwise: where clients do, at this port; or at any, as clients do.
const PEER_PORT: u16 = 9094;

/// `IP:PORT` for other nodes beside `listen` for clients.
pub(super) fn peer_listen(listen: &str) -> Result<String> {
    let bind = HostPort::parse_bind(listen).map_err(|why| anyhow::anyhow!("--listen = {listen}: {why}"))?;
    Ok(SocketAddr::new(bind.ip(), if bind.port() == 0 { 0 } else { PEER_PORT }).to_string())
}

/// What was made.
#[derive(Debug)]
pub(super) struct Made {
    pub cluster: ClusterId,
    pub bootstrap: String,
}

impl Request {
    /// Without `advertise` clients are told the first host, or the name of this machine.
    pub fn new(
        dir: PathBuf,
        hosts: Vec<String>,
        listen: String,
        advertise: Option<String>,
        peer: Option<String>,
    ) -> Result<Request> {
        let bind = HostPort::parse_bind(&listen).map_err(|why| anyhow::anyhow!("--listen = {listen}: {why}"))?;
        let advertise = match advertise {
            Some(text) => HostPort::parse(&text).map_err(|why| anyhow::anyhow!("--advertise = {text}: {why}"))?,
            None => {
                let first = hosts.first().cloned().or_else(|| bind.ip().is_unspecified().then(machine_name).flatten());
                let own = if bind.ip().is_unspecified() { "localhost".to_owned() } else { bind.ip().to_string() };
                HostPort { host: unbracketed(&first.unwrap_or(own)), port: bind.port() }
            }
        };
        let peer_listen = peer.map_or_else(|| peer_listen(&listen), Ok)?;
        HostPort::parse_bind(&peer_listen).map_err(|why| anyhow::anyhow!("--peer-listen = {peer_listen}: {why}"))?;
        Ok(Request { dir, hosts, listen, advertise: Some(advertise), peer_listen })
    }

    /// Where the client settings in the folder point to.
    fn bootstrap(&self) -> String {
        self.advertise.as_ref().map_or_else(|| self.listen.clone(), HostPort::to_string)
    }

    fn configuration(&self, cluster: ClusterId, super_users: &str) -> Result<String> {
        let advertise = self.advertise.as_ref().map(HostPort::to_string).unwrap_or_default();
        // Other nodes know this one by the host that clients do; its certificate has that.
        let port = HostPort::parse_bind(&self.peer_listen).map_or(PEER_PORT, |bind| bind.port());
        let peer = self.advertise.as_ref().map(|told| HostPort { host: told.host.clone(), port }.to_string());
        let identity = Identity {
            cluster,
            node: FIRST_NODE,
            tls: &self.listen,
            advertise: &advertise,
            peer_listen: &self.peer_listen,
            peer_advertise: &peer.unwrap_or_default(),
            name: "",
            rack: "",
        };
        Ok(config::initial_file(&identity, super_users)?)
    }
}

fn unbracketed(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// The machine's name, where it can stand in a certificate.
fn machine_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    (plain && !name.is_empty() && !name.starts_with(['-', '.'])).then(|| name.to_owned())
}

/// The configuration that a request leads to, as good as the one that is written but without an identity of its own.
pub(super) fn sample(request: &Request) -> Result<String> {
    request.configuration(ClusterId([1; 16]), "User:CN=sample")
}

/// Whether an interrupted run left the folder behind.
fn is_half_made(dir: &Path) -> bool {
    dir.join(MARK).exists() && !dir.join(config::FILE_NAME).exists()
}

/// Refuses a folder that an interrupted run left behind; `command` is what the reader runs again.
pub(super) fn refuse_half_made(dir: &Path, command: &str) -> Result<()> {
    if is_half_made(dir) {
        let dir = absolute(dir);
        bail!(
            "{0} was left half made by an interrupted init or dev: remove it (rm -r {0}) and run {command} again",
            dir.display()
        );
    }
    Ok(())
}

/// Takes away what an interrupted run left behind, for `dev`, whose keys are worth nothing: only if nothing else is in
/// the folder, and nobody is making it just now.
pub(super) fn clear_half_made(dir: &Path) -> Result<()> {
    if !is_half_made(dir) {
        return Ok(());
    }
    let mark = File::open(dir.join(MARK)).with_context(|| cannot_make(dir))?;
    if mark.try_lock().is_err() {
        bail!("{} is being made by another process: wait for it, and run dev again", absolute(dir).display());
    }
    if only_ours(dir).with_context(|| cannot_make(dir))? {
        undo(dir, false);
    }
    refuse_half_made(dir, "dev")
}

/// Whether a half made folder holds nothing but what this makes, and nothing that a node wrote.
fn only_ours(dir: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is = |known: &[&str]| known.iter().any(|known| name == *known);
        let ours = if is(&FOLDERS) {
            fs::read_dir(entry.path())?.next().is_none()
        } else if is(&MADE_FOLDERS) {
            fs::read_dir(entry.path())?.all(|file| file.is_ok_and(|f| f.file_type().is_ok_and(|t| t.is_file())))
        } else {
            is(&[MARK, PARTIAL_FILE, LOST_AND_FOUND]) || is(&JOINING_FILES)
        };
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the folder of a new cluster's first node. Blocks on file I/O.
pub(super) fn init(request: &Request) -> Result<Made> {
    make_folder(&request.dir, sample(request)?, |dir, file| fill(request, dir, file))
}

/// Makes a folder that `fill` fills, as whole or not at all as can be; `sample` is the configuration that it will put in
/// place, as good as that. `fill` is given the folder and the configuration's path. Blocks on file I/O.
pub(super) fn make_folder<T>(dir: &Path, sample: String, fill: impl FnOnce(&Path, &Path) -> Result<T>) -> Result<T> {
    let dir = absolute(dir);
    let file = dir.join(config::FILE_NAME);
    Config::load(&Sources { file: file.clone(), text: Some(sample), ..Sources::default() })?;
    refuse_half_made(&dir, "init")?;
    refuse_used(&dir)?;
    let new = !dir.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(|| cannot_make(&dir))?;
    let mark = dir.join(MARK);
    let marked = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mark);
    let marked = marked.with_context(|| cannot_make(&mark))?;
    // Held to the end, so that nobody takes this for the rest of an interrupted run; without locks it may be.
    let _ = marked.try_lock();
    match fill(&dir, &file) {
        Ok(made) => Ok(made),
        Err(error) => {
            undo(&dir, new);
            Err(error)
        }
    }
}

fn refuse_used(dir: &Path) -> Result<()> {
    if dir.join(config::FILE_NAME).exists() {
        bail!("{} holds a node already and init never overwrites: choose another folder", dir.display());
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| cannot_make(dir))?,
    };
    for entry in entries {
        let name = entry.with_context(|| cannot_make(dir))?.file_name();
        if name != LOST_AND_FOUND {
            bail!("{} is not empty (it holds {}): choose an empty folder", dir.display(), name.display());
        }
    }
    Ok(())
}

/// The folders that a node writes its data to, empty.
pub(super) fn make_data_folders(dir: &Path) -> Result<()> {
    for folder in FOLDERS {
        let folder = dir.join(folder);
        DirBuilder::new().mode(0o700).create(&folder).with_context(|| cannot_make(&folder))?;
    }
    Ok(())
}

fn fill(request: &Request, dir: &Path, file: &Path) -> Result<Made> {
    make_data_folders(dir)?;
    let cluster = new_cluster(&SystemEntropy);
    let advertised = request.advertise.iter().map(|advertise| advertise.host.clone());
    let options = InitOptions {
        cluster,
        node: FIRST_NODE,
        hosts: request.hosts.iter().cloned().chain(advertised).collect(),
        bootstrap: request.bootstrap(),
        now_ms: SystemClock.wall_ms(),
    };
    let created = security::create(dir, &options, &SystemEntropy)?;
    let text = request.configuration(cluster, &created.client.to_string())?;
    put(dir, file, &text)?;
    Ok(Made { cluster, bootstrap: options.bootstrap })
}

/// Puts the configuration in place whole, and only then takes the mark away.
pub(super) fn put(dir: &Path, file: &Path, text: &str) -> Result<()> {
    put_whole(dir, file, text).with_context(|| cannot_make(file))
}

fn put_whole(dir: &Path, file: &Path, text: &str) -> std::io::Result<()> {
    let partial = dir.join(PARTIAL_FILE);
    write_private(&partial, text)?;
    let folder = File::open(dir)?;
    folder.sync_all()?;
    fs::rename(&partial, file)?;
    folder.sync_all()?;
    fs::remove_file(dir.join(MARK))?;
    folder.sync_all()
}

/// Writes and syncs a new file for its owner only.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()
}

/// Takes away what a failed run made in a folder that held nothing; what cannot be removed keeps the mark.
fn undo(dir: &Path, new: bool) {
    let made = MADE_FOLDERS.iter().chain(&FOLDERS).map(|name| dir.join(name));
    let mut gone = true;
    for folder in made {
        gone &= fs::remove_dir_all(&folder).is_ok() || !folder.exists();
    }
    for name in JOINING_FILES.into_iter().chain([PARTIAL_FILE, config::FILE_NAME]) {
        gone &= fs::remove_file(dir.join(name)).is_ok() || !dir.join(name).exists();
    }
    if gone && fs::remove_file(dir.join(MARK)).is_ok() && new {
        let _ = fs::remove_dir(dir);
    }
}

pub(super) fn cannot_make(path: &Path) -> String {
    format!("cannot make {}: choose a folder that this user may write to", path.display())
}

/// Sixteen random bytes that do not print with a dash first, which tools would take for an option.
fn new_cluster(entropy: &dyn Entropy) -> ClusterId {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[0] &= 0x7f;
    ClusterId(bytes)
}

/// What to do with the new folder, for standard output.
pub(super) fn next_steps(dir: &Path, made: &Made) -> String {
    let dir = absolute(dir);
    let dir = dir.display();
    let Made { cluster, bootstrap } = made;
    format!(
        "{dir} holds node {FIRST_NODE} of the new cluster {cluster}, which clients reach at {bootstrap}\n\
         start it:       casemate serve --config {dir}/casemate.toml\n\
         kcat:           kcat -F {dir}/client/librdkafka.conf -L\n\
         Kafka's tools:  kafka-topics.sh --bootstrap-server {bootstrap} --command-config {dir}/client/client.properties --list\n\
         keep safe:      {dir}/tls/ca.key signs every certificate of this cluster\n"
    )
}
