//! `create` makes a topic and waits for its leaders; `ready` waits until every copy of it is there and gives each partition
//! back to its preferred leader.

use super::site::{Links, Site, View};
use crate::client::{text, topic};
use crate::options::Options;
use crate::wire::unexpected;
use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::*;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// `--topic NAME --partitions N [--replicas 3] [--assign 1,2]`: with `--assign` the replicas of its one partition.
pub async fn create(site: &Site, options: &Options) -> io::Result<()> {
    let (name, partitions) = (options.text("topic", "bench"), options.number("partitions", 1) as i32);
    let replicas = options.number("replicas", 3) as i16;
    let config = |name, value| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let wanted = CreatableTopic::default().with_name(topic(&name)).with_configs(vec![
        config("retention.ms", "-1"),
        config("max.message.bytes", "4194304"),
        config("min.insync.replicas", if replicas > 1 { "2" } else { "1" }),
    ]);
    let wanted = match options.text("assign", "") {
        none if none.is_empty() => wanted.with_num_partitions(partitions).with_replication_factor(replicas),
        nodes => {
            let nodes = nodes.split(',').map(|n| BrokerId(n.parse().expect("--assign holds numbers"))).collect();
            let assigned = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(nodes);
            wanted.with_num_partitions(-1).with_replication_factor(-1).with_assignments(vec![assigned])
        }
    };
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    let mut links = Links::new(site);
    let answer = links.ask(7, &request, Duration::from_secs(60)).await?;
    match answer.topics.first().map_or(-1, |t| t.error_code) {
        0 | 36 => {}
        code => return Err(unexpected("CreateTopics", code)),
    }
    wait(&mut links, &name, "have leaders", |view| view.partitions.iter().all(|p| p.leader > 0)).await?;
    Ok(())
}

/// `--topic NAME [--nodes 3]`: prints how many partitions each node leads then.
pub async fn ready(site: &Site, options: &Options) -> io::Result<()> {
    let (name, nodes) = (options.text("topic", "bench"), options.number("nodes", 3) as usize);
    let mut links = Links::new(site);
    let whole = |view: &View| {
        view.nodes.len() == nodes && view.partitions.iter().all(|p| p.leader > 0 && p.in_sync.len() == p.replicas.len())
    };
    wait(&mut links, &name, "have all their copies", whole).await?;
    let request = ElectLeadersRequest::default().with_election_type(0).with_timeout_ms(30_000);
    links.ask(2, &request.with_topic_partitions(None), Duration::from_secs(60)).await?;
    let fair = |view: &View| {
        let led = led(view);
        led.len() == nodes.min(view.partitions.len())
            && led.values().max().unwrap_or(&0) <= &(view.partitions.len() / nodes + view.partitions.len() / 10 + 1)
    };
    let view = wait(&mut links, &name, "be led evenly", fair).await?;
    eprintln!("  led: {:?}, by the controller: {}", led(&view), links.controller(LIMIT).await?);
    Ok(())
}

/// Partitions led, by node.
pub fn led(view: &View) -> BTreeMap<i32, usize> {
    let mut led = BTreeMap::new();
    view.partitions.iter().for_each(|p| *led.entry(p.leader).or_default() += 1);
    led
}

async fn wait(links: &mut Links<'_>, name: &str, what: &str, wished: impl Fn(&View) -> bool) -> io::Result<View> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let seen = links.look(name, LIMIT).await;
        match seen {
            Ok(view) if wished(&view) => return Ok(view),
            Ok(view) if Instant::now() > deadline => {
                let led = led(&view);
                return Err(io::Error::other(format!("the partitions of {name} do not {what}: led {led:?}")));
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}
