//! Requests of group members, classic (KIP-134 and later) and new (KIP-848), and of those who look after groups.

use super::{BOOL, BYTES, I8, I32, I64, NAMED_PARTITIONS, STRING, STRING_ARRAY, Struct, UUID_PARTITIONS, array, plain};

/// Index, offset, leader epoch, metadata.
const OFFSET_COMMIT_PARTITION: Struct = plain(&[I32, I64, I32.since(6), STRING]);
const OFFSET_COMMIT_TOPIC: Struct = plain(&[STRING, array(&OFFSET_COMMIT_PARTITION)]);
/// Group, generation or member epoch, member, instance, retention, topics.
pub const OFFSET_COMMIT: Struct =
    plain(&[STRING, I32, STRING, STRING.since(7), I64.until(4), array(&OFFSET_COMMIT_TOPIC)]);

/// Group, member and its epoch, topics.
const OFFSET_FETCH_GROUP: Struct = plain(&[STRING, STRING.since(9), I32.since(9), array(&NAMED_PARTITIONS)]);
/// One group and its topics, or several groups, then whether pending offsets are an error.
pub const OFFSET_FETCH: Struct =
    plain(&[STRING.until(7), array(&NAMED_PARTITIONS).until(7), array(&OFFSET_FETCH_GROUP).since(8), BOOL.since(7)]);

/// One key, its type, or several keys.
pub const FIND_COORDINATOR: Struct = plain(&[STRING.until(3), I8.since(1), STRING_ARRAY.since(4)]);

/// Name, metadata.
const JOIN_GROUP_PROTOCOL: Struct = plain(&[STRING, BYTES]);
/// Group, session and rebalance timeout, member, instance, protocol type, protocols, reason.
pub const JOIN_GROUP: Struct =
    plain(&[STRING, I32, I32.since(1), STRING, STRING.since(5), STRING, array(&JOIN_GROUP_PROTOCOL), STRING.since(8)]);

/// Group, generation, member, instance.
pub const HEARTBEAT: Struct = plain(&[STRING, I32, STRING, STRING.since(3)]);

/// Member, instance, reason.
const LEAVING_MEMBER: Struct = plain(&[STRING, STRING, STRING.since(5)]);
/// Group, member, or several members.
pub const LEAVE_GROUP: Struct = plain(&[STRING, STRING.until(2), array(&LEAVING_MEMBER).since(3)]);

/// Member, assignment.
const SYNC_GROUP_ASSIGNMENT: Struct = plain(&[STRING, BYTES]);
/// Group, generation, member, instance, protocol type and name, assignments.
pub const SYNC_GROUP: Struct =
    plain(&[STRING, I32, STRING, STRING.since(3), STRING.since(5), STRING.since(5), array(&SYNC_GROUP_ASSIGNMENT)]);

/// Groups, authorized operations.
pub const DESCRIBE_GROUPS: Struct = plain(&[STRING_ARRAY, BOOL.since(3)]);

/// States, types.
pub const LIST_GROUPS: Struct = plain(&[STRING_ARRAY.since(4), STRING_ARRAY.since(5)]);

pub const DELETE_GROUPS: Struct = plain(&[STRING_ARRAY]);

const OFFSET_DELETE_PARTITION: Struct = plain(&[I32]);
const OFFSET_DELETE_TOPIC: Struct = plain(&[STRING, array(&OFFSET_DELETE_PARTITION)]);
/// Group, topics.
pub const OFFSET_DELETE: Struct = plain(&[STRING, array(&OFFSET_DELETE_TOPIC)]);

/// Group, member and its epoch, instance, rack, rebalance timeout, topic names, topic regex, assignor, owned partitions.
pub const CONSUMER_GROUP_HEARTBEAT: Struct =
    plain(&[STRING, STRING, I32, STRING, STRING, I32, STRING_ARRAY, STRING.since(1), STRING, array(&UUID_PARTITIONS)]);

/// Groups, authorized operations.
pub const CONSUMER_GROUP_DESCRIBE: Struct = plain(&[STRING_ARRAY, BOOL]);
