//! Samples of what group members and their administrators ask.

use bytes::Bytes;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::{frame, group, tags, text, topic};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::OffsetCommit => {
            vec![frame(api, version, &OffsetCommitRequest::default()), frame(api, version, &offset_commit(version, f))]
        }
        ApiKey::OffsetFetch => offset_fetch(version, f).iter().map(|body| frame(api, version, body)).collect(),
        ApiKey::FindCoordinator => vec![frame(api, version, &find_coordinator(version, f))],
        ApiKey::JoinGroup => {
            vec![frame(api, version, &JoinGroupRequest::default()), frame(api, version, &join_group(version, f))]
        }
        ApiKey::Heartbeat => vec![frame(api, version, &heartbeat(version, f))],
        ApiKey::LeaveGroup => vec![frame(api, version, &leave_group(version, f))],
        ApiKey::SyncGroup => {
            vec![frame(api, version, &SyncGroupRequest::default()), frame(api, version, &sync_group(version, f))]
        }
        ApiKey::DescribeGroups => vec![frame(api, version, &describe_groups(version, f))],
        ApiKey::ListGroups => vec![frame(api, version, &list_groups(version, f))],
        ApiKey::DeleteGroups => vec![frame(api, version, &delete_groups(f))],
        ApiKey::OffsetDelete => vec![frame(api, version, &offset_delete())],
        ApiKey::ConsumerGroupHeartbeat => {
            consumer_group_heartbeat(version).iter().map(|body| frame(api, version, body)).collect()
        }
        ApiKey::ConsumerGroupDescribe => vec![frame(api, version, &consumer_group_describe())],
        _ => Vec::new(),
    }
}

fn offset_commit(version: i16, f: bool) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = |metadata| {
        let mut partition = OffsetCommitRequestPartition::default()
            .with_partition_index(3)
            .with_committed_offset(90)
            .with_committed_metadata(metadata)
            .with_unknown_tagged_fields(tags(f));
        if version >= 6 {
            partition = partition.with_committed_leader_epoch(4);
        }
        partition
    };
    let committed = OffsetCommitRequestTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition(Some(text("noted"))), partition(None)])
        .with_unknown_tagged_fields(tags(f));
    let mut body = OffsetCommitRequest::default()
        .with_group_id(group("readers"))
        .with_generation_id_or_member_epoch(7)
        .with_member_id(text("member-1"))
        .with_topics(vec![committed.clone(), committed])
        .with_unknown_tagged_fields(tags(f));
    if version <= 4 {
        body = body.with_retention_time_ms(86_400_000);
    }
    if version >= 7 {
        body = body.with_group_instance_id(Some(text("instance")));
    }
    body
}

/// Named partitions, and all of a group.
fn offset_fetch(version: i16, f: bool) -> Vec<OffsetFetchRequest> {
    if version >= 8 {
        return vec![OffsetFetchRequest::default(), offset_fetch_groups(version, f)];
    }
    use offset_fetch_request::OffsetFetchRequestTopic;
    let wanted = OffsetFetchRequestTopic::default()
        .with_name(topic("orders"))
        .with_partition_indexes(vec![0, 1, 2])
        .with_unknown_tagged_fields(tags(f));
    let mut named = OffsetFetchRequest::default()
        .with_group_id(group("readers"))
        .with_topics(Some(vec![wanted.clone(), wanted]))
        .with_unknown_tagged_fields(tags(f));
    if version >= 7 {
        named = named.with_require_stable(true);
    }
    if version < 2 {
        return vec![named];
    }
    vec![named.clone(), named.with_topics(None)]
}

fn offset_fetch_groups(version: i16, f: bool) -> OffsetFetchRequest {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    let wanted = OffsetFetchRequestTopics::default()
        .with_name(topic("orders"))
        .with_partition_indexes(vec![0, 1, 2])
        .with_unknown_tagged_fields(tags(f));
    let of = |topics, member| {
        let mut of = OffsetFetchRequestGroup::default()
            .with_group_id(group("readers"))
            .with_topics(topics)
            .with_unknown_tagged_fields(tags(f));
        if version >= 9 {
            of = of.with_member_id(member).with_member_epoch(5);
        }
        of
    };
    OffsetFetchRequest::default()
        .with_groups(vec![of(Some(vec![wanted.clone(), wanted]), Some(text("member-1"))), of(None, None)])
        .with_require_stable(true)
        .with_unknown_tagged_fields(tags(f))
}

fn find_coordinator(version: i16, f: bool) -> FindCoordinatorRequest {
    let mut body = FindCoordinatorRequest::default().with_unknown_tagged_fields(tags(f));
    if version >= 1 {
        body = body.with_key_type(1);
    }
    match version {
        0..=3 => body.with_key(text("readers")),
        _ => body.with_coordinator_keys(vec![text("readers"), text("writers")]),
    }
}

fn join_group(version: i16, f: bool) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    let protocol = |name| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::from_static(&[0xff; 150]))
            .with_unknown_tagged_fields(tags(f))
    };
    let mut body = JoinGroupRequest::default()
        .with_group_id(group("readers"))
        .with_session_timeout_ms(10_000)
        .with_member_id(text("member-1"))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("cooperative-sticky")])
        .with_unknown_tagged_fields(tags(f));
    if version >= 1 {
        body = body.with_rebalance_timeout_ms(60_000);
    }
    if version >= 5 {
        body = body.with_group_instance_id(Some(text("instance")));
    }
    if version >= 8 {
        body = body.with_reason(Some(text("rebalance")));
    }
    body
}

fn heartbeat(version: i16, f: bool) -> HeartbeatRequest {
    let mut body = HeartbeatRequest::default()
        .with_group_id(group("readers"))
        .with_generation_id(7)
        .with_member_id(text("member-1"))
        .with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_group_instance_id(Some(text("instance")));
    }
    body
}

fn leave_group(version: i16, f: bool) -> LeaveGroupRequest {
    use leave_group_request::MemberIdentity;
    let body = LeaveGroupRequest::default().with_group_id(group("readers")).with_unknown_tagged_fields(tags(f));
    if version < 3 {
        return body.with_member_id(text("member-1"));
    }
    let leaving = |instance, reason| {
        let mut leaving = MemberIdentity::default()
            .with_member_id(text("member-1"))
            .with_group_instance_id(instance)
            .with_unknown_tagged_fields(tags(f));
        if version >= 5 {
            leaving = leaving.with_reason(reason);
        }
        leaving
    };
    body.with_members(vec![leaving(Some(text("instance")), Some(text("closed"))), leaving(None, None)])
}

fn sync_group(version: i16, f: bool) -> SyncGroupRequest {
    use sync_group_request::SyncGroupRequestAssignment;
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text("member-1"))
        .with_assignment(Bytes::from_static(&[0xff; 150]))
        .with_unknown_tagged_fields(tags(f));
    let mut body = SyncGroupRequest::default()
        .with_group_id(group("readers"))
        .with_generation_id(7)
        .with_member_id(text("member-1"))
        .with_assignments(vec![assignment.clone(), assignment])
        .with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_group_instance_id(Some(text("instance")));
    }
    if version >= 5 {
        body = body.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    }
    body
}

fn describe_groups(version: i16, f: bool) -> DescribeGroupsRequest {
    let groups = vec![group("readers"), group("writers")];
    let mut body = DescribeGroupsRequest::default().with_groups(groups).with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_include_authorized_operations(true);
    }
    body
}

fn list_groups(version: i16, f: bool) -> ListGroupsRequest {
    let mut body = ListGroupsRequest::default().with_unknown_tagged_fields(tags(f));
    if version >= 4 {
        body = body.with_states_filter(vec![text("Stable"), text("Empty")]);
    }
    if version >= 5 {
        body = body.with_types_filter(vec![text("classic")]);
    }
    body
}

fn delete_groups(f: bool) -> DeleteGroupsRequest {
    let groups = vec![group("readers"), group("writers")];
    DeleteGroupsRequest::default().with_groups_names(groups).with_unknown_tagged_fields(tags(f))
}

fn offset_delete() -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(2);
    let deleted = OffsetDeleteRequestTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition.clone(), partition]);
    OffsetDeleteRequest::default().with_group_id(group("readers")).with_topics(vec![deleted.clone(), deleted])
}

/// A first heartbeat, and one in which nothing has changed.
fn consumer_group_heartbeat(version: i16) -> Vec<ConsumerGroupHeartbeatRequest> {
    use consumer_group_heartbeat_request::TopicPartitions;
    let owned = TopicPartitions::default()
        .with_topic_id(Uuid::from_u128(5))
        .with_partitions(vec![0, 1])
        .with_unknown_tagged_fields(tags(true));
    let steady = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("readers"))
        .with_member_id(text("member-1"))
        .with_member_epoch(3)
        .with_unknown_tagged_fields(tags(true));
    let mut first = steady
        .clone()
        .with_instance_id(Some(text("instance")))
        .with_rack_id(Some(text("rack")))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![topic("orders"), topic("payments")]))
        .with_server_assignor(Some(text("uniform")))
        .with_topic_partitions(Some(vec![owned.clone(), owned]));
    if version >= 1 {
        first = first.with_subscribed_topic_regex(Some(text("orders.*")));
    }
    vec![steady, first]
}

fn consumer_group_describe() -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group("readers"), group("writers")])
        .with_include_authorized_operations(true)
        .with_unknown_tagged_fields(tags(true))
}
