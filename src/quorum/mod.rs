//! The metadata quorum: runs Raft over the stored log, applies what is committed, publishes the image.
//!
//! A node alone is a quorum of one voter; the code path of a proposal (log, sync, commit, apply, answer) is the same with
//! three. Invariants:
//!
//! - A proposal is answered after a majority of the voters has synced its log entry, its effect is stored here in order behind
//!   it, and the image with its effect is published: whoever has the answer finds it in [`Quorum::image`] and
//!   [`Quorum::index`], whichever node led.
//! - [`Quorum::ready`] returns with an image that has every command answered before.
//! - A voter is a node with its metadata folder: a folder that was lost takes its vote with it.
//! - The first storage failure is final ([`Quorum::failure`]): proposals fail from then on, and the process must exit.
//!
//! Nothing here looks into commands; that is `metadata`'s. Never called per produce request.

mod answers;
mod describe;
mod election;
mod group;
mod index;
mod kept;
mod log;
mod machine;
mod manage;
mod member;
mod membership;
mod message;
mod network;
mod plant;
mod proposer;
mod resume;
mod serve;
#[cfg(test)]
mod sim;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::base::limits::{COMMAND_BYTES_MAX, SNAPSHOT_PIECE_BYTES};
use crate::base::{DirectoryId, NodeId};
use crate::env::Entropy;
use crate::kv::hard_state::{Owner, Vote};
use crate::kv::raft_log::Membership;
use crate::kv::{Batch, Durability, Fenced, Kv, OpenError, ReadError};
use crate::metadata::{Command, Image, Response};

pub use describe::{QuorumMember, QuorumView};
pub use index::{ObjectIndex, Totals, Unsettled};
pub use kept::{KeepError, KeptState, KeptStates};
pub use network::{Transport, TransportError};
pub use proposer::ProposeError;
pub use snapshot::SnapshotError;

use describe::{Followers, Viewer};
pub use election::LEADER_LEASE;
use election::{Contact, Election, HEARTBEAT};
use index::KvIndex;
use log::{LogStore, blocking};
use machine::{Core, Machine};
use member::{node_of, raft_id};
use message::{Ask, Tell};
use network::{Network, NoPeers};
use plant::Bug;
use proposer::{Proposal, Proposer, QUEUE_COMMANDS};
use resume::Resumed;
use serve::Server;
use types::{TypeConfig, spawn};

/// A node that is its own only voter leads at once; whoever waits longer has a defect before it.
const LEADER_WAIT: Duration = Duration::from_secs(30);
/// A sole voter that was not interrupted leads as soon as it runs.
const ELECTED_ALREADY: Duration = Duration::from_millis(50);
/// Pause between two tries to catch up with the leader.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(200);
/// How long one such try may take.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the leader may take to say how the quorum is.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to take a node out of the quorum.
const TAKE_OUT_WAIT: Duration = Duration::from_secs(15);
/// How often a node that waits for the others says so.
const WAITING_NOTE: Duration = Duration::from_secs(10);

/// What a missing or empty folder may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Nothing: this node has served before, so its folder is lost, not new.
    No,
    /// The first voter of a new quorum.
    Quorum,
    /// A member of a quorum that is there, which has to take it in.
    Member,
}

#[derive(Debug, Clone)]
pub struct QuorumOptions {
    /// Folder of the log and the state; nobody else may write there.
    pub dir: PathBuf,
    pub node: NodeId,
    pub create: Create,
}

/// How much log is kept, and in which pieces a snapshot is sent.
#[derive(Debug, Clone, Copy)]
struct Thrift {
    /// Entries after which the log is purged behind a snapshot.
    snapshot_entries: u64,
    /// Entries that are kept behind it, for voters that are a little late.
    kept_entries: u64,
    piece_bytes: u64,
}

impl Default for Thrift {
    fn default() -> Self {
        Thrift { snapshot_entries: 10_000, kept_entries: 64, piece_bytes: SNAPSHOT_PIECE_BYTES as u64 }
    }
}

/// Why the quorum cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the metadata in {dir} cannot be read: {source}")]
    Read { dir: PathBuf, source: ReadError },
    #[error(
        "node_id = {node} does not fit the metadata folder {}, which belongs to node {found}: put the right casemate.toml \
         and folder together",
        dir.display()
    )]
    OtherNode { dir: PathBuf, found: NodeId, node: NodeId },
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
    #[error("node id {0} is negative")]
    NodeId(NodeId),
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
    /// Members that have the log and no vote.
    pub learners: Vec<NodeId>,
}

pub struct Quorum {
    kv: Arc<Kv>,
    raft: Raft<TypeConfig>,
    owner: Owner,
    raft_id: u64,
    machine: Machine,
    committed: Arc<AtomicU64>,
    proposals: mpsc::Sender<Proposal>,
    transport: Arc<dyn Transport>,
    server: Server,
    /// Whether this node, which leads, says nothing so that another is elected.
    silent: AtomicBool,
    leaving: manage::Leaving,
    /// Turns true when the quorum is shut down.
    stopped: watch::Sender<bool>,
}

impl Quorum {
    /// Opens the folder of a node that has no others, replays what the state lacks, and leads.
    pub async fn start(options: QuorumOptions, entropy: Arc<dyn Entropy>) -> Result<Arc<Quorum>, StartError> {
        let quorum = Self::open(options, Arc::new(NoPeers), entropy).await?;
        quorum.ready().await?;
        Ok(quorum)
    }

    /// Opens the folder and takes part from now on: what other nodes ask is to be handed to [`Quorum::serve`]. A new
    /// folder becomes a quorum of this node alone, or waits until a quorum takes it in.
    pub async fn open(
        options: QuorumOptions,
        transport: Arc<dyn Transport>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Quorum>, StartError> {
        let (opened, dice) = (options.clone(), entropy.clone());
        let opened = tokio::task::spawn_blocking(move || open_folder(&opened, &*dice))
            .await
            .map_err(|e| StartError::Raft(e.to_string()))??;
        Self::begin(opened, options, Thrift::default(), transport, entropy).await
    }

    async fn begin(
        (kv, core, owner, resumed): Opened,
        options: QuorumOptions,
        thrift: Thrift,
        transport: Arc<dyn Transport>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Quorum>, StartError> {
        let raft_id = raft_id(owner.node, owner.directory).ok_or(StartError::NodeId(options.node))?;

        let log = LogStore::new(Arc::clone(&kv));
        let answers = core.answers();
        let (machine, committed) = (Machine::new(core), log.committed());
        let followers = Arc::new(Followers::default());
        let network = Network { transport: transport.clone(), followers: followers.clone() };
        let raft = Raft::new(raft_id, config(thrift)?, network, log, machine.clone()).await;
        let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
        if options.create == Create::Quorum && !raft.is_initialized().await.map_err(|e| failed(&e))? {
            let members = std::collections::BTreeMap::from([(raft_id, EmptyNode {})]);
            raft.initialize(members).await.map_err(|e| failed(&e))?;
        }

        if resumed.is_some_and(|resumed| resumed.lacks_own_entry()) {
            let raft = raft.clone();
            // An error says that another leads by now, or that this node ends.
            spawn(async move { drop(proposer::commit(&raft, group::encode(&[])).await) });
        }
        let stopped = watch::Sender::new(false);
        let contact = Arc::new(Contact::new());
        let election = Election {
            raft_id,
            raft: raft.clone(),
            kv: kv.clone(),
            transport: transport.clone(),
            contact: contact.clone(),
            entropy,
        };
        spawn(election.run(stopped.subscribe()));
        let leaving = manage::Leaving::default();
        spawn(manage::run(raft.clone(), machine.clone(), leaving.clone(), stopped.subscribe()));
        let (proposals, queue) = mpsc::channel(QUEUE_COMMANDS);
        let proposer = Proposer { raft: raft.clone(), raft_id, transport: transport.clone(), answers };
        spawn(proposer.run(queue));
        let viewer = Viewer { raft: raft.clone(), committed: committed.clone(), followers };
        let server = Server { raft_id, raft: raft.clone(), kv: kv.clone(), contact, viewer, resumed };
        Ok(Arc::new(Quorum {
            kv,
            raft,
            owner,
            raft_id,
            machine,
            committed,
            proposals,
            transport,
            server,
            silent: AtomicBool::new(false),
            leaving,
            stopped,
        }))
    }

    /// Waits until this node has applied whatever was answered before, by anybody. A sole voter leads then; any other waits
    /// for a leader, for as long as it takes, and says so in the log.
    pub async fn ready(&self) -> Result<(), StartError> {
        if self.is_alone() {
            return lead(&self.raft, self.raft_id, &self.kv).await;
        }
        let mut noted = Instant::now();
        while !self.catch_up().await? {
            if noted.elapsed() >= WAITING_NOTE {
                noted = Instant::now();
                let voters = self.status().voters;
                tracing::warn!(?voters, "waiting for the metadata quorum: a majority of its voters has to run");
            }
            sleep(CATCH_UP_PAUSE).await;
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        membership.nodes().count() == 1 && membership.voter_ids().eq([self.raft_id])
    }

    /// Applies what the leader has committed by now; false if there is none that answers.
    async fn catch_up(&self) -> Result<bool, StartError> {
        let metrics = self.raft.metrics().borrow().clone();
        metrics.running_state.map_err(|e| failed(&e))?;
        let Some(leader) = metrics.current_leader else { return Ok(false) };
        let index = if leader == self.raft_id {
            match proposer::confirmed(&self.raft, self.server.resumed).await {
                Ok(index) => index,
                Err(_) => return Ok(false),
            }
        } else {
            match network::ask(&*self.transport, node_of(leader), &Ask::Barrier, CATCH_UP_TIMEOUT).await {
                Ok(Tell::Barrier { index }) => index,
                _ => return Ok(false),
            }
        };
        let applied = self.raft.wait(Some(CATCH_UP_TIMEOUT)).applied_index_at_least(index, "catching up").await;
        Ok(applied.is_ok())
    }

    /// An image that has everything that was committed when this was called, by anybody (a linearizable read).
    pub async fn barrier(&self) -> Result<Arc<Image>, ProposeError> {
        match self.catch_up().await {
            Ok(true) => Ok(self.machine.image().borrow().clone()),
            Ok(false) => Err(ProposeError::NotLeader { leader: self.status().leader }),
            Err(error) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    /// Answers what the quorum of node `from` asks. Whatever the bytes are, they harm nothing but their question.
    pub async fn serve(&self, from: NodeId, message: &[u8]) -> Bytes {
        self.server.answer(from, message).await
    }

    /// Whose metadata folder this is, and which.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether this node leads, and a majority has said so within the lease that its voters hold: until then nobody else can
    /// have been elected.
    pub fn leads(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        if plant::has(Bug::LeadsByOldMetrics) {
            let heard = metrics.millis_since_quorum_ack.is_some_and(|ms| Duration::from_millis(ms) < LEADER_LEASE);
            return metrics.state == ServerState::Leader && (heard || self.is_alone());
        }
        // What the metrics say of this was true when they were made, up to a quarter of a second ago.
        let voters = metrics.membership_config.membership().get_joint_config();
        let heard = self.server.viewer.followers.heard_by_majority(voters, self.raft_id);
        metrics.state == ServerState::Leader && heard.is_some_and(|at| at.elapsed() < LEADER_LEASE)
    }

    /// Whether this node is a quorum of its own, and leads it.
    pub fn leads_alone(&self) -> bool {
        self.is_alone() && self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// Whether a majority of the voters takes this node for their leader, asked of them now. For [`LEADER_LEASE`] from the moment
    /// of asking on, by any clock that goes on while a process is paused, none of them elects another; what
    /// [`Quorum::leads`] says was true a moment ago, and that moment may lie before a pause.
    pub async fn confirm_lead(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        let may_ask = metrics.state == ServerState::Leader && !self.silent.load(Ordering::Relaxed);
        may_ask && self.raft.ensure_linearizable().await.is_ok()
    }

    /// Hands the leadership to `node`, a voter: this node, which leads, falls silent for as long as the others need to vote, and
    /// asks it to stand. False if it does not lead or the other did not get through; then everything is as before.
    pub async fn hand_over(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.state != ServerState::Leader || !self.status().voters.contains(&node) || node == self.owner.node {
            return false;
        }
        // Also when whoever waits for this gives up: a leader that stayed silent would lead nobody.
        let _silent = Silent::new(&self.raft, &self.silent);
        sleep(LEADER_LEASE + HEARTBEAT).await;
        let asked = network::ask(&*self.transport, node, &Ask::Succeed, LEADER_LEASE).await;
        let led = |m: &openraft::RaftMetrics<u64, EmptyNode>| m.current_leader.is_some_and(|id| node_of(id) == node);
        asked.is_ok() && self.raft.wait(Some(LEADER_LEASE)).metrics(led, "hand over").await.is_ok()
    }

    /// Takes `node` out of the quorum ahead of `Command::RemoveNode`, which this node, the leader, is to propose while the
    /// answer lives: a voter that was forgotten first would still count, and not be heard. None if it did not come about,
    /// because this node does not lead, or the voters that stay are no majority; then everything is as before. The leader
    /// itself cannot be taken out.
    pub async fn take_out(&self, node: NodeId) -> Option<TakenOut<'_>> {
        if node == self.owner.node || !self.leads() {
            return None;
        }
        {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            if leaving.is_some() {
                return None;
            }
            *leaving = Some(node);
        }
        let taken = TakenOut(self);
        let is_out = |m: &openraft::RaftMetrics<u64, EmptyNode>| {
            let membership = m.membership_config.membership();
            membership.get_joint_config().len() == 1 && membership.nodes().all(|(id, _)| node_of(*id) != node)
        };
        self.raft.wait(Some(TAKE_OUT_WAIT)).metrics(is_out, "take out").await.ok().map(|_| taken)
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

    /// Proposes `command` for as long as nobody takes it, or its outcome is unknown: a node that starts has nothing better to
    /// do. With the answer, whether an earlier attempt may have been carried out, too. Errors: the quorum has stopped, or the
    /// command is too large.
    pub async fn propose_on(&self, command: &Command) -> Result<(Response, bool), ProposeError> {
        let (mut doubtful, mut said) = (false, None::<Instant>);
        loop {
            match self.propose(command).await {
                Ok(response) => return Ok((response, doubtful)),
                Err(error @ (ProposeError::Stopped(_) | ProposeError::TooLarge { .. })) => return Err(error),
                Err(error) => {
                    doubtful |= matches!(error, ProposeError::Unknown(_));
                    if said.is_none_or(|at| at.elapsed() >= WAITING_NOTE) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "this node waits until the metadata can be changed");
                    }
                    sleep(CATCH_UP_PAUSE).await;
                }
            }
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
        let metrics = self.raft.metrics().borrow().clone();
        let applied = metrics.last_applied.map(|id| id.index);
        let membership = metrics.membership_config.membership();
        let by_node = |mut nodes: Vec<NodeId>| {
            nodes.sort_unstable();
            nodes
        };
        let voters = by_node(membership.voter_ids().map(node_of).collect());
        let learners = by_node(membership.learner_ids().map(node_of).collect());
        QuorumStatus {
            leader: metrics.current_leader.map(node_of),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            // A start finds applied entries and commits nothing.
            committed: self.committed.load(Ordering::Relaxed).max(applied.map_or(0, |index| index + 1)),
            applied,
            voters,
            learners,
        }
    }

    /// The quorum as its leader sees it, asked of the leader; none if no leader answers in time.
    pub async fn view(&self) -> Option<QuorumView> {
        if let Some(view) = self.server.viewer.view() {
            return Some(view);
        }
        let leader = node_of(self.raft.metrics().borrow().current_leader?);
        match network::ask(&*self.transport, leader, &Ask::Describe, VIEW_TIMEOUT).await {
            Ok(Tell::Described(view)) => Some(view),
            _ => None,
        }
    }

    /// Everything, as of now, in one piece; [`Quorum::restore`] takes it back.
    pub async fn snapshot_bytes(&self) -> Result<Bytes, ReadError> {
        let machine = self.machine.clone();
        let encoded = blocking(&self.kv, move |_| machine.snapshot_bytes()).await;
        encoded.map_err(|e| ReadError::Io(e.to_string()))?.map(Bytes::from)
    }

    /// Makes the fresh folder `dir` a quorum of `node` alone with the state of a snapshot. Blocks on the disk.
    pub fn restore(dir: &Path, node: NodeId, bytes: &[u8], entropy: &dyn Entropy) -> Result<(), RestoreError> {
        let owner = Owner { node, directory: new_directory(entropy) };
        let voter = raft_id(node, owner.directory).ok_or(RestoreError::NodeId(node))?;
        let mut restored = snapshot::decode(bytes)?;
        let kv = Kv::open(dir, true)?;
        if kv.vote()?.is_some() || kv.machine_state()? != Default::default() {
            return Err(RestoreError::NotEmpty(dir.to_owned()));
        }
        let mut batch = Batch::default();
        batch.put_owner(&owner);
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
        self.stopped.send_replace(true);
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "the metadata quorum did not stop cleanly");
        }
    }
}

/// A node stays out of the quorum as long as this lives; afterwards the metadata decide.
pub struct TakenOut<'a>(&'a Quorum);

impl Drop for TakenOut<'_> {
    fn drop(&mut self) {
        *self.0.leaving.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A leader sends no heartbeats as long as this lives.
struct Silent<'a>(&'a Raft<TypeConfig>, &'a AtomicBool);

impl<'a> Silent<'a> {
    fn new(raft: &'a Raft<TypeConfig>, silent: &'a AtomicBool) -> Self {
        silent.store(true, Ordering::Relaxed);
        raft.runtime_config().heartbeat(false);
        Silent(raft, silent)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.runtime_config().heartbeat(true);
        self.1.store(false, Ordering::Relaxed);
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        self.stopped.send_replace(true);
    }
}

fn failed(error: &dyn std::fmt::Display) -> StartError {
    StartError::Raft(error.to_string())
}

/// What a quorum begins with: the store, the state in it, whose it is, and what it led before.
type Opened = (Arc<Kv>, Core, Owner, Option<Resumed>);

fn open_folder(options: &QuorumOptions, entropy: &dyn Entropy) -> Result<Opened, StartError> {
    if options.node.0 < 0 {
        return Err(StartError::NodeId(options.node));
    }
    open(Kv::open(&options.dir, options.create != Create::No)?, options, entropy)
}

fn open(kv: Kv, options: &QuorumOptions, entropy: &dyn Entropy) -> Result<Opened, StartError> {
    let unreadable = |source| StartError::Read { dir: options.dir.clone(), source };
    let kv = Arc::new(kv);
    let core = Core::load(Arc::clone(&kv)).map_err(unreadable)?;
    let owner = match kv.owner().map_err(unreadable)? {
        Some(owner) => owner,
        None => claim(&kv, &core, options.node, entropy).map_err(unreadable)?,
    };
    if owner.node != options.node {
        return Err(StartError::OtherNode { dir: options.dir.clone(), found: owner.node, node: options.node });
    }
    let resumed = match raft_id(owner.node, owner.directory) {
        Some(raft_id) => Resumed::read(&kv, raft_id).map_err(unreadable)?,
        None => None,
    };
    Ok((kv, core, owner, resumed))
}

/// Writes into a folder whose it is. One that was made before folders said so has a sole voter, which is its node.
fn claim(kv: &Kv, core: &Core, node: NodeId, entropy: &dyn Entropy) -> Result<Owner, ReadError> {
    let used = kv.vote()?.is_some() || core.state().membership_at.is_some();
    let owner = match core.state().membership.nodes.first() {
        Some(first) if used => Owner { node: node_of(*first), directory: DirectoryId(0) },
        _ if used => Owner { node, directory: DirectoryId(0) },
        _ => Owner { node, directory: new_directory(entropy) },
    };
    let mut batch = Batch::default();
    batch.put_owner(&owner);
    kv.write(batch, Durability::Synced).map_err(|fenced| ReadError::Io(fenced.to_string()))?;
    Ok(owner)
}

/// Never zero, which stands for folders that have none.
fn new_directory(entropy: &dyn Entropy) -> DirectoryId {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    DirectoryId(u32::from_be_bytes(random).max(1))
}

fn config(thrift: Thrift) -> Result<Arc<Config>, StartError> {
    let lease = LEADER_LEASE.as_millis() as u64;
    let config = Config {
        cluster_name: "casemate".to_string(),
        heartbeat_interval: HEARTBEAT.as_millis() as u64,
        // The election is ours; what is left of these is the lease, which is the maximum.
        enable_elect: false,
        election_timeout_min: lease - 100,
        election_timeout_max: lease,
        install_snapshot_timeout: 10_000,
        snapshot_max_chunk_size: thrift.piece_bytes,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(thrift.snapshot_entries),
        max_in_snapshot_log_to_keep: thrift.kept_entries,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| StartError::Raft(e.to_string()))
}

/// Makes this node, the sole voter, the leader and waits until every entry of its log is applied.
async fn lead(raft: &Raft<TypeConfig>, raft_id: u64, kv: &Arc<Kv>) -> Result<(), StartError> {
    if raft.wait(Some(ELECTED_ALREADY)).current_leader(raft_id, "lead").await.is_err() {
        // Killed between its vote and the word that it leads; the timer would get there too, later.
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
        _ => proposer::commit(raft, group::encode(&[])).await.map(drop).map_err(|e| failed(&e)),
    }
}
