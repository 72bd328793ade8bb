//! Requests of administrators: topics, settings, the cluster.

use super::{
    BOOL, I8, I16, I32, I32_ARRAY, I64, Kind, NAMED_PARTITIONS, STRING, STRING_ARRAY, Struct, UUID, array, field, plain,
};

const REPLICA_ASSIGNMENT: Struct = plain(&[I32, I32_ARRAY]);
const TOPIC_CONFIG: Struct = plain(&[STRING, STRING]);
/// Name, partitions, replication factor, assignments, configs.
const CREATABLE_TOPIC: Struct = plain(&[STRING, I32, I16, array(&REPLICA_ASSIGNMENT), array(&TOPIC_CONFIG)]);
/// Topics, timeout, validate only.
pub const CREATE_TOPICS: Struct = plain(&[array(&CREATABLE_TOPIC), I32, BOOL]);

const DELETE_TOPIC: Struct = plain(&[STRING, UUID]);
/// Topics, or topic names, and timeout.
pub const DELETE_TOPICS: Struct = plain(&[array(&DELETE_TOPIC).since(6), STRING_ARRAY.until(5), I32]);

const DELETE_RECORDS_PARTITION: Struct = plain(&[I32, I64]);
const DELETE_RECORDS_TOPIC: Struct = plain(&[STRING, array(&DELETE_RECORDS_PARTITION)]);
/// Topics, timeout.
pub const DELETE_RECORDS: Struct = plain(&[array(&DELETE_RECORDS_TOPIC), I32]);

const CONFIG_RESOURCE: Struct = plain(&[I8, STRING, STRING_ARRAY]);
/// Resources, synonyms, documentation.
pub const DESCRIBE_CONFIGS: Struct = plain(&[array(&CONFIG_RESOURCE), BOOL, BOOL.since(3)]);

pub const DESCRIBE_LOG_DIRS: Struct = plain(&[array(&NAMED_PARTITIONS)]);

const NEW_PARTITION: Struct = plain(&[I32_ARRAY]);
const GROWN_TOPIC: Struct = plain(&[STRING, I32, array(&NEW_PARTITION)]);
/// Topics, timeout, validate only.
pub const CREATE_PARTITIONS: Struct = plain(&[array(&GROWN_TOPIC), I32, BOOL]);

const CONFIG_CHANGE: Struct = plain(&[STRING, I8, STRING]);
const CHANGED_RESOURCE: Struct = plain(&[I8, STRING, array(&CONFIG_CHANGE)]);
/// Resources, validate only.
pub const INCREMENTAL_ALTER_CONFIGS: Struct = plain(&[array(&CHANGED_RESOURCE), BOOL]);

const NAMED_USER: Struct = plain(&[STRING]);
pub const DESCRIBE_USER_SCRAM_CREDENTIALS: Struct = plain(&[array(&NAMED_USER)]);

const QUORUM_PARTITION: Struct = plain(&[I32]);
const QUORUM_TOPIC: Struct = plain(&[STRING, array(&QUORUM_PARTITION)]);
pub const DESCRIBE_QUORUM: Struct = plain(&[array(&QUORUM_TOPIC)]);

/// Authorized operations, endpoint type, fenced brokers.
pub const DESCRIBE_CLUSTER: Struct = plain(&[BOOL, I8.since(1), BOOL.since(2)]);

pub const DESCRIBE_PRODUCERS: Struct = plain(&[array(&NAMED_PARTITIONS)]);

const DESCRIBED_TOPIC: Struct = plain(&[STRING]);
const CURSOR: Struct = plain(&[STRING, I32]);
/// Topics, partition limit, cursor.
pub const DESCRIBE_TOPIC_PARTITIONS: Struct = plain(&[array(&DESCRIBED_TOPIC), I32, field(Kind::Optional(&CURSOR))]);

const REPLACED_RESOURCE: Struct = plain(&[I8, STRING, array(&TOPIC_CONFIG)]);
/// Resources, validate only.
pub const ALTER_CONFIGS: Struct = plain(&[array(&REPLACED_RESOURCE), BOOL]);

/// Kind of election, topics, timeout.
pub const ELECT_LEADERS: Struct = plain(&[I8.since(1), array(&NAMED_PARTITIONS), I32]);

/// Index, replicas.
const REASSIGNED_PARTITION: Struct = plain(&[I32, I32_ARRAY]);
const REASSIGNED_TOPIC: Struct = plain(&[STRING, array(&REASSIGNED_PARTITION)]);
/// Timeout, whether the replication factor may change, topics.
pub const ALTER_PARTITION_REASSIGNMENTS: Struct = plain(&[I32, BOOL.since(1), array(&REASSIGNED_TOPIC)]);

/// Timeout, topics.
pub const LIST_PARTITION_REASSIGNMENTS: Struct = plain(&[I32, array(&NAMED_PARTITIONS)]);

/// Feature, highest level, whether it may go down, kind of upgrade.
const FEATURE_UPDATE: Struct = plain(&[STRING, I16, BOOL.until(0), I8.since(1)]);
/// Timeout, updates, validate only.
pub const UPDATE_FEATURES: Struct = plain(&[I32, array(&FEATURE_UPDATE), BOOL.since(1)]);

pub const UNREGISTER_BROKER: Struct = plain(&[I32]);

/// Types of resources.
pub const LIST_CONFIG_RESOURCES: Struct = plain(&[field(Kind::FixedArray(1)).since(1)]);
