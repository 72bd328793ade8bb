//! TCP sockets: how they are opened, tuned, and asked whether the other end is still there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Connections that the kernel completes while the accept loop is busy.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// TCP probes a silent peer after so long, so that a vanished machine does not hold its connection until it is idle.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens a listening socket. Port 0 lets the system choose. The address may be bound again at once after a restart.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Messages are written whole, so Nagle's algorithm would only delay them. A socket that refuses still works.
pub fn tune(stream: &TcpStream) {
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options not set");
    }
}

/// Whether the peer has closed its side, or the connection is broken: seen without reading the bytes that may still lie
/// before the end. It does not wait, and a peer that vanished without a word is not seen.
pub fn has_hung_up(stream: &TcpStream) -> bool {
    matches!(stream.ready(Interest::READABLE).now_or_never(), Some(Ok(ready)) if ready.is_read_closed())
}

/// Waits where trying to accept again at once would only fail again.
pub async fn pause_after(listener: &str, error: &io::Error) {
    // A peer that gave up while it waited in the backlog says nothing about the next one.
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if gone.contains(&error.kind()) {
        return;
    }
    tracing::warn!(%listener, %error, "no connection can be accepted for the moment");
    sleep(EXHAUSTED_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_behind_bytes_that_nobody_has_read() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        assert!(!has_hung_up(&near));
        far.write_all(b"unread").await.unwrap();
        near.readable().await.unwrap();
        assert!(!has_hung_up(&near));
        drop(far);
        while !has_hung_up(&near) {
            tokio::task::yield_now().await;
        }
    }
}
