//! How an invited node gets in, and how one that was away learns who is there.
//!
//! ```text
//! request = kind::JOIN (1) ‖ version (1) ‖ 1 (1) ‖ token (32) ‖ directory (4)      let me in
//!         | kind::JOIN (1) ‖ version (1) ‖ 2 (1)                                   who is there?
//! answer  = 1 ‖ nodes | 2 ‖ leader (4, or −1) ‖ nodes | 3 ‖ final (1) ‖ sentence | 4 ‖ nodes
//! nodes   = count (4) ‖ (id (4) ‖ host ‖ port (2) ‖ identity)…
//! ```
//!
//! Only the leader of the quorum accepts, after it has committed the join; every other node says who leads. Asking again with
//! the same folder is harmless. A refusal that no waiting can change ends the joining node with one sentence.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::roster::{Acquaintances, joined};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{DirectoryId, NodeId};
use crate::env::Clock;
use crate::metadata::{Command, Image, Reject, Response};
use crate::peer::{Answering, Caller, Class, DialError, NotSent, PeerError, Peers, Reason, Refused, Service, kind};
use crate::quorum::Quorum;
use crate::security::bundle::{KNOWN_NODES_MAX, KnownNode, Token};

const VERSION: u8 = 1;
/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// The same for who only wants to know who is there.
const WHO_IS_THERE: Duration = Duration::from_secs(3);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a node that waits says so.
const NOTE: Duration = Duration::from_secs(10);
/// Rounds in which most of the nodes refuse for good before that is believed: the first one asked may lag behind.
const ROUNDS: u32 = 4;

/// Why a node is not let in, however long it waits.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("node {by} does not let this node in: {why}")]
    Refused { by: NodeId, why: String },
    #[error("{0} names no node that could let this one in: make the folder anew from its bundle")]
    Nobody(&'static str),
}

/// What a node asks that is not, or not yet again, among the others.
#[derive(Debug, PartialEq)]
pub enum JoinAsk {
    Join { token: Token, directory: DirectoryId },
    WhoIsThere,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinAnswer {
    Accepted { nodes: Vec<KnownNode> },
    NotLeader { leader: Option<NodeId>, nodes: Vec<KnownNode> },
    Refused { for_good: bool, why: String },
    There { nodes: Vec<KnownNode> },
}

impl JoinAsk {
    /// With the byte that names the kind.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u8(kind::JOIN).u8(VERSION);
        match self {
            JoinAsk::Join { token, directory } => out.u8(1).raw(token.expose()).u32(directory.0),
            JoinAsk::WhoIsThere => out.u8(2),
        };
        out.finish()
    }

    /// Without that byte.
    pub fn decode(bytes: &[u8]) -> Result<JoinAsk, DecodeError> {
        let mut input = Reader::new(bytes);
        let version = input.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version.into(), newest: VERSION.into() });
        }
        let ask = match input.u8()? {
            1 => JoinAsk::Join { token: Token::new(input.array()?), directory: DirectoryId(input.u32()?) },
            2 => JoinAsk::WhoIsThere,
            value => return Err(DecodeError::Invalid { field: "request to join", value: value.into() }),
        };
        input.finish()?;
        Ok(ask)
    }
}

impl JoinAnswer {
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            JoinAnswer::Accepted { nodes } => put_nodes(out.u8(1), nodes),
            JoinAnswer::NotLeader { leader, nodes } => {
                put_nodes(out.u8(2).i32(leader.map_or(-1, |node| node.0)), nodes)
            }
            JoinAnswer::Refused { for_good, why } => drop(out.u8(3).bool(*for_good).string(why)),
            JoinAnswer::There { nodes } => put_nodes(out.u8(4), nodes),
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<JoinAnswer, DecodeError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            1 => JoinAnswer::Accepted { nodes: nodes(&mut input)? },
            2 => {
                let leader = Some(NodeId(input.i32()?)).filter(|node| node.0 >= 0);
                JoinAnswer::NotLeader { leader, nodes: nodes(&mut input)? }
            }
            3 => JoinAnswer::Refused { for_good: input.bool("for good")?, why: input.string("why")? },
            4 => JoinAnswer::There { nodes: nodes(&mut input)? },
            value => return Err(DecodeError::Invalid { field: "answer to joining", value: value.into() }),
        };
        input.finish()?;
        Ok(answer)
    }
}

fn put_nodes(out: &mut Writer, nodes: &[KnownNode]) {
    let nodes = &nodes[..nodes.len().min(KNOWN_NODES_MAX)];
    out.count(nodes.len());
    for KnownNode { node, host, port, identity } in nodes {
        out.i32(node.0).string(host).u16(*port).string(identity);
    }
}

fn nodes(input: &mut Reader) -> Result<Vec<KnownNode>, DecodeError> {
    let count = input.count(14)?;
    if count > KNOWN_NODES_MAX {
        return Err(DecodeError::Invalid { field: "number of nodes", value: count as u64 });
    }
    let node = |input: &mut Reader| {
        let (node, host) = (NodeId(input.i32()?), input.string("host")?);
        Ok(KnownNode { node, host, port: input.u16()?, identity: input.string("identity")? })
    };
    (0..count).map(|_| node(input)).collect()
}

/// Lets nodes in.
pub struct JoinService {
    pub quorum: Arc<Quorum>,
    pub clock: Arc<dyn Clock>,
}

impl Service for JoinService {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        let (quorum, from) = (self.quorum.clone(), from.node);
        // The leader's clock decides whether an invitation has expired.
        let now_ms = self.clock.wall_ms();
        Box::pin(async move {
            let ask =
                JoinAsk::decode(&request).map_err(|error| Refused(format!("the request cannot be read: {error}")))?;
            let nodes = joined(&quorum.image().borrow());
            let answer = match ask {
                JoinAsk::WhoIsThere => JoinAnswer::There { nodes },
                JoinAsk::Join { .. } if !quorum.leads() => {
                    JoinAnswer::NotLeader { leader: quorum.status().leader, nodes }
                }
                JoinAsk::Join { token, directory } => let_in(&quorum, from, &token, directory, now_ms).await,
            };
            Ok(answer.encode().into())
        })
    }
}

async fn let_in(quorum: &Quorum, node: NodeId, token: &Token, directory: DirectoryId, now_ms: i64) -> JoinAnswer {
    let command = Command::JoinNode { node, token_sha256: token.sha256(), directory, now_ms };
    match quorum.propose(&command).await {
        Ok(Response::Rejected(reject)) => {
            tracing::warn!(%node, "a node may not join: {reject}");
            JoinAnswer::Refused { for_good: is_final(&reject), why: reject.to_string() }
        }
        Ok(_) => {
            tracing::info!(%node, "a node has joined");
            JoinAnswer::Accepted { nodes: joined(&quorum.image().borrow()) }
        }
        Err(error) => JoinAnswer::Refused { for_good: false, why: error.to_string() },
    }
}

/// Whether no waiting changes it.
fn is_final(reject: &Reject) -> bool {
    !matches!(reject, Reject::NotInitialized | Reject::TooMany { .. })
}

/// What one node had to say.
enum Said {
    Accepted,
    /// It does not lead, or cannot be reached: others may.
    Elsewhere(Option<NodeId>),
    Refused(String),
    /// It would refuse anything that comes from here, as far as it knows.
    Unwelcome(String),
}

/// Asks those that `acquaintances` know, in turn, until the leader has let this node in.
pub async fn join(
    peers: &Peers,
    acquaintances: &Acquaintances,
    token: &Token,
    directory: DirectoryId,
) -> Result<(), JoinError> {
    let request = JoinAsk::Join { token: Token::new(*token.expose()), directory }.encode();
    let (mut noted, mut leader, mut unwelcome) = (Instant::now(), None, 0);
    loop {
        let others = acquaintances.others();
        if others.is_empty() {
            return Err(JoinError::Nobody("peers.toml"));
        }
        let mut refusals = Vec::new();
        let order = leader.take().into_iter().filter(|node| others.contains(node)).chain(others.iter().copied());
        for node in order.collect::<Vec<_>>() {
            match ask(peers, acquaintances, node, &request).await {
                Said::Accepted => return Ok(()),
                Said::Elsewhere(named) => leader = named.or(leader),
                Said::Refused(why) => return Err(JoinError::Refused { by: node, why }),
                Said::Unwelcome(why) => refusals.push((node, why)),
            }
        }
        unwelcome = if 2 * refusals.len() > others.len() { unwelcome + 1 } else { 0 };
        if let Some((by, why)) = refusals.pop().filter(|_| unwelcome >= ROUNDS) {
            return Err(JoinError::Refused { by, why });
        }
        if noted.elapsed() >= NOTE {
            noted = Instant::now();
            tracing::warn!(nodes = ?others, "waiting to be let in: a majority of the cluster's voters has to run");
        }
        sleep(PAUSE).await;
    }
}

async fn ask(peers: &Peers, acquaintances: &Acquaintances, node: NodeId, request: &Bytes) -> Said {
    let answer = match peers.call(node, Class::Control, request.clone(), ANSWER).await {
        Ok(answer) => answer,
        Err(error) => return judge(error),
    };
    match JoinAnswer::decode(&answer) {
        Ok(JoinAnswer::Accepted { nodes }) => {
            acquaintances.learn(nodes);
            Said::Accepted
        }
        Ok(JoinAnswer::NotLeader { leader, nodes }) => {
            acquaintances.learn(nodes);
            Said::Elsewhere(leader)
        }
        Ok(JoinAnswer::Refused { for_good: true, why }) => Said::Refused(why),
        Ok(JoinAnswer::Refused { why, .. }) => {
            tracing::warn!(%node, "this node is not let in yet: {why}");
            Said::Elsewhere(None)
        }
        Ok(JoinAnswer::There { .. }) | Err(_) => {
            Said::Unwelcome("its answer cannot be read: bring both nodes to the same release".to_owned())
        }
    }
}

/// Tells a node that is away from one that will never answer otherwise.
fn judge(error: PeerError) -> Said {
    let PeerError::NotSent { reason: NotSent::Dial(dial), .. } = &error else {
        return Said::Elsewhere(None);
    };
    match &**dial {
        DialError::Refused(refusal) => match refusal.reason {
            // Goes by by itself.
            Reason::Class | Reason::Process | Reason::Full | Reason::Other => Said::Elsewhere(None),
            _ => Said::Unwelcome(refusal.sentence.to_string()),
        },
        DialError::Tls { .. } | DialError::Hello { .. } | DialError::BadAnswer { .. } => {
            Said::Unwelcome(dial.to_string())
        }
        DialError::Resolve(_) | DialError::Connect { .. } | DialError::HelloTimeout { .. } => Said::Elsewhere(None),
    }
}

/// While this node catches up: asks the others again and again who is there, as its own metadata may not know who leads by
/// now. Returns only when most of them do not know this node any more.
pub async fn catch_up(peers: &Peers, acquaintances: &Acquaintances) -> JoinError {
    let request = JoinAsk::WhoIsThere.encode();
    let mut unwelcome = 0;
    loop {
        let others = acquaintances.others();
        let mut refusals = Vec::new();
        for node in &others {
            match peers.call(*node, Class::Control, request.clone(), WHO_IS_THERE).await {
                Ok(answer) => {
                    if let Ok(JoinAnswer::There { nodes }) = JoinAnswer::decode(&answer) {
                        acquaintances.learn(nodes);
                    }
                }
                Err(error) => refusals.extend(not_of_the_cluster(&error).map(|why| (*node, why))),
            }
        }
        unwelcome = if 2 * refusals.len() > others.len() { unwelcome + 1 } else { 0 };
        if let Some((by, why)) = refusals.pop().filter(|_| unwelcome >= ROUNDS) {
            return JoinError::Refused { by, why };
        }
        sleep(PAUSE).await;
    }
}

fn not_of_the_cluster(error: &PeerError) -> Option<String> {
    let PeerError::NotSent { reason: NotSent::Dial(dial), .. } = error else { return None };
    let DialError::Refused(refusal) = &**dial else { return None };
    let gone = matches!(refusal.reason, Reason::Subject | Reason::Cluster | Reason::Generation);
    gone.then(|| refusal.sentence.to_string())
}

/// Whether a node has joined with this folder, as far as the metadata say.
pub fn has_joined(image: &Image, node: NodeId, directory: DirectoryId) -> bool {
    image.nodes.get(&node).and_then(|node| node.directory()) == Some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<KnownNode> {
        let node =
            |id: i32| KnownNode { node: NodeId(id), host: format!("n{id}"), port: 9094, identity: format!("CN=n{id}") };
        vec![node(1), node(2)]
    }

    #[test]
    fn messages_come_back_as_written() {
        let asks = [JoinAsk::Join { token: Token::new([7; 32]), directory: DirectoryId(9) }, JoinAsk::WhoIsThere];
        for ask in asks {
            assert_eq!(JoinAsk::decode(&ask.encode()[1..]), Ok(ask));
        }
        for answer in [
            JoinAnswer::Accepted { nodes: known() },
            JoinAnswer::NotLeader { leader: Some(NodeId(2)), nodes: vec![] },
            JoinAnswer::NotLeader { leader: None, nodes: known() },
            JoinAnswer::Refused { for_good: true, why: "no".to_owned() },
            JoinAnswer::There { nodes: known() },
        ] {
            let bytes = answer.encode();
            assert_eq!(JoinAnswer::decode(&bytes), Ok(answer));
            for cut in 0..bytes.len() {
                assert!(JoinAnswer::decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn a_claimed_number_of_nodes_is_bounded() {
        let many: Vec<_> = known().into_iter().cycle().take(KNOWN_NODES_MAX + 1).collect();
        let mut out = Writer::new();
        out.u8(4).count(many.len());
        for node in &many {
            out.i32(node.node.0).string(&node.host).u16(node.port).string(&node.identity);
        }
        assert!(JoinAnswer::decode(&out.finish()).is_err());
        let Ok(JoinAnswer::There { nodes }) = JoinAnswer::decode(&JoinAnswer::There { nodes: many }.encode()) else {
            panic!()
        };
        assert_eq!(nodes.len(), KNOWN_NODES_MAX);
    }

    #[test]
    fn what_cannot_change_is_told_from_what_can() {
        assert!(is_final(&Reject::TokenUsed(NodeId(2))) && is_final(&Reject::UnknownNode(NodeId(2))));
        assert!(!is_final(&Reject::NotInitialized));
        let refused = |reason| {
            let refusal = crate::peer::Refusal { reason, sentence: "s".into() };
            let reason = NotSent::Dial(Arc::new(DialError::Refused(refusal)));
            judge(PeerError::NotSent { node: NodeId(1), reason })
        };
        assert!(matches!(refused(Reason::Cluster), Said::Unwelcome(_)));
        assert!(matches!(refused(Reason::Subject), Said::Unwelcome(_)));
        assert!(matches!(refused(Reason::Process), Said::Elsewhere(None)));
    }
}
