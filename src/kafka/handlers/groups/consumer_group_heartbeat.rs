//! ConsumerGroupHeartbeat (key 68, KIP-848).

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions as Wire};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use crate::group::{self, ConsumerGroupHeartbeat, ConsumerGroupHeartbeatReply, TopicPartitions};
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;

use super::{UNEXPECTED, client_of, code, owned, topic_id, wire, wire_id};

impl Handlers {
    pub(in crate::kafka::handlers) async fn consumer_group_heartbeat(
        &self,
        request: Request,
        body: ConsumerGroupHeartbeatRequest,
    ) -> Reply {
        let group = body.group_id.to_string();
        let subscribed = body.subscribed_topic_names;
        let denied =
            subscribed.iter().flatten().find_map(|name| self.topic_refusal(&request, Operation::Describe, name));
        let owned_partitions = body.topic_partitions.map(|topics| {
            let topics = topics.into_iter();
            topics.map(|t| TopicPartitions { topic: topic_id(t.topic_id), partitions: t.partitions }).collect()
        });
        let beat = ConsumerGroupHeartbeat {
            version: request.to.version,
            client: client_of(&request),
            group: group.clone(),
            member: body.member_id.to_string(),
            member_epoch: body.member_epoch,
            instance: owned(body.instance_id),
            rack: owned(body.rack_id),
            rebalance_timeout_ms: body.rebalance_timeout_ms,
            subscribed_topics: subscribed.map(|names| names.iter().map(|name| name.to_string()).collect()),
            subscribed_regex: owned(body.subscribed_topic_regex),
            server_assignor: owned(body.server_assignor),
            owned: owned_partitions,
        };
        let outcome = match (self.group_permit(&request, Operation::Read, &group), denied) {
            (Err(code), _) | (Ok(_), Some(code)) => Err(code),
            (Ok(permit), None) => self.ask_group(&permit, &group, group::Request::ConsumerGroupHeartbeat(beat)).await,
        };
        let mut response = ConsumerGroupHeartbeatResponse::default();
        match outcome {
            Ok(group::Reply::ConsumerGroupHeartbeat(reply)) => answer(&mut response, reply),
            Ok(_) => response.error_code = UNEXPECTED,
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

fn answer(response: &mut ConsumerGroupHeartbeatResponse, reply: ConsumerGroupHeartbeatReply) {
    response.error_code = code(reply.error);
    response.error_message = wire(reply.error_message);
    response.member_id = reply.member.map(text);
    response.member_epoch = reply.member_epoch;
    response.heartbeat_interval_ms = reply.heartbeat_interval_ms;
    response.assignment = reply.assignment.map(|topics| {
        let mut assignment = Assignment::default();
        let topics = topics.into_iter().map(|t| {
            let mut topic = Wire::default();
            (topic.topic_id, topic.partitions) = (wire_id(t.topic), t.partitions);
            topic
        });
        assignment.topic_partitions = topics.collect();
        assignment
    });
}
