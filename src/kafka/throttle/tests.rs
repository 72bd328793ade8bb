//! The place of the throttle time against kafka-protocol, and a service under quotas.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock};

use kafka_protocol::messages as wire;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::*;
use crate::broker::quota::{Window, Windows};
use crate::kafka::encode;
use crate::kafka::request::{ConnectionContext, RequestBody};
use crate::kafka::versions::{APIS, Api};
use crate::metadata::{QuotaEntity, QuotaName};
use crate::security::Principal;

const THROTTLE_MS: i32 = 0x0102_0304;

/// The bytes with the time written by this module and by kafka-protocol, for one API and all versions that have it.
fn compare<T: Encodable + Default + Clone + PartialEq + std::fmt::Debug>(
    api: &'static Api,
    with: fn(T, i32) -> T,
    body: T,
) {
    for version in api.min..=api.max {
        let to = ReplyTo { api, version, correlation_id: 7 };
        let plain = encode::response(to, &body).unwrap();
        let Ok(expected) = encode::response(to, &with(body.clone(), THROTTLE_MS)) else {
            // kafka-protocol refuses a time where the version has none.
            assert_eq!(with_throttle_time(to, plain.clone(), THROTTLE_MS).to_bytes(), plain.to_bytes());
            continue;
        };
        let patched = with_throttle_time(to, plain, THROTTLE_MS);
        assert_eq!(patched.to_bytes(), expected.to_bytes(), "{:?} {version}", api.key);
    }
}

macro_rules! compare_all {
    ($key:expr, $api:expr, $($name:ident: $response:ident),+ $(,)?) => {
        match $key {
            $(ApiKey::$name => compare::<wire::$response>(
                $api,
                |response, ms| response.with_throttle_time_ms(ms),
                wire::$response::default(),
            ),)+
            other => panic!("{other:?}: say where its throttle time is"),
        }
    };
}

#[test]
fn the_throttle_time_is_where_kafka_protocol_writes_it() {
    for api in APIS {
        match api.key {
            ApiKey::Produce | ApiKey::DescribeQuorum | ApiKey::WriteTxnMarkers => continue,
            ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => continue,
            _ => {}
        }
        compare_all!(api.key, api,
            Fetch: FetchResponse,
            ListOffsets: ListOffsetsResponse,
            Metadata: MetadataResponse,
            OffsetCommit: OffsetCommitResponse,
            OffsetFetch: OffsetFetchResponse,
            FindCoordinator: FindCoordinatorResponse,
            JoinGroup: JoinGroupResponse,
            Heartbeat: HeartbeatResponse,
            LeaveGroup: LeaveGroupResponse,
            SyncGroup: SyncGroupResponse,
            DescribeGroups: DescribeGroupsResponse,
            ListGroups: ListGroupsResponse,
            ApiVersions: ApiVersionsResponse,
            CreateTopics: CreateTopicsResponse,
            DeleteTopics: DeleteTopicsResponse,
            DeleteRecords: DeleteRecordsResponse,
            InitProducerId: InitProducerIdResponse,
            OffsetForLeaderEpoch: OffsetForLeaderEpochResponse,
            AddPartitionsToTxn: AddPartitionsToTxnResponse,
            AddOffsetsToTxn: AddOffsetsToTxnResponse,
            EndTxn: EndTxnResponse,
            TxnOffsetCommit: TxnOffsetCommitResponse,
            DescribeConfigs: DescribeConfigsResponse,
            AlterConfigs: AlterConfigsResponse,
            DescribeLogDirs: DescribeLogDirsResponse,
            CreatePartitions: CreatePartitionsResponse,
            DeleteGroups: DeleteGroupsResponse,
            ElectLeaders: ElectLeadersResponse,
            IncrementalAlterConfigs: IncrementalAlterConfigsResponse,
            AlterPartitionReassignments: AlterPartitionReassignmentsResponse,
            ListPartitionReassignments: ListPartitionReassignmentsResponse,
            OffsetDelete: OffsetDeleteResponse,
            DescribeClientQuotas: DescribeClientQuotasResponse,
            AlterClientQuotas: AlterClientQuotasResponse,
            DescribeUserScramCredentials: DescribeUserScramCredentialsResponse,
            UpdateFeatures: UpdateFeaturesResponse,
            DescribeCluster: DescribeClusterResponse,
            DescribeProducers: DescribeProducersResponse,
            UnregisterBroker: UnregisterBrokerResponse,
            DescribeTransactions: DescribeTransactionsResponse,
            ListTransactions: ListTransactionsResponse,
            ConsumerGroupHeartbeat: ConsumerGroupHeartbeatResponse,
            ConsumerGroupDescribe: ConsumerGroupDescribeResponse,
            GetTelemetrySubscriptions: GetTelemetrySubscriptionsResponse,
            PushTelemetry: PushTelemetryResponse,
            ListConfigResources: ListConfigResourcesResponse,
            DescribeTopicPartitions: DescribeTopicPartitionsResponse,
        );
    }
}

#[test]
fn the_list_of_apis_may_be_long_or_short() {
    let api = Api::find(ApiKey::ApiVersions as i16).unwrap();
    for count in [0, 1, 40, 125, 126, 127, 128, 300] {
        let keys = vec![wire::api_versions_response::ApiVersion::default(); count];
        let body = wire::ApiVersionsResponse::default().with_api_keys(keys);
        compare(api, |response, ms| response.with_throttle_time_ms(ms), body);
    }
}

#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn boottime(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }
}

/// Takes time, notes whether the request is measured, and answers.
struct Slow {
    clock: Arc<Hand>,
    takes_ms: u64,
    measured: Mutex<Vec<bool>>,
}

impl Service for Slow {
    fn begin(&self, request: Request) -> BoxFuture<'_, Reply> {
        self.measured.lock().unwrap().push(request.meter.is_some());
        let (clock, takes_ms, to) = (self.clock.clone(), self.takes_ms, request.to);
        Box::pin(async move {
            clock.0.fetch_add(takes_ms / 2, Relaxed);
            Reply::later(async move {
                clock.0.fetch_add(takes_ms / 2, Relaxed);
                Outcome::encode(to, &wire::ListOffsetsResponse::default())
            })
        })
    }
}

fn request(principal: Principal) -> Request {
    let api = Api::find(ApiKey::ListOffsets as i16).unwrap();
    let context = ConnectionContext {
        connection_id: 1,
        listener: "test".into(),
        peer_addr: ([127, 0, 0, 1], 9).into(),
        principal,
        software: OnceLock::new(),
    };
    Request {
        to: ReplyTo { api, version: 2, correlation_id: 7 },
        client_id: None,
        body: RequestBody::ListOffsets(Default::default()),
        context: Arc::new(context),
        bytes: 10,
        meter: None,
    }
}

async fn outcome(service: &Throttling, user: &str) -> Outcome {
    match service.begin(request(Principal::user(user))).await {
        Reply::Now(outcome) => outcome,
        Reply::Later(work) => work.await,
    }
}

#[tokio::test]
async fn a_client_over_its_quota_is_told_and_muted() {
    let clock = Arc::new(Hand::default());
    let quotas = Arc::new(QuotaManager::new(Windows { client: Window::KAFKA, mutation: Window::KAFKA }));
    let slow = Arc::new(Slow { clock: clock.clone(), takes_ms: 600, measured: Mutex::default() });
    let metrics = Arc::new(WireMetrics::new());
    let service = Throttling::new(slow.clone(), quotas.clone(), clock, metrics.clone());
    assert!(matches!(outcome(&service, "u").await, Outcome::Send(_)));
    assert_eq!(slow.measured.lock().unwrap()[..], [false], "nobody has a quota");

    let entity = QuotaEntity { user: Some(QuotaName::Named("u".to_owned())), ..QuotaEntity::default() };
    quotas.set(&Arc::new(BTreeMap::from([(entity, BTreeMap::from([("request_percentage".to_owned(), 10.0)]))])));
    assert!(matches!(outcome(&service, "v").await, Outcome::Send(_)));
    assert!(matches!(outcome(&service, "u").await, Outcome::Send(_)), "600 ms of 10 s are within 10 percent");
    let Outcome::Throttled { answer: Some(rope), mute } = outcome(&service, "u").await else { panic!("not throttled") };
    assert_eq!(mute, Duration::from_secs(1));
    let mut bytes = rope.to_bytes().slice(8..);
    let answer = wire::ListOffsetsResponse::decode(&mut bytes, 2).unwrap();
    assert_eq!(answer.throttle_time_ms, 1_000);
    assert_eq!((metrics.throttled.load(Relaxed), metrics.throttled_ms.load(Relaxed)), (1, 1_000));
    assert_eq!(slow.measured.lock().unwrap()[..], [false, true, true, true]);
}
