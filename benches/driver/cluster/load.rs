//! `load`: producers that write to the partitions' leaders, at full speed or at a rate. `fill`: so many bytes, at a rate.

use super::site::{Links, Site};
use super::spent;
use crate::batch::{self, NO_PRODUCER};
use crate::client::{frame, produce_request};
use crate::measure::{self, Latencies, now_ms};
use crate::options::{Options, Window};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

/// How fast one producer sends.
#[derive(Clone, Copy)]
enum Pace {
    /// So many requests without an answer at most.
    InFlight(usize),
    /// So many requests a second, whatever the answers do.
    Rate(f64),
}

/// What one producer does.
#[derive(Clone)]
struct Job {
    address: SocketAddr,
    request: Arc<Vec<u8>>,
    pace: Pace,
    /// At most so many requests.
    most: u64,
    window: Window,
}

/// `--topic NAME --producers N --partitions N --batch BYTES [--record 1024] [--rate BATCHES_PER_SECOND] [--in-flight 5]
/// [--warmup S] [--seconds S]`.
pub async fn run(site: &Site, options: &Options) -> io::Result<()> {
    let window = Window::new(options);
    let (jobs, bytes, records) = jobs(site, options, window, u64::MAX).await?;
    let all = all(site, jobs);
    let spending = async {
        tokio::time::sleep_until(window.begin.into()).await;
        let before = spent(options);
        tokio::time::sleep_until(window.end.into()).await;
        Ok(spent(options).since(&before))
    };
    let (latencies, spent) = tokio::try_join!(all, spending)?;
    let (producers, batch) = (options.number("producers", 1), options.number("batch", 16 << 10));
    let mut line = measure::line(options.text("label", "?"), "produce", producers, batch);
    let how = match options.number("rate", 0) {
        0 => "full speed".to_string(),
        rate => format!("{rate} batches a second"),
    };
    line.text("case", &options.text("case", &format!("three nodes, {producers} × {batch} B, {how}")));
    line.rate(latencies.count() * bytes, latencies.count() * records, window.length());
    line.latencies(&latencies);
    line.spent(&spent, latencies.count() * bytes);
    line.print();
    Ok(())
}

/// `--megabytes N`, and as above: writes them and waits for the last acknowledgement. Prints how long it took.
pub async fn fill(site: &Site, options: &Options) -> io::Result<()> {
    let now = Instant::now();
    let window = Window { begin: now, end: now + Duration::from_secs(3600) };
    let (producers, batch) = (options.number("producers", 1), options.number("batch", 1 << 20));
    let most = (options.number("megabytes", 100) * 1_000_000).div_ceil(batch * producers);
    let (jobs, bytes, _) = jobs(site, options, window, most).await?;
    let latencies = all(site, jobs).await?;
    println!("{{\"bytes\":{},\"seconds\":{:.2}}}", latencies.count() * bytes, now.elapsed().as_secs_f64());
    Ok(())
}

/// A job for each producer; bytes and records of one request.
async fn jobs(site: &Site, options: &Options, window: Window, most: u64) -> io::Result<(Vec<Job>, u64, u64)> {
    let (topic, producers) = (options.text("topic", "bench"), options.number("producers", 1));
    let view = Links::new(site).look(&topic, Duration::from_secs(20)).await?;
    let partitions = view.partitions.len() as u64;
    let values = crate::values(options.number("batch", 16 << 10), options.number("record", 1024), 0);
    let encoded = batch::encode(&values, NO_PRODUCER, -1, now_ms());
    let pace = match options.number("rate", 0) {
        0 => Pace::InFlight(options.number("in-flight", 5) as usize),
        rate => Pace::Rate(rate as f64 / producers as f64),
    };
    let job = |n: u64| {
        // With more partitions than producers each producer has the same one all the time: a leader for each is what counts.
        let partition = (n % partitions) as i32;
        let address = view.leader_of(partition).ok_or_else(|| io::Error::other("a partition has no leader"))?;
        let request = frame(9, &produce_request(&topic, -1, vec![(partition, encoded.clone())]), 1);
        Ok(Job { address, request: Arc::new(request), pace, most, window })
    };
    let jobs = (0..producers).map(job).collect::<io::Result<_>>()?;
    Ok((jobs, encoded.len() as u64, values.len() as u64))
}

async fn all(site: &Site, jobs: Vec<Job>) -> io::Result<Latencies> {
    let each = futures_util::future::try_join_all(jobs.into_iter().map(|job| produce(site, job))).await?;
    let mut all = Latencies::default();
    each.into_iter().for_each(|latencies| all.merge(latencies));
    Ok(all)
}

/// Latencies count from when a request was sent, or was due.
async fn produce(site: &Site, job: Job) -> io::Result<Latencies> {
    let (mut answers, mut requests) = tokio::io::split(site.dial(job.address).await?);
    let room = Arc::new(Semaphore::new(match job.pace {
        Pace::InFlight(depth) => depth,
        Pace::Rate(_) => Semaphore::MAX_PERMITS,
    }));
    let (due, mut dues) = mpsc::unbounded_channel::<Instant>();
    let (window, began, permits) = (job.window, Instant::now(), room.clone());
    let writing = async move {
        for n in 0..job.most {
            let at = match job.pace {
                Pace::Rate(rate) => began + Duration::from_secs_f64(n as f64 / rate),
                Pace::InFlight(_) => began,
            };
            tokio::time::sleep_until(at.into()).await;
            permits.acquire().await.map_err(io::Error::other)?.forget();
            let at = if matches!(job.pace, Pace::Rate(_)) { at } else { Instant::now() };
            if at >= window.end || due.send(at).is_err() {
                break;
            }
            requests.write_all(&job.request).await?;
            requests.flush().await?;
        }
        drop(due);
        Ok(())
    };
    let reading = async move {
        let (mut latencies, mut buffer) = (Latencies::default(), vec![]);
        while let Some(at) = dues.recv().await {
            let length = answers.read_u32().await?;
            buffer.resize(length as usize, 0);
            answers.read_exact(&mut buffer).await?;
            crate::is_acknowledged(&buffer)?;
            room.add_permits(usize::from(matches!(job.pace, Pace::InFlight(_))));
            if window.counts(if matches!(job.pace, Pace::Rate(_)) { at } else { Instant::now() }) {
                latencies.add(at.elapsed());
            }
        }
        Ok::<_, io::Error>(latencies)
    };
    let ((), latencies) = tokio::try_join!(writing, reading)?;
    Ok(latencies)
}
