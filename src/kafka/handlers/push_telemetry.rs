//! PushTelemetry (key 72, KIP-714): takes a client's metrics, for the metrics endpoint.

use kafka_protocol::messages::{PushTelemetryRequest, PushTelemetryResponse};

use crate::broker::telemetry::Push;
use crate::kafka::{Outcome, Reply, Request};

use super::Handlers;
use super::get_telemetry_subscriptions::{telemetry_client, telemetry_code};

impl Handlers {
    pub(super) async fn push_telemetry(&self, request: Request, body: PushTelemetryRequest) -> Reply {
        let broker = self.broker.clone();
        let id = *body.client_instance_id.as_bytes();
        let client = telemetry_client(&request, &id);
        let (now_ms, bytes_max) = (self.boottime_ms(), broker.broker_settings().telemetry_bytes_max);
        // What is unpacked may be megabytes: not on a thread that other connections wait for.
        let pushed = tokio::task::spawn_blocking(move || {
            let push = Push {
                id,
                subscription: body.subscription_id,
                terminating: body.terminating,
                compression: body.compression_type,
                metrics: &body.metrics,
                bytes_max,
            };
            broker.telemetry().push(push, &client, now_ms)
        });
        let mut response = PushTelemetryResponse::default();
        match pushed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => response.error_code = telemetry_code(error).code(),
            // Only when the process ends.
            Err(_) => return Reply::Now(Outcome::Close("interrupted".into())),
        }
        self.count(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}
