//! Who forms the cluster, hands the leadership over, and replaces nodes; one change of the members at a time.

use std::sync::Arc;
use std::time::Duration;

use super::clients::{BROKER, PATIENCE};
use super::cluster::World;
use crate::base::{ClusterId, NodeId, WalIncarnation};
use crate::metadata::{Command, Image};
use crate::quorum::{Create, Quorum};

/// How a voter is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Its disk is lost.
    Wiped,
    /// It is taken out of the quorum first, as `remove-node` does.
    TakenOut,
    /// It is removed from the metadata alone.
    Removed,
}

fn add_node(node: i32) -> Command {
    Command::AddNode {
        node: NodeId(node),
        name: format!("n{node}"),
        rack: String::new(),
        host: format!("h{node}"),
        port: 1,
        identity: format!("CN=node-{node}"),
        token_sha256: [node as u8; 32],
        expires_ms: 1_000,
        now_ms: 2,
    }
}

impl World {
    /// A cluster of so many nodes, without trouble.
    pub async fn form(self: &Arc<World>, nodes: i32) {
        self.add(1, Create::Quorum);
        self.boot(1).await;
        let directory = self.running(1).map(|(_, quorum)| quorum.owner().directory).unwrap();
        let node = BROKER;
        let (name, rack, host, identity) = ("n1".to_owned(), String::new(), "h1".to_owned(), "CN=node-1".to_owned());
        let (port, now_ms, endpoints, version) = (1, 1, Vec::new(), "1".to_owned());
        let first = [
            Command::InitCluster { cluster: ClusterId([3; 16]), generation: 1 },
            Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms },
            Command::RegisterBroker { node, incarnation: WalIncarnation([8; 16]), boot: 1, endpoints, version, now_ms },
        ];
        for (command, before) in first.into_iter().zip(0..) {
            self.must(move |_| Some(command.clone()), move |image| image.applied > before).await;
        }
        for node in 2..=nodes {
            self.admit(node).await;
        }
        let voters = if nodes < 5 { 3 } else { 5 };
        self.settled(voters).await;
    }

    /// Waits until so many vote, or more, nobody is on the way in or out, and somebody leads them. (When one of five goes, four go
    /// on voting.)
    pub async fn settled(&self, voters: usize) {
        while !self.is_broken() {
            let status = self.leader().map(|(_, quorum)| (quorum.status(), quorum.image().borrow().clone()));
            let is_settled = status.is_some_and(|(status, image)| {
                let members = status.voters.iter().chain(&status.learners).copied();
                let mut members: Vec<NodeId> = members.collect();
                members.sort_unstable();
                status.voters.len() >= voters && members.iter().eq(image.nodes.keys())
            });
            if is_settled {
                return;
            }
            self.pause(50, 150).await;
        }
    }

    /// The node that is sure to lead.
    pub fn leader(&self) -> Option<(i32, Arc<Quorum>)> {
        let sure =
            |node: i32| self.running(node).filter(|(_, quorum)| quorum.leads()).map(|(_, quorum)| (node, quorum));
        self.all_running().into_iter().find_map(sure)
    }

    /// Has the leader carry out what `wanted` says, given the image, until `done` is seen.
    async fn must(&self, wanted: impl Fn(&Image) -> Option<Command>, done: impl Fn(&Image) -> bool) {
        while !self.is_broken() {
            self.pause(10, 60).await;
            let Some((node, quorum)) = self.leader() else { continue };
            let image = quorum.image().borrow().clone();
            if done(&image) {
                return;
            }
            let Some(command) = wanted(&image) else { continue };
            let patience = Duration::from_secs(3);
            let propose = move |quorum: Arc<Quorum>| async move { quorum.propose(&command).await.is_ok() };
            self.at(node, patience, propose).await;
        }
    }

    /// A new node is invited, starts with an empty disk, and joins.
    async fn admit(self: &Arc<World>, node: i32) {
        let id = NodeId(node);
        self.must(move |_| Some(add_node(node)), move |image| image.nodes.contains_key(&id)).await;
        if !self.nodes().contains_key(&node) {
            self.add(node, Create::Member);
        }
        self.boot(node).await;
        let join = |_: &Image| {
            let (_, quorum) = self.running(node)?;
            let (directory, token_sha256) = (quorum.owner().directory, [node as u8; 32]);
            Some(Command::JoinNode { node: id, token_sha256, directory, now_ms: 3 })
        };
        let joined = |image: &Image| image.nodes.get(&id).is_some_and(|node| node.directory().is_some());
        self.must(join, joined).await;
        self.note("joined", node.into(), 0);
    }

    /// One voter goes, and another node comes in its place.
    pub async fn exchange(self: &Arc<World>, node: i32, how: Exchange, voters: usize) {
        self.note("exchange", node.into(), how as u64);
        if how == Exchange::Wiped {
            self.wipe(node);
            self.pause(0, 500).await;
            self.boot(node).await;
            self.pause(0, 3_000).await;
        }
        let next = self.oracle().newest().next_free_node().0;
        let first = self.rng.one_in(2);
        if first {
            self.admit(next).await;
        }
        self.remove(node, how).await;
        if !first {
            self.admit(next).await;
        }
        self.settled(voters).await;
        // A node that was removed may go on for a while, and changes nothing.
        if let Some(known) = self.nodes().get_mut(&node) {
            known.gone = true;
        }
        self.kill(node, false);
    }

    async fn remove(&self, node: i32, how: Exchange) {
        let id = NodeId(node);
        while how == Exchange::TakenOut && !self.is_broken() {
            self.pause(50, 300).await;
            let Some((leader, _)) = self.leader() else { continue };
            if leader == node {
                self.hand_over(leader).await;
                continue;
            }
            let removed = self.at(leader, PATIENCE, move |quorum| async move {
                let Some(_out) = quorum.take_out(id).await else { return false };
                quorum.propose(&Command::RemoveNode { node: id, now_ms: 9 }).await.is_ok()
            });
            if removed.await == Some(true) || !self.oracle().newest().nodes.contains_key(&id) {
                return;
            }
        }
        let remove = move |_: &Image| Some(Command::RemoveNode { node: id, now_ms: 9 });
        self.must(remove, move |image| !image.nodes.contains_key(&id)).await;
    }

    /// The leader hands over to another voter.
    pub async fn hand_over(&self, leader: i32) -> bool {
        let Some((_, quorum)) = self.running(leader) else { return false };
        let others: Vec<NodeId> = quorum.status().voters.into_iter().filter(|voter| voter.0 != leader).collect();
        let Some(next) = self.pick(&others) else { return false };
        let done = self.at(leader, PATIENCE, move |quorum| async move { quorum.hand_over(next).await }).await;
        self.note("hands over", leader.into(), u64::from(done == Some(true)));
        done == Some(true)
    }
}
