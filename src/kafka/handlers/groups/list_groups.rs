//! ListGroups (key 16): the groups of this node's coordinators that the caller may describe.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};

use crate::group::ListGroups;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

const STATE_SINCE: i16 = 4;
const TYPE_SINCE: i16 = 5;

impl Handlers {
    pub(in crate::kafka::handlers) async fn list_groups(&self, request: Request, body: ListGroupsRequest) -> Reply {
        let filter = ListGroups {
            states: body.states_filter.iter().map(|s| s.to_string()).collect(),
            types: body.types_filter.iter().map(|s| s.to_string()).collect(),
        };
        let (groups, failed) = self.broker.list_groups(&filter).await;
        let mut response = ListGroupsResponse::default();
        response.error_code = failed.map_or(0, |error| error.code());
        self.count_code(&request, response.error_code);
        let all = self.permit(&request.context, Operation::Describe, Resource::CLUSTER).is_ok();
        for found in groups {
            if !all && self.group_permit(&request, Operation::Describe, &found.group).is_err() {
                continue;
            }
            let mut listed = ListedGroup::default();
            listed.group_id = GroupId(text(found.group));
            listed.protocol_type = text(found.protocol_type);
            if request.to.version >= STATE_SINCE {
                listed.group_state = text(found.state);
            }
            if request.to.version >= TYPE_SINCE {
                listed.group_type = text(found.group_type);
            }
            response.groups.push(listed);
        }
        Reply::encode(request.to, &response)
    }
}
