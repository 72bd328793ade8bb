//! Object storage that goes away and comes back, with a real MinIO or SeaweedFS behind the broker: producers go on,
//! the exposure rises and returns, nothing is lost; with a small log they are slowed, refused for a while, and go on.
//!
//! Long, and needs the peers of tests/peers: run by `make test-long`, skipped where the server cannot be had.

use super::batch;
use super::client::Client;
use super::harness::{Broker, Launch, eventually, folder, now_ms, skip, wait_for_leaders};
use super::process::{EXPOSURE, metric};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TOPIC: &str = "outage";
const RECORD: usize = 32 << 10;
const RECORDS_PER_BATCH: u64 = 8;

/// A real S3 server, started and stopped by the script that keeps it.
struct S3<'a> {
    dir: &'a Path,
    kind: &'a str,
    port: u16,
}

impl S3<'_> {
    fn run(&self, command: &str) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/s3");
        let mut call = Command::new(script);
        call.arg(command).arg("--dir").arg(self.dir);
        if command == "start" {
            call.args(["--kind", self.kind, "--port", &self.port.to_string()]);
        }
        call.stdout(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
    }

    fn launch(&self, data: &Path, budget: &str) -> Launch {
        use std::os::unix::fs::PermissionsExt;
        let credentials = self.dir.join("credentials.toml");
        let text = "access_key_id = \"casemate-test\"\nsecret_access_key = \"casemate-test-secret\"\n";
        std::fs::write(&credentials, text).expect("the credentials can be written");
        std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).expect("and protected");
        Launch::dev(data).sets(&[
            ("objects.url", "s3://casemate/outage"),
            ("objects.endpoint", &format!("http://127.0.0.1:{}", self.port)),
            ("objects.credentials_file", &credentials.display().to_string()),
            ("objects.upload_bytes", "8388608"),
            ("objects.upload_interval_ms", "1000"),
            ("wal.segment_bytes", "8388608"),
            ("wal.budget_bytes", budget),
            ("wal.room_wait_ms", "500"),
        ])
    }
}

impl Drop for S3<'_> {
    fn drop(&mut self) {
        self.run("wipe");
    }
}

fn record(number: u64) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(RECORD, (number % 251) as u8);
    value
}

/// One producer that counts what was acknowledged and what was refused, and never gives a batch up.
struct Load {
    stop: AtomicBool,
    /// Batches a second, 0 for as fast as it goes.
    rate: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    fn new() -> Load {
        Load {
            stop: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn run(&self, mut client: Client) {
        let (mut next, producer) = (0, super::harness::new_producer(&mut client));
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let values: Vec<_> = (0..RECORDS_PER_BATCH).map(|n| record(next + n)).collect();
            let encoded = batch::encode(&values, producer, next as i32, now_ms());
            let produced = client.produce(TOPIC, 0, encoded).expect("the connection holds");
            match produced.error {
                0 => {
                    assert_eq!(produced.base_offset, next as i64);
                    next += RECORDS_PER_BATCH;
                    self.acked.store(next, Ordering::Relaxed);
                }
                7 | 19 | 20 | 56 | 89 => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
                other => panic!("a full log is answered with an error to retry, not {other}"),
            }
            let rate = self.rate.load(Ordering::Relaxed);
            if rate > 0 {
                std::thread::sleep(Duration::from_secs_f64(1.0 / rate as f64).saturating_sub(began.elapsed()));
            }
        }
    }

    /// Ends the load when the test does, also when it fails.
    fn guard(&self) -> impl Drop {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Stop(&self.stop)
    }

    fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    fn acked_within(&self, time: Duration) -> u64 {
        let before = self.acked();
        std::thread::sleep(time);
        self.acked() - before
    }
}

/// The first offset that the node itself holds (KIP-405): what is below is in the bucket alone.
fn held_from(broker: &Broker) -> u64 {
    let (error, _, offset) = broker.client().list_offset(TOPIC, 0, -4).expect("ListOffsets is answered");
    assert_eq!(error, 0, "the earliest local offset");
    offset as u64
}

/// Reads everything from an offset on, a piece at a time, and compares it with what was sent.
fn verify(broker: &Broker, from: u64, records: u64) {
    let (mut client, mut next) = (broker.client(), from);
    while next < records {
        let fetched = client.fetch(TOPIC, 0, next as i64, 1000, 8 << 20).expect("a fetch is answered");
        assert_eq!(fetched.error, 0, "at {next} of {records}");
        let from = next as i64;
        for read in fetched.batches.iter().flat_map(|b| &b.records).filter(|r| r.offset >= from) {
            assert_eq!(read.offset, next as i64);
            assert!(read.value.as_deref() == Some(&record(next)), "record {next} reads otherwise");
            next += 1;
        }
    }
}

fn exposure(broker: &Broker) -> f64 {
    metric(broker, EXPOSURE).unwrap_or_else(|| panic!("/metrics has no {EXPOSURE}"))
}

fn outage(kind: &str, port: u16) {
    let dir = folder();
    let s3 = S3 { dir: &dir.path().join("s3"), kind, port };
    if !s3.run("start") {
        return skip(&format!("{kind} cannot be started here"));
    }
    let data = dir.path().join("data");
    let broker = s3.launch(&data, "17179869184").start();
    let mut client = broker.client();
    assert_eq!(client.create_topic(TOPIC, 1, &[("retention.ms", "-1")]).unwrap(), 0);
    wait_for_leaders(&mut client, TOPIC, 1);
    let load = Load::new();
    let away = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let _stop = load.guard();
        scope.spawn(|| load.run(client));
        std::thread::sleep(Duration::from_secs(2));
        let most = load.acked_within(Duration::from_secs(5)) / 5;
        load.rate.store((most * 8 / 10 / RECORDS_PER_BATCH).max(1), Ordering::Relaxed);
        let before = exposure(&broker);
        assert!(s3.run("stop"));
        let acked = load.acked_within(away) / away.as_secs();
        let during = exposure(&broker);
        println!(
            "{kind}: at most {most} records/s; {acked} records/s during the outage; exposure {before:.0} → {during:.0} bytes"
        );
        assert!(acked * 2 >= most, "producers go on at half of the highest rate or more");
        assert!(during > before && during > (acked * RECORD as u64 * away.as_secs() / 2) as f64, "the exposure rises");
        assert!(s3.run("start"));
        load.rate.store(1, Ordering::Relaxed);
        eventually("the exposure returns", Duration::from_secs(300), || (exposure(&broker) < 32e6).then_some(()));
    });
    assert_eq!(load.refused.load(Ordering::Relaxed), 0, "no write was refused");
    verify(&broker, 0, load.acked());
}

/// Of the WAL that runs full.
const BUDGET: u64 = 64 << 20;

fn full_log(kind: &str, port: u16) {
    let dir = folder();
    let s3 = S3 { dir: &dir.path().join("s3"), kind, port };
    if !s3.run("start") {
        return skip(&format!("{kind} cannot be started here"));
    }
    let data = dir.path().join("data");
    let budget = BUDGET.to_string();
    let broker = s3.launch(&data, &budget).start();
    let mut client = broker.client();
    assert_eq!(client.create_topic(TOPIC, 1, &[("retention.ms", "-1")]).unwrap(), 0);
    wait_for_leaders(&mut client, TOPIC, 1);
    let load = Load::new();
    std::thread::scope(|scope| {
        let _stop = load.guard();
        scope.spawn(|| load.run(client));
        std::thread::sleep(Duration::from_secs(2));
        eventually("something is in the bucket alone", Duration::from_secs(60), || {
            (held_from(&broker) > 0).then_some(())
        });
        assert!(s3.run("stop"));
        eventually("writes are refused, with an error to retry", Duration::from_secs(60), || {
            (load.refused.load(Ordering::Relaxed) > 3).then_some(())
        });
        // What was trimmed is in the bucket, which is away; all that the node holds is served.
        let (held, acked) = (held_from(&broker), load.acked());
        println!("{kind}: full with records {held} to {acked}, all of them readable");
        assert!((acked - held) * RECORD as u64 > BUDGET / 4, "a full log holds records: {held} to {acked}");
        verify(&broker, held, acked);
        assert!(s3.run("start"));
        let full = load.acked();
        eventually("writes go on", Duration::from_secs(120), || (load.acked() > full + 1000).then_some(()));
    });
    broker.kill();
    verify(&s3.launch(&data, &budget).start(), 0, load.acked());
}

#[test]
#[ignore = "long: a minute without object storage (make test-long)"]
fn producers_outlive_minio() {
    outage("minio", 19310);
}

#[test]
#[ignore = "long: a minute without object storage (make test-long)"]
fn producers_outlive_seaweedfs() {
    outage("seaweedfs", 19320);
}

#[test]
#[ignore = "needs a real S3 server (make test-long)"]
fn a_full_log_pushes_back_and_recovers() {
    full_log("minio", 19330);
}
