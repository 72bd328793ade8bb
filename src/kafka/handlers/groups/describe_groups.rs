//! DescribeGroups (key 15): classic groups.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use crate::group::{self, DescribeGroup};
use crate::kafka::handlers::room::Room;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::{UNEXPECTED, code, wire};

const OPERATIONS_SINCE: i16 = 3;
const INSTANCE_SINCE: i16 = 4;
const MESSAGE_SINCE: i16 = 6;

impl Handlers {
    pub(in crate::kafka::handlers) async fn describe_groups(
        &self,
        request: Request,
        body: DescribeGroupsRequest,
    ) -> Reply {
        let mut response = DescribeGroupsResponse::default();
        let mut room = Room::new(&request);
        for id in &body.groups {
            let described = room.take(self.describe_group(&request, id).await);
            let refused = |code| DescribedGroup::default().with_group_id(id.clone()).with_error_code(code);
            let mut described = described.unwrap_or_else(refused);
            self.count_code(&request, described.error_code);
            if body.include_authorized_operations && described.error_code == 0 && request.to.version >= OPERATIONS_SINCE
            {
                described.authorized_operations =
                    self.authorizer.authorized_operations(&request.context.principal, Resource::group(id));
            }
            response.groups.push(described);
        }
        Reply::encode(request.to, &response)
    }

    async fn describe_group(&self, request: &Request, id: &GroupId) -> DescribedGroup {
        let version = request.to.version;
        let mut described = DescribedGroup::default();
        described.group_id = id.clone();
        let ask = group::Request::DescribeGroup(DescribeGroup { version, group: id.to_string() });
        let outcome = match self.group_permit(request, Operation::Describe, id) {
            Ok(permit) => self.ask_group(&permit, id, ask).await,
            Err(code) => Err(code),
        };
        match outcome {
            Ok(group::Reply::DescribeGroup(reply)) => {
                described.error_code = code(reply.error);
                if version >= MESSAGE_SINCE {
                    described.error_message = wire(reply.error_message);
                }
                described.group_state = text(reply.state);
                described.protocol_type = text(reply.protocol_type);
                described.protocol_data = text(reply.protocol);
                let members = reply.members.into_iter().map(|known| {
                    let mut member = DescribedGroupMember::default();
                    member.member_id = text(known.member);
                    member.group_instance_id = wire(known.instance).filter(|_| version >= INSTANCE_SINCE);
                    member.client_id = text(known.client_id);
                    member.client_host = text(known.client_host);
                    member.member_metadata = known.metadata;
                    member.member_assignment = known.assignment;
                    member
                });
                described.members = members.collect();
            }
            Ok(_) => described.error_code = UNEXPECTED,
            Err(code) => described.error_code = code,
        }
        described
    }
}
