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
}

/// A case, and the answer under each of its labels: versions as `v3`, or what a row of a table is about.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub answers: Vec<(String, String)>,
}

/// One deliberate difference: what answers of a real Kafka (`*` for all of them) read here, in the cases and under the
/// labels that fit.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub cases: String,
    pub labels: String,
    pub kafka: String,
    pub here: String,
    pub because: String,
}

/// Between labels that are answered alike.
const BETWEEN: &str = " | ";

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers")
}

/// A fixture puts labels together that are answered alike, so their order is lost.
impl PartialEq for Case {
    fn eq(&self, other: &Case) -> bool {
        let sorted = |case: &Case| case.answers.iter().cloned().collect::<BTreeMap<_, _>>();
        self.name == other.name && self.answers.len() == other.answers.len() && sorted(self) == sorted(other)
    }
}

impl Case {
    /// Labels that are answered alike share a line; further lines of an answer are what it changed.
    fn lines(&self) -> Vec<String> {
        let mut groups: Vec<(Vec<&str>, &str)> = vec![];
        for (label, answer) in &self.answers {
            match groups.iter_mut().find(|(_, text)| text == answer) {
                Some((labels, _)) => labels.push(label),
                None => groups.push((vec![label], answer)),
            }
        }
        let shown = groups.iter().flat_map(|(labels, answer)| {
            let label = versions(labels).unwrap_or_else(|| labels.join(BETWEEN));
            let mut lines = answer.lines();
            let first = format!("{label}: {}", lines.next().unwrap_or_default());
            std::iter::once(first).chain(lines.map(|line| format!("  {line}"))).collect::<Vec<_>>()
        });
        shown.collect()
    }

    fn parse(name: &str, lines: &[&str]) -> Case {
        let mut answers: Vec<(String, String)> = vec![];
        let mut group = 0;
        for line in lines {
            if let Some(change) = line.strip_prefix("  ") {
                answers[group..].iter_mut().for_each(|(_, answer)| answer.extend(["\n", change]));
                continue;
            }
            let (labels, answer) = line.split_once(": ").unwrap_or((line, ""));
            group = answers.len();
            let labels = single_versions(labels).unwrap_or_else(|| labels.split(BETWEEN).map(str::to_string).collect());
            answers.extend(labels.into_iter().map(|label| (label, answer.to_string())));
        }
        Case { name: name.to_string(), answers }
    }

    /// With the differences of this case; those that were of use are noted.
    fn here(&self, area: &str, differences: &[Difference], used: &mut [bool]) -> Case {
        let mut here = self.clone();
        let name = format!("{area}: {}", self.name);
        for (difference, used) in differences.iter().zip(used).filter(|(d, _)| fits(&d.cases, &name)) {
            let versions = single_versions(&difference.labels);
            let meant = |label: &String| match &versions {
                Some(versions) => versions.contains(label),
                None => fits(&difference.labels, label),
            };
            for (_, answer) in here.answers.iter_mut().filter(|(label, _)| meant(label)) {
                let kafka = if difference.kafka == "*" { answer.clone() } else { difference.kafka.clone() };
                *used |= answer.contains(&kafka) && kafka != difference.here;
                *answer = answer.replace(&kafka, &difference.here);
            }
        }
        here
    }
}

impl Book {
    /// Adds the answers of one case.
    pub fn add(&mut self, name: &str, answers: Vec<(String, String)>) {
        assert!(self.cases.iter().all(|c| c.name != name), "two cases are named `{name}`");
        self.cases.push(Case { name: name.to_string(), answers });
    }

    /// How many requests were answered.
    pub fn answers(&self) -> usize {
        self.cases.iter().map(|case| case.answers.len()).sum()
    }

    pub fn text(&self, area: &str) -> String {
        let mut text =
            format!("# {area}: what Apache Kafka 4.3.1 answers (docs/testing.md says how this is written).\n");
        for case in &self.cases {
            let _ = write!(text, "\n{}\n", case.name);
            case.lines().iter().for_each(|line| _ = writeln!(text, "  {line}"));
        }
        text
    }

    pub fn parse(text: &str) -> Book {
        let mut cases: Vec<(&str, Vec<&str>)> = vec![];
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match (line.strip_prefix("  "), cases.last_mut()) {
                (Some(answer), Some((_, lines))) => lines.push(answer),
                _ => cases.push((line, vec![])),
            }
        }
        Book { cases: cases.into_iter().map(|(name, lines)| Case::parse(name, &lines)).collect() }
    }

    /// What is wrong with these answers, where `kafka` are those of a real Kafka: one paragraph a case.
    pub fn compare(&self, area: &str, kafka: &Book, differences: &[Difference]) -> Vec<String> {
        let mut used = vec![false; differences.len()];
        let mut wrong = vec![];
        let ours: BTreeMap<&str, &Case> = self.cases.iter().map(|c| (c.name.as_str(), c)).collect();
        for theirs in &kafka.cases {
            let expected = theirs.here(area, differences, &mut used);
            match ours.get(theirs.name.as_str()) {
                Some(own) if **own == expected => {}
                Some(own) => wrong.push(format!("{}\n{}", theirs.name, apart(&expected, own))),
                None => wrong.push(format!("{}: is in the fixture and did not run", theirs.name)),
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

/// Where two forms of a case are not the same.
fn apart(expected: &Case, own: &Case) -> String {
    let only = |case: &Case, other: &Case| {
        let answers = case.answers.iter().filter(|answer| !other.answers.contains(answer)).cloned().collect();
        Case { name: String::new(), answers }.lines()
    };
    let missing = only(expected, own).into_iter().map(|line| format!("  - {line}"));
    missing.chain(only(own, expected).into_iter().map(|line| format!("  + {line}"))).collect::<Vec<_>>().join("\n")
}

/// Versions as ranges, `v0-3,5`, if the labels are versions.
fn versions(labels: &[&str]) -> Option<String> {
    let versions = labels.iter().map(|l| l.strip_prefix('v')?.parse::<i16>().ok()).collect::<Option<Vec<_>>>()?;
    let mut parts: Vec<(i16, i16)> = vec![];
    for version in versions {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == version => *end = version,
            _ => parts.push((version, version)),
        }
    }
    let shown = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    Some(format!("v{}", shown.collect::<Vec<_>>().join(",")))
}

/// The labels that `versions` has put together.
fn single_versions(label: &str) -> Option<Vec<String>> {
    let mut all = vec![];
    for part in label.strip_prefix('v')?.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend((first.parse::<i16>().ok()?..=last.parse().ok()?).map(|version| format!("v{version}")));
    }
    Some(all)
}

/// Whether a pattern with `*` fits a whole text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(tail) = text.strip_prefix(start) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| fits(rest, &tail[at..]))
}

/// Reads blocks of the lines `in`, `at` (if not everywhere; versions may be ranges), `kafka`, `here`, `because`. A `\n`
/// stands for a line's end.
pub fn differences(text: &str) -> Result<Vec<Difference>, String> {
    let blocks = text.split("\n\n").map(|block| block.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>());
    let read = |block: Vec<&str>| {
        let part = |name: &str| block.iter().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::trim);
        let must = |name: &str| {
            let text = part(name).filter(|t| !t.is_empty());
            text.map(|t| t.replace("\\n", "\n")).ok_or_else(|| format!("differences.txt: no `{name}` in {block:?}"))
        };
        let labels = part("at").unwrap_or("*").to_string();
        let (cases, kafka, because) = (must("in")?, must("kafka")?, must("because")?);
        let here = part("here").map(|t| t.replace("\\n", "\n")).unwrap_or_default();
        Ok(Difference { cases, labels, kafka, here, because })
    };
    blocks.filter(|block| !block.iter().all(|l| l.is_empty())).map(read).collect()
}

#[test]
fn a_wrong_answer_a_missing_case_and_a_stale_difference_are_found() {
    let answers = |all: &[(&str, &str)]| all.iter().map(|(l, a)| (l.to_string(), a.to_string())).collect::<Vec<_>>();
    let mut kafka = Book::default();
    kafka.add("join: no group", answers(&[("v0", "error_code=24"), ("v1", "error_code=24"), ("v3", "error_code=5")]));
    kafka.add(
        "set: a name",
        answers(&[("`a`", "error_code=0\n+ a: b"), ("` `", "error_code=0\n+ a: b"), ("null", "x")]),
    );
    assert_eq!(kafka.cases[0].lines(), ["v0-1: error_code=24", "v3: error_code=5"]);
    assert_eq!(kafka.cases[1].lines(), ["`a` | ` `: error_code=0", "  + a: b", "null: x"]);
    assert_eq!(Book::parse(&kafka.text("groups")).cases, kafka.cases);
    assert!(kafka.compare("groups", &kafka, &[]).is_empty());

    let mut ours = Book::default();
    ours.add("join: no group", answers(&[("v0", "error_code=24"), ("v1", "error_code=24"), ("v3", "error_code=6")]));
    let wrong = ours.compare("groups", &kafka, &[]);
    assert!(
        wrong.len() == 2 && wrong[0].contains("+ v3: error_code=6") && wrong[1].contains("did not run"),
        "{wrong:?}"
    );
    ours.add("set: a name", answers(&[("`a`", "error_code=0"), ("` `", "error_code=0\n+ a: b"), ("null", "x")]));
    assert!(ours.compare("groups", &kafka, &[])[1].contains("+ a: b"), "a state that changed is part of the answer");

    let text = "# why\n\nin groups: join: no*\nkafka error_code=5\nhere error_code=6\nbecause it is so\n\n\
                in groups: set: *\nat `a`\nkafka *\nhere error_code=0\nbecause y\n";
    assert!(differences(&text.replace("kafka *", "")).is_err(), "a difference from nothing");
    let listed = differences(text).expect("two differences");
    assert_eq!(ours.compare("groups", &kafka, &listed), Vec::<String>::new());
    let stale = ours.compare("groups", &ours, &listed);
    assert!(stale.len() == 2 && stale.iter().all(|s| s.contains("shows nowhere")), "{stale:?}");
    assert!(kafka.compare("groups", &kafka, &listed[..1])[0].contains("error_code=6"), "one that no longer differs");
}
