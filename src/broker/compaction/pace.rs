//! How long compaction rests after each step, so that producers and consumers come first.

use std::time::Duration;

/// Rest after a step, in quarters of the time that it took: as long as the step, or a quarter of it where compaction
/// falls behind.
const REST_QUARTERS: u32 = 4;
const REST_QUARTERS_BEHIND: u32 = 1;

/// See the module. Times are those of CLOCK_BOOTTIME.
#[derive(Debug)]
pub(super) struct Pacer {
    /// `log.cleaner.io.max.bytes.per.second`.
    bytes_per_second: Option<u64>,
    /// When the bytes so far are within that rate.
    paid_at: Duration,
    behind: bool,
}

impl Pacer {
    pub fn new(bytes_per_second: Option<u64>, behind: bool) -> Pacer {
        Pacer { bytes_per_second, paid_at: Duration::ZERO, behind }
    }

    /// How long to rest after a step that began at `began`, ended at `now`, and read or wrote `bytes`.
    pub fn rest(&mut self, began: Duration, now: Duration, bytes: u64) -> Duration {
        let quarters = if self.behind { REST_QUARTERS_BEHIND } else { REST_QUARTERS };
        let rest = now.saturating_sub(began) * quarters / 4;
        let Some(rate) = self.bytes_per_second else { return rest };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(began).saturating_add(cost);
        rest.max(self.paid_at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rest_is_as_long_as_the_work_or_shorter_when_it_falls_behind() {
        assert_eq!(Pacer::new(None, false).rest(ms(100), ms(140), 1 << 20), ms(40));
        assert_eq!(Pacer::new(None, true).rest(ms(100), ms(140), 1 << 20), ms(10));
    }

    #[test]
    fn the_rate_holds_over_any_number_of_steps() {
        let mut pacer = Pacer::new(Some(1_000_000), true);
        let (mut now, mut bytes) = (ms(5_000), 0);
        for step in 1..=20u64 {
            let began = now;
            now += ms(step % 7);
            now += pacer.rest(began, now, 10_000 * step);
            bytes += 10_000 * step;
        }
        let elapsed = now - ms(5_000);
        assert!(elapsed >= Duration::from_micros(bytes) && elapsed < Duration::from_micros(bytes) * 11 / 10);
        assert_eq!(Pacer::new(Some(0), false).rest(ms(0), ms(1), 1), ms(999));
    }
}
