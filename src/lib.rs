//! Casemate: a Kafka-compatible event-streaming appliance in one static binary.
//!
//! The layers, lowest first. A module imports only from lower tiers, and each vendor crate has one home;
//! `tests/tidy.rs` reads this table and fails on an edge that it lacks.
//!
//! | tier | module | its one job | sole user of |
//! |---|---|---|---|
//! | 0 | base | ids, offsets, limits, checksums, the stored-byte codec | crc_fast, base64 |
//! | 1 | batch | view, verify and patch record batches | flate2, lz4_flex, snap, zstd |
//! | 1 | env | clock, entropy, disk, folder lock, terminal, failpoints | rustix, getrandom, zeroize |
//! | 1 | net | framed byte streams, sockets, host names | hickory_resolver, socket2 |
//! | 1 | metadata | commands, their pure application, the image | |
//! | 2 | kv | key families of the embedded store | rocksdb |
//! | 2 | group | decides what the group coordinator answers and writes, purely | |
//! | 2 | wal | segments, group commit, recovery | |
//! | 2 | security | TLS, principals, permits, the offline CA, join bundles | rustls, tokio_rustls, rcgen, aws_lc_rs, regex, zeroize |
//! | 3 | object | object format, cache, read-ahead, backends | object_store, hyper, hyper_util, quick_cache, tokio_rustls, toml |
//! | 3 | peer | connections between nodes: who is there, classes of traffic, requests in order | |
//! | 4 | quorum | runs Raft, publishes the image | openraft |
//! | 4 | store | the bundled store on several nodes: copies, quorums, repair | |
//! | 4 | ledger | replicated append, seal, recovery | |
//! | 5 | partition | sequence, watermark, tail, producer state | |
//! | 6 | group | decides for groups and committed offsets | regex |
//! | 6 | transaction | decides for transactions | |
//! | 7 | broker | registry, reconciler, uploader, merging, retention, compaction, hosts the coordinators | |
//! | 8 | kafka | framing, version table, handlers, error codes | kafka_protocol |
//! | 8 | cluster | forms the cluster, lends and takes leases, decides who leads | |
//! | 8 | admin | health and metrics over HTTP | axum, hyper, hyper_util |
//! | 9 | config, cli | options from file, environment and flags; commands | figment, toml, clap, tracing_subscriber |
//! | 9 | sim | the cluster's cores under a seeded clock, network and disks; tests only | |
//! | 10 | app | build, bind, serve, drain | tokio_rustls |

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod base;
pub mod batch;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod env;
pub mod group;
pub mod kafka;
pub mod kv;
pub mod ledger;
pub mod metadata;
pub mod net;
pub mod object;
pub mod partition;
pub mod peer;
pub mod quorum;
pub mod security;
#[cfg(test)]
mod sim;
pub mod store;
pub mod transaction;
pub mod wal;
