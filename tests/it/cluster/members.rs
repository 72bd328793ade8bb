//! Groups that consume the load, of the classic protocol and of KIP-848: their members ask different nodes first, follow
//! coordinator and leaders wherever they are, process what they are assigned, commit it as members of a generation, and leave
//! and come again at random, some without a word. All that they see goes into the group's [`Account`].

use super::super::batch::Record;
use super::super::client::{Client, Fetched, text, topic};
use super::super::harness::eventually;
use super::super::load;
use super::super::oracle::Rng;
use super::groups::{Account, Owner, number};
use super::route::{Leaders, Route};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const MEMBERS: u8 = 3;
const PACE: Duration = Duration::from_millis(60);
const HEARTBEAT: Duration = Duration::from_millis(700);
const COMMIT: Duration = Duration::from_millis(300);
/// One in so many steps ends a membership: every half minute or so.
const LEAVES: u64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Classic,
    Consumer,
}

pub struct Group {
    pub name: String,
    pub protocol: Protocol,
    pub account: Mutex<Account>,
}

impl Group {
    pub fn contradict(&self, what: String) {
        self.account.lock().expect("no holder panics").contradict(format!("group {}: {what}", self.name));
    }
}

/// All groups, and what their members are told.
pub struct Groups {
    pub groups: Vec<Group>,
    /// Nobody leaves any more.
    pub drain: AtomicBool,
    pub stop: AtomicBool,
}

impl Groups {
    pub fn new() -> Groups {
        let protocols = [Protocol::Classic, Protocol::Consumer, Protocol::Classic];
        let groups = protocols.into_iter().enumerate().map(|(n, protocol)| Group {
            name: format!("readers-{n}"),
            protocol,
            account: Mutex::default(),
        });
        Groups { groups: groups.collect(), drain: AtomicBool::new(false), stop: AtomicBool::new(false) }
    }

    fn each<T>(&self, of: impl Fn(&Account) -> T) -> Vec<T> {
        self.groups.iter().map(|group| of(&group.account.lock().expect("no holder panics"))).collect()
    }

    pub fn consumed(&self) -> Vec<u64> {
        self.each(Account::consumed)
    }

    pub fn generations(&self) -> Vec<u64> {
        self.each(Account::generations)
    }

    fn contradictions(&self) -> Result<(), String> {
        let all: Vec<String> = self.each(|account| account.contradictions().to_vec()).concat();
        if all.is_empty() { Ok(()) } else { Err(format!("{} about groups:\n  {}", all.len(), all.join("\n  "))) }
    }

    /// Waits until every group has committed the log to its end.
    pub fn catch_up(&self, ends: &[i64], within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            self.contradictions()?;
            let behind = self.each(|account| account.behind(ends));
            if behind.iter().all(Vec::is_empty) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let generations = self.generations();
                return Err(format!("groups stand still: of {ends:?} not {behind:?} ({generations:?} generations)"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is committed now, against the log and what the members know.
    pub fn judge(&self, route: &Route, logs: &[Vec<Record>]) -> Result<(), String> {
        for group in &self.groups {
            let partitions: Vec<i32> = (0..logs.len() as i32).collect();
            let committed = eventually("the group's committed offsets", Duration::from_secs(60), || {
                let mut coordinator = route.coordinator_of(0, &group.name)?;
                committed(&mut coordinator, &group.name, None, &partitions).ok()
            });
            let mut account = group.account.lock().expect("no holder panics");
            for (partition, committed) in committed {
                let floor = account.floor(partition);
                account.found(partition, floor.as_ref(), committed);
                account.judge(partition, &logs[partition as usize], committed);
            }
        }
        self.contradictions()
    }
}

/// Why something was not done.
#[derive(Debug)]
pub enum Trouble {
    Lost,
    Code(&'static str, i16),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Trouble::Lost
    }
}

pub fn good(what: &'static str, code: i16) -> Result<(), Trouble> {
    if code == 0 { Ok(()) } else { Err(Trouble::Code(what, code)) }
}

/// The committed offsets of these partitions; -1 where there is none.
fn committed(
    coordinator: &mut Client,
    group: &str,
    owner: Option<&Owner>,
    partitions: &[i32],
) -> Result<Vec<(i32, i64)>, Trouble> {
    let named = offset_fetch_request::OffsetFetchRequestTopics::default().with_name(topic(load::TOPIC));
    let asked = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(owner.map(|owner| text(&owner.member)))
        .with_member_epoch(owner.map_or(-1, |owner| owner.generation))
        .with_topics(Some(vec![named.with_partition_indexes(partitions.to_vec())]));
    let answer = coordinator.call(9, &OffsetFetchRequest::default().with_groups(vec![asked]))?;
    let group = answer.groups.first().ok_or(Trouble::Lost)?;
    good("OffsetFetch", group.error_code)?;
    let mut found = vec![];
    for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
        good("OffsetFetch", partition.error_code)?;
        found.push((partition.partition_index, partition.committed_offset));
    }
    Ok(found)
}

/// Connections to whoever leads.
#[derive(Default)]
struct Reader {
    leaders: Option<Leaders>,
    connections: BTreeMap<SocketAddr, Client>,
}

impl Reader {
    fn fetch(&mut self, route: &Route, partition: i32, offset: i64) -> Option<Fetched> {
        if self.leaders.is_none() {
            self.leaders = route.leaders(load::TOPIC);
        }
        let Some(address) = self.leaders.as_ref()?.of.get(&partition).copied() else {
            self.leaders = None;
            return None;
        };
        let fetched = self.ask(route, address, partition, offset);
        if fetched.is_none() {
            self.connections.remove(&address);
        }
        if fetched.as_ref().is_none_or(|fetched| fetched.error != 0) {
            self.leaders = None;
        }
        fetched
    }

    fn ask(&mut self, route: &Route, address: SocketAddr, partition: i32, offset: i64) -> Option<Fetched> {
        use std::collections::btree_map::Entry;
        let client = match self.connections.entry(address) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(route.connect(address)?),
        };
        client.fetch(load::TOPIC, partition, offset, 0, 1 << 20).ok()
    }
}

/// A member, again and again.
pub struct Member<'a> {
    pub route: Route,
    groups: &'a Groups,
    pub group: &'a Group,
    pub rng: Rng,
    pub coordinator: Option<Client>,
    pub id: StrBytes,
    /// None while it is no member.
    pub generation: Option<i32>,
    /// What it owns, each with the offset to read next; none until the committed one is known.
    pub owned: BTreeMap<i32, Option<i64>>,
    committed: BTreeMap<i32, i64>,
    reader: Reader,
    pub next_heartbeat: Instant,
    next_commit: Instant,
}

impl<'a> Member<'a> {
    pub fn new(route: &Route, groups: &'a Groups, group: &'a Group, number: u8, seed: u64) -> Member<'a> {
        let now = Instant::now();
        Member {
            route: route.beginning_at(usize::from(number)),
            groups,
            group,
            rng: Rng(seed ^ u64::from(number) << 32 ^ u64::from(group.name.as_bytes()[group.name.len() - 1])),
            coordinator: None,
            id: StrBytes::default(),
            generation: None,
            owned: BTreeMap::new(),
            committed: BTreeMap::new(),
            reader: Reader::default(),
            next_heartbeat: now,
            next_commit: now,
        }
    }

    pub fn run(mut self) {
        while !self.groups.stop.load(Ordering::Relaxed) {
            match self.step() {
                Ok(()) => std::thread::sleep(PACE),
                Err(trouble) => {
                    self.recover(trouble);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn step(&mut self) -> Result<(), Trouble> {
        if self.coordinator.is_none() {
            self.coordinator = self.route.coordinator_of(0, &self.group.name);
        }
        match self.group.protocol {
            Protocol::Classic if self.generation.is_none() => self.join()?,
            Protocol::Classic if Instant::now() >= self.next_heartbeat => self.beat()?,
            Protocol::Consumer if Instant::now() >= self.next_heartbeat => self.reconcile()?,
            _ => {}
        }
        self.locate()?;
        self.read();
        if Instant::now() >= self.next_commit {
            self.commit()?;
            self.next_commit = Instant::now() + COMMIT;
        }
        if !self.groups.drain.load(Ordering::Relaxed) && self.rng.range(0, LEAVES) == 0 {
            self.end()?;
        }
        Ok(())
    }

    /// What a client does about an error. It keeps its id and its generation as long as nobody denies them.
    fn recover(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Lost | Trouble::Code(_, 7 | 15 | 16) => self.coordinator = None,
            Trouble::Code(_, 14) => {}
            Trouble::Code(_, 22 | 27 | 110) => self.forget(),
            Trouble::Code(_, 25) => {
                self.forget();
                self.id = StrBytes::default();
            }
            Trouble::Code(_, 113) => self.next_heartbeat = Instant::now(),
            Trouble::Code(what, code) => self.group.contradict(format!("{what} answers {code}")),
        }
    }

    /// It owns nothing any more.
    pub fn forget(&mut self) {
        self.generation = None;
        self.owned.clear();
        self.committed.clear();
        self.next_heartbeat = Instant::now();
    }

    pub fn asked(&mut self) -> Result<&mut Client, Trouble> {
        self.coordinator.as_mut().ok_or(Trouble::Lost)
    }

    pub fn owner(&self) -> Option<Owner> {
        Some(Owner { generation: self.generation?, member: self.id.to_string() })
    }

    pub fn account(&self) -> std::sync::MutexGuard<'a, Account> {
        self.group.account.lock().expect("no holder panics")
    }

    pub fn beats_next(&mut self) {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
    }

    /// Learns where to go on in what it was newly assigned.
    fn locate(&mut self) -> Result<(), Trouble> {
        let unknown: Vec<i32> = self.owned.iter().filter(|(_, next)| next.is_none()).map(|(p, _)| *p).collect();
        let (false, Some(owner)) = (unknown.is_empty(), self.owner()) else { return Ok(()) };
        let owner = (self.group.protocol == Protocol::Consumer).then_some(owner);
        let floors: Vec<_> = unknown.iter().map(|p| self.account().floor(*p)).collect();
        let group = &self.group.name;
        let coordinator = self.coordinator.as_mut().ok_or(Trouble::Lost)?;
        let found = committed(coordinator, group, owner.as_ref(), &unknown)?;
        for (partition, offset) in found {
            let Some(at) = unknown.iter().position(|p| *p == partition) else { continue };
            self.account().found(partition, floors[at].as_ref(), offset);
            self.owned.insert(partition, Some(offset.max(0)));
            self.committed.insert(partition, offset.max(0));
        }
        Ok(())
    }

    fn read(&mut self) {
        let places: Vec<(i32, i64)> = self.owned.iter().filter_map(|(p, next)| Some((*p, (*next)?))).collect();
        for (partition, offset) in places {
            // A node that says nothing has cost patience: the heartbeat comes first.
            let Some(fetched) = self.reader.fetch(&self.route, partition, offset) else { return };
            if fetched.error == 1 {
                let watermark = fetched.high_watermark;
                self.group
                    .contradict(format!("partition {partition}: {offset} is out of range, watermark {watermark}"));
            }
            let Some(last) = fetched.batches.last() else { continue };
            let next = last.last_offset + 1;
            let records = fetched.batches.iter().flat_map(|batch| &batch.records).filter(|r| r.offset >= offset);
            let records: Vec<(i64, u64)> = records.map(|record| (record.offset, number(record))).collect();
            self.account().processed(partition, &records);
            self.owned.insert(partition, Some(next));
        }
    }

    /// Commits what was processed since the last time.
    pub fn commit(&mut self) -> Result<(), Trouble> {
        let Some(owner) = self.owner() else { return Ok(()) };
        let known = |p: &i32| self.committed.get(p).copied().unwrap_or(0);
        let places = self.owned.iter().filter_map(|(p, next)| Some((*p, (*next)?)));
        let places: Vec<(i32, i64)> = places.filter(|(p, next)| *next > known(p)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let mut commits: BTreeMap<i32, _> = {
            let mut account = self.account();
            places.iter().map(|(p, next)| (*p, account.asks(&owner, *p, *next))).collect()
        };
        let request = commit_request(&self.group.name, &owner, &places);
        let answer = self.asked().and_then(|coordinator| Ok(coordinator.call(9, &request)?));
        let mut outcome = answer.as_ref().map(|_| ()).map_err(|_| Trouble::Lost);
        for partition in answer.iter().flat_map(|a| &a.topics).flat_map(|topic| &topic.partitions) {
            let Some(commit) = commits.remove(&partition.partition_index) else { continue };
            match partition.error_code {
                0 => {
                    let next =
                        places.iter().find(|(p, _)| *p == partition.partition_index).map_or(0, |(_, next)| *next);
                    self.account().acked(commit);
                    self.committed.insert(partition.partition_index, next);
                }
                // Not a member of this generation: refused for good.
                code @ (22 | 25 | 27 | 110 | 113) => outcome = good("OffsetCommit", code),
                code => {
                    self.account().unanswered(commit);
                    outcome = good("OffsetCommit", code);
                }
            }
        }
        let mut account = self.account();
        commits.into_values().for_each(|commit| account.unanswered(commit));
        outcome
    }

    /// Ends the membership, mostly in order, and stays away for a while.
    fn end(&mut self) -> Result<(), Trouble> {
        let silently = self.rng.range(0, 2) == 0;
        let outcome = if silently { Ok(()) } else { self.commit().and_then(|()| self.leave()) };
        self.forget();
        self.id = StrBytes::default();
        self.coordinator = None;
        std::thread::sleep(Duration::from_millis(self.rng.range(0, 3_000)));
        self.next_heartbeat = Instant::now();
        outcome
    }
}

fn commit_request(group: &str, owner: &Owner, places: &[(i32, i64)]) -> OffsetCommitRequest {
    let partitions = places.iter().map(|(partition, next)| {
        offset_commit_request::OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*next)
            .with_committed_leader_epoch(-1)
    });
    let named = offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic(load::TOPIC));
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(owner.generation)
        .with_member_id(text(&owner.member))
        .with_topics(vec![named.with_partitions(partitions.collect())])
}
