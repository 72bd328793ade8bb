//! ListPartitionReassignments (key 46, KIP-455): with one node none is ever under way.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::Handlers;
use super::administer::Refusal;

impl Handlers {
    pub(super) async fn list_partition_reassignments(
        &self,
        request: Request,
        _body: ListPartitionReassignmentsRequest,
    ) -> Reply {
        let mut response = ListPartitionReassignmentsResponse::default().with_error_message(None);
        if let Err(denied) = self.permit(&request.context, Operation::Describe, Resource::CLUSTER) {
            let refusal = Refusal::from(denied);
            self.count(&request, refusal.code());
            (response.error_code, response.error_message) = (refusal.code(), refusal.text());
        }
        Reply::encode(request.to, &response)
    }
}
