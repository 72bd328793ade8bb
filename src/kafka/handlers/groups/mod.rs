//! The APIs of consumer groups: each turns its request into the coordinator's words and the answer back.

mod consumer_group_describe;
mod consumer_group_heartbeat;
mod delete_groups;
mod describe_groups;
mod find_coordinator;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod sync_group;

use kafka_protocol::protocol::StrBytes;

use crate::base::TopicId;
use crate::group::{self, Client, GroupError};
use crate::kafka::Request;
use crate::security::{Operation, Permit, Resource};

use super::{Handlers, errors, text};

/// Kafka's UNKNOWN_SERVER_ERROR: an answer of another kind than the question, which no peer can cause.
pub(super) const UNEXPECTED: i16 = -1;
/// Kafka's UNKNOWN_TOPIC_OR_PARTITION and UNKNOWN_TOPIC_ID.
pub(super) const UNKNOWN_TOPIC: i16 = 3;
pub(super) const UNKNOWN_TOPIC_ID: i16 = 100;

impl Handlers {
    pub(super) fn group_permit(&self, request: &Request, operation: Operation, group: &str) -> Result<Permit, i16> {
        let permit = self.permit(&request.context, operation, Resource::group(group));
        permit.map_err(|denied| errors::denied(&denied).code())
    }

    /// Asks the coordinator of `group`; the error is Kafka's number.
    pub(super) async fn ask_group(
        &self,
        permit: &Permit,
        group: &str,
        ask: group::Request,
    ) -> Result<group::Reply, i16> {
        self.broker.group_request(permit, group, ask).await.map_err(|error| error.code())
    }

    /// Kafka's number of the error for one topic that a group request names, or nothing if it may be used.
    pub(super) fn topic_refusal(&self, request: &Request, operation: Operation, name: &str) -> Option<i16> {
        match self.permit(&request.context, operation, Resource::topic(name)) {
            Err(denied) => Some(errors::denied(&denied).code()),
            Ok(_) => None,
        }
    }

    pub(super) fn count_code(&self, request: &Request, code: i16) {
        if code != 0 {
            self.metrics.count_error(request.to.api, code);
        }
    }
}

pub(super) fn code(error: Option<GroupError>) -> i16 {
    error.map_or(0, GroupError::code)
}

pub(super) fn client_of(request: &Request) -> Client {
    let id = request.client_id.as_ref().map(|id| id.to_string()).unwrap_or_default();
    Client { id, host: format!("/{}", request.context.peer_addr.ip().to_canonical()) }
}

/// An optional string of the wire.
pub(super) fn owned(value: Option<StrBytes>) -> Option<String> {
    value.map(|v| v.to_string())
}

/// An optional string for the wire.
pub(super) fn wire(value: Option<String>) -> Option<StrBytes> {
    value.map(text)
}

pub(super) fn topic_id(id: uuid::Uuid) -> TopicId {
    TopicId(*id.as_bytes())
}

pub(super) fn wire_id(id: TopicId) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0)
}
