//! The load of a kill loop: idempotent producers that never give a batch up, and a consumer that remembers what it
//! read.
//!
//! Everything is written to the journal before it is sent. A batch whose answer is lost is sent again with the same
//! sequence until it is acknowledged, so the log of a partition must come out as records 0, 1, 2, … exactly once.

use super::batch::{self, Producer};
use super::client::Client;
use super::harness::now_ms;
use super::oracle::{Event, History, Rng, value};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const TOPIC: &str = "load";
/// Requests in flight on one connection; Kafka's window for idempotent producers is five batches.
const DEPTH: usize = 3;
const PACE: Duration = Duration::from_millis(8);
/// Answers after which the same batch is sent again: 3 unknown topic or partition, 5 leader not available, 6 not
/// leader, 7 timed out, 9 replica not available, 19 and 20 not enough replicas, 56 storage error, 89 throttled.
const RETRIABLE: [i16; 9] = [3, 5, 6, 7, 9, 19, 20, 56, 89];
const OUT_OF_ORDER: i16 = 45;

/// How a load reaches whoever leads a partition.
pub trait Way: Send + Sync {
    /// A connection to the leader of this partition of [`TOPIC`]; none while nobody can be reached.
    fn connect(&self, partition: i32) -> Option<Client>;
}

/// Where the one broker listens now; none while it is down.
#[derive(Default)]
pub struct OneBroker(Mutex<Option<SocketAddr>>);

impl OneBroker {
    pub fn set(&self, address: Option<SocketAddr>) {
        *self.0.lock().expect("no holder panics") = address;
    }
}

impl Way for OneBroker {
    fn connect(&self, _partition: i32) -> Option<Client> {
        let address = (*self.0.lock().expect("no holder panics"))?;
        Client::connect(address).ok()
    }
}

/// What the threads of a load share.
pub struct Shared {
    pub seed: u64,
    pub history: Mutex<History>,
    way: Arc<dyn Way>,
    /// No new batches: only bring those begun to an end.
    pub drain: AtomicBool,
    pub stop: AtomicBool,
    /// Batches that an earlier, interrupted run left without an answer.
    pub abandoned: usize,
    /// Answers that a correct broker never gives.
    pub refusals: Mutex<Vec<String>>,
}

impl Shared {
    pub fn new(seed: u64, history: History, way: Arc<dyn Way>) -> Arc<Shared> {
        Arc::new(Shared {
            seed,
            abandoned: history.unresolved(),
            history: Mutex::new(history),
            way,
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            refusals: Mutex::new(vec![]),
        })
    }

    fn connect(&self, partition: i32) -> Option<Client> {
        let client = self.way.connect(partition)?;
        client.set_timeout(Duration::from_secs(30)).ok()?;
        Some(client)
    }

    fn record(&self, events: Vec<Event>) {
        self.history.lock().expect("no holder panics").record(events);
    }

    fn refuse(&self, what: String) {
        self.refusals.lock().expect("no holder panics").push(what);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Starts producers that share the partitions, and consumers that share them. With one broker any number of each will do;
/// where partitions may have different leaders there must be one of each for every partition.
pub fn start(shared: &Arc<Shared>, partitions: i32, producers: i32, consumers: i32) -> Vec<JoinHandle<()>> {
    let share = |n: i32, of: i32| -> Vec<i32> { (0..partitions).filter(|p| p % of == n).collect() };
    let mut threads = vec![];
    for n in 0..producers {
        let (shared, own) = (shared.clone(), share(n, producers));
        threads.push(std::thread::spawn(move || Loader::new(shared, own).run()));
    }
    for n in 0..consumers {
        let (shared, own) = (shared.clone(), share(n, consumers));
        threads.push(std::thread::spawn(move || Tail::new(shared, own).run()));
    }
    threads
}

/// A batch that is sent and not acknowledged.
struct Pending {
    first: u64,
    count: u32,
    sequence: i32,
}

struct Partition {
    index: i32,
    next_id: u64,
    next_sequence: i32,
    pending: VecDeque<Pending>,
    /// Until a first batch is acknowledged only one is in flight: a broker without a producer's state takes any
    /// sequence as its first, so a second batch must not overtake it.
    begun: bool,
}

/// One producer with its partitions.
struct Loader {
    shared: Arc<Shared>,
    partitions: Vec<Partition>,
    producer: Option<Producer>,
    rng: Rng,
}

impl Loader {
    fn new(shared: Arc<Shared>, own: Vec<i32>) -> Loader {
        let history = shared.history.lock().expect("no holder panics");
        let partitions = own.iter().map(|index| Partition {
            index: *index,
            next_id: history.next_id(*index),
            next_sequence: 0,
            pending: VecDeque::new(),
            begun: false,
        });
        let (partitions, rng) = (partitions.collect(), Rng(shared.seed ^ own[0] as u64));
        drop(history);
        Loader { shared, partitions, producer: None, rng }
    }

    fn run(mut self) {
        while !self.shared.stopped() {
            if let Some(mut client) = self.shared.connect(self.partitions[0].index) {
                let _ = self.serve(&mut client); // a lost connection: what is pending is sent again on the next one
                let lost = self
                    .partitions
                    .iter()
                    .flat_map(|p| p.pending.iter().map(|b| Event::Unknown { partition: p.index, first: b.first }));
                self.shared.record(lost.collect());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends over one connection until it breaks or an answer asks to start over.
    fn serve(&mut self, client: &mut Client) -> std::io::Result<()> {
        if self.producer.is_none() {
            self.producer = Some(client.init_producer()?);
        }
        let depth = self.partitions.iter().map(|p| p.pending.len()).max().unwrap_or(0);
        let mut in_flight = 0;
        for wave in 0..depth {
            let again = |p: &Partition| p.pending.get(wave).map(|b| (p.index, b.first, b.count, b.sequence));
            in_flight += self.send(client, self.partitions.iter().filter_map(again).collect())?;
        }
        while !self.shared.stopped() {
            while in_flight < DEPTH && !self.shared.drain.load(Ordering::Relaxed) {
                let new = self.new_batches();
                if self.send(client, new)? == 0 {
                    break;
                }
                in_flight += 1;
            }
            if in_flight == 0 {
                std::thread::sleep(PACE); // drained
                continue;
            }
            self.receive(client)?;
            in_flight -= 1;
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    fn new_batches(&mut self) -> Vec<(i32, u64, u32, i32)> {
        let mut batches = vec![];
        for p in &mut self.partitions {
            if p.pending.len() >= DEPTH || !(p.begun || p.pending.is_empty()) {
                continue;
            }
            let count = self.rng.range(1, 4) as u32;
            let batch = Pending { first: p.next_id, count, sequence: p.next_sequence };
            batches.push((p.index, batch.first, count, batch.sequence));
            p.next_id += u64::from(count);
            p.next_sequence = p.next_sequence.wrapping_add(count as i32) & i32::MAX;
            p.pending.push_back(batch);
        }
        batches
    }

    /// Sends one request with these batches; the number of requests sent.
    fn send(&self, client: &mut Client, batches: Vec<(i32, u64, u32, i32)>) -> std::io::Result<usize> {
        if batches.is_empty() {
            return Ok(0);
        }
        let invoke = |(partition, first, count, _): &(i32, u64, u32, i32)| Event::Invoke {
            partition: *partition,
            first: *first,
            count: *count,
        };
        self.shared.record(batches.iter().map(invoke).collect());
        let producer = self.producer.unwrap_or(batch::NO_PRODUCER);
        let encoded = batches.into_iter().map(|(partition, first, count, sequence)| {
            let values: Vec<_> = (0..u64::from(count)).map(|n| value(self.shared.seed, partition, first + n)).collect();
            (partition, batch::encode(&values, producer, sequence, now_ms()))
        });
        client.send_produce(TOPIC, encoded.collect())?;
        Ok(1)
    }

    /// Takes the answer to the oldest request. An error of a batch ends the connection, so that order is kept.
    fn receive(&mut self, client: &mut Client) -> std::io::Result<()> {
        let (mut acked, mut again) = (vec![], false);
        for outcome in client.receive_produce()? {
            let Some(p) = self.partitions.iter_mut().find(|p| p.index == outcome.partition) else { continue };
            if outcome.error == 0 {
                p.begun = true;
                if let Some(batch) = p.pending.pop_front() {
                    acked.push(Event::Ok { partition: p.index, first: batch.first, offset: outcome.base_offset });
                }
            } else {
                again = true;
                if !RETRIABLE.contains(&outcome.error) {
                    let front = p.pending.front().map_or(-1, |b| b.sequence);
                    let kind = if outcome.error == OUT_OF_ORDER { " (the producer's state was lost?)" } else { "" };
                    self.shared
                        .refuse(format!("partition {}: error {} for sequence {front}{kind}", p.index, outcome.error));
                }
            }
        }
        self.shared.record(acked);
        if again { Err(std::io::Error::other("start over")) } else { Ok(()) }
    }
}

/// A consumer from where the journal ends: the partitions, each with its next offset.
struct Tail {
    shared: Arc<Shared>,
    next: Vec<(i32, i64)>,
}

impl Tail {
    fn new(shared: Arc<Shared>, own: Vec<i32>) -> Tail {
        let history = shared.history.lock().expect("no holder panics");
        let last =
            |p: i32| history.seen.range((p, 0)..=(p, i64::MAX)).next_back().map_or(0, |((_, offset), _)| offset + 1);
        let next = own.into_iter().map(|p| (p, last(p))).collect();
        drop(history);
        Tail { shared, next }
    }

    fn run(mut self) {
        while !self.shared.stopped() {
            if let Some(mut client) = self.shared.connect(self.next[0].0) {
                while !self.shared.stopped() && self.poll(&mut client).is_ok() {
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn poll(&mut self, client: &mut Client) -> std::io::Result<()> {
        for (partition, position) in &mut self.next {
            let (partition, next) = (*partition, *position);
            let fetched = client.fetch(TOPIC, partition, next, 0, 1 << 20)?;
            match fetched.error {
                0 => {}
                1 => self.shared.refuse(format!(
                    "partition {partition}: offset {next} follows a record that was read, and is out of range (watermark {})",
                    fetched.high_watermark
                )),
                // Not ready yet, or led elsewhere by now.
                code => return Err(std::io::Error::other(format!("error {code}"))),
            }
            let records = fetched.batches.into_iter().flat_map(|b| b.records).filter(|r| r.offset >= next);
            let mut seen = vec![];
            for record in records {
                let id =
                    record.value.as_deref().and_then(|v| v.first_chunk()).map_or(u64::MAX, |b| u64::from_be_bytes(*b));
                *position = record.offset + 1;
                seen.push(Event::Seen { partition, offset: record.offset, id });
            }
            self.shared.record(seen);
        }
        Ok(())
    }
}
