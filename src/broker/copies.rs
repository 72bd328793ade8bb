//! How many synced copies an answer waits for.
//!
//! Durable is what the write quorum of the ledger has synced; readers see it then, whoever asks for more. acks=all to a topic
//! whose `min.insync.replicas` is higher is answered later, when so many replicas have synced the batch; until then the
//! batch is there all the same. When the ledger is closed before that, nobody gives its entries another copy: the answer is
//! that there are too few, and a repetition of the batch gets the same one until object storage has it.

use std::time::Duration;

use crate::base::Offset;
use crate::env::failpoint;
use crate::ledger::Copies;
use crate::ledger::core::write_quorum;
use crate::metadata::Topic;
use crate::partition::{Appended, Partition};

use super::{Broker, ProduceError, TopicSettings};

/// What an answer waits for beyond durability.
#[derive(Clone, Copy, Debug)]
pub struct CopiesNeeded {
    /// Synced copies, the own one among them.
    pub copies: usize,
    /// By CLOCK_BOOTTIME.
    pub until: Duration,
}

#[cfg(test)]
impl CopiesNeeded {
    /// Those that make it durable.
    pub const DURABLE: CopiesNeeded = CopiesNeeded { copies: 0, until: Duration::ZERO };
}

impl Broker {
    /// Copies that acks=all must wait for: `min.insync.replicas`, but no more than the topic has replicas.
    pub fn replicas_needed(&self, topic: &Topic, settings: &TopicSettings) -> usize {
        let least = settings.min_insync_replicas.min(topic.replication_factor.into());
        usize::try_from(least).unwrap_or(0)
    }

    /// Refuses what could not get so many copies as things are.
    pub(super) fn require_in_sync(&self, needed: usize) -> Result<(), ProduceError> {
        // One is always there: this node.
        if needed <= 1 {
            return Ok(());
        }
        match self.ledger.in_sync() {
            in_sync if in_sync < needed => Err(ProduceError::NotEnoughReplicas { in_sync, needed }),
            _ => Ok(()),
        }
    }

    /// Waits until an append to `partition` is durable, has the copies that are needed, and this process may say so.
    pub async fn durable(
        &self,
        partition: &Partition,
        appended: Appended,
        needed: CopiesNeeded,
    ) -> Result<(), ProduceError> {
        let (base, duplicate) = (appended.base_offset, appended.duplicate);
        appended.durable().await?;
        // What a duplicate repeats may be of another process, or of a time with fewer replicas.
        if needed.copies > 1 && (duplicate || needed.copies > self.ledger.fewest_copies()) {
            self.copied(partition, base, needed).await?;
        }
        if !self.lease.is_valid() {
            return Err(ProduceError::NoLease);
        }
        failpoint::hit("reply-before");
        Ok(())
    }

    /// Waits until the durable batch at `base` has the copies that are needed.
    pub(super) async fn copied(
        &self,
        partition: &Partition,
        base: Offset,
        needed: CopiesNeeded,
    ) -> Result<(), ProduceError> {
        let CopiesNeeded { copies, until } = needed;
        let Some((ledger, entry)) = partition.place_of(base) else { return Ok(()) };
        let enough = match self.ledger.copies(ledger, entry, copies) {
            Copies::Enough => true,
            Copies::TooFew => false,
            Copies::Awaited(awaited) => {
                let patience = until.saturating_sub(self.clock.boottime());
                let awaited = tokio::time::timeout(patience, awaited).await;
                awaited.map_err(|_| ProduceError::CopiesLate { needed: copies })?.is_ok()
            }
            // Of a process before this one, or of another node: its write quorum has it, and how many more is not known.
            Copies::Unknown => {
                let set = self.image().ledgers.get(&ledger).map(|ledger| ledger.replicas.len());
                set.is_none_or(|set| write_quorum(set) >= copies)
            }
        };
        if enough { Ok(()) } else { Err(ProduceError::TooFewCopies { needed: copies }) }
    }
}
