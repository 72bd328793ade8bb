//! The type of one Kafka setting and the values that it admits, read as Kafka's `ConfigDef` reads them.
//!
//! Spaces around a value never matter; numbers are decimal, with an optional sign; booleans ignore case, names do
//! not. The reason given for a refused value is worded as Kafka words it, because tools print it.

use std::fmt::Display;
use std::str::FromStr;

/// What a setting holds, with the bounds of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Boolean,
    Short {
        min: i16,
        max: i16,
    },
    Int {
        min: i32,
        max: i32,
    },
    Long {
        min: i64,
        max: i64,
    },
    Double {
        min: f64,
        max: f64,
    },
    /// One of the names; any text where there are none.
    String {
        valid: &'static [&'static str],
    },
    /// Names separated by commas; any where there are none.
    List {
        valid: &'static [&'static str],
    },
    /// Any names separated by commas, each kept once.
    Distinct,
    Password,
    Class,
}

impl Kind {
    /// The number by which DescribeConfigs names the type (KIP-569).
    pub fn wire_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String { .. } => 2,
            Kind::Int { .. } => 3,
            Kind::Short { .. } => 4,
            Kind::Long { .. } => 5,
            Kind::Double { .. } => 6,
            Kind::List { .. } | Kind::Distinct => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    /// Whether IncrementalAlterConfigs may append to and subtract from the value.
    pub fn is_list(self) -> bool {
        matches!(self, Kind::List { .. } | Kind::Distinct)
    }

    pub fn is_secret(self) -> bool {
        matches!(self, Kind::Password)
    }

    /// The value as Kafka shows it, or the reason why it is none.
    pub fn canonical(self, value: &str) -> Result<String, String> {
        let value = value.trim();
        match self {
            Kind::Boolean => boolean(value).map(|v| v.to_string()),
            Kind::Short { min, max } => ranged::<i16>(value, "SHORT", min, max),
            Kind::Int { min, max } => ranged::<i32>(value, "INT", min, max),
            Kind::Long { min, max } => ranged::<i64>(value, "LONG", min, max),
            Kind::Double { min, max } => {
                let value = value.trim_end_matches(['f', 'F', 'd', 'D']);
                ranged::<f64>(value, "DOUBLE", min, max)?;
                value.parse().map(double).map_err(|_| "Not a number of type DOUBLE".to_owned())
            }
            Kind::String { valid } => one_of(value, valid).map(|()| value.to_owned()),
            Kind::List { valid } => {
                let elements = elements(value);
                elements.iter().try_for_each(|element| one_of(element, valid))?;
                // As Kafka keeps them: each once where they are known, as they are given otherwise.
                Ok(if valid.is_empty() { elements.join(",") } else { once(elements) })
            }
            Kind::Distinct => Ok(once(elements(value))),
            Kind::Password | Kind::Class => Ok(value.to_owned()),
        }
    }
}

/// The elements of a list value. The empty value is the empty list.
pub fn elements(value: &str) -> Vec<&str> {
    let value = value.trim();
    if value.is_empty() { Vec::new() } else { value.split(',').map(str::trim).collect() }
}

/// Each element once; whether one may be empty is for others to say.
fn once(mut elements: Vec<&str>) -> String {
    let mut seen = std::collections::HashSet::new();
    elements.retain(|element| element.is_empty() || seen.insert(*element));
    elements.join(",")
}

/// As Java prints a number: with a decimal point always, and with an exponent where it is very large or small.
fn double(number: f64) -> String {
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("Expected value to be either true or false".to_owned())
    }
}

fn ranged<T>(value: &str, type_name: &str, min: T, max: T) -> Result<String, String>
where
    T: Copy + FromStr + PartialOrd + Display,
{
    let number: T = value.parse().map_err(|_| format!("Not a number of type {type_name}"))?;
    if (min..=max).contains(&number) {
        Ok(number.to_string())
    } else if number > max {
        Err(format!("Value must be no more than {max}"))
    } else {
        Err(format!("Value must be at least {min}"))
    }
}

fn one_of(value: &str, valid: &[&str]) -> Result<(), String> {
    if valid.is_empty() || valid.contains(&value) {
        Ok(())
    } else {
        Err(format!("String must be one of: {}", valid.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Kind = Kind::Long { min: -1, max: i64::MAX };
    const INT: Kind = Kind::Int { min: 0, max: i32::MAX };
    const POLICY: Kind = Kind::List { valid: &["compact", "delete"] };

    /// Each as a real Kafka 4.3.1 answered it.
    #[test]
    fn values_are_read_as_kafka_reads_them() {
        for (kind, value, expected) in [
            (LONG, " 5 ", Ok("5")),
            (LONG, "+5", Ok("5")),
            (LONG, "-2", Err("Value must be at least -1")),
            (LONG, "abc", Err("Not a number of type LONG")),
            (LONG, "1_000", Err("Not a number of type LONG")),
            (LONG, "1.5", Err("Not a number of type LONG")),
            (LONG, "", Err("Not a number of type LONG")),
            (INT, "3000000000", Err("Not a number of type INT")),
            (INT, "2147483647", Ok("2147483647")),
            (Kind::Boolean, "TRUE", Ok("true")),
            (Kind::Boolean, "yes", Err("Expected value to be either true or false")),
            (POLICY, "delete, compact", Ok("delete,compact")),
            (POLICY, "", Ok("")),
            (POLICY, "compact,delete,compact", Ok("compact,delete")),
            (Kind::Double { min: 0.0, max: 1.0 }, "-0", Ok("-0.0")),
            (Kind::Double { min: 0.0, max: f64::MAX }, "1e7", Ok("1.0E7")),
            (Kind::Double { min: 0.0, max: f64::MAX }, "0.00012", Ok("1.2E-4")),
            (POLICY, "Delete", Err("String must be one of: compact, delete")),
            (Kind::Double { min: 0.0, max: 1.0 }, "0.5f", Ok("0.5")),
            (Kind::Double { min: 0.0, max: 1.0 }, "1e-1", Ok("0.1")),
            (Kind::Double { min: 0.0, max: 1.0 }, "1.5", Err("Value must be no more than 1")),
        ] {
            assert_eq!(kind.canonical(value), expected.map(str::to_owned).map_err(str::to_owned), "{value:?}");
        }
    }

    #[test]
    fn not_a_number_is_refused_where_a_number_is_due() {
        assert!(Kind::Double { min: 0.0, max: 1.0 }.canonical("NaN").is_err());
    }
}
