//! Time as a value.
//!
//! The wall clock dates records and log lines and decides nothing about safety; leases use the boot-time clock,
//! which goes on while the machine sleeps and never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch; negative before 1970. It may jump either way.
    fn wall_ms(&self) -> i64;

    /// Time since the machine started, sleep included (CLOCK_BOOTTIME); it never goes back.
    fn boottime(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        }
    }

    fn boottime(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// Measures how long something took, for metrics and log lines only: no decision may rest on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Whole microseconds since the start.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clocks_give_plausible_times() {
        let clock = SystemClock;
        assert!(clock.wall_ms() > 1_600_000_000_000, "after 2020");
        let earlier = clock.boottime();
        assert!(!earlier.is_zero());
        assert!(clock.boottime() >= earlier);
    }
}
