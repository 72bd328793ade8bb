//! Random events: a fresh machine that replays the records equals the one that wrote them, no transaction completes
//! before all of its markers, every request gets one answer, and nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::Transaction;
use super::*;

/// xorshift64*: a test's own numbers, the same for a seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

const IDS: [&str; 4] = ["a", "b", "c", "d"];
const TOPICS: [&str; 3] = ["orders", "payments", "__consumer_offsets"];

struct World {
    random: Random,
    options: Options,
    machine: Coordinator,
    log: Vec<Write>,
    /// What the log says of each id, read record by record.
    recorded: BTreeMap<String, Transaction>,
    now_ms: u64,
    next_id: i64,
    token: u64,
    unanswered: BTreeSet<u64>,
    orders: Vec<Markers>,
    /// Partitions of each prepared transaction whose markers are not durable.
    unwritten: BTreeMap<String, Vec<TopicPartition>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let options = Options {
            id_expiration_ms: 40_000,
            expiration_check_interval: Duration::from_secs(30),
            batch_bytes_max: 1500,
            ..Options::default()
        };
        let mut world = World {
            random: Random(seed),
            machine: Coordinator::new(options.clone(), 1),
            options,
            log: vec![],
            recorded: BTreeMap::new(),
            now_ms: 1000,
            next_id: 1000,
            token: 0,
            unanswered: BTreeSet::new(),
            orders: vec![],
            unwritten: BTreeMap::new(),
        };
        world.machine.loaded(world.now());
        world
    }

    /// Every id begins with few epochs left.
    fn nearly_exhausted(&mut self) {
        for (id, producer_id) in IDS.into_iter().zip(500..) {
            let mut transaction = Transaction::new(producer_id, 30_000, self.now());
            transaction.producer.epoch = i16::MAX - 4;
            let value = record::encode_value(&transaction, TransactionVersion::V2);
            self.log.push(Write { key: record::encode_key(id), value: Some(value) });
            self.recorded.insert(id.to_owned(), transaction);
        }
        self.reload();
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms as i64, monotonic: Duration::from_millis(self.now_ms) }
    }

    /// Takes effects as a host does, and checks each record against what came before it.
    fn take(&mut self, effects: Effects) {
        let bytes = |w: &Write| w.key.len() + w.value.as_ref().map_or(0, bytes::Bytes::len);
        assert!(effects.records.iter().map(bytes).sum::<usize>() <= self.options.batch_bytes_max);
        for write in &effects.records {
            let id = record::decode_key(&write.key).expect("its own key");
            let Some(value) = &write.value else {
                let gone = self.recorded.remove(&id).expect("a tombstone of something");
                assert!(!gone.state.is_prepared() && gone.state != State::Ongoing, "{id} expired in use");
                continue;
            };
            let new = record::decode_value(value).expect("its own value");
            if let Some(old) = self.recorded.get(&id) {
                let (was, is) = (old.producer, new.producer);
                assert!(is.id != was.id || is.epoch >= was.epoch, "{id}: an epoch went back, {was:?} to {is:?}");
                if old.state.is_prepared() {
                    assert!(!new.state.is_prepared() && new.state != State::Ongoing && new.state != State::Empty);
                    assert_eq!(self.unwritten.remove(&id).unwrap_or_default(), [], "{id} is complete without a marker");
                }
            }
            if new.state.is_prepared() {
                self.unwritten.insert(id.clone(), new.partitions.iter().collect());
            }
            self.recorded.insert(id, new);
        }
        self.log.extend(effects.records);
        for (token, _) in effects.replies {
            assert!(self.unanswered.remove(&token.0), "an answer to nothing, or a second one");
        }
        self.orders.extend(effects.markers);
    }

    /// Mostly the current producer of the id, else one that a client might have in mind.
    fn producer(&mut self, id: &str) -> Producer {
        let current = self.recorded.get(id).map_or(Producer { id: 7, epoch: 0 }, |t| t.producer);
        match self.random.below(8) {
            0 => Producer { epoch: current.epoch.saturating_sub(1), ..current },
            1 => Producer { epoch: current.epoch.saturating_add(1), ..current },
            2 => Producer { id: current.id + 1, epoch: i16::MAX - 1 },
            _ => current,
        }
    }

    fn partitions(&mut self) -> Vec<TopicPartition> {
        let many = self.random.one_in(20);
        let count = if many { 40 } else { self.random.below(4) };
        (0..count).map(|_| ((*self.random.pick(&TOPICS)).into(), self.random.below(60) as i32)).collect()
    }

    fn request(&mut self) {
        let id = *self.random.pick(&IDS);
        let (transactional_id, producer, partitions) = (id.to_owned(), self.producer(id), self.partitions());
        let version = *self.random.pick(&[TransactionVersion::V0, TransactionVersion::V2, TransactionVersion::V2]);
        let commit = self.random.one_in(2);
        let request = match self.random.below(12) {
            0 | 1 => {
                let expected = self.random.one_in(2).then_some(producer);
                let timeout_ms = *self.random.pick(&[0, 5000, 30_000, 60_000, 1_000_000]);
                Request::InitProducerId { transactional_id, timeout_ms, expected }
            }
            2..6 => {
                let wait = Duration::from_millis(self.random.below(2) * 100);
                Request::AddPartitions { transactional_id, producer, partitions, version, wait }
            }
            6 => Request::VerifyPartitions { transactional_id, producer, partitions },
            7 => {
                let partition = (TOPICS[2].into(), 3);
                Request::AddOffsets { transactional_id, producer, partition }
            }
            8 => Request::DescribeTransaction { transactional_id },
            9 if self.random.one_in(4) => Request::ListTransactions(Filter { duration_ms: 10, ..Filter::default() }),
            _ => Request::EndTxn { transactional_id, producer, commit, version },
        };
        self.token += 1;
        self.unanswered.insert(self.token);
        let no_ids = self.random.one_in(10);
        let (token, now, next_id) = (Token(self.token), self.now(), &mut self.next_id);
        let effects = self.machine.on_request(token, request, now, &mut || take_id(next_id, no_ids));
        self.take(effects);
    }

    /// Some markers of some order, old ones too, become durable.
    fn markers(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let id = *self.random.pick(&IDS);
        let newest = self.orders.iter().rfind(|m| &*m.transactional_id == id).cloned();
        let order = match newest {
            Some(order) if !self.random.one_in(4) => order,
            _ => self.random.pick(&self.orders).clone(),
        };
        let written: Vec<_> = order.partitions.iter().filter(|_| !self.random.one_in(4)).cloned().collect();
        let id = order.transactional_id.to_string();
        let mine = self.recorded.get(&id).is_some_and(|t| t.state.is_prepared() && t.producer == order.producer);
        let newest = self.orders.iter().rfind(|m| m.transactional_id == order.transactional_id);
        if mine && newest.is_some_and(|m| m.order == order.order) {
            self.unwritten.entry(id.clone()).or_default().retain(|p| !written.contains(p));
        }
        let effects = self.machine.markers_written(&id, order.order, &written, self.now());
        self.take(effects);
        // Some old orders stay, to be reported again; those that are waited for must.
        let old = self.orders.len().saturating_sub(20);
        let mut at = 0;
        let recorded = &self.recorded;
        self.orders.retain(|m| {
            at += 1;
            at > old || recorded.get(&*m.transactional_id).is_some_and(|t| t.state.is_prepared())
        });
    }

    fn pass_time(&mut self) {
        self.now_ms += *self.random.pick(&[1, 10, 100, 3000, 12_000]);
        let no_ids = self.random.one_in(10);
        let (now, next_id) = (self.now(), &mut self.next_id);
        let effects = self.machine.on_timer(now, &mut || take_id(next_id, no_ids));
        self.take(effects);
    }

    /// The process ends and another one goes on; who waited is gone.
    fn reload(&mut self) {
        self.machine = self.replayed();
        self.unanswered.clear();
        for (id, t) in self.recorded.iter().filter(|(_, t)| t.state.is_prepared()) {
            self.unwritten.insert(id.clone(), t.partitions.iter().collect());
        }
        self.now_ms += 1;
        let effects = self.machine.loaded(self.now());
        self.take(effects);
    }

    fn replayed(&self) -> Coordinator {
        let mut fresh = Coordinator::new(self.options.clone(), 2);
        for write in &self.log {
            fresh.replay(&write.key, write.value.as_deref()).expect("its own record");
        }
        fresh
    }

    /// Markers that are durable already are no part of the record: they are asked for again.
    fn compare(&self) {
        let (mut fresh, mut live) = (self.replayed().recorded(), self.machine.recorded());
        assert_eq!(fresh, self.recorded);
        for (id, t) in fresh.iter_mut().filter(|(_, t)| t.state.is_prepared()) {
            let live = live.get_mut(id).expect("the same ids");
            assert!(live.partitions.iter().all(|p| t.partitions.contains(&p)), "{id}");
            t.partitions.clear();
            live.partitions.clear();
        }
        for t in live.values_mut().filter(|_| self.options.version < TransactionVersion::V1) {
            t.previous_producer_id = None;
        }
        assert_eq!(live, fresh);
    }
}

fn take_id(next_id: &mut i64, none: bool) -> Option<i64> {
    if none {
        return None;
    }
    *next_id += 1;
    Some(*next_id - 1)
}

#[test]
fn replay_gives_what_was_written_and_nothing_completes_early() {
    let mut written: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=60 {
        let mut world = World::new(seed);
        if seed % 10 == 0 {
            world.options.version = TransactionVersion::V1;
            world.machine.set_options(world.options.clone());
        }
        if seed % 3 == 0 {
            world.nearly_exhausted();
        }
        for step in 0..1200 {
            match world.random.below(20) {
                0..11 => world.request(),
                11..16 => world.markers(),
                16..19 => world.pass_time(),
                _ if world.random.one_in(5) => world.reload(),
                _ => world.machine.cancel(Token(world.random.below(world.token + 1))),
            }
            if step % 60 == 59 {
                world.compare();
            }
        }
        world.now_ms += 1000;
        let (now, next_id) = (world.now(), &mut world.next_id);
        let effects = world.machine.on_timer(now, &mut || take_id(next_id, false));
        world.take(effects);
        for write in &world.log {
            let value = write.value.as_ref().map(|v| record::decode_value(v).expect("its own value"));
            *written.entry(value.as_ref().map_or("tombstone", |t| t.state.name())).or_default() += 1;
            *written.entry("overflow").or_default() += u32::from(value.is_some_and(|t| t.next_producer_id.is_some()));
        }
    }
    let kinds = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "tombstone"];
    for kind in kinds.into_iter().chain(["overflow"]) {
        assert!(written.get(kind).is_some_and(|count| *count > 30), "too little happens: {written:?}");
    }
}

#[test]
fn no_record_and_no_request_makes_it_panic() {
    let mut random = Random(99);
    for seed in 1..=200 {
        let mut world = World::new(seed);
        for id in IDS {
            let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
            let transaction = Transaction {
                producer: Producer {
                    id: *random.pick(&extremes),
                    epoch: *random.pick(&[i16::MIN, -1, 0, i16::MAX - 2, i16::MAX - 1, i16::MAX]),
                },
                previous_producer_id: Some(*random.pick(&extremes)),
                next_producer_id: Some(*random.pick(&extremes)),
                last_epoch: None,
                timeout_ms: *random.pick(&[i32::MIN, -1, 0, 1, i32::MAX]),
                state: State::from_id(random.below(6) as u8).expect("a recorded state"),
                partitions: [("orders".into(), *random.pick(&[i32::MIN, 0, i32::MAX]))].into_iter().collect(),
                start_ms: *random.pick(&extremes),
                update_ms: *random.pick(&extremes),
                client_version: TransactionVersion::V2,
            };
            let value = record::encode_value(&transaction, TransactionVersion::V2);
            world.machine.replay(&record::encode_key(id), Some(&value)).expect("a well-formed record");
        }
        let mut orders = world.machine.loaded(world.now()).markers;
        for _ in 0..60 {
            let id = *random.pick(&IDS);
            let t = world.machine.recorded().get(id).cloned();
            let producer = t.map_or(Producer { id: 0, epoch: 0 }, |t| t.producer);
            let (transactional_id, version) = (id.to_owned(), TransactionVersion::V2);
            let request = match random.below(3) {
                0 => Request::InitProducerId { transactional_id, timeout_ms: 1, expected: Some(producer) },
                1 => Request::EndTxn { transactional_id, producer, commit: random.one_in(2), version },
                _ => {
                    let (partitions, wait) = (vec![("x".into(), 0)], Duration::MAX);
                    Request::AddPartitions { transactional_id, producer, partitions, version, wait }
                }
            };
            let monotonic = Duration::from_secs(random.below(100_000));
            let now = Now { wall_ms: *random.pick(&[i64::MIN, 0, i64::MAX]), monotonic };
            let mut ids = || Some(i64::MAX);
            orders.extend(world.machine.on_request(Token(1), request, now, &mut ids).markers);
            orders.extend(world.machine.on_timer(now, &mut ids).markers);
            if let Some(m) = orders.pop() {
                world.machine.markers_written(&m.transactional_id, m.order, &m.partitions, now);
            }
            let _ = world.machine.next_deadline();
        }
    }
}
