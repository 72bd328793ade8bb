//! `min.insync.replicas` above the write quorum, on three brokers whose ledgers are on one another.

use std::time::Duration;

use super::cluster::{Cluster, ID, TOPIC, node};
use super::{CoordinatorError, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, WHILE};
use crate::base::NodeId;
use crate::batch::StoredBatch;
use crate::broker::tests::{batch, permit};
use crate::broker::{CopiesNeeded, ProduceContext, ProduceError};
use crate::security::{Operation, Resource};
use crate::transaction::{Reply, Request};

const LEADER: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// The batch at this sequence of an idempotent producer.
fn records(sequence: i32) -> StoredBatch {
    batch(7, 0, sequence, false)
}

/// Produces to the partition that node 1 leads, with acks=all to a topic that asks for `copies`.
async fn produce(
    broker: std::sync::Arc<crate::broker::Broker>,
    partition: std::sync::Arc<crate::partition::Partition>,
    (sequence, copies): (i32, usize),
    timeout: Duration,
) -> Result<i64, ProduceError> {
    let settings = broker.topic_settings(&broker.topic(TOPIC).expect("there"));
    let context = ProduceContext {
        settings: &settings,
        zstd_allowed: true,
        replicas_needed: copies,
        room_deadline: broker.room_deadline(timeout),
        transaction: None,
    };
    let (write, until) = (permit(Operation::Write, Resource::topic(TOPIC)), broker.clock().boottime() + timeout);
    let appended = broker.append(&write, &partition, records(sequence).to_contiguous(), &context, None).await?;
    let base = appended.base_offset.0;
    broker.durable(&partition, appended, CopiesNeeded { copies, until }).await.map(|()| base)
}

impl Cluster {
    fn produce_needing(&self, asked: (i32, usize), timeout: Duration) -> Result<i64, ProduceError> {
        let (broker, partition) = (self.broker(LEADER).clone(), self.partition(TOPIC, 0));
        self.on(LEADER, produce(broker, partition, asked, timeout))
    }

    /// Members of the replica set of the node's open ledger, as the metadata have it.
    fn set_size(&self, number: NodeId) -> usize {
        let broker = self.broker(number);
        broker.image().ledgers.get(&broker.ledger_id()).map_or(0, |ledger| ledger.replicas.len())
    }

    fn until_set_size(&self, number: NodeId, size: usize) {
        self.until(&format!("the ledger of node {number} is on {size} nodes"), || self.set_size(number) == size);
    }
}

#[test]
fn acks_all_waits_for_as_many_copies_as_are_asked_for_and_readers_do_not() {
    let cluster = Cluster::start(3);
    cluster.until_set_size(LEADER, 3);
    assert_eq!(cluster.produce_needing((0, 3), PATIENCE).expect("three are there"), 0);
    let ledger = cluster.broker(LEADER).ledger_id();
    cluster.hold(node(3), true);
    assert_eq!(cluster.produce_needing((2, 2), PATIENCE).expect("two of three are enough"), 2);
    let late = cluster.produce_needing((4, 3), WHILE);
    if cluster.broker(LEADER).ledger_id() == ledger {
        assert!(matches!(late, Err(ProduceError::CopiesLate { needed: 3 })), "{late:?}");
    }
    let (broker, partition) = (cluster.broker(LEADER).clone(), cluster.partition(TOPIC, 0));
    let waiting = cluster.spawn(LEADER, produce(broker, partition.clone(), (6, 3), PATIENCE));
    cluster.until("readers see it", || partition.positions().high_watermark.0 == 8);
    std::thread::sleep(WHILE);
    let is_answered = waiting.is_finished();
    cluster.hold(node(3), false);
    let outcome = cluster.on(LEADER, waiting).expect("no panic");
    // A machine that is this slow replaces the replica.
    if cluster.broker(LEADER).ledger_id() == ledger {
        assert!(!is_answered, "answered on two copies");
        assert_eq!(outcome.expect("the third copy is there"), 6);
        assert_eq!(cluster.produce_needing((6, 3), PATIENCE).expect("a repetition"), 6);
    }
}

#[test]
fn a_replica_that_is_lost_while_requests_wait_leaves_them_with_too_few_copies() {
    let mut cluster = Cluster::start(3);
    cluster.until_set_size(LEADER, 3);
    cluster.produce_needing((0, 3), PATIENCE).expect("three are there");
    cluster.kill(node(3));
    let lost = cluster.produce_needing((2, 3), PATIENCE);
    assert!(matches!(lost, Err(ProduceError::TooFewCopies { needed: 3 })), "{lost:?}");
    cluster.until_set_size(LEADER, 2);
    let positions = cluster.partition(TOPIC, 0).positions();
    let refused = cluster.produce_needing((4, 3), PATIENCE);
    assert!(matches!(refused, Err(ProduceError::NotEnoughReplicas { in_sync: 2, needed: 3 })), "{refused:?}");
    assert_eq!(cluster.partition(TOPIC, 0).positions(), positions, "what is refused is not appended");
    assert_eq!((positions.high_watermark.0, positions.next.0), (4, 4), "what was answered so is there");
    cluster.produce_needing((4, 2), PATIENCE).expect("two are enough for others");

    cluster.boot(node(3));
    cluster.until_set_size(LEADER, 3);
    cluster.produce_needing((6, 3), PATIENCE).expect("the third is back");
    assert_eq!(cluster.produce_needing((0, 3), PATIENCE).expect("it had three copies before"), 0);
    let again = cluster.produce_needing((2, 3), PATIENCE);
    assert!(matches!(again, Err(ProduceError::TooFewCopies { .. })), "no copy is made afterwards: {again:?}");
    assert!(cluster.on(LEADER, cluster.broker(LEADER).upload_all()));
    cluster.until("object storage has it", || cluster.produce_needing((2, 3), PATIENCE).is_ok_and(|base| base == 2));
}

#[test]
fn coordinators_wait_for_the_copies_that_their_topics_ask_for() {
    let mut cluster = Cluster::start(3);
    cluster.until_set_size(LEADER, 3);
    cluster.until_set_size(node(3), 3);
    cluster.set_min_insync(TRANSACTIONS_TOPIC, 3);
    cluster.set_min_insync(OFFSETS_TOPIC, 3);
    let producer = cluster.init();
    cluster.produce(0, producer, 0);
    cluster.until_offset_is_in(producer, 5);
    let second = cluster.end(producer, true);
    cluster.until("the group's offset is stable", || cluster.fetch_offset() == Some(5));

    cluster.kill(node(2));
    cluster.until_set_size(LEADER, 2);
    cluster.until_set_size(node(3), 2);
    let ask = |request: Request| {
        let allowed = permit(Operation::Write, Resource::transactional_id(ID));
        cluster.on(LEADER, cluster.broker(LEADER).transaction_request(&allowed, ID, request))
    };
    let init = || Request::InitProducerId { transactional_id: ID.to_owned(), timeout_ms: 600_000, expected: None };
    assert_eq!(ask(init()).err(), Some(CoordinatorError::NotAvailable));
    let described = ask(Request::DescribeTransaction { transactional_id: ID.to_owned() });
    assert!(matches!(described, Ok(Reply::DescribeTransaction(Ok(_)))), "what is there is shown: {described:?}");
    assert_eq!(cluster.commit_plainly(6), Err(CoordinatorError::NotAvailable));
    assert_eq!(cluster.fetch_offset(), Some(5));

    cluster.boot(node(2));
    cluster.until_set_size(LEADER, 3);
    cluster.until_set_size(node(3), 3);
    cluster.until("offsets can be committed", || cluster.commit_plainly(7).is_ok());
    assert_eq!(cluster.fetch_offset(), Some(7));
    assert!(cluster.init().epoch > second.epoch);
}
