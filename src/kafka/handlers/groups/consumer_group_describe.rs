//! ConsumerGroupDescribe (key 69, KIP-848).

use kafka_protocol::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};

use crate::group::{self, ConsumerGroupDescribe, DescribedConsumer, NamedPartitions};
use crate::kafka::handlers::room::Room;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::{UNEXPECTED, code, wire, wire_id};

const MEMBER_TYPE_SINCE: i16 = 1;

impl Handlers {
    pub(in crate::kafka::handlers) async fn consumer_group_describe(
        &self,
        request: Request,
        body: ConsumerGroupDescribeRequest,
    ) -> Reply {
        let mut response = ConsumerGroupDescribeResponse::default();
        let mut room = Room::new(&request);
        for id in body.group_ids {
            let described = room.take(self.describe_consumer_group(&request, id.clone()).await);
            let refused = |code| DescribedGroup::default().with_group_id(id).with_error_code(code);
            let mut described = described.unwrap_or_else(refused);
            self.count_code(&request, described.error_code);
            if body.include_authorized_operations && described.error_code == 0 {
                let resource = Resource::group(&described.group_id);
                described.authorized_operations =
                    self.authorizer.authorized_operations(&request.context.principal, resource);
            }
            response.groups.push(described);
        }
        Reply::encode(request.to, &response)
    }

    async fn describe_consumer_group(&self, request: &Request, id: GroupId) -> DescribedGroup {
        let mut described = DescribedGroup::default();
        let ask = group::Request::ConsumerGroupDescribe(ConsumerGroupDescribe { group: id.to_string() });
        let outcome = match self.group_permit(request, Operation::Describe, &id) {
            Ok(permit) => self.ask_group(&permit, &id, ask).await,
            Err(code) => Err(code),
        };
        described.group_id = id;
        match outcome {
            Ok(group::Reply::ConsumerGroupDescribe(reply)) => {
                described.error_code = code(reply.error);
                described.error_message = wire(reply.error_message);
                described.group_state = text(reply.state);
                described.group_epoch = reply.group_epoch;
                described.assignment_epoch = reply.assignment_epoch;
                described.assignor_name = text(reply.assignor);
                described.members = reply.members.into_iter().map(|m| member(m, request.to.version)).collect();
            }
            Ok(_) => described.error_code = UNEXPECTED,
            Err(code) => described.error_code = code,
        }
        described
    }
}

fn member(known: DescribedConsumer, version: i16) -> Member {
    let mut member = Member::default();
    member.member_id = text(known.member);
    member.instance_id = wire(known.instance);
    member.rack_id = wire(known.rack);
    member.member_epoch = known.member_epoch;
    member.client_id = text(known.client_id);
    member.client_host = text(known.client_host);
    member.subscribed_topic_names = known.subscribed_topics.into_iter().map(|name| TopicName(text(name))).collect();
    member.subscribed_topic_regex = wire(known.subscribed_regex);
    member.assignment = assignment(known.assignment);
    member.target_assignment = assignment(known.target_assignment);
    if version >= MEMBER_TYPE_SINCE {
        member.member_type = known.member_type;
    }
    member
}

fn assignment(topics: Vec<NamedPartitions>) -> Assignment {
    let mut assignment = Assignment::default();
    let topics = topics.into_iter().map(|known| {
        let mut topic = TopicPartitions::default();
        topic.topic_id = wire_id(known.topic);
        topic.topic_name = TopicName(text(known.name));
        topic.partitions = known.partitions;
        topic
    });
    assignment.topic_partitions = topics.collect();
    assignment
}
