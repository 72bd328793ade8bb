//! Subscriptions by regular expression (KIP-848): RE2 syntax, matched against whole topic names.
//!
//! Kafka compiles them with RE2/J. The `regex` crate has the same linear-time semantics but a slightly different
//! grammar, so an expression is first put into the crate's words; what RE2/J refuses is refused here. Invariant: time
//! and memory are bounded, whatever the expression: by its length, by the size of the compiled program, and because
//! no engine here backtracks.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use crate::group::Topics;

/// Longest expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 8 * 1024;
/// Largest compiled expression, in bytes.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of groups.
const NESTING_MAX: u32 = 250;
/// Largest count of a repetition in RE2.
const REPEAT_MAX: u32 = 1_000;

/// The classes that may stand in a class as `[:alpha:]` or `[:^alpha:]`.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Why an expression is not valid; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    #[error("the expression is longer than {REGEX_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0}")]
    Syntax(&'static str),
    #[error("{0}")]
    Refused(String),
}

/// Checks an expression and makes it ready to match whole topic names.
pub fn compile(expression: &str) -> Result<Regex, RegexError> {
    if expression.len() > REGEX_BYTES_MAX {
        return Err(RegexError::TooLong);
    }
    let translated = Translator::translate(expression)?;
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(PROGRAM_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build()
    };
    // By itself first: an unbalanced parenthesis must not pair with one of the frame below.
    build(&translated).map_err(|error| RegexError::Refused(brief(&error)))?;
    build(&format!(r"\A(?:{translated})\z")).map_err(|error| RegexError::Refused(brief(&error)))
}

/// The topics whose whole names match, for each expression; one that does not compile matches none.
pub fn resolve(expressions: &BTreeSet<String>, topics: &dyn Topics) -> Vec<(String, BTreeSet<String>)> {
    let compiled: Vec<(&String, Option<Regex>)> = expressions.iter().map(|e| (e, compile(e).ok())).collect();
    let mut out: Vec<BTreeSet<String>> = vec![BTreeSet::new(); compiled.len()];
    topics.each_name(&mut |name| {
        for ((_, regex), names) in compiled.iter().zip(&mut out) {
            if regex.as_ref().is_some_and(|regex| regex.is_match(name)) {
                names.insert(name.to_owned());
            }
        }
    });
    compiled.into_iter().map(|(expression, _)| expression.clone()).zip(out).collect()
}

/// The crate draws the expression and a pointer into it over several lines; its last line says what is wrong.
fn brief(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Whether RE2 might know a class of this name: a general category by its one or two letters, or a script, spelled as
/// Unicode does. The crate also takes other spellings, and many more properties.
fn is_class_name(name: &str) -> bool {
    const LONG_CATEGORIES: [&str; 14] = [
        "Letter",
        "Mark",
        "Number",
        "Punctuation",
        "Symbol",
        "Separator",
        "Other",
        "Control",
        "Format",
        "Surrogate",
        "Unassigned",
        "Alphabetic",
        "Lowercase",
        "Uppercase",
    ];
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|c| c.is_ascii_uppercase()) && letters.all(|c| c.is_ascii_lowercase())
    };
    name.split('_').all(capital) && !LONG_CATEGORIES.contains(&name)
}

/// One pass over an expression.
struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// What stands before the cursor may be repeated: nothing, something, or something that is repeated already.
    last: Last,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Last {
    Nothing,
    Atom,
    Repeated,
}

/// What stands before the cursor in a class.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Place {
    First,
    /// One character, from which a dash makes a range.
    Single,
    /// A whole range or class.
    Set,
    /// The dash of a range.
    Range,
}

impl<'a> Translator<'a> {
    fn translate(expression: &'a str) -> Result<String, RegexError> {
        let mut this = Translator {
            rest: expression.chars().peekable(),
            out: String::with_capacity(expression.len()),
            last: Last::Nothing,
        };
        while let Some(c) = this.rest.next() {
            this.step(c)?;
        }
        Ok(this.out)
    }

    fn step(&mut self, c: char) -> Result<(), RegexError> {
        match c {
            '\\' => return self.escape(),
            '[' => return self.class(),
            '*' | '+' | '?' => {
                self.out.push(c);
                return self.repetition();
            }
            '{' => return self.braces(),
            '(' => {
                self.out.push('(');
                self.group_flags()?;
                self.last = Last::Nothing;
            }
            '|' => {
                self.out.push('|');
                self.last = Last::Nothing;
            }
            // A brace or bracket that closes nothing is itself.
            '}' | ']' => self.literal(c),
            _ => {
                self.out.push(c);
                self.last = Last::Atom;
            }
        }
        Ok(())
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        self.last = Last::Atom;
    }

    /// After a repetition operator: RE2 takes a further `?`, and refuses any other operator upon an operator.
    fn repetition(&mut self) -> Result<(), RegexError> {
        match self.last {
            Last::Nothing => return Err(RegexError::Syntax("missing argument to repetition operator")),
            Last::Repeated => return Err(RegexError::Syntax("invalid nested repetition operator")),
            Last::Atom => {}
        }
        if self.rest.peek() == Some(&'?') {
            self.rest.next();
            self.out.push('?');
        }
        self.last = Last::Repeated;
        Ok(())
    }

    /// `{n}`, `{n,}` and `{n,m}` repeat; any other brace is itself.
    fn braces(&mut self) -> Result<(), RegexError> {
        let mut ahead = self.rest.clone();
        let body: String = ahead.by_ref().take_while(|c| *c != '}').collect();
        // Without a closing brace the iterator is at its end either way, so look at what was consumed.
        let closed = self.rest.clone().nth(body.chars().count()) == Some('}');
        let (low, high) = body.split_once(',').map_or((&body[..], None), |(low, high)| (low, Some(high)));
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().unwrap_or(u32::MAX));
        let low_number = (!low.is_empty()).then(|| number(low)).flatten();
        let high_number = match high {
            None => low_number,
            Some("") => Some(0),
            Some(text) => number(text),
        };
        let (true, Some(low_number), Some(high_number)) = (closed, low_number, high_number) else {
            self.literal('{');
            return Ok(());
        };
        let unbounded = high == Some("");
        if low_number > REPEAT_MAX || high_number > REPEAT_MAX || (!unbounded && high_number < low_number) {
            return Err(RegexError::Syntax("invalid repeat count"));
        }
        self.rest = ahead;
        self.out.push('{');
        self.out.push_str(&body);
        self.out.push('}');
        self.repetition()
    }

    /// Behind `(`: the crate knows flags that RE2 lacks.
    fn group_flags(&mut self) -> Result<(), RegexError> {
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        self.rest.next();
        self.out.push('?');
        while let Some(c) = self.rest.peek().copied() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => {
                    self.out.push(c);
                    self.rest.next();
                }
                // A name: the crate checks it.
                ':' | ')' | 'P' | '<' => return Ok(()),
                _ => return Err(RegexError::Syntax("invalid or unsupported Perl syntax")),
            }
        }
        Err(RegexError::Syntax("missing closing )"))
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        match self.rest.next() {
            None => return Err(RegexError::Syntax("trailing backslash at end of expression")),
            // Everything up to \E, or to the end, is literal.
            Some('Q') => {
                while let Some(c) = self.rest.next() {
                    if c == '\\' && self.rest.peek() == Some(&'E') {
                        self.rest.next();
                        return Ok(());
                    }
                    self.literal(c);
                }
            }
            Some(c @ ('A' | 'z' | 'b' | 'B')) => {
                // `\b{start}` is the crate's own: what follows in RE2 is a brace.
                self.atom(&format!("(?:\\{c})"));
            }
            Some(c) => {
                let text = self.escaped(c)?;
                self.atom(&text);
            }
        }
        Ok(())
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Atom;
    }

    /// An escape that has the same meaning inside and outside a class.
    fn escaped(&mut self, c: char) -> Result<String, RegexError> {
        const INVALID: RegexError = RegexError::Syntax("invalid escape sequence");
        match c {
            // RE2's Perl classes are ASCII, the crate's are not.
            'd' => Ok("[0-9]".into()),
            'D' => Ok("[^0-9]".into()),
            's' => Ok(r"[\t\n\f\r ]".into()),
            'S' => Ok(r"[^\t\n\f\r ]".into()),
            'w' => Ok("[0-9A-Za-z_]".into()),
            'W' => Ok("[^0-9A-Za-z_]".into()),
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => Ok(format!("\\{c}")),
            'p' | 'P' | 'x' => self.braced(c),
            '0'..='7' => self.octal(c).ok_or(INVALID),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(regex::escape(c.encode_utf8(&mut [0; 4]))),
            _ => Err(INVALID),
        }
    }

    /// `\pN`, `\p{Greek}`, `\x7f`, `\x{10ffff}`: spelled alike, but RE2 has no `\p{a=b}`.
    fn braced(&mut self, c: char) -> Result<String, RegexError> {
        let mut text = format!("\\{c}");
        if self.rest.peek() == Some(&'{') {
            for c in self.rest.by_ref() {
                text.push(c);
                if c == '}' {
                    break;
                }
            }
        }
        if c != 'x'
            && !text[2..].is_empty()
            && !is_class_name(text[2..].trim_matches(['{', '}']).trim_start_matches('^'))
        {
            return Err(RegexError::Syntax("invalid character class range"));
        }
        Ok(text)
    }

    /// `\0`, `\07`, `\123`; a digit alone but 0 would be a backreference, which RE2 has not.
    fn octal(&mut self, first: char) -> Option<String> {
        let digit = |c: char| c.to_digit(8);
        let mut value = digit(first)?;
        if first != '0' && self.rest.peek().is_none_or(|c| digit(*c).is_none()) {
            return None;
        }
        for _ in 0..2 {
            let Some(next) = self.rest.peek().and_then(|c| digit(*c)) else { break };
            self.rest.next();
            value = value * 8 + next;
        }
        Some(format!(r"\x{{{value:x}}}"))
    }

    /// A class up to its closing bracket. The crate's operators on classes and its nested classes are literal in RE2.
    fn class(&mut self) -> Result<(), RegexError> {
        self.out.push('[');
        if self.rest.peek() == Some(&'^') {
            self.rest.next();
            self.out.push('^');
        }
        let mut place = Place::First;
        while let Some(c) = self.rest.next() {
            place = match (c, place) {
                (']', Place::First) => self.class_literal(c, place),
                (']', _) => {
                    self.out.push(']');
                    self.last = Last::Atom;
                    return Ok(());
                }
                ('[', Place::First | Place::Set | Place::Single) if self.posix_class()? => Place::Set,
                ('-', Place::Single) if self.rest.peek() != Some(&']') => {
                    self.out.push('-');
                    Place::Range
                }
                ('\\', _) => {
                    let c = self.rest.next().ok_or(RegexError::Syntax("trailing backslash at end of expression"))?;
                    let text = self.escaped(c)?;
                    self.out.push_str(&text);
                    match (text.starts_with('[') || text.starts_with(r"\p") || text.starts_with(r"\P"), place) {
                        (true, Place::Range) => return Err(RegexError::Syntax("invalid character class range")),
                        (true, _) | (false, Place::Range) => Place::Set,
                        (false, _) => Place::Single,
                    }
                }
                _ => self.class_literal(c, place),
            };
        }
        Err(RegexError::Syntax("missing closing ]"))
    }

    fn class_literal(&mut self, c: char, place: Place) -> Place {
        if matches!(c, '[' | ']' | '&' | '~' | '^' | '-') {
            self.out.push('\\');
        }
        self.out.push(c);
        if place == Place::Range { Place::Set } else { Place::Single }
    }

    /// Behind `[`: passes `[:alpha:]` on; `false` if it is not of that form, and then nothing is consumed.
    fn posix_class(&mut self) -> Result<bool, RegexError> {
        let ahead: String = self.rest.clone().collect();
        let Some(end) = ahead.strip_prefix(':').and_then(|ahead| ahead.find(":]")) else { return Ok(false) };
        let name = &ahead[1..end + 1];
        if !POSIX_CLASSES.contains(&name.trim_start_matches('^')) {
            return Err(RegexError::Syntax("invalid character class range"));
        }
        self.out.push_str("[:");
        self.out.push_str(name);
        self.out.push_str(":]");
        self.rest.nth(name.chars().count() + 2);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, name: &str) -> bool {
        compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).is_match(name)
    }

    #[test]
    fn the_whole_name_must_match() {
        assert!(matches("orders.*", "orders-eu"));
        assert!(!matches("orders", "orders-eu"));
        assert!(!matches("eu", "orders-eu"));
        assert!(matches("a|orders-eu", "orders-eu"));
        assert!(matches("", ""));
        assert!(!matches("", "t"));
    }

    #[test]
    fn expressions_that_re2_refuses_are_refused() {
        for expression in [
            "[",
            "(",
            ")",
            "a)(b",
            "*",
            "a**",
            "a+*",
            "a{2}{3}",
            "a{1001}",
            "a{3,2}",
            "[b-a]",
            "[a--]",
            r"[A-\d]",
            r"\",
            r"\1",
            r"\8",
            r"\q",
            r"\Z",
            "(?=a)",
            "(?<=a)",
            "(?!a)",
            "(?x) a",
            "(?P<n",
            "(?P<n>a)(?P<n>b)",
            r"\p{Nonsense}",
            "|*",
            "(*)",
            "[[:nonsense:]]",
            "(?",
            "(?i",
            r"\x{110000}",
            r"\pé",
        ] {
            assert!(compile(expression).is_err(), "{expression}");
        }
        assert_eq!(compile(&"a".repeat(REGEX_BYTES_MAX + 1)).err(), Some(RegexError::TooLong));
        assert!(compile("((((a{1000}){1000}){1000}){1000})").is_err(), "a program that does not fit");
        assert!(compile(&"(".repeat(4000)).is_err());
        assert!(compile(&format!("{}a{}", "(".repeat(4000), ")".repeat(4000))).is_err());
    }

    #[test]
    fn what_only_re2_knows_is_understood() {
        assert!(matches(r"\Qa.b\E.", "a.bc") && !matches(r"\Qa.b\E.", "axbc"));
        assert!(matches(r"\Qa+", "a+"));
        assert!(matches("a{", "a{") && matches("a{,2}", "a{,2}") && matches("a{x}", "a{x}"));
        assert!(matches("a{2}", "aa") && matches("a{1,}?", "aaa") && !matches("a{2}", "a"));
        assert!(matches("a]}", "a]}"));
        assert!(matches(r"\141\0?", "a"));
        assert!(matches("[[a]", "[") && matches("[a&&b]", "&") && matches("[a~~b]", "~") && matches("[]a]", "]"));
        assert!(
            matches("[[:digit:]x]+", "1x2")
                && matches(r"[\d_-]+", "1_-")
                && matches("[+--]", ",")
                && matches("[a-]", "-")
        );
        assert!(matches("(?i)ORDERS", "orders") && matches("(?P<n>a)(?<m>b)", "ab") && matches("(?i:A)a", "aa"));
        assert!(matches(r"\w+\.\d+", "a_1.23") && !matches(r"\w+", "é") && matches(r"\pL+", "é"));
        assert!(matches(r"\_\-\.", "_-.") && matches(r"\x61\x{62}", "ab"));
        assert!(matches(r"^a$", "a") && matches(r"\Aa\z", "a") && matches(r"\ba\b{1}", "a"));
    }

    #[test]
    fn random_expressions_neither_panic_nor_take_long() {
        let random = crate::env::SeededEntropy::new(7);
        let alphabet: Vec<char> = r"ab\[](){}*+?|^$.-:&~,QE019pxPd<>i=! é".chars().collect();
        for _ in 0..20_000 {
            let length = random.below(12);
            let expression: String =
                (0..length).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect();
            if let Ok(regex) = compile(&expression) {
                regex.is_match("a.b-c");
            }
        }
    }
}
