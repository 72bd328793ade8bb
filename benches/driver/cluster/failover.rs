//! `failover`: kills the node that leads the metadata quorum, and takes the time until every partition of a topic
//! acknowledges again: `--topic NAME --pids NODE:PID,…`. Without `--pids` it waits for that alone, from `--since` (Unix
//! milliseconds) on.
//!
//! Asks as fast as it is answered: one request to each leader, with a record for each partition that has not acknowledged
//! yet. A partition counts from the kill to the answer that acknowledges it. With `--megabytes` the line says how many of
//! them that is a second.

use super::pids;
use super::site::{Links, Site, View};
use super::topics::led;
use crate::batch::{self, NO_PRODUCER};
use crate::client::produce_request;
use crate::measure::{self, now_ms};
use crate::options::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the answer to a request with all partitions waits for the slowest of them.
const PRODUCE_MS: i32 = 250;
const LIMIT: Duration = Duration::from_millis(1000);
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(180);

pub async fn run(site: &Site, options: &Options) -> io::Result<()> {
    let name = options.text("topic", "bench");
    let mut links = Links::new(site);
    let (pids, mut of_the_killed) = (pids(options), 0);
    let partitions = match pids.is_empty() {
        true => options.number("partitions", 1) as usize,
        false => {
            let (view, controller) = (links.look(&name, LIMIT).await?, links.controller(LIMIT).await?);
            let pid = *pids.get(&controller).ok_or_else(|| io::Error::other("the leader's process is unknown"))?;
            of_the_killed = led(&view).get(&controller).copied().unwrap_or(0);
            let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
            if !killed.success() {
                return Err(io::Error::other(format!("process {pid} cannot be killed")));
            }
            eprintln!("  killed node {controller}");
            view.partitions.len()
        }
    };
    let ago = match options.number("since", 0) {
        0 => Duration::ZERO,
        since => Duration::from_millis((now_ms() as u64).saturating_sub(since)),
    };
    let mut times = acknowledged(site, &name, partitions).await?;
    times.iter_mut().for_each(|time| *time += ago);
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0);
    let mut line = measure::line(options.text("label", "?"), &options.text("what", "failover"), partitions as u64, 0);
    line.text("case", &options.text("case", &format!("{partitions} partitions")));
    line.put("led", of_the_killed as f64);
    line.put("first_ms", ms(0));
    line.put("half_ms", ms(partitions / 2));
    line.put("all_ms", ms(partitions.saturating_sub(1)));
    if let megabytes @ 1.. = options.number("megabytes", 0) {
        line.put("mb_per_s", megabytes as f64 / (ms(partitions.saturating_sub(1)) / 1000.0));
    }
    line.print();
    Ok(())
}

/// When each partition acknowledged a record, from now on.
async fn acknowledged(site: &Site, name: &str, partitions: usize) -> io::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut links = Links::new(site);
    // One connection for each leader of its own: they are asked at once.
    let mut to: BTreeMap<SocketAddr, Links> = BTreeMap::new();
    let mut waiting: BTreeSet<i32> = (0..partitions as i32).collect();
    let mut times = vec![];
    while !waiting.is_empty() {
        if began.elapsed() > LONGEST {
            return Err(io::Error::other(format!("{} partitions acknowledge nothing: {waiting:?}", waiting.len())));
        }
        if let Ok(view) = links.look(name, LIMIT).await {
            let mut asked = by_leader(&view, &waiting);
            for address in asked.keys() {
                to.entry(*address).or_insert_with(|| Links::new(site));
            }
            let each = to.iter_mut().filter_map(|(address, links)| {
                let partitions = asked.remove(address)?;
                Some(one_of_each(links, *address, name, partitions))
            });
            for done in futures_util::future::join_all(each).await.into_iter().flatten() {
                let now = began.elapsed();
                times.extend(done.into_iter().filter(|p| waiting.remove(p)).map(|_| now));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

fn by_leader(view: &View, waiting: &BTreeSet<i32>) -> BTreeMap<SocketAddr, Vec<i32>> {
    let mut asked: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
    for partition in waiting {
        if let Some(address) = view.leader_of(*partition) {
            asked.entry(address).or_default().push(*partition);
        }
    }
    asked
}

/// Writes a record to each partition; those that acknowledged it.
async fn one_of_each(
    links: &mut Links<'_>,
    address: SocketAddr,
    name: &str,
    partitions: Vec<i32>,
) -> io::Result<Vec<i32>> {
    let record = batch::encode(&crate::values(100, 100, 0), NO_PRODUCER, -1, now_ms());
    let batches = partitions.into_iter().map(|partition| (partition, record.clone())).collect();
    let request = produce_request(name, -1, batches).with_timeout_ms(PRODUCE_MS);
    let answer = links.call(address, 9, &request, LIMIT * 5).await?;
    let outcomes = answer.responses.iter().flat_map(|t| &t.partition_responses);
    Ok(outcomes.filter(|p| p.error_code == 0).map(|p| p.index).collect())
}
