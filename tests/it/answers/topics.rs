//! Topics: names, partitions, replicas and assignments that cannot be; what is not there; what is there already.

use super::super::client::{text, topic};
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

const NOBODY: Uuid = Uuid::from_bytes([7; 16]);

pub fn run() {
    let mut world = World::new("topics").settling();
    let name = world.topic("topic", 2, &[]);
    creations(&mut world);
    creations_beside(&mut world, &name);
    assignments(&mut world);
    growths(&mut world, &name);
    deletions(&mut world, &name);
    metadata(&mut world, &name);
    descriptions(&mut world, &name);
    elections(&mut world, &name);
    reassignments(&mut world, &name);
    world.finish();
}

fn creatable(name: &str, partitions: i32, replicas: i16) -> create_topics_request::CreatableTopic {
    create_topics_request::CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn create(topics: Vec<create_topics_request::CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(10_000)
}

fn config(name: &str, value: Option<&str>) -> create_topics_request::CreatableTopicConfig {
    create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
}

fn creations(world: &mut World) {
    let long = ["x".repeat(249), "x".repeat(250)];
    for name in ["", ".", "..", " ", "a b", "a/b", "a\u{e4}", "a\n", "a:b", "__cluster_metadata", &long[1]] {
        world.watched = vec![Watched::Topic(name.into())];
        world.ask(&format!("CreateTopics: `{}`", super::render::neutral(&name.escape_debug().to_string())), |_, _| {
            create(vec![creatable(name, 1, 1)])
        });
    }
    for (partitions, replicas) in [
        (0, 1),
        (-2, 1),
        (i32::MIN, 1),
        (i32::MAX, 1),
        (1, 0),
        (1, -2),
        (1, 2),
        (1, i16::MAX),
        (-1, 1),
        (1, -1),
        (-1, -1),
        (0, 0),
    ] {
        world.ask(&format!("CreateTopics: {partitions} partitions, {replicas} replicas"), |w, _| {
            let name = w.fresh("new");
            w.watched = vec![Watched::Topic(name.clone())];
            create(vec![creatable(&name, partitions, replicas)])
        });
    }
    for (words, configs) in [
        ("an unknown setting", vec![config("no.such.setting", Some("1"))]),
        ("a setting without a name", vec![config("", Some("1"))]),
        ("a setting of null", vec![config("retention.ms", None)]),
        ("a setting of the wrong type", vec![config("retention.ms", Some("soon"))]),
        ("a setting out of range", vec![config("retention.ms", Some("-5"))]),
        ("a setting twice", vec![config("retention.ms", Some("5")), config("retention.ms", Some("6"))]),
        ("settings that do not fit", vec![config("retention.ms", Some("5")), config("local.retention.ms", Some("6"))]),
        ("one good and one bad setting", vec![config("flush.ms", Some("5")), config("cleanup.policy", Some("none"))]),
        ("a setting of the broker", vec![config("log.retention.ms", Some("5"))]),
    ] {
        world.ask(&format!("CreateTopics: {words}"), |w, _| {
            let name = w.fresh("new");
            w.watched = vec![Watched::Topic(name.clone())];
            create(vec![creatable(&name, 1, 1).with_configs(configs.clone())])
        });
        world.ask(&format!("CreateTopics, only tried: {words}"), |w, _| {
            let name = w.fresh("new");
            w.watched = vec![Watched::Topic(name.clone())];
            create(vec![creatable(&name, 1, 1).with_configs(configs.clone())]).with_validate_only(true)
        });
    }
}

/// Topics that are there, that are named twice, or that get in one another's way.
fn creations_beside(world: &mut World, existing: &str) {
    world.watched = vec![Watched::Topic(existing.into())];
    world.ask("CreateTopics: what is there", |_, _| create(vec![creatable(existing, 1, 1)]));
    world.ask("CreateTopics, only tried: what is there", |_, _| {
        create(vec![creatable(existing, 1, 1)]).with_validate_only(true)
    });
    world.ask("CreateTopics: nothing", |_, _| create(vec![]));
    world.ask("CreateTopics: one twice, one good and one bad", |w, _| {
        let (twice, good, bad) = (w.fresh("twice"), w.fresh("good"), w.fresh("bad"));
        w.watched = [&twice, &good, &bad].map(|name| Watched::Topic(name.clone())).to_vec();
        create(vec![creatable(&twice, 1, 1), creatable(&good, 1, 1), creatable(&twice, 2, 1), creatable(&bad, 0, 1)])
    });
    world.ask("CreateTopics: names that differ by a dot", |w, _| {
        let (dot, line) = (w.fresh("a.b"), w.fresh("a_b"));
        let line = format!("{}a_b", dot.strip_suffix("a.b").map(str::to_string).unwrap_or(line));
        w.watched = [&dot, &line].map(|name| Watched::Topic(name.clone())).to_vec();
        create(vec![creatable(&dot, 1, 1), creatable(&line, 1, 1)])
    });
    for timeout in [i32::MIN, -1, 0] {
        world.ask(&format!("CreateTopics, only tried: timeout {timeout}"), |w, _| {
            let name = w.fresh("new");
            create(vec![creatable(&name, 1, 1)]).with_timeout_ms(timeout).with_validate_only(true)
        });
    }
}

fn node(world: &mut World) -> i32 {
    world.client.metadata(&[]).expect("an answer to Metadata").brokers[0].node_id.0
}

fn assignments(world: &mut World) {
    let node = node(world);
    for (words, assigned, partitions, replicas) in [
        ("itself", vec![(0, vec![node])], -1, -1),
        ("itself, with a number of partitions", vec![(0, vec![node])], 1, -1),
        ("itself, with a number of replicas", vec![(0, vec![node])], -1, 1),
        ("another broker", vec![(0, vec![777])], -1, -1),
        ("broker -1", vec![(0, vec![-1])], -1, -1),
        ("itself twice", vec![(0, vec![node, node])], -1, -1),
        ("itself and another", vec![(0, vec![node, 777])], -1, -1),
        ("nobody", vec![(0, vec![])], -1, -1),
        ("partition 1 alone", vec![(1, vec![node])], -1, -1),
        ("partition -1", vec![(-1, vec![node])], -1, -1),
        ("partition 0 twice", vec![(0, vec![node]), (0, vec![node])], -1, -1),
        ("a gap", vec![(0, vec![node]), (2, vec![node])], -1, -1),
        ("unequal replicas", vec![(0, vec![node]), (1, vec![node, 777])], -1, -1),
    ] {
        world.ask(&format!("CreateTopics: assigned to {words}"), |w, _| {
            let name = w.fresh("new");
            w.watched = vec![Watched::Topic(name.clone())];
            let assigned = assigned.iter().map(|(partition, brokers)| {
                create_topics_request::CreatableReplicaAssignment::default()
                    .with_partition_index(*partition)
                    .with_broker_ids(brokers.iter().map(|b| BrokerId(*b)).collect())
            });
            create(vec![creatable(&name, partitions, replicas).with_assignments(assigned.collect())])
        });
    }
}

fn growths(world: &mut World, name: &str) {
    let node = node(world);
    let grow = |name: &str, count: i32, assigned: Option<Vec<Vec<i32>>>| {
        let assignments = assigned.map(|all| {
            let one = |brokers: Vec<i32>| {
                let brokers = brokers.into_iter().map(BrokerId).collect();
                create_partitions_request::CreatePartitionsAssignment::default().with_broker_ids(brokers)
            };
            all.into_iter().map(one).collect()
        });
        let asked =
            create_partitions_request::CreatePartitionsTopic::default().with_name(topic(name)).with_count(count);
        CreatePartitionsRequest::default()
            .with_timeout_ms(10_000)
            .with_topics(vec![asked.with_assignments(assignments)])
    };
    world.watched = vec![Watched::Topic(name.into())];
    for count in [i32::MIN, -1, 0, 1, 2, i32::MAX] {
        world.ask(&format!("CreatePartitions: {count}, there are 2"), |_, _| grow(name, count, None));
    }
    for (words, count, assigned) in [
        ("too few assigned", 4, vec![vec![node]]),
        ("too many assigned", 3, vec![vec![node], vec![node]]),
        ("nobody assigned", 3, vec![vec![]]),
        ("no assignment", 3, vec![]),
        ("assigned to another broker", 3, vec![vec![777]]),
        ("assigned to one broker twice", 3, vec![vec![node, node]]),
        ("two replicas, others have one", 3, vec![vec![node, 777]]),
    ] {
        world.ask(&format!("CreatePartitions: {words}"), |_, _| grow(name, count, Some(assigned.clone())));
    }
    for (words, other) in [("that is not there", "absent"), ("without a name", ""), ("of a bad name", "a b")] {
        world.ask(&format!("CreatePartitions: a topic {words}"), |_, _| grow(other, 5, None));
    }
    world.ask("CreatePartitions: nothing", |_, _| CreatePartitionsRequest::default());
    world.ask("CreatePartitions: a topic twice", |_, _| {
        let mut request = grow(name, 3, None);
        request.topics.extend(grow(name, 4, None).topics);
        request
    });
    world.ask("CreatePartitions: only tried", |_, _| grow(name, 3, None).with_validate_only(true));
    world.ask("CreatePartitions, only tried: not more", |_, _| grow(name, 1, None).with_validate_only(true));
}

fn deletions(world: &mut World, name: &str) {
    world.watched = vec![Watched::Topic(name.into())];
    let delete = |version: i16, name: Option<StrBytes>, id: Uuid| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        if version < 6 {
            return request.with_topic_names(vec![TopicName(name.unwrap_or_default())]);
        }
        let state = delete_topics_request::DeleteTopicState::default().with_name(name.map(TopicName));
        request.with_topics(vec![state.with_topic_id(id)])
    };
    for other in ["absent", "", "a b", ".."] {
        world.ask(&format!("DeleteTopics: `{other}`"), |_, version| delete(version, Some(text(other)), Uuid::nil()));
    }
    world.ask("DeleteTopics: nothing", |_, _| DeleteTopicsRequest::default());
    let rows = [
        ("an unknown id", delete(6, None, NOBODY)),
        ("neither name nor id", delete(6, None, Uuid::nil())),
        ("name and id", delete(6, Some(text("absent")), NOBODY)),
        ("name and id of what is there", delete(6, Some(text(name)), NOBODY)),
    ];
    world.table("DeleteTopics: ids", rows.map(|(words, request)| (words.to_string(), request)));
    world.ask("DeleteTopics: one twice", |w, version| {
        let name = w.topic("deleted", 1, &[]);
        w.watched = vec![Watched::Topic(name.clone())];
        let mut request = delete(version, Some(text(&name)), Uuid::nil());
        request.topics.extend(request.topics.clone());
        request.topic_names.extend(request.topic_names.clone());
        request
    });
    world.ask("DeleteTopics: one that is there and one that is not", |w, version| {
        let name = w.topic("deleted", 1, &[]);
        w.watched = vec![Watched::Topic(name.clone())];
        let mut request = delete(version, Some(text(&name)), Uuid::nil());
        let other = delete(version, Some(text("absent")), Uuid::nil());
        request.topics.extend(other.topics);
        request.topic_names.extend(other.topic_names);
        request
    });
}

fn metadata(world: &mut World, name: &str) {
    world.watched.clear();
    let ask = |names: Vec<&str>| {
        let topics =
            names.into_iter().map(|n| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(n))));
        MetadataRequest::default().with_topics(Some(topics.collect()))
    };
    for name in ["", "a b", "..", &"x".repeat(250)] {
        world.ask(&format!("Metadata: `{}`", super::render::neutral(name)), |_, _| ask(vec![name]));
    }
    world.ask("Metadata: what is not there, not to be made", |w, _| {
        let name = w.fresh("absent");
        w.watched = vec![Watched::Topic(name.clone())];
        ask(vec![&name]).with_allow_auto_topic_creation(false)
    });
    world.watched.clear();
    world.ask("Metadata: one twice, and one that is not there", |_, _| {
        ask(vec![name, "absent", name]).with_allow_auto_topic_creation(false)
    });
    let by_id = |id: Uuid, name: Option<&str>| {
        let asked = metadata_request::MetadataRequestTopic::default().with_topic_id(id).with_name(name.map(topic));
        MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false)
    };
    world.ask("Metadata: an unknown id", |_, _| by_id(NOBODY, None));
    world.ask("Metadata: neither name nor id", |_, _| by_id(Uuid::nil(), None));
    world.ask("Metadata: name and id", |_, _| by_id(NOBODY, Some(name)));
    world.ask("Metadata: no topics", |_, version| {
        let request = MetadataRequest::default().with_topics(Some(vec![]));
        if version == 0 { ask(vec!["a b"]) } else { request }
    });
}

fn descriptions(world: &mut World, name: &str) {
    let ask = |names: Vec<&str>| {
        let topics =
            names.into_iter().map(|n| describe_topic_partitions_request::TopicRequest::default().with_name(topic(n)));
        DescribeTopicPartitionsRequest::default().with_topics(topics.collect()).with_cursor(None)
    };
    let cursor = |name: &str, partition| {
        let cursor = describe_topic_partitions_request::Cursor::default().with_topic_name(topic(name));
        Some(cursor.with_partition_index(partition))
    };
    for (words, names) in
        [("not there", vec!["absent"]), ("no name", vec![""]), ("a bad name", vec!["a b"]), ("twice", vec![name, name])]
    {
        world.ask(&format!("DescribeTopicPartitions: {words}"), |_, _| ask(names.clone()));
    }
    for limit in [i32::MIN, -1, 0, 1, i32::MAX] {
        world.ask(&format!("DescribeTopicPartitions: at most {limit} partitions"), |_, _| {
            ask(vec![name]).with_response_partition_limit(limit)
        });
    }
    for (words, other, partition) in [
        ("a topic that is not there", "absent", 0),
        ("partition 1", name, 1),
        ("partition 2 of 2", name, 2),
        ("partition -1", name, -1),
    ] {
        world.ask(&format!("DescribeTopicPartitions: from {words}"), |_, _| {
            ask(vec![name]).with_cursor(cursor(other, partition))
        });
    }
}

fn elections(world: &mut World, name: &str) {
    world.watched = vec![Watched::Topic(name.into())];
    let elect = |kind: i8, name: &str, partitions: &[i32]| {
        let asked = elect_leaders_request::TopicPartitions::default().with_topic(topic(name));
        let asked = asked.with_partitions(partitions.to_vec());
        ElectLeadersRequest::default()
            .with_timeout_ms(10_000)
            .with_election_type(kind)
            .with_topic_partitions(Some(vec![asked]))
    };
    for kind in [-1, 0, 1, 2, i8::MAX] {
        world.ask(&format!("ElectLeaders: type {kind}"), |_, version| match version {
            0 if kind != 0 => elect(0, name, &[0]),
            _ => elect(kind, name, &[0]),
        });
    }
    world.ask("ElectLeaders: partitions that are not there", |_, _| elect(0, name, &[0, 2, -1, 0]));
    world.ask("ElectLeaders: a topic that is not there", |_, _| elect(0, "absent", &[0]));
    world.ask("ElectLeaders: a topic without a name", |_, _| elect(0, "", &[0]));
    world.ask("ElectLeaders: no partitions", |_, _| elect(0, name, &[]));
}

fn reassignments(world: &mut World, name: &str) {
    world.watched = vec![Watched::Topic(name.into())];
    let node = node(world);
    let reassign = |name: &str, partition: i32, replicas: Option<Vec<i32>>| {
        let asked =
            alter_partition_reassignments_request::ReassignablePartition::default().with_partition_index(partition);
        let asked = asked.with_replicas(replicas.map(|r| r.into_iter().map(BrokerId).collect()));
        let asked_topic = alter_partition_reassignments_request::ReassignableTopic::default().with_name(topic(name));
        let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(10_000);
        request.with_topics(vec![asked_topic.with_partitions(vec![asked])])
    };
    for (words, other, partition, replicas) in [
        ("to itself", name, 0, Some(vec![node])),
        ("to nobody", name, 0, Some(vec![])),
        ("to another broker", name, 0, Some(vec![777])),
        ("to broker -1", name, 0, Some(vec![-1])),
        ("to itself twice", name, 0, Some(vec![node, node])),
        ("cancelled, and there is none", name, 0, None),
        ("of partition 2 of 2", name, 2, Some(vec![node])),
        ("of partition -1", name, -1, Some(vec![node])),
        ("of a topic that is not there", "absent", 0, Some(vec![node])),
        ("of a topic without a name", "", 0, None),
    ] {
        world
            .ask(&format!("AlterPartitionReassignments: {words}"), |_, _| reassign(other, partition, replicas.clone()));
    }
    world.ask("AlterPartitionReassignments: nothing", |_, _| AlterPartitionReassignmentsRequest::default());
    world.ask("AlterPartitionReassignments: a partition twice", |_, _| {
        let mut request = reassign(name, 0, Some(vec![node]));
        request.topics.extend(reassign(name, 0, Some(vec![777])).topics);
        request
    });
    for (words, other, partitions) in [
        ("partitions that are not there", name, vec![0, 2, -1]),
        ("a topic that is not there", "absent", vec![0]),
        ("no partitions", name, vec![]),
    ] {
        world.ask(&format!("ListPartitionReassignments: {words}"), |_, _| {
            let asked = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default();
            let asked = asked.with_name(topic(other)).with_partition_indexes(partitions.clone());
            ListPartitionReassignmentsRequest::default().with_timeout_ms(10_000).with_topics(Some(vec![asked]))
        });
    }
}
