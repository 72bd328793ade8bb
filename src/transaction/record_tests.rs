//! The formats against the bytes that Apache Kafka itself writes, and against damage.

use super::*;
use crate::transaction::partition_for;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transaction/kafka-4.3.1-records.txt");

/// The lines of one kind: a name and what Kafka makes of it.
fn fixture(kind: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(FIXTURE).expect("the fixture is there");
    let lines = text.lines().filter_map(|l| l.strip_prefix(kind)?.strip_prefix(' ')?.rsplit_once(' '));
    lines.map(|(name, made)| (name.to_owned(), made.to_owned())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal")).collect()
}

fn level(digit: &str) -> TransactionVersion {
    TransactionVersion::from_level(digit.parse().expect("a number")).expect("a version")
}

/// The transaction that a fixture's name stands for.
fn sample(what: &str, server: TransactionVersion) -> Transaction {
    const START: i64 = 1_700_000_000_000;
    let v2 = server == TransactionVersion::V2;
    let base = Transaction {
        producer: Producer { id: 1000, epoch: 0 },
        previous_producer_id: Some(1000),
        next_producer_id: None,
        last_epoch: None,
        timeout_ms: 60_000,
        state: State::Empty,
        partitions: Partitions::default(),
        start_ms: START + 100,
        update_ms: START + 300,
        client_version: if v2 { TransactionVersion::V2 } else { TransactionVersion::V0 },
    };
    let orders = |index| [("orders".into(), index)].into_iter().collect();
    let bumped = Producer { id: 1000, epoch: v2.into() };
    match what {
        "empty" => Transaction { start_ms: -1, update_ms: START, client_version: TransactionVersion::V0, ..base },
        "ongoing" => Transaction { state: State::Ongoing, partitions: orders(0), update_ms: START + 100, ..base },
        "ongoing-offsets" => {
            let partitions = [("__consumer_offsets".into(), 33)].into_iter().collect();
            Transaction { state: State::Ongoing, partitions, update_ms: START + 200, ..base }
        }
        "prepare-commit" => {
            Transaction { state: State::PrepareCommit, partitions: orders(1), producer: bumped, ..base }
        }
        "complete-commit" => {
            Transaction { state: State::CompleteCommit, producer: bumped, update_ms: START + 400, ..base }
        }
        "prepare-abort-overflow" => Transaction {
            state: State::PrepareAbort,
            producer: Producer { id: 1000, epoch: i16::MAX },
            next_producer_id: Some(2000),
            partitions: orders(0),
            ..base
        },
        "complete-abort-overflow" => Transaction {
            state: State::CompleteAbort,
            producer: Producer { id: 2000, epoch: 0 },
            update_ms: START + 400,
            ..base
        },
        other => panic!("{other} is no sample"),
    }
}

#[test]
fn keys_are_those_of_kafka() {
    let keys = fixture("key");
    assert_eq!(keys.len(), 3);
    for (id, bytes) in keys {
        assert_eq!(hex(&encode_key(&id)), bytes, "{id}");
        assert_eq!(decode_key(&unhex(&bytes)), Ok(id));
    }
}

#[test]
fn values_are_those_of_kafka() {
    let values = fixture("value");
    assert_eq!(values.len(), 17);
    for (name, bytes) in values {
        let (what, server) = name.split_once('/').expect("name/version");
        let (server, version_0) = (level(server), server == "0");
        let sample = sample(what, server);
        assert_eq!(hex(&encode_value(&sample, server)), bytes, "{name}");
        let read = decode_value(&unhex(&bytes)).expect("Kafka's own bytes");
        // Version 0 has no room for the producer id before.
        let kept = sample.previous_producer_id.filter(|_| !version_0);
        assert_eq!(read, Transaction { previous_producer_id: kept, ..sample }, "{name}");
    }
}

#[test]
fn an_id_belongs_to_the_partition_that_kafka_gives_it() {
    let ids = fixture("partition");
    assert_eq!(ids.len(), 6);
    for (id, partition) in ids {
        assert_eq!(partition_for(&id, 50).to_string(), partition, "{id}");
    }
    assert_eq!(partition_for("any", 0), 0);
}

#[test]
fn unknown_tags_are_skipped_and_unknown_versions_refused() {
    let mut value = encode_value(&sample("empty", TransactionVersion::V1), TransactionVersion::V1).to_vec();
    let tags = value.len() - 11;
    assert_eq!(value[tags..tags + 3], [1, 0, 8], "one tag, the previous producer id");
    value[tags] = 2;
    value.extend([3, 2, 0, 7]);
    assert_eq!(decode_value(&value).expect("a later release's tag").previous_producer_id, Some(1000));
    assert_eq!(decode_value(&[0, 2]), Err(RecordError::ValueVersion(2)));
    assert_eq!(decode_key(&[0, 1, 0, 0]), Err(RecordError::KeyVersion(1)));
    for state in [State::Dead, State::PrepareEpochFence] {
        let never = Transaction { state, ..sample("ongoing", TransactionVersion::V1) };
        assert_eq!(decode_value(&encode_value(&never, TransactionVersion::V1)), Err(RecordError::State(state.id())));
    }
}

#[test]
fn damage_is_refused_before_anything_is_allocated() {
    for (_, bytes) in fixture("value") {
        let bytes = unhex(&bytes);
        for cut in 0..bytes.len() {
            assert!(decode_value(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x40, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = decode_value(&damaged);
                let _ = decode_key(&damaged);
            }
        }
    }
    let claims_topics = [&[0, 0][..], &[0; 15], &[0x7f, 0xff, 0xff, 0xff]].concat();
    assert!(matches!(decode_value(&claims_topics), Err(RecordError::Decode(_))));
}
