//! The real binary as a child process: started in a folder of its own, watched by its standard error, killed and
//! started again.
//!
//! Ports are always chosen by the system. A child never outlives its handle.

use super::batch::Producer;
use super::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

pub const START: Duration = Duration::from_secs(60);
pub const BINARY: &str = env!("CARGO_BIN_EXE_casemate");

/// How to start a broker: change what a test needs, then `start`.
pub struct Launch {
    program: Vec<String>,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    ready_within: Duration,
}

impl Launch {
    /// `casemate dev` in `dir` on free ports.
    pub fn dev(dir: &Path) -> Launch {
        let mut arguments: Vec<String> = vec!["dev".into(), "--dir".into(), dir.display().to_string()];
        for listener in ["--listen", "--tls-listen", "--admin-listen"] {
            arguments.extend([listener.to_string(), "127.0.0.1:0".to_string()]);
        }
        Launch { program: vec![BINARY.into()], arguments, environment: BTreeMap::new(), ready_within: START }
    }

    /// `casemate serve --config DIR/casemate.toml`.
    pub fn serve(dir: &Path) -> Launch {
        let config = dir.join("casemate.toml").display().to_string();
        let arguments = vec!["serve".into(), "--config".into(), config];
        Launch { program: vec![BINARY.into()], arguments, environment: BTreeMap::new(), ready_within: START }
    }

    pub fn arg(mut self, argument: &str) -> Launch {
        self.arguments.push(argument.into());
        self
    }

    /// Gives an argument that is already there another value.
    pub fn replace(mut self, name: &str, value: &str) -> Launch {
        let at = self.arguments.iter().position(|a| a == name).expect("the argument is there");
        self.arguments[at + 1] = value.into();
        self
    }

    pub fn set(self, key: &str, value: &str) -> Launch {
        self.arg("--set").arg(&format!("{key}={value}"))
    }

    pub fn sets(self, settings: &[(&str, &str)]) -> Launch {
        settings.iter().fold(self, |launch, (key, value)| launch.set(key, value))
    }

    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Kills the process if it is not ready after this long.
    pub fn ready_within(mut self, bound: Duration) -> Launch {
        self.ready_within = bound;
        self
    }

    /// Runs the binary under another program, such as strace.
    pub fn under(mut self, program: &[&str]) -> Launch {
        self.program.splice(0..0, program.iter().map(|p| p.to_string()));
        self
    }

    /// Starts and waits for the ready line.
    pub fn start(self) -> Broker {
        match self.try_start() {
            Ok(broker) => broker,
            Err(ended) => panic!("casemate did not get ready: {ended}"),
        }
    }

    /// Starts; an error is a process that ended (or was killed for being slow) before it was ready.
    pub fn try_start(self) -> Result<Broker, Ended> {
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(&self.arguments)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, wait) = mpsc::channel();
        let pipe = child.stderr.take().expect("standard error is piped");
        let reader = std::thread::spawn({
            let log = log.clone();
            move || read_log(BufReader::new(pipe), &log, &ready)
        });
        let mut broker = Broker { child, log, listeners: BTreeMap::new(), reader: Some(reader) };
        match wait.recv_timeout(self.ready_within) {
            Ok(listeners) => broker.listeners = listeners,
            Err(error) => {
                let hung = matches!(error, mpsc::RecvTimeoutError::Timeout);
                return Err(broker.end(hung));
            }
        }
        Ok(broker)
    }

    /// Runs a command that is expected to end by itself.
    pub fn run_to_end(self) -> Ended {
        match self.try_start() {
            Ok(broker) => panic!("casemate was expected to end, and serves:\n{}", broker.log()),
            Err(ended) => ended,
        }
    }
}

/// Copies standard error into the log; reports the listeners when the ready line comes. Ends with the pipe.
fn read_log(pipe: impl BufRead, log: &Mutex<Vec<String>>, ready: &mpsc::Sender<BTreeMap<String, SocketAddr>>) {
    for line in pipe.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        // Before it is reported, so that whoever waits for it also finds it in the log.
        log.lock().expect("no reader panics").push(line.clone());
        if let Some(rest) = line.strip_prefix("casemate ready ") {
            let pairs = rest.split_whitespace().filter_map(|w| w.split_once('='));
            let addresses = pairs.filter_map(|(name, address)| Some((name.to_string(), address.parse().ok()?)));
            let _ = ready.send(addresses.collect());
        }
    }
}

/// How a process ended, with what it had said.
pub struct Ended {
    pub status: ExitStatus,
    pub hung: bool,
    pub log: String,
}

impl Ended {
    /// Asserts the exit code, and that the last words contain each text.
    pub fn expect(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self}");
        for text in texts {
            assert!(self.log.contains(text), "the message does not name `{text}`: {self}");
        }
        assert!(!self.log.contains("panicked"), "{self}");
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hung = if self.hung { " (hung, killed by the test)" } else { "" };
        write!(f, "{}{hung}; its last words:\n{}", self.status, tail(&self.log))
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// A process that has announced itself ready.
pub struct Broker {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    listeners: BTreeMap<String, SocketAddr>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Broker {
    pub fn address(&self, listener: &str) -> SocketAddr {
        let found = self.listeners.get(listener);
        *found.unwrap_or_else(|| panic!("no listener `{listener}` in the ready line; the log:\n{}", self.log()))
    }

    pub fn has(&self, listener: &str) -> bool {
        self.listeners.contains_key(listener)
    }

    pub fn client(&self) -> Client {
        let address = self.address("plaintext");
        Client::connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}\n{}", self.log()))
    }

    /// What the process has written to standard error so far (the last lines).
    pub fn log(&self) -> String {
        tail(&self.log.lock().expect("no reader panics").join("\n"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and gone.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.end(false)
    }

    /// SIGTERM; the process must end by itself within `bound`.
    pub fn terminate(self, bound: Duration) -> Ended {
        self.signal(Signal::TERM);
        self.wait(bound)
    }

    /// Waits for the process to end by itself.
    pub fn wait(mut self, bound: Duration) -> Ended {
        let deadline = Instant::now() + bound;
        while Instant::now() < deadline {
            if !self.is_alive() {
                return self.end(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end(true)
    }

    /// Kills the process if it still runs, and collects how it ended and all that it said.
    fn end(mut self, hung: bool) -> Ended {
        if hung {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait().expect("a child can be waited for");
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let log = self.log.lock().expect("no reader panics").join("\n");
        Ended { status, hung, log }
    }

    /// A number from /proc/PID/status, in KiB.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next());
        line.and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker to send requests to: ours, or whatever listens at CASEMATE_TEST_BOOTSTRAP (a real Kafka judges the tests).
pub struct Target {
    pub address: SocketAddr,
    pub broker: Option<Broker>,
    _dir: Option<tempfile::TempDir>,
}

impl Target {
    pub fn new() -> Target {
        if let Ok(address) = std::env::var("CASEMATE_TEST_BOOTSTRAP") {
            let address = address.parse().expect("CASEMATE_TEST_BOOTSTRAP is an address with a port");
            return Target { address, broker: None, _dir: None };
        }
        let dir = folder();
        let broker = Launch::dev(dir.path()).set("group.initial.rebalance.delay.ms", "0").start();
        Target { address: broker.address("plaintext"), broker: Some(broker), _dir: Some(dir) }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("the broker accepts a connection")
    }
}

/// Waits until every partition of a topic answers; metadata alone may run ahead of the leader.
pub fn wait_for_leaders(client: &mut Client, topic: &str, partitions: i32) {
    eventually("every partition has its leader", Duration::from_secs(10), || {
        let known = client.metadata(&[topic]).ok()?.topics[0].partitions.len() as i32;
        let ready = |p| client.list_offset(topic, p, -1).is_ok_and(|(error, _, _)| error == 0);
        (known == partitions && (0..partitions).all(ready)).then_some(())
    });
}

/// A producer id, as soon as the broker gives one out.
pub fn new_producer(client: &mut Client) -> Producer {
    eventually("a producer id", Duration::from_secs(10), || client.init_producer().ok())
}

/// A new temporary folder, removed with its handle.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("casemate-it-").tempdir().expect("a temporary folder can be made")
}

/// A folder below cargo's target folder, which outlives the run.
pub fn lasting_folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).expect("a folder below the target folder can be made");
    path
}

/// Milliseconds since 1970. Producer state expires by the timestamps of its batches, so they had better be of today.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as i64)
}

/// A name that no other test uses, also on a broker that is kept.
pub fn unique(prefix: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{prefix}-{now:x}")
}

/// Says why a test cannot run here; it then counts as passed, and the reason is in its output.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Repeats until `check` gives a value, or panics with `what` after `bound`.
pub fn eventually<T>(what: &str, bound: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {bound:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
