//! The cluster: leases, and what the quorum's leader decides about brokers, ledgers and leaders.

mod balance;
mod controller;
mod controller_run;
mod heartbeat;
mod lease;
mod spread;

#[cfg(test)]
mod controller_tests;

pub use controller_run::{ControllerParts, Recoverer, run as run_controller};
pub use heartbeat::{Facts, Fenced, Grants, HeartbeatService, Heartbeats};
pub use lease::{Heartbeat, Leases, Verdict};
