//! Producers that send a batch until it is acknowledged, a few at a time, and readers.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::node::partition_id;
use super::world::{Event, World, index_of};
use super::{Batch, MS, Micros, NODES, Planted};

/// Batches under way of one producer.
const WINDOW: u64 = 3;
/// How long a client waits for an answer.
const PATIENCE: Micros = 800 * MS;

/// Whom a node answers.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    pub partition: usize,
    pub value: u64,
    pub attempt: u64,
}

pub enum Request {
    Produce { waiter: Waiter, bytes: usize },
    Fetch { partition: usize, from: i64, attempt: u64 },
}

pub enum Response {
    /// Without an offset: not here, or not now.
    Produced {
        waiter: Waiter,
        offset: Option<i64>,
    },
    Fetched {
        partition: usize,
        from: i64,
        attempt: u64,
        values: Option<Vec<u64>>,
    },
}

pub struct Producer {
    /// Batches acknowledged: all below.
    pub acked: u64,
    /// No new ones from here on, when the end is near.
    pub limit: u64,
    /// Values below were sent at least once.
    pub begun: u64,
    /// When each that is under way was sent, with its attempt.
    sent: BTreeMap<u64, (Micros, u64)>,
    attempts: u64,
    leader: usize,
}

pub struct Reader {
    next: i64,
    attempt: u64,
    leader: usize,
}

impl Producer {
    pub fn new(partition: usize) -> Producer {
        let (sent, attempts, leader) = (BTreeMap::new(), 0, partition % NODES);
        Producer { acked: 0, limit: u64::MAX, begun: 0, sent, attempts, leader }
    }

    pub fn is_done(&self) -> bool {
        self.acked >= self.begun && self.begun >= self.limit
    }
}

impl Reader {
    pub fn new(partition: usize) -> Reader {
        Reader { next: 0, attempt: 0, leader: partition % NODES }
    }
}

impl World {
    /// Whom some node that runs takes for the leader.
    fn look_up(&mut self, partition: usize, fallback: usize) -> usize {
        let running: Vec<usize> = (0..NODES).filter(|n| self.nodes[*n].is_awake()).collect();
        if running.is_empty() {
            return fallback;
        }
        let asked = running[self.rng.range(0, running.len() as u64 - 1) as usize];
        let image = self.image_at(asked);
        image.partition(partition_id(partition)).map_or(fallback, |p| index_of(p.leader))
    }

    pub fn produce(&mut self, partition: usize) {
        let now = self.now;
        let producer = &mut self.producers[partition];
        let late = producer.sent.values().any(|(at, _)| now > at + PATIENCE);
        if late {
            // What was under way is sent again, in order.
            self.oracle.unknown += producer.sent.len() as u64;
            producer.sent.clear();
            let fallback = producer.leader;
            let leader = self.look_up(partition, fallback);
            self.producers[partition].leader = leader;
        }
        let producer = &mut self.producers[partition];
        let upto = (producer.acked + WINDOW).min(producer.limit.max(producer.begun));
        let mut requests = Vec::new();
        for value in producer.acked..upto {
            if producer.sent.contains_key(&value) {
                continue;
            }
            producer.attempts += 1;
            producer.sent.insert(value, (now, producer.attempts));
            producer.begun = producer.begun.max(value + 1);
            requests.push(Waiter { partition, value, attempt: producer.attempts });
        }
        let leader = producer.leader;
        let delay = self.rng.range(100, 1_500);
        for waiter in requests {
            let bytes = self.rng.range(50, 900) as usize;
            // One connection: none overtakes another.
            self.at(now + delay, Event::Request { node: leader, request: Request::Produce { waiter, bytes } });
        }
        self.after((2 * MS, 40 * MS), Event::Produce { partition });
    }

    pub fn read(&mut self, partition: usize) {
        let reader = &mut self.readers[partition];
        reader.attempt += 1;
        let (from, attempt, leader) = (reader.next, reader.attempt, reader.leader);
        let delay = self.rng.range(100, 1_500);
        self.at(
            self.now + delay,
            Event::Request { node: leader, request: Request::Fetch { partition, from, attempt } },
        );
        self.after((30 * MS, 120 * MS), Event::Read { partition });
    }

    pub fn request(&mut self, node: usize, request: Request) {
        match request {
            Request::Produce { waiter, bytes } => self.append(node, waiter, bytes),
            Request::Fetch { partition, from, attempt } => {
                let values = self.fetch(node, partition, from);
                let at = self.now + self.rng.range(100, 1_500);
                self.at(at, Event::Response { response: Response::Fetched { partition, from, attempt, values } });
            }
        }
    }

    fn append(&mut self, node: usize, waiter: Waiter, bytes: usize) {
        let (now, lease_ignored) = (self.now, self.bugs.ignores_leases());
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let leased = now < process.lease_until || lease_ignored;
        let part = process.parts.get_mut(&waiter.partition).filter(|part| part.takes_appends() && leased);
        let (Some(part), Some(writer)) = (part, process.writer.as_mut()) else {
            return self.answer(node, waiter, None);
        };
        if let Some(offset) = part.values.get(&waiter.value).copied() {
            // A duplicate is answered when what it repeats is durable.
            if offset < part.high_watermark {
                return self.answer(node, waiter, Some(offset));
            }
            part.waiters.push((offset, waiter));
            return;
        }
        let forgets = self.bugs.has(Planted::ProducersForgotten);
        if waiter.value != part.next_value && !(forgets && part.values.is_empty()) {
            return self.answer(node, waiter, None);
        }
        let batch = Rc::new(Batch {
            partition: waiter.partition,
            offset: part.next,
            leader_epoch: part.leader_epoch,
            value: waiter.value,
            bytes,
        });
        let Ok((_, _, actions)) = writer.append(batch.clone()) else {
            return self.answer(node, waiter, None);
        };
        part.values.insert(waiter.value, part.next);
        part.next_value = waiter.value + 1;
        part.waiters.push((part.next, waiter));
        part.next += 1;
        process.waiting.push_back(batch);
        self.writer_actions(node, actions);
    }

    /// A node answers, if it may still speak for its partitions.
    pub fn answer(&mut self, node: usize, waiter: Waiter, offset: Option<i64>) {
        let leased = self.nodes[node].process.as_ref().is_some_and(|process| self.now < process.lease_until);
        let offset = offset.filter(|_| leased || self.bugs.ignores_leases());
        let at = self.now + self.rng.range(100, 1_500);
        self.at(at, Event::Response { response: Response::Produced { waiter, offset } });
    }

    fn fetch(&self, node: usize, partition: usize, from: i64) -> Option<Vec<u64>> {
        let process = self.nodes[node].process.as_ref()?;
        let leased = self.now < process.lease_until || self.bugs.ignores_leases();
        let part = process.parts.get(&partition).filter(|part| part.open && leased)?;
        let stored = self.store.values(partition, part.high_watermark);
        let mut values: Vec<u64> = stored.into_iter().skip(from.max(0) as usize).collect();
        let have = from + values.len() as i64;
        values.extend(part.tail.range(have..part.high_watermark.max(have)).map(|(_, batch)| batch.value));
        Some(values)
    }

    pub fn response(&mut self, response: Response) {
        match response {
            Response::Produced { waiter, offset } => self.produced(waiter, offset),
            Response::Fetched { partition, from, attempt, values } => {
                if self.readers[partition].attempt != attempt {
                    return;
                }
                let Some(values) = values else {
                    let fallback = self.readers[partition].leader;
                    self.readers[partition].leader = self.look_up(partition, fallback);
                    return;
                };
                for (value, offset) in values.iter().zip(from..) {
                    self.oracle.shows(partition, offset, *value);
                }
                self.readers[partition].next = from + values.len() as i64;
            }
        }
    }

    fn produced(&mut self, waiter: Waiter, offset: Option<i64>) {
        let partition = waiter.partition;
        let producer = &mut self.producers[partition];
        if let Some(offset) = offset {
            self.note("acked", waiter.value);
            self.oracle.acknowledged(partition, waiter.value, offset);
            let producer = &mut self.producers[partition];
            producer.sent.remove(&waiter.value);
            if waiter.value == producer.acked {
                producer.acked += 1;
            }
            return;
        }
        if producer.sent.get(&waiter.value).is_some_and(|(_, attempt)| *attempt == waiter.attempt) {
            // All again, in order, where the leader is said to be.
            producer.sent.clear();
            let fallback = producer.leader;
            let leader = self.look_up(partition, fallback);
            self.producers[partition].leader = leader;
        }
    }

    /// Everything of a partition that may be read, when all is over.
    pub fn whole_log(&self, partition: usize) -> Vec<u64> {
        let image = self.quorum.newest();
        let leader = image.partition(partition_id(partition)).map_or(0, |p| index_of(p.leader));
        self.fetch(leader, partition, 0).unwrap_or_default()
    }
}
