//! Metadata (key 3): brokers and topics, and the creation of topics that clients merely name.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;

use crate::base::TopicId;
use crate::broker::{CoordinatorKind, NewTopic, is_internal_topic, spread_leaders};
use crate::kafka::{Reply, Request};
use crate::metadata::Topic;
use crate::security::{Operation, Permit, Resource};

use super::create_topics::{CLUSTER_METADATA_TOPIC, check_replication};
use super::picture::{NOBODY, Picture, ids};
use super::{Handlers, errors, text};

/// Version from which topics may be asked for by their ids.
const IDS_SINCE: i16 = 12;
/// Version from which requests have a place for ids, and a name may be null.
const PLACE_FOR_IDS_SINCE: i16 = 10;
/// Version from which a leader without the client's listener has a number of its own.
const LISTENERS_SINCE: i16 = 6;
/// What "no authorized operations were asked for" looks like.
pub(super) const OPERATIONS_OMITTED: i32 = i32::MIN;

impl Handlers {
    pub(super) async fn metadata(&self, request: Request, body: MetadataRequest) -> Reply {
        let version = request.to.version;
        let mut asked = body.topics.iter().flatten();
        if version < PLACE_FOR_IDS_SINCE && asked.any(|topic| topic.name.is_none()) {
            return Reply::close("topics have names before version 10 of Metadata");
        }
        if let Some(refused) = refuse_ids(&body, version) {
            return Reply::encode(request.to, &refused);
        }
        let mut response = MetadataResponse::default();
        let image = self.broker.image();
        let picture = self.picture(&image, &request.context);
        response.brokers = brokers(&picture);
        response.cluster_id = Some(text(image.cluster.to_string()));
        response.controller_id = self.controller(&picture).0.into();
        response.cluster_authorized_operations =
            match body.include_cluster_authorized_operations && (8..=10).contains(&version) {
                true => self.authorizer.authorized_operations(&request.context.principal, Resource::CLUSTER),
                false => OPERATIONS_OMITTED,
            };
        let with_operations = body.include_topic_authorized_operations;
        response.topics = match body.topics {
            // Before version 1 an empty list means all topics; since then only null does.
            Some(named) if !(named.is_empty() && version == 0) => {
                self.named_topics(&request, named, body.allow_auto_topic_creation || version < 4).await
            }
            _ => self.all_topics(&request, &picture),
        };
        for topic in &mut response.topics {
            topic.topic_authorized_operations = match (&topic.name, with_operations) {
                (Some(name), true) if topic.error_code == 0 => {
                    self.authorizer.authorized_operations(&request.context.principal, Resource::topic(name))
                }
                _ => OPERATIONS_OMITTED,
            };
        }
        Reply::encode(request.to, &response)
    }

    fn all_topics(&self, request: &Request, picture: &Picture<'_>) -> Vec<MetadataResponseTopic> {
        let (context, image) = (&request.context, picture.image());
        // Topics that may not be described are left out without a word.
        let visible = image.names.values().filter_map(|id| image.topics.get(id));
        visible
            .filter(|topic| self.permit(context, Operation::Describe, Resource::topic(&topic.name)).is_ok())
            .map(|topic| described(picture, topic, request.to.version))
            .collect()
    }

    async fn named_topics(
        &self,
        request: &Request,
        named: Vec<MetadataRequestTopic>,
        may_create: bool,
    ) -> Vec<MetadataResponseTopic> {
        let mut answers = Vec::with_capacity(named.len());
        let mut seen = HashSet::with_capacity(named.len());
        // As in Kafka: one id, and ids are all that counts. Java's admin client leaves the names empty beside them.
        let by_id = named.iter().any(|asked| !asked.topic_id.is_nil());
        // A topic that is named twice is answered once.
        let key = |asked: &MetadataRequestTopic| (asked.name.clone().filter(|_| !by_id), asked.topic_id);
        for asked in named.into_iter().filter(|asked| seen.insert(key(asked))) {
            let id = TopicId(*asked.topic_id.as_bytes());
            match &asked.name {
                _ if by_id && id.is_zero() => {}
                _ if by_id => answers.push(self.topic_by_id(request, id)),
                Some(name) => answers.push(self.named_topic(request, &name.0, may_create).await),
                None => answers.push(failed(None, id, ResponseError::InvalidRequest)),
            }
        }
        answers
    }

    fn topic_by_id(&self, request: &Request, id: TopicId) -> MetadataResponseTopic {
        let (context, image) = (&request.context, self.broker.image());
        let Some(topic) = image.topics.get(&id) else {
            return failed(None, id, ResponseError::UnknownTopicId);
        };
        match self.permit(context, Operation::Describe, Resource::topic(&topic.name)) {
            Ok(_) => described(&self.picture(&image, context), topic, request.to.version),
            Err(denied) => failed(None, id, errors::denied(&denied)),
        }
    }

    async fn named_topic(&self, request: &Request, name: &StrBytes, may_create: bool) -> MetadataResponseTopic {
        let context = &request.context;
        // The same answer whether the topic exists or not, so that names cannot be probed.
        if let Err(denied) = self.permit(context, Operation::Describe, Resource::topic(name)) {
            return failed(Some(name.clone()), TopicId::default(), errors::denied(&denied));
        }
        let image = self.broker.image();
        if let Some(topic) = image.topic(name) {
            return described(&self.picture(&image, context), topic, request.to.version);
        }
        let settings = self.broker.broker_settings();
        if !(may_create && settings.auto_create_topics) {
            let error = match is_topic_name(name) {
                true => ResponseError::UnknownTopicOrPartition,
                false => ResponseError::InvalidTopicException,
            };
            return failed(Some(name.clone()), TopicId::default(), error);
        }
        match self.permit(context, Operation::Create, Resource::topic(name)) {
            Err(denied) => failed(Some(name.clone()), TopicId::default(), errors::denied(&denied)),
            Ok(permit) => {
                failed(Some(name.clone()), TopicId::default(), self.auto_create(request, &permit, name).await)
            }
        }
    }

    /// Makes the topic. The answer is still "unknown": clients ask again, as they do of a real broker.
    async fn auto_create(&self, request: &Request, permit: &Permit, name: &str) -> ResponseError {
        if !is_topic_name(name) {
            return ResponseError::InvalidTopicException;
        }
        if name == CLUSTER_METADATA_TOPIC {
            return ResponseError::UnknownTopicOrPartition;
        }
        // Whoever names a coordinator's topic first gets it as the coordinator wants it.
        if let Some(kind) = CoordinatorKind::of_topic(name) {
            let made = self.broker.create_internal_topic(permit, kind).await;
            return made.map_or(ResponseError::CoordinatorNotAvailable, |()| ResponseError::UnknownTopicOrPartition);
        }
        let settings = self.broker.broker_settings();
        let image = self.broker.image();
        let replication_factor = settings.default_replication_factor;
        if let Err(refusal) = check_replication(replication_factor, &image) {
            tracing::info!(topic = name, reason = refusal.message, "a topic named by a client was not created");
            return refusal.error;
        }
        let partitions = usize::try_from(settings.num_partitions).unwrap_or(1);
        let topic = NewTopic {
            name: name.to_owned(),
            leaders: spread_leaders(&image, None, partitions),
            replication_factor,
            configs: Vec::new(),
        };
        // Nothing in the answer could refuse it: whoever creates too much this way waits afterwards.
        if let Some(meter) = &request.meter {
            let _ = meter.mutate(topic.leaders.len(), false);
        }
        if let Err(error) = self.broker.create_topic(permit, topic).await {
            tracing::info!(topic = name, %error, "a topic named by a client was not created");
        }
        ResponseError::UnknownTopicOrPartition
    }
}

/// Topics can be asked for by their ids since version 12 only, although requests have a place for them since 10. The whole
/// request is refused then, in the form in which Kafka refuses one: without brokers.
fn refuse_ids(body: &MetadataRequest, version: i16) -> Option<MetadataResponse> {
    let named = body.topics.as_ref().filter(|_| version < IDS_SINCE)?;
    if named.iter().all(|topic| topic.name.is_some() && topic.topic_id.is_nil()) {
        return None;
    }
    let refused = named.iter().map(|topic| {
        // Before version 12 a name cannot be null.
        let name = topic.name.clone().unwrap_or_default().0;
        failed(Some(name), TopicId(*topic.topic_id.as_bytes()), ResponseError::InvalidRequest)
    });
    let mut response = MetadataResponse::default();
    response.topics = refused.collect();
    Some(response)
}

/// Whether a topic may have this name.
pub(super) fn is_topic_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.chars().all(allowed)
}

fn brokers(picture: &Picture<'_>) -> Vec<MetadataResponseBroker> {
    let live = picture.brokers().filter(|broker| !broker.fenced);
    live.map(|shown| {
        let mut broker = MetadataResponseBroker::default();
        broker.node_id = shown.node.0.into();
        broker.host = text(&*shown.endpoint.host);
        broker.port = i32::from(shown.endpoint.port);
        broker.rack = shown.rack.map(text);
        broker
    })
    .collect()
}

fn failed(name: Option<StrBytes>, id: TopicId, error: ResponseError) -> MetadataResponseTopic {
    let mut topic = MetadataResponseTopic::default();
    topic.name = name.map(kafka_protocol::messages::TopicName);
    topic.topic_id = uuid::Uuid::from_bytes(id.0);
    topic.error_code = error.code();
    topic
}

fn described(picture: &Picture<'_>, topic: &Topic, version: i16) -> MetadataResponseTopic {
    let mut answer = MetadataResponseTopic::default();
    answer.name = Some(kafka_protocol::messages::TopicName(text(&*topic.name)));
    answer.topic_id = uuid::Uuid::from_bytes(topic.id.0);
    answer.is_internal = is_internal_topic(&topic.name);
    answer.partitions = (0..)
        .zip(&topic.partitions)
        .map(|(index, partition)| {
            let shown = picture.partition(topic, partition);
            let mut answer = MetadataResponsePartition::default();
            answer.error_code = shown.error.map_or(0, |error| unavailable(error, version).code());
            answer.partition_index = index;
            answer.leader_id = shown.leader.map_or(NOBODY, |leader| leader.0).into();
            answer.leader_epoch = shown.leader_epoch.0;
            answer.replica_nodes = ids(&shown.replicas);
            answer.isr_nodes = ids(&shown.isr);
            answer.offline_replicas = ids(&shown.offline);
            answer
        })
        .collect();
    answer
}

/// Old clients know no listener that a leader lacks.
fn unavailable(error: ResponseError, version: i16) -> ResponseError {
    if version >= LISTENERS_SINCE { error } else { ResponseError::LeaderNotAvailable }
}
