//! A disk that runs full and is emptied again, is full at the start, or read-only, on a small file system of its own:
//! nothing acknowledged is lost, and the process either goes on or ends with one sentence.

use super::batch::{self, NO_PRODUCER};
use super::client::Client;
use super::harness::{Broker, Launch, folder, now_ms, skip, wait_for_leaders};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A tmpfs that is unmounted with its handle.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mebibytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).ok()?;
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "casemate-test"]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| SmallDisk(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn launch(data: &Path) -> Launch {
    Launch::dev(data).sets(&[
        ("wal.segment_bytes", "4194304"),
        ("wal.budget_bytes", "33554432"),
        ("objects.upload_bytes", "4194304"),
        ("objects.upload_interval_ms", "200"),
    ])
}

/// Produces until an error, the end of the connection, or `bound`; the records acknowledged.
fn produce(broker: &Broker, next: &mut u32, bound: Duration) -> u32 {
    let Ok(mut client) = Client::connect(broker.address("plaintext")) else { return 0 };
    let (began, mut acked) = (Instant::now(), 0);
    while began.elapsed() < bound {
        let mut value = next.to_be_bytes().to_vec();
        value.resize(60_000, *next as u8);
        match client.produce("filling", 0, batch::encode(&[value], NO_PRODUCER, -1, now_ms())) {
            Ok(produced) if produced.error == 0 => {
                *next += 1;
                acked += 1;
            }
            _ => break,
        }
    }
    acked
}

#[test]
fn a_full_disk_loses_nothing_and_recovers() {
    let dir = folder();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 160) else {
        return skip("a tmpfs cannot be mounted here (not root?)");
    };
    let data = disk.0.join("data");
    let broker = launch(&data).start();
    let mut client = broker.client();
    assert_eq!(client.create_topic("filling", 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, "filling", 1);
    let mut next = 0;
    assert!(produce(&broker, &mut next, Duration::from_millis(500)) > 0, "it works while there is room");
    let ballast = disk.0.join("ballast");
    let mut fill = Command::new("dd");
    fill.stderr(std::process::Stdio::null());
    fill.args(["if=/dev/zero", "bs=64k", "status=none"]).arg(format!("of={}", ballast.display()));
    assert!(!fill.status().expect("dd starts").success(), "the disk is full");
    produce(&broker, &mut next, Duration::from_secs(40));
    std::fs::remove_file(&ballast).unwrap();
    let mut broker = broker;
    let resumed = super::harness::eventually("writes go on when there is room again", Duration::from_secs(60), || {
        match broker.is_alive() {
            false => Some(false),
            true => (produce(&broker, &mut next, Duration::from_millis(200)) > 0).then_some(true),
        }
    });
    if resumed {
        broker.kill();
    } else {
        broker.wait(Duration::from_secs(1)).expect(6, &["the disk is full"]);
    }
    let broker = launch(&data).start();
    let records = broker.client().read_all("filling", 0, 0).unwrap();
    let numbers: Vec<u32> = records.iter().map(|r| number(r.value.as_deref().unwrap_or_default())).collect();
    // The last batch before an error may be there or not; what was acknowledged is, in order and once.
    let mut expected = 0;
    for number in numbers {
        if number == expected {
            expected += 1;
        } else {
            assert_eq!(number + 1, expected, "a repetition of the one that got no answer, or nothing");
        }
    }
    assert!(expected >= next, "{next} records were acknowledged, {expected} are there");
}

#[test]
fn a_node_that_is_started_on_a_full_disk_waits_for_room() {
    let dir = folder();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 160) else {
        return skip("a tmpfs cannot be mounted here (not root?)");
    };
    let data = disk.0.join("data");
    let broker = launch(&data).start();
    let mut client = broker.client();
    assert_eq!(client.create_topic("filling", 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut client, "filling", 1);
    let mut next = 0;
    produce(&broker, &mut next, Duration::from_millis(300));
    broker.kill();
    let ballast = disk.0.join("ballast");
    let filled = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&ballast).unwrap());
    assert!(filled.is_err(), "the disk is full");
    let room = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        std::fs::remove_file(&ballast).unwrap();
    });
    let began = Instant::now();
    let broker = launch(&data).start();
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not ready before there was room");
    room.join().unwrap();
    assert_eq!(broker.client().read_all("filling", 0, 0).unwrap().len(), next as usize);
}

#[test]
fn a_first_start_without_room_names_the_folder_and_the_remedy() {
    let dir = folder();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 64) else {
        return skip("a tmpfs cannot be mounted here (not root?)");
    };
    let data = disk.0.join("data");
    let ended = Launch::dev(&data).set("wal.segment_bytes", "134217728").run_to_end();
    let file = format!("wal/000000.seg in {}", data.display());
    ended.expect(3, &[&file, "No space left on device", "free space", "wal.budget_bytes"]);
    launch(&data).start().terminate(Duration::from_secs(30)).expect(0, &[]); // what is asked for helps
}

#[test]
fn a_read_only_folder_is_refused_with_a_remedy() {
    let dir = folder();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 160) else {
        return skip("a tmpfs cannot be mounted here (not root?)");
    };
    let data = disk.0.join("data");
    launch(&data).start().terminate(Duration::from_secs(30)).expect(0, &[]);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status();
    assert!(remounted.is_ok_and(|status| status.success()), "a tmpfs can be made read-only");
    launch(&data)
        .run_to_end()
        .expect(4, &[&data.display().to_string(), "Read-only file system", "mount, owner and mode"]);
}

#[test]
fn objects_on_a_read_only_disk_are_refused_with_a_remedy() {
    let dir = folder();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else {
        return skip("a tmpfs cannot be mounted here (not root?)");
    };
    let (data, objects) = (dir.path().join("data"), disk.0.join("objects"));
    let launch = || launch(&data).set("objects.url", &format!("file://{}", objects.display()));
    launch().start().terminate(Duration::from_secs(30)).expect(0, &[]);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status();
    assert!(remounted.is_ok_and(|status| status.success()), "a tmpfs can be made read-only");
    let named = objects.display().to_string();
    launch().run_to_end().expect(2, &[&named, "Read-only file system", "mount, owner and mode", "objects.url"]);
}

fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(u32::MAX, |b| u32::from_be_bytes(*b))
}
