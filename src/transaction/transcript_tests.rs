//! Golden transcripts: scripts of requests, news of markers and time, with all that the machine wants done for them.
//!
//! A line `> command argument…` is played; the lines under it are its effects. Write the commands, run once with
//! `CASEMATE_WRITE_TRANSCRIPTS=1`, and read what was written before committing it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::state::Transaction;
use super::*;

/// The words after a command: by position, or `key=value`.
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

    fn next(&mut self) -> &'a str {
        self.positional.next().expect("a word is missing")
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.keyed.get(key).map_or(default, |word| number(word))
    }

    fn list(&self, key: &str) -> Vec<&'a str> {
        self.keyed.get(key).map_or(vec![], |word| word.split(',').collect())
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

/// `1000/3`: producer id 1000, epoch 3.
fn producer(word: &str) -> Producer {
    let (id, epoch) = word.split_once('/').expect("id/epoch");
    Producer { id: number(id), epoch: number(epoch) }
}

/// `orders-0,orders-1`; `-` for none.
fn partitions(word: &str) -> Vec<TopicPartition> {
    let named = word.split(',').filter_map(|word| word.rsplit_once('-')).filter(|(topic, _)| !topic.is_empty());
    named.map(|(topic, index)| (topic.into(), number(index))).collect()
}

fn names(partitions: impl IntoIterator<Item = TopicPartition>) -> String {
    let names: Vec<String> = partitions.into_iter().map(|(topic, index)| format!("{topic}-{index}")).collect();
    format!("[{}]", names.join(" "))
}

/// `10s`, `100ms`, `2h`, `7d` in milliseconds.
fn span(word: &str) -> i64 {
    let digits = word.trim_end_matches(char::is_alphabetic);
    let unit = match &word[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("{other} is no unit"),
    };
    number::<i64>(digits) * unit
}

impl std::fmt::Display for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.id, self.epoch)
    }
}

struct Player {
    options: Options,
    machine: Coordinator,
    log: Vec<Write>,
    /// Wall clock and monotonic clock alike.
    now_ms: i64,
    next_id: Option<i64>,
    token: u64,
    /// The version that each request came in, for the code of its refusal.
    versions: BTreeMap<u64, i16>,
    orders: BTreeMap<Arc<str>, Markers>,
    out: String,
}

impl Player {
    fn new() -> Self {
        let options = Options::default();
        let mut player = Player {
            machine: Coordinator::new(options.clone(), 7),
            options,
            log: vec![],
            now_ms: 0,
            next_id: Some(1000),
            token: 0,
            versions: BTreeMap::new(),
            orders: BTreeMap::new(),
            out: String::new(),
        };
        player.machine.loaded(player.now());
        player
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms, monotonic: Duration::from_millis(self.now_ms as u64) }
    }

    fn line(&mut self, text: impl std::fmt::Display) {
        writeln!(self.out, "  {text}").expect("a string takes any text");
    }

    fn play(&mut self, line: &str) {
        let mut w = Words::new(line);
        match w.next() {
            "markers" => self.markers(&mut w),
            "wait" => self.wait(span(w.next())),
            "cancel" => self.machine.cancel(Token(number(w.next()))),
            "producer-ids" => self.next_id = w.next().parse().ok(),
            "options" => self.set_options(&w),
            "given" => self.given(&mut w),
            "reload" => self.reload(),
            "deadline" => self.line(format!("{:?}", self.machine.next_deadline())),
            name => {
                let (request, version) = request(name, &mut w);
                self.token += 1;
                self.versions.insert(self.token, w.number("v", version));
                let (token, now, next_id) = (Token(self.token), self.now(), &mut self.next_id);
                let effects = self.machine.on_request(token, request, now, &mut || take_id(next_id));
                self.show(effects);
            }
        }
    }

    fn set_options(&mut self, w: &Words<'_>) {
        let level = w.number("version", self.options.version.level());
        self.options.version = TransactionVersion::from_level(level).expect("a version");
        self.options.max_timeout_ms = w.number("max-timeout", self.options.max_timeout_ms);
        self.machine.set_options(self.options.clone());
    }

    /// A record that another coordinator has left in the log.
    fn given(&mut self, w: &mut Words<'_>) {
        let key = record::encode_key(w.next());
        let state = State::from_name(w.next()).expect("a state");
        let transaction = Transaction {
            producer: producer(w.next()),
            previous_producer_id: w.keyed.get("previous").map(|word| number(word)),
            next_producer_id: w.keyed.get("next").map(|word| number(word)),
            last_epoch: None,
            timeout_ms: w.number("timeout", 60_000),
            state,
            partitions: w.list("partitions").into_iter().flat_map(partitions).collect(),
            start_ms: w.number("start", -1),
            update_ms: w.number("update", self.now_ms),
            client_version: TransactionVersion::from_level(w.number("client", 2)).expect("a version"),
        };
        let value = Some(record::encode_value(&transaction, TransactionVersion::V2));
        self.log.push(Write { key, value });
        self.reload();
    }

    fn reload(&mut self) {
        self.machine = Coordinator::new(self.options.clone(), 8);
        for write in &self.log {
            self.machine.replay(&write.key, write.value.as_deref()).expect("its own record");
        }
        self.orders.clear();
        let effects = self.machine.loaded(self.now());
        self.show(effects);
    }

    /// `markers ID orders-0,orders-1`, or `all` of the newest order; `order=stale` names another one.
    fn markers(&mut self, w: &mut Words<'_>) {
        let (id, which) = (w.next(), w.next());
        let (order, all) = self.orders.get(id).map_or((0, vec![]), |m| (m.order, m.partitions.clone()));
        let order = if w.keyed.contains_key("order") { order.wrapping_sub(1) } else { order };
        let written = if which == "all" { all } else { partitions(which) };
        let effects = self.machine.markers_written(id, order, &written, self.now());
        self.show(effects);
    }

    /// Lets time pass as a host does: the machine is called at each deadline.
    fn wait(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        let mut calls = 0;
        while let Some(at) = self.machine.next_deadline().map(|at| at.as_millis() as i64).filter(|at| *at <= end) {
            self.now_ms = self.now_ms.max(at);
            let (now, next_id) = (self.now(), &mut self.next_id);
            let effects = self.machine.on_timer(now, &mut || take_id(next_id));
            if effects != Effects::default() {
                self.line(format!("at {} ms", self.now_ms));
            }
            self.show(effects);
            calls += 1;
            assert!(calls < 1000, "the machine is called again and again at {} ms", self.now_ms);
        }
        self.now_ms = end;
    }

    fn show(&mut self, effects: Effects) {
        for write in &effects.records {
            let id = record::decode_key(&write.key).expect("its own key");
            let value = write.value.as_ref().map(|v| record::decode_value(v).expect("its own value"));
            self.line(format!("log {id}: {}", value.map_or("tombstone".into(), |t| shown(&t))));
        }
        self.log.extend(effects.records);
        for (token, reply) in effects.replies {
            let text = self.answer(token, reply);
            self.line(format!("#{} {text}", token.0));
        }
        for m in effects.markers {
            let what = if m.commit { "commit" } else { "abort" };
            let (id, epoch, version) = (&m.transactional_id, m.coordinator_epoch, m.version.level());
            let partitions = names(m.partitions.clone());
            self.line(format!("markers {id}: {what} {} by {epoch} v{version} {partitions}", m.producer));
            self.orders.insert(Arc::clone(&m.transactional_id), m);
        }
    }

    fn answer(&self, token: Token, reply: Reply) -> String {
        let version = self.versions[&token.0];
        let refusal = |error: Error, code: fn(Error, i16) -> i16| format!("{}: {error}", code(error, version));
        match reply {
            Reply::InitProducerId(Ok(producer)) => producer.to_string(),
            Reply::InitProducerId(Err(e)) => refusal(e, Error::init_producer_id),
            Reply::AddPartitions(Ok(())) | Reply::AddOffsets(Ok(())) | Reply::EndTxn(Ok(None)) => "ok".into(),
            Reply::AddPartitions(Err(e)) | Reply::VerifyPartitions(Err(e)) => refusal(e, Error::add_partitions_to_txn),
            Reply::VerifyPartitions(Ok(list)) => {
                let code = |outcome: Result<(), Error>| outcome.err().map_or(0, |e| e.add_partitions_to_txn(version));
                let one = |((topic, index), outcome)| format!("{topic}-{index}={}", code(outcome));
                list.into_iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Reply::AddOffsets(Err(e)) => refusal(e, Error::add_offsets_to_txn),
            Reply::EndTxn(Ok(Some(producer))) => producer.to_string(),
            Reply::EndTxn(Err(e)) => refusal(e, Error::end_txn),
            Reply::DescribeTransaction(Ok(d)) => {
                let (state, partitions) = (d.state.name(), names(d.partitions.iter()));
                format!("{state} {} timeout={} start={} {partitions}", d.producer, d.timeout_ms, d.start_ms)
            }
            Reply::DescribeTransaction(Err(e)) => refusal(e, |e, _| e.code()),
            Reply::ListTransactions(listing) => {
                let one = |l: Listed| format!("{}={}/{}", l.transactional_id, l.producer_id, l.state.name());
                let listed: Vec<String> = listing.transactions.into_iter().map(one).collect();
                format!("[{}], unknown {:?}", listed.join(" "), listing.unknown_states)
            }
        }
    }
}

fn take_id(next_id: &mut Option<i64>) -> Option<i64> {
    let id = (*next_id)?;
    *next_id = Some(id + 1);
    Some(id)
}

/// A request, and the version that it comes in unless the script says otherwise.
fn request(name: &str, w: &mut Words<'_>) -> (Request, i16) {
    if name == "list" {
        let prefix = w.keyed.get("prefix").map(|p| (*p).to_owned());
        let filter = Filter {
            producer_ids: w.list("producers").into_iter().map(number).collect(),
            states: w.list("states").into_iter().map(str::to_owned).collect(),
            duration_ms: w.number("duration", -1),
            pattern: prefix.map(|p| Pattern(Arc::new(move |id: &str| id.starts_with(&p)))),
        };
        return (Request::ListTransactions(filter), 2);
    }
    let transactional_id: String = w.next().into();
    match name {
        "init" => {
            let expected = w.keyed.get("expected").map(|word| producer(word));
            (Request::InitProducerId { transactional_id, timeout_ms: w.number("timeout", 60_000), expected }, 5)
        }
        "add" => {
            let (producer, partitions) = (producer(w.next()), partitions(w.next()));
            let version = TransactionVersion::of_add_partitions_to_txn(w.number("v", 4));
            let wait = Duration::from_millis(w.number("wait", 0));
            (Request::AddPartitions { transactional_id, producer, partitions, version, wait }, 4)
        }
        "verify" => {
            let (producer, partitions) = (producer(w.next()), partitions(w.next()));
            (Request::VerifyPartitions { transactional_id, producer, partitions }, 5)
        }
        "add-offsets" => {
            let (producer, partition) = (producer(w.next()), ("__consumer_offsets".into(), number(w.next())));
            (Request::AddOffsets { transactional_id, producer, partition }, 4)
        }
        "commit" | "abort" => {
            let version = TransactionVersion::of_end_txn(w.number("v", 5));
            (Request::EndTxn { transactional_id, producer: producer(w.next()), commit: name == "commit", version }, 5)
        }
        "describe" => (Request::DescribeTransaction { transactional_id }, 0),
        other => panic!("{other} is no command"),
    }
}

fn shown(t: &Transaction) -> String {
    let id = |id: Option<i64>| id.map_or("none".to_owned(), |id| id.to_string());
    let (previous, next) = (id(t.previous_producer_id), id(t.next_producer_id));
    let next = if next == "none" { String::new() } else { format!(" next={next}") };
    format!(
        "{} {} previous={previous}{next} timeout={} start={} update={} v{} {}",
        t.state.name(),
        t.producer,
        t.timeout_ms,
        t.start_ms,
        t.update_ms,
        t.client_version.level(),
        names(t.partitions.iter())
    )
}

fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transaction").join(file);
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut player = Player::new();
    for line in script.lines() {
        let command = line.strip_prefix("> ");
        if command.is_some() || line.is_empty() || line.starts_with('#') {
            writeln!(player.out, "{line}").expect("a string takes any text");
        }
        if let Some(command) = command {
            player.play(command);
        }
    }
    if std::env::var_os("CASEMATE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &player.out).expect("the transcript can be written");
        return;
    }
    for (number, (is, was)) in player.out.lines().zip(script.lines()).enumerate() {
        assert_eq!(is, was, "{file}, line {}", number + 1);
    }
    assert_eq!(player.out, script, "{file}");
}

#[test]
fn transcript_of_transactions_in_version_2() {
    check("version-2.txt");
}

#[test]
fn transcript_of_transactions_before_version_2() {
    check("version-1.txt");
}

#[test]
fn transcript_of_producers_that_start_and_are_fenced() {
    check("producers.txt");
}

#[test]
fn transcript_of_epochs_that_run_out() {
    check("epochs.txt");
}

#[test]
fn transcript_of_recovery() {
    check("recovery.txt");
}

#[test]
fn transcript_of_timers() {
    check("timers.txt");
}

#[test]
fn transcript_of_lists() {
    check("lists.txt");
}
