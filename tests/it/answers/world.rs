//! A broker that is asked: requests at every version that both sides know, and the state around each of them, so that
//! what is refused is seen to change nothing.

use super::super::client::{self, Client, text};
use super::super::harness::{Target, eventually, unique};
use super::book::{self, Book};
use super::render;
use super::state::Watched;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Message, Request};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(20);
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;

pub struct World {
    pub target: Target,
    pub client: Client,
    /// What is described around every request.
    pub watched: Vec<Watched>,
    /// Ends of partitions before the request.
    pub ends: BTreeMap<(String, i32), i64>,
    area: &'static str,
    book: Book,
    advertised: BTreeMap<i16, (i16, i16)>,
    prefix: String,
    names: u32,
    /// Accepted changes of a real Kafka show a good while later.
    settles: bool,
}

/// A run that writes the fixtures: a real Kafka answers.
fn writing() -> bool {
    std::env::var_os("CASEMATE_TEST_WRITE").is_some() && std::env::var_os("CASEMATE_TEST_BOOTSTRAP").is_some()
}

impl World {
    pub fn new(area: &'static str) -> World {
        let target = Target::new();
        let mut client = target.client();
        let keys = client.api_versions().expect("the broker tells its versions").api_keys;
        let advertised = keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
        let prefix = unique("ans").replace('-', "");
        let (book, watched) = (Book::default(), vec![]);
        let ends = BTreeMap::new();
        World { target, client, watched, ends, area, book, advertised, prefix, names: 0, settles: false }
    }

    /// For areas whose changes go through Kafka's controller.
    pub fn settling(mut self) -> World {
        self.settles = true;
        self
    }

    /// Waits until the coordinators of all groups and transactions are there.
    pub fn coordinated(mut self) -> World {
        for kind in [0, 1] {
            let find = FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(vec![text("any")]);
            eventually("the coordinator is found", READY, || {
                (self.call(4, &find).ok()?.coordinators.first()?.error_code == 0).then_some(())
            });
        }
        // Enough names that every partition of the coordinators' topics is asked for.
        for name in 0..300 {
            let name = format!("name-{name}");
            let fetch = OffsetFetchRequest::default().with_group_id(GroupId(text(&name))).with_topics(None);
            let id = TransactionalId(text(&name));
            let describe = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
            eventually("the coordinator has loaded", READY, || {
                let group = self.call(7, &fetch).ok()?.error_code == 0;
                let transaction = self.call(0, &describe).ok()?.transaction_states[0].error_code;
                (group && transaction == TRANSACTIONAL_ID_NOT_FOUND).then_some(())
            });
        }
        self
    }

    /// A name that nothing else has. It is rendered as `name`.
    pub fn fresh(&mut self, name: &str) -> String {
        self.names += 1;
        format!("{}x{}-{name}", self.prefix, self.names)
    }

    /// Sends one request, on a new connection if the last one was closed.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<R::Response> {
        let answer = self.client.call(version, request);
        if answer.is_err() {
            self.client = self.target.client();
        }
        answer
    }

    /// The versions of an API that the broker and the library know.
    pub fn versions<R: Request>(&self) -> std::ops::RangeInclusive<i16> {
        let (min, max) = self.advertised.get(&R::KEY).copied().unwrap_or((0, -1));
        min.max(<R as Message>::VERSIONS.min)..=max.min(<R as Message>::VERSIONS.max)
    }

    /// One case: the request that `make` builds, at every version that can carry it.
    pub fn ask<R: Request>(&mut self, name: &str, make: impl Fn(&mut World, i16) -> R)
    where
        R::Response: std::fmt::Debug,
    {
        let mut answers = vec![];
        for version in self.versions::<R>() {
            let request = make(self, version);
            if client::try_frame(version, &request, 1).is_err() {
                continue; // a field that this version lacks
            }
            answers.push((format!("v{version}"), self.observe(name, version, &request)));
        }
        assert!(!answers.is_empty(), "{}: {name}: no version can carry the request", self.area);
        self.book.add(name, answers);
    }

    /// One case of several requests, all at the newest version.
    pub fn table<R: Request>(&mut self, name: &str, rows: impl IntoIterator<Item = (String, R)>)
    where
        R::Response: std::fmt::Debug,
    {
        let version = *self.versions::<R>().end();
        let answers = rows.into_iter().map(|(label, r)| (label, self.observe(name, version, &r))).collect::<Vec<_>>();
        self.book.add(name, answers);
    }

    /// The answer, and what it changed.
    fn observe<R: Request>(&mut self, name: &str, version: i16, request: &R) -> String
    where
        R::Response: std::fmt::Debug,
    {
        let before = self.state_before();
        let began = Instant::now();
        let mut shown = match self.call(version, request) {
            Ok(answer) => render::line(&answer),
            Err(_) if began.elapsed() < client::TIMEOUT => "the connection is closed".to_string(),
            Err(e) => panic!("{}: {name}: no answer to version {version}: {e}", self.area),
        };
        let after = self.state_after(&before, shown.contains("error_code=0"));
        let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("\n- {line}"));
        let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("\n+ {line}"));
        gone.chain(new).for_each(|change| shown.push_str(&change));
        shown
    }

    /// The state before a request, from which ends of partitions are counted. What a real Kafka does behind earlier
    /// answers has to be over.
    fn state_before(&mut self) -> Vec<String> {
        loop {
            self.ends.clear();
            let state = self.state();
            if self.target.broker.is_some() || self.watched.is_empty() {
                return state;
            }
            let ends = std::mem::take(&mut self.ends);
            std::thread::sleep(Duration::from_millis(20));
            if self.state() == state && self.ends == ends {
                return state;
            }
        }
    }

    /// The state after a request. A real Kafka shows what it has accepted, and writes of its coordinators, a little later.
    fn state_after(&mut self, before: &[String], accepted: bool) -> Vec<String> {
        let looks = match (self.target.broker.is_some() || self.watched.is_empty(), accepted && self.settles) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 25,
        };
        for _ in 0..looks {
            std::thread::sleep(Duration::from_millis(25));
            let after = self.state();
            if after != before {
                break;
            }
        }
        self.state()
    }

    fn state(&mut self) -> Vec<String> {
        let watched = std::mem::take(&mut self.watched);
        let lines = watched.iter().flat_map(|w| w.describe(self)).collect();
        self.watched = watched;
        lines
    }

    /// Compares with what a real Kafka has answered, or writes it down.
    pub fn finish(self) {
        let path = book::folder().join(format!("{}.txt", self.area));
        if writing() {
            let text = self.book.text(self.area);
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            return;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let listed = std::fs::read_to_string(book::folder().join("differences.txt")).expect("differences.txt is there");
        let listed = book::differences(&listed).unwrap_or_else(|e| panic!("{e}"));
        // A real Kafka differs nowhere from itself.
        let listed = if self.target.broker.is_some() { listed } else { vec![] };
        let wrong = self.book.compare(self.area, &Book::parse(&text), &listed);
        let cases = self.book.cases.len();
        println!("{}: {cases} cases, {} answers", self.area, self.book.answers());
        assert!(wrong.is_empty(), "{}: {} of {cases} cases\n{}", self.area, wrong.len(), wrong.join("\n"));
        if let Some(broker) = &self.target.broker {
            assert!(!broker.log().contains("panicked"), "{}", broker.log());
        }
    }
}
