//! Partitions join a transaction, whoever asks: AddPartitionsToTxn, AddOffsetsToTxn, or a broker that got a produce.

use std::sync::Arc;
use std::time::Duration;

use crate::base::limits;

use super::coordinator::{Call, Coordinator, fixed_record_bytes, is_usable};
use super::record;
use super::state::{State, Transaction, TransactionVersion};
use super::{Error, Partitions, Producer, Reply, Token, TopicPartition, Verified};

/// Bytes that a partition takes in a record at most, beside the name of its topic.
const PARTITION_BYTES: usize = 4 + 2 * 5 + 1;

impl Coordinator {
    /// Adds partitions, or waits until `until_ms` for the transaction before to complete.
    pub(super) fn add_or_park(
        &mut self,
        call: &mut Call<'_>,
        token: Token,
        transactional_id: &str,
        (producer, partitions, version): (Producer, Vec<TopicPartition>, TransactionVersion),
        until_ms: i64,
    ) {
        let outcome = self.add_partitions(call, transactional_id, producer, &partitions, version);
        let waits = outcome == Err(Error::ConcurrentTransactions)
            && Duration::from_millis(u64::try_from(until_ms).unwrap_or(0)) > call.now.monotonic
            && self.parking.len() < limits::PARKED_REQUESTS_MAX;
        match self.key(transactional_id) {
            Some(id) if waits => self.parking.park(&id, token, producer, partitions, version, until_ms),
            _ => call.reply(token, Reply::AddPartitions(outcome)),
        }
    }

    /// All or none. Partitions that are in already cost no record.
    pub(super) fn add_partitions(
        &mut self,
        call: &mut Call<'_>,
        transactional_id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<(), Error> {
        if !is_usable(transactional_id) || partitions.iter().any(|(topic, _)| topic.len() > i16::MAX as usize) {
            return Err(Error::InvalidRequest);
        }
        // Before anything else: the client may go on as a producer that is current only when this is complete.
        if self.transaction(transactional_id).is_some_and(|t| t.state.is_prepared()) {
            return Err(Error::ConcurrentTransactions);
        }
        let t = self.owned(transactional_id, producer)?;
        if t.state == State::Ongoing && partitions.iter().all(|p| t.partitions.contains(p)) {
            return Ok(());
        }
        if !self.fits(transactional_id, t, partitions) {
            return Err(Error::RecordTooLarge);
        }
        let now = call.now;
        if let Some(id) = self.key(transactional_id) {
            self.change(call, &id, |t| t.add(partitions, version, now));
        }
        Ok(())
    }

    /// Says of each partition whether it is in the transaction.
    pub(super) fn verify_partitions(
        &self,
        transactional_id: &str,
        producer: Producer,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Verified>, Error> {
        if !is_usable(transactional_id) {
            return Err(Error::InvalidRequest);
        }
        let t = self.owned(transactional_id, producer)?;
        if t.state.is_prepared() {
            return Err(Error::ConcurrentTransactions);
        }
        let answer = |p: TopicPartition| {
            let outcome = if t.partitions.contains(&p) { Ok(()) } else { Err(Error::TransactionAbortable) };
            (p, outcome)
        };
        Ok(partitions.into_iter().map(answer).collect())
    }

    /// The transaction of a producer that is neither unknown nor fenced.
    fn owned(&self, transactional_id: &str, producer: Producer) -> Result<&Transaction, Error> {
        let t = self.transaction(transactional_id).ok_or(Error::InvalidProducerIdMapping)?;
        if t.producer.id != producer.id {
            return Err(Error::InvalidProducerIdMapping);
        }
        if t.producer.epoch != producer.epoch {
            return Err(Error::ProducerFenced);
        }
        Ok(t)
    }

    /// Whether the record with these partitions, and every later one of this transaction, fits into the log.
    fn fits(&self, transactional_id: &str, t: &Transaction, more: &[TopicPartition]) -> bool {
        let room = self.record_bytes_max().saturating_sub(fixed_record_bytes(transactional_id));
        let held: usize = t.partitions.by_topic().map(|(topic, p)| topic.len() + p.len() * PARTITION_BYTES).sum();
        let added: usize = more.iter().map(|(topic, _)| topic.len() + PARTITION_BYTES).sum();
        if held + added <= room {
            return true;
        }
        // The estimate counts a topic's name once for each new partition: now exactly.
        let mut partitions: Partitions = t.partitions.clone();
        more.iter().for_each(|(topic, partition)| partitions.insert(&(Arc::clone(topic), *partition)));
        let exact = Transaction { state: State::Ongoing, partitions, ..t.clone() };
        record::encode_value(&exact, self.options.version).len() <= room
    }
}
