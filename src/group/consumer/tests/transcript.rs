//! Golden transcripts: lines that begin with `>` are what happens, the others what comes of it.
//!
//! Set CASEMATE_WRITE_TRANSCRIPTS to write them anew, and read what changed.

use std::path::PathBuf;

use crate::group::consumer::tests::render;
use crate::group::consumer::tests::script::Line;
use crate::group::consumer::tests::world::World;
use crate::group::{Effects, MigrationPolicy, Options, Reply};

fn options(line: &Line<'_>, mut options: Options) -> Options {
    let migration = match line.text("migration").as_deref() {
        Some("disabled") => MigrationPolicy::Disabled,
        Some("upgrade") => MigrationPolicy::Upgrade,
        Some("downgrade") => MigrationPolicy::Downgrade,
        Some("bidirectional") => MigrationPolicy::Bidirectional,
        _ => options.consumer_migration,
    };
    options.consumer_migration = migration;
    for (key, to) in [
        ("interval", &mut options.consumer_assignment_interval_ms),
        ("max-size", &mut options.consumer_max_size),
        ("classic-max-size", &mut options.max_size),
        ("delay", &mut options.initial_rebalance_delay_ms),
        ("session", &mut options.consumer_session_timeout_ms),
    ] {
        *to = line.number(key).unwrap_or(*to);
    }
    if let Some(timeout_ms) = line.number("session-of-g") {
        options.groups.entry("g".into()).or_default().consumer_session_timeout_ms = Some(timeout_ms);
    }
    options
}

/// Ids that the coordinator made, by the letters that stand for them.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn learn(&mut self, effects: &Effects<Reply>) {
        for (_, reply) in &effects.replies {
            let id = match reply {
                Reply::JoinGroup(reply) => reply.member.clone(),
                Reply::ConsumerGroupHeartbeat(reply) => reply.member.clone().unwrap_or_default(),
                _ => continue,
            };
            if id.len() >= 22 && !self.0.contains(&id) {
                self.0.push(id);
            }
        }
    }

    fn letter(at: usize) -> String {
        char::from(b'A' + u8::try_from(at % 26).expect("below 26")).to_string()
    }

    fn shorten(&self, line: &str) -> String {
        self.0.iter().enumerate().fold(line.to_owned(), |line, (at, id)| line.replace(id, &Self::letter(at)))
    }

    fn lengthen(&self, line: &str) -> String {
        let marked = |at| format!("@{}", Self::letter(at));
        self.0.iter().enumerate().fold(line.to_owned(), |line, (at, id)| line.replace(&marked(at), id))
    }
}

fn play(text: &str) -> String {
    let mut world = World::new(Options { initial_rebalance_delay_ms: 0, ..Options::default() }, 1);
    let (mut out, mut names) = (String::new(), Names::default());
    for text in text.lines().filter(|line| line.starts_with(['>', '#']) || line.is_empty()) {
        out += &format!("{text}\n");
        let Some(command) = text.strip_prefix("> ") else { continue };
        let command = names.lengthen(command);
        let line = Line::parse(&command);
        let mut lines = vec![];
        match line.word(0) {
            "topic" => world.topics.set(line.word(1), line.word(2).parse().expect("partitions")),
            "drop" => world.topics.remove(line.word(1)),
            "options" => world.set_options(options(&line, world.options.clone())),
            "restart" => {
                world.check_replay();
                world.restart();
            }
            "wait" => {
                for effects in world.wait(line.word(1).parse().expect("milliseconds")) {
                    names.learn(&effects);
                    lines.extend(render::effects(&effects, &world.topics));
                }
            }
            _ => {
                let request = line.request(&world.topics).unwrap_or_else(|| panic!("unknown: {command}"));
                let effects = world.send(request);
                names.learn(&effects);
                lines.extend(render::effects(&effects, &world.topics));
            }
        }
        lines.iter().for_each(|line| out += &format!("{}\n", names.shorten(line)));
    }
    world.check_replay();
    out
}

fn golden(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/group").join(name);
    let was = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let is = play(&was);
    if std::env::var_os("CASEMATE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &is).expect("the transcript can be written");
        return;
    }
    for (number, (is, was)) in is.lines().zip(was.lines()).enumerate() {
        assert_eq!(is, was, "{name}, line {}", number + 1);
    }
    assert_eq!(is, was, "{name}");
}

#[test]
fn joining_and_reconciling() {
    golden("consumer-joining.txt");
}

#[test]
fn refusals() {
    golden("consumer-refusals.txt");
}

#[test]
fn static_members() {
    golden("consumer-static-members.txt");
}

#[test]
fn subscriptions_by_expression() {
    golden("consumer-regex.txt");
}

#[test]
fn changes_of_topics() {
    golden("consumer-topics.txt");
}

#[test]
fn timeouts() {
    golden("consumer-timeouts.txt");
}

#[test]
fn commits() {
    golden("consumer-commits.txt");
}

#[test]
fn migration() {
    golden("consumer-migration.txt");
}
