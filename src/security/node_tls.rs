//! TLS between nodes: both sides of it, from one certificate and one authority.
//!
//! Invariants: those of [`super::ServerTls`], on either side. Both sides change together at a reload, and a reload that
//! fails leaves what was in use. Whether a certificate belongs to a node of the cluster is for the caller to decide, by
//! its subject.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::der::{Certificate, Malformed};
use super::dn;
use super::tls::{TlsError, TlsFiles, client_side, load_own, load_roots, server_config};
use crate::env::Clock;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A connection between two nodes.
pub type NodeStream = TlsStream<TcpStream>;

/// What the other node's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The subject as RFC 2253 text, by which the metadata know the node.
    pub subject: String,
    /// Unix milliseconds from which on the certificate has expired and the connection must be closed.
    pub not_after_ms: i64,
}

/// Why a node that dialled was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NodeAcceptError {
    #[error("the handshake was not finished within {0:?}")]
    Timeout(Duration),
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("the peer's certificate has a subject that cannot be read: {0}")]
    Subject(#[from] Malformed),
}

/// Why no connection to a node came about.
#[derive(Debug, thiserror::Error)]
pub enum NodeConnectError {
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Host(String),
    #[error(transparent)]
    Handshake(#[from] NodeAcceptError),
}

struct Loaded {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    subject: String,
    not_after_ms: i64,
}

/// Both sides of TLS between nodes.
pub struct NodeTls {
    files: TlsFiles,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Loaded>>,
}

impl NodeTls {
    /// Reads and checks the files; `client_ca` is the authority of the nodes. Blocks on file I/O.
    pub fn load(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let loaded = load(&files, &clock)?;
        Ok(NodeTls { files, clock, current: RwLock::new(Arc::new(loaded)) })
    }

    /// Reads the files again and uses them for the handshakes that begin from now on, in both directions; connections
    /// that stand are not touched. On an error what was in use stays in use. Blocks on file I/O.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Arc::new(load(&self.files, &self.clock)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Whole days until the first certificate of the node's chain expires; negative when it has.
    pub fn days_to_expiry(&self) -> i64 {
        self.current().not_after_ms.saturating_sub(self.clock.wall_ms()).div_euclid(DAY_MS)
    }

    /// The subject of the node's own certificate, as its peers see it.
    pub fn subject(&self) -> String {
        self.current().subject.clone()
    }

    /// The handshake with a node that has dialled.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        within: Duration,
    ) -> Result<(NodeStream, NodeCertificate), NodeAcceptError> {
        let handshake = timeout(within, self.current().acceptor.accept(tcp)).await;
        let stream = handshake.map_err(|_| NodeAcceptError::Timeout(within))?.map_err(NodeAcceptError::Handshake)?;
        let certificate = identify(stream.get_ref().1.peer_certificates())?;
        Ok((TlsStream::from(stream), certificate))
    }

    /// The handshake with a node that was dialled; `host` is the name or address by which it was, and which its
    /// certificate must have.
    pub async fn connect(
        &self,
        host: &str,
        tcp: TcpStream,
        within: Duration,
    ) -> Result<(NodeStream, NodeCertificate), NodeConnectError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| NodeConnectError::Host(host.to_owned()))?;
        let handshake = timeout(within, self.current().connector.connect(name, tcp)).await;
        let stream = handshake.map_err(|_| NodeAcceptError::Timeout(within))?.map_err(NodeAcceptError::Handshake)?;
        let certificate = identify(stream.get_ref().1.peer_certificates()).map_err(NodeAcceptError::Subject)?;
        Ok((TlsStream::from(stream), certificate))
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load(files: &TlsFiles, clock: &Arc<dyn Clock>) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (certified, not_after_ms) = load_own(&files.cert_chain, &files.key, &provider, clock.wall_ms())?;
    let own = identify(Some(&certified.cert[..]))
        .map_err(|e| TlsError::Certificate { path: files.cert_chain.clone(), reason: e.to_string() })?;
    let roots = load_roots(&files.client_ca)?;
    let certified = Arc::new(SingleCertAndKey::from(certified));
    let server = server_config(certified.clone(), roots.clone(), provider.clone(), clock.clone())?;
    let client = client_side(Some(certified), roots, provider, clock.clone())?;
    Ok(Loaded {
        acceptor: TlsAcceptor::from(Arc::new(server)),
        connector: TlsConnector::from(Arc::new(client)),
        subject: own.subject,
        not_after_ms,
    })
}

fn identify(chain: Option<&[CertificateDer<'_>]>) -> Result<NodeCertificate, Malformed> {
    let certificate = chain.and_then(<[_]>::first).ok_or(Malformed("there is none"))?;
    let parsed = Certificate::parse(certificate)?;
    // The last second of the validity belongs to it.
    Ok(NodeCertificate {
        subject: dn::rfc2253(parsed.subject)?,
        not_after_ms: parsed.not_after_ms.saturating_add(1000),
    })
}
