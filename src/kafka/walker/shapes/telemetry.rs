//! Requests of clients that report their own metrics (KIP-714).

use super::{BOOL, BYTES, I8, I32, Struct, UUID, plain};

/// Client instance.
pub const GET_TELEMETRY_SUBSCRIPTIONS: Struct = plain(&[UUID]);

/// Client instance, subscription, whether it is the last, compression, metrics.
pub const PUSH_TELEMETRY: Struct = plain(&[UUID, I32, BOOL, I8, BYTES]);
