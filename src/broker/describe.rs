//! What the administrative APIs show of this broker, beyond the metadata.

use crate::base::PartitionId;
use crate::metadata;
use crate::partition::{ActiveProducer, Partition};
use crate::security::{Operation, Permit, Resource};

use super::{Broker, ProduceError};

impl Broker {
    /// The folder that holds this node's data, as its configuration has it.
    pub fn data_folder(&self) -> &str {
        self.static_settings.get("log.dirs").map_or("", String::as_str)
    }

    /// Bytes of a partition's batches, wherever they are; `None` when it is not open here. `permit` is for
    /// describing the cluster.
    pub fn partition_bytes(&self, permit: &Permit, id: PartitionId, partition: &metadata::Partition) -> Option<u64> {
        assert!(permit.covers(Operation::Describe, Resource::CLUSTER));
        let open = self.registry.get(id)?;
        Some(partition.object_bytes.saturating_add(open.tail_bytes()))
    }

    /// The producers with an id of a partition, by id, with their open transactions. What is known of them below the
    /// tail is fetched first, if it was not needed yet. `permit` is for reading the topic.
    pub async fn active_producers(
        &self,
        permit: &Permit,
        partition: &Partition,
    ) -> Result<Vec<ActiveProducer>, ProduceError> {
        assert!(permit.covers(Operation::Read, Resource::topic(&partition.topic)));
        self.load_producer_state(partition).await.map_err(ProduceError::State)?;
        Ok(partition.active_producers())
    }
}
