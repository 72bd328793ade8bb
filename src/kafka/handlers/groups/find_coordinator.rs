//! FindCoordinator (key 10): where the coordinators of groups and transactional ids are. Makes their topics.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::CoordinatorKind;
use crate::kafka::handlers::{Handlers, errors, text};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

/// Version from which one request asks for many keys.
const MANY_SINCE: i16 = 4;

impl Handlers {
    pub(in crate::kafka::handlers) async fn find_coordinator(
        &self,
        request: Request,
        body: FindCoordinatorRequest,
    ) -> Reply {
        let mut response = FindCoordinatorResponse::default();
        response.error_message = None;
        if request.to.version >= MANY_SINCE {
            for key in &body.coordinator_keys {
                let found = self.find_one(&request, body.key_type, key).await;
                self.metrics_of(&request, found.error_code);
                response.coordinators.push(found);
            }
        } else {
            let found = self.find_one(&request, body.key_type, &body.key).await;
            self.metrics_of(&request, found.error_code);
            (response.error_code, response.node_id) = (found.error_code, found.node_id);
            (response.host, response.port) = (found.host, found.port);
            if request.to.version >= 1 {
                response.error_message = found.error_message;
            }
        }
        Reply::encode(request.to, &response)
    }

    fn metrics_of(&self, request: &Request, code: i16) {
        self.count_code(request, code);
    }

    async fn find_one(&self, request: &Request, kind: i8, key: &StrBytes) -> Coordinator {
        let mut found = Coordinator::default();
        found.key = key.clone();
        found.error_message = None;
        (found.node_id, found.port) = (BrokerId(-1), -1);
        let outcome = self.locate(request, kind, key).await;
        match outcome {
            Ok((node, endpoint)) => {
                found.node_id = BrokerId(node);
                (found.host, found.port) = (text(endpoint.host), i32::from(endpoint.port));
            }
            Err((code, message)) => {
                found.error_code = code;
                found.error_message = Some(text(message));
            }
        }
        found
    }

    async fn locate(
        &self,
        request: &Request,
        kind: i8,
        key: &str,
    ) -> Result<(i32, crate::metadata::Endpoint), (i16, String)> {
        let (kind, resource) = match kind {
            0 => (CoordinatorKind::Group, Resource::group(key)),
            1 => (CoordinatorKind::Transaction, Resource::transactional_id(key)),
            other => {
                let message = format!("there is no coordinator of type {other} here");
                return Err((ResponseError::InvalidRequest.code(), message));
            }
        };
        let permit = self.permit(&request.context, Operation::Describe, resource);
        let permit = permit.map_err(|denied| (errors::denied(&denied).code(), denied.to_string()))?;
        let found = self.broker.find_coordinator(&permit, kind, key).await;
        let node = found.map_err(|error| (error.code(), error.to_string()))?;
        let image = self.broker.image();
        let endpoint = self.picture(&image, &request.context).live_endpoint(node).cloned();
        let away = || (ResponseError::CoordinatorNotAvailable.code(), "the coordinator is not available".to_owned());
        Ok((node.0, endpoint.ok_or_else(away)?))
    }
}
