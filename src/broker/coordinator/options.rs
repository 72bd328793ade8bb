//! The settings of the coordinators, resolved from Kafka's names.

use crate::broker::Settings;
use crate::broker::settings::{BrokerSettings, GroupSettings, Layers};
use crate::metadata::NamedConfigs;
use crate::{group, transaction};

use super::CoordinatorKind;

/// Settings of both coordinators and of their topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorOptions {
    pub group: group::Options,
    pub transaction: transaction::Options,
    offsets_topic: InternalTopic,
    transactions_topic: InternalTopic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InternalTopic {
    partitions: usize,
    replication_factor: i16,
    segment_bytes: i64,
    min_insync_replicas: i64,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        let topic =
            InternalTopic { partitions: 50, replication_factor: 3, segment_bytes: 104_857_600, min_insync_replicas: 2 };
        CoordinatorOptions {
            group: group::Options::default(),
            transaction: transaction::Options::default(),
            offsets_topic: topic,
            transactions_topic: topic,
        }
    }
}

/// What is set for one group, with the broker's value for the rest.
fn overrides(own: &Settings, layers: Layers<'_>) -> group::GroupOverrides {
    let resolved = GroupSettings::resolve(own, layers);
    group::GroupOverrides {
        consumer_session_timeout_ms: Some(resolved.consumer_session_timeout_ms),
        consumer_heartbeat_interval_ms: Some(resolved.consumer_heartbeat_interval_ms),
        consumer_assignment_interval_ms: Some(resolved.consumer_assignment_interval_ms),
    }
}

impl CoordinatorOptions {
    /// `groups` are the settings of single groups.
    pub fn resolve(layers: Layers<'_>, groups: &NamedConfigs) -> CoordinatorOptions {
        let long = |name: &str| BrokerSettings::long(layers, name);
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let text = |name: &str| BrokerSettings::text(layers, name);
        let topic = |prefix: &str| InternalTopic {
            partitions: usize::try_from(long(&format!("{prefix}.num.partitions"))).unwrap_or(50).max(1),
            replication_factor: i16::try_from(long(&format!("{prefix}.replication.factor"))).unwrap_or(3),
            segment_bytes: long(&format!("{prefix}.segment.bytes")),
            min_insync_replicas: long("transaction.state.log.min.isr"),
        };
        let assignors = text("group.consumer.assignors");
        let assignors = assignors.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let group = group::Options {
            min_session_timeout_ms: int("group.min.session.timeout.ms"),
            max_session_timeout_ms: int("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
            max_size: int("group.max.size"),
            offsets_retention_ms: long("offsets.retention.minutes").saturating_mul(60_000),
            offsets_retention_check_interval_ms: long("offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: usize::try_from(long("offset.metadata.max.bytes")).unwrap_or(0),
            consumer_session_timeout_ms: int("group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: int("group.consumer.heartbeat.interval.ms"),
            consumer_max_size: int("group.consumer.max.size"),
            consumer_assignors: assignors.collect(),
            consumer_assignment_interval_ms: int("group.consumer.assignment.interval.ms"),
            consumer_migration: match text("group.consumer.migration.policy").to_ascii_lowercase().as_str() {
                "upgrade" => group::MigrationPolicy::Upgrade,
                "downgrade" => group::MigrationPolicy::Downgrade,
                "disabled" => group::MigrationPolicy::Disabled,
                _ => group::MigrationPolicy::Bidirectional,
            },
            groups: groups.iter().map(|(id, own)| (id.clone(), overrides(own, layers))).collect(),
            ..group::Options::default()
        };
        let transaction = transaction::Options {
            max_timeout_ms: int("transaction.max.timeout.ms"),
            id_expiration_ms: long("transactional.id.expiration.ms"),
            ..transaction::Options::default()
        };
        let offsets_topic = topic("offsets.topic");
        CoordinatorOptions { group, transaction, offsets_topic, transactions_topic: topic("transaction.state.log") }
    }

    /// Partitions, replication factor and settings of an internal topic: Kafka's.
    pub fn internal_topic(&self, kind: CoordinatorKind) -> (usize, i16, Vec<(String, String)>) {
        let (topic, own) = match kind {
            CoordinatorKind::Group => (self.offsets_topic, vec![("compression.type", "producer".to_owned())]),
            CoordinatorKind::Transaction => (
                self.transactions_topic,
                vec![
                    ("compression.type", "uncompressed".to_owned()),
                    ("min.insync.replicas", self.transactions_topic.min_insync_replicas.to_string()),
                    ("unclean.leader.election.enable", "false".to_owned()),
                ],
            ),
        };
        let common = [("cleanup.policy", "compact".to_owned()), ("segment.bytes", topic.segment_bytes.to_string())];
        let configs = common.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value));
        (topic.partitions, topic.replication_factor, configs.collect())
    }
}
