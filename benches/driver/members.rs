//! What the broker's memory grows by for each idle member of a group.
//!
//! Connections are there before the first measurement, each after a request and a while of silence, and the memory for
//! the newest records is in use by then: what is measured is the groups'.

use crate::batch::{self, NO_PRODUCER};
use crate::client::{Client, text};
use crate::group::{Crew, Plan, Protocol};
use crate::measure::{self, Process, now_ms};
use crate::options::Options;
use crate::wire::{self, Connection};
use kafka_protocol::messages::ApiVersionsRequest;
use std::io;
use std::time::Duration;

/// What it takes for buffers to be given back and uploads to be over.
const SETTLE: Duration = Duration::from_secs(15);

/// The command `members`.
pub fn run(options: &Options) -> io::Result<()> {
    let (members, groups) = (options.number("members", 5000), options.number("groups", 10));
    let each = (members / groups) as usize;
    let protocol = Protocol::of(options);
    let topic = crate::ready_topic(options, &options.text("topic", "members"), each as i32, &[])?;
    wire::find_coordinator(options, 0, &topic)?;
    fill_memory(options, options.number("fill-mb", 128))?;
    let process = Process::of(options.number("pid", 0));
    let (before, connected, idle) = wire::on_this_thread(async {
        // Code, tables and pools that the first group of all needs.
        let mut first = crew(options, protocol, "first", &topic)?;
        first.join(Connection::open_many(options.bootstrap(), 2).await?);
        first.stable().await?;
        first.leave(2);
        tokio::time::sleep(SETTLE).await;
        let before = process.pss_kib();
        let mut connections = vec![];
        for _ in 0..groups {
            connections.push(quiet(Connection::open_many(options.bootstrap(), each).await?).await?);
        }
        tokio::time::sleep(SETTLE).await;
        let connected = process.pss_kib();
        let mut crews = vec![];
        for (connections, number) in connections.into_iter().zip(0..) {
            let mut crew = crew(options, protocol, &number.to_string(), &topic)?;
            crew.join(connections);
            crew.stable().await?;
            crews.push(crew);
        }
        tokio::time::sleep(SETTLE).await;
        for crew in &crews {
            crew.stable().await?;
        }
        let idle = process.pss_kib();
        crews.into_iter().for_each(Crew::vanish);
        Ok((before, connected, idle))
    })?;
    let count = (each as u64 * groups) as f64;
    let kib_each = |after: u64, before: u64| (after as f64 - before as f64) / count;
    let mut line = measure::line(options.text("label", "?"), "members", members, groups);
    line.text("case", &format!("{members} members in {groups} groups, {}", protocol.name()));
    line.put("pss_before_kib", before as f64);
    line.put("pss_connected_kib", connected as f64);
    line.put("pss_idle_kib", idle as f64);
    line.put("kib_per_connection", kib_each(connected, before));
    line.put("kib_per_member", kib_each(idle, connected));
    line.print();
    Ok(())
}

fn crew(options: &Options, protocol: Protocol, name: &str, topic: &str) -> io::Result<Crew> {
    Ok(Crew::new(Plan::new(options, &format!("{topic}-{}-{name}", protocol.name()), topic)?))
}

/// Connections that have been used once.
async fn quiet(mut connections: Vec<Connection>) -> io::Result<Vec<Connection>> {
    let request = ApiVersionsRequest::default().with_client_software_name(text("driver"));
    let request = request.with_client_software_version(text("1"));
    for connection in &mut connections {
        connection.call(3, &request).await?;
    }
    Ok(connections)
}

/// Writes so many megabytes, which push everything older out of the memory that is kept for the newest records.
fn fill_memory(options: &Options, megabytes: u64) -> io::Result<()> {
    let name = crate::ready_topic(options, "members-fill", 1, &[])?;
    let mut client = Client::connect(options.bootstrap())?;
    let encoded = batch::encode(&crate::values(1 << 20, 1024, 0), NO_PRODUCER, -1, now_ms());
    for _ in 0..megabytes {
        let produced = client.produce(&name, 0, encoded.clone())?;
        if produced.error != 0 {
            return Err(wire::unexpected("Produce", produced.error));
        }
    }
    Ok(())
}
