//! The way to the other voters: openraft's calls, as messages of ours over a [`Transport`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{EmptyNode, RaftNetwork, RaftNetworkFactory};
use tokio::time::Instant;

use super::describe::Followers;
use super::member::node_of;
use super::message::{Ask, Tell};
use super::types::TypeConfig;
use crate::base::NodeId;

/// Carries messages to the quorums of other nodes. What arrives is to be handed to [`super::Quorum::serve`] there, with the
/// node that it came from, which the transport vouches for.
pub trait Transport: Send + Sync + 'static {
    /// Asks and waits for the answer, for at most `timeout`.
    fn call(&self, to: NodeId, ask: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, TransportError>>;
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The question has not left this node.
    #[error("node {to} cannot be reached: {reason}")]
    Unreachable { to: NodeId, reason: String },
    /// The question may have arrived, or not.
    #[error("node {to} did not answer: {reason}")]
    NoAnswer { to: NodeId, reason: String },
}

/// The transport of a node that has no others.
pub(super) struct NoPeers;

impl Transport for NoPeers {
    fn call(&self, to: NodeId, _ask: Bytes, _timeout: Duration) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let reason = "this node has no way to others".to_owned();
        Box::pin(std::future::ready(Err(TransportError::Unreachable { to, reason })))
    }
}

/// An answer that does not fit what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Answer {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("node {from} answered something that cannot be read: {source}")]
    Unreadable { from: NodeId, source: crate::base::codec::DecodeError },
    #[error("node {from} refused: {reason}")]
    Refused { from: NodeId, reason: String },
    #[error("node {from} answered something else than was asked")]
    Other { from: NodeId },
}

/// Asks the quorum of a node, whoever that is. A refusal is an error.
pub(super) async fn ask(transport: &dyn Transport, to: NodeId, ask: &Ask, timeout: Duration) -> Result<Tell, Answer> {
    told(transport, to, ask.encode(None), timeout).await
}

/// Asks one voter, a node with the metadata folder that it had.
pub(super) async fn ask_voter(
    transport: &dyn Transport,
    raft_id: u64,
    ask: &Ask,
    timeout: Duration,
) -> Result<Tell, Answer> {
    told(transport, node_of(raft_id), ask.encode(Some(raft_id)), timeout).await
}

async fn told(transport: &dyn Transport, to: NodeId, ask: Vec<u8>, timeout: Duration) -> Result<Tell, Answer> {
    let told = transport.call(to, Bytes::from(ask), timeout).await?;
    match Tell::decode(&told).map_err(|source| Answer::Unreadable { from: to, source })? {
        Tell::Refused { reason } => Err(Answer::Refused { from: to, reason }),
        told => Ok(told),
    }
}

/// Makes openraft's clients.
pub(super) struct Network {
    pub transport: Arc<dyn Transport>,
    pub followers: Arc<Followers>,
}

/// openraft's client of one other voter.
pub(super) struct Voter {
    transport: Arc<dyn Transport>,
    followers: Arc<Followers>,
    raft_id: u64,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Voter;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Voter {
        Voter { transport: self.transport.clone(), followers: self.followers.clone(), raft_id: target }
    }
}

impl Voter {
    async fn ask<E: std::error::Error>(
        &self,
        question: Ask,
        option: RPCOption,
    ) -> Result<Tell, RPCError<u64, EmptyNode, E>> {
        let asked = ask_voter(&*self.transport, self.raft_id, &question, option.hard_ttl()).await;
        asked.map_err(|error| match error {
            // openraft waits before it tries again.
            Answer::Transport(TransportError::Unreachable { .. }) => RPCError::Unreachable(Unreachable::new(&error)),
            error => RPCError::Network(NetworkError::new(&error)),
        })
    }

    fn other<E: std::error::Error>(&self) -> RPCError<u64, EmptyNode, E> {
        RPCError::Network(NetworkError::new(&Answer::Other { from: node_of(self.raft_id) }))
    }
}

impl RaftNetwork<TypeConfig> for Voter {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let sent = Instant::now();
        let committed = rpc.leader_commit;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        match self.ask(Ask::Append(rpc), option).await? {
            Tell::Append(answer) => {
                match &answer {
                    AppendEntriesResponse::Success => self.followers.took(self.raft_id, sent, last >= committed),
                    AppendEntriesResponse::PartialSuccess(matching) => {
                        self.followers.took(self.raft_id, sent, *matching >= committed);
                    }
                    // It answers, but what it has of the log is not known.
                    AppendEntriesResponse::Conflict => self.followers.took(self.raft_id, sent, false),
                    AppendEntriesResponse::HigherVote(_) => {}
                }
                Ok(answer)
            }
            _ => Err(self.other()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64, InstallSnapshotError>>> {
        match self.ask(Ask::Snapshot(rpc), option).await? {
            Tell::Snapshot(answer) => Ok(answer),
            Tell::SnapshotMismatch { expect, got } => {
                let mismatch = InstallSnapshotError::SnapshotMismatch(SnapshotMismatch { expect, got });
                Err(RPCError::RemoteError(RemoteError::new(self.raft_id, RaftError::APIError(mismatch))))
            }
            _ => Err(self.other()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        match self.ask(Ask::Vote(rpc), option).await? {
            Tell::Vote(answer) => Ok(answer),
            _ => Err(self.other()),
        }
    }
}
