//! `move`: AlterPartitionReassignments for the one partition of a topic while a producer writes to it:
//! `--topic NAME --to 3,2 [--rate 200]`. Takes the time until no reassignment is going on and the first of the nodes leads,
//! and the longest time between two acknowledgements of the producer.

use super::site::{Links, Site};
use crate::batch::{self, NO_PRODUCER};
use crate::client::{produce_request, topic};
use crate::measure::{self, now_ms};
use crate::options::Options;
use crate::wire::unexpected;
use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::*;
use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// What a producer waits that was refused or found nobody, before it asks who leads.
const AGAIN: Duration = Duration::from_millis(20);
/// Before the move, and after it.
const AROUND: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);

pub async fn run(site: &Site, options: &Options) -> io::Result<()> {
    let name = options.text("topic", "moved");
    let to: Vec<i32> =
        options.text("to", "").split(',').map(|node| node.parse().expect("--to holds numbers")).collect();
    let pause = Duration::from_secs_f64(1.0 / options.number("rate", 200) as f64);
    let (over, acknowledged) = (Cell::new(false), RefCell::new(vec![]));
    let producing = produce(site, &name, pause, &over, &acknowledged);
    let moving = async {
        tokio::time::sleep(AROUND).await;
        let began = Instant::now();
        let moved = reassign(site, &name, &to).await;
        let took = began.elapsed();
        tokio::time::sleep(AROUND).await;
        over.set(true);
        moved.map(|()| took)
    };
    let (took, errors) = tokio::join!(moving, producing);
    let (took, times) = (took?, acknowledged.into_inner());
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    let gap = gap.ok_or_else(|| io::Error::other("the producer was never acknowledged"))?;
    let mut line = measure::line(options.text("label", "?"), "move", 1, 0);
    line.text("case", &options.text("case", "a partition"));
    line.put("move_ms", took.as_secs_f64() * 1000.0);
    line.put("gap_ms", gap.as_secs_f64() * 1000.0);
    line.put("refused", errors as f64);
    line.put("acknowledged", times.len() as f64);
    line.print();
    Ok(())
}

async fn reassign(site: &Site, name: &str, to: &[i32]) -> io::Result<()> {
    let mut links = Links::new(site);
    let nodes = to.iter().map(|node| BrokerId(*node)).collect();
    let partition = ReassignablePartition::default().with_partition_index(0).with_replicas(Some(nodes));
    let moved = ReassignableTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]).with_timeout_ms(30_000);
    let answer = links.ask(0, &request, Duration::from_secs(30)).await?;
    let codes = answer.responses.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
    if let Some(code) = std::iter::once(answer.error_code).chain(codes).find(|code| *code != 0) {
        return Err(unexpected("AlterPartitionReassignments", code));
    }
    let (list, deadline) =
        (ListPartitionReassignmentsRequest::default().with_timeout_ms(5000), Instant::now() + LONGEST);
    let mut elected = false;
    while Instant::now() < deadline {
        let going_on = !links.ask(0, &list, LIMIT).await?.topics.is_empty();
        let leader = links.look(name, LIMIT).await?.partitions.first().map(|p| p.leader);
        match (going_on, leader == to.first().copied()) {
            (false, true) => return Ok(()),
            // A leader that stays in the set keeps leading until it is told to stop.
            (false, false) if !elected => {
                let election = ElectLeadersRequest::default().with_election_type(0).with_timeout_ms(30_000);
                links.ask(2, &election.with_topic_partitions(None), LIMIT).await?;
                elected = true;
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
    Err(io::Error::other(format!("{name} did not move in {LONGEST:?}")))
}

/// Writes a record, waits for its acknowledgement, and so on; the attempts that failed.
async fn produce(
    site: &Site,
    name: &str,
    pause: Duration,
    over: &Cell<bool>,
    acknowledged: &RefCell<Vec<Instant>>,
) -> u64 {
    let (mut links, mut leader, mut errors) = (Links::new(site), None, 0);
    let record = batch::encode(&crate::values(1024, 1024, 0), NO_PRODUCER, -1, now_ms());
    let request = produce_request(name, -1, vec![(0, record)]);
    while !over.get() {
        let address = match leader {
            Some(address) => address,
            None => match links.look(name, LIMIT).await.ok().and_then(|view| view.leader_of(0)) {
                Some(address) => *leader.insert(address),
                None => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            },
        };
        let answer = links.call(address, 9, &request, LIMIT).await;
        let code = answer.ok().and_then(|a| Some(a.responses.first()?.partition_responses.first()?.error_code));
        match code {
            Some(0) => {
                acknowledged.borrow_mut().push(Instant::now());
                tokio::time::sleep(pause).await;
            }
            _ => {
                errors += 1;
                leader = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    errors
}
