//! Produce and fetch over the wire: what Kafka's clients rely on, asked by hand.
//!
//! These tests also pass on a real Kafka (see `Target`), which is how they were written.

use super::batch::{self, NO_PRODUCER, Producer};
use super::client::{Client, fetch_request, frame, produce_request, text, topic};
use super::harness::{Target, eventually, new_producer, now_ms, unique, wait_for_leaders};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(10);

fn batch_of(values: &[&str]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|v| v.as_bytes().to_vec()).collect();
    batch::encode(&values, NO_PRODUCER, -1, now_ms())
}

/// A broker, a client and a topic that is ready for writing.
fn with_topic(partitions: i32, configs: &[(&str, &str)]) -> (Target, Client, String) {
    let target = Target::new();
    let mut client = target.client();
    let name = unique("wire");
    assert_eq!(client.create_topic(&name, partitions, configs).unwrap(), 0, "create topic");
    wait_for_leaders(&mut client, &name, partitions);
    (target, client, name)
}

#[test]
fn records_come_back_as_they_were_sent() {
    let (_target, mut client, name) = with_topic(2, &[]);
    let sent = batch_of(&["one", "two", "three"]);
    for round in 0..3 {
        let produced = client.produce(&name, 1, sent.clone()).unwrap();
        assert_eq!((produced.error, produced.base_offset), (0, round * 3));
    }
    let fetched = client.fetch(&name, 1, 4, 1000, 1 << 20).unwrap();
    assert_eq!((fetched.error, fetched.high_watermark, fetched.log_start), (0, 9, 0));
    assert_eq!(fetched.batches[0].base_offset, 3, "whole batches, also from the middle of one");
    let values: Vec<_> = client.read_all(&name, 1, 0).unwrap().into_iter().map(|r| (r.offset, r.value)).collect();
    let words = ["one", "two", "three"].iter().cycle().take(9);
    let expected: Vec<_> = (0..9).zip(words.map(|w| Some(w.as_bytes().to_vec()))).collect();
    assert_eq!(values, expected);
    assert_eq!(client.read_all(&name, 0, 0).unwrap(), vec![]);
}

#[test]
fn a_fetch_waits_for_data_and_no_longer() {
    let (target, mut client, name) = with_topic(1, &[]);
    let began = Instant::now();
    let empty = client.fetch(&name, 0, 0, 500, 1 << 20).unwrap();
    assert_eq!((empty.error, empty.high_watermark, empty.batches.len()), (0, 0, 0));
    assert!(began.elapsed() >= Duration::from_millis(400), "an empty fetch waits for max_wait_ms");
    client.send(11, &fetch_request(&name, 0, 0, 15_000, 1 << 20)).unwrap();
    let began = Instant::now();
    target.client().produce(&name, 0, batch_of(&["late"])).unwrap();
    let response = client.receive::<FetchRequest>(11).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "a waiting fetch is woken by the record");
    let records = response.responses[0].partitions[0].records.clone().unwrap_or_default();
    assert_eq!(batch::decode(&records).unwrap()[0].records.len(), 1);
    for offset in [-5, 2, 1 << 40] {
        assert_eq!(client.fetch(&name, 0, offset, 0, 1 << 20).unwrap().error, 1, "offset {offset} is out of range");
    }
    assert_eq!(client.fetch(&name, 7, 0, 0, 1 << 20).unwrap().error, 3);
}

#[test]
fn a_batch_larger_than_the_limits_is_still_delivered() {
    let (_target, mut client, name) = with_topic(1, &[]);
    let large = batch::encode(&[vec![9; 200_000]], NO_PRODUCER, -1, now_ms());
    client.produce(&name, 0, large.clone()).unwrap();
    client.produce(&name, 0, large).unwrap();
    let fetched = client.fetch(&name, 0, 0, 1000, 1000).unwrap();
    assert_eq!((fetched.error, fetched.batches.len()), (0, 1));
}

#[test]
fn requests_in_flight_are_answered_in_order() {
    let (_target, mut client, name) = with_topic(1, &[]);
    for _ in 0..50 {
        client.send_produce(&name, vec![(0, batch_of(&["x"]))]).unwrap();
    }
    client.send(11, &fetch_request(&name, 0, 0, 0, 1 << 20)).unwrap();
    for expected in 0..50 {
        assert_eq!(client.receive_produce().unwrap()[0].base_offset, expected);
    }
    client.receive::<FetchRequest>(11).unwrap();
}

#[test]
fn an_idempotent_producer_is_deduplicated_and_ordered() {
    let (_target, mut client, name) = with_topic(1, &[]);
    let producer = new_producer(&mut client);
    let other = new_producer(&mut client);
    assert_ne!(producer.id, other.id);
    let send = |client: &mut Client, producer, sequence| {
        let batch = batch::encode(&[b"a".to_vec(), b"b".to_vec()], producer, sequence, now_ms());
        let produced = client.produce(&name, 0, batch).unwrap();
        (produced.error, produced.base_offset)
    };
    for n in 0..6 {
        assert_eq!(send(&mut client, producer, n * 2), (0, i64::from(n) * 2));
    }
    for n in 1..6 {
        assert_eq!(send(&mut client, producer, n * 2), (0, i64::from(n) * 2), "the last five are answered again");
    }
    assert_eq!(send(&mut client, producer, 0).0, 45, "a duplicate older than five");
    assert_eq!(send(&mut client, producer, 14).0, 45, "a gap");
    assert_eq!(send(&mut client, other, 0).0, 0, "another producer is independent");
    let newer = Producer { epoch: producer.epoch + 1, ..producer };
    assert_eq!(send(&mut client, newer, 5).0, 45, "a new epoch begins at 0");
    assert_eq!(send(&mut client, newer, 0).0, 0);
    assert_eq!(send(&mut client, producer, 12).0, 47, "the older epoch is fenced");
    assert_eq!(client.read_all(&name, 0, 0).unwrap().len(), 16);
}

#[test]
fn batches_that_are_wrong_get_kafkas_errors() {
    let (_target, mut client, name) = with_topic(1, &[("max.message.bytes", "2000")]);
    let good = batch_of(&["good"]);
    let damaged = |at: usize, byte: u8| {
        let mut batch = good.clone();
        batch[at] = byte;
        batch
    };
    let mut body = good.clone();
    let last = body.len() - 1;
    body[last] ^= 1;
    let future = batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, now_ms() + 3 * 3_600_000);
    let miscounted = batch::encode_body(&good[61..], 2, 0, NO_PRODUCER, -1, now_ms());
    let control = batch::encode_body(&good[61..], 1, 0x20, NO_PRODUCER, -1, now_ms());
    let of_record = |record: &[u8]| batch::encode_body(record, 1, 0, NO_PRODUCER, -1, now_ms());
    let cases: [(&str, Vec<u8>, i16); 16] = [
        ("checksum", body, 2),
        ("magic 1", damaged(16, 1), 87),
        ("magic 0", damaged(16, 0), 87),
        ("magic 3", damaged(16, 3), 2),
        ("two batches", [good.clone(), good.clone()].concat(), 87),
        ("nothing", vec![], 87),
        ("half a batch", good[..good.len() / 2].to_vec(), 87),
        ("too large", batch::encode(&[vec![1; 3000]], NO_PRODUCER, -1, now_ms()), 10),
        ("an hour and more ahead", future, 32),
        ("more records claimed than there are", miscounted, 87),
        ("a control batch", control, 87),
        // Length, attributes, time, offset, null key, null value, then the headers; all zigzag.
        ("a negative number of headers", of_record(&[12, 0, 0, 0, 1, 1, 1]), 87),
        ("a null header key", of_record(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), 87),
        ("a value beyond its record", of_record(&[12, 0, 0, 0, 1, 8, 0]), 87),
        ("a record that ends after its fields", of_record(&[14, 0, 0, 0, 1, 1, 0, 0]), 87),
        ("a torn tail after a whole batch", [good.clone(), good[..30].to_vec()].concat(), 0),
    ];
    let mut wrong = vec![];
    for (what, batch, expected) in cases {
        let error = client.produce(&name, 0, batch).unwrap().error;
        if error != expected {
            wrong.push(format!("{what}: expected error {expected}, got {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(client.produce(&name, 9, good.clone()).unwrap().error, 3);
    assert_eq!(client.read_all(&name, 0, 0).unwrap().len(), 1, "nothing else came in");
    client.send(9, &produce_request(&name, 7, vec![(0, good.clone())])).unwrap();
    assert_eq!(client.receive_produce().unwrap()[0].error, 21, "acks=7");
    let mut newest = client.call(9, &produce_request(&unique("absent"), 1, vec![(0, good)])).unwrap();
    assert_eq!(newest.responses.remove(0).partition_responses[0].error_code, 3);
}

#[test]
fn acks_zero_is_silent_and_stored() {
    let (_target, mut client, name) = with_topic(1, &[]);
    client.send(9, &produce_request(&name, 0, vec![(0, batch_of(&["quiet"]))])).unwrap();
    client.api_versions().expect("the next answer is that of the next request");
    let stored = eventually("the record", READY, || {
        let records = client.read_all(&name, 0, 0).unwrap();
        (!records.is_empty()).then_some(records)
    });
    assert_eq!(stored[0].value.as_deref(), Some(&b"quiet"[..]));
}

#[test]
fn offsets_are_listed_by_time_and_by_name() {
    let (_target, mut client, name) = with_topic(1, &[("message.timestamp.type", "CreateTime")]);
    let base = now_ms() - 10_000;
    for n in 0..5 {
        client.produce(&name, 0, batch::encode(&[b"t".to_vec()], NO_PRODUCER, -1, base + n * 1000)).unwrap();
    }
    assert_eq!(client.list_offset(&name, 0, -1).unwrap(), (0, -1, 5), "latest");
    assert_eq!(client.list_offset(&name, 0, -2).unwrap(), (0, -1, 0), "earliest");
    assert_eq!(client.list_offset(&name, 0, -3).unwrap(), (0, base + 4000, 4), "of the highest timestamp");
    assert_eq!(client.list_offset(&name, 0, base + 2000).unwrap(), (0, base + 2000, 2), "at a time");
    assert_eq!(client.list_offset(&name, 0, base + 2001).unwrap(), (0, base + 3000, 3), "just after it");
    assert_eq!(client.list_offset(&name, 0, base + 4001).unwrap(), (0, -1, -1), "later than all");
    assert_eq!(client.list_offset(&name, 0, -7).unwrap().0, 35);
    assert_eq!(client.list_offset(&name, 4, -1).unwrap().0, 3);
}

#[test]
fn append_time_is_the_brokers() {
    let (_target, mut client, name) = with_topic(1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    client.produce(&name, 0, batch::encode(&[b"t".to_vec()], NO_PRODUCER, -1, 1000)).unwrap();
    let batch = client.fetch(&name, 0, 0, 1000, 1 << 20).unwrap().batches.remove(0);
    assert_eq!(batch.attributes & 8, 8, "the batch says so");
    let (error, timestamp, _) = client.list_offset(&name, 0, -3).unwrap();
    assert_eq!(error, 0);
    assert!(timestamp >= before && timestamp <= now_ms(), "{timestamp} is not the time of the append");
}

#[test]
fn fetch_sessions_send_only_what_changed() {
    let (target, mut client, name) = with_topic(3, &[]);
    let asked = (0..3).map(|p| {
        let partition = fetch_request::FetchPartition::default().with_partition(p).with_partition_max_bytes(1 << 20);
        partition.with_fetch_offset(0)
    });
    let full = FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(0).with_session_epoch(0);
    let full = full.with_topics(vec![
        fetch_request::FetchTopic::default().with_topic(topic(&name)).with_partitions(asked.collect()),
    ]);
    let response = client.call(11, &full).unwrap();
    let id = response.session_id;
    assert_ne!(id, 0, "a session is made");
    assert_eq!(response.responses.iter().map(|t| t.partitions.len()).sum::<usize>(), 3);
    let next = |epoch| FetchRequest::default().with_max_bytes(1 << 20).with_session_id(id).with_session_epoch(epoch);
    let response = client.call(11, &next(1)).unwrap();
    assert_eq!(response.error_code, 0);
    assert!(response.responses.is_empty(), "nothing changed: {response:?}");
    target.client().produce(&name, 2, batch_of(&["new"])).unwrap();
    let response = client.call(11, &next(2).with_max_wait_ms(5000).with_min_bytes(1)).unwrap();
    assert_eq!(response.responses[0].partitions.len(), 1);
    assert_eq!(response.responses[0].partitions[0].partition_index, 2);
    assert_eq!(client.call(11, &next(9)).unwrap().error_code, 71, "a wrong epoch");
    let unknown = FetchRequest::default().with_session_id(id ^ 0x55).with_session_epoch(1).with_max_bytes(1 << 20);
    assert_eq!(client.call(11, &unknown).unwrap().error_code, 70, "an unknown session");
}

/// A fetch from partitions 0 of some topics that waits for ten seconds.
fn long_poll(topics: &[&str]) -> FetchRequest {
    let asked = topics.iter().map(|name| fetch_request(name, 0, 0, 0, 1 << 20).topics.remove(0));
    FetchRequest::default()
        .with_max_wait_ms(10_000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(asked.collect())
}

#[test]
fn a_fetch_of_nothing_that_exists_does_not_wait() {
    let (_target, mut client, name) = with_topic(1, &[]);
    let began = Instant::now();
    let response = client.call(11, &long_poll(&["no-such-topic", "nor-this-one"])).unwrap();
    assert!(response.responses.iter().flat_map(|t| &t.partitions).all(|p| p.error_code == 3), "{response:?}");
    let response = client.call(11, &long_poll(&[])).unwrap();
    assert!(response.responses.is_empty(), "{response:?}");
    let mut by_id = long_poll(&[""]);
    by_id.topics[0].topic_id = uuid::Uuid::from_bytes([7; 16]);
    let response = client.call(13, &by_id).unwrap();
    assert_eq!(response.responses[0].partitions[0].error_code, 100);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let began = Instant::now();
    let request = long_poll(&["no-such-topic", &name]).with_max_wait_ms(1_000);
    let response = client.call(11, &request).unwrap();
    assert_eq!(response.responses.len(), 2);
    assert!(began.elapsed() >= Duration::from_millis(900), "one that can be read is waited for");
}

#[test]
fn a_short_timeout_is_no_reason_to_disown_a_batch() {
    let (_target, mut client, name) = with_topic(1, &[]);
    for (round, timeout_ms) in [0, 1, -1].into_iter().cycle().take(12).enumerate() {
        let request = produce_request(&name, -1, vec![(0, batch_of(&["kept"]))]).with_timeout_ms(timeout_ms);
        let response = client.call(9, &request).unwrap();
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, round as i64), "timeout {timeout_ms}");
    }
}

#[test]
fn what_is_named_twice_counts_once() {
    let (_target, mut client, name) = with_topic(2, &[]);
    let batches = vec![(0, batch_of(&["first"])), (1, batch_of(&["other"])), (0, batch_of(&["last"]))];
    client.send_produce(&name, batches).unwrap();
    let mut outcomes = client.receive_produce().unwrap();
    outcomes.sort_by_key(|outcome| outcome.partition);
    let outcomes: Vec<_> = outcomes.iter().map(|o| (o.partition, o.error, o.base_offset)).collect();
    assert_eq!(outcomes, [(0, 0, 0), (1, 0, 0)]);
    let values: Vec<_> = client.read_all(&name, 0, 0).unwrap().into_iter().filter_map(|r| r.value).collect();
    assert_eq!(values, [b"last".to_vec()], "the last one is appended");
    let topics = client.metadata(&[&name, "no-such-topic", &name]).unwrap().topics;
    assert_eq!(topics.len(), 2, "{topics:?}");
}

#[test]
fn a_producer_without_an_epoch_is_refused() {
    let (_target, mut client, name) = with_topic(1, &[]);
    let producer = Producer { epoch: -1, ..new_producer(&mut client) };
    let batch = batch::encode(&[b"a".to_vec()], producer, 0, now_ms());
    assert_eq!(client.produce(&name, 0, batch).unwrap().error, 47);
}

#[test]
fn no_epoch_has_no_end() {
    let (_target, mut client, name) = with_topic(1, &[]);
    client.produce(&name, 0, batch_of(&["a"])).unwrap();
    let mut end = |leader_epoch| {
        let asked = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
        let asked = asked.with_partition(0).with_current_leader_epoch(-1).with_leader_epoch(leader_epoch);
        let asked_topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic(&name));
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1));
        let request = request.with_topics(vec![asked_topic.with_partitions(vec![asked])]);
        let answer = client.call(4, &request).unwrap().topics[0].partitions[0].clone();
        (answer.error_code, answer.leader_epoch, answer.end_offset)
    };
    assert_eq!(end(-1), (0, -1, -1));
    assert_eq!(end(0).0, 0);
}

#[test]
fn topic_ids_address_a_topic() {
    let (_target, mut client, name) = with_topic(1, &[]);
    client.produce(&name, 0, batch_of(&["by id"])).unwrap();
    let id = client.metadata(&[&name]).unwrap().topics[0].topic_id;
    let mut request = fetch_request(&name, 0, 0, 1000, 1 << 20);
    request.topics[0].topic = topic("");
    request.topics[0].topic_id = id;
    let response = client.call(16, &request).unwrap();
    assert_eq!(response.error_code, 0);
    assert!(response.responses[0].partitions[0].records.as_ref().is_some_and(|r| !r.is_empty()));
    request.topics[0].topic_id = Default::default();
    let response = client.call(16, &request).unwrap();
    let partition = response.responses.first().map_or(response.error_code, |t| t.partitions[0].error_code);
    assert_eq!(partition, 100, "an unknown topic id");
}

#[test]
fn leader_epochs_are_checked_and_their_ends_told() {
    let (_target, mut client, name) = with_topic(1, &[]);
    client.produce(&name, 0, batch_of(&["a", "b"])).unwrap();
    let epoch = client.metadata(&[&name]).unwrap().topics[0].partitions[0].leader_epoch;
    let mut request = fetch_request(&name, 0, 0, 0, 1 << 20);
    request.topics[0].partitions[0].current_leader_epoch = epoch + 1;
    assert_eq!(client.call(11, &request).unwrap().responses[0].partitions[0].error_code, 75);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    assert_eq!(client.call(11, &request).unwrap().responses[0].partitions[0].error_code, 0);
    let asked = offset_for_leader_epoch_request::OffsetForLeaderPartition::default().with_partition(0);
    let ask = |leader_epoch| {
        let partition = asked.clone().with_current_leader_epoch(-1).with_leader_epoch(leader_epoch);
        let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic(&name));
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1));
        request.with_topics(vec![topic.with_partitions(vec![partition])])
    };
    let end = client.call(4, &ask(epoch)).unwrap().topics[0].partitions[0].clone();
    assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, epoch, 2));
    let above = client.call(4, &ask(epoch + 5)).unwrap().topics[0].partitions[0].clone();
    assert_eq!((above.leader_epoch, above.end_offset), (-1, -1));
}

#[test]
fn the_handshake_follows_kafka() {
    let target = Target::new();
    let versions = target.client().api_versions().unwrap();
    assert_eq!(versions.error_code, 0);
    let produce = versions.api_keys.iter().find(|k| k.api_key == ProduceRequest::KEY).expect("Produce is advertised");
    assert_eq!(produce.min_version, 0, "librdkafka needs Produce from 0 for compression");
    assert!(versions.api_keys.iter().all(|k| k.min_version <= k.max_version));
    // A version of ApiVersions that does not exist: error 35 in the oldest form, with the range that does.
    let mut client = target.client();
    let mut newest = frame(4, &ApiVersionsRequest::default(), 77);
    newest[6..8].copy_from_slice(&99i16.to_be_bytes());
    client.send_raw(&newest).unwrap();
    let answer = client.receive_raw().unwrap();
    assert_eq!((&answer[..4], &answer[4..6]), (&77i32.to_be_bytes()[..], &35i16.to_be_bytes()[..]));
    client.api_versions().expect("the connection goes on");
    let bad_name = ApiVersionsRequest::default().with_client_software_name(text("not a name!"));
    assert_eq!(client.call(3, &bad_name.with_client_software_version(text("1"))).unwrap().error_code, 42);
}

#[test]
fn what_is_encoded_is_decoded_and_damage_is_seen() {
    let values = vec![b"one".to_vec(), vec![], vec![7; 300]];
    let producer = Producer { id: 9, epoch: 1 };
    let bytes = batch::encode(&values, producer, 40, 1_700_000_000_000);
    let batch = batch::decode(&bytes).unwrap().remove(0);
    assert_eq!((batch.producer, batch.base_sequence, batch.last_offset), (producer, 40, 2));
    let read: Vec<_> = batch.records.into_iter().map(|r| (r.offset, r.value.unwrap())).collect();
    assert_eq!(read, values.into_iter().enumerate().map(|(i, v)| (i as i64, v)).collect::<Vec<_>>());
    for at in 21..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(batch::decode(&damaged).is_err(), "byte {at}");
    }
    assert_eq!(batch::decode(&bytes[..bytes.len() - 1]).unwrap(), vec![]);
}
