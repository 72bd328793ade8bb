//! Groups of the classic protocol: wrong generations, unknown members, fenced instances, timeouts out of bounds.

use super::super::client::text;
use super::known::*;
use super::state::Watched;
use super::world::World;
use bytes::Bytes;
use kafka_protocol::messages::*;

const ALL: [&str; 7] = [NO_GROUP, EMPTY, WAITING, STABLE, STATIC, CONSUMER, STATIC_CONSUMER];

pub fn run() {
    let mut world = World::new("groups").coordinated();
    let topic_name = world.topic("topic", 2, &[]);
    joins_of_new_groups(&mut world);
    joins_of_known_groups(&mut world, &topic_name);
    heartbeats(&mut world, &topic_name);
    syncs(&mut world, &topic_name);
    leaves(&mut world, &topic_name);
    descriptions(&mut world, &topic_name);
    world.finish();
}

/// The request as `version` can carry it.
fn at(version: i16, mut request: JoinGroupRequest) -> JoinGroupRequest {
    if version == 0 {
        request.rebalance_timeout_ms = -1;
    }
    request
}

fn protocol(name: &str, metadata: &[u8]) -> join_group_request::JoinGroupRequestProtocol {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text(name));
    protocol.with_metadata(Bytes::copy_from_slice(metadata))
}

type Change = Box<dyn Fn(&mut JoinGroupRequest)>;
type Plain = fn(&mut JoinGroupRequest);

/// One field at a time that is not as it should be.
fn join_changes() -> Vec<(String, Change)> {
    let mut all: Vec<(String, Change)> = vec![
        ("all is well".into(), Box::new(|_| {})),
        ("no group id".into(), Box::new(|r| r.group_id = group_id(""))),
        ("an unknown member".into(), Box::new(|r| r.member_id = text("absent"))),
        ("no protocol type".into(), Box::new(|r| r.protocol_type = text(""))),
        ("no protocols".into(), Box::new(|r| r.protocols.clear())),
        ("neither type nor protocols".into(), Box::new(|r| (r.protocol_type, r.protocols) = (text(""), vec![]))),
        ("a protocol without a name".into(), Box::new(|r| r.protocols = vec![protocol("", b"")])),
        (
            "consumers whose subscription is no subscription".into(),
            Box::new(|r| {
                (r.protocol_type, r.protocols) = (text("consumer"), vec![protocol("range", b"\x7f\xff\xff")]);
            }),
        ),
        (
            "an unknown static member".into(),
            Box::new(|r| {
                (r.member_id, r.group_instance_id) = (text("absent"), Some(text("instance")));
            }),
        ),
    ];
    for timeout in [i32::MIN, -1, 0, 1, 5_999, 6_000, 1_800_000, 1_800_001, i32::MAX] {
        all.push((format!("session timeout {timeout}"), Box::new(move |r| r.session_timeout_ms = timeout)));
    }
    for timeout in [60_000, i32::MAX] {
        all.push((format!("rebalance timeout {timeout}"), Box::new(move |r| r.rebalance_timeout_ms = timeout)));
    }
    for (words, instance) in [
        ("empty", String::new()),
        ("a dot", ".".into()),
        ("two dots", "..".into()),
        ("a space in it", "a b".into()),
        ("a slash in it", "a/b".into()),
        ("249 long", "x".repeat(249)),
        ("250 long", "x".repeat(250)),
    ] {
        let change = move |r: &mut JoinGroupRequest| r.group_instance_id = Some(text(&instance));
        all.push((format!("an instance that is {words}"), Box::new(change)));
    }
    all
}

fn joins_of_new_groups(world: &mut World) {
    for (words, change) in join_changes() {
        world.ask(&format!("JoinGroup, a new group: {words}"), |w, version| {
            let known = w.group(NO_GROUP, "");
            let mut request = join(&known);
            change(&mut request);
            at(version, request)
        });
    }
}

/// None of these may wait for the members that are there.
fn joins_of_known_groups(world: &mut World, topic_name: &str) {
    let others: [(&str, Plain); 3] = [
        ("another type", |r| r.protocol_type = text("other")),
        ("other protocols", |r| r.protocols = vec![protocol("other", b"")]),
        ("a session timeout of 1", |r| r.session_timeout_ms = 1),
    ];
    for state in ALL {
        world.ask(&format!("JoinGroup, {state}: an unknown member"), |w, version| {
            let known = w.group(state, topic_name);
            at(version, join(&Known { member: "absent".into(), instance: None, ..known }))
        });
        world.ask(&format!("JoinGroup, {state}: an unknown member as its instance"), |w, version| {
            let known = w.group(state, topic_name);
            at(version, join(&Known { member: "absent".into(), ..known }))
        });
        world.ask(&format!("JoinGroup, {state}: its member as another instance"), |w, version| {
            let known = w.group(state, topic_name);
            at(version, join(&Known { instance: Some("absent".into()), ..known }))
        });
        for (words, change) in others {
            for (who, new) in [("a new member", true), ("its member", false)] {
                if [EMPTY, NO_GROUP].contains(&state) && new {
                    continue; // a group without members takes any protocol, as above
                }
                world.ask(&format!("JoinGroup, {state}: {who} with {words}"), |w, version| {
                    let known = w.group(state, topic_name);
                    let member = if new { String::new() } else { known.member.clone() };
                    let instance = if new { None } else { known.instance.clone() };
                    let mut request = join(&Known { member, instance, ..known });
                    change(&mut request);
                    at(version, request)
                });
            }
        }
    }
    world.ask("JoinGroup, a group of a static member: the same instance anew", |w, version| {
        let known = w.group(STATIC, topic_name);
        at(version, join(&Known { member: String::new(), ..known }))
    });
}

fn heartbeats(world: &mut World, topic_name: &str) {
    for state in ALL {
        let known = world.group(state, topic_name);
        for claim in claims(&known) {
            world.ask(&format!("Heartbeat, {state}: {}", claim.words), |_, _| {
                HeartbeatRequest::default()
                    .with_group_id(group_id(&known.name))
                    .with_member_id(text(&claim.member))
                    .with_generation_id(claim.generation)
                    .with_group_instance_id(claim.instance.as_deref().map(text))
            });
        }
    }
    world.watched.clear();
    for name in ["", " "] {
        world.ask(&format!("Heartbeat: group `{name}`"), |_, _| {
            HeartbeatRequest::default().with_group_id(group_id(name))
        });
    }
}

fn syncs(world: &mut World, topic_name: &str) {
    for state in ALL {
        let pattern = world.group(state, topic_name);
        for index in 0..claims(&pattern).len() {
            let words = claims(&pattern)[index].words.clone();
            world.ask(&format!("SyncGroup, {state}: {words}"), |w, _| {
                let known = w.group(state, topic_name);
                let claim = claims(&known).remove(index);
                let (member, generation, instance) = (claim.member, claim.generation, claim.instance);
                sync(&Known { member, generation, instance, ..known })
            });
        }
    }
    for state in [WAITING, STABLE, CONSUMER] {
        for (kind, name) in [
            (Some("test"), Some("range")),
            (Some("other"), Some("range")),
            (Some("test"), Some("other")),
            (Some("test"), None),
            (None, Some("range")),
            (Some(""), Some("")),
        ] {
            world.ask(&format!("SyncGroup, {state}: type {kind:?}, protocol {name:?}"), |w, _| {
                let known = w.group(state, topic_name);
                sync(&known).with_protocol_type(kind.map(text)).with_protocol_name(name.map(text))
            });
        }
        for (words, member) in [("its own", None), ("of another", Some("absent"))] {
            world.ask(&format!("SyncGroup, {state}: an assignment {words}"), |w, _| {
                let known = w.group(state, topic_name);
                let assigned = sync_group_request::SyncGroupRequestAssignment::default()
                    .with_member_id(text(member.unwrap_or(&known.member)))
                    .with_assignment(Bytes::from_static(b"assigned"));
                sync(&known).with_assignments(vec![assigned.clone(), assigned])
            });
        }
    }
    world.watched.clear();
    world.ask("SyncGroup: no group id", |_, _| SyncGroupRequest::default());
}

fn leaves(world: &mut World, topic_name: &str) {
    for state in ALL {
        let pattern = world.group(state, topic_name);
        let indexes = (0..claims(&pattern).len()).filter(|i| claims(&pattern)[*i].generation == -1);
        for index in indexes {
            let words = claims(&pattern)[index].words.replace(", generation -1", "");
            world.ask(&format!("LeaveGroup, {state}: {words}"), |w, version| {
                let known = w.group(state, topic_name);
                let claim = claims(&known).remove(index);
                let request = LeaveGroupRequest::default().with_group_id(group_id(&known.name));
                if version < 3 && claim.instance.is_none() {
                    return request.with_member_id(text(&claim.member));
                }
                let member = leave_group_request::MemberIdentity::default().with_member_id(text(&claim.member));
                request.with_members(vec![member.with_group_instance_id(claim.instance.as_deref().map(text))])
            });
        }
        world.ask(&format!("LeaveGroup, {state}: nobody"), |w, _| {
            let known = w.group(state, topic_name);
            LeaveGroupRequest::default().with_group_id(group_id(&known.name))
        });
        world.ask(&format!("LeaveGroup, {state}: its member and another, twice"), |w, _| {
            let known = w.group(state, topic_name);
            let member = |id: &str| {
                let member = leave_group_request::MemberIdentity::default().with_member_id(text(id));
                member.with_reason(None)
            };
            let members = vec![member(&known.member), member("absent"), member(&known.member)];
            LeaveGroupRequest::default().with_group_id(group_id(&known.name)).with_members(members)
        });
    }
    world.watched.clear();
    world.ask("LeaveGroup: no group id", |_, version| {
        let member = leave_group_request::MemberIdentity::default().with_member_id(text("absent"));
        let request = LeaveGroupRequest::default();
        if version < 3 { request.with_member_id(text("absent")) } else { request.with_members(vec![member]) }
    });
}

fn descriptions(world: &mut World, topic_name: &str) {
    for state in ALL {
        let known = world.group(state, topic_name);
        world.ask(&format!("DescribeGroups, {state}"), |_, _| {
            DescribeGroupsRequest::default().with_groups(vec![group_id(&known.name), group_id("absent")])
        });
        world.ask(&format!("ConsumerGroupDescribe, {state}"), |_, _| {
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(&known.name), group_id("absent")])
        });
        world.ask(&format!("DeleteGroups, {state}"), |w, _| {
            let known = w.group(state, topic_name);
            DeleteGroupsRequest::default().with_groups_names(vec![group_id(&known.name), group_id("absent")])
        });
    }
    world.watched = vec![Watched::Group("absent".into())];
    for name in ["", " "] {
        world.ask(&format!("DescribeGroups: group `{name}`"), |_, _| {
            DescribeGroupsRequest::default().with_groups(vec![group_id(name), group_id(name)])
        });
        world.ask(&format!("ConsumerGroupDescribe: group `{name}`"), |_, _| {
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(name), group_id(name)])
        });
        world.ask(&format!("DeleteGroups: group `{name}`"), |_, _| {
            DeleteGroupsRequest::default().with_groups_names(vec![group_id(name), group_id(name)])
        });
    }
    world.ask("DescribeGroups: nothing", |_, _| DescribeGroupsRequest::default());
    world.ask("ConsumerGroupDescribe: nothing", |_, _| ConsumerGroupDescribeRequest::default());
    world.ask("DeleteGroups: nothing", |_, _| DeleteGroupsRequest::default());
    for filter in ["nonsense", "", "DEAD", "preparing rebalance"] {
        world.ask(&format!("ListGroups: state `{filter}`"), |_, _| {
            ListGroupsRequest::default().with_states_filter(vec![text(filter)])
        });
        world.ask(&format!("ListGroups: type `{filter}`"), |_, _| {
            ListGroupsRequest::default().with_types_filter(vec![text(filter)])
        });
    }
}
