//! Tests of consumer groups through the coordinator: golden transcripts, clients that follow the protocol, and random
//! requests that do not.

mod clients;
mod random;
mod render;
mod script;
mod size;
mod transcript;
mod world;
