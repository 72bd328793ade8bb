//! The one table of Kafka APIs that this broker speaks: what ApiVersions advertises, what dispatch accepts, which
//! shape the walker holds a request to, and what the corpus test covers.
//!
//! An API stands here only when its handler works. The ranges are Kafka 4.3's, capped at what kafka-protocol
//! encodes; the crate's own `valid_versions` is not used, because it includes unstable versions.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use super::walker::shapes::{Struct, admin, data, group, quota, telemetry, transaction};

/// Kafka's `UNSUPPORTED_VERSION`.
pub const UNSUPPORTED_VERSION: i16 = 35;

/// One API and its versions.
#[derive(Debug)]
pub struct Api {
    pub key: ApiKey,
    /// Lowest version that ApiVersions names. Below `min` only for Produce.
    pub advertised_min: i16,
    /// Lowest version that is decoded; lower ones close the connection.
    pub min: i16,
    pub max: i16,
    pub(super) shape: &'static Struct,
}

const fn api(key: ApiKey, min: i16, max: i16, shape: &'static Struct) -> Api {
    Api { key, advertised_min: min, min, max, shape }
}

/// Number of rows, for tables beside this one.
pub const API_COUNT: usize = ROWS.len();

/// Every API, in the order of the keys.
pub static APIS: &[Api] = ROWS;

const ROWS: &[Api] = &[
    // Produce is advertised from 0, or librdkafka takes the broker for one without compression (KAFKA-18659).
    Api { key: ApiKey::Produce, advertised_min: 0, min: 3, max: 13, shape: &data::PRODUCE },
    api(ApiKey::Fetch, 4, 18, &data::FETCH),
    api(ApiKey::ListOffsets, 1, 10, &data::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &data::METADATA),
    // Version 10 (topic ids) is not in kafka-protocol.
    api(ApiKey::OffsetCommit, 2, 9, &group::OFFSET_COMMIT),
    // Version 10 (topic ids) is not in kafka-protocol.
    api(ApiKey::OffsetFetch, 1, 9, &group::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 6, &group::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 9, &group::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 4, &group::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 5, &group::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 5, &group::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 6, &group::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 5, &group::LIST_GROUPS),
    api(ApiKey::ApiVersions, 0, 4, &data::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &admin::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &admin::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &admin::DELETE_RECORDS),
    // Version 6 (two-phase commit, KIP-939) is unstable in Kafka.
    api(ApiKey::InitProducerId, 0, 5, &transaction::INIT_PRODUCER_ID),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, &data::OFFSET_FOR_LEADER_EPOCH),
    // From version 4 on it is for brokers, which ask for several transactions at once (KIP-890).
    api(ApiKey::AddPartitionsToTxn, 0, 5, &transaction::ADD_PARTITIONS_TO_TXN),
    api(ApiKey::AddOffsetsToTxn, 0, 4, &transaction::ADD_OFFSETS_TO_TXN),
    api(ApiKey::EndTxn, 0, 5, &transaction::END_TXN),
    // Version 2 (transaction version, KIP-1228) is not in kafka-protocol.
    api(ApiKey::WriteTxnMarkers, 1, 1, &transaction::WRITE_TXN_MARKERS),
    api(ApiKey::TxnOffsetCommit, 0, 5, &transaction::TXN_OFFSET_COMMIT),
    api(ApiKey::DescribeConfigs, 1, 4, &admin::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, 0, 2, &admin::ALTER_CONFIGS),
    api(ApiKey::DescribeLogDirs, 1, 4, &admin::DESCRIBE_LOG_DIRS),
    api(ApiKey::CreatePartitions, 0, 3, &admin::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, 0, 2, &group::DELETE_GROUPS),
    api(ApiKey::ElectLeaders, 0, 2, &admin::ELECT_LEADERS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &admin::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::AlterPartitionReassignments, 0, 1, &admin::ALTER_PARTITION_REASSIGNMENTS),
    api(ApiKey::ListPartitionReassignments, 0, 0, &admin::LIST_PARTITION_REASSIGNMENTS),
    api(ApiKey::OffsetDelete, 0, 0, &group::OFFSET_DELETE),
    api(ApiKey::DescribeClientQuotas, 0, 1, &quota::DESCRIBE_CLIENT_QUOTAS),
    api(ApiKey::AlterClientQuotas, 0, 1, &quota::ALTER_CLIENT_QUOTAS),
    api(ApiKey::DescribeUserScramCredentials, 0, 0, &admin::DESCRIBE_USER_SCRAM_CREDENTIALS),
    api(ApiKey::DescribeQuorum, 0, 2, &admin::DESCRIBE_QUORUM),
    api(ApiKey::UpdateFeatures, 0, 2, &admin::UPDATE_FEATURES),
    api(ApiKey::DescribeCluster, 0, 2, &admin::DESCRIBE_CLUSTER),
    api(ApiKey::DescribeProducers, 0, 0, &admin::DESCRIBE_PRODUCERS),
    api(ApiKey::UnregisterBroker, 0, 0, &admin::UNREGISTER_BROKER),
    api(ApiKey::DescribeTransactions, 0, 0, &transaction::DESCRIBE_TRANSACTIONS),
    api(ApiKey::ListTransactions, 0, 2, &transaction::LIST_TRANSACTIONS),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1, &group::CONSUMER_GROUP_HEARTBEAT),
    api(ApiKey::ConsumerGroupDescribe, 0, 1, &group::CONSUMER_GROUP_DESCRIBE),
    api(ApiKey::GetTelemetrySubscriptions, 0, 0, &telemetry::GET_TELEMETRY_SUBSCRIPTIONS),
    api(ApiKey::PushTelemetry, 0, 0, &telemetry::PUSH_TELEMETRY),
    api(ApiKey::ListConfigResources, 0, 1, &admin::LIST_CONFIG_RESOURCES),
    api(ApiKey::DescribeTopicPartitions, 0, 0, &admin::DESCRIBE_TOPIC_PARTITIONS),
];

impl Api {
    /// The row of a wire key.
    pub fn find(key: i16) -> Option<&'static Api> {
        APIS.iter().find(|api| api.key as i16 == key)
    }

    /// Place in [`APIS`], for tables beside it.
    pub fn index(&self) -> usize {
        APIS.iter().position(|api| api.key == self.key).unwrap_or(0)
    }

    pub fn accepts(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether requests of this version use the flexible encoding (KIP-482), header and body alike.
    pub fn flexible(&self, version: i16) -> bool {
        self.key.request_header_version(version) >= 2
    }
}

/// What ApiVersions names.
pub fn advertised() -> Vec<ApiVersion> {
    APIS.iter().map(ApiVersion::from).collect()
}

impl From<&Api> for ApiVersion {
    fn from(api: &Api) -> Self {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    }
}

/// The answer to an ApiVersions request of a version that is not spoken here (KIP-511): to be encoded as version 0,
/// with ApiVersions' own range, so that the client can ask again.
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    let own = APIS.iter().filter(|api| api.key == ApiKey::ApiVersions).map(ApiVersion::from).collect();
    ApiVersionsResponse::default().with_error_code(UNSUPPORTED_VERSION).with_api_keys(own)
}

/// Whether a client's software name or version has the form that KIP-511 asks for:
/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
pub fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_one_that_the_crate_encodes() {
        for api in APIS {
            let valid = api.key.valid_versions();
            assert!(valid.min <= api.min && api.max <= valid.max, "{:?}", api.key);
            assert_eq!(Api::find(api.key as i16).map(|a| a.key), Some(api.key));
        }
        assert!(APIS.windows(2).all(|pair| (pair[0].key as i16) < (pair[1].key as i16)));
    }

    #[test]
    fn only_produce_is_advertised_below_what_is_decoded() {
        for api in APIS {
            assert_eq!(api.advertised_min != api.min, api.key == ApiKey::Produce);
        }
    }

    #[test]
    fn software_names_follow_kip_511() {
        for good in ["a", "apache-kafka-java", "4.3.1", "librdkafka", "a..b", "A-9"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a b", "a_b", "é", "a/"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
