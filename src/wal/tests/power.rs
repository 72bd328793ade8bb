//! Power cuts, kills and rot at random moments, against a journal of what was appended and what was published.
//!
//! After every start: what was published is there, exactly; what is there was appended, in its last version, without a gap; what was
//! cut stays away; rot under the watermark is refused. Runs go on for several starts on one disk, some of which are killed
//! half-way themselves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LEDGERS: u64 = 3;

/// What must hold, as far as the outside knows.
#[derive(Default)]
struct Journal {
    /// Last version of every entry that may be there.
    appended: BTreeMap<(u64, u64), Vec<u8>>,
    /// Those that must be there, with their place.
    published: BTreeMap<(u64, u64), Location>,
    /// Entries below are in object storage, by ledger.
    uploaded: BTreeMap<u64, u64>,
    /// Ledgers that are written to.
    live: [u64; LEDGERS as usize],
    /// Sealed ledgers, with the answers that were given.
    sealed: BTreeMap<u64, SealAnswer>,
    versions: u64,
}

impl Journal {
    fn needed(&self, ledger: LedgerId, entry: EntryId) -> bool {
        entry.0 >= self.uploaded(ledger.0)
    }

    fn uploaded(&self, ledger: u64) -> u64 {
        self.uploaded.get(&ledger).copied().unwrap_or(0)
    }

    fn ledgers(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.appended.keys().map(|(ledger, _)| *ledger).collect();
        all.dedup();
        all
    }

    fn next(&self, ledger: u64) -> u64 {
        self.appended.range((ledger, 0)..(ledger + 1, 0)).next_back().map_or(self.uploaded(ledger), |(k, _)| k.1 + 1)
    }

    fn publish(&mut self, synced: &[Synced]) {
        for s in synced {
            self.published.insert((s.ledger.0, s.entry.0), s.location);
        }
    }

    /// Compares what a start found; afterwards that is what is published.
    fn check(&mut self, entries: &[Read]) -> Result<(), String> {
        let found: BTreeMap<(u64, u64), &Read> = entries.iter().map(|r| ((r.0.0, r.1.0), r)).collect();
        if found.len() != entries.len() {
            return Err("an entry came twice".into());
        }
        for key in self.published.keys() {
            if self.needed(LedgerId(key.0), EntryId(key.1)) && !found.contains_key(key) {
                return Err(format!("published and lost: {key:?}"));
            }
        }
        for (key, read) in &found {
            match self.appended.get(key) {
                Some(payload) if *payload == read.3 => {}
                Some(_) => return Err(format!("another version came back: {key:?}")),
                None => return Err(format!("never appended, or cut before: {key:?}")),
            }
        }
        for ledger in self.ledgers() {
            let ids: Vec<u64> = found.range((ledger, 0)..(ledger + 1, 0)).map(|(k, _)| k.1).collect();
            if ids.windows(2).any(|w| w[0] + 1 != w[1]) && !self.sealed.contains_key(&ledger) {
                return Err(format!("ledger {ledger} has a gap: {ids:?}"));
            }
            let end = ids.last().map_or(self.uploaded(ledger), |last| last + 1);
            self.appended.retain(|(l, id), _| *l != ledger || *id < end);
        }
        self.published = found.iter().map(|(key, read)| (*key, read.2)).collect();
        Ok(())
    }
}

struct Run<'a> {
    disk: SimDisk,
    dice: SeededEntropy,
    journal: Journal,
    plant: Plant,
    options: WalOptions,
    stats: &'a mut Stats,
}

/// A run without faults would show nothing.
#[derive(Debug, Default)]
struct Stats {
    starts: u64,
    killed_starts: u64,
    cuts: u64,
    rot: u64,
    published: u64,
    rolls: u64,
    seals: u64,
}

fn run(seed: u64, plant: Plant, stats: &mut Stats) -> Result<(), String> {
    let dice = SeededEntropy::new(seed);
    let segments = 2 + dice.below(4);
    let segment_bytes = (16 + 8 * dice.below(4)) << 10;
    let options = WalOptions { segment_bytes, budget_bytes: segments * segment_bytes, queue_bytes: 1 << 20 };
    let mut journal = Journal::default();
    (0..LEDGERS).for_each(|ledger| journal.live[ledger as usize] = ledger);
    let mut run = Run { disk: SimDisk::new(), dice, journal, plant, options, stats };
    for _ in 0..5 {
        run.rot()?;
        let Some(opened) = run.open()? else { continue };
        run.work(&opened)?;
    }
    while run.open()?.is_none() {}
    Ok(())
}

impl Run<'_> {
    fn try_open(&self) -> Result<Opened, OpenError> {
        open_with(&self.disk, self.options, self.plant, &|l, e| self.journal.needed(l, e))
    }

    /// A start, which the power may cut short; `None` when it did.
    fn open(&mut self) -> Result<Option<Opened>, String> {
        if self.dice.one_in(3) {
            self.disk.power_off_after(self.dice.below(25));
        }
        match self.try_open() {
            Ok(opened) => {
                self.stats.starts += 1;
                self.stats.cuts += opened.report.torn.is_some() as u64;
                self.journal.check(&opened.entries)?;
                Ok(Some(opened))
            }
            Err(_) if self.disk.is_off() => {
                self.stats.killed_starts += 1;
                self.end();
                Ok(None)
            }
            Err(e) => Err(format!("refused: {e}")),
        }
    }

    fn end(&mut self) {
        if self.dice.one_in(4) {
            self.disk.kill();
        } else {
            self.disk.power_on(self.dice.next());
        }
    }

    /// Appends and trims until the power goes or enough was done.
    fn work(&mut self, opened: &Opened) -> Result<(), String> {
        match self.dice.below(6) {
            0..4 => self.disk.power_off_after(self.dice.below(40)),
            4 => opened.recorder.power_off_at(&self.disk, 1 + self.dice.below(12)),
            _ => {}
        }
        let mut sent = 0;
        for _ in 0..self.dice.below(60) {
            let slot = self.dice.below(LEDGERS) as usize;
            let ledger = self.journal.live[slot];
            if self.dice.one_in(20) && !self.seal(opened, ledger)? {
                break;
            }
            let mut id = self.journal.next(ledger);
            let place = if self.journal.sealed.contains_key(&ledger) { Place::Copied } else { Place::Next };
            // A recoverer leaves out what is in object storage, whoever has put it there.
            if place == Place::Copied && self.dice.one_in(4) {
                id += self.dice.below(5);
                self.journal.uploaded.entry(ledger).and_modify(|to| *to = id.max(*to)).or_insert(id);
            }
            let len = if self.dice.one_in(3) { self.dice.below(7000) } else { self.dice.below(900) };
            self.journal.versions += 1;
            let e = entry(ledger, id, len as usize, self.journal.versions);
            match opened.wal.append_at(e.clone(), payload_crc(&e.head, &e.body), place) {
                Ok(()) => {
                    sent += 1;
                    self.journal.appended.insert((ledger, id), payload(&e));
                }
                Err(AppendError::Full { .. }) => self.trim(opened),
                Err(AppendError::Failed { .. }) if self.disk.is_off() => break,
                // All of it was uploaded and trimmed before the start: nobody goes on with such a ledger.
                Err(AppendError::OutOfSequence { expected: EntryId(0) }) => self.journal.live[slot] += LEDGERS,
                Err(e) => return Err(format!("append: {e}")),
            }
            if self.dice.one_in(3) && !opened.recorder.wait(sent) {
                break;
            }
            if self.dice.one_in(8) {
                self.trim(opened);
            }
        }
        self.stats.rolls += opened.wal.metrics().rolls;
        let properly = self.dice.one_in(4) && !self.disk.is_off();
        if properly {
            opened.wal.close();
        }
        if self.dice.one_in(4) {
            self.disk.kill();
            opened.wal.close();
        } else {
            self.disk.power_off();
            opened.wal.close();
            self.disk.power_on(self.dice.next());
        }
        let synced = lock(&opened.recorder.synced).clone();
        self.stats.published += synced.len() as u64;
        self.journal.publish(&synced);
        Ok(())
    }

    /// Seals a ledger, whose answer never changes from then on; false when the power went.
    fn seal(&mut self, opened: &Opened, ledger: u64) -> Result<bool, String> {
        match opened.wal.seal(LedgerId(ledger)) {
            Ok(answer) => {
                self.stats.seals += 1;
                match self.journal.sealed.insert(ledger, answer) {
                    Some(before) if before != answer => Err(format!("the seal of {ledger} changed its answer")),
                    _ => Ok(true),
                }
            }
            Err(_) if self.disk.is_off() => {
                // It may be sealed or not: nobody goes on with it.
                for live in self.journal.live.iter_mut().filter(|live| **live == ledger) {
                    *live += LEDGERS;
                }
                Ok(false)
            }
            Err(e) => Err(format!("seal: {e}")),
        }
    }

    /// Uploads a part of what is published.
    fn trim(&mut self, opened: &Opened) {
        self.journal.publish(&lock(&opened.recorder.synced).clone());
        for ledger in self.journal.ledgers() {
            let next =
                self.journal.published.range((ledger, 0)..(ledger + 1, 0)).next_back().map_or(0, |(k, _)| k.1 + 1);
            let from = self.journal.uploaded(ledger);
            if next > from {
                self.journal.uploaded.insert(ledger, from + self.dice.below(next - from + 1));
            }
        }
        opened.wal.trim(&|ledger, entry| self.journal.needed(ledger, entry));
    }

    /// Damages one entry that is certainly under the watermark: the start must refuse, and the disk stays as it is.
    fn rot(&mut self) -> Result<(), String> {
        let needed = self.journal.published.iter().filter(|(k, _)| self.journal.needed(LedgerId(k.0), EntryId(k.1)));
        let places: Vec<Location> = needed.map(|(_, at)| *at).collect();
        let Some(last) = places.iter().max_by_key(|at| (at.segment, at.offset)) else { return Ok(()) };
        if !self.dice.one_in(3) {
            return Ok(());
        }
        let at = places[self.dice.below(places.len() as u64) as usize];
        // Of one block with the last one published, it would be in what cannot be told from a torn tail.
        let (Some(path), Some(end)) = (file_of(&self.disk, at.segment), file_of(&self.disk, last.segment)) else {
            return Err("the file of a needed entry is gone".into());
        };
        let last_block =
            blocks(&self.disk, &end).into_iter().filter(|b| (b.offset as u64) < last.offset).map(|b| b.offset);
        let last_block = last_block.max().unwrap_or(0) as u64;
        if at.segment == last.segment && at.offset > last_block {
            return Ok(());
        }
        let byte = at.offset + self.dice.below(at.len as u64);
        let flip = 1 << self.dice.below(8);
        self.disk.corrupt(&path, byte, flip);
        self.stats.rot += 1;
        let opened = self.try_open();
        let verdict = match opened {
            Err(OpenError::Corrupt { .. }) => Ok(()),
            Err(e) => Err(format!("rot was taken for something else: {e}")),
            Ok(opened) => Err(format!("rot was cut: {:?}", opened.report)),
        };
        self.disk.corrupt(&path, byte, flip);
        verdict
    }
}

/// More cases by PROPTEST_CASES.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(300), failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_published_survives_and_what_is_cut_stays_away(seed in any::<u64>()) {
        let outcome = run(seed, Plant::None, &mut Stats::default());
        prop_assert_eq!(outcome, Ok(()));
    }
}

#[test]
fn the_runs_are_not_vacuous() {
    let mut stats = Stats::default();
    for seed in 0..100 {
        run(seed, Plant::None, &mut stats).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    let enough = stats.starts > 300 && stats.killed_starts > 30 && stats.cuts > 3 && stats.rot > 20;
    assert!(enough && stats.published > 2_000 && stats.rolls > 100 && stats.seals > 50, "{stats:?}");
}

#[test]
fn planted_bugs_are_caught() {
    for plant in [Plant::SkipSync, Plant::ReplyBeforeSync, Plant::CutBelowWatermark] {
        let caught = (0..60).find_map(|seed| run(seed, plant, &mut Stats::default()).err());
        let caught = caught.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        assert!(caught.contains("lost") || caught.contains("cut"), "{plant:?}: {caught}");
    }
}
