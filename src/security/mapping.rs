//! Kafka's `ssl.principal.mapping.rules`: from the name in a certificate to the name of the principal (KIP-371).
//!
//! The first rule whose pattern matches the whole name decides; if none does the connection is refused. Patterns are
//! Java's: their shorthands for characters are rewritten to mean what they mean there, and what this regex engine
//! lacks (look-around, back-references, possessive quantifiers) or reads differently is refused when the rules are
//! read. It runs in linear time, so no name can stall a handshake. One difference stays: `(?i)` folds letters beyond
//! ASCII too.

use regex::{Captures, Regex};

/// Rules in the order of the setting.
#[derive(Debug)]
pub struct PrincipalRules(Vec<Rule>);

#[derive(Debug)]
enum Rule {
    /// `DEFAULT`: the name as it is.
    Keep,
    Rewrite {
        whole: Regex,
        part: Regex,
        replacement: Vec<Piece>,
        case: Case,
    },
}

#[derive(Debug, Clone, Copy)]
enum Case {
    Keep,
    Lower,
    Upper,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Group(usize),
}

/// Rules that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error(
        "ssl.principal.mapping.rules: `{0}` is neither DEFAULT nor RULE:pattern/replacement/ with an optional L or U"
    )]
    Form(String),
    #[error("ssl.principal.mapping.rules holds no rule and would refuse every client: write DEFAULT to keep the names")]
    Empty,
    #[error("ssl.principal.mapping.rules: the pattern `{pattern}` cannot be used ({reason}): rewrite it without that")]
    Pattern { pattern: String, reason: String },
    #[error("ssl.principal.mapping.rules: the replacement `{replacement}` cannot be used: {reason}")]
    Replacement { replacement: String, reason: &'static str },
}

impl Default for PrincipalRules {
    fn default() -> Self {
        PrincipalRules(vec![Rule::Keep])
    }
}

impl PrincipalRules {
    /// Reads the setting: rules separated by commas, spaces around them and empty ones ignored.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let mut rules = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (rule, after) = take_rule(rest)?;
            rules.extend(rule);
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(RuleError::Form(rest.to_owned())),
            };
        }
        if rules.is_empty() { Err(RuleError::Empty) } else { Ok(PrincipalRules(rules)) }
    }

    /// The name of the principal for the name in a certificate, or `None` if no rule matches.
    pub fn apply(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Keep => Some(name.to_owned()),
            Rule::Rewrite { whole, part, replacement, case } => whole.is_match(name).then(|| {
                let mapped = replace_all(part, replacement, name);
                match case {
                    Case::Keep => mapped,
                    Case::Lower => mapped.to_lowercase(),
                    Case::Upper => mapped.to_uppercase(),
                }
            }),
        })
    }
}

/// A pattern of Java's that matches whole texts, read as the patterns of the rules are.
#[derive(Debug, Clone)]
pub struct WholePattern(Regex);

impl WholePattern {
    /// The error is the reason why the pattern cannot be used.
    pub fn new(pattern: &str) -> Result<WholePattern, String> {
        let translated = translate(pattern).map_err(|reason| reason.to_string())?;
        let regex = Regex::new(&format!(r"\A(?:{translated})\z")).map_err(|e| last_line(&e.to_string()))?;
        Ok(WholePattern(regex))
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// The rule at the front, if one is there and not just a comma, and what follows it.
fn take_rule(text: &str) -> Result<(Option<Rule>, &str), RuleError> {
    if let Some(after) = text.strip_prefix("DEFAULT") {
        return Ok((Some(Rule::Keep), after));
    }
    if text.starts_with(',') {
        return Ok((None, text));
    }
    let bad = || RuleError::Form(text.to_owned());
    let body = text.strip_prefix("RULE:").ok_or_else(bad)?;
    let (pattern, body) = until_slash(body).ok_or_else(bad)?;
    let (replacement, body) = until_slash(body).ok_or_else(bad)?;
    let (case, after) = match body.as_bytes().first() {
        Some(b'L') => (Case::Lower, &body[1..]),
        Some(b'U') => (Case::Upper, &body[1..]),
        _ => (Case::Keep, body),
    };
    let translated = translate(pattern)
        .map_err(|reason| RuleError::Pattern { pattern: pattern.to_owned(), reason: reason.to_owned() })?;
    let compile = |text: &str| {
        Regex::new(text)
            .map_err(|e| RuleError::Pattern { pattern: pattern.to_owned(), reason: last_line(&e.to_string()) })
    };
    let part = compile(&translated)?;
    let whole = compile(&format!(r"\A(?:{translated})\z"))?;
    let replacement = parse_replacement(replacement, &part)
        .map_err(|reason| RuleError::Replacement { replacement: replacement.to_owned(), reason })?;
    Ok((Some(Rule::Rewrite { whole, part, replacement, case }), after))
}

/// Splits at the first slash without a backslash before it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let at = text.find(|c| {
        let found = c == '/' && !escaped;
        escaped = c == '\\' && !escaped;
        found
    })?;
    Some((&text[..at], &text[at + 1..]))
}

/// The regex crate draws the place of an error over several lines; the last one says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// A Java pattern in the words of the regex crate: ASCII character classes, `.` without all of Java's line ends.
fn translate(pattern: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(pattern.len());
    let mut class_depth = 0usize;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            push_escape(&mut out, chars.next().ok_or("it ends with a backslash")?)?;
            continue;
        }
        refuse_false_friends(c, class_depth > 0, chars.as_str())?;
        match c {
            '[' => class_depth += 1,
            ']' => class_depth = class_depth.saturating_sub(1),
            '.' if class_depth == 0 => {
                out.push_str(r"[^\n\r\x{85}\x{2028}\x{2029}]");
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    Ok(out)
}

fn push_escape(out: &mut String, escaped: char) -> Result<(), &'static str> {
    match escaped {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Z_a-z]"),
        'W' => out.push_str("[^0-9A-Z_a-z]"),
        's' => out.push_str(r"[\t\n\x0B\f\r ]"),
        'S' => out.push_str(r"[^\t\n\x0B\f\r ]"),
        // Plain characters in Java, borders of words here.
        '<' | '>' => out.push(escaped),
        'p' | 'P' | 'v' | 'b' | 'B' => return Err("\\p, \\v and \\b are not supported"),
        _ => out.extend(['\\', escaped]),
    }
    Ok(())
}

/// What both engines accept and read differently.
fn refuse_false_friends(c: char, in_class: bool, next: &str) -> Result<(), &'static str> {
    let begins = |texts: &[&str]| texts.iter().any(|text| next.starts_with(text));
    match c {
        '[' if begins(&[":", "]", "^]"]) => Err("a class cannot begin with a colon or a closing bracket"),
        '-' | '~' | '&' if in_class && next.starts_with(c) => Err("--, ~~ and && in a class are not supported"),
        '(' if !in_class && begins(&["?"]) && !begins(&["?:", "?<", "?i)", "?i:"]) => {
            Err("of the groups that begin with ? only (?: (?<name> and (?i are supported")
        }
        '*' | '+' | '?' | '}' if !in_class && begins(&["+", "*"]) => Err("possessive quantifiers are not supported"),
        _ => Ok(()),
    }
}

/// The parts of a Java replacement. As in Kafka a group number beyond the pattern's groups stands for itself.
fn parse_replacement(text: &str, pattern: &Regex) -> Result<Vec<Piece>, &'static str> {
    let groups = pattern.captures_len() - 1;
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let group = match c {
            '\\' => {
                let escaped = rest.chars().next().ok_or("it ends with a backslash")?;
                rest = &rest[escaped.len_utf8()..];
                literal.push(escaped);
                continue;
            }
            '$' if rest.starts_with('{') => {
                let (name, after) = rest[1..].split_once('}').ok_or("a group's name is not closed")?;
                rest = after;
                let index = pattern.capture_names().position(|known| known == Some(name));
                index.ok_or("it names a group that the pattern does not have")?
            }
            '$' => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                if digits == 0 {
                    return Err("a dollar sign needs the number of a group after it, or a backslash before it");
                }
                match group_number(&rest[..digits], groups)? {
                    Some((group, used)) => {
                        rest = &rest[used..];
                        group
                    }
                    None => {
                        literal.push('$');
                        continue;
                    }
                }
            }
            c => {
                literal.push(c);
                continue;
            }
        };
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Group(group));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

/// The group that digits after a dollar sign stand for and how many of them are used; `None` if they are just text.
fn group_number(digits: &str, groups: usize) -> Result<Option<(usize, usize)>, &'static str> {
    let mut group = 0;
    let mut used = 0;
    for digit in digits.bytes().map(|digit| (digit - b'0') as usize) {
        let longer = group * 10 + digit;
        if longer > groups {
            break;
        }
        group = longer;
        used += 1;
    }
    match used {
        0 if groups == 0 => Err("it names a group, and the pattern has none"),
        0 => Ok(None),
        _ => Ok(Some((group, used))),
    }
}

/// Java's `replaceAll`, which unlike this crate's also finds an empty match at the end of the one before.
fn replace_all(pattern: &Regex, replacement: &[Piece], name: &str) -> String {
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(captures) = (from <= name.len()).then(|| pattern.captures_at(name, from)).flatten() {
        let Some(found) = captures.get(0) else { break };
        out.push_str(&name[copied..found.start()]);
        expand(&mut out, replacement, &captures);
        copied = found.end();
        let step = if found.is_empty() { name[copied..].chars().next().map_or(1, char::len_utf8) } else { 0 };
        from = copied + step;
    }
    out.push_str(&name[copied..]);
    out
}

fn expand(out: &mut String, replacement: &[Piece], captures: &Captures<'_>) {
    for piece in replacement {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Group(group) => out.push_str(captures.get(*group).map_or("", |found| found.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &str, name: &str) -> Option<String> {
        PrincipalRules::parse(rules).unwrap().apply(name)
    }

    const DN: &str = "CN=kafka-1.example,OU=ServiceUsers,O=Org,C=US";

    /// Rules, name, and what Kafka 4.3.1's SslPrincipalMapper on Java 17 makes of it.
    const CASES: &[(&str, &str, Option<&str>)] = &[
        ("DEFAULT", DN, Some(DN)),
        ("RULE:^CN=(.*?),.*$/$1/", DN, Some("kafka-1.example")),
        ("RULE:^CN=(.*?),.*$/$1/L", DN, Some("kafka-1.example")),
        ("RULE:^CN=(.*?),.*$/$1/U", DN, Some("KAFKA-1.EXAMPLE")),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,DEFAULT", DN, Some("kafka-1.example")),
        ("RULE:^CN=(.*?),OU=Admins.*$/$1/,DEFAULT", DN, Some(DN)),
        ("RULE:^CN=(.*?),OU=Admins.*$/$1/", DN, None),
        (" RULE:^CN=(.*?),OU=(.*?),.*$/$1@$2/ , DEFAULT ", DN, Some("kafka-1.example@ServiceUsers")),
        ("RULE:^CN=([^,]+),.*$/$1@$4/", DN, Some("kafka-1.example@$4")),
        ("RULE:^CN=([^,]+),.*$/$12/", DN, Some("kafka-1.example2")),
        (
            "RULE:^CN=([^,]+),OU=([^,]+),.*$/$2-$01-$0/",
            DN,
            Some("ServiceUsers-kafka-1.example-CN=kafka-1.example,OU=ServiceUsers,O=Org,C=US"),
        ),
        ("RULE:.*/x/", DN, Some("xx")),
        ("RULE:.*/[$0]/", DN, Some("[CN=kafka-1.example,OU=ServiceUsers,O=Org,C=US][]")),
        (
            "RULE:.*?/x/",
            DN,
            Some("xCxNx=xkxaxfxkxax-x1x.xexxxaxmxpxlxex,xOxUx=xSxexrxvxixcxexUxsxexrxsx,xOx=xOxrxgx,xCx=xUxSx"),
        ),
        ("RULE:^.*$/x/", DN, Some("x")),
        ("RULE:CN/x/", DN, None),
        ("RULE:^CN=(?<cn>[^,]+),.*$/${cn}!/", DN, Some("kafka-1.example!")),
        ("RULE:^CN=([^,]+),.*$/\\$1\\/$1/", DN, Some("$1/kafka-1.example")),
        ("RULE:^CN=([\\w.-]+),.*$/$1/", DN, Some("kafka-1.example")),
        ("RULE:^CN=(\\w+)-(\\d+)\\.(\\S+?),.*$/$3.$1.$2/", DN, Some("example.kafka.1")),
        ("RULE:^cn=(.*?),.*$/$1/,RULE:^(?i)cn=(.*?),.*$/i-$1/", DN, Some("i-kafka-1.example")),
        ("RULE:^CN=([a-z]+|x)(y)?.*$/$1[$2]/", DN, Some("kafka[]")),
        (",,DEFAULT,,", DN, Some(DN)),
        ("RULE:^(.*),C=(..)$/$2 $1/L", DN, Some("us cn=kafka-1.example,ou=serviceusers,o=org")),
        ("RULE:(.+)|(y)/<$1|$2>/", DN, Some("<CN=kafka-1.example,OU=ServiceUsers,O=Org,C=US|>")),
        ("RULE:^CN=(.*?),.*$//", DN, Some("")),
        ("RULE:/x/,DEFAULT", DN, Some(DN)),
        ("RULE:^CN=\\<x/y/,DEFAULT", DN, Some(DN)),
        ("RULE:^CN=(.*?),.*$/$1/ , RULE:x/y/", DN, Some("kafka-1.example")),
        ("RULE:^CN=(.*)$/$1/U", "CN=straße,x", Some("STRASSE,X")),
        ("RULE:^CN=(.*)$/$1/L", "CN=ΑΣ İX", Some("ας i̇x")),
        ("RULE:^CN=(.*)$/$1/", "CN=Doe\\, John", Some("Doe\\, John")),
        ("RULE:x*/-/", "xx", Some("--")),
        ("RULE:(?:x|y)*/-/", "xyx", Some("--")),
        ("RULE:.*/-/", "ü😀", Some("--")),
        ("RULE:^(.*?)/-/", "abc", Some("-abc")),
        ("RULE:(?:abc|)/-/", "abc", Some("--")),
        ("RULE:a?b?c?/-/", "abc", Some("--")),
        ("RULE:.{3}|a/-/", "abc", Some("-")),
        ("RULE:a|abc/-/", "abc", Some("-bc")),
        ("RULE:^CN=(\\w+)$/$1/", "CN=ü", None),
        ("DEFAULT", "", Some("")),
        ("RULE:.*/x/", "", Some("x")),
    ];

    #[test]
    fn names_are_mapped_as_kafka_maps_them() {
        for (rules, name, expected) in CASES {
            assert_eq!(map(rules, name).as_deref(), *expected, "{rules} on {name}");
        }
    }

    #[test]
    fn shorthands_are_ascii_as_in_java() {
        assert_eq!(map(r"RULE:^CN=(\w+)$/$1/", "CN=ü"), None);
        assert_eq!(map(r"RULE:^CN=(\d+)$/$1/", "CN=٣"), None);
        assert_eq!(map(r"RULE:^CN=(.+)$/$1/", "CN=a\rb"), None);
        assert_eq!(map(r"RULE:^CN=(.+)$/$1/", "CN=a\u{2028}b"), None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_when_it_is_read() {
        for bad in [
            "",
            " , ",
            "default",
            "RULE:",
            "RULE:a",
            "RULE:a/b",
            "RULE:a/b/X",
            "RULE:a/b/LU",
            "RULE:a/b/ DEFAULT",
            "DEFAULT RULE:a/b/",
            "RULE:(/b/",
            "RULE:a/$1/",
            "RULE:(a)/$/",
            "RULE:(a)/${x}/",
            r"RULE:a/\\\/",
            r"RULE:(a)\1/b/",
            "RULE:(?=a)/b/",
            "RULE:(?!a)/b/",
            "RULE:(?<=a)b/b/",
            "RULE:a*+/b/",
            "RULE:a++/b/",
            r"RULE:\p{Alpha}/b/",
            r"RULE:\bx/b/",
            "RULE:(?U)a/b/",
            "RULE:(?x)a/b/",
            "RULE:[a-z&&[^b]]/b/",
            "RULE:[]a]/b/",
        ] {
            assert!(PrincipalRules::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_that_backtracks_for_ever_elsewhere_is_quick() {
        assert_eq!(map("RULE:^(a+)+$/x/", &("a".repeat(50_000) + "b")), None);
    }
}
