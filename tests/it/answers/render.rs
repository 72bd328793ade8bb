//! An answer as one line that two brokers can be compared by: every field by its name, without what differs from run to
//! run (ids, times, addresses) and without sentences for people.
//!
//! Reads the text that `Debug` makes of the library's messages, so that no field of any API can be forgotten here.

use kafka_protocol::ResponseError;
use regex::Regex;
use std::fmt::Debug;
use std::sync::LazyLock;

/// Fields that say nothing about the request: how long to wait, sentences, what a broker can do, and tagged fields that
/// the library skips.
const LEFT_OUT: [&str; 8] = [
    "throttle_time_ms",
    "error_message",
    "batch_index_error_message",
    "unknown_tagged_fields",
    "documentation",
    "api_keys",
    "supported_features",
    "finalized_features",
];
/// Fields whose value is of one broker or one moment, where it is not negative.
const OF_THE_BROKER: [&str; 28] = [
    "node_id",
    "leader_id",
    "controller_id",
    "broker_id",
    "coordinator",
    "port",
    "leader_epoch",
    "transaction_start_time_ms",
    "log_append_time_ms",
    "timestamp",
    "last_timestamp",
    "producer_id",
    "max_timestamp",
    "session_id",
    "broker_epoch",
    "finalized_features_epoch",
    "coordinator_epoch",
    "current_txn_start_offset",
    "base_offset",
    "replica_nodes",
    "isr_nodes",
    "offline_replicas",
    "eligible_leader_replicas",
    "last_known_elr",
    "subscription_id",
    "start_offset",
    "total_bytes",
    "usable_bytes",
];
/// What a field holds that says nothing.
const NOTHING: [&str; 4] =
    ["topic_id=no-id", "preferred_read_replica=-1", "topic_config_error_code=0", "num_partitions=-1"];
/// A longer list is told by its length.
const ELEMENTS_MAX: usize = 24;

/// What `Debug` writes, as a tree.
#[derive(Debug, PartialEq)]
enum Value {
    Word(String),
    Text(String),
    List(Vec<Value>),
    Fields(Vec<(String, Value)>),
    /// `Some`, or a type around one value.
    Around(String, Box<Value>),
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', ',']);
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn word(&mut self) -> &'a str {
        self.skip();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_-.+".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The text up to the closing quote, its escapes as they are.
    fn quoted(&mut self) -> String {
        let mut escaped = false;
        let closes = |c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        };
        let end = self.rest.find(closes).unwrap_or(self.rest.len());
        let text = self.rest[..end].to_string();
        self.rest = self.rest.get(end + 1..).unwrap_or("");
        text
    }

    fn list(&mut self, end: &str) -> Vec<Value> {
        let mut values = vec![];
        while !self.take(end) && !self.rest.is_empty() {
            values.push(self.value());
        }
        values
    }

    fn value(&mut self) -> Value {
        if self.take("\"") || self.take("b\"") {
            return Value::Text(self.quoted());
        }
        if self.take("[") {
            return Value::List(self.list("]"));
        }
        if self.take("{") {
            // A map; only tagged fields are one, and those are left out.
            while !self.take("}") && !self.rest.is_empty() {
                self.value();
                self.take(":");
            }
            return Value::List(vec![]);
        }
        let word = self.word().to_string();
        if self.take("(") {
            let mut values = self.list(")");
            assert_eq!(values.len(), 1, "{word} is around one value");
            return Value::Around(word, Box::new(values.remove(0)));
        }
        if self.take("{") {
            let mut fields = vec![];
            while !self.take("}") && !self.rest.is_empty() {
                let name = self.word().to_string();
                assert!(self.take(":"), "a field has a value: {}", self.rest);
                fields.push((name, self.value()));
            }
            return Value::Fields(fields);
        }
        assert!(!word.is_empty(), "a value: {}", self.rest);
        Value::Word(word)
    }
}

/// An error's number with its name.
fn error(code: &str) -> String {
    match code.parse::<i16>().ok().and_then(ResponseError::try_from_code) {
        Some(name) => format!("{code} {name:?}"),
        None => code.to_string(),
    }
}

/// A value for its field; nothing for one that is left out. What is empty is shown only where it could be null.
fn show(field: &str, value: &Value, nullable: bool) -> Option<String> {
    if LEFT_OUT.contains(&field) {
        return None;
    }
    match value {
        Value::Word(word) if word == "None" || word == "false" || word == "-2147483648" => None,
        Value::Word(word) if field.ends_with("error_code") => Some(error(word)),
        Value::Word(word) if OF_THE_BROKER.contains(&field) && !word.starts_with('-') => Some("#".into()),
        Value::Word(word) => Some(word.clone()),
        Value::Text(text) if field == "records" => Some(if text.is_empty() { "none" } else { "some" }.into()),
        Value::Text(text) if text.is_empty() && !nullable => None,
        Value::Text(_) if ["cluster_id", "log_dir"].contains(&field) => Some("#".into()),
        Value::Text(text) if field.ends_with("host") => Some(if text.is_empty() { "''" } else { "#" }.into()),
        Value::Text(text) => Some(format!("'{text}'")),
        Value::List(values) if values.is_empty() && !nullable => None,
        Value::List(values) if values.len() > ELEMENTS_MAX => Some(format!("[{} elements]", values.len())),
        Value::List(values) => {
            let mut shown: Vec<String> = values.iter().map(|v| show(field, v, true).unwrap_or("-".into())).collect();
            shown.sort();
            Some(format!("[{}]", shown.join(", ")))
        }
        Value::Fields(fields) => {
            // Nowhere, as the library writes it.
            let is_none = |v: &Value| *v == Value::Word("-1".into());
            let empty = |v: &Value| matches!(v, Value::List(list) if list.is_empty());
            let nowhere = fields.iter().any(|(_, v)| is_none(v)) && fields.iter().all(|(_, v)| is_none(v) || empty(v));
            (!nowhere).then(|| format!("({})", joined(fields)))
        }
        Value::Around(kind, value) if kind == "BrokerId" => {
            show(field, value, true).map(|v| if v.starts_with('-') { v } else { "#".into() })
        }
        Value::Around(kind, value) => show(field, value, nullable || kind == "Some"),
    }
}

fn joined(fields: &[(String, Value)]) -> String {
    let shown = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", show(name, value, false)?)));
    shown.map(|s| neutral(&s)).filter(|s| !NOTHING.contains(&s.as_str())).collect::<Vec<_>>().join(" ")
}

/// The answer as a line.
pub fn line(answer: &impl Debug) -> String {
    let text = format!("{answer:?}");
    let shown = match (Parser { rest: &text }).value() {
        Value::Fields(fields) => joined(&fields),
        other => show("", &other, true).unwrap_or_default(),
    };
    neutral(&shown)
}

/// Without the names of this run and ids that nobody chose.
pub fn neutral(text: &str) -> String {
    static OWN: LazyLock<Regex> = LazyLock::new(|| Regex::new("ans[0-9a-f]{12,}x[0-9]+-").expect("a good expression"));
    static NONE: &str = "00000000-0000-0000-0000-000000000000";
    static UUID: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("a good expression")
    });
    let text = OWN.replace_all(text, "");
    let text = UUID.replace_all(&text, |found: &regex::Captures<'_>| if &found[0] == NONE { "no-id" } else { "uuid" });
    // Of those with 22 characters the tests' own begin like this.
    static SHORT: LazyLock<Regex> = LazyLock::new(|| Regex::new("'[A-Za-z0-9_-]{22}'").expect("a good expression"));
    let chosen = |text: &str| text.starts_with("'AAAA") || text.starts_with("'BBBB");
    let text =
        SHORT.replace_all(
            &text,
            |found: &regex::Captures<'_>| {
                if chosen(&found[0]) { found[0].to_string() } else { "'short uuid'".to_string() }
            },
        );
    // Which partition a group has depends on its name.
    static COORDINATOR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(__consumer_offsets' partitions=)\[[0-9]+\]").expect("a good expression"));
    let text = COORDINATOR.replace_all(&text, "$1[#]");
    // A name of Kafka's longest is told by its length.
    static LONG: LazyLock<Regex> = LazyLock::new(|| Regex::new("x{40,}").expect("a good expression"));
    LONG.replace_all(&text, |found: &regex::Captures<'_>| format!("x*{}", found[0].len())).into_owned()
}

#[test]
fn answers_become_lines_without_what_differs_from_run_to_run() {
    use super::super::client::text;
    use kafka_protocol::messages::{BrokerId, FindCoordinatorResponse, JoinGroupResponse, join_group_response as j};
    let member =
        j::JoinGroupResponseMember::default().with_member_id(text("it-\"7c9e6679-7425-40de-944b-e07fc1f90ae7"));
    let answer = JoinGroupResponse::default().with_error_code(25).with_throttle_time_ms(9);
    let answer = answer.with_members(vec![member]).with_protocol_type(Some(text(""))).with_leader(text("a, b)"));
    let shown = "error_code=25 UnknownMemberId generation_id=-1 protocol_type='' protocol_name='' leader='a, b)' \
                 members=[(member_id='it-\\\"uuid')]";
    assert_eq!(line(&answer), shown);
    let found = FindCoordinatorResponse::default().with_node_id(BrokerId(3)).with_host(text("h")).with_port(9);
    assert_eq!(
        line(&found),
        "error_code=0 error_message=''".replace(" error_message=''", "") + " node_id=# host=# port=#"
    );
    assert_eq!(neutral(&format!("ans0123456789abx7-group {}", "x".repeat(249))), "group x*249");
}
