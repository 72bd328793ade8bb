//! ListOffsets (key 2): offsets by position and by time.

use std::collections::{HashMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::base::TopicId;
use crate::broker::{FoundOffset, OffsetQuery};
use crate::kafka::{Reply, Request};
use crate::metadata::Topic;
use crate::partition::Isolation;
use crate::security::{Operation, Permit};

use super::offset_for_leader_epoch::check_epoch;
use super::{Handlers, errors};

impl Handlers {
    pub(super) async fn list_offsets(&self, request: Request, body: ListOffsetsRequest) -> Reply {
        let mut response = ListOffsetsResponse::default();
        let mut seen = HashSet::new();
        let mut duplicates = HashSet::new();
        for topic in &body.topics {
            for partition in &topic.partitions {
                if !seen.insert((&topic.name, partition.partition_index)) {
                    duplicates.insert((topic.name.clone(), partition.partition_index));
                }
            }
        }
        let (mut places, mut told) = (HashMap::new(), HashSet::new());
        for topic in &body.topics {
            let found = self.permitted_topic(&request.context, Operation::Describe, &topic.name, TopicId::default());
            // A topic that is named more than once is answered once, and so is a partition.
            let place = *places.entry(topic.name.clone()).or_insert(response.topics.len());
            if place == response.topics.len() {
                let mut answered = ListOffsetsTopicResponse::default();
                answered.name = topic.name.clone();
                response.topics.push(answered);
            }
            for asked in topic.partitions.iter().filter(|p| told.insert((&topic.name, p.partition_index))) {
                let outcome = match &found {
                    _ if duplicates.contains(&(topic.name.clone(), asked.partition_index)) => {
                        Err(ResponseError::InvalidRequest)
                    }
                    Ok((permit, found)) => {
                        let isolation = isolation(body.isolation_level);
                        self.list_offset(permit, request.to.version, found, asked, isolation).await
                    }
                    Err(error) => Err(*error),
                };
                let answered = self.answer_offset(&request, asked.partition_index, outcome);
                response.topics[place].partitions.push(answered);
            }
        }
        Reply::encode(request.to, &response)
    }

    fn answer_offset(
        &self,
        request: &Request,
        index: i32,
        outcome: Result<Option<FoundOffset>, ResponseError>,
    ) -> ListOffsetsPartitionResponse {
        let mut response = ListOffsetsPartitionResponse::default();
        response.partition_index = index;
        (response.offset, response.timestamp, response.leader_epoch) = (-1, -1, -1);
        match outcome {
            Ok(Some(found)) => {
                (response.offset, response.timestamp) = (found.offset.0, found.timestamp);
                if request.to.version >= 4 {
                    response.leader_epoch = found.leader_epoch.0;
                }
            }
            Ok(None) => {}
            Err(error) => {
                response.error_code = error.code();
                self.metrics.count_error(request.to.api, error.code());
            }
        }
        response
    }

    async fn list_offset(
        &self,
        permit: &Permit,
        version: i16,
        topic: &Topic,
        asked: &ListOffsetsPartition,
        isolation: Isolation,
    ) -> Result<Option<FoundOffset>, ResponseError> {
        let query = query(asked.timestamp, version).ok_or(ResponseError::UnsupportedVersion)?;
        let partition = self.find_partition(topic, asked.partition_index)?;
        if version >= 4 {
            check_epoch(&partition, asked.current_leader_epoch, |given| given == -1)?;
        }
        self.broker.find_offset(permit, &partition, query, isolation).await.map_err(|e| errors::offsets(&e))
    }
}

/// What the isolation level of a request means.
pub(super) fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

/// What a timestamp asks for, if the version knows it.
fn query(timestamp: i64, version: i16) -> Option<OffsetQuery> {
    match timestamp {
        -1 => Some(OffsetQuery::Latest),
        -2 => Some(OffsetQuery::Earliest),
        -3 if version >= 7 => Some(OffsetQuery::MaxTimestamp),
        -4 if version >= 8 => Some(OffsetQuery::EarliestLocal),
        -5 if version >= 9 => Some(OffsetQuery::LatestTiered),
        -6 if version >= 11 => Some(OffsetQuery::EarliestPendingUpload),
        time if time >= 0 => Some(OffsetQuery::Time(time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_begin_at_their_versions() {
        for (timestamp, since) in [(-3, 7), (-4, 8), (-5, 9), (-6, 11)] {
            assert_eq!(query(timestamp, since - 1), None);
            assert!(query(timestamp, since).is_some());
        }
        assert_eq!(query(-7, 11), None);
        assert_eq!(query(0, 1), Some(OffsetQuery::Time(0)));
    }
}
