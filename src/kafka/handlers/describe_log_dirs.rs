//! DescribeLogDirs (key 35): bytes of each partition, in the one folder that this node has.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::base::PartitionId;
use crate::kafka::{Reply, Request};
use crate::metadata::Topic;
use crate::security::{Operation, Permit, Resource};

use super::{Handlers, errors, text};

/// The partitions that are asked for, by topic; `None` is all.
type Wanted = Option<HashMap<StrBytes, HashSet<i32>>>;

impl Handlers {
    pub(super) fn describe_log_dirs(&self, request: Request, body: DescribeLogDirsRequest) -> Reply {
        let mut response = DescribeLogDirsResponse::default();
        match self.permit(&request.context, Operation::Describe, Resource::CLUSTER) {
            Err(denied) => {
                response.error_code = errors::denied(&denied).code();
                self.count(&request, response.error_code);
            }
            // The size of the volume stays "unknown": what it has room for is the WAL, not the partitions.
            Ok(permit) => response.results.push(
                DescribeLogDirsResult::default()
                    .with_log_dir(text(self.broker.data_folder()))
                    .with_topics(self.sizes(&permit, &wanted(body.topics))),
            ),
        }
        Reply::encode(request.to, &response)
    }

    /// Sizes of what is led here and wanted, by the names of the topics.
    fn sizes(&self, permit: &Permit, wanted: &Wanted) -> Vec<DescribeLogDirsTopic> {
        let image = self.broker.image();
        let topics = image.names.values().filter_map(|id| image.topics.get(id));
        let described = topics.filter_map(|topic| {
            let indexes = match wanted {
                None => None,
                Some(wanted) => Some(wanted.get(topic.name.as_bytes())?),
            };
            let partitions = self.sizes_of(permit, topic, indexes);
            let name = TopicName(text(&*topic.name));
            (!partitions.is_empty())
                .then(|| DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions))
        });
        described.collect()
    }

    fn sizes_of(
        &self,
        permit: &Permit,
        topic: &Topic,
        indexes: Option<&HashSet<i32>>,
    ) -> Vec<DescribeLogDirsPartition> {
        let wanted = (0..).zip(&topic.partitions).filter(|(index, _)| indexes.is_none_or(|i| i.contains(index)));
        let sized = wanted.filter_map(|(index, partition)| {
            let bytes = self.broker.partition_bytes(permit, PartitionId { topic: topic.id, index }, partition)?;
            let size = i64::try_from(bytes).unwrap_or(i64::MAX);
            Some(DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(size))
        });
        sized.collect()
    }
}

fn wanted(topics: Option<Vec<DescribableLogDirTopic>>) -> Wanted {
    let mut wanted: HashMap<StrBytes, HashSet<i32>> = HashMap::new();
    for topic in topics? {
        wanted.entry(topic.topic.0).or_default().extend(topic.partitions);
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_may_be_named_twice_and_null_is_all() {
        let topic = |name: &str, partitions: &[i32]| {
            DescribableLogDirTopic::default().with_topic(TopicName(text(name))).with_partitions(partitions.to_vec())
        };
        assert_eq!(wanted(None), None);
        assert_eq!(wanted(Some(vec![])), Some(HashMap::new()));
        let both = wanted(Some(vec![topic("a", &[0, 1]), topic("a", &[1, 2])]));
        assert_eq!(both, Some(HashMap::from([(text("a"), HashSet::from([0, 1, 2]))])));
    }
}
