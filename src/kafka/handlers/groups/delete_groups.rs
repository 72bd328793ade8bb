//! DeleteGroups (key 42).

use std::collections::HashSet;

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::group::{self, DeleteGroup};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, code};

impl Handlers {
    pub(in crate::kafka::handlers) async fn delete_groups(&self, request: Request, body: DeleteGroupsRequest) -> Reply {
        let mut response = DeleteGroupsResponse::default();
        // A group that is named more than once is answered once.
        let mut seen = HashSet::new();
        for id in body.groups_names.into_iter().filter(|id| seen.insert(id.clone())) {
            let ask = group::Request::DeleteGroup(DeleteGroup { group: id.to_string() });
            let outcome = match self.group_permit(&request, Operation::Delete, &id) {
                Ok(permit) => self.ask_group(&permit, &id, ask).await,
                Err(code) => Err(code),
            };
            let mut result = DeletableGroupResult::default();
            result.error_code = match outcome {
                Ok(group::Reply::DeleteGroup(answer)) => code(answer.err()),
                Ok(_) => UNEXPECTED,
                Err(code) => code,
            };
            result.group_id = id;
            self.count_code(&request, result.error_code);
            response.results.push(result);
        }
        Reply::encode(request.to, &response)
    }
}
