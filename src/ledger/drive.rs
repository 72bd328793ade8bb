//! Drives a [`LedgerWriter`] whose ledger has replicas on other nodes: carries entries there and answers back, gives it
//! the time, tells it which brokers there are, and has the metadata decide about another replica set.
//!
//! One task drives; beside it each other member has a task of its own with a connection. A member gets several messages
//! of several entries each before it has answered the first. When a connection ends, whatever was under way on it is
//! forgotten: with the next one the writer sends again what has not been acknowledged.
//!
//! A node alone needs none of this: its WAL's news are all that its writer waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::base::NodeId;
use crate::base::limits::PEER_LEDGER_BODY_BYTES_MAX;
use crate::env::Clock;
use crate::metadata::{self, Image};

use super::core::{Outcome, WriterEvent};
use super::placement::{self, Candidates};
use super::wire;
use super::writer::{LedgerWriter, Proposal};

/// Bytes of the entries in one message; a larger entry goes alone.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages to one replica that are under way.
const MESSAGES_MAX: usize = 16;
/// How often the writer is told the time.
const TICK: Duration = Duration::from_millis(100);
/// How often brokers that are no members are tried. A writer forgets a spare when it gives it up as a member, and nothing else
/// tells that it can be reached again; less often than a member is given up, so that one that comes and goes is not in and out.
const OFFER_EVERY: Duration = Duration::from_secs(3);
/// Pause after a connection that was not to be had, or not of use.
const PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(MESSAGE_BYTES < PEER_LEDGER_BODY_BYTES_MAX);

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// As much as may be is under way. To be tried again when something of it was answered.
    Full,
    /// The connection has ended, or cannot carry this.
    Ended,
}

/// What comes of a message; an error when nothing will come of it on this connection.
pub type Answering = BoxFuture<'static, Result<wire::Answer, String>>;

/// The way to one replica.
pub trait Link: Send + Sync {
    /// Waits for a connection, and answers its number. Each connection has another.
    fn connected(&self) -> BoxFuture<'_, Result<u64, String>>;
    /// Returns when that connection has ended.
    fn ended(&self, connection: u64) -> BoxFuture<'_, ()>;
    /// Sends on that connection, behind everything sent on it before.
    fn send(&self, connection: u64, request: &wire::Request) -> Result<Answering, NotSent>;
}

/// The ways to all other nodes.
pub trait Links: Send + Sync {
    /// `None` while no address of the node is known.
    fn link(&self, node: NodeId) -> Option<Arc<dyn Link>>;
}

/// Has the metadata decide.
pub trait Openings: Send + Sync {
    /// Proposes to close one ledger and open the next with these replicas.
    fn open(&self, proposal: Proposal) -> BoxFuture<'static, Outcome>;
}

/// What a driver needs beside its writer.
pub struct DriveParts {
    pub links: Arc<dyn Links>,
    pub openings: Arc<dyn Openings>,
    pub image: watch::Receiver<Arc<Image>>,
    pub clock: Arc<dyn Clock>,
}

/// Drives `writer` until the task is dropped.
pub async fn drive(writer: Arc<LedgerWriter>, parts: DriveParts) {
    let mut driver = Driver { writer, parts, up: BTreeMap::new(), members: BTreeMap::new(), tasks: JoinSet::new() };
    driver.run().await;
}

struct Driver {
    writer: Arc<LedgerWriter>,
    parts: DriveParts,
    /// Brokers of which the writer knows.
    up: BTreeMap<NodeId, metadata::Replica>,
    members: BTreeMap<NodeId, AbortHandle>,
    /// Dropping it ends the members' tasks.
    tasks: JoinSet<()>,
}

impl Driver {
    async fn run(&mut self) {
        // The writer's time begins with it: replicas are not late by the age of the machine.
        let begun = self.parts.clock.boottime();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut image = self.parts.image.clone();
        image.mark_changed();
        let mut deciding = FuturesUnordered::new();
        let (mut reached, mut offer_at) = (FuturesUnordered::new(), begun + OFFER_EVERY);
        loop {
            self.follow_members();
            if self.parts.clock.boottime() >= offer_at {
                offer_at = self.parts.clock.boottime() + OFFER_EVERY;
                reached.extend(self.spares().into_iter().map(|(replica, link)| reach(replica, link)));
            }
            if let Some(proposal) = self.writer.take_proposal() {
                let (close, outcome) = (proposal.close, self.parts.openings.open(proposal));
                deciding.push(async move { (close, outcome.await) });
            }
            tokio::select! {
                () = self.writer.work().notified() => self.writer.settle(),
                _ = ticks.tick() => {
                    let since = self.parts.clock.boottime().saturating_sub(begun);
                    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                    self.writer.step(WriterEvent::Tick { now_ms });
                }
                Ok(()) = image.changed() => {
                    let image = image.borrow_and_update().clone();
                    self.follow_nodes(&image);
                }
                Some((close, outcome)) = deciding.next() => {
                    if !matches!(outcome, Outcome::Opened { .. }) {
                        tracing::warn!(ledger = %close, ?outcome, "no other replica set was opened");
                    }
                    self.writer.step(WriterEvent::Decided { close, outcome });
                }
                // The writer may have given it up when it was out of reach; from now on it is a spare again.
                Some(spare) = reached.next() => self.offer(spare),
                // A task that ended; the set only has to be emptied.
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Brokers that may serve and are no members, with the ways to them.
    fn spares(&self) -> Vec<(metadata::Replica, Arc<dyn Link>)> {
        let others = self.up.values().filter(|replica| !self.members.contains_key(&replica.node));
        others.filter_map(|replica| Some((*replica, self.parts.links.link(replica.node)?))).collect()
    }

    /// Tells the writer of a broker that was reached, if it is still one.
    fn offer(&self, spare: Option<metadata::Replica>) {
        if let Some(spare) = spare.filter(|spare| self.up.get(&spare.node) == Some(spare)) {
            self.writer.step(WriterEvent::NodeUp(spare));
        }
    }

    /// Keeps a task for each other member of the set.
    fn follow_members(&mut self) {
        let own = self.writer.own().node;
        let nodes: Vec<NodeId> = self.writer.replicas().iter().map(|r| r.node).filter(|node| *node != own).collect();
        if self.members.keys().eq(nodes.iter()) {
            return;
        }
        self.members.retain(|node, task| {
            let stays = nodes.contains(node);
            if !stays {
                task.abort();
            }
            stays
        });
        for (node, wake) in self.writer.set_outboxes(&nodes) {
            self.members.entry(node).or_insert_with(|| {
                let (writer, links) = (self.writer.clone(), self.parts.links.clone());
                self.tasks.spawn(serve_member(writer, links, node, wake))
            });
        }
    }

    /// Tells the writer which brokers may hold replicas.
    fn follow_nodes(&mut self, image: &Image) {
        let own = self.writer.own().node;
        let Candidates { staying, leaving } = placement::candidates(image, own);
        self.writer.set_racks(placement::racks(image));
        self.writer.set_leaving(leaving.iter().map(|replica| replica.node).collect());
        let now: BTreeMap<_, _> = staying.into_iter().chain(leaving).map(|r| (r.node, r)).collect();
        self.writer.set_may_be_alone(now.keys().all(|node| *node == own) && image.may_write_alone(own));
        for node in self.up.keys().filter(|node| !now.contains_key(node)) {
            self.writer.step(WriterEvent::NodeDown(*node));
        }
        for replica in now.values().filter(|replica| self.up.get(&replica.node) != Some(replica)) {
            self.writer.step(WriterEvent::NodeUp(*replica));
        }
        self.up = now;
    }
}

/// The broker, if there is a connection to it within a moment.
async fn reach(replica: metadata::Replica, link: Arc<dyn Link>) -> Option<metadata::Replica> {
    let connected = timeout(OFFER_EVERY, link.connected()).await;
    matches!(connected, Ok(Ok(_))).then_some(replica)
}

/// Carries entries to one member, and its answers back, over one connection after the other.
async fn serve_member(writer: Arc<LedgerWriter>, links: Arc<dyn Links>, node: NodeId, wake: Arc<Notify>) {
    loop {
        let connected = match links.link(node) {
            Some(link) => link.connected().await.map(|connection| (link.clone(), connection)),
            None => Err("its address is not known".to_owned()),
        };
        match connected {
            Ok((link, connection)) => {
                writer.connected(node);
                let why = serve_connection(&writer, &*link, (node, connection), &wake).await;
                tracing::debug!(%node, why, "the connection to a replica is given up");
            }
            Err(why) => tracing::debug!(%node, why, "no connection to a replica"),
        }
        writer.lost(node);
        sleep(PAUSE).await;
    }
}

/// Returns why it is of no use any more.
async fn serve_connection(
    writer: &LedgerWriter,
    link: &dyn Link,
    (node, connection): (NodeId, u64),
    wake: &Notify,
) -> String {
    let mut answers = FuturesUnordered::new();
    // A message for which there was no room.
    let mut held: Option<wire::Request> = None;
    let ended = link.ended(connection);
    tokio::pin!(ended);
    loop {
        while answers.len() < MESSAGES_MAX
            && let Some(message) = held.take().or_else(|| writer.take_message(node, MESSAGE_BYTES))
        {
            match link.send(connection, &message) {
                Ok(answering) => answers.push(answering),
                Err(NotSent::Full) => {
                    held = Some(message);
                    break;
                }
                Err(NotSent::Ended) => return "it has ended".to_owned(),
            }
        }
        tokio::select! {
            () = &mut ended => return "it has ended".to_owned(),
            Some(answer) = answers.next() => match answer {
                // Nobody speaks for another node.
                Ok(wire::Answer { from, reply }) if from.node == node => {
                    writer.step(WriterEvent::Answered { from, reply });
                }
                Ok(wire::Answer { from, .. }) => return format!("node {} answered", from.node),
                Err(why) => return why,
            },
            () = wake.notified(), if held.is_none() && answers.len() < MESSAGES_MAX => {}
            // Others share the connection and its bounds.
            () = sleep(PAUSE), if held.is_some() && answers.is_empty() => {}
        }
    }
}
