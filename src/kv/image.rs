//! Key family `Image`: the image of the metadata in parts, so that a command writes only what it changed.
//!
//! Key: family `u8` | part `u8` (0 the counters, 1 brokers, 2 ledgers, 3 configurations, 4 what is to be purged,
//! 5 a page of a topic, followed by topic 16 bytes | page `u32`; 6 client quotas, 7 configurations of groups and of
//! subscriptions to metrics, 8 nodes). Value: an image, in its own versioned form, that has this part only. A page of a topic is the topic with at most [`PAGE_PARTITIONS`] of its partitions; only page 0
//! has the topic's configuration. The stored parts together are the image, exactly.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Batch, Family, Kv, ReadError};
use crate::base::TopicId;
use crate::base::codec::DecodeError;
use crate::metadata::{Image, Topic};

/// Partitions that share one key: a change of one rewrites all of them.
const PAGE_PARTITIONS: usize = 64;

#[derive(Clone, Copy)]
#[repr(u8)]
enum Part {
    Counters = 0,
    Brokers = 1,
    Ledgers = 2,
    Configs = 3,
    Purge = 4,
    Topic = 5,
    ClientQuotas = 6,
    NamedConfigs = 7,
    Nodes = 8,
}

fn key(part: Part) -> [u8; 2] {
    [Family::Image as u8, part as u8]
}

fn page_key(topic: TopicId, page: usize) -> [u8; 22] {
    let mut key = [Family::Image as u8; 22];
    key[1] = Part::Topic as u8;
    key[2..18].copy_from_slice(&topic.0);
    key[18..].copy_from_slice(&(page as u32).to_be_bytes());
    key
}

fn counters(image: &Image) -> Image {
    Image {
        cluster: image.cluster,
        generation: image.generation,
        next_broker_epoch: image.next_broker_epoch,
        next_ledger: image.next_ledger,
        next_object: image.next_object,
        next_producer: image.next_producer,
        applied: image.applied,
        ..Image::default()
    }
}

/// An image that holds nothing but one page of `topic`.
fn page(topic: &Topic, page: usize) -> Image {
    let partitions = topic.partitions.iter().skip(page * PAGE_PARTITIONS).take(PAGE_PARTITIONS).cloned().collect();
    let configs = if page == 0 { topic.configs.clone() } else { BTreeMap::new() };
    let name = Arc::clone(&topic.name);
    let cut = Topic { name: Arc::clone(&name), configs, partitions, ..*topic };
    Image {
        topics: Arc::new(BTreeMap::from([(topic.id, Arc::new(cut))])),
        names: Arc::new(BTreeMap::from([(name, topic.id)])),
        ..Image::default()
    }
}

fn pages(topic: &Topic) -> usize {
    topic.partitions.len().div_ceil(PAGE_PARTITIONS).max(1)
}

/// Whether the page of `after` is stored already because `before` had the same one.
fn same_page(before: &Topic, after: &Topic, page: usize) -> bool {
    let cut = |topic: &Topic| {
        let from = (page * PAGE_PARTITIONS).min(topic.partitions.len());
        from..(from + PAGE_PARTITIONS).min(topic.partitions.len())
    };
    let (old, new) = (&before.partitions[cut(before)], &after.partitions[cut(after)]);
    let partitions = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| Arc::ptr_eq(old, new));
    let head = before.name == after.name
        && before.replication_factor == after.replication_factor
        && before.created_ms == after.created_ms
        && (page > 0 || before.configs == after.configs);
    partitions && head && !new.is_empty()
}

impl Batch {
    /// Writes what differs between two images, of which `before` is the stored one.
    pub fn put_image_changes(&mut self, before: &Image, after: &Image) {
        self.put(key(Part::Counters), counters(after).encode());
        if before.brokers != after.brokers {
            let part = Image { brokers: after.brokers.clone(), ..Image::default() };
            self.put(key(Part::Brokers), part.encode());
        }
        if before.nodes != after.nodes || before.next_node != after.next_node {
            let part = Image { nodes: after.nodes.clone(), next_node: after.next_node, ..Image::default() };
            self.put(key(Part::Nodes), part.encode());
        }
        if before.ledgers != after.ledgers {
            let part = Image { ledgers: after.ledgers.clone(), ..Image::default() };
            self.put(key(Part::Ledgers), part.encode());
        }
        if before.cluster_configs != after.cluster_configs || before.broker_configs != after.broker_configs {
            let (cluster_configs, broker_configs) = (after.cluster_configs.clone(), after.broker_configs.clone());
            let part = Image { cluster_configs, broker_configs, ..Image::default() };
            self.put(key(Part::Configs), part.encode());
        }
        if before.client_quotas != after.client_quotas {
            let part = Image { client_quotas: after.client_quotas.clone(), ..Image::default() };
            self.put(key(Part::ClientQuotas), part.encode());
        }
        if before.group_configs != after.group_configs || before.client_metrics != after.client_metrics {
            let (group_configs, client_metrics) = (after.group_configs.clone(), after.client_metrics.clone());
            let part = Image { group_configs, client_metrics, ..Image::default() };
            self.put(key(Part::NamedConfigs), part.encode());
        }
        if before.purge != after.purge {
            let part = Image { purge: after.purge.clone(), ..Image::default() };
            self.put(key(Part::Purge), part.encode());
        }
        if !Arc::ptr_eq(&before.topics, &after.topics) {
            self.put_topic_changes(&before.topics, &after.topics);
        }
    }

    fn put_topic_changes(&mut self, before: &BTreeMap<TopicId, Arc<Topic>>, after: &BTreeMap<TopicId, Arc<Topic>>) {
        let mut old = before.iter().peekable();
        for (id, topic) in after {
            while let Some((gone, _)) = old.next_if(|(old_id, _)| *old_id < id) {
                self.delete_topic(*gone);
            }
            let was = old.next_if(|(old_id, _)| *old_id == id).map(|(_, topic)| topic);
            match was {
                Some(was) if Arc::ptr_eq(was, topic) => {}
                was => self.put_topic(was, topic),
            }
        }
        for (gone, _) in old {
            self.delete_topic(*gone);
        }
    }

    fn put_topic(&mut self, was: Option<&Arc<Topic>>, topic: &Topic) {
        for number in 0..pages(topic) {
            if !was.is_some_and(|was| same_page(was, topic, number)) {
                self.put(page_key(topic.id, number), page(topic, number).encode());
            }
        }
        if let Some(was) = was.filter(|was| pages(was) > pages(topic)) {
            self.delete_range(&page_key(topic.id, pages(topic)), &page_key(topic.id, pages(was)));
        }
    }

    fn delete_topic(&mut self, id: TopicId) {
        let mut to = page_key(id, u32::MAX as usize).to_vec();
        to.push(0);
        self.delete_range(&page_key(id, 0), &to);
    }
}

impl Kv {
    /// The image as it was last written; the empty one if none was.
    pub fn image(&self) -> Result<Image, ReadError> {
        let mut whole = Image::default();
        let mut topics: BTreeMap<TopicId, Topic> = BTreeMap::new();
        let (from, to) = super::bounds(Family::Image);
        self.scan(&from, &to, &mut |key, value| {
            merge(&mut whole, &mut topics, key, value).map_err(ReadError::decode(Family::Image))?;
            Ok(true)
        })?;
        let names: BTreeMap<_, _> = topics.values().map(|topic| (Arc::clone(&topic.name), topic.id)).collect();
        if names.len() != topics.len() {
            let source = DecodeError::Invalid { field: "topic names", value: names.len() as u64 };
            return Err(ReadError::Decode { family: Family::Image, source });
        }
        whole.names = Arc::new(names);
        whole.topics = Arc::new(topics.into_iter().map(|(id, topic)| (id, Arc::new(topic))).collect());
        Ok(whole)
    }
}

fn merge(
    whole: &mut Image,
    topics: &mut BTreeMap<TopicId, Topic>,
    key: &[u8],
    value: &[u8],
) -> Result<(), DecodeError> {
    let part = Image::decode(value)?;
    match key.get(1).copied().unwrap_or(u8::MAX) {
        0 => {
            whole.cluster = part.cluster;
            whole.generation = part.generation;
            whole.next_broker_epoch = part.next_broker_epoch;
            whole.next_ledger = part.next_ledger;
            whole.next_object = part.next_object;
            whole.next_producer = part.next_producer;
            whole.applied = part.applied;
        }
        1 => whole.brokers = part.brokers,
        2 => whole.ledgers = part.ledgers,
        3 => (whole.cluster_configs, whole.broker_configs) = (part.cluster_configs, part.broker_configs),
        4 => whole.purge = part.purge,
        5 => {
            for (id, topic) in part.topics.iter() {
                match topics.get_mut(id) {
                    // Pages come in order, each full but the last.
                    Some(known) => known.partitions.extend(topic.partitions.iter().cloned()),
                    None => drop(topics.insert(*id, Topic::clone(topic))),
                }
            }
        }
        6 => whole.client_quotas = part.client_quotas,
        7 => (whole.group_configs, whole.client_metrics) = (part.group_configs, part.client_metrics),
        8 => (whole.nodes, whole.next_node) = (part.nodes, part.next_node),
        value => return Err(DecodeError::Invalid { field: "image part", value: value as u64 }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, DirectoryId, NodeId, Offset, PartitionId};
    use crate::kv::Durability;
    use crate::metadata::{Node, NodeState, Partition, QuotaEntity, QuotaName};

    fn topic(id: u8, partitions: usize) -> Arc<Topic> {
        Arc::new(Topic {
            id: TopicId([id; 16]),
            name: format!("topic-{id}").into(),
            replication_factor: 1,
            configs: BTreeMap::from([("retention.ms".to_string(), id.to_string())]),
            partitions: (0..partitions).map(|n| Arc::new(Partition::new(NodeId(n as i32)))).collect(),
            created_ms: 9,
        })
    }

    fn with_topics(topics: Vec<Arc<Topic>>) -> Image {
        Image {
            cluster: ClusterId([1; 16]),
            applied: 3,
            names: Arc::new(topics.iter().map(|t| (t.name.clone(), t.id)).collect()),
            topics: Arc::new(topics.into_iter().map(|t| (t.id, t)).collect()),
            ..Image::default()
        }
    }

    fn store(kv: &Kv, before: &Image, after: &Image) -> usize {
        let mut batch = Batch::default();
        batch.put_image_changes(before, after);
        let changes = batch.0.len();
        kv.write(batch, Durability::Ordered).unwrap();
        assert_eq!(kv.image().unwrap(), *after);
        changes
    }

    #[test]
    fn the_parts_make_the_image_after_every_change() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let empty = kv.image().unwrap();
        assert_eq!(empty, Image::default());
        let (a, b) = (topic(1, 200), topic(2, 1));
        let first = with_topics(vec![a.clone(), b.clone()]);
        assert_eq!(store(&kv, &empty, &first), 1 + 4 + 1);

        // One partition of 200 changes: its page and the counters.
        let mut changed = Topic::clone(&a);
        let moved = Arc::make_mut(&mut changed.partitions[130]);
        (moved.uploaded_end, moved.target, moved.handed_over) = (Offset(7), Some(NodeId(5)), Offset(9));
        moved.target_since = 31;
        let second = with_topics(vec![Arc::new(changed.clone()), b.clone()]);
        assert_eq!(store(&kv, &first, &second), 2);

        // More partitions, another topic, one that is gone, and everything else.
        changed.partitions.extend((0..100).map(|_| Arc::new(Partition::new(NodeId(1)))));
        changed.configs.clear();
        let mut third = with_topics(vec![Arc::new(changed), topic(0, 64), topic(3, 65)]);
        third.cluster_configs.insert("a".to_string(), "b".to_string());
        let own = BTreeMap::from([("a".to_string(), "b".to_string())]);
        third.group_configs = Arc::new(BTreeMap::from([("g".to_string(), own.clone())]));
        third.client_metrics = Arc::new(BTreeMap::from([("m".to_string(), own)]));
        let entity = QuotaEntity { user: Some(QuotaName::Default), ..QuotaEntity::default() };
        third.client_quotas = Arc::new(BTreeMap::from([(entity, BTreeMap::from([("x".to_string(), 1.5)]))]));
        third.purge.insert(PartitionId { topic: TopicId([2; 16]), index: 0 }, Offset(5));
        third.next_ledger = 9;
        let node = Node {
            name: "a".to_string(),
            rack: String::new(),
            host: "a.example".to_string(),
            port: 9094,
            identity: "CN=a".to_string(),
            token_sha256: [1; 32],
            state: NodeState::Joined { directory: DirectoryId(5) },
            added_ms: 9,
            draining: true,
        };
        third.nodes.insert(NodeId(1), node);
        third.next_node = 4;
        store(&kv, &second, &third);
        store(&kv, &third, &Image::default());
    }
}
