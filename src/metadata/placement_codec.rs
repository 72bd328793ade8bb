//! The stored form of who leads what: the commands, and the image's sections about partitions that are on the move and
//! nodes that are being drained.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionId, TopicId};

use super::command::{Assignment, Command, TargetChange};
use super::command_codec::{get_partition, list, put_partition};
use super::image::{Partition, Topic};
use super::image_codec::map;
use super::node::Node;

/// Kind numbers of the commands, out of the same space as those of `command_codec`.
pub(super) mod kind {
    pub const ASSIGN_PARTITIONS: u16 = 50;
    pub const HAND_OVER: u16 = 51;
    pub const SET_TARGETS: u16 = 52;
    pub const DRAIN_NODE: u16 = 53;
    /// `HAND_OVER` that says which wish it fulfils.
    pub const HAND_OVER_SINCE: u16 = 54;
}

/// Writes kind and body of a command about leaders.
pub(super) fn encode(w: &mut Writer, command: &Command) {
    match command {
        Command::AssignPartitions { changes } => {
            w.u16(kind::ASSIGN_PARTITIONS).count(changes.len());
            for change in changes {
                put_partition(w, change.partition);
                w.i32(change.leader_epoch.0).i32(change.leader.0);
            }
        }
        Command::HandOver { node, epoch, partition, leader_epoch, end, target_since } => {
            let kind = if *target_since == 0 { kind::HAND_OVER } else { kind::HAND_OVER_SINCE };
            w.u16(kind).i32(node.0).i64(epoch.0);
            put_partition(w, *partition);
            w.i32(leader_epoch.0).i64(end.0);
            if *target_since != 0 {
                w.u64(*target_since);
            }
        }
        Command::SetTargets { changes } => {
            w.u16(kind::SET_TARGETS).count(changes.len());
            for change in changes {
                put_partition(w, change.partition);
                put_node(w, change.target);
                put_node(w, change.preferred);
            }
        }
        Command::DrainNode { node, draining } => {
            w.u16(kind::DRAIN_NODE).i32(node.0).bool(*draining);
        }
        _ => {}
    }
}

/// Reads the body of a command about leaders; `None` if the kind is none.
pub(super) fn decode(kind: u16, r: &mut Reader<'_>) -> Result<Option<Command>, DecodeError> {
    Ok(Some(match kind {
        kind::ASSIGN_PARTITIONS => Command::AssignPartitions {
            changes: list(r, 28, |r| {
                let (partition, leader_epoch) = (get_partition(r)?, LeaderEpoch(r.i32()?));
                Ok(Assignment { partition, leader_epoch, leader: NodeId(r.i32()?) })
            })?,
        },
        kind::HAND_OVER | kind::HAND_OVER_SINCE => Command::HandOver {
            node: NodeId(r.i32()?),
            epoch: BrokerEpoch(r.i64()?),
            partition: get_partition(r)?,
            leader_epoch: LeaderEpoch(r.i32()?),
            end: Offset(r.i64()?),
            target_since: match kind {
                kind::HAND_OVER => 0,
                _ => not_zero(r.u64()?)?,
            },
        },
        kind::SET_TARGETS => Command::SetTargets {
            changes: list(r, 22, |r| {
                let (partition, target) = (get_partition(r)?, get_node(r, "target")?);
                Ok(TargetChange { partition, target, preferred: get_node(r, "preferred leader")? })
            })?,
        },
        kind::DRAIN_NODE => Command::DrainNode { node: NodeId(r.i32()?), draining: r.bool("draining")? },
        _ => return Ok(None),
    }))
}

/// What is zero is left out.
fn not_zero(since: u64) -> Result<u64, DecodeError> {
    if since == 0 { Err(DecodeError::Invalid { field: "when a target was set", value: 0 }) } else { Ok(since) }
}

fn put_node(w: &mut Writer, node: Option<NodeId>) {
    w.bool(node.is_some());
    if let Some(node) = node {
        w.i32(node.0);
    }
}

fn get_node(r: &mut Reader<'_>, field: &'static str) -> Result<Option<NodeId>, DecodeError> {
    Ok(match r.bool(field)? {
        true => Some(NodeId(r.i32()?)),
        false => None,
    })
}

/// Nothing about the partition that an image of the first form could not say.
fn is_settled(partition: &Partition) -> bool {
    partition.target.is_none() && partition.preferred == partition.leader && partition.handed_over == Offset::ZERO
}

/// `None` where every partition is led by its preferred leader, none is on the move and none was ever handed over. An
/// index counts within the image at hand, which may be a page of a topic.
pub(super) fn encode_placements(topics: &BTreeMap<TopicId, Arc<Topic>>) -> Option<Bytes> {
    let mut moved = Vec::new();
    for topic in topics.values() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            if !is_settled(partition) {
                moved.push((PartitionId { topic: topic.id, index }, partition));
            }
        }
    }
    if moved.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(moved.len());
    for (id, partition) in moved {
        put_partition(&mut w, id);
        put_node(&mut w, partition.target);
        w.i32(partition.preferred.0).i64(partition.handed_over.0);
    }
    Some(w.finish())
}

pub(super) fn decode_placements(
    r: &mut Reader<'_>,
    topics: &mut BTreeMap<TopicId, Arc<Topic>>,
) -> Result<(), DecodeError> {
    let moved = map(r, "placements", 33, |r| {
        Ok((get_partition(r)?, (get_node(r, "target")?, NodeId(r.i32()?), Offset(r.i64()?))))
    })?;
    if moved.is_empty() {
        return Err(DecodeError::Invalid { field: "placements", value: 0 });
    }
    for (id, (target, preferred, handed_over)) in moved {
        let missing = DecodeError::Invalid { field: "placed partition", value: u64::from(id.index.unsigned_abs()) };
        let topic = topics.get_mut(&id.topic).map(Arc::make_mut);
        let index = usize::try_from(id.index).ok();
        let slot = topic.zip(index).and_then(|(topic, index)| topic.partitions.get_mut(index));
        let partition = Arc::make_mut(slot.ok_or_else(|| missing.clone())?);
        (partition.target, partition.preferred, partition.handed_over) = (target, preferred, handed_over);
        if is_settled(partition) {
            return Err(missing);
        }
    }
    Ok(())
}

/// `None` where no partition has a target, but for such as were set before this was noted.
pub(super) fn encode_targets_since(topics: &BTreeMap<TopicId, Arc<Topic>>) -> Option<Bytes> {
    let mut since = Vec::new();
    for topic in topics.values() {
        for (index, partition) in (0..).zip(&topic.partitions).filter(|(_, partition)| partition.target_since != 0) {
            since.push((PartitionId { topic: topic.id, index }, partition.target_since));
        }
    }
    if since.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(since.len());
    for (id, since) in since {
        put_partition(&mut w, id);
        w.u64(since);
    }
    Some(w.finish())
}

/// Of partitions whose targets are read already.
pub(super) fn decode_targets_since(
    r: &mut Reader<'_>,
    topics: &mut BTreeMap<TopicId, Arc<Topic>>,
) -> Result<(), DecodeError> {
    let all = map(r, "targets", 28, |r| Ok((get_partition(r)?, not_zero(r.u64()?)?)))?;
    if all.is_empty() {
        return Err(DecodeError::Invalid { field: "targets", value: 0 });
    }
    for (id, since) in all {
        let topic = topics.get_mut(&id.topic).map(Arc::make_mut);
        let index = usize::try_from(id.index).ok();
        let slot = topic.zip(index).and_then(|(topic, index)| topic.partitions.get_mut(index));
        let slot = slot.filter(|partition| partition.target.is_some());
        let missing =
            DecodeError::Invalid { field: "partition with a target", value: u64::from(id.index.unsigned_abs()) };
        Arc::make_mut(slot.ok_or(missing)?).target_since = since;
    }
    Ok(())
}

/// `None` while no node is being drained.
pub(super) fn encode_draining(nodes: &BTreeMap<NodeId, Node>) -> Option<Bytes> {
    let draining: Vec<NodeId> = nodes.iter().filter(|(_, node)| node.draining).map(|(id, _)| *id).collect();
    if draining.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(draining.len());
    for node in draining {
        w.i32(node.0);
    }
    Some(w.finish())
}

pub(super) fn decode_draining(r: &mut Reader<'_>, nodes: &mut BTreeMap<NodeId, Node>) -> Result<(), DecodeError> {
    let draining = map(r, "draining nodes", 4, |r| Ok((NodeId(r.i32()?), ())))?;
    if draining.is_empty() {
        return Err(DecodeError::Invalid { field: "draining nodes", value: 0 });
    }
    for id in draining.into_keys() {
        let missing = DecodeError::Invalid { field: "draining node", value: u64::from(id.0.unsigned_abs()) };
        nodes.get_mut(&id).ok_or(missing)?.draining = true;
    }
    Ok(())
}
