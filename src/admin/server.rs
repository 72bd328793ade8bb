//! HTTP/1 on a listening socket, within limits: connections, bytes of a request's head, and time.
//!
//! A slow or silent client costs one of a few connections for a bounded time and nothing else: handshakes run in the
//! connection's own task, never on the way to the next accept. What is over the limit is closed at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::pages::router;
use super::{Collect, Health};
use crate::security::ServerTls;

const CONNECTIONS_MAX: usize = 64;
/// Of the line and headers of one request; also the size of the read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first moment of waiting for a request to the end of its headers. Longer than usual scrape intervals.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Of a whole connection, so that a peer that never reads its answer does not keep its place.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long answers under way may take once the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after an accept that failed for want of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Times that a connection may take.
#[derive(Clone, Copy)]
struct Times {
    handshake: Duration,
    head: Duration,
    connection: Duration,
}

/// Serves the pages until `stop` becomes true or its sender is gone. Without `tls` it is plain HTTP, which only
/// `casemate dev` does, on loopback.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    health: Health,
    collectors: Vec<Box<dyn Collect>>,
    stop: watch::Receiver<bool>,
) {
    let times = Times { handshake: HANDSHAKE_TIMEOUT, head: HEAD_TIMEOUT, connection: CONNECTION_TIME_MAX };
    serve_with(listener, tls, times, router(health, collectors), stop).await;
}

async fn serve_with(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    times: Times,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        // Over the limit the connection is dropped here, which closes it.
        if let Ok(place) = places.clone().try_acquire_owned() {
            let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                let whole = connection(stream, peer, tls, times, router, stop);
                let _ = tokio::time::timeout(times.connection, whole).await;
                drop(place);
            });
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // Whatever is left is aborted when the set is dropped.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Returns when the process is to stop. (Whatever the wait returns is dropped here: it holds a lock.)
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A client that went away before it was accepted is no reason to wait; running out of descriptors is.
async fn pause(error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !gone.contains(&error.kind()) {
        tracing::warn!(%error, "the admin listener cannot accept connections");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    times: Times,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(stream, times, router, stop).await,
        Some(tls) => match tls.accept(stream, times.handshake).await {
            Ok((stream, _)) => http(stream, times, router, stop).await,
            Err(error) => tracing::debug!(%peer, %error, "a client of the admin listener was not admitted"),
        },
    }
}

async fn http<S>(stream: S, times: Times, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection of the admin listener failed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::MetricsWriter;

    const QUICK: Times = Times {
        handshake: Duration::from_millis(200),
        head: Duration::from_millis(200),
        connection: Duration::from_secs(20),
    };

    struct Server {
        address: SocketAddr,
        health: Health,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Server {
        async fn start(times: Times) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let health = Health::new();
            let counter = |out: &mut MetricsWriter| out.counter("casemate_test_total", "Test.", 42);
            let collectors: Vec<Box<dyn Collect>> = vec![Box::new(counter)];
            let pages = router(health.clone(), collectors);
            let (stop, stopped) = watch::channel(false);
            let task = tokio::spawn(serve_with(listener, None, times, pages, stopped));
            Server { address, health, stop, task }
        }

        /// Sends `text` and reads until the server closes.
        async fn send(&self, text: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        }

        async fn get(&self, path: &str, headers: &str) -> String {
            self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")).await
        }
    }

    #[tokio::test]
    async fn health_and_metrics_are_answered() {
        let server = Server::start(QUICK).await;
        let starting = server.get("/ready", "").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("not ready\nstarting: "), "{starting}");
        server.health.ready();
        assert!(server.get("/ready", "").await.ends_with("\r\n\r\nready\n"));
        assert!(server.get("/live?format=json", "").await.ends_with("{\"live\":true,\"reasons\":[]}\n"));
        server.health.fenced("sync failed");
        let fenced = server.get("/live", "accept: application/json\r\n").await;
        assert!(
            fenced.starts_with("HTTP/1.1 503") && fenced.contains("\"storage is fenced: sync failed\""),
            "{fenced}"
        );
        let metrics = server.get("/metrics", "").await;
        assert!(metrics.contains("version=0.0.4") && metrics.contains("\ncasemate_test_total 42\n"), "{metrics}");
        assert!(server.get("/nothing", "").await.starts_with("HTTP/1.1 404"));
        assert!(server.send("POST /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.contains(" 405 "));
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_or_no_http_ends_its_connection_only() {
        let server = Server::start(QUICK).await;
        let large = server.get("/live", &format!("x: {}\r\n", "y".repeat(2 * HEAD_BYTES_MAX))).await;
        assert!(!large.contains(" 200 "), "{large}");
        let many = server.get("/live", &"x: y\r\n".repeat(HEADERS_MAX + 1)).await;
        assert!(!many.contains(" 200 "), "{many}");
        server.send("\x16\x03\x01\x02 no http at all\r\n\r\n").await;
        assert!(server.get("/live", "").await.contains(" 200 "));
    }

    #[tokio::test]
    async fn silent_clients_are_closed_and_do_not_keep_others_out() {
        let server = Server::start(QUICK).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(server.address).await.unwrap());
        }
        // Over the limit a client is closed; when the silent ones have had their time there is room again.
        let mut answer = String::new();
        for _ in 0..50 {
            answer = server.get("/live", "").await;
            if answer.contains(" 200 ") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(answer.contains(" 200 "), "{answer}");
        let mut byte = [0];
        assert!(matches!(silent[0].read(&mut byte).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn stopping_closes_idle_connections_at_once() {
        let times = Times { head: Duration::from_secs(60), ..QUICK };
        let server = Server::start(times).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        server.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
