//! DescribeCluster (key 60): the brokers, and the cluster's id.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::kafka::{Reply, Request};
use crate::security::Resource;

use super::administer::Refusal;
use super::{Handlers, text};

/// Kinds of endpoints that a client may mean (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

impl Handlers {
    pub(super) fn describe_cluster(&self, request: Request, body: DescribeClusterRequest) -> Reply {
        let mut response = DescribeClusterResponse::default().with_error_message(None);
        if let Err(refusal) = check_endpoint_type(body.endpoint_type) {
            self.count(&request, refusal.code());
            (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            return Reply::encode(request.to, &response);
        }
        response.cluster_id = text(self.broker.image().cluster.to_string());
        // Any live broker takes the administrative requests; with one node it is this one.
        response.controller_id = self.broker.node.0.into();
        if body.include_cluster_authorized_operations {
            response.cluster_authorized_operations =
                self.authorizer.authorized_operations(&request.context.principal, Resource::CLUSTER);
        }
        // A fenced broker answers nobody, so the one that answers is not fenced.
        response.brokers = self
            .endpoint(&request.context)
            .into_iter()
            .map(|endpoint| {
                DescribeClusterBroker::default()
                    .with_broker_id(self.broker.node.0.into())
                    .with_host(text(endpoint.host))
                    .with_port(i32::from(endpoint.port))
            })
            .collect();
        Reply::encode(request.to, &response)
    }
}

fn check_endpoint_type(kind: i8) -> Result<(), Refusal> {
    match kind {
        BROKERS => Ok(()),
        CONTROLLERS => Err(Refusal::new(
            ResponseError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        other => {
            let message = format!("Unsupported endpoint type {other}");
            Err(Refusal::new(ResponseError::UnsupportedEndpointType, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brokers_are_described() {
        let code = |kind| check_endpoint_type(kind).map_err(|refusal| refusal.code());
        assert_eq!([1, 2, 0, 3, -1].map(code), [Ok(()), Err(114), Err(115), Err(115), Err(115)]);
    }
}
