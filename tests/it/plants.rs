//! Bugs planted in the real binary (`CASEMATE_PLANT`, builds with the feature `failpoints` only): what is lost by them
//! is noticed from outside. Those that break the order of sync and reply are in strace.rs.

use super::batch::{self, NO_PRODUCER};
use super::harness::{Launch, folder, now_ms, skip, wait_for_leaders};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOPIC: &str = "planted";
const STORAGE: i32 = 3;

fn can_plant() -> bool {
    if !cfg!(feature = "failpoints") {
        skip("the binary has no planted bugs (build with --features failpoints)");
    }
    cfg!(feature = "failpoints")
}

/// Nothing is uploaded, so that the WAL has the only copy.
fn launch(data: &Path) -> Launch {
    Launch::dev(data).set("objects.upload_interval_ms", "3600000")
}

fn value(number: usize) -> Vec<u8> {
    format!("acknowledged record {number}").into_bytes()
}

/// Changes one byte of `value` where the WAL has it.
fn rot(data: &Path, value: &[u8]) {
    let entries = std::fs::read_dir(data.join("wal")).expect("there is a WAL");
    let files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension() == Some("seg".as_ref())).collect();
    for path in files {
        let content = std::fs::read(&path).expect("a segment can be read");
        if let Some(at) = content.windows(value.len()).position(|w| w == value) {
            let file = std::fs::File::options().write(true).open(&path).expect("and written");
            return file.write_all_at(&[value[0] ^ 1], at as u64).expect("and written");
        }
    }
    panic!("the WAL does not have the record");
}

/// Rot below the watermark: recovery refuses, and the bug that cuts there instead loses acknowledged records, which
/// reading them back shows.
#[test]
fn a_planted_cut_below_the_watermark_is_caught() {
    const RECORDS: usize = 5;
    if !can_plant() {
        return;
    }
    let dir = folder();
    let data = dir.path().join("data");
    let broker = launch(&data).start();
    let mut client = broker.client();
    assert_eq!(client.create_topic(TOPIC, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, TOPIC, 1);
    for number in 0..RECORDS {
        let batch = batch::encode(&[value(number)], NO_PRODUCER, -1, now_ms());
        assert_eq!(client.produce(TOPIC, 0, batch).unwrap().error, 0);
    }
    std::thread::sleep(Duration::from_millis(500)); // the closing block puts the last record under the watermark, too
    broker.kill();
    rot(&data, &value(2));
    launch(&data).run_to_end().expect(STORAGE, &["is damaged at byte", "nothing is cut", "put the former"]);
    let planted = launch(&data).env("CASEMATE_PLANT", "cut-below-watermark");
    match planted.try_start() {
        Ok(broker) => {
            let records = broker.client().read_all(TOPIC, 0, 0).unwrap();
            assert!(records.len() < RECORDS, "the bug was not planted: nothing was lost");
        }
        // The metadata may know of what was cut.
        Err(ended) => ended.expect(STORAGE, &[]),
    }
}

#[test]
fn a_misspelt_plant_is_refused() {
    if can_plant() {
        let dir = folder();
        let ended = launch(dir.path()).env("CASEMATE_PLANT", "skip-snyc").run_to_end();
        ended.expect(STORAGE, &["CASEMATE_PLANT", "skip-snyc", "skip-sync"]);
    }
}
