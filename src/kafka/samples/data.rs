//! Samples of what producers and consumers ask.

use bytes::Bytes;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::{frame, tags, text, topic};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::Produce => {
            vec![frame(api, version, &ProduceRequest::default()), frame(api, version, &produce(version, f))]
        }
        ApiKey::Fetch => vec![frame(api, version, &FetchRequest::default()), frame(api, version, &fetch(version, f))],
        ApiKey::ListOffsets => {
            vec![frame(api, version, &ListOffsetsRequest::default()), frame(api, version, &list_offsets(version, f))]
        }
        ApiKey::Metadata => metadata(version, f).iter().map(|body| frame(api, version, body)).collect(),
        ApiKey::ApiVersions => vec![frame(api, version, &api_versions(version, f))],
        ApiKey::OffsetForLeaderEpoch => vec![frame(api, version, &offset_for_leader_epoch(version, f))],
        _ => Vec::new(),
    }
}

fn produce(version: i16, f: bool) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = |records| {
        PartitionProduceData::default().with_index(3).with_records(records).with_unknown_tagged_fields(tags(f))
    };
    let records = Bytes::from_static(&[0xff; 200]);
    let mut data = TopicProduceData::default()
        .with_partition_data(vec![partition(Some(records)), partition(None)])
        .with_unknown_tagged_fields(tags(f));
    data = if version >= 13 { data.with_topic_id(Uuid::from_u128(7)) } else { data.with_name(topic("orders")) };
    ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![data.clone(), data])
        .with_unknown_tagged_fields(tags(f))
}

fn fetch(version: i16, f: bool) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let mut partition = FetchPartition::default().with_partition(1).with_fetch_offset(9).with_partition_max_bytes(1000);
    partition = partition.with_unknown_tagged_fields(tags(f));
    if version >= 5 {
        partition = partition.with_log_start_offset(2);
    }
    if version >= 9 {
        partition = partition.with_current_leader_epoch(4);
    }
    if version >= 12 {
        partition = partition.with_last_fetched_epoch(4);
    }
    if version >= 17 {
        partition = partition.with_replica_directory_id(Uuid::from_u128(1));
    }
    if version >= 18 {
        partition = partition.with_high_watermark(55);
    }
    let mut wanted =
        FetchTopic::default().with_partitions(vec![partition.clone(), partition]).with_unknown_tagged_fields(tags(f));
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]).with_unknown_tagged_fields(tags(f));
    if version >= 13 {
        wanted = wanted.with_topic_id(Uuid::from_u128(3));
        forgotten = forgotten.with_topic_id(Uuid::from_u128(3));
    } else {
        wanted = wanted.with_topic(topic("orders"));
        forgotten = forgotten.with_topic(topic("orders"));
    }
    let mut body = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_topics(vec![wanted.clone(), wanted])
        .with_unknown_tagged_fields(tags(f));
    if version >= 7 {
        body = body.with_session_id(5).with_session_epoch(6).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        body = body.with_rack_id(text("rack"));
    }
    if version >= 12 {
        body = body.with_cluster_id(Some(text("cluster")));
    }
    if version >= 15 {
        let state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(5);
        body = body.with_replica_state(state.with_unknown_tagged_fields(tags(f)));
    } else {
        body = body.with_replica_id(BrokerId(2));
    }
    body
}

fn list_offsets(version: i16, f: bool) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let mut partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-1);
    partition = partition.with_unknown_tagged_fields(tags(f));
    if version >= 4 {
        partition = partition.with_current_leader_epoch(8);
    }
    let wanted = ListOffsetsTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition.clone(), partition])
        .with_unknown_tagged_fields(tags(f));
    let mut body = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
    if version >= 2 {
        body = body.with_isolation_level(1);
    }
    if version >= 10 {
        body = body.with_timeout_ms(100);
    }
    body.with_unknown_tagged_fields(tags(f))
}

fn metadata(version: i16, f: bool) -> Vec<MetadataRequest> {
    use metadata_request::MetadataRequestTopic;
    let mut wanted = vec![MetadataRequestTopic::default().with_name(Some(topic("orders")))];
    if version >= 10 {
        wanted.push(MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(9)));
    }
    let wanted = wanted.into_iter().map(|topic| topic.with_unknown_tagged_fields(tags(f))).collect();
    let mut named = MetadataRequest::default().with_topics(Some(wanted)).with_unknown_tagged_fields(tags(f));
    if version >= 8 {
        named = named.with_include_topic_authorized_operations(true);
    }
    let all = MetadataRequest::default().with_topics(if version >= 1 { None } else { Some(Vec::new()) });
    vec![named, all]
}

fn api_versions(version: i16, f: bool) -> ApiVersionsRequest {
    let mut body = ApiVersionsRequest::default().with_unknown_tagged_fields(tags(f));
    if version >= 3 {
        body = body.with_client_software_name(text("sample")).with_client_software_version(text("1.0"));
    }
    body
}

fn offset_for_leader_epoch(version: i16, f: bool) -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(3).with_unknown_tagged_fields(tags(f));
    let wanted = OffsetForLeaderTopic::default()
        .with_topic(topic("orders"))
        .with_partitions(vec![partition.clone(), partition])
        .with_unknown_tagged_fields(tags(f));
    let mut body = OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]);
    if version >= 3 {
        body = body.with_replica_id(BrokerId(-1));
    }
    body.with_unknown_tagged_fields(tags(f))
}
