//! Nodes: invited with a token, joined with a metadata folder, removed for good.
//!
//! Names, places and identities are unique among the nodes of today; an id is given out once. A token lets one folder in,
//! once. Invariant: from the first record on, every broker has a node that has joined.

use crate::base::{DirectoryId, NodeId};
use crate::metadata::bounds::{BROKERS_MAX, INVITATION_MS_MAX, NAME_BYTES_MAX, NODE_IDENTITY_BYTES_MAX, NODE_NAME_MAX};
use crate::metadata::command::Command;
use crate::metadata::image::{Image, Ledger};
use crate::metadata::node::{Node, NodeState, TokenHash};
use crate::metadata::reject::{REJECT_LEDGERS_MAX, Reject, Response};

use super::cluster::used_up;
use super::{placement, require_at_most};

/// What stands for "no token".
const NO_TOKEN: TokenHash = [0; 32];

/// Carries out a command about nodes.
pub fn run(image: &mut Image, command: &Command) -> Result<Response, Reject> {
    match command {
        Command::AddNode { node, name, rack, host, port, identity, token_sha256, expires_ms, now_ms } => {
            let invited = Node {
                name: name.clone(),
                rack: rack.clone(),
                host: host.clone(),
                port: *port,
                identity: identity.clone(),
                token_sha256: *token_sha256,
                state: NodeState::Invited { expires_ms: *expires_ms },
                added_ms: *now_ms,
                draining: false,
            };
            add(image, *node, invited, *expires_ms)
        }
        Command::JoinNode { node, token_sha256, directory, now_ms } => {
            join(image, *node, token_sha256, *directory, *now_ms)
        }
        Command::RemoveNode { node, now_ms: _ } => remove(image, *node),
        Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms } => {
            let own = Node {
                name: name.clone(),
                rack: rack.clone(),
                host: host.clone(),
                port: *port,
                identity: identity.clone(),
                token_sha256: NO_TOKEN,
                state: NodeState::Joined { directory: *directory },
                added_ms: *now_ms,
                draining: false,
            };
            register_self(image, *node, own, *directory)
        }
        _ => Err(Reject::Invalid("a command about nodes without a node".to_owned())),
    }
}

/// Whether the node may have a broker.
pub fn require_joined(image: &Image, node: NodeId) -> Result<(), Reject> {
    match image.nodes.get(&node).map(|known| known.state) {
        Some(NodeState::Joined { .. }) => Ok(()),
        Some(NodeState::Invited { .. }) => Err(Reject::NodeNotJoined(node)),
        None if image.nodes.is_empty() => Ok(()),
        None => Err(Reject::UnknownNode(node)),
    }
}

fn add(image: &mut Image, id: NodeId, node: Node, expires_ms: i64) -> Result<Response, Reject> {
    check(&node)?;
    if node.token_sha256 == NO_TOKEN {
        return Err(Reject::Invalid("an invitation without a token".to_owned()));
    }
    let holds_ms = expires_ms.saturating_sub(node.added_ms);
    if holds_ms <= 0 {
        return Err(Reject::Invalid("an invitation that has expired already".to_owned()));
    }
    require_at_most("the time in ms that an invitation holds", holds_ms as usize, INVITATION_MS_MAX as usize)?;
    // Those without a record could not register again.
    if image.nodes.is_empty() || image.brokers.keys().any(|broker| !image.nodes.contains_key(broker)) {
        return Err(Reject::NoNodeRecord);
    }
    let next = image.next_free_node();
    if id < next {
        return Err(Reject::NodeIdInUse { node: id, next });
    }
    require_at_most("the number of nodes", image.nodes.len() + 1, BROKERS_MAX)?;
    require_unique(image, id, &node)?;
    let repeated = image.nodes.iter().find(|(_, known)| known.token_sha256 == node.token_sha256);
    if let Some((owner, _)) = repeated {
        return Err(Reject::NodeConflict { what: "token".to_owned(), node: *owner });
    }
    image.next_node = id.0.checked_add(1).ok_or_else(|| used_up("node ids"))?;
    image.nodes.insert(id, node);
    Ok(Response::Ok)
}

fn join(
    image: &mut Image,
    id: NodeId,
    token: &TokenHash,
    directory: DirectoryId,
    now_ms: i64,
) -> Result<Response, Reject> {
    if directory == DirectoryId::default() {
        return Err(Reject::Invalid("a metadata folder without an id".to_owned()));
    }
    let owner = image.nodes.iter().find(|(_, node)| node.token_sha256 == *token).map(|(owner, _)| *owner);
    let owner = owner.filter(|_| *token != NO_TOKEN);
    if let Some(owner) = owner.filter(|owner| *owner != id) {
        return Err(Reject::TokenOfOtherNode { node: id, owner });
    }
    let node = image.nodes.get_mut(&id).ok_or(Reject::UnknownNode(id))?;
    match node.state {
        NodeState::Joined { directory: known } if known == directory => Ok(Response::Ok),
        NodeState::Joined { .. } if owner.is_some() => Err(Reject::TokenUsed(id)),
        NodeState::Joined { .. } => Err(Reject::OtherDirectory(id)),
        NodeState::Invited { .. } if owner.is_none() => Err(Reject::WrongToken(id)),
        NodeState::Invited { expires_ms } if now_ms >= expires_ms => Err(Reject::TokenExpired { node: id, expires_ms }),
        NodeState::Invited { .. } => {
            node.state = NodeState::Joined { directory };
            Ok(Response::Ok)
        }
    }
}

fn remove(image: &mut Image, id: NodeId) -> Result<Response, Reject> {
    let node = image.nodes.get(&id).ok_or(Reject::UnknownNode(id))?;
    let others = image.nodes.iter().any(|(other, node)| *other != id && node.directory().is_some());
    if node.directory().is_some() && !others {
        return Err(Reject::LastNode(id));
    }
    let led = image.topics.values().flat_map(|topic| &topic.partitions).filter(|partition| partition.leader == id);
    let partitions = led.count() as u64;
    if partitions > 0 {
        return Err(Reject::NodeLeads { node: id, partitions });
    }
    // As a writer or as a replica: its copy may be one of those that the write quorum counted.
    let holds = |ledger: &Ledger| {
        ledger.node == id
            || ledger.uploader == Some(id)
            || ledger.replicas.iter().any(|replica| replica.node == id)
            || ledger.holders.iter().any(|holder| holder.replica.node == id)
    };
    let held = image.ledgers.iter().filter(|(_, ledger)| holds(ledger) && !ledger.is_finished());
    let ledgers: Vec<_> = held.map(|(ledger, _)| *ledger).take(REJECT_LEDGERS_MAX).collect();
    if !ledgers.is_empty() {
        return Err(Reject::NodeHoldsLedgers { node: id, ledgers });
    }
    placement::forget_node(image, id);
    image.nodes.remove(&id);
    image.brokers.remove(&id);
    image.broker_configs.remove(&id);
    // Finished, and nobody opens a ledger of this node any more.
    image.ledgers.retain(|_, ledger| ledger.node != id);
    Ok(Response::Ok)
}

fn register_self(image: &mut Image, id: NodeId, mut node: Node, directory: DirectoryId) -> Result<Response, Reject> {
    check(&node)?;
    if id.0 < 1 {
        return Err(Reject::Invalid("a node id below 1".to_owned()));
    }
    require_unique(image, id, &node)?;
    match image.nodes.get(&id) {
        Some(known) => match known.state {
            NodeState::Joined { directory: joined } if joined == directory => {
                node.token_sha256 = known.token_sha256;
                node.added_ms = known.added_ms;
                node.draining = known.draining;
            }
            NodeState::Joined { .. } => return Err(Reject::OtherDirectory(id)),
            NodeState::Invited { .. } => return Err(Reject::NodeNotJoined(id)),
        },
        None => {
            if !image.nodes.is_empty() || image.brokers.keys().any(|broker| *broker != id) {
                return Err(Reject::NotFirstNode(id));
            }
            let next = id.0.checked_add(1).ok_or_else(|| used_up("node ids"))?;
            image.next_node = image.next_node.max(next);
        }
    }
    image.nodes.insert(id, node);
    Ok(Response::Ok)
}

fn check(node: &Node) -> Result<(), Reject> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if node.name.is_empty() || node.name.starts_with(['.', '-']) || !node.name.chars().all(plain) {
        let what =
            "a node name of other characters than letters, digits, '.', '_' and '-', or that begins with '.' or '-'";
        return Err(Reject::Invalid(what.to_owned()));
    }
    require_at_most("the length of a node's name", node.name.len(), NODE_NAME_MAX)?;
    require_at_most("the length of a rack's name", node.rack.len(), NAME_BYTES_MAX)?;
    require_at_most("the length of a host name", node.host.len(), NAME_BYTES_MAX)?;
    require_at_most("the length of a certificate's subject", node.identity.len(), NODE_IDENTITY_BYTES_MAX)?;
    if node.host.is_empty() || node.port == 0 || node.host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Reject::Invalid("a peer address without a host or a port".to_owned()));
    }
    if node.identity.is_empty() {
        return Err(Reject::Invalid("a node without a certificate's subject".to_owned()));
    }
    if node.rack.contains(char::is_control) {
        return Err(Reject::Invalid("a rack with control characters in its name".to_owned()));
    }
    Ok(())
}

/// No other node has the name, the place or the identity of `node`, which is to be `id`.
fn require_unique(image: &Image, id: NodeId, node: &Node) -> Result<(), Reject> {
    for (other, known) in image.nodes.iter().filter(|(other, _)| **other != id) {
        let what = if known.name == node.name {
            "name"
        } else if known.host.eq_ignore_ascii_case(&node.host) && known.port == node.port {
            "peer address"
        } else if known.identity == node.identity {
            "certificate's subject"
        } else {
            continue;
        };
        return Err(Reject::NodeConflict { what: what.to_owned(), node: *other });
    }
    Ok(())
}
