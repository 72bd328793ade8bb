//! `casemate cluster`: what a person or a script asks the node of a folder, over the peer plane and under the node's own
//! certificate. Whoever can read the folder's key may; there is no other way in.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::args::{AddNode, ClusterCommand, Named, Source, passphrase};
use super::load;
use crate::cluster::{Ask, FIRST_GENERATION, Managed, NodeStatus, Status, Tool};
use crate::config::{Config, HostPort, Options, Sources};
use crate::env::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::metadata::NodeState;
use crate::peer::{Own, PeerAddress};
use crate::security::bundle::{Bundle, Invitation, KNOWN_NODES_MAX, KnownNode, make};
use crate::security::{NodeTls, issue_node};

/// Carries out the command; answers what to print. Blocks.
pub(super) fn run(command: ClusterCommand, environment: Vec<(String, String)>) -> Result<String> {
    match command {
        ClusterCommand::Status { source, json } => {
            let node = Node::of(source, environment)?;
            let status = node.status()?;
            Ok(if json { pretty(&as_json(&node.config, &status)) } else { as_text(&status) })
        }
        ClusterCommand::AddNode(arguments) => add_node(arguments, environment),
        ClusterCommand::RemoveNode(named) => change(named, environment, Ask::Remove, "removed"),
        ClusterCommand::Drain { named, stop: false } => {
            change(named, environment, |node| Ask::Drain(node, true), "hands its partitions to other nodes")
        }
        ClusterCommand::Drain { named, stop: true } => {
            change(named, environment, |node| Ask::Drain(node, false), "may lead partitions again")
        }
        ClusterCommand::Promote(named) => change(named, environment, Ask::Promote, "leads the metadata quorum"),
    }
}

/// The node of a folder, as its tools reach it.
struct Node {
    config: Config,
    runtime: tokio::runtime::Runtime,
    tool: Tool,
}

impl Node {
    fn of(source: Source, environment: Vec<(String, String)>) -> Result<Node> {
        let config = load(&Sources { file: source.config, text: None, environment, sets: source.set })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tls = Arc::new(NodeTls::load(config.tls_files.clone(), clock.clone())?);
        let mut process = [0; 8];
        SystemEntropy.fill(&mut process);
        let own = Own {
            cluster: config.cluster,
            generation: FIRST_GENERATION,
            node: config.node,
            process: u64::from_be_bytes(process),
            software: format!("casemate {}", env!("CARGO_PKG_VERSION")),
        };
        let at = address(&config)?;
        let runtime = beside()?;
        let tool = {
            let _inside = runtime.enter();
            Tool::new(own, tls, at, clock, Arc::new(SystemEntropy))
        };
        Ok(Node { config, runtime, tool })
    }

    fn ask(&self, ask: &Ask) -> Result<Managed> {
        match self.runtime.block_on(self.tool.ask(ask))? {
            Managed::Refused(why) => bail!("{why}"),
            managed => Ok(managed),
        }
    }

    fn status(&self) -> Result<Status> {
        match self.ask(&Ask::Status)? {
            Managed::Status(status) => Ok(*status),
            _ => bail!("the node answered something else than its status: use the release that it runs"),
        }
    }
}

/// A runtime whose tasks go on while the command waits for somebody to type a passphrase, or seals a bundle: its connection
/// says that it is alive, or the node would close it.
fn beside() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// Where the node of this machine listens for other nodes; a node's certificate always has the loopback addresses.
fn address(config: &Config) -> Result<PeerAddress> {
    let peer = config.peer.as_ref().context("the configuration has no [peer]")?;
    let (bind, port) = (peer.bind.ip(), peer.bind.port());
    if port == 0 {
        bail!("peer.listen = {} takes any port, so its tools cannot find the node: set a port", peer.bind);
    }
    let host = match (&peer.advertise, bind.is_unspecified(), bind.is_ipv4()) {
        (_, true, true) => "127.0.0.1".to_owned(),
        (_, true, false) => "::1".to_owned(),
        (Some(told), false, _) if !bind.is_loopback() && told.port == port => told.host.clone(),
        _ => bind.to_string(),
    };
    Ok(PeerAddress { node: config.node, host, port })
}

fn change(
    named: Named,
    environment: Vec<(String, String)>,
    ask: impl Fn(crate::base::NodeId) -> Ask,
    done: &str,
) -> Result<String> {
    let Named { name, source, json } = named;
    let node = Node::of(source, environment)?;
    let status = node.status()?;
    let found = find(&status, &name)?;
    node.ask(&ask(found.node))?;
    let id = found.node;
    Ok(if json {
        pretty(&json!({ "node": id.0, "name": found.name }))
    } else {
        format!("node {id} ({}) {done}\n", found.name)
    })
}

fn find<'s>(status: &'s Status, name: &str) -> Result<&'s NodeStatus> {
    let names = || status.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    status.find(name).with_context(|| format!("the cluster has no node {name}: name one of {}", names()))
}

fn add_node(arguments: AddNode, environment: Vec<(String, String)>) -> Result<String> {
    let AddNode { name, address, hosts, rack, out, passphrase_file, valid_hours, source, json } = arguments;
    let at = HostPort::parse(&address).map_err(|why| anyhow::anyhow!("--address = {address}: {why}"))?;
    let out = super::absolute(&out);
    if out.exists() {
        bail!("{} exists and a bundle never overwrites: name another file", out.display());
    }
    let node = Node::of(source, environment)?;
    let (ca_pem, key_pem) = authority(&node.config)?;
    let status = node.status()?;
    let passphrase = passphrase(passphrase_file.as_deref(), true)?;
    let now_ms = SystemClock.wall_ms();
    let names: Vec<String> = [at.host.clone()].into_iter().chain(hosts).collect();
    let issued = issue_node(&ca_pem, &key_pem, status.next_node, &names, now_ms, &SystemEntropy)?;
    let told = node.config.tls.endpoint(node.config.tls.bind);
    let invitation = Invitation {
        cluster: status.cluster,
        generation: status.generation,
        node: status.next_node,
        name: name.clone(),
        rack,
        host: at.host,
        port: at.port,
        bootstrap: HostPort { host: told.host, port: told.port }.to_string(),
        settings: settings(&node.config),
        known: known(&status),
        valid_hours,
        now_ms,
    };
    let (bundle, command) = make(invitation, issued, ca_pem, &SystemEntropy)?;
    Bundle::write(&out, &bundle.seal(&passphrase, &SystemEntropy)?)?;
    if let Err(error) = node.ask(&Ask::Add(Box::new(command))) {
        // If the cluster knows of the node after all, the bundle is lost and the invitation can be taken back.
        let _ = std::fs::remove_file(&out);
        return Err(error.context(format!("node {name} was not added")));
    }
    let (id, expires_ms) = (bundle.node, bundle.expires_ms);
    Ok(if json {
        pretty(&json!({ "node": id.0, "name": name, "bundle": out, "expires_ms": expires_ms }))
    } else {
        format!(
            "node {id} ({name}) is invited for {valid_hours} hours\n\n\
             its join bundle:  {0}\non its machine:   casemate init DIR --bundle {1}\n\
             \x20                 casemate serve --config DIR/casemate.toml\n\
             Let the passphrase travel another way than the bundle. What objects.*_file names is not in the bundle: copy it.\n",
            out.display(),
            out.file_name().map_or_else(|| out.display().to_string(), |file| file.display().to_string()),
        )
    })
}

/// Certificate and key of the authority that `casemate init` made.
fn authority(config: &Config) -> Result<(String, String)> {
    let key = config.data_dir.join("tls/ca.key");
    if !key.exists() {
        bail!(
            "{} is not there, and every node's certificate is signed with it: run this on the cluster's first node, whose \
             folder casemate init made",
            key.display()
        );
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: run this as the owner of the folder", path.display()))
    };
    Ok((read(&config.tls_files.client_ca)?, read(&key)?))
}

/// What all nodes have in common: Kafka's settings and where objects are.
fn settings(config: &Config) -> Vec<(String, String)> {
    let (objects, defaults) = (&config.options.objects, Options::default().objects);
    let objects = [
        ("objects.url", &objects.url, &defaults.url),
        ("objects.endpoint", &objects.endpoint, &defaults.endpoint),
        ("objects.region", &objects.region, &defaults.region),
        ("objects.ca_file", &objects.ca_file, &defaults.ca_file),
        ("objects.client_cert_file", &objects.client_cert_file, &defaults.client_cert_file),
        ("objects.client_key_file", &objects.client_key_file, &defaults.client_key_file),
        ("objects.credentials_file", &objects.credentials_file, &defaults.credentials_file),
    ];
    let objects = objects.into_iter().filter(|(_, value, default)| value != default);
    let objects = objects.map(|(key, value, _)| (key.to_owned(), value.clone()));
    config.kafka.iter().map(|(key, value)| (key.clone(), value.clone())).chain(objects).collect()
}

fn known(status: &Status) -> Vec<KnownNode> {
    let joined = status.nodes.iter().filter(|node| matches!(node.state, NodeState::Joined { .. }));
    let known = joined.map(|node| KnownNode {
        node: node.node,
        host: node.host.clone(),
        port: node.port,
        identity: node.identity.clone(),
    });
    known.take(KNOWN_NODES_MAX).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn as_json(config: &Config, status: &Status) -> Value {
    let nodes = status.nodes.iter().map(|node| {
        let broker = node.broker.as_ref().map(|broker| {
            let endpoints = broker.endpoints.iter();
            let endpoint =
                |e: &crate::metadata::Endpoint| json!({ "listener": e.listener, "host": e.host, "port": e.port });
            json!({
                "epoch": broker.epoch.0,
                "fenced": broker.fenced,
                "version": broker.version,
                "endpoints": endpoints.map(endpoint).collect::<Vec<_>>(),
            })
        });
        let expires_ms = match node.state {
            NodeState::Invited { expires_ms } => Some(expires_ms),
            NodeState::Joined { .. } => None,
        };
        json!({
            "id": node.node.0,
            "name": node.name,
            "rack": node.rack,
            "host": node.host,
            "port": node.port,
            "identity": node.identity,
            "state": if expires_ms.is_some() { "invited" } else { "joined" },
            "expires_ms": expires_ms,
            "draining": node.draining,
            "leader": status.leader == Some(node.node),
            "role": role(node),
            "lag": node.lag,
            "broker": broker,
            "partitions": node.partitions,
        })
    });
    let ledgers = status.ledgers.iter().map(|ledger| {
        json!({
            "id": ledger.ledger.0,
            "node": ledger.node.0,
            "replicas": ledger.replicas.iter().map(|node| node.0).collect::<Vec<_>>(),
            "end": ledger.end.map(|end| end.0),
            "uploaded": ledger.uploaded.0,
        })
    });
    json!({
        "cluster_id": status.cluster.to_string(),
        "generation": status.generation,
        "asked": config.node.0,
        "seen_by": status.seen_by.0,
        "leader": status.leader.map(|node| node.0),
        "term": status.term,
        "nodes": nodes.collect::<Vec<_>>(),
        "ledgers": ledgers.collect::<Vec<_>>(),
    })
}

/// Its part in the metadata quorum.
fn role(node: &NodeStatus) -> Option<&'static str> {
    node.votes.map(|votes| if votes { "voter" } else { "learner" })
}

fn as_text(status: &Status) -> String {
    let mut text = format!("cluster {}, generation {}\n", status.cluster, status.generation);
    let _ = match status.leader {
        Some(leader) => writeln!(text, "node {leader} leads the metadata quorum in term {}", status.term),
        None => writeln!(text, "nobody leads the metadata quorum, as far as node {} knows", status.seen_by),
    };
    let header = ["id", "name", "rack", "address", "state", "quorum", "behind", "broker", "partitions", "clients"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for node in &status.nodes {
        let broker = node.broker.as_ref();
        let dash = || "-".to_owned();
        let state = match node.state {
            NodeState::Joined { .. } if node.draining => "draining",
            NodeState::Joined { .. } => "joined",
            NodeState::Invited { .. } => "invited",
        };
        let role = role(node).map(|role| if status.leader == Some(node.node) { "leader" } else { role });
        let endpoints = broker.map(|broker| {
            let told = broker.endpoints.iter().map(|e| HostPort { host: e.host.clone(), port: e.port }.to_string());
            told.collect::<Vec<_>>().join(" ")
        });
        rows.push(vec![
            node.node.to_string(),
            node.name.clone(),
            if node.rack.is_empty() { dash() } else { node.rack.clone() },
            HostPort { host: node.host.clone(), port: node.port }.to_string(),
            state.to_owned(),
            role.map_or_else(dash, str::to_owned),
            node.lag.map_or_else(dash, |lag| lag.to_string()),
            broker.map_or_else(dash, |b| if b.fenced { "fenced".to_owned() } else { format!("epoch {}", b.epoch) }),
            node.partitions.to_string(),
            endpoints.unwrap_or_else(dash),
        ]);
    }
    text.push_str(&table(&rows));
    if !status.ledgers.is_empty() {
        let header = ["ledger", "writer", "replicas", "uploaded", "end"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(status.ledgers.iter().map(|ledger| {
            let replicas = ledger.replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let end = ledger.end.map_or_else(|| "open".to_owned(), |end| end.to_string());
            vec![ledger.ledger.to_string(), ledger.node.to_string(), replicas, ledger.uploaded.to_string(), end]
        }));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::beside;

    #[test]
    fn a_connection_is_tended_while_the_command_does_something_else() {
        let runtime = beside().unwrap();
        let (alive, heard) = channel();
        let tended = runtime.spawn(async move {
            for beat in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                alive.send(beat).unwrap();
            }
        });
        // The thread of the command is not in the runtime.
        let beats: Vec<i32> = (0..3).map_while(|_| heard.recv_timeout(Duration::from_secs(30)).ok()).collect();
        assert_eq!(beats, [0, 1, 2]);
        runtime.block_on(tended).unwrap();
    }
}
