//! One of everything that is stored, for tests: every field differs from its neighbours and from its default.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{
    BrokerEpoch, ClusterId, DirectoryId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId,
    TopicId, WalIncarnation,
};

use super::command::{
    Assignment, Command, ConfigChange, ConfigResource, Endpoint, Holder, MergeInput, MergeOutput, QuotaChange,
    QuotaEntity, QuotaName, Range, Replica, TargetChange,
};
use super::image::{Broker, Image, Ledger, Partition, Topic};
use super::index::{ObjectEntry, ObjectState, RangeEntry};
use super::node::{Node, NodeState};

const NODE: NodeId = NodeId(7);
const EPOCH: BrokerEpoch = BrokerEpoch(70);
const NOW_MS: i64 = 1_700_000_000_123;

pub fn partition(topic: u8, index: i32) -> PartitionId {
    PartitionId { topic: TopicId([topic; 16]), index }
}

/// A range whose statistics follow from its offsets.
pub fn range(partition: PartitionId, base: i64, end: i64) -> Range {
    let records = end.wrapping_sub(base) as u64;
    Range {
        partition,
        base: Offset(base),
        end: Offset(end),
        bytes: records.wrapping_mul(100),
        records,
        max_timestamp: NOW_MS,
        first_timestamp: NOW_MS - 5,
        position: 4096,
        length: 512,
        epochs: Vec::new(),
    }
}

fn endpoints() -> Vec<Endpoint> {
    let endpoint = |listener: &str, port| Endpoint { listener: listener.into(), host: "kafka.example".into(), port };
    vec![endpoint("TLS", 9093), endpoint("PLAINTEXT", 9092)]
}

fn replica() -> Replica {
    Replica { node: NODE, incarnation: WalIncarnation([9; 16]) }
}

fn holder() -> Holder {
    Holder { replica: Replica { node: NodeId(8), incarnation: WalIncarnation([6; 16]) }, from: EntryId(3) }
}

fn config_changes() -> Vec<ConfigChange> {
    let change = |resource, name: &str, value: Option<&str>| ConfigChange {
        resource,
        name: name.into(),
        value: value.map(str::to_owned),
    };
    vec![
        change(ConfigResource::Topic("orders".into()), "retention.ms", Some("3600000")),
        change(ConfigResource::Broker(NODE), "log.retention.bytes", None),
        change(ConfigResource::Cluster, "message.max.bytes", Some("1048588")),
    ]
}

/// Every kind of command under the name of its fixture.
pub fn commands() -> Vec<(&'static str, Command)> {
    let mut all = cluster_commands();
    all.extend(node_commands());
    all.extend(failover_commands());
    all.extend(placement_commands());
    all.extend(settings_commands());
    all.extend(object_commands());
    all
}

fn failover_commands() -> Vec<(&'static str, Command)> {
    let (ledger, end, uploader) = (LedgerId(11), EntryId(12), NodeId(8));
    let holders = vec![holder()];
    vec![
        ("fence-broker", Command::FenceBroker { node: NODE, epoch: EPOCH }),
        ("recover-ledger", Command::RecoverLedger { ledger, end, holders, uploader }),
        ("name-uploader", Command::NameUploader { ledger, node: NODE, epoch: EPOCH }),
    ]
}

fn placement_commands() -> Vec<(&'static str, Command)> {
    let (node, epoch, leader_epoch) = (NODE, EPOCH, LeaderEpoch(4));
    let hand_over = |target_since| {
        let (partition, end) = (partition(3, 1), Offset(120));
        Command::HandOver { node, epoch, partition, leader_epoch, end, target_since }
    };
    let assign = |index, leader| Assignment { partition: partition(3, index), leader_epoch, leader: NodeId(leader) };
    let targets = vec![
        TargetChange { partition: partition(3, 0), target: Some(NodeId(8)), preferred: Some(NodeId(9)) },
        TargetChange { partition: partition(3, 1), target: None, preferred: None },
    ];
    vec![
        ("assign-partitions", Command::AssignPartitions { changes: vec![assign(0, 8), assign(1, 9)] }),
        ("hand-over", hand_over(0)),
        ("hand-over-since", hand_over(712)),
        ("set-targets", Command::SetTargets { changes: targets }),
        ("drain-node", Command::DrainNode { node, draining: true }),
    ]
}

fn settings_commands() -> Vec<(&'static str, Command)> {
    let named = |name: &str| Some(QuotaName::Named(name.to_owned()));
    let change =
        |entity: &QuotaEntity, key: &str, value| QuotaChange { entity: entity.clone(), key: key.into(), value };
    let both = QuotaEntity { user: named("alice"), client_id: Some(QuotaName::Default), ip: None };
    let ip = QuotaEntity { ip: named("10.0.0.1"), ..QuotaEntity::default() };
    let own = |resource, name: &str, value: Option<&str>| ConfigChange {
        resource,
        name: name.into(),
        value: value.map(str::to_owned),
    };
    let (group, metrics) = (ConfigResource::Group("g".into()), ConfigResource::ClientMetrics("m".into()));
    vec![
        (
            "alter-client-quotas",
            Command::AlterClientQuotas {
                changes: vec![
                    change(&both, "producer_byte_rate", Some(1024.5)),
                    change(&ip, "connection_creation_rate", None),
                ],
            },
        ),
        (
            "alter-expected-configs",
            Command::AlterExpectedConfigs {
                expected: vec![
                    (group.clone(), vec![("a".into(), "1".into()), ("b".into(), "2".into())]),
                    (metrics.clone(), Vec::new()),
                ],
                changes: vec![own(group, "a", None), own(metrics, "interval.ms", Some("1000"))],
            },
        ),
    ]
}

/// An image with what only version 2 of its stored form has.
pub fn image_with_sections() -> Image {
    let quota = |entity, key: &str, value| (entity, BTreeMap::from([(key.to_owned(), value)]));
    let user = QuotaEntity { user: Some(QuotaName::Default), ..QuotaEntity::default() };
    let ip = QuotaEntity { ip: Some(QuotaName::Named("10.0.0.1".into())), ..QuotaEntity::default() };
    let named = |name: &str, key: &str, value: &str| {
        Arc::new(BTreeMap::from([(name.to_owned(), BTreeMap::from([(key.to_owned(), value.to_owned())]))]))
    };
    Image {
        client_quotas: Arc::new(BTreeMap::from([
            quota(user, "request_percentage", 12.5),
            quota(ip, "connection_creation_rate", 7.0),
        ])),
        group_configs: named("g", "consumer.session.timeout.ms", "50000"),
        client_metrics: named("m", "interval.ms", "1000"),
        ..image()
    }
}

fn cluster_commands() -> Vec<(&'static str, Command)> {
    let (node, epoch, now_ms, id) = (NODE, EPOCH, NOW_MS, TopicId([3; 16]));
    vec![
        ("init-cluster", Command::InitCluster { cluster: ClusterId([1; 16]), generation: 2 }),
        (
            "register-broker",
            Command::RegisterBroker {
                node,
                incarnation: WalIncarnation([9; 16]),
                boot: 4,
                endpoints: endpoints(),
                version: "0.1.0".into(),
                now_ms,
            },
        ),
        (
            "open-ledger",
            Command::OpenLedger {
                node,
                epoch,
                replicas: vec![replica()],
                write_quorum: 1,
                close: Some((LedgerId(11), EntryId(12))),
            },
        ),
        ("seal-ledger", Command::SealLedger { ledger: LedgerId(11), end: EntryId(12), by: None }),
        ("close-ledger", Command::SealLedger { ledger: LedgerId(11), end: EntryId(12), by: Some((NODE, EPOCH)) }),
        (
            "create-topic",
            Command::CreateTopic {
                id,
                name: "orders".into(),
                partitions: vec![NODE, NodeId(8)],
                replication_factor: 3,
                configs: vec![("retention.ms".into(), "60000".into())],
                now_ms,
            },
        ),
        ("delete-topic", Command::DeleteTopic { id, now_ms }),
        ("create-partitions", Command::CreatePartitions { id, first_index: 2, leaders: vec![NODE] }),
        ("alter-configs", Command::AlterConfigs { changes: config_changes() }),
        ("allocate-producer-ids", Command::AllocateProducerIds { node, epoch, count: 1000 }),
    ]
}

fn node_commands() -> Vec<(&'static str, Command)> {
    let (node, now_ms) = (NodeId(9), NOW_MS);
    let (rack, host) = ("rack b", "two.example");
    vec![
        (
            "add-node",
            Command::AddNode {
                node,
                name: "two".into(),
                rack: rack.into(),
                host: host.into(),
                port: 9094,
                identity: "CN=node-9,O=casemate".into(),
                token_sha256: [5; 32],
                expires_ms: NOW_MS + 86_400_000,
                now_ms,
            },
        ),
        ("join-node", Command::JoinNode { node, token_sha256: [5; 32], directory: DirectoryId(0x89ab_cdef), now_ms }),
        ("remove-node", Command::RemoveNode { node, now_ms }),
        (
            "register-self",
            Command::RegisterSelf {
                node: NODE,
                name: "one".into(),
                rack: rack.into(),
                host: host.into(),
                port: 9095,
                identity: "CN=node-7,O=casemate".into(),
                directory: DirectoryId(0x0123_4567),
                now_ms,
            },
        ),
    ]
}

fn object_commands() -> Vec<(&'static str, Command)> {
    let (node, epoch, now_ms) = (NODE, EPOCH, NOW_MS);
    let uploaded = Range {
        epochs: vec![(LeaderEpoch(1), Offset(100)), (LeaderEpoch(3), Offset(110))],
        ..range(partition(3, 1), 100, 120)
    };
    let merged = range(partition(3, 1), 100, 140);
    let input = |base, object| MergeInput { partition: partition(3, 1), base: Offset(base), object: ObjectId(object) };
    vec![
        ("prepare-objects", Command::PrepareObjects { node, epoch, count: 5, now_ms }),
        (
            "commit-upload",
            Command::CommitUpload {
                node,
                epoch,
                object: ObjectId(21),
                object_bytes: 8192,
                ledger: LedgerId(11),
                from: EntryId(5),
                through: EntryId(9),
                ranges: vec![uploaded, range(partition(4, 0), 0, 7)],
                now_ms,
            },
        ),
        (
            "commit-merge",
            Command::CommitMerge {
                node,
                epoch,
                inputs: vec![input(100, 21), input(120, 22)],
                outputs: vec![MergeOutput { object: ObjectId(23), bytes: 16384, ranges: vec![merged.clone()] }],
                cleaned: vec![],
                now_ms,
            },
        ),
        (
            "commit-compaction",
            Command::CommitMerge {
                node,
                epoch,
                inputs: vec![input(100, 21), input(120, 22)],
                outputs: vec![MergeOutput { object: ObjectId(23), bytes: 8192, ranges: vec![merged] }],
                cleaned: vec![(partition(3, 1), Offset(132))],
                now_ms,
            },
        ),
        ("abort-objects", Command::AbortObjects { objects: vec![ObjectId(24), ObjectId(25)], now_ms }),
        ("advance-log-start", Command::AdvanceLogStart { changes: vec![(partition(3, 1), Offset(115))], now_ms }),
        ("purge-ranges", Command::PurgeRanges { now_ms }),
        ("sweep-objects", Command::SweepObjects { objects: vec![ObjectId(24)] }),
    ]
}

pub fn image() -> Image {
    let broker = Broker {
        epoch: EPOCH,
        incarnation: WalIncarnation([9; 16]),
        boot: 4,
        endpoints: endpoints(),
        version: "0.1.0".into(),
        registered_ms: NOW_MS,
        fenced: false,
    };
    let ledger = Ledger {
        node: NODE,
        epoch: EPOCH,
        replicas: vec![replica()],
        write_quorum: 1,
        end: None,
        uploaded: EntryId(5),
        uploader: None,
        holders: Vec::new(),
    };
    let led = Partition {
        leader: NODE,
        leader_epoch: LeaderEpoch(4),
        epochs: vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(2), Offset(40))],
        log_start: Offset(10),
        uploaded_end: Offset(100),
        object_bytes: 9000,
        cleaned_end: Offset::ZERO,
        target: None,
        target_since: 0,
        preferred: NODE,
        handed_over: Offset::ZERO,
    };
    let configs = BTreeMap::from([("retention.ms".to_owned(), "60000".to_owned())]);
    let id = TopicId([3; 16]);
    let topic = Topic {
        id,
        name: "orders".into(),
        replication_factor: 3,
        configs: configs.clone(),
        partitions: vec![Arc::new(Partition::new(NODE)), Arc::new(led)],
        created_ms: NOW_MS,
    };
    let sealed = Ledger { end: Some(EntryId(12)), epoch: BrokerEpoch(60), ..ledger.clone() };
    Image {
        cluster: ClusterId([1; 16]),
        generation: 2,
        brokers: BTreeMap::from([(NODE, broker)]),
        topics: Arc::new(BTreeMap::from([(id, Arc::new(topic))])),
        names: Arc::new(BTreeMap::from([("orders".into(), id)])),
        ledgers: BTreeMap::from([(LedgerId(10), sealed), (LedgerId(11), ledger)]),
        cluster_configs: configs.clone(),
        broker_configs: BTreeMap::from([(NODE, configs)]),
        purge: BTreeMap::from([(partition(2, 0), Offset(i64::MAX)), (partition(3, 1), Offset(10))]),
        next_broker_epoch: 71,
        next_ledger: 12,
        next_object: 26,
        next_producer: 3000,
        applied: 99,
        ..Image::default()
    }
}

/// The same, with a node in each state.
pub fn image_with_nodes() -> Image {
    let node = |name: &str, token, state| Node {
        name: name.into(),
        rack: format!("rack of {name}"),
        host: format!("{name}.example"),
        port: 9094,
        identity: format!("CN={name},O=casemate"),
        token_sha256: [token; 32],
        state,
        added_ms: NOW_MS,
        draining: false,
    };
    let joined = |directory| NodeState::Joined { directory: DirectoryId(directory) };
    let nodes = BTreeMap::from([
        (NODE, node("one", 0, joined(0))),
        (NodeId(8), node("two", 2, joined(0x89ab_cdef))),
        (NodeId(9), node("three", 3, NodeState::Invited { expires_ms: NOW_MS + 86_400_000 })),
    ]);
    Image { nodes, next_node: 11, ..image() }
}

/// The same, with a partition that was compacted.
pub fn image_cleaned() -> Image {
    let mut image = image();
    for topic in Arc::make_mut(&mut image.topics).values_mut() {
        for partition in Arc::make_mut(topic).partitions.iter_mut().skip(1) {
            Arc::make_mut(partition).cleaned_end = Offset(60);
        }
    }
    image
}

/// The same, with a partition on the move, one away from its preferred leader, and a node that is being drained.
pub fn image_placed() -> Image {
    let mut image = image_with_nodes();
    for topic in Arc::make_mut(&mut image.topics).values_mut() {
        for (index, partition) in (0..).zip(Arc::make_mut(topic).partitions.iter_mut()) {
            let partition = Arc::make_mut(partition);
            partition.preferred = NodeId(8);
            partition.target = (index == 1).then_some(NodeId(9));
            partition.handed_over = Offset(120 * index);
        }
    }
    for node in image.nodes.values_mut().take(1) {
        node.draining = true;
    }
    image
}

/// The same, with the moment at which the target was set.
pub fn image_with_targets_since() -> Image {
    let mut image = image_placed();
    for topic in Arc::make_mut(&mut image.topics).values_mut() {
        for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|partition| partition.target.is_some()) {
            Arc::make_mut(partition).target_since = 712;
        }
    }
    image
}

/// The same, with a fenced broker and a recovered ledger.
pub fn image_recovered() -> Image {
    let mut image = image();
    for broker in image.brokers.values_mut() {
        broker.fenced = true;
    }
    for ledger in image.ledgers.values_mut().take(1) {
        (ledger.uploader, ledger.holders) = (Some(NodeId(8)), vec![holder()]);
    }
    image
}

pub fn range_entry() -> RangeEntry {
    range(partition(3, 1), 100, 120).entry(ObjectId(21))
}

/// An object in each state, under the name of its fixture.
pub fn object_entries() -> Vec<(&'static str, ObjectEntry)> {
    let entry = |bytes, live_ranges, state| ObjectEntry { bytes, live_ranges, state, created_ms: NOW_MS };
    vec![
        ("object-prepared", entry(0, 0, ObjectState::Prepared { node: NODE, epoch: EPOCH })),
        ("object-live", entry(8192, 2, ObjectState::Live)),
        ("object-dropped", entry(8192, 0, ObjectState::Dropped { at_ms: NOW_MS + 1 })),
        ("object-aborted", entry(0, 0, ObjectState::Aborted { at_ms: NOW_MS + 2 })),
    ]
}
