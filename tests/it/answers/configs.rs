//! Settings: of the wrong type, out of range, unknown, of resources that are not there, changed in ways that do not fit.

use super::super::client::text;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Names, types and defaults of a real Kafka's settings, as the broker's own table is held to them.
const SETTINGS: &str = include_str!("../../../src/broker/settings/kafka-4.3.1.txt");

const GROUP_SETTINGS: [&str; 17] = [
    "consumer.assignment.interval.ms",
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
    "share.assignment.interval.ms",
    "share.auto.offset.reset",
    "share.delivery.count.limit",
    "share.heartbeat.interval.ms",
    "share.isolation.level",
    "share.partition.max.record.locks",
    "share.record.lock.duration.ms",
    "share.renew.acknowledge.enable",
    "share.session.timeout.ms",
    "streams.assignment.interval.ms",
    "streams.heartbeat.interval.ms",
    "streams.initial.rebalance.delay.ms",
    "streams.num.standby.replicas",
    "streams.session.timeout.ms",
];

/// What a setting of any type is given. None is null.
const VALUES: [Option<&str>; 34] = [
    None,
    Some(""),
    Some(" "),
    Some("abc"),
    Some("-9223372036854775809"),
    Some("-2147483649"),
    Some("-100"),
    Some("-3"),
    Some("-2"),
    Some("-1"),
    Some("-0"),
    Some("0"),
    Some("1"),
    Some("0.5"),
    Some("1.5"),
    Some(" 5 "),
    Some("+5"),
    Some("5L"),
    Some("1e3"),
    Some("0x10"),
    Some("1_000"),
    Some("2000000"),
    Some("2147483647"),
    Some("2147483648"),
    Some("9223372036854775807"),
    Some("9223372036854775808"),
    Some("true"),
    Some("TRUE"),
    Some("yes"),
    Some("NaN"),
    Some("a,b"),
    Some(","),
    Some("\u{e4}"),
    Some("1,1"),
];

pub fn run() {
    let mut world = World::new("configs").settling();
    topics(&mut world);
    lists(&mut world);
    operations(&mut world);
    groups_and_metrics(&mut world);
    brokers(&mut world);
    resources(&mut world);
    legacy(&mut world);
    world.finish();
}

fn change(name: &str, operation: i8, value: Option<&str>) -> incremental_alter_configs_request::AlterableConfig {
    incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(operation)
        .with_value(value.map(text))
}

type Changes = Vec<incremental_alter_configs_request::AlterableConfig>;

fn alter(kind: i8, resource: &str, changes: Changes) -> IncrementalAlterConfigsRequest {
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(changes);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn label(value: Option<&str>) -> String {
    value.map_or("null".into(), |v| format!("`{}`", super::render::neutral(v)))
}

/// Every value for one setting of a resource, each on top of what the ones before it left.
fn values(world: &mut World, kind: i8, resource: &str, name: &str, values: &[Option<&str>]) {
    let rows: Vec<_> = values.iter().map(|v| (label(*v), alter(kind, resource, vec![change(name, SET, *v)]))).collect();
    world.table(&format!("IncrementalAlterConfigs: {name}"), rows);
}

fn topics(world: &mut World) {
    let names = SETTINGS.lines().filter_map(|l| l.strip_prefix("T|")?.split('|').next());
    for name in names {
        let topic = world.topic("topic", 1, &[]);
        world.watched = vec![Watched::Config(TOPIC, topic.clone())];
        values(world, TOPIC, &topic, name, &VALUES);
    }
}

/// What is particular to settings that take words or lists.
fn lists(world: &mut World) {
    let topic = world.topic("lists", 1, &[]);
    world.watched = vec![Watched::Config(TOPIC, topic.clone())];
    for (name, words) in [
        (
            "cleanup.policy",
            vec![
                "compact",
                "delete",
                "compact,delete",
                "delete,compact",
                "compact,compact",
                "compact,",
                ",compact",
                "compact, delete",
                "Compact",
                "none",
                "compact;delete",
                "compact,delete,compact",
                "delete,,compact",
            ],
        ),
        ("compression.type", vec!["gzip", "GZIP", " zstd ", "none", "uncompressed", "producer", "brotli", "lz4,zstd"]),
        (
            "message.timestamp.type",
            vec!["CreateTime", "createtime", "LogAppendTime", "NoTimestampType", "logappendtime "],
        ),
        (
            "leader.replication.throttled.replicas",
            vec!["*", "0:1", "0:1,1:2", "0", ":", "0:", "0:a", "*,0:1", " *", "0:1,,1:2", "-1:1", "0:1,0:1"],
        ),
    ] {
        let rows: Vec<_> = words
            .iter()
            .map(|word| (label(Some(word)), alter(TOPIC, &topic, vec![change(name, SET, Some(word))])))
            .collect();
        world.table(&format!("IncrementalAlterConfigs: words for {name}"), rows);
    }
    for (words, changes) in [
        ("local.retention above retention", vec![("retention.ms", "1000"), ("local.retention.ms", "2000")]),
        ("local bytes above bytes", vec![("retention.bytes", "1000"), ("local.retention.bytes", "2000")]),
        (
            "local retention without end, retention with one",
            vec![("retention.ms", "1000"), ("local.retention.ms", "-1")],
        ),
        ("lags that cross", vec![("min.compaction.lag.ms", "2000"), ("max.compaction.lag.ms", "1000")]),
        ("one good and one bad", vec![("flush.ms", "77"), ("segment.ms", "soon")]),
        ("one good and one unknown", vec![("flush.ms", "78"), ("no.such.setting", "1")]),
        ("one setting twice", vec![("flush.ms", "79"), ("flush.ms", "80")]),
    ] {
        world.ask(&format!("IncrementalAlterConfigs: {words}"), |_, _| {
            alter(TOPIC, &topic, changes.iter().map(|(name, value)| change(name, SET, Some(value))).collect())
        });
    }
}

/// Operations on a list, on what is no list, and on what is not set.
fn operations(world: &mut World) {
    let topic = world.topic("operations", 1, &[]);
    world.watched = vec![Watched::Config(TOPIC, topic.clone())];
    for name in ["cleanup.policy", "retention.ms", "leader.replication.throttled.replicas", "no.such.setting", ""] {
        let mut rows = vec![];
        for operation in [DELETE, APPEND, SUBTRACT, SET, 4, -1, i8::MAX] {
            for value in [None, Some(""), Some("compact"), Some("5"), Some("0:1")] {
                let words = format!("op {operation} {}", label(value));
                rows.push((words, alter(TOPIC, &topic, vec![change(name, operation, value)])));
            }
        }
        world.table(&format!("IncrementalAlterConfigs: operations on `{name}`"), rows);
    }
    world.ask("IncrementalAlterConfigs: nothing of a topic", |_, _| alter(TOPIC, &topic, vec![]));
    world.ask("IncrementalAlterConfigs: nothing", |_, _| IncrementalAlterConfigsRequest::default());
    for value in ["-5", "7000"] {
        world.ask(&format!("IncrementalAlterConfigs: only tried, {value}"), |_, _| {
            alter(TOPIC, &topic, vec![change("flush.ms", SET, Some(value))]).with_validate_only(true)
        });
    }
}

fn groups_and_metrics(world: &mut World) {
    let bounds =
        ["999", "1000", "4999", "5000", "15000", "15001", "45000", "60000", "60001", "earliest", "by_duration:P1D"];
    for name in GROUP_SETTINGS {
        let group = world.fresh("group");
        world.watched = vec![Watched::Config(GROUP, group.clone())];
        let all: Vec<_> = VALUES.into_iter().chain(bounds.map(Some)).collect();
        values(world, GROUP, &group, name, &all);
    }
    for name in ["metrics", "interval.ms", "match"] {
        let subscription = world.fresh("subscription");
        world.watched = vec![Watched::Config(METRICS, subscription.clone())];
        let mut all = VALUES.to_vec();
        all.extend(
            [
                "99",
                "100",
                "3600000",
                "3600001",
                "client_id=a",
                "client_id=(",
                "nonsense=a",
                "client_id",
                "=",
                "*",
                "client_id=a,client_id=b",
                "client_software_name=a,client_id=[b",
            ]
            .map(Some),
        );
        values(world, METRICS, &subscription, name, &all);
    }
    for (kind, name) in [(GROUP, "group"), (METRICS, "subscription")] {
        world.watched = vec![Watched::Config(kind, name.into())];
        world.ask(&format!("IncrementalAlterConfigs: an unknown setting of a {name}"), |_, _| {
            alter(kind, name, vec![change("no.such.setting", SET, Some("1"))])
        });
        world.ask(&format!("IncrementalAlterConfigs: a {name} without a name"), |_, _| {
            alter(kind, "", vec![change("interval.ms", SET, Some("1000"))])
        });
        world.ask(&format!("IncrementalAlterConfigs: a setting of topics for a {name}"), |_, _| {
            alter(kind, name, vec![change("retention.ms", SET, Some("1000"))])
        });
    }
}

/// Only tried: other tests use the same broker.
fn brokers(world: &mut World) {
    let node = world.client.metadata(&[]).expect("an answer to Metadata").brokers[0].node_id.0.to_string();
    for (words, resource) in [("all brokers", ""), ("this broker", node.as_str())] {
        for name in [
            "log.retention.ms",
            "message.max.bytes",
            "log.cleanup.policy",
            "compression.type",
            "max.connections",
            "log.segment.bytes",
            "max.connections.per.ip",
            "max.connections.per.ip.overrides",
            "producer.id.expiration.ms",
            "log.cleaner.threads",
            "max.connection.creation.rate",
            "min.insync.replicas",
            "log.message.timestamp.type",
            "log.flush.interval.messages",
            "log.cleaner.dedupe.buffer.size",
            "log.preallocate",
            "log.cleaner.io.buffer.load.factor",
            "num.io.threads",
            "unclean.leader.election.enable",
            "background.threads",
        ] {
            let rows: Vec<_> = VALUES
                .iter()
                .map(|value| {
                    let request = alter(BROKER, resource, vec![change(name, SET, *value)]);
                    (label(*value), request.with_validate_only(true))
                })
                .collect();
            world.table(&format!("IncrementalAlterConfigs, tried on {words}: {name}"), rows);
        }
        for name in [
            "no.such.setting",
            "broker.id",
            "node.id",
            "listeners",
            "log.dirs",
            "auto.create.topics.enable",
            "process.roles",
            "",
        ] {
            world.ask(&format!("IncrementalAlterConfigs, tried on {words}: {name}"), |_, _| {
                alter(BROKER, resource, vec![change(name, SET, Some("1"))]).with_validate_only(true)
            });
        }
    }
    for resource in ["7654", "-1", "abc", " ", "99999999999"] {
        world.ask(&format!("IncrementalAlterConfigs: broker `{resource}`"), |_, _| {
            alter(BROKER, resource, vec![change("log.retention.ms", SET, Some("1"))]).with_validate_only(true)
        });
    }
}

fn describe(kind: i8, name: &str, keys: Option<Vec<&str>>) -> DescribeConfigsRequest {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|k| k.into_iter().map(text).collect()));
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

/// Resources that are not there, or of no type.
fn resources(world: &mut World) {
    world.watched.clear();
    for kind in [i8::MIN, -1, 0, 1, 3, 5, 6, 64, i8::MAX] {
        world.ask(&format!("IncrementalAlterConfigs: resource type {kind}"), |_, _| {
            alter(kind, "name", vec![change("retention.ms", SET, Some("1"))])
        });
        world.ask(&format!("DescribeConfigs: resource type {kind}"), |_, _| describe(kind, "name", None));
        world.ask(&format!("AlterConfigs: resource type {kind}"), |_, _| {
            replace(kind, "name", &[("retention.ms", Some("1"))])
        });
    }
    for (words, name) in
        [("that is not there", "absent"), ("without a name", ""), ("of a bad name", "a b"), ("of a name of dots", "..")]
    {
        world.ask(&format!("IncrementalAlterConfigs: a topic {words}"), |_, _| {
            alter(TOPIC, name, vec![change("retention.ms", SET, Some("1"))])
        });
        world.ask(&format!("DescribeConfigs: a topic {words}"), |_, _| describe(TOPIC, name, None));
        world.ask(&format!("AlterConfigs: a topic {words}"), |_, _| {
            replace(TOPIC, name, &[("retention.ms", Some("1"))])
        });
    }
    for resource in ["7654", "-1", "abc", " ", "99999999999"] {
        world.ask(&format!("DescribeConfigs: broker `{resource}`"), |_, _| {
            describe(BROKER, resource, Some(vec!["log.retention.ms"]))
        });
    }
    let topic = world.topic("described", 1, &[]);
    for (words, keys) in
        [("nothing", vec![]), ("what is not there", vec!["absent", ""]), ("one twice", vec!["flush.ms", "flush.ms"])]
    {
        world.ask(&format!("DescribeConfigs: {words} of a topic"), |_, _| describe(TOPIC, &topic, Some(keys.clone())));
    }
    for (kind, name) in [(GROUP, "absent"), (METRICS, "absent"), (METRICS, "")] {
        world.ask(&format!("DescribeConfigs: resource type {kind}, `{name}`"), |_, _| {
            describe(kind, name, Some(vec!["interval.ms"]))
        });
    }
    world.ask("DescribeConfigs: nothing", |_, _| DescribeConfigsRequest::default());
    world.ask("DescribeConfigs: a topic twice", |_, _| {
        let mut request = describe(TOPIC, &topic, Some(vec!["flush.ms"]));
        request.resources.push(request.resources[0].clone());
        request
    });
    for kinds in [vec![0], vec![-1], vec![3], vec![64], vec![2, 2]] {
        world.ask(&format!("ListConfigResources: types {kinds:?} without topics of others"), |_, _| {
            let kinds = if kinds == [2, 2] { vec![100] } else { kinds.clone() };
            ListConfigResourcesRequest::default().with_resource_types(kinds)
        });
    }
}

fn replace(kind: i8, name: &str, values: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let values = values.iter().map(|(name, value)| {
        alter_configs_request::AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    });
    let resource = alter_configs_request::AlterConfigsResource::default().with_resource_type(kind);
    let resource = resource.with_resource_name(text(name)).with_configs(values.collect());
    AlterConfigsRequest::default().with_resources(vec![resource])
}

/// AlterConfigs replaces all that is set, or nothing.
fn legacy(world: &mut World) {
    let topic = world.topic("replaced", 1, &[("flush.ms", "60000"), ("retention.ms", "70000")]);
    world.watched = vec![Watched::Config(TOPIC, topic.clone())];
    for (words, values) in [
        ("a bad value", vec![("retention.ms", Some("soon"))]),
        ("a value out of range", vec![("retention.ms", Some("-5"))]),
        ("null", vec![("retention.ms", None)]),
        ("an unknown setting", vec![("no.such.setting", Some("1"))]),
        ("a setting without a name", vec![("", Some("1"))]),
        ("one good and one bad", vec![("flush.ms", Some("1")), ("retention.ms", Some("soon"))]),
        ("local.retention above retention", vec![("retention.ms", Some("1000")), ("local.retention.ms", Some("2000"))]),
    ] {
        world.ask(&format!("AlterConfigs: {words}"), |_, _| replace(TOPIC, &topic, &values));
    }
    world.ask("AlterConfigs: only tried", |_, _| {
        replace(TOPIC, &topic, &[("flush.ms", Some("5"))]).with_validate_only(true)
    });
    world.ask("AlterConfigs: nothing", |_, _| AlterConfigsRequest::default());
    let node = world.client.metadata(&[]).expect("an answer to Metadata").brokers[0].node_id.0.to_string();
    world.watched.clear();
    for (name, value) in
        [("message.max.bytes", "many"), ("no.such.setting", "1"), ("listeners", "1"), ("broker.id", "9")]
    {
        world.ask(&format!("AlterConfigs, tried on this broker: {name}"), |_, _| {
            replace(BROKER, &node, &[(name, Some(value))]).with_validate_only(true)
        });
    }
    world.ask("AlterConfigs: a topic without a name and with one", |_, _| {
        let mut request = replace(TOPIC, "", &[("flush.ms", Some("1"))]);
        request.resources.extend(replace(TOPIC, "absent", &[("flush.ms", Some("1"))]).resources);
        request
    });
}
