//! The cluster's identity, its brokers and its producer ids.

use std::sync::Arc;

use crate::base::{BrokerEpoch, ClusterId, NodeId, ProducerId, TopicId, WalIncarnation};
use crate::metadata::bounds::{BROKERS_MAX, ENDPOINTS_MAX, NAME_BYTES_MAX, PRODUCER_IDS_MAX};
use crate::metadata::command::{Endpoint, Replica};
use crate::metadata::image::{Broker, Image, Ledger};
use crate::metadata::reject::{REJECT_LEDGERS_MAX, Reject, Response};

use super::node::require_joined;
use super::{placement, require_at_most};

pub fn init(image: &mut Image, cluster: ClusterId, generation: u64) -> Result<Response, Reject> {
    if cluster.is_zero() {
        return Err(Reject::Invalid("a cluster id of zeros".to_owned()));
    }
    if image.cluster.is_zero() {
        image.cluster = cluster;
        image.generation = generation;
        return Ok(Response::Ok);
    }
    if image.cluster == cluster && image.generation == generation {
        return Ok(Response::Ok);
    }
    Err(Reject::ClusterMismatch)
}

pub fn register(
    image: &mut Image,
    node: NodeId,
    incarnation: WalIncarnation,
    boot: u64,
    endpoints: &[Endpoint],
    version: &str,
    now_ms: i64,
) -> Result<Response, Reject> {
    check_texts(endpoints, version)?;
    if node.0 < 0 {
        return Err(Reject::Invalid("a negative node id".to_owned()));
    }
    require_joined(image, node)?;
    match image.brokers.get(&node) {
        None => require_at_most("the number of brokers", image.brokers.len() + 1, BROKERS_MAX)?,
        Some(known) if known.incarnation == incarnation => {
            if boot <= known.boot {
                return Err(Reject::BootCount { boot, recorded: known.boot });
            }
        }
        Some(_) => {
            // The new WAL holds nothing of what the old one acknowledged, and an open ledger may hold anything.
            let held = image.ledgers.iter().filter(|(_, ledger)| is_last_holder(image, node, ledger));
            let ledgers: Vec<_> = held.map(|(id, _)| *id).take(REJECT_LEDGERS_MAX).collect();
            if !ledgers.is_empty() {
                return Err(Reject::WalReplaced { node, ledgers });
            }
        }
    }
    let next = image.next_broker_epoch.checked_add(1).ok_or_else(|| used_up("broker epochs"))?;
    raise_leader_epochs(image, node)?;
    let epoch = BrokerEpoch(image.next_broker_epoch);
    image.next_broker_epoch = next;
    let endpoints = endpoints.to_vec();
    let version = version.to_owned();
    let (registered_ms, fenced) = (now_ms, false);
    image.brokers.insert(node, Broker { epoch, incarnation, boot, endpoints, version, registered_ms, fenced });
    Ok(Response::BrokerEpoch(epoch))
}

/// From now on nothing that the epoch proposes is accepted, so no ledger of it is opened or closed any more. Moves to it are
/// called off.
pub fn fence(image: &mut Image, node: NodeId, epoch: BrokerEpoch) -> Result<Response, Reject> {
    let broker = image.brokers.get_mut(&node).ok_or(Reject::UnknownBroker(node))?;
    if broker.epoch != epoch {
        return Err(Reject::StaleBrokerEpoch { node, epoch });
    }
    broker.fenced = true;
    placement::forget_target(image, node);
    Ok(Response::Ok)
}

/// Whether something of `ledger` that is not uploaded may be on the registered WAL of `node` alone: no other WAL of the
/// set, or that holds a copy, is still the registered one of its node.
fn is_last_holder(image: &Image, node: NodeId, ledger: &Ledger) -> bool {
    let present = |replica: &Replica| {
        image.brokers.get(&replica.node).is_some_and(|broker| broker.incarnation == replica.incarnation)
    };
    let mut all = ledger.replicas.iter().chain(ledger.holders.iter().map(|holder| &holder.replica));
    let is_holder = all.clone().any(|replica| replica.node == node && present(replica));
    !ledger.is_finished() && is_holder && !all.any(|replica| replica.node != node && present(replica))
}

pub fn allocate_producer_ids(image: &mut Image, count: u32) -> Result<Response, Reject> {
    if count == 0 || count > PRODUCER_IDS_MAX {
        return Err(Reject::Invalid(format!("a block of {count} producer ids")));
    }
    let first = ProducerId(image.next_producer);
    image.next_producer = first.0.checked_add(i64::from(count)).ok_or_else(|| used_up("producer ids"))?;
    Ok(Response::ProducerIds { first, count })
}

/// A counter whose values are never given out twice has reached its end.
pub fn used_up(what: &str) -> Reject {
    Reject::Invalid(format!("another value for {what}, which are used up,"))
}

fn check_texts(endpoints: &[Endpoint], version: &str) -> Result<(), Reject> {
    require_at_most("the number of listeners of a broker", endpoints.len(), ENDPOINTS_MAX)?;
    require_at_most("the length of a version", version.len(), NAME_BYTES_MAX)?;
    for endpoint in endpoints {
        require_at_most("the length of a listener name", endpoint.listener.len(), NAME_BYTES_MAX)?;
        require_at_most("the length of a host name", endpoint.host.len(), NAME_BYTES_MAX)?;
    }
    Ok(())
}

/// What the node's former process wrote and what its new one writes must differ in leader epoch (KIP-101). All
/// partitions of the node, or none if one of them has no higher epoch.
fn raise_leader_epochs(image: &mut Image, node: NodeId) -> Result<(), Reject> {
    let mut led: Vec<TopicId> = Vec::new();
    for (id, topic) in image.topics.iter() {
        let mut partitions = topic.partitions.iter().filter(|partition| partition.leader == node).peekable();
        if partitions.peek().is_some() {
            led.push(*id);
        }
        if partitions.any(|partition| partition.leader_epoch.0 == i32::MAX) {
            return Err(used_up("leader epochs"));
        }
    }
    if led.is_empty() {
        return Ok(());
    }
    let topics = Arc::make_mut(&mut image.topics);
    for id in led {
        let Some(topic) = topics.get_mut(&id) else { continue };
        for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|partition| partition.leader == node) {
            let partition = Arc::make_mut(partition);
            partition.leader_epoch.0 = partition.leader_epoch.0.saturating_add(1);
        }
    }
    Ok(())
}
