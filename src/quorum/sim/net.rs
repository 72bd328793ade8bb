//! The network: questions and answers that take their time, are lost, come twice or in another order, and links that are cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::cluster::World;
use super::executor::{self, OUTSIDE, Process};
use crate::base::NodeId;
use crate::base::checksum::crc32c;
use crate::quorum::message::{Ask, Tell};
use crate::quorum::{Transport, TransportError};

/// How long it may take until a node notices that a connection is gone.
const NOTICED_MS: u64 = 3_000;

/// The way of one process to the others.
pub struct Port {
    pub world: Arc<World>,
    pub from: i32,
}

type Told = Result<Bytes, TransportError>;

impl Transport for Port {
    fn call(&self, to: NodeId, ask: Bytes, patience: Duration) -> BoxFuture<'_, Told> {
        let (answer, told) = oneshot::channel();
        let carried = self.world.clone().carry(self.from, to.0, ask, answer);
        executor::spawn_in(OUTSIDE, carried);
        async move {
            let silent = |_| no_answer(to.0);
            timeout(patience, told).await.map_err(|_| no_answer(to.0))?.map_err(silent)?
        }
        .boxed()
    }
}

fn no_answer(to: i32) -> TransportError {
    TransportError::NoAnswer { to: NodeId(to), reason: "no answer".to_owned() }
}

fn unreachable(to: i32) -> TransportError {
    TransportError::Unreachable { to: NodeId(to), reason: "no link".to_owned() }
}

fn name(ask: &Ask) -> &'static str {
    match ask {
        Ask::Append(_) => "append",
        Ask::Vote(_) => "vote",
        Ask::Snapshot(_) => "snapshot",
        Ask::Canvass { .. } => "canvass",
        Ask::Propose { .. } => "propose",
        Ask::Barrier => "barrier",
        Ask::Succeed => "succeed",
        Ask::Describe => "describe",
    }
}

impl World {
    fn is_cut(&self, from: i32, to: i32) -> bool {
        self.links().cut.contains(&(from, to))
    }

    fn loses(&self) -> bool {
        let loss = self.links().loss;
        loss > 0 && self.rng.one_in(loss)
    }

    async fn travel(&self) {
        let (late, late_ms) = {
            let links = self.links();
            (links.late, links.late_ms)
        };
        if late > 0 && self.rng.one_in(late) { self.pause(1, late_ms).await } else { self.pause(0, 3).await }
    }

    async fn carry(self: Arc<World>, from: i32, to: i32, ask: Bytes, answer: oneshot::Sender<Told>) {
        let (_, asked) = Ask::decode(&ask).unwrap();
        let kind = name(&asked);
        let told = self.ask(from, to, kind, ask).await;
        self.note(if told.is_ok() { "answered" } else { "unanswered" }, from.into(), to as u64);
        drop(answer.send(told));
    }

    async fn ask(self: &Arc<World>, from: i32, to: i32, kind: &'static str, ask: Bytes) -> Told {
        let Some((process, _)) = self.running(to) else {
            self.pause(0, 5).await;
            return Err(unreachable(to));
        };
        // Without a connection nothing leaves; with one, nobody knows at first that it leads nowhere.
        if self.is_cut(from, to) && self.rng.one_in(2) {
            self.pause(0, 100).await;
            return Err(unreachable(to));
        }
        // What Raft itself asks may come again: the connection was made anew and it is repeated.
        if !matches!(kind, "propose" | "barrier" | "succeed") && self.links().late > 0 && self.rng.one_in(12) {
            let (world, ask) = (self.clone(), ask.clone());
            executor::spawn_in(OUTSIDE, async move {
                world.count("twice");
                world.pause(0, 1_500).await;
                drop(world.deliver(from, to, process, kind, ask).await);
            });
        }
        self.travel().await;
        let answer = match self.loses() || self.is_cut(from, to) {
            true => None,
            false => self.deliver(from, to, process, kind, ask).await,
        };
        if answer.is_some() {
            self.travel().await;
        }
        match answer.filter(|_| !self.loses() && !self.is_cut(to, from)) {
            Some(answer) => Ok(answer),
            None => {
                let ms = self.between(1, NOTICED_MS);
                sleep(Duration::from_millis(ms)).await;
                Err(no_answer(to))
            }
        }
    }

    /// What the process answers, if it is still there.
    async fn deliver(
        self: &Arc<World>,
        from: i32,
        to: i32,
        process: Process,
        kind: &'static str,
        ask: Bytes,
    ) -> Option<Bytes> {
        let (_, quorum) = self.running(to).filter(|(now, _)| *now == process)?;
        self.note(kind, from.into(), u64::from(crc32c(&ask)) << 8 | to as u64);
        let asked = ask.clone();
        let answer = executor::inside(process, async move { quorum.serve(NodeId(from), &asked).await }).await?;
        self.note("says", to.into(), crc32c(&answer).into());
        self.hears(&ask, &answer);
        let trapped = self.links().trap.take_if(|trap| *trap == kind).is_some();
        if trapped {
            self.count("power after an answer");
            self.kill(to, true);
        }
        Some(answer)
    }

    /// What an answer promises.
    fn hears(&self, ask: &[u8], answer: &[u8]) {
        let (Ok((Some(voter), ask)), Ok(tell)) = (Ask::decode(ask), Tell::decode(answer)) else { return };
        let mut oracle = self.oracle();
        match (ask, tell) {
            (_, Tell::Refused { .. }) => return oracle.refuses(voter),
            (Ask::Vote(ask), Tell::Vote(tell)) if tell.vote_granted => {
                let vote = ask.vote.leader_id;
                oracle.grants(voter, (vote.term, vote.node_id));
            }
            _ => {}
        }
        oracle.answers(voter);
    }
}
