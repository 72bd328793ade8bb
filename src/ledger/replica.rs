//! What a ledger asks of each of its replicas. The contract suite in `contract.rs` runs on every implementation.

use std::sync::Arc;

use crate::base::LedgerId;
use crate::wal::{AppendError, Entry, SealAnswer, SealError, Wal};

/// One holder of a ledger's entries.
///
/// Contract: entries of a ledger arrive in sequence and are synced in sequence; an entry is announced as synced (to
/// whoever listens to the WAL) only after its sync; once `seal` has answered, no entry of that ledger is accepted
/// any more, also across restarts and also if the replica never saw the ledger.
pub trait Replica: Send + Sync {
    /// Takes an entry; its sync is announced by the WAL's events. Never blocks.
    fn append(&self, entry: Entry) -> Result<(), AppendError>;

    /// Refuses the writer from now on and says up to where the replica holds the ledger.
    fn seal(&self, ledger: LedgerId) -> Result<SealAnswer, SealError>;
}

/// The replica in this process's own WAL.
pub struct LocalReplica(pub Arc<Wal>);

impl Replica for LocalReplica {
    fn append(&self, entry: Entry) -> Result<(), AppendError> {
        self.0.append(entry)
    }

    fn seal(&self, ledger: LedgerId) -> Result<SealAnswer, SealError> {
        self.0.seal(ledger)
    }
}
