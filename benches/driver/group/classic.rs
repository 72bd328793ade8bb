//! A member of a classic group, as the Java consumer is one: it joins, the leader assigns ranges, everybody
//! synchronises, heartbeats tell of the next rebalance.

use super::{Plan, Seat};
use crate::client::{text, topic};
use crate::wire::{AGAIN, is_passing, unexpected};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// Of `ConsumerProtocolSubscription`, and what a consumer offers by default.
const SUBSCRIPTION_VERSION: i16 = 3;
const PROTOCOLS: [&str; 2] = ["range", "cooperative-sticky"];
const ASSIGNMENT_VERSION: i16 = 3;
const MEMBER_ID_REQUIRED: i16 = 79;
const UNKNOWN_MEMBER_ID: i16 = 25;
const ILLEGAL_GENERATION: i16 = 22;
const REBALANCE_IN_PROGRESS: i16 = 27;

/// What a member is by its last join.
struct Joined {
    id: StrBytes,
    generation: i32,
}

enum Next {
    Rejoin,
    Left,
}

pub(super) async fn run(seat: &mut Seat) -> io::Result<()> {
    let mut joined = Joined { id: StrBytes::default(), generation: -1 };
    loop {
        let partitions = join(seat, &mut joined).await?;
        seat.board.hold(seat.index, joined.generation, partitions);
        match stay(seat, &mut joined).await? {
            Next::Rejoin => seat.board.hold(seat.index, -1, vec![]),
            Next::Left => return Ok(()),
        }
    }
}

/// Until the member has an assignment of some generation.
async fn join(seat: &mut Seat, joined: &mut Joined) -> io::Result<Vec<i32>> {
    let protocols = PROTOCOLS.map(|name| {
        join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(seat.plan.subscription.clone())
    });
    loop {
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&seat.plan.group)))
            .with_session_timeout_ms(seat.plan.session.as_millis() as i32)
            .with_rebalance_timeout_ms(300_000)
            .with_member_id(joined.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(protocols.to_vec());
        let answer = seat.connection.call(9, &request).await?;
        match answer.error_code {
            0 => {}
            MEMBER_ID_REQUIRED => {
                joined.id = answer.member_id;
                continue;
            }
            UNKNOWN_MEMBER_ID => {
                joined.id = StrBytes::default();
                continue;
            }
            code if is_passing(code) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            code => return Err(unexpected("JoinGroup", code)),
        }
        (joined.id, joined.generation) = (answer.member_id, answer.generation_id);
        let leads = answer.leader == joined.id && !answer.skip_assignment;
        let assignments = if leads { assign(&seat.plan, answer.members) } else { vec![] };
        if let Some(partitions) = synchronise(seat, joined, assignments).await? {
            return Ok(partitions);
        }
    }
}

/// `None` when the group rebalances again.
async fn synchronise(
    seat: &mut Seat,
    joined: &mut Joined,
    assignments: Vec<sync_group_request::SyncGroupRequestAssignment>,
) -> io::Result<Option<Vec<i32>>> {
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text(&seat.plan.group)))
        .with_generation_id(joined.generation)
        .with_member_id(joined.id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text(PROTOCOLS[0])))
        .with_assignments(assignments);
    loop {
        let answer = seat.connection.call(5, &request).await?;
        match answer.error_code {
            0 => return decode(answer.assignment).map(Some),
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => return Ok(None),
            UNKNOWN_MEMBER_ID => {
                joined.id = StrBytes::default();
                return Ok(None);
            }
            code if is_passing(code) => tokio::time::sleep(AGAIN).await,
            code => return Err(unexpected("SyncGroup", code)),
        }
    }
}

/// Sends heartbeats until the group rebalances or the member is told to leave.
async fn stay(seat: &mut Seat, joined: &mut Joined) -> io::Result<Next> {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(&seat.plan.group)))
        .with_generation_id(joined.generation)
        .with_member_id(joined.id.clone());
    let mut due = tokio::time::Instant::now() + seat.plan.phase(seat.index);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            _ = &mut seat.leave => {
                leave(seat, joined).await?;
                return Ok(Next::Left);
            }
        }
        let began = Instant::now();
        let code = seat.connection.call(4, &request).await?.error_code;
        seat.board.heartbeat_took(began.elapsed());
        match code {
            0 => {}
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => return Ok(Next::Rejoin),
            UNKNOWN_MEMBER_ID => {
                joined.id = StrBytes::default();
                return Ok(Next::Rejoin);
            }
            code if is_passing(code) => {}
            code => return Err(unexpected("Heartbeat", code)),
        }
        due = (due + seat.plan.heartbeat).max(tokio::time::Instant::now());
    }
}

async fn leave(seat: &mut Seat, joined: &Joined) -> io::Result<()> {
    let member = leave_group_request::MemberIdentity::default().with_member_id(joined.id.clone());
    let request =
        LeaveGroupRequest::default().with_group_id(GroupId(text(&seat.plan.group))).with_members(vec![member]);
    let answer = seat.connection.call(5, &request).await?;
    let code = answer.members.first().map_or(answer.error_code, |member| member.error_code.max(answer.error_code));
    if code == 0 { Ok(()) } else { Err(unexpected("LeaveGroup", code)) }
}

/// What a member of the plan subscribes to.
pub(super) fn subscription(name: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(SUBSCRIPTION_VERSION);
    let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text(name)]).with_generation_id(-1);
    subscription.encode(&mut bytes, SUBSCRIPTION_VERSION).expect("a subscription is encodable");
    bytes.freeze()
}

/// Contiguous ranges, in the order of the members' ids.
fn assign(
    plan: &Rc<Plan>,
    members: Vec<join_group_response::JoinGroupResponseMember>,
) -> Vec<sync_group_request::SyncGroupRequestAssignment> {
    let ids: BTreeMap<StrBytes, ()> = members.into_iter().map(|member| (member.member_id, ())).collect();
    let (count, partitions) = (ids.len() as i32, plan.partitions);
    let mut start = 0;
    let each = ids.into_keys().zip(0..).map(|(id, place)| {
        let end = start + partitions / count + i32::from(place < partitions % count);
        let share = (start..end).collect();
        start = end;
        sync_group_request::SyncGroupRequestAssignment::default()
            .with_member_id(id)
            .with_assignment(encode(&plan.topic, share))
    });
    each.collect()
}

fn encode(name: &str, partitions: Vec<i32>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(ASSIGNMENT_VERSION);
    let share = consumer_protocol_assignment::TopicPartition::default().with_topic(topic(name));
    let assignment =
        ConsumerProtocolAssignment::default().with_assigned_partitions(vec![share.with_partitions(partitions)]);
    assignment.encode(&mut bytes, ASSIGNMENT_VERSION).expect("an assignment is encodable");
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> io::Result<Vec<i32>> {
    if bytes.len() < 2 {
        return Ok(vec![]);
    }
    let version = bytes.get_i16();
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version)
        .map_err(|e| io::Error::other(format!("an assignment that cannot be read: {e}")))?;
    Ok(assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect())
}
