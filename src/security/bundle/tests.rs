//! Bundles that open, and everything that must not: other passphrases, damage, cuts, foreign formats, giant claims.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::seal::{ROUNDS, key_of};
use super::*;
use crate::env::SeededEntropy;
use crate::metadata::{Command, Image, MemoryIndex, Reject, Response, apply};
use crate::security::{InitOptions, Issued, Passphrase, create, issue_node};

const NOW_MS: i64 = 1_800_000_000_000;

struct At(i64);

impl Clock for At {
    fn wall_ms(&self) -> i64 {
        self.0
    }

    fn boottime(&self) -> Duration {
        Duration::ZERO
    }
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn known(node: i32, identity: &str) -> KnownNode {
    KnownNode { node: NodeId(node), host: format!("n{node}.example"), port: 9094, identity: identity.to_owned() }
}

/// Every field differs from its neighbours; names are as odd as they may be.
fn sample() -> Bundle {
    Bundle {
        cluster: ClusterId([7; 16]),
        generation: 2,
        node: NodeId(3),
        name: "hangar-3".to_owned(),
        rack: "Halle Süd, \"B\" \\ 2".to_owned(),
        host: "fd00::3".to_owned(),
        port: 9094,
        certificate_pem: "-----BEGIN CERTIFICATE-----\r\nMA==\r\n-----END CERTIFICATE-----\r\n".to_owned(),
        key_pem: Secret::new("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_owned()),
        ca_pem: "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n".to_owned(),
        bootstrap: "a.example:9093,b.example:9093".to_owned(),
        settings: vec![("super.users".to_owned(), "User:CN=admin=\"x\",O=casemate;User:CN=Jürgen".to_owned())],
        known: vec![known(1, "CN=node-1,O=casemate"), known(2, "CN=\\#\\00\u{7}\n'''\"\"\",OU=Ω\\+,O=x\\,y")],
        token: Token::new([9; 32]),
        created_ms: NOW_MS,
        expires_ms: NOW_MS + 24 * HOUR_MS,
    }
}

fn seal(bundle: &Bundle) -> Vec<u8> {
    bundle.seal(&passphrase("correct horse battery"), &SeededEntropy::new(1)).unwrap()
}

#[test]
fn a_bundle_opens_with_its_passphrase_only() {
    let file = seal(&sample());
    assert_eq!(Bundle::open(&file, &passphrase("correct horse battery")).unwrap(), sample());
    for wrong in ["correct horse batterY", "correct horse battery ", "another passphrase"] {
        let error = Bundle::open(&file, &passphrase(wrong)).unwrap_err();
        assert!(matches!(error, BundleError::Sealed), "{error}");
        assert!(error.to_string().contains("the passphrase is another one, or the file was damaged"), "{error}");
    }
    for secret in ["PRIVATE KEY", "hangar-3", "casemate;", &"\u{9}".repeat(8)] {
        assert!(!file.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret:?} is readable");
    }
    let again = sample().seal(&passphrase("correct horse battery"), &SeededEntropy::new(2)).unwrap();
    assert_ne!(file[40..], again[40..], "every seal is another one");
}

#[test]
fn no_secret_shows_in_a_description() {
    let shown = format!("{:?}", sample());
    assert!(shown.contains("hangar-3") && !shown.contains("PRIVATE KEY") && !shown.contains("9, 9"), "{shown}");
}

/// The key is derived once: a flip in salt or rounds has to be found even by who has it, as the header is sealed too.
#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    let file = seal(&sample());
    let salt = Sealed::parse(&file).unwrap().salt.to_vec();
    let key = key_of(&passphrase("correct horse battery"), ROUNDS, &salt).unwrap();
    let opens = |file: &[u8]| Sealed::parse(file).and_then(|sealed| sealed.open(&key)).is_ok();
    assert!(opens(&file));
    for at in 0..file.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = file.clone();
            damaged[at] ^= bit;
            assert!(!opens(&damaged), "byte {at}");
        }
        assert!(!opens(&file[..at]), "cut at {at}");
    }
    assert!(!opens(&[&file[..], &[0]].concat()), "something was added");
}

#[test]
fn what_no_release_wrote_is_refused_before_any_work() {
    let file = seal(&sample());
    let header = MAGIC_AND_VERSION + 4 + "PBKDF2-HMAC-SHA256".len();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = file.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let rounds = |rounds: u32| with(header, &rounds.to_be_bytes());
    for (file, part) in [
        (Vec::new(), "no join bundle"),
        (b"-----BEGIN CERTIFICATE-----".to_vec(), "no join bundle"),
        (file[..20].to_vec(), "only the beginning"),
        (file[..header + 60].to_vec(), "only the beginning"),
        (vec![0; JOIN_BUNDLE_BYTES_MAX + 1], "no join bundle"),
        (with(4, &[0, 2]), "(format 2)"),
        (with(header - 3, b"512"), "without PBKDF2-HMAC-SHA256"),
        (with(header + 4 + 4 + 16 + 4, b"AES-128"), "without AES-256-GCM"),
        (with(MAGIC_AND_VERSION, &[0xff; 4]), "only the beginning"),
        (rounds(0), "claims 0 rounds"),
        (rounds(599_999), "claims 599999 rounds"),
        (rounds(10_000_001), "claims 10000001 rounds"),
        (rounds(u32::MAX), "claims 4294967295 rounds"),
    ] {
        let error = Bundle::open(&file, &passphrase("correct horse battery")).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{part}: {error}");
    }
}

const MAGIC_AND_VERSION: usize = 6;

#[test]
fn contents_are_exactly_what_was_written() {
    let contents = sample().encode().unwrap();
    assert_eq!(Bundle::decode(&contents).unwrap(), sample());
    for length in 0..contents.len() {
        assert!(Bundle::decode(&contents[..length]).is_err(), "cut at {length}");
    }
    assert_eq!(Bundle::decode(&[&contents[..], &[0]].concat()).unwrap_err(), DecodeError::Trailing(1));
    let mut newer = contents.to_vec();
    newer[1] = 2;
    assert_eq!(Bundle::decode(&newer).unwrap_err(), DecodeError::Version { found: 2, newest: 1 });
}

#[test]
fn what_cannot_stand_in_files_and_settings_is_neither_sealed_nor_read() {
    type Change = fn(&mut Bundle);
    let changes: [(&str, Change); 16] = [
        ("cluster id", |b| b.cluster = ClusterId::default()),
        ("node id", |b| b.node = NodeId(0)),
        ("node name", |b| b.name.clear()),
        ("node name", |b| b.name = "a\nb".to_owned()),
        ("node name", |b| b.name = "x".repeat(65)),
        ("rack", |b| b.rack = "a\u{1b}[2J".to_owned()),
        ("peer address", |b| b.host = "a b".to_owned()),
        ("peer address", |b| b.port = 0),
        ("certificate", |b| b.certificate_pem = "\u{0}".to_owned()),
        ("key", |b| b.key_pem = Secret::new("x".repeat(PEM_BYTES_MAX + 1))),
        ("bootstrap servers", |b| b.bootstrap = "a:1\nb:2".to_owned()),
        ("options", |b| b.settings = vec![("a=b".to_owned(), "c".to_owned())]),
        ("options", |b| b.settings = vec![("a".to_owned(), "b\nc = d".to_owned())]),
        ("known nodes", |b| b.known = vec![known(1, "CN=a"); KNOWN_NODES_MAX + 1]),
        ("known nodes", |b| b.known = vec![known(1, "")]),
        ("time of expiry", |b| b.expires_ms = b.created_ms),
    ];
    for (part, change) in changes {
        let mut bundle = sample();
        change(&mut bundle);
        let error = bundle.encode().unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Written by hand, since `encode` refuses them.
#[test]
fn a_hostile_sealer_is_refused_too() {
    let contents = sample().encode().unwrap().to_vec();
    let name = contents.windows(8).position(|part| part == b"hangar-3").unwrap();
    let mut odd = contents.clone();
    odd[name] = b'\n';
    assert_eq!(Bundle::decode(&odd).unwrap_err(), DecodeError::Invalid { field: "node name", value: 0 });
    let mut giant = contents;
    giant[name - 4..name].fill(0xff);
    assert!(matches!(Bundle::decode(&giant), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_bundle_has_its_time() {
    let bundle = sample();
    for (now_ms, part) in [
        (NOW_MS, ""),
        (bundle.expires_ms - 1, ""),
        (bundle.expires_ms, "expired on 2027-01-16"),
        (i64::MAX, "expired"),
        // A clock that is an hour behind is no reason, one that is two days behind is.
        (NOW_MS - HOUR_MS, ""),
        (NOW_MS - 48 * HOUR_MS, "correct this machine's clock"),
        (0, "valid on 2027-01-15 only"),
    ] {
        let error = bundle.require_valid(now_ms).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error.is_empty(), part.is_empty(), "{now_ms}: {error}");
        assert!(error.contains(part), "{now_ms}: {error}");
    }
}

/// A site's authority, and a certificate of it for node 2.
fn issued(dir: &Path) -> (Issued, String) {
    let options = InitOptions {
        cluster: ClusterId([7; 16]),
        node: NodeId(1),
        hosts: Vec::new(),
        bootstrap: "localhost:9093".to_owned(),
        now_ms: NOW_MS,
    };
    create(dir, &options, &SeededEntropy::new(5)).unwrap();
    let read = |name: &str| fs::read_to_string(dir.join("tls").join(name)).unwrap();
    let (ca, key) = (read("ca.pem"), read("ca.key"));
    let hosts = ["b.example".to_owned()];
    (issue_node(&ca, &key, NodeId(2), &hosts, NOW_MS, &SeededEntropy::new(6)).unwrap(), ca)
}

fn invitation() -> Invitation {
    Invitation {
        cluster: ClusterId([7; 16]),
        generation: 1,
        node: NodeId(2),
        name: "b".to_owned(),
        rack: "r".to_owned(),
        host: "b.example".to_owned(),
        port: 9094,
        bootstrap: "a.example:9093".to_owned(),
        settings: vec![("super.users".to_owned(), "User:CN=admin,O=casemate".to_owned())],
        known: vec![known(1, "CN=node-1,O=casemate")],
        valid_hours: VALID_HOURS_DEFAULT,
        now_ms: NOW_MS,
    }
}

/// From the invitation to the node's folder, and what the metadata say to each step.
#[test]
fn what_is_made_lets_the_node_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let (issued, ca) = issued(&folder.path().join("site"));
    let identity = issued.subject.clone();
    let (bundle, add) = make(invitation(), issued, ca, &SeededEntropy::new(7)).unwrap();
    assert_eq!((bundle.created_ms, bundle.expires_ms), (NOW_MS, NOW_MS + 86_400_000));

    let mut image = Image::default();
    let mut run = |command: &Command| apply(&mut image, command, &MemoryIndex::default()).0;
    assert_eq!(run(&Command::InitCluster { cluster: bundle.cluster, generation: 1 }), Response::Ok);
    let first = Command::RegisterSelf {
        node: NodeId(1),
        name: "a".to_owned(),
        rack: String::new(),
        host: "a.example".to_owned(),
        port: 9094,
        identity: "CN=node-1,O=casemate".to_owned(),
        directory: Default::default(),
        now_ms: NOW_MS,
    };
    assert_eq!(run(&first), Response::Ok);
    assert_eq!(run(&add), Response::Ok);

    let dir = folder.path().join("node");
    fs::create_dir(&dir).unwrap();
    bundle.unpack(&dir, &At(NOW_MS)).unwrap();
    for (file, mode) in [("tls/node.key", 0o600), ("join.token", 0o600), ("tls", 0o700)] {
        assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
    assert!(!dir.join("tls/ca.key").exists() && !dir.join("tls.partial").exists());
    let token = Token::read(&dir.join(TOKEN_FILE)).unwrap();
    let join = |directory| Command::JoinNode {
        node: NodeId(2),
        token_sha256: token.sha256(),
        directory: crate::base::DirectoryId(directory),
        now_ms: NOW_MS + 1,
    };
    assert_eq!(run(&join(4)), Response::Ok);
    assert_eq!(run(&join(5)), Response::Rejected(Reject::TokenUsed(NodeId(2))));
    assert_eq!(image.nodes[&NodeId(2)].identity, identity);
}

#[test]
fn an_invitation_holds_between_an_hour_and_a_month_and_no_longer_than_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (issued, ca) = issued(folder.path());
    let of = |valid_hours, not_after_ms| {
        let issued = Issued {
            certificate_pem: issued.certificate_pem.clone(),
            key_pem: issued.key_pem.clone(),
            subject: issued.subject.clone(),
            not_after_ms,
        };
        make(Invitation { valid_hours, ..invitation() }, issued, ca.clone(), &SeededEntropy::new(7))
    };
    for hours in [i64::MIN, -1, 0, 721, i64::MAX] {
        assert!(matches!(of(hours, i64::MAX), Err(BundleError::Hours { .. })), "{hours}");
    }
    let (longest, _) = of(720, i64::MAX).unwrap();
    assert_eq!(longest.expires_ms, NOW_MS + 30 * 86_400_000);
    let (clipped, add) = of(720, NOW_MS + 5).unwrap();
    assert_eq!(clipped.expires_ms, NOW_MS + 5);
    assert!(matches!(add, Command::AddNode { expires_ms, .. } if expires_ms == NOW_MS + 5));
    assert!(matches!(of(1, NOW_MS), Err(BundleError::Invalid("time of expiry"))));
}

#[test]
fn a_folder_that_is_in_use_and_files_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (issued, ca) = issued(&folder.path().join("site"));
    let (mut bundle, _) = make(invitation(), issued, ca, &SeededEntropy::new(7)).unwrap();
    let site = folder.path().join("site");
    let before = fs::read(site.join("tls/node.key")).unwrap();
    assert!(matches!(bundle.unpack(&site, &At(NOW_MS)), Err(BundleError::File(FileError::Exists { .. }))));
    assert_eq!(fs::read(site.join("tls/node.key")).unwrap(), before);

    let dir = folder.path().join("node");
    fs::create_dir(&dir).unwrap();
    let early = bundle.unpack(&dir, &At(NOW_MS - 10 * 86_400_000)).unwrap_err().to_string();
    assert!(early.contains("not valid before") && !dir.join("tls").exists(), "{early}");
    bundle.key_pem = Secret::new(String::from_utf8(before).unwrap());
    let other = bundle.unpack(&dir, &At(NOW_MS)).unwrap_err().to_string();
    assert!(other.contains("is not that of the certificate") && !dir.join("tls").exists(), "{other}");
    assert!(!dir.join(TOKEN_FILE).exists());
}

#[test]
fn a_token_file_that_somebody_spoilt_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(TOKEN_FILE);
    let good = "0123456789abcdef".repeat(4) + "\n";
    for (text, is_good) in [
        (good.clone(), true),
        (good[1..].to_owned(), false),
        (good.trim_end().to_owned(), false),
        (good.replace('e', "g"), false),
        (format!("{good}{good}"), false),
        (String::new(), false),
    ] {
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let read = Token::read(&path);
        assert_eq!(read.is_ok(), is_good, "{text:?}");
        if let Ok(token) = read {
            assert_eq!(token.expose()[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Token::read(&path), Err(BundleError::File(FileError::KeyMode { .. }))));
}

#[test]
fn a_sealed_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.bundle");
    Bundle::write(&path, b"sealed").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Bundle::write(&path, b"other"), Err(BundleError::File(FileError::Exists { .. }))));
    assert_eq!(Bundle::read(&path).unwrap(), b"sealed");
    fs::write(&path, vec![0; JOIN_BUNDLE_BYTES_MAX + 1]).unwrap();
    assert!(matches!(Bundle::read(&path), Err(BundleError::NoBundle)));
}

fn fixture(name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/join/v1");
    let path = folder.join(name);
    if !path.exists() && std::env::var_os("CASEMATE_WRITE_FIXTURES").is_some() {
        let lines = bytes.chunks(32).map(|line| {
            line.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            }) + "\n"
        });
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, lines.collect::<String>()).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("fixture {}: {error}", path.display()));
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A fixture never changes: bundles that an older release sealed must open.
#[test]
fn fixtures_of_join_bundles_match() {
    let contents = sample().encode().unwrap();
    assert_eq!(fixture("contents.hex", &contents), contents.to_vec(), "contents are written differently than before");
    let file = fixture("sealed.hex", &seal(&sample()));
    assert_eq!(Bundle::open(&file, &passphrase("correct horse battery")).unwrap(), sample());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_contents_are_refused_or_are_another_bundle(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = sample().encode().unwrap().to_vec();
        for (at, value) in &hits {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Ok(bundle) = Bundle::decode(&bytes) {
            prop_assert_eq!(&bundle.encode().unwrap()[..], &bytes[..]);
        }
    }
}
