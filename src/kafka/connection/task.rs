//! The loop of one connection: what it waits for, and in which order it does things.
//!
//! Everything happens in one task, so nothing here is shared or locked. Turning a request into an answer, and an
//! outcome into bytes, is all that it decides; the meaning of a request is the service's.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Closed, Peer, Wire};
use crate::kafka::encode::Rope;
use crate::kafka::request::{ConnectionContext, Outcome, ParseError, Parsed, Reply, Request, parse};
use crate::kafka::versions::{Api, UNSUPPORTED_VERSION};
use crate::net::{Progress, Transport};

/// Finished answers are gathered up to this many bytes before they are written; more wait in their futures.
const GATHER_BYTES: u64 = 1024 * 1024;
/// After so long without traffic a connection gives its read buffer back.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// A connection is never muted for longer, whatever its client used: it would hold its place for ever.
const MUTE_MAX: Duration = Duration::from_secs(3600);

/// What is kept of a request until it is answered.
#[derive(Debug)]
struct Ticket {
    api: &'static Api,
    /// Charged to the connection's budget.
    bytes: usize,
    /// Length of the answer, once it is known.
    answer_bytes: usize,
    taken: Instant,
}

/// A request in its first phase.
struct FirstPhase<'a> {
    ticket: Ticket,
    reply: BoxFuture<'a, Reply>,
}

/// A request behind its first phase, waiting for its turn.
struct Pending {
    ticket: Option<Ticket>,
    work: Work,
}

enum Work {
    Finished(Option<Outcome>),
    SecondPhase(BoxFuture<'static, Outcome>),
}

impl Future for Pending {
    type Output = (Ticket, Outcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.work {
            Work::Finished(outcome) => outcome.take(),
            Work::SecondPhase(work) => Some(ready!(work.as_mut().poll(cx))),
        };
        match (self.ticket.take(), outcome) {
            (Some(ticket), Some(outcome)) => Poll::Ready((ticket, outcome)),
            // Only after it was ready, when nobody polls it.
            _ => Poll::Pending,
        }
    }
}

/// A connection that takes no new bytes any more.
#[derive(Debug)]
struct Ending {
    reason: Closed,
    until: Instant,
    /// Whole requests that have arrived are still begun: a producer with acks=0 may send and close.
    begin_buffered: bool,
}

pub(super) struct Connection<'w, S> {
    wire: &'w Wire,
    transport: Transport<S>,
    context: Arc<ConnectionContext>,
    expires: Option<Instant>,
    /// A request that waits for room in the budget.
    waiting: Option<Parsed>,
    pending: FuturesOrdered<Pending>,
    /// Requests answered but not yet written, each with the position of the outgoing stream after it.
    answered: VecDeque<(u64, Ticket)>,
    open_requests: usize,
    open_bytes: usize,
    /// Bytes of answers that are known and not yet written, in `pending` and in the transport.
    answer_bytes: usize,
    ending: Option<Ending>,
    /// Until then nothing is read and no request is begun (KIP-219).
    muted_until: Option<Instant>,
    last_progress: Instant,
    frame_began: Option<Instant>,
}

impl<'w, S: AsyncRead + AsyncWrite + Unpin> Connection<'w, S> {
    pub(super) fn new(wire: &'w Wire, stream: S, peer: Peer) -> Self {
        let context = ConnectionContext {
            connection_id: wire.next_connection.fetch_add(1, Relaxed),
            listener: peer.listener,
            peer_addr: peer.addr,
            principal: peer.principal,
            software: OnceLock::new(),
        };
        Connection {
            wire,
            transport: Transport::new(stream, wire.options.request_bytes_max),
            context: Arc::new(context),
            expires: peer.expires,
            waiting: None,
            pending: FuturesOrdered::new(),
            answered: VecDeque::new(),
            open_requests: 0,
            open_bytes: 0,
            answer_bytes: 0,
            ending: None,
            muted_until: None,
            last_progress: Instant::now(),
            frame_began: None,
        }
    }

    /// Serves until the connection ends, and says why.
    pub(super) async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Closed {
        let wire = self.wire;
        let mut first: Option<FirstPhase<'_>> = None;
        let mut timer = pin!(sleep_until(self.next_wake(false)));
        let mut stopped = pin!(async move { stop.wait_for(|stop| *stop).await.map(|_| ()) });
        loop {
            if first.is_none()
                && let Some((ticket, request)) = self.next_request()
            {
                first = Some(FirstPhase { ticket, reply: wire.service.begin(request) });
            }
            if first.is_none() && self.is_drained() {
                return self.ending.take().map_or(Closed::ByPeer, |ending| ending.reason);
            }
            let wake = self.next_wake(first.is_some());
            if wake < timer.deadline() {
                timer.as_mut().reset(wake);
            }
            let want_read = self.wants_read();
            let can_gather = !self.pending.is_empty() && self.transport.queued_bytes() < GATHER_BYTES;
            // Writing comes after everything that may add to what is written.
            tokio::select! {
                biased;
                reply = poll_first(&mut first), if first.is_some() => {
                    if let Some(FirstPhase { ticket, .. }) = first.take() {
                        self.take_reply(ticket, reply);
                    }
                }
                Some((ticket, outcome)) = self.pending.next(), if can_gather => self.answer(ticket, outcome),
                progress = poll_fn(|cx| self.transport.poll_progress(cx, want_read)),
                    if want_read || self.transport.wants_write() => match progress {
                        Ok(progress) => self.note_progress(progress),
                        Err(e) => return Closed::Io(e),
                    },
                () = &mut timer => {
                    let now = Instant::now();
                    if let Some(reason) = self.overdue(now, first.is_some()) {
                        return reason;
                    }
                    timer.as_mut().reset(self.next_wake(first.is_some()));
                }
                _ = &mut stopped, if self.ending.is_none() => self.end(Closed::Stopping, false),
            }
            if self.ending.as_ref().is_some_and(|ending| matches!(ending.reason, Closed::ByService(_))) {
                // Nothing after that request is answered any more.
                first = None;
            }
        }
    }

    pub(super) fn context(&self) -> &ConnectionContext {
        &self.context
    }

    pub(super) async fn say_goodbye(&mut self) -> io::Result<()> {
        self.transport.shutdown().await
    }

    /// The next request that may be begun.
    fn next_request(&mut self) -> Option<(Ticket, Request)> {
        if self.is_muted() {
            return None;
        }
        loop {
            if self.ending.as_ref().is_some_and(|ending| !ending.begin_buffered) {
                return None;
            }
            let parsed = match self.waiting.take() {
                Some(parsed) => parsed,
                None => match self.next_parsed() {
                    Ok(parsed) => parsed?,
                    Err(Closed::Request(ParseError::ApiVersions { answer })) => {
                        self.answer_api_versions(answer);
                        continue;
                    }
                    Err(reason) => {
                        self.end(reason, false);
                        return None;
                    }
                },
            };
            if !self.admits(parsed.bytes) {
                self.waiting = Some(parsed);
                self.frame_began = None;
                return None;
            }
            let Parsed { request, bytes } = parsed;
            return Some((self.admit(request.to.api, bytes), request));
        }
    }

    fn next_parsed(&mut self) -> Result<Option<Parsed>, Closed> {
        let Some(frame) = self.transport.reader.next_frame()? else {
            if !self.transport.reader.is_inside_frame() {
                self.frame_began = None;
            } else if self.frame_began.is_none() {
                self.frame_began = Some(Instant::now());
            }
            return Ok(None);
        };
        self.frame_began = None;
        let parsed = parse(frame, &self.context)?;
        self.wire.metrics.api(parsed.request.to.api).requests.fetch_add(1, Relaxed);
        Ok(Some(parsed))
    }

    fn admits(&self, bytes: usize) -> bool {
        let options = &self.wire.options;
        self.open_requests == 0
            || (self.open_requests < options.requests_max
                && self.open_bytes + bytes <= options.bytes_max
                && self.answer_bytes <= options.answer_bytes_max)
    }

    fn admit(&mut self, api: &'static Api, bytes: usize) -> Ticket {
        self.open_requests += 1;
        self.open_bytes += bytes;
        Ticket { api, bytes, answer_bytes: 0, taken: Instant::now() }
    }

    /// KIP-511: the one unsupported version that has an answer.
    fn answer_api_versions(&mut self, answer: Rope) {
        let Some(api) = Api::find(ApiKey::ApiVersions as i16) else { return };
        self.wire.metrics.api(api).requests.fetch_add(1, Relaxed);
        self.wire.metrics.count_error(api, UNSUPPORTED_VERSION);
        let ticket = self.admit(api, answer.len());
        self.take_reply(ticket, Reply::Now(Outcome::Send(answer)));
    }

    fn take_reply(&mut self, mut ticket: Ticket, reply: Reply) {
        let work = match reply {
            Reply::Now(outcome) if self.pending.is_empty() => return self.answer(ticket, outcome),
            Reply::Now(outcome) => {
                self.charge_answer(&mut ticket, &outcome);
                Work::Finished(Some(outcome))
            }
            Reply::Later(work) => Work::SecondPhase(work),
        };
        self.pending.push_back(Pending { ticket: Some(ticket), work });
    }

    /// Counts an answer until it is written.
    fn charge_answer(&mut self, ticket: &mut Ticket, outcome: &Outcome) {
        let bytes = outcome.bytes();
        self.answer_bytes = self.answer_bytes - ticket.answer_bytes + bytes;
        ticket.answer_bytes = bytes;
    }

    /// It is this request's turn.
    fn answer(&mut self, mut ticket: Ticket, outcome: Outcome) {
        self.last_progress = Instant::now();
        self.charge_answer(&mut ticket, &outcome);
        match outcome {
            Outcome::Send(rope) => self.transport.push(rope.into_pieces()),
            Outcome::Silent => {}
            Outcome::Throttled { answer, mute } => {
                answer.into_iter().for_each(|rope| self.transport.push(rope.into_pieces()));
                self.mute(mute);
            }
            Outcome::Close(reason) => {
                self.pending = FuturesOrdered::new();
                self.end(Closed::ByService(reason), false);
            }
        }
        self.answered.push_back((self.transport.pushed(), ticket));
        self.release_written();
    }

    fn mute(&mut self, time: Duration) {
        // What is too far away for the clock is far enough without.
        let until = Instant::now().checked_add(time.min(MUTE_MAX));
        self.muted_until = self.muted_until.max(until);
        // The frame that has begun to arrive is not slow; it is not read.
        self.frame_began = None;
    }

    /// Who says good-bye sends nothing more that could be too much: what has arrived from him is begun.
    fn is_muted(&self) -> bool {
        self.ending.is_none() && self.muted_until.is_some()
    }

    fn release_written(&mut self) {
        let written = self.transport.written();
        let mut now = None;
        while let Some((_, ticket)) = self.answered.pop_front_if(|(end, _)| *end <= written) {
            let now = *now.get_or_insert_with(Instant::now);
            self.wire.metrics.api(ticket.api).latency.observe(now - ticket.taken);
            self.open_requests -= 1;
            self.open_bytes -= ticket.bytes;
            self.answer_bytes -= ticket.answer_bytes;
        }
    }

    fn note_progress(&mut self, progress: Progress) {
        let metrics = &self.wire.metrics;
        self.last_progress = Instant::now();
        metrics.bytes_out.fetch_add(progress.written as u64, Relaxed);
        metrics.bytes_in.fetch_add(progress.read.unwrap_or(0) as u64, Relaxed);
        self.release_written();
        if progress.read == Some(0) {
            self.end(Closed::ByPeer, true);
        }
    }

    /// Stops reading. The first reason stands, but for the service's, which ends everything at once.
    fn end(&mut self, reason: Closed, begin_buffered: bool) {
        if self.ending.is_none() || matches!(reason, Closed::ByService(_)) {
            let until = Instant::now() + self.wire.options.drain_timeout;
            self.ending = Some(Ending { reason, until, begin_buffered });
            self.waiting = self.waiting.take().filter(|_| begin_buffered);
        } else if let Some(ending) = &mut self.ending {
            ending.begin_buffered &= begin_buffered;
        }
    }

    /// Whether a connection that is ending has nothing left to do. Asked when no request is in its first phase and
    /// no other can be begun.
    fn is_drained(&self) -> bool {
        self.ending.is_some() && self.waiting.is_none() && self.pending.is_empty() && !self.transport.wants_write()
    }

    /// One whole frame ahead is enough.
    fn wants_read(&self) -> bool {
        self.ending.is_none() && !self.is_muted() && self.waiting.is_none() && !self.transport.reader.has_frame()
    }

    /// Whether the service owes anything. Finished answers that the peer does not read do not count.
    fn is_working(&self, first_phase: bool) -> bool {
        first_phase || (!self.pending.is_empty() && self.transport.queued_bytes() < GATHER_BYTES)
    }

    /// The earliest moment at which [`Connection::overdue`] may have something to do.
    fn next_wake(&self, first_phase: bool) -> Instant {
        let options = &self.wire.options;
        let idle = self.last_progress + options.idle_timeout;
        let moments = [
            self.frame_began.filter(|_| self.wants_read()).map(|began| began + options.frame_timeout),
            self.ending.as_ref().map(|ending| ending.until),
            self.expires,
            self.muted_until,
            self.transport.reader.can_release().then(|| self.last_progress + RELEASE_AFTER),
            (!self.is_working(first_phase) && !self.is_muted()).then_some(idle),
        ];
        // While only the service has work nothing is due; what it finishes asks again.
        moments.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + options.idle_timeout)
    }

    /// What is due by now: the reason to close, if any. An idle buffer is given back on the way.
    fn overdue(&mut self, now: Instant, first_phase: bool) -> Option<Closed> {
        let options = &self.wire.options;
        if self.ending.as_ref().is_some_and(|ending| ending.until <= now) {
            return self.ending.take().map(|ending| ending.reason);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return Some(Closed::Expired);
        }
        if self.muted_until.is_some_and(|until| until <= now) {
            self.muted_until = None;
            self.last_progress = now;
        }
        if self.wants_read() && self.frame_began.is_some_and(|began| began + options.frame_timeout <= now) {
            return Some(Closed::SlowFrame(options.frame_timeout));
        }
        if !self.is_working(first_phase) && !self.is_muted() && self.last_progress + options.idle_timeout <= now {
            return Some(Closed::Idle(options.idle_timeout));
        }
        if self.last_progress + RELEASE_AFTER <= now {
            self.transport.reader.release();
        }
        None
    }
}

async fn poll_first(first: &mut Option<FirstPhase<'_>>) -> Reply {
    match first {
        Some(phase) => phase.reply.as_mut().await,
        None => std::future::pending().await,
    }
}
