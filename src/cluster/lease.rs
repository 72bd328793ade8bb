//! The leases of brokers, as the quorum's leader keeps account of them. Pure: times and images are given.
//!
//! A broker counts its lease from the moment at which it asked, and back from there by the age of the leader's own
//! leadership: the time since the leader began to ask the majority that confirmed it last. Here a lease is counted from the moment at
//! which its broker was heard, which is later, and [`MARGIN`] more. So on this side a lease never ends before it does on the broker's.
//!
//! A new leader does not know what the one before it granted, and counts for everybody. But of the majority that confirmed its
//! predecessor last, one has voted for the new one, and not within [`LEADER_LEASE`] from that confirmation. So what
//! was granted is that much older than the new leadership, and the wait for it begins that much earlier. The predecessor itself
//! lends itself nothing: it answers clients for as long as it leads, which is over by then. So it is fenced [`GRACE`] after the election if
//! it is not heard, unless it may have a lease left from whoever led before it.
//!
//! Once a broker is to be fenced it is granted nothing more by this leader in that epoch, whatever becomes of the command.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::{BrokerEpoch, NodeId};
use crate::broker::{LEASE, Load};
use crate::metadata::Image;
use crate::quorum::LEADER_LEASE;

/// How much longer a lease is counted here: clocks that run at different speeds, and the time between a broker's look at its
/// lease and the answer that it gives then.
pub const MARGIN: Duration = Duration::from_millis(200);

/// How long a new leader waits to hear from its predecessor's broker before it takes it for dead.
pub const GRACE: Duration = Duration::from_millis(500);

/// The leader before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub node: NodeId,
    /// When this node learned that it leads.
    pub since: Duration,
}

/// A process asks for its lease, and says how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub node: NodeId,
    pub epoch: BrokerEpoch,
    /// Bytes of the WAL that are needed, and its budget.
    pub wal_used: u64,
    pub wal_budget: u64,
    pub load: Load,
}

/// What a heartbeat is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// [`LEASE`] from as long before the sending of the heartbeat as this says: the age of the leader's confirmation.
    Granted { age: Duration },
    /// This epoch counts no more: the process has to end.
    Fenced,
    /// Nothing: whoever was asked does not lead, or does not know the broker yet, or is about to fence it.
    NotNow,
}

/// What is known of one broker.
#[derive(Clone, Debug)]
struct Known {
    epoch: BrokerEpoch,
    /// Nothing that it was lent counts from later than this.
    heard: Duration,
    /// It is given time until then to be heard, whatever it was lent.
    excused_until: Duration,
    fencing: bool,
    load: Load,
}

/// The account. All times are of this machine's CLOCK_BOOTTIME.
#[derive(Debug, Default)]
pub struct Leases {
    brokers: BTreeMap<NodeId, Known>,
}

impl Leases {
    /// This node was elected, at `now` or before. What others granted is unknown. `predecessor`: who led in the term
    /// right before, if that is known; none led in between.
    pub fn begin(&mut self, now: Duration, image: &Image, predecessor: Option<Predecessor>) {
        self.excuse(now.saturating_sub(LEADER_LEASE), image);
        let Some(Predecessor { node, since }) = predecessor else { return };
        let Some(known) = self.brokers.get_mut(&node) else { return };
        // Lent by the one before it, who could do so until its votes were given.
        known.heard = since.saturating_sub(LEADER_LEASE);
        known.excused_until = now + GRACE;
    }

    /// This node stood still until `now`: what it was sent may be lost, so nobody's lease has run out yet.
    pub fn begin_anew(&mut self, now: Duration, image: &Image) {
        self.excuse(now, image);
    }

    fn excuse(&mut self, since: Duration, image: &Image) {
        for (node, broker) in &image.brokers {
            let known = self.brokers.entry(*node).or_insert_with(|| Known::new(broker.epoch, since));
            if known.epoch < broker.epoch {
                *known = Known::new(broker.epoch, since);
            }
            known.heard = known.heard.max(since);
            known.fencing = false;
        }
    }

    /// A heartbeat that was received at `now`. `confirmed`: when this node began to ask the majority that has confirmed its
    /// leadership last; none if nobody has, or too long ago.
    pub fn hear(&mut self, now: Duration, confirmed: Option<Duration>, image: &Image, beat: Heartbeat) -> Verdict {
        let Some(confirmed) = confirmed else { return Verdict::NotNow };
        let Some(broker) = image.brokers.get(&beat.node) else { return Verdict::NotNow };
        if beat.epoch < broker.epoch || (beat.epoch == broker.epoch && broker.fenced) {
            return Verdict::Fenced;
        }
        if beat.epoch > broker.epoch {
            // It has registered, and the news of it have not come here yet.
            return Verdict::NotNow;
        }
        let known = self.brokers.entry(beat.node).or_insert_with(|| Known::new(beat.epoch, now));
        if known.epoch != beat.epoch {
            *known = Known::new(beat.epoch, now);
        }
        if known.fencing {
            return Verdict::NotNow;
        }
        known.heard = known.heard.max(now);
        known.load = beat.load;
        Verdict::Granted { age: now.saturating_sub(confirmed) }
    }

    /// The brokers whose lease has certainly run out; from now on they are granted nothing in that epoch. A broker that is seen
    /// for the first time has a whole lease.
    pub fn overdue(&mut self, now: Duration, image: &Image) -> Vec<(NodeId, BrokerEpoch)> {
        self.brokers.retain(|node, _| image.brokers.contains_key(node));
        let mut overdue = Vec::new();
        for (node, broker) in image.brokers.iter().filter(|(_, broker)| !broker.fenced) {
            let known = self.brokers.entry(*node).or_insert_with(|| Known::new(broker.epoch, now));
            if known.epoch < broker.epoch {
                *known = Known::new(broker.epoch, now);
            }
            if known.epoch == broker.epoch && now > (known.heard + LEASE + MARGIN).max(known.excused_until) {
                known.fencing = true;
                overdue.push((*node, broker.epoch));
            }
        }
        overdue
    }

    /// What a broker said last about its load.
    pub fn load(&self, node: NodeId) -> Option<&Load> {
        self.brokers.get(&node).map(|known| &known.load)
    }

    /// How long ago a broker was heard, or was given time to be heard.
    pub fn silence(&self, now: Duration, node: NodeId) -> Option<Duration> {
        let since = |known: &Known| known.heard.max(known.excused_until.saturating_sub(GRACE));
        self.brokers.get(&node).map(|known| now.saturating_sub(since(known)))
    }
}

impl Known {
    fn new(epoch: BrokerEpoch, heard: Duration) -> Known {
        Known { epoch, heard, excused_until: Duration::ZERO, fencing: false, load: Load::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::WalIncarnation;
    use crate::metadata::Broker;
    use proptest::prelude::*;

    fn image(epoch: i64, fenced: bool) -> Image {
        let broker = Broker {
            epoch: BrokerEpoch(epoch),
            incarnation: WalIncarnation([1; 16]),
            boot: 1,
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            fenced,
        };
        Image { brokers: BTreeMap::from([(NodeId(2), broker)]), ..Image::default() }
    }

    fn beat(epoch: i64) -> Heartbeat {
        let (node, epoch) = (NodeId(2), BrokerEpoch(epoch));
        Heartbeat { node, epoch, wal_used: 0, wal_budget: 0, load: Load::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_the_present_epoch_is_granted_anything() {
        let mut leases = Leases::default();
        let image = image(5, false);
        leases.begin(ms(1_000), &image, None);
        let confirmed = Some(ms(1_050));
        let granted = Verdict::Granted { age: ms(50) };
        assert_eq!(leases.hear(ms(1_100), None, &image, beat(5)), Verdict::NotNow, "who does not lead grants nothing");
        assert_eq!(leases.hear(ms(1_100), confirmed, &image, beat(5)), granted);
        assert_eq!(leases.hear(ms(1_100), confirmed, &image, beat(4)), Verdict::Fenced);
        assert_eq!(leases.hear(ms(1_100), confirmed, &image, beat(6)), Verdict::NotNow, "the image is older");
        assert_eq!(leases.hear(ms(1_100), confirmed, &super::tests::image(5, true), beat(5)), Verdict::Fenced);
        assert_eq!(leases.hear(ms(1_100), confirmed, &Image::default(), beat(5)), Verdict::NotNow);
    }

    #[test]
    fn a_silent_broker_is_fenced_after_a_lease_and_a_new_leader_waits_for_what_others_granted() {
        let mut leases = Leases::default();
        let image = image(5, false);
        let (whole, granted) = (LEASE + MARGIN, Verdict::Granted { age: Duration::ZERO });
        let just = ms(1);
        leases.begin(ms(1_000), &image, None);
        assert_eq!(leases.overdue(ms(1_000), &image), []);
        let heard = ms(2_000);
        assert_eq!(leases.hear(heard, Some(heard), &image, beat(5)), granted);
        assert_eq!(leases.overdue(heard + whole, &image), []);
        let over = heard + whole + just;
        assert_eq!(leases.overdue(over, &image), [(NodeId(2), BrokerEpoch(5))]);
        assert_eq!(leases.hear(over, Some(over), &image, beat(5)), Verdict::NotNow, "its fencing is under way");
        assert_eq!(leases.overdue(over + just, &image), [(NodeId(2), BrokerEpoch(5))], "until the image says so");
        // Another leader in between may have granted it something, but not after the votes for this one.
        let elected = ms(10_000);
        leases.begin(elected, &image, None);
        assert_eq!(leases.overdue(elected + whole - LEADER_LEASE, &image), []);
        assert_eq!(leases.overdue(elected + whole - LEADER_LEASE + just, &image).len(), 1);
        // Who stood still takes nothing for overdue that may have been sent meanwhile.
        let back = ms(20_000);
        leases.begin_anew(back, &image);
        assert_eq!(leases.overdue(back + whole, &image), []);
        assert_eq!(leases.overdue(back + whole + just, &image).len(), 1);
        // A new process of the node begins with a lease.
        let image = super::tests::image(6, false);
        assert_eq!(leases.overdue(ms(30_000), &image), []);
        assert_eq!(leases.hear(ms(30_100), Some(ms(30_100)), &image, beat(6)), granted);
    }

    #[test]
    fn the_leader_that_is_gone_is_fenced_soon_after_the_election() {
        let image = image(5, false);
        let (whole, just, elected) = (LEASE + MARGIN, ms(1), ms(60_000));
        let overdue_after = |since: Duration, heard: Option<Duration>| {
            let mut leases = Leases::default();
            leases.begin(elected, &image, Some(Predecessor { node: NodeId(2), since }));
            if let Some(at) = heard {
                assert!(matches!(leases.hear(at, Some(at), &image, beat(5)), Verdict::Granted { .. }));
            }
            (0..5_000).map(ms).find(|after| !leases.overdue(elected + *after, &image).is_empty())
        };
        assert_eq!(overdue_after(ms(0), None), Some(GRACE + just));
        // It led so shortly that it may have something left of what the leader before it lent it.
        let since = elected - ms(800);
        assert_eq!(overdue_after(since, None), Some(whole - LEADER_LEASE - ms(800) + just));
        assert_eq!(overdue_after(ms(0), Some(elected + ms(400))), Some(ms(400) + whole + just), "it is alive");
        let mut leases = Leases::default();
        leases.begin(elected, &image, Some(Predecessor { node: NodeId(7), since: ms(0) }));
        assert_eq!(leases.overdue(elected + GRACE + just, &image), [], "another one led");
    }

    proptest! {
        /// However long requests and answers take, and whoever leads: the broker's own lease ends before any leader takes it
        /// for dead. Leaders are confirmed now and then, grant only within [`LEADER_LEASE`] from it, and the next one
        /// is elected no sooner than that after the last confirmation of the one before. Every other leader is on the
        /// broker's own node, which lends itself nothing and answers while it leads.
        #[test]
        fn a_broker_never_believes_in_a_lease_that_a_leader_counts_as_over(
            beats in proptest::collection::vec((1u64..900, 0u64..1_500, 0u64..1_500), 1..40),
            reigns in proptest::collection::vec((1u64..6_000, 0u64..1_500, 50u64..650), 1..6),
            own_first in any::<bool>(),
        ) {
            let image = image(5, false);
            let (mut elected, mut leaders) = (0, Vec::new());
            for (number, (lasts, patience, every)) in reigns.into_iter().enumerate() {
                let last = elected + lasts / every * every;
                leaders.push(Reign { elected, last, every, own: (number % 2 == 0) == own_first });
                elected = last + LEADER_LEASE.as_millis() as u64 + patience;
            }
            // What happens, in order of time: a beat arrives (with when it was sent), or a look.
            let (mut sent, mut events) = (0, Vec::new());
            for (pause, there, _) in &beats {
                sent += pause;
                events.push((sent + there, Some(sent)));
            }
            events.extend((0..sent + 6_000).step_by(70).map(|at| (at, None)));
            events.sort_unstable();
            let mut accounts: Vec<Option<Leases>> = leaders.iter().map(|_| None).collect();
            let mut lent: Vec<Duration> = Vec::new();
            for (at, event) in events {
                // One that was deposed and does not know it yet goes on until its confirmation is too old.
                for (number, leader) in leaders.iter().enumerate() {
                    let Some(confirmed) = leader.confirmed(at) else { continue };
                    let before = number.checked_sub(1).map(|n| &leaders[n]).filter(|before| before.own);
                    let leases = accounts[number].get_or_insert_with(|| {
                        let mut leases = Leases::default();
                        let since = |before: &Reign| Predecessor { node: NodeId(2), since: ms(before.elected) };
                        leases.begin(ms(leader.elected), &image, before.map(since));
                        leases
                    });
                    if let Some(sent) = event {
                        let verdict = leases.hear(ms(at), Some(confirmed), &image, beat(5));
                        if let (Verdict::Granted { age }, false) = (verdict, leader.own) {
                            lent.push((ms(sent) + LEASE).saturating_sub(age));
                        }
                    } else if !leader.own && !leases.overdue(ms(at), &image).is_empty() {
                        // Whatever is answered later, too: its lease is over by now.
                        prop_assert!(!lent.iter().any(|until| *until > ms(at)), "fenced at {at}, lent until {lent:?}");
                        let leads = leaders.iter().any(|other| other.own && other.confirmed(at).is_some());
                        prop_assert!(!leads, "fenced at {at}, while it leads");
                    }
                }
            }
        }
    }

    /// A leader, in milliseconds.
    struct Reign {
        elected: u64,
        /// When it was confirmed for the last time.
        last: u64,
        every: u64,
        /// It is the broker's own node.
        own: bool,
    }

    impl Reign {
        /// Its last confirmation, while that holds.
        fn confirmed(&self, at: u64) -> Option<Duration> {
            let newest = (self.elected + at.checked_sub(self.elected)? / self.every * self.every).min(self.last);
            (ms(at) < ms(newest) + LEADER_LEASE).then(|| ms(newest))
        }
    }
}
