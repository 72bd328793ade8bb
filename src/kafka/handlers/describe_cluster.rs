//! DescribeCluster (key 60): the brokers, and the cluster's id.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::kafka::{Reply, Request};
use crate::security::Resource;

use super::administer::Refusal;
use super::picture::Picture;
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
        let image = self.broker.image();
        let picture = self.picture(&image, &request.context);
        response.cluster_id = text(image.cluster.to_string());
        response.controller_id = self.controller(&picture).0.into();
        if body.include_cluster_authorized_operations {
            response.cluster_authorized_operations =
                self.authorizer.authorized_operations(&request.context.principal, Resource::CLUSTER);
        }
        response.brokers = brokers(&picture, body.include_fenced_brokers);
        Reply::encode(request.to, &response)
    }
}

/// The brokers, and those that are fenced only where they are asked for (KIP-1073).
fn brokers(picture: &Picture<'_>, with_fenced: bool) -> Vec<DescribeClusterBroker> {
    let shown = picture.brokers().filter(|broker| with_fenced || !broker.fenced);
    shown
        .map(|broker| {
            DescribeClusterBroker::default()
                .with_broker_id(broker.node.0.into())
                .with_host(text(&*broker.endpoint.host))
                .with_port(i32::from(broker.endpoint.port))
                .with_rack(broker.rack.map(text))
                .with_is_fenced(broker.fenced)
        })
        .collect()
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
    use crate::kafka::handlers::picture_tests::three_brokers;

    #[test]
    fn fenced_brokers_are_described_where_they_are_asked_for() {
        let image = three_brokers(&[2]);
        let picture = Picture::new(&image, "clients");
        let ids = |with_fenced| {
            let shown = brokers(&picture, with_fenced);
            shown.iter().map(|b| (b.broker_id.0, b.port, b.is_fenced)).collect::<Vec<_>>()
        };
        assert_eq!(ids(false), [(1, 9001, false), (3, 9003, false)]);
        assert_eq!(ids(true), [(1, 9001, false), (2, 9002, true), (3, 9003, false)]);
        assert_eq!(brokers(&picture, false)[0].rack.as_deref(), Some("r1"));
    }

    #[test]
    fn only_brokers_are_described() {
        let code = |kind| check_endpoint_type(kind).map_err(|refusal| refusal.code());
        assert_eq!([1, 2, 0, 3, -1].map(code), [Ok(()), Err(114), Err(115), Err(115), Err(115)]);
    }
}
