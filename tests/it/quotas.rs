//! Quotas, clients' metrics, and settings that several clients change at once, over the wire.
//!
//! But for what reads the metrics endpoint these tests also pass on a real Kafka (see `Target`).

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, fetch_request, produce_request, text, topic};
use super::harness::{Target, eventually, now_ms, unique, wait_for_leaders};
use kafka_protocol::messages::*;
use std::time::{Duration, Instant};
use uuid::Uuid;

const READY: Duration = Duration::from_secs(10);

/// Sets a quota of one client id and waits until it is described.
fn set_quota(client: &mut Client, client_id: &str, key: &str, value: f64) {
    let entity = alter_client_quotas_request::EntityData::default()
        .with_entity_type(text("client-id"))
        .with_entity_name(Some(text(client_id)));
    let op = alter_client_quotas_request::OpData::default().with_key(text(key)).with_value(value);
    let entry = alter_client_quotas_request::EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
    let answer = client.call(1, &AlterClientQuotasRequest::default().with_entries(vec![entry])).unwrap();
    assert_eq!(answer.entries[0].error_code, 0, "{:?}", answer.entries[0].error_message);
    let component = describe_client_quotas_request::ComponentData::default()
        .with_entity_type(text("client-id"))
        .with_match(Some(text(client_id)));
    let request = DescribeClientQuotasRequest::default().with_components(vec![component]);
    eventually("the quota is described", READY, || {
        let entries = client.call(1, &request).unwrap().entries.unwrap_or_default();
        entries.iter().flat_map(|e| &e.values).any(|v| &*v.key == key && v.value == value).then_some(())
    });
    if std::env::var_os("CASEMATE_TEST_BOOTSTRAP").is_some() {
        // A real Kafka obeys a little later than it describes.
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn produce(client: &mut Client, name: &str, bytes: usize) -> ProduceResponse {
    let batch = batch::encode(&[vec![7; bytes]], NO_PRODUCER, -1, now_ms());
    client.call(9, &produce_request(name, -1, vec![(0, batch)])).unwrap()
}

#[test]
fn a_producer_over_its_quota_is_told_at_once_and_muted() {
    let target = Target::new();
    let (name, id) = (unique("quota"), unique("producer"));
    let mut other = target.client();
    assert_eq!(other.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut other, &name, 1);
    set_quota(&mut other, &id, "producer_byte_rate", 10_000.0);
    let mut client = target.client().named(&id);
    client.api_versions().unwrap();
    let began = Instant::now();
    let answer = produce(&mut client, &name, 120_000);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "what is too much is done all the same");
    let throttle = Duration::from_millis(answer.throttle_time_ms as u64);
    assert!(
        (1_500..2_500).contains(&answer.throttle_time_ms),
        "{throttle:?} for 12,000 a second where 10,000 are allowed"
    );
    assert!(began.elapsed() < Duration::from_secs(1), "the answer is not delayed");
    // Another client id, another connection: not touched.
    assert_eq!(produce(&mut other, &name, 1_000).throttle_time_ms, 0);
    assert!(began.elapsed() < Duration::from_secs(1));
    client.api_versions().unwrap();
    assert!(began.elapsed() >= throttle - Duration::from_millis(100), "the connection was muted");
}

#[test]
fn a_consumer_over_its_quota_is_given_nothing_and_its_session_goes_on() {
    let target = Target::new();
    let (name, id) = (unique("quota"), unique("consumer"));
    let mut admin = target.client();
    assert_eq!(admin.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut admin, &name, 1);
    for _ in 0..4 {
        assert_eq!(produce(&mut admin, &name, 30_000).responses[0].partition_responses[0].error_code, 0);
    }
    set_quota(&mut admin, &id, "consumer_byte_rate", 10_000.0);
    let mut client = target.client().named(&id);
    let ask = |client: &mut Client, session: i32, epoch: i32| {
        let request = fetch_request(&name, 0, 0, 0, 80_000).with_session_id(session).with_session_epoch(epoch);
        client.call(11, &request).unwrap()
    };
    let bytes = |answer: &FetchResponse| -> usize {
        answer.responses.iter().flat_map(|t| &t.partitions).map(|p| p.records.as_ref().map_or(0, |r| r.len())).sum()
    };
    let first = ask(&mut client, 0, 0);
    assert!(bytes(&first) >= 60_000 && first.throttle_time_ms == 0 && first.session_id > 0);
    let began = Instant::now();
    let throttled = ask(&mut client, first.session_id, 1);
    assert!(throttled.throttle_time_ms > 500, "{}", throttled.throttle_time_ms);
    assert_eq!((bytes(&throttled), throttled.session_id, throttled.error_code), (0, first.session_id, 0));
    assert!(began.elapsed() < Duration::from_millis(900), "the answer is not delayed");
    let after = ask(&mut client, first.session_id, 2);
    assert_eq!(after.error_code, 0, "the epoch went on");
    assert!(began.elapsed() >= Duration::from_millis(throttled.throttle_time_ms as u64 - 100));
}

#[test]
fn changes_of_topics_over_the_quota_are_refused_or_waited_for() {
    let target = Target::new();
    let id = unique("mutator");
    let mut admin = target.client();
    set_quota(&mut admin, &id, "controller_mutation_rate", 1.0);
    let mut client = target.client().named(&id);
    let create = |client: &mut Client, version: i16, partitions: i32| {
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(topic(&unique("mutated")))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = client.call(version, &request).unwrap();
        (answer.topics[0].error_code, answer.throttle_time_ms)
    };
    // Eleven may come at once, and a debt is allowed once.
    assert_eq!(create(&mut client, 7, 13), (0, 0));
    let (code, throttle) = create(&mut client, 7, 1);
    assert_eq!(code, 89);
    assert!((500..=2_000).contains(&throttle), "{throttle}");
    // An older version is admitted, and waits: this connection was muted for the debt, so the debt is small now.
    let (code, throttle) = create(&mut client, 5, 3);
    assert_eq!(code, 0);
    assert!((2_000..=3_100).contains(&throttle), "{throttle}");
    assert_eq!(create(&mut admin, 7, 1), (0, 0), "another client id has no quota");
}

#[test]
fn no_element_is_lost_that_several_clients_append_at_once() {
    const CLIENTS: usize = 8;
    const EACH: usize = 6;
    let target = Target::new();
    let name = unique("appended");
    let mut admin = target.client();
    assert_eq!(admin.create_topic(&name, 1, &[]).unwrap(), 0);
    wait_for_leaders(&mut admin, &name, 1);
    let setting = "leader.replication.throttled.replicas";
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (target, name) = (&target, &name);
            scope.spawn(move || {
                let mut client = target.client();
                for element in (0..EACH).map(|m| format!("{}:1", n * EACH + m)) {
                    let change = incremental_alter_configs_request::AlterableConfig::default()
                        .with_name(text(setting))
                        .with_config_operation(2)
                        .with_value(Some(text(&element)));
                    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                        .with_resource_type(2)
                        .with_resource_name(text(name))
                        .with_configs(vec![change]);
                    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
                    assert_eq!(client.call(1, &request).unwrap().responses[0].error_code, 0);
                }
            });
        }
    });
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(&name))
        .with_configuration_keys(Some(vec![text(setting)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    eventually("every element is there", READY, || {
        let answer = admin.call(4, &request).unwrap();
        let value = answer.results[0].configs[0].value.clone().unwrap_or_default();
        (value.split(',').filter(|element| !element.is_empty()).count() == CLIENTS * EACH).then_some(())
    });
}

/// A gauge in OpenTelemetry's form.
fn gauge(name: &str, value: f64) -> Vec<u8> {
    let field = |number: u8, value: &[u8]| [&[number << 3 | 2, value.len() as u8], value].concat();
    let point = [&[4 << 3 | 1][..], &value.to_bits().to_le_bytes()].concat();
    let metric = [field(1, name.as_bytes()), field(5, &field(1, &point))].concat();
    field(1, &field(2, &field(2, &metric)))
}

#[test]
fn what_a_client_pushes_is_on_the_metrics_page() {
    let target = Target::new();
    let Some(broker) = &target.broker else { return };
    let mut client = target.client().named("pusher");
    client.api_versions().unwrap();
    let change = |name: &str, value: &str| {
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(16)
        .with_resource_name(text("everything"))
        .with_configs(vec![change("metrics", "*"), change("interval.ms", "100"), change("match", "client_id=push.*")]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).unwrap().responses[0].error_code, 0);
    let listed = client.call(0, &ListConfigResourcesRequest::default()).unwrap().config_resources;
    assert_eq!(listed.iter().map(|r| &*r.resource_name).collect::<Vec<_>>(), ["everything"]);

    let told = client.call(0, &GetTelemetrySubscriptionsRequest::default()).unwrap();
    assert_eq!((told.error_code, told.push_interval_ms, &*told.requested_metrics[0]), (0, 100, "*"));
    assert_ne!(told.client_instance_id, Uuid::nil());
    let push = PushTelemetryRequest::default()
        .with_client_instance_id(told.client_instance_id)
        .with_subscription_id(told.subscription_id)
        .with_metrics(gauge("org.apache.kafka.test", 42.5).into());
    assert_eq!(client.call(0, &push).unwrap().error_code, 0);
    assert_eq!(client.call(0, &push).unwrap().error_code, 89, "the interval is not over");

    let page = super::process::http_get(broker, "/metrics");
    let line =
        page.lines().find(|line| line.starts_with("casemate_client_org_apache_kafka_test{")).expect("it is shown");
    assert!(line.contains("client_id=\"pusher\"") && line.contains("client_software_name=\"it\""), "{line}");
    assert!(line.ends_with(" 42.5"), "{line}");
}
