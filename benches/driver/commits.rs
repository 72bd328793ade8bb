//! Committed offsets in a closed loop: each connection commits for a group of its own, as fast as it is answered.
//!
//! In the end every group is asked what it has: anything but the offsets that were acknowledged last is an error.

use crate::client::{text, topic};
use crate::measure::{self, Latencies, Process};
use crate::options::{Options, Window};
use crate::wire::{self, AGAIN, Connection, is_passing, unexpected};
use kafka_protocol::messages::*;
use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use std::io;
use std::time::{Duration, Instant};

/// What one connection commits.
#[derive(Clone)]
struct Target {
    group: String,
    topic: String,
    partitions: i32,
}

/// The command `commits`.
pub fn run(options: &Options) -> io::Result<()> {
    let connections = options.number("connections", 32);
    let partitions = options.number("partitions", 10) as i32;
    let name = crate::ready_topic(options, &options.text("topic", "commits"), partitions, &[])?;
    wire::find_coordinator(options, 0, &name)?;
    let process = Process::of(options.number("pid", 0));
    let window = Window::new(options);
    let address = options.bootstrap();
    let (latencies, spent) = wire::on_this_thread(async {
        let mut tasks = vec![];
        for n in 0..connections {
            let target = Target { group: format!("{name}-{n}"), topic: name.clone(), partitions };
            let connection = Connection::open(address).await?;
            tasks.push(tokio::task::spawn_local(commit(connection, target, window)));
        }
        sleep_until(window.begin).await;
        let before = process.now();
        sleep_until(window.end).await;
        let spent = process.now().since(&before);
        let mut all = Latencies::default();
        for task in tasks {
            all.merge(task.await.map_err(io::Error::other)??);
        }
        Ok((all, spent))
    })?;
    let mut line = measure::line(options.text("label", "?"), "commits", connections, partitions as u64);
    line.text("case", &format!("{connections} connections × {partitions} partitions"));
    line.put("per_s", latencies.count() as f64 / window.length().as_secs_f64());
    line.latencies(&latencies);
    line.put("cpu_us_each", spent.cpu_seconds * 1e6 / latencies.count() as f64);
    line.print();
    Ok(())
}

pub async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

async fn commit(mut connection: Connection, target: Target, window: Window) -> io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut offset = 0;
    while !window.over() {
        offset += 1;
        let request = request(&target, offset);
        let began = Instant::now();
        commit_once(&mut connection, &request).await?;
        if window.counts(Instant::now()) {
            latencies.add(began.elapsed());
        }
    }
    let kept = committed(&mut connection, &target).await?;
    match kept.iter().all(|kept| *kept == offset) && kept.len() == target.partitions as usize {
        true => Ok(latencies),
        false => Err(io::Error::other(format!("{} has {kept:?}, not {offset} everywhere", target.group))),
    }
}

/// As a consumer that assigns its partitions itself: without a member id or a generation.
fn request(target: &Target, offset: i64) -> OffsetCommitRequest {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")))
    };
    let partitions = (0..target.partitions).map(partition).collect();
    let topic = OffsetCommitRequestTopic::default().with_name(topic(&target.topic)).with_partitions(partitions);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&target.group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// Until the coordinator is there, within the connection's patience.
async fn commit_once(connection: &mut Connection, request: &OffsetCommitRequest) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = connection.call(9, request).await?;
        let codes = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
        match codes.into_iter().find(|code| *code != 0) {
            None => return Ok(()),
            Some(code) if is_passing(code) && Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Some(code) => return Err(unexpected("OffsetCommit", code)),
        }
    }
}

async fn committed(connection: &mut Connection, target: &Target) -> io::Result<Vec<i64>> {
    let asked = OffsetFetchRequestTopics::default()
        .with_name(topic(&target.topic))
        .with_partition_indexes((0..target.partitions).collect());
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(&target.group)))
        .with_member_epoch(-1)
        .with_topics(Some(vec![asked]));
    let answer = connection.call(9, &OffsetFetchRequest::default().with_groups(vec![group])).await?;
    let group = answer.groups.first().ok_or_else(|| io::Error::other("OffsetFetch names no group"))?;
    if group.error_code != 0 {
        return Err(unexpected("OffsetFetch", group.error_code));
    }
    Ok(group.topics.iter().flat_map(|t| &t.partitions).map(|p| p.committed_offset).collect())
}
