//! Samples of what transactional producers and their administrators ask.

use bytes::Bytes;
use kafka_protocol::messages::*;

use super::{frame, group, tags, text, topic};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::InitProducerId => vec![
            frame(api, version, &InitProducerIdRequest::default()),
            frame(api, version, &init_producer_id(version, f)),
        ],
        ApiKey::AddPartitionsToTxn => vec![frame(api, version, &add_partitions_to_txn(version, f))],
        ApiKey::AddOffsetsToTxn => vec![frame(api, version, &add_offsets_to_txn(f))],
        ApiKey::EndTxn => vec![frame(api, version, &end_txn(f))],
        ApiKey::WriteTxnMarkers => vec![frame(api, version, &write_txn_markers())],
        ApiKey::TxnOffsetCommit => vec![
            frame(api, version, &TxnOffsetCommitRequest::default()),
            frame(api, version, &txn_offset_commit(version, f)),
        ],
        ApiKey::DescribeTransactions => vec![frame(api, version, &describe_transactions())],
        ApiKey::ListTransactions => {
            vec![frame(api, version, &list_transactions(0)), frame(api, version, &list_transactions(version))]
        }
        _ => Vec::new(),
    }
}

fn init_producer_id(version: i16, f: bool) -> InitProducerIdRequest {
    let mut body = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(1000)
        .with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_producer_id(ProducerId(4)).with_producer_epoch(2);
    }
    body
}

fn add_partitions_to_txn(version: i16, f: bool) -> AddPartitionsToTxnRequest {
    use add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
    let added = AddPartitionsToTxnTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![0, 1])
        .with_unknown_tagged_fields(tags(f));
    let topics = vec![added.clone(), added];
    let body = AddPartitionsToTxnRequest::default().with_unknown_tagged_fields(tags(f));
    if version <= 3 {
        return body
            .with_v3_and_below_transactional_id(TransactionalId(text("tx")))
            .with_v3_and_below_producer_id(ProducerId(4))
            .with_v3_and_below_producer_epoch(2)
            .with_v3_and_below_topics(topics);
    }
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_producer_id(ProducerId(4))
        .with_producer_epoch(2)
        .with_verify_only(true)
        .with_topics(topics)
        .with_unknown_tagged_fields(tags(f));
    body.with_transactions(vec![transaction.clone(), transaction])
}

fn add_offsets_to_txn(f: bool) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_producer_id(ProducerId(4))
        .with_producer_epoch(2)
        .with_group_id(group("readers"))
        .with_unknown_tagged_fields(tags(f))
}

fn end_txn(f: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_producer_id(ProducerId(4))
        .with_producer_epoch(2)
        .with_committed(true)
        .with_unknown_tagged_fields(tags(f))
}

fn write_txn_markers() -> WriteTxnMarkersRequest {
    use write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
    let ended = WritableTxnMarkerTopic::default()
        .with_name(topic("orders"))
        .with_partition_indexes(vec![0, 1])
        .with_unknown_tagged_fields(tags(true));
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(4))
        .with_producer_epoch(2)
        .with_transaction_result(true)
        .with_topics(vec![ended.clone(), ended])
        .with_coordinator_epoch(6)
        .with_unknown_tagged_fields(tags(true));
    WriteTxnMarkersRequest::default().with_markers(vec![marker.clone(), marker]).with_unknown_tagged_fields(tags(true))
}

fn txn_offset_commit(version: i16, f: bool) -> TxnOffsetCommitRequest {
    use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    let partition = |metadata| {
        let mut partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(3)
            .with_committed_offset(90)
            .with_committed_metadata(metadata)
            .with_unknown_tagged_fields(tags(f));
        if version >= 2 {
            partition = partition.with_committed_leader_epoch(4);
        }
        partition
    };
    let committed = TxnOffsetCommitRequestTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition(Some(text("noted"))), partition(None)])
        .with_unknown_tagged_fields(tags(f));
    let body = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_group_id(group("readers"))
        .with_producer_id(ProducerId(4))
        .with_producer_epoch(2)
        .with_topics(vec![committed.clone(), committed])
        .with_unknown_tagged_fields(tags(f));
    if version < 3 {
        return body;
    }
    body.with_generation_id(7).with_member_id(text("member-1")).with_group_instance_id(Some(text("instance")))
}

fn describe_transactions() -> DescribeTransactionsRequest {
    let ids = vec![TransactionalId(text("tx")), TransactionalId(text("other"))];
    DescribeTransactionsRequest::default().with_transactional_ids(ids).with_unknown_tagged_fields(tags(true))
}

fn list_transactions(version: i16) -> ListTransactionsRequest {
    let mut body = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Empty")])
        .with_producer_id_filters(vec![ProducerId(4), ProducerId(5)])
        .with_unknown_tagged_fields(tags(true));
    if version >= 1 {
        body = body.with_duration_filter(60_000);
    }
    if version >= 2 {
        body = body.with_transactional_id_pattern(Some(text("tx.*")));
    }
    body
}
