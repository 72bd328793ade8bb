//! The copies that clients ask for, and nodes that are drained, on three processes.

use super::super::batch::{NO_PRODUCER, encode};
use super::super::client::{Client, produce_request, text, topic};
use super::super::harness::{eventually, now_ms};
use super::{LONG, Site, ran, voters};
use kafka_protocol::messages::*;
use serde_json::Value;
use std::time::Duration;

const NONE: i16 = 0;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;

/// Three voters, whose ledgers are on all of them.
fn three() -> Site {
    let mut site = Site::new();
    [2, 3].into_iter().for_each(|node| site.invite(node));
    [2, 3].into_iter().for_each(|node| site.serve(node));
    site.agreed("three voters", |status| voters(status) == 3);
    site.agreed("ledgers on three nodes", |status| (1..=3).all(|node| replicas(status, node).len() == 3));
    site
}

/// The nodes of the open ledger of a writer.
fn replicas(status: &Value, writer: usize) -> Vec<u64> {
    let ledgers = status["ledgers"].as_array().map_or(&[][..], Vec::as_slice);
    let open = ledgers.iter().find(|ledger| ledger["node"] == writer && ledger["end"].is_null());
    let nodes = open.and_then(|ledger| ledger["replicas"].as_array()).map_or(&[][..], Vec::as_slice);
    let mut nodes: Vec<u64> = nodes.iter().filter_map(Value::as_u64).collect();
    nodes.sort_unstable();
    nodes
}

/// A topic of one partition on three replicas; answers the node that leads it.
fn make(site: &Site, name: &str, in_sync: &str) -> usize {
    let config = create_topics_request::CreatableTopicConfig::default();
    let config = config.with_name(text("min.insync.replicas")).with_value(Some(text(in_sync)));
    let made = create_topics_request::CreatableTopic::default().with_name(topic(name)).with_num_partitions(1);
    let made = made.with_replication_factor(3).with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![made]).with_timeout_ms(10_000);
    let answer = site.client(1).call(7, &request).expect("an answer");
    assert_eq!(answer.topics[0].error_code, NONE, "{answer:?}");
    eventually("somebody leads it", LONG, || {
        let known = site.client(1).metadata(&[name]).ok()?.topics.pop()?;
        usize::try_from(known.partitions.first()?.leader_id.0).ok()
    })
}

/// Writes one record; the error code.
fn produce(client: &mut Client, name: &str, acks: i16) -> i16 {
    let batch = encode(&[b"v".to_vec()], NO_PRODUCER, 0, now_ms());
    let answer = client.call(9, &produce_request(name, acks, vec![(0, batch)])).expect("an answer");
    answer.responses[0].partition_responses[0].error_code
}

#[test]
fn three_copies_of_three_are_waited_for_and_refused_without_the_third() {
    let mut site = three();
    let leader = make(&site, "kept", "3");
    let mut client = site.client(leader);
    eventually("it is served", LONG, || (produce(&mut client, "kept", -1) == NONE).then_some(()));
    let lost = (1..=3).find(|node| *node != leader).unwrap();
    site.running.remove(&lost).unwrap().kill();
    // As long as nobody knows, records are appended that do not get their third copy.
    let mut said = Vec::new();
    eventually("it is refused", LONG, || {
        said.push(produce(&mut client, "kept", -1));
        (said.last() == Some(&NOT_ENOUGH_REPLICAS)).then_some(())
    });
    println!("without the third copy: {said:?}");
    let known = [NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND];
    assert!(said.iter().all(|code| known.contains(code)), "acknowledged without the third copy: {said:?}");
    assert_eq!(produce(&mut client, "kept", 1), NONE, "acks=1 asks for no more than makes it durable");
    site.serve(lost);
    eventually("the third is back", LONG, || (produce(&mut client, "kept", -1) == NONE).then_some(()));
}

#[test]
fn a_drained_node_is_left_and_is_the_last_resort_of_a_writer() {
    let mut site = three();
    let config = site.config(1);
    ran(&["cluster", "drain", "n3", "--config", &config]);
    let left = |status: &Value| replicas(status, 1) == [1, 2] && replicas(status, 2) == [1, 2];
    site.agreed("nobody keeps anything on node 3", left);
    let leader = make(&site, "kept", "2");
    assert_ne!(leader, 3, "a node that is drained leads nothing new");
    let (other, mut client) = (3 - leader, site.client(leader));
    eventually("it is served", LONG, || (produce(&mut client, "kept", -1) == NONE).then_some(()));

    site.running.remove(&other).unwrap().kill();
    eventually("node 3 keeps the second copy", LONG, || (produce(&mut client, "kept", -1) == NONE).then_some(()));
    let status = site.try_status(leader).expect("a status");
    assert_eq!(replicas(&status, leader), [leader as u64, 3]);

    site.serve(other);
    site.agreed("it is left again", left);
    assert_eq!(produce(&mut client, "kept", -1), NONE);
    ran(&["cluster", "drain", "n3", "--stop", "--config", &config]);
    site.agreed("ledgers on three nodes", |status| (1..=2).all(|node| replicas(status, node).len() == 3));
    for (node, broker) in std::mem::take(&mut site.running) {
        assert_eq!(broker.terminate(Duration::from_secs(60)).status.code(), Some(0), "node {node}");
    }
}
