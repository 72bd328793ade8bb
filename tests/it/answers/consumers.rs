//! Groups of KIP-848: epochs, instances, subscriptions, expressions and assignors that are not as they should be.

use super::super::client::{text, topic};
use super::known::*;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;
use uuid::Uuid;

const ALL: [&str; 5] = [NO_GROUP, EMPTY, STABLE, CONSUMER, STATIC_CONSUMER];

pub fn run() {
    let mut world = World::new("consumers").coordinated();
    let topic_name = world.topic("topic", 2, &[]);
    heartbeats_by_anybody(&mut world, &topic_name);
    fields(&mut world, &topic_name);
    expressions(&mut world, &topic_name);
    world.finish();
}

type Change = Box<dyn Fn(&mut ConsumerGroupHeartbeatRequest)>;

fn heartbeats_by_anybody(world: &mut World, topic_name: &str) {
    for state in ALL {
        for (who, of_member) in [("its member", true), ("another", false)] {
            for epoch in [i32::MIN, -3, -2, -1, 0, 1, 2, 3, i32::MAX] {
                for instance in ["none", "its", "another"] {
                    if instance == "its" && state != STATIC_CONSUMER {
                        continue;
                    }
                    world.ask(
                        &format!("ConsumerGroupHeartbeat, {state}: {who}, epoch {epoch}, instance {instance}"),
                        |w, _| {
                            let known = w.group(state, topic_name);
                            let member = if of_member && !known.member.is_empty() { &known.member } else { "absent" };
                            let instance = match instance {
                                "its" => known.instance.as_deref(),
                                "another" => Some("absent"),
                                _ => None,
                            };
                            let request = heartbeat(&known, topic_name).with_member_id(text(member));
                            let request = request.with_instance_id(instance.map(text)).with_member_epoch(epoch);
                            if epoch == 0 {
                                return request;
                            }
                            request
                                .with_subscribed_topic_names(None)
                                .with_rebalance_timeout_ms(-1)
                                .with_topic_partitions(None)
                        },
                    );
                }
            }
        }
    }
}

fn partitions(id: Uuid, indexes: &[i32]) -> consumer_group_heartbeat_request::TopicPartitions {
    let asked = consumer_group_heartbeat_request::TopicPartitions::default().with_topic_id(id);
    asked.with_partitions(indexes.to_vec())
}

/// One field at a time that is not as it should be.
fn changes() -> Vec<(String, Change)> {
    let other = Uuid::from_bytes([7; 16]);
    let mut all: Vec<(String, Change)> = vec![
        ("no group id".into(), Box::new(|r| r.group_id = group_id(""))),
        ("a group id of a space".into(), Box::new(|r| r.group_id = group_id(" "))),
        ("no member id".into(), Box::new(|r| r.member_id = text(""))),
        ("a member id of a space".into(), Box::new(|r| r.member_id = text(" "))),
        ("a member id that is no UUID".into(), Box::new(|r| r.member_id = text("member"))),
        ("a member id of 37 bytes".into(), Box::new(|r| r.member_id = text(&"m".repeat(37)))),
        ("an empty instance".into(), Box::new(|r| r.instance_id = Some(text("")))),
        ("an instance of a space".into(), Box::new(|r| r.instance_id = Some(text(" ")))),
        ("an empty rack".into(), Box::new(|r| r.rack_id = Some(text("")))),
        ("a rack of a space".into(), Box::new(|r| r.rack_id = Some(text(" ")))),
        ("no subscription".into(), Box::new(|r| r.subscribed_topic_names = None)),
        ("an empty subscription".into(), Box::new(|r| r.subscribed_topic_names = Some(vec![]))),
        (
            "a subscription to a topic without a name".into(),
            Box::new(|r| {
                r.subscribed_topic_names = Some(vec![topic("")]);
            }),
        ),
        (
            "a subscription to what is not there".into(),
            Box::new(|r| {
                r.subscribed_topic_names = Some(vec![topic("absent"), topic("absent"), topic("a b")]);
            }),
        ),
        ("no partitions".into(), Box::new(|r| r.topic_partitions = None)),
        (
            "partitions of an unknown topic".into(),
            Box::new(move |r| {
                r.topic_partitions = Some(vec![partitions(other, &[0])]);
            }),
        ),
        (
            "partitions of no topic".into(),
            Box::new(|r| r.topic_partitions = Some(vec![partitions(Uuid::nil(), &[-1])])),
        ),
    ];
    for assignor in ["", " ", "absent", "UNIFORM", "uniform", "range"] {
        let change = move |r: &mut ConsumerGroupHeartbeatRequest| r.server_assignor = Some(text(assignor));
        all.push((format!("assignor `{assignor}`"), Box::new(change)));
    }
    for timeout in [i32::MIN, -2, -1, 0, 1, i32::MAX] {
        all.push((format!("rebalance timeout {timeout}"), Box::new(move |r| r.rebalance_timeout_ms = timeout)));
    }
    all
}

fn fields(world: &mut World, topic_name: &str) {
    for (words, change) in changes() {
        world.ask(&format!("ConsumerGroupHeartbeat, a new member: {words}"), |w, _| {
            let known = w.group(NO_GROUP, topic_name);
            w.watched = vec![Watched::ConsumerGroup(known.name.clone())];
            let mut request = heartbeat(&Known { member: "BBBBBBBBBBBBBBBBBBBBBA".into(), ..known }, topic_name);
            change(&mut request);
            request
        });
        world.ask(&format!("ConsumerGroupHeartbeat, a member that is there: {words}"), |w, _| {
            let known = w.group(CONSUMER, topic_name);
            let mut request = heartbeat(&known, topic_name).with_member_epoch(known.generation);
            change(&mut request);
            request
        });
        world.ask(&format!("ConsumerGroupHeartbeat, a member that leaves: {words}"), |w, _| {
            let known = w.group(CONSUMER, topic_name);
            let mut request = heartbeat(&known, topic_name).with_member_epoch(-1);
            change(&mut request);
            request
        });
    }
}

/// Good ones and bad ones of RE2, and some of other engines.
const EXPRESSIONS: &[&str] = &[
    "",
    " ",
    "*",
    "+",
    "?",
    "(",
    ")",
    "[",
    "]",
    "[a",
    "{",
    "}",
    "a{",
    "a{1",
    "a{2,1}",
    "a{-1}",
    "a{99999}",
    "a{1001}",
    "a{1000}",
    "(a{1000}){1000}",
    "**",
    "a**",
    "a++",
    "a*+",
    "a?+",
    "\\",
    "\\8",
    "\\1",
    "(a)\\1",
    "(?=a)",
    "(?!a)",
    "(?<=a)",
    "(?<!a)",
    "(?>a)",
    "(?i)a",
    "(?x) a",
    "(?z)a",
    "(?i",
    "(?P<n>a)",
    "(?<n>a)",
    "(?P<n>a)(?P<n>b)",
    "(?P=n)",
    "(?#c)a",
    "\\p{L}",
    "\\p{Greek}",
    "\\p{IsGreek}",
    "\\p{Nope}",
    "\\pN",
    "\\x{110000}",
    "\\xZZ",
    "\\u0041",
    "\\Q*\\E",
    "\\Q*",
    "\\b",
    "\\B",
    "\\h",
    "\\R",
    "\\X",
    "\\G",
    "\\Z",
    "\\z",
    "\\A",
    "\\v",
    "\\e",
    "\\c",
    "\\cA",
    "\\y",
    "[z-a]",
    "[a-\\d]",
    "[[:alpha:]]",
    "[[:nope:]]",
    "[^]",
    "[]a]",
    "[a&&b]",
    "[]",
    "[\\b]",
    "a|*",
    "|",
    "a||b",
    "^*",
    "$^",
    "(?:)",
    "()",
    "(|a)*",
    "(a*)*",
    "\u{e4}",
    "\\C",
    "(?U)a",
    "(?u)a",
    "(?m-s)a",
    "(?s:.)",
    "(?-:a)",
    "absent.*",
];

fn expressions(world: &mut World, topic_name: &str) {
    let long = "x".repeat(5_000);
    for expression in EXPRESSIONS.iter().copied().chain([long.as_str()]) {
        for (who, state) in [("a new member", NO_GROUP), ("a member that is there", CONSUMER)] {
            if state == CONSUMER && !["", "*", "(", "\\1", "absent.*"].contains(&expression) {
                continue;
            }
            world.ask(
                &format!("ConsumerGroupHeartbeat, {who}: expression `{}`", super::render::neutral(expression)),
                |w, _| {
                    let known = w.group(state, topic_name);
                    w.watched = vec![Watched::ConsumerGroup(known.name.clone())];
                    let epoch = if state == CONSUMER { known.generation } else { 0 };
                    let member = "AAAAAAAAAAAAAAAAAAAAAQ".into();
                    let request = heartbeat(&Known { member, ..known }, topic_name).with_member_epoch(epoch);
                    request
                        .with_subscribed_topic_names(Some(vec![]))
                        .with_subscribed_topic_regex(Some(text(expression)))
                },
            );
        }
    }
}
