//! The answering end of a connection: requests reach the service in order, answers leave as they are ready.
//!
//! Everything happens in one task, so nothing here is shared or locked. Beyond the bounds of its class the connection
//! reads no further, and the peer's requests wait where they are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::Closed;
use super::frame::{Body, Frame, HEADER_BYTES, Kind, head};
use super::guests::Seat;
use super::hello::clean;
use super::metrics::ClassCounters;
use super::plane::{Plane, stopped};
use super::pulse::Pulse;
use super::{Class, ClassLimits, Standing};
use crate::base::NodeId;
use crate::base::limits::PEER_REFUSAL_BYTES_MAX;
use crate::net::{Progress, Transport, has_hung_up};
use crate::security::{NodeCertificate, NodeStream};

/// Finished answers are gathered up to this many bytes before they are written; more wait in their futures.
const GATHER_BYTES: u64 = 1024 * 1024;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub node: NodeId,
    /// The subject of its certificate, as RFC 2253 text.
    pub subject: Arc<str>,
    pub class: Class,
    /// Tells the node's processes apart.
    pub process: u64,
    /// Whether the node has not joined yet.
    pub joining: bool,
}

/// A request that the service did nothing for, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

pub type Answer = Result<Body, Refused>;
/// The second phase of a request. It is dropped if the connection ends first: what must be finished is not in it.
pub type Answering = BoxFuture<'static, Answer>;

/// What requests of one class mean.
pub trait Service: Send + Sync {
    /// The first phase: called in the order in which the caller sent its requests, one at a time for each connection.
    /// Must not block. The future is polled beside those of later requests, and whichever is ready first is answered
    /// first. Of an answer over the class's bound the caller learns only that there was one.
    fn call(&self, from: &Caller, request: Bytes) -> Answering;
}

/// Bytes that count against the bound, until the peer has taken the outgoing stream up to a position.
struct Unwritten {
    position: u64,
    bytes: usize,
}

/// A request behind its first phase.
struct Pending {
    id: u64,
    bytes: usize,
    answering: Answering,
}

impl Future for Pending {
    type Output = (u64, usize, Answer);

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.answering.as_mut().poll(cx).map(|answer| (self.id, self.bytes, answer))
    }
}

pub(super) struct Serving<'p> {
    plane: &'p Plane,
    limits: &'p ClassLimits,
    counters: &'p ClassCounters,
    service: Arc<dyn Service>,
    caller: Caller,
    certificate: NodeCertificate,
    transport: Transport<NodeStream>,
    pulse: Pulse,
    pending: FuturesUnordered<Pending>,
    /// Requests answered but not wholly written.
    unwritten: VecDeque<Unwritten>,
    /// A request that waits for room.
    waiting: Option<Frame>,
    last_id: u64,
    open_bytes: usize,
    /// When what is left is abandoned, once the node stops.
    ending: Option<Instant>,
}

impl<'p> Serving<'p> {
    pub fn new(
        plane: &'p Plane,
        service: Arc<dyn Service>,
        caller: Caller,
        certificate: NodeCertificate,
        stream: NodeStream,
    ) -> Serving<'p> {
        let limits = plane.options.class(caller.class);
        Serving {
            plane,
            limits,
            counters: plane.counters.class(caller.class),
            service,
            caller,
            certificate,
            transport: Transport::new(stream, HEADER_BYTES + limits.body_bytes_max),
            pulse: Pulse::new(limits, Instant::now()),
            pending: FuturesUnordered::new(),
            unwritten: VecDeque::new(),
            waiting: None,
            last_id: 0,
            open_bytes: 0,
            ending: None,
        }
    }

    /// Serves until the connection ends, and says why. Stops when `stop` turns true or its sender is gone.
    pub async fn run(&mut self, seat: &mut Seat, mut stop: watch::Receiver<bool>) -> Closed {
        let mut looks = interval(self.pulse.look_every());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.plane.allow.changes();
        // The list may have changed since the hello was judged.
        changes.mark_changed();
        loop {
            if let Err(closed) = self.begin_requests() {
                return closed;
            }
            if self.ending.is_some() && self.pending.is_empty() && !self.transport.wants_write() {
                return Closed::Stopping;
            }
            let want_read = self.wants_read();
            let can_gather = !self.pending.is_empty() && self.transport.queued_bytes() < GATHER_BYTES;
            let turn = tokio::select! {
                biased;
                () = seat.wanted() => Err(Closed::Replaced),
                () = stopped(&mut stop), if self.ending.is_none() => {
                    self.ending = Some(Instant::now() + self.plane.options.drain_timeout);
                    self.waiting = None;
                    Ok(())
                }
                Ok(()) = changes.changed() => self.judge_again(),
                _ = looks.tick() => self.look(),
                Some((id, bytes, answer)) = self.pending.next(), if can_gather => {
                    self.answer(id, bytes, answer);
                    Ok(())
                }
                progress = poll_fn(|cx| self.transport.poll_progress(cx, want_read)),
                    if want_read || self.transport.wants_write() => match progress {
                        Ok(progress) => self.note(progress),
                        Err(error) => Err(Closed::Io(error)),
                    },
            };
            if let Err(closed) = turn {
                return closed;
            }
        }
    }

    /// Half-closes the stream, so that the peer sees an orderly end.
    pub async fn say_goodbye(&mut self) {
        // The peer may be gone already; there is nobody to tell.
        let _ = self.transport.shutdown().await;
    }

    /// The list has changed: the node may have joined, or left.
    fn judge_again(&mut self) -> Result<(), Closed> {
        let standing = self.plane.allow.standing(&self.caller.subject);
        self.caller.joining = matches!(standing, Standing::Joining(_));
        self.is_welcome()
    }

    fn is_welcome(&self) -> Result<(), Closed> {
        self.plane.welcomes(&self.certificate, self.caller.node, self.caller.class)
    }

    /// Begins what has arrived, in order, as far as there is room.
    fn begin_requests(&mut self) -> Result<(), Closed> {
        while self.ending.is_none() {
            let Some(frame) = self.next_frame()? else { break };
            match frame.kind {
                Kind::Request => {}
                Kind::Alive => continue,
                Kind::Answer | Kind::Refusal | Kind::Unanswered => {
                    return Err(Closed::Protocol("it answers on a connection that asks"));
                }
            }
            if !self.admits(frame.body.len()) {
                self.waiting = Some(frame);
                break;
            }
            if frame.id <= self.last_id {
                return Err(Closed::Protocol("the ids of its requests do not ascend"));
            }
            self.last_id = frame.id;
            self.counters.requests_in.fetch_add(1, Relaxed);
            let bytes = frame.body.len();
            self.open_bytes += bytes;
            let answering = self.service.call(&self.caller, frame.body);
            self.pending.push(Pending { id: frame.id, bytes, answering });
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, Closed> {
        if let Some(frame) = self.waiting.take() {
            return Ok(Some(frame));
        }
        let frame = self.transport.reader.next_frame()?.map(Frame::decode).transpose()?;
        match frame {
            Some(_) => self.pulse.frame_ended(),
            None => self.pulse.inside_frame(self.transport.reader.is_inside_frame(), Instant::now()),
        }
        Ok(frame)
    }

    fn admits(&self, bytes: usize) -> bool {
        let open = self.pending.len() + self.unwritten.len();
        open == 0 || (open < self.limits.requests_max && self.open_bytes + bytes <= self.limits.bytes_max)
    }

    /// One whole frame ahead is enough.
    fn wants_read(&self) -> bool {
        self.ending.is_none() && self.waiting.is_none() && !self.transport.reader.has_frame()
    }

    fn answer(&mut self, id: u64, request_bytes: usize, answer: Answer) {
        let max = self.limits.body_bytes_max;
        let (kind, body) = match answer {
            Ok(body) if body.bytes() > max => {
                let bytes = body.bytes();
                tracing::error!(class = %self.caller.class, bytes, max, "an answer is too large and was not sent");
                // No refusal: what was asked for may have been done.
                (Kind::Unanswered, Body::default())
            }
            Ok(body) => (Kind::Answer, body),
            Err(Refused(text)) => (Kind::Refusal, Body::from(Bytes::from(clean(&text, PEER_REFUSAL_BYTES_MAX)))),
        };
        let bytes = body.bytes();
        self.open_bytes = self.open_bytes - request_bytes + bytes;
        self.transport.push([head(kind, id, bytes)]);
        self.transport.push(body.into_pieces());
        self.unwritten.push_back(Unwritten { position: self.transport.pushed(), bytes });
    }

    fn note(&mut self, progress: Progress) -> Result<(), Closed> {
        let now = Instant::now();
        if progress.written > 0 {
            self.pulse.spoke(now);
            self.counters.bytes_out.fetch_add(progress.written as u64, Relaxed);
            let written = self.transport.written();
            while let Some(done) = self.unwritten.pop_front_if(|answer| answer.position <= written) {
                self.open_bytes -= done.bytes;
            }
        }
        match progress.read {
            Some(0) => return Err(Closed::ByPeer),
            Some(bytes) => {
                self.pulse.heard(now);
                self.counters.bytes_in.fetch_add(bytes as u64, Relaxed);
            }
            None => {}
        }
        Ok(())
    }

    /// Looks at the clocks, and shows the peer that this end is there.
    fn look(&mut self) -> Result<(), Closed> {
        let (now, reading) = (Instant::now(), self.wants_read());
        if self.ending.is_some_and(|until| until <= now) {
            return Err(Closed::Stopping);
        }
        self.is_welcome()?;
        self.pulse.look(now, reading)?;
        self.pulse.look_at_answers(now, self.transport.wants_write())?;
        if !reading && has_hung_up(self.transport.stream().get_ref().0) {
            return Err(Closed::ByPeer);
        }
        // What a large message needed is not kept by an idle connection.
        self.transport.reader.release();
        if self.pulse.should_speak(now) && !self.transport.wants_write() {
            self.transport.push([head(Kind::Alive, 0, 0)]);
        }
        Ok(())
    }
}
