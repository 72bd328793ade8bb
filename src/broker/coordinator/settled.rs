//! What the replies of coordinators wait for where `min.insync.replicas` of their topics asks for more copies than make a
//! record durable: transactions' by `transaction.state.log.min.isr`, committed offsets' by the topic's own value.
//!
//! As in Kafka both are unavailable then, while fewer replicas are in sync. What the members of a group make of it among
//! themselves, and the markers of transactions, wait for durability only: members join again, and a marker is written
//! again until its partition has it.

use std::time::Duration;

use crate::base::Offset;
use crate::broker::{Broker, CopiesNeeded};
use crate::partition::Partition;

use super::shard::Answer;
use super::{CoordinatorError, CoordinatorKind};

/// How long a reply may wait for further copies of what is durable.
const COPIES_WAIT: Duration = Duration::from_secs(5);

impl Broker {
    fn coordinator_copies(&self, kind: CoordinatorKind) -> usize {
        self.topic(kind.topic()).map_or(0, |topic| self.replicas_needed(&topic, &self.topic_settings(&topic)))
    }

    /// Whether what a coordinator would write now can get the copies that its topic asks for.
    pub(super) fn coordinator_in_sync(&self, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
        self.require_in_sync(self.coordinator_copies(kind)).map_err(|_| CoordinatorError::NotAvailable)
    }

    /// The reply, once the records that it rests on are durable and have those copies.
    pub(super) async fn settled<R>(
        &self,
        kind: CoordinatorKind,
        partition: &Partition,
        answer: Answer<R>,
    ) -> Result<R, CoordinatorError> {
        let last = Offset(answer.end.0.saturating_sub(1));
        let reply = answer.durable().await?;
        let copies = self.coordinator_copies(kind);
        if copies <= self.ledger.fewest_copies() {
            return Ok(reply);
        }
        let needed = CopiesNeeded { copies, until: self.clock.boottime() + COPIES_WAIT };
        // Whoever asks again finds what is durable already.
        self.copied(partition, last, needed).await.map_err(|_| CoordinatorError::NotAvailable)?;
        if self.lease.is_valid() { Ok(reply) } else { Err(CoordinatorError::NotCoordinator) }
    }
}
