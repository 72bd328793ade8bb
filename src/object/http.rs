//! HTTP/1.1 for the S3 back end: names by [`Names`], TLS by a connector that is handed in.
//!
//! object_store brings no transport that can show a client certificate. Plain HTTP is used only towards a loopback
//! address and only where the options allow it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::Names;

/// Time to look up a name, connect and finish the TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for one address, if there are others to try.
const CONNECT_ONE: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 32;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialer {
    names: Arc<Names>,
    /// None: plain HTTP, to loopback.
    tls: Option<TlsConnector>,
}

impl Dialer {
    pub fn new(tls: Option<TlsConnector>) -> Self {
        Dialer { names: Arc::default(), tls }
    }

    async fn dial(self, uri: Uri) -> io::Result<Stream> {
        let host = uri.host().ok_or_else(|| io::Error::other("the endpoint has no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let connected = tokio::time::timeout(CONNECT, async {
            let tcp = self.tcp(&host, port).await?;
            let Some(tls) = &self.tls else { return Ok(Stream::Plain(TokioIo::new(tcp))) };
            let bare = host.trim_matches(['[', ']']).to_owned();
            let name = bare.try_into().map_err(|_| io::Error::other("the endpoint's host is no server name"))?;
            let stream = tls.connect(name, tcp).await.map_err(|error| io::Error::other(format!("TLS: {error}")))?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        });
        connected.await.unwrap_or_else(|_| Err(io::Error::other(format!("no connection to {host} within {CONNECT:?}"))))
    }

    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.names.resolve(host).await.map_err(io::Error::other)?;
        let mut last = None;
        for address in addresses {
            let address = SocketAddr::new(address, port);
            if self.tls.is_none() && !address.ip().is_loopback() {
                return Err(io::Error::other(format!("{address} is not loopback, and http is for loopback only")));
            }
            match tokio::time::timeout(CONNECT_ONE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(io::Error::other(format!("{address}: {error}"))),
                Err(_) => last = Some(io::Error::other(format!("{address}: no answer within {CONNECT_ONE:?}"))),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other(format!("{host} has no address"))))
    }
}

impl tower_service::Service<Uri> for Dialer {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }
}

/// The transport that object_store is given.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<Dialer, HttpRequestBody>,
}

impl Transport {
    pub fn new(dialer: Dialer) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(dialer);
        Transport { client }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.client.request(request).await.map_err(sent)?;
        let (parts, body) = answer.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Whether the request can have reached the service decides its kind.
fn sent(error: ClientError) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
