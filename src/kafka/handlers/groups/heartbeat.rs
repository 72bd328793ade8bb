//! Heartbeat (key 12).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::group::{self, Heartbeat};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, code, owned};

impl Handlers {
    pub(in crate::kafka::handlers) async fn heartbeat(&self, request: Request, body: HeartbeatRequest) -> Reply {
        let group = body.group_id.to_string();
        let beat = Heartbeat {
            group: group.clone(),
            generation: body.generation_id,
            member: body.member_id.to_string(),
            instance: owned(body.group_instance_id),
        };
        let outcome = match self.group_permit(&request, Operation::Read, &group) {
            Ok(permit) => self.ask_group(&permit, &group, group::Request::Heartbeat(beat)).await,
            Err(code) => Err(code),
        };
        let mut response = HeartbeatResponse::default();
        response.error_code = match outcome {
            Ok(group::Reply::Heartbeat(answer)) => code(answer.err()),
            Ok(_) => UNEXPECTED,
            Err(code) => while_loading(code),
        };
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

/// A coordinator that is still loading cannot know the member, and believes it: as in Kafka a heartbeat is answered with
/// success then. Clients take the error that all other requests get for the end of their membership.
fn while_loading(code: i16) -> i16 {
    if code == ResponseError::CoordinatorLoadInProgress.code() { 0 } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_outlives_the_loading_of_its_coordinator() {
        assert_eq!(while_loading(14), 0);
        assert_eq!(while_loading(16), 16, "somebody else coordinates");
    }
}
