//! Producers that commit at an interval (transaction version 2, KIP-890): some batches over the interval, then EndTxn,
//! and at once the next transaction.
//!
//! In the end a reader of committed records counts them: every record of every acknowledged commit must be there, and
//! no transaction may be left open.

use crate::batch::{self, Producer};
use crate::client::{Client, text, topic};
use crate::commits::sleep_until;
use crate::headers;
use crate::measure::{self, Latencies, Process, now_ms};
use crate::options::{Options, Window};
use crate::wire::{self, AGAIN, Connection, is_passing, unexpected};
use kafka_protocol::messages::*;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The versions that say: transaction version 2.
const PRODUCE_VERSION: i16 = 12;
const END_TXN_VERSION: i16 = 5;
/// The transaction before is still being completed.
const CONCURRENT_TRANSACTIONS: i16 = 51;
/// How soon that is tried again, as the Java producer does for the first partition of a transaction.
const CONCURRENT_AGAIN: Duration = Duration::from_millis(20);

struct Plan {
    topic: String,
    partitions: i32,
    /// Batches of one transaction, each to a partition of its own.
    batches: u32,
    values: Vec<Vec<u8>>,
    interval: Duration,
    window: Window,
}

/// What one producer saw.
#[derive(Default)]
struct Seen {
    /// From EndTxn to its answer.
    commits: Latencies,
    /// From a transaction's first batch to its acknowledgement.
    begins: Latencies,
    /// Records of all transactions whose commit was acknowledged, in the window or not.
    records: u64,
    /// Answers that asked to come again later.
    waits: u64,
}

/// The command `transactions`.
pub fn run(options: &Options) -> io::Result<()> {
    let producers = options.number("producers", 1);
    let interval_ms = options.number("interval-ms", 100);
    let partitions = options.number("partitions", 16) as i32;
    let name = crate::ready_topic(options, &options.text("topic", "transactions"), partitions, &[])?;
    wire::find_coordinator(options, 1, &name)?;
    let visible_before = committed_records(options, &name, partitions)?;
    let values = crate::values(options.number("batch", 4096), options.number("record", 1024), 0);
    let plan = Rc::new(Plan {
        topic: name.clone(),
        partitions,
        batches: options.number("batches", 2) as u32,
        values,
        interval: Duration::from_millis(interval_ms),
        window: Window::new(options),
    });
    let window = plan.window;
    let process = Process::of(options.number("pid", 0));
    let address = options.bootstrap();
    let (seen, spent) = wire::on_this_thread(async {
        let mut tasks = vec![];
        for n in 0..producers {
            let connection = Connection::open(address).await?;
            tasks.push(tokio::task::spawn_local(produce(connection, plan.clone(), n)));
        }
        sleep_until(window.begin).await;
        let before = process.now();
        sleep_until(window.end).await;
        let spent = process.now().since(&before);
        let mut all = Seen::default();
        for task in tasks {
            all.merge(task.await.map_err(io::Error::other)??);
        }
        Ok((all, spent))
    })?;
    let visible = committed_records(options, &name, partitions)? - visible_before;
    if visible != seen.records {
        let records = seen.records;
        return Err(io::Error::other(format!("{records} records were committed, {visible} are visible")));
    }
    let mut line = measure::line(options.text("label", "?"), "transactions", producers, interval_ms);
    line.text("case", &format!("{producers} producers, every {interval_ms} ms"));
    line.put("per_s", seen.commits.count() as f64 / window.length().as_secs_f64());
    line.latencies(&seen.commits);
    line.put("begin_p99_ms", seen.begins.percentile(0.99));
    line.put("waits", seen.waits as f64);
    line.put("cpu_us_each", spent.cpu_seconds * 1e6 / seen.commits.count() as f64);
    line.print();
    Ok(())
}

impl Seen {
    fn merge(&mut self, other: Seen) {
        self.commits.merge(other.commits);
        self.begins.merge(other.begins);
        self.records += other.records;
        self.waits += other.waits;
    }
}

/// A transactional producer and where it stands.
struct Transactional {
    connection: Connection,
    plan: Rc<Plan>,
    id: TransactionalId,
    producer: Producer,
    sequences: BTreeMap<i32, i32>,
    /// The partition that its first batch goes to.
    first: i32,
    seen: Seen,
}

async fn produce(connection: Connection, plan: Rc<Plan>, number: u64) -> io::Result<Seen> {
    let id = TransactionalId(text(&format!("{}-{number}-{}", plan.topic, now_ms())));
    let first = (number as i32 * plan.batches as i32) % plan.partitions;
    let mut one = Transactional {
        connection,
        id,
        producer: batch::NO_PRODUCER,
        sequences: BTreeMap::new(),
        first,
        seen: Seen::default(),
        plan: plan.clone(),
    };
    one.begin_session().await?;
    while !plan.window.over() {
        one.transaction().await?;
    }
    Ok(one.seen)
}

impl Transactional {
    async fn begin_session(&mut self) -> io::Result<()> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.connection.call(5, &request).await?;
            match answer.error_code {
                0 => {
                    self.producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                    return Ok(());
                }
                code if is_passing(code) && Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                code => return Err(unexpected("InitProducerId", code)),
            }
        }
    }

    async fn transaction(&mut self) -> io::Result<()> {
        let plan = self.plan.clone();
        let began = Instant::now();
        for n in 0..plan.batches {
            sleep_until(began + plan.interval * n / plan.batches).await;
            let sent = Instant::now();
            self.write((self.first + n as i32) % plan.partitions).await?;
            if n == 0 && plan.window.counts(Instant::now()) {
                self.seen.begins.add(sent.elapsed());
            }
        }
        sleep_until(began + plan.interval).await;
        let asked = Instant::now();
        self.commit().await?;
        if plan.window.counts(Instant::now()) {
            self.seen.commits.add(asked.elapsed());
        }
        self.seen.records += u64::from(plan.batches) * plan.values.len() as u64;
        Ok(())
    }

    async fn write(&mut self, partition: i32) -> io::Result<()> {
        let sequence = *self.sequences.get(&partition).unwrap_or(&0);
        let bytes = batch::transactional(&self.plan.values, self.producer, sequence, now_ms());
        let data = produce_request::PartitionProduceData::default().with_index(partition);
        let data = data.with_records(Some(bytes.into()));
        let named = produce_request::TopicProduceData::default().with_name(topic(&self.plan.topic));
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![named.with_partition_data(vec![data])]);
        loop {
            let answer = self.connection.call(PRODUCE_VERSION, &request).await?;
            let codes = answer.responses.iter().flat_map(|t| &t.partition_responses).map(|p| p.error_code);
            match codes.max().unwrap_or(-1) {
                0 => break,
                CONCURRENT_TRANSACTIONS => self.wait(CONCURRENT_AGAIN).await,
                code if is_passing(code) => self.wait(AGAIN).await,
                code => return Err(unexpected("Produce", code)),
            }
        }
        self.sequences.insert(partition, sequence + self.plan.values.len() as i32);
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_committed(true);
        loop {
            let answer = self.connection.call(END_TXN_VERSION, &request).await?;
            match answer.error_code {
                0 => {
                    let next = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                    if next == self.producer {
                        return Err(io::Error::other("the transaction ended without a new epoch"));
                    }
                    self.producer = next;
                    self.sequences.clear();
                    return Ok(());
                }
                CONCURRENT_TRANSACTIONS => self.wait(CONCURRENT_AGAIN).await,
                code if is_passing(code) => self.wait(AGAIN).await,
                code => return Err(unexpected("EndTxn", code)),
            }
        }
    }

    async fn wait(&mut self, pause: Duration) {
        self.seen.waits += 1;
        tokio::time::sleep(pause).await;
    }
}

/// Records that a reader of committed records sees, once no transaction is open any more.
fn committed_records(options: &Options, name: &str, partitions: i32) -> io::Result<u64> {
    let mut client = Client::connect(options.bootstrap())?;
    let mut found = 0;
    for partition in 0..partitions {
        let (mut next, deadline) = (0, Instant::now() + Duration::from_secs(60));
        loop {
            let data = read_committed(&mut client, name, partition, next)?;
            for header in headers::each(&data.records.unwrap_or_default()) {
                next = header.last_offset + 1;
                found += if header.is_control { 0 } else { header.records as u64 };
            }
            if next >= data.high_watermark {
                break;
            }
            if Instant::now() > deadline {
                let stable = data.last_stable_offset;
                let end = data.high_watermark;
                return Err(io::Error::other(format!("{name}-{partition} is stable up to {stable} of {end} only")));
            }
        }
    }
    Ok(found)
}

fn read_committed(
    client: &mut Client,
    name: &str,
    partition: i32,
    from: i64,
) -> io::Result<fetch_response::PartitionData> {
    let request = crate::client::fetch_request(name, partition, from, 100, 4 << 20).with_isolation_level(1);
    let answer = client.call(11, &request)?;
    let data = answer.responses.into_iter().flat_map(|t| t.partitions).next();
    let data = data.ok_or_else(|| io::Error::other("the fetch answer names no partition"))?;
    if data.error_code != 0 {
        return Err(unexpected("Fetch", data.error_code));
    }
    // Nothing is aborted here, so nothing has to be left out.
    match data.aborted_transactions.as_ref().is_some_and(|aborted| !aborted.is_empty()) {
        true => Err(io::Error::other(format!("{name}-{partition} has aborted transactions"))),
        false => Ok(data),
    }
}
