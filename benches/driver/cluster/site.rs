//! A cluster as its clients see it: where the nodes are, who leads which partition, and connections to them.

use super::tls;
use crate::client::topic;
use crate::options::Options;
use crate::wire::{Connection, Stream, unexpected};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A node that does not take a connection within this time is away.
const DIAL: Duration = Duration::from_secs(1);

/// How to get in.
pub struct Site {
    bootstrap: Vec<SocketAddr>,
    tls: Option<TlsConnector>,
}

/// One partition, as the nodes say.
#[derive(Clone, Debug)]
pub struct Partition {
    /// −1 for nobody.
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// One topic, as a node says.
#[derive(Debug)]
pub struct View {
    pub nodes: BTreeMap<i32, SocketAddr>,
    /// By number.
    pub partitions: Vec<Partition>,
}

impl View {
    pub fn leader_of(&self, partition: i32) -> Option<SocketAddr> {
        let leader = self.partitions.get(partition as usize)?.leader;
        self.nodes.get(&leader).copied()
    }
}

impl Site {
    pub fn new(options: &Options) -> io::Result<Site> {
        let text = options.text("bootstrap", "127.0.0.1:9092");
        let bootstrap = text.split(',').map(|a| a.parse().unwrap_or_else(|_| panic!("--bootstrap: {a:?}"))).collect();
        let tls = match options.text("tls", "") {
            none if none.is_empty() => None,
            folder => Some(tls::connector(folder.as_ref())?),
        };
        Ok(Site { bootstrap, tls })
    }

    pub async fn dial(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let dialled = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Box::new(socket) as Box<dyn Stream>) };
            let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
            Ok(Box::new(tls.connect(name, socket).await?) as Box<dyn Stream>)
        };
        tokio::time::timeout(DIAL, dialled).await.unwrap_or_else(|_| Err(late(address)))
    }
}

fn late(address: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))
}

/// Connections that stay open, one to each node; a failure closes the one that it was on.
pub struct Links<'a> {
    site: &'a Site,
    open: BTreeMap<SocketAddr, Connection>,
}

impl<'a> Links<'a> {
    pub fn new(site: &'a Site) -> Links<'a> {
        Links { site, open: BTreeMap::new() }
    }

    /// Asks one node.
    pub async fn call<R: Request>(
        &mut self,
        address: SocketAddr,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> io::Result<R::Response> {
        let exchange = async {
            let mut link = match self.open.remove(&address) {
                Some(link) => link,
                None => Connection::over(self.site.dial(address).await?),
            };
            let answer = link.call(version, request).await?;
            Ok((link, answer))
        };
        let (link, answer) = tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(late(address)))?;
        self.open.insert(address, link);
        Ok(answer)
    }

    /// Asks the nodes in turn until one answers.
    pub async fn ask<R: Request>(&mut self, version: i16, request: &R, limit: Duration) -> io::Result<R::Response> {
        let mut last = io::Error::other("no address is known");
        for address in self.site.bootstrap.clone() {
            match self.call(address, version, request, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A topic as the first node that answers sees it.
    pub async fn look(&mut self, name: &str, limit: Duration) -> io::Result<View> {
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        let answer = self.ask(12, &request, limit).await?;
        view(answer)
    }

    /// The node on which the metadata quorum's leader is.
    pub async fn controller(&mut self, limit: Duration) -> io::Result<i32> {
        use describe_quorum_request::{PartitionData, TopicData};
        let topic = TopicData::default().with_topic_name(topic("__cluster_metadata"));
        let topic = topic.with_partitions(vec![PartitionData::default().with_partition_index(0)]);
        let answer = self.ask(1, &DescribeQuorumRequest::default().with_topics(vec![topic]), limit).await?;
        let leader = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.leader_id.0).find(|id| *id > 0);
        leader.ok_or_else(|| io::Error::other("the metadata quorum has no leader"))
    }
}

fn view(answer: MetadataResponse) -> io::Result<View> {
    let mut nodes = BTreeMap::new();
    for broker in &answer.brokers {
        let address = format!("{}:{}", broker.host.as_str(), broker.port).parse().map_err(io::Error::other)?;
        nodes.insert(broker.node_id.0, address);
    }
    let topic = answer.topics.into_iter().next().ok_or_else(|| io::Error::other("the answer names no topic"))?;
    if topic.error_code != 0 {
        return Err(unexpected("Metadata", topic.error_code));
    }
    let mut partitions = topic.partitions;
    partitions.sort_by_key(|p| p.partition_index);
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    let partitions = partitions.iter().map(|p| Partition {
        leader: p.leader_id.0,
        replicas: ids(&p.replica_nodes),
        in_sync: ids(&p.isr_nodes),
    });
    Ok(View { nodes, partitions: partitions.collect() })
}
