//! Heartbeats: a broker asks the quorum's leader for its lease, ever again, and ends when it is told that it is fenced.
//!
//! Request, behind the kind's byte: version `u8` | node `i32` | broker epoch `i64` | WAL used, budget `u64` each | bytes in,
//! bytes out, requests per second `u64` each | a counted list of partition (20 bytes) and cost `u64`. Answer: version `u8` |
//! verdict `u8` | if granted, the age of the leader's confirmation in ms `u32`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::{BrokerEpoch, NodeId, PartitionId, TopicId};
use crate::broker::{Lease, Load, PARTITION_LOADS_MAX, PartitionLoad};
use crate::env::Clock;
use crate::peer::{Answering, Caller, Class, Peers, Refused, Service, kind};
use crate::quorum::{LEADER_LEASE, Quorum};

use super::lease::{Heartbeat, Leases, Verdict};

/// How often a broker asks.
pub const EVERY: Duration = Duration::from_millis(300);
/// After an attempt that brought nothing.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(700);
/// How often a leader has its leadership confirmed.
const CONFIRM_EVERY: Duration = Duration::from_millis(150);
/// How much of the voters' promise is left unused.
const CONFIRM_MARGIN: Duration = Duration::from_millis(100);
/// How often a broker without a lease says so.
const NOTE_EVERY: Duration = Duration::from_secs(10);

const VERSION: u8 = 1;

impl Heartbeat {
    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(kind::HEARTBEAT).u8(VERSION).i32(self.node.0).i64(self.epoch.0).u64(self.wal_used).u64(self.wal_budget);
        w.u64(self.load.bytes_in).u64(self.load.bytes_out).u64(self.load.requests);
        w.count(self.load.partitions.len());
        for PartitionLoad { partition, cost } in &self.load.partitions {
            w.raw(&partition.topic.0).i32(partition.index).u64(*cost);
        }
        w.finish()
    }

    /// Reads a request without its kind's byte.
    fn decode(bytes: &[u8]) -> Result<Heartbeat, DecodeError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r)?;
        let (node, epoch) = (NodeId(r.i32()?), BrokerEpoch(r.i64()?));
        let (wal_used, wal_budget) = (r.u64()?, r.u64()?);
        let (bytes_in, bytes_out, requests) = (r.u64()?, r.u64()?, r.u64()?);
        let count = r.count(28)?;
        if count > PARTITION_LOADS_MAX {
            return Err(DecodeError::Invalid { field: "partitions of a heartbeat", value: count as u64 });
        }
        let one = |_| {
            let partition = PartitionId { topic: TopicId(r.array()?), index: r.i32()? };
            Ok(PartitionLoad { partition, cost: r.u64()? })
        };
        let partitions = (0..count).map(one).collect::<Result<_, DecodeError>>()?;
        r.finish()?;
        let load = Load { bytes_in, bytes_out, requests, partitions };
        Ok(Heartbeat { node, epoch, wal_used, wal_budget, load })
    }
}

impl Verdict {
    fn encode(self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Verdict::Granted { age } => {
                // Rounded up: a lease is rather shorter than longer.
                let ms = age.as_nanos().div_ceil(1_000_000);
                w.u8(0).u32(u32::try_from(ms).unwrap_or(u32::MAX))
            }
            Verdict::Fenced => w.u8(1),
            Verdict::NotNow => w.u8(2),
        };
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Verdict, DecodeError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r)?;
        let verdict = match r.u8()? {
            0 => Verdict::Granted { age: Duration::from_millis(u64::from(r.u32()?)) },
            1 => Verdict::Fenced,
            2 => Verdict::NotNow,
            value => return Err(DecodeError::Invalid { field: "answer to a heartbeat", value: u64::from(value) }),
        };
        r.finish()?;
        Ok(verdict)
    }
}

fn check_version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u8()? {
        VERSION => Ok(()),
        found => Err(DecodeError::Version { found: u16::from(found), newest: u16::from(VERSION) }),
    }
}

/// The leases that this node gives while it leads the quorum.
pub struct Grants {
    quorum: Arc<Quorum>,
    clock: Arc<dyn Clock>,
    leases: Mutex<Leases>,
    /// CLOCK_BOOTTIME in ms: the beginning of the last round in which a majority said that this node leads.
    confirmed: AtomicU64,
}

impl Grants {
    pub fn new(quorum: Arc<Quorum>, clock: Arc<dyn Clock>) -> Arc<Grants> {
        Arc::new(Grants { quorum, clock, leases: Mutex::default(), confirmed: AtomicU64::new(0) })
    }

    pub fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else can have been elected by now. Unlike the quorum's own word this holds after a pause of the process,
    /// too.
    pub fn leads(&self) -> bool {
        self.confirmed().is_some()
    }

    /// When the last confirmation was asked for, if it holds still.
    fn confirmed(&self) -> Option<Duration> {
        let confirmed = Duration::from_millis(self.confirmed.load(Ordering::Relaxed));
        let holds = self.clock.boottime() < confirmed + LEADER_LEASE - CONFIRM_MARGIN;
        (confirmed > Duration::ZERO && holds).then_some(confirmed)
    }

    /// Has the leadership confirmed for as long as the process runs.
    pub async fn confirm(self: Arc<Self>) {
        loop {
            let asked = self.clock.boottime();
            if let Ok(true) = timeout(LEADER_LEASE, self.quorum.confirm_lead()).await {
                let ms = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
                self.confirmed.fetch_max(ms, Ordering::Relaxed);
            }
            sleep(CONFIRM_EVERY).await;
        }
    }

    fn hear(&self, beat: Heartbeat) -> Verdict {
        // In this order: what is counted as heard was heard before the leadership was looked at.
        let now = self.clock.boottime();
        let confirmed = self.confirmed();
        let image = self.quorum.image().borrow().clone();
        self.leases().hear(now, confirmed, &image, beat)
    }
}

/// Answers the heartbeats of other nodes.
pub struct HeartbeatService(pub Arc<Grants>);

impl Service for HeartbeatService {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        let answer = match Heartbeat::decode(&request) {
            Err(error) => Err(Refused(format!("the heartbeat cannot be read: {error}"))),
            Ok(beat) if beat.node != from.node => {
                Err(Refused(format!("node {} sent a heartbeat of node {}", from.node, beat.node)))
            }
            Ok(beat) => Ok(self.0.hear(beat).encode().into()),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// What a heartbeat says beside its sender: WAL bytes used, WAL budget, load.
pub type Facts = Box<dyn Fn() -> (u64, u64, Load) + Send + Sync>;

/// The asking side.
pub struct Heartbeats {
    pub node: NodeId,
    pub quorum: Arc<Quorum>,
    pub peers: Arc<Peers>,
    pub grants: Arc<Grants>,
    pub lease: Arc<Lease>,
    pub clock: Arc<dyn Clock>,
    pub facts: Facts,
}

/// The process was fenced: it is taken for dead, or another one of the same node has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker epoch {epoch} of node {node} counts no more: others have taken over; start the node again")]
pub struct Fenced {
    pub node: NodeId,
    pub epoch: BrokerEpoch,
}

impl Heartbeats {
    /// Asks for leases as soon as the process has its broker epoch, and returns when that counts no more.
    pub async fn run(self) -> Fenced {
        let mut epoch = self.lease.epoch();
        // The lease is held here, and with it the sender.
        let Ok(Some(epoch)) = epoch.wait_for(|epoch| epoch.is_some()).await.map(|epoch| *epoch) else {
            return std::future::pending().await;
        };
        let fenced = tokio::select! {
            () = self.ask_on(epoch) => Fenced { node: self.node, epoch },
            () = self.superseded(epoch) => Fenced { node: self.node, epoch },
        };
        self.lease.lost();
        fenced
    }

    /// Returns when a heartbeat was answered with "fenced".
    async fn ask_on(&self, epoch: BrokerEpoch) {
        let mut noted = Instant::now();
        loop {
            let sent = self.clock.boottime();
            let asked = self.quorum.status().leader;
            let pause = match self.ask(asked, epoch).await {
                Some(Verdict::Granted { age }) => {
                    // The leader's own broker is right for as long as it leads, and no longer.
                    if asked != Some(self.node) {
                        self.lease.granted(sent.saturating_sub(age));
                    }
                    noted = Instant::now();
                    EVERY.saturating_sub(self.clock.boottime().saturating_sub(sent))
                }
                Some(Verdict::Fenced) => return,
                Some(Verdict::NotNow) | None => AGAIN,
            };
            if noted.elapsed() >= NOTE_EVERY && !self.lease.is_valid() {
                noted = Instant::now();
                let leader = self.quorum.status().leader;
                tracing::warn!(
                    ?leader,
                    "this broker has no lease, and answers its clients with errors: the leader of the \
                    metadata quorum cannot be reached, or there is none"
                );
            }
            sleep(pause).await;
        }
    }

    async fn ask(&self, leader: Option<NodeId>, epoch: BrokerEpoch) -> Option<Verdict> {
        let leader = leader?;
        let (wal_used, wal_budget, load) = (self.facts)();
        let beat = Heartbeat { node: self.node, epoch, wal_used, wal_budget, load };
        if leader == self.node {
            return Some(self.grants.hear(beat));
        }
        match self.peers.call(leader, Class::Control, beat.encode(), ANSWER_WAIT).await {
            Ok(answer) => Verdict::decode(&answer).ok(),
            Err(error) => {
                tracing::debug!(%leader, %error, "a heartbeat was not answered");
                None
            }
        }
    }

    /// Returns when the metadata say that the epoch counts no more.
    async fn superseded(&self, epoch: BrokerEpoch) {
        let mut image = self.quorum.image();
        loop {
            let over = match image.borrow_and_update().brokers.get(&self.node) {
                Some(broker) => broker.epoch > epoch || (broker.epoch == epoch && broker.fenced),
                // Not there yet, or the node was removed: then nobody is asked for leases any more.
                None => false,
            };
            if over {
                return;
            }
            if image.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_and_their_answers_read_back_as_written() {
        let partition = PartitionId { topic: TopicId([3; 16]), index: 7 };
        let load =
            Load { bytes_in: 1, bytes_out: 2, requests: 3, partitions: vec![PartitionLoad { partition, cost: 4 }] };
        let beat = Heartbeat { node: NodeId(2), epoch: BrokerEpoch(9), wal_used: 5, wal_budget: 6, load };
        let bytes = beat.encode();
        assert_eq!(bytes[0], kind::HEARTBEAT);
        assert_eq!(Heartbeat::decode(&bytes[1..]), Ok(beat));
        for length in 1..bytes.len() {
            assert!(Heartbeat::decode(&bytes[1..length]).is_err());
        }
        let mut newer = bytes.to_vec();
        newer[1] = 9;
        assert_eq!(Heartbeat::decode(&newer[1..]), Err(DecodeError::Version { found: 9, newest: 1 }));
        let granted = Verdict::Granted { age: Duration::from_millis(70) };
        for verdict in [granted, Verdict::Fenced, Verdict::NotNow] {
            assert_eq!(Verdict::decode(&verdict.encode()), Ok(verdict));
        }
        assert_eq!(Verdict::Granted { age: Duration::from_micros(69_001) }.encode(), granted.encode());
        for wrong in [&[1, 3][..], &[1], &[1, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0], &[1, 1, 0]] {
            assert!(Verdict::decode(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_heartbeat_names_no_more_partitions_than_it_may() {
        let mut w = Writer::new();
        w.u8(VERSION).i32(2).i64(9);
        w.raw(&[0; 5 * 8]);
        w.count(PARTITION_LOADS_MAX + 1);
        w.raw(&vec![0; 28 * (PARTITION_LOADS_MAX + 1)]);
        assert!(matches!(Heartbeat::decode(&w.finish()), Err(DecodeError::Invalid { .. })));
    }
}
