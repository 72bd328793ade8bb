//! The verdict on each batch of a pass over a compacted partition.
//!
//! Batches come in ascending order from the log start on. What was decided for earlier ones (transactions met, damage
//! met) counts for later ones.

use std::collections::HashMap;

use crate::base::{Offset, ProducerId};
use crate::batch::{Header, RecordsError, StoredBatch};

use super::key_map::KeyMap;
use super::record::{Records, unpack, unpacked_check};
use super::rewrite::{emptied, with_kept};
use super::transactions::{AbortedSpan, Transactions};

/// What holds for a whole pass.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Records below are compact after the pass; those at or above stay as they are.
    pub end: Offset,
    /// Unix ms.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// The batch of an active producer that carries its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastBatch {
    /// Its latest batch with data begins here.
    At(Offset),
    /// It has nothing but markers of this epoch, which fence older ones.
    Marker { epoch: i16 },
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// It stays, byte for byte.
    Same,
    Changed(StoredBatch),
    /// Only its place is needed, and only while it is the last batch of a range: a range ends where its last batch
    /// ends.
    Filler(StoredBatch),
    Gone,
    /// It cannot be read and stays as it is.
    Broken(RecordsError),
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records_kept: u64,
    pub records_removed: u64,
    /// Of those removed: without a key, from a time when the topic was not compacted.
    pub records_keyless: u64,
    pub batches_broken: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Cleaner {
    keys: KeyMap,
    pub(super) policy: Policy,
    transactions: Transactions,
    pub(super) last_batches: HashMap<ProducerId, LastBatch>,
    after_damage: bool,
    pub counts: Counts,
}

/// Whether a marker says how a transaction ended.
#[derive(PartialEq, Eq)]
enum Control {
    EndOfTransaction,
    Other,
}

impl Cleaner {
    pub fn new(
        keys: KeyMap,
        policy: Policy,
        transactions: Transactions,
        last_batches: HashMap<ProducerId, LastBatch>,
    ) -> Cleaner {
        Cleaner { keys, policy, transactions, last_batches, after_damage: false, counts: Counts::default() }
    }

    /// Aborted transactions that have become known since.
    pub fn tell_aborted(&mut self, spans: impl IntoIterator<Item = AbortedSpan>) {
        self.transactions.tell_aborted(spans);
    }

    /// Something before the next batch could not be read or was left as it is. From here on tombstones and markers
    /// stay: what they end may be in there.
    pub fn met_damage(&mut self) {
        self.after_damage = true;
    }

    pub fn has_met_damage(&self) -> bool {
        self.after_damage
    }

    /// Judges the next batch. The one that ends at `range_end` stays at least as a filler.
    pub fn clean(&mut self, batch: &StoredBatch, range_end: Offset) -> Cleaned {
        let header = batch.header();
        if header.base_offset >= self.policy.end {
            self.counts.records_kept += header.record_count.max(0) as u64;
            return Cleaned::Same;
        }
        let judged = match header.is_control() {
            true => self.clean_control(batch, &header),
            false => self.clean_data(batch, &header),
        };
        match judged {
            Ok(Cleaned::Gone) if header.next_offset() >= range_end => Cleaned::Filler(emptied(batch)),
            Ok(cleaned) => cleaned,
            Err(error) => {
                self.after_damage = true;
                self.counts.batches_broken += 1;
                Cleaned::Broken(error)
            }
        }
    }

    fn clean_control(&mut self, batch: &StoredBatch, header: &Header) -> Result<Cleaned, RecordsError> {
        let last = self.is_last_of_producer(header);
        if header.next_offset() > self.policy.end {
            return Ok(Cleaned::Same);
        }
        if header.record_count == 0 {
            return Ok(if last { Cleaned::Same } else { Cleaned::Gone });
        }
        let unpacked = unpacked_check(batch)?;
        let finished = match control_kind(batch, &unpacked)? {
            Control::EndOfTransaction => self.transactions.met_marker(header.producer_id),
            Control::Other => false,
        };
        let horizon = header.delete_horizon();
        if !finished || self.after_damage {
            return Ok(self.same(header));
        }
        match horizon {
            None => {
                let keep = vec![true; header.record_count as usize];
                let horizon = self.policy.now_ms.saturating_add(self.policy.delete_retention_ms);
                self.counts.records_kept += header.record_count as u64;
                with_kept(batch, &unpacked, &keep, Some(horizon)).map(Cleaned::Changed)
            }
            Some(horizon) if horizon <= self.policy.now_ms => {
                self.counts.records_removed += header.record_count as u64;
                Ok(if last { Cleaned::Changed(emptied(batch)) } else { Cleaned::Gone })
            }
            Some(_) => Ok(self.same(header)),
        }
    }

    fn clean_data(&mut self, batch: &StoredBatch, header: &Header) -> Result<Cleaned, RecordsError> {
        let mut aborted = false;
        if header.is_transactional() {
            self.transactions.met_batch(header.producer_id);
            aborted = self.transactions.is_aborted(header.producer_id, header.base_offset);
        }
        let last = self.is_last_of_producer(header);
        if header.record_count == 0 {
            return Ok(if last { Cleaned::Same } else { Cleaned::Gone });
        }
        if !batch.crc_matches() {
            return Err(RecordsError::Broken("the CRC does not match the batch"));
        }
        let unpacked = unpack(batch)?;
        let (keep, tombstones) = self.kept(batch, header, &unpacked, aborted)?;
        let kept = keep.iter().filter(|keep| **keep).count();
        self.counts.records_kept += kept as u64;
        self.counts.records_removed += (keep.len() - kept) as u64;
        if kept == 0 {
            return Ok(if last { Cleaned::Changed(emptied(batch)) } else { Cleaned::Gone });
        }
        // A batch that reaches beyond the end is not wholly cleanable yet: its time has not begun.
        let whole = header.next_offset() <= self.policy.end;
        let new_horizon = (whole && tombstones && header.delete_horizon().is_none())
            .then(|| self.policy.now_ms.saturating_add(self.policy.delete_retention_ms));
        if kept == keep.len() && new_horizon.is_none() {
            return Ok(Cleaned::Same);
        }
        with_kept(batch, &unpacked, &keep, new_horizon).map(Cleaned::Changed)
    }

    /// Which records stay, and whether there are tombstones among them.
    fn kept(
        &mut self,
        batch: &StoredBatch,
        header: &Header,
        unpacked: &[u8],
        aborted: bool,
    ) -> Result<(Vec<bool>, bool), RecordsError> {
        let expired =
            !self.after_damage && header.delete_horizon().is_some_and(|horizon| horizon <= self.policy.now_ms);
        let (mut keep, mut tombstones, mut keyless) = (Vec::new(), false, 0);
        for record in Records::new(batch, unpacked) {
            let record = record.map_err(RecordsError::Broken)?;
            let offset = header.base_offset.plus(record.offset_delta);
            let stays = offset >= self.policy.end
                || !aborted
                    && match record.key {
                        Some(key) => {
                            let is_newest = self.keys.newest(key).is_none_or(|newest| offset >= newest);
                            is_newest && (record.value.is_some() || !expired)
                        }
                        None => {
                            keyless += 1;
                            false
                        }
                    };
            tombstones |= stays && record.value.is_none();
            keep.push(stays);
        }
        self.counts.records_keyless += keyless;
        Ok((keep, tombstones))
    }

    fn same(&mut self, header: &Header) -> Cleaned {
        self.counts.records_kept += header.record_count.max(0) as u64;
        Cleaned::Same
    }

    fn is_last_of_producer(&self, header: &Header) -> bool {
        match self.last_batches.get(&header.producer_id) {
            Some(LastBatch::At(base)) => !header.is_control() && header.base_offset == *base,
            Some(LastBatch::Marker { epoch }) => header.is_control() && header.producer_epoch == *epoch,
            None => false,
        }
    }
}

/// What a control batch says: its only record's key is a version and a type, 0 for an abort, 1 for a commit (KIP-98).
fn control_kind(batch: &StoredBatch, unpacked: &[u8]) -> Result<Control, RecordsError> {
    let broken = RecordsError::Broken("a control record has no type");
    let Some(record) = Records::new(batch, unpacked).next() else { return Err(broken) };
    let record = record.map_err(RecordsError::Broken)?;
    match record.key.and_then(|key| key.get(2..4)) {
        Some([0, 0 | 1]) => Ok(Control::EndOfTransaction),
        Some(_) => Ok(Control::Other),
        None => Err(broken),
    }
}
