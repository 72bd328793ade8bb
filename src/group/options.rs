//! The settings of the group coordinator, resolved: Kafka's names, defaults and units.

use std::collections::BTreeMap;

/// Which conversions between classic and consumer groups happen online (`group.consumer.migration.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    Bidirectional,
    Upgrade,
    Downgrade,
    Disabled,
}

impl MigrationPolicy {
    pub fn may_upgrade(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade)
    }

    pub fn may_downgrade(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade)
    }
}

/// Settings of one group (config resource type GROUP); None: the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupOverrides {
    pub consumer_session_timeout_ms: Option<i32>,
    pub consumer_heartbeat_interval_ms: Option<i32>,
    pub consumer_assignment_interval_ms: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub max_size: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offset.metadata.max.bytes`: UTF-16 units, as Kafka counts them.
    pub offset_metadata_max_bytes: usize,
    /// Largest record batch that the partition takes (`max.message.bytes` of the topic).
    pub batch_bytes_max: usize,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`.
    pub consumer_max_size: i32,
    /// `group.consumer.assignors`: names, the first is the default.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.assignment.interval.ms`.
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub consumer_regex_refresh_interval_ms: i32,
    /// `group.consumer.migration.policy`.
    pub consumer_migration: MigrationPolicy,
    /// Group configs by group id.
    pub groups: BTreeMap<String, GroupOverrides>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX,
            offsets_retention_ms: 7 * 24 * 60 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
            offset_metadata_max_bytes: 4_096,
            batch_bytes_max: crate::base::limits::BATCH_BYTES_DEFAULT,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_max_size: i32::MAX,
            consumer_assignors: vec!["uniform".into(), "range".into()],
            consumer_assignment_interval_ms: 1_000,
            consumer_regex_refresh_interval_ms: 600_000,
            consumer_migration: MigrationPolicy::Bidirectional,
            groups: BTreeMap::new(),
        }
    }
}

impl Options {
    fn of(&self, group: &str) -> GroupOverrides {
        self.groups.get(group).copied().unwrap_or_default()
    }

    /// Milliseconds without a heartbeat after which a member of this consumer group is out.
    pub fn consumer_session_timeout_of(&self, group: &str) -> i32 {
        self.of(group).consumer_session_timeout_ms.unwrap_or(self.consumer_session_timeout_ms)
    }

    /// Milliseconds between heartbeats that members of this consumer group are told.
    pub fn consumer_heartbeat_interval_of(&self, group: &str) -> i32 {
        self.of(group).consumer_heartbeat_interval_ms.unwrap_or(self.consumer_heartbeat_interval_ms)
    }

    /// Milliseconds that lie at least between two assignments of this consumer group.
    pub fn consumer_assignment_interval_of(&self, group: &str) -> i32 {
        self.of(group).consumer_assignment_interval_ms.unwrap_or(self.consumer_assignment_interval_ms)
    }
}
