//! When a voter stands for election. openraft's own timer is off.
//!
//! A voter that has not heard from a leader for a while first asks around whether it would be voted for (the pre-vote of
//! Ongaro's thesis, 9.6). Only with the promise of a majority does it raise its term and stand. So a voter behind a link that
//! comes and goes cannot depose a leader whom the others hear, and terms do not grow while nobody can win.
//!
//! A promise is given by whoever has not heard from a leader for [`PATIENCE_MIN`] and whose log does not reach further. It
//! binds nobody: the vote itself is openraft's, synced before it is answered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::{Raft, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::message::{Ask, Tell};
use super::network::{Transport, ask_voter};
use super::types::TypeConfig;
use crate::env::Entropy;
use crate::kv::raft_log::LogPosition;
use crate::kv::{Kv, ReadError};

/// How often a leader lets the others hear from it.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(150);
/// For so long after it has heard from a leader a voter gives its vote to nobody else.
pub const LEADER_LEASE: Duration = Duration::from_millis(700);
/// How long a voter waits without a leader before it asks around: between this …
const PATIENCE_MIN: Duration = Duration::from_millis(750);
/// … and this, drawn anew each time, so that two voters seldom ask at once.
const PATIENCE_MAX: Duration = Duration::from_millis(1_500);
/// How often a leader, and who has no vote, looks whether that has changed.
const REST: Duration = Duration::from_millis(250);
/// How often a voter looks.
const TICK: Duration = Duration::from_millis(50);
/// How long it waits for the answers of the others.
const CANVASS_TIMEOUT: Duration = Duration::from_millis(500);

const _: () = assert!(HEARTBEAT.as_millis() * 4 < LEADER_LEASE.as_millis(), "a lost heartbeat deposes nobody");
const _: () = assert!(LEADER_LEASE.as_millis() < PATIENCE_MIN.as_millis(), "who asks around may be voted for");

/// When this node last heard from a leader whom it follows.
#[derive(Debug)]
pub(super) struct Contact(Mutex<Instant>);

impl Contact {
    /// As if a leader had just been heard: a node that starts gives it the time to say so.
    pub fn new() -> Contact {
        Contact(Mutex::new(Instant::now()))
    }

    pub fn heard(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// What the election needs of its node.
pub(super) struct Election {
    pub raft_id: u64,
    pub raft: Raft<TypeConfig>,
    pub kv: Arc<Kv>,
    pub transport: Arc<dyn Transport>,
    pub contact: Arc<Contact>,
    pub entropy: Arc<dyn Entropy>,
}

impl Election {
    /// Runs until the quorum stops.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let watch = async {
            let (mut patience, mut since) = (self.patience(), Instant::now());
            loop {
                let metrics = self.raft.metrics().borrow().clone();
                if !self.may_stand(&metrics) {
                    sleep(REST).await;
                    since = Instant::now();
                    continue;
                }
                sleep(TICK).await;
                if self.contact.age().min(since.elapsed()) < patience {
                    continue;
                }
                (patience, since) = (self.patience(), Instant::now());
                if self.is_wanted(&metrics).await && self.raft.trigger().elect().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = watch => {}
        }
    }

    fn patience(&self) -> Duration {
        let mut random = [0; 2];
        self.entropy.fill(&mut random);
        PATIENCE_MIN + (PATIENCE_MAX - PATIENCE_MIN) * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
    }

    /// A voter that does not lead.
    fn may_stand(&self, metrics: &RaftMetrics<u64, openraft::EmptyNode>) -> bool {
        metrics.state != ServerState::Leader && voters(metrics).iter().any(|config| config.contains(&self.raft_id))
    }

    /// Whether a majority of every set of voters would vote for this node.
    async fn is_wanted(&self, metrics: &RaftMetrics<u64, openraft::EmptyNode>) -> bool {
        let configs = voters(metrics);
        let everyone: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let Ok(last) = end_of_log(&self.kv).await else { return false };
        let mut promised = BTreeSet::from([self.raft_id]);
        let question = &Ask::Canvass { last };
        let mut answers: FuturesUnordered<_> = everyone
            .into_iter()
            .filter(|voter| *voter != self.raft_id)
            .map(|voter| async move { (voter, ask_voter(&*self.transport, voter, question, CANVASS_TIMEOUT).await) })
            .collect();
        let enough = |promised: &BTreeSet<u64>| {
            configs.iter().all(|config| config.intersection(promised).count() * 2 > config.len())
        };
        let asking = async {
            while !enough(&promised) {
                match answers.next().await {
                    Some((voter, Ok(Tell::Canvass { granted: true }))) => drop(promised.insert(voter)),
                    Some(_) => {}
                    None => return false,
                }
            }
            true
        };
        timeout(CANVASS_TIMEOUT, asking).await.unwrap_or(false)
    }
}

fn voters(metrics: &RaftMetrics<u64, openraft::EmptyNode>) -> Vec<BTreeSet<u64>> {
    metrics.membership_config.membership().get_joint_config().clone()
}

/// Where this node's log ends.
pub(super) async fn end_of_log(kv: &Arc<Kv>) -> Result<Option<LogPosition>, ReadError> {
    let read = super::log::blocking(kv, |kv| Ok(kv.last_log_position()?.max(kv.purged()?))).await;
    read.map_err(|error| ReadError::Io(error.to_string()))?
}

/// Whether this node would vote for a log that ends at `last`. A leader answers as long as a majority hears it.
pub(super) async fn promises(
    metrics: &RaftMetrics<u64, openraft::EmptyNode>,
    contact: &Contact,
    kv: &Arc<Kv>,
    last: Option<LogPosition>,
) -> bool {
    let heard = match metrics.state {
        ServerState::Leader => Duration::from_millis(metrics.millis_since_quorum_ack.unwrap_or(u64::MAX)),
        _ => contact.age(),
    };
    heard >= PATIENCE_MIN && end_of_log(kv).await.is_ok_and(|own| last >= own)
}
