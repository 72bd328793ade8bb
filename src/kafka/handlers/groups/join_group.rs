//! JoinGroup (key 11): answered when the group is complete.

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::group::{self, JoinGroup, JoinGroupReply, Protocol};
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, client_of, code, owned, wire};

/// Version from which the protocol type is answered (KIP-559), and names may be null.
const PROTOCOL_TYPE_SINCE: i16 = 7;
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
const INSTANCE_SINCE: i16 = 5;

impl Handlers {
    pub(in crate::kafka::handlers) async fn join_group(&self, request: Request, body: JoinGroupRequest) -> Reply {
        let version = request.to.version;
        let group = body.group_id.to_string();
        let member = body.member_id.to_string();
        let join = JoinGroup {
            version,
            client: client_of(&request),
            group: group.clone(),
            session_timeout_ms: body.session_timeout_ms,
            rebalance_timeout_ms: if version >= 1 { body.rebalance_timeout_ms } else { body.session_timeout_ms },
            member: member.clone(),
            instance: owned(body.group_instance_id),
            protocol_type: body.protocol_type.to_string(),
            protocols: (body.protocols.into_iter())
                .map(|p| Protocol { name: p.name.to_string(), metadata: p.metadata })
                .collect(),
            reason: owned(body.reason),
        };
        let outcome = match self.group_permit(&request, Operation::Read, &group) {
            Ok(permit) => self.ask_group(&permit, &group, group::Request::JoinGroup(join)).await,
            Err(code) => Err(code),
        };
        let response = match outcome {
            Ok(group::Reply::JoinGroup(reply)) => joined(reply, version),
            Ok(_) => refused(UNEXPECTED, &member, version),
            Err(code) => refused(code, &member, version),
        };
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

fn refused(code: i16, member: &str, version: i16) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default();
    response.error_code = code;
    response.generation_id = -1;
    response.member_id = text(member);
    response.protocol_name = (version < PROTOCOL_TYPE_SINCE).then(|| text(""));
    response
}

fn joined(reply: JoinGroupReply, version: i16) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default();
    response.error_code = code(reply.error);
    response.generation_id = reply.generation;
    if version >= PROTOCOL_TYPE_SINCE {
        response.protocol_type = wire(reply.protocol_type);
        response.protocol_name = wire(reply.protocol_name);
    } else {
        response.protocol_name = Some(text(reply.protocol_name.unwrap_or_default()));
    }
    response.leader = text(reply.leader);
    response.skip_assignment = reply.skip_assignment && version >= SKIP_ASSIGNMENT_SINCE;
    response.member_id = text(reply.member);
    let members = reply.members.iter().map(|joined| {
        let mut member = JoinGroupResponseMember::default();
        member.member_id = text(joined.member.clone());
        member.group_instance_id = wire(joined.instance.clone()).filter(|_| version >= INSTANCE_SINCE);
        member.metadata = joined.metadata.clone();
        member
    });
    response.members = members.collect();
    response
}
