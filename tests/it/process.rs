//! The process as an operator meets it: commands, exit codes, one sentence that says what to do, a clean end.

use super::batch::{self, NO_PRODUCER};
use super::client::text;
use super::harness::{BINARY, Broker, Launch, eventually, folder, now_ms, wait_for_leaders};
use kafka_protocol::messages::*;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const END: Duration = Duration::from_secs(30);
const CONFIGURATION: i32 = 2;
const TAKEN: i32 = 4;

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn write(broker: &Broker, topic: &str, values: &[&str]) {
    let mut client = broker.client();
    assert!(matches!(client.create_topic(topic, 1, &[]).unwrap(), 0 | 36));
    wait_for_leaders(&mut client, topic, 1);
    for value in values {
        let batch = batch::encode(&[value.as_bytes().to_vec()], NO_PRODUCER, -1, now_ms());
        assert_eq!(client.produce(topic, 0, batch).unwrap().error, 0);
    }
}

pub fn read(broker: &Broker, topic: &str) -> Vec<String> {
    let records = broker.client().read_all(topic, 0, 0).unwrap();
    records.into_iter().map(|r| String::from_utf8(r.value.unwrap_or_default()).unwrap()).collect()
}

#[test]
fn the_first_start_makes_what_it_needs_and_says_how_to_use_it() {
    let dir = folder();
    let data = dir.path().join("new");
    let broker = Launch::dev(&data).start();
    assert_eq!(broker.address("plaintext").ip().to_string(), "127.0.0.1");
    for listener in ["plaintext", "tls", "admin"] {
        assert_ne!(broker.address(listener).port(), 0, "{listener}");
    }
    for entry in ["tls", "client", "wal", "metadata", "objects", "lock"] {
        assert!(data.join(entry).exists(), "{entry} is missing in the folder");
    }
    for file in ["ca.pem", "client.pem", "client.key", "keystore.pem", "client.properties", "librdkafka.conf"] {
        assert!(data.join("client").join(file).exists(), "client/{file} is missing");
    }
    assert!(broker.log().contains(&broker.address("plaintext").to_string()), "{}", broker.log());
    write(&broker, "first", &["a"]);
    assert_eq!(broker.terminate(END).status.code(), Some(0));
}

#[test]
fn a_clean_end_is_quick_and_loses_nothing() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    write(&broker, "kept", &["a", "b"]);
    // A fetch that waits, and a connection that says nothing, must not hold up the end.
    let mut waiting = broker.client();
    waiting.send(11, &super::client::fetch_request("kept", 0, 2, 60_000, 1 << 20)).unwrap();
    let _silent = broker.client();
    let began = Instant::now();
    let ended = broker.terminate(END);
    ended.expect(0, &[]);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    let broker = Launch::dev(dir.path()).start();
    assert_eq!(read(&broker, "kept"), ["a", "b"]);
    let cut: Vec<_> =
        std::fs::read_dir(dir.path().join("quarantine")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(cut.is_empty(), "a clean log has nothing to cut: {cut:?}");
    write(&broker, "kept", &["c"]);
    assert_eq!(read(&broker, "kept"), ["a", "b", "c"]);
}

#[test]
fn who_knows_that_the_node_is_ready_may_end_it() {
    let dir = folder();
    for _ in 0..5 {
        Launch::dev(dir.path()).start().terminate(END).expect(0, &[]);
    }
}

#[test]
fn what_waits_is_answered_when_the_node_stops() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    write(&broker, "kept", &["a"]);
    let mut reader = broker.client();
    reader.send(11, &super::client::fetch_request("kept", 0, 1, 30_000, 1 << 20)).unwrap();
    // The first member of a group waits for others.
    let mut member = broker.client();
    let key = |key| FindCoordinatorRequest::default().with_key(text(key));
    eventually("the group has its coordinator", END, || {
        (member.call(2, &key("g")).ok()?.error_code == 0).then_some(())
    });
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    let join = JoinGroupRequest::default().with_group_id(GroupId(text("g"))).with_protocol_type(text("consumer"));
    let join = join.with_protocols(vec![protocol]).with_session_timeout_ms(30_000).with_rebalance_timeout_ms(30_000);
    member.send(2, &join).unwrap();
    std::thread::sleep(Duration::from_millis(300));

    broker.signal(rustix::process::Signal::TERM);
    let began = Instant::now();
    let fetched = reader.receive::<FetchRequest>(11).expect("the long poll is answered");
    assert_eq!((fetched.error_code, fetched.responses[0].partitions[0].error_code), (0, 0));
    let joined = member.receive::<JoinGroupRequest>(2).expect("the member is answered");
    assert_eq!(joined.error_code, 16, "it looks for another coordinator");
    broker.wait(END).expect(0, &[]);
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let dir = folder();
    let mut expected = vec![];
    for round in 0..3 {
        let broker = Launch::dev(dir.path()).start();
        assert_eq!(read_or_empty(&broker, round), expected);
        write(&broker, "kept", &[&format!("r{round}")]);
        expected.push(format!("r{round}"));
        broker.kill();
    }
}

fn read_or_empty(broker: &Broker, round: i32) -> Vec<String> {
    if round == 0 { vec![] } else { read(broker, "kept") }
}

#[test]
fn topics_settings_and_ids_survive_a_restart() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    write(&broker, "kept", &["a"]);
    let before = broker.client().metadata(&["kept"]).unwrap();
    let producer = super::harness::new_producer(&mut broker.client());
    broker.kill();
    let broker = Launch::dev(dir.path()).start();
    let after = broker.client().metadata(&["kept"]).unwrap();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.topics[0].topic_id, before.topics[0].topic_id);
    let (old, new) = (before.topics[0].partitions[0].leader_epoch, after.topics[0].partitions[0].leader_epoch);
    assert!(new > old, "a new process leads under a new epoch: {old} then {new}");
    assert_ne!(
        super::harness::new_producer(&mut broker.client()).id,
        producer.id,
        "producer ids are never given twice"
    );
}

#[test]
fn the_folder_belongs_to_one_process() {
    let dir = folder();
    let first = Launch::dev(dir.path()).start();
    let second = Launch::dev(dir.path()).run_to_end();
    second.expect(TAKEN, &[&dir.path().display().to_string()]);
    write(&first, "still", &["here"]);
    assert_eq!(read(&first, "still"), ["here"]);
    first.kill();
    Launch::dev(dir.path()).start(); // the lock dies with its holder
}

#[test]
fn a_folder_that_cannot_be_locked_is_named_with_a_remedy() {
    let dir = folder();
    Launch::dev(dir.path()).start().terminate(END).expect(0, &[]);
    let lock = dir.path().join("lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    Launch::dev(dir.path()).run_to_end().expect(TAKEN, &[&lock.display().to_string(), "owner and mode"]);
}

#[test]
fn a_folder_of_another_node_is_a_mistake_in_the_configuration() {
    let dir = folder();
    Launch::dev(dir.path()).start().terminate(END).expect(0, &[]);
    let metadata = dir.path().join("metadata").display().to_string();
    let ended = Launch::dev(dir.path()).set("node_id", "2").run_to_end();
    ended.expect(CONFIGURATION, &["node_id = 2", &metadata, "belongs to node 1", "casemate.toml"]);
}

#[test]
fn a_node_that_has_yet_to_join_its_cluster_does_not_serve_alone() {
    let dir = folder();
    let root = dir.path().join("node");
    let made = run(&["init", root.to_str().unwrap(), "--host", "127.0.0.1", "--listen", "127.0.0.1:0"]);
    assert!(made.status.success(), "{}", said(&made));
    let token = root.join("join.token");
    std::fs::write(&token, "").unwrap();
    let served = run(&["serve", "--config", root.join("casemate.toml").to_str().unwrap()]);
    assert_eq!(served.status.code(), Some(CONFIGURATION), "{}", said(&served));
    assert!(said(&served).contains(token.to_str().unwrap()) && said(&served).contains("join its cluster first"));
    assert_eq!(std::fs::read_dir(root.join("metadata")).unwrap().count(), 0, "no metadata of its own are made");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listener in ["--listen", "--tls-listen", "--admin-listen"] {
        let dir = folder();
        let launch = Launch::dev(dir.path()).replace(listener, &address);
        launch.run_to_end().expect(TAKEN, &[&address]);
    }
}

#[test]
fn plaintext_is_for_loopback_only() {
    let dir = folder();
    Launch::dev(dir.path())
        .replace("--listen", "0.0.0.0:0")
        .run_to_end()
        .expect(CONFIGURATION, &["0.0.0.0", "loopback"]);
}

#[test]
fn bad_settings_are_refused_by_name_before_anything_is_made() {
    for (key, value, named) in [
        ("num.partitions", "several", "num.partitions"),
        ("num.partitions", "0", "num.partitions"),
        ("no.such.setting", "1", "no.such.setting"),
        ("wal.budget_bytes", "1", "wal.budget_bytes"),
        ("wal.no_such_setting", "1", "no_such_setting"),
        ("objects.url", "ftp://x", "ftp://x"),
        ("listeners.tls", "", "--tls-listen"),
    ] {
        let dir = folder();
        let ended = Launch::dev(dir.path()).set(key, value).run_to_end();
        ended.expect(CONFIGURATION, &[named, value]);
        assert!(!dir.path().join("wal").exists(), "{key}={value}: nothing may be made");
    }
    let dir = folder();
    Launch::dev(dir.path())
        .env("CASEMATE_KAFKA_NUM_PARTITIONS", "x")
        .run_to_end()
        .expect(CONFIGURATION, &["num.partitions"]);
}

#[test]
fn objects_that_have_no_folder_are_said_where_and_how_to_help() {
    let dir = folder();
    let objects = dir.path().join("data/objects");
    Launch::dev(&dir.path().join("data")).start().terminate(END).expect(0, &[]);
    std::fs::rename(&objects, dir.path().join("elsewhere")).unwrap();
    std::fs::write(&objects, "a file").unwrap();
    let ended = Launch::dev(&dir.path().join("data")).run_to_end();
    ended.expect(CONFIGURATION, &[objects.to_str().unwrap(), "File exists", "in its way", "objects.url"]);
}

#[test]
fn a_configuration_file_is_checked_and_shown() {
    let dir = folder();
    let root = dir.path().join("node");
    let made = run(&["init", root.to_str().unwrap(), "--host", "127.0.0.1", "--listen", "127.0.0.1:0"]);
    assert!(made.status.success(), "{}", said(&made));
    let again = run(&["init", root.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(CONFIGURATION), "init never overwrites: {}", said(&again));
    let file = root.join("casemate.toml");
    let file = file.to_str().unwrap();
    let checked = run(&["config", "check", "--config", file]);
    assert!(checked.status.success(), "{}", said(&checked));
    let shown = run(&["config", "show", "--config", file]);
    assert!(shown.status.success() && said(&shown).contains("num.partitions"), "{}", said(&shown));
    append(&root.join("casemate.toml"), "\n[nonsense]\nx = 1\n");
    let refused = run(&["config", "check", "--config", file]);
    assert_eq!(refused.status.code(), Some(CONFIGURATION));
    assert!(said(&refused).contains("nonsense"), "{}", said(&refused));
    let missing = run(&["serve", "--config", "/nonexistent/casemate.toml"]);
    assert_eq!(missing.status.code(), Some(CONFIGURATION));
    assert!(said(&missing).contains("/nonexistent/casemate.toml"));
    assert!(said(&run(&["version"])).contains(env!("CARGO_PKG_VERSION")));
}

fn append(path: &Path, text: &str) {
    let before = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, before + text).unwrap();
}

#[test]
fn health_and_metrics_are_served() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    write(&broker, "metered", &["a"]);
    assert!(http_get(&broker, "/live").starts_with("HTTP/1.1 200"));
    assert!(http_get(&broker, "/ready").starts_with("HTTP/1.1 200"));
    let metrics = http_get(&broker, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("# TYPE casemate_"), "{metrics}");
    for name in ["casemate_opening_partitions", "casemate_moving_partitions"] {
        assert_eq!(metric(&broker, name), Some(0.0), "{name}");
    }
    assert!(http_get(&broker, "/nowhere").starts_with("HTTP/1.1 404"));
}

/// One plain HTTP request to the admin listener (in dev it is not TLS).
pub fn http_get(broker: &Broker, path: &str) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(broker.address("admin")).expect("the admin listener accepts");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer
}

/// The value of a metric without labels, or the sum over all labels.
pub fn metric(broker: &Broker, name: &str) -> Option<f64> {
    let text = http_get(broker, "/metrics");
    let lines = text.lines().filter(|l| l.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|a, b| a + b)
}

/// Acknowledged bytes that are not in object storage yet.
pub const EXPOSURE: &str = "casemate_exposure_bytes";

#[test]
fn everything_uploaded_reads_the_same_from_objects_alone() {
    let dir = folder();
    let quick = |dir: &Path| Launch::dev(dir).sets(&[("objects.upload_interval_ms", "200")]);
    let broker = quick(dir.path()).start();
    let values: Vec<String> = (0..200).map(|n| format!("value {n}")).collect();
    write(&broker, "moved", &values.iter().map(String::as_str).collect::<Vec<_>>());
    eventually("everything is in object storage", Duration::from_secs(30), || {
        let exposure = metric(&broker, EXPOSURE).unwrap_or_else(|| panic!("/metrics has no {EXPOSURE}"));
        (exposure == 0.0).then_some(())
    });
    broker.terminate(END).expect(0, &[]);
    let emptied = dir.path().join("wal-away");
    std::fs::rename(dir.path().join("wal"), &emptied).unwrap();
    let broker = quick(dir.path()).start();
    assert_eq!(read(&broker, "moved"), values, "from the objects alone");
    write(&broker, "moved", &["and on"]);
    assert_eq!(read(&broker, "moved").len(), 201);
}

#[test]
fn a_wal_that_misses_unuploaded_records_is_refused() {
    let dir = folder();
    let slow = |dir: &Path| Launch::dev(dir).sets(&[("objects.upload_interval_ms", "3600000")]);
    let broker = slow(dir.path()).start();
    write(&broker, "only-here", &["a"]);
    broker.kill();
    std::fs::rename(dir.path().join("wal"), dir.path().join("wal-away")).unwrap();
    let ended = slow(dir.path()).run_to_end();
    assert!(!ended.status.success(), "{ended}");
    assert!(
        ended.log.contains("WAL") && ended.log.contains("put the former"),
        "what is missing, and the remedy: {ended}"
    );
    std::fs::remove_dir_all(dir.path().join("wal")).ok();
    std::fs::rename(dir.path().join("wal-away"), dir.path().join("wal")).unwrap();
    assert_eq!(read(&slow(dir.path()).start(), "only-here"), ["a"], "and the refusal changed nothing");
}
