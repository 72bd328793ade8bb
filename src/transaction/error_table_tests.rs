//! The code that each API gives in each version, and what each request gets in each state.

use std::time::Duration;

use super::*;

const A: Producer = Producer { id: 1000, epoch: 0 };

#[test]
fn codes_by_api_and_version() {
    let fenced = Error::ProducerFenced;
    let codes = |of: fn(Error, i16) -> i16, last: i16| (0..=last).map(|v| of(fenced, v)).collect::<Vec<_>>();
    assert_eq!(codes(Error::init_producer_id, 5), [47, 47, 47, 47, 90, 90]);
    assert_eq!(codes(Error::add_partitions_to_txn, 5), [47, 47, 90, 90, 90, 90]);
    assert_eq!(codes(Error::add_offsets_to_txn, 4), [47, 47, 90, 90, 90]);
    assert_eq!(codes(Error::end_txn, 5), [47, 47, 90, 90, 90, 90]);
    assert!((3..=13).all(|version| fenced.produce(version) == 47));
    assert!((0..=5).all(|version| fenced.txn_offset_commit(version) == 47));
    let abortable = Error::TransactionAbortable;
    assert_eq!([9, 10, 11, 12, 13].map(|v| abortable.produce(v)), [48, 48, 120, 120, 120]);
    assert_eq!([3, 4, 5].map(|v| abortable.txn_offset_commit(v)), [48, 120, 120]);
    assert_eq!(abortable.add_partitions_to_txn(5), 120);
    let busy = Error::ConcurrentTransactions;
    assert_eq!([10, 11, 12, 13].map(|v| busy.produce(v)), [19, 19, 51, 51]);
    assert_eq!([3, 4, 5].map(|v| busy.txn_offset_commit(v)), [51, 51, 51]);
    assert_eq!(Error::NoProducerId.produce(12), 19);
    for (error, code) in [
        (Error::RecordTooLarge, -1),
        (Error::NoProducerId, 14),
        (Error::TooManyIds, 15),
        (Error::InvalidRequest, 42),
        (Error::InvalidTxnState, 48),
        (Error::InvalidProducerIdMapping, 49),
        (Error::InvalidTransactionTimeout, 50),
        (busy, 51),
        (Error::TransactionalIdNotFound, 105),
    ] {
        assert_eq!((error.code(), error.init_producer_id(0), error.end_txn(0)), (code, code, code), "{error}");
    }
}

struct Host {
    machine: Coordinator,
    next_id: i64,
    token: u64,
}

impl Host {
    fn new() -> Self {
        let mut machine = Coordinator::new(Options::default(), 7);
        machine.loaded(NOW);
        Host { machine, next_id: 1000, token: 0 }
    }

    fn ask(&mut self, request: Request) -> (Reply, Effects) {
        self.token += 1;
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            Some(*next_id - 1)
        };
        let mut effects = self.machine.on_request(Token(self.token), request, NOW, &mut ids);
        let (token, reply) = effects.replies.pop().expect("an answer");
        assert_eq!(token, Token(self.token));
        (reply, effects)
    }

    fn init(&mut self, expected: Option<Producer>) -> Result<Producer, Error> {
        let request = Request::InitProducerId { transactional_id: "t".into(), timeout_ms: 1000, expected };
        let (Reply::InitProducerId(outcome), effects) = self.ask(request) else { panic!("another reply") };
        self.write_markers(effects);
        outcome
    }

    fn add(&mut self, producer: Producer) -> Result<(), Error> {
        let partitions = vec![("topic".into(), 0)];
        let version = TransactionVersion::V2;
        let transactional_id = "t".into();
        let wait = Duration::ZERO;
        let request = Request::AddPartitions { transactional_id, producer, partitions, version, wait };
        let (Reply::AddPartitions(outcome), _) = self.ask(request) else { panic!("another reply") };
        outcome
    }

    fn end(
        &mut self,
        producer: Producer,
        commit: bool,
        api_version: i16,
    ) -> (Result<Option<Producer>, Error>, Effects) {
        let version = TransactionVersion::of_end_txn(api_version);
        let request = Request::EndTxn { transactional_id: "t".into(), producer, commit, version };
        let (Reply::EndTxn(outcome), effects) = self.ask(request) else { panic!("another reply") };
        (outcome, effects)
    }

    fn write_markers(&mut self, effects: Effects) {
        for m in effects.markers {
            self.machine.markers_written(&m.transactional_id, m.order, &m.partitions, NOW);
        }
    }
}

const NOW: Now = Now { wall_ms: 1_000_000, monotonic: Duration::from_secs(50) };

/// A machine in the given state, and its producer.
fn host_in(state: State, api_version: i16) -> (Host, Producer) {
    let mut host = Host::new();
    let mut producer = host.init(None).expect("a new id");
    if state != State::Empty {
        host.add(producer).expect("partitions");
    }
    if !matches!(state, State::Empty | State::Ongoing) {
        let commit = matches!(state, State::PrepareCommit | State::CompleteCommit);
        let (outcome, effects) = host.end(producer, commit, api_version);
        producer = outcome.expect("an end").unwrap_or(producer);
        if !state.is_prepared() {
            host.write_markers(effects);
        }
    }
    (host, producer)
}

fn epoch(producer: Producer, change: i16) -> Producer {
    Producer { epoch: producer.epoch + change, ..producer }
}

/// What EndTxn gets: the number of an error, or what became of the epoch.
fn ended(state: State, api_version: i16, change: i16, commit: bool) -> String {
    let (mut host, producer) = host_in(state, api_version);
    match host.end(epoch(producer, change), commit, api_version).0 {
        Err(error) => error.end_txn(api_version).to_string(),
        Ok(None) => "ok".into(),
        Ok(Some(p)) => format!("{:+}", p.epoch - producer.epoch),
    }
}

#[test]
fn end_txn_in_every_state() {
    use State::*;
    // Abort and commit one epoch behind, abort and commit in the current epoch, abort one ahead.
    let table = |api_version| {
        [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort].map(|state| {
            let cases = [(-1, false), (-1, true), (0, false), (0, true), (1, false)];
            cases.map(|(change, commit)| ended(state, api_version, change, commit)).join(" ")
        })
    };
    assert_eq!(
        table(5),
        ["90 90 +1 48 90", "90 90 +1 +1 90", "51 51 51 51 51", "51 51 51 51 51", "48 +0 +1 48 90", "+0 48 +1 48 90",]
    );
    assert_eq!(
        table(4),
        ["90 90 48 48 90", "90 90 ok ok 90", "90 90 51 51 90", "90 90 51 51 90", "90 90 48 ok 90", "90 90 ok 48 90",]
    );
    assert_eq!(table(1)[1], "47 47 ok ok 47");
}

#[test]
fn add_partitions_in_every_state() {
    use State::*;
    for (state, current, stale) in [
        (Empty, Ok(()), Error::ProducerFenced),
        (Ongoing, Ok(()), Error::ProducerFenced),
        (PrepareCommit, Err(Error::ConcurrentTransactions), Error::ConcurrentTransactions),
        (PrepareAbort, Err(Error::ConcurrentTransactions), Error::ConcurrentTransactions),
        (CompleteCommit, Ok(()), Error::ProducerFenced),
        (CompleteAbort, Ok(()), Error::ProducerFenced),
    ] {
        let (mut host, producer) = host_in(state, 5);
        assert_eq!(host.add(epoch(producer, -1)), Err(stale), "{state:?}");
        assert_eq!(host.add(producer), current, "{state:?}");
        if !state.is_prepared() {
            let other = Producer { id: producer.id + 9, ..producer };
            assert_eq!(host.add(other), Err(Error::InvalidProducerIdMapping), "{state:?}");
        }
    }
    assert_eq!(Host::new().add(A), Err(Error::InvalidProducerIdMapping), "an unknown transactional id");
}

#[test]
fn init_producer_id_in_every_state() {
    use State::*;
    for (state, expected) in [
        (Empty, Ok(1)),
        (Ongoing, Err(Error::ConcurrentTransactions)),
        (PrepareCommit, Err(Error::ConcurrentTransactions)),
        (PrepareAbort, Err(Error::ConcurrentTransactions)),
        (CompleteCommit, Ok(1)),
        (CompleteAbort, Ok(1)),
    ] {
        let (mut host, producer) = host_in(state, 5);
        let bumped = expected.map(|by| epoch(producer, by));
        assert_eq!(host.init(None), bumped, "{state:?}");
        let (mut host, producer) = host_in(state, 5);
        assert_eq!(host.init(Some(producer)), bumped, "{state:?}");
        if expected.is_ok() {
            assert_eq!(host.init(Some(producer)), bumped, "{state:?}: the same once more");
            assert_eq!(host.init(Some(epoch(producer, -1))), Err(Error::ProducerFenced), "{state:?}");
            assert_eq!(host.init(None).map(|p| p.epoch), Ok(producer.epoch + 2), "{state:?}");
            assert_eq!(host.init(Some(producer)), Err(Error::ProducerFenced), "{state:?}: another has come since");
            let stranger = Producer { id: 5, epoch: 0 };
            assert_eq!(host.init(Some(stranger)), Err(Error::ProducerFenced), "{state:?}");
        }
    }
}

#[test]
fn requests_that_make_no_sense() {
    let mut host = Host::new();
    for id in [String::new(), "x".repeat(32_768)] {
        let init = Request::InitProducerId { transactional_id: id.clone(), timeout_ms: 0, expected: None };
        assert_eq!(host.ask(init).0, Reply::InitProducerId(Err(Error::InvalidRequest)));
        let describe = Request::DescribeTransaction { transactional_id: id };
        assert_eq!(host.ask(describe).0, Reply::DescribeTransaction(Err(Error::InvalidRequest)));
    }
    for timeout_ms in [i32::MIN, -1, 0, 900_001, i32::MAX] {
        let init = Request::InitProducerId { transactional_id: "t".into(), timeout_ms, expected: None };
        assert_eq!(host.ask(init).0, Reply::InitProducerId(Err(Error::InvalidTransactionTimeout)), "{timeout_ms}");
    }
    assert_eq!(host.machine.len(), 0, "a refusal leaves nothing behind");
    let describe = Request::DescribeTransaction { transactional_id: "t".into() };
    assert_eq!(host.ask(describe).0, Reply::DescribeTransaction(Err(Error::TransactionalIdNotFound)));
}

#[test]
fn a_record_that_the_log_would_not_take_is_refused() {
    let mut host = Host::new();
    host.machine.set_options(Options { batch_bytes_max: 2000, ..Options::default() });
    let producer = host.init(None).expect("a new id");
    let mut add = |topic: &str, count: i32| {
        let partitions = (0..count).map(|index| (topic.into(), index)).collect();
        let partition = |p| Request::VerifyPartitions { transactional_id: "t".into(), producer, partitions: p };
        let (version, wait) = (TransactionVersion::V0, Duration::ZERO);
        let transactional_id = "t".into();
        let request = Request::AddPartitions { transactional_id, producer, partitions, version, wait };
        let (reply, effects) = host.ask(request);
        let (verified, _) = host.ask(partition(vec![(topic.into(), 0)]));
        let bytes: usize = effects.records.iter().filter_map(|w| w.value.as_ref()).map(|v| v.len()).sum();
        assert!(bytes < 1000);
        let held = matches!(verified, Reply::VerifyPartitions(Ok(list)) if list[0].1.is_ok());
        assert_eq!(reply == Reply::AddPartitions(Ok(())), held, "all or none");
        held
    };
    assert!(!add("topic", 1000));
    assert!(add("topic", 100), "the name counts once");
    assert!(!add("another", 100));
    assert!(add("another", 10));
}
