//! What this release writes is what the committed fixtures hold, and reads back as the same value.
//!
//! A fixture of a released format version never changes. For a new one: `CASEMATE_WRITE_FIXTURES=1 cargo test
//! fixture`, which only writes files that are missing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;

use crate::base::codec::DecodeError;

use super::{Command, Image, ObjectEntry, RangeEntry, samples};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metadata/v1")
}

fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(out, "{byte:02x}").expect("a string takes any text");
        }
        out.push('\n');
    }
    out
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn check<T: PartialEq + Debug>(name: &str, value: &T, bytes: Bytes, decode: fn(&[u8]) -> Result<T, DecodeError>) {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("CASEMATE_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(folder()).expect("the folder of fixtures can be made");
        std::fs::write(&path, to_hex(&bytes)).expect("a missing fixture can be written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("fixture {}: {error}", path.display()));
    assert_eq!(to_hex(&bytes), text, "{name} is written differently than before");
    assert_eq!(decode(&from_hex(&text)).as_ref(), Ok(value), "{name} is read differently than before");
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{name} cut at {length} was accepted");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode(&longer), Err(DecodeError::Trailing(1)), "{name}");
    let mut newer = bytes.to_vec();
    newer[..2].copy_from_slice(&[0, 99]);
    assert!(matches!(decode(&newer), Err(DecodeError::Version { found: 99, .. })), "{name}");
}

#[test]
fn fixtures_of_commands_match() {
    let commands = samples::commands();
    let kinds: BTreeSet<_> = commands.iter().map(|(_, command)| command.encode()[2..4].to_vec()).collect();
    assert_eq!(kinds.len(), 32, "every kind has a sample");
    for (name, command) in commands {
        check(name, &command, command.encode(), Command::decode);
    }
}

#[test]
fn fixtures_of_the_image_match() {
    let image = samples::image();
    check("image", &image, image.encode(), Image::decode);
    let cleaned = samples::image_cleaned();
    check("image-cleaned", &cleaned, cleaned.encode(), Image::decode);
    let nodes = samples::image_with_nodes();
    check("image-nodes", &nodes, nodes.encode(), Image::decode);
    let recovered = samples::image_recovered();
    check("image-recovered", &recovered, recovered.encode(), Image::decode);
    let placed = samples::image_placed();
    check("image-placed", &placed, placed.encode(), Image::decode);
    let since = samples::image_with_targets_since();
    check("image-targets-since", &since, since.encode(), Image::decode);
    check("image-empty", &Image::default(), Image::default().encode(), Image::decode);
    let newer = samples::image_with_sections();
    check("image-sections", &newer, newer.encode(), Image::decode);
}

#[test]
fn fixtures_of_index_entries_match() {
    check("range", &samples::range_entry(), samples::range_entry().encode(), RangeEntry::decode);
    for (name, entry) in samples::object_entries() {
        check(name, &entry, entry.encode(), ObjectEntry::decode);
    }
}
