//! Nodes on loopback with real certificates: who is let in, what is carried, and what becomes of it.

mod damage;
mod endings;
mod entry;
mod flow;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::base::{ClusterId, NodeId};
use crate::env::{Clock, SystemEntropy};
use crate::net::bind;
use crate::security::{InitOptions, NodeStream, NodeTls, TlsFiles, create, issue_node};

const NOW_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 365 * DAY_MS;
/// When the authorities were made: nearly a year ago, so that they can have issued what expires now.
const AUTHORITY_MS: i64 = NOW_MS - YEAR_MS + 4000;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.0.load(SeqCst)
    }

    fn boottime(&self) -> Duration {
        Duration::ZERO
    }
}

/// An authority, the certificates of nodes 1 to 3 and some others, and the list that has the nodes.
struct Site {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    roster: Arc<Roster>,
    processes: AtomicU64,
}

fn subject(node: i32) -> String {
    format!("CN=node-{node},O=casemate")
}

fn known(nodes: &[i32]) -> HashMap<String, Standing> {
    nodes.iter().map(|node| (subject(*node), Standing::Known(NodeId(*node)))).collect()
}

impl Site {
    fn new() -> Site {
        let site = Site {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock(AtomicI64::new(NOW_MS))),
            roster: Arc::new(Roster::new(known(&[1, 2, 3]))),
            processes: AtomicU64::new(100),
        };
        site.authority("site");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn authority(&self, name: &str) {
        let options = InitOptions {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
            hosts: Vec::new(),
            bootstrap: "localhost:9093".to_owned(),
            now_ms: AUTHORITY_MS,
        };
        create(&self.path(name), &options, &SystemEntropy).unwrap();
    }

    /// Files of a node's certificate that was issued at this time by the authority in this folder.
    fn certificate(&self, authority: &str, node: i32, at_ms: i64) -> TlsFiles {
        let read = |name: &str| std::fs::read_to_string(self.path(authority).join("tls").join(name)).unwrap();
        let (pem, key) = (read("ca.pem"), read("ca.key"));
        let issued = issue_node(&pem, &key, NodeId(node), &[], at_ms, &SystemEntropy).unwrap();
        let files = TlsFiles {
            cert_chain: self.path(&format!("{authority}-{node}.pem")),
            key: self.path(&format!("{authority}-{node}.key")),
            client_ca: self.path(authority).join("tls/ca.pem"),
        };
        std::fs::write(&files.cert_chain, issued.certificate_pem).unwrap();
        std::fs::write(&files.key, issued.key_pem).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    fn tls(&self, files: TlsFiles) -> Arc<NodeTls> {
        Arc::new(NodeTls::load(files, self.clock.clone()).unwrap())
    }

    fn node_tls(&self, node: i32) -> Arc<NodeTls> {
        self.tls(self.certificate("site", node, NOW_MS))
    }

    fn own(&self, node: i32) -> Own {
        Own {
            cluster: ClusterId([1; 16]),
            generation: 1,
            node: NodeId(node),
            process: self.processes.fetch_add(1, SeqCst),
            software: "test".to_owned(),
        }
    }

    /// A node as it should be, in a new process.
    fn plane(&self, node: i32) -> Arc<Plane> {
        self.plane_with(self.own(node), self.node_tls(node), Options::default())
    }

    fn plane_with(&self, own: Own, tls: Arc<NodeTls>, options: Options) -> Arc<Plane> {
        Plane::new(own, tls, self.roster.clone(), options, self.clock.clone(), Arc::new(SystemEntropy))
    }

    /// Options with which nothing takes long.
    fn quick() -> Options {
        Options {
            hello_timeout: Duration::from_millis(300),
            handshake_timeout: Duration::from_millis(300),
            backoff_first: Duration::from_millis(5),
            backoff_last: Duration::from_millis(20),
            drain_timeout: Duration::from_secs(10),
            ..Options::default()
        }
    }
}

/// Answers with what it was asked, or as the request says.
struct Echo {
    seen: Mutex<Vec<(Caller, Bytes)>>,
    /// Requests that begin with `hold` each wait for a permit.
    gate: Arc<Semaphore>,
}

impl Default for Echo {
    fn default() -> Self {
        Echo { seen: Mutex::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl Echo {
    fn bodies(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Service for Echo {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        self.seen.lock().unwrap().push((from.clone(), request.clone()));
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            if request.starts_with(b"hold") {
                gate.acquire().await.unwrap().forget();
            }
            match &request[..] {
                b"no" => Err(Refused("told to".to_owned())),
                b"huge" => Ok(Bytes::from(vec![0; Options::default().class(Class::Raft).body_bytes_max + 1]).into()),
                b"pieces" => Ok(vec![Bytes::from_static(b"pie"), Bytes::new(), Bytes::from_static(b"ces")].into()),
                _ => Ok(request.into()),
            }
        })
    }
}

/// A node that listens, with one service for all classes.
struct Running {
    plane: Arc<Plane>,
    port: u16,
    echo: Arc<Echo>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(plane: Arc<Plane>) -> Running {
        Running::on(plane, bind(([127, 0, 0, 1], 0).into()).unwrap())
    }

    fn on(plane: Arc<Plane>, socket: TcpListener) -> Running {
        let (echo, port) = (Arc::new(Echo::default()), socket.local_addr().unwrap().port());
        let router = Class::ALL.iter().fold(Router::default(), |router, class| router.with(*class, echo.clone()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Server::new(plane.clone(), socket, router).run(stopped));
        Running { plane, port, echo, stop, task }
    }

    fn address(&self) -> PeerAddress {
        address(self.plane.own.node.0, self.port)
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.plane.metrics().refused[&reason]
    }

    /// Ends at once, as a process that is killed does: its connections break.
    async fn kill(self) -> u16 {
        self.task.abort();
        let _ = self.task.await;
        self.port
    }
}

fn address(node: i32, port: u16) -> PeerAddress {
    PeerAddress { node: NodeId(node), host: "localhost".to_owned(), port }
}

/// What a node dials with, knowing these.
fn peers(plane: &Arc<Plane>, addresses: &[PeerAddress]) -> Peers {
    let peers = Peers::new(plane.clone());
    peers.set(addresses.to_vec());
    peers
}

async fn ask(peers: &Peers, node: i32, class: Class, body: &'static [u8]) -> Result<Bytes, PeerError> {
    peers.call(NodeId(node), class, Bytes::from_static(body), LONG).await
}

/// Why a call found no connection.
fn dial_error(result: Result<Bytes, PeerError>) -> Arc<DialError> {
    match result {
        Err(PeerError::NotSent { reason: NotSent::Dial(error), .. }) => error,
        other => panic!("{other:?}"),
    }
}

fn refusal(result: Result<Bytes, PeerError>) -> Reason {
    match &*dial_error(result) {
        DialError::Refused(refusal) => refusal.reason,
        other => panic!("{other}"),
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A TLS connection with nothing said yet.
async fn raw(tls: &NodeTls, port: u16) -> NodeStream {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tls.connect("localhost", tcp, LONG).await.unwrap().0
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}
