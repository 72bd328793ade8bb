//! The stored form of commands: `version u16 | kind u16 | body`.
//!
//! A kind keeps its number and its body for ever; a changed body is a new format version. Committed fixtures hold
//! today's bytes. Decoding allocates in proportion to the bytes given and refuses what `encode` cannot have written.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::COMMAND_BYTES_MAX;
use crate::base::{
    BrokerEpoch, ClusterId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId, TopicId,
    WalIncarnation,
};

use super::command::{
    Command, ConfigChange, ConfigResource, Endpoint, Holder, MergeInput, MergeOutput, QuotaChange, QuotaEntity,
    QuotaName, Range, Replica,
};
use super::{node_codec, placement_codec};

const VERSION: u16 = 1;

/// Kind numbers, in the order in which commands were invented. Those of nodes are in `node_codec`, those
/// of leaders in `placement_codec`.
mod kind {
    pub const INIT_CLUSTER: u16 = 1;
    pub const REGISTER_BROKER: u16 = 2;
    pub const OPEN_LEDGER: u16 = 3;
    pub const SEAL_LEDGER: u16 = 4;
    pub const CREATE_TOPIC: u16 = 5;
    pub const DELETE_TOPIC: u16 = 6;
    pub const CREATE_PARTITIONS: u16 = 7;
    pub const ALTER_CONFIGS: u16 = 8;
    pub const ALLOCATE_PRODUCER_IDS: u16 = 9;
    pub const PREPARE_OBJECTS: u16 = 10;
    pub const COMMIT_UPLOAD: u16 = 11;
    pub const COMMIT_MERGE: u16 = 12;
    pub const ABORT_OBJECTS: u16 = 13;
    pub const ADVANCE_LOG_START: u16 = 14;
    pub const PURGE_RANGES: u16 = 15;
    pub const SWEEP_OBJECTS: u16 = 16;
    /// A merge that says how far partitions are compact; without that it is `COMMIT_MERGE`.
    pub const COMMIT_COMPACTION: u16 = 22;
    pub const ALTER_CLIENT_QUOTAS: u16 = 20;
    pub const ALTER_EXPECTED_CONFIGS: u16 = 21;
    pub const FENCE_BROKER: u16 = 40;
    pub const RECOVER_LEDGER: u16 = 41;
    pub const NAME_UPLOADER: u16 = 42;
    /// `SEAL_LEDGER` by the ledger's writer.
    pub const CLOSE_LEDGER: u16 = 43;
}

impl Command {
    /// The stored form. The proposer refuses one that is longer than `limits::COMMAND_BYTES_MAX`: no node would
    /// read it back.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u16(VERSION);
        match self {
            Command::InitCluster { .. }
            | Command::RegisterBroker { .. }
            | Command::OpenLedger { .. }
            | Command::SealLedger { by: None, .. }
            | Command::AllocateProducerIds { .. } => encode_cluster(&mut w, self),
            Command::FenceBroker { .. }
            | Command::RecoverLedger { .. }
            | Command::NameUploader { .. }
            | Command::SealLedger { by: Some(_), .. } => encode_failover(&mut w, self),
            Command::AssignPartitions { .. }
            | Command::HandOver { .. }
            | Command::SetTargets { .. }
            | Command::DrainNode { .. } => placement_codec::encode(&mut w, self),
            Command::CreateTopic { .. }
            | Command::DeleteTopic { .. }
            | Command::CreatePartitions { .. }
            | Command::AlterConfigs { .. } => encode_topic(&mut w, self),
            Command::AlterExpectedConfigs { .. } | Command::AlterClientQuotas { .. } => encode_settings(&mut w, self),
            Command::PrepareObjects { .. }
            | Command::CommitUpload { .. }
            | Command::CommitMerge { .. }
            | Command::AbortObjects { .. }
            | Command::AdvanceLogStart { .. }
            | Command::PurgeRanges { .. }
            | Command::SweepObjects { .. } => encode_object(&mut w, self),
            Command::AddNode { .. }
            | Command::JoinNode { .. }
            | Command::RemoveNode { .. }
            | Command::RegisterSelf { .. } => node_codec::encode(&mut w, self),
        }
        w.finish()
    }

    /// Reads one stored command, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(DecodeError::Invalid { field: "command length", value: bytes.len() as u64 });
        }
        let mut r = Reader::new(bytes);
        match r.u16()? {
            VERSION => {}
            found => return Err(DecodeError::Version { found, newest: VERSION }),
        }
        let command = match r.u16()? {
            k @ (kind::INIT_CLUSTER..=kind::SEAL_LEDGER | kind::ALLOCATE_PRODUCER_IDS) => decode_cluster(k, &mut r)?,
            k @ kind::FENCE_BROKER..=kind::CLOSE_LEDGER => decode_failover(k, &mut r)?,
            k @ kind::CREATE_TOPIC..=kind::ALTER_CONFIGS => decode_topic(k, &mut r)?,
            k @ (kind::ALTER_CLIENT_QUOTAS | kind::ALTER_EXPECTED_CONFIGS) => decode_settings(k, &mut r)?,
            k => match node_codec::decode(k, &mut r)? {
                Some(command) => command,
                None => match placement_codec::decode(k, &mut r)? {
                    Some(command) => command,
                    None => decode_object(k, &mut r)?,
                },
            },
        };
        r.finish()?;
        Ok(command)
    }
}

/// Brokers, ledgers and what belongs to the cluster as a whole.
fn encode_cluster(w: &mut Writer, command: &Command) {
    match command {
        Command::InitCluster { cluster, generation } => {
            w.u16(kind::INIT_CLUSTER).raw(&cluster.0).u64(*generation);
        }
        Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms } => {
            w.u16(kind::REGISTER_BROKER).i32(node.0).raw(&incarnation.0).u64(*boot);
            put_endpoints(w, endpoints);
            w.string(version).i64(*now_ms);
        }
        Command::OpenLedger { node, epoch, replicas, write_quorum, close } => {
            w.u16(kind::OPEN_LEDGER).i32(node.0).i64(epoch.0);
            put_replicas(w, replicas);
            w.u8(*write_quorum).bool(close.is_some());
            if let Some((ledger, end)) = close {
                w.u64(ledger.0).u64(end.0);
            }
        }
        Command::SealLedger { ledger, end, by: None } => {
            w.u16(kind::SEAL_LEDGER).u64(ledger.0).u64(end.0);
        }
        Command::AllocateProducerIds { node, epoch, count } => {
            w.u16(kind::ALLOCATE_PRODUCER_IDS).i32(node.0).i64(epoch.0).u32(*count);
        }
        _ => {}
    }
}

fn decode_cluster(kind: u16, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match kind {
        kind::INIT_CLUSTER => Command::InitCluster { cluster: ClusterId(r.array()?), generation: r.u64()? },
        kind::REGISTER_BROKER => Command::RegisterBroker {
            node: NodeId(r.i32()?),
            incarnation: WalIncarnation(r.array()?),
            boot: r.u64()?,
            endpoints: get_endpoints(r)?,
            version: r.string("version")?,
            now_ms: r.i64()?,
        },
        kind::OPEN_LEDGER => Command::OpenLedger {
            node: NodeId(r.i32()?),
            epoch: BrokerEpoch(r.i64()?),
            replicas: get_replicas(r)?,
            write_quorum: r.u8()?,
            close: match r.bool("close")? {
                true => Some((LedgerId(r.u64()?), EntryId(r.u64()?))),
                false => None,
            },
        },
        kind::SEAL_LEDGER => Command::SealLedger { ledger: LedgerId(r.u64()?), end: EntryId(r.u64()?), by: None },
        kind::ALLOCATE_PRODUCER_IDS => {
            Command::AllocateProducerIds { node: NodeId(r.i32()?), epoch: BrokerEpoch(r.i64()?), count: r.u32()? }
        }
        other => return Err(unknown_kind(other)),
    })
}

/// What follows the loss of a broker.
fn encode_failover(w: &mut Writer, command: &Command) {
    match command {
        Command::FenceBroker { node, epoch } => {
            w.u16(kind::FENCE_BROKER).i32(node.0).i64(epoch.0);
        }
        Command::RecoverLedger { ledger, end, holders, uploader } => {
            w.u16(kind::RECOVER_LEDGER).u64(ledger.0).u64(end.0);
            put_holders(w, holders);
            w.i32(uploader.0);
        }
        Command::SealLedger { ledger, end, by: Some((node, epoch)) } => {
            w.u16(kind::CLOSE_LEDGER).u64(ledger.0).u64(end.0).i32(node.0).i64(epoch.0);
        }
        Command::NameUploader { ledger, node, epoch } => {
            w.u16(kind::NAME_UPLOADER).u64(ledger.0).i32(node.0).i64(epoch.0);
        }
        _ => {}
    }
}

fn decode_failover(kind: u16, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match kind {
        kind::FENCE_BROKER => Command::FenceBroker { node: NodeId(r.i32()?), epoch: BrokerEpoch(r.i64()?) },
        kind::RECOVER_LEDGER => Command::RecoverLedger {
            ledger: LedgerId(r.u64()?),
            end: EntryId(r.u64()?),
            holders: get_holders(r)?,
            uploader: NodeId(r.i32()?),
        },
        kind::NAME_UPLOADER => {
            Command::NameUploader { ledger: LedgerId(r.u64()?), node: NodeId(r.i32()?), epoch: BrokerEpoch(r.i64()?) }
        }
        kind::CLOSE_LEDGER => Command::SealLedger {
            ledger: LedgerId(r.u64()?),
            end: EntryId(r.u64()?),
            by: Some((NodeId(r.i32()?), BrokerEpoch(r.i64()?))),
        },
        other => return Err(unknown_kind(other)),
    })
}

fn encode_topic(w: &mut Writer, command: &Command) {
    match command {
        Command::CreateTopic { id, name, partitions, replication_factor, configs, now_ms } => {
            w.u16(kind::CREATE_TOPIC).raw(&id.0).string(name);
            put_nodes(w, partitions);
            w.i16(*replication_factor).count(configs.len());
            for (key, value) in configs {
                w.string(key).string(value);
            }
            w.i64(*now_ms);
        }
        Command::DeleteTopic { id, now_ms } => {
            w.u16(kind::DELETE_TOPIC).raw(&id.0).i64(*now_ms);
        }
        Command::CreatePartitions { id, first_index, leaders } => {
            w.u16(kind::CREATE_PARTITIONS).raw(&id.0).i32(*first_index);
            put_nodes(w, leaders);
        }
        Command::AlterConfigs { changes } => {
            w.u16(kind::ALTER_CONFIGS).count(changes.len());
            for change in changes {
                put_config_change(w, change);
            }
        }
        _ => {}
    }
}

fn decode_topic(kind: u16, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match kind {
        kind::CREATE_TOPIC => Command::CreateTopic {
            id: TopicId(r.array()?),
            name: r.string("topic name")?,
            partitions: list(r, 4, |r| Ok(NodeId(r.i32()?)))?,
            replication_factor: r.i16()?,
            configs: list(r, 8, |r| Ok((r.string("config name")?, r.string("config value")?)))?,
            now_ms: r.i64()?,
        },
        kind::DELETE_TOPIC => Command::DeleteTopic { id: TopicId(r.array()?), now_ms: r.i64()? },
        kind::CREATE_PARTITIONS => Command::CreatePartitions {
            id: TopicId(r.array()?),
            first_index: r.i32()?,
            leaders: list(r, 4, |r| Ok(NodeId(r.i32()?)))?,
        },
        kind::ALTER_CONFIGS => Command::AlterConfigs { changes: list(r, 6, get_config_change)? },
        other => return Err(unknown_kind(other)),
    })
}

/// Settings and quotas that are more than texts by name.
fn encode_settings(w: &mut Writer, command: &Command) {
    match command {
        Command::AlterClientQuotas { changes } => {
            w.u16(kind::ALTER_CLIENT_QUOTAS).count(changes.len());
            for change in changes {
                put_quota_entity(w, &change.entity);
                w.string(&change.key).bool(change.value.is_some());
                if let Some(value) = change.value {
                    w.u64(value.to_bits());
                }
            }
        }
        Command::AlterExpectedConfigs { expected, changes } => {
            w.u16(kind::ALTER_EXPECTED_CONFIGS).count(expected.len());
            for (resource, configs) in expected {
                put_config_resource(w, resource);
                w.count(configs.len());
                for (name, value) in configs {
                    w.string(name).string(value);
                }
            }
            w.count(changes.len());
            for change in changes {
                put_config_change(w, change);
            }
        }
        _ => {}
    }
}

fn decode_settings(kind: u16, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match kind {
        kind::ALTER_CLIENT_QUOTAS => Command::AlterClientQuotas { changes: list(r, 8, get_quota_change)? },
        kind::ALTER_EXPECTED_CONFIGS => Command::AlterExpectedConfigs {
            expected: list(r, 5, |r| {
                let resource = get_config_resource(r)?;
                Ok((resource, list(r, 8, |r| Ok((r.string("config name")?, r.string("config value")?)))?))
            })?,
            changes: list(r, 6, get_config_change)?,
        },
        other => return Err(unknown_kind(other)),
    })
}

/// Objects and the ranges in them.
fn encode_object(w: &mut Writer, command: &Command) {
    match command {
        Command::PrepareObjects { node, epoch, count, now_ms } => {
            w.u16(kind::PREPARE_OBJECTS).i32(node.0).i64(epoch.0).u32(*count).i64(*now_ms);
        }
        Command::CommitUpload { node, epoch, object, object_bytes, ledger, from, through, ranges, now_ms } => {
            w.u16(kind::COMMIT_UPLOAD).i32(node.0).i64(epoch.0).u64(object.0).u64(*object_bytes);
            w.u64(ledger.0).u64(from.0).u64(through.0);
            put_ranges(w, ranges);
            w.i64(*now_ms);
        }
        Command::CommitMerge { node, epoch, inputs, outputs, cleaned, now_ms } => {
            w.u16(if cleaned.is_empty() { kind::COMMIT_MERGE } else { kind::COMMIT_COMPACTION });
            w.i32(node.0).i64(epoch.0).count(inputs.len());
            for input in inputs {
                put_partition(w, input.partition);
                w.i64(input.base.0).u64(input.object.0);
            }
            w.count(outputs.len());
            for output in outputs {
                w.u64(output.object.0).u64(output.bytes);
                put_ranges(w, &output.ranges);
            }
            if !cleaned.is_empty() {
                put_positions(w, cleaned);
            }
            w.i64(*now_ms);
        }
        Command::AbortObjects { objects, now_ms } => {
            w.u16(kind::ABORT_OBJECTS);
            put_objects(w, objects);
            w.i64(*now_ms);
        }
        Command::AdvanceLogStart { changes, now_ms } => {
            w.u16(kind::ADVANCE_LOG_START);
            put_positions(w, changes);
            w.i64(*now_ms);
        }
        Command::PurgeRanges { now_ms } => {
            w.u16(kind::PURGE_RANGES).i64(*now_ms);
        }
        Command::SweepObjects { objects } => {
            w.u16(kind::SWEEP_OBJECTS);
            put_objects(w, objects);
        }
        _ => {}
    }
}

fn decode_object(kind: u16, r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match kind {
        kind::PREPARE_OBJECTS => Command::PrepareObjects {
            node: NodeId(r.i32()?),
            epoch: BrokerEpoch(r.i64()?),
            count: r.u32()?,
            now_ms: r.i64()?,
        },
        kind::COMMIT_UPLOAD => Command::CommitUpload {
            node: NodeId(r.i32()?),
            epoch: BrokerEpoch(r.i64()?),
            object: ObjectId(r.u64()?),
            object_bytes: r.u64()?,
            ledger: LedgerId(r.u64()?),
            from: EntryId(r.u64()?),
            through: EntryId(r.u64()?),
            ranges: list(r, RANGE_BYTES_MIN, get_range)?,
            now_ms: r.i64()?,
        },
        kind::COMMIT_MERGE | kind::COMMIT_COMPACTION => Command::CommitMerge {
            node: NodeId(r.i32()?),
            epoch: BrokerEpoch(r.i64()?),
            inputs: list(r, 36, get_merge_input)?,
            outputs: list(r, 20, get_merge_output)?,
            cleaned: if kind == kind::COMMIT_COMPACTION { get_cleaned(r)? } else { Vec::new() },
            now_ms: r.i64()?,
        },
        kind::ABORT_OBJECTS => Command::AbortObjects { objects: get_objects(r)?, now_ms: r.i64()? },
        kind::ADVANCE_LOG_START => Command::AdvanceLogStart { changes: get_positions(r)?, now_ms: r.i64()? },
        kind::PURGE_RANGES => Command::PurgeRanges { now_ms: r.i64()? },
        kind::SWEEP_OBJECTS => Command::SweepObjects { objects: get_objects(r)? },
        other => return Err(unknown_kind(other)),
    })
}

fn unknown_kind(kind: u16) -> DecodeError {
    DecodeError::Invalid { field: "command kind", value: kind as u64 }
}

/// A counted list whose elements take at least `element_bytes` each.
pub(super) fn list<'a, T>(
    r: &mut Reader<'a>,
    element_bytes: usize,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = r.count(element_bytes)?;
    (0..count).map(|_| element(r)).collect()
}

pub(super) fn put_endpoints(w: &mut Writer, endpoints: &[Endpoint]) {
    w.count(endpoints.len());
    for endpoint in endpoints {
        w.string(&endpoint.listener).string(&endpoint.host).u16(endpoint.port);
    }
}

pub(super) fn get_endpoints(r: &mut Reader<'_>) -> Result<Vec<Endpoint>, DecodeError> {
    list(r, 10, |r| Ok(Endpoint { listener: r.string("listener")?, host: r.string("host")?, port: r.u16()? }))
}

pub(super) fn put_replicas(w: &mut Writer, replicas: &[Replica]) {
    w.count(replicas.len());
    for replica in replicas {
        w.i32(replica.node.0).raw(&replica.incarnation.0);
    }
}

pub(super) fn get_replicas(r: &mut Reader<'_>) -> Result<Vec<Replica>, DecodeError> {
    list(r, 20, |r| Ok(Replica { node: NodeId(r.i32()?), incarnation: WalIncarnation(r.array()?) }))
}

pub(super) fn put_holders(w: &mut Writer, holders: &[Holder]) {
    w.count(holders.len());
    for holder in holders {
        w.i32(holder.replica.node.0).raw(&holder.replica.incarnation.0).u64(holder.from.0);
    }
}

pub(super) fn get_holders(r: &mut Reader<'_>) -> Result<Vec<Holder>, DecodeError> {
    list(r, 28, |r| {
        let replica = Replica { node: NodeId(r.i32()?), incarnation: WalIncarnation(r.array()?) };
        Ok(Holder { replica, from: EntryId(r.u64()?) })
    })
}

fn put_nodes(w: &mut Writer, nodes: &[NodeId]) {
    w.count(nodes.len());
    for node in nodes {
        w.i32(node.0);
    }
}

fn put_objects(w: &mut Writer, objects: &[ObjectId]) {
    w.count(objects.len());
    for object in objects {
        w.u64(object.0);
    }
}

fn get_objects(r: &mut Reader<'_>) -> Result<Vec<ObjectId>, DecodeError> {
    list(r, 8, |r| Ok(ObjectId(r.u64()?)))
}

fn put_config_resource(w: &mut Writer, resource: &ConfigResource) {
    match resource {
        ConfigResource::Topic(name) => w.u8(0).string(name),
        ConfigResource::Broker(node) => w.u8(1).i32(node.0),
        ConfigResource::Cluster => w.u8(2),
        ConfigResource::Group(name) => w.u8(3).string(name),
        ConfigResource::ClientMetrics(name) => w.u8(4).string(name),
    };
}

fn get_config_resource(r: &mut Reader<'_>) -> Result<ConfigResource, DecodeError> {
    Ok(match r.u8()? {
        0 => ConfigResource::Topic(r.string("topic name")?),
        1 => ConfigResource::Broker(NodeId(r.i32()?)),
        2 => ConfigResource::Cluster,
        3 => ConfigResource::Group(r.string("group name")?),
        4 => ConfigResource::ClientMetrics(r.string("subscription name")?),
        value => return Err(DecodeError::Invalid { field: "config resource", value: value as u64 }),
    })
}

fn put_config_change(w: &mut Writer, change: &ConfigChange) {
    put_config_resource(w, &change.resource);
    w.string(&change.name).bool(change.value.is_some());
    if let Some(value) = &change.value {
        w.string(value);
    }
}

fn get_config_change(r: &mut Reader<'_>) -> Result<ConfigChange, DecodeError> {
    let resource = get_config_resource(r)?;
    let name = r.string("config name")?;
    let value = match r.bool("config value")? {
        true => Some(r.string("config value")?),
        false => None,
    };
    Ok(ConfigChange { resource, name, value })
}

/// Each part: 0 absent, 1 the default, 2 a name.
pub(super) fn put_quota_entity(w: &mut Writer, entity: &QuotaEntity) {
    for part in [&entity.user, &entity.client_id, &entity.ip] {
        match part {
            None => w.u8(0),
            Some(QuotaName::Default) => w.u8(1),
            Some(QuotaName::Named(name)) => w.u8(2).string(name),
        };
    }
}

pub(super) fn get_quota_entity(r: &mut Reader<'_>) -> Result<QuotaEntity, DecodeError> {
    let mut part = || {
        Ok(match r.u8()? {
            0 => None,
            1 => Some(QuotaName::Default),
            2 => Some(QuotaName::Named(r.string("quota entity")?)),
            value => return Err(DecodeError::Invalid { field: "quota entity", value: value as u64 }),
        })
    };
    Ok(QuotaEntity { user: part()?, client_id: part()?, ip: part()? })
}

/// A number that is one: what is stored has to compare equal to itself.
pub(super) fn get_number(r: &mut Reader<'_>) -> Result<f64, DecodeError> {
    let bits = r.u64()?;
    let number = f64::from_bits(bits);
    if number.is_finite() { Ok(number) } else { Err(DecodeError::Invalid { field: "number", value: bits }) }
}

fn get_quota_change(r: &mut Reader<'_>) -> Result<QuotaChange, DecodeError> {
    let entity = get_quota_entity(r)?;
    let key = r.string("quota key")?;
    let value = match r.bool("quota value")? {
        true => Some(get_number(r)?),
        false => None,
    };
    Ok(QuotaChange { entity, key, value })
}

pub(super) fn put_partition(w: &mut Writer, partition: PartitionId) {
    w.raw(&partition.topic.0).i32(partition.index);
}

pub(super) fn get_partition(r: &mut Reader<'_>) -> Result<PartitionId, DecodeError> {
    Ok(PartitionId { topic: TopicId(r.array()?), index: r.i32()? })
}

fn put_positions(w: &mut Writer, positions: &[(PartitionId, Offset)]) {
    w.count(positions.len());
    for (partition, offset) in positions {
        put_partition(w, *partition);
        w.i64(offset.0);
    }
}

fn get_positions(r: &mut Reader<'_>) -> Result<Vec<(PartitionId, Offset)>, DecodeError> {
    list(r, 28, |r| Ok((get_partition(r)?, Offset(r.i64()?))))
}

/// At least one: without any the command is another kind.
fn get_cleaned(r: &mut Reader<'_>) -> Result<Vec<(PartitionId, Offset)>, DecodeError> {
    match get_positions(r)? {
        none if none.is_empty() => Err(DecodeError::Invalid { field: "compacted partitions", value: 0 }),
        some => Ok(some),
    }
}

pub(super) fn put_epochs(w: &mut Writer, epochs: &[(LeaderEpoch, Offset)]) {
    w.count(epochs.len());
    for (epoch, start) in epochs {
        w.i32(epoch.0).i64(start.0);
    }
}

pub(super) fn get_epochs(r: &mut Reader<'_>) -> Result<Vec<(LeaderEpoch, Offset)>, DecodeError> {
    list(r, 12, |r| Ok((LeaderEpoch(r.i32()?), Offset(r.i64()?))))
}

/// A stored range without any epoch.
const RANGE_BYTES_MIN: usize = 20 + 7 * 8 + 4 + 4;

fn put_ranges(w: &mut Writer, ranges: &[Range]) {
    w.count(ranges.len());
    for range in ranges {
        put_partition(w, range.partition);
        w.i64(range.base.0).i64(range.end.0).u64(range.bytes).u64(range.records);
        w.i64(range.max_timestamp).i64(range.first_timestamp).u64(range.position).u32(range.length);
        put_epochs(w, &range.epochs);
    }
}

fn get_range(r: &mut Reader<'_>) -> Result<Range, DecodeError> {
    Ok(Range {
        partition: get_partition(r)?,
        base: Offset(r.i64()?),
        end: Offset(r.i64()?),
        bytes: r.u64()?,
        records: r.u64()?,
        max_timestamp: r.i64()?,
        first_timestamp: r.i64()?,
        position: r.u64()?,
        length: r.u32()?,
        epochs: get_epochs(r)?,
    })
}

fn get_merge_input(r: &mut Reader<'_>) -> Result<MergeInput, DecodeError> {
    Ok(MergeInput { partition: get_partition(r)?, base: Offset(r.i64()?), object: ObjectId(r.u64()?) })
}

fn get_merge_output(r: &mut Reader<'_>) -> Result<MergeOutput, DecodeError> {
    Ok(MergeOutput { object: ObjectId(r.u64()?), bytes: r.u64()?, ranges: list(r, RANGE_BYTES_MIN, get_range)? })
}
