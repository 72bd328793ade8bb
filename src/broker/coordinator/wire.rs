//! What transaction coordinators and the leaders of partitions say to each other between nodes.
//!
//! Integers are big-endian, texts and bytes have their length before them, lists the number of their elements (4).
//!
//! ```text
//! admit   = version (2) ‖ applied (8) ‖ id (4 + n) ‖ producer (8) ‖ epoch (2) ‖ add (1) ‖ wait in ms (4)
//!           ‖ list of: topic (4 + n) ‖ list of: partition (4)
//! answer  = version (2) ‖ 0 (1) ‖ list of: outcome (1)          each partition in order
//!         | version (2) ‖ 1 (1) ‖ reason (1)                    the coordinator has no answer
//! markers = version (2) ‖ state topic (16) ‖ list of: state partition (4) ‖ coordinator epoch (4) ‖ producer (8)
//!           ‖ epoch (2) ‖ flags (1) ‖ list of: topic (16) ‖ list of: partition (4)
//! answer  = version (2) ‖ list of: list of: outcome (1)         each partition of each marker in order
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::{ADMIT_PARTITIONS_MAX, MARKERS_PARTITIONS_MAX};
use crate::base::{PartitionId, ProducerId, TopicId};
use crate::broker::TransactionEnd;
use crate::transaction::{Error, Producer, TopicPartition};

use super::CoordinatorError;

/// The version that is written; older ones are read as long as a release that writes them may be a peer.
const VERSION: u16 = 1;
/// Flags of a marker.
const COMMIT: u8 = 1;
const VERSION2: u8 = 2;
/// Least bytes of a marker, of a topic in one, and of a partition.
const MARKER_BYTES: usize = 4 + 4 + 8 + 2 + 1 + 4;
const TOPIC_BYTES: usize = 16 + 4;

/// A question to the coordinator of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admit {
    /// Commands that the asker's image has seen: the coordinator must know every topic that is named, or it would take
    /// it for deleted when the transaction ends.
    pub applied: u64,
    pub transactional_id: String,
    pub producer: Producer,
    /// Adds the partitions (KIP-890); otherwise only verifies them.
    pub add: bool,
    /// How long to wait for the transaction before to complete.
    pub wait: Duration,
    pub partitions: Vec<TopicPartition>,
}

/// What the coordinator says of each partition.
pub(super) type Admitted = Vec<Result<(), Error>>;

/// The end of a transaction on partitions of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The partition of `__transaction_state`.
    pub coordinator: PartitionId,
    pub end: TransactionEnd,
    pub partitions: Vec<PartitionId>,
}

/// What became of a marker on one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is durable.
    Written,
    /// A newer producer or coordinator has ended the transaction there.
    NotNeeded,
    /// The partition is not led there, or not ready.
    Later,
    /// There is a newer coordinator, which sends the markers itself.
    Superseded,
}

/// The answers to [`Admit`] by number.
const ERRORS: [(u8, Error); 11] = [
    (1, Error::RecordTooLarge),
    (2, Error::NoProducerId),
    (3, Error::TooManyIds),
    (4, Error::InvalidRequest),
    (5, Error::InvalidTxnState),
    (6, Error::InvalidProducerIdMapping),
    (7, Error::InvalidTransactionTimeout),
    (8, Error::ConcurrentTransactions),
    (9, Error::ProducerFenced),
    (10, Error::TransactionalIdNotFound),
    (11, Error::TransactionAbortable),
];

const REASONS: [(u8, CoordinatorError); 3] =
    [(1, CoordinatorError::Loading), (2, CoordinatorError::NotAvailable), (3, CoordinatorError::NotCoordinator)];

const OUTCOMES: [(u8, Outcome); 4] =
    [(0, Outcome::Written), (1, Outcome::NotNeeded), (2, Outcome::Later), (3, Outcome::Superseded)];

fn number<T: PartialEq>(table: &[(u8, T)], value: T) -> u8 {
    // Every value is in its table, which a test goes through; 0xff is in none and would be refused by the reader.
    table.iter().find(|(_, known)| *known == value).map_or(u8::MAX, |(number, _)| *number)
}

fn value<T: Copy>(table: &[(u8, T)], found: u8, field: &'static str) -> Result<T, DecodeError> {
    let known = table.iter().find(|(number, _)| *number == found).map(|(_, value)| *value);
    known.ok_or(DecodeError::Invalid { field, value: found.into() })
}

fn read_version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u16()? {
        VERSION => Ok(()),
        found => Err(DecodeError::Version { found, newest: VERSION }),
    }
}

/// Neighbours with the same key, in order.
fn runs<T, K: PartialEq>(items: &[T], key: impl Fn(&T) -> K) -> impl Iterator<Item = &[T]> {
    items.chunk_by(move |a, b| key(a) == key(b))
}

pub(super) fn encode_admit(kind: u8, ask: &Admit) -> Bytes {
    let mut w = Writer::new();
    w.u8(kind).u16(VERSION).u64(ask.applied).string(&ask.transactional_id);
    w.i64(ask.producer.id).i16(ask.producer.epoch).bool(ask.add);
    w.u32(u32::try_from(ask.wait.as_millis()).unwrap_or(u32::MAX));
    w.count(runs(&ask.partitions, |(topic, _)| topic.clone()).count());
    for run in runs(&ask.partitions, |(topic, _)| topic.clone()) {
        w.string(&run[0].0).count(run.len());
        for (_, index) in run {
            w.i32(*index);
        }
    }
    w.finish()
}

/// Reads a request without its kind.
pub(super) fn decode_admit(bytes: &[u8]) -> Result<Admit, DecodeError> {
    let mut r = Reader::new(bytes);
    read_version(&mut r)?;
    let mut ask = Admit {
        applied: r.u64()?,
        transactional_id: r.string("transactional id")?,
        producer: Producer { id: r.i64()?, epoch: r.i16()? },
        add: r.bool("add")?,
        wait: Duration::from_millis(r.u32()?.into()),
        partitions: Vec::new(),
    };
    for _ in 0..r.count(8)? {
        let topic: Arc<str> = r.string("topic")?.into();
        let count = r.count(4)?;
        bounded("partitions of a question", ask.partitions.len() + count, ADMIT_PARTITIONS_MAX)?;
        for _ in 0..count {
            ask.partitions.push((topic.clone(), r.i32()?));
        }
    }
    r.finish()?;
    Ok(ask)
}

fn bounded(field: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found > max { Err(DecodeError::Invalid { field, value: found as u64 }) } else { Ok(()) }
}

pub(super) fn encode_admitted(answer: &Result<Admitted, CoordinatorError>) -> Bytes {
    let mut w = Writer::new();
    w.u16(VERSION);
    match answer {
        Ok(answers) => {
            w.u8(0).count(answers.len());
            for answer in answers {
                w.u8(answer.map_or_else(|error| number(&ERRORS, error), |()| 0));
            }
        }
        Err(reason) => {
            w.u8(1).u8(number(&REASONS, *reason));
        }
    }
    w.finish()
}

/// An answer about `asked` partitions.
pub(super) fn decode_admitted(bytes: &[u8], asked: usize) -> Result<Result<Admitted, CoordinatorError>, DecodeError> {
    let mut r = Reader::new(bytes);
    read_version(&mut r)?;
    let answer = match r.u8()? {
        0 => {
            let count = r.count(1)?;
            if count != asked {
                return Err(DecodeError::Invalid { field: "number of answers", value: count as u64 });
            }
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                answers.push(match r.u8()? {
                    0 => Ok(()),
                    found => Err(value(&ERRORS, found, "refusal")?),
                });
            }
            Ok(answers)
        }
        1 => Err(value(&REASONS, r.u8()?, "reason")?),
        found => return Err(DecodeError::Invalid { field: "answer", value: found.into() }),
    };
    r.finish()?;
    Ok(answer)
}

/// All markers have their coordinators on partitions of one topic, that of the first one.
pub(super) fn encode_markers<'a>(kind: u8, markers: impl ExactSizeIterator<Item = &'a Marker> + Clone) -> Bytes {
    let mut w = Writer::new();
    let topic = markers.clone().next().map_or_else(TopicId::default, |marker| marker.coordinator.topic);
    w.u8(kind).u16(VERSION).raw(&topic.0).count(markers.len());
    for Marker { coordinator, end, partitions } in markers {
        debug_assert_eq!(coordinator.topic, topic);
        let flags = if end.commit { COMMIT } else { 0 } | if end.version2 { VERSION2 } else { 0 };
        w.i32(coordinator.index).i32(end.coordinator_epoch).i64(end.producer.0).i16(end.epoch).u8(flags);
        w.count(runs(partitions, |p| p.topic).count());
        for run in runs(partitions, |p| p.topic) {
            w.raw(&run[0].topic.0).count(run.len());
            for partition in run {
                w.i32(partition.index);
            }
        }
    }
    w.finish()
}

/// Reads a request without its kind.
pub(super) fn decode_markers(bytes: &[u8]) -> Result<Vec<Marker>, DecodeError> {
    let mut r = Reader::new(bytes);
    read_version(&mut r)?;
    let topic = TopicId(r.array()?);
    let count = r.count(MARKER_BYTES)?;
    bounded("markers of a message", count, MARKERS_PARTITIONS_MAX)?;
    let (mut markers, mut all) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        let coordinator = PartitionId { topic, index: r.i32()? };
        let (coordinator_epoch, producer, epoch) = (r.i32()?, ProducerId(r.i64()?), r.i16()?);
        let flags = r.u8()?;
        if epoch < 0 || flags & !(COMMIT | VERSION2) != 0 {
            return Err(DecodeError::Invalid { field: "epoch or flags of a marker", value: flags.into() });
        }
        let (commit, version2) = (flags & COMMIT != 0, flags & VERSION2 != 0);
        let mut partitions = Vec::new();
        for _ in 0..r.count(TOPIC_BYTES)? {
            let (topic, count) = (TopicId(r.array()?), r.count(4)?);
            all += count;
            bounded("partitions of markers", all, MARKERS_PARTITIONS_MAX)?;
            for _ in 0..count {
                partitions.push(PartitionId { topic, index: r.i32()? });
            }
        }
        let end = TransactionEnd { producer, epoch, coordinator_epoch, commit, version2 };
        markers.push(Marker { coordinator, end, partitions });
    }
    r.finish()?;
    Ok(markers)
}

pub(super) fn encode_outcomes(outcomes: &[Vec<Outcome>]) -> Bytes {
    let mut w = Writer::new();
    w.u16(VERSION).count(outcomes.len());
    for of_marker in outcomes {
        w.count(of_marker.len());
        for outcome in of_marker {
            w.u8(number(&OUTCOMES, *outcome));
        }
    }
    w.finish()
}

/// An answer to markers with so many partitions each.
pub(super) fn decode_outcomes(bytes: &[u8], asked: &[usize]) -> Result<Vec<Vec<Outcome>>, DecodeError> {
    let mut r = Reader::new(bytes);
    read_version(&mut r)?;
    let wrong = |count: usize| DecodeError::Invalid { field: "number of outcomes", value: count as u64 };
    let count = r.count(4)?;
    if count != asked.len() {
        return Err(wrong(count));
    }
    let mut outcomes = Vec::with_capacity(count);
    for expected in asked {
        let count = r.count(1)?;
        if count != *expected {
            return Err(wrong(count));
        }
        let of_marker = r.raw(count)?.iter().map(|found| value(&OUTCOMES, *found, "outcome"));
        outcomes.push(of_marker.collect::<Result<_, _>>()?);
    }
    r.finish()?;
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TopicId = TopicId([7; 16]);

    fn admit() -> Admit {
        let named = |topic: &str, index| (Arc::from(topic), index);
        Admit {
            applied: 99,
            transactional_id: "zahlung-ä".to_owned(),
            producer: Producer { id: 1 << 40, epoch: 3 },
            add: true,
            wait: Duration::from_millis(100),
            partitions: vec![named("a", 1), named("a", 2), named("b", 0), named("a", 1)],
        }
    }

    fn markers() -> Vec<Marker> {
        let end =
            TransactionEnd { producer: ProducerId(9), epoch: 4, coordinator_epoch: 6, commit: true, version2: true };
        let at = |topic: u8, index| PartitionId { topic: TopicId([topic; 16]), index };
        let first = Marker {
            coordinator: PartitionId { topic: T, index: 3 },
            end,
            partitions: vec![at(1, 0), at(1, 5), at(2, 0)],
        };
        let aborted = TransactionEnd { commit: false, version2: false, ..end };
        let second = Marker { end: aborted, partitions: vec![at(2, 1)], ..first.clone() };
        vec![first, second]
    }

    #[test]
    fn what_is_said_between_nodes_survives_the_way() {
        assert_eq!(decode_admit(&encode_admit(0x20, &admit())[1..]), Ok(admit()));
        let every: Admitted = std::iter::once(Ok(())).chain(ERRORS.iter().map(|(_, e)| Err(*e))).collect();
        let answers = [Ok(every.clone())].into_iter().chain(REASONS.iter().map(|(_, reason)| Err(*reason)));
        for answer in answers {
            assert_eq!(decode_admitted(&encode_admitted(&answer), every.len()), Ok(answer));
        }
        assert_eq!(decode_markers(&encode_markers(0x21, markers().iter())[1..]), Ok(markers()));
        let outcomes = vec![OUTCOMES.iter().map(|(_, outcome)| *outcome).collect(), vec![Outcome::Written]];
        assert_eq!(decode_outcomes(&encode_outcomes(&outcomes), &[4, 1]), Ok(outcomes));
    }

    /// Peers of one release on the next one's wire: what this release writes is committed, and is read back.
    #[test]
    fn fixtures_of_messages_match() {
        let (admit, markers) = (encode_admit(0x20, &admit()), encode_markers(0x21, markers().iter()));
        let admitted = encode_admitted(&Ok(vec![Ok(()), Err(Error::ProducerFenced)]));
        let outcomes = encode_outcomes(&[vec![Outcome::Written, Outcome::Superseded]]);
        let mut all = Writer::new();
        for message in [admit, admitted, markers, outcomes] {
            all.bytes(&message);
        }
        crate::kv::fixture("transaction_messages_v1", &all.finish());
    }

    #[test]
    fn what_is_cut_or_claims_too_much_is_refused() {
        let (admit, markers) = (encode_admit(0x20, &admit()), encode_markers(0x21, markers().iter()));
        for end in 1..admit.len() {
            assert!(decode_admit(&admit[1..end]).is_err(), "cut at {end}");
        }
        for end in 1..markers.len() {
            assert!(decode_markers(&markers[1..end]).is_err(), "cut at {end}");
        }
        let mut longer = markers.to_vec();
        longer.push(0);
        assert!(matches!(decode_markers(&longer[1..]), Err(DecodeError::Trailing(1))));
        let mut newer = admit.to_vec();
        newer[2] = 2;
        assert_eq!(decode_admit(&newer[1..]), Err(DecodeError::Version { found: 2, newest: 1 }));
        let partitions = (0..=MARKERS_PARTITIONS_MAX as i32).map(|index| PartitionId { topic: T, index }).collect();
        let many = Marker { partitions, ..self::markers()[0].clone() };
        assert!(decode_markers(&encode_markers(0x21, [many].iter())[1..]).is_err());
        let outcomes = encode_outcomes(&[vec![Outcome::Later]]);
        assert!(decode_outcomes(&outcomes, &[2]).is_err() && decode_outcomes(&outcomes, &[1, 1]).is_err());
        assert!(decode_admitted(&encode_admitted(&Ok(vec![Ok(())])), 2).is_err());
    }
}
