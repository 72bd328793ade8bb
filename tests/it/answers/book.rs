//! The cases of one area with their answers, and how they are compared with those of a real Kafka.
//!
//! A fixture is written by a run against a real Kafka and read by every other run. What differs on purpose is in
//! `differences.txt`: which cases, what Kafka says there, what we say, and why. A difference that shows nowhere is stale.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Named cases in the order in which they ran.
#[derive(Debug, Default)]
pub struct Book {
    pub cases: Vec<Case>,
    /// How many requests were answered.
    pub answers: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub name: String,
    pub lines: Vec<String>,
}

/// One deliberate difference: in the cases of an area that fit, `kafka` reads `here`.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub cases: String,
    pub kafka: String,
    pub here: String,
    pub because: String,
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers")
}

impl Book {
    /// Adds the answers of one case, one a version; versions that answer alike share a line.
    pub fn add(&mut self, name: &str, answers: &[(i16, String)]) {
        let grouped = grouped(answers);
        self.push(
            name,
            answers.len(),
            grouped.iter().map(|(versions, text)| (format!("v{}", ranges(versions)), *text)),
        );
    }

    /// Adds the answers to several requests of the newest version, each with its label.
    pub fn add_rows(&mut self, name: &str, answers: &[(String, String)]) {
        let grouped = grouped(answers);
        self.push(name, answers.len(), grouped.iter().map(|(labels, text)| (format!("{}:", labels.join(" ")), *text)));
    }

    fn push<'a>(&mut self, name: &str, answers: usize, labelled: impl Iterator<Item = (String, &'a str)>) {
        assert!(self.cases.iter().all(|c| c.name != name), "two cases are named `{name}`");
        let lines = labelled.flat_map(|(label, text)| {
            let label = Some(label).into_iter().chain(std::iter::repeat(String::from(" ")));
            label.zip(text.lines()).map(|(label, line)| format!("{label} {line}")).collect::<Vec<_>>()
        });
        self.cases.push(Case { name: name.to_string(), lines: lines.collect() });
        self.answers += answers;
    }

    pub fn text(&self, area: &str) -> String {
        let mut text =
            format!("# {area}: what Apache Kafka 4.3.1 answers (docs/testing.md says how this is written).\n");
        for case in &self.cases {
            let _ = write!(text, "\n{}\n", case.name);
            case.lines.iter().for_each(|line| _ = writeln!(text, "  {line}"));
        }
        text
    }

    pub fn parse(text: &str) -> Book {
        let mut book = Book::default();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match (line.strip_prefix("  "), book.cases.last_mut()) {
                (Some(answer), Some(case)) => case.lines.push(answer.to_string()),
                _ => book.cases.push(Case { name: line.to_string(), lines: vec![] }),
            }
        }
        book
    }

    /// What is wrong with these answers, where `kafka` are those of a real Kafka: one paragraph a case.
    pub fn compare(&self, area: &str, kafka: &Book, differences: &[Difference]) -> Vec<String> {
        let mut used = vec![false; differences.len()];
        let mut wrong = vec![];
        let ours: BTreeMap<&str, &Case> = self.cases.iter().map(|c| (c.name.as_str(), c)).collect();
        for theirs in &kafka.cases {
            let Some(own) = ours.get(theirs.name.as_str()) else {
                wrong.push(format!("{}: is in the fixture and did not run", theirs.name));
                continue;
            };
            let fits = |d: &Difference| fits(&d.cases, &format!("{area}: {}", theirs.name));
            let mut expected = theirs.lines.join("\n");
            for (difference, used) in differences.iter().zip(&mut used).filter(|(d, _)| fits(d)) {
                *used |= expected.contains(&difference.kafka);
                expected = expected.replace(&difference.kafka, &difference.here);
            }
            let expected: Vec<&str> = expected.lines().collect();
            if expected != own.lines {
                let missing =
                    expected.iter().filter(|l| !own.lines.iter().any(|o| o == *l)).map(|l| format!("\n  - {l}"));
                let new = own.lines.iter().filter(|l| !expected.contains(&l.as_str())).map(|l| format!("\n  + {l}"));
                wrong.push(format!("{}{}", theirs.name, missing.chain(new).collect::<String>()));
            }
        }
        let known = |name: &str| kafka.cases.iter().any(|c| c.name == name);
        wrong.extend(ours.keys().filter(|n| !known(n)).map(|name| format!("{name}: is not in the fixture")));
        let own_area = format!("{area}: ");
        let stale = differences.iter().zip(used).filter(|(d, used)| !used && d.cases.starts_with(&own_area));
        wrong.extend(stale.map(|(d, _)| format!("differences.txt: `{}` shows nowhere: {}", d.cases, d.kafka)));
        wrong
    }
}

/// What answers alike, in the order in which it was first answered.
fn grouped<L: Clone>(answers: &[(L, String)]) -> Vec<(Vec<L>, &str)> {
    let mut groups: Vec<(Vec<L>, &str)> = vec![];
    for (label, answer) in answers {
        match groups.iter_mut().find(|(_, text)| text == answer) {
            Some((labels, _)) => labels.push(label.clone()),
            None => groups.push((vec![label.clone()], answer)),
        }
    }
    groups
}

/// Versions as ranges: 0-3,5.
fn ranges(versions: &[i16]) -> String {
    let mut parts: Vec<(i16, i16)> = vec![];
    for version in versions {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *version => *end = *version,
            _ => parts.push((*version, *version)),
        }
    }
    let shown = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    shown.collect::<Vec<_>>().join(",")
}

/// Whether a pattern with `*` fits a whole text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(tail) = text.strip_prefix(start) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| fits(rest, &tail[at..]))
}

/// Reads blocks of the four lines `in`, `kafka`, `here`, `because`.
pub fn differences(text: &str) -> Result<Vec<Difference>, String> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).collect();
    let blocks = lines.chunks(4).map(|block| {
        let part = |at: usize, name: &str| {
            let line = block.get(at).and_then(|l| l.strip_prefix(name)).map(str::trim);
            line.map(str::to_string).ok_or_else(|| format!("differences.txt: `{name}` is missing in {block:?}"))
        };
        let (cases, kafka) = (part(0, "in")?, part(1, "kafka")?);
        let (here, because) = (part(2, "here")?, part(3, "because")?);
        if kafka.is_empty() || kafka == here || because.is_empty() {
            return Err(format!("differences.txt: what differs, and why: {block:?}"));
        }
        Ok(Difference { cases, kafka, here, because })
    });
    blocks.collect()
}

#[test]
fn a_wrong_answer_a_missing_case_and_a_stale_difference_are_found() {
    let mut kafka = Book::default();
    kafka
        .add("join: no group", &[(0, "error_code=24".into()), (1, "error_code=24".into()), (3, "error_code=5".into())]);
    kafka.add("join: twice", &[(0, "error_code=0\n+ state".into())]);
    assert_eq!(kafka.cases[0].lines, ["v0-1 error_code=24", "v3 error_code=5"]);
    assert_eq!(Book::parse(&kafka.text("groups")).cases, kafka.cases);
    assert!(kafka.compare("groups", &kafka, &[]).is_empty());

    let mut ours = Book::default();
    ours.add("join: no group", &[(0, "error_code=24".into()), (1, "error_code=24".into()), (3, "error_code=6".into())]);
    let wrong = ours.compare("groups", &kafka, &[]);
    assert!(wrong.len() == 2 && wrong[0].contains("v3 error_code=6") && wrong[1].contains("did not run"), "{wrong:?}");
    ours.add("join: twice", &[(0, "error_code=0".into())]);
    assert!(ours.compare("groups", &kafka, &[])[1].contains("+ state"), "a state that changed is part of the answer");

    let text = "# why\nin groups: join: no*\nkafka error_code=5\nhere error_code=6\nbecause it is so\n\n\
                in groups: join: twice\nkafka \nhere x\nbecause y\n";
    assert!(differences(text).is_err(), "a difference from nothing");
    let listed = differences(&text.replace("kafka \n", "kafka error_code=9\n")).expect("two differences");
    let wrong = ours.compare("groups", &kafka, &listed);
    assert!(wrong.len() == 2 && wrong[0].starts_with("join: twice"), "{wrong:?}");
    assert!(wrong[1].contains("shows nowhere"), "{wrong:?}");
    assert!(kafka.compare("groups", &kafka, &listed[..1])[0].contains("error_code=6"), "one that no longer differs");
}
