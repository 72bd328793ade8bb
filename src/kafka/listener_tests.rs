//! Listeners on real sockets of the loopback interface.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connection::{ConnectionOptions, Wire};
use super::listener::{Admission, ConnectionLimits, Listener, Security};
use super::request::{Outcome, Reply, Request, Service};
use super::{Rope, WireMetrics, samples};
use crate::base::{ClusterId, NodeId};
use crate::broker::quota::{QuotaManager, Window, Windows};
use crate::env::{Clock, SystemClock, SystemEntropy};
use crate::metadata::{QuotaEntity, QuotaName};
use crate::net::{bind, pause_after};
use crate::security::{ClientIdentity, InitOptions, PrincipalRules, ServerTls, TlsFiles, client_config, create};

/// Answers with the name of the principal.
struct WhoAmI;

impl Service for WhoAmI {
    fn begin(&self, request: Request) -> BoxFuture<'_, Reply> {
        let name = request.context.principal.to_string();
        let mut out = BytesMut::new();
        out.put_i32(name.len() as i32);
        out.put_slice(name.as_bytes());
        Box::pin(async move { Reply::Now(Outcome::Send(Rope::from(out.freeze()))) })
    }
}

struct Site {
    addr: SocketAddr,
    metrics: Arc<WireMetrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn site(security: Security, connections_max: usize, per_address_max: usize) -> Site {
    site_with(security, ConnectionLimits { connections_max, per_address_max, ..Default::default() }, None)
}

fn site_with(security: Security, limits: ConnectionLimits, address_rate: Option<f64>) -> Site {
    let quotas = Arc::new(QuotaManager::new(Windows { client: Window::KAFKA, mutation: Window::KAFKA }));
    if let Some(rate) = address_rate {
        let entity = QuotaEntity { ip: Some(QuotaName::Default), ..QuotaEntity::default() };
        let values = BTreeMap::from([("connection_creation_rate".to_owned(), rate)]);
        quotas.set(&Arc::new(BTreeMap::from([(entity, values)])));
    }
    let metrics = Arc::new(WireMetrics::new());
    let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = Listener {
        name: "TEST".into(),
        socket,
        security: Arc::new(security),
        admission: Admission::new(limits, quotas, Arc::new(SystemClock)),
        handshake_timeout: Duration::from_millis(300),
        wire: Wire::new(Arc::new(WhoAmI), ConnectionOptions::default(), metrics.clone()),
    };
    let (stop, stopped) = watch::channel(false);
    Site { addr, metrics, stop, task: tokio::spawn(listener.run(stopped)) }
}

fn request() -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(ApiKey::ListOffsets as i16);
    out.put_i16(1);
    out.put_i32(5);
    out.put_i16(-1);
    out.put_i32(-1);
    out.put_i32(0);
    samples::with_length(&out)
}

async fn who_am_i(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<String> {
    stream.write_all(&request()).await?;
    stream.flush().await?;
    let mut name = vec![0; stream.read_i32().await? as usize];
    stream.read_exact(&mut name).await?;
    Ok(String::from_utf8(name).unwrap())
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn plaintext_is_anonymous_and_stops_when_told() {
    let site = site(Security::Plaintext, 10, 10);
    let mut client = TcpStream::connect(site.addr).await.unwrap();
    assert_eq!(who_am_i(&mut client).await.unwrap(), "User:ANONYMOUS");
    site.stop.send(true).unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    timeout(Duration::from_secs(5), site.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(site.addr).await.is_err());
    assert_eq!(site.metrics.connections.load(Relaxed), 0);
}

#[tokio::test]
async fn connections_over_a_limit_are_closed_and_room_comes_back() {
    for (total, per_address) in [(2, 100), (100, 2)] {
        let site = site(Security::Plaintext, total, per_address);
        let mut first = TcpStream::connect(site.addr).await.unwrap();
        let mut second = TcpStream::connect(site.addr).await.unwrap();
        who_am_i(&mut first).await.unwrap();
        who_am_i(&mut second).await.unwrap();
        let mut third = TcpStream::connect(site.addr).await.unwrap();
        assert!(who_am_i(&mut third).await.is_err());
        assert_eq!(site.metrics.rejected.load(Relaxed), 1);
        who_am_i(&mut first).await.unwrap();
        drop(second);
        eventually(|| site.metrics.connections.load(Relaxed) == 1).await;
        // The place is given back just after the connection is counted out.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut fourth = TcpStream::connect(site.addr).await.unwrap();
        who_am_i(&mut fourth).await.unwrap();
    }
}

#[test]
fn addresses_are_counted_apart_and_ipv4_in_ipv6_is_ipv4() {
    let quotas = Arc::new(QuotaManager::new(Windows { client: Window::KAFKA, mutation: Window::KAFKA }));
    let limits = ConnectionLimits {
        connections_max: 10,
        per_address_max: 1,
        per_address_overrides: HashMap::from([([10, 0, 0, 3].into(), 2), ([10, 0, 0, 4].into(), 0)]),
        rate_max: None,
    };
    let admission = Admission::new(limits.clone(), quotas, Arc::new(SystemClock));
    let first = admission.admit([10, 0, 0, 1].into());
    assert!(first.is_some());
    assert!(admission.admit("::ffff:10.0.0.1".parse().unwrap()).is_none());
    assert!(admission.admit([10, 0, 0, 2].into()).is_some());
    drop(first);
    assert!(admission.admit([10, 0, 0, 1].into()).is_some());
    let two = [(); 2].map(|()| admission.admit([10, 0, 0, 3].into()));
    assert!(two.iter().all(Option::is_some), "an address of its own limit");
    assert!(admission.admit([10, 0, 0, 3].into()).is_none());
    assert!(admission.admit([10, 0, 0, 4].into()).is_none(), "an address that may not come at all");
    admission.set(ConnectionLimits { connections_max: 2, ..limits });
    assert!(admission.admit([10, 0, 0, 5].into()).is_none());
}

#[tokio::test]
async fn a_connection_over_the_rate_of_its_address_is_held_and_closed() {
    let limits = ConnectionLimits { connections_max: 100, per_address_max: 100, ..Default::default() };
    let site = site_with(Security::Plaintext, limits, Some(0.2));
    let mut first = TcpStream::connect(site.addr).await.unwrap();
    who_am_i(&mut first).await.unwrap();
    let mut second = TcpStream::connect(site.addr).await.unwrap();
    who_am_i(&mut second).await.unwrap();
    let began = Instant::now();
    let mut third = TcpStream::connect(site.addr).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap(), 0);
    assert!(began.elapsed() > Duration::from_millis(500), "closed at once it would come again at once");
    assert_eq!(site.metrics.connections_throttled.load(Relaxed), 1);
    who_am_i(&mut first).await.unwrap();
}

#[tokio::test]
async fn connections_over_the_rate_of_the_broker_wait() {
    let limits =
        ConnectionLimits { connections_max: 100, per_address_max: 100, rate_max: Some(1), ..Default::default() };
    let site = site_with(Security::Plaintext, limits, None);
    let mut clients = Vec::new();
    let began = Instant::now();
    for _ in 0..11 {
        let mut client = TcpStream::connect(site.addr).await.unwrap();
        who_am_i(&mut client).await.unwrap();
        clients.push(client);
    }
    assert!(began.elapsed() > Duration::from_millis(500));
    assert_eq!(site.metrics.connections_throttled.load(Relaxed), 1);
    assert_eq!(site.metrics.rejected.load(Relaxed), 0);
}

struct Tls {
    folder: tempfile::TempDir,
    clock: Arc<dyn Clock>,
}

impl Tls {
    fn new() -> Tls {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(SystemClock));
        let options = InitOptions {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
            hosts: Vec::new(),
            bootstrap: "localhost:9093".to_owned(),
            now_ms: clock.wall_ms(),
        };
        create(folder.path(), &options, &SystemEntropy).unwrap();
        Tls { folder, clock }
    }

    fn server(&self) -> Security {
        let path = |name| self.folder.path().join(name);
        let files =
            TlsFiles { cert_chain: path("tls/node.pem"), key: path("tls/node.key"), client_ca: path("tls/ca.pem") };
        let tls = ServerTls::load(files, PrincipalRules::default(), self.clock.clone()).unwrap();
        Security::Tls { tls: Arc::new(tls), clock: self.clock.clone() }
    }

    fn client(&self, with_certificate: bool) -> TlsConnector {
        let path = |name| self.folder.path().join(name);
        let identity = ClientIdentity { cert_chain: path("client/client.pem"), key: path("client/client.key") };
        let identity = with_certificate.then_some(&identity);
        TlsConnector::from(client_config(&path("client/ca.pem"), identity, self.clock.clone()).unwrap())
    }
}

async fn connect(connector: &TlsConnector, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, TcpStream::connect(addr).await?).await
}

#[tokio::test]
async fn mutual_tls_names_the_client_and_refuses_one_without_certificate() {
    let tls = Tls::new();
    let site = site(tls.server(), 10, 10);
    let mut client = connect(&tls.client(true), site.addr).await.unwrap();
    let name = who_am_i(&mut client).await.unwrap();
    assert!(name.starts_with("User:CN="), "{name}");

    // In TLS 1.3 the client learns of it with its first read.
    let refused = match connect(&tls.client(false), site.addr).await {
        Ok(mut client) => who_am_i(&mut client).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let mut plain = TcpStream::connect(site.addr).await.unwrap();
    assert!(who_am_i(&mut plain).await.is_err());
    eventually(|| site.metrics.handshakes_failed.load(Relaxed) == 2).await;
    assert_eq!(who_am_i(&mut client).await.unwrap(), name);
}

#[tokio::test]
async fn a_handshake_that_hangs_holds_up_nobody_and_is_cut() {
    let tls = Tls::new();
    let site = site(tls.server(), 10, 10);
    let mut silent = TcpStream::connect(site.addr).await.unwrap();
    let mut client = connect(&tls.client(true), site.addr).await.unwrap();
    who_am_i(&mut client).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(10), silent.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    assert_eq!(site.metrics.handshakes_failed.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn accepting_pauses_only_where_trying_again_is_useless() {
    let began = Instant::now();
    pause_after("TEST", &io::Error::from(io::ErrorKind::ConnectionAborted)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let too_many_open_files = 24;
    pause_after("TEST", &io::Error::from_raw_os_error(too_many_open_files)).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
}
