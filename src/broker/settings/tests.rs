//! The table against Apache Kafka 4.3, and the ways of a value through it.

use super::check::KAFKA;
use super::*;
use crate::batch::{Compression, TimestampType};
use crate::broker::quota;
use crate::security::Principal;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn resolve(
    own: &[(&str, &str)],
    broker: &[(&str, &str)],
    cluster: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> TopicSettings {
    let (broker, cluster, fixed) = (map(broker), map(cluster), map(fixed));
    TopicSettings::resolve(&map(own), Layers { broker: &broker, cluster: &cluster, fixed: &fixed })
}

fn type_name(kind: Kind) -> &'static str {
    ["BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"][kind.wire_type() as usize - 1]
}

#[test]
fn types_and_defaults_are_those_of_kafka() {
    let mut seen = 0;
    for line in KAFKA.lines() {
        let [scope, name, kind, default] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let Some(setting) = (if scope == "T" { topic(name) } else { broker(name) }) else { continue };
        seen += 1;
        if matches!(setting.effect, Effect::Derived(_) | Effect::Refused(_)) {
            continue;
        }
        assert_eq!(type_name(setting.kind), kind, "{name}");
        assert_eq!(setting.default, Some(default).filter(|d| *d != "null"), "{name}");
    }
    assert!(seen > 150, "{seen} settings compared");
}

#[test]
fn every_topic_setting_of_kafka_is_known() {
    let theirs: Vec<_> = KAFKA.lines().filter_map(|l| l.strip_prefix("T|")?.split('|').next()).collect();
    let ours: Vec<_> = topics().map(|setting| setting.name).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn every_default_is_admitted_and_every_synonym_exists() {
    for setting in topics().chain(brokers()) {
        if let Some(default) = setting.default {
            assert_eq!(setting.admit(default).as_deref(), Ok(default), "{}", setting.name);
        }
        for synonym in setting.synonyms {
            assert!(broker(synonym.name).is_some(), "{} stands behind {}", synonym.name, setting.name);
        }
        assert!(matches!(setting.effect, Effect::Refused(_)) || setting.doc.ends_with('.'), "{}", setting.name);
    }
}

#[test]
fn kafkas_defaults_hold_where_nothing_is_set() {
    assert_eq!(
        resolve(&[], &[], &[], &[]),
        TopicSettings {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: None,
            min_insync_replicas: 1,
            compaction: CompactionSettings {
                min_dirty_ppm: 500_000,
                min_lag_ms: 0,
                max_lag_ms: i64::MAX,
                delete_retention_ms: 86_400_000,
            },
        }
    );
    let empty = BTreeMap::new();
    let cleaner = BrokerSettings::resolve(Layers { broker: &empty, cluster: &empty, fixed: &empty }).cleaner;
    let (buffer_bytes, load_percent) = (128 << 20, 90);
    let expected =
        CleanerSettings { enabled: true, backoff_ms: 15_000, buffer_bytes, load_percent, bytes_per_second: None };
    assert_eq!(cleaner, expected);
}

#[test]
fn the_strongest_layer_wins() {
    let fixed = [("message.max.bytes", "1000")];
    let cluster = [("message.max.bytes", "2000")];
    let broker = [("message.max.bytes", "3000")];
    let own = [("max.message.bytes", "4000")];
    assert_eq!(resolve(&[], &[], &[], &fixed).max_message_bytes, 1000);
    assert_eq!(resolve(&[], &[], &cluster, &fixed).max_message_bytes, 2000);
    assert_eq!(resolve(&[], &broker, &cluster, &fixed).max_message_bytes, 3000);
    assert_eq!(resolve(&own, &broker, &cluster, &fixed).max_message_bytes, 4000);
}

#[test]
fn milliseconds_come_before_minutes_and_hours() {
    let hours = ("log.retention.hours", "2");
    let minutes = ("log.retention.minutes", "3");
    assert_eq!(resolve(&[], &[], &[], &[hours]).retention_ms, Some(7_200_000));
    assert_eq!(resolve(&[], &[], &[], &[hours, minutes]).retention_ms, Some(180_000));
    assert_eq!(resolve(&[], &[], &[("log.retention.ms", "5")], &[hours, minutes]).retention_ms, Some(5));
    assert_eq!(resolve(&[], &[], &[], &[("log.retention.hours", "-1")]).retention_ms, None);
    assert_eq!(resolve(&[], &[], &[], &[("log.roll.hours", "1")]).segment_ms, 3_600_000);
}

#[test]
fn a_stored_value_that_is_none_yields_to_the_next_layer() {
    let found = resolve(&[("retention.ms", "soon")], &[], &[("log.retention.ms", "7")], &[]);
    assert_eq!(found.retention_ms, Some(7));
}

#[test]
fn compression_carries_the_level_of_its_codec() {
    let zstd = resolve(&[("compression.type", " zstd "), ("compression.zstd.level", "7")], &[], &[], &[]);
    assert_eq!(zstd.compression, Some(Recompression { codec: Compression::Zstd, level: Some(7) }));
    let gzip = resolve(&[], &[], &[("compression.type", "gzip")], &[]);
    assert_eq!(gzip.compression, Some(Recompression { codec: Compression::Gzip, level: Some(-1) }));
}

#[test]
fn an_empty_cleanup_policy_keeps_everything() {
    let policy = resolve(&[("cleanup.policy", "")], &[], &[], &[]).cleanup_policy;
    assert_eq!(policy, CleanupPolicy { delete: false, compact: false });
}

#[test]
fn what_cannot_be_honoured_is_refused_by_topic_and_by_broker() {
    assert_eq!(validate_topic("cleanup.policy", "delete, compact"), Ok(()));
    assert_eq!(validate_broker("log.cleanup.policy", "compact"), Ok(()));
    assert!(matches!(validate_broker("log.cleaner.dedupe.buffer.size", "1048576"), Err(SettingError::Invalid { .. })));
    assert!(matches!(validate_broker("log.cleaner.io.buffer.load.factor", "1.5"), Err(SettingError::Invalid { .. })));
    assert!(matches!(validate_topic("remote.log.copy.disable", "true"), Err(SettingError::Unsupported { .. })));
    assert!(matches!(validate_topic("remote.storage.enable", "True"), Err(SettingError::Unsupported { .. })));
    assert!(matches!(validate_topic("message.format.version", "3.0"), Err(SettingError::Unknown { .. })));
    assert!(matches!(validate_broker("num.partitions", "4"), Err(SettingError::ReadOnly { .. })));
    assert!(matches!(validate_broker("ssl.keystore.location", "/x"), Err(SettingError::ReadOnly { .. })));
    assert_eq!(validate_broker("message.max.bytes", "4000"), Ok(()));
    assert_eq!(validate_broker("unknown.thing", "5"), Ok(()));
    let error = validate_topic("retention.ms", "-2").unwrap_err().to_string();
    assert_eq!(error, "Invalid value -2 for configuration retention.ms: Value must be at least -1");
}

#[test]
fn rules_beyond_a_type_are_checked() {
    assert!(validate_topic("compression.gzip.level", "0").is_err());
    assert_eq!(validate_topic("compression.gzip.level", "-1"), Ok(()));
    assert_eq!(validate_topic("leader.replication.throttled.replicas", "*"), Ok(()));
    assert_eq!(validate_topic("leader.replication.throttled.replicas", "0:1, 1:1"), Ok(()));
    assert!(validate_topic("leader.replication.throttled.replicas", "x").is_err());
    assert!(check_fixed("max.connections.per.ip.overrides", "127.0.0.1:5, [::1]:6").is_ok());
    assert!(check_fixed("max.connections.per.ip.overrides", "host:5").is_err());
    let fixed = map(&[("max.connections.per.ip.overrides", "127.0.0.1:5, [::ffff:10.0.0.1]:6")]);
    let empty = BTreeMap::new();
    let resolved = BrokerSettings::resolve(Layers { broker: &empty, cluster: &empty, fixed: &fixed });
    let expected = [([127, 0, 0, 1].into(), 5), ([10, 0, 0, 1].into(), 6)];
    assert_eq!(resolved.connections_per_ip_overrides, expected.into());
    assert_eq!(resolved.connection_rate_max, None);
    assert_eq!(resolved.quota_windows, quota::Windows { client: quota::Window::KAFKA, mutation: quota::Window::KAFKA });
    let lags = map(&[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")]);
    assert!(matches!(validate_topic_set(&lags), Err(SettingError::Invalid { .. })));
}

#[test]
fn a_topic_row_names_what_it_overrides() {
    let (own, cluster) = (map(&[("max.message.bytes", " 4000 ")]), map(&[("message.max.bytes", "2000")]));
    let empty = BTreeMap::new();
    let layers = Layers { broker: &empty, cluster: &cluster, fixed: &empty };
    let rows = describe_topic(&own, layers, |name| name == "max.message.bytes");
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.value.as_deref(), row.source, row.read_only), (Some("4000"), Source::Topic, false));
    let synonyms: Vec<_> = row.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref(), s.source)).collect();
    let expected = [
        ("max.message.bytes", Some(" 4000 "), Source::Topic),
        ("message.max.bytes", Some("2000"), Source::DynamicDefaultBroker),
        ("message.max.bytes", Some("1048588"), Source::Default),
    ];
    assert_eq!(synonyms, expected);
}

#[test]
fn a_topic_row_shows_hours_as_milliseconds() {
    let (empty, fixed) = (BTreeMap::new(), map(&[("log.retention.hours", "5")]));
    let layers = Layers { broker: &empty, cluster: &empty, fixed: &fixed };
    let shown = |layers| {
        let row = describe_topic(&empty, layers, |name| name == "retention.ms").remove(0);
        let synonyms: Vec<_> = row.synonyms.iter().map(|s| format!("{:?} {}", s.source, s.name)).collect();
        (row.value.unwrap(), row.source, synonyms.join(", "))
    };
    // As a real Kafka 4.3.1 shows it: hours alone stand behind nothing that has the setting's own name.
    assert_eq!(shown(layers), ("18000000".to_owned(), Source::Default, String::new()));
    assert_eq!(shown(Layers { fixed: &empty, ..layers }).0, "604800000");
    let dynamic = map(&[("log.retention.ms", "60000")]);
    let behind = "DynamicBroker log.retention.ms, StaticBroker log.retention.hours, Default log.retention.hours";
    let expected = ("60000".to_owned(), Source::DynamicBroker, behind.to_owned());
    assert_eq!(shown(Layers { broker: &dynamic, ..layers }), expected);
    let rows = describe_broker(layers, |name| ["log.retention.hours", "log.retention.minutes"].contains(&name));
    assert_eq!(rows.iter().map(|row| row.synonyms.len()).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn a_broker_row_hides_secrets_and_what_is_not_known() {
    let (empty, fixed) = (BTreeMap::new(), map(&[("super.users", "User:CN=a; User:CN=b")]));
    let dynamic = map(&[("unknown.thing", "5")]);
    let layers = Layers { broker: &dynamic, cluster: &dynamic, fixed: &fixed };
    let rows = describe_broker(layers, |name| ["super.users", "unknown.thing", "log.dir"].contains(&name));
    let shown: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.value.clone(), row.sensitive)).collect();
    assert_eq!(shown, [("super.users", None, true), ("unknown.thing", None, true)]);
    assert_eq!(rows[1].wire_type, 0);
    let layers = Layers { broker: &empty, cluster: &empty, fixed: &fixed };
    assert_eq!(BrokerSettings::resolve(layers).super_users, Principal::parse_list("User:CN=a;User:CN=b").unwrap());
    assert_eq!(describe_cluster(&dynamic, |_| true).len(), 1);
}

#[test]
fn a_file_is_told_what_to_do_about_a_wrong_key() {
    assert_eq!(check_fixed("num.partitions", " 4 ").as_deref(), Ok("4"));
    for (name, value, part) in [
        ("retention.ms", "5", "\"log.retention.ms\""),
        ("ssl.keystore.location", "/x", "[tls]"),
        ("listeners", "PLAINTEXT://:9092", "[listeners]"),
        ("log.dir", "/x", "data_dir"),
        ("num.partitions", "0", "at least 1"),
        ("unclean.leader.election.enable", "true", "given up"),
        ("nope", "1", "no such"),
    ] {
        let error = check_fixed(name, value).unwrap_err();
        assert!(error.contains(part), "{name}: {error}");
    }
}
