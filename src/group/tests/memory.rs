//! What members cost: bytes while they are idle, and work when there are very many.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::SeededEntropy;
use crate::group::classic::{Member, State};
use crate::group::coordinator::Group;
use crate::group::tests::AnyTopic;
use crate::group::tests::script::subscription;
use crate::group::{
    Client, Coordinator, GroupError, Heartbeat, JoinGroup, Now, Options, Protocol, Reply, Request, SyncGroup, Token,
};

fn at(ms: u64) -> Now {
    Now { wall_ms: ms as i64, monotonic: Duration::from_millis(ms) }
}

fn join(member: &str) -> Request {
    Request::JoinGroup(JoinGroup {
        version: 9,
        client: Client { id: "consumer-application-1".to_owned(), host: "/127.0.0.1".to_owned() },
        group: "g".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        member: member.to_owned(),
        instance: None,
        protocol_type: "consumer".to_owned(),
        protocols: ["range", "cooperative-sticky"]
            .map(|name| Protocol { name: name.to_owned(), metadata: subscription("topic") })
            .to_vec(),
        reason: None,
    })
}

/// Members by the way that Java's consumer takes: an id first, then the join. Their ids.
fn joined(coordinator: &mut Coordinator, count: u64) -> Vec<String> {
    let mut members = vec![];
    for number in 0..count {
        let effects = coordinator.on_request(Token(number), join(""), at(0), &AnyTopic);
        let Some((_, Reply::JoinGroup(reply))) = effects.replies.into_iter().next() else { panic!("no answer") };
        assert_eq!(reply.error, Some(GroupError::MemberIdRequired));
        members.push(reply.member);
    }
    for member in &members {
        assert!(coordinator.on_request(Token(0), join(member), at(0), &AnyTopic).replies.is_empty());
    }
    members
}

/// Bytes of an idle member, by what is allocated for it; each allocation is taken to cost 16 bytes more.
fn bytes_of(id: &str, member: &Member) -> usize {
    let strings = [id, &member.client_id, &member.client_host].map(|text| text.len() + 16);
    let protocols = member.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 2 * 16 + 48);
    let slot = 2 * size_of::<usize>() + size_of::<usize>();
    size_of::<Member>()
        + 16
        + 2 * slot
        + 16
        + strings.iter().sum::<usize>()
        + protocols.sum::<usize>()
        + member.assignment.len()
        + 16
}

#[test]
fn an_idle_member_takes_less_than_a_kibibyte() {
    let mut coordinator = Coordinator::new(Options::default(), Arc::new(SeededEntropy::new(3)));
    joined(&mut coordinator, 500);
    let Some(Group::Classic(group)) = coordinator.groups.get("g") else { panic!("a classic group") };
    let all: usize = group.members.iter().map(|(id, member)| bytes_of(id, member)).sum();
    assert!(all / 500 <= 1_024, "{} bytes", all / 500);
}

#[test]
fn ten_thousand_members_of_one_group() {
    const MEMBERS: usize = 10_000;
    let mut coordinator =
        Coordinator::new(Options { batch_bytes_max: 1 << 24, ..Options::default() }, Arc::new(SeededEntropy::new(3)));
    let members = joined(&mut coordinator, MEMBERS as u64);
    let mut leader = None;
    let mut now_ms = 0;
    while leader.is_none() {
        now_ms = coordinator.next_deadline().expect("a rebalance is under way").as_millis() as u64;
        for (_, reply) in coordinator.on_timer(at(now_ms), &AnyTopic).replies {
            let Reply::JoinGroup(reply) = reply else { panic!("not a join") };
            assert_eq!((reply.error, reply.generation), (None, 1));
            leader = Some(reply.leader);
        }
    }
    let leader = leader.expect("somebody leads");
    let sync = |member: &String| {
        let assignments = if *member == leader { members.iter() } else { [].iter() };
        Request::SyncGroup(SyncGroup {
            group: "g".to_owned(),
            generation: 1,
            member: member.clone(),
            instance: None,
            protocol_type: None,
            protocol_name: None,
            assignments: assignments.map(|member| (member.clone(), Bytes::from_static(b"x"))).collect(),
        })
    };
    let mut synced = 0;
    for member in &members {
        let effects = coordinator.on_request(Token(0), sync(member), at(now_ms), &AnyTopic);
        synced += effects.replies.len();
    }
    assert_eq!(synced, MEMBERS);
    let Some(Group::Classic(group)) = coordinator.groups.get("g") else { panic!("a classic group") };
    assert_eq!(group.state(), State::Stable);
    for round in 1..4 {
        for member in &members {
            let request = Heartbeat { group: "g".to_owned(), generation: 1, member: member.clone(), instance: None };
            let effects =
                coordinator.on_request(Token(0), Request::Heartbeat(request), at(now_ms + round * 3_000), &AnyTopic);
            assert_eq!(effects.replies, [(Token(0), Reply::Heartbeat(Ok(())))]);
        }
    }
}
