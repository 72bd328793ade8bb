//! InitProducerId: a new transactional id, a new epoch for a known one, or first the end of what its last owner left.

use std::sync::Arc;

use crate::base::limits;

use super::coordinator::{Call, Coordinator, is_usable};
use super::state::{State, Transaction, is_exhausted};
use super::{Error, Producer};

/// What an InitProducerId for a known transactional id comes to.
enum Step {
    /// A transaction is under way: abort it first; the client comes again.
    Fence,
    /// No epochs are left: a new producer id, epoch 0.
    Rotate,
    /// Go on as this producer.
    Start { producer: Producer, last_epoch: Option<i16> },
}

impl Coordinator {
    pub(super) fn init_producer_id(
        &mut self,
        call: &mut Call<'_>,
        transactional_id: &str,
        timeout_ms: i32,
        expected: Option<Producer>,
    ) -> Result<Producer, Error> {
        if !is_usable(transactional_id) {
            return Err(Error::InvalidRequest);
        }
        if timeout_ms <= 0 || timeout_ms > self.options.max_timeout_ms {
            return Err(Error::InvalidTransactionTimeout);
        }
        let now = call.now;
        let Some((id, entry)) = self.entries.get_key_value(transactional_id) else {
            if self.entries.len() >= limits::TRANSACTIONAL_IDS_MAX {
                return Err(Error::TooManyIds);
            }
            // Whatever the client believes to be: its id was forgotten.
            let transaction = Transaction::new(call.producer_id()?, timeout_ms, now);
            let producer = transaction.producer;
            self.insert(call, transactional_id.into(), transaction);
            return Ok(producer);
        };
        let (id, t) = (Arc::clone(id), &entry.transaction);
        let (producer, last_epoch) = match decide(t, expected)? {
            Step::Fence => {
                self.fence(call, &id)?;
                return Err(Error::ConcurrentTransactions);
            }
            Step::Rotate => {
                let last_epoch = expected.map(|_| t.producer.epoch);
                (Producer { id: call.producer_id()?, epoch: 0 }, last_epoch)
            }
            Step::Start { producer, last_epoch } => (producer, last_epoch),
        };
        self.change(call, &id, |t| t.init(producer, last_epoch, timeout_ms, now));
        Ok(producer)
    }
}

fn decide(t: &Transaction, expected: Option<Producer>) -> Result<Step, Error> {
    let current = t.producer;
    if t.state.is_prepared() {
        return Err(Error::ConcurrentTransactions);
    }
    // A client that names the id before the last change may have missed the answer that gave it the new one.
    let known = |p: Producer| {
        current.epoch < 0 || p.id == current.id || (Some(p.id) == t.previous_producer_id && is_exhausted(p.epoch))
    };
    if !expected.is_none_or(known) {
        return Err(Error::ProducerFenced);
    }
    if t.state == State::Ongoing {
        return Ok(Step::Fence);
    }
    let matches = expected.is_none_or(|p| current.epoch < 0 || p.epoch == current.epoch);
    if matches && is_exhausted(current.epoch) {
        return Ok(Step::Rotate);
    }
    if matches {
        let producer = Producer { epoch: current.epoch.saturating_add(1), ..current };
        let last_epoch = expected.map(|_| current.epoch).filter(|epoch| *epoch >= 0);
        return Ok(Step::Start { producer, last_epoch });
    }
    // The epoch before the last bump: the answer to that bump got lost, and nobody else has come since.
    if expected.map(|p| p.epoch) == t.last_epoch {
        return Ok(Step::Start { producer: current, last_epoch: t.last_epoch });
    }
    Err(Error::ProducerFenced)
}
