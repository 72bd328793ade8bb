//! EndTxn: a client commits or aborts.
//!
//! In version 2 (KIP-890) each transaction has its own epoch, so an epoch one behind tells a repeated request from
//! the next one. What is answered where no transaction is under way, by the epoch that the request carries:
//!
//! | state | abort, one behind | abort, current | commit, one behind | commit, current |
//! |---|---|---|---|---|
//! | Empty | fenced | aborts nothing: new epoch | fenced | invalid state |
//! | CompleteAbort | repeated | aborts nothing: new epoch | invalid state | invalid state |
//! | CompleteCommit | invalid state | aborts nothing: new epoch | repeated | invalid state |
//!
//! Before version 2 only the current epoch is taken, and the state alone tells a repetition. While a prepared
//! transaction is not complete the client is told to come again.

use super::coordinator::{Call, Coordinator, is_usable};
use super::state::{State, Transaction, TransactionVersion, is_exhausted};
use super::{Error, Producer};

enum Step {
    Prepare,
    /// It has been done; the answer got lost.
    Repeated,
}

impl Coordinator {
    /// The producer to go on as, in version 2.
    pub(super) fn end_transaction(
        &mut self,
        call: &mut Call<'_>,
        transactional_id: &str,
        producer: Producer,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<Option<Producer>, Error> {
        if !is_usable(transactional_id) {
            return Err(Error::InvalidRequest);
        }
        let bumps = version >= TransactionVersion::V2;
        let (Some(id), Some(t)) = (self.key(transactional_id), self.transaction(transactional_id)) else {
            return Err(Error::InvalidProducerIdMapping);
        };
        let step = if bumps { decide(t, producer, commit)? } else { decide_before_v2(t, producer, commit)? };
        let outcome = match step {
            Step::Repeated => t.producer,
            Step::Prepare => {
                let runs_out = bumps && is_exhausted(t.producer.epoch);
                let next_producer_id = if runs_out { Some(call.producer_id()?) } else { None };
                let now = call.now;
                self.change(call, &id, |t| t.prepare(commit, version, next_producer_id, now));
                let producer = self.transaction(&id).map_or(producer, Transaction::producer_when_complete);
                self.carry_out(call, &id);
                producer
            }
        };
        Ok(bumps.then_some(outcome))
    }
}

fn decide(t: &Transaction, producer: Producer, commit: bool) -> Result<Step, Error> {
    let current = t.producer;
    if t.state.is_prepared() {
        return Err(Error::ConcurrentTransactions);
    }
    // The epoch ran out with the request that this one repeats: the client does not know its new producer id yet.
    let before_overflow = t.previous_producer_id == Some(producer.id)
        && producer.epoch == i16::MAX - 1
        && current.epoch == 0
        && current.id != producer.id;
    if current.id != producer.id && !before_overflow {
        return Err(Error::InvalidProducerIdMapping);
    }
    let complete = matches!(t.state, State::CompleteCommit | State::CompleteAbort);
    let one_behind = i32::from(current.epoch) == i32::from(producer.epoch) + 1;
    let repeats = complete && (one_behind || before_overflow);
    if !repeats && (before_overflow || current.epoch != producer.epoch) {
        return Err(Error::ProducerFenced);
    }
    match (t.state, commit) {
        (State::CompleteCommit, true) | (State::CompleteAbort, false) if repeats => Ok(Step::Repeated),
        (State::Ongoing, _) => Ok(Step::Prepare),
        (_, false) if !repeats => Ok(Step::Prepare),
        _ => Err(Error::InvalidTxnState),
    }
}

fn decide_before_v2(t: &Transaction, producer: Producer, commit: bool) -> Result<Step, Error> {
    if t.producer.id != producer.id {
        return Err(Error::InvalidProducerIdMapping);
    }
    if t.producer.epoch != producer.epoch {
        return Err(Error::ProducerFenced);
    }
    match (t.state, commit) {
        (State::Ongoing, _) => Ok(Step::Prepare),
        (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(Step::Repeated),
        (State::PrepareCommit | State::PrepareAbort, _) => Err(Error::ConcurrentTransactions),
        _ => Err(Error::InvalidTxnState),
    }
}
