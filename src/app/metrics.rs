//! Which numbers `/metrics` shows, read from the parts that count them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::admin::{Buckets, Collect, MetricsWriter, ProcessMetrics};
use crate::broker::{Broker, Missing, telemetry};
use crate::env::Clock;
use crate::kafka::WireMetrics;
use crate::kafka::metrics::LATENCY_BUCKETS_US;
use crate::kafka::versions::APIS;
use crate::object::{ObjectMetrics, Objects, Outcome, Request};
use crate::peer;
use crate::quorum::Quorum;
use crate::security::ServerTls;
use crate::wal::{self, Wal};

use super::bundled;
use super::open::Opened;

/// Everything that this process counts.
pub(super) fn collectors(
    opened: &Opened,
    wire: Arc<WireMetrics>,
    tls: Arc<ServerTls>,
    clock: &dyn Clock,
) -> Vec<Box<dyn Collect>> {
    let Opened { broker, quorum, wal, objects, bundled, cluster } = opened;
    let bundled = bundled.clone();
    let (broker, quorum, wal, objects) = (broker.clone(), quorum.clone(), wal.clone(), objects.clone());
    let telemetry = broker.clone();
    vec![
        Box::new(ProcessMetrics::new(clock)),
        Box::new(move |out: &mut MetricsWriter| requests(&wire, out)),
        Box::new(move |out: &mut MetricsWriter| write_ahead_log(&wal, out)),
        Box::new(move |out: &mut MetricsWriter| bundled.iter().for_each(|store| bundled::metrics(store, out))),
        {
            let broker = broker.clone();
            Box::new(move |out: &mut MetricsWriter| compaction(&broker, out))
        },
        {
            let broker = broker.clone();
            Box::new(move |out: &mut MetricsWriter| partitions(&broker, out))
        },
        Box::new(move |out: &mut MetricsWriter| clients(&telemetry, out)),
        Box::new(move |out: &mut MetricsWriter| object_storage(&objects, broker.missing(), out)),
        Box::new(move |out: &mut MetricsWriter| metadata(&quorum, out)),
        {
            let plane = cluster.plane.clone();
            Box::new(move |out: &mut MetricsWriter| peers(&plane.metrics(), out))
        },
        Box::new(move |out: &mut MetricsWriter| {
            let days = tls.days_to_expiry();
            out.gauge("casemate_tls_certificate_days_left", "Days until the node's certificate chain expires.", days);
        }),
    ]
}

fn requests(wire: &WireMetrics, out: &mut MetricsWriter) {
    out.gauge("casemate_connections", "Open Kafka connections.", wire.connections.load(Relaxed));
    for (name, help, value) in [
        ("casemate_connections_accepted_total", "Kafka connections accepted.", &wire.accepted),
        ("casemate_connections_rejected_total", "Connections closed at once because of a limit.", &wire.rejected),
        (
            "casemate_connections_throttled_total",
            "Connections delayed or closed because too many came in one second.",
            &wire.connections_throttled,
        ),
        ("casemate_throttled_requests_total", "Requests after which a connection was muted.", &wire.throttled),
        ("casemate_throttled_ms_total", "Milliseconds for which connections were muted.", &wire.throttled_ms),
        ("casemate_handshakes_failed_total", "Connections without a finished handshake.", &wire.handshakes_failed),
        ("casemate_malformed_total", "Connections closed for what the peer sent.", &wire.malformed),
        ("casemate_received_bytes_total", "Bytes received from Kafka clients.", &wire.bytes_in),
        ("casemate_sent_bytes_total", "Bytes sent to Kafka clients.", &wire.bytes_out),
    ] {
        out.counter(name, help, value.load(Relaxed));
    }
    let names: Vec<_> = APIS.iter().map(|api| (api, format!("{:?}", api.key))).collect();
    let mut family = out.counters("casemate_requests_total", "Requests by API.");
    for (api, name) in &names {
        family.sample(&[("api", name)], wire.api(api).requests.load(Relaxed));
    }
    let mut family = out.counters("casemate_request_errors_total", "Errors answered, by API and Kafka's number.");
    for (api, name) in &names {
        for (code, count) in wire.api(api).errors() {
            family.sample(&[("api", name), ("code", &code.to_string())], count);
        }
    }
    let bounds = seconds(&LATENCY_BUCKETS_US);
    let help = "From the last byte of a request read to the last byte of its answer written.";
    let mut family = out.histograms("casemate_request_seconds", help);
    for (api, name) in &names {
        let latency = &wire.api(api).latency;
        let buckets = Buckets { bounds: &bounds, counts: &latency.buckets(), sum: latency.sum_us() as f64 / 1e6 };
        family.buckets(&[("api", name)], buckets);
    }
}

fn seconds(micros: &[u64]) -> Vec<f64> {
    micros.iter().map(|us| *us as f64 / 1e6).collect()
}

fn write_ahead_log(wal: &Wal, out: &mut MetricsWriter) {
    let usage = wal.usage();
    for (name, help, value) in [
        ("casemate_wal_needed_bytes", "WAL segments that object storage does not replace yet.", usage.needed_bytes),
        ("casemate_wal_budget_bytes", "Budget of the WAL.", usage.budget_bytes),
        ("casemate_wal_waiting_bytes", "Appended and not yet synced.", usage.waiting_bytes),
        ("casemate_wal_cached_bytes", "Segments kept only for readers.", usage.cached_bytes),
        ("casemate_wal_disk_full", "1 while the disk has no room for a further segment.", usage.disk_full as u64),
    ] {
        out.gauge(name, help, value);
    }
    let metrics = wal.metrics();
    for (name, help, value) in [
        ("casemate_wal_groups_total", "Groups of entries: one write and one sync each.", metrics.groups),
        ("casemate_wal_entries_total", "Entries written.", metrics.entries),
        ("casemate_wal_payload_bytes_total", "Bytes of entries.", metrics.payload_bytes),
        ("casemate_wal_written_bytes_total", "Bytes written to the disk.", metrics.written_bytes),
    ] {
        out.counter(name, help, value);
    }
    let bounds = seconds(&wal::SYNC_MICROS_BOUNDS);
    let sum = metrics.sync_micros_sum as f64 / 1e6;
    let buckets = Buckets { bounds: &bounds, counts: &metrics.sync_micros, sum };
    out.histograms("casemate_wal_sync_seconds", "Time of a sync.").buckets(&[], buckets);
    let bounds: Vec<_> = wal::GROUP_ENTRIES_BOUNDS.iter().map(|b| *b as f64).collect();
    let sum = metrics.entries as f64;
    let buckets = Buckets { bounds: &bounds, counts: &metrics.group_entries, sum };
    out.histograms("casemate_wal_group_entries", "Entries in a group.").buckets(&[], buckets);
}

fn partitions(broker: &Broker, out: &mut MetricsWriter) {
    let exposure = broker.registry().exposure();
    out.gauge("casemate_partitions", "Partitions led by this node.", broker.registry().count());
    let help = "Partitions that this node is to lead and that are not served yet.";
    out.gauge("casemate_opening_partitions", help, broker.opening_partitions());
    out.gauge("casemate_moving_partitions", "Partitions that are to leave this node.", broker.moving_partitions());
    out.gauge("casemate_exposure_bytes", "Acknowledged bytes whose only copy is the WAL.", exposure.bytes);
    out.gauge("casemate_exposure_seconds", "Age of the oldest of them.", exposure.age.as_secs_f64());
    out.gauge("casemate_tail_memory_bytes", "Recent batches kept in memory.", broker.registry().memory_bytes());
    let uploads = broker.upload_metrics();
    out.gauge("casemate_uploads_failing", "1 while uploads fail.", uploads.failing.load(Relaxed) as u64);
    for (name, help, value) in [
        ("casemate_uploaded_objects_total", "Bundles committed.", &uploads.objects),
        ("casemate_uploaded_bytes_total", "Bytes of committed bundles.", &uploads.bytes),
        ("casemate_upload_failures_total", "Uploads that failed and were tried again.", &uploads.failures),
        ("casemate_merged_objects_total", "Segments made by merging.", &uploads.merged_objects),
        ("casemate_merged_bytes_total", "Bytes of those segments.", &uploads.merged_bytes),
        ("casemate_swept_objects_total", "Dead objects deleted.", &uploads.swept_objects),
        ("casemate_retention_ranges_total", "Ranges of offsets dropped by retention.", &uploads.retention_ranges),
    ] {
        out.counter(name, help, value.load(Relaxed));
    }
}

/// What clients pushed about themselves (KIP-714), each metric under its own name.
fn clients(broker: &Broker, out: &mut MetricsWriter) {
    let now_ms = u64::try_from(broker.clock().boottime().as_millis()).unwrap_or(u64::MAX);
    let counts = broker.telemetry().counts(now_ms);
    out.gauge("casemate_telemetry_clients", "Clients that push metrics or may.", counts.clients);
    out.gauge("casemate_telemetry_values", "Values of clients' metrics that are shown here.", counts.values);
    out.counter("casemate_telemetry_pushes_total", "Pushes of clients' metrics taken.", counts.pushes);
    out.counter("casemate_telemetry_dropped_total", "Pushed values that found no room.", counts.dropped);
    broker.telemetry().show(now_ms, |name, kind, values| {
        const HELP: &str = "Pushed by clients.";
        let mut family = match kind {
            telemetry::Kind::Gauge => out.gauges(name, HELP),
            telemetry::Kind::Counter => out.counters(name, HELP),
        };
        for shown in values {
            let labels: Vec<_> = shown.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            match shown.value {
                // As Prometheus writes them.
                infinite if infinite == f64::INFINITY => family.sample(&labels, "+Inf"),
                infinite if infinite == f64::NEG_INFINITY => family.sample(&labels, "-Inf"),
                number => family.sample(&labels, number),
            };
        }
    });
}

fn compaction(broker: &Broker, out: &mut MetricsWriter) {
    let metrics = broker.compaction_metrics();
    for (name, help, value) in [
        ("casemate_log_cleaner_passes_total", "Passes over a compacted partition.", &metrics.passes),
        ("casemate_log_cleaner_failures_total", "Passes that failed and were tried again.", &metrics.failures),
        ("casemate_log_cleaner_read_bytes_total", "Bytes of batches read.", &metrics.bytes_read),
        ("casemate_log_cleaner_written_bytes_total", "Bytes of objects written.", &metrics.bytes_written),
        ("casemate_log_cleaner_reclaimed_bytes_total", "Bytes of batches saved.", &metrics.bytes_reclaimed),
        ("casemate_log_cleaner_removed_records_total", "Records removed.", &metrics.records_removed),
        ("casemate_log_cleaner_keyless_records_total", "Of those, records without a key.", &metrics.records_keyless),
        ("casemate_log_cleaner_damaged_total", "Batches and ranges left alone because of damage.", &metrics.damaged),
        ("casemate_log_cleaner_full_maps_total", "Passes cut short by a full map of keys.", &metrics.maps_full),
    ] {
        out.counter(name, help, value.load(Relaxed));
    }
    let help = "Bytes written for each byte reclaimed, since the start.";
    out.gauge("casemate_log_cleaner_written_per_reclaimed", help, metrics.written_per_reclaimed());
    let dirtiest = metrics.dirtiest_ppm.load(Relaxed) as f64 / 1e6;
    out.gauge("casemate_log_cleaner_dirtiest_ratio", "Share that is dirty in the dirtiest partition due.", dirtiest);
}

fn object_storage(objects: &Objects, missing: &Missing, out: &mut MetricsWriter) {
    let metrics: &ObjectMetrics = objects.metrics();
    let mut family = out.counters("casemate_object_requests_total", "Requests to object storage.");
    for request in Request::ALL {
        for outcome in Outcome::ALL {
            let labels = [("request", request.label()), ("outcome", outcome.label())];
            family.sample(&labels, metrics.requests(request, outcome));
        }
    }
    let mut family = out.counters("casemate_object_request_seconds_total", "Time spent in them.");
    for request in Request::ALL {
        family.sample(&[("request", request.label())], metrics.micros(request) as f64 / 1e6);
    }
    for (name, help, value) in [
        ("casemate_object_read_bytes_total", "Bytes read from object storage.", &metrics.bytes_read),
        ("casemate_object_written_bytes_total", "Bytes written to object storage.", &metrics.bytes_written),
        ("casemate_object_cache_hits_total", "Blocks found in the cache.", &metrics.block_hits),
        ("casemate_object_cache_misses_total", "Blocks fetched for a reader.", &metrics.block_misses),
        ("casemate_object_ahead_total", "Blocks fetched ahead of a reader.", &metrics.blocks_ahead),
        ("casemate_object_corruptions_total", "Damaged parts of objects found.", &metrics.corruptions),
    ] {
        out.counter(name, help, value.load(Relaxed));
    }
    let help = "Objects that the index names and readers did not find.";
    out.counter("casemate_object_missing_total", help, missing.found.load(Relaxed));
}

fn metadata(quorum: &Quorum, out: &mut MetricsWriter) {
    let status = quorum.status();
    out.gauge("casemate_quorum_term", "Raft term.", status.term);
    out.gauge("casemate_quorum_committed_index", "Index after the last committed entry.", status.committed);
    out.gauge("casemate_quorum_leader", "1 if this quorum has a leader.", status.leader.is_some() as u64);
}

/// Connections between nodes, by class of traffic.
fn peers(metrics: &peer::Metrics, out: &mut MetricsWriter) {
    type Count = fn(&peer::ClassMetrics) -> u64;
    let gauges: [(&str, &str, Count); 2] = [
        ("casemate_peer_served", "Connections that other nodes have open to this one.", |class| class.served),
        ("casemate_peer_dialled", "Connections that this node has open to others.", |class| class.dialled),
    ];
    for (name, help, count) in gauges {
        let mut family = out.gauges(name, help);
        for (class, counts) in &metrics.classes {
            family.sample(&[("class", class.name())], count(counts));
        }
    }
    let counters: [(&str, &str, Count); 6] = [
        ("casemate_peer_dials_failed_total", "Attempts to reach another node that failed.", |class| class.dials_failed),
        ("casemate_peer_received_bytes_total", "Bytes received from other nodes.", |class| class.bytes_in),
        ("casemate_peer_sent_bytes_total", "Bytes sent to other nodes.", |class| class.bytes_out),
        ("casemate_peer_requests_served_total", "Requests of other nodes.", |class| class.requests_in),
        ("casemate_peer_requests_total", "Requests to other nodes.", |class| class.requests_out),
        ("casemate_peer_requests_lost_total", "Requests whose connection ended before the answer.", |class| class.lost),
    ];
    for (name, help, count) in counters {
        let mut family = out.counters(name, help);
        for (class, counts) in &metrics.classes {
            family.sample(&[("class", class.name())], count(counts));
        }
    }
    let mut family = out.counters("casemate_peer_refused_total", "Peers that were refused at their hello, by reason.");
    for (reason, count) in &metrics.refused {
        family.sample(&[("reason", reason.name())], *count);
    }
    let help = "Peers whose TLS handshake failed.";
    out.counter("casemate_peer_handshakes_failed_total", help, metrics.handshakes_failed);
}
