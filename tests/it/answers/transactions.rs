//! Transactions: fenced producers and epochs, EndTxn that is stale or comes again, partitions that are not there.

use super::super::batch::{self, Producer};
use super::super::client::{produce_request, text, topic};
use super::super::harness::now_ms;
use super::known::*;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;

const NEW: &str = "a new transactional id";
const BEGUN: &str = "a producer that has begun nothing";
const OPEN: &str = "an open transaction";
const COMMITTED: &str = "a committed transaction";
const ABORTED: &str = "an aborted transaction";
const STATES: [&str; 5] = [NEW, BEGUN, OPEN, COMMITTED, ABORTED];

pub fn run() {
    let mut world = World::new("transactions").coordinated();
    let topic_name = world.topic("topic", 2, &[]);
    inits(&mut world, &topic_name);
    ends(&mut world, &topic_name);
    repeated_ends(&mut world, &topic_name);
    additions(&mut world, &topic_name);
    offsets(&mut world, &topic_name);
    markers(&mut world, &topic_name);
    descriptions(&mut world, &topic_name);
    world.finish();
}

/// Who a request says that it is from.
#[derive(Debug, Clone, Copy)]
struct From {
    words: &'static str,
    id: i64,
    epoch: i16,
}

/// The producer, and those that it might be taken for.
fn senders(p: Producer) -> [From; 8] {
    let from = |words, id, epoch| From { words, id, epoch };
    [
        from("itself", p.id, p.epoch),
        from("the epoch before", p.id, p.epoch - 1),
        from("the next epoch", p.id, p.epoch + 1),
        from("the last epoch", p.id, i16::MAX),
        from("no epoch", p.id, -1),
        from("another producer", p.id + 1_000_000, p.epoch),
        from("no producer", -1, -1),
        from("no producer with an epoch", -1, p.epoch),
    ]
}

fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

fn add(version: i16, id: &str, from: From, topics: &[(&str, &[i32])]) -> AddPartitionsToTxnRequest {
    let topics = topics.iter().map(|(name, partitions)| {
        let asked = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(topic(name));
        asked.with_partitions(partitions.to_vec())
    });
    let request = AddPartitionsToTxnRequest::default();
    if version < 4 {
        return request
            .with_v3_and_below_transactional_id(transactional_id(id))
            .with_v3_and_below_producer_id(ProducerId(from.id))
            .with_v3_and_below_producer_epoch(from.epoch)
            .with_v3_and_below_topics(topics.collect());
    }
    let transaction = add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(from.id))
        .with_producer_epoch(from.epoch)
        .with_topics(topics.collect());
    request.with_transactions(vec![transaction])
}

fn end(id: &str, from: From, committed: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(from.id))
        .with_producer_epoch(from.epoch)
        .with_committed(committed)
}

/// A transactional id in one of the states, with its producer; of transactions of the first version (before KIP-890).
fn prepared(w: &mut World, state: &str, topic_name: &str) -> (String, Producer) {
    if state == NEW {
        let id = w.fresh("tx");
        w.watched = vec![Watched::Transaction(id.clone())];
        return (id, Producer { id: 900_000_000, epoch: 0 });
    }
    let (id, producer) = w.transactional(600_000);
    // An epoch that has one before it.
    let again = init(&id, 600_000).with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch);
    let answer = w.client.call(4, &again).expect("an answer to InitProducerId");
    assert_eq!(answer.error_code, 0, "the next epoch");
    let producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
    let itself = senders(producer)[0];
    if state != BEGUN {
        let request = add(3, &id, itself, &[(topic_name, &[0])]);
        let answer = w.client.call(3, &request).expect("an answer to AddPartitionsToTxn");
        assert_eq!(answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
    }
    if [COMMITTED, ABORTED].contains(&state) {
        let answer = w.client.call(3, &end(&id, itself, state == COMMITTED)).expect("an answer to EndTxn");
        assert_eq!(answer.error_code, 0, "ending");
        Watched::Transaction(id.clone()).describe(w);
    }
    (id, producer)
}

fn inits(world: &mut World, topic_name: &str) {
    for timeout in [i32::MIN, -1, 0, 1, 900_000, 900_001, i32::MAX] {
        world.ask(&format!("InitProducerId: timeout {timeout}"), |w, _| {
            let (id, _) = prepared(w, NEW, "");
            init(&id, timeout)
        });
        world.ask(&format!("InitProducerId without a transactional id: timeout {timeout}"), |w, _| {
            w.watched.clear();
            init("", timeout).with_transactional_id(None)
        });
    }
    world.watched.clear();
    world.ask("InitProducerId: an empty transactional id", |_, _| init("", 600_000));
    for (words, id, epoch) in [("a producer", 5, 0), ("a producer without epoch", 5, -1), ("an epoch alone", -1, 5)] {
        world.ask(&format!("InitProducerId without a transactional id: {words}"), |_, _| {
            let request = init("", 600_000).with_transactional_id(None);
            request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
        });
    }
    for state in STATES {
        for index in 0..8 {
            let words = senders(Producer { id: 1, epoch: 1 })[index].words;
            world.ask(&format!("InitProducerId, {state}: {words}"), |w, _| {
                let (id, producer) = prepared(w, state, topic_name);
                let from = senders(producer)[index];
                init(&id, 600_000).with_producer_id(ProducerId(from.id)).with_producer_epoch(from.epoch)
            });
        }
    }
}

fn ends(world: &mut World, topic_name: &str) {
    for state in STATES {
        for committed in [true, false] {
            for index in 0..8 {
                let words = senders(Producer { id: 1, epoch: 1 })[index].words;
                let verb = if committed { "commit" } else { "abort" };
                world.ask(&format!("EndTxn, {state}: {verb} by {words}"), |w, _| {
                    let (id, producer) = prepared(w, state, topic_name);
                    end(&id, senders(producer)[index], committed)
                });
            }
        }
    }
    world.watched.clear();
    world.ask("EndTxn: an empty transactional id", |_, _| end("", senders(Producer { id: 1, epoch: 1 })[0], true));
}

/// The same request again, and its opposite, after one of the second version (which raises the epoch itself).
fn repeated_ends(world: &mut World, topic_name: &str) {
    for first in [true, false] {
        for second in [true, false] {
            for (words, step) in [("the old epoch", 0), ("the new epoch", 1), ("one epoch more", 2)] {
                let verb = |committed| if committed { "commit" } else { "abort" };
                world.ask(
                    &format!("EndTxn after {} of version 5: {} by {words}", verb(first), verb(second)),
                    |w, _| {
                        let (id, producer) = prepared(w, OPEN, topic_name);
                        let itself = senders(producer)[0];
                        assert_eq!(
                            w.client.call(5, &end(&id, itself, first)).expect("an answer to EndTxn").error_code,
                            0
                        );
                        Watched::Transaction(id.clone()).describe(w);
                        end(&id, From { epoch: producer.epoch + step, ..itself }, second)
                    },
                );
            }
        }
    }
}

fn additions(world: &mut World, topic_name: &str) {
    for state in STATES {
        for index in 0..8 {
            let words = senders(Producer { id: 1, epoch: 1 })[index].words;
            world.ask(&format!("AddPartitionsToTxn, {state}: {words}"), |w, version| {
                let (id, producer) = prepared(w, state, topic_name);
                add(version, &id, senders(producer)[index], &[(topic_name, &[0, 1])])
            });
            world.ask(&format!("AddOffsetsToTxn, {state}: {words}"), |w, _| {
                let (id, producer) = prepared(w, state, topic_name);
                let from = senders(producer)[index];
                AddOffsetsToTxnRequest::default()
                    .with_transactional_id(transactional_id(&id))
                    .with_producer_id(ProducerId(from.id))
                    .with_producer_epoch(from.epoch)
                    .with_group_id(group_id("in-transaction"))
            });
        }
        for (words, topics) in [
            ("nothing", vec![]),
            ("no partitions", vec![(topic_name, &[][..])]),
            ("a topic that is not there", vec![("absent", &[0][..])]),
            ("a topic without a name", vec![("", &[0][..])]),
            ("partitions that are not there", vec![(topic_name, &[2, -1][..])]),
            ("a partition twice", vec![(topic_name, &[1, 1][..])]),
            ("what is there and what is not", vec![(topic_name, &[1, 7][..]), ("absent", &[0][..])]),
            ("a topic of the broker's own", vec![("__consumer_offsets", &[0][..])]),
        ] {
            world.ask(&format!("AddPartitionsToTxn, {state}: {words}"), |w, version| {
                let (id, producer) = prepared(w, state, topic_name);
                add(version, &id, senders(producer)[0], &topics)
            });
        }
        world.ask(&format!("AddPartitionsToTxn, {state}: only whether they are there"), |w, version| {
            let (id, producer) = prepared(w, state, topic_name);
            let mut request = add(version, &id, senders(producer)[0], &[(topic_name, &[0, 1])]);
            request.transactions.iter_mut().for_each(|t| t.verify_only = true);
            request
        });
    }
    world.watched.clear();
    world.ask("AddPartitionsToTxn: an empty transactional id", |_, version| {
        add(version, "", senders(Producer { id: 1, epoch: 1 })[0], &[(topic_name, &[0])])
    });
    world.ask("AddOffsetsToTxn: no group id", |w, _| {
        let (id, producer) = prepared(w, BEGUN, "");
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(&id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
    });
}

fn txn_commit(
    id: &str,
    from: From,
    known: &Known,
    name: &str,
    partition: i32,
    metadata: &str,
) -> TxnOffsetCommitRequest {
    let committed = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(3)
        .with_committed_metadata(Some(text(metadata)));
    let asked = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default().with_name(topic(name));
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_group_id(group_id(&known.name))
        .with_producer_id(ProducerId(from.id))
        .with_producer_epoch(from.epoch)
        .with_generation_id(known.generation)
        .with_member_id(text(&known.member))
        .with_group_instance_id(known.instance.as_deref().map(text))
        .with_topics(vec![asked.with_partitions(vec![committed])])
}

/// An open transaction that has a group in it, both watched.
fn with_group(w: &mut World, state: &str, topic_name: &str) -> (String, From, Known) {
    let known = w.group(state, topic_name);
    let watched = w.watched.clone();
    let (id, producer) = prepared(w, BEGUN, topic_name);
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(&id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(group_id(&known.name));
    assert_eq!(w.client.call(3, &request).expect("an answer to AddOffsetsToTxn").error_code, 0);
    w.watched.extend(watched);
    (id, senders(producer)[0], known)
}

fn offsets(world: &mut World, topic_name: &str) {
    for state in [NO_GROUP, EMPTY, STABLE, STATIC, CONSUMER] {
        let pattern = world.group(state, topic_name);
        for index in 0..claims(&pattern).len() {
            let words = claims(&pattern)[index].words.clone();
            world.ask(&format!("TxnOffsetCommit, {state}: {words}"), |w, version| {
                let (id, from, known) = with_group(w, state, topic_name);
                let claim = claims(&known).remove(index);
                let (member, generation, instance) = (claim.member, claim.generation, claim.instance);
                let plain = version < 3 && member.is_empty() && generation == -1;
                let known = Known { member, generation, instance, ..known };
                assert!(!plain || known.instance.is_none() || version < 3);
                txn_commit(&id, from, &known, topic_name, 1, "after")
            });
        }
    }
    for (words, name, partition, metadata) in [
        ("a topic that is not there", "absent", 0, String::new()),
        ("a topic without a name", "", 0, String::new()),
        ("partition 2 of 2", topic_name, 2, String::new()),
        ("partition -1", topic_name, -1, String::new()),
        ("metadata of 4,096 bytes", topic_name, 1, "x".repeat(4096)),
        ("metadata of 4,097 bytes", topic_name, 1, "x".repeat(4097)),
    ] {
        world.ask(&format!("TxnOffsetCommit: {words}"), |w, _| {
            let (id, from, known) = with_group(w, NO_GROUP, topic_name);
            txn_commit(&id, from, &known, name, partition, &metadata)
        });
    }
    for state in STATES {
        for index in 0..8 {
            let words = senders(Producer { id: 1, epoch: 1 })[index].words;
            world.ask(&format!("TxnOffsetCommit, {state}: {words}"), |w, _| {
                let known = w.group(NO_GROUP, topic_name);
                let watched = w.watched.clone();
                let (id, producer) = prepared(w, state, topic_name);
                w.watched.extend(watched);
                txn_commit(&id, senders(producer)[index], &known, topic_name, 1, "after")
            });
        }
    }
    world.watched.clear();
    world.ask("TxnOffsetCommit: no group id", |w, _| {
        let (id, producer) = prepared(w, BEGUN, topic_name);
        let known = Known { generation: -1, ..Known::default() };
        txn_commit(&id, senders(producer)[0], &known, topic_name, 1, "")
    });
    world.ask("TxnOffsetCommit: an empty transactional id", |w, _| {
        let known = w.group(NO_GROUP, topic_name);
        txn_commit("", senders(Producer { id: 1, epoch: 1 })[0], &known, topic_name, 1, "")
    });
}

/// Sent by brokers only; what a client makes of it must not end what it may not.
fn markers(world: &mut World, topic_name: &str) {
    for (words, name, partition, id, epoch) in [
        ("a topic that is not there", "absent", 0, 5, 0),
        ("partition 2 of 2", topic_name, 2, 5, 0),
        ("partition -1", topic_name, -1, 5, 0),
        ("an epoch of -1", topic_name, 0, 5, -1),
    ] {
        world.watched = vec![Watched::Log(topic_name.into(), 0)];
        world.ask(&format!("WriteTxnMarkers: {words}"), |_, _| {
            let asked = write_txn_markers_request::WritableTxnMarkerTopic::default().with_name(topic(name));
            let marker = write_txn_markers_request::WritableTxnMarker::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(epoch)
                .with_topics(vec![asked.with_partition_indexes(vec![partition])]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker])
        });
    }
    world.watched.clear();
    world.ask("WriteTxnMarkers: nothing", |_, _| WriteTxnMarkersRequest::default());
}

fn descriptions(world: &mut World, topic_name: &str) {
    for state in STATES {
        world.ask(&format!("DescribeTransactions, {state}"), |w, _| {
            let (id, _) = prepared(w, state, topic_name);
            DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(&id)])
        });
    }
    world.watched.clear();
    world.ask("DescribeTransactions: an empty id, twice", |_, _| {
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(""), transactional_id("")])
    });
    world.ask("DescribeTransactions: nothing", |_, _| DescribeTransactionsRequest::default());
    for state in ["nonsense", "", "ongoing", "Dead"] {
        world.ask(&format!("ListTransactions: state `{state}`"), |_, _| {
            let request = ListTransactionsRequest::default().with_state_filters(vec![text(state)]);
            request.with_producer_id_filters(vec![ProducerId(-5)])
        });
    }
    for duration in [i64::MIN, -2, -1, i64::MAX] {
        world.ask(&format!("ListTransactions: longer than {duration}"), |_, _| {
            let request = ListTransactionsRequest::default().with_duration_filter(duration);
            request.with_producer_id_filters(vec![ProducerId(-5)])
        });
    }
    for pattern in ["", "(", "*", "\\1", "(?=a)", "absent.*", "a++"] {
        world.ask(&format!("ListTransactions: expression `{pattern}`"), |_, _| {
            let request = ListTransactionsRequest::default().with_producer_id_filters(vec![ProducerId(-5)]);
            request.with_transactional_id_pattern(Some(text(pattern)))
        });
    }
    for id in ["", " "] {
        world.ask(&format!("FindCoordinator: transactional id `{id}`"), |_, version| match version {
            0 => FindCoordinatorRequest::default().with_key(text(id)),
            1..4 => FindCoordinatorRequest::default().with_key_type(1).with_key(text(id)),
            _ => FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(id)]),
        });
    }
    let batches =
        |producer: Producer, sequence| vec![(0, batch::transactional(&[b"v".to_vec()], producer, sequence, now_ms()))];
    for state in STATES {
        for index in 0..8 {
            let words = senders(Producer { id: 1, epoch: 1 })[index].words;
            world.ask(&format!("Produce, {state}: {words}"), |w, version| {
                let (id, producer) = prepared(w, state, topic_name);
                w.watched.push(Watched::Log(topic_name.into(), 0));
                let from = senders(producer)[index];
                let producer = Producer { id: from.id, epoch: from.epoch };
                super::produce::at(w, version, topic_name, produce_request(topic_name, -1, batches(producer, 0)))
                    .with_transactional_id(Some(transactional_id(&id)))
            });
        }
    }
}
