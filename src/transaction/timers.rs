//! What happens by itself: transactions time out, transactional ids expire, requests have waited long enough.
//!
//! Durations are measured by the monotonic clock, so that a jump of the wall clock aborts nothing.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::coordinator::{Call, Coordinator};
use super::state::State;
use super::{Effects, Error, Now, Reply};

/// Transactional ids that one call looks at for expiration: the rest is for the next call.
const EXPIRATION_SCAN: usize = 10_000;

impl Coordinator {
    /// Does what is due. Call it when `next_deadline` has come; to call it too early is harmless.
    pub fn on_timer(&mut self, now: Now, producer_ids: &mut dyn FnMut() -> Option<i64>) -> Effects {
        let mut call = Call::new(now, producer_ids);
        while let Some(token) = self.parking.pop_expired(now.monotonic_ms()) {
            call.reply(token, Reply::AddPartitions(Err(Error::ConcurrentTransactions)));
        }
        while self.has_room(&call)
            && let Some(id) = self.unfinished.pop_front()
        {
            self.complete(&mut call, &id);
        }
        self.abort_timed_out(&mut call);
        self.expire(&mut call);
        call.effects
    }

    /// The moment, by the monotonic clock, of the next `on_timer`; one in the past means at once.
    pub fn next_deadline(&self) -> Option<Duration> {
        let unfinished = (!self.unfinished.is_empty()).then_some(0);
        let parked = self.parking.next_end_ms();
        let abort = self.open.first().map(|(at, _)| {
            let interval = milliseconds(self.options.abort_check_interval);
            next_tick(self.next_abort_check_ms, interval, *at)
        });
        let expiration = match (&self.expiration_cursor, self.entries.is_empty()) {
            (Some(_), _) => Some(0),
            (None, false) => Some(self.next_expiration_check_ms),
            (None, true) => None,
        };
        let first = [unfinished, parked, abort, expiration].into_iter().flatten().min();
        first.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    }

    fn abort_timed_out(&mut self, call: &mut Call<'_>) {
        let now_ms = call.now.monotonic_ms();
        if now_ms < self.next_abort_check_ms {
            return;
        }
        let due: Vec<Arc<str>> =
            self.open.iter().take_while(|(at, _)| *at < now_ms).map(|(_, id)| Arc::clone(id)).collect();
        for id in due {
            if !self.has_room(call) {
                return;
            }
            // Refused only for want of a producer id: it stays due for the next check.
            let _ = self.fence(call, &id);
        }
        let interval = milliseconds(self.options.abort_check_interval);
        self.next_abort_check_ms = next_tick(self.next_abort_check_ms, interval, now_ms);
    }

    fn expire(&mut self, call: &mut Call<'_>) {
        let now_ms = call.now.monotonic_ms();
        if self.expiration_cursor.is_none() && now_ms < self.next_expiration_check_ms {
            return;
        }
        let mut cursor = self.expiration_cursor.take();
        let start = cursor.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let idle_since_ms = now_ms.saturating_sub(self.options.id_expiration_ms);
        let mut expired: Vec<Arc<str>> = vec![];
        let mut reached_end = true;
        let rest = self.entries.range::<Arc<str>, _>((start, Bound::Unbounded));
        for (scanned, (id, entry)) in rest.enumerate() {
            if scanned == EXPIRATION_SCAN || !self.has_room(call) {
                reached_end = false;
                break;
            }
            cursor = Some(Arc::clone(id));
            let idle = matches!(entry.transaction.state, State::Empty | State::CompleteCommit | State::CompleteAbort);
            if idle && entry.since_ms <= idle_since_ms {
                call.write(id, None);
                expired.push(Arc::clone(id));
            }
        }
        if reached_end {
            let interval = milliseconds(self.options.expiration_check_interval);
            self.next_expiration_check_ms = next_tick(self.next_expiration_check_ms, interval, now_ms);
        } else {
            self.expiration_cursor = cursor;
        }
        expired.iter().for_each(|id| {
            self.entries.remove(id);
        });
    }
}

fn milliseconds(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// The first moment after `after` on the grid of `interval` that `tick` is on, and not before `tick`.
fn next_tick(tick: i64, interval: i64, after: i64) -> i64 {
    if after < tick {
        return tick;
    }
    let steps = after.saturating_sub(tick) / interval + 1;
    tick.saturating_add(steps.saturating_mul(interval))
}
