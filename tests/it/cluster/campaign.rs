//! Faults on a cluster of real processes under load; in the end every promise is checked against what is there.
//!
//! A round makes a cluster in network namespaces, puts idempotent producers with readers, transfers in transactions,
//! committed offsets and groups with members on it, and brings one or two faults at a time over it: SIGKILL, SIGSTOP, links cut (wholly, in one
//! direction, between two nodes), a disk that is slow or full, a node whose disk is lost. Every second round keeps its objects
//! in a real S3 server, which goes away, too. Then all is mended, everything that was
//! begun is brought to its end, and the whole log is read from offset 0: as it is, and once more after all of it is
//! uploaded and every process was started anew.

use super::super::batch::Record;
use super::super::harness::{eventually, folder, lasting_folder, skip};
use super::super::load::{self, Shared};
use super::super::oracle::{History, Rng, check};
use super::super::transfers::{self, Ledger};
use super::commits::Commits;
use super::fleet::{Fleet, NODES};
use super::members::{Groups, MEMBERS, Member};
use super::network::{Cut, Network, inside, is_inside};
use super::route::Route;
use super::store_server::{Away, StoreServer};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const PARTITIONS: i32 = 8;
/// How long everything may take to be answered when all is mended.
const HEALING: Duration = Duration::from_secs(90);

enum Fault {
    Killed(u8),
    Stopped(u8),
    Cut(Cut),
    Slow(u8, Option<Child>),
    Full(u8),
    Store(Away),
}

impl Fault {
    fn mend(self, fleet: &Fleet) {
        match self {
            Fault::Killed(node) => fleet.start(node, Duration::ZERO),
            Fault::Stopped(node) => fleet.go_on(node),
            Fault::Cut(cut) => fleet.network.mend(cut),
            Fault::Slow(_, strace) => {
                if let Some(mut strace) = strace {
                    let _ = strace.kill();
                    let _ = strace.wait();
                }
            }
            Fault::Full(node) => fleet.make_room(node),
            Fault::Store(away) => {
                fleet.store.iter().for_each(|store| store.come_back(away, &fleet.network));
            }
        }
    }

    fn is_about(&self, node: u8) -> bool {
        match self {
            Fault::Killed(n) | Fault::Stopped(n) | Fault::Slow(n, _) | Fault::Full(n) => *n == node,
            Fault::Cut(Cut::Off(n)) => *n == node,
            Fault::Cut(Cut::OneWay(a, b) | Cut::Between(a, b)) => *a == node || *b == node,
            Fault::Store(_) => false,
        }
    }
}

/// What a round has shown.
#[derive(Default)]
struct Shown {
    faults: BTreeMap<String, u64>,
    acked: u64,
    unknown: u64,
    committed: u64,
    seconds: u64,
    fenced: u64,
    /// Of each group.
    consumed: Vec<u64>,
    generations: Vec<u64>,
}

struct Round {
    fleet: Arc<Fleet>,
    route: Arc<Route>,
    rng: Rng,
    active: Vec<(Instant, Fault)>,
    faults: BTreeMap<String, u64>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.fleet.end();
    }
}

impl Round {
    /// Brings faults about until the time is over, then mends them all.
    fn trouble(&mut self, until: Instant) {
        let mut next = Instant::now() + Duration::from_secs(2);
        let mut wiped = false;
        while Instant::now() < until {
            self.mend(|at| Instant::now() >= at);
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_millis(self.rng.range(300, 5_000));
                if !wiped && until - Instant::now() < Duration::from_secs(45) && self.rng.range(0, 1) == 0 {
                    wiped = true;
                    self.wipe();
                } else if self.store_is_next() {
                    self.take_store_away();
                } else if self.active.iter().filter(|(_, fault)| !matches!(fault, Fault::Store(_))).count() < 2 {
                    self.begin();
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mend(|_| true);
    }

    fn mend(&mut self, due: impl Fn(Instant) -> bool) {
        let (over, rest) = std::mem::take(&mut self.active).into_iter().partition(|(at, _)| due(*at));
        self.active = rest;
        let over: Vec<(Instant, Fault)> = over;
        for (_, fault) in over {
            fault.mend(&self.fleet);
        }
    }

    fn begin(&mut self) {
        let node = self.rng.range(1, u64::from(NODES)) as u8;
        let other = node % NODES + 1;
        if self.active.iter().any(|(_, fault)| fault.is_about(node)) {
            return;
        }
        let lasts = Duration::from_millis(self.rng.range(100, 7_000));
        let (name, fault) = match self.rng.range(0, 9) {
            0..=2 => {
                self.fleet.kill(node);
                ("kill", Fault::Killed(node))
            }
            3 | 4 => {
                self.fleet.stop(node);
                ("stop", Fault::Stopped(node))
            }
            5 => ("cut off", self.cut(Cut::Off(node))),
            6 => ("one way", self.cut(Cut::OneWay(node, other))),
            7 => ("bridge", self.cut(Cut::Between(node, other))),
            8 => {
                let delay = Duration::from_millis(self.rng.range(5, 150));
                ("slow disk", Fault::Slow(node, self.fleet.slow_disk(node, delay)))
            }
            _ => {
                self.fleet.fill(node);
                ("full disk", Fault::Full(node))
            }
        };
        println!("  {name} {node} for {lasts:?}");
        *self.faults.entry(name.to_owned()).or_default() += 1;
        self.active.push((Instant::now() + lasts, fault));
    }

    fn store_is_next(&mut self) -> bool {
        let is_away = self.active.iter().any(|(_, fault)| matches!(fault, Fault::Store(_)));
        self.fleet.store.is_some() && !is_away && self.rng.range(0, 2) == 0
    }

    /// Object storage is away, for longer than other faults last; those go on meanwhile.
    fn take_store_away(&mut self) {
        let Some(store) = self.fleet.store.as_ref() else { return };
        let away = match self.rng.range(0, 3) {
            0 => Away::Killed,
            1 => Away::Stopped,
            2 => Away::CutOff,
            _ => Away::CutFrom(self.rng.range(1, u64::from(NODES)) as u8),
        };
        let lasts = Duration::from_millis(self.rng.range(500, 15_000));
        println!("  {} ({away:?}) for {lasts:?}", away.name());
        store.go(away, &self.fleet.network);
        *self.faults.entry(away.name().to_owned()).or_default() += 1;
        self.active.push((Instant::now() + lasts, Fault::Store(away)));
    }

    fn cut(&self, cut: Cut) -> Fault {
        self.fleet.network.cut(cut);
        Fault::Cut(cut)
    }

    /// A node loses its disk while nothing else is wrong; nothing else goes wrong until it has come back.
    fn wipe(&mut self) {
        self.mend(|_| true);
        self.fleet.await_whole();
        // What lies on two disks only is to be on three again.
        std::thread::sleep(Duration::from_secs(10));
        let node = self.rng.range(1, u64::from(NODES)) as u8;
        println!("  wiped {node}");
        *self.faults.entry("wiped".to_owned()).or_default() += 1;
        self.fleet.wipe(node);
        std::thread::sleep(Duration::from_secs(10));
    }

    fn problems(&self) -> Result<(), String> {
        let problems = self.fleet.problems.lock().expect("no holder panics");
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }

    /// Where the partitions of the load end.
    fn ends(&self) -> Vec<i64> {
        let end = |p| {
            eventually("the end of a partition", HEALING, || {
                let (error, _, offset) = self.route.leader_of(load::TOPIC, p)?.list_offset(load::TOPIC, p, -1).ok()?;
                (error == 0).then_some(offset)
            })
        };
        (0..PARTITIONS).map(end).collect()
    }

    fn read(&self) -> Result<Vec<Vec<Record>>, String> {
        let read = |p| {
            let last = std::cell::RefCell::new(String::new());
            let begun = Instant::now();
            while begun.elapsed() < HEALING {
                let Some(mut leader) = self.route.leader_of(load::TOPIC, p) else { continue };
                match leader.read_all(load::TOPIC, p, 0) {
                    Ok(records) => return Ok(records),
                    Err(error) => *last.borrow_mut() = error.to_string(),
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(format!("partition {p} cannot be read: {}", last.borrow()))
        };
        (0..PARTITIONS).map(read).collect()
    }
}

fn compare(shared: &Shared, logs: &[Vec<Record>]) -> Result<(), String> {
    let history = shared.history.lock().expect("no holder panics");
    let mut problems = history.contradictions.clone();
    for (partition, log) in logs.iter().enumerate() {
        problems.extend(check(shared.seed, partition as i32, &history, log).iter().map(|v| format!("{v:?}")));
    }
    problems.extend(shared.refusals.lock().expect("no holder panics").iter().cloned());
    if problems.is_empty() {
        return Ok(());
    }
    let shown = problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
    Err(format!("{} violations:\n  {shown}", problems.len()))
}

fn make_topics(route: &Route) {
    for (name, partitions) in [(load::TOPIC, PARTITIONS), (transfers::TOPIC, transfers::PARTITIONS as i32)] {
        eventually("the topic can be made", HEALING, || {
            let made = route.any()?.create_topic(name, partitions, &[("retention.ms", "-1")]).ok()?;
            [0, 36].contains(&made).then_some(())
        });
    }
}

/// Ends the load with its life.
struct Ended<'a> {
    shared: &'a Shared,
    ledger: &'a Ledger,
    commits: &'a Commits,
    groups: &'a Groups,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.ledger.stop.store(true, Ordering::Relaxed);
        self.commits.stop.store(true, Ordering::Relaxed);
        self.groups.stop.store(true, Ordering::Relaxed);
    }
}

/// One round in a folder of its own.
fn round(dir: &Path, seed: u64, trouble: Duration, external: bool) -> Result<Shown, String> {
    let began = Instant::now();
    let fleet = Fleet::new(dir, external);
    let seeds = (1..=NODES).map(|n| (Network::address(n), 9093).into()).collect();
    let route = Arc::new(Route::new(seeds, super::super::tls::as_client(&fleet.folder(1)), seed));
    make_topics(&route);
    let history = History::resume(&dir.join("journal")).map_err(|e| format!("the journal: {e}"))?;
    let shared = Shared::new(seed, history, route.clone());
    // Leaves the processors some time in which nodes that were away can catch up.
    let ledger = Ledger::with_pause(Duration::from_millis(15));
    let (commits, groups) = (Commits::default(), Groups::new());
    let rng = Rng(seed);
    let mut round =
        Round { fleet: fleet.clone(), route: route.clone(), rng, active: Vec::new(), faults: BTreeMap::new() };
    let threads = load::start(&shared, PARTITIONS, PARTITIONS, PARTITIONS);
    let outcome = std::thread::scope(|scope| {
        // Also when this thread panics: nobody would ever be told otherwise.
        let _ended = Ended { shared: &shared, ledger: &ledger, commits: &commits, groups: &groups };
        for number in 0..transfers::CLIENTS {
            let (route, ledger) = (&*route, &ledger);
            scope.spawn(move || transfers::client(route, number, seed, ledger));
        }
        for number in 0..NODES {
            let (route, commits) = (&*route, &commits);
            scope.spawn(move || commits.run(route, number));
        }
        for (group, number) in groups.groups.iter().flat_map(|group| (0..MEMBERS).map(move |number| (group, number))) {
            let member = Member::new(&route, &groups, group, number, seed);
            scope.spawn(move || member.run());
        }
        round.trouble(Instant::now() + trouble);
        println!("  mended after {:?}", began.elapsed());
        drained(&shared, &fleet, &round)?;
        groups.drain.store(true, Ordering::Relaxed);
        groups.catch_up(&round.ends(), HEALING)
    });
    let panics = threads.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err).count();
    outcome?;
    if panics > 0 {
        return Err(format!("{panics} threads of the load panicked"));
    }
    verify(&round, &shared, &ledger, &commits, &groups)?;
    let history = shared.history.lock().expect("no holder panics");
    let shown = Shown {
        faults: round.faults.clone(),
        acked: history.acked_records(),
        unknown: history.lost_answers,
        committed: ledger.committed.lock().map_or(0, |committed| committed.len() as u64),
        seconds: began.elapsed().as_secs(),
        fenced: fleet.fenced.load(Ordering::Relaxed),
        consumed: groups.consumed(),
        generations: groups.generations(),
    };
    match () {
        _ if shown.faults.values().sum::<u64>() == 0 => Err("vacuous: no fault was brought about".into()),
        _ if shown.acked < 500 => Err("vacuous: hardly anything was acknowledged".into()),
        _ if shown.committed < 10 => Err("vacuous: hardly any transfer was committed".into()),
        _ if shown.consumed.iter().any(|n| *n < 500) => Err("vacuous: a group has consumed hardly anything".into()),
        _ if shown.generations.contains(&0) => Err("vacuous: a group had no generation".into()),
        _ => Ok(shown),
    }
}

/// Everything begun is acknowledged, on a cluster where nothing is wrong.
fn drained(shared: &Shared, fleet: &Fleet, round: &Round) -> Result<(), String> {
    std::thread::sleep(Duration::from_secs(2));
    shared.drain.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + HEALING;
    loop {
        round.problems()?;
        let waiting = shared.history.lock().expect("no holder panics").unresolved() - shared.abandoned;
        if waiting == 0 {
            break;
        }
        if Instant::now() > deadline {
            let status = fleet.status(1).map_or_else(String::new, |s| s.to_string());
            return Err(format!("{waiting} batches are never acknowledged; {status}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    fleet.await_whole();
    Ok(())
}

fn verify(round: &Round, shared: &Shared, ledger: &Ledger, commits: &Commits, groups: &Groups) -> Result<(), String> {
    for number in 0..transfers::CLIENTS {
        // Whoever was interrupted begins anew: that ends what was open.
        eventually("every client comes back", HEALING, || {
            transfers::Mover::start(&*round.route, number, ledger).ok().map(|_| ())
        });
    }
    let first = round.read()?;
    compare(shared, &first)?;
    commits.judge(&round.route)?;
    groups.judge(&round.route, &first)?;
    let legs = eventually("the transfers are read", HEALING, || transfers::committed_legs(&*round.route).ok());
    judge_transfers(round, ledger, &legs);
    round.problems()?;
    eventually("everything is uploaded", HEALING, || {
        let status = round.fleet.status(1)?;
        let ledgers = status["ledgers"].as_array()?;
        ledgers.iter().all(|l| l["end"].is_null() || l["uploaded"] == l["end"]).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    round.fleet.restart_all();
    if round.read()? != first {
        return Err("the log reads otherwise after everything was uploaded and started anew".into());
    }
    let again = eventually("the transfers are read", HEALING, || transfers::committed_legs(&*round.route).ok());
    judge_transfers(round, ledger, &again);
    groups.judge(&round.route, &first)?;
    commits.judge(&round.route)
}

fn name_of_store(external: bool) -> &'static str {
    if external { "minio" } else { "bundled" }
}

/// Judges the transfers; what is stored of them is written down where that fails.
fn judge_transfers(round: &Round, ledger: &Ledger, legs: &[(u64, u64, i64)]) {
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| transfers::judge(ledger, legs)));
    if let Err(panic) = judged {
        let written = std::fs::File::create(round.fleet.dir.join("transfers"))
            .and_then(|mut file| transfers::describe(&*round.route, &mut file));
        println!("what is stored of them: {written:?}");
        std::panic::resume_unwind(panic);
    }
}

/// A panic is a failure like another one.
fn caught<T>(round: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let said = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("a panic".into(), |text| text.to_string()),
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(round)).map_err(said)?
}

/// Runs rounds until the time is over; a round that fails leaves its logs and journal in the folder that it names.
fn campaign(seconds: u64, trouble: Duration) {
    let root = lasting_folder("cluster-faults");
    let began = Instant::now();
    loop {
        let earlier = std::fs::read_to_string(root.join("totals")).unwrap_or_default();
        let seed = 1 + earlier.lines().count() as u64;
        let dir = root.join("current");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the folder can be made");
        let external = has_external_store(seed);
        let store = name_of_store(external);
        println!("seed {seed}, objects in the {store} store");
        match caught(|| round(&dir, seed, trouble, external)) {
            Err(problem) => {
                let kept = root.join(format!("failed-{seed}-{}", std::process::id()));
                let _ = std::fs::create_dir_all(&kept);
                for name in ["journal", "log1", "log2", "log3", "store/log", "transfers"] {
                    let _ = std::fs::copy(dir.join(name), kept.join(name.replace('/', "-")));
                }
                panic!("seed {seed}, kept in {}: {problem}", kept.display());
            }
            Ok(shown) => {
                let faults: Vec<String> = shown.faults.iter().map(|(name, n)| format!("{name}={n}")).collect();
                let Shown { acked, unknown, committed, seconds, fenced, .. } = shown;
                let faults = faults.join(",");
                let (consumed, generations): (u64, u64) = (shown.consumed.iter().sum(), shown.generations.iter().sum());
                let line = format!(
                    "{seconds};{acked};{unknown};{committed};{fenced};{faults};{store};{consumed};{generations}\n"
                );
                println!("  {line}");
                std::fs::write(root.join("totals"), earlier + &line).expect("the totals can be written");
            }
        }
        if began.elapsed().as_secs() >= seconds {
            break;
        }
    }
    totals(&root);
}

fn totals(root: &Path) {
    let text = std::fs::read_to_string(root.join("totals")).unwrap_or_default();
    let column = |n: usize| text.lines().filter_map(|l| l.split(';').nth(n)?.parse::<u64>().ok()).sum::<u64>();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for pair in text.lines().filter_map(|l| l.split(';').nth(5)).flat_map(|list| list.split(',')) {
        if let Some((name, count)) = pair.split_once('=') {
            *faults.entry(name).or_default() += count.parse::<u64>().unwrap_or(0);
        }
    }
    let external = text.lines().filter(|l| l.split(';').nth(6) == Some(name_of_store(true))).count();
    println!(
        "in all: {} rounds, {external} of them with an external store, {} s, {} faults {faults:?}; {} records acknowledged and {} transfers committed, none lost, doubled, \
         reordered; {} outcomes unknown at first; {} processes fenced; {} records consumed in {} generations of groups, none skipped",
        text.lines().count(),
        column(0),
        faults.values().sum::<u64>(),
        column(1),
        column(3),
        column(2),
        column(4),
        column(7),
        column(8)
    );
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether the round has its objects in a real S3 server: every second one, where that can be had.
fn has_external_store(seed: u64) -> bool {
    match from_environment::<String>("CASEMATE_TEST_STORE").as_deref() {
        Some(name) => name == name_of_store(true),
        _ if !seed.is_multiple_of(2) => false,
        _ if StoreServer::fetch() => true,
        _ => {
            skip("the round has the bundled store: the S3 server cannot be had here");
            false
        }
    }
}

#[test]
#[ignore = "long: make test-faults; CASEMATE_TEST_SECONDS sets how long"]
fn nothing_is_lost_under_faults() {
    if !is_inside() {
        // While there is a network to fetch it from.
        StoreServer::fetch();
    }
    match inside("it::cluster::campaign::nothing_is_lost_under_faults") {
        Err(reason) => return skip(&reason),
        Ok(false) => return,
        Ok(true) => {}
    }
    let seconds = from_environment("CASEMATE_TEST_SECONDS").unwrap_or(7_200);
    let trouble = from_environment("CASEMATE_TEST_TROUBLE_SECONDS").unwrap_or(120);
    campaign(seconds, Duration::from_secs(trouble));
}

#[test]
fn a_few_faults_lose_nothing() {
    match inside("it::cluster::campaign::a_few_faults_lose_nothing") {
        Err(reason) => return skip(&reason),
        Ok(false) => return,
        Ok(true) => {}
    }
    let dir = folder();
    let fleet_dir = dir.path().to_owned();
    match round(&fleet_dir, 1, Duration::from_secs(20), false) {
        Ok(shown) => {
            let Shown { faults, acked, consumed, generations, .. } = shown;
            let faults: u64 = faults.values().sum();
            println!(
                "{faults} faults, {acked} records acknowledged, {consumed:?} consumed in {generations:?} generations"
            );
        }
        Err(problem) => panic!("folder {}: {problem}", dir.keep().display()),
    }
}
