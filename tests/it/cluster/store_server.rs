//! A real S3 server (MinIO, by tests/peers/s3) in a namespace of its own, which all nodes keep their objects in, and the
//! ways in which it goes away: killed, so that connections are refused; stopped, so that requests hang; cut off, so that
//! packets are lost; and cut off from one node only.
//!
//! It speaks TLS with an authority of its own: beyond a machine's loopback nodes speak nothing else.

use super::super::harness::eventually;
use super::network::{Cut, Network};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Its place in the network.
pub const HOST: u8 = 100;
const PORT: u16 = 9000;
const CREDENTIALS: &str = "access_key_id = \"casemate-test\"\nsecret_access_key = \"casemate-test-secret\"\n";

/// How it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    Killed,
    Stopped,
    CutOff,
    /// For this node alone.
    CutFrom(u8),
}

impl Away {
    pub fn name(self) -> &'static str {
        match self {
            Away::Killed => "store killed",
            Away::Stopped => "store stopped",
            Away::CutOff => "store cut off",
            Away::CutFrom(_) => "store cut from one",
        }
    }

    fn cut(self) -> Option<Cut> {
        match self {
            Away::CutOff => Some(Cut::Off(HOST)),
            Away::CutFrom(node) => Some(Cut::Between(node, HOST)),
            Away::Killed | Away::Stopped => None,
        }
    }
}

pub struct StoreServer {
    dir: PathBuf,
}

fn script() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/s3"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl StoreServer {
    /// Fetches the program where it is not there yet; to be called where there is a network. Whether it is there.
    pub fn fetch() -> bool {
        script().args(["fetch", "--kind", "minio"]).status().is_ok_and(|status| status.success())
    }

    /// Starts it in its namespace, with an empty bucket, keeping everything in `dir`.
    pub fn start(dir: &Path) -> StoreServer {
        let server = StoreServer { dir: dir.to_owned() };
        std::fs::create_dir_all(server.tls()).expect("a folder for the store");
        server.make_certificates().expect("certificates can be made");
        std::fs::write(server.credentials(), CREDENTIALS).expect("the credentials can be written");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(server.credentials(), std::fs::Permissions::from_mode(0o600)).expect("their mode");
        server.run();
        server
    }

    fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }

    fn credentials(&self) -> PathBuf {
        self.dir.join("credentials.toml")
    }

    fn authority(&self) -> PathBuf {
        self.tls().join("ca.pem")
    }

    fn make_certificates(&self) -> Result<(), rcgen::Error> {
        let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key)?.pem();
        let mut server = CertificateParams::new(Vec::new())?;
        server.subject_alt_names = vec![rcgen::SanType::IpAddress(IpAddr::V4(Network::address(HOST)))];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = server.signed_by(&key, &Issuer::new(authority, &authority_key))?.pem();
        for (name, text) in [("ca.pem", certificate), ("public.crt", issued), ("private.key", key.serialize_pem())] {
            std::fs::write(self.tls().join(name), text).expect("a file of the store can be written");
        }
        Ok(())
    }

    fn run(&self) {
        eventually("the S3 server starts", Duration::from_secs(120), || {
            let [program, enter @ ..] = Network::enter(HOST);
            let script = script();
            let mut command = Command::new(program);
            command.args(enter).arg(script.get_program()).args(["start", "--kind", "minio"]);
            command.args(["--host", &Network::address(HOST).to_string(), "--port", &PORT.to_string()]);
            command.arg("--dir").arg(&self.dir).arg("--tls").arg(self.tls());
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.status().is_ok_and(|status| status.success()).then_some(())
        });
    }

    /// What a node is told about it.
    pub fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("objects.url", "s3://casemate/faults".to_owned()),
            ("objects.endpoint", format!("https://{}:{PORT}", Network::address(HOST))),
            ("objects.ca_file", self.authority().display().to_string()),
            ("objects.credentials_file", self.credentials().display().to_string()),
        ]
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
        // So that the script does not take what is left of the process for a running one.
        let _ = std::fs::remove_file(self.dir.join("pid"));
    }

    pub fn go(&self, away: Away, network: &Network) {
        match (away, away.cut()) {
            (_, Some(cut)) => network.cut(cut),
            (Away::Killed, _) => self.kill(),
            _ => self.signal(Signal::STOP),
        }
    }

    pub fn come_back(&self, away: Away, network: &Network) {
        match (away, away.cut()) {
            (_, Some(cut)) => network.mend(cut),
            (Away::Killed, _) => self.run(),
            _ => self.signal(Signal::CONT),
        }
    }
}
