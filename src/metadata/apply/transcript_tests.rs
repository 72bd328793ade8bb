//! Golden transcripts: scripts of commands with the answers and the changes to the index that they must give.
//!
//! A line `> command argument…` is played; the lines under it are its answer. `show` prints the state. Write the
//! commands, run once with `CASEMATE_WRITE_TRANSCRIPTS=1`, and read what was written before committing it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::base::{
    BrokerEpoch, ClusterId, DirectoryId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId,
    TopicId, WalIncarnation,
};
use crate::metadata::command::{
    Assignment, Command, ConfigChange, ConfigResource, Holder, MergeInput, MergeOutput, Range, Replica, TargetChange,
};
use crate::metadata::image::Image;
use crate::metadata::index::{IndexOp, MemoryIndex, ObjectEntry};
use crate::metadata::node::NodeState;
use crate::metadata::reject::Response;
use crate::metadata::{apply, samples};

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

    fn rest(&mut self) -> Vec<&'a str> {
        self.positional.by_ref().collect()
    }

    fn key(&self, key: &str) -> Option<&'a str> {
        self.keyed.get(key).copied()
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn numbers<T: std::str::FromStr>(word: &str) -> Vec<T> {
    word.split(',').filter(|word| !word.is_empty()).map(number).collect()
}

/// `1@2`: node 1 in broker epoch 2.
fn owner(word: &str) -> (NodeId, BrokerEpoch) {
    let (node, epoch) = word.split_once('@').expect("node@epoch");
    (NodeId(number(node)), BrokerEpoch(number(epoch)))
}

/// `3-0`: partition 0 of the topic whose id is all threes.
fn partition(word: &str) -> PartitionId {
    let (topic, index) = word.split_once('-').expect("topic-index");
    samples::partition(number(topic), number(index))
}

fn wal(word: &str) -> WalIncarnation {
    WalIncarnation([word.as_bytes()[0]; 16])
}

/// `3-0:5..9` or, with leader epoch 2 beginning at 7, `3-0:5..9/2:7`.
fn range(word: &str) -> Range {
    let mut parts = word.split('/');
    let (id, offsets) = parts.next().and_then(|part| part.split_once(':')).expect("partition:offsets");
    let (base, end) = offsets.split_once("..").expect("base..end");
    let epochs = parts.map(|part| {
        let (epoch, start) = part.split_once(':').expect("epoch:start");
        (LeaderEpoch(number(epoch)), Offset(number(start)))
    });
    Range { epochs: epochs.collect(), ..samples::range(partition(id), number(base), number(end)) }
}

fn parse(line: &str, image: &Image, now_ms: i64) -> Command {
    let mut w = Words::new(line);
    match w.next() {
        "init" => Command::InitCluster { cluster: ClusterId([number(w.next()); 16]), generation: number(w.next()) },
        "register" => Command::RegisterBroker {
            node: NodeId(number(w.next())),
            incarnation: wal(w.key("wal").expect("wal=")),
            boot: number(w.key("boot").expect("boot=")),
            endpoints: vec![],
            version: "0.1.0".into(),
            now_ms,
        },
        "open" => parse_open(w, image),
        "seal" => Command::SealLedger {
            ledger: LedgerId(number(w.next())),
            end: EntryId(number(w.next())),
            by: w.key("by").map(owner),
        },
        "topic" => Command::CreateTopic {
            id: TopicId([number(w.next()); 16]),
            name: w.next().into(),
            partitions: numbers(w.key("leaders").unwrap_or("1")).into_iter().map(NodeId).collect(),
            replication_factor: w.key("replication").map_or(1, number),
            configs: vec![],
            now_ms,
        },
        "delete-topic" => Command::DeleteTopic { id: TopicId([number(w.next()); 16]), now_ms },
        "partitions" => Command::CreatePartitions {
            id: TopicId([number(w.next()); 16]),
            first_index: number(w.key("first").expect("first=")),
            leaders: numbers(w.key("leaders").unwrap_or("")).into_iter().map(NodeId).collect(),
        },
        "config" => Command::AlterConfigs { changes: w.rest().chunks(3).map(config_change).collect() },
        "producer-ids" => {
            let (node, epoch) = owner(w.next());
            Command::AllocateProducerIds { node, epoch, count: number(w.next()) }
        }
        "fence" | "recover" | "uploader" => parse_failover(line, image),
        "assign" | "hand-over" | "target" | "drain" | "drain-no-more" => parse_placement(line),
        _ => parse_node(line, now_ms).unwrap_or_else(|| parse_object(line, now_ms)),
    }
}

/// `add-node 2 b token=7`: what is not said follows from the id and the name.
fn parse_node(line: &str, now_ms: i64) -> Option<Command> {
    let mut w = Words::new(line);
    let (command, node) = (w.next(), NodeId(w.positional.next()?.parse().ok()?));
    let name = w.positional.next().unwrap_or_default().to_owned();
    let text = |key, default: String| w.key(key).map_or(default, |word| word.replace('_', " "));
    let rack = text("rack", String::new());
    let host = text("host", format!("{name}.example"));
    let identity = text("dn", format!("CN=node-{node}"));
    let port = w.key("port").map_or(9094, number);
    let token_sha256 = [w.key("token").map_or(0, number); 32];
    let directory = DirectoryId(w.key("directory").map_or(0, number));
    Some(match command {
        "add-node" => {
            let expires_ms = now_ms + w.key("hours").map_or(24, number::<i64>) * 3_600_000;
            Command::AddNode { node, name, rack, host, port, identity, token_sha256, expires_ms, now_ms }
        }
        "join" => Command::JoinNode { node, token_sha256, directory, now_ms: w.key("at").map_or(now_ms, number) },
        "remove-node" => Command::RemoveNode { node, now_ms },
        "record" => Command::RegisterSelf { node, name, rack, host, port, identity, directory, now_ms },
        _ => return None,
    })
}

fn parse_failover(line: &str, image: &Image) -> Command {
    let mut w = Words::new(line);
    let word = w.next();
    if word == "fence" {
        let (node, epoch) = owner(w.next());
        return Command::FenceBroker { node, epoch };
    }
    let ledger = LedgerId(number(w.next()));
    if word == "uploader" {
        let (node, epoch) = owner(w.next());
        return Command::NameUploader { ledger, node, epoch };
    }
    let holders = w.key("holders").unwrap_or("").split(',').filter(|word| !word.is_empty()).map(|word| {
        let (node, from) = word.split_once(':').expect("node:from");
        let incarnation = image.brokers[&NodeId(number(node))].incarnation;
        Holder { replica: Replica { node: NodeId(number(node)), incarnation }, from: EntryId(number(from)) }
    });
    let (end, uploader) = (EntryId(number(w.next())), NodeId(number(w.key("uploader").expect("uploader="))));
    Command::RecoverLedger { ledger, end, holders: holders.collect(), uploader }
}

/// `assign 3-0@4:2`: partition 3-0, whose leader epoch is 4, to node 2. `target 3-0:2` or `3-0:-`.
fn parse_placement(line: &str) -> Command {
    let mut w = Words::new(line);
    match w.next() {
        "assign" => {
            let changes = w.rest().into_iter().map(|word| {
                let (id, rest) = word.split_once('@').expect("partition@epoch:node");
                let (epoch, node) = rest.split_once(':').expect("epoch:node");
                let leader_epoch = LeaderEpoch(number(epoch));
                Assignment { partition: partition(id), leader_epoch, leader: NodeId(number(node)) }
            });
            Command::AssignPartitions { changes: changes.collect() }
        }
        "hand-over" => {
            let (node, epoch) = owner(w.next());
            let (id, rest) = w.next().split_once('@').expect("partition@epoch");
            let end = Offset(number(w.key("end").expect("end=")));
            let target_since = w.key("since").map_or(0, number);
            let (partition, leader_epoch) = (partition(id), LeaderEpoch(number(rest)));
            Command::HandOver { node, epoch, partition, leader_epoch, end, target_since }
        }
        "target" => {
            let preferred = w.key("preferred").map(|word| NodeId(number(word)));
            let changes = w.rest().into_iter().map(|word| {
                let (id, node) = word.split_once(':').expect("partition:node");
                let target = (node != "-").then(|| NodeId(number(node)));
                TargetChange { partition: partition(id), target, preferred }
            });
            Command::SetTargets { changes: changes.collect() }
        }
        word => Command::DrainNode { node: NodeId(number(w.next())), draining: word == "drain" },
    }
}

fn parse_open(mut w: Words<'_>, image: &Image) -> Command {
    let (node, epoch) = owner(w.next());
    let replica = |id: i32| {
        let incarnation = image.brokers.get(&NodeId(id)).map_or(WalIncarnation::default(), |b| b.incarnation);
        Replica { node: NodeId(id), incarnation }
    };
    let replicas: Vec<Replica> = match w.key("replicas") {
        Some(list) => numbers(list).into_iter().map(replica).collect(),
        None => vec![replica(node.0)],
    };
    let close = w.key("close").and_then(|word| word.split_once(':'));
    Command::OpenLedger {
        node,
        epoch,
        replicas,
        write_quorum: w.key("quorum").map_or(1, number),
        close: close.map(|(ledger, end)| (LedgerId(number(ledger)), EntryId(number(end)))),
    }
}

/// `topic:name key value`, `broker:1 key value` or `cluster key value`; the value `-` takes it back.
fn config_change(words: &[&str]) -> ConfigChange {
    let resource = match words[0].split_once(':') {
        Some(("topic", name)) => ConfigResource::Topic(name.into()),
        Some((_, node)) => ConfigResource::Broker(NodeId(number(node))),
        None => ConfigResource::Cluster,
    };
    ConfigChange { resource, name: words[1].into(), value: (words[2] != "-").then(|| words[2].into()) }
}

fn parse_object(line: &str, now_ms: i64) -> Command {
    let mut w = Words::new(line);
    let objects = |list: Vec<&str>| list.into_iter().map(|word| ObjectId(number(word))).collect();
    match w.next() {
        "prepare" => {
            let (node, epoch) = owner(w.next());
            Command::PrepareObjects { node, epoch, count: number(w.next()), now_ms }
        }
        "upload" => {
            let (node, epoch) = owner(w.next());
            let (from, through) = w.key("entries").and_then(|word| word.split_once("..")).expect("entries=");
            Command::CommitUpload {
                node,
                epoch,
                object: ObjectId(number(w.key("object").expect("object="))),
                object_bytes: 5000,
                ledger: LedgerId(number(w.key("ledger").expect("ledger="))),
                from: EntryId(number(from)),
                through: EntryId(number(through)),
                ranges: w.rest().into_iter().map(range).collect(),
                now_ms,
            }
        }
        "merge" => {
            let (node, epoch) = owner(w.next());
            let inputs = w.key("inputs").unwrap_or("").split(',').filter(|word| !word.is_empty()).map(|word| {
                let parts: Vec<&str> = word.split(':').collect();
                let (partition, base) = (partition(parts[0]), Offset(number(parts[1])));
                MergeInput { partition, base, object: ObjectId(number(parts[2])) }
            });
            let ranges = w.rest().into_iter().map(range).collect();
            let object = ObjectId(number(w.key("object").expect("object=")));
            let outputs = vec![MergeOutput { object, bytes: 9000, ranges }];
            Command::CommitMerge { node, epoch, inputs: inputs.collect(), outputs, cleaned: vec![], now_ms }
        }
        "abort" => Command::AbortObjects { objects: objects(w.rest()), now_ms },
        "sweep" => Command::SweepObjects { objects: objects(w.rest()) },
        "log-start" => {
            let pairs = w.rest();
            let changes = pairs.chunks(2).map(|pair| (partition(pair[0]), Offset(number(pair[1]))));
            Command::AdvanceLogStart { changes: changes.collect(), now_ms }
        }
        "purge" => Command::PurgeRanges { now_ms },
        other => panic!("{other} is no command"),
    }
}

fn name(id: PartitionId) -> String {
    format!("{}-{}", id.topic.0[0], id.index)
}

fn object(id: ObjectId, entry: &ObjectEntry) -> String {
    format!("object {id}: {:?}, {} ranges, {} bytes", entry.state, entry.live_ranges, entry.bytes)
}

fn render(response: &Response, ops: &[IndexOp]) -> String {
    let mut out = match response {
        Response::Rejected(reject) => format!("rejected: {reject}\n"),
        other => format!("{other:?}\n"),
    };
    for op in ops {
        let line = match op {
            IndexOp::PutRange { partition, base, entry } => {
                format!("+ {}:{base}..{} in object {}", name(*partition), entry.end, entry.object)
            }
            IndexOp::DeleteRange { partition, base } => format!("- {}:{base}", name(*partition)),
            IndexOp::PutObject { id, entry } => format!("+ {}", object(*id, entry)),
            IndexOp::DeleteObject { id } => format!("- object {id}"),
        };
        writeln!(out, "  {line}").expect("a string takes any text");
    }
    out
}

fn show(image: &Image, index: &MemoryIndex) -> String {
    let mut lines = Vec::new();
    for (node, broker) in &image.brokers {
        let fenced = if broker.fenced { ", fenced" } else { "" };
        lines.push(format!("broker {node}: epoch {} boot {}{fenced}", broker.epoch, broker.boot));
    }
    for (id, node) in &image.nodes {
        let state = match node.state {
            NodeState::Invited { expires_ms } => format!("invited until {expires_ms}"),
            NodeState::Joined { directory } => format!("joined with folder {directory}"),
        };
        let (name, rack) = (&node.name, &node.rack);
        let drained = if node.draining { ", being drained" } else { "" };
        let place = format!("{}:{} in {rack:?} as {}", node.host, node.port, node.identity);
        lines.push(format!("node {id} {name} at {place}, {state}{drained}"));
    }
    for (id, ledger) in &image.ledgers {
        let end = ledger.end.map_or("open".to_owned(), |end| format!("sealed at {end}"));
        let mut line = format!("ledger {id} of {}@{}: {end}, uploaded {}", ledger.node, ledger.epoch, ledger.uploaded);
        if let Some(node) = ledger.uploader {
            write!(line, " by {node}").expect("a string takes any text");
        }
        for holder in &ledger.holders {
            write!(line, ", {} holds it from {}", holder.replica.node, holder.from).expect("a string takes any text");
        }
        lines.push(line);
    }
    for topic in image.topics.values() {
        lines.push(format!("topic {} {:?}", topic.name, topic.configs));
        for (number, p) in (0..).zip(&topic.partitions) {
            let id = name(PartitionId { topic: topic.id, index: number });
            let epochs: Vec<String> = p.epochs.iter().map(|(epoch, start)| format!("{epoch}:{start}")).collect();
            let mut line = format!(
                "  {id}: leader {} epoch {}, {}..{} uploaded, {} bytes, epochs [{}]",
                p.leader,
                p.leader_epoch,
                p.log_start,
                p.uploaded_end,
                p.object_bytes,
                epochs.join(" ")
            );
            if let Some(target) = p.target {
                write!(line, ", on the move to {target} since {}", p.target_since).expect("a string takes any text");
            }
            if p.preferred != p.leader {
                write!(line, ", prefers {}", p.preferred).expect("a string takes any text");
            }
            if p.handed_over != Offset::ZERO {
                write!(line, ", handed over at {}", p.handed_over).expect("a string takes any text");
            }
            lines.push(line);
        }
    }
    lines.extend(image.purge.iter().map(|(id, below)| format!("purge {} below {below}", name(*id))));
    let ranges = index.ranges.iter();
    lines.extend(ranges.map(|((id, base), e)| format!("range {}:{base}..{} in {}", name(*id), e.end, e.object)));
    lines.extend(index.objects.iter().map(|(id, entry)| object(*id, entry)));
    lines.into_iter().map(|line| format!("  {line}\n")).collect()
}

/// Plays a script and answers it with the answers that it gets today. The wall clock is the number of the command.
fn play(script: &str) -> String {
    let (mut image, mut index) = (Image::default(), MemoryIndex::default());
    let mut out = String::new();
    let mut now_ms = 0;
    for line in script.lines() {
        let Some(command) = line.strip_prefix("> ") else {
            if line.is_empty() || line.starts_with('#') {
                writeln!(out, "{line}").expect("a string takes any text");
            }
            continue;
        };
        writeln!(out, "{line}").expect("a string takes any text");
        if command == "show" {
            out += &show(&image, &index);
            continue;
        }
        now_ms += 1;
        let command = parse(command, &image, now_ms);
        let (response, ops) = apply(&mut image, &command, &index);
        index.apply(&ops);
        out += &render(&response, &ops);
    }
    out
}

fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/metadata/apply/transcripts").join(file);
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let played = play(&script);
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
fn transcript_of_brokers_and_ledgers() {
    check("ledgers.txt");
}

#[test]
fn transcript_of_nodes() {
    check("nodes.txt");
}

#[test]
fn transcript_of_failovers() {
    check("failover.txt");
}

#[test]
fn transcript_of_leaders() {
    check("leaders.txt");
}

#[test]
fn transcript_of_a_cluster_that_grows_and_shrinks() {
    check("alone.txt");
}

#[test]
fn transcript_of_topics_and_configs() {
    check("topics.txt");
}

#[test]
fn transcript_of_uploads() {
    check("uploads.txt");
}

#[test]
fn transcript_of_merges_and_log_starts() {
    check("merges.txt");
}
