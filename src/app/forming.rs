//! How a node finds its place among others before it serves: by its folder, by joining, by its record.
//!
//! The folder says what this node is. `join.token` is there until an invited node has joined; `peers.toml` stays, and says that
//! this node came with a bundle: it never makes metadata of its own, which would be another cluster under the same id.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::ClusterId;
use crate::cluster::{self, Cluster, FIRST_GENERATION};
use crate::config::{self, Config, Mode};
use crate::env::{Clock, Entropy};
use crate::metadata::{Command, Endpoint, NodeState, Response};
use crate::peer::Own;
use crate::quorum::{Create, Quorum};
use crate::security::NodeTls;
use crate::security::bundle::{KnownNode, TOKEN_FILE, Token};

use super::Error;
use super::open::is_empty;

/// What the folder says about this node.
pub(super) struct Folder {
    /// There until the node has joined.
    token: Option<(PathBuf, Token)>,
    /// Whom to ask, of the bundle.
    pub known: Vec<KnownNode>,
    pub create: Create,
}

impl Folder {
    /// Reads what the bundle left. Blocks on file I/O.
    pub fn read(config: &Config) -> Result<Folder, Error> {
        let (token, peers) = (config.data_dir.join(TOKEN_FILE), config.data_dir.join(config::PEERS_FILE));
        let refused = |error: &dyn std::fmt::Display| Error::Configuration(error.to_string());
        // Metadata are made only together with the WAL: a folder that has one and not the other has lost something.
        if !peers.exists() && !token.exists() {
            let create = if is_empty(&config.data_dir.join("wal")) { Create::Quorum } else { Create::No };
            return Ok(Folder { token: None, known: Vec::new(), create });
        }
        if config.mode == Mode::Dev {
            return Err(Error::Configuration(format!(
                "{} was made from a join bundle and casemate dev is a node alone: use casemate serve",
                config.data_dir.display()
            )));
        }
        if !peers.exists() {
            return Err(Error::Configuration(format!(
                "{} says that this node has to join its cluster first, but {}, which says whom to ask, is not there: make \
                 the folder anew from its bundle",
                token.display(),
                peers.display()
            )));
        }
        let known = config::read_peers(&peers).map_err(|error| refused(&error))?;
        if !token.exists() {
            return Ok(Folder { token: None, known, create: Create::No });
        }
        let read = Token::read(&token).map_err(|error| refused(&error))?;
        Ok(Folder { token: Some((token, read)), known, create: Create::Member })
    }
}

/// This node for others.
pub(super) fn plane(
    config: &Config,
    folder: &Folder,
    tls: Arc<NodeTls>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Arc<Cluster> {
    Cluster::new(own(config, &*entropy), tls, folder.known.clone(), clock, entropy)
}

fn own(config: &Config, entropy: &dyn Entropy) -> Own {
    let mut process = [0; 8];
    entropy.fill(&mut process);
    Own {
        cluster: config.cluster,
        generation: FIRST_GENERATION,
        node: config.node,
        process: u64::from_be_bytes(process),
        software: format!("casemate {}", env!("CARGO_PKG_VERSION")),
    }
}

/// Joins if this node has yet to, and waits until its metadata are up to date.
pub(super) async fn take_part(
    config: &Config,
    folder: Folder,
    cluster: &Cluster,
    quorum: &Quorum,
) -> Result<(), Error> {
    let storage = |error: &dyn std::fmt::Display| Error::Storage(error.to_string());
    let Cluster { peers, acquaintances, .. } = cluster;
    let image = quorum.image();
    let directory = quorum.owner().directory;
    if let Some((path, token)) = &folder.token
        && !cluster::has_joined(&image.borrow(), config.node, directory)
    {
        tracing::info!(nodes = ?acquaintances.others(), "joining the cluster");
        cluster::join(peers, acquaintances, token, directory).await.map_err(|error| {
            tracing::error!(%error, token = %path.display(), "this node cannot join");
            Error::Configuration(error.to_string())
        })?;
        tracing::info!("joined the cluster; waiting for its metadata");
    }
    refuse_others_in_dev(config, quorum)?;
    tokio::select! {
        ready = quorum.ready() => ready.map_err(|error| storage(&error))?,
        gone = cluster::catch_up(peers, acquaintances) => return Err(Error::Configuration(gone.to_string())),
    }
    if let Some((path, _)) = &folder.token {
        // Used up. If it stays behind, the next start finds that this node has joined.
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, "{} cannot be removed; it is of no use any more", path.display());
        }
    }
    acquaintances.take(&image.borrow().nodes);
    acquaintances.caught_up();
    Ok(())
}

fn refuse_others_in_dev(config: &Config, quorum: &Quorum) -> Result<(), Error> {
    let image = quorum.image();
    let others = cluster::joined(&image.borrow()).iter().any(|node| node.node != config.node);
    if config.mode == Mode::Dev && others {
        return Err(Error::Configuration(format!(
            "{} belongs to a cluster of several nodes and casemate dev is a node alone: use casemate serve",
            config.data_dir.display()
        )));
    }
    Ok(())
}

/// Names the cluster in new metadata; those of another one are refused.
pub(super) async fn name_cluster(config: &Config, quorum: &Quorum) -> Result<(), Error> {
    let init = Command::InitCluster { cluster: config.cluster, generation: FIRST_GENERATION };
    match quorum.propose(&init).await.map_err(|error| Error::Storage(error.to_string()))? {
        Response::Rejected(reject) => Err(Error::Configuration(format!(
            "cluster_id = {} does not fit the metadata folder ({reject}): put the right casemate.toml and folder together",
            config.cluster
        ))),
        _ => {
            tracing::info!(cluster = %config.cluster, "a new cluster");
            Ok(())
        }
    }
}

/// Whether the metadata are those of no cluster yet, or of another one.
pub(super) fn known_cluster(quorum: &Quorum) -> ClusterId {
    quorum.image().borrow().cluster
}

/// Records where other nodes find this one, and under which certificate, if the metadata do not say so already: the first
/// node of a cluster for the first time, any other when its configuration has changed. `peer` is the address that they are
/// told; a node without one says nothing.
pub(super) async fn record_self(
    config: &Config,
    quorum: &Quorum,
    peer: Option<Endpoint>,
    identity: String,
    now_ms: i64,
) -> Result<(), Error> {
    let Some(Endpoint { host, port, .. }) = peer else { return Ok(()) };
    let (name, rack) = (config.node_name(), config.options.peer.rack.clone());
    let directory = quorum.owner().directory;
    let image = quorum.image().borrow().clone();
    if let Some(known) = image.nodes.get(&config.node) {
        let state = NodeState::Joined { directory };
        let told = (&known.name, &known.rack, &known.host, known.port, &known.identity, known.state);
        if told == (&name, &rack, &host, port, &identity, state) {
            return Ok(());
        }
    }
    let node = config.node;
    let command = Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms };
    // Said twice it does no harm.
    match quorum.propose_on(&command).await.map_err(|error| Error::Storage(error.to_string()))?.0 {
        Response::Rejected(reject) => {
            Err(Error::Configuration(format!("the cluster does not take what this node says of itself: {reject}")))
        }
        _ => {
            tracing::info!(%node, "the cluster knows where this node is");
            Ok(())
        }
    }
}
