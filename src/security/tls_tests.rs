//! Handshakes of every kind of client with [`ServerTls`], and files that it must refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;
use crate::base::{ClusterId, NodeId};
use crate::env::{Clock, Entropy};

const NOW_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
const TIMEOUT: Duration = Duration::from_secs(20);

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn boottime(&self) -> Duration {
        Duration::ZERO
    }
}

struct Counted(AtomicI64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::SeqCst) as u8);
    }
}

/// A folder as `casemate init` makes it, and a second authority's means.
struct Site {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Site {
    fn new() -> Self {
        let site = Site { folder: tempfile::tempdir().unwrap(), clock: Arc::new(TestClock(AtomicI64::new(NOW_MS))) };
        site.init("site");
        site
    }

    fn init(&self, name: &str) {
        let options = InitOptions {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
            hosts: Vec::new(),
            bootstrap: "localhost:9093".to_owned(),
            now_ms: self.clock.wall_ms(),
        };
        create(&self.path(name), &options, &Counted(AtomicI64::new(1))).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert_chain: self.path("site/tls/node.pem"),
            key: self.path("site/tls/node.key"),
            client_ca: self.path("site/tls/ca.pem"),
        }
    }

    fn load(&self) -> Result<ServerTls, TlsError> {
        ServerTls::load(self.files(), PrincipalRules::default(), self.clock.clone())
    }

    /// A certificate with its key, both PEM, of the authority in this folder; valid between these days from now.
    fn leaf(&self, authority: &str, days: (i64, i64), usages: &[Usage]) -> (String, String) {
        let ca_key = fs::read_to_string(self.path(authority).join("tls/ca.key")).unwrap();
        let mut ca = CertificateParams::default();
        ca.distinguished_name = Default::default();
        ca.distinguished_name.push(DnType::OrganizationName, "casemate");
        ca.distinguished_name.push(DnType::CommonName, format!("Casemate CA {}", ClusterId([1; 16])));
        let issuer = Issuer::new(ca, KeyPair::from_pem(&ca_key).unwrap());
        let key = KeyPair::generate().unwrap();
        let params = params("tester", days, usages);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client that trusts the site and shows this certificate.
    fn client(&self, identity: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("site/tls/ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_details(provider, Arc::new(super::tls::RustlsTime(self.clock.clone())));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_root_certificates(roots);
        Arc::new(match identity {
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }

    fn admin(&self) -> Arc<ClientConfig> {
        let read = |name| fs::read_to_string(self.path("site/client").join(name)).unwrap();
        self.client(Some((read("client.pem"), read("client.key"))))
    }
}

fn params(name: &str, days: (i64, i64), usages: &[Usage]) -> CertificateParams {
    let at = |days: i64| OffsetDateTime::from_unix_timestamp((NOW_MS + days * DAY_MS) / 1000).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(days.0);
    params.not_after = at(days.1);
    params.extended_key_usages = usages.to_vec();
    params
}

struct Outcome {
    accepted: Result<PeerIdentity, AcceptError>,
    kind: Option<HandshakeKind>,
    /// What the client heard: a byte of the server's, or how the connection ended.
    heard: std::io::Result<u8>,
}

async fn connect(server: &ServerTls, client: Arc<ClientConfig>) -> Outcome {
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let (mut stream, identity) = server.accept(far, TIMEOUT).await?;
        let kind = stream.get_ref().1.handshake_kind();
        let _ = stream.write_all(b"k").await;
        let _ = stream.shutdown().await;
        Ok((identity, kind))
    };
    let call = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.read_u8().await
    };
    let (accepted, heard) = tokio::join!(serve, call);
    let kind = accepted.as_ref().ok().and_then(|(_, kind)| *kind);
    Outcome { accepted: accepted.map(|(identity, _)| identity), kind, heard }
}

async fn refused(server: &ServerTls, client: Arc<ClientConfig>, why: &str) {
    let outcome = connect(server, client).await;
    let error = outcome.accepted.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert!(outcome.heard.is_err());
}

#[tokio::test]
async fn a_client_of_the_authority_is_named() {
    let site = Site::new();
    let server = site.load().unwrap();
    let outcome = connect(&server, site.admin()).await;
    let identity = outcome.accepted.unwrap();
    assert_eq!(outcome.heard.unwrap(), b'k');
    assert_eq!(identity.principal, Principal::user("CN=admin,O=casemate"));
    assert_eq!(identity.not_after_ms, NOW_MS + 365 * DAY_MS + 1000);
    assert_eq!((identity.serial.as_str(), identity.fingerprint.len()), ("43030303030303030303030303030303", 64));
    assert_eq!(server.days_to_expiry(), 365);
}

#[tokio::test]
async fn a_client_that_is_not_of_the_authority_is_refused() {
    let site = Site::new();
    let server = site.load().unwrap();
    // The other authority has the same name.
    site.init("other");
    let good = (-1, 30);
    refused(&server, site.client(None), "no certificates").await;
    refused(&server, site.client(Some(site.leaf("other", good, &[Usage::ClientAuth]))), "BadSignature").await;
    let mut unknown = params("tester", good, &[Usage::ClientAuth]);
    let key = KeyPair::generate().unwrap();
    let alone = (unknown.self_signed(&key).unwrap().pem(), key.serialize_pem());
    refused(&server, site.client(Some(alone)), "invalid peer certificate").await;
    unknown.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own_ca = unknown.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(unknown, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = params("tester", good, &[Usage::ClientAuth]).signed_by(&leaf_key, &issuer).unwrap().pem();
    refused(&server, site.client(Some((leaf + &own_ca, leaf_key.serialize_pem()))), "UnknownIssuer").await;
}

#[tokio::test]
async fn a_client_certificate_must_be_in_time_and_for_clients() {
    let site = Site::new();
    let server = site.load().unwrap();
    let client = |days, usage| site.client(Some(site.leaf("site", days, &[usage])));
    assert!(connect(&server, client((-1, 30), Usage::ClientAuth)).await.accepted.is_ok());
    refused(&server, client((-30, -1), Usage::ClientAuth), "expired").await;
    refused(&server, client((1, 30), Usage::ClientAuth), "not valid yet").await;
    refused(&server, client((-1, 30), Usage::ServerAuth), "extended key usage").await;
    // The clock decides at each handshake, not when the files were read.
    let short = client((-1, 5), Usage::ClientAuth);
    assert!(connect(&server, short.clone()).await.accepted.is_ok());
    site.clock.0.store(NOW_MS + 5 * DAY_MS + 1000, Ordering::SeqCst);
    refused(&server, short, "expired").await;
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_refused() {
    let site = Site::new();
    let server = site.load().unwrap();
    let (chain, _) = site.leaf("site", (-1, 30), &[Usage::ClientAuth]);
    let thief = KeyPair::generate().unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signer =
        provider.key_provider.load_private_key(PrivateKeyDer::try_from(thief.serialize_der()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let mut client = Arc::unwrap_or_clone(site.client(None));
    client.client_auth_cert_resolver =
        Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, signer)));
    refused(&server, Arc::new(client), "BadSignature").await;
}

#[tokio::test]
async fn no_rule_no_connection() {
    let site = Site::new();
    let rules = PrincipalRules::parse("RULE:^CN=(.*),O=casemate$/$1/U").unwrap();
    let server = ServerTls::load(site.files(), rules, site.clock.clone()).unwrap();
    assert_eq!(connect(&server, site.admin()).await.accepted.unwrap().principal, Principal::user("ADMIN"));
    let tester = site.client(Some(site.leaf("site", (-1, 30), &[Usage::ClientAuth])));
    refused(&server, tester, "no rule of ssl.principal.mapping.rules matches the client's name CN=tester").await;
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let site = Site::new();
    let server = site.load().unwrap();
    let client = site.admin();
    for _ in 0..3 {
        let outcome = connect(&server, client.clone()).await;
        outcome.accepted.unwrap();
        assert_eq!(outcome.kind, Some(HandshakeKind::Full));
    }
}

/// A ClientHello of TLS 1.2 with two of its suites.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

async fn send(server: &ServerTls, bytes: &[u8]) -> (AcceptError, Vec<u8>) {
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(bytes).await.unwrap();
    let error = server.accept::<DuplexStream>(far, TIMEOUT).await.map(drop).unwrap_err();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    (error, answer)
}

#[tokio::test]
async fn what_is_not_tls_1_3_is_refused() {
    let site = Site::new();
    let server = site.load().unwrap();
    let (error, answer) = send(&server, &hello_of_tls_1_2()).await;
    assert!(error.to_string().contains("peer is incompatible"), "{error}");
    // A fatal alert, protocol_version.
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
    // An ApiVersions request in plaintext.
    let (error, _) = send(&server, &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).await;
    assert!(matches!(error, AcceptError::Handshake(_)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up() {
    let site = Site::new();
    let server = site.load().unwrap();
    let (mut near, far) = duplex(1024);
    near.write_all(&hello_of_tls_1_2()[..20]).await.unwrap();
    let error = server.accept(far, Duration::from_secs(10)).await.map(drop).unwrap_err();
    assert!(matches!(error, AcceptError::Timeout(_)));
}

#[tokio::test]
async fn a_reload_takes_the_new_files_or_keeps_the_old_ones() {
    let site = Site::new();
    let server = site.load().unwrap();
    let (chain, key) = site.leaf("site", (-1, 700), &[Usage::ServerAuth]);
    fs::write(site.files().cert_chain, chain).unwrap();
    assert!(matches!(server.reload(), Err(TlsError::KeyMismatch { .. })));
    assert_eq!(server.days_to_expiry(), 365);
    assert!(connect(&server, site.admin()).await.accepted.is_ok());
    fs::write(site.files().key, key).unwrap();
    server.reload().unwrap();
    assert_eq!(server.days_to_expiry(), 700);
}

#[tokio::test]
async fn the_client_side_shows_its_certificate_and_trusts_only_its_authority() {
    let site = Site::new();
    let server = site.load().unwrap();
    let identity =
        ClientIdentity { cert_chain: site.path("site/client/client.pem"), key: site.path("site/client/client.key") };
    let config = |ca: &str, own| client_config(&site.path(ca), own, site.clock.clone()).unwrap();
    let outcome = connect(&server, config("site/client/ca.pem", Some(&identity))).await;
    assert_eq!(outcome.accepted.unwrap().principal.name(), "CN=admin,O=casemate");
    refused(&server, config("site/client/ca.pem", None), "no certificates").await;
    site.init("other");
    let outcome = connect(&server, config("other/client/ca.pem", Some(&identity))).await;
    assert!(outcome.heard.unwrap_err().to_string().contains("invalid peer certificate"));
}

#[test]
fn unusable_files_are_refused_with_their_name_and_a_remedy() {
    let site = Site::new();
    let TlsFiles { cert_chain, key, client_ca } = site.files();
    let original = |path: &Path| fs::read(path).unwrap();
    let (good_chain, good_key, good_ca) = (original(&cert_chain), original(&key), original(&client_ca));
    let (other_chain, other_key) = site.leaf("site", (-1, 30), &[Usage::ServerAuth]);
    let (expired, _) = site.leaf("site", (-30, -2), &[Usage::ServerAuth]);
    let (early, _) = site.leaf("site", (2, 30), &[Usage::ServerAuth]);
    let cut = String::from_utf8(good_chain.clone()).unwrap().replace("MII", "!!!");
    let cases: &[(&Path, &[u8], &str)] = &[
        (&cert_chain, b"", "node.pem holds no certificate in PEM form"),
        (&cert_chain, other_chain.as_bytes(), "node.key is not that of the certificate"),
        (&cert_chain, expired.as_bytes(), "node.pem expired on 2027-01-13: put a renewed one there"),
        (&cert_chain, early.as_bytes(), "node.pem is not valid before 2027-01-17: correct this machine's clock"),
        (&cert_chain, cut.as_bytes(), "node.pem cannot be used"),
        (&cert_chain, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "malformed certificate"),
        (&key, b"", "node.key holds no usable private key"),
        (&key, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "unencrypted"),
        (
            &key,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "node.key holds no usable private key",
        ),
        (&key, other_key.as_bytes(), "node.key is not that of the certificate"),
        (&client_ca, b"no", "ca.pem holds no certificate"),
        (&client_ca, b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "ca.pem cannot be used"),
    ];
    for (path, bytes, why) in cases {
        fs::write(path, bytes).unwrap();
        let error = site.load().err().unwrap().to_string();
        assert!(error.contains(why), "{error} instead of {why}");
        for (path, bytes) in [(&cert_chain, &good_chain), (&key, &good_key), (&client_ca, &good_ca)] {
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(site.load().is_ok());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = site.load().err().unwrap().to_string();
    assert!(error.contains("node.key has mode 0644 and is open to others: renew it, or run `chmod 0600"), "{error}");
    fs::remove_file(&key).unwrap();
    assert!(site.load().err().unwrap().to_string().starts_with("cannot read "));
}
