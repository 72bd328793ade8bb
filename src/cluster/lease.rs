//! The leases of brokers, as the quorum's leader keeps account of them. Pure: times and images are given.
//!
//! A broker counts its lease from the moment at which it asked; here it is counted from the moment at which it was heard,
//! which is later, and [`MARGIN`] more. So on this side a lease never ends before it does on the broker's. A new leader
//! does not know what the one before it granted, and counts for everybody from its own beginning.
//!
//! Once a broker is to be fenced it is granted nothing more by this leader in that epoch, whatever becomes of the command.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::{BrokerEpoch, NodeId};
use crate::broker::{LEASE, Load};
use crate::metadata::Image;

/// How much longer a lease is counted here: clocks that run at different speeds, and the time between a broker's look at its
/// lease and the answer that it gives then.
pub const MARGIN: Duration = Duration::from_millis(200);

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
    /// [`LEASE`] from the sending of the heartbeat on.
    Granted,
    /// This epoch counts no more: the process has to end.
    Fenced,
    /// Nothing: whoever was asked does not lead, or does not know the broker yet, or is about to fence it.
    NotNow,
}

/// What is known of one broker.
#[derive(Clone, Debug)]
struct Known {
    epoch: BrokerEpoch,
    /// When it was heard last, or first seen.
    heard: Duration,
    fencing: bool,
    load: Load,
}

/// The account. All times are of this machine's CLOCK_BOOTTIME.
#[derive(Debug, Default)]
pub struct Leases {
    brokers: BTreeMap<NodeId, Known>,
    /// From when on this node has led without a break that it knows of.
    since: Duration,
}

impl Leases {
    /// This node leads from `now` on. What was granted before it is unknown.
    pub fn begin(&mut self, now: Duration) {
        self.since = now;
        self.brokers.values_mut().for_each(|known| known.fencing = false);
    }

    /// A heartbeat that was received at `now`. `leads`: a majority has confirmed so, for a time that has not passed yet.
    pub fn hear(&mut self, now: Duration, leads: bool, image: &Image, beat: Heartbeat) -> Verdict {
        if !leads {
            return Verdict::NotNow;
        }
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
        Verdict::Granted
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
            if known.epoch == broker.epoch && now > known.heard.max(self.since) + LEASE + MARGIN {
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

    /// How long ago a broker was heard.
    pub fn silence(&self, now: Duration, node: NodeId) -> Option<Duration> {
        self.brokers.get(&node).map(|known| now.saturating_sub(known.heard))
    }
}

impl Known {
    fn new(epoch: BrokerEpoch, heard: Duration) -> Known {
        Known { epoch, heard, fencing: false, load: Load::default() }
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
        leases.begin(ms(1_000));
        let image = image(5, false);
        assert_eq!(leases.hear(ms(1_100), false, &image, beat(5)), Verdict::NotNow, "who does not lead grants nothing");
        assert_eq!(leases.hear(ms(1_100), true, &image, beat(5)), Verdict::Granted);
        assert_eq!(leases.hear(ms(1_100), true, &image, beat(4)), Verdict::Fenced);
        assert_eq!(leases.hear(ms(1_100), true, &image, beat(6)), Verdict::NotNow, "the image is older");
        assert_eq!(leases.hear(ms(1_100), true, &super::tests::image(5, true), beat(5)), Verdict::Fenced);
        assert_eq!(leases.hear(ms(1_100), true, &Image::default(), beat(5)), Verdict::NotNow);
    }

    #[test]
    fn a_silent_broker_is_fenced_after_a_lease_and_a_new_leader_waits_one() {
        let mut leases = Leases::default();
        let image = image(5, false);
        leases.begin(ms(1_000));
        assert_eq!(leases.overdue(ms(1_000), &image), []);
        assert_eq!(leases.hear(ms(2_000), true, &image, beat(5)), Verdict::Granted);
        assert_eq!(leases.overdue(ms(4_200), &image), []);
        assert_eq!(leases.overdue(ms(4_201), &image), [(NodeId(2), BrokerEpoch(5))]);
        assert_eq!(leases.hear(ms(4_202), true, &image, beat(5)), Verdict::NotNow, "its fencing is under way");
        assert_eq!(leases.overdue(ms(4_300), &image), [(NodeId(2), BrokerEpoch(5))], "until the image says so");
        // Another leader in between may have granted it something.
        leases.begin(ms(5_000));
        assert_eq!(leases.overdue(ms(7_200), &image), []);
        assert_eq!(leases.overdue(ms(7_201), &image).len(), 1);
        // A new process of the node begins with a lease.
        let image = super::tests::image(6, false);
        assert_eq!(leases.overdue(ms(9_000), &image), []);
        assert_eq!(leases.hear(ms(9_100), true, &image, beat(6)), Verdict::Granted);
    }

    proptest! {
        /// However long requests and answers take: the broker's own lease ends before the leader takes it for dead.
        #[test]
        fn a_broker_never_believes_in_a_lease_that_the_leader_counts_as_over(
            beats in proptest::collection::vec((1u64..900, 0u64..1_500, 0u64..1_500, any::<bool>()), 1..40),
            begins in proptest::collection::vec(0u64..20_000, 0..3),
        ) {
            let image = image(5, false);
            let mut leases = Leases::default();
            leases.begin(ms(0));
            // What happens, in order of time: a beat arrives (with when it was sent and when its answer comes), or a look.
            let (mut sent, mut events) = (0, Vec::new());
            for (pause, there, back, lost) in beats {
                sent += pause;
                events.push((sent + there, Some((sent, (!lost).then_some(sent + there + back)))));
            }
            events.extend((0..sent + 6_000).step_by(70).map(|at| (at, None)));
            events.sort_unstable();
            let mut granted: Vec<(u64, u64)> = Vec::new();
            for (at, event) in events {
                if begins.iter().any(|begin| at / 70 == begin / 70) {
                    leases.begin(ms(at));
                }
                match event {
                    Some((sent, answered)) => {
                        if leases.hear(ms(at), true, &image, beat(5)) == Verdict::Granted {
                            granted.extend(answered.map(|answered| (sent, answered)));
                        }
                    }
                    None => {
                        if !leases.overdue(ms(at), &image).is_empty() {
                            // Whatever is answered later, too: its lease is over by now.
                            let believes = granted.iter().any(|(sent, _)| ms(*sent) + LEASE > ms(at));
                            prop_assert!(!believes, "fenced at {at}, granted {granted:?}");
                        }
                    }
                }
            }
        }
    }
}
