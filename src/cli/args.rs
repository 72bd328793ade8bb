//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use super::init::Request;
use super::join;
use crate::security::Passphrase;
use crate::security::bundle::VALID_HOURS_DEFAULT;

/// A Kafka-compatible event-streaming appliance in one binary.
#[derive(Parser, Debug)]
#[command(name = "casemate", disable_version_flag = true, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make the folder of a new node: identity, certificates, configuration
    Init(Init),
    /// Serve by mutual TLS from a folder that `init` made
    Serve(Source),
    /// Try it out on this machine: plaintext and without authorization, on loopback only
    Dev(Dev),
    /// Check or show a configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// See and change the cluster, on one of its nodes
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone, Debug)]
pub(super) struct Init {
    /// Folder to make; it must not hold anything
    pub dir: PathBuf,
    /// Name or address that clients reach this node by, for its certificate; the first is also advertised
    #[arg(long = "host", value_name = "NAME|IP")]
    pub hosts: Vec<String>,
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:9093")]
    pub listen: String,
    /// Address that clients are told [default: the first host, or this machine's name, and the port]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Address to listen on for other nodes [default: that of --listen, at port 9094; with a bundle all addresses]
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_listen: Option<String>,
    /// Join bundle that `casemate cluster add-node` made: the folder is that of a node which joins
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    pub bundle: Option<PathBuf>,
    /// File with the bundle's passphrase; without it the passphrase is asked for
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pub passphrase_file: Option<PathBuf>,
}

/// Where a configuration comes from.
#[derive(Args, Debug)]
pub(super) struct Source {
    /// The configuration file, DIR/casemate.toml of `init`
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Give an option or a Kafka setting another value, such as num.partitions=4
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct Dev {
    /// Folder of the data; made if it is not there
    #[arg(long, default_value = "./casemate-data")]
    pub dir: PathBuf,
    /// Plaintext listener; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Mutual TLS listener [default: 127.0.0.1:9093]
    #[arg(long, value_name = "HOST:PORT")]
    pub tls_listen: Option<String>,
    /// Metrics and health [default: 127.0.0.1:9095]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin_listen: Option<String>,
    /// Give an option or a Kafka setting another value, such as num.partitions=4
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Say whether a configuration can be used
    Check(Source),
    /// Print what is in force, defaults included
    Show {
        #[command(flatten)]
        source: Source,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum ClusterCommand {
    /// Show nodes, voters, brokers and ledgers that are not finished
    Status {
        #[command(flatten)]
        source: Source,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Invite a node: makes its join bundle. Needs the authority's key, which the first node's folder has
    AddNode(AddNode),
    /// Forget a node, or an invitation
    RemoveNode(Named),
    /// Let this node lead the metadata quorum
    Promote(Named),
    /// Let other nodes lead the partitions of this one, and give it none, as before it is removed
    Drain {
        #[command(flatten)]
        named: Named,
        /// Give it partitions again
        #[arg(long)]
        stop: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct AddNode {
    /// What people call the new node
    pub name: String,
    /// Where the other nodes will reach it; its certificate is made for this host
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// Further name or address that clients reach it by, for its certificate
    #[arg(long = "host", value_name = "NAME|IP")]
    pub hosts: Vec<String>,
    /// Rack or zone in which it stands
    #[arg(long, value_name = "NAME", default_value = "")]
    pub rack: String,
    /// File to write the sealed bundle to; it must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// File with the bundle's passphrase; without it the passphrase is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// How long the node may take to join
    #[arg(long, value_name = "HOURS", default_value_t = VALID_HOURS_DEFAULT)]
    pub valid_hours: i64,
    #[command(flatten)]
    pub source: Source,
    /// Say as JSON what was made
    #[arg(long)]
    pub json: bool,
}

/// A node that a command is about.
#[derive(Args, Debug)]
pub(super) struct Named {
    /// Name or id of the node
    pub name: String,
    #[command(flatten)]
    pub source: Source,
    /// Say as JSON what was done
    #[arg(long)]
    pub json: bool,
}

impl Init {
    pub fn request(&self) -> Result<Request> {
        let Init { dir, hosts, listen, advertise, peer_listen, .. } = self;
        Request::new(dir.clone(), hosts.clone(), listen.clone(), advertise.clone(), peer_listen.clone())
    }

    /// What to make out of a bundle.
    pub fn joining(&self) -> join::Request {
        let Init { dir, listen, advertise, peer_listen, .. } = self.clone();
        join::Request { dir, listen, advertise, peer_listen }
    }

    pub fn passphrase(&self) -> Result<Passphrase> {
        passphrase(self.passphrase_file.as_deref(), false)
    }
}

/// The passphrase of a join bundle, out of a file or from the terminal; a new one is typed twice.
pub(super) fn passphrase(file: Option<&Path>, new: bool) -> Result<Passphrase> {
    Ok(match file {
        Some(file) => Passphrase::from_file(file)?,
        None => Passphrase::ask("Passphrase of the join bundle", new)?,
    })
}
