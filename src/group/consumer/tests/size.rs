//! What members cost: bytes while they are idle, and work when there are very many.

use crate::group::consumer::member::Member;
use crate::group::consumer::state::Deadlines;
use crate::group::consumer::tests::world::World;
use crate::group::{Client, ConsumerGroupHeartbeat, Options, Reply, Request};

fn beat(member: usize, epoch: i32, owned: Option<Vec<crate::group::TopicPartitions>>) -> Request {
    let joins = epoch == 0;
    Request::ConsumerGroupHeartbeat(ConsumerGroupHeartbeat {
        version: 1,
        client: Client { id: "consumer-application-1".into(), host: "/127.0.0.1".into() },
        group: "g".into(),
        member: format!("member-with-a-uuid-{member:017}"),
        member_epoch: epoch,
        instance: None,
        rack: None,
        rebalance_timeout_ms: if joins { 300_000 } else { -1 },
        subscribed_topics: joins.then(|| vec!["topic".into()]),
        subscribed_regex: None,
        server_assignor: None,
        owned: if joins { Some(vec![]) } else { owned },
    })
}

/// Everybody beats in turn until the group is stable; the rounds it took.
fn settle(world: &mut World, epochs: &mut [i32]) -> u32 {
    let mut owned: Vec<Option<Vec<crate::group::TopicPartitions>>> = vec![Some(vec![]); epochs.len()];
    for round in 1..20 {
        for (member, epoch) in epochs.iter_mut().enumerate() {
            let Reply::ConsumerGroupHeartbeat(reply) = world.ask(beat(member, *epoch, owned[member].clone())) else {
                panic!("another reply")
            };
            assert_eq!(reply.error, None, "{reply:?}");
            *epoch = reply.member_epoch;
            if let Some(assignment) = reply.assignment {
                owned[member] = Some(assignment);
            }
        }
        world.wait(1_000);
        if world.consumer_groups().all(|(_, group)| group.state() == "Stable") {
            return round;
        }
    }
    panic!("{:?}", world.consumer_groups().map(|(_, group)| group.state()).collect::<Vec<_>>());
}

/// Bytes of an idle member, by what is allocated for it; each allocation is taken to cost 16 bytes more.
fn bytes_of(member: &Member) -> usize {
    let texts = [&member.metadata.client_id, &member.metadata.client_host, &member.id];
    let topics = member.metadata.subscribed_topics.iter().map(|topic| 24 + topic.len() + 16).sum::<usize>();
    let sets = |partitions: usize| 2 * (40 + 16) + partitions * 12;
    let held = member.assigned.each().count();
    // Three maps have the id as their key.
    let keys = 3 * (24 + member.id.len() + 16) + 8 + 24 + size_of::<Deadlines>();
    size_of::<Member>() + 16 + texts.iter().map(|text| text.len() + 16).sum::<usize>() + topics + sets(held) + keys
        // Half of a node of a map is empty at worst; a partition has an entry in a hash map.
        + keys / 2 + held * 64
}

#[test]
fn five_hundred_members_on_a_thousand_partitions() {
    let mut world = World::new(Options::default(), 1);
    world.checks = false;
    world.topics.set("topic", 1_000);
    let mut epochs = vec![0; 500];
    let rounds = settle(&mut world, &mut epochs);
    assert!(rounds <= 6, "{rounds} rounds");
    world.check();
    world.check_replay();
    let (_, group) = world.consumer_groups().next().expect("the group");
    assert!(group.members.values().all(|member| member.assigned.partitions().count() == 2));
    let bytes: usize = group.members.values().map(|member| bytes_of(member)).sum();
    assert!(bytes / 500 <= 2_048, "{} bytes a member", bytes / 500);
}

#[test]
fn ten_thousand_members_join_one_group() {
    let mut world = World::new(Options { batch_bytes_max: 1 << 24, ..Options::default() }, 1);
    world.checks = false;
    world.topics.set("topic", 1_000);
    for member in 0..10_000 {
        let Reply::ConsumerGroupHeartbeat(reply) = world.ask(beat(member, 0, None)) else { panic!("another reply") };
        assert_eq!(reply.error, None);
    }
    world.check();
    world.wait(46_000);
    assert!(world.consumer_groups().all(|(_, group)| group.is_empty()), "their sessions end");
    world.check_replay();
}

#[test]
fn a_change_that_no_batch_can_hold_is_refused() {
    let mut world = World::new(Options { batch_bytes_max: 400, ..Options::default() }, 1);
    world.topics.set("topic", 1_000);
    let Reply::ConsumerGroupHeartbeat(reply) = world.ask(beat(1, 0, None)) else { panic!("another reply") };
    assert_eq!(reply.error.map(crate::group::GroupError::code), Some(-1));
    assert!(world.consumer_groups().next().is_none());
}
