//! What the node's own tools may ask: the state of the cluster, and changes of its nodes.
//!
//! ```text
//! request = kind::MANAGE (1) ‖ version (1) ‖ passed on (1) ‖ 1                status
//!                                                          | 2 ‖ command      add a node
//!                                                          | 3 ‖ node (4)     remove it
//!                                                          | 4 ‖ node (4)     let it lead the quorum
//!                                                          | 5 ‖ node (4) ‖ draining (1)
//! answer  = 1 ‖ status | 2 done | 3 ‖ sentence refused
//! ```
//!
//! A tool asks its own node, under that node's certificate; what only the leader of the quorum can do is passed on to it once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::status::Status;
use crate::base::NodeId;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::env::{Clock, Entropy};
use crate::metadata::{Command, Image, MemoryIndex, Response, apply};
use crate::peer::{
    Answering, Caller, Class, Options, Own, PeerAddress, PeerError, Peers, Plane, Refused, Roster, Service, Standing,
    kind,
};
use crate::quorum::Quorum;
use crate::security::NodeTls;

const VERSION: u8 = 1;
/// How long the leader may take for what was passed on to it.
const PASSED_ON: Duration = Duration::from_secs(25);
/// How long it may take with a status: then the node's own view is better than none.
const STATUS: Duration = Duration::from_secs(2);
/// How long a tool waits.
const TOOL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Status,
    /// `Command::AddNode` and nothing else.
    Add(Box<Command>),
    Remove(NodeId),
    Promote(NodeId),
    /// Whether the node is to hand its partitions to others, and get none.
    Drain(NodeId, bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    Status(Box<Status>),
    Done,
    /// Nothing was changed, for this reason.
    Refused(String),
}

impl Ask {
    /// With the byte that names the kind.
    pub fn encode(&self, passed_on: bool) -> Bytes {
        let mut out = Writer::new();
        out.u8(kind::MANAGE).u8(VERSION).bool(passed_on);
        match self {
            Ask::Status => out.u8(1),
            Ask::Add(command) => out.u8(2).bytes(&command.encode()),
            Ask::Remove(node) => out.u8(3).i32(node.0),
            Ask::Promote(node) => out.u8(4).i32(node.0),
            Ask::Drain(node, draining) => out.u8(5).i32(node.0).bool(*draining),
        };
        out.finish()
    }

    /// Without that byte; and whether it was passed on.
    pub fn decode(bytes: &[u8]) -> Result<(Ask, bool), DecodeError> {
        let mut input = Reader::new(bytes);
        let version = input.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version.into(), newest: VERSION.into() });
        }
        let passed_on = input.bool("passed on")?;
        let ask = match input.u8()? {
            1 => Ask::Status,
            2 => match Command::decode(input.bytes()?)? {
                command @ Command::AddNode { .. } => Ask::Add(Box::new(command)),
                _ => return Err(DecodeError::Invalid { field: "command to add a node", value: 0 }),
            },
            3 => Ask::Remove(NodeId(input.i32()?)),
            4 => Ask::Promote(NodeId(input.i32()?)),
            5 => Ask::Drain(NodeId(input.i32()?), input.bool("draining")?),
            value => return Err(DecodeError::Invalid { field: "request to manage", value: value.into() }),
        };
        input.finish()?;
        Ok((ask, passed_on))
    }
}

impl Managed {
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Managed::Status(status) => out.u8(1).raw(&status.encode()),
            Managed::Done => out.u8(2),
            Managed::Refused(why) => out.u8(3).string(why),
        };
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Managed, DecodeError> {
        let mut input = Reader::new(bytes);
        let managed = match input.u8()? {
            1 => Managed::Status(Box::new(Status::decode(&mut input)?)),
            2 => Managed::Done,
            3 => Managed::Refused(input.string("why")?),
            value => return Err(DecodeError::Invalid { field: "answer to managing", value: value.into() }),
        };
        input.finish()?;
        Ok(managed)
    }
}

/// Answers tools, and other nodes that pass on what theirs ask.
pub struct ManageService {
    pub node: NodeId,
    pub quorum: Arc<Quorum>,
    pub peers: Arc<Peers>,
    pub clock: Arc<dyn Clock>,
}

impl Service for ManageService {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        let asked = Ask::decode(&request);
        let by_tool = from.node == self.node;
        let manager = Manager {
            node: self.node,
            quorum: self.quorum.clone(),
            peers: self.peers.clone(),
            now_ms: self.clock.wall_ms(),
        };
        Box::pin(async move {
            let (ask, passed_on) = asked.map_err(|error| Refused(format!("the request cannot be read: {error}")))?;
            if !by_tool && !passed_on {
                return Err(Refused("ask the node itself: another's tools are not served here".to_owned()));
            }
            // Carried out even if who asked does not wait for it: half a change would be worse.
            let managed = tokio::spawn(async move { manager.carry_out(ask, passed_on).await }).await;
            let managed = managed.map_err(|_| Refused("the node stops: try again".to_owned()))?;
            Ok(managed.encode().into())
        })
    }
}

struct Manager {
    node: NodeId,
    quorum: Arc<Quorum>,
    peers: Arc<Peers>,
    now_ms: i64,
}

impl Manager {
    async fn carry_out(&self, ask: Ask, passed_on: bool) -> Managed {
        let leader = self.quorum.status().leader;
        match (&ask, leader) {
            _ if self.quorum.leads() => self.lead(ask).await,
            (Ask::Status, Some(leader)) if !passed_on && leader != self.node => {
                let answer = self.peers.call(leader, Class::Control, ask.encode(true), STATUS).await;
                match answer.ok().and_then(|answer| Managed::decode(&answer).ok()) {
                    Some(managed) => managed,
                    None => self.status().await,
                }
            }
            (Ask::Status, _) => self.status().await,
            (_, Some(leader)) if !passed_on && leader != self.node => {
                match self.peers.call(leader, Class::Control, ask.encode(true), PASSED_ON).await {
                    Ok(answer) => Managed::decode(&answer)
                        .unwrap_or_else(|error| refused(format!("node {leader} cannot be understood: {error}"))),
                    Err(error) if error.had_no_effect() => refused(error),
                    Err(error) => refused(format!("{error}: look with `casemate cluster status`")),
                }
            }
            _ => refused("nobody leads the metadata quorum: a majority of its voters has to run; try again then"),
        }
    }

    /// What the leader does.
    async fn lead(&self, ask: Ask) -> Managed {
        match ask {
            Ask::Status => self.status().await,
            Ask::Add(command) => self.propose(&command).await,
            Ask::Remove(node) => self.remove(node).await,
            Ask::Promote(node) => self.promote(node).await,
            Ask::Drain(node, draining) => self.propose(&Command::DrainNode { node, draining }).await,
        }
    }

    /// A first node answers before it has founded its cluster, which has no id then.
    async fn status(&self) -> Managed {
        let view = if self.quorum.leads() { self.quorum.view().await } else { None };
        let (image, quorum) = (self.quorum.image().borrow().clone(), self.quorum.status());
        if image.cluster.is_zero() {
            return refused(format!("node {} does not know its cluster yet: try again in a moment", self.node));
        }
        Managed::Status(Box::new(Status::gather(self.node, &image, &quorum, view.as_ref())))
    }

    async fn propose(&self, command: &Command) -> Managed {
        match self.quorum.propose(command).await {
            Ok(Response::Rejected(reject)) => refused(reject),
            Ok(_) => Managed::Done,
            Err(error) => refused(error),
        }
    }

    async fn remove(&self, node: NodeId) -> Managed {
        let command = Command::RemoveNode { node, now_ms: self.now_ms };
        // What the metadata would refuse is not begun.
        if let Some(why) = would_be_rejected(&self.quorum.image().borrow(), &command) {
            return refused(why);
        }
        if node == self.node {
            return refused(format!(
                "node {node} leads the metadata quorum: let another one lead first (casemate cluster promote NAME)"
            ));
        }
        let Some(_taken) = self.quorum.take_out(node).await else {
            return refused(format!(
                "node {node} could not be taken out of the metadata quorum: a majority of the voters has to run; try again"
            ));
        };
        self.propose(&command).await
    }

    async fn promote(&self, node: NodeId) -> Managed {
        if node == self.node {
            return Managed::Done;
        }
        if !self.quorum.status().voters.contains(&node) {
            return refused(format!("node {node} has no vote in the metadata quorum and cannot lead it: name a voter"));
        }
        if self.quorum.hand_over(node).await {
            return Managed::Done;
        }
        refused(format!("node {node} did not take over: see that it runs and has caught up (casemate cluster status)"))
    }
}

fn refused(why: impl ToString) -> Managed {
    Managed::Refused(why.to_string())
}

/// What the metadata would say to a command about nodes, which looks at the image only.
fn would_be_rejected(image: &Image, command: &Command) -> Option<String> {
    match apply(&mut image.clone(), command, &MemoryIndex::default()).0 {
        Response::Rejected(reject) => Some(reject.to_string()),
        _ => None,
    }
}

/// A tool's way to the process of its own node.
pub struct Tool {
    peers: Peers,
    node: NodeId,
}

impl Tool {
    /// `at` is where the node listens for other nodes; `own` has the node's id, and the process of the tool. Must be called
    /// within a tokio runtime.
    pub fn new(own: Own, tls: Arc<NodeTls>, at: PeerAddress, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Tool {
        let node = own.node;
        let roster = Roster::new([(tls.subject(), Standing::Known(node))].into());
        let plane = Plane::new(own, tls, Arc::new(roster), Options::default(), clock, entropy);
        let peers = Peers::new(plane);
        peers.set(vec![at]);
        Tool { peers, node }
    }

    pub async fn ask(&self, ask: &Ask) -> Result<Managed, ToolError> {
        let answer = self.peers.call(self.node, Class::Control, ask.encode(false), TOOL).await?;
        Ok(Managed::decode(&answer)?)
    }
}

/// Why a tool has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("{0}: see that the node runs, and give the --config that it runs with")]
    Peer(#[from] PeerError),
    #[error("the node's answer cannot be read ({0}): use the release that it runs")]
    Answer(#[from] DecodeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add() -> Command {
        Command::AddNode {
            node: NodeId(2),
            name: "b".to_owned(),
            rack: String::new(),
            host: "b".to_owned(),
            port: 9094,
            identity: "CN=b".to_owned(),
            token_sha256: [7; 32],
            expires_ms: 2,
            now_ms: 1,
        }
    }

    #[test]
    fn messages_come_back_as_written_and_never_from_a_part() {
        let node = NodeId(3);
        for ask in [
            Ask::Status,
            Ask::Add(Box::new(add())),
            Ask::Remove(node),
            Ask::Promote(node),
            Ask::Drain(node, true),
            Ask::Drain(node, false),
        ] {
            for passed_on in [false, true] {
                let bytes = ask.encode(passed_on);
                assert_eq!(Ask::decode(&bytes[1..]), Ok((ask.clone(), passed_on)));
                for cut in 1..bytes.len() {
                    assert!(Ask::decode(&bytes[1..cut]).is_err(), "{ask:?} {cut}");
                }
            }
        }
        for managed in [Managed::Done, Managed::Refused("no".to_owned())] {
            assert_eq!(Managed::decode(&managed.encode()), Ok(managed));
        }
    }

    #[test]
    fn a_tool_adds_nodes_by_no_other_command() {
        let mut out = Writer::new();
        let other = Command::RemoveNode { node: NodeId(1), now_ms: 0 };
        out.u8(VERSION).bool(false).u8(2).bytes(&other.encode());
        assert!(Ask::decode(&out.finish()).is_err());
    }

    #[test]
    fn what_the_metadata_would_refuse_is_not_begun() {
        let mut image = Image::default();
        let command = Command::RemoveNode { node: NodeId(2), now_ms: 0 };
        assert!(would_be_rejected(&image, &command).is_some());
        image.cluster = crate::base::ClusterId([1; 16]);
        assert!(would_be_rejected(&image, &command).is_some_and(|why| why.contains("node 2")));
    }
}
