//! The shapes of all requests: the fields of each, in wire order, with the versions that have them.
//!
//! Written as constants, so that the compiler checks the table. A test holds it against kafka-protocol's encoder for
//! every API and version.

/// What a field looks like on the wire. Strings, bytes and arrays are compact in flexible versions. Whether null is
/// allowed is left to the decoder: it costs no memory.
#[derive(Debug)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    String,
    /// Bytes that are not looked into; record batches too.
    Bytes,
    /// An array of fixed-width values.
    FixedArray(usize),
    StringArray,
    Array(&'static Struct),
    /// A struct behind a presence byte.
    Optional(&'static Struct),
    /// A struct in place; only as a tagged field.
    Struct(&'static Struct),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub struct Field {
    pub kind: Kind,
    pub since: i16,
    pub until: i16,
}

/// Fields in wire order. In flexible versions every struct ends with tagged fields.
#[derive(Debug)]
pub struct Struct {
    pub fields: &'static [Field],
    /// Tagged fields that the decoder looks into; it passes over all others.
    pub tagged: &'static [(u32, Field)],
}

impl Field {
    const fn since(self, since: i16) -> Field {
        Field { since, ..self }
    }

    const fn until(self, until: i16) -> Field {
        Field { until, ..self }
    }

    pub fn exists_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

const fn field(kind: Kind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}

const fn plain(fields: &'static [Field]) -> Struct {
    Struct { fields, tagged: &[] }
}

const fn array(of: &'static Struct) -> Field {
    field(Kind::Array(of))
}

const BOOL: Field = field(Kind::Fixed(1));
const I8: Field = field(Kind::Fixed(1));
const I16: Field = field(Kind::Fixed(2));
const I32: Field = field(Kind::Fixed(4));
const I64: Field = field(Kind::Fixed(8));
const UUID: Field = field(Kind::Fixed(16));
const STRING: Field = field(Kind::String);
const BYTES: Field = field(Kind::Bytes);
const I32_ARRAY: Field = field(Kind::FixedArray(4));
const STRING_ARRAY: Field = field(Kind::StringArray);

const PRODUCE_PARTITION: Struct = plain(&[I32, BYTES]);
const PRODUCE_TOPIC: Struct = plain(&[STRING.until(12), UUID.since(13), array(&PRODUCE_PARTITION)]);
/// Transactional id, acks, timeout, topics.
pub const PRODUCE: Struct = plain(&[STRING, I16, I32, array(&PRODUCE_TOPIC)]);

/// Index, current leader epoch, offset, last fetched epoch, log start, maximum bytes; replica directory and high
/// watermark of a follower.
const FETCH_PARTITION: Struct = Struct {
    fields: &[I32, I32.since(9), I64, I32.since(12), I64.since(5), I32],
    tagged: &[(0, UUID.since(17)), (1, I64.since(18))],
};
const FETCH_TOPIC: Struct = plain(&[STRING.until(12), UUID.since(13), array(&FETCH_PARTITION)]);
const FORGOTTEN_TOPIC: Struct = plain(&[STRING.until(12), UUID.since(13), I32_ARRAY]);
const REPLICA_STATE: Struct = plain(&[I32, I64]);
/// Replica, maximum wait, minimum and maximum bytes, isolation, session id and epoch, topics, forgotten topics, rack;
/// cluster id and replica state of a follower.
pub const FETCH: Struct = Struct {
    fields: &[
        I32.until(14),
        I32,
        I32,
        I32,
        I8,
        I32.since(7),
        I32.since(7),
        array(&FETCH_TOPIC),
        array(&FORGOTTEN_TOPIC).since(7),
        STRING.since(11),
    ],
    tagged: &[(0, STRING), (1, field(Kind::Struct(&REPLICA_STATE)).since(15))],
};

const LIST_OFFSETS_PARTITION: Struct = plain(&[I32, I32.since(4), I64]);
const LIST_OFFSETS_TOPIC: Struct = plain(&[STRING, array(&LIST_OFFSETS_PARTITION)]);
/// Replica, isolation, topics, timeout.
pub const LIST_OFFSETS: Struct = plain(&[I32, I8.since(2), array(&LIST_OFFSETS_TOPIC), I32.since(10)]);

const METADATA_TOPIC: Struct = plain(&[UUID.since(10), STRING]);
/// Topics, auto-creation, authorized operations of the cluster and of topics.
pub const METADATA: Struct = plain(&[array(&METADATA_TOPIC), BOOL.since(4), BOOL.since(8).until(10), BOOL.since(8)]);

/// Software name and version.
pub const API_VERSIONS: Struct = plain(&[STRING.since(3), STRING.since(3)]);

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

/// Transactional id, timeout, producer id and epoch.
pub const INIT_PRODUCER_ID: Struct = plain(&[STRING, I32, I64.since(3), I16.since(3)]);

const EPOCH_PARTITION: Struct = plain(&[I32, I32, I32]);
const EPOCH_TOPIC: Struct = plain(&[STRING, array(&EPOCH_PARTITION)]);
/// Replica, topics.
pub const OFFSET_FOR_LEADER_EPOCH: Struct = plain(&[I32.since(3), array(&EPOCH_TOPIC)]);

const CONFIG_RESOURCE: Struct = plain(&[I8, STRING, STRING_ARRAY]);
/// Resources, synonyms, documentation.
pub const DESCRIBE_CONFIGS: Struct = plain(&[array(&CONFIG_RESOURCE), BOOL, BOOL.since(3)]);

const LOG_DIR_TOPIC: Struct = plain(&[STRING, I32_ARRAY]);
pub const DESCRIBE_LOG_DIRS: Struct = plain(&[array(&LOG_DIR_TOPIC)]);

const NEW_PARTITION: Struct = plain(&[I32_ARRAY]);
const GROWN_TOPIC: Struct = plain(&[STRING, I32, array(&NEW_PARTITION)]);
/// Topics, timeout, validate only.
pub const CREATE_PARTITIONS: Struct = plain(&[array(&GROWN_TOPIC), I32, BOOL]);

const CONFIG_CHANGE: Struct = plain(&[STRING, I8, STRING]);
const CHANGED_RESOURCE: Struct = plain(&[I8, STRING, array(&CONFIG_CHANGE)]);
/// Resources, validate only.
pub const INCREMENTAL_ALTER_CONFIGS: Struct = plain(&[array(&CHANGED_RESOURCE), BOOL]);

const QUORUM_PARTITION: Struct = plain(&[I32]);
const QUORUM_TOPIC: Struct = plain(&[STRING, array(&QUORUM_PARTITION)]);
pub const DESCRIBE_QUORUM: Struct = plain(&[array(&QUORUM_TOPIC)]);

/// Authorized operations, endpoint type, fenced brokers.
pub const DESCRIBE_CLUSTER: Struct = plain(&[BOOL, I8.since(1), BOOL.since(2)]);

const PRODUCERS_TOPIC: Struct = plain(&[STRING, I32_ARRAY]);
pub const DESCRIBE_PRODUCERS: Struct = plain(&[array(&PRODUCERS_TOPIC)]);

const DESCRIBED_TOPIC: Struct = plain(&[STRING]);
const CURSOR: Struct = plain(&[STRING, I32]);
/// Topics, partition limit, cursor.
pub const DESCRIBE_TOPIC_PARTITIONS: Struct = plain(&[array(&DESCRIBED_TOPIC), I32, field(Kind::Optional(&CURSOR))]);
