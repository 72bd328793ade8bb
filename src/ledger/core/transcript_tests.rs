//! Golden transcripts of the three roles: events, and the actions that each must give.
//!
//! A line `> event argument…` is played; the lines under it are its actions. Write the events, run once with
//! `CASEMATE_WRITE_TRANSCRIPTS=1`, and read what was written before committing it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId, WalIncarnation};
use crate::metadata;
use crate::wal::SealAnswer;

use super::{
    Held, Identity, Outcome, Payload, Plant, Recovery, RecoveryAction, RecoveryEvent, Registered, Replica,
    ReplicaAction, ReplicaEvent, Reply, Request, Writer, WriterAction, WriterEvent, WriterOptions, write_quorum,
};

impl Payload for u8 {
    fn bytes(&self) -> usize {
        10
    }
}

/// The words of an event: by position, or `key=value`.
struct Words<'a> {
    positional: std::vec::IntoIter<&'a str>,
    keyed: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (keyed, positional): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        let keyed = keyed.into_iter().filter_map(|word| word.split_once('=')).collect();
        Words { positional: positional.into_iter(), keyed }
    }

    fn word(&mut self) -> &'a str {
        self.positional.next().expect("a word is missing")
    }

    fn number<T: std::str::FromStr>(&mut self) -> T {
        number(self.word())
    }

    fn entry(&mut self) -> EntryId {
        EntryId(self.number())
    }

    fn key<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.keyed.get(key).map(|word| number(word))
    }

    fn ledger(&self) -> LedgerId {
        LedgerId(self.key("ledger").unwrap_or(1))
    }

    fn rest(&mut self) -> Vec<&'a str> {
        self.positional.by_ref().collect()
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

/// `2b`: node 2 with the WAL b.
fn replica(word: &str) -> metadata::Replica {
    let (node, wal) = word.split_at(word.len() - 1);
    metadata::Replica { node: NodeId(number(node)), incarnation: WalIncarnation([wal.as_bytes()[0]; 16]) }
}

fn replicas(words: &[&str]) -> Vec<metadata::Replica> {
    words.iter().map(|word| replica(word)).collect()
}

/// `2b` in its first boot, `2b.3` in its third.
fn identity(word: &str) -> Identity {
    let (who, boot) = word.split_once('.').unwrap_or((word, "1"));
    let replica = replica(who);
    Identity { node: replica.node, incarnation: replica.incarnation, boot: number(boot) }
}

/// The same; `!` behind it: not alive.
fn registered(word: &str) -> Registered {
    Registered { identity: identity(word.trim_end_matches('!')), alive: !word.ends_with('!') }
}

fn named(replica: &metadata::Replica) -> String {
    format!("{}{}", replica.node, char::from(replica.incarnation.0[0]))
}

fn named_all(replicas: &[metadata::Replica]) -> String {
    replicas.iter().map(named).collect::<Vec<_>>().join(" ")
}

fn asked(request: &Request<u8>) -> String {
    match request {
        Request::Append { ledger, entry, durable, payload } => {
            format!("append {ledger}:{entry} ={payload}, durable {durable}")
        }
        Request::Seal { ledger } => format!("seal {ledger}"),
        Request::Recover { ledger, entry, durable, uploaded, payload } => {
            format!("recover {ledger}:{entry} ={payload}, durable {durable}, uploaded {uploaded}")
        }
    }
}

fn reply(mut words: Words<'_>, kind: &str) -> Reply {
    let ledger = words.ledger();
    let durable = EntryId(words.key("durable").unwrap_or(0));
    match kind {
        "synced" => {
            let first = EntryId(words.key("first").unwrap_or(0));
            Reply::Position { ledger, first, synced: words.entry(), durable }
        }
        "copied" => {
            let first = EntryId(words.key("first").unwrap_or(0));
            Reply::Copied { ledger, first, synced: words.entry(), durable }
        }
        "expects" => Reply::OutOfSequence { ledger, expected: words.entry() },
        "sealed" => Reply::Sealed { ledger },
        "not-open" => Reply::NotOpen { ledger },
        "not-sealed" => Reply::NotSealed { ledger },
        "busy" => Reply::Busy { ledger },
        "unknown" => Reply::Unknown { ledger },
        "holds" => {
            let through = words.key("through").map(EntryId);
            Reply::SealAnswer { ledger, through, uncertain_from: words.key("uncertain").map(EntryId), durable }
        }
        other => panic!("{other} is no reply"),
    }
}

/// `> says 2b.1 synced 4`.
fn says(line: &str) -> (Identity, Reply) {
    let mut words = Words::new(line);
    let (_, from, kind) = (words.word(), identity(words.word()), words.word());
    (from, reply(words, kind))
}

/// What a script of one role plays.
trait Player {
    /// Carries an event out and renders its actions, one a line.
    fn play(&mut self, line: &str) -> Vec<String>;
}

#[derive(Default)]
struct WriterPlayer(Option<Writer<u8>>);

impl WriterPlayer {
    fn event(line: &str) -> WriterEvent {
        let mut words = Words::new(line);
        match words.word() {
            "says" => {
                let (from, reply) = says(line);
                WriterEvent::Answered { from, reply }
            }
            "lost" => WriterEvent::Lost { node: NodeId(words.number()) },
            "connected" => WriterEvent::Connected { node: NodeId(words.number()) },
            "up" => WriterEvent::NodeUp(replica(words.word())),
            "down" => WriterEvent::NodeDown(NodeId(words.number())),
            "tick" => WriterEvent::Tick { now_ms: words.number() },
            "opened" => {
                let ledger = LedgerId(words.number());
                let close = LedgerId(words.key("close").unwrap_or(1));
                let outcome = Outcome::Opened { ledger, replicas: replicas(&words.rest()) };
                WriterEvent::Decided { close, outcome }
            }
            word @ ("declined" | "not-proposed" | "outcome-unknown" | "fenced") => {
                let outcome = match word {
                    "declined" => Outcome::Declined,
                    "not-proposed" => Outcome::NotProposed,
                    "outcome-unknown" => Outcome::Unknown,
                    _ => Outcome::Fenced,
                };
                WriterEvent::Decided { close: LedgerId(words.key("close").unwrap_or(1)), outcome }
            }
            other => panic!("{other} is no event"),
        }
    }

    fn render(action: &WriterAction<u8>) -> String {
        match action {
            WriterAction::Send { to, request } => format!("{} <- {}", named(to), asked(request)),
            WriterAction::Durable { ledger, below } => format!("durable {ledger} below {below}"),
            WriterAction::Propose { close, end, replicas } => {
                format!("propose: close {close} at {end}, open on {}", named_all(replicas))
            }
            WriterAction::Moved { closed, end, opened } => format!("moved: {closed}:{end} is {opened}:0"),
            WriterAction::Fenced { reason } => format!("fenced: {reason}"),
            WriterAction::Backpressure(on) => format!("backpressure {on}"),
        }
    }
}

impl Player for WriterPlayer {
    fn play(&mut self, line: &str) -> Vec<String> {
        let mut words = Words::new(line);
        let actions = match words.word() {
            "new" => {
                let options = WriterOptions {
                    replicas: words.key("target").unwrap_or(3),
                    window_bytes: words.key("window").unwrap_or(1000),
                    lag_bytes: words.key("lag").unwrap_or(500),
                    lag_ms: 1000,
                    gone_ms: words.key("gone").unwrap_or(0),
                    retry_ms: words.key("retry").unwrap_or(0),
                };
                let set = replicas(&words.rest());
                self.0 = Some(Writer::new(options, set[0].node, LedgerId(1), &set, Plant::default()));
                Vec::new()
            }
            "append" => match self.0.as_mut().expect("new").append(words.number()) {
                Ok((ledger, entry, actions)) => {
                    let mut lines = vec![format!("is {ledger}:{entry}")];
                    lines.extend(actions.iter().map(Self::render));
                    return lines;
                }
                Err(error) => return vec![format!("refused: {error}")],
            },
            "leaving" => {
                let nodes = words.rest().into_iter().map(|word| NodeId(number(word))).collect();
                self.0.as_mut().expect("new").set_leaving(nodes);
                return Vec::new();
            }
            "copied" => {
                let (copies, writer) = (words.number(), self.0.as_ref().expect("new"));
                return vec![format!("below {}, {} in sync", writer.copied(copies), writer.in_sync())];
            }
            _ => self.0.as_mut().expect("new").step(Self::event(line)),
        };
        actions.iter().map(Self::render).collect()
    }
}

#[derive(Default)]
struct ReplicaPlayer(Option<Replica>);

impl ReplicaPlayer {
    fn event(line: &str) -> ReplicaEvent<u8> {
        let mut words = Words::new(line);
        let kind = words.word();
        let ledger = words.ledger();
        let at = |key: &str| EntryId(Words::new(line).key(key).unwrap_or(0));
        match kind {
            "append" => {
                let (entry, payload) = (words.entry(), words.number());
                ReplicaEvent::Asked(Request::Append { ledger, entry, durable: at("durable"), payload })
            }
            "seal" => ReplicaEvent::Asked(Request::Seal { ledger }),
            "recover" => {
                let (entry, payload) = (words.entry(), words.number());
                let (durable, uploaded) = (at("durable"), at("uploaded"));
                ReplicaEvent::Asked(Request::Recover { ledger, entry, durable, uploaded, payload })
            }
            "synced" => ReplicaEvent::Synced { ledger, next: words.entry() },
            "sealed" => ReplicaEvent::Sealed { ledger, answer: seal_answer(&words) },
            "opened" => ReplicaEvent::Opened { ledger },
            "uploaded" => ReplicaEvent::Uploaded { ledger, uploaded: words.entry() },
            other => panic!("{other} is no event"),
        }
    }

    fn render(action: &ReplicaAction<u8>) -> String {
        match action {
            ReplicaAction::Write { ledger, entry, payload } => format!("write {ledger}:{entry} ={payload}"),
            ReplicaAction::Seal { ledger } => format!("record the seal of {ledger}"),
            ReplicaAction::Trim { ledger, below } => format!("trim {ledger} below {below}"),
            ReplicaAction::Reply(reply) => format!("reply {reply:?}"),
            ReplicaAction::Announce(reply) => format!("announce {reply:?}"),
        }
    }
}

fn seal_answer(words: &Words<'_>) -> SealAnswer {
    SealAnswer { through: words.key("through").map(EntryId), uncertain_from: words.key("uncertain").map(EntryId) }
}

impl Player for ReplicaPlayer {
    fn play(&mut self, line: &str) -> Vec<String> {
        let mut words = Words::new(line);
        if words.word() == "start" {
            // `1:3..7` holds entries 3 to 6 of ledger 1; `!` behind it: sealed.
            let held = words.rest().into_iter().skip(1).map(|word| {
                let (ledger, range) = word.trim_end_matches('!').split_once(':').expect("ledger:first..next");
                let (first, next) = range.split_once("..").expect("first..next");
                let (first, next) = (EntryId(number(first)), EntryId(number(next)));
                let through = next.0.checked_sub(1).map(EntryId);
                let sealed = word.ends_with('!').then_some(SealAnswer { through, uncertain_from: None });
                Held { ledger: LedgerId(number(ledger)), first, next, sealed }
            });
            let who = identity(Words::new(line).rest()[1]);
            self.0 = Some(Replica::new(who, held.collect::<Vec<_>>(), Plant::default()));
            return Vec::new();
        }
        let actions = self.0.as_mut().expect("start").step(Self::event(line));
        actions.iter().map(Self::render).collect()
    }
}

#[derive(Default)]
struct RecoveryPlayer(Option<Recovery>);

impl RecoveryPlayer {
    fn event(line: &str) -> RecoveryEvent<u8> {
        let mut words = Words::new(line);
        match words.word() {
            "says" => {
                let (from, reply) = says(line);
                RecoveryEvent::Answered { from, reply }
            }
            "read" => {
                let (node, from) = (NodeId(words.number()), words.entry());
                RecoveryEvent::Read { node, from, payloads: words.rest().into_iter().map(number).collect() }
            }
            "read-failed" => RecoveryEvent::ReadFailed { node: NodeId(words.number()) },
            "lost" => RecoveryEvent::Lost { node: NodeId(words.number()) },
            "nodes" => RecoveryEvent::Nodes(words.rest().into_iter().map(registered).collect()),
            "end-set" => RecoveryEvent::EndSet { end: words.entry() },
            "confirmed" => RecoveryEvent::Confirmed(words.rest().into_iter().map(registered).collect()),
            "accept" => RecoveryEvent::UncertainAccepted,
            "tick" => RecoveryEvent::Tick,
            other => panic!("{other} is no event"),
        }
    }

    fn render(action: &RecoveryAction<u8>) -> String {
        match action {
            RecoveryAction::Send { to, request } => format!("{} <- {}", named(to), asked(request)),
            RecoveryAction::Confirm => "who is registered?".to_owned(),
            RecoveryAction::Read { node, ledger, from, below } => format!("read {ledger}:{from}..{below} from {node}"),
            RecoveryAction::Propose { ledger, end, holders } => {
                let holders = holders.iter().map(|(replica, from)| format!("{} from {from}", named(replica)));
                format!("propose: {ledger} ends at {end}, held by {}", holders.collect::<Vec<_>>().join(", "))
            }
            RecoveryAction::Done { ledger, end } => format!("done: {ledger} ends at {end}"),
        }
    }
}

impl Player for RecoveryPlayer {
    fn play(&mut self, line: &str) -> Vec<String> {
        let mut words = Words::new(line);
        let actions = if words.word() == "new" {
            let nodes = words.keyed.get("nodes").map_or(vec![], |list| list.split(',').map(registered).collect());
            let (uploaded, set) = (EntryId(words.key("uploaded").unwrap_or(0)), replicas(&words.rest()));
            let recorded = metadata::Ledger {
                node: set[0].node,
                epoch: BrokerEpoch(1),
                write_quorum: write_quorum(set.len()) as u8,
                replicas: set,
                end: None,
                uploaded,
                uploader: None,
                holders: Vec::new(),
            };
            let (recovery, actions) = Recovery::new(LedgerId(1), &recorded, nodes, Plant::default());
            self.0 = Some(recovery);
            actions
        } else {
            self.0.as_mut().expect("new").step(Self::event(line))
        };
        actions.iter().map(Self::render).collect()
    }
}

fn check(file: &str, mut player: impl Player) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/ledger/core/transcripts").join(file);
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut played = String::new();
    for line in script.lines() {
        let Some(event) = line.strip_prefix("> ") else {
            if line.is_empty() || line.starts_with('#') {
                writeln!(played, "{line}").expect("a string takes any text");
            }
            continue;
        };
        writeln!(played, "{line}").expect("a string takes any text");
        for action in player.play(event) {
            writeln!(played, "  {action}").expect("a string takes any text");
        }
    }
    if std::env::var_os("CASEMATE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &played).expect("the transcript can be written");
        return;
    }
    for (number, (is, was)) in played.lines().zip(script.lines()).enumerate() {
        assert_eq!(is, was, "{file}, line {}", number + 1);
    }
    assert_eq!(played, script, "{file}");
}

#[test]
fn transcript_of_the_writer() {
    check("writer.txt", WriterPlayer::default());
}

#[test]
fn transcript_of_a_replica() {
    check("replica.txt", ReplicaPlayer::default());
}

#[test]
fn transcript_of_recoveries() {
    check("recovery.txt", RecoveryPlayer::default());
}
