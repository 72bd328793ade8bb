//! A cluster of three brokers as clients see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::picture::{Picture, ShownPartition};
use crate::base::{BrokerEpoch, EntryId, LeaderEpoch, LedgerId, NodeId, TopicId, WalIncarnation};
use crate::metadata::{Broker, Endpoint, Image, Ledger, Node, NodeState, Partition, Replica, Topic};
use kafka_protocol::error::ResponseError;

/// Brokers 1, 2 and 3, each in a rack of its own and with the listener `clients` at port 9001, 9002, 9003. Broker 3 has
/// another listener, `office`, besides. Each writes a ledger that all three hold. Some are fenced.
pub(super) fn three_brokers(fenced: &[i32]) -> Image {
    let mut image = Image::default();
    for id in 1..=3 {
        let endpoint = |listener: &str, port| Endpoint { listener: listener.into(), host: format!("h{id}"), port };
        let mut endpoints = vec![endpoint("clients", 9000 + id as u16)];
        if id == 3 {
            endpoints.push(endpoint("office", 7003));
        }
        let broker = Broker {
            epoch: BrokerEpoch(i64::from(id)),
            incarnation: WalIncarnation([id as u8; 16]),
            boot: 1,
            endpoints,
            version: String::new(),
            registered_ms: 0,
            fenced: fenced.contains(&id),
        };
        image.brokers.insert(NodeId(id), broker);
        image.nodes.insert(NodeId(id), node(id));
        write_ledger(&mut image, id as u64, id, &[1, 2, 3]);
    }
    image
}

fn node(id: i32) -> Node {
    Node {
        name: format!("n{id}"),
        rack: format!("r{id}"),
        host: format!("p{id}"),
        port: 9100,
        identity: format!("CN=n{id}"),
        token_sha256: [id as u8; 32],
        state: NodeState::Joined { directory: crate::base::DirectoryId(id as u32) },
        added_ms: 0,
        draining: false,
    }
}

/// A ledger of `writer` on `nodes`; it stays open.
fn write_ledger(image: &mut Image, id: u64, writer: i32, nodes: &[i32]) {
    let replica = |id: &i32| Replica { node: NodeId(*id), incarnation: WalIncarnation([*id as u8; 16]) };
    let ledger = Ledger {
        node: NodeId(writer),
        epoch: BrokerEpoch(i64::from(writer)),
        replicas: nodes.iter().map(replica).collect(),
        write_quorum: 2,
        end: None,
        uploaded: EntryId(0),
        uploader: None,
        holders: Vec::new(),
    };
    image.ledgers.insert(LedgerId(id), ledger);
}

/// Adds a topic whose partitions are led by these brokers.
pub(super) fn add_topic(image: &mut Image, name: &str, replication_factor: i16, leaders: &[i32]) -> Arc<Topic> {
    let id = TopicId([image.topics.len() as u8 + 1; 16]);
    let topic = Arc::new(Topic {
        id,
        name: name.into(),
        replication_factor,
        configs: BTreeMap::new(),
        partitions: leaders.iter().map(|leader| Arc::new(Partition::new(NodeId(*leader)))).collect(),
        created_ms: 0,
    });
    Arc::make_mut(&mut image.topics).insert(id, topic.clone());
    Arc::make_mut(&mut image.names).insert(topic.name.clone(), id);
    topic
}

type Seen = (Option<i32>, Vec<i32>, Vec<i32>, Vec<i32>);

/// Leader, replicas, in sync and offline.
fn seen(image: &Image, listener: &str, topic: &Topic, index: usize) -> Seen {
    let shown = Picture::new(image, listener).partition(topic, &topic.partitions[index]);
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    (shown.leader.map(|node| node.0), ids(&shown.replicas), ids(&shown.isr), ids(&shown.offline))
}

#[test]
fn the_replicas_are_those_of_the_leaders_ledger_up_to_the_replication_factor() {
    let mut image = three_brokers(&[]);
    for (factor, expected) in
        [(3, [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]]), (2, [vec![1, 2], vec![2, 3], vec![3, 1]])]
    {
        let topic = add_topic(&mut image, &format!("t{factor}"), factor, &[1, 2, 3]);
        for (index, replicas) in expected.into_iter().enumerate() {
            let leader = Some(replicas[0]);
            assert_eq!(seen(&image, "clients", &topic, index), (leader, replicas.clone(), replicas, vec![]));
        }
    }
    let alone = add_topic(&mut image, "alone", 1, &[2]);
    assert_eq!(seen(&image, "clients", &alone, 0), (Some(2), vec![2], vec![2], vec![]));
}

/// As Kafka shows a broker that was killed: still a replica, but not in sync and offline.
#[test]
fn a_fenced_replica_is_offline_before_and_after_it_is_replaced() {
    let mut image = three_brokers(&[3]);
    let topic = add_topic(&mut image, "t", 3, &[1]);
    assert_eq!(seen(&image, "clients", &topic, 0), (Some(1), vec![1, 2, 3], vec![1, 2], vec![3]));
    write_ledger(&mut image, 10, 1, &[1, 2]);
    assert_eq!(seen(&image, "clients", &topic, 0), (Some(1), vec![1, 2, 3], vec![1, 2], vec![3]));
    // Two are as many as this one asks for.
    let two = add_topic(&mut image, "two", 2, &[1]);
    assert_eq!(seen(&image, "clients", &two, 0), (Some(1), vec![1, 2], vec![1, 2], vec![]));
    // The broker is back, but the ledger has not taken it in yet.
    image.brokers.get_mut(&NodeId(3)).unwrap().fenced = false;
    assert_eq!(seen(&image, "clients", &topic, 0), (Some(1), vec![1, 2], vec![1, 2], vec![]));
}

#[test]
fn a_partition_whose_leader_is_fenced_has_none() {
    let mut image = three_brokers(&[1]);
    let topic = add_topic(&mut image, "t", 3, &[1]);
    assert_eq!(seen(&image, "clients", &topic, 0), (None, vec![1, 2, 3], vec![2, 3], vec![1]));
    let picture = Picture::new(&image, "clients");
    let error = |picture: &Picture<'_>| -> ShownPartition { picture.partition(&topic, &topic.partitions[0]) };
    assert_eq!(error(&picture).error, Some(ResponseError::LeaderNotAvailable));
    assert_eq!(picture.leader(&topic.partitions[0]), (None, LeaderEpoch(0)));
    let mut alone = Image { ledgers: BTreeMap::new(), ..image.clone() };
    let single = add_topic(&mut alone, "single", 1, &[1]);
    assert_eq!(seen(&alone, "clients", &single, 0), (None, vec![1], vec![1], vec![1]));
}

#[test]
fn a_leader_without_the_clients_listener_is_said_to_lack_it() {
    let mut image = three_brokers(&[]);
    let topic = add_topic(&mut image, "t", 3, &[1, 3]);
    let picture = Picture::new(&image, "office");
    assert_eq!(picture.brokers().map(|b| (b.node.0, b.endpoint.port)).collect::<Vec<_>>(), [(3, 7003)]);
    let shown: Vec<_> = topic.partitions.iter().map(|p| picture.partition(&topic, p).error).collect();
    assert_eq!(shown, [Some(ResponseError::ListenerNotFound), None]);
    assert_eq!(seen(&image, "office", &topic, 1), (Some(3), vec![3, 1, 2], vec![3, 1, 2], vec![1, 2]));
}

/// As Kafka lists replicas: the preferred leader first, whoever leads now.
#[test]
fn the_preferred_leader_comes_first() {
    let mut image = three_brokers(&[]);
    let topic = add_topic(&mut image, "t", 2, &[1]);
    let mut partition = Partition::new(NodeId(1));
    partition.preferred = NodeId(3);
    let shown = |image: &Image| Picture::new(image, "clients").partition(&topic, &partition);
    assert_eq!(shown(&image).replicas, [NodeId(3), NodeId(1)]);
    assert_eq!((shown(&image).leader, shown(&image).isr), (Some(NodeId(1)), vec![NodeId(1), NodeId(3)]));
    // It holds nothing of the leader's ledger: no replica.
    write_ledger(&mut image, 10, 1, &[1, 2]);
    assert_eq!(shown(&image).replicas, [NodeId(1), NodeId(2)]);
}

#[test]
fn the_controller_is_the_leader_of_the_quorum_where_clients_reach_it() {
    let image = three_brokers(&[2]);
    let clients = Picture::new(&image, "clients");
    let controller = |leader: Option<i32>| clients.controller(leader.map(NodeId), NodeId(1)).0;
    assert_eq!([Some(3), Some(2), Some(7), None].map(controller), [3, 1, 1, 1]);
    assert_eq!(Picture::new(&image, "office").controller(Some(NodeId(1)), NodeId(3)), NodeId(3));
}
