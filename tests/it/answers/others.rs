//! The rest: coordinators, features, brokers, SCRAM, the quorum, log folders, the handshake.

use super::super::client::{text, topic};
use super::world::World;
use kafka_protocol::messages::*;

pub fn run() {
    let mut world = World::new("others").settling();
    coordinators(&mut world);
    handshakes(&mut world);
    cluster(&mut world);
    features(&mut world);
    users(&mut world);
    world.finish();
}

fn coordinators(world: &mut World) {
    for kind in [i8::MIN, -1, 0, 2, 3, i8::MAX] {
        for (words, key) in [
            ("a name", "absent"),
            ("no name", ""),
            ("a key of parts", "group:AAAAAAAAAAAAAAAAAAAAAQ:0"),
            ("a bad key of parts", "a:b:c"),
        ] {
            world.ask(&format!("FindCoordinator: type {kind}, {words}"), |_, version| {
                let request = FindCoordinatorRequest::default().with_key_type(kind);
                if version < 4 { request.with_key(text(key)) } else { request.with_coordinator_keys(vec![text(key)]) }
            });
        }
    }
    world.ask("FindCoordinator: no keys", |_, _| FindCoordinatorRequest::default());
    world.ask("FindCoordinator: a key twice", |_, version| {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            request.with_key(text("a"))
        } else {
            request.with_coordinator_keys(vec![text("a"), text("a")])
        }
    });
}

fn handshakes(world: &mut World) {
    for (name, version) in [
        ("", "1"),
        ("a", ""),
        ("a b", "1"),
        ("a", "1 2"),
        ("-a", "1"),
        ("a-", "1"),
        ("a", "."),
        ("\u{e4}", "1"),
        (&"x".repeat(300), "1"),
    ] {
        world.ask(&format!("ApiVersions: `{}` `{version}`", super::render::neutral(name)), |_, asked| {
            if asked < 3 {
                // Nothing to refuse: a field of the answer is enough.
                return ApiVersionsRequest::default().with_client_software_name(text(name));
            }
            ApiVersionsRequest::default()
                .with_client_software_name(text(name))
                .with_client_software_version(text(version))
        });
    }
}

fn cluster(world: &mut World) {
    for kind in [i8::MIN, -1, 0, 3, i8::MAX] {
        world.ask(&format!("DescribeCluster: endpoint type {kind}"), |_, _| {
            DescribeClusterRequest::default().with_endpoint_type(kind)
        });
    }
    for broker in [i32::MIN, -1, 7654, i32::MAX] {
        world.ask(&format!("UnregisterBroker: {broker}"), |_, _| {
            UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker))
        });
    }
    for (words, name, partitions) in [
        ("a topic of others", "absent", vec![0]),
        ("a topic without a name", "", vec![0]),
        ("partition 1 of the metadata", "__cluster_metadata", vec![1]),
        ("no partitions", "__cluster_metadata", vec![]),
        ("a partition twice", "__cluster_metadata", vec![5, 5]),
    ] {
        world.ask(&format!("DescribeQuorum: {words}"), |_, _| {
            let partitions =
                partitions.iter().map(|p| describe_quorum_request::PartitionData::default().with_partition_index(*p));
            let asked = describe_quorum_request::TopicData::default().with_topic_name(topic(name));
            DescribeQuorumRequest::default().with_topics(vec![asked.with_partitions(partitions.collect())])
        });
    }
    world.ask("DescribeQuorum: nothing", |_, _| DescribeQuorumRequest::default());
    for (words, name, partitions) in
        [("what is not there", "absent", vec![0, -1]), ("no name", "", vec![0]), ("no partitions", "absent", vec![])]
    {
        world.ask(&format!("DescribeLogDirs: {words}"), |_, _| {
            let asked = describe_log_dirs_request::DescribableLogDirTopic::default().with_topic(topic(name));
            DescribeLogDirsRequest::default().with_topics(Some(vec![asked.with_partitions(partitions.clone())]))
        });
    }
}

fn features(world: &mut World) {
    let update = |feature: &str, level: i16, kind: i8| {
        let update = update_features_request::FeatureUpdateKey::default().with_feature(text(feature));
        let update = update.with_max_version_level(level).with_upgrade_type(kind);
        UpdateFeaturesRequest::default().with_timeout_ms(10_000).with_feature_updates(vec![update])
    };
    for feature in ["absent.version", "", "metadata.version", "group.version", "transaction.version", "kraft.version"] {
        for kind in [0, 1, 2, 3, 4, -1] {
            let rows = [-1, 0, 1, 2, 9999, i16::MAX]
                .map(|level| (format!("level {level},"), update(feature, level, kind).with_validate_only(true)));
            world.table(&format!("UpdateFeatures, tried: {feature}, type {kind}"), rows);
        }
    }
    for level in [-1, 0, 1] {
        world.ask(&format!("UpdateFeatures: absent.version to {level}"), |_, _| update("absent.version", level, 1));
    }
    world.ask("UpdateFeatures: nothing", |_, _| UpdateFeaturesRequest::default().with_timeout_ms(10_000));
    world.ask("UpdateFeatures: one twice", |_, _| {
        let update = update_features_request::FeatureUpdateKey::default().with_feature(text("absent.version"));
        let update = update.with_max_version_level(1);
        UpdateFeaturesRequest::default().with_timeout_ms(10_000).with_feature_updates(vec![update.clone(), update])
    });
}

fn users(world: &mut World) {
    let user = |name: &str| describe_user_scram_credentials_request::UserName::default().with_name(text(name));
    for (words, users) in [
        ("nobody named", Some(vec![])),
        ("everybody", None),
        ("one who is not there", Some(vec![user("absent")])),
        ("one twice", Some(vec![user("absent"), user("absent")])),
        ("no name", Some(vec![user("")])),
        ("one and no name", Some(vec![user("absent"), user("")])),
    ] {
        world.ask(&format!("DescribeUserScramCredentials: {words}"), |_, _| {
            DescribeUserScramCredentialsRequest::default().with_users(users.clone())
        });
    }
}
