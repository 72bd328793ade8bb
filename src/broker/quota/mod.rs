//! Client quotas (KIP-13, KIP-55, KIP-124, KIP-599, KIP-612): how much a client may use, what it used, and how long
//! its connection is muted for it (KIP-219).
//!
//! [`limits`] finds the quota of a client; [`rate`] measures; [`manager`] keeps the two together and is the only part
//! with state; [`meter`] follows one request. [`rules`] and [`filter`] are what the two APIs about quotas admit.
//! All of it is pure: the time is an argument, or comes from the clock that [`meter`] is given. Nobody waits here; the
//! connection does.

mod filter;
mod limits;
mod manager;
mod meter;
mod rate;
mod rules;

pub use filter::{Filter, FilterError, Match};
pub use limits::{Client, Measure};
pub use manager::{Exceeded, QuotaManager, Windows};
pub use meter::Meter;
pub use rate::Window;
pub use rules::{QuotaError, check_value, entity, is_key, parts};
