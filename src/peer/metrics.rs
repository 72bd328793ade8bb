//! Counters of the peer plane: plain numbers, no exposition format.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Class, Reason};

#[derive(Default)]
pub(super) struct Counters {
    classes: [ClassCounters; 4],
    /// By place in [`Reason::ALL`], which is the order of the enum.
    pub refused: [AtomicU64; Reason::ALL.len()],
    pub handshakes_failed: AtomicU64,
    pub hellos_failed: AtomicU64,
    pub cut: AtomicU64,
}

#[derive(Default)]
pub(super) struct ClassCounters {
    pub served: AtomicU64,
    pub dialled: AtomicU64,
    pub accepted: AtomicU64,
    pub dials: AtomicU64,
    pub dials_failed: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub requests_in: AtomicU64,
    pub requests_out: AtomicU64,
    pub declined: AtomicU64,
    pub lost: AtomicU64,
    pub full: AtomicU64,
    pub round_trips: AtomicU64,
    pub round_trip_micros: AtomicU64,
}

impl Counters {
    pub fn class(&self, class: Class) -> &ClassCounters {
        &self.classes[class.index()]
    }

    pub fn snapshot(&self) -> Metrics {
        let refused = Reason::ALL.iter().zip(&self.refused).map(|(reason, n)| (*reason, n.load(Relaxed)));
        Metrics {
            classes: Class::ALL.iter().map(|class| (*class, self.class(*class).snapshot())).collect(),
            refused: refused.collect(),
            handshakes_failed: self.handshakes_failed.load(Relaxed),
            hellos_failed: self.hellos_failed.load(Relaxed),
            cut: self.cut.load(Relaxed),
        }
    }
}

impl ClassCounters {
    fn snapshot(&self) -> ClassMetrics {
        ClassMetrics {
            served: self.served.load(Relaxed),
            dialled: self.dialled.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            dials: self.dials.load(Relaxed),
            dials_failed: self.dials_failed.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            requests_in: self.requests_in.load(Relaxed),
            requests_out: self.requests_out.load(Relaxed),
            declined: self.declined.load(Relaxed),
            lost: self.lost.load(Relaxed),
            full: self.full.load(Relaxed),
            round_trips: self.round_trips.load(Relaxed),
            round_trip_micros: self.round_trip_micros.load(Relaxed),
        }
    }
}

/// Counts a connection for as long as it is open.
pub(super) struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    pub fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Relaxed);
        Open(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Counts since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub classes: BTreeMap<Class, ClassMetrics>,
    /// Connections that were refused at their hello.
    pub refused: BTreeMap<Reason, u64>,
    /// Connections whose TLS handshake failed.
    pub handshakes_failed: u64,
    /// Connections that ended, or were too slow, between the handshake and the answer to their hello.
    pub hellos_failed: u64,
    /// Connections cut for newer ones before they had said who they are.
    pub cut: u64,
}

/// Counts of one class; bytes are those of frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassMetrics {
    /// Connections that other nodes have open to this one, now.
    pub served: u64,
    /// Connections that this node has open to others, now.
    pub dialled: u64,
    /// Connections that were accepted, and dialled with success, ever.
    pub accepted: u64,
    pub dials: u64,
    pub dials_failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub requests_in: u64,
    pub requests_out: u64,
    /// Requests of this node that the other refused.
    pub declined: u64,
    /// Requests of this node whose connection ended before the answer.
    pub lost: u64,
    /// Requests of this node that were not sent because too much was under way.
    pub full: u64,
    /// Requests of this node that were answered, and the sum of the times that they took.
    pub round_trips: u64,
    pub round_trip_micros: u64,
}
