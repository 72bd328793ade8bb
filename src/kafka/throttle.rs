//! Measures requests against the quotas of their clients, and has the connection muted that is over (KIP-219).
//!
//! A service around the one that means something. While nobody has a quota it costs one relaxed load. Else it measures
//! how long a request is worked on, and where the handler has not done so itself, writes the throttle time into the
//! encoded answer: nearly every answer begins with it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;

use super::encode::{LENGTH_PREFIX_BYTES, Rope, response_header_bytes};
use super::metrics::WireMetrics;
use super::request::{Outcome, Reply, ReplyTo, Request, Service};
use crate::broker::quota::{Client, Meter, QuotaManager};
use crate::env::Clock;

/// See the module's documentation.
pub struct Throttling {
    inner: Arc<dyn Service>,
    quotas: Arc<QuotaManager>,
    clock: Arc<dyn Clock>,
    metrics: Arc<WireMetrics>,
}

impl Throttling {
    pub fn new(
        inner: Arc<dyn Service>,
        quotas: Arc<QuotaManager>,
        clock: Arc<dyn Clock>,
        metrics: Arc<WireMetrics>,
    ) -> Throttling {
        Throttling { inner, quotas, clock, metrics }
    }
}

impl Service for Throttling {
    fn begin(&self, mut request: Request) -> BoxFuture<'_, Reply> {
        if !self.quotas.measures_requests() {
            return self.inner.begin(request);
        }
        let client = Client {
            user: request.context.principal.name().into(),
            id: request.client_id.as_deref().unwrap_or_default().into(),
        };
        let meter = Arc::new(Meter::new(self.quotas.clone(), self.clock.clone(), client));
        request.meter = Some(meter.clone());
        let end = End { to: request.to, meter: meter.clone(), metrics: self.metrics.clone() };
        let first = Measured { meter: meter.clone(), work: self.inner.begin(request) };
        Box::pin(async move {
            match first.await {
                Reply::Now(outcome) => Reply::Now(end.settle(outcome)),
                Reply::Later(work) => Reply::later(async move { end.settle(Measured { meter, work }.await) }),
            }
        })
    }
}

/// Work whose time counts.
struct Measured<F> {
    meter: Arc<Meter>,
    work: F,
}

impl<F: Future + Unpin> Future for Measured<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Measured { meter, work } = self.get_mut();
        meter.working(|| Pin::new(work).poll(cx))
    }
}

/// What is done with the outcome of a measured request.
struct End {
    to: ReplyTo,
    meter: Arc<Meter>,
    metrics: Arc<WireMetrics>,
}

impl End {
    fn settle(self, outcome: Outcome) -> Outcome {
        let told = self.meter.is_settled();
        let throttle_ms = self.meter.settle();
        let Ok(ms @ 1..) = u64::try_from(throttle_ms) else { return outcome };
        let answer = match outcome {
            Outcome::Send(rope) if told => Some(rope),
            Outcome::Send(rope) => Some(with_throttle_time(self.to, rope, throttle_ms)),
            Outcome::Silent => None,
            other => return other,
        };
        self.metrics.throttled.fetch_add(1, Relaxed);
        self.metrics.throttled_ms.fetch_add(ms, Relaxed);
        Outcome::Throttled { answer, mute: Duration::from_millis(ms) }
    }
}

/// The same answer with this throttle time. One that has no place for it is left as it is.
fn with_throttle_time(to: ReplyTo, rope: Rope, throttle_ms: i32) -> Rope {
    let head = LENGTH_PREFIX_BYTES + response_header_bytes(to);
    let mut pieces = rope.into_pieces();
    let place = pieces.first().and_then(|first| first.get(head..)).and_then(|body| place(to, body));
    if let (Some(place), Some(first)) = (place, pieces.first_mut()) {
        let mut patched = first.to_vec();
        if let Some(field) = patched.get_mut(head + place..head + place + 4) {
            field.copy_from_slice(&throttle_ms.to_be_bytes());
            *first = Bytes::from(patched);
        }
    }
    let mut rope = Rope::with_capacity(pieces.len());
    pieces.into_iter().for_each(|piece| rope.push(piece));
    rope
}

/// Where in an answer's body the throttle time is; None where it has none, and for Produce, whose handler writes it.
fn place(to: ReplyTo, body: &[u8]) -> Option<usize> {
    let first_since = match to.api.key {
        ApiKey::Produce | ApiKey::DescribeQuorum | ApiKey::WriteTxnMarkers => return None,
        ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => return None,
        ApiKey::ApiVersions => return after_api_keys(to.version, body),
        // Behind the error code.
        ApiKey::OffsetDelete => return Some(2),
        ApiKey::ListOffsets | ApiKey::JoinGroup => 2,
        ApiKey::Metadata | ApiKey::OffsetCommit | ApiKey::OffsetFetch => 3,
        ApiKey::FindCoordinator
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups => 1,
        _ => 0,
    };
    (to.version >= first_since).then_some(0)
}

/// In ApiVersions the time stands behind the error code and the list of APIs.
fn after_api_keys(version: i16, body: &[u8]) -> Option<usize> {
    let list = body.get(2..)?;
    let (start, count, entry) = match version {
        ..=0 => return None,
        1 | 2 => (4, i32::from_be_bytes(*list.first_chunk()?), 6),
        // One more than their number, in one or two bytes of seven bits; each ends with an empty list of tags.
        _ => match *list {
            [one @ ..0x80, ..] => (1, i32::from(one) - 1, 7),
            [low, high @ ..0x80, ..] => (2, i32::from(low & 0x7f) + i32::from(high) * 128 - 1, 7),
            _ => return None,
        },
    };
    usize::try_from(count).ok().map(|count| 2 + start + count * entry)
}

#[cfg(test)]
mod tests;
