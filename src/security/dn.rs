//! The subject of a certificate as the string that Java's `X500Principal.getName()` gives (RFC 2253), which is the name
//! of a Kafka principal; operators' rules and super.users only go on working if it is the same byte for byte.
//!
//! Java's reading of the RFC: the last RDN comes first; nine keywords, other types as dotted OID with the value as
//! `#` and the hexadecimal DER; `=` and every `#` are escaped too, a NUL becomes `\00`, and leading and trailing
//! spaces and carriage returns are all escaped. String types are decoded as JDK 25 does, each by its own character
//! set; JDK 17 takes all of them for UTF-8, which gives another name for a BMPString and for non-ASCII bytes in a
//! PrintableString, IA5String, T61String or GeneralString.
//!
//! Must never map two subjects to one name by losing characters: where Java puts U+FFFD, the subject is refused.

use std::fmt::Write;

use super::der::{Elements, Malformed, OBJECT_IDENTIFIER, SEQUENCE, SET};

const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const GENERAL_STRING: u8 = 0x1b;
const BMP_STRING: u8 = 0x1e;

/// The name of a subject, given as the DER of an X.501 `Name`.
pub(super) fn rfc2253(subject: &[u8]) -> Result<String, Malformed> {
    let mut outer = Elements::new(subject);
    let mut rdns = Elements::new(outer.expect(SEQUENCE, "the subject is no SEQUENCE")?.value);
    outer.finish()?;
    let mut names = Vec::new();
    while !rdns.is_empty() {
        let mut attributes = Elements::new(rdns.expect(SET, "a relative distinguished name is no SET")?.value);
        let mut name = String::new();
        while !attributes.is_empty() {
            if !name.is_empty() {
                name.push('+');
            }
            let attribute = attributes.expect(SEQUENCE, "an attribute of the subject is no SEQUENCE")?;
            write_attribute(&mut name, attribute.value)?;
        }
        names.push(name);
    }
    names.reverse();
    Ok(names.join(","))
}

fn write_attribute(out: &mut String, attribute: &[u8]) -> Result<(), Malformed> {
    let mut parts = Elements::new(attribute);
    let kind = parts.expect(OBJECT_IDENTIFIER, "the type of an attribute is no OBJECT IDENTIFIER")?.value;
    let value = parts.next()?;
    parts.finish()?;
    let keyword = keyword(kind);
    match keyword {
        Some(keyword) => out.push_str(keyword),
        None => write_oid(out, kind)?,
    }
    out.push('=');
    let text = if keyword.is_some() { text(value.tag, value.value)? } else { None };
    match text {
        Some(text) => write_escaped(out, &text),
        None => {
            out.push('#');
            for byte in value.whole {
                let _ = write!(out, "{byte:02x}");
            }
        }
    }
    Ok(())
}

/// RFC 2253 §2.3; the values are encoded OIDs: 2.5.4.x, and 0.9.2342.19200300.100.1.x for the last two.
fn keyword(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "STREET",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        _ => return None,
    })
}

fn write_oid(out: &mut String, oid: &[u8]) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed("an OBJECT IDENTIFIER is empty, cut short, padded or over 128 bits");
    if oid.last().is_none_or(|last| last & 0x80 != 0) {
        return Err(BAD);
    }
    let mut first = true;
    for arc in oid.split_inclusive(|byte| byte & 0x80 == 0) {
        if arc[0] == 0x80 {
            return Err(BAD);
        }
        let mut number = 0u128;
        for byte in arc {
            number = number.checked_mul(128).ok_or(BAD)? | (byte & 0x7f) as u128;
        }
        // The first two arcs share one number (X.690 §8.19.4).
        let _ = match (std::mem::take(&mut first), number) {
            (true, 0..40) => write!(out, "0.{number}"),
            (true, 40..80) => write!(out, "1.{}", number - 40),
            (true, _) => write!(out, "2.{}", number - 80),
            (false, _) => write!(out, ".{number}"),
        };
    }
    Ok(())
}

/// The characters of a value, or `None` if its type is not one that Java prints as a string.
fn text(tag: u8, bytes: &[u8]) -> Result<Option<String>, Malformed> {
    Ok(Some(match tag {
        UTF8_STRING => std::str::from_utf8(bytes).map_err(|_| Malformed("a UTF8String is not UTF-8"))?.to_owned(),
        PRINTABLE_STRING | T61_STRING | IA5_STRING | GENERAL_STRING => bytes.iter().copied().map(char::from).collect(),
        BMP_STRING => {
            const BAD: Malformed = Malformed("a BMPString has a half character or a surrogate");
            let units = bytes.chunks(2).map(|unit| {
                let unit: [u8; 2] = unit.try_into().map_err(|_| BAD)?;
                char::from_u32(u16::from_be_bytes(unit) as u32).ok_or(BAD)
            });
            units.collect::<Result<String, _>>()?
        }
        _ => return Ok(None),
    }))
}

fn write_escaped(out: &mut String, text: &str) {
    let is_space = |c: char| c == ' ' || c == '\r';
    let lead = text.len() - text.trim_start_matches(is_space).len();
    let trail = text.trim_end_matches(is_space).len();
    for (index, c) in text.char_indices() {
        let outside = index < lead || index >= trail;
        if outside || matches!(c, ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\') {
            out.push('\\');
        }
        match c {
            '\0' => out.push_str("\\00"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dn_cases::CASES;
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn names_are_those_of_java() {
        for (what, subject, expected) in CASES {
            assert_eq!(rfc2253(&unhex(subject)).ok().as_deref(), *expected, "{what}");
        }
    }

    #[test]
    fn a_subject_cut_anywhere_is_refused() {
        for (what, subject, _) in CASES.iter().filter(|case| case.2.is_some()) {
            let whole = unhex(subject);
            for cut in 0..whole.len() {
                assert!(rfc2253(&whole[..cut]).is_err(), "{what} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = rfc2253(&bytes);
        }

        #[test]
        fn any_attribute_value_is_read_without_a_panic(
            oid in "\\PC{0,12}",
            tag: u8,
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let element = |tag: u8, value: &[u8]| [&[tag, value.len() as u8], value].concat();
            let kind = element(OBJECT_IDENTIFIER, &oid.as_bytes()[..oid.len().min(20)]);
            let attribute = element(SEQUENCE, &[kind, element(tag, &bytes)].concat());
            let _ = rfc2253(&element(SEQUENCE, &element(SET, &attribute)));
        }
    }
}
