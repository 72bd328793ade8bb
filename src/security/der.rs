//! Reads the few fields of an X.509 certificate that Casemate needs, straight from its DER.
//!
//! Strict in the encoding (definite, shortest lengths, inside the input), tolerant in what it skips: a subject with an
//! unusual string type or an unsorted set is still read, as Java reads it. Whether a certificate is to be trusted is
//! decided by webpki, never here.

use time::{Date, Month};

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_VERSION: u8 = 0xa0;

/// A certificate, or its subject, that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed certificate: {0}")]
pub struct Malformed(pub(super) &'static str);

/// One element: its tag, its contents, and both with the length between them.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub tag: u8,
    pub value: &'a [u8],
    pub whole: &'a [u8],
}

/// Takes elements off the front of a byte slice.
pub(super) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Elements(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn next(&mut self) -> Result<Element<'a>, Malformed> {
        let input = self.0;
        let (&tag, &first) = input.first().zip(input.get(1)).ok_or(Malformed("an element is cut short"))?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed("an element has a tag of several bytes"));
        }
        let (header, length) = if first < 0x80 {
            (2, first as usize)
        } else {
            let count = (first & 0x7f) as usize;
            let digits = input.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len()));
            let digits = digits.ok_or(Malformed("the length of an element is indefinite or too long"))?;
            let length = digits.iter().fold(0usize, |length, digit| length << 8 | *digit as usize);
            if length < 0x80 || digits[0] == 0 {
                return Err(Malformed("the length of an element is not in its shortest form"));
            }
            (2 + count, length)
        };
        let end = header.saturating_add(length);
        let value = input.get(header..end).ok_or(Malformed("an element ends beyond its container"))?;
        self.0 = &input[end..];
        Ok(Element { tag, value, whole: &input[..end] })
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8, otherwise: &'static str) -> Result<Element<'a>, Malformed> {
        self.next().and_then(|element| if element.tag == tag { Ok(element) } else { Err(Malformed(otherwise)) })
    }

    pub fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

/// What Casemate reads from a certificate. Times are Unix milliseconds; both ends of the validity are inclusive.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    pub serial: &'a [u8],
    pub not_before_ms: i64,
    pub not_after_ms: i64,
    /// DER of the issuer's name, a `Name`.
    pub issuer: &'a [u8],
    /// DER of the subject, a `Name`.
    pub subject: &'a [u8],
    /// DER of the public key with its algorithm, a `SubjectPublicKeyInfo`.
    pub public_key: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        let mut outer = Elements::new(der);
        let certificate = outer.expect(SEQUENCE, "it is no SEQUENCE")?;
        outer.finish()?;
        let signed = Elements::new(certificate.value).expect(SEQUENCE, "the signed part is no SEQUENCE")?;
        let mut fields = Elements::new(signed.value);
        let mut serial = fields.next()?;
        if serial.tag == EXPLICIT_VERSION {
            serial = fields.next()?;
        }
        if serial.tag != INTEGER || serial.value.is_empty() {
            return Err(Malformed("the serial number is no INTEGER"));
        }
        fields.expect(SEQUENCE, "the signature algorithm is no SEQUENCE")?;
        let issuer = fields.expect(SEQUENCE, "the issuer is no SEQUENCE")?.whole;
        let validity = fields.expect(SEQUENCE, "the validity is no SEQUENCE")?;
        let subject = fields.expect(SEQUENCE, "the subject is no SEQUENCE")?.whole;
        let public_key = fields.expect(SEQUENCE, "the public key is no SEQUENCE")?.whole;
        let mut times = Elements::new(validity.value);
        let not_before_ms = unix_ms(times.next()?)?;
        let not_after_ms = unix_ms(times.next()?)?;
        times.finish()?;
        Ok(Certificate { serial: serial.value, not_before_ms, not_after_ms, issuer, subject, public_key })
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 permits.
fn unix_ms(time: Element<'_>) -> Result<i64, Malformed> {
    const BAD: Malformed = Malformed("a time of the validity is not one of RFC 5280's forms");
    let (year, rest) = match (time.tag, time.value.len()) {
        (UTC_TIME, 13) => {
            let year = number(&time.value[..2]).ok_or(BAD)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &time.value[2..])
        }
        (GENERALIZED_TIME, 15) => (number(&time.value[..4]).ok_or(BAD)?, &time.value[4..]),
        _ => return Err(BAD),
    };
    if rest[10] != b'Z' {
        return Err(BAD);
    }
    let mut parts = [0u8; 5];
    for (part, digits) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = number(digits).and_then(|n| u8::try_from(n).ok()).ok_or(BAD)?;
    }
    let [month, day, hour, minute, second] = parts;
    let date = Month::try_from(month).and_then(|month| Date::from_calendar_date(year, month, day));
    let time = date.and_then(|date| date.with_hms(hour, minute, second)).map_err(|_| BAD)?;
    Ok(time.assume_utc().unix_timestamp() * 1000)
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + (*digit - b'0') as i32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time_of(tag: u8, text: &str) -> Result<i64, Malformed> {
        unix_ms(Element { tag, value: text.as_bytes(), whole: &[] })
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        assert_eq!(time_of(UTC_TIME, "700101000001Z"), Ok(1000));
        assert_eq!(time_of(UTC_TIME, "491231235959Z"), Ok(2_524_607_999_000));
        assert_eq!(time_of(UTC_TIME, "500101000000Z"), Ok(-631_152_000_000));
        assert_eq!(time_of(GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000_000));
        for bad in ["20500101000000", "2050010100000+Z", "20501301000000Z", "20500230000000Z", "20500101006000Z"] {
            assert!(time_of(GENERALIZED_TIME, bad).is_err(), "{bad}");
        }
        assert!(time_of(UTC_TIME, "20500101000000Z").is_err());
    }

    #[test]
    fn lengths_must_be_definite_shortest_and_inside() {
        for bad in [
            &[0x30][..],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x02, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x1f, 0x81, 0x01, 0],
        ] {
            assert!(Elements::new(bad).next().is_err(), "{bad:x?}");
        }
        let mut long = vec![0x04, 0x81, 0x80];
        long.extend([7; 0x80]);
        assert_eq!(Elements::new(&long).next().map(|element| element.value.len()), Ok(0x80));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Certificate::parse(&bytes);
        }
    }
}
