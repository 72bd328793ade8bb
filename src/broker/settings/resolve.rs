//! The values that the broker obeys, typed, out of the layers in which they are set.
//!
//! Never fails: a stored value that is none (a release with other bounds stored it) yields to the next layer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::base::limits;
use crate::batch::{Compression, TimestampType};
use crate::broker::quota::{Window, Windows};
use crate::security::Principal;

use super::check::ip_override;
use super::layers::Found;
use super::{Layers, Setting, broker, elements, topic};

/// What happens to old records. Neither keeps all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// The codec that every batch of a topic is brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recompression {
    pub codec: Compression,
    /// None for a codec without levels.
    pub level: Option<i32>,
}

/// The settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    pub cleanup_policy: CleanupPolicy,
    /// None is without limit.
    pub retention_ms: Option<i64>,
    /// Of each partition. None is without limit.
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    /// How far a record's time may lie before the broker's.
    pub timestamp_before_max_ms: i64,
    /// How far a record's time may lie after the broker's.
    pub timestamp_after_max_ms: i64,
    /// None keeps each batch as it was sent.
    pub compression: Option<Recompression>,
    pub min_insync_replicas: i32,
    pub compaction: CompactionSettings,
}

/// When and how a topic with `cleanup.policy` compact is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// Share of a partition that must be dirty, in millionths.
    pub min_dirty_ppm: u32,
    /// Records that are younger stay dirty.
    pub min_lag_ms: i64,
    /// Dirty records that are older are compacted whatever their share.
    pub max_lag_ms: i64,
    /// How long the mark of a deleted key stays after it was first compacted.
    pub delete_retention_ms: i64,
}

impl TopicSettings {
    /// `own` is what is set for the topic itself.
    pub fn resolve(own: &BTreeMap<String, String>, layers: Layers) -> TopicSettings {
        let text = |name: &str| topic(name).map_or(String::new(), |s| effective(s, layers.topic_values(s, own)));
        let long = |name: &str| text(name).parse::<i64>().unwrap_or(0);
        let policy = text("cleanup.policy");
        let has = |part: &str| elements(&policy).contains(&part);
        TopicSettings {
            cleanup_policy: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            retention_ms: Some(long("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(long("retention.bytes")).ok(),
            segment_bytes: long("segment.bytes").unsigned_abs(),
            segment_ms: long("segment.ms"),
            max_message_bytes: usize::try_from(long("max.message.bytes")).unwrap_or(limits::BATCH_BYTES_DEFAULT),
            timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            compression: recompression(&text("compression.type"), |name| i32::try_from(long(name)).ok()),
            min_insync_replicas: i32::try_from(long("min.insync.replicas")).unwrap_or(1),
            compaction: CompactionSettings {
                min_dirty_ppm: (double(&text("min.cleanable.dirty.ratio")) * 1e6) as u32,
                min_lag_ms: long("min.compaction.lag.ms"),
                max_lag_ms: long("max.compaction.lag.ms"),
                delete_retention_ms: long("delete.retention.ms"),
            },
        }
    }
}

/// A number as Java writes it; 0 where it is none.
fn double(text: &str) -> f64 {
    text.trim_end_matches(['f', 'F', 'd', 'D']).parse().unwrap_or(0.0)
}

fn recompression(name: &str, level: impl Fn(&str) -> Option<i32>) -> Option<Recompression> {
    let (codec, level) = match name {
        "uncompressed" => (Compression::None, None),
        "gzip" => (Compression::Gzip, level("compression.gzip.level")),
        "snappy" => (Compression::Snappy, None),
        "lz4" => (Compression::Lz4, None),
        "zstd" => (Compression::Zstd, level("compression.zstd.level")),
        _ => return None,
    };
    Some(Recompression { codec, level })
}

/// The settings of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    pub auto_create_topics: bool,
    pub delete_topics: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub request_bytes_max: usize,
    pub fetch_bytes_max: usize,
    pub fetch_sessions_max: usize,
    /// Of one answer to DescribeTopicPartitions.
    pub described_partitions_max: usize,
    /// None is without limit.
    pub connection_idle_ms: Option<u64>,
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    /// Instead of the former, by address in its canonical form.
    pub connections_per_ip_overrides: HashMap<IpAddr, usize>,
    /// In one second. None is without limit.
    pub connection_rate_max: Option<u64>,
    pub quota_windows: Windows,
    /// Of one request with a client's metrics (KIP-714), as it is sent.
    pub telemetry_bytes_max: usize,
    pub producer_expiration_ms: i64,
    pub cleaner: CleanerSettings,
    pub super_users: HashSet<Principal>,
    /// As [`crate::security::PrincipalRules`] reads them.
    pub principal_rules: String,
}

/// What the one who compacts may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanerSettings {
    pub enabled: bool,
    pub backoff_ms: u64,
    /// Memory for the map of keys.
    pub buffer_bytes: u64,
    /// Share of it that is filled.
    pub load_percent: u32,
    /// Read and written together. None is without limit.
    pub bytes_per_second: Option<u64>,
}

impl BrokerSettings {
    /// The value of one broker setting.
    pub fn text(layers: Layers, name: &str) -> String {
        broker(name).map_or(String::new(), |s| effective(s, layers.broker_values(s)))
    }

    /// The value of one broker setting that is a number.
    pub fn long(layers: Layers, name: &str) -> i64 {
        Self::text(layers, name).parse().unwrap_or(0)
    }

    pub fn resolve(layers: Layers) -> BrokerSettings {
        let text = |name: &str| Self::text(layers, name);
        let long = |name: &str| Self::long(layers, name);
        let count = |name: &str| usize::try_from(long(name)).unwrap_or(0);
        let window = |family: &str| Window {
            samples: u32::try_from(long(&format!("{family}.window.num"))).unwrap_or(1).max(1),
            sample_ms: u64::try_from(long(&format!("{family}.window.size.seconds"))).unwrap_or(1).max(1) * 1_000,
        };
        BrokerSettings {
            auto_create_topics: text("auto.create.topics.enable") == "true",
            delete_topics: text("delete.topic.enable") == "true",
            num_partitions: i32::try_from(long("num.partitions")).unwrap_or(1),
            default_replication_factor: i16::try_from(long("default.replication.factor")).unwrap_or(1),
            request_bytes_max: count("socket.request.max.bytes"),
            fetch_bytes_max: count("fetch.max.bytes"),
            fetch_sessions_max: count("max.incremental.fetch.session.cache.slots"),
            described_partitions_max: count("max.request.partition.size.limit"),
            connection_idle_ms: u64::try_from(long("connections.max.idle.ms")).ok(),
            connections_max: count("max.connections"),
            connections_per_ip_max: count("max.connections.per.ip"),
            connections_per_ip_overrides: per_ip_overrides(&text("max.connections.per.ip.overrides")),
            connection_rate_max: u64::try_from(long("max.connection.creation.rate"))
                .ok()
                .filter(|rate| *rate < i32::MAX as u64),
            quota_windows: Windows { client: window("quota"), mutation: window("controller.quota") },
            telemetry_bytes_max: count("telemetry.max.bytes"),
            producer_expiration_ms: long("producer.id.expiration.ms"),
            cleaner: CleanerSettings {
                enabled: text("log.cleaner.enable") == "true",
                backoff_ms: u64::try_from(long("log.cleaner.backoff.ms")).unwrap_or(0),
                buffer_bytes: u64::try_from(long("log.cleaner.dedupe.buffer.size")).unwrap_or(0),
                load_percent: (double(&text("log.cleaner.io.buffer.load.factor")) * 100.0).round() as u32,
                bytes_per_second: Some(double(&text("log.cleaner.io.max.bytes.per.second")) as u64)
                    .filter(|rate| *rate < u64::MAX),
            },
            super_users: Principal::parse_list(&text("super.users")).unwrap_or_default(),
            principal_rules: text("ssl.principal.mapping.rules"),
        }
    }
}

/// What is no pair of address and number was refused when it was set.
fn per_ip_overrides(text: &str) -> HashMap<IpAddr, usize> {
    elements(text).into_iter().filter_map(ip_override).map(|(address, count)| (address.to_canonical(), count)).collect()
}

/// The strongest value that is one.
fn effective(setting: &'static Setting, found: Vec<Found>) -> String {
    found
        .into_iter()
        .find_map(|found| setting.converted(found))
        .unwrap_or_else(|| setting.default.unwrap_or_default().to_owned())
}
