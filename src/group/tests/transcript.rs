//! Golden transcripts: scripts of requests and times with the records and replies that they must give.
//!
//! A line `> command argument…` is played; the lines under it are its effects. Requests are numbered, and `#3` answers
//! the third. Write the commands, run once with `CASEMATE_WRITE_TRANSCRIPTS=1`, and read what was written before
//! committing it. Besides requests: `options name=value…`, `wait MS`, `restart`, `marker PRODUCER commit|abort`,
//! `topic-deleted NAME`, `show`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::env::SeededEntropy;
use crate::group::tests::render::{self, Names};
use crate::group::tests::script::{Words, number, request};
use crate::group::tests::{AnyTopic, topic_id};
use crate::group::{Coordinator, Effects, Now, Options, Producer, Reply, Token, Write};

/// What is in the log: a record, or the end of a transaction.
enum Logged {
    Record(Write, Option<Producer>),
    Marker(i64, bool),
}

struct Player {
    coordinator: Coordinator,
    options: Options,
    log: Vec<Logged>,
    now_ms: u64,
    requests: u64,
    names: Names,
    out: String,
}

impl Player {
    fn new() -> Self {
        let options = Options::default();
        let mut player = Player {
            coordinator: Coordinator::new(options.clone(), Arc::new(SeededEntropy::new(1))),
            options,
            log: vec![],
            now_ms: 0,
            requests: 0,
            names: Names::default(),
            out: String::new(),
        };
        player.coordinator.loaded(player.now(), &AnyTopic);
        player
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms as i64, monotonic: Duration::from_millis(self.now_ms) }
    }

    fn take(&mut self, effects: Effects<Reply>, prefix: &str) {
        for line in render::effects(&effects, &mut self.names) {
            writeln!(self.out, "  {prefix}{line}").expect("a string takes any text");
        }
        let from = effects.transactional;
        self.log.extend(effects.records.into_iter().map(|write| Logged::Record(write, from)));
    }

    /// Lets time pass from one deadline to the next.
    fn wait(&mut self, until_ms: u64) {
        while let Some(at) = self.coordinator.next_deadline() {
            let at_ms = u64::try_from(at.as_millis()).expect("small").max(self.now_ms);
            if at_ms > until_ms {
                break;
            }
            self.now_ms = at_ms;
            let effects = self.coordinator.on_timer(self.now(), &AnyTopic);
            self.take(effects, &format!("at {at_ms}: "));
        }
        self.now_ms = until_ms;
    }

    fn restart(&mut self) {
        let entropy = Arc::new(SeededEntropy::new(self.now_ms));
        self.coordinator = Coordinator::new(self.options.clone(), entropy);
        for logged in &self.log {
            match logged {
                Logged::Record(write, from) => {
                    self.coordinator.replay(&write.key, write.value.as_deref(), *from).expect("a record can be read");
                }
                Logged::Marker(producer, commit) => self.coordinator.replay_marker(*producer, *commit),
            }
        }
        let effects = self.coordinator.loaded(self.now(), &AnyTopic);
        self.take(effects, "");
    }

    fn options(&mut self, words: &mut Words<'_>) {
        let options = &mut self.options;
        let set = |key: &str, to: &mut i32| words.key(key).into_iter().for_each(|value| *to = number(value));
        set("delay", &mut options.initial_rebalance_delay_ms);
        set("size", &mut options.max_size);
        let check = words.key("check").map(number);
        options.offsets_retention_check_interval_ms = check.unwrap_or(options.offsets_retention_check_interval_ms);
        options.offsets_retention_ms = words.key("retention").map_or(options.offsets_retention_ms, number);
        options.batch_bytes_max = words.key("batch").map_or(options.batch_bytes_max, number);
        options.offset_metadata_max_bytes = words.key("metadata").map_or(options.offset_metadata_max_bytes, number);
        self.coordinator.set_options(options.clone());
    }

    fn command(&mut self, line: &str) {
        let mut words = Words::new(line);
        let command = words.next();
        match command {
            "options" => self.options(&mut words),
            "wait" => self.wait(self.now_ms + number::<u64>(words.next())),
            "restart" => self.restart(),
            "marker" => {
                let (producer, commit) = (number(words.next()), words.next() == "commit");
                self.log.push(Logged::Marker(producer, commit));
                self.coordinator.replay_marker(producer, commit);
            }
            "topic-deleted" => {
                let name = words.next();
                let effects =
                    self.coordinator.topics_deleted(&[(name.to_owned(), topic_id(name))], self.now(), &AnyTopic);
                self.take(effects, "");
            }
            "show" => {
                for line in self.coordinator.offsets.dump() {
                    writeln!(self.out, "  {line}").expect("a string takes any text");
                }
            }
            _ => {
                let request = request(command, &mut words, &self.names).unwrap_or_else(|| panic!("{line}"));
                self.requests += 1;
                let effects = self.coordinator.on_request(Token(self.requests), request, self.now(), &AnyTopic);
                self.take(effects, "");
            }
        }
        self.coordinator.offsets.check();
    }
}

fn play(script: &str) -> String {
    let mut player = Player::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(player.out, "{line}").expect("a string takes any text");
            player.command(command);
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(player.out, "{line}").expect("a string takes any text");
        }
    }
    player.out
}

#[test]
fn transcript_of_joining() {
    super::golden("joining.txt", play);
}

#[test]
fn transcript_of_rebalances() {
    super::golden("rebalances.txt", play);
}

#[test]
fn transcript_of_static_members() {
    super::golden("static-members.txt", play);
}

#[test]
fn transcript_of_offsets() {
    super::golden("offsets.txt", play);
}

#[test]
fn transcript_of_transactions() {
    super::golden("transactions.txt", play);
}

#[test]
fn transcript_of_expiry_and_deletion() {
    super::golden("expiry.txt", play);
}

#[test]
fn transcript_of_refusals() {
    super::golden("refusals.txt", play);
}
