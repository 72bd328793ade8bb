//! Transactions over several nodes: their coordinator, their partitions and their groups are led by different ones.

mod cluster;
mod copies;
mod ledgers;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cluster::{Cluster, Fate, ID, TOPIC, end_txn, node, produce};

use super::wire::{self, Outcome};
use super::{CoordinatorError, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::base::{PartitionId, ProducerId};
use crate::broker::tests::permit;
use crate::broker::{NotAdmitted, ProduceError, TransactionEnd};
use crate::env::SeededEntropy;
use crate::group::{self, CommitPartition, CommitTopic, FetchTopic, OffsetCommit, OffsetFetch};
use crate::peer::kind;
use crate::security::{Operation, Resource};
use crate::transaction::{Producer, Reply, Request, State};

const GROUP: &str = "readers";
/// Long enough for what must not happen to happen.
const WHILE: Duration = Duration::from_millis(300);

impl Cluster {
    /// Commits an offset of the group in the producer's transaction, once.
    fn commit_offset(&self, producer: Producer, offset: i64) -> Result<(), CoordinatorError> {
        let leader = self.leader(OFFSETS_TOPIC, 0).0;
        let broker = self.broker(leader);
        let write = permit(Operation::Write, Resource::transactional_id(ID));
        let read = permit(Operation::Read, Resource::group(GROUP));
        self.on(leader, async {
            let admitted = broker.admit_offsets(&write, ID, producer, GROUP, true).await?;
            let admitted = admitted.map_err(|_| CoordinatorError::NotAvailable)?;
            broker.commit_in_transaction(&read, GROUP, admitted, offset_commit(offset)).await.map(drop)
        })
    }

    /// Commits an offset of the group outside of transactions, once.
    fn commit_plainly(&self, offset: i64) -> Result<(), CoordinatorError> {
        let leader = self.leader(OFFSETS_TOPIC, 0).0;
        let read = permit(Operation::Read, Resource::group(GROUP));
        let commit = group::Request::OffsetCommit(offset_commit(offset));
        self.on(leader, self.broker(leader).group_request(&read, GROUP, commit)).map(drop)
    }

    fn until_offset_is_in(&self, producer: Producer, offset: i64) {
        self.until("the offset is committed", || self.commit_offset(producer, offset).is_ok());
    }

    /// The committed offset of the group; `None` while a transaction is open.
    fn fetch_offset(&self) -> Option<i64> {
        let leader = self.leader(OFFSETS_TOPIC, 0).0;
        let read = permit(Operation::Describe, Resource::group(GROUP));
        let topics =
            Some(vec![FetchTopic { name: TOPIC.to_owned(), id: self.id(TOPIC, 0).topic, partitions: vec![0] }]);
        let fetch =
            OffsetFetch { group: GROUP.to_owned(), member: None, member_epoch: -1, topics, require_stable: true };
        let asked = self.broker(leader).group_request(&read, GROUP, group::Request::OffsetFetch(fetch));
        match self.on(leader, asked) {
            Ok(group::Reply::OffsetFetch(fetched)) => {
                let found = &fetched.topics[0].partitions[0];
                found.error.is_none().then_some(found.offset)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn offset_commit(offset: i64) -> OffsetCommit {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: -1, metadata: None };
    OffsetCommit {
        version: 5,
        group: GROUP.to_owned(),
        generation_or_epoch: -1,
        member: String::new(),
        instance: None,
        retention_ms: None,
        transactional: None,
        topics: vec![CommitTopic { name: TOPIC.to_owned(), id: Default::default(), partitions: vec![partition] }],
    }
}

#[test]
fn transactions_span_nodes() {
    let cluster = Cluster::start(3);
    let first = cluster.init();
    assert_eq!(cluster.produce_everywhere(first), [0, 0, 0]);
    cluster.until_offset_is_in(first, 41);
    assert_eq!(cluster.committed(1), None, "the transaction is open");
    let second = cluster.end(first, true);
    assert_eq!((second.id, second.epoch), (first.id, first.epoch + 1));
    (0..3).for_each(|index| cluster.until_committed(index, &[0]));
    cluster.until("the group's offset is stable", || cluster.fetch_offset() == Some(41));
    cluster.until_state(State::CompleteCommit);

    assert!(cluster.net.arrived(kind::ADMIT) >= 3 && cluster.net.arrived(kind::MARKERS) >= 2);
    cluster.produce_everywhere(second);
    cluster.until_offset_is_in(second, 77);
    cluster.end(second, false);
    cluster.until_state(State::CompleteAbort);
    (0..3).for_each(|index| cluster.until_committed(index, &[0]));
    assert_eq!(cluster.fetch_offset(), Some(41));
    assert!(matches!(cluster.try_produce(1, first, 2), Err(ProduceError::Append(_))), "of an epoch that is over");
}

#[test]
fn a_bad_network_costs_time_and_nothing_else() {
    let cluster = Cluster::start(3);
    let dice = SeededEntropy::new(7);
    cluster.net.decide(move |_, _, _| match dice.below(8) {
        0 | 1 => Fate::Lost,
        2 => Fate::AnswerLost,
        3 => Fate::Twice,
        4 => Fate::Late,
        _ => Fate::Arrives,
    });
    let mut producer = cluster.init();
    let mut committed = [vec![], vec![], vec![]];
    for turn in 0..12 {
        for (index, committed) in committed.iter_mut().enumerate() {
            let base = cluster.produce(index as i32, producer, 0);
            if turn % 3 != 2 {
                committed.push(base);
            }
        }
        producer = cluster.end(producer, turn % 3 != 2);
        if turn % 4 == 3 {
            // A producer that goes on at once meets the transaction before; one that comes later does not.
            cluster.until("complete", || matches!(cluster.state(), State::CompleteCommit | State::CompleteAbort));
        }
    }
    for (index, bases) in committed.iter().enumerate() {
        cluster.until_committed(index as i32, bases);
    }
}

#[test]
fn a_coordinator_that_dies_after_its_decision_carries_it_out_when_it_is_back() {
    let mut cluster = Cluster::start(2);
    let producer = cluster.init();
    cluster.produce_everywhere(producer);
    cluster.net.decide(|_, _, kind| if kind == kind::MARKERS { Fate::Lost } else { Fate::Arrives });
    cluster.end(producer, true);
    assert_eq!(cluster.committed(1), None);
    cluster.kill(node(1));
    assert_eq!(cluster.committed(1), None);
    cluster.net.decide(|_, _, _| Fate::Arrives);
    cluster.boot(node(1));
    (0..2).for_each(|index| cluster.until_committed(index, &[0]));
    cluster.until_state(State::CompleteCommit);
}

#[test]
fn the_next_leader_of_a_coordinators_partition_carries_its_decision_out() {
    let cluster = Cluster::start(3);
    let producer = cluster.init();
    cluster.produce_everywhere(producer);
    cluster.net.decide(|_, _, kind| if kind == kind::MARKERS { Fate::Lost } else { Fate::Arrives });
    let next = cluster.end(producer, true);
    cluster.hand_over(TRANSACTIONS_TOPIC, 0, node(3));
    let asked = permit(Operation::Write, Resource::transactional_id(ID));
    cluster.until("the old coordinator ends", || {
        let asked = cluster.broker(node(1)).transaction_request(&asked, ID, end_txn(next, true));
        cluster.on(node(1), asked) == Err(CoordinatorError::NotCoordinator)
    });
    cluster.net.decide(|_, _, _| Fate::Arrives);
    (0..3).for_each(|index| cluster.until_committed(index, &[0]));
    cluster.until_state(State::CompleteCommit);
    cluster.produce_everywhere(next);
    cluster.end(next, false);
    (0..3).for_each(|index| cluster.until_committed(index, &[0]));
}

#[test]
fn markers_follow_a_partition_to_its_next_leader() {
    let cluster = Cluster::start(3);
    let producer = cluster.init();
    cluster.produce(1, producer, 0);
    // The old leader never hears of it.
    cluster.net.decide(|_, to, kind| if kind == kind::MARKERS && to == node(2) { Fate::Lost } else { Fate::Arrives });
    cluster.end(producer, true);
    cluster.hand_over(TOPIC, 1, node(3));
    cluster.until_committed(1, &[0]);
    cluster.until_state(State::CompleteCommit);
}

#[test]
fn a_partition_that_moves_to_its_coordinator_gets_its_marker_there() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    cluster.produce(1, producer, 0);
    cluster.net.decide(|_, _, kind| if kind == kind::MARKERS { Fate::Lost } else { Fate::Arrives });
    cluster.end(producer, false);
    cluster.hand_over(TOPIC, 1, node(1));
    cluster.until_committed(1, &[]);
    cluster.until_state(State::CompleteAbort);
}

/// A batch on another node is never durable without the record that puts its partition into the transaction.
#[test]
fn a_batch_waits_until_its_admission_is_durable() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    cluster.hold(node(1), true);
    let (broker, partition) = (cluster.broker(node(2)).clone(), cluster.partition(TOPIC, 1));
    let produced = cluster.spawn(node(2), produce(broker, partition.clone(), producer, 0));
    cluster.until("the question arrives", || cluster.net.arrived(kind::ADMIT) > 0);
    std::thread::sleep(WHILE);
    assert_eq!(partition.positions().next.0, 0, "its admission is not durable");
    cluster.hold(node(1), false);
    assert_eq!(cluster.on(node(2), produced).expect("no panic").expect("admitted"), 0);
}

/// Whether a coordinator that loses its decision in a power cut, before any other node has it, says in the end what
/// readers on another node have seen.
fn keeps_its_word(planted: bool) -> bool {
    let mut cluster = Cluster::start(3);
    let producer = cluster.init();
    cluster.produce(1, producer, 0);
    cluster.broker(node(1)).coordinators.lanes.undecided.store(planted, Relaxed);
    cluster.hold(node(1), true);
    cluster.net.isolate(node(1));
    let broker = cluster.broker(node(1)).clone();
    let ended = cluster.spawn(node(1), async move {
        let write = permit(Operation::Write, Resource::transactional_id(ID));
        broker.transaction_request(&write, ID, end_txn(producer, true)).await
    });
    if planted {
        cluster.until_committed(1, &[0]);
    } else {
        std::thread::sleep(WHILE);
        assert_eq!(cluster.net.arrived(kind::MARKERS), 0, "the decision is not durable");
    }
    assert!(!ended.is_finished());
    ended.abort();
    let seen = cluster.committed(1);
    cluster.kill(node(1));
    cluster.net.reconnect(node(1));
    cluster.boot(node(1));
    // The producer starts anew, and with that what was not decided is aborted.
    cluster.init();
    cluster.until_state(State::Empty);
    cluster.until("the transaction ends", || cluster.committed(1).is_some());
    seen.is_none() && cluster.committed(1) == Some(vec![])
}

#[test]
fn markers_for_other_nodes_wait_for_the_decision() {
    assert!(keeps_its_word(false));
    assert!(!keeps_its_word(true), "the planted bug is found");
}

/// Sends markers as a coordinator would; answers what becomes of them.
fn send(cluster: &Cluster, to: i32, marker: wire::Marker) -> Vec<Outcome> {
    let count = marker.partitions.len();
    let request = wire::encode_markers(kind::MARKERS, [marker].iter());
    let answer = cluster.net.deliver(node(1), node(to), request).expect("a node");
    let answer = cluster.on(node(to), answer).expect("no panic").expect("an answer");
    wire::decode_outcomes(&answer, &[count]).expect("decoded").remove(0)
}

#[test]
fn a_coordinator_with_a_successor_is_refused() {
    let cluster = Cluster::start(3);
    let producer = cluster.init();
    cluster.produce(1, producer, 0);
    let old = cluster.leader(TRANSACTIONS_TOPIC, 0).1;
    cluster.hand_over(TRANSACTIONS_TOPIC, 0, node(3));
    cluster.until("node 2 knows", || {
        let id = cluster.id(TRANSACTIONS_TOPIC, 0);
        cluster.broker(node(2)).image().partition(id).expect("there").leader == node(3)
    });
    let end = TransactionEnd {
        producer: ProducerId(producer.id),
        epoch: producer.epoch + 1,
        coordinator_epoch: old.0,
        commit: false,
        version2: true,
    };
    let zombie =
        wire::Marker { coordinator: cluster.id(TRANSACTIONS_TOPIC, 0), end, partitions: vec![cluster.id(TOPIC, 1)] };
    assert_eq!(send(&cluster, 2, zombie.clone()), [Outcome::Superseded]);
    assert_eq!(cluster.committed(1), None, "nothing was ended");
    let next = cluster.end(producer, true);
    cluster.until_committed(1, &[0]);
    // What the partition itself remembers refuses it also where the metadata are behind.
    cluster.produce(1, next, 0);
    let behind = PartitionId { index: 99, ..zombie.coordinator };
    let zombie = wire::Marker { coordinator: behind, end: TransactionEnd { epoch: next.epoch + 1, ..end }, ..zombie };
    assert_eq!(send(&cluster, 2, zombie.clone()), [Outcome::NotNeeded]);
    assert_eq!(cluster.committed(1), None, "the next transaction is still open");
    let elsewhere = wire::Marker { partitions: vec![cluster.id(TOPIC, 0), cluster.id(TOPIC, 1)], ..zombie };
    assert_eq!(send(&cluster, 2, elsewhere), [Outcome::Later, Outcome::NotNeeded]);
}

#[test]
fn markers_that_come_twice_end_nothing_twice() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    cluster.produce(1, producer, 0);
    let next = cluster.end(producer, true);
    cluster.until_state(State::CompleteCommit);
    let end = TransactionEnd {
        producer: ProducerId(producer.id),
        epoch: next.epoch,
        coordinator_epoch: cluster.leader(TRANSACTIONS_TOPIC, 0).1.0,
        commit: true,
        version2: true,
    };
    let marker =
        wire::Marker { coordinator: cluster.id(TRANSACTIONS_TOPIC, 0), end, partitions: vec![cluster.id(TOPIC, 1)] };
    assert_eq!(send(&cluster, 2, marker.clone()), [Outcome::Written], "a repetition is harmless");
    cluster.produce(1, next, 0);
    assert_eq!(send(&cluster, 2, marker), [Outcome::NotNeeded], "and does not reach the next transaction");
    assert_eq!(cluster.committed(1), None);
}

#[test]
fn a_coordinator_answers_only_as_of_metadata_as_new_as_the_askers() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    let ask = |applied, to: i32| {
        let question = wire::Admit {
            applied,
            transactional_id: ID.to_owned(),
            producer,
            add: true,
            wait: Duration::ZERO,
            partitions: vec![(TOPIC.into(), 1)],
        };
        let answer = cluster.net.deliver(node(2), node(to), wire::encode_admit(kind::ADMIT, &question));
        let answer = cluster.on(node(to), answer.expect("a node")).expect("no panic").expect("an answer");
        wire::decode_admitted(&answer, 1).expect("decoded")
    };
    assert_eq!(ask(u64::MAX, 1), Err(CoordinatorError::Loading));
    assert_eq!(ask(0, 2), Err(CoordinatorError::NotCoordinator), "it is on node 1");
    assert_eq!(ask(0, 1), Ok(vec![Ok(())]));
    assert_eq!(ask(0, 1), Ok(vec![Ok(())]), "asked twice");
    cluster.net.decide(|_, _, _| Fate::Lost);
    let refused = cluster.try_produce(1, producer, 0);
    assert!(matches!(refused, Err(ProduceError::NotAdmitted(NotAdmitted::Unavailable))), "{refused:?}");
}

#[test]
fn offsets_are_not_committed_in_a_transaction_that_ended_meanwhile() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    let broker = cluster.broker(node(2)).clone();
    let write = permit(Operation::Write, Resource::transactional_id(ID));
    let read = permit(Operation::Read, Resource::group(GROUP));
    let admitted = cluster.on(node(2), broker.admit_offsets(&write, ID, producer, GROUP, true));
    let admitted = admitted.expect("answered").expect("admitted");
    let next = cluster.end(producer, false);
    cluster.until_state(State::CompleteAbort);
    let late = broker.commit_in_transaction(&read, GROUP, admitted, offset_commit(5));
    assert_eq!(cluster.on(node(2), late), Err(CoordinatorError::NotAvailable));
    assert_eq!(cluster.fetch_offset(), Some(-1), "nothing is pending");
    cluster.until_offset_is_in(next, 6);
    cluster.end(next, true);
    cluster.until("the offset is stable", || cluster.fetch_offset() == Some(6));
}

#[test]
fn who_waits_for_a_coordinator_that_loses_its_partition_is_told_to_look_for_another() {
    let cluster = Cluster::start(2);
    let producer = cluster.init();
    cluster.hand_over(TRANSACTIONS_TOPIC, 0, node(2));
    cluster.until("node 2 answers", || {
        let describe = Request::DescribeTransaction { transactional_id: ID.to_owned() };
        matches!(cluster.ask(&describe), Reply::DescribeTransaction(Ok(_)))
    });
    cluster.hold(node(2), true);
    let broker = cluster.broker(node(2)).clone();
    let waiting = cluster.spawn(node(2), async move {
        let write = permit(Operation::Write, Resource::transactional_id(ID));
        broker.transaction_request(&write, ID, end_txn(producer, false)).await
    });
    let partition = cluster.partition(TRANSACTIONS_TOPIC, 0);
    cluster.until("it is appended", || partition.positions().next > partition.positions().high_watermark);
    cluster.broker(node(2)).registry().close(partition.id);
    assert_eq!(cluster.on(node(2), waiting).expect("no panic"), Err(CoordinatorError::NotCoordinator));
}
