//! Offsets that groups commit, one group for each thread: what was acknowledged is never forgotten, and nothing comes back
//! that was not asked for.

use super::super::client::{Client, text, topic};
use super::super::harness::eventually;
use super::super::load;
use super::route::Route;
use kafka_protocol::messages::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The offsets of a group: what was asked for last, and what was acknowledged last.
#[derive(Clone, Copy, Default)]
struct Known {
    asked: i64,
    acked: i64,
}

#[derive(Default)]
pub struct Commits {
    known: Mutex<BTreeMap<u8, Known>>,
    contradictions: Mutex<Vec<String>>,
    pub stop: AtomicBool,
}

fn group(number: u8) -> String {
    format!("committer-{number}")
}

fn commit(client: &mut Client, name: &str, offset: i64) -> std::io::Result<i16> {
    let partition = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1);
    let named = offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic(load::TOPIC));
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(name)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![named.with_partitions(vec![partition])]);
    let answer = client.call(8, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

/// The committed offset; an error while the coordinator moves.
fn committed(client: &mut Client, name: &str) -> std::io::Result<i64> {
    let named = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(topic(load::TOPIC));
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(name)))
        .with_topics(Some(vec![named.with_partition_indexes(vec![0])]));
    let answer = client.call(7, &request)?;
    let partition = &answer.topics[0].partitions[0];
    match (answer.error_code, partition.error_code) {
        (0, 0) => Ok(partition.committed_offset),
        (code, other) => Err(std::io::Error::other(format!("errors {code} and {other}"))),
    }
}

impl Commits {
    /// Commits and reads back until it is told to stop.
    pub fn run(&self, route: &Route, number: u8) {
        let name = group(number);
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(mut client) = route.coordinator_of(0, &name) {
                while !self.stop.load(Ordering::Relaxed) && self.step(&mut client, number, &name).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn step(&self, client: &mut Client, number: u8, name: &str) -> std::io::Result<()> {
        let asked = {
            let mut known = self.known.lock().expect("no holder panics");
            let known = known.entry(number).or_default();
            known.asked += 1;
            known.asked
        };
        if commit(client, name, asked)? != 0 {
            return Err(std::io::Error::other("not now"));
        }
        self.known.lock().expect("no holder panics").entry(number).or_default().acked = asked;
        let found = committed(client, name)?;
        self.compare(number, found);
        Ok(())
    }

    fn compare(&self, number: u8, found: i64) {
        let known = self.known.lock().expect("no holder panics").get(&number).copied().unwrap_or_default();
        if found < known.acked || found > known.asked {
            let Known { asked, acked } = known;
            let problem = format!("group {number}: {found} is committed; acknowledged {acked}, asked for {asked}");
            self.contradictions.lock().expect("no holder panics").push(problem);
        }
    }

    /// What is committed now, against what is known.
    pub fn judge(&self, route: &Route) -> Result<(), String> {
        let groups: Vec<u8> = self.known.lock().expect("no holder panics").keys().copied().collect();
        for number in groups {
            let name = group(number);
            let found = eventually("the committed offset", Duration::from_secs(60), || {
                committed(&mut route.coordinator_of(0, &name)?, &name).ok()
            });
            self.compare(number, found);
        }
        let contradictions = self.contradictions.lock().expect("no holder panics");
        if contradictions.is_empty() { Ok(()) } else { Err(contradictions.join("\n")) }
    }
}
