//! Requests of producers and consumers: records, offsets, what there is and who holds it.

use super::{BOOL, BYTES, I8, I16, I32, I32_ARRAY, I64, Kind, STRING, Struct, UUID, array, field, plain};

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

const EPOCH_PARTITION: Struct = plain(&[I32, I32, I32]);
const EPOCH_TOPIC: Struct = plain(&[STRING, array(&EPOCH_PARTITION)]);
/// Replica, topics.
pub const OFFSET_FOR_LEADER_EPOCH: Struct = plain(&[I32.since(3), array(&EPOCH_TOPIC)]);
