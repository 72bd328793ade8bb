//! A line to one node for one class: what waits to be sent, what waits for its answer, and the task that keeps a
//! connection as long as somebody wants one.
//!
//! Invariants: requests go out in the order in which they were given. A request that was handed to a connection is
//! never handed to another. Every request gets exactly one outcome. What waits and what is under way together are
//! bounded.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::dial;
use super::error::{Closed, DialError, NotSent, PeerError};
use super::frame::Body;
use super::link::Link;
use super::peers::{Connection, PeerAddress};
use super::plane::{Plane, stopped};
use super::{Class, Options};
use crate::base::NodeId;
use crate::env::{Entropy, Stopwatch};
use crate::net::Names;

type Outcome = Result<Bytes, PeerError>;

/// What the holders of a line can see of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub connection: Option<Connection>,
    /// Attempts to connect that failed, ever, and why the last of them did.
    pub failures: u64,
    pub failure: Option<Arc<DialError>>,
    /// Why there will be no connection any more.
    pub retired: Option<NotSent>,
}

pub(super) struct Line {
    pub plane: Arc<Plane>,
    pub node: NodeId,
    pub class: Class,
    state: Mutex<State>,
    /// Something waits to be sent, or a connection is wanted.
    pub wake: Notify,
    pub status: watch::Sender<Status>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    sent: HashMap<u64, Sent>,
    last_id: u64,
    /// Bytes of what waits and what is under way.
    bytes: usize,
    connection: Option<u64>,
    /// Somebody waits for a connection.
    wanted: bool,
    retired: Option<NotSent>,
}

struct Queued {
    id: u64,
    /// The only connection on which it may be sent.
    pinned: Option<u64>,
    body: Body,
    bytes: usize,
    reply: oneshot::Sender<Outcome>,
}

struct Sent {
    bytes: usize,
    reply: oneshot::Sender<Outcome>,
    since: Stopwatch,
}

/// What has come for a request.
pub(super) enum Answered {
    Body(Bytes),
    Refused(String),
    /// There is an answer, and it cannot be sent.
    TooLarge,
}

/// Where a request was when it was given up.
#[derive(Debug, PartialEq, Eq)]
enum Abandoned {
    Queued,
    Sent,
    /// It has its outcome.
    Done,
}

/// The outcome of a request, when it is there. Dropping it gives the request up: it is not sent if it has not been yet.
#[must_use = "dropping it gives the request up"]
pub struct Reply {
    line: Arc<Line>,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Reply {
    /// Waits no longer than this.
    pub async fn within(mut self, time: Duration) -> Result<Bytes, PeerError> {
        if let Ok(outcome) = timeout(time, &mut self).await {
            return outcome;
        }
        let node = self.line.node;
        match self.line.abandon(self.id) {
            Abandoned::Queued => Err(PeerError::NotSent { node, reason: NotSent::TimedOut(time) }),
            Abandoned::Sent => Err(PeerError::Timeout { node, after: time }),
            Abandoned::Done => self.outcome.try_recv().unwrap_or(Err(PeerError::Timeout { node, after: time })),
        }
    }
}

impl Future for Reply {
    type Output = Result<Bytes, PeerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            // Every request is answered before it is forgotten; were it not, nobody would know.
            let unknown = || PeerError::OutcomeUnknown { node: self.line.node, reason: Arc::new(Closed::Stopping) };
            outcome.unwrap_or_else(|_| Err(unknown()))
        })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.line.abandon(self.id);
    }
}

impl Line {
    pub fn new(plane: Arc<Plane>, node: NodeId, class: Class) -> Arc<Line> {
        let (state, wake, status) = (Mutex::default(), Notify::new(), watch::Sender::default());
        Arc::new(Line { plane, node, class, state, wake, status })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn not_sent(&self, reason: NotSent) -> PeerError {
        PeerError::NotSent { node: self.node, reason }
    }

    /// Takes a request that is sent on the next connection, or on that of this number only.
    pub fn enqueue(self: &Arc<Self>, pinned: Option<u64>, body: Body) -> Result<Reply, PeerError> {
        let (limits, bytes) = (self.plane.options.class(self.class), body.bytes());
        if bytes > limits.body_bytes_max {
            let reason = NotSent::TooLarge { class: self.class, bytes, max: limits.body_bytes_max };
            return Err(self.not_sent(reason));
        }
        let (reply, outcome) = oneshot::channel();
        let mut state = self.lock();
        if let Some(reason) = &state.retired {
            return Err(self.not_sent(reason.clone()));
        }
        if pinned.is_some() && pinned != state.connection {
            return Err(self.not_sent(NotSent::Ended));
        }
        let open = state.queue.len() + state.sent.len();
        if open > 0 && (open >= limits.requests_max || state.bytes + bytes > limits.bytes_max) {
            self.plane.counters.class(self.class).full.fetch_add(1, Relaxed);
            return Err(self.not_sent(NotSent::Full));
        }
        state.last_id += 1;
        state.bytes += bytes;
        let id = state.last_id;
        state.queue.push_back(Queued { id, pinned, body, bytes, reply });
        drop(state);
        self.wake.notify_one();
        Ok(Reply { line: Arc::clone(self), id, outcome })
    }

    /// Asks for a connection without having anything to send yet.
    pub fn want(&self) {
        let mut state = self.lock();
        state.wanted |= state.connection.is_none();
        drop(state);
        self.wake.notify_one();
    }

    fn abandon(&self, id: u64) -> Abandoned {
        let mut state = self.lock();
        if let Some(sent) = state.sent.remove(&id) {
            state.bytes -= sent.bytes;
            return Abandoned::Sent;
        }
        // Ids ascend in the queue.
        let found = state.queue.binary_search_by_key(&id, |queued| queued.id);
        match found.ok().and_then(|at| state.queue.remove(at)) {
            Some(queued) => {
                state.bytes -= queued.bytes;
                Abandoned::Queued
            }
            None => Abandoned::Done,
        }
    }

    /// The next request to send. From here on its outcome hangs on the connection.
    pub fn take_next(&self) -> Option<(u64, Body)> {
        let mut state = self.lock();
        let Queued { id, body, bytes, reply, .. } = state.queue.pop_front()?;
        state.sent.insert(id, Sent { bytes, reply, since: Stopwatch::start() });
        self.plane.counters.class(self.class).requests_out.fetch_add(1, Relaxed);
        Some((id, body))
    }

    /// An answer has come; for a request that was given up it is ignored.
    pub fn answered(&self, id: u64, answer: Answered) -> Result<(), Closed> {
        let mut state = self.lock();
        let Some(sent) = state.sent.remove(&id) else {
            let asked = id <= state.last_id && state.queue.front().is_none_or(|queued| queued.id > id);
            return if asked { Ok(()) } else { Err(Closed::Protocol("it answers what it was not asked")) };
        };
        state.bytes -= sent.bytes;
        drop(state);
        let counters = self.plane.counters.class(self.class);
        counters.round_trips.fetch_add(1, Relaxed);
        counters.round_trip_micros.fetch_add(sent.since.micros(), Relaxed);
        let node = self.node;
        let outcome = match answer {
            Answered::Body(body) => Ok(body),
            Answered::Refused(reason) => {
                counters.declined.fetch_add(1, Relaxed);
                Err(PeerError::Refused { node, reason })
            }
            Answered::TooLarge => Err(PeerError::OutcomeUnknown { node, reason: Arc::new(Closed::Unanswered) }),
        };
        // Whoever asked may have gone in this moment.
        let _ = sent.reply.send(outcome);
        Ok(())
    }

    fn has_demand(&self) -> bool {
        let state = self.lock();
        state.wanted || !state.queue.is_empty()
    }

    async fn demand(&self) {
        while !self.has_demand() {
            self.wake.notified().await;
        }
    }

    fn connected(&self, connection: Connection) {
        let mut state = self.lock();
        state.connection = Some(connection.number);
        state.wanted = false;
        self.status.send_modify(|status| status.connection = Some(connection));
    }

    /// The connection has ended: of what was handed to it the outcome is unknown; what was only meant for it was not
    /// sent; the rest waits for the next one.
    fn lost(&self, reason: Closed) {
        let reason = Arc::new(reason);
        let mut state = self.lock();
        state.connection = None;
        self.fail_sent(&mut state, &reason);
        let (pinned, rest) = std::mem::take(&mut state.queue).into_iter().partition(|queued| queued.pinned.is_some());
        state.queue = rest;
        self.fail_queued(&mut state, pinned, &NotSent::Ended);
        self.status.send_modify(|status| status.connection = None);
    }

    fn failed(&self, error: DialError) {
        let error = Arc::new(error);
        let mut state = self.lock();
        state.wanted = false;
        let queue = std::mem::take(&mut state.queue);
        self.fail_queued(&mut state, queue, &NotSent::Dial(Arc::clone(&error)));
        self.status.send_modify(|status| {
            status.failures += 1;
            status.failure = Some(error);
        });
    }

    fn retire(&self, reason: NotSent) {
        let mut state = self.lock();
        state.retired = Some(reason.clone());
        let queue = std::mem::take(&mut state.queue);
        self.fail_queued(&mut state, queue, &reason);
        self.status.send_modify(|status| status.retired = Some(reason));
    }

    fn fail_sent(&self, state: &mut State, reason: &Arc<Closed>) {
        self.plane.counters.class(self.class).lost.fetch_add(state.sent.len() as u64, Relaxed);
        for (_, sent) in std::mem::take(&mut state.sent) {
            state.bytes -= sent.bytes;
            let _ = sent.reply.send(Err(PeerError::OutcomeUnknown { node: self.node, reason: Arc::clone(reason) }));
        }
    }

    fn fail_queued(&self, state: &mut State, queue: VecDeque<Queued>, reason: &NotSent) {
        for queued in queue {
            state.bytes -= queued.bytes;
            let _ = queued.reply.send(Err(self.not_sent(reason.clone())));
        }
    }
}

/// Keeps a connection to wherever the node is while somebody wants one, until the node has no address any more, or
/// `stop` turns true or its sender is gone.
pub(super) async fn run(
    line: Arc<Line>,
    names: Arc<Names>,
    numbers: Arc<AtomicU64>,
    mut address: watch::Receiver<Option<PeerAddress>>,
    mut stop: watch::Receiver<bool>,
) {
    let (plane, options) = (&line.plane, &line.plane.options);
    let mut backoff = Backoff::default();
    let reason = loop {
        let Some(to) = address.borrow_and_update().clone() else { break NotSent::NoAddress };
        let attempt = async {
            line.demand().await;
            backoff.wait().await;
            dial(plane, &names, &to, line.class).await
        };
        let dialled = tokio::select! {
            dialled = attempt => dialled,
            changed = address.changed() => match changed {
                Ok(()) => {
                    backoff = Backoff::default();
                    continue;
                }
                Err(_) => break NotSent::Stopping,
            },
            () = stopped(&mut stop) => break NotSent::Stopping,
        };
        match dialled {
            Ok(dialled) => {
                let connection = Connection { number: numbers.fetch_add(1, Relaxed) + 1, process: dialled.process };
                let began = Instant::now();
                line.connected(connection);
                let closed = Link::new(&line, dialled).run(&mut address, &mut stop).await;
                plane.ended(line.node, line.class, &closed);
                match closed {
                    Closed::Moved => backoff = Backoff::default(),
                    _ => backoff.step_after(began.elapsed(), options, &*plane.entropy),
                }
                line.lost(closed);
            }
            Err(error) => {
                plane.not_reached(line.node, line.class, &error);
                backoff.step(options, &*plane.entropy);
                line.failed(error);
            }
        }
    };
    line.retire(reason);
}

/// The wait before the next attempt.
#[derive(Debug, Default)]
struct Backoff {
    /// Attempts that led to nothing since one that did.
    attempts: u32,
    until: Option<Instant>,
}

impl Backoff {
    async fn wait(&self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
    }

    fn step(&mut self, options: &Options, entropy: &dyn Entropy) {
        let full = options.backoff_first.saturating_mul(1 << self.attempts.min(16)).min(options.backoff_last);
        self.attempts += 1;
        self.until = Instant::now().checked_add(jittered(full, entropy));
    }

    /// A connection that did not last is no success.
    fn step_after(&mut self, lasted: Duration, options: &Options, entropy: &dyn Entropy) {
        if lasted >= options.backoff_last {
            self.attempts = 0;
        }
        self.step(options, entropy);
    }
}

/// Between half of a time and all of it, so that nodes that lost each other at once do not come back at once.
fn jittered(full: Duration, entropy: &dyn Entropy) -> Duration {
    let mut random = [0; 2];
    entropy.fill(&mut random);
    let share = u32::from(u16::from_be_bytes(random));
    full / 2 + full / 2 * share / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededEntropy;

    #[tokio::test(start_paused = true)]
    async fn attempts_back_off_with_jitter_and_a_lasting_connection_begins_anew() {
        let (options, entropy) = (Options::default(), SeededEntropy::new(1));
        let mut backoff = Backoff::default();
        let waited = |backoff: &mut Backoff, lasted: Option<u64>| {
            match lasted {
                Some(millis) => backoff.step_after(Duration::from_millis(millis), &options, &entropy),
                None => backoff.step(&options, &entropy),
            }
            (backoff.until.unwrap() - Instant::now()).as_millis()
        };
        for full in [50, 100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            let wait = waited(&mut backoff, None);
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
        assert!(waited(&mut backoff, Some(1999)) >= 1000, "it did not last");
        assert!(waited(&mut backoff, Some(2000)) <= 50);
    }
}
