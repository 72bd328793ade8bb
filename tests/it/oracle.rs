//! What was asked of the broker, what it answered, and whether its log agrees: the journal of a kill loop and the
//! checker over it.
//!
//! The checker is a pure function of journal and log. An outcome is acknowledged or unknown; an unknown one may be in
//! the log once or not at all, never partly. Record values follow from seed, partition and record number alone, so
//! that a changed byte shows without storing what was sent.

use super::batch::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// SplitMix64: a small seeded generator, the same on every machine.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `from..=to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }
}

/// The value of record `id` of a partition: its number, then bytes that follow from the seed; mostly a few hundred
/// bytes, now and then many kilobytes.
pub fn value(seed: u64, partition: i32, id: u64) -> Vec<u8> {
    let mut rng = Rng(seed ^ (partition as u64) << 48 ^ id.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let length = if rng.range(0, 499) == 0 { rng.range(20_000, 90_000) } else { rng.range(16, 500) };
    let mut bytes = id.to_be_bytes().to_vec();
    while bytes.len() < length as usize {
        bytes.extend_from_slice(&rng.next().to_be_bytes());
    }
    bytes
}

/// One thing that happened. `first` numbers the first record of a batch within its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A batch is about to be sent (again).
    Invoke { partition: i32, first: u64, count: u32 },
    /// It was acknowledged at this base offset.
    Ok { partition: i32, first: u64, offset: i64 },
    /// Its answer was lost, or said to try again.
    Unknown { partition: i32, first: u64 },
    /// A consumer read a record here.
    Seen { partition: i32, offset: i64, id: u64 },
    /// The process was killed, and where.
    Kill { place: String },
}

impl Event {
    fn line(&self) -> String {
        match self {
            Event::Invoke { partition, first, count } => format!("i {partition} {first} {count}\n"),
            Event::Ok { partition, first, offset } => format!("o {partition} {first} {offset}\n"),
            Event::Unknown { partition, first } => format!("u {partition} {first}\n"),
            Event::Seen { partition, offset, id } => format!("s {partition} {offset} {id}\n"),
            Event::Kill { place } => format!("k {place}\n"),
        }
    }

    fn parse(line: &str) -> Option<Event> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        if kind == "k" {
            return Some(Event::Kill { place: words.next()?.into() });
        }
        let partition = words.next()?.parse().ok()?;
        let second = words.next()?;
        let third = words.next();
        Some(match kind {
            "i" => Event::Invoke { partition, first: second.parse().ok()?, count: third?.parse().ok()? },
            "o" => Event::Ok { partition, first: second.parse().ok()?, offset: third?.parse().ok()? },
            "u" => Event::Unknown { partition, first: second.parse().ok()? },
            "s" => Event::Seen { partition, offset: second.parse().ok()?, id: third?.parse().ok()? },
            _ => return None,
        })
    }
}

/// A batch that was sent at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub count: u32,
    pub acked: Option<i64>,
}

/// Everything that happened, in memory, and as lines in a file if there is one to resume from.
#[derive(Default)]
pub struct History {
    file: Option<File>,
    /// By partition and first record.
    pub attempts: BTreeMap<(i32, u64), Attempt>,
    /// By partition and offset: the record that a consumer saw there.
    pub seen: BTreeMap<(i32, i64), u64>,
    pub kills: BTreeMap<String, u32>,
    pub lost_answers: u64,
    pub answers: u64,
    /// What contradicts itself already while it is written down.
    pub contradictions: Vec<String>,
}

impl History {
    /// Continues the journal in a file, or begins it.
    pub fn resume(path: &Path) -> io::Result<History> {
        let mut history = History::default();
        if path.exists() {
            let text = std::fs::read_to_string(path)?;
            text.split_inclusive('\n')
                .filter_map(|l| Event::parse(l.strip_suffix('\n')?))
                .for_each(|e| history.apply(e));
        }
        history.file = Some(File::options().create(true).append(true).open(path)?);
        Ok(history)
    }

    /// Writes events down, in one write, before what they announce is done.
    pub fn record(&mut self, events: Vec<Event>) {
        if let Some(file) = &mut self.file {
            let lines: String = events.iter().map(Event::line).collect();
            file.write_all(lines.as_bytes()).expect("the journal can be written");
        }
        events.into_iter().for_each(|e| self.apply(e));
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Invoke { partition, first, count } => {
                self.attempts.entry((partition, first)).or_insert(Attempt { count, acked: None });
            }
            Event::Ok { partition, first, offset } => {
                self.answers += 1;
                let Some(attempt) = self.attempts.get_mut(&(partition, first)) else {
                    return self
                        .contradictions
                        .push(format!("partition {partition}: an answer to a batch never sent ({first})"));
                };
                if attempt.acked.is_some_and(|before| before != offset) {
                    self.contradictions.push(format!(
                        "partition {partition}: batch {first} acknowledged at {:?} and again at {offset}",
                        attempt.acked
                    ));
                }
                attempt.acked = Some(offset);
            }
            Event::Unknown { .. } => self.lost_answers += 1,
            Event::Seen { partition, offset, id } => match self.seen.insert((partition, offset), id) {
                Some(before) if before != id => self.contradictions.push(format!(
                    "partition {partition} offset {offset}: record {before} was read there, later record {id}"
                )),
                _ => {}
            },
            Event::Kill { place } => *self.kills.entry(place).or_default() += 1,
        }
    }

    /// The number after the highest record ever sent to a partition.
    pub fn next_id(&self, partition: i32) -> u64 {
        let last = self.attempts.range((partition, 0)..=(partition, u64::MAX)).next_back();
        last.map_or(0, |((_, first), a)| first + u64::from(a.count))
    }

    pub fn acked_records(&self) -> u64 {
        self.attempts.values().filter(|a| a.acked.is_some()).map(|a| u64::from(a.count)).sum()
    }

    pub fn unresolved(&self) -> usize {
        self.attempts.values().filter(|a| a.acked.is_none()).count()
    }
}

/// A way in which a log contradicts the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged record is not at its offset.
    Lost { partition: i32, id: u64, offset: i64 },
    /// A record stands at two offsets.
    Duplicated { partition: i32, id: u64, offsets: (i64, i64) },
    /// A record of one producer stands before an earlier one.
    Reordered { partition: i32, id: u64, offset: i64 },
    /// The bytes at an offset are not those that were sent.
    Changed { partition: i32, offset: i64 },
    /// A record that nobody sent.
    Foreign { partition: i32, offset: i64 },
    /// Some records of a batch are there and some are not.
    Torn { partition: i32, first: u64 },
    /// Offsets repeat or go back.
    Offsets { partition: i32, offset: i64 },
    /// What a consumer read before is no longer there.
    Unread { partition: i32, offset: i64 },
}

/// Checks the whole log of a partition, from offset 0, against the journal.
pub fn check(seed: u64, partition: i32, history: &History, log: &[Record]) -> Vec<Violation> {
    let mut violations = vec![];
    let mut by_offset: BTreeMap<i64, u64> = BTreeMap::new();
    let mut by_id: BTreeMap<u64, i64> = BTreeMap::new();
    let (mut last_offset, mut last_id) = (-1, None);
    for record in log {
        let offset = record.offset;
        if offset <= last_offset {
            violations.push(Violation::Offsets { partition, offset });
        }
        last_offset = offset;
        let bytes = record.value.as_deref().unwrap_or_default();
        let Some(id) = bytes.first_chunk::<8>().map(|b| u64::from_be_bytes(*b)) else {
            violations.push(Violation::Foreign { partition, offset });
            continue;
        };
        if containing(history, partition, id).is_none() {
            violations.push(Violation::Foreign { partition, offset });
            continue;
        }
        if bytes != value(seed, partition, id) {
            violations.push(Violation::Changed { partition, offset });
        }
        if let Some(other) = by_id.insert(id, offset) {
            violations.push(Violation::Duplicated { partition, id, offsets: (other, offset) });
        } else if last_id.is_some_and(|last| id < last) {
            violations.push(Violation::Reordered { partition, id, offset });
        }
        last_id = last_id.max(Some(id));
        by_offset.insert(offset, id);
    }
    violations.extend(check_attempts(partition, history, &by_offset, &by_id));
    let seen = history.seen.range((partition, 0)..=(partition, i64::MAX));
    let gone = seen.filter(|((_, offset), id)| by_offset.get(offset) != Some(id));
    violations.extend(gone.map(|((_, offset), _)| Violation::Unread { partition, offset: *offset }));
    violations
}

/// Each acknowledged batch whole at its offset; each unknown one whole or absent.
fn check_attempts(
    partition: i32,
    history: &History,
    by_offset: &BTreeMap<i64, u64>,
    by_id: &BTreeMap<u64, i64>,
) -> Vec<Violation> {
    let mut violations = vec![];
    for ((_, first), attempt) in history.attempts.range((partition, 0)..=(partition, u64::MAX)) {
        let ids = *first..*first + u64::from(attempt.count);
        match attempt.acked {
            Some(base) => {
                let expected = ids.zip(base..).filter(|(id, offset)| by_offset.get(offset) != Some(id));
                violations.extend(expected.map(|(id, offset)| Violation::Lost { partition, id, offset }));
            }
            None => {
                let places: BTreeSet<Option<i64>> =
                    ids.zip(0..).map(|(id, n)| by_id.get(&id).map(|offset| offset - n)).collect();
                if places.len() > 1 {
                    violations.push(Violation::Torn { partition, first: *first });
                }
            }
        }
    }
    violations
}

fn containing(history: &History, partition: i32, id: u64) -> Option<&Attempt> {
    let ((_, first), attempt) = history.attempts.range((partition, 0)..=(partition, id)).next_back()?;
    (id < first + u64::from(attempt.count)).then_some(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    /// A history of random batches on one partition, some unknown, with the log that a correct broker would have.
    fn correct(seed: u64) -> (History, Vec<Record>) {
        let (mut rng, mut history, mut log) = (Rng(seed), History::default(), vec![]);
        let (mut first, mut offset) = (0, 0);
        for _ in 0..60 {
            let count = rng.range(1, 5) as u32;
            history.record(vec![Event::Invoke { partition: 0, first, count }]);
            let fate = rng.range(0, 9);
            if fate != 0 {
                for n in 0..u64::from(count) {
                    let value = Some(value(SEED, 0, first + n));
                    log.push(Record { offset: offset + n as i64, timestamp: 0, key: None, value });
                    history.record(vec![Event::Seen { partition: 0, offset: offset + n as i64, id: first + n }]);
                }
            }
            let outcome = if fate > 1 {
                Event::Ok { partition: 0, first, offset }
            } else {
                Event::Unknown { partition: 0, first }
            };
            history.record(vec![outcome]);
            offset += if fate == 0 { 0 } else { i64::from(count) };
            first += u64::from(count);
        }
        (history, log)
    }

    fn kinds(violations: &[Violation]) -> BTreeSet<String> {
        violations.iter().map(|v| format!("{v:?}").split(' ').next().unwrap_or_default().to_string()).collect()
    }

    #[test]
    fn a_correct_history_passes_and_every_planted_fault_is_caught() {
        for seed in 0..200 {
            let (mut history, log) = correct(seed);
            assert_eq!(check(SEED, 0, &history, &log), vec![], "seed {seed}");
            let mut rng = Rng(seed ^ 0xabcd);
            let at = rng.range(0, log.len() as u64 - 2) as usize;
            type Plant = fn(&mut Vec<Record>, usize);
            let plants: [(&str, Plant); 6] = [
                ("Lost", |log, at| drop(log.drain(at..))),
                ("Unread", |log, at| drop(log.remove(at))),
                ("Duplicated", |log, at| {
                    let end = log[log.len() - 1].offset + 1;
                    log.push(Record { offset: end, ..log[at].clone() });
                }),
                ("Reordered", |log, at| {
                    let value = log[at].value.take();
                    log[at].value = log[at + 1].value.replace(value.unwrap_or_default());
                }),
                ("Changed", |log, at| {
                    let value = log[at].value.as_mut().expect("a value");
                    let last = value.len() - 1;
                    value[last] ^= 1;
                }),
                ("Foreign", |log, at| log[at].value = Some(u64::MAX.to_be_bytes().to_vec())),
            ];
            for (name, plant) in plants {
                let mut broken = log.clone();
                plant(&mut broken, at);
                let found = kinds(&check(SEED, 0, &history, &broken));
                let tail_unknown = name == "Lost" && found.contains("Unread");
                assert!(found.contains(name) || tail_unknown, "seed {seed}: {name} was not caught; found {found:?}");
            }
            let mut repeated = log.clone();
            repeated[at + 1].offset = repeated[at].offset;
            assert!(kinds(&check(SEED, 0, &history, &repeated)).contains("Offsets"));
            history.seen.clear();
            assert_eq!(check(SEED, 0, &history, &log), vec![]);
        }
    }

    #[test]
    fn an_unknown_batch_may_be_absent_or_whole_but_not_torn() {
        let mut history = History::default();
        history.record(vec![
            Event::Invoke { partition: 3, first: 0, count: 2 },
            Event::Unknown { partition: 3, first: 0 },
        ]);
        let record = |offset, id| Record { offset, timestamp: 0, key: None, value: Some(value(SEED, 3, id)) };
        assert_eq!(check(SEED, 3, &history, &[]), vec![]);
        assert_eq!(check(SEED, 3, &history, &[record(0, 0), record(1, 1)]), vec![]);
        let torn = check(SEED, 3, &history, &[record(0, 0)]);
        assert_eq!(torn, vec![Violation::Torn { partition: 3, first: 0 }]);
    }

    #[test]
    fn a_journal_survives_its_process_and_a_torn_last_line() {
        let dir = super::super::harness::folder();
        let path = dir.path().join("journal");
        let mut history = History::resume(&path).unwrap();
        history.record(vec![
            Event::Invoke { partition: 1, first: 0, count: 3 },
            Event::Ok { partition: 1, first: 0, offset: 10 },
            Event::Invoke { partition: 1, first: 3, count: 2 },
            Event::Unknown { partition: 1, first: 3 },
            Event::Seen { partition: 1, offset: 10, id: 0 },
            Event::Kill { place: "wal-roll".into() },
        ]);
        drop(history);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"o 1 3 1").unwrap();
        let again = History::resume(&path).unwrap();
        assert_eq!(again.attempts[&(1, 0)], Attempt { count: 3, acked: Some(10) });
        assert_eq!(again.attempts[&(1, 3)], Attempt { count: 2, acked: None });
        assert_eq!((again.next_id(1), again.next_id(2), again.lost_answers), (5, 0, 1));
        assert_eq!((again.kills["wal-roll"], again.acked_records(), again.unresolved()), (1, 3, 1));
    }

    #[test]
    fn an_acknowledgement_that_moves_is_a_contradiction() {
        let mut history = History::default();
        history.record(vec![Event::Invoke { partition: 0, first: 0, count: 1 }]);
        history.record(vec![
            Event::Ok { partition: 0, first: 0, offset: 4 },
            Event::Ok { partition: 0, first: 0, offset: 5 },
        ]);
        assert_eq!(history.contradictions.len(), 1);
        history.record(vec![
            Event::Seen { partition: 0, offset: 4, id: 0 },
            Event::Seen { partition: 0, offset: 4, id: 1 },
        ]);
        assert_eq!(history.contradictions.len(), 2);
    }
}
