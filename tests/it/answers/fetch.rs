//! Reading: offsets out of range, partitions and sessions that are not there, epochs that were or will be.

use super::super::batch::{self, NO_PRODUCER};
use super::super::client::{fetch_request, topic};
use super::super::harness::now_ms;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;
use uuid::Uuid;

const NOBODY: Uuid = Uuid::from_bytes([7; 16]);

pub fn run() {
    let mut world = World::new("fetch").coordinated();
    let name = world.topic("topic", 2, &[]);
    for partition in 0..2 {
        for (later, value) in [(0, "a"), (1, "b"), (2, "c")] {
            let batch = batch::encode(&[value.as_bytes().to_vec()], NO_PRODUCER, -1, now_ms() - 10_000 + later);
            assert_eq!(world.client.produce(&name, partition, batch).expect("an answer to Produce").error, 0);
        }
    }
    world.watched = vec![Watched::Log(name.clone(), 0), Watched::Log(name.clone(), 1)];
    fetches(&mut world, &name);
    sessions(&mut world, &name);
    lists(&mut world, &name);
    epochs(&mut world, &name);
    deletions(&mut world, &name);
    world.finish();
}

/// The request as a version carries it: by name, or by the topic's id.
fn at(w: &mut World, version: i16, mut request: FetchRequest) -> FetchRequest {
    for asked in request.topics.iter_mut().filter(|_| version >= 13) {
        let known = w.client.metadata(&[&asked.topic]).expect("an answer to Metadata");
        let id = known.topics[0].topic_id;
        asked.topic_id = if id.is_nil() { NOBODY } else { id };
        asked.topic = topic("");
    }
    for asked in &mut request.forgotten_topics_data {
        asked.topic_id = NOBODY;
    }
    request
}

fn fetches(world: &mut World, name: &str) {
    for offset in [i64::MIN, -2, -1, 0, 2, 3, 4, i64::MAX] {
        for isolation in [0, 1, 2, -1] {
            let is_level = (0..2).contains(&isolation);
            if (!is_level && offset != 0) || (isolation == 1 && offset == 2) {
                continue;
            }
            world.ask(&format!("Fetch: offset {offset} of 3, isolation {isolation}"), |w, version| {
                at(w, version, fetch_request(name, 0, offset, 0, 1 << 20).with_isolation_level(isolation))
            });
        }
    }
    for partition in [2, -1, i32::MAX] {
        world.ask(&format!("Fetch: partition {partition} of 2"), |w, version| {
            at(w, version, fetch_request(name, partition, 0, 0, 1 << 20))
        });
    }
    for (words, other) in [("that is not there", "absent"), ("of a bad name", "a b")] {
        world.ask(&format!("Fetch: a topic {words}"), |w, version| {
            at(w, version, fetch_request(other, 0, 0, 0, 1 << 20))
        });
    }
    for epoch in [i32::MIN, -2, -1, 0, 1, i32::MAX] {
        world.ask(&format!("Fetch: current leader epoch {epoch} (it is 0)"), |w, version| {
            let mut request = fetch_request(name, 0, 0, 0, 1 << 20);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            at(w, version, request)
        });
        world.ask(&format!("Fetch: last fetched epoch {epoch}"), |w, version| {
            let mut request = fetch_request(name, 0, 1, 0, 1 << 20);
            request.topics[0].partitions[0].last_fetched_epoch = epoch;
            at(w, version, request)
        });
    }
    for bytes in [i32::MIN, -1, 0, 1] {
        world.ask(&format!("Fetch: at most {bytes} bytes"), |w, version| {
            at(w, version, fetch_request(name, 0, 0, 0, bytes))
        });
        world.ask(&format!("Fetch: at most {bytes} bytes of a partition"), |w, version| {
            at(w, version, fetch_request(name, 0, 0, 0, bytes).with_max_bytes(1 << 20))
        });
        world.ask(&format!("Fetch: at least {bytes} bytes, waiting {bytes} ms"), |w, version| {
            at(w, version, fetch_request(name, 0, 0, bytes, 1 << 20).with_min_bytes(bytes))
        });
    }
    world.ask("Fetch: an unassigned topic id", |_, _| {
        let mut request = fetch_request("", 0, 0, 0, 1 << 20);
        request.topics[0].topic_id = Uuid::nil();
        request
    });
    world.ask("Fetch: a partition twice", |w, version| {
        let mut request = fetch_request(name, 0, 0, 0, 1 << 20);
        request.topics.extend(fetch_request(name, 0, 3, 0, 1 << 20).topics);
        at(w, version, request)
    });
    world.ask("Fetch: what is there and what is not", |w, version| {
        let mut request = fetch_request(name, 0, 0, 0, 1 << 20);
        request.topics.extend(fetch_request("absent", 0, 0, 0, 1 << 20).topics);
        request.topics.extend(fetch_request(name, 1, 99, 0, 1 << 20).topics);
        at(w, version, request)
    });
    replicas(world, name);
}

/// Who says that it is a replica.
fn replicas(world: &mut World, name: &str) {
    for replica in [-3, -2, 7] {
        world.ask(&format!("Fetch: as replica {replica}"), |w, version| {
            let request = at(w, version, fetch_request(name, 0, 0, 0, 1 << 20));
            if version < 15 {
                return request.with_replica_id(BrokerId(replica));
            }
            request.with_replica_state(fetch_request::ReplicaState::default().with_replica_id(BrokerId(replica)))
        });
    }
}

fn sessions(world: &mut World, name: &str) {
    for id in [-1, 1, i32::MAX] {
        for epoch in [i32::MIN, -2, -1, 0, 1, i32::MAX] {
            world.ask(&format!("Fetch: session {id} that is not there, epoch {epoch}"), |w, version| {
                let request = fetch_request(name, 0, 0, 0, 1 << 20).with_session_id(id).with_session_epoch(epoch);
                at(w, version, request)
            });
        }
    }
    for epoch in [i32::MIN, -2, -1, 0, 1, 2, i32::MAX] {
        world.ask(&format!("Fetch: session 0, epoch {epoch}"), |w, version| {
            at(w, version, fetch_request(name, 0, 0, 0, 1 << 20).with_session_epoch(epoch))
        });
        world.ask(&format!("Fetch: a session that is there, epoch {epoch} after 0"), |w, version| {
            let first = fetch_request(name, 0, 0, 0, 1 << 20);
            let first = if version < 7 { first } else { first.with_session_epoch(0) };
            let first = at(w, version, first);
            let id = w.call(version, &first).expect("an answer to Fetch").session_id;
            let next = FetchRequest::default().with_session_id(id).with_session_epoch(epoch);
            next.with_max_bytes(1 << 20).with_min_bytes(0)
        });
    }
    world.ask("Fetch: to forget what is not there", |w, version| {
        let forgotten = fetch_request::ForgottenTopic::default().with_partitions(vec![0, 9, -1]);
        let forgotten = if version < 13 { forgotten.with_topic(topic("absent")) } else { forgotten };
        let request = fetch_request(name, 0, 0, 0, 1 << 20).with_forgotten_topics_data(vec![forgotten]);
        let mut request = at(w, version, request);
        if version < 13 {
            request.forgotten_topics_data[0].topic_id = Uuid::nil();
        }
        request
    });
}

fn lists(world: &mut World, name: &str) {
    let list = |name: &str, partition: i32, timestamp: i64| {
        let asked = list_offsets_request::ListOffsetsPartition::default().with_partition_index(partition);
        let asked = asked.with_timestamp(timestamp).with_current_leader_epoch(-1);
        let asked =
            list_offsets_request::ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![asked]);
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked])
    };
    for timestamp in [i64::MIN, -100, -7, -6, -5, -4, -3, -2, -1, 0, i64::MAX] {
        for isolation in [0, 1, 2, -1] {
            if !(0..2).contains(&isolation) && timestamp != -1 {
                continue;
            }
            world.ask(&format!("ListOffsets: timestamp {timestamp}, isolation {isolation}"), |_, _| {
                list(name, 0, timestamp).with_isolation_level(isolation)
            });
        }
    }
    for (words, other, partition) in [
        ("partition 2 of 2", name, 2),
        ("partition -1", name, -1),
        ("a topic that is not there", "absent", 0),
        ("a topic without a name", "", 0),
        ("a topic of a bad name", "a b", 0),
    ] {
        world.ask(&format!("ListOffsets: {words}"), |_, _| list(other, partition, -1));
    }
    for epoch in [i32::MIN, -2, -1, 0, 1, i32::MAX] {
        world.ask(&format!("ListOffsets: current leader epoch {epoch} (it is 0)"), |_, _| {
            let mut request = list(name, 0, -1);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            request
        });
    }
    world.ask("ListOffsets: a partition twice", |_, _| {
        let mut request = list(name, 0, -1);
        request.topics[0].partitions.extend(list(name, 0, -2).topics.remove(0).partitions);
        request
    });
    world.ask("ListOffsets: a topic twice, and one that is not there", |_, _| {
        let mut request = list(name, 0, -1);
        request.topics.extend(list(name, 1, -2).topics);
        request.topics.extend(list("absent", 1, -2).topics);
        request
    });
    world.ask("ListOffsets: nothing", |_, _| list(name, 0, -1).with_topics(vec![]));
    for replica in [-3, -2, 7] {
        world.ask(&format!("ListOffsets: as replica {replica}"), |_, _| {
            list(name, 0, -1).with_replica_id(BrokerId(replica))
        });
    }
}

fn epochs(world: &mut World, name: &str) {
    let ask = |name: &str, partition, current, epoch| {
        let asked = offset_for_leader_epoch_request::OffsetForLeaderPartition::default().with_partition(partition);
        let asked = asked.with_current_leader_epoch(current).with_leader_epoch(epoch);
        let asked_topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic(name));
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1));
        request.with_topics(vec![asked_topic.with_partitions(vec![asked])])
    };
    for current in [i32::MIN, -1, 0, 1, i32::MAX] {
        for epoch in [i32::MIN, -1, 0, 1, i32::MAX] {
            world.ask(&format!("OffsetForLeaderEpoch: current {current}, asked for {epoch} (it is 0)"), |_, _| {
                ask(name, 0, current, epoch)
            });
        }
    }
    for (words, other, partition) in [
        ("partition 2 of 2", name, 2),
        ("partition -1", name, -1),
        ("a topic that is not there", "absent", 0),
        ("a topic without a name", "", 0),
    ] {
        world.ask(&format!("OffsetForLeaderEpoch: {words}"), |_, _| ask(other, partition, -1, 0));
    }
    let producers = |name: &str, partitions: &[i32]| {
        let asked = describe_producers_request::TopicRequest::default().with_name(topic(name));
        let asked = asked.with_partition_indexes(partitions.to_vec());
        DescribeProducersRequest::default().with_topics(vec![asked])
    };
    world.ask("DescribeProducers: partitions that are not there", |_, _| producers(name, &[0, 2, -1]));
    world.ask("DescribeProducers: a topic that is not there", |_, _| producers("absent", &[0]));
    world.ask("DescribeProducers: a topic without a name", |_, _| producers("", &[0]));
    world.ask("DescribeProducers: no partitions", |_, _| producers(name, &[]));
}

fn deletions(world: &mut World, name: &str) {
    let delete = |name: &str, partition: i32, offset: i64| {
        let asked = delete_records_request::DeleteRecordsPartition::default().with_partition_index(partition);
        let asked_topic = delete_records_request::DeleteRecordsTopic::default().with_name(topic(name));
        let asked_topic = asked_topic.with_partitions(vec![asked.with_offset(offset)]);
        DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![asked_topic])
    };
    for offset in [i64::MIN, -2, 0, 4, i64::MAX] {
        world.ask(&format!("DeleteRecords: before {offset} of 3"), |_, _| delete(name, 0, offset));
    }
    for (words, other, partition) in [
        ("partition 2 of 2", name, 2),
        ("partition -1", name, -1),
        ("a topic that is not there", "absent", 0),
        ("a topic without a name", "", 0),
        ("a topic of a bad name", "a b", 0),
        ("the broker's own topic", "__transaction_state", 0),
    ] {
        world.ask(&format!("DeleteRecords: {words}"), |_, _| delete(other, partition, 0));
    }
    for timeout in [i32::MIN, -1, 0] {
        world.ask(&format!("DeleteRecords: timeout {timeout}"), |_, _| delete(name, 0, 0).with_timeout_ms(timeout));
    }
    let compacted = world.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    world.ask("DeleteRecords: a compacted topic", |_, _| delete(&compacted, 0, 0));
    world.ask("DeleteRecords: a partition twice", |_, _| {
        let mut request = delete(name, 0, 0);
        request.topics[0].partitions.extend(delete(name, 0, 99).topics.remove(0).partitions);
        request
    });
    world.ask("DeleteRecords: nothing", |_, _| DeleteRecordsRequest::default());
    // Last: this one is in order, and moves the start.
    world.ask("DeleteRecords: all of 3", |_, _| delete(name, 0, -1));
    world.ask("DeleteRecords: below the start", |_, _| delete(name, 0, 1));
    world.ask("Fetch: below the start", |w, version| at(w, version, fetch_request(name, 0, 1, 0, 1 << 20)));
}
