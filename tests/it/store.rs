//! Object storage that is unusable from the start, and objects that somebody deletes: the node says so where an operator
//! looks, and stops saying so when it is over.

use super::harness::{Broker, Launch, eventually, folder};
use super::process::{EXPOSURE, http_get, metric, read, write};
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
