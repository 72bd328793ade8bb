//! Measurements of a cluster: clients that follow the partitions' leaders, over mutual TLS where a folder with a client's
//! certificate is named.
//!
//! Each command prints one line of JSON, or errs if what it measures did not come about.

mod commands;
mod failover;
mod load;
mod moves;
mod site;
mod steady;
mod tls;
mod topics;

use crate::measure::{Process, Spent};
use crate::options::Options;
use crate::wire;
use site::Site;
use std::collections::BTreeMap;
use std::io;

/// The command `cluster`.
pub fn run(words: &[String]) -> io::Result<()> {
    let what = words.first().map_or("", String::as_str);
    let options = Options::parse(words.get(1..).unwrap_or_default());
    wire::on_this_thread(async {
        let site = Site::new(&options)?;
        match what {
            "create" => topics::create(&site, &options).await,
            "ready" => topics::ready(&site, &options).await,
            "load" => load::run(&site, &options).await,
            "fill" => load::fill(&site, &options).await,
            "failover" => failover::run(&site, &options).await,
            "move" => moves::run(&site, &options).await,
            "steady" => steady::run(&site, &options).await,
            "commands" => commands::run(&site, &options).await,
            _ => Err(io::Error::other(format!("no measurement of a cluster is called {what:?}"))),
        }
    })
}

/// The nodes' processes, by node: `--pids 1:4711,2:4712`.
fn pids(options: &Options) -> BTreeMap<i32, u64> {
    let text = options.text("pids", "");
    let each = |pair: &str| {
        let (node, pid) = pair.split_once(':')?;
        Some((node.parse().ok()?, pid.parse().ok()?))
    };
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| each(pair).unwrap_or_else(|| panic!("--pids holds NODE:PID, not {pair:?}")))
        .collect()
}

/// What all the nodes together have spent until now.
fn spent(options: &Options) -> Spent {
    pids(options).into_values().map(|pid| Process::of(pid).now()).fold(Spent::default(), |sum, one| Spent {
        cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
        written_bytes: sum.written_bytes + one.written_bytes,
    })
}
