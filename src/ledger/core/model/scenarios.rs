//! What is explored, within which bounds, and the planted bugs that the same explorations must find.

use super::explore::{Goal, Report, explore, stuck};
use super::{Budget, Bug, LedgerId, Plant, World};

const FIRST: LedgerId = LedgerId(1);

const NOTHING: Budget = Budget {
    appends: 0,
    lost_connections: 0,
    spares: 0,
    crashes: 0,
    torn: false,
    rot: 0,
    disk_losses: 0,
    old_copies: 0,
    fences: 0,
    recoverers: 0,
    uploads: 0,
    successors: 0,
    unsure: 0,
    faulty: [true, true, true],
    unreachable: 2,
};

/// One exploration.
struct Scenario {
    name: &'static str,
    /// Nodes in the first ledger's set, of three.
    members: usize,
    left: Budget,
    goals: &'static [Goal],
}

const ALL_ACKNOWLEDGED: Goal = ("everything is acknowledged", |world| {
    world.left.appends == 0 && world.ghost.acknowledged.len() + 1 == usize::from(world.next_value)
});
const RECOVERED: Goal = ("a recoverer set an end", |world| world.attempts.iter().any(|a| a.core.is_done()));
const RECOVERED_ACKNOWLEDGED: Goal = ("a recovered ledger has what was acknowledged", |world| {
    RECOVERED.1(world) && !world.ghost.acknowledged.is_empty()
});
const MORE_RECOVERED: Goal = ("a recovered ledger has more than what was acknowledged", |world| {
    RECOVERED.1(world) && world.ghost.ends.values().any(|end| end.0 as usize > world.ghost.acknowledged.len())
});
const REPLACED: Goal = ("an entry is acknowledged after a replacement", |world| {
    world.ghost.acknowledged.keys().any(|(ledger, _)| ledger.0 > 1)
});
const MOVED: Goal = ("an entry that was sent before is acknowledged after a replacement", |world| {
    let ends = &world.ghost.ends;
    world.left.appends == 0 && ends.values().any(|end| end.0 < 2) && ALL_ACKNOWLEDGED.1(world)
});
const SUCCEEDED: Goal = ("a later process has an entry acknowledged", |world| {
    world.processes.len() > 1 && world.ghost.acknowledged.keys().any(|(ledger, _)| ledger.0 > 1)
});
const TRIMMED: Goal = ("a node has trimmed what is uploaded, and more was acknowledged", |world| {
    let trimmed = world.nodes.iter().any(|node| node.disk.held().iter().any(|held| held.first.0 > 0));
    trimmed && world.ghost.acknowledged.keys().any(|(ledger, entry)| world.ghost.uploaded[ledger] <= *entry)
});

/// The writer and one replica may fail. The other one is like the first, so for one fault of a replica that is all.
const TWO: [bool; 3] = [true, true, false];
const ONLY_WRITER: [bool; 3] = [true, false, false];
const ONLY_REPLICA: [bool; 3] = [false, true, false];

/// The writer goes on in its belief while it is recovered.
const ZOMBIE: Budget = Budget { appends: 1, fences: 1, recoverers: 1, faulty: TWO, ..NOTHING };
/// The writer crashes at some point, and may start again as a replica.
const DEAD: Budget = Budget { appends: 1, crashes: 1, recoverers: 1, faulty: ONLY_WRITER, ..NOTHING };
/// The connection to one replica is lost.
const LOST: Budget = Budget { appends: 1, lost_connections: 1, ..NOTHING };

const fn scenario(name: &'static str, members: usize, left: Budget, goals: &'static [Goal]) -> Scenario {
    Scenario { name, members, left, goals }
}

/// Explored by every run of the tests.
const SCENARIOS: &[Scenario] = &[
    scenario("zombie", 3, ZOMBIE, &[RECOVERED_ACKNOWLEDGED, MORE_RECOVERED]),
    scenario("zombie, two recoverers", 3, Budget { recoverers: 2, ..ZOMBIE }, &[MORE_RECOVERED]),
    scenario("zombie, two members", 2, Budget { appends: 2, ..ZOMBIE }, &[MORE_RECOVERED]),
    scenario(
        "zombie and a torn tail",
        3,
        Budget { crashes: 1, torn: true, faulty: ONLY_REPLICA, ..ZOMBIE },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario("zombie and a disk lost", 3, Budget { disk_losses: 1, ..ZOMBIE }, &[MORE_RECOVERED]),
    scenario(
        "zombie and rot",
        3,
        Budget { crashes: 1, rot: 1, faulty: ONLY_REPLICA, ..ZOMBIE },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario("dead", 3, DEAD, &[RECOVERED_ACKNOWLEDGED, MORE_RECOVERED]),
    scenario("dead, two recoverers", 3, Budget { recoverers: 2, ..DEAD }, &[MORE_RECOVERED]),
    scenario("dead, two members", 2, Budget { appends: 2, ..DEAD }, &[MORE_RECOVERED]),
    scenario(
        "dead and a crash, torn tails",
        3,
        Budget { crashes: 2, torn: true, faulty: TWO, ..DEAD },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario(
        "power cut, two members",
        2,
        Budget { crashes: 2, torn: true, faulty: TWO, ..DEAD },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario("dead and a disk lost", 3, Budget { disk_losses: 1, faulty: TWO, ..DEAD }, &[MORE_RECOVERED]),
    scenario("replacement", 3, Budget { appends: 2, unsure: 1, ..LOST }, &[MOVED]),
    scenario("replacement, spare", 2, Budget { appends: 2, spares: 1, unreachable: 1, ..LOST }, &[MOVED]),
    scenario("replacement, dead", 3, Budget { lost_connections: 1, ..DEAD }, &[REPLACED, RECOVERED_ACKNOWLEDGED]),
    scenario(
        "replacement, zombie",
        3,
        Budget { lost_connections: 1, unsure: 1, ..ZOMBIE },
        &[REPLACED, RECOVERED_ACKNOWLEDGED],
    ),
    scenario("upload", 3, Budget { appends: 2, uploads: 1, ..NOTHING }, &[TRIMMED]),
    scenario("upload, zombie", 3, Budget { uploads: 1, ..ZOMBIE }, &[RECOVERED_ACKNOWLEDGED]),
    scenario("upload, dead, two members", 2, Budget { appends: 2, uploads: 1, ..DEAD }, &[TRIMMED]),
];

/// The larger ones, for a long run.
const LONG: &[Scenario] = &[
    scenario("zombie, two entries", 3, Budget { appends: 2, ..ZOMBIE }, &[RECOVERED_ACKNOWLEDGED, MORE_RECOVERED]),
    scenario(
        "zombie and a torn tail of any",
        3,
        Budget { crashes: 1, torn: true, ..ZOMBIE },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario("zombie and rot of any", 3, Budget { crashes: 1, rot: 1, ..ZOMBIE }, &[RECOVERED_ACKNOWLEDGED]),
    scenario(
        "zombie and an old copy",
        3,
        Budget { crashes: 1, old_copies: 1, faulty: ONLY_REPLICA, ..ZOMBIE },
        &[RECOVERED_ACKNOWLEDGED],
    ),
    scenario("dead, two entries", 3, Budget { appends: 2, ..DEAD }, &[RECOVERED_ACKNOWLEDGED, MORE_RECOVERED]),
    scenario("upload, dead", 3, Budget { appends: 2, uploads: 1, ..DEAD }, &[TRIMMED]),
    scenario("successor", 3, Budget { appends: 2, successors: 1, ..DEAD }, &[SUCCEEDED]),
];

/// A planted bug, the smallest bounds within which it shows, and how. Without the bug nothing shows there: each of these
/// bounds is within those of an exploration above.
fn planted() -> Vec<(Bug, Budget, &'static str)> {
    let zombie = Budget { faulty: ONLY_REPLICA, ..ZOMBIE };
    let beyond = "is beyond the end";
    vec![
        (Bug::AckBeforeQuorum, zombie.clone(), beyond),
        (Bug::SkipSync, Budget { crashes: 1, ..zombie.clone() }, "is nowhere"),
        (Bug::SealNotOneWay, zombie.clone(), beyond),
        (Bug::SealForgotten, Budget { crashes: 1, ..zombie.clone() }, beyond),
        (Bug::CutBelowWatermark, Budget { crashes: 1, ..zombie.clone() }, beyond),
        (Bug::SealQuorumTooSmall, zombie.clone(), beyond),
        (Bug::UncertainCounts, Budget { crashes: 1, rot: 1, ..zombie.clone() }, beyond),
        (Bug::IncarnationIgnored, Budget { disk_losses: 1, ..zombie.clone() }, beyond),
        (Bug::BootIgnored, Budget { crashes: 1, old_copies: 1, ..zombie.clone() }, beyond),
        (Bug::RecoveryDoesNotCopy, Budget { disk_losses: 1, faulty: ONLY_WRITER, ..ZOMBIE }, "is nowhere"),
        (Bug::CopyCounts, Budget { recoverers: 2, ..zombie.clone() }, beyond),
        (Bug::EndSetTwice, Budget { recoverers: 2, ..zombie }, "an end was set twice"),
        (Bug::TrimBeforeCommit, Budget { appends: 2, ..NOTHING }, "is nowhere"),
        (Bug::AckWhileClosing, LOST, beyond),
        (Bug::EntryReused, Budget { appends: 2, ..LOST }, "was acknowledged for two entries"),
    ]
}

fn run(scenario: &Scenario, plant: Plant, states_max: usize) -> Report {
    let begun = std::time::Instant::now();
    let report = explore(&World::new(scenario.members, scenario.left.clone(), plant), states_max, scenario.goals);
    println!(
        "{}: {} states, {} steps, {} deep, {:.1} s",
        scenario.name,
        report.states,
        report.steps,
        report.depth,
        begun.elapsed().as_secs_f32()
    );
    report
}

/// Explores all of it, and fails where a promise is broken, or where the exploration shows nothing.
fn hold(scenarios: &[Scenario], states_max: usize) {
    let mut states = 0;
    for scenario in scenarios {
        let report = run(scenario, Plant::default(), states_max);
        if let Some((what, history)) = report.violation {
            let history: Vec<String> = history.iter().map(|step| format!("  {step:?}")).collect();
            panic!("{}: {what}\n{}", scenario.name, history.join("\n"));
        }
        assert!(report.complete, "{}: more than {states_max} states", scenario.name);
        for (goal, count) in report.goals {
            assert!(count > 0, "{}: never reached: {goal}", scenario.name);
        }
        states += report.states;
    }
    println!("{} scenarios, {states} states", scenarios.len());
}

#[test]
fn every_promise_holds_in_every_state() {
    hold(SCENARIOS, 1_000_000);
}

#[test]
#[ignore = "some minutes: make test-long runs it"]
fn every_promise_holds_within_larger_bounds() {
    hold(LONG, 20_000_000);
}

#[test]
fn every_planted_bug_is_found() {
    for (bug, left, how) in planted() {
        let report = run(&scenario("planted", 3, left, &[]), Plant::of(bug), 1_000_000);
        let Some((what, history)) = report.violation else { panic!("{bug:?} was not found") };
        println!("  {bug:?} after {} steps: {what}", history.len());
        assert!(what.contains(how), "{bug:?} shows as {what:?}, not as {how:?}");
    }
}

/// From every state there is a way on: nothing is waited for that cannot come.
#[test]
fn every_history_can_finish() {
    let scenarios = [
        (Budget { appends: 2, ..NOTHING }, ALL_ACKNOWLEDGED),
        (LOST, ALL_ACKNOWLEDGED),
        (
            DEAD,
            ("everything is acknowledged, or the ledger has its end", |world| {
                ALL_ACKNOWLEDGED.1(world) || world.ghost.ends.contains_key(&FIRST)
            }),
        ),
    ];
    for (left, (name, goal)) in scenarios {
        let (states, lost) = stuck(&World::new(3, left, Plant::default()), goal);
        println!("{name}: {states} states");
        assert_eq!(lost, None, "{name}: no way on");
    }
}
