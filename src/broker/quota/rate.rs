//! How much of a quota is used: a rate over a sliding window, and a bucket of tokens, measured as Kafka measures them
//! (KIP-13, KIP-599), so that a limit set for Kafka means the same here.
//!
//! Pure: the time is an argument, in milliseconds of a clock that never goes back.

use std::collections::VecDeque;

/// The window over which a rate is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Samples that the window consists of, the one under way included (`quota.window.num`); at least 1.
    pub samples: u32,
    /// Length of each (`quota.window.size.seconds`); at least 1.
    pub sample_ms: u64,
}

impl Window {
    pub const KAFKA: Window = Window { samples: 11, sample_ms: 1_000 };

    fn whole_ms(self) -> u64 {
        u64::from(self.samples).saturating_mul(self.sample_ms)
    }

    /// Seconds of the samples that are complete: what a rate is at least divided by.
    pub fn complete_seconds(self) -> f64 {
        self.sample_ms as f64 / 1e3 * f64::from(self.samples.saturating_sub(1))
    }

    fn whole_seconds(self) -> f64 {
        self.whole_ms() as f64 / 1e3
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    began_ms: u64,
    last_ms: u64,
    value: f64,
}

/// What was recorded within the window.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// The oldest first; at most one more than the window's samples.
    samples: VecDeque<Sample>,
}

impl Rate {
    /// Adds `value`; a negative one takes back what was added before.
    pub fn record(&mut self, window: Window, value: f64, now_ms: u64) {
        self.drop_old(window, now_ms);
        match self.samples.back_mut().filter(|sample| now_ms.saturating_sub(sample.began_ms) < window.sample_ms) {
            Some(sample) => {
                sample.value += value;
                sample.last_ms = now_ms;
            }
            None => self.samples.push_back(Sample { began_ms: now_ms, last_ms: now_ms, value }),
        }
    }

    /// Milliseconds of silence that bring the rate down to `quota` a second; None while it is not above.
    ///
    /// With an observed rate O, a target T and a window W the silence X has to make O · W / (W + X) = T.
    pub fn throttle_ms(&mut self, window: Window, quota: f64, now_ms: u64) -> Option<u64> {
        self.drop_old(window, now_ms);
        let window_ms = self.window_ms(window, now_ms) as f64;
        let rate = self.samples.iter().map(|sample| sample.value).sum::<f64>() / (window_ms / 1e3);
        // As a conversion of Rust's saturates, no quota is too small.
        (rate > quota).then(|| ((rate - quota) / quota * window_ms).round() as u64)
    }

    /// Whether nothing is left that counts.
    pub fn is_at_rest(&self, window: Window, now_ms: u64) -> bool {
        self.samples.back().is_none_or(|newest| is_old(newest, window, now_ms))
    }

    fn drop_old(&mut self, window: Window, now_ms: u64) {
        while self.samples.pop_front_if(|sample| is_old(sample, window, now_ms)).is_some() {}
    }

    /// The time that the samples cover, but never less than the complete samples of the window: a client that has just
    /// come has not used up its quota by its first request.
    fn window_ms(&self, window: Window, now_ms: u64) -> u64 {
        let elapsed = self.samples.front().map_or(0, |oldest| now_ms.saturating_sub(oldest.began_ms));
        let complete = elapsed / window.sample_ms.max(1);
        let missing = u64::from(window.samples.saturating_sub(1)).saturating_sub(complete);
        elapsed.saturating_add(missing.saturating_mul(window.sample_ms)).max(1)
    }
}

fn is_old(sample: &Sample, window: Window, now_ms: u64) -> bool {
    now_ms.saturating_sub(sample.last_ms) >= window.whole_ms()
}

/// Tokens that come at the rate of a quota, for what comes in bursts. As many as the quota gives in a whole window are
/// kept; a debt is allowed once.
#[derive(Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    refilled_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(window: Window, quota: f64, now_ms: u64) -> Bucket {
        Bucket { tokens: quota * window.whole_seconds(), refilled_ms: now_ms }
    }

    pub fn take(&mut self, window: Window, quota: f64, tokens: f64, now_ms: u64) {
        self.refill(window, quota, now_ms);
        self.tokens = (self.tokens - tokens).min(quota * window.whole_seconds());
    }

    /// Milliseconds until the debt is paid; None without one.
    pub fn throttle_ms(&mut self, window: Window, quota: f64, now_ms: u64) -> Option<u64> {
        self.refill(window, quota, now_ms);
        (self.tokens < 0.0).then(|| (-self.tokens / quota * 1e3).round() as u64)
    }

    fn refill(&mut self, window: Window, quota: f64, now_ms: u64) {
        let seconds = now_ms.saturating_sub(self.refilled_ms) as f64 / 1e3;
        self.tokens = (self.tokens + quota * seconds).min(quota * window.whole_seconds());
        self.refilled_ms = self.refilled_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window::KAFKA;

    #[test]
    fn a_first_burst_is_measured_over_the_complete_window() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 10_000.0, 50_000);
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 50_000), None, "10,000 in ten seconds are allowed");
        rate.record(WINDOW, 1_000.0, 50_000);
        // 1,100 a second over ten seconds: a tenth of the window too much.
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 50_000), Some(1_000));
        rate.record(WINDOW, -1_000.0, 50_000);
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 50_000), None);
    }

    #[test]
    fn after_the_silence_the_rate_is_the_quota() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 15_000.0, 0);
        let wait = rate.throttle_ms(WINDOW, 1_000.0, 0).unwrap();
        assert_eq!(wait, 5_000);
        // The time within a window of ten complete samples changes nothing: that is Kafka's measure.
        assert!(rate.throttle_ms(WINDOW, 1_000.0, 9_999).is_some());
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 11_000), None, "the burst has left the window");
    }

    #[test]
    fn a_steady_client_within_its_quota_is_never_throttled() {
        let (mut rate, mut now_ms) = (Rate::default(), 1_000_000);
        for _ in 0..10_000 {
            rate.record(WINDOW, 100.0, now_ms);
            // One request more than ten seconds hold may fall into them.
            assert_eq!(rate.throttle_ms(WINDOW, 1_010.0, now_ms), None, "at {now_ms}");
            assert!(rate.samples.len() <= WINDOW.samples as usize + 1);
            now_ms += 100;
        }
    }

    /// Who waits as long as it is told comes through at its quota in the long run.
    #[test]
    fn a_greedy_client_gets_its_quota_and_no_more() {
        for (bytes, quota) in [(1_000.0, 10_000.0), (100_000.0, 10_000.0), (1_000_000.0, 50_000.0)] {
            let (mut rate, mut now_ms, mut sent) = (Rate::default(), 0, 0.0);
            while now_ms < 600_000 {
                rate.record(WINDOW, bytes, now_ms);
                sent += bytes;
                now_ms += 1 + rate.throttle_ms(WINDOW, quota, now_ms).unwrap_or(0);
            }
            let share = sent / (quota * 600.0);
            assert!((0.9..1.2).contains(&share), "{share} of the quota with {bytes} at {quota}");
        }
    }

    #[test]
    fn a_rate_comes_to_rest_and_nothing_overflows() {
        let mut rate = Rate::default();
        assert!(rate.is_at_rest(WINDOW, 0));
        rate.record(WINDOW, f64::MAX, 5);
        assert!(!rate.is_at_rest(WINDOW, 11_004));
        assert!(rate.is_at_rest(WINDOW, 11_005));
        assert_eq!(rate.throttle_ms(WINDOW, f64::MIN_POSITIVE, 6), Some(u64::MAX));
        assert_eq!(rate.throttle_ms(WINDOW, 1.0, u64::MAX), None);
        let odd = Window { samples: 1, sample_ms: 1 };
        rate.record(odd, 2.0, u64::MAX);
        assert!(rate.throttle_ms(odd, 1.0, u64::MAX).is_some());
    }

    /// The example in KIP-599: 5 a second, 100 samples of a second, a burst of 560.
    #[test]
    fn a_bucket_pays_its_debt_at_the_rate_of_the_quota() {
        let window = Window { samples: 100, sample_ms: 1_000 };
        let mut bucket = Bucket::full(window, 5.0, 1_000);
        bucket.take(window, 5.0, 560.0, 1_000);
        assert_eq!(bucket.throttle_ms(window, 5.0, 1_000), Some(12_000));
        assert_eq!(bucket.throttle_ms(window, 5.0, 7_000), Some(6_000));
        assert_eq!(bucket.throttle_ms(window, 5.0, 13_000), None);
        assert_eq!(bucket.throttle_ms(window, 5.0, 12_000), None, "a clock that goes back gives and takes nothing");
    }

    #[test]
    fn a_bucket_holds_one_window() {
        let mut bucket = Bucket::full(WINDOW, 2.0, 0);
        bucket.take(WINDOW, 2.0, 22.0, 1_000_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 1_000_000), None, "exactly empty is no debt");
        bucket.take(WINDOW, 2.0, 1.0, 1_000_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 1_000_000), Some(500));
        assert_eq!(bucket.throttle_ms(WINDOW, 1.0, 1_000_000), Some(1_000), "a changed quota counts at once");
    }
}
