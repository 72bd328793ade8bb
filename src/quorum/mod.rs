//! The metadata quorum: runs Raft over the stored log, applies what is committed, publishes the image.
//!
//! Today it has one voter, this node; the code path of a proposal (log, sync, commit, apply, answer) is the one that
//! more voters will use. Invariants:
//!
//! - A proposal is answered after its log entry is synced, its effect is stored in order behind it, and the image
//!   with its effect is published: whoever has the answer finds it in [`Quorum::image`] and [`Quorum::index`].
//! - [`Quorum::start`] returns with the image that has every command ever answered.
//! - The first storage failure is final ([`Quorum::failure`]): proposals fail from then on, and the process must exit.
//!
//! Nothing here looks into commands; that is `metadata`'s. Never called per produce request.

mod group;
mod index;
mod kept;
mod log;
mod machine;
mod network;
mod proposer;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::{Config, EmptyNode, Raft, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::NodeId;
use crate::base::limits::COMMAND_BYTES_MAX;
use crate::kv::hard_state::Vote;
use crate::kv::raft_log::Membership;
use crate::kv::{Batch, Durability, Fenced, Kv, OpenError, ReadError};
use crate::metadata::{Command, Image, Response};

pub use index::{ObjectIndex, Totals, Unsettled};
pub use kept::{KeepError, KeptState, KeptStates};
pub use proposer::ProposeError;
pub use snapshot::SnapshotError;

use index::KvIndex;
use log::{LogStore, blocking};
use machine::{Core, Machine};
use network::NoPeers;
use proposer::{Proposal, QUEUE_COMMANDS};
use types::TypeConfig;

/// A node that is its own only voter leads at once; whoever waits longer has a defect before it.
const LEADER_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct QuorumOptions {
    /// Folder of the log and the state; nobody else may write there.
    pub dir: PathBuf,
    pub node: NodeId,
    /// Whether a missing or empty folder may become a new quorum. False once this node has ever served: the folder
    /// is then lost, not new.
    pub create: bool,
}

/// Why the quorum cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the metadata in {dir} cannot be read: {source}")]
    Read { dir: PathBuf, source: ReadError },
    #[error(
        "node_id = {node} does not fit the metadata folder {}, which belongs to node {}: put the right casemate.toml \
         and folder together",
        dir.display(), found.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    OtherNode { dir: PathBuf, found: Vec<u64>, node: NodeId },
    #[error("node id {0} is negative")]
    NodeId(NodeId),
    #[error("the metadata quorum cannot start: {0}")]
    Raft(String),
}

/// Why a snapshot was not put into a fresh folder.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0} holds metadata already: restore into an empty folder")]
    NotEmpty(PathBuf),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// What DescribeQuorum and the metrics show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Index of the last entry of this node's log.
    pub last_index: Option<u64>,
    /// Index after the last committed entry.
    pub committed: u64,
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    pub voters: Vec<NodeId>,
}

pub struct Quorum {
    kv: Arc<Kv>,
    raft: Raft<TypeConfig>,
    machine: Machine,
    committed: Arc<AtomicU64>,
    proposals: mpsc::Sender<Proposal>,
}

impl Quorum {
    /// Opens the folder, replays what the state lacks, and leads. A new folder becomes a quorum of this node alone.
    pub async fn start(options: QuorumOptions) -> Result<Arc<Quorum>, StartError> {
        let raft_id = u64::try_from(options.node.0).map_err(|_| StartError::NodeId(options.node))?;
        let opened = options.clone();
        let (kv, core) =
            tokio::task::spawn_blocking(move || open(&opened)).await.map_err(|e| StartError::Raft(e.to_string()))??;
        let voters = &core.state().membership.nodes;
        if core.state().membership_at.is_some() && !voters.contains(&raft_id) {
            return Err(StartError::OtherNode { dir: options.dir, found: voters.clone(), node: options.node });
        }

        let log = LogStore::new(Arc::clone(&kv));
        let (machine, committed) = (Machine::new(core), log.committed());
        let config = config()?;
        let raft = Raft::new(raft_id, config, NoPeers, log, machine.clone()).await;
        let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
        lead(&raft, raft_id, &kv).await?;

        let (proposals, queue) = mpsc::channel(QUEUE_COMMANDS);
        tokio::spawn(proposer::run(raft.clone(), queue));
        Ok(Arc::new(Quorum { kv, raft, machine, committed, proposals }))
    }

    /// Commits and applies `command`. A caller that stops waiting leaves the outcome unknown.
    pub async fn propose(&self, command: &Command) -> Result<Response, ProposeError> {
        let command = command.encode();
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len(), max: COMMAND_BYTES_MAX });
        }
        let stopped = || ProposeError::Stopped(self.stop_reason());
        let (reply, answer) = oneshot::channel();
        self.proposals.send(Proposal { command, reply }).await.map_err(|_| stopped())?;
        match answer.await {
            Ok(Err(ProposeError::Stopped(_))) | Err(_) => Err(stopped()),
            Ok(answer) => answer,
        }
    }

    fn stop_reason(&self) -> String {
        self.kv.failure().borrow().as_deref().unwrap_or("the node is shutting down").to_string()
    }

    /// The image after every applied command; it changes with each.
    pub fn image(&self) -> watch::Receiver<Arc<Image>> {
        self.machine.image()
    }

    pub fn index(&self) -> Arc<dyn ObjectIndex> {
        Arc::new(KvIndex(Arc::clone(&self.kv)))
    }

    /// What this node keeps for itself beside the metadata.
    pub fn kept_states(&self) -> KeptStates {
        KeptStates(Arc::clone(&self.kv))
    }

    /// The first storage failure, once there is one: fence the node and exit.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.kv.failure()
    }

    pub fn status(&self) -> QuorumStatus {
        let node = |id: u64| NodeId(i32::try_from(id).unwrap_or(i32::MAX));
        let metrics = self.raft.metrics().borrow().clone();
        let applied = metrics.last_applied.map(|id| id.index);
        QuorumStatus {
            leader: metrics.current_leader.map(node),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            // A start finds applied entries and commits nothing.
            committed: self.committed.load(Ordering::Relaxed).max(applied.map_or(0, |index| index + 1)),
            applied,
            voters: metrics.membership_config.voter_ids().map(node).collect(),
        }
    }

    /// Everything, as of now, in one piece; [`Quorum::restore`] takes it back.
    pub async fn snapshot_bytes(&self) -> Result<Bytes, ReadError> {
        let machine = self.machine.clone();
        let encoded = blocking(&self.kv, move |_| machine.snapshot_bytes()).await;
        encoded.map_err(|e| ReadError::Io(e.to_string()))?.map(Bytes::from)
    }

    /// Makes the fresh folder `dir` a quorum of `node` alone with the state of a snapshot. Blocks on the disk.
    pub fn restore(dir: &Path, node: NodeId, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut restored = snapshot::decode(bytes)?;
        let kv = Kv::open(dir, true)?;
        if kv.vote()?.is_some() || kv.machine_state()? != Default::default() {
            return Err(RestoreError::NotEmpty(dir.to_owned()));
        }
        let voter = u64::try_from(node.0).unwrap_or_default();
        let mut batch = Batch::default();
        restored.state.membership = Membership { configs: vec![vec![voter]], nodes: vec![voter] };
        restored.state.membership_at = restored.state.applied;
        if let Some(applied) = restored.state.applied {
            // The log goes on after the snapshot, in a term above all that it has seen.
            batch.put_purged(&applied);
            batch.put_vote(&Vote { term: applied.term, node: voter, committed: false });
        }
        restored.write(&Image::default(), &mut batch);
        kv.write(batch, Durability::Synced)?;
        Ok(())
    }

    /// Stops Raft. Nothing has to be saved: what was answered is stored.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "the metadata quorum did not stop cleanly");
        }
    }
}

fn open(options: &QuorumOptions) -> Result<(Arc<Kv>, Core), StartError> {
    let kv = Arc::new(Kv::open(&options.dir, options.create)?);
    let core = Core::load(Arc::clone(&kv)).map_err(|source| StartError::Read { dir: options.dir.clone(), source })?;
    Ok((kv, core))
}

fn config() -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: "casemate".to_string(),
        // With one voter nothing waits for these; they only set how often an idle node wakes up.
        heartbeat_interval: 500,
        election_timeout_min: 1500,
        election_timeout_max: 3000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(10_000),
        max_in_snapshot_log_to_keep: 64,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| StartError::Raft(e.to_string()))
}

/// Makes this node the leader and waits until every entry of its log is applied.
async fn lead(raft: &Raft<TypeConfig>, raft_id: u64, kv: &Arc<Kv>) -> Result<(), StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Raft(e.to_string());
    if !raft.is_initialized().await.map_err(|e| failed(&e))? {
        let members = std::collections::BTreeMap::from([(raft_id, EmptyNode {})]);
        raft.initialize(members).await.map_err(|e| failed(&e))?;
    } else if raft.current_leader().await != Some(raft_id) {
        // Killed between a vote and its majority; the timer would get there too, later.
        raft.trigger().elect().await.map_err(|e| failed(&e))?;
    }
    raft.wait(Some(LEADER_WAIT)).current_leader(raft_id, "lead").await.map_err(|e| failed(&e))?;

    // A leader commits what former terms left only with an entry of its own; openraft writes one when it wins an
    // election, but not when it finds itself leader again after a restart.
    let read = blocking(kv, |kv| Ok::<_, ReadError>((kv.vote()?, kv.last_log_position()?))).await;
    let (vote, last) = read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    match (vote, last) {
        (Some(vote), Some(last)) if (vote.term, vote.node) == (last.term, last.node) => {
            let applied = raft.wait(Some(LEADER_WAIT)).applied_index_at_least(Some(last.index), "replay").await;
            applied.map(drop).map_err(|e| failed(&e))
        }
        _ => proposer::write(raft, &[]).await.map(drop).map_err(|e| failed(&e)),
    }
}
