//! What each API means: one file per API, all of them thin. A handler authorizes, calls the broker, and turns the
//! broker's words into Kafka's numbers. It keeps no state but the fetch sessions.

mod administer;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition_reassignments;
mod config_resources;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod errors;
mod features;
mod fetch;
mod fetch_session;
mod get_telemetry_subscriptions;
mod groups;
mod incremental_alter_configs;
mod list_config_resources;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_for_leader_epoch;
mod picture;
#[cfg(test)]
mod picture_tests;
mod produce;
mod push_telemetry;
mod room;
mod transactions;
mod unregister_broker;
mod update_features;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::StrBytes;

use crate::base::{NodeId, PartitionId, TopicId};
use crate::broker::Broker;
use crate::metadata::{Image, Topic};
use crate::partition::Partition;
use crate::security::{Authorizer, Denied, Operation, Permit, Resource};

use super::versions::{advertised, is_software_name};
use super::{ConnectionContext, Reply, Request, RequestBody, Service, WireMetrics};

use fetch_session::Sessions;
use picture::Picture;

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

    /// An open partition of a topic, of which this node may speak.
    fn find_partition(&self, topic: &Topic, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let known = usize::try_from(index).is_ok_and(|i| i < topic.partitions.len());
        if !known {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        // Another may have been made its leader meanwhile. What is answered from here is asked once more at the end.
        if !self.broker.lease().is_valid() {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        let id = PartitionId { topic: topic.id, index };
        self.broker.registry().get(id).ok_or(ResponseError::NotLeaderOrFollower)
    }

    /// The cluster as the clients of a listener see it.
    fn picture<'a>(&self, image: &'a Image, context: &'a ConnectionContext) -> Picture<'a> {
        Picture::new(image, &context.listener)
    }

    /// The broker that administrative requests had best go to.
    fn controller(&self, picture: &Picture<'_>) -> NodeId {
        picture.controller(self.broker.quorum_status().leader, self.broker.node)
    }

    fn api_versions(&self, request: &Request, body: &kafka_protocol::messages::ApiVersionsRequest) -> Reply {
        let mut response = ApiVersionsResponse::default();
        let named = is_software_name(&body.client_software_name) && is_software_name(&body.client_software_version);
        if request.to.version >= 3 && !named {
            response.error_code = ResponseError::InvalidRequest.code();
        } else {
            response.api_keys = advertised();
            features::tell(&mut response, request.to.version, self.broker.image().applied);
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
                RequestBody::OffsetCommit(body) => self.offset_commit(request, body).await,
                RequestBody::OffsetFetch(body) => self.offset_fetch(request, body).await,
                RequestBody::FindCoordinator(body) => self.find_coordinator(request, body).await,
                RequestBody::JoinGroup(body) => self.join_group(request, body).await,
                RequestBody::Heartbeat(body) => self.heartbeat(request, body).await,
                RequestBody::LeaveGroup(body) => self.leave_group(request, body).await,
                RequestBody::SyncGroup(body) => self.sync_group(request, body).await,
                RequestBody::DescribeGroups(body) => self.describe_groups(request, body).await,
                RequestBody::ListGroups(body) => self.list_groups(request, body).await,
                RequestBody::DeleteGroups(body) => self.delete_groups(request, body).await,
                RequestBody::OffsetDelete(body) => self.offset_delete(request, body).await,
                RequestBody::ConsumerGroupHeartbeat(body) => self.consumer_group_heartbeat(request, body).await,
                RequestBody::ConsumerGroupDescribe(body) => self.consumer_group_describe(request, body).await,
                RequestBody::AddPartitionsToTxn(body) => self.add_partitions_to_txn(request, body).await,
                RequestBody::AddOffsetsToTxn(body) => self.add_offsets_to_txn(request, body).await,
                RequestBody::EndTxn(body) => self.end_txn(request, body).await,
                RequestBody::WriteTxnMarkers(body) => self.write_txn_markers(request, body).await,
                RequestBody::TxnOffsetCommit(body) => self.txn_offset_commit(request, body).await,
                RequestBody::DescribeTransactions(body) => self.describe_transactions(request, body).await,
                RequestBody::ListTransactions(body) => self.list_transactions(request, body).await,
                RequestBody::AlterConfigs(body) => self.alter_configs(request, body).await,
                RequestBody::ElectLeaders(body) => self.elect_leaders(request, body).await,
                RequestBody::AlterPartitionReassignments(body) => {
                    self.alter_partition_reassignments(request, body).await
                }
                RequestBody::ListPartitionReassignments(body) => self.list_partition_reassignments(request, body).await,
                RequestBody::UpdateFeatures(body) => self.update_features(request, body).await,
                RequestBody::UnregisterBroker(body) => self.unregister_broker(request, body).await,
                RequestBody::ListConfigResources(body) => self.list_config_resources(request, body).await,
                RequestBody::DescribeClientQuotas(body) => self.describe_client_quotas(request, body).await,
                RequestBody::AlterClientQuotas(body) => self.alter_client_quotas(request, body).await,
                RequestBody::DescribeUserScramCredentials(body) => {
                    self.describe_user_scram_credentials(request, body).await
                }
                RequestBody::GetTelemetrySubscriptions(body) => self.get_telemetry_subscriptions(request, body).await,
                RequestBody::PushTelemetry(body) => self.push_telemetry(request, body).await,
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
