//! The stored form of the image, as it stands in snapshots: `version u16 | body | sections`.
//!
//! Version 1 has no sections; it is still written where none is needed. Version 2 ends with a count of sections, each
//! `tag u16 | bytes`, in ascending order of their tags and none of them empty: what was invented later.
//!
//! Maps are written in ascending order of their keys, and only that order is read back: an image has exactly one
//! stored form. Names are not written; they follow from the topics. An image that holds only some of these parts is
//! valid, too: the key-value store keeps it in pieces.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::TOPIC_PARTITIONS_MAX;
use crate::base::{
    BrokerEpoch, ClusterId, EntryId, LeaderEpoch, LedgerId, NodeId, Offset, PartitionId, TopicId, WalIncarnation,
};

use super::command_codec::{
    get_endpoints, get_epochs, get_holders, get_number, get_partition, get_quota_entity, get_replicas, list,
    put_endpoints, put_epochs, put_holders, put_partition, put_quota_entity, put_replicas,
};
use super::image::{Broker, ClientQuotas, Image, Ledger, NamedConfigs, Partition, Topic};
use super::{node_codec, placement_codec};

/// Without sections.
const PLAIN: u16 = 1;
/// With sections.
const VERSION: u16 = 2;

/// What follows the body of version 2.
mod section {
    pub const CLIENT_QUOTAS: u16 = 1;
    pub const GROUP_CONFIGS: u16 = 2;
    pub const CLIENT_METRICS: u16 = 3;
    /// How far each partition is compact, of those of which anything is.
    pub const CLEANED_ENDS: u16 = 4;
    pub const NODES: u16 = 8;
    /// The nodes that are being drained.
    pub const DRAINING_NODES: u16 = 9;
    /// The brokers that are fenced.
    pub const FENCED_BROKERS: u16 = 16;
    /// Ledgers that another node uploads than their writer, or that were recovered.
    pub const RECOVERED_LEDGERS: u16 = 17;
    /// Target, preferred leader and handed-over end of partitions where they say something.
    pub const PLACEMENTS: u16 = 18;
    /// When targets were set.
    pub const TARGETS_SINCE: u16 = 19;
}

impl Image {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        let sections = self.sections();
        let version = if sections.is_empty() { PLAIN } else { VERSION };
        w.u16(version).raw(&self.cluster.0).u64(self.generation).u64(self.applied);
        w.i64(self.next_broker_epoch).u64(self.next_ledger).u64(self.next_object).i64(self.next_producer);
        w.count(self.brokers.len());
        for (node, broker) in &self.brokers {
            w.i32(node.0);
            put_broker(&mut w, broker);
        }
        w.count(self.ledgers.len());
        for (id, ledger) in &self.ledgers {
            w.u64(id.0);
            put_ledger(&mut w, ledger);
        }
        w.count(self.topics.len());
        for (id, topic) in self.topics.iter() {
            w.raw(&id.0);
            put_topic(&mut w, topic);
        }
        put_configs(&mut w, &self.cluster_configs);
        w.count(self.broker_configs.len());
        for (node, configs) in &self.broker_configs {
            w.i32(node.0);
            put_configs(&mut w, configs);
        }
        w.count(self.purge.len());
        for (partition, below) in &self.purge {
            put_partition(&mut w, *partition);
            w.i64(below.0);
        }
        if version == VERSION {
            w.count(sections.len());
            for (tag, bytes) in sections {
                w.u16(tag).bytes(&bytes);
            }
        }
        w.finish()
    }

    /// What version 1 has no place for, in the order of the tags.
    fn sections(&self) -> Vec<(u16, Bytes)> {
        let mut sections = Vec::new();
        if !self.client_quotas.is_empty() {
            sections.push((section::CLIENT_QUOTAS, encode_quotas(&self.client_quotas)));
        }
        for (tag, configs) in
            [(section::GROUP_CONFIGS, &self.group_configs), (section::CLIENT_METRICS, &self.client_metrics)]
        {
            if !configs.is_empty() {
                sections.push((tag, encode_named(configs)));
            }
        }
        sections.extend(encode_cleaned(&self.topics).map(|bytes| (section::CLEANED_ENDS, bytes)));
        sections.extend(node_codec::encode_section(self).map(|bytes| (section::NODES, bytes)));
        let draining = placement_codec::encode_draining(&self.nodes);
        sections.extend(draining.map(|bytes| (section::DRAINING_NODES, bytes)));
        sections.extend(encode_fenced(&self.brokers).map(|bytes| (section::FENCED_BROKERS, bytes)));
        sections.extend(encode_recovered(&self.ledgers).map(|bytes| (section::RECOVERED_LEDGERS, bytes)));
        let placements = placement_codec::encode_placements(&self.topics);
        sections.extend(placements.map(|bytes| (section::PLACEMENTS, bytes)));
        let since = placement_codec::encode_targets_since(&self.topics);
        sections.extend(since.map(|bytes| (section::TARGETS_SINCE, bytes)));
        sections
    }

    fn take_section(&mut self, tag: u16, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        match tag {
            section::CLIENT_QUOTAS => self.client_quotas = get_quotas(r)?,
            section::GROUP_CONFIGS => self.group_configs = get_named(r)?,
            section::CLIENT_METRICS => self.client_metrics = get_named(r)?,
            section::CLEANED_ENDS => get_cleaned(r, Arc::make_mut(&mut self.topics))?,
            section::NODES => node_codec::decode_section(r, self)?,
            section::DRAINING_NODES => placement_codec::decode_draining(r, &mut self.nodes)?,
            section::FENCED_BROKERS => get_fenced(r, &mut self.brokers)?,
            section::RECOVERED_LEDGERS => get_recovered(r, &mut self.ledgers)?,
            section::PLACEMENTS => placement_codec::decode_placements(r, Arc::make_mut(&mut self.topics))?,
            section::TARGETS_SINCE => placement_codec::decode_targets_since(r, Arc::make_mut(&mut self.topics))?,
            other => return Err(DecodeError::Invalid { field: "section of the image", value: other as u64 }),
        }
        Ok(())
    }

    /// Reads a stored image, all of it. A name that two topics bear is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = match r.u16()? {
            known @ PLAIN..=VERSION => known,
            found => return Err(DecodeError::Version { found, newest: VERSION }),
        };
        let (cluster, generation, applied) = (ClusterId(r.array()?), r.u64()?, r.u64()?);
        let (next_broker_epoch, next_ledger, next_object, next_producer) = (r.i64()?, r.u64()?, r.u64()?, r.i64()?);
        let brokers = map(&mut r, "brokers", 48, |r| Ok((NodeId(r.i32()?), get_broker(r)?)))?;
        let ledgers = map(&mut r, "ledgers", 34, |r| Ok((LedgerId(r.u64()?), get_ledger(r)?)))?;
        let topics = map(&mut r, "topics", 38, get_topic)?;
        let mut names = BTreeMap::new();
        for (id, topic) in &topics {
            if names.insert(topic.name.clone(), *id).is_some() {
                return Err(DecodeError::Invalid { field: "topic names: the same twice", value: 2 });
            }
        }
        let cluster_configs = get_configs(&mut r)?;
        let broker_configs = map(&mut r, "broker configs", 8, |r| Ok((NodeId(r.i32()?), get_configs(r)?)))?;
        let purge = map(&mut r, "purge", 28, |r| Ok((get_partition(r)?, Offset(r.i64()?))))?;
        let mut image = Image {
            cluster,
            generation,
            brokers,
            topics: Arc::new(topics),
            names: Arc::new(names),
            ledgers,
            cluster_configs,
            broker_configs,
            purge,
            next_broker_epoch,
            next_ledger,
            next_object,
            next_producer,
            applied,
            ..Image::default()
        };
        if version == VERSION {
            get_sections(&mut r, &mut image)?;
        }
        r.finish()?;
        Ok(image)
    }
}

fn get_sections(r: &mut Reader<'_>, image: &mut Image) -> Result<(), DecodeError> {
    let count = r.count(6)?;
    let mut last = 0;
    for _ in 0..count {
        let tag = r.u16()?;
        if tag <= last {
            return Err(DecodeError::Invalid { field: "order of the image's sections", value: tag as u64 });
        }
        last = tag;
        let mut body = Reader::new(r.bytes()?);
        image.take_section(tag, &mut body)?;
        body.finish()?;
    }
    // An image without sections is written in version 1.
    if count == 0 { Err(DecodeError::Invalid { field: "sections of the image", value: 0 }) } else { Ok(()) }
}

/// `None` where nothing was ever compacted. An index counts within the image at hand, which may be a page of a topic.
fn encode_cleaned(topics: &BTreeMap<TopicId, Arc<Topic>>) -> Option<Bytes> {
    let mut cleaned = Vec::new();
    for topic in topics.values() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.cleaned_end != Offset::ZERO {
                cleaned.push((PartitionId { topic: topic.id, index }, partition.cleaned_end));
            }
        }
    }
    if cleaned.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(cleaned.len());
    for (partition, end) in cleaned {
        put_partition(&mut w, partition);
        w.i64(end.0);
    }
    Some(w.finish())
}

fn get_cleaned(r: &mut Reader<'_>, topics: &mut BTreeMap<TopicId, Arc<Topic>>) -> Result<(), DecodeError> {
    let cleaned = map(r, "compacted partitions", 28, |r| Ok((get_partition(r)?, Offset(r.i64()?))))?;
    if cleaned.is_empty() {
        return Err(DecodeError::Invalid { field: "compacted partitions", value: 0 });
    }
    for (id, end) in cleaned {
        let topic = topics.get_mut(&id.topic).map(Arc::make_mut);
        let index = usize::try_from(id.index).ok();
        let slot = topic.zip(index).and_then(|(topic, index)| topic.partitions.get_mut(index));
        let Some(slot) = slot.filter(|_| end != Offset::ZERO) else {
            return Err(DecodeError::Invalid { field: "compacted partition", value: id.index as u64 });
        };
        Arc::make_mut(slot).cleaned_end = end;
    }
    Ok(())
}

fn encode_fenced(brokers: &BTreeMap<NodeId, Broker>) -> Option<Bytes> {
    let fenced: Vec<NodeId> = brokers.iter().filter(|(_, broker)| broker.fenced).map(|(node, _)| *node).collect();
    if fenced.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(fenced.len());
    for node in fenced {
        w.i32(node.0);
    }
    Some(w.finish())
}

fn get_fenced(r: &mut Reader<'_>, brokers: &mut BTreeMap<NodeId, Broker>) -> Result<(), DecodeError> {
    let fenced = not_empty("fenced brokers", map(r, "fenced brokers", 4, |r| Ok((NodeId(r.i32()?), ())))?)?;
    for node in fenced.into_keys() {
        let missing = DecodeError::Invalid { field: "fenced broker", value: u64::from(node.0.unsigned_abs()) };
        brokers.get_mut(&node).ok_or(missing)?.fenced = true;
    }
    Ok(())
}

fn encode_recovered(ledgers: &BTreeMap<LedgerId, Ledger>) -> Option<Bytes> {
    let is_plain = |ledger: &Ledger| ledger.uploader.is_none() && ledger.holders.is_empty();
    let recovered: Vec<_> = ledgers.iter().filter(|(_, ledger)| !is_plain(ledger)).collect();
    if recovered.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.count(recovered.len());
    for (id, ledger) in recovered {
        w.u64(id.0).bool(ledger.uploader.is_some());
        if let Some(node) = ledger.uploader {
            w.i32(node.0);
        }
        put_holders(&mut w, &ledger.holders);
    }
    Some(w.finish())
}

fn get_recovered(r: &mut Reader<'_>, ledgers: &mut BTreeMap<LedgerId, Ledger>) -> Result<(), DecodeError> {
    let recovered = map(r, "recovered ledgers", 13, |r| {
        let id = LedgerId(r.u64()?);
        let uploader = match r.bool("uploader")? {
            true => Some(NodeId(r.i32()?)),
            false => None,
        };
        Ok((id, (uploader, get_holders(r)?)))
    })?;
    for (id, (uploader, holders)) in not_empty("recovered ledgers", recovered)? {
        let invalid = DecodeError::Invalid { field: "recovered ledger", value: id.0 };
        if uploader.is_none() && holders.is_empty() {
            return Err(invalid);
        }
        let ledger = ledgers.get_mut(&id).ok_or(invalid)?;
        (ledger.uploader, ledger.holders) = (uploader, holders);
    }
    Ok(())
}

fn encode_quotas(quotas: &ClientQuotas) -> Bytes {
    let mut w = Writer::new();
    w.count(quotas.len());
    for (entity, values) in quotas.iter() {
        put_quota_entity(&mut w, entity);
        w.count(values.len());
        for (key, value) in values {
            w.string(key).u64(value.to_bits());
        }
    }
    w.finish()
}

fn get_quotas(r: &mut Reader<'_>) -> Result<ClientQuotas, DecodeError> {
    let quotas = map(r, "client quotas", 7, |r| {
        let entity = get_quota_entity(r)?;
        let values = map(r, "quotas", 12, |r| Ok((r.string("quota key")?, get_number(r)?)))?;
        Ok((entity, not_empty("quotas", values)?))
    })?;
    Ok(Arc::new(not_empty("client quotas", quotas)?))
}

fn encode_named(configs: &NamedConfigs) -> Bytes {
    let mut w = Writer::new();
    w.count(configs.len());
    for (name, own) in configs.iter() {
        w.string(name);
        put_configs(&mut w, own);
    }
    w.finish()
}

fn get_named(r: &mut Reader<'_>) -> Result<NamedConfigs, DecodeError> {
    let configs =
        map(r, "named configs", 8, |r| Ok((r.string("name of a resource")?, not_empty("configs", get_configs(r)?)?)))?;
    Ok(Arc::new(not_empty("named configs", configs)?))
}

/// What is empty is not written at all.
fn not_empty<K, V>(field: &'static str, map: BTreeMap<K, V>) -> Result<BTreeMap<K, V>, DecodeError> {
    if map.is_empty() { Err(DecodeError::Invalid { field, value: 0 }) } else { Ok(map) }
}

/// A counted map whose keys must ascend.
pub(super) fn map<'a, K: Ord, V>(
    r: &mut Reader<'a>,
    field: &'static str,
    element_bytes: usize,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<(K, V), DecodeError>,
) -> Result<BTreeMap<K, V>, DecodeError> {
    let count = r.count(element_bytes)?;
    let mut out = BTreeMap::new();
    for index in 0..count {
        let (key, value) = element(r)?;
        if out.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::Invalid { field, value: index as u64 });
        }
        out.insert(key, value);
    }
    Ok(out)
}

fn put_configs(w: &mut Writer, configs: &BTreeMap<String, String>) {
    w.count(configs.len());
    for (name, value) in configs {
        w.string(name).string(value);
    }
}

fn get_configs(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>, DecodeError> {
    map(r, "configs", 8, |r| Ok((r.string("config name")?, r.string("config value")?)))
}

fn put_broker(w: &mut Writer, broker: &Broker) {
    w.i64(broker.epoch.0).raw(&broker.incarnation.0).u64(broker.boot);
    put_endpoints(w, &broker.endpoints);
    w.string(&broker.version).i64(broker.registered_ms);
}

fn get_broker(r: &mut Reader<'_>) -> Result<Broker, DecodeError> {
    Ok(Broker {
        epoch: BrokerEpoch(r.i64()?),
        incarnation: WalIncarnation(r.array()?),
        boot: r.u64()?,
        endpoints: get_endpoints(r)?,
        version: r.string("version")?,
        registered_ms: r.i64()?,
        fenced: false,
    })
}

fn put_ledger(w: &mut Writer, ledger: &Ledger) {
    w.i32(ledger.node.0).i64(ledger.epoch.0);
    put_replicas(w, &ledger.replicas);
    w.u8(ledger.write_quorum).bool(ledger.end.is_some());
    if let Some(end) = ledger.end {
        w.u64(end.0);
    }
    w.u64(ledger.uploaded.0);
}

fn get_ledger(r: &mut Reader<'_>) -> Result<Ledger, DecodeError> {
    Ok(Ledger {
        node: NodeId(r.i32()?),
        epoch: BrokerEpoch(r.i64()?),
        replicas: get_replicas(r)?,
        write_quorum: r.u8()?,
        end: match r.bool("ledger end")? {
            true => Some(EntryId(r.u64()?)),
            false => None,
        },
        uploaded: EntryId(r.u64()?),
        uploader: None,
        holders: Vec::new(),
    })
}

fn put_topic(w: &mut Writer, topic: &Topic) {
    w.string(&topic.name).i16(topic.replication_factor).i64(topic.created_ms);
    put_configs(w, &topic.configs);
    w.count(topic.partitions.len());
    for partition in &topic.partitions {
        w.i32(partition.leader.0).i32(partition.leader_epoch.0);
        w.i64(partition.log_start.0).i64(partition.uploaded_end.0).u64(partition.object_bytes);
        put_epochs(w, &partition.epochs);
    }
}

fn get_topic(r: &mut Reader<'_>) -> Result<(TopicId, Arc<Topic>), DecodeError> {
    let id = TopicId(r.array()?);
    let name = r.string("topic name")?.into();
    let (replication_factor, created_ms) = (r.i16()?, r.i64()?);
    let configs = get_configs(r)?;
    let partitions = list(r, 36, |r| Ok(Arc::new(get_partition_state(r)?)))?;
    if partitions.len() > TOPIC_PARTITIONS_MAX {
        return Err(DecodeError::Invalid { field: "partitions of a topic", value: partitions.len() as u64 });
    }
    Ok((id, Arc::new(Topic { id, name, replication_factor, configs, partitions, created_ms })))
}

fn get_partition_state(r: &mut Reader<'_>) -> Result<Partition, DecodeError> {
    let leader = NodeId(r.i32()?);
    Ok(Partition {
        leader,
        leader_epoch: LeaderEpoch(r.i32()?),
        log_start: Offset(r.i64()?),
        uploaded_end: Offset(r.i64()?),
        object_bytes: r.u64()?,
        epochs: get_epochs(r)?,
        cleaned_end: Offset::ZERO,
        target: None,
        target_since: 0,
        preferred: leader,
        handed_over: Offset::ZERO,
    })
}
