//! The Kafka protocol: from bytes of a socket to a decoded request, and from an answer to bytes.
//!
//! - [`listener`] accepts connections within limits and runs the handshake off the accept path.
//! - [`connection`] is one task per connection: reads frames, starts requests in order, lets their second
//!   phases overlap, and writes responses strictly in request order.
//! - [`walker`] checks every length of a request before anything is decoded; [`request`] decodes.
//! - [`throttle`] measures requests against quotas, [`connection`] mutes who is over his.
//! - [`versions`] is the one table of APIs; [`encode`] makes responses; [`metrics`] counts.
//!
//! The wire layer knows nothing of topics or storage: all meaning is behind [`Service`]. It never allocates by a
//! length that a peer claims, never answers out of order, and never lets one connection's fault reach another.

pub mod connection;
pub mod encode;
pub mod handlers;
pub mod listener;
#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod messages_tests;
pub mod metrics;
pub mod request;
#[cfg(test)]
mod samples;
pub mod throttle;
pub mod versions;
pub mod walker;

pub use encode::Rope;
pub use metrics::WireMetrics;
pub use request::{ConnectionContext, Outcome, Reply, ReplyTo, Request, RequestBody, Service};
