//! The settings of a broker that are no defaults of its topics. (Those come from the topic table.)

use crate::base::limits;

use super::check::{
    assignors, dedupe_buffer, load_factor, migration_policy, offered_protocols, per_ip_overrides, principal_rules,
    principals,
};
use super::topic_table::{ANY_LONG, UNSIGNED_LONG};
use super::{Effect, Kind, Setting};

const SHARE_LATER: &str = "share groups are not available in this release";
const ALL_PROTOCOLS: &str = "classic and consumer groups are always offered";
const WHEN_DURABLE: &str = "a commit is answered when it is durable";
const NO_TWO_PHASE: &str = "two-phase commit (KIP-939) is not available in this release";
const ALWAYS_VERIFIED: &str = "a partition's part in a transaction is always checked";
const LEDGERS: &str = "nodes copy ledgers, with bounds of their own";
const CLUSTER_TOOL: &str = "racks are given by casemate cluster add-node";
const ALWAYS: &str = "it always is so";
const BOUNDED_BYTES: &str = "requests in progress are bounded by bytes for each connection";
const OWN_THREADS: &str = "threads are set in [limits]";
const BUILT_IN: &str = "no classes are loaded into the process, remove it";

const ANY_INT: Kind = Kind::Int { min: i32::MIN, max: i32::MAX };
const UNSIGNED_INT: Kind = Kind::Int { min: 0, max: i32::MAX };
const POSITIVE_INT: Kind = Kind::Int { min: 1, max: i32::MAX };
const POSITIVE_LONG: Kind = Kind::Long { min: 1, max: i64::MAX };
const POSITIVE_SHORT: Kind = Kind::Short { min: 1, max: i16::MAX };
const TEXT: Kind = Kind::String { valid: &[] };
const LIST: Kind = Kind::List { valid: &[] };

const fn broker(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting::new(name, kind, Some(default), doc)
}

/// A setting whose default is null.
const fn unset(name: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting::new(name, kind, None, doc)
}

/// A setting of Kafka's share groups.
const fn share(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    broker(name, kind, default, doc).without_effect(SHARE_LATER)
}

/// A setting of Kafka's that is not here.
const fn refused(name: &'static str, reason: &'static str) -> Setting {
    Setting { effect: Effect::Refused(reason), ..unset(name, TEXT, "") }
}

/// Identity, listeners, requests, topics, security.
pub(super) const SERVER: &[Setting] = &[
    unset("node.id", ANY_INT, "Number of this node in the cluster.").derived("node_id"),
    broker("broker.id", ANY_INT, "-1", "Number of this node in the cluster, by its older name.").derived("node_id"),
    unset("process.roles", LIST, "Roles of this process.").derived("the node's membership"),
    broker("listeners", LIST, "PLAINTEXT://:9092", "Addresses that the broker listens on.").derived("[listeners]"),
    unset("advertised.listeners", LIST, "Addresses that clients are told.").derived("[listeners]"),
    broker("listener.security.protocol.map", TEXT, "SSL:SSL,PLAINTEXT:PLAINTEXT", "Protocol of each listener.")
        .derived("[listeners]"),
    unset("log.dirs", LIST, "Folder that holds this node's data.").derived("data_dir"),
    broker(
        "ssl.client.auth",
        Kind::String { valid: &["required", "requested", "none"] },
        "required",
        "Whether TLS clients need a certificate.",
    )
    .derived("mutual TLS, which is always on"),
    unset("broker.rack", TEXT, "Rack of this node.").without_effect(CLUSTER_TOOL),
    unset("leader.replication.throttled.rate", UNSIGNED_LONG, "Bytes per second that throttled replicas may be sent.")
        .dynamic()
        .without_effect(LEDGERS),
    unset("follower.replication.throttled.rate", UNSIGNED_LONG, "Bytes per second that throttled replicas may take.")
        .dynamic()
        .without_effect(LEDGERS),
    unset("replica.alter.log.dirs.io.max.bytes.per.second", UNSIGNED_LONG, "Bytes per second between log folders.")
        .dynamic()
        .without_effect(LEDGERS),
    broker(
        "auto.create.topics.enable",
        Kind::Boolean,
        "true",
        "Whether asking for a topic that is missing creates it.",
    ),
    broker("delete.topic.enable", Kind::Boolean, "true", "Whether topics can be deleted."),
    broker(
        "num.partitions",
        Kind::Int { min: 1, max: limits::TOPIC_PARTITIONS_MAX as i32 },
        "1",
        "Partitions of a new topic where its creator names no number.",
    ),
    broker(
        "default.replication.factor",
        Kind::Int { min: 1, max: i16::MAX as i32 },
        "1",
        "Replication factor of a new topic where its creator names none.",
    ),
    broker(
        "socket.request.max.bytes",
        Kind::Int { min: 1, max: limits::REQUEST_BYTES_MAX as i32 },
        "104857600",
        "Largest request in bytes; a larger one ends its connection.",
    ),
    broker(
        "fetch.max.bytes",
        Kind::Int { min: 1024, max: limits::FETCH_BYTES_MAX as i32 },
        "57671680",
        "Most bytes that one fetch returns, apart from a first batch that is larger.",
    ),
    broker(
        "max.incremental.fetch.session.cache.slots",
        UNSIGNED_INT,
        "1000",
        "Most fetch sessions that are kept (KIP-227).",
    ),
    broker(
        "max.request.partition.size.limit",
        POSITIVE_INT,
        "2000",
        "Most partitions that one answer to DescribeTopicPartitions holds.",
    ),
    broker("connections.max.idle.ms", ANY_LONG, "600000", "Milliseconds after which an idle connection is closed."),
    broker("max.connections", UNSIGNED_INT, "2147483647", "Most connections of all listeners together.").dynamic(),
    broker("max.connections.per.ip", UNSIGNED_INT, "2147483647", "Most connections of one client address.").dynamic(),
    broker(
        "max.connections.per.ip.overrides",
        TEXT,
        "",
        "Most connections of single client addresses: ADDRESS:NUMBER, separated by commas.",
    )
    .rule(per_ip_overrides)
    .dynamic(),
    broker("max.connection.creation.rate", UNSIGNED_INT, "2147483647", "Most new connections in one second.").dynamic(),
    broker(
        "producer.id.expiration.ms",
        POSITIVE_INT,
        "86400000",
        "Milliseconds after which an idle producer is forgotten.",
    )
    .dynamic(),
    unset("super.users", Kind::Password, "Principals that may do everything, separated by semicolons.")
        .rule(principals),
    broker(
        "ssl.principal.mapping.rules",
        TEXT,
        "DEFAULT",
        "Rules that make a principal's name out of the name in its certificate (KIP-371).",
    )
    .rule(principal_rules),
    broker(
        "allow.everyone.if.no.acl.found",
        Kind::Boolean,
        "false",
        "Whether a resource without an ACL is open to all.",
    )
    .unsupported(&[("true", "access is denied unless it is granted; use `casemate dev` to try things out")]),
    broker(
        "connection.failed.authentication.delay.ms",
        UNSIGNED_INT,
        "100",
        "Milliseconds before a failed login is answered.",
    )
    .without_effect("a failed TLS handshake ends at once"),
    broker("connections.max.reauth.ms", ANY_LONG, "0", "Milliseconds after which a client has to log in again.")
        .without_effect("clients are known by their certificates"),
    broker("delegation.token.max.lifetime.ms", POSITIVE_LONG, "604800000", "Longest life of a delegation token.")
        .without_effect("delegation tokens are not available in this release"),
    broker(
        "delegation.token.expiry.time.ms",
        POSITIVE_LONG,
        "86400000",
        "Life of a delegation token that is not renewed.",
    )
    .without_effect("delegation tokens are not available in this release"),
    broker("quota.window.num", POSITIVE_INT, "11", "Samples over which a quota is measured."),
    broker("quota.window.size.seconds", POSITIVE_INT, "1", "Seconds of one sample of a quota."),
    broker("controller.quota.window.num", POSITIVE_INT, "11", "Samples over which changes of topics are measured."),
    broker("controller.quota.window.size.seconds", POSITIVE_INT, "1", "Seconds of one of those samples."),
    broker(
        "telemetry.max.bytes",
        POSITIVE_INT,
        "1048576",
        "Most bytes of one request with a client's metrics (KIP-714).",
    ),
    broker("queued.max.requests", POSITIVE_INT, "500", "Most requests that wait.").without_effect(BOUNDED_BYTES),
    broker("queued.max.request.bytes", ANY_LONG, "-1", "Most bytes of requests that wait.")
        .without_effect(BOUNDED_BYTES),
    broker("request.timeout.ms", ANY_INT, "30000", "Milliseconds that one broker waits for another.")
        .without_effect(LEDGERS),
    broker("socket.listen.backlog.size", POSITIVE_INT, "50", "Connections that wait to be accepted.")
        .without_effect("the queue has a fixed size"),
    broker("socket.receive.buffer.bytes", ANY_INT, "102400", "Bytes of a socket's receive buffer.")
        .without_effect("the kernel sizes socket buffers"),
    broker("socket.send.buffer.bytes", ANY_INT, "102400", "Bytes of a socket's send buffer.")
        .without_effect("the kernel sizes socket buffers"),
    broker("background.threads", POSITIVE_INT, "10", "Threads of background work.")
        .without_effect(OWN_THREADS)
        .dynamic(),
    broker("num.io.threads", POSITIVE_INT, "8", "Threads that handle requests.").without_effect(OWN_THREADS).dynamic(),
    broker("num.network.threads", POSITIVE_INT, "3", "Threads that read and write sockets.")
        .without_effect(OWN_THREADS)
        .dynamic(),
    broker("num.recovery.threads.per.data.dir", POSITIVE_INT, "2", "Threads that read logs at start.")
        .without_effect(OWN_THREADS)
        .dynamic(),
    broker("num.replica.fetchers", POSITIVE_INT, "1", "Threads that copy from one other broker.")
        .without_effect(LEDGERS)
        .dynamic(),
    broker("replica.lag.time.max.ms", ANY_LONG, "30000", "Milliseconds after which a slow replica is out of sync.")
        .without_effect(LEDGERS),
    broker(
        "replica.fetch.max.bytes",
        UNSIGNED_INT,
        "1048576",
        "Most bytes that a replica copies of one partition at once.",
    )
    .without_effect(LEDGERS),
    broker("auto.leader.rebalance.enable", Kind::Boolean, "true", "Whether leadership is balanced among brokers.")
        .without_effect(ALWAYS),
    broker("controlled.shutdown.enable", Kind::Boolean, "true", "Whether a broker hands over before it stops.")
        .without_effect(ALWAYS),
    refused("log.dir", "data are in the folder of the configuration file or in data_dir"),
    refused("metadata.log.dir", "metadata are in the folder of the configuration file or in data_dir"),
    refused("inter.broker.listener.name", "nodes talk to one another over a listener of their own, remove it"),
    refused("security.inter.broker.protocol", "nodes talk to one another over mutual TLS, remove it"),
    refused("controller.listener.names", "the quorum has no listener of Kafka's, remove it"),
    refused("principal.builder.class", BUILT_IN),
    refused("create.topic.policy.class.name", BUILT_IN),
    refused("alter.config.policy.class.name", BUILT_IN),
    refused("client.quota.callback.class", BUILT_IN),
    refused("metric.reporters", "metrics are served by the admin listener, see [admin]"),
    refused("log.message.format.version", "Kafka 4 has no message formats but the newest, remove it"),
    refused("inter.broker.protocol.version", "Kafka 4 has none, remove it"),
];

/// Consumer groups, share groups and transactions.
pub(super) const COORDINATORS: &[Setting] = &[
    broker("offsets.retention.minutes", POSITIVE_INT, "10080", "Minutes that the offsets of an empty group are kept."),
    broker(
        "offsets.retention.check.interval.ms",
        POSITIVE_LONG,
        "600000",
        "Milliseconds between looks for old offsets.",
    ),
    broker("offsets.topic.num.partitions", POSITIVE_INT, "50", "Partitions of the topic of committed offsets."),
    broker(
        "offsets.topic.replication.factor",
        POSITIVE_SHORT,
        "3",
        "Replication factor of the topic of committed offsets.",
    ),
    broker("offsets.topic.segment.bytes", POSITIVE_INT, "104857600", "Segment size of the topic of committed offsets."),
    broker("offsets.commit.timeout.ms", POSITIVE_INT, "5000", "Milliseconds that a commit of offsets may take.")
        .without_effect(WHEN_DURABLE),
    broker("offset.metadata.max.bytes", ANY_INT, "4096", "Most bytes of text that a commit may carry."),
    broker("group.min.session.timeout.ms", ANY_INT, "6000", "Shortest session timeout that a member may ask for."),
    broker("group.max.session.timeout.ms", ANY_INT, "1800000", "Longest session timeout that a member may ask for."),
    broker(
        "group.initial.rebalance.delay.ms",
        ANY_INT,
        "3000",
        "Milliseconds that a new group waits for more members.",
    ),
    broker("group.max.size", POSITIVE_INT, "2147483647", "Most members of a group."),
    broker(
        "group.coordinator.rebalance.protocols",
        Kind::List { valid: &["consumer", "classic", "share", "streams"] },
        "classic,consumer,streams",
        "Group protocols that are offered.",
    )
    .without_effect(ALL_PROTOCOLS)
    .rule(offered_protocols),
    broker(
        "group.consumer.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Session timeout of a consumer group (KIP-848).",
    ),
    broker(
        "group.consumer.min.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Shortest session timeout of a consumer group.",
    ),
    broker(
        "group.consumer.max.session.timeout.ms",
        POSITIVE_INT,
        "60000",
        "Longest session timeout of a consumer group.",
    ),
    broker("group.consumer.heartbeat.interval.ms", POSITIVE_INT, "5000", "Heartbeat interval of a consumer group."),
    broker(
        "group.consumer.min.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "Shortest heartbeat interval of a consumer group.",
    ),
    broker(
        "group.consumer.max.heartbeat.interval.ms",
        POSITIVE_INT,
        "15000",
        "Longest heartbeat interval of a consumer group.",
    ),
    broker("group.consumer.max.size", POSITIVE_INT, "2147483647", "Most members of a consumer group."),
    broker("group.consumer.assignors", LIST, "uniform,range", "Assignors of consumer groups, the default first.")
        .rule(assignors),
    broker(
        "group.consumer.migration.policy",
        TEXT,
        "bidirectional",
        "Which group protocols may turn into one another.",
    )
    .rule(migration_policy),
    broker(
        "group.consumer.assignment.interval.ms",
        UNSIGNED_INT,
        "1000",
        "Milliseconds between two assignments of a group.",
    )
    .dynamic(),
    share(
        "group.share.delivery.count.limit",
        Kind::Int { min: 2, max: 10 },
        "5",
        "Most deliveries of one record to a share group (KIP-932).",
    ),
    share(
        "group.share.partition.max.record.locks",
        Kind::Int { min: 100, max: 10_000 },
        "2000",
        "Most records of one partition that are locked for a share group.",
    ),
    share(
        "group.share.record.lock.duration.ms",
        Kind::Int { min: 1000, max: 3_600_000 },
        "30000",
        "Milliseconds that a record is locked for a member of a share group.",
    ),
    share("group.share.session.timeout.ms", POSITIVE_INT, "45000", "Session timeout of a share group."),
    share("group.share.heartbeat.interval.ms", POSITIVE_INT, "5000", "Heartbeat interval of a share group."),
    broker("transaction.max.timeout.ms", POSITIVE_INT, "900000", "Longest timeout that a transaction may ask for."),
    broker(
        "transactional.id.expiration.ms",
        POSITIVE_INT,
        "604800000",
        "Milliseconds that an unused transactional id is kept.",
    ),
    broker("transaction.state.log.num.partitions", POSITIVE_INT, "50", "Partitions of the topic of transactions."),
    broker(
        "transaction.state.log.replication.factor",
        POSITIVE_SHORT,
        "3",
        "Replication factor of the topic of transactions.",
    ),
    broker("transaction.state.log.min.isr", POSITIVE_INT, "2", "Synced copies that the topic of transactions needs."),
    broker(
        "transaction.state.log.segment.bytes",
        POSITIVE_INT,
        "104857600",
        "Segment size of the topic of transactions.",
    ),
    broker(
        "transaction.two.phase.commit.enable",
        Kind::Boolean,
        "false",
        "Whether transactions without a timeout are allowed.",
    )
    .unsupported(&[("true", NO_TWO_PHASE)]),
    broker(
        "transaction.partition.verification.enable",
        Kind::Boolean,
        "true",
        "Whether a partition's part in a transaction is checked.",
    )
    .without_effect(ALWAYS_VERIFIED)
    .dynamic(),
];

/// The log: what stands behind topic settings in other units, and the cleaner.
pub(super) const LOG: &[Setting] = &[
    unset("log.retention.minutes", ANY_INT, "Minutes that records are kept where log.retention.ms is not set."),
    broker(
        "log.retention.hours",
        ANY_INT,
        "168",
        "Hours that records are kept where neither minutes nor milliseconds are set.",
    ),
    broker(
        "log.retention.check.interval.ms",
        POSITIVE_LONG,
        "300000",
        "Milliseconds between looks for records to drop.",
    )
    .without_effect("objects.maintenance_interval_ms sets it"),
    broker("log.roll.hours", POSITIVE_INT, "168", "Hours that one object spans where log.roll.ms is not set."),
    broker("log.roll.jitter.hours", UNSIGNED_INT, "0", "Longest random time by which a log file ends early, in hours.")
        .without_effect("Casemate keeps no log files per partition"),
    broker(
        "log.flush.scheduler.interval.ms",
        ANY_LONG,
        "9223372036854775807",
        "Milliseconds between looks for logs to sync.",
    )
    .without_effect("every record is synced before it is acknowledged"),
    broker(
        "log.flush.offset.checkpoint.interval.ms",
        UNSIGNED_INT,
        "60000",
        "Milliseconds between two recovery points.",
    )
    .without_effect("every record is synced before it is acknowledged"),
    broker("log.cleaner.enable", Kind::Boolean, "true", "Whether compacted topics are compacted."),
    broker("log.cleaner.threads", UNSIGNED_INT, "1", "Threads that compact.")
        .without_effect("one partition is compacted after the other")
        .dynamic(),
    broker("log.cleaner.backoff.ms", UNSIGNED_LONG, "15000", "Milliseconds of rest when nothing is to compact.")
        .dynamic(),
    broker(
        "log.cleaner.dedupe.buffer.size",
        ANY_LONG,
        "134217728",
        "Most bytes of memory for the map of keys: 24 for a key. What it cannot hold takes further passes.",
    )
    .rule(dedupe_buffer)
    .dynamic(),
    broker(
        "log.cleaner.io.buffer.load.factor",
        Kind::Double { min: f64::MIN, max: f64::MAX },
        "0.9",
        "Share of the map of keys that is filled, from 0.01 to 0.99.",
    )
    .rule(load_factor)
    .dynamic(),
    broker("log.cleaner.io.buffer.size", UNSIGNED_INT, "524288", "Bytes of buffers of compaction.")
        .without_effect("objects are read by blocks of 1 MiB")
        .dynamic(),
    broker(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double { min: f64::MIN, max: f64::MAX },
        "1.7976931348623157E308",
        "Most bytes that compaction reads and writes in a second.",
    )
    .dynamic(),
];
