//! Object storage that is unusable from the start, and objects that somebody deletes: the node says so where an operator
//! looks, and stops saying so when it is over.

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, topic};
use super::harness::{Broker, Launch, eventually, folder, now_ms, wait_for_leaders};
use super::process::{EXPOSURE, http_get, metric, read, write};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const END: Duration = Duration::from_secs(30);
const TOPIC: &str = "stored";

/// A data folder whose records are all in object storage, and the place of its cluster's objects.
fn uploaded(dir: &Path) -> PathBuf {
    let broker = launch(dir).start();
    write(&broker, TOPIC, &["a", "b"]);
    eventually("everything is in object storage", END, || (metric(&broker, EXPOSURE)? == 0.0).then_some(()));
    broker.terminate(END).expect(0, &[]);
    let mut places = std::fs::read_dir(dir.join("objects")).unwrap().flatten();
    let place = places.find(|place| !place.file_name().as_encoded_bytes().starts_with(b"."));
    place.expect("the cluster has its place").path()
}

fn launch(dir: &Path) -> Launch {
    Launch::dev(dir).set("objects.upload_interval_ms", "200")
}

fn ready(broker: &Broker) -> String {
    let answer = http_get(broker, "/ready");
    assert!(answer.starts_with("HTTP/1.1 200"), "it serves all the same: {answer}");
    answer
}

#[test]
fn a_store_that_is_bad_at_the_start_is_a_trouble_until_it_works() {
    let dir = folder();
    let place = uploaded(dir.path());
    let away = dir.path().join("away");
    std::fs::rename(&place, &away).unwrap();
    // Where the cluster's objects belong there is something else now.
    std::fs::write(&place, b"no folder").unwrap();
    let broker = launch(dir.path()).start();
    eventually("the trouble is named", END, || ready(&broker).contains("object storage probe: ").then_some(()));
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    eventually("the trouble is over", END, || (!ready(&broker).contains("object storage probe: ")).then_some(()));
    assert_eq!(read(&broker, TOPIC), ["a", "b"]);
}

/// All files below a folder.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn an_object_that_somebody_deleted_is_counted_and_named_until_it_is_back() {
    let dir = folder();
    let place = uploaded(dir.path());
    // Only object storage has the records, and nothing of them is in memory.
    std::fs::rename(dir.path().join("wal"), dir.path().join("wal-away")).unwrap();
    let objects = files_below(&place.join("objects"));
    assert!(!objects.is_empty());
    let aside = |path: &PathBuf| dir.path().join(path.file_name().unwrap());
    objects.iter().for_each(|path| std::fs::rename(path, aside(path)).unwrap());
    let broker = launch(dir.path()).start();
    let mut client = broker.client();
    for _ in 0..5 {
        eventually("the leader is there", END, || {
            (client.fetch(TOPIC, 0, 0, 100, 1 << 20).ok()?.error == 56).then_some(())
        });
    }
    assert_eq!(metric(&broker, "casemate_object_missing_total"), Some(1.0));
    eventually("the trouble is named", END, || ready(&broker).contains("topic stored, partition 0").then_some(()));
    let said = broker.log().matches("an object is not in object storage").count();
    assert_eq!(said, 1, "once, whoever asks: {}", broker.log());
    objects.iter().for_each(|path| std::fs::rename(aside(path), path).unwrap());
    eventually("the trouble is over", END, || (!ready(&broker).contains("are missing")).then_some(()));
    assert_eq!(read(&broker, TOPIC), ["a", "b"]);
}

/// One fetch from the start of each of these partitions: those that gave a batch, and the bytes of all batches.
fn fetch_from_all(client: &mut Client, partitions: &BTreeSet<i32>) -> (Vec<i32>, usize) {
    let asked =
        partitions.iter().map(|p| FetchPartition::default().with_partition(*p).with_partition_max_bytes(1 << 20));
    let request = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(52_428_800);
    let request =
        request.with_topics(vec![FetchTopic::default().with_topic(topic(TOPIC)).with_partitions(asked.collect())]);
    let response = client.call(11, &request).unwrap();
    let mut bytes = 0;
    let answered = response.responses.into_iter().flat_map(|t| t.partitions).filter_map(|p| {
        assert_eq!(p.error_code, 0, "partition {}", p.partition_index);
        let records = p.records.filter(|records| !records.is_empty())?;
        let batches = batch::decode(&records).unwrap();
        assert_eq!(batches.len(), 1, "a whole batch of partition {}", p.partition_index);
        bytes += records.len();
        Some(p.partition_index)
    });
    (answered.collect(), bytes)
}

#[test]
fn a_fetch_from_many_stored_partitions_reads_little_more_than_it_answers() {
    const PARTITIONS: i32 = 100;
    const READ: &str = "casemate_object_read_bytes_total";
    let dir = folder();
    let broker = launch(dir.path()).start();
    let mut client = broker.client();
    assert_eq!(client.create_topic(TOPIC, PARTITIONS, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, TOPIC, PARTITIONS);
    let records = batch::encode(&[vec![b'x'; 1_000_000]], NO_PRODUCER, -1, now_ms());
    for partition in 0..PARTITIONS {
        assert_eq!(client.produce(TOPIC, partition, records.clone()).unwrap().error, 0);
    }
    eventually("everything is in object storage", END, || (metric(&broker, EXPOSURE)? == 0.0).then_some(()));
    broker.terminate(END).expect(0, &[]);
    // Nothing is left in memory or in the WAL.
    std::fs::rename(dir.path().join("wal"), dir.path().join("wal-away")).unwrap();

    let broker = launch(dir.path()).start();
    let mut client = broker.client();
    wait_for_leaders(&mut client, TOPIC, PARTITIONS);
    let before = metric(&broker, READ).unwrap();
    let (mut left, mut answered_bytes, mut fetches) = (BTreeSet::from_iter(0..PARTITIONS), 0, 0);
    while !left.is_empty() {
        let (answered, bytes) = fetch_from_all(&mut client, &left);
        assert!(!answered.is_empty(), "a fetch brings the reader on");
        answered.iter().for_each(|p| assert!(left.remove(p), "partition {p} was asked for"));
        (answered_bytes, fetches) = (answered_bytes + bytes, fetches + 1);
    }
    let read = metric(&broker, READ).unwrap() - before;
    println!("{fetches} fetches, {answered_bytes} bytes answered, {read} bytes read from object storage");
    assert!(read <= 2.0 * answered_bytes as f64, "{read} bytes read to answer {answered_bytes}");
    assert!(fetches <= 20, "{fetches} fetches for what three could answer");
}
