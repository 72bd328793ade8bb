//! The stored form of the image, as it stands in snapshots: `version u16 | body`.
//!
//! Maps are written in ascending order of their keys, and only that order is read back: an image has exactly one
//! stored form. Names are not written; they follow from the topics. An image that holds only some of these parts is
//! valid, too: the key-value store keeps it in pieces.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::TOPIC_PARTITIONS_MAX;
use crate::base::{BrokerEpoch, ClusterId, EntryId, LeaderEpoch, LedgerId, NodeId, Offset, TopicId, WalIncarnation};

use super::command_codec::{
    get_endpoints, get_epochs, get_partition, get_replicas, list, put_endpoints, put_epochs, put_partition,
    put_replicas,
};
use super::image::{Broker, Image, Ledger, Partition, Topic};

const VERSION: u16 = 1;

impl Image {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u16(VERSION).raw(&self.cluster.0).u64(self.generation).u64(self.applied);
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
        w.finish()
    }

    /// Reads a stored image, all of it. A name that two topics bear is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u16()? {
            VERSION => {}
            found => return Err(DecodeError::Version { found, newest: VERSION }),
        }
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
        r.finish()?;
        Ok(Image {
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
        })
    }
}

/// A counted map whose keys must ascend.
fn map<'a, K: Ord, V>(
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
    Ok(Partition {
        leader: NodeId(r.i32()?),
        leader_epoch: LeaderEpoch(r.i32()?),
        log_start: Offset(r.i64()?),
        uploaded_end: Offset(r.i64()?),
        object_bytes: r.u64()?,
        epochs: get_epochs(r)?,
    })
}
