//! A load driver for side-by-side measurements: closed loops at full speed, open loops at a fixed rate, and what the
//! broker's process spent meanwhile.
//!
//! Speaks to any Kafka. Requests are encoded once and sent again and again, so that the driver costs little; an open
//! loop takes latencies from the moment a request was due, not from when it could be sent. Prints one line of JSON for
//! each measurement; `table` turns such lines into Markdown.

#![forbid(unsafe_code)]

#[path = "../tests/it/batch.rs"]
mod batch;
#[expect(dead_code, reason = "shared with the integration tests, which use all of it")]
#[path = "../tests/it/client.rs"]
mod client;
#[path = "driver/cluster/mod.rs"]
mod cluster;
#[path = "driver/commits.rs"]
mod commits;
#[path = "driver/compaction/mod.rs"]
mod compaction;
#[path = "driver/group/mod.rs"]
mod group;
#[path = "driver/headers.rs"]
mod headers;
#[path = "driver/measure.rs"]
mod measure;
#[path = "driver/members.rs"]
mod members;
#[path = "driver/options.rs"]
mod options;
#[path = "driver/settle.rs"]
mod settle;
#[path = "driver/table.rs"]
mod table;
#[path = "driver/transactions.rs"]
mod transactions;
#[path = "driver/wire.rs"]
mod wire;

use batch::NO_PRODUCER;
use client::{Client, fetch_request, frame, produce_request};
use measure::{Latencies, Process, now_ms};
use options::{Options, Window};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const USAGE: &str = "driver COMMAND --bootstrap ADDR [--pid PID] [--label NAME] [--topic NAME] [--partitions N]
  [--warmup 10] [--seconds 20] …
produce, e2e, consume   [--producers 1] [--batch BYTES] [--record 1024] [--rate BATCHES_PER_SECOND] [--in-flight 5]
topics, ack, idle       [--count N] [--since UNIX_MS]
group                   [--protocol classic|consumer] [--members 500] [--churn 10%] [--heartbeat-ms 3000] [--rounds 1]
commits                 [--connections 32]
transactions            [--producers 1] [--interval-ms 100] [--batches 2] [--batch 4096]
members                 [--protocol classic|consumer] [--members 5000] [--groups 10] [--fill-mb 128]
compaction              [--rate-mb 50] [--keys 200000] [--policy compact] [--configs NAME=VALUE,…] [--admin ADDR]
cluster WHAT           [--bootstrap ADDR,ADDR,…] [--tls FOLDER] [--pids NODE:PID,…]: create, ready, load, fill, failover, move,
                        steady, commands; each is described in its file
table FILE…";

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench"); // cargo adds that one
    let command = arguments.next().unwrap_or_default();
    let words: Vec<String> = arguments.collect();
    if command == "table" {
        return table::print(&words);
    }
    if command == "cluster" {
        return cluster::run(&words);
    }
    let options = Options::parse(&words);
    match command.as_str() {
        "produce" => produce(&options),
        "e2e" => end_to_end(&options),
        "consume" => consume(&options),
        "topics" => topics(&options),
        "ack" => first_ack(&options),
        "idle" => idle(&options),
        "settle" => quiet_disk(&options),
        "group" => group::run(&options),
        "commits" => commits::run(&options),
        "transactions" => transactions::run(&options),
        "members" => members::run(&options),
        "compaction" => compaction::run(&options),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}

/// The topic that records are written to.
fn data_topic(options: &Options, partitions: i32) -> io::Result<String> {
    let configs = [("retention.ms", "-1"), ("max.message.bytes", "4194304")];
    ready_topic(options, &options.text("topic", "bench"), partitions, &configs)
}

/// Makes a topic and waits for its leaders.
fn ready_topic(options: &Options, name: &str, partitions: i32, configs: &[(&str, &str)]) -> io::Result<String> {
    let mut client = Client::connect(options.bootstrap())?;
    match client.create_topic(name, partitions, configs)? {
        0 | 36 => {}
        code => return Err(io::Error::other(format!("cannot make the topic: error {code}"))),
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for partition in 0..partitions {
        while client.list_offset(name, partition, -1)?.0 != 0 {
            if Instant::now() > deadline {
                return Err(io::Error::other("the topic has no leaders"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(name.into())
}

/// Records of `record` bytes that fill a batch of about `bytes`.
fn values(bytes: u64, record: u64, stamp: u64) -> Vec<Vec<u8>> {
    let mut value: Vec<u8> = (0..record).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
    value[..8].copy_from_slice(&stamp.to_be_bytes());
    vec![value; (bytes / (record + 12)).max(1) as usize]
}

/// Producers at full speed, each with a window of requests in flight; or at a rate, if there is one.
fn produce(options: &Options) -> io::Result<()> {
    let producers = options.number("producers", 1);
    let partitions = options.number("partitions", producers.min(32)) as i32;
    let topic = data_topic(options, partitions)?;
    let (batch_bytes, record) = (options.number("batch", 16 << 10), options.number("record", 1024));
    let values = values(batch_bytes, record, 0);
    let records = values.len() as u64;
    let encoded = batch::encode(&values, NO_PRODUCER, -1, now_ms());
    let bytes = encoded.len() as u64;
    let window = Window::new(options);
    let rate = options.number("rate", 0);
    let depth = options.number("in-flight", 5);
    let address = options.bootstrap();
    let process = Process::of(options.number("pid", 0));
    let (latencies, spent) = std::thread::scope(|scope| -> io::Result<_> {
        let mut threads = vec![];
        for n in 0..producers {
            let batches = vec![((n as i32) % partitions, encoded.clone())];
            let request = frame(9, &produce_request(&topic, -1, batches), 1);
            let (window, each) = (&window, rate as f64 / producers as f64);
            threads.push(scope.spawn(move || match rate {
                0 => closed_loop(address, &request, depth, window),
                _ => open_loop(address, &request, each, window),
            }));
        }
        let spent = process.spent_between(window.begin, window.end);
        let mut all = Latencies::default();
        for thread in threads {
            all.merge(thread.join().expect("no producer panics")?);
        }
        Ok((all, spent))
    })?;
    let mut line = measure::line(options.text("label", "?"), "produce", options.number("producers", 1), batch_bytes);
    line.rate(latencies.count() * bytes, latencies.count() * records, window.length());
    line.latencies(&latencies);
    line.spent(&spent, latencies.count() * bytes);
    line.print();
    Ok(())
}

/// Takes one produce answer off the socket; its error code must be 0.
fn acknowledged(socket: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    buffer.resize(u32::from_be_bytes(length) as usize, 0);
    socket.read_exact(buffer)?;
    is_acknowledged(buffer)
}

/// Errs unless a produce answer's error code is 0.
fn is_acknowledged(frame: &[u8]) -> io::Result<()> {
    use kafka_protocol::messages::{ProduceResponse, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, HeaderVersion};
    let mut bytes = bytes::Bytes::copy_from_slice(frame);
    let bad = |e: &dyn std::fmt::Display| io::Error::other(format!("produce answer: {e}"));
    ResponseHeader::decode(&mut bytes, ProduceResponse::header_version(9)).map_err(|e| bad(&e))?;
    let response = ProduceResponse::decode(&mut bytes, 9).map_err(|e| bad(&e))?;
    match response.responses.iter().flat_map(|t| &t.partition_responses).find(|p| p.error_code != 0) {
        Some(p) => Err(bad(&format!("error {} on partition {}", p.error_code, p.index))),
        None => Ok(()),
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(socket)
}

fn closed_loop(address: SocketAddr, request: &[u8], depth: u64, window: &Window) -> io::Result<Latencies> {
    let mut socket = connect(address)?;
    let (mut sent, mut latencies, mut buffer) = (std::collections::VecDeque::new(), Latencies::default(), vec![]);
    loop {
        while (sent.len() as u64) < depth && !window.over() {
            sent.push_back(Instant::now());
            socket.write_all(request)?;
        }
        let Some(began) = sent.pop_front() else { return Ok(latencies) };
        acknowledged(&mut socket, &mut buffer)?;
        if window.counts(Instant::now()) {
            latencies.add(began.elapsed());
        }
    }
}

/// Sends at `rate` requests a second whatever the answers do; latencies count from when a request was due.
fn open_loop(address: SocketAddr, request: &[u8], rate: f64, window: &Window) -> io::Result<Latencies> {
    let mut socket = connect(address)?;
    let mut answers = socket.try_clone()?;
    let (due, dues) = mpsc::channel::<Instant>();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> io::Result<Latencies> {
            let (mut latencies, mut buffer) = (Latencies::default(), vec![]);
            for due in dues {
                acknowledged(&mut answers, &mut buffer)?;
                if window.counts(due) {
                    latencies.add(due.elapsed());
                }
            }
            Ok(latencies)
        });
        let began = Instant::now();
        for n in 0.. {
            let at = began + Duration::from_secs_f64(f64::from(n) / rate);
            if at >= window.end {
                break;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send(at).is_err() {
                break;
            }
            socket.write_all(request)?;
        }
        drop(due);
        reader.join().expect("the reader does not panic")
    })
}

/// A producer at a fixed rate and a consumer that waits for each record: from when a record was due to when it was read.
fn end_to_end(options: &Options) -> io::Result<()> {
    let topic = data_topic(options, 1)?;
    let (rate, batch_bytes) = (options.number("rate", 200), options.number("batch", 16 << 10));
    let window = Window::new(options);
    let process = Process::of(options.number("pid", 0));
    let epoch = Instant::now();
    let stop = AtomicBool::new(false);
    let (address, received) = (options.bootstrap(), AtomicU64::new(0));
    let (latencies, spent) = std::thread::scope(|scope| -> io::Result<_> {
        let consumer = scope.spawn(|| -> io::Result<Latencies> {
            let (mut client, mut latencies, mut next) = (Client::connect(address)?, Latencies::default(), 0);
            while !stop.load(Ordering::Relaxed) {
                let fetched = client.fetch(&topic, 0, next, 100, 16 << 20)?;
                let now = Instant::now();
                for batch in fetched.batches {
                    next = batch.last_offset + 1;
                    received.store(next as u64, Ordering::Relaxed);
                    let stamp =
                        batch.records[0].value.as_deref().and_then(|v| v.first_chunk()).map(|b| u64::from_be_bytes(*b));
                    let due = epoch + Duration::from_nanos(stamp.unwrap_or(0));
                    if window.counts(due) {
                        latencies.add(now.saturating_duration_since(due));
                    }
                }
            }
            Ok(latencies)
        });
        let producer = scope.spawn(|| stamped_open_loop(address, &topic, batch_bytes, rate as f64, epoch, &window));
        let spent = process.spent_between(window.begin, window.end);
        let sent = producer.join().expect("the producer does not panic")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while received.load(Ordering::Relaxed) < sent && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        Ok((consumer.join().expect("the consumer does not panic")?, spent))
    })?;
    let mut line = measure::line(options.text("label", "?"), "e2e", rate, batch_bytes);
    line.rate(latencies.count() * batch_bytes, latencies.count(), window.length());
    line.latencies(&latencies);
    line.spent(&spent, latencies.count() * batch_bytes);
    line.print();
    Ok(())
}

/// As `open_loop`, each batch stamped with when it was due; the records sent.
fn stamped_open_loop(
    address: SocketAddr,
    topic: &str,
    bytes: u64,
    rate: f64,
    epoch: Instant,
    window: &Window,
) -> io::Result<u64> {
    let mut socket = connect(address)?;
    let mut answers = socket.try_clone()?;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![];
        while acknowledged(&mut answers, &mut buffer).is_ok() {}
    });
    let (began, mut sent) = (Instant::now(), 0);
    for n in 0.. {
        let at = began + Duration::from_secs_f64(f64::from(n) / rate);
        if at >= window.end {
            break;
        }
        let values = values(bytes, 1024, (at - epoch).as_nanos() as u64);
        sent += values.len() as u64;
        let encoded = batch::encode(&values, NO_PRODUCER, -1, now_ms());
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        socket.write_all(&frame(9, &produce_request(topic, -1, vec![(0, encoded)]), 1))?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let _ = socket.shutdown(std::net::Shutdown::Both);
    let _ = reader.join();
    Ok(sent)
}

/// Reads a topic from its beginning to its end, a thread for each partition.
fn consume(options: &Options) -> io::Result<()> {
    let (topic, partitions) = (options.text("topic", "bench"), options.number("partitions", 1) as i32);
    let (address, process) = (options.bootstrap(), Process::of(options.number("pid", 0)));
    let (began, before) = (Instant::now(), process.now());
    let read = |partition| -> io::Result<u64> {
        let (mut client, mut next, mut bytes) = (Client::connect(address)?, 0, 0);
        loop {
            let request = fetch_request(&topic, partition, next, 100, 4 << 20);
            client.send(11, &request)?;
            let response = client.receive::<kafka_protocol::messages::FetchRequest>(11)?;
            let data = response.responses.into_iter().flat_map(|t| t.partitions).next();
            let records = data.and_then(|d| d.records).unwrap_or_default();
            bytes += records.len() as u64;
            match headers::each(&records).last().map(|header| header.last_offset) {
                Some(last) => next = last + 1,
                None => return Ok(bytes),
            }
        }
    };
    let bytes = std::thread::scope(|scope| -> io::Result<u64> {
        let threads: Vec<_> = (0..partitions).map(|p| scope.spawn(move || read(p))).collect();
        threads.into_iter().map(|t| t.join().expect("no consumer panics")).sum()
    })?;
    let spent = process.now().since(&before);
    let mut line = measure::line(options.text("label", "?"), "consume", partitions as u64, options.number("batch", 0));
    line.rate(bytes, 0, began.elapsed());
    line.spent(&spent, bytes);
    line.print();
    Ok(())
}

/// Makes topics until there are `--count` partitions, 100 in each.
fn topics(options: &Options) -> io::Result<()> {
    let (process, count) = (Process::of(options.number("pid", 0)), options.number("count", 10_000));
    let before = process.pss_kib();
    let mut client = Client::connect(options.bootstrap())?;
    for n in 0..count / 100 {
        let code = client.create_topic(&format!("many-{n}"), 100, &[])?;
        if code != 0 && code != 36 {
            return Err(io::Error::other(format!("topic {n}: error {code}")));
        }
    }
    std::thread::sleep(Duration::from_secs(5));
    let after = process.pss_kib();
    println!(
        "{{\"partitions\":{count},\"pss_before_kib\":{before},\"pss_after_kib\":{after},\"kib_per_partition\":{:.2}}}",
        after.saturating_sub(before) as f64 / count as f64
    );
    Ok(())
}

/// Tries until a record is acknowledged; milliseconds since `--since`.
fn first_ack(options: &Options) -> io::Result<()> {
    let topic = options.text("topic", "bench");
    let batch = batch::encode(&values(1024, 1024, 0), NO_PRODUCER, -1, now_ms());
    let since = options.number("since", now_ms() as u64);
    loop {
        let acked = Client::connect(options.bootstrap()).and_then(|mut c| c.produce(&topic, 0, batch.clone()));
        if acked.is_ok_and(|p| p.error == 0) {
            println!("{{\"first_ack_ms\":{}}}", now_ms() as u64 - since);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a process that nobody asks anything holds and spends.
fn idle(options: &Options) -> io::Result<()> {
    let process = Process::of(options.number("pid", 0));
    let seconds = options.number("seconds", 10);
    let before = process.now();
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = process.now().since(&before);
    println!(
        "{{\"idle_pss_kib\":{},\"idle_cpu_ms_per_s\":{:.2}}}",
        process.pss_kib(),
        spent.cpu_seconds * 1000.0 / seconds as f64
    );
    Ok(())
}

/// Waits for a quiet disk under `--dir`, at most `--seconds`.
fn quiet_disk(options: &Options) -> io::Result<()> {
    let folder = options.text("dir", ".");
    let (seconds, median, longest) = settle::settle(folder.as_ref(), options.seconds("seconds", 60))?;
    println!("{{\"settled_s\":{seconds:.1},\"sync_p50_ms\":{median:.2},\"sync_max_ms\":{longest:.2}}}");
    Ok(())
}
