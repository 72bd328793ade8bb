//! Gathers commands that are proposed at the same time into groups, so that they share one log entry and one sync, and takes
//! them to the leader.
//!
//! One group is under way at a time; what arrives meanwhile forms the next one, so nobody ever waits for company.
//! Commands of one caller, each proposed after the answer to the one before, keep their order; others have none.
//! A group that the leader certainly did not take is proposed again, to whoever leads then; one of which that is not known
//! never is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError};
use openraft::{Raft, ServerState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::answers::Answers;
use super::group;
use super::member::node_of;
use super::message::{Ask, Tell};
use super::network::{Answer, Transport, TransportError, ask};
use super::plant::{self, Bug};
use super::resume::Resumed;
use super::types::{CommandGroup, TypeConfig};
use crate::base::NodeId;
use crate::metadata::Response;

/// Commands that wait; the next proposer waits too.
pub const QUEUE_COMMANDS: usize = 256;
/// Bytes of log after which a snapshot is asked for, so that the log can be purged.
const SNAPSHOT_BYTES: usize = 64 << 20;
/// How long a proposer waits for somebody to lead.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// Pause before the leader is looked for again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How long the leader may take to commit, and this node to follow.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    #[error("the command has {bytes} bytes, the limit is {max}")]
    TooLarge { bytes: usize, max: usize },
    /// Nothing was changed.
    #[error("nobody leads the metadata quorum that this node reaches{}", .leader.map(|n| format!(": node {n} was said to")).unwrap_or_default())]
    NotLeader { leader: Option<NodeId> },
    /// Nothing was changed.
    #[error("the leader of the metadata quorum refused the command: {0}")]
    Refused(String),
    /// Whether the command was or will be applied is unknown.
    #[error("whether the metadata were changed is unknown: {0}")]
    Unknown(String),
    /// Whether the command will be applied is unknown.
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}

pub struct Proposal {
    pub command: Bytes,
    pub reply: oneshot::Sender<Result<Response, ProposeError>>,
}

/// Takes groups to the leader.
pub(super) struct Proposer {
    pub raft: Raft<TypeConfig>,
    pub raft_id: u64,
    pub transport: Arc<dyn Transport>,
    pub answers: Answers,
}

impl Proposer {
    /// Runs until every sender is gone.
    pub async fn run(self, mut queue: mpsc::Receiver<Proposal>) {
        let mut held = None;
        let mut log_bytes = 0;
        loop {
            let first = match held.take() {
                Some(proposal) => proposal,
                None => match queue.recv().await {
                    Some(proposal) => proposal,
                    None => return,
                },
            };
            let mut bytes = first.command.len();
            let mut proposals = vec![first];
            while proposals.len() < group::COMMANDS_MAX {
                let Ok(next) = queue.try_recv() else { break };
                if bytes + next.command.len() > group::BYTES_MAX {
                    held = Some(next);
                    break;
                }
                bytes += next.command.len();
                proposals.push(next);
            }
            self.propose(proposals).await;
            log_bytes += bytes;
            if log_bytes > SNAPSHOT_BYTES {
                log_bytes = 0;
                // A stopped Raft is reported by the next proposal.
                let _ = self.raft.trigger().snapshot().await;
            }
        }
    }

    async fn propose(&self, proposals: Vec<Proposal>) {
        let (commands, replies): (Vec<_>, Vec<_>) = proposals.into_iter().map(|p| (p.command, p.reply)).unzip();
        match self.write(&commands).await {
            Ok(responses) => {
                debug_assert_eq!(responses.len(), replies.len(), "one answer per command");
                for (reply, response) in replies.into_iter().zip(responses) {
                    let _ = reply.send(Ok(response));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Commits and applies one group; an empty one is a barrier.
    pub async fn write(&self, commands: &[Bytes]) -> Result<Vec<Response>, ProposeError> {
        let encoded = group::encode(commands);
        let until = Instant::now() + LEADER_WAIT;
        let mut elsewhere = None;
        loop {
            let tried = match elsewhere {
                None => commit(&self.raft, encoded.clone()).await.map(|(_, responses)| responses),
                Some(leader) => self.forward(leader, encoded.clone()).await,
            };
            let known = match tried {
                Err(ProposeError::NotLeader { leader }) => leader,
                Err(ProposeError::Unknown(_)) if plant::has(Bug::UnknownRepeated) => None,
                done => return done,
            };
            if Instant::now() >= until {
                return Err(ProposeError::NotLeader { leader: known });
            }
            // Who was just asked and does not lead is asked again after a pause.
            let next = known.filter(|leader| *leader != node_of(self.raft_id));
            if next.is_none() || next == elsewhere {
                sleep(LEADER_PAUSE).await;
            }
            elsewhere = next;
        }
    }

    async fn forward(&self, leader: NodeId, group: Vec<u8>) -> Result<Vec<Response>, ProposeError> {
        self.answers.want();
        let unknown = |error: String| ProposeError::Unknown(error);
        let index = match ask(&*self.transport, leader, &Ask::Propose { group }, ANSWER_WAIT).await {
            Ok(Tell::Proposed { index }) => index,
            Ok(Tell::NotLeader { leader }) => return Err(ProposeError::NotLeader { leader }),
            Ok(Tell::Unknown { reason }) => return Err(unknown(reason)),
            // It may be gone; who leads instead this node will hear.
            Err(Answer::Transport(TransportError::Unreachable { .. })) => {
                return Err(ProposeError::NotLeader { leader: None });
            }
            Err(Answer::Refused { reason, .. }) => return Err(ProposeError::Refused(reason)),
            Ok(_) => return Err(unknown(Answer::Other { from: leader }.to_string())),
            Err(error) => return Err(unknown(error.to_string())),
        };
        let applied = self.raft.wait(Some(ANSWER_WAIT)).applied_index_at_least(Some(index), "its own command").await;
        applied.map_err(|error| unknown(error.to_string()))?;
        self.answers.take(index).ok_or_else(|| unknown("its answer came with a snapshot, which has none".to_owned()))
    }
}

/// Commits and applies an encoded group where this node leads. Its index, and what the commands answer.
pub(super) async fn commit(raft: &Raft<TypeConfig>, group: Vec<u8>) -> Result<(u64, Vec<Response>), ProposeError> {
    let metrics = raft.metrics().borrow().clone();
    metrics.running_state.map_err(|error| ProposeError::Stopped(error.to_string()))?;
    if metrics.state != ServerState::Leader {
        return Err(ProposeError::NotLeader { leader: metrics.current_leader.map(node_of) });
    }
    match timeout(ANSWER_WAIT, raft.client_write(CommandGroup(group))).await {
        Ok(Ok(written)) => Ok((written.log_id.index, written.data.responses)),
        // It may have been appended and cut off again here; a voter that has it may yet lead and commit it.
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(ProposeError::Unknown("this node led and does no longer".to_owned()))
        }
        Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
        Err(_) => Err(ProposeError::Unknown(format!("no majority answered within {ANSWER_WAIT:?}"))),
    }
}

/// The index up to which everything stands that was ever answered, by anybody: known to a leader that a majority takes for one now.
pub(super) async fn confirmed(
    raft: &Raft<TypeConfig>,
    resumed: Option<Resumed>,
) -> Result<Option<u64>, RaftError<u64, CheckIsLeaderError<u64, openraft::EmptyNode>>> {
    let metrics = raft.metrics().borrow().clone();
    if plant::has(Bug::BarrierUnconfirmed) && metrics.state == ServerState::Leader {
        return Ok(metrics.last_applied.map(|id| id.index));
    }
    let confirmed = raft.ensure_linearizable().await?.map(|id| id.index);
    Ok(confirmed.max(resumed.and_then(|resumed| resumed.answered(&metrics.vote))))
}

fn leader_of(forward: &ForwardToLeader<u64, openraft::EmptyNode>) -> Option<NodeId> {
    forward.leader_id.map(node_of)
}

/// Whether the error says that this node does not lead, and who does.
pub(super) fn not_leader(
    error: &RaftError<u64, CheckIsLeaderError<u64, openraft::EmptyNode>>,
) -> Option<Option<NodeId>> {
    match error {
        RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => Some(leader_of(forward)),
        RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => Some(None),
        RaftError::Fatal(_) => None,
    }
}
