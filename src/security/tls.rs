//! Mutual TLS 1.3: the server's side of every listener, and the client's side towards object storage.
//!
//! Invariants: TLS 1.3 only; a client must show a certificate of the configured authority that webpki accepts for
//! client authentication; sessions are never resumed, because resumption would skip the checks of the chain; no early
//! data, no ALPN; the roots of the host are never trusted. A reload that fails leaves the certificate in use as it was.

use std::fmt;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::der::{Certificate, Malformed};
use super::files::{self, FileError};
use super::{Principal, PrincipalRules, dn};
use crate::env::Clock;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub type TlsStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// PEM files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then the certificates between it and the authority.
    pub cert_chain: PathBuf,
    /// The private key of the certificate, not encrypted.
    pub key: PathBuf,
    /// The authorities whose clients are admitted.
    pub client_ca: PathBuf,
}

/// Certificates and keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds no certificate in PEM form: put a BEGIN CERTIFICATE block there", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("{path} cannot be used ({reason}): put a valid PEM certificate there", path = path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("a certificate in {path} expired on {on}: put a renewed one there", path = path.display())]
    Expired { path: PathBuf, on: String },
    #[error(
        "a certificate in {path} is not valid before {from}: correct this machine's clock or put another one there",
        path = path.display()
    )]
    NotYetValid { path: PathBuf, from: String },
    #[error(
        "{path} holds no usable private key ({reason}): put an unencrypted PKCS#8 key in PEM form there",
        path = path.display()
    )]
    Key { path: PathBuf, reason: String },
    #[error(
        "the private key {key} is not that of the certificate {certificate}: put both from the same request there",
        key = key.display(), certificate = certificate.display()
    )]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("TLS cannot be set up ({0}): report this")]
    Setup(String),
}

/// Why a connection was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the handshake was not finished within {0:?}")]
    Timeout(Duration),
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("the client's certificate has a subject that cannot be read: {0}")]
    Subject(#[from] Malformed),
    #[error("no rule of ssl.principal.mapping.rules matches the client's name {0}")]
    NoRule(String),
}

/// Who is at the other end, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub principal: Principal,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
    /// Unix milliseconds from which on the certificate has expired and the connection must be closed.
    pub not_after_ms: i64,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
}

/// The server's side of a listener.
pub struct ServerTls {
    files: TlsFiles,
    rules: PrincipalRules,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Loaded>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    not_after_ms: i64,
}

impl ServerTls {
    /// Reads and checks the files. Blocks on file I/O.
    pub fn load(files: TlsFiles, rules: PrincipalRules, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let loaded = load_server(&files, &clock)?;
        Ok(ServerTls { files, rules, clock, current: RwLock::new(Arc::new(loaded)) })
    }

    /// Reads the files again and uses them for the handshakes that begin from now on; connections that stand are not
    /// touched. On an error what was in use stays in use. Blocks on file I/O.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Arc::new(load_server(&self.files, &self.clock)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Whole days until the first certificate of the server's chain expires; negative when it has.
    pub fn days_to_expiry(&self) -> i64 {
        self.current().not_after_ms.saturating_sub(self.clock.wall_ms()).div_euclid(DAY_MS)
    }

    /// Performs the handshake and names the peer. The stream belongs to a client with a valid certificate of the
    /// configured authority at that moment; it is the caller's part to close it at `not_after_ms`.
    pub async fn accept<IO>(
        &self,
        io: IO,
        handshake_timeout: Duration,
    ) -> Result<(TlsStream<IO>, PeerIdentity), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.current().config.clone());
        let handshake = tokio::time::timeout(handshake_timeout, acceptor.accept(io));
        let stream = handshake.await.map_err(|_| AcceptError::Timeout(handshake_timeout))?;
        let stream = stream.map_err(AcceptError::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first).ok_or(Malformed("there is none"))?;
        let identity = self.identify(certificate)?;
        Ok((stream, identity))
    }

    fn identify(&self, certificate: &CertificateDer<'_>) -> Result<PeerIdentity, AcceptError> {
        let parsed = Certificate::parse(certificate)?;
        let name = dn::rfc2253(parsed.subject)?;
        let principal = self.rules.apply(&name).ok_or(AcceptError::NoRule(name))?;
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, certificate);
        Ok(PeerIdentity {
            principal: Principal::user(principal),
            serial: hex(parsed.serial),
            not_after_ms: parsed.not_after_ms.saturating_add(1000),
            fingerprint: hex(digest.as_ref()),
        })
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load_server(files: &TlsFiles, clock: &Arc<dyn Clock>) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (certified, not_after_ms) = load_own(&files.cert_chain, &files.key, &provider, clock.wall_ms())?;
    let roots = load_roots(&files.client_ca)?;
    let config = server_config(Arc::new(SingleCertAndKey::from(certified)), roots, provider, clock.clone())?;
    Ok(Loaded { config: Arc::new(config), not_after_ms })
}

/// The server's side of mutual TLS: clients of these authorities only.
pub(super) fn server_config(
    own: Arc<SingleCertAndKey>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(setup)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(RustlsTime(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// PEM files with which a client proves who it is.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The client's certificate, then the certificates between it and the authority.
    pub cert_chain: PathBuf,
    /// The private key of the certificate, not encrypted.
    pub key: PathBuf,
}

/// The client's side towards a service whose certificate is of one of the authorities in `ca`, a PEM file. With an
/// identity it shows a client certificate when asked for one. Blocks on file I/O.
pub fn client_config(
    ca: &Path,
    identity: Option<&ClientIdentity>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = load_roots(ca)?;
    let own = identity.map(|own| load_own(&own.cert_chain, &own.key, &provider, clock.wall_ms())).transpose()?;
    let own = own.map(|(certified, _)| Arc::new(SingleCertAndKey::from(certified)));
    client_side(own, roots, provider, clock).map(Arc::new)
}

/// The client's side: services of these authorities only.
pub(super) fn client_side(
    own: Option<Arc<SingleCertAndKey>>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_details(provider, Arc::new(RustlsTime(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whether a node could serve with these files now. Blocks on file I/O.
pub(super) fn check_node_files(files: &TlsFiles, clock: &dyn Clock) -> Result<(), TlsError> {
    let provider = aws_lc_rs::default_provider();
    load_own(&files.cert_chain, &files.key, &provider, clock.wall_ms())?;
    load_roots(&files.client_ca).map(drop)
}

/// A certificate chain with its key, checked; and the Unix milliseconds until which all of the chain is valid.
pub(super) fn load_own(
    chain: &Path,
    key: &Path,
    provider: &CryptoProvider,
    now_ms: i64,
) -> Result<(CertifiedKey, i64), TlsError> {
    let certificates = load_certificates(chain)?;
    let mut not_after_ms = i64::MAX;
    for certificate in &certificates {
        let parsed = Certificate::parse(certificate)
            .map_err(|e| TlsError::Certificate { path: chain.to_owned(), reason: e.to_string() })?;
        if now_ms < parsed.not_before_ms {
            return Err(TlsError::NotYetValid { path: chain.to_owned(), from: date(parsed.not_before_ms) });
        }
        if now_ms >= parsed.not_after_ms.saturating_add(1000) {
            return Err(TlsError::Expired { path: chain.to_owned(), on: date(parsed.not_after_ms) });
        }
        not_after_ms = not_after_ms.min(parsed.not_after_ms);
    }
    let unusable = |reason: String| TlsError::Key { path: key.to_owned(), reason };
    let der = PrivateKeyDer::from_pem_slice(&files::read_private(key)?).map_err(|e| unusable(e.to_string()))?;
    let signer = provider.key_provider.load_private_key(der).map_err(|e| unusable(e.to_string()))?;
    let certified = CertifiedKey::new(certificates, signer);
    match certified.keys_match() {
        Ok(()) => Ok((certified, not_after_ms)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { key: key.to_owned(), certificate: chain.to_owned() })
        }
        Err(e) => Err(TlsError::Certificate { path: chain.to_owned(), reason: e.to_string() }),
    }
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&files::read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Certificate { path: path.to_owned(), reason: e.to_string() })?;
    if certificates.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(certificates) }
}

pub(super) fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(|e| TlsError::Certificate { path: path.to_owned(), reason: e.to_string() })?;
    }
    Ok(roots)
}

fn setup(error: impl fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

pub(super) fn date(unix_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .map_or_else(|_| "?".to_owned(), |t| t.date().to_string())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The process's clock as rustls wants it, so that a test can move it.
pub(super) struct RustlsTime(pub(super) Arc<dyn Clock>);

impl fmt::Debug for RustlsTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustlsTime")
    }
}

impl TimeProvider for RustlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}
