//! SIGKILL at random moments and at every failpoint, under idempotent load on 16 partitions; then every acknowledged
//! record must be at its offset, once, in order.
//!
//! A campaign is one folder with one journal and a fixed seed. The short one runs in `make test`; long ones
//! accumulate in the target folder, and one that was interrupted is taken up where it stopped. A run in which no
//! fault fired, or hardly anything was acknowledged, fails: it has checked nothing.

use super::batch::Record;
use super::client::Client;
use super::harness::{Broker, Ended, Launch, folder, lasting_folder, skip};
use super::load::{self, OneBroker, Shared, TOPIC};
use super::oracle::{History, Rng, check};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 16;
const PRODUCERS: i32 = 4;

/// Small segments and quick uploads, so that rolling, recycling and uploading happen within seconds.
const SETTINGS: &[(&str, &str)] = &[
    ("wal.segment_bytes", "1048576"),
    ("wal.budget_bytes", "33554432"),
    ("objects.upload_bytes", "4194304"),
    ("objects.upload_interval_ms", "300"),
    ("objects.maintenance_interval_ms", "500"),
    ("objects.grace_ms", "1000"),
];

/// Every failpoint with the highest hit number at which it is tried.
const FAILPOINTS: &[(&str, u64)] = &[
    ("wal-before-write", 200),
    ("wal-mid-write", 100),
    ("wal-before-sync", 200),
    ("wal-after-sync", 200),
    ("wal-roll", 3),
    ("wal-recycle", 2),
    ("wal-recovery", 2),
    ("reply-before", 300),
    ("object-before-sync", 3),
    ("object-before-link", 3),
    ("object-after-link", 3),
    ("upload-before-put", 3),
    ("upload-after-put", 3),
    ("upload-before-commit", 3),
    ("upload-after-commit", 3),
    ("metadata-before-sync", 4),
    ("metadata-after-sync", 4),
];

/// How a round ends the process.
#[derive(Debug, Clone)]
enum Plan {
    /// This long after it became ready.
    Running(Duration),
    /// This long after it was started, ready or not: during recovery.
    Starting(Duration),
    /// At the n-th hit of a failpoint.
    Failpoint { name: &'static str, hit: u64, tries: u32 },
}

impl Plan {
    fn place(&self) -> String {
        match self {
            Plan::Running(_) => "random".into(),
            Plan::Starting(_) => "starting".into(),
            Plan::Failpoint { name, .. } => name.to_string(),
        }
    }
}

/// All failpoints and random moments between them, in the order of the seed.
fn plans(rng: &mut Rng, random: u32) -> VecDeque<Plan> {
    let mut plans: Vec<Plan> = vec![];
    if cfg!(feature = "failpoints") {
        plans.extend(FAILPOINTS.iter().map(|(name, most)| Plan::Failpoint {
            name,
            hit: rng.range(1, *most),
            tries: 3,
        }));
    } else {
        skip("the binary has no failpoints (build with --features failpoints); random kills only");
    }
    for n in 0..random {
        plans.push(match n % 3 {
            2 => Plan::Starting(Duration::from_millis(rng.range(1, 250))),
            _ => Plan::Running(Duration::from_millis(rng.range(20, 1500))),
        });
    }
    for i in (1..plans.len()).rev() {
        plans.swap(i, rng.range(0, i as u64) as usize);
    }
    plans.into()
}

struct Campaign {
    shared: Arc<Shared>,
    broker: Arc<OneBroker>,
    data: std::path::PathBuf,
    missed: Vec<String>,
}

impl Campaign {
    fn launch(&self) -> Launch {
        Launch::dev(&self.data).sets(SETTINGS)
    }

    /// One process from start to its violent end.
    fn round(&mut self, plan: &Plan) -> Result<bool, String> {
        let launch = match plan {
            Plan::Failpoint { name, hit, .. } => {
                self.launch().env("CASEMATE_FAILPOINTS", &format!("{name}=kill@{hit}"))
            }
            Plan::Starting(after) => self.launch().ready_within(*after),
            Plan::Running(_) => self.launch(),
        };
        let (ended, fired) = match launch.try_start() {
            Ok(broker) => self.run(broker, plan)?,
            Err(ended) => {
                let fired = matches!(plan, Plan::Failpoint { .. } | Plan::Starting(_));
                (ended, fired)
            }
        };
        self.broker.set(None);
        if ended.status.signal() != Some(9) || (ended.hung && !matches!(plan, Plan::Starting(_))) {
            return Err(format!("{plan:?}: the process ended by itself or hung: {ended}"));
        }
        if fired {
            let mut history = self.shared.history.lock().expect("no holder panics");
            history.record(vec![super::oracle::Event::Kill { place: plan.place() }]);
        }
        Ok(fired)
    }

    /// A ready broker, until the plan or the failpoint ends it; whether that was as planned.
    fn run(&self, mut broker: Broker, plan: &Plan) -> Result<(Ended, bool), String> {
        self.create_topic(&broker)?;
        self.broker.set(Some(broker.address("plaintext")));
        let bound = match plan {
            Plan::Running(after) => *after,
            Plan::Starting(_) => Duration::ZERO,
            Plan::Failpoint { .. } => Duration::from_secs(8),
        };
        let deadline = Instant::now() + bound;
        while Instant::now() < deadline && broker.is_alive() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let itself = !broker.is_alive();
        let fired = itself || !matches!(plan, Plan::Failpoint { .. });
        Ok((broker.kill(), fired))
    }

    /// The topic exists after this, or the broker died while it was made.
    fn create_topic(&self, broker: &Broker) -> Result<(), String> {
        let created = Client::connect(broker.address("plaintext"))
            .and_then(|mut c| c.create_topic(TOPIC, PARTITIONS, &[("retention.ms", "-1")]));
        match created {
            Ok(0 | 36) | Err(_) => Ok(()),
            Ok(code) => Err(format!("the topic cannot be made: error {code}\n{}", broker.log())),
        }
    }

    /// Runs the plans; a failpoint that was not reached is tried again at its first hit.
    fn rounds(&mut self, mut plans: VecDeque<Plan>) -> Result<(), String> {
        while let Some(plan) = plans.pop_front() {
            let began = Instant::now();
            let fired = self.round(&plan)?;
            println!(
                "  {:22} {} after {:?}",
                plan.place(),
                if fired { "killed" } else { "not reached" },
                began.elapsed()
            );
            if let (false, Plan::Failpoint { name, tries, .. }) = (fired, plan) {
                match tries {
                    0 | 1 => self.missed.push(name.into()),
                    _ => plans.push_back(Plan::Failpoint { name, hit: 1, tries: tries - 1 }),
                }
            }
        }
        Ok(())
    }

    /// Brings every batch to its end on an undisturbed broker, then compares the whole log with the journal: as it
    /// is, and once more after a clean restart.
    fn verify(&self) -> Result<(), String> {
        let broker = self.launch().try_start().map_err(|e| format!("the last start failed: {e}"))?;
        self.create_topic(&broker)?;
        self.broker.set(Some(broker.address("plaintext")));
        std::thread::sleep(Duration::from_millis(500));
        self.shared.drain.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.unacknowledged() > 0 {
            if Instant::now() > deadline {
                return Err(format!("{} batches are never acknowledged\n{}", self.unacknowledged(), broker.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        let first = self.read(&broker)?;
        self.compare(&first)?;
        let ended = broker.terminate(Duration::from_secs(30));
        if ended.status.code() != Some(0) {
            return Err(format!("SIGTERM did not end it cleanly: {ended}"));
        }
        let broker = self.launch().try_start().map_err(|e| format!("the start after a clean end failed: {e}"))?;
        if self.read(&broker)? != first {
            return Err("the log reads otherwise after a clean restart".into());
        }
        Ok(())
    }

    /// Batches of this run's producers without an answer; those of an earlier, interrupted run stay unknown for ever.
    fn unacknowledged(&self) -> usize {
        self.shared.history.lock().expect("no holder panics").unresolved() - self.shared.abandoned
    }

    fn read(&self, broker: &Broker) -> Result<Vec<Vec<Record>>, String> {
        let mut client = broker.client();
        let read = |p| client.read_all(TOPIC, p, 0).map_err(|e| format!("partition {p}: {e}\n{}", broker.log()));
        (0..PARTITIONS).map(read).collect()
    }

    fn compare(&self, logs: &[Vec<Record>]) -> Result<(), String> {
        let history = self.shared.history.lock().expect("no holder panics");
        let mut problems = history.contradictions.clone();
        for (partition, log) in logs.iter().enumerate() {
            problems.extend(check(self.shared.seed, partition as i32, &history, log).iter().map(|v| format!("{v:?}")));
        }
        problems.extend(self.shared.refusals.lock().expect("no holder panics").iter().cloned());
        if problems.is_empty() {
            return Ok(());
        }
        let shown = problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
        Err(format!("{} violations:\n  {shown}", problems.len()))
    }
}

/// What a campaign has shown.
struct Shown {
    kills: BTreeMap<String, u32>,
    acked: u64,
    unknown: u64,
}

/// Runs a whole campaign in a folder; on a violation the folder is left as it is.
fn campaign(dir: &Path, seed: u64, random: u32) -> Result<Shown, String> {
    let history = History::resume(&dir.join("journal")).map_err(|e| format!("the journal: {e}"))?;
    let done: u32 = history.kills.values().sum();
    let way = Arc::new(OneBroker::default());
    let shared = Shared::new(seed, history, way.clone());
    let mut campaign = Campaign { shared: shared.clone(), broker: way.clone(), data: dir.join("data"), missed: vec![] };
    let mut plans = plans(&mut Rng(seed), random);
    plans.drain(..plans.len().min(done as usize));
    let threads = load::start(&shared, PARTITIONS, PRODUCERS, 1);
    let result = campaign.rounds(plans).and_then(|()| campaign.verify());
    shared.stop.store(true, Ordering::Relaxed);
    way.set(None);
    let panics = threads.into_iter().map(|t| t.join()).filter(|r| r.is_err()).count();
    result?;
    let history = shared.history.lock().expect("no holder panics");
    let shown = Shown { kills: history.kills.clone(), acked: history.acked_records(), unknown: history.lost_answers };
    let all: u32 = shown.kills.values().sum();
    println!("{all} kills {:?}", shown.kills);
    println!(
        "{} records acknowledged, read back at their offsets, once, in order; {} of {} outcomes were unknown at first",
        shown.acked,
        shown.unknown,
        shown.unknown + history.answers
    );
    match () {
        _ if panics > 0 => Err(format!("{panics} threads of the load panicked")),
        _ if !campaign.missed.is_empty() => Err(format!("vacuous: failpoints never reached: {:?}", campaign.missed)),
        _ if shown.unknown == 0 => Err("vacuous: no kill interrupted a request".into()),
        _ if shown.acked < 50 * u64::from(all) => Err("vacuous: hardly anything was acknowledged".into()),
        _ if shown.unknown > history.answers / 4 => Err("vacuous: fewer than 80 % of the outcomes are known".into()),
        _ => Ok(shown),
    }
}

#[test]
fn acknowledged_records_survive_kills_at_every_failpoint() {
    let dir = folder();
    println!("seed 1");
    if let Err(problem) = campaign(dir.path(), 1, 6) {
        panic!("seed 1, folder {}: {problem}", dir.keep().display());
    }
}

#[test]
#[ignore = "long: 200 kills and more (make test-long); CASEMATE_TEST_KILLS sets how many"]
fn acknowledged_records_survive_hundreds_of_kills() {
    let root = lasting_folder("kill-loop");
    let wanted: u32 = std::env::var("CASEMATE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut killed = 0;
    while killed < wanted {
        let dir = root.join("current");
        std::fs::create_dir_all(&dir).expect("the folder can be made");
        let earlier = std::fs::read_to_string(root.join("totals")).unwrap_or_default();
        let seed = 1000 + earlier.lines().count() as u64;
        println!("seed {seed} in {}", dir.display());
        match campaign(&dir, seed, 23) {
            Err(problem) => {
                let kept = root.join(format!("failed-{seed}"));
                let _ = std::fs::remove_dir_all(&kept);
                let _ = std::fs::rename(&dir, &kept);
                panic!("seed {seed}, kept in {}: {problem}", kept.display());
            }
            Ok(shown) => {
                let kills: u32 = shown.kills.values().sum();
                let line = format!("{seed} {kills} {} {}\n", shown.acked, shown.unknown);
                std::fs::write(root.join("totals"), earlier + &line).expect("the totals can be written");
                std::fs::remove_dir_all(&dir).expect("a finished campaign can be removed");
                killed += kills;
            }
        }
    }
    let totals = std::fs::read_to_string(root.join("totals")).unwrap_or_default();
    let column = |n: usize| totals.lines().filter_map(|l| l.split(' ').nth(n)?.parse::<u64>().ok()).sum::<u64>();
    let campaigns = totals.lines().count();
    println!(
        "in all: {campaigns} campaigns, {} kills, {} records checked, {} unknown outcomes, 0 violations",
        column(1),
        column(2),
        column(3)
    );
}
