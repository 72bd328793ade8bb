//! What this node keeps for itself beside the metadata: copies of producer states, so that a start needs no object
//! storage for them. Never replicated, never in a snapshot.

use std::sync::Arc;

use crate::base::{Offset, PartitionId};
use crate::kv::Kv;

pub use crate::kv::ReadError;
pub use crate::kv::producer_state::{KeepError, KeptState};

/// The copies; each call may read or write the disk: never on a runtime worker.
#[derive(Clone)]
pub struct KeptStates(pub(super) Arc<Kv>);

impl KeptStates {
    /// The state of `partition` as of exactly `end`, if it is kept here.
    pub fn get(&self, partition: PartitionId, end: Offset) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.producer_state(partition, end)
    }

    /// Keeps states; that of each partition's present end stays beside the new one.
    pub fn put(&self, states: &[KeptState]) -> Result<(), KeepError> {
        self.0.keep_producer_states(states)
    }

    /// Forgets the states of partitions that are not to be kept.
    pub fn retain(&self, keep: &dyn Fn(PartitionId) -> bool) -> Result<(), KeepError> {
        self.0.retain_producer_states(keep)
    }
}
