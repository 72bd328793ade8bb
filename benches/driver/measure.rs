//! Numbers of a run: latencies, what the broker's process spent, and the line of JSON that holds them.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clock ticks of /proc/PID/stat; the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Latencies in microseconds.
#[derive(Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(latency.as_micros().min(u32::MAX.into()) as u32);
    }

    pub fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// In milliseconds; the share is between 0 and 1.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        percentile_of(&sorted, share)
    }
}

fn percentile_of(sorted: &[u32], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
}

/// A process that is watched through /proc, or none.
#[derive(Clone, Copy)]
pub struct Process(Option<u64>);

/// Sums since the process began.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    pub cpu_seconds: f64,
    pub written_bytes: u64,
}

impl Spent {
    pub fn since(&self, before: &Spent) -> Spent {
        Spent {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

impl Process {
    pub fn of(pid: u64) -> Process {
        Process((pid != 0).then_some(pid))
    }

    fn read(&self, file: &str) -> String {
        self.0.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()).unwrap_or_default()
    }

    pub fn now(&self) -> Spent {
        let stat = self.read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        let io = self.read("io");
        let written = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0);
        Spent { cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND, written_bytes: written }
    }

    /// Waits for both moments; what was spent between them.
    pub fn spent_between(&self, begin: Instant, end: Instant) -> Spent {
        std::thread::sleep(begin.saturating_duration_since(Instant::now()));
        let before = self.now();
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        self.now().since(&before)
    }

    /// Memory of its own plus its part of what it shares.
    pub fn pss_kib(&self) -> u64 {
        let rollup = self.read("smaps_rollup");
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

/// What Casemate's admin listener has under /metrics, by name; of those with labels the last one stands.
pub fn scrape(admin: SocketAddr) -> io::Result<BTreeMap<String, f64>> {
    let mut socket = TcpStream::connect(admin)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let lines = answer.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(lines.filter_map(|(name, value)| Some((name.split('{').next()?.to_string(), value.parse().ok()?))).collect())
}

/// One measurement.
pub struct Line(Map<String, Value>);

pub fn line(label: String, what: &str, clients: u64, batch_bytes: u64) -> Line {
    let fields =
        [("label", json!(label)), ("what", json!(what)), ("clients", json!(clients)), ("batch", json!(batch_bytes))];
    Line(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

impl Line {
    pub fn text(&mut self, name: &str, value: &str) {
        self.0.insert(name.into(), json!(value));
    }

    pub fn put(&mut self, name: &str, value: f64) {
        self.0.insert(name.into(), json!((value * 1000.0).round() / 1000.0));
    }

    /// Megabytes are 10^6 bytes.
    pub fn rate(&mut self, bytes: u64, records: u64, elapsed: Duration) {
        self.put("mb_per_s", bytes as f64 / 1e6 / elapsed.as_secs_f64());
        self.put("records_per_s", records as f64 / elapsed.as_secs_f64());
    }

    pub fn latencies(&mut self, latencies: &Latencies) {
        let mut sorted = latencies.0.clone();
        sorted.sort_unstable();
        for (name, share) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)] {
            self.put(name, percentile_of(&sorted, share));
        }
    }

    pub fn spent(&mut self, spent: &Spent, bytes: u64) {
        self.put("cpu_s", spent.cpu_seconds);
        self.put("cpu_s_per_gb", spent.cpu_seconds / (bytes as f64 / 1e9));
        self.put("written_per_byte", spent.written_bytes as f64 / bytes as f64);
    }

    pub fn print(self) {
        println!("{}", Value::Object(self.0));
    }
}
