//! A network of one's own: a bridge in a network namespace that the test has made for itself, and a namespace for each
//! node, whose links can be cut in one direction or both. Nothing of the machine's own network is touched.
//!
//! A test that wants it starts itself again inside new namespaces ([`inside`]); what it mounts and names there goes with it.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Says to the test process that it is inside.
const INSIDE: &str = "CASEMATE_TEST_NAMESPACE";

/// With a process space, too: nothing that was started there outlives the test.
const SPACES: [&str; 5] = ["--net", "--mount", "--pid", "--fork", "--mount-proc"];

/// Whether this process is inside already.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether this process has a network of its own. If not, the test of this name is run again in one, and its outcome is
/// this one's; `Err` says why that cannot be.
pub fn inside(test: &str) -> Result<bool, String> {
    if is_inside() {
        return Ok(true);
    }
    let probe = Command::new("unshare").args(SPACES).args(["ip", "link"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        return Err("namespaces cannot be made here (not root, or unshare and ip are missing)".into());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut again = Command::new("unshare");
    again.args(SPACES).arg(program);
    again.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads", "1"]);
    again.env(INSIDE, "1");
    let status = again.status().map_err(|e| e.to_string())?;
    assert!(status.success(), "inside its namespaces the test failed");
    Ok(false)
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Everything from and to a node.
    Off(u8),
    /// What the first sends to the second.
    OneWay(u8, u8),
    /// Between two nodes, in both directions; both still reach the third.
    Between(u8, u8),
}

impl Drop for Network {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

/// The bridge and the namespaces of the nodes, and of what else has a place of its own.
pub struct Network {
    hosts: Vec<u8>,
}

impl Network {
    /// Makes the network for these hosts.
    pub fn new(hosts: Vec<u8>) -> Network {
        run("mount", &["-t", "tmpfs", "casemate-test", "/run"]);
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{}/24", Network::address(254)), "dev", "br0"]);
        run("ip", &["link", "set", "br0", "up"]);
        for node in hosts.iter().copied() {
            let (name, outside) = (namespace(node), link(node));
            run("ip", &["netns", "add", &name]);
            run("ip", &["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            run("ip", &["link", "set", &outside, "master", "br0", "up"]);
            let address = format!("{}/24", Network::address(node));
            run("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"]);
            run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        }
        Network { hosts }
    }

    /// Takes all of it away; a process that is still inside keeps nothing of it but an interface without a peer.
    fn remove(&self) {
        for host in &self.hosts {
            run("ip", &["netns", "delete", &namespace(*host)]);
        }
        run("ip", &["link", "delete", "br0"]);
        run("umount", &["-l", "/run"]);
    }

    pub fn address(node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, node)
    }

    /// What a node's program is to be run under.
    pub fn enter(node: u8) -> [String; 4] {
        ["ip".into(), "netns".into(), "exec".into(), namespace(node)]
    }

    pub fn cut(&self, cut: Cut) {
        match cut {
            Cut::Off(node) => run("ip", &["link", "set", &link(node), "down"]),
            Cut::OneWay(from, to) => self.hole("add", from, to),
            Cut::Between(one, other) => {
                self.hole("add", one, other);
                self.hole("add", other, one);
            }
        }
    }

    pub fn mend(&self, cut: Cut) {
        match cut {
            Cut::Off(node) => run("ip", &["link", "set", &link(node), "up"]),
            Cut::OneWay(from, to) => self.hole("del", from, to),
            Cut::Between(one, other) => {
                self.hole("del", one, other);
                self.hole("del", other, one);
            }
        }
    }

    /// A route that swallows what one node sends to another.
    fn hole(&self, change: &str, from: u8, to: u8) {
        assert!(self.hosts.contains(&from) && self.hosts.contains(&to));
        let to = format!("{}/32", Network::address(to));
        run("ip", &["-n", &namespace(from), "route", change, "blackhole", &to]);
    }
}

fn namespace(node: u8) -> String {
    format!("node{node}")
}

fn link(node: u8) -> String {
    format!("veth{node}")
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|e| panic!("{program} {arguments:?}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {}: {said}", arguments.join(" "));
}
