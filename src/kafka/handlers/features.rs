//! The features that a cluster finalises (KIP-584): one constant table, each with a switch.
//!
//! A feature is switched on by the release that implements it, and its level is then the highest; the levels are not
//! part of the metadata and no request changes them.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};

use super::text;

/// ApiVersions version from which features are told.
const FEATURES_SINCE: i16 = 3;
/// Before this version of ApiVersions clients cannot read a feature that is supported from level 0 on (KIP-1022).
const LEVEL_ZERO_SINCE: i16 = 4;

/// One feature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feature {
    pub name: &'static str,
    /// Levels that are supported; the highest is in force.
    pub min: i16,
    pub max: i16,
    /// Whether this release implements it; else it is not told of.
    pub enabled: bool,
}

const FEATURES: &[Feature] = &[
    // KIP-848: the consumer protocol.
    Feature { name: "group.version", min: 0, max: 1, enabled: true },
    // What the metadata can express, of which clients only read that it is Kafka 4.3's.
    Feature { name: "metadata.version", min: 7, max: 30, enabled: true },
    // KIP-890: a producer's epoch is raised with every transaction.
    Feature { name: "transaction.version", min: 0, max: 2, enabled: true },
];

/// The features of this release.
pub(super) fn enabled() -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().filter(|feature| feature.enabled)
}

/// The feature of that name, if this release has it.
pub(super) fn find(name: &str) -> Option<&'static Feature> {
    enabled().find(|feature| feature.name == name)
}

/// Adds the features to an answer of this version. `epoch` tells clients which of two answers is newer; it never goes
/// back.
pub(super) fn tell(response: &mut ApiVersionsResponse, version: i16, epoch: u64) {
    if version < FEATURES_SINCE {
        return;
    }
    response.supported_features = enabled()
        .filter(|feature| feature.min > 0 || version >= LEVEL_ZERO_SINCE)
        .map(|feature| {
            SupportedFeatureKey::default()
                .with_name(text(feature.name))
                .with_min_version(feature.min)
                .with_max_version(feature.max)
        })
        .collect();
    response.finalized_features_epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    response.finalized_features = enabled()
        .map(|feature| {
            FinalizedFeatureKey::default()
                .with_name(text(feature.name))
                .with_min_version_level(feature.max)
                .with_max_version_level(feature.max)
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a real Kafka 4.3.1 answered, of the features that are here.
    #[test]
    fn features_are_told_as_in_kafka() {
        let told = |version| {
            let mut response = ApiVersionsResponse::default();
            tell(&mut response, version, 23);
            let supported: Vec<_> = response
                .supported_features
                .iter()
                .map(|f| (f.name.to_string(), f.min_version, f.max_version))
                .collect();
            let finalized: Vec<_> = response
                .finalized_features
                .iter()
                .map(|f| (f.name.to_string(), f.min_version_level, f.max_version_level))
                .collect();
            (supported, finalized, response.finalized_features_epoch)
        };
        let all = |of: &[(&str, i16, i16)]| -> Vec<(String, i16, i16)> {
            of.iter().map(|(name, min, max)| (name.to_string(), *min, *max)).collect()
        };
        let finalized = all(&[("group.version", 1, 1), ("metadata.version", 30, 30), ("transaction.version", 2, 2)]);
        let supported = all(&[("group.version", 0, 1), ("metadata.version", 7, 30), ("transaction.version", 0, 2)]);
        assert_eq!(told(4), (supported, finalized.clone(), 23));
        assert_eq!(told(3), (all(&[("metadata.version", 7, 30)]), finalized, 23));
        assert_eq!(told(2), (vec![], vec![], -1));
    }
}
