//! Several nodes: a quorum that is formed from join bundles, survives its leader, and lets nobody else in.

mod campaign;
mod commits;
mod copies;
mod fleet;
mod groups;
mod members;
mod memberships;
mod network;
mod route;
mod store_server;

use super::client::Client;
use super::harness::{BINARY, Broker, Launch, eventually, folder};
use super::tls::as_client;
use casemate::base::{ClusterId, NodeId};
use casemate::env::{Clock, SystemClock, SystemEntropy};
use casemate::security::bundle::{HOUR_MS, Invitation, KnownNode, make};
use casemate::security::{Passphrase, issue_node};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const CONFIGURATION: i32 = 2;
const LONG: Duration = Duration::from_secs(30);
const PASSPHRASE: &str = "five words that nobody guesses";

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the binary starts")
}

/// Asserts success and answers standard output.
fn ran(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts the exit code of a mistake, and what is said about it.
fn refused(arguments: &[&str], part: &str) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{arguments:?}: {said}");
    assert!(said.contains(part) && said.trim_end().lines().count() == 1, "no `{part}` in: {said}");
}

/// Folders of nodes on loopback. Peer ports are free ones of the moment: tools have to know them.
struct Site {
    dir: tempfile::TempDir,
    ports: BTreeMap<usize, u16>,
    running: BTreeMap<usize, Broker>,
}

impl Site {
    /// Node 1 serves alone.
    fn new() -> Site {
        let held: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = held.iter().enumerate().map(|(i, port)| (i + 1, port.local_addr().unwrap().port())).collect();
        let mut site = Site { dir: folder(), ports, running: BTreeMap::new() };
        std::fs::write(site.passphrase(), PASSPHRASE).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(site.passphrase(), std::fs::Permissions::from_mode(0o600)).unwrap();
        drop(held);
        let (root, peer) = (site.node(1), site.peer(1));
        let root = root.to_str().unwrap();
        ran(&["init", root, "--host", "127.0.0.1", "--listen", "127.0.0.1:0", "--peer-listen", &peer]);
        site.serve(1);
        site
    }

    fn node(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    fn config(&self, node: usize) -> String {
        self.node(node).join("casemate.toml").display().to_string()
    }

    fn passphrase(&self) -> String {
        self.dir.path().join("passphrase").display().to_string()
    }

    fn bundle(&self, node: usize) -> String {
        self.dir.path().join(format!("n{node}.bundle")).display().to_string()
    }

    fn peer(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[&node])
    }

    fn launch(&self, dir: &Path) -> Launch {
        Launch::serve(dir).set("admin.listen", "127.0.0.1:0").set("wal.segment_bytes", "1048576")
    }

    fn serve(&mut self, node: usize) {
        let broker = self.launch(&self.node(node)).start();
        self.running.insert(node, broker);
    }

    /// Makes a bundle and, out of it, a folder.
    fn invite(&self, node: usize) {
        let name = format!("n{node}");
        let (peer, bundle, config) = (self.peer(node), self.bundle(node), self.config(1));
        let passphrase = self.passphrase();
        let made = ["cluster", "add-node", &name, "--address", &peer, "--out", &bundle, "--json"];
        let made = ran(&[&made[..], &["--passphrase-file", &passphrase, "--config", &config]].concat());
        let made: Value = serde_json::from_str(&made).expect("JSON");
        assert_eq!(made["node"], node);
        self.unpack(&bundle, &self.node(node), &peer);
    }

    fn unpack(&self, bundle: &str, dir: &Path, peer: &str) {
        let passphrase = self.passphrase();
        let dir = ["init", dir.to_str().unwrap(), "--bundle", bundle, "--passphrase-file", &passphrase];
        ran(&[&dir[..], &["--listen", "127.0.0.1:0", "--peer-listen", peer]].concat());
    }

    fn try_status(&self, node: usize) -> Option<Value> {
        let output = run(&["cluster", "status", "--json", "--config", &self.config(node)]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// The status that all running nodes agree on, once it is as wished.
    fn agreed(&self, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        eventually(what, LONG, || {
            let seen = self.running.keys().map(|node| {
                let mut status = self.try_status(*node)?;
                assert_eq!(status["asked"], *node);
                status["asked"].take();
                Some(status)
            });
            let seen: Vec<Value> = seen.collect::<Option<_>>()?;
            (seen.iter().all(|status| *status == seen[0]) && wished(&seen[0])).then(|| seen[0].clone())
        })
    }

    /// A client with the certificate that `init` made, at a node.
    fn client(&self, node: usize) -> Client {
        let address = self.running[&node].address("tls");
        Client::connect_tls(address, as_client(&self.node(1))).expect("the node accepts the client")
    }
}

fn voters(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().filter(|node| node["role"] == "voter" && node["lag"] == 0 && node["broker"]["fenced"] == false).count()
}

#[test]
fn three_nodes_form_a_quorum_that_survives_its_leader() {
    let mut site = Site::new();
    [2, 3].into_iter().for_each(|node| site.invite(node));
    [2, 3].into_iter().for_each(|node| site.serve(node));
    let status = site.agreed("three voters", |status| voters(status) == 3);
    assert!(!site.node(2).join("join.token").exists(), "the token is used up");
    let leader = status["leader"].as_u64().expect("somebody leads") as usize;

    let killed = site.running.remove(&leader).unwrap();
    killed.kill();
    let since = Instant::now();
    let live = *site.running.keys().next().unwrap();
    let next = eventually("another leader", Duration::from_secs(5), || {
        let next = site.try_status(live)?["leader"].as_u64()? as usize;
        (next != leader).then_some(next)
    });
    println!("node {next} led after {:?}", since.elapsed());
    let mut client = site.client(live);
    assert_eq!(client.create_topic("after", 1, &[]).unwrap(), 0, "metadata go on");

    site.serve(leader);
    site.agreed("the killed node is back", |status| voters(status) == 3);
    let topic = eventually("the topic is known everywhere", LONG, || {
        let known = site.client(leader).metadata(&["after"]).ok()?.topics.pop()?;
        (known.error_code != 3).then_some(known)
    });
    assert_eq!(topic.partitions.len(), 1);

    let name = format!("{leader}");
    ran(&["cluster", "promote", &name, "--config", &site.config(next)]);
    site.agreed("the promoted node leads", |status| status["leader"] == leader);
    // In order, one after the other: the last one finds no majority any more, and ends all the same.
    for (node, broker) in std::mem::take(&mut site.running) {
        assert_eq!(broker.terminate(LONG).status.code(), Some(0), "node {node}");
    }
}

#[test]
fn who_was_not_invited_or_was_invited_otherwise_is_refused() {
    let mut site = Site::new();
    site.invite(2);
    let (bundle, passphrase, config) = (site.bundle(2), site.passphrase(), site.config(1));
    let other = site.dir.path().join("other").display().to_string();
    let add = ["cluster", "add-node", "again", "--address", "127.0.0.1:1", "--config", &config, "--out", &bundle];
    refused(&[&add[..], &["--passphrase-file", &passphrase]].concat(), "never overwrites");

    let wrong = site.dir.path().join("wrong").display().to_string();
    std::fs::copy(&passphrase, &wrong).unwrap();
    std::fs::write(&wrong, "five words that somebody else chose").unwrap();
    let init = ["init", &other, "--bundle", &bundle, "--passphrase-file"];
    refused(&[&init[..], &[&wrong]].concat(), "the passphrase is another one");
    assert!(!Path::new(&other).exists(), "nothing is left behind");
    std::fs::write(&wrong, expired(&site)).unwrap();
    refused(&["init", &other, "--bundle", &wrong, "--passphrase-file", &passphrase], "expired on");

    // A node that is no node of this cluster is told so, and does not wait.
    let stray = site.dir.path().join("stray");
    site.unpack(&bundle, &stray, &site.peer(4));
    let file = stray.join("casemate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let own = text.lines().find(|line| line.starts_with("cluster_id")).unwrap();
    let foreign = format!("cluster_id = \"{}\"", ClusterId([9; 16]));
    std::fs::write(&file, text.replace(own, &foreign)).unwrap();
    site.launch(&stray).run_to_end().expect(CONFIGURATION, &["belongs to the cluster", "its cluster id"]);

    site.serve(2);
    site.running.remove(&2).unwrap().terminate(LONG).expect(0, &["joined the cluster"]);
    let again = site.dir.path().join("again");
    site.unpack(&bundle, &again, &site.peer(4));
    site.launch(&again).run_to_end().expect(CONFIGURATION, &["was used already", "add it again for a new bundle"]);
    assert!(site.running[&1].log().contains("a node may not join"), "{}", site.running[&1].log());

    refused(&["cluster", "status", "--config", &site.config(2)], "see that the node runs");
    refused(&["cluster", "remove-node", "n9", "--config", &config], "no node n9");
    refused(&["cluster", "promote", "n2", "--config", &config], "has no vote");
    let said = greet_as_client(&site);
    assert!(said.contains("belongs to no node of this cluster"), "{said}");
    // Its ledger gets an end first, and what is in it goes to object storage.
    let removed = || run(&["cluster", "remove-node", "n2", "--config", &config]).status.success().then_some(());
    eventually("the node can be removed", LONG, removed);
    site.agreed("one node is left", |status| status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1));
    site.launch(&site.node(2)).run_to_end().expect(CONFIGURATION, &["belongs to no node of this cluster"]);
}

#[test]
fn a_folder_from_before_there_were_nodes_records_itself() {
    let dir = folder();
    // As in a former release, whose nodes had no peer address and left no record.
    Launch::dev(dir.path()).start().terminate(LONG).expect(0, &[]);
    let recorded = "the cluster knows where this node is";
    let serve = || {
        let serve = Launch::serve(dir.path()).set("listeners.tls", "127.0.0.1:0").set("admin.listen", "127.0.0.1:0");
        serve.set("peer.listen", "127.0.0.1:0")
    };
    serve().start().terminate(LONG).expect(0, &[recorded]);
    Launch::dev(dir.path()).start().terminate(LONG).expect(0, &[]);
    let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let again = || serve().set("peer.listen", &own).start().terminate(LONG);
    again().expect(0, &[recorded]);
    let unchanged = again();
    assert!(!unchanged.log.contains(recorded), "nothing has changed: {unchanged}");
}

/// A bundle that was made two hours ago for one.
fn expired(site: &Site) -> Vec<u8> {
    let read = |name: &str| std::fs::read_to_string(site.node(1).join("tls").join(name)).unwrap();
    let (ca, key) = (read("ca.pem"), read("ca.key"));
    let now_ms = SystemClock.wall_ms();
    let issued = issue_node(&ca, &key, NodeId(3), &[], now_ms, &SystemEntropy).unwrap();
    let known = KnownNode { node: NodeId(1), host: "127.0.0.1".into(), port: 1, identity: "CN=a".into() };
    let invitation = Invitation {
        cluster: ClusterId([1; 16]),
        generation: 1,
        node: NodeId(3),
        name: "n3".to_owned(),
        rack: String::new(),
        host: "127.0.0.1".to_owned(),
        port: 1,
        bootstrap: "127.0.0.1:1".to_owned(),
        settings: Vec::new(),
        known: vec![known],
        valid_hours: 1,
        now_ms: now_ms - 2 * HOUR_MS,
    };
    let passphrase = Passphrase::from_file(Path::new(&site.passphrase())).unwrap();
    make(invitation, issued, ca, &SystemEntropy).unwrap().0.seal(&passphrase, &SystemEntropy).unwrap()
}

/// What the peer port says to a client's certificate, whatever node its owner claims to be.
fn greet_as_client(site: &Site) -> String {
    let address: SocketAddr = site.peer(1).parse().unwrap();
    let mut client = Client::connect_tls(address, as_client(&site.node(1))).unwrap();
    // As `peer/hello.rs` describes it: protocol 1, an unknown cluster, node 2 to node 1, class control.
    let mut hello = b"CMPH\0\x01\0\x01".to_vec();
    hello.extend([0; 16 + 8]);
    hello.extend([0, 0, 0, 2, 0, 0, 0, 1, 3]);
    hello.extend([0; 8 + 4]);
    let length = (hello.len() as u32).to_be_bytes();
    client.send_raw(&[&length[..], &hello].concat()).unwrap();
    String::from_utf8_lossy(&client.receive_raw().expect("a refusal")).into_owned()
}
