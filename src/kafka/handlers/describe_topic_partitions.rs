//! DescribeTopicPartitions (key 75, KIP-966): topics by name, in pages of a bounded number of partitions.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};

use crate::broker::is_internal_topic;
use crate::kafka::{ConnectionContext, Reply, Request};
use crate::metadata::{Image, Partition, Topic};
use crate::security::{Operation, Resource};

use super::administer::check_topic_name;
use super::metadata::OPERATIONS_OMITTED;
use super::picture::{NOBODY, Picture, ids};
use super::{Handlers, errors, text};

/// A topic that was asked for, and what is known of it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    name: &'a str,
    topic: Option<&'a Arc<Topic>>,
}

impl Asked<'_> {
    fn partitions(&self) -> usize {
        self.topic.map_or(0, |topic| topic.partitions.len())
    }
}

impl Handlers {
    pub(super) fn describe_topic_partitions(&self, request: Request, body: DescribeTopicPartitionsRequest) -> Reply {
        let mut response = DescribeTopicPartitionsResponse::default();
        if let Some(names) = misplaced_cursor(&body) {
            response.topics = names.into_iter().map(|name| failed(name, ResponseError::InvalidRequest)).collect();
        } else {
            self.describe_page(&request.context, &body, &mut response);
        }
        for topic in &response.topics {
            self.count(&request, topic.error_code);
        }
        Reply::encode(request.to, &response)
    }

    fn describe_page(
        &self,
        context: &ConnectionContext,
        body: &DescribeTopicPartitionsRequest,
        response: &mut DescribeTopicPartitionsResponse,
    ) {
        let image = self.broker.image();
        let (from, first) = match &body.cursor {
            Some(cursor) => (&**cursor.topic_name, usize::try_from(cursor.partition_index).unwrap_or(0)),
            None => ("", 0),
        };
        let limit = limit(body.response_partition_limit, self.broker.broker_settings().described_partitions_max);
        let may_describe = |name: &str| self.permit(context, Operation::Describe, Resource::topic(name)).map(drop);
        let start = |asked: Asked<'_>| if asked.name == from { first } else { 0 };
        let sized = |asked| (asked, start(asked), asked.partitions());
        let (page, next) = if body.topics.is_empty() {
            // Topics that may not be described are left out without a word.
            let visible = all(&image, from).filter(|asked| may_describe(asked.name).is_ok());
            take(visible.map(sized), limit)
        } else {
            let names: BTreeSet<&str> = body.topics.iter().map(|topic| &**topic.name).collect();
            let mut visible = Vec::with_capacity(names.len());
            for name in names.range(from..) {
                match may_describe(name) {
                    Ok(()) => visible.push(Asked { name, topic: image.topic(name) }),
                    Err(denied) => response.topics.push(failed(TopicName(text(*name)), errors::denied(&denied))),
                }
            }
            take(visible.into_iter().map(sized), limit)
        };
        let picture = self.picture(&image, context);
        let described = page.into_iter().map(|(asked, range)| self.described(context, &picture, asked, range));
        // Those that are refused come last.
        response.topics.splice(0..0, described);
        response.next_cursor = next.map(|(asked, index)| {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            Cursor::default().with_topic_name(TopicName(text(asked.name))).with_partition_index(index)
        });
    }

    fn described(
        &self,
        context: &ConnectionContext,
        picture: &Picture<'_>,
        asked: Asked<'_>,
        range: Range<usize>,
    ) -> DescribeTopicPartitionsResponseTopic {
        let name = TopicName(text(asked.name));
        let answer = match asked.topic {
            None => failed(name, check_topic_name(asked.name).err().map_or(UNKNOWN, |refusal| refusal.error)),
            Some(topic) => {
                let partitions = topic.partitions.iter().enumerate().skip(range.start).take(range.len());
                DescribeTopicPartitionsResponseTopic::default()
                    .with_name(Some(name))
                    .with_topic_id(uuid::Uuid::from_bytes(topic.id.0))
                    .with_is_internal(is_internal_topic(&topic.name))
                    .with_partitions(partitions.map(|(index, p)| described(picture, topic, index, p)).collect())
            }
        };
        // They are not asked for: this API always has them.
        let operations = self.authorizer.authorized_operations(&context.principal, Resource::topic(asked.name));
        answer.with_topic_authorized_operations(operations)
    }
}

const UNKNOWN: ResponseError = ResponseError::UnknownTopicOrPartition;

/// All topics from a name on, in the order of their names.
fn all<'a>(image: &'a Image, from: &str) -> impl Iterator<Item = Asked<'a>> {
    let names = image.names.range::<str, _>((Bound::Included(from), Bound::Unbounded));
    names.map(|(name, id)| Asked { name, topic: image.topics.get(id) })
}

/// Of a request whose cursor points nowhere: the topics that it is refused for.
fn misplaced_cursor(body: &DescribeTopicPartitionsRequest) -> Option<Vec<TopicName>> {
    let cursor = body.cursor.as_ref()?;
    let listed = body.topics.is_empty() || body.topics.iter().any(|topic| topic.name == cursor.topic_name);
    if listed && cursor.partition_index >= 0 {
        return None;
    }
    let mut names: Vec<_> = body.topics.iter().map(|topic| topic.name.clone()).collect();
    if names.is_empty() {
        // There is no place for an error but a topic's.
        names.push(cursor.topic_name.clone());
    }
    Some(names)
}

/// Partitions in one answer, at least one.
fn limit(asked: i32, allowed: usize) -> usize {
    usize::try_from(asked).unwrap_or(0).min(allowed).max(1)
}

/// Topics, each with those of its partitions that are shown.
type Page<T> = Vec<(T, Range<usize>)>;

/// A page of at most `limit` partitions. Of each topic comes its first wanted partition and its number of them.
/// Answers what is in the page, and where the next one begins.
fn take<T: Copy>(topics: impl Iterator<Item = (T, usize, usize)>, limit: usize) -> (Page<T>, Option<(T, usize)>) {
    let (mut page, mut left) = (Vec::new(), limit);
    for (topic, first, count) in topics {
        if left == 0 {
            return (page, Some((topic, first)));
        }
        let first = first.min(count);
        let end = count.min(first.saturating_add(left));
        left -= end - first;
        page.push((topic, first..end));
        if end < count {
            return (page, Some((topic, end)));
        }
    }
    (page, None)
}

fn described(
    picture: &Picture<'_>,
    topic: &Topic,
    index: usize,
    partition: &Partition,
) -> DescribeTopicPartitionsResponsePartition {
    let shown = picture.partition(topic, partition);
    // This API says of a partition without a leader only that: no number, as in Kafka.
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
        .with_leader_id(shown.leader.map_or(NOBODY, |leader| leader.0).into())
        .with_leader_epoch(shown.leader_epoch.0)
        .with_replica_nodes(ids(&shown.replicas))
        .with_isr_nodes(ids(&shown.isr))
        // Who is not in sync has none of the log: never eligible.
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(ids(&shown.offline))
}

fn failed(name: TopicName, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(name))
        .with_error_code(error.code())
        .with_topic_authorized_operations(OPERATIONS_OMITTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_at_least_one() {
        for (asked, allowed, expected) in [(5, 2000, 5), (5000, 2000, 2000), (0, 2000, 1), (-1, 2000, 1), (5, 0, 1)] {
            assert_eq!(limit(asked, allowed), expected);
        }
    }

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn pages_end_where_the_next_begins() {
        let topics = [('a', 5), ('c', 1), ('d', 0), ('e', 2)];
        let page = |from: char, first: usize, limit: usize| {
            let (page, next) = take(
                topics
                    .iter()
                    .filter(|(name, _)| *name >= from)
                    .map(|(name, count)| (*name, if *name == from { first } else { 0 }, *count)),
                limit,
            );
            let page: Vec<_> = page.into_iter().map(|(name, range)| (name, range.start, range.end)).collect();
            (page, next)
        };
        assert_eq!(page('a', 0, 3), (vec![('a', 0, 3)], Some(('a', 3))));
        assert_eq!(page('a', 3, 3), (vec![('a', 3, 5), ('c', 0, 1)], Some(('d', 0))));
        assert_eq!(page('a', 0, 5), (vec![('a', 0, 5)], Some(('c', 0))));
        assert_eq!(page('b', 2, 4), (vec![('c', 0, 1), ('d', 0, 0), ('e', 0, 2)], None));
        assert_eq!(page('a', 50, 2), (vec![('a', 5, 5), ('c', 0, 1), ('d', 0, 0), ('e', 0, 1)], Some(('e', 1))));
        assert_eq!(page('z', 0, 2), (vec![], None));
    }

    #[test]
    fn pages_put_together_are_everything_once() {
        let topics: Vec<(usize, usize)> = (0..20).map(|i| (i, i * 7 % 5)).collect();
        let (mut seen, mut cursor) = (Vec::new(), Some((0, 0)));
        while let Some((from, first)) = cursor {
            let sized = topics[from..].iter().map(|(i, count)| (*i, if *i == from { first } else { 0 }, *count));
            let (page, next) = take(sized, 3);
            assert!(page.iter().map(|(_, range)| range.len()).sum::<usize>() <= 3);
            seen.extend(page.into_iter().flat_map(|(i, range)| range.map(move |partition| (i, partition))));
            cursor = next;
        }
        let expected: Vec<_> = topics.iter().flat_map(|(i, count)| (0..*count).map(move |p| (*i, p))).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_cursor_has_to_point_into_what_is_asked_for() {
        use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
        let name = |name: &str| TopicName(text(name));
        let body = |topics: &[&str], (topic, index): (&str, i32)| {
            DescribeTopicPartitionsRequest::default()
                .with_topics(topics.iter().map(|t| TopicRequest::default().with_name(name(t))).collect())
                .with_cursor(Some(Cursor::default().with_topic_name(name(topic)).with_partition_index(index)))
        };
        assert_eq!(misplaced_cursor(&body(&[], ("a", 0))), None);
        assert_eq!(misplaced_cursor(&body(&["a"], ("a", 3))), None);
        assert_eq!(misplaced_cursor(&body(&["a", "b"], ("c", 0))), Some(vec![name("a"), name("b")]));
        assert_eq!(misplaced_cursor(&body(&["a"], ("a", -1))), Some(vec![name("a")]));
        assert_eq!(misplaced_cursor(&body(&[], ("a", -1))), Some(vec![name("a")]));
    }
}
