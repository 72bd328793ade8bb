//! What the node's tools are shown of the cluster.
//!
//! Encoded by our own codec; what it holds is bounded by the metadata.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{BrokerEpoch, ClusterId, DirectoryId, EntryId, LedgerId, NodeId};
use crate::metadata::{Endpoint, Image, NodeState};
use crate::quorum::{QuorumStatus, QuorumView};

/// The cluster as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub cluster: ClusterId,
    pub generation: u64,
    /// Whose view this is: the leader's, if it could be asked.
    pub seen_by: NodeId,
    pub leader: Option<NodeId>,
    pub term: u64,
    /// The id that the next node gets.
    pub next_node: NodeId,
    pub nodes: Vec<NodeStatus>,
    /// Ledgers that are open or not wholly in object storage.
    pub ledgers: Vec<LedgerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub node: NodeId,
    pub name: String,
    pub rack: String,
    pub host: String,
    pub port: u16,
    pub identity: String,
    pub state: NodeState,
    /// It is to lead no partition any more.
    pub draining: bool,
    /// Whether it votes; none if it is no member of the quorum (yet).
    pub votes: Option<bool>,
    /// Entries of the quorum's log that it lacks, as its leader knows.
    pub lag: Option<u64>,
    pub broker: Option<BrokerStatus>,
    /// Partitions that it leads.
    pub partitions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    pub epoch: BrokerEpoch,
    pub fenced: bool,
    pub version: String,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerStatus {
    pub ledger: LedgerId,
    /// The writer.
    pub node: NodeId,
    pub replicas: Vec<NodeId>,
    /// None while it is open.
    pub end: Option<EntryId>,
    pub uploaded: EntryId,
}

impl Status {
    /// What the node `seen_by` knows; `view` if it leads the quorum.
    pub fn gather(seen_by: NodeId, image: &Image, quorum: &QuorumStatus, view: Option<&QuorumView>) -> Status {
        let nodes = image.nodes.iter().map(|(id, node)| {
            let voter = quorum.voters.contains(id).then_some(true);
            let member = view.and_then(|view| view.members.iter().find(|member| member.node == *id));
            let end = quorum.last_index.map_or(0, |last| last.saturating_add(1));
            NodeStatus {
                node: *id,
                name: node.name.clone(),
                rack: node.rack.clone(),
                host: node.host.clone(),
                port: node.port,
                identity: node.identity.clone(),
                state: node.state,
                draining: node.draining,
                votes: voter.or_else(|| quorum.learners.contains(id).then_some(false)),
                lag: member.and_then(|member| member.end).map(|has| end.saturating_sub(has)),
                broker: image.brokers.get(id).map(|broker| BrokerStatus {
                    epoch: broker.epoch,
                    fenced: broker.fenced,
                    version: broker.version.clone(),
                    endpoints: broker.endpoints.clone(),
                }),
                partitions: image.topics.values().flat_map(|t| &t.partitions).filter(|p| p.leader == *id).count()
                    as u64,
            }
        });
        let unfinished = image.ledgers.iter().filter(|(_, ledger)| !ledger.is_finished());
        let ledgers = unfinished.map(|(id, ledger)| LedgerStatus {
            ledger: *id,
            node: ledger.node,
            replicas: ledger.replicas.iter().map(|replica| replica.node).collect(),
            end: ledger.end,
            uploaded: ledger.uploaded,
        });
        Status {
            cluster: image.cluster,
            generation: image.generation,
            seen_by,
            leader: quorum.leader,
            term: quorum.term,
            next_node: image.next_free_node(),
            nodes: nodes.collect(),
            ledgers: ledgers.collect(),
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.raw(&self.cluster.0).u64(self.generation).i32(self.seen_by.0).i32(self.leader.map_or(-1, |node| node.0));
        out.u64(self.term).i32(self.next_node.0).count(self.nodes.len());
        self.nodes.iter().for_each(|node| put_node(&mut out, node));
        out.count(self.ledgers.len());
        for LedgerStatus { ledger, node, replicas, end, uploaded } in &self.ledgers {
            out.u64(ledger.0).i32(node.0).count(replicas.len());
            for replica in replicas {
                out.i32(replica.0);
            }
            out.bool(end.is_some()).u64(end.map_or(0, |end| end.0)).u64(uploaded.0);
        }
        out.finish()
    }

    pub fn decode(input: &mut Reader) -> Result<Status, DecodeError> {
        Ok(Status {
            cluster: ClusterId(input.array()?),
            generation: input.u64()?,
            seen_by: NodeId(input.i32()?),
            leader: Some(NodeId(input.i32()?)).filter(|node| node.0 >= 0),
            term: input.u64()?,
            next_node: NodeId(input.i32()?),
            nodes: list(input, 41, node)?,
            ledgers: list(input, 33, ledger)?,
        })
    }

    /// A node by its name, or its id.
    pub fn find(&self, name: &str) -> Option<&NodeStatus> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .or_else(|| self.nodes.iter().find(|n| n.node.to_string() == name))
    }
}

fn list<T>(
    input: &mut Reader,
    bytes_min: usize,
    read: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = input.count(bytes_min)?;
    (0..count).map(|_| read(input)).collect()
}

fn put_node(out: &mut Writer, node: &NodeStatus) {
    out.i32(node.node.0).string(&node.name).string(&node.rack).string(&node.host).u16(node.port);
    out.string(&node.identity);
    match node.state {
        NodeState::Invited { expires_ms } => out.u8(0).i64(expires_ms),
        NodeState::Joined { directory } => out.u8(1).u32(directory.0),
    };
    out.bool(node.draining).u8(node.votes.map_or(2, u8::from)).bool(node.lag.is_some()).u64(node.lag.unwrap_or(0));
    out.u64(node.partitions).bool(node.broker.is_some());
    if let Some(BrokerStatus { epoch, fenced, version, endpoints }) = &node.broker {
        out.i64(epoch.0).bool(*fenced).string(version).count(endpoints.len());
        for Endpoint { listener, host, port } in endpoints {
            out.string(listener).string(host).u16(*port);
        }
    }
}

fn node(input: &mut Reader) -> Result<NodeStatus, DecodeError> {
    let (node, name, rack) = (NodeId(input.i32()?), input.string("name")?, input.string("rack")?);
    let (host, port, identity) = (input.string("host")?, input.u16()?, input.string("identity")?);
    let state = match input.u8()? {
        0 => NodeState::Invited { expires_ms: input.i64()? },
        1 => NodeState::Joined { directory: DirectoryId(input.u32()?) },
        value => return Err(DecodeError::Invalid { field: "state of a node", value: value.into() }),
    };
    let draining = input.bool("draining")?;
    let votes = match input.u8()? {
        2 => None,
        value @ (0 | 1) => Some(value == 1),
        value => return Err(DecodeError::Invalid { field: "vote of a node", value: value.into() }),
    };
    let (has_lag, lag) = (input.bool("lag")?, input.u64()?);
    let partitions = input.u64()?;
    let broker = if input.bool("broker")? { Some(broker(input)?) } else { None };
    let lag = has_lag.then_some(lag);
    Ok(NodeStatus { node, name, rack, host, port, identity, state, draining, votes, lag, broker, partitions })
}

fn broker(input: &mut Reader) -> Result<BrokerStatus, DecodeError> {
    let (epoch, fenced, version) = (BrokerEpoch(input.i64()?), input.bool("fenced")?, input.string("version")?);
    let endpoints = list(input, 10, |input| {
        Ok(Endpoint { listener: input.string("listener")?, host: input.string("host")?, port: input.u16()? })
    })?;
    Ok(BrokerStatus { epoch, fenced, version, endpoints })
}

fn ledger(input: &mut Reader) -> Result<LedgerStatus, DecodeError> {
    let (ledger, node) = (LedgerId(input.u64()?), NodeId(input.i32()?));
    let replicas = list(input, 4, |input| Ok(NodeId(input.i32()?)))?;
    let (ended, end) = (input.bool("end")?, EntryId(input.u64()?));
    let uploaded = EntryId(input.u64()?);
    Ok(LedgerStatus { ledger, node, replicas, end: ended.then_some(end), uploaded })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let node = |id: i32, state, broker| NodeStatus {
            node: NodeId(id),
            name: format!("n{id}"),
            rack: "r".to_owned(),
            host: "h".to_owned(),
            port: 9094,
            identity: "CN=n".to_owned(),
            state,
            draining: id == 2,
            votes: Some(id == 1),
            lag: (id == 1).then_some(3),
            broker,
            partitions: 7,
        };
        let endpoints = vec![Endpoint { listener: "SSL".to_owned(), host: "h".to_owned(), port: 9093 }];
        let broker = BrokerStatus { epoch: BrokerEpoch(4), fenced: true, version: "1".to_owned(), endpoints };
        let ledger = |end| LedgerStatus {
            ledger: LedgerId(5),
            node: NodeId(1),
            replicas: vec![NodeId(1), NodeId(2)],
            end,
            uploaded: EntryId(2),
        };
        Status {
            cluster: ClusterId([3; 16]),
            generation: 1,
            seen_by: NodeId(1),
            leader: Some(NodeId(1)),
            term: 9,
            next_node: NodeId(4),
            nodes: vec![
                node(1, NodeState::Joined { directory: DirectoryId(8) }, Some(broker)),
                node(2, NodeState::Invited { expires_ms: 5 }, None),
            ],
            ledgers: vec![ledger(None), ledger(Some(EntryId(6)))],
        }
    }

    #[test]
    fn it_comes_back_as_written_and_never_from_a_part() {
        let bytes = status().encode();
        let mut input = Reader::new(&bytes);
        assert_eq!(Status::decode(&mut input), Ok(status()));
        assert_eq!(input.finish(), Ok(()));
        for cut in 0..bytes.len() {
            assert!(Status::decode(&mut Reader::new(&bytes[..cut])).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_node_is_found_by_name_and_by_id() {
        let status = status();
        assert_eq!(status.find("n2").map(|node| node.node), Some(NodeId(2)));
        assert_eq!(status.find("2").map(|node| node.node), Some(NodeId(2)));
        assert_eq!(status.find("3"), None);
    }
}
