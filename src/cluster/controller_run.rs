//! Carries out what the controller decides, on whichever node leads the quorum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::base::{EntryId, LedgerId, NodeId};
use crate::broker::Load;
use crate::env::Clock;
use crate::ledger::{RecoveryParts, recover_ledger};
use crate::metadata::{Command, Image, Response};
use crate::quorum::Quorum;

use super::controller::{Action, Controller, View};
use super::heartbeat::Grants;
use super::lease::Predecessor;

/// How often the leader looks whether something is to be done.
const EVERY: Duration = Duration::from_millis(50);
/// A leader that did not look for so long may not have heard what was sent to it either.
const STALL: Duration = Duration::from_millis(500);
/// How long the outcome of a command is waited for. Given again it does no harm.
const PROPOSE_WAIT: Duration = Duration::from_secs(5);
/// Pause after something that was decided was refused, or came to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Finds and sets the end of ledgers whose writers are fenced.
pub trait Recoverer: Send + Sync {
    /// Answers the end (exclusive), or why there is none yet. May take as long as replicas that are needed are away.
    fn recover(&self, ledger: LedgerId) -> BoxFuture<'static, Result<EntryId, String>>;
}

impl Recoverer for RecoveryParts {
    fn recover(&self, ledger: LedgerId) -> BoxFuture<'static, Result<EntryId, String>> {
        let parts = self.clone();
        Box::pin(async move { recover_ledger(&parts, ledger).await.map_err(|error| error.to_string()) })
    }
}

/// What the controller works with.
pub struct ControllerParts {
    pub quorum: Arc<Quorum>,
    pub grants: Arc<Grants>,
    pub recoverer: Arc<dyn Recoverer>,
    pub clock: Arc<dyn Clock>,
}

/// What a recovery that has ended leaves behind.
type Recovered = (LedgerId, Duration, Result<EntryId, String>);

/// Who led, as far as this node has learned: the last two terms that had a leader.
#[derive(Debug, Default)]
struct History {
    newest: Option<(u64, Predecessor)>,
    older: Option<(u64, Predecessor)>,
}

impl History {
    fn learn(&mut self, now: Duration, term: u64, leader: Option<NodeId>) {
        let Some(node) = leader else { return };
        if self.newest.is_none_or(|(known, _)| known < term) {
            self.older = self.newest.replace((term, Predecessor { node, since: now }));
        }
    }

    /// Who led in the term right before this one: with a term in between others may have led of whom nobody told this node.
    fn before(&self, term: u64) -> Option<Predecessor> {
        let of_term = |known: &(u64, Predecessor)| known.0 + 1 == term;
        [self.newest, self.older].into_iter().flatten().find(of_term).map(|(_, predecessor)| predecessor)
    }
}

/// One time of leading.
struct Leading {
    term: u64,
    controller: Controller,
    /// Dropped, they end.
    recoveries: JoinSet<Recovered>,
    /// The image that was looked at last.
    seen: Option<Arc<Image>>,
    looked: Duration,
    paused_until: Duration,
    /// When brokers that lead something were fenced.
    fenced: BTreeMap<NodeId, Duration>,
}

/// Runs for as long as the process does; acts only while this node leads.
pub async fn run(parts: ControllerParts) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leading: Option<Leading> = None;
    let mut history = History::default();
    loop {
        let ended = match &mut leading {
            None => {
                ticks.tick().await;
                None
            }
            Some(leading) => tokio::select! {
                _ = ticks.tick() => None,
                Some(ended) = leading.recoveries.join_next() => Some(ended),
            },
        };
        let (now, status) = (parts.clock.boottime(), parts.quorum.status());
        let term = status.term;
        history.learn(now, term, status.leader);
        if !parts.grants.leads() {
            if leading.take().is_some() {
                tracing::info!("this node controls the cluster no more");
            }
            continue;
        }
        // Led by another in between: what that one granted is not known here.
        if leading.as_ref().is_none_or(|known| known.term != term) {
            tracing::info!(term, "this node controls the cluster");
            let image = parts.quorum.image().borrow().clone();
            parts.grants.leases().begin(now, &image, history.before(term));
            leading = Some(Leading::new(now, term));
        }
        if let Some(leading) = &mut leading {
            if let Some(Ok(recovered)) = ended {
                leading.recovered(now, recovered);
            }
            leading.look(&parts, now).await;
        }
    }
}

impl Leading {
    fn new(now: Duration, term: u64) -> Leading {
        let (controller, recoveries, fenced) = (Controller::new(now), JoinSet::new(), BTreeMap::new());
        Leading { term, controller, recoveries, seen: None, looked: now, paused_until: Duration::ZERO, fenced }
    }

    fn recovered(&mut self, now: Duration, (ledger, since, result): Recovered) {
        match &result {
            Ok(end) => {
                let took_ms = now.saturating_sub(since).as_millis();
                tracing::info!(%ledger, %end, took_ms, "the ledger of a fenced writer has its end");
            }
            Err(error) => tracing::warn!(%ledger, %error, "a ledger is not recovered yet; it is tried again"),
        }
        self.controller.recovered(now, ledger, result.is_ok());
        self.seen = None;
    }

    /// Looks at what is, and does what is to be done.
    async fn look(&mut self, parts: &ControllerParts, now: Duration) {
        if now.saturating_sub(self.looked) > STALL {
            tracing::warn!("this node stood still for a while: brokers get another lease before they are fenced");
            let image = parts.quorum.image().borrow().clone();
            parts.grants.leases().begin_anew(now, &image);
        }
        self.looked = now;
        let image = parts.quorum.image().borrow().clone();
        let (overdue, silences, loads) = {
            let mut leases = parts.grants.leases();
            let mut overdue = leases.overdue(now, &image);
            // A node that is its own quorum has nobody who could take over from it.
            let own = parts.quorum.owner().node;
            overdue.retain(|(node, _)| *node != own || !parts.quorum.leads_alone());
            let silences: Vec<_> = overdue.iter().map(|(node, _)| leases.silence(now, *node)).collect();
            let loads: BTreeMap<NodeId, Load> =
                image.brokers.keys().filter_map(|node| Some((*node, leases.load(*node)?.clone()))).collect();
            (overdue, silences, loads)
        };
        let same = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &image));
        if (same && overdue.is_empty() && now < self.controller.wakes_at()) || now < self.paused_until {
            return;
        }
        for ((node, epoch), silence) in overdue.iter().zip(silences) {
            let silent_ms = silence.unwrap_or_default().as_millis();
            tracing::warn!(%node, %epoch, silent_ms, "a broker was not heard for longer than its lease: it is fenced");
            self.fenced.insert(*node, now);
        }
        let actions = self.controller.step(&View { now, image: &image, overdue: &overdue, loads: &loads });
        self.seen = Some(image);
        let done = join_all(actions.into_iter().filter_map(|action| self.begin(parts, now, action))).await;
        if done.contains(&false) {
            self.paused_until = parts.clock.boottime() + PAUSE;
            self.seen = None;
        }
        self.looked = parts.clock.boottime();
    }

    /// Begins an action; a proposal is answered with whether it was accepted.
    fn begin<'a>(&mut self, parts: &'a ControllerParts, now: Duration, action: Action) -> Option<BoxFuture<'a, bool>> {
        match action {
            Action::Recover(ledger) => {
                let recovering = parts.recoverer.recover(ledger);
                self.recoveries.spawn(async move { (ledger, now, recovering.await) });
                None
            }
            Action::Propose(command) => {
                self.note(now, &command);
                Some(Box::pin(propose(&parts.quorum, command)))
            }
        }
    }

    /// Says what is about to be done, and how long the partitions were without a leader.
    fn note(&mut self, now: Duration, command: &Command) {
        match command {
            Command::AssignPartitions { changes } => {
                let image = self.seen.as_deref();
                let led_by = |change: &crate::metadata::Assignment| Some(image?.partition(change.partition)?.leader);
                let from = changes.first().and_then(led_by);
                let since_fenced_ms =
                    from.and_then(|node| self.fenced.get(&node)).map(|at| now.saturating_sub(*at).as_millis());
                let partitions = changes.len();
                tracing::info!(?from, partitions, ?since_fenced_ms, "partitions of a fenced broker get other leaders");
            }
            Command::NameUploader { ledger, node, .. } => {
                tracing::info!(%ledger, %node, "a ledger gets another uploader: its own is fenced");
            }
            Command::SetTargets { changes } => {
                tracing::info!(partitions = changes.len(), "partitions are to be led by other nodes");
            }
            _ => {}
        }
    }
}

async fn propose(quorum: &Quorum, command: Command) -> bool {
    match timeout(PROPOSE_WAIT, quorum.propose(&command)).await {
        Ok(Ok(Response::Rejected(reject))) => {
            tracing::info!(%reject, "the metadata have changed meanwhile: looking again");
            false
        }
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a decision about the cluster was not recorded");
            false
        }
        Err(_) => {
            tracing::warn!("a decision about the cluster was not recorded in time");
            false
        }
    }
}
