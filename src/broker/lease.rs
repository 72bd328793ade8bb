//! The right to answer clients: lent to this process by the quorum's leader for a short time, again and again.
//!
//! A lease runs from the moment at which the request for it was sent, or from a little before, as the leader says, by CLOCK_BOOTTIME,
//! which goes on while a process or a machine is paused. So it ends here before a leader, who counts from the moment at which
//! it was asked, can take this process for dead. The node that leads the quorum needs nobody's leave, for as long as it is certain
//! that nobody else was elected: so its right ends with its leadership, and whoever is elected next need not wait for it.
//!
//! This decides availability only. That nothing is lost or doubled when two processes take themselves for leaders follows
//! from the rules of ledgers and from broker epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::BrokerEpoch;
use crate::env::Clock;

/// How long a lease holds.
pub const LEASE: Duration = Duration::from_secs(2);

/// Whether this node leads the quorum, and nobody else can have been elected yet.
pub type IsLeader = Box<dyn Fn() -> bool + Send + Sync>;

/// See the module's documentation. Cheap to ask.
pub struct Lease {
    clock: Arc<dyn Clock>,
    is_leader: IsLeader,
    /// CLOCK_BOOTTIME in nanoseconds.
    until: AtomicU64,
    lost: AtomicBool,
    epoch: watch::Sender<Option<BrokerEpoch>>,
}

impl Lease {
    pub fn new(clock: Arc<dyn Clock>, is_leader: IsLeader) -> Arc<Lease> {
        let (until, lost, epoch) = (AtomicU64::new(0), AtomicBool::new(false), watch::Sender::new(None));
        Arc::new(Lease { clock, is_leader, until, lost, epoch })
    }

    /// The process has its broker epoch: from now on it asks for leases.
    pub fn registered(&self, epoch: BrokerEpoch) {
        self.epoch.send_replace(Some(epoch));
    }

    /// The broker epoch of this process, once it has one.
    pub fn epoch(&self) -> watch::Receiver<Option<BrokerEpoch>> {
        self.epoch.subscribe()
    }

    /// A lease was granted that counts from `since` (CLOCK_BOOTTIME).
    pub fn granted(&self, since: Duration) {
        self.until.fetch_max(nanos(since + LEASE), Ordering::Relaxed);
    }

    /// The process is fenced: it answers nothing any more, whatever is granted.
    pub fn lost(&self) {
        self.epoch.send_replace(None);
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether this process may give answers at this moment.
    pub fn is_valid(&self) -> bool {
        let lent = nanos(self.clock.boottime()) < self.until.load(Ordering::Relaxed);
        !self.lost.load(Ordering::Relaxed) && (lent || (self.is_leader)())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let leads = Arc::new(AtomicBool::new(true));
        let asked = leads.clone();
        let lease = Lease::new(clock.clone(), Box::new(move || asked.load(Ordering::Relaxed)));
        assert!(lease.is_valid(), "the leader's own");
        leads.store(false, Ordering::Relaxed);
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
        leads.store(true, Ordering::Relaxed);
        lease.granted(Duration::from_millis(13_700));
        assert!(!lease.is_valid(), "who was fenced stays so");
    }
}
