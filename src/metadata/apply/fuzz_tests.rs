//! Random commands on images that random commands have made, and random bytes: nothing panics, a rejected command
//! leaves no trace, and the invariants of the image and the index hold after every step.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::base::{
    BrokerEpoch, ClusterId, DirectoryId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId,
    TopicId, WalIncarnation,
};
use crate::metadata::command::{
    Assignment, Command, ConfigChange, ConfigResource, Holder, MergeInput, MergeOutput, QuotaChange, QuotaEntity,
    QuotaName, Range, Replica, TargetChange,
};
use crate::metadata::image::Image;
use crate::metadata::index::{IndexOp, IndexView, MemoryIndex, ObjectEntry, ObjectState, RangeEntry};
use crate::metadata::reject::Response;
use crate::metadata::{apply, samples};

/// Numbers that steer the choices; ever the same ones when they are used up.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u64>>);

impl Choices<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next().copied().unwrap_or(0) % limit.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len() as u64) as usize).copied()
    }
}

/// Mostly commands that a correct broker would propose in this state, so that the state gets somewhere.
fn next_command(image: &Image, index: &MemoryIndex, c: &mut Choices<'_>, now_ms: i64) -> Command {
    let joined: Vec<NodeId> = image.nodes.iter().filter(|(_, n)| n.directory().is_some()).map(|(id, _)| *id).collect();
    let node = c.of(&joined).unwrap_or(NodeId(1));
    let epoch = match image.brokers.get(&node) {
        Some(broker) if !c.one_in(16) => broker.epoch,
        _ => BrokerEpoch(c.below(4) as i64),
    };
    let partitions: Vec<PartitionId> = all_partitions(image);
    match c.below(30) {
        0 => Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 },
        1 | 2 => register(image, node, c, now_ms),
        3 | 4 => open_ledger(image, node, epoch, c),
        5 => close_ledger(image, node, epoch, c),
        6 => create_topic(node, c, now_ms),
        7 => Command::DeleteTopic { id: TopicId([1 + c.below(6) as u8; 16]), now_ms },
        8 => {
            let id = TopicId([1 + c.below(6) as u8; 16]);
            let count = image.topics.get(&id).map_or(0, |topic| topic.partitions.len() as i32);
            Command::CreatePartitions { id, first_index: count - c.one_in(4) as i32, leaders: vec![node] }
        }
        9 if c.one_in(3) => alter_quotas(c),
        9 => alter_configs(node, c),
        10 => Command::AllocateProducerIds { node, epoch, count: c.below(5) as u32 },
        11..=13 => Command::PrepareObjects { node, epoch, count: c.below(4) as u32, now_ms },
        14..=18 => upload(image, index, (node, epoch), c, now_ms),
        19 | 20 => merge(image, index, (node, epoch), c, now_ms),
        21 => {
            let id = ObjectId(c.below(image.next_object + 1));
            match c.one_in(2) {
                true => Command::AbortObjects { objects: vec![id], now_ms },
                false => Command::SweepObjects { objects: vec![id] },
            }
        }
        22 => {
            let changes = c.of(&partitions).into_iter().map(|id| (id, Offset(c.below(80) as i64)));
            Command::AdvanceLogStart { changes: changes.collect(), now_ms }
        }
        23 => close_ledger(image, node, epoch, c),
        24 => Command::PurgeRanges { now_ms },
        25..=27 => place(image, (node, epoch), c),
        _ => change_node(image, node, c, now_ms),
    }
}

fn change_node(image: &Image, node: NodeId, c: &mut Choices<'_>, now_ms: i64) -> Command {
    let id = NodeId(c.below(image.next_node as u64 + 1) as i32);
    let token = |id: NodeId| [id.0 as u8 + 1; 32];
    // Few enough that they collide now and then.
    let (name, rack, identity) = (format!("n{}", c.below(20)), "r".repeat(c.below(2) as usize), format!("CN={}", id.0));
    let (host, port) = ("h".to_owned(), 1 + c.below(40) as u16);
    match c.below(8) {
        0..=2 if image.nodes.len() < 4 || c.one_in(8) => {
            let node = if c.one_in(8) { id } else { image.next_free_node() };
            let (token_sha256, expires_ms) = (token(node), now_ms + c.below(500) as i64);
            let identity = if c.one_in(8) { identity } else { format!("CN={}", node.0) };
            Command::AddNode { node, name, rack, host, port, identity, token_sha256, expires_ms, now_ms }
        }
        3 | 4 => {
            let invited: Vec<_> = image.nodes.iter().filter(|(_, node)| node.directory().is_none()).collect();
            let id = c.of(&invited).filter(|_| !c.one_in(4)).map_or(id, |(id, _)| *id);
            let token_sha256 = token(if c.one_in(8) { node } else { id });
            Command::JoinNode { node: id, token_sha256, directory: DirectoryId(c.below(3) as u32), now_ms }
        }
        5 => Command::RemoveNode { node: id, now_ms },
        _ => {
            let directory = image.nodes.get(&node).and_then(|known| known.directory()).unwrap_or_default();
            let directory = DirectoryId(directory.0 + c.one_in(8) as u32);
            let identity = format!("CN={}", node.0);
            Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms }
        }
    }
}

fn register(image: &Image, node: NodeId, c: &mut Choices<'_>, now_ms: i64) -> Command {
    let known = image.brokers.get(&node);
    let (incarnation, boot) = match known {
        Some(broker) if !c.one_in(4) => (broker.incarnation, broker.boot + c.below(3)),
        _ => (WalIncarnation([c.below(3) as u8; 16]), c.below(3)),
    };
    Command::RegisterBroker { node, incarnation, boot, endpoints: vec![], version: String::new(), now_ms }
}

fn open_ledger(image: &Image, node: NodeId, epoch: BrokerEpoch, c: &mut Choices<'_>) -> Command {
    let incarnation = image.brokers.get(&node).map_or(WalIncarnation::default(), |broker| broker.incarnation);
    let open = image.ledgers.iter().find(|(_, ledger)| ledger.node == node && ledger.end.is_none());
    let close = open.filter(|_| !c.one_in(4)).map(|(id, ledger)| (*id, EntryId(ledger.uploaded.0 + c.below(4))));
    let mut replicas = vec![Replica { node, incarnation }];
    if !image.may_write_alone(node) && !c.one_in(8) {
        let others: Vec<_> = image.brokers.iter().filter(|(other, _)| **other != node).collect();
        let other = c.of(&others).map(|(node, broker)| Replica { node: *node, incarnation: broker.incarnation });
        replicas.extend(other);
    }
    let write_quorum = replicas.len() as u8;
    Command::OpenLedger { node, epoch, replicas, write_quorum, close }
}

fn close_ledger(image: &Image, node: NodeId, epoch: BrokerEpoch, c: &mut Choices<'_>) -> Command {
    let ledger = LedgerId(c.below(image.next_ledger + 1));
    let end = EntryId(c.below(60));
    let replica = Replica { node, incarnation: WalIncarnation([c.below(3) as u8; 16]) };
    match c.below(8) {
        0 | 1 => Command::FenceBroker { node, epoch },
        2 | 3 => {
            let holders = vec![Holder { replica, from: EntryId(c.below(3)) }; c.below(3) as usize];
            Command::RecoverLedger { ledger, end, holders, uploader: NodeId(c.below(3) as i32) }
        }
        4 => Command::NameUploader { ledger, node, epoch },
        _ => {
            let open = image.ledgers.iter().find(|(_, ledger)| ledger.end.is_none() && !image.is_writer_fenced(ledger));
            let open = open.filter(|_| !c.one_in(4));
            let sensible = open.map(|(id, ledger)| (*id, ledger.uploaded, (ledger.node, ledger.epoch)));
            let (ledger, end, writer) = sensible.unwrap_or((ledger, end, (node, epoch)));
            // Once more, as a release would that knew no writers.
            let closed = image.ledgers.iter().find_map(|(id, ledger)| Some((*id, ledger.end?))).filter(|_| c.one_in(2));
            match closed {
                Some((ledger, end)) => Command::SealLedger { ledger, end, by: None },
                None => Command::SealLedger { ledger, end, by: c.one_in(2).then_some(writer) },
            }
        }
    }
}

/// Who leads what: mostly with what is true at present.
fn place(image: &Image, (node, epoch): (NodeId, BrokerEpoch), c: &mut Choices<'_>) -> Command {
    let nodes: Vec<NodeId> = image.brokers.keys().copied().collect();
    let other = c.of(&nodes).unwrap_or(node);
    let all = all_partitions(image);
    let led = |id: &PartitionId| image.partition(*id).is_some_and(|partition| partition.leader == node);
    let moving = |id: &PartitionId| image.partition(*id).is_some_and(|partition| partition.target.is_some());
    let leader_epoch = |id, c: &mut Choices<'_>| {
        let epoch = image.partition(id).map_or(0, |partition: &std::sync::Arc<_>| partition.leader_epoch.0);
        LeaderEpoch(epoch + c.one_in(16) as i32)
    };
    match c.below(8) {
        0 | 1 => {
            let of_node: Vec<_> = all.iter().copied().filter(|id| led(id) || c.one_in(8)).collect();
            let change = |partition| Assignment { partition, leader_epoch: leader_epoch(partition, c), leader: other };
            Command::AssignPartitions { changes: of_node.into_iter().map(change).collect() }
        }
        2..=4 => {
            let all: Vec<_> = all.into_iter().filter(|id| moving(id)).collect();
            let partition = c.of(&all).unwrap_or(samples::partition(99, 0));
            let known = image.partition(partition);
            let node = known.map_or(node, |partition| partition.leader);
            let epoch = image.brokers.get(&node).map_or(epoch, |broker| broker.epoch);
            let reached = known.map_or(0, |partition| partition.handed_over.max(partition.uploaded_end).0);
            let more = c.below(4);
            let end = Offset(reached + more as i64 - c.one_in(4) as i64);
            let since = known.map_or(0, |partition| partition.target_since);
            // One that says nothing, as those before it did, or names another wish.
            let target_since = [since, since, 0, since.saturating_sub(1)][more as usize];
            Command::HandOver { node, epoch, partition, leader_epoch: leader_epoch(partition, c), end, target_since }
        }
        5 | 6 => {
            let target = (!c.one_in(4)).then_some(other);
            let preferred = c.one_in(2).then_some(node);
            let changes = c.of(&all).into_iter().map(|partition| TargetChange { partition, target, preferred });
            Command::SetTargets { changes: changes.collect() }
        }
        _ => Command::DrainNode { node, draining: c.one_in(2) },
    }
}

fn create_topic(node: NodeId, c: &mut Choices<'_>, now_ms: i64) -> Command {
    let names = ["a.b", "a_b", "c", "d", "", "..", "e/f"];
    Command::CreateTopic {
        id: TopicId([1 + c.below(6) as u8; 16]),
        name: c.of(&names).unwrap_or_default().to_owned(),
        partitions: vec![node; c.below(4) as usize],
        replication_factor: 1,
        configs: vec![],
        now_ms,
    }
}

fn alter_quotas(c: &mut Choices<'_>) -> Command {
    let part = |c: &mut Choices<'_>| match c.below(3) {
        0 => None,
        1 => Some(QuotaName::Default),
        _ => Some(QuotaName::Named(format!("n{}", c.below(3)))),
    };
    let entity = QuotaEntity { user: part(c), client_id: part(c), ip: if c.one_in(4) { part(c) } else { None } };
    let value = (!c.one_in(3)).then(|| c.below(3) as f64);
    Command::AlterClientQuotas { changes: vec![QuotaChange { entity, key: format!("k{}", c.below(3)), value }] }
}

fn alter_configs(node: NodeId, c: &mut Choices<'_>) -> Command {
    let resources = [
        ConfigResource::Topic("c".into()),
        ConfigResource::Broker(node),
        ConfigResource::Cluster,
        ConfigResource::Group("g".into()),
        ConfigResource::ClientMetrics("m".into()),
    ];
    let resource = resources[c.below(5) as usize].clone();
    let value = (!c.one_in(3)).then(|| c.below(5).to_string());
    let changes = vec![ConfigChange { resource: resource.clone(), name: "retention.ms".into(), value }];
    match c.one_in(3) {
        true => Command::AlterExpectedConfigs { expected: vec![(resource, vec![])], changes },
        false => Command::AlterConfigs { changes },
    }
}

fn upload(
    image: &Image,
    index: &MemoryIndex,
    (node, epoch): (NodeId, BrokerEpoch),
    c: &mut Choices<'_>,
    now_ms: i64,
) -> Command {
    let ledgers: Vec<_> = image.ledgers.iter().filter(|(_, ledger)| ledger.node == node || c.one_in(8)).collect();
    let ledger = c.of(&ledgers);
    let from = ledger.map_or(EntryId(0), |(_, ledger)| ledger.uploaded);
    let mut ranges = Vec::new();
    for id in all_partitions(image) {
        let Some(partition) = image.partition(id) else { continue };
        let mut base = partition.uploaded_end.0 + c.one_in(64) as i64;
        for _ in 0..c.below(3) {
            let end = base + c.below(6) as i64 + !c.one_in(64) as i64;
            let mut range = samples::range(id, base, end);
            if partition.epochs.last().is_none_or(|last| last.0 < partition.leader_epoch) && c.one_in(2) {
                range.epochs.push((LeaderEpoch(partition.leader_epoch.0 + c.one_in(32) as i32), range.base));
            }
            ranges.push(range);
            base = end;
        }
    }
    if c.one_in(6) {
        ranges.push(samples::range(samples::partition(99, 0), 0, 4));
    }
    Command::CommitUpload {
        node,
        epoch,
        object: prepared(index, epoch, c),
        object_bytes: 10_000,
        ledger: ledger.map_or(LedgerId(0), |(id, _)| *id),
        from,
        through: EntryId(from.0 + 1 + c.below(3)),
        ranges,
        now_ms,
    }
}

fn merge(
    image: &Image,
    index: &MemoryIndex,
    (node, epoch): (NodeId, BrokerEpoch),
    c: &mut Choices<'_>,
    now_ms: i64,
) -> Command {
    let mut inputs = Vec::new();
    let mut ranges: Vec<Range> = Vec::new();
    for id in all_partitions(image) {
        let leads = image.partition(id).is_some_and(|partition| partition.leader == node);
        if !leads && !c.one_in(40) {
            continue;
        }
        for (base, entry) in index.ranges(id, Offset::ZERO, Offset(i64::MAX), 1 + c.below(3) as usize) {
            inputs.push(MergeInput { partition: id, base, object: entry.object });
            let end = entry.end.0 - c.one_in(40) as i64;
            match ranges.last_mut() {
                Some(last) if last.partition == id && last.end == base => last.end = Offset(end),
                _ => ranges.push(samples::range(id, base.0, end)),
            }
        }
    }
    let outputs = vec![MergeOutput { object: prepared(index, epoch, c), bytes: 20_000, ranges }];
    let beyond = c.one_in(8) as i64;
    let end = |id| image.partition(id).map_or(0, |partition| partition.uploaded_end.0) + beyond;
    let cleaned = c.of(&all_partitions(image)).map(|id| (id, Offset(end(id))));
    let cleaned = cleaned.filter(|_| c.one_in(2)).into_iter().collect();
    Command::CommitMerge { node, epoch, inputs, outputs, cleaned, now_ms }
}

fn prepared(index: &MemoryIndex, owner: BrokerEpoch, c: &mut Choices<'_>) -> ObjectId {
    let is_mine = |entry: &ObjectEntry| matches!(entry.state, ObjectState::Prepared { epoch, .. } if epoch == owner);
    let mine: Vec<ObjectId> = index.objects.iter().filter(|(_, entry)| is_mine(entry)).map(|(id, _)| *id).collect();
    match c.of(&mine) {
        Some(id) if !c.one_in(16) => id,
        _ => ObjectId(c.below(20)),
    }
}

fn all_partitions(image: &Image) -> Vec<PartitionId> {
    let of_topic = |(topic, count): (TopicId, usize)| (0..count as i32).map(move |index| PartitionId { topic, index });
    image.topics.values().map(|topic| (topic.id, topic.partitions.len())).flat_map(of_topic).collect()
}

fn check_invariants(image: &Image, index: &MemoryIndex) {
    assert_eq!(image.names.len(), image.topics.len());
    for (id, topic) in image.topics.iter() {
        assert_eq!(image.names.get(&topic.name), Some(id));
    }
    for id in all_partitions(image) {
        let partition = image.partition(id).expect("it was listed");
        let ranges = index.ranges(id, Offset(i64::MIN), Offset(i64::MAX), usize::MAX);
        let bytes: u64 = ranges.iter().map(|(_, entry)| entry.bytes).sum();
        assert_eq!(partition.object_bytes, bytes, "{id}");
        assert!(partition.cleaned_end <= partition.uploaded_end, "{id}");
        assert!(ranges.windows(2).all(|pair| pair[0].1.end <= pair[1].0), "{id} overlaps: {ranges:?}");
        let newest_end = ranges.last().map_or(Offset::ZERO, |(_, entry)| entry.end);
        assert_eq!(newest_end, partition.uploaded_end, "{id} lost its newest range");
        let (readable, below): (Vec<_>, Vec<_>) = ranges.iter().partition(|(_, entry)| entry.end > partition.log_start);
        let is_kept = |(_, entry): &(Offset, RangeEntry)| entry.end == partition.uploaded_end;
        let is_purged = below.iter().copied().all(is_kept) || image.purge.contains_key(&id);
        assert!(is_purged, "{id} holds ranges that nobody may read: {below:?}");
        if partition.uploaded_end > partition.log_start {
            let first = readable.first().map(|(base, _)| *base);
            assert!(first.is_some_and(|base| base <= partition.log_start), "{id} lost its start: {ranges:?}");
        }
        assert!(readable.windows(2).all(|pair| pair[0].1.end == pair[1].0), "{id} has a gap: {ranges:?}");
        assert!(partition.epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1), "{id}");
        assert!(partition.epochs.last().is_none_or(|last| last.0 <= partition.leader_epoch), "{id}");
    }
    for (partition, _) in index.ranges.keys() {
        let known = image.topics.contains_key(&partition.topic) || image.purge.contains_key(partition);
        assert!(known, "ranges of {partition} were left behind");
    }
    for (id, object) in &index.objects {
        let count = index.ranges.values().filter(|entry| entry.object == *id).count();
        assert_eq!(object.live_ranges as usize, count, "{id:?} {object:?}");
        assert_eq!(object.state == ObjectState::Live, count > 0, "{id:?} {object:?}");
        assert!(id.0 < image.next_object);
    }
    assert!(index.ranges.values().all(|entry| index.objects.contains_key(&entry.object)));
    check_nodes(image);
    for (id, ledger) in &image.ledgers {
        assert!(id.0 < image.next_ledger && ledger.end.is_none_or(|end| ledger.uploaded <= end));
    }
}

fn check_nodes(image: &Image) {
    let mut taken = std::collections::BTreeSet::new();
    for (id, node) in &image.nodes {
        assert!(id.0 < image.next_node);
        for what in [node.name.clone(), node.identity.clone(), format!("{}:{}", node.host, node.port)] {
            assert!(taken.insert(what.clone()), "{what} twice: {:?}", image.nodes);
        }
    }
    let joined = |id: &NodeId| image.nodes.get(id).is_some_and(|node| node.directory().is_some());
    assert!(image.nodes.is_empty() || image.brokers.keys().all(joined), "a broker without a node");
    assert!(image.nodes.is_empty() || image.nodes.keys().any(joined), "nobody is left");
    assert!(image.broker_configs.keys().all(|id| image.brokers.contains_key(id)));
    for id in all_partitions(image) {
        let partition = image.partition(id).expect("it was listed");
        assert!(image.brokers.contains_key(&partition.leader), "{id} is led by nobody");
        assert!(image.brokers.contains_key(&partition.preferred), "{id} prefers nobody");
        if let Some(target) = partition.target {
            let live = image.brokers.get(&target).is_some_and(|broker| !broker.fenced);
            assert!(live && target != partition.leader, "{id}: {partition:?}");
            assert!((1..=image.applied).contains(&partition.target_since), "{id}: {partition:?}");
        }
    }
}

fn check_progress(before: &Image, after: &Image) {
    assert!(after.next_broker_epoch >= before.next_broker_epoch && after.next_ledger >= before.next_ledger);
    assert!(after.next_object >= before.next_object && after.next_producer >= before.next_producer);
    for (node, broker) in &before.brokers {
        match after.brokers.get(node) {
            Some(now) => assert!(now.epoch >= broker.epoch),
            None => assert!(!after.nodes.contains_key(node), "a broker goes with its node"),
        }
    }
    assert!(after.next_node >= before.next_node);
    for (id, node) in &after.nodes {
        match before.nodes.get(id) {
            Some(was) => assert!(was.directory().is_none() || was.directory() == node.directory(), "{was:?} {node:?}"),
            None => assert!(id.0 >= before.next_node, "node {id} was given out before"),
        }
    }
    for id in all_partitions(before) {
        let (Some(was), Some(now)) = (before.partition(id), after.partition(id)) else { continue };
        assert!(now.leader_epoch >= was.leader_epoch && now.handed_over >= was.handed_over, "{id}: {now:?}");
        assert!(now.leader == was.leader || now.leader_epoch > was.leader_epoch, "{id}: {now:?}");
        let gone = before.brokers.get(&was.leader).is_none_or(|broker| broker.fenced);
        let wrote = before.ledgers.values().any(|ledger| ledger.node == was.leader && ledger.end.is_none());
        let handed = was.target == Some(now.leader) && now.target.is_none();
        assert!(now.leader == was.leader || handed || (gone && !wrote), "{id} was taken from {}", was.leader);
    }
    for (id, ledger) in &before.ledgers {
        match after.ledgers.get(id) {
            Some(now) => {
                assert!(now.uploaded >= ledger.uploaded && (ledger.end.is_none() || now.end == ledger.end));
                assert_eq!((now.node, now.epoch), (ledger.node, ledger.epoch));
            }
            None => assert!(!after.needs(*id, ledger.uploaded), "a forgotten ledger holds nothing"),
        }
    }
    for id in all_partitions(before) {
        let (Some(old), Some(new)) = (before.partition(id), after.partition(id)) else { continue };
        if before.topics[&id.topic].created_ms != after.topics[&id.topic].created_ms {
            continue;
        }
        assert!(new.log_start >= old.log_start && new.uploaded_end >= old.uploaded_end);
        assert!(new.cleaned_end >= old.cleaned_end);
        assert!(new.leader_epoch >= old.leader_epoch);
    }
}

/// One step, checked; answers whether it was accepted.
fn step(image: &mut Image, index: &mut MemoryIndex, command: &Command) -> bool {
    assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(command));
    let before = image.clone();
    let (response, ops) = apply(image, command, index);
    let mut twin = before.clone();
    assert_eq!(apply(&mut twin, command, index), (response.clone(), ops.clone()), "the same twice");
    assert_eq!(&twin, image);
    let rejected = matches!(response, Response::Rejected(_));
    if rejected {
        assert_eq!((ops.len(), image.applied), (0, before.applied + 1), "{response:?}");
        assert_eq!(*image, Image { applied: image.applied, ..before.clone() }, "{response:?}");
    }
    index.apply(&ops);
    check_progress(&before, image);
    check_invariants(image, index);
    !rejected
}

/// The first steps of every life: a cluster, two nodes, each with a broker and a ledger.
fn started() -> (Image, MemoryIndex) {
    let (mut image, mut index) = (Image::default(), MemoryIndex::default());
    let numbers: Vec<u64> = vec![1];
    let mut c = Choices(numbers.iter().cycle());
    assert!(step(&mut image, &mut index, &Command::InitCluster { cluster: ClusterId([1; 16]), generation: 1 }));
    let directory = DirectoryId(0);
    let (name, rack, host, identity) = ("n1".to_owned(), String::new(), "h".to_owned(), "CN=1".to_owned());
    let first = Command::RegisterSelf { node: NodeId(1), name, rack, host, port: 1, identity, directory, now_ms: 0 };
    assert!(step(&mut image, &mut index, &first));
    let (name, rack, host, identity) = ("n2".to_owned(), String::new(), "h".to_owned(), "CN=2".to_owned());
    let (node, token_sha256, expires_ms, now_ms) = (NodeId(2), [3; 32], 10, 0);
    let second = Command::AddNode { node, name, rack, host, port: 2, identity, token_sha256, expires_ms, now_ms };
    assert!(step(&mut image, &mut index, &second));
    let join = Command::JoinNode { node, token_sha256, directory: DirectoryId(1), now_ms };
    assert!(step(&mut image, &mut index, &join));
    for node in [NodeId(1), NodeId(2)] {
        let command = register(&image, node, &mut c, 0);
        assert!(step(&mut image, &mut index, &command));
        let epoch = image.brokers[&node].epoch;
        let command = open_ledger(&image, node, epoch, &mut c);
        assert!(step(&mut image, &mut index, &command));
    }
    (image, index)
}

#[test]
fn most_kinds_of_command_succeed_in_a_random_life() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let numbers = proptest::collection::vec(any::<u64>(), 60_000).new_tree(&mut runner).expect("a vector").current();
    let mut c = Choices(numbers.iter().cycle());
    let (mut image, mut index) = started();
    let mut accepted = std::collections::BTreeMap::<Vec<u8>, u32>::new();
    for now_ms in 1..9_000 {
        let command = next_command(&image, &index, &mut c, now_ms);
        if step(&mut image, &mut index, &command) {
            *accepted.entry(command.encode()[2..4].to_vec()).or_default() += 1;
        }
    }
    assert_eq!(accepted.len(), 32, "{accepted:?}");
    assert!(accepted.values().all(|count| *count >= 3), "{accepted:?}");
    assert_eq!(Image::decode(&image.encode()), Ok(image));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_whatever_happens(numbers in proptest::collection::vec(any::<u64>(), 200..2_000)) {
        let mut c = Choices(numbers.iter().cycle());
        let (mut image, mut index) = started();
        for now_ms in 1..150 {
            let command = next_command(&image, &index, &mut c, now_ms);
            step(&mut image, &mut index, &command);
        }
        prop_assert_eq!(Image::decode(&image.encode()), Ok(image));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What was stored and then damaged is refused or is another value with exactly these bytes; applied to an image
    /// that is damaged as well it may do anything but panic.
    #[test]
    fn damaged_bytes_are_refused_or_harmless(
        which in any::<prop::sample::Index>(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        image_hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let damage = |bytes: &[u8], hits: &[(prop::sample::Index, u8)]| {
            let mut bytes = bytes.to_vec();
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            bytes
        };
        let commands = samples::commands();
        let bytes = damage(&commands[which.index(commands.len())].1.encode(), &hits);
        let samples =
            [samples::image(), samples::image_with_nodes(), samples::image_recovered(), samples::image_placed()];
        let image_bytes = damage(&samples[which.index(4)].encode(), &image_hits);
        let image = Image::decode(&image_bytes);
        if let Ok(image) = &image {
            prop_assert_eq!(&image.encode()[..], &image_bytes[..]);
        }
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(&command.encode()[..], &bytes[..]);
            let mut index = MemoryIndex::default();
            let put = |(id, (_, entry)): (u64, (_, ObjectEntry))| IndexOp::PutObject { id: ObjectId(id), entry };
            index.apply(&(21..).zip(samples::object_entries()).map(put).collect::<Vec<_>>());
            apply(&mut image.unwrap_or_else(|_| samples::image()), &command, &index);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..56) {
        let mut framed = vec![0, 1, 0, kind];
        framed.extend_from_slice(&bytes);
        for bytes in [&bytes, &framed] {
            if let Ok(command) = Command::decode(bytes) {
                apply(&mut samples::image(), &command, &MemoryIndex::default());
            }
            let _ = Image::decode(bytes);
            let _ = (RangeEntry::decode(bytes), ObjectEntry::decode(bytes));
        }
    }
}
