//! The types that openraft is run with, and their translation from and to the stored forms of `kv`.
//!
//! Nothing of openraft's own encoding is ever stored: what a log entry, a vote or a membership looks like on disk is
//! decided in `kv`, so that openraft can be replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use openraft::{AsyncRuntime, CommittedLeaderId, EntryPayload, LogId, StoredMembership, Vote};
use serde::{Deserialize, Serialize};

use crate::kv::hard_state;
use crate::kv::raft_log::{LogEntry, LogPosition, Membership, Payload};
use crate::metadata::Response;

openraft::declare_raft_types!(
    /// One log entry is one group of commands.
    pub TypeConfig:
        D = CommandGroup,
        R = Applied,
        NodeId = u64,
        Node = openraft::EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

/// Where tasks run: tokio; in the unit tests it can be replaced by a simulation.
#[cfg(not(test))]
pub type Runtime = openraft::TokioRuntime;
#[cfg(test)]
pub type Runtime = super::sim::Runtime;

/// Begins a task that nobody waits for.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(<Runtime as AsyncRuntime>::spawn(task));
}

pub type Entry = openraft::Entry<TypeConfig>;
pub type StorageError = openraft::StorageError<u64>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
pub type Members = StoredMembership<u64, openraft::EmptyNode>;

/// Commands proposed together, as [`super::group`] encodes them. (serde only because openraft asks for it.)
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandGroup(pub Vec<u8>);

/// What the commands of one entry answered, in order; nothing for entries of Raft itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Applied {
    #[serde(skip)]
    pub responses: Vec<Response>,
}

pub fn position(id: &LogId<u64>) -> LogPosition {
    LogPosition { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub fn log_id(position: &LogPosition) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(position.term, position.node), position.index)
}

pub fn stored_entry(entry: Entry) -> LogEntry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(group) => Payload::Command(group.0),
        EntryPayload::Membership(membership) => Payload::Membership(stored_membership(&membership)),
    };
    LogEntry { position: position(&entry.log_id), payload }
}

pub fn raft_entry(entry: LogEntry) -> Entry {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(CommandGroup(bytes)),
        Payload::Membership(membership) => EntryPayload::Membership(raft_membership(&membership)),
    };
    Entry { log_id: log_id(&entry.position), payload }
}

pub fn stored_membership(membership: &openraft::Membership<u64, openraft::EmptyNode>) -> Membership {
    Membership {
        configs: membership.get_joint_config().iter().map(|voters| voters.iter().copied().collect()).collect(),
        nodes: membership.nodes().map(|(node, _)| *node).collect(),
    }
}

pub fn raft_membership(membership: &Membership) -> openraft::Membership<u64, openraft::EmptyNode> {
    let configs = membership.configs.iter().map(|voters| voters.iter().copied().collect::<BTreeSet<_>>()).collect();
    let nodes: BTreeMap<_, _> = membership.nodes.iter().map(|node| (*node, openraft::EmptyNode {})).collect();
    openraft::Membership::new(configs, nodes)
}

pub fn stored_vote(vote: &Vote<u64>) -> hard_state::Vote {
    hard_state::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub fn raft_vote(vote: &hard_state::Vote) -> Vote<u64> {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}
