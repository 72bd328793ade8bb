//! The quorum of three to five nodes in one thread, under a seeded schedule, network, disks and clock.
//!
//! Everything of `quorum` is the real thing: openraft with the election, the proposers and what they forward, snapshots, members
//! and folders. Beneath it are a store in memory that keeps the promises of RocksDB's log and no more (`kv::memory`), a network that
//! loses, delays, repeats and is cut (`net`), and an executor that lets the seed decide which task goes on (`executor`). A process
//! is killed between any two steps, with the unsynced end of its log or without, or stopped and continued.
//!
//! A run is a function of its seed. Its trace is a hash over every message, write, step of a state machine, answer and fault; the
//! same seed gives the same one.
//!
//! **What must hold** is in `oracle`. Every node applies a prefix of one sequence, across crashes, snapshots and exchanged
//! members, and shows the image after it. Who was acknowledged has the answer of the command at its place, which is there once
//! and after everything that was answered before it was proposed; who was refused changed nothing. A barrier shows what was
//! answered before it began. A vote is not forgotten, no name of a log entry means two, a lost folder votes no more, a confirmed
//! leader is not replaced within its lease. And when all is mended, soon somebody commits and all come to the same.
//!
//! In openraft as it is built here a leader's name is its term and its node, and a voter may follow a second leader of the same
//! term whose node has the higher number: so "one leader in a term" is not among the promises, and what it is for is.

mod clients;
mod cluster;
mod executor;
mod faults;
mod net;
mod operator;
mod oracle;
mod runs;
mod runtime;

pub use runtime::Runtime;
