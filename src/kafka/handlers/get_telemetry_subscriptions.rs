//! GetTelemetrySubscriptions (key 71, KIP-714): which metrics this client is to push, and how often. As in Kafka it
//! needs no permission: a client tells about itself only.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};
use uuid::Uuid;

use crate::batch::Compression;
use crate::broker::telemetry::{Client, ClientInstance, TelemetryError};
use crate::kafka::{Reply, Request};

use super::{Handlers, text};

/// Codecs that are understood, the best first.
const CODECS: [Compression; 4] = [Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::Snappy];

impl Handlers {
    pub(super) async fn get_telemetry_subscriptions(
        &self,
        request: Request,
        body: GetTelemetrySubscriptionsRequest,
    ) -> Reply {
        let asked = *body.client_instance_id.as_bytes();
        let client = telemetry_client(&request, &asked);
        let now_ms = self.boottime_ms();
        let told = self.broker.telemetry().subscribe(asked, &client, now_ms, || self.new_instance());
        let mut response = GetTelemetrySubscriptionsResponse::default();
        match told {
            Ok(told) => {
                let bytes_max = self.broker.broker_settings().telemetry_bytes_max;
                response.client_instance_id = Uuid::from_bytes(told.id);
                response.subscription_id = told.subscription;
                response.requested_metrics = told.metrics.into_iter().map(text).collect();
                response.accepted_compression_types = CODECS.map(|codec| codec.id() as i8).to_vec();
                response.push_interval_ms = told.push_interval_ms;
                response.telemetry_max_bytes = i32::try_from(bytes_max).unwrap_or(i32::MAX);
                response.delta_temporality = true;
            }
            Err(error) => response.error_code = telemetry_code(error).code(),
        }
        self.count(&request, response.error_code);
        Reply::encode(request.to, &response)
    }

    pub(super) fn boottime_ms(&self) -> u64 {
        u64::try_from(self.broker.clock().boottime().as_millis()).unwrap_or(u64::MAX)
    }

    /// A random identity, of the form that UUIDs of version 4 have.
    fn new_instance(&self) -> ClientInstance {
        let mut id = [0; 16];
        self.broker.entropy().fill(&mut id);
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        id
    }
}

/// What is known of the client of a request.
pub(super) fn telemetry_client(request: &Request, id: &ClientInstance) -> Client {
    let software = request.context.software.get();
    Client {
        instance: crate::base::TopicId(*id).to_string(),
        client_id: request.client_id.as_deref().unwrap_or_default().to_owned(),
        software_name: software.map(|(name, _)| name.to_string()),
        software_version: software.map(|(_, version)| version.to_string()),
        address: request.context.peer_addr.ip().to_canonical().to_string(),
        port: request.context.peer_addr.port(),
    }
}

pub(super) fn telemetry_code(error: TelemetryError) -> ResponseError {
    match error {
        TelemetryError::ReservedId | TelemetryError::Terminated => ResponseError::InvalidRequest,
        TelemetryError::TooEarly => ResponseError::ThrottlingQuotaExceeded,
        TelemetryError::UnknownSubscription => ResponseError::UnknownSubscriptionId,
        TelemetryError::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
        TelemetryError::TooLarge => ResponseError::TelemetryTooLarge,
        TelemetryError::Unreadable => ResponseError::InvalidRecord,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_numbers_that_kafka_gives() {
        let codes = [
            TelemetryError::ReservedId,
            TelemetryError::Terminated,
            TelemetryError::TooEarly,
            TelemetryError::UnknownSubscription,
            TelemetryError::UnsupportedCompression,
            TelemetryError::TooLarge,
            TelemetryError::Unreadable,
        ];
        assert_eq!(codes.map(|error| telemetry_code(error).code()), [42, 42, 89, 117, 76, 118, 87]);
    }
}
