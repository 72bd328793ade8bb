//! Keeps a refusal that repeats from filling the log: the same one is admitted once a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the same complaint stays silent.
const QUIET: Duration = Duration::from_secs(60);
/// Different complaints that are remembered; while so many are fresh, further ones are not logged.
const REMEMBERED_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Complaints {
    logged: Mutex<HashMap<String, Instant>>,
}

impl Complaints {
    /// Whether this complaint, named by what makes it the same, may be logged now.
    pub fn admits(&self, key: String, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < QUIET) {
            return false;
        }
        if logged.len() >= REMEMBERED_MAX {
            logged.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        }
        let room = logged.len() < REMEMBERED_MAX;
        if room {
            logged.insert(key, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_comes_once_a_minute_and_memory_is_bounded() {
        let (complaints, began) = (Complaints::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(complaints.admits("a".to_owned(), began));
        assert!(!complaints.admits("a".to_owned(), after(59)));
        assert!(complaints.admits("b".to_owned(), after(59)));
        assert!(complaints.admits("a".to_owned(), after(60)));
        for n in 0..2000 {
            let admitted = complaints.admits(format!("flood {n}"), after(61));
            assert_eq!(admitted, n < REMEMBERED_MAX - 2, "{n}");
        }
        assert!(complaints.admits("late".to_owned(), after(200)));
        assert_eq!(complaints.logged.lock().unwrap().len(), 1);
    }
}
