//! The layers, the refusals, and the example that documents them.

use super::*;
use crate::broker::settings::{self, Effect};

const EXAMPLE: &str = include_str!("../../config.example.toml");
const IDENTITY: &str = "cluster_id = \"AAAAAAAAAAAAAAAAAAAAAQ\"\nnode_id = 1\n";
const SUPER: &str = "[kafka]\n\"super.users\" = \"User:CN=admin,O=casemate\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
        Folder(folder)
    }

    fn sources(&self, environment: &[(&str, &str)], sets: &[&str]) -> Sources {
        Sources {
            file: self.0.path().join(FILE_NAME),
            text: None,
            environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            sets: sets.iter().map(|set| set.to_string()).collect(),
        }
    }

    fn load(&self, environment: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
        Config::load(&self.sources(environment, sets))
    }
}

/// A configuration that is complete, with `more` options in it.
fn complete(more: &str) -> Folder {
    Folder::new(&format!("{IDENTITY}{more}\n{SUPER}"))
}

fn refusal(folder: &Folder, environment: &[(&str, &str)], sets: &[&str]) -> String {
    folder.load(environment, sets).unwrap_err().to_string()
}

#[test]
fn flags_stand_over_environment_over_file_over_defaults() {
    let folder = complete("[wal]\nsegment_bytes = 2097152\nroom_wait_ms = 1\n");
    let config = folder.load(&[], &[]).unwrap();
    assert_eq!((config.options.wal.segment_bytes, config.options.wal.budget_bytes), (2_097_152, 1 << 30));
    let environment = [("CASEMATE_WAL_SEGMENT_BYTES", "3145728"), ("CASEMATE_WAL_ROOM_WAIT_MS", "2"), ("PATH", "/bin")];
    let config = folder.load(&environment, &["wal.segment_bytes=4194304"]).unwrap();
    assert_eq!((config.options.wal.segment_bytes, config.options.wal.room_wait_ms), (4_194_304, 2));
}

#[test]
fn kafka_settings_keep_their_names_in_every_layer() {
    let folder =
        Folder::new(&format!("{IDENTITY}{SUPER}\"num.partitions\" = 2\n\"auto.create.topics.enable\" = false\n"));
    let of = |config: Config| config.kafka.get("num.partitions").cloned();
    assert_eq!(of(folder.load(&[], &[]).unwrap()).as_deref(), Some("2"));
    let environment = [("CASEMATE_KAFKA_NUM_PARTITIONS", " 3 ")];
    assert_eq!(of(folder.load(&environment, &[]).unwrap()).as_deref(), Some("3"));
    assert_eq!(of(folder.load(&environment, &["num.partitions=4"]).unwrap()).as_deref(), Some("4"));
    assert_eq!(of(folder.load(&environment, &["kafka.num.partitions=5"]).unwrap()).as_deref(), Some("5"));
    let config = folder.load(&[], &["log.retention.hours=5"]).unwrap();
    assert_eq!(config.kafka["auto.create.topics.enable"], "false");
    assert_eq!(config.kafka["log.retention.hours"], "5");
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    for (folder, environment, sets, parts) in [
        (
            complete("[wal]\nsegment_byte = 1\n"),
            &[][..],
            &[][..],
            &["wal.segment_byte = 1", "did you mean wal.segment_bytes?", FILE_NAME][..],
        ),
        (complete("[wall]\nx = 1\n"), &[], &[], &["no such section: did you mean [wal]?"]),
        (complete("wal = 1\n"), &[], &[], &["wal = 1", "no such option"]),
        (complete("node = 1\n"), &[], &[], &["node = 1"]),
        (
            complete(""),
            &[("CASEMATE_WAL_SEGMENTBYTES", "1")],
            &[],
            &["CASEMATE_WAL_SEGMENTBYTES", "did you mean CASEMATE_WAL_SEGMENT_BYTES?"],
        ),
        (complete(""), &[("CASEMATE_KAFKA_NUM_PARTITION", "1")], &[], &["did you mean CASEMATE_KAFKA_NUM_PARTITIONS?"]),
        (
            complete(""),
            &[],
            &["num.partition=1"],
            &["num.partition = 1 (from --set)", "did you mean \"num.partitions\" in [kafka]?"],
        ),
        (complete(""), &[], &["num.partitions"], &["write KEY=VALUE"]),
        (complete(""), &[], &["retention.ms=1"], &["\"log.retention.ms\""]),
        (complete(""), &[], &["listeners=PLAINTEXT://:9092"], &["[listeners]"]),
    ] {
        let error = refusal(&folder, environment, sets);
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(complete("").load(&[("CASEMATE_FAILPOINTS", "x"), ("CASEMATE_TEST_X", "x")], &[]).is_ok());
}

#[test]
fn bugs_can_be_planted_only_where_failpoints_are() {
    let planted = complete("").load(&[("CASEMATE_PLANT", "skip-sync")], &[]);
    assert_eq!(planted.is_ok(), cfg!(feature = "failpoints"), "{:?}", planted.err());
    for misspelt in ["CASEMATE_PLANTS", "CASEMATE_PLANT_X", "CASEMATE_FAILPOINTS_X"] {
        let error = refusal(&complete(""), &[(misspelt, "skip-sync")], &[]);
        assert!(error.contains(misspelt) && error.contains("no such option"), "{error}");
    }
}

#[test]
fn an_unknown_kafka_key_is_refused() {
    for (key, part) in [
        ("\"num.partition\" = 1", "did you mean \"num.partitions\"?"),
        ("num.partitions = 1", "in quotes"),
        ("\"num.partitions\" = 0", "Value must be at least 1"),
        ("\"num.partitions\" = [1]", "one text"),
        ("\"unclean.leader.election.enable\" = true", "given up"),
        ("\"node.id\" = 1", "node_id"),
        ("\"zookeeper.connect\" = \"a\"", "quorum"),
        ("\"message.max.bytes\" = 60000000\n\"socket.request.max.bytes\" = 50000000", "socket.request.max.bytes"),
        ("\"ssl.principal.mapping.rules\" = \"RULE:\"", "RULE:"),
    ] {
        let error = refusal(&Folder::new(&format!("{IDENTITY}{SUPER}{key}\n")), &[], &[]);
        assert!(error.contains(part), "{key}: {error}");
    }
}

#[test]
fn a_value_of_another_type_is_refused() {
    for (more, part) in [
        ("[wal]\nsegment_bytes = \"64 MiB\"", "wal.segment_bytes = \"64 MiB\""),
        ("[wal]\nsegment_bytes = -1", "not negative"),
        ("[wal]\nsegment_bytes = 1.5", "whole number"),
        ("[log]\nformat = 1", "text in quotes"),
        ("data_dir = { a = 1 }", "not a table"),
        ("[wal\n", "not valid TOML"),
    ] {
        let error = refusal(&complete(more), &[], &[]);
        assert!(error.contains(part) && !error.contains('\n'), "{more}: {error}");
    }
    let error = refusal(&complete(""), &[("CASEMATE_WAL_SEGMENT_BYTES", "big")], &[]);
    assert!(error.contains("CASEMATE_WAL_SEGMENT_BYTES = big") && error.contains("whole number"), "{error}");
}

#[test]
fn settings_that_kafka_refuses_at_its_start_or_that_would_have_no_effect_are_refused() {
    for (setting, part) in [
        ("group.consumer.migration.policy=sideways", "BIDIRECTIONAL"),
        ("group.consumer.assignors=uniform,foo", "no assignor foo"),
        ("group.consumer.assignors=", "at least one"),
        ("group.consumer.heartbeat.interval.ms=1000", "group.consumer.min.heartbeat.interval.ms, 5000"),
        ("group.consumer.session.timeout.ms=70000", "group.consumer.max.session.timeout.ms, 60000"),
        ("group.coordinator.rebalance.protocols=classic", "name both"),
        ("transaction.two.phase.commit.enable=true", "KIP-939"),
    ] {
        let error = refusal(&complete(""), &[], &[setting]);
        assert!(error.contains(part), "{setting}: {error}");
    }
    let fine = ["group.consumer.migration.policy=Upgrade", "group.consumer.assignors=range"];
    assert!(complete("").load(&[], &fine).is_ok());
}

#[test]
fn what_contradicts_is_refused() {
    for (sets, part) in [
        (&["wal.budget_bytes=67108864"][..], "four segments"),
        (&["objects.upload_bytes=1073741824"], "half of wal.budget_bytes"),
        (&["wal.queue_bytes=1048576", "message.max.bytes=2000000"], "wal.queue_bytes"),
        (&["listeners.tls=0.0.0.0:9093"], "listeners.advertise"),
        (&["listeners.tls=kafka.example:9093"], "IP address"),
        (&["listeners.advertise=0.0.0.0:9093"], "no client can connect"),
        (&["admin.listen=127.0.0.1:9093"], "choose another port"),
        (&["log.format=xml"], "text or json"),
        (&["log.filter=casemate=nothing"], "write a level"),
        (&["limits.worker_threads=5000"], "from 0 to 1024"),
        (&["super.users="], "at least one principal"),
        (&["cluster_id=x"], "casemate init"),
        (&["node_id=0"], "from 1 on"),
        (&["objects.url=http://bucket"], "s3://BUCKET/PREFIX"),
        (&["objects.url=s3://key:secret@bucket"], "credentials_file"),
        (&["objects.url=s3://b", "objects.endpoint=https://s3:9000"], "never trusted"),
        (&["objects.url=s3://b", "objects.ca_file=ca.pem"], "needs credentials"),
        (&["objects.url=s3://b", "objects.endpoint=http://s3.example:80"], "unencrypted"),
        (&["objects.url=s3://b", "objects.endpoint=https://s3.example/x"], "without a path"),
        (&["objects.client_cert_file=a.pem"], "objects.client_key_file"),
        (&["objects.client_key_file=a.pem"], "objects.client_cert_file"),
        (&["objects.endpoint=https://s3:9000"], "is a folder"),
    ] {
        let error = refusal(&complete(""), &[], sets);
        assert!(error.contains(part), "{sets:?}: {error}");
    }
}

#[test]
fn object_storage_is_a_folder_or_a_bucket() {
    let folder = complete("");
    let beside = folder.0.path().join("objects");
    assert_eq!(folder.load(&[], &[]).unwrap().place, Place::Folder(beside));
    let other = folder.load(&[], &["objects.url=file:///srv/objects"]).unwrap().place;
    assert_eq!(other, Place::Folder("/srv/objects".into()));
    let bucket = [
        "objects.url=s3://b/a/c/",
        "objects.endpoint=https://s3:9000",
        "objects.ca_file=ca.pem",
        "objects.credentials_file=/etc/c",
    ];
    let config = folder.load(&[], &bucket).unwrap();
    let Place::Bucket(bucket) = &config.place else { panic!("{:?}", config.place) };
    assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("b", "a/c"));
    assert_eq!(bucket.credentials_file, PathBuf::from("/etc/c"));
    assert_eq!(config.path(&config.options.objects.ca_file), Some(folder.0.path().join("ca.pem")));
    assert_eq!(config.path(""), None);
}

#[test]
fn paths_begin_at_the_data_folder() {
    let config = complete("data_dir = \"/srv/casemate\"\n").load(&[], &[]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/srv/casemate"));
    assert_eq!(config.tls_files.key, PathBuf::from("/srv/casemate/tls/node.key"));
}

#[test]
fn clients_are_told_where_to_connect() {
    let bound = "127.0.0.1:4000".parse().unwrap();
    let at = |sets: &[&str]| {
        let endpoint = complete("").load(&[], sets).unwrap().tls.endpoint(bound);
        (endpoint.host, endpoint.port)
    };
    assert_eq!(at(&["listeners.advertise=kafka.example:9000"]), ("kafka.example".to_owned(), 9000));
    assert_eq!(at(&["listeners.advertise=kafka.example:0"]), ("kafka.example".to_owned(), 4000));
    assert_eq!(at(&[]), ("127.0.0.1".to_owned(), 4000));
    let config = complete("").load(&[], &["listeners.advertise=[::1]:0"]).unwrap();
    let settings = config.static_settings(&[(&config.tls, bound)]);
    assert_eq!(settings["listeners"], "SSL://127.0.0.1:4000");
    assert_eq!(settings["advertised.listeners"], "SSL://[::1]:4000");
    assert_eq!((settings["node.id"].as_str(), settings["broker.id"].as_str()), ("1", "1"));
}

#[test]
fn dev_listens_on_loopback_only_whatever_the_file_says() {
    let folder =
        Folder::new(&format!("{IDENTITY}[listeners]\ntls = \"0.0.0.0:9093\"\nadvertise = \"kafka.example:9093\"\n"));
    let sources = folder.sources(&[], &[]);
    let given = |address: &str| Some(address.to_owned());
    let listeners =
        DevListeners { plaintext: given("127.0.0.1:0"), tls: given("[::1]:9093"), admin: given("localhost:9095") };
    let config = Config::load_dev(&sources, &listeners).unwrap();
    assert_eq!(config.mode, Mode::Dev);
    assert!(config.plaintext.is_some_and(|l| l.bind.ip().is_loopback()) && config.tls.bind.ip().is_loopback());
    assert_eq!(config.tls.advertise, None);
    for (set, part) in [
        (
            "listeners.tls=",
            "listeners.tls = \"\" (from --set) cannot be used: casemate dev listens where --tls-listen says",
        ),
        ("listeners.tls=127.0.0.1:9099", "--tls-listen"),
        ("listeners.advertise=kafka.example:9093", "tells clients where it listens"),
        ("admin.listen=127.0.0.1:0", "--admin-listen"),
    ] {
        let error = Config::load_dev(&folder.sources(&[], &[set]), &listeners).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let set = folder.sources(&[("CASEMATE_ADMIN_LISTEN", "127.0.0.1:0")], &[]);
    let error = Config::load_dev(&set, &listeners).unwrap_err().to_string();
    assert!(error.contains("from CASEMATE_ADMIN_LISTEN") && error.contains("--admin-listen"), "{error}");
    for (wrong, part) in [
        (
            DevListeners { plaintext: given("0.0.0.0:9092"), ..listeners.clone() },
            "--listen = 0.0.0.0:9092 (from the command line)",
        ),
        (DevListeners { tls: given("10.0.0.1:9092"), ..listeners.clone() }, "loopback only"),
        (
            DevListeners { admin: given("[::1]:9093"), ..listeners.clone() },
            "--admin-listen = [::1]:9093 (from the command line) cannot be used: --tls-listen listens there",
        ),
        (
            DevListeners { tls: given("127.0.0.1:9092"), ..DevListeners::default() },
            "--tls-listen = 127.0.0.1:9092 (from the command line) cannot be used: --listen listens there",
        ),
        (
            DevListeners { plaintext: given("127.0.0.1:9093"), ..DevListeners::default() },
            "--tls-listen = 127.0.0.1:9093 (the default) cannot be used: --listen listens there",
        ),
    ] {
        let error = Config::load_dev(&sources, &wrong).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_shown_is_a_configuration_that_gives_the_same() {
    let config = complete("").load(&[("CASEMATE_KAFKA_NUM_PARTITIONS", "3")], &["wal.room_wait_ms=7"]).unwrap();
    let shown = config.to_toml().unwrap();
    assert!(shown.contains("\"num.partitions\" = 3\n") && shown.contains("room_wait_ms = 7\n"), "{shown}");
    let again = Folder::new(&shown).load(&[], &[]).unwrap();
    assert_eq!((&again.options.wal, again.to_toml().unwrap()), (&config.options.wal, shown));
    let json: serde_json::Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
    assert_eq!(json["kafka"]["num.partitions"], 3);
}

#[test]
fn what_init_writes_is_a_configuration() {
    let (cluster, node) = (ClusterId([7; 16]), NodeId(3));
    let identity = Identity {
        cluster,
        node,
        tls: "0.0.0.0:9093",
        advertise: "kafka.example:9093",
        peer_listen: "0.0.0.0:9094",
        peer_advertise: "kafka.example:9094",
        name: "",
        rack: "",
    };
    let text = initial_file(&identity, "User:CN=a \"b\",O=c").unwrap();
    let config = Folder::new(&text).load(&[], &[]).unwrap();
    assert_eq!((config.cluster, config.node), (cluster, node));
    assert_eq!(config.kafka["super.users"], "User:CN=a \"b\",O=c");
    assert_eq!(config.tls.advertise, HostPort::parse("kafka.example:9093").ok());
}

#[test]
fn a_node_that_joins_begins_with_what_its_cluster_has_in_common() {
    let settings = [("super.users", "User:CN=a \"b\",O=c"), ("wal.segment_bytes", "1048576"), ("num.partitions", "4")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let identity = || Identity {
        cluster: ClusterId([7; 16]),
        node: NodeId(3),
        tls: "0.0.0.0:9093",
        advertise: "c.example:9093",
        peer_listen: "0.0.0.0:9194",
        peer_advertise: "c.example:9194",
        name: "c",
        rack: "r2",
    };
    let text = joining_file(&Joining { identity: identity(), settings: &settings }).unwrap();
    assert!(!text.contains("segment_bytes = 67108864") && !text.contains("[admin]"), "only what differs: {text}");
    let config = Folder::new(&text).load(&[], &[]).unwrap();
    assert_eq!(
        (config.cluster, config.node, config.options.wal.segment_bytes),
        (ClusterId([7; 16]), NodeId(3), 1 << 20)
    );
    assert_eq!(
        (config.kafka["super.users"].as_str(), config.kafka["num.partitions"].as_str()),
        ("User:CN=a \"b\",O=c", "4")
    );
    assert_eq!((config.node_name().as_str(), config.options.peer.rack.as_str()), ("c", "r2"));
    let peer = config.peer.unwrap();
    assert_eq!((peer.bind.port(), peer.advertise), (9194, HostPort::parse("c.example:9194").ok()));
    let unknown = [("no.such".to_owned(), "1".to_owned())];
    assert!(joining_file(&Joining { identity: identity(), settings: &unknown }).is_err());
}

#[test]
fn nodes_are_told_an_address_that_they_can_connect_to() {
    let config = complete("[peer]\nlisten = \"10.0.0.1:9094\"\n").load(&[], &[]).unwrap();
    let peer = config.peer.unwrap();
    assert_eq!((peer.name, peer.bind.to_string().as_str(), peer.advertise), (PEER, "10.0.0.1:9094", None));
    for (more, part) in [
        ("listen = \"b.example:9094\"", "peer.listen = b.example:9094"),
        ("listen = \"0.0.0.0:9094\"", "nodes need one address"),
        ("listen = \"0.0.0.0:9094\"\nadvertise = \"0.0.0.0:9094\"", "no node can connect"),
        ("listen = \"127.0.0.1:9093\"", "listeners.tls listens there"),
        ("listen = \"127.0.0.1:9095\"", "admin.listen listens there"),
        ("advertise = \"b.example\"", "HOST:PORT"),
    ] {
        let error = refusal(&complete(&format!("[peer]\n{more}\n")), &[], &[]);
        assert!(error.contains(part), "{more}: {error}");
    }
    // Who has a listener where the default would be is not hindered.
    assert!(complete("[admin]\nlisten = \"127.0.0.1:9094\"\n").load(&[], &[]).is_ok());
    let folder = complete("");
    let dev = Config::load_dev(&folder.sources(&[], &["peer.listen=127.0.0.1:1"]), &DevListeners::default());
    let error = dev.unwrap_err().to_string();
    assert!(error.contains("peer.listen = 127.0.0.1:1 (from --set)") && error.contains("a node alone"), "{error}");
}

#[test]
fn a_missing_or_odd_file_is_one_sentence() {
    let sources = |file: &str| Sources { file: file.into(), ..Sources::default() };
    assert!(Config::load(&sources("/nonexistent/casemate.toml")).unwrap_err().to_string().contains("casemate init"));
    assert!(Config::load(&sources("/dev/zero")).unwrap_err().to_string().contains("name a casemate.toml"));
}

/// The example has every option, uncommented with its default and with a comment before it; and nothing else.
#[test]
fn the_example_documents_every_option() {
    let example: toml::Table = toml::from_str(EXAMPLE).unwrap();
    let mut defaults = toml::Table::try_from(Options::default()).unwrap();
    let kafka = settings::brokers().filter(|setting| setting.effect == Effect::Enforced);
    let kafka = kafka.filter_map(|setting| {
        let default = BTreeMap::from([(setting.name.to_owned(), setting.default?.to_owned())]);
        Some((setting.name.to_owned(), toml::Value::try_from(show::typed(&default)).unwrap()[setting.name].clone()))
    });
    defaults.insert("kafka".to_owned(), toml::Value::Table(kafka.collect()));
    for (name, value) in &defaults {
        assert_eq!(example.get(name), Some(value), "{name}");
    }
    assert_eq!(example.len(), defaults.len());
    let lines: Vec<_> = EXAMPLE.lines().collect();
    for (before, line) in lines.iter().zip(&lines[1..]) {
        assert!(!line.contains(" = ") || line.starts_with('#') || before.starts_with('#'), "no comment before {line}");
    }
    for setting in settings::brokers() {
        let mentioned = EXAMPLE.contains(&format!("\"{}\"", setting.name));
        let settable = matches!(setting.effect, Effect::Enforced | Effect::WithoutEffect(_));
        assert_eq!(mentioned, settable, "{}", setting.name);
    }
}

#[test]
fn the_example_can_be_used_once_it_has_an_identity() {
    let sets = ["cluster_id=AAAAAAAAAAAAAAAAAAAAAQ", "node_id=1", "super.users=User:CN=admin"];
    let config = Folder::new(EXAMPLE).load(&[], &sets).unwrap();
    let complete = complete("").load(&[], &[]).unwrap();
    assert_eq!(config.options.objects, complete.options.objects);
}

/// Prints the Kafka part of the example: `cargo test -- --ignored --nocapture kafka_part_of_the_example`.
#[test]
#[ignore = "a generator, not a test"]
fn kafka_part_of_the_example() {
    println!("[kafka]");
    for setting in settings::brokers().filter(|setting| setting.effect == Effect::Enforced) {
        println!("# {}", setting.doc);
        match setting.default {
            Some(default) => {
                let one = BTreeMap::from([(setting.name.to_owned(), default.to_owned())]);
                print!("{}", toml::to_string(&show::typed(&one)).unwrap());
            }
            None => println!("# \"{}\" = …   (not set)", setting.name),
        }
    }
    println!("\n# Accepted, stored and shown, without effect in this release:");
    for setting in settings::brokers().filter(|setting| matches!(setting.effect, Effect::WithoutEffect(_))) {
        println!("#   \"{}\"", setting.name);
    }
}
