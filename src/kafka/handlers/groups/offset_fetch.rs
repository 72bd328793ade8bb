//! OffsetFetch (key 9): one group before version 8, many after.

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use crate::base::TopicId;
use crate::group::{self, FetchTopic, FetchedTopic, OffsetFetch};
use crate::kafka::handlers::room::Room;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, UNKNOWN_TOPIC_ID, code, owned, topic_id, wire_id};

const MANY_SINCE: i16 = 8;
/// Versions below say an error of the group with each partition only.
const ERROR_SINCE: i16 = 2;
/// Version from which null asks for all that a group has committed.
const ALL_SINCE: i16 = 2;
const EPOCH_SINCE: i16 = 5;
const IDS_SINCE: i16 = 10;

/// What one group is answered.
struct Fetched {
    error: i16,
    topics: Vec<FetchedPart>,
}

struct FetchedPart {
    name: String,
    id: TopicId,
    /// Partition, error, offset, leader epoch, metadata.
    partitions: Vec<(i32, i16, i64, i32, String)>,
}

impl Handlers {
    pub(in crate::kafka::handlers) async fn offset_fetch(&self, request: Request, body: OffsetFetchRequest) -> Reply {
        let version = request.to.version;
        if version < ALL_SINCE && body.topics.is_none() {
            return Reply::close("version 1 of OffsetFetch cannot ask for all topics");
        }
        let mut response = OffsetFetchResponse::default();
        if version >= MANY_SINCE {
            let mut room = Room::new(&request);
            for group in body.groups {
                let topics = group.topics.map(|topics| {
                    let named = topics.into_iter().map(|t| FetchTopic {
                        name: t.name.to_string(),
                        id: if version >= IDS_SINCE { topic_id(t.topic_id) } else { TopicId::default() },
                        partitions: t.partition_indexes,
                    });
                    named.collect()
                });
                let fetch = OffsetFetch {
                    group: group.group_id.to_string(),
                    member: owned(group.member_id),
                    member_epoch: group.member_epoch,
                    topics,
                    require_stable: body.require_stable,
                };
                let fetched = self.fetch_offsets(&request, fetch).await;
                self.count_code(&request, fetched.error);
                let answer = room.take(many(group.group_id.clone(), fetched, version));
                let refused =
                    |code| OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(code);
                response.groups.push(answer.unwrap_or_else(refused));
            }
        } else {
            let topics = body.topics.map(|topics| {
                let named = topics.into_iter().map(|t| FetchTopic {
                    name: t.name.to_string(),
                    id: TopicId::default(),
                    partitions: t.partition_indexes,
                });
                named.collect::<Vec<_>>()
            });
            let fetch = OffsetFetch {
                group: body.group_id.to_string(),
                member: None,
                member_epoch: -1,
                topics: topics.clone(),
                require_stable: body.require_stable,
            };
            let fetched = self.fetch_offsets(&request, fetch).await;
            self.count_code(&request, fetched.error);
            one(&mut response, fetched, topics.unwrap_or_default(), version);
        }
        Reply::encode(request.to, &response)
    }

    async fn fetch_offsets(&self, request: &Request, mut fetch: OffsetFetch) -> Fetched {
        let group = fetch.group.clone();
        let permit = match self.group_permit(request, Operation::Describe, &group) {
            Ok(permit) => permit,
            Err(error) => return Fetched { error, topics: Vec::new() },
        };
        let by_id = request.to.version >= IDS_SINCE;
        let image = self.broker.image();
        // What is refused is answered here, in its place among the others.
        let mut refused = Vec::new();
        if let Some(topics) = &mut fetch.topics {
            let mut asked = Vec::new();
            for (place, mut topic) in std::mem::take(topics).into_iter().enumerate() {
                if by_id && let Some(found) = image.topics.get(&topic.id) {
                    topic.name = found.name.to_string();
                }
                let refusal = match by_id && !image.topics.contains_key(&topic.id) {
                    true => Some(UNKNOWN_TOPIC_ID),
                    false => self.topic_refusal(request, Operation::Describe, &topic.name),
                };
                match refusal {
                    Some(code) => refused.push((place, refused_part(topic, code))),
                    None => asked.push(topic),
                }
            }
            *topics = asked;
        }
        let all = fetch.topics.is_none();
        match self.ask_group(&permit, &group, group::Request::OffsetFetch(fetch)).await {
            Ok(group::Reply::OffsetFetch(reply)) => {
                let mut topics: Vec<_> = reply.topics.into_iter().map(part).collect();
                if all {
                    topics.retain(|t| self.topic_refusal(request, Operation::Describe, &t.name).is_none());
                    for topic in &mut topics {
                        topic.id = image.names.get(topic.name.as_str()).copied().unwrap_or_default();
                    }
                }
                let error = code(reply.error);
                if error == 0 {
                    refused.into_iter().for_each(|(place, part)| topics.insert(place.min(topics.len()), part));
                }
                Fetched { error, topics }
            }
            Ok(_) => Fetched { error: UNEXPECTED, topics: Vec::new() },
            Err(error) => Fetched { error, topics: Vec::new() },
        }
    }
}

fn refused_part(topic: FetchTopic, code: i16) -> FetchedPart {
    let partitions = topic.partitions.into_iter().map(|index| (index, code, -1, -1, String::new())).collect();
    FetchedPart { name: topic.name, id: topic.id, partitions }
}

fn part(topic: FetchedTopic) -> FetchedPart {
    let partitions = topic.partitions.into_iter();
    let partitions = partitions.map(|p| (p.partition, code(p.error), p.offset, p.leader_epoch, p.metadata)).collect();
    FetchedPart { name: topic.name, id: topic.id, partitions }
}

fn many(group: GroupId, fetched: Fetched, version: i16) -> OffsetFetchResponseGroup {
    let mut answered = OffsetFetchResponseGroup::default();
    answered.group_id = group;
    answered.error_code = fetched.error;
    for topic in fetched.topics {
        let mut answer = OffsetFetchResponseTopics::default();
        match version >= IDS_SINCE {
            true => answer.topic_id = wire_id(topic.id),
            false => answer.name = TopicName(text(topic.name)),
        }
        for (index, error, offset, epoch, metadata) in topic.partitions {
            let mut partition = OffsetFetchResponsePartitions::default();
            partition.partition_index = index;
            partition.error_code = error;
            partition.committed_offset = offset;
            partition.committed_leader_epoch = epoch;
            partition.metadata = Some(text(metadata));
            answer.partitions.push(partition);
        }
        answered.topics.push(answer);
    }
    answered
}

fn one(response: &mut OffsetFetchResponse, fetched: Fetched, asked: Vec<FetchTopic>, version: i16) {
    let mut topics = fetched.topics;
    if fetched.error != 0 {
        if version >= ERROR_SINCE {
            response.error_code = fetched.error;
        }
        topics = match version >= ERROR_SINCE {
            true => Vec::new(),
            false => asked.into_iter().map(|topic| refused_part(topic, fetched.error)).collect(),
        };
    }
    for topic in topics {
        let mut answer = OffsetFetchResponseTopic::default();
        answer.name = TopicName(text(topic.name));
        for (index, error, offset, epoch, metadata) in topic.partitions {
            let mut partition = OffsetFetchResponsePartition::default();
            partition.partition_index = index;
            partition.error_code = error;
            partition.committed_offset = offset;
            if version >= EPOCH_SINCE {
                partition.committed_leader_epoch = epoch;
            }
            partition.metadata = Some(text(metadata));
            answer.partitions.push(partition);
        }
        response.topics.push(answer);
    }
}
