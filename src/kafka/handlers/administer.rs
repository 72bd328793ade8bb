//! The administrative APIs: which handler answers which, and what their answers have in common.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::broker::ChangeError;
use crate::kafka::{Reply, Request, RequestBody};
use crate::security::Denied;

use super::metadata::is_topic_name;
use super::{Handlers, errors, text};

/// Characters of a message in an answer. It may quote what a client sent, and old versions take 32,767 bytes at most.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// Why one item of a request is refused, as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub error: ResponseError,
    /// None leaves the words to the client, which has some for every number.
    pub message: Option<String>,
}

impl Refusal {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal { error, message: Some(message.into()) }
    }

    /// 42, for what no version of the request should hold.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(ResponseError::InvalidRequest, message)
    }

    pub fn code(&self) -> i16 {
        self.error.code()
    }

    pub fn text(&self) -> Option<StrBytes> {
        self.message.as_ref().map(|message| text(message.chars().take(MESSAGE_CHARS_MAX).collect::<String>()))
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Refusal {
        Refusal { error, message: None }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        Refusal::new(errors::denied(&denied), denied.to_string())
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Refusal {
        Refusal::new(errors::change(&error), error.to_string())
    }
}

/// The rules of topic names, with what is wrong in Kafka's words.
pub(super) fn check_topic_name(name: &str) -> Result<(), Refusal> {
    let fault = match name {
        _ if is_topic_name(name) => return Ok(()),
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > 249 => format!("the length of '{name}' is longer than the max allowed length 249"),
        _ => format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
    };
    Err(Refusal::new(ResponseError::InvalidTopicException, format!("Topic name is invalid: {fault}")))
}

/// The number and the words of an outcome.
pub(super) fn outcome<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(refusal) => (refusal.code(), refusal.text()),
    }
}

impl Handlers {
    /// Answers every API that has no word of its own in the dispatch.
    pub(super) async fn administer(&self, request: Request, body: RequestBody) -> Reply {
        match body {
            RequestBody::CreateTopics(body) => self.create_topics(request, body).await,
            RequestBody::DeleteTopics(body) => self.delete_topics(request, body).await,
            RequestBody::CreatePartitions(body) => self.create_partitions(request, body).await,
            RequestBody::DeleteRecords(body) => self.delete_records(request, body).await,
            RequestBody::DescribeConfigs(body) => self.describe_configs(request, body),
            RequestBody::IncrementalAlterConfigs(body) => self.incremental_alter_configs(request, body).await,
            RequestBody::DescribeCluster(body) => self.describe_cluster(request, body),
            RequestBody::DescribeTopicPartitions(body) => self.describe_topic_partitions(request, body),
            RequestBody::DescribeLogDirs(body) => self.describe_log_dirs(request, body),
            RequestBody::DescribeQuorum(body) => self.describe_quorum(request, body).await,
            RequestBody::DescribeProducers(body) => self.describe_producers(request, body).await,
            _ => Reply::close("no handler answers this API"),
        }
    }

    /// Asks for leave to create or delete `partitions`. Since version `strict_since` of its API a request can be
    /// refused (KIP-599); older ones are made to wait.
    pub(super) fn charge(request: &Request, partitions: usize, strict_since: i16) -> Result<(), Refusal> {
        let charged = request.meter.as_ref().map(|meter| meter.mutate(partitions, request.to.version >= strict_since));
        match charged {
            Some(Err(_)) => Err(ResponseError::ThrottlingQuotaExceeded.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Counts the number of an answer, if it is one of an error.
    pub(super) fn count(&self, request: &Request, code: i16) {
        if code != 0 {
            self.metrics.count_error(request.to.api, code);
        }
    }
}

/// An image with one broker and one topic.
#[cfg(test)]
pub(super) fn one_topic(name: &str, partitions: usize) -> crate::metadata::Image {
    use crate::base::{NodeId, TopicId};
    use crate::metadata::{Image, Partition, Topic};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    let (name, id): (Arc<str>, _) = (name.into(), TopicId([7; 16]));
    let topic = Topic {
        id,
        name: name.clone(),
        replication_factor: 1,
        configs: BTreeMap::new(),
        partitions: (0..partitions).map(|_| Arc::new(Partition::new(NodeId(1)))).collect(),
        created_ms: 0,
    };
    let mut brokers = super::picture_tests::three_brokers(&[]).brokers;
    brokers.retain(|node, _| *node == NodeId(1));
    Image {
        brokers,
        topics: Arc::new(BTreeMap::from([(id, Arc::new(topic))])),
        names: Arc::new(BTreeMap::from([(name, id)])),
        ..Image::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_name_is_said_as_kafka_says_it() {
        let long = "x".repeat(250);
        for (name, fault) in [
            ("", "the empty string is not allowed"),
            ("..", "'..' is not allowed"),
            ("a b", "'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
            (&long, &format!("the length of '{long}' is longer than the max allowed length 249")),
        ] {
            let refusal = check_topic_name(name).unwrap_err();
            assert_eq!(refusal.error, ResponseError::InvalidTopicException);
            assert_eq!(refusal.message.unwrap(), format!("Topic name is invalid: {fault}"));
        }
        assert_eq!(check_topic_name(&"x".repeat(249)), Ok(()));
    }

    #[test]
    fn a_message_always_fits_in_an_answer() {
        let text = Refusal::invalid("é".repeat(40_000)).text().unwrap();
        assert!(text.len() < i16::MAX as usize);
    }
}
