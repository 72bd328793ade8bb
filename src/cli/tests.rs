//! Commands as they are typed, in folders of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{HostPort, Mode};

fn typed(line: &[&str], environment: &[(&str, &str)]) -> Result<Next> {
    let line = [&["casemate"], line].concat();
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    run(Arguments::try_parse_from(line)?.command, environment)
}

fn refused(line: &[&str]) -> String {
    match typed(line, &[]) {
        Ok(_) => panic!("{line:?} was accepted"),
        Err(error) => sentence(&error),
    }
}

fn served(line: &[&str], environment: &[(&str, &str)]) -> Config {
    match typed(line, environment) {
        Ok(Next::Serve(config)) => *config,
        Ok(Next::Exit(_)) => panic!("{line:?} does not serve"),
        Err(error) => panic!("{error:#}"),
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn init_makes_a_folder_that_serve_takes() {
    let folder = Folder::new();
    let dir = folder.path("a/node");
    typed(&["init", &dir, "--host", "kafka.example", "--host", "10.1.2.3", "--listen", "0.0.0.0:19093"], &[]).unwrap();
    for (name, mode) in [("", 0o700), ("wal", 0o700), ("quarantine", 0o700), ("tls", 0o700), ("casemate.toml", 0o600)] {
        let found = fs::metadata(format!("{dir}/{name}")).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["casemate.toml", "client", "metadata", "objects", "quarantine", "tls", "wal"]);
    let file = format!("{dir}/casemate.toml");
    let config = served(&["serve", "--config", &file], &[]);
    assert_eq!((config.mode, config.plaintext.is_none()), (Mode::Serve, true));
    assert_eq!(config.tls.advertise, HostPort::parse("kafka.example:19093").ok());
    assert_eq!(config.kafka["super.users"], "User:CN=admin,O=casemate");
    let client = fs::read_to_string(format!("{dir}/client/librdkafka.conf")).unwrap();
    assert!(client.contains("bootstrap.servers=kafka.example:19093\n"), "{client}");
    typed(&["config", "check", "--config", &file], &[]).unwrap();
    let again = refused(&["init", &dir]);
    assert!(again.contains("never overwrites"), "{again}");
}

#[test]
fn every_cluster_is_another_one() {
    let folder = Folder::new();
    let cluster = |name: &str| {
        typed(&["init", &folder.path(name)], &[]).unwrap();
        served(&["serve", "--config", &folder.path(&format!("{name}/casemate.toml"))], &[]).cluster
    };
    assert_ne!(cluster("a"), cluster("b"));
}

#[test]
fn a_wrong_request_leaves_nothing_behind() {
    let folder = Folder::new();
    let dir = folder.path("node");
    for (line, part) in [
        (&["--listen", "kafka.example:9093"][..], "IP address"),
        (&["--listen", "0.0.0.0"], "HOST:PORT"),
        (&["--advertise", "kafka.example"], "HOST:PORT"),
        (&["--advertise", "0.0.0.0:9093"], "no client can connect"),
        (&["--listen", "127.0.0.1:9095"], "choose another port"),
        (&["--host", "https://kafka"], "https://kafka"),
        (&["--host", "a_b c"], "a_b c"),
    ] {
        let error = refused(&[&["init", &dir], line].concat());
        assert!(error.contains(part), "{line:?}: {error}");
        assert!(!Path::new(&dir).exists(), "{line:?}");
    }
}

#[test]
fn a_folder_in_use_is_never_touched() {
    let folder = Folder::new();
    fs::write(folder.path("letter"), "dear").unwrap();
    let error = refused(&["init", &folder.path("")]);
    assert!(error.contains("letter") && error.contains("empty folder"), "{error}");
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_half_made_is_recognised_by_every_command() {
    let folder = Folder::new();
    let dir = folder.path("node");
    fs::create_dir_all(format!("{dir}/tls.partial")).unwrap();
    fs::write(format!("{dir}/init.unfinished"), "").unwrap();
    let file = format!("{dir}/casemate.toml");
    fs::write(format!("{dir}/letter"), "dear").unwrap();
    for (line, again) in [
        (&["init", &dir][..], "run init again"),
        (&["serve", "--config", &file], "run init again"),
        (&["dev", "--dir", &dir], "run dev again"),
    ] {
        let error = refused(line);
        assert!(error.contains("half made") && error.contains("rm -r") && error.contains(again), "{line:?}: {error}");
    }
    assert!(Path::new(&dir).join("tls.partial").exists(), "nothing was taken away");
}

/// As left behind by a kill in the middle of a first start.
fn half_made(dir: &str) {
    for made in ["wal", "metadata", "objects", "quarantine", "client", "tls.partial"] {
        fs::create_dir_all(format!("{dir}/{made}")).unwrap();
    }
    for made in ["init.unfinished", "client/client.key", "tls.partial/ca.key", "casemate.toml.partial"] {
        fs::write(format!("{dir}/{made}"), "half").unwrap();
    }
}

#[test]
fn dev_makes_its_own_half_made_folder_anew() {
    let folder = Folder::new();
    let dir = folder.path("data");
    half_made(&dir);
    let config = served(&["dev", "--dir", &dir], &[]);
    assert_eq!(config.mode, Mode::Dev);
    assert!(!Path::new(&dir).join("tls.partial").exists() && !Path::new(&dir).join("init.unfinished").exists());
    let key = fs::read_to_string(format!("{dir}/client/client.key")).unwrap();
    assert!(key.contains("PRIVATE KEY"), "nothing of the earlier run is used");
}

#[test]
fn dev_takes_nothing_away_that_it_did_not_make() {
    for more in ["metadata/CURRENT", "wal/000000.seg", "letter", "tls.partial/mine/key"] {
        let folder = Folder::new();
        let dir = folder.path("data");
        half_made(&dir);
        let file = Path::new(&dir).join(more);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        let error = refused(&["dev", "--dir", &dir]);
        assert!(error.contains("half made") && error.contains("run dev again"), "{more}: {error}");
        assert!(file.exists() && Path::new(&dir).join("client/client.key").exists(), "{more}");
    }
    let folder = Folder::new();
    let dir = folder.path("data");
    half_made(&dir);
    let other = fs::File::open(format!("{dir}/init.unfinished")).unwrap();
    other.try_lock().unwrap();
    let error = refused(&["dev", "--dir", &dir]);
    assert!(error.contains("another process") && Path::new(&dir).join("client/client.key").exists(), "{error}");
}

#[test]
fn an_unwritable_folder_is_one_sentence() {
    let error = refused(&["init", "/proc/casemate"]);
    assert!(error.contains("may write to") && !error.contains('\n'), "{error}");
}

#[test]
fn dev_makes_its_folder_once_and_takes_it_again() {
    let folder = Folder::new();
    let dir = folder.path("data");
    let line = [
        "dev",
        "--dir",
        &dir,
        "--listen",
        "127.0.0.1:0",
        "--tls-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let first = served(&line, &[("CASEMATE_KAFKA_NUM_PARTITIONS", "3")]);
    assert_eq!((first.mode, first.kafka["num.partitions"].as_str()), (Mode::Dev, "3"));
    let second = served(&line, &[]);
    assert_eq!((second.cluster, second.kafka.get("num.partitions")), (first.cluster, None));
}

#[test]
fn dev_refuses_before_it_makes_anything() {
    let folder = Folder::new();
    let dir = folder.path("data");
    for (line, part) in [
        (&["--listen", "0.0.0.0:9092"][..], "loopback only"),
        (&["--set", "no.such.setting=1"], "no.such.setting = 1"),
        (&["--set", "wal.budget_bytes=1"], "wal.budget_bytes = 1"),
    ] {
        let error = refused(&[&["dev", "--dir", &dir], line].concat());
        assert!(error.contains(part), "{error}");
        assert!(!Path::new(&dir).exists());
    }
}

#[test]
fn the_environment_is_read_by_name_only() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![0xff]);
    let environment = environment_of([("CASEMATE_X".into(), "1".into()), ("PATH".into(), odd())]).unwrap();
    assert_eq!(environment, [("CASEMATE_X".to_owned(), "1".to_owned())]);
    assert!(environment_of([("CASEMATE_X".into(), odd())]).is_err());
}

#[test]
fn a_cause_is_said_once() {
    let error = refused(&["serve", "--config", "/nonexistent/casemate.toml"]);
    assert!(error.contains("/nonexistent/casemate.toml") && error.contains("casemate init"), "{error}");
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
}

#[test]
fn the_version_is_told() {
    assert!(version(false).starts_with(concat!("casemate ", env!("CARGO_PKG_VERSION"))));
    let json: serde_json::Value = serde_json::from_str(&version(true)).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}
