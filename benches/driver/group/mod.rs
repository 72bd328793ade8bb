//! A group of many members on a topic of many partitions: how long it takes until everybody has a stable share, what
//! that costs the broker, and what it costs to stay so.
//!
//! Each member has a connection and a task of its own; all of them are on one thread. When the group is stable is not
//! asked of the broker: `board` adds up what the members were given.

mod board;
mod classic;
mod consumer;

use crate::client::Client;
use crate::measure::{self, Latencies, Process, Spent};
use crate::options::Options;
use crate::wire::{self, Connection};
use board::Board;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Classic,
    Consumer,
}

impl Protocol {
    pub fn of(options: &Options) -> Protocol {
        match options.text("protocol", "classic").as_str() {
            "classic" => Protocol::Classic,
            "consumer" => Protocol::Consumer,
            other => panic!("--protocol is classic or consumer, not {other:?}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

/// What the members of a group have in common.
pub struct Plan {
    address: SocketAddr,
    protocol: Protocol,
    group: String,
    topic: String,
    topic_id: Uuid,
    partitions: i32,
    /// Of classic members; others are told by the coordinator.
    heartbeat: Duration,
    session: Duration,
    /// What classic members say that they want to read.
    subscription: Bytes,
}

impl Plan {
    /// A group on a topic that exists.
    pub fn new(options: &Options, group: &str, topic: &str) -> io::Result<Plan> {
        let metadata = Client::connect(options.bootstrap())?.metadata(&[topic])?;
        let known = metadata.topics.first().filter(|t| t.error_code == 0);
        let known = known.ok_or_else(|| io::Error::other(format!("topic {topic} is not there")))?;
        Ok(Plan {
            address: options.bootstrap(),
            protocol: Protocol::of(options),
            group: group.into(),
            topic: topic.into(),
            topic_id: known.topic_id,
            partitions: known.partitions.len() as i32,
            heartbeat: options.milliseconds("heartbeat-ms", 3000),
            session: options.milliseconds("session-ms", 45_000),
            subscription: classic::subscription(topic),
        })
    }

    /// When a member's first heartbeat after a rebalance is due: spread over the interval, as that of members which
    /// did not all start at once.
    fn phase(&self, index: usize) -> Duration {
        self.phase_of(index, self.heartbeat)
    }

    fn phase_of(&self, index: usize, interval: Duration) -> Duration {
        let stirred = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        interval.mul_f64(stirred as f64 / (1u64 << 24) as f64)
    }
}

/// What one member works with.
struct Seat {
    plan: Rc<Plan>,
    board: Rc<Board>,
    index: usize,
    connection: Connection,
    leave: oneshot::Receiver<()>,
}

impl Seat {
    /// As long as the one that a Java client makes.
    fn member_id(&self) -> String {
        format!("{:022}", self.index)
    }
}

struct Member {
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A group and its members.
pub struct Crew {
    plan: Rc<Plan>,
    board: Rc<Board>,
    members: BTreeMap<usize, Member>,
    next: usize,
}

/// A change of a group that was waited for.
pub struct Settled {
    pub took: Duration,
    pub spent: Spent,
}

impl Crew {
    pub fn new(plan: Plan) -> Crew {
        let board = Rc::new(Board::new(plan.partitions));
        Crew { plan: Rc::new(plan), board, members: BTreeMap::new(), next: 0 }
    }

    /// One more member on each connection.
    pub fn join(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            let (leave, told) = oneshot::channel();
            let (plan, board, index) = (self.plan.clone(), self.board.clone(), self.next);
            let seat = Seat { plan, board, index, connection, leave: told };
            self.members.insert(index, Member { leave, task: tokio::task::spawn_local(live(seat)) });
            self.next += 1;
        }
        self.board.expect(self.members.len());
    }

    /// So many members leave, evenly among all.
    pub fn leave(&mut self, count: usize) {
        let all: Vec<usize> = self.members.keys().copied().collect();
        for n in 0..count {
            if let Some(member) = self.members.remove(&all[n * all.len() / count]) {
                let _ = member.leave.send(());
            }
        }
        self.board.expect(self.members.len());
    }

    /// The members stop without a word, and their connections end.
    pub fn vanish(self) {
        self.members.into_values().for_each(|member| member.task.abort());
    }

    pub async fn stable(&self) -> io::Result<Instant> {
        self.board.stable().await
    }

    /// Waits until the group is stable again after what happened at `began`.
    async fn settle(&self, process: Process, began: Instant, before: Spent) -> io::Result<Settled> {
        let at = self.board.stable().await?;
        Ok(Settled { took: at - began, spent: process.now().since(&before) })
    }
}

async fn live(mut seat: Seat) {
    let outcome = match seat.plan.protocol {
        Protocol::Classic => classic::run(&mut seat).await,
        Protocol::Consumer => consumer::run(&mut seat).await,
    };
    match outcome {
        Ok(()) => seat.board.leave(seat.index),
        Err(error) => seat.board.fail(seat.index, &error),
    }
}

/// What one life of a group came to.
struct Life {
    formed: Settled,
    shrunk: Settled,
    grown: Settled,
    /// While nothing changed.
    steady: Spent,
    heartbeats: Latencies,
}

/// The command `group`.
pub fn run(options: &Options) -> io::Result<()> {
    let partitions = options.number("partitions", 1000) as i32;
    let topic = crate::ready_topic(options, &options.text("topic", "group"), partitions, &[])?;
    let (protocol, members) = (Protocol::of(options), options.number("members", 500));
    wire::find_coordinator(options, 0, &topic)?;
    // A virtual machine is to have seen all of this before it is measured.
    for round in 0..options.number("rounds", 1) {
        let plan = Plan::new(options, &format!("{topic}-{}-warm-{round}", protocol.name()), &topic)?;
        wire::on_this_thread(life(options, plan, Duration::from_secs(1)))?;
    }
    let steady = options.seconds("seconds", 20);
    let plan = Plan::new(options, &format!("{topic}-{}", protocol.name()), &topic)?;
    let heartbeat = plan.heartbeat.as_millis();
    let life = wire::on_this_thread(life(options, plan, steady))?;
    let mut line = measure::line(options.text("label", "?"), "group", members, partitions as u64);
    let delay = options.text("delay-ms", "?");
    line.text("case", &format!("{} {members} × {partitions}, delays {delay} and {heartbeat} ms", protocol.name()));
    let cpu = |settled: &Settled| settled.spent.cpu_seconds;
    for (name, settled) in [("form", &life.formed), ("leave", &life.shrunk), ("join", &life.grown)] {
        line.put(&format!("{name}_s"), settled.took.as_secs_f64());
        line.put(&format!("{name}_cpu_s"), cpu(settled));
    }
    line.put("rebalance_cpu_s", cpu(&life.formed) + cpu(&life.shrunk) + cpu(&life.grown));
    line.put("steady_cpu_ms_per_s", life.steady.cpu_seconds * 1000.0 / steady.as_secs_f64());
    line.put("heartbeats_per_s", life.heartbeats.count() as f64 / steady.as_secs_f64());
    line.latencies(&life.heartbeats);
    line.print();
    Ok(())
}

/// A group forms, stays as it is for `steady`, loses a share of its members, and gets as many new ones.
async fn life(options: &Options, plan: Plan, steady: Duration) -> io::Result<Life> {
    let members = options.number("members", 500) as usize;
    let churn = options.share_of(members, "churn", 10);
    let process = Process::of(options.number("pid", 0));
    let address = plan.address;
    let mut crew = Crew::new(plan);

    let connections = Connection::open_many(address, members).await?;
    let (before, began) = (process.now(), Instant::now());
    crew.join(connections);
    let formed = crew.settle(process, began, before).await?;

    tokio::time::sleep(Duration::from_secs(1)).await;
    let (changes, before) = (crew.board.changes(), process.now());
    crew.board.count_heartbeats(true);
    tokio::time::sleep(steady).await;
    let heartbeats = crew.board.count_heartbeats(false);
    let spent_steadily = process.now().since(&before);
    if crew.board.changes() != changes {
        return Err(io::Error::other("the group was not left in peace, but somebody's share changed"));
    }

    let (before, began) = (process.now(), Instant::now());
    crew.leave(churn);
    let shrunk = crew.settle(process, began, before).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let connections = Connection::open_many(address, churn).await?;
    let (before, began) = (process.now(), Instant::now());
    crew.join(connections);
    let grown = crew.settle(process, began, before).await?;

    crew.leave(members);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !crew.board.is_deserted() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Life { formed, shrunk, grown, steady: spent_steadily, heartbeats })
}
