//! ListConfigResources (key 74, KIP-1142): the resources that can have, or do have, settings. Version 0 knows only
//! subscriptions to clients' metrics (KIP-714).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use crate::kafka::{Reply, Request};
use crate::metadata::Image;
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::{Handlers, text};

/// In the order in which a real broker answers them.
const ALL: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

impl Handlers {
    pub(super) async fn list_config_resources(&self, request: Request, body: ListConfigResourcesRequest) -> Reply {
        let mut response = ListConfigResourcesResponse::default();
        let permitted = self.permit(&request.context, Operation::DescribeConfigs, Resource::CLUSTER);
        let listed = permitted
            .map_err(Refusal::from)
            .and_then(|_permit| wanted(&body.resource_types, request.to.version))
            .map(|kinds| resources(&kinds, &self.broker.image()));
        match listed {
            Ok(resources) => response.config_resources = resources,
            Err(refusal) => response.error_code = refusal.code(),
        }
        self.count(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

/// The kinds that are meant; none given is all.
fn wanted(given: &[i8], version: i16) -> Result<Vec<i8>, Refusal> {
    if version == 0 {
        return Ok(vec![CLIENT_METRICS]);
    }
    if given.iter().any(|kind| !ALL.contains(kind)) {
        return Err(ResponseError::UnsupportedVersion.into());
    }
    Ok(ALL.into_iter().filter(|kind| given.is_empty() || given.contains(kind)).collect())
}

fn resources(kinds: &[i8], image: &Image) -> Vec<ConfigResource> {
    let resource =
        |kind: i8, name: String| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let of = |kind: i8| -> Vec<ConfigResource> {
        match kind {
            GROUP => image.group_configs.keys().map(|name| resource(kind, name.clone())).collect(),
            CLIENT_METRICS => image.client_metrics.keys().map(|name| resource(kind, name.clone())).collect(),
            BROKER | BROKER_LOGGER => image.brokers.keys().map(|node| resource(kind, node.to_string())).collect(),
            _ => image.names.keys().map(|name| resource(kind, name.to_string())).collect(),
        }
    };
    kinds.iter().flat_map(|kind| of(*kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::administer::one_topic;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn the_kinds_that_are_asked_for_are_listed() {
        let own = BTreeMap::from([("interval.ms".to_owned(), "1000".to_owned())]);
        let named = |name: &str| Arc::new(BTreeMap::from([(name.to_owned(), own.clone())]));
        let mut image = Image { group_configs: named("g"), client_metrics: named("cm"), ..one_topic("t", 1) };
        image.brokers.clear();
        let listed = |kinds: &[i8], version| {
            let kinds = wanted(kinds, version).map_err(|refusal| refusal.code())?;
            Ok::<_, i16>(
                resources(&kinds, &image)
                    .into_iter()
                    .map(|r| (r.resource_type, r.resource_name.to_string()))
                    .collect::<Vec<_>>(),
            )
        };
        let pair = |kind: i8, name: &str| (kind, name.to_owned());
        assert_eq!(listed(&[], 1), Ok(vec![pair(32, "g"), pair(16, "cm"), pair(2, "t")]));
        assert_eq!(listed(&[2, 32], 1), Ok(vec![pair(32, "g"), pair(2, "t")]));
        assert_eq!(listed(&[16, 16], 1), Ok(vec![pair(16, "cm")]));
        assert_eq!(listed(&[3], 1), Err(35));
        assert_eq!(listed(&[16, 99], 1), Err(35));
        assert_eq!(listed(&[], 0), Ok(vec![pair(16, "cm")]));
    }
}
