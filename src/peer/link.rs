//! The asking end of a connection: requests of a line go out, answers come back.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ClassLimits;
use super::dial::Dialled;
use super::error::Closed;
use super::frame::{Frame, HEADER_BYTES, Kind, head};
use super::hello::clean;
use super::line::{Answered, Line};
use super::metrics::{ClassCounters, Open};
use super::peers::PeerAddress;
use super::plane::stopped;
use super::pulse::Pulse;
use crate::base::limits::PEER_REFUSAL_BYTES_MAX;
use crate::net::{Progress, Transport};
use crate::security::{NodeCertificate, NodeStream};

/// Requests are handed over up to this many bytes ahead of the socket; more wait where they can still be taken back.
const GATHER_BYTES: u64 = 256 * 1024;

pub(super) struct Link<'l> {
    line: &'l Line,
    counters: &'l ClassCounters,
    limits: &'l ClassLimits,
    certificate: NodeCertificate,
    transport: Transport<NodeStream>,
    pulse: Pulse,
    _open: Open<'l>,
}

impl<'l> Link<'l> {
    pub fn new(line: &'l Line, dialled: Dialled) -> Link<'l> {
        let (counters, limits) = (line.plane.counters.class(line.class), line.plane.options.class(line.class));
        Link {
            line,
            counters,
            limits,
            certificate: dialled.certificate,
            transport: Transport::new(dialled.stream, HEADER_BYTES + limits.body_bytes_max.max(PEER_REFUSAL_BYTES_MAX)),
            pulse: Pulse::new(limits, Instant::now()),
            _open: Open::new(&counters.dialled),
        }
    }

    /// Carries requests until the connection ends, and says why.
    pub async fn run(
        &mut self,
        address: &mut watch::Receiver<Option<PeerAddress>>,
        stop: &mut watch::Receiver<bool>,
    ) -> Closed {
        let mut looks = interval(self.pulse.look_every());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.line.plane.allow.changes();
        // The list may have changed since the certificate was judged.
        changes.mark_changed();
        loop {
            if let Err(closed) = self.take_answers() {
                return closed;
            }
            self.send_requests();
            let turn = tokio::select! {
                biased;
                () = stopped(stop) => Err(Closed::Stopping),
                _ = address.changed() => Err(Closed::Moved),
                Ok(()) = changes.changed() => self.is_welcome(),
                _ = looks.tick() => self.look(),
                () = self.line.wake.notified() => Ok(()),
                progress = poll_fn(|cx| self.transport.poll_progress(cx, true)) => match progress {
                    Ok(progress) => self.note(progress),
                    Err(error) => Err(Closed::Io(error)),
                },
            };
            if let Err(closed) = turn {
                return closed;
            }
        }
    }

    fn is_welcome(&self) -> Result<(), Closed> {
        self.line.plane.welcomes(&self.certificate, self.line.node, self.line.class)
    }

    fn send_requests(&mut self) {
        while self.transport.queued_bytes() < GATHER_BYTES
            && let Some((id, body)) = self.line.take_next()
        {
            self.transport.push([head(Kind::Request, id, body.bytes())]);
            self.transport.push(body.into_pieces());
        }
    }

    fn take_answers(&mut self) -> Result<(), Closed> {
        while let Some(frame) = self.transport.reader.next_frame()? {
            self.pulse.frame_ended();
            let Frame { kind, id, body } = Frame::decode(frame)?;
            match kind {
                Kind::Answer if body.len() > self.limits.body_bytes_max => {
                    return Err(Closed::Protocol("an answer is larger than its class carries"));
                }
                Kind::Answer => self.line.answered(id, Answered::Body(body))?,
                Kind::Unanswered => self.line.answered(id, Answered::TooLarge)?,
                Kind::Refusal => {
                    let text = String::from_utf8_lossy(&body[..body.len().min(PEER_REFUSAL_BYTES_MAX)]);
                    self.line.answered(id, Answered::Refused(clean(&text, PEER_REFUSAL_BYTES_MAX)))?;
                }
                Kind::Alive => {}
                Kind::Request => return Err(Closed::Protocol("it asks on a connection that answers")),
            }
        }
        self.pulse.inside_frame(self.transport.reader.is_inside_frame(), Instant::now());
        Ok(())
    }

    fn note(&mut self, progress: Progress) -> Result<(), Closed> {
        let now = Instant::now();
        if progress.written > 0 {
            self.pulse.spoke(now);
            self.counters.bytes_out.fetch_add(progress.written as u64, Relaxed);
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
        let now = Instant::now();
        self.is_welcome()?;
        self.pulse.look(now, true)?;
        // What a large message needed is not kept by an idle connection.
        self.transport.reader.release();
        if self.pulse.should_speak(now) && !self.transport.wants_write() {
            self.transport.push([head(Kind::Alive, 0, 0)]);
        }
        Ok(())
    }
}
