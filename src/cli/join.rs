//! The folder of a node that joins a cluster, out of its join bundle.
//!
//! The guarantees are those of `casemate init`: nothing that exists is changed, everything is checked before anything is
//! made, the configuration is put in place last. Beside what every node has, the folder holds the token of the bundle
//! and the nodes to ask, until it has joined. It has no authority's key: only the first node's has.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::init::{cannot_make, make_data_folders, make_folder, put, write_private};
use crate::config::{self, HostPort, Identity, Joining};
use crate::env::{Clock, SystemClock};
use crate::security::Passphrase;
use crate::security::bundle::Bundle;

/// What to make out of a bundle.
pub struct Request {
    pub dir: PathBuf,
    /// `IP:PORT` for clients.
    pub listen: String,
    /// `HOST:PORT` that clients are told; None tells them the host that the other nodes were told, and the port.
    pub advertise: Option<String>,
    /// `IP:PORT` for the other nodes; None listens on all addresses, on the port that they were told.
    pub peer_listen: Option<String>,
}

/// Makes the folder; answers the path of its configuration. The bundle must not have expired. Blocks on file I/O.
pub fn init(request: &Request, bundle: &Bundle, clock: &dyn Clock) -> Result<PathBuf> {
    bundle.require_valid(clock.wall_ms())?;
    let text = configuration(request, bundle)?;
    make_folder(&request.dir, text.clone(), |dir, file| {
        make_data_folders(dir)?;
        bundle.unpack(dir, clock)?;
        let peers = dir.join(config::PEERS_FILE);
        write_private(&peers, &config::peers_text(&bundle.known)?).with_context(|| cannot_make(&peers))?;
        put(dir, file, &text)?;
        Ok(file.to_owned())
    })
}

/// The same from the sealed file; answers what to do next. Blocks on file I/O, and for about a second.
pub(super) fn from_file(request: &Request, file: &Path, passphrase: Passphrase) -> Result<String> {
    let sealed = Bundle::read(file)?;
    let bundle = Bundle::open(&sealed, &passphrase)?;
    let made = init(request, &bundle, &SystemClock)?;
    let Bundle { node, name, cluster, .. } = &bundle;
    Ok(format!(
        "node {node} ({name}) of cluster {cluster} in {}\n\nstart it:   casemate serve --config {}\nIt joins its \
         cluster then; the bundle is of no more use and can be deleted.\n",
        made.parent().unwrap_or(Path::new("")).display(),
        made.display()
    ))
}

fn configuration(request: &Request, bundle: &Bundle) -> Result<String> {
    let Request { listen, advertise, peer_listen, .. } = request;
    let bind = HostPort::parse_bind(listen).map_err(|why| anyhow::anyhow!("--listen = {listen}: {why}"))?;
    let advertise = match advertise {
        Some(text) => HostPort::parse(text).map_err(|why| anyhow::anyhow!("--advertise = {text}: {why}"))?,
        None => HostPort { host: bundle.host.clone(), port: bind.port() },
    };
    let everywhere = HostPort { host: "0.0.0.0".to_owned(), port: bundle.port }.to_string();
    let identity = Identity {
        cluster: bundle.cluster,
        node: bundle.node,
        tls: listen,
        advertise: &advertise.to_string(),
        peer_listen: peer_listen.as_deref().unwrap_or(&everywhere),
        peer_advertise: &HostPort { host: bundle.host.clone(), port: bundle.port }.to_string(),
        name: &bundle.name,
        rack: &bundle.rack,
    };
    config::joining_file(&Joining { identity, settings: &bundle.settings })
        .context("the join bundle carries options that this release does not take")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::{ClusterId, NodeId};
    use crate::cli::{check_files, sentence};
    use crate::config::{Config, Sources};
    use crate::env::SystemEntropy;
    use crate::security::bundle::{Invitation, KnownNode, Token, make};
    use crate::security::{InitOptions, create, issue_node};

    /// A bundle for node 2 of a cluster whose first folder is `site`.
    fn bundle(site: &Path) -> Bundle {
        let now_ms = SystemClock.wall_ms();
        let cluster = ClusterId([7; 16]);
        let bootstrap = "a.example:9093".to_owned();
        let options = InitOptions { cluster, node: NodeId(1), hosts: vec![], bootstrap: bootstrap.clone(), now_ms };
        let client = create(site, &options, &SystemEntropy).unwrap().client;
        let read = |name: &str| fs::read_to_string(site.join("tls").join(name)).unwrap();
        let (ca, key) = (read("ca.pem"), read("ca.key"));
        let issued = issue_node(&ca, &key, NodeId(2), &["b.example".to_owned()], now_ms, &SystemEntropy).unwrap();
        let known = ["CN=node-1,O=casemate", "CN=\\\"odd\\\"\\, one,O=Süd"];
        let known = known.iter().zip([1, 3]).map(|(identity, node)| KnownNode {
            node: NodeId(node),
            host: format!("n{node}.example"),
            port: 9094,
            identity: identity.to_string(),
        });
        let invitation = Invitation {
            cluster,
            generation: 1,
            node: NodeId(2),
            name: "b".to_owned(),
            rack: String::new(),
            host: "b.example".to_owned(),
            port: 19094,
            bootstrap,
            settings: vec![
                ("super.users".to_owned(), client.to_string()),
                ("objects.region".to_owned(), "south \"1\"".to_owned()),
            ],
            known: known.collect(),
            valid_hours: 24,
            now_ms,
        };
        make(invitation, issued, ca, &SystemEntropy).unwrap().0
    }

    fn request(dir: &Path) -> Request {
        Request { dir: dir.to_owned(), listen: "0.0.0.0:19093".to_owned(), advertise: None, peer_listen: None }
    }

    fn refused(request: &Request, bundle: &Bundle, clock: &dyn Clock) -> String {
        sentence(&init(request, bundle, clock).unwrap_err())
    }

    struct At(i64);

    impl Clock for At {
        fn wall_ms(&self) -> i64 {
            self.0
        }

        fn boottime(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }

    #[test]
    fn a_bundle_makes_a_folder_with_a_configuration_that_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(&folder.path().join("site"));
        let dir = folder.path().join("a/node");
        let file = init(&request(&dir), &bundle, &SystemClock).unwrap();
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        let expected = ["casemate.toml", "join.token", "metadata", "objects", "peers.toml", "quarantine", "tls", "wal"];
        assert_eq!(names, expected);
        let config = Config::load(&Sources { file, ..Sources::default() }).unwrap();
        check_files(&config).unwrap();
        assert_eq!((config.cluster, config.node), (bundle.cluster, NodeId(2)));
        assert_eq!(config.kafka["super.users"], "User:CN=admin,O=casemate");
        assert_eq!(config.options.objects.region, "south \"1\"");
        assert_eq!(config.tls.advertise, HostPort::parse("b.example:19093").ok());
        let peer = config.peer.unwrap();
        assert_eq!(
            (peer.bind.to_string().as_str(), peer.advertise),
            ("0.0.0.0:19094", HostPort::parse("b.example:19094").ok())
        );
        assert_eq!(config::read_peers(&dir.join(config::PEERS_FILE)).unwrap(), bundle.known);
        assert_eq!(Token::read(&dir.join("join.token")).unwrap(), bundle.token);
    }

    #[test]
    fn a_used_folder_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(&folder.path().join("site"));
        let dir = folder.path().join("node");
        init(&request(&dir), &bundle, &SystemClock).unwrap();
        let before = fs::read_to_string(dir.join("casemate.toml")).unwrap();
        let error = refused(&request(&dir), &bundle, &SystemClock);
        assert!(error.contains("never overwrites"), "{error}");
        assert_eq!(fs::read_to_string(dir.join("casemate.toml")).unwrap(), before);
        let letter = folder.path().join("letters");
        fs::create_dir(&letter).unwrap();
        fs::write(letter.join("letter"), "dear").unwrap();
        let error = refused(&request(&letter), &bundle, &SystemClock);
        assert!(error.contains("empty folder") && fs::read_dir(&letter).unwrap().count() == 1, "{error}");
        let half = folder.path().join("half");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("init.unfinished"), "").unwrap();
        assert!(refused(&request(&half), &bundle, &SystemClock).contains("half made"));
    }

    #[test]
    fn what_cannot_be_used_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = bundle(&folder.path().join("site"));
        let dir = folder.path().join("node");
        let error = refused(&request(&dir), &bundle, &At(bundle.expires_ms));
        assert!(error.contains("expired on 2") && error.contains("add it again"), "{error}");
        assert!(!dir.exists());
        for (change, part) in [
            (Request { listen: "b.example:1".to_owned(), ..request(&dir) }, "--listen"),
            (Request { advertise: Some("b".to_owned()), ..request(&dir) }, "--advertise"),
            (Request { peer_listen: Some("b.example:1".to_owned()), ..request(&dir) }, "peer.listen"),
            (Request { peer_listen: Some("0.0.0.0:19093".to_owned()), ..request(&dir) }, "choose another port"),
        ] {
            let error = refused(&change, &bundle, &SystemClock);
            assert!(error.contains(part) && !dir.exists(), "{part}: {error}");
        }
        // Found only when half of the folder is made.
        bundle.ca_pem = "none".to_owned();
        let error = refused(&request(&dir), &bundle, &SystemClock);
        assert!(error.contains("no certificate in PEM form") && !dir.exists(), "{error}");
        bundle.settings = vec![("no.such".to_owned(), "1".to_owned())];
        let error = refused(&request(&dir), &bundle, &SystemClock);
        assert!(error.contains("no.such = 1") && error.contains("this release"), "{error}");
    }
}
