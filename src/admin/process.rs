//! Metrics of the process itself, from `/proc/self`, which stays readable under systemd's `ProcSubset=pid`.
//!
//! A file that cannot be read leaves its metrics out; nothing here fails.

use std::fs;

use super::metrics::{Collect, MetricsWriter};
use crate::env::Clock;

/// In which the kernel counts for programs (USER_HZ), the same on every kernel for this processor.
const TICKS_PER_SECOND: f64 = 100.0;
/// Field of `/proc/self/stat` after the command, counted from 0 there: user time, in ticks.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
/// Ticks from the machine's start to that of the process.
const START_TICKS: usize = 19;

/// Reads this process.
pub struct ProcessMetrics {
    start_seconds: Option<f64>,
}

impl ProcessMetrics {
    /// The clock dates the start of the process, once: the wall clock may jump later.
    pub fn new(clock: &dyn Clock) -> Self {
        let now = clock.wall_ms() as f64 / 1000.0;
        let started = stat().and_then(|stat| ticks(&stat, START_TICKS));
        ProcessMetrics { start_seconds: started.map(|started| now - clock.boottime().as_secs_f64() + started) }
    }
}

impl Collect for ProcessMetrics {
    fn collect(&self, out: &mut MetricsWriter) {
        if let Some(stat) = stat()
            && let (Some(user), Some(system)) = (ticks(&stat, USER_TICKS), ticks(&stat, SYSTEM_TICKS))
        {
            out.counter("process_cpu_seconds_total", "Processor time used, in seconds.", user + system);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = number_after(&status, "VmRSS:") {
            out.gauge("process_resident_memory_bytes", "Memory in use, in bytes.", kib.saturating_mul(1024));
        }
        if let Some(kib) = number_after(&status, "VmSize:") {
            out.gauge("process_virtual_memory_bytes", "Address space in use, in bytes.", kib.saturating_mul(1024));
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            out.gauge("process_open_fds", "Open file descriptors.", open.count().saturating_sub(1));
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = number_after(&limits, "Max open files") {
            out.gauge("process_max_fds", "Most file descriptors that may be open.", most);
        }
        if let Some(start) = self.start_seconds {
            out.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.", start);
        }
    }
}

/// The fields of `/proc/self/stat` after the command, which may hold spaces and brackets itself.
fn stat() -> Option<Vec<String>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

/// A field that counts clock ticks, in seconds.
fn ticks(fields: &[String], index: usize) -> Option<f64> {
    let count: u64 = fields.get(index)?.parse().ok()?;
    Some(count as f64 / TICKS_PER_SECOND)
}

/// The number that follows a name at the beginning of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemClock;

    #[test]
    fn this_process_is_measured() {
        let mut out = MetricsWriter::new();
        ProcessMetrics::new(&SystemClock).collect(&mut out);
        let text = out.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let age = SystemClock.wall_ms() as f64 / 1000.0 - value("process_start_time_seconds");
        assert!((-1.0..3600.0).contains(&age), "{age}");
    }
}
