//! `steady`: clients that go on while the cluster is handled: `--topic NAME [--rate 200] [--seconds 60]`. To each
//! partition one producer and one reader; one group whose offsets are committed.
//!
//! They try again as Kafka's clients do: an operation counts as failed when it has not succeeded after the two minutes of
//! their delivery.timeout.ms, or met an error that no client repeats. In the end each acknowledged record must have been read.

use super::site::{Links, Site};
use crate::batch::{self, NO_PRODUCER};
use crate::client::{fetch_request, produce_request, text, topic};
use crate::headers;
use crate::measure::{self, Latencies, now_ms};
use crate::options::Options;
use kafka_protocol::messages::*;
use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
/// Kafka's retry.backoff.ms.
const AGAIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
const GROUP: &str = "steady";
const FIND_COORDINATOR: i16 = 4;
/// Counted as a code where there was no answer.
const NO_ANSWER: i16 = -2;

/// Errors that Kafka's clients answer with another attempt.
fn is_retriable(code: i16) -> bool {
    [3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 56, 100].contains(&code)
}

/// What became of one kind of operation.
#[derive(Default)]
struct Count {
    done: u64,
    repeated: u64,
    failed: u64,
    latencies: Latencies,
    longest: Duration,
    codes: std::collections::BTreeMap<i16, u64>,
}

impl Count {
    /// Counts one attempt, `took` after the first of its operation. None if there is to be another one; Some(None) if the
    /// operation failed for good.
    fn take<T>(&mut self, outcome: Result<T, Option<i16>>, took: Duration) -> Option<Option<T>> {
        match outcome {
            Ok(value) => {
                self.done += 1;
                self.latencies.add(took);
                self.longest = self.longest.max(took);
                Some(Some(value))
            }
            Err(code) => {
                *self.codes.entry(code.unwrap_or(NO_ANSWER)).or_default() += 1;
                if took > PATIENCE || code.is_some_and(|code| !is_retriable(code)) {
                    self.failed += 1;
                    return Some(None);
                }
                self.repeated += 1;
                None
            }
        }
    }
}

/// Repeats `once` until it succeeds; None if it failed for good. `once` gives an error code, or nothing for a broken
/// connection.
async fn persist<T>(count: &RefCell<Count>, mut once: impl AsyncFnMut() -> Result<T, Option<i16>>) -> Option<T> {
    let began = Instant::now();
    loop {
        let outcome = once().await;
        let ended = count.borrow_mut().take(outcome, began.elapsed());
        match ended {
            Some(value) => return value,
            None => tokio::time::sleep(AGAIN).await,
        }
    }
}

pub async fn run(site: &Site, options: &Options) -> io::Result<()> {
    let name = options.text("topic", "steady");
    let partitions = Links::new(site).look(&name, LIMIT).await?.partitions.len() as i32;
    let end = Instant::now() + options.seconds("seconds", 60);
    let pause = Duration::from_secs_f64(f64::from(partitions) / options.number("rate", 200) as f64);
    let (produced, fetched, committed) = Default::default();
    let producers =
        futures_util::future::join_all((0..partitions).map(|p| produce(site, &name, p, pause, end, &produced)));
    let readers = futures_util::future::join_all((0..partitions).map(|p| read(site, &name, p, end, &fetched)));
    let (acknowledged, seen, ()) = tokio::join!(producers, readers, commit(site, &name, end, &committed));
    let (mut sum, mut missing) = (0, 0);
    for (acknowledged, read) in acknowledged.into_iter().zip(&seen) {
        sum += acknowledged.len() as u64;
        missing += acknowledged.iter().filter(|offset| !read.contains(offset)).count() as u64;
    }
    let mut line = measure::line(options.text("label", "?"), "steady", partitions as u64, 0);
    line.text("case", &options.text("case", "clients that go on"));
    for (kind, count) in [("produce", produced), ("fetch", fetched), ("commit", committed)] {
        let count = count.into_inner();
        line.put(&format!("{kind}_done"), count.done as f64);
        line.put(&format!("{kind}_repeated"), count.repeated as f64);
        line.put(&format!("{kind}_failed"), count.failed as f64);
        line.put(&format!("{kind}_longest_ms"), count.longest.as_secs_f64() * 1000.0);
        line.put(&format!("{kind}_p99_ms"), count.latencies.percentile(0.99));
        line.text(&format!("{kind}_codes"), &format!("{:?}", count.codes));
    }
    line.put("acknowledged", sum as f64);
    line.put("missing", missing as f64);
    line.print();
    Ok(())
}

/// Who leads a partition, asked again after each failure.
struct Leader<'a> {
    links: Links<'a>,
    topic: &'a str,
    partition: i32,
    known: Option<SocketAddr>,
}

impl<'a> Leader<'a> {
    fn new(site: &'a Site, topic: &'a str, partition: i32) -> Leader<'a> {
        Leader { links: Links::new(site), topic, partition, known: None }
    }

    async fn call<R: kafka_protocol::protocol::Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Option<i16>> {
        let address = match self.known.take() {
            Some(address) => address,
            None => {
                let view = self.links.look(self.topic, LIMIT).await.map_err(|_| None)?;
                view.leader_of(self.partition).ok_or(Some(5))?
            }
        };
        let answer = self.links.call(address, version, request, LIMIT * 3).await.map_err(|_| None)?;
        self.known = Some(address);
        Ok(answer)
    }
}

/// The offsets that were acknowledged.
async fn produce(
    site: &Site,
    name: &str,
    partition: i32,
    pause: Duration,
    end: Instant,
    count: &RefCell<Count>,
) -> Vec<i64> {
    let mut leader = Leader::new(site, name, partition);
    let record = batch::encode(&crate::values(1024, 1024, 0), NO_PRODUCER, -1, now_ms());
    let request = produce_request(name, -1, vec![(partition, record)]);
    let mut acknowledged = vec![];
    while Instant::now() < end {
        let done = persist(count, async || {
            let answer = leader.call(9, &request).await?;
            let outcome = answer.responses.first().and_then(|t| t.partition_responses.first()).ok_or(None)?;
            match outcome.error_code {
                0 => Ok(outcome.base_offset),
                code => {
                    leader.known = None;
                    Err(Some(code))
                }
            }
        });
        acknowledged.extend(done.await);
        tokio::time::sleep(pause).await;
    }
    acknowledged
}

/// The offsets that were read, until two seconds after the end.
async fn read(
    site: &Site,
    name: &str,
    partition: i32,
    end: Instant,
    count: &RefCell<Count>,
) -> std::collections::BTreeSet<i64> {
    let mut leader = Leader::new(site, name, partition);
    let (mut next, mut read) = (0, std::collections::BTreeSet::new());
    while Instant::now() < end + Duration::from_secs(5) {
        let records = persist(count, async || {
            let answer = leader.call(11, &fetch_request(name, partition, next, 500, 4 << 20)).await?;
            let data = answer.responses.into_iter().flat_map(|t| t.partitions).next().ok_or(None)?;
            match data.error_code {
                0 => Ok(data.records.unwrap_or_default()),
                code => {
                    leader.known = None;
                    Err(Some(code))
                }
            }
        });
        let Some(records) = records.await else { continue };
        for header in headers::each(&records) {
            let first = header.last_offset + 1 - i64::from(header.records);
            read.extend(first.max(next)..=header.last_offset);
            next = header.last_offset + 1;
        }
    }
    read
}

/// Commits ten times a second.
async fn commit(site: &Site, name: &str, end: Instant, count: &RefCell<Count>) {
    let (mut links, mut known, mut offset) = (Links::new(site), None, 0);
    while Instant::now() < end {
        offset += 1;
        persist(count, async || {
            let address = match known.take() {
                Some(address) => address,
                None => coordinator(&mut links).await?,
            };
            let partition = OffsetCommitRequestPartition::default().with_partition_index(0);
            let partition = partition.with_committed_offset(offset).with_committed_leader_epoch(-1);
            let asked = OffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text(GROUP)));
            let request = request.with_generation_id_or_member_epoch(-1).with_topics(vec![asked]);
            let answer = links.call(address, 9, &request, LIMIT * 3).await.map_err(|_| None)?;
            match answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).next() {
                Some(0) => {
                    known = Some(address);
                    Ok(())
                }
                code => Err(code),
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn coordinator(links: &mut Links<'_>) -> Result<SocketAddr, Option<i16>> {
    let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(GROUP)]);
    let answer = links.ask(FIND_COORDINATOR, &request, LIMIT).await.map_err(|_| None)?;
    let found = answer.coordinators.first().ok_or(None)?;
    match found.error_code {
        0 => format!("{}:{}", found.host.as_str(), found.port).parse().map_err(|_| None),
        code => Err(Some(code)),
    }
}
