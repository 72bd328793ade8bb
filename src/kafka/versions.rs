//! The one table of Kafka APIs that this broker speaks: what ApiVersions advertises, what dispatch accepts, which
//! shape the walker holds a request to, and what the corpus test covers.
//!
//! An API stands here only when its handler works. The ranges are Kafka 4.3's, capped at what kafka-protocol
//! encodes; the crate's own `valid_versions` is not used, because it includes unstable versions.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use super::walker::shapes::{self, Struct};

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
pub const API_COUNT: usize = 18;

/// Every API, in the order of the keys.
pub static APIS: [Api; API_COUNT] = [
    // Produce is advertised from 0, or librdkafka takes the broker for one without compression (KAFKA-18659).
    Api { key: ApiKey::Produce, advertised_min: 0, min: 3, max: 13, shape: &shapes::PRODUCE },
    api(ApiKey::Fetch, 4, 18, &shapes::FETCH),
    api(ApiKey::ListOffsets, 1, 10, &shapes::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &shapes::METADATA),
    api(ApiKey::ApiVersions, 0, 4, &shapes::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &shapes::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &shapes::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &shapes::DELETE_RECORDS),
    // Version 6 (two-phase commit, KIP-939) is unstable in Kafka.
    api(ApiKey::InitProducerId, 0, 5, &shapes::INIT_PRODUCER_ID),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, &shapes::OFFSET_FOR_LEADER_EPOCH),
    api(ApiKey::DescribeConfigs, 1, 4, &shapes::DESCRIBE_CONFIGS),
    api(ApiKey::DescribeLogDirs, 1, 4, &shapes::DESCRIBE_LOG_DIRS),
    api(ApiKey::CreatePartitions, 0, 3, &shapes::CREATE_PARTITIONS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &shapes::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::DescribeQuorum, 0, 2, &shapes::DESCRIBE_QUORUM),
    api(ApiKey::DescribeCluster, 0, 2, &shapes::DESCRIBE_CLUSTER),
    api(ApiKey::DescribeProducers, 0, 0, &shapes::DESCRIBE_PRODUCERS),
    api(ApiKey::DescribeTopicPartitions, 0, 0, &shapes::DESCRIBE_TOPIC_PARTITIONS),
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
        for api in &APIS {
            let valid = api.key.valid_versions();
            assert!(valid.min <= api.min && api.max <= valid.max, "{:?}", api.key);
            assert_eq!(Api::find(api.key as i16).map(|a| a.key), Some(api.key));
        }
        assert!(APIS.windows(2).all(|pair| (pair[0].key as i16) < (pair[1].key as i16)));
    }

    #[test]
    fn only_produce_is_advertised_below_what_is_decoded() {
        for api in &APIS {
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
