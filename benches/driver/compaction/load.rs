//! Keyed records at a fixed rate.
//!
//! Which key comes next is a function of the record's number, so that a reader can tell what was written last without
//! a word from the writer.

use crate::batch::{self, NO_PRODUCER, varint};
use crate::client::{frame, produce_request};
use crate::measure::{Latencies, now_ms};
use crate::options::{Options, Window};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub struct Load {
    address: SocketAddr,
    pub topic: String,
    pub partitions: i32,
    keys: u64,
    /// Bytes of a record's value.
    pub record: u64,
    records_each: u64,
    batch_bytes: u64,
    pub rate_mb: u64,
    value: Vec<u8>,
    /// Batches that were sent.
    sent: AtomicU64,
}

impl Load {
    pub fn new(options: &Options, topic: &str, partitions: i32) -> Load {
        let record = options.number("record", 1024);
        let records_each = (options.number("batch", 16 << 10) / (record + 30)).max(1);
        let value = (0..record).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
        let mut load = Load {
            address: options.bootstrap(),
            topic: topic.into(),
            partitions,
            keys: options.number("keys", 200_000),
            record,
            records_each,
            batch_bytes: 0,
            rate_mb: options.number("rate-mb", 50),
            value,
            sent: AtomicU64::new(0),
        };
        load.batch_bytes = load.encode(u64::MAX / 2).len() as u64;
        load
    }

    pub fn keys(&self) -> u64 {
        self.keys
    }

    pub fn batch_bytes(&self) -> u64 {
        self.batch_bytes
    }

    pub fn records_each(&self) -> u64 {
        self.records_each
    }

    /// Bytes of one record for each key.
    pub fn live_bytes(&self) -> u64 {
        self.batch_bytes * self.keys / self.records_each
    }

    /// Records that were sent in all.
    pub fn records_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) * self.records_each
    }

    /// The key of a record, by the record's number: any of them, evenly, in no order.
    pub fn key_of(&self, number: u64) -> u64 {
        let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % self.keys
    }

    /// A key always goes to the same partition: all records of a batch have keys of one.
    fn partition_of(&self, batch: u64) -> i32 {
        (batch % self.partitions as u64) as i32
    }

    /// The key of a record of a batch, which is one of those that belong to the batch's partition.
    pub fn key_in(&self, batch: u64, number: u64) -> u64 {
        let (partition, partitions) = (self.partition_of(batch) as u64, self.partitions as u64);
        let key = self.key_of(number);
        let key = key - key % partitions + partition;
        if key < self.keys { key } else { partition }
    }

    fn encode(&self, batch: u64) -> Vec<u8> {
        let mut records = Vec::with_capacity((self.records_each * (self.record + 30)) as usize);
        let mut body = Vec::with_capacity(self.record as usize + 30);
        for delta in 0..self.records_each {
            let number = batch.wrapping_mul(self.records_each).wrapping_add(delta);
            body.clear();
            body.push(0); // attributes
            varint(&mut body, 0); // timestamp delta
            varint(&mut body, delta as i64);
            varint(&mut body, 16);
            body.extend_from_slice(format!("{:016x}", self.key_in(batch, number)).as_bytes());
            varint(&mut body, self.value.len() as i64);
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&self.value[8..]);
            varint(&mut body, 0); // no headers
            varint(&mut records, body.len() as i64);
            records.extend_from_slice(&body);
        }
        batch::encode_body(&records, self.records_each as i32, 0, NO_PRODUCER, -1, now_ms())
    }

    /// Sends until the window is over, whatever the answers do; latencies count from when a batch was due.
    pub fn run(&self, window: Window) -> io::Result<Latencies> {
        let mut socket = crate::connect(self.address)?;
        let answers = socket.try_clone()?;
        let (due, dues) = mpsc::channel::<Instant>();
        let rate = self.rate_mb as f64 * 1e6 / self.batch_bytes as f64;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || read(answers, &dues, window));
            let began = Instant::now();
            for n in 0.. {
                let at = began + Duration::from_secs_f64(n as f64 / rate);
                if at >= window.end {
                    break;
                }
                let batches = vec![(self.partition_of(n), self.encode(n))];
                let request = frame(9, &produce_request(&self.topic, -1, batches), 1);
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if due.send(at).is_err() {
                    break; // the reader says why
                }
                socket.write_all(&request)?;
                self.sent.store(n + 1, Ordering::Relaxed);
            }
            drop(due);
            reader.join().expect("the reader does not panic")
        })
    }
}

fn read(mut answers: TcpStream, dues: &mpsc::Receiver<Instant>, window: Window) -> io::Result<Latencies> {
    let (mut latencies, mut buffer) = (Latencies::default(), vec![]);
    for due in dues {
        crate::acknowledged(&mut answers, &mut buffer)?;
        if window.counts(due) {
            latencies.add(due.elapsed());
        }
    }
    Ok(latencies)
}
