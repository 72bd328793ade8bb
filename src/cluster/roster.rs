//! Who belongs to the cluster, and where: the metadata's nodes, put in force on the peer plane.
//!
//! A node that joins, or that was away for long, does not know from its own metadata who leads by now; until it has caught
//! up it also lets in those that its join bundle or another node named. From then on the metadata alone decide.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::base::NodeId;
use crate::metadata::bounds::BROKERS_MAX;
use crate::metadata::{Image, Node, NodeState};
use crate::peer::{PeerAddress, Peers, Roster, Standing};
use crate::security::bundle::KnownNode;

/// The nodes as this one knows them.
pub struct Acquaintances {
    own: NodeId,
    /// The subject of this node's own certificate: its tools come with it.
    subject: String,
    roster: Arc<Roster>,
    peers: Arc<Peers>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the metadata.
    nodes: BTreeMap<NodeId, Node>,
    /// By hearsay, for as long as the metadata may be behind.
    named: BTreeMap<NodeId, KnownNode>,
    caught_up: bool,
}

impl Acquaintances {
    pub fn new(own: NodeId, subject: String, roster: Arc<Roster>, peers: Arc<Peers>) -> Acquaintances {
        let acquaintances = Acquaintances { own, subject, roster, peers, state: Mutex::default() };
        acquaintances.put_in_force(&acquaintances.lock());
        acquaintances
    }

    /// Also these are nodes of the cluster, says a join bundle or a node of the cluster.
    pub fn learn(&self, named: Vec<KnownNode>) {
        let mut state = self.lock();
        if state.caught_up {
            return;
        }
        for node in named {
            if node.node != self.own && (state.named.len() < BROKERS_MAX || state.named.contains_key(&node.node)) {
                state.named.insert(node.node, node);
            }
        }
        self.put_in_force(&state);
    }

    /// The nodes that may be asked: those that have joined and those that were named.
    pub fn others(&self) -> Vec<NodeId> {
        addresses(self.own, &self.lock()).into_iter().map(|address| address.node).collect()
    }

    /// The metadata are up to date: they alone decide from now on.
    pub fn caught_up(&self) {
        let mut state = self.lock();
        state.caught_up = true;
        state.named.clear();
        self.put_in_force(&state);
    }

    /// Follows the metadata, until they end.
    pub async fn follow(self: Arc<Self>, mut image: watch::Receiver<Arc<Image>>) {
        loop {
            self.take(&image.borrow_and_update().nodes);
            if image.changed().await.is_err() {
                return;
            }
        }
    }

    /// Puts the metadata's nodes in force. Images change with every command, their nodes seldom.
    pub fn take(&self, nodes: &BTreeMap<NodeId, Node>) {
        let mut state = self.lock();
        if state.nodes != *nodes {
            state.nodes = nodes.clone();
            self.put_in_force(&state);
        }
    }

    fn put_in_force(&self, state: &State) {
        // The list first: an address whose certificate is not on it could not be dialled.
        self.roster.set(standings(self.own, &self.subject, state));
        self.peers.set(addresses(self.own, state));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standings(own: NodeId, subject: &str, state: &State) -> HashMap<String, Standing> {
    let named = state.named.values().map(|node| (node.identity.clone(), Standing::Known(node.node)));
    let mut list: HashMap<_, _> = named.collect();
    for (id, node) in &state.nodes {
        let standing = match node.state {
            NodeState::Joined { .. } => Standing::Known(*id),
            // By hearsay it has joined meanwhile.
            NodeState::Invited { .. } if state.named.contains_key(id) => continue,
            NodeState::Invited { .. } => Standing::Joining(*id),
        };
        list.insert(node.identity.clone(), standing);
    }
    list.insert(subject.to_owned(), Standing::Known(own));
    list
}

fn addresses(own: NodeId, state: &State) -> Vec<PeerAddress> {
    let address = |node, host: &str, port| PeerAddress { node, host: host.to_owned(), port };
    let mut all: BTreeMap<_, _> = BTreeMap::new();
    for (id, node) in state.nodes.iter().filter(|(_, node)| node.directory().is_some()) {
        all.insert(*id, address(*id, &node.host, node.port));
    }
    // What others say is newer than metadata that lag.
    for node in state.named.values() {
        all.insert(node.node, address(node.node, &node.host, node.port));
    }
    all.remove(&own);
    all.into_values().collect()
}

/// The nodes that have joined, as they are named to others.
pub fn joined(image: &Image) -> Vec<KnownNode> {
    let joined = image.nodes.iter().filter(|(_, node)| node.directory().is_some());
    let known = |(id, node): (&NodeId, &Node)| KnownNode {
        node: *id,
        host: node.host.clone(),
        port: node.port,
        identity: node.identity.clone(),
    };
    joined.map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DirectoryId;

    fn node(id: i32, state: NodeState) -> (NodeId, Node) {
        let node = Node {
            name: format!("n{id}"),
            rack: String::new(),
            host: format!("n{id}.example"),
            port: 9094,
            identity: format!("CN=n{id}"),
            token_sha256: [id as u8; 32],
            state,
            added_ms: 0,
            draining: false,
        };
        (NodeId(id), node)
    }

    fn named(id: i32, host: &str) -> (NodeId, KnownNode) {
        let (node, identity) = (NodeId(id), format!("CN=n{id}"));
        (node, KnownNode { node, host: host.to_owned(), port: 1, identity })
    }

    #[test]
    fn metadata_decide_and_hearsay_fills_in_until_they_are_up_to_date() {
        let joined = NodeState::Joined { directory: DirectoryId(7) };
        let invited = NodeState::Invited { expires_ms: 1 };
        let mut state = State {
            nodes: BTreeMap::from([node(1, joined), node(2, joined), node(3, invited), node(4, invited)]),
            named: BTreeMap::from([named(2, "moved.example"), named(4, "n4.example"), named(5, "n5.example")]),
            caught_up: false,
        };
        let list = standings(NodeId(1), "CN=n1", &state);
        let standing = |id: i32| list.get(&format!("CN=n{id}")).copied();
        assert_eq!([1, 2].map(standing), [1, 2].map(|id| Some(Standing::Known(NodeId(id)))));
        assert_eq!(standing(3), Some(Standing::Joining(NodeId(3))));
        assert_eq!([4, 5].map(standing), [4, 5].map(|id| Some(Standing::Known(NodeId(id)))));
        let hosts: Vec<_> = addresses(NodeId(1), &state).into_iter().map(|a| (a.node.0, a.host)).collect();
        let expected = [(2, "moved.example"), (4, "n4.example"), (5, "n5.example")];
        assert_eq!(hosts, expected.map(|(id, host)| (id, host.to_owned())));
        state.named.clear();
        let list = standings(NodeId(1), "CN=n1", &state);
        assert_eq!(list.get("CN=n4"), Some(&Standing::Joining(NodeId(4))));
        assert_eq!((list.len(), addresses(NodeId(1), &state).len()), (4, 1));
    }

    #[test]
    fn the_nodes_own_tools_come_under_its_certificate() {
        let list = standings(NodeId(9), "CN=own", &State::default());
        assert_eq!(list, HashMap::from([("CN=own".to_owned(), Standing::Known(NodeId(9)))]));
    }
}
