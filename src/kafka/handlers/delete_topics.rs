//! DeleteTopics (key 20): topics by name or by id.

use std::sync::Arc;

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::base::TopicId;
use crate::kafka::{Reply, Request};
use crate::metadata::{Image, Topic};
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

/// Since this version a request over its quota is refused (KIP-599).
const STRICT_QUOTA_SINCE: i16 = 5;
/// Since this version a refusal to delete anything has a number of its own.
const DELETION_DISABLED_SINCE: i16 = 3;

/// A topic as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    ByName(StrBytes),
    ById(Uuid),
    /// In both ways, or in none.
    Wrongly {
        name: Option<StrBytes>,
        id: Uuid,
    },
}

impl Handlers {
    pub(super) async fn delete_topics(&self, request: Request, body: DeleteTopicsRequest) -> Reply {
        let mut response = DeleteTopicsResponse::default();
        let image = self.broker.image();
        let allowed = self.broker.broker_settings().delete_topics;
        for (named, fault) in judged(named(body), &image) {
            let result = match fault {
                _ if !allowed && request.to.version >= DELETION_DISABLED_SINCE => {
                    Err((None, ResponseError::TopicDeletionDisabled.into()))
                }
                _ if !allowed => Err((None, Refusal::invalid("Topic deletion is disabled."))),
                Some(refusal) => Err((None, refusal)),
                None => self.delete_one(&request, &named, &image).await,
            };
            let answer = answer(named, result);
            self.count(&request, answer.error_code);
            response.responses.push(answer);
        }
        Reply::encode(request.to, &response)
    }

    /// With the refusal of a topic named by id comes its name, where the client may know it.
    async fn delete_one(
        &self,
        request: &Request,
        named: &Named,
        image: &Image,
    ) -> Result<Arc<Topic>, (Option<StrBytes>, Refusal)> {
        let found = match named {
            Named::ByName(name) => image.topic(name),
            Named::ById(id) => image.topics.get(&TopicId(*id.as_bytes())),
            Named::Wrongly { .. } => return Err((None, ResponseError::InvalidRequest.into())),
        };
        let context = &request.context;
        // A name is judged before it is looked up: the same answer whether the topic exists or not.
        let (name, unknown) = match (named, found) {
            (Named::ByName(name), _) => (&**name, ResponseError::UnknownTopicOrPartition),
            (_, Some(topic)) => (&*topic.name, ResponseError::UnknownTopicId),
            (_, None) => return Err((None, ResponseError::UnknownTopicId.into())),
        };
        let permit = self.permit(context, Operation::Delete, Resource::topic(name)).map_err(|denied| {
            let known = self.permit(context, Operation::Describe, Resource::topic(name)).is_ok();
            // Words would tell the name.
            (known.then(|| text(name)), Refusal { message: None, ..denied.into() })
        })?;
        let found = found.ok_or((None, unknown.into()))?;
        let charged = Self::charge(request, found.partitions.len(), STRICT_QUOTA_SINCE);
        charged.map_err(|refusal| (Some(text(&*found.name)), refusal))?;
        self.broker.delete_topic(&permit, found.id).await.map_err(|error| (None, error.into()))?;
        Ok(found.clone())
    }
}

fn answer(named: Named, result: Result<Arc<Topic>, (Option<StrBytes>, Refusal)>) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default().with_error_message(None);
    let (name, refusal) = match result {
        Ok(topic) => {
            let name = Some(TopicName(text(&*topic.name)));
            return answer.with_name(name).with_topic_id(Uuid::from_bytes(topic.id.0));
        }
        Err(refused) => refused,
    };
    let (name, id) = match named {
        Named::ByName(name) => (Some(name), Uuid::nil()),
        Named::ById(id) => (name, id),
        Named::Wrongly { name, id } => (name, id),
    };
    answer
        .with_name(name.map(TopicName))
        .with_topic_id(id)
        .with_error_code(refusal.code())
        .with_error_message(refusal.text())
}

fn named(body: DeleteTopicsRequest) -> Vec<Named> {
    let by_name = body.topic_names.into_iter().map(|name| Named::ByName(name.0));
    let either = body.topics.into_iter().map(|topic| match (topic.name, topic.topic_id) {
        (Some(name), id) if id.is_nil() => Named::ByName(name.0),
        (None, id) if !id.is_nil() => Named::ById(id),
        (name, id) => Named::Wrongly { name: name.map(|n| n.0), id },
    });
    by_name.chain(either).collect()
}

/// Each topic once, with what is wrong with the way in which it is named.
fn judged(named: Vec<Named>, image: &Image) -> Vec<(Named, Option<Refusal>)> {
    let mut times: IndexMap<Named, usize> = IndexMap::new();
    for topic in named {
        *times.entry(topic).or_default() += 1;
    }
    let fault = |topic: &Named, count: usize| match topic {
        Named::ById(_) if count > 1 => Some("Duplicate topic id."),
        Named::ByName(_) if count > 1 => Some("Duplicate topic name."),
        Named::ByName(_) if other_way(topic, image).is_some_and(|other| times.contains_key(&other)) => {
            Some("The provided topic name maps to an ID that was already supplied.")
        }
        Named::Wrongly { name: Some(_), .. } => Some("You may not specify both topic name and topic id."),
        Named::Wrongly { name: None, .. } => Some("Neither topic name nor id were specified."),
        Named::ById(_) | Named::ByName(_) => None,
    };
    let mut judged = Vec::with_capacity(times.len());
    for (topic, count) in &times {
        let id_beside_name =
            matches!(topic, Named::ById(_)) && other_way(topic, image).is_some_and(|other| times.contains_key(&other));
        // Of a topic that is named in both ways, the name is answered.
        if *count > 1 || !id_beside_name {
            judged.push((topic.clone(), fault(topic, *count).map(Refusal::invalid)));
        }
    }
    judged
}

/// An existing topic by its id instead of its name, or the other way round.
fn other_way(topic: &Named, image: &Image) -> Option<Named> {
    match topic {
        Named::ByName(name) => image.names.get(&**name).map(|id| Named::ById(Uuid::from_bytes(id.0))),
        Named::ById(id) => image.topics.get(&TopicId(*id.as_bytes())).map(|t| Named::ByName(text(&*t.name))),
        Named::Wrongly { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn image(name: &str, id: TopicId) -> Image {
        let name: Arc<str> = name.into();
        let topic = Topic {
            id,
            name: name.clone(),
            replication_factor: 1,
            configs: BTreeMap::new(),
            partitions: Vec::new(),
            created_ms: 0,
        };
        Image {
            topics: Arc::new(BTreeMap::from([(id, Arc::new(topic))])),
            names: Arc::new(BTreeMap::from([(name, id)])),
            ..Image::default()
        }
    }

    /// As a real Kafka 4.3.1 answered, each topic at most once.
    #[test]
    fn a_topic_is_named_once_and_in_one_way() {
        let image = image("a", TopicId([7; 16]));
        let (a, other) = (Uuid::from_bytes([7; 16]), Uuid::from_bytes([9; 16]));
        let name = |name: &str| Named::ByName(text(name));
        let both = Named::Wrongly { name: Some(text("a")), id: a };
        for (named, expected) in [
            (vec![name("a"), name("b")], vec![None, None]),
            (vec![name("a"), name("b"), name("a")], vec![Some("Duplicate topic name."), None]),
            (vec![Named::ById(a), Named::ById(a), Named::ById(other)], vec![Some("Duplicate topic id."), None]),
            (
                vec![Named::ById(a), name("a")],
                vec![Some("The provided topic name maps to an ID that was already supplied.")],
            ),
            (vec![both], vec![Some("You may not specify both topic name and topic id.")]),
            (
                vec![Named::Wrongly { name: None, id: Uuid::nil() }],
                vec![Some("Neither topic name nor id were specified.")],
            ),
        ] {
            let faults: Vec<_> = judged(named, &image).into_iter().map(|(_, fault)| fault).collect();
            assert_eq!(faults, expected.into_iter().map(|e| e.map(Refusal::invalid)).collect::<Vec<_>>());
        }
    }
}
