//! Tests of the coordinator as a whole: golden transcripts, record formats against bytes that Kafka wrote, and random
//! runs that are loaded again from what they wrote.

mod memory;
mod random;
mod records;
mod render;
mod script;
mod transcript;

use std::path::PathBuf;

use crate::base::TopicId;
use crate::group::Topics;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/group")
}

/// Compares a file of fixtures with what it gives today, or writes it when asked to.
fn golden(file: &str, play: impl FnOnce(&str) -> String) {
    let path = fixtures().join(file);
    let was = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let is = play(&was);
    if std::env::var_os("CASEMATE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &is).expect("the transcript can be written");
        return;
    }
    for (number, (is, was)) in is.lines().zip(was.lines()).enumerate() {
        assert_eq!(is, was, "{file}, line {}", number + 1);
    }
    assert_eq!(is, was, "{file}");
}

/// Topics named by one letter, `t0`… with ten partitions each; any name has the id made of its bytes.
struct AnyTopic;

fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    TopicId(id)
}

impl Topics for AnyTopic {
    fn version(&self) -> u64 {
        1
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        (!name.starts_with("gone")).then(|| topic_id(name))
    }

    fn name(&self, _: TopicId) -> Option<&str> {
        None
    }

    fn partitions(&self, _: TopicId) -> Option<i32> {
        Some(10)
    }

    fn racks(&self, _: TopicId, _: i32) -> Vec<String> {
        vec![]
    }

    fn each_name(&self, visit: &mut dyn FnMut(&str)) {
        visit("t");
    }
}
