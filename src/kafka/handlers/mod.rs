//! What each API means: one file per API, all of them thin. A handler authorizes, calls the broker, and turns the
//! broker's words into Kafka's numbers. It keeps no state but the fetch sessions.

mod administer;
mod alter_configs;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod errors;
mod fetch;
mod fetch_session;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::StrBytes;

use crate::base::{PartitionId, TopicId};
use crate::broker::Broker;
use crate::metadata::{Endpoint, Topic};
use crate::partition::Partition;
use crate::security::{Authorizer, Denied, Operation, Permit, Resource};

use super::versions::{advertised, is_software_name};
use super::{ConnectionContext, Reply, Request, RequestBody, Service, WireMetrics};

use fetch_session::Sessions;

/// Answers every request of every connection.
pub struct Handlers {
    broker: Arc<Broker>,
    authorizer: Authorizer,
    metrics: Arc<WireMetrics>,
    sessions: Arc<Sessions>,
}

impl Handlers {
    pub fn new(broker: Arc<Broker>, authorizer: Authorizer, metrics: Arc<WireMetrics>) -> Handlers {
        Handlers { broker, authorizer, metrics, sessions: Arc::default() }
    }

    fn permit(
        &self,
        context: &ConnectionContext,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Result<Permit, Denied> {
        self.authorizer.authorize(&context.principal, operation, resource)
    }

    /// The topic by name, or by id where the name is empty.
    fn find_topic(&self, name: &str, id: TopicId) -> Result<Arc<Topic>, ResponseError> {
        let image = self.broker.image();
        if id.is_zero() {
            image.topic(name).cloned().ok_or(ResponseError::UnknownTopicOrPartition)
        } else {
            image.topics.get(&id).cloned().ok_or(ResponseError::UnknownTopicId)
        }
    }

    /// The topic with the permit for `operation` on it. Where it is named, the permit comes first: the same answer
    /// whether the topic exists or not.
    fn permitted_topic(
        &self,
        context: &ConnectionContext,
        operation: Operation,
        name: &str,
        id: TopicId,
    ) -> Result<(Permit, Arc<Topic>), ResponseError> {
        let ask = |name: &str| {
            self.permit(context, operation, Resource::topic(name)).map_err(|denied| errors::denied(&denied))
        };
        if id.is_zero() {
            let permit = ask(name)?;
            return Ok((permit, self.find_topic(name, id)?));
        }
        let topic = self.find_topic(name, id)?;
        Ok((ask(&topic.name)?, topic))
    }

    /// An open partition of a topic.
    fn find_partition(&self, topic: &Topic, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let known = usize::try_from(index).is_ok_and(|i| i < topic.partitions.len());
        if !known {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let id = PartitionId { topic: topic.id, index };
        self.broker.registry().get(id).ok_or(ResponseError::NotLeaderOrFollower)
    }

    /// Where this node is reached by clients of the listener that the connection came in on.
    fn endpoint(&self, context: &ConnectionContext) -> Option<Endpoint> {
        let image = self.broker.image();
        let broker = image.brokers.get(&self.broker.node)?;
        broker.endpoints.iter().find(|e| *e.listener == *context.listener).or(broker.endpoints.first()).cloned()
    }

    fn api_versions(&self, request: &Request, body: &kafka_protocol::messages::ApiVersionsRequest) -> Reply {
        let mut response = ApiVersionsResponse::default();
        let named = is_software_name(&body.client_software_name) && is_software_name(&body.client_software_version);
        if request.to.version >= 3 && !named {
            response.error_code = ResponseError::InvalidRequest.code();
        } else {
            response.api_keys = advertised();
        }
        Reply::encode(request.to, &response)
    }
}

impl Service for Handlers {
    fn begin(&self, mut request: Request) -> BoxFuture<'_, Reply> {
        // The body is taken out so that the rest of the request can be borrowed beside it.
        let body = std::mem::replace(&mut request.body, RequestBody::ApiVersions(Default::default()));
        async move {
            match body {
                RequestBody::Produce(body) => self.produce(request, body).await,
                RequestBody::Fetch(body) => self.fetch(request, body),
                RequestBody::ListOffsets(body) => self.list_offsets(request, body).await,
                RequestBody::Metadata(body) => self.metadata(request, body).await,
                RequestBody::ApiVersions(body) => self.api_versions(&request, &body),
                RequestBody::InitProducerId(body) => self.init_producer_id(request, body).await,
                RequestBody::OffsetForLeaderEpoch(body) => self.offset_for_leader_epoch(request, body),
                other => self.administer(request, other).await,
            }
        }
        .boxed()
    }
}

/// A string of ours as the wire has it.
fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}
