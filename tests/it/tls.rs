//! Mutual TLS from outside: who gets in, who does not, and as whom.

use super::client::Client;
use super::harness::{BINARY, Broker, Launch, folder, now_ms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A client's side of TLS: what it trusts, and whom it claims to be.
fn config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("ca.pem holds a certificate")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_file_iter(chain).expect("the chain is readable").collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_file(key).expect("the key is PEM");
            builder
                .with_client_auth_cert(chain.expect("the chain is PEM"), key)
                .expect("key and certificate belong together")
        }
    }
}

const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub fn as_client(dir: &Path) -> ClientConfig {
    let client = dir.join("client");
    config(&client.join("ca.pem"), Some((&client.join("client.pem"), &client.join("client.key"))), TLS13)
}

/// The first exchange, which also ends the handshake from the client's side.
fn exchange(broker: &Broker, config: ClientConfig) -> io::Result<Client> {
    let mut client = Client::connect_tls(broker.address("tls"), config)?;
    client.api_versions()?;
    Ok(client)
}

/// A node made by `init` and started by `serve`, its ports chosen by the system.
fn serve(dir: &Path, kafka: &[(&str, &str)]) -> Broker {
    let made = Command::new(BINARY)
        .args(["init", dir.to_str().unwrap(), "--host", "127.0.0.1", "--host", "localhost", "--listen", "127.0.0.1:0"])
        .output()
        .expect("the binary starts");
    assert!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
    let file = dir.join("casemate.toml");
    let mut settings: toml::Table = std::fs::read_to_string(&file).unwrap().parse().expect("init writes TOML");
    let mut set = |section: &str, key: &str, value: &str| {
        let section = settings.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().expect("a section").insert(key.into(), value.into());
    };
    set("admin", "listen", "127.0.0.1:0");
    kafka.iter().for_each(|(key, value)| set("kafka", key, value));
    std::fs::write(&file, settings.to_string()).unwrap();
    Launch::serve(dir).start()
}

#[test]
fn the_files_that_init_writes_work_as_they_are() {
    let dir = folder();
    let root = dir.path().join("node");
    let broker = serve(&root, &[]);
    assert!(!broker.has("plaintext"), "serve has no plaintext listener");
    let mut client = exchange(&broker, as_client(&root)).expect("the client certificate of init is accepted");
    assert_eq!(client.create_topic("secure", 1, &[]).unwrap(), 0, "and its principal is permitted");
    super::harness::wait_for_leaders(&mut client, "secure", 1);
    let batch = super::batch::encode(&[b"s".to_vec()], super::batch::NO_PRODUCER, -1, now_ms());
    assert_eq!(client.produce("secure", 0, batch).unwrap().error, 0);
    assert_eq!(client.read_all("secure", 0, 0).unwrap().len(), 1);
    let metadata = client.metadata(&["secure"]).unwrap();
    assert_eq!(metadata.brokers[0].port, i32::from(broker.address("tls").port()));
}

#[test]
fn secret_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let root = dir.path().join("node");
    let made = Command::new(BINARY).args(["init", root.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
    let (mut folders, mut secrets) = (vec![root], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if std::fs::read_to_string(entry.path()).is_ok_and(|t| t.contains("PRIVATE KEY")) {
                let mode = entry.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
                secrets += 1;
            }
        }
    }
    assert!(secrets >= 3, "keys of the authority, the node and the client; found {secrets}");
}

#[test]
fn without_a_certificate_of_the_authority_nobody_gets_in() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    let ca = dir.path().join("client/ca.pem");
    exchange(&broker, as_client(dir.path())).expect("the right certificate gets in");
    assert!(exchange(&broker, config(&ca, None, TLS13)).is_err(), "no certificate");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["client".to_string()]).unwrap().self_signed(&key).unwrap();
    let (chain, secret) = (dir.path().join("stranger.pem"), dir.path().join("stranger.key"));
    std::fs::write(&chain, certificate.pem()).unwrap();
    std::fs::write(&secret, key.serialize_pem()).unwrap();
    assert!(exchange(&broker, config(&ca, Some((&chain, &secret)), TLS13)).is_err(), "a stranger's certificate");
    let node = (dir.path().join("client/client.pem"), dir.path().join("client/client.key"));
    assert!(
        exchange(&broker, config(&chain, Some((&node.0, &node.1)), TLS13)).is_err(),
        "the client checks the node too"
    );
    let mut plain = Client::connect(broker.address("tls")).unwrap();
    assert!(plain.api_versions().is_err(), "plaintext on the TLS port");
    exchange(&broker, as_client(dir.path())).expect("and the right certificate still gets in");
}

#[test]
fn only_super_users_are_permitted() {
    let dir = folder();
    let root = dir.path().join("node");
    let broker = serve(&root, &[("super.users", "User:CN=somebody else")]);
    let mut client = exchange(&broker, as_client(&root)).expect("the handshake is a matter of certificates");
    let refused = client.create_topic("denied", 1, &[]).unwrap();
    assert!(matches!(refused, 29 | 31), "authorization failed, by code: {refused}");
    let batch = super::batch::encode(&[b"s".to_vec()], super::batch::NO_PRODUCER, -1, 1);
    assert_eq!(client.produce("denied", 0, batch).unwrap().error, 29);
    assert_eq!(client.fetch("denied", 0, 0, 0, 1000).unwrap().error, 29);
}
