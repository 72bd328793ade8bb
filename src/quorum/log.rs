//! openraft's log and vote on `kv`.
//!
//! Appends, votes and truncations are synced before they are answered. A purge is only ordered: it deletes what
//! the state machine has applied, and writes of the state machine come before it in the same write-ahead log.
//! What is committed is not stored, because the state machine is: a start replays from the last applied entry.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};

use super::plant::{self, Bug};
use super::types::{
    Entry, StorageError, TypeConfig, log_id, position, raft_entry, raft_vote, stored_entry, stored_vote,
};
use crate::base::limits::RAFT_ENTRIES_BYTES_MAX;
use crate::kv::raft_log::{self, LogEntry};
use crate::kv::{Batch, Durability, Kv, ReadError};

/// Entries that are read at once for another voter.
const READ_ENTRIES: u64 = 16;

#[derive(Clone)]
pub struct LogStore {
    kv: Arc<Kv>,
    /// Index after the last committed entry; 0 before the first.
    committed: Arc<AtomicU64>,
}

impl LogStore {
    pub fn new(kv: Arc<Kv>) -> Self {
        LogStore { kv, committed: Arc::default() }
    }

    pub fn committed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.committed)
    }

    async fn write(
        &self,
        batch: Batch,
        durability: Durability,
        subject: ErrorSubject<u64>,
    ) -> Result<(), StorageError> {
        let written = blocking(&self.kv, move |kv| kv.write(batch, durability)).await;
        written
            .and_then(|result| result.map_err(AnyError::from_std))
            .map_err(|e| StorageIOError::new(subject, ErrorVerb::Write, e).into())
    }

    async fn read<T: Send + 'static>(
        &self,
        subject: ErrorSubject<u64>,
        read: impl FnOnce(&Kv) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StorageError> {
        // openraft stops for good on a storage error, so the node has to go down with it.
        let result = blocking(&self.kv, move |kv| read(kv).inspect_err(|e| drop(kv.fence(&e.to_string())))).await;
        result
            .and_then(|result| result.map_err(AnyError::from_std))
            .map_err(|e| StorageIOError::new(subject, ErrorVerb::Read, e).into())
    }
}

/// An error's text, which is all that openraft keeps of it.
trait FromStd {
    fn from_std(error: impl std::error::Error + 'static) -> Self;
}

impl FromStd for AnyError {
    fn from_std(error: impl std::error::Error + 'static) -> Self {
        AnyError::new(&error)
    }
}

/// What is answered for is synced.
fn synced(unless: Bug) -> Durability {
    if plant::has(unless) { Durability::Ordered } else { Durability::Synced }
}

/// Runs file work off the runtime's workers. A panic in it fences the store as any failure does.
pub(super) async fn blocking<T: Send + 'static>(
    kv: &Arc<Kv>,
    work: impl FnOnce(&Kv) -> T + Send + 'static,
) -> Result<T, AnyError> {
    #[cfg(test)]
    if let Some(memory) = kv.memory() {
        return Ok(memory.run(|| work(kv)).await);
    }
    let worker = Arc::clone(kv);
    tokio::task::spawn_blocking(move || work(&worker)).await.map_err(|e| {
        if e.is_panic() {
            kv.fence("work on the metadata store panicked");
        }
        AnyError::new(&e)
    })
}

/// Entries from the front, as many as go into one message; always one.
fn within_a_message(entries: Vec<LogEntry>) -> Vec<LogEntry> {
    let mut bytes = 0;
    let taken = entries.iter().take_while(|entry| {
        let first = bytes == 0;
        bytes += raft_log::encoded_bytes(entry);
        first || bytes <= RAFT_ENTRIES_BYTES_MAX
    });
    let count = taken.count();
    let mut entries = entries;
    entries.truncate(count);
    entries
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        // Read by turns: a few hundred of the largest would not fit into memory.
        let read = move |kv: &Kv| {
            let (mut entries, mut from) = (Vec::new(), start);
            while from < end && entries.iter().map(raft_log::encoded_bytes).sum::<usize>() <= RAFT_ENTRIES_BYTES_MAX {
                let more = kv.log_entries(from, end.min(from + READ_ENTRIES))?;
                let Some(last) = more.last() else { break };
                from = last.position.index + 1;
                entries.extend(more);
            }
            Ok(within_a_message(entries))
        };
        let entries = self.read(ErrorSubject::Logs, read).await?;
        Ok(entries.into_iter().map(raft_entry).collect())
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        if from >= to {
            return Ok(Vec::new());
        }
        let entries = self.read(ErrorSubject::Logs, move |kv| kv.log_entries(from, to)).await?;
        Ok(entries.into_iter().map(raft_entry).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let (purged, last) = self.read(ErrorSubject::Logs, |kv| Ok((kv.purged()?, kv.last_log_position()?))).await?;
        let last_purged_log_id = purged.as_ref().map(log_id);
        let last_log_id = last.as_ref().map(log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.put_vote(&stored_vote(vote));
        self.write(batch, synced(Bug::VoteNotSynced), ErrorSubject::Vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError> {
        let vote = self.read(ErrorSubject::Vote, |kv| kv.vote()).await?;
        Ok(vote.as_ref().map(raft_vote))
    }

    /// Kept in memory only, for [`super::QuorumStatus`].
    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError> {
        self.committed.store(committed.map_or(0, |id| id.index.saturating_add(1)), Ordering::Relaxed);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        for entry in entries {
            batch.put_log_entry(&stored_entry(entry));
        }
        let written = self.write(batch, synced(Bug::AppendNotSynced), ErrorSubject::Logs).await;
        callback.log_io_completed(written.as_ref().map(|_| ()).map_err(|e| std::io::Error::other(e.to_string())));
        written
    }

    async fn truncate(&mut self, since: LogId<u64>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.truncate_log(since.index);
        self.write(batch, Durability::Synced, ErrorSubject::Logs).await
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.put_purged(&position(&upto));
        batch.purge_log(upto.index);
        self.write(batch, Durability::Ordered, ErrorSubject::Logs).await
    }
}
