//! Requests of transactional producers and of those who look after them.

use super::{BOOL, I16, I32, I64, Kind, NAMED_PARTITIONS, STRING, STRING_ARRAY, Struct, array, field, plain};

/// Transactional id, timeout, producer id and epoch.
pub const INIT_PRODUCER_ID: Struct = plain(&[STRING, I32, I64.since(3), I16.since(3)]);

/// Transactional id, producer id and epoch, verify only, topics.
const ADDED_TRANSACTION: Struct = plain(&[STRING, I64, I16, BOOL, array(&NAMED_PARTITIONS)]);
/// Several transactions, or one.
pub const ADD_PARTITIONS_TO_TXN: Struct = plain(&[
    array(&ADDED_TRANSACTION).since(4),
    STRING.until(3),
    I64.until(3),
    I16.until(3),
    array(&NAMED_PARTITIONS).until(3),
]);

/// Transactional id, producer id and epoch, group.
pub const ADD_OFFSETS_TO_TXN: Struct = plain(&[STRING, I64, I16, STRING]);

/// Transactional id, producer id and epoch, whether to commit.
pub const END_TXN: Struct = plain(&[STRING, I64, I16, BOOL]);

/// Producer id and epoch, whether to commit, topics, coordinator epoch.
const TXN_MARKER: Struct = plain(&[I64, I16, BOOL, array(&NAMED_PARTITIONS), I32]);
pub const WRITE_TXN_MARKERS: Struct = plain(&[array(&TXN_MARKER)]);

/// Index, offset, leader epoch, metadata.
const TXN_OFFSET_PARTITION: Struct = plain(&[I32, I64, I32.since(2), STRING]);
const TXN_OFFSET_TOPIC: Struct = plain(&[STRING, array(&TXN_OFFSET_PARTITION)]);
/// Transactional id, group, producer id and epoch, generation, member, instance, topics.
pub const TXN_OFFSET_COMMIT: Struct =
    plain(&[STRING, STRING, I64, I16, I32.since(3), STRING.since(3), STRING.since(3), array(&TXN_OFFSET_TOPIC)]);

pub const DESCRIBE_TRANSACTIONS: Struct = plain(&[STRING_ARRAY]);

/// States, producer ids, duration, pattern of transactional ids.
pub const LIST_TRANSACTIONS: Struct = plain(&[STRING_ARRAY, field(Kind::FixedArray(8)), I64.since(1), STRING.since(2)]);
