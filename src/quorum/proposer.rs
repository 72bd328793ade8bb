//! Gathers commands that are proposed at the same time into groups, so that they share one log entry and one sync.
//!
//! One group is under way at a time; what arrives meanwhile forms the next one, so nobody ever waits for company.
//! Commands of one caller, each proposed after the answer to the one before, keep their order; others have none.

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::group;
use super::types::{CommandGroup, TypeConfig};
use crate::base::NodeId;
use crate::metadata::Response;

/// Commands that wait; the next proposer waits too.
pub const QUEUE_COMMANDS: usize = 256;
/// Bytes of log after which a snapshot is asked for, so that the log can be purged.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    #[error("the command has {bytes} bytes, the limit is {max}")]
    TooLarge { bytes: usize, max: usize },
    /// Nothing was changed.
    #[error("this node does not lead the quorum{}", .leader.map(|n| format!(", node {n} does")).unwrap_or_default())]
    NotLeader { leader: Option<NodeId> },
    /// Whether the command will be applied is unknown.
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}

pub struct Proposal {
    pub command: Bytes,
    pub reply: oneshot::Sender<Result<Response, ProposeError>>,
}

/// Runs until every sender is gone.
pub async fn run(raft: openraft::Raft<TypeConfig>, mut queue: mpsc::Receiver<Proposal>) {
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
        propose(&raft, proposals).await;
        log_bytes += bytes;
        if log_bytes > SNAPSHOT_BYTES {
            log_bytes = 0;
            // A stopped Raft is reported by the next proposal.
            let _ = raft.trigger().snapshot().await;
        }
    }
}

async fn propose(raft: &openraft::Raft<TypeConfig>, proposals: Vec<Proposal>) {
    let (commands, replies): (Vec<_>, Vec<_>) = proposals.into_iter().map(|p| (p.command, p.reply)).unzip();
    match write(raft, &commands).await {
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
pub async fn write(raft: &openraft::Raft<TypeConfig>, commands: &[Bytes]) -> Result<Vec<Response>, ProposeError> {
    match raft.client_write(CommandGroup(group::encode(commands))).await {
        Ok(written) => Ok(written.data.responses),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            let leader = forward.leader_id.and_then(|id| i32::try_from(id).ok()).map(NodeId);
            Err(ProposeError::NotLeader { leader })
        }
        Err(error) => Err(ProposeError::Stopped(error.to_string())),
    }
}
