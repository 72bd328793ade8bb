//! What the members of a group did and were told, and whether it agrees with itself and with the log: in one generation
//! a partition has one owner, what was committed is never forgotten nor taken back by somebody who has lost the partition, and
//! nothing is committed that no member has read.
//!
//! An account is written down by the members as they go, the questions before they are sent. A generation is that of the
//! classic protocol or a member epoch of KIP-848.

use super::super::batch::Record;
use std::collections::{BTreeMap, BTreeSet};

/// Of whom something is said: a member in one of its generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub generation: i32,
    pub member: String,
}

/// A commit that was sent.
#[derive(Debug, Clone)]
pub struct Commit {
    by: Owner,
    partition: i32,
    offset: i64,
    /// Who was known to own the partition by a later generation when it was sent: then it must be refused.
    lost_to: Option<Owner>,
}

/// What must be committed at least: the commit of the latest generation that was acknowledged last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    by: Owner,
    offset: i64,
}

/// One partition, as the group knows it.
#[derive(Default)]
struct Partition {
    owner: Option<Owner>,
    /// The records that members have processed: offset and number.
    processed: BTreeMap<i64, u64>,
    asked: BTreeSet<i64>,
    /// Commits without an answer: they may take effect late.
    unknown: Vec<(Owner, i64)>,
    acked: Option<Floor>,
}

#[derive(Default)]
pub struct Account {
    owners: BTreeMap<(i32, i32), String>,
    generations: BTreeSet<i32>,
    partitions: BTreeMap<i32, Partition>,
    pub commits: u64,
    contradictions: Vec<String>,
}

impl Account {
    pub fn contradict(&mut self, what: String) {
        self.contradictions.push(what);
    }

    pub fn contradictions(&self) -> &[String] {
        &self.contradictions
    }

    pub fn generations(&self) -> u64 {
        self.generations.len() as u64
    }

    pub fn consumed(&self) -> u64 {
        self.partitions.values().map(|p| p.processed.len() as u64).sum()
    }

    /// A member was told that it owns these partitions.
    pub fn owns(&mut self, owner: &Owner, partitions: &[i32]) {
        self.generations.insert(owner.generation);
        for partition in partitions {
            let place = (owner.generation, *partition);
            let known = self.owners.entry(place).or_insert_with(|| owner.member.clone());
            if *known != owner.member {
                let both = format!("{known} and {}", owner.member);
                self.contradictions.push(format!("partition {partition} has two owners in {}: {both}", place.0));
            }
            let last = &mut self.partitions.entry(*partition).or_default().owner;
            if last.as_ref().is_none_or(|last| last.generation <= owner.generation) {
                *last = Some(owner.clone());
            }
        }
    }

    /// Records were read and dealt with: offsets and numbers.
    pub fn processed(&mut self, partition: i32, records: &[(i64, u64)]) {
        let known = &mut self.partitions.entry(partition).or_default().processed;
        for (offset, number) in records {
            if *known.entry(*offset).or_insert(*number) != *number {
                self.contradictions.push(format!("partition {partition}: offset {offset} reads otherwise now"));
            }
        }
    }

    /// Before a commit is sent.
    pub fn asks(&mut self, by: &Owner, partition: i32, offset: i64) -> Commit {
        let known = self.partitions.entry(partition).or_default();
        known.asked.insert(offset);
        let later = |o: &&Owner| o.generation > by.generation && o.member != by.member;
        let lost_to = known.owner.as_ref().filter(later).cloned();
        Commit { by: by.clone(), partition, offset, lost_to }
    }

    pub fn acked(&mut self, commit: Commit) {
        self.commits += 1;
        if let Some(owner) = &commit.lost_to {
            let Commit { by, partition, offset, .. } = &commit;
            self.contradictions
                .push(format!("partition {partition}: {by:?} committed {offset} after {owner:?} had it"));
        }
        let known = &mut self.partitions.entry(commit.partition).or_default().acked;
        if known.as_ref().is_none_or(|floor| floor.by.generation <= commit.by.generation) {
            *known = Some(Floor { by: commit.by, offset: commit.offset });
        }
    }

    pub fn unanswered(&mut self, commit: Commit) {
        self.partitions.entry(commit.partition).or_default().unknown.push((commit.by, commit.offset));
    }

    /// To be taken before the committed offset is asked for.
    pub fn floor(&self, partition: i32) -> Option<Floor> {
        self.partitions.get(&partition)?.acked.clone()
    }

    /// This is what the coordinator says is committed; -1 for nothing.
    pub fn found(&mut self, partition: i32, floor: Option<&Floor>, committed: i64) {
        let known = self.partitions.entry(partition).or_default();
        let late = |(by, offset): &(Owner, i64), floor: &Floor| {
            *offset == committed && (by.generation >= floor.by.generation || by.member == floor.by.member)
        };
        let fits = match floor {
            _ if committed >= 0 && !known.asked.contains(&committed) => false,
            None => true,
            Some(floor) => committed >= floor.offset || known.unknown.iter().any(|commit| late(commit, floor)),
        };
        if !fits {
            let problem = format!("partition {partition}: {committed} is committed; known before: {floor:?}");
            self.contradictions.push(problem);
        }
    }

    /// Partitions of which less than everything is known to be committed, with both offsets.
    pub fn behind(&self, ends: &[i64]) -> Vec<(usize, i64, i64)> {
        let committed = |p: usize| self.floor(p as i32).map_or(0, |floor| floor.offset);
        let all = ends.iter().enumerate().map(|(p, end)| (p, committed(p), *end));
        all.filter(|(_, committed, end)| committed < end).collect()
    }

    /// Everything below what is committed was processed as it is in the log, and nothing was processed that is not there.
    pub fn judge(&mut self, partition: i32, log: &[Record], committed: i64) {
        let known = self.partitions.entry(partition).or_default();
        let log: BTreeMap<i64, u64> = log.iter().map(|record| (record.offset, number(record))).collect();
        let skipped = log.range(..committed).find(|(offset, number)| known.processed.get(offset) != Some(number));
        if let Some((offset, _)) = skipped {
            let problem = format!("partition {partition}: {committed} is committed, and {offset} was not processed");
            self.contradictions.push(problem);
        }
        if let Some((offset, _)) = known.processed.iter().find(|(offset, number)| log.get(offset) != Some(number)) {
            self.contradictions.push(format!("partition {partition}: {offset} was processed, and is not in the log"));
        }
    }
}

/// The number of a record of the load, which its value begins with.
pub fn number(record: &Record) -> u64 {
    record.value.as_deref().and_then(|v| v.first_chunk()).map_or(u64::MAX, |b| u64::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(generation: i32, member: &str) -> Owner {
        Owner { generation, member: member.into() }
    }

    fn record(offset: i64) -> Record {
        let value = (offset as u64).to_be_bytes().to_vec();
        Record { offset, timestamp: 0, key: None, value: Some(value) }
    }

    fn read(account: &mut Account, offsets: std::ops::Range<i64>) {
        account.processed(0, &offsets.map(|o| (o, o as u64)).collect::<Vec<_>>());
    }

    fn commit(account: &mut Account, by: &Owner, offset: i64) {
        let commit = account.asks(by, 0, offset);
        account.acked(commit);
    }

    /// A member hands over to another one after its last commit had no answer.
    fn correct() -> Account {
        let mut account = Account::default();
        let (first, second) = (owner(1, "a"), owner(2, "b"));
        account.owns(&first, &[0, 1]);
        read(&mut account, 0..10);
        commit(&mut account, &first, 10);
        read(&mut account, 10..20);
        let unknown = account.asks(&first, 0, 20);
        account.unanswered(unknown);
        account.owns(&second, &[0]);
        account.owns(&owner(2, "a"), &[1]);
        let floor = account.floor(0);
        account.found(0, floor.as_ref(), 20);
        read(&mut account, 20..30);
        commit(&mut account, &second, 30);
        account
    }

    fn log() -> Vec<Record> {
        (0..40).map(record).collect()
    }

    #[test]
    fn a_correct_account_passes() {
        let mut account = correct();
        account.judge(0, &log(), 30);
        assert_eq!(account.contradictions(), &[] as &[String]);
        assert_eq!((account.generations(), account.consumed(), account.commits), (2, 30, 2));
        assert_eq!(account.behind(&[30]), []);
        assert_eq!(account.behind(&[40]), [(0, 30, 40)]);
    }

    #[test]
    fn every_planted_fault_is_caught() {
        type Plant = fn(&mut Account);
        let plants: [(&str, Plant); 8] = [
            ("has two owners", |a| a.owns(&owner(2, "c"), &[0])),
            ("after Owner", |a| commit(a, &owner(1, "a"), 30)),
            ("25 is committed", |a| {
                let floor = a.floor(0);
                a.found(0, floor.as_ref(), 25);
            }),
            // One that was asked for, by a member that had lost the partition by then.
            ("20 is committed", |a| {
                let floor = a.floor(0);
                a.found(0, floor.as_ref(), 20);
            }),
            ("-1 is committed", |a| {
                let floor = a.floor(0);
                a.found(0, floor.as_ref(), -1);
            }),
            ("30 was not processed", |a| {
                commit(a, &owner(2, "b"), 31);
                a.judge(0, &log(), 31);
            }),
            ("is not in the log", |a| {
                a.processed(0, &[(40, 40)]);
                a.judge(0, &log(), 30);
            }),
            ("reads otherwise", |a| a.processed(0, &[(5, 6)])),
        ];
        for (said, plant) in plants {
            let mut account = correct();
            plant(&mut account);
            let found = account.contradictions();
            assert!(found.len() == 1 && found[0].contains(said), "{said}: {found:?}");
        }
    }

    #[test]
    fn a_commit_without_an_answer_may_take_effect_late_while_its_member_has_the_partition() {
        let mut account = correct();
        let by = owner(2, "b");
        let late = account.asks(&by, 0, 29);
        account.unanswered(late);
        let floor = account.floor(0);
        account.found(0, floor.as_ref(), 29);
        assert_eq!(account.contradictions(), &[] as &[String]);
    }
}
