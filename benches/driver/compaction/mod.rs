//! A compacted topic under a steady load of keyed records: what producers notice of the cleaner, what it costs, and
//! whether it keeps up.
//!
//! The load is an open loop; latencies count from when a batch was due. How far the cleaner is behind is told by the
//! size of the topic, which without a backlog is that of one record for each key. In the end the topic is read: the
//! newest record of every key must be there, as it was written last.

mod load;
mod reader;

use crate::client::{Client, text, topic};
use crate::measure::{self, Process, Spent, scrape};
use crate::options::{Options, Window};
use kafka_protocol::messages::*;
use load::Load;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two looks at the size of the topic.
const LOOK: Duration = Duration::from_secs(1);
/// How long the cleaner may go on after the load has ended.
const CATCH_UP: Duration = Duration::from_secs(180);
/// No pass of the cleaner in so long: it has caught up.
const QUIET: Duration = Duration::from_secs(8);

/// Sums of the cleaner since the process began, by the names of Casemate's metrics; empty for other brokers.
type Cleaner = BTreeMap<&'static str, f64>;
const COUNTERS: [(&str, &str); 4] = [
    ("passes", "casemate_log_cleaner_passes_total"),
    ("read", "casemate_log_cleaner_read_bytes_total"),
    ("written", "casemate_log_cleaner_written_bytes_total"),
    ("reclaimed", "casemate_log_cleaner_reclaimed_bytes_total"),
];

/// What was seen while the load ran.
struct Seen {
    spent: Spent,
    cleaner: Cleaner,
    /// Bytes of the topic, at each look.
    sizes: Vec<u64>,
}

/// The command `compaction`.
pub fn run(options: &Options) -> io::Result<()> {
    let partitions = options.number("partitions", 1) as i32;
    let policy = options.text("policy", "compact");
    let configs = options.text("configs", "");
    let mut topic_configs = vec![("cleanup.policy", policy.as_str())];
    topic_configs.extend(configs.split(',').filter_map(|pair| pair.split_once('=')));
    let name = crate::ready_topic(options, &options.text("topic", "compaction"), partitions, &topic_configs)?;
    let load = Load::new(options, &name, partitions);
    let window = Window::new(options);
    let admin = options.address("admin");
    let (latencies, seen) = std::thread::scope(|scope| -> io::Result<_> {
        let load = &load;
        let producer = scope.spawn(move || load.run(window));
        let seen = watch(options, &name, window)?;
        Ok((producer.join().expect("the producer does not panic")?, seen))
    })?;
    let caught_up = admin.filter(|_| policy == "compact").map(catch_up).transpose()?;
    let all = counters(admin)?;
    let bytes_read = reader::verify(options.bootstrap(), &load)?;
    let mut line = measure::line(options.text("label", "?"), "compaction", load.keys(), load.batch_bytes());
    line.text("case", &format!("{} MB/s, {} keys of {} B", load.rate_mb, load.keys(), load.record));
    line.rate(latencies.count() * load.batch_bytes(), latencies.count() * load.records_each(), window.length());
    line.latencies(&latencies);
    let seconds = window.length().as_secs_f64();
    line.put("cpu_ms_per_s", seen.spent.cpu_seconds * 1000.0 / seconds);
    for (name, _) in COUNTERS {
        line.put(&format!("cleaner_{name}"), seen.cleaner.get(name).copied().unwrap_or(0.0));
    }
    let reclaimed = all.get("reclaimed").copied().unwrap_or(0.0);
    if reclaimed > 0.0 {
        line.put("written_per_reclaimed", all["written"] / reclaimed);
    }
    let (first, second) = seen.sizes.split_at(seen.sizes.len() / 2);
    let most = |sizes: &[u64]| sizes.iter().max().map_or(f64::NAN, |bytes| *bytes as f64 / 1e6);
    line.put("live_mb", load.live_bytes() as f64 / 1e6);
    line.put("size_mb_first_half", most(first));
    line.put("size_mb_second_half", most(second));
    line.put("catch_up_s", caught_up.map_or(f64::NAN, |took| took.as_secs_f64()));
    line.put("size_mb_at_end", bytes_read as f64 / 1e6);
    line.print();
    Ok(())
}

/// Looks at the process, the cleaner and the topic until the window ends.
fn watch(options: &Options, name: &str, window: Window) -> io::Result<Seen> {
    let process = Process::of(options.number("pid", 0));
    let (mut client, admin) = (Client::connect(options.bootstrap())?, options.address("admin"));
    std::thread::sleep(window.begin.saturating_duration_since(Instant::now()));
    let (before, cleaner_before) = (process.now(), counters(admin)?);
    let mut sizes = vec![];
    while Instant::now() + LOOK < window.end {
        std::thread::sleep(LOOK);
        sizes.push(size_of(&mut client, name)?);
    }
    std::thread::sleep(window.end.saturating_duration_since(Instant::now()));
    let spent = process.now().since(&before);
    let cleaner = counters(admin)?.into_iter().map(|(n, sum)| (n, sum - cleaner_before[n])).collect();
    Ok(Seen { spent, cleaner, sizes })
}

fn counters(admin: Option<SocketAddr>) -> io::Result<Cleaner> {
    let Some(admin) = admin else { return Ok(Cleaner::new()) };
    let metrics = scrape(admin)?;
    let counter = |name: &str| metrics.get(name).copied();
    COUNTERS
        .iter()
        .map(|(short, name)| Ok((*short, counter(name).ok_or_else(|| io::Error::other(format!("no metric {name}")))?)))
        .collect()
}

/// Waits until the cleaner has nothing more to do; how long it took.
fn catch_up(admin: SocketAddr) -> io::Result<Duration> {
    let began = Instant::now();
    let (mut last, mut changed) = (counters(Some(admin))?, began);
    while began.elapsed() < CATCH_UP {
        std::thread::sleep(LOOK);
        let now = counters(Some(admin))?;
        if now != last {
            (last, changed) = (now, Instant::now());
        }
        if changed.elapsed() > QUIET {
            return Ok(changed - began);
        }
    }
    Err(io::Error::other(format!("the cleaner does not come to rest in {CATCH_UP:?}")))
}

/// Bytes of the topic, by DescribeLogDirs.
fn size_of(client: &mut Client, name: &str) -> io::Result<u64> {
    let asked = describe_log_dirs_request::DescribableLogDirTopic::default().with_topic(topic(name));
    let partitions = client.metadata(&[name])?.topics.first().map_or(0, |t| t.partitions.len() as i32);
    let asked = asked.with_partitions((0..partitions).collect());
    let answer = client.call(4, &DescribeLogDirsRequest::default().with_topics(Some(vec![asked])))?;
    let topics = answer.results.iter().flat_map(|dir| &dir.topics).filter(|t| t.name.0 == text(name));
    Ok(topics.flat_map(|t| &t.partitions).map(|p| p.partition_size.max(0) as u64).sum())
}
