//! The listener for operators and their tools: `/metrics`, `/live`, `/ready`.
//!
//! Mutual TLS under `casemate serve`: any client with a certificate of the configured authority may read, nobody may
//! change anything. Plain HTTP under `casemate dev`, on loopback. Nothing here touches the path of records: it reads
//! counters, in bounded memory, over a bounded number of connections.

mod health;
mod metrics;
mod pages;
mod process;
mod server;

pub use health::{Health, Verdict};
pub use metrics::{Buckets, Collect, Family, Label, MetricsWriter};
pub use process::ProcessMetrics;
pub use server::serve;
