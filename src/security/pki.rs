//! The certificates and client settings that `casemate init` makes for a site without an authority of its own, and
//! further nodes' certificates of the same authority.
//!
//! Invariants: nothing that exists is overwritten; keys are readable by their owner only; everything is written under
//! other names, synced and then renamed, `tls` last, so that an interrupted run is never taken for a finished one. The
//! keys come from the cryptographic library's own generator, which takes no other source.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use time::{Duration, OffsetDateTime};

use super::files::{self, FileError, PRIVATE, PUBLIC};
use super::{Malformed, Principal, der, dn};
use crate::base::{ClusterId, NodeId};
use crate::env::Entropy;

const AUTHORITY_DAYS: i64 = 3653;
const LEAF_DAYS: i64 = 365;
/// Certificates begin this long ago, so that a machine whose clock is behind accepts them.
const BACKDATED: Duration = Duration::hours(1);
const ORGANIZATION: &str = "casemate";
/// What the common name of an authority begins with; the cluster's id follows.
const AUTHORITY: &str = "Casemate CA ";

/// What to make certificates for.
pub struct InitOptions {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// DNS names and IP addresses that clients reach the node by; localhost, 127.0.0.1 and ::1 are added.
    pub hosts: Vec<String>,
    /// `HOST:PORT` for the clients' `bootstrap.servers`.
    pub bootstrap: String,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What was made.
#[derive(Debug)]
pub struct Created {
    /// The principal of the client certificate, to be written into `super.users`.
    pub client: Principal,
}

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{0}` is neither a DNS name nor an IP address: give the host without port and scheme")]
    Host(String),
    #[error("the folder {0} has a name that cannot be written into a settings file: choose one of printable UTF-8")]
    Folder(String),
    #[error("`{0}` cannot be written into a settings file: give one HOST:PORT")]
    Bootstrap(String),
    #[error("this machine's clock stands at {0} ms, for which no certificate can be made: set it")]
    Clock(i64),
    #[error("a certificate could not be made ({0}): report this")]
    Certificate(#[from] rcgen::Error),
    #[error("a certificate that was made cannot be read ({0}): report this")]
    Unreadable(#[from] Malformed),
    #[error("the authority cannot be used ({0}): give ca.pem and ca.key as `casemate init` made them")]
    Authority(String),
    #[error("the authority was not made by `casemate init`: have whoever runs it issue the node's certificate")]
    ForeignAuthority,
    #[error(
        "the authority's certificate is not valid at this machine's time: correct the clock, or renew the authority"
    )]
    AuthorityExpired,
}

/// A certificate and its private key, both in PEM form.
pub struct Issued {
    pub certificate_pem: String,
    /// Not encrypted; whoever writes it to a disk sees to it that nobody else can read it.
    pub key_pem: String,
    /// The certificate's subject as RFC 2253 text, by which peers know the node.
    pub subject: String,
    /// Unix milliseconds; the last second of the certificate's validity begins here.
    pub not_after_ms: i64,
}

/// Issues a node's certificate with an authority that [`create`] made: `authority_pem` is the text of its `ca.pem`,
/// `authority_key_pem` that of its `ca.key`. `hosts` as in [`InitOptions`]; `now_ms` is in Unix milliseconds. The
/// certificate ends with the authority at the latest. Writes nothing.
pub fn issue_node(
    authority_pem: &str,
    authority_key_pem: &str,
    node: NodeId,
    hosts: &[String],
    now_ms: i64,
    entropy: &dyn Entropy,
) -> Result<Issued, CreateError> {
    let now = moment(now_ms)?;
    let unusable = |reason: String| CreateError::Authority(reason);
    let authority =
        CertificateDer::from_pem_slice(authority_pem.as_bytes()).map_err(|e| unusable(format!("certificate: {e}")))?;
    let authority = der::Certificate::parse(&authority).map_err(|e| unusable(e.to_string()))?;
    let key = KeyPair::from_pem(authority_key_pem).map_err(|e| unusable(format!("private key: {e}")))?;
    if key.subject_public_key_info() != authority.public_key {
        return Err(unusable("the private key is not that of the certificate".to_owned()));
    }
    if !(authority.not_before_ms..=authority.not_after_ms).contains(&now_ms) {
        return Err(CreateError::AuthorityExpired);
    }
    let name = dn::rfc2253(authority.subject).map_err(|e| unusable(e.to_string()))?;
    let common_name = name.strip_prefix("CN=").and_then(|name| name.strip_suffix(&format!(",O={ORGANIZATION}")));
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = distinguished_name(common_name.ok_or(CreateError::ForeignAuthority)?);
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];

    let mut params = node_params(node, hosts, now, entropy)?;
    let end = OffsetDateTime::from_unix_timestamp(authority.not_after_ms.div_euclid(1000));
    params.not_after = params.not_after.min(end.map_err(|_| CreateError::AuthorityExpired)?);
    let leaf = sign(params, NODE_USAGES.to_vec(), &Issuer::new(issuer, key))?;
    let made = der::Certificate::parse(leaf.certificate.der())?;
    // A name that reads the same may be written in other bytes, and peers compare the bytes.
    if made.issuer != authority.subject {
        return Err(CreateError::ForeignAuthority);
    }
    let (subject, not_after_ms) = (dn::rfc2253(made.subject)?, made.not_after_ms);
    Ok(Issued { certificate_pem: leaf.certificate.pem(), key_pem: leaf.key.serialize_pem(), subject, not_after_ms })
}

/// Makes the authority, the node's and the client's certificates in `dir/tls` and `dir/client`, which must not exist;
/// `dir` may. Blocks on file I/O.
pub fn create(dir: &Path, options: &InitOptions, entropy: &dyn Entropy) -> Result<Created, CreateError> {
    let maker = Maker::new(options, entropy)?;
    let node = maker.node(options)?;
    let client = maker.client()?;
    let principal = Principal::user(dn::rfc2253(der::Certificate::parse(client.certificate.der())?.subject)?);

    files::ensure_private_folder(dir)?;
    let dir = files::absolute(dir)?;
    let finished = [dir.join("client"), dir.join("tls")];
    let partial = [dir.join("client.partial"), dir.join("tls.partial")];
    for path in &finished {
        files::refuse_existing(path)?;
    }
    for path in &partial {
        files::remove_leftover(path)?;
        files::new_private_folder(path)?;
    }
    let authority_pem = maker.authority.certificate.pem();
    let (client_pem, client_key) = (client.certificate.pem(), client.key.serialize_pem());
    let (for_clients, for_node) = (&partial[0], &partial[1]);
    for (path, text, mode) in [
        (for_node.join("ca.pem"), &authority_pem, PUBLIC),
        (for_node.join("ca.key"), &maker.authority.key.serialize_pem(), PRIVATE),
        (for_node.join("node.pem"), &node.certificate.pem(), PUBLIC),
        (for_node.join("node.key"), &node.key.serialize_pem(), PRIVATE),
        (for_clients.join("ca.pem"), &authority_pem, PUBLIC),
        (for_clients.join("client.pem"), &client_pem, PUBLIC),
        (for_clients.join("client.key"), &client_key, PRIVATE),
        (for_clients.join("keystore.pem"), &format!("{client_key}{client_pem}"), PRIVATE),
    ] {
        files::write_new(&path, text.as_bytes(), mode)?;
    }
    for (name, text) in client_settings(&finished[0], &options.bootstrap)? {
        files::write_new(&for_clients.join(name), text.as_bytes(), PUBLIC)?;
    }
    for (from, to) in partial.iter().zip(&finished) {
        files::sync_folder(from)?;
        files::rename(from, to)?;
    }
    files::sync_folder(&dir)?;
    Ok(Created { client: principal })
}

/// Writes `dir/client/client.properties` and `librdkafka.conf` anew, for another `bootstrap` (`HOST:PORT`) or after the
/// folder was moved. Blocks on file I/O.
pub fn write_client_settings(dir: &Path, bootstrap: &str) -> Result<(), CreateError> {
    let folder = files::absolute(&dir.join("client"))?;
    for (name, text) in client_settings(&folder, bootstrap)? {
        files::replace(&folder.join(name), text.as_bytes(), PUBLIC)?;
    }
    Ok(())
}

struct Leaf {
    certificate: Certificate,
    key: KeyPair,
}

/// Signs leaves with a new authority.
struct Maker<'a> {
    authority: Leaf,
    authority_params: CertificateParams,
    now: OffsetDateTime,
    entropy: &'a dyn Entropy,
}

impl<'a> Maker<'a> {
    fn new(options: &InitOptions, entropy: &'a dyn Entropy) -> Result<Self, CreateError> {
        let now = moment(options.now_ms)?;
        // 64 characters at most: X.520's bound for a common name.
        let name = format!("{AUTHORITY}{}", options.cluster);
        let mut params = params(&name, AUTHORITY_DAYS, now, entropy);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        Ok(Maker { authority: Leaf { certificate, key }, authority_params: params, now, entropy })
    }

    fn node(&self, options: &InitOptions) -> Result<Leaf, CreateError> {
        let params = node_params(options.node, &options.hosts, self.now, self.entropy)?;
        self.sign(params, &NODE_USAGES)
    }

    fn client(&self) -> Result<Leaf, CreateError> {
        self.sign(params("admin", LEAF_DAYS, self.now, self.entropy), &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn sign(&self, params: CertificateParams, usages: &[ExtendedKeyUsagePurpose]) -> Result<Leaf, CreateError> {
        sign(params, usages.to_vec(), &Issuer::from_params(&self.authority_params, &self.authority.key))
    }
}

/// A node is a server to clients and both to its peers.
const NODE_USAGES: [ExtendedKeyUsagePurpose; 2] =
    [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

fn sign(
    mut params: CertificateParams,
    usages: Vec<ExtendedKeyUsagePurpose>,
    issuer: &Issuer<'_, impl SigningKey>,
) -> Result<Leaf, CreateError> {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Leaf { certificate: params.signed_by(&key, issuer)?, key })
}

fn moment(now_ms: i64) -> Result<OffsetDateTime, CreateError> {
    OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000))
        .ok()
        // Nothing before 2020 is the real time; and the certificates must end in a year of four digits.
        .filter(|now| (2020..9900).contains(&now.year()))
        .ok_or(CreateError::Clock(now_ms))
}

/// The parameters of a node's certificate, for the hosts by which it is reached.
fn node_params(
    node: NodeId,
    hosts: &[String],
    now: OffsetDateTime,
    entropy: &dyn Entropy,
) -> Result<CertificateParams, CreateError> {
    let mut names = BTreeSet::from(["localhost".to_owned()]);
    let mut addresses = BTreeSet::from([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    for host in hosts {
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => drop(addresses.insert(address)),
            Err(_) => {
                DnsName::try_from(host.as_str()).map_err(|_| CreateError::Host(host.clone()))?;
                names.insert(host.to_ascii_lowercase());
            }
        }
    }
    let mut params = params(&format!("node-{node}"), LEAF_DAYS, now, entropy);
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
    Ok(params)
}

fn params(common_name: &str, days: i64, now: OffsetDateTime, entropy: &dyn Entropy) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name);
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days);
    // Positive and of full length, whatever the random bits are.
    let mut serial = [0; 16];
    entropy.fill(&mut serial);
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// The names and texts of the two settings files, for the files in `folder`.
fn client_settings(folder: &Path, bootstrap: &str) -> Result<[(&'static str, String); 2], CreateError> {
    if bootstrap.is_empty() || !bootstrap.chars().all(|c| c.is_ascii_graphic()) {
        return Err(CreateError::Bootstrap(bootstrap.to_owned()));
    }
    let path = |name: &str| printable(folder.join(name));
    let (ca, keystore) = (path("ca.pem")?, path("keystore.pem")?);
    let (certificate, key) = (path("client.pem")?, path("client.key")?);
    let (java_ca, java_keystore) = (escape_property(&ca), escape_property(&keystore));
    let java = format!(
        "# Settings for Kafka's Java clients and tools (--bootstrap-server {bootstrap} --command-config this file).\n\
         bootstrap.servers={bootstrap}\n\
         security.protocol=SSL\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={java_keystore}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={java_ca}\n"
    );
    let librdkafka = format!(
        "# Settings for librdkafka and what is built on it (kcat -F this file).\n\
         bootstrap.servers={bootstrap}\n\
         security.protocol=ssl\n\
         ssl.ca.location={ca}\n\
         ssl.certificate.location={certificate}\n\
         ssl.key.location={key}\n"
    );
    Ok([("client.properties", java), ("librdkafka.conf", librdkafka)])
}

fn printable(path: PathBuf) -> Result<String, CreateError> {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) && text.trim() == text => Ok(text.to_owned()),
        _ => Err(CreateError::Folder(path.display().to_string())),
    }
}

/// A value for a Java properties file, which is Latin-1 with UTF-16 escapes.
fn escape_property(text: &str) -> String {
    let mut out = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit).map(char::from) {
            Ok('\\') => out.push_str("\\\\"),
            Ok(c) if c.is_ascii() => out.push(c),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn options() -> InitOptions {
        InitOptions {
            cluster: ClusterId([7; 16]),
            node: NodeId(1),
            hosts: vec!["Kafka.Example".to_owned(), "10.1.2.3".to_owned(), "[fd00::1]".to_owned()],
            bootstrap: "kafka.example:9093".to_owned(),
            now_ms: 1_800_000_000_000,
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a folder").join("ü");
        (root, dir)
    }

    #[test]
    fn everything_is_there_private_and_names_its_real_place() {
        let (_root, dir) = folder();
        let created = create(&dir, &options(), &Fixed(0xff)).unwrap();
        assert_eq!(created.client.to_string(), "User:CN=admin,O=casemate");
        for folder in ["", "tls", "client"] {
            assert_eq!(fs::metadata(dir.join(folder)).unwrap().permissions().mode() & 0o777, 0o700);
        }
        for key in ["tls/ca.key", "tls/node.key", "client/client.key", "client/keystore.pem"] {
            assert_eq!(fs::metadata(dir.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
        let absolute = dir.canonicalize().unwrap();
        let librdkafka = fs::read_to_string(dir.join("client/librdkafka.conf")).unwrap();
        assert!(librdkafka.contains(&format!("\nssl.ca.location={}/client/ca.pem\n", absolute.display())));
        assert!(librdkafka.contains("\nbootstrap.servers=kafka.example:9093\n"));
        let java = fs::read_to_string(dir.join("client/client.properties")).unwrap();
        assert!(java.contains("/a folder/\\u00fc/client/keystore.pem\n") && java.is_ascii());
        let names: BTreeSet<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, BTreeSet::from(["tls".into(), "client".into()]));
    }

    #[test]
    fn nothing_is_overwritten_and_leftovers_do_not_hinder() {
        let (_root, dir) = folder();
        fs::create_dir_all(dir.join("tls.partial/x")).unwrap();
        create(&dir, &options(), &Fixed(0)).unwrap();
        let before = fs::read(dir.join("tls/ca.pem")).unwrap();
        assert!(matches!(create(&dir, &options(), &Fixed(0)), Err(CreateError::File(FileError::Exists { .. }))));
        assert_eq!(fs::read(dir.join("tls/ca.pem")).unwrap(), before);
    }

    #[test]
    fn settings_can_be_written_anew() {
        let (_root, dir) = folder();
        create(&dir, &options(), &Fixed(1)).unwrap();
        write_client_settings(&dir, "127.0.0.1:19093").unwrap();
        let java = fs::read_to_string(dir.join("client/client.properties")).unwrap();
        assert!(java.contains("\nbootstrap.servers=127.0.0.1:19093\n"));
        assert!(matches!(write_client_settings(&dir, "a\nb"), Err(CreateError::Bootstrap(_))));
    }

    #[test]
    fn a_certificate_says_what_it_is_for_and_how_long() {
        let (_root, dir) = folder();
        create(&dir, &options(), &Fixed(0xff)).unwrap();
        let pem = fs::read(dir.join("tls/node.pem")).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let node = der::Certificate::parse(&der).unwrap();
        assert_eq!(dn::rfc2253(node.subject).unwrap(), "CN=node-1,O=casemate");
        assert_eq!(node.not_before_ms, options().now_ms - 3_600_000);
        assert_eq!(node.not_after_ms, options().now_ms + 365 * 86_400_000);
        assert_eq!((node.serial.len(), node.serial[0]), (16, 0x7f));
    }

    /// Reads what [`issue_node`] made.
    fn parsed<T>(pem: &str, read: impl FnOnce(&der::Certificate<'_>) -> T) -> T {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        read(&der::Certificate::parse(&der).unwrap())
    }

    #[test]
    fn further_nodes_get_certificates_of_the_same_authority() {
        let (_root, dir) = folder();
        create(&dir, &options(), &Fixed(0)).unwrap();
        let read = |name: &str| fs::read_to_string(dir.join("tls").join(name)).unwrap();
        let (ca, key, now_ms) = (read("ca.pem"), read("ca.key"), options().now_ms);
        let hosts = ["Node-2.Example".to_owned(), "10.1.2.4".to_owned()];
        let made = issue_node(&ca, &key, NodeId(2), &hosts, now_ms, &Fixed(3)).unwrap();
        assert_eq!(made.subject, "CN=node-2,O=casemate");
        assert_eq!(made.not_after_ms, now_ms + 365 * 86_400_000);
        let authority = parsed(&ca, |ca| ca.subject.to_vec());
        parsed(&made.certificate_pem, |node| {
            assert_eq!((node.issuer, node.not_after_ms), (&authority[..], made.not_after_ms));
            let own = KeyPair::from_pem(&made.key_pem).unwrap();
            assert_eq!(own.subject_public_key_info(), node.public_key);
        });

        let end = parsed(&ca, |ca| ca.not_after_ms);
        let late = issue_node(&ca, &key, NodeId(2), &[], end - 1000, &Fixed(3)).unwrap();
        assert_eq!(late.not_after_ms, end, "no longer than the authority");
        for now_ms in [end + 1000, now_ms - 4_000_000] {
            let refused = issue_node(&ca, &key, NodeId(2), &[], now_ms, &Fixed(3));
            assert!(matches!(refused, Err(CreateError::AuthorityExpired)));
        }
        let refused = issue_node(&ca, &read("node.key"), NodeId(2), &[], now_ms, &Fixed(3));
        assert!(matches!(refused, Err(CreateError::Authority(_))), "another key");
        for (ca, key) in [("", &key[..]), (&ca, ""), ("rubbish", "rubbish")] {
            assert!(matches!(issue_node(ca, key, NodeId(2), &[], now_ms, &Fixed(3)), Err(CreateError::Authority(_))));
        }
        let bad = issue_node(&ca, &key, NodeId(2), &["a b".to_owned()], now_ms, &Fixed(3));
        assert!(matches!(bad, Err(CreateError::Host(_))));
    }

    #[test]
    fn an_authority_of_the_site_issues_its_certificates_itself() {
        let now = moment(options().now_ms).unwrap();
        for (organization, printable) in [("Ministry", false), (ORGANIZATION, true)] {
            let mut params = params("Casemate CA x", AUTHORITY_DAYS, now, &Fixed(1));
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, organization);
            let common_name = match printable {
                // The same text in other bytes.
                true => rcgen::DnValue::PrintableString("Casemate CA x".try_into().unwrap()),
                false => rcgen::DnValue::Utf8String("Casemate CA x".to_owned()),
            };
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let ca = params.self_signed(&key).unwrap().pem();
            let now_ms = options().now_ms;
            let refused = issue_node(&ca, &key.serialize_pem(), NodeId(2), &[], now_ms, &Fixed(3));
            assert!(matches!(refused, Err(CreateError::ForeignAuthority)), "{organization}");
        }
    }

    #[test]
    fn bad_options_are_refused_before_anything_is_written() {
        let (_root, dir) = folder();
        for host in ["", "a b", "https://kafka", "kafka:9093", "*"] {
            let bad = InitOptions { hosts: vec![host.to_owned()], ..options() };
            assert!(matches!(create(&dir, &bad, &Fixed(0)), Err(CreateError::Host(_))), "{host}");
        }
        for now_ms in [0, -1, i64::MAX, i64::MIN] {
            let bad = InitOptions { now_ms, ..options() };
            assert!(matches!(create(&dir, &bad, &Fixed(0)), Err(CreateError::Clock(_))));
        }
        assert!(!dir.exists());
    }
}
