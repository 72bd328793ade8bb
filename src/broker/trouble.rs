//! What fails again and again is said at first, and from then on once a minute with how often: a log full of one sentence
//! hides the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From one time that something is said to the next.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What was said when, by what failed.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<&'static str, Trouble>>);

#[derive(Debug)]
struct Trouble {
    /// CLOCK_BOOTTIME.
    said_at: Duration,
    /// Failures since then.
    unsaid: u64,
}

impl Troubles {
    /// `what` has failed. If that is to be said now, how many failures before this one were not.
    pub fn failed(&self, what: &'static str, now: Duration) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trouble) = known.get_mut(what) else {
            known.insert(what, Trouble { said_at: now, unsaid: 0 });
            return Some(0);
        };
        if now.saturating_sub(trouble.said_at) < SAY_EVERY {
            trouble.unsaid += 1;
            return None;
        }
        trouble.said_at = now;
        Some(std::mem::take(&mut trouble.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_a_minute_with_the_number_of_the_others() {
        let (troubles, at) = (Troubles::default(), Duration::from_secs);
        assert_eq!(troubles.failed("the sweep", at(100)), Some(0));
        for second in [100, 105, 159] {
            assert_eq!(troubles.failed("the sweep", at(second)), None);
        }
        assert_eq!(troubles.failed("merging", at(159)), Some(0), "of another kind");
        assert_eq!(troubles.failed("the sweep", at(160)), Some(3));
        assert_eq!(troubles.failed("the sweep", at(161)), None);
        assert_eq!(troubles.failed("the sweep", at(300)), Some(1));
    }
}
