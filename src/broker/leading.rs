//! Whether this node is a partition's leader at this moment.

use crate::base::PartitionId;

use super::Broker;

impl Broker {
    /// Whether this node leads a partition, as far as it can know now: by its newest metadata, open here, and while its lease
    /// runs. What is answered from memory, and not by a write that became durable, asks for this last.
    pub fn leads_now(&self, partition: PartitionId) -> bool {
        let recorded = self.image.borrow().partition(partition).is_some_and(|p| p.leader == self.node);
        recorded && self.lease.is_valid() && self.registry.get(partition).is_some()
    }
}
