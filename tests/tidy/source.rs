//! Rust sources as text with comments, strings and test code taken out: just enough of a reader for `tests/tidy.rs`.
//!
//! Relies on the sources being formatted by rustfmt (a block ends at its own indentation).

use std::path::{Path, PathBuf};

/// The repository: at run time, so that a built test can be pointed at another copy.
pub fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// Every file of the repository, as paths relative to `root`, build products and hidden version control left out.
pub fn walk(root: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder is readable").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            // In a second work tree `.git` is a file.
            if [".git", "target", "dist", "casemate-data"].iter().any(|skipped| name == *skipped) {
                continue;
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// The Rust sources below a folder of the repository; none if there is no such folder.
pub fn sources(folder: &str) -> Vec<Source> {
    let folder = format!("{folder}/");
    let read = |path: &String| std::fs::read_to_string(root().join(path)).expect("a source is UTF-8");
    let paths: Vec<String> =
        walk(&root()).into_iter().filter(|p| p.starts_with(&folder) && p.ends_with(".rs")).collect();
    let test_only: Vec<String> = paths.iter().flat_map(|p| test_modules(p, &read(p))).collect();
    let is_test = |p: &String| {
        !p.starts_with("src/") || test_only.iter().any(|t| *p == format!("{t}.rs") || p.starts_with(&format!("{t}/")))
    };
    paths.iter().map(|p| Source::new(p.clone(), read(p), is_test(p))).collect()
}

/// Paths without extension of the modules that a file declares for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let base = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
        _ => path.trim_end_matches(".rs").to_string(),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = |pair: &[&str]| -> Option<String> {
        let name = pair[1].trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?;
        is_test_attribute(pair[0]).then(|| format!("{base}/{name}"))
    };
    lines.windows(2).filter_map(declared).collect()
}

fn is_test_attribute(line: &str) -> bool {
    ["#[cfg(test)", "#[cfg(any(test", "#[cfg(all(test"].iter().any(|a| line.trim_start().starts_with(a))
}

/// One file.
pub struct Source {
    pub path: String,
    /// The first folder below `src`, or the file's own name there.
    pub module: String,
    pub text: String,
    /// The text with comments, the contents of strings and the lines of test code blanked; lines keep their numbers.
    pub code: String,
    test_file: bool,
}

impl Source {
    pub fn new(path: String, text: String, test_file: bool) -> Source {
        let inner = path.split_once('/').map_or(path.as_str(), |(_, rest)| rest);
        let module = inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs").to_string();
        let bare = without_comments_and_strings(&text);
        let code = if test_file { "\n".repeat(text.lines().count()) } else { without_tests(&bare) };
        Source { path, module, text, code, test_file }
    }

    /// Numbered lines of code outside tests.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(n, l)| (n + 1, l)).filter(|(_, l)| !l.trim().is_empty())
    }

    /// Lines of the file outside its tests; a file of tests counts whole outside `src`, and not inside.
    pub fn non_test_lines(&self) -> usize {
        match (self.test_file, self.path.starts_with("src/")) {
            (true, true) => 0,
            (true, false) => self.text.lines().count(),
            (false, _) => self.text.lines().count() - test_line_count(&without_comments_and_strings(&self.text)),
        }
    }

    /// Every `crate::name` with its line, groups in braces resolved one level deep.
    pub fn crate_imports(&self) -> Vec<(usize, String)> {
        let mut found = vec![];
        for (at, _) in self.code.match_indices("crate::") {
            if self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + 7..];
            match rest.strip_prefix('{') {
                None => found.push((line, identifier(rest))),
                Some(group) => found.extend(group_heads(group).into_iter().map(|name| (line, name))),
            }
        }
        found
    }

    /// Functions (tests included) with their first line and length.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let bare = without_comments_and_strings(&self.text);
        let lines: Vec<&str> = bare.lines().collect();
        let mut found = vec![];
        for (i, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            if line.ends_with(['}', ';']) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let own = |l: &&str| l.len() > indent && l[..indent].trim().is_empty() && !l[indent..].starts_with(' ');
            let end = lines[i + 1..].iter().position(|l| own(l) && (l[indent..].starts_with('}') || l.ends_with(';')));
            if let Some(end) = end
                && lines[i + 1 + end][indent..].starts_with('}')
            {
                found.push((i + 1, name, end + 2));
            }
        }
        found
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        match words.next()? {
            "fn" => return words.next().map(identifier),
            w if w.starts_with("pub") || ["async", "const", "unsafe", "extern", "default"].contains(&w) => continue,
            _ => return None,
        }
    }
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first identifier of each element of a brace group whose opening brace is already taken.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut expect) = (0, vec![], true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect = true,
            c if expect && c.is_alphanumeric() => {
                heads.push(identifier(&group[at..]));
                expect = false;
            }
            _ => {}
        }
    }
    heads
}

/// Whether a line names `vendor` as the first part of a path, or imports it.
pub fn uses_path(line: &str, vendor: &str) -> bool {
    line.match_indices(vendor).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + vendor.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            && (after.starts_with("::") || (line.trim_start().starts_with("use ") && after.starts_with([';', ' '])))
    })
}

/// Whether a line has `token` where no longer word ends with it.
pub fn contains_token(line: &str, token: &str) -> bool {
    line.match_indices(token)
        .any(|(at, _)| token.starts_with('.') || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn test_line_count(bare: &str) -> usize {
    let lines: Vec<&str> = bare.lines().collect();
    test_ranges(&lines).iter().map(|r| r.len()).sum()
}

fn without_tests(bare: &str) -> String {
    let lines: Vec<&str> = bare.lines().collect();
    let ranges = test_ranges(&lines);
    let keep = |i: usize| !ranges.iter().any(|r| r.contains(&i));
    lines.iter().enumerate().map(|(i, l)| if keep(i) { format!("{l}\n") } else { "\n".into() }).collect()
}

/// The lines of items under a test attribute.
fn test_ranges(lines: &[&str]) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = vec![];
    for (i, line) in lines.iter().enumerate() {
        if !is_test_attribute(line) || ranges.last().is_some_and(|r| r.contains(&i)) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let ends = |l: &str| {
            let at_indent = l.len() > indent && l[..indent].trim().is_empty() && !l[indent..].starts_with([' ', '#']);
            at_indent && l.ends_with(['}', ';', ',']) || l.trim() == "}" && l.find('}') == Some(indent)
        };
        let end = lines[i + 1..].iter().position(|l| ends(l)).map_or(lines.len(), |n| i + n + 2);
        ranges.push(i..end);
    }
    ranges
}

/// Blanks comments and the contents of string and character literals; newlines stay.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let skip_to = |from: usize, end: &dyn Fn(usize) -> Option<usize>, out: &mut String| {
        let mut i = from;
        while i < chars.len() {
            if let Some(past) = end(i) {
                return past;
            }
            if chars[i] == '\n' {
                out.push('\n');
            }
            i += 1;
        }
        i
    };
    while i < chars.len() {
        let rest = &chars[i..];
        let word_before = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
        if rest.starts_with(&['/', '/']) {
            i = skip_to(i, &|at| (chars[at] == '\n').then_some(at), &mut out);
        } else if rest.starts_with(&['/', '*']) {
            i = skip_to(i + 2, &|at| chars[at..].starts_with(&['*', '/']).then_some(at + 2), &mut out);
        } else if rest[0] == 'r' && !word_before && raw_hashes(&rest[1..]).is_some() {
            let hashes = raw_hashes(&rest[1..]).unwrap_or(0);
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            i = skip_to(i + hashes + 2, &|at| chars[at..].starts_with(&close).then_some(at + close.len()), &mut out);
            out.push_str("\"\"");
        } else if rest[0] == '"' {
            let escaped = |at: usize| chars[i + 1..at].iter().rev().take_while(|c| **c == '\\').count() % 2 == 1;
            i = skip_to(i + 1, &|at| (chars[at] == '"' && !escaped(at)).then_some(at + 1), &mut out);
            out.push_str("\"\"");
        } else if rest[0] == '\'' && rest.len() > 2 && (rest[1] == '\\' || rest[2] == '\'') {
            i += 2 + chars[i + 2..].iter().position(|c| *c == '\'').unwrap_or(0) + 1;
            out.push_str("' '");
        } else {
            out.push(rest[0]);
            i += 1;
        }
    }
    out
}

/// The number of hashes if what follows an `r` opens a raw string.
fn raw_hashes(after: &[char]) -> Option<usize> {
    let hashes = after.iter().take_while(|c| **c == '#').count();
    (after.get(hashes) == Some(&'"')).then_some(hashes)
}
