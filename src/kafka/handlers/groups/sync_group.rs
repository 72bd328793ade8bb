//! SyncGroup (key 14): hands the leader's assignments to the members.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::group::{self, SyncGroup};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, code, owned, wire};

/// Version from which protocol type and name have to be there (KIP-559).
const PROTOCOL_SINCE: i16 = 5;

impl Handlers {
    pub(in crate::kafka::handlers) async fn sync_group(&self, request: Request, body: SyncGroupRequest) -> Reply {
        let version = request.to.version;
        let group = body.group_id.to_string();
        let unnamed = body.protocol_type.is_none() || body.protocol_name.is_none();
        let sync = SyncGroup {
            group: group.clone(),
            generation: body.generation_id,
            member: body.member_id.to_string(),
            instance: owned(body.group_instance_id),
            protocol_type: owned(body.protocol_type),
            protocol_name: owned(body.protocol_name),
            assignments: body.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect(),
        };
        let outcome = match self.group_permit(&request, Operation::Read, &group) {
            Ok(_) if version >= PROTOCOL_SINCE && unnamed => Err(ResponseError::InconsistentGroupProtocol.code()),
            Ok(permit) => self.ask_group(&permit, &group, group::Request::SyncGroup(sync)).await,
            Err(code) => Err(code),
        };
        let mut response = SyncGroupResponse::default();
        match outcome {
            Ok(group::Reply::SyncGroup(reply)) => {
                response.error_code = code(reply.error);
                if version >= PROTOCOL_SINCE {
                    response.protocol_type = wire(reply.protocol_type);
                    response.protocol_name = wire(reply.protocol_name);
                }
                response.assignment = reply.assignment;
            }
            Ok(_) => response.error_code = UNEXPECTED,
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}
