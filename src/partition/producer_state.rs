//! All that a partition knows of producers with an id: their windows ([`Producers`]), their transactions
//! ([`Transactions`]), and which transactions are being verified. One box, which a partition that only plain producers
//! write to never has.
//!
//! Pure. A batch is checked before it enters the ledger and recorded after it has; between the two nothing else happens,
//! for both are under the partition's lock.
//!
//! **Verification (KIP-890).** A transaction must not begin here behind its coordinator's back, or nobody ever ends it.
//! So the first batch of one asks the coordinator, and while the question is under way a marker may arrive: what was
//! asked about is then over, though the answer says that it is open. Therefore a question begins with a [`Guard`], which
//! the marker takes away, and a batch begins a transaction only with the guard that still stands. The lowest sequence
//! that ever asked is remembered, too: a batch must not overtake one whose question failed and is repeated.
//!
//! A guard counts in the leader epoch in which it was given: between two of them another node may have led the partition,
//! and have seen a marker of which this one knows nothing.

use std::collections::HashMap;

use crate::base::{LeaderEpoch, Offset, ProducerId};
use crate::batch::{EndMarker, Header, NO_SEQUENCE};
use crate::object::{AbortedTransaction, PartitionState};

use super::producers::{ActiveProducer, ProducerError, Producers, Verdict};
use super::transactions::Transactions;

/// Questions that are remembered of one partition; beyond it the oldest are forgotten, and asked again.
const VERIFICATIONS_MAX: usize = 1_000;

/// Who appends a batch: decides what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client. To begin a transaction it needs the guard of a verification.
    Client(Option<Guard>),
    /// A coordinator on its own topic, which has asked the transaction's coordinator itself.
    Coordinator,
    /// The coordinator of a transaction ends it. Under transaction version 2 the marker brings a new epoch.
    Marker { marker: EndMarker, version2: bool },
}

impl Origin {
    pub fn marker(&self) -> Option<EndMarker> {
        match self {
            Origin::Marker { marker, .. } => Some(*marker),
            _ => None,
        }
    }
}

/// Names one verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    leader_epoch: LeaderEpoch,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verification {
    guard: Guard,
    epoch: i16,
    lowest_sequence: i32,
    /// The partition is added by the batch itself (transaction version 2).
    version2: bool,
    /// Milliseconds since 1970.
    asked_ms: i64,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    producers: Producers,
    transactions: Transactions,
    verifications: HashMap<ProducerId, Verification>,
    next_guard: u64,
    /// In which the verifications began.
    leader_epoch: LeaderEpoch,
}

impl ProducerState {
    /// The state in a leader epoch; verifications of another one are void.
    pub fn in_epoch(&mut self, leader_epoch: LeaderEpoch) -> &mut ProducerState {
        if self.leader_epoch != leader_epoch {
            self.leader_epoch = leader_epoch;
            self.verifications.clear();
        }
        self
    }

    /// Whether the producer has an open transaction with this epoch.
    fn is_ongoing(&self, id: ProducerId, epoch: i16) -> bool {
        self.transactions.first_offset(id).is_some() && self.producers.epoch(id) == Some(epoch)
    }

    /// Whether a batch may go on with the producer's transaction, or begin one with the guard that it has.
    pub fn is_verified(&self, id: ProducerId, epoch: i16, guard: Option<Guard>) -> bool {
        let stands = || self.verifications.get(&id).map(|v| v.guard) == guard;
        self.is_ongoing(id, epoch) || (guard.is_some() && stands())
    }

    /// Judges a batch without recording it.
    pub fn check(&self, header: &Header, origin: Origin) -> Result<Verdict, ProducerError> {
        let id = header.producer_id;
        match origin {
            Origin::Marker { marker, version2 } => {
                let open = self.transactions.first_offset(id).is_some();
                self.producers.check_marker(id, header.producer_epoch, marker, version2, open)?;
                return Ok(Verdict::Append);
            }
            Origin::Coordinator => self.producers.check_epoch(id, header.producer_epoch)?,
            Origin::Client(guard) => {
                if let Some(duplicate) = self.producers.duplicate(header) {
                    return Ok(duplicate);
                }
                self.producers.check_epoch(id, header.producer_epoch)?;
                self.check_verified(header, guard)?;
                self.producers.check_sequence(header)?;
            }
        }
        if !header.is_transactional() && self.transactions.first_offset(id).is_some() {
            return Err(ProducerError::OutsideTransaction);
        }
        Ok(Verdict::Append)
    }

    fn check_verified(&self, header: &Header, guard: Option<Guard>) -> Result<(), ProducerError> {
        let known = self.verifications.get(&header.producer_id);
        if header.is_transactional() && !self.is_verified(header.producer_id, header.producer_epoch, guard) {
            return Err(ProducerError::NotVerified);
        }
        let Some(known) = known else { return Ok(()) };
        let found = header.base_sequence;
        let fresh = self.producers.has_no_batch(header.producer_id, header.producer_epoch);
        if known.version2 && found != 0 && fresh {
            return Err(ProducerError::OutOfOrder { expected: 0, found });
        }
        match known.lowest_sequence {
            lowest if found > lowest => Err(ProducerError::OutOfOrder { expected: lowest, found }),
            _ => Ok(()),
        }
    }

    /// Begins a verification for a transactional batch, or joins the one that is under way; `None` when the
    /// transaction is open here already.
    pub fn begin_verification(
        &mut self,
        header: &Header,
        version2: bool,
        now_ms: i64,
    ) -> Result<Option<Guard>, ProducerError> {
        self.verify((header.producer_id, header.producer_epoch), header.base_sequence, version2, now_ms)
    }

    /// The same for what a coordinator writes to its own topic, which has no sequence.
    pub fn begin_own_verification(
        &mut self,
        id: ProducerId,
        epoch: i16,
        now_ms: i64,
    ) -> Result<Option<Guard>, ProducerError> {
        self.verify((id, epoch), NO_SEQUENCE, false, now_ms)
    }

    fn verify(
        &mut self,
        (id, epoch): (ProducerId, i16),
        sequence: i32,
        version2: bool,
        now_ms: i64,
    ) -> Result<Option<Guard>, ProducerError> {
        if self.is_ongoing(id, epoch) {
            return Ok(None);
        }
        self.producers.check_epoch(id, epoch)?;
        if self.verifications.len() >= VERIFICATIONS_MAX && !self.verifications.contains_key(&id) {
            self.forget_oldest_verifications();
        }
        let next = Guard { leader_epoch: self.leader_epoch, number: self.next_guard };
        let verification = self.verifications.entry(id).or_insert_with(|| Verification {
            guard: next,
            epoch,
            lowest_sequence: sequence,
            version2,
            asked_ms: now_ms,
        });
        if verification.guard == next {
            self.next_guard += 1;
        }
        if epoch > verification.epoch {
            (verification.epoch, verification.lowest_sequence) = (epoch, sequence);
        } else if epoch == verification.epoch {
            verification.lowest_sequence = verification.lowest_sequence.min(sequence);
        }
        Ok(Some(verification.guard))
    }

    /// Half of them, so that the search for them is rare.
    fn forget_oldest_verifications(&mut self) {
        let mut guards: Vec<_> = self.verifications.values().map(|v| v.guard.number).collect();
        guards.sort_unstable();
        let keep_from = guards.get(guards.len() / 2).copied().unwrap_or(0);
        self.verifications.retain(|_, v| v.guard.number >= keep_from);
    }

    /// Records a batch or marker that has entered the ledger, or that recovery found there. `loaded` says whether
    /// everything below is known.
    pub fn record(&mut self, header: &Header, marker: Option<EndMarker>, loaded: bool, append_ms: i64) {
        let (id, base) = (header.producer_id, header.base_offset);
        self.producers.record(header, marker, append_ms);
        match marker {
            Some(marker) => self.transactions.record_marker(id, base, marker.commit, loaded),
            None if header.is_transactional() => self.transactions.record_batch(id, base),
            None => return,
        }
        self.verifications.remove(&id);
    }

    pub fn first_unstable(&self, durable: Offset) -> Option<Offset> {
        self.transactions.first_unstable(durable)
    }

    pub fn aborted_between(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        self.transactions.aborted_between(from, to)
    }

    /// What the footer of a run `base..end` says of producers, exactly as of its end; aborts that end below
    /// `state.log_start` are nobody's any more.
    pub fn describe_run(&self, base: Offset, end: Offset, state: &mut PartitionState) {
        state.producers = self.producers.as_of(end);
        state.open_transactions = self.transactions.open_as_of(end);
        state.aborted_transactions = self.transactions.aborted_in(base.max(state.log_start), end);
    }

    /// Puts what was stored as of the end `as_of` under what has been recorded from there on.
    pub fn load_under(&mut self, stored: &PartitionState, as_of: Offset) {
        self.producers.load_under(stored, as_of);
        self.transactions.load_under(&stored.open_transactions);
    }

    /// Everything below `uploaded` is in object storage; this node holds no batch below `held`.
    pub fn trim(&mut self, uploaded: Offset, held: Offset) {
        self.producers.trim(uploaded);
        self.transactions.trim(uploaded, held);
    }

    /// This node holds no batch below `held` any more.
    pub fn forget_aborted(&mut self, uploaded: Offset, held: Offset) {
        self.transactions.trim(uploaded, held);
    }

    pub fn expire(&mut self, before_ms: i64) {
        let transactions = &self.transactions;
        self.producers.expire(before_ms, |id| transactions.first_offset(id).is_some());
        self.verifications.retain(|_, v| v.asked_ms >= before_ms);
    }

    pub fn active(&self) -> Vec<ActiveProducer> {
        self.producers.active(|id| self.transactions.first_offset(id))
    }

    /// Nothing is known: the box can go.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.transactions.is_empty() && self.verifications.is_empty()
    }
}

#[cfg(test)]
mod tests;
