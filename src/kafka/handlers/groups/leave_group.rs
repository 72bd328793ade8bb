//! LeaveGroup (key 13): one member before version 3, many after (KIP-345).

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::group::{self, LeaveGroup, LeavingMember};
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, code, owned, wire};

const MANY_SINCE: i16 = 3;

impl Handlers {
    pub(in crate::kafka::handlers) async fn leave_group(&self, request: Request, body: LeaveGroupRequest) -> Reply {
        let group = body.group_id.to_string();
        let many = request.to.version >= MANY_SINCE;
        let members = match many {
            true => (body.members.into_iter())
                .map(|m| LeavingMember {
                    member: m.member_id.to_string(),
                    instance: owned(m.group_instance_id),
                    reason: owned(m.reason),
                })
                .collect(),
            false => vec![LeavingMember { member: body.member_id.to_string(), instance: None, reason: None }],
        };
        let leave = LeaveGroup { group: group.clone(), members };
        let outcome = match self.group_permit(&request, Operation::Read, &group) {
            Ok(permit) => self.ask_group(&permit, &group, group::Request::LeaveGroup(leave)).await,
            Err(code) => Err(code),
        };
        let mut response = LeaveGroupResponse::default();
        match outcome {
            Ok(group::Reply::LeaveGroup(reply)) => {
                response.error_code = code(reply.error);
                if !many && response.error_code == 0 {
                    response.error_code = code(reply.members.first().and_then(|m| m.error));
                }
                let members = reply.members.into_iter().filter(|_| many).map(|left| {
                    let mut member = MemberResponse::default();
                    member.member_id = text(left.member);
                    member.group_instance_id = wire(left.instance);
                    member.error_code = code(left.error);
                    member
                });
                response.members = members.collect();
            }
            Ok(_) => response.error_code = UNEXPECTED,
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}
