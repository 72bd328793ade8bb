//! Filling the map of keys from the batches that were not compacted yet.

use crate::base::Offset;
use crate::batch::{RecordsError, StoredBatch};

use super::key_map::KeyMap;
use super::record::{Records, unpacked_check};
use super::transactions::Transactions;

/// How far a batch went into the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    All,
    /// The map is full: the record at this offset, and all after it, are not in it.
    Full(Offset),
}

/// Puts the keys of the batch's records with `from <= offset < to` into the map: of all but control batches and
/// aborted transactions. Of a batch that cannot be read nothing is put, for its records stay where they are.
pub fn index_keys(
    keys: &mut KeyMap,
    batch: &StoredBatch,
    (from, to): (Offset, Offset),
    transactions: &Transactions,
) -> Result<Indexed, RecordsError> {
    let header = batch.header();
    if header.is_control()
        || (header.is_transactional() && transactions.is_aborted(header.producer_id, header.base_offset))
    {
        return Ok(Indexed::All);
    }
    let unpacked = unpacked_check(batch)?;
    for record in Records::new(batch, &unpacked) {
        let record = record.map_err(RecordsError::Broken)?;
        let offset = header.base_offset.plus(record.offset_delta);
        let Some(key) = record.key.filter(|_| offset >= from && offset < to) else { continue };
        if !keys.put(key, offset) {
            return Ok(Indexed::Full(offset));
        }
    }
    Ok(Indexed::All)
}
