//! WriteTxnMarkers (key 27): of a coordinator on another node, or of an administrator who ends a hanging transaction.

use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use crate::base::ProducerId;
use crate::broker::TransactionEnd;
use crate::kafka::handlers::{Handlers, errors};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::{UNEXPECTED, UNKNOWN_TOPIC};

impl Handlers {
    pub(in crate::kafka::handlers) async fn write_txn_markers(
        &self,
        request: Request,
        body: WriteTxnMarkersRequest,
    ) -> Reply {
        // Kafka takes Alter as well as ClusterAction (KIP-664).
        let permit = self
            .permit(&request.context, Operation::ClusterAction, Resource::CLUSTER)
            .or_else(|_| self.permit(&request.context, Operation::Alter, Resource::CLUSTER));
        let mut response = WriteTxnMarkersResponse::default();
        for marker in body.markers {
            let end = TransactionEnd {
                producer: ProducerId(marker.producer_id.0),
                epoch: marker.producer_epoch,
                coordinator_epoch: marker.coordinator_epoch,
                commit: marker.transaction_result,
                version2: false,
            };
            let mut result = WritableTxnMarkerResult::default();
            result.producer_id = marker.producer_id;
            for topic in marker.topics {
                let mut answered = WritableTxnMarkerTopicResult::default();
                for index in topic.partition_indexes {
                    let mut partition = WritableTxnMarkerPartitionResult::default();
                    partition.partition_index = index;
                    partition.error_code = match &permit {
                        Err(denied) => errors::denied(denied).code(),
                        Ok(permit) => self.write_marker(permit, &topic.name, index, end).await,
                    };
                    self.count_code(&request, partition.error_code);
                    answered.partitions.push(partition);
                }
                answered.name = topic.name;
                result.topics.push(answered);
            }
            response.markers.push(result);
        }
        Reply::encode(request.to, &response)
    }

    async fn write_marker(
        &self,
        permit: &crate::security::Permit,
        topic: &str,
        index: i32,
        end: TransactionEnd,
    ) -> i16 {
        let Some(found) = self.broker.topic(topic) else { return UNKNOWN_TOPIC };
        match self.find_partition(&found, index) {
            Err(error) => error.code(),
            // No producer ever has such an epoch; a real broker fails while it makes the marker.
            Ok(_) if end.epoch < 0 => UNEXPECTED,
            Ok(partition) => match self.broker.write_txn_marker(permit, &partition, end).await {
                Ok(()) => 0,
                Err(error) => errors::produce(&error).code(),
            },
        }
    }
}
