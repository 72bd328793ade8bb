//! OffsetForLeaderEpoch (key 23, KIP-320): where a leader epoch ends.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::base::{LeaderEpoch, TopicId};
use crate::kafka::{Reply, Request};
use crate::metadata::Topic;
use crate::partition::Partition;
use crate::security::{Operation, Permit};

use super::Handlers;

/// Stands for no epoch at all.
const NO_EPOCH: i32 = -1;

/// Whether a client's idea of the leader epoch is the present one. `absent` says which values mean "none given".
pub(super) fn check_epoch(
    partition: &Partition,
    given: i32,
    absent: impl Fn(i32) -> bool,
) -> Result<(), ResponseError> {
    let current = partition.positions().leader_epoch.0;
    match given {
        given if absent(given) || given == current => Ok(()),
        given if given < current => Err(ResponseError::FencedLeaderEpoch),
        _ => Err(ResponseError::UnknownLeaderEpoch),
    }
}

impl Handlers {
    pub(super) fn offset_for_leader_epoch(&self, request: Request, body: OffsetForLeaderEpochRequest) -> Reply {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in body.topics {
            let found = self.permitted_topic(&request.context, Operation::Describe, &topic.topic, TopicId::default());
            let mut result = OffsetForLeaderTopicResult::default();
            for asked in &topic.partitions {
                let mut partition = EpochEndOffset::default();
                partition.partition = asked.partition;
                (partition.leader_epoch, partition.end_offset) = (-1, -1);
                let end = match &found {
                    Ok((permit, found)) => self.epoch_end(permit, found, asked),
                    Err(error) => Err(*error),
                };
                match end {
                    Ok(Some((epoch, end))) => (partition.leader_epoch, partition.end_offset) = (epoch, end),
                    Ok(None) => {}
                    Err(error) => partition.error_code = error.code(),
                }
                result.partitions.push(partition);
            }
            result.topic = topic.topic;
            response.topics.push(result);
        }
        Reply::encode(request.to, &response)
    }

    fn epoch_end(
        &self,
        permit: &Permit,
        topic: &Topic,
        asked: &OffsetForLeaderPartition,
    ) -> Result<Option<(i32, i64)>, ResponseError> {
        let partition = self.find_partition(topic, asked.partition)?;
        check_epoch(&partition, asked.current_leader_epoch, |given| given == -1)?;
        // A client that knows no epoch learns of no end.
        if asked.leader_epoch == NO_EPOCH {
            return Ok(None);
        }
        let found = self.broker.epoch_end(permit, &partition, LeaderEpoch(asked.leader_epoch));
        Ok(found.map(|(epoch, end)| (epoch.0, end.0)))
    }
}
