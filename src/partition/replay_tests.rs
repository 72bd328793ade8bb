//! Seeded lives of a partition, through appends, syncs, uploads, merges, moves of the log start, forgetting of batches,
//! and crashes. After each step all that it says of producers and transactions is compared with what the whole log says.

use std::collections::BTreeMap;

use crate::base::{EntryId, LeaderEpoch, LedgerId, NodeId, Offset, PartitionId, ProducerId, TopicId, limits};
use crate::batch::{self, EndMarker, Header, StoredBatch, sample};
use crate::metadata;
use crate::object::{
    AbortedTransaction, OpenTransaction, PartitionState, ProducerBatch, ProducerEntry, RunTransactions,
};
use crate::wal::Location;

use super::Isolation;
use super::producer_state::Origin;
use super::state::{Recovered, State};

const ID: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };
const LEDGER: LedgerId = LedgerId(1);
const PRODUCERS: u64 = 4;
/// All appends have the same time, so that recovered state can be compared.
const NOW_MS: i64 = 1_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    fn offset(&mut self, from: Offset, to: Offset) -> Offset {
        from.plus(self.below((to.0 - from.0).max(0) as u64 + 1) as i64)
    }
}

#[derive(Clone)]
struct Logged {
    header: Header,
    batch: StoredBatch,
    marker: Option<EndMarker>,
}

/// Everything that was appended and not lost: the truth.
#[derive(Clone, Default)]
struct Log(Vec<Logged>);

/// What the log says as of an offset.
#[derive(Default)]
struct Said {
    producers: BTreeMap<ProducerId, ProducerEntry>,
    open: BTreeMap<ProducerId, Offset>,
    aborted: Vec<AbortedTransaction>,
}

impl Log {
    fn as_of(&self, end: Offset) -> Said {
        let mut said = Said::default();
        for Logged { header, marker, .. } in self.0.iter().take_while(|b| b.header.next_offset() <= end) {
            if !header.has_producer() {
                continue;
            }
            let (id, epoch) = (header.producer_id, header.producer_epoch);
            let entry = said.producers.entry(id).or_insert_with(|| ProducerEntry {
                id,
                epoch,
                coordinator_epoch: -1,
                last_timestamp: NOW_MS,
                batches: vec![],
            });
            if entry.epoch != epoch {
                (entry.epoch, entry.batches) = (epoch, vec![]);
            }
            if let Some(marker) = marker {
                entry.coordinator_epoch = marker.coordinator_epoch;
                if let (Some(first_offset), false) = (said.open.remove(&id), marker.commit) {
                    let last_offset = header.base_offset;
                    said.aborted.push(AbortedTransaction { producer: id, first_offset, last_offset });
                }
                continue;
            }
            entry.batches.push(ProducerBatch {
                first_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                base_offset: header.base_offset,
                timestamp: header.max_timestamp,
            });
            if entry.batches.len() > limits::PRODUCER_WINDOW {
                entry.batches.remove(0);
            }
            if header.is_transactional() {
                said.open.entry(id).or_insert(header.base_offset);
            }
        }
        said
    }

    /// What the footer of a run `base..end` has to say.
    fn footer(&self, base: Offset, end: Offset, log_start: Offset) -> PartitionState {
        let said = self.as_of(end);
        let mut open_transactions: Vec<_> =
            said.open.into_iter().map(|(producer, first_offset)| OpenTransaction { producer, first_offset }).collect();
        open_transactions.sort_by_key(|t| t.first_offset);
        PartitionState {
            epochs: vec![],
            producers: said.producers.into_values().collect(),
            log_start,
            open_transactions,
            aborted_transactions: said
                .aborted
                .into_iter()
                .filter(|t| t.last_offset >= base && t.last_offset >= log_start)
                .collect(),
        }
    }

    fn end(&self) -> Offset {
        self.0.last().map_or(Offset::ZERO, |b| b.header.next_offset())
    }
}

struct Life {
    random: Random,
    log: Log,
    state: State,
    /// How many batches are durable.
    synced: usize,
    log_start: Offset,
    uploaded: Offset,
    /// Runs in object storage.
    runs: Vec<(Offset, Offset, PartitionState)>,
    segment: u64,
    seen: Seen,
}

/// How often what the lives are for has happened: a test that never comes there proves nothing.
#[derive(Debug, Default)]
struct Seen {
    /// Starts with a footer that had open transactions, some of which the WAL went on with.
    continued: usize,
    uploaded_by_others: usize,
    /// Reads that had to skip something which only footers know.
    skipped_stored: usize,
    /// Of them, by more than one footer.
    walked: usize,
    /// Moments at which a marker was not durable yet.
    ending: usize,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut life = Life {
            random: Random(seed),
            log: Log::default(),
            state: State::open(ID, &metadata::Partition::new(NodeId(1)), vec![], NOW_MS).expect("empty"),
            synced: 0,
            log_start: Offset::ZERO,
            uploaded: Offset::ZERO,
            runs: vec![],
            segment: 1,
            seen: Seen::default(),
        };
        life.random.below(1);
        life
    }

    fn image(&self) -> metadata::Partition {
        let mut image = metadata::Partition::new(NodeId(1));
        (image.uploaded_end, image.log_start) = (self.uploaded, self.log_start);
        image
    }

    fn append(&mut self, mut batch: StoredBatch, origin: Origin) {
        batch.place(self.state.next, LeaderEpoch(0));
        let header = batch.header();
        if header.has_producer() {
            let verdict = self.state.producers.get_or_insert_default().check(&header, origin);
            assert_eq!(verdict, Ok(super::producers::Verdict::Append), "{header:?} {origin:?}");
        }
        self.log.0.push(Logged { header, batch: batch.clone(), marker: origin.marker() });
        let _ = self.state.appended(&header, batch, origin.marker(), NOW_MS);
    }

    fn append_data(&mut self) {
        let count = 1 + self.random.below(3) as i32;
        let id = ProducerId(self.random.below(PRODUCERS + 1) as i64);
        if id.0 == PRODUCERS as i64 {
            return self.append(sample::batch(count, 0), Origin::Client(None));
        }
        let said = self.log.as_of(self.log.end());
        let (epoch, sequence) =
            said.producers.get(&id).map_or((0, 0), |p| (p.epoch, p.batches.last().map_or(0, |b| b.last_sequence + 1)));
        let mut batch = sample::produced(count, 0, id.0, epoch, sequence);
        // The upper half of the producers is transactional.
        if id.0 < PRODUCERS as i64 / 2 {
            return self.append(batch, Origin::Client(None));
        }
        let mut body = batch.body.to_vec();
        body[6] |= 0x10;
        batch.body = body.into();
        let producers = self.state.producers.get_or_insert_default();
        let guard = producers.begin_verification(&batch.header(), epoch > 0, NOW_MS).expect("current epoch");
        assert_eq!(guard.is_none(), said.open.contains_key(&id));
        self.append(batch, Origin::Client(guard));
    }

    fn append_marker(&mut self) {
        let id = ProducerId(self.random.below(PRODUCERS) as i64);
        let said = self.log.as_of(self.log.end());
        let known = said.producers.get(&id);
        let version2 = self.random.below(2) == 0;
        let epoch = known.map_or(0, |p| p.epoch) + i16::from(version2);
        let coordinator_epoch = known.map_or(0, |p| p.coordinator_epoch.max(0)) + self.random.below(2) as i32;
        let marker = EndMarker { commit: self.random.below(2) == 0, coordinator_epoch };
        let batch = batch::end_marker(id, epoch, marker, 0).expect("small");
        self.append(batch, Origin::Marker { marker, version2 });
    }

    fn sync(&mut self) {
        if self.synced < self.log.0.len() {
            let location = Location { segment: self.segment, offset: 0, len: 0 };
            self.state.synced(LEDGER, EntryId(self.synced as u64), location).expect("in turn");
            self.synced += 1;
        }
    }

    fn upload(&mut self) {
        let through = EntryId(self.random.below(self.log.0.len() as u64 + 1));
        let Some(run) = self.state.collect_upload(ID, LEDGER, through).run else { return };
        assert_eq!(run.base, self.uploaded);
        let expected = self.log.footer(run.base, run.end, self.log_start);
        assert_eq!(PartitionState { epochs: vec![], ..run.state.clone() }, expected);
        self.runs.push((run.base, run.end, expected));
        self.uploaded = run.end;
        self.state.follow(&self.image());
    }

    /// Joins two neighbouring runs, and drops what is wholly below the log start, but for the newest.
    fn merge(&mut self) {
        while self.runs.len() > 1 && self.runs[0].1 <= self.log_start {
            self.runs.remove(0);
        }
        if self.runs.len() > 1 {
            let at = self.random.below(self.runs.len() as u64 - 1) as usize;
            let (base, _, first) = self.runs.remove(at);
            let (_, end, mut second) = self.runs.remove(at);
            second.log_start = self.log_start;
            let merged = second.with_earlier_aborts(first.aborted_transactions);
            assert_eq!(merged, self.log.footer(base, end, self.log_start));
            self.runs.insert(at, (base, end, merged));
        }
    }

    fn prune(&mut self) {
        self.segment += 1;
        for base in self.state.tail.all().map(|b| b.base).collect::<Vec<_>>() {
            self.state.tail.forget_memory(base);
        }
        let oldest = self.segment - self.random.below(3);
        self.state.prune(oldest);
    }

    /// What was not durable may be lost; what is left comes back from the WAL and the newest run.
    fn crash(&mut self) {
        let survived = self.synced + self.random.below((self.log.0.len() - self.synced) as u64 + 1) as usize;
        self.log.0.truncate(survived);
        self.synced = survived;
        let uploaded = self.log.0.iter().filter(|b| b.header.next_offset() <= self.uploaded).count();
        let from = uploaded.saturating_sub(self.random.below(3) as usize);
        let recovered = self.log.0.iter().enumerate().skip(from).map(|(entry, logged)| Recovered {
            header: logged.header,
            bytes: logged.batch.len(),
            ledger: LEDGER,
            entry: EntryId(entry as u64),
            location: Location { segment: self.segment, offset: 0, len: 0 },
            marker: batch::parse_end_marker(&logged.batch.to_contiguous()).expect("whole"),
        });
        self.state = State::open(ID, &self.image(), recovered.collect(), NOW_MS).expect("no gap");
        if self.uploaded > Offset::ZERO {
            assert_eq!(self.state.last_stable(), None);
            assert!(self.state.read(self.log_start, 1, true, Isolation::ReadCommitted).is_err());
            if self.random.below(2) == 0 {
                // Plain producers do not wait for it.
                self.append(sample::batch(2, 0), Origin::Client(None));
                self.sync();
            }
            if self.random.below(2) == 0 {
                self.uploaded_by_another();
            }
            let (_, end, newest) = self.runs.last().expect("uploaded");
            assert_eq!(*end, self.uploaded);
            let goes_on = |t: &OpenTransaction| {
                let tail = self.log.0.iter().filter(|b| b.header.base_offset >= *end);
                tail.filter(|b| b.header.producer_id == t.producer).count() > 0
            };
            self.seen.continued += usize::from(newest.open_transactions.iter().any(goes_on));
            let kept = PartitionState::from_bytes(&newest.to_bytes(*end), *end).expect("whole");
            assert!(self.state.load(&kept, *end));
        }
    }

    /// Another node uploads from the tail before this one knows what is stored: what was stored before is of no use then.
    fn uploaded_by_another(&mut self) {
        let durable: Vec<Offset> = self.log.0[..self.synced].iter().map(|b| b.header.next_offset()).collect();
        let ends: Vec<_> = durable.into_iter().filter(|end| *end > self.uploaded).collect();
        if ends.is_empty() {
            return;
        }
        let (base, end) = (self.uploaded, ends[self.random.below(ends.len() as u64) as usize]);
        let (_, before, stored) = self.runs.last().expect("uploaded").clone();
        self.runs.push((base, end, self.log.footer(base, end, self.log_start)));
        self.uploaded = end;
        self.state.follow(&self.image());
        assert!(!self.state.load(&stored, before), "as of an end that is none any more");
        self.seen.uploaded_by_others += 1;
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.append_data(),
            40..52 => self.append_marker(),
            52..80 => self.sync(),
            80..86 => self.upload(),
            86..90 => self.merge(),
            90..95 => self.prune(),
            95..97 => {
                self.log_start = self.random.offset(self.log_start, self.state.durable);
                self.state.follow(&self.image());
            }
            _ => self.crash(),
        }
    }

    fn check(&mut self) {
        assert_eq!(self.state.next, self.log.end());
        for logged in &self.log.0 {
            let end = logged.header.next_offset();
            if end <= self.uploaded {
                continue;
            }
            let mut found = PartitionState { log_start: self.log_start, ..Default::default() };
            if let Some(producers) = &self.state.producers {
                producers.describe_run(self.uploaded, end, &mut found);
            }
            assert_eq!(found, self.log.footer(self.uploaded, end, self.log_start), "as of {end}");
        }
        self.check_readers();
        self.check_retries();
    }

    fn check_readers(&mut self) {
        let durable = self.state.durable;
        let open = self.log.as_of(durable).open.into_values().min();
        self.seen.ending += usize::from(open != self.log.as_of(self.log.end()).open.into_values().min());
        let expected = open.map_or(durable, |first| first.min(durable).max(self.log_start));
        assert_eq!(self.state.last_stable(), Some(expected));
        let (a, b) = (self.random.offset(self.log_start, expected), self.random.offset(self.log_start, expected));
        let (from, to) = (a.min(b), a.max(b));
        if from == to {
            return;
        }
        let said = self.log.as_of(self.log.end());
        let mut expected = said.aborted;
        expected.retain(|t| t.first_offset < to && from <= t.last_offset);
        expected.sort_by_key(|t| t.first_offset);
        let (found, runs) = self.aborted_between(from, to);
        assert_eq!(found, expected, "{from}..{to}");
        self.seen.skipped_stored += usize::from(runs > 0 && !found.is_empty());
        self.seen.walked += usize::from(runs > 1 && !found.is_empty());
    }

    /// As the broker gathers them, with the number of footers that it takes.
    fn aborted_between(&self, from: Offset, to: Offset) -> (Vec<AbortedTransaction>, usize) {
        let (mut found, mut at, mut runs) = (vec![], from, 0);
        loop {
            if at >= self.state.held_from() {
                let rest = self.state.aborted_between(from, to);
                found.extend(rest.into_iter().filter(|t| t.last_offset >= at));
                break;
            }
            let (_, end, state) = self.runs.iter().find(|(base, end, _)| (*base..*end).contains(&at)).expect("a run");
            runs += 1;
            let run = RunTransactions::from(state.clone());
            found.extend(run.aborted_between(at, from, to));
            if *end >= to && !run.leaves_open(to) {
                break;
            }
            at = *end;
        }
        found.sort_by_key(|t| t.first_offset);
        (found, runs)
    }

    /// The last five batches of each producer are duplicates, nothing else is.
    fn check_retries(&self) {
        let said = self.log.as_of(self.log.end());
        for logged in self.log.0.iter().filter(|b| b.header.has_producer() && b.marker.is_none()) {
            let Some(producers) = &self.state.producers else { panic!("forgotten") };
            let entry = &said.producers[&logged.header.producer_id];
            let kept = entry.batches.iter().any(|b| b.base_offset == logged.header.base_offset);
            let verdict = producers.check(&logged.header, Origin::Client(None));
            let duplicate = matches!(verdict, Ok(super::producers::Verdict::Duplicate { base_offset, .. })
                if base_offset == logged.header.base_offset);
            assert_eq!(duplicate, kept, "{:?}: {verdict:?}", logged.header);
        }
    }
}

#[test]
fn the_state_of_producers_and_transactions_is_always_that_of_the_log() {
    let mut total = Seen::default();
    for seed in 0..60 {
        let mut life = Life::new(seed);
        for _ in 0..250 {
            life.step();
            life.check();
        }
        total.continued += life.seen.continued;
        total.uploaded_by_others += life.seen.uploaded_by_others;
        total.skipped_stored += life.seen.skipped_stored;
        total.walked += life.seen.walked;
        total.ending += life.seen.ending;
    }
    let seen = [total.continued, total.uploaded_by_others, total.skipped_stored, total.walked, total.ending];
    let least = seen.into_iter().min();
    assert!(least.is_some_and(|least| least >= 50), "{total:?}");
}
