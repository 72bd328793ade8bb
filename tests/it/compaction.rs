//! Log compaction as a consumer sees it: offsets stay, the newest record of each key stays, the rest goes, also across
//! a kill.

use super::batch::{self, NO_PRODUCER, Record};
use super::client::{Client, produce_request, text};
use super::harness::{Broker, Launch, eventually, folder, now_ms, wait_for_leaders};
use super::process::{EXPOSURE, metric};
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, incremental_alter_configs_request};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "compacted";

/// Uploads and compacts as fast as it can, and keeps no copy in the WAL's cache for long.
fn launch(dir: &Path) -> Broker {
    launch_with(dir, "true")
}

fn launch_with(dir: &Path, cleaner: &str) -> Broker {
    Launch::dev(dir)
        .set("log.cleaner.enable", cleaner)
        .sets(&[
            ("objects.upload_interval_ms", "100"),
            ("objects.maintenance_interval_ms", "200"),
            ("objects.grace_ms", "1000"),
            ("wal.segment_bytes", "1048576"),
            ("kafka.log.cleaner.backoff.ms", "50"),
        ])
        .start()
}

type Pair<'a> = (Option<&'a str>, Option<&'a str>);

fn keyed(pairs: &[Pair<'_>]) -> Vec<u8> {
    let mut records = Vec::new();
    for (delta, (key, value)) in (0i64..).zip(pairs) {
        let mut body = vec![0];
        batch::varint(&mut body, 0);
        batch::varint(&mut body, delta);
        for field in [key, value] {
            batch::varint(&mut body, field.map_or(-1, |text| text.len() as i64));
            body.extend_from_slice(field.unwrap_or_default().as_bytes());
        }
        batch::varint(&mut body, 0);
        batch::varint(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
    }
    batch::encode_body(&records, pairs.len() as i32, 0, NO_PRODUCER, -1, now_ms())
}

fn create(client: &mut Client, configs: &[(&str, &str)]) {
    assert_eq!(client.create_topic(TOPIC, 1, configs).unwrap(), 0, "a compacted topic is made");
    wait_for_leaders(client, TOPIC, 1);
}

/// Offset, key and value of everything that a consumer gets from object storage or from the WAL.
fn everything(client: &mut Client) -> Vec<Record> {
    client.read_all(TOPIC, 0, 0).unwrap()
}

fn value_of(record: &Record) -> String {
    record.value.as_deref().map_or("∅".into(), |v| String::from_utf8_lossy(v).into_owned())
}

#[test]
fn the_newest_record_of_each_key_is_left_at_its_offset() {
    let dir = folder();
    let mut broker = launch(dir.path());
    let mut client = broker.client();
    create(&mut client, &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")]);
    let mut newest = BTreeMap::new();
    let mut next = 0i64;
    for round in 0..60 {
        let texts: Vec<_> =
            (0..20).map(|n| (format!("k{}", (round * 7 + n * 3) % 50), format!("{round}-{n}"))).collect();
        let pairs: Vec<_> = texts.iter().map(|(k, v)| (Some(k.as_str()), Some(v.as_str()))).collect();
        let produced = client.produce(TOPIC, 0, keyed(&pairs)).unwrap();
        assert_eq!((produced.error, produced.base_offset), (0, next));
        for (offset, (key, value)) in (next..).zip(texts) {
            newest.insert(key, (offset, value));
        }
        next += 20;
        if round == 30 {
            broker.kill();
            broker = launch(dir.path());
            client = broker.client();
            wait_for_leaders(&mut client, TOPIC, 1);
        }
    }
    // What the WAL still holds is read from there, uncompacted: a restart after the upload leaves only the objects.
    eventually("everything is uploaded", PATIENCE, || (client.list_offset(TOPIC, 0, -4).ok()?.2 == next).then_some(()));
    assert_eq!(broker.terminate(PATIENCE).status.code(), Some(0));
    let broker = launch(dir.path());
    let mut client = broker.client();
    wait_for_leaders(&mut client, TOPIC, 1);
    let mut expected: Vec<_> = newest.into_iter().map(|(key, (offset, value))| (offset, key, value)).collect();
    expected.sort();
    let found = eventually("only the newest records are left", PATIENCE, || {
        let records = everything(&mut client);
        (records.len() == expected.len()).then_some(records)
    });
    let found: Vec<_> = found
        .iter()
        .map(|r| (r.offset, String::from_utf8_lossy(r.key.as_deref().unwrap_or_default()).into_owned(), value_of(r)))
        .collect();
    assert_eq!(found, expected);
    for from in 0..next {
        let fetched = client.fetch(TOPIC, 0, from, 100, 1).unwrap();
        let first = fetched.batches.first().expect("every offset below the end has a batch at or behind it");
        assert!(fetched.error == 0 && first.last_offset >= from, "offset {from}");
    }
    assert_eq!(client.list_offset(TOPIC, 0, -2).unwrap().2, 0, "the log still begins at 0");
    assert_eq!(client.list_offset(TOPIC, 0, -1).unwrap().2, next);
    let (error, timestamp, offset) = client.list_offset(TOPIC, 0, 1).unwrap();
    assert!(error == 0 && timestamp > 1 && offset == expected[0].0, "a look-up by time finds what is left");
}

#[test]
fn a_deleted_key_leaves_no_trace_after_its_retention() {
    let dir = folder();
    let mut broker = launch(dir.path());
    let mut client = broker.client();
    let configs =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.001"), ("delete.retention.ms", "500")];
    create(&mut client, &configs);
    client.produce(TOPIC, 0, keyed(&[(Some("a"), Some("1")), (Some("b"), Some("2"))])).unwrap();
    client.produce(TOPIC, 0, keyed(&[(Some("a"), None)])).unwrap();
    for attempt in 0..20 {
        // Only a partition that gets dirty is looked at again.
        for round in 0..3 {
            let value = format!("{attempt}-{round}");
            client.produce(TOPIC, 0, keyed(&[(Some("c"), Some(&value))])).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
        // After a restart records come from the objects, not from the WAL.
        assert_eq!(broker.terminate(PATIENCE).status.code(), Some(0));
        broker = launch(dir.path());
        client = broker.client();
        wait_for_leaders(&mut client, TOPIC, 1);
        let keys: Vec<_> = everything(&mut client).into_iter().filter_map(|r| r.key).collect();
        assert!(keys.contains(&b"b".to_vec()), "{keys:?}");
        if !keys.contains(&b"a".to_vec()) {
            return;
        }
    }
    panic!("the tombstone was never removed");
}

#[test]
fn a_record_without_a_key_is_refused_by_a_compacted_topic() {
    let dir = folder();
    let broker = launch(dir.path());
    let mut client = broker.client();
    create(&mut client, &[("cleanup.policy", "compact,delete")]);
    let batch = keyed(&[(Some("a"), Some("1")), (None, Some("2")), (Some("b"), None), (None, None)]);
    let response = client.call(9, &produce_request(TOPIC, -1, vec![(0, batch)])).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    let places: Vec<_> = partition.record_errors.iter().map(|e| e.batch_index).collect();
    assert_eq!((partition.error_code, partition.base_offset, places), (87, -1, vec![1, 3]));
    assert!(partition.record_errors.iter().all(|e| e.batch_index_error_message.is_some()));
    assert_eq!(everything(&mut client), vec![]);
}

#[test]
fn a_damaged_object_is_left_alone_and_costs_nothing_but_itself() {
    let dir = folder();
    // No pass may come before the damage.
    let broker = launch_with(dir.path(), "false");
    let mut client = broker.client();
    create(&mut client, &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "1")]);
    for pairs in [
        [(Some("a"), Some("1")), (Some("b"), Some("1"))],
        [(Some("c"), Some("rots-here")), (Some("a"), Some("2"))],
        [(Some("a"), Some("3")), (Some("d"), Some("1"))],
    ] {
        client.produce(TOPIC, 0, keyed(&pairs)).unwrap();
        eventually("an object of its own", PATIENCE, || (metric(&broker, EXPOSURE)? == 0.0).then_some(()));
    }
    assert_eq!(broker.terminate(PATIENCE).status.code(), Some(0));
    assert_eq!(damage(&dir.path().join("objects"), b"rots-here"), 1, "one object holds the record");
    let broker = launch(dir.path());
    let mut client = broker.client();
    wait_for_leaders(&mut client, TOPIC, 1);
    alter(&mut client, "min.cleanable.dirty.ratio", "0.01");
    eventually("a pass", PATIENCE, || (metric(&broker, "casemate_log_cleaner_passes_total")? >= 1.0).then_some(()));
    assert_eq!(metric(&broker, "casemate_log_cleaner_damaged_total"), Some(1.0));
    let first = |client: &mut Client, offset| {
        let fetched = client.fetch(TOPIC, 0, offset, 100, 1).unwrap();
        let records = fetched.batches.into_iter().flat_map(|b| b.records).map(|r| (r.offset, value_of(&r)));
        (fetched.error, records.collect::<Vec<_>>())
    };
    let pair = |offset, value: &str| (offset, value.to_string());
    eventually("what was superseded behind the damage is gone", PATIENCE, || {
        (first(&mut client, 0) == (0, vec![pair(1, "1")])).then_some(())
    });
    assert_eq!(first(&mut client, 2).0, 56, "damage is an error, never a gap");
    assert_eq!(first(&mut client, 4), (0, vec![pair(4, "3"), pair(5, "1")]));
}

/// Changes one byte of every file below `dir` that contains `text`, within the text; answers how many those are.
fn damage(dir: &Path, text: &[u8]) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            count += damage(&entry, text);
            continue;
        }
        let mut bytes = std::fs::read(&entry).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            std::fs::write(&entry, bytes).unwrap();
            count += 1;
        }
    }
    count
}

fn alter(client: &mut Client, name: &str, value: &str) {
    let change = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).unwrap().responses[0].error_code, 0);
}
