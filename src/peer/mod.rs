//! The peer plane: how the nodes of a cluster reach each other, and nothing about what they say.
//!
//! - [`Server`] accepts nodes, [`Peers`] dials them; both stand on one [`Plane`], this node's identity and its list of
//!   nodes ([`AllowList`]).
//! - A connection is mutual TLS and then a hello in both directions (`hello.rs`): who is meant, who is there, which
//!   cluster, which protocol. It carries one [`Class`] of traffic.
//! - Requests and answers are frames (`frame.rs`) with bodies that are opaque here. Requests reach a [`Service`] in the
//!   order in which they were sent; answers come in any order.
//!
//! Invariants: nobody is served whose certificate's subject is not on the list for the node that it claims to be, and
//! a connection ends within a second of its node leaving the list or its certificate expiring. Between two nodes there
//! is at most one connection for each class and direction, so a full class holds up no other. Two processes never have
//! connections under one node's name at once. What is under way on a connection is bounded in number and bytes, and no
//! claimed length allocates. A request whose sender is told that it was not sent was never handed to a connection.

mod class;
mod complaints;
mod dial;
mod dispatch;
mod doorstep;
mod error;
mod frame;
mod guests;
mod hello;
mod line;
mod link;
mod metrics;
mod peers;
mod plane;
mod pulse;
mod roster;
mod server;
mod serving;
#[cfg(test)]
mod tests;

pub use class::{Class, ClassLimits, Options};
pub use dispatch::{Dispatch, Late, kind};
pub use error::{Closed, DialError, NotSent, PeerError};
pub use frame::{BadFrame, Body, Frame, Kind};
pub use hello::{BadHello, Hello, HelloAnswer, Own, PROTOCOL_MAX, PROTOCOL_MIN, Reason, Refusal};
pub use line::Reply;
pub use metrics::{ClassMetrics, Metrics};
pub use peers::{Channel, Connection, PeerAddress, Peers};
pub use plane::Plane;
pub use roster::{AllowList, Roster, Standing};
pub use server::{Router, Server};
pub use serving::{Answer, Answering, Caller, Refused, Service};
