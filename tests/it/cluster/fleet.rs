//! Three nodes in namespaces of their own, each on a small disk of its own; killed, stopped, wiped, and started again as
//! systemd would.

use super::super::harness::{BINARY, eventually};
use super::network::Network;
use super::store_server::{self, StoreServer};
use super::{PASSPHRASE, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const NODES: u8 = 3;
const DISK_MIB: u32 = 400;
const FENCED: i32 = 5;
const FULL: i32 = 6;
/// From an end to the next start, as the unit has it.
const RESTART: Duration = Duration::from_millis(500);
/// Entries of the metadata's log that a node may lack while it takes part.
const LAG_MAX: u64 = 50;
const LONG: Duration = Duration::from_secs(90);

/// Small segments and quick uploads, so that rolling, uploading and trimming happen within seconds; and groups that soon
/// miss a member.
const SETTINGS: &[(&str, &str)] = &[
    ("wal.segment_bytes", "1048576"),
    ("wal.budget_bytes", "67108864"),
    ("objects.upload_bytes", "2097152"),
    ("objects.upload_interval_ms", "700"),
    ("objects.maintenance_interval_ms", "1000"),
    ("objects.grace_ms", "5000"),
    ("transaction.state.log.num.partitions", "3"),
    ("offsets.topic.num.partitions", "3"),
    ("group.initial.rebalance.delay.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "700"),
    ("group.consumer.heartbeat.interval.ms", "700"),
];

#[derive(Default)]
struct Machine {
    child: Option<Child>,
    /// It is not started again before; none: for now not at all.
    start_at: Option<Instant>,
    /// The next end is our doing.
    killed: bool,
    /// The name under which it was added.
    name: String,
}

pub struct Fleet {
    pub dir: PathBuf,
    pub network: Network,
    /// The S3 server with the objects; none: the nodes keep them together.
    pub store: Option<StoreServer>,
    machines: Vec<Mutex<Machine>>,
    /// Ends that nobody brought about.
    pub problems: Mutex<Vec<String>>,
    pub fenced: AtomicU64,
    stop: AtomicBool,
    wiped: AtomicU64,
    /// The key of the cluster's authority, which an operator keeps elsewhere.
    authority: Mutex<Vec<u8>>,
}

impl Fleet {
    /// Makes the cluster: node 1 by itself, the others from bundles. `external`: with an S3 server.
    pub fn new(dir: &Path, external: bool) -> Arc<Fleet> {
        let machines = (0..NODES).map(|_| Mutex::default()).collect();
        let network = Network::new((1..=NODES).chain(external.then_some(store_server::HOST)).collect());
        let fleet = Arc::new(Fleet {
            dir: dir.to_owned(),
            network,
            store: external.then(|| StoreServer::start(&dir.join("store"))),
            machines,
            problems: Mutex::default(),
            fenced: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wiped: AtomicU64::new(0),
            authority: Mutex::default(),
        });
        std::fs::write(fleet.passphrase(), PASSPHRASE).expect("the passphrase can be written");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(fleet.passphrase(), std::fs::Permissions::from_mode(0o600)).expect("its mode");
        for node in 1..=NODES {
            fleet.mount(node);
        }
        let (listen, peer) = (fleet.listen(1), fleet.peer(1));
        let (folder, host) = (text(&fleet.folder(1)), Network::address(1).to_string());
        ran(&["init", &folder, "--host", &host, "--listen", &listen, "--peer-listen", &peer]);
        let key = std::fs::read(fleet.folder(1).join("tls/ca.key")).expect("init makes an authority");
        *fleet.authority.lock().expect("no holder panics") = key;
        let watched = fleet.clone();
        std::thread::spawn(move || watched.supervise());
        fleet.start(1, Duration::ZERO);
        for node in 2..=NODES {
            fleet.invite(node, &format!("n{node}"), 1);
            fleet.start(node, Duration::ZERO);
        }
        fleet.await_whole();
        fleet
    }

    pub fn folder(&self, node: u8) -> PathBuf {
        self.dir.join(format!("disk{node}")).join("node")
    }

    fn listen(&self, node: u8) -> String {
        format!("{}:9093", Network::address(node))
    }

    fn peer(&self, node: u8) -> String {
        format!("{}:9094", Network::address(node))
    }

    fn passphrase(&self) -> PathBuf {
        self.dir.join("passphrase")
    }

    fn config(&self, node: u8) -> String {
        text(&self.folder(node).join("casemate.toml"))
    }

    pub fn log(&self, node: u8) -> PathBuf {
        self.dir.join(format!("log{node}"))
    }

    fn mount(&self, node: u8) {
        let at = self.dir.join(format!("disk{node}"));
        std::fs::create_dir_all(&at).expect("a folder for the disk");
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "casemate-test"]).arg(&at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs can be mounted");
    }

    /// Adds a node through another one and makes its folder from the bundle.
    fn invite(&self, node: u8, name: &str, through: u8) {
        let (bundle, passphrase) = (text(&self.dir.join(format!("{name}.bundle"))), text(&self.passphrase()));
        let (listen, peer, config) = (self.listen(node), self.peer(node), self.config(through));
        self.machine(node).name = name.to_owned();
        let add = ["cluster", "add-node", name, "--address", &peer, "--out", &bundle, "--config", &config];
        let add = [&add[..], &["--passphrase-file", &passphrase]].concat();
        eventually("the node can be added", LONG, || run(&add).status.success().then_some(()));
        let folder = text(&self.folder(node));
        let init = ["init", &folder, "--bundle", &bundle, "--passphrase-file", &passphrase];
        ran(&[&init[..], &["--listen", &listen, "--peer-listen", &peer]].concat());
    }

    fn machine(&self, node: u8) -> std::sync::MutexGuard<'_, Machine> {
        self.machines[node as usize - 1].lock().expect("no holder panics")
    }

    pub fn start(&self, node: u8, after: Duration) {
        self.machine(node).start_at = Some(Instant::now() + after);
    }

    /// Starts what is to run, and looks after what ended.
    fn supervise(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            for node in 1..=NODES {
                self.look_after(node);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn look_after(&self, node: u8) {
        let mut machine = self.machine(node);
        if let Some(child) = &mut machine.child {
            let Ok(Some(status)) = child.try_wait() else { return };
            machine.child = None;
            match (std::mem::take(&mut machine.killed), status.code()) {
                (true, _) => {}
                (false, Some(code @ (FENCED | FULL))) => {
                    self.fenced.fetch_add(u64::from(code == FENCED), Ordering::Relaxed);
                    machine.start_at = Some(Instant::now() + RESTART);
                }
                (false, _) => {
                    let log = std::fs::read_to_string(self.log(node)).unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    let last = lines[lines.len().saturating_sub(15)..].join("\n");
                    let problem = format!("node {node} ended by itself, {status}:\n{last}");
                    self.problems.lock().expect("no holder panics").push(problem);
                }
            }
        }
        if machine.start_at.is_some_and(|at| Instant::now() >= at) {
            machine.start_at = None;
            machine.child = Some(self.spawn(node));
        }
    }

    fn spawn(&self, node: u8) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node)).expect("a log");
        let [program, enter @ ..] = Network::enter(node);
        let mut command = Command::new(program);
        command.args(enter).arg(BINARY).args(["serve", "--config", &self.config(node)]);
        for (key, value) in SETTINGS {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        for (key, value) in self.store.iter().flat_map(StoreServer::settings) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.arg("--set").arg(format!("admin.listen={}:9095", Network::address(node)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("the node starts")
    }

    fn signal(&self, node: u8, signal: Signal) {
        let machine = self.machine(node);
        if let Some(pid) = machine.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    pub fn pid(&self, node: u8) -> Option<u32> {
        self.machine(node).child.as_ref().map(Child::id)
    }

    /// SIGKILL; it stays away until it is started.
    pub fn kill(&self, node: u8) {
        {
            let mut machine = self.machine(node);
            machine.killed = machine.child.is_some();
            machine.start_at = None;
        }
        self.signal(node, Signal::KILL);
    }

    pub fn stop(&self, node: u8) {
        self.signal(node, Signal::STOP);
    }

    pub fn go_on(&self, node: u8) {
        self.signal(node, Signal::CONT);
    }

    fn await_gone(&self, node: u8) {
        eventually("the process is gone", LONG, || self.machine(node).child.is_none().then_some(()));
    }

    /// SIGTERM to all, one after the other, and a start of all: what is stored is all that is left.
    pub fn restart_all(&self) {
        for node in 1..=NODES {
            self.machine(node).killed = true;
            self.signal(node, Signal::TERM);
        }
        for node in 1..=NODES {
            self.await_gone(node);
            self.start(node, Duration::ZERO);
        }
        self.await_whole();
    }

    /// Fills the node's disk.
    pub fn fill(&self, node: u8) {
        let ballast = self.dir.join(format!("disk{node}")).join("ballast");
        if let Ok(mut file) = File::create(ballast) {
            // Ends with the error that the disk is full.
            let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        }
    }

    pub fn make_room(&self, node: u8) {
        let _ = std::fs::remove_file(self.dir.join(format!("disk{node}")).join("ballast"));
    }

    /// Every sync of the node takes this long, until what is returned is killed.
    pub fn slow_disk(&self, node: u8, delay: Duration) -> Option<Child> {
        let inject = format!("inject=fdatasync:delay_exit={}", delay.as_micros());
        let pid = self.pid(node)?.to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fdatasync", "-e", &inject, "-o", "/dev/null", "-p", &pid]);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    }

    /// The node's disk is gone. The node is taken out of the cluster and comes as a new one.
    pub fn wipe(&self, node: u8) {
        self.kill(node);
        self.await_gone(node);
        std::fs::remove_dir_all(self.folder(node)).expect("the folder can be removed");
        let through = node % NODES + 1;
        let (old, config) = (self.machine(node).name.clone(), self.config(through));
        let old = if old.is_empty() { self.name_of(node, through) } else { old };
        eventually("the wiped node can be taken out", LONG, || {
            let output = run(&["cluster", "remove-node", &old, "--config", &config]);
            output.status.success().then_some(())
        });
        let number = self.wiped.fetch_add(1, Ordering::Relaxed) + 1;
        // The key is brought to where a node is added, and taken away again.
        let key = self.folder(through).join("tls/ca.key");
        if !key.exists() {
            std::fs::write(&key, &*self.authority.lock().expect("no holder panics")).expect("the key can be written");
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        }
        self.invite(node, &format!("n{node}-{number}"), through);
        std::fs::remove_file(&key).expect("the key can be taken away");
        self.start(node, Duration::ZERO);
        self.await_whole();
    }

    /// How the metadata call the node at this place.
    fn name_of(&self, node: u8, through: u8) -> String {
        let host = Network::address(node).to_string();
        let status = eventually("a status", LONG, || self.status(through));
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let found = nodes.iter().find(|n| n["host"] == host);
        found.and_then(|n| n["name"].as_str()).expect("the node is listed").to_owned()
    }

    pub fn status(&self, node: u8) -> Option<Value> {
        let output = run(&["cluster", "status", "--json", "--config", &self.config(node)]);
        if !output.status.success() {
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until all nodes vote, follow the log closely, and no broker is fenced.
    pub fn await_whole(&self) {
        let deadline = Instant::now() + LONG;
        loop {
            let problems = self.problems.lock().expect("no holder panics").join("\n");
            assert!(problems.is_empty(), "{problems}");
            let status = (1..=NODES).find_map(|node| self.status(node));
            if status.as_ref().is_some_and(is_whole) {
                return;
            }
            let last = || status.map_or("nobody says".to_owned(), |status| status.to_string());
            assert!(Instant::now() < deadline, "the cluster is not whole within {LONG:?}: {}", last());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for node in 1..=NODES {
            self.kill(node);
        }
        self.store.iter().for_each(StoreServer::kill);
        std::thread::sleep(Duration::from_millis(100));
        for node in 1..=NODES {
            if let Some(mut child) = self.machine(node).child.take() {
                let _ = child.wait();
            }
            let _ = Command::new("umount").arg("-l").arg(self.dir.join(format!("disk{node}"))).status();
        }
    }
}

fn is_whole(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    // Under load there is always an entry that somebody lacks yet.
    let follows = |node: &Value| node["lag"].as_u64().is_some_and(|lag| lag <= LAG_MAX);
    let is_well = |node: &&Value| node["role"] == "voter" && follows(node) && node["broker"]["fenced"] == false;
    nodes.iter().filter(is_well).count() == NODES as usize
}

fn ran(arguments: &[&str]) {
    super::ran(arguments);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
