//! Requests about client quotas (KIP-546).

use super::{BOOL, I8, I64, STRING, Struct, array, plain};

/// Entity type, kind of match, name.
const QUOTA_FILTER: Struct = plain(&[STRING, I8, STRING]);
/// Filters, whether other entity types exclude an entity.
pub const DESCRIBE_CLIENT_QUOTAS: Struct = plain(&[array(&QUOTA_FILTER), BOOL]);

/// Type, name.
const QUOTA_ENTITY: Struct = plain(&[STRING, STRING]);
/// Key, value (a 64-bit float), whether to remove it.
const QUOTA_CHANGE: Struct = plain(&[STRING, I64, BOOL]);
const CHANGED_QUOTAS: Struct = plain(&[array(&QUOTA_ENTITY), array(&QUOTA_CHANGE)]);
/// Entries, validate only.
pub const ALTER_CLIENT_QUOTAS: Struct = plain(&[array(&CHANGED_QUOTAS), BOOL]);
