//! Topics and the number of their partitions.

use std::sync::Arc;

use crate::base::limits::{CLUSTER_PARTITIONS_MAX, TOPIC_PARTITIONS_MAX};
use crate::base::{NodeId, Offset, PartitionId, TopicId};
use crate::metadata::bounds::TOPIC_NAME_MAX;
use crate::metadata::image::{Image, Partition, Topic};
use crate::metadata::reject::{Reject, Response};

use super::changes::Changes;
use super::{config, purge, require_at_most};

pub fn create(
    image: &mut Image,
    id: TopicId,
    name: &str,
    leaders: &[NodeId],
    replication_factor: i16,
    configs: &[(String, String)],
    now_ms: i64,
) -> Result<Response, Reject> {
    check_name(image, name)?;
    if id.is_zero() {
        return Err(Reject::Invalid("a topic id of zeros".to_owned()));
    }
    if image.topics.contains_key(&id) || image.purge.range(all_partitions(id)).next().is_some() {
        return Err(Reject::TopicIdInUse);
    }
    if replication_factor < 1 {
        return Err(Reject::ReplicationFactor(replication_factor));
    }
    check_leaders(image, 0, leaders)?;
    let configs = config::of_new_topic(configs)?;
    let name: Arc<str> = name.into();
    let partitions = leaders.iter().map(|leader| Arc::new(Partition::new(*leader))).collect();
    let topic = Topic { id, name: name.clone(), replication_factor, configs, partitions, created_ms: now_ms };
    Arc::make_mut(&mut image.topics).insert(id, Arc::new(topic));
    Arc::make_mut(&mut image.names).insert(name, id);
    Ok(Response::Ok)
}

/// The topic is gone at once; its ranges leave the index in bounded steps.
pub fn delete(image: &mut Image, changes: &mut Changes<'_>, id: TopicId, now_ms: i64) -> Result<Response, Reject> {
    let topic = image.topics.get(&id).cloned().ok_or(Reject::UnknownTopic)?;
    Arc::make_mut(&mut image.topics).remove(&id);
    Arc::make_mut(&mut image.names).remove(&topic.name);
    for (index, partition) in (0..).zip(&topic.partitions) {
        if partition.object_bytes > 0 {
            image.purge.insert(PartitionId { topic: id, index }, Offset(i64::MAX));
        }
    }
    purge::work_off(image, changes, now_ms);
    Ok(Response::Ok)
}

pub fn create_partitions(
    image: &mut Image,
    id: TopicId,
    first_index: i32,
    leaders: &[NodeId],
) -> Result<Response, Reject> {
    let topic = image.topics.get(&id).ok_or(Reject::UnknownTopic)?;
    let count = topic.partitions.len();
    if usize::try_from(first_index) != Ok(count) {
        return Err(Reject::PartitionCount { count: i32::try_from(count).unwrap_or(i32::MAX) });
    }
    check_leaders(image, count, leaders)?;
    if let Some(topic) = Arc::make_mut(&mut image.topics).get_mut(&id) {
        let new = leaders.iter().map(|leader| Arc::new(Partition::new(*leader)));
        Arc::make_mut(topic).partitions.extend(new);
    }
    Ok(Response::Ok)
}

fn all_partitions(topic: TopicId) -> std::ops::RangeInclusive<PartitionId> {
    PartitionId { topic, index: i32::MIN }..=PartitionId { topic, index: i32::MAX }
}

/// Leaders of partitions that join `existing` ones of the same topic.
fn check_leaders(image: &Image, existing: usize, leaders: &[NodeId]) -> Result<(), Reject> {
    if leaders.is_empty() {
        return Err(Reject::Invalid("adding no partition".to_owned()));
    }
    let in_topic = existing.saturating_add(leaders.len());
    require_at_most("the number of partitions of a topic", in_topic, TOPIC_PARTITIONS_MAX)?;
    let present: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
    require_at_most("the number of partitions of the cluster", present + leaders.len(), CLUSTER_PARTITIONS_MAX)?;
    match leaders.iter().find(|leader| !image.brokers.contains_key(leader)) {
        Some(unknown) => Err(Reject::UnknownBroker(*unknown)),
        None => Ok(()),
    }
}

/// Kafka's rules: the characters, the length, and no two names that differ only in `.` and `_`, which metric names
/// cannot tell apart.
fn check_name(image: &Image, name: &str) -> Result<(), Reject> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TOPIC_NAME_MAX || !name.bytes().all(allowed) || name == "." || name == ".." {
        // The name may be of any length: it is cut before it is reported.
        return Err(Reject::InvalidTopicName(name.chars().take(TOPIC_NAME_MAX).collect()));
    }
    if let Some(id) = image.names.get(name) {
        return Err(Reject::TopicExists { id: *id });
    }
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    match image.names.keys().find(|existing| collide(existing, name)) {
        Some(existing) => Err(Reject::TopicNameCollision { existing: existing.to_string() }),
        None => Ok(()),
    }
}

fn collide(a: &str, b: &str) -> bool {
    let folded = |byte: u8| if byte == b'.' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().map(folded).eq(b.bytes().map(folded))
}
