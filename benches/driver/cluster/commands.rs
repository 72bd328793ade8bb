//! `commands`: metadata commands one after the other, each a change of a topic's setting, sent to the node that leads the
//! metadata quorum: `--topic NAME [--count 200]`.

use super::site::{Links, Site};
use crate::client::text;
use crate::measure::{self, Latencies};
use crate::options::Options;
use crate::wire::unexpected;
use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::*;
use std::io;
use std::time::{Duration, Instant};

const TOPIC: i8 = 2;
const SET: i8 = 0;
const LIMIT: Duration = Duration::from_secs(20);
/// Commands before those that count.
const WARMUP: u64 = 20;

pub async fn run(site: &Site, options: &Options) -> io::Result<()> {
    let (name, count) = (options.text("topic", "bench"), options.number("count", 200));
    let mut links = Links::new(site);
    let view = links.look(&name, LIMIT).await?;
    let controller = links.controller(LIMIT).await?;
    let address = *view.nodes.get(&controller).ok_or_else(|| io::Error::other("the controller has no address"))?;
    let mut latencies = Latencies::default();
    for n in 0..count + WARMUP {
        let value = (86_400_000 + n).to_string();
        let config = AlterableConfig::default().with_name(text("delete.retention.ms")).with_config_operation(SET);
        let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text(&name));
        let resource = resource.with_configs(vec![config.with_value(Some(text(&value)))]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let began = Instant::now();
        let answer = links.call(address, 1, &request, LIMIT).await?;
        if let Some(code) = answer.responses.iter().map(|r| r.error_code).find(|code| *code != 0) {
            return Err(unexpected("IncrementalAlterConfigs", code));
        }
        if n >= WARMUP {
            latencies.add(began.elapsed());
        }
    }
    let mut line = measure::line(options.text("label", "?"), "commands", 1, 0);
    line.text("case", &options.text("case", "one after the other"));
    line.latencies(&latencies);
    line.print();
    Ok(())
}
