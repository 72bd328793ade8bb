//! The settings of a topic.

use crate::base::limits;

use super::check::{gzip_level, throttled_replicas};
use super::{Kind, Setting, Synonym};

const LOCAL_FILES: &str = "Casemate keeps no log files per partition";
const ALWAYS_SYNCED: &str = "every record is synced before it is acknowledged";
const ALWAYS_TIERED: &str = "all data move to object storage";

pub(super) const ANY_LONG: Kind = Kind::Long { min: i64::MIN, max: i64::MAX };
pub(super) const UNSIGNED_LONG: Kind = Kind::Long { min: 0, max: i64::MAX };
const POSITIVE_LONG: Kind = Kind::Long { min: 1, max: i64::MAX };
const UNSIGNED_INT: Kind = Kind::Int { min: 0, max: i32::MAX };
const SEGMENT_BYTES_MIN: i32 = 1024 * 1024;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const LONG_MAX: &str = "9223372036854775807";

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const fn times(name: &'static str, factor: i64) -> Synonym {
    Synonym { name, factor }
}

const fn topic(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting::new(name, kind, Some(default), doc)
}

pub(super) const TOPIC: &[Setting] = &[
    topic(
        "cleanup.policy",
        Kind::List { valid: &["compact", "delete"] },
        "delete",
        "What happens to old records: delete drops them by age and size, compact keeps the newest of each key; the empty \
         list keeps all.",
    )
    .behind(&[same("log.cleanup.policy")]),
    topic(
        "compression.gzip.level",
        Kind::Int { min: -1, max: 9 },
        "-1",
        "Level of gzip where compression.type is gzip: 1 to 9, or -1 for the codec's default.",
    )
    .behind(&[same("compression.gzip.level")])
    .rule(gzip_level),
    topic(
        "compression.lz4.level",
        Kind::Int { min: 1, max: 17 },
        "9",
        "Level of lz4 where compression.type is lz4: 1 to 17.",
    )
    .behind(&[same("compression.lz4.level")])
    .without_effect("the lz4 encoder here has one level"),
    topic(
        "compression.type",
        Kind::String { valid: &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"] },
        "producer",
        "Codec in which batches are stored: producer keeps each as it was sent.",
    )
    .behind(&[same("compression.type")]),
    topic(
        "compression.zstd.level",
        Kind::Int { min: -131_072, max: 22 },
        "3",
        "Level of zstd where compression.type is zstd: -131072 to 22.",
    )
    .behind(&[same("compression.zstd.level")]),
    topic(
        "delete.retention.ms",
        UNSIGNED_LONG,
        "86400000",
        "Milliseconds that a compacted topic keeps the mark of a deleted key.",
    )
    .behind(&[same("log.cleaner.delete.retention.ms")]),
    topic("file.delete.delay.ms", UNSIGNED_LONG, "60000", "Milliseconds between dropping a log file and deleting it.")
        .behind(&[same("log.segment.delete.delay.ms")])
        .without_effect(LOCAL_FILES),
    topic("flush.messages", POSITIVE_LONG, LONG_MAX, "Number of records after which the log is synced.")
        .behind(&[same("log.flush.interval.messages")])
        .without_effect(ALWAYS_SYNCED),
    topic("flush.ms", UNSIGNED_LONG, LONG_MAX, "Milliseconds after which the log is synced.")
        .behind(&[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")])
        .without_effect(ALWAYS_SYNCED),
    topic(
        "follower.replication.throttled.replicas",
        Kind::List { valid: &[] },
        "",
        "Replicas whose copying is throttled where they are written.",
    )
    .rule(throttled_replicas)
    .without_effect("replication is not throttled by partition"),
    topic("index.interval.bytes", UNSIGNED_INT, "4096", "Bytes between two entries of the offset index.")
        .behind(&[same("log.index.interval.bytes")])
        .without_effect(LOCAL_FILES),
    topic(
        "leader.replication.throttled.replicas",
        Kind::List { valid: &[] },
        "",
        "Replicas whose copying is throttled where they are read.",
    )
    .rule(throttled_replicas)
    .without_effect("replication is not throttled by partition"),
    topic(
        "local.retention.bytes",
        Kind::Long { min: -2, max: i64::MAX },
        "-2",
        "Bytes of a partition kept on local disk; -2 follows retention.bytes.",
    )
    .behind(&[same("log.local.retention.bytes")])
    .without_effect(ALWAYS_TIERED),
    topic(
        "local.retention.ms",
        Kind::Long { min: -2, max: i64::MAX },
        "-2",
        "Milliseconds that records stay on local disk; -2 follows retention.ms.",
    )
    .behind(&[same("log.local.retention.ms")])
    .without_effect(ALWAYS_TIERED),
    topic(
        "max.compaction.lag.ms",
        POSITIVE_LONG,
        LONG_MAX,
        "Longest time in milliseconds before a record of a compacted topic is compacted.",
    )
    .behind(&[same("log.cleaner.max.compaction.lag.ms")]),
    topic(
        "max.message.bytes",
        Kind::Int { min: 0, max: limits::BATCH_BYTES_MAX as i32 },
        "1048588",
        "Largest record batch in bytes, as it is sent: compressed where it is compressed.",
    )
    .behind(&[same("message.max.bytes")]),
    topic(
        "message.timestamp.after.max.ms",
        UNSIGNED_LONG,
        "3600000",
        "How far a record's time may lie after the broker's, in milliseconds.",
    )
    .behind(&[same("log.message.timestamp.after.max.ms")]),
    topic(
        "message.timestamp.before.max.ms",
        UNSIGNED_LONG,
        LONG_MAX,
        "How far a record's time may lie before the broker's, in milliseconds.",
    )
    .behind(&[same("log.message.timestamp.before.max.ms")]),
    topic(
        "message.timestamp.type",
        Kind::String { valid: &["CreateTime", "LogAppendTime"] },
        "CreateTime",
        "Whose time a record carries: the producer's or that of its arrival.",
    )
    .behind(&[same("log.message.timestamp.type")]),
    topic(
        "min.cleanable.dirty.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.5",
        "Share of a compacted topic that may be uncompacted before it is compacted again.",
    )
    .behind(&[same("log.cleaner.min.cleanable.ratio")]),
    topic(
        "min.compaction.lag.ms",
        UNSIGNED_LONG,
        "0",
        "Shortest time in milliseconds before a record of a compacted topic is compacted.",
    )
    .behind(&[same("log.cleaner.min.compaction.lag.ms")]),
    topic(
        "min.insync.replicas",
        Kind::Int { min: 1, max: i32::MAX },
        "1",
        "Synced copies that a write with acks=all needs, within the topic's replication factor.",
    )
    .behind(&[same("min.insync.replicas")]),
    topic("preallocate", Kind::Boolean, "false", "Whether a log file takes its whole size when it is made.")
        .behind(&[same("log.preallocate")])
        .without_effect(LOCAL_FILES),
    topic("remote.log.copy.disable", Kind::Boolean, "false", "Whether nothing more is copied to remote storage.")
        .unsupported(&[("true", ALWAYS_TIERED)]),
    topic(
        "remote.log.delete.on.disable",
        Kind::Boolean,
        "false",
        "Whether remote data are deleted when remote storage is switched off.",
    )
    .without_effect(ALWAYS_TIERED),
    topic("remote.storage.enable", Kind::Boolean, "false", "Whether Kafka's tiered storage is on for the topic.")
        .unsupported(&[("true", "all data move to object storage without it")]),
    topic(
        "retention.bytes",
        ANY_LONG,
        "-1",
        "Bytes that each partition keeps before its oldest records are dropped; -1 is without limit.",
    )
    .behind(&[same("log.retention.bytes")]),
    topic(
        "retention.ms",
        Kind::Long { min: -1, max: i64::MAX },
        "604800000",
        "Milliseconds that records are kept; -1 is without limit.",
    )
    .behind(&[
        same("log.retention.ms"),
        times("log.retention.minutes", MINUTE_MS),
        times("log.retention.hours", HOUR_MS),
    ]),
    topic(
        "segment.bytes",
        Kind::Int { min: SEGMENT_BYTES_MIN, max: i32::MAX },
        "1073741824",
        "Largest object of one partition in bytes, within objects.object_bytes; retention drops as much at a time.",
    )
    .behind(&[same("log.segment.bytes")]),
    topic(
        "segment.index.bytes",
        Kind::Int { min: 4, max: i32::MAX },
        "10485760",
        "Bytes of the index of one log file.",
    )
    .behind(&[same("log.index.size.max.bytes")])
    .without_effect(LOCAL_FILES),
    topic("segment.jitter.ms", UNSIGNED_LONG, "0", "Longest random time by which a log file ends early.")
        .behind(&[same("log.roll.jitter.ms"), times("log.roll.jitter.hours", HOUR_MS)])
        .without_effect(LOCAL_FILES),
    topic(
        "segment.ms",
        POSITIVE_LONG,
        "604800000",
        "Longest time in milliseconds that the records of one object of one partition span.",
    )
    .behind(&[same("log.roll.ms"), times("log.roll.hours", HOUR_MS)]),
    topic(
        "unclean.leader.election.enable",
        Kind::Boolean,
        "false",
        "Whether a replica that misses records may lead rather than none.",
    )
    .behind(&[same("unclean.leader.election.enable")])
    .unsupported(&[("true", "acknowledged records are never given up")]),
];
