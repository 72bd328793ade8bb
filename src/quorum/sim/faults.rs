//! What goes wrong, and when it is mended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cluster::World;
use super::executor::{self, OUTSIDE};
use super::operator::Exchange;

impl World {
    /// Injects faults until they are over; each is mended after a while.
    pub async fn trouble(self: Arc<World>, voters: usize) {
        let mut exchanging = None;
        while !self.is_over() {
            self.pause(100, 1_800).await;
            let members = self.members();
            let (Some(node), Some(other)) = (self.pick(&members), self.pick(&members)) else { continue };
            let lasts = self.between(50, if self.rng.one_in(10) { 14_000 } else { 4_000 });
            let lasts = Duration::from_millis(lasts);
            let kind = self.rng.below(20);
            if kind == 19 && self.is_free(&mut exchanging) {
                exchanging = self.exchange_one(&members, voters);
                continue;
            }
            let world = self.clone();
            executor::spawn_in(OUTSIDE, async move { world.fault(kind, node, other, lasts).await });
        }
        // Whoever is being exchanged is exchanged to the end.
        while !self.is_free(&mut exchanging) && !self.is_broken() {
            self.pause(100, 100).await;
        }
    }

    fn is_free(&self, exchanging: &mut Option<tokio::sync::oneshot::Receiver<()>>) -> bool {
        exchanging.as_mut().is_none_or(|done| done.try_recv() != Err(tokio::sync::oneshot::error::TryRecvError::Empty))
    }

    fn exchange_one(self: &Arc<World>, members: &[i32], voters: usize) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let status = self.leader().map(|(_, quorum)| quorum.status())?;
        let may_go: Vec<i32> = members.iter().copied().filter(|node| *node != 1).collect();
        let voting: Vec<i32> = status.voters.iter().map(|node| node.0).filter(|node| may_go.contains(node)).collect();
        let node = self.pick(&voting)?;
        let how = [Exchange::Wiped, Exchange::Wiped, Exchange::TakenOut, Exchange::Removed];
        let how = self.pick(&how)?;
        self.count(match how {
            Exchange::Wiped => "wiped",
            Exchange::TakenOut => "taken out",
            Exchange::Removed => "removed",
        });
        let (done, finished) = tokio::sync::oneshot::channel();
        let world = self.clone();
        executor::spawn_in(OUTSIDE, async move {
            world.exchange(node, how, voters).await;
            let _ = done.send(());
        });
        Some(finished)
    }

    async fn fault(self: Arc<World>, kind: u64, node: i32, other: i32, lasts: Duration) {
        if self.is_over() {
            return;
        }
        let world = self.clone();
        let wait = || async move { tokio::time::sleep(lasts).await };
        match kind {
            0..=3 => {
                let power = kind > 1;
                self.count(if power { "power" } else { "kill" });
                self.kill(node, power);
                let soon = Duration::from_millis(self.between(1, 300));
                tokio::time::sleep(if self.rng.one_in(2) { soon } else { lasts }).await;
                self.boot(node).await;
            }
            4 | 5 => {
                self.count("stop");
                self.stop(node, true);
                wait().await;
                self.stop(node, false);
            }
            6 | 7 => {
                let others: Vec<i32> = self.members().into_iter().filter(|other| *other != node).collect();
                let links = others.iter().flat_map(|other| [(node, *other), (*other, node)]).collect();
                self.cut("isolated", links, lasts).await;
            }
            8 | 9 => self.cut("one way", vec![(node, other)], lasts).await,
            10 => self.cut("bridge", vec![(node, other), (other, node)], lasts).await,
            11 => {
                self.count("slow disk");
                let sync_ms = self.nodes().get(&node).map(|node| node.sync_ms.clone());
                let Some(sync_ms) = sync_ms else { return };
                sync_ms.store(self.between(50, 400), Ordering::Relaxed);
                wait().await;
                sync_ms.store(6, Ordering::Relaxed);
            }
            12 => {
                self.count("all down");
                for node in self.members() {
                    self.kill(node, true);
                }
                for node in self.members() {
                    let world = world.clone();
                    executor::spawn_in(OUTSIDE, async move {
                        world.pause(1, 1_500).await;
                        world.boot(node).await;
                    });
                }
            }
            13 => {
                self.count("hand over");
                if let Some((leader, _)) = self.leader() {
                    self.hand_over(leader).await;
                }
            }
            14 => {
                self.count("bad links");
                {
                    let mut links = self.links();
                    links.loss = self.between(5, 60);
                    (links.late, links.late_ms) = (self.between(2, 8), self.between(20, 900));
                }
                wait().await;
                let mut links = self.links();
                (links.loss, links.late) = (0, 0);
            }
            15 | 16 => self.end_in_order(node, lasts).await,
            _ => self.trap(node, lasts).await,
        }
    }

    /// A node is told to end, and has: more often the leader, of whom others want something.
    async fn end_in_order(self: &Arc<World>, node: i32, lasts: Duration) {
        let leader = self.leader().map(|(leader, _)| leader).filter(|_| !self.rng.one_in(3));
        let node = leader.unwrap_or(node);
        self.count("end in order");
        let process = self.nodes().get_mut(&node).and_then(|known| {
            known.ending = known.quorum.is_some();
            known.process.filter(|_| known.ending)
        });
        if process.is_none() {
            return;
        }
        self.at(node, Duration::from_secs(2), |quorum| async move { quorum.shutdown().await }).await;
        self.pause(0, 200).await;
        if self.nodes().get(&node).is_some_and(|known| known.process == process) {
            self.kill(node, false);
        }
        tokio::time::sleep(lasts / 4).await;
        self.boot(node).await;
    }

    async fn cut(&self, name: &'static str, links: Vec<(i32, i32)>, lasts: Duration) {
        self.count(name);
        self.note(name, links.len() as i64, 0);
        self.links().cut.extend(links.iter().copied());
        tokio::time::sleep(lasts).await;
        self.links().cut.retain(|link| !links.contains(link));
    }

    /// Power goes right after an answer of a kind. For a vote one is brought about: the leader is gone, too.
    async fn trap(self: &Arc<World>, node: i32, lasts: Duration) {
        let kind = self.pick(&["vote", "append", "propose", "snapshot"]).unwrap_or("vote");
        self.links().trap = Some(kind);
        if kind == "vote"
            && let Some((leader, _)) = self.leader()
        {
            self.count("kill");
            self.kill(leader, true);
        }
        tokio::time::sleep(lasts).await;
        self.links().trap = None;
        for node in self.members().into_iter().chain([node]) {
            self.boot(node).await;
        }
    }

    /// From now on nothing goes wrong, and everybody is there.
    pub async fn mend(self: &Arc<World>) {
        *self.over.lock().unwrap() = true;
        self.note("mended", 0, 0);
        *self.links() = Default::default();
        for node in self.members() {
            self.stop(node, false);
            if let Some(known) = self.nodes().get(&node) {
                known.sync_ms.store(6, Ordering::Relaxed);
            }
            let world = self.clone();
            executor::spawn_in(OUTSIDE, async move { world.boot(node).await });
        }
    }
}
