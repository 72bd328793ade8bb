//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use super::init::Request;

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
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
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

impl Init {
    pub fn request(&self) -> Result<Request> {
        let Init { dir, hosts, listen, advertise } = self;
        Request::new(dir.clone(), hosts.clone(), listen.clone(), advertise.clone())
    }
}
