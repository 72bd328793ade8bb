//! Committed offsets: commits by those who may not, of what does not exist, with metadata that are too long.

use super::super::client::{text, topic};
use super::known::*;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;

const ALL: [&str; 7] = [NO_GROUP, EMPTY, WAITING, STABLE, STATIC, CONSUMER, STATIC_CONSUMER];

pub fn run() {
    let mut world = World::new("offsets").coordinated();
    let topic_name = world.topic("topic", 2, &[]);
    commits_by_anybody(&mut world, &topic_name);
    commits_of_anything(&mut world, &topic_name);
    fetches(&mut world, &topic_name);
    deletions(&mut world, &topic_name);
    world.finish();
}

fn commits_by_anybody(world: &mut World, topic_name: &str) {
    for state in ALL {
        let pattern = world.group(state, topic_name);
        for index in 0..claims(&pattern).len() {
            let words = claims(&pattern)[index].words.clone();
            world.ask(&format!("OffsetCommit, {state}: {words}"), |w, _| {
                let known = w.group(state, topic_name);
                let claim = claims(&known).remove(index);
                let (member, generation, instance) = (claim.member, claim.generation, claim.instance);
                commit(&Known { member, generation, instance, ..known }, topic_name, 1, 9, "after")
            });
        }
    }
}

fn commits_of_anything(world: &mut World, topic_name: &str) {
    for state in [NO_GROUP, STABLE, CONSUMER] {
        for (words, name, partition, offset, metadata) in [
            ("a topic that is not there", "absent", 0, 1, String::new()),
            ("a topic without a name", "", 0, 1, String::new()),
            ("a topic of a bad name", "a b", 0, 1, String::new()),
            ("partition 2 of 2", topic_name, 2, 1, String::new()),
            ("partition -1", topic_name, -1, 1, String::new()),
            ("the largest partition", topic_name, i32::MAX, 1, String::new()),
            ("offset -1", topic_name, 1, -1, String::new()),
            ("offset -2", topic_name, 1, -2, String::new()),
            ("the smallest offset", topic_name, 1, i64::MIN, String::new()),
            ("the largest offset", topic_name, 1, i64::MAX, String::new()),
            ("metadata of 4,096 bytes", topic_name, 1, 1, "x".repeat(4096)),
            ("metadata of 4,097 bytes", topic_name, 1, 1, "x".repeat(4097)),
            ("metadata of 4,096 characters that are more bytes", topic_name, 1, 1, "ä".repeat(4096)),
            ("metadata of 30,000 bytes", topic_name, 1, 1, "x".repeat(30_000)),
        ] {
            world.ask(&format!("OffsetCommit, {state}: {words}"), |w, _| {
                commit(&w.group(state, topic_name), name, partition, offset, &metadata)
            });
        }
        world.ask(&format!("OffsetCommit, {state}: null metadata"), |w, _| {
            let mut request = commit(&w.group(state, topic_name), topic_name, 1, 1, "");
            request.topics[0].partitions[0].committed_metadata = None;
            request
        });
        world.ask(&format!("OffsetCommit, {state}: one good partition and three that are not"), |w, _| {
            let known = w.group(state, topic_name);
            let mut request = commit(&known, topic_name, 1, 1, "good");
            let more = [commit(&known, topic_name, 9, 1, ""), commit(&known, "absent", 0, 1, "")];
            request.topics.extend(more.into_iter().flat_map(|r| r.topics));
            request.topics.extend(commit(&known, topic_name, 0, 1, &"x".repeat(5000)).topics);
            request
        });
        world.ask(&format!("OffsetCommit, {state}: a partition twice"), |w, _| {
            let known = w.group(state, topic_name);
            let mut request = commit(&known, topic_name, 1, 1, "first");
            request.topics.extend(commit(&known, topic_name, 1, 2, "second").topics);
            request
        });
        world.ask(&format!("OffsetCommit, {state}: nothing"), |w, _| {
            commit(&w.group(state, topic_name), topic_name, 0, 0, "").with_topics(vec![])
        });
    }
    world.watched = vec![Watched::Offsets(String::new())];
    world.ask("OffsetCommit: no group id", |_, _| {
        // Of a partition that is not there: version 2 would take another.
        commit(&Known { generation: -1, ..Known::default() }, topic_name, 9, 0, "")
    });
}

/// A question for partitions of one topic, or for all, in the form of its version.
fn fetch(version: i16, group: &str, name: &str, partitions: Option<Vec<i32>>) -> OffsetFetchRequest {
    if version >= 8 {
        let asked = offset_fetch_request::OffsetFetchRequestTopics::default().with_name(topic(name));
        let topics = partitions.map(|p| vec![asked.with_partition_indexes(p)]);
        let asked = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group_id(group));
        return OffsetFetchRequest::default().with_groups(vec![asked.with_topics(topics)]);
    }
    let asked = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(topic(name));
    let topics = partitions.map(|p| vec![asked.with_partition_indexes(p)]);
    OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics)
}

fn fetches(world: &mut World, topic_name: &str) {
    for state in ALL {
        let known = world.group(state, topic_name);
        let group = known.name.clone();
        for (words, name, partitions) in [
            ("all", "", None),
            ("no partitions", topic_name, Some(vec![])),
            ("all of a topic", topic_name, Some(vec![0, 1])),
            ("partitions that are not there", topic_name, Some(vec![2, -1, i32::MAX])),
            ("a partition twice", topic_name, Some(vec![0, 0])),
            ("a topic that is not there", "absent", Some(vec![0])),
            ("a topic without a name", "", Some(vec![0])),
        ] {
            world.ask(&format!("OffsetFetch, {state}: {words}"), |_, version| {
                fetch(version, &group, name, partitions.clone())
            });
            if partitions.is_none() {
                world.ask(&format!("OffsetFetch, {state}: {words}, stable ones"), |_, version| {
                    fetch(version, &group, name, partitions.clone()).with_require_stable(true)
                });
            }
        }
        for claim in claims(&known).into_iter().filter(|c| c.instance.is_none()) {
            world.ask(&format!("OffsetFetch, {state}: by {}", claim.words), |_, version| {
                let mut request = fetch(version, &group, topic_name, Some(vec![0]));
                for asked in &mut request.groups {
                    asked.member_id = Some(text(&claim.member));
                    asked.member_epoch = claim.generation;
                }
                request
            });
        }
    }
    world.watched.clear();
    world.ask("OffsetFetch: no group id", |_, version| fetch(version, "", topic_name, Some(vec![0])));
    world.ask("OffsetFetch: all of no group id", |_, version| fetch(version, "", topic_name, None));
    world.ask("OffsetFetch: no groups", |_, version| fetch(version, "", topic_name, Some(vec![])).with_groups(vec![]));
}

fn deletions(world: &mut World, topic_name: &str) {
    let request = |known: &Known, asked: &[(&str, &[i32])]| {
        let topics = asked.iter().map(|(name, partitions)| {
            let partitions = partitions
                .iter()
                .map(|p| offset_delete_request::OffsetDeleteRequestPartition::default().with_partition_index(*p));
            offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(partitions.collect())
        });
        OffsetDeleteRequest::default().with_group_id(group_id(&known.name)).with_topics(topics.collect())
    };
    for state in ALL {
        for (words, asked) in [
            ("what is there", vec![(topic_name, &[0][..])]),
            ("nothing", vec![]),
            ("no partitions", vec![(topic_name, &[][..])]),
            ("partitions that are not there", vec![(topic_name, &[2, -1][..])]),
            ("topics that are not there", vec![("absent", &[0][..]), ("", &[0][..])]),
            ("a partition twice", vec![(topic_name, &[0, 0][..])]),
            ("what is there and what is not", vec![(topic_name, &[0, 7][..]), ("absent", &[0][..])]),
        ] {
            world.ask(&format!("OffsetDelete, {state}: {words}"), |w, _| {
                let known = w.group(state, topic_name);
                request(&known, &asked)
            });
        }
    }
    world.watched.clear();
    world.ask("OffsetDelete: no group id", |_, _| request(&Known::default(), &[(topic_name, &[0])]));
}
