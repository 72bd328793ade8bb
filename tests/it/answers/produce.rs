//! Produce: sequences out of order, fenced epochs, batches that are none, topics that are not there.

use super::super::batch::{self, NO_PRODUCER, Producer};
use super::super::client::{produce_request, text, topic};
use super::super::harness::{new_producer, now_ms};
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;

pub fn run() {
    let mut world = World::new("produce").coordinated();
    sequences(&mut world);
    requests(&mut world);
    batches(&mut world);
    world.finish();
}

/// The request as a version carries it: by name, or by the topic's id.
pub fn at(w: &mut World, version: i16, name: &str, mut request: ProduceRequest) -> ProduceRequest {
    if version >= 13 {
        let known = w.client.metadata(&[name]).expect("an answer to Metadata");
        for data in &mut request.topic_data {
            data.topic_id = known.topics[0].topic_id;
            data.name = topic("");
        }
    }
    request
}

fn one(value: &str, producer: Producer, sequence: i32) -> Vec<u8> {
    batch::encode(&[value.as_bytes().to_vec()], producer, sequence, now_ms())
}

/// A partition to which a producer has written sequences 0, 1 and 2, one a batch.
fn written(w: &mut World, name: &str) -> Producer {
    let producer = new_producer(&mut w.client);
    for sequence in 0..3 {
        let produced = w.client.produce(name, 0, one("before", producer, sequence)).expect("an answer to Produce");
        assert_eq!(produced.error, 0, "sequence {sequence}");
    }
    producer
}

fn sequences(world: &mut World) {
    let name = world.topic("sequences", 1, &[]);
    world.watched = vec![Watched::Log(name.clone(), 0)];
    for epoch in [-1, 0, 1, 2, i16::MAX] {
        for sequence in [i32::MIN, -2, -1, 0, 1, 2, 3, 4, 1_000, i32::MAX] {
            world.ask(&format!("Produce: epoch {epoch} after 0, sequence {sequence} after 2"), |w, version| {
                let producer = written(w, &name);
                let request =
                    produce_request(&name, -1, vec![(0, one("after", Producer { epoch, ..producer }, sequence))]);
                at(w, version, &name, request)
            });
        }
    }
    for sequence in [-2, -1, 0, 1, 5, i32::MAX] {
        world.ask(&format!("Produce: an unknown producer, sequence {sequence}"), |w, version| {
            let producer = new_producer(&mut w.client);
            let request = produce_request(&name, -1, vec![(0, one("first", producer, sequence))]);
            at(w, version, &name, request)
        });
    }
    for (words, producer, sequence) in [
        ("an epoch without a producer", Producer { id: -1, epoch: 0 }, -1),
        ("a sequence without a producer", NO_PRODUCER, 0),
        ("producer -2", Producer { id: -2, epoch: 0 }, 0),
        ("a producer that was never given out", Producer { id: i64::MAX, epoch: 0 }, 0),
    ] {
        world.ask(&format!("Produce: {words}"), |w, version| {
            let request = produce_request(&name, -1, vec![(0, one("x", producer, sequence))]);
            at(w, version, &name, request)
        });
    }
    // Three records in a batch that overlap what is there, in part or wholly.
    for sequence in 0..4 {
        world.ask(&format!("Produce: three records from sequence {sequence} after 2"), |w, version| {
            let producer = written(w, &name);
            let values = ["a", "b", "c"].map(|v| v.as_bytes().to_vec());
            let request = produce_request(&name, -1, vec![(0, batch::encode(&values, producer, sequence, now_ms()))]);
            at(w, version, &name, request)
        });
    }
}

fn requests(world: &mut World) {
    let name = world.topic("requests", 2, &[]);
    world.watched = vec![Watched::Log(name.clone(), 0), Watched::Log(name.clone(), 1)];
    let good = || one("good", NO_PRODUCER, -1);
    for acks in [i16::MIN, -2, 2, 7, i16::MAX] {
        world.ask(&format!("Produce: acks {acks}"), |w, version| {
            at(w, version, &name, produce_request(&name, acks, vec![(0, good())]))
        });
    }
    for timeout in [i32::MIN, -1, 0] {
        world.ask(&format!("Produce: timeout {timeout}"), |w, version| {
            at(w, version, &name, produce_request(&name, -1, vec![(0, good())]).with_timeout_ms(timeout))
        });
    }
    for partition in [2, -1, i32::MAX, i32::MIN] {
        world.ask(&format!("Produce: partition {partition} of 2"), |w, version| {
            at(w, version, &name, produce_request(&name, -1, vec![(partition, good())]))
        });
    }
    for (words, other) in [("that is not there", "absent"), ("without a name", ""), ("of a bad name", "a b")] {
        world.ask(&format!("Produce: a topic {words}"), |_, version| {
            let mut request = produce_request(other, -1, vec![(0, good())]);
            if version >= 13 {
                request.topic_data[0].name = topic("");
                request.topic_data[0].topic_id = uuid::Uuid::from_bytes([7; 16]);
            }
            request
        });
    }
    world.ask("Produce: no topics", |_, _| ProduceRequest::default().with_acks(-1).with_timeout_ms(1000));
    world.ask("Produce: no partitions", |w, version| at(w, version, &name, produce_request(&name, -1, vec![])));
    world.ask("Produce: one good partition and one that is not there", |w, version| {
        at(w, version, &name, produce_request(&name, -1, vec![(0, good()), (9, good())]))
    });
    for own in ["__consumer_offsets", "__transaction_state"] {
        world.ask(&format!("Produce: the broker's own topic {own}"), |w, version| {
            at(w, version, own, produce_request(own, -1, vec![(0, good())]))
        });
    }
    for id in ["", "absent"] {
        world.ask(&format!("Produce: transactional id `{id}` for a batch of none"), |w, version| {
            let request = at(w, version, &name, produce_request(&name, -1, vec![(0, good())]));
            request.with_transactional_id(Some(TransactionalId(text(id))))
        });
    }
    world.ask("Produce: a transactional batch without a transactional id", |w, version| {
        let producer = new_producer(&mut w.client);
        let batch = batch::transactional(&[b"x".to_vec()], producer, 0, now_ms());
        at(w, version, &name, produce_request(&name, -1, vec![(0, batch)]))
    });
}

/// What is wrong with the bytes themselves.
fn batches(world: &mut World) {
    let name = world.topic("batches", 1, &[("max.message.bytes", "2000")]);
    let strict = world.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let stamped = world.topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let now = now_ms();
    let good = batch::encode(&[b"good".to_vec()], NO_PRODUCER, -1, now);
    let changed = |at: usize, byte: u8| {
        let mut batch = good.clone();
        batch[at] = byte;
        batch
    };
    let body = |count, attributes| batch::encode_body(&good[61..], count, attributes, NO_PRODUCER, -1, now);
    let of_record = |record: &[u8]| batch::encode_body(record, 1, 0, NO_PRODUCER, -1, now);
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("no bytes".into(), vec![]),
        ("one byte".into(), vec![0]),
        ("a wrong checksum".into(), changed(17, good[17] ^ 1)),
        ("a length of 0".into(), [&good[..8], &[0; 4], &good[12..]].concat()),
        ("a negative length".into(), [&good[..8], &[0xff; 4], &good[12..]].concat()),
        ("too large for the topic".into(), batch::encode(&[vec![1; 3000]], NO_PRODUCER, -1, now)),
        ("two batches".into(), [good.clone(), good.clone()].concat()),
        ("a control batch".into(), body(1, 0x20)),
        ("the bit of delete horizons".into(), body(1, 0x40)),
        ("unused attributes".into(), body(1, 0x80)),
        ("the time of the append set by the client".into(), body(1, 8)),
        ("an hour and more ahead".into(), batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, now + 3 * 3_600_000)),
        ("long ago".into(), batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, 1)),
        ("a time of -1".into(), batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, -1)),
        ("a time of -2".into(), batch::encode(&[b"x".to_vec()], NO_PRODUCER, -1, -2)),
        ("no record".into(), batch::encode_body(&[], 0, 0, NO_PRODUCER, -1, now)),
        ("bytes after the last record".into(), of_record(&[&good[61..], &[0, 0]].concat())),
        ("a record of length 0".into(), of_record(&[0])),
        ("a record of length -1".into(), of_record(&[1])),
        ("a record that claims 2 GiB".into(), of_record(&[0xfe, 0xff, 0xff, 0xff, 0x0f])),
        ("a record whose length does not end".into(), of_record(&[0xff; 12])),
        ("a null key of a header".into(), of_record(&[16, 0, 0, 0, 1, 1, 2, 1, 1])),
        ("a negative number of headers".into(), of_record(&[12, 0, 0, 0, 1, 1, 1])),
        ("a value beyond its record".into(), of_record(&[12, 0, 0, 0, 1, 8, 0])),
        ("an offset that is not its place".into(), of_record(&[12, 0, 0, 2, 1, 1, 0])),
        ("cut after a whole batch".into(), [good.clone(), good[..30].to_vec()].concat()),
    ];
    for magic in [0, 1, 3, 0x7f, 0xff] {
        cases.push((format!("format {magic}"), changed(16, magic)));
    }
    for length in [11, 12, 16, 17, 40, 60, 61, good.len() - 1] {
        cases.push((format!("its first {length} bytes"), good[..length].to_vec()));
    }
    for codec in 1..8 {
        cases.push((format!("compressed by codec {codec}, and is not"), body(1, codec)));
    }
    for count in [-1, 0, 2, i32::MAX] {
        cases.push((format!("{count} records claimed"), body(count, 0)));
    }
    for (kind, name) in [("", &name), (" to a compacted topic", &strict), (" to a topic of append times", &stamped)] {
        world.watched = vec![Watched::Log(name.clone(), 0)];
        for (words, bytes) in &cases {
            world.ask(&format!("Produce{kind}: {words}"), |w, version| {
                at(w, version, name, produce_request(name, -1, vec![(0, bytes.clone())]))
            });
        }
    }
}
