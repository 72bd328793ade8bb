//! Topics, partitions and settings: the changes that a client may ask for, as metadata commands.

use crate::base::{NodeId, Offset, PartitionId, TopicId};
use crate::metadata::Command;
use crate::partition::Partition;
use crate::security::{Operation, Permit, Resource};

use super::{Broker, ChangeError};

/// Topics that only coordinators write to.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether clients may only read the topic.
pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    /// Of each partition.
    pub leaders: Vec<NodeId>,
    pub replication_factor: i16,
    /// Checked already.
    pub configs: Vec<(String, String)>,
}

impl Broker {
    /// Makes a topic; when it answers, the partitions that this node leads are open. `permit` is for creating.
    pub async fn create_topic(&self, permit: &Permit, topic: NewTopic) -> Result<TopicId, ChangeError> {
        assert!(permit.operation() == Operation::Create);
        let mut id = TopicId::default();
        while id.is_zero() {
            self.entropy.fill(&mut id.0);
        }
        self.propose(Command::CreateTopic {
            id,
            name: topic.name,
            partitions: topic.leaders,
            replication_factor: topic.replication_factor,
            configs: topic.configs,
            now_ms: self.clock.wall_ms(),
        })
        .await?;
        Ok(id)
    }

    /// `permit` is for deleting the topic.
    pub async fn delete_topic(&self, permit: &Permit, id: TopicId) -> Result<(), ChangeError> {
        assert!(permit.operation() == Operation::Delete);
        self.propose(Command::DeleteTopic { id, now_ms: self.clock.wall_ms() }).await.map(drop)
    }

    /// Adds one partition per leader to the `present` ones. `permit` is for altering the topic.
    pub async fn create_partitions(
        &self,
        permit: &Permit,
        id: TopicId,
        present: usize,
        leaders: Vec<NodeId>,
    ) -> Result<(), ChangeError> {
        assert!(permit.operation() == Operation::Alter);
        let first_index = i32::try_from(present).unwrap_or(i32::MAX);
        self.propose(Command::CreatePartitions { id, first_index, leaders }).await.map(drop)
    }

    /// Drops the records below `to`, or below the high watermark when that is `None`; answers the new log start.
    /// `permit` is for deleting from the topic.
    pub async fn delete_records(
        &self,
        permit: &Permit,
        partition: &Partition,
        to: Option<Offset>,
    ) -> Result<Offset, ChangeError> {
        assert!(permit.covers(Operation::Delete, Resource::topic(&partition.topic)));
        let at = partition.positions();
        let to = to.unwrap_or(at.high_watermark);
        if to < Offset::ZERO || to > at.high_watermark {
            let (log_start, high_watermark) = (at.log_start, at.high_watermark);
            return Err(ChangeError::OutOfRange { asked: to, log_start, high_watermark });
        }
        if to > at.log_start {
            self.advance_log_start(vec![(partition.id, to)]).await?;
        }
        Ok(partition.positions().log_start)
    }

    pub(super) async fn advance_log_start(&self, changes: Vec<(PartitionId, Offset)>) -> Result<(), ChangeError> {
        self.propose(Command::AdvanceLogStart { changes, now_ms: self.clock.wall_ms() }).await.map(drop)
    }
}
