//! UpdateFeatures (key 57, KIP-584): the levels of this release's features are fixed. What asks for the level that is
//! in force succeeds, as in Kafka; everything else is refused.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::base::NodeId;
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::features::{self, Feature};
use super::{Handlers, text};

/// Kinds of updates; what is not one of them is unknown.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

const METADATA_VERSION: &str = "metadata.version";

impl Handlers {
    pub(super) async fn update_features(&self, request: Request, body: UpdateFeaturesRequest) -> Reply {
        let mut response = UpdateFeaturesResponse::default().with_error_message(None);
        let version = request.to.version;
        let permitted = self.permit(&request.context, Operation::Alter, Resource::CLUSTER);
        let result = permitted.map_err(Refusal::from).and_then(|_permit| {
            let mut updates = body.feature_updates.iter();
            updates.try_for_each(|update| check(update, kind(update, version), self.broker.node))
        });
        match result {
            // Up to version 1 each feature is answered for itself.
            Ok(()) if version < 2 => {
                let fine = |update: &FeatureUpdateKey| {
                    UpdatableFeatureResult::default()
                        .with_feature(update.feature.clone())
                        .with_error_message(Some(text("NONE")))
                };
                response.results = body.feature_updates.iter().map(fine).collect();
            }
            Ok(()) => {}
            Err(refusal) => {
                self.count(&request, refusal.code());
                (response.error_code, response.error_message) = (refusal.code(), refusal.text());
            }
        }
        Reply::encode(request.to, &response)
    }
}

/// Version 0 has a flag instead of a kind.
fn kind(update: &FeatureUpdateKey, version: i16) -> i8 {
    match (version, update.allow_downgrade) {
        (0, true) => SAFE_DOWNGRADE,
        (0, false) => UPGRADE,
        _ => update.upgrade_type,
    }
}

fn check(update: &FeatureUpdateKey, kind: i8, node: NodeId) -> Result<(), Refusal> {
    let (name, level) = (&*update.feature, update.max_version_level);
    let failed = |reason: String| {
        let message = format!("The update failed for all features since the following feature had an error: {reason}");
        Refusal::new(ResponseError::InvalidUpdateVersion, message)
    };
    let invalid = |reason: &str| failed(format!("Invalid update version {level} for feature {name}. {reason}"));
    if !matches!(kind, UPGRADE | SAFE_DOWNGRADE | UNSAFE_DOWNGRADE) {
        return Err(invalid("The controller does not support the given upgrade type."));
    }
    if level < 0 {
        return Err(invalid("A feature version cannot be less than 0."));
    }
    let Some(Feature { min, max, .. }) = features::find(name) else {
        return Err(match level {
            0 => invalid(&format!("Feature {name} not found.")),
            _ => invalid(&format!("Local controller {node} does not support this feature.")),
        });
    };
    if !(*min..=*max).contains(&level) {
        return Err(invalid(&format!("Local controller {node} only supports versions {min}-{max}")));
    }
    match kind {
        _ if level == *max => Ok(()),
        UPGRADE => Err(invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
             downgrade.",
        )),
        _ if name == METADATA_VERSION => Err(failed(format!(
            "Unsupported metadata.version downgrade from {max} to {level}. Refusing to perform the requested downgrade \
             because it might delete metadata information."
        ))),
        _ => Err(invalid("The level of this feature is fixed in this release.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feature, level, type of upgrade, and what a real Kafka 4.3.1 answered, but for lower levels, which it admits.
    const ASKED: &[(&str, i16, i8, &str)] = &[
        ("group.version", 1, 1, ""),
        ("group.version", 1, 2, ""),
        ("metadata.version", 30, 1, ""),
        ("nope", 1, 1, "Invalid update version 1 for feature nope. Local controller 1 does not support this feature."),
        ("nope", 0, 2, "Invalid update version 0 for feature nope. Feature nope not found."),
        ("", 1, 1, "Invalid update version 1 for feature . Local controller 1 does not support this feature."),
        (
            "group.version",
            2,
            1,
            "Invalid update version 2 for feature group.version. Local controller 1 only supports versions 0-1",
        ),
        (
            "group.version",
            -1,
            2,
            "Invalid update version -1 for feature group.version. A feature version cannot be less than 0.",
        ),
        (
            "group.version",
            1,
            0,
            "Invalid update version 1 for feature group.version. The controller does not support the given upgrade type.",
        ),
        (
            "group.version",
            1,
            4,
            "Invalid update version 1 for feature group.version. The controller does not support the given upgrade type.",
        ),
        (
            "group.version",
            0,
            1,
            "Invalid update version 0 for feature group.version. Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
        ),
        (
            "metadata.version",
            0,
            3,
            "Invalid update version 0 for feature metadata.version. Local controller 1 only supports versions 7-30",
        ),
        (
            "metadata.version",
            29,
            2,
            "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it might delete metadata information.",
        ),
        (
            "group.version",
            0,
            2,
            "Invalid update version 0 for feature group.version. The level of this feature is fixed in this release.",
        ),
    ];

    #[test]
    fn only_the_level_in_force_is_admitted() {
        for (name, level, kind, expected) in ASKED.iter().copied() {
            let update = FeatureUpdateKey::default().with_feature(text(name)).with_max_version_level(level);
            let said = match check(&update, kind, NodeId(1)) {
                Ok(()) => String::new(),
                Err(refusal) => {
                    assert_eq!(refusal.code(), 95);
                    let start = "The update failed for all features since the following feature had an error: ";
                    refusal.message.unwrap().strip_prefix(start).unwrap().to_owned()
                }
            };
            assert_eq!(said, expected, "{name} {level} {kind}");
        }
    }

    #[test]
    fn old_versions_say_downgrade_in_their_own_way() {
        let update = FeatureUpdateKey::default().with_allow_downgrade(true).with_upgrade_type(1);
        assert_eq!([kind(&update, 0), kind(&update, 1)], [SAFE_DOWNGRADE, UPGRADE]);
    }
}
