//! A connection for commands that have many of them: one request at a time on each, all of them on one thread.
//!
//! As with the blocking client there are no retries and no caches. What a broker answers while a coordinator is being
//! loaded is named here, for every caller waits for that in the same way.

use crate::client::{self, Client, text};
use crate::options::Options;
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer of a broker takes longer, not even the one to a join that waits for others.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause before a request is repeated that found the coordinator not there yet.
pub const AGAIN: Duration = Duration::from_millis(50);

/// The coordinator is loading, not available, or elsewhere.
pub fn is_passing(code: i16) -> bool {
    [14, 15, 16].contains(&code)
}

pub fn unexpected(what: &str, code: i16) -> io::Error {
    io::Error::other(format!("{what}: error {code}"))
}

/// Runs on this thread alone, tasks that it spawns included.
pub fn on_this_thread<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// What a connection runs over: TCP, or TLS over TCP.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub struct Connection {
    socket: Box<dyn Stream>,
    correlation_id: i32,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Connection::over(Box::new(socket)))
    }

    pub fn over(socket: Box<dyn Stream>) -> Connection {
        Connection { socket, correlation_id: 0, answer: vec![] }
    }

    /// Opens `count` connections, one after the other: nobody's backlog overflows.
    pub async fn open_many(address: SocketAddr, count: usize) -> io::Result<Vec<Connection>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(Connection::open(address).await?);
        }
        Ok(all)
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.correlation_id += 1;
        let frame = client::try_frame(version, request, self.correlation_id).map_err(io::Error::other)?;
        let exchange = async {
            self.socket.write_all(&frame).await?;
            self.socket.flush().await?;
            let mut length = [0; 4];
            self.socket.read_exact(&mut length).await?;
            self.answer.resize(u32::from_be_bytes(length) as usize, 0);
            self.socket.read_exact(&mut self.answer).await
        };
        let late = |_| io::Error::other(format!("no answer to API {} in {PATIENCE:?}", R::KEY));
        tokio::time::timeout(PATIENCE, exchange).await.map_err(late)??;
        let bad = |e: &dyn std::fmt::Display| io::Error::other(format!("answer to API {} v{version}: {e}", R::KEY));
        let mut bytes = Bytes::from(std::mem::take(&mut self.answer));
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).map_err(|e| bad(&e))?;
        if header.correlation_id != self.correlation_id {
            return Err(bad(&"of another request"));
        }
        let response = R::Response::decode(&mut bytes, version).map_err(|e| bad(&e))?;
        if bytes.is_empty() { Ok(response) } else { Err(bad(&format!("{} bytes left over", bytes.len()))) }
    }
}

/// Waits until somebody answers as the coordinator of a group (kind 0) or a transactional id (kind 1).
pub fn find_coordinator(options: &Options, kind: i8, key: &str) -> io::Result<()> {
    let mut client = Client::connect(options.bootstrap())?;
    let request = FindCoordinatorRequest::default().with_key_type(kind).with_key(text(key));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let code = client.call(3, &request)?.error_code;
        match code {
            0 => return Ok(()),
            code if is_passing(code) && Instant::now() < deadline => std::thread::sleep(AGAIN),
            code => return Err(unexpected("FindCoordinator", code)),
        }
    }
}
