//! Style and structure as tests: layers, sizes, banned calls, dependency policy, and documents that must agree with
//! what they describe.
//!
//! Reads the sources as text and never runs them. A rule that fires names the file and line, and what to do instead.
//! Ratchets (sizes) only ever go down.

#[path = "tidy/source.rs"]
mod source;

use source::{Source, root, sources, walk};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Hard bound of a file's non-test lines, and the two ratchets over all files.
const FILE_LINES: usize = 700;
const FILE_LINES_MEDIAN: usize = 150;
const FILE_LINES_P90: usize = 400;
const FUNCTION_LINES: usize = 70;

/// Calls that non-test code must not make: text, the modules that may, and what to use instead.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("SystemTime::now", &["env"], "the wall clock comes from env::Clock"),
    ("Instant::now", &["env"], "elapsed time comes from env::Clock, or tokio::time::Instant"),
    ("thread_rng", &[], "randomness comes from env::Entropy"),
    ("getrandom::", &["env"], "randomness comes from env::Entropy"),
    ("rand::", &[], "randomness comes from env::Entropy"),
    ("thread::sleep", &["env"], "wait on a condition or a channel with a timeout"),
    ("unsafe ", &[], "the crate forbids unsafe code"),
    ("todo!", &[], "finish it, or leave it out"),
    ("unimplemented!", &[], "finish it, or leave it out"),
    ("dbg!", &[], "use tracing"),
    (".unwrap()", &[], "handle the error, or expect() with the reason why it cannot happen"),
    ("println!", &["cli", "main", "app"], "use tracing; only commands print"),
    ("print!", &["cli", "main", "app"], "use tracing; only commands print"),
    ("to_socket_addrs", &[], "names go through hickory-resolver: the C library's resolver loads host files"),
    ("lookup_host", &[], "names go through hickory-resolver: the C library's resolver loads host files"),
    ("allow(dead_code)", &[], "remove what nothing calls"),
];

fn report(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}\n", problems.join("\n  "));
}

/// One row of the table in `src/lib.rs`: `//! | tier | modules | one job | sole user of |`.
struct Layer {
    tier: u32,
    /// Row of the table and place in it: a module may also use those named before it in its own row.
    place: (usize, usize),
    vendors: Vec<String>,
}

fn layers() -> BTreeMap<String, Layer> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs is readable");
    let mut layers = BTreeMap::new();
    for (row, line) in lib.lines().filter_map(|l| l.strip_prefix("//! |")).enumerate() {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let Ok(tier) = cells[0].parse() else { continue };
        let names = |cell: &str| -> Vec<String> {
            let words = cell.split(',').map(|w| w.trim().trim_matches('`').trim_end_matches(".rs").replace('-', "_"));
            words.filter(|w| !w.is_empty()).collect()
        };
        for (index, module) in names(cells[1]).into_iter().enumerate() {
            let vendors = cells.get(3).map(|c| names(c)).unwrap_or_default();
            layers.insert(module, Layer { tier, place: (row, index), vendors });
        }
    }
    assert!(layers.len() >= 5, "src/lib.rs has no table of layers (lines like `//! | 0 | base | one job | vendor |`)");
    layers
}

#[test]
fn every_module_imports_only_from_lower_tiers() {
    let layers = layers();
    let mut problems = vec![];
    for file in sources("src") {
        let Some(own) = layers.get(&file.module) else {
            if !matches!(file.module.as_str(), "lib" | "main") {
                problems.push(format!("{}: module `{}` is not in the table of src/lib.rs", file.path, file.module));
            }
            continue;
        };
        for (line, target) in file.crate_imports() {
            if target == file.module {
                continue;
            }
            let Some(other) = layers.get(&target) else { continue };
            let earlier_in_row = other.place.0 == own.place.0 && other.place.1 < own.place.1;
            if other.tier >= own.tier && !earlier_in_row {
                let place = format!("{}:{line}", file.path);
                problems
                    .push(format!("{place}: {} (tier {}) uses {target} (tier {})", file.module, own.tier, other.tier));
            }
        }
    }
    report("a module imports only from lower tiers", &problems);
}

#[test]
fn every_vendor_crate_has_one_home() {
    let layers = layers();
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, layer) in &layers {
        layer.vendors.iter().for_each(|v| homes.entry(v).or_default().push(module));
    }
    assert!(homes.len() >= 3, "the table of src/lib.rs names no vendor crates in its fourth column");
    let mut problems = vec![];
    for file in sources("src") {
        for (number, line) in file.code_lines() {
            for (vendor, home) in &homes {
                if !home.contains(&file.module.as_str()) && source::uses_path(line, vendor) {
                    problems.push(format!("{}:{number}: {vendor} is used only in {home:?}", file.path));
                }
            }
        }
    }
    report("each vendor crate has one home", &problems);
}

#[test]
fn banned_calls_stay_out() {
    let mut problems = vec![];
    for file in sources("src") {
        for (number, line) in file.code_lines() {
            for (text, homes, instead) in BANNED {
                let tokio_time = *text == "Instant::now" && file.code.contains("tokio::time::");
                if source::contains_token(line, text) && !homes.contains(&file.module.as_str()) && !tokio_time {
                    problems.push(format!("{}:{number}: `{text}`: {instead}", file.path));
                }
            }
        }
    }
    for file in sources("tests").iter().chain(&sources("src")) {
        for (number, line) in file.text.lines().enumerate() {
            if line.trim() == "#[ignore]" {
                problems.push(format!("{}:{}: an ignored test says why: #[ignore = \"…\"]", file.path, number + 1));
            }
        }
    }
    for entry in ["src/lib.rs", "src/main.rs"] {
        let text = std::fs::read_to_string(root().join(entry)).expect("an entry file is readable");
        if !text.contains("#![forbid(unsafe_code)]") {
            problems.push(format!("{entry}: #![forbid(unsafe_code)] is missing"));
        }
    }
    report("banned calls", &problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let all = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let problems: Vec<String> = all
        .filter(|f| !f.text.starts_with("//! "))
        .map(|f| format!("{}: begin with `//! `: its one job", f.path))
        .collect();
    report("every file opens with its one job", &problems);
}

#[test]
fn files_and_functions_stay_small() {
    let mut problems = vec![];
    let mut sizes = vec![];
    for file in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let lines = file.non_test_lines();
        if file.path.starts_with("src/") && lines > 0 {
            sizes.push(lines);
        }
        if lines > FILE_LINES {
            problems.push(format!("{}: {lines} lines outside tests; {FILE_LINES} at most", file.path));
        }
        for (line, name, length) in file.functions() {
            if length > FUNCTION_LINES {
                problems.push(format!("{}:{line}: fn {name} has {length} lines; {FUNCTION_LINES} at most", file.path));
            }
        }
    }
    sizes.sort_unstable();
    if sizes.len() >= 10 {
        let (median, p90) = (sizes[sizes.len() / 2], sizes[sizes.len() * 9 / 10]);
        println!("{} files: median {median} lines, p90 {p90}, longest {}", sizes.len(), sizes[sizes.len() - 1]);
        if median > FILE_LINES_MEDIAN {
            problems.push(format!("the median file has {median} lines; {FILE_LINES_MEDIAN} at most"));
        }
        if p90 > FILE_LINES_P90 {
            problems.push(format!("one file in ten has more than {p90} lines; {FILE_LINES_P90} at most"));
        }
    }
    report("files and functions stay small", &problems);
}

#[test]
fn nothing_names_this_machine_or_a_registry() {
    // Written in halves, so that this file does not match itself.
    let hosts = [("crates", ".io"), ("repo.", "maven"), ("pypi", ".org"), ("proxy.", "golang"), ("registry.", "npmjs")];
    let paths = [("/ro", "ot/"), ("/wo", "rk/"), ("/fa", "rm/"), ("/home", "/")];
    let words: Vec<String> = hosts.iter().chain(&paths).map(|(a, b)| format!("{a}{b}")).collect();
    let mut problems = vec![];
    for path in walk(&root()) {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue }; // a binary fixture
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let own_word = |w: &str| line.contains(w) && !path_goes_on(line, w);
            problems.extend(words.iter().filter(|w| own_word(w)).map(|w| format!("{path}:{}: `{w}`", number + 1)));
        }
    }
    report("no path of a machine, no registry's host", &problems);
}

/// Whether every occurrence of a path word continues a longer path, as in `some/work/`.
fn path_goes_on(line: &str, word: &str) -> bool {
    word.starts_with('/')
        && line
            .match_indices(word)
            .all(|(at, _)| line[..at].ends_with(|c: char| c.is_alphanumeric() || "}._-".contains(c)))
}

#[test]
fn commands_in_the_documents_exist() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("Makefile is readable");
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|l| l.split_once(':')).map(|(t, _)| t).filter(|t| !t.contains(' ')).collect();
    let documents = walk(&root()).into_iter().filter(|p| p.ends_with(".md"));
    let mut problems = vec![];
    for path in documents {
        let text = std::fs::read_to_string(root().join(&path)).expect("a document is readable");
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.starts_with("```");
            for target in make_commands(line, fenced).filter(|t| !targets.contains(t.as_str())) {
                problems.push(format!("{path}:{}: the Makefile has no target `{target}`", number + 1));
            }
        }
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md is readable");
    let start: String = readme.lines().take(10).collect::<Vec<_>>().join("\n");
    if !(start.contains("make run") && start.contains("make test")) {
        problems.push("README.md: its first lines are the two commands, make run and make test".into());
    }
    report("commands in documents exist", &problems);
}

/// The targets that a line of Markdown tells the reader to make: in backquotes, or at the start of a fenced line.
fn make_commands(line: &str, fenced: bool) -> impl Iterator<Item = String> + '_ {
    let starts = line.match_indices("make ").filter(move |(at, _)| line[..*at].ends_with('`') || (fenced && *at == 0));
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>();
    starts.map(move |(at, _)| word(&line[at + 5..])).filter(|w| !w.is_empty())
}

#[test]
fn linked_crates_follow_deny_toml() {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is readable");
    let policy: toml::Table = text.parse().expect("deny.toml is TOML");
    let allowed: BTreeSet<&str> =
        policy["licenses"]["allow"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect();
    let banned: BTreeMap<&str, &str> = policy["bans"]["deny"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|b| (b["crate"].as_str().expect("a name"), b["reason"].as_str().expect("a reason")))
        .collect();
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--target", "x86_64-unknown-linux-gnu", "-e", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .expect("cargo tree starts");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let mut problems = BTreeSet::new();
    let mut seen = 0;
    for line in String::from_utf8_lossy(&tree.stdout).lines().filter(|l| !l.trim().is_empty()) {
        let (package, license) = line.split_once('|').unwrap_or((line, ""));
        let license = license.trim_end_matches(" (*)");
        let name = package.split(' ').next().unwrap_or(package);
        seen += 1;
        if let Some(reason) = banned.get(name) {
            problems.insert(format!("{package}: banned: {reason}"));
        }
        if !license_allowed(license, &allowed) {
            problems.insert(format!("{package}: licence `{license}` is not on the list of deny.toml"));
        }
    }
    assert!(seen > 20, "cargo tree named only {seen} crates");
    report("dependencies follow deny.toml", &problems.into_iter().collect::<Vec<_>>());
}

/// An SPDX expression, read strictly enough for a policy: every AND part must hold, one OR part suffices.
fn license_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    if allowed.contains(expression) {
        return true;
    }
    let split = |separator: &str| {
        let (mut parts, mut depth, mut start) = (vec![], 0i32, 0);
        for (at, c) in expression.char_indices() {
            depth += (c == '(') as i32 - (c == ')') as i32;
            if depth == 0 && at >= start && expression[at..].starts_with(separator) {
                parts.push(&expression[start..at]);
                start = at + separator.len();
            }
        }
        parts.push(&expression[start..]);
        parts
    };
    if let [_, _, ..] = split(" AND ")[..] {
        return split(" AND ").iter().all(|p| license_allowed(p, allowed));
    }
    for separator in [" OR ", "/"] {
        if let [_, _, ..] = split(separator)[..] {
            return split(separator).iter().any(|p| license_allowed(p, allowed));
        }
    }
    expression.strip_prefix('(').and_then(|e| e.strip_suffix(')')).is_some_and(|e| license_allowed(e, allowed))
}

#[test]
fn the_checks_themselves_catch_what_they_are_for() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "ISC"]);
    assert!(license_allowed("MIT OR GPL-3.0", &allowed));
    assert!(license_allowed("ISC AND (MIT OR GPL-3.0)", &allowed));
    assert!(!license_allowed("MIT AND GPL-3.0", &allowed));
    assert!(!license_allowed("", &allowed));
    let text = "//! x\nuse crate::{base::ids, wal};\nfn a() {\n    // y.unwrap()\n    let s = \"rand::\"; x.unwrap();\n}\n\
                #[cfg(test)]\nmod tests {\n    fn b() {\n        y.unwrap();\n    }\n}\n";
    let file = Source::new("src/kv/x.rs".into(), text.into(), false);
    assert_eq!(file.module, "kv");
    assert_eq!(file.crate_imports(), [(2, "base".to_string()), (2, "wal".to_string())]);
    let found: Vec<usize> = file.code_lines().filter(|(_, l)| l.contains(".unwrap()")).map(|(n, _)| n).collect();
    assert_eq!(found, [5], "comments, strings and tests do not count");
    assert!(!file.code_lines().any(|(_, l)| source::contains_token(l, "rand::")));
    assert_eq!(file.functions(), [(3, "a".to_string(), 4), (9, "b".to_string(), 3)]);
    assert_eq!(file.non_test_lines(), 6);
    assert!(source::uses_path("let x = rustls::A;", "rustls") && !source::uses_path("tokio_rustls::A", "rustls"));
    assert_eq!(make_commands("run `make test-long` now", false).collect::<Vec<_>>(), ["test-long"]);
    assert!(path_goes_on("a/srv/x", "/srv/") && !path_goes_on("cd /srv/x", "/srv/"));
}
