//! Frames that no client sends: cut, mutated, oversized, claiming what they do not hold. The connection that sent them
//! may get an error or be closed; nobody else may notice, and no memory may be reserved by a claim.

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, fetch_request, frame, produce_request, text, topic, try_frame};
use super::harness::{Broker, Launch, Target, folder, now_ms, skip};
use super::oracle::Rng;
use super::process::http_get;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What the process may grow by while it is attacked: frames of up to 100 MiB are legal, claims are not memory.
const GROWTH_KIB: u64 = 200 << 10;

/// The same while answers are not read: those that may wait for one connection, one more, and what making it takes.
const UNREAD_KIB: u64 = 120 << 10;

/// A request of one API: its key, the advertised versions that the library can write, and frames of them.
struct Sample {
    key: i16,
    frames: Vec<(i16, Vec<u8>)>,
}

fn sample<R: Request>(advertised: &[(i16, i16, i16)], request: R) -> Sample {
    let range = advertised.iter().filter(|(key, _, _)| *key == R::KEY).flat_map(|(_, min, max)| *min..=*max);
    let versions = range.filter(|v| (R::VERSIONS.min..=R::VERSIONS.max).contains(v));
    Sample { key: R::KEY, frames: versions.filter_map(|v| Some((v, try_frame(v, &request, 5).ok()?))).collect() }
}

/// One populated request for every API of this release.
fn samples(advertised: &[(i16, i16, i16)]) -> Vec<Sample> {
    let records = batch::encode(&[b"v".to_vec()], NO_PRODUCER, -1, 1);
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic("t")));
    let created = create_topics_request::CreatableTopic::default().with_name(topic("bad name")).with_num_partitions(1);
    let listed = list_offsets_request::ListOffsetsTopic::default().with_name(topic("t"));
    let listed = listed.with_partitions(vec![list_offsets_request::ListOffsetsPartition::default()]);
    let deleted = delete_records_request::DeleteRecordsTopic::default().with_name(topic("t"));
    let deleted = deleted.with_partitions(vec![delete_records_request::DeleteRecordsPartition::default()]);
    let described = describe_configs_request::DescribeConfigsResource::default().with_resource_name(text("t"));
    let altered = incremental_alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
    let change = incremental_alter_configs_request::AlterableConfig::default().with_name(text("retention.ms"));
    let epoch = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic("t"));
    let epoch = epoch.with_partitions(vec![offset_for_leader_epoch_request::OffsetForLeaderPartition::default()]);
    let paged = describe_topic_partitions_request::TopicRequest::default().with_name(topic("t"));
    let mut samples = vec![
        sample(advertised, produce_request("t", -1, vec![(0, records)])),
        sample(advertised, fetch_request("t", 0, 0, 0, 1000)),
        sample(advertised, ListOffsetsRequest::default().with_topics(vec![listed])),
        sample(
            advertised,
            MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false),
        ),
        sample(advertised, ApiVersionsRequest::default().with_client_software_name(text("a"))),
        sample(advertised, CreateTopicsRequest::default().with_topics(vec![created])),
        sample(advertised, DeleteTopicsRequest::default().with_topic_names(vec![topic("absent")])),
        sample(advertised, DeleteRecordsRequest::default().with_topics(vec![deleted])),
        sample(advertised, InitProducerIdRequest::default().with_transactional_id(None)),
        sample(advertised, OffsetForLeaderEpochRequest::default().with_topics(vec![epoch])),
        sample(advertised, DescribeConfigsRequest::default().with_resources(vec![described])),
        sample(
            advertised,
            IncrementalAlterConfigsRequest::default().with_resources(vec![altered.with_configs(vec![change])]),
        ),
        sample(advertised, DescribeLogDirsRequest::default().with_topics(None)),
        sample(advertised, CreatePartitionsRequest::default()),
        sample(advertised, DescribeClusterRequest::default()),
        sample(advertised, DescribeQuorumRequest::default()),
        sample(advertised, DescribeProducersRequest::default()),
        sample(advertised, DescribeTopicPartitionsRequest::default().with_topics(vec![paged]).with_cursor(None)),
    ];
    samples.extend(group_samples(advertised));
    samples.extend(transaction_samples(advertised));
    samples.extend(cluster_samples(advertised));
    samples
}

fn group_samples(advertised: &[(i16, i16, i16)]) -> Vec<Sample> {
    let id = || GroupId(text("hostile"));
    let committed = offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic("t"));
    let committed = committed.with_partitions(vec![offset_commit_request::OffsetCommitRequestPartition::default()]);
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    let fetched = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(id()).with_topics(None);
    let deleted = offset_delete_request::OffsetDeleteRequestTopic::default().with_name(topic("t"));
    let joining = JoinGroupRequest::default().with_group_id(id()).with_protocol_type(text("consumer"));
    vec![
        sample(advertised, OffsetCommitRequest::default().with_group_id(id()).with_topics(vec![committed])),
        sample(advertised, OffsetFetchRequest::default().with_group_id(id()).with_topics(Some(vec![]))),
        sample(advertised, OffsetFetchRequest::default().with_groups(vec![fetched])),
        sample(advertised, FindCoordinatorRequest::default().with_key(text("hostile"))),
        sample(advertised, FindCoordinatorRequest::default().with_coordinator_keys(vec![text("hostile")])),
        sample(advertised, joining.with_session_timeout_ms(6000).with_protocols(vec![protocol])),
        sample(advertised, HeartbeatRequest::default().with_group_id(id()).with_member_id(text("absent"))),
        sample(advertised, LeaveGroupRequest::default().with_group_id(id())),
        sample(advertised, SyncGroupRequest::default().with_group_id(id()).with_member_id(text("absent"))),
        sample(advertised, DescribeGroupsRequest::default().with_groups(vec![id()])),
        sample(advertised, ListGroupsRequest::default()),
        sample(advertised, DeleteGroupsRequest::default().with_groups_names(vec![id()])),
        sample(advertised, OffsetDeleteRequest::default().with_group_id(id()).with_topics(vec![deleted])),
        sample(advertised, ConsumerGroupHeartbeatRequest::default().with_group_id(id()).with_member_id(text("absent"))),
        sample(advertised, ConsumerGroupDescribeRequest::default().with_group_ids(vec![id()])),
    ]
}

fn transaction_samples(advertised: &[(i16, i16, i16)]) -> Vec<Sample> {
    let id = || TransactionalId(text("hostile"));
    let added = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(topic("t"));
    let added = vec![added.with_partitions(vec![0])];
    let several = add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default().with_transactional_id(id());
    let committed = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default().with_name(topic("t"));
    let one = AddPartitionsToTxnRequest::default().with_v3_and_below_transactional_id(id());
    let committing = TxnOffsetCommitRequest::default().with_transactional_id(id()).with_topics(vec![committed]);
    let marker = write_txn_markers_request::WritableTxnMarker::default().with_producer_id(ProducerId(i64::MAX));
    vec![
        sample(advertised, one.with_v3_and_below_topics(added.clone())),
        sample(advertised, AddPartitionsToTxnRequest::default().with_transactions(vec![several.with_topics(added)])),
        sample(advertised, AddOffsetsToTxnRequest::default().with_transactional_id(id())),
        sample(advertised, EndTxnRequest::default().with_transactional_id(id()).with_committed(true)),
        sample(advertised, WriteTxnMarkersRequest::default().with_markers(vec![marker])),
        sample(advertised, committing),
        sample(advertised, DescribeTransactionsRequest::default().with_transactional_ids(vec![id()])),
        sample(advertised, ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing")])),
    ]
}

/// What damage of these might change must be absent: another broker, a bad feature, quotas of nobody here.
fn cluster_samples(advertised: &[(i16, i16, i16)]) -> Vec<Sample> {
    let replaced = alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
    let elected = elect_leaders_request::TopicPartitions::default().with_topic(topic("t")).with_partitions(vec![0]);
    let moved = alter_partition_reassignments_request::ReassignableTopic::default().with_name(topic("t"));
    let feature = update_features_request::FeatureUpdateKey::default().with_feature(text("absent.version"));
    let filter = describe_client_quotas_request::ComponentData::default().with_entity_type(text("user"));
    let entity = alter_client_quotas_request::EntityData::default().with_entity_type(text("user"));
    let change = alter_client_quotas_request::OpData::default().with_key(text("producer_byte_rate")).with_remove(true);
    let quotas = alter_client_quotas_request::EntryData::default()
        .with_entity(vec![entity.with_entity_name(Some(text("nobody-here")))])
        .with_ops(vec![change]);
    let user = describe_user_scram_credentials_request::UserName::default().with_name(text("nobody-here"));
    vec![
        sample(advertised, AlterConfigsRequest::default().with_resources(vec![replaced])),
        sample(advertised, ElectLeadersRequest::default().with_topic_partitions(Some(vec![elected]))),
        sample(advertised, AlterPartitionReassignmentsRequest::default().with_topics(vec![moved])),
        sample(advertised, ListPartitionReassignmentsRequest::default().with_topics(None)),
        sample(advertised, UpdateFeaturesRequest::default().with_feature_updates(vec![feature])),
        sample(advertised, UnregisterBrokerRequest::default().with_broker_id(BrokerId(9_999_999))),
        sample(advertised, ListConfigResourcesRequest::default()),
        sample(advertised, DescribeClientQuotasRequest::default().with_components(vec![filter])),
        sample(advertised, AlterClientQuotasRequest::default().with_entries(vec![quotas]).with_validate_only(true)),
        sample(advertised, DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user]))),
        sample(advertised, GetTelemetrySubscriptionsRequest::default()),
        sample(advertised, PushTelemetryRequest::default().with_metrics(bytes::Bytes::from_static(b"not metrics"))),
    ]
}

/// Sends a frame on a connection of its own and waits, briefly, for an answer or the end of the connection.
fn attack(address: SocketAddr, bytes: &[u8]) {
    use std::io::Write;
    let Ok(mut socket) = TcpStream::connect(address) else { return };
    let _ = socket.set_read_timeout(Some(Duration::from_millis(60)));
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = [0; 512];
    while matches!(socket.read(&mut answer), Ok(n) if n > 0) {}
}

/// The other client: everything that it does must go on working.
fn canary(client: &mut Client, name: &str, written: &mut i64) {
    let batch = batch::encode(&[b"canary".to_vec()], NO_PRODUCER, -1, now_ms());
    let produced = client.produce(name, 0, batch).expect("the other connection still produces");
    assert_eq!((produced.error, produced.base_offset), (0, *written));
    *written += 1;
    assert_eq!(client.fetch(name, 0, *written - 1, 1000, 1 << 20).expect("and fetches").batches.len(), 1);
}

/// The damaged forms of one frame: cut everywhere, and with every place made a huge, negative or odd length.
fn damage(frame: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
    let relength = |mut bytes: Vec<u8>| {
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let mut forms: Vec<Vec<u8>> = vec![];
    for at in (4..frame.len()).step_by(3) {
        forms.push(relength(frame[..at].to_vec()));
    }
    let huge: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0, 0, 0],
        &[0xff; 10],
    ];
    for at in (14..frame.len()).step_by(2) {
        let pattern = huge[rng.range(0, huge.len() as u64 - 1) as usize];
        let mut bytes = frame.to_vec();
        bytes.resize(bytes.len().max(at + pattern.len()), 0);
        bytes[at..at + pattern.len()].copy_from_slice(pattern);
        forms.push(relength(bytes));
    }
    for _ in 0..4 {
        let mut bytes = frame.to_vec();
        for _ in 0..rng.range(1, 6) {
            let at = rng.range(8, bytes.len() as u64 - 1) as usize;
            bytes[at] = rng.next() as u8;
        }
        forms.push(bytes);
    }
    let mut longer = frame.to_vec();
    longer.extend([0xaa; 40]);
    forms.push(relength(longer));
    forms
}

#[test]
fn damaged_requests_of_every_api_and_version_disturb_nobody() {
    let mut target = Target::new();
    let name = super::harness::unique("canary");
    let mut client = target.client();
    assert_eq!(client.create_topic(&name, 1, &[]).unwrap(), 0);
    super::harness::wait_for_leaders(&mut client, &name, 1);
    let advertised: Vec<(i16, i16, i16)> =
        client.api_versions().unwrap().api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
    let samples = samples(&advertised);
    let sampled = |key: i16| samples.iter().any(|s| s.key == key && !s.frames.is_empty());
    let unknown: Vec<i16> = advertised.iter().map(|(key, _, _)| *key).filter(|key| !sampled(*key)).collect();
    if target.broker.is_some() {
        assert!(unknown.is_empty(), "advertised APIs without a sample here: {unknown:?}");
    }
    let before = target.broker.as_ref().map_or(0, |b| b.memory_kib("VmHWM"));
    let (mut rng, mut sent, mut written) = (Rng(39), 0, 0);
    for sample in &samples {
        for (version, frame) in &sample.frames {
            for bytes in damage(frame, &mut rng) {
                attack(target.address, &bytes);
                sent += 1;
            }
            canary(&mut client, &name, &mut written);
            if let Some(broker) = &mut target.broker {
                assert!(broker.is_alive(), "API {} v{version} ended the process:\n{}", sample.key, broker.log());
            }
        }
    }
    println!("{sent} damaged frames");
    if let Some(broker) = &target.broker {
        let grown = broker.memory_kib("VmHWM") - before;
        assert!(grown < GROWTH_KIB, "the process grew by {grown} KiB");
        assert!(!broker.log().contains("panicked"), "{}", broker.log());
    }
}

#[test]
fn frames_with_impossible_lengths_close_their_connection_only() {
    let mut target = Target::new();
    let mut other = target.client();
    let mut header = frame(0, &ApiVersionsRequest::default(), 1);
    let unsupported = {
        let mut bytes = frame(4, &MetadataRequest::default(), 1);
        bytes[6..8].copy_from_slice(&999i16.to_be_bytes());
        bytes
    };
    header[4..6].copy_from_slice(&4321i16.to_be_bytes());
    let cases: [(&str, Vec<u8>); 8] = [
        ("2 GiB", 0x7fff_ffffu32.to_be_bytes().to_vec()),
        ("negative", (-1i32).to_be_bytes().to_vec()),
        ("the smallest negative", i32::MIN.to_be_bytes().to_vec()),
        ("above socket.request.max.bytes", (104_857_601u32).to_be_bytes().to_vec()),
        ("empty", 0u32.to_be_bytes().to_vec()),
        ("shorter than a header", vec![0, 0, 0, 3, 0, 18, 0]),
        ("an unknown API", header),
        ("an unknown version", unsupported),
    ];
    for (what, bytes) in cases {
        let mut client = target.client();
        client.set_timeout(Duration::from_secs(10)).unwrap();
        client.send_raw(&bytes).unwrap();
        let began = Instant::now();
        let answer = client.receive_raw();
        assert!(answer.is_err(), "{what}: the connection is closed, not answered with {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(9), "{what}: closed at once, not by a timeout");
        other.api_versions().unwrap_or_else(|e| panic!("{what}: the other connection is disturbed: {e}"));
    }
    if let Some(broker) = &mut target.broker {
        assert!(broker.is_alive() && !broker.log().contains("panicked"), "{}", broker.log());
    }
}

#[test]
fn a_flood_of_connections_leaves_the_others_working() {
    let mut target = Target::new();
    if target.broker.is_none() {
        return skip("only against our own binary");
    }
    let mut other = target.client();
    let idle: Vec<_> = (0..500).filter_map(|_| TcpStream::connect(target.address).ok()).collect();
    let half: Vec<_> = (0..200)
        .filter_map(|_| {
            use std::io::Write;
            let mut socket = TcpStream::connect(target.address).ok()?;
            socket.write_all(&[0, 0, 1, 0, 0, 18]).ok()?;
            Some(socket)
        })
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        other.api_versions().expect("an established connection is served");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    drop((idle, half));
    target.client().api_versions().expect("new connections are accepted again");
    assert!(target.broker.as_mut().is_some_and(|b| b.is_alive()));
}

/// Topics whose settings make an answer of megabytes, and pipelined requests for them.
const TOPICS: usize = 600;
const PIPELINED: i32 = 120;

/// Whole frames that ask for the settings of all these topics, and now and then for their metadata.
fn large_questions(names: &[String]) -> Vec<u8> {
    let resources = names.iter().map(|name| {
        let resource = describe_configs_request::DescribeConfigsResource::default().with_resource_type(2);
        resource.with_resource_name(text(name)).with_configuration_keys(None)
    });
    let settings = DescribeConfigsRequest::default().with_resources(resources.collect());
    let settings = settings.with_include_synonyms(true).with_include_documentation(true);
    let asked = names.iter().map(|n| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(n))));
    let metadata = MetadataRequest::default().with_topics(Some(asked.collect()));
    let one = |id| if id % 10 == 0 { frame(12, &metadata, id) } else { frame(4, &settings, id) };
    (0..PIPELINED).flat_map(one).collect()
}

fn create_topics(client: &mut Client, names: &[String]) {
    let created = names.iter().map(|name| {
        let created = create_topics_request::CreatableTopic::default().with_name(topic(name)).with_num_partitions(1);
        created.with_replication_factor(-1)
    });
    let request = CreateTopicsRequest::default().with_topics(created.collect()).with_timeout_ms(30_000);
    let answer = client.call(7, &request).expect("topics are created");
    assert!(answer.topics.iter().all(|t| t.error_code == 0), "{:?}", answer.topics[0]);
}

/// Requests for settings that the process has taken.
fn asked(broker: &Broker) -> f64 {
    let text = http_get(broker, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix("casemate_requests_total{api=\"DescribeConfigs\"} "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

#[test]
fn large_answers_that_nobody_reads_stop_their_connection_only() {
    use std::io::Write;
    let target = Target::new();
    let mut other = target.client();
    let prefix = super::harness::unique("described");
    let names: Vec<String> = (0..TOPICS).map(|n| format!("{prefix}-{n}")).collect();
    create_topics(&mut other, &names);
    super::harness::wait_for_leaders(&mut other, &names[0], 1);
    let (memory, before) = target.broker.as_ref().map_or((0, 0.0), |b| (b.memory_kib("VmRSS"), asked(b)));

    let mut socket = TcpStream::connect(target.address).unwrap();
    socket.set_read_timeout(Some(super::client::TIMEOUT)).unwrap();
    let mut writing = socket.try_clone().unwrap();
    let sender = std::thread::spawn(move || writing.write_all(&large_questions(&names)).map_err(|e| e.to_string()));
    std::thread::sleep(Duration::from_secs(4));
    let began = Instant::now();
    let mut written = 0;
    for _ in 0..20 {
        canary(&mut other, &format!("{prefix}-0"), &mut written);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "others are served: {:?}", began.elapsed());
    let taken = target.broker.as_ref().map_or(0.0, |b| asked(b) - before);
    let grown = target.broker.as_ref().map_or(0, |b| b.memory_kib("VmHWM").saturating_sub(memory));

    let (mut total, mut longest) = (0, 0);
    for id in 0..PIPELINED {
        let mut head = [0; 8];
        socket.read_exact(&mut head).unwrap_or_else(|e| panic!("answer {id}: {e}"));
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        assert_eq!(head[4..], id.to_be_bytes(), "answers come in the order of their requests");
        socket.read_exact(&mut vec![0; length - 4]).unwrap_or_else(|e| panic!("answer {id}: {e}"));
        (total, longest) = (total + length, longest.max(length));
    }
    assert_eq!(sender.join().expect("the sender ends"), Ok(()));
    println!(
        "{total} bytes of answers, {longest} in one; {taken} requests taken and {grown} KiB grown before they were read"
    );
    assert!(total > 200 << 20, "{total} bytes of answers show nothing");
    if target.broker.is_some() {
        assert!(taken > 0.0 && taken < f64::from(PIPELINED) / 4.0, "{taken} requests were taken");
        assert!(grown < UNREAD_KIB, "the process grew by {grown} KiB");
    }
    let mut client = target.client();
    client.api_versions().expect("new connections are served");
}

#[test]
fn connections_above_the_limit_are_closed() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).set("max.connections.per.ip", "5").start();
    let mut kept: Vec<Client> = (0..5).map(|_| broker.client()).collect();
    for client in &mut kept {
        client.api_versions().expect("up to the limit");
    }
    let refused = broker.client().api_versions();
    assert!(refused.is_err(), "the sixth is accepted and closed");
    kept.pop();
    super::harness::eventually("a place is free", Duration::from_secs(5), || broker.client().api_versions().ok());
}
