//! A member of a consumer group (KIP-848), as the Java consumer is one: a heartbeat at every interval, and one at once
//! after each change of what it owns.

use super::Seat;
use crate::client::{text, topic};
use crate::wire::{AGAIN, is_passing, unexpected};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::*;
use std::io;
use std::time::{Duration, Instant};

const JOIN_EPOCH: i32 = 0;
const LEAVE_EPOCH: i32 = -1;
const UNKNOWN_MEMBER_ID: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;

#[derive(Default)]
struct Mine {
    epoch: i32,
    /// Ascending.
    owned: Vec<i32>,
    /// What is owned has changed since it was last said.
    to_tell: bool,
    /// As the coordinator wants it.
    interval: Duration,
}

pub(super) async fn run(seat: &mut Seat) -> io::Result<()> {
    let mut mine = Mine::default();
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            _ = &mut seat.leave => return leave(seat, &mine).await,
        }
        let joins = mine.epoch == JOIN_EPOCH;
        let is_quiet = !joins && !mine.to_tell;
        let began = Instant::now();
        let answer = seat.connection.call(1, &request(seat, &mine)).await?;
        if is_quiet {
            seat.board.heartbeat_took(began.elapsed());
        }
        match answer.error_code {
            0 => {
                take(seat, &mut mine, answer);
                let now = tokio::time::Instant::now();
                due = match (mine.to_tell, joins) {
                    (true, _) => now,
                    (false, true) => now + seat.plan.phase_of(seat.index, mine.interval),
                    (false, false) => (due + mine.interval).max(now),
                };
            }
            UNKNOWN_MEMBER_ID | FENCED_MEMBER_EPOCH => {
                mine = Mine { interval: mine.interval, ..Mine::default() };
                seat.board.hold(seat.index, -1, vec![]);
            }
            code if is_passing(code) => due = tokio::time::Instant::now() + AGAIN,
            code => return Err(unexpected("ConsumerGroupHeartbeat", code)),
        }
    }
}

fn request(seat: &Seat, mine: &Mine) -> ConsumerGroupHeartbeatRequest {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(&seat.plan.group)))
        .with_member_id(text(&seat.member_id()))
        .with_member_epoch(mine.epoch)
        .with_rebalance_timeout_ms(-1)
        .with_topic_partitions(None)
        .with_subscribed_topic_names(None);
    let owned = TopicPartitions::default().with_topic_id(seat.plan.topic_id).with_partitions(mine.owned.clone());
    match (mine.epoch, mine.to_tell) {
        (JOIN_EPOCH, _) => request
            .with_rebalance_timeout_ms(300_000)
            .with_subscribed_topic_names(Some(vec![topic(&seat.plan.topic)]))
            .with_topic_partitions(Some(vec![])),
        (_, true) if mine.owned.is_empty() => request.with_topic_partitions(Some(vec![])),
        (_, true) => request.with_topic_partitions(Some(vec![owned])),
        (_, false) => request,
    }
}

/// Takes over what the coordinator says: gives up and takes at once, for no records are under way.
fn take(seat: &Seat, mine: &mut Mine, answer: ConsumerGroupHeartbeatResponse) {
    mine.epoch = answer.member_epoch;
    mine.interval = Duration::from_millis(answer.heartbeat_interval_ms.max(1) as u64);
    mine.to_tell = false;
    if let Some(assignment) = answer.assignment {
        let mut target: Vec<i32> = assignment.topic_partitions.into_iter().flat_map(|t| t.partitions).collect();
        target.sort_unstable();
        mine.to_tell = target != mine.owned;
        mine.owned = target;
    }
    seat.board.hold(seat.index, mine.epoch, mine.owned.clone());
}

async fn leave(seat: &mut Seat, mine: &Mine) -> io::Result<()> {
    let going = Mine { epoch: LEAVE_EPOCH, to_tell: false, ..Mine { owned: mine.owned.clone(), ..Mine::default() } };
    let request = request(seat, &going);
    match seat.connection.call(1, &request).await?.error_code {
        0 => Ok(()),
        code => Err(unexpected("ConsumerGroupHeartbeat, to leave", code)),
    }
}
