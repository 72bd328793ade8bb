//! The right to answer clients: lent to this process by the quorum's leader for a short time, again and again.
//!
//! A lease runs from the moment at which the request for it was sent, by CLOCK_BOOTTIME, which goes on while a process or a
//! machine is paused. So it ends here before the leader, who counts from the moment at which it was asked, can take this
//! process for dead. A node that is its own quorum needs nobody's leave.
//!
//! This decides availability only. That nothing is lost or doubled when two processes take themselves for leaders follows
//! from the rules of ledgers and from broker epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::BrokerEpoch;
use crate::env::Clock;

/// How long a lease holds, from the sending of the request for it.
pub const LEASE: Duration = Duration::from_secs(2);

/// Whether this node is a quorum of its own, and leads it.
pub type IsAlone = Box<dyn Fn() -> bool + Send + Sync>;

/// See the module's documentation. Cheap to ask.
pub struct Lease {
    clock: Arc<dyn Clock>,
    is_alone: IsAlone,
    /// CLOCK_BOOTTIME in nanoseconds.
    until: AtomicU64,
    epoch: watch::Sender<Option<BrokerEpoch>>,
}

impl Lease {
    pub fn new(clock: Arc<dyn Clock>, is_alone: IsAlone) -> Arc<Lease> {
        Arc::new(Lease { clock, is_alone, until: AtomicU64::new(0), epoch: watch::Sender::new(None) })
    }

    /// The process has its broker epoch: from now on it asks for leases.
    pub fn registered(&self, epoch: BrokerEpoch) {
        self.epoch.send_replace(Some(epoch));
    }

    /// The broker epoch of this process, once it has one.
    pub fn epoch(&self) -> watch::Receiver<Option<BrokerEpoch>> {
        self.epoch.subscribe()
    }

    /// What was asked for at `sent` (CLOCK_BOOTTIME) was granted.
    pub fn granted(&self, sent: Duration) {
        self.until.fetch_max(nanos(sent + LEASE), Ordering::Relaxed);
    }

    /// The process is fenced: it answers nothing any more, whatever is granted.
    pub fn lost(&self) {
        self.epoch.send_replace(None);
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether this process may give answers at this moment.
    pub fn is_valid(&self) -> bool {
        nanos(self.clock.boottime()) < self.until.load(Ordering::Relaxed) || (self.is_alone)()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn boottime(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_lease_runs_from_the_moment_of_asking() {
        let clock = Arc::new(Hands(AtomicU64::new(10_000)));
        let alone = Arc::new(AtomicBool::new(true));
        let asked = alone.clone();
        let lease = Lease::new(clock.clone(), Box::new(move || asked.load(Ordering::Relaxed)));
        assert!(lease.is_valid(), "a node alone");
        alone.store(false, Ordering::Relaxed);
        assert!(!lease.is_valid());
        let sent = clock.boottime();
        clock.0.store(11_500, Ordering::Relaxed);
        lease.granted(sent);
        assert!(lease.is_valid());
        clock.0.store(11_999, Ordering::Relaxed);
        assert!(lease.is_valid());
        clock.0.store(12_000, Ordering::Relaxed);
        assert!(!lease.is_valid(), "an answer that took long gives no more than one that came at once");
        lease.granted(Duration::from_millis(11_900));
        lease.granted(Duration::from_millis(11_000));
        clock.0.store(13_800, Ordering::Relaxed);
        assert!(lease.is_valid(), "an older answer that comes late takes nothing away");
        lease.lost();
        assert!(!lease.is_valid());
    }
}
