//! docs/compatibility.md says what the running binary says: the tables between its markers are made from the answer to
//! ApiVersions, from what a real Kafka answered, from docs/differences.tsv and from tests/peers/tried.tsv.
//!
//! With CASEMATE_TEST_WRITE=1 the document is written instead of compared. Against a real Kafka (CASEMATE_TEST_BOOTSTRAP)
//! it is the fixture with Kafka's versions that is written or compared.

use super::client::{Client, produce_request, text, try_frame};
use super::harness::Target;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Message, Request};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/compatibility.md";
const DIFFERENCES: &str = "docs/differences.tsv";
const TRIED: &str = "tests/peers/tried.tsv";
const KAFKA: &str = "tests/fixtures/kafka/advertised-4.3.1.txt";
const WRITE: &str = "CASEMATE_TEST_WRITE=1 cargo test --release --locked --features failpoints --test it -- matrix::";

/// The APIs that clients see, by Kafka's names.
const NAMES: &str = "\
    0 Produce 1 Fetch 2 ListOffsets 3 Metadata 8 OffsetCommit 9 OffsetFetch 10 FindCoordinator 11 JoinGroup 12 Heartbeat \
    13 LeaveGroup 14 SyncGroup 15 DescribeGroups 16 ListGroups 17 SaslHandshake 18 ApiVersions 19 CreateTopics \
    20 DeleteTopics 21 DeleteRecords 22 InitProducerId 23 OffsetForLeaderEpoch 24 AddPartitionsToTxn 25 AddOffsetsToTxn \
    26 EndTxn 27 WriteTxnMarkers 28 TxnOffsetCommit 29 DescribeAcls 30 CreateAcls 31 DeleteAcls 32 DescribeConfigs \
    33 AlterConfigs 34 AlterReplicaLogDirs 35 DescribeLogDirs 36 SaslAuthenticate 37 CreatePartitions \
    38 CreateDelegationToken 39 RenewDelegationToken 40 ExpireDelegationToken 41 DescribeDelegationToken 42 DeleteGroups \
    43 ElectLeaders 44 IncrementalAlterConfigs 45 AlterPartitionReassignments 46 ListPartitionReassignments \
    47 OffsetDelete 48 DescribeClientQuotas 49 AlterClientQuotas 50 DescribeUserScramCredentials \
    51 AlterUserScramCredentials 55 DescribeQuorum 57 UpdateFeatures 60 DescribeCluster 61 DescribeProducers \
    64 UnregisterBroker 65 DescribeTransactions 66 ListTransactions 68 ConsumerGroupHeartbeat 69 ConsumerGroupDescribe \
    71 GetTelemetrySubscriptions 72 PushTelemetry 74 ListConfigResources 75 DescribeTopicPartitions \
    76 ShareGroupHeartbeat 77 ShareGroupDescribe 78 ShareFetch 79 ShareAcknowledge 80 AddRaftVoter 81 RemoveRaftVoter \
    83 InitializeShareGroupState 84 ReadShareGroupState 85 WriteShareGroupState 86 DeleteShareGroupState \
    87 ReadShareGroupStateSummary 88 StreamsGroupHeartbeat 89 StreamsGroupDescribe 90 DescribeShareGroupOffsets \
    91 AlterShareGroupOffsets 92 DeleteShareGroupOffsets";

/// What a range of versions does not tell.
const NOTES: &[(i16, &str)] = &[
    (ProduceRequest::KEY, "(librdkafka takes a higher minimum for a broker without compression)"),
    (DescribeUserScramCredentialsRequest::KEY, "(nobody has any)"),
];

/// What Kafka advertises only where a plugin takes the metrics of clients (KIP-714), and so not to this test.
const WITH_A_PLUGIN: &[(i16, Span)] =
    &[(GetTelemetrySubscriptionsRequest::KEY, (0, 0)), (PushTelemetryRequest::KEY, (0, 0))];

/// A range of versions or levels.
type Span = (i16, i16);

#[derive(Debug, Clone, PartialEq)]
struct Api {
    advertised: Span,
    /// The lowest version that is answered; only asked of Produce.
    answered_from: i16,
}

#[derive(Debug, Clone, PartialEq)]
struct Feature {
    supported: Span,
    finalized: Option<i16>,
}

/// What a broker says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
struct Advertised {
    apis: BTreeMap<i16, Api>,
    features: BTreeMap<String, Feature>,
}

impl Advertised {
    /// Kafka's, with what it has beside the answer that was recorded.
    fn of_kafka() -> Advertised {
        let mut said = Advertised::parse(&read(KAFKA));
        for (key, span) in WITH_A_PLUGIN {
            said.apis.insert(*key, Api { advertised: *span, answered_from: span.0 });
        }
        said
    }

    fn ask(target: &Target) -> Advertised {
        let request = ApiVersionsRequest::default().with_client_software_name(text("it"));
        let request = request.with_client_software_version(text("1"));
        let answer = target.client().call(4, &request).expect("ApiVersions is answered");
        assert_eq!(answer.error_code, 0);
        let mut said = Advertised::default();
        for api in &answer.api_keys {
            let (min, max) = (api.min_version, api.max_version);
            let answered_from = if api.api_key == ProduceRequest::KEY { produce_from(target, (min, max)) } else { min };
            said.apis.insert(api.api_key, Api { advertised: (min, max), answered_from });
        }
        let levels = answer.finalized_features.iter().map(|f| (f.name.to_string(), f.max_version_level));
        let levels: BTreeMap<String, i16> = levels.collect();
        for feature in &answer.supported_features {
            let name = feature.name.to_string();
            let (supported, finalized) = ((feature.min_version, feature.max_version), levels.get(&name).copied());
            said.features.insert(name, Feature { supported, finalized });
        }
        let unsupported = levels.keys().find(|name| !said.features.contains_key(*name));
        assert_eq!(unsupported, None, "a feature is finalized and not supported");
        said
    }

    fn parse(text: &str) -> Advertised {
        let mut said = Advertised::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let known = match words[..] {
                ["api", key, range, from] => (|| {
                    let api = Api { advertised: span(range)?, answered_from: from.parse().ok()? };
                    said.apis.insert(key.parse().ok()?, api);
                    Some(())
                })(),
                ["feature", name, range, level] => (|| {
                    let feature = Feature { supported: span(range)?, finalized: level.parse().ok() };
                    said.features.insert(name.to_owned(), feature);
                    Some(())
                })(),
                _ => None,
            };
            known.unwrap_or_else(|| panic!("{KAFKA}: cannot read `{line}`"));
        }
        said
    }

    fn to_text(&self) -> String {
        let mut text = String::from(
            "# What Apache Kafka 4.3.1 answers to ApiVersions version 4 on a listener for clients (tests/it/matrix.rs):\n\
             # api KEY VERSIONS LOWEST-ANSWERED, feature NAME LEVELS FINALIZED.\n",
        );
        for (key, Api { advertised: (min, max), answered_from }) in &self.apis {
            writeln!(text, "api {key} {min}-{max} {answered_from}").expect("a text grows");
        }
        for (name, Feature { supported: (min, max), finalized }) in &self.features {
            let finalized = finalized.map_or("-".to_owned(), |level| level.to_string());
            writeln!(text, "feature {name} {min}-{max} {finalized}").expect("a text grows");
        }
        text
    }
}

fn span(text: &str) -> Option<Span> {
    let (min, max) = text.split_once('-')?;
    Some((min.parse().ok()?, max.parse().ok()?))
}

/// The lowest version of a Produce request that is answered and does not close the connection.
fn produce_from(target: &Target, (min, max): Span) -> i16 {
    let request = produce_request("absent", 1, vec![]);
    let answered = |version: i16| {
        let encoded = version.max(<ProduceRequest as Message>::VERSIONS.min);
        let mut frame = try_frame(encoded, &request, 1).expect("an empty request is encodable");
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        let mut client: Client = target.client();
        client.send_raw(&frame).is_ok() && client.receive_raw().is_ok()
    };
    (min..=max).find(|version| answered(*version)).expect("Produce is answered at some version")
}

fn names() -> BTreeMap<i16, &'static str> {
    let words: Vec<&str> = NAMES.split_whitespace().collect();
    words.chunks(2).map(|pair| (pair[0].parse().expect("a key stands before its name"), pair[1])).collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The rows of a file of columns, which its first line names.
fn rows<const N: usize>(path: &str, text: &str, columns: [&str; N], wrong: &mut Vec<String>) -> Vec<[String; N]> {
    let mut lines = text.lines();
    if lines.next().is_none_or(|first| first != columns.join("\t")) {
        wrong.push(format!("{path}: the first line names the columns: {columns:?}, with tabs between"));
    }
    let mut rows = vec![];
    for (line, number) in lines.zip(2..) {
        let cells: Vec<String> = line.split('\t').map(|cell| cell.trim().to_owned()).collect();
        match <[String; N]>::try_from(cells) {
            Ok(cells) => {
                let empty = columns.iter().zip(&cells).filter(|(_, cell)| cell.is_empty());
                wrong.extend(empty.map(|(column, _)| format!("{path}:{number}: `{column}` is empty")));
                rows.push(cells);
            }
            Err(cells) => wrong.push(format!("{path}:{number}: {} columns and not {N}", cells.len())),
        }
    }
    rows
}

/// What the tables are made of.
struct Sources {
    ours: Advertised,
    kafka: Advertised,
    differences: Vec<[String; 3]>,
    tried: Vec<[String; 4]>,
}

/// What would be wrong with the document whatever it says.
fn contradictions(ours: &Advertised, kafka: &Advertised) -> Vec<String> {
    let mut wrong = vec![];
    let names = names();
    let within = |(min, max): Span, (least, most): Span| least <= min && max <= most;
    for (key, api) in &ours.apis {
        let name = names.get(key).copied().unwrap_or_else(|| {
            wrong.push(format!("API {key} is advertised and has no name in tests/it/matrix.rs"));
            "?"
        });
        match kafka.apis.get(key) {
            None => wrong.push(format!("API {key} ({name}) is advertised and Kafka has none")),
            Some(theirs) if within(api.advertised, theirs.advertised) && api.answered_from >= theirs.answered_from => {}
            Some(theirs) => wrong.push(format!("API {key} ({name}): {api:?} goes beyond Kafka's {theirs:?}")),
        }
    }
    wrong.extend(
        kafka.apis.keys().filter(|key| !names.contains_key(key)).map(|key| format!("API {key} of Kafka has no name")),
    );
    for (name, feature) in &ours.features {
        match kafka.features.get(name) {
            None => wrong.push(format!("the feature {name} is advertised and Kafka has none")),
            Some(theirs) if within(feature.supported, theirs.supported) => {}
            Some(theirs) => wrong.push(format!("the feature {name}: {feature:?} goes beyond Kafka's {theirs:?}")),
        }
    }
    wrong
}

fn shown((min, max): Span) -> String {
    if min == max { min.to_string() } else { format!("{min}–{max}") }
}

fn apis(sources: &Sources) -> String {
    let names = names();
    let mut table = String::from("| key | API | versions | Kafka 4.3 |\n|---|---|---|---|\n");
    let cell = |api: &Api, from: &str| {
        let answered = shown((api.answered_from, api.advertised.1));
        if api.answered_from == api.advertised.0 {
            answered
        } else {
            format!("{answered}, {from} {}", api.advertised.0)
        }
    };
    for (key, api) in &sources.ours.apis {
        let note = NOTES.iter().find(|(noted, _)| noted == key).map_or(String::new(), |(_, note)| format!(" {note}"));
        let theirs = sources.kafka.apis.get(key).map_or(String::new(), |theirs| cell(theirs, "from"));
        let plugin = if WITH_A_PLUGIN.iter().any(|(of, _)| of == key) { ", with a plugin" } else { "" };
        let name = names.get(key).copied().unwrap_or("?");
        writeln!(table, "| {key} | {name} | {}{note} | {theirs}{plugin} |", cell(api, "advertised from"))
            .expect("a text grows");
    }
    let absent = sources.kafka.apis.iter().filter(|(key, _)| !sources.ours.apis.contains_key(key));
    let absent =
        absent.map(|(key, api)| format!("{} {}", names.get(key).copied().unwrap_or("?"), shown(api.advertised)));
    let absent: Vec<String> = absent.collect();
    if !absent.is_empty() {
        write!(table, "\n{}", wrapped(&format!("Kafka 4.3 has besides: {}.", absent.join(", "))))
            .expect("a text grows");
    }
    table
}

/// Lines of a paragraph.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 125 {
            lines.push_str(&line);
            lines.push('\n');
            line.clear();
        }
        let space = if line.is_empty() { "" } else { " " };
        write!(line, "{space}{word}").expect("a text grows");
    }
    lines + &line + "\n"
}

fn features(sources: &Sources) -> String {
    let mut table = String::from(
        "| feature | levels | in force | Kafka 4.3 | in force in a new cluster |\n|---|---|---|---|---|\n",
    );
    let names: std::collections::BTreeSet<&String> =
        sources.ours.features.keys().chain(sources.kafka.features.keys()).collect();
    let cells = |feature: Option<&Feature>| match feature {
        None => "– | –".to_owned(),
        Some(Feature { supported, finalized }) => {
            format!("{} | {}", shown(*supported), finalized.map_or("–".to_owned(), |level| level.to_string()))
        }
    };
    for name in names {
        let (ours, theirs) = (sources.ours.features.get(name), sources.kafka.features.get(name));
        writeln!(table, "| {name} | {} | {} |", cells(ours), cells(theirs)).expect("a text grows");
    }
    table
}

/// A table of rows as they are.
fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head = line(&columns.map(str::to_owned)) + &"|---".repeat(N) + "|\n";
    rows.iter().fold(head, |table, row| table + &line(row))
}

/// The document with everything between its markers made anew.
fn generated(document: &str, sources: &Sources) -> Result<String, String> {
    let parts = [
        ("apis", apis(sources)),
        ("features", features(sources)),
        ("differences", table(["where", "here", "why"], &sources.differences)),
        ("tried", table(["client or tool", "version", "what was run", "script"], &sources.tried)),
    ];
    let mut document = document.to_owned();
    for (name, content) in parts {
        let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end of {name} -->\n"));
        let missing = || format!("{DOCUMENT} lacks the markers `{}` and `{}`", begin.trim(), end.trim());
        let (before, rest) = document.split_once(&begin).ok_or_else(missing)?;
        let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
        document = format!("{before}{begin}\n{content}\n{end}{after}");
    }
    Ok(document)
}

fn first_difference(found: &str, expected: &str) -> String {
    let (mut found, mut expected) = (found.lines(), expected.lines());
    for number in 1.. {
        match (found.next(), expected.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                return format!("line {number} is\n  {}\nand should be\n  {}", a.unwrap_or("…"), b.unwrap_or("…"));
            }
        }
    }
    "only line ends differ".to_owned()
}

/// Writes the file, or compares it.
fn settle(path: &str, expected: &str, how: &str) {
    let found = std::fs::read_to_string(root(path)).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var("CASEMATE_TEST_WRITE").is_ok_and(|value| value == "1") {
        std::fs::write(root(path), expected).unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    panic!("{path} is out of date: {}\nto write it: {how}", first_difference(&found, expected));
}

#[test]
fn the_document_says_what_the_binary_says() {
    let target = Target::new();
    let said = Advertised::ask(&target);
    if target.broker.is_none() {
        assert_eq!(Advertised::parse(&said.to_text()), said, "what is written is what is read");
        return settle(KAFKA, &said.to_text(), &format!("CASEMATE_TEST_BOOTSTRAP=HOST:PORT {WRITE}"));
    }
    let mut wrong = vec![];
    let tried = rows(TRIED, &read(TRIED), ["client", "version", "what", "script"], &mut wrong);
    let scripts = tried.iter().filter_map(|[.., script]| script.split(' ').next());
    let absent = scripts.filter(|script| !root("tests/peers").join(script).is_file());
    wrong.extend(absent.map(|script| format!("{TRIED}: there is no script tests/peers/{script}")));
    let differences = rows(DIFFERENCES, &read(DIFFERENCES), ["where", "here", "why"], &mut wrong);
    let sources = Sources { ours: said, kafka: Advertised::of_kafka(), differences, tried };
    wrong.extend(contradictions(&sources.ours, &sources.kafka));
    assert!(wrong.is_empty(), "{DOCUMENT}:\n  {}", wrong.join("\n  "));
    let expected = generated(&read(DOCUMENT), &sources).unwrap_or_else(|e| panic!("{e}"));
    settle(DOCUMENT, &expected, WRITE);
}

#[test]
fn a_run_is_noted_once_and_only_when_asked() {
    let dir = super::harness::folder();
    let (script, file) = (dir.path().join("tried"), dir.path().join("tried.tsv"));
    std::fs::copy(root("tests/peers/tried"), &script).expect("the script can be copied");
    let head = read(TRIED).lines().next().expect("a header").to_owned();
    std::fs::write(&file, format!("{head}\n")).expect("a file");
    let note = |asked: &str, columns: [&str; 4]| {
        let run = std::process::Command::new(&script).args(columns).env("CASEMATE_TRIED", asked).output();
        run.expect("bash is there").status.success()
    };
    assert!(note("", ["kcat", "1", "clients", "all"]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{head}\n"), "nobody asked");
    for columns in [
        ["kcat", "1", "clients", "a part"],
        ["kcat", "1", "tools", "another"],
        ["a client's", "3", "clients", "all"],
        ["kcat", "2", "clients", "all of it"],
    ] {
        assert!(note("1", columns), "{columns:?}");
    }
    for columns in [["kcat", "", "clients", "all"], ["kcat", "1", "clients", "a|b"], ["kcat", "1", "clients", "a\tb"]] {
        assert!(!note("1", columns), "{columns:?} is no line");
    }
    let expected = "a client's\t3\tall\tclients\nkcat\t2\tall of it\tclients\nkcat\t1\tanother\ttools\n";
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{head}\n{expected}"));
}

#[test]
fn what_contradicts_kafka_or_lacks_a_reason_is_seen() {
    let kafka = Advertised::of_kafka();
    assert_eq!(contradictions(&kafka, &kafka), [] as [&str; 0]);
    let beyond = |change: &dyn Fn(&mut Advertised)| {
        let mut ours = kafka.clone();
        change(&mut ours);
        contradictions(&ours, &kafka)
    };
    let fetch = kafka.apis[&FetchRequest::KEY].clone();
    let higher = Api { advertised: (fetch.advertised.0, fetch.advertised.1 + 1), ..fetch.clone() };
    let lower = Api { advertised: (fetch.advertised.0 - 1, fetch.advertised.1), ..fetch.clone() };
    for api in [higher, lower] {
        let wrong = beyond(&|ours| _ = ours.apis.insert(FetchRequest::KEY, api.clone()));
        assert!(wrong.len() == 1 && wrong[0].contains("(Fetch)") && wrong[0].contains("beyond"), "{wrong:?}");
    }
    let wrong = beyond(&|ours| _ = ours.apis.insert(9_999, fetch.clone()));
    assert!(wrong.len() == 2 && wrong[0].contains("9999") && wrong[0].contains("no name"), "{wrong:?}");
    let level = Feature { supported: (0, i16::MAX), finalized: None };
    let wrong = beyond(&|ours| _ = ours.features.insert("group.version".to_owned(), level.clone()));
    assert!(wrong.len() == 1 && wrong[0].contains("group.version"), "{wrong:?}");

    let mut wrong = vec![];
    let text = "where\there\twhy\nacks\tone thing\t\nonly\ttwo\nall\tis\twell\n";
    let rows = rows("x.tsv", text, ["where", "here", "why"], &mut wrong);
    assert_eq!(rows.len(), 2);
    assert_eq!(wrong, ["x.tsv:2: `why` is empty", "x.tsv:3: 2 columns and not 3"]);
    let sources = Sources { ours: kafka.clone(), kafka, differences: rows, tried: vec![] };
    assert!(generated("no markers", &sources).is_err());
}
