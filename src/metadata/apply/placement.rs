//! Who leads each partition: given to others when a broker has died, handed over by a live one, wished for by operators.
//!
//! Leadership leaves a broker in two ways only. A live leader gives it away itself, with the end of what it wrote
//! (`HandOver`); or the leader is fenced and every ledger that its node wrote has an end (`AssignPartitions`), so that
//! nothing can be added to what the next leader reads. Every change of leader raises the leader epoch.
//!
//! Invariants: a target is a registered broker that is not fenced, and never the leader; `handed_over` never moves back.

use std::sync::Arc;

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::base::{LeaderEpoch, LedgerId, NodeId, Offset, PartitionId};
use crate::metadata::command::{Assignment, TargetChange};
use crate::metadata::image::{Image, Partition};
use crate::metadata::reject::{Reject, Response};

use super::changes::Changes;
use super::cluster::used_up;
use super::require_at_most;

/// All of the changes or none.
pub fn assign(image: &Image, changes: &mut Changes<'_>, wanted: &[Assignment]) -> Result<Response, Reject> {
    require_at_most("the number of partitions in one command", wanted.len(), COMMAND_PARTITIONS_MAX)?;
    // Checked once for each leader that is left and each that takes over: a command has many partitions and few nodes.
    let mut checked: Option<(NodeId, NodeId)> = None;
    for change in wanted {
        let partition = changes.partition(image, change.partition);
        let partition = partition.ok_or(Reject::UnknownPartition(change.partition))?;
        if partition.leader_epoch != change.leader_epoch {
            let epoch = partition.leader_epoch;
            return Err(Reject::StaleLeaderEpoch { partition: change.partition, epoch });
        }
        if checked != Some((partition.leader, change.leader)) {
            require_gone(image, partition.leader)?;
            require_live(image, change.leader)?;
            checked = Some((partition.leader, change.leader));
        }
        lead(partition, change.leader)?;
    }
    Ok(Response::Ok)
}

/// The leader gives the partition to its target. `end` is the end of its last record, which is durable. `target_since` says
/// which wish it fulfils: a command that comes late must not fulfil another, for the leader has gone on since. (Zero in a
/// command that was written before this was noted.)
pub fn hand_over(
    image: &Image,
    changes: &mut Changes<'_>,
    node: NodeId,
    id: PartitionId,
    (leader_epoch, target_since): (LeaderEpoch, u64),
    end: Offset,
) -> Result<Response, Reject> {
    let partition = changes.partition(image, id).ok_or(Reject::UnknownPartition(id))?;
    if partition.leader != node {
        return Err(Reject::NotLeader { partition: id, leader: partition.leader });
    }
    if partition.leader_epoch != leader_epoch {
        return Err(Reject::StaleLeaderEpoch { partition: id, epoch: partition.leader_epoch });
    }
    let target = partition.target.ok_or(Reject::NoTarget(id))?;
    if target_since != 0 && target_since != partition.target_since {
        return Err(Reject::TargetChanged(id));
    }
    require_live(image, target)?;
    let reached = partition.handed_over.max(partition.uploaded_end);
    if end < reached {
        return Err(Reject::EndMovedBack { partition: id, reached });
    }
    lead(partition, target)?;
    partition.handed_over = end;
    Ok(Response::Ok)
}

/// All of the changes or none.
pub fn set_targets(image: &Image, changes: &mut Changes<'_>, wanted: &[TargetChange]) -> Result<Response, Reject> {
    require_at_most("the number of partitions in one command", wanted.len(), COMMAND_PARTITIONS_MAX)?;
    for change in wanted {
        if let Some(target) = change.target {
            require_live(image, target)?;
            if image.is_draining(target) {
                return Err(Reject::NodeDraining(target));
            }
        }
        if let Some(preferred) = change.preferred.filter(|node| !image.brokers.contains_key(node)) {
            return Err(Reject::UnknownBroker(preferred));
        }
        let partition = changes.partition(image, change.partition);
        let partition = partition.ok_or(Reject::UnknownPartition(change.partition))?;
        let target = change.target.filter(|target| *target != partition.leader);
        if target != partition.target {
            set_target(partition, target, image.applied);
        }
        partition.preferred = change.preferred.unwrap_or(partition.preferred);
    }
    Ok(Response::Ok)
}

/// Marks a node whose partitions and ledgers are to leave it, or takes the mark away. Somebody has to be left.
pub fn drain(image: &mut Image, id: NodeId, draining: bool) -> Result<Response, Reject> {
    let takes =
        |(other, node): (&NodeId, &crate::metadata::Node)| *other != id && node.directory().is_some() && !node.draining;
    let others = image.nodes.iter().any(takes);
    let node = image.nodes.get_mut(&id).ok_or(Reject::UnknownNode(id))?;
    if node.directory().is_none() {
        return Err(Reject::NodeNotJoined(id));
    }
    if draining && !others {
        return Err(Reject::NowhereToDrain(id));
    }
    node.draining = draining;
    Ok(Response::Ok)
}

/// Calls off every move to a broker that is fenced now: its leader would wait for somebody who may never come back.
pub fn forget_target(image: &mut Image, node: NodeId) {
    change_all(image, |partition| partition.target == Some(node), |partition| set_target(partition, None, 0));
}

/// The node is gone for good. It leads nothing; whoever leads in its place is preferred from now on.
pub fn forget_node(image: &mut Image, node: NodeId) {
    forget_target(image, node);
    let prefers = |partition: &Partition| partition.preferred == node;
    change_all(image, prefers, |partition| partition.preferred = partition.leader);
}

fn change_all(image: &mut Image, is_meant: impl Fn(&Partition) -> bool, change: impl Fn(&mut Partition)) {
    let meant = |topic: &crate::metadata::Topic| topic.partitions.iter().any(|partition| is_meant(partition));
    let topics: Vec<_> = image.topics.iter().filter(|(_, topic)| meant(topic)).map(|(id, _)| *id).collect();
    if topics.is_empty() {
        return;
    }
    let all = Arc::make_mut(&mut image.topics);
    for id in topics {
        let Some(topic) = all.get_mut(&id) else { continue };
        for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|partition| is_meant(partition)) {
            change(Arc::make_mut(partition));
        }
    }
}

/// A wish that is taken back and made again is another one.
fn set_target(partition: &mut Partition, target: Option<NodeId>, applied: u64) {
    partition.target = target;
    partition.target_since = if target.is_some() { applied } else { 0 };
}

/// `handed_over` stays: what an earlier leader gave away is part of the log whoever leads.
fn lead(partition: &mut Partition, leader: NodeId) -> Result<(), Reject> {
    partition.leader_epoch.0 = partition.leader_epoch.0.checked_add(1).ok_or_else(|| used_up("leader epochs"))?;
    partition.leader = leader;
    if partition.target == Some(leader) {
        set_target(partition, None, 0);
    }
    Ok(())
}

/// The broker can write no more, and where each of its node's ledgers ends is known.
fn require_gone(image: &Image, node: NodeId) -> Result<(), Reject> {
    if image.brokers.get(&node).is_some_and(|broker| !broker.fenced) {
        return Err(Reject::LeaderNotFenced(node));
    }
    let open = |(_, ledger): &(&LedgerId, &crate::metadata::Ledger)| ledger.node == node && ledger.end.is_none();
    match image.ledgers.iter().find(open) {
        Some((ledger, _)) => Err(Reject::UnsealedLedger(*ledger)),
        None => Ok(()),
    }
}

fn require_live(image: &Image, node: NodeId) -> Result<(), Reject> {
    match image.brokers.get(&node) {
        None => Err(Reject::UnknownBroker(node)),
        Some(broker) if broker.fenced => Err(Reject::BrokerFenced(node)),
        Some(_) => Ok(()),
    }
}
