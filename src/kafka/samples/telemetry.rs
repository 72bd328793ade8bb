//! Samples of what clients send that report their own metrics.

use bytes::Bytes;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::{frame, tags};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    match api.key {
        ApiKey::GetTelemetrySubscriptions => vec![frame(api, version, &get_telemetry_subscriptions())],
        ApiKey::PushTelemetry => {
            vec![frame(api, version, &PushTelemetryRequest::default()), frame(api, version, &push_telemetry())]
        }
        _ => Vec::new(),
    }
}

fn get_telemetry_subscriptions() -> GetTelemetrySubscriptionsRequest {
    GetTelemetrySubscriptionsRequest::default()
        .with_client_instance_id(Uuid::from_u128(11))
        .with_unknown_tagged_fields(tags(true))
}

fn push_telemetry() -> PushTelemetryRequest {
    PushTelemetryRequest::default()
        .with_client_instance_id(Uuid::from_u128(11))
        .with_subscription_id(99)
        .with_terminating(true)
        .with_compression_type(4)
        .with_metrics(Bytes::from_static(&[0xff; 150]))
        .with_unknown_tagged_fields(tags(true))
}
