//! Record formats, against keys and values that Apache Kafka 4.3.1 has serialised.
//!
//! In the fixture a name is followed by key and value in hexadecimal, as Kafka's own classes wrote them, and by what
//! they decode to.

use crate::group::records::Record;

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|digit| (digit as char).to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Key and value of each entry, with its name.
fn entries(text: &str) -> Vec<(String, Vec<u8>, Option<Vec<u8>>)> {
    let lines: Vec<&str> = text.lines().collect();
    let starts = lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.strip_prefix("> ")?)));
    let entry = |(at, name): (usize, &str)| {
        let value = (lines[at + 2] != "-").then(|| bytes_of(lines[at + 2]));
        (name.to_owned(), bytes_of(lines[at + 1]), value)
    };
    starts.map(entry).collect()
}

#[test]
fn records_are_those_of_kafka() {
    super::golden("records.txt", |text| {
        let mut out = String::new();
        for line in text.lines().take_while(|line| line.starts_with('#') || line.is_empty()) {
            out += &format!("{line}\n");
        }
        for (name, key, value) in entries(text) {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let record = Record::decode(&key, value.as_deref()).expect("Kafka's record can be read");
            let written = record.encode();
            let same = match &written {
                None => "not written here",
                Some(write) if write.key == key && write.value.as_deref() == value.as_deref() => "written alike",
                Some(_) => "written in another version",
            };
            let value = value.map_or("-".to_owned(), |value| hex(&value));
            out += &format!("> {name}\n{}\n{value}\n{record:?}\n{same}\n", hex(&key));
        }
        out
    });
}

#[test]
fn what_is_written_is_read_back() {
    let text = std::fs::read_to_string(super::fixtures().join("records.txt")).expect("the fixture is there");
    for (name, key, value) in entries(&text) {
        let record = Record::decode(&key, value.as_deref()).expect("Kafka's record can be read");
        let Some(write) = record.encode() else { continue };
        assert_eq!(Record::decode(&write.key, write.value.as_deref()), Ok(record), "{name}");
    }
}

#[test]
fn damaged_records_are_errors_and_allocate_little() {
    let text = std::fs::read_to_string(super::fixtures().join("records.txt")).expect("the fixture is there");
    for (_, key, value) in entries(&text) {
        for length in 0..key.len() {
            let cut = Record::decode(&key[..length], value.as_deref());
            assert!(cut.is_err() || matches!(cut, Ok(Record::Foreign { .. })));
        }
        let Some(value) = value else { continue };
        for length in 0..value.len() {
            let _ = Record::decode(&key, Some(&value[..length]));
        }
        for at in 0..value.len() {
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut damaged = value.clone();
                damaged[at] = byte;
                let _ = Record::decode(&key, Some(&damaged));
            }
        }
    }
}

#[test]
fn an_unknown_key_is_left_alone_and_an_unknown_value_is_an_error() {
    assert_eq!(Record::decode(&[0, 17, 0, 1, b'g'], None), Ok(Record::Foreign { key_version: 17 }));
    assert_eq!(Record::decode(&[0, 99], Some(&[1, 2, 3])), Ok(Record::Foreign { key_version: 99 }));
    assert!(Record::decode(&[0, 2, 0, 1, b'g'], Some(&[0, 5])).is_err());
    assert!(Record::decode(&[], None).is_err());
}
