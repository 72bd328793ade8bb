//! The stored form of nodes: their commands, and their section of the image.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{DirectoryId, NodeId};

use super::command::Command;
use super::image::Image;
use super::image_codec::map;
use super::node::{Node, NodeState};

/// Kind numbers of the commands, out of the same space as those of `command_codec`.
pub(super) mod kind {
    pub const ADD_NODE: u16 = 30;
    pub const JOIN_NODE: u16 = 31;
    pub const REMOVE_NODE: u16 = 32;
    pub const REGISTER_SELF: u16 = 33;
}

/// Writes kind and body of a command about nodes.
pub(super) fn encode(w: &mut Writer, command: &Command) {
    match command {
        Command::AddNode { node, name, rack, host, port, identity, token_sha256, expires_ms, now_ms } => {
            w.u16(kind::ADD_NODE).i32(node.0).string(name).string(rack).string(host).u16(*port).string(identity);
            w.raw(token_sha256).i64(*expires_ms).i64(*now_ms);
        }
        Command::JoinNode { node, token_sha256, directory, now_ms } => {
            w.u16(kind::JOIN_NODE).i32(node.0).raw(token_sha256).u32(directory.0).i64(*now_ms);
        }
        Command::RemoveNode { node, now_ms } => {
            w.u16(kind::REMOVE_NODE).i32(node.0).i64(*now_ms);
        }
        Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms } => {
            w.u16(kind::REGISTER_SELF).i32(node.0).string(name).string(rack).string(host).u16(*port).string(identity);
            w.u32(directory.0).i64(*now_ms);
        }
        _ => {}
    }
}

/// Reads the body of a command about nodes; `None` if the kind is none.
pub(super) fn decode(kind: u16, r: &mut Reader<'_>) -> Result<Option<Command>, DecodeError> {
    Ok(Some(match kind {
        kind::ADD_NODE => Command::AddNode {
            node: NodeId(r.i32()?),
            name: r.string("node name")?,
            rack: r.string("rack")?,
            host: r.string("host")?,
            port: r.u16()?,
            identity: r.string("identity")?,
            token_sha256: r.array()?,
            expires_ms: r.i64()?,
            now_ms: r.i64()?,
        },
        kind::JOIN_NODE => Command::JoinNode {
            node: NodeId(r.i32()?),
            token_sha256: r.array()?,
            directory: DirectoryId(r.u32()?),
            now_ms: r.i64()?,
        },
        kind::REMOVE_NODE => Command::RemoveNode { node: NodeId(r.i32()?), now_ms: r.i64()? },
        kind::REGISTER_SELF => Command::RegisterSelf {
            node: NodeId(r.i32()?),
            name: r.string("node name")?,
            rack: r.string("rack")?,
            host: r.string("host")?,
            port: r.u16()?,
            identity: r.string("identity")?,
            directory: DirectoryId(r.u32()?),
            now_ms: r.i64()?,
        },
        _ => return Ok(None),
    }))
}

/// `None` while no node has a record; the last one is never removed.
pub(super) fn encode_section(image: &Image) -> Option<Bytes> {
    if image.nodes.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.i32(image.next_node).count(image.nodes.len());
    for (id, node) in &image.nodes {
        w.i32(id.0).string(&node.name).string(&node.rack).string(&node.host).u16(node.port).string(&node.identity);
        w.raw(&node.token_sha256);
        match node.state {
            NodeState::Invited { expires_ms } => w.u8(0).i64(expires_ms),
            NodeState::Joined { directory } => w.u8(1).u32(directory.0),
        };
        w.i64(node.added_ms);
    }
    Some(w.finish())
}

pub(super) fn decode_section(r: &mut Reader<'_>, image: &mut Image) -> Result<(), DecodeError> {
    image.next_node = r.i32()?;
    image.nodes = map(r, "nodes", 67, |r| Ok((NodeId(r.i32()?), get_node(r)?)))?;
    match image.nodes.last_key_value() {
        Some((last, _)) if last.0 < image.next_node => Ok(()),
        Some(_) => Err(DecodeError::Invalid { field: "next node id", value: image.next_node as u64 }),
        None => Err(DecodeError::Invalid { field: "nodes", value: 0 }),
    }
}

fn get_node(r: &mut Reader<'_>) -> Result<Node, DecodeError> {
    Ok(Node {
        name: r.string("node name")?,
        rack: r.string("rack")?,
        host: r.string("host")?,
        port: r.u16()?,
        identity: r.string("identity")?,
        token_sha256: r.array()?,
        state: match r.u8()? {
            0 => NodeState::Invited { expires_ms: r.i64()? },
            1 => NodeState::Joined { directory: DirectoryId(r.u32()?) },
            value => return Err(DecodeError::Invalid { field: "state of a node", value: value as u64 }),
        },
        added_ms: r.i64()?,
        draining: false,
    })
}
