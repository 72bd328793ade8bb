//! The file `peers.toml`: whom a node that joins a cluster can ask to let it in, out of its join bundle. Once it has
//! joined, the metadata know all nodes, and better; the file then says that the folder came with a bundle.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sources::read;
use super::{ConfigError, HostPort};
use crate::base::NodeId;
use crate::security::bundle::{KNOWN_NODES_MAX, KnownNode};

/// Name of the file in the folder of a node.
pub const PEERS_FILE: &str = "peers.toml";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    node: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: i32,
    address: String,
    identity: String,
}

/// The text of the file.
pub fn peers_text(known: &[KnownNode]) -> Result<String, ConfigError> {
    let entry = |known: &KnownNode| Entry {
        id: known.node.0,
        address: HostPort { host: known.host.clone(), port: known.port }.to_string(),
        identity: known.identity.clone(),
    };
    let contents = Contents { node: known.iter().map(entry).collect() };
    let text = ::toml::to_string(&contents).map_err(|error| ConfigError::Show(error.to_string()))?;
    let header = "# Nodes of the cluster when the join bundle of this node was made; kept afterwards, too: a\n# folder with this file never begins a cluster of its own.";
    Ok(format!("{header}\n{text}"))
}

/// Reads the file. Blocks on file I/O.
pub fn read_peers(path: &Path) -> Result<Vec<KnownNode>, ConfigError> {
    let syntax = |detail: String| ConfigError::Syntax { path: path.to_owned(), detail };
    let parsed = ::toml::from_str(&read(path)?).map_err(|error| syntax(error.message().replace('\n', " ")));
    let contents: Contents = parsed?;
    if contents.node.len() > KNOWN_NODES_MAX {
        return Err(syntax(format!("more than {KNOWN_NODES_MAX} nodes")));
    }
    let known = contents.node.into_iter().map(|entry| {
        let HostPort { host, port } = HostPort::parse(&entry.address).map_err(|why| syntax(why.to_owned()))?;
        Ok(KnownNode { node: NodeId(entry.id), host, port, identity: entry.identity })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_the_names_are() {
        let node = |node, host: &str, identity: &str| KnownNode {
            node: NodeId(node),
            host: host.to_owned(),
            port: 9094,
            identity: identity.to_owned(),
        };
        let known = [
            node(1, "a.example", "CN=node-1,O=casemate"),
            node(2, "fd00::2", "CN=\\\"b\\\"\\, \"\"\"c\"\"\",OU=d\\\\e'''f,O=Müller\\+Söhne\n\u{7f}"),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PEERS_FILE);
        std::fs::write(&path, peers_text(&known).unwrap()).unwrap();
        assert_eq!(read_peers(&path).unwrap(), known);
        std::fs::write(&path, peers_text(&[]).unwrap()).unwrap();
        assert_eq!(read_peers(&path).unwrap(), []);
    }

    #[test]
    fn a_file_that_somebody_spoilt_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PEERS_FILE);
        let entry = "[[node]]\nid = 1\naddress = \"a:1\"\nidentity = \"CN=a\"\n";
        for (text, part) in [
            (entry.replace("a:1", "a"), "HOST:PORT"),
            (entry.replace("id =", "name ="), "name"),
            (format!("node = 1\n{entry}"), "node"),
            (entry.repeat(KNOWN_NODES_MAX + 1), "more than"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_peers(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(PEERS_FILE) && !error.contains('\n'), "{error}");
        }
    }
}
