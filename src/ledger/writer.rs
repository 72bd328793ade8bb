//! The writer of the one open ledger of this broker process.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader};
use crate::base::{EntryId, LedgerId, PartitionId, TopicId};
use crate::batch::{HEAD_BYTES, StoredBatch};
use crate::wal::{AppendError, Entry, HEAD};

use super::replica::Replica;

/// Bytes of an entry before the batch: topic id (16), partition index (4), flags (4, zero).
pub const ENTRY_HEAD_BYTES: usize = 24;

const _: () = assert!(ENTRY_HEAD_BYTES + HEAD_BYTES == HEAD, "the WAL's entry head holds ours and the batch's");

/// Why an entry does not enter the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Back-pressure: room comes back as data moves to object storage or the disk catches up.
    #[error("the write-ahead log has no room now")]
    Full,
    #[error("the write-ahead log failed: {0}")]
    Failed(String),
    #[error("the ledger is sealed")]
    Sealed,
    #[error("the batch is larger than a segment of the write-ahead log takes ({max} bytes)")]
    TooLarge { max: u64 },
}

/// Gives entries their sequence and hands them to the replicas.
pub struct LedgerWriter {
    id: LedgerId,
    replica: Arc<dyn Replica>,
    next: Mutex<EntryId>,
}

impl LedgerWriter {
    /// Writes the ledger `id`, which the metadata have just opened, from entry 0 on.
    pub fn new(id: LedgerId, replica: Arc<dyn Replica>) -> LedgerWriter {
        LedgerWriter { id, replica, next: Mutex::new(EntryId(0)) }
    }

    pub fn id(&self) -> LedgerId {
        self.id
    }

    /// The entry that comes next.
    pub fn next(&self) -> EntryId {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a batch. `token` comes back with the news of its sync.
    pub fn append(
        &self,
        partition: PartitionId,
        token: u64,
        batch: &StoredBatch,
    ) -> Result<(LedgerId, EntryId), LedgerError> {
        let head = encode_head(partition, &batch.head);
        // Held across the hand-over, so that entries reach the replica in sequence.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = *next;
        let body = batch.body.clone();
        match self.replica.append(Entry { ledger: self.id, entry, token, head, body }) {
            Ok(()) => {
                *next = entry.next();
                Ok((self.id, entry))
            }
            Err(AppendError::Full { .. }) => Err(LedgerError::Full),
            Err(AppendError::Sealed) => Err(LedgerError::Sealed),
            Err(AppendError::TooLarge { max, .. }) => Err(LedgerError::TooLarge { max }),
            Err(other) => Err(LedgerError::Failed(other.to_string())),
        }
    }
}

pub(super) fn encode_head(partition: PartitionId, batch_head: &[u8; HEAD_BYTES]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..16].copy_from_slice(&partition.topic.0);
    head[16..20].copy_from_slice(&partition.index.to_be_bytes());
    head[ENTRY_HEAD_BYTES..].copy_from_slice(batch_head);
    head
}

/// Splits an entry's payload into its partition and the bytes of its batch.
pub fn decode_entry(payload: &[u8]) -> Result<(PartitionId, &[u8]), DecodeError> {
    let mut reader = Reader::new(payload);
    let partition = PartitionId { topic: TopicId(reader.array()?), index: reader.i32()? };
    match reader.u32()? {
        0 => Ok((partition, &payload[ENTRY_HEAD_BYTES..])),
        flags => Err(DecodeError::Invalid { field: "entry flags", value: flags as u64 }),
    }
}

/// The batch inside an entry's payload, sharing its bytes.
pub fn batch_of(payload: Bytes) -> Bytes {
    payload.slice(ENTRY_HEAD_BYTES.min(payload.len())..)
}
