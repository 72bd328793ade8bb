//! Clients: propose commands that no two are the same, read behind a barrier, ask who leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::cluster::World;
use super::executor::{self, OUTSIDE};
use crate::base::{BrokerEpoch, NodeId};
use crate::metadata::Command;

/// The broker in whose name all is allocated; its node is never taken out.
pub const BROKER: NodeId = NodeId(1);
pub const EPOCH: BrokerEpoch = BrokerEpoch(1);
/// How long anybody waits at most; longer than the quorum itself.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Clients {
    world: Arc<World>,
    next: AtomicU64,
    /// Calls that have no outcome yet.
    pub busy: AtomicU64,
}

impl Clients {
    pub fn new(world: Arc<World>) -> Arc<Clients> {
        Arc::new(Clients { world, next: AtomicU64::new(1), busy: AtomicU64::new(0) })
    }

    pub fn start(self: &Arc<Clients>, count: u64) {
        for _ in 0..count {
            let clients = self.clone();
            executor::spawn_in(OUTSIDE, async move { clients.run().await });
        }
    }

    async fn run(&self) {
        let world = &self.world;
        while !world.is_over() {
            world.pause(5, 250).await;
            let Some(node) = world.pick(&world.all_running()) else { continue };
            let patience = if world.rng.one_in(8) { Duration::from_millis(world.between(50, 2_000)) } else { PATIENCE };
            self.busy.fetch_add(1, Ordering::Relaxed);
            match world.rng.below(10) {
                0 | 1 => self.barrier(node, patience).await,
                2 => self.confirm(node).await,
                3 => drop(join_all((0..world.between(2, 6)).map(|_| self.propose(node, patience))).await),
                _ => drop(self.propose(node, patience).await),
            }
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn command(&self) -> Command {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let (node, epoch) = (BROKER, EPOCH);
        match self.world.rng.below(5) {
            0 => Command::PrepareObjects { node, epoch, count: 1, now_ms: next as i64 },
            _ => Command::AllocateProducerIds { node, epoch, count: next as u32 },
        }
    }

    /// True if the command is carried out.
    pub async fn propose(&self, node: i32, patience: Duration) -> bool {
        let command = self.command();
        let number = self.world.oracle().proposes(&command);
        let propose = move |quorum: Arc<crate::quorum::Quorum>| async move {
            let told = quorum.propose(&command).await;
            (told, quorum.image().borrow().applied)
        };
        let told = self.world.at(node, patience, propose).await;
        self.world.note(
            if matches!(told, Some((Ok(_), _))) { "acked" } else { "not acked" },
            node.into(),
            number as u64,
        );
        match told {
            Some((told, applied)) => {
                let done = told.is_ok();
                self.world.oracle().told(number, applied, told);
                done
            }
            None => {
                self.world.oracle().gave_up();
                false
            }
        }
    }

    pub async fn barrier(&self, node: i32, patience: Duration) {
        let floor = self.world.oracle().answered;
        let read = self.world.at(node, patience, |quorum| async move { quorum.barrier().await.ok() }).await.flatten();
        self.world.note("barrier", node.into(), read.as_ref().map_or(0, |image| image.applied));
        if let Some(image) = read {
            self.world.oracle().barrier(node, floor, &image);
        }
    }

    async fn confirm(&self, node: i32) {
        let since = self.world.now();
        let voter = self.world.nodes().get(&node).and_then(|node| node.voter);
        let leads = self.world.at(node, PATIENCE, |quorum| async move { quorum.confirm_lead().await }).await;
        if let (Some(true), Some(voter)) = (leads, voter) {
            self.world.oracle().confirms(voter, since);
        }
    }
}
