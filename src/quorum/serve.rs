//! What this node's quorum answers to others.

use std::sync::Arc;

use bytes::Bytes;
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{AppendEntriesResponse, InstallSnapshotRequest};
use openraft::{Raft, ServerState};

use super::describe::Viewer;
use super::election::{self, Contact};
use super::group;
use super::member::node_of;
use super::message::{Ask, Tell};
use super::plant::{self, Bug};
use super::proposer::{self, ProposeError};
use super::resume::Resumed;
use super::types::{TypeConfig, spawn};
use crate::base::NodeId;
use crate::base::limits::SNAPSHOT_BYTES_MAX;
use crate::kv::Kv;
use crate::metadata::Command;

/// The parts of a quorum that answer.
pub(super) struct Server {
    pub raft_id: u64,
    pub raft: Raft<TypeConfig>,
    pub kv: Arc<Kv>,
    pub contact: Arc<Contact>,
    pub viewer: Viewer,
    /// If this node led when it last ended.
    pub resumed: Option<Resumed>,
}

fn refused(reason: impl ToString) -> Tell {
    Tell::Refused { reason: reason.to_string() }
}

impl Server {
    /// Answers `message`, whatever it is: what cannot be read is refused, and changes nothing.
    pub async fn answer(&self, from: NodeId, message: &[u8]) -> Bytes {
        let tell = match Ask::decode(message) {
            Ok((Some(voter), _)) if voter != self.raft_id && !plant::has(Bug::AnyFolderAnswers) => refused(
                "this node has another metadata folder than the voter that was meant: add it to the cluster anew",
            ),
            Ok((_, ask)) => self.carry_out(from, ask).await,
            Err(error) => {
                tracing::warn!(%from, %error, "a message to the metadata quorum cannot be read");
                refused(error)
            }
        };
        Bytes::from(tell.encode())
    }

    async fn carry_out(&self, from: NodeId, ask: Ask) -> Tell {
        match ask {
            Ask::Append(ask) => {
                // Before the log is written: a slow disk of this node is no silence of the leader.
                self.note_leader(ask.vote.committed && ask.vote >= self.raft.metrics().borrow().vote);
                let answer = self.raft.append_entries(ask).await;
                self.note_leader(matches!(
                    answer,
                    Ok(AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_))
                ));
                answer.map_or_else(refused, Tell::Append)
            }
            Ask::Vote(ask) => self.raft.vote(ask).await.map_or_else(refused, Tell::Vote),
            Ask::Snapshot(ask) => self.take_snapshot(ask).await,
            Ask::Canvass { last } => {
                let metrics = self.raft.metrics().borrow().clone();
                Tell::Canvass { granted: election::promises(&metrics, &self.contact, &self.kv, last).await }
            }
            Ask::Propose { group } => self.propose(from, &group).await,
            Ask::Barrier => match proposer::confirmed(&self.raft, self.resumed).await {
                Ok(index) => Tell::Barrier { index },
                Err(error) => match proposer::not_leader(&error) {
                    Some(leader) => Tell::NotLeader { leader },
                    None => refused(error),
                },
            },
            Ask::Describe => match self.viewer.view() {
                Some(view) => Tell::Described(view),
                None => Tell::NotLeader { leader: self.raft.metrics().borrow().current_leader.map(node_of) },
            },
            Ask::Succeed => match self.raft.trigger().elect().await {
                Ok(()) => Tell::Succeed,
                Err(error) => refused(error),
            },
        }
    }

    fn note_leader(&self, heard: bool) {
        if heard {
            self.contact.heard();
        }
    }

    async fn take_snapshot(&self, ask: InstallSnapshotRequest<TypeConfig>) -> Tell {
        if ask.offset.saturating_add(ask.data.len() as u64) > SNAPSHOT_BYTES_MAX as u64 {
            return refused(format!("a snapshot of more than {SNAPSHOT_BYTES_MAX} bytes"));
        }
        self.note_leader(ask.vote.committed && ask.vote >= self.raft.metrics().borrow().vote);
        match self.raft.install_snapshot(ask).await {
            Ok(answer) => Tell::Snapshot(answer),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Tell::SnapshotMismatch { expect: mismatch.expect, got: mismatch.got }
            }
            Err(error) => refused(error),
        }
    }

    /// Commits a group of another node. It is read first: an entry that cannot be applied would stop every node. What only
    /// a node itself may say is taken from nobody else.
    async fn propose(&self, from: NodeId, bytes: &[u8]) -> Tell {
        let commands = match group::decode(bytes) {
            Ok(commands) if commands.len() <= group::COMMANDS_MAX && bytes.len() <= group::ENCODED_BYTES_MAX => {
                commands
            }
            Ok(_) => return refused("a group of commands that is too large"),
            Err(error) => return refused(error),
        };
        for command in commands {
            let node = match Command::decode(command) {
                Ok(command) => command.only_by(),
                Err(error) => return refused(error),
            };
            if let Some(node) = node.filter(|node| *node != from) {
                tracing::warn!(%from, %node, "a node proposed what only another may: refused");
                return refused(format!(
                    "node {from} proposed what only node {node} may: check that node's certificate"
                ));
            }
        }
        if plant::has(Bug::AnswerBeforeCommit) {
            return self.guess(bytes.to_vec());
        }
        match proposer::commit(&self.raft, bytes.to_vec()).await {
            Ok((index, _)) => Tell::Proposed { index },
            Err(ProposeError::NotLeader { leader }) => Tell::NotLeader { leader },
            // It may be in the log.
            Err(error) if !plant::has(Bug::RefusedThoughUnknown) => Tell::Unknown { reason: error.to_string() },
            Err(error) => refused(error),
        }
    }

    /// For the bug of that name only.
    fn guess(&self, group: Vec<u8>) -> Tell {
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.state != ServerState::Leader {
            return Tell::NotLeader { leader: metrics.current_leader.map(node_of) };
        }
        let raft = self.raft.clone();
        spawn(async move { drop(proposer::commit(&raft, group).await) });
        Tell::Proposed { index: metrics.last_log_index.map_or(0, |last| last + 1) }
    }
}
