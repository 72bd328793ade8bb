//! What the admin listener answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Collect, Health, MetricsWriter, Verdict};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Pages {
    health: Health,
    collectors: Vec<Box<dyn Collect>>,
}

/// The pages, over the health of the process and whatever counts.
pub(super) fn router(health: Health, collectors: Vec<Box<dyn Collect>>) -> Router {
    Router::new()
        .route("/", get(async || "casemate: /metrics /live /ready\n"))
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .with_state(Arc::new(Pages { health, collectors }))
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let mut out = MetricsWriter::new();
    let ready = pages.health.readiness();
    out.gauge("casemate_ready", "1 where this node serves clients, else 0.", u8::from(ready.ok));
    for collector in &pages.collectors {
        collector.collect(&mut out);
    }
    answer(StatusCode::OK, METRICS_TYPE, out.finish())
}

async fn live(State(pages): State<Arc<Pages>>, uri: Uri, headers: HeaderMap) -> Response {
    verdict("live", pages.health.liveness(), &uri, &headers)
}

async fn ready(State(pages): State<Arc<Pages>>, uri: Uri, headers: HeaderMap) -> Response {
    verdict("ready", pages.health.readiness(), &uri, &headers)
}

/// 200 or 503, with the reasons: as text, one a line, or as JSON where that is asked for.
fn verdict(name: &str, verdict: Verdict, uri: &Uri, headers: &HeaderMap) -> Response {
    let status = if verdict.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let json = uri.query() == Some("format=json") || accepted.contains("application/json");
    if json {
        let body = serde_json::json!({ name: verdict.ok, "reasons": verdict.reasons });
        return answer(status, "application/json", format!("{body}\n"));
    }
    let mut body = if verdict.ok { format!("{name}\n") } else { format!("not {name}\n") };
    for reason in &verdict.reasons {
        body.push_str(reason);
        body.push('\n');
    }
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")], body).into_response()
}
