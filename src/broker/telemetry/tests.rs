//! Clients over time: when they may ask and push, and what is shown of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::otlp::write;
use super::*;

const ID: ClientInstance = [9; 16];

fn telemetry(interval_ms: u64) -> Telemetry {
    let telemetry = Telemetry::default();
    set(&telemetry, interval_ms, "a.");
    telemetry
}

fn set(telemetry: &Telemetry, interval_ms: u64, metrics: &str) {
    let own = BTreeMap::from([
        ("interval.ms".to_owned(), interval_ms.to_string()),
        ("metrics".to_owned(), metrics.to_owned()),
    ]);
    telemetry.set(&Arc::new(BTreeMap::from([("m".to_owned(), own)])));
}

fn client() -> Client {
    Client { instance: "id".to_owned(), client_id: "c".to_owned(), ..Client::default() }
}

fn ask(telemetry: &Telemetry, id: ClientInstance, now_ms: u64) -> Result<Subscribed, TelemetryError> {
    telemetry.subscribe(id, &client(), now_ms, || [7; 16])
}

fn push(subscription: i32) -> Push<'static> {
    Push { id: ID, subscription, terminating: false, compression: 0, metrics: &[], bytes_max: 1 << 20 }
}

fn shown(telemetry: &Telemetry, now_ms: u64) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    telemetry.show(now_ms, |name, _, values| all.extend(values.map(|shown| (name.to_owned(), shown.value))));
    all
}

/// Each as a real Kafka 4.3.1 answered.
#[test]
fn who_may_ask_and_push_is_as_in_kafka() {
    let telemetry = telemetry(1_000);
    let subscribed = ask(&telemetry, ID, 0).unwrap();
    assert_eq!((&subscribed.metrics[..], subscribed.push_interval_ms), (&["a.".to_owned()][..], 1_000));
    assert_eq!(ask(&telemetry, ID, 0), Err(TelemetryError::TooEarly));
    let wrong = push(subscribed.subscription.wrapping_add(1));
    assert_eq!(telemetry.push(wrong, &client(), 0), Err(TelemetryError::UnknownSubscription));
    assert_eq!(telemetry.push(wrong, &client(), 0), Err(TelemetryError::TooEarly));
    assert_eq!(telemetry.push(push(subscribed.subscription), &client(), 999), Err(TelemetryError::TooEarly));
    assert_eq!(telemetry.push(push(subscribed.subscription), &client(), 1_000), Ok(()));
    let last = Push { terminating: true, ..push(subscribed.subscription) };
    assert_eq!(telemetry.push(last, &client(), 1_001), Ok(()), "the last one is never too early");
    assert_eq!(telemetry.push(last, &client(), 9_000), Err(TelemetryError::Terminated));
    for reserved in [[0; 16], {
        let mut one = [0; 16];
        one[15] = 1;
        one
    }] {
        let push = Push { id: reserved, ..push(1) };
        assert_eq!(telemetry.push(push, &client(), 0), Err(TelemetryError::ReservedId));
    }
}

#[test]
fn a_client_without_an_identity_is_given_one() {
    let telemetry = telemetry(1_000);
    let mut drawn = [[0; 16], [7; 16], [7; 16], [8; 16]].into_iter();
    let mut draw = || drawn.next().unwrap();
    assert_eq!(telemetry.subscribe([0; 16], &client(), 0, &mut draw).unwrap().id, [7; 16]);
    assert_eq!(telemetry.subscribe([0; 16], &client(), 0, &mut draw).unwrap().id, [8; 16], "7 is taken");
}

#[test]
fn a_changed_subscription_is_told_at_once() {
    let telemetry = telemetry(100_000);
    let before = ask(&telemetry, ID, 0).unwrap();
    set(&telemetry, 200, "b.");
    assert_eq!(telemetry.push(push(before.subscription), &client(), 10), Err(TelemetryError::UnknownSubscription));
    set(&telemetry, 300, "b.");
    let after = ask(&telemetry, ID, 20).unwrap();
    assert_eq!((&after.metrics[..], after.push_interval_ms), (&["b.".to_owned()][..], 300));
    assert_eq!(telemetry.push(push(after.subscription), &client(), 21), Ok(()));
}

#[test]
fn what_a_client_pushed_is_shown_until_it_is_silent() {
    let telemetry = telemetry(1_000);
    let subscription = ask(&telemetry, ID, 0).unwrap().subscription;
    let metrics = write::data(&[], &[write::gauge("a.rate", 2.5, &[]), write::sum("a.total", 4, true, true)]);
    for (at, codec) in [(0, Compression::Gzip), (1_000, Compression::Zstd)] {
        let packed = pack(codec, &metrics);
        let push = Push { compression: codec.id() as i8, metrics: &packed, ..push(subscription) };
        assert_eq!(telemetry.push(push, &client(), at), Ok(()));
    }
    let expected = [("casemate_client_a_rate".to_owned(), 2.5), ("casemate_client_a_total".to_owned(), 8.0)];
    assert_eq!(shown(&telemetry, 1_000), expected);
    assert_eq!(telemetry.counts(60_999), Counts { clients: 1, values: 2, pushes: 2, dropped: 0 });
    assert_eq!(telemetry.counts(61_000), Counts { clients: 0, values: 0, pushes: 2, dropped: 0 });
    assert_eq!(shown(&telemetry, 61_000), []);
}

fn pack(codec: Compression, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match codec {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::stream::encode_all(bytes, 3).unwrap(),
    }
}

#[test]
fn bad_metrics_are_refused_and_change_nothing() {
    let zeros = pack(Compression::Gzip, &vec![0; 20 << 20]);
    let long = vec![0; (1 << 20) + 1];
    for (codec, metrics, expected) in [
        (0, &b"\x0a\xff"[..], TelemetryError::Unreadable),
        (1, b"no gzip", TelemetryError::Unreadable),
        (5, b"", TelemetryError::UnsupportedCompression),
        (-1, b"", TelemetryError::UnsupportedCompression),
        (0, &long, TelemetryError::TooLarge),
        (1, &zeros, TelemetryError::TooLarge),
    ] {
        let telemetry = telemetry(1_000);
        let subscription = ask(&telemetry, ID, 0).unwrap().subscription;
        let push = Push { compression: codec, metrics, ..push(subscription) };
        assert_eq!(telemetry.push(push, &client(), 0), Err(expected));
        assert_eq!(shown(&telemetry, 0), []);
    }
}
