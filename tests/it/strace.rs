//! What only the system calls show: nothing of the host's is loaded, and no reply precedes the sync that covers it.
//!
//! The judgement over a trace is a pure function with planted traces of its own; where strace is missing the runs over
//! the real binary are skipped.

use super::batch::{self, NO_PRODUCER};
use super::harness::{Launch, folder, now_ms, skip, wait_for_leaders};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn strace_works() -> bool {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !works {
        skip("strace is not installed, or may not trace here");
    }
    works
}

/// The tracer is a grandchild (-D), so that the process itself stays the test's child.
fn traced(launch: Launch, calls: &str, output: &Path) -> Launch {
    let output = output.display().to_string();
    launch.under(&["strace", "-D", "-f", "-q", "-yy", "-s", "0", "-e", &format!("trace={calls}"), "-o", &output])
}

#[test]
fn no_file_of_the_hosts_is_loaded() {
    if !strace_works() {
        return;
    }
    let dir = folder();
    let trace = dir.path().join("trace");
    let data = dir.path().join("data");
    let broker = traced(Launch::dev(&data), "open,openat,execve", &trace).start();
    let mut client = broker.client();
    client.create_topic("traced", 1, &[]).unwrap();
    wait_for_leaders(&mut client, "traced", 1);
    broker.terminate(Duration::from_secs(30));
    expect_no_host_files(&trace);
}

/// Runs in a mount namespace of its own, where `files` stand in the place of the host's.
fn with_host_files(launch: Launch, files: &[(&str, &str)]) -> Launch {
    let mounts: Vec<String> = files.iter().map(|(at, file)| format!("mount --bind '{file}' '{at}'")).collect();
    let script = format!("{} && exec \"$@\"", mounts.join(" && "));
    launch.under(&["unshare", "--mount", "--map-root-user", "sh", "-c", &script, "sh"])
}

fn mounts_work() -> bool {
    let try_one = ["--mount", "--map-root-user", "mount", "--bind", "/etc/hosts", "/etc/hosts"];
    let works = Command::new("unshare").args(try_one).status().is_ok_and(|s| s.success());
    if !works {
        skip("mount namespaces cannot be made here");
    }
    works
}

/// A name from the hosts file and one that only a name server could know, on a host whose own look-ups would load
/// plug-ins of the C library for both.
#[test]
fn a_bucket_named_by_host_needs_no_host_files_either() {
    if !strace_works() || !mounts_work() {
        return;
    }
    for host in ["localhost", "bucket.example.test"] {
        let dir = folder();
        let trace = dir.path().join("trace");
        let credentials =
            private_file(dir.path(), "credentials.toml", "access_key_id = \"a\"\nsecret_access_key = \"b\"\n");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::new(vec![host.to_string()]).unwrap().self_signed(&key).unwrap();
        let authority = private_file(dir.path(), "ca.pem", &authority.pem());
        let services = private_file(dir.path(), "nsswitch.conf", "hosts: files resolve dns\n");
        // Nobody serves names there, so that the answer is the same on every machine.
        let name_servers = private_file(dir.path(), "resolv.conf", "nameserver 127.0.0.1\noptions timeout:1\n");
        let launch = Launch::dev(&dir.path().join("data")).sets(&[
            ("objects.url", "s3://bucket"),
            ("objects.endpoint", &format!("https://{host}:1")),
            ("objects.ca_file", &authority),
            ("objects.credentials_file", &credentials),
        ]);
        let launch = traced(launch, "open,openat,execve,connect,sendto,sendmsg", &trace);
        let files = [("/etc/nsswitch.conf", &*services), ("/etc/resolv.conf", &*name_servers)];
        // Refused or served in a degraded state: either way the name was looked up without the C library.
        match with_host_files(launch, &files).try_start() {
            Ok(broker) => {
                std::thread::sleep(Duration::from_secs(2));
                broker.terminate(Duration::from_secs(30));
            }
            Err(ended) => assert!(ended.log.contains(host), "the bucket is named: {ended}"),
        }
        // strace shows an address as the peer of a connected socket or as an argument.
        let looked_in: &[&str] = if host == "localhost" { &["/etc/hosts"] } else { &["127.0.0.1:53", "htons(53)"] };
        let text = std::fs::read_to_string(&trace).expect("strace wrote its output");
        assert!(looked_in.iter().any(|place| text.contains(place)), "{host} was not looked up in {looked_in:?}");
        expect_no_host_files(&trace);
    }
}

/// A file that only its owner may read; its path.
fn private_file(dir: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

fn expect_no_host_files(trace: &Path) {
    let text = std::fs::read_to_string(trace).expect("strace wrote its output");
    assert!(text.contains("execve("), "an empty trace shows nothing");
    let opened: Vec<&str> = text.lines().filter(|l| l.contains("open(") || l.contains("openat(")).collect();
    let loaded =
        |l: &&&str| [".so\"", ".so.", "nsswitch", "ld.so", "gconv", "locale-archive"].iter().any(|p| l.contains(p));
    let bad: Vec<_> = opened.iter().filter(loaded).collect();
    assert!(bad.is_empty(), "opened: {bad:#?}");
}

/// One finished system call of a trace, in the order of its start and end lines.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: String,
    arguments: String,
    result: i64,
    started: usize,
    ended: usize,
}

impl Call {
    /// The file that the first argument names, in strace's way with -yy.
    fn file(&self) -> &str {
        self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path)
    }
}

/// Puts the lines of `strace -f -o` together: interrupted calls are joined by their thread.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut calls = vec![];
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (started, text) = if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (number, begun.to_string()));
            continue;
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((started, begun)) = open.remove(thread) else { continue };
            (started, format!("{begun}{}", resumed.split_once('>').map_or("", |(_, tail)| tail)))
        } else {
            (number, rest.to_string())
        };
        let Some((name, tail)) = text.split_once('(') else { continue };
        let Some((arguments, result)) = tail.rsplit_once(" = ") else { continue };
        let result = result.split(|c: char| c != '-' && !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        let Some(result) = result else { continue };
        calls.push(Call { name: name.into(), arguments: arguments.into(), result, started, ended: number });
    }
    calls.sort_by_key(|c| c.started);
    calls
}

/// Judges every reply on the connection from `port`: since the request arrived, a write to a file of the log must have
/// ended, and a sync of that file, begun after the write, must have ended before the reply began. Returns the replies
/// judged, or what is wrong.
fn replies_follow_their_sync(calls: &[Call], port: u16) -> Result<usize, String> {
    let own = format!("->127.0.0.1:{port}]>");
    let is_socket = |c: &&Call| c.arguments.contains(&own) && c.result > 0;
    let is_log = |c: &&Call| c.arguments.contains("/wal/") && c.result >= 0;
    let read = |c: &Call| ["read", "readv", "recvfrom", "recvmsg"].contains(&&*c.name);
    let sync = |c: &Call| ["fdatasync", "fsync"].contains(&&*c.name);
    let written =
        |c: &Call| ["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg"].contains(&&*c.name);
    let (mut replies, mut request): (usize, Option<usize>) = (0, None);
    for call in calls.iter().filter(is_socket) {
        if read(call) {
            request = Some(call.ended);
        } else if written(call) {
            let arrived = request.take().ok_or("a reply without a request: the trace lost something")?;
            let since: Vec<&Call> =
                calls.iter().filter(is_log).filter(|c| c.started > arrived && c.ended < call.started).collect();
            let mut writes = since.iter().filter(|c| written(c)).peekable();
            if writes.peek().is_none() {
                return Err(format!("reply {replies}: the log was not written before it: {call:?}"));
            }
            let covers =
                |write: &Call| since.iter().any(|c| sync(c) && c.file() == write.file() && c.started > write.ended);
            if !writes.any(|write| covers(write)) {
                return Err(format!("reply {replies} precedes the sync that covers it: {call:?}"));
            }
            replies += 1;
        }
    }
    Ok(replies)
}

/// Traces a broker that answers `replies` produce requests, each sent when the one before it was answered, and judges
/// the trace.
fn judged(launch: impl FnOnce(&Path) -> Launch, replies: usize) -> Result<usize, String> {
    let dir = folder();
    let trace = dir.path().join("trace");
    let wanted = "read,readv,recvfrom,recvmsg,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync";
    let small = [("wal.segment_bytes", "1048576")]; // and yet large enough for all that is written here
    let launch = launch(&dir.path().join("data")).sets(&small);
    let broker = traced(launch, wanted, &trace).start();
    let mut client = broker.client();
    client.create_topic("traced", 1, &[]).unwrap();
    wait_for_leaders(&mut client, "traced", 1);
    // Spare segments are filled in the background; once they are, every write to the log is one of entries.
    std::thread::sleep(Duration::from_secs(2));
    let mut producer = broker.client(); // nothing but produce requests on this connection
    for n in 0..replies {
        let batch = batch::encode(&[vec![n as u8; 100]], NO_PRODUCER, -1, now_ms());
        assert_eq!(producer.produce("traced", 0, batch).unwrap().error, 0);
    }
    let port = producer.local_port();
    broker.terminate(Duration::from_secs(30));
    std::thread::sleep(Duration::from_millis(200)); // the tracer outlives its tracee by a moment
    let text = std::fs::read_to_string(&trace).expect("strace wrote its output");
    replies_follow_their_sync(&calls(&text), port)
}

#[test]
fn no_reply_precedes_the_sync_that_covers_it() {
    if strace_works() {
        assert_eq!(judged(Launch::dev, 30), Ok(30), "every reply is in the trace, after its sync");
    }
}

/// The judge is not blind: it convicts the real process of the bugs that it is there to find.
#[test]
fn a_planted_reply_without_its_sync_is_caught() {
    if !cfg!(feature = "failpoints") {
        return skip("the binary has no planted bugs (build with --features failpoints)");
    }
    if !strace_works() {
        return;
    }
    for (plant, verdict) in [
        ("skip-sync", "precedes the sync that covers it"),
        // Whether the write or only its sync comes too late is up to the threads.
        ("reply-before-sync", "reply "),
    ] {
        let judged = judged(|data| Launch::dev(data).env("CASEMATE_PLANT", plant), 30);
        let problem = judged.expect_err(plant);
        assert!(problem.contains(verdict) && !problem.contains("lost something"), "{plant}: {problem}");
    }
}

#[test]
fn planted_traces_are_judged_rightly() {
    let socket = "9<TCP:[127.0.0.1:9092->127.0.0.1:5555]>";
    let log = "7</data/wal/0001.log>";
    let request = format!("11 read({socket}, \"\"..., 65536) = 180");
    let write = format!("12 pwritev({log}, [...], 2, 4096) = 200");
    let sync = format!("12 fdatasync({log}) = 0");
    let reply = format!("11 writev({socket}, [...], 1) = 60");
    let judge = |lines: &[&String]| {
        let text: Vec<&str> = lines.iter().map(|l| l.as_str()).collect();
        replies_follow_their_sync(&calls(&text.join("\n")), 5555)
    };
    assert_eq!(judge(&[&request, &write, &sync, &reply, &request, &write, &sync, &reply]), Ok(2));
    assert!(judge(&[&request, &write, &reply]).is_err(), "the sync is skipped");
    assert!(judge(&[&request, &write, &reply, &sync]).is_err(), "the reply comes first");
    assert!(judge(&[&request, &sync, &reply]).is_err(), "nothing is written");
    assert!(judge(&[&write, &sync, &request, &reply]).is_err(), "an earlier sync covers nothing");
    let other = "12 fdatasync(8</data/wal/0002.log>) = 0".to_string();
    assert!(judge(&[&request, &write, &other, &reply]).is_err(), "another file is synced");
    let begun = format!("12 fdatasync({log} <unfinished ...>");
    let done = "12 <... fdatasync resumed>) = 0".to_string();
    assert_eq!(judge(&[&request, &write, &begun, &done, &reply]), Ok(1));
    assert!(judge(&[&request, &write, &begun, &reply, &done]).is_err(), "the sync has not ended");
    let failed = format!("12 fdatasync({log}) = -1 EIO (Input/output error)");
    assert!(judge(&[&request, &write, &failed, &reply]).is_err(), "the sync failed");
    let early = format!("12 pwritev({log}, [...], 2, 4096 <unfinished ...>");
    let late = "12 <... pwritev resumed>) = 200".to_string();
    assert!(judge(&[&request, &early, &sync, &late, &reply]).is_err(), "the sync began before the write had ended");
}

#[test]
fn a_failed_sync_fences_the_process() {
    if !strace_works() {
        return;
    }
    let dir = folder();
    let trace = dir.path().join("trace");
    let data = dir.path().join("data");
    let broker = Launch::dev(&data).start();
    let mut client = broker.client();
    client.create_topic("fenced", 1, &[]).unwrap();
    wait_for_leaders(&mut client, "fenced", 1);
    let batch = |n: u8| batch::encode(&[vec![n; 100]], NO_PRODUCER, -1, now_ms());
    assert_eq!(client.produce("fenced", 0, batch(1)).unwrap().error, 0);
    drop(client);
    broker.terminate(Duration::from_secs(30)).expect(0, &[]);
    // Every sync from some moment after the start fails, as on a dying disk.
    let output = trace.display().to_string();
    let inject = "inject=fdatasync:error=EIO:when=40+";
    let launch =
        Launch::dev(&data).under(&["strace", "-D", "-f", "-q", "-e", "trace=fdatasync", "-e", inject, "-o", &output]);
    let ended = match launch.try_start() {
        Err(ended) => ended,
        Ok(broker) => {
            let mut client = broker.client();
            let mut acked = 1;
            while let Ok(produced) = client.produce("fenced", 0, batch(2)) {
                assert!(acked < 500, "syncs fail, and writes are still acknowledged");
                if produced.error != 0 {
                    break;
                }
                acked += 1;
            }
            broker.wait(Duration::from_secs(30))
        }
    };
    assert_eq!(ended.status.code(), Some(3), "storage fenced: {ended}");
    assert!(!ended.log.contains("panicked"), "{ended}");
    let records = Launch::dev(&data).start().client().read_all("fenced", 0, 0).unwrap();
    assert!(!records.is_empty());
}
