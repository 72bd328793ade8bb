//! As `versions`, for the APIs of groups, transactions and quotas, and the rest of administration.

use super::batch::Producer;
use super::client::{Client, text, topic};
use super::harness::unique;
use super::versions::Round;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn transactional(name: &str) -> TransactionalId {
    TransactionalId(text(name))
}

/// A group that has one member with its assignment: (group, member, generation).
fn joined(client: &mut Client, sync: bool) -> (String, StrBytes, i32) {
    let name = unique("group");
    find(client, 0, &name);
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(group(&name))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("test"))
        .with_protocols(vec![protocol]);
    let answer = client.call(3, &request).expect("an answer to JoinGroup");
    assert_eq!(answer.error_code, 0, "joining {name}");
    if sync {
        let request = SyncGroupRequest::default().with_group_id(group(&name)).with_generation_id(answer.generation_id);
        let answered = client.call(2, &request.with_member_id(answer.member_id.clone())).expect("an answer");
        assert_eq!(answered.error_code, 0, "syncing {name}");
    }
    (name, answer.member_id, answer.generation_id)
}

/// Asks for a coordinator until it is there.
fn find(client: &mut Client, kind: i8, key: &str) {
    for _ in 0..100 {
        let request = FindCoordinatorRequest::default().with_key_type(kind).with_key(text(key));
        let found = client.call(3, &request).expect("an answer to FindCoordinator");
        let loaded = match kind {
            0 => {
                let fetch = OffsetFetchRequest::default().with_group_id(group(key)).with_topics(None);
                client.call(7, &fetch).expect("an answer to OffsetFetch").error_code
            }
            _ => 0,
        };
        if found.error_code == 0 && loaded == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no coordinator for {key}");
}

/// A transactional producer: its id and producer.
fn begun(client: &mut Client) -> (String, Producer) {
    let id = unique("tx");
    find(client, 1, &id);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional(&id)))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    for _ in 0..100 {
        let answer = client.call(4, &request).expect("an answer to InitProducerId");
        if answer.error_code == 0 {
            return (id, Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{id} does not begin");
}

fn add_partition(r: &Round<'_>, version: i16, id: &str, producer: Producer) -> AddPartitionsToTxnRequest {
    let asked = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(topic(&r.name));
    let asked = vec![asked.with_partitions(vec![0])];
    let request = AddPartitionsToTxnRequest::default();
    if version < 4 {
        return request
            .with_v3_and_below_transactional_id(transactional(id))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(asked);
    }
    let transaction = add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default();
    let transaction = transaction.with_transactional_id(transactional(id)).with_producer_id(ProducerId(producer.id));
    request.with_transactions(vec![transaction.with_producer_epoch(producer.epoch).with_topics(asked)])
}

/// The answer is the expected one.
fn is(expected: i16) -> impl Fn(i16) -> i16 {
    move |code| if code == expected { 0 } else { code }
}

pub(super) fn offsets(round: &mut Round<'_>) {
    round.ask(
        |_, version| match version {
            0..4 => FindCoordinatorRequest::default().with_key(text("some-group")),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("some-group")]),
        },
        |a: &FindCoordinatorResponse| a.coordinators.first().map_or(a.error_code, |c| c.error_code),
    );
    round.ask(
        |r, _| {
            let name = unique("offsets");
            find(&mut r.target.client(), 0, &name);
            let partition = offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
            let asked = offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic(&r.name));
            let request = OffsetCommitRequest::default().with_group_id(group(&name));
            let request = request.with_generation_id_or_member_epoch(-1);
            request.with_topics(vec![asked.with_partitions(vec![partition])])
        },
        |a: &OffsetCommitResponse| a.topics[0].partitions[0].error_code,
    );
    for all in [false, true] {
        round.ask(
            |r, version| {
                find(&mut r.target.client(), 0, "nobody");
                let request = OffsetFetchRequest::default();
                if version >= 8 {
                    let asked = offset_fetch_request::OffsetFetchRequestTopics::default().with_name(topic(&r.name));
                    let topics = (!all).then(|| vec![asked.with_partition_indexes(vec![0])]);
                    let asked = offset_fetch_request::OffsetFetchRequestGroup::default();
                    return request.with_groups(vec![asked.with_group_id(group("nobody")).with_topics(topics)]);
                }
                let asked = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(topic(&r.name));
                let topics = (!all || version < 2).then(|| vec![asked.with_partition_indexes(vec![0])]);
                request.with_group_id(group("nobody")).with_topics(topics)
            },
            |a: &OffsetFetchResponse| a.groups.first().map_or(a.error_code, |g| g.error_code),
        );
    }
    round.ask(
        |r, _| {
            let (name, _, _) = joined(&mut r.target.client(), true);
            let partition = offset_delete_request::OffsetDeleteRequestPartition::default();
            let asked = offset_delete_request::OffsetDeleteRequestTopic::default().with_name(topic(&r.name));
            let request = OffsetDeleteRequest::default().with_group_id(group(&name));
            request.with_topics(vec![asked.with_partitions(vec![partition])])
        },
        |a: &OffsetDeleteResponse| is(68)(a.error_code), // a group of another protocol type that is not empty
    );
}

pub(super) fn groups(round: &mut Round<'_>) {
    round.ask(
        |r, version| {
            let name = unique("join");
            find(&mut r.target.client(), 0, &name);
            let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
            let request = JoinGroupRequest::default().with_group_id(group(&name)).with_session_timeout_ms(10_000);
            let request = if version >= 1 { request.with_rebalance_timeout_ms(10_000) } else { request };
            request.with_protocol_type(text("test")).with_protocols(vec![protocol])
        },
        // From version 4 on a new member is told its id first (KIP-394).
        |a: &JoinGroupResponse| if a.member_id.is_empty() { a.error_code } else { is(79)(a.error_code) },
    );
    round.ask(
        |r, version| {
            let (name, member, generation) = joined(&mut r.target.client(), false);
            let request = SyncGroupRequest::default().with_group_id(group(&name)).with_member_id(member);
            let request = request.with_generation_id(generation);
            if version < 5 {
                return request;
            }
            request.with_protocol_type(Some(text("test"))).with_protocol_name(Some(text("range")))
        },
        |a: &SyncGroupResponse| a.error_code,
    );
    round.ask(
        |r, _| {
            let (name, member, generation) = joined(&mut r.target.client(), true);
            let request = HeartbeatRequest::default().with_group_id(group(&name)).with_member_id(member);
            request.with_generation_id(generation)
        },
        |a: &HeartbeatResponse| a.error_code,
    );
    round.ask(
        |r, version| {
            let (name, member, _) = joined(&mut r.target.client(), true);
            let request = LeaveGroupRequest::default().with_group_id(group(&name));
            if version < 3 {
                return request.with_member_id(member);
            }
            let leaving = leave_group_request::MemberIdentity::default().with_member_id(member);
            request.with_members(vec![leaving.with_group_instance_id(None)])
        },
        |a: &LeaveGroupResponse| a.error_code,
    );
    round.ask(
        |r, version| {
            let (name, _, _) = joined(&mut r.target.client(), true);
            let request = DescribeGroupsRequest::default().with_groups(vec![group(&name)]);
            request.with_include_authorized_operations(version >= 3)
        },
        |a: &DescribeGroupsResponse| a.groups[0].error_code,
    );
}

/// What is said of groups, and their end.
pub(super) fn described_groups(round: &mut Round<'_>) {
    round.ask(|_, _| ListGroupsRequest::default(), |a: &ListGroupsResponse| a.error_code);
    round.ask(
        |r, _| {
            let (name, _, _) = joined(&mut r.target.client(), true);
            DeleteGroupsRequest::default().with_groups_names(vec![group(&name)])
        },
        |a: &DeleteGroupsResponse| is(68)(a.results[0].error_code),
    );
    round.ask(|r, _| consumer(r, &unique("modern")), |a: &ConsumerGroupHeartbeatResponse| a.error_code);
    round.ask(
        |r, _| {
            let name = unique("described");
            let mut client = r.target.client();
            assert_eq!(client.call(1, &consumer(r, &name)).expect("an answer").error_code, 0);
            let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(&name)]);
            request.with_include_authorized_operations(true)
        },
        |a: &ConsumerGroupDescribeResponse| a.groups[0].error_code,
    );
}

fn consumer(r: &Round<'_>, name: &str) -> ConsumerGroupHeartbeatRequest {
    find(&mut r.target.client(), 0, name);
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(name))
        .with_member_id(text("AAAAAAAAAAAAAAAAAAAAAQ"))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![topic(&r.name)]))
        .with_topic_partitions(Some(vec![]))
}

pub(super) fn transactions(round: &mut Round<'_>) {
    round.ask(
        |r, version| {
            let (id, producer) = begun(&mut r.target.client());
            add_partition(r, version, &id, producer)
        },
        |a: &AddPartitionsToTxnResponse| {
            let many = a.results_by_transaction.iter().flat_map(|t| &t.topic_results);
            let mut all = a.results_by_topic_v3_and_below.iter().chain(many).flat_map(|t| &t.results_by_partition);
            all.next().map_or(a.error_code, |p| p.partition_error_code)
        },
    );
    round.ask(
        |r, _| {
            let (id, producer) = begun(&mut r.target.client());
            let request = AddOffsetsToTxnRequest::default().with_transactional_id(transactional(&id));
            let request = request.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch);
            request.with_group_id(group("in-transaction"))
        },
        |a: &AddOffsetsToTxnResponse| a.error_code,
    );
    round.ask(
        |r, _| {
            let mut client = r.target.client();
            let (id, producer) = begun(&mut client);
            find(&mut client, 0, "in-transaction");
            let add = AddOffsetsToTxnRequest::default().with_transactional_id(transactional(&id));
            let add = add.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch);
            let added = client.call(3, &add.with_group_id(group("in-transaction"))).expect("an answer");
            assert_eq!(added.error_code, 0, "AddOffsetsToTxn");
            let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default();
            let asked = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default().with_name(topic(&r.name));
            let request = TxnOffsetCommitRequest::default().with_transactional_id(transactional(&id));
            let request = request.with_group_id(group("in-transaction")).with_producer_id(ProducerId(producer.id));
            request.with_producer_epoch(producer.epoch).with_topics(vec![asked.with_partitions(vec![partition])])
        },
        |a: &TxnOffsetCommitResponse| a.topics[0].partitions[0].error_code,
    );
    round.ask(
        |r, _| {
            let mut client = r.target.client();
            let (id, producer) = begun(&mut client);
            client.call(3, &add_partition(r, 3, &id, producer)).expect("an answer to AddPartitionsToTxn");
            let request = EndTxnRequest::default().with_transactional_id(transactional(&id)).with_committed(true);
            request.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch)
        },
        |a: &EndTxnResponse| a.error_code,
    );
    round.ask(
        |r, _| {
            let (_, producer) = begun(&mut r.target.client());
            let asked = write_txn_markers_request::WritableTxnMarkerTopic::default().with_name(topic(&r.name));
            let marker = write_txn_markers_request::WritableTxnMarker::default();
            let marker = marker.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch);
            let marker = marker.with_topics(vec![asked.with_partition_indexes(vec![0])]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker])
        },
        |a: &WriteTxnMarkersResponse| a.markers[0].topics[0].partitions[0].error_code,
    );
    round.ask(
        |r, _| {
            let (id, _) = begun(&mut r.target.client());
            DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional(&id)])
        },
        |a: &DescribeTransactionsResponse| a.transaction_states[0].error_code,
    );
    round.ask(|_, _| ListTransactionsRequest::default(), |a: &ListTransactionsResponse| a.error_code);
}

pub(super) fn administration(round: &mut Round<'_>) {
    round.ask(
        |r, _| {
            let change = alter_configs_request::AlterableConfig::default().with_name(text("retention.ms"));
            let resource = alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
            let change = change.with_value(Some(text("7200000")));
            let resource = resource.with_resource_name(text(&r.name)).with_configs(vec![change]);
            AlterConfigsRequest::default().with_resources(vec![resource])
        },
        |a: &AlterConfigsResponse| a.responses[0].error_code,
    );
    round.ask(
        |r, _| {
            let asked = elect_leaders_request::TopicPartitions::default().with_topic(topic(&r.name));
            let request = ElectLeadersRequest::default().with_timeout_ms(5000);
            request.with_topic_partitions(Some(vec![asked.with_partitions(vec![0])]))
        },
        // 84: the preferred leader leads already.
        |a: &ElectLeadersResponse| is(84)(a.replica_election_results[0].partition_result[0].error_code),
    );
    round.ask(
        |r, _| {
            let partition = alter_partition_reassignments_request::ReassignablePartition::default();
            let partition = partition.with_replicas(Some(vec![r.node]));
            let asked = alter_partition_reassignments_request::ReassignableTopic::default().with_name(topic(&r.name));
            let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(5000);
            request.with_topics(vec![asked.with_partitions(vec![partition])])
        },
        |a: &AlterPartitionReassignmentsResponse| a.error_code,
    );
    round.ask(
        |_, _| ListPartitionReassignmentsRequest::default().with_topics(None),
        |a: &ListPartitionReassignmentsResponse| a.error_code,
    );
    round.ask(|_, _| UpdateFeaturesRequest::default(), |a: &UpdateFeaturesResponse| a.error_code);
    round.ask(
        |_, _| UnregisterBrokerRequest::default().with_broker_id(BrokerId(99)),
        |a: &UnregisterBrokerResponse| is(102)(a.error_code), // no such broker
    );
    round.ask(|_, _| ListConfigResourcesRequest::default(), |a: &ListConfigResourcesResponse| a.error_code);
    round.ask(|_, _| DescribeClientQuotasRequest::default(), |a: &DescribeClientQuotasResponse| a.error_code);
    round.ask(
        |_, _| {
            let entity = alter_client_quotas_request::EntityData::default().with_entity_type(text("client-id"));
            let op = alter_client_quotas_request::OpData::default().with_key(text("producer_byte_rate"));
            let entry = alter_client_quotas_request::EntryData::default();
            let entry = entry.with_entity(vec![entity.with_entity_name(Some(text("somebody")))]);
            AlterClientQuotasRequest::default().with_entries(vec![entry.with_ops(vec![op.with_value(1e9)])])
        },
        |a: &AlterClientQuotasResponse| a.entries[0].error_code,
    );
    round.ask(
        |_, _| DescribeUserScramCredentialsRequest::default(),
        |a: &DescribeUserScramCredentialsResponse| a.error_code,
    );
    round.ask(|_, _| GetTelemetrySubscriptionsRequest::default(), |a: &GetTelemetrySubscriptionsResponse| a.error_code);
    round.ask(
        |_, _| PushTelemetryRequest::default().with_client_instance_id(uuid::Uuid::from_u128(5)),
        // Of a client that has never asked for its subscription.
        |a: &PushTelemetryResponse| is(117)(is(42)(a.error_code)),
    );
}
