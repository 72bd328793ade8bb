//! The settings of a single group (KIP-848, KIP-932, KIP-1071), and the broker settings that bound them.
//!
//! Each has a broker setting behind it and most have two more that bound it; whoever sets one for a group may not go
//! beyond what the broker's own configuration allows.

use super::{Kind, Setting, Synonym};

const SHARE_LATER: &str = "share groups are not available in this release";
const STREAMS_LATER: &str = "streams groups are not available in this release";

const POSITIVE_INT: Kind = Kind::Int { min: 1, max: i32::MAX };
const UNSIGNED_INT: Kind = Kind::Int { min: 0, max: i32::MAX };

const fn group(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    behind: &'static [Synonym],
    doc: &'static str,
) -> Setting {
    Setting::new(name, kind, Some(default), doc).behind(behind)
}

const fn bound(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting::new(name, UNSIGNED_INT, Some(default), doc)
}

const fn share(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    bound(name, default, doc).without_effect(SHARE_LATER)
}

const fn streams(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    bound(name, default, doc).without_effect(STREAMS_LATER)
}

macro_rules! behind {
    ($name:literal) => {
        &[Synonym { name: $name, factor: 1 }]
    };
}

pub(super) const GROUP: &[Setting] = &[
    group(
        "consumer.assignment.interval.ms",
        UNSIGNED_INT,
        "1000",
        behind!("group.consumer.assignment.interval.ms"),
        "Milliseconds between two assignments of the group.",
    ),
    group(
        "consumer.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        behind!("group.consumer.heartbeat.interval.ms"),
        "Heartbeat interval that the members of the group are told.",
    ),
    group(
        "consumer.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        behind!("group.consumer.session.timeout.ms"),
        "Milliseconds without a heartbeat after which a member is gone.",
    ),
    group(
        "share.assignment.interval.ms",
        UNSIGNED_INT,
        "1000",
        behind!("group.share.assignment.interval.ms"),
        "Milliseconds between two assignments of the share group.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.auto.offset.reset",
        Kind::String { valid: &[] },
        "latest",
        &[],
        "Where a share group begins: earliest, latest, or by_duration with an ISO 8601 duration.",
    )
    .rule(offset_reset)
    .without_effect(SHARE_LATER),
    group(
        "share.delivery.count.limit",
        Kind::Int { min: 2, max: i32::MAX },
        "5",
        behind!("group.share.delivery.count.limit"),
        "Most deliveries of one record to the share group.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        behind!("group.share.heartbeat.interval.ms"),
        "Heartbeat interval that the members of the share group are told.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.isolation.level",
        Kind::String { valid: &["read_committed", "read_uncommitted"] },
        "read_uncommitted",
        &[],
        "Whether the share group is given records of open and aborted transactions.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.partition.max.record.locks",
        Kind::Int { min: 100, max: i32::MAX },
        "2000",
        behind!("group.share.partition.max.record.locks"),
        "Most records of one partition that are locked for the share group.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.record.lock.duration.ms",
        Kind::Int { min: 1000, max: i32::MAX },
        "30000",
        behind!("group.share.record.lock.duration.ms"),
        "Milliseconds that a record is locked for a member of the share group.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.renew.acknowledge.enable",
        Kind::Boolean,
        "true",
        &[],
        "Whether members of the share group may renew the lock of a record.",
    )
    .without_effect(SHARE_LATER),
    group(
        "share.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        behind!("group.share.session.timeout.ms"),
        "Milliseconds without a heartbeat after which a member of the share group is gone.",
    )
    .without_effect(SHARE_LATER),
    group(
        "streams.assignment.interval.ms",
        UNSIGNED_INT,
        "1000",
        behind!("group.streams.assignment.interval.ms"),
        "Milliseconds between two assignments of the streams group.",
    )
    .without_effect(STREAMS_LATER),
    group(
        "streams.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        behind!("group.streams.heartbeat.interval.ms"),
        "Heartbeat interval that the members of the streams group are told.",
    )
    .without_effect(STREAMS_LATER),
    group(
        "streams.initial.rebalance.delay.ms",
        UNSIGNED_INT,
        "3000",
        behind!("group.streams.initial.rebalance.delay.ms"),
        "Milliseconds that a new streams group waits for more members.",
    )
    .without_effect(STREAMS_LATER),
    group(
        "streams.num.standby.replicas",
        UNSIGNED_INT,
        "0",
        behind!("group.streams.num.standby.replicas"),
        "Standby replicas of each task of the streams group.",
    )
    .without_effect(STREAMS_LATER),
    group(
        "streams.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        behind!("group.streams.session.timeout.ms"),
        "Milliseconds without a heartbeat after which a member of the streams group is gone.",
    )
    .without_effect(STREAMS_LATER),
];

/// Broker settings behind those, and their bounds, as far as no other table has them.
pub(super) const BEHIND: &[Setting] = &[
    bound("group.consumer.min.assignment.interval.ms", "0", "Shortest time between two assignments of a group."),
    bound("group.consumer.max.assignment.interval.ms", "15000", "Longest time between two assignments of a group."),
    share("group.share.assignment.interval.ms", "1000", "Milliseconds between two assignments of a share group."),
    share("group.share.min.assignment.interval.ms", "0", "Shortest time between two assignments of a share group."),
    share("group.share.max.assignment.interval.ms", "15000", "Longest time between two assignments of a share group."),
    share("group.share.min.delivery.count.limit", "2", "Least value of share.delivery.count.limit."),
    share("group.share.max.delivery.count.limit", "10", "Greatest value of share.delivery.count.limit."),
    share("group.share.min.heartbeat.interval.ms", "5000", "Shortest heartbeat interval of a share group."),
    share("group.share.max.heartbeat.interval.ms", "15000", "Longest heartbeat interval of a share group."),
    share("group.share.min.partition.max.record.locks", "100", "Least value of share.partition.max.record.locks."),
    share("group.share.max.partition.max.record.locks", "4000", "Greatest value of share.partition.max.record.locks."),
    share("group.share.min.record.lock.duration.ms", "15000", "Least value of share.record.lock.duration.ms."),
    share("group.share.max.record.lock.duration.ms", "60000", "Greatest value of share.record.lock.duration.ms."),
    share("group.share.min.session.timeout.ms", "45000", "Shortest session timeout of a share group."),
    share("group.share.max.session.timeout.ms", "60000", "Longest session timeout of a share group."),
    streams("group.streams.assignment.interval.ms", "1000", "Milliseconds between two assignments of a streams group."),
    streams(
        "group.streams.min.assignment.interval.ms",
        "0",
        "Shortest time between two assignments of a streams group.",
    ),
    streams(
        "group.streams.max.assignment.interval.ms",
        "15000",
        "Longest time between two assignments of a streams group.",
    ),
    streams("group.streams.heartbeat.interval.ms", "5000", "Heartbeat interval of a streams group."),
    streams("group.streams.min.heartbeat.interval.ms", "5000", "Shortest heartbeat interval of a streams group."),
    streams("group.streams.max.heartbeat.interval.ms", "15000", "Longest heartbeat interval of a streams group."),
    streams(
        "group.streams.initial.rebalance.delay.ms",
        "3000",
        "Milliseconds that a new streams group waits for members.",
    )
    .without_effect(STREAMS_LATER),
    streams("group.streams.num.standby.replicas", "0", "Standby replicas of each task of a streams group."),
    streams("group.streams.max.standby.replicas", "2", "Greatest value of streams.num.standby.replicas."),
    streams("group.streams.session.timeout.ms", "45000", "Session timeout of a streams group."),
    streams("group.streams.min.session.timeout.ms", "45000", "Shortest session timeout of a streams group."),
    streams("group.streams.max.session.timeout.ms", "60000", "Longest session timeout of a streams group."),
];

/// The broker settings that bound a setting of a group: the least and the greatest value.
pub(super) fn bounds_of(name: &str) -> (Option<String>, Option<String>) {
    match name {
        "streams.num.standby.replicas" => (None, Some("group.streams.max.standby.replicas".to_owned())),
        "streams.initial.rebalance.delay.ms" => (None, None),
        _ => match name.split_once('.') {
            Some((protocol, rest)) => {
                (Some(format!("group.{protocol}.min.{rest}")), Some(format!("group.{protocol}.max.{rest}")))
            }
            None => (None, None),
        },
    }
}

/// The rule of `share.auto.offset.reset`.
fn offset_reset(value: &str) -> Result<(), String> {
    let duration = |text: &str| {
        let rest = text.strip_prefix('P').unwrap_or_default();
        let fits = |c: char| c.is_ascii_digit() || matches!(c, 'D' | 'T' | 'H' | 'M' | 'S' | '.');
        rest.contains(|c: char| c.is_ascii_digit()) && rest.ends_with(['D', 'H', 'M', 'S']) && rest.chars().all(fits)
    };
    match value {
        "earliest" | "latest" => Ok(()),
        _ if value.strip_prefix("by_duration:").is_some_and(duration) => Ok(()),
        _ => Err("it is neither earliest, latest nor by_duration:<ISO 8601 duration>".to_owned()),
    }
}
