//! Requests that make no sense: nothing panics, what is refused changes nothing, and what was written is what is.

use std::sync::Arc;

use bytes::Bytes;

use crate::env::SeededEntropy;
use crate::group::consumer::tests::script::Line;
use crate::group::consumer::tests::world::{World, dump};
use crate::group::records::Record;
use crate::group::{Coordinator, GroupError, GroupOverrides, MigrationPolicy, Options, Reply};

/// One of some words.
fn pick<'a>(dice: &SeededEntropy, of: &[&'a str]) -> &'a str {
    of[dice.below(of.len() as u64) as usize]
}

fn line(dice: &SeededEntropy) -> String {
    let group = pick(dice, &["g", "g", "g", "h", "-"]);
    let member = pick(dice, &["m1", "m2", "m3", "m4", "-"]);
    let epoch = pick(dice, &["0", "0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "-1", "-2", "-3", "2147483647"]);
    let mut line = match dice.below(12) {
        0..=5 => format!("beat {group} {member} {epoch}"),
        6 | 7 => format!("join {group} {member}"),
        8 => format!("sync {group} {member} {epoch}"),
        9 => format!("heartbeat {group} {member} {epoch}"),
        10 => format!("leave {group} {member} {}/{}", pick(dice, &["m1", "-"]), pick(dice, &["i", "j"])),
        _ => match dice.below(5) {
            0 => format!("commit {group} {member} {epoch} {}", pick(dice, &["t-0", "u-1", "gone-0"])),
            1 => format!("fetch {group} {member} {epoch}"),
            2 => format!("describe {group}"),
            3 => format!("describe-classic {group}"),
            _ => format!("delete {group}"),
        },
    };
    let add = |line: &mut String, one_in: u64, words: &[&str]| {
        if dice.one_in(one_in) {
            *line += " ";
            *line += pick(dice, words);
        }
    };
    add(&mut line, 2, &["topics=t", "topics=t,u", "topics=u,v,t,t", "topics=-", "topics=gone"]);
    add(&mut line, 5, &["regex=t", "regex=[tuv]", "regex=.*", "regex=-", "regex=[", "regex=(?i)T"]);
    add(&mut line, 4, &["instance=i", "instance=j", "instance=-"]);
    add(&mut line, 2, &["owned=-", "owned=t:0+1+2+3", "owned=t:0", "owned=u:0+1,t:9", "owned=none", "owned=gone:0"]);
    add(&mut line, 6, &["assignor=range", "assignor=uniform", "assignor=custom"]);
    add(&mut line, 4, &["timeout=0", "timeout=-7", "timeout=2000", "timeout=2147483647"]);
    add(&mut line, 4, &["version=0", "version=3", "version=9"]);
    add(&mut line, 6, &["session=6000", "session=1800000", "session=5"]);
    add(&mut line, 6, &["protocols=range", "protocols=range,sticky", "protocols=sticky,sticky", "type=connect"]);
    add(&mut line, 12, &["metadata=x", "metadata=-", "rack=r"]);
    line
}

fn some_options(dice: &SeededEntropy) -> Options {
    let policies = [
        MigrationPolicy::Bidirectional,
        MigrationPolicy::Bidirectional,
        MigrationPolicy::Upgrade,
        MigrationPolicy::Downgrade,
        MigrationPolicy::Disabled,
    ];
    let of_g = GroupOverrides { consumer_session_timeout_ms: Some(8_000), ..GroupOverrides::default() };
    Options {
        initial_rebalance_delay_ms: 0,
        consumer_session_timeout_ms: 10_000,
        consumer_assignment_interval_ms: [0, 1_000][dice.below(2) as usize],
        consumer_max_size: [3, 100][dice.below(2) as usize],
        max_size: [2, 100][dice.below(2) as usize],
        consumer_migration: policies[dice.below(5) as usize],
        batch_bytes_max: [1 << 20, 600][usize::from(dice.one_in(8))],
        consumer_assignors: [vec!["uniform", "range"], vec!["range"], vec!["custom"]][dice.below(3) as usize]
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        groups: if dice.one_in(2) { [("g".to_owned(), of_g)].into() } else { Default::default() },
        ..Options::default()
    }
}

fn is_refused(reply: &Reply) -> bool {
    match reply {
        Reply::ConsumerGroupHeartbeat(reply) => reply.error.is_some(),
        // Who is told its member id is expected in the group.
        Reply::JoinGroup(reply) => reply.error.is_some_and(|error| error != GroupError::MemberIdRequired),
        Reply::SyncGroup(reply) => reply.error.is_some(),
        _ => false,
    }
}

fn run(seed: u64) {
    let dice = SeededEntropy::new(seed);
    let mut world = World::new(some_options(&dice), seed);
    world.topics.set("t", 4);
    for step in 0..400 {
        match dice.below(16) {
            0 => world.topics.set(pick(&dice, &["t", "u", "v"]), 1 + dice.below(6) as i32),
            1 if dice.one_in(3) => world.topics.remove(pick(&dice, &["t", "u", "v"])),
            2 | 3 => _ = world.wait(dice.below(4_000)),
            4 if dice.one_in(6) => world.set_options(some_options(&dice)),
            5 if dice.one_in(6) => world.restart(),
            _ => {
                let text = line(&dice);
                let before = dump(&world.coordinator);
                let request = Line::parse(&text).request(&world.topics).expect("a request");
                let effects = world.send(request);
                if effects.replies.len() == 1 && effects.replies.iter().all(|(_, reply)| is_refused(reply)) {
                    assert_eq!(dump(&world.coordinator), before, "{text} was refused and changed something");
                }
            }
        }
        if step % 10 == 0 {
            world.check_replay();
        }
    }
    world.check_replay();
}

#[test]
fn random_requests_change_nothing_but_what_is_written() {
    for seed in 0..150 {
        assert!(std::panic::catch_unwind(|| run(seed)).is_ok(), "seed {seed}");
    }
}

/// Records of a stranger, or of a log with pieces missing: loaded without a panic, and served.
#[test]
fn any_sequence_of_records_is_loaded() {
    for seed in 0..150 {
        let dice = SeededEntropy::new(seed);
        let mut source = World::new(Options { consumer_assignment_interval_ms: 0, ..Options::default() }, seed);
        source.topics.set("t", 4);
        let mut writes = vec![];
        for _ in 0..60 {
            if let Some(request) = Line::parse(&line(&dice)).request(&source.topics) {
                writes.extend(source.send(request).records);
            }
            source.wait(dice.below(3_000));
        }
        let mut coordinator = Coordinator::new(Options::default(), Arc::new(SeededEntropy::new(seed)));
        for _ in 0..writes.len() * 2 {
            let write = &writes[dice.below(writes.len() as u64) as usize];
            let mut value = write.value.as_ref().map(|value| value.to_vec());
            if dice.one_in(4)
                && let Some(value) = value.as_mut().filter(|value| !value.is_empty())
            {
                let at = dice.below(value.len() as u64) as usize;
                value[at] = dice.next() as u8;
            }
            let _ = coordinator.replay(&write.key, value.as_deref(), None);
        }
        let mut world = World::new(Options::default(), seed);
        world.topics.set("t", 4);
        world.adopt(coordinator);
        for _ in 0..60 {
            if let Some(request) = Line::parse(&line(&dice)).request(&world.topics) {
                world.send(request);
            }
            world.wait(dice.below(3_000));
        }
    }
}

#[test]
fn a_log_from_before_kafka_4_1_is_cleaned_up() {
    let mut world = World::new(Options::default(), 1);
    world.topics.set("t", 2);
    let old = Record::ConsumerPartitions { group: "g".into(), value: Some(Default::default()) };
    let write = old.encode();
    let value = Bytes::from_static(&[0, 0, 1, 0]);
    let key = write.map_or_else(
        || Record::ConsumerPartitions { group: "g".into(), value: None }.encode().expect("a tombstone").key,
        |write| write.key,
    );
    world.coordinator.replay(&key, Some(&value), None).expect("an old record");
    let request = Line::parse("beat g m1 0 topics=t").request(&world.topics).expect("a request");
    let effects = world.send(request);
    assert!(effects.records.iter().any(|write| write.key == key && write.value.is_none()), "{effects:?}");
}
