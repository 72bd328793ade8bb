//! Money moved between accounts in transactions, while the node is killed and clients vanish: in the end nothing is
//! lost, doubled or half done, and nobody who reads what is committed has seen what was aborted.
//!
//! Every transfer is two records, on two partitions, in one transaction. Clients of both transaction versions take
//! part (KIP-98 and KIP-890). A client that does not know how its transaction ended asks for its id again, as real
//! ones do, and counts the transfer as unknown: it may be there, but then whole.

use super::batch::{self, Producer};
use super::client::{Client, text, topic};
use super::harness::{Broker, Launch, folder, now_ms, wait_for_leaders};
use super::oracle::Rng;
use kafka_protocol::messages::*;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "transfers";
pub const PARTITIONS: u64 = 4;
pub const CLIENTS: u64 = 4;
/// How long a request is sent again before its client begins anew.
const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNTS: u64 = 16;

/// Small segments and quick uploads: state moves from the log to objects within seconds.
const SETTINGS: &[(&str, &str)] = &[
    ("wal.segment_bytes", "1048576"),
    ("wal.budget_bytes", "33554432"),
    ("objects.upload_bytes", "1048576"),
    ("objects.upload_interval_ms", "300"),
    ("objects.maintenance_interval_ms", "500"),
    ("objects.grace_ms", "1000"),
    ("transaction.state.log.num.partitions", "3"),
    ("offsets.topic.num.partitions", "3"),
];

/// How a client reaches those that it has to speak to; none while they are away.
pub trait Bank: Sync {
    fn coordinator(&self, transactional_id: &str) -> Option<Client>;
    fn leader(&self, partition: i32) -> Option<Client>;
}

/// One broker, which is everything.
struct OneBroker<'a>(&'a Mutex<Option<SocketAddr>>);

impl Bank for OneBroker<'_> {
    fn coordinator(&self, _transactional_id: &str) -> Option<Client> {
        let address = (*self.0.lock().unwrap())?;
        Client::connect(address).ok()
    }

    fn leader(&self, _partition: i32) -> Option<Client> {
        self.coordinator("")
    }
}

/// What is known of the transfers, by their numbers.
#[derive(Default)]
pub struct Ledger {
    pub committed: Mutex<HashSet<u64>>,
    pub aborted: Mutex<HashSet<u64>>,
    next: AtomicU64,
    /// Between two transfers of a client.
    pause: Duration,
    pub stop: AtomicBool,
    fenced: AtomicU64,
}

impl Ledger {
    pub fn with_pause(pause: Duration) -> Ledger {
        Ledger { pause, ..Ledger::default() }
    }

    fn note(&self, set: &Mutex<HashSet<u64>>, transfer: u64) {
        set.lock().unwrap().insert(transfer);
    }
}

/// One side of a transfer as it is stored: number, account, amount.
fn leg(transfer: u64, account: u64, amount: i64) -> Vec<u8> {
    [transfer.to_be_bytes(), account.to_be_bytes(), amount.to_be_bytes()].concat()
}

/// Why a client begins anew.
#[derive(Debug)]
pub enum Trouble {
    Io,
    Code(&'static str, i16),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Trouble::Io
    }
}

fn good(what: &'static str, code: i16) -> Result<(), Trouble> {
    if code == 0 { Ok(()) } else { Err(Trouble::Code(what, code)) }
}

/// Errors after which the same request is sent again: loading, moving, too few copies, the transaction before still
/// completing. A batch that is sent again has its sequence number.
fn again(code: i16) -> bool {
    [5, 6, 7, 14, 15, 16, 19, 20, 51].contains(&code)
}

pub struct Mover<'a> {
    bank: &'a dyn Bank,
    coordinator: Client,
    leaders: BTreeMap<i32, Client>,
    id: String,
    version2: bool,
    producer: Producer,
    sequences: BTreeMap<i32, i32>,
    ledger: &'a Ledger,
}

fn patient(client: Option<Client>) -> Result<Client, Trouble> {
    let client = client.ok_or(Trouble::Io)?;
    client.set_timeout(Duration::from_secs(10))?;
    Ok(client)
}

impl<'a> Mover<'a> {
    /// Asks for the id of client `number`, which ends what an earlier one had begun.
    pub fn start(bank: &'a dyn Bank, number: u64, ledger: &'a Ledger) -> Result<Mover<'a>, Trouble> {
        let id = format!("mover-{number}");
        let find = FindCoordinatorRequest::default().with_key_type(1).with_key(text(&id));
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(&id))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut coordinator = patient(bank.coordinator(&id))?;
            // The first question makes the coordinators' topic.
            coordinator.call(3, &find)?;
            let answer = coordinator.call(4, &init)?;
            if answer.error_code == 0 {
                let producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                let (leaders, sequences, version2) = (BTreeMap::new(), BTreeMap::new(), number % 2 == 1);
                return Ok(Mover { bank, coordinator, leaders, id, version2, producer, sequences, ledger });
            }
            if !again(answer.error_code) {
                return Err(Trouble::Code("InitProducerId", answer.error_code));
            }
            assert!(Instant::now() < deadline, "no coordinator for {id}: {}", answer.error_code);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits a little, and looks for the coordinator again if it is elsewhere now.
    fn ask_again(&mut self, code: i16, deadline: Instant) -> Result<(), Trouble> {
        std::thread::sleep(Duration::from_millis(10));
        if Instant::now() > deadline {
            return Err(Trouble::Io);
        }
        if code == 16 {
            self.coordinator = patient(self.bank.coordinator(&self.id))?;
        }
        Ok(())
    }

    /// One transfer. `vanish`: the connection is dropped before the transaction ends.
    fn transfer(&mut self, rng: &mut Rng, vanish: bool) -> Result<(), Trouble> {
        let number = self.ledger.next.fetch_add(1, Ordering::Relaxed);
        let (from, amount) = (rng.range(0, ACCOUNTS - 1), rng.range(1, 100) as i64);
        let to = (from + 1 + rng.range(0, ACCOUNTS - 2)) % ACCOUNTS;
        let legs = [(from, -amount), (to, amount)];
        if !self.version2 {
            self.add_partitions(&legs)?;
        }
        for (account, change) in legs {
            self.write((account % PARTITIONS) as i32, leg(number, account, change))?;
        }
        if vanish {
            return Err(Trouble::Io);
        }
        let commit = rng.range(0, 4) > 0;
        let sure = if commit { &self.ledger.committed } else { &self.ledger.aborted };
        self.end(commit)?;
        self.ledger.note(sure, number);
        Ok(())
    }

    fn add_partitions(&mut self, legs: &[(u64, i64)]) -> Result<(), Trouble> {
        let mut partitions: Vec<i32> = legs.iter().map(|(account, _)| (account % PARTITIONS) as i32).collect();
        partitions.dedup();
        let added = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(topic(TOPIC));
        let deadline = Instant::now() + PATIENCE;
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(&self.id)))
            .with_v3_and_below_producer_id(ProducerId(self.producer.id))
            .with_v3_and_below_producer_epoch(self.producer.epoch)
            .with_v3_and_below_topics(vec![added.with_partitions(partitions)]);
        loop {
            let answer = self.coordinator.call(3, &request)?;
            let codes = answer.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
            let code = codes.map(|p| p.partition_error_code).find(|code| *code != 0).unwrap_or(0);
            if !again(code) {
                return good("AddPartitionsToTxn", code);
            }
            self.ask_again(code, deadline)?;
        }
    }

    fn write(&mut self, partition: i32, value: Vec<u8>) -> Result<(), Trouble> {
        let sequence = *self.sequences.entry(partition).or_insert(0);
        let bytes = batch::transactional(&[value], self.producer, sequence, now_ms());
        let data = produce_request::PartitionProduceData::default().with_index(partition);
        let data = data.with_records(Some(bytes.into()));
        let named = produce_request::TopicProduceData::default().with_name(topic(TOPIC));
        let request = ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(text(&self.id))))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![named.with_partition_data(vec![data])]);
        let version = if self.version2 { 12 } else { 9 };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = match self.leaders.entry(partition) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(patient(self.bank.leader(partition))?),
            };
            let answer = leader.call(version, &request)?;
            let code = answer.responses[0].partition_responses[0].error_code;
            if again(code) {
                if [5, 6].contains(&code) {
                    self.leaders.remove(&partition);
                }
                self.ask_again(0, deadline)?;
                continue;
            }
            good("Produce", code)?;
            self.sequences.insert(partition, sequence + 1);
            return Ok(());
        }
    }

    fn end(&mut self, commit: bool) -> Result<(), Trouble> {
        let version = if self.version2 { 5 } else { 3 };
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&self.id)))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_committed(commit);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.coordinator.call(version, &request)?;
            if again(answer.error_code) {
                self.ask_again(answer.error_code, deadline)?;
                continue;
            }
            good("EndTxn", answer.error_code)?;
            if self.version2 {
                self.producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                self.sequences.clear();
            }
            return Ok(());
        }
    }
}

/// Moves money until it is told to stop, over all troubles.
pub fn client(bank: &dyn Bank, number: u64, seed: u64, ledger: &Ledger) {
    let mut rng = Rng(seed ^ number.wrapping_mul(0x9e37_79b9));
    while !ledger.stop.load(Ordering::Relaxed) {
        let outcome = Mover::start(bank, number, ledger).and_then(|mut mover| {
            loop {
                if ledger.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let vanish = rng.range(0, 60) == 0;
                mover.transfer(&mut rng, vanish)?;
                std::thread::sleep(ledger.pause);
            }
        });
        match outcome {
            Ok(()) | Err(Trouble::Io) => std::thread::sleep(Duration::from_millis(5)),
            // Its own earlier self may have ended between two requests; nothing else fences it.
            Err(Trouble::Code(_, 47 | 90)) => drop(ledger.fenced.fetch_add(1, Ordering::Relaxed)),
            Err(Trouble::Code(what, code)) => panic!("client {number}: {what} answers {code}"),
        }
    }
}

fn read_once(client: &mut Client, asked: fetch_request::FetchPartition) -> io::Result<fetch_response::PartitionData> {
    let named = fetch_request::FetchTopic::default().with_topic(topic(TOPIC));
    let request = FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_topics(vec![named.with_partitions(vec![asked.with_partition_max_bytes(1 << 20)])]);
    let response = client.call(11, &request)?;
    Ok(response.responses.into_iter().flat_map(|t| t.partitions).next().expect("one partition"))
}

/// Everything that is stored, with what readers are told about it: for whoever has to find out why a judgement failed.
pub fn describe(bank: &dyn Bank, out: &mut dyn io::Write) -> io::Result<()> {
    for partition in 0..PARTITIONS as i32 {
        let mut client = bank.leader(partition).ok_or_else(|| io::Error::other("nobody leads"))?;
        let mut next = 0;
        loop {
            let asked = fetch_request::FetchPartition::default().with_partition(partition).with_fetch_offset(next);
            let data = read_once(&mut client, asked)?;
            for aborted in data.aborted_transactions.unwrap_or_default() {
                let (producer, first) = (aborted.producer_id.0, aborted.first_offset);
                writeln!(out, "{partition} from {next}: producer {producer} aborted from {first}")?;
            }
            let batches = batch::decode(&data.records.unwrap_or_default()).map_err(io::Error::other)?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                next = batch.last_offset + 1;
                let (base, id, epoch, sequence) =
                    (batch.base_offset, batch.producer.id, batch.producer.epoch, batch.base_sequence);
                write!(out, "{partition} {base} producer {id} epoch {epoch} sequence {sequence}:")?;
                for record in batch.records {
                    let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                    let number = |at: usize| value[at..at + 8].try_into().map(u64::from_be_bytes).unwrap_or_default();
                    match value.len() {
                        24 => write!(out, " transfer {} account {} {}", number(0), number(8), number(16) as i64)?,
                        _ => write!(out, " key {key:?} value {value:?}")?,
                    }
                }
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// What a reader of committed records sees: number, account, amount.
pub fn committed_legs(bank: &dyn Bank) -> io::Result<Vec<(u64, u64, i64)>> {
    let mut legs = vec![];
    for partition in 0..PARTITIONS as i32 {
        let mut client = bank.leader(partition).ok_or_else(|| io::Error::other("nobody leads"))?;
        let mut next = 0;
        loop {
            let asked = fetch_request::FetchPartition::default().with_partition(partition).with_fetch_offset(next);
            let data = read_once(&mut client, asked)?;
            assert_eq!(data.error_code, 0, "reading {partition} at {next}");
            let aborted = data.aborted_transactions.unwrap_or_default();
            let batches = batch::decode(&data.records.unwrap_or_default()).map_err(io::Error::other)?;
            if batches.is_empty() {
                assert_eq!(data.last_stable_offset, data.high_watermark, "a transaction is left open on {partition}");
                break;
            }
            let mut ended: HashSet<(i64, i64)> = HashSet::new();
            for batch in batches {
                next = batch.last_offset + 1;
                let skips = aborted.iter().find(|a| {
                    a.producer_id.0 == batch.producer.id
                        && a.first_offset <= batch.base_offset
                        && !ended.contains(&(a.producer_id.0, a.first_offset))
                });
                if batch.attributes & 0x20 != 0 {
                    // A marker ends what it belongs to; an abort is one whose key says type 0.
                    let abort = batch.records[0].key.as_deref().is_some_and(|key| key[2..4] == [0, 0]);
                    if let (Some(skipped), true) = (skips, abort) {
                        ended.insert((skipped.producer_id.0, skipped.first_offset));
                    }
                    continue;
                }
                if skips.is_some() {
                    continue;
                }
                for record in batch.records {
                    let value = record.value.expect("a leg has a value");
                    let number = |at: usize| u64::from_be_bytes(value[at..at + 8].try_into().expect("eight bytes"));
                    legs.push((number(0), number(8), number(16) as i64));
                }
            }
        }
    }
    Ok(legs)
}

/// Checks what is there against what is known.
pub fn judge(ledger: &Ledger, legs: &[(u64, u64, i64)]) {
    let mut by_transfer: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for (transfer, _, amount) in legs {
        by_transfer.entry(*transfer).or_default().push(*amount);
    }
    for (transfer, amounts) in &by_transfer {
        assert_eq!(amounts.len(), 2, "transfer {transfer} is there {} times: {amounts:?}", amounts.len());
        assert_eq!(amounts.iter().sum::<i64>(), 0, "transfer {transfer} makes or loses money");
    }
    let committed = ledger.committed.lock().unwrap();
    let aborted = ledger.aborted.lock().unwrap();
    let lost: Vec<_> = committed.iter().filter(|t| !by_transfer.contains_key(t)).collect();
    assert!(lost.is_empty(), "committed, but not there: {lost:?}");
    let seen: Vec<_> = aborted.iter().filter(|t| by_transfer.contains_key(t)).collect();
    assert!(seen.is_empty(), "aborted, but seen: {seen:?}");
    let total = ledger.next.load(Ordering::Relaxed);
    let unknown = total - (committed.len() + aborted.len()) as u64;
    println!(
        "{total} transfers: {} committed, {} aborted, {unknown} with unknown outcome, {} of them there; {} times fenced",
        committed.len(),
        aborted.len(),
        by_transfer.len() - committed.len(),
        ledger.fenced.load(Ordering::Relaxed)
    );
}

fn campaign(data: &Path, kills: u32, seed: u64) {
    let launch = || Launch::dev(data).sets(SETTINGS);
    let ledger = Ledger::default();
    let address: Mutex<Option<SocketAddr>> = Mutex::new(None);
    let bank = OneBroker(&address);
    let mut rng = Rng(seed);
    let broker: Broker = launch().start();
    let mut admin = broker.client();
    admin.create_topic(TOPIC, PARTITIONS as i32, &[]).unwrap();
    wait_for_leaders(&mut admin, TOPIC, PARTITIONS as i32);
    drop(admin);
    let broker = std::thread::scope(|scope| {
        let mut broker = broker;
        for number in 0..CLIENTS {
            let (ledger, bank) = (&ledger, &bank);
            scope.spawn(move || client(bank, number, seed, ledger));
        }
        for _ in 0..kills {
            *address.lock().unwrap() = Some(broker.address("plaintext"));
            std::thread::sleep(Duration::from_millis(rng.range(50, 1200)));
            *address.lock().unwrap() = None;
            broker.kill();
            broker = launch().start();
        }
        *address.lock().unwrap() = Some(broker.address("plaintext"));
        std::thread::sleep(Duration::from_secs(2));
        ledger.stop.store(true, Ordering::Relaxed);
        broker
    });
    // Whoever was interrupted begins anew: that ends what was open.
    for number in 0..CLIENTS {
        Mover::start(&bank, number, &ledger).expect("every client comes back");
    }
    let legs = committed_legs(&bank).unwrap();
    judge(&ledger, &legs);
    assert!(ledger.committed.lock().unwrap().len() > 10 * kills as usize, "hardly anything was committed");
    assert!(!ledger.aborted.lock().unwrap().is_empty(), "nothing was aborted");
    broker.terminate(Duration::from_secs(30));
    // And once more from what is stored alone.
    let broker = launch().start();
    *address.lock().unwrap() = Some(broker.address("plaintext"));
    judge(&ledger, &committed_legs(&bank).unwrap());
    broker.terminate(Duration::from_secs(30));
}

#[test]
fn transfers_survive_a_few_kills() {
    let dir = folder();
    campaign(dir.path(), 4, 1);
}

#[test]
#[ignore = "long: make test-long"]
fn transfers_survive_a_hundred_kills() {
    let dir = folder();
    campaign(dir.path(), 100, u64::from(std::process::id()));
}
